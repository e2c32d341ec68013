/* report_curves.c - the report's four charts: loss, held-out loss, learning rate, gradient norm. */
#include "report_parts.h"

#include <math.h>

typedef struct { kw__point *p; size_t n; } points;
typedef double value_of(const kw_event *v, int i);

static double loss_of(const kw_event *v, int i) { (void)i; return v->loss; }
static double norm_of(const kw_event *v, int i) { (void)i; return v->norm; }
static double rate_of(const kw_event *v, int i) { return v->rate[i] >= 0 ? v->rate[i] : NAN; }

static double gain_of(const kw_event *v, int i)
{
    (void)i;
    double gain = kw__gain(v);
    return isfinite(gain) ? gain : v->loss;
}

/* Without a base to compare with, the loss itself. */
static double own_of(const kw_event *v, int i) { (void)i; return v->loss; }

static bool collect(kw_arena *a, const kw_report *r, kw_event_kind kind, value_of *value, int i, points *out)
{
    *out = (points){ .p = kw_alloc_array(a, r->n_events + 1, sizeof *out->p) };
    for (size_t k = 0; out->p && k < r->n_events; k++)
        if (r->events[k].kind == kind)
            out->p[out->n++] = (kw__point){ .x = (double)r->events[k].step, .y = value(&r->events[k], i) };
    return out->p;
}

/* The mean of the first values that are there, from one end: where an average begins. */
static double beginning(const double *x, size_t n, bool backwards, double many)
{
    double sum = 0, count = 0;
    for (size_t k = 0; k < n && count < many; k++) {
        double v = x[backwards ? n - 1 - k : k];
        if (isfinite(v)) {
            sum += v;
            count++;
        }
    }
    return sum / count;
}

/*
 * A moving average without delay: exponential, forwards and backwards, both halved; and all of it once more, so that
 * single values leave no spike.
 *   s_i = s_{i-1} + w (x_i - s_{i-1}),  w = 2 / (n/20 + 1), at least over 7 values
 */
static bool trend(kw_arena *a, const points *in, points *out)
{
    size_t n = in->n;
    double w = 2 / (fmax(7, (double)n / 20) + 1), *x = kw_alloc_array(a, n + 1, sizeof *x);
    *out = (points){ kw_alloc_array(a, n + 1, sizeof *out->p), n };
    if (!x || !out->p)
        return false;
    for (size_t i = 0; i < n; i++)
        out->p[i] = in->p[i];
    for (int pass = 0; pass < 4; pass++) {
        bool backwards = pass % 2;
        for (size_t i = 0; i < n && !backwards; i++)
            x[i] = out->p[i].y;                                    /* what this round begins with */
        double s = beginning(x, n, backwards, 1 / w);
        for (size_t k = 0; k < n; k++) {
            size_t i = backwards ? n - 1 - k : k;
            if (isfinite(x[i]))
                s += w * (x[i] - s);
            out->p[i].y = backwards ? (out->p[i].y + s) / 2 : s;
        }
    }
    return true;
}

static void noisy(kw_arena *a, const kw_report *r, kw_str *out, const char *id, const char *title, value_of *value)
{
    points raw, smooth;
    if (!collect(a, r, KW_EVENT_STEP, value, 0, &raw) || !trend(a, &raw, &smooth)) {
        out->failed = true;
        return;
    }
    kw__series s[] = {
        { KW__RAW, 1, _(N_("each step")), raw.p, raw.n },
        { KW__LINE, 1, _(N_("moving average")), smooth.p, smooth.n },
    };
    kw__chart_draw(a, out, &(kw__chart){ .id = id, .title = title, .series = s, .n_series = 2 });
}

static const char *tip(kw_arena *a, const kw_event *v)
{
    kw_str b = { 0 };
    double gain = kw__gain(v);
    kw_str_printf(&b, _(N_("step %lld")), (long long)v->step);
    kw_str_add(&b, ": ");
    kw__add_fixed(&b, v->loss, 5);
    if (isfinite(gain)) {
        kw_str_add(&b, " (");
        kw__add_percent(&b, gain);
        kw_str_add(&b, ")");
    }
    char *text = b.failed ? NULL : kw_strdup(a, b.s);
    kw_str_free(&b);
    return text;
}

static const char *best_text(kw_arena *a, const kw_event *best)
{
    kw_str b = { 0 };
    kw_str_printf(&b, _(N_("best: step %lld")), (long long)best->step);
    if (isfinite(kw__gain(best))) {
        kw_str_add(&b, ", ");
        kw__add_percent(&b, kw__gain(best));
    }
    char *text = b.failed ? NULL : kw_strdup(a, b.s);
    kw_str_free(&b);
    return text ? text : "";
}

/* The base's loss is the zero line: below it something was learnt. */
static void held_out(kw_arena *a, const kw_report *r, const kw__story *s, kw_str *out)
{
    points p;
    bool relative = s->newest && isfinite(kw__gain(s->newest));
    if (!collect(a, r, KW_EVENT_VALIDATION, relative ? gain_of : own_of, 0, &p)) {
        out->failed = true;
        return;
    }
    size_t n = 0;
    kw__point mark = { 0 };
    for (size_t k = 0; k < r->n_events; k++)
        if (r->events[k].kind == KW_EVENT_VALIDATION) {
            p.p[n].tip = tip(a, &r->events[k]);
            if (&r->events[k] == s->best)
                mark = p.p[n];
            n++;
        }
    char *zero = relative ? kw_sprintf(a, "%s %.4f", _(N_("base")), s->newest->base) : NULL;
    kw__series one = { KW__DOTS, 2, NULL, p.p, p.n };
    kw__chart_draw(a, out, &(kw__chart){
        .id = "clip-v", .title = relative ? _(N_("Held-out loss, compared with the base")) : _(N_("Held-out loss")),
        .series = &one, .n_series = 1, .percent = relative, .zero = zero,
        .mark = s->best && s->best->step > 0 ? &mark : NULL, .mark_text = s->best ? best_text(a, s->best) : "",
    });
}

static void rates(kw_arena *a, const kw_report *r, kw_str *out)
{
    static const char *const names[KW_EVENT_RATES] = { N_("U-Net"), N_("text encoder"), N_("autoencoder") };
    kw__series s[KW_EVENT_RATES];
    points p[KW_EVENT_RATES];
    size_t n = 0;
    for (int i = 0; i < KW_EVENT_RATES; i++) {
        bool any = false;
        if (!collect(a, r, KW_EVENT_STEP, rate_of, i, &p[i])) {
            out->failed = true;
            return;
        }
        for (size_t k = 0; k < p[i].n; k++)
            any |= isfinite(p[i].p[k].y);
        if (any)
            s[n++] = (kw__series){ KW__LINE, i + 1, _(names[i]), p[i].p, p[i].n };
    }
    kw__chart_draw(a, out, &(kw__chart){ .id = "clip-r", .title = _(N_("Learning rate")), .series = s, .n_series = n,
                                         .from_zero = true });
}

void kw__curves(kw_arena *a, const kw_report *r, const kw__story *s, kw_str *out)
{
    kw_str_add(out, "<section id=\"curves\"><h2>");
    kw__add_html(out, _(N_("Curves")));
    kw_str_add(out, "</h2><div class=\"charts\">");
    noisy(a, r, out, "clip-l", _(N_("Loss")), loss_of);
    held_out(a, r, s, out);
    rates(a, r, out);
    noisy(a, r, out, "clip-n", _(N_("Gradient norm")), norm_of);
    kw_str_add(out, "</div></section>\n");
}
