/*
 * conv_weights.c - the gradient of a convolution's weight by our own tiles, f32 (see conv_tiles.c for what `at` is):
 *
 *     dw[tap][i][o]  = sum over p of at[tap][p][i] * dy[p][o]
 *
 * Gradients lie in panels of `width` outputs, (out/width, kh, kw, in, width). Every sum has a fixed order; threads
 * share panels, except that few panels make the pixels be summed in slices, whose number depends on the number of
 * threads.
 */
#include "conv.h"
#include "conv_tile.h"

#include <string.h>

enum { TAPS = 49, PIXELS = 256, L2 = 256 << 10 };

static int ceil_div(int64_t a, int64_t b) { return (int)((a + b - 1) / b); }

static int64_t pixels_of(const kw_conv_shape *s) { return (int64_t)s->n * kw_conv_out_h(s) * kw_conv_out_w(s); }

/* ---- plan ------------------------------------------------------------------------------------------------ */

/*
 * The gradient of the weight is split by groups of panels and slices of the pixels, one of each for a task. With 4
 * panels or more for each thread a dense copy of x pays, which a group shares; its dy of one block fills half the
 * second cache. With fewer, every panel is a group, and the fewer they are the more slices.
 */
static void split_weights(kw_conv_weights *p)
{
    int threads = kw_threads(), most = L2 / 4 / (PIXELS * p->tile->width);
    bool dense = p->panels >= 4 * threads;
    p->pixels = dense ? PIXELS : (int)KW_MAX(32, KW_MIN((int64_t)PIXELS, L2 / (4 * (int64_t)p->s.in)));
    p->groups = dense ? threads * ceil_div(p->panels, (int64_t)threads * most) : p->panels;
    p->group = ceil_div(p->panels, p->groups);
    p->groups = ceil_div(p->panels, p->group);
    p->slices = 1;
    while (p->slices < threads && p->slices * 2 <= pixels_of(&p->s) / p->pixels && (p->slices * p->groups) % threads
           && p->slices * p->groups < 4 * threads)
        p->slices *= 2;
}

/* scratch of weights:  [double sums] [zeros] [packed dy of each task] [other slices of dw] */
static size_t weights_scratch(const kw_conv_weights *p)
{
    size_t row = (size_t)(p->panels * p->tile->width), task = (size_t)(p->group * p->pixels * p->tile->width);
    return row * (size_t)p->slices * sizeof(double)
         + ((size_t)p->s.in + 16 + task * (size_t)(p->groups * p->slices)
            + (size_t)(p->slices - 1) * (size_t)(p->panel_size * p->panels)) * sizeof(float);
}

bool kw_conv_weights_plan(const kw_conv_shape *s, kw_conv_weights *p)
{
    const kw_conv_tile *tile = kw_conv_tile_get();
    int taps = s->kh * s->kw;
    if (taps > TAPS || s->in < tile->rows)
        return false;
    *p = (kw_conv_weights){ .s = *s, .tile = tile, .taps = taps, .panels = ceil_div(s->out, tile->width) };
    p->panel_size = (int64_t)taps * s->in * tile->width;
    split_weights(p);
    p->scratch_size = weights_scratch(p);
    return true;
}

void kw_conv_weights_layout(const kw_conv_weights *p, int64_t *at_o, int64_t *at_i, int64_t *at_h, int64_t *at_w)
{
    int width = p->tile->width;
    for (int o = 0; o < p->s.out; o++)
        at_o[o] = o / width * p->panel_size + o % width;
    for (int i = 0; i < p->s.in; i++)
        at_i[i] = (int64_t)i * width;
    for (int h = 0; h < p->s.kh; h++)
        at_h[h] = (int64_t)h * p->s.kw * p->s.in * width;
    for (int w = 0; w < p->s.kw; w++)
        at_w[w] = (int64_t)w * p->s.in * width;
}

/* ---- gradient of the weight ---------------------------------------------------------------------------------- */

