/* test_generate.c - what the options of `kiwame generate` mean: grids, sizes of the second pass, ComfyUI's graphs. */
#include "cli/generate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

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

static kw_status read_one(const char *text, kw_grid *g, kw_err *e)
{
    const char *item[] = { text };
    return kw_grid_read(a, &(kw_texts){ .item = item, .n = 1 }, g, e);
}

/* values joined by '|' */
static void is_grid(const char *text, const char *values)
{
    kw_grid g;
    kw_err e;
    kw_str joined = { 0 };
    if (read_one(text, &g, &e))
        fail_msg("%s: %s", text, e.what);
    for (int i = 0; i < g.axis[0].n; i++)
        kw_str_printf(&joined, "%s%s", i ? "|" : "", g.axis[0].value[i]);
    assert_string_equal(joined.s, values);
    kw_str_free(&joined);
}

static void grids(void **state)
{
    (void)state;
    is_grid("cfg=5,7.5, 9", "5|7.5|9");
    is_grid("steps=1-5", "1|2|3|4|5");
    is_grid("cfg=0-1:0.25", "0|0.25|0.5|0.75|1");
    is_grid("cfg=3-1", "3|2|1");
    is_grid("cfg=-1-1", "-1|0|1");
    is_grid("cfg=-2--1:0.5", "-2|-1.5|-1");
    is_grid("steps=10-30 (+10)", "10|20|30");
    is_grid("steps=10-30 [3],50", "10|20|30|50");
    is_grid("strength=0-1 [5]", "0|0.25|0.5|0.75|1");
    is_grid("seed=18446744073709551615,7-9", "18446744073709551615|7|8|9");
    is_grid("prompt=a fox,\"a cat, \"\"old\"\"\",", "a fox|a cat, \"old\"|");
    is_grid("sampler=Euler a,DPM++ 2M", "Euler a|DPM++ 2M");
    is_grid("lora=0,0.5,1", "0|0.5|1");
}

static void grids_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "cfg", "cfg=", "cfg=a", "cfg=1-", "cfg=1-2:0", "cfg=1,,2", "cfg=nan", "cfg=inf", "steps=1.5", "steps=0-3",
        "steps=0", "seed=-1", "strength=2", "clip-skip=0", "foo=1", "=1", "prompt=", "cfg=1-1000", "cfg=1-2 (x", "",
    };
    for (size_t i = 0; i < KW_LEN(bad); i++) {
        kw_grid g;
        kw_err e = { 0 };
        if (read_one(bad[i], &g, &e) != KW_EUSAGE)
            fail_msg("'%s' is taken", bad[i]);
        assert_true(*e.what);
    }
    const char *item[] = { "cfg=1", "steps=1", "seed=1", "eta=1" }, *twice[] = { "cfg=1", "cfg=2" };
    kw_grid g;
    kw_err e;
    assert_int_equal(kw_grid_read(a, &(kw_texts){ .item = item, .n = 4 }, &g, &e), KW_EUSAGE);
    assert_int_equal(kw_grid_read(a, &(kw_texts){ .item = twice, .n = 2 }, &g, &e), KW_EUSAGE);
}

/* x runs fastest; LoRA tags are rewritten in the text, too */
static void combinations(void **state)
{
    (void)state;
    const char *item[] = { "lora=0,0.5", "prompt=fox,cat", "steps=3-5" };
    kw_grid g;
    assert_int_equal(kw_grid_read(a, &(kw_texts){ .item = item, .n = 3 }, &g, NULL), KW_OK);
    assert_int_equal(kw_grid_count(&g), 12);
    kw_job j = { .prompt = "a fox <lora:fox:0.8> <lyco:b:1:lbw=1,0> <x", .negative = "foxes" };
    j.uses[0] = j.uses[1] = true;
    assert_int_equal(kw_grid_apply(a, &g, 7, &j, NULL), KW_OK);      /* x 1, y 1, z 1 */
    assert_int_equal(j.steps, 4);
    assert_string_equal(j.prompt, "a cat <lora:cat:0.8> <lyco:b:1:lbw=1,0> <x");
    assert_string_equal(j.negative, "cates");
    assert_int_equal(kw_grid_apply_lora(a, &g, &j, NULL), KW_OK);
    assert_string_equal(j.prompt, "a cat <lora:cat:0.5> <lyco:b:0.5:lbw=1,0> <x");
    assert_true(j.strength[0].te == 0.5 && j.strength[1].unet == 0.5 && j.strength[2].unet == 0);
    assert_string_equal(kw_grid_label(a, &g, 2, 1), "steps: 4");
}

/* A1111's calculate_target_resolution */
static void second_pass(void **state)
{
    (void)state;
    static const struct { double scale; const char *size; int w, h, cut_x, cut_y; } cases[] = {
        { 2, NULL, 1024, 1536, 0, 0 }, { 1.5, NULL, 768, 1152, 0, 0 }, { 0, "1024x0", 1024, 1536, 0, 0 },
        { 0, "0x1152", 768, 1152, 0, 0 }, { 0, "1024x1024", 1024, 1536, 0, 512 }, { 0, "768x1536", 1024, 1536, 256, 0 },
    };
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        kw_generate_config c = { .hires = cases[i].scale, .hires_size = cases[i].size };
        kw_hires z;
        bool any;
        assert_int_equal(kw_hires_size(&c, 512, 768, 8, &z, &any, NULL), KW_OK);
        assert_true(any);
        assert_memory_equal(&z, (&(kw_hires){ cases[i].w, cases[i].h, cases[i].cut_x, cases[i].cut_y }), sizeof z);
    }
}

