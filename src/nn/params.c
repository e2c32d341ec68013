/* params.c - the parameters of a part: found by name when a layer asks for them, checked, and placed in the store. */
#include "nn.h"
#include "kern/kern.h"

#include <string.h>

struct kw_params {
    kw_arena *arena;
    kw_store *store;
    kw_params_source src;
    kw_param_info **info;
    size_t n, capacity;
    size_t *slot, n_slots;                /* hash of names: index + 1 */
    bool (*int8)(const char *name);       /* NULL: no matrix is kept in one byte a number */
    double seconds;                       /* of placing values */
};

kw_params *kw_params_new(kw_arena *a, kw_store *s, const kw_params_source *src)
{
    kw_params *p = kw_alloc(a, sizeof *p);
    if (p)
        *p = (kw_params){ .arena = a, .store = s, .src = *src };
    return p;
}

void kw_params_int8(kw_params *p, bool (*fits)(const char *name)) { p->int8 = fits; }

size_t kw_params_count(const kw_params *p) { return p->n; }
const kw_param_info *kw_params_at(const kw_params *p, size_t i) { return i < p->n ? p->info[i] : NULL; }
kw_store *kw_params_store(const kw_params *p) { return p->store; }
double kw_params_seconds(const kw_params *p) { return p->seconds; }

static size_t hash(const char *s)
{
    size_t h = 1469598103934665603u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

const kw_param_info *kw_params_find(const kw_params *p, const char *name)
{
    for (size_t i = hash(name); p->n_slots; i++) {
        size_t at = p->slot[i & (p->n_slots - 1)];
        if (!at)
            return NULL;
        if (!strcmp(p->info[at - 1]->name, name))
            return p->info[at - 1];
    }
    return NULL;
}

static void put(kw_params *p, size_t index)
{
    size_t i = hash(p->info[index]->name);
    while (p->slot[i & (p->n_slots - 1)])
        i++;
    p->slot[i & (p->n_slots - 1)] = index + 1;
}

static kw_status remember(kw_params *p, kw_param_info *info, kw_err *e)
{
    KW_TRY(kw_grow(p->arena, &p->info, &p->capacity, p->n, sizeof *p->info, e));
    p->info[p->n++] = info;
    if (2 * p->n <= p->n_slots) {
        put(p, p->n - 1);
        return KW_OK;
    }
    p->n_slots = p->n_slots ? 2 * p->n_slots : 64;
    p->slot = kw_alloc_array(p->arena, p->n_slots, sizeof *p->slot);
    if (!p->slot)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < p->n; i++)
        put(p, i);
    return KW_OK;
}

static bool is_f8(kw_dtype t) { return t == KW_F8_E4M3 || t == KW_F8_E5M2; }

static bool is_float(kw_dtype t)
{
    return t == KW_F32 || t == KW_F16 || t == KW_BF16 || t == KW_F64 || is_f8(t);
}

/* A 1x1 convolution and a linear layer hold the same numbers: (o, i, 1, 1) reads as (o, i) and the other way round. */
static bool same_numbers(const kw_tensor *t, kw_shape s)
{
    int64_t a[KW_MAX_RANK], b[KW_RANK];
    int n = 0, m = 0;
    for (int i = 0; i < t->rank; i++)
        if (i < 2 || t->shape[i] != 1)
            a[n++] = t->shape[i];
    for (int i = 0; i < s.rank; i++)
        if (i < 2 || s.d[i] != 1)
            b[m++] = s.d[i];
    return n == m && !memcmp(a, b, sizeof a[0] * (size_t)n);
}

static kw_status check(const kw_params *p, const char *name, kw_shape shape, kw_tensor *t, kw_err *e)
{
    char want[64], got[160];
    KW_TRY(p->src.find(p->src.find_ctx, name, shape, t, e));
    if (!is_float(t->dtype))
        return kw_fail(e, KW_EDATA, "%s: weights of type %s cannot be used", name, kw_dtype_name(t->dtype));
    if (same_numbers(t, shape))
        return KW_OK;
    kw_status s = kw_fail(e, KW_EDATA, "%s has shape %s; the model's configuration asks for %s", name,
                          kw_shape_text(t, got), kw_dims_text(shape, want));
    return kw_advise(e, s, "the weights and the configuration belong to different models");
}

/* Of what gets own memory: all are exact, but matrices that are trained in few digits. */
static kw_dtype own_type(const kw_params *p, const kw_param_info *info)
{
    return p->src.exact == KW_BF16 && (info->group < 0 || info->shape.rank < 2) ? KW_F32 : p->src.exact;
}

static bool is_common(kw_dtype t) { return t == KW_F32 || t == KW_BF16 || t == KW_F16; }

/* One look into a table for each number. */
static void from_f8(uint16_t *dst, kw_dtype from, const uint8_t *src, int64_t n)
{
    uint8_t codes[256];
    uint16_t table[256];
    for (int i = 0; i < 256; i++)
        codes[i] = (uint8_t)i;
    kw_convert(KW_BF16, table, from, codes, 256);
    for (int64_t i = 0; i < n; i++)
        dst[i] = table[src[i]];
}

