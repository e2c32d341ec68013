/*
 * plms.c - PLMS: Adams-Bashforth of order 4 in eps, put into DDIM's step (Liu 2022, "Pseudo numerical methods for
 * diffusion models on manifolds", equations 9 and 12; A1111's plms, diffusers' PNDM with skip_prk_steps). The first
 * step asks twice, at both ends, and takes the mean of both eps:
 *
 *     e  = (e_0 + e_end)/2;  (3 e_0 - e_1)/2;  (23 e_0 - 16 e_1 + 5 e_2)/12;  (55 e_0 - 59 e_1 + 37 e_2 - 9 e_3)/24
 *     x' = (a'/a) x + (s' - s a'/a) e
 *
 * A network that predicts v: diffusers takes these means of v and turns the mean into eps, e = a v + s x.
 */
#include "diffusion.h"

static bool second(const kw_sampler_at *at, kw_mix *m)
{
    *m = at->steps->to;
    return at->before == 0 && m->s > 0 && !(at->diffusers && at->after == 0);
}

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    static const double bashforth[4][4] = { { 1 }, { 3 / 2.0, -1 / 2.0 }, { 23 / 12.0, -16 / 12.0, 5 / 12.0 },
                                            { 55 / 24.0, -59 / 24.0, 37 / 24.0, -9 / 24.0 } };
    const double *w = bashforth[KW_MIN(at->before, 3)];
    kw_mix m = at->steps->from, to = at->steps->to;
    double ratio = to.a / m.a, e = to.s - m.s * ratio;
    bool v = at->diffusers && at->predict == KW_PREDICT_V;
    double k = v ? e * m.a : e, more = v ? e * m.s : 0;
    *c = (kw_lincomb){ .x = ratio + more, .past = { k * w[1], k * w[2], k * w[3] } };
    if (at->stage)
        *c = (kw_lincomb){ .base = ratio + more, .past[0] = k / 2 };
    *(v ? &c->answer : &c->eps) = at->stage ? k / 2 : k * w[0];
}

extern const kw_sampler kw_sampler_plms;
const kw_sampler kw_sampler_plms = {
    .name = "plms", .label = "PLMS", .aliases = "k_plms,pndm",
    .help = N_("DDIM along the slopes of the steps before; from about 25 steps on"),
    .paper = "arXiv:2202.09778",
    .schedule = "normal", .lists = KW_LISTS_PLMS, .spacing = KW_SPACING_A1111, .unit_variance = true,
    .past = 3, .past_of = KW_PAST_ANSWER,
    .second = second, .combine = combine,
};
