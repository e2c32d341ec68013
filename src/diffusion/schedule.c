/* schedule.c - sigma schedules: how the noise levels are spread over the steps, as k-diffusion has them. */
#include "diffusion.h"

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

/* evenly spaced timesteps from the last to the first (A1111 calls it Uniform) */
static void fill_normal(const double *level, int n_levels, int n, double *sigma)
{
    for (int i = 0; i < n; i++)
        sigma[i] = kw_t_to_sigma(level, n_levels, n > 1 ? (n_levels - 1) * (1 - i / (double)(n - 1)) : n_levels - 1);
}

/* evenly spaced in sigma^(1/7): Karras 2022, "Elucidating the design space of diffusion-based models", equation 5 */
static void fill_karras(const double *level, int n_levels, int n, double *sigma)
{
    double high = pow(level[n_levels - 1], 1 / 7.0), low = pow(level[0], 1 / 7.0);
    for (int i = 0; i < n; i++)
        sigma[i] = pow(high + (n > 1 ? i / (double)(n - 1) : 0) * (low - high), 7);
}

const kw_sigma_schedule kw_sigma_schedules[] = {
    { "normal", "Uniform", N_("noise levels at evenly spaced timesteps"), fill_normal },
    { "karras", "Karras", N_("more steps at low noise: finer detail at few steps (Karras 2022, rho 7)"), fill_karras },
};
const size_t kw_n_sigma_schedules = KW_LEN(kw_sigma_schedules);

const kw_sigma_schedule *kw_sigma_schedule_find(const char *name)
{
    for (size_t i = 0; i < KW_LEN(kw_sigma_schedules); i++)
        if (strcasecmp(name, kw_sigma_schedules[i].name) == 0 || strcasecmp(name, kw_sigma_schedules[i].label) == 0)
            return &kw_sigma_schedules[i];
    return NULL;
}
