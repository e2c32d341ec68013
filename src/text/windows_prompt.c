/*
 * windows_prompt.c - prompts in windows of 77, as A1111 and as ComfyUI place them, with names that stand for vectors.
 *
 * A1111 looks for a name's tokens in the tokens of the text, the longest name first. Where a name with vectors stands
 * near the end of a window, all of it goes into the next. A token's place of a vector holds id 0, as in A1111: no end
 * mark, so that it changes nothing in where a pooled text is taken from.
 */
#include "windows.h"

#include <string.h>

kw_status kw_new_word_make(const kw_tokenizer *t, kw_arena *a, const char *name, int vectors, int32_t row,
                           kw_new_word *out, kw_err *e)
{
    kw_tokens tokens;
    if (vectors < 1 || vectors > t->max_length - 2)
        return kw_fail(e, KW_EDATA, N_("embedding \"%s\": %d vectors, where a window has room for %d"), name, vectors,
                       t->max_length - 2);
    KW_TRY(kw_tokenize(t, a, name, strlen(name), &tokens, e));
    if (!tokens.n)
        return kw_fail(e, KW_EDATA, N_("embedding \"%s\": a prompt cannot hold this name"), name);
    *out = (kw_new_word){ .name = name, .ids = tokens.ids, .n_ids = tokens.n, .vectors = vectors, .row = row };
    return KW_OK;
}

static kw_status put_word(kw__filler *f, const kw_new_word *word, float weight, kw_err *e)
{
    if (f->n + (size_t)word->vectors > f->length)
        KW_TRY(kw__windows_close(f, f->n, e));
    for (int i = 0; i < word->vectors; i++)
        kw__windows_add(f, 0, word->row + i, weight);
    return KW_OK;
}

/* ---- A1111 ------------------------------------------------------------------------------------------------------- */

/* The longest name at the start of ids; of two alike the first. */
static const kw_new_word *word_at(const kw_new_words *words, const int32_t *ids, size_t n)
{
    const kw_new_word *best = NULL;
    for (size_t i = 0; words && i < words->n; i++) {
        const kw_new_word *w = &words->word[i];
        if (w->n_ids <= n && (!best || w->n_ids > best->n_ids) && !memcmp(w->ids, ids, w->n_ids * sizeof *ids))
            best = w;
    }
    return best;
}

static kw_status put_segment(kw__filler *f, const kw_segment *s, const kw_windows_options *o, kw_err *e)
{
    kw_tokens tokens;
    KW_TRY(kw_tokenize(f->t, f->a, s->text, strlen(s->text), &tokens, e));
    for (size_t k = 0, used; k < tokens.n; k += used) {
        const kw_new_word *word = word_at(o->words, tokens.ids + k, tokens.n - k);
        used = word ? word->n_ids : 1;
        KW_TRY(kw__windows_room(f, tokens.ids[k], o->comma_reach, e));
        if (word)
            KW_TRY(put_word(f, word, (float)s->weight, e));
        else
            kw__windows_add(f, tokens.ids[k], -1, (float)s->weight);
    }
    return KW_OK;
}

/* ---- ComfyUI ----------------------------------------------------------------------------------------------------- */

enum { LARGE = 8 };                       /* tokens; fewer of them are not parted */
static const char mark[] = "embedding:";

static kw_status put_group(kw__filler *f, const char *s, size_t n, float weight, kw_err *e)
{
    kw_tokens tokens;
    KW_TRY(kw_tokenize(f->t, f->a, s, n, &tokens, e));
    if (f->n + tokens.n > f->length && tokens.n < LARGE)
        KW_TRY(kw__windows_close(f, f->n, e));
    for (size_t k = 0; k < tokens.n; k++) {
        if (f->n == f->length)
            KW_TRY(kw__windows_close(f, f->n, e));
        kw__windows_add(f, tokens.ids[k], -1, weight);
    }
    return KW_OK;
}

