/*
 * conv_winograd.c - convolution with half the products: Winograd's F(4, 3) along the rows of the picture, for kernels 3
 * wide with stride 1. Four outputs that lie side by side come from six products instead of twelve:
 *
 *     V = B^T d    six pixels of a row of x, with the border   spread,  once for each block of y
 *     U = G g      the three taps of a row of the kernel       derive,  once for each block and panel; U0 and U5 are g
 *                                                              (of a turned weight they are copies: conv_turn.c)
 *     M = sum over rows of the kernel and i of V * U           six products, tiles as in conv_tiles.c
 *     y = A^T M + bias                                         join
 *
 * The weight stays packed as it is for the direct way: U is made in cache when it is needed, and takes no memory.
 * Only one direction is transformed, which costs little accuracy: relative L2 error over 320 channels 1.6e-6, of the
 * direct sum 0.9e-6.
 *
 * Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, 2015.
 */
#include "conv.h"
#include "conv_tile.h"

#include <omp.h>
#include <string.h>

enum { OUT = 4, POINTS = 6, COLUMNS = 16, COUNT = 64 };

static int ceil_div(int64_t a, int64_t b) { return (int)((a + b - 1) / b); }

/* A block: some rows of one picture, or some whole pictures; up to COLUMNS tiles of four pixels of each row. */
typedef struct { int picture, pictures, row, rows, tile, tiles; } place;

static int strips_of(const kw_conv_tiles *p)
{
    int oh = kw_conv_out_h(&p->s);
    return p->rows < oh ? p->s.n * ceil_div(oh, p->rows) : ceil_div(p->s.n, p->rows / oh);
}

static place place_of(const kw_conv_tiles *p, int block)
{
    int oh = kw_conv_out_h(&p->s), tiles = ceil_div(kw_conv_out_w(&p->s), OUT), across = ceil_div(tiles, p->columns);
    int strip = block / across, each = p->rows < oh ? ceil_div(oh, p->rows) : 1, many = p->rows < oh ? 1 : p->rows / oh;
    place a = { .picture = strip / each * many, .row = p->rows < oh ? strip % each * p->rows : 0,
                .tile = block % across * p->columns };
    a.pictures = KW_MIN(many, p->s.n - a.picture);
    a.rows = KW_MIN(KW_MIN(p->rows, oh), oh - a.row);
    a.tiles = KW_MIN(p->columns, tiles - a.tile);
    return a;
}

static void cut(kw_conv_tiles *p, int count)
{
    int oh = kw_conv_out_h(&p->s), tiles = ceil_div(kw_conv_out_w(&p->s), OUT);
    p->columns = ceil_div(tiles, ceil_div(tiles, KW_MIN(count, COLUMNS)));
    int rows = KW_MAX(1, count / p->columns);
    p->rows = rows < oh ? ceil_div(oh, ceil_div(oh, rows)) : KW_MIN(rows / oh, p->s.n) * oh;
    p->blocks = strips_of(p) * ceil_div(tiles, p->columns);
    p->room = ceil_div(p->rows * p->columns, KW_TILE_ROOM) * KW_TILE_ROOM;
}

void kw_conv_winograd_plan(kw_conv_tiles *p)
{
    int oh = kw_conv_out_h(&p->s), count = COUNT, width = p->tile->form[0].width;
    cut(p, count);
    while (count > KW_TILE_ROOM && p->blocks * p->cut.panels < 4 * p->threads)
        cut(p, count /= 2);
    int slots = p->rows < oh ? p->rows + p->s.kh - 1 : p->rows / oh * (oh + p->s.kh - 1);
    int most = KW_MAX(1, (48 << 10) / (POINTS * p->room * width));
    int groups = KW_MAX(ceil_div(p->cut.panels, most), KW_MIN(p->cut.panels, ceil_div(8 * p->threads, p->blocks)));
    p->group = ceil_div(p->cut.panels, groups);
    p->v_at = (size_t)p->group * (size_t)(POINTS * p->room * width);
    p->u_at = p->v_at + ((size_t)(POINTS * slots * p->columns * p->cut.chunk) + 15) / 16 * 16;
    p->each = p->u_at + (size_t)((p->turned ? POINTS : 4) * p->s.kh * p->cut.chunk * width);
}

/* ---- one block ------------------------------------------------------------------------------------------- */

