/* bench_ops.h - single ops as kiwame bench op measures them: which, at which shapes, how often in a pass. */
#ifndef KW_CLI_BENCH_OPS_H
#define KW_CLI_BENCH_OPS_H

#include "bench.h"

typedef struct {
    const kw_graph *g;                    /* where it stands */
    const kw_node *node;
    char place[96];
    int64_t count;                        /* nodes like this in the pass */
    double flops, bytes;                  /* of one */
} kw_bench_op;

/* The distinct nodes of these ops in the pass of a model, those with most work first. */
KW_MUST kw_status kw_bench_ops_of_model(kw_cli *c, const kw_bench_model *m, const char *const *ops, size_t n_ops,
                                        kw_bench_op **out, size_t *n, kw_err *e);
/* One op at a shape in words: "1x64x64x320x640x3x1". KW_EUSAGE says what the numbers are. */
KW_MUST kw_status kw_bench_op_of_shape(kw_arena *a, kw_dtype compute, kw_dtype weights, const char *op,
                                       const char *shape, kw_bench_op *out, kw_err *e);
/* The node alone: weights are states with numbers, as is what an update moves; the rest is input. */
KW_MUST kw_status kw_bench_op_program(kw_arena *a, const kw_bench_op *o, kw_program **out, kw_err *e);

#endif
