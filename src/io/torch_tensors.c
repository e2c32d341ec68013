/*
 * torch_tensors.c - a tensor from its description in a checkpoint's pickle.
 *
 *   _rebuild_tensor_v2(storage, offset, shape, strides, ...): element i is number  offset + Σ i_k stride_k
 *
 * Numbers that lie in one piece and at their size stay where they are in the file; others are copied, in all at most
 * as many bytes as the file has. Nothing reaches outside of its storage.
 */
#include "torch.h"

#include <stdlib.h>
#include <string.h>

typedef struct kw__view {
    const kw__storage *storage;
    kw_dtype dtype;
    int rank;
    int64_t shape[KW_MAX_RANK], stride[KW_MAX_RANK], offset;       /* in numbers */
    uint64_t base, limit;                                          /* the part of the storage it may use, in bytes */
} view;

typedef kw__torch_maker maker;

static kw_status odd(maker *m, const char *name, const char *why)
{
    char shown[96];
    return kw_fail(m->t->e, KW_EDATA, N_("%s: tensor \"%s\": %s"), m->t->shown, kw__shown(name, shown),
                   kw_translate(why));
}

/* ---- a tensor as the pickle describes it ------------------------------------------------------------------------- */

static bool is_call(const kw__value *v, kw__role role)
{
    return v->kind == KW__CALL && v->of.global->role == role;
}

bool kw__torch_is_tensor(const kw__value *v)
{
    return is_call(v, KW__TENSOR) || is_call(v, KW__TENSOR_3) || is_call(v, KW__PARAMETER)
        || (v->kind == KW__STORED && v->n == 1);
}

static bool whole(const kw__value *v, int64_t *out)
{
    *out = v->of.i;
    return v->kind == KW__INT && v->of.i >= 0;
}

static bool dimensions(const kw__value *v, int *rank, int64_t out[KW_MAX_RANK])
{
    if ((v->kind != KW__TUPLE && v->kind != KW__LIST) || v->n > KW_MAX_RANK)
        return false;
    *rank = (int)v->n;
    for (size_t i = 0; i < v->n; i++)
        if (!whole(v->items[i], &out[i]))
            return false;
    return true;
}

/* ("storage", type, key, place, count) and in the legacy form a view (key, offset, count) of it, or None. */
static kw_status find_storage(maker *m, const char *name, const kw__value *id, view *v)
{
    int64_t count = 0, from = 0, part = 0;
    uint64_t bytes = 0;
    if (id->kind != KW__STORED || id->n < 5 || !kw__is_text(id->items[0], "storage")
        || id->items[1]->kind != KW__GLOBAL || id->items[2]->kind != KW__TEXT || !whole(id->items[4], &count))
        return odd(m, name, N_("what it is made of is not understood"));
    const kw__global *type = id->items[1]->of.global;
    if (type->role != KW__STORAGE && type->role != KW__UNTYPED)
        return odd(m, name, N_("its kind of numbers is not supported"));
    kw__storage *s = kw__storage_find(m->t, id->items[2]->of.text, id->items[2]->n);
    if (!s)
        return odd(m, name, N_("its numbers are missing in the file"));
    if (s->typed && s->dtype != type->dtype)
        return odd(m, name, N_("its numbers are said to be of two kinds"));
    s->typed = true;
    s->dtype = v->dtype = type->dtype;
    v->storage = s;
    v->limit = s->bytes;
    if (!kw_mul_size((uint64_t)count, kw_dtype_size(type->dtype), &bytes) || bytes != s->bytes)
        return odd(m, name, N_("the file has not as many numbers for it as it says"));
    const kw__value *window = id->n > 5 ? id->items[5] : NULL;
    if (!window || window->kind == KW__NONE)
        return KW_OK;
    if (window->kind != KW__TUPLE || window->n != 3 || !whole(window->items[1], &from)
        || !whole(window->items[2], &part) || from > count || part > count - from)
        return odd(m, name, N_("it reaches beyond its numbers"));
    v->base = (uint64_t)from * kw_dtype_size(type->dtype);
    v->limit = v->base + (uint64_t)part * kw_dtype_size(type->dtype);
    return KW_OK;
}

