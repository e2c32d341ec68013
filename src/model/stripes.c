/* stripes.c - see stripes.h. */
#include "stripes.h"
#include "ops/ops.h"

kw__stripes kw__stripes_new(kw_graph *g, int64_t h, int64_t rows)
{
    kw__stripes s = { .rows = rows, .h = h, .moments = KW_NONE };
    s.part = kw_alloc_array(g->arena, (size_t)((h + rows - 1) / rows), sizeof *s.part);
    if (!s.part && !g->err.status && kw_fail(&g->err, KW_ENOMEM, "out of memory"))
        s.rows = 1;
    return s;
}

void kw__stripes_add(kw_graph *g, kw__stripes *s, kw_val part, int groups)
{
    if (g->err.status)
        return;
    s->part[s->n++] = part;
    if (groups)
        s->moments = kw_group_moments(g, part, s->moments, groups);
}

kw__stripes kw__stripes_of(kw_graph *g, kw_val x)
{
    int64_t h = kw_shape_of(g, x).d[1];
    kw__stripes s = kw__stripes_new(g, KW_MAX(h, 1), KW_MAX(h, 1));
    kw__stripes_add(g, &s, x, 0);
    return s;
}

kw_val kw__stripes_take(kw_graph *g, const kw__stripes *s, int64_t from, int64_t to)
{
    enum { WAYS = KW_INS };
    if (g->err.status)
        return KW_NONE;
    int first = (int)(from / s->rows), last = (int)((to - 1) / s->rows);
    int64_t at = first * s->rows, end = KW_MIN(s->h, (last + 1) * s->rows);
    if (first == last && at == from && end == to)
        return s->part[first];
    if (last - first < WAYS)
        return kw_rows(g, s->part + first, last - first + 1, from - at, to - from);
    kw_val some[WAYS];                    /* more than one node takes: WAYS groups of parts, and these together */
    int64_t each = ((last - first) / WAYS + 1) * s->rows;
    int n = 0;
    for (int64_t y = from; y < to; n++) {
        int64_t next = KW_MIN(to, at + (n + 1) * each);
        some[n] = kw__stripes_take(g, s, y, next);
        y = next;
    }
    return n == 1 ? some[0] : kw_rows(g, some, n, 0, to - from);
}

kw_shape kw__stripes_shape(const kw_graph *g, const kw__stripes *s)
{
    kw_shape shape = s->n ? kw_shape_of(g, s->part[0]) : (kw_shape){ 0 };
    shape.d[1] = s->h;
    return shape;
}
