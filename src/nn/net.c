/* net.c - scopes, and the layers that have parameters. */
#include "nn.h"

#include <stdio.h>
#include <string.h>

kw_net kw_net_over(kw_graph *g, kw_params *p) { return (kw_net){ .g = g, .params = p }; }

int kw_net_enter(kw_net *n, const char *fmt, ...)
{
    size_t length = strlen(n->path);
    KW_ASSERT(n->depth < (int)KW_LEN(n->mark));
    n->mark[n->depth++] = length;
    if (length && length + 1 < sizeof n->path)
        n->path[length++] = '.';
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(n->path + length, sizeof n->path - length, fmt, ap);
    va_end(ap);
    const char *scope = kw_strdup(n->g->arena, n->path);
    if (scope)
        n->g->scope = scope;
    return 1;
}

int kw_net_leave(kw_net *n)
{
    KW_ASSERT(n->depth > 0);
    n->path[n->mark[--n->depth]] = 0;
    const char *scope = kw_strdup(n->g->arena, n->path);
    if (scope)
        n->g->scope = scope;
    return 0;
}

static kw_val pass_seam(kw_net *n, kw_geometry geometry, kw_val x, kw_val y)
{
    return n->seam && !n->g->err.status ? n->seam(n->seam_ctx, n, geometry, x, y) : y;
}

kw_val kw_nn_linear(kw_net *n, const char *name, kw_val x, int64_t out, bool bias)
{
    kw_val y = KW_NONE;
    int64_t in = kw_last(kw_shape_of(n->g, x));
    KW_IN(n, "%s", name) {
        if (n->before && !n->g->err.status)
            x = n->before(n->before_ctx, n, x);
        kw_val w = kw_nn_param(n, "weight", KW_SHAPE(out, in));
        kw_val b = bias ? kw_nn_param(n, "bias", KW_SHAPE(out)) : KW_NONE;
        if (!n->g->err.status)
            y = kw_linear(n->g, x, w, b);
        y = pass_seam(n, (kw_geometry){ .in = in, .out = out }, x, y);
    }
    return y;
}

kw_val kw_nn_conv(kw_net *n, const char *name, kw_val x, int64_t out, int k, kw_conv_pads pads)
{
    kw_val y = KW_NONE;
    int64_t in = kw_last(kw_shape_of(n->g, x));
    KW_IN(n, "%s", name) {
        kw_val w = kw_nn_param(n, "weight", KW_SHAPE(out, in, k, k));
        kw_val b = kw_nn_param(n, "bias", KW_SHAPE(out));
        if (!n->g->err.status)
            y = kw_conv2d(n->g, x, w, b, pads);
        y = pass_seam(n, (kw_geometry){ .in = in, .out = out, .kh = k, .kw = k, .pads = pads }, x, y);
    }
    return y;
}

kw_val kw_nn_group_norm(kw_net *n, const char *name, kw_val x, int groups, float eps, bool silu)
{
    kw_val y = KW_NONE;
    int64_t c = kw_last(kw_shape_of(n->g, x));
    KW_IN(n, "%s", name) {
        kw_val gamma = kw_nn_param(n, "weight", KW_SHAPE(c)), beta = kw_nn_param(n, "bias", KW_SHAPE(c));
        if (!n->g->err.status)
            y = kw_group_norm(n->g, x, gamma, beta, groups, eps, silu);
    }
    return y;
}

kw_val kw_nn_layer_norm(kw_net *n, const char *name, kw_val x, float eps)
{
    kw_val y = KW_NONE;
    int64_t c = kw_last(kw_shape_of(n->g, x));
    KW_IN(n, "%s", name) {
        kw_val gamma = kw_nn_param(n, "weight", KW_SHAPE(c)), beta = kw_nn_param(n, "bias", KW_SHAPE(c));
        if (!n->g->err.status)
            y = kw_layer_norm(n->g, x, gamma, beta, eps);
    }
    return y;
}

kw_val kw_nn_embedding(kw_net *n, const char *name, kw_val ids, int64_t rows, int64_t width)
{
    kw_val y = KW_NONE;
    KW_IN(n, "%s", name) {
        kw_val table = kw_nn_param(n, "weight", KW_SHAPE(rows, width));
        if (!n->g->err.status)
            y = kw_gather(n->g, ids, table);
    }
    return y;
}

kw_val kw_nn_keep(kw_net *n, kw_val x)
{
    if (x >= 0)
        n->g->node[n->g->value[x].node].keep = true;
    return x;
}
