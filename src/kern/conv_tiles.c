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

enum { BLOCK = 96, STEPS = 192, TAPS = 49, SUMS = 48 << 10, LINE = 64, FEW = 128 };

static int ceil_div(int64_t a, int64_t b) { return (int)((a + b - 1) / b); }
static int64_t pixels_of(const kw_conv_shape *s) { return (int64_t)s->n * kw_conv_out_h(s) * kw_conv_out_w(s); }

int kw_conv_panel_width(const kw_conv_cut *c, int panel) { return c->tile->form[panel >= c->wide].width; }

int kw_conv_panel_at(const kw_conv_cut *c, int panel)
{
    int wide = KW_MIN(panel, c->wide);
    return wide * c->tile->form[0].width + (panel - wide) * c->tile->form[1].width;
}

ptrdiff_t kw_conv_part_at(const kw_conv_cut *c, int i, int n, int panel)
{
    return ((ptrdiff_t)i * c->padded + (ptrdiff_t)kw_conv_panel_at(c, panel) * n) * c->taps;
}

/* A row of zeros is as long as a row of x, or a panel. */
static int zeros_of(const kw_conv_tiles *p) { return KW_MAX(p->s.in, KW_TILE_WIDTH_MAX) + 16; }

/* ---- plan ------------------------------------------------------------------------------------------------ */

/* As many wide panels and as few narrow ones as leave least empty; equal chunks. */
static kw_conv_cut cut_weight(int in, int out, int kh, int kw)
{
    kw_conv_cut c = { .tile = kw_conv_tile_get(), .in = in, .out = out, .taps = kh * kw };
    int wide = c.tile->form[0].width, narrow = c.tile->form[1].width;
    for (int n = 0; n <= 2; n++) {
        int w = ceil_div(KW_MAX(0, out - n * narrow), wide), padded = w * wide + n * narrow;
        if (!c.padded || padded < c.padded)
            c.padded = padded, c.wide = w, c.panels = w + n;
    }
    c.chunk = ceil_div(in, ceil_div(in, KW_MAX(8, STEPS / kw)));
    c.chunk = KW_MIN(in, (c.chunk + 3) / 4 * 4);
    return c;
}

/*
 * Where the weight lies as another convolution wants it, chunks of inputs are whole panels of that one. Few pixels give
 * little work for each number that is turned round: then the turned part is smaller, to be there faster (8 x 8 pixels,
 * 1280 -> 1280, one thread: 15.0 ms with chunks of 48, 16.8 with 72; forward 12.4).
 */
static void cut_weights(kw_conv_tiles *p, bool turned)
{
    const kw_conv_shape *s = &p->s;
    int steps = STEPS / s->kw;
    p->cut = p->lies = cut_weight(s->in, s->out, s->kh, s->kw);
    if (!turned)
        return;
    int wide = p->tile->form[0].width;
    if (pixels_of(s) <= FEW)
        steps = steps * 3 / 4;
    p->lies = cut_weight(s->out, s->in, s->kh, s->kw);
    p->cut.chunk = KW_MIN(s->in, KW_MAX(1, (steps + wide / 2) / wide) * wide);
}

/* Panels for one task: the sums of a block in the second cache, and several tasks for each thread. */
static void group_panels(kw_conv_tiles *p, int products)
{
    int most = KW_MAX(1, SUMS / (products * p->room * p->tile->form[0].width));
    int groups = KW_MAX(ceil_div(p->cut.panels, most), KW_MIN(p->cut.panels, ceil_div(8 * p->threads, p->blocks)));
    p->group = ceil_div(p->cut.panels, groups);
}

static void cut_pixels(kw_conv_tiles *p)
{
    int64_t pixels = pixels_of(&p->s);
    int size = BLOCK;
    while (size > KW_TILE_ROOM && pixels * p->cut.panels < (int64_t)8 * size * p->threads)
        size -= KW_TILE_ROOM;
    p->rows = 1;
    p->blocks = ceil_div(pixels, size);
    p->columns = (int)KW_MIN(size, (ceil_div(pixels, p->blocks) + 11) / 12 * 12);
    p->blocks = ceil_div(pixels, p->columns);
    p->room = ceil_div(p->columns, KW_TILE_ROOM) * KW_TILE_ROOM;
    group_panels(p, 1);
    p->u_at = (size_t)p->group * (size_t)(p->room * p->tile->form[0].width);
    p->each = p->u_at + (p->turned ? (size_t)(p->taps * p->cut.chunk * p->tile->form[0].width) : 0);
}

