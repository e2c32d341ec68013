/* progress.c - how far it is, how fast, how long still: one line on stderr. */
#include "cli.h"

#include <string.h>

void kw_progress_begin(kw_progress *p, const kw_cli *c, const char *label, const char *unit, int64_t total)
{
    *p = (kw_progress){ .label = label, .unit = unit, .total = total, .tty = c->term.err_tty,
                        .colour = c->term.err_colour, .quiet = c->global.quiet, .width = c->term.width };
    p->start = p->mark_time = kw_now();
    p->last_shown = p->tty ? p->start - 1 : p->start;
}

/* The rate of late, so that a slow first step does not spoil the estimate: a mean that forgets half every ~5 s. */
static void measure(kw_progress *p, int64_t done, double t)
{
    double dt = t - p->mark_time;
    if (done <= p->mark_done || dt < 0.2)
        return;
    double latest = (double)(done - p->mark_done) / dt, weight = dt / (dt + 7);
    p->rate = p->rate > 0 ? p->rate + weight * (latest - p->rate) : latest;
    p->mark_time = t;
    p->mark_done = done;
}

static void add_bar(kw_str *s, double part)
{
    enum { CELLS = 16 };
    static const char *const eighth[] = { "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" };
    int n = (int)(part * CELLS * 8);
    kw_str_add(s, "▕");
    for (int i = 0; i < n / 8; i++)
        kw_str_add(s, "█");
    kw_str_add(s, n / 8 < CELLS ? eighth[n % 8] : "");
    for (int i = (n + 7) / 8; i < CELLS; i++)
        kw_str_add(s, " ");
    kw_str_add(s, "▏");
}

static void add_line(kw_progress *p, kw_str *s, int64_t done, const char *extra, double t)
{
    kw_str_printf(s, "%s ", p->label);
    if (p->total > 0) {
        double part = KW_MIN((double)done / (double)p->total, 1.0);
        kw_str_printf(s, "%3d%% ", (int)(100 * part));
        if (p->tty)
            add_bar(s, part);
        kw_str_printf(s, " %lld/%lld", (long long)done, (long long)p->total);
    } else {
        kw_str_printf(s, "%lld", (long long)done);
    }
    if (p->rate > 0) {
        kw_str_printf(s, p->rate >= 10 ? "  %.0f %s/s" : "  %.2f %s/s", p->rate, p->unit);
        if (p->total > done) {
            kw_str_printf(s, "  %s ", _(N_("left")));
            kw_show_duration(s, (double)(p->total - done) / p->rate);
        }
    }
    if (p->total > 0 && done >= p->total) {
        kw_str_printf(s, "  %s ", _(N_("took")));
        kw_show_duration(s, t - p->start);
    }
    if (extra && *extra)
        kw_str_printf(s, "  %s", extra);
}

static void show(kw_progress *p, int64_t done, const char *extra, double t)
{
    kw_str s = { 0 };
    add_line(p, &s, done, extra, t);
    if (s.s && kw_width(s.s) >= p->width && p->tty) {
        s.n = 0;                          /* a line that wraps could not be rewritten: leave the extra away */
        add_line(p, &s, done, NULL, t);
    }
    if (s.s && !s.failed)
        fprintf(stderr, p->tty ? "\r%s\033[K" : "%s\n", s.s);
    fflush(stderr);
    kw_str_free(&s);
    p->last_shown = t;
    p->shown = true;
}

void kw_progress_at(kw_progress *p, int64_t done, const char *extra)
{
    double t = kw_now();
    measure(p, done, t);
    if (!p->quiet && t - p->last_shown >= (p->tty ? 0.1 : 10))
        show(p, done, extra, t);
}

void kw_progress_pause(kw_progress *p)
{
    if (p->shown && p->tty && !p->quiet)
        fputs("\r\033[K", stderr);
    p->last_shown -= p->tty ? 1 : 0;
}

void kw_progress_end(kw_progress *p, int64_t done, const char *extra)
{
    double t = kw_now();
    measure(p, done, t);
    if (p->quiet)
        return;
    show(p, done, extra, t);
    if (p->tty)
        fputc('\n', stderr);
}

void kw_say(const kw_cli *c, const char *text)
{
    if (c->global.quiet)
        return;
    fprintf(stderr, c->term.err_tty ? "\r%s ...\033[K" : "%s ...\n", text);
    fflush(stderr);
}

void kw_hush(const kw_cli *c)
{
    if (!c->global.quiet && c->term.err_tty)
        fputs("\r\033[K", stderr);
}
