/* infer.c - a part's configuration from the shapes of its weights, for files that bring none; guesses are noted. */
#include "source_internal.h"

#include <stdio.h>
#include <string.h>

enum { MOST_LEVELS = 16 };

typedef struct { kw_source *s; kw_part p; kw_err *e; } reader;

static const kw_tensor *find(const reader *r, const char *fmt, ...) KW_PRINTF(2, 3);
static const kw_tensor *find(const reader *r, const char *fmt, ...)
{
    char name[KW_KEY_ROOM];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return kw__part_find(r->s, r->p, name);
}

/* One number of a tensor's shape; 0 when the tensor or the dimension is not there. */
static long dim(const kw_tensor *t, int i) { return t && i < t->rank ? (long)t->shape[i] : 0; }

static void set(json_t *c, const char *key, json_t *value)
{
    if (value && json_object_set_new(c, key, value))
        json_decref(value);
}

static json_t *numbers(const long *v, int n)
{
    json_t *list = json_array();
    for (int i = 0; list && i < n; i++)
        json_array_append_new(list, json_integer(v[i]));
    return list;
}

static json_t *repeat(const char *text, int n)
{
    json_t *list = json_array();
    for (int i = 0; list && i < n; i++)
        json_array_append_new(list, json_string(text));
    return list;
}

/* 32 groups unless the channels do not divide; weights do not tell. */
static kw_status groups(reader *r, json_t *c, const long *channels, int n)
{
    long g = 32;
    for (int i = 0; i < n; i++)
        while (channels[i] % g)
            g--;
    set(c, "norm_num_groups", json_integer(g));
    if (g == 32)
        return KW_OK;
    return kw__note(r->s, r->e, N_("%s: %ld normalisation groups are a guess"), kw_part_name(r->p), g);
}

static void release(void *json) { json_decref(json); }

static kw_status keep(reader *r, json_t *c)
{
    r->s->parts[r->p].config = c;
    r->s->parts[r->p].inferred = true;
    return kw_defer(r->s->arena, release, c) ? kw__no_memory(r->e, r->s->path) : KW_OK;
}

/* A published part is known, not guessed; name: whose it is, or NULL. */
static kw_status tell(reader *r, const char *name)
{
    const char *part = kw_part_name(r->p);
    return name ? kw__note(r->s, r->e, N_("%s: no configuration; by its weights it is that of %s"), part,
                           kw_translate(name))
                : kw__note(r->s, r->e, N_("%s: no configuration; it is inferred from the weights"), part);
}

static kw_status incomplete(reader *r, const char *name)
{
    return kw_fail(r->e, KW_EDATA, N_("%s: the %s lacks \"%s\", or its shape is odd"), r->s->parts[r->p].shown,
                   kw_part_name(r->p), name);
}

/* ---- the U-Net --------------------------------------------------------------------------------------------------- */

typedef struct {
    int levels, layers;
    long channels[MOST_LEVELS], depth[MOST_LEVELS], width;
    bool up[MOST_LEVELS], is_linear;      /* attentions in up block i; projections are linear layers */
} unet;

/* Transformer blocks of one attention. */
static long blocks_of(const reader *r, const char *block, int attention)
{
    long n = 0;
    while (n < 1000 && find(r, "%s.attentions.%d.transformer_blocks.%ld.norm1.weight", block, attention, n))
        n++;
    return n;
}

static long depth_of(const reader *r, const char *block) { return blocks_of(r, block, 0); }