static int by_id(const void *x, const void *y)
{
    int64_t a = ((const kw__old_tensor *)x)->id, b = ((const kw__old_tensor *)y)->id;
    return (a > b) - (a < b);
}

/* The oldest form: tensors have numbers, and were described in a list of their own. */
static kw_status old_tensor(maker *m, const char *name, const kw__value *id, view *v)
{
    int64_t number = id->items[0]->of.i;
    char text[24] = "";
    if (id->items[0]->kind == KW__TEXT && id->items[0]->n < sizeof text) {
        memcpy(text, id->items[0]->of.text, id->items[0]->n);
        number = strtoll(text, NULL, 10);
    }
    const kw__old_tensor key = { .id = number };
    const kw__old_tensor *old = m->t->n_old ? bsearch(&key, m->t->old, m->t->n_old, sizeof key, by_id) : NULL;
    if (!old)
        return odd(m, name, N_("its numbers are missing in the file"));
    *v = (view){ .storage = old->storage, .dtype = old->storage->dtype, .rank = old->rank, .offset = old->offset,
                 .limit = old->storage->bytes };
    memcpy(v->shape, old->shape, sizeof v->shape);
    memcpy(v->stride, old->stride, sizeof v->stride);
    return KW_OK;
}

/* (storage, offset, shape, strides, ...), version 3 with the kind of numbers as the seventh. */
static kw_status describe(maker *m, const char *name, const kw__value *v, view *out)
{
    int strides;
    if (is_call(v, KW__PARAMETER))
        v = v->n && v->items[0]->kind == KW__CALL ? v->items[0] : v;
    if (v->kind == KW__STORED && v->n == 1)
        return old_tensor(m, name, v, out);
    if ((!is_call(v, KW__TENSOR) && !is_call(v, KW__TENSOR_3)) || v->n < 4)
        return odd(m, name, N_("what it is made of is not understood"));
    KW_TRY(find_storage(m, name, v->items[0], out));
    if (!whole(v->items[1], &out->offset) || !dimensions(v->items[2], &out->rank, out->shape)
        || !dimensions(v->items[3], &strides, out->stride) || strides != out->rank)
        return odd(m, name, N_("its shape is not understood"));
    if (!is_call(v, KW__TENSOR_3))
        return KW_OK;
    if (v->n < 7 || v->items[6]->kind != KW__GLOBAL || v->items[6]->of.global->role != KW__NUMBERS)
        return odd(m, name, N_("its kind of numbers is not supported"));
    out->dtype = v->items[6]->of.global->dtype;
    return KW_OK;
}

/* ---- does it lie within its storage, and in one piece? ----------------------------------------------------------- */

static bool is_contiguous(const view *v)
{
    int64_t step = 1;
    for (int i = v->rank - 1; i >= 0; i--) {
        if (v->shape[i] != 1 && v->stride[i] != step)
            return false;
        step *= v->shape[i];
    }
    return true;
}

/* The last number's place and the count, each without overflow; true: they fit. *count is 0 for an empty tensor. */
static bool extent(const view *v, uint64_t *last, uint64_t *count)
{
    uint64_t step = 0;
    bool empty = false;
    *count = 1;
    *last = (uint64_t)v->offset;
    for (int i = 0; i < v->rank; i++) {
        empty |= !v->shape[i];
        if (!kw_mul_size(*count, (uint64_t)KW_MAX(v->shape[i], 1), count) || *count > INT64_MAX / 8
            || !kw_mul_size((uint64_t)KW_MAX(v->shape[i] - 1, 0), (uint64_t)v->stride[i], &step)
            || !kw_add_size(*last, step, last))
            return false;
    }
    *count = empty ? 0 : *count;
    return true;
}

