/*
 * test_paint.c - pictures over pictures: diffusers' img2img and inpainting pipelines, A1111's steps and masks
 * (tools/golden/paint.py), latents of another size as torch has them.
 */
#include "diffusion/diffusion.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE KW_TESTS "/golden/pipeline/base"

enum { STEPS = 5, SIDE = 16, LATENT = 8, N = 4 * LATENT * LATENT };

static kw_arena *a;
static kw_tensors *answers;
static kw_pipeline *p;
static kw_wish wish = { .prompt = "a photo of a red cat on a blue house", .negative = "dark water", .seed = 3 };

static int start(void **state)
{
    (void)state;
    kw_pipeline_options o = { .compute = KW_F32 };
    a = kw_arena_new();
    return !a || kw_tensors_open(a, KW_TESTS "/golden/pipeline/paint.safetensors", &answers, NULL)
        || kw_pipeline_open(a, BASE, NULL, NULL, 0, &o, &p, NULL);
}

static int end(void **state)
{
    (void)state;
    kw_arena_free(a);
    return 0;
}

static const kw_tensor *find(const char *name)
{
    const kw_tensor *t = kw_tensors_find(answers, name);
    if (!t)
        fail_msg("%s is missing", name);
    return t;
}

static double relative(const float *x, const char *name)
{
    const kw_tensor *t = find(name);
    const float *y = t->data;
    double d = 0, s = 0;
    for (size_t i = 0; i < (size_t)kw_tensor_count(t); i++) {
        d += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        s += (double)y[i] * (double)y[i];
    }
    return sqrt(d / s);
}

static kw_request request(const char *sampler, kw_spacing spacing, double strength, bool exact)
{
    kw_request r = { .wish = &wish, .n = 1, .width = SIDE, .height = SIDE, .cfg = 4, .clip_skip = 1,
                     .seeds = KW_SEEDS_CPU,
                     .sampling = { .sampler = kw_sampler_find(sampler, NULL), .spacing = spacing, .steps = STEPS,
                                   .schedule = spacing == KW_SPACING_A1111 ? kw_sigma_schedule_find("normal") : NULL,
                                   .eta = -1 } };
    kw_err e;
    if (kw_strength_steps(kw_pipeline_noise(p), &r.sampling, strength, exact, &r.noised, &e))
        fail_msg("%s", e.what);
    return r;
}

static kw_generated made(const kw_request *r)
{
    kw_generated g;
    kw_err e;
    if (kw_pipeline_generate(p, a, r, &g, &e))
        fail_msg("%s", e.what);
    return g;
}

/* ---- diffusers -------------------------------------------------------------------------------------------------- */

/* Its generator draws the autoencoder's sample, then the noise. */
static void encode_as_diffusers(float init[N], float noise[N])
{
    kw_picture image = { .w = SIDE, .h = SIDE, .rgb = (uint8_t *)(uintptr_t)find("image")->data };
    kw_torch_rng rng;
    kw_torch_seed(&rng, 3);
    kw_torch_randn(&rng, noise, N);
    assert_int_equal(kw_pipeline_encode_drawn(p, &image, noise, init, NULL), KW_OK);
    kw_torch_randn(&rng, noise, N);
}

static void compare(const kw_generated *g, const char *name)
{
    char leaf[64];
    double square = 0;
    snprintf(leaf, sizeof leaf, "%s.latents", name);
    double error = relative(g->latents, leaf);
    snprintf(leaf, sizeof leaf, "%s.pixels", name);
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        square += pow(g->picture->rgb[i] - ((const uint8_t *)find(leaf)->data)[i], 2);
    double psnr = square > 0 ? 10 * log10(255.0 * 255 * SIDE * SIDE * 3 / square) : 99;
    printf("%-16s latents %.1e, PSNR %.1f dB\n", name, error, psnr);
    assert_true(error < 1e-5);                  /* measured: up to 1e-6 */
    assert_true(psnr >= 55);                    /* measured: equal */
}

static void as_diffusers(void **state)
{
    (void)state;
    static const char *const samplers[] = { "ddim", "euler" };
    float init[N], noise[N], paint[LATENT * LATENT];
    for (int i = 0; i < LATENT * LATENT; i++)   /* its mask, (4..12, 6..16) of the pixels, at each second pixel */
        paint[i] = i / LATENT >= 2 && i / LATENT < 6 && i % LATENT >= 3;
    for (size_t i = 0; i < KW_LEN(samplers); i++) {
        char name[32];
        kw_request r = request(samplers[i], KW_SPACING_DIFFUSERS, 0.6, false);
        encode_as_diffusers(init, noise);
        r.init = init;
        r.noise = noise;
        kw_generated g = made(&r);
        snprintf(name, sizeof name, "img2img.%s", samplers[i]);
        compare(&g, name);
        r.paint = paint;
        r.keep = KW_KEEP_STEP;
        g = made(&r);
        snprintf(name, sizeof name, "inpaint.%s", samplers[i]);
        compare(&g, name);
    }
}

/* ---- A1111 ------------------------------------------------------------------------------------------------------ */

