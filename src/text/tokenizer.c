/*
 * tokenizer.c - a text to token ids: special tokens, normalization, the split into words, BPE for each.
 *
 * What transformers' fast CLIPTokenizer is made of, in its order:
 *   1. special tokens not marked "normalized" are cut out of the text, the leftmost first, of these the longest;
 *   2. what lies between is normalized: NFC, \s+ to one space, lower case;
 *   3. special tokens marked "normalized" are cut out;
 *   4. the rest is split by
 *        <\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
 *      and each piece once more by GPT-2's expression, which changes only the first two ("<|", "startoftext", "|>").
 */
#include "bpe.h"

#include <string.h>

/* ---- the split ----------------------------------------------------------------------------------------- */

static bool spells(const kw_char *s, size_t n, const char *word)
{
    size_t i = 0;
    for (; word[i]; i++)
        if (i >= n || s[i].c != (uint8_t)word[i])
            return false;
    return true;
}

/* Length of the longest of CLIP's contractions at s, or 0. */
static size_t contraction(const kw_char *s, size_t n)
{
    static const char *const all[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };
    for (size_t i = 0; s[0].c == '\'' && i < KW_LEN(all); i++)
        if (spells(s, n, all[i]))
            return strlen(all[i]);
    return 0;
}

/* Length of "<|startoftext|>" or "<|endoftext|>" at s, or 0. */
static size_t mark(const kw_char *s, size_t n)
{
    static const char *const all[] = { "<|startoftext|>", "<|endoftext|>" };
    for (size_t i = 0; s[0].c == '<' && i < KW_LEN(all); i++)
        if (spells(s, n, all[i]))
            return strlen(all[i]);
    return 0;
}

/* Characters of the class of s[0], from there on. */
static size_t run(const kw_char *s, size_t n)
{
    kw_class k = kw_char_class(s[0].c);
    size_t i = 1;
    while (i < n && kw_char_class(s[i].c) == k)
        i++;
    return i;
}

kw_status kw_split_words(const kw_char *s, size_t n, kw_word_fn *fn, void *context, kw_err *e)
{
    for (size_t i = 0, k; i < n; i += k) {
        kw_class class = kw_char_class(s[i].c);
        if (class == KW_SPACE) {
            k = 1;
            continue;
        }
        if (class == KW_OTHER && (k = mark(s + i, n - i))) {
            KW_TRY(fn(context, s + i, 2, e));
            KW_TRY(fn(context, s + i + 2, k - 4, e));
            KW_TRY(fn(context, s + i + k - 2, 2, e));
            continue;
        }
        if (class != KW_OTHER || !(k = contraction(s + i, n - i)))
            k = class == KW_NUMBER ? 1 : run(s + i, n - i);
        KW_TRY(fn(context, s + i, k, e));
    }
    return KW_OK;
}

/* ---- ids ------------------------------------------------------------------------------------------------- */

typedef struct {
    const kw_tokenizer *t;
    kw_arena *keep, *scratch;
    kw_tokens *out;
    size_t capacity, at_capacity;
    char *word;                           /* the word's bytes, and where in the text each comes from */
    uint32_t *at;
    size_t word_room;
    kw_word_room room;
} job;

static kw_status emit(job *j, uint32_t id, uint32_t at, kw_err *e)
{
    KW_TRY(kw_grow(j->keep, &j->out->ids, &j->capacity, j->out->n, sizeof *j->out->ids, e));
    KW_TRY(kw_grow(j->keep, &j->out->at, &j->at_capacity, j->out->n, sizeof *j->out->at, e));
    j->out->ids[j->out->n] = (int32_t)id;
    j->out->at[j->out->n++] = at;
    return KW_OK;
}

/* Characters that a token's edge cuts through, or of bytes unknown. */
static void count_broken(job *j, size_t bytes)
{
    size_t char_start = 0, last = SIZE_MAX;
    for (size_t k = 0, b = 0; k < j->room.used; k++) {
        const kw_symbol *s = &j->room.symbol[k];
        for (; b <= s->start && b < bytes; b++)
            if ((j->word[b] & 0xc0) != 0x80)
                char_start = b;
        if ((char_start < s->start || s->unknown) && char_start != last) {
            j->out->broken++;
            last = char_start;
        }
        j->out->unknown += s->unknown;
    }
}

static kw_status encode_word(void *context, const kw_char *s, size_t n, kw_err *e)
{
    job *j = context;
    if (4 * n > j->word_room) {
        j->word_room = 8 * n;
        j->word = kw_alloc(j->scratch, j->word_room);
        j->at = kw_alloc_array(j->scratch, j->word_room, sizeof *j->at);
        if (!j->word || !j->at) {
            j->word_room = 0;
            return kw_fail(e, KW_ENOMEM, "out of memory for a word of %zu characters", n);
        }
    }
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        size_t k = kw_utf8_put(s[i].c, j->word + bytes);
        for (size_t b = 0; b < k; b++)
            j->at[bytes + b] = s[i].at;
        bytes += k;
    }
    KW_TRY(kw_bpe_word(j->t, j->scratch, j->word, bytes, &j->room, e));
    for (size_t k = 0; k < j->room.used; k++)
        KW_TRY(emit(j, j->room.symbol[k].id, j->at[j->room.symbol[k].start], e));
    j->out->chars += n;
    count_broken(j, bytes);
    return KW_OK;
}

/* The longest special token at s, or NULL. */
static const struct kw_special *special_at(const struct kw_special *all, size_t count, const kw_char *s, size_t n)
{
    const struct kw_special *best = NULL;
    for (const struct kw_special *p = all; p < all + count; p++) {
        if (p->n > n || p->s[0].c != s[0].c || (best && p->n <= best->n))
            continue;
        size_t i = 1;
        while (i < p->n && p->s[i].c == s[i].c)
            i++;
        if (i == p->n)
            best = p;
    }
    return best;
}

