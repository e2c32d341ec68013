/* test_source.c - models on disk: names both ways, tensors against diffusers' converter, whole folders and parts. */
#include "fixture.h"

#include <fcntl.h>

static void put(const char *name, const char *text)
{
    char *path = in_dir(name);
    must(kw_mkdirs(kw_path_dir(arena, path), &err));
    must(kw_file_write_atomic(path, text, strlen(text), &err));
}

static void copy(const char *from, const char *to)
{
    char *data, *path = in_dir(to);
    size_t n;
    must(kw_mkdirs(kw_path_dir(arena, path), &err));
    must(kw_file_read(arena, from, 1 << 24, &data, &n, &err));
    must(kw_file_write_atomic(path, data, n, &err));
}

static kw_part part_of(const char *name)
{
    for (int p = 0; p < KW_N_PARTS; p++)
        if (!strcmp(name, kw_part_name((kw_part)p)))
            return (kw_part)p;
    fail_msg("no part %s", name);
    return KW_N_PARTS;
}

/* A line of a golden list: part, canonical name, LDM name, and (full lists) shape and digest. */
typedef struct { char part[32], name[256], ldm[256], shape[64], digest[32]; } row;

static int next(FILE *f, row *r)
{
    char line[1024];
    *r = (row){ .shape = "" };
    if (!fgets(line, sizeof line, f))
        return 0;
    return sscanf(line, "%31s %255s %255s %63s %31s", r->part, r->name, r->ldm, r->shape, r->digest);
}

/* ---- names, both ways --------------------------------------------------------------------------------------- */

static size_t check_names(const char *list, kw_key_shape unet, kw_key_shape vae)
{
    FILE *f = fopen(list, "r");
    row r;
    size_t n = 0;
    assert_non_null(f);
    for (; next(f, &r) >= 3; n++) {
        bool is_unet = !strcmp(r.part, "unet");
        kw_keys keys = is_unet ? KW_KEYS_UNET : KW_KEYS_VAE;
        const kw_key_shape *shape = is_unet ? &unet : &vae;
        char out[KW_KEY_ROOM];
        if (!kw_key_to_ldm(keys, shape, r.name, out) || strcmp(out, r.ldm))
            fail_msg("%s: %s, not %s", r.name, out, r.ldm);
        if (!kw_key_from_ldm(keys, shape, r.ldm, out) || strcmp(out, r.name))
            fail_msg("%s: %s, not %s", r.ldm, out, r.name);
    }
    fclose(f);
    return n;
}

static void names_go_both_ways(void **state)
{
    (void)state;
    /* up_attention, deepest first: SD 1.5 has attentions in up blocks 1, 2, 3; `five` in 0, 2, 3 */
    assert_int_equal(check_names(GOLDEN "sd15.txt", (kw_key_shape){ 4, 2, 0xe }, (kw_key_shape){ 4, 2, 0 }), 686 + 248);
    size_t n = check_names(GOLDEN "five.txt", (kw_key_shape){ 5, 3, 0xd }, (kw_key_shape){ 5, 3, 0 });
    print_message("%zu + %zu names\n", (size_t)934, n);
    assert_true(n > 1000);
}