/* V of inputs i..i+n: (points, slots, tiles, n); a slot is a row of x, or of the border. */
static void spread(const kw_conv_block *b, const place *a, int i, int n)
{
    const kw_conv_shape *s = &b->p->s;
    int slots = a->rows + s->kh - 1;
    ptrdiff_t step = (ptrdiff_t)a->pictures * slots * a->tiles * n;
    float *v = b->v;
    for (int slot = 0; slot < a->pictures * slots; slot++) {
        int picture = a->picture + slot / slots, row = a->row + slot % slots - s->pad_top;
        const float *line = b->x + ((ptrdiff_t)picture * s->h + row) * s->w * s->in;
        for (int t = 0; t < a->tiles; t++, v += n) {
            const float *x[POINTS];
            for (int k = 0; k < POINTS; k++) {
                int column = (a->tile + t) * OUT + k - s->pad_left;
                bool inside = row >= 0 && row < s->h && column >= 0 && column < s->w;
                x[k] = inside ? line + (ptrdiff_t)column * s->in + i : b->zeros;
            }
            b->p->tile->spread(x, 0, n, v, step);
        }
    }
}

/* at[h][q]: the column of V at point 0 for row h of the kernel. */
static void point(kw_conv_block *b, const place *a, int n)
{
    const kw_conv_tiles *p = b->p;
    int slots = a->rows + p->s.kh - 1, q = 0;
    for (int k = 0; k < a->pictures; k++)
        for (int r = 0; r < a->rows; r++)
            for (int t = 0; t < a->tiles; t++, q++)
                for (int h = 0; h < p->s.kh; h++)
                    b->at[h * p->room + q] = b->v + ((ptrdiff_t)(k * slots + r + h) * a->tiles + t) * n;
    b->count = q;
    for (; q < p->room; q++)
        for (int h = 0; h < p->s.kh; h++)
            b->at[h * p->room + q] = b->v;
}

static void panel_products(kw_conv_block *b, const place *a, int panel, int i, int n, float *m)
{
    const kw_conv_tiles *p = b->p;
    int width = kw_conv_panel_width(&p->cut, panel), kh = p->s.kh, rows = p->tile->form[panel >= p->cut.wide].rows;
    ptrdiff_t slab = (ptrdiff_t)n * width, v_step = (ptrdiff_t)a->pictures * (a->rows + kh - 1) * a->tiles * n;
    const float *w = b->w + (p->turned ? 0 : kw_conv_part_at(&p->cut, i, n, panel));
    int lines = kw_conv_ahead_lines(b, POINTS * ceil_div(b->count, rows) + (p->turned ? kh * KW_CONV_VISITS : 0));
    if (p->turned)
        kw_conv_turn_winograd(b, i, n, panel, lines);
    for (int h = 0; h < kh && !p->turned; h++)
        p->tile->derive(w + 3 * h * slab, slab, b->u + h * slab, kh * slab);
    for (int u = 0; u < POINTS; u++, m += (ptrdiff_t)p->room * width) {
        bool raw = !p->turned && (u == 0 || u == POINTS - 1);
        const float *from = raw ? w + (u ? 2 * slab : 0) : b->u + (p->turned ? u : u - 1) * kh * slab;
        kw_conv_columns(b, panel, b->at, kh, u * v_step, n, from, raw ? 3 * slab : slab, i > 0, m, lines);
    }
}

static void join(const kw_conv_block *b, const place *a, int panel, const float *m)
{
    const kw_conv_tiles *p = b->p;
    int width = kw_conv_panel_width(&p->cut, panel), o = kw_conv_panel_at(&p->cut, panel);
    int columns = KW_MIN(width, p->s.out - o);
    int oh = kw_conv_out_h(&p->s), ow = kw_conv_out_w(&p->s);
    ptrdiff_t m_step = (ptrdiff_t)p->room * width;
    for (int q = 0; q < b->count; q++, m += width) {
        int r = q / a->tiles, column = (a->tile + q % a->tiles) * OUT, count = KW_MIN(OUT, ow - column);
        ptrdiff_t row = (ptrdiff_t)(a->picture + r / a->rows) * oh + a->row + r % a->rows;
        float *y = b->y + (row * ow + column) * p->s.out + o, cut[OUT * KW_TILE_WIDTH_MAX];
        if (columns == width) {
            p->tile->join(m, m_step, b->bias + o, width, y, p->s.out, count);
            continue;
        }
        p->tile->join(m, m_step, b->bias + o, width, cut, width, count);
        for (int k = 0; k < count; k++)
            memcpy(y + (ptrdiff_t)k * p->s.out, cut + k * width, (size_t)columns * sizeof *y);
    }
}

