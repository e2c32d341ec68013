/* test_paint.c - sizes, masks and fills of painting over, against Pillow by A1111's rules (tools/golden/paint.py). */
#include "io/io.h"
#include "picture/picture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static kw_arena *a;
static kw_tensors *answers;

static int start(void **state)
{
    (void)state;
    a = kw_arena_new();
    return !a || kw_tensors_open(a, KW_TESTS "/golden/picture/paint.safetensors", &answers, NULL);
}

static int end(void **state)
{
    (void)state;
    kw_arena_free(a);
    return 0;
}

static const kw_tensor *find(const char *name)
{
    const kw_tensor *t = kw_tensors_find(answers, name);
    if (!t)
        fail_msg("%s is missing", name);
    return t;
}

/* (h, w, 3), or (h, w) as three equal channels */
static kw_picture picture_of(const char *name)
{
    const kw_tensor *t = find(name);
    kw_picture p;
    assert_int_equal(kw_picture_new((int)t->shape[1], (int)t->shape[0], &p, NULL), KW_OK);
    for (size_t i = 0; i < (size_t)p.w * (size_t)p.h * 3; i++)
        p.rgb[i] = ((const uint8_t *)t->data)[t->rank == 3 ? i : i / 3];
    return p;
}

/* The largest difference; frees p. */
static int worst(kw_picture *p, const char *name)
{
    kw_picture q = picture_of(name);
    int most = 0;
    assert_int_equal(p->w, q.w);
    assert_int_equal(p->h, q.h);
    for (size_t i = 0; i < (size_t)p->w * (size_t)p->h * 3; i++)
        most = KW_MAX(most, abs(p->rgb[i] - q.rgb[i]));
    kw_picture_free(&q);
    kw_picture_free(p);
    return most;
}

static void sizes(void **state)
{
    (void)state;
    static const int size[][2] = { { 24, 40 }, { 40, 16 }, { 64, 64 } };
    kw_picture p = picture_of("picture"), q;
    for (int mode = 0; mode < 3; mode++)
        for (size_t i = 0; i < KW_LEN(size); i++) {
            char name[32];
            snprintf(name, sizeof name, "sized.%d.%dx%d", mode, size[i][0], size[i][1]);
            assert_int_equal(kw_picture_sized(&p, (kw_sized)mode, size[i][0], size[i][1], &q, NULL), KW_OK);
            int most = worst(&q, name);
            printf("%-16s within %d/255\n", name, most);
            assert_true(most <= 1);             /* 1 where Pillow takes the rows first, else equal */
        }
    kw_picture_free(&p);
}

static void filters(void **state)
{
    (void)state;
    static const char *const names[] = { "lanczos", "bicubic", "bilinear", "nearest" };
    static const int size[][2] = { { 17, 12 }, { 70, 64 } };
    kw_picture p = picture_of("picture"), q;
    for (int f = 0; f < 4; f++)
        for (size_t i = 0; i < KW_LEN(size); i++) {
            char name[32];
            snprintf(name, sizeof name, "%s.%dx%d", names[f], size[i][0], size[i][1]);
            assert_int_equal(kw_picture_scale(&p, (kw_filter)f, size[i][0], size[i][1], &q, NULL), KW_OK);
            int most = worst(&q, name);
            printf("%-16s within %d/255\n", name, most);
            assert_int_equal(most, 0);
        }
    kw_picture_free(&p);
}

static void masks(void **state)
{
    (void)state;
    kw_picture p = picture_of("picture"), mask = picture_of("mask"), soft = picture_of("mask");
    kw_box box;
    kw_mask_grey(&p);
    assert_int_equal(worst(&p, "grey"), 0);
    for (int sigma = 1; sigma <= 4; sigma += 3) {
        kw_picture q = picture_of("mask");
        assert_int_equal(kw_mask_blur(&q, sigma, NULL), KW_OK);
        assert_int_equal(worst(&q, sigma == 1 ? "blurred.1" : "blurred.4"), 0);
    }
    assert_true(kw_mask_box(&mask, 0, &box));
    assert_memory_equal(&box, (&(kw_box){ 10, 8, 21, 12 }), sizeof box);
    assert_true(kw_mask_box(&mask, 9, &box));
    assert_memory_equal(&box, (&(kw_box){ 1, 0, 39, 29 }), sizeof box);
    kw_mask_invert(&soft);
    assert_true(kw_mask_box(&soft, 0, &box) && box.w == 46 && box.h == 30);
    memset(mask.rgb, 0, (size_t)mask.w * (size_t)mask.h * 3);
    assert_false(kw_mask_box(&mask, 32, &box));
    kw_picture_free(&mask);
    kw_picture_free(&soft);
}

/* A1111's expand_crop_region, worked out by hand */
static void shapes(void **state)
{
    (void)state;
    kw_box wide = kw_box_shape((kw_box){ 10, 8, 20, 10 }, 64, 64, 46, 30);
    assert_memory_equal(&wide, (&(kw_box){ 10, 3, 20, 20 }), sizeof wide);
    kw_box tall = kw_box_shape((kw_box){ 40, 0, 4, 30 }, 64, 64, 46, 30);
    assert_memory_equal(&tall, (&(kw_box){ 16, 0, 30, 30 }), sizeof tall);
    kw_box most = kw_box_shape((kw_box){ 0, 10, 46, 4 }, 64, 64, 46, 30);
    assert_memory_equal(&most, (&(kw_box){ 0, 0, 46, 30 }), sizeof most);
}

