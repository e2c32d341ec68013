/* report_samples.c - the report's pictures, inside the page: before and after, samples over steps, the final sheet. */
#include "report_parts.h"

#include "picture/picture.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_COLUMNS = 16, MOST_ROWS = 24, MOST_BYTES = 64 << 20, LARGE = 512, SHEET = 2048 };

typedef struct {
    const kw_event *cell[MOST_ROWS][MOST_COLUMNS];
    const kw_event *prompt[MOST_COLUMNS]; /* any sample of the column */
    int64_t steps[MOST_ROWS];
    size_t rows, columns;
    size_t all_rows;  /* how many steps have samples; the first, the last, and some between are here */
} grid;

/* ---- one picture ------------------------------------------------------------------------------------------------- */

/* The PNG's own size: signature (8), "IHDR" (8), then width and height. */
static bool png_size(const char *png, size_t n, unsigned *w, unsigned *h)
{
    const unsigned char *p = (const unsigned char *)png;
    if (n < 33 || memcmp(p, "\x89PNG\r\n\x1a\n", 8) || memcmp(p + 12, "IHDR", 4))
        return false;
    *w = (unsigned)p[16] << 24 | (unsigned)p[17] << 16 | (unsigned)p[18] << 8 | p[19];
    *h = (unsigned)p[20] << 24 | (unsigned)p[21] << 16 | (unsigned)p[22] << 8 | p[23];
    return *w && *h;
}

/* A smaller one, longest side `side`. */
static kw_status shrink(const char *png, size_t n, const char *name, unsigned side, unsigned *w, unsigned *h,
                        kw_str *uri)
{
    kw_picture p, q;
    KW_TRY(kw_picture_decode(png, n, name, (const uint8_t[3]){ 255, 255, 255 }, &p, NULL));
    double scale = (double)side / KW_MAX(p.w, p.h);
    *w = (unsigned)KW_MAX(1, p.w * scale + 0.5);
    *h = (unsigned)KW_MAX(1, p.h * scale + 0.5);
    kw_status s = kw_picture_resize(&p, (int)*w, (int)*h, &q, NULL);
    kw_picture_free(&p);
    if (s)
        return s;
    s = kw_png_data_uri(&q, uri, NULL);
    kw_picture_free(&q);
    return s;
}

/* A file that is small enough goes in as it is. */
static bool load(const char *dir, const char *file, unsigned side, unsigned *w, unsigned *h, kw_str *uri)
{
    char *png;
    size_t n;
    kw_arena *a = kw__is_below(file) ? kw_arena_new() : NULL;
    char *path = a ? kw_path_join(a, dir ? dir : ".", file) : NULL;
    bool there = path && !kw_file_read(a, path, MOST_BYTES, &png, &n, NULL) && png_size(png, n, w, h);
    if (there && *w <= side && *h <= side) {
        kw_str_add(uri, "data:image/png;base64,");
        kw_base64(png, n, uri);
    } else if (there) {
        there = !shrink(png, n, file, side, w, h, uri);
    }
    kw_arena_free(a);
    return there;
}

static void picture(kw_str *b, const char *dir, const char *file, unsigned side, const char *alt)
{
    kw_str uri = { 0 };
    unsigned w, h;
    if (load(dir, file, side, &w, &h, &uri) && !uri.failed) {
        kw_str_printf(b, "<img loading=\"lazy\" width=\"%u\" height=\"%u\" alt=\"", w, h);
        kw__add_html(b, alt ? alt : "");
        kw_str_add(b, "\" src=\"");
        kw_str_add_n(b, uri.s, uri.n);
        kw_str_add(b, "\">");
    } else {
        kw_str_add(b, "<span class=\"missing\">");
        kw__add_html(b, _(N_("picture missing")));
        kw_str_add(b, "</span>");
    }
    kw_str_free(&uri);
}

/* ---- which pictures ---------------------------------------------------------------------------------------------- */

static bool is_shown(const kw_event *v)
{
    return v->kind == KW_EVENT_SAMPLE && v->index >= 0 && v->index < MOST_COLUMNS && v->step >= 0;
}

static int by_number(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return (a > b) - (a < b);
}

