/*
 * factors.c - layers of a new LoRA under kohya's names: NAME.lora_down.weight (r, in[, kh, kw]), NAME.lora_up.weight
 * (out, r[, 1, 1]), NAME.alpha. A convolution is the matrix (out, in·kh·kw).
 */
#include "factors.h"

#include <math.h>
#include <string.h>

static kw_status no_memory(kw_err *e) { return kw_fail(e, KW_ENOMEM, "out of memory"); }

int64_t kw__rows(const kw__place *p) { return p->shape[0]; }

int64_t kw__columns(const kw__place *p)
{
    int64_t n = 1;
    for (int i = 1; i < p->rank; i++)
        n *= p->shape[i];
    return n;
}

bool kw__is_window(const kw__place *p) { return p->rank == 4 && p->shape[2] * p->shape[3] > 1; }

kw_status kw__maker_new(kw_arena *a, size_t layers, kw_dtype type, kw_made_lora *out, kw__maker *m, kw_err *e)
{
    *out = (kw_made_lora){ .t = kw_alloc_array(a, 3 * layers + 1, sizeof *out->t),
                           .layer = kw_alloc_array(a, layers + 1, sizeof *out->layer) };
    *m = (kw__maker){ .a = a, .out = out, .type = type, .capacity = 3 * layers, .layers = layers };
    return out->t && out->layer ? KW_OK : no_memory(e);
}

static kw_status put(kw__maker *m, char *name, kw_dtype type, int rank, const int64_t shape[4], const float *v,
                     kw_err *e)
{
    kw_tensor *t = &m->out->t[m->out->n];
    if (!name || m->out->n == m->capacity)
        return no_memory(e);
    *t = (kw_tensor){ .name = name, .dtype = type, .rank = rank };
    for (int i = 0; i < rank; i++)
        t->shape[i] = shape[i];
    const size_t n = (size_t)kw_tensor_count(t);
    t->bytes = n * kw_dtype_size(type);
    void *data = kw_alloc(m->a, (size_t)t->bytes);
    if (!data)
        return no_memory(e);
    kw_convert(type, data, KW_F32, v, n);
    t->data = data;
    for (size_t i = 0; i < n && type == KW_F16; i++)
        if ((((const uint16_t *)data)[i] >> 10 & 31) == 31)
            return kw_advise(e, kw_fail(e, KW_ENUMERIC, N_("\"%s\" holds %g, which is too large for %s"), name,
                                        (double)v[i], kw_dtype_name(type)),
                             N_("use --dtype bf16, which holds numbers as large as f32 does"));
    m->out->n++;
    return KW_OK;
}

kw_status kw__maker_add(kw__maker *m, const kw__place *p, int r, double scale, float *up, const float *down,
                        double kept, double all, kw_err *e)
{
    char name[KW_LORA_NAME];
    const bool conv = p->rank == 4;
    const int64_t d[4] = { r, p->shape[1], conv ? p->shape[2] : 1, conv ? p->shape[3] : 1 },
                  u[4] = { p->shape[0], r, 1, 1 };
    const float a = (float)(scale * m->rank);
    const double f = r / (double)a;
    if (!kw_lora_name(&m->names, p->part, p->path, name))
        return kw_fail(e, KW_EDATA, N_("%s: the name is too long for kohya's format"), p->path);
    for (int64_t i = 0; i < u[0] * r && f != 1; i++)
        up[i] = (float)(up[i] * f);
    KW_TRY(put(m, kw_sprintf(m->a, "%s.lora_down.weight", name), m->type, p->rank, d, down, e));
    KW_TRY(put(m, kw_sprintf(m->a, "%s.lora_up.weight", name), m->type, p->rank, u, up, e));
    KW_TRY(put(m, kw_sprintf(m->a, "%s.alpha", name), KW_F32, 0, u, &a, e));
    m->out->layer[m->out->n_layers++] = (kw_made_layer){
        .part = p->part, .path = kw_strdup(m->a, p->path), .rows = kw__rows(p), .columns = kw__columns(p), .rank = r,
        .energy = all > 0 ? kept / all : 1, .norm = sqrt(all),
    };
    m->kept += kept;
    m->all += all;
    m->out->most_rank = KW_MAX(m->out->most_rank, r);
    return m->out->layer[m->out->n_layers - 1].path ? KW_OK : no_memory(e);
}

static kw_status reduce(kw__maker *m, const kw__place *p, const kw_svd *s, const float *d, double scale,
                        const kw_rank_want *want, kw_err *e)
{
    const int64_t n = kw_svd_n(s), rows = kw__rows(p), columns = kw__columns(p);
    const double *v = kw_svd_values(s);
    const int64_t r = kw_rank_of(want, v, n, kw__is_window(p));
    double kept = 0, all = 0;
    for (int64_t i = 0; i < n; i++) {
        kept += i < r ? v[i] * v[i] : 0;
        all += v[i] * v[i];
    }
    float *up = kw_block_new((size_t)(rows * r) * sizeof *up),
          *down = kw_block_new((size_t)(r * columns) * sizeof *down);
    kw_status status = up && down ? KW_OK : no_memory(e);
    if (!status) {
        kw_svd_factors(s, d, r, up, down);
        status = kw__maker_add(m, p, (int)r, scale, up, down, kept, all, e);
    }
    kw_block_free(up);
    kw_block_free(down);
    return status;
}

kw_status kw__maker_reduce(kw__maker *m, const kw__place *p, const float *d, double scale, const kw_rank_want *want,
                           kw_err *e)
{
    kw_svd *s;
    m->rank = want->rank <= 1024 ? want->rank : 64;
    KW_TRY(kw_svd_new(d, kw__rows(p), kw__columns(p), KW_MAX(want->rank, want->conv_rank), &s, e));
    kw_status status = reduce(m, p, s, d, scale, want, e);
    kw_svd_free(s);
    return status;
}

kw_status kw__maker_reduce_product(kw__maker *m, const kw__place *p, const float *up, const float *down, int64_t r,
                                   double scale, const kw_rank_want *want, kw_err *e)
{
    kw_svd *s;
    m->rank = want->rank <= 1024 ? want->rank : 64;
    KW_TRY(kw_svd_product(up, down, kw__rows(p), r, kw__columns(p), KW_MAX(want->rank, want->conv_rank), &s, e));
    kw_status status = reduce(m, p, s, NULL, scale, want, e);
    kw_svd_free(s);
    return status;
}

void kw__maker_finish(kw__maker *m) { m->out->energy = m->all > 0 ? m->kept / m->all : 1; }
