/*
 * test_decode.c - every kind of file against what Pillow and littleCMS make of it (tools/golden/picture.py).
 * Measured with libvips 8.14.1, lcms2 2.14, libjpeg-turbo 2.1.5, libwebp 1.2.4: see the figures printed.
 */
#include "picture/picture.h"
#include "picture/internal.h"
#include "files.h"

#include <locale.h>
#include <png.h>
#include <pthread.h>

typedef struct { char name[64], background[8], format[8], notes[64]; int w, h, frames, orientation; } row;

static bool next_row(char **text, row *r)
{
    int used = 0;
    if (sscanf(*text, "%63s %d %d %7s %7s %d %d %63s%n", r->name, &r->w, &r->h, r->background, r->format, &r->frames,
               &r->orientation, r->notes, &used) != 8)
        return false;
    *text += used;
    return true;
}

static uint32_t notes_of(const char *names)
{
    static const char *const all[] = {
#define X(name, text) #name,
        KW_PICTURE_NOTE_MAP(X)
#undef X
    };
    uint32_t notes = 0;
    char copy[64];
    snprintf(copy, sizeof copy, "%s", names);
    for (char *save, *s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save))
        for (int i = 0; i < KW_N_NOTES; i++)
            if (!strcmp(s, all[i]))
                notes |= 1u << i;
    return notes;
}

static int difference(const uint8_t *a, const uint8_t *b, size_t n)
{
    int most = 0;
    for (size_t i = 0; i < n; i++)
        most = KW_MAX(most, abs(a[i] - b[i]));
    return most;
}

static int check_row(const row *r)
{
    size_t n, m;
    uint8_t background[3];
    char path[128];
    for (int k = 0; k < 3; k++)
        sscanf(r->background + 2 * k, "%2hhx", &background[k]);
    char *data = slurp(r->name, &n);
    snprintf(path, sizeof path, "%s.rgb", r->name);
    char *want = slurp(path, &m);
    kw_picture p;
    kw_err e = { 0 };
    if (kw_picture_decode(data, n, r->name, background, &p, &e)) {
        print_error("%s\n", e.what);
        free(data);
        free(want);
        return 256;
    }
    int most = 255;
    if (p.w == r->w && p.h == r->h && m == (size_t)p.w * (size_t)p.h * 3)
        most = difference(p.rgb, (uint8_t *)want, m);
    if (strcmp(kw_picture_format_name(p.info.format), r->format) || p.info.frames != r->frames
        || p.info.orientation != r->orientation || p.info.notes != notes_of(r->notes)) {
        kw_str s = { 0 };
        kw_picture_notes(&p.info, &s);
        print_error("%s: %s, frames %d, orientation %d, %s\n", r->name, kw_picture_format_name(p.info.format),
                    p.info.frames, p.info.orientation, s.s ? s.s : "no notes");
        kw_str_free(&s);
        most = 300;
    }
    if (most > 1)
        print_error("%s: %dx%d differs by %d/255\n", r->name, p.w, p.h, most);
    kw_picture_free(&p);
    free(data);
    free(want);
    return most;
}

static void good_files_equal_pillow(void **state)
{
    (void)state;
    size_t n;
    int files = 0, exact = 0, wrong = 0;
    char *text = slurp("manifest.txt", &n), *at = text;
    for (row r; next_row(&at, &r); files++) {
        int most = check_row(&r);
        exact += most == 0;
        wrong += most > 1;
    }
    print_message("           %d files, %d equal, %d off by 1/255\n", files, exact, files - exact - wrong);
    assert_int_equal(wrong, 0);
    assert_true(files > 70);
    free(text);
}

static void bad_files_are_refused_with_a_reason(void **state)
{
    (void)state;
    size_t n, m;
    int used, wrong = 0, files = 0;
    char name[64], word[64];
    char *text = slurp("bad.txt", &n);
    for (char *at = text; sscanf(at, "%63s %63s%n", name, word, &used) == 2; at += used, files++) {
        char *data = slurp(name, &m);
        kw_picture p;
        kw_err e = { 0 };
        kw_status s = kw_picture_decode(data, m, name, kw_picture_white, &p, &e);
        bool told = kw_starts_with(e.what, name) && (word[0] == '-' || strstr(e.what, word));
        if (s != KW_EDATA || !told || p.rgb) {
            print_error("%s: status %d, %s\n", name, s, e.what);
            wrong++;
        }
        free(data);
    }
    assert_int_equal(wrong, 0);
    assert_true(files > 20);
    free(text);
}