static void impossible_names_have_no_translation(void **state)
{
    (void)state;
    static const char *const ldm[] = {
        "input_blocks.3.0.in_layers.0.weight", "input_blocks.01.0.in_layers.0.weight", "input_blocks.12.0.op.weight",
        "input_blocks.1.1.conv.weight", "output_blocks.12.0.in_layers.0.weight", "output_blocks.11.1.conv.weight",
        "output_blocks.2.3.conv.weight", "input_blocks.1.0.in_layers.0", "input_blocks.1.0.in_layers.0.weight.x",
        "input_blocks.-1.0.in_layers.0.weight", "input_blocks.1000000000000.0.in_layers.0.weight", "",
        "time_embed.0.gamma",
    };
    static const char *const canonical[] = {
        "down_blocks.0.resnets.2.norm1.weight", "down_blocks.4.resnets.0.norm1.weight",
        "up_blocks.0.resnets.3.norm1.weight",
        "down_blocks.3.downsamplers.0.conv.weight", "up_blocks.3.upsamplers.0.conv.weight",
        "down_blocks.0.resnets.0.norm3.weight",
    };
    const kw_key_shape sd15 = { 4, 2, 0xe };
    char out[KW_KEY_ROOM];
    for (size_t i = 0; i < KW_LEN(ldm); i++)
        if (kw_key_from_ldm(KW_KEYS_UNET, &sd15, ldm[i], out))
            fail_msg("%s became %s", ldm[i], out);
    for (size_t i = 0; i < KW_LEN(canonical); i++)
        if (kw_key_to_ldm(KW_KEYS_UNET, &sd15, canonical[i], out))
            fail_msg("%s became %s", canonical[i], out);
}

/* ---- tensors, against diffusers' converter -------------------------------------------------------------------- */

static void assert_row(kw_source *s, const row *r)
{
    kw_part p = part_of(r->part);
    const kw_tensor *t = kw_source_find(s, p, r->name);
    if (!t)
        fail_msg("%s: %s is missing", r->part, r->name);
    char shape[160] = "", hex[65];
    for (int i = 0; i < t->rank; i++)
        sprintf(shape + strlen(shape), i ? "x%lld" : "%lld", (long long)t->shape[i]);
    if (strcmp(shape, r->shape))
        fail_msg("%s: shape %s, not %s", r->name, shape, r->shape);
    assert_true(kw_sha256_of(t->data, t->bytes, hex));
    hex[16] = 0;
    if (strcmp(hex, r->digest))
        fail_msg("%s: other numbers", r->name);
    if (strcmp(r->ldm, "-") && (kw_source_is_single(s) || strstr(kw_source_path(s), "old_vae")))
        assert_true(kw_ends_with(kw_source_file_name(s, p, r->name), r->ldm));
}

/* All that the list has is there, and nothing else. */
static void assert_list(kw_source *s, const char *list)
{
    FILE *f = fopen(list, "r");
    row r;
    size_t n = 0, i, total = 0;
    assert_non_null(f);
    for (; next(f, &r) == 5; n++)
        assert_row(s, &r);
    fclose(f);
    for (int p = 0; p < KW_N_PARTS; p++) {
        i = 0;
        const char *left = kw_source_unused(s, (kw_part)p, &i);
        if (left)
            fail_msg("%s: %s is not in the list", kw_part_name((kw_part)p), left);
        total += kw_source_n(s, (kw_part)p);
    }
    assert_int_equal(n, total);
    print_message("%zu tensors\n", n);
}

static void assert_config(kw_source *s, kw_part p, const char *expected)
{
    json_t *want, *value;
    const char *key;
    must(kw_json_parse(arena, "expected", expected, strlen(expected), &want, &err));
    json_object_foreach(want, key, value) {
        json_t *have = json_object_get(kw_source_config(s, p), key);
        if (!json_equal(have, value))
            fail_msg("%s: %s is %s", kw_part_name(p), key, have ? json_dumps(have, JSON_ENCODE_ANY) : "missing");
    }
}

