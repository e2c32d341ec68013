/*
 * torch_tar.c - the oldest checkpoints of PyTorch (before 0.2): a tar archive of three lists.
 *
 *   storages   pickle: count; each: pickle (key, place, type), i64 count, numbers; at the end pickle: list of views
 *   tensors    pickle: count; each: pickle (key, storage, class), i32 rank, 4 unused bytes, i64 shape, strides, offset
 *   pickle     the object, with keys of tensors as persistent ids
 *
 * Source: torch/serialization.py, legacy_load; POSIX ustar.
 */
#include "torch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint64_t at, end; } member;

/* Numbers in tar heads are octal digits. */
static bool octal(const char *p, int n, uint64_t *v)
{
    *v = 0;
    while (n && *p == ' ')
        p++, n--;
    for (; n && *p >= '0' && *p <= '7'; p++, n--)
        *v = *v << 3 | (uint64_t)(*p - '0');
    return !n || !*p || *p == ' ';
}

static kw_status find_members(kw__torch *t, member m[3])
{
    static const char *const names[] = { "storages", "tensors", "pickle" };
    for (uint64_t at = 0; t->size - at >= 512 && t->data[at]; ) {
        uint64_t size;
        char name[101] = "";
        memcpy(name, t->data + at, 100);
        if (!octal(t->data + at + 124, 12, &size) || size > t->size - at - 512)
            return kw__torch_cut(t);
        at += 512;
        for (int i = 0; i < 3; i++)
            if (!strcmp(name + 2 * kw_starts_with(name, "./"), names[i]))
                m[i] = (member){ at, at + size };
        at += KW_MIN((size + 511) & ~511ull, t->size - at);
    }
    return m[0].at && m[1].at && m[2].at ? KW_OK
        : kw__torch_bad(t, N_("is a tar archive, but not a PyTorch checkpoint"));
}

static kw_status odd(kw__torch *t) { return kw__torch_bad(t, N_("its list of tensors is not understood")); }

static kw_status read_count(kw__torch *t, member *m, int64_t *n)
{
    kw__value *v = NULL;
    KW_TRY(kw__torch_pickle(t, &m->at, m->end, &v));
    *n = v->of.i;
    return v->kind == KW__INT && *n >= 0 && *n <= KW_MAX_TENSORS ? KW_OK : odd(t);
}

static kw_status read_i64(kw__torch *t, member *m, int64_t *v)
{
    if (m->end - m->at < 8)
        return kw__torch_cut(t);
    memcpy(v, t->data + m->at, 8);
    m->at += 8;
    return *v >= 0 ? KW_OK : odd(t);
}

/* Keys are numbers here; as texts they are found like all others. */
static kw_status key_text(kw__torch *t, const kw__value *v, char **key)
{
    *key = v->kind == KW__INT ? kw_sprintf(t->arena, "%lld", (long long)v->of.i)
         : v->kind == KW__TEXT ? kw_strndup(t->arena, v->of.text, v->n) : NULL;
    return *key ? KW_OK : v->kind == KW__INT || v->kind == KW__TEXT ? kw__no_memory(t->e, t->shown) : odd(t);
}

static kw_status read_storage(kw__torch *t, member *m)
{
    kw__value *v = NULL;
    char *key = NULL;
    int64_t count = 0;
    uint64_t bytes = 0;
    KW_TRY(kw__torch_pickle(t, &m->at, m->end, &v));
    if (v->kind != KW__TUPLE || v->n != 3 || v->items[2]->kind != KW__GLOBAL
        || v->items[2]->of.global->role != KW__STORAGE)
        return odd(t);
    KW_TRY(key_text(t, v->items[0], &key));
    KW_TRY(read_i64(t, m, &count));
    if (!kw_mul_size((uint64_t)count, kw_dtype_size(v->items[2]->of.global->dtype), &bytes) || bytes > m->end - m->at)
        return kw__torch_cut(t);
    KW_TRY(kw__storage_add(t, key, strlen(key), t->data + m->at, bytes));
    t->storages[t->n_storages - 1].dtype = v->items[2]->of.global->dtype;
    t->storages[t->n_storages - 1].typed = true;
    m->at += bytes;
    return KW_OK;
}

static kw_status read_tensor(kw__torch *t, member *m)
{
    kw__value *v = NULL;
    char *key = NULL;
    int32_t rank = 0;
    kw__old_tensor *one = NULL;
    KW_TRY(kw__torch_pickle(t, &m->at, m->end, &v));
    if (v->kind != KW__TUPLE || v->n != 3 || v->items[0]->kind != KW__INT)
        return odd(t);
    KW_TRY(key_text(t, v->items[1], &key));
    KW_TRY(kw_grow(t->arena, &t->old, &t->old_capacity, t->n_old, sizeof *t->old, t->e));
    one = &t->old[t->n_old++];
    *one = (kw__old_tensor){ .id = v->items[0]->of.i, .storage = kw__storage_find(t, key, strlen(key)) };
    if (!one->storage)
        return odd(t);
    if (m->end - m->at < 8)
        return kw__torch_cut(t);
    memcpy(&rank, t->data + m->at, 4);
    m->at += 8;
    if (rank < 0 || rank > KW_MAX_RANK)
        return odd(t);
    one->rank = rank;
    for (int i = 0; i < rank; i++)
        KW_TRY(read_i64(t, m, &one->shape[i]));
    for (int i = 0; i < rank; i++)
        KW_TRY(read_i64(t, m, &one->stride[i]));
    return read_i64(t, m, &one->offset);
}

static int by_id(const void *x, const void *y)
{
    int64_t a = ((const kw__old_tensor *)x)->id, b = ((const kw__old_tensor *)y)->id;
    return (a > b) - (a < b);
}

kw_status kw__torch_tar(kw__torch *t)
{
    member m[3] = { 0 };
    int64_t n = 0;
    KW_TRY(find_members(t, m));
    KW_TRY(read_count(t, &m[0], &n));
    while (n--)
        KW_TRY(read_storage(t, &m[0]));
    kw__storages_sort(t);
    kw__value *views = NULL;
    KW_TRY(kw__torch_pickle(t, &m[0].at, m[0].end, &views));
    if (views->kind != KW__LIST || views->n)
        return kw__torch_bad(t, N_("has numbers that are parts of others, which is not supported"));
    KW_TRY(read_count(t, &m[1], &n));
    while (n--)
        KW_TRY(read_tensor(t, &m[1]));
    if (t->n_old)
        qsort(t->old, t->n_old, sizeof *t->old, by_id);
    return kw__torch_pickle(t, &m[2].at, m[2].end, &t->root);
}
