/*
 * dpmpp_sde.c - DPM-Solver++ for the diffusion SDE, two evaluations a step (k-diffusion's sample_dpmpp_sde, r = 1/2).
 * For x scaled by a = 1, m = sqrt(sigma sigma'), down and up as ancestral.c has them for sigma -> m, sigma -> sigma':
 *
 *     x_m = (down_m/sigma) x + (1 - down_m/sigma) x0   + up_m noise(sigma, m)
 *     x'  = (down/sigma) x   + (1 - down/sigma) x0_m   + up noise(sigma, sigma')
 *
 * Both noises are increments of one Brownian path, so the second contains the first.
 */
#include "sampling.h"

#include <math.h>

static bool second(const kw_sampler_at *at, kw_mix *m)
{
    *m = (kw_mix){ 1, sqrt(at->steps->from.s * at->steps->to.s) };
    return m->s > 0;
}

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    double from = at->steps->from.s, to = at->steps->to.s;
    kw_ancestral n = kw_ancestral_of(from, at->stage ? to : sqrt(from * to), at->eta);
    double ratio = n.down / from;
    if (at->stage)
        *c = (kw_lincomb){ .base = ratio, .x0 = 1 - ratio, .noise = n.up };
    else
        *c = (kw_lincomb){ .x = ratio, .x0 = 1 - ratio, .noise = n.up };
}

extern const kw_sampler kw_sampler_dpmpp_sde;
const kw_sampler kw_sampler_dpmpp_sde = {
    .name = "dpmpp_sde", .label = "DPM++ SDE", .aliases = "k_dpmpp_sde,dpm++sde,dpmpp_sde_gpu",
    .help = N_("second order with fresh noise, two evaluations a step"),
    .paper = "arXiv:2211.01095",
    .schedule = "karras", .lists = KW_LISTS_EULER, .spacing = KW_SPACING_A1111, .eta = 1, .uses_eta = true,
    .uses_noise = true, .brownian = true,
    .second = second, .combine = combine,
};
