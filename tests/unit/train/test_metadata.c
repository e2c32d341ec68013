/* test_metadata.c - a LoRA file's metadata against Python's (tools/golden/lora_metadata.py), and names of files. */
#include "train/metadata.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const kiwa[] = { "kiwa-chan, Smile, 絵 , blue  sky", "kiwa-chan,smile,,\u3000🙂\u3000" };
static const char *const more[] = { "ÄRGER, kiwa-chan, \"quoted\\\"" };
static const char *const ground[] = { "sky", "\tSky\t,  ", "Σοφία" };

/* Folders of one name in two places count as one; only the last part of paths is told. */
static const kw_lora_folder folders[] = {
    { "/home/somebody/photos/10_kiwa", 10, 12, kiwa, 2 },
    { "5_bg", 5, 3, ground, 3 },
    { "elsewhere/10_kiwa", 10, 8, more, 1 },
};
static const kw_lora_bucket buckets[] = { { 448, 576, 11 }, { 512, 512, 204 } };

static const kw_lora_facts facts = {
    .name = "kiwa",
    .title = "きわちゃん",
    .trigger = "kiwa-chan",
    .author = "A. Author",
    .resolution_w = 512,
    .resolution_h = 768,
    .base_name = "/home/somebody/models/anime.safetensors",
    .base_short_hash = "0123abcd",
    .base_hash = "abababababababababababababababababababababababababababababababab",
    .rank = 16,
    .alpha = 8,
    .conv_rank = 4,
    .conv_alpha = 0.5,
    .learning_rate = 1e-4,
    .unet_rate = 1e-4,
    .text_rate = 5e-5,
    .scheduler = "constant",
    .warmup = 20,
    .optimizer = "AdamW",
    .weight_decay = 0.01,
    .beta1 = 0.9,
    .beta2 = 0.999,
    .eps = 1e-8,
    .accumulation = 1,
    .batch = 2,
    .max_norm = 1,
    .min_snr = 5,
    .noise_offset = 0.0357,
    .recompute = true,
    .flip = true,
    .shuffle = true,
    .cache_latents = true,
    .keep_tokens = 1,
    .token_length = 225,
    .clip_skip = 2,
    .bf16 = true,
    .seed = UINT64_MAX,
    .epochs = 4,
    .epoch = 2,
    .max_steps = 432,
    .steps = 216,
    .batches_per_epoch = 108,
    .session = 4123456789,
    .started = 1767225600.25,
    .finished = 1767229200,
    .pictures = 215,
    .held_out = 3,
    .held_out_share = 0.1,
    .folders = folders,
    .n_folders = 3,
    .buckets = buckets,
    .n_buckets = 2,
    .mean_aspect_error = 0.0123,
    .bucket_min = 256,
    .bucket_max = 1024,
};

typedef struct { kw_arena *a; char dir[64]; json_t *golden; } room;

static int enter(void **state)
{
    room *r = calloc(1, sizeof *r);
    strcpy(r->dir, "/tmp/kw-metadata-XXXXXX");
    r->a = kw_arena_new();
    *state = r;
    return !mkdtemp(r->dir) || kw_json_read(r->a, KW_TESTS "/golden/train/metadata.json", &r->golden, NULL);
}

static int leave(void **state)
{
    room *r = *state;
    kw_arena_free(r->a);
    int failed = kw_remove_all(r->dir, NULL);
    free(r);
    return failed;
}

/* The tensors of lora_metadata.py: float32((i * 37 + k) % 1001 - 500) / 512. */
static kw_tensor *make_tensors(kw_arena *a, bool small, size_t *n)
{
    static const float eight = 8;
    kw_tensor *t = kw_alloc_array(a, 12, sizeof *t);
    *n = 0;
    for (int k = 0; k < (small ? 1 : 4); k++) {
        for (int up = 0; up < 2; up++) {
            kw_tensor *x = &t[(*n)++];
            int64_t d[2] = { up ? small ? 64 : 320 : 16, up ? 16 : small ? 64 : 5000 };
            *x = (kw_tensor){
                .dtype = KW_F32, .rank = 2, .shape = { d[0], d[1] }, .bytes = (uint64_t)(d[0] * d[1] * 4)
            };
            x->name = kw_sprintf(a, "lora_unet_m%d.%s.weight", k, up ? "lora_up" : "lora_down");
            float *p = kw_alloc(a, x->bytes);
            for (int64_t i = 0; i < d[0] * d[1]; i++)
                p[i] = (float)((i * 37 + k) % 1001 - 500) / 512;
            x->data = p;
        }
        t[(*n)++] =
            (kw_tensor){ .name = kw_sprintf(a, "lora_unet_m%d.alpha", k), .dtype = KW_F32, .data = &eight, .bytes = 4 };
    }
    return t;
}

