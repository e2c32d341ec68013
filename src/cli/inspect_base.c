/* inspect_base.c - a Stable Diffusion model, folder or file: parts, configurations, noise schedule, guesses. */
#include "inspect.h"

#include <string.h>

static void add_list(kw_str *s, const char *what, const json_t *list)
{
    if (!json_is_array(list))
        return;
    kw_str_printf(s, "%s%s ", s->n ? ", " : "", what);
    for (size_t i = 0; i < json_array_size(list); i++)
        kw_str_printf(s, "%s%lld", i ? "-" : "", (long long)json_integer_value(json_array_get(list, i)));
}

static void add_number(kw_str *s, const char *what, const json_t *v)
{
    if (json_is_number(v))
        kw_str_printf(s, "%s%s %g", s->n ? ", " : "", what, json_number_value(v));
}

/* The fields by which people know a geometry. */
static json_t *shape(const json_t *config)
{
    static const char *const lists[] = { "block_out_channels" };
    static const char *const numbers[] = { "cross_attention_dim", "in_channels", "latent_channels", "layers_per_block",
                                           "sample_size",
                                           "scaling_factor", "hidden_size", "num_hidden_layers", "vocab_size" };
    kw_str s = { 0 };
    for (size_t i = 0; i < KW_LEN(lists); i++)
        add_list(&s, lists[i], json_object_get(config, lists[i]));
    for (size_t i = 0; i < KW_LEN(numbers); i++)
        add_number(&s, numbers[i], json_object_get(config, numbers[i]));
    json_t *text = json_string(s.s ? s.s : "");
    kw_str_free(&s);
    return text;
}

static void add_fault(json_t *notes, const char *part, const char *what, const kw_number_fault *f)
{
    if (f->n)
        json_array_append_new(notes, kw_inspect_text(_(what), part, f->n, f->first));
}

static void add_faults(const kw_source *s, json_t *notes)
{
    kw_numbers n;
    for (int p = 0; p < KW_N_PARTS; p++) {
        const char *part = kw_part_name((kw_part)p);
        kw_source_numbers(s, (kw_part)p, &n);
        add_fault(notes, part, N_("%s: %zu tensors hold NaN or infinity and cannot be used, the first is %s"), &n.bad);
        add_fault(notes, part, N_("%s: %zu matrices are zero altogether, the first is %s"), &n.zero);
        add_fault(notes, part, N_("%s: %zu tensors hold numbers of 10000 and more, the first is %s"), &n.huge);
        add_fault(notes, part, N_("%s: %zu tensors hold numbers next to nothing (denormals), the first is %s"),
                  &n.faint);
    }
}

static kw_status add_part(kw_arena *a, kw_source *s, kw_part p, bool hash, json_t *parts, kw_err *e)
{
    size_t n = kw_source_n(s, p);
    int64_t numbers = 0;
    char hex[65];
    const kw_tensor **t = kw_alloc_array(a, n + 1, sizeof *t);
    kw_tensor *list = kw_alloc_array(a, n + 1, sizeof *list);
    if (!t || !list)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        list[i] = *kw_source_at(s, p, i);
        list[i].dtype = kw_source_raw(s, p, i)->dtype;            /* as it lies in the file */
        t[i] = &list[i];
    }
    json_t *types = kw_inspect_types(t, n, &numbers), *part = json_object();
    json_object_set_new(part, "parameters", json_integer(numbers));
    json_object_set_new(part, "dtypes", types);
    json_object_set_new(part, "shape", shape(kw_source_config(s, p)));
    json_object_set(part, "config", kw_source_config(s, p));
    if (json_object_set_new(parts, kw_part_name(p), part))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!hash)
        return KW_OK;
    KW_TRY(kw_source_hash(s, p, hex, e));
    return json_object_set_new(part, "hash", json_string(hex)) ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

static json_t *scheduler(const kw_source *s)
{
    const kw_noise_config *c = kw_source_noise(s);
    return json_pack("{s:s, s:s*, s:s, s:f, s:f, s:s, s:i, s:b, s:b}", "prediction_type", c->prediction_type,
                     "prediction_from", c->prediction_from, "beta_schedule", c->beta_schedule,
                     "beta_start", c->beta_start, "beta_end", c->beta_end, "timestep_spacing", c->timestep_spacing,
                         "num_train_timesteps",
                     c->num_train_timesteps, "rescale_betas_zero_snr", (int)c->rescale_betas_zero_snr, "is_guess",
                         (int)c->is_guess);
}

static void add_remarks(const kw_source *s, bool numbers, json_t *r)
{
    json_t *notes = json_array(), *unknown = json_array();
    if (numbers)
        add_faults(s, notes);
    for (size_t i = 0; i < kw_source_n_notes(s); i++)
        json_array_append_new(notes, json_string(kw_source_note(s, i)));
    for (size_t i = 0; i < kw_source_n_unknown(s) && i < 20; i++)
        json_array_append_new(unknown, json_string(kw_source_unknown(s, i)));
    if (kw_source_n_unknown(s) > 20)
        json_array_append_new(unknown, kw_inspect_text("... %zu", kw_source_n_unknown(s)));
    if (json_array_size(notes))
        json_object_set(r, "notes", notes);
    if (json_array_size(unknown))
        json_object_set(r, "unknown", unknown);
    json_decref(notes);
    json_decref(unknown);
}

kw_status kw_inspect_base(kw_cli *c, const char *path, bool hashes, json_t *r, kw_err *e)
{
    kw_source *s;
    KW_TRY(kw_source_open(c->arena, path, &s, e));
    json_t *parts = json_object();
    json_object_set_new(r, "kind", json_string(kw_source_is_single(s) ? N_("model file") : N_("model folder")));
    json_object_set_new(r, "family", json_string(kw_source_family(s)));
    if (kw_source_input(s))
        json_object_set_new(r, "input", json_string(kw_source_input(s)));
    json_object_set_new(r, "parts", parts);
    for (int p = 0; p < KW_N_PARTS; p++)
        if (kw_source_has(s, (kw_part)p))
            KW_TRY(add_part(c->arena, s, (kw_part)p, hashes, parts, e));
    if (kw_source_has(s, KW_PART_UNET))
        json_object_set_new(r, "scheduler", scheduler(s));
    const char *tokenizer = kw_source_tokenizer(s, KW_PART_TEXT);
    if (kw_source_has(s, KW_PART_TEXT))
        json_object_set_new(r, "tokenizer", json_string(tokenizer ? tokenizer : "CLIP ViT-L/14"));
    add_remarks(s, hashes, r);
    return KW_OK;
}
