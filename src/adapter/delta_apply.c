/*
 * delta_apply.c - what a delta makes of a weight; the formulas stand in delta.c. Products are f32 sums over the rank,
 * norms and inverses are double. The strength s: W + s ΔW; DoRA, OFT, weights: W + s (W' - W); BOFT, (IA)³ inside.
 */
#include "lora_file.h"
#include "delta_math.h"

#include <math.h>
#include <string.h>

typedef struct {
    kw_arena *a;
    const kw_delta *d;
    double s;
    float *w;
    int64_t rows, columns;
    kw_err *e;
} work;

static const kw_status no_memory = KW_ENOMEM;

static float *floats(const work *k, int64_t n) { return kw_alloc_array(k->a, (size_t)n, sizeof(float)); }

/* A tensor's numbers as f32; NULL: no memory (or absent). */
static const float *read(const work *k, kw_role role)
{
    const kw_tensor *t = k->d->t[role];
    if (!t)
        return NULL;
    int64_t n = kw_tensor_count(t);
    float *f = floats(k, n);
    if (f)
        kw_convert(KW_F32, f, t->dtype, t->data, (size_t)n);
    return f;
}

static int64_t dim(const work *k, kw_role role, int i)
{
    const kw_tensor *t = k->d->t[role];
    return t && i < t->rank ? t->shape[i] : 1;
}

static int64_t count(const work *k, kw_role role) { return kw_tensor_count(k->d->t[role]); }

static kw_status nomem(const work *k) { return kw_fail(k->e, no_memory, "out of memory"); }

/* ---- ΔW of each kind -------------------------------------------------------------------------------------------- */

/* The matrix a·b of two roles, or with t Σ_ij t_ij a_i b_j (a: (i, rows), b: (j, columns)); NULL: no memory. */
static float *factors(const work *k, kw_role ra, kw_role rb, kw_role rt, int64_t *rows, int64_t *columns)
{
    const float *a = read(k, ra), *b = read(k, rb), *t = read(k, rt);
    if (!a || !b || (!t && k->d->t[rt]))
        return NULL;
    if (!t) {
        int64_t r = dim(k, rb, 0);
        *rows = dim(k, ra, 0);
        *columns = count(k, rb) / r;
        float *out = floats(k, *rows * *columns);
        if (out)
            kw__matmul(a, b, *rows, r, *columns, out);
        return out;
    }
    int64_t i = dim(k, rt, 0), j = dim(k, rt, 1), inner = count(k, rt) / (i * j);
    *rows = dim(k, ra, 1);
    int64_t in = dim(k, rb, 1);
    *columns = in * inner;
    float *half = floats(k, i * *columns), *out = floats(k, *rows * *columns), *turned = floats(k, i * *rows);
    if (!half || !out || !turned)
        return NULL;
    kw__tucker_half(t, b, i, j, in, inner, half);
    kw__turn(a, i, *rows, turned);
    kw__matmul(turned, half, *rows, i, *columns, out);
    return out;
}

/* LoRA's mid lies between factors of which the first is (outputs, i), not (i, outputs). */
static float *with_mid(const work *k, kw_role up, kw_role down, kw_role mid)
{
    const float *a = read(k, up), *b = read(k, down), *t = read(k, mid);
    int64_t i = dim(k, mid, 0), j = dim(k, mid, 1), inner = count(k, mid) / (i * j), in = count(k, down) / j;
    float *half = floats(k, i * in * inner), *out = floats(k, k->rows * k->columns);
    if (!a || !b || !t || !half || !out)
        return NULL;
    kw__tucker_half(t, b, i, j, in, inner, half);
    kw__matmul(a, half, k->rows, i, k->columns, out);
    return out;
}

static float *lora(const work *k)
{
    int64_t r, c;
    return k->d->t[KW_ROLE_MID] ? with_mid(k, KW_ROLE_UP, KW_ROLE_DOWN, KW_ROLE_MID)
                                : factors(k, KW_ROLE_UP, KW_ROLE_DOWN, KW_ROLE_MID, &r, &c);
}

static float *loha(const work *k)
{
    int64_t r, c;
    float *x = factors(k, KW_ROLE_HADA1A, KW_ROLE_HADA1B, KW_ROLE_HADAT1, &r, &c);
    float *y = x ? factors(k, KW_ROLE_HADA2A, KW_ROLE_HADA2B, KW_ROLE_HADAT2, &r, &c) : NULL;
    if (!y)
        return NULL;
#pragma omp parallel for simd schedule(static)
    for (int64_t i = 0; i < r * c; i++)
        x[i] *= y[i];
    return x;
}

