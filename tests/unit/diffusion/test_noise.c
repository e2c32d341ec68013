/* test_noise.c - configurations; noise schedules against torch and diffusers; targets and weights by their formulas. */
#include "diffusion/diffusion.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t fnv(const void *p, size_t n)
{
    uint64_t h = 14695981039346656037ull;
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const unsigned char *)p)[i]) * 1099511628211ull;
    return h;
}

static kw_noise_spec parse(kw_arena *a, const char *text)
{
    kw_noise_spec c;
    kw_err e;
    if (kw_noise_spec_parse(a, "scheduler_config.json", text, strlen(text), &c, &e))
        fail_msg("%s", e.what);
    return c;
}

static void check_schedule(const char *name, const char *json, const char *sum, const char *values)
{
    kw_arena *a = kw_arena_new();
    kw_noise_spec c = parse(a, json);
    kw_noise *z;
    kw_err e;
    assert_int_equal(kw_noise_build(a, &c, &z, &e), KW_OK);
    char *end;
    assert_int_equal(z->n, strtol(sum, &end, 10));
    bool same = fnv(z->abar_f32, sizeof(float) * (size_t)z->n) == strtoull(end, NULL, 16);
    double worst = 0, worst_relative = 0;
    for (int i = 0, count = (z->n + 36) / 37 + 2; i < count; i++) {
        double want = strtod(values, (char **)&values), got = z->abar[i < count - 2 ? 37 * i : z->n + i - count];
        worst = fmax(worst, fabs(got - want));
        worst_relative = fmax(worst_relative, fabs(got - want) / fmax(want, 1e-30));
    }
    if (!c.zero_snr) {
        if (!same)
            fail_msg("%s: not torch's bits, %g away", name, worst);
    } else {                                /* torch's square root is MKL's: measured 3.6e-7, 3.9e-6 */
        assert_true(worst < 6e-7 && worst_relative < 6e-6);
        assert_true(z->abar[z->n - 1] == 0);
    }
    kw_arena_free(a);
}

static void schedules_are_torchs(void **state)
{
    (void)state;
    FILE *f = fopen(KW_TESTS "/golden/diffusion/schedules.txt", "r");
    assert_non_null(f);
    static char lines[4][8192];
    int n = 0, blocks = 0;
    while (fgets(lines[n], sizeof lines[n], f)) {
        if (*lines[n] == '#')
            continue;
        if (++n == 4) {
            check_schedule(lines[0], lines[1], lines[2], lines[3]);
            n = 0;
            blocks++;
        }
    }
    assert_int_equal(blocks, 8);
    fclose(f);
}

/* ---- formulas ---------------------------------------------------------------------------------------- */

static kw_noise *sd(kw_arena *a, kw_predict p, bool zero)
{
    kw_noise_spec c = kw_noise_spec_default();
    c.predict = p;
    c.zero_snr = zero;
    kw_noise *z;
    assert_int_equal(kw_noise_build(a, &c, &z, NULL), KW_OK);
    return z;
}

static void targets_and_splits_undo_each_other(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    enum { N = 64 };
    float x0[N], eps[N], xt[N], target[N], clean[N], noise[N];
    kw_rng_normals((kw_rng){ .seed = 1, .stream = KW_RNG_TEST }, 0, x0, N);
    kw_rng_normals((kw_rng){ .seed = 2, .stream = KW_RNG_TEST }, 0, eps, N);
    for (kw_predict p = KW_PREDICT_EPS; p <= KW_PREDICT_X0; p++) {
        kw_noise *z = sd(a, p, p == KW_PREDICT_V);
        for (int t = 0; t < 1000; t += p == KW_PREDICT_V ? 333 : 300) {
            kw_mix m = kw_noise_mix(z, t);
            assert_true(fabs(m.a * m.a + m.s * m.s - 1) < 1e-15);
            kw_add_noise(m, x0, eps, xt, N);
            kw_noise_target(p, m, x0, eps, target, N);
            kw_noise_split(p, m, xt, target, clean, noise, N);
            kw_noise_split(p, m, xt, target, NULL, NULL, N);
            for (int i = 0; i < N; i++) {
                assert_float_equal(xt[i], m.a * (double)x0[i] + m.s * (double)eps[i], 3e-7);
                if (p == KW_PREDICT_V)
                    assert_float_equal(target[i], m.a * (double)eps[i] - m.s * (double)x0[i], 3e-7);
                assert_float_equal(clean[i], x0[i], 4e-7 / m.a * (p == KW_PREDICT_V ? m.a : 1));
                assert_float_equal(noise[i], eps[i], 4e-7 / m.s * (p == KW_PREDICT_X0 ? 1 : m.s));
            }
        }
    }
    kw_arena_free(a);
}

