/*
 * test_schedule.c - prompts that change from step to step, AND, ComfyUI's brackets and windows, names for vectors.
 * Known answers: tools/golden/prompts.py, which has both grammars a second time.
 */
#include "text/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* ---- golden lines ------------------------------------------------------------------------------------------ */

static const char *text_of(const json_t *j, const char *key) { return json_string_value(json_object_get(j, key)); }
static int whole_of(const json_t *j, const char *key) { return (int)json_integer_value(json_object_get(j, key)); }

static bool same_part(const kw_prompt_part *p, const json_t *want)
{
    const json_t *stages = json_array_get(want, 1);
    if (fabs(p->weight - json_number_value(json_array_get(want, 0))) > 1e-15 || p->n != json_array_size(stages))
        return false;
    for (size_t i = 0; i < p->n; i++) {
        const json_t *one = json_array_get(stages, i);
        if (p->stage[i].until != json_integer_value(json_array_get(one, 0))
            || strcmp(p->stage[i].text, json_string_value(json_array_get(one, 1))))
            return false;
    }
    return true;
}

static bool schedule_line(world *w, const json_t *line)
{
    kw_prompt_plan plan;
    const json_t *want = json_object_get(line, "parts");
    kw_prompt_steps steps = { whole_of(line, "steps"), whole_of(line, "before") };
    if (kw_prompt_plan_make(w->a, text_of(line, "prompt"), json_is_true(json_object_get(line, "composed")), steps,
                            &plan,
                            &w->e))
        return false;
    bool same = plan.n == json_array_size(want);
    for (size_t i = 0; same && i < plan.n; i++)
        same = same_part(&plan.part[i], json_array_get(want, i));
    return same;
}

static bool comfy_line(world *w, const json_t *line)
{
    kw_prompt p = { .text = text_of(line, "prompt") };
    const json_t *want = json_object_get(line, "segments");
    if (kw_prompt_weigh(w->a, KW_GRAMMAR_COMFYUI, KW_EMPHASIS_ORIGINAL, &p, &w->e) || p.n != json_array_size(want))
        return false;
    for (size_t i = 0; i < p.n; i++) {
        const json_t *one = json_array_get(want, i);
        double weight = json_number_value(json_array_get(one, 1));
        if (strcmp(p.segments[i].text, json_string_value(json_array_get(one, 0))) || p.segments[i].is_break
            || fabs(p.segments[i].weight - weight) > 1e-14 * fabs(weight))
            return false;
    }
    return true;
}

static void golden(world *w, const char *path, bool line_is_right(world *, const json_t *), size_t least)
{
    FILE *f = fopen(path, "r");
    char *line = NULL;
    size_t room = 0, lines = 0, wrong = 0;
    assert_non_null(f);
    for (; getline(&line, &room, f) > 0; lines++) {
        json_t *j = json_loads(line, 0, NULL);
        assert_non_null(j);
        if (!line_is_right(w, j)) {
            print_message("line %zu: %s", lines + 1, line);
            wrong++;
        }
        json_decref(j);
    }
    free(line);
    fclose(f);
    assert_int_equal(wrong, 0);
    assert_true(lines > least);
}

static void schedules(void **state) { golden(*state, KW_TESTS "/golden/text/schedules.jsonl", schedule_line, 1000); }
static void comfy(void **state) { golden(*state, KW_TESTS "/golden/text/comfy.jsonl", comfy_line, 400); }

/* As A1111: until 3 is the first four runs of the network, and alternation begins with two of the first. */
static void runs(void **state)
{
    world *w = *state;
    kw_prompt_plan p;
    assert_int_equal(kw_prompt_plan_make(w->a, "[a:b:3]", true, (kw_prompt_steps){ 10, 0 }, &p, &w->e), KW_OK);
    assert_int_equal(p.n, 1);
    for (int i = 0; i < 12; i++)
        assert_string_equal(p.part[0].stage[kw_prompt_stage_at(&p.part[0], i)].text, i <= 3 || i > 10 ? "a" : "b");
    assert_int_equal(kw_prompt_plan_make(w->a, "[a|b]", true, (kw_prompt_steps){ 4, 0 }, &p, &w->e), KW_OK);
    static const char *const turns[] = { "a", "a", "b", "a", "b" };
    for (int i = 0; i < 5; i++)
        assert_string_equal(p.part[0].stage[kw_prompt_stage_at(&p.part[0], i)].text, turns[i]);
}