/* One half of LoKr: whole, or of factors. */
static const float *kron_half(const work *k, kw_role whole, kw_role a, kw_role b, kw_role t, int64_t *rows,
                              int64_t *columns)
{
    if (!k->d->t[whole])
        return factors(k, a, b, t, rows, columns);
    *rows = dim(k, whole, 0);
    *columns = count(k, whole) / *rows;
    return read(k, whole);
}

static float *lokr(const work *k)
{
    int64_t r1, c1, r2, c2;
    const float *x = kron_half(k, KW_ROLE_KR1, KW_ROLE_KR1A, KW_ROLE_KR1B, KW_ROLE_KRT2, &r1, &c1);
    const float *y = kron_half(k, KW_ROLE_KR2, KW_ROLE_KR2A, KW_ROLE_KR2B, KW_ROLE_KRT2, &r2, &c2);
    float *out = floats(k, k->rows * k->columns);
    if (!x || !y || !out)
        return NULL;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < r1 * r2; i++)
        for (int64_t j = 0; j < c1; j++)
            for (int64_t c = 0; c < c2; c++)
                out[(i * c1 + j) * c2 + c] = x[i / r2 * c1 + j] * y[i % r2 * c2 + c];
    return out;
}

/* W·a1·a2 over the inputs, each number of the kernel's window for itself, and b1·b2. */
static float *glora(const work *k)
{
    const float *a1 = read(k, KW_ROLE_A1), *a2 = read(k, KW_ROLE_A2);
    int64_t in = dim(k, KW_ROLE_A1, 0), r = dim(k, KW_ROLE_A2, 0), inner = k->columns / in, br, bc;
    float *out = k->d->t[KW_ROLE_BM] ? with_mid(k, KW_ROLE_B1, KW_ROLE_B2, KW_ROLE_BM)
                                     : factors(k, KW_ROLE_B1, KW_ROLE_B2, KW_ROLE_BM, &br, &bc);
    float *mixed = floats(k, in * in), *turned = floats(k, in * inner), *sum = floats(k, in * inner);
    if (!a1 || !a2 || !out || !mixed || !turned || !sum)
        return NULL;
    kw__matmul(a1, a2, in, r, in, mixed);
    for (int64_t row = 0; row < k->rows; row++) {             /* (in, inner) -> (inner, in) · (in, in) -> back */
        kw__turn(k->w + row * k->columns, in, inner, turned);
        kw__matmul(turned, mixed, inner, in, in, sum);
        for (int64_t i = 0; i < in; i++)
            for (int64_t p = 0; p < inner; p++)
                out[row * k->columns + i * inner + p] += sum[p * in + i];
    }
    return out;
}

/* ---- DoRA ------------------------------------------------------------------------------------------------------- */

/* Which magnitude belongs to column j of row i: along outputs, or along inputs (1, in, 1, 1). */
static kw_status decompose(const work *k, const float *delta)
{
    bool named = k->d->t[KW_ROLE_MAGNITUDE] != NULL;
    const kw_tensor *t = k->d->t[named ? KW_ROLE_MAGNITUDE : KW_ROLE_DORA];
    int64_t n = kw_tensor_count(t), inner = KW_MAX(k->columns / n, 1);
    bool on_out = n == k->rows && (named || t->rank < 2 || t->shape[0] == n);
    const float *m = read(k, named ? KW_ROLE_MAGNITUDE : KW_ROLE_DORA);
    double *sum = kw_alloc_array(k->a, (size_t)n, sizeof *sum), s = k->s;
    if (!m || !sum)
        return nomem(k);
    if (!on_out && n * inner != k->columns)
        return kw_fail(k->e, KW_EDATA, N_("%s: dora_scale of %lld numbers fits neither outputs nor inputs"),
                       k->d->module, (long long)n);
    for (int64_t i = 0; i < k->rows; i++)
        for (int64_t j = 0; j < k->columns; j++) {
            double v = (double)k->w[i * k->columns + j] + (delta ? (double)delta[i * k->columns + j] : 0);
            sum[on_out ? i : j / inner] += v * v;
        }
    for (int64_t i = 0; i < n; i++)
        sum[i] = (double)m[i] / (sqrt(sum[i]) + (named ? 0 : 1.1920929e-7));      /* LyCORIS: + eps */
    for (int64_t i = 0; i < k->rows; i++)
        for (int64_t j = 0; j < k->columns; j++) {
            float *w = &k->w[i * k->columns + j];
            double v = (double)*w + (delta ? (double)delta[i * k->columns + j] : 0);
            *w = (float)((double)*w + s * (v * sum[on_out ? i : j / inner] - (double)*w));
        }
    return KW_OK;
}

