/*
 * test_family.c - the families that come with the program: their sizes against the published ones, their configurations
 * against those the small bases are made from; and models made of them in memory.
 */
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static json_t *config_of(kw_arena *a, const char *name)
{
    json_t *config;
    kw_err e = { 0 };
    if (kw_family_config(a, name, &config, &e))
        fail_msg("%s: %s", name, e.what);
    return config;
}

static kw_source *made(kw_arena *a, const char *name, kw_dtype t)
{
    kw_source *s;
    kw_err e = { 0 };
    if (kw_family_made(a, name, config_of(a, name), t, &s, &e))
        fail_msg("%s: %s", name, e.what);
    return s;
}

static int64_t parameters(const kw_source *s, kw_part p)
{
    int64_t n = 0;
    for (size_t i = 0; i < kw_source_n(s, p); i++)
        n += kw_tensor_count(kw_source_at(s, p, i));
    return n;
}

/*
 * Published: diffusers' UNet2DConditionModel of SD 1.5 and of SDXL, AutoencoderKL, CLIP ViT-L/14's text half. SDXL's
 * second encoder (OpenCLIP bigG) has 694,659,840 with its projection of 1280 x 1280, which this builder does not make.
 */
static void sizes_are_the_published_ones(void **state)
{
    (void)state;
    static const struct { const char *name; kw_part part; int64_t n; } rows[] = {
        { "sd15", KW_PART_UNET, 859520964 },  { "sd15", KW_PART_VAE, 83653863 },  { "sd15", KW_PART_TEXT, 123060480 },
        { "sdxl", KW_PART_UNET, 2567463684 }, { "sdxl", KW_PART_VAE, 83653863 },  { "sdxl", KW_PART_TEXT, 123060480 },
        { "sdxl", KW_PART_TEXT2, 694659840 }, { "shapes", KW_PART_UNET, 253364 },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_arena *a = kw_arena_new();
        int64_t n = parameters(made(a, rows[i].name, KW_BF16), rows[i].part);
        if (n != rows[i].n)
            fail_msg("%s %s: %lld parameters, not %lld", rows[i].name, kw_part_name(rows[i].part), (long long)n,
                     (long long)rows[i].n);
        kw_arena_free(a);
    }
}

/* The small bases are trained from tools/base: what is embedded must be the same. */
static void small_families_are_those_of_the_bases(void **state)
{
    (void)state;
    static const struct { const char *name, *dir; } rows[] = { { "emoji", "emoji-128" }, { "shapes", "shapes" } };
    static const char *const parts[][2] = {
        { "unet", "config" }, { "vae", "config" }, { "text_encoder", "config" }, { "scheduler", "scheduler_config" }
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_arena *a = kw_arena_new();
        json_t *all = config_of(a, rows[i].name), *file;
        for (size_t k = 0; k < KW_LEN(parts); k++) {
            kw_err e = { 0 };
            char *path =
                kw_sprintf(a, "%s/../tools/base/%s/%s/%s.json", KW_TESTS, rows[i].dir, parts[k][0], parts[k][1]);
            assert_int_equal(kw_json_read(a, path, &file, &e), KW_OK);
            if (!json_equal(file, json_object_get(all, parts[k][0])))
                fail_msg("data/families/%s.json: %s is not that of %s", rows[i].name, parts[k][0], path);
        }
        assert_int_equal(json_object_size(all), KW_LEN(parts));
        kw_arena_free(a);
    }
}

/* SDXL's added embedding takes the pooled text and the sinusoids of six sizes, no more: 6 + 6 x 4 here. */
static void fresh_weights_fit_their_configuration(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_err e = { 0 };
    json_t *config;
    kw_tensor *list;
    size_t n;
    bool found = false;
    char *path = kw_sprintf(a, "%s/golden/models/unet-sdxl-tiny/config.json", KW_TESTS);
    assert_int_equal(kw_json_read(a, path, &config, &e), KW_OK);
    if (kw_init_part(a, KW_PART_UNET, config, 1, &list, &n, &e))
        fail_msg("%s", e.what);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i].name, "add_embedding.linear_1.weight"))
            found = list[i].shape[1] == 30;
    assert_true(found);
    kw_arena_free(a);
}

