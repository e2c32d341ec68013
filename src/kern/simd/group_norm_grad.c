/*
 * group_norm_grad.c - gradients of group_norm.c, where the formulas are.
 *
 * Scratch: for each picture and run of pixels, sums of dz and dz xh per channel (double); then, per picture, m1 and m2 of
 * each group. Runs are added in order.
 */
#include "simd.h"

enum { SLAB = 256, RUNS = 16, BLOCK = 256 };            /* as in group_norm.c */

static int64_t run_count(int64_t hw) { return KW_MIN(RUNS, pieces(hw, SLAB)); }
static int64_t run_pixels(int64_t hw) { return pieces(hw, run_count(hw)); }

size_t ISA(group_norm_grad_scratch)(int n, int64_t hw, int c)
{
    return hw > 0 ? (size_t)n * (size_t)(run_count(hw) + 1) * 2 * (size_t)c * sizeof(double) : 0;
}

typedef struct {
    const void *x, *dy;
    const float *gamma, *beta, *mean, *rstd;
    void *dx;
    int64_t hw, runs;
    int c, groups, width;
    bool silu;
    double *sums;                         /* [picture][runs + 1][2][c] */
} task;

static double *sums_of(const task *k, int64_t image, int64_t run) { return k->sums + (image * (k->runs + 1) + run) * 2 * k->c; }

typedef struct { float mean[BLOCK], rstd[BLOCK], gamma[BLOCK], beta[BLOCK], m1[BLOCK], m2[BLOCK]; } channel_terms;

static void fill_terms(channel_terms *f, const task *k, int64_t image, int first, int width)
{
    const double *m = sums_of(k, image, k->runs);
    memset(f, 0, sizeof *f);
    for (int i = 0; i < width; i++) {
        const int g = (first + i) / k->width;
        f->mean[i] = k->mean[image * k->groups + g];
        f->rstd[i] = k->rstd[image * k->groups + g];
        f->gamma[i] = k->gamma[first + i];
        f->beta[i] = k->beta[first + i];
        f->m1[i] = (float)m[2 * g];       /* not filled yet in the first sweep, nor used there */
        f->m2[i] = (float)m[2 * g + 1];
    }
}

/* dz and xh of W channels of one pixel. */
INLINE vf gradient_of_z(const kw_dtype t, const task *k, const bool silu, const channel_terms *f, ptrdiff_t at, int i, int left, vf *xh)
{
    vf dz = v_get(t, k->dy, at + i, left);
    *xh = (v_get(t, k->x, at + i, left) - v_load(KW_F32, f->mean, i)) * v_load(KW_F32, f->rstd, i);
    if (silu) {
        vf z = *xh * v_load(KW_F32, f->gamma, i) + v_load(KW_F32, f->beta, i), rest, s = v_sigmoid_rest(z, &rest);
        dz = dz * s * (1.0f + z * rest);
    }
    return dz;
}

/*  s1 += sum dz,  s2 += sum dz xh  */
INLINE void sum_pixels(const kw_dtype t, const task *k, const bool silu, const channel_terms *f, ptrdiff_t at, int64_t pixels, int width, float *s1, float *s2)
{
    for (int64_t p = 0; p < pixels; p++, at += k->c)
        for (int i = 0; i < width; i += W) {
            vf xh, dz = gradient_of_z(t, k, silu, f, at, i, width - i, &xh);
            v_store(KW_F32, s1, i, v_load(KW_F32, s1, i) + dz);
            v_store(KW_F32, s2, i, v_load(KW_F32, s2, i) + dz * xh);
        }
}

INLINE void run_sums(const kw_dtype t, const task *k, int64_t image, int64_t run, int b)
{
    const int width = KW_MIN(BLOCK, k->c - b);
    const int64_t size = run_pixels(k->hw), end = KW_MIN(k->hw, (run + 1) * size);
    double *sums = sums_of(k, image, run) + b;
    channel_terms f;
    fill_terms(&f, k, image, b, width);
    for (int i = 0; i < width; i++)
        sums[i] = sums[k->c + i] = 0;
    for (int64_t p = run * size; p < end; p += SLAB) {
        float s[2][BLOCK] = { { 0 } };
        const ptrdiff_t at = (image * k->hw + p) * k->c + b;
        if (k->silu)
            sum_pixels(t, k, true, &f, at, KW_MIN(SLAB, end - p), width, s[0], s[1]);
        else
            sum_pixels(t, k, false, &f, at, KW_MIN(SLAB, end - p), width, s[0], s[1]);
        for (int i = 0; i < width; i++) {
            sums[i] += (double)s[0][i];
            sums[k->c + i] += (double)s[1][i];
        }
    }
}