static kw_tensors *save_and_open(room *r, bool small, const kw_lora_facts *f, kw_metadata_level level, char hash[65])
{
    kw_err e = { 0 };
    size_t n;
    kw_tensors *t = NULL;
    char *path = kw_path_join(r->a, r->dir, small ? "small.safetensors" : "large.safetensors");
    kw_tensor *list = make_tensors(r->a, small, &n);
    if (kw_lora_save(path, list, n, f, level, hash, &e) || kw_tensors_open(r->a, path, &t, &e))
        fail_msg("%s", e.what);
    assert_int_equal(kw_tensors_n(t), n);
    return t;
}

static const char *hash_of(room *r, const char *size, size_t which)
{
    return json_string_value(json_array_get(json_object_get(r->golden, size), which));
}

/* Every key and value as Python has them, no key more; both hashes; nothing of where it was made. */
static void as_sd_scripts_writes(void **state)
{
    room *r = *state;
    const char *key, *value;
    char hash[65];
    json_t *want = json_object_get(r->golden, "metadata"), *v;
    kw_tensors *t = save_and_open(r, false, &facts, KW_METADATA_FULL, hash);
    json_object_foreach(want, key, v) {
        if (!kw_tensors_meta(t, key))
            fail_msg("%s is missing", key);
        assert_string_equal(kw_tensors_meta(t, key), json_string_value(v));
    }
    assert_string_equal(hash, hash_of(r, "large", 0));
    assert_string_equal(kw_tensors_meta(t, "sshs_model_hash"), hash);
    assert_string_equal(kw_tensors_meta(t, "sshs_legacy_hash"), hash_of(r, "large", 1));
    assert_string_equal(kw_tensors_meta(t, "modelspec.hash_sha256") + 2, hash);
    assert_string_equal(kw_tensors_meta(t, "modelspec.implementation_version"), "kiwame/" KW_VERSION);
    assert_int_equal(kw_tensors_n_meta(t), json_object_size(want) + 4);
    for (size_t i = 0; i < kw_tensors_n_meta(t); i++) {
        kw_tensors_meta_at(t, i, &key, &value);
        assert_null(strstr(value, "somebody"));
    }
}

/* A file of less than 1 MiB has no legacy hash: it would be that of nothing. */
static void small_file(void **state)
{
    room *r = *state;
    char hash[65];
    kw_tensors *t = save_and_open(r, true, &facts, KW_METADATA_FULL, hash);
    assert_string_equal(hash, hash_of(r, "small", 0));
    assert_string_equal(hash_of(r, "small", 1), "e3b0c442");
    assert_null(kw_tensors_meta(t, "sshs_legacy_hash"));
    assert_string_equal(kw_tensors_meta(t, "sshs_model_hash"), hash);
}

static void levels(void **state)
{
    room *r = *state;
    static const char *const kept[] = { "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim",
                                        "ss_network_alpha", "ss_network_args" };
    char full[65], minimal[65], none[65];
    save_and_open(r, false, &facts, KW_METADATA_FULL, full);
    kw_tensors *t = save_and_open(r, false, &facts, KW_METADATA_MINIMAL, minimal);
    size_t n_ss = 0;
    for (size_t i = 0; i < kw_tensors_n_meta(t); i++) {
        const char *key, *value;
        kw_tensors_meta_at(t, i, &key, &value);
        n_ss += kw_starts_with(key, "ss_");
    }
    assert_int_equal(n_ss, KW_LEN(kept));
    for (size_t i = 0; i < KW_LEN(kept); i++)
        assert_non_null(kw_tensors_meta(t, kept[i]));
    assert_string_equal(kw_tensors_meta(t, "modelspec.trigger_phrase"), "kiwa-chan");
    assert_string_equal(minimal, full);  /* the id of a LoRA does not depend on its metadata */
    t = save_and_open(r, false, &facts, KW_METADATA_NONE, none);
    assert_int_equal(kw_tensors_n_meta(t), 0);
    assert_string_equal(none, full);
}

static const char *get(const kw_meta *m, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(m[i].key, key))
            return m[i].value;
    return NULL;
}