static void as_a1111(void **state)
{
    (void)state;
    const float *noises[STEPS];
    for (int i = 0; i < STEPS; i++)
        noises[i] = (const float *)find("noises")->data + i * N;
    static const struct { const char *name, *sampler; bool exact, masked; } cases[] = {
        { "a1111.euler", "euler", false, true }, { "a1111.euler_a", "euler a", false, true },
        { "a1111.heun", "heun", false, true }, { "a1111.dpmpp_2m", "dpm++ 2m", false, true },
        { "a1111.exact", "euler", true, false }, { "a1111.ddim", "ddim", false, false },
    };
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        kw_request r = request(cases[i].sampler, KW_SPACING_A1111, 0.6, cases[i].exact);
        r.init = find("init")->data;
        r.noise = find("noise")->data;
        r.paint = cases[i].masked ? find("mask")->data : NULL;
        r.injected = noises;
        r.n_injected = STEPS;
        r.latents_only = true;
        kw_generated g = made(&r);
        double error = relative(g.latents, cases[i].name);
        printf("%-16s latents %.1e\n", cases[i].name, error);
        assert_true(error < 1e-5);              /* measured: up to 2e-6 */
    }
}

/* A1111's numbers of steps, by its formulas */
static void strengths(void **state)
{
    (void)state;
    static const struct { double strength; bool exact; int steps, first; } cases[] = {
        { 0.75, false, 20, 4 }, { 1, false, 20, 0 }, { 0, false, 20, 19 }, { 0.5, false, 20, 9 },
        { 0.5, true, 40, 20 }, { 0.7, true, 28, 8 }, { 1, true, 20, 0 },
    };
    const kw_noise *z = kw_pipeline_noise(p);
    int noised;
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        kw_sampling_options o = { .sampler = kw_sampler_find("euler", NULL), .steps = 20, .eta = -1 };
        assert_int_equal(kw_strength_steps(z, &o, cases[i].strength, cases[i].exact, &noised, NULL), KW_OK);
        assert_int_equal(o.steps, cases[i].steps);
        assert_int_equal(o.first, cases[i].first);
        assert_int_equal(noised, cases[i].first);
    }
    kw_sampling_options o = { .sampler = kw_sampler_find("euler", NULL), .steps = 20, .eta = -1 };
    kw_err e;
    assert_int_equal(kw_strength_steps(z, &o, 0, true, &noised, &e), KW_EUSAGE);
    assert_int_equal(kw_strength_steps(z, &o, 1.5, false, &noised, &e), KW_EUSAGE);
    assert_int_equal(kw_strength_steps(z, &o, (double)NAN, false, &noised, &e), KW_EUSAGE);
    assert_int_equal(kw_strength_steps(z, &o, 1e-5, true, &noised, &e), KW_EUSAGE);
}

/* Nothing to paint: the picture that was there, to the bit, with every sampler. */
static void nothing(void **state)
{
    (void)state;
    float paint[LATENT * LATENT] = { 0 };
    for (size_t i = 0; i < kw_n_samplers; i++)
        for (int k = 0; k < 2; k++) {
            kw_request r = request(kw_samplers[i]->name, KW_SPACING_A1111, 0.8, false);
            r.init = find("init")->data;
            r.paint = paint;
            r.keep = (kw_keep)k;
            r.latents_only = true;
            kw_generated g = made(&r);
            assert_memory_equal(g.latents, r.init, N * sizeof(float));
        }
}

static void resized(void **state)
{
    (void)state;
    static const int size[][2] = { { 9, 7 }, { 10, 8 }, { 3, 2 } };
    const kw_tensor *in = find("latents");
    for (int how = 0; how < KW_N_LATENT_SCALES; how++)
        for (size_t i = 0; i < KW_LEN(size); i++) {
            char name[32];
            float out[2 * 10 * 8];
            snprintf(name, sizeof name, "resized.%d.%d", how, size[i][0]);
            assert_int_equal(kw_latents_resize((kw_latent_scale)how, in->data, 2, 5, 4, out, size[i][0], size[i][1],
                                               NULL), KW_OK);
            double error = relative(out, name);
            printf("%-16s %.1e\n", name, error);
            assert_true(error < 1e-6);
        }
    float out[1];
    kw_err e;
    assert_int_equal(kw_latents_resize(KW_LATENT_BILINEAR, in->data, 2, 5, 4, out, 0, 4, &e), KW_EUSAGE);
}

static void refused(void **state)
{
    (void)state;
    kw_generated g;
    kw_err e;
    kw_request r = request("euler", KW_SPACING_A1111, 0.5, false);
    r.paint = find("mask")->data;
    r.sampling.first = 0;
    assert_int_equal(kw_pipeline_generate(p, a, &r, &g, &e), KW_EUSAGE);
    assert_non_null(strstr(e.what, "mask"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_diffusers), cmocka_unit_test(as_a1111), cmocka_unit_test(strengths),
        cmocka_unit_test(nothing), cmocka_unit_test(resized), cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, start, end);
}
