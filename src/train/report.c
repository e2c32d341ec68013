/* report.c - report.html: the page's skeleton (data/report/page.html) filled with what is known of a run. */
#include "report_parts.h"

#include "picture/picture.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern const char kw_report_page[], kw_report_page_end[], kw_report_style[], kw_report_style_end[];
__asm__(".pushsection .rodata\n"
        ".hidden kw_report_page\n.hidden kw_report_page_end\n.hidden kw_report_style\n.hidden kw_report_style_end\n"
        ".globl kw_report_page\n.globl kw_report_page_end\n.globl kw_report_style\n.globl kw_report_style_end\n"
        "kw_report_page: .incbin \"" KW_DATA "/report/page.html\"\nkw_report_page_end: .byte 0\n"
        "kw_report_style: .incbin \"" KW_DATA "/report/style.css\"\nkw_report_style_end: .byte 0\n"
        ".popsection\n");

typedef struct { kw_arena *arena; const kw_report *r; kw__story s; double now; kw_str *out; } page;

static void open_tag(kw_str *b, const char *tag, const char *class)
{
    kw_str_printf(b, *class ? "<%s class=\"%s\">" : "<%s>", tag, class);
}

/* <tag class="class">text</tag> */
static void element(kw_str *b, const char *tag, const char *class, const char *text)
{
    open_tag(b, tag, class);
    kw__add_html(b, text);
    kw_str_printf(b, "</%s>", tag);
}

/* ---- the head of the document ------------------------------------------------------------------------------------ */

static void lang(page *p) { kw__add_html(p->out, p->r->lang ? p->r->lang : "en"); }
static void style(page *p) { kw_str_add(p->out, kw_report_style); }

/* Only this very style sheet may be used by the page: base64 of its SHA-256. */
static void style_hash(page *p)
{
    char hex[65];
    uint8_t digest[32];
    p->out->failed |= !kw_sha256_of(kw_report_style, strlen(kw_report_style), hex);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)strtoul((char[3]){ hex[2 * i], hex[2 * i + 1], 0 }, NULL, 16);
    kw_base64(digest, sizeof digest, p->out);
}

static void refresh(page *p)
{
    if (p->s.state == KW__RUNNING)
        kw_str_add(p->out, "<meta http-equiv=\"refresh\" content=\"10\">\n");
}

static void title(page *p)
{
    if (p->s.state == KW__RUNNING && p->s.steps > 0)
        kw_str_printf(p->out, "%.0f %% · ", 100 * fmin(1, (double)p->s.step / (double)p->s.steps));
    kw__add_html(p->out, p->r->name ? p->r->name : "");
    kw_str_add(p->out, " – Kiwame");
}

/* ---- the top of the page ----------------------------------------------------------------------------------------- */

static void named(kw_str *b, const char *label, const char *tag, const char *value)
{
    kw_str_add(b, "<span>");
    kw__add_html(b, label);
    kw_str_add(b, " ");
    element(b, tag, "", value);
    kw_str_add(b, "</span>");
}

static void head(page *p)
{
    static const char *const states[] = { N_("running"), N_("finished"), N_("stopped"), N_("failed") };
    static const char *const classes[] = { "state running", "state finished", "state stopped", "state failed" };
    kw_str *b = p->out;
    kw_str_add(b, "<p class=\"brand\"><b>Kiwame</b> ");
    kw__add_html(b, _(N_("training report")));
    kw_str_add(b, "</p><h1>");
    kw__add_html(b, p->r->name ? p->r->name : "");
    kw_str_printf(b, " <span class=\"%s\">", classes[p->s.state]);
    kw__add_html(b, _(states[p->s.state]));
    kw_str_add(b, "</span></h1><p class=\"facts\">");
    if (p->r->trigger && *p->r->trigger)
        named(b, _(N_("Trigger word")), "code", p->r->trigger);
    if (p->r->base)
        named(b, _(N_("Base model")), "b", p->r->base);
    kw_str_add(b, "</p>");
    if (p->s.end_text && p->s.state != KW__FINISHED)
        element(b, "p", "ended", p->s.end_text);
}

static void progress(page *p)
{
    kw_str *b = p->out;
    double share = p->s.steps > 0 ? fmin(1, (double)p->s.step / (double)p->s.steps) : 0;
    if (!p->s.steps)
        return;
    kw_str_add(b,
               "<div class=\"progress\"><svg viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">"
               "<rect class=\"all\" width=\"1000\" height=\"10\"/><rect class=\"done\" height=\"10\" width=\"");
    kw__add_fixed(b, 1000 * share, 1);
    kw_str_add(b, "\"/></svg><p><b>");
    kw__textf(b, _(N_("step %lld of %lld")), (long long)p->s.step, (long long)p->s.steps);
    kw_str_add(b, "</b><span>");
    if (p->s.state == KW__RUNNING && p->r->seconds_left > 0) {
        kw__add_html(b, _(N_("time left")));
        kw_str_add(b, " ");
        kw__add_duration(b, p->r->seconds_left);
    }
    kw_str_add(b, "</span></p></div>");
}

