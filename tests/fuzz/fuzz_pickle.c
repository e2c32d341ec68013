/*
 * fuzz_pickle.c - any bytes as a PyTorch checkpoint: a zip, the legacy form, tar; and as a pickle behind the legacy
 * form's head, which is where the interpreter is reached most often. What is accepted lies within the input or in a
 * copy, every byte of it is read, and it is found by name.
 */
#include "io/io.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char head[] = "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\2M\xe9\3.\x80\2}.";

static void read_all(const void *data, size_t n)
{
    kw_arena *a = kw_arena_new();
    kw_tensors *t;
    kw_err e = { 0 };
    if (kw_tensors_parse(a, "fuzz", data, n, &t, &e)) {
        KW_ASSERT((e.status == KW_EDATA || e.status == KW_ENOMEM) && *e.what);
    } else {
        uint64_t bytes = 0;
        for (size_t i = 0; i < kw_tensors_n(t); i++) {
            const kw_tensor *one = kw_tensors_at(t, i);
            KW_ASSERT(one->bytes == (uint64_t)kw_tensor_count(one) * kw_dtype_size(one->dtype));
            KW_ASSERT((uintptr_t)one->data % kw_dtype_size(one->dtype) == 0);
            KW_ASSERT(kw_tensors_find(t, one->name) == one);
            kw_crc32c(0, one->data, (size_t)one->bytes);
            bytes += one->bytes;
        }
        KW_ASSERT(bytes / 17 <= n);
    }
    kw_arena_free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *with = malloc(sizeof head - 1 + n);
    read_all(data, n);
    memcpy(with, head, sizeof head - 1);
    if (n)
        memcpy(with + sizeof head - 1, data, n);
    read_all(with, sizeof head - 1 + n);
    free(with);
    return 0;
}
