/*
 * lora.c - low-rank adaptation as branches beside frozen layers, in kohya's names.
 *
 *   x ─────────── frozen layer ───────────(+)─ y
 *   └─ down (r) ── up (starts at zero) ── · strength · alpha / r
 *
 * A branch's weights are f32 whatever the base computes in, and so are its inner activations, but for 3x3 convolutions,
 * whose two sides have one type.
 */
#include "keys.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct kw_lora {
    kw_arena *arena;
    kw_part part;
    kw_lora_config c;
    const kw_lora_file *file;             /* NULL: a fresh start */
    const kw_delta *now;                  /* whose tensors are being looked for */
    kw_params *params;
    kw_lora_module *module; size_t n, capacity;
};

static kw_status find(void *lora, const char *name, kw_shape shape, kw_tensor *t, kw_err *e);
static int group_of(void *lora, const char *name) { (void)name; return ((const kw_lora *)lora)->c.group; }

kw_status kw_lora_new(kw_arena *a, kw_store *s, kw_part part, const kw_lora_config *c, kw_tensors *file, kw_lora **out,
                      kw_err *e)
{
    kw_lora_file *f = NULL;
    if (file)
        KW_TRY(kw_lora_file_of(a, file, c->names.unet.levels ? &c->names : NULL, &f, e));
    return kw_lora_new_over(a, s, part, c, f, out, e);
}

