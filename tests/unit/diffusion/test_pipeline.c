/* test_pipeline.c - pictures against diffusers' (tools/golden/generate.py --golden), LoRA files, refusals. */
#include "diffusion/diffusion.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BASE KW_TESTS "/golden/pipeline/base"

static const char prompt[] = "a photo of a red cat on a blue house", negative[] = "dark water";

static kw_arena *a;
static kw_tensors *answers;

static int start(void **state)
{
    (void)state;
    a = kw_arena_new();
    return !a || kw_tensors_open(a, KW_TESTS "/golden/pipeline/answers.safetensors", &answers, NULL);
}

static int end(void **state)
{
    (void)state;
    kw_arena_free(a);
    return 0;
}

static kw_pipeline *open_with(const char *lora, double strength)
{
    kw_pipeline *p = NULL;
    kw_err e;
    kw_pipeline_lora l = { lora, strength, strength, false };
    kw_pipeline_options o = { .compute = KW_F32 };
    if (kw_pipeline_open(a, BASE, NULL, &l, lora ? 1 : 0, &o, &p, &e))
        fail_msg("%s", e.what);
    return p;
}

static kw_pipeline *open_base(void) { return open_with(NULL, 0); }

static kw_request request(kw_wish *wish, int n, const char *sampler, double cfg)
{
    return (kw_request){ .wish = wish, .n = n, .width = 16, .height = 16, .cfg = cfg, .clip_skip = 1,
                         .seeds = KW_SEEDS_CPU,
                         .sampling = { .sampler = kw_sampler_find(sampler, NULL), .spacing = KW_SPACING_DIFFUSERS,
                                       .steps = 5, .eta = -1 } };
}

static kw_generated made(kw_pipeline *p, const kw_request *r)
{
    kw_generated g;
    kw_err e;
    if (kw_pipeline_generate(p, a, r, &g, &e))
        fail_msg("%s", e.what);
    return g;
}

static const kw_tensor *answer(const char *name, const char *leaf)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", name, leaf);
    const kw_tensor *t = kw_tensors_find(answers, full);
    assert_non_null(t);
    return t;
}

static double relative(const float *x, const float *y, size_t n)
{
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        s += (double)y[i] * (double)y[i];
    }
    return sqrt(d / s);
}

/* Measured: latents 2e-7 to 9e-7, pictures equal; 1 apart is possible where a value lies on the edge of two. */
static void check(const char *name, const kw_generated *g)
{
    const kw_tensor *latents = answer(name, "latents"), *pixels = answer(name, "pixels");
    size_t n = (size_t)kw_tensor_count(latents), each = (size_t)kw_tensor_count(pixels) / (size_t)g->n;
    double error = relative(g->latents, latents->data, n);
    int worst = 0;
    for (int k = 0; k < g->n; k++)
        for (size_t i = 0; i < each; i++)
            worst = KW_MAX(worst, abs(g->picture[k].rgb[i] - ((const uint8_t *)pixels->data)[(size_t)k * each + i]));
    printf("%-10s latents %.1e, pictures within %d/255\n", name, error, worst);
    assert_true(error <= 1e-5);
    assert_true(worst <= 1);
}

/* ---- against diffusers ------------------------------------------------------------------------------------------- */

static void ddim(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt, .negative = negative };
    kw_request r = request(&wish, 1, "ddim", 4);
    r.noise = answer("ddim", "noise")->data;
    kw_generated g = made(open_base(), &r);
    check("ddim", &g);
}

static void euler_ancestral_from_seeds(void **state)
{
    (void)state;
    kw_wish wish[2] = { { .prompt = prompt, .negative = negative, .seed = 3 },
                        { .prompt = prompt, .negative = negative, .seed = 4 } };
    kw_request r = request(wish, 2, "Euler a", 4);
    kw_pipeline *p = open_base();
    kw_generated both = made(p, &r), one;
    check("euler_a", &both);
    r.n = 1;
    r.wish = wish + 1;
    one = made(p, &r);                    /* alone as in a batch, but for rounding */
    assert_true(relative(one.latents, both.latents + 4 * 8 * 8, 4 * 8 * 8) < 1e-5);
}