/* The steps that have samples; of more than fit, the first, the last, and what lies evenly between. */
static bool choose_rows(kw_arena *a, const kw_report *r, grid *g)
{
    int64_t *steps = kw_alloc_array(a, r->n_events + 1, sizeof *steps);
    size_t n = 0;
    for (size_t i = 0; steps && i < r->n_events; i++)
        if (is_shown(&r->events[i]) && (!n || steps[n - 1] != r->events[i].step))
            steps[n++] = r->events[i].step;
    if (!n)
        return false;
    qsort(steps, n, sizeof *steps, by_number);
    g->all_rows = 0;
    for (size_t i = 0; i < n; i++)
        if (!i || steps[i] != steps[i - 1])
            steps[g->all_rows++] = steps[i];
    g->rows = KW_MIN(g->all_rows, (size_t)MOST_ROWS);
    for (size_t i = 0; i < g->rows; i++)
        g->steps[i] = steps[g->rows > 1 ? (i * (g->all_rows - 1) + (g->rows - 1) / 2) / (g->rows - 1) : 0];
    return true;
}

/* The last word on a cell counts: a resumed run may have made it twice. */
static grid *make_grid(kw_arena *a, const kw_report *r)
{
    grid *g = kw_alloc(a, sizeof *g);
    if (!g || !choose_rows(a, r, g))
        return NULL;
    for (size_t i = 0; i < r->n_events; i++) {
        const kw_event *v = &r->events[i];
        if (!is_shown(v))
            continue;
        g->columns = KW_MAX(g->columns, (size_t)v->index + 1);
        g->prompt[v->index] = v;
        for (size_t row = 0; row < g->rows; row++)
            if (g->steps[row] == v->step)
                g->cell[row][v->index] = v;
    }
    return g;
}

static void heading(kw_str *b, const char *id, const char *title, const char *note)
{
    kw_str_printf(b, "<section id=\"%s\"><h2>", id);
    kw__add_html(b, title);
    kw_str_add(b, "</h2>");
    if (note) {
        kw_str_add(b, "<p class=\"note\">");
        kw__add_html(b, note);
        kw_str_add(b, "</p>");
    }
}

/* ---- before and after -------------------------------------------------------------------------------------------- */

static void half(kw_str *b, const kw_report *r, const kw_event *v, const char *class)
{
    kw_str_printf(b, "<div class=\"%s\">", class);
    picture(b, r->dir, v->file, LARGE, v->prompt);
    kw_str_add(b, "<span>");
    if (v->step)
        kw__textf(b, _(N_("step %lld")), (long long)v->step);
    else
        kw__add_html(b, _(N_("base")));
    kw_str_add(b, "</span></div>");
}

