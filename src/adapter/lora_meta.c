/*
 * lora_meta.c - ranks and alphas that lie beside the tensors: PEFT's adapter_config.json, diffusers' metadata
 * `lora_adapter_metadata` (the same fields, after "unet." where several parts are in one file).
 *
 *   scale = alpha / r, or alpha / √r with use_rslora; alpha_pattern and rank_pattern name layers that differ
 */
#include "lora_file.h"

#include <math.h>
#include <string.h>

static const char *const known_types[] = { "LORA", "LOHA", "LOKR", "IA3" };

static kw_status check_type(const kw_lora_meta *m, kw_err *e)
{
    const char *type = json_string_value(json_object_get(m->json, "peft_type"));
    for (size_t i = 0; type && i < KW_LEN(known_types); i++)
        if (!strcmp(type, known_types[i]))
            return KW_OK;
    if (!type)
        return KW_OK;
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: PEFT's method %s is not known here"), m->from, type);
    return kw_advise(e, s, N_("LORA (with DoRA and rsLoRA), LOHA, LOKR and IA3 are"));
}

static bool is_prefixed(const json_t *j)
{
    static const char *const parts[] = { "unet.", "text_encoder.", "text_encoder_2." };
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)j, key, v)
        for (size_t i = 0; i < KW_LEN(parts); i++)
            if (kw_starts_with(key, parts[i]))
                return true;
    return false;
}

kw_status kw__lora_meta_read(kw_arena *a, const kw_tensors *t, const char *folder, kw_lora_meta *m, kw_err *e)
{
    json_t *j = NULL;
    const char *text = kw_tensors_meta(t, "lora_adapter_metadata");
    char *path = folder ? kw_path_join(a, folder, "adapter_config.json") : NULL;
    *m = (kw_lora_meta){ .from = path ? path : kw_tensors_path(t) };
    if (folder && !path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (path && kw_is_file(path)) {
        KW_TRY(kw_json_read(a, path, &j, e));
        m->json = j;
        if (!json_is_object(j))
            return kw_fail(e, KW_EDATA, N_("%s: not an object"), path);
        return check_type(m, e);
    }
    if (text) {
        KW_TRY(kw_json_parse(a, kw_tensors_path(t), text, strlen(text), &j, e));
        m->json = json_is_object(j) ? j : NULL;
        m->prefixed = m->json && is_prefixed(j);
    }
    return KW_OK;
}

bool kw__lora_meta_is_second(const kw_lora_meta *m)
{
    const char *name = json_string_value(json_object_get(json_object_get(m->json, "auto_mapping"), "base_model_class"));
    return name && !strcmp(name, "CLIPTextModelWithProjection");
}

static json_t *field(const kw_lora_meta *m, kw_part p, const char *name)
{
    char key[64];
    snprintf(key, sizeof key, "%s%s%s", m->prefixed ? kw_part_name(p) : "", m->prefixed ? "." : "", name);
    return json_object_get(m->json, key);
}

/*
 * PEFT takes patterns as regular expressions, (.*\.)?(KEY)$ over the path. Those in files are paths or their ends, with
 * or without ^ and \. - and that is what is read here; *odd: one that has more to it.
 */
static bool pattern_fits(const char *pattern, const char *path, bool *odd)
{
    char plain[KW_KEY_ROOM];
    bool whole = *pattern == '^';
    size_t n = 0;
    for (const char *s = pattern + whole; *s && n + 1 < sizeof plain; s++) {
        if (*s == '\\' && s[1] == '.')
            continue;
        if (*s == '$' && !s[1])
            break;
        *odd |= strchr("*+?|()[]{}\\^$", *s) != NULL;
        plain[n++] = *s;
    }
    plain[n] = 0;
    size_t length = strlen(path);
    if (n > length || strcmp(path + length - n, plain))
        return false;
    return n == length || (!whole && path[length - n - 1] == '.');
}

static kw_status from_pattern(const kw_lora_meta *m, const kw_delta *d, const char *name, double *v, kw_err *e)
{
    const char *key;
    json_t *value;
    json_object_foreach(field(m, d->part, name), key, value) {
        bool odd = false;
        bool fits = pattern_fits(key, d->path, &odd);
        if (odd)
            return kw_fail(e, KW_EDATA, N_("%s: %s holds the regular expression '%s'; only names of layers are read"),
                           m->from, name, key);
        if (fits && json_is_number(value)) {
            *v = json_number_value(value);
            break;
        }
    }
    return KW_OK;
}

/* A convolution's vector has one shape for inputs and outputs: the configuration's list says which. */
static kw_status ia3_side(const kw_lora_meta *m, kw_delta *d, kw_err *e)
{
    const json_t *list = json_object_get(m->json, "feedforward_modules");
    bool odd = false;
    if (json_is_string(list))
        d->on_input = pattern_fits(json_string_value(list), d->path, &odd);
    for (size_t i = 0; i < json_array_size(list); i++)
        d->on_input |= json_is_string(json_array_get(list, i))
            && pattern_fits(json_string_value(json_array_get(list, i)), d->path, &odd);
    if (odd)
        return kw_fail(e, KW_EDATA, N_("%s: %s holds a regular expression; only names of layers are read"), m->from,
                       "feedforward_modules");
    return KW_OK;
}

kw_status kw__lora_meta_scale(const kw_lora_meta *m, kw_delta *d, kw_err *e)
{
    if (d->t[KW_ROLE_IA3_L] && d->t[KW_ROLE_IA3_L]->rank == 4 && m->json)
        return ia3_side(m, d, e);
    double r = d->rank, alpha;
    json_t *given = m->json ? field(m, d->part, d->kind == KW_DELTA_LORA ? "lora_alpha" : "alpha") : NULL;
    bool scaled = d->kind == KW_DELTA_LORA || d->kind == KW_DELTA_LOHA || d->kind == KW_DELTA_LOKR;
    if (!scaled || d->t[KW_ROLE_ALPHA] || !json_is_number(given))
        return KW_OK;
    alpha = json_number_value(given);
    KW_TRY(from_pattern(m, d, "alpha_pattern", &alpha, e));
    if (d->kind != KW_DELTA_LORA) {       /* LoKr of two whole matrices does not show its rank */
        r = json_number_value(field(m, d->part, "r"));
        KW_TRY(from_pattern(m, d, "rank_pattern", &r, e));
    }
    if (!(r >= 1) || !(fabs(alpha) < 1e6))
        return kw_fail(e, KW_EDATA, N_("%s: rank %g with alpha %g"), m->from, r, alpha);
    d->alpha = alpha;
    d->scale = alpha / (json_is_true(field(m, d->part, "use_rslora")) ? sqrt(r) : r);
    return KW_OK;
}
