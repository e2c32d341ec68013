/*
 * ops.h - builders: the graph is written as mathematics.
 *
 *     kw_val h = kw_group_norm(g, x, gamma, beta, 32, 1e-5f, true);
 *     h = kw_conv2d(g, h, w, bias, 1, 1);
 *     y = kw_add(g, x, h);
 *
 * Each op is one file's descriptor and one line in ops.def. Shapes: N batch, H W pixels, T tokens,
 * C channels. "activations" are F32, BF16 or F64; parameters may be stored in any float type where noted.
 */
#ifndef KW_OPS_H
#define KW_OPS_H

#include "ir/ir.h"
#include "kern/kern.h"

#define KW_OP(name) extern const kw_op kw_op_##name;
#include "ops.def"
#undef KW_OP

const kw_op *kw_op_at(int i);                      /* the table made from ops.def; NULL: no more */
int kw_op_count(void);
const kw_op *kw_op_find(const char *name);

/* ---- elementwise */
kw_val kw_axby(kw_graph *g, float a, kw_val x, float b, kw_val z);             /* a x + b z; z may be KW_NONE */
bool kw_is_axby(const kw_node *n, float *a, float *b);                         /* with both x and z */
static inline kw_val kw_add(kw_graph *g, kw_val x, kw_val z) { return kw_axby(g, 1, x, 1, z); }
static inline kw_val kw_sub(kw_graph *g, kw_val x, kw_val z) { return kw_axby(g, 1, x, -1, z); }
static inline kw_val kw_scale(kw_graph *g, kw_val x, float a) { return kw_axby(g, a, x, 0, KW_NONE); }
kw_val kw_mul(kw_graph *g, kw_val x, kw_val z);
/* a[n] x + b[n] z; a, b: (N) sum type */
kw_val kw_blend(kw_graph *g, kw_val x, kw_val z, kw_val a, kw_val b);
kw_val kw_scale_by(kw_graph *g, kw_val x, kw_val s);                              /* s[0] x; s: (1) sum type */
kw_val kw_dot(kw_graph *g, kw_val x, kw_val z);                                   /* (1) sum type */
kw_val kw_cast(kw_graph *g, kw_val x, kw_dtype t);                                /* x itself if it has the type */
kw_val kw_activation(kw_graph *g, kw_unary f, kw_val x);
static inline kw_val kw_silu(kw_graph *g, kw_val x) { return kw_activation(g, KW_SILU, x); }
/*
 * torch.nn's other activations, for what is never trained here (hypernetworks); by A1111's names, "swish" is Hardswish.
 * Those with a parameter have torch's default.
 */
#define KW_CURVE_MAP(X) \
    X(RELU, "relu") X(RELU6, "relu6") X(LEAKY_RELU, "leakyrelu") X(ELU, "elu") X(CELU, "celu") X(SELU, "selu") \
    X(HARDSWISH, "hardswish") X(HARDSIGMOID, "hardsigmoid") X(HARDTANH, "hardtanh") X(TANH, "tanh") \
    X(SIGMOID, "sigmoid") X(SILU, "silu") X(GELU, "gelu") X(MISH, "mish") X(SOFTPLUS, "softplus") \
    X(SOFTSIGN, "softsign") X(TANHSHRINK, "tanhshrink") X(LOGSIGMOID, "logsigmoid") X(HARDSHRINK, "hardshrink") \
    X(SOFTSHRINK, "softshrink")
typedef enum {
#define X(name, text) KW_CURVE_##name,
    KW_CURVE_MAP(X)
#undef X
    KW_N_CURVES
} kw_curve_kind;
bool kw_curve_find(const char *name, kw_curve_kind *f);
kw_val kw_curve(kw_graph *g, kw_curve_kind f, kw_val x);
/* (..., 2C) -> value * gelu(gate): (..., C) */
kw_val kw_geglu(kw_graph *g, kw_val x);

/* ---- broadcasts and their sums */
kw_val kw_add_channels(kw_graph *g, kw_val x, kw_val v);                          /* x (N, ..., C) + v (N, C) */
kw_val kw_sum_pixels(kw_graph *g, kw_val x);                                      /* (N, ..., C) -> (N, C) sum type */
kw_val kw_add_rows(kw_graph *g, kw_val x, kw_val v);                              /* v has x's last dimensions */
/* keep the last `rank` dimensions; sum type */
kw_val kw_sum_leading(kw_graph *g, kw_val x, int rank);

/* ---- norms: saved statistics are outputs 1 and 2 (mean, 1/sd) */
kw_val kw_group_norm(kw_graph *g, kw_val x, kw_val gamma, kw_val beta, int groups, float eps, bool silu);
kw_val kw_layer_norm(kw_graph *g, kw_val x, kw_val gamma, kw_val beta, float eps);