static const uint64_t nothing;            /* where an empty tensor's numbers are */

static kw_status check(maker *m, const char *name, view *v, kw_tensor *t)
{
    uint64_t last, count, size = kw_dtype_size(v->dtype), room = (v->limit - v->base) / size;
    if (!extent(v, &last, &count))
        return odd(m, name, N_("its shape is impossibly large"));
    if (count && last >= room)
        return odd(m, name, N_("it reaches beyond its numbers"));
    if (count > room)
        return odd(m, name, N_("its numbers overlap each other"));
    *t = (kw_tensor){ .name = name, .dtype = v->dtype, .rank = v->rank, .bytes = count * size };
    memcpy(t->shape, v->shape, sizeof t->shape);
    t->data = v->storage->data + v->base + (count ? (uint64_t)v->offset * size : 0);
    m->bytes += t->bytes;
    if (m->bytes / 16 > m->t->size)
        return odd(m, name, N_("the tensors have many times the file's size"));
    if (count && (!is_contiguous(v) || (!m->t->loose && (uintptr_t)t->data % size))) {
        t->data = NULL;                   /* to be copied */
        m->copied += (t->bytes + 63) & ~63ull;
    } else if (!count)
        t->data = &nothing;
    return KW_OK;
}

kw_status kw__torch_add(maker *m, const char *name, const kw__value *v)
{
    view one = { 0 };
    if (m->out->n >= KW_MAX_TENSORS)
        return kw__torch_bad(m->t, N_("has more than 65536 tensors"));
    if (strlen(name) > KW_MAX_TENSOR_NAME)
        return odd(m, name, N_("its name is too long"));
    KW_TRY(kw_grow(m->t->arena, &m->out->tensors, &m->capacity, m->out->n, sizeof *m->out->tensors, m->t->e));
    KW_TRY(kw_grow(m->t->arena, &m->views, &m->view_capacity, m->out->n, sizeof *m->views, m->t->e));
    KW_TRY(describe(m, name, v, &one));
    KW_TRY(check(m, name, &one, &m->out->tensors[m->out->n]));
    m->views[m->out->n++] = one;
    return KW_OK;
}

/* ---- the copies -------------------------------------------------------------------------------------------------- */

static void copy(const view *v, char *to)
{
    size_t size = kw_dtype_size(v->dtype);
    const char *from = v->storage->data + v->base + (uint64_t)v->offset * size;
    int64_t at[KW_MAX_RANK] = { 0 }, place = 0;
    for (;;) {
        int64_t inner = v->rank ? v->shape[v->rank - 1] : 1, step = v->rank ? v->stride[v->rank - 1] : 1;
        for (int64_t i = 0; i < inner; i++, to += size)
            memcpy(to, from + (uint64_t)(place + i * step) * size, size);
        int d = v->rank - 2;
        for (; d >= 0; d--) {
            place += v->stride[d];
            if (++at[d] < v->shape[d])
                break;
            place -= v->shape[d] * v->stride[d];
            at[d] = 0;
        }
        if (d < 0)
            return;
    }
}

kw_status kw__torch_finish(maker *m)
{
    for (size_t i = 0; i < m->out->n; i++)
        m->out->tensors[i].mapped = m->t->mapped;
    if (!m->copied)
        return KW_OK;
    if (m->copied > m->t->size + 64 * m->out->n)
        return kw__torch_bad(m->t, N_("its tensors are not laid out as a checkpoint's are"));
    char *at = kw_block_new((size_t)m->copied);
    if (!at || kw_defer(m->t->arena, kw_block_free, at))
        return kw__no_memory(m->t->e, m->t->shown);
    for (size_t i = 0; i < m->out->n; i++) {
        kw_tensor *t = &m->out->tensors[i];
        if (t->data)
            continue;
        copy(&m->views[i], at);
        t->data = at;
        t->mapped = false;
        at += (t->bytes + 63) & ~63ull;
    }
    return KW_OK;
}
