/*
 * convert_plan.c - which tensors each new file gets, under which names, from where.
 *
 *   to a folder       canonical names, one file per part; what a single file has besides is left, and named
 *   to one file       model.diffusion_model. | first_stage_model. | cond_stage_model.transformer. (CLIP)
 *                     cond_stage_model.model. (OpenCLIP) | conditioner.embedders.0 and .1 (SDXL)
 *   file to file      LDM's names as they are, with all else that is in it; other spellings become LDM's
 */
#include "convert_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static kw_status no_memory(const kw_conversion *c, kw_err *e)
{
    return kw__no_memory(e, c->source ? c->source->path : "convert");
}

/* ---- a tensor of the new file ------------------------------------------------------------------------------------ */

static bool is_float(kw_dtype t)
{
    return t == KW_F32 || t == KW_F64 || t == KW_F16 || t == KW_BF16 || t == KW_F8_E4M3 || t == KW_F8_E5M2;
}

static kw_dtype new_type(const kw_conversion *c, kw_part p, const kw_tensor *t)
{
    bool matrix = t->rank >= 2 && p != KW_PART_VAE && p != KW_N_PARTS;
    if (!is_float(t->dtype))
        return t->dtype;
    switch (c->want.type) {
    case KW_TO_F32: return KW_F32;
    case KW_TO_F16: return KW_F16;
    case KW_TO_BF16: return KW_BF16;
    case KW_TO_F8: return matrix ? KW_F8_E4M3 : KW_F16;
    default: return t->dtype;
    }
}

/* t: as it is to be written, but for the type; p: what it belongs to, KW_N_PARTS: nothing. */
static kw_status add(kw_conversion *c, kw__new_file *f, kw_part p, kw_tensor t, kw__origin from, kw_err *e)
{
    KW_TRY(kw_grow(c->arena, &f->list, &f->capacity, f->n, sizeof *f->list, e));
    KW_TRY(kw_grow(c->arena, &f->from, &f->from_capacity, f->n, sizeof *f->from, e));
    t.dtype = new_type(c, p, &t);
    t.bytes = (uint64_t)kw_tensor_count(&t) * kw_dtype_size(t.dtype);
    t.data = NULL;
    f->list[f->n] = t;
    f->from[f->n++] = from;
    f->shown.n++;
    f->shown.by_type[t.dtype]++;
    f->shown.bytes += t.bytes;
    return KW_OK;
}

static kw_status add_as_is(kw_conversion *c, kw__new_file *f, kw_part p, const char *name, const kw_tensor *t,
                           kw_err *e)
{
    kw_tensor one = *t;
    one.name = name;
    return add(c, f, p, one, (kw__origin){ .from = { t }, .n = 1 }, e);
}

/* ---- canonical names to LDM's ------------------------------------------------------------------------------------ */

static bool has(const kw_source *s, kw_part p, const char *fmt, int i)
{
    char name[96];
    const char *at = strstr(fmt, "%d");
    snprintf(name, sizeof name, "%.*s%d%s", (int)(at - fmt), fmt, i, at + 2);
    return kw__part_find(s, p, name) != NULL;
}

static int count(const kw_source *s, kw_part p, const char *fmt)
{
    int n = 0;
    while (n < 1000 && has(s, p, fmt, n))
        n++;
    return n;
}

static kw_key_shape shape_of(const kw_source *s, kw_part p)
{
    kw_key_shape k = { 0 };
    if (p == KW_PART_UNET) {
        k.levels = count(s, p, "down_blocks.%d.resnets.0.conv1.weight");
        k.layers = count(s, p, "down_blocks.0.resnets.%d.conv1.weight");
        for (int i = 0; i < k.levels && i < 32; i++)
            k.up_attention |= (uint32_t)has(s, p, "up_blocks.%d.attentions.0.norm.weight", i) << i;
    } else if (p == KW_PART_VAE) {
        k.levels = KW_MAX(count(s, p, "encoder.down_blocks.%d.resnets.0.conv1.weight"),
                          count(s, p, "decoder.up_blocks.%d.resnets.0.conv1.weight"));
        k.layers = KW_MAX(count(s, p, "encoder.down_blocks.0.resnets.%d.conv1.weight"),
                          count(s, p, "decoder.up_blocks.0.resnets.%d.conv1.weight") - 1);
    }
    return k;
}