void kw_conv_winograd_block(kw_conv_block *b, int block)
{
    const kw_conv_tiles *p = b->p;
    place a = place_of(p, block);
    int n = 0;
    for (int i = 0; i < p->s.in; i += n) {
        float *m = b->m;
        if (n != KW_MIN(p->cut.chunk, p->s.in - i))
            point(b, &a, n = KW_MIN(p->cut.chunk, p->s.in - i));
        spread(b, &a, i, n);
        for (int panel = b->panel0; panel < b->panel1; panel++) {
            kw_conv_ahead(b, i, n, panel);
            panel_products(b, &a, panel, i, n, m);
            m += (ptrdiff_t)POINTS * p->room * kw_conv_panel_width(&p->cut, panel);
        }
    }
    const float *m = b->m;
    for (int panel = b->panel0; panel < b->panel1; panel++) {
        join(b, &a, panel, m);
        m += (ptrdiff_t)POINTS * p->room * kw_conv_panel_width(&p->cut, panel);
    }
}

/* ---- the gradient of the weight ----------------------------------------------------------------------------- */

/*
 * dU[u][h][i][o] = sum over tiles q of V[u][q + h][i] * D[u][q][o],  D = A dy;  dg = G^T dU
 *
 * A task has some panels and a chunk of inputs, and goes over all blocks of pixels; its dU stays in the second cache.
 * So each sum has one order whatever the number of threads.
 *
 * scratch of a thread: [at] [dU of the group] [V] [D of a panel] [dg of a panel]
 */
static int sum_rows(const kw_conv_tiles *p) { return ceil_div(p->cut.chunk, KW_TILE_ROOM) * KW_TILE_ROOM; }

bool kw_conv_winograd_weights_plan(const kw_conv_shape *s, kw_conv_tiles *p)
{
    if (s->in < 4 || !kw_conv_tiles_plan(s, true, false, p))
        return false;
    int oh = kw_conv_out_h(s), width = p->tile->form[0].width;
    kw_conv_cut *c = &p->cut;
    cut(p, COUNT);
    p->group = KW_MIN(2, c->panels);
    while (c->chunk > 16 && ceil_div(c->panels, p->group) * ceil_div(s->in, c->chunk) < 4 * p->threads)
        c->chunk = (c->chunk / 2 + 3) / 4 * 4;
    if (ceil_div(c->panels, p->group) * ceil_div(s->in, c->chunk) < 4 * p->threads)
        p->group = 1;
    int slots = p->rows < oh ? p->rows + s->kh - 1 : p->rows / oh * (oh + s->kh - 1);
    p->v_at = (size_t)p->group * (size_t)(POINTS * s->kh * sum_rows(p) * width);
    p->u_at = p->v_at + ((size_t)(POINTS * slots * p->columns * c->chunk) + 31) / 16 * 16;     /* a cut tile reads on */
    p->each = p->u_at + (size_t)(POINTS * p->room * width) + (size_t)(p->taps * c->chunk * width);
    kw_conv_scratch_plan(p);
    return true;
}

/* D of one panel: (points, room, width). */
static void unjoin(const kw_conv_block *b, const place *a, const float *dy, int panel, float *d)
{
    const kw_conv_tiles *p = b->p;
    int width = kw_conv_panel_width(&p->cut, panel), o = kw_conv_panel_at(&p->cut, panel);
    int columns = KW_MIN(width, p->s.out - o);
    int oh = kw_conv_out_h(&p->s), ow = kw_conv_out_w(&p->s);
    float cut[OUT * KW_TILE_WIDTH_MAX] = { 0 };
    for (int q = 0; q < b->count; q++, d += width) {
        int r = q / a->tiles, column = (a->tile + q % a->tiles) * OUT;
        ptrdiff_t row = (ptrdiff_t)(a->picture + r / a->rows) * oh + a->row + r % a->rows;
        const float *from[OUT];
        for (int k = 0; k < OUT; k++) {
            from[k] = column + k < ow ? dy + (row * ow + column + k) * p->s.out + o : b->zeros;
            if (columns < width)
                from[k] = memcpy(cut + k * width, from[k], (size_t)columns * sizeof *cut);
        }
        p->tile->unjoin(from, width, d, (ptrdiff_t)p->room * width);
    }
}

