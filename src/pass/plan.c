/*
 * plan.c - where values lie: exact lifetimes, then the largest first at the lowest offset that is free
 * for its whole life. Views and in-place results share the buffer of their source.
 */
#include "pass.h"

#include <stdlib.h>
#include <string.h>

typedef struct { kw_val root; int first, last; size_t bytes, offset; } buffer;

typedef struct {
    const kw_graph *g;
    kw_memory_plan *plan;
    kw_val *root;                         /* by value: whose buffer it shares (itself, mostly) */
    int *last;                            /* by value: the last node that reads it; n_nodes for results */
} planner;

static bool is_leaf(const kw_node *n) { return n->op == &kw_op_input || n->op == &kw_op_state; }
static kw_val root_of(const planner *p, kw_val v) { return v < 0 ? KW_NONE : p->root[v]; }

static void find_last_uses(planner *p)
{
    const kw_graph *g = p->g;
    for (size_t i = 0; i < g->n_nodes; i++) {
        for (int k = 0; k < g->node[i].n_out; k++)
            p->last[g->node[i].out[k]] = (int)i;
        for (int k = 0; k < g->node[i].n_in; k++)
            if (g->node[i].in[k] >= 0)
                p->last[g->node[i].in[k]] = (int)i;
    }
    for (size_t i = 0; i < g->n_results; i++)
        p->last[g->result[i].value] = (int)g->n_nodes;
}

static void mark_states(planner *p)
{
    for (size_t v = 0; v < p->g->n_values; v++)
        p->plan->state[v] = kw_state_of(p->g, (kw_val)v);
    for (size_t i = 0; i < p->g->n_bound; i++)
        p->plan->state[p->g->bound[i].value] = p->g->bound[i].state;
}

static bool in_arena(const planner *p, kw_val v)
{
    return !is_leaf(kw_node_of(p->g, v)) && p->plan->state[v] < 0;
}

/* May output 0 of node i take over the buffer of input 0? It must be the last reader of a plain value of that size. */
static bool can_take_over(const planner *p, size_t i, const int *life)
{
    const kw_node *n = &p->g->node[i];
    kw_val x = n->in[0], y = n->out[0];
    if (!n->op->in_place || x < 0 || !in_arena(p, root_of(p, x)) || kw_value_bytes(p->g, x) != kw_value_bytes(p->g, y))
        return false;
    for (int k = 1; k < n->n_in; k++)
        if (root_of(p, n->in[k]) == root_of(p, x))
            return false;
    return life[root_of(p, x)] == (int)i && root_of(p, x) == x;
}

/*
 * A view shares its source's buffer wherever that is, even in an input or a state. life[root] is the last use of a
 * whole buffer; it is known for values made before node i, because their readers are in p->last already.
 */
static void share(planner *p, int *life)
{
    const kw_graph *g = p->g;
    for (size_t i = g->n_nodes; i-- > 0;)                       /* a view keeps its source alive */
        if (g->node[i].op->view && p->plan->state[g->node[i].out[0]] < 0)
            p->last[g->node[i].in[0]] = KW_MAX(p->last[g->node[i].in[0]], p->last[g->node[i].out[0]]);
    for (size_t v = 0; v < g->n_values; v++)
        life[v] = p->last[v];
    for (size_t i = 0; i < g->n_nodes; i++) {
        const kw_node *n = &g->node[i];
        for (int k = 0; k < n->n_out; k++)
            p->root[n->out[k]] = n->out[k];
        if (!n->n_out || p->plan->state[n->out[0]] >= 0)
            continue;
        if (n->op->view || can_take_over(p, i, life)) {
            kw_val root = root_of(p, n->in[0]);
            p->root[n->out[0]] = root;
            life[root] = KW_MAX(life[root], p->last[n->out[0]]);
        }
    }
}

static int larger_first(const void *a, const void *b)
{
    const buffer *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->first != y->first ? (x->first < y->first ? -1 : 1) : x->root - y->root;
}

