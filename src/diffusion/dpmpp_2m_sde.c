/*
 * dpmpp_2m_sde.c - DPM-Solver++(2M) for the diffusion SDE (k-diffusion's sample_dpmpp_2m_sde; with eta = 1 diffusers'
 * DPMSolverMultistep "sde-dpmsolver++" of order 2). h = ln(sigma/sigma'), r = (last h)/h, k = h (1 + eta), a = 1:
 *
 *     x' = (sigma'/sigma) e^(-eta h) x + (1 - e^-k) x0 + c (x0 - old)/r + sigma' sqrt(1 - e^(-2 eta h)) noise
 *     midpoint: c = (1 - e^-k)/2,   heun: c = 1 - (1 - e^-k)/k
 *
 * The step that lands on sigma = 0 is x' = x0.
 */
#include "diffusion.h"

#include <math.h>

static void fill(const kw_sampler_at *at, bool heun, kw_lincomb *c)
{
    double from = at->steps->from.s, to = at->steps->to.s;
    if (to <= 0) {
        *c = (kw_lincomb){ .x0 = 1 };
        return;
    }
    double h = log(from / to), k = h * (1 + at->eta), rest = -expm1(-k), curve = 0;
    if (at->before)
        curve = (heun ? 1 - rest / k : rest / 2) * h / log(at->steps[-1].from.s / from);
    *c = (kw_lincomb){ .x = exp(-k), .x0 = rest + curve, .past[0] = -curve,
                       .noise = to * sqrt(-expm1(-2 * at->eta * h)) };
}

static void midpoint(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base) { (void)base, fill(at, false, c); }
static void heun(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base) { (void)base, fill(at, true, c); }

extern const kw_sampler kw_sampler_dpmpp_2m_sde, kw_sampler_dpmpp_2m_sde_heun;
const kw_sampler kw_sampler_dpmpp_2m_sde = {
    .name = "dpmpp_2m_sde", .label = "DPM++ 2M SDE", .aliases = "k_dpmpp_2m_sde,dpm++2msde,dpmpp_2m_sde_gpu",
    .help = N_("second order with fresh noise, uses the step before"),
    .paper = "arXiv:2211.01095",
    .schedule = "exponential", .lists = KW_LISTS_DPM, .spacing = KW_SPACING_A1111, .eta = 1, .uses_eta = true,
    .uses_noise = true, .brownian = true, .past = 1,
    .combine = midpoint,
};
const kw_sampler kw_sampler_dpmpp_2m_sde_heun = {
    .name = "dpmpp_2m_sde_heun", .label = "DPM++ 2M SDE Heun", .aliases = "k_dpmpp_2m_sde_heun,dpmpp_2m_sde_heun_gpu",
    .help = N_("DPM++ 2M SDE with Heun's weights"),
    .paper = "arXiv:2211.01095",
    .schedule = "exponential", .lists = KW_LISTS_DPM, .spacing = KW_SPACING_A1111, .eta = 1, .uses_eta = true,
    .uses_noise = true, .brownian = true, .past = 1,
    .combine = heun,
};
