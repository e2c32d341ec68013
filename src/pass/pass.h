/*
 * pass.h - graph in, graph out: gradients, dead code, recomputation; and the plan of where values lie.
 *
 *     KW_TRY(kw_backward(g, loss, wrt, n, grad, e));       -- emits the backward pass
 *     KW_TRY(kw_prune(g, e));                              -- what nobody reads goes: frozen layers cost nothing
 *     KW_TRY(kw_fuse(g, e));                               -- sums into the products before them
 *     KW_TRY(kw_recompute(g, level, e));                   -- trade time for memory
 *     KW_TRY(kw_memory_plan_new(arena, g, &plan, e));             -- lifetimes to offsets
 */
#ifndef KW_PASS_H
#define KW_PASS_H

#include "ir/ir.h"

/*
 * Emit d(sum of <y[i], dy[i]>)/d(wrt[k]) into dwrt[k] (KW_NONE where y does not depend on it). For a loss, y is
 * the loss and dy an input or constant of 1. Only what the wanted gradients need is emitted.
 */
KW_MUST kw_status kw_backward(kw_graph *g, const kw_val *y, const kw_val *dy, int n_y, const kw_val *wrt, int n_wrt, kw_val *dwrt, kw_err *e);

/*
 * The same, and ready(ctx, g, k, gradient) is called as soon as the gradient of wrt[k] is complete: nothing emitted after
 * the call reads wrt[k] (a pass that computes forward values again emits them before their gradient). What it emits, an
 * update say, stands there in the graph, so the gradient's memory is free for what follows.
 */
typedef kw_status kw_gradient_fn(void *ctx, kw_graph *g, int k, kw_val gradient, kw_err *e);
KW_MUST kw_status kw_backward_each(kw_graph *g, const kw_val *y, const kw_val *dy, int n_y, const kw_val *wrt, int n_wrt,
                                   kw_val *dwrt, kw_gradient_fn *ready, void *ctx, kw_err *e);

/* Remove nodes that no result and no bound state needs. Values are renumbered: handles from before are void. */
KW_MUST kw_status kw_prune(kw_graph *g, kw_err *e);

/* Products and the sums that take them become one node. After kw_backward: what is seen there is what the model says. */
KW_MUST kw_status kw_fuse(kw_graph *g, kw_err *e);

/*
 * Forward values that the backward pass reads are dropped and made again there.
 *   KW_KEEP_ALL    nothing is recomputed
 *   KW_LEAN        outputs of bandwidth-only ops (norms, activations, concatenations) are
 *   KW_FLOOR       all but the outputs of nodes marked `keep` (block boundaries) are, and of nodes that cost at least
 *                  `worth` FLOPs for each byte of their outputs: INFINITY is the floor, 0 is KW_LEAN, between them time
 *                  falls as memory rises (greedy by FLOPs per byte)
 * Values do not change by a bit: kernels are deterministic and round where they did before.
 */
typedef enum { KW_KEEP_ALL, KW_LEAN, KW_FLOOR } kw_memory_level;
KW_MUST kw_status kw_recompute(kw_graph *g, kw_memory_level level, double worth, kw_err *e);
/* What `worth` may usefully be in this graph: one number for each kind of node, rising. */
KW_MUST kw_status kw_recompute_worths(kw_arena *a, const kw_graph *g, double **worth, size_t *n, kw_err *e);

/* ---- plan: one offset per value in one arena -------------------------------------------------------------- */

enum { KW_ALIGN = 64 };

typedef struct {
    size_t *offset;                       /* by value; SIZE_MAX: not in the arena (inputs, states, bound values) */
    int *state;                           /* by value: the state whose storage it is, or KW_NONE */
    kw_val *root;                         /* by value: the value whose memory it shares (itself, mostly) */
    size_t bytes;                         /* of the arena */
    size_t sum;                           /* of all values, had nothing shared memory */
    int peak_node;                        /* where most is alive */
    size_t peak_alive;                    /* bytes alive there: the lower bound of `bytes` */
} kw_memory_plan;

KW_MUST kw_status kw_memory_plan_new(kw_arena *a, const kw_graph *g, kw_memory_plan **out, kw_err *e);

#endif
