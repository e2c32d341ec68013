/*
 * test_work.c - the work of full-size passes, counted on their graphs alone, against figures counted by hand and by
 * hooks in PyTorch; a trainer's own count against its graph; a step with SDXL's conditioning; what chance adds.
 *
 * Useful FLOPs: 2 x multiply-adds of convolutions, linear layers and attention's two products; in the backward pass one
 * product for each wanted gradient, four for attention. Norms, activations, updates and recomputation count nothing.
 */
#include "train/train.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

enum { FORWARD, LORA, FULL, ENCODE, DECODE };

static const float some;
static const int64_t id;

typedef struct { kw_arena *a; kw_source *source; kw_sd *sd; kw_err e; } model;

static model *open(const char *family)
{
    kw_arena *a = kw_arena_new();
    model *m = kw_alloc(a, sizeof *m);
    json_t *config;
    m->a = a;
    if (kw_family_config(a, family, &config, &m->e) || kw_family_made(a, family, config, KW_BF16, &m->source, &m->e)
        || kw_sd_over(a, m->source, NULL, kw_store_new(a), KW_F32, NULL, NULL, &m->sd, &m->e))
        fail_msg("%s: %s", family, m->e.what);
    return m;
}

static kw_train_config config(int pass, int rank)
{
    return (kw_train_config){
        .compute = KW_F32,
        .lora = pass == LORA,
        .parts = 1u << KW_PART_UNET,
        .clip_skip = 1,
        .accumulation = 1,
        .max_norm = 1,
        .adapter = { .rank = rank, .alpha = (float)rank, .targets = KW_TARGET_ATTENTION, .seed = 1 },
        .rate = { 1e-4, 1e-4, 1e-4 },
        .schedule = { .total = 100 },
        .optim = { 0.9f, 0.999f, 1e-8f },
        .optimizer = kw_optimizers[0],
        .run = { .memory = KW_LEAN },
    };
}

static kw_micro batch(const model *m, int pixels)
{
    kw_micro b = { .n = 1,
                   .h = pixels / 8,
                   .w = pixels / 8,
                   .tokens = 77,
                   .latents = &some,
                   .noise = &some,
                   .timesteps = &id,
                   .context = &some };
    if (m->sd->unet.add_dim)
        b.pooled = b.sizes = &some;
    return b;
}

static kw_graph *vae_graph(model *m, int pass, int pixels)
{
    kw_graph *g = kw_graph_new(m->a, KW_F32);
    kw_net n = kw_net_over(g, m->sd->params[KW_PART_VAE]);
    kw_result(g, "y",
              pass == ENCODE
                  ? kw_vae_encode(&n, &m->sd->vae, kw_input(g, "x", KW_SHAPE(1, pixels, pixels, 3), KW_F32))
                  : kw_vae_decode(&n, &m->sd->vae, kw_input(g, "z", KW_SHAPE(1, pixels / 8, pixels / 8, 4), KW_F32)));
    return g;
}

/* A step whose gradients nobody wants is its forward pass. */
static double work(model *m, int pass, int pixels)
{
    kw_train_config c = config(pass, 16);
    kw_micro b = batch(m, pixels);
    kw_graph *g;
    if (pass == FORWARD)
        c.parts = 0;
    if (pass == ENCODE || pass == DECODE)
        g = vae_graph(m, pass, pixels);
    else if (kw_step_graph(m->a, m->sd, &c, &b, &g, &m->e))
        fail_msg("%s", m->e.what);
    assert_int_equal(g->err.status, KW_OK);
    return kw_graph_useful_flops(g);
}

/*
 * TFLOP. SD 1.5 at 512: 443.9 convolutions + 233.3 linear + 126.1 attention forward, by hooks in PyTorch; the steps by
 * hand from these. In the LoRA's, 13 of its branches forward are in, their gradients not: of 1.722 we find 1.7245.
 */
