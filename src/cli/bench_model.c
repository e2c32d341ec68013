/* bench_model.c - what kiwame bench measures: a model, a pass of it, and the sizes of that pass. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define C kw_bench_options

const kw_option kw_bench_rows[] = {
    KW_ROW_GROUP(N_("What")),
    KW_ROW_TEXT("model", C, model, "sd15",
                N_("sd15, sdxl, emoji or shapes with random weights; or a model's folder or file"), .value = "MODEL"),
    KW_ROW_CHOICE("pass", C, pass, KW_BENCH_FORWARD, KW_BENCH_PASSES,
                  N_("forward: the U-Net once; lora, full: a training step; or the autoencoder, the text encoder")),
    KW_ROW_TEXT("size", C, size, NULL, N_("size of the picture; default: the model's own"), .value = "WxH"),
    KW_ROW_INT("batch", C, batch, 1, 1, 1024, N_("pictures at once"), .alias = "batch-size"),
    KW_ROW_INT("vae-tile", C, vae_tile, KW_VAE_WHOLE, KW_VAE_WHOLE, KW_VAE_MOST,
               N_("the autoencoder in stripes of at most so many pixels squared"), .unit = "px", .word = "whole",
               .word_is = KW_VAE_WHOLE),
    KW_ROW_CHOICE("weights", C, weights, 0, "auto|f32|f16|bf16",
                  N_("type of random weights; auto: that of the computation")),
    KW_ROW_END
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

kw_status kw_bench_source(kw_arena *a, const char *model, kw_dtype weights, kw_source **out, kw_err *e)
{
    json_t *config;
    for (int i = 0; kw_family_name(i); i++)
        if (!strcmp(kw_family_name(i), model)) {
            KW_TRY(kw_family_config(a, model, &config, e));
            return kw_family_made(a, model, config, weights, out, e);
        }
    if (kw_is_dir(model) || kw_is_file(model))
        return kw_source_open(a, model, out, e);
    kw_status s = kw_fail(e, KW_EUSAGE, N_("there is no model '%s'"), model);
    return kw_advise(e, s, N_("name sd15, sdxl, emoji, shapes, or a model's folder or file"));
}

/* Written as files and read again: the one way in which a tokenizer is made. */
static kw_status bytes_alone(kw_arena *a, const char *dir, int positions, kw_tokenizer **out, kw_err *e)
{
    enum { BYTES = 2 * 256 + 2 };         /* each alone and at the end of a word; start and end of a text */
    static const kw_bpe_text none = { "", 0 };
    kw_bpe b;
    KW_TRY(kw_bpe_train(a, &none, 1, BYTES, 1, &b, e));
    KW_TRY(kw_bpe_write(&b, dir, positions, e));
    return kw_tokenizer_open(a, dir, out, e);
}

kw_status kw_bench_tokenizer(kw_arena *a, const kw_source *source, const kw_clip_config *text, kw_tokenizer **out,
                             kw_err *e)
{
    enum { CLIP_SIZE = 49408, CLIP_LENGTH = 77 };
    const char *where = getenv("TMPDIR");
    char *dir;
    *out = NULL;
    if (kw_is_dir(kw_source_path(source)) || kw_is_file(kw_source_path(source))
        || (text->vocabulary >= CLIP_SIZE && text->positions >= CLIP_LENGTH))
        return KW_OK;
    KW_TRY(kw_temp_dir(a, where && *where ? where : "/tmp", &dir, e));
    kw_status s = bytes_alone(a, dir, text->positions, out, e);
    kw_status gone = kw_remove_all(dir, s ? NULL : e);
    return s ? s : gone;
}

/* The part that a pass goes through; training: the U-Net unless the autoencoder is trained. */
static kw_part part_of(const kw_bench_model *m)
{
    static const kw_part part[] = { KW_PART_UNET, KW_PART_UNET, KW_PART_UNET, KW_PART_VAE, KW_PART_VAE, KW_PART_TEXT };
    bool vae = m->o->pass == KW_BENCH_FULL && m->tc.parts & 1u << KW_PART_VAE;
    return vae ? KW_PART_VAE : part[m->o->pass];
}