static void open_tile(kw_str *b, const char *label, const char *class)
{
    open_tag(b, "div", class);
    element(b, "span", "label", label);
    kw_str_add(b, "<span class=\"value\">");
}

static void close_tile(kw_str *b, const char *unit)
{
    kw_str_add(b, "</span>");
    element(b, "span", "unit", unit);
    kw_str_add(b, "</div>");
}

static void gain_tile(page *p)
{
    kw_str *b = p->out;
    double gain = kw__gain(p->s.newest);
    open_tile(b, _(N_("Held-out loss")), gain < 0 ? "tile good" : "tile");
    if (isfinite(gain))
        kw__add_percent(b, gain);
    else
        kw__add_fixed(b, p->s.newest->loss, 4);
    close_tile(b, isfinite(gain) ? _(N_("compared with the base")) : "");
}

static void tiles(page *p)
{
    kw_str *b = p->out;
    kw_str_add(b, "<div class=\"tiles\">");
    if (isfinite(p->s.loss)) {
        open_tile(b, _(N_("Loss")), "tile");
        kw__add_fixed(b, p->s.loss, 4);
        close_tile(b, _(N_("moving average")));
    }
    if (p->s.newest)
        gain_tile(p);
    if (p->s.best && p->s.best->step > 0) {
        open_tile(b, _(N_("Best checkpoint")), "tile");
        kw_str_printf(b, "%lld", (long long)p->s.best->step);
        close_tile(b, _(N_("step")));
    }
    if (isfinite(p->s.seconds)) {
        bool fast = p->s.seconds < 1;
        open_tile(b, _(N_("Speed")), "tile");
        kw__add_fixed(b, fast ? 1 / p->s.seconds : p->s.seconds, 2);
        close_tile(b, fast ? _(N_("steps per second")) : _(N_("seconds per step")));
    }
    if (p->s.last > p->s.started) {
        open_tile(b, _(N_("Time taken")), "tile");
        kw__add_duration(b, p->s.last - p->s.started);
        close_tile(b, "");
    }
    kw_str_add(b, "</div>");
}

/* ---- what to know and what to take away -------------------------------------------------------------------------- */

static void verdict(page *p)
{
    static const char *const classes[] = { "", "verdict good", "verdict watch", "verdict bad" };
    static const char *const names[] = { "", N_("Good"), N_("Watch"), N_("Over-fitting suspected") };
    kw_str *b = p->out;
    if (p->s.verdict == KW__UNKNOWN)
        return;
    kw_str_printf(b, "<p class=\"%s\"><b>", classes[p->s.verdict]);
    kw__add_html(b, _(names[p->s.verdict]));
    kw_str_add(b, "</b> <span>");
    if (p->s.verdict == KW__GOOD && kw__gain(p->s.newest) >= 0)
        kw__add_html(b, _(N_("The held-out loss is not below the base's yet.")));
    else if (p->s.verdict == KW__GOOD)
        kw__add_html(b,
                     _(N_("The held-out loss is falling: what is learnt also holds for pictures it has never seen.")));
    else if (p->s.verdict == KW__WATCH)
        kw__textf(b, _(N_("The held-out loss has risen a little. The best checkpoint so far is step %lld.")),
                  (long long)p->s.best->step);
    else
        kw__textf(b, _(N_("The held-out loss rose %d times in a row. The best checkpoint is step %lld.")), p->s.rises,
                  (long long)p->s.best->step);
    kw_str_add(b, "</span></p>\n");
}

static void file_row(kw_str *b, const kw_report_file *f)
{
    kw_str_add(b, f->best ? "<tr class=\"best\"><td>" : "<tr><td>");
    element(b, "code", "", f->name);
    if (f->best)
        element(b, "span", "star", _(N_("best")));
    kw_str_add(b, "</td><td>");
    kw__textf(b, _(N_("step %lld")), (long long)f->step);
    kw_str_add(b, "</td><td>");
    if (f->epoch > 0)
        kw__textf(b, _(N_("epoch %lld")), (long long)f->epoch);
    kw_str_add(b, "</td><td class=\"number\">");
    kw__add_fixed(b, (double)f->bytes / 1e6, f->bytes < 10000000 ? 1 : 0);
    kw_str_add(b, " MB</td></tr>");
}

