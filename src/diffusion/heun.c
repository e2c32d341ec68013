/*
 * heun.c - Heun: an Euler step, then the slope at its end, then the mean of both slopes from the start (Karras 2022,
 * algorithm 1; with s_churn algorithm 2). Two evaluations a step, one where it lands on no noise. For x scaled by
 * a = 1, with x_e the Euler step's end and x0_e what the network says there:
 *
 *     x' = x + (sigma' - sigma)/2 ((x_e - x)/(sigma' - sigma) + (x_e - x0_e)/sigma')
 */
#include "diffusion.h"

static bool second(const kw_sampler_at *at, kw_mix *m)
{
    *m = at->steps->to;
    return m->s > 0;
}

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    double from = at->steps->from.s, to = at->steps->to.s, half = (to - from) / (2 * to);
    if (at->stage)
        *c = (kw_lincomb){ .base = 0.5, .x = 0.5 + half, .x0 = -half };
    else
        *c = (kw_lincomb){ .x = to / from, .x0 = 1 - to / from };
}

extern const kw_sampler kw_sampler_heun;
const kw_sampler kw_sampler_heun = {
    .name = "heun", .label = "Heun", .aliases = "k_heun",
    .help = N_("second order by two evaluations a step: twice the time of Euler"),
    .paper = "arXiv:2206.00364",
    .schedule = "normal", .lists = KW_LISTS_EULER, .spacing = KW_SPACING_A1111, .churns = true,
    .second = second, .combine = combine,
};
