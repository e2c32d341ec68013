/*
 * conv_turn.c - one packed weight for both directions. Backward-data is a forward convolution with the weight turned
 * round: inputs and outputs change places, taps go backwards. It reads the weight as the forward one has it packed: the
 * part it needs, (kh, kw, n, width) numbers, is made in the thread's cache from the parts in which those numbers lie,
 *
 *     part[tap][k][c] = lies[taps - 1 - tap][c][k]        c: an output here, an input there; k: the other way round
 *
 * so a tap of a part is some matrices turned over, one for each part there that it meets (a piece). That is done once
 * for each block of pixels; by Winograd three taps at a time, which are transformed before they leave the registers.
 */
#include "conv.h"
#include "conv_tile.h"

#include <string.h>

/* What of a part lies in one part of the packed weight: outputs c..c_end, inputs k..k_end of the turned convolution. */
typedef struct { int c, c_end, k, k_end; ptrdiff_t at, tap_step, c_step; } piece;

static int panel_of(const kw_conv_cut *l, int o)
{
    int wide = l->tile->form[0].width, all = l->wide * wide;
    return o < all ? o / wide : l->wide + (o - all) / l->tile->form[1].width;
}

/* Pieces of the part: chunks by panels of the packed weight. */
static int pieces_of(const kw_conv_tiles *p, int i, int n, int panel, int *across)
{
    int c = kw_conv_panel_at(&p->cut, panel), c_end = KW_MIN(p->s.out, c + kw_conv_panel_width(&p->cut, panel));
    *across = (c_end - 1) / p->lies.chunk - c / p->lies.chunk + 1;
    return *across * (panel_of(&p->lies, i + n - 1) - panel_of(&p->lies, i) + 1);
}

static piece piece_at(const kw_conv_tiles *p, int i, int n, int panel, int which, int across)
{
    const kw_conv_cut *l = &p->lies;
    int c = kw_conv_panel_at(&p->cut, panel), c_end = KW_MIN(p->s.out, c + kw_conv_panel_width(&p->cut, panel));
    int first = (c / l->chunk + which % across) * l->chunk, count = KW_MIN(l->chunk, l->in - first);
    int from = panel_of(l, i) + which / across, width = kw_conv_panel_width(l, from), o = kw_conv_panel_at(l, from);
    piece a = { .c = KW_MAX(c, first), .c_end = KW_MIN(c_end, first + count), .k = KW_MAX(i, o),
                .k_end = KW_MIN(i + n, o + width), .tap_step = (ptrdiff_t)count * width, .c_step = width };
    a.at = kw_conv_part_at(l, first, count, from) + (ptrdiff_t)(a.c - first) * width + a.k - o;
    return a;
}

/* Where a piece goes in (n, width), which lies zeroed where the last panel has no outputs. */
static ptrdiff_t place_of(const kw_conv_tiles *p, const piece *a, int i, int panel)
{
    return (ptrdiff_t)(a->k - i) * kw_conv_panel_width(&p->cut, panel) + a->c - kw_conv_panel_at(&p->cut, panel);
}

static void clear_cut(kw_conv_block *b, int n, int panel, int taps)
{
    int width = kw_conv_panel_width(&b->p->cut, panel);
    if (kw_conv_panel_at(&b->p->cut, panel) + width > b->p->s.out)
        memset(b->u, 0, sizeof *b->u * (size_t)taps * (size_t)(n * width));
}

void kw_conv_turn_part(kw_conv_block *b, int i, int n, int panel)
{
    const kw_conv_tiles *p = b->p;
    int width = kw_conv_panel_width(&p->cut, panel), across, pieces = pieces_of(p, i, n, panel, &across);
    clear_cut(b, n, panel, p->taps);
    for (int k = 0; k < pieces; k++) {
        piece a = piece_at(p, i, n, panel, k, across);
        const float *from = b->w + a.at + (p->taps - 1) * a.tap_step;
        float *to = b->u + place_of(p, &a, i, panel);
        for (int tap = 0; tap < p->taps; tap++, from -= a.tap_step, to += (ptrdiff_t)n * width)
            p->tile->turn(from, a.c_step, a.c_end - a.c, a.k_end - a.k, to, width);
    }
}

void kw_conv_turn_winograd(kw_conv_block *b, int i, int n, int panel, int lines)
{
    const kw_conv_tiles *p = b->p;
    int kh = p->s.kh, width = kw_conv_panel_width(&p->cut, panel), across, pieces = pieces_of(p, i, n, panel, &across);
    ptrdiff_t slab = (ptrdiff_t)n * width;
    clear_cut(b, n, panel, 6 * kh);
    for (int k = 0; k < pieces; k++) {
        piece a = piece_at(p, i, n, panel, k, across);
        for (int h = 0; h < kh; h++) {
            p->tile->derive_turned(b->w + a.at + 3 * (kh - 1 - h) * a.tap_step, a.tap_step, a.c_step, a.c_end - a.c,
                                   a.k_end - a.k, b->u + h * slab + place_of(p, &a, i, panel), kh * slab, width);
            kw_conv_call(b, lines);
        }
    }
}

/* A tap of a piece is one stretch of memory, if what lies between its numbers counts as its own. */
bool kw_conv_turn_run(const kw_conv_tiles *p, const float *w, int i, int n, int panel, int which, kw_conv_run *run)
{
    int across, pieces = pieces_of(p, i, n, panel, &across);
    if (which >= pieces)
        return false;
    piece a = piece_at(p, i, n, panel, which, across);
    const ptrdiff_t size = sizeof *w;
    *run = (kw_conv_run){ (const char *)(w + a.at), (a.c_end - a.c) * a.c_step * size, a.tap_step * size, p->taps };
    return true;
}
