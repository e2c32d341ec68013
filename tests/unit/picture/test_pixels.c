/* test_pixels.c - sizes, resizing against Pillow (same bits) and exact area averages, floats, pasting. */
#include "picture/picture.h"
#include "files.h"

#include <math.h>

static kw_picture source(void)
{
    size_t n;
    kw_picture p;
    char *data = slurp("resize-source.rgb", &n);
    assert_int_equal(n, 47 * 33 * 3);
    assert_int_equal(kw_picture_new(47, 33, &p, NULL), KW_OK);
    memcpy(p.rgb, data, n);
    free(data);
    return p;
}

static void lanczos_has_the_bits_of_pillow(void **state)
{
    (void)state;
    static const int sizes[][2] = { { 94, 66 }, { 61, 70 }, { 47, 50 }, { 40, 50 }, { 47, 20 }, { 200, 33 } };
    kw_picture p = source(), q;
    for (size_t i = 0; i < KW_LEN(sizes); i++) {
        char name[64];
        size_t n;
        snprintf(name, sizeof name, "lanczos-%dx%d.rgb", sizes[i][0], sizes[i][1]);
        char *want = slurp(name, &n);
        assert_int_equal(kw_picture_resize(&p, sizes[i][0], sizes[i][1], &q, NULL), KW_OK);
        assert_memory_equal(q.rgb, want, n);
        kw_picture_free(&q);
        free(want);
    }
    kw_picture_free(&p);
}

static void area_is_the_exact_average(void **state)
{
    (void)state;
    static const int sizes[][2] = { { 20, 16 }, { 23, 11 }, { 46, 32 }, { 1, 1 }, { 7, 30 } };
    kw_picture p = source(), q;
    double most = 0;
    for (size_t i = 0; i < KW_LEN(sizes); i++) {
        char name[64];
        size_t n;
        snprintf(name, sizeof name, "area-%dx%d.f32", sizes[i][0], sizes[i][1]);
        float *want = (float *)(void *)slurp(name, &n);
        assert_int_equal(kw_picture_resize(&p, sizes[i][0], sizes[i][1], &q, NULL), KW_OK);
        for (size_t j = 0; j < n / 4; j++)
            most = fmax(most, fabs(q.rgb[j] - (double)want[j]));
        kw_picture_free(&q);
        free(want);
    }
    print_message("           largest distance to the exact average %.4f/255\n", most);
    assert_true(most < 0.501);                  /* rounding alone gives 0.5 */
    kw_picture_free(&p);
}

/* Cropping computes the same pixels as resizing everything and cutting. */
static void crop_equals_resize_and_cut(void **state)
{
    (void)state;
    kw_picture p = source(), all, part, cut;
    static const int buckets[][2] = { { 16, 16 }, { 64, 64 }, { 40, 20 }, { 33, 33 } };
    for (size_t i = 0; i < KW_LEN(buckets); i++) {
        kw_fit f = kw_fit_cover(p.w, p.h, buckets[i][0], buckets[i][1]);
        assert_true(f.scaled_w >= f.w && f.scaled_h >= f.h && (f.scaled_w == f.w || f.scaled_h == f.h));
        assert_int_equal(kw_picture_resize(&p, f.scaled_w, f.scaled_h, &all, NULL), KW_OK);
        for (f.crop_x = 0; f.crop_x <= f.scaled_w - f.w; f.crop_x++)
            for (f.crop_y = 0; f.crop_y <= f.scaled_h - f.h; f.crop_y++) {
                assert_int_equal(kw_picture_fit(&p, f, &part, NULL), KW_OK);
                assert_int_equal(kw_picture_new(f.w, f.h, &cut, NULL), KW_OK);
                kw_picture_paste(&cut, &all, -f.crop_x, -f.crop_y);
                assert_memory_equal(part.rgb, cut.rgb, (size_t)f.w * (size_t)f.h * 3);
                kw_picture_free(&part);
                kw_picture_free(&cut);
            }
        kw_err e = { 0 };
        assert_int_equal(kw_picture_fit(&p, f, &part, &e), KW_EUSAGE);      /* one past the last crop */
        kw_picture_free(&all);
    }
    kw_picture_free(&p);
}

