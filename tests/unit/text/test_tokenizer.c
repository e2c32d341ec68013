/*
 * test_tokenizer.c - ids against transformers' fast CLIPTokenizer, and what a tokenizer says about a text.
 *
 * Golden files (tools/golden/text.py): one text a line as hexadecimal bytes, a tab, its ids.
 *   test_tokenizer --ids FILE [DIR]     prints the same for the texts of FILE, with CLIP's vocabulary or that of DIR
 */
#include "text/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

typedef struct { kw_arena *a; kw_tokenizer *t; kw_err e; } world;

static int setup(void **state)
{
    world *w = *state = calloc(1, sizeof *w);
    w->a = kw_arena_new();
    return kw_tokenizer_clip(w->a, &w->t, &w->e) ? -1 : 0;
}

static int teardown(void **state)
{
    world *w = *state;
    kw_arena_free(w->a);
    free(w);
    return 0;
}

static kw_tokens ids(world *w, const char *text)
{
    kw_tokens k;
    assert_int_equal(kw_tokenize(w->t, w->a, text, strlen(text), &k, &w->e), KW_OK);
    return k;
}

/* ---- golden ids --------------------------------------------------------------------------------------- */

static int nibble(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

/* Hexadecimal digits at the line's start, in place; returns the number of bytes. */
static size_t unhex(char *line)
{
    size_t n = 0;
    for (; nibble(line[2 * n]) >= 0; n++)
        line[n] = (char)(nibble(line[2 * n]) << 4 | nibble(line[2 * n + 1]));
    return n;
}

static void golden(void **state, const char *file, const char *dir, size_t least)
{
    world *w = *state;
    kw_tokenizer *t = w->t;
    char path[512], name[512], *line = NULL;
    size_t room = 0, lines = 0, wrong = 0;
    snprintf(path, sizeof path, "%s/golden/text/%s", KW_TESTS, file);
    snprintf(name, sizeof name, "%s/golden/text/%s", KW_TESTS, dir ? dir : "");
    if (dir)
        assert_int_equal(kw_tokenizer_open(w->a, name, &t, &w->e), KW_OK);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (getline(&line, &room, f) > 0) {
        char *p = strchr(line, '\t') + 1;
        size_t n = unhex(line);
        kw_tokens k;
        assert_int_equal(kw_tokenize(t, w->a, line, n, &k, &w->e), KW_OK);
        bool same = true;
        size_t i = 0;
        for (char *end; *p && *p != '\n'; p = end + (*end == ' '), i++)
            same &= i < k.n ? strtol(p, &end, 10) == k.ids[i] : (strtol(p, &end, 10), false);
        if (!same || i != k.n) {
            print_message("%s line %zu differs: \"%.*s\"\n", file, lines + 1, (int)n, line);
            wrong++;
        }
        lines++;
    }
    free(line);
    fclose(f);
    assert_int_equal(wrong, 0);
    assert_true(lines >= least);
}

static void clip_ids(void **state) { golden(state, "clip.tsv", NULL, 300); }
static void small_ids(void **state) { golden(state, "small.tsv", "small", 300); }
static void added_ids(void **state) { golden(state, "added.tsv", "added", 20); }
static void json_ids(void **state) { golden(state, "json.tsv", "json", 20); }

/* ---- known by heart ------------------------------------------------------------------------------------- */

static void well_known(void **state)
{
    world *w = *state;
    kw_tokens k = ids(w, "a photo of an astronaut riding a horse on mars");
    static const int32_t want[] = { 320, 1125, 539, 550, 18376, 6765, 320, 4558, 525, 7496 };
    assert_int_equal(k.n, KW_LEN(want));
    assert_memory_equal(k.ids, want, sizeof want);
    assert_int_equal(kw_tokenizer_size(w->t), 49408);
    assert_int_equal(kw_tokenizer_bos(w->t), 49406);
    assert_int_equal(kw_tokenizer_eos(w->t), 49407);
    assert_int_equal(kw_tokenizer_pad(w->t), 49407);
    assert_int_equal(kw_tokenizer_max_length(w->t), 77);
    assert_int_equal(kw_token_id(w->t, "horse</w>"), 4558);
    assert_string_equal(kw_token_name(w->t, 4558), "horse</w>");
    assert_null(kw_token_name(w->t, 49408));
    assert_null(kw_token_name(w->t, -1));
}

static void text_of_ids(void **state)
{
    world *w = *state;
    kw_tokens k = ids(w, "Crème brûlée, 赤い狐 🦊");
    char text[256] = "";
    for (size_t i = 0; i < k.n; i++) {
        size_t n;
        bool ends;
        const char *s = kw_token_text(w->t, w->a, k.ids[i], &n, &ends);
        strncat(text, s, n);
        strcat(text, ends ? " " : "");
    }
    assert_string_equal(text, "crème brûlée , 赤い狐 🦊 ");
}

/* Each token's place in the source, though NFC, spaces and lower case change lengths. */
static void places(void **state)
{
    world *w = *state;
    const char *text = "  e\xcc\x81tude \xe3\x80\x80\n İzmir,horse";      /* e + U+0301; İ in lower case is two */
    kw_tokens k = ids(w, text);
    assert_int_equal(k.at[0], 2);
    assert_string_equal(text + k.at[k.n - 1], "horse");
    assert_string_equal(text + k.at[k.n - 2], ",horse");
    for (size_t i = 1; i < k.n; i++)
        assert_true(k.at[i] >= k.at[i - 1]);
}

static void broken_share(void **state)
{
    world *w = *state;
    assert_true(kw_broken_share(&(kw_tokens){ 0 }) == 0);
    kw_tokens k = ids(w, "a plain caption, 42!");
    assert_int_equal(k.broken, 0);
    assert_int_equal(k.chars, 17);
    k = ids(w, "蠟燭を灯す魑魅魍魎");
    assert_int_equal(k.chars, 9);
    assert_int_equal(k.broken, 9);
    k = ids(w, "キツネ");                  /* [キ] [e3 83] [84] [e3 83] [8d] */
    assert_int_equal(k.n, 5);
    assert_int_equal(k.chars, 3);
    assert_int_equal(k.broken, 2);
}

static void malformed(void **state)
{
    world *w = *state;
    kw_tokens one = ids(w, "x\xef\xbf\xbd"), k = ids(w, "x\xf0\x9f\xa6");    /* three good bytes of four: one U+FFFD */
    assert_int_equal(k.n, one.n);
    assert_memory_equal(k.ids, one.ids, k.n * sizeof *k.ids);
    kw_tokens three = ids(w, "x\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    k = ids(w, "x\xed\xa0\x80");          /* a surrogate: three */
    assert_int_equal(k.n, three.n);
    assert_memory_equal(k.ids, three.ids, k.n * sizeof *k.ids);
}

/* ---- limits ----------------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double time_of(world *w, const char *unit, size_t times)
{
    kw_arena *a = kw_arena_new();
    size_t n = strlen(unit);
    char *text = malloc(n * times);
    for (size_t i = 0; i < times; i++)
        memcpy(text + i * n, unit, n);
    kw_tokens k;
    double start = seconds();
    assert_int_equal(kw_tokenize(w->t, a, text, n * times, &k, &w->e), KW_OK);
    double took = seconds() - start;
    kw_arena_free(a);
    free(text);
    return took;
}

/* Time grows with the text, not with its square: 16 times the text far below 256 x. */
static void linear_time(void **state)
{
    world *w = *state;
    static const char *const units[] = { "a", "ab", "赤", "!", "1", "e\xcc\x81", "\xcc\x96\xcc\x81", "<|",
                                         "<|endoftext|>", "\xff", " ", "'s", "the cat " };
    for (size_t i = 0; i < KW_LEN(units); i++) {
        size_t n = 64000 / strlen(units[i]);
        double small = time_of(w, units[i], n), big = time_of(w, units[i], 16 * n);
        print_message("%-16s %6.1f ms for 64 kB, %7.1f ms for 1 MB\n", units[i], 1e3 * small, 1e3 * big);
        assert_true(big < 128 * small + 0.1);
    }
}

static void quick_start(void **state)
{
    world *w = *state;
    double best = 1;
    for (int i = 0; i < 5; i++) {
        kw_arena *a = kw_arena_new();
        kw_tokenizer *t;
        double start = seconds();
        assert_int_equal(kw_tokenizer_clip(a, &t, &w->e), KW_OK);
        best = KW_MIN(best, seconds() - start);
        kw_arena_free(a);
    }
    print_message("CLIP's tables: %.1f ms\n", 1e3 * best);
    assert_true(best < 0.5);              /* 20 ms on a quiet machine; sanitizers take longer */
}

static void too_long(void **state)
{
    world *w = *state;
    kw_tokens k;
    assert_int_equal(kw_tokenize(w->t, w->a, "", KW_TEXT_MAX + (size_t)1, &k, &w->e), KW_EDATA);
    assert_int_equal(kw_tokenize(w->t, w->a, "", 0, &k, &w->e), KW_OK);
    assert_int_equal(k.n, 0);
}

static void no_memory(void **state)
{
    world *w = *state;
    kw_tokens k;
    int failed = 0;
    for (long i = 1; i < 200; i++) {
        kw_arena *a = kw_arena_new();
        kw_alloc_fail_after(i);
        kw_status s = kw_tokenize(w->t, a, "A long-ish text of plausibly unbelievable words, 赤い狐", 58, &k, &w->e);
        kw_alloc_fail_after(0);
        kw_arena_free(a);
        failed += s == KW_ENOMEM;
        assert_true(s == KW_OK || s == KW_ENOMEM);
        if (s == KW_OK)
            break;
    }
    assert_true(failed >= 5);
}

/* ---- broken folders ---------------------------------------------------------------------------------------- */

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void broken_folders(void **state)
{
    static const struct { const char *vocab, *merges, *says; } cases[] = {
        { "{", "", "not valid JSON" }, { "[]", "", "not a JSON object" }, { "{}", "", "no vocabulary" },
        { "{\"a\": -1}", "", "no valid number" }, { "{\"a\": 1e9}", "", "no valid number" },
        { "{\"a\": 1, \"b\": 1}", "", "same number" }, { "{\"a\": 0, \"b\": 1}", "a b\n", "not in the vocabulary" },
        { "{\"a\": 0, \"b\": 1, \"ab\": 2}", "#version: 0.2\na b c\n", "not two tokens" },
        { "{\"a\": 0}", "#version: 0.2\n", "unknown token" },
    };
    world *w = *state;
    char dir[] = "/tmp/kw-test-text-XXXXXX";
    assert_non_null(mkdtemp(dir));
    kw_tokenizer *t;
    assert_int_equal(kw_tokenizer_open(w->a, dir, &t, &w->e), KW_EDATA);
    assert_non_null(strstr(w->e.what, "neither"));
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        write_file(dir, "vocab.json", cases[i].vocab);
        write_file(dir, "merges.txt", cases[i].merges);
        assert_int_equal(kw_tokenizer_open(w->a, dir, &t, &w->e), KW_EDATA);
        if (!strstr(w->e.what, cases[i].says))
            print_message("case %zu: %s\n", i, w->e.what);
        assert_non_null(strstr(w->e.what, cases[i].says));
    }
    char command[600];
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* ---- the printer -------------------------------------------------------------------------------------------- */

static int print_ids(const char *file, const char *dir)
{
    kw_arena *a = kw_arena_new();
    kw_tokenizer *t;
    kw_err e;
    char *line = NULL;
    size_t room = 0;
    FILE *f = fopen(file, "r");
    if (!f || (dir ? kw_tokenizer_open(a, dir, &t, &e) : kw_tokenizer_clip(a, &t, &e)))
        return f ? fprintf(stderr, "%s\n", e.what), 1 : 1;
    while (getline(&line, &room, f) > 0) {
        kw_arena *scratch = kw_arena_new();
        kw_tokens k;
        printf("%.*s\t", (int)strcspn(line, "\t\n"), line);
        if (kw_tokenize(t, scratch, line, unhex(line), &k, &e))
            return fprintf(stderr, "%s\n", e.what), 1;
        for (size_t i = 0; i < k.n; i++)
            printf("%s%d", i ? " " : "", k.ids[i]);
        putchar('\n');
        kw_arena_free(scratch);
    }
    free(line);
    fclose(f);
    kw_arena_free(a);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "--ids"))
        return print_ids(argv[2], argc > 3 ? argv[3] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_ids), cmocka_unit_test(small_ids), cmocka_unit_test(added_ids),
        cmocka_unit_test(json_ids), cmocka_unit_test(well_known), cmocka_unit_test(text_of_ids), cmocka_unit_test(places),
        cmocka_unit_test(broken_share), cmocka_unit_test(malformed), cmocka_unit_test(linear_time),
        cmocka_unit_test(quick_start), cmocka_unit_test(too_long), cmocka_unit_test(no_memory),
        cmocka_unit_test(broken_folders),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
