/* test_sampling.c - samplers against diffusers, k-diffusion, A1111's DDIM on a synthetic network; lists; refusals. */
#include "diffusion/diffusion.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE = 24 };

/* the same functions as in tools/golden/diffusion.py */
static void start_noise(float *x)
{
    for (int i = 0; i < SIZE; i++)
        x[i] = (float)(1.5 * sin(0.9 * i + 0.3) + 0.4 * cos(2.3 * i));
}

static kw_status step_noise(void *ctx, const kw_noise_draw *d, float *noise, size_t n, kw_err *e)
{
    (void)e;
    if (ctx)
        ++*(int *)ctx;
    for (size_t i = 0; i < n; i++)
        noise[i] = (float)(1.3 * sin(1.7 * (double)i + 2.3 * d->draw + 0.1));
    return KW_OK;
}

static void network(const float *x, double t, float *out)
{
    for (int i = 0; i < SIZE; i++)
        out[i] = (float)(0.3 * (double)x[i] + 0.5 * sin(0.7 * i + 0.004 * t) + 0.2 * cos((double)x[i]));
}

static kw_noise *build(kw_arena *a, const char *json)
{
    kw_noise_spec c;
    kw_noise *z = NULL;
    kw_err e;
    if (kw_noise_spec_parse(a, "golden", json, strlen(json), &c, &e) || kw_noise_build(a, &c, &z, &e))
        fail_msg("%s", e.what);
    return z;
}

/* runs to the end; returns the largest difference from the wanted timesteps */
static double run(kw_sampling *s, float *x, const char *timesteps)
{
    float in[SIZE], out[SIZE];
    double worst = 0;
    start_noise(x);
    for (kw_sampling_begin(s, x); !kw_sampling_done(s); ) {
        char *end = (char *)timesteps;
        double want = timesteps ? strtod(timesteps, &end) : 0;
        worst = fmax(worst, timesteps ? fabs(kw_sampling_timestep(s) - want) : 0);
        if (timesteps && end == timesteps)
            fail_msg("more steps than in the golden file");
        timesteps = timesteps ? end : NULL;
        kw_sampling_input(s, x, in);
        network(in, kw_sampling_timestep(s), out);
        assert_int_equal(kw_sampling_next(s, x, out, step_noise, NULL, NULL), KW_OK);
    }
    if (timesteps)
        assert_int_equal(strspn(timesteps, " \n"), strlen(timesteps));
    return worst;
}

static double relative(const float *x, const char *values)
{
    double error = 0, size = 0;
    for (int i = 0; i < SIZE; i++) {
        double want = strtod(values, (char **)&values);
        error += ((double)x[i] - want) * ((double)x[i] - want);
        size += want * want;
    }
    return sqrt(error / size);
}

/* header: SOURCE SAMPLER SCHEDULE STEPS ETA */
static void golden_case(char *header, const char *json, const char *timesteps, const char *values, double worst[3])
{
    char source[16], sampler[32], schedule[16];
    kw_arena *a = kw_arena_new();
    kw_err e;
    kw_sampling_options o = { 0 };
    assert_int_equal(sscanf(header, "%15s %31s %15s %d %lf", source, sampler, schedule, &o.steps, &o.eta), 5);
    o.sampler = kw_sampler_find(sampler, NULL);
    o.schedule = kw_sigma_schedule_find(schedule);
    assert_true(kw_spacing_find(source, &o.spacing));
    kw_sampling *s;
    if (kw_sampling_start(a, build(a, json), &o, SIZE, &s, &e))
        fail_msg("%s%s", header, e.what);
    float x[SIZE];
    bool zero = strstr(json, "zero_snr") != NULL;       /* torch's alphas_cumprod are 4e-6 off there */
    bool cut = strstr(json, "squaredcos") && strstr(json, "karras");    /* 998.99999996 becomes 998 in diffusers */
    double t = run(s, x, timesteps), r = relative(x, values);
    if (!(t < (cut ? 1.1 : 2e-4) && r < (zero ? 2e-6 : 1e-6)))
        fail_msg("%s%stimesteps differ by %g, x by %g", header, json, t, r);
    worst[zero] = fmax(worst[zero], r);
    worst[2] = fmax(worst[2], cut ? 0 : t);
    kw_arena_free(a);
}

