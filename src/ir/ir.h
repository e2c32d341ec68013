/*
 * ir.h - the graph as data: static single assignment, shapes and types known, no aliases.
 *
 *     kw_graph *g = kw_graph_new(arena, KW_F32);
 *     kw_val x = kw_input(g, "x", KW_SHAPE(1, 64, 64, 320), KW_F32);
 *     kw_val w = kw_state(g, id, KW_SHAPE(320, 320), KW_F32);
 *     kw_val y = kw_linear(g, x, w, KW_NONE);             -- ops.h has the builders
 *     kw_result(g, "y", y);
 *     if (g->err.status) ...                              -- builders note the first error and go on
 *
 * A value is an index; a node is one use of an op. Values are never changed once made: an update of
 * a parameter is a new value, bound to the storage of the old one by kw_bind (the verifier forbids a
 * later read of the old). Views are nodes; the planner decides what shares memory.
 *
 * Shapes are logical and row major: images (N, H, W, C), tokens (N, T, C), vectors (C), linear
 * weights (out, in), convolution weights (out, in, kh, kw) as in checkpoint files.
 */
#ifndef KW_IR_H
#define KW_IR_H

#include "base/base.h"

enum { KW_NONE = -1, KW_RANK = 4, KW_INS = 8, KW_OUTS = 5, KW_ATTR = 64 };

typedef int32_t kw_val;
typedef struct { int rank; int64_t d[KW_RANK]; } kw_shape;

#define KW_SHAPE(...) ((kw_shape){ (int)(sizeof (int64_t[]){ __VA_ARGS__ } / sizeof(int64_t)), { __VA_ARGS__ } })

typedef struct kw_graph kw_graph;
typedef struct kw_op kw_op;

typedef struct {
    kw_shape shape;
    kw_dtype dtype;
    int32_t node;                         /* who makes it, as output `slot` */
    int32_t slot;
    const char *name;                     /* of inputs and results; may be NULL */
} kw_value;

typedef struct {
    const kw_op *op;
    int n_in, n_out;
    kw_val in[KW_INS], out[KW_OUTS];      /* an absent optional input is KW_NONE */
    _Alignas(8) unsigned char attr[KW_ATTR];   /* the op's own struct */
    const char *scope;                    /* "down_blocks.0.resnets.0": where the model made it */
    bool backward;                        /* made by autodiff or after it */
    bool keep;                            /* its outputs are a boundary that recomputation starts from */
    bool again;                           /* makes a value of the forward pass a second time: no useful work */
} kw_node;

typedef struct { kw_val value; const char *name; } kw_named;
typedef struct { kw_val value; int state; } kw_binding;

struct kw_graph {
    kw_arena *arena;
    kw_dtype compute;                     /* type of activations: F32, BF16 or F64 */
    kw_node *node;     size_t n_nodes, node_capacity;
    kw_value *value;   size_t n_values, value_capacity;
    kw_named *result;  size_t n_results, result_capacity;
    kw_binding *bound; size_t n_bound, bound_capacity;
    const char *scope;                    /* noted in the nodes made from now on */
    bool backward;
    kw_err err;                           /* the first error; builders after it return KW_NONE */
};

/* ---- ops: what can be computed. One file each in ops/, one line in ops.def ------------------ */

typedef struct {                          /* one execution of one node */
    const kw_graph *g;
    const kw_node *node;
    const void *in[KW_INS];
    void *out[KW_OUTS];
    const void *packed;                   /* the packed input, when the kernel asked for one */
    void *scratch;
    void *held;                           /* what prepare made */
} kw_call;

typedef struct {                          /* what a kernel needs, stated once when planning */
    void *held;                           /* primitives; released by kernel->release */
    size_t scratch;                       /* bytes */
    int packed_in;                        /* index of the input to be packed, or KW_NONE */
    size_t packed_bytes;
    const char *layout;                   /* equal texts: packed copies of one state are interchangeable */
} kw_need;

typedef struct {                          /* one way to compute an op fast */
    const char *name;                     /* "gemm", "simd" */
    bool (*fits)(const kw_graph *, const kw_node *);       /* NULL: everything the op allows in F32 and BF16 */
    kw_status (*prepare)(const kw_graph *, const kw_node *, kw_need *, kw_err *);   /* NULL: needs nothing */
    void (*pack)(void *held, kw_dtype from, const void *src, void *packed);
    void (*run)(const kw_call *);
    void (*release)(void *held);
} kw_kernel;

