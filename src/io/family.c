/*
 * family.c - published families by the geometry of their U-Nets, and relatives that look alike but work otherwise.
 *
 *   channels of the levels | transformer blocks of each attention going down | in the middle | going up | text width
 *
 * 0: a resnet without attention; the middle: blocks, "one" (a single resnet: SSD-1B, Vega), "none" (BK-SDM Small,
 * Tiny). Sources: config.json of the published repositories, as ComfyUI's comfy/model_detection.py has them as well.
 */
#include "source_internal.h"

#include <string.h>

static const struct { const char *geometry, *name; } published[] = {
    { "320 640 1280 1280 | 1 1 1 1 1 1 0 0 | 1 | 0 0 0 1 1 1 1 1 1 1 1 1 | 768", N_("Stable Diffusion 1.x") },
    { "320 640 1280 1280 | 1 1 1 1 1 1 0 0 | 1 | 0 0 0 1 1 1 1 1 1 1 1 1 | 1024", N_("Stable Diffusion 2.x") },
    { "320 640 1280 | 0 0 2 2 10 10 | 10 | 10 10 10 2 2 2 0 0 0 | 2048", N_("SDXL") },
    { "320 640 1280 1280 | 1 1 1 0 | 1 | 0 0 1 1 1 1 1 1 | 768", N_("BK-SDM Base (a smaller Stable Diffusion 1.x)") },
    { "320 640 1280 1280 | 1 1 1 0 | none | 0 0 1 1 1 1 1 1 | 768",
      N_("BK-SDM Small (a smaller Stable Diffusion 1.x)") },
    { "320 640 1280 | 1 1 1 | none | 1 1 1 1 1 1 | 768", N_("BK-SDM Tiny (a smaller Stable Diffusion 1.x)") },
    { "320 640 1280 1280 | 1 1 1 0 | 1 | 0 0 1 1 1 1 1 1 | 1024",
      N_("BK-SDM v2 Base (a smaller Stable Diffusion 2.x)") },
    { "320 640 1280 1280 | 1 1 1 0 | none | 0 0 1 1 1 1 1 1 | 1024",
      N_("BK-SDM v2 Small (a smaller Stable Diffusion 2.x)") },
    { "320 640 1280 | 1 1 1 | none | 1 1 1 1 1 1 | 1024", N_("BK-SDM v2 Tiny (a smaller Stable Diffusion 2.x)") },
    { "320 640 1280 | 0 0 2 2 4 4 | one | 4 4 10 2 1 1 0 0 0 | 2048", N_("SSD-1B (a smaller SDXL)") },
    { "320 640 1280 | 0 0 1 1 2 2 | one | 2 2 2 1 1 1 0 0 0 | 2048", N_("Segmind Vega (a smaller SDXL)") },
    { "320 640 1280 | 0 2 5 | none | 5 5 2 2 0 0 | 2048", N_("KOALA 700M (a smaller SDXL)") },
    { "320 640 1280 | 0 2 6 | 6 | 6 6 2 2 0 0 | 2048", N_("KOALA 1B (a smaller SDXL)") },
};

enum { ROOM = 400 };

static void add(char *text, const char *fmt, long long v)
{
    size_t n = strlen(text);
    snprintf(text + n, ROOM - n, fmt, v);
}

/* A number, or what a list has for the level. */
static json_t *at_level(json_t *v, size_t i) { return json_is_array(v) ? json_array_get(v, i) : v; }

static void add_level(char *text, json_t *types, json_t *depth, size_t i, size_t layers)
{
    const char *type = json_string_value(json_array_get(types, i));
    bool attends = type && kw_starts_with(type, "CrossAttn");
    for (size_t j = 0; j < layers && j < 16; j++)
        add(text, "%lld ", attends ? json_integer_value(at_level(depth, j)) : 0);
}

