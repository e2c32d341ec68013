/*
 * nn.h - named layers over a graph: naming a parameter and building its layer happen once, in one pass.
 *
 *     KW_IN(n, "down_blocks.%d", i) {
 *         h = kw_nn_conv(n, "conv_in", x, 320, 3, 1, 1);
 *     }
 *
 * Parameter names are diffusers'. A kw_params knows every parameter of a part: where it comes from, whether it is
 * trained, and its storage. Adapters hang on the one seam of kw_net: every linear and convolution passes there.
 */
#ifndef KW_NN_H
#define KW_NN_H

#include "io/io.h"
#include "run/run.h"

/* ---- parameters ------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;                     /* "down_blocks.0.resnets.0.norm1.weight" */
    kw_shape shape;
    int state;                            /* its values in the store */
    int group;                            /* trained in this group (its own learning rate), or KW_NONE: frozen */
    int64_t at;                           /* first element in the flat ranges, when trained; KW_NONE: it stays */
} kw_param_info;

typedef struct kw_params kw_params;

/* Where values come from: fills *t for `name`, or fails with the reason. t->data stays valid with the store. */
typedef kw_status kw_param_find(void *ctx, const char *name, kw_shape shape, kw_tensor *t, kw_err *e);
/* The group a parameter is trained in, or KW_NONE. */
typedef int kw_param_select(void *ctx, const char *name);

typedef struct {
    kw_param_find *find;  void *find_ctx;
    kw_param_select *select;  void *select_ctx;            /* NULL: everything is frozen */
    /* Type of vectors and of trained parameters: KW_F32, or KW_F64 in double graphs. KW_BF16: of trained matrices; all
       vectors are F32 then */
    kw_dtype exact;
} kw_params_source;

/*
 * From now on frozen matrices with a name that fits are kept in one byte a number, with a scale for each output (KW_I8,
 * kern/kern.h), in memory of their own: the file is read once. Before any parameter is asked for; not in double graphs.
 */
void kw_params_int8(kw_params *p, bool (*fits)(const char *name));
KW_MUST kw_params *kw_params_new(kw_arena *a, kw_store *s, const kw_params_source *src);
size_t kw_params_count(const kw_params *p);
const kw_param_info *kw_params_at(const kw_params *p, size_t i);
const kw_param_info *kw_params_find(const kw_params *p, const char *name);
kw_store *kw_params_store(const kw_params *p);
double kw_params_seconds(const kw_params *p);              /* spent so far in reading and converting values */

/* ---- the net ------------------------------------------------------------------------------------------------ */

typedef struct kw_net kw_net;

typedef struct {                          /* a layer as an adapter sees it */
    int64_t in, out;
    int kh, kw;                           /* 0: linear */
    kw_conv_pads pads;                    /* of convolutions */
} kw_geometry;

/* Called after each linear and convolution with its path, input and output; returns the output to go on with. */
typedef kw_val kw_seam(void *ctx, kw_net *n, kw_geometry geometry, kw_val x, kw_val y);

/* Called before each linear layer with its path and input; returns the input to go on with. */
typedef kw_val kw_seam_in(void *ctx, kw_net *n, kw_val x);

struct kw_net {
    kw_graph *g;
    kw_params *params;
    kw_seam_in *before;  void *before_ctx;          /* may be NULL */
    kw_seam *seam;  void *seam_ctx;       /* may be NULL */
    char path[512];
    size_t mark[32];
    int depth;
};

kw_net kw_net_over(kw_graph *g, kw_params *p);
int kw_net_enter(kw_net *n, const char *fmt, ...) KW_PRINTF(2, 3);
int kw_net_leave(kw_net *n);
/* A scope: for the statement that follows, names begin with the formatted text. No return or break inside. */
#define KW_CAT_(a, b) a##b
#define KW_CAT(a, b) KW_CAT_(a, b)
#define KW_IN(n, ...) KW_IN_(KW_CAT(kw_in_, __LINE__), n, __VA_ARGS__)
#define KW_IN_(v, n, ...) for (int v = kw_net_enter(n, __VA_ARGS__); v; v = kw_net_leave(n))

