/* test_events.c - a run's log: lines, TensorBoard's bytes against its own writer, resuming, a disk that refuses. */
#include "train/escape.h"
#include "train/events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A picture 3 wide and 2 tall, as far as its size goes: also in tools/golden/tensorboard.py. */
static const unsigned char png[] = {
    0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0, 0, 0, 3, 0, 0, 0, 2, 8, 2, 0, 0, 0,
    0x12, 0x16, 0xf1, 0x4d, 0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82,
};

typedef struct { kw_arena *a; char dir[64]; } room;

static int enter(void **state)
{
    room *r = calloc(1, sizeof *r);
    strcpy(r->dir, "/tmp/kw-events-XXXXXX");
    r->a = kw_arena_new();
    *state = r;
    return !r->a || !mkdtemp(r->dir);
}

static int leave(void **state)
{
    room *r = *state;
    kw_arena_free(r->a);
    int failed = kw_remove_all(r->dir, NULL);
    free(r);
    return failed;
}

static char *slurp(room *r, const char *name, size_t *n)
{
    char *s;
    kw_err e;
    if (kw_file_read(r->a, kw_path_join(r->a, r->dir, name), 1 << 20, &s, n, &e))
        fail_msg("%s", e.what);
    return s;
}

static char *board_name(room *r)
{
    char **names, *found = NULL;
    size_t n;
    assert_int_equal(kw_dir_list(r->a, r->dir, &names, &n, NULL), KW_OK);
    for (size_t i = 0; i < n; i++)
        if (kw_starts_with(names[i], "events.out.tfevents.")) {
            assert_null(found);
            found = names[i];
        }
    assert_non_null(found);
    return found;
}