static void convert(kw_dtype to, void *dst, kw_dtype from, const void *src, int64_t n)
{
    if (is_common(to) && is_common(from))
        kw_kern_get()->convert(to, dst, from, src, n);
    else if (is_f8(from) && to == KW_BF16)
        from_f8(dst, from, src, n);
    else
        kw_convert(to, dst, from, src, (size_t)n);
}

/* To one byte a number; other types than the usual ones by way of f32. */
static kw_status place_codes(kw_params *p, kw_param_info *info, const kw_tensor *t, kw_err *e)
{
    int64_t n = kw_count(info->shape), rows = info->shape.d[0];
    float *wide = NULL;
    KW_TRY(kw_store_add(p->store, info->name, info->shape, KW_I8, NULL, &info->state, e));
    kw_store_set_passing(p->store, info->state);           /* a packed copy of it would cost what was saved */
    if (!is_common(t->dtype)) {
        wide = kw_block_new((size_t)n * sizeof *wide);
        if (!wide)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        kw_convert(KW_F32, wide, t->dtype, t->data, (size_t)n);
    }
    bool finite = kw_kern_get()->int8_make(wide ? KW_F32 : t->dtype, wide ? wide : t->data, rows, n / rows,
                                           kw_store_write(p->store, info->state));
    kw_block_free(wide);
    if (t->mapped)
        kw_pages_drop(t->data, (size_t)t->bytes);
    if (finite)
        return KW_OK;
    kw_status s = kw_fail(e, KW_EDATA, N_("%s has numbers that are not finite: it cannot be kept in one byte a number"),
                          info->name);
    return kw_advise(e, s, N_("the file is damaged, or was saved after a training that failed"));
}

/* It will move into a flat range anyway (kw_trained_new): until then the file's own numbers serve, if they are such. */
static bool waits_in_file(const kw_param_info *info, const kw_tensor *t, kw_dtype type)
{
    return info->group >= 0 && t->mapped && t->dtype == type;
}

/*
 * Matrices that stay frozen are used where they lie in the file, in its type; the rest gets own memory in the exact
 * type. No kernel reads floats of 8 bits: such matrices become bf16, which holds each of their values.
 */
static kw_status place(kw_params *p, kw_param_info *info, const kw_tensor *t, kw_err *e)
{
    if (p->int8 && info->group < 0 && info->shape.rank > 1 && p->src.exact != KW_F64 && p->int8(info->name))
        return place_codes(p, info, t, e);
    bool own = info->group >= 0 || info->shape.rank < 2 || p->src.exact == KW_F64;
    kw_dtype type = own ? own_type(p, info) : is_f8(t->dtype) ? KW_BF16 : t->dtype;
    bool copy = (own && !waits_in_file(info, t, type)) || is_f8(t->dtype);
    void *data = copy ? NULL : (void *)(uintptr_t)t->data;
    KW_TRY(kw_store_add(p->store, info->name, info->shape, type, data, &info->state, e));
    if (copy)
        convert(type, kw_store_write(p->store, info->state), t->dtype, t->data, kw_count(info->shape));
    if (t->mapped && copy)
        kw_pages_drop(t->data, (size_t)t->bytes);
    else if (t->mapped)
        kw_store_set_mapped(p->store, info->state);
    return KW_OK;
}

static kw_status add(kw_params *p, const char *name, kw_shape shape, const kw_param_info **out, kw_err *e)
{
    kw_tensor t = { 0 };
    kw_param_info *info = kw_alloc(p->arena, sizeof *info);
    char *copy = kw_strdup(p->arena, name);
    if (!info || !copy)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *info = (kw_param_info){ .name = copy, .shape = shape, .group = KW_NONE, .at = KW_NONE };
    if (p->src.select)
        info->group = p->src.select(p->src.select_ctx, name);
    KW_TRY(check(p, name, shape, &t, e));
    double begun = kw_now();
    KW_TRY(place(p, info, &t, e));
    p->seconds += kw_now() - begun;
    KW_TRY(remember(p, info, e));
    *out = info;
    return KW_OK;
}

kw_val kw_nn_param(kw_net *n, const char *name, kw_shape shape)
{
    char full[640];
    if (n->g->err.status)
        return KW_NONE;
    size_t length = strlen(n->path), more = strlen(name);
    if (length + more + 2 > sizeof full)
        KW_BUG("a parameter name is too long: %s.%s", n->path, name);
    memcpy(full, n->path, length);
    if (length)
        full[length++] = '.';
    memcpy(full + length, name, more + 1);
    const kw_param_info *info = kw_params_find(n->params, full);
    if (!info && add(n->params, full, shape, &info, &n->g->err))
        return KW_NONE;
    const kw_stored *s = kw_store_at(n->params->store, info->state);
    return kw_state(n->g, info->state, shape, s->dtype);
}
