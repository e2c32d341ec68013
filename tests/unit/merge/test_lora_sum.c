/*
 * test_lora_sum.c - LoRAs into one LoRA: concatenated and by singular values they change each weight as all together
 * do; what is no sum is refused by name.
 */
#include "merge/merge.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN KW_TESTS "/golden/lora/"

static kw_lora_file *read(kw_arena *a, const char *path)
{
    kw_lora_file *f;
    kw_err e;
    if (kw_lora_file_open(a, path, NULL, &f, &e))
        fail_msg("%s", e.what);
    f->n_unknown = 0;                     /* answers lie in the same file */
    return f;
}

/* What was made, read again as a file. */
static kw_lora_file *again(kw_arena *a, const kw_made_lora *l)
{
    char dir[] = "/tmp/kiwame-lora-XXXXXX", path[64];
    kw_err e;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/x.safetensors", dir);
    if (kw_tensors_save(path, l->t, l->n, NULL, 0, &e))
        fail_msg("%s", e.what);
    kw_lora_file *f = read(a, path);
    assert_int_equal(kw_remove_all(dir, NULL), KW_OK);    /* the mapping stays */
    return f;
}

/* The largest difference of Σ w ΔW of the files and ΔW of the new one, as a share of the largest number. */
static double error(const kw_merge_lora *l, size_t n, const kw_lora_file *made)
{
    double worst = 0;
    for (size_t i = 0; i < made->n; i++) {
        const kw_delta *d = &made->item[i];
        int64_t rows, columns;
        double largest = 1e-30, most = 0;
        kw_delta_size(d, &rows, &columns);
        const size_t count = (size_t)(rows * columns);
        float *x = calloc(count, sizeof *x), *y = calloc(count, sizeof *y);
        assert_int_equal(kw_delta_apply(d, 1, x, rows, columns, NULL), KW_OK);
        for (size_t k = 0; k < n; k++) {
            const kw_delta *o = kw_lora_file_find(l[k].file, d->part, d->path);
            const double w = d->part == KW_PART_UNET ? l[k].unet : l[k].text;
            if (o)
                assert_int_equal(kw_delta_apply(o, w, y, rows, columns, NULL), KW_OK);
        }
        for (size_t k = 0; k < count; k++) {
            largest = fmax(largest, fabs((double)y[k]));
            most = fmax(most, fabs((double)x[k] - (double)y[k]));
        }
        worst = fmax(worst, most / largest);
        free(x);
        free(y);
    }
    return worst;
}

static void sums(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    const kw_merge_lora l[] = { { read(a, GOLDEN "files/diffusers/kohya/file.safetensors"), 0.7, 0.5, NULL },
                                { read(a, GOLDEN "files/diffusers/kohya/file.safetensors"), -0.3, 1.5, NULL } };
    kw_made_lora made;
    kw_err e;
    if (kw_lora_sum(a, l, 2, NULL, KW_F32, NULL, NULL, &made, &e))
        fail_msg("%s", e.what);
    kw_lora_file *f = again(a, &made);
    size_t most = KW_MAX(l[0].file->n, l[1].file->n);
    assert_true(f->n >= most && f->n == made.n_layers);
    const kw_delta *d = &f->item[0];
    const kw_delta *x = kw_lora_file_find(l[0].file, d->part, d->path),
                   *y = kw_lora_file_find(l[1].file, d->part, d->path);
    assert_int_equal(d->rank, (x ? x->rank : 0) + (y ? y->rank : 0));
    double exact = error(l, 2, f);
    const kw_rank_want want = { .rank = 4096 };
    if (kw_lora_sum(a, l, 2, &want, KW_F32, NULL, NULL, &made, &e))
        fail_msg("%s", e.what);
    double svd = error(l, 2, again(a, &made));
    print_message("concatenated %.2g, by singular values %.2g of the largest number\n", exact, svd);
    assert_true(exact < 1e-6 && svd < 2e-6);
    assert_true(fabs(made.energy - 1) < 1e-12);
    kw_arena_free(a);
}

/* LoHa, LoKr: only by singular values. */
static void kin(void **state)
{
    (void)state;
    static const char *const files[] = { "lycoris/loha.safetensors", "lycoris/loha-tucker.safetensors",
                                         "lycoris/lokr.safetensors", "lycoris/locon-tucker.safetensors" };
    kw_arena *a = kw_arena_new();
    for (size_t i = 0; i < KW_LEN(files); i++) {
        char path[400];
        snprintf(path, sizeof path, "%s%s", GOLDEN, files[i]);
        const kw_merge_lora l = { read(a, path), 0.6, 0.6, NULL };
        const kw_rank_want want = { .rank = 4096 };
        kw_made_lora made;
        kw_err e;
        assert_int_equal(kw_lora_sum(a, &l, 1, NULL, KW_F32, NULL, NULL, &made, &e), KW_EDATA);
        assert_non_null(strstr(e.advice, "--rank"));
        if (kw_lora_sum(a, &l, 1, &want, KW_F32, NULL, NULL, &made, &e))
            fail_msg("%s: %s", files[i], e.what);
        double worst = error(&l, 1, again(a, &made));
        print_message("%s: %.2g\n", files[i], worst);
        assert_true(worst < 2e-6);
    }
    kw_arena_free(a);
}

static void refused(void **state)
{
    (void)state;
    static const char *const files[] = { "lycoris/ia3.safetensors", "lycoris/dora.safetensors",
                                         "lycoris/boft.safetensors",
                                         "lycoris/full-norm.safetensors", "lycoris/glora.safetensors" };
    kw_arena *a = kw_arena_new();
    for (size_t i = 0; i < KW_LEN(files); i++) {
        char path[400];
        snprintf(path, sizeof path, "%s%s", GOLDEN, files[i]);
        const kw_merge_lora l = { read(a, path), 1, 1, NULL };
        const kw_rank_want want = { .rank = 8 };
        kw_made_lora made;
        kw_err e;
        assert_int_equal(kw_lora_sum(a, &l, 1, &want, KW_F32, NULL, NULL, &made, &e), KW_EDATA);
        assert_non_null(strstr(e.what, "cannot be added"));
    }
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sums), cmocka_unit_test(kin), cmocka_unit_test(refused) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