static void reads_sd1_files(void **state)
{
    (void)state;
    kw_source *s;
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &s, &err));
    assert_list(s, GOLDEN "v1.txt");
    assert_true(kw_source_is_single(s));
    assert_int_equal(kw_source_n_unknown(s), 1);                   /* betas, averages, position_ids: no word */
    assert_string_equal(kw_source_unknown(s, 0), "strange.weight");
    assert_config(s, KW_PART_UNET,
        "{\"in_channels\":4,\"out_channels\":4,\"block_out_channels\":[4,8],\"layers_per_block\":2,"
        "\"cross_attention_dim\":6,"
        "\"down_block_types\":[\"CrossAttnDownBlock2D\",\"DownBlock2D\"],"
        "\"up_block_types\":[\"UpBlock2D\",\"CrossAttnUpBlock2D\"],"
        "\"attention_head_dim\":8,\"use_linear_projection\":false,\"transformer_layers_per_block\":1,"
        "\"mid_block_type\":\"UNetMidBlock2DCrossAttn\",\"norm_num_groups\":4}");
    assert_config(s, KW_PART_VAE,
        "{\"block_out_channels\":[4,8],\"layers_per_block\":1,\"latent_channels\":4,\"scaling_factor\":0.18215,"
        "\"in_channels\":3,"
        "\"use_quant_conv\":true,\"mid_block_add_attention\":true}");
    assert_config(s, KW_PART_TEXT,
        "{\"hidden_size\":6,\"num_hidden_layers\":2,\"intermediate_size\":24,\"vocab_size\":50,"
        "\"max_position_embeddings\":7,"
        "\"hidden_act\":\"quick_gelu\"}");
    const kw_noise_config *n = kw_source_noise(s);
    assert_true(n->is_guess && n->beta_start == 0.00085 && n->beta_end == 0.012 && n->num_train_timesteps == 1000);
    assert_string_equal(n->beta_schedule, "scaled_linear");
    assert_string_equal(n->prediction_type, "epsilon");
    bool noted = false;
    for (size_t i = 0; i < kw_source_n_notes(s); i++)
        noted |= strstr(kw_source_note(s, i), "inferred from the weights") != NULL;
    assert_true(noted);
    const kw_tensor *q = kw_source_find(s, KW_PART_VAE, "encoder.mid_block.attentions.0.to_q.weight");
    assert_int_equal(q->rank, 2);
    for (size_t i = 0; i < kw_source_n(s, KW_PART_VAE); i++)
        if (kw_source_at(s, KW_PART_VAE, i)->data == q->data)
            assert_int_equal(kw_source_raw(s, KW_PART_VAE, i)->rank, 4);
}

static void reads_sd2_files(void **state)
{
    (void)state;
    kw_source *s;
    must(kw_source_open(arena, GOLDEN "v2.safetensors", &s, &err));
    assert_list(s, GOLDEN "v2.txt");
    assert_config(s, KW_PART_UNET,
        "{\"block_out_channels\":[4,8,8],\"layers_per_block\":1,\"use_linear_projection\":true,"
        "\"up_block_types\":[\"UpBlock2D\",\"CrossAttnUpBlock2D\",\"CrossAttnUpBlock2D\"]}");
    assert_config(s, KW_PART_TEXT, "{\"num_hidden_layers\":23,\"hidden_size\":4}");
    assert_int_equal(kw_source_n_unknown(s), 0);
}

static void reads_sdxl_files(void **state)
{
    (void)state;
    kw_source *s;
    must(kw_source_open(arena, GOLDEN "xl.safetensors", &s, &err));
    assert_list(s, GOLDEN "xl.txt");
    assert_config(s, KW_PART_UNET,
        "{\"transformer_layers_per_block\":[1,2],\"addition_embed_type\":\"text_time\",\"addition_time_embed_dim\":256,"
        "\"projection_class_embeddings_input_dim\":10,"
        "\"down_block_types\":[\"DownBlock2D\",\"CrossAttnDownBlock2D\"]}");
    assert_config(s, KW_PART_VAE, "{\"scaling_factor\":0.13025}");
    assert_config(s, KW_PART_TEXT2, "{\"hidden_act\":\"gelu\",\"projection_dim\":4,\"num_hidden_layers\":2}");
}

static void reads_old_vae_folders(void **state)
{
    (void)state;
    kw_source *s;
    must(kw_source_open(arena, GOLDEN "old_vae", &s, &err));
    assert_false(kw_source_is_single(s));
    assert_list(s, GOLDEN "old_vae.txt");
    assert_true(kw_source_has(s, KW_PART_VAE) && !kw_source_has(s, KW_PART_UNET));
    assert_config(s, KW_PART_VAE, "{\"_class_name\":\"AutoencoderKL\",\"block_out_channels\":[4,8],"
                  "\"norm_num_groups\":2}");
    must(kw_source_open(arena, GOLDEN "old_vae/diffusion_pytorch_model.safetensors", &s, &err));
    assert_config(s, KW_PART_VAE, "{\"norm_num_groups\":2}");      /* the config.json beside it */
}