static void emphasis_and_clip_skip(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = "a (red:1.4) [cat] on (a (blue) house)", .negative = negative };
    kw_request r = request(&wish, 1, "euler", 1);
    r.clip_skip = 2;
    r.noise = answer("emphasis", "noise")->data;
    kw_generated g = made(open_base(), &r);
    check("emphasis", &g);
}

/* ---- sources of noise -------------------------------------------------------------------------------------------- */

static void seeds(void **state)
{
    (void)state;
    static const float cuda[] = { -0.92466259f, -0.42534415f, -2.6438457f,
                                  0.14518388f };     /* A1111's rng_philox.py */
    uint64_t seed[] = { 0, 7 };
    float x[2 * 12], y[2 * 12], first[2 * 12];
    kw_noise_wish wish = { .kind = KW_SEEDS_GPU, .seed = seed, .n = 2, .channels = 1, .h = 3, .w = 4 };
    kw_noise_source *s = kw_noise_source_new(a, &wish);
    assert_int_equal(kw_noise_source_start(s, x, NULL), KW_OK);
    for (int i = 0; i < 4; i++)
        assert_true(fabsf(x[i] - cuda[i]) < 1e-6f);
    kw_noise_source_draw(s, 0, y);
    assert_memory_not_equal(x, y, sizeof x);
    wish.kind = KW_SEEDS_KIWAME;
    s = kw_noise_source_new(a, &wish);
    kw_noise_source_draw(s, 3, x);
    kw_noise_source_draw(s, -1, first);
    kw_noise_source_draw(s, 3, y);
    assert_memory_equal(x, y, sizeof x);  /* by index, not by order */
    assert_memory_not_equal(x, first, sizeof x);
}

static void given_noise_leaves_the_rest_alone(void **state)
{
    (void)state;
    float noise[4 * 8 * 8], step[4 * 8 * 8];
    const float *injected[2] = { NULL, step };
    kw_wish wish = { .prompt = prompt, .negative = negative, .seed = 3 };
    kw_pipeline *p = open_base();
    kw_request r = request(&wish, 1, "Euler a", 4);
    kw_generated seeded = made(p, &r), same, other;
    kw_noise_wish drawn = { .kind = KW_SEEDS_CPU, .seed = &wish.seed, .n = 1, .channels = 4, .h = 8, .w = 8 };
    kw_noise_source *s = kw_noise_source_new(a, &drawn);
    kw_noise_source_draw(s, -1, noise);
    kw_noise_source_draw(s, 0, step);
    kw_noise_source_draw(s, 1, step);
    r.noise = noise;
    r.injected = injected;
    r.n_injected = 2;
    same = made(p, &r);
    assert_memory_equal(same.latents, seeded.latents, sizeof noise);
    step[5] += 0.5f;
    other = made(p, &r);
    assert_memory_not_equal(other.latents, seeded.latents, sizeof noise);
}

/* ---- prompts of different lengths, states that are shared -------------------------------------------------------- */

static void long_prompt_short_negative(void **state)
{
    (void)state;
    char text[2000] = "";
    for (int i = 0; i < 60; i++)
        strcat(text, "red cat blue house ");
    kw_wish wish = { .prompt = text, .negative = negative, .seed = 3 };
    kw_pipeline *p = open_base();
    kw_request r = request(&wish, 1, "euler", 4);
    size_t n;
    assert_int_equal(kw_pipeline_windows(p, &(kw_reading){ 0 }, text, false, &n, NULL), KW_OK);
    assert_true(n > 1);
    kw_generated g = made(p, &r), again = made(p, &r);
    assert_memory_equal(g.latents, again.latents, 4 * 8 * 8 * sizeof(float));
}

static void over_open_parts(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt, .negative = negative, .seed = 3 };
    kw_request r = request(&wish, 1, "euler", 4);
    kw_pipeline *p = open_base(), *q;
    kw_generated g = made(p, &r), h;
    assert_int_equal(kw_pipeline_over(a, kw_pipeline_base(p), NULL, NULL, &(kw_pipeline_options){ .compute = KW_F32 },
                                      &q, NULL), KW_OK);
    h = made(q, &r);
    assert_memory_equal(g.latents, h.latents, 4 * 8 * 8 * sizeof(float));
    assert_int_equal(kw_pipeline_native(p), 16);
    assert_int_equal(kw_pipeline_factor(p), 2);
}