/* ---- the kinds that multiply ------------------------------------------------------------------------------------ */

static kw_status ia3(const work *k)
{
    bool peft = k->d->t[KW_ROLE_IA3_L] != NULL, on_input = k->d->on_input;
    kw_role role = peft ? KW_ROLE_IA3_L : KW_ROLE_PLAIN;
    const float *v = read(k, role);
    int64_t n = count(k, role), inner = on_input ? k->columns / n : 1;
    if (!v)
        return nomem(k);
    for (int64_t i = 0; i < k->rows; i++)
        for (int64_t j = 0; j < k->columns; j++) {
            double x = (double)v[on_input ? j / inner : i];
            k->w[i * k->columns + j] *= (float)(1 + k->s * (peft ? x - 1 : x));
        }
    return KW_OK;
}

static kw_status set(const work *k, kw_role role)
{
    const float *v = read(k, role);
    if (!v)
        return nomem(k);
    for (int64_t i = 0; i < k->rows * k->columns; i++)
        k->w[i] = k->s == 1 ? v[i] : (float)((double)k->w[i] + k->s * ((double)v[i] - (double)k->w[i]));
    return KW_OK;
}

/*
 * R of each block, in double; Q is scaled down as a whole when its norm passes constraint · outputs. A block whose
 * inverse does not exist cannot come from Q = B - Bᵀ of finite numbers.
 */
static double *rotations(const work *k, int64_t blocks, int64_t b)
{
    const float *q = read(k, KW_ROLE_OFT);
    double *r = kw_alloc_array(k->a, (size_t)(blocks * b * b), sizeof *r);
    double *scratch = kw_alloc_array(k->a, (size_t)(2 * b * b), sizeof *scratch), norm = 0,
           limit = k->d->alpha * (double)k->rows;
    if (!q || !r || !scratch)
        return NULL;
    for (int64_t n = 0; n < blocks; n++)
        for (int64_t i = 0; i < b; i++)
            for (int64_t j = 0; j < b; j++) {
                double v = (double)q[(n * b + i) * b + j] - (double)q[(n * b + j) * b + i];
                r[(n * b + i) * b + j] = v;
                norm += v * v;
            }
    norm = sqrt(norm) + 1e-8;
    double factor = limit > 0 && norm > limit ? limit / norm : 1;
    for (int64_t i = 0; i < blocks * b * b; i++)
        r[i] *= factor;
    for (int64_t n = 0; n < blocks; n++)
        kw__cayley(r + n * b * b, b, scratch);
    return r;
}

/* W'[m] = v[m] Σ_n R[n][m] W[n] in each block of rows; W + s (W' - W). v: rescale, or 1. */
static kw_status oft(const work *k)
{
    int64_t blocks = dim(k, KW_ROLE_OFT, 0), b = dim(k, KW_ROLE_OFT, 1), n = k->columns;
    double *r = rotations(k, blocks, b);
    const float *v = read(k, KW_ROLE_RESCALE);
    float *made = floats(k, b * n), *turn = floats(k, b * b), s = (float)k->s;
    if (!r || !made || !turn || (!v && k->d->t[KW_ROLE_RESCALE]))
        return nomem(k);
    for (int64_t g = 0; g < blocks; g++) {
        float *w = k->w + g * b * n;
        for (int64_t i = 0; i < b; i++)
            for (int64_t j = 0; j < b; j++)
                turn[j * b + i] = (float)r[(g * b + i) * b + j] * (v ? v[g * b + j] : 1);
        kw__matmul(turn, w, b, b, n, made);
        for (int64_t i = 0; i < b * n; i++)
            w[i] = s == 1 ? made[i] : w[i] + s * (made[i] - w[i]);
    }
    return KW_OK;
}

/*
 * Stage i takes rows (c, g, k), g = 0, 1, k below h = 2^i · b/2, in the order (c, k, g), multiplies blocks of b of them
 * by s R + (1 - s), and puts them back.
 */
