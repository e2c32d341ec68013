/* op.h - what the op files share; internal to ops/. */
#ifndef KW_OPS_OP_H
#define KW_OPS_OP_H

#include "ops.h"
#include "kern/kern.h"

#define ATTR(node, type) ((const type *)(const void *)(node)->attr)
#define SHAPE_IN(c, i) kw_shape_of((c)->g, (c)->node->in[i])
#define SHAPE_OUT(c, i) kw_shape_of((c)->g, (c)->node->out[i])
#define TYPE_IN(c, i) kw_dtype_of((c)->g, (c)->node->in[i])
#define TYPE_OUT(c, i) kw_dtype_of((c)->g, (c)->node->out[i])
#define SECOND "second derivatives are not needed"

/* Output 0 is like input 0. */
kw_status kw__like_first(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e);
/* KW_OK if both shapes are equal, else an error that prints them. */
kw_status kw__same(const kw_graph *g, kw_val a, kw_val b, kw_err *e);
/* Every float input and output is F32 or BF16: what the vector kernels take. */
bool kw__activations(const kw_graph *g, const kw_node *n);

static inline int64_t kw__rows(kw_shape s) { return kw_count(s) / kw_last(s); }           /* all but the last */
static inline int64_t kw__batch(kw_shape s) { return s.rank > 1 ? s.d[0] : 1; }
static inline int64_t kw__pixels(kw_shape s) { return kw__rows(s) / kw__batch(s); }       /* between first and last */

#endif
