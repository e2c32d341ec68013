/* config.c - diffusers' and transformers' config.json into ours. What the family does not have is refused by name. */
#include "model.h"

#include <string.h>

/* ---- reading fields: absent or null means the default; a wrong type is an error ------------------------------- */

typedef struct { const json_t *json; const char *what; kw_err *e; kw_status s; } reader;

static const json_t *field(const reader *r, const char *name)
{
    const json_t *v = json_object_get(r->json, name);
    return json_is_null(v) ? NULL : v;
}

static void wrong(reader *r, const char *name, const char *expected)
{
    if (!r->s)
        r->s = kw_fail(r->e, KW_EDATA, "%s config: %s is not %s", r->what, name, expected);
}

static int integer(reader *r, const char *name, int absent, int low, int high)
{
    const json_t *v = field(r, name);
    if (!v)
        return absent;
    if (!json_is_integer(v) || json_integer_value(v) < low || json_integer_value(v) > high) {
        wrong(r, name, "a whole number in its range");
        return absent;
    }
    return (int)json_integer_value(v);
}

static double number(reader *r, const char *name, double absent)
{
    const json_t *v = field(r, name);
    if (v && !json_is_number(v))
        wrong(r, name, "a number");
    return v && json_is_number(v) ? json_number_value(v) : absent;
}

static bool truth(reader *r, const char *name, bool absent)
{
    const json_t *v = field(r, name);
    if (v && !json_is_boolean(v))
        wrong(r, name, "true or false");
    return v ? json_is_true(v) : absent;
}

static const char *text(reader *r, const char *name, const char *absent)
{
    const json_t *v = field(r, name);
    if (v && !json_is_string(v))
        wrong(r, name, "a text");
    return v && json_is_string(v) ? json_string_value(v) : absent;
}

/* One whole number for each of n levels: a list, or one number for all. */
static void integers(reader *r, const char *name, int absent, int n, int *out)
{
    const json_t *v = field(r, name);
    for (int i = 0; i < n; i++) {
        const json_t *item = json_is_array(v) ? json_array_get(v, (size_t)i) : v;
        out[i] = absent;
        if (v && (!json_is_integer(item) || json_integer_value(item) < 1 || json_integer_value(item) > 65536))
            wrong(r, name, "a positive whole number for each level");
        else if (v)
            out[i] = (int)json_integer_value(item);
    }
}

static void truths(reader *r, const char *name, int n, bool *out)
{
    const json_t *v = field(r, name);
    for (int i = 0; i < n; i++) {
        const json_t *item = json_is_array(v) ? json_array_get(v, (size_t)i) : v;
        if (v && !json_is_boolean(item))
            wrong(r, name, "true or false for each level");
        out[i] = v && json_is_true(item);
    }
}

/* Fields that must have one value (or be absent), because no model of the family has another. */
static void must_be(reader *r, const char *name, const char *only)
{
    const json_t *v = field(r, name);
    char got[64] = "";
    if (!v || r->s)
        return;
    if (json_is_string(v))
        strncpy(got, json_string_value(v), sizeof got - 1);
    else if (json_is_boolean(v))
        strcpy(got, json_is_true(v) ? "true" : "false");
    else if (!strcmp(only, "1") && json_is_number(v) && json_number_value(v) == 1)
        return;
    else if (!strcmp(only, "3") && json_is_integer(v) && json_integer_value(v) == 3)
        return;
    if (strcmp(got, only))
        r->s = kw_fail(r->e, KW_EDATA, "%s config: %s = %s is not supported (only %s is)", r->what, name,
                       got[0] ? got : "this value", only[0] ? only : "nothing");
}

