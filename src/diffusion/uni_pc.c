/*
 * uni_pc.c - UniPC (Zhao 2023, algorithms 1 and 2, data prediction): a multistep predictor whose steps are corrected
 * once the network has answered at their end, at no further evaluation. With lambda = ln(a/s), h = lambda' - lambda, m0
 * the x0 at the step's start, m_k those before, r_k = (lambda_k - lambda)/h, B = -h (bh1) or e^-h - 1 (bh2), a = 1:
 *
 *     x'   = (sigma'/sigma) x - (e^-h - 1) m0 - B sum_k rho_k (m_k - m0)/r_k                         predictor
 *     x'_c =                     the same with other rho, and  - B rho_c (m' - m0)                    corrector
 *
 * rho solves sum_k rho_k r_k^(i-1) = i! f_i/B, i = 1 .. order (- 1 for the predictor), f_0 = e^-h - 1,
 * f_i = f_(i-1)/-h - 1/i!; order 1's corrector and order 2's predictor take 1/2. A1111: order 3, bh1. diffusers:
 * order 2, bh2. The last steps' orders fall to 1.
 */
#include "diffusion.h"

#include <math.h>

enum { MOST = 3 };

static double lambda(kw_mix m) { return log(m.a / m.s); }

/* Gauss with pivoting: A x = b, n <= 3, x in b */
static void solve(double A[MOST][MOST], double *b, int n)
{
    for (int i = 0; i < n; i++) {
        int p = i;
        for (int r = i + 1; r < n; r++)
            p = fabs(A[r][i]) > fabs(A[p][i]) ? r : p;
        for (int k = 0; k < n; k++) {
            double swap = A[i][k];
            A[i][k] = A[p][k], A[p][k] = swap;
        }
        double swap = b[i];
        b[i] = b[p], b[p] = swap;
        for (int r = 0; r < n; r++) {
            double f = r == i ? 0 : A[r][i] / A[i][i];
            for (int k = i; k < n; k++)
                A[r][k] -= f * A[i][k];
            b[r] -= f * b[i];
        }
    }
    for (int i = 0; i < n; i++)
        b[i] /= A[i][i];
}

/* one update: weights of x, of m0, m_1, m_2, and of m' at the end (the corrector's) */
typedef struct { double x, m[MOST], end; } update;

/* s[0] is the step; s[-k].from are where m_k was told */
static update update_of(const kw_sampler_step *s, int order, bool bh2, bool correct)
{
    double l0 = lambda(s->from), h = lambda(s->to) - l0, hh = -h, first = expm1(hh), B = bh2 ? first : hh;
    double r[MOST], A[MOST][MOST], rho[MOST], phi = first / hh - 1, factorial = 1;
    update u = { .x = s->to.s / s->from.s * s->from.a / s->to.a, .m = { -first } };
    for (int k = 1; k < order; k++)
        r[k - 1] = (lambda(s[-k].from) - l0) / h;
    r[order - 1] = 1;
    int n = correct ? order : order - 1;
    for (int i = 0; i < order; i++) {
        for (int k = 0; k < order; k++)
            A[i][k] = pow(r[k], i);
        rho[i] = phi * factorial / B;
        factorial *= i + 2;
        phi = phi / hh - 1 / factorial;
    }
    if (correct ? order == 1 : order == 2)
        rho[0] = 0.5;
    else
        solve(A, rho, n);
    for (int k = 1; k < order; k++) {
        u.m[k] -= B * rho[k - 1] / r[k - 1];
        u.m[0] += B * rho[k - 1] / r[k - 1];
    }
    if (correct) {
        u.end -= B * rho[order - 1];
        u.m[0] += B * rho[order - 1];
    }
    return u;
}

/* of the j-th update of this run, j = 1 ...; total updates n */
static int order_of(const kw_sampler_at *at, int j)
{
    int most = at->diffusers ? 2 : 3;
    return KW_MAX(1, KW_MIN(KW_MIN(most, j), at->before + at->after + 2 - j));
}

/* base: x as corrected. What the network saw is the prediction. */
static void fill(const kw_sampler_at *at, bool bh2, kw_lincomb *c, kw_lincomb *base)
{
    const kw_sampler_step *s = at->steps;
    if (at->before) {
        update u = update_of(s - 1, order_of(at, at->before), bh2, true);
        *base = (kw_lincomb){ .base = u.x, .x0 = u.end, .past = { u.m[0], u.m[1], u.m[2] } };
    } else {
        *base = (kw_lincomb){ .x = 1 };
    }
    if (s->to.s <= 0) {
        *c = (kw_lincomb){ .x0 = 1 };
        return;
    }
    update u = update_of(s, order_of(at, at->before + 1), bh2, false);
    *c = (kw_lincomb){ .x = u.x * base->x, .base = u.x * base->base, .x0 = u.x * base->x0 + u.m[0] };
    for (int k = 0; k < KW_PAST; k++)
        c->past[k] = u.x * base->past[k] + (k + 1 < MOST ? u.m[k + 1] : 0);
    if (at->after == 0) {                 /* A1111's list ends above 0 noise: what it hands out has a^2 + s^2 = 1 */
        double a = 1 / sqrt(1 + s->to.s * s->to.s);
        c->x *= a, c->base *= a, c->x0 *= a;
        for (int k = 0; k < KW_PAST; k++)
            c->past[k] *= a;
    }
}

static void bh1(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base) { fill(at, false, c, base); }
static void bh2(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base) { fill(at, true, c, base); }

extern const kw_sampler kw_sampler_uni_pc, kw_sampler_uni_pc_bh2;
const kw_sampler kw_sampler_uni_pc = {
    .name = "uni_pc", .label = "UniPC", .aliases = "unipc,k_unipc,uni_pc_bh1",
    .help = N_("predictor and corrector, bh1 as in A1111: settles from about 10 steps on"),
    .paper = "arXiv:2302.04867",
    .schedule = "normal", .lists = KW_LISTS_UNIPC, .spacing = KW_SPACING_A1111, .past = 3, .keeps_base = true,
    .combine = bh1,
};
const kw_sampler kw_sampler_uni_pc_bh2 = {
    .name = "uni_pc_bh2", .label = "UniPC bh2", .aliases = "unipc_bh2",
    .known_as = "UniPC", .variant_key = "UniPC variant", .variant = "bh2",
    .help = N_("UniPC with bh2, as in diffusers and as ComfyUI's uni_pc_bh2"),
    .paper = "arXiv:2302.04867",
    .schedule = "normal", .lists = KW_LISTS_UNIPC, .spacing = KW_SPACING_A1111, .past = 3, .keeps_base = true,
    .combine = bh2,
};
