/*
 * test_lora_kin.c - pictures with files that diffusers, PEFT and LyCORIS wrote, against those programs' own
 * (tools/golden/lora_kin.py --golden); strengths that change, blocks, many at once, branches and merged weights.
 */
#include "diffusion/diffusion.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BASE KW_TESTS "/golden/pipeline/base"
#define FILES KW_TESTS "/golden/lora/files/"

static kw_arena *a;
static kw_tensors *answers;

static int start(void **state)
{
    (void)state;
    a = kw_arena_new();
    return !a || kw_tensors_open(a, KW_TESTS "/golden/lora/answers.safetensors", &answers, NULL);
}

static int end(void **state)
{
    (void)state;
    kw_arena_free(a);
    return 0;
}

/* ---- drawing ---------------------------------------------------------------------------------------------------- */

enum { N = 4 * 8 * 8 };

static kw_pipeline *open_with(const kw_pipeline_lora *l, size_t n, bool merge)
{
    kw_pipeline *p = NULL;
    kw_err e;
    kw_pipeline_options o = { .compute = KW_F32, .merge = merge };
    if (kw_pipeline_open(a, BASE, NULL, l, n, &o, &p, &e))
        fail_msg("%s (%s)", e.what, e.advice);
    return p;
}

static const float *drawn(kw_pipeline *p)
{
    kw_wish wish = { .prompt = "a photo of a red cat on a blue house", .negative = "dark water" };
    kw_request r = { .wish = &wish,
                     .n = 1,
                     .width = 16,
                     .height = 16,
                     .cfg = 4,
                     .clip_skip = 1,
                     .seeds = KW_SEEDS_CPU,
                     .sampling = { .sampler = kw_sampler_find("ddim", NULL),
                                   .spacing = KW_SPACING_DIFFUSERS,
                                   .steps = 5,
                                   .eta = -1 },
                     .noise = kw_tensors_find(answers, "noise")->data };
    kw_generated g;
    kw_err e;
    if (kw_pipeline_generate(p, a, &r, &g, &e))
        fail_msg("%s", e.what);
    return g.latents;
}

static double relative(const float *x, const float *y)
{
    double d = 0, s = 0;
    for (int i = 0; i < N; i++) {
        d += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        s += (double)y[i] * (double)y[i];
    }
    return sqrt(d / s);
}

/* ---- the others' pictures --------------------------------------------------------------------------------------- */

static const struct { const char *answer, *files[2]; } rows[] = {
    { "diffusers.weights", { "diffusers/weights", NULL } },
    { "diffusers.old", { "diffusers/old/file.safetensors", NULL } },
    { "diffusers.2023", { "diffusers/2023/file.safetensors", NULL } },
    { "diffusers.comfy", { "diffusers/comfy/file.safetensors", NULL } },
    { "diffusers.kohya", { "diffusers/kohya/file.safetensors", NULL } },
    { "peft.patterns", { "peft/patterns/unet", "peft/patterns/text_encoder" } },
    { "lycoris.lokr-factor", { "lycoris/lokr-factor.safetensors", NULL } },
};

static size_t files_of(size_t i, kw_pipeline_lora l[2])
{
    size_t n = 0;
    for (; n < 2 && rows[i].files[n]; n++)
        l[n] = (kw_pipeline_lora){ kw_sprintf(a, FILES "%s", rows[i].files[n]), 1, 1, false };
    return n;
}

static void as_the_others(void **state)
{
    (void)state;
    const float *plain = drawn(open_with(NULL, 0, false));
    for (size_t i = 0; i < KW_LEN(rows); i++)
        for (int merge = 0; merge < 2; merge++) {
            kw_pipeline_lora l[2];
            const float *want = kw_tensors_find(answers, rows[i].answer)->data,
                        *got = drawn(open_with(l, files_of(i, l), merge));
            double error = relative(got, want), moved = relative(plain, want);
            printf("%-20s %s latents %.1e, without it %.1e\n", rows[i].answer, merge ? "merged " : "at run ", error,
                   moved);
            assert_true(error <= 1e-5 && moved > 1e-2);
        }
}

/* ---- strengths -------------------------------------------------------------------------------------------------- */

/* From picture to picture: 0 is the base to the bit, 1 again what it was to the bit, merged or not. */
static void strengths_change(void **state)
{
    (void)state;
    static const char *const files[] = { FILES "lycoris/lokr-factor.safetensors",
                                         FILES "diffusers/kohya/file.safetensors" };
    const float *plain = drawn(open_with(NULL, 0, false));
    for (int i = 0; i < 4; i++) {
        kw_pipeline_lora l = { files[i & 1], 1, 1, false };
        kw_pipeline *p = open_with(&l, 1, i & 2);
        const float *one = drawn(p);
        assert_true(relative(plain, one) > 1e-2);
        assert_int_equal(kw_pipeline_strength(p, 0, 0, 0, NULL), KW_OK);
        assert_memory_equal(drawn(p), plain, N * sizeof *plain);
        assert_int_equal(kw_pipeline_strength(p, 0, 0.5, 1.5, NULL), KW_OK);
        assert_true(relative(drawn(p), one) > 1e-3);
        assert_int_equal(kw_pipeline_strength(p, 0, 1, 1, NULL), KW_OK);
        assert_memory_equal(drawn(p), one, N * sizeof *one);
    }
}

