/*
 * report_chart.c - one chart as SVG: axes with round numbers, faint values, strong trends, dots, a line at zero.
 *
 *    title                     ── a  ── b
 *    0.2 ┤ ░░▒▒
 *        │─────▒▒──────────── zero (the base)
 *    0.1 ┤        ▒▒▒──●
 *        └────┬────┬────┬
 */
#include "report_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { W = 520, H = 216, LEFT = 54, RIGHT = 16, TOP = 12, BOTTOM = 26, BINS = 234, MOST_RAW = 468 };

typedef struct { double x0, x1, y0, y1; } frame;

static double px(const frame *f, double x) { return LEFT + (x - f->x0) / (f->x1 - f->x0) * (W - LEFT - RIGHT); }

/* Cut to the picture, a little outside: an outlier leaves it upwards and comes back. */
static double py(const frame *f, double y)
{
    double v = H - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (H - TOP - BOTTOM);
    return fmin(fmax(v, -H), 2 * H);
}

/* ---- what is in the picture -------------------------------------------------------------------------------------- */

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static void widen(double *low, double *high, double v)
{
    *low = fmin(*low, v);
    *high = fmax(*high, v);
}

/* Single values may be far out: 2 of 100 at each end are not waited for. */
static void range_of(const kw__series *s, double *scratch, double *low, double *high)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        if (isfinite(s->p[i].y))
            scratch[n++] = s->p[i].y;
    if (!n)
        return;
    qsort(scratch, n, sizeof *scratch, by_value);
    size_t cut = s->look == KW__RAW ? n / 50 : 0;
    widen(low, high, scratch[cut]);
    widen(low, high, scratch[n - 1 - cut]);
}

/* 1, 2 or 5 times a power of ten, so that about `parts` of them fill the span. */
static double round_step(double span, int parts)
{
    double power = pow(10, floor(log10(span / parts))), m = span / parts / power;
    return power * (m < 1.5 ? 1 : m < 3.5 ? 2 : m < 7.5 ? 5 : 10);
}

