/*
 * export_targets.c - the files that each program wants to find, and their texts.
 *
 *   a1111      models/Lora/NAME.safetensors .json .preview.png              (models/Stable-diffusion for whole models)
 *   comfyui    models/loras/NAME.safetensors .preview.png, NAME.extra_model_paths.yaml
 *   diffusers  pytorch_lora_weights.safetensors; a whole model: the folder itself
 *   civitai    NAME.safetensors, images/1.png ..., description.md, trained-words.txt, checklist.md
 *   hf         README.md (model card), NAME.safetensors, images/1.png ...
 *
 * Formats: A1111 modules/ui_extra_networks_user_metadata.py, ComfyUI extra_model_paths.yaml.example, diffusers' cards.
 */
#include "export.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static kw_status no_memory(kw_err *e) { return kw_fail(e, KW_ENOMEM, "out of memory"); }

/* Takes over what `text` holds; a copy of `from` otherwise. */
static kw_status add(kw_export *x, const char *folder, const char *name, kw_str *text, const char *from, kw_err *e)
{
    kw_arena *a = x->cli->arena;
    char *dir = *folder ? kw_path_join(a, x->dir, folder) : kw_strdup(a, x->dir);
    char *path = dir && *name ? kw_path_join(a, dir, name) : dir;
    bool failed = text && (text->failed || !text->n);
    kw_export_file f = { .path = path, .from = from };
    if (text && !failed) {
        f.text = kw_alloc(a, text->n + 1);
        f.n = text->n;
        if (f.text)
            memcpy(f.text, text->s, text->n);
    }
    if (text)
        kw_str_free(text);
    if (!path || failed || (text && !f.text))
        return no_memory(e);
    KW_TRY(kw_grow(a, &x->file, &x->capacity, x->n, sizeof *x->file, e));
    x->file[x->n++] = f;
    return KW_OK;
}

/* Has it other names than the program reads? What nobody here can read goes along as it is. */
static bool respell(kw_export *x, kw_lora_form form)
{
    kw_lora_file *f;
    if (!x->p->lora || kw_lora_file_open(x->cli->arena, x->p->path, NULL, &f, NULL) || f->n_unknown || f->n_bundled)
        return false;
    bool kohya = f->dialect == KW_DIALECT_KOHYA || f->dialect == KW_DIALECT_LYCORIS;
    return form == KW_LORA_KOHYA ? !kohya : f->dialect != KW_DIALECT_DIFFUSERS;
}

/* The product itself, as one file or as a folder, whatever it is now. */
static kw_status add_product(kw_export *x, const char *folder, const char *name, bool to_folder, kw_err *e)
{
    KW_TRY(add(x, folder, name, NULL, x->p->path, e));
    kw_export_file *f = &x->file[x->n - 1];
    f->model = !x->p->lora && (to_folder || x->p->folder);
    f->to_folder = to_folder;
    f->form = x->form;
    f->respell = respell(x, x->form);
    return KW_OK;
}

static char *named(kw_export *x, const char *end) { return kw_sprintf(x->cli->arena, "%s%s", x->p->name, end); }

static kw_status add_sample(kw_export *x, const char *folder, const char *name, size_t i, kw_err *e)
{
    kw_str png = { 0 };
    kw_status s = name ? kw_product_sample(x->cli, x->p, i, &png, e) : no_memory(e);
    if (s) {
        kw_str_free(&png);
        return s;
    }
    return add(x, folder, name, &png, NULL, e);
}

static kw_status add_images(kw_export *x, kw_err *e)
{
    char name[32];
    for (size_t i = 0; i < x->p->n_samples; i++) {
        snprintf(name, sizeof name, "%zu.png", i + 1);
        KW_TRY(add_sample(x, "images", name, i, e));
    }
    return KW_OK;
}

/* A program's own folder has models/; any other folder takes the files as they are. */
static const char *place(const kw_export *x, const char *inside)
{
    char *models = kw_path_join(x->cli->arena, x->dir, "models");
    return models && kw_is_dir(models) ? inside : "";
}

/* ---- A1111, Forge ------------------------------------------------------------------------------------------------ */

static const char *short_family(kw_sd_family f)
{
    return f == KW_SD_1 ? "SD1" : f == KW_SD_2 ? "SD2" : f == KW_SD_XL ? "SDXL" : "Unknown";
}