static void full_size_work_is_as_counted_by_hand(void **state)
{
    (void)state;
    static const struct { const char *family; int pass, pixels; double tflop, allowance; } rows[] = {
        { "sd15", FORWARD, 512, 0.8033, 0.0002 }, { "sd15", FORWARD, 256, 0.1801, 0.0003 },
        { "sd15", LORA, 512, 1.722, 0.003 },      { "sd15", LORA, 256, 0.37, 0.015 },
        { "sd15", FULL, 512, 2.409, 0.002 },      { "sd15", ENCODE, 512, 1.12, 0.005 },
        { "sd15", DECODE, 512, 2.51, 0.005 },     { "sdxl", FORWARD, 1024, 6.76, 0.005 },
        { "sdxl", LORA, 1024, 14.2, 0.01 },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        model *m = open(rows[i].family);
        double tflop = work(m, rows[i].pass, rows[i].pixels) * 1e-12;
        print_message("%s pass %d at %d: %.4f TFLOP (%.4f)\n", rows[i].family, rows[i].pass, rows[i].pixels, tflop,
                      rows[i].tflop);
        assert_float_equal(tflop / rows[i].tflop, 1, rows[i].allowance);
        kw_arena_free(m->a);
    }
}

/* ---- a trainer's own count --------------------------------------------------------------------------------------- */

static kw_trainer *trainer(model *m, const kw_train_config *c)
{
    kw_trainer *t;
    if (kw_trainer_over(m->a, m->source, NULL, c, &t, &m->e))
        fail_msg("%s", m->e.what);
    return t;
}

/* What a trainer runs is what the graph alone has, at every level of recomputation; the floor does more besides. */
static void a_trainer_counts_the_same(void **state)
{
    (void)state;
    for (int pass = LORA; pass <= FULL; pass++)
        for (int level = KW_KEEP_ALL; level <= KW_FLOOR; level++) {
            model *m = open("shapes");
            kw_train_config c = config(pass, 4);
            kw_micro b = { .n = 2,
                           .h = 16,
                           .w = 16,
                           .tokens = 24,
                           .latents = &some,
                           .noise = &some,
                           .timesteps = &id,
                           .context = &some };
            kw_graph *g;
            kw_trainer_cost cost;
            c.run.memory = (kw_memory_level)level;
            assert_int_equal(kw_step_graph(m->a, m->sd, &c, &b, &g, &m->e), KW_OK);
            kw_trainer *t = trainer(m, &c);
            assert_null(kw_trainer_program(t, 0));
            assert_int_equal(kw_trainer_forecast(t, &b, &cost, &m->e), KW_OK);
            double flops = cost.flops;
            double useful = kw_program_useful_flops(kw_trainer_program(t, 0));
            assert_true(useful > 0 && useful == kw_graph_useful_flops(g));
            if (level == KW_FLOOR ? flops <= 1.1 * useful : flops != useful)
                fail_msg("pass %d, level %d: %g FLOP done for %g useful ones", pass, level, flops, useful);
            assert_true(kw_trainer_program(t, 1) && kw_trainer_program(t, 2)
                        && !kw_trainer_program(t, 3)); /* norm, update */
            kw_arena_free(m->a);
        }
}

/* ---- SDXL's conditioning ----------------------------------------------------------------------------------------- */

static model *open_tiny_sdxl(void)
{
    kw_arena *a = kw_arena_new();
    model *m = kw_alloc(a, sizeof *m);
    json_t *unet, *all = json_object();
    m->a = a;
    assert_int_equal(kw_json_read(a, KW_TESTS "/golden/models/unet-sdxl-tiny/config.json", &unet, &m->e), KW_OK);
    json_object_set(all, "unet", unet);
    if (kw_family_made(a, "tiny", all, KW_F32, &m->source, &m->e))
        fail_msg("%s", m->e.what);
    json_decref(all);                     /* the configuration itself is the arena's */
    return m;
}

