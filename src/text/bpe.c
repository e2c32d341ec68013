/*
 * bpe.c - byte-pair encoding: vocabulary and merge tables, and one word to its symbols.
 *
 * A word begins as one symbol per byte, the last one with "</w>". While neighbours have a merge, the pair of lowest
 * rank is merged, the leftmost of equals first (Sennrich et al. 2016, as tokenizers' BPE does it).
 */
#include "bpe.h"

#include <string.h>

enum { SHORT_WORD = 24 };                 /* symbols; up to here looking at all pairs is faster than a heap */
#define NONE UINT32_MAX

/* ---- vocabulary ---------------------------------------------------------------------------------------- */

static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;     /* FNV-1a, finished by a multiplication that spreads to the high bits */
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    return (h ^ h >> 29) * 0x9e3779b97f4a7c15u >> 20;
}

static size_t power_of_two(size_t n)
{
    size_t p = 64;
    while (p < n)
        p *= 2;
    return p;
}

kw_status kw_vocab_new(kw_arena *a, size_t size, kw_vocab *v, kw_err *e)
{
    *v = (kw_vocab){ .capacity = size, .slots = power_of_two(2 * size) };
    v->name = kw_alloc_array(a, size, sizeof *v->name);
    v->length = kw_alloc_array(a, size, sizeof *v->length);
    v->slot = kw_alloc_array(a, v->slots, sizeof *v->slot);
    if (!v->name || !v->length || !v->slot)
        return kw_fail(e, KW_ENOMEM, "out of memory for a vocabulary of %zu tokens", size);
    return KW_OK;
}

static uint32_t *vocab_slot(const kw_vocab *v, const char *name, size_t length)
{
    size_t i = hash_bytes(name, length) & (v->slots - 1);
    for (; v->slot[i]; i = (i + 1) & (v->slots - 1)) {
        uint32_t id = v->slot[i] - 1;
        if (v->length[id] == length && !memcmp(v->name[id], name, length))
            break;
    }
    return &v->slot[i];
}

void kw_vocab_put(kw_vocab *v, const char *name, size_t length, size_t id)
{
    KW_ASSERT(id < v->capacity);
    uint32_t *slot = vocab_slot(v, name, length);
    if (!*slot) {
        *slot = (uint32_t)id + 1;
        v->count++;
    }
    v->name[id] = name;
    v->length[id] = (uint32_t)length;
    v->size = KW_MAX(v->size, id + 1);
}

int kw_vocab_find(const kw_vocab *v, const char *name, size_t length)
{
    return (int)*vocab_slot(v, name, length) - 1;
}

/* ---- merges --------------------------------------------------------------------------------------------- */

kw_status kw_merges_new(kw_arena *a, size_t n, kw_merges *m, kw_err *e)
{
    m->slots = power_of_two(2 * n);
    m->slot = kw_alloc_array(a, m->slots, sizeof *m->slot);
    if (!m->slot)
        return kw_fail(e, KW_ENOMEM, "out of memory for %zu merges", n);
    for (size_t i = 0; i < m->slots; i++)
        m->slot[i].rank = NONE;
    return KW_OK;
}

static kw_merge *merge_slot(const kw_merges *m, uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    size_t i = (h ^ h >> 32) & (m->slots - 1);
    while (m->slot[i].rank != NONE && (m->slot[i].left != left || m->slot[i].right != right))
        i = (i + 1) & (m->slots - 1);
    return &m->slot[i];
}

void kw_merges_put(kw_merges *m, uint32_t left, uint32_t right, uint32_t rank, uint32_t id)
{
    *merge_slot(m, left, right) = (kw_merge){ left, right, rank, id };
}

kw_merge kw_merges_find(const kw_merges *m, uint32_t left, uint32_t right) { return *merge_slot(m, left, right); }

/* ---- bytes and their letters ------------------------------------------------------------------------------ */

static bool shows(unsigned b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; }

/* The bytes without a shape of their own: 0..32, 127..160, 173. */
static unsigned hidden_index(unsigned b) { return b <= 32 ? b : b <= 160 ? b - 127 + 33 : 67; }
static unsigned hidden_byte(unsigned i) { return i <= 32 ? i : i <= 66 ? i - 33 + 127 : 173; }

uint32_t kw_byte_letter(uint8_t byte) { return shows(byte) ? byte : 256 + hidden_index(byte); }

int kw_letter_byte(uint32_t c)
{
    if (c < 256)
        return shows(c) ? (int)c : -1;
    return c < 256 + 68 ? (int)hidden_byte(c - 256) : -1;
}