static void encode_is_the_way_back(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt, .negative = negative, .seed = 3 };
    kw_pipeline *p = open_base();
    kw_request r = request(&wish, 1, "euler", 4);
    kw_generated g = made(p, &r);
    float z[4 * 8 * 8];
    kw_picture again;
    kw_err e;
    assert_int_equal(kw_pipeline_encode(p, g.picture, z, &e), KW_OK);
    for (size_t i = 0; i < KW_LEN(z); i++)
        assert_true(isfinite(z[i]));
    assert_int_equal(kw_pipeline_decode(p, g.latents, g.h, g.w, &again, &e), KW_OK);
    assert_memory_equal(again.rgb, g.picture->rgb, 16 * 16 * 3);
    kw_picture_free(&again);
}

/* ---- LoRA -------------------------------------------------------------------------------------------------------- */

enum { RANK = 2, WIDTH = 16 };

/* down, up and alpha of one module; numbers from its name. */
static size_t module(kw_tensor *t, const char *name, int in, int out)
{
    static const char *const leaf[] = { "lora_down.weight", "lora_up.weight", "alpha" };
    int64_t shape[3][2] = { { RANK, in }, { out, RANK }, { 0 } };
    for (int k = 0; k < 3; k++) {
        size_t n = k == 2 ? 1 : (size_t)(shape[k][0] * shape[k][1]);
        float *x = kw_alloc_array(a, n, sizeof *x);
        kw_rng_normals((kw_rng){ .seed = strlen(name), .stream = KW_RNG_TEST, .step = (uint32_t)k }, 0, x, n);
        if (k == 2)
            *x = RANK;
        t[k] = (kw_tensor){ .name = kw_sprintf(a, "%s.%s", name, leaf[k]), .dtype = KW_F32, .rank = k == 2 ? 0 : 2,
                            .data = x, .bytes = n * 4 };
        memcpy(t[k].shape, shape[k], sizeof shape[k]);
    }
    return 3;
}

static const char *lora_file(int in, bool stray)
{
    kw_tensor t[12];
    size_t n = 0;
    kw_meta meta = { "ss_sd_model_name", "other.safetensors" };
    n += module(t + n, "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", in, WIDTH);
    n += module(t + n, "lora_te_text_model_encoder_layers_0_mlp_fc1", WIDTH, 32);
    if (stray)
        n += module(t + n, "lora_unet_nowhere_to_q", WIDTH, WIDTH);
    char *path = kw_sprintf(a, "/tmp/kw-test-lora-%d-%d-%d.safetensors", (int)getpid(), in, stray);
    assert_int_equal(kw_tensors_save(path, t, n, &meta, 1, NULL), KW_OK);
    return path;
}

static void lora_strengths(void **state)
{
    (void)state;
    const char *path = lora_file(WIDTH, false);
    kw_wish wish = { .prompt = prompt, .negative = negative, .seed = 3 };
    kw_request r = request(&wish, 1, "euler", 4);
    size_t bytes = 4 * 8 * 8 * sizeof(float);
    kw_pipeline *p = open_with(path, 1);
    kw_generated plain = made(open_base(), &r), full = made(p, &r), off, again;
    assert_int_equal(kw_pipeline_lora_modules(p, 0), 2);
    assert_true(relative(full.latents, plain.latents, bytes / 4) > 1e-3);
    assert_int_equal(kw_pipeline_strength(p, 0, 0, 0, NULL), KW_OK);
    off = made(p, &r);
    assert_memory_equal(off.latents, plain.latents, bytes);
    assert_int_equal(kw_pipeline_strength(p, 0, 1, 1, NULL), KW_OK);
    again = made(p, &r);
    assert_memory_equal(again.latents, full.latents, bytes);
    unlink(path);
}

