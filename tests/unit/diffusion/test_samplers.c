/* test_samplers.c - every sampler and schedule against k-diffusion, diffusers and A1111's: tools/golden/samplers.py. */
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
#define SD "{\"beta_start\": 0.00085, \"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\""

/* the same functions as in tools/golden/diffusion.py */
static void start_noise(float *x)
{
    for (int i = 0; i < SIZE; i++)
        x[i] = (float)(1.5 * sin(0.9 * i + 0.3) + 0.4 * cos(2.3 * i));
}

static kw_status step_noise(void *ctx, const kw_noise_draw *d, float *noise, size_t n, kw_err *e)
{
    (void)ctx, (void)e;
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
    int asked = 0;
    start_noise(x);
    for (kw_sampling_begin(s, x); !kw_sampling_done(s); asked++) {
        char *end;
        assert_int_equal(kw_sampling_churn(s, x, step_noise, NULL, NULL), KW_OK);
        double want = strtod(timesteps, &end);
        worst = fmax(worst, fabs(kw_sampling_timestep(s) - want));
        if (timesteps == end)
            fail_msg("more evaluations than in the golden file");
        timesteps = end;
        kw_sampling_input(s, x, in);
        network(in, kw_sampling_timestep(s), out);
        assert_int_equal(kw_sampling_evaluated(s), asked);
        assert_int_equal(kw_sampling_next(s, x, out, step_noise, NULL, NULL), KW_OK);
    }
    assert_int_equal(kw_sampling_evaluations(s), asked);
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

static void option(kw_sampling_options *o, const char *word)
{
    static const struct { const char *name; size_t at; } rows[] = {
        { "eta=", offsetof(kw_sampling_options, eta) }, { "gamma=", offsetof(kw_sampling_options, gamma) },
        { "churn=", offsetof(kw_sampling_options, churn) }, { "from=", offsetof(kw_sampling_options, churn_from) },
        { "to=", offsetof(kw_sampling_options, churn_to) },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++)
        if (strncmp(word, rows[i].name, strlen(rows[i].name)) == 0)
            *(double *)((char *)o + rows[i].at) = strtod(word + strlen(rows[i].name), NULL);
    if (strncmp(word, "noise=", 6) == 0)
        o->noise_less = 1 - strtod(word + 6, NULL);
    if (strncmp(word, "first=", 6) == 0)
        o->first = atoi(word + 6);
}

/*
 * header: SOURCE SAMPLER SCHEDULE STEPS OPTION=VALUE ... Measured: 6e-7 (k-diffusion, A1111), 7e-7 (diffusers, which
 * has sigmas in float32), 2e-6 with zero terminal SNR: torch's alphas_cumprod are 4e-6 off, x starts at 4500.
 */
static bool golden_case(char *header, const char *json, const char *timesteps, const char *values, double worst[3])
{
    char source[16], sampler[32], schedule[16];
    int used = 0;
    kw_arena *a = kw_arena_new();
    kw_err e;
    kw_sampling_options o = { .eta = -1, .gamma = -1 };
    assert_int_equal(sscanf(header, "%15s %31s %15s %d%n", source, sampler, schedule, &o.steps, &used), 4);
    for (char *word = strtok(header + used, " \n"); word; word = strtok(NULL, " \n"))
        option(&o, word);
    o.sampler = kw_sampler_find(sampler, NULL);
    assert_non_null(o.sampler);
    assert_string_equal(o.sampler->name, sampler);
    o.schedule = kw_sigma_schedule_find(schedule);
    assert_true(kw_spacing_find(source, &o.spacing));
    kw_sampling *s;
    if (kw_sampling_start(a, build(a, json), &o, SIZE, &s, &e))
        fail_msg("%s%s", header, e.what);
    float x[SIZE];
    bool zero = strstr(json, "zero_snr"), single = !strcmp(source, "diffusers");
    double t = run(s, x, timesteps), r = relative(x, values);
    bool good = t < 2e-3 && r < (zero ? 1e-5 : 2e-6);
    if (!good)
        print_error("%s %s %s %d: timesteps differ by %g, x by %g\n    %s", source, sampler, schedule, o.steps, t, r,
                    json);
    worst[zero ? 2 : single] = fmax(worst[zero ? 2 : single], r);
    kw_arena_free(a);
    return good;
}

static void samplers_follow_the_references(void **state)
{
    (void)state;
    FILE *f = fopen(KW_TESTS "/golden/diffusion/more_samplers.txt", "r");
    assert_non_null(f);
    static char lines[4][8192];
    int n = 0, cases = 0, bad = 0;
    double worst[3] = { 0 };
    while (fgets(lines[n], sizeof lines[n], f)) {
        if (*lines[n] == '#')
            continue;
        if (++n == 4) {
            bad += !golden_case(lines[0], lines[1], lines[2], lines[3], worst);
            n = 0;
            cases++;
        }
    }
    fclose(f);
    print_message("%d cases: x within %.2g (k-diffusion, A1111), %.2g (diffusers), %.2g (zero SNR)\n", cases, worst[0],
                  worst[1], worst[2]);
    assert_true(cases >= 250 && !bad);
}

static void schedules_are_those_of_a1111(void **state)
{
    (void)state;
    FILE *f = fopen(KW_TESTS "/golden/diffusion/sigmas.txt", "r");
    static char header[256], values[16384];
    char name[32];
    int base, n, rows = 0;
    double worst = 0;
    assert_non_null(f);
    while (fgets(header, sizeof header, f)) {
        if (*header == '#')
            continue;
        assert_non_null(fgets(values, sizeof values, f));
        assert_int_equal(sscanf(header, "%31s %d %d", name, &base, &n), 3);
        bool zero = base == 1;
        kw_arena *a = kw_arena_new();
        kw_noise *z = build(a, zero ? SD ", \"rescale_betas_zero_snr\": true, \"prediction_type\": \"v_prediction\"}"
                                    : SD "}");
        z->spec.sdxl = base == 2;
        kw_sampling_options o = { .sampler = kw_sampler_find("euler", NULL), .schedule = kw_sigma_schedule_find(name),
                                  .steps = n, .eta = -1 };
        kw_sampling *s;
        assert_int_equal(kw_sampling_start(a, z, &o, 1, &s, NULL), KW_OK);
        char *at = values;
        for (int i = 0; i < kw_sampling_steps(s); i++) {
            double want = strtod(at, &at), r = fabs(kw_sampling_at(s, i).from.s / want - 1);
            worst = fmax(worst, zero ? 0 : r);
            if (!(r < (zero ? 1e-5 : 1e-9)))      /* zero SNR: torch's square root in the levels, 5.0e-6 */
                fail_msg("%s n %d base %d: sigma %d is off by %g", name, n, base, i, r);
        }
        assert_int_equal(strspn(at, " \n"), strlen(at));
        assert_true(kw_sampling_at(s, kw_sampling_steps(s) - 1).to.s == 0);
        kw_arena_free(a);
        rows++;
    }
    print_message("%d lists within %.2g\n", rows, worst);
    assert_int_equal(rows, 154);
    fclose(f);
}

/* The page of "Align your steps" gives timesteps too: the levels there, ten steps. A1111's are the printed levels. */
static void aligned_steps_are_the_published_timesteps(void **state)
{
    (void)state;
    static const int timestep[2][10] = { { 999, 850, 736, 645, 545, 455, 343, 233, 124, 24 },
                                         { 999, 845, 730, 587, 443, 310, 193, 116, 53, 13 } };
    double worst[2] = { 0 };
    for (int xl = 0; xl < 2; xl++)
        for (int a1111 = 0; a1111 < 2; a1111++) {
            kw_arena *a = kw_arena_new();
            kw_noise *z = build(a, SD "}");
            z->spec.sdxl = xl;
            kw_sampling_options o = { .sampler = kw_sampler_find("Euler", NULL), .steps = 10 + a1111, .eta = -1,
                .schedule = kw_sigma_schedule_find(a1111 ? "Align Your Steps" : "Align Your Steps ComfyUI") };
            kw_sampling *s;
            assert_int_equal(kw_sampling_start(a, z, &o, 1, &s, NULL), KW_OK);
            assert_int_equal(kw_sampling_steps(s), 10 + a1111);
            for (int i = 0; i < 10; i++) {
                double abar = z->abar[timestep[xl][i]], want = sqrt((1 - abar) / abar);
                worst[a1111] = fmax(worst[a1111], fabs(kw_sampling_at(s, i).from.s / want - 1));
            }
            kw_arena_free(a);
        }
    print_message("off by %.2g, as printed by %.2g\n", worst[0], worst[1]);
    assert_true(worst[0] < 1e-5 && worst[1] < 0.02);      /* 0.113 is printed where the level is 0.1114 */
}

/* few steps, every schedule, later starts; half of noise put back: no division by nothing anywhere */
static void every_combination_is_finite(void **state)
{
    (void)state;
    int runs = 0;
    for (size_t i = 0; i < kw_n_samplers; i++)
        for (size_t k = 0; k <= kw_n_sigma_schedules; k++)
            for (int steps = 1; steps <= 6; steps++)
                for (int first = 0; first < steps; first++) {
                    kw_arena *a = kw_arena_new();
                    kw_sampling_options o = { .sampler = kw_samplers[i], .steps = steps, .first = first, .gamma = -1,
                                              .eta = steps % 2 ? -1 : 0.5, .churn = 0.3,
                                              .schedule = k ? &kw_sigma_schedules[k - 1] : NULL };
                    kw_sampling *s;
                    float x[SIZE], in[SIZE], out[SIZE];
                    start_noise(x);
                    kw_status st = kw_sampling_start(a, build(a, "{}"), &o, SIZE, &s, NULL);
                    if (!st) {
                        for (kw_sampling_begin(s, x); !kw_sampling_done(s); ) {
                            assert_int_equal(kw_sampling_churn(s, x, step_noise, NULL, NULL), KW_OK);
                            kw_sampling_input(s, x, in);
                            network(in, kw_sampling_timestep(s), out);
                            assert_true(kw_sampling_timestep(s) >= 0 && kw_sampling_timestep(s) <= 999);
                            if (kw_sampling_next(s, x, out, step_noise, NULL, NULL))
                                fail_msg("%s %zu, %d steps from %d", o.sampler->name, k, steps, first);
                        }
                        runs++;
                    }
                    kw_arena_free(a);
                }
    print_message("%d runs\n", runs);
    assert_true(runs > 3500);
}

/* a network that knows the picture: whatever the sampler, from whichever step, it comes out */
static void a_known_picture_comes_out(void **state)
{
    (void)state;
    for (size_t i = 0; i < kw_n_samplers; i++)
        for (int first = 0; first < 12; first += 3) {
            kw_arena *a = kw_arena_new();
            kw_sampling_options o = { .sampler = kw_samplers[i], .steps = 12, .first = first, .gamma = 0.3, .eta = -1 };
            kw_sampling *s;
            float x[SIZE], in[SIZE], out[SIZE];
            assert_int_equal(kw_sampling_start(a, build(a, "{\"prediction_type\": \"sample\"}"), &o, SIZE, &s, NULL),
                             KW_OK);
            float picture[SIZE];
            for (int k = 0; k < SIZE; k++)
                picture[k] = out[k] = 0.1f * (float)k - 1;
            start_noise(x);
            for (kw_sampling_begin_from(s, picture, x); !kw_sampling_done(s); ) {
                kw_sampling_input(s, x, in);
                assert_int_equal(kw_sampling_next(s, x, out, step_noise, NULL, NULL), KW_OK);
            }
            kw_mix end = kw_sampling_at(s, kw_sampling_steps(s) - 1).to;
            bool noisy = o.sampler->lists == KW_LISTS_LCM || end.s > 0;  /* some end where noise is left: 3 x 0.03 */
            double left = noisy ? 0.1 : 2e-5;
            for (int k = 0; k < SIZE; k++)
                if (!(fabs((double)x[k] - (double)picture[k]) < left))
                    fail_msg("%s from %d: %g is not %g", o.sampler->name, first, (double)x[k], (double)picture[k]);
            kw_arena_free(a);
        }
}

static void ends_of_noise_levels(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_noise *z = build(a, "{}");
    kw_sampling_options o = { .sampler = kw_sampler_find("euler", NULL), .schedule = kw_sigma_schedule_find("karras"),
                              .steps = 10, .eta = -1, .least = 0.1, .most = 10 };
    kw_sampling *s;
    kw_err e;
    assert_int_equal(kw_sampling_start(a, z, &o, 1, &s, NULL), KW_OK);
    assert_true(fabs(kw_sampling_at(s, 0).from.s - 10) < 1e-12 && fabs(kw_sampling_at(s, 9).from.s - 0.1) < 1e-12);
    o.least = 20;
    assert_int_equal(kw_sampling_start(a, z, &o, 1, &s, &e), KW_EUSAGE);
    assert_non_null(strstr(e.what, "10 down to") ? e.what : strstr(e.what, "from 10"));
    kw_arena_free(a);
}

/* ---- noise ----------------------------------------------------------------------------------------------------- */

static float *numbers(kw_arena *a, const char *line, int *n)
{
    float *out = kw_alloc_array(a, 512, sizeof *out);
    char *end;
    for (*n = 0; (void)(out[*n] = strtof(line, &end)), end != line; line = end)
        ++*n;
    return out;
}

/* measured 7e-7, float32 sums in another order */
static void brownian_paths_are_those_of_torchsde(void **state)
{
    (void)state;
    FILE *f = fopen(KW_TESTS "/golden/diffusion/brownian.txt", "r");
    static char header[256], points[4096], values[8192];
    char kind[16];
    int rows = 0;
    double worst = 0;
    assert_non_null(f);
    while (fgets(header, sizeof header, f)) {
        uint64_t seed;
        if (*header == '#' || !strncmp(header, "words", 5))
            continue;
        assert_int_equal(sscanf(header, "%15s %lu", kind, &seed), 2);
        assert_true(fgets(points, sizeof points, f) && fgets(values, sizeof values, f));
        kw_arena *a = kw_arena_new();
        int n, m;
        float *p = numbers(a, points, &n), *want = numbers(a, values, &m), got[64];
        kw_noise_wish w = { .kind = !strcmp(kind, "cpu") ? KW_SEEDS_CPU : KW_SEEDS_GPU, .seed = &seed, .n = 1,
                            .channels = 4, .h = 4, .w = 4 };
        kw_noise_source *s = kw_noise_source_new(a, &w);
        float least = p[0], most = p[0];
        for (int i = 0; i < n; i++) {
            least = fminf(least, p[i]);
            most = fmaxf(most, p[i]);
        }
        for (int i = 0; i < n / 2; i++) {
            kw_noise_draw d = { .draw = i, .brownian = true, .from = (double)p[2 * i], .to = (double)p[2 * i + 1],
                                .least = (double)least, .most = (double)most };
            assert_int_equal(kw_noise_source_sampler(s, &d, got, NULL), KW_OK);
            for (int k = 0; k < 8; k++)
                worst = fmax(worst, fabs((double)got[k] - (double)want[8 * i + k]));
        }
        assert_int_equal(m, 8 * (n / 2));
        kw_arena_free(a);
        rows++;
    }
    print_message("%d paths within %.2g\n", rows, worst);
    assert_true(rows == 6 && worst < 5e-6);
    fclose(f);
}

static void variations_are_those_of_a1111(void **state)
{
    (void)state;
    FILE *f = fopen(KW_TESTS "/golden/diffusion/variations.txt", "r");
    static char header[256], values[2][8192];
    char kind[16];
    int rows = 0;
    double worst = 0;
    assert_non_null(f);
    while (fgets(header, sizeof header, f)) {
        kw_noise_wish w = { .n = 1, .channels = 4, .h = 6, .w = 8 };
        uint64_t seed, other;
        if (*header == '#')
            continue;
        assert_int_equal(sscanf(header, "%15s %lu %lu %lf %d %d %lu", kind, &seed, &other, &w.strength, &w.from_h,
                                &w.from_w, &w.delta), 7);
        assert_true(fgets(values[0], sizeof values[0], f) && fgets(values[1], sizeof values[1], f));
        kw_arena *a = kw_arena_new();
        float got[192];
        int n;
        w.kind = !strcmp(kind, "cpu") ? KW_SEEDS_CPU : KW_SEEDS_GPU;
        w.seed = &seed;
        w.variation = &other;
        kw_noise_source *s = kw_noise_source_new(a, &w);
        for (int k = 0; k < 2; k++) {
            float *want = numbers(a, values[k], &n);
            if (k)
                kw_noise_source_draw(s, 0, got);
            else
                assert_int_equal(kw_noise_source_start(s, got, NULL), KW_OK);
            for (int i = 0; i < n; i++)
                worst = fmax(worst, fabs((double)got[7 * i] - (double)want[i]));
        }
        kw_arena_free(a);
        rows++;
    }
    print_message("%d variations within %.2g\n", rows, worst);
    assert_true(rows == 10 && worst < 3e-6);
    fclose(f);
}

/* torch's first numbers of seed 0 on the CPU, below and above 16; a batch is what each seed draws alone */
static void known_numbers_and_batches(void **state)
{
    (void)state;
    static const float few[] = { 1.5409961f, -0.29342890f, -2.1787894f },
        many[] = { -1.1258398f, -1.1523602f, -0.2505786f };
    static const float cuda[] = { -0.92466259f, -0.42534415f, -2.6438457f };
    static float all[8 * 4 * 64 * 64], one[4 * 64 * 64];
    uint64_t seed[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    kw_arena *a = kw_arena_new();
    kw_noise_wish w = { .kind = KW_SEEDS_CPU, .seed = seed, .n = 1, .channels = 1, .h = 3, .w = 4 };
    assert_int_equal(kw_noise_source_start(kw_noise_source_new(a, &w), one, NULL), KW_OK);
    for (int i = 0; i < 3; i++)
        assert_float_equal(one[i], few[i], 2e-7);
    w.kind = KW_SEEDS_GPU;
    assert_int_equal(kw_noise_source_start(kw_noise_source_new(a, &w), one, NULL), KW_OK);
    for (int i = 0; i < 3; i++)
        assert_float_equal(one[i], cuda[i], 3e-7);
    for (kw_seeds kind = KW_SEEDS_GPU; kind < KW_N_SEEDS; kind++) {
        w = (kw_noise_wish){ .kind = kind, .seed = seed, .n = 8, .channels = 4, .h = 64, .w = 64 };
        assert_int_equal(kw_noise_source_start(kw_noise_source_new(a, &w), all, NULL), KW_OK);
        for (int i = 0; i < 3 && kind == KW_SEEDS_CPU; i++)
            assert_float_equal(all[i], many[i], 2e-7);
        for (int i = 0; i < 8; i++) {
            w.seed = &seed[i];
            w.n = 1;
            assert_int_equal(kw_noise_source_start(kw_noise_source_new(a, &w), one, NULL), KW_OK);
            assert_memory_equal(one, all + (size_t)i * KW_LEN(one), sizeof one);
        }
    }
    kw_arena_free(a);
}

static void guidance_is_rescaled(void **state)
{
    (void)state;
    float cond[4] = { 1, 2, 3, 4 }, guided[4] = { 2, 6, 10, 14 };   /* deviations 1 : 4 */
    kw_guide_rescale(cond, 0.7, guided, 4);
    assert_float_equal(guided[0], 2 * (0.7 / 4 + 0.3), 1e-6);
    assert_float_equal(guided[3], 14 * (0.7 / 4 + 0.3), 1e-6);
    kw_guide_rescale(cond, 0, guided, 4);
    assert_float_equal(guided[0], 2 * (0.7 / 4 + 0.3), 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samplers_follow_the_references),
        cmocka_unit_test(schedules_are_those_of_a1111),
        cmocka_unit_test(aligned_steps_are_the_published_timesteps),
        cmocka_unit_test(every_combination_is_finite),
        cmocka_unit_test(a_known_picture_comes_out),
        cmocka_unit_test(ends_of_noise_levels),
        cmocka_unit_test(brownian_paths_are_those_of_torchsde),
        cmocka_unit_test(variations_are_those_of_a1111),
        cmocka_unit_test(known_numbers_and_batches),
        cmocka_unit_test(guidance_is_rescaled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
