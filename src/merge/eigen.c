/*
 * eigen.c - eigenvalues and vectors of a symmetric matrix: Householder's reflections to three diagonals, then QL with
 * implicit shifts (Golub and Van Loan, Matrix Computations, 8.3).
 *
 *   A = Q T Qᵀ, Q = H_0 H_1 ...;  T = Z Λ Zᵀ by plane rotations;  vectors = Q Z
 *
 * One pass over the matrix does a step's update and the next step's product. Rotations are collected and applied to
 * some columns of Z at a time, which stay in the cache meanwhile.
 */
#include "eigen.h"

#include "kern/kern.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SWEEPS = 32, SOME = 32, TRIES = 60 };

/* ---- loops for the vectors of the machine ------------------------------------------------------------------------ */

#define ALWAYS static inline __attribute__((always_inline))
#if defined __x86_64__
#define WIDE __attribute__((target("avx2,fma")))
#else
#define WIDE
#endif

static bool is_wide(void) { return strcmp(kw_kern_get()->isa, "scalar") != 0; }

ALWAYS double dot_(const double *a, const double *b, int64_t n)
{
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++)
        s += a[i] * b[i];
    return s;
}

/* row -= x·w + y·v, and its product with u */
ALWAYS double step_(double *row, double x, const double *w, double y, const double *v, const double *u, int64_t n)
{
    double s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t i = 0; i < n; i++) {
        row[i] -= x * w[i] + y * v[i];
        s += row[i] * u[i];
    }
    return s;
}

/* (a, b) becomes (c a - s b, s a + c b) */
ALWAYS void turn_(double *a, double *b, double c, double s)
{
#pragma omp simd
    for (int64_t i = 0; i < SOME; i++) {
        const double x = a[i], y = b[i];
        a[i] = c * x - s * y;
        b[i] = s * x + c * y;
    }
}

enum { TILE_I = 3, TILE_J = 4 };
typedef double lanes __attribute__((vector_size(32), aligned(8), may_alias));

ALWAYS void tile_(const double *p, int64_t i, int64_t j, int64_t k, int64_t stride, double *g, int64_t n)
{
    lanes sum[TILE_I][TILE_J] = { { { 0 } } };
    for (int64_t x = 0; x < k; x += 4)
        for (int b = 0; b < TILE_J; b++) {
            const lanes right = *(const lanes *)(p + (j + b) * stride + x);
            for (int a = 0; a < TILE_I; a++)
                sum[a][b] += *(const lanes *)(p + (i + a) * stride + x) * right;
        }
    for (int a = 0; a < TILE_I; a++)
        for (int b = 0; b < TILE_J; b++)
            if (i + a < n && j + b <= i + a)
                g[(i + a) * n + j + b] += (sum[a][b][0] + sum[a][b][2]) + (sum[a][b][1] + sum[a][b][3]);
}

#define BOTH(result, name, parameters, arguments) \
    static result name##narrow parameters { return name arguments; } \
    WIDE static result name##wide parameters { return name arguments; }

BOTH(double, dot_, (const double *a, const double *b, int64_t n), (a, b, n))
BOTH(double, step_, (double *row, double x, const double *w, double y, const double *v, const double *u, int64_t n),
     (row, x, w, y, v, u, n))

static void turn_narrow(double *a, double *b, double c, double s) { turn_(a, b, c, s); }
WIDE static void turn_wide(double *a, double *b, double c, double s) { turn_(a, b, c, s); }

static void tile_narrow(const double *p, int64_t i, int64_t j, int64_t k, int64_t stride, double *g, int64_t n)
{
    tile_(p, i, j, k, stride, g, n);
}

WIDE static void tile_wide(const double *p, int64_t i, int64_t j, int64_t k, int64_t stride, double *g, int64_t n)
{
    tile_(p, i, j, k, stride, g, n);
}

double kw__dot(const double *a, const double *b, int64_t n)
{
    return is_wide() ? dot_wide(a, b, n) : dot_narrow(a, b, n);
}

/* p has zeros behind row n and behind k, up to whole tiles. */
void kw__gram_add(const double *p, int64_t n, int64_t k, int64_t stride, double *g)
{
    void (*tile)(const double *, int64_t, int64_t, int64_t, int64_t, double *, int64_t)
        = is_wide() ? tile_wide : tile_narrow;
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t i = 0; i < n; i += TILE_I)
        for (int64_t j = 0; j < i + TILE_I; j += TILE_J)
            tile(p, i, j, k, stride, g, n);
}

