/* bpe.h - inside the text layer: the vocabulary, its merges, one word to symbols. */
#ifndef KW_TEXT_BPE_H
#define KW_TEXT_BPE_H

#include "text.h"
#include "unicode.h"

/* ---- vocabulary: names to ids and back (a hash table with open addressing) ---------------------------- */

typedef struct {
    const char **name;                    /* by id; NULL where an id has no name; not copied */
    uint32_t *length;
    size_t size;                          /* one more than the greatest id */
    size_t count;                         /* names */
    size_t capacity;
    uint32_t *slot;                       /* id + 1; 0 is free */
    size_t slots;                         /* a power of two */
} kw_vocab;

enum { KW_MAX_ID = 1 << 24 };

KW_MUST kw_status kw_vocab_new(kw_arena *a, size_t size, kw_vocab *v, kw_err *e);   /* room for ids below size */
/* Name an id below the size given to kw_vocab_new; a name already known keeps its first id. */
void kw_vocab_put(kw_vocab *v, const char *name, size_t length, size_t id);
int kw_vocab_find(const kw_vocab *v, const char *name, size_t length);              /* -1: unknown */

/* ---- merges: pairs of ids to the id of both, with their rank -------------------------------------------- */

typedef struct { uint32_t left, right, rank, id; } kw_merge;   /* rank UINT32_MAX: no such pair */
typedef struct {
    kw_merge *slot;
    size_t slots;
} kw_merges;

KW_MUST kw_status kw_merges_new(kw_arena *a, size_t n, kw_merges *m, kw_err *e);    /* room for n */
void kw_merges_put(kw_merges *m, uint32_t left, uint32_t right, uint32_t rank, uint32_t id);   /* the last one holds */
kw_merge kw_merges_find(const kw_merges *m, uint32_t left, uint32_t right);

/* ---- bytes and their letters ---------------------------------------------------------------------------- */

/*
 * Byte-level BPE writes every byte as a visible letter: 33..126, 161..172 and 174..255 as themselves, the other 68 as
 * U+0100 and up. CLIP numbers its symbols in that order too.
 */
uint32_t kw_byte_letter(uint8_t byte);
int kw_letter_byte(uint32_t c);           /* -1: no byte's letter */
uint8_t kw_byte_of_symbol(unsigned i);    /* i in 0..255, CLIP's order */

/* ---- one word -------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t id;                          /* of the tokenizer's unknown token where the vocabulary has no such byte */
    uint32_t start;                       /* first byte in the word */
    uint32_t before, after;               /* neighbours while merging */
    bool unknown;
} kw_symbol;

typedef struct {                          /* room for one word after another */
    kw_symbol *symbol;
    uint64_t *heap;
    size_t room, used, heap_room;
} kw_word_room;

struct kw_special { kw_char *s; size_t n; int32_t id; };

struct kw_tokenizer {
    kw_vocab vocab;
    kw_merges merges;
    int32_t byte_id[2][256];              /* of a byte inside a word, and at its end ("</w>"); -1: has none */
    struct kw_special *raw, *normal;      /* special tokens looked for before and after normalization */
    size_t n_raw, n_normal;
    int32_t bos, eos, pad, unk, comma;
    int max_length;
};

/* Symbols of a word of n >= 1 bytes: room->symbol[0 .. room->used). O(n log n). */
KW_MUST kw_status kw_bpe_word(const kw_tokenizer *t, kw_arena *a, const char *word, size_t n, kw_word_room *room,
                              kw_err *e);

/* Call fn for each word of a normalized text, in CLIP's split. */
typedef kw_status kw_word_fn(void *context, const kw_char *s, size_t n, kw_err *e);
KW_MUST kw_status kw_split_words(const kw_char *s, size_t n, kw_word_fn *fn, void *context, kw_err *e);

/* ---- making a tokenizer ------------------------------------------------------------------------------------ */

typedef struct {
    const char *content;
    bool normalized;                      /* looked for after normalization */
} kw_special_spec;

/* Find the byte symbols and the comma in the vocabulary. */
void kw_tokenizer_bind(kw_tokenizer *t);
/* Special tokens, all in the vocabulary. */
KW_MUST kw_status kw_tokenizer_specials(kw_tokenizer *t, kw_arena *a, const kw_special_spec *s, size_t n, kw_err *e);

#endif