static void min_snr_weights(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_noise *z = sd(a, KW_PREDICT_EPS, false), *zero = sd(a, KW_PREDICT_V, true);
    for (int t = 0; t < 1000; t += 9) {
        double abar = z->abar[t], snr = kw_noise_snr(z, t);
        assert_true(fabs(snr / (abar / (1 - abar)) - 1) < 1e-14);
        assert_true(fabs(kw_noise_sigma(z, t) * sqrt(snr) - 1) < 1e-14);
        assert_true(kw_min_snr_weight(KW_PREDICT_EPS, snr, 5) == (snr > 5 ? 5 / snr : 1));
        assert_true(kw_min_snr_weight(KW_PREDICT_V, snr, 5) == fmin(snr, 5) / (snr + 1));
        assert_true(kw_min_snr_weight(KW_PREDICT_X0, snr, 5) == fmin(snr, 5));
    }
    assert_true(kw_noise_snr(zero, 999) == 0 && isinf(kw_noise_sigma(zero, 999)));
    assert_true(kw_min_snr_weight(KW_PREDICT_EPS, 0, 5) == 1 && kw_min_snr_weight(KW_PREDICT_V, 0, 5) == 0);
    kw_arena_free(a);
}

static void guidance(void **state)
{
    (void)state;
    float cond[3] = { 1, -2, 0.5f }, uncond[3] = { 0, 1, 0.5f }, out[3];
    kw_guide(cond, uncond, 7.5, out, 3);
    assert_true(out[0] == 7.5f && out[1] == 1 - 7.5f * 3 && out[2] == 0.5f);
    kw_guide(cond, uncond, 1, out, 3);
    assert_memory_equal(out, cond, sizeof out);
    kw_guide(cond, uncond, 0, cond, 3);
    assert_memory_equal(cond, uncond, sizeof out);
}

/* ---- configurations ---------------------------------------------------------------------------------- */

static void configurations_are_read(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_noise_spec c = parse(a, "{\"_class_name\": \"PNDMScheduler\", \"beta_end\": 0.012, \"beta_start\": 0.00085,"
                               "\"beta_schedule\": \"scaled_linear\", \"num_train_timesteps\": 1000,"
                               "\"set_alpha_to_one\": false, \"skip_prk_steps\": true, \"steps_offset\": 1,"
                               "\"trained_betas\": null, \"clip_sample\": false}");
    kw_noise_spec d = kw_noise_spec_default();
    assert_true(c.n_steps == d.n_steps && c.beta_start == d.beta_start && c.beta_end == d.beta_end && c.beta == d.beta);
    assert_true(c.predict == d.predict && c.spacing == d.spacing && c.steps_offset == d.steps_offset);
    assert_true(c.alpha_one == d.alpha_one && c.clip == d.clip && !c.zero_snr && !c.karras && !c.beyond);
    c = parse(a, "{\"_class_name\": \"DDIMScheduler\"}");
    assert_true(c.beta == KW_BETA_LINEAR && c.beta_start == 0.0001 && c.beta_end == 0.02 && c.alpha_one && c.clip == 1);
    c = parse(a, "{\"prediction_type\": \"v_prediction\", \"rescale_betas_zero_snr\": true,"
                 "\"timestep_spacing\": \"trailing\"}");
    assert_true(c.predict == KW_PREDICT_V && c.zero_snr && c.spacing == KW_SPACING_TRAILING && c.clip == 0);
    assert_string_equal(parse(a, "{\"thresholding\": true}").beyond, "thresholding");
    assert_string_equal(parse(a, "{\"final_sigmas_type\": \"sigma_min\"}").beyond, "final_sigmas_type");
    assert_null(parse(a, "{\"final_sigmas_type\": \"zero\", \"sigma_min\": null}").beyond);
    kw_arena_free(a);
}

static void configurations_go_round(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_noise_spec c = kw_noise_spec_default();
    c.predict = KW_PREDICT_V, c.zero_snr = true, c.spacing = KW_SPACING_TRAILING, c.clip = 2.5, c.n_steps = 500;
    char *text = kw_noise_spec_text(a, &c);
    assert_non_null(text);
    kw_noise_spec d = parse(a, text);
    assert_true(d.n_steps == 500 && d.predict == c.predict && d.zero_snr && d.spacing == c.spacing && d.clip == 2.5);
    assert_true(d.beta == c.beta && d.beta_start == c.beta_start && d.beta_end == c.beta_end && d.steps_offset == 1);
    static const double betas[3] = { 0.1, 0.25, 0.5 };
    c.beta = KW_BETA_TRAINED, c.trained_betas = betas, c.n_steps = 3;
    d = parse(a, kw_noise_spec_text(a, &c));
    assert_true(d.beta == KW_BETA_TRAINED && d.n_steps == 3);
    assert_memory_equal(d.trained_betas, betas, sizeof betas);
    kw_arena_free(a);
}