typedef struct { int keys; const char *prefix; kw_key_shape shape; } spelling;

/* OpenCLIP's encoder (SD 2, SDXL's second) has plain GELU, OpenAI's quick GELU. */
static spelling spelling_of(const kw_source *s, kw_part p)
{
    bool xl = s->parts[KW_PART_TEXT2].n > 0;
    const char *act = json_string_value(json_object_get(s->parts[p].config, "hidden_act"));
    bool open = p == KW_PART_TEXT2 || (p == KW_PART_TEXT && !xl && act && !strcmp(act, "gelu"));
    static const char *const prefixes[] = { "model.diffusion_model.", "first_stage_model." };
    if (p == KW_PART_UNET || p == KW_PART_VAE)
        return (spelling){ p == KW_PART_UNET ? KW_KEYS_UNET : KW_KEYS_VAE, prefixes[p], shape_of(s, p) };
    return (spelling){ open ? KW_KEYS_OPENCLIP : KW_KEYS_TEXT,
                       p == KW_PART_TEXT2 ? "conditioner.embedders.1.model."
                       : xl ? "conditioner.embedders.0.transformer."
                       : open ? "cond_stage_model.model." : "cond_stage_model.transformer.", { 0 } };
}

static kw_status no_place(const kw_conversion *c, kw_part p, const char *name, kw_err *e)
{
    char shown[96];
    return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: \"%s\" of the %s has no place in a single-file checkpoint"),
                                c->source->path, kw__shown(name, shown), kw_part_name(p)),
                     N_("convert it to a folder: give a name that does not end with .safetensors"));
}

/* q, k, v of one attention become one tensor; q stands for all three. */
static kw_status add_thirds(kw_conversion *c, kw__new_file *f, kw_part p, const kw_tensor *q, const char *name,
                            kw_err *e)
{
    static const char *const others[] = { "k_proj", "v_proj" };
    kw__origin from = { .from = { q }, .n = 1 };
    for (int i = 0; i < 2; i++) {
        char *other = kw_strdup(c->arena, q->name), *at = other ? strstr(other, "q_proj") : NULL;
        if (!at)
            return no_memory(c, e);
        memcpy(at, others[i], 6);
        const kw_tensor *t = kw__part_find(c->source, p, other);
        if (!t || t->dtype != q->dtype || t->rank != q->rank || memcmp(t->shape, q->shape, sizeof t->shape))
            return no_place(c, p, q->name, e);
        from.from[from.n++] = t;
    }
    kw_tensor one = *q;
    one.name = name;
    one.shape[0] *= 3;
    return add(c, f, p, one, from, e);
}

static kw_status add_ldm(kw_conversion *c, kw__new_file *f, kw_part p, const spelling *sp, const kw_tensor *t,
                         kw_err *e)
{
    char ldm[KW_KEY_ROOM];
    kw__how how = KW__DROP;
    const kw__rules *rules = &kw__rule_tables[sp->keys];
    for (size_t i = 0; i < rules->n && how == KW__DROP; i++)
        if (!kw__rule_to_ldm(&rules->rules[i], &sp->shape, t->name, ldm, &how))
            how = KW__DROP;
    if (how == KW__DROP)
        return no_place(c, p, t->name, e);
    char *name = kw_sprintf(c->arena, "%s%s", sp->prefix, ldm);
    kw_tensor one = *t;
    if (!(one.name = name))
        return no_memory(c, e);
    if (how == KW__THIRD_K || how == KW__THIRD_V)
        return KW_OK;
    if (how == KW__THIRD_Q)
        return add_thirds(c, f, p, t, name, e);
    if (how == KW__LINEAR && one.rank == 2) {
        one.rank = 4;
        one.shape[2] = one.shape[3] = 1;
    }
    if (how == KW__TRANSPOSED) {
        one.shape[0] = t->shape[1];
        one.shape[1] = t->shape[0];
    }
    return add(c, f, p, one, (kw__origin){ .from = { t }, .n = 1, .turned = how == KW__TRANSPOSED }, e);
}