/* ---- layers: weight and bias are found under the present scope + name ------------------------------------------ */

kw_val kw_nn_param(kw_net *n, const char *name, kw_shape shape);
kw_val kw_nn_linear(kw_net *n, const char *name, kw_val x, int64_t out, bool bias);
kw_val kw_nn_conv(kw_net *n, const char *name, kw_val x, int64_t out, int k, kw_conv_pads pads);
kw_val kw_nn_group_norm(kw_net *n, const char *name, kw_val x, int groups, float eps, bool silu);
kw_val kw_nn_layer_norm(kw_net *n, const char *name, kw_val x, float eps);
kw_val kw_nn_embedding(kw_net *n, const char *name, kw_val ids, int64_t rows, int64_t width);
/* Mark the boundary of a block: recomputation at the memory floor starts from here. Returns x. */
kw_val kw_nn_keep(kw_net *n, kw_val x);

static inline kw_conv_pads kw_padding(int stride, int pad) { return (kw_conv_pads){ stride, pad, pad, pad, pad }; }

/* ---- what is trained: one flat range of numbers per purpose ------------------------------------------------------ */

/*
 * Gathers the trained parameters of several kw_params into contiguous memory: values, gradients, and further
 * ranges (moments, averages). Parameters of one group are neighbours. The states are moved there (kw_store_rebind), and
 * what they had before goes back to the system.
 *
 *      |  exact: group 0, group 1 ...  |  narrow: group 0, group 1 ...  |     places 0 .. count - 1
 *         values, F32                     narrow values, BF16 (there is such a part only where matrices are BF16)
 */
typedef struct {
    bool gradients;  /* a range for them, to which programs add; else each is used where it is made */
    int64_t each;                         /* parameters start at multiples of this many numbers; 0: 16 */
    bool passing;                         /* weights change with every run of a program: no packed copies are kept */
    const kw_graph *graph;  kw_val loss;  /* what this loss does not depend on stays as it is, decay and all, as with
                                             torch's parameters without a gradient; graph NULL: everything is trained */
} kw_trained_options;

typedef struct {
    kw_store *store;
    int64_t count, exact_count;           /* places; of these F32 */
    int n_groups;
    int64_t *group_at, *group_count;      /* by group, of the exact part */
    int values, narrow, gradients;        /* flat states; KW_NONE: there is none */
    kw_param_info **param;  int *gradient;  size_t n;      /* each trained parameter and the state of its gradient */
    kw_dtype type;                        /* of gradients and of the exact part */
    double seconds;                       /* what moving the values took */
} kw_trained;

/* o: NULL for a range of gradients and nothing special. */
KW_MUST kw_status kw_trained_new(kw_arena *a, kw_params *const *sets, int n_sets, int n_groups,
                                 const kw_trained_options *o, kw_trained **out, kw_err *e);
/* Another flat range beside the values (a moment, an average), zeroed: one number of this type for `each` places. */
KW_MUST kw_status kw_trained_range(kw_trained *t, const char *name, kw_dtype type, int64_t each, int *state, kw_err *e);
/* The part of such a range that belongs to parameter i, as a state of its own. */
KW_MUST kw_status kw_trained_slice(kw_trained *t, int range, int64_t each, size_t i, int *state, kw_err *e);
void kw_trained_changed(kw_trained *t);   /* after the flat values were written: packed weights follow */

/*
 * Emit: gradients of loss for every trained parameter this graph reads, added to its gradient state and bound to it; or
 * given to `each` as soon as they are complete, with the parameter's index (see kw_backward_each).
 */
KW_MUST kw_status kw_trained_backward(kw_trained *t, kw_graph *g, kw_val loss, kw_val dloss, kw_err *e);
KW_MUST kw_status kw_trained_backward_each(kw_trained *t, kw_graph *g, kw_val loss, kw_val dloss, kw_gradient_fn *each,
                                           void *ctx, kw_err *e);

#endif
