/*
 * lists_few.c - lists of steps that belong to one sampler each.
 *
 *   LCM, TCD   50 timesteps, N/50 - 1, 2 N/50 - 1, ..., N - 1, are what the models were distilled at
 *              A1111:     a schedule over these levels, t the nearest of them
 *              diffusers: every (50/n)-th of them, from the last; LCM lands on no noise, TCD on timestep 0
 *   UniPC      A1111: times T = 1 .. 1/N in n equal parts, t = N time - 1, ln a linear between timesteps; the last
 *              lands on timestep 0, some noise is left
 */
#include "sampling.h"

#include <math.h>

enum { ORIGINAL = 50 };                   /* the teacher's steps */

/* level[] becomes its own subset */
void kw_list_lcm_levels(const kw_noise *z, step_list *list, double *level)
{
    list->stride = KW_MAX(z->n / ORIGINAL, 1);
    list->n_levels = KW_MIN(z->n / list->stride, ORIGINAL);
    list->offset = z->n - 1 - (list->n_levels - 1) * list->stride;
    for (int i = 0; i < list->n_levels; i++)
        level[i] = level[list->offset + i * list->stride];
}

kw_status kw_list_lcm(const kw_noise *z, const kw_sampling_options *o, step_list *list, kw_err *e)
{
    bool tcd = o->sampler->uses_gamma;
    int stride = z->n / ORIGINAL, n = o->steps;
    if (stride < 1 || n > ORIGINAL)
        return kw_fail(e, KW_EUSAGE, "%s: %d steps are not possible here, 1 to %d are", o->sampler->label, n,
                       stride < 1 ? 0 : ORIGINAL);
    list->n = n;
    for (int i = 0; i < n; i++) {
        int t = (ORIGINAL - (int)floor(i * (ORIGINAL / (double)n))) * stride - 1;
        int to = (ORIGINAL - (int)floor((i + 1) * (ORIGINAL / (double)n))) * stride - 1;
        kw_mix last = tcd ? kw_noise_mix(z, 0) : (kw_mix){ 1, 0 };
        list->step[i] = (kw_sampler_step){ kw_noise_mix(z, t), i + 1 < n ? kw_noise_mix(z, to) : last, t };
    }
    list->scale = 1;
    return KW_OK;
}

/* a = 1 scale; t may be fractional. ln a = ln(abar)/2 goes straight from one timestep to the next. */
static kw_mix between(const double *level, int n, double t)
{
    int low = (int)fmin(fmax(floor(t), 0), n - 2);
    double w = t - low, first = log1p(level[low] * level[low]), second = log1p(level[low + 1] * level[low + 1]);
    return (kw_mix){ 1, sqrt(expm1(first + w * (second - first))) };
}

void kw_list_unipc(const kw_noise *z, const kw_sampling_options *o, double *level, step_list *list)
{
    int n = o->steps, N = z->n;
    list->n = n;
    for (int i = 0; i < n; i++) {
        double t = (N - 1) * (1 - i / (double)n), to = (N - 1) * (1 - (i + 1) / (double)n);
        list->step[i] = (kw_sampler_step){ between(level, N, t), between(level, N, to), t };
    }
    kw_mix m = list->step[0].from;
    list->scale = sqrt(1 + m.s * m.s);    /* unit noise where a^2 + s^2 = 1 */
}