static const kw_tensors *single_file(const kw_source *s)
{
    for (int p = 0; p < KW_N_PARTS; p++)
        if (s->parts[p].n)
            return s->parts[p].file;
    return NULL;
}

/* ---- what is no parameter ---------------------------------------------------------------------------------------- */

static int by_text(const void *x, const void *y) { return strcmp(*(const char *const *)x, *(const char *const *)y); }

/* Names of the file's tensors that became parameters, sorted. */
static kw_status used_names(kw_conversion *c, const kw_tensors *file, const char ***names, size_t *n, kw_err *e)
{
    size_t most = 1;
    for (int p = 0; p < KW_N_PARTS; p++)
        most += c->source->parts[p].n;
    *n = 0;
    if (!(*names = kw_alloc_array(c->arena, most, sizeof **names)))
        return no_memory(c, e);
    for (int p = 0; p < KW_N_PARTS; p++)
        for (size_t i = 0; c->source->parts[p].file == file && i < c->source->parts[p].n; i++)
            (*names)[(*n)++] = c->source->parts[p].entries[i].raw->name;
    if (*n)
        qsort(*names, *n, sizeof **names, by_text);
    return KW_OK;
}

typedef kw_status each_rest(kw_conversion *c, const kw_tensor *t, void *user, kw_err *e);

static kw_status for_rest(kw_conversion *c, const kw_tensors *file, each_rest *take, void *user, kw_err *e)
{
    const char **names;
    size_t n;
    KW_TRY(used_names(c, file, &names, &n, e));
    for (size_t i = 0; i < file->n; i++)
        if (!n || !bsearch(&file->tensors[i].name, names, n, sizeof *names, by_text))
            KW_TRY(take(c, &file->tensors[i], user, e));
    return KW_OK;
}

/* What markers and scales say has a place of its own: the scheduler's configuration, the numbers. */
static kw_status leave(kw_conversion *c, const kw_tensor *t, kw_err *e)
{
    if (!strcmp(t->name, "v_pred") || !strcmp(t->name, "ztsnr") || kw__is_scale(single_file(c->source), t->name))
        return KW_OK;
    return kw__text_add(c->arena, &c->left, t->name, e);
}

/* ---- to one file ------------------------------------------------------------------------------------------------- */

static kw_status keep_name(kw_conversion *c, const kw_tensor *t, void *user, kw_err *e)
{
    if (c->scaled && kw__is_scale(single_file(c->source), t->name))
        return KW_OK;
    if (c->want.averages && kw_starts_with(t->name, "model_ema."))
        return leave(c, t, e);
    return add_as_is(c, user, KW_N_PARTS, t->name, t, e);
}

typedef struct { kw__new_file *f; kw_part part; const char *prefix; } rest_of_part;

/* position_ids and the like, which older programs ask for. */
static kw_status keep_below(kw_conversion *c, const kw_tensor *t, void *user, kw_err *e)
{
    rest_of_part *r = user;
    char *name = kw_sprintf(c->arena, "%s%s", r->prefix, t->name);
    return name ? add_as_is(c, r->f, KW_N_PARTS, name, t, e) : no_memory(c, e);
}

