/* store.c - what lives between runs, and the packed copies of weights. */
#include "store.h"
#include "kern/kern.h"

#include <string.h>
#include <sys/mman.h>

/* counted: among packed_bytes; its memory is taken when it is first needed */
typedef struct { int state; char layout[64]; uint64_t version; size_t bytes; void *data; bool counted; } packed;

struct kw_store {
    kw_arena *arena;
    kw_stored *state; size_t n, capacity;
    bool *owns; size_t owns_capacity;     /* by state: its memory is the store's */
    packed *copy; size_t n_copies, copy_capacity;
    size_t own_bytes, packed_bytes, packed_limit;
    size_t beside;                        /* of the process before its first program under a limit; 0: not measured */
    bool limited, tight;
};

static void release(void *store)
{
    kw_store *s = store;
    for (size_t i = 0; i < s->n; i++)
        if (s->owns[i])
            kw_block_free(s->state[i].data);
    for (size_t i = 0; i < s->n_copies; i++)
        kw_block_free(s->copy[i].data);
}

kw_store *kw_store_new(kw_arena *a)
{
    kw_store *s = kw_alloc(a, sizeof *s);
    if (s)
        *s = (kw_store){ .arena = a, .packed_limit = SIZE_MAX };
    return s && !kw_defer(a, release, s) ? s : NULL;
}

static size_t bytes_of(kw_shape shape, kw_dtype t)
{
    int64_t n = kw_count(shape), rows = shape.rank > 1 ? shape.d[0] : 1;
    return t == KW_I8 ? kw_int8_size(rows, n / KW_MAX(rows, 1)) : (size_t)n * kw_dtype_size(t);
}

kw_status kw_store_add(kw_store *s, const char *name, kw_shape shape, kw_dtype t, void *data, int *id, kw_err *e)
{
    KW_TRY(kw_grow(s->arena, &s->state, &s->capacity, s->n, sizeof *s->state, e));
    KW_TRY(kw_grow(s->arena, &s->owns, &s->owns_capacity, s->n, sizeof *s->owns, e));
    size_t bytes = bytes_of(shape, t);
    bool own = !data;
    char *copy = kw_strdup(s->arena, name);
    if (!copy)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (own && !(data = kw_block_new(bytes)))
        return kw_fail(e, KW_ENOMEM, "out of memory: %zu bytes of weights", bytes);
    s->own_bytes += own ? bytes : 0;
    s->owns[s->n] = own;
    s->state[s->n] = (kw_stored){ .name = copy, .shape = shape, .dtype = t, .data = data };
    *id = (int)s->n++;
    return KW_OK;
}

void kw_store_set_mapped(kw_store *s, int id)
{
    KW_ASSERT(id >= 0 && (size_t)id < s->n);
    s->state[id].mapped = true;
}

void kw_store_set_passing(kw_store *s, int id)
{
    KW_ASSERT(id >= 0 && (size_t)id < s->n);
    s->state[id].passing = true;
}

void kw_pages_drop(const void *data, size_t bytes)
{
    const uintptr_t page = 4096, from = ((uintptr_t)data + page - 1) & ~(page - 1),
                    to = ((uintptr_t)data + bytes) & ~(page - 1);
    if (to > from)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

const kw_stored *kw_store_at(const kw_store *s, int id)
{
    KW_ASSERT(id >= 0 && (size_t)id < s->n);
    return &s->state[id];
}

int kw_store_count(const kw_store *s) { return (int)s->n; }

void *kw_store_write(kw_store *s, int id)
{
    KW_ASSERT(id >= 0 && (size_t)id < s->n);
    s->state[id].version++;
    return s->state[id].data;
}

void kw_store_rebind(kw_store *s, int id, kw_dtype t, void *data)
{
    KW_ASSERT(id >= 0 && (size_t)id < s->n);
    if (s->owns[id]) {
        s->own_bytes -= bytes_of(s->state[id].shape, s->state[id].dtype);
        kw_block_free(s->state[id].data);
        s->owns[id] = false;
    }
    s->state[id].version++;
    s->state[id].dtype = t;
    s->state[id].data = data;
    s->state[id].mapped = false;
}

kw_status kw_store_own(kw_store *s, int id, kw_dtype t, kw_err *e)
{
    size_t bytes = bytes_of(kw_store_at(s, id)->shape, t);
    void *data = kw_block_new(bytes);
    if (!data)
        return kw_fail(e, KW_ENOMEM, "out of memory: %zu bytes of weights", bytes);
    kw_store_rebind(s, id, t, data);
    s->owns[id] = true;
    s->own_bytes += bytes;
    return KW_OK;
}

size_t kw_store_bytes(const kw_store *s) { return s->own_bytes + s->packed_bytes; }
size_t kw_store_packed_bytes(const kw_store *s) { return s->packed_bytes; }
/* Slices of a flat range are not the store's own: no byte is counted twice. */
size_t kw_store_resident(const kw_store *s)
{
    size_t sum = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->owns[i] || s->state[i].mapped)
            sum += kw__resident_of(s->state[i].data, bytes_of(s->state[i].shape, s->state[i].dtype));
    for (size_t i = 0; i < s->n_copies; i++)
        sum += s->copy[i].data ? kw__resident_of(s->copy[i].data, s->copy[i].bytes) : 0;
    return sum;
}

