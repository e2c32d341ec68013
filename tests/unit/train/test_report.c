/* test_report.c - report.html: well-formed, self-contained, safe, translated; the right pictures and curves. */
#include "train/report_parts.h"

#include "picture/picture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVIL "</style><script>alert('x')</script>\"><img src=x onerror=\"a\">&\x1b[0m"

/* Fontconfig keeps its tables until the process ends. */
const char *__lsan_default_suppressions(void) { return "leak:libfontconfig\n"; }

typedef struct { kw_arena *a; char dir[64]; kw_event *v; size_t n; } room;

static void save_picture(room *r, const char *name, int w, int h)
{
    kw_picture p = { .w = w, .h = h, .rgb = kw_block_new((size_t)w * (size_t)h * 3) };
    kw_str png = { 0 };
    for (int i = 0; i < w * h * 3; i++)
        p.rgb[i] = (uint8_t)(i * 7);
    assert_int_equal(kw_png_encode(&p, NULL, 0, &png, NULL), KW_OK);
    assert_int_equal(kw_file_write_atomic(kw_path_join(r->a, r->dir, name), png.s, png.n, NULL), KW_OK);
    kw_str_free(&png);
    kw_block_free(p.rgb);
}

static int enter(void **state)
{
    room *r = calloc(1, sizeof *r);
    strcpy(r->dir, "/tmp/kw-report-XXXXXX");
    r->a = kw_arena_new();
    r->v = kw_alloc_array(r->a, 4000, sizeof *r->v);
    *state = r;
    if (!mkdtemp(r->dir))
        return 1;
    save_picture(r, "small.png", 40, 30);
    save_picture(r, "large.png", 1000, 500);
    return 0;
}

static int leave(void **state)
{
    room *r = *state;
    kw_arena_free(r->a);
    int failed = kw_remove_all(r->dir, NULL);
    free(r);
    return failed;
}

static void add(room *r, kw_event v) { r->v[r->n++] = v; }

static void add_step(room *r, int step, double loss)
{
    add(r, (kw_event){ .kind = KW_EVENT_STEP,
                       .step = step,
                       .time = 1000 + step,
                       .loss = loss,
                       .average = loss,
                       .norm = 1,
                       .rate = { 1e-4, -1, -1 },
                       .seconds = 0.5 });
}

static void add_validation(room *r, int step, double loss)
{
    add(r, (kw_event){ .kind = KW_EVENT_VALIDATION, .step = step, .time = 1000 + step, .loss = loss, .base = 0.1 });
}

static void add_sample(room *r, int step, int index, const char *file)
{
    add(r, (kw_event){ .kind = KW_EVENT_SAMPLE, .step = step, .index = index, .time = 1000 + step, .seed = 42,
                       .prompt = "prompt " EVIL, .file = file });
}

