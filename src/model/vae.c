/*
 * vae.c - the KL autoencoder.
 *
 *   picture ─conv_in─ down 0 ─ ... ─ down L ─ mid ─ norm ─ conv_out ─ quant_conv ─ moments [mean, log variance]
 *   latent ─ post_quant_conv ─ conv_in ─ mid ─ up 0 ─ ... ─ up L ─ norm ─ conv_out ─ picture
 *
 * Rombach et al. 2022 (arXiv:2112.10752). Parameter names are diffusers' (AutoencoderKL).
 *
 * Stripes. Every picture between two layers is a list of stripes of rows; a layer makes its stripes from the top, from
 * the rows it needs of those before:
 *
 *   y[a..b) = conv(norm(x[a-1..b+1)))        a norm's statistics are those of all x: they are gathered as x is made
 *
 * So nothing is approximated, there is no seam to hide, and every number is what it is with one stripe, in the same
 * order of sums. What must be there at once is x and y of one layer, and x goes where a residual sum takes it; norms'
 * outputs, pictures enlarged and shortcuts are there for one stripe only. The middle, of the least pixels, has one.
 */
#include "stripes.h"
#include "model.h"

static const float eps = 1e-6f;

typedef struct {
    kw_net *n;
    const kw_vae_config *c;
    int64_t numbers;                      /* in a stripe at most; 0: one stripe */
    bool gradients;                       /* one stripe, and norms that have gradients */
} coder;

/* norm, activation, (twice as large,) convolution; norm NULL: only that; normed: a norm follows */
typedef struct {
    const char *norm;
    kw_unary act;
    const char *conv;
    int64_t out;
    int k;
    kw_conv_pads pads;
    bool twice, normed;
} layer;

/* Even, so that an enlarged stripe begins with a whole row of the small picture. */
static int64_t rows_of(const coder *v, int64_t h, int64_t w, int64_t channels)
{
    enum { LEAST = 4 };
    int64_t rows = v->numbers / (w * channels) & ~(int64_t)1;
    return v->numbers ? KW_MIN(h, KW_MAX(rows, LEAST)) : h;
}

static kw_val norm(coder *v, const char *name, kw_unary act, const kw__stripes *x, kw_val rows, bool active)
{
    kw_net *n = v->n;
    kw_val y = KW_NONE;
    bool silu = active && act == KW_SILU;
    if (v->gradients)
        y = kw_nn_group_norm(n, name, rows, v->c->groups, eps, silu);
    else
        KW_IN(n, "%s", name) {
            int64_t c = kw_last(kw_shape_of(n->g, rows));
            kw_val gamma = kw_nn_param(n, "weight", KW_SHAPE(c)), beta = kw_nn_param(n, "bias", KW_SHAPE(c));
            if (!n->g->err.status)
                y = kw_group_apply(n->g, rows, x->moments, gamma, beta, v->c->groups, eps, silu);
        }
    return active && !silu ? kw_activation(n->g, act, y) : y;
}

/* Rows [from, to) of the picture twice as large. */
static kw_val enlarged(coder *v, const kw__stripes *x, int64_t from, int64_t to)
{
    kw_graph *g = v->n->g;
    int64_t first = from / 2, count = (to + 1) / 2 - first;
    kw_val small = kw__stripes_take(g, x, first, first + count);
    kw_val y = kw_upsample(g, small, 2 * count, 2 * kw_shape_of(g, small).d[2]);
    return to - from == 2 * count ? y : kw_rows(g, &y, 1, from - 2 * first, to - from);
}

/* Rows [from, to) of a layer's output. */
static kw_val layer_rows(coder *v, const layer *l, const kw__stripes *x, int64_t from, int64_t to)
{
    int64_t h = l->twice ? 2 * x->h : x->h;
    int64_t top = from * l->pads.stride - l->pads.top, end = (to - 1) * l->pads.stride + l->k - l->pads.top;
    kw_conv_pads pads = l->pads;
    pads.top = (int)KW_MAX(0, -top);
    pads.bottom = (int)KW_MAX(0, end - h);
    top = KW_MAX(top, 0);
    end = KW_MIN(end, h);
    kw_val rows = l->twice ? enlarged(v, x, top, end) : kw__stripes_take(v->n->g, x, top, end);
    if (l->norm)
        rows = norm(v, l->norm, l->act, x, rows, true);
    return v->n->g->err.status ? KW_NONE : kw_nn_conv(v->n, l->conv, rows, l->out, l->k, pads);
}