static kw_status read_parts(kw_bench_model *m, kw_err *e)
{
    if (!kw_source_has(m->source, part_of(m)))
        return kw_fail(e, KW_EDATA, N_("%s has no %s"), m->name, kw_part_name(part_of(m)));
    if (kw_source_has(m->source, KW_PART_UNET))
        KW_TRY(kw_unet_read(kw_source_config(m->source, KW_PART_UNET), &m->unet, e));
    if (kw_source_has(m->source, KW_PART_TEXT))
        KW_TRY(kw_clip_read(kw_source_config(m->source, KW_PART_TEXT), &m->text, e));
    if (kw_source_has(m->source, KW_PART_VAE))
        return kw_vae_read(kw_source_config(m->source, KW_PART_VAE), &m->vae, e);
    m->vae = (kw_vae_config){ .latent = m->unet.in, .levels = 4, .scaling = 1 }; /* a lone U-Net: latents of 1/8 */
    return KW_OK;
}

kw_status kw_bench_read_size(kw_bench_model *m, kw_err *e)
{
    int f = kw_vae_factor(&m->vae), native = m->unet.sample_size ? m->unet.sample_size * f : m->vae.sample_size;
    char rest;
    m->w = m->h = native ? native : 512;
    if (m->o->size && sscanf(m->o->size, "%d%*[xX]%d%c", &m->w, &m->h, &rest) != 2) {
        kw_status s = kw_fail(e, KW_EUSAGE, N_("size: '%s' is not WIDTHxHEIGHT"), m->o->size);
        return kw_advise(e, s, N_("for example 512x512"));
    }
    if (m->w < f || m->h < f || m->w > 16384 || m->h > 16384 || m->w % f || m->h % f)
        return kw_fail(e, KW_EUSAGE, N_("%d x %d pixels: with this base both must be multiples of %d"), m->w, m->h, f);
    return KW_OK;
}

/* What the user left open. */
static kw_status set_defaults(kw_cli *c, kw_err *e)
{
    static const struct { const char *name, *value; } rows[] = { { "targets", "attention" }, { "max-grad-norm", "1" } };
    for (size_t i = 0; i < KW_LEN(rows); i++)
        if (kw_options_find(c->options, rows[i].name))
            KW_TRY(kw_options_set(c->options, rows[i].name, rows[i].value, KW_FROM_PRESET, rows[i].name, e));
    return KW_OK;
}

kw_status kw_bench_open(kw_cli *c, kw_bench_options *o, kw_bench_model *m, kw_err *e)
{
    static const kw_dtype compute[] = { KW_F32, KW_BF16 }, weights[] = { KW_F32, KW_F32, KW_F16, KW_BF16 };
    static const kw_method_names names = { "--pass lora", "--pass full", NULL };
    *m = (kw_bench_model){ .o = o, .name = o->model };
    KW_TRY(set_defaults(c, e));
    m->compute = compute[o->s.dtype];
    m->weights = o->weights ? weights[o->weights] : m->compute;
    o->s.method = o->pass == KW_BENCH_FULL ? KW_METHOD_FULL : KW_METHOD_LORA;
    if (kw_bench_trains(m)) {
        KW_TRY(kw_settings_check(c->options, &o->s, &names, e));
        KW_TRY(kw_settings_config(c->arena, &o->s, 1000000, &m->tc, e));
    }
    KW_TRY(kw_bench_source(c->arena, m->name, m->weights, &m->source, e));
    KW_TRY(read_parts(m, e));
    m->tokens = m->text.positions ? m->text.positions : 77;
    return kw_bench_read_size(m, e);
}

bool kw_bench_trains(const kw_bench_model *m) { return m->o->pass == KW_BENCH_LORA || m->o->pass == KW_BENCH_FULL; }

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

static kw_val input(kw_graph *g, const char *name, kw_shape s)
{
    return kw_cast(g, kw_input(g, name, s, KW_F32), g->compute);
}

