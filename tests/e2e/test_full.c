/*
 * test_full.c - full training of a model folder and of a single LDM file: what is trained is new, every other byte is
 * as it was; both ways give the same numbers; a killed run resumed ends in the same file.
 *
 * The models are the small `shapes` base with CLIP's vocabulary (a single file has no room for a tokenizer of its own),
 * and around it what real checkpoints carry: position_ids, noise schedules, averages, names that mean nothing.
 */
#include "io/io.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHAPES KW_TESTS "/../data/shapes"
#define PICTURES KW_TESTS "/../data/mascot/train"
enum { WORDS = 49408, PLACES = 77, WIDTH = 32, KILLS = 5 };

extern char **environ;

static const char *binary;
static char dir[64];
static kw_arena *arena;
static kw_err err;

static char *in_dir(const char *name) { return kw_path_join(arena, dir, name); }

static void must(kw_status s)
{
    if (s)
        fail_msg("%s | %s (%s:%d)", err.what, err.advice, err.file, err.line);
}

/* ---- running the program ----------------------------------------------------------------------------------------- */

static pid_t start(char *const *argv)
{
    pid_t pid;
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&quiet, 2, in_dir("said"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    assert_int_equal(posix_spawn(&pid, binary, &quiet, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&quiet);
    return pid;
}

static int finish(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* One line, split at blanks; %s are paths without blanks. */
static char **words(const char *fmt, ...) KW_PRINTF(1, 2);
static char **words(const char *fmt, ...)
{
    char line[2048], **argv = kw_alloc_array(arena, 64, sizeof *argv);
    size_t n = 0;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    argv[n++] = kw_strdup(arena, binary);
    for (char *w = strtok(kw_strdup(arena, line), " "); w; w = strtok(NULL, " "))
        argv[n++] = w;
    return argv;
}

static void expect(int code, char **argv, const char *says)
{
    char *said;
    size_t n;
    int got = finish(start(argv));
    must(kw_file_read(arena, in_dir("said"), 1 << 20, &said, &n, &err));
    if (got != code || (says && !strstr(said, says)))
        fail_msg("exit %d, not %d: %s", got, code, said);
}

/* ---- the models -------------------------------------------------------------------------------------------------- */

static kw_tensor table(const char *name, int rows, uint32_t seed)
{
    uint16_t *x = kw_alloc_array(arena, (size_t)rows * WIDTH, sizeof *x);
    for (int i = 0; i < rows * WIDTH; i++) {
        seed = seed * 1664525 + 1013904223;
        float v = ((float)(seed >> 8) / 16777216 - 0.5f) / 4;
        kw_convert(KW_F16, &x[i], KW_F32, &v, 1);
    }
    return (kw_tensor){ .name = name, .dtype = KW_F16, .rank = 2, .shape = { rows, WIDTH }, .data = x,
                        .bytes = (uint64_t)rows * WIDTH * 2 };
}

static kw_tensor plain(const char *name, kw_dtype type, int64_t n)
{
    uint8_t *x = kw_alloc_array(arena, (size_t)n + 1, kw_dtype_size(type));
    for (size_t i = 0; i < (size_t)n * kw_dtype_size(type); i++)
        x[i] = (uint8_t)(i * 37 % 63);
    return (kw_tensor){ .name = name, .dtype = type, .rank = 1, .shape = { n }, .data = x,
                        .bytes = (uint64_t)n * kw_dtype_size(type) };
}

/* The parts' tensors under canonical names, the text encoder with CLIP's tables. */
static size_t part_tensors(kw_source *s, kw_part p, kw_tensor *out)
{
    size_t n = kw_source_n(s, p);
    for (size_t i = 0; i < n; i++) {
        out[i] = *kw_source_at(s, p, i);
        if (strstr(out[i].name, "token_embedding"))
            out[i] = table(out[i].name, WORDS, 1);
        if (strstr(out[i].name, "position_embedding"))
            out[i] = table(out[i].name, PLACES, 2);
    }
    return n;
}

static json_t *config_of(kw_source *s, kw_part p)
{
    json_t *c = kw_source_config(s, p);
    if (p == KW_PART_TEXT)
        json_object_update_new(c, json_pack("{s:i, s:i, s:i, s:i}", "vocab_size", WORDS, "max_position_embeddings",
                                            PLACES, "bos_token_id", WORDS - 2, "eos_token_id", WORDS - 1));
    return c;
}

static void put(const char *name, const char *text)
{
    char *path = in_dir(name);
    must(kw_mkdirs(kw_path_dir(arena, path), &err));
    must(kw_file_write_atomic(path, text, strlen(text), &err));
}

static char *text_of(const json_t *j)
{
    char *t = json_dumps(j, 0), *copy = kw_strdup(arena, t);
    free(t);
    return copy;
}

static const char scheduler[] = "{\"_class_name\": \"DDIMScheduler\", \"beta_schedule\": \"scaled_linear\", "
                                "\"beta_start\": 0.00085, \"beta_end\": 0.012, \"num_train_timesteps\": 1000}";

/* A folder with all that a model from a hub brings, and what must not come along. */
static void make_folder(kw_source *s)
{
    static const char *const file[] = { "diffusion_pytorch_model", "diffusion_pytorch_model", "model" };
    kw_tensor *t = kw_alloc_array(arena, 4096, sizeof *t);
    for (int p = 0; p < 3; p++) {
        size_t n = part_tensors(s, (kw_part)p, t);
        const kw_meta meta = { "format", "pt" };
        if (p == KW_PART_TEXT)
            t[n++] = plain("text_model.embeddings.position_ids", KW_I64, PLACES);
        put(kw_sprintf(arena, "folder/%s/config.json", kw_part_name((kw_part)p)), text_of(config_of(s, (kw_part)p)));
        char *path = in_dir(kw_sprintf(arena, "folder/%s/%s.safetensors", kw_part_name((kw_part)p), file[p]));
        must(kw_tensors_save(path, t, n, &meta, p != KW_PART_UNET, &err));
    }
    put("folder/scheduler/scheduler_config.json", scheduler);
    put("folder/model_index.json", "{\"_class_name\": \"StableDiffusionPipeline\", \"our_part\": [\"x\", \"Y\"]}");
    put("folder/safety_checker/model.safetensors", "any bytes");
    put("folder/safety_checker/config.json", "{}");
    put("folder/feature_extractor/deep/preprocessor_config.json", "{ \"a\":  1 }");
    put("folder/our_part/weights.bin", "named by model_index.json");
    put("folder/vae/diffusion_pytorch_model.fp16.safetensors", "another form of an untrained part");
    put("folder/text_encoder/pytorch_model.bin", "old weights in another form");
    put("folder/text_encoder/model.safetensors.index.fp16.json", "{}");
    put("folder/whole.ckpt", "the old weights once more");
    put("folder/README.md", "read me");
    put("folder/.git/HEAD", "ref");
    put("folder/pictures/a.txt", "not of the model");
}

/* The same numbers as one LDM file. */
static void make_single(kw_source *s, const char *path)
{
    static const kw_key_shape shape[] = { { 2, 1, 1 }, { 3, 1, 0 } };
    static const char *const prefix[] = { "model.diffusion_model.", "first_stage_model.",
                                          "cond_stage_model.transformer." };
    kw_tensor *t = kw_alloc_array(arena, 4096, sizeof *t);
    size_t n = 0;
    json_t *config = json_object(), *noise = json_loads(scheduler, 0, NULL);
    for (int p = 0; p < 3; p++) {
        size_t first = n;
        n += part_tensors(s, (kw_part)p, t + n);
        for (size_t i = first; i < n; i++) {
            char ldm[KW_KEY_ROOM];
            bool attention = p == KW_PART_VAE && strstr(t[i].name, "attentions") && t[i].rank == 2;
            if (p == KW_PART_TEXT)
                snprintf(ldm, sizeof ldm, "%s", t[i].name);
            else
                assert_true(kw_key_to_ldm((kw_keys)p, &shape[p], t[i].name, ldm));
            t[i].name = kw_sprintf(arena, "%s%s", prefix[p], ldm);
            if (attention)
                t[i].shape[2] = t[i].shape[3] = 1, t[i].rank = 4;
        }
        json_object_set(config, kw_part_name((kw_part)p), config_of(s, (kw_part)p));
    }
    json_object_set_new(config, "scheduler", noise);
    t[n++] = plain("cond_stage_model.transformer.text_model.embeddings.position_ids", KW_I64, PLACES);
    t[n++] = plain("betas", KW_F64, 1000);
    t[n++] = plain("alphas_cumprod", KW_F32, 1000);
    t[n++] = plain("model_ema.decay", KW_F32, 1);
    t[n++] = plain("first_stage_model.loss.logvar", KW_BF16, 1);
    t[n++] = plain("nothing.we.know", KW_U8, 5);
    t[n++] = plain("empty", KW_F16, 0);
    const kw_meta meta[] = { { KW_META_CONFIG, text_of(config) }, { "modelspec.title", "tiny" },
                             { "modelspec.hash_sha256", "0xold" } };
    must(kw_tensors_save(path, t, n, meta, KW_LEN(meta), &err));
    json_decref(config);
}

/* Six pictures with their captions. */
static void make_photos(void)
{
    must(kw_mkdirs(in_dir("photos"), &err));
    for (int i = 0; i < 12; i++) {
        char *data, *name = kw_sprintf(arena, "kiwamaru-%02d.%s", i / 2 + 1, i % 2 ? "txt" : "png");
        size_t n;
        must(kw_file_read(arena, kw_path_join(arena, PICTURES, name), 1 << 20, &data, &n, &err));
        must(kw_file_write_atomic(kw_path_join(arena, in_dir("photos"), name), data, n, &err));
    }
}

static int set_up(void **state)
{
    (void)state;
    kw_source *s;
    snprintf(dir, sizeof dir, "%s/kiwame-full-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    arena = kw_arena_new();
    assert_non_null(mkdtemp(dir));
    setenv("KIWAME_LANG", "en", 1);
    must(kw_source_open(arena, SHAPES, &s, &err));
    make_photos();
    make_folder(s);
    make_single(s, in_dir("single.safetensors"));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kw_arena_free(arena);
    return kw_remove_all(dir, &err);
}

/* ---- what must hold ---------------------------------------------------------------------------------------------- */

static kw_tensors *tensors(const char *path)
{
    kw_tensors *t;
    must(kw_tensors_open(arena, path, &t, &err));
    return t;
}

/* Same names, shapes; those of the prefixes in `type`, the rest byte for byte. Returns how many numbers moved. */
static size_t compare(const kw_tensors *was, const kw_tensors *is, const char *const *trained, kw_dtype type)
{
    size_t moved = 0, kept = 0;
    assert_int_equal(kw_tensors_n(was), kw_tensors_n(is));
    for (size_t i = 0; i < kw_tensors_n(was); i++) {
        const kw_tensor *a = kw_tensors_at(was, i), *b = kw_tensors_find(is, a->name);
        bool new = false, same = b && a->dtype == b->dtype && a->bytes == b->bytes
            && !memcmp(a->data, b->data, (size_t)a->bytes);
        for (size_t k = 0; trained[k]; k++)
            new |= kw_starts_with(a->name, trained[k]) && !strstr(a->name, "position_ids");
        if (!b || b->rank != a->rank || memcmp(a->shape, b->shape, sizeof a->shape[0] * (size_t)a->rank))
            fail_msg("%s is missing or has another shape", a->name);
        if (new ? b->dtype != type : !same)
            fail_msg("%s: %s", a->name, new ? "not of the type that was asked for" : "not byte for byte");
        moved += new && !same;
        kept += !new;
    }
    print_message("%zu tensors as they were, %zu moved\n", kept, moved);
    return moved;
}

static void assert_same_file(const char *a, const char *b)
{
    char x[65], y[65];
    must(kw_sha256_file(a, x, &err));
    must(kw_sha256_file(b, y, &err));
    if (strcmp(x, y))
        fail_msg("%s is not %s", b, a);
}

static char **train(const char *base, const char *part, const char *out, const char *more)
{
    return words("train full %s --base %s --part %s --out %s --name m --steps 8 --batch-size 2 --learning-rate 1e-3 "
                 "--resolution 64 --save-dtype bf16 --checkpoint-every 2 --sample-every-steps 4 --save-every-steps 4 "
                 "--sample-prompt ball --sample-sampling-steps 1 --validate-every 8 --cache %s --threads 1 --quiet %s",
                 in_dir("photos"), in_dir(base), part, in_dir(out), in_dir("cache"), more);
}

static char **short_train(const char *base, const char *part, const char *out)
{
    return words("train full %s --base %s --part %s --out %s --name m --steps 1 --batch-size 1 --resolution 32 "
                 "--save-dtype f32 --validation 0 --cache %s --threads 1 --quiet", in_dir("photos"), in_dir(base), part,
                 in_dir(out), in_dir("cache"));
}

static void a_single_file(void **state)
{
    (void)state;
    static const char *const trained[] = { "model.diffusion_model.", "cond_stage_model.", NULL };
    expect(0, train("single.safetensors", "unet,text", "a", ""), NULL);
    static const char *const made[] = { "a/m.safetensors", "a/m-step00000004.safetensors", "a/report.html",
                                        "a/plan.txt" };
    for (size_t i = 0; i < KW_LEN(made); i++)
        if (!kw_is_file(in_dir(made[i])))
            fail_msg("%s is missing", made[i]);
    kw_tensors *t = tensors(in_dir("a/m.safetensors"));
    assert_true(compare(tensors(in_dir("single.safetensors")), t, trained, KW_BF16) > 200);
    assert_string_equal(kw_tensors_meta(t, "modelspec.title"), "tiny");
    assert_non_null(kw_tensors_meta(t, KW_META_CONFIG));
    assert_null(kw_tensors_meta(t, "modelspec.hash_sha256"));
    char **names;
    size_t n, pictures = 0;
    must(kw_dir_list(arena, in_dir("a/samples"), &names, &n, &err));
    for (size_t i = 0; i < n; i++)
        pictures += kw_ends_with(names[i], ".png");
    assert_int_equal(pictures, 3);                         /* before the first step, and twice */
    expect(0, words("generate ball --base %s --steps 1 --width 32 --height 32 --out %s", in_dir("a/m.safetensors"),
                    in_dir("x.png")), NULL);
}

/* kill -9 at moments spread over a run; sample pictures and the log are t0100's matter. */
static void a_killed_run_resumed_is_the_same_file(void **state)
{
    (void)state;
    pid_t pid = start(train("single.safetensors", "unet,text", "b", ""));
    int kills = 0;
    for (int i = 0; i < KILLS; i++) {
        int status;
        usleep((unsigned)(300000 + 400000 * i));
        if (waitpid(pid, &status, WNOHANG) == pid)
            break;
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        kills++;
        pid = start(kw_is_file(in_dir("b/recipe.toml")) ? words("resume %s --quiet", in_dir("b"))
                                                        : train("single.safetensors", "unet,text", "b", ""));
        if (i == KILLS - 1)
            assert_int_equal(finish(pid), 0);
    }
    print_message("%d kills\n", kills);
    assert_true(kills > 0);
    if (!kw_is_file(in_dir("b/m.safetensors")))
        expect(0, words("resume %s --quiet", in_dir("b")), NULL);
    assert_same_file(in_dir("a/m.safetensors"), in_dir("b/m.safetensors"));
    assert_same_file(in_dir("a/m-step00000004.safetensors"), in_dir("b/m-step00000004.safetensors"));
    assert_same_file(in_dir("a/checkpoints/step-00000008/state.safetensors"),
                     in_dir("b/checkpoints/step-00000008/state.safetensors"));
}

static void the_autoencoder_of_a_single_file(void **state)
{
    (void)state;
    static const char *const trained[] = { "first_stage_model.d", "first_stage_model.e", "first_stage_model.q",
                                           "first_stage_model.p", NULL };
    expect(0, short_train("single.safetensors", "vae", "v"), NULL);
    assert_true(compare(tensors(in_dir("single.safetensors")), tensors(in_dir("v/m.safetensors")), trained,
                        KW_F32) > 100);
}

/* The folder of the same numbers: what is trained is the same, bit for bit; the folder is whole. */
static void a_folder(void **state)
{
    (void)state;
    static const char *const all[] = { "", NULL };
    static const char *const same[] = {
        "vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors", "vae/config.json",
        "unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json", "model_index.json",
        "README.md",
        "safety_checker/model.safetensors", "safety_checker/config.json",
        "feature_extractor/deep/preprocessor_config.json",
        "our_part/weights.bin",
    };
    static const char *const gone[] = { "text_encoder/pytorch_model.bin",
                                        "text_encoder/model.safetensors.index.fp16.json", "whole.ckpt", ".git",
                                        "pictures" };
    static const struct { const char *file; kw_part part; } parts[] = { { "unet/diffusion_pytorch_model",
                                                                          KW_PART_UNET }, { "text_encoder/model",
                                                                                            KW_PART_TEXT } };
    expect(0, train("folder", "unet,text", "c", ""), NULL);
    for (size_t i = 0; i < KW_LEN(same); i++)
        assert_same_file(in_dir(kw_sprintf(arena, "folder/%s", same[i])), in_dir(kw_sprintf(arena, "c/m/%s", same[i])));
    for (size_t i = 0; i < KW_LEN(gone); i++)
        if (kw_is_file(in_dir(kw_sprintf(arena, "c/m/%s", gone[i])))
            || kw_is_dir(in_dir(kw_sprintf(arena, "c/m/%s", gone[i]))))
            fail_msg("%s came along", gone[i]);
    kw_source *single;
    must(kw_source_open(arena, in_dir("a/m.safetensors"), &single, &err));
    for (size_t i = 0; i < KW_LEN(parts); i++) {
        kw_tensors *was = tensors(in_dir(kw_sprintf(arena, "folder/%s.safetensors", parts[i].file)));
        kw_tensors *is = tensors(in_dir(kw_sprintf(arena, "c/m/%s.safetensors", parts[i].file)));
        compare(was, is, all, KW_BF16);
        assert_string_equal(kw_tensors_meta(is, "format"), "pt");
        for (size_t k = 0; k < kw_source_n(single, parts[i].part); k++) {
            const kw_tensor *a = kw_source_at(single, parts[i].part, k), *b = kw_tensors_find(is, a->name);
            if (!b || a->bytes != b->bytes || memcmp(a->data, b->data, (size_t)a->bytes))
                fail_msg("%s: folder and file trained to other numbers", a->name);
        }
    }
}

/* One part alone: the very buffers that were dropped once; and the folder of a lone part. */
static void parts_alone(void **state)
{
    (void)state;
    static const char *const all[] = { "", NULL };
    expect(0, short_train("folder", "text", "t"), NULL);
    compare(tensors(in_dir("folder/text_encoder/model.safetensors")),
            tensors(in_dir("t/m/text_encoder/model.safetensors")), all, KW_F32);
    assert_same_file(in_dir("folder/unet/diffusion_pytorch_model.safetensors"),
                     in_dir("t/m/unet/diffusion_pytorch_model.safetensors"));
    assert_int_equal(kw_remove_all(in_dir("folder/vae/diffusion_pytorch_model.fp16.safetensors"), &err), KW_OK);
    expect(0, short_train("folder/vae", "vae", "w"), NULL);
    compare(tensors(in_dir("folder/vae/diffusion_pytorch_model.safetensors")),
            tensors(in_dir("w/m/diffusion_pytorch_model.safetensors")), all, KW_F32);
    assert_same_file(in_dir("folder/vae/config.json"), in_dir("w/m/config.json"));
}

static void the_base_is_not_replaced(void **state)
{
    (void)state;
    char hex[65], now[65];
    must(kw_sha256_file(in_dir("single.safetensors"), hex, &err));
    expect(2, words("train full %s --base %s --out %s --name single --steps 1 --quiet", in_dir("photos"),
                    in_dir("single.safetensors"), dir), "would be replaced");
    expect(2, words("train full %s --base %s --out %s --name folder --steps 1 --quiet", in_dir("photos"),
                    in_dir("folder"), dir), "would be replaced");
    must(kw_sha256_file(in_dir("single.safetensors"), now, &err));
    assert_string_equal(hex, now);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_file), cmocka_unit_test(a_killed_run_resumed_is_the_same_file),
        cmocka_unit_test(the_autoencoder_of_a_single_file), cmocka_unit_test(a_folder), cmocka_unit_test(parts_alone),
        cmocka_unit_test(the_base_is_not_replaced),
    };
    binary = argc > 1 ? argv[1] : "build/kiwame";
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