static int groups_after(const coder *v, bool normed) { return normed && !v->gradients ? v->c->groups : 0; }

static kw__stripes run(coder *v, const layer *l, const kw__stripes *x, int64_t rows)
{
    int64_t h = ((l->twice ? 2 * x->h : x->h) + l->pads.top + l->pads.bottom - l->k) / l->pads.stride + 1;
    kw__stripes y = kw__stripes_new(v->n->g, h, KW_MIN(rows, h));
    for (int64_t a = 0; a < h && !v->n->g->err.status; a += y.rows)
        kw__stripes_add(v->n->g, &y, layer_rows(v, l, x, a, KW_MIN(h, a + y.rows)), groups_after(v, l->normed));
    return y;
}

/* A convolution between blocks. */
static kw__stripes conv(coder *v, const layer *l, const kw__stripes *x)
{
    kw_shape s = kw__stripes_shape(v->n->g, x);
    int64_t h = l->twice ? 2 * s.d[1] : s.d[1], w = l->twice ? 2 * s.d[2] : s.d[2];
    return run(v, l, x, rows_of(v, KW_MAX(1, h), KW_MAX(1, w), KW_MAX(s.d[3], l->out)));
}

static kw__stripes resnet(coder *v, const kw__stripes *x, int out)
{
    kw_graph *g = v->n->g;
    kw_shape s = kw__stripes_shape(g, x);
    layer one = { "norm1", v->c->act, "conv1", out, 3, kw_padding(1, 1), false, true },
          two = { "norm2", v->c->act, "conv2", out, 3, kw_padding(1, 1), false, false };
    int64_t rows = g->err.status ? 1 : rows_of(v, s.d[1], s.d[2], KW_MAX(s.d[3], out));
    kw__stripes h = run(v, &one, x, rows), y = kw__stripes_new(g, x->h, rows);
    for (int64_t a = 0; a < x->h && !g->err.status; a += rows) {
        int64_t b = KW_MIN(x->h, a + rows);
        kw_val more = layer_rows(v, &two, &h, a, b), from = kw__stripes_take(g, x, a, b);
        if (s.d[3] != out)
            from = kw_nn_conv(v->n, "conv_shortcut", from, out, 1, kw_padding(1, 0));
        if (!g->err.status)
            kw__stripes_add(g, &y, kw_nn_keep(v->n, kw_add(g, from, more)), groups_after(v, true));
    }
    return y;
}

/*  x + attention over all pixels with one head  */
static kw__stripes attention(coder *v, const kw__stripes *all)
{
    kw_net *n = v->n;
    kw_val x = kw__stripes_take(n->g, all, 0, all->h), h = norm(v, "group_norm", KW_SILU, all, x, false);
    kw_shape s = kw_shape_of(n->g, x);
    h = kw_reshape(n->g, h, KW_SHAPE(s.d[0], s.d[1] * s.d[2], s.d[3]));
    kw_val q = kw_nn_linear(n, "to_q", h, s.d[3], true);
    kw_val k = kw_nn_linear(n, "to_k", h, s.d[3], true);
    kw_val to = kw_nn_linear(n, "to_v", h, s.d[3], true);
    h = kw_nn_linear(n, "to_out.0", kw_attention(n->g, q, k, to, 1, false), s.d[3], true);
    kw__stripes y = kw__stripes_new(n->g, all->h, all->h);
    kw__stripes_add(n->g, &y, kw_nn_keep(n, kw_add(n->g, x, kw_reshape(n->g, h, s))), groups_after(v, true));
    return y;
}

