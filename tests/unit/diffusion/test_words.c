/*
 * test_words.c - prompts that change, parts, ComfyUI's weights, textual inversion: latents against a loop over
 * diffusers' and transformers' parts (tools/golden/prompt_pictures.py).
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

#define GOLDEN KW_TESTS "/golden/pipeline/"
#define EMBEDDINGS GOLDEN "embeddings/"

static const char negative[] = "dark water";

static kw_arena *a;
static kw_tensors *answers;

static int start(void **state)
{
    (void)state;
    a = kw_arena_new();
    return !a || kw_tensors_open(a, GOLDEN "prompts.safetensors", &answers, NULL);
}

static int end(void **state)
{
    (void)state;
    kw_arena_free(a);
    return 0;
}

static kw_pipeline *open_with(const char *lora)
{
    kw_pipeline *p = NULL;
    kw_err e;
    kw_pipeline_lora l = { .path = lora, .te = 1, .unet = 1 };
    kw_pipeline_options o = { .compute = KW_F32 };
    if (kw_pipeline_open(a, GOLDEN "base", NULL, &l, lora ? 1 : 0, &o, &p, &e))
        fail_msg("%s", e.what);
    return p;
}

static kw_request request(kw_wish *wish, int n)
{
    return (kw_request){ .wish = wish, .n = n, .width = 16, .height = 16, .cfg = 4, .clip_skip = 1,
                         .latents_only = true, .seeds = KW_SEEDS_CPU,
                         .sampling = { .sampler = kw_sampler_find("euler", NULL), .spacing = KW_SPACING_DIFFUSERS,
                                       .steps = 6, .eta = -1 } };
}

static const kw_tensor *answer(const char *name, const char *leaf)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s", name, leaf);
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

static kw_generated made(kw_pipeline *p, kw_request *r, const char *name)
{
    kw_generated g;
    kw_err e;
    r->noise = answer(name, ".noise")->data;
    if (kw_pipeline_generate(p, a, r, &g, &e))
        fail_msg("%s: %s", name, e.what);
    return g;
}

/* Measured: 4e-7 to 1e-6. */
static void check(const char *name, kw_pipeline *p, kw_request *r)
{
    kw_generated g = made(p, r, name);
    const kw_tensor *want = answer(name, ".latents");
    double error = relative(g.latents, want->data, (size_t)kw_tensor_count(want));
    printf("%-10s latents %.1e\n", name, error);
    assert_true(error <= 1e-5);
}

/* ---- prompts ----------------------------------------------------------------------------------------------------- */

static void editing_and_alternation(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = "a [red:blue:0.5] cat [on|in] house", .negative = "[dark:light:2] water" };
    kw_request r = request(&wish, 1);
    check("edit", open_with(NULL), &r);
}

/* The mean that emphasis keeps is that of both texts. */
static void emphasis_over_a_schedule(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = "a (red:1.5) [cat:(dog:0.6):0.5]", .negative = negative };
    kw_request r = request(&wish, 1);
    check("weights", open_with(NULL), &r);
}

/* Twice as many runs where the sampler asks twice in a step (A1111's "second order"): [a:b:0.5] still changes in the
   middle. */
static void second_order(void **state)
{
    (void)state;
    kw_wish by_share = { .prompt = "a [red:blue:0.5] cat", .negative = negative },
            by_runs = { .prompt = "a [red:blue:6] cat", .negative = negative },
            early = { .prompt = "a [red:blue:3] cat", .negative = negative };
    kw_pipeline *p = open_with(NULL);
    kw_request r = request(&by_share, 1);
    r.sampling.sampler = kw_sampler_find("heun", NULL);
    kw_generated one = made(p, &r, "edit"), other;
    r.wish = &by_runs;
    other = made(p, &r, "edit");
    assert_memory_equal(one.latents, other.latents, 4 * 8 * 8 * sizeof(float));
    r.wish = &early;
    other = made(p, &r, "edit");
    assert_memory_not_equal(one.latents, other.latents, 4 * 8 * 8 * sizeof(float));
}

/* Two pictures of one batch with other schedules and other numbers of parts. */
static void parts(void **state)
{
    (void)state;
    kw_wish wish[2] = { { .prompt = "a red cat AND a blue house :0.6 AND [water:dark:3]:-0.3", .negative = negative },
                        { .prompt = "a [blue :2]cat", .negative = negative } };
    kw_request r = request(wish, 2);
    kw_pipeline *p = open_with(NULL);
    check("and", p, &r);
    kw_generated both = made(p, &r, "and"), one;
    r.n = 1;
    one = made(p, &r, "and");             /* alone as in a batch, but for rounding */
    assert_true(relative(one.latents, both.latents, 4 * 8 * 8) < 1e-5);
}