static kw_unary activation(reader *r, const char *name, const char *absent)
{
    static const struct { const char *name; kw_unary f; } known[] = {
        { "silu", KW_SILU }, { "swish", KW_SILU }, { "gelu", KW_GELU }, { "quick_gelu", KW_QUICK_GELU },
        { "gelu_new", KW_GELU_TANH }, { "gelu_pytorch_tanh", KW_GELU_TANH },
    };
    const char *s = text(r, name, absent);
    for (size_t i = 0; i < KW_LEN(known); i++)
        if (!strcmp(s, known[i].name))
            return known[i].f;
    if (!r->s)
        r->s = kw_fail(r->e, KW_EDATA, "%s config: activation %s is not known", r->what, s);
    return KW_SILU;
}

static int levels_of(reader *r, int *ch)
{
    const json_t *v = field(r, "block_out_channels");
    size_t n = json_is_array(v) ? json_array_size(v) : 0;
    if (n < 1 || n > KW_LEVELS) {
        wrong(r, "block_out_channels", "a list of 1 to 6 channel counts");
        return 0;
    }
    integers(r, "block_out_channels", 1, (int)n, ch);
    return (int)n;
}

static void divisible(reader *r, int levels, const int *ch, int by, const char *what)
{
    for (int i = 0; i < levels; i++)
        if (!r->s && (by < 1 || ch[i] % by))
            r->s = kw_fail(r->e, KW_EDATA, "%s config: %d channels do not divide by %d %s", r->what, ch[i], by, what);
}

/* ---- U-Net ------------------------------------------------------------------------------------------------------- */

static void blocks(reader *r, const char *name, int levels, const char *with, const char *without, bool *attention)
{
    const json_t *v = field(r, name);
    if (json_array_size(v) != (size_t)levels)
        wrong(r, name, "a list with one block type for each level");
    for (int i = 0; i < levels && !r->s; i++) {
        const char *type = json_string_value(json_array_get(v, (size_t)i));
        attention[i] = type && !strcmp(type, with);
        if (!type || (strcmp(type, with) && strcmp(type, without)))
            r->s = kw_fail(r->e, KW_EDATA, "%s config: block type %s is not supported (%s and %s are)", r->what,
                           type ? type : "?", with, without);
    }
}

static void only_the_family(reader *r)
{
    static const char *const rows[][2] = {
        { "dual_cross_attention", "false" }, { "class_embed_type", "" }, { "encoder_hid_dim_type", "" },
        { "time_embedding_type", "positional" },
        { "resnet_time_scale_shift", "default" }, { "resnet_skip_time_act", "false" },
        { "resnet_out_scale_factor", "1" },
        { "mid_block_scale_factor", "1" }, { "conv_in_kernel", "3" }, { "conv_out_kernel", "3" },
        { "class_embeddings_concat", "false" },
        { "cross_attention_norm", "" }, { "attention_type", "default" }, { "center_input_sample", "false" },
        { "timestep_post_act", "" },
        { "time_embedding_act_fn", "" }, { "time_cond_proj_dim", "" }, { "num_class_embeds", "" },
        { "time_embedding_dim", "" }, { "encoder_hid_dim", "" },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++)
        must_be(r, rows[i][0], rows[i][1]);
}

static int depth_of(reader *r, const char *name, const json_t *v)
{
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= 256)
        return (int)json_integer_value(v);
    wrong(r, name, "a number of transformer blocks for each attention");
    return 1;
}

/* One number for all, a list with one for each level, or with a list for each attention of a level. */
static void depths_in(reader *r, const char *name, int levels, int out[][KW_LAYERS + 1])
{
    const json_t *v = field(r, name);
    for (int i = 0; i < levels; i++) {
        const json_t *level = json_is_array(v) ? json_array_get(v, (size_t)i) : v;
        for (int j = 0; j <= KW_LAYERS; j++) {
            bool apart = json_is_array(level), there = apart && (size_t)j < json_array_size(level);
            const json_t *one = there ? json_array_get(level, (size_t)j) : level;
            out[i][j] = !v || (apart && !there) ? 1 : depth_of(r, name, one);
        }
    }
}

