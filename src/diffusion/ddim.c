/*
 * ddim.c - DDIM (Song 2021, equations 12 and 16). With abar = a^2, and ' for where the step lands:
 *
 *     std^2 = eta^2 (1 - abar')/(1 - abar) (1 - abar/abar')
 *     x'    = a' x0 + sqrt(1 - abar' - std^2) eps + std noise
 *
 * Works at a = 0 (zero terminal SNR), where v prediction gives x0 and eps all the same.
 */
#include "diffusion.h"

#include <math.h>

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    kw_mix m = at->steps->from, to = at->steps->to;
    double ratio = m.a / to.a, std = at->eta * to.s / m.s * sqrt(fmax(1 - ratio * ratio, 0));
    *c = (kw_lincomb){ .x0 = to.a, .eps = sqrt(fmax(to.s * to.s - std * std, 0)), .noise = std };
}

extern const kw_sampler kw_sampler_ddim;
const kw_sampler kw_sampler_ddim = {
    .name = "ddim", .label = "DDIM", .aliases = "k_ddim",
    .help = N_("whole timesteps of the model, also from pure noise; eta 1 makes it DDPM"),
    .paper = "arXiv:2010.02502",
    .schedule = "normal", .lists = KW_LISTS_DDIM, .spacing = KW_SPACING_DIFFUSERS, .unit_variance = true,
    .eta = 0, .uses_eta = true,
    .combine = combine,
};
