/*
 * dpm_2.c - DPM2 and DPM2 a: the slope at the step's start leads to the geometric mean of both noise levels, the slope
 * there over the whole step (k-diffusion's sample_dpm_2, after DPM-Solver-2 of Lu 2022; diffusers' KDPM2). For x scaled
 * by a = 1, m = sqrt(sigma sigma'):
 *
 *     x_m = (m/sigma) x + (1 - m/sigma) x0,     x' = x + (sigma' - sigma)(x_m - x0_m)/m
 *
 * DPM2 a goes to `down` instead of sigma' and adds noise (ancestral.c).
 */
#include "sampling.h"

#include <math.h>

static void step(double from, double down, int stage, kw_lincomb *c)
{
    double m = sqrt(from * down), ratio = (down > 0 ? m : down) / from, slope = (down - from) / m;
    if (stage)
        *c = (kw_lincomb){ .base = 1, .x = slope, .x0 = -slope };
    else
        *c = (kw_lincomb){ .x = ratio, .x0 = 1 - ratio };
}

static bool second(const kw_sampler_at *at, kw_mix *m)
{
    double down = kw_ancestral_of(at->steps->from.s, at->steps->to.s, at->eta).down;
    *m = (kw_mix){ 1, sqrt(at->steps->from.s * down) };
    return down > 0;
}

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    kw_ancestral n = kw_ancestral_of(at->steps->from.s, at->steps->to.s, at->eta);
    step(at->steps->from.s, n.down, at->stage, c);
    if (at->stage)
        c->noise = n.up;
}

extern const kw_sampler kw_sampler_dpm_2, kw_sampler_dpm_2_ancestral;
const kw_sampler kw_sampler_dpm_2 = {
    .name = "dpm_2", .label = "DPM2", .aliases = "k_dpm_2",
    .help = N_("second order by two evaluations a step, the second midway"),
    .paper = "arXiv:2206.00927",
    .schedule = "karras", .lists = KW_LISTS_KDPM, .spacing = KW_SPACING_A1111, .churns = true,
    .skips_last_but_one = true,
    .second = second, .combine = combine,
};
const kw_sampler kw_sampler_dpm_2_ancestral = {
    .name = "dpm_2_ancestral", .label = "DPM2 a", .aliases = "k_dpm_2_a,k_dpm_2_ancestral,dpm_2_a",
    .help = N_("DPM2 with fresh noise at every step"),
    .paper = "arXiv:2206.00927",
    .schedule = "karras", .lists = KW_LISTS_KDPM, .spacing = KW_SPACING_A1111, .eta = 1, .uses_eta = true,
    .uses_noise = true, .skips_last_but_one = true,
    .second = second, .combine = combine,
};
