/*
 * test_combine.c - what merges make of four small models, bit for bit as NumPy has it (tools/golden/merge.py --golden);
 * TIES' thresholds over the whole model; the same bits for any number of threads; an inpainting model's first
 * convolution beside those without a mask; refusals.
 */
#include "merge/merge.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define GOLDEN KW_TESTS "/golden/merge/values.safetensors"

static const char *const names[] = { "encoder.layers.0.fc1.weight", "encoder.layers.0.fc2.weight",
                                     "encoder.layers.0.fc1.bias", "encoder.layers.1.fc1.weight" };

typedef struct { kw_arena *a; kw_tensors *t; kw_source *m[3], *c; } golden;

static const kw_tensor *get(const golden *g, const char *head, const char *name)
{
    char key[200];
    snprintf(key, sizeof key, "%s.%s", head, name);
    const kw_tensor *t = kw_tensors_find(g->t, key);
    assert_non_null(t);
    return t;
}

static void drop(void *config) { json_decref(config); }

static kw_source *made_of(const golden *g, const char *shown, kw_tensor *t, size_t n)
{
    kw_source *s = NULL;
    kw_err e;
    const kw_made_part part = { KW_PART_TEXT, t, n, json_object() };
    if (kw_defer(g->a, drop, part.config) || kw_source_made(g->a, shown, &part, 1, NULL, &s, &e))
        fail_msg("%s", e.what);
    return s;
}

/* The tensors of a model of the file. */
static kw_tensor *list_of(const golden *g, const char *head)
{
    kw_tensor *t = kw_alloc_array(g->a, KW_LEN(names), sizeof *t);
    for (size_t i = 0; i < KW_LEN(names); i++) {
        t[i] = *get(g, head, names[i]);
        t[i].name = names[i];
    }
    return t;
}

static kw_source *model(const golden *g, const char *head) { return made_of(g, head, list_of(g, head), KW_LEN(names)); }

static golden open_golden(void)
{
    golden g = { .a = kw_arena_new() };
    kw_err e;
    if (kw_tensors_open(g.a, GOLDEN, &g.t, &e))
        fail_msg("%s", e.what);
    for (int i = 0; i < 3; i++)
        g.m[i] = model(&g, (const char *[]){ "m0", "m1", "m2" }[i]);
    g.c = model(&g, "c");
    return g;
}

static kw_merge_recipe recipe_of(const golden *g, kw_merge_method method, int n, const double w[3])
{
    kw_merge_recipe r = { .method = method, .model = { g->m[0], g->m[1], g->m[2] }, .n = n,
                          .base = kw_merge_needs_base(method) ? g->c : NULL, .scale = 0.7, .density = 0.3, .drop = 0.6,
                          .seed = 42 };
    memcpy(r.weight, w, 3 * sizeof *w);
    return r;
}

static float *made(const golden *g, kw_merge *m, size_t i)
{
    const kw_tensor *t = get(g, "m0", names[i]);
    float *room = kw_alloc_array(g->a, (size_t)kw_tensor_count(t), sizeof *room);
    kw_tensor one = *t;
    bool done = false;
    kw_err e;
    one.name = names[i];
    if (kw_merge_make(m, KW_PART_TEXT, &one, room, &done, &e))
        fail_msg("%s", e.what);
    assert_true(done);
    return room;
}

static kw_merge *merge_of(const golden *g, const kw_merge_recipe *r)
{
    kw_merge *m;
    kw_err e;
    if (kw_merge_new(g->a, r, &m, &e) || kw_merge_prepare(m, NULL, NULL, &e))
        fail_msg("%s", e.what);
    return m;
}

static void compare(const golden *g, kw_merge_method method, int n, const double w[3], double limit)
{
    const kw_merge_recipe r = recipe_of(g, method, n, w);
    kw_merge *m = merge_of(g, &r);
    double worst = 0;
    for (size_t i = 0; i < KW_LEN(names); i++) {
        const kw_tensor *want = get(g, kw_merge_word(method), names[i]);
        const float *x = made(g, m, i), *y = want->data;
        for (int64_t k = 0; k < kw_tensor_count(want); k++)
            worst = fmax(worst, fabs((double)x[k] - (double)y[k]));
    }
    print_message("%s: largest difference from NumPy %.3g (limit %g)\n", kw_merge_word(method), worst, limit);
    assert_true(worst <= limit);
}