static kw_status boft(const work *k)
{
    int64_t stages = dim(k, KW_ROLE_OFT, 0), blocks = dim(k, KW_ROLE_OFT, 1), b = dim(k, KW_ROLE_OFT, 2),
            n = k->columns;
    double *r = rotations(k, stages * blocks, b);
    float *in = floats(k, k->rows * n), *out = floats(k, b * n), *turn = floats(k, b * b);
    if (!r || !in || !out || !turn)
        return nomem(k);
    for (int64_t i = 0; i < stages; i++) {
        int64_t h = ((int64_t)1 << i) * (b / 2);
        memcpy(in, k->w, (size_t)(k->rows * n) * sizeof *in);
        for (int64_t block = 0; block < blocks; block++) {
            float *gathered = out;
            const double *one = r + (i * blocks + block) * b * b;
            for (int64_t x = 0; x < b; x++)
                for (int64_t y = 0; y < b; y++)
                    turn[x * b + y] = (float)(k->s * one[x * b + y] + (1 - k->s) * (x == y));
            for (int64_t x = 0; x < b; x++)
                memcpy(gathered + x * n, in + kw__butterfly(block * b + x, h) * n, (size_t)n * sizeof *in);
            for (int64_t x = 0; x < b; x++)
                kw__matmul(turn + x * b, gathered, 1, b, n, k->w + kw__butterfly(block * b + x, h) * n);
        }
    }
    const float *v = read(k, KW_ROLE_RESCALE);
    for (int64_t i = 0; v && i < k->rows * n; i++)
        k->w[i] *= (float)(1 + k->s * ((double)v[i / n] - 1));
    return k->d->t[KW_ROLE_RESCALE] && !v ? nomem(k) : KW_OK;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static kw_status add(const work *k, const float *delta, double scale)
{
    if (!delta)
        return nomem(k);
    if (!k->d->t[KW_ROLE_DORA] && !k->d->t[KW_ROLE_MAGNITUDE]) {
        float f = (float)(scale * k->s);
#pragma omp parallel for simd schedule(static)
        for (int64_t i = 0; i < k->rows * k->columns; i++)
            k->w[i] += f * delta[i];
        return KW_OK;
    }
    float *scaled = floats(k, k->rows * k->columns);
    if (!scaled)
        return nomem(k);
    for (int64_t i = 0; i < k->rows * k->columns; i++)
        scaled[i] = (float)scale * delta[i];
    return decompose(k, scaled);
}

static kw_status whole(const work *k)
{
    static const kw_role roles[] = { KW_ROLE_DIFF, KW_ROLE_W_NORM };
    for (size_t i = 0; i < KW_LEN(roles); i++)
        if (k->d->t[roles[i]])
            return add(k, read(k, roles[i]), 1);
    return KW_OK;
}

static kw_status apply(const work *k)
{
    const kw_delta *d = k->d;
    switch (d->kind) {
    case KW_DELTA_LORA: return add(k, lora(k), d->scale);
    case KW_DELTA_LOHA: return add(k, loha(k), d->scale);
    case KW_DELTA_LOKR: return add(k, lokr(k), d->scale);
    case KW_DELTA_GLORA: return add(k, glora(k), d->scale);
    case KW_DELTA_OFT: return oft(k);
    case KW_DELTA_BOFT: return boft(k);
    case KW_DELTA_IA3: return ia3(k);
    case KW_DELTA_FULL: case KW_DELTA_NORM: return whole(k);
    case KW_DELTA_SET:
        return d->t[KW_ROLE_SET] ? set(k, KW_ROLE_SET) : d->t[KW_ROLE_PLAIN] ? set(k, KW_ROLE_PLAIN) : KW_OK;
    default: return KW_OK;
    }
}

kw_status kw_delta_apply(const kw_delta *d, double strength, float *w, int64_t rows, int64_t columns, kw_err *e)
{
    int64_t r, c;
    kw_delta_size(d, &r, &c);
    if ((r && r != rows) || (c && c != columns))
        return kw_fail(e, KW_EDATA, N_("%s: made for a weight of %lld x %lld, not %lld x %lld"), d->module,
                       (long long)r, (long long)c, (long long)rows, (long long)columns);
    if (strength == 0)
        return KW_OK;
    work k = { .a = kw_arena_new(), .d = d, .s = strength, .w = w, .rows = rows, .columns = columns, .e = e };
    kw_status s = k.a ? apply(&k) : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_arena_free(k.a);
    return s;
}
