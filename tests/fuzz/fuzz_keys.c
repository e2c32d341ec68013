/*
 * fuzz_keys.c - any bytes as a parameter's name, through every table of spellings and for any shape of model: what has
 * a name in the other spelling fits into its room, is a text, and leads back to where it came from.
 */
#include "io/io.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const char *name)
{
    KW_ASSERT(*name && strlen(name) < KW_KEY_ROOM);
}

/* OpenCLIP's q, k, v share a name: back comes the first. {k} of an upsampler may be 1 or 2 in the file. */
static void there_and_back(kw_keys k, const kw_key_shape *shape, const char *name)
{
    char other[KW_KEY_ROOM], back[KW_KEY_ROOM], again[KW_KEY_ROOM];
    if (kw_key_from_ldm(k, shape, name, other)) {
        check(other);
        if (kw_key_to_ldm(k, shape, other, back)) {
            check(back);
            KW_ASSERT(kw_key_from_ldm(k, shape, back, again) && !strcmp(again, other));
        }
    }
    if (kw_key_to_ldm(k, shape, name, other)) {
        check(other);
        if (kw_key_from_ldm(k, shape, other, back)) {
            check(back);
            KW_ASSERT(kw_key_to_ldm(k, shape, back, again) && !strcmp(again, other));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char name[KW_MAX_TENSOR_NAME + 1];
    if (n < 4 || n - 4 > KW_MAX_TENSOR_NAME || memchr(data + 4, 0, n - 4))
        return 0;
    const kw_key_shape shape = { .levels = data[0] % 17, .layers = data[1] % 9, .up_attention = data[2] };
    memcpy(name, data + 4, n - 4);
    name[n - 4] = 0;
    there_and_back((kw_keys)(data[3] % KW_N_KEYS), &shape, name);
    return 0;
}