/* Factors of blocks: all 1 is the file, all 0 the base; beside the layers and merged they are the same. */
static void blocks(void **state)
{
    (void)state;
    static const char file[] = FILES "diffusers/kohya/file.safetensors";
    kw_pipeline_lora l = { file, 1, 1, true };
    kw_pipeline *p = open_with(&l, 1, false), *m = open_with(&l, 1, true);
    float factors[KW_LORA_BLOCKS];
    const float *plain = drawn(open_with(NULL, 0, false)), *full = drawn(p);
    l.by_block = false;
    assert_memory_equal(drawn(open_with(&l, 1, false)), full, N * sizeof *full);
    assert_int_equal(kw_lora_blocks_parse("BASE=0,IN=0,M00=0,OUT=0", factors, NULL), KW_OK);
    assert_int_equal(kw_pipeline_strengths(p, 0, 1, 1, factors, NULL), KW_OK);
    assert_memory_equal(drawn(p), plain, N * sizeof *plain);
    assert_int_equal(kw_lora_blocks_parse("IN=0.5,OUT=0,BASE=0.25", factors, NULL), KW_OK);
    assert_int_equal(kw_pipeline_strengths(p, 0, 1, 1, factors, NULL), KW_OK);
    assert_int_equal(kw_pipeline_strengths(m, 0, 1, 1, factors, NULL), KW_OK);
    const float *x = drawn(p), *y = drawn(m);
    assert_true(relative(x, full) > 1e-3 && relative(x, plain) > 1e-3);
    assert_true(relative(x, y) < 1e-5);
}

/* Twenty at once: each a twentieth of the whole is the whole. */
static void many(void **state)
{
    (void)state;
    kw_pipeline_lora l[KW_PIPELINE_LORAS + 1];
    kw_pipeline *p;
    kw_err e;
    kw_pipeline_options o = { .compute = KW_F32 };
    for (size_t i = 0; i < KW_LEN(l); i++)
        l[i] = (kw_pipeline_lora){ FILES "diffusers/kohya/file.safetensors", 0.05, 0.05, false };
    const float *want = kw_tensors_find(answers, "diffusers.kohya")->data;
    assert_true(relative(drawn(open_with(l, 20, false)), want) < 2e-5);
    assert_true(relative(drawn(open_with(l, 20, true)), want) < 2e-5);
    assert_int_equal(kw_pipeline_open(a, BASE, NULL, l, KW_LEN(l), &o, &p, &e), KW_EUSAGE);
}

/*
 * A 1x1 convolution's LoRA in a linear layer's shape and the other way round (SD 2.x's proj_in as kohya writes it): the
 * same bits beside the layers, and merged.
 */
static void other_shapes(void **state)
{
    (void)state;
    kw_tensors *file;
    const char *path = kw_sprintf(a, "/tmp/kw-test-shapes-%d.safetensors", (int)getpid());
    kw_pipeline_lora was = { FILES "diffusers/kohya/file.safetensors", 1, 1, false }, l = { path, 1, 1, false };
    assert_int_equal(kw_tensors_open(a, was.path, &file, NULL), KW_OK);
    size_t n = kw_tensors_n(file), turned = 0;
    kw_tensor *t = kw_alloc_array(a, n, sizeof *t);
    for (size_t i = 0; i < n; i++) {
        t[i] = *kw_tensors_at(file, i);
        bool flat = t[i].rank == 2,
             one = t[i].rank == 4 && t[i].shape[2] == 1 && t[i].shape[3] == 1 && strstr(t[i].name, "proj_in");
        if (flat)
            t[i].shape[2] = t[i].shape[3] = 1;
        t[i].rank = flat ? 4 : one ? 2 : t[i].rank;
        turned += flat || one;
    }
    assert_true(turned > 20);
    assert_int_equal(kw_tensors_save(path, t, n, NULL, 0, NULL), KW_OK);
    for (int merge = 0; merge < 2; merge++)
        assert_memory_equal(drawn(open_with(&l, 1, merge)), drawn(open_with(&was, 1, merge)), N * sizeof(float));
    unlink(path);
}

/* A method that is merged names the base it was made for as well. */
static void another_base(void **state)
{
    (void)state;
    float x[2 * 768] = { 0 }, y[16 * 2] = { 0 };
    kw_tensor t[] = {
        { .name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lokr_w1",
          .dtype = KW_F32,
          .rank = 2,
          .shape = { 2, 768 },
          .data = x,
          .bytes = sizeof x },
        { .name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lokr_w2",
          .dtype = KW_F32,
          .rank = 2,
          .shape = { 16, 1 },
          .data = y,
          .bytes = sizeof y / 2 },
    };
    const char *path = kw_sprintf(a, "/tmp/kw-test-kin-%d.safetensors", (int)getpid());
    kw_pipeline_lora l = { path, 1, 1, false };
    kw_pipeline_options o = { .compute = KW_F32 };
    kw_pipeline *p;
    kw_err e;
    assert_int_equal(kw_tensors_save(path, t, 2, NULL, 0, NULL), KW_OK);
    assert_int_equal(kw_pipeline_open(a, BASE, NULL, &l, 1, &o, &p, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "32 x 768"));
    assert_non_null(strstr(e.advice, "Stable Diffusion 1.x"));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_the_others), cmocka_unit_test(strengths_change), cmocka_unit_test(blocks),
        cmocka_unit_test(many),          cmocka_unit_test(another_base),     cmocka_unit_test(other_shapes),
    };
    return cmocka_run_group_tests(tests, start, end);
}