static void methods(void **state)
{
    (void)state;
    golden g = open_golden();
    compare(&g, KW_MERGE_SUM, 3, (const double[]){ 0.5, 0.3, 0.2 }, 0);
    compare(&g, KW_MERGE_ADD, 3, (const double[]){ 1, 0.3, 0.8 }, 0);
    compare(&g, KW_MERGE_SLERP, 2, (const double[]){ 0.7, 0.3, 0 }, 5e-7);
    compare(&g, KW_MERGE_TIES, 3, (const double[]){ 0.5, 1, 1.5 }, 0);
    compare(&g, KW_MERGE_DARE, 3, (const double[]){ 0.5, 1, 1.5 }, 0);
    compare(&g, KW_MERGE_DARE_TIES, 3, (const double[]){ 0.5, 1, 1.5 }, 0);
    kw_arena_free(g.a);
}

static void thresholds(void **state)
{
    (void)state;
    golden g = open_golden();
    const kw_merge_recipe r = recipe_of(&g, KW_MERGE_TIES, 3, (const double[]){ 1, 1, 1 });
    kw_merge *m = merge_of(&g, &r);
    const float *want = kw_tensors_find(g.t, "thresholds")->data;
    for (int i = 0; i < 3; i++)
        assert_true(kw_merge_threshold(m, i) == want[i]);
    kw_arena_free(g.a);
}

/* The paper's own point: +3 and -1 give +3; counting signs gives nothing. */
static void by_mass(void **state)
{
    (void)state;
    golden g = open_golden();
    kw_tensor *x = list_of(&g, "m0"), *y = list_of(&g, "m1"), *z = list_of(&g, "c");
    float va[15], vb[15], vc[15];
    for (int i = 0; i < 15; i++) {
        va[i] = 13;
        vb[i] = 9;
        vc[i] = 10;
    }
    x[3].data = va;
    y[3].data = vb;
    z[3].data = vc;
    kw_source *a = made_of(&g, "a", x, KW_LEN(names)), *b = made_of(&g, "b", y, KW_LEN(names)),
              *c = made_of(&g, "c", z, KW_LEN(names));
    kw_merge_recipe r = recipe_of(&g, KW_MERGE_TIES, 2, (const double[]){ 1, 1, 0 });
    r.model[0] = a;
    r.model[1] = b;
    r.base = c;
    r.scale = r.density = 1;
    kw_merge *m = merge_of(&g, &r);
    bool done;
    float room[15];
    const kw_tensor *t = kw_source_find(a, KW_PART_TEXT, names[3]);
    assert_int_equal(kw_merge_make(m, KW_PART_TEXT, t, room, &done, NULL), KW_OK);
    for (int i = 0; i < 15; i++)
        assert_true(room[i] == 13);
    kw_arena_free(g.a);
}

static void threads(void **state)
{
    (void)state;
    golden g = open_golden();
    const int usual = omp_get_max_threads();
    static const kw_merge_method list[] = { KW_MERGE_SLERP, KW_MERGE_TIES, KW_MERGE_DARE };
    for (size_t k = 0; k < KW_LEN(list); k++) {
        const kw_merge_recipe r = recipe_of(&g, list[k], 2, (const double[]){ 0.4, 0.6, 0 });
        omp_set_num_threads(1);
        const float *one = made(&g, merge_of(&g, &r), 0);
        omp_set_num_threads(3);
        const float *three = made(&g, merge_of(&g, &r), 0);
        assert_memory_equal(one, three, 37 * 53 * sizeof *one);
    }
    omp_set_num_threads(usual);
    kw_arena_free(g.a);
}

