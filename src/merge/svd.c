/*
 * svd.c - singular values and vectors of a matrix by its smaller Gram matrix, and how many of them to keep.
 *
 *   rows <= columns:  G = D Dᵀ = U S² Uᵀ,  Vᵀ = S⁻¹ Uᵀ D        else:  G = Dᵀ D = V S² Vᵀ,  U S = D V
 */
#include "eigen.h"
#include "merge.h"

#include <math.h>
#include <string.h>

enum { PANEL = 256 };

struct kw_svd {
    int64_t rows, columns, n;
    double *values, *vectors;             /* (n); (most, n) */
    struct kw_svd *left;                  /* of a product: that of b (rows, inner); then nothing of the above */
    float *b, *room;                      /* room (inner, inner) */
    double *turn;                         /* L^-½ W (inner, inner) */
    const float *down;
    int64_t inner;
};

void kw_svd_free(kw_svd *s)
{
    if (!s)
        return;
    kw_svd_free(s->left);
    kw_block_free(s->b);
    kw_block_free(s->room);
    kw_block_free(s->turn);
    kw_block_free(s->values);
    kw_block_free(s->vectors);
    kw_block_free(s);
}

int64_t kw_svd_n(const kw_svd *s) { return s->left ? s->left->n : s->n; }
const double *kw_svd_values(const kw_svd *s) { return s->left ? s->left->values : s->values; }

/* Rows of D, or its columns, side by side in double: p (n and a tile, PANEL). */
static void pack(const float *d, int64_t columns, bool by_rows, int64_t n, int64_t at, int64_t k, double *p)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i++) {
        for (int64_t x = 0; x < k; x++)
            p[i * PANEL + x] = by_rows ? d[i * columns + at + x] : d[(at + x) * columns + i];
        for (int64_t x = k; x < PANEL; x++)
            p[i * PANEL + x] = 0;
    }
}

static kw_status gram(const float *d, int64_t rows, int64_t columns, double *g, kw_err *e)
{
    const bool by_rows = rows <= columns;
    const int64_t n = KW_MIN(rows, columns), long_side = KW_MAX(rows, columns);
    const size_t room = (size_t)(n + 8) * PANEL * sizeof(double);
    double *p = kw_block_new(room);
    if (!p)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    memset(p, 0, room);
    memset(g, 0, (size_t)(n * n) * sizeof *g);
    for (int64_t at = 0; at < long_side; at += PANEL) {
        const int64_t k = KW_MIN((int64_t)PANEL, long_side - at);
        pack(d, columns, by_rows, n, at, k, p);
        kw__gram_add(p, n, (k + 3) / 4 * 4, PANEL, g);
    }
    kw_block_free(p);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < i; j++)
            g[j * n + i] = g[i * n + j];
    return KW_OK;
}

static kw_status solve(kw_svd *s, const float *d, double *g, int64_t most, kw_err *e)
{
    KW_TRY(gram(d, s->rows, s->columns, g, e));
    KW_TRY(kw__eigen(g, s->n, s->values, s->vectors, most, e));
    for (int64_t i = 0; i < s->n; i++)
        s->values[i] = s->values[i] > 0 ? sqrt(s->values[i]) : 0;
    return KW_OK;
}

kw_status kw_svd_new(const float *d, int64_t rows, int64_t columns, int64_t most, kw_svd **out, kw_err *e)
{
    const int64_t n = KW_MIN(rows, columns), vectors = KW_MIN(most, n);
    kw_svd *s = kw_block_new(sizeof *s);
    double *g = n >= 1 ? kw_block_new((size_t)(n * n) * sizeof *g) : NULL;
    if (s)
        *s = (kw_svd){ .rows = rows, .columns = columns, .n = n,
                       .values = kw_block_new((size_t)n * sizeof(double) + 8),
                       .vectors = kw_block_new((size_t)(vectors * n) * sizeof(double) + 8) };
    kw_status status = s && g && s->values && s->vectors ? solve(s, d, g, vectors, e)
                                                         : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_block_free(g);
    if (status)
        kw_svd_free(s);
    else
        *out = s;
    return status;
}

/* down = S⁻¹ Uᵀ D, some columns at a time; up = U S */
static void by_rows(const kw_svd *s, const float *d, int64_t r, float *up, float *down)
{
    enum { SOME = 64 };
    const double least = s->values[0] * 1e-12;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < s->columns; at += SOME) {
        const int64_t k = KW_MIN((int64_t)SOME, s->columns - at);
        for (int64_t v = 0; v < r; v++) {
            double sum[SOME] = { 0 };
            const double *u = s->vectors + v * s->n, f = s->values[v] > least ? 1 / s->values[v] : 0;
            for (int64_t i = 0; i < s->rows; i++) {
                const float *from = d + i * s->columns + at;
#pragma omp simd
                for (int64_t x = 0; x < k; x++)
                    sum[x] += u[i] * from[x];
            }
            for (int64_t x = 0; x < k; x++)
                down[v * s->columns + at + x] = (float)(f * sum[x]);
        }
    }
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t v = 0; v < r; v++)
            up[i * r + v] = (float)(s->vectors[v * s->n + i] * s->values[v]);
}