/* As a sampler evaluates it. */
static kw_val unet(kw_net *n, const kw_bench_model *m)
{
    const kw_unet_config *c = &m->unet;
    kw_graph *g = n->g;
    int f = kw_vae_factor(&m->vae), b = m->o->batch;
    kw_val x = input(g, "x", KW_SHAPE(b, m->h / f, m->w / f, c->in)),
           ctx = input(g, "context", KW_SHAPE(b, m->tokens, c->context[0]));
    kw_val pooled = KW_NONE, sizes = KW_NONE;
    if (c->add_dim) {
        pooled = input(g, "pooled", KW_SHAPE(b, c->add_dim - 6 * c->add_time_dim));
        sizes = kw_input(g, "sizes", KW_SHAPE(b, 6), KW_F32);
    }
    return kw_unet(n, c, x, kw_input(g, "t", KW_SHAPE(b), KW_F32), ctx, pooled, sizes);
}

static kw_val build(kw_graph *g, const kw_bench_model *m, const kw_sd *sd)
{
    kw_net n = kw_net_over(g, sd->params[part_of(m)]);
    int f = kw_vae_factor(&m->vae), b = m->o->batch;
    switch (m->o->pass) {
    case KW_BENCH_ENCODE:
        return kw_vae_encode_tiled(&n, &m->vae, input(g, "image", KW_SHAPE(b, m->h, m->w, m->vae.in)), m->o->vae_tile);
    case KW_BENCH_DECODE:
        return kw_vae_decode_tiled(&n, &m->vae, input(g, "z", KW_SHAPE(b, m->h / f, m->w / f, m->vae.latent)),
                                   m->o->vae_tile);
    case KW_BENCH_TEXT: return kw_clip(&n, &m->text, kw_input(g, "ids", KW_SHAPE(b, m->tokens), KW_I64), NULL);
    default: return unet(&n, m);
    }
}

kw_status kw_bench_graph(kw_arena *a, const kw_bench_model *m, const kw_sd *sd, kw_graph **out, kw_err *e)
{
    kw_graph *g = *out = kw_graph_new(a, m->compute);
    if (!g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_val y = build(g, m, sd);
    if (!g->err.status)
        kw_result(g, "y", kw_cast(g, y, KW_F32));
    if (g->err.status && e)
        *e = g->err;
    return g->err.status;
}

kw_micro kw_bench_shape(const kw_bench_model *m)
{
    static const float some;
    static const int64_t id;
    bool vae = part_of(m) == KW_PART_VAE;
    bool text = m->tc.lora ? m->tc.adapter.targets & KW_TARGET_TEXT : m->tc.parts & 1u << KW_PART_TEXT;
    int f = vae ? 1 : kw_vae_factor(&m->vae);
    kw_micro b = { .n = m->o->batch, .h = m->h / f, .w = m->w / f, .noise = &some };
    if (vae) {
        b.image = &some;
        return b;
    }
    b.tokens = m->tokens;
    b.latents = &some;
    b.timesteps = &id;
    b.beside = &some;                     /* of an inpainting base */
    if (text)
        b.ids = &id;
    else
        b.context = &some;
    if (!m->unet.add_dim)
        return b;
    b.sizes = &some;
    if (text)
        b.ids2 = b.end2 = &id;
    else
        b.pooled = &some;
    return b;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

void kw_bench_numbers(kw_dtype t, void *to, size_t n)
{
    enum { SOME = 4099 };                 /* a prime: rows of usual widths differ */
    float some[SOME];
    const kw_rng r = { .seed = 1, .stream = KW_RNG_TEST };
    for (size_t i = 0; i < SOME; i++)
        some[i] = kw_rng_float(r, i);
    if (t != KW_F32 && t != KW_BF16 && t != KW_F16 && t != KW_F64) {
        memset(to, 0, n * kw_dtype_size(t));
        return;
    }
    for (size_t at = 0; at < n; at += SOME)
        kw_convert(t, (char *)to + at * kw_dtype_size(t), KW_F32, some, KW_MIN((size_t)SOME, n - at));
}

kw_status kw_bench_feed(kw_arena *a, kw_program *p, kw_err *e)
{
    const kw_graph *g = kw_program_graph(p);
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->node[i].op != &kw_op_input)
            continue;
        const kw_value *v = &g->value[g->node[i].out[0]];
        size_t n = (size_t)kw_count(v->shape);
        void *data = kw_block_new(n * kw_dtype_size(v->dtype));
        if (!data || kw_defer(a, kw_block_free, data))
            return kw_fail(e, KW_ENOMEM, "out of memory");
        kw_bench_numbers(v->dtype, data, n);
        kw_program_set(p, v->name, data);
    }
    return KW_OK;
}
