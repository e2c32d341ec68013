/*
 * dnn.c - the engine of oneDNN 2.6, its convolutions and products.
 *
 * Primitives are created by description (oneDNN caches the generated code by it), scratch memory is the caller's,
 * x and y are NHWC; only the weight's layout is the library's choice.
 */
#include "dnn.h"

#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN(n) (((n) + 63) & ~(size_t)63)

/* ---- engine: one for the process, made when first needed ------------------------------------------ */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void make_engine(void)
{
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) || dnnl_stream_create(&stream, engine, dnnl_stream_default_flags))
        engine = NULL;
}

static bool ready(void)
{
    pthread_once(&once, make_engine);
    return engine;
}

kw_status kw_dnn_limit_isa(const char *isa, kw_err *e)
{
    static const struct { const char *name; dnnl_cpu_isa_t isa; } table[] = {
        { "scalar", dnnl_cpu_isa_sse41 }, { "avx2", dnnl_cpu_isa_avx2 }, { "avx512", dnnl_cpu_isa_avx512_core_vnni },
        { "avx512_bf16", dnnl_cpu_isa_avx512_core_bf16 },
    };
    size_t i = 0;
    while (i < KW_LEN(table) && strcmp(isa, table[i].name))
        i++;
    if (i == KW_LEN(table))
        return kw_fail(e, KW_EUSAGE, "unknown instruction set \"%s\"", isa);
    if (dnnl_set_max_cpu_isa(table[i].isa) && (dnnl_get_effective_cpu_isa() & ~table[i].isa))
        return kw_fail(e, KW_EUSAGE, "oneDNN no longer accepts the instruction set \"%s\"", isa);
    return KW_OK;
}

static bool has(unsigned need) { return ((unsigned)dnnl_get_effective_cpu_isa() & need) == need; }
bool kw_dnn_has_avx512(void) { return has(dnnl_cpu_isa_avx512_core); }
bool kw_dnn_has_bf16(void) { return has(dnnl_cpu_isa_avx512_core_bf16); }

static bool is_reference(const char *implementation)
{
    return !strncmp(implementation, "ref", 3) || strstr(implementation, ":ref");
}

/* ---- convolution ------------------------------------------------------------------------------------ */

enum { X, W, BIAS, Y, N_ARGS };

struct kw_dnn_conv {
    kw_pass pass;
    bool bias;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t run;
    dnnl_memory_desc_t arg[N_ARGS];
    size_t scratch_size;
    const char *implementation;
};

static dnnl_data_type_t type_of(kw_dtype t) { return t == KW_BF16 ? dnnl_bf16 : dnnl_f32; }

static dnnl_memory_desc_t describe(int n, const dnnl_dims_t dims, dnnl_data_type_t t, dnnl_format_tag_t tag)
{
    dnnl_memory_desc_t d;
    if (dnnl_memory_desc_init_by_tag(&d, n, dims, t, tag))
        memset(&d, 0, sizeof d);
    return d;
}

/* The weight in any layout, until the library has chosen. */
static void describe_all(kw_dnn_conv *c, const kw_conv_shape *s, kw_dtype t)
{
    dnnl_dims_t x = { s->n, s->in, s->h, s->w }, w = { s->out, s->in, s->kh, s->kw }, b = { s->out };
    dnnl_dims_t y = { s->n, s->out, kw_conv_out_h(s), kw_conv_out_w(s) };
    dnnl_data_type_t type = type_of(t);
    c->arg[X] = describe(4, x, type, dnnl_nhwc);
    c->arg[Y] = describe(4, y, type, dnnl_nhwc);
    c->arg[W] = describe(4, w, c->pass == KW_BACKWARD_WEIGHTS ? dnnl_f32 : type, dnnl_format_tag_any);
    c->arg[BIAS] = describe(1, b, dnnl_f32, dnnl_x);
}

