/*
 * dpmpp_2m.c - DPM-Solver++(2M): second order from the x0 of the step before (Lu 2022b, algorithm 2; k-diffusion's
 * sample_dpmpp_2m; diffusers' DPMSolverMultistep of order 2, midpoint, in another scale). With lambda = -ln sigma,
 * h = lambda' - lambda, r = (last h)/h, for x scaled by a = 1:
 *
 *     D  = (1 + 1/2r) x0 - 1/2r old          (the first step and the one that lands on sigma = 0: D = x0)
 *     x' = (sigma'/sigma) x + (1 - sigma'/sigma) D
 */
#include "diffusion.h"

#include <math.h>

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    double from = at->steps->from.s, to = at->steps->to.s, ratio = to / from, half = 0;
    if (at->before && to > 0)
        half = log(from / to) / log(at->steps[-1].from.s / from) / 2;           /* 1/2r */
    *c = (kw_lincomb){ .x = ratio, .x0 = (1 - ratio) * (1 + half), .past[0] = -(1 - ratio) * half };
}

extern const kw_sampler kw_sampler_dpmpp_2m;
const kw_sampler kw_sampler_dpmpp_2m = {
    .name = "dpmpp_2m", .label = "DPM++ 2M", .aliases = "k_dpmpp_2m,dpm++2m",
    .help = N_("second order, uses the step before: settles from about 15 steps on"),
    .paper = "arXiv:2211.01095",
    .schedule = "karras", .lists = KW_LISTS_DPM, .spacing = KW_SPACING_A1111, .past = 1,
    .combine = combine,
};