/* Other families, and a run with nothing but defaults. */
static void families(void **state)
{
    room *r = *state;
    kw_meta *m;
    size_t n;
    static const struct { bool v2, sdxl, v; const char *version, *architecture, *v2_text, *prediction; } known[] = {
        { false, false, false, "sd_v1", "stable-diffusion-v1/lora", "False", "epsilon" },
        { true, false, false, "sd_v2", "stable-diffusion-v2-512/lora", "True", "epsilon" },
        { true, false, true, "sd_v2_v", "stable-diffusion-v2-768-v/lora", "True", "v" },
        { false, true, false, "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora", "False", "epsilon" },
    };
    for (size_t i = 0; i < KW_LEN(known); i++) {
        kw_lora_facts f = {
            .name = "x", .v2 = known[i].v2, .sdxl = known[i].sdxl, .v_prediction = known[i].v, .text_rate = -1
        };
        assert_int_equal(kw_lora_metadata(r->a, &f, KW_METADATA_FULL, &m, &n, NULL), KW_OK);
        assert_string_equal(get(m, n, "ss_base_model_version"), known[i].version);
        assert_string_equal(get(m, n, "modelspec.architecture"), known[i].architecture);
        assert_string_equal(get(m, n, "ss_v2"), known[i].v2_text);
        assert_string_equal(get(m, n, "modelspec.prediction_type"), known[i].prediction);
    }
    assert_string_equal(get(m, n, "ss_text_encoder_lr"), "None");
    assert_string_equal(get(m, n, "ss_clip_skip"), "None");
    assert_string_equal(get(m, n, "ss_dataset_dirs"), "{}");
    assert_string_equal(get(m, n, "ss_tag_frequency"), "{}");
    assert_string_equal(get(m, n, "modelspec.usage_hint"), "Load the LoRA: <lora:x:1>. It needs no trigger word.");
    assert_null(get(m, n, "ss_network_args"));
}

/* More tags than a file should hold: the first ones stay, and the values are still JSON. */
static void many_tags(void **state)
{
    room *r = *state;
    enum { N = 4000 };
    const char **captions = kw_alloc_array(r->a, N, sizeof *captions);
    for (int i = 0; i < N; i++)
        captions[i] = kw_sprintf(r->a, "every, a%d, b%d, c%d, d%d", i, i, i, i);
    kw_lora_folder folder = { "3_x", 3, N, captions, N };
    kw_lora_facts f = { .name = "x", .folders = &folder, .n_folders = 1 };
    kw_meta *m;
    size_t n;
    json_t *j;
    assert_int_equal(kw_lora_metadata(r->a, &f, KW_METADATA_FULL, &m, &n, NULL), KW_OK);
    const char *text = get(m, n, "ss_tag_frequency");
    assert_int_equal(kw_json_parse(r->a, "tags", text, strlen(text), &j, NULL), KW_OK);
    j = json_object_get(j, "3_x");
    assert_int_equal(json_object_size(j), 10000);
    assert_int_equal(json_integer_value(json_object_get(j, "every")), N);
}

/* With each allocation failing in turn: an error, or the whole file. */
static void without_memory(void **state)
{
    room *r = *state;
    size_t n;
    kw_tensor *t = make_tensors(r->a, true, &n);
    char *path = kw_path_join(r->a, r->dir, "memory.safetensors");
    kw_status s = KW_ENOMEM;
    int failed = 0;
    for (int at = 1; s; at++) {
        kw_err e = { 0 };
        kw_alloc_fail_after(at);
        s = kw_lora_save(path, t, n, &facts, KW_METADATA_FULL, NULL, &e);
        kw_alloc_fail_after(0);
        failed += s != KW_OK;
        assert_true(!s || s == KW_ENOMEM);
    }
    assert_true(failed > 20);
}

static void names(void **state)
{
    room *r = *state;
    setenv("TZ", "UTC0", 1);
    assert_string_equal(kw_name_of_epoch(r->a, "kiwa", 2, ".safetensors"), "kiwa-000002.safetensors");
    assert_string_equal(kw_name_of_step(r->a, "kiwa", 100, ".safetensors"), "kiwa-step00000100.safetensors");
    assert_string_equal(kw_name_of_last(r->a, "kiwa", ".safetensors"), "kiwa.safetensors");
    assert_string_equal(kw_name_of_sample(r->a, "kiwa", 1, 0, 3, 1767225600.9, 42),
                        "kiwa_e000001_03_20260101000000_42.png");
    assert_string_equal(kw_name_of_sample(r->a, NULL, -1, 100, 12, 1767225600, UINT64_MAX),
                        "000100_12_20260101000000_18446744073709551615.png");
    static const struct { const char *text, *name; } plain[] = {
        { "kiwa-chan_v1.5", "kiwa-chan_v1.5" }, { "きわ", "lora" }, { "my cat (2)", "my-cat-2" }, { "../../etc", "etc" },
        { "-rf", "rf" }, { "a..b", "a.-b" }, { "", "lora" }, { ".hidden", "hidden" }, { "日本 neko 三毛", "neko" },
    };
    for (size_t i = 0; i < KW_LEN(plain); i++)
        assert_string_equal(kw_name_plain(r->a, plain[i].text), plain[i].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(as_sd_scripts_writes, enter, leave),
        cmocka_unit_test_setup_teardown(small_file, enter, leave),
        cmocka_unit_test_setup_teardown(levels, enter, leave),
        cmocka_unit_test_setup_teardown(families, enter, leave),
        cmocka_unit_test_setup_teardown(many_tags, enter, leave),
        cmocka_unit_test_setup_teardown(without_memory, enter, leave),
        cmocka_unit_test_setup_teardown(names, enter, leave),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
