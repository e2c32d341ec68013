/*
 * group_norm.c - GroupNorm with SiLU fused, tokens x channels, two sweeps over the pixels in each direction.
 *
 *     xh = (x - mean) rstd      z = gamma xh + beta      y = z sig(z)
 *     dz = dy sig(z) (1 + z (1 - sig(z)))      dbeta = sum dz      dgamma = sum dz xh
 *     dx = rstd (gamma dz - m1 - xh m2),   m1, m2 = means over the group of gamma dz and gamma dz xh
 *
 * Sums are first per channel (vertical: any group width, no lane shuffles), over a SLAB of pixels in f32; then per
 * group in double. They are sums of x - shift, shift being the channel's first pixel of the slab, so a large mean does
 * not cancel the variance, and slabs are joined by the formula of Chan, Golub and LeVeque.
 */
#include "group_norm.h"

enum {
    GROUPS = 64,                          /* at a time */
    TOGETHER = 4,                         /* pixels in lockstep: sums and coefficients are loaded once for all */
};

/* ---- statistics ---------------------------------------------------------------------------------------------- */

typedef struct { double n, mean, m2; } moments;         /* m2: sum of squares about the mean */

static void join(moments *a, moments b)
{
    const double n = a->n + b.n, d = b.mean - a->mean;
    a->m2 += b.m2 + d * d * a->n * b.n / n;
    a->mean += d * b.n / n;
    a->n = n;
}

typedef struct { float shift[BLOCK], s1[BLOCK], s2[BLOCK]; } channel_sums;

/*  s1 += sum x - shift,  s2 += sum (x - shift)^2  over R pixels, `width` channels from element `at` on  */
INLINE void sum_rows(const int R, const kw_dtype t, const void *x, ptrdiff_t at, int c, int width, channel_sums *s)
{
    for (int i = 0; i < width; i += W) {
        const int left = width - i;
        vf shift = v_load(KW_F32, s->shift, i), a = v_load(KW_F32, s->s1, i), b = v_load(KW_F32, s->s2, i);
        UNROLL(4) for (int r = 0; r < R; r++) {
            vf d = v_get(t, x, at + (ptrdiff_t)r * c + i, left) - shift;
            a += d;
            b += d * d;
        }
        v_store(KW_F32, s->s1, i, a);
        v_store(KW_F32, s->s2, i, b);
    }
}

/* Per-channel sums of one slab of pixels; at: its first element. */
INLINE void sum_slab(const kw_dtype t, const void *x, ptrdiff_t at, int c, int width, int64_t pixels, channel_sums *s)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < width; i++)
        s->shift[i] = get_one(t, x, at + i);
    int64_t p = 0;
    for (; p + TOGETHER <= pixels; p += TOGETHER)
        sum_rows(TOGETHER, t, x, at + p * c, c, width, s);
    for (; p < pixels; p++)
        sum_rows(1, t, x, at + p * c, c, width, s);
}

/* Moments of `width` channels together. */
static moments slab_moments(const channel_sums *s, int first, int width, int64_t pixels)
{
    const double n = (double)pixels;
    double mean = 0, m2 = 0;
    for (int i = first; i < first + width; i++)
        mean += ((double)s->shift[i] + (double)s->s1[i] / n) / width;
    for (int i = first; i < first + width; i++) {
        double s1 = (double)s->s1[i], d = (double)s->shift[i] + s1 / n - mean;
        m2 += (double)s->s2[i] - s1 * s1 / n + n * d * d;
    }
    return (moments){ n * width, mean, m2 };
}

typedef struct {                          /* what all runs of one call share */
    const void *x;
    const float *gamma, *beta;
    void *y;
    float *mean, *rstd;
    int64_t hw;
    int c, groups, width;                 /* width: channels of a group */
    float eps;
    bool silu;
} task;

/* Groups [g0, g1) of pixels [p0, p1) of one picture: moments m[0], m[1]... */
INLINE void run_moments(const kw_dtype t, const task *k, int64_t image, int64_t p0, int64_t p1, int g0, int g1,
                        moments *m)
{
    channel_sums s;
    for (int g = g0; g < g1; g++)
        m[g - g0] = (moments){ 0 };
    for (int64_t p = p0; p < p1; p += SLAB) {
        const int64_t n = KW_MIN(SLAB, p1 - p);
        const int first = g0 * k->width, last = g1 * k->width;
        for (int b = first; b < last; b += BLOCK) {     /* more than one block: a single wide group */
            const int width = KW_MIN(BLOCK, last - b);
            sum_slab(t, k->x, (image * k->hw + p) * k->c + b, k->c, width, n, &s);
            if (g1 - g0 == 1)
                join(&m[0], slab_moments(&s, 0, width, n));
            else
                for (int g = g0; g < g1; g++)
                    join(&m[g - g0], slab_moments(&s, (g - g0) * k->width, k->width, n));
        }
    }
}

/* ---- forward ------------------------------------------------------------------------------------------------- */

typedef struct { float mean[BLOCK], scale[BLOCK], beta[BLOCK], rstd[BLOCK]; } affine;  /* z = (x - mean) scale + beta */

static void fill_affine(affine *f, const float *gamma, const float *beta, const float *mean, const float *rstd,
                        int first,
                        int width, int group_width)
{
    memset(f, 0, sizeof *f);
    for (int i = 0; i < width; i++) {
        const int g = (first + i) / group_width;
        f->mean[i] = mean[g];
        f->rstd[i] = rstd[g];
        f->scale[i] = gamma[first + i] * rstd[g];
        f->beta[i] = beta[first + i];
    }
}

