/* inspect_lora.c - a LoRA: whom it fits, ranks, trigger words, which programs read it; and any other tensor file. */
#include "inspect.h"

#include <math.h>
#include <string.h>

/* ---- how its keys are spelled ------------------------------------------------------------------------------------ */

typedef enum { KOHYA, PEFT, LYCORIS, N_SPELLINGS } spelling;

/* A key ending that tells, whose keys it is in, and who reads such files. */
static const struct { const char *piece; spelling kind; } signs[] = {
    { ".lora_down.weight", KOHYA }, { ".lora_A.", PEFT }, { ".lora.down.weight", PEFT }, { "_lora.down.weight", PEFT },
    { ".hada_w1_a", LYCORIS }, { ".lokr_w1", LYCORIS }, { ".oft_", LYCORIS }, { ".dora_scale", LYCORIS },
};
static const char *const kinds[N_SPELLINGS] = { N_("LoRA, kohya's names"), N_("LoRA, diffusers' names"),
                                                N_("LyCORIS") };
static const struct { const char *name; bool reads[N_SPELLINGS]; } readers[] = {
    { "kiwame", { true, false, false } }, { "A1111", { true, false, true } }, { "Forge", { true, false, true } },
    { "ComfyUI", { true, true, true } }, { "diffusers", { true, true, false } },
};

static bool spelled(const kw_tensors *t, spelling *s)
{
    bool any = false;
    *s = KOHYA;
    for (size_t i = 0; i < kw_tensors_n(t); i++)
        for (size_t k = 0; k < KW_LEN(signs); k++)
            if (strstr(kw_tensors_at(t, i)->name, signs[k].piece)) {
                any = true;
                *s = KW_MAX(*s, signs[k].kind);
            }
    return any;
}

bool kw_is_lora(const kw_tensors *t)
{
    spelling s;
    return spelled(t, &s);
}

static const char *family(const kw_tensors *t)
{
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const kw_tensor *w = kw_tensors_at(t, i);
        if (strstr(w->name, "lora_te2_") || strstr(w->name, "text_encoder_2"))
            return N_("SDXL");
        if (strstr(w->name, "double_blocks") || strstr(w->name, "transformer.") == w->name
            || strstr(w->name, "diffusion_model.") == w->name)
            return N_("not a Stable Diffusion 1.x, 2.x or XL model");
        bool reads_text = strstr(w->name, "attn2") && (strstr(w->name, "to_k") || strstr(w->name, "to_v"));
        if (!reads_text || w->rank < 2 || !(strstr(w->name, "down") || strstr(w->name, "lora_A")))
            continue;
        int64_t n = w->shape[1];
        return n == 768 ? N_("Stable Diffusion 1.x") : n == 1024 ? N_("Stable Diffusion 2.x") : n == 2048 ? N_("SDXL")
            : N_("Stable Diffusion, another size");
    }
    return N_("unknown");
}

/* ---- ranks, alphas, layers --------------------------------------------------------------------------------------- */

static void add_count(json_t *counts, const char *key, json_int_t more)
{
    json_object_set_new(counts, key, json_integer(json_integer_value(json_object_get(counts, key)) + more));
}

static void count(json_t *counts, const char *key) { add_count(counts, key, 1); }

static const char *part_of(const char *name)
{
    return kw_starts_with(name, "lora_te2_") || kw_starts_with(name, "text_encoder_2") ? "text_encoder_2"
           : kw_starts_with(name, "lora_te") || kw_starts_with(name, "text_encoder") ? "text_encoder" : "unet";
}

static void add_ranks(const kw_tensors *t, json_t *r)
{
    json_t *ranks = json_object(), *alphas = json_object(), *modules = json_object();
    char text[64];
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const kw_tensor *w = kw_tensors_at(t, i);
        bool down = strstr(w->name, "lora_down.weight") || strstr(w->name, "lora.down.weight")
            || strstr(w->name, ".lora_A.");
        if (kw_ends_with(w->name, ".alpha") && kw_tensor_count(w) == 1) {
            double v;
            kw_convert(KW_F64, &v, w->dtype, w->data, 1);
            snprintf(text, sizeof text, "%g", v);
            count(alphas, text);
        }
        if (!down || w->rank < 2)
            continue;
        snprintf(text, sizeof text, "%lld", (long long)w->shape[0]);
        count(ranks, text);
        count(modules, part_of(w->name));
    }
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

/* A1111 lists files with metadata; Forge tells SD 1.x by modelspec.architecture. Both load the others by tag. */
static void add_readers(const kw_tensors *t, spelling s, json_t *r)
{
    json_t *list = json_array(), *notes = json_array();
    for (size_t i = 0; i < KW_LEN(readers); i++)
        if (readers[i].reads[s])
            json_array_append_new(list, json_string(readers[i].name));
    if (!kw_tensors_n_meta(t))
        json_array_append_new(notes, json_string(N_("no metadata: A1111 does not list it for a family")));
    else if (!meta(t, "modelspec.architecture"))
        json_array_append_new(notes, json_string(N_("no modelspec.architecture: Forge does not know its family")));
    if (meta(t, "sshs_model_hash") && kw_starts_with(meta(t, "sshs_model_hash"), "e3b0c442"))
        json_array_append_new(notes, json_string(N_("sshs_model_hash is the hash of nothing: its writer has a fault")));
    json_object_set_new(r, "read_by", list);
    if (json_array_size(notes))
        json_object_set(r, "notes", notes);
    json_decref(notes);
}

static void add_lora(const kw_tensors *t, json_t *r)
{
    spelling s;
    (void)spelled(t, &s);
    json_object_set_new(r, "kind", json_string(kinds[s]));
    json_object_set_new(r, "family", json_string(family(t)));
    add_ranks(t, r);
    add_origin(t, r);
    add_readers(t, s, r);
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
    kw_tensors *t;
    KW_TRY(kw_tensors_open(c->arena, path, &t, e));
    size_t n = kw_tensors_n(t);
    int64_t numbers = 0;
    const kw_tensor **list = kw_alloc_array(c->arena, n + 1, sizeof *list);
    if (!list)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        list[i] = kw_tensors_at(t, i);
    if (kw_is_lora(t))
        add_lora(t, r);
    else
        json_object_set_new(r, "kind", json_string(other_kind(t)));
    json_object_set_new(r, "tensors", json_integer((json_int_t)n));
    json_object_set_new(r, "dtypes", kw_inspect_types(list, n, &numbers));
    json_object_set_new(r, "parameters", json_integer(numbers));
    return KW_OK;
}