static void by_columns(const kw_svd *s, const float *d, int64_t r, float *up, float *down)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < s->rows; i++)
        for (int64_t v = 0; v < r; v++) {
            const double *x = s->vectors + v * s->n;
            double sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < s->columns; j++)
                sum += x[j] * d[i * s->columns + j];
            up[i * r + v] = (float)sum;
        }
    for (int64_t v = 0; v < r; v++)
        for (int64_t j = 0; j < s->columns; j++)
            down[v * s->columns + j] = (float)s->vectors[v * s->n + j];
}

/* ---- of a product ------------------------------------------------------------------------------------------------ */

/* s->turn: the eigenvectors of down downᵀ as rows, divided by the roots of their values; b: up by them, multiplied. */
static kw_status split(kw_svd *s, const float *up, double *g, double *values, int64_t most, kw_err *e)
{
    const int64_t r = s->inner;
    KW_TRY(gram(s->down, r, s->columns, g, e));
    KW_TRY(kw__eigen(g, r, values, s->turn, r, e));
    for (int64_t i = 0; i < r; i++) {
        const double root = values[i] > values[0] * 1e-24 ? sqrt(values[i]) : 0;
        double *w = s->turn + i * r;
        for (int64_t k = 0; k < s->rows; k++) {
            double sum = 0;
            for (int64_t j = 0; j < r; j++)
                sum += w[j] * up[k * r + j];
            s->b[k * r + i] = (float)(root * sum);
        }
        for (int64_t j = 0; j < r; j++)
            w[j] = root > 0 ? w[j] / root : 0;
    }
    return kw_svd_new(s->b, s->rows, r, most, &s->left, e);
}

kw_status kw_svd_product(const float *up, const float *down, int64_t rows, int64_t r, int64_t columns, int64_t most,
                         kw_svd **out, kw_err *e)
{
    const size_t square = (size_t)(r * r) * sizeof(double);
    kw_svd *s = kw_block_new(sizeof *s);
    double *g = kw_block_new(square), *values = kw_block_new((size_t)r * sizeof *values);
    if (s)
        *s = (kw_svd){ .rows = rows, .columns = columns, .down = down, .inner = r, .turn = kw_block_new(square),
                       .b = kw_block_new((size_t)(rows * r) * sizeof(float)), .room = kw_block_new(square) };
    kw_status status = s && g && values && s->turn && s->b && s->room ? split(s, up, g, values, most, e)
                                                           : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_block_free(g);
    kw_block_free(values);
    if (status)
        kw_svd_free(s);
    else
        *out = s;
    return status;
}

/* down = Zᵀ turn down_before */
static void of_product(const kw_svd *s, int64_t r, float *up, float *down)
{
    const int64_t n = s->inner;
    float *z = s->room;
    memset(down, 0, (size_t)(r * s->columns) * sizeof *down);
    kw_svd_factors(s->left, s->b, r, up, z);
#pragma omp parallel for schedule(static)
    for (int64_t v = 0; v < r; v++)
        for (int64_t j = 0; j < n; j++) {
            double f = 0;
            for (int64_t i = 0; i < n; i++)
                f += z[v * n + i] * s->turn[i * n + j];
            for (int64_t c = 0; c < s->columns; c++)
                down[v * s->columns + c] += (float)f * s->down[j * s->columns + c];
        }
}

void kw_svd_factors(const kw_svd *s, const float *d, int64_t r, float *up, float *down)
{
    if (s->left)
        of_product(s, r, up, down);
    else if (s->rows <= s->columns)
        by_rows(s, d, r, up, down);
    else
        by_columns(s, d, r, up, down);
}

/* ---- ranks: kohya's resize_lora, and a share of the energy ------------------------------------------------------- */

/* The first i with Σ_{k<=i} s_k^power / Σ >= share, as a count. */
static int64_t until(const double *s, int64_t n, int power, double share)
{
    double all = 0, sum = 0;
    for (int64_t i = 0; i < n; i++)
        all += power == 2 ? s[i] * s[i] : s[i];
    for (int64_t i = 0; i < n; i++) {
        sum += power == 2 ? s[i] * s[i] : s[i];
        if (sum >= share * all)
            return i + 1;
    }
    return n;
}

int64_t kw_rank_of(const kw_rank_want *w, const double *s, int64_t n, bool conv)
{
    int64_t most = conv && w->conv_rank ? w->conv_rank : w->rank, r = most;
    switch (w->rule) {
    case KW_RANK_ENERGY: r = until(s, n, 2, w->target); break;
    case KW_RANK_FRO: r = until(s, n, 2, w->target * w->target); break;
    case KW_RANK_CUMULATIVE: r = until(s, n, 1, w->target); break;
    case KW_RANK_RATIO:
        for (r = 0; r < n && s[r] > s[0] / w->target; r++)
            continue;
        break;
    default: break;
    }
    return KW_MAX((int64_t)1, KW_MIN(KW_MIN(r, most), n));
}
