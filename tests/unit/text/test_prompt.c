/* test_prompt.c - emphasis, tags and windows of tokens; known answers of A1111's doctests and of its chunk rules. */
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

static kw_prompt parse(world *w, const char *text)
{
    kw_prompt p;
    if (kw_prompt_parse(w->a, text, &p, &w->e))
        fail_msg("%s", w->e.what);
    return p;
}

/* "text|weight|text|weight", BREAK as "BREAK|" */
static void same(const kw_prompt *p, const char *want)
{
    char got[1024] = "";
    for (size_t i = 0; i < p->n; i++) {
        size_t n = strlen(got);
        if (p->segments[i].is_break)
            snprintf(got + n, sizeof got - n, "BREAK|");
        else
            snprintf(got + n, sizeof got - n, "%s|%.6g|", p->segments[i].text, p->segments[i].weight);
    }
    assert_string_equal(got, want);
}

static void emphasis(void **state)
{
    static const struct { const char *prompt, *want; } cases[] = {
        { "normal text", "normal text|1|" },
        { "an (important) word", "an |1|important|1.1| word|1|" },
        { "(unbalanced", "unbalanced|1.1|" },
        { "\\(literal\\]", "(literal]|1|" },
        { "(unnecessary)(parens)", "unnecessaryparens|1.1|" },
        { "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
          "a |1|house|1.573| |1.1|on|1| a |1.1|hill|0.55|, sun, |1.1|sky|1.4641|.|1.1|" },
        { "a BREAK b", "a|1|BREAK|b|1|" },
        { "(a BREAK b:2)", "a|2|BREAK|b|2|" },
        { "BREAKFAST", "BREAKFAST|1|" },
        { "", "|1|" },
        { "(x:１．５)", "(x:１．５)|1|" },         /* a full-width point is no point ... */
        { "(x:１.５)", "x|1.5|" },                  /* ... full-width digits are digits, as in Python */
    };
    world *w = *state;
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        kw_prompt p;
        assert_int_equal(kw_prompt_parse(w->a, cases[i].prompt, &p, &w->e), KW_OK);
        if (!strstr(cases[i].prompt, "．"))
            same(&p, cases[i].want);
    }
}