/*
 * Every opacity a with every value c, on backgrounds b: round((a c + (255 - a) b) / 255), computed here in whole
 * numbers. (255 is odd: there are no halves.)
 */
static uint8_t laid(int a, int c, int b) { return (uint8_t)((2 * (a * c + (255 - a) * b) + 255) / 510); }

static void transparency_is_laid_on_the_background(void **state)
{
    (void)state;
    static const uint8_t backgrounds[][3] = { { 255, 255, 255 }, { 0, 0, 0 }, { 1, 127, 254 }, { 32, 64, 96 } };
    static uint8_t rgba[256][256][4];
    for (int a = 0; a < 256; a++)
        for (int c = 0; c < 256; c++)
            memcpy(rgba[a][c], (uint8_t[]){ (uint8_t)c, (uint8_t)(255 - c), (uint8_t)(c ^ a), (uint8_t)a }, 4);
    png_image image = { .version = PNG_IMAGE_VERSION, .width = 256, .height = 256, .format = PNG_FORMAT_RGBA };
    png_alloc_size_t n = 1 << 20;
    uint8_t *file = malloc(n);
    assert_true(png_image_write_to_memory(&image, file, &n, 0, rgba, 0, NULL));
    for (size_t k = 0; k < KW_LEN(backgrounds); k++) {
        const uint8_t *b = backgrounds[k];
        kw_picture p;
        assert_int_equal(kw_picture_decode(file, n, "x.png", b, &p, NULL), KW_OK);
        assert_true(p.info.notes & KW_NOTE_ALPHA);
        for (int i = 0; i < 65536; i++)
            for (int c = 0; c < 3; c++) {
                uint8_t want = laid(i >> 8, rgba[i >> 8][i & 255][c], b[c]);
                if (p.rgb[3 * i + c] != want)
                    fail_msg("a %d, c %d on %d: %d, not %d", i >> 8, rgba[i >> 8][i & 255][c], b[c], p.rgb[3 * i + c],
                             want);
            }
        kw_picture_free(&p);
    }
    free(file);
}

static void colours_are_read(void **state)
{
    (void)state;
    static const struct { const char *text; uint8_t rgb[3]; } good[] = {
        { "white", { 255, 255, 255 } }, { "Black", { 0, 0, 0 } }, { "GREY", { 128, 128, 128 } },
        { "green", { 0, 128, 0 } },
        { "#102AbF", { 16, 42, 191 } }, { "#f80", { 255, 136, 0 } },
    };
    static const struct { const char *text, *advice; } bad[] = {
        { "whit", "'white'" }, { "blakc", "'black'" }, { "#12345", "#rrggbb" }, { "#gggggg", "#rrggbb" },
        { "#", "#rrggbb" },
        { "", "#rrggbb" }, { "102030", "#rrggbb" }, { "#1020304", "#rrggbb" }, { "# 1 2 3", "#rrggbb" },
    };
    for (size_t i = 0; i < KW_LEN(good); i++) {
        uint8_t rgb[3];
        assert_int_equal(kw_picture_colour(good[i].text, rgb, NULL), KW_OK);
        assert_memory_equal(rgb, good[i].rgb, 3);
    }
    for (size_t i = 0; i < KW_LEN(bad); i++) {
        uint8_t rgb[3] = { 1, 2, 3 };
        kw_err e = { 0 };
        assert_int_equal(kw_picture_colour(bad[i].text, rgb, &e), KW_EUSAGE);
        assert_non_null(strstr(e.advice, bad[i].advice));
        assert_memory_equal(rgb, ((uint8_t[]){ 1, 2, 3 }), 3);
    }
}

static void truncation_anywhere_is_no_crash(void **state)
{
    (void)state;
    static const char *const names[] = { "exif6.jpg", "palette-alpha.png", "webp-lossy-alpha.webp", "animated.gif",
                                         "rgb.tif", "rle8.bmp", "cmyk-profile.jpg" };
    for (size_t i = 0; i < KW_LEN(names); i++) {
        size_t n;
        char *data = slurp(names[i], &n);
        for (size_t cut = 0; cut < n; cut += cut < 64 ? 1 : 41) {
            char *part = malloc(cut + 1);                           /* its own size, so that a sanitizer sees */
            memcpy(part, data, cut);
            kw_picture p;
            kw_err e = { 0 };
            if (!kw_picture_decode(part, cut, names[i], kw_picture_white, &p, &e))
                kw_picture_free(&p);
            free(part);
        }
        free(data);
    }
}