/* select_bucket of kohya-ss/sd-scripts: known sizes. */
static void covering_a_bucket(void **state)
{
    (void)state;
    static const int cases[][6] = {             /* picture, bucket, scaled */
        { 4000, 3000, 576, 448, 597, 448 }, { 3000, 4000, 448, 576, 448, 597 }, { 512, 512, 512, 512, 512, 512 },
        { 100, 300, 320, 768, 320, 960 }, { 1920, 1080, 704, 320, 704, 396 }, { 1, 16384, 256, 1024, 256, 4194304 },
    };
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        const int *c = cases[i];
        kw_fit f = kw_fit_cover(c[0], c[1], c[2], c[3]);
        assert_int_equal(f.scaled_w, c[4]);
        assert_int_equal(f.scaled_h, c[5]);
        assert_int_equal(f.crop_x, (c[4] - c[2]) / 2);
        assert_int_equal(f.crop_y, (c[5] - c[3]) / 2);
    }
}

static void extreme_sizes(void **state)
{
    (void)state;
    kw_picture p, q;
    kw_err e = { 0 };
    assert_int_equal(kw_picture_new(1, 9000, &p, &e), KW_OK);
    memset(p.rgb, 77, 9000 * 3);
    assert_int_equal(kw_picture_fit(&p, kw_fit_cover(1, 9000, 64, 32), &q, &e), KW_OK);
    assert_int_equal(q.rgb[64 * 32 * 3 - 1], 77);
    kw_picture_free(&q);
    kw_picture_free(&p);
    assert_int_equal(kw_picture_new(20000, 1, &p, &e), KW_EDATA);
    assert_int_equal(kw_picture_new(0, 1, &p, &e), KW_EDATA);
}

static void floats_and_back(void **state)
{
    (void)state;
    kw_picture p, q;
    float v[256 * 3], f[256 * 3];
    assert_int_equal(kw_picture_new(256, 1, &p, NULL), KW_OK);
    for (int i = 0; i < 256 * 3; i++)
        p.rgb[i] = (uint8_t)(i / 3);
    kw_picture_to_float(&p, false, v);
    kw_picture_to_float(&p, true, f);
    assert_true(v[0] == -1 && v[255 * 3] == 1 && f[0] == 1);
    assert_true(v[100 * 3] == -0.21568626165390015f);       /* torchvision's figure for 100 */
    assert_int_equal(kw_picture_from_float(v, 256, 1, &q, NULL), KW_OK);
    assert_memory_equal(p.rgb, q.rgb, sizeof v / 4);
    kw_picture_free(&q);
    const float odd[6] = { NAN, INFINITY, -INFINITY, 1.5f, -7, 0 };
    assert_int_equal(kw_picture_from_float(odd, 2, 1, &q, NULL), KW_OK);
    assert_memory_equal(q.rgb, "\0\377\0\377\0\200", 6);    /* 127.5 goes to the even 128 */
    kw_picture_free(&q);
    kw_picture_free(&p);
}

static void no_memory_is_an_answer(void **state)
{
    (void)state;
    kw_picture p = source(), q;
    for (long nth = 1; nth < 4; nth++)
        for (int size = 20; size < 100; size += 70) {
            kw_err e = { 0 };
            kw_alloc_fail_after(nth);
            kw_status s = kw_picture_resize(&p, size, size, &q, &e);
            kw_alloc_fail_after(0);
            assert_true(s == KW_OK || s == KW_ENOMEM);
            kw_picture_free(&q);
        }
    kw_picture_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanczos_has_the_bits_of_pillow), cmocka_unit_test(area_is_the_exact_average),
        cmocka_unit_test(crop_equals_resize_and_cut), cmocka_unit_test(covering_a_bucket),
        cmocka_unit_test(extreme_sizes), cmocka_unit_test(floats_and_back), cmocka_unit_test(no_memory_is_an_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