static void lora_that_does_not_fit(void **state)
{
    (void)state;
    const char *stray = lora_file(WIDTH, true), *wide = lora_file(24, false);
    kw_pipeline *p;
    kw_err e;
    kw_pipeline_options o = { .compute = KW_F32 };
    kw_pipeline_lora l = { stray, 1, 1, false };
    assert_int_equal(kw_pipeline_open(a, BASE, NULL, &l, 1, &o, &p, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "3 of 9 keys"));
    assert_non_null(strstr(e.what, "lora_unet_nowhere_to_q.lora_down.weight"));
    o.partial = true;
    assert_int_equal(kw_pipeline_open(a, BASE, NULL, &l, 1, &o, &p, &e), KW_OK);
    assert_int_equal(kw_pipeline_lora_passed_over(p, 0), 3);
    l.path = wide;
    assert_int_equal(kw_pipeline_open(a, BASE, NULL, &l, 1, &o, &p, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "attn2_to_k changes a weight of 16 x 24, this base has [16, 16]"));
    assert_non_null(strstr(e.advice, "other.safetensors"));
    unlink(stray);
    unlink(wide);
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static kw_status stop(void *count, const kw_generate_at *at, kw_err *e)
{
    if (at->stage == KW_STAGE_STEP && at->done == 2)
        return kw_fail(e, KW_ESTOP, "stopped");
    if (at->stage == KW_STAGE_STEP && at->x0)
        ++*(int *)count;
    return KW_OK;
}

static void refused(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt, .negative = negative, .seed = 3 };
    kw_pipeline *p = open_base();
    kw_generated g;
    kw_err e;
    kw_request r = request(&wish, 1, "euler", 4);
    int count = 0;
    r.width = 17;
    assert_int_equal(kw_pipeline_generate(p, a, &r, &g, &e), KW_EUSAGE);
    assert_non_null(strstr(e.advice, "18 x 16"));
    r = request(&wish, 1, "euler", 4);
    r.clip_skip = 3;
    assert_int_equal(kw_pipeline_generate(p, a, &r, &g, &e), KW_EUSAGE);
    r = request(&wish, 1, "euler", 1e39);
    assert_int_equal(kw_pipeline_generate(p, a, &r, &g, &e), KW_ENUMERIC);
    r = request(&wish, 1, "euler", 4);
    r.progress = stop;
    r.ctx = &count;
    assert_int_equal(kw_pipeline_generate(p, a, &r, &g, &e), KW_ESTOP);
    assert_int_equal(count, 1);
    assert_int_equal(kw_pipeline_open(a, KW_TESTS "/golden/models/unet-tiny", NULL, NULL, 0,
                                      &(kw_pipeline_options){ 0 }, &p, &e), KW_EDATA);
}

/* Whatever is given up for memory, the picture stays the same to the bit. */
static void memory_changes_no_bit(void **state)
{
    static const struct { uint64_t memory; int tile; } rows[] = {
        { 0, KW_VAE_WHOLE }, { 1, KW_VAE_AUTO }, { 1, KW_VAE_WHOLE }, { 1000000000000, KW_VAE_AUTO }, { 0, 8 },
    };
    kw_wish wish = { .prompt = prompt, .negative = negative, .seed = 3 };
    kw_request r = request(&wish, 1, "euler", 4);
    kw_generated first = { 0 };
    (void)state;
    r.width = 40;
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_pipeline_options o = { .compute = KW_F32, .memory = rows[i].memory, .vae_tile = rows[i].tile };
        kw_pipeline *p;
        kw_pipeline_memory m;
        kw_err e;
        if (kw_pipeline_open(a, BASE, NULL, NULL, 0, &o, &p, &e)
            || kw_pipeline_forecast(p, 1, r.width, r.height, 1, true, &m, &e))
            fail_msg("%s", e.what);
        assert_true(m.sampling > 0 && m.pixels > 0);
        assert_int_equal(m.away, rows[i].memory == 1);
        for (int again = 0; again < 2; again++) {       /* after a picture, weights may have gone */
            kw_generated g = made(p, &r);
            if (!i && !again)
                first = g;
            assert_memory_equal(g.latents, first.latents, sizeof(float) * (size_t)(g.channels * g.h * g.w));
            assert_memory_equal(g.picture[0].rgb, first.picture[0].rgb, (size_t)(r.width * r.height * 3));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ddim), cmocka_unit_test(euler_ancestral_from_seeds), cmocka_unit_test(emphasis_and_clip_skip),
        cmocka_unit_test(seeds),
        cmocka_unit_test(given_noise_leaves_the_rest_alone), cmocka_unit_test(long_prompt_short_negative),
        cmocka_unit_test(over_open_parts),
        cmocka_unit_test(encode_is_the_way_back), cmocka_unit_test(lora_strengths),
        cmocka_unit_test(lora_that_does_not_fit), cmocka_unit_test(refused),
        cmocka_unit_test(memory_changes_no_bit),
    };
    return cmocka_run_group_tests(tests, start, end);
}
