/* report_story.c - what a run's events amount to: where it is, how good it is, whether it learns by heart. */
#include "report_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double kw__gain(const kw_event *v)
{
    return v && isfinite(v->loss) && v->base > 0 ? v->loss / v->base - 1 : NAN;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* The median of the last steps: neither a pause nor a sample in between moves it. */
static double typical_seconds(const kw_report *r)
{
    enum { LAST = 50 };
    double t[LAST];
    size_t n = 0;
    for (size_t i = r->n_events; i-- > 0 && n < LAST;)
        if (r->events[i].kind == KW_EVENT_STEP && r->events[i].seconds > 0)
            t[n++] = r->events[i].seconds;
    qsort(t, n, sizeof *t, by_value);
    return n ? t[n / 2] : NAN;
}

/* A held-out loss that rises three times in a row is how learning by heart begins. */
static void judge(const kw_report *r, kw__story *s)
{
    for (size_t i = 0; i < r->n_events; i++) {
        const kw_event *v = &r->events[i];
        if (v->kind != KW_EVENT_VALIDATION || !isfinite(v->loss))
            continue;
        s->rises = s->newest && v->loss > s->newest->loss ? s->rises + 1 : 0;
        s->newest = v;
        if (!s->best || v->loss < s->best->loss)
            s->best = v;
    }
    if (s->newest && s->newest->step > 0)
        s->verdict = s->rises >= 3 ? KW__OVERFITTING : s->rises > 0 ? KW__WATCH : KW__GOOD;
}

static void take(kw__story *s, const kw_event *v)
{
    s->step = KW_MAX(s->step, v->step);
    s->started = s->started > 0 ? s->started : v->time;
    s->last = v->time;
    s->state = KW__RUNNING;
    if (v->kind == KW_EVENT_START)
        s->steps = v->steps;
    if (v->kind == KW_EVENT_STEP && isfinite(v->average))
        s->loss = v->average;
    if (v->kind == KW_EVENT_END) {
        s->state = v->level && !strcmp(v->level, "stopped") ? KW__STOPPED : v->level && !strcmp(v->level, "failed")
                 ? KW__FAILED : KW__FINISHED;
        s->end_text = v->text;
    }
}

void kw__story_read(const kw_report *r, kw__story *s)
{
    *s = (kw__story){ .loss = NAN };
    for (size_t i = 0; i < r->n_events; i++)
        take(s, &r->events[i]);
    s->seconds = typical_seconds(r);
    judge(r, s);
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

void kw__textf(kw_str *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *s = n < 0 ? NULL : malloc((size_t)n + 1);
    if (s) {
        vsnprintf(s, (size_t)n + 1, fmt, again);
        kw__add_html(b, s);
    } else {
        b->failed = true;
    }
    free(s);
    va_end(again);
    va_end(ap);
}

void kw__add_duration(kw_str *b, double seconds)
{
    long s = seconds > 0 && seconds < 1e9 ? lround(seconds) : 0;
    if (s < 60)
        kw__textf(b, _("%ld s"), s);
    else if (s < 3600)
        kw__textf(b, _("%ld min %02ld s"), s / 60, s % 60);
    else if (s < 86400)
        kw__textf(b, _("%ld h %02ld min"), s / 3600, s / 60 % 60);
    else
        kw__textf(b, _("%ld d %02ld h"), s / 86400, s / 3600 % 24);
}

void kw__add_percent(kw_str *b, double share)
{
    kw_str_add(b, share < -0.0005 ? "−" : share > 0.0005 ? "+" : "±");
    kw__add_fixed(b, fabs(share) * 100, fabs(share) < 0.9995 ? 1 : 0);
    kw_str_add(b, " %");
}
