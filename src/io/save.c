/* save.c - writing tensor files: the same bytes as the reference writer's, for the same tensors and metadata. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The reference writer's order: the widest types first, so that all numbers are aligned; then by name. */
static const kw_dtype order[] = {
    KW_U64, KW_I64, KW_F64, KW_F32, KW_U32, KW_I32, KW_BF16, KW_F16, KW_U16, KW_I16, KW_F8_E4M3, KW_F8_E5M2,
    KW_I8, KW_U8, KW_BOOL,
};
_Static_assert(KW_LEN(order) == KW_N_DTYPES, "every dtype has its place");

typedef struct { const kw_tensor *t; int rank; size_t i; uint64_t bytes; } item;

typedef struct {
    const char *path;
    item *items;                          /* in file order */
    size_t n;
    kw_str header;                        /* with the 8 bytes of its length */
    uint64_t total;
} layout;

static int by_order(const void *x, const void *y)
{
    const item *a = x, *b = y;
    return a->rank != b->rank ? a->rank - b->rank : strcmp(a->t->name, b->t->name);
}

static kw_status sort(kw_arena *a, layout *l, const kw_tensor *t, size_t n, kw_err *e)
{
    char shown[96];
    if (n > KW_MAX_TENSORS)
        return kw_fail(e, KW_EUSAGE, N_("%s: more than %d tensors"), l->path, KW_MAX_TENSORS);
    if (!(l->items = kw_alloc_array(a, n + 1, sizeof *l->items)))
        return kw__no_memory(e, l->path);
    for (size_t i = 0; i < n; i++) {
        int rank = 0;
        uint64_t bytes = kw_dtype_size(t[i].dtype);
        while (order[rank] != t[i].dtype)
            rank++;
        for (int d = 0; d < t[i].rank; d++)
            if (t[i].shape[d] < 0 || !kw_mul_size(bytes, (uint64_t)t[i].shape[d], &bytes))
                return kw_fail(e, KW_EUSAGE, N_("%s: tensor \"%s\" has an impossible shape"), l->path,
                               kw__shown(t[i].name, shown));
        l->items[l->n++] = (item){ &t[i], rank, i, bytes };
        l->total += bytes;
    }
    qsort(l->items, l->n, sizeof *l->items, by_order);
    return KW_OK;
}

static void add_json(kw_str *b, const char *s)
{
    static const char plain[] = "\"\\\b\f\n\r\t", escaped[] = "\"\\bfnrt";
    kw_str_add(b, "\"");
    for (; *s; s++) {
        const char *at = strchr(plain, *s);
        if (at)
            kw_str_printf(b, "\\%c", escaped[at - plain]);
        else if ((unsigned char)*s < 0x20)
            kw_str_printf(b, "\\u%04x", (unsigned char)*s);
        else
            kw_str_add_n(b, s, 1);
    }
    kw_str_add(b, "\"");
}

static void add_tensor(kw_str *b, const item *one, uint64_t at)
{
    const kw_tensor *t = one->t;
    add_json(b, t->name);
    kw_str_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", kw_dtype_name(t->dtype));
    for (int i = 0; i < t->rank; i++)
        kw_str_printf(b, i ? ",%lld" : "%lld", (long long)t->shape[i]);
    kw_str_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at, (unsigned long long)(at + one->bytes));
}

static kw_status write_header(layout *l, const kw_meta *meta, size_t n_meta, kw_err *e)
{
    kw_str *b = &l->header;
    uint64_t at = 0;
    kw_str_add_n(b, "\0\0\0\0\0\0\0\0{", 9);
    for (size_t i = 0; i < n_meta; i++) {
        kw_str_add(b, i ? "," : "\"__metadata__\":{");
        add_json(b, meta[i].key);
        kw_str_add(b, ":");
        add_json(b, meta[i].value);
        if (i + 1 == n_meta)
            kw_str_add(b, l->n ? "}," : "}");
    }
    for (size_t i = 0; i < l->n; at += l->items[i++].bytes) {
        kw_str_add(b, i ? "," : "");
        add_tensor(b, &l->items[i], at);
    }
    kw_str_add(b, "}");
    while (b->n % 8 && !b->failed)
        kw_str_add(b, " ");
    for (int i = 0; !b->failed && i < 8; i++)
        b->s[i] = (char)((uint64_t)(b->n - 8) >> 8 * i);
    return b->failed ? kw__no_memory(e, l->path) : KW_OK;
}

