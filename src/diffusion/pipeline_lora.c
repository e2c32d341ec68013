/*
 * pipeline_lora.c - LoRA files on a pipeline: all their keys must fit. Plain LoRAs are branches whose strengths are
 * inputs of programs, the rest is merged into the weights (pipeline_merge.c).
 */
#include "pipeline_internal.h"

#include <string.h>

/* ---- strengths -------------------------------------------------------------------------------------------------- */

kw_status kw_pipeline_strength_of(kw_pipeline *p, const char *name, double strength, kw_err *e)
{
    int i = 0;
    while (i < p->n_strengths && strcmp(p->strength[i].name, name))
        i++;
    if (i == KW__STRENGTHS)
        return kw_fail(e, KW_EUSAGE, N_("%s: there are more than %d strengths"), name, KW__STRENGTHS);
    if (i == p->n_strengths) {
        p->strength[i].name = kw_strdup(p->arena, name);
        if (!p->strength[i].name)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        p->n_strengths++;
    }
    p->strength[i].value = (float)strength;
    return KW_OK;
}

static kw_status set_strength(kw_pipeline *p, size_t i, bool text, int block, double strength, kw_err *e)
{
    char name[64];
    int n = snprintf(name, sizeof name, "lora.%zu.%s", i, text ? "text" : "unet");
    if (block >= 0)
        snprintf(name + n, sizeof name - (size_t)n, ".%d", block);
    return kw_pipeline_strength_of(p, name, strength, e);
}

kw_status kw_pipeline_strengths(kw_pipeline *p, size_t i, double te, double unet, const float *blocks, kw_err *e)
{
    kw__lora *l = &p->lora[i];
    l->te = te;
    l->unet = unet;
    for (int k = 0; k < KW_LORA_BLOCKS; k++)
        l->blocks[k] = blocks ? blocks[k] : 1;
    KW_TRY(set_strength(p, i, true, KW_NONE, te, e));
    KW_TRY(set_strength(p, i, false, KW_NONE, unet, e));
    for (int k = 0; l->by_block && k < KW_LORA_BLOCKS; k++)
        KW_TRY(set_strength(p, i, k == 0, k, (k ? unet : te) * (double)l->blocks[k], e));
    return KW_OK;
}

kw_status kw_pipeline_strength(kw_pipeline *p, size_t i, double te, double unet, kw_err *e)
{
    return kw_pipeline_strengths(p, i, te, unet, NULL, e);
}

/* ---- does it fit? ------------------------------------------------------------------------------------------------ */

static kw_status other_base(const kw_lora_file *f, kw_err *e, kw_status s)
{
    const char *made_for = kw_lora_file_family(f), *recorded = kw_tensors_meta(f->file, "ss_sd_model_name");
    if (made_for && recorded)
        return kw_advise(e, s, N_("this LoRA was trained on %s (%s); use it with that base"), kw_translate(made_for),
                         recorded);
    if (made_for || recorded)
        return kw_advise(e, s, N_("this LoRA was trained on %s; use it with that base"),
                         made_for ? kw_translate(made_for) : recorded);
    return kw_advise(e, s, N_("this LoRA was trained on another base"));
}

static const kw_tensor *base_tensor(const kw_pipeline *p, kw_part part, const char *path, const char *leaf)
{
    char name[KW_KEY_ROOM];
    if (!p->sd->has[part] || snprintf(name, sizeof name, "%s.%s", path, leaf) >= (int)sizeof name)
        return NULL;
    return kw_source_find(p->sd->source, part, name);
}

static bool is_bias(int role)
{
    return role == KW_ROLE_UP_BIAS || role == KW_ROLE_DIFF_B || role == KW_ROLE_B_NORM || role == KW_ROLE_PLAIN_B;
}

/* A branch brings its own bias, whether the layer has one or not. */
static bool brings(const kw_pipeline *p, const kw_delta *d, int role)
{
    return role == KW_ROLE_UP_BIAS && !p->o.merge && kw_delta_is_branch(d);
}

static void name_key(kw__lora *l, kw_str *names, const char *key)
{
    enum { SHOWN = 10 };
    if (l->n_passed++ < SHOWN)
        kw_str_printf(names, "%s%s", names->n ? ", " : "", key);
    else if (l->n_passed == SHOWN + 1)
        kw_str_add(names, " ...");
}

/* Which of a layer's tensors fit: those for the weight, those for the bias. A wrong size is another base's. */
static kw_status check_layer(kw_pipeline *p, kw__lora *l, const kw_delta *d, kw_str *names, kw_err *e)
{
    const kw_tensor *w = base_tensor(p, d->part, d->path, "weight"), *b = base_tensor(p, d->part, d->path, "bias");
    char has[160];
    int64_t rows, columns;
    kw_delta_size(d, &rows, &columns);
    if (w && !kw_delta_fits(d, w)) {
        kw_status s = kw_fail(e, KW_EDATA, N_("%s: %s changes a weight of %lld x %lld, this base has %s there"),
                              l->path, d->module, (long long)rows, (long long)columns, kw_shape_text(w, has));
        return other_base(l->file, e, s);
    }
    for (int i = 0; i < KW_N_ROLES; i++)
        if (d->t[i] && brings(p, d, i) && w)
            continue;
        else if (d->t[i] && !(is_bias(i) ? b : w))
            name_key(l, names, d->t[i]->name);
        else if (d->t[i] && is_bias(i) && kw_tensor_count(d->t[i]) != kw_tensor_count(b)) {
            kw_status s = kw_fail(e, KW_EDATA, N_("%s: %s has %lld numbers, this base has %s there"), l->path,
                                  d->t[i]->name, (long long)kw_tensor_count(d->t[i]), kw_shape_text(b, has));
            return other_base(l->file, e, s);
        }
    return KW_OK;
}

