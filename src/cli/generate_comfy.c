/*
 * generate_comfy.c - ComfyUI's "prompt" text, a graph of nodes, as far as one KSampler and what hangs on it says how a
 * picture was made; put as A1111 would say it, so that one reader serves both.
 *
 *   { "3": { "class_type": "KSampler", "inputs": { "seed": 5, ..., "model": ["4", 0], "positive": ["6", 0] } } }
 */
#include "generate.h"

#include <string.h>

typedef struct { const char *path; const json_t *graph; kw_str loras, out; int skip; kw_err *e; } reader;

enum { DEEPEST = 32 };

static const char *class_of(const json_t *node)
{
    const char *name = json_string_value(json_object_get(node, "class_type"));
    return name ? name : "";
}

static json_t *input(const json_t *node, const char *name)
{
    return json_object_get(json_object_get(node, "inputs"), name);
}

/* The node that an input is linked to; NULL: it is a value, or the link leads nowhere. */
static const json_t *linked(const reader *r, const json_t *node, const char *name)
{
    const json_t *link = input(node, name);
    const char *id = json_string_value(json_array_get(link, 0));
    return id ? json_object_get(r->graph, id) : NULL;
}

static kw_status not_understood(const reader *r, const char *what)
{
    kw_status s = kw_fail(r->e, KW_EDATA, N_("%s: ComfyUI's workflow has a %s, which is not understood here"), r->path,
                          *what ? what : "?");
    return kw_advise(r->e, s, N_("give its settings as options; ComfyUI itself opens the picture"));
}

/* A value, or that of the one node it is linked to (a primitive, a text). */
static const json_t *value(const reader *r, const json_t *node, const char *name)
{
    static const char *const names[] = { "value", "seed", "noise_seed", "text", "string", "int", "float" };
    const json_t *v = input(node, name), *from = linked(r, node, name);
    for (size_t i = 0; from && i < KW_LEN(names); i++)
        if ((v = input(from, names[i])) && !json_is_array(v))
            return v;
    return json_is_array(v) ? NULL : v;
}

/* ---- models, LoRAs ---------------------------------------------------------------------------------------------- */