/* The panel's columns of `count` pixels, dense and padded with zeros, and their sums. */
static void pack_dy(const kw_conv_weights *p, const float *dy, int panel, int64_t first, int count, float *to,
                    double *sums)
{
    int width = p->tile->width, columns = KW_MIN(width, p->s.out - panel * width);
    float sum[KW_TILE_MAX] = { 0 };
    dy += first * p->s.out + panel * width;
    for (int k = 0; k < count; k++, dy += p->s.out, to += width) {
        for (int c = 0; c < columns; c++) {
            to[c] = dy[c];
            sum[c] += dy[c];
        }
        for (int c = columns; c < width; c++)
            to[c] = 0;
    }
    for (int c = 0; c < width; c++)
        sums[c] += (double)sum[c];
}

/*
 * All taps and inputs of one block of pixels for panel0..panel1, whose dy is packed panel by panel. The last rows
 * overlap the ones before and are counted once.
 */
static void block_weights(const kw_conv_weights *p, const float *x, const float *zeros, int64_t first, int count,
                          const float *dy, bool add, float *dw, int panel0, int panel1)
{
    const kw_conv_tile *t = p->tile;
    const float *at[PIXELS];
    _Alignas(64) float dense[PIXELS * 12];
    for (int tap = 0; tap < p->taps; tap++) {
        kw_conv_point(&p->s, x, zeros, tap / p->s.kw, tap % p->s.kw, first, count, at);
        for (int i = 0; i < p->s.in; i += t->rows) {
            int from = KW_MIN(i, p->s.in - t->rows);
            float *to = dw + panel0 * p->panel_size + ((int64_t)tap * p->s.in + from) * t->width;
            if (p->group == 1) {
                t->weights(at, from, count, dy, add, to, i - from);
                continue;
            }
            t->gather(at, from, count, dense);
            for (int panel = panel0; panel < panel1; panel++, to += p->panel_size)
                t->dense(dense, dy + (panel - panel0) * p->pixels * t->width, count, NULL, add, to, t->width, i - from);
        }
    }
}

/* One slice of the pixels, one group of panels; packed: room for a block of dy. */
static void slice_weights(const kw_conv_weights *p, const float *x, const float *zeros, const float *dy, int slice,
                          int group, float *dw, double *sums, float *packed)
{
    int64_t pixels = pixels_of(&p->s), blocks = ceil_div(pixels, p->pixels);
    int64_t begin = blocks * slice / p->slices, end = blocks * (slice + 1) / p->slices;
    int width = p->tile->width, panel0 = group * p->group, panel1 = KW_MIN(p->panels, panel0 + p->group);
    for (int64_t k = begin; k < end; k++) {
        int64_t first = k * p->pixels;
        int count = (int)KW_MIN(p->pixels, pixels - first);
        for (int panel = panel0; panel < panel1; panel++)
            pack_dy(p, dy, panel, first, count, packed + (panel - panel0) * p->pixels * width, sums + panel * width);
        block_weights(p, x, zeros, first, count, packed, k > begin, dw, panel0, panel1);
    }
}

void kw_conv_weights_run(const kw_conv_weights *p, const float *x, const float *dy, float *dw, float *dbias,
                           void *scratch)
{
    int64_t row = (int64_t)p->panels * p->tile->width, size = p->panel_size * p->panels;
    int64_t task = (int64_t)p->group * p->pixels * p->tile->width;
    double *sums = scratch;
    float *zeros = (float *)(sums + row * p->slices), *packed = zeros + p->s.in + 16;
    float *others = packed + task * p->groups * p->slices;
    memset(scratch, 0, (size_t)row * (size_t)p->slices * sizeof *sums + (size_t)p->s.in * sizeof *zeros);
#pragma omp parallel for collapse(2) schedule(static)
    for (int slice = 0; slice < p->slices; slice++)
        for (int g = 0; g < p->groups; g++)
            slice_weights(p, x, zeros, dy, slice, g, slice ? others + (slice - 1) * size : dw, sums + slice * row,
                          packed + task * (slice * p->groups + g));
    for (int slice = 1; slice < p->slices; slice++) {
        const float *from = others + (slice - 1) * size;
#pragma omp parallel for simd schedule(static)
        for (int64_t k = 0; k < size; k++)
            dw[k] += from[k];
        for (int64_t c = 0; c < row; c++)
            sums[c] += sums[slice * row + c];
    }
    for (int c = 0; c < p->s.out && dbias; c++)
        dbias[c] = (float)sums[c];
}
