/*
 * dpmpp_2s_ancestral.c - DPM-Solver++(2S) with ancestral noise (Lu 2022b, algorithm 1 with r = 1/2; k-diffusion's
 * sample_dpmpp_2s_ancestral). For x scaled by a = 1, m = sqrt(sigma down):
 *
 *     x_m = (m/sigma) x + (1 - m/sigma) x0,     x' = (down/sigma) x + (1 - down/sigma) x0_m + up noise
 */
#include "sampling.h"

#include <math.h>

static bool second(const kw_sampler_at *at, kw_mix *m)
{
    double down = kw_ancestral_of(at->steps->from.s, at->steps->to.s, at->eta).down;
    *m = (kw_mix){ 1, sqrt(at->steps->from.s * down) };
    return down > 0;
}

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    double from = at->steps->from.s;
    kw_ancestral n = kw_ancestral_of(from, at->steps->to.s, at->eta);
    double middle = sqrt(from * n.down) / from, end = n.down / from;
    if (at->stage)
        *c = (kw_lincomb){ .base = end, .x0 = 1 - end, .noise = n.up };
    else
        *c = (kw_lincomb){ .x = middle, .x0 = 1 - middle, .noise = n.down > 0 ? 0 : n.up };
}

extern const kw_sampler kw_sampler_dpmpp_2s_ancestral;
const kw_sampler kw_sampler_dpmpp_2s_ancestral = {
    .name = "dpmpp_2s_ancestral", .label = "DPM++ 2S a",
    .aliases = "k_dpmpp_2s_a,k_dpmpp_2s_ancestral,dpmpp_2s_a,dpm++2sa",
    .help = N_("second order by two evaluations a step, with fresh noise"),
    .paper = "arXiv:2211.01095",
    .schedule = "karras", .lists = KW_LISTS_EULER, .spacing = KW_SPACING_A1111, .eta = 1, .uses_eta = true,
    .uses_noise = true,
    .second = second, .combine = combine,
};