/* ---- folders -------------------------------------------------------------------------------------------------- */

/* Writes a part of s under canonical names as a file of a folder. */
static void save_part(kw_source *s, kw_part p, const char *name, const char *strip)
{
    size_t n = kw_source_n(s, p);
    kw_tensor *all = kw_alloc_array(arena, n, sizeof *all);
    for (size_t i = 0; i < n; i++) {
        all[i] = *kw_source_at(s, p, i);
        if (kw_starts_with(all[i].name, strip))
            all[i].name += strlen(strip);
    }
    char *path = in_dir(name);
    must(kw_mkdirs(kw_path_dir(arena, path), &err));
    must(kw_tensors_save(path, all, n, NULL, 0, &err));
}

static void a_folder_is_as_good_as_a_file(void **state)
{
    (void)state;
    kw_source *file, *folder;
    char a[65], b[65];
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &file, &err));
    save_part(file, KW_PART_UNET, "m/unet/diffusion_pytorch_model.fp16.safetensors", "");
    save_part(file, KW_PART_VAE, "m/vae/diffusion_pytorch_model.safetensors", "");
    save_part(file, KW_PART_TEXT, "m/text_encoder/model.safetensors", "text_model.");   /* as transformers 5 writes */
    put("m/tokenizer/vocab.json", "{}");
    put("m/unet/config.json", "{\"_class_name\":\"UNet2DConditionModel\",\"sample_size\":8}");
    put("m/scheduler/scheduler_config.json",
        "{\"_class_name\":\"DDIMScheduler\",\"beta_schedule\":\"scaled_linear\",\"prediction_type\":\"v_prediction\","
        "\"rescale_betas_zero_snr\":true,\"trained_betas\":null,\"steps_offset\":1}");
    must(kw_source_open(arena, in_dir("m"), &folder, &err));
    for (int p = 0; p <= KW_N_PARTS; p++) {
        must(kw_source_hash(file, (kw_part)p, a, &err));
        must(kw_source_hash(folder, (kw_part)p, b, &err));
        assert_string_equal(a, b);
    }
    assert_list(folder, GOLDEN "v1.txt");
    assert_config(folder, KW_PART_UNET, "{\"sample_size\":8}");
    assert_config(folder, KW_PART_VAE, "{\"layers_per_block\":1}");
    assert_true(kw_ends_with(kw_source_tokenizer(folder, KW_PART_TEXT), "/tokenizer"));
    assert_null(kw_source_tokenizer(folder, KW_PART_TEXT2));
    const kw_noise_config *n = kw_source_noise(folder);
    assert_true(!n->is_guess && n->rescale_betas_zero_snr && n->set_alpha_to_one && n->clip_sample);
    assert_true(n->beta_start == 0.0001 && n->steps_offset == 1);
    assert_string_equal(n->prediction_type, "v_prediction");
}

static void one_part_is_enough(void **state)
{
    (void)state;
    kw_source *file, *s;
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &file, &err));
    save_part(file, KW_PART_UNET, "u/unet/diffusion_pytorch_model.safetensors", "");
    put("u/unet/config.json", "{\"_class_name\":\"UNet2DConditionModel\"}");
    must(kw_source_open(arena, in_dir("u"), &s, &err));
    assert_true(kw_source_has(s, KW_PART_UNET) && !kw_source_has(s, KW_PART_VAE) && !kw_source_has(s, KW_PART_TEXT));
    must(kw_source_open(arena, in_dir("u/unet"), &s, &err));
    assert_true(kw_source_has(s, KW_PART_UNET));
    save_part(file, KW_PART_TEXT, "t/model.safetensors", "");
    put("t/config.json", "{\"architectures\":[\"CLIPTextModel\"],\"hidden_size\":6}");
    put("t/vocab.json", "{}");
    must(kw_source_open(arena, in_dir("t"), &s, &err));
    assert_config(s, KW_PART_TEXT, "{\"hidden_size\":6}");
    assert_string_equal(kw_source_tokenizer(s, KW_PART_TEXT), in_dir("t"));
    copy(GOLDEN "v1.safetensors", "alone/x.safetensors");
    must(kw_source_open(arena, in_dir("alone"), &s, &err));
    assert_true(kw_source_has(s, KW_PART_VAE));
}

