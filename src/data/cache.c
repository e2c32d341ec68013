/*
 * cache.c - tensors that cost much to make, kept in memory and in a folder: KEY.safetensors, one tensor "data", its
 * CRC-32C and its key in the metadata. A file that is not exactly that is made again. The disk is a help, not a need:
 * when it refuses, the run goes on and the user is told.
 */
#include "internal.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef struct { char key[65]; const float *data; size_t n; } entry;

struct kw_cache {
    kw_arena *arena;                      /* its own: tables and tensors in memory */
    const char *dir;
    uint64_t limit, used;
    entry *table;                         /* open addressing, a power of two, at most half full */
    size_t n, room;
    bool made;                            /* the folder is there */
    kw_cache_stats stats;
    pthread_mutex_t lock;
};

static size_t count_of(const int64_t *shape, int rank)
{
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)shape[i];
    return n;
}

/* ---- memory ------------------------------------------------------------------------------------------- */

/* The entry of a key, or the empty place where it belongs. Keys are hashes already. */
static entry *place(entry *table, size_t room, const char *key)
{
    uint64_t at = 0;
    for (int i = 0; i < 16; i++)
        at = at << 4 | (uint64_t)(key[i] <= '9' ? key[i] - '0' : key[i] - 'a' + 10);
    while (table[at % room].data && strcmp(table[at % room].key, key))
        at++;
    return &table[at % room];
}

static bool grow(kw_cache *c)
{
    size_t room = c->room ? 2 * c->room : 256;
    entry *table = kw_alloc_array(c->arena, room, sizeof *table);
    if (!table)
        return false;
    for (size_t i = 0; i < c->room; i++)
        if (c->table[i].data)
            *place(table, room, c->table[i].key) = c->table[i];
    c->table = table;
    c->room = room;
    return true;
}

/* Beyond the limit, or without memory, it stays on disk alone. */
static void remember(kw_cache *c, const char *key, const float *data, size_t n)
{
    uint64_t bytes = n * sizeof *data;
    if (bytes > c->limit || c->used > c->limit - bytes || (2 * (c->n + 1) > c->room && !grow(c)))
        return;
    entry *t = place(c->table, c->room, key);
    if (t->data && t->n == n)
        return;
    float *copy = kw_alloc(c->arena, bytes);
    if (!copy)
        return;
    memcpy(copy, data, bytes);
    c->n += !t->data;
    c->used += bytes;
    *t = (entry){ .data = copy, .n = n };
    memcpy(t->key, key, sizeof t->key);
}

/* ---- disk --------------------------------------------------------------------------------------------- */

static char *file_name(kw_cache *c, kw_arena *a, const char *key)
{
    return kw_sprintf(a, "%s/%s.safetensors", c->dir, key);
}

static bool is_as_written(const kw_tensors *f, const char *key, const int64_t *shape, int rank)
{
    const kw_tensor *t = kw_tensors_find(f, "data");
    const char *crc = kw_tensors_meta(f, "crc32c"), *own = kw_tensors_meta(f, "key");
    char want[16];
    if (!t || !crc || !own || strcmp(own, key) || t->dtype != KW_F32 || t->rank != rank
        || memcmp(t->shape, shape, (size_t)rank * sizeof *shape))
        return false;
    snprintf(want, sizeof want, "%08" PRIx32, kw_crc32c(0, t->data, t->bytes));
    return !strcmp(want, crc);
}

static bool read_file(kw_cache *c, const char *key, const int64_t *shape, int rank, float *out)
{
    kw_arena *a = kw_arena_new();
    kw_tensors *f;
    const char *path = a ? file_name(c, a, key) : NULL;
    bool there = path && kw_is_file(path), good = false;
    if (there && !kw_tensors_open(a, path, &f, NULL) && is_as_written(f, key, shape, rank)) {
        memcpy(out, kw_tensors_find(f, "data")->data, count_of(shape, rank) * sizeof *out);
        good = kw_tensors_unchanged(f);
    }
    kw_arena_free(a);
    c->stats.damaged += there && !good;
    c->stats.from_disk += good;
    return good;
}

static kw_status write_file(kw_cache *c, const char *key, const int64_t *shape, int rank, const float *data, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    char *path = a ? file_name(c, a, key) : NULL, crc[16];
    kw_tensor t = { .name = "data", .dtype = KW_F32, .rank = rank, .data = data };
    if (!path) {
        kw_arena_free(a);
        return NO_MEMORY(e);
    }
    t.bytes = count_of(shape, rank) * sizeof *data;
    memcpy(t.shape, shape, (size_t)rank * sizeof *shape);
    snprintf(crc, sizeof crc, "%08" PRIx32, kw_crc32c(0, data, t.bytes));
    kw_meta meta[] = { { "crc32c", crc }, { "key", key } };
    kw_status s = c->made ? KW_OK : kw_mkdirs(c->dir, e);
    c->made |= !s;
    if (!s)
        s = kw_tensors_save(path, &t, 1, meta, KW_LEN(meta), e);
    kw_arena_free(a);
    return s;
}

/* ---- both --------------------------------------------------------------------------------------------- */

bool kw_cache_find(kw_cache *c, const char key[65], const int64_t *shape, int rank, float *out)
{
    size_t n = count_of(shape, rank);
    pthread_mutex_lock(&c->lock);
    const entry *t = c->room ? place(c->table, c->room, key) : NULL;
    bool hit = t && t->data && t->n == n, found = hit;
    if (hit)
        memcpy(out, t->data, n * sizeof *out);
    else if (c->dir && (found = read_file(c, key, shape, rank, out)))
        remember(c, key, out, n);
    c->stats.hits += hit;
    pthread_mutex_unlock(&c->lock);
    return found;
}

kw_status kw_cache_put(kw_cache *c, const char key[65], const int64_t *shape, int rank, const float *data, kw_err *e)
{
    kw_err why = { 0 };
    if (rank < 1 || rank > KW_MAX_RANK)
        return kw_fail(e, KW_EUSAGE, "a tensor of rank %d cannot be cached", rank);
    pthread_mutex_lock(&c->lock);
    remember(c, key, data, count_of(shape, rank));
    if (c->dir && !c->stats.unwritten && !write_file(c, key, shape, rank, data, &why)) {
        c->stats.stored++;
    } else if (c->dir && !c->stats.unwritten++) {
        snprintf(c->stats.trouble, sizeof c->stats.trouble, "%.255s", why.what);
    }
    pthread_mutex_unlock(&c->lock);
    return KW_OK;
}

kw_cache_stats kw_cache_stats_of(kw_cache *c)
{
    pthread_mutex_lock(&c->lock);
    kw_cache_stats s = c->stats;
    pthread_mutex_unlock(&c->lock);
    return s;
}

static void end(void *cache)
{
    kw_cache *c = cache;
    pthread_mutex_destroy(&c->lock);
    kw_arena_free(c->arena);
}

kw_status kw_cache_new(kw_arena *a, const char *dir, uint64_t memory, kw_cache **out, kw_err *e)
{
    kw_cache *c = *out = kw_alloc(a, sizeof *c);
    if (!c)
        return NO_MEMORY(e);
    *c = (kw_cache){ .dir = dir ? kw_strdup(a, dir) : NULL, .limit = memory, .arena = kw_arena_new() };
    if (!c->arena || (dir && !c->dir)) {
        kw_arena_free(c->arena);
        return NO_MEMORY(e);
    }
    pthread_mutex_init(&c->lock, NULL);
    return kw_defer(a, end, c);
}