/*
 * Place b in the lowest gap among the placed buffers that are alive with it, and note it in order[n], which is sorted
 * by offset: so the search ends with the gap.
 */
static void place(buffer *b, const buffer **order, size_t n)
{
    size_t at = 0, i = 0;
    for (; i < n && order[i]->offset < at + b->bytes; i++)
        if (order[i]->first <= b->last && b->first <= order[i]->last)
            at = KW_MAX(at, order[i]->offset + order[i]->bytes);
    b->offset = at;
    for (i = n; i > 0 && order[i - 1]->offset > at; i--)
        order[i] = order[i - 1];
    order[i] = b;
}

static size_t collect(const planner *p, const int *life, buffer *b)
{
    size_t n = 0;
    for (size_t v = 0; v < p->g->n_values; v++) {
        if (p->root[v] != (kw_val)v || !in_arena(p, (kw_val)v))
            continue;
        size_t bytes = (kw_value_bytes(p->g, (kw_val)v) + KW_ALIGN - 1) & ~(size_t)(KW_ALIGN - 1);
        b[n++] = (buffer){ .root = (kw_val)v, .first = p->g->value[v].node, .last = life[v], .bytes = bytes };
    }
    return n;
}

static void find_peak(const planner *p, const buffer *b, size_t n)
{
    size_t alive = 0;
    int64_t *change = calloc(p->g->n_nodes + 2, sizeof *change);
    if (!change)
        return;
    for (size_t i = 0; i < n; i++) {
        change[b[i].first] += (int64_t)b[i].bytes;
        change[KW_MIN((size_t)b[i].last, p->g->n_nodes) + 1] -= (int64_t)b[i].bytes;
        p->plan->sum += b[i].bytes;
    }
    for (size_t i = 0; i < p->g->n_nodes; i++) {
        alive = (size_t)((int64_t)alive + change[i]);
        if (alive > p->plan->peak_alive) {
            p->plan->peak_alive = alive;
            p->plan->peak_node = (int)i;
        }
    }
    free(change);
}

static void pack(planner *p, buffer *b, size_t n, const buffer **order)
{
    qsort(b, n, sizeof *b, larger_first);
    for (size_t i = 0; i < n; i++) {
        place(&b[i], order, i);
        p->plan->offset[b[i].root] = b[i].offset;
        p->plan->bytes = KW_MAX(p->plan->bytes, b[i].offset + b[i].bytes);
    }
    for (size_t v = 0; v < p->g->n_values; v++) {
        p->plan->offset[v] = p->plan->offset[p->root[v]];
        if (p->plan->state[v] < 0)
            p->plan->state[v] = p->plan->state[p->root[v]];    /* a view of a state */
    }
}

kw_status kw_memory_plan_new(kw_arena *a, const kw_graph *g, kw_memory_plan **out, kw_err *e)
{
    size_t n = g->n_values;
    planner p = { .g = g, .plan = kw_alloc(a, sizeof(kw_memory_plan)) };
    int *life = kw_alloc_array(a, n, sizeof *life);
    buffer *b = kw_alloc_array(a, n, sizeof *b);
    const buffer **order = kw_alloc_array(a, n, sizeof(void *));
    p.root = kw_alloc_array(a, n, sizeof *p.root);
    p.last = kw_alloc_array(a, n, sizeof *p.last);
    if (!p.plan || !life || !b || !order || !p.root || !p.last
        || !(p.plan->offset = kw_alloc_array(a, n, sizeof(size_t)))
        || !(p.plan->state = kw_alloc_array(a, n, sizeof(int))))
        return kw_fail(e, KW_ENOMEM, "out of memory for a plan of %zu values", n);
    memset(p.plan->offset, 0xff, n * sizeof *p.plan->offset);
    find_last_uses(&p);
    mark_states(&p);
    share(&p, life);
    size_t n_buffers = collect(&p, life, b);
    find_peak(&p, b, n_buffers);
    pack(&p, b, n_buffers, order);
    p.plan->root = p.root;
    *out = p.plan;
    return KW_OK;
}