static void a_file_may_bring_its_configuration(void **state)
{
    (void)state;
    kw_tensors *t;
    kw_source *s;
    must(kw_tensors_open(arena, GOLDEN "v1.safetensors", &t, &err));
    size_t n = kw_tensors_n(t);
    kw_tensor *all = kw_alloc_array(arena, n, sizeof *all);
    for (size_t i = 0; i < n; i++)
        all[i] = *kw_tensors_at(t, i);
    const kw_meta meta[] = { { KW_META_CONFIG, "{\"unet\":{\"attention_head_dim\":2},"
                               "\"scheduler\":{\"beta_start\":0.001}}" },
                             { "modelspec.prediction_type", "v" } };
    must(kw_tensors_save(in_dir("x.safetensors"), all, n, meta, 2, &err));
    must(kw_source_open(arena, in_dir("x.safetensors"), &s, &err));
    assert_config(s, KW_PART_UNET, "{\"attention_head_dim\":2}");
    assert_true(kw_source_noise(s)->beta_start == 0.001);
    must(kw_tensors_save(in_dir("y.safetensors"), all, n, meta + 1, 1, &err));
    must(kw_source_open(arena, in_dir("y.safetensors"), &s, &err));
    assert_string_equal(kw_source_noise(s)->prediction_type, "v_prediction");
}

/* ---- what is not a base model ------------------------------------------------------------------------------------ */

static void one_tensor(const char *name, const char *tensor)
{
    float v = 1;
    kw_tensor t = { tensor, KW_F32, 1, { 1 }, &v, 4, false };
    must(kw_tensors_save(in_dir(name), &t, 1, NULL, 0, &err));
}

static void refuse(const char *path, const char *says)
{
    kw_source *s;
    if (kw_source_open(arena, in_dir(path), &s, &err) != KW_EDATA || !strstr(err.what, says))
        fail_msg("%s: \"%s\", not \"%s\"", path, err.what, says);
}

static void other_models_are_named(void **state)
{
    (void)state;
    one_tensor("lora.safetensors", "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight");
    refuse("lora.safetensors", "a LoRA");
    one_tensor("sd3.safetensors", "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight");
    refuse("sd3.safetensors", "Stable Diffusion 3");
    one_tensor("odd.safetensors", "something");
    refuse("odd.safetensors", "no Stable Diffusion model");
    put("flux/model_index.json", "{\"_class_name\":\"FluxPipeline\","
        "\"transformer\":[\"diffusers\",\"FluxTransformer2DModel\"]}");
    refuse("flux", "FluxPipeline");
    put("video/unet/config.json", "{\"_class_name\":\"UNetSpatioTemporalConditionModel\"}");
    refuse("video", "UNetSpatioTemporalConditionModel");
    put("empty/readme.txt", "");
    refuse("empty", "no Stable Diffusion model");
    put("bin/unet/config.json", "{}");
    put("bin/unet/diffusion_pytorch_model.bin", "\x80\2}q.");
    refuse("bin", "a pickle that PyTorch did not write");
    put("broken/unet/config.json", "{");
    refuse("broken", "not valid JSON");
    put("list/unet/config.json", "[]");
    refuse("list", "not a configuration");
    refuse("nowhere", "cannot open");
}

