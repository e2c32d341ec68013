/*
 * fuzz_lora.c - any bytes as a LoRA file: keys are read or listed as unknown, none is lost, and what is accepted can be
 * applied to a weight of its size and be written in the other spellings without touching memory that is not its own.
 */
#include "adapter/adapter.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST = 1 << 16 };

static void apply(const kw_delta *d)
{
    int64_t rows, columns;
    static float w[MOST], b[256];
    kw_err e = { 0 };
    kw_delta_size(d, &rows, &columns);
    rows = rows ? rows : 8;
    columns = columns ? columns : 8;
    if (rows > MOST || columns > MOST || rows * columns > MOST)
        return;
    for (int64_t i = 0; i < rows * columns; i++)
        w[i] = (float)(i % 7) - 3;
    if (kw_delta_apply(d, 0.5, w, rows, columns, &e))
        KW_ASSERT(*e.what);
    if (rows <= 256 && kw_delta_apply_bias(d, 0.5, b, rows, &e))
        KW_ASSERT(*e.what);
}

static void count_keys(const kw_lora_file *f)
{
    size_t n = f->n_unknown + f->n_bundled;
    for (size_t i = 0; i < f->n; i++)
        for (int k = 0; k < KW_N_ROLES; k++)
            n += f->item[i].t[k] != NULL;
    KW_ASSERT(n == kw_tensors_n(f->file));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    kw_arena *a = kw_arena_new();
    kw_tensors *t;
    kw_lora_file *f;
    kw_err e = { 0 };
    if (!kw_tensors_parse(a, "fuzz", data, n, &t, NULL)) {
        if (!kw_lora_file_of(a, t, NULL, &f, &e)) {
            count_keys(f);
            for (size_t i = 0; i < f->n; i++) {
                const kw_delta *d = &f->item[i];
                KW_ASSERT(kw_lora_file_find(f, d->part, d->path));
                apply(d);
            }
        } else {
            KW_ASSERT(e.status == KW_EDATA && *e.what);
        }
    }
    kw_arena_free(a);
    return 0;
}
