/*
 * layer_norm.c - LayerNorm over rows, one visit to memory: the passes over a row run in the first cache.
 *
 *     xh = (x - mean) rstd      y = gamma xh + beta
 *     dbeta = sum dy    dgamma = sum dy xh    dx = rstd (g - mean(g) - xh mean(g xh)),  g = gamma dy
 *
 * The variance is taken about the mean in a second pass, so a large mean costs nothing.
 */
#include "simd.h"

enum {
    ROWS = 16,                            /* rows of one piece of the forward pass */
    PARTS = 32, SLAB = 256,               /* backward: pieces; rows summed in f32 before double takes over */
    CHAINS = 4,                           /* independent sums, to hide the latency of an addition */
};

/* sum of (x - shift)^power over a row, power 1 or 2 */
INLINE float row_sum(const kw_dtype t, const void *x, ptrdiff_t at, int c, float shift, const int power)
{
    vf s[CHAINS] = { { 0 } };
    int i = 0;
    for (; i + CHAINS * W <= c; i += CHAINS * W)
        UNROLL(4) for (int k = 0; k < CHAINS; k++) {
            vf d = v_load(t, x, at + i + k * W) - shift;
            s[k] += power == 2 ? d * d : d;
        }
    for (; i + W <= c; i += W) {
        vf d = v_load(t, x, at + i) - shift;
        s[0] += power == 2 ? d * d : d;
    }
    float sum = v_sum((s[0] + s[1]) + (s[2] + s[3]));
    for (; i < c; i++) {
        float d = get_one(t, x, at + i) - shift;
        sum += power == 2 ? d * d : d;
    }
    return sum;
}

INLINE void forward_rows(const kw_dtype t, const void *x, const float *gamma, const float *beta, void *y, float *mean,
                         float *rstd, int c, float eps, int64_t from, int64_t to)
{
    for (int64_t r = from; r < to; r++) {
        const float first = get_one(t, x, r * c);       /* sums of x - first lose less to rounding */
        const float m = first + row_sum(t, x, r * c, c, first, 1) / (float)c;
        const float s = 1 / __builtin_sqrtf(row_sum(t, x, r * c, c, m, 2) / (float)c + eps);
        for (int i = 0; i < c; i += W) {
            vf d = (v_get(t, x, r * c + i, c - i) - m) * s;
            v_put(t, y, r * c + i, d * v_get(KW_F32, gamma, i, c - i) + v_get(KW_F32, beta, i, c - i), c - i);
        }
        mean[r] = m;
        rstd[r] = s;
    }
}

void ISA(layer_norm)(kw_dtype t, const void *x, const float *gamma, const float *beta, void *y, float *mean,
                     float *rstd,
                     int64_t rows, int c, float eps)
{
    FOR_PIECES(rows, ROWS, from, to, TYPED(t, forward_rows, x, gamma, beta, y, mean, rstd, c, eps, from, to));
}

/* ---- backward ---------------------------------------------------------------------------------------------- */

typedef struct {
    const void *x, *dy;
    const float *gamma, *mean, *rstd;
    void *dx;
    int c;
} task;

/* Means of g and g xh over row r; dgamma and dbeta of the slab (u, v; c floats each) are added to. */
INLINE void row_terms(const kw_dtype t, const task *k, int64_t r, float *u, float *v, float *m1, float *m2)
{
    const int c = k->c;
    const float mean = k->mean[r], rstd = k->rstd[r];
    vf s1 = { 0 }, s2 = { 0 };
    for (int i = 0; i < c; i += W) {
        const int left = c - i;
        vf d = v_get(t, k->dy, r * c + i, left), xh = (v_get(t, k->x, r * c + i, left) - mean) * rstd;
        v_put(KW_F32, v, i, v_get(KW_F32, v, i, left) + d, left);
        v_put(KW_F32, u, i, v_get(KW_F32, u, i, left) + d * xh, left);
        vf g = d * v_get(KW_F32, k->gamma, i, left);    /* zero in lanes that do not exist */
        s1 += g;
        s2 += g * xh;
    }
    *m1 = v_sum(s1) / (float)c;
    *m2 = v_sum(s2) / (float)c;
}

INLINE void row_gradient(const kw_dtype t, const task *k, int64_t r, float m1, float m2)
{
    const int c = k->c;
    const float mean = k->mean[r], rstd = k->rstd[r];
    for (int i = 0; i < c; i += W) {
        const int left = c - i;
        vf xh = (v_get(t, k->x, r * c + i, left) - mean) * rstd;
        vf g = v_get(t, k->dy, r * c + i, left) * v_get(KW_F32, k->gamma, i, left);
        v_put(t, k->dx, r * c + i, rstd * (g - m1 - xh * m2), left);
    }
}

/* Rows of one part: dx, and the sums of the part in double (sums: dgamma, dbeta); u, v: c floats each. */
INLINE void backward_part(const kw_dtype t, const task *k, int64_t from, int64_t to, double *sums, float *u)
{
    const int c = k->c;
    memset(sums, 0, 2 * (size_t)c * sizeof *sums);
    for (int64_t slab = from; slab < to; slab += SLAB) {
        memset(u, 0, 2 * (size_t)c * sizeof *u);
        for (int64_t r = slab; r < KW_MIN(to, slab + SLAB); r++) {
            float m1, m2;
            row_terms(t, k, r, u, u + c, &m1, &m2);
            if (k->dx)
                row_gradient(t, k, r, m1, m2);
        }
        for (int i = 0; i < 2 * c; i++)
            sums[i] += (double)u[i];
    }
}

static int64_t part_rows(int64_t rows)
{
    return pieces(rows, KW_MIN(PARTS, pieces(rows, ROWS)));
}

/* Of each part: 2 c doubles, 2 c floats. */
static size_t part_bytes(int c) { return ((size_t)c * 2 * (sizeof(double) + sizeof(float)) + 63) & ~(size_t)63; }

size_t ISA(layer_norm_grad_scratch)(int64_t rows, int c)
{
    return rows > 0 ? (size_t)pieces(rows, part_rows(rows)) * part_bytes(c) : 0;
}

static void sum_parts(const char *scratch, int64_t parts, int c, float *dgamma, float *dbeta)
{
    for (int i = 0; i < c; i++) {
        double g = 0, b = 0;
        for (int64_t p = 0; p < parts; p++) {
            const double *s = (const double *)(scratch + (size_t)p * part_bytes(c));
            g += s[i];
            b += s[c + i];
        }
        if (dgamma)
            dgamma[i] = (float)g;
        if (dbeta)
            dbeta[i] = (float)b;
    }
}

void ISA(layer_norm_grad)(kw_dtype t, const void *x, const void *dy, const float *gamma, const float *mean,
                          const float *rstd,
                          void *dx, float *dgamma, float *dbeta, int64_t rows, int c, float *scratch)
{
    const task k = { x, dy, gamma, mean, rstd, dx, c };
    const int64_t size = rows > 0 ? part_rows(rows) : 1, parts = pieces(rows, size);
    _Pragma("omp parallel for schedule(static) if (parts > 1)")
    for (int64_t p = 0; p < parts; p++) {
        double *sums = (double *)((char *)scratch + (size_t)p * part_bytes(c));
        TYPED(t, backward_part, &k, p * size, KW_MIN(rows, (p + 1) * size), sums, (float *)(sums + 2 * c));
    }
    if (dgamma || dbeta)
        sum_parts((const char *)scratch, parts, c, dgamma, dbeta);
}
