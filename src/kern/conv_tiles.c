/*
 * conv_tiles.c - our own convolution in f32, for machines on which oneDNN is slow (see the rule in conv.c).
 *
 * A convolution is a product without its big matrix: column q of the one factor, the picture under the kernel at
 * output pixel q, is kh*kw runs of `in` channels that lie in x already. So a tile of pixels is a table of pointers
 * into x, one for each tap of the kernel, and a row of zeros stands for the border:
 *
 *     y[q][o] = sum over tap, i of at[tap][q][i] * w[tap][i][o]        backward-data: the same, turned round
 *
 * Outputs are cut into panels, as wide as a tile, most of the wide form and up to two of the narrow one (320 = 12 * 24
 * + 2 * 16). The sum is cut into chunks of some 192 steps, whose part of a panel (18 KB) stays in the first cache.
 * Weights lie as they are read, (chunks of in, panels, kh, kw, in of the chunk, width), whatever the picture's size;
 * while one part is used the next is called from memory, which the processor does not foresee across a page's end.
 *
 * Work is shared by blocks of pixels and groups of panels; their sums (m) stay in the second cache. Each sum has one
 * order, so the bits do not depend on the number of threads, and threads take blocks as they become free.
 */
#include "conv.h"
#include "conv_tile.h"
#include "rows.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

enum { BLOCK = 96, STEPS = 192, TAPS = 49, SUMS = 48 << 10, LINE = 64 };

static int ceil_div(int64_t a, int64_t b) { return (int)((a + b - 1) / b); }
static int64_t pixels_of(const kw_conv_shape *s) { return (int64_t)s->n * kw_conv_out_h(s) * kw_conv_out_w(s); }

int kw_conv_panel_width(const kw_conv_tiles *p, int panel) { return p->tile->form[panel >= p->wide].width; }

int kw_conv_panel_at(const kw_conv_tiles *p, int panel)
{
    int wide = KW_MIN(panel, p->wide);
    return wide * p->tile->form[0].width + (panel - wide) * p->tile->form[1].width;
}

const float *kw_conv_part(const kw_conv_tiles *p, const float *w, int i, int n, int panel)
{
    return w + ((ptrdiff_t)i * p->padded + (ptrdiff_t)kw_conv_panel_at(p, panel) * n) * p->taps;
}

/* A row of zeros is as long as a row of x, or a panel. */
static int zeros_of(const kw_conv_tiles *p) { return KW_MAX(p->s.in, KW_TILE_WIDTH_MAX) + 16; }

/* ---- plan ------------------------------------------------------------------------------------------------ */

/* As many wide panels and as few narrow ones as leave least empty. */
static void cut_panels(kw_conv_tiles *p)
{
    int wide = p->tile->form[0].width, narrow = p->tile->form[1].width;
    p->padded = 0;
    for (int n = 0; n <= 2; n++) {
        int w = ceil_div(KW_MAX(0, p->s.out - n * narrow), wide), padded = w * wide + n * narrow;
        if (!p->padded || padded < p->padded)
            p->padded = padded, p->wide = w, p->panels = w + n;
    }
}

/* Panels for one task: the sums of a block in the second cache, and several tasks for each thread. */
static void group_panels(kw_conv_tiles *p, int products)
{
    int most = KW_MAX(1, SUMS / (products * p->room * p->tile->form[0].width));
    int groups = KW_MAX(ceil_div(p->panels, most), KW_MIN(p->panels, ceil_div(8 * p->threads, p->blocks)));
    p->group = ceil_div(p->panels, groups);
}