/* The three operation descriptors begin alike: make the one of this pass, with the forward one as the hint. */
static dnnl_status_t make_desc(kw_dnn_conv *c, const kw_conv_shape *s, dnnl_primitive_attr_t attr)
{
    const dnnl_memory_desc_t *d = c->arg;
    dnnl_dims_t stride = { s->stride, s->stride }, before = { s->pad_top, s->pad_left },
                after = { s->pad_bottom, s->pad_right };
    const dnnl_memory_desc_t *bias = c->bias ? &d[BIAS] : NULL;
    dnnl_convolution_desc_t forward, op;
    dnnl_primitive_desc_t hint = NULL;
    dnnl_memory_desc_t w = d[W];
    w.data_type = d[X].data_type;
    dnnl_status_t bad = dnnl_convolution_forward_desc_init(&forward, dnnl_forward_training, dnnl_convolution_direct,
        &d[X], &w, c->pass == KW_FORWARD ? bias : NULL, &d[Y], stride, before, after);
    if (bad)
        return bad;
    if (c->pass == KW_FORWARD)
        return dnnl_primitive_desc_create(&c->desc, &forward, attr, engine, NULL);
    bad = c->pass == KW_BACKWARD_DATA
              ? dnnl_convolution_backward_data_desc_init(&op, dnnl_convolution_direct, &d[X], &d[W], &d[Y], stride,
                                                         before, after)
              : dnnl_convolution_backward_weights_desc_init(&op, dnnl_convolution_direct, &d[X], &d[W], bias, &d[Y],
                                                            stride, before, after);
    if (!bad)
        bad = dnnl_primitive_desc_create(&hint, &forward, attr, engine, NULL);
    if (!bad)
        bad = dnnl_primitive_desc_create(&c->desc, &op, attr, engine, hint);
    if (hint)
        dnnl_primitive_desc_destroy(hint);
    return bad;
}

static dnnl_status_t finish(kw_dnn_conv *c)
{
    static const dnnl_query_t weight[] = { [KW_FORWARD] = dnnl_query_weights_md,
        [KW_BACKWARD_DATA] = dnnl_query_weights_md, [KW_BACKWARD_WEIGHTS] = dnnl_query_diff_weights_md };
    dnnl_status_t bad = dnnl_primitive_desc_query(c->desc, dnnl_query_impl_info_str, 0, &c->implementation);
    if (!bad && is_reference(c->implementation))
        bad = dnnl_unimplemented;
    if (!bad)
        bad = dnnl_primitive_create(&c->run, c->desc);
    if (bad)
        return bad;
    c->arg[W] = *dnnl_primitive_desc_query_md(c->desc, weight[c->pass], 0);
    const dnnl_memory_desc_t *work = dnnl_primitive_desc_query_md(c->desc, dnnl_query_scratchpad_md, 0);
    c->scratch_size = ALIGN(dnnl_memory_desc_get_size(work));
    return dnnl_success;
}

kw_dnn_conv *kw_dnn_conv_new(const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias)
{
    dnnl_primitive_attr_t attr = NULL;
    if (!ready() || (t == KW_BF16 && !kw_dnn_has_bf16()))
        return NULL;
    kw_dnn_conv *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->pass = pass;
    c->bias = bias && pass != KW_BACKWARD_DATA;
    describe_all(c, s, t);
    dnnl_status_t bad = dnnl_primitive_attr_create(&attr);
    if (!bad)
        bad = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!bad)
        bad = make_desc(c, s, attr);
    if (!bad)
        bad = finish(c);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    if (bad) {
        kw_dnn_conv_free(c);
        return NULL;
    }
    return c;
}

void kw_dnn_conv_free(kw_dnn_conv *c)
{
    if (!c)
        return;
    if (c->run)
        dnnl_primitive_destroy(c->run);
    if (c->desc)
        dnnl_primitive_desc_destroy(c->desc);
    free(c);
}

size_t kw_dnn_conv_scratch_size(const kw_dnn_conv *c) { return c->scratch_size; }
const char *kw_dnn_conv_implementation(const kw_dnn_conv *c) { return c->implementation; }

/* ---- running: memory objects are made for each call, so that one kw_dnn_conv serves several threads ---- */

static dnnl_memory_t hold(const dnnl_memory_desc_t *d, void *p)
{
    dnnl_memory_t m;
    if (dnnl_memory_create(&m, d, engine, p))
        KW_BUG("oneDNN: no memory object");
    return m;
}

static void execute(dnnl_primitive_t p, int n, const int *role, const dnnl_memory_desc_t *const *desc,
                    void *const *data)
{
    dnnl_exec_arg_t arg[5];
    for (int i = 0; i < n; i++)
        arg[i] = (dnnl_exec_arg_t){ role[i], hold(desc[i], data[i]) };
    dnnl_status_t bad = dnnl_primitive_execute(p, stream, n, arg);
    if (!bad)
        bad = dnnl_stream_wait(stream);
    for (int i = 0; i < n; i++)
        dnnl_memory_destroy(arg[i].memory);
    if (bad)
        KW_BUG("oneDNN: execution failed with %d", (int)bad);
}