/* ---- three diagonals --------------------------------------------------------------------------------------------- */

/*
 * x of n numbers to (beta, 0, 0 ...): v with v[0] = 1, H = 1 - tau v vᵀ. Returns beta.
 */
static double reflect(double *x, int64_t n, double *tau)
{
    double rest = n > 1 ? kw__dot(x + 1, x + 1, n - 1) : 0, first = x[0];
    *tau = 0;
    if (rest == 0) {
        x[0] = 1;
        return first;
    }
    double norm = sqrt(first * first + rest), beta = first > 0 ? -norm : norm;
    *tau = (beta - first) / beta;
    for (int64_t i = 1; i < n; i++)
        x[i] /= first - beta;
    x[0] = 1;
    return beta;
}

/* p = tau A v -> w = p - (tau/2)(p·v) v, so that H A H = A - v wᵀ - w vᵀ */
static void finish(const double *v, double *p, double tau, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        p[i] *= tau;
    double f = tau / 2 * kw__dot(p, v, n);
    for (int64_t i = 0; i < n; i++)
        p[i] -= f * v[i];
}

/*
 * Row k of g keeps v_k behind the diagonal. room: 4 n. On one thread: n short loops, after each of which threads would
 * wait for each other (on a busy machine 640 x 640 took 7 s that way, 0.04 s this way).
 */
static void tridiagonal(double *g, int64_t n, double *d, double *off, double *tau, double *room)
{
    double *w = room, *next = room + n, *v = room + 2 * n, *column = room + 3 * n;
    double (*step)(double *, double, const double *, double, const double *, const double *, int64_t)
        = is_wide() ? step_wide : step_narrow;
    memset(room, 0, (size_t)(4 * n) * sizeof *room);              /* v and w of the step before, by whole indices */
    for (int64_t k = 0; k < n; k++) {
        const int64_t m = n - k - 1;      /* below the diagonal */
        d[k] = g[k * n + k] - 2 * v[k] * w[k];
        if (!m)
            break;
        for (int64_t i = k + 1; i < n; i++)
            column[i] = g[i * n + k] - v[i] * w[k] - w[i] * v[k];
        off[k] = reflect(column + k + 1, m, &tau[k]);
        for (int64_t i = k + 1; i < n; i++)
            next[i] = step(g + i * n + k + 1, v[i], w + k + 1, w[i], v + k + 1, column + k + 1, m);
        finish(column + k + 1, next + k + 1, tau[k], m);
        memcpy(v + k + 1, column + k + 1, (size_t)m * sizeof *v);
        memcpy(w + k + 1, next + k + 1, (size_t)m * sizeof *w);
        v[k] = w[k] = 0;
        memcpy(g + k * n + k + 1, v + k + 1, (size_t)m * sizeof *v);
    }
}

/* ---- QL ---------------------------------------------------------------------------------------------------------- */

typedef struct { int64_t from, to; double *c, *s; } sweep;        /* rotations of (i, i + 1) for i = to - 1 ... from */

static void apply(const sweep *list, int n_sweeps, double *z, int64_t n)
{
    void (*turn)(double *, double *, double, double) = is_wide() ? turn_wide : turn_narrow;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < n; at += SOME) {
        double *block = z + at * n;       /* (n, SOME) */
        for (int k = 0; k < n_sweeps; k++)
            for (int64_t i = list[k].to - 1; i >= list[k].from; i--)
                turn(block + i * SOME, block + (i + 1) * SOME, list[k].c[i], list[k].s[i]);
    }
}

/* One implicit QL sweep of rows l ... m; its rotations go to s. */
static void one_sweep(double *d, double *off, int64_t l, int64_t m, sweep *out)
{
    double g = (d[l + 1] - d[l]) / (2 * off[l]), r = hypot(g, 1), s = 1, c = 1, p = 0;
    g = d[m] - d[l] + off[l] / (g + (g < 0 ? -r : r));
    *out = (sweep){ l, m, out->c, out->s };
    for (int64_t i = m - 1; i >= l; i--) {
        double f = s * off[i], b = c * off[i];
        r = hypot(f, g);
        off[i + 1] = r;
        if (r == 0) {                     /* split here: what follows are no rotations */
            d[i + 1] -= p;
            off[m] = 0;
            out->from = i + 1;
            return;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        out->c[i] = c;
        out->s[i] = s;
    }
    d[l] -= p;
    off[l] = g;
    off[m] = 0;
}

/* What rounding makes of zeros: of a matrix of low rank most of the rest is that, and never gets smaller. */
static double nothing(const double *d, const double *off, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++)
        largest = fmax(largest, fabs(d[i]) + fabs(off[i]));
    return 1.1e-16 * largest;
}