static void odd_schedulers_are_refused(void **state)
{
    (void)state;
    kw_source *file;
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &file, &err));
    save_part(file, KW_PART_UNET, "m/unet/diffusion_pytorch_model.safetensors", "");
    static const char *const bad[] = {
        "{\"beta_start\":\"x\"}", "{\"beta_start\":-1}", "{\"beta_schedule\":\"exponential\"}",
        "{\"num_train_timesteps\":0}",
        "{\"num_train_timesteps\":1.5}", "{\"prediction_type\":7}", "{\"trained_betas\":[0.1]}", "{\"clip_sample\":1}",
    };
    for (size_t i = 0; i < KW_LEN(bad); i++) {
        put("m/scheduler/scheduler_config.json", bad[i]);
        refuse("m", "scheduler");
    }
}

static void memory_may_run_out(void **state)
{
    (void)state;
    for (long n = 1;; n += n < 100 ? 1 : 37) {
        kw_arena *a = kw_arena_new();
        kw_source *s;
        kw_alloc_fail_after(n);
        kw_status status = kw_source_open(a, GOLDEN "xl.safetensors", &s, &err);
        kw_alloc_fail_after(0);
        kw_arena_free(a);
        if (!status)
            break;
        assert_int_equal(status, KW_ENOMEM);
        assert_true(n < 100000);
    }
}

/* ---- keeping a hash ---------------------------------------------------------------------------------------------- */

/* Files look older than they are, so that no test has to wait. */
static void age(struct stat *s) { s->st_mtim.tv_sec -= 10, s->st_ctim.tv_sec -= 10; }
static int old_stat(const char *path, struct stat *s)
{
    int r = kw_io_system.stat(path, s);
    age(s);
    return r;
}
static int old_fstat(int fd, struct stat *s)
{
    int r = kw_io_system.fstat(fd, s);
    age(s);
    return r;
}

static bool stamp_of(const char *path, kw_part p, char key[65])
{
    kw_source *s;
    must(kw_source_open(arena, path, &s, &err));
    return kw_source_stamp(s, p, key);
}

static void a_hash_is_kept_as_long_as_the_file_is_the_same(void **state)
{
    (void)state;
    kw_io old = kw_io_system;
    kw_source *v1;
    char first[65], again[65], hash[65], *path = in_dir("m.safetensors"), *data;
    size_t n;
    struct stat st;
    must(kw_file_read(arena, GOLDEN "v1.safetensors", 1 << 30, &data, &n, &err));
    must(kw_file_write_atomic(path, data, n, &err));
    assert_false(stamp_of(path, KW_PART_UNET, first));         /* written just now */
    old.stat = old_stat, old.fstat = old_fstat;
    kw_io_now = &old;
    assert_true(stamp_of(path, KW_PART_UNET, first) && stamp_of(path, KW_PART_UNET, again));
    assert_string_equal(first, again);
    assert_true(stamp_of(path, KW_PART_VAE, again));
    assert_string_not_equal(first, again);
    assert_int_equal(stat(path, &st), 0);
    usleep(20000);                        /* another tick of the file system's clock */
    data[n - 1] ^= 1;                     /* in place: the same inode, size and, put back, time of change */
    FILE *f = fopen(path, "r+b");
    assert_true(f && fwrite(data, 1, n, f) == n && !fclose(f));
    const struct timespec times[] = { st.st_atim, st.st_mtim };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_true(stamp_of(path, KW_PART_UNET, again));
    kw_io_now = &kw_io_system;
    assert_string_not_equal(first, again);
    must(kw_source_open(arena, path, &v1, &err));
    kw_source_know_hash(v1, KW_PART_UNET, first);
    must(kw_source_hash(v1, KW_PART_UNET, hash, &err));
    assert_string_equal(hash, first);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(names_go_both_ways), T(impossible_names_have_no_translation), T(reads_sd1_files), T(reads_sd2_files),
        T(reads_sdxl_files), T(reads_old_vae_folders), T(a_folder_is_as_good_as_a_file), T(a_hash_is_kept_as_long_as_the_file_is_the_same), T(one_part_is_enough),
        T(a_file_may_bring_its_configuration), T(other_models_are_named), T(odd_schedulers_are_refused),
        T(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
