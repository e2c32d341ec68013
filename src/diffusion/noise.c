/* noise.c - the noise schedule as torch computes it in float32, and what follows from it at one timestep. */
#include "sampling.h"

#include <math.h>

/* ---- betas ------------------------------------------------------------------------------------------- */

/* torch.linspace in float32: from both ends towards the middle, each product fused with its sum (x86 with AVX2) */
static void linspace(float *out, int n, double start, double end)
{
    float first = (float)start, last = (float)end, step = (last - first) / (float)(n - 1);
    for (int i = 0; i < n; i++)
        out[i] = i < n / 2 ? fmaf(step, (float)i, first) : fmaf(-step, (float)(n - 1 - i), last);
}

/* "Improved DDPM" (Nichol 2021): abar(u) = cos^2((u + 0.008)/1.008 pi/2), beta at most 0.999 */
static double cosine_abar(double u)
{
    double sine, cosine;
    kw_exact_sincos((u + 0.008) / 1.008 * 0x1.921fb54442d18p+1 / 2, &sine, &cosine);
    return cosine * cosine;
}

static void fill_betas(const kw_noise_spec *c, float *beta)
{
    int n = c->n_steps;
    switch (c->beta) {
    case KW_BETA_LINEAR:
        linspace(beta, n, c->beta_start, c->beta_end);
        break;
    case KW_BETA_SCALED_LINEAR:                         /* evenly spaced in sqrt(beta) */
        linspace(beta, n, sqrt(c->beta_start), sqrt(c->beta_end));
        for (int i = 0; i < n; i++)
            beta[i] = beta[i] * beta[i];
        break;
    case KW_BETA_COSINE:
        for (int i = 0; i < n; i++)
            beta[i] = (float)fmin(1 - cosine_abar((i + 1) / (double)n) / cosine_abar(i / (double)n), 0.999);
        break;
    case KW_BETA_TRAINED:
        for (int i = 0; i < n; i++)
            beta[i] = (float)c->trained_betas[i];
        break;
    }
}

/* abar = cumulative product of 1 - beta; torch keeps the running product in double and rounds what it writes */
static void accumulate(const float *beta, float *abar, int n)
{
    double product = 1;
    for (int i = 0; i < n; i++) {
        product *= (double)(1 - beta[i]);
        abar[i] = (float)product;
    }
}

/*
 * Lin 2023, algorithm 1, as diffusers' rescale_zero_terminal_snr in float32: sqrt(abar) is moved so that its last value
 * is 0 and stretched so that its first stays; then back to betas, because the schedule is computed from betas again.
 */
static void rescale_to_zero_snr(float *beta, float *abar, int n)
{
    accumulate(beta, abar, n);
    for (int i = 0; i < n; i++)
        abar[i] = sqrtf(abar[i]);
    float first = abar[0], last = abar[n - 1], stretch = first / (first - last);
    for (int i = 0; i < n; i++)
        abar[i] = (abar[i] - last) * stretch;
    for (int i = 0; i < n; i++)
        abar[i] = abar[i] * abar[i];
    for (int i = n - 1; i > 0; i--)
        beta[i] = 1 - abar[i] / abar[i - 1];
    beta[0] = 1 - abar[0];
}

static kw_status check(const kw_noise_spec *c, kw_err *e)
{
    if (c->n_steps < 2 || c->n_steps > KW_MAX_TRAIN_STEPS)
        return kw_fail(e, KW_EDATA, "noise schedule: %d training steps (2 to %d are possible)", c->n_steps,
                       KW_MAX_TRAIN_STEPS);
    if (!(c->beta_start >= 0 && c->beta_start <= 1 && c->beta_end >= 0 && c->beta_end <= 1))
        return kw_fail(e, KW_EDATA, "noise schedule: betas from %g to %g are not within 0 to 1", c->beta_start,
                       c->beta_end);
    return KW_OK;
}

