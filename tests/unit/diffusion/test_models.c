/*
 * test_models.c - pictures of what came after SD 1.x against diffusers' (tools/golden/generate.py --golden
 * --golden-new): SDXL with both its encoders, pooled text and sizes; SD 2 with OpenCLIP's padding, v prediction and a
 * mask.
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
#include <unistd.h>

#define FOLDER KW_TESTS "/golden/pipeline/"

static const char prompt[] = "a photo of a red cat on a blue house", negative[] = "dark water";

static kw_arena *a;

static int start(void **state)
{
    (void)state;
    a = kw_arena_new();
    return !a;
}

static int end(void **state)
{
    (void)state;
    kw_arena_free(a);
    return 0;
}

static kw_pipeline *base(const char *name)
{
    kw_pipeline *p = NULL;
    kw_err e;
    kw_pipeline_options o = { .compute = KW_F32 };
    if (kw_pipeline_open(a, kw_sprintf(a, FOLDER "%s", name), NULL, NULL, 0, &o, &p, &e))
        fail_msg("%s", e.what);
    return p;
}

static const kw_tensor *answer(const char *file, const char *name, const char *leaf)
{
    kw_tensors *all;
    assert_int_equal(kw_tensors_open(a, kw_sprintf(a, FOLDER "%s", file), &all, NULL), KW_OK);
    const kw_tensor *t = kw_tensors_find(all, kw_sprintf(a, "%s.%s", name, leaf));
    assert_non_null(t);
    return t;
}

static kw_request request(kw_wish *wish, const char *sampler, double cfg)
{
    return (kw_request){ .wish = wish, .n = 1, .width = 16, .height = 16, .cfg = cfg, .clip_skip = 1,
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

/* Measured: latents 2e-7 to 2.2e-6, pictures equal. */
static void check(const char *file, const char *name, const kw_generated *g)
{
    const kw_tensor *latents = answer(file, name, "latents"), *pixels = answer(file, name, "pixels");
    const float *want = latents->data;
    double d = 0, s = 0;
    int worst = 0;
    for (int64_t i = 0; i < kw_tensor_count(latents); i++) {
        d += pow((double)g->latents[i] - (double)want[i], 2);
        s += (double)want[i] * (double)want[i];
    }
    for (int64_t i = 0; i < kw_tensor_count(pixels); i++)
        worst = KW_MAX(worst, abs(g->picture[0].rgb[i] - ((const uint8_t *)pixels->data)[i]));
    printf("%-10s latents %.1e, pictures within %d/255\n", name, sqrt(d / s), worst);
    assert_true(sqrt(d / s) <= 1e-5);
    assert_true(worst <= 1);
}

#define XL "answers_xl.safetensors"
#define V2 "answers_v2.safetensors"

/* ---- SDXL -------------------------------------------------------------------------------------------------------- */

static void xl(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt, .negative = negative };
    kw_request r = request(&wish, "euler", 4);
    r.noise = answer(XL, "xl", "noise")->data;
    kw_generated g = made(base("xl"), &r);
    check(XL, "xl", &g);
    r.clip_skip = 2;                      /* the same layer */
    g = made(base("xl"), &r);
    check(XL, "xl", &g);
}

/* No negative prompt: zeros, not the encoded empty text. */
static void zeros(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt };
    kw_request r = request(&wish, "ddim", 4);
    r.noise = answer(XL, "xl_zeros", "noise")->data;
    kw_generated g = made(base("xl"), &r);
    check(XL, "xl_zeros", &g);
}

static void sizes(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt };
    kw_request r = request(&wish, "ddim", 1);
    r.noise = answer(XL, "xl_sizes", "noise")->data;
    r.sizes = (kw_sizes){ 96, 64, 8, 20, 32, 48 };
    kw_generated g = made(base("xl"), &r);
    check(XL, "xl_sizes", &g);
}

/* Four windows, the pooled text of the first; the layer before SDXL's own; zeros of as many windows. */
static void long_prompt(void **state)
{
    (void)state;
    kw_str text = { 0 };
    for (int i = 0; i < 20; i++)
        kw_str_add(&text, "a red cat, a blue house, ");
    kw_wish wish = { .prompt = text.s };
    kw_request r = request(&wish, "euler", 3);
    r.noise = answer(XL, "xl_long", "noise")->data;
    r.clip_skip = 3;
    kw_generated g = made(base("xl"), &r);
    check(XL, "xl_long", &g);
    kw_str_free(&text);
}

/* Pictures of one batch with and without a negative prompt are what they are alone. */
static void zeros_in_a_batch(void **state)
{
    (void)state;
    kw_wish wish[2] = { { .prompt = prompt, .negative = negative, .seed = 1 }, { .prompt = prompt, .seed = 2 } };
    kw_request r = request(wish, "euler", 4);
    kw_pipeline *p = base("xl");
    r.n = 2;
    kw_generated both = made(p, &r), one;
    r.n = 1;
    for (int k = 0; k < 2; k++) {
        r.wish = wish + k;
        one = made(p, &r);
        for (int i = 0; i < 4 * 8 * 8; i++)
            assert_true(fabsf(one.latents[i] - both.latents[k * 4 * 8 * 8 + i]) < 1e-4f);
    }
}

/* ---- SD 2, inpainting -------------------------------------------------------------------------------------------- */

static void whole_mask(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt, .negative = negative };
    kw_request r = request(&wish, "euler", 4);
    kw_pipeline *p = base("v2-inpaint");
    assert_true(kw_pipeline_inpaints(p));
    r.noise = answer(V2, "v2", "noise")->data;
    kw_generated g = made(p, &r);
    check(V2, "v2", &g);
}

static void half_mask(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = prompt, .negative = negative };
    kw_request r = request(&wish, "ddim", 4);
    r.noise = answer(V2, "v2_mask", "noise")->data;
    r.mask = answer(V2, "v2_mask", "mask")->data;
    r.masked = answer(V2, "v2_mask", "masked")->data;
    kw_generated g = made(base("v2-inpaint"), &r);
    check(V2, "v2_mask", &g);
}

static void masks_are_refused(void **state)
{
    (void)state;
    static float some[4 * 8 * 8];
    kw_wish wish = { .prompt = prompt };
    kw_request r = request(&wish, "ddim", 1);
    kw_generated g;
    kw_err e;
    r.mask = some;
    assert_int_equal(kw_pipeline_generate(base("v2-inpaint"), a, &r, &g, &e), KW_EUSAGE);
    assert_non_null(strstr(e.what, "both"));
    r.masked = some;
    assert_int_equal(kw_pipeline_generate(base("xl"), a, &r, &g, &e), KW_EUSAGE);
    assert_non_null(strstr(e.what, "mask"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(xl), cmocka_unit_test(zeros), cmocka_unit_test(sizes), cmocka_unit_test(long_prompt),
        cmocka_unit_test(zeros_in_a_batch), cmocka_unit_test(whole_mask), cmocka_unit_test(half_mask),
        cmocka_unit_test(masks_are_refused),
    };
    return cmocka_run_group_tests(tests, start, end);
}