/* Linear in length and depth; too long a text that changes too often is refused, not filled in. */
static void large(void **state)
{
    world *w = *state;
    kw_arena *a = kw_arena_new();
    size_t n = 1 << 20;
    char *s = kw_alloc(a, n + 1);
    kw_prompt_plan p;
    static const char *const units[] = { "[", "(", "[a|", "[a:", "|", ":", "]", "[]", "[a:b:1]" };
    for (size_t u = 0; u < KW_LEN(units); u++) {
        size_t k = strlen(units[u]);
        for (size_t i = 0; i < n; i++)
            s[i] = units[u][i % k];
        assert_int_equal(kw_prompt_plan_make(a, s, true, (kw_prompt_steps){ 20, 0 }, &p, &w->e), KW_OK);
    }
    memset(s, 'a', n);
    memcpy(s, "[x|y]", 5);
    assert_int_equal(kw_prompt_plan_make(a, s, true, (kw_prompt_steps){ 1000, 0 }, &p, &w->e), KW_EDATA);
    kw_arena_free(a);
}

static void modes(void **state)
{
    world *w = *state;
    kw_prompt p = { .text = "a (b:1.5) BREAK [c]" };
    assert_int_equal(kw_prompt_weigh(w->a, KW_GRAMMAR_A1111, KW_EMPHASIS_NONE, &p, &w->e), KW_OK);
    assert_int_equal(p.n, 1);
    assert_string_equal(p.segments[0].text, "a (b:1.5) BREAK [c]");
    assert_int_equal(kw_prompt_weigh(w->a, KW_GRAMMAR_A1111, KW_EMPHASIS_IGNORE, &p, &w->e), KW_OK);
    for (size_t i = 0; i < p.n; i++)
        assert_true(p.segments[i].weight == 1);
    assert_true(p.segments[3].is_break);
    assert_string_equal(kw_emphasis_label(KW_EMPHASIS_NO_NORM), "No norm");
}

/* ---- windows ----------------------------------------------------------------------------------------------- */

static kw_new_words words_of(world *w, const char *const *names, const int *vectors, size_t n)
{
    kw_new_words out = { kw_alloc_array(w->a, n, sizeof *out.word), n };
    int32_t row = 0;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(kw_new_word_make(w->t, w->a, names[i], vectors[i], row, &out.word[i], &w->e), KW_OK);
        row += vectors[i];
    }
    return out;
}

static kw_windows windows(world *w, kw_grammar g, const char *text, const kw_new_words *words)
{
    kw_prompt p;
    kw_windows v;
    kw_windows_options o = { .grammar = g, .comma_reach = KW_COMMA_REACH, .words = words };
    assert_int_equal(kw_prompt_tags(w->a, text, &p, &w->e), KW_OK);
    assert_int_equal(kw_prompt_weigh(w->a, g, KW_EMPHASIS_ORIGINAL, &p, &w->e), KW_OK);
    if (kw_prompt_windows_as(w->t, w->a, &p, &o, &v, &w->e))
        fail_msg("%s", w->e.what);
    return v;
}

static size_t length(const kw_windows *v, size_t i)
{
    size_t n = 1;
    while (v->ids[i * v->width + n] != 49407)
        n++;
    return n - 1;
}

static char *repeat(world *w, const char *unit, size_t n, const char *tail)
{
    char *s = kw_alloc(w->a, strlen(unit) * n + strlen(tail) + 1);
    for (size_t i = 0; i < n; i++)
        strcat(s, unit);
    return strcat(s, tail);
}

static void new_words(void **state)
{
    world *w = *state;
    static const char *const names[] = { "red fox", "red", "zz-style" };
    static const int vectors[] = { 3, 1, 8 };
    kw_new_words words = words_of(w, names, vectors, 3);
    kw_windows v = windows(w, KW_GRAMMAR_A1111, "a (Red Fox:1.5) and red zz-style", &words);
    static const int32_t rows[] = { -1, -1, 0, 1, 2, -1, 3, 4, 5, 6, 7, 8, 9, 10, 11, -1 };
    assert_memory_equal(v.rows, rows, sizeof rows);
    assert_int_equal(v.ids[2], 0);
    assert_true(v.weights[2] == 1.5f && v.weights[4] == 1.5f && v.weights[5] == 1 && v.weights[6] == 1);
    assert_int_equal(length(&v, 0), 14);
    assert_int_equal(v.used, 14);
    v = windows(w, KW_GRAMMAR_A1111, "a fox", &words);
    for (size_t i = 0; i < v.width; i++)
        assert_int_equal(v.rows[i], -1);
    assert_null(windows(w, KW_GRAMMAR_A1111, "a fox", NULL).rows);
}