static bool make_frame(kw_arena *a, const kw__chart *c, frame *f)
{
    size_t most = 1;
    f->x0 = f->y0 = INFINITY;
    f->x1 = f->y1 = -INFINITY;
    for (size_t i = 0; i < c->n_series; i++)
        most = KW_MAX(most, c->series[i].n);
    double *scratch = kw_alloc_array(a, most, sizeof *scratch);
    for (size_t i = 0; scratch && i < c->n_series; i++) {
        range_of(&c->series[i], scratch, &f->y0, &f->y1);
        for (size_t k = 0; k < c->series[i].n; k++)
            widen(&f->x0, &f->x1, c->series[i].p[k].x);
    }
    if (!(f->y0 <= f->y1))
        return false;
    if (c->percent || c->from_zero)
        widen(&f->y0, &f->y1, 0);
    double room = f->y1 > f->y0 ? (f->y1 - f->y0) * 0.08 : f->y0 ? fabs(f->y0) * 0.2 : c->percent ? 0.01 : 1;
    f->y0 -= c->from_zero && f->y0 == 0 ? 0 : room;
    f->y0 -= c->mark ? 1.6 * room : 0;                             /* for the words below the mark */
    f->y1 += room;
    if (f->x1 <= f->x0)
        f->x1 = f->x0 + 1;
    return true;
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

static void number(kw_str *b, double v) { kw__add_fixed(b, v, 1); }

static void attribute(kw_str *b, const char *name, double v)
{
    kw_str_printf(b, " %s=\"", name);
    number(b, v);
    kw_str_add(b, "\"");
}

static void line(kw_str *b, const char *class, double x0, double y0, double x1, double y1)
{
    kw_str_printf(b, "<line class=\"%s\"", class);
    attribute(b, "x1", x0);
    attribute(b, "y1", y0);
    attribute(b, "x2", x1);
    attribute(b, "y2", y1);
    kw_str_add(b, "/>");
}

static void open_text(kw_str *b, const char *class, double x, double y)
{
    kw_str_printf(b, "<text class=\"%s\"", class);
    attribute(b, "x", x);
    attribute(b, "y", y);
    kw_str_add(b, ">");
}

/* Small numbers share one power of ten: 1e-4, 0.5e-4. */
static void y_label(kw_str *b, const kw__chart *c, double v, double step, double largest)
{
    double scale = c->percent ? 100 : 1;
    int power = !c->percent && largest < 0.001 ? (int)floor(log10(largest * 1.0001)) : 0;
    double shown = v * scale / pow(10, power), shown_step = step * scale / pow(10, power);
    int digits = (int)fmax(0, ceil(-log10(shown_step) - 1e-9));
    if (fabs(v) < step / 1000)
        shown = 0, digits = 0;
    kw_str_add(b, shown < 0 ? "−" : c->percent && shown > 0 ? "+" : "");
    kw__add_fixed(b, fabs(shown), digits);
    if (power && shown > 0)
        kw_str_printf(b, "e%d", power);
    kw_str_add(b, c->percent ? " %" : "");
}

static void axes(kw_str *b, const kw__chart *c, const frame *f)
{
    double step = round_step(f->y1 - f->y0, 4), largest = fmax(fabs(f->y0), fabs(f->y1));
    for (double y = ceil(f->y0 / step) * step; y <= f->y1; y += step) {
        line(b, "grid", LEFT, py(f, y), W - RIGHT, py(f, y));
        open_text(b, "ylabel", LEFT - 8, py(f, y) + 4);
        y_label(b, c, y, step, largest);
        kw_str_add(b, "</text>");
    }
    step = fmax(1, round_step(f->x1 - f->x0, 6));
    for (double x = ceil(f->x0 / step) * step; x <= f->x1; x += step) {
        line(b, "tick", px(f, x), H - BOTTOM, px(f, x), H - BOTTOM + 4);
        open_text(b, "xlabel", px(f, x), H - BOTTOM + 17);
        kw_str_printf(b, "%.0f</text>", x);
    }
    line(b, "axis", LEFT, H - BOTTOM, W - RIGHT, H - BOTTOM);
}

/* What lies below the base's line is what was learnt. */
static void zero_line(kw_str *b, const kw__chart *c, const frame *f)
{
    if (!c->zero || f->y0 > 0 || f->y1 < 0)
        return;
    kw_str_add(b, "<rect class=\"better\"");
    attribute(b, "x", LEFT);
    attribute(b, "y", py(f, 0));
    attribute(b, "width", W - LEFT - RIGHT);
    attribute(b, "height", H - BOTTOM - py(f, 0));
    kw_str_add(b, "/>");
    line(b, "zero", LEFT, py(f, 0), W - RIGHT, py(f, 0));
    open_text(b, "zerolabel", W - RIGHT - 4, py(f, 0) - 5);
    kw__add_html(b, c->zero);
    kw_str_add(b, "</text>");
}

static void to(kw_str *b, bool first, double x, double y)
{
    kw_str_add(b, first ? "M" : "L");
    number(b, x);
    kw_str_add(b, " ");
    number(b, y);
}

/* Thinned to what can be seen; a gap where values are missing. */
static void path(kw_str *b, const kw__series *s, const frame *f, const char *class)
{
    size_t stride = s->n / MOST_RAW + 1;
    bool first = true;
    kw_str_printf(b, "<path class=\"%s c%d\" d=\"", class, s->colour);
    for (size_t i = 0; i < s->n; i += i + 1 < s->n && i + stride >= s->n ? s->n - 1 - i : stride) {
        if (isfinite(s->p[i].y))
            to(b, first, px(f, s->p[i].x), py(f, s->p[i].y));
        first = !isfinite(s->p[i].y);
    }
    kw_str_add(b, "\"/>");
}

static int bin_of(const frame *f, double x) { return (int)((x - f->x0) / (f->x1 - f->x0) * (BINS - 1) + 0.5); }

/* Many values: a band that holds 8 of 10 in each bin. Points come by rising x, so that a bin is a run of them. */
static void band(kw_str *b, const kw__series *s, const frame *f, double *scratch)
{
    double low[BINS], high[BINS], at[BINS];
    int n = 0;
    for (size_t i = 0; i < s->n;) {
        size_t k = 0;
        int bin = bin_of(f, s->p[i].x);
        for (; i < s->n && bin_of(f, s->p[i].x) == bin; i++)
            if (isfinite(s->p[i].y))
                scratch[k++] = s->p[i].y;
        if (!k || n == BINS)
            continue;
        qsort(scratch, k, sizeof *scratch, by_value);
        low[n] = scratch[k / 10];
        high[n] = scratch[k - 1 - k / 10];
        at[n++] = LEFT + (double)bin / (BINS - 1) * (W - LEFT - RIGHT);
    }
    kw_str_printf(b, "<path class=\"band c%d\" d=\"", s->colour);
    for (int i = 0; i < n; i++)
        to(b, !i, at[i], py(f, high[i]));
    for (int i = n; i-- > 0;)
        to(b, false, at[i], py(f, low[i]));
    kw_str_add(b, n ? "Z\"/>" : "\"/>");
}

static void dot(kw_str *b, const frame *f, const kw__point *p, const char *class, int colour, double radius)
{
    kw_str_printf(b, "<circle class=\"%s c%d\"", class, colour);
    attribute(b, "cx", px(f, p->x));
    attribute(b, "cy", py(f, p->y));
    attribute(b, "r", radius);
    kw_str_add(b, ">");
    if (p->tip) {
        kw_str_add(b, "<title>");
        kw__add_html(b, p->tip);
        kw_str_add(b, "</title>");
    }
    kw_str_add(b, "</circle>");
}

static void draw_series(kw_arena *a, kw_str *b, const kw__series *s, const frame *f)
{
    double *scratch = s->look == KW__RAW && s->n > MOST_RAW ? kw_alloc_array(a, s->n, sizeof *scratch) : NULL;
    if (scratch)
        band(b, s, f, scratch);
    else
        path(b, s, f, s->look == KW__RAW ? "raw" : "line");
    for (size_t i = 0; s->look == KW__DOTS && i < s->n && s->n <= 400; i++)
        if (isfinite(s->p[i].y))
            dot(b, f, &s->p[i], "dot", s->colour, s->n > 60 ? 2 : 3.5);
}

/* The words stand below the point, and on the side away from the edge. */
static void draw_mark(kw_str *b, const kw__chart *c, const frame *f)
{
    double x = px(f, c->mark->x), y = py(f, c->mark->y);
    bool left = x < LEFT + 100, right = x > W - RIGHT - 100;
    dot(b, f, c->mark, "mark", 0, 6.5);
    const char *class = left ? "marktext start" : right ? "marktext end" : "marktext";
    open_text(b, class, left ? x - 6 : right ? x + 6 : x, y + 21);
    kw__add_html(b, c->mark_text);
    kw_str_add(b, "</text>");
}

static void legend(kw_str *b, const kw__chart *c)
{
    kw_str_add(b, "<figcaption><b>");
    kw__add_html(b, c->title);
    kw_str_add(b, "</b>");
    for (size_t i = 0; i < c->n_series; i++)
        if (c->series[i].name) {
            kw_str_printf(b, "<span class=\"key %s c%d\"></span><span>",
                          c->series[i].look == KW__RAW ? "faint" : "strong", c->series[i].colour);
            kw__add_html(b, c->series[i].name);
            kw_str_add(b, "</span>");
        }
    kw_str_add(b, "</figcaption>");
}

void kw__chart_draw(kw_arena *a, kw_str *b, const kw__chart *c)
{
    frame f;
    kw_str_add(b, "<figure class=\"chart\">");
    legend(b, c);
    if (make_frame(a, c, &f)) {
        kw_str_printf(b, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", W, H);
        kw__add_html(b, c->title);
        kw_str_printf(b, "\"><clipPath id=\"%s\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/></clipPath>",
                      c->id, LEFT, TOP - 8, W - LEFT - RIGHT + 8, H - TOP - BOTTOM + 8);
        axes(b, c, &f);
        zero_line(b, c, &f);
        kw_str_printf(b, "<g clip-path=\"url(#%s)\">", c->id);
        for (size_t i = 0; i < c->n_series; i++)
            draw_series(a, b, &c->series[i], &f);
        kw_str_add(b, "</g>");
        if (c->mark)
            draw_mark(b, c, &f);
        kw_str_add(b, "</svg>");
    } else {
        kw_str_add(b, "<p class=\"empty\">");
        kw__add_html(b, _(N_("nothing yet")));
        kw_str_add(b, "</p>");
    }
    kw_str_add(b, "</figure>");
}
