/*
 * models.c - the models of a merge: do they have the same tensors, which LoRAs fit, and one tensor after another made.
 *
 *   numbers of all models, a piece at a time ── combine.c ──► f32 ── + LoRAs ──► the writer (io/convert_write.c)
 */
#include "models.h"

#include "run/run.h"

#include <stdio.h>
#include <string.h>

bool kw__is_float(kw_dtype t)
{
    return t == KW_F32 || t == KW_F64 || t == KW_F16 || t == KW_BF16 || t == KW_F8_E4M3 || t == KW_F8_E5M2;
}

const char *kw_merge_word(kw_merge_method m)
{
    static const char *const words[] = {
#define X(name, word, base, help) word,
        KW_MERGE_MAP(X)
#undef X
    };
    return words[m];
}

bool kw_merge_needs_base(kw_merge_method m)
{
    static const bool needs[] = {
#define X(name, word, base, help) base,
        KW_MERGE_MAP(X)
#undef X
    };
    return needs[m];
}

/* ---- one tensor in all models ------------------------------------------------------------------------------------ */

void kw__column_of(const kw_merge *m, kw_part p, const kw_tensor *first, kw__column *out)
{
    *out = (kw__column){ .n = m->r.n, .part = p, .t = { first }, .count = kw_tensor_count(first) };
    for (int i = 1; i < m->r.n; i++)
        out->t[i] = kw_source_find(m->r.model[i], p, first->name);
    out->t[m->r.n] = m->r.base ? kw_source_find(m->r.base, p, first->name) : NULL;
    kw__channels_narrow(m, out);
}

void kw__column_load(const kw__column *c, int64_t at, int64_t k, kw__pieces x)
{
    for (int i = 0; i <= c->n; i++) {
        const kw_tensor *t = c->t[i];
        const void *from = t ? (const char *)t->data + (size_t)at * kw_dtype_size(t->dtype) : NULL;
        if (t && (t->dtype == KW_F16 || t->dtype == KW_BF16))
            kw_kern_get()->convert(KW_F32, x[i], t->dtype, from, k);       /* a piece is less than what it splits */
        else if (t)
            kw_convert(KW_F32, x[i], t->dtype, from, (size_t)k);
        else
            memset(x[i], 0, (size_t)k * sizeof *x[i]);
    }
}

void kw__column_drop(const kw__column *c, int from)
{
    for (int i = from; i <= c->n; i++)
        if (c->t[i] && c->t[i]->mapped)
            kw_pages_drop(c->t[i]->data, (size_t)c->t[i]->bytes);
}

/* ---- do they fit each other? ------------------------------------------------------------------------------------- */

static kw_status lacks(const kw_source *s, const kw_merge *m, kw_part p, const char *name, kw_err *e)
{
    kw_status status = kw_fail(e, KW_EDATA, N_("%s has no \"%s\" in its %s, %s has"), kw_source_path(s), name,
                               kw_part_name(p), kw_source_path(m->r.model[0]));
    return kw_advise(e, status, N_("only models of one family and shape can be merged: see kiwame inspect"));
}

static kw_status same_shapes(const kw_merge *m, kw_source *s, kw_part p, kw_err *e)
{
    char left[160], right[160];
    kw_source *a = m->r.model[0];
    bool fit;
    for (size_t i = 0; i < kw_source_n(a, p); i++) {
        const kw_tensor *x = kw_source_at(a, p, i), *y = kw_source_find(s, p, x->name);
        if (!y)
            return lacks(s, m, p, x->name, e);
        if (x->rank == y->rank && !memcmp(x->shape, y->shape, (size_t)x->rank * sizeof *x->shape)
            && kw__is_float(x->dtype) == kw__is_float(y->dtype))
            continue;
        KW_TRY(kw__channels_fit(m, s, p, x, y, &fit, e));
        if (fit)
            continue;
        kw_status status = kw_fail(e, KW_EDATA, N_("%s: \"%s\" of the %s has the size %s, in %s %s"), kw_source_path(s),
                                   x->name, kw_part_name(p), kw_shape_text(y, right), kw_source_path(a),
                                   kw_shape_text(x, left));
        return kw_advise(e, status, N_("only models of one family and shape can be merged: see kiwame inspect"));
    }
    for (size_t i = 0; i < kw_source_n(s, p); i++)
        if (!kw_source_find(a, p, kw_source_at(s, p, i)->name))
            return kw_fail(e, KW_EDATA, N_("%s has no \"%s\" in its %s, %s has"), kw_source_path(a),
                           kw_source_at(s, p, i)->name, kw_part_name(p), kw_source_path(s));
    return KW_OK;
}

static kw_status check_models(kw_merge *m, kw_err *e)
{
    bool any = false;
    for (int p = 0; p < KW_N_PARTS; p++) {
        m->part[p] = kw_source_has(m->r.model[0], (kw_part)p) && (p != KW_PART_VAE || m->r.vae);
        for (int i = 1; i < m->r.n; i++)
            m->part[p] &= kw_source_has(m->r.model[i], (kw_part)p);
        m->part[p] &= !m->r.base || kw_source_has(m->r.base, (kw_part)p);
        any |= m->part[p];
        for (int i = 1; i < m->r.n && m->part[p]; i++)
            KW_TRY(same_shapes(m, m->r.model[i], (kw_part)p, e));
        if (m->part[p] && m->r.base)
            KW_TRY(same_shapes(m, m->r.base, (kw_part)p, e));
        for (size_t i = 0; m->part[p] && i < kw_source_n(m->r.model[0], (kw_part)p); i++)
            m->numbers += (uint64_t)kw_tensor_count(kw_source_at(m->r.model[0], (kw_part)p, i));
    }
    return any || m->r.n == 1 ? KW_OK
        : kw_fail(e, KW_EDATA, N_("%s and %s have no part in common"), kw_source_path(m->r.model[0]),
                  kw_source_path(m->r.model[1]));
}

