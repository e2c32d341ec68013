/*
 * test_delta.c - what LyCORIS's and PEFT's files make of weights, against those programs' own forward passes
 * (tools/golden/lora_kin.py --golden): each method on a linear layer, a 3x3 and a 1x1 convolution.
 */
#include "adapter/adapter.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define GOLDEN KW_TESTS "/golden/lora/"

static const char *const paths[] = { "mid_block.attentions.0.proj_in", "mid_block.resnets.0.conv1",
                                     "mid_block.resnets.0.conv_shortcut" };

/*  file, kind, does LyCORIS's W' at 0.6 count? (DoRA and rescaled OFT follow A1111 there)  */
static const struct { const char *file; kw_delta_kind kind; bool other; } rows[] = {
    { "lycoris/lora.safetensors", KW_DELTA_LORA, true },
    { "lycoris/locon.safetensors", KW_DELTA_LORA, true },
    { "lycoris/rslora.safetensors", KW_DELTA_LORA, true },
    { "lycoris/locon-tucker.safetensors", KW_DELTA_LORA, true },
    { "lycoris/dora.safetensors", KW_DELTA_LORA, false },
    { "lycoris/dora-in.safetensors", KW_DELTA_LORA, false },
    { "lycoris/dora-tucker.safetensors", KW_DELTA_LORA, false },
    { "lycoris/loha.safetensors", KW_DELTA_LOHA, true },
    { "lycoris/loha-tucker.safetensors", KW_DELTA_LOHA, true },
    { "lycoris/doha.safetensors", KW_DELTA_LOHA, false },
    { "lycoris/lokr.safetensors", KW_DELTA_LOKR, true },
    { "lycoris/lokr-both.safetensors", KW_DELTA_LOKR, true },
    { "lycoris/lokr-full.safetensors", KW_DELTA_LOKR, true },
    { "lycoris/lokr-tucker.safetensors", KW_DELTA_LOKR, true },
    { "lycoris/lokr-factor.safetensors", KW_DELTA_LOKR, true },
    { "lycoris/dokr.safetensors", KW_DELTA_LOKR, false },
    { "lycoris/ia3.safetensors", KW_DELTA_IA3, true },
    { "lycoris/full.safetensors", KW_DELTA_FULL, true },
    { "lycoris/full-norm.safetensors", KW_DELTA_FULL, true },
    { "lycoris/glora.safetensors", KW_DELTA_GLORA, true },
    { "lycoris/diag-oft.safetensors", KW_DELTA_OFT, true },
    { "lycoris/diag-oft-rescaled.safetensors", KW_DELTA_OFT, false },
    { "lycoris/boft.safetensors", KW_DELTA_BOFT, true },
    { "lycoris/boft-rescaled.safetensors", KW_DELTA_BOFT, false },
    { "peft/lora", KW_DELTA_LORA, false },
    { "peft/rslora", KW_DELTA_LORA, false },
    { "peft/dora", KW_DELTA_LORA, false },
    { "peft/conv-dora", KW_DELTA_LORA, false },
    { "peft/bias", KW_DELTA_LORA, false },
    { "peft/loha", KW_DELTA_LOHA, false },
    { "peft/lokr", KW_DELTA_LOKR, false },
    { "peft/ia3", KW_DELTA_IA3, false },
};

static const kw_tensor *answer(const kw_lora_file *f, const char *path, const char *what)
{
    char name[200];
    snprintf(name, sizeof name, "answer.%s.%s", path, what);
    return kw_tensors_find(f->file, name);
}

/* The largest error of W' (or of the bias), as a share of the largest |W'|. */
static double error(kw_arena *a, const kw_lora_file *f, const char *path, double strength, bool bias)
{
    const kw_tensor *w = answer(f, path, bias ? "b" : "w"), *made = answer(f, path,
                                                                           strength == 1 ? bias ? "b1" : "w1"
                                                                           : bias        ? "b0.6"
                                                                                         : "w0.6");
    const kw_delta *d = kw_lora_file_find(f, KW_PART_UNET, path);
    kw_err e;
    assert_non_null(w);
    assert_non_null(made);
    int64_t n = kw_tensor_count(w), r = w->shape[0];
    float *v = kw_alloc_array(a, (size_t)n, sizeof *v);
    const float *want = made->data;
    double worst = 0, largest = 0;
    memcpy(v, w->data, (size_t)n * sizeof *v);
    if (d && (bias ? kw_delta_apply_bias(d, strength, v, n, &e) : kw_delta_apply(d, strength, v, r, n / r, &e)))
        fail_msg("%s", e.what);
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)v[i] - (double)want[i]));
        largest = fmax(largest, fabs((double)want[i]));
    }
    return worst / largest;
}

static void as_the_others(void **state)
{
    (void)state;
    double all = 0;
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_arena *a = kw_arena_new();
        kw_lora_file *f;
        kw_err e;
        char path[300];
        double worst = 0;
        snprintf(path, sizeof path, GOLDEN "%s", rows[i].file);
        if (kw_lora_file_open(a, path, NULL, &f, &e))
            fail_msg("%s", e.what);
        assert_true(f->n >= 2 && f->n <= 3);
        assert_int_equal(f->item[0].kind, rows[i].kind);
        for (size_t k = 0; k < f->n_unknown; k++)
            assert_non_null(strstr(f->unknown[k], "answer."));
        for (size_t k = 0; k < KW_LEN(paths); k++)
            for (int other = 0; other <= rows[i].other; other++)
                for (int bias = 0; bias < 2; bias++)
                    worst = fmax(worst, error(a, f, paths[k], other ? 0.6 : 1, bias));
        if (worst > 2e-6)
            fail_msg("%s: off by %g", rows[i].file, worst);
        all = fmax(all, worst);
        kw_arena_free(a);
    }
    printf("%zu files, W' off by at most %.1e (limit 2e-6)\n", KW_LEN(rows), all);
}

/* Strength 0 leaves every weight alone, also where methods multiply. */
static void nothing_at_zero(void **state)
{
    (void)state;
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_arena *a = kw_arena_new();
        kw_lora_file *f;
        char path[300];
        float w[8 * 54], was[8 * 54], b[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, was_b[8];
        snprintf(path, sizeof path, GOLDEN "%s", rows[i].file);
        assert_int_equal(kw_lora_file_open(a, path, NULL, &f, NULL), KW_OK);
        const kw_delta *d = kw_lora_file_find(f, KW_PART_UNET, paths[1]);
        for (size_t k = 0; k < KW_LEN(w); k++)
            was[k] = w[k] = (float)sin((double)k);
        memcpy(was_b, b, sizeof b);
        if (d) {
            assert_int_equal(kw_delta_apply(d, 0, w, 8, 54, NULL), KW_OK);
            assert_int_equal(kw_delta_apply_bias(d, 0, b, 8, NULL), KW_OK);
            assert_memory_equal(w, was, sizeof w);
            assert_memory_equal(b, was_b, sizeof b);
            assert_int_equal(kw_delta_apply(d, 1, w, 6, 72, NULL), KW_EDATA);
        }
        kw_arena_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(as_the_others), cmocka_unit_test(nothing_at_zero) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
