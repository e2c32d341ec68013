/*
 * lcm.c - latent consistency models: each step answers with the picture, noise leads to the next level (Luo 2023,
 * algorithm 3; diffusers' LCMScheduler, A1111's sample_lcm). With k = 10 t, c_skip = 1/4 / (k^2 + 1/4),
 * c_out = k/sqrt(k^2 + 1/4):
 *
 *     x' = a' (c_out x0 + c_skip x) + s' noise
 *
 * c_skip's x is in diffusers' scale there, a^2 + s^2 = 1, and in k-diffusion's, a = 1, as A1111 has it.
 */
#include "diffusion.h"

#include <math.h>

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    const kw_sampler_step *s = at->steps;
    double k = 10 * s->t, skip = 0.25 / (k * k + 0.25), out = k / sqrt(k * k + 0.25);
    *c = (kw_lincomb){ .x = s->to.a * skip / (at->diffusers ? 1 : s->from.a), .x0 = s->to.a * out, .noise = s->to.s };
}

extern const kw_sampler kw_sampler_lcm;
const kw_sampler kw_sampler_lcm = {
    .name = "lcm", .label = "LCM", .aliases = "k_lcm",
    .help = N_("for LCM models and LCM LoRAs: 2 to 8 steps, CFG 1 to 2"),
    .paper = "arXiv:2310.04378",
    .schedule = "normal", .lists = KW_LISTS_LCM, .spacing = KW_SPACING_A1111, .unit_variance = true, .uses_noise = true,
    .combine = combine,
};