/* transformer_layers_per_block may be given for up blocks apart (reverse_...); else they mirror the down blocks. */
static void depths(reader *r, kw_unet_config *c)
{
    const json_t *down = field(r, "transformer_layers_per_block");
    bool apart = field(r, "reverse_transformer_layers_per_block") != NULL;
    depths_in(r, "transformer_layers_per_block", c->levels, c->depth);
    depths_in(r, "reverse_transformer_layers_per_block", c->levels, c->up_depth);
    for (int i = 0; i < c->levels && !apart; i++) {
        memcpy(c->up_depth[i], c->depth[c->levels - 1 - i], sizeof c->up_depth[i]);
        if (json_is_array(down) && json_is_array(json_array_get(down, (size_t)i)))
            wrong(r, "transformer_layers_per_block",
                  "one number for each level, and there is no reverse_... beside it");
    }
    c->mid_depth = c->levels ? c->depth[c->levels - 1][0] : 1;
}

static void mid(reader *r, kw_unet_config *c)
{
    const json_t *v = json_object_get(r->json, "mid_block_type");
    const char *type = v ? json_string_value(v) : "UNetMidBlock2DCrossAttn";
    c->mid = json_is_null(v) ? KW_MID_NONE : type && !strcmp(type, "UNetMidBlock2D") ? KW_MID_PLAIN : KW_MID_CROSS;
    if (c->mid == KW_MID_CROSS)
        must_be(r, "mid_block_type", "UNetMidBlock2DCrossAttn");
}

static void additions(reader *r, kw_unet_config *c)
{
    const char *type = text(r, "addition_embed_type", "");
    if (!type[0])
        return;
    must_be(r, "addition_embed_type", "text_time");
    c->add_dim = integer(r, "projection_class_embeddings_input_dim", 0, 1, 65536);
    c->add_time_dim = integer(r, "addition_time_embed_dim", 0, 2, 4096);
    if (!c->add_dim || !c->add_time_dim)
        wrong(r, "projection_class_embeddings_input_dim", "given with addition_time_embed_dim");
}

static void heads(reader *r, kw_unet_config *c)
{
    bool named = field(r, "num_attention_heads") != NULL;
    integers(r, named ? "num_attention_heads" : "attention_head_dim", 8, c->levels, c->heads);   /* an old misnomer */
    for (int i = 0; i < c->levels; i++)
        if (c->down_attention[i] || c->up_attention[c->levels - 1 - i] || i == c->levels - 1)
            divisible(r, 1, &c->ch[i], c->heads[i], "heads");
}

kw_status kw_unet_read(const json_t *config, kw_unet_config *c, kw_err *e)
{
    reader r = { .json = config, .what = "unet", .e = e };
    *c = (kw_unet_config){ .in = integer(&r, "in_channels", 4, 1, 64), .out = integer(&r, "out_channels", 4, 1, 64) };
    c->levels = levels_of(&r, c->ch);
    only_the_family(&r);
    integers(&r, "layers_per_block", 2, c->levels, c->layers);
    for (int i = 0; i < c->levels; i++)
        if (c->layers[i] > KW_LAYERS)
            wrong(&r, "layers_per_block", "8 or fewer");
    blocks(&r, "down_block_types", c->levels, "CrossAttnDownBlock2D", "DownBlock2D", c->down_attention);
    blocks(&r, "up_block_types", c->levels, "CrossAttnUpBlock2D", "UpBlock2D", c->up_attention);
    depths(&r, c);
    heads(&r, c);
    integers(&r, "cross_attention_dim", 1280, c->levels, c->context);
    truths(&r, "only_cross_attention", c->levels, c->only_cross);
    c->mid_only_cross = truth(&r, "mid_block_only_cross_attention",
                              c->only_cross[0] && json_is_boolean(field(&r, "only_cross_attention")));
    mid(&r, c);
    c->groups = integer(&r, "norm_num_groups", 32, 1, 1024);
    divisible(&r, c->levels, c->ch, c->groups, "groups");
    c->eps = (float)number(&r, "norm_eps", 1e-5);
    c->act = activation(&r, "act_fn", "silu");
    c->linear_proj = truth(&r, "use_linear_projection", false);
    c->flip_sin = truth(&r, "flip_sin_to_cos", true);
    c->freq_shift = (float)number(&r, "freq_shift", 0);
    c->downsample_padding = integer(&r, "downsample_padding", 1, 0, 1);
    c->sample_size = json_is_integer(field(&r, "sample_size")) ? integer(&r, "sample_size", 0, 0, 65536) : 0;
    additions(&r, c);
    return r.s;
}

