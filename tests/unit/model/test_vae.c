/*
 * test_vae.c - the autoencoder in stripes against itself as a whole: every number, in every type, for sizes that leave
 * odd rests; how much memory stripes save; and that a fault in a stripe's edge would be seen.
 */
#include "model/model.h"
#include "ops/ops.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

enum { TRAINED = -2 };                    /* a tile: the graph that has gradients */

/* SD's autoencoder with fewer channels. */
static kw_sd *small_sd(kw_arena *a, const int channels[4], kw_dtype exact)
{
    json_t *config, *list = json_array();
    kw_source *source;
    kw_sd *sd = NULL;
    kw_err e = { 0 };
    if (kw_family_config(a, "sd15", &config, &e))
        fail_msg("%s", e.what);
    for (int i = 0; i < 4; i++)
        json_array_append_new(list, json_integer(channels[i]));
    json_object_set_new(json_object_get(config, "vae"), "block_out_channels", list);
    if (kw_family_made(a, "small", config, KW_F32, &source, &e)
        || kw_sd_over(a, source, NULL, kw_store_new(a), exact, NULL, NULL, &sd, &e))
        fail_msg("%s", e.what);
    return sd;
}

static kw_program *program(kw_arena *a, const kw_sd *sd, const kw_vae_work *k, int tile)
{
    kw_program *p;
    kw_err e = { 0 };
    if (tile != TRAINED) {
        if (kw_vae_program(a, sd, k, tile, NULL, &p, &e))
            fail_msg("%s", e.what);
        return p;
    }
    kw_graph *g = kw_graph_new(a, k->compute);
    kw_net n = kw_net_over(g, sd->params[KW_PART_VAE]);
    int f = kw_vae_factor(&sd->vae);
    kw_val x = k->decode ? kw_input(g, "z", KW_SHAPE(k->n, k->h, k->w, 4), KW_F32)
                         : kw_input(g, "image", KW_SHAPE(k->n, k->h * f, k->w * f, 3), KW_F32);
    x = kw_cast(g, x, k->compute);
    kw_result(g, "y", kw_cast(g, k->decode ? kw_vae_decode(&n, &sd->vae, x) : kw_vae_encode(&n, &sd->vae, x), KW_F32));
    if (kw_program_new(a, g, sd->store, NULL, &p, &e))
        fail_msg("%s", e.what);
    return p;
}

static float *run(kw_arena *a, kw_program *p, size_t *n)
{
    static float input[1 << 20];
    kw_err e = { 0 };
    const kw_rng r = { .seed = 3, .stream = KW_RNG_TEST };
    for (size_t i = 0; i < KW_LEN(input); i++)
        input[i] = 2 * kw_rng_float(r, i) - 1;
    kw_program_set(p, "z", input);
    kw_program_set(p, "image", input);
    if (kw_program_run(p, kw_workspace_new(a), &e))
        fail_msg("%s", e.what);
    *n = (size_t)kw_count(kw_program_result_shape(p, "y"));
    float *y = kw_alloc_array(a, *n, sizeof *y);
    memcpy(y, kw_program_result(p, "y"), *n * sizeof *y);
    return y;
}

/* Relative L2. */
static double difference(const float *x, const float *y, size_t n)
{
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += (double)(x[i] - y[i]) * (double)(x[i] - y[i]);
        s += (double)y[i] * (double)y[i];
    }
    assert_true(isfinite(s) && s > 0);
    return sqrt(d / s);
}

