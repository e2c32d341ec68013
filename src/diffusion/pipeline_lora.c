/* pipeline_lora.c - LoRA files on a pipeline: all their keys must fit; their strengths are inputs of programs. */
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

static const char *strength_name(kw_arena *a, size_t i, bool text)
{
    return kw_sprintf(a, "lora.%zu.%s", i, text ? "text" : "unet");
}

kw_status kw_pipeline_strength(kw_pipeline *p, size_t i, double te, double unet, kw_err *e)
{
    for (int text = 0; text < 2; text++) {
        const char *name = strength_name(p->arena, i, text);
        if (!name)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        KW_TRY(kw_pipeline_strength_of(p, name, text ? te : unet, e));
    }
    return KW_OK;
}

/* ---- does it fit? ------------------------------------------------------------------------------------------------ */

/* The width of the text that a LoRA's cross attention looks at tells its family. */
static const char *family(const kw_tensors *t)
{
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const kw_tensor *w = kw_tensors_at(t, i);
        if (w->rank < 2 || !strstr(w->name, "attn2_to_k.lora_down"))
            continue;
        return w->shape[1] == 768 ? N_("Stable Diffusion 1.x") : w->shape[1] == 1024 ? N_("Stable Diffusion 2.x")
               : w->shape[1] == 2048 ? N_("SDXL") : NULL;
    }
    return NULL;
}

static kw_status other_base(const kw_tensors *t, kw_err *e, kw_status s)
{
    const char *made_for = family(t), *recorded = kw_tensors_meta(t, "ss_sd_model_name");
    if (made_for && recorded)
        return kw_advise(e, s, N_("this LoRA was trained on %s (%s); use it with that base"), kw_translate(made_for),
                         recorded);
    if (made_for || recorded)
        return kw_advise(e, s, N_("this LoRA was trained on %s; use it with that base"),
                         made_for ? kw_translate(made_for) : recorded);
    return kw_advise(e, s, N_("this LoRA was trained on another base"));
}

static kw_status shape_mismatch(kw_pipeline *p, kw_err *e)
{
    kw_err inner = *e;
    for (size_t i = 0; i < p->n_lora; i++)
        for (size_t k = 0; k < kw_tensors_n(p->lora[i].file); k++)
            if (kw_starts_with(inner.what, kw_tensors_at(p->lora[i].file, k)->name)) {
                kw_status s = kw_fail(e, KW_EDATA, "%s: %s", p->lora[i].path, inner.what);
                return other_base(p->lora[i].file, e, s);
            }
    return e->status;
}

static kw_status name_unmatched(kw_pipeline *p, size_t which, kw_err *e)
{
    enum { SHOWN = 10 };
    kw_tensors *file = p->lora[which].file;
    size_t n = 0, total = kw_tensors_n(file);
    kw_str names = { 0 };
    kw_lora *parts[2];
    int n_parts = 0;
    for (int k = 0; k < 2; k++)
        if (p->lora[which].part[k])
            parts[n_parts++] = p->lora[which].part[k];
    size_t at = 0;
    for (const char *key; (key = kw_lora_unmatched(parts, n_parts, file, &at)); n++)
        if (n < SHOWN)
            kw_str_printf(&names, "%s%s", n ? ", " : "", key);
    p->lora[which].n_passed = n;
    kw_status s = KW_OK;
    if (n && (!p->o.partial || n == total)) {
        s = kw_fail(e, KW_EDATA, N_("%s: %zu of %zu keys fit no layer of this base: %s%s"), p->lora[which].path, n,
                    total,
                    names.s ? names.s : "", n > SHOWN ? " ..." : "");
        s = n == total ? other_base(file, e, s) : kw_advise(e, s, N_("--allow-partial uses the keys that fit"));
    }
    kw_str_free(&names);
    return s;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static bool any_starts(const kw_tensors *t, const char *head)
{
    for (size_t i = 0; i < kw_tensors_n(t); i++)
        if (kw_starts_with(kw_tensors_at(t, i)->name, head))
            return true;
    return false;
}

static kw_status attach(kw_pipeline *p, size_t i, const kw_pipeline_lora *l, kw_err *e)
{
    static const struct { kw_part part; const char *head; bool text; } row[] = {
        { KW_PART_UNET, "lora_unet_", false }, { KW_PART_TEXT, "lora_te_", true },
    };
    p->lora[i].path = l->path;
    KW_TRY(kw_tensors_open(p->arena, l->path, &p->lora[i].file, e));
    for (size_t k = 0; k < KW_LEN(row); k++) {
        kw_lora_config c = { .strength = strength_name(p->arena, i, row[k].text) };
        if (!c.strength)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (!any_starts(p->lora[i].file, row[k].head))
            continue;
        KW_TRY(kw_lora_new(p->arena, p->sd->store, row[k].part, &c, p->lora[i].file, &p->lora[i].part[k], e));
        p->adapters.item[p->adapters.n++] = p->lora[i].part[k];
    }
    return kw_pipeline_strength(p, i, l->te, l->unet, e);
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
    if (kw__pipeline_dry(p, e))
        return shape_mismatch(p, e);
    for (size_t i = 0; i < n; i++)
        KW_TRY(name_unmatched(p, i, e));
    return KW_OK;
}

size_t kw_pipeline_lora_modules(const kw_pipeline *p, size_t i)
{
    size_t n = 0;
    for (int k = 0; i < p->n_lora && k < 2; k++)
        n += p->lora[i].part[k] ? kw_lora_n_modules(p->lora[i].part[k]) : 0;
    return n;
}

size_t kw_pipeline_lora_passed_over(const kw_pipeline *p, size_t i) { return i < p->n_lora ? p->lora[i].n_passed : 0; }