static const char graph[] =
    "{\"3\":{\"class_type\":\"KSampler\",\"inputs\":{\"seed\":[\"9\",0],\"steps\":4,\"cfg\":3.5,"
    "\"sampler_name\":\"euler\",\"scheduler\":\"karras\",\"denoise\":1.0,\"model\":[\"10\",0],"
    "\"positive\":[\"6\",0],\"negative\":[\"7\",0],"
    "\"latent_image\":[\"5\",0]}},"
    "\"4\":{\"class_type\":\"CheckpointLoaderSimple\",\"inputs\":{\"ckpt_name\":\"sub\\\\v1-5.safetensors\"}},"
    "\"5\":{\"class_type\":\"EmptyLatentImage\",\"inputs\":{\"width\":64,\"height\":96,\"batch_size\":1}},"
    "\"6\":{\"class_type\":\"CLIPTextEncode\",\"inputs\":{\"text\":\"a red ball\",\"clip\":[\"11\",0]}},"
    "\"7\":{\"class_type\":\"CLIPTextEncode\",\"inputs\":{\"text\":\"bad\",\"clip\":[\"11\",0]}},"
    "\"9\":{\"class_type\":\"PrimitiveNode\",\"inputs\":{\"value\":156680208700286}},"
    "\"10\":{\"class_type\":\"LoraLoader\",\"inputs\":{\"lora_name\":\"kiwa.safetensors\",\"strength_model\":0.8,"
    "\"strength_clip\":0.5,\"model\":[\"4\",0],\"clip\":[\"4\",1]}},"
    "\"11\":{\"class_type\":\"CLIPSetLastLayer\",\"inputs\":{\"stop_at_clip_layer\":-2,\"clip\":[\"10\",1]}}%s}";

static void comfy(void **state)
{
    (void)state;
    kw_str out = { 0 };
    kw_infotext_read t;
    kw_err e;
    assert_int_equal(kw_comfy_read("x.png", kw_sprintf(a, graph, ""), &out, &e), KW_OK);
    assert_int_equal(kw_infotext_parse(a, out.s, &t, NULL), KW_OK);
    assert_string_equal(t.prompt, "a red ball <lora:kiwa:0.5:0.8>");
    assert_string_equal(t.negative, "bad");
    static const char *const want[][2] = { { "Steps", "4" }, { "CFG scale", "3.5" }, { "Seed", "156680208700286" },
                                           { "Sampler", "euler" }, { "Schedule type", "karras" }, { "Size", "64x96" },
                                           { "Clip skip", "2" }, { "Model", "v1-5" }, { "RNG", "CPU" } };
    for (size_t i = 0; i < KW_LEN(want); i++)
        assert_string_equal(kw_infotext_get(&t, want[i][0]), want[i][1]);
    assert_null(kw_infotext_get(&t, "Denoising strength"));
    kw_str_free(&out);

    /* its beta is not A1111's */
    char *beta = kw_sprintf(a, graph, ""), *name = strstr(beta, "karras");
    memcpy(name, "beta\", ", 6);
    memmove(name + 6, name + 8, strlen(name + 8) + 1);
    assert_int_equal(kw_comfy_read("x.png", beta, &out, &e), KW_OK);
    assert_int_equal(kw_infotext_parse(a, out.s, &t, NULL), KW_OK);
    const kw_sigma_schedule *found = kw_sigma_schedule_find(kw_infotext_get(&t, "Schedule type"));
    assert_non_null(found);
    assert_string_equal(found->name, "beta_comfyui");
    kw_str_free(&out);
}

/* a model that hangs on itself */
#define LOOP(model, more) "{\"3\":{\"class_type\":\"KSampler\",\"inputs\":{\"sampler_name\":\"e\"," \
    "\"positive\":[\"" model "\",0],\"model\":[\"" model "\",0]}}" more "}"

static void comfy_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "[]", "{}", "{\"3\":5}", "{\"3\":{\"class_type\":\"KSampler\",\"inputs\":{\"sampler_name\":\"euler\"}}}",
        LOOP("3", ""), LOOP("4", ",\"4\":{\"class_type\":\"L\",\"inputs\":{\"lora_name\":\"x\",\"model\":[\"4\",0]}}"),
    };
    kw_str out = { 0 };
    kw_err e;
    for (size_t i = 0; i < KW_LEN(bad); i++)
        assert_int_equal(kw_comfy_read("x.png", bad[i], &out, &e), KW_EDATA);
    const char *two = kw_sprintf(a, graph, ",\"12\":{\"class_type\":\"KSampler\",\"inputs\":"
                                           "{\"sampler_name\":\"e\",\"positive\":[\"6\",0]}}");
    assert_int_equal(kw_comfy_read("x.png", two, &out, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "second sampler"));
    assert_null(out.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grids), cmocka_unit_test(grids_refused), cmocka_unit_test(combinations),
        cmocka_unit_test(second_pass), cmocka_unit_test(comfy), cmocka_unit_test(comfy_refused),
    };
    return cmocka_run_group_tests(tests, start, end);
}