/* z: blocks of SOME columns, (n, SOME) each. list: SWEEPS with room for n rotations. */
static kw_status diagonal(double *d, double *off, int64_t n, double *z, sweep *list, kw_err *e)
{
    int kept = 0;
    off[n - 1] = 0;
    const double least = nothing(d, off, n);
    for (int64_t l = 0; l < n; l++)
        for (int tries = 0;; tries++) {
            int64_t m = l;
            while (m < n - 1 && fabs(off[m]) > least && fabs(off[m]) > 2.3e-16 * (fabs(d[m]) + fabs(d[m + 1])))
                m++;
            if (m == l)
                break;
            if (tries == TRIES)
                return kw_fail(e, KW_ENUMERIC, N_("singular values are not found: the matrix holds no usual numbers"));
            one_sweep(d, off, l, m, &list[kept++]);
            if (kept == SWEEPS) {
                apply(list, kept, z, n);
                kept = 0;
            }
        }
    apply(list, kept, z, n);
    return KW_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

typedef struct { double value; int64_t at; } place;

static int by_value(const void *x, const void *y)
{
    const place *a = x, *b = y;
    return a->value > b->value ? -1 : a->value < b->value ? 1 : (a->at > b->at) - (a->at < b->at);
}

/* Row `at` of Zᵀ through the reflections: a vector of A. */
static void bring_back(const double *g, const double *tau, const double *z, int64_t n, int64_t at, double *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = z[i / SOME * SOME * n + at * SOME + i % SOME];
    for (int64_t k = n - 2; k >= 0; k--) {
        const double *v = g + k * n + k + 1;
        const double f = tau[k] * kw__dot(v, x + k + 1, n - k - 1);
        for (int64_t i = 0; i < n - k - 1; i++)
            x[k + 1 + i] -= f * v[i];
    }
}

typedef struct { double *room, *z, *turns; place *order; sweep list[SWEEPS]; } space;

static bool space_new(space *s, int64_t n)
{
    const size_t wide = (size_t)((n + SOME - 1) / SOME * SOME);
    s->room = kw_block_new((size_t)n * 7 * sizeof(double));
    s->z = kw_block_new(wide * (size_t)n * sizeof(double));
    s->turns = kw_block_new((size_t)n * 2 * SWEEPS * sizeof(double));
    s->order = kw_block_new((size_t)n * sizeof(place));
    if (!s->room || !s->z || !s->turns || !s->order)
        return false;
    for (int k = 0; k < SWEEPS; k++) {
        s->list[k].c = s->turns + 2 * k * n;
        s->list[k].s = s->list[k].c + n;
    }
    memset(s->z, 0, wide * (size_t)n * sizeof(double));
    for (int64_t i = 0; i < n; i++)
        s->z[i / SOME * SOME * n + i * SOME + i % SOME] = 1;
    return true;
}

static void space_free(space *s)
{
    kw_block_free(s->room);
    kw_block_free(s->z);
    kw_block_free(s->turns);
    kw_block_free(s->order);
}

static kw_status solve(double *g, int64_t n, double *values, double *vectors, int64_t most, space *s, kw_err *e)
{
    double *d = s->room, *off = s->room + n, *tau = s->room + 2 * n;
    tau[n - 1] = 0;
    tridiagonal(g, n, d, off, tau, s->room + 3 * n);
    KW_TRY(diagonal(d, off, n, s->z, s->list, e));
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(d[i]))
            return kw_fail(e, KW_ENUMERIC, N_("singular values are not found: the matrix holds no usual numbers"));
        s->order[i] = (place){ d[i], i };
    }
    qsort(s->order, (size_t)n, sizeof *s->order, by_value);
    for (int64_t i = 0; i < n; i++)
        values[i] = s->order[i].value;
#pragma omp parallel for schedule(dynamic, 8)
    for (int64_t i = 0; i < most; i++)
        bring_back(g, tau, s->z, n, s->order[i].at, vectors + i * n);
    return KW_OK;
}

kw_status kw__eigen(double *g, int64_t n, double *values, double *vectors, int64_t most, kw_err *e)
{
    space s = { 0 };
    kw_status status = space_new(&s, n) ? solve(g, n, values, vectors, KW_MIN(most, n), &s, e)
                                        : kw_fail(e, KW_ENOMEM, "out of memory");
    space_free(&s);
    return status;
}