/* measured: timesteps 9.2e-4 (float32 logarithms there), x 5.0e-7 */
static void samplers_follow_the_references(void **state)
{
    (void)state;
    FILE *f = fopen(KW_TESTS "/golden/diffusion/samplers.txt", "r");
    assert_non_null(f);
    static char lines[4][8192];
    int n = 0, cases = 0;
    double worst[3] = { 0 };
    while (fgets(lines[n], sizeof lines[n], f)) {
        if (*lines[n] == '#')
            continue;
        if (++n == 4) {
            golden_case(lines[0], lines[1], lines[2], lines[3], worst);
            n = 0;
            cases++;
        }
    }
    fclose(f);
    print_message("%d cases: x within %.2g, zero-SNR %.2g, timesteps %.2g\n", cases, worst[0], worst[1], worst[2]);
    assert_true(cases >= 110);
}

/* every step count from 1 up, hashed */
static void lists_are_those_of_diffusers(void **state)
{
    (void)state;
    FILE *f = fopen(KW_TESTS "/golden/diffusion/lists.txt", "r");
    assert_non_null(f);
    char line[256], sampler[32], spacing[32];
    uint64_t want;
    int n, rows = 0;
    long count;
    while (fgets(line, sizeof line, f)) {
        if (*line == '#')
            continue;
        assert_int_equal(sscanf(line, "%31s %31s %d %lx %ld", sampler, spacing, &n, &want, &count), 5);
        kw_sampling_options o = { .sampler = kw_sampler_find(sampler, NULL), .eta = -1 };
        assert_true(kw_spacing_find(spacing, &o.spacing));
        uint64_t h = 14695981039346656037ull;
        long seen = 0;
        kw_arena *base = kw_arena_new();
        kw_noise_spec c = kw_noise_spec_default();
        kw_noise *z;
        c.n_steps = n;
        assert_int_equal(kw_noise_build(base, &c, &z, NULL), KW_OK);
        for (o.steps = 1; o.steps <= n; o.steps++) {
            kw_arena *a = kw_arena_new();
            kw_sampling *s;
            if (kw_sampling_start(a, z, &o, 1, &s, NULL) == KW_OK)
                for (int i = 0; i < kw_sampling_steps(s); i++, seen++) {
                    uint32_t t = (uint32_t)(int)kw_sampling_at(s, i).t;
                    for (int b = 0; b < 4; b++, t >>= 8)
                        h = (h ^ (t & 255)) * 1099511628211ull;
                }
            kw_arena_free(a);
        }
        kw_arena_free(base);
        if (seen != count || h != want)
            fail_msg("%s %s %d: %ld timesteps, not the same as diffusers'", sampler, spacing, n, seen);
        rows++;
    }
    assert_int_equal(rows, 12);
    fclose(f);
}

/* ---- choices, names, refusals ------------------------------------------------------------------------ */

static void names_of_samplers(void **state)
{
    (void)state;
    const char *schedule = NULL;
    assert_string_equal(kw_sampler_find("Euler a", NULL)->name, "euler_ancestral");
    assert_string_equal(kw_sampler_find("k_euler_a", &schedule)->name, "euler_ancestral");
    assert_string_equal(kw_sampler_find("EULER-ANCESTRAL", &schedule)->label, "Euler a");
    assert_string_equal(kw_sampler_find("euler", &schedule)->label, "Euler");
    assert_string_equal(kw_sampler_find("ddim", &schedule)->label, "DDIM");
    assert_null(schedule);
    assert_string_equal(kw_sampler_find("DPM++ 2M Karras", &schedule)->name, "dpmpp_2m");
    assert_string_equal(schedule, "karras");
    assert_string_equal(kw_sampler_find("k_dpmpp_2m_ka", NULL)->name, "dpmpp_2m");
    assert_null(kw_sampler_find("DPM++ 9M", NULL));
    assert_null(kw_sampler_find("karras", NULL));
    assert_null(kw_sampler_find("", NULL));
    assert_string_equal(kw_sampler_find("DPM++ 2M SDE Exponential", &schedule)->name, "dpmpp_2m_sde");
    assert_string_equal(schedule, "exponential");
    assert_string_equal(kw_sampler_find("DPM++ 2M SDE Heun Karras", &schedule)->name, "dpmpp_2m_sde_heun");
    assert_string_equal(kw_sampler_find("DPM2 a SGM Uniform", &schedule)->name, "dpm_2_ancestral");
    assert_string_equal(schedule, "sgm_uniform");
    assert_string_equal(kw_sampler_find("k_dpm_2_a_ka", &schedule)->label, "DPM2 a");
    assert_string_equal(kw_sampler_find("UniPC", NULL)->name, "uni_pc");
    assert_string_equal(kw_sigma_schedule_find("SGMUniform")->label, "SGM Uniform");
    assert_string_equal(kw_sigma_schedule_find("ddim_uniform")->name, "ddim");
    assert_null(kw_sigma_schedule_find("align"));
    assert_null(kw_sigma_schedule_find(""));
    kw_spacing s;
    assert_false(kw_spacing_find("", &s));
    for (size_t i = 0; i < kw_n_samplers; i++) {
        assert_ptr_equal(kw_sampler_find(kw_samplers[i]->name, NULL), kw_samplers[i]);
        assert_ptr_equal(kw_sampler_find(kw_samplers[i]->label, NULL), kw_samplers[i]);
        assert_true(strlen(kw_samplers[i]->help) < 90);
        assert_true(kw_sigma_schedule_find(kw_samplers[i]->schedule));
    }
}

