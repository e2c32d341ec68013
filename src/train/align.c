/*
 * align.c - teaching a text encoder what pictures look like before any U-Net sees it: from the feature f at the end
 * mark
 *
 *   f ── MLP ── the picture's latent (mean squared error)          and, as in CLIP (arXiv:2103.00020),
 *   f ── linear ── unit vector t ──┐
 *   latent ── linear ── unit i ────┴── softmax over the batch of t·i / 0.07, both ways
 *
 * The heads are thrown away; the text encoder stays. It is the honest, small counterpart of SD's pretrained CLIP.
 */
#include "step.h"

#include <math.h>
#include <string.h>

static kw_status find(void *arena, const char *name, kw_shape shape, kw_tensor *t, kw_err *e)
{
    int64_t count = kw_count(shape), fan = shape.rank > 1 ? count / shape.d[0] : 0;
    float *w = kw_alloc_array(arena, (size_t)count, sizeof *w);
    uint32_t hash = 2166136261u;
    if (!w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (const char *s = name; *s; s++)
        hash = (hash ^ (unsigned char)*s) * 16777619u;
    kw_rng r = { .seed = 1, .stream = KW_RNG_INIT, .step = hash };
    for (int64_t i = 0; fan && i < count; i++)
        w[i] = (2 * kw_rng_float(r, (uint64_t)i) - 1) / sqrtf((float)fan);
    *t = (kw_tensor){ .name = name, .dtype = KW_F32, .rank = shape.rank, .data = w,
                      .bytes = (uint64_t)count * sizeof *w };
    memcpy(t->shape, shape.d, sizeof shape.d[0] * (size_t)shape.rank);
    return KW_OK;
}

static int select_text(void *ctx, const char *name) { (void)ctx, (void)name; return KW_GROUP_TEXT; }

kw_params *kw__align_params(kw_arena *a, kw_store *s)
{
    kw_params_source from = { .find = find, .find_ctx = a, .select = select_text, .exact = KW_F32 };
    return kw_params_new(a, s, &from);
}

static kw_val contrast(kw_net *n, kw_val t, kw_val i, kw_val ids)
{
    kw_graph *g = n->g;
    kw_val logits = kw_scale(g, kw_linear(g, t, i, KW_NONE), 1 / 0.07f),
           back = kw_scale(g, kw_linear(g, i, t, KW_NONE), 1 / 0.07f);
    return kw_axby(g, 0.5f, kw_cross_entropy(g, logits, ids), 0.5f, kw_cross_entropy(g, back, ids));
}

/* text: (N, T, D). Further inputs: end (N) position of the end mark, order (N) = 0, 1, ... */
kw_val kw__align_loss(kw_graph *g, kw_params *heads, kw_val text, kw_val latents)
{
    kw_net n = kw_net_over(g, heads);
    kw_shape s = kw_shape_of(g, latents);
    int64_t batch = s.d[0], size = kw_count(s) / batch, width = kw_last(kw_shape_of(g, text));
    kw_val f = kw_pick(g, text, kw_input(g, "end", KW_SHAPE(batch), KW_I64)), loss = KW_NONE;
    kw_val flat = kw_cast(g, kw_reshape(g, latents, KW_SHAPE(batch, size)), g->compute);
    KW_IN(&n, "head") {
        kw_val h = kw_silu(g, kw_nn_linear(&n, "regress_1", f, 2 * width, true));
        kw_val mse = kw_mse(g, kw_nn_linear(&n, "regress_2", h, size, true), flat, KW_NONE);
        kw_val t = kw_normalize(g, kw_nn_linear(&n, "text", f, width, false)),
               i = kw_normalize(g, kw_nn_linear(&n, "image", flat, width, false));
        loss = kw_axby(g, 1, mse, 0.1f, contrast(&n, t, i, kw_input(g, "order", KW_SHAPE(batch), KW_I64)));
    }
    return loss;
}