static void look_at_unet(const reader *r, unet *u)
{
    char block[64];
    for (long c; u->levels < MOST_LEVELS; u->levels++) {
        if (!(c = dim(find(r, "down_blocks.%d.resnets.0.conv1.weight", u->levels), 0)))
            break;
        snprintf(block, sizeof block, "down_blocks.%d", u->levels);
        u->channels[u->levels] = c;
        u->depth[u->levels] = depth_of(r, block);
        u->up[u->levels] = find(r, "up_blocks.%d.attentions.0.norm.weight", u->levels) != NULL;
    }
    while (u->layers < 1000 && find(r, "down_blocks.0.resnets.%d.conv1.weight", u->layers))
        u->layers++;
    const kw_tensor *key = find(r, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight");
    const kw_tensor *in = find(r, "mid_block.attentions.0.proj_in.weight");
    for (int i = 0; i < u->levels; i++) {
        key = key ? key : find(r, "down_blocks.%d.attentions.0.transformer_blocks.0.attn2.to_k.weight", i);
        in = in ? in : find(r, "down_blocks.%d.attentions.0.proj_in.weight", i);
    }
    u->width = dim(key, 1);
    u->is_linear = in && in->rank == 2;
}

/* one: a single resnet is all that is in the middle. */
static void unet_blocks(const unet *u, bool mid, bool one, json_t *c)
{
    json_t *down = json_array(), *up = json_array();
    for (int i = 0; i < u->levels; i++) {
        json_array_append_new(down, json_string(u->depth[i] ? "CrossAttnDownBlock2D" : "DownBlock2D"));
        json_array_append_new(up, json_string(u->up[i] ? "CrossAttnUpBlock2D" : "UpBlock2D"));
    }
    set(c, "down_block_types", down);
    set(c, "up_block_types", up);
    set(c, "mid_block_type", !mid ? json_null()
        : json_string(one ? "UNetMidBlock2D" : "UNetMidBlock2DCrossAttn"));
}

/* One number when all levels with attentions agree; levels without count as 1. */
static json_t *depths(const reader *r, const unet *u)
{
    long list[MOST_LEVELS], mid = depth_of(r, "mid_block"), first = mid ? mid : 1;
    bool same = true;
    for (int i = 0; i < u->levels; i++) {
        list[i] = u->depth[i] ? u->depth[i] : 1;
        same = same && (!u->depth[i] || u->depth[i] == first);
    }
    return same ? json_integer(first) : numbers(list, u->levels);
}

/* Up blocks mirror the down blocks, or (SSD-1B) are given apart: a list for each level, one number where all agree. */
static void up_depths(const reader *r, const unet *u, json_t *c)
{
    json_t *all = json_array();
    bool mirrored = true;
    char block[64];
    for (int i = 0; i < u->levels; i++) {
        long first, mirror = u->depth[u->levels - 1 - i];
        json_t *list = json_array();
        bool same = true;
        snprintf(block, sizeof block, "up_blocks.%d", i);
        first = depth_of(r, block);
        for (int j = 0; first && j <= u->layers; j++) {
            long n = blocks_of(r, block, j);
            json_array_append_new(list, json_integer(n));
            same = same && n == first;
            mirrored = mirrored && n == (mirror ? mirror : n);
        }
        json_array_append_new(all, same ? json_integer(first ? first : 1) : json_incref(list));
        json_decref(list);
    }
    if (mirrored)
        json_decref(all);
    else
        set(c, "reverse_transformer_layers_per_block", all);
}

/* SD 1.x: 8 heads everywhere; SD 2.x and SDXL: heads of width 64. In diffusers' files `attention_head_dim` holds the
 * number of heads of each level, against its name. */
static kw_status heads(reader *r, const unet *u, json_t *c)
{
    long list[MOST_LEVELS];
    bool by_width = u->is_linear;
    for (int i = 0; i < u->levels; i++) {
        by_width = by_width && u->channels[i] % 64 == 0;
        list[i] = u->channels[i] / 64;
    }
    set(c, "attention_head_dim", by_width ? numbers(list, u->levels) : json_integer(8));
    if (kw__published(c))
        return KW_OK;
    return kw__note(r->s, r->e, by_width ? N_("unet: attention heads of width 64 are assumed")
                                         : N_("unet: 8 attention heads are assumed"));
}

/* 0: no such encoder in this file. Its tensors are not sorted yet. */
static long pooled_width(const kw__part *text)
{
    for (size_t i = 0; i < text->n; i++)
        if (!strcmp(text->entries[i].t.name, "text_projection.weight"))
            return dim(&text->entries[i].t, 0);
    return 0;
}

/*  SDXL's second conditioning: six sizes of n numbers each and the pooled text; n is what the text leaves, or 256  */
static void added_embedding(const reader *r, json_t *c)
{
    const kw_tensor *t = find(r, "add_embedding.linear_1.weight");
    long pooled = pooled_width(&r->s->parts[KW_PART_TEXT2]), sizes = dim(t, 1) - pooled;
    if (!t)
        return;
    set(c, "addition_embed_type", json_string("text_time"));
    set(c, "addition_time_embed_dim", json_integer(pooled && sizes > 0 && sizes % 12 == 0 ? sizes / 6 : 256));
    set(c, "projection_class_embeddings_input_dim", json_integer(dim(t, 1)));
}

static kw_status infer_unet(reader *r)
{
    unet u = { 0 };
    look_at_unet(r, &u);
    const kw_tensor *in = find(r, "conv_in.weight"), *out = find(r, "conv_out.weight");
    if (!u.levels || !u.layers || dim(in, 0) != u.channels[0])
        return incomplete(r, u.levels ? "conv_in.weight" : "down_blocks.0.resnets.0.conv1.weight");
    if (!out)
        return incomplete(r, "conv_out.weight");
    json_t *c = json_pack("{s:s, s:i, s:i, s:i, s:b, s:s, s:f, s:b, s:i, s:i, s:b}",
                          "_class_name", "UNet2DConditionModel", "in_channels", (int)dim(in, 1),
                          "out_channels", (int)dim(out, 0), "layers_per_block", u.layers,
                          "use_linear_projection", (int)u.is_linear, "act_fn", "silu", "norm_eps", 1e-5,
                          "flip_sin_to_cos", 1, "freq_shift", 0, "downsample_padding", 1, "center_input_sample", 0);
    if (!c)
        return kw__no_memory(r->e, r->s->path);
    KW_TRY(keep(r, c));
    set(c, "block_out_channels", numbers(u.channels, u.levels));
    unet_blocks(&u, find(r, "mid_block.resnets.0.conv1.weight"), !find(r, "mid_block.resnets.1.conv1.weight"), c);
    set(c, "cross_attention_dim", u.width ? json_integer(u.width) : json_null());
    set(c, "transformer_layers_per_block", depths(r, &u));
    up_depths(r, &u, c);
    set(c, "sample_size", json_integer(find(r, "add_embedding.linear_1.weight") ? 128 : 64));
    added_embedding(r, c);
    KW_TRY(tell(r, kw__published(c)));
    KW_TRY(heads(r, &u, c));
    return groups(r, c, u.channels, u.levels);
}

/* ---- the autoencoder -------------------------------------------------------------------------------------------- */

typedef struct { int levels, layers; long channels[MOST_LEVELS], latent, in, out; } vae;

/* From the encoder, or from the decoder (levels reversed, one more layer) when it comes alone. */
static void look_at_vae(const reader *r, vae *v)
{
    long c;
    for (; v->levels < MOST_LEVELS; v->levels++) {
        if (!(c = dim(find(r, "encoder.down_blocks.%d.resnets.0.conv1.weight", v->levels), 0)))
            break;
        v->channels[v->levels] = c;
    }
    while (v->layers < 1000 && find(r, "encoder.down_blocks.0.resnets.%d.conv1.weight", v->layers))
        v->layers++;
    if (!v->levels) {
        while (v->levels < MOST_LEVELS && find(r, "decoder.up_blocks.%d.resnets.0.conv1.weight", v->levels))
            v->levels++;
        for (int i = 0; i < v->levels; i++)
            v->channels[v->levels - 1 - i] = dim(find(r, "decoder.up_blocks.%d.resnets.0.conv1.weight", i), 0);
        while (v->layers < 1000 && find(r, "decoder.up_blocks.0.resnets.%d.conv1.weight", v->layers + 1))
            v->layers++;
    }
    const kw_tensor *from = find(r, "encoder.conv_out.weight"), *to = find(r, "decoder.conv_in.weight");
    v->latent = to ? dim(to, 1) : dim(from, 0) / 2;
    v->in = dim(find(r, "encoder.conv_in.weight"), 1);
    v->out = dim(find(r, "decoder.conv_out.weight"), 0);
}

/* That of SD 1.x, 2.x and SDXL; which of them, weights do not tell. */
static bool is_usual(const vae *v)
{
    static const long channels[] = { 128, 256, 512, 512 };
    return v->levels == 4 && v->layers == 2 && v->latent == 4 && !memcmp(v->channels, channels, sizeof channels);
}

static kw_status infer_vae(reader *r)
{
    vae v = { 0 };
    look_at_vae(r, &v);
    if (!v.levels || !v.layers || !v.latent)
        return incomplete(r, "encoder.conv_in.weight");
    json_t *of = r->s->parts[KW_PART_UNET].config;
    bool xl = r->s->parts[KW_PART_TEXT2].n || json_integer_value(json_object_get(of, "cross_attention_dim")) == 2048;
    double scale = xl ? 0.13025 : 0.18215;
    json_t *c = json_pack("{s:s, s:i, s:i, s:i, s:i, s:s, s:f, s:b, s:b, s:i}", "_class_name", "AutoencoderKL",
                          "in_channels", (int)(v.in ? v.in : v.out), "out_channels", (int)(v.out ? v.out : v.in),
                          "latent_channels", (int)v.latent, "layers_per_block", v.layers, "act_fn", "silu",
                          "scaling_factor", scale, "use_quant_conv", find(r, "quant_conv.weight") != NULL,
                          "use_post_quant_conv", find(r, "post_quant_conv.weight") != NULL,
                          "sample_size", xl ? 1024 : 512);
    if (!c)
        return kw__no_memory(r->e, r->s->path);
    KW_TRY(keep(r, c));
    set(c, "block_out_channels", numbers(v.channels, v.levels));
    set(c, "down_block_types", repeat("DownEncoderBlock2D", v.levels));
    set(c, "up_block_types", repeat("UpDecoderBlock2D", v.levels));
    const kw_tensor *attention = find(r, "decoder.mid_block.attentions.0.to_q.weight");
    set(c, "mid_block_add_attention",
        json_boolean(attention || find(r, "encoder.mid_block.attentions.0.to_q.weight")));
    KW_TRY(groups(r, c, v.channels, v.levels));
    const char *known = r->s->parts[KW_PART_UNET].n && is_usual(&v) ? kw__published(of) : NULL;
    KW_TRY(tell(r, known));
    return known ? KW_OK : kw__note(r->s, r->e, N_("vae: the scaling factor %g is assumed"), scale);
}

/* ---- the text encoder -------------------------------------------------------------------------------------------- */

/* OpenAI's CLIP-L (width 768) has quick GELU, OpenCLIP's models (by their spelling, or wider) plain GELU; heads are 64
 * wide in all of them. */
static kw_status infer_text(reader *r)
{
    const kw_tensor *words = find(r, "text_model.embeddings.token_embedding.weight");
    const kw_tensor *places = find(r, "text_model.embeddings.position_embedding.weight");
    const kw_tensor *inner = find(r, "text_model.encoder.layers.0.mlp.fc1.weight");
    const kw_tensor *projection = find(r, "text_projection.weight");
    long width = dim(words, 1), layers = 0;
    if (!width || !places || !inner)
        return incomplete(r, "text_model.embeddings.token_embedding.weight");
    while (layers < 1000 && find(r, "text_model.encoder.layers.%ld.mlp.fc1.weight", layers))
        layers++;
    bool open = r->p == KW_PART_TEXT2 || width >= 1024 || r->s->parts[r->p].keys == KW_KEYS_OPENCLIP;
    bool even = width % 64 == 0;
    json_t *c = json_pack("{s:[s], s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:s, s:f, s:i, s:i, s:i}",
                          "architectures", projection ? "CLIPTextModelWithProjection" : "CLIPTextModel",
                          "model_type", "clip_text_model", "vocab_size", (int)dim(words, 0), "hidden_size", (int)width,
                          "intermediate_size", (int)dim(inner, 0), "num_hidden_layers", (int)layers,
                          "num_attention_heads", (int)(even ? width / 64 : 1),
                          "max_position_embeddings", (int)dim(places, 0), "hidden_act", open ? "gelu" : "quick_gelu",
                          "layer_norm_eps", 1e-5, "projection_dim", (int)(projection ? dim(projection, 0) : width),
                          "bos_token_id", (int)dim(words, 0) - 2, "eos_token_id", (int)dim(words, 0) - 1);
    if (!c)
        return kw__no_memory(r->e, r->s->path);
    KW_TRY(keep(r, c));
    const char *known = !even ? NULL : width == 768 && layers == 12 ? N_("CLIP ViT-L/14")
                      : open && width == 1024 && (layers == 23 || layers == 24) ? N_("OpenCLIP ViT-H/14")
                      : open && width == 1280 && layers == 32 ? N_("OpenCLIP ViT-bigG/14") : NULL;
    KW_TRY(tell(r, known));
    if (known)
        return KW_OK;
    return kw__note(r->s, r->e, N_("%s: %ld attention heads and %s are assumed"), kw_part_name(r->p),
                    even ? width / 64 : 1, open ? "gelu" : "quick_gelu");
}

kw_status kw__infer_config(kw_source *s, kw_part p, kw_err *e)
{
    reader r = { s, p, e };
    return p == KW_PART_UNET ? infer_unet(&r) : p == KW_PART_VAE ? infer_vae(&r) : infer_text(&r);
}