static kw_status check(kw_pipeline *p, kw__lora *l, kw_err *e)
{
    kw_str names = { 0 };
    kw_status s = KW_OK;
    size_t total = kw_tensors_n(l->file->file) - l->file->n_bundled;
    for (size_t i = 0; i < l->file->n && !s; i++)
        s = check_layer(p, l, &l->file->item[i], &names, e);
    for (size_t i = 0; i < l->file->n_unknown; i++)
        name_key(l, &names, l->file->unknown[i]);
    if (!s && !total)
        s = kw_fail(e, KW_EDATA, N_("%s: holds no LoRA"), l->path);
    if (!s && l->n_passed && (!p->o.partial || l->n_passed == total)) {
        s = kw_fail(e, KW_EDATA, N_("%s: %zu of %zu keys fit no layer of this base: %s"), l->path, l->n_passed, total,
                    names.s ? names.s : "");
        s = l->n_passed == total ? other_base(l->file, e, s)
                                 : kw_advise(e, s, N_("--allow-partial uses the keys that fit"));
    }
    kw_str_free(&names);
    return s;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static const struct { kw_part part; bool text; } parts[] = {
    { KW_PART_UNET, false }, { KW_PART_TEXT, true }, { KW_PART_TEXT2, true },
};

static bool has_branches(const kw_lora_file *f, kw_part part)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->item[i].part == part && kw_delta_is_branch(&f->item[i]))
            return true;
    return false;
}

/* bundle_emb.NAME...: names for prompts. */
static kw_status attach_inversions(kw_pipeline *p, size_t i, kw_err *e)
{
    kw_inversion v;
    bool found = true;
    for (size_t k = 0; found; k++) {
        KW_TRY(kw_inversion_bundled(p->arena, p->lora[i].file->file, k, &v, &found, e));
        if (found)
            KW_TRY(kw__inversion_add(p, p->lora[i].path, &v, e));
    }
    return KW_OK;
}

static kw_status attach(kw_pipeline *p, size_t i, const kw_pipeline_lora *one, kw_err *e)
{
    kw__lora *l = &p->lora[i];
    kw_lora_names names = kw_lora_names_of(&p->sd->unet);
    *l = (kw__lora){ .path = one->path, .by_block = one->by_block };
    KW_TRY(kw_lora_file_open(p->arena, one->path, &names, &l->file, e));
    KW_TRY(check(p, l, e));
    for (size_t k = 0; k < KW_LEN(parts) && !p->o.merge; k++) {
        kw_lora_config c = { .names = names, .by_block = l->by_block,
                             .strength = kw_sprintf(p->arena, "lora.%zu.%s", i, parts[k].text ? "text" : "unet") };
        if (!c.strength)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (!p->sd->has[parts[k].part] || !has_branches(l->file, parts[k].part))
            continue;
        KW_TRY(kw_lora_new_over(p->arena, p->sd->store, parts[k].part, &c, l->file, &l->part[k], e));
        p->adapters.item[p->adapters.n++] = l->part[k];
    }
    KW_TRY(attach_inversions(p, i, e));
    return kw_pipeline_strength(p, i, one->te, one->unet, e);
}

kw_status kw__pipeline_loras(kw_pipeline *p, const kw_pipeline_lora *lora, size_t n, kw_err *e)
{
    kw_err local;
    e = e ? e : &local;
    if (n > KW_PIPELINE_LORAS)
        return kw_fail(e, KW_EUSAGE, N_("%zu LoRA files: at most %d at once"), n, KW_PIPELINE_LORAS);
    for (p->n_lora = 0; p->n_lora < n; p->n_lora++)
        KW_TRY(attach(p, p->n_lora, &lora[p->n_lora], e));
    if (!n)
        return KW_OK;
    KW_TRY(kw__pipeline_dry(p, e));
    return kw__pipeline_merge_plan(p, e);
}

size_t kw_pipeline_lora_modules(const kw_pipeline *p, size_t i)
{
    size_t n = 0;
    for (size_t k = 0; i < p->n_lora && k < KW_LEN(parts); k++)
        n += p->lora[i].part[k] ? kw_lora_n_modules(p->lora[i].part[k]) : 0;
    return i < p->n_lora ? n + p->lora[i].n_merged : 0;
}

size_t kw_pipeline_lora_passed_over(const kw_pipeline *p, size_t i) { return i < p->n_lora ? p->lora[i].n_passed : 0; }
const kw_lora_file *kw_pipeline_lora_file(const kw_pipeline *p, size_t i)
{
    return i < p->n_lora ? p->lora[i].file : NULL;
}