static kw_events *open_log(room *r, kw_arena *a, int64_t step, int64_t window)
{
    kw_events *l;
    kw_err e = { 0 };
    if (kw_events_open(a, r->dir, step, window, &l, &e))
        fail_msg("%s", e.what);
    return l;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void assert_hex(const kw_str *b, const char *hex)
{
    char *seen = calloc(b->n + 1, 2);
    for (size_t i = 0; i < b->n; i++)
        sprintf(seen + 2 * i, "%02x", (unsigned char)b->s[i]);
    assert_string_equal(seen, hex);
    free(seen);
}

static void known_records(void **state)
{
    (void)state;
    kw_str b = { 0 };
    kw_tensorboard_version(&b, 1.0);
    assert_hex(&b, "1800000000000000a37f4b2209000000000000f03f1a0d627261696e2e4576656e743a3286bf577a");
    kw_str_free(&b);
    kw_tensorboard_scalar(&b, 2.0, 10, "loss/train", 0.125);
    assert_hex(&b, "200000000000000029eda950090000000000000040100a2a130a110a0a6c6f73732f747261696e150000003e9341c7ee");
    kw_str_free(&b);
}

/* Every kind of event, byte for byte as TensorBoard's own protobuf and record writer have it. */
static void same_bytes_as_tensorboard(void **state)
{
    room *r = *state;
    char *want;
    size_t n;
    kw_str b = { 0 };
    kw_tensorboard_version(&b, 1.5);
    kw_tensorboard_event(&b,
                         &(kw_event){ .kind = KW_EVENT_STEP,
                                      .step = 300,
                                      .time = 1700000000.25,
                                      .loss = 0.125,
                                      .average = 0.1,
                                      .rate = { 1e-4, 5e-5, -1 },
                                      .norm = 0.75 },
                         NULL, 0);
    kw_tensorboard_event(
        &b, &(kw_event){ .kind = KW_EVENT_VALIDATION, .step = 300, .time = 1700000001, .loss = 0.09, .base = 0.11 },
        NULL, 0);
    kw_tensorboard_event(&b,
                         &(kw_event){ .kind = KW_EVENT_VALIDATION,
                                      .step = 300,
                                      .time = 1700000002,
                                      .loss = 0.09,
                                      .base = 0.11,
                                      .epoch_end = true },
                         NULL, 0);
    kw_tensorboard_event(&b, &(kw_event){ .kind = KW_EVENT_SAMPLE, .time = 1700000003, .index = 7 }, png, sizeof png);
    kw_tensorboard_event(
        &b, &(kw_event){ .kind = KW_EVENT_STEP, .loss = NAN, .average = NAN, .norm = NAN, .rate = { -1, -1, -1 } },
        NULL, 0);
    kw_tensorboard_event(&b, &(kw_event){ .kind = KW_EVENT_SAMPLE }, "no picture", 10);
    assert_int_equal(kw_file_read(r->a, KW_TESTS "/golden/train/board.tfevents", 1 << 16, &want, &n, NULL), KW_OK);
    assert_int_equal(b.n, n);
    assert_memory_equal(b.s, want, n);
    kw_str_free(&b);
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

static void lines_are_json(void **state)
{
    room *r = *state;
    size_t n;
    kw_arena *a = kw_arena_new();
    kw_events *l = open_log(r, a, -1, 4);
    kw_events_add(l, &(kw_event){ .kind = KW_EVENT_START, .time = 1, .name = "kiwa\"\x01", .steps = 3 });
    kw_events_add(l, &(kw_event){ .kind = KW_EVENT_START, .time = 1, .name = "again" });
    kw_events_add(l, &(kw_event){ .kind = KW_EVENT_STEP,
                                  .time = 2.5,
                                  .step = 1,
                                  .epoch = 1,
                                  .loss = 0.1,
                                  .rate = { 1e-4, 0, -1 },
                                  .norm = 1.0 / 3,
                                  .seconds = 2 });
    kw_events_add(l, &(kw_event){ .kind = KW_EVENT_STEP,
                                  .time = 3,
                                  .step = 2,
                                  .loss = NAN,
                                  .rate = { -1, -1, -1 },
                                  .norm = INFINITY,
                                  .skipped = true });
    kw_events_add(
        l,
        &(kw_event){ .kind = KW_EVENT_VALIDATION, .time = 4, .step = 2, .loss = 0.2, .base = 0.25, .epoch_end = true });
    kw_events_add(l, &(kw_event){ .kind = KW_EVENT_SAMPLE,
                                  .time = 5,
                                  .step = 2,
                                  .seed = 42,
                                  .prompt = "きわ </script>\xff",
                                  .file = "samples/a.png" });
    kw_events_add(l,
                  &(kw_event){ .kind = KW_EVENT_SAVE, .time = 6, .step = 2, .file = "kiwa.safetensors", .hash = "ab" });
    kw_events_add(l, &(kw_event){ .kind = KW_EVENT_END, .time = 7, .step = 2, .level = "finished" });
    assert_int_equal(kw_events_trouble_of(l)->failures, 0);
    kw_arena_free(a);
    assert_string_equal(
        slurp(r, "events.jsonl", &n),
        "{\"type\":\"start\",\"step\":0,\"name\":\"kiwa\\\"\\u0001\",\"steps\":3,\"time\":1,\"session\":1}\n"
        "{\"type\":\"step\",\"step\":1,\"epoch\":1,\"loss\":0.1,\"average\":0.1,\"rate\":{\"unet\":0.0001,"
        "\"textencoder\":0},"
        "\"norm\":0.3333333333333333,\"seconds\":2,\"time\":2.5,\"session\":1}\n"
        "{\"type\":\"step\",\"step\":2,\"loss\":null,\"average\":0.1,\"rate\":{},\"norm\":null,\"skipped\":true,"
        "\"time\":3,\"session\":1}\n"
        "{\"type\":\"validation\",\"step\":2,\"loss\":0.2,\"base\":0.25,\"epoch_end\":true,\"time\":4,\"session\":1}\n"
        "{\"type\":\"sample\",\"step\":2,\"index\":0,\"seed\":42,\"prompt\":\"きわ "
        "</script>\xef\xbf\xbd\",\"file\":\"samples/a.png\","
        "\"time\":5,\"session\":1}\n"
        "{\"type\":\"save\",\"step\":2,\"file\":\"kiwa.safetensors\",\"hash\":\"ab\",\"time\":6,\"session\":1}\n"
        "{\"type\":\"end\",\"step\":2,\"level\":\"finished\",\"time\":7,\"session\":1}\n");
}

static void what_is_read_is_what_was_written(void **state)
{
    room *r = *state;
    size_t n, n_broken;
    kw_event *v;
    kw_arena *a = kw_arena_new();
    kw_events *l = open_log(r, a, -1, 2);
    for (int i = 1; i <= 5; i++)
        kw_events_add(l, &(kw_event){ .kind = KW_EVENT_STEP,
                                      .time = i,
                                      .step = i,
                                      .loss = 1.0 / i,
                                      .norm = NAN,
                                      .rate = { 1e-5 * i, -1, -1 } });
    kw_arena_free(a);
    FILE *f = fopen(kw_path_join(r->a, r->dir, "events.jsonl"), "a");
    fputs("{\"type\":\"later\",\"step\":2}\nnonsense\n{\"step\":3}\n{\"type\":\"note\",\"step\":5,\"text\":7}\n{"
          "\"type\":\"note\",\"st",
          f);
    fclose(f);
    assert_int_equal(kw_events_read(r->a, r->dir, &v, &n, &n_broken, NULL), KW_OK);
    assert_int_equal(n, 6);
    assert_int_equal(n_broken, 4);
    for (int i = 1; i <= 5; i++) {
        assert_true(v[i - 1].loss == 1.0 / i && v[i - 1].rate[0] == 1e-5 * i && v[i - 1].rate[1] == -1);
        assert_true(isnan(v[i - 1].norm));
        assert_true(fabs(v[i - 1].average - (i == 1 ? 1 : (1.0 / i + 1.0 / (i - 1)) / 2)) < 1e-16); /* over two steps */
    }
    assert_null(v[5].text);
    kw_err e;
    assert_int_equal(kw_events_read(r->a, kw_path_join(r->a, r->dir, "none"), &v, &n, NULL, &e), KW_EDATA);
}

static void numbers_read_back(void **state)
{
    (void)state;
    static const struct { double v; const char *text;
    } known[] = {
        { 0, "0" },
        { 0.1, "0.1" },
        { 1e-4, "0.0001" },
        { 1e-5, "1e-05" },
        { 1e22, "1e+22" },
        { -2.5, "-2.5" },
        { 0.1 + 0.2, "0.30000000000000004" },
        { 5e-324, "4.94065645841247e-324" },
        { NAN, "null" },
        { -INFINITY, "null" },
    };
    for (size_t i = 0; i < KW_LEN(known); i++) {
        kw_str b = { 0 };
        kw__add_number(&b, known[i].v);
        assert_string_equal(b.s, known[i].text);
        kw_str_free(&b);
    }
}

static void pages_are_safe(void **state)
{
    (void)state;
    kw_str b = { 0 };
    kw__add_html(&b, "<img src='x' onerror=\"a\">&amp;\x1b[31m\u202eabc\xc0\xaf\xed\xa0\x80\xf5 絵🙂\n");
    assert_string_equal(b.s, "&lt;img src=&#39;x&#39; onerror=&quot;a&quot;&gt;&amp;amp;⟨U+001B⟩[31m⟨U+202E⟩abc��"
                             "���� 絵🙂\n");
    kw_str_free(&b);
    kw__add_json(&b, "a\"\\/\x7f\n絵🙂\xff", true);
    assert_string_equal(b.s, "\"a\\\"\\\\/\x7f\\n\\u7d75\\ud83d\\ude42\\ufffd\"");
    kw_str_free(&b);
}

/* ---- resuming ---------------------------------------------------------------------------------------------------- */

/* The events of steps from..to of a made-up run; the clock differs between sessions. */
static void live(room *r, kw_events *l, int from, int to, double clock)
{
    FILE *f = fopen(kw_path_join(r->a, r->dir, "s.png"), "w");
    fwrite(png, 1, sizeof png, f);
    fclose(f);
    kw_events_add(l, &(kw_event){ .kind = KW_EVENT_START, .time = clock, .name = "r", .steps = 20 });
    for (int i = from; i <= to; i++) {
        kw_events_add(l, &(kw_event){ .kind = KW_EVENT_STEP,
                                      .step = i,
                                      .time = clock + i,
                                      .loss = sin(i),
                                      .norm = cos(i),
                                      .rate = { 1e-4, -1, -1 } });
        if (i % 5 == 0) {
            kw_events_add(
                l, &(kw_event){ .kind = KW_EVENT_VALIDATION, .step = i, .time = clock + i, .loss = sin(i), .base = 1 });
            kw_events_add(
                l,
                &(kw_event){ .kind = KW_EVENT_SAMPLE, .step = i, .time = clock + i, .prompt = "p", .file = "s.png" });
        }
    }
}

/* Without the clock's fields. */
static void bare(char *text)
{
    for (char *p = text, *at; (at = strstr(p, ",\"time\":"));) {
        char *end = strchr(at, '\n');
        memmove(at, end, strlen(end) + 1);
        p = at;
    }
}

/* A uninterrupted run of 20 steps; the other is killed after 13 and half a line, resumed from 10. */
static void resumed_is_uninterrupted(void **state)
{
    room *r = *state;
    size_t n, m;
    kw_arena *a = kw_arena_new();
    live(r, open_log(r, a, -1, 7), 1, 20, 1000);
    kw_arena_free(a);
    char *want = slurp(r, "events.jsonl", &n), *seen;
    size_t board, other;
    slurp(r, board_name(r), &board);

    a = kw_arena_new();
    live(r, open_log(r, a, -1, 7), 1, 13, 1000);
    kw_events_add(open_log(r, a, 13, 7), &(kw_event){ .kind = KW_EVENT_END, .step = 10, .level = "stopped" });
    kw_arena_free(a);
    FILE *f = fopen(kw_path_join(r->a, r->dir, "events.jsonl"), "a");
    fputs("{\"type\":\"step\",\"step\":8,", f);
    fclose(f);
    a = kw_arena_new();
    kw_events *l = open_log(r, a, 10, 7);
    assert_int_equal(kw_events_list(l, &m)[0].session, 1);
    assert_int_equal(m, 1 + 10 + 2 * 2);
    assert_int_equal(kw_events_sync(l, NULL), KW_OK);
    live(r, l, 11, 20, 5000);
    assert_int_equal(kw_events_sync(l, NULL), KW_OK);
    kw_arena_free(a);
    seen = slurp(r, "events.jsonl", &m);
    assert_non_null(strstr(seen, "\"time\":5020,\"session\":2}\n"));
    bare(want);
    bare(seen);
    assert_string_equal(seen, want);
    slurp(r, board_name(r), &other);              /* the same records: only their times differ */
    assert_int_equal(other, board);
}

/* A log that is right already is not written again; one of an older run is replaced. */
static void old_logs(void **state)
{
    room *r = *state;
    size_t n, m;
    struct stat before, after;
    kw_arena *a = kw_arena_new();
    live(r, open_log(r, a, -1, 7), 1, 5, 1000);
    kw_arena_free(a);
    char *path = kw_path_join(r->a, r->dir, "events.jsonl");
    stat(path, &before);
    a = kw_arena_new();
    open_log(r, a, 5, 7);
    stat(path, &after);
    assert_true(before.st_ino == after.st_ino && before.st_size == after.st_size);
    kw_arena_free(a);
    a = kw_arena_new();
    kw_events_list(open_log(r, a, -1, 7), &m);
    assert_int_equal(m, 0);
    slurp(r, "events.jsonl", &n);
    assert_int_equal(n, 0);
    kw_arena_free(a);
}

/* ---- a disk that refuses ----------------------------------------------------------------------------------------- */

/* For each of the writes, once and for a while, whole or half: nothing is lost once the disk takes bytes again. */
static void full_disk(void **state)
{
    room *r = *state;
    size_t n, m;
    kw_arena *a = kw_arena_new();
    live(r, open_log(r, a, -1, 7), 1, 12, 1000);
    kw_arena_free(a);
    char *want = slurp(r, "events.jsonl", &n);
    size_t board, other;
    slurp(r, board_name(r), &board);
    for (int at = 1; at <= 29; at++)
        for (int kind = 0; kind < 4; kind++) {
            a = kw_arena_new();
            kw_events *l = open_log(r, a, -1, 7);
            kw_io_fault_start(
                &(kw_io_fault){ .at = at, .error = ENOSPC, .persistent = kind & 1, .half = kind & 2, .only = "write" });
            live(r, l, 1, 10, 1000);
            assert_true(kw_io_fault_stop() >= at);
            assert_true(kw_events_trouble_of(l)->failures > 0);
            assert_non_null(strstr(kw_events_trouble_of(l)->first, strerror(ENOSPC)));
            live(r, l, 11, 12, 1000);
            assert_int_equal(kw_events_trouble_of(l)->lost, 0);
            assert_int_equal(kw_events_sync(l, NULL), KW_OK);
            kw_arena_free(a);
            assert_string_equal(slurp(r, "events.jsonl", &m), want);
            slurp(r, board_name(r), &other);
            assert_int_equal(other, board);
        }
}

static void sync_tells(void **state)
{
    room *r = *state;
    kw_err e;
    kw_events *l = open_log(r, r->a, -1, 7);
    kw_io_fault_start(&(kw_io_fault){ .at = 1, .error = EIO, .persistent = true, .only = "write" });
    kw_events_add(l, &(kw_event){ .kind = KW_EVENT_NOTE, .text = "x" });
    assert_int_equal(kw_events_sync(l, &e), KW_ESTORAGE);
    assert_non_null(strstr(e.what, strerror(EIO)));
    kw_io_fault_stop();
    assert_int_equal(kw_events_sync(l, &e), KW_OK);
    kw_io_fault_start(&(kw_io_fault){ .at = 1, .error = EIO, .only = "fsync" });
    assert_int_equal(kw_events_sync(l, &e), KW_ESTORAGE);
    kw_io_fault_stop();
}

/* A sample's name cannot lead out of the run's folder. */
static void names_stay_below(void **state)
{
    room *r = *state;
    static const char *const bad[] = { "/etc/hostname", "../s.png", "a/../../s.png", "..", "" };
    size_t before, after;
    kw_arena *a = kw_arena_new();
    kw_events *l = open_log(r, a, -1, 7);
    live(r, l, 1, 1, 1000);
    slurp(r, board_name(r), &before);
    for (size_t i = 0; i < KW_LEN(bad); i++)
        kw_events_add(l, &(kw_event){ .kind = KW_EVENT_SAMPLE, .step = 1, .prompt = "p", .file = bad[i] });
    slurp(r, board_name(r), &after);
    assert_int_equal(before, after);
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_records),
        cmocka_unit_test_setup_teardown(same_bytes_as_tensorboard, enter, leave),
        cmocka_unit_test_setup_teardown(lines_are_json, enter, leave),
        cmocka_unit_test_setup_teardown(what_is_read_is_what_was_written, enter, leave),
        cmocka_unit_test(numbers_read_back),
        cmocka_unit_test(pages_are_safe),
        cmocka_unit_test_setup_teardown(resumed_is_uninterrupted, enter, leave),
        cmocka_unit_test_setup_teardown(old_logs, enter, leave),
        cmocka_unit_test_setup_teardown(full_disk, enter, leave),
        cmocka_unit_test_setup_teardown(sync_tells, enter, leave),
        cmocka_unit_test_setup_teardown(names_stay_below, enter, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