/* CFG 1 and one part of weight 1: no guidance; with parts there is some, and "x:1" is x. */
static void guidance(void **state)
{
    (void)state;
    kw_wish plain = { .prompt = "a red cat", .negative = negative },
        weighed = { .prompt = "a red cat:1", .negative = negative },
            twice = { .prompt = "a red cat:0.5 AND a red cat:0.5", .negative = negative };
    kw_pipeline *p = open_with(NULL);
    kw_request r = request(&plain, 1);
    kw_generated one = made(p, &r, "edit"), other;
    r.wish = &weighed;
    other = made(p, &r, "edit");
    assert_memory_equal(one.latents, other.latents, 4 * 8 * 8 * sizeof(float));
    r.wish = &twice;
    other = made(p, &r, "edit");
    assert_true(relative(other.latents, one.latents, 4 * 8 * 8) < 1e-5);
    r.cfg = 1;
    other = made(p, &r, "edit");
    r.wish = &plain;
    one = made(p, &r, "edit");
    assert_true(relative(other.latents, one.latents, 4 * 8 * 8) < 1e-5);
}

/* A part of two windows beside one of a single window, whose last vector is repeated. */
static void parts_of_other_lengths(void **state)
{
    (void)state;
    char text[1000] = "";
    for (int i = 0; i < 12; i++)
        strcat(text, "a red cat, a blue house, ");
    strcat(text, " AND water");
    kw_wish wish = { .prompt = text, .negative = negative };
    kw_request r = request(&wish, 1);
    kw_pipeline *p = open_with(NULL);
    size_t n;
    assert_int_equal(kw_pipeline_windows(p, &r.reading, text, false, &n, NULL), KW_OK);
    assert_true(n > 1);
    check("long", p, &r);
}

static void other_weights(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = "a (red:1.5) cat", .negative = negative };
    kw_request r = request(&wish, 1);
    kw_pipeline *p = open_with(NULL);
    r.reading.emphasis = KW_EMPHASIS_NO_NORM;
    check("no-norm", p, &r);
    r.reading = (kw_reading){ .grammar = KW_GRAMMAR_COMFYUI };
    wish.prompt = "(a red:1.3) cat ((on a) house:0.7)";
    check("comfy", p, &r);
}

/* ---- textual inversion ------------------------------------------------------------------------------------------- */

static void add(kw_pipeline *p, const char *path)
{
    kw_err e;
    if (kw_pipeline_add_inversion(p, path, &e))
        fail_msg("%s", e.what);
}

static void inversions(void **state)
{
    (void)state;
    static const char *const files[] = { "kiwa.pt", "kiwa-safe.safetensors", "kiwa-png.png" };
    static const char *const prompts[] = { "a (kiwa:1.3) cat on two words house",
                                           "a (kiwa-safe:1.3) cat on learned_embeds house",
                                           "a (KIWA-PNG:1.3) cat on Two Words house" };
    for (size_t i = 0; i < KW_LEN(files); i++) {
        char path[512];
        bool used[2] = { false, false };
        kw_pipeline *p = open_with(NULL);
        snprintf(path, sizeof path, EMBEDDINGS "%s", files[i]);
        add(p, path);
        add(p, EMBEDDINGS "learned_embeds.safetensors");
        kw_wish wish = { .prompt = prompts[i], .negative = negative };
        kw_request r = request(&wish, 1);
        check("inversion", p, &r);
        assert_int_equal(kw_pipeline_inversions(p), 2);
        assert_string_equal(kw_pipeline_inversion(p, 1), "learned_embeds");
        assert_null(kw_pipeline_inversion(p, 2));
        assert_int_equal(kw_pipeline_names(p, &r.reading, "a [cat:two words:3]", false, used, NULL), KW_OK);
        assert_true(!used[0] && used[1]);
    }
}

static void inversions_of_a_lora_file(void **state)
{
    (void)state;
    kw_arena *own = kw_arena_new();
    kw_tensors *file;
    kw_inversion v;
    bool found;
    assert_int_equal(kw_tensors_open(own, EMBEDDINGS "bundle.safetensors", &file, NULL), KW_OK);
    static const int n[] = { 1, 3 };
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(kw_inversion_bundled(own, file, i, &v, &found, NULL), KW_OK);
        assert_true(found);
        int k = strcmp(v.name, "b") != 0;
        assert_string_equal(v.name, k ? "kiwa" : "b");
        assert_true(v.n_parts == 1 && v.part[0].n == n[k] && v.part[0].width == 16);
    }
    assert_int_equal(kw_inversion_bundled(own, file, 2, &v, &found, NULL), KW_OK);
    assert_false(found);
    kw_arena_free(own);
}