static int nibble(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static char *unhex(char *s, char **end)
{
    size_t n = 0;
    for (; nibble(s[2 * n]) >= 0; n++)
        s[n] = (char)(nibble(s[2 * n]) << 4 | nibble(s[2 * n + 1]));
    *end = s + 2 * n;
    if (n)
        s[n] = 0;
    return n ? s : "";
}

static bool golden_line(world *w, char *line)
{
    char *p = strchr(line, '\t') + 1, *end;
    kw_prompt got;
    kw_status s = kw_prompt_parse(w->a, unhex(line, &end), &got, &w->e);
    if (!strncmp(p, "error", 5))
        return s == KW_EDATA;
    if (s)
        return false;
    size_t i = 0;
    for (; *p && *p != '\n'; i++) {
        if (i >= got.n)
            return false;
        const kw_segment *g = &got.segments[i];
        bool is_break = !strncmp(p, "BREAK", 5);
        double weight = is_break ? 1 : strtod(p, &p);
        p += is_break ? 5 : 1;
        char *text = is_break ? "" : unhex(p, &end);
        if (is_break != g->is_break || strcmp(text, g->text) || fabs(weight - g->weight) > 1e-15 * fabs(weight))
            return false;
        p = is_break ? p : end;
        p += *p == ' ';
    }
    return i == got.n;
}

/* Random prompts against a few lines of Python with A1111's regular expressions (tools/golden/text.py). */
static void golden(void **state)
{
    world *w = *state;
    FILE *f = fopen(KW_TESTS "/golden/text/prompts.tsv", "r");
    char *line = NULL, copy[4096];
    size_t room = 0, lines = 0, wrong = 0;
    assert_non_null(f);
    for (; getline(&line, &room, f) > 0; lines++) {
        snprintf(copy, sizeof copy, "%s", line);
        if (!golden_line(w, line)) {
            print_message("prompts.tsv line %zu: %s", lines + 1, copy);
            wrong++;
        }
    }
    free(line);
    fclose(f);
    assert_int_equal(wrong, 0);
    assert_true(lines > 400);
}

static void bad_weights(void **state)
{
    world *w = *state;
    kw_prompt p;
    assert_int_equal(kw_prompt_parse(w->a, "a (b:1.2.3) c", &p, &w->e), KW_EDATA);
    assert_non_null(strstr(w->e.what, "1.2.3"));
    assert_int_equal(kw_prompt_parse(w->a, "<lora:x:much>", &p, &w->e), KW_EDATA);
    assert_non_null(strstr(w->e.what, "much"));
    assert_int_equal(kw_prompt_parse(w->a, "<lora:x:1:te=>", &p, &w->e), KW_EDATA);
}

static void tags(void **state)
{
    world *w = *state;
    kw_prompt p = parse(w, "a <lora:kiwa-chan:0.8> b<lora:b:.5:1><lyco:c><lora:赤い狐: 1 :te=0.25:unet=-1:dyn=4>"
                           "<hypernet:h:0.3> <3 <x>");
    static const struct { const char *kind, *name; double te, unet; } want[] = {
        { "lora", "kiwa-chan", 0.8, 0.8 }, { "lora", "b", 0.5, 1 }, { "lyco", "c", 1, 1 },
        { "lora", "赤い狐", 0.25, -1 }, { "hypernet", "h", 0.3, 0.3 },
    };
    assert_string_equal(p.text, "a  b <3 <x>");
    assert_int_equal(p.n_tags, KW_LEN(want));
    for (size_t i = 0; i < p.n_tags; i++) {
        assert_string_equal(p.tags[i].kind, want[i].kind);
        assert_string_equal(p.tags[i].name, want[i].name);
        assert_true(p.tags[i].te == want[i].te && p.tags[i].unet == want[i].unet);
    }
    p = parse(w, "<lora:>x<lora:y<lora:2>");
    assert_int_equal(p.n_tags, 1);        /* everything up to the first > */
    assert_string_equal(p.tags[0].name, "y<lora");
}

/* ---- windows ---------------------------------------------------------------------------------------------- */

static kw_windows windows(world *w, const char *text)
{
    kw_prompt p = parse(w, text);
    kw_windows v;
    assert_int_equal(kw_prompt_windows(w->t, w->a, &p, KW_COMMA_REACH, &v, &w->e), KW_OK);
    assert_int_equal(v.width, 77);
    for (size_t i = 0; i < v.n; i++) {
        assert_int_equal(v.ids[i * 77], 49406);
        assert_int_equal(v.ids[i * 77 + 76], 49407);
    }
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

static void window_counts(void **state)
{
    world *w = *state;
    kw_windows v = windows(w, "");
    assert_int_equal(v.n, 1);
    assert_int_equal(length(&v, 0), 0);
    v = windows(w, repeat(w, "cat ", 75, ""));
    assert_int_equal(v.n, 1);
    assert_int_equal(length(&v, 0), 75);
    v = windows(w, repeat(w, "cat ", 76, ""));
    assert_int_equal(v.n, 2);
    assert_int_equal(length(&v, 1), 1);
    assert_int_equal(v.used, 76);
    v = windows(w, "BREAK");
    assert_int_equal(v.n, 1);             /* the empty window before it; nothing follows */
    v = windows(w, "a BREAK BREAK b");
    assert_int_equal(v.n, 3);
    assert_int_equal(length(&v, 1), 0);
    assert_int_equal(length(&v, 2), 1);
}

static void window_weights(void **state)
{
    world *w = *state;
    kw_windows v = windows(w, "a (red:1.5) fox BREAK [sky]");
    assert_int_equal(v.n, 2);
    assert_true(v.weights[0] == 1 && v.weights[1] == 1 && v.weights[2] == 1.5f && v.weights[3] == 1);
    assert_true(v.weights[77 + 1] == (float)(1 / 1.1) && v.weights[77 + 2] == 1);
    assert_int_equal(v.ids[2], kw_token_id(w->t, "red</w>"));
}

/* 60 words, a comma, 20 words: the window is full at 75, the comma 15 back: the 14 words after it move on. */
static void comma_moves(void **state)
{
    world *w = *state;
    char *text = repeat(w, "cat ", 60, repeat(w, " dog", 20, ""));
    text[239] = ',';
    kw_windows v = windows(w, text);
    assert_int_equal(v.n, 2);
    assert_int_equal(length(&v, 0), 61);
    assert_int_equal(length(&v, 1), 20);
    assert_int_equal(v.ids[61], kw_token_id(w->t, ",</w>"));
    assert_int_equal(v.ids[77 + 1], kw_token_id(w->t, "dog</w>"));
}

/* The same with the comma 21 back stays, 20 back moves (A1111: distance <= 20 from the full window's 75). */
static void comma_reach(void **state)
{
    world *w = *state;
    char *text = repeat(w, "cat ", 54, repeat(w, " dog", 30, ""));
    text[215] = ',';                      /* token 54 */
    kw_windows v = windows(w, text);
    assert_int_equal(length(&v, 0), 75);
    text = repeat(w, "cat ", 55, repeat(w, " dog", 30, ""));
    text[219] = ',';                      /* token 55 */
    v = windows(w, text);
    assert_int_equal(length(&v, 0), 56);
    v = windows(w, repeat(w, "cat ", 75, ", dog"));
    assert_int_equal(length(&v, 0), 75);  /* a comma that itself does not fit goes on alone */
    assert_int_equal(v.ids[77 + 1], kw_token_id(w->t, ",</w>"));
}

static void captions(void **state)
{
    world *w = *state;
    kw_windows v;
    char *text = repeat(w, "cat, ", 40, "the end, my friend");
    assert_int_equal(kw_caption_windows(w->t, w->a, text, 1, &v, &w->e), KW_OK);
    assert_int_equal(v.n, 1);
    assert_int_equal(length(&v, 0), 75);
    assert_int_equal(v.cut, 10);
    assert_string_equal(v.cut_text, ", cat, cat, the end, my friend");
    assert_int_equal(kw_caption_windows(w->t, w->a, text, 3, &v, &w->e), KW_OK);
    assert_int_equal(v.n, 3);
    assert_int_equal(length(&v, 1), 10);
    assert_int_equal(length(&v, 2), 0);
    assert_int_equal(v.cut, 0);
    assert_null(v.cut_text);
    assert_int_equal(kw_caption_windows(w->t, w->a, repeat(w, "cat ", 225, ""), 3, &v, &w->e), KW_OK);
    assert_int_equal(v.n, 3);
    assert_int_equal(v.cut, 0);
    assert_int_equal(kw_caption_windows(w->t, w->a, "(a:1.2)", 1, &v, &w->e), KW_OK);
    assert_int_equal(length(&v, 0), 7);   /* ( a : 1 . 2 ) */
}

static void extended(void **state)
{
    world *w = *state;
    kw_windows v = windows(w, "cat");
    assert_int_equal(kw_windows_extend(w->t, w->a, &v, 3, &w->e), KW_OK);
    assert_int_equal(v.n, 3);
    assert_int_equal(v.ids[1], kw_token_id(w->t, "cat</w>"));
    assert_int_equal(length(&v, 2), 0);
    assert_int_equal(v.ids[2 * 77], 49406);
    assert_true(v.weights[2 * 77 + 5] == 1);
}

/* SD 2.x: padding is "!" (0), one eos before it. The golden folder "added" has such a padding token. */
static void other_padding(void **state)
{
    world *w = *state;
    kw_tokenizer *t;
    kw_windows v;
    assert_int_equal(kw_tokenizer_open(w->a, KW_TESTS "/golden/text/added", &t, &w->e), KW_OK);
    assert_int_equal(kw_tokenizer_max_length(t), 77);      /* the file says 10^30 */
    assert_int_not_equal(kw_tokenizer_pad(t), kw_tokenizer_eos(t));
    assert_int_equal(kw_caption_windows(t, w->a, "a", 2, &v, &w->e), KW_OK);
    assert_int_equal(v.ids[2], kw_tokenizer_eos(t));
    assert_int_equal(v.ids[3], kw_tokenizer_pad(t));
    assert_int_equal(v.ids[76], kw_tokenizer_pad(t));
    assert_int_equal(v.ids[77 + 1], kw_tokenizer_eos(t));
    assert_int_equal(v.ids[77 + 76], kw_tokenizer_pad(t));
}

static void deep(void **state)
{
    world *w = *state;
    kw_prompt p = parse(w, repeat(w, "(a", 2000, ""));
    assert_int_equal(p.n, 2000);
    assert_true(isinf(p.segments[1999].weight) || p.segments[1999].weight > 1e80);
    char *text = kw_alloc(w->a, 100001);
    for (size_t i = 0; i < 100000; i += 2)
        memcpy(text + i, "(a", 2);
    assert_int_equal(kw_prompt_parse(w->a, text, &p, &w->e), KW_EDATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emphasis), cmocka_unit_test(golden), cmocka_unit_test(bad_weights), cmocka_unit_test(tags),
        cmocka_unit_test(window_counts), cmocka_unit_test(window_weights), cmocka_unit_test(comma_moves),
        cmocka_unit_test(comma_reach), cmocka_unit_test(captions), cmocka_unit_test(extended),
        cmocka_unit_test(other_padding), cmocka_unit_test(deep),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