/* scratch: [zeros] [bias] then for each thread [at] [m] [v] [u] */
void kw_conv_scratch_plan(kw_conv_tiles *p)
{
    p->m_at = ((size_t)(p->taps * p->room) * 2 + 15) & ~(size_t)15;        /* a pointer takes the room of 2 numbers */
    p->v_at += p->m_at;
    p->u_at += p->m_at;
    p->each = (p->each + p->m_at + 15) & ~(size_t)15;
    p->shared = ((size_t)zeros_of(p) + (size_t)p->cut.padded + 15) & ~(size_t)15;
    p->scratch_size = (p->shared + p->each * (size_t)p->threads) * sizeof(float);
}

bool kw_conv_tiles_plan(const kw_conv_shape *s, bool winograd, bool turned, kw_conv_tiles *p)
{
    int taps = s->kh * s->kw;
    if (taps > TAPS || (winograd && (s->kw != 3 || s->stride != 1)))
        return false;
    *p = (kw_conv_tiles){ .s = *s, .tile = kw_conv_tile_get(), .winograd = winograd, .turned = turned, .taps = taps,
                          .threads = kw_threads() };
    cut_weights(p, turned);
    p->chunk_rows = KW_MAX(1, KW_MIN(s->kh, STEPS / (s->kw * p->cut.chunk)));
    p->packed = (size_t)p->lies.in * (size_t)(taps * p->lies.padded);
    if (winograd)
        kw_conv_winograd_plan(p);
    else
        cut_pixels(p);
    kw_conv_scratch_plan(p);
    return true;
}

void kw_conv_tiles_text(const kw_conv_tiles *p, char *text, size_t size)
{
    const kw_conv_cut *l = &p->lies;
    snprintf(text, size, "F32 panels %d*%d+%d*%d of %d: %d %d %d %d", l->wide, l->tile->form[0].width,
             l->panels - l->wide, l->tile->form[1].width, l->chunk, l->out, l->in, p->s.kh, p->s.kw);
}

/* ---- the weight ------------------------------------------------------------------------------------------ */

enum { MAX_RUN = 16384, EDGE = 16 };

/* Some inputs by the outputs of a panel: from[o*o_step + i*taps + tap]. */
static void pack_block(const kw_conv_cut *l, const float *from, ptrdiff_t o_step, int count, int high, float *to, int n,
                       int width)
{
    ptrdiff_t slab = (ptrdiff_t)n * width;
    for (int i = 0; i < count; i++, from += l->taps, to += width)
        l->tile->turn(from, o_step, high, l->taps, to, slab);
}

/* What the next step will read lies a row of the file further, where the processor does not look by itself. */
static void call(const char *from, size_t bytes)
{
    for (size_t k = 0; k < bytes; k += LINE)
        __builtin_prefetch(from + k, 0, 2);
}

/*
 * The part of a panel and a chunk; w: (out, in, taps). In steps of 16 inputs, so that both sides of a step fit into the
 * first cache.
 */
static void pack_part(const kw_conv_cut *l, kw_dtype type, const char *w, int i0, int n, int panel, float *to)
{
    int width = kw_conv_panel_width(l, panel), o0 = kw_conv_panel_at(l, panel), high = KW_MIN(width, l->out - o0);
    int edge = KW_MAX(1, KW_MIN(EDGE, MAX_RUN / (l->taps * width)));
    size_t size = kw_dtype_size(type);
    float wide[MAX_RUN];
    if (high < width)
        memset(to, 0, sizeof *to * (size_t)(l->taps * n * width));
    for (int i = 0; i < n; i += edge) {
        int count = KW_MIN(edge, n - i), run = count * l->taps;
        int64_t each = (int64_t)l->in * l->taps, at = (int64_t)(i0 + i) * l->taps;
        for (int o = o0; o < o0 + high; o++) {
            call(w + (size_t)(o * each + at + run) * size, (size_t)run * size);
            kw_widen_part(wide + (o - o0) * run, type, w, l->out, each, o, at, run);
        }
        pack_block(l, wide, run, count, high, to + i * width, n, width);
    }
}