static dnnl_memory_desc_t work_desc(dnnl_primitive_t p)
{
    const_dnnl_primitive_desc_t d;
    dnnl_primitive_get_primitive_desc(p, &d);
    return *dnnl_primitive_desc_query_md(d, dnnl_query_scratchpad_md, 0);
}

void kw_dnn_conv_run(const kw_dnn_conv *c, void *x, void *w, float *bias, void *y, void *scratch)
{
    static const int role[3][5] = {
        [KW_FORWARD] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD, DNNL_ARG_BIAS },
        [KW_BACKWARD_DATA] = { DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_SCRATCHPAD, 0 },
        [KW_BACKWARD_WEIGHTS] = { DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_DST, DNNL_ARG_SCRATCHPAD,
                                  DNNL_ARG_DIFF_BIAS },
    };
    dnnl_memory_desc_t work = work_desc(c->run);
    execute(c->run, c->bias ? 5 : 4, role[c->pass],
            (const dnnl_memory_desc_t *[]){ &c->arg[X], &c->arg[W], &c->arg[Y], &work, &c->arg[BIAS] },
            (void *[]){ x, w, y, scratch, bias });
}

/* ---- weight layout -------------------------------------------------------------------------------------- */

/*  a blocked layout is a sum of a table per dimension: inner blocks from the last to the first, then the strides  */
static int64_t place(const dnnl_memory_desc_t *d, int dim, int64_t x)
{
    const dnnl_blocking_desc_t *b = &d->format_desc.blocking;
    int64_t at = 0, stride = 1;
    for (int k = b->inner_nblks - 1; k >= 0; k--) {
        if (b->inner_idxs[k] == dim) {
            at += x % b->inner_blks[k] * stride;
            x /= b->inner_blks[k];
        }
        stride *= b->inner_blks[k];
    }
    return at + x * b->strides[dim];
}

static void layout_text(const dnnl_memory_desc_t *d, kw_dtype t, char *text, size_t room)
{
    const dnnl_blocking_desc_t *b = &d->format_desc.blocking;
    size_t n = (size_t)snprintf(text, room, "%s", kw_dtype_name(t));
    for (int i = 0; i < 4; i++)
        n += (size_t)snprintf(text + n, room - n, " %lld/%lld", (long long)d->dims[i], (long long)b->strides[i]);
    for (int i = 0; i < b->inner_nblks; i++)
        n += (size_t)snprintf(text + n, room - n, " %lld%c", (long long)b->inner_blks[i], "oihw"[b->inner_idxs[i]]);
}

bool kw_dnn_conv_layout(const kw_dnn_conv *c, int64_t *room, kw_dnn_layout *layout)
{
    const dnnl_memory_desc_t *d = &c->arg[W];
    if (d->format_kind != dnnl_blocked || d->offset0 || d->extra.flags || d->format_desc.blocking.inner_nblks > 6)
        return false;
    layout->type = d->data_type == dnnl_bf16 ? KW_BF16 : KW_F32;
    layout->size = dnnl_memory_desc_get_size(d) / kw_dtype_size(layout->type);
    for (int k = 0; k < 4; k++) {
        layout->at[k] = room;
        for (int64_t i = 0; i < d->dims[k]; i++)
            *room++ = place(d, k, i);
    }
    layout_text(d, layout->type, layout->text, sizeof layout->text);
    return true;
}

/* ---- products --------------------------------------------------------------------------------------------- */

struct kw_dnn_matmul {
    kw_gemm_shape key;
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t run;                 /* NULL: the library has only its reference implementation */
    dnnl_memory_desc_t a, b, c, bias, work;
    struct kw_dnn_matmul *next;
};

static pthread_mutex_t matmuls_lock = PTHREAD_MUTEX_INITIALIZER;
static kw_dnn_matmul *matmuls[64];        /* by hash of the shape */

static bool same(const kw_gemm_shape *x, const kw_gemm_shape *y)
{
    return x->m == y->m && x->n == y->n && x->k == y->k && x->ta == y->ta && x->tb == y->tb && x->lda == y->lda &&
           x->ldb == y->ldb && x->ldc == y->ldc && x->a == y->a && x->b == y->b && x->c == y->c &&
           x->alpha == y->alpha && x->beta == y->beta;
}