/* ---- products; w may be stored in any float type */
kw_val kw_linear(kw_graph *g, kw_val x, kw_val w, kw_val bias);                   /* x (..., K), w (M, K) -> (..., M) */
kw_val kw_linear_as(kw_graph *g, kw_val x, kw_val w, kw_val bias, kw_dtype out);  /* the same, output of another type */
/* y0 + a x wᵀ (+ bias), or y0 + a x w if `back`; kw_fuse makes it of a product and the sum that takes it */
kw_val kw_linear_add(kw_graph *g, kw_val y0, float a, kw_val x, kw_val w, kw_val bias, bool back);
typedef struct { int stride, top, left, bottom, right; } kw_conv_pads;
/* x (N,H,W,I), w (O,I,kh,kw) -> (N,H',W',O) */
kw_val kw_conv2d(kw_graph *g, kw_val x, kw_val w, kw_val bias, kw_conv_pads p);
kw_val kw_conv2d_as(kw_graph *g, kw_val x, kw_val w, kw_val bias, kw_conv_pads p, kw_dtype out);
/* softmax(q k^T / sqrt(dim)) v per head; q (N,Tq,H*D), k and v (N,Tk,H*D). Output 1: log-sum-exp (N,H,Tq). */
kw_val kw_attention(kw_graph *g, kw_val q, kw_val k, kw_val v, int heads, bool causal);

/* ---- layout */
kw_val kw_reshape(kw_graph *g, kw_val x, kw_shape s);
kw_val kw_concat(kw_graph *g, kw_val a, kw_val b);                                /* along the last dimension */
kw_val kw_slice(kw_graph *g, kw_val x, int64_t from, int64_t count);              /* of the last dimension */
kw_val kw_upsample(kw_graph *g, kw_val x, int64_t h, int64_t w);                  /* nearest, to h x w */

/* ---- pictures in stripes of rows, for runs without gradients */
/* rows [from, from + count) of up to KW_INS stripes (N, h_i, W, C), one below the other */
kw_val kw_rows(kw_graph *g, const kw_val *part, int n, int64_t from, int64_t count);
/* (N, groups, 3) F64: count, mean, sum of squares about it; before: those of the stripes above, or KW_NONE */
kw_val kw_group_moments(kw_graph *g, kw_val x, kw_val before, int groups);
/* group norm by given moments, then SiLU if asked */
kw_val kw_group_apply(kw_graph *g, kw_val x, kw_val moments, kw_val gamma, kw_val beta, int groups, float eps,
                      bool silu);

/* ---- look-ups */
/* ids (...) I64, table (V, C) -> (..., C) compute type */
kw_val kw_gather(kw_graph *g, kw_val ids, kw_val table);
/* x (N,T,C), index (N) I64 -> (N, C) */
kw_val kw_pick(kw_graph *g, kw_val x, kw_val index);
/* t (N) sum type -> sinusoids (N, dim) */
kw_val kw_timestep(kw_graph *g, kw_val t, int dim, bool flip, float shift);

/* ---- losses: (1), sum type */
/* mean of weight[n] (y - target)^2; weight (N) may be KW_NONE */
kw_val kw_mse(kw_graph *g, kw_val y, kw_val target, kw_val weight);
kw_val kw_l1(kw_graph *g, kw_val y, kw_val target);                               /* mean |y - target| */
/* (..., 2C), (..., C) -> mean + sd noise */
kw_val kw_gaussian(kw_graph *g, kw_val moments, kw_val noise);
/* mean over the batch of KL(q || N(0,1)) */
kw_val kw_kl(kw_graph *g, kw_val moments);
kw_val kw_normalize(kw_graph *g, kw_val x);                                       /* rows to unit length */
/* (N, V), (N) I64: mean of -log softmax */
kw_val kw_cross_entropy(kw_graph *g, kw_val logits, kw_val ids);

/* ---- updates; new values are bound to states by the caller */
typedef struct { float beta1, beta2, eps; } kw_adam;
/*
 * p, grad, m, v: flat, f32 (f64 in double graphs). scalars (5): rate, weight decay, 1-beta1^t, 1-beta2^t, clip factor.
 * Outputs: p', m', v'. A clip that is no number: nothing moves.
 */
kw_val kw_adamw_step(kw_graph *g, kw_val p, kw_val grad, kw_val m, kw_val v, kw_val scalars, kw_adam c);
/* The same for p in BF16, whose new values are rounded by chance: number i by what key, (1) I64, and at + i give */
kw_val kw_adamw_rounded(kw_graph *g, kw_val p, kw_val grad, kw_val m, kw_val v, kw_val scalars, kw_val key, int64_t at,
                        kw_adam c);
/* Moments of one byte (U8, p's shape), each KW_BLOCK8 of them with one scale (F32). Outputs in that order: p m v and
   scales */
enum { KW_BLOCK8 = 256 };
/* p: F32, or BF16 with key */
typedef struct { kw_val p, grad, m, v, m_scale, v_scale, scalars, key; int64_t at; } kw_adamw8_in;
kw_val kw_adamw8_step(kw_graph *g, const kw_adamw8_in *in, kw_adam c);
/* The scalars of an update whose clip is at most `scalars[4]` (0: no limit) for this sum of squares */
kw_val kw_limit(kw_graph *g, kw_val scalars, kw_val squares, kw_val loss);
kw_val kw_lerp(kw_graph *g, kw_val y, kw_val x, kw_val keep);                     /* keep[0] y + (1-keep[0]) x */
kw_val kw_sum_squares(kw_graph *g, kw_val x);                                     /* (1) F64 */

#endif
