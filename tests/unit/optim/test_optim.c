/* test_optim.c - learning-rate schedules against transformers' closed forms, and AdamW on a quadratic in double steps. */
#include "optim/optim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static void schedules_are_transformers(void **state)
{
    (void)state;
    kw_rate cosine = { KW_RATE_COSINE, 5, 20, 0 }, linear = { KW_RATE_LINEAR, 5, 20, 0 }, constant = { KW_RATE_CONSTANT, 4, 20, 0 };
    assert_float_equal(kw_rate_at(&cosine, 0), 0, 0);
    assert_float_equal(kw_rate_at(&cosine, 3), 0.6, 1e-15);
    assert_float_equal(kw_rate_at(&cosine, 5), 1, 0);
    assert_float_equal(kw_rate_at(&cosine, 12), 0.5 * (1 + cos(M_PI * 7 / 15)), 1e-15);
    assert_float_equal(kw_rate_at(&linear, 12), 8.0 / 15, 1e-15);
    assert_float_equal(kw_rate_at(&linear, 20), 0, 1e-15);
    assert_float_equal(kw_rate_at(&linear, 99), 0, 1e-15);
    assert_float_equal(kw_rate_at(&constant, 2), 0.5, 1e-15);
    assert_float_equal(kw_rate_at(&constant, 19), 1, 0);
    cosine.floor = 0.1;
    assert_float_equal(kw_rate_at(&cosine, 20), 0.1, 1e-15);
}

enum { N = 5 };
static float start[N] = { 1, -2, 0.5f, 3, -0.25f };

static kw_status find(void *ctx, const char *name, kw_shape shape, kw_tensor *t, kw_err *e)
{
    (void)ctx, (void)e;
    *t = (kw_tensor){ .name = name, .dtype = KW_F32, .rank = shape.rank, .shape = { shape.d[0] }, .data = start, .bytes = sizeof start };
    return KW_OK;
}

static int first_group(void *ctx, const char *name) { (void)ctx, (void)name; return 0; }

/* Each optimizer of optims.def lowers ½ |p|², moves with its average behind it, and zeroes the gradients. */
static void every_optimizer_descends(void **state)
{
    (void)state;
    for (int k = 0; kw_optimizers[k]; k++) {
        kw_arena *a = kw_arena_new();
        kw_err e = { 0 };
        kw_store *s = kw_store_new(a);
        kw_params_source from = { .find = find, .select = first_group, .exact = KW_F32 };
        kw_params *p = kw_params_new(a, s, &from);
        kw_graph *g = kw_graph_new(a, KW_F32);
        kw_net n = kw_net_over(g, p);
        assert_true(kw_nn_param(&n, "p", KW_SHAPE(N)) >= 0);
        kw_trained *t;
        kw_updater *u;
        kw_workspace *w = kw_workspace_new(a);
        kw_trained_options o = { .gradients = true, .each = kw_optimizers[k]->each };
        kw_update_options c = { .optimizer = kw_optimizers[k], .config = { 0.9f, 0.99f, 1e-8f }, .average = true };
        assert_int_equal(kw_trained_new(a, &p, 1, 1, &o, &t, &e), KW_OK);
        assert_int_equal(kw_updater_new(a, t, &c, &u, &e), KW_OK);
        const float *value = kw_store_at(s, t->values)->data, *average = kw_store_at(s, kw_updater_average(u))->data;
        double norm, before = 14.3125, after = 0;
        for (int step = 1; step <= 50; step++) {
            memcpy(kw_store_write(s, t->gradients), value, sizeof start);
            assert_int_equal(kw_updater_norm(u, w, &norm, &e), KW_OK);
            if (step == 1)
                assert_float_equal(norm, sqrt(before), 1e-6);
            const kw_update move = { step, (double[]){ 0.01 }, (double[]){ 0 }, 1, 0.9 };
            assert_int_equal(kw_updater_step(u, w, &move, &e), KW_OK);
            assert_float_equal(((const float *)kw_store_at(s, t->gradients)->data)[0], 0, 0);
        }
        for (int i = 0; i < N; i++)
            after += (double)value[i] * (double)value[i];
        assert_true(after < 0.8 * before);
        assert_true(value[0] < average[0] && average[0] < start[0]);
        kw_arena_free(a);
    }
}

/* What the loss does not depend on stays, though its group decays: torch leaves parameters without a gradient alone. */
static void what_is_not_read_stays(void **state)
{
    (void)state;
    for (int fused = 0; fused < 2; fused++) {
        kw_arena *a = kw_arena_new();
        kw_err e = { 0 };
        kw_store *s = kw_store_new(a);
        kw_params_source from = { .find = find, .select = first_group, .exact = KW_F32 };
        kw_params *p = kw_params_new(a, s, &from);
        kw_graph *g = kw_graph_new(a, KW_F32);
        kw_net n = kw_net_over(g, p);
        kw_val idle = kw_nn_param(&n, "idle", KW_SHAPE(N)), read = kw_nn_param(&n, "read", KW_SHAPE(N));
        kw_silu(g, idle);                                   /* built, and read by nobody */
        kw_val one = kw_input(g, "one", KW_SHAPE(1), KW_F32), zero = kw_input(g, "zero", KW_SHAPE(1, N), KW_F32);
        kw_val loss = kw_mse(g, kw_reshape(g, read, KW_SHAPE(1, N)), zero, one);
        kw_trained *t;
        kw_updater *u;
        kw_program *program;
        kw_workspace *w = kw_workspace_new(a);
        kw_trained_options o = { .gradients = !fused, .graph = g, .loss = loss };
        kw_update_options c = { .optimizer = kw_optimizer_find("adamw"), .config = { 0.9f, 0.99f, 1e-8f },
                                .fused = fused };
        assert_int_equal(kw_trained_new(a, &p, 1, 1, &o, &t, &e), KW_OK);
        assert_int_equal(t->n, 1);
        assert_int_equal(kw_params_find(p, "idle")->at, KW_NONE);
        assert_int_equal(kw_updater_new(a, t, &c, &u, &e), KW_OK);
        assert_int_equal(fused ? kw_updater_backward(u, g, loss, one, &e) : kw_trained_backward(t, g, loss, one, &e),
                         KW_OK);
        assert_int_equal(kw_program_new(a, g, s, NULL, &program, &e), KW_OK);
        const kw_update move = { 1, (double[]){ 0.01 }, (double[]){ 0.5 }, fused ? 0 : 1, 0 };
        kw_program_set(program, "one", &(float){ 1 });
        kw_program_set(program, "zero", (float[N]){ 0 });
        if (fused)
            kw_updater_feed(u, program, &move);
        assert_int_equal(kw_program_run(program, w, &e), KW_OK);
        if (!fused)
            assert_int_equal(kw_updater_step(u, w, &move, &e), KW_OK);
        const float *stays = kw_store_at(s, kw_params_find(p, "idle")->state)->data;
        const float *moves = kw_store_at(s, kw_params_find(p, "read")->state)->data;
        assert_memory_equal(stays, start, sizeof start);
        for (int i = 0; i < N; i++)                         /* decay by 0.005, and the first step of Adam */
            assert_float_equal(moves[i], start[i] * 0.995f - (start[i] > 0 ? 0.01f : -0.01f), 1e-6);
        kw_arena_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(schedules_are_transformers),
                                        cmocka_unit_test(every_optimizer_descends),
                                        cmocka_unit_test(what_is_not_read_stays) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