static bool is_ldm(const kw_source *s)
{
    int parts = 0, canonical = 0;
    for (int p = 0; p < KW_N_PARTS; p++) {
        parts += s->parts[p].n > 0;
        canonical += s->parts[p].n && (s->parts[p].keys == KW__CANONICAL || s->parts[p].keys == KW_KEYS_OLD_VAE
                                       || kw_starts_with(s->parts[p].prefix, "text_encoder"));
    }
    return parts == 1 || !canonical;
}

/* Under the names it has. A tensor that q, k and v were is one tensor. */
static kw_status copy_file(kw_conversion *c, kw__new_file *f, const kw_tensors *file, kw_err *e)
{
    const kw_source *s = c->source;
    const kw_tensor *before = NULL;
    for (int p = 0; p < KW_N_PARTS; p++)
        for (size_t i = 0; i < s->parts[p].n; i++) {
            const kw__entry *one = &s->parts[p].entries[i];
            if (one->how == KW__THIRD_K || one->how == KW__THIRD_V || one->raw == before)
                continue;
            before = one->raw;
            KW_TRY(add_as_is(c, f, (kw_part)p, one->raw->name, one->raw, e));
        }
    return for_rest(c, file, keep_name, f, e);
}

/* SDXL files say so by an empty tensor where they predict v; other programs know no other sign. */
static kw_status add_markers(kw_conversion *c, kw__new_file *f, kw_err *e)
{
    static const char none[8];
    static const kw_tensor markers[] = {
        { .name = "v_pred", .dtype = KW_F32, .rank = 1, .data = none },
        { .name = "ztsnr", .dtype = KW_F32, .rank = 1, .data = none },
    };
    const kw_source *s = c->source;
    bool v = !strcmp(s->noise.prediction_type, "v_prediction") && s->parts[KW_PART_UNET].n;
    bool xl = json_integer_value(json_object_get(s->parts[KW_PART_UNET].config, "cross_attention_dim")) == 2048
        || s->parts[KW_PART_TEXT2].n;
    for (size_t i = 0; i < 2 && v && xl && (!i || s->noise.rescale_betas_zero_snr); i++)
        if (!s->is_single || !kw_tensors_find(single_file(s), markers[i].name))
            KW_TRY(add_as_is(c, f, KW_N_PARTS, markers[i].name, &markers[i], e));
    return KW_OK;
}

static kw_status to_file(kw_conversion *c, kw_err *e)
{
    const kw_source *s = c->source;
    kw__new_file *f = &c->files[c->n++];
    f->shown.file = "";
    f->part = KW_N_PARTS;
    c->scaled = kw__n_scaled(s) && c->want.type != KW_KEEP;       /* their products are written */
    if (s->is_single && is_ldm(s) && !c->scaled && !c->want.make)     /* making goes by canonical names */
        return copy_file(c, f, single_file(s), e);
    for (int p = 0; p < KW_N_PARTS; p++) {
        spelling sp = spelling_of(s, (kw_part)p);
        rest_of_part rest = { f, (kw_part)p, sp.prefix };
        for (size_t i = 0; i < s->parts[p].n; i++)
            KW_TRY(add_ldm(c, f, (kw_part)p, &sp, &s->parts[p].entries[i].t, e));
        if (!s->is_single && s->parts[p].file)
            KW_TRY(for_rest(c, s->parts[p].file, keep_below, &rest, e));
    }
    KW_TRY(add_markers(c, f, e));
    return s->is_single ? for_rest(c, single_file(s), keep_name, f, e) : KW_OK;
}

/* ---- to a folder ------------------------------------------------------------------------------------------------- */

static kw__new_file *file_of(kw_conversion *c, kw_part p)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->files[i].part == p)
            return &c->files[i];
    return NULL;
}

static kw_status keep_in_part(kw_conversion *c, const kw_tensor *t, void *user, kw_err *e)
{
    return add_as_is(c, user, KW_N_PARTS, t->name, t, e);
}

