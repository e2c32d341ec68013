/* schedule.c - sigma schedules: how the noise levels are spread over the steps, as k-diffusion has them. */
#include "sampling.h"

#include <math.h>
#include <string.h>

/* the last i with level[i] <= sigma, within 0 .. n-2 */
static int below(const double *level, int n, double sigma)
{
    int low = 0, high = n - 1;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (level[middle] <= sigma)
            low = middle;
        else
            high = middle;
    }
    return low;
}

double kw_sigma_to_t(const double *level, int n_levels, double sigma)
{
    int i = below(level, n_levels, sigma);
    double low = log(level[i]), high = log(level[i + 1]);
    double w = fmin(fmax((low - log(sigma)) / (low - high), 0), 1);
    return i + w;
}

double kw_t_to_sigma(const double *level, int n_levels, double t)
{
    int low = (int)fmin(fmax(floor(t), 0), n_levels - 1), high = KW_MIN(low + 1, n_levels - 1);
    double w = t - low;
    return exp((1 - w) * log(level[low]) + w * log(level[high]));
}

/* from one timestep towards the other, `spaces` equal parts */
static double between(const kw_sigma_range *r, int i, int spaces)
{
    double first = kw_sigma_to_t(r->level, r->n_levels, r->most), last = kw_sigma_to_t(r->level, r->n_levels, r->least);
    return kw_t_to_sigma(r->level, r->n_levels, spaces ? first + i * (last - first) / spaces : first);
}

/* A1111's Uniform: k-diffusion's get_sigmas, evenly spaced timesteps from the model's last to its first */
static int fill_uniform(const kw_sigma_range *r, int n, double *sigma)
{
    for (int i = 0; i < n; i++)
        sigma[i] = kw_t_to_sigma(r->level, r->n_levels,
                                 n > 1 ? (r->n_levels - 1) * (1 - i / (double)(n - 1)) : r->n_levels - 1);
    return n;
}

static int fill_normal(const kw_sigma_range *r, int n, double *sigma)
{
    for (int i = 0; i < n; i++)
        sigma[i] = between(r, i, n - 1);
    return n;
}

/* n + 1 evenly spaced timesteps, the last left out: Stability's generative-models, "trailing" */
static int fill_sgm_uniform(const kw_sigma_range *r, int n, double *sigma)
{
    for (int i = 0; i < n; i++)
        sigma[i] = between(r, i, n);
    return n;
}

/* evenly spaced in sigma^(1/7): Karras 2022, "Elucidating the design space of diffusion-based models", equation 5 */
static int fill_karras(const kw_sigma_range *r, int n, double *sigma)
{
    double high = pow(r->most, 1 / 7.0), low = pow(r->least, 1 / 7.0);
    for (int i = 0; i < n; i++)
        sigma[i] = pow(high + (n > 1 ? i / (double)(n - 1) : 0) * (low - high), 7);
    return n;
}

static int fill_exponential(const kw_sigma_range *r, int n, double *sigma)
{
    double high = log(r->most), low = log(r->least);
    for (int i = 0; i < n; i++)
        sigma[i] = exp(high + (n > 1 ? i / (double)(n - 1) : 0) * (low - high));
    return n;
}

/* every (N/n)-th of the model's levels, from its last */
static int fill_simple(const kw_sigma_range *r, int n, double *sigma)
{
    for (int i = 0; i < n; i++)
        sigma[i] = r->level[r->n_levels - 1 - (int)(i * (r->n_levels / (double)n))];
    return n;
}

/* levels 1, 1 + N/n, ...: those of DDIM */
static int fill_ddim(const kw_sigma_range *r, int n, double *sigma)
{
    int stride = KW_MAX(r->n_levels / n, 1), count = (r->n_levels - 2) / stride + 1;
    for (int i = 0; i < count; i++)
        sigma[i] = r->level[1 + (count - 1 - i) * stride];
    return count;
}

/* arctan sigma evenly spaced: Sabour 2024, "Align your steps", theorem 3.1. The last is left for 0 to follow it. */
static int fill_kl_optimal(const kw_sigma_range *r, int n, double *sigma)
{
    double high = atan(r->most), low = atan(r->least);
    for (int i = 0; i < n; i++)
        sigma[i] = tan(i / (double)n * low + (1 - i / (double)n) * high);
    return n;
}

/* ---- beta ---------------------------------------------------------------------------------------------------- */

static const double BETA = 0.6;           /* both parameters of the distribution */

/*
 * The share of the beta(p, p) distribution below x <= 1/2, by its series (DLMF 8.17.8):
 *     x^p (1-x)^p / (p B(p,p)) sum_k  (2p)_k / (p+1)_k x^k,   B(p,p) = gamma(p)^2/gamma(2p)
 */
static double share_below(double x)
{
    double p = BETA, term = 1, sum = 1;
    for (int k = 0; k < 200 && term > 1e-17 * sum; k++)
        sum += term *= (2 * p + k) / (p + 1 + k) * x;
    return pow(x * (1 - x), p) / p * tgamma(2 * p) / (tgamma(p) * tgamma(p)) * sum;
}

static double beta_quantile(double share)
{
    double low = 0, high = 0.5;
    if (share > 0.5)                                        /* symmetric */
        return 1 - beta_quantile(1 - share);
    for (int i = 0; i < 1100 && low < high; i++) {
        double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high)
            break;
        if (share_below(middle) < share)
            low = middle;
        else
            high = middle;
    }
    return share > 0 ? high : 0;
}

