/*
 * latents.c - latents to another size, as torch.nn.functional.interpolate (align_corners false):
 *
 *   output k lies at  x = (k + 1/2) n/m - 1/2  of the input; linear and cubic weigh the 2 (4) pixels around it, those
 *   beyond the border count as the border's; antialiased: reach and weights are stretched by n/m where that is above 1,
 *   pixels beyond the border do not count;  nearest: floor(k n/m), nearest-exact: floor((k + 1/2) n/m)
 */
#include "pipeline.h"

#include <math.h>

enum { MOST = 64 };                       /* taps: what shrinks by more than 8 is refused */

typedef struct { int at[MOST]; float weight[MOST]; int n; } taps;

/* Keys 1981 */
static double cubic(double x, double a)
{
    x = fabs(x);
    return x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

static void plain(taps *t, bool is_cubic, double x, int n)
{
    if (!is_cubic)
        x = fmax(x, 0);
    int low = (int)floor(x);
    double part = x - low;
    t->n = is_cubic ? 4 : 2;
    for (int k = 0; k < t->n; k++) {
        int i = low + k - (is_cubic ? 1 : 0);
        t->at[k] = KW_MAX(0, KW_MIN(i, n - 1));
        t->weight[k] = (float)(is_cubic ? cubic(part + 1 - k, -0.75) : k ? part : 1 - part);
    }
}

static void smooth(taps *t, bool is_cubic, double x, double scale, int n)
{
    double stretch = fmax(scale, 1), reach = (is_cubic ? 2 : 1) * stretch, sum = 0, w[MOST];
    int first = KW_MAX(0, (int)(x + 0.5 - reach + 0.5)), end = KW_MIN(n, (int)(x + 0.5 + reach + 0.5));
    t->n = KW_MIN(end - first, MOST);
    for (int k = 0; k < t->n; k++) {
        double d = (first + k - x) / stretch;
        sum += w[k] = is_cubic ? cubic(d, -0.5) : fmax(0, 1 - fabs(d));
    }
    for (int k = 0; k < t->n; k++) {
        t->at[k] = first + k;
        t->weight[k] = (float)(w[k] / sum);
    }
}

static void fill(taps *t, kw_latent_scale how, int k, int n, int m)
{
    double scale = (double)n / m, x = (k + 0.5) * scale - 0.5;
    bool is_cubic = how == KW_LATENT_BICUBIC || how == KW_LATENT_BICUBIC_SMOOTH;
    if (how == KW_LATENT_NEAREST || how == KW_LATENT_NEAREST_EXACT) {
        int at = (int)floor(how == KW_LATENT_NEAREST ? k * scale : x + 0.5);
        *t = (taps){ .at = { KW_MIN(at, n - 1) }, .weight = { 1 }, .n = 1 };
    } else if (how == KW_LATENT_BILINEAR_SMOOTH || how == KW_LATENT_BICUBIC_SMOOTH)
        smooth(t, is_cubic, x, scale, n);
    else
        plain(t, is_cubic, x, n);
}

static void resize_plane(kw_latent_scale how, const float *in, int h, int w, float *out, int out_h, int out_w,
                         float *rows)
{
    taps t;
    for (int x = 0; x < out_w; x++) {                       /* rows: (h, out_w) */
        fill(&t, how, x, w, out_w);
        for (int y = 0; y < h; y++) {
            float sum = 0;
            for (int k = 0; k < t.n; k++)
                sum += t.weight[k] * in[(size_t)y * (size_t)w + (size_t)t.at[k]];
            rows[(size_t)y * (size_t)out_w + (size_t)x] = sum;
        }
    }
    for (int y = 0; y < out_h; y++) {
        fill(&t, how, y, h, out_h);
        for (int x = 0; x < out_w; x++) {
            float sum = 0;
            for (int k = 0; k < t.n; k++)
                sum += t.weight[k] * rows[(size_t)t.at[k] * (size_t)out_w + (size_t)x];
            out[(size_t)y * (size_t)out_w + (size_t)x] = sum;
        }
    }
}

kw_status kw_latents_resize(kw_latent_scale how, const float *in, int planes, int h, int w, float *out, int out_h,
                            int out_w, kw_err *e)
{
    if (h < 1 || w < 1 || out_h < 1 || out_w < 1 || h > 8 * out_h || w > 8 * out_w)
        return kw_fail(e, KW_EUSAGE, "latents of %d x %d cannot become %d x %d", w, h, out_w, out_h);
    float *rows = kw_block_new((size_t)h * (size_t)out_w * sizeof *rows);
    if (!rows)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < planes; i++)
        resize_plane(how, in + (size_t)i * (size_t)h * (size_t)w, h, w, out + (size_t)i * (size_t)out_h * (size_t)out_w,
                     out_h, out_w, rows);
    kw_block_free(rows);
    return KW_OK;
}
