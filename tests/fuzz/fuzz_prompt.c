/*
 * fuzz_prompt.c - any bytes as a prompt in either grammar, under libFuzzer. Two bytes say how: grammar, emphasis,
 * steps.
 *
 * Beyond not crashing it checks: stages follow each other up to the last step, every text of a stage is made of the
 * prompt's own bytes in order of pieces and no longer than it, segments hold no more than the text, windows hold every
 * token, a name's vectors stand together, and where nothing is special the text is the prompt.
 */
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static kw_arena *forever;
static kw_tokenizer *tok;
static kw_new_word words[2];
static kw_err err;

static void must(bool truth) { if (!truth) abort(); }

static void setup(void)
{
    forever = kw_arena_new();
    must(kw_tokenizer_clip(forever, &tok, &err) == KW_OK);
    must(kw_new_word_make(tok, forever, "fox", 3, 0, &words[0], &err) == KW_OK);
    must(kw_new_word_make(tok, forever, "fox cat", 70, 3, &words[1], &err) == KW_OK);
}

/* Rows of a name follow each other from its first to its last, within one window. */
static void check_rows(const kw_windows *w)
{
    for (size_t i = 0; i < w->n * w->width; i++) {
        int32_t row = w->rows[i];
        must(row < 73 && (row < 0 || w->ids[i] == 0));
        bool first = row == 0 || row == 3, last = row == 2 || row == 72;
        must(row < 0 || first || w->rows[i - 1] == row - 1);
        must(row < 0 || last || (w->rows[i + 1] == row + 1 && (i + 1) % w->width));
    }
}

static void check_text(kw_arena *a, const char *text, kw_grammar g, kw_emphasis m)
{
    const kw_new_words list = { words, 2 };
    const kw_windows_options o = { g, KW_COMMA_REACH, &list };
    kw_prompt p = { .text = text };
    kw_windows w;
    size_t n = 0;
    if (kw_prompt_weigh(a, g, m, &p, &err))
        return;
    must(p.n > 0);
    for (size_t i = 0; i < p.n; i++)
        n += strlen(p.segments[i].text);
    must(n <= strlen(text));
    if (m == KW_EMPHASIS_NONE || !strpbrk(text, "()[]\\:B"))
        must(n == strlen(text));
    if (kw_prompt_windows_as(tok, a, &p, &o, &w, &err))
        return;
    must(w.n >= 1);
    check_rows(&w);
    must(kw_windows_extend(tok, a, &w, w.n + 1, &err) == KW_OK);
    check_rows(&w);
}

static void check_plan(kw_arena *a, const char *text, int steps, int before, bool composed, kw_grammar g, kw_emphasis m)
{
    kw_prompt_plan plan;
    if (kw_prompt_plan_make(a, text, composed, (kw_prompt_steps){ steps, before }, &plan, &err))
        return;
    must(plan.n >= 1 && (composed || plan.n == 1));
    for (size_t i = 0; i < plan.n; i++) {
        const kw_prompt_part *p = &plan.part[i];
        int last = 0;
        must(p->n >= 1 && p->stage[p->n - 1].until == steps);
        for (size_t k = 0; k < p->n; k++) {
            must(p->stage[k].until > last);
            last = p->stage[k].until;
            must(strlen(p->stage[k].text) <= strlen(text));
        }
        if (p->n == 1 && !composed && !strpbrk(text, "[|"))
            must(!strcmp(p->stage[0].text, text));
        must(kw_prompt_stage_at(p, 0) == 0 && kw_prompt_stage_at(p, steps) == p->n - 1);
        check_text(a, p->stage[p->n - 1].text, g, m);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!forever)
        setup();
    if (size < 2)
        return 0;
    kw_arena *a = kw_arena_new();
    char *text = kw_strndup(a, (const char *)data + 2, size - 2);
    kw_grammar g = data[0] & 1 ? KW_GRAMMAR_COMFYUI : KW_GRAMMAR_A1111;
    kw_emphasis m = (kw_emphasis)(data[0] >> 1 & 3);
    kw_prompt p;
    if (!kw_prompt_tags(a, text, &p, &err)) {
        must(strlen(p.text) <= strlen(text));
        check_plan(a, p.text, data[1] % 31 + 1, data[0] & 16 ? 10 : 0, data[0] & 8, g, m);
    }
    kw_arena_free(a);
    return 0;
}