/* Adds the runs of each picture into its first, and its groups' means m1, m2 after the last. */
static void add_runs(const task *k, int64_t image)
{
    double *total = sums_of(k, image, 0), *m = sums_of(k, image, k->runs);
    for (int64_t r = 1; r < k->runs; r++) {
        const double *s = sums_of(k, image, r);
        for (int i = 0; i < 2 * k->c; i++)
            total[i] += s[i];
    }
    const double count = (double)k->hw * k->width;
    for (int g = 0; g < k->groups; g++) {
        double m1 = 0, m2 = 0;
        for (int i = g * k->width; i < (g + 1) * k->width; i++) {
            m1 += (double)k->gamma[i] * total[i];
            m2 += (double)k->gamma[i] * total[k->c + i];
        }
        m[2 * g] = m1 / count;
        m[2 * g + 1] = m2 / count;
    }
}

INLINE void gradient_pixels(const kw_dtype t, const task *k, const bool silu, const channel_terms *f, ptrdiff_t at, int64_t pixels, int width)
{
    for (int64_t p = 0; p < pixels; p++, at += k->c)
        for (int i = 0; i < width; i += W) {
            vf xh, dz = gradient_of_z(t, k, silu, f, at, i, width - i, &xh);
            vf inner = v_load(KW_F32, f->gamma, i) * dz - v_load(KW_F32, f->m1, i) - xh * v_load(KW_F32, f->m2, i);
            v_put(t, k->dx, at + i, v_load(KW_F32, f->rstd, i) * inner, width - i);
        }
}

INLINE void run_gradient(const kw_dtype t, const task *k, int64_t image, int64_t run, int b)
{
    const int width = KW_MIN(BLOCK, k->c - b);
    const int64_t size = run_pixels(k->hw), p = run * size, end = KW_MIN(k->hw, p + size);
    channel_terms f;
    fill_terms(&f, k, image, b, width);
    if (k->silu)
        gradient_pixels(t, k, true, &f, (image * k->hw + p) * k->c + b, end - p, width);
    else
        gradient_pixels(t, k, false, &f, (image * k->hw + p) * k->c + b, end - p, width);
}

static void add_pictures(const task *k, int n, float *dgamma, float *dbeta)
{
    for (int i = 0; i < k->c; i++) {
        double b = 0, g = 0;
        for (int image = 0; image < n; image++) {
            b += sums_of(k, image, 0)[i];
            g += sums_of(k, image, 0)[k->c + i];
        }
        if (dgamma)
            dgamma[i] = (float)g;
        if (dbeta)
            dbeta[i] = (float)b;
    }
}

void ISA(group_norm_grad)(kw_dtype t, const void *x, const void *dy, const float *gamma, const float *beta, const float *mean,
                          const float *rstd, void *dx, float *dgamma, float *dbeta, int n, int64_t hw, int c, int groups,
                          bool silu, float *scratch)
{
    const task k = { x, dy, gamma, beta, mean, rstd, dx, hw, run_count(hw), c, groups, c / groups, silu, (double *)(void *)scratch };
    const int64_t blocks = pieces(c, BLOCK), count = n * k.runs * blocks;
    _Pragma("omp parallel for schedule(static) if (count > 1)")
    for (int64_t i = 0; i < count; i++)
        TYPED(t, run_sums, &k, i / blocks / k.runs, i / blocks % k.runs, (int)(i % blocks) * BLOCK);
    for (int image = 0; image < n; image++)
        add_runs(&k, image);
    if (dgamma || dbeta)
        add_pictures(&k, n, dgamma, dbeta);
    if (!dx)
        return;
    _Pragma("omp parallel for schedule(static) if (count > 1)")
    for (int64_t i = 0; i < count; i++)
        TYPED(t, run_gradient, &k, i / blocks / k.runs, i / blocks % k.runs, (int)(i % blocks) * BLOCK);
}