static kw_sampling *start(kw_arena *a, const kw_noise *z, const char *sampler, int steps, kw_spacing spacing)
{
    kw_sampling_options o = { .sampler = kw_sampler_find(sampler, NULL), .steps = steps, .spacing = spacing,
                              .eta = -1 };
    kw_sampling *s;
    kw_err e;
    if (kw_sampling_start(a, z, &o, SIZE, &s, &e))
        fail_msg("%s", e.what);
    return s;
}

static void automatic_choices(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_noise *z = build(a, "{\"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\","
                           "\"steps_offset\": 1}");
    kw_sampling *s = start(a, z, "ddim", 25, KW_SPACING_AUTO);
    assert_true(kw_sampling_timestep(s) == 961);                    /* diffusers' leading */
    assert_true(kw_sampling_at(s, 24).to.a == 1 && kw_sampling_at(s, 24).to.s == 0);
    s = start(a, z, "dpmpp_2m", 20, KW_SPACING_AUTO);               /* A1111: Karras by default for this one */
    assert_true(fabs(kw_sampling_at(s, 0).from.s - 14.6146) < 1e-4);
    assert_true(kw_sampling_at(s, 0).from.a == 1);
    double karras = pow((pow(14.61464, 1 / 7.0) * 9 + pow(0.029167, 1 / 7.0) * 10) / 19, 7);
    assert_true(fabs(kw_sampling_at(s, 10).from.s / karras - 1) < 1e-4);
    s = start(a, z, "euler", 20, KW_SPACING_AUTO);                  /* Uniform: evenly spaced timesteps */
    assert_true(kw_sampling_timestep(s) == 999 && fabs(kw_sampling_at(s, 10).t - 999 * 9 / 19.0) < 1e-9);
    assert_true(kw_sampling_at(s, 19).to.s == 0);
    assert_false(kw_sampling_injects(s, 3));
    s = start(a, z, "euler a", 20, KW_SPACING_AUTO);
    assert_true(kw_sampling_injects(s, 18) && !kw_sampling_injects(s, 19));
    kw_arena_free(a);
}

static void impossible_wishes_are_refused(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_noise *z = build(a, "{\"thresholding\": true, \"steps_offset\": 1}");
    kw_noise *eps = build(a, "{\"rescale_betas_zero_snr\": true, \"timestep_spacing\": \"trailing\"}");
    const kw_sampler *ddim = kw_sampler_find("ddim", NULL), *euler = kw_sampler_find("euler", NULL);
    const kw_sigma_schedule *karras = kw_sigma_schedule_find("karras");
    const struct { const kw_noise *z; kw_sampling_options o; const char *says; } rows[] = {
        { z, { .sampler = euler, .steps = 0 }, "0 steps" },
        { z, { .sampler = euler, .steps = 10, .eta = NAN }, "eta" },
        { z, { .sampler = euler, .steps = 10, .first = 10 }, "step 10 of 10" },
        { z, { .sampler = euler, .steps = 10, .spacing = KW_SPACING_DIFFUSERS }, "thresholding" },
        { z, { .sampler = ddim, .steps = 1001, .spacing = KW_SPACING_LEADING }, "1001" },
        { z, { .sampler = ddim, .steps = 1000, .spacing = KW_SPACING_LEADING }, "steps_offset" },
        { z, { .sampler = ddim, .steps = 10, .spacing = KW_SPACING_LEADING, .schedule = karras }, "Karras" },
        { z, { .sampler = ddim, .steps = 1, .spacing = KW_SPACING_A1111 }, "A1111" },
        { z, { .sampler = ddim, .steps = 2000, .spacing = KW_SPACING_A1111 }, "A1111" },
        { z, { .sampler = kw_sampler_find("dpmpp_2m", NULL), .steps = 1000, .spacing = KW_SPACING_LEADING }, "1000" },
        { eps, { .sampler = ddim, .steps = 10, .spacing = KW_SPACING_TRAILING }, "pure noise" },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_sampling *s;
        kw_err e = { 0 };
        assert_int_equal(kw_sampling_start(a, rows[i].z, &rows[i].o, SIZE, &s, &e), KW_EUSAGE);
        if (!strstr(e.what, rows[i].says))
            fail_msg("\"%s\" does not say \"%s\"", e.what, rows[i].says);
    }
    for (int k = 1; k < 8; k++) {                                   /* memory gone at any point */
        kw_sampling *s;
        kw_sampling_options o = { .sampler = kw_sampler_find("euler a", NULL), .steps = 10, .eta = -1 };
        kw_alloc_fail_after(k);
        assert_int_equal(kw_sampling_start(a, eps, &o, SIZE, &s, NULL), KW_ENOMEM);
    }
    kw_alloc_fail_after(0);
    kw_arena_free(a);
}