/* sigma itself beta(0.6, 0.6) distributed (Lee 2024, "Beta sampling is all you need"), as A1111 and diffusers do */
static int fill_beta(const kw_sigma_range *r, int n, double *sigma)
{
    for (int i = 0; i < n; i++)
        sigma[i] = r->least + beta_quantile(1 - (n > 1 ? i / (double)(n - 1) : 0)) * (r->most - r->least);
    return n;
}

/* ComfyUI's: timesteps beta(0.6, 0.6) distributed, whole ones, none twice: with very many steps there are fewer */
static int fill_beta_comfyui(const kw_sigma_range *r, int n, double *sigma)
{
    int count = 0, last = -1;
    for (int i = 0; i < n; i++) {
        int t = (int)nearbyint(beta_quantile(1 - i / (double)n) * (r->n_levels - 1));
        if (t != last)
            sigma[count++] = r->level[t];
        last = t;
    }
    return count;
}

/* ---- Align Your Steps ---------------------------------------------------------------------------------------- */

enum { ALIGNED = 11 };                    /* levels of ten steps: Sabour 2024, "Align your steps", and its page */
typedef struct { double sd1[ALIGNED], xl[ALIGNED]; } aligned;

static const aligned A1111_ALIGNED = {    /* as printed; ComfyUI's are the model's levels at the printed timesteps */
    { 14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029 },
    { 14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029 },
};
static const aligned COMFYUI_ALIGNED = {
    { 14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092, 0.9642583904, 0.6523686016,
      0.3977456272, 0.1515232662, 0.0291671582 },
    { 14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141, 0.5550693289, 0.3798540708,
      0.2332364134, 0.1114188177, 0.0291671582 },
};

/* level[] spread over `spaces` equal parts, log sigma linear between; the first n */
static int fill_aligned(const double *level, int n, int spaces, double *sigma)
{
    for (int i = 0; i < n; i++) {
        double at = spaces ? (ALIGNED - 1) * (double)i / spaces : 0, low = fmin(floor(at), ALIGNED - 2), w = at - low;
        sigma[i] = exp((1 - w) * log(level[(int)low]) + w * log(level[(int)low + 1]));
    }
    return n;
}

/* A1111 ends on the last level, 0 follows it. (With one step it begins there, too: here at the first.) */
static int fill_align_your_steps(const kw_sigma_range *r, int n, double *sigma)
{
    return fill_aligned(r->sdxl ? A1111_ALIGNED.xl : A1111_ALIGNED.sd1, n, n - 1, sigma);
}

/* 0 instead of the last, as published and as ComfyUI's AlignYourStepsScheduler: ten steps have ten of the table's */
static int fill_align_comfyui(const kw_sigma_range *r, int n, double *sigma)
{
    return fill_aligned(r->sdxl ? COMFYUI_ALIGNED.xl : COMFYUI_ALIGNED.sd1, n, n, sigma);
}

/* ---- the table ----------------------------------------------------------------------------------------------- */

const kw_sigma_schedule kw_sigma_schedules[] = {
    { "normal", "Normal", "", N_("evenly spaced timesteps, both ends included"), fill_normal, false },
    { "karras", "Karras", "", N_("more steps at low noise: finer detail at few steps (Karras 2022, rho 7)"),
      fill_karras, true },
    { "exponential", "Exponential", "polyexponential", N_("evenly spaced in the logarithm of noise"), fill_exponential,
      true },
    { "sgm_uniform", "SGM Uniform", "sgmuniform", N_("evenly spaced timesteps, the lowest left out"), fill_sgm_uniform,
      false },
    { "kl_optimal", "KL Optimal", "", N_("evenly spaced in the arc tangent of noise"), fill_kl_optimal, false },
    { "simple", "Simple", "", N_("every k-th noise level of the model"), fill_simple, false },
    { "uniform", "Uniform", "", N_("as normal, but always from one end of the model to the other"), fill_uniform,
      false },
    { "ddim", "DDIM", "ddim_uniform", N_("the noise levels of DDIM's timesteps"), fill_ddim, false },
    { "beta", "Beta", "", N_("more steps at both ends (Lee 2024)"), fill_beta, true },
    { "beta_comfyui", "Beta ComfyUI", "", N_("as ComfyUI's beta: of timesteps, not of noise levels"), fill_beta_comfyui,
      false },
    { "align_your_steps", "Align Your Steps", "ays",
      N_("levels found for 10 steps of SD 1.5 or SDXL (Sabour 2024), as A1111 spreads them"), fill_align_your_steps,
      false },
    { "align_your_steps_comfyui", "Align Your Steps ComfyUI", "ays_comfyui",
      N_("the same as ComfyUI's node: ten steps are the published ones"), fill_align_comfyui, false },
};
const size_t kw_n_sigma_schedules = KW_LEN(kw_sigma_schedules);

const kw_sigma_schedule *kw_sigma_schedule_find(const char *name)
{
    for (size_t i = 0; i < KW_LEN(kw_sigma_schedules); i++) {
        const kw_sigma_schedule *s = &kw_sigma_schedules[i];
        if (kw_name_is(name, strlen(name), s->name) || kw_name_is(name, strlen(name), s->label)
            || kw_name_in(name, strlen(name), s->aliases))
            return s;
    }
    return NULL;
}

bool kw_sigma_schedule_plain(const kw_sigma_schedule *s) { return s->fill == fill_normal || s->fill == fill_uniform; }
