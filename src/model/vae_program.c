/* vae_program.c - the autoencoder as a program: whole, or in the largest stripes that keep to some memory. */
#include "model.h"

#include "pass/pass.h"

/* Sides of a tile in pixels, tried in this order. */
static const int sides[] = { KW_VAE_WHOLE, 512, 384, 256, 192, 128, 96, 64 };

static kw_status graph_of(kw_arena *a, const kw_sd *sd, const kw_vae_work *k, int tile, kw_graph **out, kw_err *e)
{
    const kw_vae_config *c = &sd->vae;
    kw_graph *g = *out = kw_graph_new(a, k->compute);
    int64_t f = kw_vae_factor(c), h = k->h, w = k->w;
    if (!g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_net n = kw_net_over(g, sd->params[KW_PART_VAE]);
    kw_val x = k->decode ? kw_input(g, "z", KW_SHAPE(k->n, h, w, c->latent), KW_F32)
                         : kw_input(g, "image", KW_SHAPE(k->n, h * f, w * f, c->in), KW_F32);
    x = kw_cast(g, x, g->compute);
    kw_val y = k->decode ? kw_vae_decode_tiled(&n, c, x, tile) : kw_vae_encode_tiled(&n, c, x, tile);
    if (!g->err.status)
        kw_result(g, "y", kw_cast(g, y, KW_F32));
    if (g->err.status && e)
        *e = g->err;
    return g->err.status;
}

/* Bytes of values with this tile, without what kernels need beside them. */
static kw_status plan(const kw_sd *sd, const kw_vae_work *k, int tile, size_t *bytes, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    kw_memory_plan *p = NULL;
    kw_graph *g;
    kw_status s = a ? graph_of(a, sd, k, tile, &g, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s)
        s = kw_prune(g, e);
    if (!s)
        s = kw_memory_plan_new(a, g, &p, e);
    if (!s)
        *bytes = p->bytes;
    kw_arena_free(a);
    return s;
}

kw_status kw_vae_fit(const kw_sd *sd, const kw_vae_work *k, size_t memory, int *tile, size_t *bytes, kw_err *e)
{
    enum { MOST = 512 };                  /* stripes of the picture: more cost time and save nothing */
    int64_t f = kw_vae_factor(&sd->vae), pixels = k->h * f * (k->w * f) * k->n;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < KW_LEN(sides); i++) {
        size_t need = 0;
        int64_t area = (int64_t)sides[i] * sides[i];
        if (sides[i] && (area > pixels || area * MOST < pixels))
            continue;
        KW_TRY(plan(sd, k, sides[i], &need, e));
        if (need >= best)
            continue;
        best = *bytes = need;
        *tile = sides[i];
        if (!memory || need <= memory)
            break;
    }
    return KW_OK;
}

kw_status kw_vae_program(kw_arena *a, const kw_sd *sd, const kw_vae_work *k, int tile, const kw_run_options *o,
                         kw_program **out, kw_err *e)
{
    kw_graph *g;
    KW_TRY(graph_of(a, sd, k, tile, &g, e));
    return kw_program_new(a, g, sd->store, o, out, e);
}