static void report(void **state)
{
    (void)state;
    golden g = open_golden();
    kw_merge_report r;
    kw_err e;
    kw_merge_recipe w = recipe_of(&g, KW_MERGE_TIES, 2, (const double[]){ 1, 1, 0 });
    assert_int_equal(kw_merge_compare(merge_of(&g, &w), NULL, NULL, &r, &e), KW_OK);
    assert_int_equal(r.verdict[1], KW_VERDICT_GOOD);
    assert_int_equal(r.n, 1);
    assert_true(fabs(r.row[0].cosine - 0.99) < 0.005);           /* 1 / (1 + 0.1²) */
    assert_true(fabs(r.row[0].from_base[0] - 0.1) < 0.01 && fabs(r.row[0].conflicts - 0.5) < 0.05);
    w.model[1] = g.m[0];
    assert_int_equal(kw_merge_compare(merge_of(&g, &w), NULL, NULL, &r, &e), KW_OK);
    assert_int_equal(r.verdict[1], KW_VERDICT_SAME);
    kw_arena_free(g.a);
}

static void refusals(void **state)
{
    (void)state;
    golden g = open_golden();
    kw_tensor *list = list_of(&g, "m1");
    kw_merge *m;
    kw_err e;
    list[0].shape[0] = 53;
    list[0].shape[1] = 37;
    kw_merge_recipe r = recipe_of(&g, KW_MERGE_SUM, 2, (const double[]){ 0.5, 0.5, 0 });
    r.model[1] = made_of(&g, "turned", list, KW_LEN(names));
    assert_int_equal(kw_merge_new(g.a, &r, &m, &e), KW_EDATA);
    assert_non_null(strstr(e.what, names[0]));
    r.model[1] = made_of(&g, "fewer", list + 1, KW_LEN(names) - 1);
    assert_int_equal(kw_merge_new(g.a, &r, &m, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "fewer has no"));
    kw_arena_free(g.a);
}

/* ---- an inpainting model beside others --------------------------------------------------------------------------- */

static const char CONV[] = "conv_in.weight";

/* A U-Net of its first convolution alone, with so many input channels. */
static kw_source *first_layer(const golden *g, const char *head)
{
    char key[32];
    kw_source *s = NULL;
    kw_err e;
    kw_tensor *t = kw_alloc(g->a, sizeof *t);
    snprintf(key, sizeof key, "in.%s", head);
    *t = *kw_tensors_find(g->t, key);
    t->name = CONV;
    json_t *config = json_pack("{s:i, s:i, s:[ii], s:[ss], s:[ss], s:i, s:i, s:i, s:i}", "in_channels", (int)t->shape[1],
                               "out_channels", 4, "block_out_channels", 8, 8, "down_block_types", "DownBlock2D",
                               "DownBlock2D", "up_block_types", "UpBlock2D", "UpBlock2D", "norm_num_groups", 4,
                               "cross_attention_dim", 8, "attention_head_dim", 4, "layers_per_block", 1);
    const kw_made_part part = { KW_PART_UNET, t, 1, config };
    if (kw_defer(g->a, drop, config) || kw_source_made(g->a, head, &part, 1, NULL, &s, &e))
        fail_msg("%s", e.what);
    return s;
}

static void nine(const golden *g, kw_merge_method method, int n, const double w[3], double limit)
{
    kw_merge_recipe r = recipe_of(g, method, n, w);
    static const char *const heads[] = { "wide", "custom", "other" };
    char key[32];
    double worst = 0;
    int of;
    bool done = false;
    kw_err e;
    for (int i = 0; i < n; i++)
        r.model[i] = first_layer(g, heads[i]);
    r.base = r.base ? first_layer(g, "base") : NULL;
    kw_merge *m = merge_of(g, &r);
    assert_int_equal(kw_merge_channels(m, &of), 4);
    assert_int_equal(of, 9);
    assert_int_equal(kw_merge_numbers(m), 6 * 4 * 9);
    snprintf(key, sizeof key, "in.%s", kw_merge_word(method));
    const kw_tensor *want = kw_tensors_find(g->t, key);
    float *x = kw_alloc_array(g->a, (size_t)kw_tensor_count(want), sizeof *x);
    if (kw_merge_make(m, KW_PART_UNET, kw_source_find(r.model[0], KW_PART_UNET, CONV), x, &done, &e))
        fail_msg("%s", e.what);
    assert_true(done);
    for (int64_t i = 0; i < kw_tensor_count(want); i++)
        worst = fmax(worst, fabs((double)x[i] - (double)((const float *)want->data)[i]));
    print_message("%s, 9 channels and 4: largest difference from NumPy %.3g (limit %g)\n", kw_merge_word(method),
                  worst, limit);
    assert_true(worst <= limit);
}