/* CLIP's position_ids have the same name in both layouts. */
static kw_status keep_or_leave(kw_conversion *c, const kw_tensor *t, void *user, kw_err *e)
{
    (void)user;
    for (int p = KW_PART_TEXT; p <= KW_PART_TEXT2; p++) {
        const kw__part *part = &c->source->parts[p];
        if (part->n && part->keys == KW_KEYS_TEXT && kw_starts_with(t->name, part->prefix)
            && !strcmp(t->name + strlen(part->prefix), "text_model.embeddings.position_ids"))
            return add_as_is(c, file_of(c, (kw_part)p), KW_N_PARTS, t->name + strlen(part->prefix), t, e);
    }
    return leave(c, t, e);
}

static kw_status to_folder(kw_conversion *c, kw_err *e)
{
    const kw_source *s = c->source;
    for (int p = 0; p < KW_N_PARTS; p++) {
        kw__new_file *f = &c->files[c->n];
        const char *stem = p == KW_PART_TEXT || p == KW_PART_TEXT2 ? "model" : "diffusion_pytorch_model";
        if (!s->parts[p].n)
            continue;
        f->part = (kw_part)p;
        if (!(f->shown.file = kw_sprintf(c->arena, "%s/%s.safetensors", kw_part_name((kw_part)p), stem)))
            return no_memory(c, e);
        c->n++;
        for (size_t i = 0; i < s->parts[p].n; i++)
            KW_TRY(add_as_is(c, f, (kw_part)p, s->parts[p].entries[i].t.name, &s->parts[p].entries[i].t, e));
        if (!s->is_single && s->parts[p].file)
            KW_TRY(for_rest(c, s->parts[p].file, keep_in_part, f, e));
    }
    if (s->is_single)
        KW_TRY(for_rest(c, single_file(s), keep_or_leave, NULL, e));
    return kw__convert_folder_files(c, e);
}

/* ---- the plan ---------------------------------------------------------------------------------------------------- */

kw_status kw_conversion_plan(kw_arena *a, kw_source *s, const kw_conversion_want *want, kw_conversion **out, kw_err *e)
{
    kw_conversion *c = kw_alloc(a, sizeof *c);
    if (!c)
        return kw__no_memory(e, s->path);
    *c = (kw_conversion){ .arena = a, .source = s, .want = *want };
    KW_TRY(want->folder ? to_folder(c, e) : to_file(c, e));
    KW_TRY(kw__convert_metadata(c, e));
    *out = c;
    return KW_OK;
}

kw_status kw_conversion_of_tensors(kw_arena *a, const kw_tensors *t, const kw_conversion_want *want,
                                   kw_conversion **out, kw_err *e)
{
    kw_conversion *c = kw_alloc(a, sizeof *c);
    if (!c)
        return kw__no_memory(e, t->path);
    *c = (kw_conversion){ .arena = a, .want = *want };
    kw__new_file *f = &c->files[c->n++];
    f->shown.file = "";
    f->part = KW_N_PARTS;
    for (size_t i = 0; i < t->n; i++)
        KW_TRY(add_as_is(c, f, KW_N_PARTS, t->tensors[i].name, &t->tensors[i], e));
    for (size_t i = 0; i < t->n_meta; i++)
        KW_TRY(kw__meta_add(c, f, t->meta[i].key, t->meta[i].value, e));
    *out = c;
    return KW_OK;
}

size_t kw_conversion_n(const kw_conversion *c) { return c->n; }
const kw_converted *kw_conversion_at(const kw_conversion *c, size_t i) { return &c->files[i].shown; }
size_t kw_conversion_n_left(const kw_conversion *c) { return c->left.n; }
const char *kw_conversion_left(const kw_conversion *c, size_t i) { return c->left.texts[i]; }

uint64_t kw_conversion_bytes(const kw_conversion *c)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < c->n; i++)
        bytes += c->files[i].shown.bytes;
    return bytes;
}
