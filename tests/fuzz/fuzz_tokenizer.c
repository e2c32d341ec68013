/*
 * fuzz_tokenizer.c - any bytes as a text and as a prompt, under libFuzzer.
 *
 * Beyond not crashing it checks, for CLIP's vocabulary:
 *   the fast BPE of a word against one that looks at every pair at every step,
 *   that the tokens spell the normalized text, in order, from places that never go back,
 *   that a prompt's windows hold all its tokens, and each begins with bos and ends in eos or padding.
 */
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 256 };                      /* bytes of a word that the slow way is tried on */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static kw_arena *forever;
static kw_tokenizer *tok;
static kw_err err;

static void must(bool truth) { if (!truth) abort(); }

static void check_word(kw_arena *a, const char *s, size_t n)
{
    uint32_t id[MOST];
    size_t m = n;
    for (size_t i = 0; i < n; i++)
        id[i] = (uint32_t)tok->byte_id[i + 1 == n][(uint8_t)s[i]];
    for (;;) {
        kw_merge best = { .rank = UINT32_MAX };
        size_t at = 0;
        for (size_t i = 0; i + 1 < m; i++) {
            kw_merge p = kw_merges_find(&tok->merges, id[i], id[i + 1]);
            if (p.rank < best.rank)
                best = p, at = i;
        }
        if (best.rank == UINT32_MAX)
            break;
        id[at] = best.id;
        memmove(id + at + 1, id + at + 2, (--m - at - 1) * sizeof *id);
    }
    kw_word_room room = { 0 };
    must(kw_bpe_word(tok, a, s, n, &room, &err) == KW_OK && room.used == m);
    for (size_t i = 0; i < m; i++)
        must(room.symbol[i].id == id[i]);
}

/* The tokens' texts, one after the other, are the normalized text without its spaces. */
static void check_spelling(kw_arena *a, const char *s, size_t n, const kw_tokens *k)
{
    kw_chars all, text;
    must(kw_chars_decode(a, s, n, &all, &err) == KW_OK);
    must(kw_chars_normalize(a, all.s, all.n, &text, &err) == KW_OK);
    kw_str want = { 0 }, got = { 0 };
    char utf8[4];
    for (size_t i = 0; i < text.n; i++)
        if (text.s[i].c != ' ')
            kw_str_add_n(&want, utf8, kw_utf8_put(text.s[i].c, utf8));
    for (size_t i = 0; i < k->n; i++) {
        size_t length = 0;
        bool ends;
        const char *t = kw_token_text(tok, a, k->ids[i], &length, &ends);
        must(t && k->at[i] < n && (i == 0 || k->at[i] >= k->at[i - 1]));
        kw_str_add_n(&got, t, length);
    }
    must(want.n == got.n && (!want.n || !memcmp(want.s, got.s, want.n)));
    kw_str_free(&want);
    kw_str_free(&got);
}

static void check_prompt(kw_arena *a, const char *text)
{
    kw_prompt p;
    kw_windows w;
    if (kw_prompt_parse(a, text, &p, &err))
        return;
    must(kw_prompt_windows(tok, a, &p, KW_COMMA_REACH, &w, &err) == KW_OK && w.n >= 1);
    size_t used = 0;
    for (size_t i = 0; i < p.n; i++) {
        kw_tokens k;
        must(kw_tokenize(tok, a, p.segments[i].text, strlen(p.segments[i].text), &k, &err) == KW_OK);
        used += k.n;
    }
    must(used == w.used && w.n * 75 >= used);
    for (size_t i = 0; i < w.n; i++)
        must(w.ids[i * 77] == tok->bos && w.ids[i * 77 + 76] == tok->eos);
    must(kw_caption_windows(tok, a, text, 2, &w, &err) == KW_OK && w.n == 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!tok)
        must(kw_tokenizer_clip(forever = kw_arena_new(), &tok, &err) == KW_OK);
    kw_arena *a = kw_arena_new();
    const char *text = kw_strndup(a, (const char *)data, size);
    kw_tokens k;
    must(kw_tokenize(tok, a, text, size, &k, &err) == KW_OK);
    must(k.unknown == 0 && k.broken <= k.chars);
    if (!memmem(text, size, "<|endoftext|>", 13))          /* a mark ends a text: no composing across it */
        check_spelling(a, text, size, &k);
    if (size && size <= MOST)
        check_word(a, text, size);
    check_prompt(a, text);
    kw_arena_free(a);
    return 0;
}
