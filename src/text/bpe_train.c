/*
 * bpe_train.c - a vocabulary from captions: byte-pair encoding in CLIP's form.
 *
 * Texts are normalized and split as for the tokenizer; equal words are counted once. Each step merges the pair of
 * neighbours that occurs most often. Counts are kept up to date: a merge visits only the words that hold the pair, and
 * a heap of (count, pair), corrected when an entry comes to its top, finds the next one.
 */
#include "bpe.h"

#include <string.h>

typedef struct {
    uint32_t *id;                         /* (n) its symbols */
    uint32_t n;
    uint32_t seen;                        /* the last merge that visited it */
    uint64_t count;
} word;

typedef struct { uint32_t word, next; } place;            /* list of words that held a pair once */

typedef struct {
    uint32_t left, right, places;         /* places: head of its list, 0 is none */
    bool merged;                          /* once; it comes back when another merge makes one of its halves */
    uint64_t count;
} pair;

typedef struct {
    kw_arena *a, *scratch;
    kw_vocab names, texts;                /* texts: a word's bytes to its number */
    word *word;
    size_t words, word_room;
    pair *pair;                           /* [1 .. pairs) */
    size_t pairs, pair_room;
    uint32_t *slot;                       /* hash table over (left, right) to pair */
    size_t slots;
    place *place;
    size_t places, place_room;
    struct candidate { uint64_t count; uint32_t pair; } *heap;
    size_t heaped, heap_room;
    uint64_t weight;                      /* of the text being read */
    size_t size;                          /* names wanted, without the two marks */
    kw_bpe *out;
    size_t merge_room;
    uint32_t step;
} trainer;

/* ---- words ---------------------------------------------------------------------------------------------- */

static kw_status new_texts(trainer *t, kw_err *e)
{
    kw_vocab old = t->texts;
    KW_TRY(kw_vocab_new(t->scratch, old.capacity ? 2 * old.capacity : 1024, &t->texts, e));
    for (size_t i = 0; i < old.size; i++)
        kw_vocab_put(&t->texts, old.name[i], old.length[i], i);
    return KW_OK;
}

static kw_status add_word(trainer *t, const char *text, size_t n, kw_err *e)
{
    if (t->words == t->texts.capacity)
        KW_TRY(new_texts(t, e));
    KW_TRY(kw_grow(t->scratch, &t->word, &t->word_room, t->words, sizeof *t->word, e));
    word *w = &t->word[t->words];
    *w = (word){ .id = kw_alloc_array(t->scratch, n, sizeof *w->id), .n = (uint32_t)n };
    char *copy = kw_strndup(t->scratch, text, n);
    if (!w->id || !copy)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %zu words"), t->words);
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < 256; k++)
            if (kw_byte_of_symbol(k) == (uint8_t)text[i])
                w->id[i] = k + (i + 1 == n ? 256 : 0);
    kw_vocab_put(&t->texts, copy, n, t->words++);
    return KW_OK;
}

static kw_status read_word(void *context, const kw_char *s, size_t n, kw_err *e)
{
    trainer *t = context;
    char few[256], *text = 4 * n > sizeof few ? kw_alloc(t->scratch, 4 * n) : few;
    size_t bytes = 0;
    if (!text)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for a word of %zu characters"), n);
    for (size_t i = 0; i < n; i++)
        bytes += kw_utf8_put(s[i].c, text + bytes);
    int at = t->words ? kw_vocab_find(&t->texts, text, bytes) : -1;
    if (at < 0) {
        at = (int)t->words;
        KW_TRY(add_word(t, text, bytes, e));
    }
    t->word[at].count += t->weight;
    return KW_OK;
}

static kw_status read_texts(trainer *t, const kw_bpe_text *texts, size_t n, kw_err *e)
{
    for (size_t i = 0; i < n; i++) {
        kw_chars all, normal;
        size_t bytes = strlen(texts[i].text);
        if (bytes > KW_TEXT_MAX)
            return kw_fail(e, KW_EDATA, N_("a text of %zu bytes is too long (at most %d)"), bytes, KW_TEXT_MAX);
        t->weight = texts[i].count;
        KW_TRY(kw_chars_decode(t->scratch, texts[i].text, bytes, &all, e));
        KW_TRY(kw_chars_normalize(t->scratch, all.s, all.n, &normal, e));
        KW_TRY(kw_split_words(normal.s, normal.n, read_word, t, e));
    }
    return KW_OK;
}

/* ---- pairs ------------------------------------------------------------------------------------------------ */