static void result(page *p)
{
    kw_str *b = p->out;
    if (!p->r->n_files && !p->r->lora_line)
        return;
    kw_str_add(b, "<section class=\"card result\" id=\"result\"><h2>");
    kw__add_html(b, p->s.state == KW__RUNNING ? _(N_("Made so far")) : _(N_("Your LoRA")));
    kw_str_add(b, "</h2>");
    if (p->r->lora_line) {
        element(b, "p", "note", _(N_("Copy this line into your prompt:")));
        element(b, "code", "copy", p->r->lora_line);
    }
    if (p->r->n_files) {
        kw_str_add(b, "<div class=\"scroll\"><table class=\"files\">");
        for (size_t i = 0; i < p->r->n_files; i++)
            file_row(b, &p->r->files[i]);
        kw_str_add(b, "</table></div>");
    }
    element(b, "p", "small", _(N_("Please check the terms of use of your pictures and of the base model.")));
    kw_str_add(b, "</section>\n");
}

static bool is_warning(const kw_event *v)
{
    return v->kind == KW_EVENT_NOTE && v->text && v->level
        && (!strcmp(v->level, "warning") || !strcmp(v->level, "error"));
}

static void warnings(page *p)
{
    enum { MOST = 100 };
    kw_str *b = p->out;
    size_t n = p->r->n_warnings, shown = 0;
    for (size_t i = 0; i < p->r->n_events; i++)
        n += is_warning(&p->r->events[i]);
    if (!n)
        return;
    kw_str_add(b, "<section class=\"card warnings\"><h2>");
    kw__add_html(b, _(N_("Worth a look")));
    kw_str_printf(b, " <span class=\"count\">%zu</span></h2><ul>", n);
    for (size_t i = 0; i < p->r->n_warnings && shown < MOST; i++, shown++)
        element(b, "li", "", p->r->warnings[i]);
    for (size_t i = 0; i < p->r->n_events && shown < MOST; i++)
        if (is_warning(&p->r->events[i])) {
            kw_str_add(b, "<li>");
            if (p->r->events[i].step) {
                kw_str_add(b, "<b>");
                kw__textf(b, _(N_("step %lld")), (long long)p->r->events[i].step);
                kw_str_add(b, "</b> ");
            }
            kw__add_html(b, p->r->events[i].text);
            kw_str_add(b, "</li>");
            shown++;
        }
    if (shown < n) {
        kw_str_add(b, "<li>");
        kw__textf(b, _(N_("and %zu more")), n - shown);
        kw_str_add(b, "</li>");
    }
    kw_str_add(b, "</ul></section>\n");
}

static void before_after(page *p) { kw__before_after(p->arena, p->r, p->out); }
static void samples(page *p) { kw__samples(p->arena, p->r, p->out); }
static void curves(page *p) { kw__curves(p->arena, p->r, &p->s, p->out); }
static void sheet(page *p) { kw__sheet(p->arena, p->r, p->out); }

/* ---- what it was made of ----------------------------------------------------------------------------------------- */

static void facts(kw_str *b, const kw_report_fact *f, size_t n)
{
    kw_str_add(b, "<dl>");
    for (size_t i = 0; i < n; i++) {
        element(b, "dt", "", _(f[i].label));
        element(b, "dd", "", f[i].value ? f[i].value : "");
    }
    kw_str_add(b, "</dl>");
}

/* Every bucket as a frame of its shape, the same area each. */
static void buckets(kw_str *b, const kw_report *r)
{
    kw_str_add(b, "<h3>");
    kw__add_html(b, _(N_("Resolution buckets")));
    kw_str_add(b, "</h3><ul class=\"buckets\">");
    for (size_t i = 0; i < r->n_buckets; i++) {
        double aspect = fmin(fmax((double)KW_MAX(r->buckets[i].w, 1) / KW_MAX(r->buckets[i].h, 1), 0.25), 4);
        double w = 32 * sqrt(aspect), h = 32 / sqrt(aspect);
        kw_str_add(
            b, "<li><svg viewBox=\"0 0 68 68\" width=\"68\" height=\"68\" aria-hidden=\"true\"><rect rx=\"3\" x=\"");
        kw__add_fixed(b, 34 - w / 2, 1);
        kw_str_add(b, "\" y=\"");
        kw__add_fixed(b, 34 - h / 2, 1);
        kw_str_add(b, "\" width=\"");
        kw__add_fixed(b, w, 1);
        kw_str_add(b, "\" height=\"");
        kw__add_fixed(b, h, 1);
        kw_str_printf(b, "\"/><text x=\"34\" y=\"39\">%lld</text></svg>%d×%d</li>", (long long)r->buckets[i].pictures,
                      r->buckets[i].w, r->buckets[i].h);
    }
    kw_str_add(b, "</ul>");
}