static void inpainting(void **state)
{
    (void)state;
    golden g = open_golden();
    nine(&g, KW_MERGE_SUM, 3, (const double[]){ 0.5, 0.3, 0.2 }, 0);
    nine(&g, KW_MERGE_ADD, 3, (const double[]){ 1, 1, 0.5 }, 0);
    nine(&g, KW_MERGE_SLERP, 2, (const double[]){ 0.7, 0.3, 0 }, 5e-7);
    nine(&g, KW_MERGE_TIES, 2, (const double[]){ 1, 1, 0 }, 0);
    nine(&g, KW_MERGE_DARE, 2, (const double[]){ 1, 1, 0 }, 0);
    kw_merge_report report;
    kw_err e;
    kw_merge_recipe r = recipe_of(&g, KW_MERGE_ADD, 2, (const double[]){ 1, 1, 0 });
    r.model[0] = first_layer(&g, "wide");
    r.model[1] = first_layer(&g, "custom");
    r.base = first_layer(&g, "base");
    assert_int_equal(kw_merge_compare(merge_of(&g, &r), NULL, NULL, &report, &e), KW_OK);
    assert_int_equal(report.verdict[1], KW_VERDICT_GOOD);           /* of the channels that both have */
    kw_source *wide = r.model[0];
    kw_merge *m;
    r.model[0] = r.model[1];
    r.model[1] = wide;
    assert_int_equal(kw_merge_new(g.a, &r, &m, &e), KW_EDATA);      /* the other way round it would lose its mask */
    assert_non_null(strstr(e.what, "wide has 9 input channels, custom has 4"));
    assert_non_null(strstr(e.advice, "inpainting model first"));
    kw_arena_free(g.a);
}

/* Time embedding and last norm, which are in no block of A1111's LoRA lists, belong to the first and the last. */
static void blocks(void **state)
{
    (void)state;
    kw_unet_config u = { .levels = 4, .layers = { 2, 2, 2, 2 }, .up_attention = { false, true, true, true } };
    assert_int_equal(kw_merge_block(&u, KW_PART_UNET, "time_embedding.linear_1.weight"), 1);
    assert_int_equal(kw_merge_block(&u, KW_PART_UNET, "conv_in.weight"), 1);
    assert_int_equal(kw_merge_block(&u, KW_PART_UNET, "mid_block.resnets.0.conv1.bias"), 13);
    assert_int_equal(kw_merge_block(&u, KW_PART_UNET, "down_blocks.1.attentions.0.proj_in.weight"), 5);
    assert_int_equal(kw_merge_block(&u, KW_PART_UNET, "up_blocks.3.resnets.2.conv1.weight"), 25);
    assert_int_equal(kw_merge_block(&u, KW_PART_UNET, "conv_norm_out.bias"), 25);
    assert_int_equal(kw_merge_block(&u, KW_PART_TEXT, "encoder.layers.0.fc1.weight"), 0);
    u = (kw_unet_config){ .levels = 3, .layers = { 2, 2, 2 }, .up_attention = { true, true }, .add_dim = 256 };
    assert_int_equal(kw_merge_block(&u, KW_PART_UNET, "conv_out.weight"), 22);       /* SDXL: OUT08 */
    assert_int_equal(kw_merge_block(&u, KW_PART_UNET, "add_embedding.linear_1.weight"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods), cmocka_unit_test(thresholds), cmocka_unit_test(by_mass), cmocka_unit_test(threads),
        cmocka_unit_test(report), cmocka_unit_test(refusals), cmocka_unit_test(blocks), cmocka_unit_test(inpainting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