/* What is written must be readable: the header goes through the reader before a byte reaches the disk. */
static kw_status prove(layout *l, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    kw__header h = { 0 };
    kw_tensors t = { .path = l->path };
    if (!a)
        return kw__no_memory(e, l->path);
    kw_status s = kw__header_parse(a, l->path, l->header.s + 8, l->header.n - 8, &h, e);
    t.tensors = h.tensors;
    t.n = h.n;
    t.meta = h.meta;
    t.n_meta = h.n_meta;
    if (!s)
        s = kw__tensors_index(a, &t, e);
    kw_arena_free(a);
    return s;
}

static kw_status lay_out(kw_arena *a, layout *l, const kw_tensor *t, size_t n, const kw_meta *meta, size_t n_meta,
                         kw_err *e)
{
    KW_TRY(sort(a, l, t, n, e));
    KW_TRY(write_header(l, meta, n_meta, e));
    return prove(l, e);
}

/* ---- where the bytes go: a file, or a hash -------------------------------------------------------------------- */

typedef kw_status put(void *to, const void *p, size_t n, kw_err *e);

static kw_status own_data(void *user, size_t i, const void **data, kw_err *e)
{
    (void)e;
    *data = ((const kw_tensor *)user)[i].data;
    return KW_OK;
}

static kw_status emit(layout *l, kw_tensor_get *get, void *user, put *give, void *to, kw_err *e)
{
    KW_TRY(give(to, l->header.s, l->header.n, e));
    for (size_t i = 0; i < l->n; i++) {
        const void *data = NULL;
        KW_TRY(get(user, l->items[i].i, &data, e));
        if (l->items[i].bytes)
            KW_TRY(give(to, data, (size_t)l->items[i].bytes, e));
    }
    return KW_OK;
}

static kw_status to_file(void *w, const void *p, size_t n, kw_err *e) { return kw_writer_put(w, p, n, e); }

static kw_status save(kw_arena *a, layout *l, kw_tensor_get *get, void *user, kw_err *e)
{
    kw_writer *w;
    KW_TRY(kw_writer_open(a, l->path, l->header.n + l->total, &w, e));
    KW_TRY(emit(l, get, user, to_file, w, e));
    return kw_writer_commit(w, NULL, e);
}

kw_status kw_tensors_save_each(const char *path, const kw_tensor *t, size_t n, const kw_meta *meta, size_t n_meta,
                               kw_tensor_get *get, void *user, kw_err *e)
{
    layout l = { .path = path };
    kw_arena *a = kw_arena_new();
    if (!a)
        return kw__no_memory(e, path);
    kw_status s = lay_out(a, &l, t, n, meta, n_meta, e);
    if (!s)
        s = save(a, &l, get, user, e);
    kw_arena_free(a);
    kw_str_free(&l.header);
    return s;
}

static void *unconst(const void *p) { union { const void *in; void *out; } u = { p }; return u.out; }

kw_status kw_tensors_save(const char *path, const kw_tensor *t, size_t n, const kw_meta *meta, size_t n_meta, kw_err *e)
{
    return kw_tensors_save_each(path, t, n, meta, n_meta, own_data, unconst(t), e);
}

/* ---- kohya's two hashes ------------------------------------------------------------------------------------------ */

typedef struct { kw_sha256 model, legacy; uint64_t at, header; } hashes;

static void add_range(kw_sha256 *s, const char *p, uint64_t at, size_t n, uint64_t from, uint64_t to)
{
    uint64_t low = KW_MAX(at, from), high = KW_MIN(at + n, to);
    if (low < high)
        kw_sha256_add(s, p + (low - at), (size_t)(high - low));
}

static kw_status to_hashes(void *to, const void *p, size_t n, kw_err *e)
{
    (void)e;
    hashes *h = to;
    add_range(&h->model, p, h->at, n, h->header, UINT64_MAX);
    add_range(&h->legacy, p, h->at, n, 0x100000, 0x110000);
    h->at += n;
    return KW_OK;
}

kw_status kw_tensors_hash_list(const kw_tensor *t, size_t n, const kw_meta *meta, size_t n_meta, char model[65],
                               char legacy[9], kw_err *e)
{
    layout l = { .path = "hash" };
    char hex[65];
    kw_arena *a = kw_arena_new();
    if (!a)
        return kw__no_memory(e, l.path);
    kw_status s = lay_out(a, &l, t, n, meta, n_meta, e);
    if (!s) {
        hashes h = { .header = l.header.n };
        kw_sha256_start(&h.model);
        kw_sha256_start(&h.legacy);
        s = emit(&l, own_data, unconst(t), to_hashes, &h, e);
        bool whole = kw_sha256_end(&h.model, model);
        if (!(kw_sha256_end(&h.legacy, hex) && whole) && !s)
            s = kw__no_memory(e, l.path);
        snprintf(legacy, 9, "%.8s", hex);
    }
    kw_arena_free(a);
    kw_str_free(&l.header);
    return s;
}