static kw_status normalized_part(job *j, const kw_char *s, size_t n, kw_err *e)
{
    kw_chars text;
    KW_TRY(kw_chars_normalize(j->scratch, s, n, &text, e));
    size_t start = 0;
    for (size_t i = 0; i < text.n;) {
        const struct kw_special *p = special_at(j->t->normal, j->t->n_normal, text.s + i, text.n - i);
        if (!p) {
            i++;
            continue;
        }
        KW_TRY(kw_split_words(text.s + start, i - start, encode_word, j, e));
        KW_TRY(emit(j, (uint32_t)p->id, text.s[i].at, e));
        start = i += p->n;
    }
    return kw_split_words(text.s + start, text.n - start, encode_word, j, e);
}

static kw_status tokenize(job *j, const char *text, size_t len, kw_err *e)
{
    kw_chars all;
    KW_TRY(kw_chars_decode(j->scratch, text, len, &all, e));
    size_t start = 0;
    for (size_t i = 0; i < all.n;) {
        const struct kw_special *p = special_at(j->t->raw, j->t->n_raw, all.s + i, all.n - i);
        if (!p) {
            i++;
            continue;
        }
        if (i > start)
            KW_TRY(normalized_part(j, all.s + start, i - start, e));
        KW_TRY(emit(j, (uint32_t)p->id, all.s[i].at, e));
        start = i += p->n;
    }
    return start < all.n ? normalized_part(j, all.s + start, all.n - start, e) : KW_OK;
}

kw_status kw_tokenize(const kw_tokenizer *t, kw_arena *a, const char *text, size_t len, kw_tokens *out, kw_err *e)
{
    *out = (kw_tokens){ 0 };
    if (len > KW_TEXT_MAX)
        return kw_fail(e, KW_EDATA, "a text of %zu bytes is too long (at most %d)", len, KW_TEXT_MAX);
    kw_arena *scratch = kw_arena_new();
    if (!scratch)
        return kw_fail(e, KW_ENOMEM, "out of memory for a text of %zu bytes", len);
    job j = { .t = t, .keep = a, .scratch = scratch, .out = out };
    kw_status s = tokenize(&j, text, len, e);
    kw_arena_free(scratch);
    return s;
}

/* ---- making and asking ------------------------------------------------------------------------------------- */

void kw_tokenizer_bind(kw_tokenizer *t)
{
    for (unsigned b = 0; b < 256; b++) {
        char name[16];
        size_t n = kw_utf8_put(kw_byte_letter((uint8_t)b), name);
        memcpy(name + n, "</w>", 4);
        t->byte_id[0][b] = kw_vocab_find(&t->vocab, name, n);
        t->byte_id[1][b] = kw_vocab_find(&t->vocab, name, n + 4);
    }
    t->comma = kw_vocab_find(&t->vocab, ",</w>", 5);
}

kw_status kw_tokenizer_specials(kw_tokenizer *t, kw_arena *a, const kw_special_spec *s, size_t n, kw_err *e)
{
    t->raw = kw_alloc_array(a, n, sizeof *t->raw);
    t->normal = kw_alloc_array(a, n, sizeof *t->normal);
    if (!t->raw || !t->normal)
        return kw_fail(e, KW_ENOMEM, "out of memory for %zu special tokens", n);
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(s[i].content);
        kw_chars text;
        KW_TRY(kw_chars_decode(a, s[i].content, length, &text, e));
        if (s[i].normalized)
            KW_TRY(kw_chars_normalize(a, text.s, text.n, &text, e));
        if (!text.n)
            continue;
        *(s[i].normalized ? &t->normal[t->n_normal++] : &t->raw[t->n_raw++]) =
            (struct kw_special){ text.s, text.n, kw_vocab_find(&t->vocab, s[i].content, length) };
    }
    return KW_OK;
}

int kw_tokenizer_size(const kw_tokenizer *t) { return (int)t->vocab.size; }
int kw_tokenizer_bos(const kw_tokenizer *t) { return t->bos; }
int kw_tokenizer_eos(const kw_tokenizer *t) { return t->eos; }
int kw_tokenizer_pad(const kw_tokenizer *t) { return t->pad; }
int kw_tokenizer_unk(const kw_tokenizer *t) { return t->unk; }
int kw_tokenizer_max_length(const kw_tokenizer *t) { return t->max_length; }
int kw_token_id(const kw_tokenizer *t, const char *name) { return kw_vocab_find(&t->vocab, name, strlen(name)); }

const char *kw_token_name(const kw_tokenizer *t, int id)
{
    return id >= 0 && (size_t)id < t->vocab.size ? t->vocab.name[id] : NULL;
}

const char *kw_token_text(const kw_tokenizer *t, kw_arena *a, int id, size_t *n, bool *ends_word)
{
    const char *name = kw_token_name(t, id);
    size_t length = name ? t->vocab.length[id] : 0;
    char *out = name ? kw_alloc(a, length + 1) : NULL;
    if (!out)
        return NULL;
    *ends_word = length >= 4 && !memcmp(name + length - 4, "</w>", 4);
    length -= *ends_word ? 4 : 0;
    *n = 0;
    for (size_t i = 0; i < length;) {
        uint32_t c;
        i += kw_utf8_get(name + i, length - i, &c);
        int byte = kw_letter_byte(c);
        if (byte >= 0)
            out[(*n)++] = (char)byte;
        else
            *n += kw_utf8_put(c, out + *n);                /* an added token in other letters: as it is written */
    }
    return out;
}
