/*
 * sheet.c - contact sheets: a grid of pictures with captions.
 *
 *     title
 *                column 0    column 1
 *     row 0      [picture]   [picture]
 *                label       label
 *     footer
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum { MARGIN = 12, GAP = 8, FRAME = 4, TITLE_SIZE = 20, LINES = 3, MIN_CELL = 48, ROW_LABEL_MAX = 200 };

static const uint8_t ink[3] = { 34, 34, 34 }, faint[3] = { 236, 236, 236 }, mark[3] = { 22, 140, 60 };

typedef struct {
    int cell_w, cell_h;                         /* the pictures' room */
    int left, top;                              /* of cell 0, after row labels, title and column labels */
    int label_h, column_h, title_h, footer_h;
    int w, h;
} layout;

static int text_height(const char *text, int width, int size)
{
    kw_mask m;
    if (!text)
        return 0;
    kw_text_mask(text, width, size, &m);
    kw_block_free(m.ink);
    return KW_MIN(m.h, LINES * (size + size / 3));
}

static int tallest(const char *const *texts, int n, int width)
{
    int h = 0;
    for (int i = 0; texts && i < n; i++)
        h = KW_MAX(h, text_height(texts[i], width, KW_TEXT_SIZE));
    return h;
}

static int widest(const char *const *texts, int n)
{
    int w = 0;
    for (int i = 0; texts && i < n; i++) {
        kw_mask m = { 0 };
        if (texts[i])
            kw_text_mask(texts[i], 0, KW_TEXT_SIZE, &m);
        w = KW_MAX(w, m.w);
        kw_block_free(m.ink);
    }
    return KW_MIN(w, ROW_LABEL_MAX);
}

static void measure(const kw_sheet *s, layout *l)
{
    int n = s->rows * s->columns;
    *l = (layout){ .cell_w = MIN_CELL, .cell_h = 1 };
    for (int i = 0; i < n; i++)
        if (s->cells[i]) {
            l->cell_w = KW_MAX(l->cell_w, s->cells[i]->w);
            l->cell_h = KW_MAX(l->cell_h, s->cells[i]->h);
        }
    int rows_w = widest(s->row_labels, s->rows);
    l->left = MARGIN + rows_w + (rows_w ? GAP : 0);
    l->w = l->left + s->columns * (l->cell_w + GAP) - GAP + MARGIN;
    l->column_h = tallest(s->column_labels, s->columns, l->cell_w);
    l->label_h = tallest(s->cell_labels, n, l->cell_w);
    l->title_h = text_height(s->title, l->w - 2 * MARGIN, TITLE_SIZE);
    l->footer_h = text_height(s->footer, l->w - 2 * MARGIN, KW_TEXT_SIZE);
    l->top = MARGIN + (l->title_h ? l->title_h + MARGIN : 0) + (l->column_h ? l->column_h + GAP : 0);
    l->h = l->top + s->rows * (l->cell_h + (l->label_h ? l->label_h + GAP / 2 : 0) + GAP) - GAP
        + (l->footer_h ? MARGIN + l->footer_h : 0) + MARGIN;
}

static void fill(kw_picture *p, int x, int y, int w, int h, const uint8_t colour[3])
{
    for (int j = KW_MAX(0, y); j < KW_MIN(p->h, y + h); j++)
        for (int i = KW_MAX(0, x); i < KW_MIN(p->w, x + w); i++)
            memcpy(p->rgb + ((size_t)j * (size_t)p->w + (size_t)i) * 3, colour, 3);
}

/* Centred in width when `centre`, else from the left. */
static void write_text(kw_picture *p, const char *text, int x, int y, int width, int size, int max_h, bool centre)
{
    kw_mask m;
    if (!text)
        return;
    kw_text_mask(text, width, size, &m);
    kw_mask_draw(p, &m, centre ? x + KW_MAX(0, (width - m.w) / 2) : x, y, max_h, ink);
    kw_block_free(m.ink);
}

static void draw_cell(const kw_sheet *s, const layout *l, kw_picture *out, int i)
{
    int x = l->left + i % s->columns * (l->cell_w + GAP);
    int y = l->top + i / s->columns * (l->cell_h + (l->label_h ? l->label_h + GAP / 2 : 0) + GAP);
    const kw_picture *p = s->cells[i];
    if (i == s->best)
        fill(out, x - FRAME, y - FRAME, l->cell_w + 2 * FRAME, l->cell_h + 2 * FRAME, mark);
    if (!p || p->w < l->cell_w || p->h < l->cell_h)
        fill(out, x, y, l->cell_w, l->cell_h, faint);
    if (p)
        kw_picture_paste(out, p, x + (l->cell_w - p->w) / 2, y + (l->cell_h - p->h) / 2);
    if (s->cell_labels)
        write_text(out, s->cell_labels[i], x, y + l->cell_h + GAP / 2, l->cell_w, KW_TEXT_SIZE, l->label_h, true);
}

kw_status kw_sheet_draw(const kw_sheet *s, kw_picture *out, kw_err *e)
{
    layout l;
    *out = (kw_picture){ 0 };
    if (s->columns < 1 || s->rows < 1 || (int64_t)s->columns * s->rows > 10000)
        return kw_fail(e, KW_EUSAGE, "a sheet of %d x %d pictures", s->columns, s->rows);
    measure(s, &l);
    KW_TRY(kw_picture_new(l.w, l.h, out, e));
    memset(out->rgb, 255, (size_t)l.w * (size_t)l.h * 3);
    write_text(out, s->title, MARGIN, MARGIN, l.w - 2 * MARGIN, TITLE_SIZE, l.title_h, false);
    for (int i = 0; s->column_labels && i < s->columns; i++)
        write_text(out, s->column_labels[i], l.left + i * (l.cell_w + GAP), l.top - GAP - l.column_h, l.cell_w,
                   KW_TEXT_SIZE, l.column_h, true);
    for (int i = 0; i < s->rows * s->columns; i++)
        draw_cell(s, &l, out, i);
    int step = l.cell_h + (l.label_h ? l.label_h + GAP / 2 : 0) + GAP;
    for (int i = 0; s->row_labels && i < s->rows; i++)
        write_text(out, s->row_labels[i], MARGIN, l.top + i * step, l.left - MARGIN - GAP, KW_TEXT_SIZE, l.cell_h,
                   false);
    write_text(out, s->footer, MARGIN, l.h - MARGIN - l.footer_h, l.w - 2 * MARGIN, KW_TEXT_SIZE, l.footer_h, false);
    return KW_OK;
}
