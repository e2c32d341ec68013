/*
 * test_rewrite.c - a model's file written again with new values: what is not new keeps its bytes, what is new is found
 * again under its canonical name. The files are the reference library's; reading them is tested against diffusers'
 * converter in test_source.c, so reading back is the truth here.
 */
#include "fixture.h"

static kw_source *open_source(const char *path)
{
    kw_source *s;
    must(kw_source_open(arena, path, &s, &err));
    return s;
}

/* Values for every tensor of a part: i, i + 1/4, ... from a number of the tensor's own;
 * exact in f32 and bf16's reach. */
static float value(size_t tensor, int64_t k) { return (float)(tensor % 61) + (float)(k % 97) / 128 - 30; }

static kw_values values_of(const kw_source *s, kw_part p, size_t i)
{
    kw_values v = { p, *kw_source_at(s, p, i) };
    int64_t n = kw_tensor_count(&v.t);
    float *x = kw_alloc_array(arena, (size_t)n, sizeof *x);
    for (int64_t k = 0; k < n; k++)
        x[k] = value(i, k);
    v.t.dtype = KW_F32;
    v.t.data = x;
    v.t.bytes = (uint64_t)n * sizeof *x;
    return v;
}

static size_t all_values(const kw_source *s, kw_part p, kw_values **v)
{
    size_t n = kw_source_n(s, p);
    *v = kw_alloc_array(arena, n + 1, sizeof **v);
    for (size_t i = 0; i < n; i++)
        (*v)[i] = values_of(s, p, i);
    return n;
}

static void assert_same_bytes(const kw_tensor *a, const kw_tensor *b)
{
    if (!b || a->dtype != b->dtype || a->rank != b->rank
        || memcmp(a->shape, b->shape, sizeof a->shape[0] * (size_t)a->rank) || a->bytes != b->bytes
        || memcmp(a->data, b->data, (size_t)a->bytes))
        fail_msg("%s is not what it was", a->name);
}

/* Every tensor of the file whose canonical part is not p has its bytes; shapes and names are the file's everywhere. */
static void assert_rest(const kw_source *was, const kw_source *is, kw_part p)
{
    const kw_tensors *a = kw_source_file(was, p), *b = kw_source_file(is, p);
    size_t kept = 0;
    assert_int_equal(kw_tensors_n(a), kw_tensors_n(b));
    for (size_t i = 0; i < kw_tensors_n(a); i++) {
        const kw_tensor *t = kw_tensors_at(a, i), *u = kw_tensors_find(b, t->name);
        bool is_part = false;
        for (size_t k = 0; k < kw_source_n(was, p) && !is_part; k++)
            is_part = !strcmp(kw_source_raw(was, p, k)->name, t->name);
        if (!is_part)
            assert_same_bytes(t, u);
        else if (!u || u->rank != t->rank || memcmp(u->shape, t->shape, sizeof t->shape[0] * (size_t)t->rank))
            fail_msg("%s is missing or has another shape", t->name);
        kept += !is_part;
    }
    print_message("%s: %zu tensors kept, %zu new\n", kw_part_name(p), kept, kw_tensors_n(a) - kept);
}

static void assert_values(kw_source *s, kw_part p, const kw_values *v, size_t n, kw_dtype type)
{
    for (size_t i = 0; i < n; i++) {
        const kw_tensor *t = kw_source_find(s, p, v[i].t.name);
        int64_t count = kw_tensor_count(&v[i].t);
        if (!t || t->dtype != type || kw_tensor_count(t) != count)
            fail_msg("%s: missing, or of type %s", v[i].t.name, t ? kw_dtype_name(t->dtype) : "-");
        for (int64_t k = 0; k < count; k++) {
            float got, want = ((const float *)v[i].t.data)[k];
            uint8_t rounded[8];
            kw_convert(type, rounded, KW_F32, &want, 1);
            kw_convert(KW_F32, &want, type, rounded, 1);
            kw_convert(KW_F32, &got, type, (const char *)t->data + (size_t)k * kw_dtype_size(type), 1);
            if (got != want)
                fail_msg("%s[%lld] is %g, not %g", v[i].t.name, (long long)k, (double)got, (double)want);
        }
    }
}

/* ---- files of each family ---------------------------------------------------------------------------------------- */

static void check(const char *golden, kw_part p, kw_dtype type)
{
    kw_source *s = open_source(golden);
    kw_values *v;
    size_t n = all_values(s, p, &v);
    char *path = in_dir("out.safetensors");
    assert_true(n > 0);
    must(kw_source_save(s, p, v, n, type, NULL, 0, path, &err));
    kw_source *t = open_source(path);
    assert_rest(s, t, p);
    assert_values(t, p, v, n, type);
}

static void sd1_files(void **state)
{
    (void)state;
    check(GOLDEN "v1.safetensors", KW_PART_UNET, KW_F16);
    check(GOLDEN "v1.safetensors", KW_PART_VAE, KW_F32);           /* 1x1 convolutions keep their four dimensions */
    check(GOLDEN "v1.safetensors", KW_PART_TEXT, KW_BF16);         /* position_ids stay */
}

static void openclip_files(void **state)
{
    (void)state;
    /* q, k, v in one tensor; the last layer is ignored */
    check(GOLDEN "v2.safetensors", KW_PART_TEXT, KW_F16);
    check(GOLDEN "xl.safetensors", KW_PART_TEXT2, KW_F32);         /* a projection that is transposed */
    check(GOLDEN "xl.safetensors", KW_PART_UNET, KW_F16);
}

