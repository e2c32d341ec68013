/*
 * fuzz_picture.c - any bytes into the picture decoder and the text reader; seeds: tests/golden/picture.
 *
 *     cmake -DKW_FUZZ=ON -DCMAKE_C_COMPILER=clang ... ; fuzz_picture -max_len=65536 -rss_limit_mb=4096 corpus
 */
#include "picture/picture.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    kw_picture p;
    kw_err e = { 0 };
    kw_status s = kw_picture_decode(data, n, "fuzz.png", kw_picture_white, &p, &e);
    if (s ? p.rgb || !e.what[0] : p.w < 1 || p.h < 1 || !p.rgb)
        abort();
    if (!s) {
        kw_picture q;
        if (!kw_picture_fit(&p, kw_fit_cover(p.w, p.h, 16, 24), &q, &e))
            kw_picture_free(&q);
    }
    kw_picture_free(&p);
    kw_str text = { 0 };
    bool found;
    if (kw_picture_text(data, n, "parameters", &text, &found, &e))
        abort();
    kw_str_free(&text);
    return 0;
}