static kw_status user_metadata(const kw_export *x, kw_str *out, kw_err *e)
{
    const kw_product *p = x->p;
    json_t *j = json_pack("{s:s, s:s, s:s, s:f, s:s, s:s}", "description", p->title ? p->title : "", "sd version",
                          short_family(p->family), "activation text", p->words ? p->words : "", "preferred weight",
                              x->weight,
                          "negative text", "", "notes", "");
    char *text = j ? json_dumps(j, JSON_INDENT(4) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(j);
    if (!text)
        return kw_fail(e, KW_EDATA, N_("%s: its metadata are not valid UTF-8"), p->path);
    kw_str_add(out, text);
    free(text);
    return KW_OK;
}

kw_status kw_export_a1111(kw_export *x, kw_err *e)
{
    const char *folder = place(x, x->p->lora ? "models/Lora" : "models/Stable-diffusion");
    kw_str text = { 0 };
    KW_TRY(add_product(x, folder, named(x, ".safetensors"), false, e));
    if (x->p->lora) {
        KW_TRY(user_metadata(x, &text, e));
        KW_TRY(add(x, folder, named(x, ".json"), &text, NULL, e));
    }
    return x->p->n_samples ? add_sample(x, folder, named(x, ".preview.png"), 0, e) : KW_OK;
}

/* ---- ComfyUI ----------------------------------------------------------------------------------------------------- */

kw_status kw_export_comfyui(kw_export *x, kw_err *e)
{
    const char *kind = x->p->lora ? "loras" : "checkpoints";
    char inside[40], whole[PATH_MAX];
    kw_str text = { 0 };
    snprintf(inside, sizeof inside, "models/%s", kind);
    const char *folder = place(x, inside);
    KW_TRY(add_product(x, folder, named(x, ".safetensors"), false, e));
    if (x->p->n_samples)
        KW_TRY(add_sample(x, folder, named(x, ".preview.png"), 0, e));
    if (*folder)                          /* ComfyUI's own tree needs no pointer to itself */
        return KW_OK;
    KW_TRY(kw_mkdirs(x->dir, e));
    kw_str_add(&text, "# to be added to ComfyUI's extra_model_paths.yaml\nkiwame:\n    base_path: ");
    kw_show_json_text(&text, realpath(x->dir, whole) ? whole : x->dir);
    kw_str_printf(&text, "\n    %s: .\n", kind);
    return add(x, "", "extra_model_paths.yaml", &text, NULL, e);
}

/* ---- diffusers --------------------------------------------------------------------------------------------------- */

/* The file is named so that load_lora_weights finds it in the folder. */
kw_status kw_export_diffusers(kw_export *x, kw_err *e)
{
    x->form = KW_LORA_DIFFUSERS;
    if (x->p->lora)
        return add_product(x, "", "pytorch_lora_weights.safetensors", false, e);
    return add_product(x, "", x->p->name, true, e);
}

/* ---- Civitai ----------------------------------------------------------------------------------------------------- */

static void training(const kw_export *x, kw_str *s)
{
    const kw_product *p = x->p;
    const struct { const char *label, *value; } rows[] = {
        { "base", p->base_repo ? p->base_repo : p->base }, { "resolution", p->resolution }, { "training pictures",
                                                                                              p->pictures },
        { "steps", p->steps }, { "learning rate", p->rate }, { "rank", p->rank },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++)
        if (rows[i].value)
            kw_str_printf(s, "- %s: %s\n", rows[i].label, rows[i].value);
    kw_str_add(s, "- made with kiwame " KW_VERSION "\n");
}

static void describe(const kw_export *x, kw_str *s)
{
    const kw_product *p = x->p;
    kw_str_printf(s, "# %s\n\n", p->title ? p->title : p->name);
    if (p->lora)
        kw_str_printf(s, "Trigger words: %s. Strength: %g.\n\n`%s <lora:%s:%g>`\n\n", p->words ? p->words : "none",
                      x->weight,
                      p->words ? p->words : "", p->name, x->weight);
    training(x, s);
}

static void checklist(const kw_export *x, kw_str *s)
{
    const kw_product *p = x->p;
    static const char *const bases[] = { "Other", "SD 1.5", "SD 2.1", "SDXL 1.0", "Other" };
    kw_str_printf(s, "- [ ] Type: %s\n- [ ] Base model: %s\n", p->lora ? "LoRA" : "Checkpoint (Trained)",
                  bases[p->family]);
    kw_str_printf(s, "- [ ] File: %s.safetensors\n", p->name);
    if (p->words)
        kw_str_printf(s, "- [ ] Trained words: %s (trained-words.txt)\n", p->words);
    else
        kw_str_add(s, "- [ ] Trained words: tick \"This version doesn't require any trigger words\"\n");
    kw_str_add(s, "- [ ] Description: description.md\n- [ ] Category: character, style, concept, clothing ...\n");
    kw_str_printf(s, "- [ ] Pictures: images/ (%zu; a post needs one at least; their settings are read from them)\n",
                  p->n_samples);
    kw_str_printf(s, "- [ ] Licence and permissions%s%s\n", x->licence ? ": " : "", x->licence ? x->licence : "");
    kw_str_add(s, "- [ ] May the training pictures be used so? Real people: not without their consent\n");
}

kw_status kw_export_civitai(kw_export *x, kw_err *e)
{
    kw_str about = { 0 }, list = { 0 }, words = { 0 };
    KW_TRY(add_product(x, "", named(x, ".safetensors"), false, e));
    describe(x, &about);
    KW_TRY(add(x, "", "description.md", &about, NULL, e));
    checklist(x, &list);
    KW_TRY(add(x, "", "checklist.md", &list, NULL, e));
    if (x->p->words) {
        kw_str_printf(&words, "%s\n", x->p->words);
        KW_TRY(add(x, "", "trained-words.txt", &words, NULL, e));
    }
    return add_images(x, e);
}

/* ---- Hugging Face ------------------------------------------------------------------------------------------------ */

static void yaml(kw_str *s, const char *key, const char *value)
{
    if (!value)
        return;
    kw_str_printf(s, "%s: ", key);
    kw_show_json_text(s, value);          /* a JSON text is one of YAML's */
    kw_str_add(s, "\n");
}

static void front_matter(const kw_export *x, kw_str *s)
{
    const kw_product *p = x->p;
    kw_str_add(s, "---\n");
    yaml(s, "license", x->licence);
    kw_str_add(s, "library_name: diffusers\n");
    yaml(s, "base_model", p->base_repo);
    yaml(s, "instance_prompt", p->words);
    kw_str_printf(s, "tags:\n- text-to-image\n- diffusers\n%s- %s\n- %s-diffusers\n",
                  p->lora ? "- lora\n- template:sd-lora\n" : "", p->family == KW_SD_XL ? "stable-diffusion-xl"
                      : "stable-diffusion",
                  p->family == KW_SD_XL ? "stable-diffusion-xl" : "stable-diffusion");
    kw_str_add(s, p->n_samples ? "widget:\n" : "");
    for (size_t i = 0; i < p->n_samples; i++) {
        kw_str_add(s, "- text: ");
        kw_show_json_text(s, p->sample[i].prompt);
        kw_str_printf(s, "\n  output:\n    url: images/%zu.png\n", i + 1);
    }
    kw_str_add(s, "---\n\n");
}

static void model_card(const kw_export *x, kw_str *s)
{
    const kw_product *p = x->p;
    front_matter(x, s);
    kw_str_printf(s, "# %s\n\n", p->title ? p->title : p->name);
    kw_str_add(s, p->n_samples ? "<Gallery />\n\n" : "");
    if (p->words && p->lora)
        kw_str_printf(s, "## Trigger words\n\nUse `%s` in the prompt.\n\n", p->words);
    kw_str_add(s, "## Use\n\n```python\nfrom diffusers import AutoPipelineForText2Image\n\n");
    kw_str_printf(s, "pipeline = AutoPipelineForText2Image.from_pretrained(\"%s\")\n",
                  p->lora ? p->base_repo ? p->base_repo : "BASE" : "THIS REPOSITORY");
    if (p->lora)
        kw_str_printf(s, "pipeline.load_lora_weights(\"THIS REPOSITORY\", weight_name=\"%s.safetensors\")\n", p->name);
    kw_str_add(s, "image = pipeline(");
    kw_show_json_text(s, p->n_samples ? p->sample[0].prompt : p->words ? p->words : "");
    kw_str_add(s, ").images[0]\n```\n\n");
    if (p->lora)
        kw_str_printf(s, "A1111, Forge, ComfyUI: `<lora:%s:%g>` with %s.safetensors.\n\n", p->name, x->weight, p->name);
    kw_str_add(s, "## Training\n\n");
    training(x, s);
}

kw_status kw_export_hf(kw_export *x, kw_err *e)
{
    kw_str card = { 0 };
    if (x->p->lora)
        KW_TRY(add_product(x, "", named(x, ".safetensors"), false, e));
    else
        KW_TRY(add_product(x, "", "", true, e));
    model_card(x, &card);
    KW_TRY(add(x, "", "README.md", &card, NULL, e));
    return add_images(x, e);
}