/* ---- autoencoder ------------------------------------------------------------------------------------------------- */

kw_status kw_vae_read(const json_t *config, kw_vae_config *c, kw_err *e)
{
    reader r = { .json = config, .what = "vae", .e = e };
    bool unused[KW_LEVELS];
    *c = (kw_vae_config){ .in = integer(&r, "in_channels", 3, 1, 16), .out = integer(&r, "out_channels", 3, 1, 16) };
    c->latent = integer(&r, "latent_channels", 4, 1, 64);
    c->levels = levels_of(&r, c->ch);
    blocks(&r, "down_block_types", c->levels, "DownEncoderBlock2D", "DownEncoderBlock2D", unused);
    blocks(&r, "up_block_types", c->levels, "UpDecoderBlock2D", "UpDecoderBlock2D", unused);
    c->layers = integer(&r, "layers_per_block", 1, 1, 8);
    c->groups = integer(&r, "norm_num_groups", 32, 1, 1024);
    divisible(&r, c->levels, c->ch, c->groups, "groups");
    c->act = activation(&r, "act_fn", "silu");
    c->quant = truth(&r, "use_quant_conv", true);
    c->post_quant = truth(&r, "use_post_quant_conv", true);
    c->mid_attention = truth(&r, "mid_block_add_attention", true);
    c->scaling = number(&r, "scaling_factor", 0.18215);
    c->shift = number(&r, "shift_factor", 0);
    c->sample_size = integer(&r, "sample_size", 0, 0, 65536);
    return r.s;
}

/* ---- text encoder ------------------------------------------------------------------------------------------------ */

/* The class alone says so: projection_dim stands in every configuration. */
static bool projects(const json_t *config)
{
    const char *name = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    return name && (!strcmp(name, "CLIPTextModelWithProjection") || !strcmp(name, "CLIPModel"));
}

kw_status kw_clip_read(const json_t *config, kw_clip_config *c, kw_err *e)
{
    const json_t *inner = json_object_get(config, "text_config");      /* a whole CLIP's config */
    reader r = { .json = json_is_object(inner) ? inner : config, .what = "text encoder", .e = e };
    *c = (kw_clip_config){ .width = integer(&r, "hidden_size", 512, 1, 65536),
                           .layers = integer(&r, "num_hidden_layers", 12, 1, 256) };
    c->heads = integer(&r, "num_attention_heads", 8, 1, 1024);
    c->mlp = integer(&r, "intermediate_size", 2048, 1, 1 << 20);
    c->vocabulary = integer(&r, "vocab_size", 49408, 1, 1 << 24);
    c->positions = integer(&r, "max_position_embeddings", 77, 1, 1 << 16);
    c->act = activation(&r, "hidden_act", "quick_gelu");
    c->eps = (float)number(&r, "layer_norm_eps", 1e-5);
    int projection = integer(&r, "projection_dim", 512, 0, 65536);
    c->projection = projects(config) ? projection : 0;
    c->eos = integer(&r, "eos_token_id", 49407, 0, 1 << 24);
    divisible(&r, 1, &c->width, c->heads, "heads");
    return r.s;
}
