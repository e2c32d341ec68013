/* test_infotext.c - the text in pictures: known strings written, A1111's rules read. */
#include "diffusion/diffusion.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void written(void **state)
{
    (void)state;
    const kw_infotext_lora lora[] = { { "kiwa", "7c6bad76eb5444ff" }, { "no-hash", NULL },
                                      { "b", "0123456789abcdef" } };
    const kw_infotext_lora inversion[] = { { "soft light", "fedcba9876543210" }, { "bundled", NULL } };
    const kw_meta extra[] = { { "Eta", "0.5" }, { "Note", "a, \"b\"" } };
    kw_infotext t = {
        .prompt = "a fox, <lora:kiwa:0.8>", .negative = "blurry", .steps = 20, .sampler = "Euler a",
        .schedule = "Automatic", .cfg = 7.5,
        .seed = 18446744073709551615u, .width = 512, .height = 768, .model = "sd15",
        .model_hash = "cc6cb27103417325ff94f52b7a5d2dde",
        .vae = "vae.safetensors", .vae_hash = "735e4c3a447a3255760d7f86845f09f9", .clip_skip = 2, .rng = "CPU",
        .extra = extra, .n_extra = 2,
        .lora = lora, .n_lora = 3, .inversion = inversion, .n_inversion = 2, .version = "kiwame 0.1.0",
    };
    kw_str s = { 0 };
    kw_infotext_write(&t, &s);
    assert_string_equal(s.s,
        "a fox, <lora:kiwa:0.8>\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.5, Seed: 18446744073709551615, "
        "Size: 512x768, "
        "Model hash: cc6cb27103, Model: sd15, VAE hash: 735e4c3a44, VAE: vae.safetensors, Clip skip: 2, RNG: CPU, "
        "Eta: 0.5, "
        "Note: \"a, \\\"b\\\"\", Lora hashes: \"kiwa: 7c6bad76eb54, b: 0123456789ab\", "
        "TI hashes: \"soft light: fedcba987654\", Version: kiwame 0.1.0, "
        "Hashes: {\"vae\": \"735e4c3a44\", \"lora:kiwa\": \"7c6bad76eb\", \"lora:b\": \"0123456789\", "
        "\"embed:soft light\": \"fedcba9876\", "
        "\"model\": \"cc6cb27103\"}");
    kw_str_free(&s);
}

static void written_short(void **state)
{
    (void)state;
    kw_infotext t = { .prompt = "", .steps = 1, .sampler = "DDIM", .cfg = 7, .seed = 1, .width = 64, .height = 64,
                      .clip_skip = 1 };
    kw_str s = { 0 };
    kw_infotext_write(&t, &s);
    assert_string_equal(s.s, "Steps: 1, Sampler: DDIM, CFG scale: 7, Seed: 1, Size: 64x64");
    kw_str_free(&s);
}

static void is(const kw_infotext_read *t, const char *key, const char *value)
{
    const char *found = kw_infotext_get(t, key);
    if (!value)
        assert_null(found);
    else if (!found || strcmp(found, value))
        fail_msg("%s: %s, not %s", key, found ? found : "nothing", value);
}

static kw_infotext_read parsed(kw_arena *a, const char *text)
{
    kw_infotext_read t;
    kw_err e;
    if (kw_infotext_parse(a, text, &t, &e))
        fail_msg("%s", e.what);
    return t;
}

static void back_and_forth(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    const kw_infotext_lora lora = { "\xe7\x8b\x90", "7c6bad76eb5444ff" };
    kw_infotext t = { .prompt = "line one\n(\xe7\x8b\x90:1.2), \"x\"", .negative = "two\nlines", .steps = 4,
                      .sampler = "DPM++ 2M", .schedule = "Karras",
                      .cfg = 0.1, .seed = 3, .width = 64, .height = 96, .model = "a, b: c", .lora = &lora, .n_lora = 1,
                          .clip_skip = 1 };
    kw_str s = { 0 };
    kw_infotext_write(&t, &s);
    kw_infotext_read r = parsed(a, s.s);
    assert_string_equal(r.prompt, t.prompt);
    assert_string_equal(r.negative, t.negative);
    is(&r, "Steps", "4");
    is(&r, "Sampler", "DPM++ 2M");
    is(&r, "Schedule type", "Karras");
    is(&r, "CFG scale", "0.1");
    is(&r, "Size", "64x96");
    is(&r, "Model", "a, b: c");
    is(&r, "Lora hashes", "\xe7\x8b\x90: 7c6bad76eb54");
    is(&r, "Hashes", "{\"lora:\xe7\x8b\x90\": \"7c6bad76eb\"}");
    kw_str_free(&s);
    kw_arena_free(a);
}

/* What A1111's parse_generation_parameters answers. */
static void as_a1111(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_infotext_read r = parsed(a,
                                "  girl, (flower:1.1)\nNegative prompt: low quality\nworst\n"
                                "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, "
                                   "Size: 512x512, Model hash: 45dee52b, Hires resize: 1024x0, "
                                "Lora hashes: \"a: 0123, b: 4567\", Odd: ,Tail: x y ");
    assert_string_equal(r.prompt, "girl, (flower:1.1)");
    assert_string_equal(r.negative, "low quality\nworst");
    is(&r, "Sampler", "DPM++ 2M Karras");
    is(&r, "Hires resize", "1024x0");
    is(&r, "Lora hashes", "a: 0123, b: 4567");
    is(&r, "Odd", "");
    is(&r, "Tail", "x y");
    r = parsed(a, "a fox\nSteps: 20, Seed: 1");                    /* two only: part of the prompt */
    assert_string_equal(r.prompt, "a fox\nSteps: 20, Seed: 1");
    assert_int_equal(r.n, 0);
    r = parsed(a, "Steps: 20, Seed: 1, Size: 1x1");
    assert_string_equal(r.prompt, "");
    is(&r, "Seed", "1");
    r = parsed(a, "");
    assert_string_equal(r.prompt, "");
    r = parsed(a, "p\nSteps: 1, Seed: 2, Size: 3x3, Broken: \"no end, More: {\"x\", Cut: \"\\");
    is(&r, "Seed", "2");
    is(&r, "Broken", "\"no end");
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written), cmocka_unit_test(written_short), cmocka_unit_test(back_and_forth),
        cmocka_unit_test(as_a1111),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
