/* test_safetensors.c - the reader against malformed files, the reference library's file, and the writer. */
#include "fixture.h"

/* A file from its header's text and n bytes of data; the size of the header is its own unless given. */
static char *file(const char *header, size_t header_n, size_t data, size_t *n)
{
    *n = 8 + header_n + data;
    char *p = kw_alloc(arena, *n + 1);
    for (int i = 0; i < 8; i++)
        p[i] = (char)((uint64_t)header_n >> 8 * i);
    memcpy(p + 8, header, header_n);
    return p;
}

#define T(shape, from, to) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"
#define ONE T("[1]", "0", "4")

/*  header  |  bytes of data  |  a piece of the message; NULL: valid  */
static const struct { const char *header; size_t data; const char *says; } cases[] = {
    { "{\"a\":" ONE "}", 4, NULL },
    { "{ \"a\" : { \"shape\" : [ 1 , 1 ] ,\n\"data_offsets\":[0,4],\t\"dtype\":\"F32\"} }   ", 4, NULL },
    { "{}", 0, NULL },
    { "{\"__metadata__\":{}}", 0, NULL },
    { "{\"__metadata__\":{\"a\":\"b\"},\"a\":" T("[]", "0", "4") "}", 4, NULL },
    { "{\"a\":" T("[0]", "0", "0") ",\"b\":" T("[3,0]", "0", "0") "}", 0, NULL },
    { "{\"b\":" T("[1]", "4", "8") ",\"a\":" ONE "}", 8, NULL },                       /* header order is free */
    { "{\"\\u65e5\\ud83d\\ude00\":" ONE "}", 4, NULL },
    { "{\"a\":" T("[1,1,1,1,1,1,1,1]", "0", "4") "}", 4, NULL },
    { "{\"a\":" T("[0,9223372036854775807,9]", "0", "0") "}", 0, "impossibly large" },
    { "{\"a\":" T("[9223372036854775807,9,0]", "0", "0") "}", 0, "impossibly large" },
    { "", 0, "starts with '{'" },
    { " {}", 0, "starts with '{'" },
    { "\xef\xbb\xbf{}", 0, "starts with '{'" },
    { "[]", 0, "starts with '{'" },
    { "{", 0, "expected" },
    { "{\"a\"", 0, "expected" },
    { "{\"a\":" ONE, 4, "expected" },
    { "{\"a\":" ONE ",}", 4, "expected" },
    { "{\"a\":" ONE "}x", 4, "follows" },
    { "{\"a\":" ONE "}{}", 4, "follows" },
    { "{\"a\":" ONE "}\n", 4, "follows" },                                            /* spaces alone may follow */
    { "{'a':" ONE "}", 4, "expected" },
    { "{\"a\":[]}", 0, "expected" },
    { "{\"a\":{}}", 0, "expected" },
    { "{\"a\":null}", 0, "expected" },
    { "{\"a\":" ONE ",\"a\":" T("[1]", "4", "8") "}", 8, "twice" },
    { "{\"a\":" ONE ",\"\\u0061\":" T("[1]", "4", "8") "}", 8, "twice" },
    { "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice" },
    { "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, "twice" },
    { "{\"__metadata__\":{\"k\":1}}", 0, "must be texts" },
    { "{\"__metadata__\":{\"k\":{\"k\":\"\"}}}", 0, "must be texts" },
    { "{\"__metadata__\":{\"k\":\"\\u0000\"}}", 0, "NUL" },
    { "{\"\":" ONE "}", 4, "without a name" },
    { "{\"a\\u0000b\":" ONE "}", 4, "NUL" },
    { "{\"a\\nb\":" ONE "}", 4, "control" },
    { "{\"a\nb\":" ONE "}", 4, "control" },
    { "{\"a\\u0085\":" ONE "}", 4, "control" },
    { "{\"\\ud800\":" ONE "}", 4, "surrogate" },
    { "{\"\\udc00\":" ONE "}", 4, "surrogate" },
    { "{\"\\ud800\\u0041\":" ONE "}", 4, "surrogate" },
    { "{\"\xff\":" ONE "}", 4, "UTF-8" },
    { "{\"\xc0\x80\":" ONE "}", 4, "UTF-8" },
    { "{\"\xed\xa0\x80\":" ONE "}", 4, "UTF-8" },
    { "{\"\xe6\x97\":" ONE "}", 4, "UTF-8" },
    { "{\"\\x\":" ONE "}", 4, "escape" },
    { "{\"\\u12g4\":" ONE "}", 4, "escape" },
    { "{\"../../etc/passwd\":" ONE "}", 4, "looks like a path" },
    { "{\"/a\":" ONE "}", 4, "looks like a path" },
    { "{\"a\":" T("[-1]", "0", "4") "}", 4, "whole" },
    { "{\"a\":" T("[1.5]", "0", "4") "}", 4, "whole" },
    { "{\"a\":" T("[1e0]", "0", "4") "}", 4, "whole" },
    { "{\"a\":" T("[1e999]", "0", "4") "}", 4, "whole" },
    { "{\"a\":" T("[01]", "0", "4") "}", 4, "leading" },
    { "{\"a\":" T("[\"1\"]", "0", "4") "}", 4, "whole" },
    { "{\"a\":" T("[18446744073709551616]", "0", "4") "}", 4, "too large" },
    { "{\"a\":" T("[9223372036854775808]", "0", "4") "}", 4, "too large" },
    { "{\"a\":" T("[4294967296,4294967296]", "0", "0") "}", 0, "impossibly large" },
    { "{\"a\":" T("[4611686018427387905]", "0", "4") "}", 4, "impossibly large" },
    { "{\"a\":" T("[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 4, "8 dimensions" },
    { "{\"a\":" T("[2]", "0", "4") "}", 4, "size of its shape" },
    { "{\"a\":" T("[1]", "0", "8") "}", 8, "size of its shape" },
    { "{\"a\":" T("[1]", "4", "0") "}", 4, "before it begins" },
    { "{\"a\":" T("[1]", "0", "4") "}", 3, "beyond the end" },
    { "{\"a\":" T("[1]", "9223372036854775800", "9223372036854775804") "}", 4, "beyond the end" },
    { "{\"a\":" T("[1]", "4", "8") "}", 8, "gap" },
    { "{\"a\":" ONE ",\"b\":" T("[1]", "8", "12") "}", 12, "gap" },
    { "{\"a\":" ONE ",\"b\":" T("[1]", "0", "4") "}", 4, "overlaps" },
    { "{\"a\":" T("[2]", "0", "8") ",\"b\":" T("[1]", "4", "8") "}", 8, "overlaps" },
    { "{\"a\":" ONE "}", 5, "follow the last tensor" },
    { "{}", 1, "follow the last tensor" },
    { "{\"a\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "\"C64\" is not supported" },
    { "{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, "not supported" },
    { "{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "not supported" },
    { "{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "expected" },
    { "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "missing" },
    { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "missing" },
    { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "twice" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "other than" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "expected" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "expected" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[[1]],\"data_offsets\":[0,4]}}", 4, "whole" },
    { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,],\"data_offsets\":[0,4]}}", 4, "whole" },
};

static void refuses_what_is_malformed(void **state)
{
    (void)state;
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        size_t n;
        kw_tensors *t = NULL;
        char *p = file(cases[i].header, strlen(cases[i].header), cases[i].data, &n);
        kw_status s = kw_tensors_parse(arena, "f", p, n, &t, &err);
        if (!cases[i].says) {
            must(s);
            continue;
        }
        if (s != KW_EDATA)
            fail_msg("accepted: %s", cases[i].header);
        if (!strstr(err.what, cases[i].says))
            fail_msg("%s: says \"%s\", not \"%s\"", cases[i].header, err.what, cases[i].says);
        assert_true(kw_starts_with(err.what, "f: "));
    }
    print_message("%zu headers\n", KW_LEN(cases));
}

static kw_status parse(const void *p, size_t n)
{
    kw_tensors *t;
    return kw_tensors_parse(arena, "f", p, n, &t, &err);
}

static void refuses_what_is_something_else(void **state)
{
    (void)state;
    static const struct { const char *bytes; size_t n; const char *says; } files[] = {
        { "", 0, "empty" }, { "\0", 1, "only 1 bytes" }, { "\2\0\0\0\0\0\0", 7, "only 7 bytes" },
        { "<!DOCTYPE html><html>", 21, "web page" }, { "\n <html lang=en>", 16, "web page" },
        { "version https://git-lfs.github.com/spec/v1\noid sha256:0", 56, "Git LFS" },
        { "PK\3\4\0\0\0\0\0\0", 10, "zip" }, { "\x80\2}q\0.\0\0\0\0", 10, "pickle" },
        { "GGUF\3\0\0\0\0\0", 10, "GGUF" },
        { "\0\0\0\0\0\0\0\0{}", 10, "starts with" },
        { "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "not a safetensors" },
        { "\0\0\0\0\0\0\0\x80{}", 10, "not a safetensors" }, { "\3\0\0\0\0\0\0\0{}", 10, "claims 3 bytes" },
        { "\x1f\x8b\b\0\0\0\0\0\0", 9, "compressed" },
    };
    for (size_t i = 0; i < KW_LEN(files); i++) {
        assert_int_equal(parse(files[i].bytes, files[i].n), KW_EDATA);
        if (!strstr(err.what, files[i].says))
            fail_msg("%zu: %s", i, err.what);
    }
}

static void limits_hold(void **state)
{
    (void)state;
    kw_str b = { 0 };
    size_t n;
    char name[1100];
    memset(name, 'a', sizeof name);
    for (size_t length = 1024; length <= 1025; length++) {
        kw_str_printf(&b, "{\"%.*s\":" ONE "}", (int)length, name);
        char *p = file(b.s, b.n, 4, &n);
        assert_int_equal(parse(p, n), length == 1024 ? KW_OK : KW_EDATA);
        kw_str_free(&b);
    }
    for (int most = KW_MAX_TENSORS; most <= KW_MAX_TENSORS + 1; most++) {
        for (int i = 0; i < most; i++)
            kw_str_printf(&b, "%s\"%d\":" T("[0]", "0", "0"), i ? "," : "{", i);
        kw_str_add(&b, "}");
        char *p = file(b.s, b.n, 0, &n);
        assert_int_equal(parse(p, n), most == KW_MAX_TENSORS ? KW_OK : KW_EDATA);
        kw_str_free(&b);
    }
    size_t deep = 1000000;
    char *p = kw_alloc(arena, deep + 8);
    memset(p, '[', deep + 8);
    memcpy(p, "\x40\x42\x0f\0\0\0\0\0{\"a\":", 13);
    assert_int_equal(parse(p, deep + 8), KW_EDATA);
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    char *whole;
    size_t n;
    must(kw_file_read(arena, GOLDEN "dtypes.safetensors", 1 << 20, &whole, &n, &err));
    must(parse(whole, n));
    for (size_t k = 0; k < n; k++) {
        char *cut = malloc(k + 1);                                 /* its own block: reading past it is seen */
        memcpy(cut, whole, k);
        kw_arena *a = kw_arena_new();
        kw_tensors *t;
        assert_int_equal(kw_tensors_parse(a, "f", cut, k, &t, &err), KW_EDATA);
        kw_arena_free(a);
        free(cut);
    }
}

/* tools/golden/io.py: tensor number i holds 1 + (k mod 7) in (3, i + 1) of its dtype. */
static void reads_the_reference_library(void **state)
{
    (void)state;
    static const kw_dtype kinds[] = { KW_F32, KW_F64, KW_F16, KW_BF16, KW_I64, KW_I32, KW_U8, KW_BOOL, KW_I16, KW_I8,
                                      KW_U16, KW_U32, KW_U64, KW_F8_E4M3, KW_F8_E5M2 };
    kw_tensors *t;
    must(kw_tensors_open(arena, GOLDEN "dtypes.safetensors", &t, &err));
    assert_int_equal(kw_tensors_n(t), KW_LEN(kinds) + 3);
    assert_string_equal(kw_tensors_meta(t, "format"), "pt\"\\\n\x01\x7f\xc3\xa9");
    assert_null(kw_tensors_meta(t, "other"));
    for (size_t i = 0; i < KW_LEN(kinds); i++) {
        char name[8];
        float v[3 * 16];
        snprintf(name, sizeof name, "t%02zu", i);
        const kw_tensor *one = kw_tensors_find(t, name);
        assert_non_null(one);
        assert_int_equal(one->dtype, kinds[i]);
        assert_int_equal(one->rank, 2);
        assert_int_equal(one->shape[0], 3);
        assert_int_equal(one->shape[1], i + 1);
        assert_int_equal((uintptr_t)one->data % kw_dtype_size(one->dtype), 0);
        if (i < 5) {
            kw_convert(KW_F32, v, one->dtype, one->data, 3 * (i + 1));
            for (size_t k = 0; k < 3 * (i + 1); k++)
                assert_true(v[k] == (float)(1 + k % 7));
        }
    }
    const kw_tensor *scalar = kw_tensors_find(t, "scalar");
    assert_int_equal(scalar->rank, 0);
    assert_true(*(const float *)scalar->data == 2.5f);
    assert_int_equal(kw_tensors_find(t, "日本語.重み")->bytes, 0);
    assert_non_null(kw_tensors_find(t, "quote\"back\\slash"));
    assert_null(kw_tensors_find(t, "quote"));
    assert_true(kw_tensors_unchanged(t));
}

static size_t list(const kw_tensors *t, kw_tensor **tensors, kw_meta *meta)
{
    size_t n = kw_tensors_n(t);
    *tensors = kw_alloc_array(arena, n + 1, sizeof **tensors);
    for (size_t i = 0; i < n; i++)
        (*tensors)[n - 1 - i] = *kw_tensors_at(t, i);              /* any order */
    for (size_t i = 0; i < kw_tensors_n_meta(t); i++)
        kw_tensors_meta_at(t, i, &meta[i].key, &meta[i].value);
    return n;
}

static void assert_same_file(const char *x, const char *y)
{
    char *a, *b;
    size_t n, m;
    must(kw_file_read(arena, x, 1 << 24, &a, &n, &err));
    must(kw_file_read(arena, y, 1 << 24, &b, &m, &err));
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
}

static kw_status one_by_one(void *user, size_t i, const void **data, kw_err *e)
{
    (void)e;
    const kw_tensor *t = &((const kw_tensor *)user)[i];
    static char room[1000];
    if (t->bytes)
        memcpy(room, t->data, t->bytes);
    *data = room;
    return KW_OK;
}

static void writes_as_the_reference_library(void **state)
{
    (void)state;
    static const char *const files[] = { GOLDEN "dtypes.safetensors", GOLDEN "v1.safetensors" };
    for (size_t i = 0; i < KW_LEN(files); i++) {
        kw_tensors *t;
        kw_tensor *all;
        kw_meta meta[4];
        must(kw_tensors_open(arena, files[i], &t, &err));
        size_t n = list(t, &all, meta);
        must(kw_tensors_save(in_dir("x.safetensors"), all, n, meta, kw_tensors_n_meta(t), &err));
        assert_same_file(files[i], in_dir("x.safetensors"));
        if (i)
            continue;
        must(kw_tensors_save_each(in_dir("y.safetensors"), all, n, meta, kw_tensors_n_meta(t), one_by_one, all, &err));
        assert_same_file(files[i], in_dir("y.safetensors"));
    }
}

static void hashes_as_kohya(void **state)
{
    (void)state;
    kw_tensors *t;
    kw_tensor *all;
    kw_meta meta[4];
    char hex[65], model[65], legacy[9], short_hash[9];
    must(kw_tensors_open(arena, GOLDEN "dtypes.safetensors", &t, &err));
    size_t n = list(t, &all, meta);
    must(kw_tensors_hash(t, hex, &err));
    must(kw_tensors_hash_list(all, n, NULL, 0, model, legacy, &err));
    assert_string_equal(hex, model);
    assert_string_equal(legacy, "e3b0c442");                       /* shorter than 1 MiB: the hash of nothing */
    kw_tensor big = { .name = "big", .dtype = KW_F32, .rank = 1, .shape = { 400000 } };
    big.bytes = 1600000;
    float *v = kw_block_new(big.bytes);
    for (int i = 0; i < 400000; i++)
        v[i] = (float)i;
    big.data = v;
    const kw_meta m = { "ss_v2", "False" };
    must(kw_tensors_hash_list(&big, 1, &m, 1, model, legacy, &err));
    must(kw_tensors_save(in_dir("big.safetensors"), &big, 1, &m, 1, &err));
    must(kw_sha256_short(in_dir("big.safetensors"), short_hash, &err));
    assert_string_equal(legacy, short_hash);
    must(kw_tensors_open(arena, in_dir("big.safetensors"), &t, &err));
    must(kw_tensors_hash(t, hex, &err));
    assert_string_equal(hex, model);
    assert_int_equal(truncate(in_dir("big.safetensors"), 100), 0);
    assert_false(kw_tensors_unchanged(t));
    kw_block_free(v);
}

static void refuses_to_write_what_it_would_not_read(void **state)
{
    (void)state;
    float v[4] = { 1 };
    kw_tensor t[2] = { { "a", KW_F32, 1, { 4 }, v, 16, false }, { "a", KW_F32, 1, { 4 }, v, 16, false } };
    assert_int_equal(kw_tensors_save(in_dir("x"), t, 2, NULL, 0, &err), KW_EDATA);
    t[1].name = "b\n";
    assert_int_equal(kw_tensors_save(in_dir("x"), t, 2, NULL, 0, &err), KW_EDATA);
    t[1].name = "b";
    t[1].shape[0] = -4;
    assert_int_equal(kw_tensors_save(in_dir("x"), t, 2, NULL, 0, &err), KW_EUSAGE);
    t[1].shape[0] = 4;
    const kw_meta bad = { "k", "\xff" };
    assert_int_equal(kw_tensors_save(in_dir("x"), t, 2, &bad, 1, &err), KW_EDATA);
    assert_false(kw_is_file(in_dir("x")));
    must(kw_tensors_save(in_dir("x"), t, 2, NULL, 0, &err));
    must(kw_tensors_save(in_dir("none"), t, 0, NULL, 0, &err));
    kw_tensors *none;
    must(kw_tensors_open(arena, in_dir("none"), &none, &err));
    assert_int_equal(kw_tensors_n(none), 0);
}

/* A header of odd length puts every float at an odd address. */
static void aligns_odd_files(void **state)
{
    (void)state;
    const char header[] = "{\"a\":" T("[2]", "0", "8") "}   ";
    for (size_t cut = 0; cut < 4; cut++) {
        size_t n, header_n = sizeof header - 1 - cut;
        char *p = file(header, header_n, 8, &n);
        const float v[2] = { 1.5f, -2 };
        memcpy(p + 8 + header_n, v, 8);
        kw_tensors *t;
        must(kw_tensors_parse(arena, "f", p, n, &t, &err));
        const float *got = kw_tensors_find(t, "a")->data;
        assert_int_equal((uintptr_t)got % 4, 0);
        assert_true(got[0] == 1.5f && got[1] == -2);
    }
}

static void put(const char *name, const char *text)
{
    must(kw_file_write_atomic(in_dir(name), text, strlen(text), &err));
}

static void reads_shards(void **state)
{
    (void)state;
    float v[4] = { 1, 2, 3, 4 };
    kw_tensor a = { "a", KW_F32, 1, { 2 }, v, 8, false };
    kw_tensor b[2] = { { "b", KW_F32, 1, { 2 }, v + 2, 8, false }, { "c", KW_F32, 0, { 0 }, v, 4, false } };
    const kw_meta m = { "format", "pt" };
    kw_tensors *t;
    char hex[65];
    must(kw_tensors_save(in_dir("m-1.safetensors"), &a, 1, &m, 1, &err));
    must(kw_tensors_save(in_dir("m-2.safetensors"), b, 2, &m, 1, &err));
    put("i.json", "{\"metadata\":{},\"weight_map\":{\"a\":\"m-1.safetensors\","
        "\"b\":\"m-2.safetensors\",\"c\":\"m-2.safetensors\"}}");
    must(kw_tensors_open(arena, in_dir("i.json"), &t, &err));
    assert_int_equal(kw_tensors_n(t), 3);
    assert_true(((const float *)kw_tensors_find(t, "b")->data)[1] == 4);
    assert_string_equal(kw_tensors_meta(t, "format"), "pt");
    must(kw_tensors_hash(t, hex, &err));
    static const char *const bad[] = {
        "{}", "[]", "{\"weight_map\":{}}", "{\"weight_map\":{\"a\":1}}", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}",
        "{\"weight_map\":{\"a\":\"../m-1.safetensors\"}}", "{\"weight_map\":{\"a\":\"m-3.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"m-2.safetensors\"}}", "{\"weight_map\":{\"a\":\"..\"}}",
        "{\"weight_map\":{\"a\":\"\"}}",
        "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"a\":\"m-1.safetensors\"}}",
    };
    for (size_t i = 0; i < KW_LEN(bad); i++) {
        put("bad.json", bad[i]);
        if (kw_tensors_open(arena, in_dir("bad.json"), &t, &err) != KW_EDATA)
            fail_msg("accepted: %s", bad[i]);
    }
}

static void memory_may_run_out(void **state)
{
    (void)state;
    for (long n = 1;; n++) {
        kw_arena *a = kw_arena_new();
        kw_tensors *t;
        kw_alloc_fail_after(n);
        kw_status s = kw_tensors_open(a, GOLDEN "dtypes.safetensors", &t, &err);
        kw_alloc_fail_after(0);
        kw_arena_free(a);
        if (!s)
            break;
        assert_int_equal(s, KW_ENOMEM);
        assert_true(n < 1000);
    }
}

/* A header of 640 bytes begins with 80 02, as a pickle does: it is a header all the same. */
static void a_header_may_begin_like_a_pickle(void **state)
{
    (void)state;
    unsigned char file[648] = { 0x80, 0x02 };
    kw_arena *a = kw_arena_new();
    kw_tensors *t;
    kw_err e = { 0 };
    const char *header = "{\"__metadata__\":{\"a\":\"b\"}}";
    memset(file + 8, ' ', 640);
    memcpy(file + 8, header, strlen(header));
    if (kw_tensors_parse(a, "x", file, sizeof file, &t, &e))
        fail_msg("%s", e.what);
    assert_string_equal(kw_tensors_meta(t, "a"), "b");
    kw_arena_free(a);
}

int main(void)
{
#define U(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        U(refuses_what_is_malformed), U(refuses_what_is_something_else), U(limits_hold), U(refuses_every_truncation),
        U(reads_the_reference_library), U(writes_as_the_reference_library), U(hashes_as_kohya),
        U(refuses_to_write_what_it_would_not_read), U(aligns_odd_files), U(reads_shards), U(memory_may_run_out),
        U(a_header_may_begin_like_a_pickle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