/* The layer's weight, or its bias where it has no weight. */
static bool fits(const kw_merge *m, const kw_delta *d)
{
    char name[KW_KEY_ROOM];
    if (!kw_source_has(m->r.model[0], d->part) || snprintf(name, sizeof name, "%s.weight", d->path) >= (int)sizeof name)
        return false;
    const kw_tensor *t = kw_source_find(m->r.model[0], d->part, name);
    return t && kw__is_float(t->dtype) && kw_delta_fits(d, t);
}

static kw_status check_lora(kw_merge *m, const kw_merge_lora *l, kw_err *e)
{
    const char *first = l->file->n_unknown ? l->file->unknown[0] : NULL;
    size_t passed = l->file->n_unknown, fit = 0;
    for (size_t i = 0; i < l->file->n; i++)
        if (fits(m, &l->file->item[i])) {
            fit++;
        } else {
            passed++;
            first = first ? first : l->file->item[i].module;
        }
    m->passed += passed;
    if (!fit)
        return kw_fail(e, KW_EDATA, N_("%s: no layer of it fits %s"), l->file->path, kw_source_path(m->r.model[0]));
    if (!passed || m->r.partial)
        return KW_OK;
    return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: %zu of %zu layers fit no layer of this base, the first is %s"),
                                l->file->path, passed, l->file->n + l->file->n_unknown, first),
                     N_("--allow-partial uses the keys that fit"));
}

kw_status kw_merge_new(kw_arena *a, const kw_merge_recipe *r, kw_merge **out, kw_err *e)
{
    kw_merge *m = kw_alloc(a, sizeof *m);
    if (!m)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *m = (kw_merge){ .arena = a, .r = *r };
    if (kw_source_has(r->model[0], KW_PART_UNET)) {
        KW_TRY(kw_unet_read(kw_source_config(r->model[0], KW_PART_UNET), &m->unet, e));
        m->names = kw_lora_names_of(&m->unet);
    }
    KW_TRY(check_models(m, e));
    KW_TRY(kw__channels_read(m, e));
    for (size_t i = 0; i < r->n_lora; i++)
        KW_TRY(check_lora(m, &r->lora[i], e));
    *out = m;
    return KW_OK;
}

size_t kw_merge_passed_over(const kw_merge *m) { return m->passed; }
float kw_merge_threshold(const kw_merge *m, int model) { return m->threshold[model]; }
uint64_t kw_merge_numbers(const kw_merge *m) { return m->numbers; }

/* ---- one tensor -------------------------------------------------------------------------------------------------- */

static double strength(const kw_merge *m, const kw_merge_lora *l, const kw_delta *d)
{
    int block = l->blocks ? kw_lora_block(&m->names, d->part, d->path) : KW_NONE;
    return (d->part == KW_PART_UNET ? l->unet : l->text) * (block >= 0 ? (double)l->blocks[block] : 1);
}

/* "down_blocks.0.resnets.0.conv1.weight" -> its delta in the file, NULL: none; *bias: it is of the bias. */
static const kw_delta *delta_of(const kw_lora_file *f, kw_part p, const char *name, bool *bias)
{
    char path[KW_KEY_ROOM];
    *bias = kw_ends_with(name, ".bias");
    if ((!*bias && !kw_ends_with(name, ".weight")) || strlen(name) >= sizeof path)
        return NULL;
    snprintf(path, sizeof path, "%.*s", (int)(strrchr(name, '.') - name), name);
    const kw_delta *d = kw_lora_file_find(f, p, path);
    return d && (!*bias || kw_delta_has_bias(d)) ? d : NULL;
}

static kw_status add_loras(const kw_merge *m, kw_part p, const kw_tensor *t, float *w, kw_err *e)
{
    int64_t n = kw_tensor_count(t), rows = t->rank ? t->shape[0] : 1;
    bool bias;
    for (size_t i = 0; i < m->r.n_lora; i++) {
        const kw_merge_lora *l = &m->r.lora[i];
        const kw_delta *d = delta_of(l->file, p, t->name, &bias);
        if (d && fits(m, d))
            KW_TRY(bias ? kw_delta_apply_bias(d, strength(m, l, d), w, n, e)
                        : kw_delta_apply(d, strength(m, l, d), w, rows, n / KW_MAX(rows, (int64_t)1), e));
    }
    return KW_OK;
}

static bool any_lora(const kw_merge *m, kw_part p, const char *name)
{
    bool bias;
    for (size_t i = 0; i < m->r.n_lora; i++)
        if (delta_of(m->r.lora[i].file, p, name, &bias))
            return true;
    return false;
}

kw_status kw_merge_make(void *merge, kw_part p, const kw_tensor *t, float *room, bool *made, kw_err *e)
{
    const kw_merge *m = merge;
    kw__column c;
    const bool merged = m->part[p] && m->r.n > 1;
    *made = false;
    if (!kw__is_float(t->dtype) || (!merged && !any_lora(m, p, t->name)))
        return KW_OK;
    if (merged) {
        kw__column_of(m, p, t, &c);
        KW_TRY(c.count == kw_tensor_count(t) ? kw__combine(m, &c, t->name, room, e)
                                             : kw__channels_combine(m, &c, t, room, e));
        kw__column_drop(&c, 1);
    } else {
        kw_convert(KW_F32, room, t->dtype, t->data, (size_t)kw_tensor_count(t));
    }
    *made = true;
    return add_loras(m, p, t, room, e);
}