static void of_other_bases(void **state)
{
    (void)state;
    kw_pipeline *p = open_with(NULL);
    kw_err e;
    assert_int_equal(kw_pipeline_add_inversion(p, EMBEDDINGS "sd2.safetensors", &e), KW_EDATA);
    assert_non_null(strstr(e.what, "1024"));
    assert_non_null(strstr(e.advice, "Stable Diffusion 2.x"));
    assert_int_equal(kw_pipeline_add_inversion(p, EMBEDDINGS "xl.safetensors", &e), KW_EDATA);
    assert_non_null(strstr(e.advice, "SDXL"));
    assert_int_equal(kw_pipeline_add_inversion(p, GOLDEN "answers.safetensors", &e), KW_EDATA);
    add(p, EMBEDDINGS "kiwa.pt");
    assert_int_equal(kw_pipeline_add_inversion(p, EMBEDDINGS "kiwa.pt", &e), KW_EUSAGE);
    kw_wish wish = { .prompt = "embedding:nobody", .negative = negative };
    kw_request r = request(&wish, 1);
    kw_generated g;
    r.reading.grammar = KW_GRAMMAR_COMFYUI;
    assert_int_equal(kw_pipeline_generate(p, a, &r, &g, &e), KW_EDATA);
}

/* A name that no prompt has changes no bit, and no program gets inputs for vectors. */
static void free_when_unused(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = "a red cat", .negative = negative };
    kw_request r = request(&wish, 1);
    kw_pipeline *with = open_with(NULL);
    add(with, EMBEDDINGS "kiwa.pt");
    kw_generated one = made(open_with(NULL), &r, "edit"), other = made(with, &r, "edit");
    assert_memory_equal(one.latents, other.latents, 4 * 8 * 8 * sizeof(float));
    for (int i = 0; kw_pipeline_program(with, i); i++)
        assert_false(kw_program_wants(kw_pipeline_program(with, i), "put"));
}

/* ---- hypernetworks ----------------------------------------------------------------------------------------------- */

/* All activations against torch's. Measured: 6e-8. */
static void curves(void **state)
{
    (void)state;
    enum { N = 25 };
    const kw_tensor *want = answer("curves", "");
    float x[N];
    assert_int_equal(kw_tensor_count(want), KW_N_CURVES * N);
    for (int i = 0; i < N; i++)
        x[i] = 0.5f * (float)(i - 12);
    for (int f = 0; f < KW_N_CURVES; f++) {
        kw_arena *own = kw_arena_new();
        kw_graph *g = kw_graph_new(own, KW_F32);
        kw_program *p;
        kw_result(g, "y", kw_curve(g, (kw_curve_kind)f, kw_input(g, "x", KW_SHAPE(1, N), KW_F32)));
        assert_int_equal(kw_program_new(own, g, kw_store_new(own), NULL, &p, NULL), KW_OK);
        kw_program_set(p, "x", x);
        assert_int_equal(kw_program_run(p, kw_workspace_new(own), NULL), KW_OK);
        double error = relative(kw_program_result(p, "y"), (const float *)want->data + (size_t)f * N, N);
        if (!(error <= 1e-6))
            fail_msg("activation %d: %.1e", f, error);
        kw_arena_free(own);
    }
    kw_curve_kind f;
    assert_true(kw_curve_find("Swish", &f) && f == KW_CURVE_HARDSWISH);
    assert_false(kw_curve_find("softmax", &f));
}

/* Two at once: with norms and ReLU, and an older file of two linear layers. */
static void hypernetworks(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = "a red cat", .negative = negative };
    kw_request r = request(&wish, 1);
    kw_pipeline *p = open_with(NULL);
    kw_generated plain = made(open_with(NULL), &r, "hypernet"), none;
    kw_err e;
    if (kw_pipeline_add_hypernet(p, GOLDEN "hypernets/new.pt", &e)
        || kw_pipeline_add_hypernet(p, GOLDEN "hypernets/old.pt", &e))
        fail_msg("%s", e.what);
    static const double strength[] = { 0.7, 0.4 };
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(kw_pipeline_hypernet_strength(p, i, strength[i], NULL), KW_OK);
    check("hypernet", p, &r);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(kw_pipeline_hypernet_strength(p, i, 0, NULL), KW_OK);
    none = made(p, &r, "hypernet");
    assert_true(relative(none.latents, plain.latents, 4 * 8 * 8) < 1e-5);
    assert_int_equal(kw_pipeline_add_hypernet(p, EMBEDDINGS "kiwa.pt", &e), KW_EDATA);
    assert_non_null(strstr(e.what, "string_to_param"));
}

