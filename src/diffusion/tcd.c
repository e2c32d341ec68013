/*
 * tcd.c - trajectory consistency distillation: a step down to timestep s = (1 - gamma) t', then noise up to t' (Zheng
 * 2024, algorithm 4; diffusers' TCDScheduler, which calls gamma eta). gamma 0 is DDIM, gamma 1 multistep consistency.
 *
 *     x' = (a'/a_s)(a_s x0 + s_s eps) + sqrt(1 - (a'/a_s)^2) noise         the last step: a_s x0 + s_s eps
 */
#include "diffusion.h"

#include <math.h>

/* the timestep whose abar is nearest to m's */
static int timestep(const kw_sampler_at *at, kw_mix m)
{
    double abar = m.a * m.a / (m.a * m.a + m.s * m.s);
    int best = 0;
    for (int t = 1; t < at->n_abar; t++)
        if (fabs(at->abar[t] - abar) < fabs(at->abar[best] - abar))
            best = t;
    return best;
}

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    kw_mix to = at->steps->to;
    double abar = at->abar[(int)floor((1 - at->gamma) * timestep(at, to))];
    double a = sqrt(abar), s = sqrt(1 - abar), ratio = to.a / a;
    if (to.s <= 0)                                          /* other lists end at no noise: there is nothing below */
        *c = (kw_lincomb){ .x0 = 1 };
    else if (at->after == 0 || at->gamma <= 0)
        *c = (kw_lincomb){ .x0 = a, .eps = s };
    else
        *c = (kw_lincomb){ .x0 = ratio * a, .eps = ratio * s, .noise = sqrt(fmax(1 - ratio * ratio, 0)) };
}

extern const kw_sampler kw_sampler_tcd;
const kw_sampler kw_sampler_tcd = {
    .name = "tcd", .label = "TCD", .aliases = "k_tcd",
    .help = N_("for TCD LoRAs: 4 steps and more, CFG 1; --gamma sets how much noise is put back"),
    .paper = "arXiv:2402.19159",
    .schedule = "normal", .lists = KW_LISTS_LCM, .spacing = KW_SPACING_DIFFUSERS, .unit_variance = true,
    .uses_gamma = true, .uses_noise = true,
    .combine = combine,
};