kw_status kw_noise_build(kw_arena *a, const kw_noise_spec *c, kw_noise **out, kw_err *e)
{
    KW_TRY(check(c, e));
    int n = c->n_steps;
    kw_noise *z = kw_alloc(a, sizeof *z);
    float *beta = kw_alloc_array(a, (size_t)n, sizeof *beta), *abar = kw_alloc_array(a, (size_t)n, sizeof *abar);
    double *wide = kw_alloc_array(a, (size_t)n, sizeof *wide);
    if (!z || !beta || !abar || !wide)
        return kw_fail(e, KW_ENOMEM, "noise schedule: no memory");
    fill_betas(c, beta);
    if (c->zero_snr)
        rescale_to_zero_snr(beta, abar, n);
    accumulate(beta, abar, n);
    for (int i = 0; i < n; i++) {
        wide[i] = (double)abar[i];
        if (!(wide[i] >= 0 && wide[i] <= 1) || (i && wide[i] > wide[i - 1]) || (wide[i] <= 0 && i < n - 1))
            return kw_fail(e, KW_EDATA, "noise schedule: no signal is left at timestep %d of %d", i, n);
    }
    *z = (kw_noise){ .spec = *c, .n = n, .abar = wide, .abar_f32 = abar };
    *out = z;
    return KW_OK;
}

/* ---- one timestep ------------------------------------------------------------------------------------ */

kw_mix kw_noise_mix(const kw_noise *z, int t)
{
    KW_ASSERT(t >= 0 && t < z->n);
    return (kw_mix){ sqrt(z->abar[t]), sqrt(1 - z->abar[t]) };
}

double kw_noise_sigma(const kw_noise *z, int t) { return sqrt((1 - z->abar[t]) / z->abar[t]); }

double kw_noise_snr(const kw_noise *z, int t) { return z->abar[t] / (1 - z->abar[t]); }

double kw_min_snr_weight(kw_predict p, double snr, double gamma)
{
    double least = fmin(snr, gamma);
    switch (p) {
    case KW_PREDICT_EPS: return snr > 0 ? least / snr : 1;
    case KW_PREDICT_V:   return least / (snr + 1);
    case KW_PREDICT_X0:  return least;
    }
    return 1;
}

void kw_add_noise(kw_mix m, const float *x0, const float *eps, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(m.a * (double)x0[i] + m.s * (double)eps[i]);
}

void kw_noise_target(kw_predict p, kw_mix m, const float *x0, const float *eps, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        switch (p) {
        case KW_PREDICT_EPS: out[i] = eps[i]; break;
        case KW_PREDICT_V:   out[i] = (float)(m.a * (double)eps[i] - m.s * (double)x0[i]); break;
        case KW_PREDICT_X0:  out[i] = x0[i]; break;
        }
}

kw_split kw_split_factors(kw_predict p, kw_mix m)
{
    double r2 = m.a * m.a + m.s * m.s, r = sqrt(r2);
    switch (p) {
    case KW_PREDICT_EPS: break;
    case KW_PREDICT_V:   return (kw_split){ { m.a / r2, -m.s / r }, { m.s / r2, m.a / r } };
    case KW_PREDICT_X0:  return (kw_split){ { 0, 1 }, { 1 / m.s, -m.a / m.s } };
    }
    return (kw_split){ { 1 / m.a, -m.s / m.a }, { 0, 1 } };
}

void kw_noise_split(kw_predict p, kw_mix m, const float *xt, const float *model, float *x0, float *eps, size_t n)
{
    kw_split f = kw_split_factors(p, m);
    for (size_t i = 0; i < n; i++) {
        double x = (double)xt[i], y = (double)model[i];
        if (x0)
            x0[i] = (float)(f.x0.x * x + f.x0.y * y);
        if (eps)
            eps[i] = (float)(f.eps.x * x + f.eps.y * y);
    }
}

void kw_guide(const float *cond, const float *uncond, double g, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)((double)uncond[i] + g * ((double)cond[i] - (double)uncond[i]));
}

static double deviation(const float *v, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)v[i];
    for (size_t i = 0; i < n; i++)
        squares += ((double)v[i] - sum / (double)n) * ((double)v[i] - sum / (double)n);
    return sqrt(squares / (double)n);
}

void kw_guide_rescale(const float *cond, double phi, float *guided, size_t n)
{
    double now = deviation(guided, n), factor = 1 - phi + (now > 0 ? phi * deviation(cond, n) / now : phi);
    for (size_t i = 0; i < n; i++)
        guided[i] = (float)(factor * (double)guided[i]);
}