/* A file's ending may stand there: embedding:fox.pt */
static const kw_new_word *named(const kw_new_words *words, const char *s, size_t n)
{
    for (size_t i = 0; words && i < words->n; i++) {
        const char *name = words->word[i].name;
        size_t k = strlen(name);
        if (k <= n && !memcmp(name, s, k) && (k == n || (s[k] == '.' && n - k <= sizeof ".safetensors" - 1
                                                         && !memchr(s + k + 1, '.', n - k - 1))))
            return &words->word[i];
    }
    return NULL;
}

/* "embedding:NAME and words"; commas at the end of the name are words. s is behind the mark, used: up to the words. */
static kw_status put_named(kw__filler *f, const char *s, size_t n, float weight, const kw_new_words *words,
                           size_t *used, kw_err *e)
{
    size_t skip = 0, end;
    while (skip < n && strchr(" \t\r\n", s[skip]))
        skip++;
    for (end = skip; end < n && !strchr(" \t\r\n", s[end]); end++)
        ;
    const kw_new_word *word = named(words, s + skip, end - skip);
    size_t stem = end;
    while (!word && stem > skip && s[stem - 1] == ',')
        stem--;
    if (!word && stem < end)
        word = named(words, s + skip, stem - skip);
    *used = word ? stem : end;
    if (word)
        return put_word(f, word, weight, e);
    kw_status st = kw_fail(e, KW_EDATA, N_("prompt: there is no embedding \"%.*s\""), (int)KW_MIN(end - skip, 100),
                           s + skip);
    return kw_advise(e, st, N_("name its file with --embedding, or its folder with --embeddings-dir"));
}

static kw_status put_comfy(kw__filler *f, const kw_segment *seg, const kw_windows_options *o, kw_err *e)
{
    const char *s = seg->text;
    for (bool first = true; *s || first; first = false) {
        const char *next = s;             /* up to a mark behind a blank or a line's end */
        while ((next = strstr(next + 1 - !*next, mark)) && next[-1] != ' ' && next[-1] != '\n')
            ;
        size_t n = next ? (size_t)(next - 1 - s) : strlen(s), used = 0;
        if (kw_starts_with(s, mark)) {
            size_t m = sizeof mark - 1;
            KW_TRY(put_named(f, s + m, n - m, (float)seg->weight, o->words, &used, e));
            used += m;
        }
        if (n > used)
            KW_TRY(put_group(f, s + used, n - used, (float)seg->weight, e));
        s += n + (next != NULL);
    }
    return KW_OK;
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

kw_status kw_prompt_windows_as(const kw_tokenizer *t, kw_arena *a, const kw_prompt *p, const kw_windows_options *o,
                               kw_windows *out, kw_err *e)
{
    kw__filler f;
    *out = (kw_windows){ 0 };
    if (o->words && o->words->n && !(out->rows = kw_alloc_array(a, 1, sizeof *out->rows)))
        return kw_fail(e, KW_ENOMEM, N_("out of memory for the windows of a text"));
    KW_TRY(kw__windows_start(&f, t, a, out, e));
    for (size_t i = 0; i < p->n; i++) {
        const kw_segment *s = &p->segments[i];
        if (s->is_break)
            KW_TRY(kw__windows_close(&f, f.n, e));
        else
            KW_TRY(o->grammar == KW_GRAMMAR_COMFYUI ? put_comfy(&f, s, o, e) : put_segment(&f, s, o, e));
    }
    return f.n || !out->n ? kw__windows_close(&f, f.n, e) : KW_OK;
}

kw_status kw_prompt_windows(const kw_tokenizer *t, kw_arena *a, const kw_prompt *p, int comma_reach, kw_windows *out,
                            kw_err *e)
{
    const kw_windows_options o = { .comma_reach = comma_reach };
    return kw_prompt_windows_as(t, a, p, &o, out, e);
}