static void cut_pixels(kw_conv_tiles *p)
{
    int64_t pixels = pixels_of(&p->s);
    int size = BLOCK;
    while (size > KW_TILE_ROOM && pixels * p->panels < (int64_t)8 * size * p->threads)
        size -= KW_TILE_ROOM;
    p->rows = 1;
    p->blocks = ceil_div(pixels, size);
    p->columns = (int)KW_MIN(size, (ceil_div(pixels, p->blocks) + 11) / 12 * 12);
    p->blocks = ceil_div(pixels, p->columns);
    p->room = ceil_div(p->columns, KW_TILE_ROOM) * KW_TILE_ROOM;
    group_panels(p, 1);
    p->each = (size_t)p->group * (size_t)(p->room * p->tile->form[0].width);
}

/* scratch: [zeros] [bias] then for each thread [at] [m] [v] [u] */
void kw_conv_scratch_plan(kw_conv_tiles *p)
{
    p->m_at = ((size_t)(p->taps * p->room) * 2 + 15) & ~(size_t)15;        /* a pointer takes the room of 2 numbers */
    p->v_at += p->m_at;
    p->u_at += p->m_at;
    p->each = (p->each + p->m_at + 15) & ~(size_t)15;
    p->shared = ((size_t)zeros_of(p) + (size_t)p->padded + 15) & ~(size_t)15;
    p->scratch_size = (p->shared + p->each * (size_t)p->threads) * sizeof(float);
}

bool kw_conv_tiles_plan(const kw_conv_shape *s, bool winograd, kw_conv_tiles *p)
{
    int taps = s->kh * s->kw;
    if (taps > TAPS || (winograd && (s->kw != 3 || s->stride != 1)))
        return false;
    *p = (kw_conv_tiles){ .s = *s, .tile = kw_conv_tile_get(), .winograd = winograd, .taps = taps,
                          .threads = kw_threads() };
    cut_panels(p);
    p->chunk = ceil_div(s->in, ceil_div(s->in, KW_MAX(8, STEPS / s->kw)));
    p->chunk = KW_MIN(s->in, (p->chunk + 3) / 4 * 4);
    p->chunk_rows = KW_MAX(1, KW_MIN(s->kh, STEPS / (s->kw * p->chunk)));
    p->packed = (size_t)s->in * (size_t)(taps * p->padded);
    if (winograd)
        kw_conv_winograd_plan(p);
    else
        cut_pixels(p);
    kw_conv_scratch_plan(p);
    return true;
}

void kw_conv_tiles_text(const kw_conv_tiles *p, char *text, size_t size)
{
    snprintf(text, size, "F32 panels %d*%d+%d*%d of %d: %d %d %d %d", p->wide, p->tile->form[0].width,
             p->panels - p->wide, p->tile->form[1].width, p->chunk, p->s.out, p->s.in, p->s.kh, p->s.kw);
}

/* ---- the weight ------------------------------------------------------------------------------------------ */

enum { MAX_RUN = 16384, EDGE = 16 };

/* Some inputs by the outputs of a panel: from[i*i_step + o*o_step + tap], taps backwards if turned. */
static void pack_block(const kw_conv_tiles *p, const float *from, ptrdiff_t i_step, ptrdiff_t o_step, int count,
                       int high, bool turned, float *to, int n, int width)
{
    for (int tap = 0; tap < p->taps; tap++, to += (ptrdiff_t)n * width) {
        const float *w = from + (turned ? p->taps - 1 - tap : tap);
        for (int i = 0; i < count; i++)
            for (int o = 0; o < high; o++)
                to[i * width + o] = w[i * i_step + o * o_step];
    }
}

/*
 * The part of a panel and a chunk; w: (out, in, taps), or turned (in, out, taps). In steps of 16 inputs, so that both
 * sides of a step fit into the first cache.
 */