uint8_t kw_byte_of_symbol(unsigned i)
{
    return (uint8_t)(i < 94 ? i + 33 : i < 106 ? i - 94 + 161 : i < 188 ? i - 106 + 174 : hidden_byte(i - 188));
}

/* ---- one word ----------------------------------------------------------------------------------------------- */

static kw_status make_room(kw_arena *a, kw_word_room *room, size_t n, kw_err *e)
{
    if (n > room->room) {
        room->room = KW_MAX(2 * n, (size_t)64);
        room->symbol = kw_alloc_array(a, room->room, sizeof *room->symbol);
    }
    if (n > SHORT_WORD && 3 * n > room->heap_room) {       /* n-1 pairs at first, two new ones for each of n-1 merges */
        room->heap_room = 6 * n;
        room->heap = kw_alloc_array(a, room->heap_room, sizeof *room->heap);
    }
    if (!room->symbol || (n > SHORT_WORD && !room->heap)) {
        *room = (kw_word_room){ 0 };
        return kw_fail(e, KW_ENOMEM, "out of memory for a word of %zu bytes", n);
    }
    return KW_OK;
}

/* Put the symbol after s[i] into s[i], as id. */
static void join(kw_symbol *s, uint32_t i, uint32_t id)
{
    uint32_t gone = s[i].after;
    s[i].id = id;
    s[i].unknown = false;
    s[i].after = s[gone].after;
    if (s[i].after != NONE)
        s[s[i].after].before = i;
    s[gone].id = NONE;
}

static void merge_short(const kw_tokenizer *t, kw_symbol *s)
{
    for (;;) {
        kw_merge best = { .rank = NONE };
        uint32_t where = 0;
        for (uint32_t i = 0; s[i].after != NONE; i = s[i].after) {
            kw_merge m = kw_merges_find(&t->merges, s[i].id, s[s[i].after].id);
            if (m.rank < best.rank) {
                best = m;
                where = i;
            }
        }
        if (best.rank == NONE)
            return;
        join(s, where, best.id);
    }
}

/* A heap of (rank, place), the smallest first. */
static void heap_push(uint64_t *h, size_t *n, uint64_t x)
{
    size_t i = (*n)++;
    for (; i > 0 && h[(i - 1) / 2] > x; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = x;
}

static uint64_t heap_pop(uint64_t *h, size_t *n)
{
    uint64_t top = h[0], x = h[--*n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < *n; i = child) {
        if (child + 1 < *n && h[child + 1] < h[child])
            child++;
        if (h[child] >= x)
            break;
        h[i] = h[child];
    }
    h[i] = x;
    return top;
}

static void push_pair(const kw_tokenizer *t, kw_word_room *room, size_t *n, uint32_t i)
{
    const kw_symbol *s = room->symbol;
    if (i == NONE || s[i].after == NONE)
        return;
    kw_merge m = kw_merges_find(&t->merges, s[i].id, s[s[i].after].id);
    if (m.rank != NONE)
        heap_push(room->heap, n, (uint64_t)m.rank << 32 | i);
}

static void merge_long(const kw_tokenizer *t, kw_word_room *room)
{
    kw_symbol *s = room->symbol;
    size_t n = 0;
    for (uint32_t i = 0; i != NONE; i = s[i].after)
        push_pair(t, room, &n, i);
    while (n) {
        uint64_t top = heap_pop(room->heap, &n);
        uint32_t i = (uint32_t)top;
        if (s[i].id == NONE || s[i].after == NONE)
            continue;
        kw_merge m = kw_merges_find(&t->merges, s[i].id, s[s[i].after].id);
        if (m.rank != top >> 32)          /* the pair has changed since; no-pair is NONE, which no entry has */
            continue;
        join(s, i, m.id);
        push_pair(t, room, &n, s[i].before);
        push_pair(t, room, &n, i);
    }
}

kw_status kw_bpe_word(const kw_tokenizer *t, kw_arena *a, const char *word, size_t n, kw_word_room *room, kw_err *e)
{
    KW_TRY(make_room(a, room, n, e));
    kw_symbol *s = room->symbol;
    for (uint32_t i = 0; i < n; i++) {
        int32_t id = t->byte_id[i + 1 == n][(uint8_t)word[i]];
        s[i] = (kw_symbol){ .id = (uint32_t)(id < 0 ? t->unk : id), .start = i, .before = i - 1,   /* 0-1 is NONE */
                            .after = i + 1 == n ? NONE : i + 1, .unknown = id < 0 };
    }
    if (n > SHORT_WORD)
        merge_long(t, room);
    else
        merge_short(t, s);
    room->used = 0;
    for (uint32_t i = 0; i != NONE; i = s[i].after)        /* i >= used: nothing is overwritten before it is read */
        s[room->used++] = s[i];
    return KW_OK;
}