/* Once: later there are workspaces, which others count. */
size_t kw__store_beside(kw_store *s)
{
    if (!s->beside)
        s->beside = kw_forecast_beside(s);
    return s->beside;
}

void kw_store_limit_packed(kw_store *s, size_t bytes) { s->packed_limit = bytes; }

void kw__store_allow_packed(kw_store *s, size_t more)
{
    s->limited = true;
    s->packed_limit = s->packed_bytes + more;
}

static bool has_copy(const kw_store *s, size_t state)
{
    for (size_t i = 0; i < s->n_copies; i++)
        if ((size_t)s->copy[i].state == state)
            return true;
    return false;
}

size_t kw_store_mapped_bytes(const kw_store *s)
{
    size_t sum = 0;
    for (size_t i = 0; i < s->n; i++)
        if (s->state[i].mapped && !has_copy(s, i) && !(s->tight && s->state[i].packed))
            sum += bytes_of(s->state[i].shape, s->state[i].dtype);
    return sum;
}

static packed *find(kw_store *s, int state, const char *layout)
{
    for (size_t i = 0; i < s->n_copies; i++)
        if (s->copy[i].state == state && !strcmp(s->copy[i].layout, layout))
            return &s->copy[i];
    return NULL;
}

static void count(kw_store *s, packed *p, bool counted)
{
    if (p->counted != counted)
        s->packed_bytes += counted ? p->bytes : -p->bytes;
    p->counted = counted;
}

kw_status kw__store_packed(kw_store *s, int state, const kw_need *need, int *copy, kw_err *e)
{
    *copy = KW_NONE;
    packed *p = find(s, state, need->layout);
    s->state[state].packed = true;
    if (!p && s->state[state].passing)
        return KW_OK;
    bool room = need->packed_bytes <= s->packed_limit && s->packed_bytes <= s->packed_limit - need->packed_bytes;
    if ((!p || !p->counted) && !room) {
        s->tight = s->limited;
        return KW_OK;
    }
    if (!p) {
        KW_TRY(kw_grow(s->arena, &s->copy, &s->copy_capacity, s->n_copies, sizeof *s->copy, e));
        p = &s->copy[s->n_copies++];
        *p = (packed){ .state = state, .version = UINT64_MAX, .bytes = need->packed_bytes };
        strncpy(p->layout, need->layout, sizeof p->layout - 1);
    }
    count(s, p, true);
    *copy = (int)(p - s->copy);
    return KW_OK;
}

void *kw__store_copy(kw_store *s, int copy, bool *fresh)
{
    packed *p = &s->copy[copy];
    if (!p->data && !(p->data = kw_block_new(p->bytes)))
        return NULL;
    count(s, p, true);
    *fresh = p->version == s->state[p->state].version;
    p->version = s->state[p->state].version;
    return p->data;
}

size_t kw__store_copy_bytes(const kw_store *s, int copy) { return s->copy[copy].bytes; }

void kw_store_let_go(kw_store *s, int state)
{
    const kw_stored *v = kw_store_at(s, state);
    for (size_t i = 0; i < s->n_copies; i++) {
        packed *p = &s->copy[i];
        if (p->state != state)
            continue;
        kw_block_free(p->data);
        p->data = NULL;
        p->version = UINT64_MAX;
        count(s, p, false);
    }
    if (v->mapped)
        kw_pages_drop(v->data, bytes_of(v->shape, v->dtype));
}
