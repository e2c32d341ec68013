/*
 * euler.c - Euler: one straight step along the probability-flow ODE  dx/dsigma = (x - x0)/sigma  (Karras 2022,
 * algorithm 1 without the correction; with s_churn algorithm 2 without it). Written for x scaled by a = 1:
 *
 *     x' = x + (sigma' - sigma)(x - x0)/sigma = (sigma'/sigma) x + (1 - sigma'/sigma) x0
 */
#include "diffusion.h"

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    double ratio = at->steps->to.s / at->steps->from.s;
    *c = (kw_lincomb){ .x = ratio, .x0 = 1 - ratio };
}

extern const kw_sampler kw_sampler_euler;
const kw_sampler kw_sampler_euler = {
    .name = "euler", .label = "Euler", .aliases = "k_euler",
    .help = N_("straight steps towards the picture; settles from about 25 steps on"),
    .paper = "arXiv:2206.00364",
    .schedule = "normal", .lists = KW_LISTS_EULER, .spacing = KW_SPACING_A1111, .churns = true,
    .combine = combine,
};
