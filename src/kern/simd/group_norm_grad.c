/*
 * group_norm_grad.c - gradients of group_norm.c, where the formulas are.
 *
 * Scratch: for each picture and run of pixels, sums of dz and dz xh per channel (double); then, per picture, m1 and m2
 * of each group. Runs are added in order.
 */
#include "group_norm.h"

enum { TOGETHER = 2 };                    /* pixels in lockstep */

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

static double *sums_of(const task *k, int64_t image,
                       int64_t run) { return k->sums + (image * (k->runs + 1) + run) * 2 * k->c; }

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

/* dz and xh of W channels of R pixels. */
INLINE void gradient_of_z(const int R, const kw_dtype t, const task *k, const bool silu, const channel_terms *f,
                          ptrdiff_t at,
                          int i, int left, vf dz[], vf xh[])
{
    const vf mean = v_load(KW_F32, f->mean, i), rstd = v_load(KW_F32, f->rstd, i);
    UNROLL(2) for (int r = 0; r < R; r++) {
        dz[r] = v_get(t, k->dy, at + r * k->c + i, left);
        xh[r] = (v_get(t, k->x, at + r * k->c + i, left) - mean) * rstd;
    }
    if (silu)
        UNROLL(2) for (int r = 0; r < R; r++) {
            vf z = xh[r] * v_load(KW_F32, f->gamma, i) + v_load(KW_F32, f->beta, i), rest, s = v_sigmoid_rest(z, &rest);
            dz[r] = dz[r] * s * (1.0f + z * rest);
        }
}

/*  s1 += sum dz,  s2 += sum dz xh  over R pixels */
INLINE void sum_rows(const int R, const kw_dtype t, const bool silu, const task *k, const channel_terms *f,
                     ptrdiff_t at, int width,
                     float *s1, float *s2)
{
    for (int i = 0; i < width; i += W) {
        vf dz[TOGETHER], xh[TOGETHER], a = v_load(KW_F32, s1, i), b = v_load(KW_F32, s2, i);
        gradient_of_z(R, t, k, silu, f, at, i, width - i, dz, xh);
        UNROLL(2) for (int r = 0; r < R; r++) {
            a += dz[r];
            b += dz[r] * xh[r];
        }
        v_store(KW_F32, s1, i, a);
        v_store(KW_F32, s2, i, b);
    }
}

/*  dx = rstd (gamma dz - m1 - xh m2)  of R pixels */
INLINE void gradient_rows(const int R, const kw_dtype t, const bool silu, const task *k, const channel_terms *f,
                          ptrdiff_t at, int width)
{
    for (int i = 0; i < width; i += W) {
        vf dz[TOGETHER], xh[TOGETHER];
        gradient_of_z(R, t, k, silu, f, at, i, width - i, dz, xh);
        UNROLL(2) for (int r = 0; r < R; r++) {
            vf inner = v_load(KW_F32, f->gamma, i) * dz[r] - v_load(KW_F32, f->m1, i);
            inner -= xh[r] * v_load(KW_F32, f->m2, i);
            v_put(t, k->dx, at + r * k->c + i, v_load(KW_F32, f->rstd, i) * inner, width - i);
        }
    }
}

NOINLINE static void sum_pixels(kw_dtype t, const task *k, const channel_terms *f, ptrdiff_t at, int64_t pixels,
                                int width, float *s1,
                                float *s2)
{
    FOR_PIXELS(sum_rows, k, f, at, width, s1, s2);
}

NOINLINE static void gradient_pixels(kw_dtype t, const task *k, const channel_terms *f, ptrdiff_t at, int64_t pixels,
                                     int width)
{
    FOR_PIXELS(gradient_rows, k, f, at, width);
}

static void run_sums(kw_dtype t, const task *k, int64_t image, int64_t run, int b)
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
        sum_pixels(t, k, &f, at, KW_MIN(SLAB, end - p), width, s[0], s[1]);
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

static void run_gradient(kw_dtype t, const task *k, int64_t image, int64_t run, int b)
{
    const int width = KW_MIN(BLOCK, k->c - b);
    const int64_t size = run_pixels(k->hw), p = run * size, end = KW_MIN(k->hw, p + size);
    channel_terms f;
    fill_terms(&f, k, image, b, width);
    gradient_pixels(t, k, &f, (image * k->hw + p) * k->c + b, end - p, width);
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

void ISA(group_norm_grad)(kw_dtype t, const void *x, const void *dy, const float *gamma, const float *beta,
                          const float *mean, const float *rstd, void *dx, float *dgamma, float *dbeta, int n,
                          int64_t hw, int c, int groups, bool silu, float *scratch)
{
    const task k = { x, dy, gamma, beta, mean, rstd, dx, hw, run_count(hw), c, groups, c / groups, silu,
                    (double *)(void *)scratch };
    const int64_t blocks = pieces(c, BLOCK), count = n * k.runs * blocks;
    _Pragma("omp parallel for schedule(static) if (count > 1)")
    for (int64_t i = 0; i < count; i++)
        run_sums(t, &k, i / blocks / k.runs, i / blocks % k.runs, (int)(i % blocks) * BLOCK);
    for (int image = 0; image < n; image++)
        add_runs(&k, image);
    if (dgamma || dbeta)
        add_pictures(&k, n, dgamma, dbeta);
    if (!dx)
        return;
    _Pragma("omp parallel for schedule(static) if (count > 1)")
    for (int64_t i = 0; i < count; i++)
        run_gradient(t, &k, i / blocks / k.runs, i / blocks % k.runs, (int)(i % blocks) * BLOCK);
}