static void folders(void **state)
{
    (void)state;
    kw_source *s = open_source(GOLDEN "old_vae");
    kw_values *v;
    size_t n = all_values(s, KW_PART_VAE, &v);
    must(kw_source_save(s, KW_PART_VAE, v, n, KW_F32, NULL, 0, in_dir("diffusion_pytorch_model.safetensors"), &err));
    char *config, *path = in_dir("config.json");
    size_t size;
    must(kw_file_read(arena, GOLDEN "old_vae/config.json", 1 << 20, &config, &size, &err));
    must(kw_file_write_atomic(path, config, size, &err));
    kw_source *t = open_source(dir);
    assert_rest(s, t, KW_PART_VAE);
    assert_values(t, KW_PART_VAE, v, n, KW_F32);
}

/* Nothing new: the very file of the reference library. */
static void nothing_new_is_the_same_file(void **state)
{
    (void)state;
    static const char *const files[] = { GOLDEN "v1.safetensors", GOLDEN "v2.safetensors", GOLDEN "xl.safetensors" };
    for (size_t i = 0; i < KW_LEN(files); i++) {
        char a[65], b[65], *path = in_dir("same.safetensors");
        must(kw_source_save(open_source(files[i]), KW_PART_UNET, NULL, 0, KW_F16, NULL, 0, path, &err));
        must(kw_sha256_file(files[i], a, &err));
        must(kw_sha256_file(path, b, &err));
        assert_string_equal(a, b);
    }
}

/* Of q, k, v in one tensor only k is new: the others keep their values. */
static void a_piece_of_a_tensor(void **state)
{
    (void)state;
    static const char *const names[] = { "q_proj.weight", "k_proj.weight", "v_proj.weight" };
    kw_source *s = open_source(GOLDEN "v2.safetensors");
    char *path = in_dir("piece.safetensors");
    kw_values v = { 0 };
    for (size_t i = 0; i < kw_source_n(s, KW_PART_TEXT); i++)
        if (!strcmp(kw_source_at(s, KW_PART_TEXT, i)->name, "text_model.encoder.layers.3.self_attn.k_proj.weight"))
            v = values_of(s, KW_PART_TEXT, i);
    must(kw_source_save(s, KW_PART_TEXT, &v, 1, KW_F32, NULL, 0, path, &err));
    kw_source *t = open_source(path);
    assert_values(t, KW_PART_TEXT, &v, 1, KW_F32);
    for (size_t i = 0; i < KW_LEN(names); i += 2) {
        char *name = kw_sprintf(arena, "text_model.encoder.layers.3.self_attn.%s", names[i]);
        const kw_tensor *a = kw_source_find(s, KW_PART_TEXT, name), *b = kw_source_find(t, KW_PART_TEXT, name);
        assert_int_equal(b->dtype, KW_F32);
        for (int64_t k = 0; k < kw_tensor_count(a); k++) {
            float x;
            kw_convert(KW_F32, &x, a->dtype, (const char *)a->data + (size_t)k * kw_dtype_size(a->dtype), 1);
            assert_true(x == ((const float *)b->data)[k]);
        }
    }
}

/* ---- metadata, errors -------------------------------------------------------------------------------------------- */

static void metadata_stays(void **state)
{
    (void)state;
    const kw_meta first[] = { { "format", "pt" }, { "modelspec.hash_sha256", "0x1" }, { "title", "a" } };
    const kw_meta then[] = { { "modelspec.hash_sha256", NULL }, { "title", "b" }, { "new", "c" },
                             { "not there", NULL } };
    char *a = in_dir("a.safetensors"), *b = in_dir("b.safetensors");
    must(kw_source_save(open_source(GOLDEN "v1.safetensors"), KW_PART_VAE, NULL, 0, KW_F16, first, KW_LEN(first), a,
                        &err));
    must(kw_source_save(open_source(a), KW_PART_VAE, NULL, 0, KW_F16, then, KW_LEN(then), b, &err));
    const kw_tensors *t = kw_source_file(open_source(b), KW_PART_VAE);
    assert_int_equal(kw_tensors_n_meta(t), 3);
    assert_string_equal(kw_tensors_meta(t, "format"), "pt");
    assert_string_equal(kw_tensors_meta(t, "title"), "b");
    assert_string_equal(kw_tensors_meta(t, "new"), "c");
}

static void what_is_not_there_is_refused(void **state)
{
    (void)state;
    kw_source *s = open_source(GOLDEN "v1.safetensors");
    char *path = in_dir("no.safetensors");
    kw_values v = values_of(s, KW_PART_VAE, 0), w = v;
    v.t.name = "nowhere.weight";
    assert_int_equal(kw_source_save(s, KW_PART_VAE, &v, 1, KW_F16, NULL, 0, path, &err), KW_EDATA);
    assert_non_null(strstr(err.what, "nowhere.weight"));
    w.t.shape[0]++;
    assert_int_equal(kw_source_save(s, KW_PART_VAE, &w, 1, KW_F16, NULL, 0, path, &err), KW_EDATA);
    assert_int_equal(kw_source_save(s, KW_PART_TEXT2, NULL, 0, KW_F16, NULL, 0, path, &err), KW_EDATA);
    assert_null(kw_source_file(s, KW_PART_TEXT2));
    assert_false(kw_is_file(path));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(sd1_files), T(openclip_files), T(folders), T(nothing_new_is_the_same_file), T(a_piece_of_a_tensor),
        T(metadata_stays), T(what_is_not_there_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
