/*
 * fuzz_safetensors.c - any bytes as a tensor file. What is accepted must lie within the file, be found by name, and
 * come back the same after writing is prepared (the hash of what would be written is that of what was read).
 */
#include "io/io.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Every byte of every tensor is read: whatever lies outside is seen by the sanitizer. */
static uint32_t touch(const kw_tensors *t)
{
    uint32_t crc = 0;
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const kw_tensor *one = kw_tensors_at(t, i);
        KW_ASSERT(one->bytes == (uint64_t)kw_tensor_count(one) * kw_dtype_size(one->dtype));
        KW_ASSERT(kw_tensors_find(t, one->name) == one);
        crc = kw_crc32c(crc, one->data, (size_t)one->bytes);
    }
    return crc;
}

static void compare_hashes(kw_arena *a, const kw_tensors *t)
{
    size_t n = kw_tensors_n(t), n_meta = kw_tensors_n_meta(t);
    kw_tensor *list = kw_alloc_array(a, n + 1, sizeof *list);
    kw_meta *meta = kw_alloc_array(a, n_meta + 1, sizeof *meta);
    char model[65], legacy[9];
    for (size_t i = 0; i < n; i++)
        list[i] = *kw_tensors_at(t, i);
    for (size_t i = 0; i < n_meta; i++)
        kw_tensors_meta_at(t, i, &meta[i].key, &meta[i].value);
    kw_status s = kw_tensors_hash_list(list, n, meta, n_meta, model, legacy, NULL);
    KW_ASSERT(!s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    kw_arena *a = kw_arena_new();
    kw_tensors *t;
    kw_err e = { 0 };
    if (!kw_tensors_parse(a, "fuzz", data, n, &t, &e)) {
        touch(t);
        compare_hashes(a, t);
    } else {
        KW_ASSERT(e.status == KW_EDATA && *e.what);
    }
    kw_arena_free(a);
    return 0;
}
