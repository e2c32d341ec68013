/* trained.c - everything that is trained as flat ranges: values, gradients, moments, side by side. */
#include "nn.h"

#include <string.h>

enum { ROW = 16 };                        /* parameters start at multiples of 64 bytes, so that vector kernels never straddle */

static int64_t padded(int64_t n) { return (n + ROW - 1) / ROW * ROW; }

static kw_status collect(kw_arena *a, kw_trained *t, kw_params *const *sets, int n_sets, kw_err *e)
{
    size_t capacity = 0;
    for (int group = 0; group < t->n_groups; group++) {
        t->group_at[group] = t->count;
        for (int s = 0; s < n_sets; s++)
            for (size_t i = 0; i < kw_params_count(sets[s]); i++) {
                kw_param_info *info = (kw_param_info *)(uintptr_t)kw_params_at(sets[s], i);
                if (info->group != group)
                    continue;
                KW_TRY(kw_grow(a, &t->param, &capacity, t->n, sizeof *t->param, e));
                t->param[t->n++] = info;
                info->at = t->count;
                t->count += padded(kw_count(info->shape));
            }
        t->group_count[group] = t->count - t->group_at[group];
    }
    return KW_OK;
}

/* Values move into the flat range; each gradient is a state of its own over a slice of the gradient range. */
static kw_status move(kw_arena *a, kw_trained *t, kw_err *e)
{
    size_t size = kw_dtype_size(t->type);
    char *values = kw_store_write(t->store, t->values), *gradients = kw_store_write(t->store, t->gradients);
    t->gradient = kw_alloc_array(a, t->n + 1, sizeof *t->gradient);
    if (!t->gradient)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < t->n; i++) {
        const kw_param_info *p = t->param[i];
        const kw_stored *s = kw_store_at(t->store, p->state);
        kw_convert(t->type, values + (size_t)p->at * size, s->dtype, s->data, (size_t)kw_count(p->shape));
        kw_store_rebind(t->store, p->state, t->type, values + (size_t)p->at * size);
        KW_TRY(kw_store_add(t->store, p->name, p->shape, t->type, gradients + (size_t)p->at * size, &t->gradient[i], e));
    }
    return KW_OK;
}

kw_status kw_trained_new(kw_arena *a, kw_params *const *sets, int n_sets, int n_groups, kw_trained **out, kw_err *e)
{
    kw_trained *t = kw_alloc(a, sizeof *t);
    if (!t)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *t = (kw_trained){ .store = kw_params_store(sets[0]), .n_groups = n_groups };
    t->group_at = kw_alloc_array(a, (size_t)n_groups, sizeof *t->group_at);
    t->group_count = kw_alloc_array(a, (size_t)n_groups, sizeof *t->group_count);
    if (!t->group_at || !t->group_count)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(collect(a, t, sets, n_sets, e));
    if (!t->n)
        return kw_fail(e, KW_EUSAGE, "nothing is trained: every parameter is frozen");
    t->type = kw_store_at(t->store, t->param[0]->state)->dtype;
    KW_TRY(kw_trained_range(t, "values", &t->values, e));
    KW_TRY(kw_trained_range(t, "gradients", &t->gradients, e));
    KW_TRY(move(a, t, e));
    *out = t;
    return KW_OK;
}

kw_status kw_trained_range(kw_trained *t, const char *name, int *state, kw_err *e)
{
    return kw_store_add(t->store, name, KW_SHAPE(t->count), t->type, NULL, state, e);
}

void kw_trained_changed(kw_trained *t)
{
    for (size_t i = 0; i < t->n; i++)
        (void)kw_store_write(t->store, t->param[i]->state);
}

/* The leaf of a state, if this graph reads it. */
static kw_val leaf_of(const kw_graph *g, int state)
{
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->node[i].op == &kw_op_state && kw_state_of(g, g->node[i].out[0]) == state)
            return g->node[i].out[0];
    return KW_NONE;
}

kw_status kw_trained_backward(kw_trained *t, kw_graph *g, kw_val loss, kw_val dloss, kw_err *e)
{
    kw_val *wrt = kw_alloc_array(g->arena, t->n, sizeof *wrt), *d = kw_alloc_array(g->arena, t->n, sizeof *d);
    if (!wrt || !d)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < t->n; i++)
        wrt[i] = leaf_of(g, t->param[i]->state);
    KW_TRY(kw_backward(g, &loss, &dloss, 1, wrt, (int)t->n, d, e));
    g->backward = true;
    for (size_t i = 0; i < t->n; i++) {
        if (d[i] < 0)
            continue;
        kw_val sum = kw_state(g, t->gradient[i], t->param[i]->shape, t->type);
        kw_bind(g, kw_add(g, sum, d[i]), t->gradient[i]);
    }
    g->backward = false;
    if (g->err.status && e)
        *e = g->err;
    return g->err.status;
}