/* Pooled texts and sizes reach the U-Net of a step: with others the loss is another; without them it is refused. */
static void a_step_takes_sdxl_conditioning(void **state)
{
    (void)state;
    enum { N = 2, SIDE = 6, TOKENS = 3, LATENT = N * SIDE * SIDE * 4, CONTEXT = N * TOKENS * 8 };
    static float latents[LATENT], noise[LATENT], context[CONTEXT], pooled[N * 6], sizes[N * 6];
    const kw_rng r = { .seed = 3, .stream = KW_RNG_TEST };
    int64_t timesteps[N] = { 10, 900 };
    kw_rng_normals(r, 0, latents, LATENT);
    kw_rng_normals(r, LATENT, noise, LATENT);
    kw_rng_normals(r, 2 * LATENT, context, CONTEXT);
    kw_rng_normals(r, 3 * LATENT, pooled, N * 6);
    for (int i = 0; i < N * 6; i++)
        sizes[i] = (float)(64 * (i % 6));
    model *m = open_tiny_sdxl();
    kw_train_config c = config(LORA, 4);
    kw_trainer *t = trainer(m, &c);
    kw_micro b = { .n = N,
                   .h = SIDE,
                   .w = SIDE,
                   .tokens = TOKENS,
                   .latents = latents,
                   .noise = noise,
                   .timesteps = timesteps,
                   .context = context };
    kw_step_report report;
    double loss[3];
    assert_int_equal(kw_trainer_step(t, &b, &report, &m->e), KW_EDATA);
    assert_non_null(strstr(m->e.what, "SDXL"));
    b.pooled = pooled;
    b.sizes = sizes;
    assert_int_equal(kw_trainer_loss(t, &b, false, &loss[0], &m->e), KW_OK);
    pooled[3] += 40;
    assert_int_equal(kw_trainer_loss(t, &b, false, &loss[1], &m->e), KW_OK);
    sizes[8] += 500;
    assert_int_equal(kw_trainer_loss(t, &b, false, &loss[2], &m->e), KW_OK);
    assert_true(isfinite(loss[0]) && loss[0] != loss[1] && loss[1] != loss[2]);
    assert_int_equal(kw_trainer_step(t, &b, &report, &m->e), KW_OK);
    assert_true(!report.skipped && report.loss == loss[2] && report.norm > 0);
    kw_arena_free(m->a);
}

/* ---- chance ------------------------------------------------------------------------------------------------------ */

/* Latents are (mean + sd normal - shift) scaling; all numbers depend on seed, micro-batch and sample alone. */
static void chance_is_a_function_of_its_place(void **state)
{
    (void)state;
    enum { N = 2, SIDE = 8, EACH = SIDE * SIDE * 3 };
    static float moments[N * EACH * 2], normals[EACH];
    const kw_vae_config v = { .latent = 3, .scaling = 0.5, .shift = 0.25 };
    const kw_chance c = { .seed = 7 }, mean = { .seed = 7, .mean = true }, other = { .seed = 8 };
    const kw_rng r = { .seed = 7, .stream = KW_RNG_LATENT, .step = 5, .sample = 1 };
    kw_arena *a = kw_arena_new();
    kw_micro b[4];
    kw_err e = { 0 };
    for (int i = 0; i < N * SIDE * SIDE * 6; i++)
        moments[i] = i % 6 < 3 ? 2 : -1.5f;                        /* mean, logarithm of the variance */
    for (int i = 0; i < 4; i++)
        b[i] = (kw_micro){ .n = N, .h = SIDE, .w = SIDE };
    assert_int_equal(kw_chance_micro(a, &c, &v, 1000, moments, 5, &b[0], &e), KW_OK);
    assert_int_equal(kw_chance_micro(a, &c, &v, 1000, moments, 5, &b[1], &e), KW_OK);
    assert_int_equal(kw_chance_micro(a, &mean, &v, 1000, moments, 5, &b[2], &e), KW_OK);
    assert_int_equal(kw_chance_micro(a, &other, &v, 1000, moments, 5, &b[3], &e), KW_OK);
    kw_rng_normals(r, 0, normals, EACH);
    for (int i = 0; i < EACH; i++) {
        assert_float_equal(b[0].latents[EACH + i], ((double)(2 + expf(-0.75f) * normals[i]) - 0.25) * 0.5, 1e-6);
        assert_float_equal(b[2].latents[i], 0.875, 0);
    }
    assert_memory_equal(b[0].latents, b[1].latents, sizeof(float) * N * EACH);
    assert_memory_equal(b[0].noise, b[1].noise, sizeof(float) * N * EACH);
    assert_memory_equal(b[0].noise, b[2].noise, sizeof(float) * N * EACH);
    assert_memory_not_equal(b[0].noise, b[3].noise, sizeof(float) * N * EACH);
    assert_memory_not_equal(b[0].noise, b[0].noise + EACH, sizeof(float) * EACH);
    assert_true(b[0].timesteps[0] >= 0 && b[0].timesteps[1] < 1000 && b[0].timesteps[0] == b[1].timesteps[0]);
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_size_work_is_as_counted_by_hand),
        cmocka_unit_test(a_trainer_counts_the_same),
        cmocka_unit_test(a_step_takes_sdxl_conditioning),
        cmocka_unit_test(chance_is_a_function_of_its_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
