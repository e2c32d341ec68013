/*
 * lms.c - LMS: Adams-Bashforth of order 4 in sigma, with steps of any length (k-diffusion's sample_lms). For x scaled
 * by a = 1 the slope dx/dsigma is eps; the polynomial through the last slopes is integrated over the step:
 *
 *     x' = x + sum_j eps_j  int_sigma^sigma'  prod_k (tau - sigma_k)/(sigma_j - sigma_k) dtau
 */
#include "diffusion.h"

#include <math.h>

enum { ORDER = KW_PAST + 1 };

/* Lagrange's polynomial of node j at tau; node 0 is the newest */
static double weight(const double *node, int n, int j, double tau)
{
    double product = 1;
    for (int k = 0; k < n; k++)
        if (k != j)
            product *= (tau - node[k]) / (node[j] - node[k]);
    return product;
}

/* Gauss's rule of two points: exact up to cubic polynomials, which these are at most */
static double integral(const double *node, int n, int j, double from, double to)
{
    double middle = (from + to) / 2, half = (to - from) / 2, r = half / sqrt(3);
    return half * (weight(node, n, j, middle - r) + weight(node, n, j, middle + r));
}

static void combine(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base)
{
    (void)base;
    int n = KW_MIN(at->before + 1, ORDER);
    double node[ORDER], from = at->steps->from.s, to = at->steps->to.s;
    for (int j = 0; j < n; j++)
        node[j] = at->steps[-j].from.s;
    *c = (kw_lincomb){ .x = 1, .eps = integral(node, n, 0, from, to) };
    for (int j = 1; j < n; j++)
        c->past[j - 1] = integral(node, n, j, from, to);
}

extern const kw_sampler kw_sampler_lms;
const kw_sampler kw_sampler_lms = {
    .name = "lms", .label = "LMS", .aliases = "k_lms",
    .help = N_("fourth order from the slopes of the steps before; wants many steps"),
    .paper = "arXiv:2206.00364",
    .schedule = "normal", .lists = KW_LISTS_EULER, .spacing = KW_SPACING_A1111,
    .past = ORDER - 1, .past_of = KW_PAST_EPS,
    .combine = combine,
};