struct kw_op {
    const char *name, *math;              /* "silu", "y = x / (1 + exp(-x))" */
    int n_in, n_out;
    int n_optional;                       /* the last inputs that may be KW_NONE */
    int n_differentiable;                 /* outputs that carry gradients; the others are saved statistics. 0 means 1 */
    size_t attr_size;
    kw_status (*infer)(kw_graph *, kw_node *, kw_shape *shape, kw_dtype *dtype, kw_err *);   /* of each output */
    /* Emit nodes for the gradients of the inputs for which want[i]; leave din[i] = KW_NONE where it is zero. */
    void (*grad)(kw_graph *, const kw_node *, const kw_val *dout, const bool *want, kw_val *din);
    const char *no_grad;                  /* why there is none, when grad is NULL */
    /* Two for each multiply-add of the formula; what a kernel computes twice counts once. NULL: bandwidth only */
    void (*cost)(const kw_graph *, const kw_node *, double *flops);
    void (*ref)(const kw_call *);         /* plain C in double: floats arrive and leave as double, integers as int64, U8 as it is */
    kw_kernel fast[2];                    /* best first */
    bool in_place;                        /* output 0 may overwrite input 0 */
    bool view;                            /* output 0 is input 0's memory under another shape */
    bool cheap;                           /* recomputing costs only bandwidth */
    kw_val (*cases)(kw_graph *, int i);   /* builds example i for the sweep; KW_NONE: no more */
};

/* ---- building ---------------------------------------------------------------------------------- */

KW_MUST kw_graph *kw_graph_new(kw_arena *a, kw_dtype compute);

/* Append a node; attr (may be NULL) is copied. Returns output 0; further outputs by kw_out. */
kw_val kw_emit(kw_graph *g, const kw_op *op, const kw_val *in, int n_in, const void *attr);
#define KW_EMIT(g, op, attr, ...) \
    kw_emit(g, op, (const kw_val[]){ __VA_ARGS__ }, (int)(sizeof (kw_val[]){ __VA_ARGS__ } / sizeof(kw_val)), attr)
kw_val kw_out(const kw_graph *g, kw_val first, int slot);

extern const kw_op kw_op_input, kw_op_state;
kw_val kw_input(kw_graph *g, const char *name, kw_shape shape, kw_dtype t);       /* fed by the host at each run */
kw_val kw_state(kw_graph *g, int state, kw_shape shape, kw_dtype t);              /* lives between runs, in a store */
int kw_state_of(const kw_graph *g, kw_val v);                                     /* state id, or KW_NONE */
void kw_result(kw_graph *g, const char *name, kw_val v);                          /* the host reads it after a run */
void kw_bind(kw_graph *g, kw_val v, int state);                                   /* v becomes the state's new value */

static inline kw_shape kw_shape_of(const kw_graph *g, kw_val v) { return v < 0 ? (kw_shape){ 0 } : g->value[v].shape; }
static inline kw_dtype kw_dtype_of(const kw_graph *g, kw_val v) { return v < 0 ? g->compute : g->value[v].dtype; }
static inline const kw_node *kw_node_of(const kw_graph *g, kw_val v) { return &g->node[g->value[v].node]; }
int64_t kw_count(kw_shape s);
int64_t kw_last(kw_shape s);                                                       /* size of the last dimension */
bool kw_shape_equal(kw_shape a, kw_shape b);
size_t kw_value_bytes(const kw_graph *g, kw_val v);
const char *kw_dims_text(kw_shape s, char text[64]);
/* Type of sums, statistics and parameter gradients beside activations of type t: F64 beside F64, else F32. */
static inline kw_dtype kw_sum_type(kw_dtype t) { return t == KW_F64 ? KW_F64 : KW_F32; }

/* ---- what a graph must satisfy after every pass ------------------------------------------------ */

KW_MUST kw_status kw_verify(kw_graph *g, kw_err *e);
void kw_graph_print(const kw_graph *g, kw_str *text);    /* one line per node, then totals */
double kw_node_flops(const kw_graph *g, const kw_node *n);
double kw_node_bytes(const kw_graph *g, const kw_node *n);   /* of inputs and outputs, each once; of a view 0 */
double kw_graph_flops(const kw_graph *g);                /* of all nodes */
double kw_graph_useful_flops(const kw_graph *g);         /* without what is computed again to save memory */

#endif
