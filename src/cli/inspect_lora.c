/* inspect_lora.c - a LoRA: whom it fits, ranks, trigger words, which programs read it; and any other tensor file. */
#include "inspect.h"

#include "adapter/adapter.h"

#include <math.h>
#include <string.h>

/* ---- is it one? ------------------------------------------------------------------------------------------------- */

/* Pieces of keys that nothing else has. */
static const char *const signs[] = { ".lora_down.weight",
                                     ".lora_A.",
                                     ".lora.down.weight",
                                     "_lora.down.weight",
                                     ".lora_linear_layer.",
                                     ".hada_w1_a",
                                     ".lokr_w1",
                                     ".oft_blocks",
                                     ".dora_scale",
                                     ".on_input",
                                     ".ia3_l",
                                     ".lora_mid." };
static const char *const tails[] = { ".diff", ".diff_b", ".w_norm", ".b_norm", ".set_weight", ".a1.weight" };

bool kw_is_lora(const kw_tensors *t)
{
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const char *name = kw_tensors_at(t, i)->name;
        for (size_t k = 0; k < KW_LEN(signs); k++)
            if (strstr(name, signs[k]))
                return true;
        for (size_t k = 0; k < KW_LEN(tails); k++)
            if (kw_ends_with(name, tails[k]))
                return true;
    }
    return false;
}

/* A folder of PEFT's or diffusers'. */
bool kw_is_lora_folder(kw_arena *a, const char *path)
{
    static const char *const inside[] = { "adapter_model.safetensors", "adapter_model.bin",
                                          "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin" };
    for (size_t i = 0; i < KW_LEN(inside); i++) {
        char *one = kw_path_join(a, path, inside[i]);
        if (one && kw_is_file(one))
            return true;
    }
    return false;
}

static const char *family(const kw_lora_file *f)
{
    const char *known = kw_lora_file_family(f);
    if (known)
        return known;
    for (size_t i = 0; i < f->n_unknown; i++)
        if (strstr(f->unknown[i], "double_blocks") || kw_starts_with(f->unknown[i], "transformer.")
            || strstr(f->unknown[i], "lora_transformer_"))
            return N_("not a Stable Diffusion 1.x, 2.x or XL model");
    return kw_lora_file_width(f) ? N_("Stable Diffusion, another size") : N_("unknown");
}

/* ---- methods, ranks, alphas, layers ----------------------------------------------------------------------------- */

static void add_count(json_t *counts, const char *key, json_int_t more)
{
    json_object_set_new(counts, key, json_integer(json_integer_value(json_object_get(counts, key)) + more));
}

static void count(json_t *counts, const char *key) { add_count(counts, key, 1); }

static void add_layers(const kw_lora_file *f, json_t *r)
{
    json_t *ranks = json_object(), *alphas = json_object(), *modules = json_object(), *methods = json_object();
    char text[64];
    for (size_t i = 0; i < f->n; i++) {
        const kw_delta *d = &f->item[i];
        bool dora = d->t[KW_ROLE_DORA] || d->t[KW_ROLE_MAGNITUDE];
        snprintf(text, sizeof text, "%s%s", kw_delta_name(d->kind),
                 dora                ? " + DoRA"
                 : d->t[KW_ROLE_MID] ? " (Tucker)"
                                     : "");
        count(methods, text);
        count(modules, kw_part_name(d->part));
        snprintf(text, sizeof text, "%d", d->rank);
        if (d->rank)
            count(ranks, text);
        snprintf(text, sizeof text, "%g", d->scale * d->rank);
        if (d->rank)
            count(alphas, text);
    }
    json_object_set_new(r, "methods", methods);
    json_object_set_new(r, "modules", modules);
    json_object_set_new(r, "ranks", ranks);
    json_object_set_new(r, "alphas", alphas);
}

/* ---- what its metadata say --------------------------------------------------------------------------------------- */