static void block_sums(kw_conv_block *b, const place *a, const float *dy, int n, bool add)
{
    const kw_conv_tiles *p = b->p;
    int kh = p->s.kh;
    ptrdiff_t v_step = (ptrdiff_t)a->pictures * (a->rows + kh - 1) * a->tiles * n;
    float *to = b->m;
    for (int panel = b->panel0; panel < b->panel1; panel++) {
        const kw_tile_form *f = &p->tile->form[panel >= p->cut.wide];
        unjoin(b, a, dy, panel, b->u);
        for (int u = 0; u < POINTS; u++)
            for (int h = 0; h < kh; h++, to += (ptrdiff_t)sum_rows(p) * f->width)
                for (int i = 0; i < n; i += f->rows)
                    f->sum(b->at + h * p->room, u * v_step + i, b->count, b->u + (ptrdiff_t)u * p->room * f->width, add,
                           to + i * f->width);
    }
}

/* dU of one panel to dw in the file's order, by way of (i, kh, kw, width). */
static void fold(const kw_conv_block *b, int panel, int i0, int n, const float *from, float *dw)
{
    const kw_conv_tiles *p = b->p;
    int width = kw_conv_panel_width(&p->cut, panel), o = kw_conv_panel_at(&p->cut, panel);
    int columns = KW_MIN(width, p->s.out - o);
    int kh = p->s.kh;
    ptrdiff_t h_step = (ptrdiff_t)sum_rows(p) * width, row = (ptrdiff_t)p->s.in * p->taps;
    float *dense = b->u + (ptrdiff_t)POINTS * p->room * p->tile->form[0].width;
    for (int i = 0; i < n; i++)
        for (int h = 0; h < kh; h++)
            p->tile->fold(from + h * h_step + i * width, kh * h_step, width, dense + (i * p->taps + 3 * h) * width,
                          width);
    p->tile->turn(dense, width, n * p->taps, columns, dw + o * row + (ptrdiff_t)i0 * p->taps, row);
}

static void task_weights(kw_conv_block *b, int i, const float *dy, float *dw)
{
    const kw_conv_tiles *p = b->p;
    int n = KW_MIN(p->cut.chunk, p->s.in - i);
    for (int k = 0; k < p->blocks; k++) {
        place a = place_of(p, k);
        point(b, &a, n);
        spread(b, &a, i, n);
        block_sums(b, &a, dy, n, k > 0);
    }
    const float *from = b->m;
    for (int panel = b->panel0; panel < b->panel1; panel++) {
        fold(b, panel, i, n, from, dw);
        from += (ptrdiff_t)POINTS * p->s.kh * sum_rows(p) * kw_conv_panel_width(&p->cut, panel);
    }
}

static void sum_bias(const kw_conv_shape *s, const float *dy, float *dbias)
{
    int64_t pixels = (int64_t)s->n * kw_conv_out_h(s) * kw_conv_out_w(s);
#pragma omp parallel for schedule(static)
    for (int o = 0; o < s->out; o++) {
        double sum = 0;
        for (int64_t q = 0; q < pixels; q++)
            sum += (double)dy[q * s->out + o];
        dbias[o] = (float)sum;
    }
}

void kw_conv_winograd_weights(const kw_conv_tiles *p, const float *x, const float *dy, float *dw, float *dbias,
                              void *scratch)
{
    float *zeros = scratch;
    int groups = ceil_div(p->cut.panels, p->group);
    memset(scratch, 0, p->shared * sizeof(float));
#pragma omp parallel for collapse(2) schedule(dynamic) num_threads(p->threads)
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < p->s.in; i += p->cut.chunk) {
            float *own = zeros + p->shared + p->each * (size_t)omp_get_thread_num();
            kw_conv_block b = { .p = p, .x = x, .zeros = zeros, .at = (const float **)own, .m = own + p->m_at,
                                .v = own + p->v_at, .u = own + p->u_at, .panel0 = g * p->group,
                                .panel1 = KW_MIN(p->cut.panels, (g + 1) * p->group) };
            task_weights(&b, i, dy, dw);
        }
    if (dbias)
        sum_bias(&p->s, dy, dbias);
}