kw_status kw_lora_new_over(kw_arena *a, kw_store *s, kw_part part, const kw_lora_config *c, const kw_lora_file *file,
                           kw_lora **out, kw_err *e)
{
    kw_lora *l = kw_alloc(a, sizeof *l);
    if (!l)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *l = (kw_lora){ .arena = a, .part = part, .c = *c, .file = file };
    kw_params_source from = {
        .find = find, .find_ctx = l, .select = c->trained ? group_of : NULL, .select_ctx = l, .exact = KW_F32
    };
    l->params = kw_params_new(a, s, &from);
    *out = l;
    return l->params ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

kw_params *kw_lora_params(const kw_lora *l) { return l->params; }
kw_part kw_lora_part(const kw_lora *l) { return l->part; }
size_t kw_lora_n_modules(const kw_lora *l) { return l->n; }
const kw_lora_module *kw_lora_at(const kw_lora *l, size_t i) { return &l->module[i]; }

/* ---- the start ------------------------------------------------------------------------------------------------ */

static uint32_t hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

/* down: uniform in ±1/√fan-in (kaiming uniform with a = √5), keyed by the tensor's name; up: zero. */
static kw_status start(const kw_lora *l, const char *name, kw_shape shape, kw_tensor *t, kw_err *e)
{
    int64_t count = kw_count(shape), fan = count / shape.d[0];
    float *w = kw_alloc_array(l->arena, (size_t)count, sizeof *w);
    if (!w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_rng r = { .seed = l->c.seed, .stream = KW_RNG_INIT, .step = hash(name) };
    float bound = (float)(1 / sqrt((double)fan));
    if (strstr(name, ".lora_down."))
        for (int64_t i = 0; i < count; i++)
            w[i] = (2 * kw_rng_float(r, (uint64_t)i) - 1) * bound;
    *t = (kw_tensor) {
        .name = name, .dtype = KW_F32, .rank = shape.rank, .data = w, .bytes = (uint64_t)count * sizeof *w
    };
    memcpy(t->shape, shape.d, sizeof shape.d[0] * (size_t)shape.rank);
    return KW_OK;
}

static kw_status find(void *lora, const char *name, kw_shape shape, kw_tensor *t, kw_err *e)
{
    kw_lora *l = lora;
    if (!l->file)
        return start(l, name, shape, t, e);
    kw_role role = strstr(name, ".lora_down.")   ? KW_ROLE_DOWN
                   : kw_ends_with(name, ".bias") ? KW_ROLE_UP_BIAS
                                                 : KW_ROLE_UP;
    const kw_tensor *found = l->now->t[role];
    *t = *found;
    return KW_OK;
}

/* ---- one module ------------------------------------------------------------------------------------------------- */

bool kw_delta_is_branch(const kw_delta *d)
{
    return d->kind == KW_DELTA_LORA && !d->t[KW_ROLE_MID] && !d->t[KW_ROLE_DORA] && !d->t[KW_ROLE_MAGNITUDE];
}

/* Rank and alpha of a module, from the file or the configuration; false: this layer is not adapted. */
static bool wanted(kw_lora *l, const char *path, kw_geometry geometry, int *rank, float *alpha)
{
    bool wide = geometry.kh > 1;
    if (!l->file) {
        *rank = wide && l->c.conv_rank ? l->c.conv_rank : l->c.rank;
        *alpha = wide && l->c.conv_alpha > 0 ? l->c.conv_alpha : l->c.alpha;
        return kw_target_of(l->part, path) & l->c.targets;
    }
    const kw_delta *d = l->now = kw_lora_file_find(l->file, l->part, path);
    if (!d || !kw_delta_is_branch(d))
        return false;
    *rank = d->rank;
    *alpha = (float)(d->scale * d->rank);
    return true;
}

static kw_status remember(kw_lora *l, const char *module, const char *path, kw_geometry geometry, int rank, float alpha,
                          const kw_net *n, kw_err *e)
{
    char name[704];
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->module[i].name, module))
            return KW_OK;
    KW_TRY(kw_grow(l->arena, &l->module, &l->capacity, l->n, sizeof *l->module, e));
    kw_lora_module *m = &l->module[l->n];
    *m = (kw_lora_module) { .name = kw_strdup(l->arena, module),
                            .path = kw_strdup(l->arena, path),
                            .geometry = geometry,
                            .rank = rank,
                            .alpha = alpha };
    snprintf(name, sizeof name, "%s.lora_down.weight", module);
    m->down = kw_params_find(n->params, name);
    snprintf(name, sizeof name, "%s.lora_up.weight", module);
    m->up = kw_params_find(n->params, name);
    l->n++;
    return m->name && m->path ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* The strength is one input of the whole graph, or of a block. */
static kw_val strength(kw_graph *g, const kw_lora *l, const char *path)
{
    int block = l->c.by_block ? kw_lora_block(&l->c.names, l->part, path) : KW_NONE;
    const char *name = block < 0 ? l->c.strength : kw_sprintf(g->arena, "%s.%d", l->c.strength, block);
    if (!name) {
        g->err.status = kw_fail(&g->err, KW_ENOMEM, "out of memory");
        return KW_NONE;
    }
    for (size_t v = 0; v < g->n_values; v++)
        if (g->value[v].name && !strcmp(g->value[v].name, name))
            return (kw_val)v;
    return kw_input(g, name, KW_SHAPE(1), kw_sum_type(g->compute));
}

static kw_val branch(kw_lora *l, kw_net *n, kw_geometry s, int rank, kw_val x)
{
    kw_graph *g = n->g;
    kw_dtype inner = kw_sum_type(g->compute);
    kw_shape down_shape = s.kh ? KW_SHAPE(rank, s.in, s.kh, s.kw) : KW_SHAPE(rank, s.in);
    kw_shape up_shape = s.kh ? KW_SHAPE(s.out, rank, 1, 1) : KW_SHAPE(s.out, rank);
    kw_val down = kw_nn_param(n, "lora_down.weight", down_shape), up = kw_nn_param(n, "lora_up.weight", up_shape), h;
    kw_val bias = l->file && l->now->t[KW_ROLE_UP_BIAS] ? kw_nn_param(n, "lora_up.bias", KW_SHAPE(s.out)) : KW_NONE;
    if (g->err.status)
        return KW_NONE;
    if (s.kh > 1)
        h = kw_conv2d(g, x, down, KW_NONE, s.pads);
    else
        h = kw_linear_as(g, x, down, KW_NONE, inner);
    return kw_linear(g, h, up, bias);
}

static kw_val refuse(kw_net *n, const char *module, int rank, float alpha)
{
    kw_status s = kw_fail(&n->g->err, KW_EDATA, "%s: rank %d with alpha %g", module, rank, (double)alpha);
    n->g->err.status = s;
    return KW_NONE;
}

static kw_val attach(kw_lora *l, kw_net *base, kw_geometry s, kw_val x, kw_val y)
{
    char module[KW_LORA_NAME];
    int rank = 0;
    float alpha = 0;
    if (!kw_lora_name(&l->c.names, l->part, base->path, module) || !wanted(l, base->path, s, &rank, &alpha))
        return y;
    if (rank < 1 || rank > 65536 || !(fabsf(alpha) < 1e6f))
        return refuse(base, module, rank, alpha);
    kw_net n = kw_net_over(base->g, l->params);
    snprintf(n.path, sizeof n.path, "%s", module);
    kw_val h = branch(l, &n, s, rank, x);
    if (h < 0 || remember(l, module, base->path, s, rank, alpha, &n, &base->g->err))
        return y;
    if (l->c.strength)
        h = kw_scale_by(base->g, h, strength(base->g, l, base->path));
    return kw_axby(base->g, 1, y, alpha / (float)rank, h);
}

kw_adapters *kw_adapters_of(kw_arena *a, const kw_adapters *all, kw_part part)
{
    kw_adapters *some = kw_alloc(a, sizeof *some);
    for (int i = 0; some && i < all->n; i++)
        if (kw_lora_part(all->item[i]) == part)
            some->item[some->n++] = all->item[i];
    return some;
}

kw_val kw_adapters_seam(void *adapters, kw_net *n, kw_geometry geometry, kw_val x, kw_val y)
{
    const kw_adapters *s = adapters;
    for (int i = 0; i < s->n; i++)
        y = attach(s->item[i], n, geometry, x, y);
    return y;
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* Is the key a tensor of a layer that got a branch? */
static bool takes(const kw_lora *l, const char *key)
{
    const kw_delta *d = NULL;
    kw__key k;
    if (!l->file || !kw__key_read(key, &l->file->names, &k))
        return false;
    for (size_t i = 0; i < l->n && !d; i++)
        if (!strcmp(l->module[i].path, k.path))
            d = kw_lora_file_find(l->file, l->part, k.path);
    bool part = k.part == l->part || (k.guessed && l->part == KW_PART_TEXT2);
    return d && part && (k.role == KW_ROLE_DOWN || k.role == KW_ROLE_UP || k.role == KW_ROLE_ALPHA);
}

const char *kw_lora_unmatched(kw_lora *const *l, int n, const kw_tensors *file, size_t *i)
{
    for (; *i < kw_tensors_n(file); (*i)++) {
        const char *key = kw_tensors_at(file, *i)->name;
        bool taken = false;
        for (int k = 0; k < n; k++)
            taken |= takes(l[k], key);
        if (!taken) {
            (*i)++;
            return key;
        }
    }
    return NULL;
}

static kw_status put(kw_arena *a, const kw_lora *l, const kw_param_info *p, kw_dtype type, kw_tensor *t, kw_err *e)
{
    const kw_stored *s = kw_store_at(kw_params_store(l->params), p->state);
    size_t count = (size_t)kw_count(p->shape);
    void *data = kw_alloc_array(a, count, kw_dtype_size(type));
    if (!data)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_convert(type, data, s->dtype, s->data, count);
    *t = (kw_tensor) {
        .name = p->name, .dtype = type, .rank = p->shape.rank, .data = data, .bytes = count * kw_dtype_size(type)
    };
    memcpy(t->shape, p->shape.d, sizeof p->shape.d[0] * (size_t)p->shape.rank);
    return KW_OK;
}

static kw_status put_alpha(kw_arena *a, const kw_lora_module *m, kw_dtype type, kw_tensor *t, kw_err *e)
{
    void *data = kw_alloc(a, kw_dtype_size(type));
    char *name = kw_sprintf(a, "%s.alpha", m->name);
    if (!data || !name)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_convert(type, data, KW_F32, &m->alpha, 1);
    *t = (kw_tensor){ .name = name, .dtype = type, .data = data, .bytes = kw_dtype_size(type) };
    return KW_OK;
}

kw_status kw_lora_tensors(kw_arena *a, const kw_lora *l, kw_dtype type, kw_tensor *t, size_t *n, kw_err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        KW_TRY(put(a, l, l->module[i].down, type, &t[(*n)++], e));
        KW_TRY(put(a, l, l->module[i].up, type, &t[(*n)++], e));
        KW_TRY(put_alpha(a, &l->module[i], type, &t[(*n)++], e));
    }
    return KW_OK;
}

static kw_status set(const kw_lora *l, const kw_tensors *file, const kw_param_info *p, float factor, kw_err *e)
{
    kw_store *store = kw_params_store(l->params);
    const kw_tensor *t = kw_tensors_find(file, p->name);
    size_t count = (size_t)kw_count(p->shape);
    if (!t || (size_t)kw_tensor_count(t) != count || kw_store_at(store, p->state)->dtype != KW_F32)
        return kw_fail(e, KW_EDATA, "%s: %s is missing or of another size", kw_tensors_path(file), p->name);
    float *to = kw_store_write(store, p->state);
    kw_convert(KW_F32, to, t->dtype, t->data, count);
    for (size_t i = 0; i < count; i++)
        to[i] *= factor;
    return KW_OK;
}

kw_status kw_lora_set(const kw_lora *l, const kw_tensors *file, float strength, kw_err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        KW_TRY(set(l, file, l->module[i].down, 1, e));
        KW_TRY(set(l, file, l->module[i].up, strength, e));
    }
    return KW_OK;
}
