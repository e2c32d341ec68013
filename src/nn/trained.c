/* trained.c - everything that is trained as flat ranges: values, gradients, moments, side by side. */
#include "nn.h"

#include <string.h>

enum { ROW = 16 };  /* parameters start at multiples of 64 bytes, so that vector kernels never straddle */

static int64_t padded(int64_t n, int64_t each) { return (n + each - 1) / each * each; }

static bool is_narrow(const kw_trained *t, const kw_param_info *p)
{
    return kw_store_at(t->store, p->state)->dtype == KW_BF16;
}

/* By state: does the loss depend on it? Such as SDXL's first encoder's last layer: built, but nobody reads it. */
static kw_status reads(kw_arena *a, const kw_store *s, const kw_trained_options *o, bool **out, kw_err *e)
{
    const kw_graph *g = o->graph;
    *out = NULL;
    if (!g)
        return KW_OK;
    bool *live = kw_alloc_array(a, g->n_nodes + 1, sizeof *live);
    *out = kw_alloc_array(a, (size_t)kw_store_count(s) + 1, sizeof **out);
    if (!live || !*out)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    live[g->value[o->loss].node] = true;
    for (size_t i = g->n_nodes; i-- > 0;) {
        for (int k = 0; live[i] && k < g->node[i].n_in; k++)
            if (g->node[i].in[k] >= 0)
                live[g->value[g->node[i].in[k]].node] = true;
        if (live[i] && g->node[i].op == &kw_op_state)
            (*out)[kw_state_of(g, g->node[i].out[0])] = true;
    }
    return KW_OK;
}

static kw_status collect_group(kw_arena *a, kw_trained *t, kw_params *const *sets, int n_sets, int group, bool narrow,
                               int64_t each, const bool *read, size_t *capacity, kw_err *e)
{
    for (int s = 0; s < n_sets; s++)
        for (size_t i = 0; i < kw_params_count(sets[s]); i++) {
            kw_param_info *info = (kw_param_info *)(uintptr_t)kw_params_at(sets[s], i);
            if (info->group != group || is_narrow(t, info) != narrow)
                continue;
            info->at = KW_NONE;
            if (read && !read[info->state])
                continue;
            KW_TRY(kw_grow(a, &t->param, capacity, t->n, sizeof *t->param, e));
            t->param[t->n++] = info;
            info->at = t->count;
            t->count += padded(kw_count(info->shape), each);
        }
    return KW_OK;
}

static kw_status collect(kw_arena *a, kw_trained *t, kw_params *const *sets, int n_sets, int64_t each,
                         const kw_trained_options *o, kw_err *e)
{
    size_t capacity = 0;
    bool *read;
    KW_TRY(reads(a, t->store, o, &read, e));
    for (int group = 0; group < t->n_groups; group++) {
        t->group_at[group] = t->count;
        KW_TRY(collect_group(a, t, sets, n_sets, group, false, each, read, &capacity, e));
        t->group_count[group] = t->count - t->group_at[group];
    }
    t->exact_count = t->count;
    for (int group = 0; group < t->n_groups; group++)
        KW_TRY(collect_group(a, t, sets, n_sets, group, true, each, read, &capacity, e));
    return KW_OK;
}

/* Values move into the flat range; each gradient is a state of its own over a slice of the gradient range. */
static kw_status move(kw_arena *a, kw_trained *t, bool passing, kw_err *e)
{
    t->gradient = kw_alloc_array(a, t->n + 1, sizeof *t->gradient);
    if (!t->gradient)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < t->n; i++) {
        const kw_param_info *p = t->param[i];
        const kw_stored *s = kw_store_at(t->store, p->state);
        bool narrow = p->at >= t->exact_count;
        char *to = kw_store_write(t->store, narrow ? t->narrow : t->values);
        to += (size_t)(p->at - (narrow ? t->exact_count : 0)) * kw_dtype_size(s->dtype);
        size_t bytes = (size_t)kw_count(p->shape) * kw_dtype_size(s->dtype);
        memcpy(to, s->data, bytes);
        if (s->mapped)
            kw_pages_drop(s->data, bytes);
        kw_store_rebind(t->store, p->state, s->dtype, to);
        if (passing)
            kw_store_set_passing(t->store, p->state);
        t->gradient[i] = KW_NONE;
        if (t->gradients >= 0)
            KW_TRY(kw_trained_slice(t, t->gradients, 1, i, &t->gradient[i], e));
    }
    return KW_OK;
}