static void unknown_family_is_named(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_err e = { 0 };
    json_t *config;
    assert_int_equal(kw_family_config(a, "sd99", &config, &e), KW_EUSAGE);
    assert_non_null(strstr(e.what, "sd99"));
    assert_non_null(strstr(e.advice, "sdxl"));
    for (int i = 0; kw_family_name(i); i++)
        assert_non_null(strstr(e.advice, kw_family_name(i)));
    kw_arena_free(a);
}

/* Numbers of a tensor in f32. */
static float *values(kw_arena *a, const kw_tensor *t)
{
    size_t n = (size_t)kw_tensor_count(t);
    float *v = kw_alloc_array(a, n, sizeof *v);
    kw_convert(KW_F32, v, t->dtype, t->data, n);
    return v;
}

/* Uniform in ±0.02 has the deviation 0.02/√3; that of 9,216 numbers is within 3 % of it (4 deviations: 2.6 %). */
static void weights_are_random_and_of_their_type(void **state)
{
    (void)state;
    static const kw_dtype types[] = { KW_F32, KW_F16, KW_BF16 };
    for (size_t k = 0; k < KW_LEN(types); k++) {
        kw_arena *a = kw_arena_new();
        kw_source *s = made(a, "shapes", types[k]);
        const kw_tensor *w = kw_source_find(s, KW_PART_UNET, "mid_block.resnets.0.conv1.weight");
        const kw_tensor *gamma = kw_source_find(s, KW_PART_UNET, "conv_norm_out.weight"),
                        *beta = kw_source_find(s, KW_PART_UNET, "conv_norm_out.bias");
        assert_true(w && gamma && beta && w->dtype == types[k] && w->mapped && !gamma->mapped);
        float *v = values(a, w);
        double squares = 0;
        int64_t n = kw_tensor_count(w);
        assert_int_equal(n, 32 * 32 * 9);
        for (int64_t i = 0; i < n; i++) {
            assert_true(fabsf(v[i]) <= 0.0201f);
            squares += (double)v[i] * (double)v[i];
        }
        assert_float_equal(sqrt(squares / (double)n) / (0.02 / sqrt(3)), 1, 0.03);
        for (int64_t i = 0; i < kw_tensor_count(gamma); i++)
            assert_true(values(a, gamma)[i] == 1 && values(a, beta)[i] == 0);
        kw_arena_free(a);
    }
}

/* All of it is there, though far more than the window: the first and the last number of each of SDXL's tensors. */
static void a_window_shows_the_whole_model(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_source *s = made(a, "sdxl", KW_BF16);
    for (size_t i = 0; i < kw_source_n(s, KW_PART_UNET); i++) {
        const kw_tensor *t = kw_source_at(s, KW_PART_UNET, i);
        float ends[2];
        if (t->rank < 2)
            continue;
        kw_convert(KW_F32, &ends[0], t->dtype, t->data, 1);
        kw_convert(KW_F32, &ends[1], t->dtype, (const char *)t->data + t->bytes - 2, 1);
        assert_true(fabsf(ends[0]) <= 0.0201f && fabsf(ends[1]) <= 0.0201f && !((uintptr_t)t->data % 64));
    }
    kw_arena_free(a);
}

/* It opens as a model on disk does. */
static void a_made_model_opens(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_err e = { 0 };
    kw_sd *sd;
    assert_int_equal(kw_sd_over(a, made(a, "emoji", KW_F16), NULL, kw_store_new(a), KW_F32, NULL, NULL, &sd, &e),
                     KW_OK);
    assert_true(sd->has[KW_PART_UNET] && sd->has[KW_PART_VAE] && sd->has[KW_PART_TEXT] && !sd->has[KW_PART_TEXT2]);
    assert_int_equal(sd->unet.context[0], sd->text.width);
    assert_string_equal(kw_source_noise(sd->source)->prediction_type, "v_prediction");
    assert_string_equal(kw_source_path(sd->source), "emoji");
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_the_published_ones),
        cmocka_unit_test(small_families_are_those_of_the_bases),
        cmocka_unit_test(fresh_weights_fit_their_configuration),
        cmocka_unit_test(unknown_family_is_named),
        cmocka_unit_test(weights_are_random_and_of_their_type),
        cmocka_unit_test(a_window_shows_the_whole_model),
        cmocka_unit_test(a_made_model_opens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