void kw_conv_tiles_pack(const kw_conv_tiles *p, kw_dtype from, const void *w, float *packed)
{
    const kw_conv_cut *l = &p->lies;
    int chunks = ceil_div(l->in, l->chunk);
#pragma omp parallel for collapse(2) schedule(static)
    for (int panel = 0; panel < l->panels; panel++)
        for (int k = 0; k < chunks; k++) {
            int i = k * l->chunk, n = KW_MIN(l->chunk, l->in - i);
            pack_part(l, from, w, i, n, panel, packed + kw_conv_part_at(l, i, n, panel));
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
    const kw_conv_tiles *p = b->p;
    b->ahead = b->ahead_end = NULL;
    b->next_n = b->left = 0;
    if (panel + 1 < b->panel1)
        b->next_panel = panel + 1;
    else if (i += n, i < p->s.in)
        n = KW_MIN(p->cut.chunk, p->s.in - i), b->next_panel = b->panel0;
    else
        return;
    b->next_i = i, b->next_n = n, b->next_run = 0;
}

int kw_conv_ahead_lines(const kw_conv_block *b, int visits)
{
    int width = b->next_n ? kw_conv_panel_width(&b->p->cut, b->next_panel) : 0;
    int lines = ceil_div((int64_t)b->p->taps * b->next_n * width * (int)sizeof(float), LINE);
    return ceil_div(b->p->turned ? lines + lines / 4 : lines, visits);    /* stretches begin and end within lines */
}

static bool find_run(const kw_conv_block *b, int which, kw_conv_run *run)
{
    const kw_conv_tiles *p = b->p;
    int i = b->next_i, n = b->next_n, panel = b->next_panel;
    if (p->turned)
        return kw_conv_turn_run(p, b->w, i, n, panel, which, run);
    ptrdiff_t size = (ptrdiff_t)p->taps * n * kw_conv_panel_width(&p->cut, panel) * (ptrdiff_t)sizeof(float);
    *run = (kw_conv_run){ (const char *)(b->w + kw_conv_part_at(&p->cut, i, n, panel)), size, 0, 1 };
    return !which;
}

/* The next stretch of what is called to the cache. */
static bool next_run(kw_conv_block *b)
{
    if (!b->left && (!b->next_n || !find_run(b, b->next_run++, &b->run))) {
        b->next_n = 0;
        return false;
    }
    b->left = (b->left ? b->left : b->run.count) - 1;
    b->ahead = b->run.at;
    b->ahead_end = b->ahead + b->run.size;
    b->run.at += b->run.step;
    return true;
}

void kw_conv_call(kw_conv_block *b, int lines)
{
    for (int k = 0; k < lines && (b->ahead < b->ahead_end || next_run(b)); k++, b->ahead += LINE)
        __builtin_prefetch(b->ahead, 0, 2);
}

void kw_conv_columns(kw_conv_block *b, int panel, const float *const *at, int taps, ptrdiff_t first, int n,
                     const float *w, ptrdiff_t w_step, bool add, float *m, int lines)
{
    const kw_tile_form *f = &b->p->tile->form[panel >= b->p->cut.wide];
    for (int q = 0; q < b->count; q += f->rows, m += f->rows * f->width) {
        kw_conv_call(b, lines);
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
        int width = kw_conv_panel_width(&p->cut, panel), o = kw_conv_panel_at(&p->cut, panel);
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
    int width = kw_conv_panel_width(&p->cut, panel), rows = p->tile->form[panel >= p->cut.wide].rows;
    int lines = kw_conv_ahead_lines(b, ceil_div(b->count, rows) * ceil_div(p->s.kh, p->chunk_rows));
    const float *w = p->turned ? b->u : b->w + kw_conv_part_at(&p->cut, i, n, panel);
    if (p->turned)
        kw_conv_turn_part(b, i, n, panel);
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
    for (int i = 0; i < p->s.in; i += p->cut.chunk) {
        int n = KW_MIN(p->cut.chunk, p->s.in - i);
        float *m = b->m;
        for (int panel = b->panel0; panel < b->panel1; panel++) {
            kw_conv_ahead(b, i, n, panel);
            chunk(b, panel, i, n, m);
            m += p->room * kw_conv_panel_width(&p->cut, panel);
        }
    }
    put(b, first);
}

void kw_conv_tiles_forward(const kw_conv_tiles *p, const float *x, const float *w, const float *bias, float *y,
                           void *scratch)
{
    float *zeros = scratch, *wide_bias = zeros + zeros_of(p);
    int groups = ceil_div(p->cut.panels, p->group);
    memset(scratch, 0, p->shared * sizeof(float));
    if (bias)
        memcpy(wide_bias, bias, (size_t)p->s.out * sizeof *bias);
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(p->threads)
    for (int g = 0; g < groups; g++)
        for (int k = 0; k < p->blocks; k++) {
            float *own = zeros + p->shared + p->each * (size_t)omp_get_thread_num();
            kw_conv_block b = { .p = p, .x = x, .w = w, .zeros = zeros, .bias = wide_bias, .y = y,
                                .at = (const float **)own,
                                .m = own + p->m_at, .v = own + p->v_at, .u = own + p->u_at,
                                .panel0 = g * p->group,
                                .panel1 = KW_MIN(p->cut.panels, (g + 1) * p->group) };
            if (p->winograd)
                kw_conv_winograd_block(&b, k);
            else
                direct_block(&b, k);
        }
}