void kw__before_after(kw_arena *a, const kw_report *r, kw_str *b)
{
    grid *g = make_grid(a, r);
    if (!g || g->rows < 2)
        return;
    heading(b, "now", _(N_("Before and now")),
            _(N_("The same prompt and the same seed: first the base, then what it has learnt.")));
    kw_str_printf(b, "<div class=\"pairs by%d\">", g->columns == 1 ? 1 : g->columns == 2 || g->columns == 4 ? 2 : 3);
    for (size_t i = 0; i < g->columns; i++) {
        const kw_event *first = g->cell[0][i], *last = g->cell[g->rows - 1][i];
        if (!first || !last)
            continue;
        kw_str_add(b, "<figure class=\"pair\"><div class=\"halves\">");
        half(b, r, first, "before");
        half(b, r, last, "after");
        kw_str_add(b, "</div><figcaption>");
        kw__add_html(b, last->prompt ? last->prompt : "");
        kw_str_add(b, "</figcaption></figure>");
    }
    kw_str_add(b, "</div></section>\n");
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static void neighbour(kw_str *b, const grid *g, size_t row, size_t column, int down, int right, const char *class,
                      const char *arrow)
{
    size_t y = row + (size_t)down, x = column + (size_t)right;     /* -1 wraps to a number out of range */
    if (y < g->rows && x < g->columns && g->cell[y][x])
        kw_str_printf(b, "<a class=\"go %s\" href=\"#s%lld-%zu\">%s</a>", class, (long long)g->steps[y], x, arrow);
}

/* A picture that fills the window when it is the page's :target, with arrows to its neighbours. */
static void cell(kw_str *b, const kw_report *r, const grid *g, size_t row, size_t i, unsigned side)
{
    const kw_event *v = g->cell[row][i];
    if (!v) {
        kw_str_add(b, "<td></td>");
        return;
    }
    long long step = (long long)v->step;
    kw_str_printf(b,
                  "<td id=\"c%lld-%zu\"><figure class=\"shot\" id=\"s%lld-%zu\"><a class=\"open\" href=\"#s%lld-%zu\">",
                  step, i, step, i, step, i);
    picture(b, r->dir, v->file, side, v->prompt);
    kw_str_printf(b, "</a><a class=\"close\" href=\"#c%lld-%zu\" aria-label=\"", step, i);
    kw__add_html(b, _(N_("Close the picture")));
    kw_str_add(b, "\"></a>");
    neighbour(b, g, row, i, -1, 0, "up", "↑");
    neighbour(b, g, row, i, 1, 0, "down", "↓");
    neighbour(b, g, row, i, 0, -1, "left", "←");
    neighbour(b, g, row, i, 0, 1, "right", "→");
    kw_str_add(b, "<figcaption><b>");
    kw__textf(b, _(N_("step %lld")), step);
    kw_str_add(b, "</b> ");
    kw__add_html(b, v->prompt ? v->prompt : "");
    kw_str_add(b, " <i>");
    kw__textf(b, _(N_("seed %lld")), (long long)v->seed);
    kw_str_add(b, "</i></figcaption></figure></td>");
}

static void head_row(kw_str *b, const grid *g)
{
    kw_str_add(b, "<thead><tr><th></th>");
    for (size_t i = 0; i < g->columns; i++) {
        kw_str_add(b, "<th scope=\"col\">");
        kw__add_html(b, g->prompt[i] && g->prompt[i]->prompt ? g->prompt[i]->prompt : "");
        kw_str_add(b, "</th>");
    }
    kw_str_add(b, "</tr></thead>");
}

static void row_label(kw_str *b, const grid *g, size_t row)
{
    kw_str_add(b, "<tr><th scope=\"row\"><b>");
    if (g->steps[row])
        kw_str_printf(b, "%lld", (long long)g->steps[row]);
    else
        kw__add_html(b, _(N_("base")));
    kw_str_add(b, "</b>");
    for (size_t i = 0; i < g->columns; i++)
        if (g->cell[row][i] && g->cell[row][i]->epoch > 0) {
            kw_str_add(b, "<i>");
            kw__textf(b, _(N_("epoch %lld")), (long long)g->cell[row][i]->epoch);
            kw_str_add(b, "</i>");
            break;
        }
    kw_str_add(b, "</th>");
}

void kw__samples(kw_arena *a, const kw_report *r, kw_str *b)
{
    grid *g = make_grid(a, r);
    if (!g)
        return;
    unsigned side = g->rows * g->columns <= 40 ? 256 : g->rows * g->columns <= 96 ? 192 : 128;
    heading(b, "samples", _(N_("Samples")),
            _(N_("From top to bottom: steps. Click a picture to enlarge it; the arrows lead on.")));
    if (g->all_rows > g->rows) {
        kw_str_add(b, "<p class=\"note\">");
        kw__textf(b, _(N_("%zu of %zu steps are shown; all pictures are in the run's folder.")), g->rows, g->all_rows);
        kw_str_add(b, "</p>");
    }
    kw_str_printf(b, "<div class=\"scroll\"><table class=\"samples %s\">",
                  g->columns <= 4 ? "few" : g->columns <= 6 ? "some" : "many");
    head_row(b, g);
    kw_str_add(b, "<tbody>");
    for (size_t row = 0; row < g->rows; row++) {
        row_label(b, g, row);
        for (size_t i = 0; i < g->columns; i++)
            cell(b, r, g, row, i, side);
        kw_str_add(b, "</tr>");
    }
    kw_str_add(b, "</tbody></table></div></section>\n");
}

void kw__sheet(kw_arena *a, const kw_report *r, kw_str *b)
{
    (void)a;
    if (!r->sheet)
        return;
    heading(b, "sheet", _(N_("Checkpoints and strengths")),
            _(N_("Rows: files. Columns: strength, 0 is the base alone. The frame marks the best by held-out loss.")));
    kw_str_add(b, "<div class=\"sheet\">");
    picture(b, r->dir, r->sheet, SHEET, _(N_("Checkpoints and strengths")));
    kw_str_add(b, "</div></section>\n");
}