static void stem_into(kw_str *out, const char *file)
{
    const char *name = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    name = strrchr(name, '\\') ? strrchr(name, '\\') + 1 : name;
    const char *dot = strrchr(name, '.');
    kw_str_add_n(out, name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

static kw_status model(reader *r, const json_t *node, kw_str *name)
{
    for (int i = 0; i < DEEPEST && node; i++) {
        const char *file = json_string_value(value(r, node, "ckpt_name"));
        const char *lora = json_string_value(value(r, node, "lora_name"));
        if (file) {
            stem_into(name, file);
            return KW_OK;
        }
        if (!lora)
            return not_understood(r, class_of(node));
        const json_t *unet = value(r, node, "strength_model"), *text = value(r, node, "strength_clip");
        kw_str_add(&r->loras, " <lora:");
        stem_into(&r->loras, lora);
        kw_str_printf(&r->loras, ":%g:%g>", text ? json_number_value(text) : 0, unet ? json_number_value(unet) : 1);
        node = linked(r, node, "model");
    }
    return not_understood(r, N_("model without a file"));
}

/* ---- prompts ---------------------------------------------------------------------------------------------------- */

/* CLIPSetLastLayer on the way to the text encoder: -2 is clip skip 2. */
static void clip_skip(reader *r, const json_t *node)
{
    for (int i = 0; i < DEEPEST && node; i++) {
        const json_t *layer = value(r, node, "stop_at_clip_layer");
        if (layer)
            r->skip = -(int)json_integer_value(layer);
        node = linked(r, node, "clip");
    }
}

static kw_status prompt(reader *r, const json_t *node, kw_str *out)
{
    const char *text = json_string_value(value(r, node, "text"));
    if (!node || strcmp(class_of(node), "CLIPTextEncode") || !text)
        return not_understood(r, class_of(node));
    clip_skip(r, node);
    kw_str_add(out, text);
    return KW_OK;
}

/* ---- the sampler ------------------------------------------------------------------------------------------------ */

static void add_number(reader *r, const json_t *node, const char *name, const char *key)
{
    const json_t *v = value(r, node, name);
    if (json_is_integer(v))
        kw_str_printf(&r->out, ", %s: %lld", key, (long long)json_integer_value(v));
    else if (json_is_real(v))
        kw_str_printf(&r->out, ", %s: %.10g", key, json_real_value(v));
}

/* what A1111 calls Beta is another spread */
static const char *schedule_of(const reader *r, const json_t *node)
{
    const char *name = json_string_value(value(r, node, "scheduler"));
    return !name ? "normal" : strcmp(name, "beta") ? name : "Beta ComfyUI";
}

static kw_status sampler(reader *r, const json_t *node)
{
    const json_t *latent = linked(r, node, "latent_image");
    const char *name = json_string_value(value(r, node, "sampler_name"));
    kw_str base = { 0 }, text[2] = { { 0 }, { 0 } };
    kw_status s = model(r, linked(r, node, "model"), &base);
    if (!s)
        s = prompt(r, linked(r, node, "positive"), &text[0]);
    if (!s)
        s = prompt(r, linked(r, node, "negative"), &text[1]);
    if (!s) {
        kw_str_printf(&r->out, "%s%s\nNegative prompt: %s\n", text[0].s ? text[0].s : "", r->loras.s ? r->loras.s : "",
                      text[1].s ? text[1].s : "");
        kw_str_printf(&r->out, "Steps: %lld", (long long)json_integer_value(value(r, node, "steps")));
        kw_str_printf(&r->out, ", Sampler: %s, Schedule type: %s, RNG: CPU, Prompt grammar: ComfyUI",
                      name ? name : "euler", schedule_of(r, node));
        add_number(r, node, "cfg", "CFG scale");
        add_number(r, node, value(r, node, "seed") ? "seed" : "noise_seed", "Seed");
        const json_t *w = value(r, latent, "width"), *h = value(r, latent, "height"), *d = value(r, node, "denoise");
        if (w && h)
            kw_str_printf(&r->out, ", Size: %lldx%lld", (long long)json_integer_value(w),
                          (long long)json_integer_value(h));
        if (!w || (d && json_number_value(d) < 1))
            kw_str_printf(&r->out, ", Denoising strength: %.10g", d ? json_number_value(d) : 1);
        if (r->skip > 1)
            kw_str_printf(&r->out, ", Clip skip: %d", r->skip);
        kw_str_printf(&r->out, ", Model: %s", base.s ? base.s : "");
    }
    for (int i = 0; i < 2; i++)
        kw_str_free(&text[i]);
    kw_str_free(&base);
    return s;
}

static kw_status find_sampler(reader *r, const json_t **out)
{
    const char *id;
    json_t *node;
    int n = 0;
    *out = NULL;
    json_object_foreach((json_t *)(uintptr_t)r->graph, id, node)
        if (value(r, node, "sampler_name") && linked(r, node, "positive")) {
            *out = node;
            n++;
        }
    if (n == 1 && !strcmp(class_of(*out), "KSampler"))
        return KW_OK;
    return n > 1 ? not_understood(r, N_("second sampler")) : not_understood(r, *out ? class_of(*out) : "sampler");
}

kw_status kw_comfy_read(const char *path, const char *text, kw_str *out, kw_err *e)
{
    json_error_t where;
    json_t *graph = json_loads(text, 0, &where);
    reader r = { .path = path, .graph = graph, .e = e };
    const json_t *node;
    if (!json_is_object(graph)) {
        json_decref(graph);
        return kw_fail(e, KW_EDATA, N_("%s: ComfyUI's workflow is damaged"), path);
    }
    kw_status s = find_sampler(&r, &node);
    if (!s)
        s = sampler(&r, node);
    if (!s && !r.out.failed)
        kw_str_add_n(out, r.out.s, r.out.n);
    json_decref(graph);
    kw_str_free(&r.loras);
    kw_str_free(&r.out);
    return s;
}