static void a_picture_that_is_not_finite_is_an_error(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_sampling *s = start(a, build(a, "{}"), "euler", 5, KW_SPACING_AUTO);
    float x[SIZE] = { 0 }, out[SIZE] = { 0 };
    kw_err e;
    out[7] = NAN;
    assert_int_equal(kw_sampling_next(s, x, out, NULL, NULL, &e), KW_ENUMERIC);
    assert_non_null(strstr(e.what, "step 1 of 5"));
    kw_arena_free(a);
}

/* ---- pictures as a start, batches, noise by step ----------------------------------------------------- */

static void starting_from_a_picture(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_noise *z = build(a, "{\"prediction_type\": \"v_prediction\"}");
    static const char *const names[] = { "euler", "ddim" };
    for (int k = 0; k < 2; k++) {
        kw_sampling_options o = { .sampler = kw_sampler_find(names[k], NULL), .steps = 20, .eta = -1, .first = 12 };
        kw_sampling *s;
        assert_int_equal(kw_sampling_start(a, z, &o, SIZE, &s, NULL), KW_OK);
        float picture[SIZE], x[SIZE], in[SIZE], noise[SIZE];
        start_noise(noise);
        memcpy(x, noise, sizeof x);
        for (int i = 0; i < SIZE; i++)
            picture[i] = 0.1f * (float)i;
        kw_sampling_begin_from(s, picture, x);
        kw_sampling_input(s, x, in);
        double sigma = kw_sampling_at(s, 12).from.s / kw_sampling_at(s, 12).from.a, r = sqrt(1 + sigma * sigma);
        for (int i = 0; i < SIZE; i++)
            assert_float_equal(in[i], ((double)picture[i] + sigma * (double)noise[i]) / r, 1e-6);
        for (int n = 0; !kw_sampling_done(s); n++) {                /* a network that knows the picture gives it back */
            kw_mix m = kw_sampling_at(s, 12 + n).from;
            float out[SIZE];
            kw_sampling_input(s, x, in);
            for (int i = 0; i < SIZE; i++) {
                double h = hypot(m.a, m.s), aa = m.a / h, ss = m.s / h, p = (double)picture[i];
                out[i] = (float)(aa * ((double)in[i] - aa * p) / ss - ss * p);
            }
            assert_int_equal(kw_sampling_next(s, x, out, NULL, NULL, NULL), KW_OK);
            for (int i = 0; i < SIZE; i++)
                assert_float_equal(kw_sampling_x0(s)[i], picture[i], 1e-5);
        }
        assert_int_equal(kw_sampling_step(s), 20);
        for (int i = 0; i < SIZE; i++)
            assert_float_equal(x[i], picture[i], 1e-5);
    }
    kw_arena_free(a);
}

static void noise_is_asked_for_only_where_it_counts(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_noise *z = build(a, "{\"clip_sample\": false}");
    kw_sampling *s = start(a, z, "euler a", 9, KW_SPACING_AUTO);
    int calls = 0;
    float x[SIZE], out[SIZE];
    start_noise(x);
    for (kw_sampling_begin(s, x); !kw_sampling_done(s); ) {
        network(x, kw_sampling_timestep(s), out);
        assert_int_equal(kw_sampling_next(s, x, out, step_noise, &calls, NULL), KW_OK);
    }
    assert_int_equal(calls, 8);                                     /* the last step lands on no noise */
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samplers_follow_the_references),
        cmocka_unit_test(lists_are_those_of_diffusers),
        cmocka_unit_test(names_of_samplers),
        cmocka_unit_test(automatic_choices),
        cmocka_unit_test(impossible_wishes_are_refused),
        cmocka_unit_test(a_picture_that_is_not_finite_is_an_error),
        cmocka_unit_test(starting_from_a_picture),
        cmocka_unit_test(noise_is_asked_for_only_where_it_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
