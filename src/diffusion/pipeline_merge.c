/*
 * pipeline_merge.c - what is no low-rank branch (LoHa, LoKr, DoRA, OFT, differences of weights and biases ...) is
 * merged into the weights: each layer's is made from the base's own, file after file, whenever a strength of its has
 * changed.
 *
 *   W of the base's file ── delta of the first file · its strength ── the second's ... ──► f32, in the program's memory
 */
#include "pipeline_internal.h"

#include <string.h>

typedef struct { size_t lora; const kw_delta *d; int block; double last; } source;

struct kw__merge {
    const kw_tensor *from;                /* the base's */
    int state;
    bool bias;
    source *by;  size_t n, capacity;
    bool done;                            /* once */
};

/* ---- what is to be merged --------------------------------------------------------------------------------------- */

static bool attached(const kw__lora *l, const kw_delta *d)
{
    for (size_t k = 0; k < KW_LEN(l->part); k++)
        for (size_t i = 0; l->part[k] && i < kw_lora_n_modules(l->part[k]); i++)
            if (kw_lora_part(l->part[k]) == d->part && !strcmp(kw_lora_at(l->part[k], i)->path, d->path))
                return true;
    return false;
}

/* The weight or the bias of a layer as a merge; NULL: this base has none, or no program reads it. */
static kw_status find(kw_pipeline *p, kw_part part, const char *path, bool bias, kw__merge **out, kw_err *e)
{
    char name[KW_KEY_ROOM];
    *out = NULL;
    if (!p->sd->has[part] || snprintf(name, sizeof name, "%s.%s", path, bias ? "bias" : "weight") >= (int)sizeof name)
        return KW_OK;
    const kw_tensor *from = kw_source_find(p->sd->source, part, name);
    const kw_param_info *info = kw_params_find(p->sd->params[part], name);
    if (!from || !info)
        return KW_OK;
    for (size_t i = 0; i < p->n_merges; i++)
        if (p->merge[i]->state == info->state) {
            *out = p->merge[i];
            return KW_OK;
        }
    KW_TRY(kw_grow(p->arena, &p->merge, &p->merge_capacity, p->n_merges, sizeof(kw__merge *), e));
    kw__merge *m = kw_alloc(p->arena, sizeof *m);
    if (!m)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *m = (kw__merge){ .from = from, .state = info->state, .bias = bias };
    p->merge[p->n_merges++] = *out = m;
    return kw_store_own(p->sd->store, info->state, KW_F32, e);
}

static kw_status add(kw_pipeline *p, size_t i, const kw_delta *d, bool bias, kw_err *e)
{
    kw__merge *m;
    KW_TRY(find(p, d->part, d->path, bias, &m, e));
    if (!m)
        return KW_OK;
    KW_TRY(kw_grow(p->arena, &m->by, &m->capacity, m->n, sizeof *m->by, e));
    m->by[m->n++] = (source){ .lora = i, .d = d, .block = kw_lora_block(&p->lora[i].file->names, d->part, d->path) };
    return KW_OK;
}

/* What a branch leaves to be merged: differences of biases. */
static kw_status without_branch(kw_pipeline *p, const kw_delta **d, kw_err *e)
{
    kw_delta *copy = (*d)->t[KW_ROLE_UP_BIAS] ? kw_alloc(p->arena, sizeof *copy) : NULL;
    if (!(*d)->t[KW_ROLE_UP_BIAS])
        return KW_OK;
    if (!copy)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *copy = **d;
    copy->t[KW_ROLE_UP_BIAS] = NULL;
    *d = copy;
    return KW_OK;
}

kw_status kw__pipeline_merge_plan(kw_pipeline *p, kw_err *e)
{
    for (size_t i = 0; i < p->n_lora; i++)
        for (size_t k = 0; k < p->lora[i].file->n; k++) {
            const kw_delta *d = &p->lora[i].file->item[k];
            if (kw_delta_is_branch(d) && attached(&p->lora[i], d)) {
                KW_TRY(without_branch(p, &d, e));
            } else {
                KW_TRY(add(p, i, d, false, e));
                p->lora[i].n_merged++;
            }
            if (kw_delta_has_bias(d))
                KW_TRY(add(p, i, d, true, e));
        }
    return KW_OK;
}

/* ---- merging ---------------------------------------------------------------------------------------------------- */

static double strength_of(const kw_pipeline *p, const source *s)
{
    const kw__lora *l = &p->lora[s->lora];
    return (s->d->part == KW_PART_UNET ? l->unet : l->te) * (s->block >= 0 ? (double)l->blocks[s->block] : 1);
}

static kw_status make(kw_pipeline *p, kw__merge *m, kw_err *e)
{
    int64_t n = kw_tensor_count(m->from), rows = m->from->rank ? m->from->shape[0] : 1;
    float *w = kw_store_write(p->sd->store, m->state);
    int64_t each = n / KW_MAX(rows, 1);
    size_t size = kw_dtype_size(m->from->dtype);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < rows; i++)
        kw_convert(KW_F32, w + i * each, m->from->dtype, (const char *)m->from->data + (size_t)(i * each) * size,
                   (size_t)each);
    if (m->from->mapped)
        kw_pages_drop(m->from->data, (size_t)m->from->bytes);
    for (size_t i = 0; i < m->n; i++)
        KW_TRY(m->bias ? kw_delta_apply_bias(m->by[i].d, m->by[i].last, w, n, e)
                       : kw_delta_apply(m->by[i].d, m->by[i].last, w, rows, each, e));
    return KW_OK;
}

kw_status kw__pipeline_merge(kw_pipeline *p, kw_err *e)
{
    for (size_t i = 0; i < p->n_merges; i++) {
        kw__merge *m = p->merge[i];
        bool changed = !m->done;
        for (size_t k = 0; k < m->n; k++) {
            double s = strength_of(p, &m->by[k]);
            changed |= s != m->by[k].last;
            m->by[k].last = s;
        }
        if (!changed)
            continue;
        m->done = false;
        KW_TRY(make(p, m, e));
        m->done = true;
    }
    return KW_OK;
}