static char *html(room *r, kw_report *report)
{
    kw_str b = { 0 };
    kw_err e;
    report->events = r->v;
    report->n_events = r->n;
    report->dir = r->dir;
    if (kw_report_html(report, &b, &e))
        fail_msg("%s", e.what);
    char *copy = kw_strdup(r->a, b.s);
    kw_str_free(&b);
    return copy;
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

/* Every element that opens closes, in order; attributes are quoted. */
static void assert_well_formed(const char *s)
{
    static const char *const empty[] = { "meta", "link", "img", "!DOCTYPE" };
    char open[64][16];
    int depth = 0;
    while ((s = strchr(s, '<'))) {
        bool closes = s[1] == '/', alone = false;
        const char *name = s + 1 + closes;
        size_t n = strcspn(name, " >/\n");
        assert_true(n > 0 && n < 16);
        for (size_t i = 0; i < KW_LEN(empty); i++)
            alone |= strlen(empty[i]) == n && !memcmp(name, empty[i], n);
        const char *end = name + n;
        for (bool quoted = false; *end != '>' || quoted; end++) {
            assert_true(*end && *end != '<');
            quoted ^= *end == '"';
        }
        alone |= end[-1] == '/';
        if (closes) {
            assert_true(depth > 0 && strlen(open[depth - 1]) == n);
            assert_memory_equal(open[--depth], name, n);
        } else if (!alone) {
            assert_true(depth < 64);
            snprintf(open[depth++], 16, "%.*s", (int)n, name);
        }
        s = end;
    }
    assert_int_equal(depth, 0);
}

/* ---- the page ---------------------------------------------------------------------------------------------------- */

/* Hostile texts in every place where somebody else's text can come. */
static kw_report hostile(room *r)
{
    static const kw_report_fact fact[] = { { EVIL, EVIL } };
    static const kw_report_tag tag[] = { { EVIL, 3 } };
    static const kw_report_file file[] = { { EVIL, 5, 1, 3000000, true } };
    static const kw_lora_bucket bucket[] = { { 128, 96, 7 }, { 0, 0, 0 } };
    static const char *const warning[] = { EVIL };
    add(r, (kw_event){ .kind = KW_EVENT_START, .name = EVIL, .steps = 20, .time = 1000 });
    for (int i = 0; i <= 10; i++) {
        if (i)
            add_step(r, i, i == 4 ? NAN : 0.2 - 0.01 * i);
        if (i % 5 == 0) {
            add_validation(r, i, 0.1 - 0.001 * i);
            add_sample(r, i, 0, "small.png");
            add_sample(r, i, 2, "large.png");
        }
    }
    add(r, (kw_event){ .kind = KW_EVENT_NOTE, .step = 3, .level = "warning", .text = EVIL });
    add(r, (kw_event){ .kind = KW_EVENT_NOTE, .step = 3, .level = "info", .text = "not shown" });
    return (kw_report){ .lang = EVIL, .name = EVIL, .trigger = EVIL, .base = EVIL, .seconds_left = 75, .settings = fact,
                        .n_settings = 1, .plan = EVIL, .warnings = warning, .n_warnings = 1, .data = fact, .n_data = 1,
                        .buckets = bucket, .n_buckets = 2, .tags = tag, .n_tags = 1, .files = file, .n_files = 1,
                        .lora_line = EVIL, .sheet = "large.png", .now = 1767225600 };
}

static void safe_and_self_contained(void **state)
{
    room *r = *state;
    kw_report report = hostile(r);
    char *s = html(r, &report);
    assert_well_formed(s);
    assert_int_equal(count(s, "<script"), 0);
    assert_int_equal(count(s, "&lt;script&gt;alert(&#39;x&#39;)"),
                     15 + 2 * 3 + 2 + 3 * 2 * 2); /* words; pairs; table */
    assert_int_equal(count(s, "</style"), 1);
    assert_null(strchr(s, '\x1b'));
    assert_null(strstr(s, "{{"));
    assert_null(strstr(s, "http:"));
    assert_null(strstr(s, "https:"));
    assert_null(strstr(s, " style="));
    assert_null(strstr(s, "not shown"));
    for (const char *p = s; (p = strstr(p, " src=\"")); p++)
        assert_memory_equal(p, " src=\"data:image/png;base64,", 28);
    for (const char *p = s; (p = strstr(p, " href=\"")); p++)
        assert_true(p[7] == '#' || !memcmp(p + 7, "data:,\"", 7));
}

/* What the Content-Security-Policy names is the style sheet that is there. */
static void policy_names_the_style(void **state)
{
    room *r = *state;
    kw_report report = { .name = "x" };
    char *s = html(r, &report), *from = strstr(s, "<style>") + 7, *to = strstr(s, "</style>"), hex[65];
    kw_str b = { 0 };
    uint8_t digest[32];
    assert_true(kw_sha256_of(from, (size_t)(to - from), hex));
    for (int i = 0; i < 32; i++)
        sscanf(hex + 2 * i, "%2hhx", &digest[i]);
    kw_str_add(&b, "default-src 'none'; img-src data:; style-src 'sha256-");
    kw_base64(digest, 32, &b);
    kw_str_add(&b, "'; base-uri 'none'; form-action 'none'\">");
    assert_non_null(strstr(s, b.s));
    kw_str_free(&b);
}

static void reloads_while_it_lasts(void **state)
{
    room *r = *state;
    static const struct {
        const char *level, *shown;
    } ends[] = { { "finished", "state finished" },
                 { "stopped", "state stopped" },
                 { "failed", "state failed" },
                 { NULL, "state finished" } };
    kw_report report = { .name = "x", .seconds_left = 75 };
    add(r, (kw_event){ .kind = KW_EVENT_START, .steps = 8, .time = 1000 });
    add_step(r, 2, 0.1);
    char *s = html(r, &report);
    assert_non_null(strstr(s, "http-equiv=\"refresh\" content=\"10\""));
    assert_non_null(strstr(s, "<title>25 % · x"));
    assert_non_null(strstr(s, "1 min 15 s"));
    assert_non_null(strstr(s, "width=\"250.0\"/>"));
    for (size_t i = 0; i < KW_LEN(ends); i++) {
        add(r,
            (kw_event){
                .kind = KW_EVENT_END, .step = 2, .level = ends[i].level, .text = "because of <this>", .time = 1010 });
        s = html(r, &report);
        assert_null(strstr(s, "http-equiv=\"refresh\""));
        assert_non_null(strstr(s, ends[i].shown));
        assert_true(!strstr(s, "because of &lt;this&gt;") == (i == 0 || i == 3));
    }
    add_step(r, 3, 0.1);                                           /* a resumed run lasts again */
    assert_non_null(strstr(html(r, &report), "http-equiv=\"refresh\""));
}

static void little_or_nothing(void **state)
{
    room *r = *state;
    kw_report report = { 0 };
    assert_well_formed(html(r, &report));
    add_step(r, 1, NAN);
    add_validation(r, 0, NAN);
    add_sample(r, 0, 0, NULL);
    add_sample(r, 5, -1, "small.png");
    add_sample(r, 5, 1000, "small.png");
    add(r, (kw_event){ .kind = KW_EVENT_END });
    char *s = html(r, &report);
    assert_well_formed(s);
    assert_null(strstr(strstr(s, "</style>"), "nan"));
    assert_null(strstr(strstr(s, "</style>"), "inf"));
    add_step(r, 2, 0.1);
    add_validation(r, 0, 0.1);
    assert_well_formed(html(r, &report));
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static void pictures(void **state)
{
    room *r = *state;
    kw_report report = { .name = "x", .sheet = "large.png" };
    kw_str raw = { 0 };
    char *png;
    size_t n;
    add_sample(r, 0, 0, "small.png");
    add_sample(r, 0, 1, "large.png");
    add_sample(r, 9, 0, "../small.png");
    add_sample(r, 9, 1, "gone.png");
    add_sample(r, 9, 1, "large.png");                              /* made again: this one counts */
    char *s = html(r, &report);
    assert_int_equal(kw_file_read(r->a, kw_path_join(r->a, r->dir, "small.png"), 1 << 20, &png, &n, NULL), KW_OK);
    kw_base64(png, n, &raw);
    assert_int_equal(count(s, raw.s), 2);                          /* as it is, in the pair and in the table */
    assert_int_equal(count(s, "width=\"256\" height=\"128\""), 2);
    assert_int_equal(count(s, "width=\"512\" height=\"256\""), 2);
    assert_int_equal(count(s, "width=\"1000\" height=\"500\""), 1);
    assert_int_equal(count(s, "class=\"missing\""), 2);
    assert_int_equal(count(s, "class=\"go down\" href=\"#s9-"), 2);
    assert_int_equal(count(s, "class=\"go up\" href=\"#s0-"), 2);
    kw_str_free(&raw);
}

/* Of many steps the first, the last and an even choice between them. */
static void many_rows(void **state)
{
    room *r = *state;
    kw_report report = { .name = "x" };
    for (int i = 0; i <= 100; i++)
        add_sample(r, 10 * i, 0, "small.png");
    char *s = html(r, &report);
    assert_int_equal(count(s, "<th scope=\"row\">"), 24);
    assert_int_equal(count(s, "<b>base</b></th>"), 1);
    assert_int_equal(count(s, "<b>1000</b></th>"), 1);
    assert_non_null(strstr(s, "24 of 101 steps"));
    assert_well_formed(s);
}

/* ---- curves ------------------------------------------------------------------------------------------------------ */

/*
 * Two points, (0, 0) and (10, 1), from zero: y runs from 0 to 1 + 8 %, so y = 1 stands at 190 - 178 / 1.08 = 25.2;
 * x from 54 to 504. Labels at 0, 0.2 ...
 */
static void coordinates(void **state)
{
    room *r = *state;
    kw_str b = { 0 };
    kw__point p[] = { { 0, 0, NULL }, { 10, 1, NULL } };
    kw__series series = { KW__LINE, 1, "a", p, 2 };
    kw__chart_draw(r->a, &b,
                   &(kw__chart){ .id = "i", .title = "t", .series = &series, .n_series = 1, .from_zero = true });
    assert_non_null(strstr(b.s, "d=\"M54.0 190.0L504.0 25.2\""));
    assert_non_null(strstr(b.s, ">0</text>"));
    assert_non_null(strstr(b.s, ">0.2</text>"));
    assert_non_null(strstr(b.s, ">10</text>"));
    kw_str_free(&b);
}

/* Small numbers share a power of ten; shares are in percent. */
static void labels(void **state)
{
    room *r = *state;
    kw_str b = { 0 };
    kw__point small[] = { { 0, 1e-5, NULL }, { 1, 1e-4, NULL } }, share[] = { { 0, 0, NULL }, { 1, -0.2, NULL } };
    kw__series one = { KW__LINE, 1, NULL, small, 2 }, two = { KW__DOTS, 1, NULL, share, 2 };
    kw__chart_draw(r->a, &b, &(kw__chart){ .id = "i", .title = "t", .series = &one, .n_series = 1, .from_zero = true });
    assert_non_null(strstr(b.s, ">1.0e-4</text>"));
    assert_non_null(strstr(b.s, ">0.2e-4</text>"));
    assert_non_null(strstr(b.s, ">0</text>"));
    kw_str_free(&b);
    kw__chart_draw(
        r->a, &b, &(kw__chart){ .id = "i", .title = "t", .series = &two, .n_series = 1, .percent = true, .zero = "z" });
    assert_non_null(strstr(b.s, ">−20 %</text>"));
    assert_non_null(strstr(b.s, ">0 %</text>"));
    assert_int_equal(count(b.s, "<circle"), 2);
    kw_str_free(&b);
}

/* 3000 values with two of them far out: a band of 234 bins, and labels that suit the others. */
static void bands(void **state)
{
    room *r = *state;
    enum { N = 3000 };
    kw_str b = { 0 };
    kw__point *p = kw_alloc_array(r->a, N, sizeof *p);
    for (int i = 0; i < N; i++)
        p[i] = (kw__point){ i, i == 7 ? 1e30 : i == 8 ? -INFINITY : 0.5 + 0.5 * (i % 2), NULL };
    kw__series series = { KW__RAW, 1, NULL, p, N };
    kw__chart_draw(r->a, &b, &(kw__chart){ .id = "i", .title = "t", .series = &series, .n_series = 1 });
    assert_int_equal(count(strstr(b.s, "class=\"band"), "L"), 2 * 234 - 1);
    assert_non_null(strstr(b.s, ">0.6</text>"));
    kw_str_free(&b);
}

static void story(void **state)
{
    room *r = *state;
    static const struct { double loss[6]; int n; kw__verdict verdict; int best, rises; } known[] = {
        { { 0.1 }, 1, KW__UNKNOWN, 0, 0 },
        { { 0.1, 0.09, 0.08 }, 3, KW__GOOD, 20, 0 },
        { { 0.1, 0.08, 0.09 }, 3, KW__WATCH, 10, 1 },
        { { 0.1, 0.08, 0.09, 0.085 }, 4, KW__GOOD, 10, 0 },
        { { 0.1, 0.07, 0.08, 0.085, 0.09 }, 5, KW__OVERFITTING, 10, 3 },
        { { 0.1, 0.07, NAN, 0.08, 0.09, 0.091 }, 6, KW__OVERFITTING, 10, 3 },
    };
    for (size_t i = 0; i < KW_LEN(known); i++) {
        kw__story s;
        r->n = 0;
        for (int k = 0; k < known[i].n; k++)
            add_validation(r, 10 * k, known[i].loss[k]);
        kw_report report = { .name = "x", .events = r->v, .n_events = r->n };
        kw__story_read(&report, &s);
        assert_int_equal(s.verdict, known[i].verdict);
        assert_int_equal(s.best->step, known[i].best);
        assert_int_equal(s.rises, known[i].rises);
    }
    kw_report report = { .name = "x" };
    char *page = html(r, &report);
    assert_non_null(strstr(page, "class=\"verdict bad\""));
    assert_non_null(strstr(page, "rose 3 times in a row. The best checkpoint is step 10."));
    assert_non_null(strstr(page, "best: step 10, −30.0 %"));
    assert_non_null(strstr(page, "<title>step 40: 0.09000 (−10.0 %)</title>"));
    assert_non_null(strstr(page, "base 0.1000"));
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

/* A language without letters: formats stay, words are gone. */
static const char *mute(const char *text)
{
    static char pool[1 << 16];
    static size_t used;
    char *start = pool + used, *out = start;
    assert_true(used + strlen(text) * 4 < sizeof pool);
    for (const char *s = text; *s;) {
        size_t n = *s == '%' ? 1 + strcspn(s + 1, "dsuf%") + 1 : 1;
        if (n > 1)
            out = (char *)memcpy(out, s, n) + n;
        else if (*s == ' ')
            *out++ = ' ';
        else
            out = (char *)memcpy(out, "訳", 3) + 3;
        s += n;
    }
    *out = 0;
    used += (size_t)(out - start) + 1;
    return start;
}

/* Outside of tags, no word is left that did not go through kw_translate (units and names of ours apart). */
static void all_words_are_translated(void **state)
{
    room *r = *state;
    static const char *const allowed[] = { "Kiwame", "MB", "e-4", "U", "e" };
    kw_report report = hostile(r);
    for (size_t i = 0; i < r->n; i++)                              /* others' texts without letters */
        r->v[i].prompt = r->v[i].text = "1";
    kw_report_fact fact = { "settings' label", "1" };
    kw_report_tag tag = { "1", 1 };
    kw_report_file file = { "1", 1, 1, 1, true };
    const char *one = "1";
    report.lang = report.name = report.trigger = report.base = report.plan = report.lora_line = "1";
    report.settings = report.data = &fact;
    report.tags = &tag;
    report.files = &file;
    report.warnings = &one;
    const char *(*before)(const char *) = kw_translate;
    kw_translate = mute;
    char *s = strstr(html(r, &report), "</style>");
    kw_translate = before;
    for (bool tagged = true; *s; s++) {
        tagged = *s == '<' ? true : *s == '>' ? false : tagged;
        if (tagged || !isalpha((unsigned char)*s))
            continue;
        size_t n = 0, i = 0;
        while (isalpha((unsigned char)s[n]))
            n++;
        while (i < KW_LEN(allowed) && strncmp(s, allowed[i], n))
            i++;
        if (i == KW_LEN(allowed))
            fail_msg("not translated: %.60s", s);
        s += n - 1;
    }
}

/* The file appears whole or not at all; a failure is told. */
static void writing(void **state)
{
    room *r = *state;
    kw_err e;
    char *path = kw_path_join(r->a, r->dir, "report.html"), *s;
    size_t n;
    kw_report report = hostile(r);
    report.events = r->v;
    report.n_events = r->n;
    report.dir = r->dir;
    assert_int_equal(kw_report_write(path, &report, &e), KW_OK);
    kw_io_fault_start(&(kw_io_fault){ .at = 2, .error = 28, .persistent = true, .only = "write" });
    report.name = "other";
    assert_int_equal(kw_report_write(path, &report, &e), KW_OK);   /* one write; the second is never asked for */
    kw_io_fault_stop();
    kw_io_fault_start(&(kw_io_fault){ .at = 1, .error = 28, .half = true, .only = "write" });
    report.name = "third";
    assert_int_equal(kw_report_write(path, &report, &e), KW_ESTORAGE);
    kw_io_fault_stop();
    assert_int_equal(kw_file_read(r->a, path, 1 << 24, &s, &n, NULL), KW_OK);
    assert_non_null(strstr(s, "other"));
    assert_int_equal(kw_report_write("/nowhere/report.html", &report, &e), KW_ESTORAGE);
}

static void without_memory(void **state)
{
    room *r = *state;
    kw_report report = hostile(r);
    report.events = r->v;
    report.n_events = r->n;
    report.dir = r->dir;
    for (int at = 1; at <= 12; at++) {
        kw_str b = { 0 };
        kw_err e = { 0 };
        kw_alloc_fail_after(at);
        kw_status s = kw_report_html(&report, &b, &e);
        kw_alloc_fail_after(0);
        assert_true(s == KW_OK || s == KW_ENOMEM);
        if (!s)
            assert_well_formed(b.s);
        kw_str_free(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(safe_and_self_contained, enter, leave),
        cmocka_unit_test_setup_teardown(policy_names_the_style, enter, leave),
        cmocka_unit_test_setup_teardown(reloads_while_it_lasts, enter, leave),
        cmocka_unit_test_setup_teardown(little_or_nothing, enter, leave),
        cmocka_unit_test_setup_teardown(pictures, enter, leave),
        cmocka_unit_test_setup_teardown(many_rows, enter, leave),
        cmocka_unit_test_setup_teardown(coordinates, enter, leave),
        cmocka_unit_test_setup_teardown(labels, enter, leave),
        cmocka_unit_test_setup_teardown(bands, enter, leave),
        cmocka_unit_test_setup_teardown(story, enter, leave),
        cmocka_unit_test_setup_teardown(all_words_are_translated, enter, leave),
        cmocka_unit_test_setup_teardown(writing, enter, leave),
        cmocka_unit_test_setup_teardown(without_memory, enter, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