static void pack_part(const kw_conv_tiles *p, kw_dtype type, const char *w, bool turned, int i0, int n, int panel,
                      float *to)
{
    int width = kw_conv_panel_width(p, panel), o0 = kw_conv_panel_at(p, panel), high = KW_MIN(width, p->s.out - o0);
    int edge = KW_MAX(1, KW_MIN(EDGE, MAX_RUN / (p->taps * width)));
    float wide[MAX_RUN];
    if (high < width)
        memset(to, 0, sizeof *to * (size_t)(p->taps * n * width));
    for (int i = 0; i < n; i += edge) {
        int count = KW_MIN(edge, n - i), runs = turned ? count : high, run = (turned ? high : count) * p->taps;
        for (int k = 0; k < runs; k++) {
            int outer = turned ? i0 + i + k : o0 + k, inner = turned ? o0 : i0 + i;
            kw_widen_part(wide + k * run, type, w, turned ? p->s.in : p->s.out,
                          (int64_t)(turned ? p->s.out : p->s.in) * p->taps, outer, (int64_t)inner * p->taps, run);
        }
        pack_block(p, wide, turned ? run : p->taps, turned ? p->taps : run, count, high, turned, to + i * width, n,
                   width);
    }
}

void kw_conv_tiles_pack(const kw_conv_tiles *p, kw_dtype from, const void *w, bool turned, float *packed)
{
    int chunks = ceil_div(p->s.in, p->chunk);
#pragma omp parallel for collapse(2) schedule(static)
    for (int panel = 0; panel < p->panels; panel++)
        for (int k = 0; k < chunks; k++) {
            int i = k * p->chunk, n = KW_MIN(p->chunk, p->s.in - i);
            pack_part(p, from, w, turned, i, n, panel, packed + (kw_conv_part(p, packed, i, n, panel) - packed));
        }
}

/* Where tap (h, w) of the output pixels from `first` on finds its channels; `zeros` outside and behind the last. */
void kw_conv_point(const kw_conv_shape *s, const float *x, const float *zeros, int h, int w, int64_t first, int count,
                   const float **to)
{
    int oh = kw_conv_out_h(s), ow = kw_conv_out_w(s), q = (int)(first % ow), r = (int)(first / ow % oh);
    int64_t n = first / ow / oh;
    for (int k = 0; k < count;) {
        int row = r * s->stride + h - s->pad_top, end = KW_MIN(count, k + ow - q),
            column = q * s->stride + w - s->pad_left;
        if (n >= s->n || row < 0 || row >= s->h) {
            for (; k < end; k++)
                to[k] = zeros;
        } else {
            const float *line = x + (n * s->h + row) * s->w * s->in;
            for (; k < end; k++, column += s->stride)
                to[k] = column >= 0 && column < s->w ? line + (ptrdiff_t)column * s->in : zeros;
        }
        q = 0;
        if (++r == oh) {
            r = 0;
            n++;
        }
    }
}

/* ---- running --------------------------------------------------------------------------------------------- */

void kw_conv_ahead(kw_conv_block *b, int i, int n, int panel)
{
    const float *w = kw_conv_part(b->p, b->w, i, n, panel);
    b->ahead = (const char *)w;
    b->ahead_end = (const char *)(w + (ptrdiff_t)b->p->taps * n * kw_conv_panel_width(b->p, panel));
}

void kw_conv_columns(kw_conv_block *b, int panel, const float *const *at, int taps, ptrdiff_t first, int n,
                     const float *w, ptrdiff_t w_step, bool add, float *m, int lines)
{
    const kw_tile_form *f = &b->p->tile->form[panel >= b->p->wide];
    for (int q = 0; q < b->count; q += f->rows, m += f->rows * f->width) {
        for (int k = 0; k < lines && b->ahead < b->ahead_end; k++, b->ahead += LINE)
            __builtin_prefetch(b->ahead, 0, 2);
        if (add)
            for (int k = 0; k < f->rows * f->width; k += LINE / 4)
                __builtin_prefetch(m + f->rows * f->width + k, 1, 3);
        f->run(at + q, b->p->room, taps, first, n, w, w_step, add, m);
    }
}