static kw_status make_ranges(kw_trained *t, const kw_trained_options *o, kw_err *e)
{
    t->type = t->n && !is_narrow(t, t->param[0]) ? kw_store_at(t->store, t->param[0]->state)->dtype : KW_F32;
    if (t->exact_count)
        KW_TRY(kw_store_add(t->store, "values", KW_SHAPE(t->exact_count), t->type, NULL, &t->values, e));
    if (t->count > t->exact_count)
        KW_TRY(kw_store_add(t->store, "narrow", KW_SHAPE(t->count - t->exact_count), KW_BF16, NULL, &t->narrow, e));
    return o->gradients ? kw_trained_range(t, "gradients", t->type, 1, &t->gradients, e) : KW_OK;
}

kw_status kw_trained_new(kw_arena *a, kw_params *const *sets, int n_sets, int n_groups, const kw_trained_options *o,
                         kw_trained **out, kw_err *e)
{
    static const kw_trained_options usual = { .gradients = true };
    kw_trained *t = kw_alloc(a, sizeof *t);
    if (!t)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    o = o ? o : &usual;
    *t = (kw_trained){ .store = kw_params_store(sets[0]), .n_groups = n_groups, .values = KW_NONE, .narrow = KW_NONE,
                       .gradients = KW_NONE };
    t->group_at = kw_alloc_array(a, (size_t)n_groups, sizeof *t->group_at);
    t->group_count = kw_alloc_array(a, (size_t)n_groups, sizeof *t->group_count);
    if (!t->group_at || !t->group_count)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    double begun = kw_now();
    KW_TRY(collect(a, t, sets, n_sets, o->each ? o->each : ROW, o, e));
    if (!t->n)
        return kw_fail(e, KW_EUSAGE, "nothing is trained: every parameter is frozen");
    KW_TRY(make_ranges(t, o, e));
    KW_TRY(move(a, t, o->passing, e));
    t->seconds = kw_now() - begun;
    *out = t;
    return KW_OK;
}

kw_status kw_trained_range(kw_trained *t, const char *name, kw_dtype type, int64_t each, int *state, kw_err *e)
{
    return kw_store_add(t->store, name, KW_SHAPE((t->count + each - 1) / each), type, NULL, state, e);
}

kw_status kw_trained_slice(kw_trained *t, int range, int64_t each, size_t i, int *state, kw_err *e)
{
    const kw_stored *s = kw_store_at(t->store, range);
    const kw_param_info *p = t->param[i];
    char *data = (char *)s->data + (size_t)(p->at / each) * kw_dtype_size(s->dtype);
    kw_shape shape = each == 1 ? p->shape : KW_SHAPE((kw_count(p->shape) + each - 1) / each);
    KW_ASSERT(p->at % each == 0);
    return kw_store_add(t->store, s->name, shape, s->dtype, data, state, e);
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

static kw_status leaves(const kw_trained *t, const kw_graph *g, kw_val **wrt, kw_val **d, kw_err *e)
{
    *wrt = kw_alloc_array(g->arena, t->n, sizeof **wrt);
    *d = kw_alloc_array(g->arena, t->n, sizeof **d);
    if (!*wrt || !*d)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < t->n; i++)
        (*wrt)[i] = leaf_of(g, t->param[i]->state);
    return KW_OK;
}

kw_status kw_trained_backward_each(kw_trained *t, kw_graph *g, kw_val loss, kw_val dloss, kw_gradient_fn *each,
                                   void *ctx, kw_err *e)
{
    kw_val *wrt, *d;
    KW_TRY(leaves(t, g, &wrt, &d, e));
    return kw_backward_each(g, &loss, &dloss, 1, wrt, (int)t->n, d, each, ctx, e);
}

/* At once, not after the whole backward pass: only then is the gradient's memory free for what follows. */
static kw_status add_to_range(void *trained, kw_graph *g, int i, kw_val grad, kw_err *e)
{
    const kw_trained *t = trained;
    kw_val sum = kw_state(g, t->gradient[i], t->param[i]->shape, t->type);
    kw_bind(g, kw_add(g, sum, grad), t->gradient[i]);
    if (g->err.status && e)
        *e = g->err;
    return g->err.status;
}

kw_status kw_trained_backward(kw_trained *t, kw_graph *g, kw_val loss, kw_val dloss, kw_err *e)
{
    return kw_trained_backward_each(t, g, loss, dloss, add_to_range, t, e);
}
