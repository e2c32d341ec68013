/* table.c - the table made from ops.def, and what the op files share. */
#include "op.h"

#include <string.h>

static const kw_op *const table[] = {
#define KW_OP(name) &kw_op_##name,
#include "ops.def"
#undef KW_OP
};

int kw_op_count(void) { return (int)KW_LEN(table); }
const kw_op *kw_op_at(int i) { return i >= 0 && i < (int)KW_LEN(table) ? table[i] : NULL; }

const kw_op *kw_op_find(const char *name)
{
    for (size_t i = 0; i < KW_LEN(table); i++)
        if (!strcmp(table[i]->name, name))
            return table[i];
    return NULL;
}

kw_status kw__like_first(kw_graph *g, kw_node *n, kw_shape *shape, kw_dtype *dtype, kw_err *e)
{
    (void)e;
    shape[0] = kw_shape_of(g, n->in[0]);
    dtype[0] = kw_dtype_of(g, n->in[0]);
    return KW_OK;
}

kw_status kw__same(const kw_graph *g, kw_val a, kw_val b, kw_err *e)
{
    char s[64], t[64];
    if (kw_shape_equal(kw_shape_of(g, a), kw_shape_of(g, b)))
        return KW_OK;
    return kw_fail(e, KW_EDATA, "shapes %s and %s do not fit", kw_dims_text(kw_shape_of(g, a), s),
                   kw_dims_text(kw_shape_of(g, b), t));
}

static bool is_activation(kw_dtype t) { return t == KW_F32 || t == KW_BF16; }

bool kw__activations(const kw_graph *g, const kw_node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] >= 0 && !is_activation(kw_dtype_of(g, n->in[i])) && kw_dtype_of(g, n->in[i]) != KW_I64)
            return false;
    for (int i = 0; i < n->n_out; i++)
        if (!is_activation(kw_dtype_of(g, n->out[i])))
            return false;
    return true;
}