static void put(const kw_conv_block *b, int64_t first)
{
    const kw_conv_tiles *p = b->p;
    const float *m = b->m;
    for (int panel = b->panel0; panel < b->panel1; panel++) {
        int width = kw_conv_panel_width(p, panel), o = kw_conv_panel_at(p, panel);
        int columns = KW_MIN(width, p->s.out - o);
        const float *bias = b->bias + o;
        for (int q = 0; q < b->count; q++) {
            float *y = b->y + (first + q) * p->s.out + o;
            const float *from = m + (ptrdiff_t)q * width;
            for (int c = 0; c < columns; c++)
                y[c] = from[c] + bias[c];
        }
        m += p->room * width;
    }
}

/* One chunk of inputs of one panel: the rows of the kernel, some at a time. */
static void chunk(kw_conv_block *b, int panel, int i, int n, float *m)
{
    const kw_conv_tiles *p = b->p;
    int width = kw_conv_panel_width(p, panel), tiles = ceil_div(b->count, p->tile->form[panel >= p->wide].rows);
    int visits = ceil_div(p->s.kh, p->chunk_rows);
    int lines = ceil_div(b->ahead_end - b->ahead, (int64_t)LINE * tiles * visits);
    const float *w = kw_conv_part(p, b->w, i, n, panel);
    ptrdiff_t slab = (ptrdiff_t)n * width;
    for (int h = 0; h < p->s.kh; h += p->chunk_rows) {
        int taps = KW_MIN(p->chunk_rows, p->s.kh - h) * p->s.kw;
        kw_conv_columns(b, panel, b->at + (ptrdiff_t)h * p->s.kw * p->room, taps, i, n, w + h * p->s.kw * slab, slab,
                        i || h, m, lines);
    }
}

static void direct_block(kw_conv_block *b, int block)
{
    const kw_conv_tiles *p = b->p;
    int64_t first = (int64_t)block * p->columns;
    b->count = (int)KW_MIN(p->columns, pixels_of(&p->s) - first);
    for (int tap = 0; tap < p->taps; tap++)
        kw_conv_point(&p->s, b->x, b->zeros, tap / p->s.kw, tap % p->s.kw, first, p->room,
                      b->at + (ptrdiff_t)tap * p->room);
    for (int i = 0; i < p->s.in; i += p->chunk) {
        int n = KW_MIN(p->chunk, p->s.in - i);
        float *m = b->m;
        for (int panel = b->panel0; panel < b->panel1; panel++) {
            if (panel + 1 < b->panel1)
                kw_conv_ahead(b, i, n, panel + 1);
            else if (i + n < p->s.in)
                kw_conv_ahead(b, i + n, KW_MIN(p->chunk, p->s.in - i - n), b->panel0);
            chunk(b, panel, i, n, m);
            m += p->room * kw_conv_panel_width(p, panel);
        }
    }
    put(b, first);
}

void kw_conv_tiles_forward(const kw_conv_tiles *p, const float *x, const float *w, const float *bias, float *y,
                           void *scratch)
{
    float *zeros = scratch, *wide_bias = zeros + zeros_of(p);
    int groups = ceil_div(p->panels, p->group);
    memset(scratch, 0, p->shared * sizeof(float));
    if (bias)
        memcpy(wide_bias, bias, (size_t)p->s.out * sizeof *bias);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(p->threads)
    for (int g = 0; g < groups; g++)
        for (int k = 0; k < p->blocks; k++) {
            float *own = zeros + p->shared + p->each * (size_t)omp_get_thread_num();
            kw_conv_block b = { .p = p, .x = x, .w = w, .zeros = zeros, .bias = wide_bias, .y = y,
                                .at = (const float **)own,
                                .m = own + p->m_at, .v = own + p->v_at, .u = own + p->u_at, .panel0 = g * p->group,
                                .panel1 = KW_MIN(p->panels, (g + 1) * p->group) };
            if (p->winograd)
                kw_conv_winograd_block(&b, k);
            else
                direct_block(&b, k);
        }
}