/* ---- texts that were encoded before ------------------------------------------------------------------------------ */

/* A LoRA on one layer of the text encoder. */
static const char *lora_file(void)
{
    static const char *const leaf[] = { "lora_down.weight", "lora_up.weight" };
    static const int64_t shape[2][2] = { { 2, 16 }, { 32, 2 } };
    kw_tensor t[2];
    for (int k = 0; k < 2; k++) {
        size_t n = (size_t)(shape[k][0] * shape[k][1]);
        float *x = kw_alloc_array(a, n, sizeof *x);
        kw_rng_normals((kw_rng){ .seed = 9, .stream = KW_RNG_TEST, .step = (uint32_t)k }, 0, x, n);
        t[k] = (kw_tensor){ .dtype = KW_F32, .rank = 2, .data = x, .bytes = n * sizeof *x,
                            .name = kw_sprintf(a, "lora_te_text_model_encoder_layers_0_mlp_fc1.%s", leaf[k]) };
        memcpy(t[k].shape, shape[k], sizeof shape[k]);
    }
    char *path = kw_sprintf(a, "/tmp/kw-test-words-%d.safetensors", (int)getpid());
    assert_int_equal(kw_tensors_save(path, t, 2, NULL, 0, NULL), KW_OK);
    return path;
}

static void same_bits(const kw_generated *x, const kw_generated *y, bool same)
{
    bool equal = !memcmp(x->latents, y->latents, 4 * 8 * 8 * sizeof(float));
    assert_true(equal == same);
}

/* Encoded once, the same bits as by a pipeline that never saw them; anew where an encoder or the reading differs. */
static void kept(void **state)
{
    (void)state;
    kw_wish wish = { .prompt = "a (red:1.3) [cat|dog]", .negative = negative };
    kw_request r = request(&wish, 1), other;
    const char *path = lora_file();
    kw_pipeline *p = open_with(path);
    kw_generated first = made(p, &r, "hypernet"), g = made(p, &r, "hypernet");
    size_t once = kw_pipeline_encoded(p);
    assert_int_equal(once, 3);
    same_bits(&first, &g, true);
    other = r;
    other.reading.emphasis = KW_EMPHASIS_NO_NORM;
    made(p, &other, "hypernet");
    assert_int_equal(kw_pipeline_encoded(p), 2 * once);
    assert_int_equal(kw_pipeline_strength(p, 0, 0.25, 1, NULL), KW_OK);
    g = made(p, &r, "hypernet");
    assert_int_equal(kw_pipeline_encoded(p), 3 * once);
    same_bits(&first, &g, false);
    assert_int_equal(kw_pipeline_strength(p, 0, 1, 0.5, NULL), KW_OK);      /* the U-Net's is no matter of texts */
    made(p, &r, "hypernet");
    assert_int_equal(kw_pipeline_encoded(p), 3 * once);
    assert_int_equal(kw_pipeline_strength(p, 0, 1, 1, NULL), KW_OK);
    g = made(p, &r, "hypernet");
    same_bits(&first, &g, true);
    add(p, EMBEDDINGS "kiwa.pt");
    made(p, &r, "hypernet");
    assert_int_equal(kw_pipeline_encoded(p), 4 * once);
    unlink(path);
}

/* More texts than are kept, twice over: the oldest go, and the answers stay. */
static void kept_in_turn(void **state)
{
    (void)state;
    kw_pipeline *p = open_with(NULL);
    kw_generated g[12];
    for (int i = 0; i < 24; i++) {
        char text[32];
        snprintf(text, sizeof text, "cat %d", i % 12);
        kw_wish wish = { .prompt = text };
        kw_request r = request(&wish, 1);
        r.cfg = 1;
        kw_generated now = made(p, &r, "hypernet");
        if (i < 12)
            g[i] = now;
        else
            same_bits(&g[i - 12], &now, true);
    }
    assert_int_equal(kw_pipeline_encoded(p), 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(editing_and_alternation), cmocka_unit_test(emphasis_over_a_schedule), cmocka_unit_test(parts),
        cmocka_unit_test(second_order),
        cmocka_unit_test(guidance), cmocka_unit_test(parts_of_other_lengths), cmocka_unit_test(other_weights),
        cmocka_unit_test(inversions), cmocka_unit_test(inversions_of_a_lora_file), cmocka_unit_test(of_other_bases),
        cmocka_unit_test(free_when_unused), cmocka_unit_test(hypernetworks),
        cmocka_unit_test(curves), cmocka_unit_test(kept), cmocka_unit_test(kept_in_turn),
    };
    return cmocka_run_group_tests(tests, start, end);
}