static const char *meta(const kw_tensors *t, const char *key)
{
    const char *v = kw_tensors_meta(t, key);
    return v && *v && strcmp(v, "None") ? v : NULL;
}

/* ss_tag_frequency: {"10_kiwa": {"kiwa": 18, ...}}; the most frequent tags of all folders. */
static json_t *frequent_tags(const kw_tensors *t)
{
    enum { MOST = 12 };
    const char *text = meta(t, "ss_tag_frequency"), *folder, *tag;
    json_t *all = text ? json_loads(text, 0, NULL) : NULL, *sum = json_object(), *best = json_object(), *tags, *n;
    json_object_foreach(all, folder, tags)
        json_object_foreach(tags, tag, n)
            add_count(sum, tag, json_integer_value(n));
    while (json_object_size(best) < MOST && json_object_size(sum)) {
        const char *top = NULL;
        json_int_t most = -1;
        json_object_foreach(sum, tag, n)
            if (json_integer_value(n) > most) {
                most = json_integer_value(n);
                top = tag;
            }
        json_object_set_new(best, top, json_integer(most));
        json_object_del(sum, top);
    }
    json_decref(all);
    json_decref(sum);
    return best;
}

static void add_origin(const kw_tensors *t, json_t *r)
{
    static const struct { const char *key, *meta; } rows[] = {
        { "title", "modelspec.title" }, { "trained_on", "ss_sd_model_name" },
        { "trigger_words", "modelspec.trigger_phrase" },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++)
        if (meta(t, rows[i].meta))
            json_object_set_new(r, rows[i].key, json_string(meta(t, rows[i].meta)));
    json_t *tags = frequent_tags(t);
    if (json_object_size(tags))
        json_object_set(r, "frequent_tags", tags);
    json_decref(tags);
}

/* Who takes these names and all of these methods; kiwame does, but for keys that mean nothing here. */
static void name_readers(const kw_lora_file *f, json_t *list)
{
    bool plain = true, ia3 = false, kohya = f->dialect == KW_DIALECT_KOHYA,
         old = f->dialect == KW_DIALECT_DIFFUSERS_2023;
    for (size_t i = 0; i < f->n; i++) {
        plain &= f->item[i].kind == KW_DELTA_LORA && !f->item[i].t[KW_ROLE_MID] && !f->item[i].t[KW_ROLE_DIFF_B];
        ia3 |= f->item[i].kind == KW_DELTA_IA3;
    }
    const struct { const char *name; bool reads; } readers[] = {
        { "kiwame", !f->n_unknown }, { "A1111", kohya }, { "Forge", kohya },
        { "ComfyUI", !ia3 && f->dialect != KW_DIALECT_PEFT && !old },
        { "diffusers", plain && f->dialect != KW_DIALECT_LYCORIS && f->dialect != KW_DIALECT_PEFT },
        { "PEFT", f->dialect == KW_DIALECT_PEFT },
    };
    for (size_t i = 0; i < KW_LEN(readers); i++)
        if (readers[i].reads)
            json_array_append_new(list, json_string(readers[i].name));
}

/* A1111 lists files with metadata; Forge tells SD 1.x by modelspec.architecture. Both load the others by tag. */
static void add_readers(const kw_lora_file *f, json_t *r)
{
    const kw_tensors *t = f->file;
    json_t *list = json_array(), *notes = json_array();
    name_readers(f, list);
    if (!kw_tensors_n_meta(t))
        json_array_append_new(notes, json_string(N_("no metadata: A1111 does not list it for a family")));
    else if (!meta(t, "modelspec.architecture"))
        json_array_append_new(notes, json_string(N_("no modelspec.architecture: Forge does not know its family")));
    if (meta(t, "sshs_model_hash") && kw_starts_with(meta(t, "sshs_model_hash"), "e3b0c442"))
        json_array_append_new(notes, json_string(N_("sshs_model_hash is the hash of nothing: its writer has a fault")));
    if (f->n_bundled)
        json_array_append_new(notes, json_string(N_("embeddings come along in it (bundle_emb)")));
    json_object_set_new(r, "read_by", list);
    json_object_set_new(r, "notes", notes);
}

