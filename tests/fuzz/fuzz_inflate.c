/* fuzz_inflate.c - any bytes as a DEFLATE stream: never outside of its room, and the same again. */
#include "io/io.h"
#include "io/zip.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    size_t room = (size_t)data[0] | (size_t)data[1] << 8;          /* said by whoever packed it */
    char *out = malloc(room + 1), *again = malloc(room + 1);
    bool good = kw__inflate(data + 2, n - 2, out, room);
    KW_ASSERT(kw__inflate(data + 2, n - 2, again, room) == good && (!good || !memcmp(out, again, room)));
    free(out);
    free(again);
    return 0;
}
