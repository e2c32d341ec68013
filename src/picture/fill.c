/*
 * fill.c - what a mask covers becomes a blur of what it leaves (A1111's masking.fill): the uncovered pixels, with the
 * covered ones transparent, are laid over each other blurred by 256, 64, 16, 4, 2 and 0 px, the least last.
 *
 * A Gaussian is three box blurs with fractional edges (Gwosdek 2011, "Theoretical foundations of Gaussian convolution
 * by extended box filtering"), as in Pillow: for n boxes  sigma^2/n = s,  L = sqrt(12 s + 1),  l = floor((L - 1)/2),
 * edge = (2l + 1)(l(l + 1) - 3s) / (6 (s - (l + 1)^2)).
 */
#include "internal.h"

#include <math.h>
#include <string.h>

enum { BOXES = 3, RGBA = 4 };

typedef struct { int whole; double edge; } box;

static box box_of(double sigma)
{
    double s = sigma * sigma / BOXES, l = floor((sqrt(12 * s + 1) - 1) / 2);
    return (box){ (int)l, (2 * l + 1) * (l * (l + 1) - 3 * s) / (6 * (s - (l + 1) * (l + 1))) };
}

/* n values `step` apart, borders continued; a running sum of 2 whole + 1 and two weighted edges. */
static void box_line(float *v, int n, size_t step, box b, float *old)
{
    for (int i = 0; i < n; i++)
        old[i] = v[(size_t)i * step];
    double sum = 0, all = 2 * b.whole + 1 + 2 * b.edge;
#define AT(i) ((double)old[KW_MAX(0, KW_MIN((i), n - 1))])
    for (int k = -b.whole; k <= b.whole; k++)
        sum += AT(k);
    for (int i = 0; i < n; i++) {
        v[(size_t)i * step] = (float)((sum + b.edge * (AT(i - b.whole - 1) + AT(i + b.whole + 1))) / all);
        sum += AT(i + b.whole + 1) - AT(i - b.whole);
    }
#undef AT
}

static void gauss(float *v, int w, int h, double sigma, float *line)
{
    box b = box_of(sigma);
    for (int round = 0; sigma > 0 && round < BOXES; round++)
        for (int c = 0; c < RGBA; c++) {
            for (int y = 0; y < h; y++)
                box_line(v + (size_t)y * (size_t)w * RGBA + c, w, RGBA, b, line);
            for (int x = 0; x < w; x++)
                box_line(v + (size_t)x * RGBA + c, h, (size_t)w * RGBA, b, line);
        }
}

/* Colours times alpha, and alpha, of what the mask leaves. */
static void premultiply(const kw_picture *p, const kw_picture *mask, float *out)
{
    for (size_t i = 0; i < (size_t)p->w * (size_t)p->h; i++) {
        float alpha = (float)(255 - mask->rgb[3 * i]) / 255;
        for (int c = 0; c < 3; c++)
            out[RGBA * i + (size_t)c] = alpha * p->rgb[3 * i + (size_t)c];
        out[RGBA * i + 3] = alpha;
    }
}

static void lay_over(float *below, const float *above, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (int c = 0; c < RGBA; c++)
            below[RGBA * i + (size_t)c] = above[RGBA * i + (size_t)c]
                + (1 - above[RGBA * i + 3]) * below[RGBA * i + (size_t)c];
}

/* Where nothing at all reaches it stays black, as there. */
static void take(kw_picture *p, const float *v)
{
    for (size_t i = 0; i < (size_t)p->w * (size_t)p->h; i++)
        for (int c = 0; c < 3; c++) {
            float a = v[RGBA * i + 3], x = a > 0 ? v[RGBA * i + (size_t)c] / a : 0;
            p->rgb[3 * i + (size_t)c] = (uint8_t)fminf(255, x + 0.5f);
        }
}

kw_status kw_picture_fill_in(kw_picture *p, const kw_picture *mask, kw_err *e)
{
    static const struct { double sigma; int times; } layers[] = { { 256, 1 }, { 64, 1 }, { 16, 2 }, { 4, 4 }, { 2, 2 },
                                                                 { 0, 1 } };
    KW_ASSERT(p->w == mask->w && p->h == mask->h);
    size_t n = (size_t)p->w * (size_t)p->h, bytes = n * RGBA * sizeof(float);
    float *sum = kw_block_new(bytes), *layer = kw_block_new(bytes);
    float *line = kw_block_new((size_t)KW_MAX(p->w, p->h) * sizeof *line);
    bool memory = sum && layer && line;
    if (memory)
        memset(sum, 0, bytes);
    for (size_t i = 0; memory && i < KW_LEN(layers); i++) {
        premultiply(p, mask, layer);
        gauss(layer, p->w, p->h, layers[i].sigma, line);
        for (int k = 0; k < layers[i].times; k++)
            lay_over(sum, layer, n);
    }
    if (memory)
        take(p, sum);
    kw_block_free(sum);
    kw_block_free(layer);
    kw_block_free(line);
    return memory ? KW_OK : kw_fail(e, KW_ENOMEM, "no memory to fill in a picture");
}