/* What a checkpoint of PyTorch has around and beside its tensors. */
static void add_surroundings(const kw_tensors *t, json_t *r)
{
    json_t *notes = json_object_get(r, "notes");
    if (!notes && !json_object_set_new(r, "notes", json_array()))
        notes = json_object_get(r, "notes");
    if (kw_tensors_wrapped(t))
        json_array_append_new(notes, kw_inspect_text(_(N_("the weights lie in %s: left out of their names")),
                                                     kw_tensors_wrapped(t)));
    if (kw_tensors_note(t))
        json_array_append_new(notes, json_string(kw_tensors_note(t)));
    if (!json_array_size(notes))
        json_object_del(r, "notes");
}

static void add_unknown(const kw_lora_file *f, json_t *r)
{
    enum { SHOWN = 20 };
    json_t *list = json_array();
    for (size_t i = 0; i < f->n_unknown && i < SHOWN; i++)
        json_array_append_new(list, json_string(f->unknown[i]));
    if (f->n_unknown > SHOWN)
        json_array_append_new(list, json_string("..."));
    if (f->n_unknown)
        json_object_set(r, "unknown", list);
    json_decref(list);
}

static void add_lora(const kw_lora_file *f, json_t *r)
{
    bool plain = true;
    for (size_t i = 0; i < f->n; i++)
        plain &= f->item[i].kind == KW_DELTA_LORA;
    json_object_set_new(r, "kind", json_string(plain ? N_("LoRA") : N_("LyCORIS")));
    json_object_set_new(r, "names", json_string(kw_dialect_name(f->dialect)));
    json_object_set_new(r, "family", json_string(family(f)));
    add_layers(f, r);
    add_origin(f->file, r);
    add_readers(f, r);
    add_unknown(f, r);
}

/* ---- any tensor file --------------------------------------------------------------------------------------------- */

static const char *other_kind(const kw_tensors *t)
{
    static const struct { const char *piece, *kind; } known[] = {
        { "emb_params", N_("textual inversion (an embedding)") }, { "control_model.", N_("ControlNet") },
        { "controlnet_cond_embedding", N_("ControlNet") },
        { "input_hint_block", N_("ControlNet") }, { "double_blocks", N_("FLUX model") },
        { "joint_blocks", N_("Stable Diffusion 3 model") },
    };
    for (size_t i = 0; i < kw_tensors_n(t); i++)
        for (size_t k = 0; k < KW_LEN(known); k++)
            if (strstr(kw_tensors_at(t, i)->name, known[k].piece))
                return known[k].kind;
    return N_("tensor file");
}

kw_status kw_inspect_tensors(kw_cli *c, const char *path, json_t *r, kw_err *e)
{
    kw_tensors *t = NULL;
    kw_lora_file *f = NULL;
    if (kw_is_dir(path))
        KW_TRY(kw_lora_file_open(c->arena, path, NULL, &f, e));
    else
        KW_TRY(kw_tensors_open(c->arena, path, &t, e));
    t = f ? f->file : t;
    if (!f && kw_is_lora(t))
        KW_TRY(kw_lora_file_open(c->arena, path, NULL, &f, e));
    size_t n = kw_tensors_n(t);
    int64_t numbers = 0;
    const kw_tensor **list = kw_alloc_array(c->arena, n + 1, sizeof *list);
    if (!list)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        list[i] = kw_tensors_at(t, i);
    if (f)
        add_lora(f, r);
    else
        json_object_set_new(r, "kind", json_string(other_kind(t)));
    add_surroundings(t, r);
    json_object_set_new(r, "tensors", json_integer((json_int_t)n));
    json_object_set_new(r, "dtypes", kw_inspect_types(list, n, &numbers));
    json_object_set_new(r, "parameters", json_integer(numbers));
    return KW_OK;
}