static kw__stripes mid(coder *v, kw__stripes h)
{
    int ch = v->c->ch[v->c->levels - 1];
    coder whole = *v;
    whole.numbers = 0;
    KW_IN(v->n, "mid_block") {
        KW_IN(v->n, "resnets.0") h = resnet(&whole, &h, ch);
        if (v->c->mid_attention && !v->n->g->err.status)
            KW_IN(v->n, "attentions.0") h = attention(&whole, &h);
        KW_IN(v->n, "resnets.1") h = resnet(&whole, &h, ch);
    }
    return h;
}

/* The last activation is SiLU whatever the configuration says (so it is in diffusers). */
static kw_val ending(coder *v, const kw__stripes *h, int64_t out)
{
    layer last = { "conv_norm_out", KW_SILU, "conv_out", out, 3, kw_padding(1, 1), false, false };
    kw__stripes y = conv(v, &last, h);
    return kw__stripes_take(v->n->g, &y, 0, y.h);
}

static kw_val encode(coder *v, kw_val x)
{
    const kw_vae_config *c = v->c;
    kw_net *n = v->n;
    layer first = { NULL, KW_SILU, "conv_in", c->ch[0], 3, kw_padding(1, 1), false, true };
    kw_val y = KW_NONE;
    KW_IN(n, "encoder") {
        kw__stripes h = kw__stripes_of(n->g, x);
        h = conv(v, &first, &h);
        for (int i = 0; i < c->levels; i++)
            KW_IN(n, "down_blocks.%d", i) {
                for (int j = 0; j < c->layers; j++)
                    KW_IN(n, "resnets.%d", j) h = resnet(v, &h, c->ch[i]);
                layer down = { NULL, KW_SILU, "downsamplers.0.conv", c->ch[i], 3, { 2, 0, 0, 1, 1 }, false, true };
                if (i < c->levels - 1)    /* the far row and column alone are padded */
                    h = conv(v, &down, &h);
            }
        h = mid(v, h);
        y = ending(v, &h, 2 * c->latent);
    }
    return c->quant ? kw_nn_conv(n, "quant_conv", y, 2 * c->latent, 1, kw_padding(1, 0)) : y;
}

static kw_val decode(coder *v, kw_val z)
{
    const kw_vae_config *c = v->c;
    kw_net *n = v->n;
    kw_val y = c->post_quant ? kw_nn_conv(n, "post_quant_conv", z, c->latent, 1, kw_padding(1, 0)) : z;
    layer first = { NULL, KW_SILU, "conv_in", c->ch[c->levels - 1], 3, kw_padding(1, 1), false, true };
    KW_IN(n, "decoder") {
        kw__stripes h = kw__stripes_of(n->g, y);
        h = mid(v, conv(v, &first, &h));
        for (int i = c->levels - 1; i >= 0; i--)
            KW_IN(n, "up_blocks.%d", c->levels - 1 - i) {
                for (int j = 0; j <= c->layers; j++)
                    KW_IN(n, "resnets.%d", j) h = resnet(v, &h, c->ch[i]);
                layer up = { NULL, KW_SILU, "upsamplers.0.conv", c->ch[i], 3, kw_padding(1, 1), true, true };
                if (i > 0)
                    h = conv(v, &up, &h);
            }
        y = ending(v, &h, c->out);
    }
    return y;
}

/* ---- what is offered --------------------------------------------------------------------------------------------- */

kw_val kw_vae_encode(kw_net *n, const kw_vae_config *c, kw_val x)
{
    coder v = { .n = n, .c = c, .gradients = true };
    return encode(&v, x);
}

kw_val kw_vae_decode(kw_net *n, const kw_vae_config *c, kw_val z)
{
    coder v = { .n = n, .c = c, .gradients = true };
    return decode(&v, z);
}

kw_val kw_vae_encode_tiled(kw_net *n, const kw_vae_config *c, kw_val x, int tile)
{
    coder v = { .n = n, .c = c, .numbers = (int64_t)tile * tile * c->ch[0] };
    return encode(&v, x);
}

kw_val kw_vae_decode_tiled(kw_net *n, const kw_vae_config *c, kw_val z, int tile)
{
    coder v = { .n = n, .c = c, .numbers = (int64_t)tile * tile * c->ch[0] };
    return decode(&v, z);
}

int kw_vae_factor(const kw_vae_config *c) { return 1 << (c->levels - 1); }
