/* rewrite.h - making a new list of nodes from an old graph; internal to pass/. */
#ifndef KW_PASS_REWRITE_H
#define KW_PASS_REWRITE_H

#include "pass.h"

typedef struct {
    kw_graph old;                         /* as it was */
    kw_graph *g;                          /* being filled anew */
    kw_val *map;                          /* old value -> new value, or KW_NONE */
} kw__rewrite;

/* Empty g and remember what it held. */
KW_MUST kw_status kw__rewrite_begin(kw__rewrite *r, kw_graph *g, kw_err *e);
/* Append a copy of an old node with its inputs taken from in[] (new values); returns it. Outputs are not mapped. */
KW_MUST kw_status kw__rewrite_copy(kw__rewrite *r, const kw_node *n, const kw_val *in, const kw_node **copy, kw_err *e);
/* Results and bindings follow the map. */
void kw__rewrite_end(kw__rewrite *r);

#endif
