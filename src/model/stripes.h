/*
 * stripes.h - a picture in the making as stripes of rows, each a value of its own (N, rows, W, C), so that the planner
 * frees one as soon as the rows below no longer need it. One stripe is the picture itself.
 */
#ifndef KW_MODEL_STRIPES_H
#define KW_MODEL_STRIPES_H

#include "nn/nn.h"

typedef struct {
    kw_val *part;
    int n;
    int64_t rows, h;                      /* of each part but the last, of all */
    kw_val moments;                       /* of group norm, over the parts so far, or KW_NONE */
} kw__stripes;

/* Room for a picture of h rows in stripes of `rows`; parts are added from the top. */
kw__stripes kw__stripes_new(kw_graph *g, int64_t h, int64_t rows);
/* groups: the number of a norm that follows, or 0 */
void kw__stripes_add(kw_graph *g, kw__stripes *s, kw_val part, int groups);
kw__stripes kw__stripes_of(kw_graph *g, kw_val x);                 /* one stripe; of its moments none */
/* Rows [from, to) as one value: a part itself where they are just that. */
kw_val kw__stripes_take(kw_graph *g, const kw__stripes *s, int64_t from, int64_t to);
/* N, all rows, W, C */
kw_shape kw__stripes_shape(const kw_graph *g, const kw__stripes *s);

#endif