static void tags(kw_str *b, const kw_report *r)
{
    kw_str_add(b, "<h3>");
    kw__add_html(b, _(N_("Most frequent tags")));
    kw_str_add(b, "</h3><ul class=\"tags\">");
    for (size_t i = 0; i < r->n_tags; i++) {
        kw_str_add(b, "<li>");
        kw__add_html(b, r->tags[i].text);
        kw_str_printf(b, "<b>%lld</b></li>", (long long)r->tags[i].n);
    }
    kw_str_add(b, "</ul>");
}

static void data(page *p)
{
    kw_str *b = p->out;
    if (!p->r->n_data && !p->r->n_buckets && !p->r->n_tags)
        return;
    kw_str_add(b, "<section class=\"card\"><h2>");
    kw__add_html(b, _(N_("Training pictures")));
    kw_str_add(b, "</h2>");
    facts(b, p->r->data, p->r->n_data);
    if (p->r->n_buckets)
        buckets(b, p->r);
    if (p->r->n_tags)
        tags(b, p->r);
    kw_str_add(b, "</section>\n");
}

static void settings(page *p)
{
    kw_str *b = p->out;
    if (!p->r->n_settings && !p->r->plan)
        return;
    kw_str_add(b, "<section class=\"card\"><h2>");
    kw__add_html(b, _(N_("Settings")));
    kw_str_add(b, "</h2>");
    facts(b, p->r->settings, p->r->n_settings);
    if (p->r->plan) {
        kw_str_add(b, "<details><summary>");
        kw__add_html(b, _(N_("The plan")));
        kw_str_add(b, "</summary><pre>");
        kw__add_html(b, p->r->plan);
        kw_str_add(b, "</pre></details>");
    }
    kw_str_add(b, "</section>\n");
}

static void foot(page *p)
{
    kw_str *b = p->out;
    time_t when = (time_t)p->now;
    struct tm t = { .tm_mday = 1 };
    char stamp[32] = "";
    localtime_r(&when, &t);
    strftime(stamp, sizeof stamp, "%Y-%m-%d %H:%M:%S", &t);
    kw_str_add(b, "<p>Kiwame " KW_VERSION " · ");
    kw__textf(b, _(N_("as of %s")), stamp);
    kw_str_add(b, "</p><p>");
    if (p->s.state == KW__RUNNING)
        kw__add_html(b, _(N_("This page reloads itself every 10 seconds until the run ends.")));
    else
        kw__add_html(b, _(N_("Everything on this page is in this one file: it can be sent or kept as it is.")));
    kw_str_add(b, "</p>");
}

/* ---- the skeleton ------------------------------------------------------------------------------------------------ */

static const struct { const char *name; void (*fill)(page *p); } slots[] = {
    { "lang", lang }, { "style_hash", style_hash }, { "refresh", refresh }, { "title", title }, { "style", style },
    { "head", head }, { "progress", progress }, { "tiles", tiles }, { "verdict", verdict }, { "result", result },
    { "warnings", warnings }, { "before_after", before_after }, { "samples", samples }, { "curves", curves },
    { "sheet", sheet }, { "data", data }, { "settings", settings }, { "foot", foot },
};

static void fill(page *p, const char *name, size_t n)
{
    for (size_t i = 0; i < KW_LEN(slots); i++)
        if (strlen(slots[i].name) == n && !memcmp(slots[i].name, name, n)) {
            slots[i].fill(p);
            return;
        }
    KW_BUG("report: no slot {{%.*s}}", (int)n, name);
}

static void assemble(page *p)
{
    for (const char *s = kw_report_page, *at; *s; s = at) {
        at = strstr(s, "{{");
        if (!at)
            at = s + strlen(s);
        kw_str_add_n(p->out, s, (size_t)(at - s));
        if (*at) {
            const char *end = strstr(at, "}}");
            KW_ASSERT(end);
            fill(p, at + 2, (size_t)(end - at - 2));
            at = end + 2;
        }
    }
}

kw_status kw_report_html(const kw_report *r, kw_str *out, kw_err *e)
{
    page p = { .arena = kw_arena_new(), .r = r, .out = out, .now = r->now > 0 ? r->now : (double)time(NULL) };
    if (!p.arena)
        return kw_fail(e, KW_ENOMEM, N_("%s: out of memory"), "report.html");
    kw__story_read(r, &p.s);
    assemble(&p);
    kw_arena_free(p.arena);
    return out->failed ? kw_fail(e, KW_ENOMEM, N_("%s: out of memory"), "report.html") : KW_OK;
}

kw_status kw_report_write(const char *path, const kw_report *r, kw_err *e)
{
    kw_str html = { 0 };
    kw_status s = kw_report_html(r, &html, e);
    if (!s)
        s = kw_file_write_atomic(path, html.s, html.n, e);
    kw_str_free(&html);
    return s;
}
