/* test_png.c - PNG out and texts in: chunks as Pillow's, pixels through our own decoder. */
#include "picture/picture.h"
#include "files.h"

static kw_picture ramp(int w, int h)
{
    kw_picture p;
    assert_int_equal(kw_picture_new(w, h, &p, NULL), KW_OK);
    for (int i = 0; i < w * h * 3; i++)
        p.rgb[i] = (uint8_t)(i * 7 + i / 90);
    return p;
}

/* The first chunk of that kind, whole. */
static const char *chunk(const char *png, size_t n, const char *kind, size_t *size)
{
    for (size_t at = 8; at + 12 <= n;) {
        const uint8_t *b = (const uint8_t *)png + at;
        size_t length = (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
        if (!memcmp(b + 4, kind, 4)) {
            *size = length + 12;
            return png + at;
        }
        at += length + 12;
    }
    return NULL;
}

static void pixels_come_back(void **state)
{
    (void)state;
    kw_picture p = ramp(37, 21), q;
    kw_str a = { 0 }, b = { 0 };
    assert_int_equal(kw_png_encode(&p, NULL, 0, &a, NULL), KW_OK);
    assert_int_equal(kw_png_encode(&p, NULL, 0, &b, NULL), KW_OK);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.s, b.s, a.n);
    assert_int_equal(kw_picture_decode(a.s, a.n, "a.png", kw_picture_white, &q, NULL), KW_OK);
    assert_int_equal(q.info.notes, 0);
    assert_memory_equal(p.rgb, q.rgb, 37 * 21 * 3);
    kw_picture_free(&p);
    kw_picture_free(&q);
    kw_str_free(&a);
    kw_str_free(&b);
}

static void text_chunks_are_those_of_pillow(void **state)
{
    (void)state;
    static const struct { const char *name, *kind; } cases[] = { { "latin", "tEXt" }, { "japanese", "iTXt" } };
    kw_picture p = ramp(4, 4);
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        char name[64];
        size_t n, m, ours_n = 0, theirs_n = 0;
        snprintf(name, sizeof name, "text-%s.png", cases[i].name);
        char *png = slurp(name, &n);
        snprintf(name, sizeof name, "text-%s.txt", cases[i].name);
        char *text = slurp(name, &m);
        kw_str out = { 0 };
        assert_int_equal(kw_png_encode(&p, &(kw_png_text){ "parameters", text }, 1, &out, NULL), KW_OK);
        const char *ours = chunk(out.s, out.n, cases[i].kind, &ours_n);
        const char *theirs = chunk(png, n, cases[i].kind, &theirs_n);
        assert_non_null(ours);
        assert_int_equal(ours_n, theirs_n);
        assert_memory_equal(ours, theirs, ours_n);
        kw_str_free(&out);
        free(png);
        free(text);
    }
    kw_picture_free(&p);
}

static void check_text(const char *file, const char *expected)
{
    size_t n, m;
    kw_str out = { 0 };
    bool found;
    char *data = slurp(file, &n), *want = slurp(expected, &m);
    assert_int_equal(kw_picture_text(data, n, "parameters", &out, &found, NULL), KW_OK);
    if (!found)
        fail_msg("%s: no text found", file);
    assert_string_equal(out.s, want);
    for (size_t cut = 0; cut < n; cut += 7) {                       /* damaged: no crash */
        kw_str part = { 0 };
        char *copy = malloc(cut + 1);
        memcpy(copy, data, cut);
        assert_int_equal(kw_picture_text(copy, cut, "parameters", &part, &found, NULL), KW_OK);
        kw_str_free(&part);
        free(copy);
    }
    kw_str_free(&out);
    free(data);
    free(want);
}

static void texts_of_others_are_read(void **state)
{
    (void)state;
    check_text("text-latin.png", "text-latin.txt");
    check_text("text-japanese.png", "text-japanese.txt");
    check_text("text-zip.png", "text-zip.txt");
    check_text("text-izip.png", "text-izip.txt");
    check_text("text-late.png", "text-late.txt");
    check_text("text-exif.jpg", "text-exif.txt");
    check_text("text-exif.webp", "text-exif.txt");
    check_text("text-ascii.jpg", "text-ascii.txt");
    size_t n;
    kw_str out = { 0 };
    bool found = true;
    char *data = slurp("rgba.png", &n);
    assert_int_equal(kw_picture_text(data, n, "parameters", &out, &found, NULL), KW_OK);
    assert_false(found);
    free(data);
    kw_str_free(&out);
}

static void several_texts_and_bad_ones(void **state)
{
    (void)state;
    kw_picture p = ramp(4, 4);
    kw_str out = { 0 }, text = { 0 };
    bool found;
    kw_err e = { 0 };
    const kw_png_text texts[] = { { "Title", "a" }, { "parameters", "bad \xff byte" } };
    assert_int_equal(kw_png_encode(&p, texts, 2, &out, &e), KW_OK);
    assert_int_equal(kw_picture_text(out.s, out.n, "parameters", &text, &found, &e), KW_OK);
    assert_string_equal(text.s, "bad \xef\xbf\xbd byte");
    kw_str_free(&out);
    kw_str_free(&text);
    assert_int_equal(kw_png_encode(&p, &(kw_png_text){ "", "x" }, 1, &out, &e), KW_EUSAGE);
    kw_str_free(&out);
    kw_picture_free(&p);
}

static void base64_of_rfc_4648(void **state)
{
    (void)state;
    static const char *const cases[][2] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
                                            { "foobar", "Zm9vYmFy" } };
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        kw_str s = { 0 };
        kw_str_add(&s, "");
        kw_base64(cases[i][0], strlen(cases[i][0]), &s);
        assert_string_equal(s.s, cases[i][1]);
        kw_str_free(&s);
    }
    kw_picture p = ramp(4, 4);
    kw_str s = { 0 };
    assert_int_equal(kw_png_data_uri(&p, &s, NULL), KW_OK);
    assert_true(kw_starts_with(s.s, "data:image/png;base64,iVBORw0KGgo"));
    kw_str_free(&s);
    kw_picture_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_come_back), cmocka_unit_test(text_chunks_are_those_of_pillow),
        cmocka_unit_test(texts_of_others_are_read), cmocka_unit_test(several_texts_and_bad_ones),
        cmocka_unit_test(base64_of_rfc_4648),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