/* Stripes against the whole, and against the graph of training. */
static void compare(const int channels[4], kw_vae_work k, const int *tile, int n_tiles, double limit)
{
    static const char *const type[] = { [KW_F32] = "f32", [KW_BF16] = "bf16", [KW_F64] = "f64" };
    bool own = strcmp(kw_kern_get()->isa, "avx512");           /* convolutions are ours, or the reference's */
    kw_arena *a = kw_arena_new();
    const kw_sd *sd = small_sd(a, channels, kw_sum_type(k.compute));
    size_t n, m;
    const float *whole = run(a, program(a, sd, &k, KW_VAE_WHOLE), &n);
    const float *trained = run(a, program(a, sd, &k, TRAINED), &m);
    assert_int_equal(n, m);
    double d = difference(whole, trained, n);
    printf("%s %s %dx%d: whole against training's graph %.1e / %.0e\n", k.decode ? "decode" : "encode",
           type[k.compute], k.w, k.h, d, limit);
    assert_true(d <= limit);
    for (int i = 0; i < n_tiles; i++) {
        kw_program *p = program(a, sd, &k, tile[i]);
        const float *y = run(a, p, &m);
        d = difference(y, whole, n);
        printf("  tile %d: %.1e, %zu nodes\n", tile[i], d, kw_program_graph(p)->n_nodes);
        assert_true(own ? !memcmp(y, whole, n * sizeof *y) : d <= limit);
    }
    kw_arena_free(a);
}

static const int narrow[4] = { 32, 32, 64, 64 };

static void stripes_change_no_bit(void **state)
{
    static const int tile[] = { 8, 16, 40, 100 };
    (void)state;
    for (int decode = 0; decode < 2; decode++) {
        /* two orders of summing a norm's statistics, through some thirty layers: 5e-6 to 1.2e-5 measured */
        compare(narrow, (kw_vae_work){ decode, 1, 15, 11, KW_F32 }, tile, KW_LEN(tile), 4e-5);
        compare(narrow, (kw_vae_work){ decode, 2, 7, 12, KW_F32 }, tile, KW_LEN(tile), 4e-5);
        compare(narrow, (kw_vae_work){ decode, 1, 1, 9, KW_F32 }, tile, KW_LEN(tile), 4e-5);
    }
}

/* Two roundings to bf16 of almost the same number may differ: the norms of training's graph sum in another order. */
static void in_every_type(void **state)
{
    static const int tile[] = { 8, 16 };
    (void)state;
    for (int decode = 0; decode < 2; decode++) {
        compare(narrow, (kw_vae_work){ decode, 1, 9, 8, KW_BF16 }, tile, KW_LEN(tile), 5e-2);
        compare(narrow, (kw_vae_work){ decode, 1, 3, 2, KW_F64 }, tile, 1, 1e-7);      /* results are f32 */
    }
}

/* Stable Diffusion's own autoencoder, planned alone: bytes beside its weights. */
static void stripes_save_memory(void **state)
{
    static const int channels[4] = { 128, 256, 512, 512 };
    static const struct { bool decode; int side; double whole, least; } rows[] = {
        { false, 64, 0.9e9, 0.4e9 }, { true, 64, 0.9e9, 0.46e9 }, { true, 128, 3.6e9, 1.75e9 },
    };
    (void)state;
    kw_arena *a = kw_arena_new();
    const kw_sd *sd = small_sd(a, channels, KW_F32);
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_vae_work k = { rows[i].decode, 1, rows[i].side, rows[i].side, KW_F32 };
        kw_err e = { 0 };
        size_t whole = 0, least = 0, some = 0;
        int tile = 0, small = 0, middle = 0;
        if (kw_vae_fit(sd, &k, 0, &tile, &whole, &e) || kw_vae_fit(sd, &k, 1, &small, &least, &e))
            fail_msg("%s", e.what);
        assert_int_equal(tile, KW_VAE_WHOLE);
        if (kw_vae_fit(sd, &k, (whole + least) / 2, &middle, &some, &e))
            fail_msg("%s", e.what);
        printf("%s %d x %d: whole %.0f MB, tile %d %.0f MB, tile %d %.0f MB\n", k.decode ? "decode" : "encode",
               8 * k.w, 8 * k.h, (double)whole * 1e-6, middle, (double)some * 1e-6, small, (double)least * 1e-6);
        assert_true((double)whole <= rows[i].whole && (double)least <= rows[i].least);
        assert_true(some <= (whole + least) / 2 && middle >= small && middle > 0);
    }
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(stripes_change_no_bit), cmocka_unit_test(in_every_type),
                                        cmocka_unit_test(stripes_save_memory) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