static dnnl_status_t describe_matrix(dnnl_memory_desc_t *d, int64_t rows, int64_t columns, kw_dtype t, bool transposed,
                                     int64_t ld)
{
    dnnl_dims_t dims = { rows, columns }, strides = { transposed ? 1 : ld, transposed ? ld : 1 };
    return dnnl_memory_desc_init_by_strides(d, 2, dims, type_of(t), strides);
}

static dnnl_status_t describe_product(kw_dnn_matmul *m)
{
    const kw_gemm_shape *s = &m->key;
    dnnl_status_t bad = describe_matrix(&m->a, s->m, s->k, s->a, s->ta, s->lda);
    if (!bad)
        bad = describe_matrix(&m->b, s->k, s->n, s->b, s->tb, s->ldb);
    if (!bad)
        bad = describe_matrix(&m->c, s->m, s->n, s->c, false, s->ldc);
    return bad ? bad : describe_matrix(&m->bias, 1, s->n, KW_F32, false, s->n);
}

static dnnl_status_t set_scales(dnnl_primitive_attr_t attr, float alpha, float beta)
{
    dnnl_post_ops_t sum;
    dnnl_status_t bad = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!bad && alpha != 1)
        bad = dnnl_primitive_attr_set_output_scales(attr, 1, 0, &alpha);
    if (bad || beta == 0)
        return bad;
    bad = dnnl_post_ops_create(&sum);
    if (bad)
        return bad;
    bad = dnnl_post_ops_append_sum(sum, beta);
    if (!bad)
        bad = dnnl_primitive_attr_set_post_ops(attr, sum);
    dnnl_post_ops_destroy(sum);
    return bad;
}

static dnnl_status_t make_product(kw_dnn_matmul *m)
{
    dnnl_primitive_attr_t attr;
    dnnl_matmul_desc_t op;
    const char *name;
    dnnl_status_t bad = dnnl_primitive_attr_create(&attr);
    if (bad)
        return bad;
    bad = set_scales(attr, m->key.alpha, m->key.beta);
    if (!bad)
        bad = describe_product(m);
    if (!bad)
        bad = dnnl_matmul_desc_init(&op, &m->a, &m->b, &m->bias, &m->c);
    if (!bad)
        bad = dnnl_primitive_desc_create(&m->desc, &op, attr, engine, NULL);
    if (!bad)
        bad = dnnl_primitive_desc_query(m->desc, dnnl_query_impl_info_str, 0, &name);
    if (!bad && is_reference(name))
        bad = dnnl_unimplemented;
    if (!bad)
        m->work = *dnnl_primitive_desc_query_md(m->desc, dnnl_query_scratchpad_md, 0);
    if (!bad)
        bad = dnnl_primitive_create(&m->run, m->desc);
    dnnl_primitive_attr_destroy(attr);
    return bad;
}

const kw_dnn_matmul *kw_dnn_matmul_get(const kw_gemm_shape *s)
{
    uint64_t hash = (uint64_t)(s->m * 31 + s->n * 17 + s->k) * 0x9e3779b97f4a7c15u >> 58;
    if (!ready() || s->a != s->b || (s->a == KW_BF16 && !kw_dnn_has_bf16()))
        return NULL;
    pthread_mutex_lock(&matmuls_lock);
    kw_dnn_matmul *m = matmuls[hash];
    while (m && !same(&m->key, s))
        m = m->next;
    if (!m && (m = calloc(1, sizeof *m))) {
        m->key = *s;
        if (make_product(m))
            m->run = NULL;
        m->next = matmuls[hash];
        matmuls[hash] = m;
    }
    pthread_mutex_unlock(&matmuls_lock);
    return m && m->run ? m : NULL;
}

size_t kw_dnn_matmul_scratch_size(const kw_dnn_matmul *m) { return dnnl_memory_desc_get_size(&m->work); }

void kw_dnn_matmul_run(const kw_dnn_matmul *m, const void *a, const void *b, const float *bias, void *c, void *scratch)
{
    static const int role[5] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD };
    execute(m->run, 5, role, (const dnnl_memory_desc_t *[]){ &m->a, &m->b, &m->bias, &m->c, &m->work },
            (void *[]){ (void *)(uintptr_t)a, (void *)(uintptr_t)b, (float *)(uintptr_t)bias, c, scratch });
}