/* 70 tokens, then 8 vectors: all of them go into the next window; with a comma 10 back nothing but they do. */
static void not_parted(void **state)
{
    world *w = *state;
    static const char *const names[] = { "zz-style" };
    static const int vectors[] = { 8 };
    kw_new_words words = words_of(w, names, vectors, 1);
    kw_windows v = windows(w, KW_GRAMMAR_A1111, repeat(w, "cat ", 70, "zz-style dog"), &words);
    assert_int_equal(v.n, 2);
    assert_int_equal(length(&v, 0), 70);
    assert_int_equal(length(&v, 1), 9);
    assert_int_equal(v.rows[77 + 1], 0);
    v = windows(w, KW_GRAMMAR_A1111, repeat(w, "cat ", 67, "zz-style dog"), &words);
    assert_int_equal(length(&v, 0), 75);
    /* a window full of tokens and vectors ends at its comma: the vectors behind it move, unparted */
    v = windows(w, KW_GRAMMAR_A1111, repeat(w, "cat ", 60, ", zz-style dog dog dog dog dog dog dog"), &words);
    assert_int_equal(length(&v, 0), 61);
    assert_int_equal(length(&v, 1), 15);
    assert_int_equal(v.rows[77 + 8], 7);
    assert_int_equal(v.rows[77 + 9], -1);
    assert_int_equal(kw_windows_extend(w->t, w->a, &v, 4, &w->e), KW_OK);
    assert_int_equal(v.rows[77 + 8], 7);
    assert_int_equal(v.rows[3 * 77 + 1], -1);
}

static void refused(void **state)
{
    world *w = *state;
    kw_new_word word;
    assert_int_equal(kw_new_word_make(w->t, w->a, "x", 76, 0, &word, &w->e), KW_EDATA);
    assert_non_null(strstr(w->e.what, "76"));
    assert_int_equal(kw_new_word_make(w->t, w->a, " ", 1, 0, &word, &w->e), KW_EDATA);
    kw_prompt p = { .text = "embedding:nobody" };
    kw_windows v;
    kw_windows_options o = { .grammar = KW_GRAMMAR_COMFYUI };
    assert_int_equal(kw_prompt_weigh(w->a, KW_GRAMMAR_COMFYUI, KW_EMPHASIS_ORIGINAL, &p, &w->e), KW_OK);
    assert_int_equal(kw_prompt_windows_as(w->t, w->a, &p, &o, &v, &w->e), KW_EDATA);
    assert_non_null(strstr(w->e.what, "nobody"));
}

/* A group of fewer than eight tokens is not parted, a longer one fills the window. */
static void comfy_windows(void **state)
{
    world *w = *state;
    char *head = repeat(w, "cat ", 70, "");
    kw_windows v = windows(w, KW_GRAMMAR_COMFYUI, repeat(w, head, 1, "(dog dog dog dog dog dog dog:1.2)"), NULL);
    assert_int_equal(v.n, 2);
    assert_int_equal(length(&v, 0), 70);
    assert_true(v.weights[77 + 1] == 1.2f);
    v = windows(w, KW_GRAMMAR_COMFYUI, repeat(w, head, 1, "(dog dog dog dog dog dog dog dog:1.2)"), NULL);
    assert_int_equal(length(&v, 0), 75);
    assert_int_equal(length(&v, 1), 3);
    v = windows(w, KW_GRAMMAR_COMFYUI, repeat(w, "cat, ", 40, ""), NULL);
    assert_int_equal(length(&v, 0), 75);              /* no comma is looked for */
    assert_int_equal(windows(w, KW_GRAMMAR_COMFYUI, "", NULL).n, 1);
}

static void comfy_words(void **state)
{
    world *w = *state;
    static const char *const names[] = { "fox", "red.fox" };
    static const int vectors[] = { 2, 1 };
    kw_new_words words = words_of(w, names, vectors, 2);
    kw_windows v = windows(w, KW_GRAMMAR_COMFYUI, "a fox (embedding:fox, dog:1.3) embedding:fox.pt\nembedding:red.fox",
                           &words);
    static const int32_t rows[] = { -1, -1, -1, 0, 1, -1, -1, 0, 1, 2, -1 };
    assert_memory_equal(v.rows, rows, sizeof rows);
    assert_int_equal(v.ids[5], kw_token_id(w->t, ",</w>"));
    assert_true(v.weights[3] == 1.3f && v.weights[6] == 1.3f && v.weights[7] == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules), cmocka_unit_test(comfy), cmocka_unit_test(runs), cmocka_unit_test(large),
        cmocka_unit_test(modes), cmocka_unit_test(new_words), cmocka_unit_test(not_parted), cmocka_unit_test(refused),
        cmocka_unit_test(comfy_windows), cmocka_unit_test(comfy_words),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