static void fills(void **state)
{
    (void)state;
    kw_picture p = picture_of("picture"), mask = picture_of("blurred.4"), old = picture_of("picture");
    assert_int_equal(kw_picture_fill_in(&p, &mask, NULL), KW_OK);
    kw_picture_over(&p, &old, &mask);           /* what is not masked is as it was */
    assert_memory_equal(p.rgb, old.rgb, 3);
    kw_picture_free(&p);
    p = picture_of("picture");
    assert_int_equal(kw_picture_fill_in(&p, &mask, NULL), KW_OK);
    int most = worst(&p, "filled");             /* Pillow rounds to 8 bits after each blur and each layer */
    printf("filled within %d/255\n", most);
    assert_true(most <= 4);
    kw_picture_free(&mask);
    kw_picture_free(&old);
}

/* a file with alpha over black and over white gives its alpha back, exactly */
static void alpha(void **state)
{
    (void)state;
    static const uint8_t black[3] = { 0, 0, 0 };
    kw_picture on_black, on_white, mask;
    const char *file = KW_TESTS "/golden/picture/rgba.png";
    assert_int_equal(kw_picture_read(file, black, &on_black, NULL), KW_OK);
    assert_int_equal(kw_picture_read(file, kw_picture_white, &on_white, NULL), KW_OK);
    assert_int_equal(kw_picture_new(on_black.w, on_black.h, &mask, NULL), KW_OK);
    assert_true(kw_mask_clear(&on_black, &on_white, &mask));
    for (size_t i = 0; i < (size_t)mask.w * (size_t)mask.h * 3; i++)
        assert_true(on_white.rgb[i] - on_black.rgb[i] == mask.rgb[i] || mask.rgb[i] == mask.rgb[i - i % 3]);
    assert_false(kw_mask_clear(&on_black, &on_black, &mask));
    kw_picture_free(&on_black);
    kw_picture_free(&on_white);
    kw_picture_free(&mask);
}

/* ---- JPEG and WebP ----------------------------------------------------------------------------------------------- */

/* The text comes back, by our reader; Pillow's was tried by hand. Lossless is. */
static void lossy(void **state)
{
    (void)state;
    static const char text[] = "きわまる 😀 \"a, b\"\nSteps: 20, Sampler: Euler a, Seed: 1";
    static const struct { kw_picture_format format; int quality, worst; } cases[] = {
        { KW_PICTURE_JPEG, 90, 40 }, { KW_PICTURE_WEBP, 90, 48 }, { KW_PICTURE_WEBP, 101, 0 },
    };
    for (size_t i = 0; i < KW_LEN(cases); i++)
        for (int with = 0; with < 2; with++) {
            kw_picture p = picture_of("picture"), q;
            kw_str file = { 0 }, said = { 0 };
            bool found;
            assert_int_equal(kw_lossy_encode(&p, cases[i].format, cases[i].quality, with ? text : NULL, &file, NULL),
                             KW_OK);
            assert_int_equal(kw_picture_sniff(file.s, file.n), cases[i].format);
            assert_int_equal(kw_picture_text(file.s, file.n, "parameters", &said, &found, NULL), KW_OK);
            assert_true(found == (with == 1));
            if (with)
                assert_string_equal(said.s, text);
            assert_int_equal(kw_picture_decode(file.s, file.n, "x", kw_picture_white, &q, NULL), KW_OK);
            int most = worst(&q, "picture");
            printf("%s %d: within %d/255\n", kw_picture_format_name(cases[i].format), cases[i].quality, most);
            assert_true(most <= cases[i].worst);
            kw_picture_free(&p);
            kw_str_free(&file);
            kw_str_free(&said);
        }
}

static void lossy_refused(void **state)
{
    (void)state;
    kw_picture p = picture_of("picture"), wide;
    kw_str file = { 0 };
    kw_err e;
    char *text = kw_alloc(a, 40000);
    memset(text, 'x', 39999);
    assert_int_equal(kw_lossy_encode(&p, KW_PICTURE_JPEG, 90, text, &file, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "text"));
    assert_int_equal(kw_lossy_encode(&p, KW_PICTURE_WEBP, 90, text, &file, &e), KW_OK);
    assert_int_equal(kw_picture_new(16384, 1, &wide, NULL), KW_OK);
    assert_int_equal(kw_lossy_encode(&wide, KW_PICTURE_WEBP, 90, NULL, &file, &e), KW_EDATA);
    kw_picture_free(&p);
    kw_picture_free(&wide);
    kw_str_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes), cmocka_unit_test(filters), cmocka_unit_test(masks), cmocka_unit_test(shapes),
        cmocka_unit_test(fills), cmocka_unit_test(alpha), cmocka_unit_test(lossy), cmocka_unit_test(lossy_refused),
    };
    return cmocka_run_group_tests(tests, start, end);
}