static bool geometry(json_t *c, char text[ROOM])
{
    json_t *channels = json_object_get(c, "block_out_channels"), *mid = json_object_get(c, "mid_block_type");
    json_t *depth = json_object_get(c, "transformer_layers_per_block"), *one = json_integer(1);
    json_t *up = json_object_get(c, "reverse_transformer_layers_per_block");
    const char *type = json_string_value(mid);
    size_t n = json_array_size(channels);
    long long layers = json_integer_value(json_object_get(c, "layers_per_block"));
    depth = depth ? depth : one;
    *text = 0;
    for (size_t i = 0; i < n && i < 16; i++)
        add(text, "%lld ", json_integer_value(json_array_get(channels, i)));
    add(text, "| ", 0);
    for (size_t i = 0; i < n && i < 16; i++)
        add_level(text, json_object_get(c, "down_block_types"), at_level(depth, i), i, (size_t)layers);
    if (mid && (!type || !strcmp(type, "UNetMidBlock2D")))
        add(text, type ? "| one | " : "| none | ", 0);
    else
        add(text, "| %lld | ", json_integer_value(at_level(depth, n - 1)));
    for (size_t i = 0; i < n && i < 16; i++)
        add_level(text, json_object_get(c, "up_block_types"), json_is_array(up) ? json_array_get(up, i)
                  : at_level(depth, n - 1 - i), i, (size_t)layers + 1);
    add(text, "| %lld", json_integer_value(json_object_get(c, "cross_attention_dim")));
    json_decref(one);
    return n > 0 && layers > 0;
}

const char *kw__published(json_t *unet)
{
    char text[ROOM];
    if (!geometry(unet, text))
        return NULL;
    for (size_t i = 0; i < KW_LEN(published); i++)
        if (!strcmp(text, published[i].geometry))
            return published[i].name;
    return NULL;
}

static json_int_t number(const kw_source *s, kw_part p, const char *key)
{
    return json_integer_value(json_object_get(s->parts[p].config, key));
}

const char *kw_source_family(const kw_source *s)
{
    const char *name = s->parts[KW_PART_UNET].n ? kw__published(s->parts[KW_PART_UNET].config) : NULL;
    json_int_t width = number(s, KW_PART_UNET, "cross_attention_dim");
    if (name)
        return name;
    if (s->parts[KW_PART_UNET].n)
        return width == 768 ? N_("like Stable Diffusion 1.x, another size")
             : width == 1024 ? N_("like Stable Diffusion 2.x, another size")
             : width == 2048 ? N_("like SDXL, another size") : N_("Stable Diffusion, another size");
    if (s->parts[KW_PART_TEXT2].n)
        return N_("SDXL");
    width = number(s, KW_PART_TEXT, "hidden_size");
    return width == 768 ? N_("Stable Diffusion 1.x") : width == 1024 ? N_("Stable Diffusion 2.x")
        : N_("Stable Diffusion, another size");
}

const char *kw_source_input(const kw_source *s)
{
    switch (s->parts[KW_PART_UNET].n ? number(s, KW_PART_UNET, "in_channels") : 0) {
    case 0: case 4: return NULL;
    case 5: return N_("5 channels: latents and depth");
    case 8: return N_("8 channels: latents and those of a picture that is to be changed (InstructPix2Pix)");
    case 9: return N_("9 channels: latents, a mask, latents of the masked picture (inpainting)");
    default: return N_("an unusual number of channels");
    }
}

/* ---- relatives that have the layout, but another meaning --------------------------------------------------------- */

/* The refiner reads one encoder of width 1280 and an aesthetic score; unCLIP a picture's embedding, beside SD 2's
   text. */
kw_status kw__refuse_relatives(const kw_source *s, kw_err *e)
{
    json_int_t width = number(s, KW_PART_UNET, "cross_attention_dim");
    json_int_t added = number(s, KW_PART_UNET, "projection_class_embeddings_input_dim");
    const char *is = width == 1280 && added == 2560 ? N_("the SDXL refiner")
                   : width == 1024 && (added == 2048 || added == 1536)
                   ? N_("Stable Diffusion 2.1 unCLIP (it draws from a picture's embedding)")
                   : width == 1024 && number(s, KW_PART_UNET, "in_channels") == 7 ? N_("Stable Diffusion's x4 upscaler")
                   : NULL;
    return s->parts[KW_PART_UNET].n && is
        ? kw_fail(e, KW_EDATA, N_("%s: is %s, which cannot be used as the base"), s->path, kw_translate(is)) : KW_OK;
}
