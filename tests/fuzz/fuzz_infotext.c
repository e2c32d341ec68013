/*
 * fuzz_infotext.c - any bytes as infotext, under libFuzzer. What is read is written again with the keys that the writer
 * knows, and reads back the same: prompt, negative prompt, sampler, sizes, the fields beside them.
 */
#include "diffusion/diffusion.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool truth) { if (!truth) abort(); }

/* What is quoted is JSON, and that has UTF-8 alone. */
static bool quotable(const char *s)
{
    bool ascii = true;
    for (const char *c = s; *c; c++)
        ascii &= (signed char)*c > 0;
    return ascii || !strchr(s, ',');
}

/* The parser takes blanks at ends of lines away, and reads a last line of three fields as parameters. */
static bool plain(const char *s)
{
    return !strpbrk(s, ":\r\t\v\f\n") && (!*s || (s[0] != ' ' && s[strlen(s) - 1] != ' '));
}

static void check_round(kw_arena *a, const kw_infotext_read *t)
{
    kw_str s = { 0 };
    kw_err e;
    const char *sampler = t->n ? t->field[0].value : "Euler a";
    const kw_meta extra[] = { { "Note", t->n > 1 ? t->field[1].value : "x" } };
    if (!plain(t->prompt) || !plain(t->negative) || !*sampler || !plain(sampler) || !plain(extra[0].value)
        || !*extra[0].value || !quotable(sampler) || !quotable(extra[0].value) || strchr("\"{", *sampler)
        || strchr("\"{", *extra[0].value))
        return;
    kw_infotext w = { .prompt = t->prompt, .negative = t->negative, .steps = 20, .sampler = sampler, .cfg = 7.5,
                      .seed = 5,
                      .width = 64, .height = 128, .extra = extra, .n_extra = 1 };
    kw_infotext_write(&w, &s);
    must(!s.failed && s.s);
    kw_infotext_read again;
    must(kw_infotext_parse(a, s.s, &again, &e) == KW_OK);
    must(!strcmp(again.prompt, t->prompt) && !strcmp(again.negative, t->negative));
    must(!strcmp(kw_infotext_get(&again, "Sampler"), sampler)
         && !strcmp(kw_infotext_get(&again, "Note"), extra[0].value));
    must(!strcmp(kw_infotext_get(&again, "Size"), "64x128") && !strcmp(kw_infotext_get(&again, "CFG scale"), "7.5"));
    kw_str_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kw_arena *a = kw_arena_new();
    char *text = kw_strndup(a, (const char *)data, size);
    kw_infotext_read t;
    kw_err e;
    if (!kw_infotext_parse(a, text, &t, &e)) {
        must(strlen(t.prompt) + strlen(t.negative) <= strlen(text));
        for (size_t i = 0; i < t.n; i++)
            must(t.field[i].key && *t.field[i].key && t.field[i].value && kw_infotext_get(&t, t.field[i].key));
        check_round(a, &t);
    }
    kw_arena_free(a);
    return 0;
}
