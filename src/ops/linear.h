/* linear.h - what linear.c and linear_add.c share: sizes, the type in which weights are read, products' shapes. */
#ifndef KW_OPS_LINEAR_H
#define KW_OPS_LINEAR_H

#include "op.h"

/* m rows, k inputs, n outputs */
typedef struct { int64_t m, n, k; } size;

static inline size kw__linear_size(const kw_graph *g, kw_val x, kw_val w)
{
    kw_shape s = kw_shape_of(g, w);
    return (size){ kw__rows(kw_shape_of(g, x)), s.d[0], kw_count(s) / s.d[0] };
}

/* Types that the products take: any floats but F64 beside each other, weights of one byte a number (I8). */
bool kw__linear_fits(const kw_graph *g, kw_val x, kw_val w, kw_val y);

/*
 * The type in which the product reads w. Weights are read where they lie, in their own type; only bf16 products in
 * hardware take bf16 alone: there other weights between bf16 activations are converted once, for forward and dx.
 * (The factors of an adapter have an f32 activation at one side, so they stay f32.)
 */
kw_dtype kw__linear_type(const kw_graph *g, kw_val x, kw_val w, kw_val y);
/* The packed copy for a kernel that reads input `w` as `type`, if that is not its own. */
kw_status kw__linear_need(const kw_graph *g, const kw_node *n, int w, kw_dtype type, kw_need *need, kw_err *e);
void kw__linear_pack(void *held, kw_dtype from, const void *src, void *packed);
void kw__linear_release(void *held);

kw_gemm_shape kw__linear_forward(const kw_graph *g, kw_val x, kw_val w, kw_val y);         /* y = x wᵀ */
kw_gemm_shape kw__linear_back(const kw_graph *g, kw_val dy, kw_val w, kw_val dx);          /* dx = dy w */

kw_val kw__linear_dx(kw_graph *g, kw_val dy, kw_val w, kw_dtype t);
kw_val kw__linear_dw(kw_graph *g, kw_val x, kw_val dy);             /* sum type, (outputs, inputs) */

#endif