/* R pixels, `width` channels from element `at` on */
INLINE void apply_rows(const int R, const kw_dtype t, const bool silu, const task *k, const affine *f, ptrdiff_t at,
                       int width)
{
    const void *x = k->x;
    void *y = k->y;
    const ptrdiff_t c = k->c;
    for (int i = 0; i < width; i += W) {
        const vf mean = v_load(KW_F32, f->mean, i), scale = v_load(KW_F32, f->scale, i);
        const vf beta = v_load(KW_F32, f->beta, i);
        vf z[TOGETHER];
        UNROLL(4) for (int r = 0; r < R; r++)
            z[r] = (v_get(t, x, at + r * c + i, width - i) - mean) * scale + beta;
        UNROLL(4) for (int r = 0; r < R; r++)
            v_put(t, y, at + r * c + i, silu ? z[r] * v_sigmoid(z[r]) : z[r], width - i);
    }
}

NOINLINE static void apply_pixels(kw_dtype t, const task *k, const affine *f, ptrdiff_t at, int64_t pixels, int width)
{
    FOR_PIXELS(apply_rows, k, f, at, width);
}

static void run_apply(kw_dtype t, const task *k, int64_t image, int64_t p0, int64_t p1, int g0, int g1)
{
    affine f;
    for (int b = g0 * k->width; b < g1 * k->width; b += BLOCK) {
        const int width = KW_MIN(BLOCK, g1 * k->width - b);
        fill_affine(&f, k->gamma, k->beta, k->mean + image * k->groups, k->rstd + image * k->groups, b, width,
                    k->width);
        apply_pixels(t, k, &f, (image * k->hw + p0) * k->c + b, p1 - p0, width);
    }
}

/* Groups [g0, g1) of one picture. */
static void normalize(kw_dtype t, const task *k, int64_t image, int g0, int g1)
{
    const int64_t runs = run_count(k->hw), size = run_pixels(k->hw);
    moments m[RUNS][GROUPS];
    _Pragma("omp parallel for schedule(static) if (runs > 1)")
    for (int64_t r = 0; r < runs; r++)
        TYPED(t, run_moments, k, image, r * size, KW_MIN(k->hw, (r + 1) * size), g0, g1, m[r]);
    for (int g = g0; g < g1; g++) {
        for (int64_t r = 1; r < runs; r++)
            if (m[r][g - g0].n > 0)
                join(&m[0][g - g0], m[r][g - g0]);
        const moments *a = &m[0][g - g0];
        k->mean[image * k->groups + g] = (float)a->mean;
        k->rstd[image * k->groups + g] = (float)(1 / __builtin_sqrt(a->m2 / a->n + (double)k->eps));
    }
    _Pragma("omp parallel for schedule(static) if (runs > 1)")
    for (int64_t r = 0; r < runs; r++)
        run_apply(t, k, image, r * size, KW_MIN(k->hw, (r + 1) * size), g0, g1);
}

void ISA(group_norm)(kw_dtype t, const void *x, const float *gamma, const float *beta, void *y, float *mean,
                     float *rstd, int n,
                     int64_t hw, int c, int groups, float eps, bool silu)
{
    const task k = { x, gamma, beta, y, mean, rstd, hw, c, groups, c / groups, eps, silu };
    const int together = KW_MAX(1, KW_MIN(GROUPS, BLOCK / k.width));
    const int64_t parts = pieces(groups, together), count = n * parts;
    _Pragma("omp parallel for schedule(static) if (run_count(hw) == 1 && count > 1)")
    for (int64_t i = 0; i < count; i++) {
        const int g0 = (int)(i % parts) * together;
        normalize(t, &k, i / parts, g0, KW_MIN(groups, g0 + together));
    }
}

/* ---- in two halves: moments of some rows of a picture, and its rows normalized by what all rows gave ------------ */

/*
 * Rows are the unit: each one's moments by itself, then joined one by one to those before. So a picture whose rows
 * come in several calls gives the same bits as in one, however it is cut.
 */
void ISA(group_moments)(kw_dtype t, const void *x, double *out, int n, int64_t rows, int64_t columns, int c,
                        int groups, void *scratch)
{
    const task k = { .x = x, .hw = rows * columns, .c = c, .groups = groups, .width = c / groups };
    const int together = KW_MAX(1, KW_MIN(GROUPS, BLOCK / k.width));
    moments *m = scratch;
    _Pragma("omp parallel for schedule(static) if (n * rows > 1)")
    for (int64_t i = 0; i < n * rows; i++)
        for (int g0 = 0; g0 < groups; g0 += together)
            TYPED(t, run_moments, &k, i / rows, i % rows * columns, (i % rows + 1) * columns, g0,
                  KW_MIN(groups, g0 + together), m + i * groups + g0);
    for (int64_t i = 0; i < n * rows * groups; i++) {
        double *to = out + (i / (rows * groups) * groups + i % groups) * 3;
        moments sum = { to[0], to[1], to[2] };
        join(&sum, m[i]);
        to[0] = sum.n, to[1] = sum.mean, to[2] = sum.m2;
    }
}

void ISA(group_apply)(kw_dtype t, const void *x, const float *gamma, const float *beta, const float *mean,
                      const float *rstd, void *y, int n, int64_t hw, int c, int groups, bool silu)
{
    const task k = { .x = x, .gamma = gamma, .beta = beta, .y = y, .mean = (float *)(uintptr_t)mean,
                     .rstd = (float *)(uintptr_t)rstd, .hw = hw, .c = c, .groups = groups, .width = c / groups,
                     .silu = silu };
    const int64_t count = pieces(hw, SLAB);
    _Pragma("omp parallel for schedule(static) if (n * count > 1)")
    for (int64_t i = 0; i < n * count; i++)
        run_apply(t, &k, i / count, i % count * SLAB, KW_MIN(hw, (i % count + 1) * SLAB), 0, groups);
}