static void configurations_of_a_source(void **state)
{
    (void)state;
    kw_noise_config io = { .beta_start = 0.001, .beta_end = 0.01, .beta_schedule = "linear",
                           .prediction_type = "v_prediction",
                           .timestep_spacing = "trailing", .num_train_timesteps = 500, .steps_offset = 2,
                           .rescale_betas_zero_snr = true, .set_alpha_to_one = true, .clip_sample = true };
    kw_noise_spec c;
    assert_int_equal(kw_noise_spec_of(&io, &c, NULL), KW_OK);
    assert_true(c.n_steps == 500 && c.beta_start == 0.001 && c.beta_end == 0.01 && c.beta == KW_BETA_LINEAR);
    assert_true(c.predict == KW_PREDICT_V && c.zero_snr && c.spacing == KW_SPACING_TRAILING && c.steps_offset == 2);
    assert_true(c.alpha_one && c.clip == 1);
    io.timestep_spacing = NULL;
    assert_int_equal(kw_noise_spec_of(&io, &c, NULL), KW_OK);
    assert_int_equal(c.spacing, KW_SPACING_AUTO);
    io.beta_schedule = "sigmoid";
    assert_int_equal(kw_noise_spec_of(&io, &c, NULL), KW_EDATA);
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    static const struct { const char *json, *says; } rows[] = {
        { "[]", "JSON object" },
        { "{\"beta_schedule\": \"sigmoid\"}", "sigmoid" },
        { "{\"prediction_type\": \"flow_prediction\"}", "flow_prediction" },
        { "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\"}", "FlowMatch" },
        { "{\"num_train_timesteps\": 1}", "num_train_timesteps" },
        { "{\"num_train_timesteps\": 10.5}", "whole" },
        { "{\"num_train_timesteps\": 1e300}", "num_train_timesteps" },
        { "{\"beta_start\": -1}", "beta_start" },
        { "{\"beta_start\": \"0.1\"}", "beta_start" },
        { "{\"set_alpha_to_one\": 1}", "true or false" },
        { "{\"timestep_spacing\": 3}", "timestep_spacing" },
        { "{\"trained_betas\": []}", "trained_betas" },
        { "{\"trained_betas\": [0.1, 2]}", "trained_betas[1]" },
        { "{\"steps_offset\": -1}", "steps_offset" },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_arena *a = kw_arena_new();
        kw_noise_spec c;
        kw_err e = { 0 };
        assert_int_equal(kw_noise_spec_parse(a, "s.json", rows[i].json, strlen(rows[i].json), &c, &e), KW_EDATA);
        if (!strstr(e.what, rows[i].says))
            fail_msg("\"%s\" does not say \"%s\"", e.what, rows[i].says);
        kw_arena_free(a);
    }
}

static void schedules_without_signal_are_refused(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    static const double all[3] = { 0.5, 1, 1 }, none[3] = { 0, 0, 0 };
    kw_noise_spec c = { .n_steps = 3, .beta = KW_BETA_TRAINED, .trained_betas = all };
    kw_noise *z;
    kw_err e;
    assert_int_equal(kw_noise_build(a, &c, &z, &e), KW_EDATA);
    c.trained_betas = none, c.zero_snr = true;
    assert_int_equal(kw_noise_build(a, &c, &z, &e), KW_EDATA);
    c.n_steps = 1;
    assert_int_equal(kw_noise_build(a, &c, &z, &e), KW_EDATA);
    c = kw_noise_spec_default();
    kw_alloc_fail_after(3);
    assert_int_equal(kw_noise_build(a, &c, &z, &e), KW_ENOMEM);
    kw_alloc_fail_after(0);
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules_are_torchs),
        cmocka_unit_test(targets_and_splits_undo_each_other),
        cmocka_unit_test(min_snr_weights),
        cmocka_unit_test(guidance),
        cmocka_unit_test(configurations_are_read),
        cmocka_unit_test(configurations_go_round),
        cmocka_unit_test(configurations_of_a_source),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(schedules_without_signal_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