/* Does x go before y: more often, else lower ids? */
static bool before(const trainer *t, struct candidate x, struct candidate y)
{
    const pair *p = &t->pair[x.pair], *q = &t->pair[y.pair];
    if (x.count != y.count)
        return x.count > y.count;
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static kw_status heap_push(trainer *t, struct candidate x, kw_err *e)
{
    KW_TRY(kw_grow(t->scratch, &t->heap, &t->heap_room, t->heaped, sizeof *t->heap, e));
    size_t i = t->heaped++;
    for (; i > 0 && before(t, x, t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = x;
    return KW_OK;
}

static struct candidate heap_pop(trainer *t)
{
    struct candidate top = t->heap[0], x = t->heap[--t->heaped];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < t->heaped; i = child) {
        if (child + 1 < t->heaped && before(t, t->heap[child + 1], t->heap[child]))
            child++;
        if (!before(t, t->heap[child], x))
            break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = x;
    return top;
}

static uint32_t *pair_slot(const trainer *t, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    size_t i = (h ^ h >> 32) & (t->slots - 1);
    while (t->slot[i] && (t->pair[t->slot[i]].left != left || t->pair[t->slot[i]].right != right))
        i = (i + 1) & (t->slots - 1);
    return &t->slot[i];
}

static kw_status more_slots(trainer *t, kw_err *e)
{
    t->slots = t->slots ? 2 * t->slots : 4096;
    t->slot = kw_alloc_array(t->scratch, t->slots, sizeof *t->slot);
    if (!t->slot)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %zu pairs"), t->pairs);
    for (uint32_t i = 1; i < t->pairs; i++)
        *pair_slot(t, t->pair[i].left, t->pair[i].right) = i;
    return KW_OK;
}

static kw_status find_pair(trainer *t, uint32_t left, uint32_t right, uint32_t *found, kw_err *e)
{
    if (2 * t->pairs >= t->slots)
        KW_TRY(more_slots(t, e));
    uint32_t *slot = pair_slot(t, left, right);
    if (!*slot) {
        KW_TRY(kw_grow(t->scratch, &t->pair, &t->pair_room, t->pairs, sizeof *t->pair, e));
        *slot = (uint32_t)t->pairs;
        t->pair[t->pairs++] = (pair){ .left = left, .right = right };
    }
    *found = *slot;
    return KW_OK;
}

/* Count the pairs of a word; those of new words (all: every pair) are listed and put on the heap. */
static kw_status count_pairs(trainer *t, uint32_t at, uint32_t newest, bool all, kw_err *e)
{
    const word *w = &t->word[at];
    for (uint32_t i = 0; i + 1 < w->n; i++) {
        uint32_t p;
        KW_TRY(find_pair(t, w->id[i], w->id[i + 1], &p, e));
        t->pair[p].count += w->count;
        if (!all && w->id[i] != newest && w->id[i + 1] != newest)
            continue;                     /* it was listed before, and is no more frequent than its entry says */
        KW_TRY(kw_grow(t->scratch, &t->place, &t->place_room, t->places, sizeof *t->place, e));
        t->place[t->places] = (place){ at, t->pair[p].places };
        t->pair[p].places = (uint32_t)t->places++;
        if (!all)
            KW_TRY(heap_push(t, (struct candidate){ t->pair[p].count, p }, e));
    }
    return KW_OK;
}

static kw_status count_all(trainer *t, kw_err *e)
{
    t->pairs = t->places = 1;             /* 0 is none */
    KW_TRY(kw_grow(t->scratch, &t->pair, &t->pair_room, 0, sizeof *t->pair, e));
    KW_TRY(kw_grow(t->scratch, &t->place, &t->place_room, 0, sizeof *t->place, e));
    for (uint32_t i = 0; i < t->words; i++)
        KW_TRY(count_pairs(t, i, 0, true, e));
    for (uint32_t p = 1; p < t->pairs; p++)
        KW_TRY(heap_push(t, (struct candidate){ t->pair[p].count, p }, e));
    return KW_OK;
}

/* ---- merging ------------------------------------------------------------------------------------------------ */

static void uncount_pairs(trainer *t, const word *w)
{
    for (uint32_t i = 0; i + 1 < w->n; i++)
        t->pair[*pair_slot(t, w->id[i], w->id[i + 1])].count -= w->count;
}

static void replace(word *w, uint32_t left, uint32_t right, uint32_t id)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        bool both = i + 1 < w->n && w->id[i] == left && w->id[i + 1] == right;
        w->id[n++] = both ? id : w->id[i];
        i += both;
    }
    w->n = n;
}

/* The id of both names together, new unless another merge has made the same token before. */
static kw_status name_pair(trainer *t, uint32_t left, uint32_t right, uint32_t *id, kw_err *e)
{
    size_t n = t->names.length[left];
    char *name = kw_alloc(t->a, n + t->names.length[right] + 1);
    if (!name)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for the vocabulary"));
    memcpy(name, t->names.name[left], n);
    memcpy(name + n, t->names.name[right], t->names.length[right]);
    n += t->names.length[right];
    int known = kw_vocab_find(&t->names, name, n);
    *id = known < 0 ? (uint32_t)t->names.size : (uint32_t)known;
    if (known < 0)
        kw_vocab_put(&t->names, name, n, *id);
    return KW_OK;
}

static kw_status note_merge(trainer *t, pair *p, kw_err *e)
{
    if (p->merged)
        return KW_OK;
    p->merged = true;
    KW_TRY(kw_grow(t->a, &t->out->merges, &t->merge_room, t->out->n_merges, sizeof *t->out->merges, e));
    t->out->merges[t->out->n_merges][0] = p->left;
    t->out->merges[t->out->n_merges++][1] = p->right;
    return KW_OK;
}

static kw_status merge(trainer *t, uint32_t at, kw_err *e)
{
    pair p = t->pair[at];                 /* a copy: the array may grow below */
    uint32_t id = 0;
    KW_TRY(name_pair(t, p.left, p.right, &id, e));
    KW_TRY(note_merge(t, &t->pair[at], e));
    t->step++;
    for (uint32_t k = p.places; k; k = t->place[k].next) {
        word *w = &t->word[t->place[k].word];
        if (w->seen == t->step)
            continue;
        w->seen = t->step;
        uncount_pairs(t, w);
        replace(w, p.left, p.right, id);
        KW_TRY(count_pairs(t, t->place[k].word, id, false, e));
    }
    return KW_OK;
}

static kw_status merge_all(trainer *t, uint64_t min_count, kw_err *e)
{
    while (t->names.size < t->size && t->heaped) {
        struct candidate c = heap_pop(t);
        uint64_t now = t->pair[c.pair].count;
        if (now < c.count) {              /* seen less often since; its turn may come later */
            if (now >= min_count)
                KW_TRY(heap_push(t, (struct candidate){ now, c.pair }, e));
            continue;
        }
        if (now == 0 || now < min_count)
            break;
        KW_TRY(merge(t, c.pair, e));
    }
    return KW_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static kw_status byte_names(trainer *t, kw_err *e)
{
    for (unsigned i = 0; i < 512; i++) {
        char letter[8] = "";
        kw_utf8_put(kw_byte_letter(kw_byte_of_symbol(i % 256)), letter);
        char *name = kw_sprintf(t->a, "%s%s", letter, i < 256 ? "" : "</w>");
        if (!name)
            return kw_fail(e, KW_ENOMEM, N_("out of memory for the vocabulary"));
        kw_vocab_put(&t->names, name, strlen(name), i);
    }
    return KW_OK;
}

static kw_status train(trainer *t, const kw_bpe_text *texts, size_t n, uint64_t min_count, kw_err *e)
{
    KW_TRY(kw_vocab_new(t->a, t->size + 2, &t->names, e));
    KW_TRY(byte_names(t, e));
    KW_TRY(read_texts(t, texts, n, e));
    KW_TRY(count_all(t, e));
    KW_TRY(merge_all(t, min_count, e));
    kw_vocab_put(&t->names, "<|startoftext|>", 15, t->names.size);
    kw_vocab_put(&t->names, "<|endoftext|>", 13, t->names.size);
    t->out->names = t->names.name;
    t->out->size = t->names.size;
    return KW_OK;
}

kw_status kw_bpe_train(kw_arena *a, const kw_bpe_text *texts, size_t n, size_t size, uint64_t min_count, kw_bpe *out,
                       kw_err *e)
{
    *out = (kw_bpe){ 0 };
    if (size < 514 || size > KW_MAX_ID)
        return kw_fail(e, KW_EUSAGE, N_("a vocabulary of %zu tokens: it needs 512 bytes and 2 marks, and at most %d"),
                       size, KW_MAX_ID);
    kw_arena *scratch = kw_arena_new();
    if (!scratch)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for the vocabulary"));
    trainer t = { .a = a, .scratch = scratch, .size = size - 2, .out = out };
    kw_status s = train(&t, texts, n, KW_MAX(min_count, (uint64_t)1), e);
    kw_arena_free(scratch);
    return s;
}
