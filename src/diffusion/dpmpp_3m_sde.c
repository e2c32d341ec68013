/*
 * dpmpp_3m_sde.c - DPM-Solver++(3M) for the diffusion SDE (k-diffusion's sample_dpmpp_3m_sde). h = ln(sigma/sigma'),
 * h1, h2 those of the two steps before, r0 = h1/h, r1 = h2/h, k = h (1 + eta), a = 1:
 *
 *     d10 = (x0 - old0)/r0,  d11 = (old0 - old1)/r1,  d1 = d10 + (d10 - d11) r0/(r0 + r1),  d2 = (d10 - d11)/(r0 + r1)
 *     phi2 = 1 - (1 - e^-k)/k,  phi3 = phi2/k - 1/2
 *     x' = e^-k x + (1 - e^-k) x0 + phi2 d1 - phi3 d2 + sigma' sqrt(1 - e^(-2 eta h)) noise
 *
 * With one step before it: d1 = d10, d2 = 0. The step that lands on sigma = 0 is x' = x0.
 */
#include "diffusion.h"

#include <math.h>

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    const kw_sampler_step *s = at->steps;
    if (s->to.s <= 0) {
        *c = (kw_lincomb){ .x0 = 1 };
        return;
    }
    double h = log(s->from.s / s->to.s), k = h * (1 + at->eta), rest = -expm1(-k);
    double phi2 = 1 - rest / k, phi3 = phi2 / k - 0.5;
    *c = (kw_lincomb){ .x = exp(-k), .x0 = rest, .noise = s->to.s * sqrt(-expm1(-2 * at->eta * h)) };
    if (!at->before)
        return;
    double r0 = log(s[-1].from.s / s->from.s) / h, first = phi2, second = 0;    /* weights of d10 and d11 */
    if (at->before > 1) {
        double r1 = log(s[-2].from.s / s[-1].from.s) / h;
        second = -(phi2 * r0 - phi3) / (r0 + r1);
        first -= second;
        c->past[0] += second / r1;
        c->past[1] -= second / r1;
    }
    c->x0 += first / r0;
    c->past[0] -= first / r0;
}

extern const kw_sampler kw_sampler_dpmpp_3m_sde;
const kw_sampler kw_sampler_dpmpp_3m_sde = {
    .name = "dpmpp_3m_sde", .label = "DPM++ 3M SDE", .aliases = "k_dpmpp_3m_sde,dpm++3msde,dpmpp_3m_sde_gpu",
    .help = N_("third order with fresh noise, uses the two steps before; wants many steps"),
    .paper = "arXiv:2211.01095",
    .schedule = "exponential", .lists = KW_LISTS_DPM, .spacing = KW_SPACING_A1111, .eta = 1, .uses_eta = true,
    .uses_noise = true, .brownian = true, .skips_last_but_one = true, .past = 2,
    .combine = combine,
};