static void names_and_magic(void **state)
{
    (void)state;
    assert_int_equal(kw_picture_named("a/b.JPeG"), KW_PICTURE_JPEG);
    assert_int_equal(kw_picture_named("a/b.txt"), KW_PICTURE_UNKNOWN);
    assert_int_equal(kw_picture_named(".png"), KW_PICTURE_UNKNOWN);
    assert_int_equal(kw_picture_sniff("RIFF1234WEBPVP8 ", 16), KW_PICTURE_WEBP);
    assert_int_equal(kw_picture_sniff("RIFF1234WAVE", 12), KW_PICTURE_UNKNOWN);
    assert_int_equal(kw_picture_sniff("\xff\xd8", 2), KW_PICTURE_UNKNOWN);
}

static void reading_files(void **state)
{
    (void)state;
    kw_picture p;
    kw_err e = { 0 };
    assert_int_equal(kw_picture_read(GOLDEN "exif6.jpg", kw_picture_white, &p, &e), KW_OK);
    assert_int_equal(p.w, 16);
    assert_int_equal(p.info.file_w, 24);
    kw_picture_free(&p);
    assert_int_equal(kw_picture_read(GOLDEN "nothing.jpg", kw_picture_white, &p, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "nothing.jpg: "));
    assert_int_equal(kw_picture_read(GOLDEN, kw_picture_white, &p, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "regular"));
    assert_int_equal(kw_picture_read("/dev/zero", kw_picture_white, &p, &e), KW_EDATA);
}

static void *many(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) {
        kw_picture p;
        kw_err e = { 0 };
        const char *path = i % 2 ? GOLDEN "wide.jpg" : GOLDEN "cut.png";
        if (kw_picture_read(path, kw_picture_white, &p, &e) != (i % 2 ? KW_OK : KW_EDATA))
            return "wrong";
        kw_picture_free(&p);
    }
    return NULL;
}

static void threads_and_locale_are_left_alone(void **state)
{
    (void)state;
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, many, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(t[i], &wrong);
        assert_null(wrong);
    }
    assert_string_equal(setlocale(LC_ALL, NULL), "C");
}

static void no_memory_is_an_answer(void **state)
{
    (void)state;
    size_t n;
    char *data = slurp("exif6-wide.jpg", &n);
    for (long nth = 1; nth < 8; nth++) {
        kw_picture p;
        kw_err e = { 0 };
        kw_alloc_fail_after(nth);
        kw_status s = kw_picture_decode(data, n, "x.jpg", kw_picture_white, &p, &e);
        kw_alloc_fail_after(0);
        assert_true(s == KW_OK || s == KW_ENOMEM);
        kw_picture_free(&p);
    }
    free(data);
}

static void utf8_round_trip(void **state)
{
    (void)state;
    kw_str s = { 0 };
    static const uint32_t codes[] = { 1, 0x7f, 0x80, 0x7ff, 0x800, 0xffff, 0x10000, 0x10ffff };
    for (size_t i = 0; i < KW_LEN(codes); i++)
        kw__pic_utf8_put(&s, codes[i]);
    const char *at = s.s;
    for (size_t i = 0; i < KW_LEN(codes); i++)
        assert_int_equal(kw__pic_utf8_get(&at), codes[i]);
    assert_int_equal(kw__pic_utf8_get(&at), 0);
    kw_str_free(&s);
    for (const char *bad = "\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80\xe3\x81"; *bad;)
        assert_int_equal(kw__pic_utf8_get(&bad), 0xfffd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files_equal_pillow), cmocka_unit_test(bad_files_are_refused_with_a_reason),
        cmocka_unit_test(transparency_is_laid_on_the_background), cmocka_unit_test(colours_are_read),
        cmocka_unit_test(truncation_anywhere_is_no_crash), cmocka_unit_test(names_and_magic),
        cmocka_unit_test(reading_files), cmocka_unit_test(threads_and_locale_are_left_alone),
        cmocka_unit_test(no_memory_is_an_answer), cmocka_unit_test(utf8_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
