/*
 * init.c - a part with fresh random weights, from its configuration alone: what PyTorch's layers start with (linear and
 * convolution: uniform in ±1/√fan-in, weight and bias; norms 1 and 0), and CLIP's own start (normal, its widths).
 */
#include "internal.h"

#include <math.h>
#include <string.h>

typedef struct {
    kw_arena *arena;
    uint64_t seed;
    kw_part part;
    const kw_clip_config *text;
    kw_tensor *list; size_t n, capacity;
    int64_t fan;                          /* of the weight before, for its bias */
} init;

static uint32_t hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

static bool is_norm(const char *name) { return strstr(name, "norm") != NULL; }

static void fill_uniform(kw_rng r, float bound, float *w, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        w[i] = (2 * kw_rng_float(r, (uint64_t)i) - 1) * bound;
}

static void fill_normal(kw_rng r, double sd, float *w, int64_t n)
{
    kw_rng_normals(r, 0, w, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        w[i] = (float)(w[i] * sd);
}

/* transformers' CLIPPreTrainedModel._init_weights; biases are zero. */
static double clip_sd(const kw_clip_config *c, const char *name)
{
    double in = pow(c->width, -0.5) * pow(2 * c->layers, -0.5);
    if (strstr(name, "embedding"))
        return 0.02;
    if (strstr(name, "out_proj"))
        return pow(c->width, -0.5);
    if (!strcmp(name, "text_projection.weight"))
        return pow(c->width, -0.5);
    return strstr(name, "fc1") ? pow(2 * c->width, -0.5) : in;
}

static void fill(init *s, const char *name, kw_shape shape, float *w)
{
    kw_rng r = { .seed = s->seed, .stream = KW_RNG_INIT, .step = hash(name), .sample = (uint32_t)s->part };
    int64_t n = kw_count(shape);
    if (shape.rank > 1)
        s->fan = n / shape.d[0];
    if (is_norm(name)) {
        for (int64_t i = 0; i < n; i++)
            w[i] = kw_ends_with(name, ".weight");
    } else if (s->text) {
        if (shape.rank > 1)
            fill_normal(r, clip_sd(s->text, name), w, n);
    } else {
        fill_uniform(r, 1 / sqrtf((float)KW_MAX(s->fan, 1)), w, n);
    }
}

static kw_status find(void *ctx, const char *name, kw_shape shape, kw_tensor *t, kw_err *e)
{
    init *s = ctx;
    int64_t count = kw_count(shape);
    float *w = kw_alloc_array(s->arena, (size_t)count, sizeof *w);
    KW_TRY(kw_grow(s->arena, &s->list, &s->capacity, s->n, sizeof *s->list, e));
    if (!w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    fill(s, name, shape, w);
    *t = (kw_tensor){ .name = kw_strdup(s->arena, name), .dtype = KW_F32, .rank = shape.rank, .data = w,
                      .bytes = (uint64_t)count * sizeof *w };
    memcpy(t->shape, shape.d, sizeof shape.d[0] * (size_t)shape.rank);
    if (s->part == KW_PART_VAE && strstr(name, ".attentions.") && shape.rank == 4)
        t->rank = 2;                      /* linear layers in today's files */
    s->list[s->n++] = *t;
    return KW_OK;
}

static kw_status build(kw_net *n, kw_part part, const json_t *config, kw_err *e)
{
    kw_graph *g = n->g;
    kw_unet_config u;
    kw_vae_config v;
    kw_clip_config c;
    switch (part) {
    case KW_PART_UNET:
        KW_TRY(kw_unet_read(config, &u, e));
        (void)kw_unet(n, &u, kw_input(g, "x", KW_SHAPE(1, 64, 64, u.in), KW_F32), kw_input(g, "t", KW_SHAPE(1), KW_F32),
                      kw_input(g, "c", KW_SHAPE(1, 1, u.context[0]), KW_F32),
                      kw_input(g, "p", KW_SHAPE(1, KW_MAX(u.add_dim - 6 * u.add_time_dim, 1)), KW_F32),
                      kw_input(g, "i", KW_SHAPE(1, 6), KW_F32));
        return g->err.status;
    case KW_PART_VAE:
        KW_TRY(kw_vae_read(config, &v, e));
        (void)kw_vae_encode(n, &v, kw_input(g, "x", KW_SHAPE(1, 64, 64, v.in), KW_F32));
        (void)kw_vae_decode(n, &v, kw_input(g, "z", KW_SHAPE(1, 4, 4, v.latent), KW_F32));
        return g->err.status;
    default:
        KW_TRY(kw_clip_read(config, &c, e));
        {
            kw_val y = kw_clip(n, &c, kw_input(g, "ids", KW_SHAPE(1, c.positions), KW_I64), NULL);
            if (c.projection && !g->err.status)
                (void)kw_clip_pooled(n, &c, y, kw_input(g, "end", KW_SHAPE(1), KW_I64));
        }
        return g->err.status;
    }
}

/* Building the part over any small input asks for every parameter once. */
kw_status kw__part_ask(kw_part part, const json_t *config, kw_param_find *ask, void *ctx, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    kw_params_source from = { .find = ask, .find_ctx = ctx, .exact = KW_F32 };
    kw_store *store = a ? kw_store_new(a) : NULL;
    kw_graph *g = a ? kw_graph_new(a, KW_F32) : NULL;
    kw_params *p = store ? kw_params_new(a, store, &from) : NULL;
    kw_status st = p && g ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!st) {
        kw_net net = kw_net_over(g, p);
        st = build(&net, part, config, e);
        if (st && e && g->err.status)
            *e = g->err;
    }
    kw_arena_free(a);
    return st;
}

kw_status kw_init_part(kw_arena *a, kw_part part, const json_t *config, uint64_t seed, kw_tensor **list, size_t *n,
                       kw_err *e)
{
    kw_clip_config text;
    init s = { .arena = a, .seed = seed, .part = part };
    if (part == KW_PART_TEXT || part == KW_PART_TEXT2) {
        KW_TRY(kw_clip_read(config, &text, e));
        s.text = &text;
    }
    kw_status st = kw__part_ask(part, config, find, &s, e);
    *list = s.list;
    *n = s.n;
    return st;
}
