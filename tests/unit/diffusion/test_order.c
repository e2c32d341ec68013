/*
 * test_order.c - samplers on a problem with a known answer. For data N(mu, c^2) the best denoiser is linear,
 *     x0(x, sigma) = (c^2 x + sigma^2 mu)/(c^2 + sigma^2),
 * the ODE keeps (x - mu)/sqrt(c^2 + sigma^2), the SDE keeps the variance c^2 + sigma^2; x scaled by a = 1.
 * The error at the last sigma above 0 must fall with the step count as the sampler's order says.
 */
#include "diffusion/diffusion.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static const double MU = 0.3, C = 0.6;
enum { MOST = 260 };

static double spread(double sigma) { return sqrt(C * C + sigma * sigma); }

static void denoiser(kw_predict p, kw_mix m, const float *in, float *out, size_t n)
{
    double r = hypot(m.a, m.s), a = m.a / r, s = m.s / r, sigma = s / a;
    for (size_t i = 0; i < n; i++) {
        double x = (double)in[i] / a, x0 = (C * C * x + sigma * sigma * MU) / (C * C + sigma * sigma);
        double eps = (x - x0) / sigma;
        out[i] = (float)(p == KW_PREDICT_EPS ? eps : p == KW_PREDICT_V ? a * eps - s * x0 : x0);
    }
}

/* unit noise for one element per step: element k+2 gets step k's */
static kw_status impulse(void *ctx, const kw_noise_draw *d, float *noise, size_t n, kw_err *e)
{
    (void)ctx, (void)e;
    memset(noise, 0, n * sizeof *noise);
    noise[d->draw + 2] = 1;
    return KW_OK;
}

/*
 * x[0] starts at mu, x[1] one standard deviation above it; the rest like x[0]. Runs n steps, to the smallest sigma, and
 * gives what is left as x at scale a = 1; returns that sigma.
 */
static double run(const char *sampler, kw_predict p, double eta, int n, double *x)
{
    kw_arena *a = kw_arena_new();
    kw_noise_spec c = kw_noise_spec_default();
    c.predict = p;
    kw_noise *z;
    kw_sampling *s;
    kw_sampling_options o = { .sampler = kw_sampler_find(sampler, NULL), .schedule = kw_sigma_schedule_find("karras"),
                              .spacing = KW_SPACING_A1111, .steps = n + 1, .eta = eta };
    float now[MOST], in[MOST], out[MOST];
    size_t count = (size_t)n + 2;
    assert_int_equal(kw_noise_build(a, &c, &z, NULL), KW_OK);
    assert_int_equal(kw_sampling_start(a, z, &o, count, &s, NULL), KW_OK);
    kw_mix m = kw_sampling_at(s, 0).from;
    for (size_t i = 0; i < count; i++)
        now[i] = (float)(m.a * (MU + (i == 1 ? spread(m.s / m.a) : 0)));
    while (kw_sampling_step(s) < n) {
        kw_sampling_input(s, now, in);
        denoiser(p, kw_sampling_mix(s), in, out, count);
        assert_int_equal(kw_sampling_next(s, now, out, impulse, NULL, NULL), KW_OK);
    }
    m = kw_sampling_at(s, n).from;
    for (size_t i = 0; i < count; i++)
        x[i] = (double)now[i] / m.a;
    kw_arena_free(a);
    return m.s / m.a;
}

static double ode_error(const char *sampler, kw_predict p, int n)
{
    double x[MOST], sigma = run(sampler, p, 0, n, x);
    assert_float_equal(x[0], MU, 1e-5);                             /* the mean stays where it is */
    return fabs((x[1] - MU) / spread(sigma) - 1);
}

static void deterministic_samplers_have_their_order(void **state)
{
    (void)state;
    static const struct { const char *name; double order; } rows[] = { { "euler", 1 }, { "ddim", 1 },
                                                                       { "dpmpp_2m", 2 }, { "heun", 2 },
                                                                       { "dpm_2", 2 }, { "dpmpp_2s_ancestral", 2 },
                                                                       { "dpmpp_2m_sde", 2 }, { "uni_pc", 9 },
                                                                       { "plms", 2 }, { "lms", 9 } };
    for (size_t i = 0; i < KW_LEN(rows); i++)
        for (kw_predict p = KW_PREDICT_EPS; p <= KW_PREDICT_X0; p++) {
            double coarse = ode_error(rows[i].name, p, 24), fine = ode_error(rows[i].name, p, 96);
            double order = log2(coarse / fine) / 2;
            print_message("%-9s %d: error %.2e %.2e, order %.2f\n", rows[i].name, p, coarse, fine, order);
            assert_true(rows[i].order == 9 ? order > 2.7 : fabs(order - rows[i].order) < 0.25);   /* 9: above second */
        }
}

/* all noise is linear: the variance is the sum of squares of the responses to one impulse each */
static double sde_error(const char *sampler, double eta, int n)
{
    double x[MOST], variance = 0, sigma = run(sampler, KW_PREDICT_V, eta, n, x);
    for (int i = 1; i < n + 2; i++)
        variance += (x[i] - x[0]) * (x[i] - x[0]);
    return fabs(sqrt(variance) / spread(sigma) - 1);
}

static void stochastic_samplers_keep_the_variance(void **state)
{
    (void)state;
    static const struct { const char *name; double eta, order; } rows[] = {
        { "euler_ancestral", 1, 1 }, { "euler_ancestral", 0.5, 1 }, { "ddim", 1, 1 }, { "ddim", 0.5, 1 },
        { "dpm_2_ancestral", 1, 2 }, { "dpmpp_2s_ancestral", 1, 2 }, { "dpmpp_2m_sde", 1, 2 },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        double coarse = sde_error(rows[i].name, rows[i].eta, 60), fine = sde_error(rows[i].name, rows[i].eta, 240);
        double order = log2(coarse / fine) / 2;
        print_message("%s eta %.1f: error %.2e %.2e, order %.2f\n", rows[i].name, rows[i].eta, coarse, fine, order);
        assert_true(fabs(order - rows[i].order) < 0.25 && fine < 0.03);
    }
}

static void ddim_is_euler_in_another_scale(void **state)
{
    (void)state;
    double x[MOST], y[MOST];
    run("euler", KW_PREDICT_V, 0, 20, x);
    run("ddim", KW_PREDICT_V, 0, 20, y);
    for (int i = 0; i < 22; i++)
        assert_float_equal(x[i], y[i], 2e-6);
    run("euler_ancestral", KW_PREDICT_V, 1, 20, x);                 /* and Euler a at eta 1 is DDIM at eta 1 */
    run("ddim", KW_PREDICT_V, 1, 20, y);
    for (int i = 0; i < 22; i++)
        assert_float_equal(x[i], y[i], 1e-5);
    run("euler_ancestral", KW_PREDICT_V, 0, 20, x);
    run("euler", KW_PREDICT_V, 0, 20, y);
    for (int i = 0; i < 22; i++)
        assert_float_equal(x[i], y[i], 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deterministic_samplers_have_their_order),
        cmocka_unit_test(stochastic_samplers_keep_the_variance),
        cmocka_unit_test(ddim_is_euler_in_another_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
