/*
 * euler_ancestral.c - Euler a: an Euler step past the next noise level, then fresh noise up to it (k-diffusion's
 * get_ancestral_step). For x scaled by a = 1 and sigma -> sigma':
 *
 *     up = min(sigma', eta sigma' sqrt(sigma^2 - sigma'^2)/sigma),   down = sqrt(sigma'^2 - up^2)
 *     x' = (down/sigma) x + (1 - down/sigma) x0 + up noise
 */
#include "sampling.h"

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    double from = at->steps->from.s;
    kw_ancestral n = kw_ancestral_of(from, at->steps->to.s, at->eta);
    *c = (kw_lincomb){ .x = n.down / from, .x0 = 1 - n.down / from, .noise = n.up };
}

extern const kw_sampler kw_sampler_euler_ancestral;
const kw_sampler kw_sampler_euler_ancestral = {
    .name = "euler_ancestral", .label = "Euler a", .aliases = "k_euler_a,k_euler_ancestral,euler_a",
    .help = N_("Euler with fresh noise at every step; the picture keeps changing with the step count"),
    .paper = "arXiv:2206.00364",
    .schedule = "normal", .lists = KW_LISTS_EULER, .spacing = KW_SPACING_A1111, .eta = 1, .uses_eta = true,
    .uses_noise = true,
    .combine = combine,
};
