/* test_sheet.c - words and contact sheets: ink where it belongs, with and without fonts of the system. */
#include "picture/picture.h"
#include "picture/internal.h"
#include "files.h"

#include <unistd.h>

/* Fontconfig keeps its tables until the process ends. */
const char *__lsan_default_suppressions(void) { return "leak:libfontconfig\n"; }

static const uint8_t black[3] = { 0, 0, 0 };

static kw_picture plain(int w, int h, uint8_t v)
{
    kw_picture p;
    assert_int_equal(kw_picture_new(w, h, &p, NULL), KW_OK);
    memset(p.rgb, v, (size_t)w * (size_t)h * 3);
    return p;
}

static long ink(const kw_picture *p, int x, int y, int w, int h, const uint8_t paper[3])
{
    long n = 0;
    for (int j = y; j < y + h; j++)
        for (int i = x; i < x + w; i++)
            n += memcmp(p->rgb + ((size_t)j * (size_t)p->w + (size_t)i) * 3, paper, 3) != 0;
    return n;
}

/* The built-in font against what a reader sees. */
static void built_in_letters(void **state)
{
    (void)state;
    kw_mask m;
    assert_int_equal(kw_font_mask("Ag", 0, &m), KW_OK);
    assert_int_equal(m.w, 12);
    assert_int_equal(m.h, 13);
    static const char *const seen[9] = { ".###..", "#...#.", "#...#..####.", "#####.#...#.", "#...#.#...#.",
                                         "#...#.#...#.", "#...#..####.", "..........#.", ".......###.." };
    for (int y = 0; y < 9; y++)
        for (int x = 0; x < 12; x++) {
            bool expected = x < (int)strlen(seen[y]) && seen[y][x] == '#';
            assert_int_equal(m.ink[(y + 3) * 12 + x] == 255, expected);
        }
    kw_block_free(m.ink);
    assert_int_equal(kw_font_mask("one two three", 7 * 6, &m), KW_OK);      /* breaks at spaces */
    assert_int_equal(m.h, 2 * 13);
    assert_int_equal(m.w, 7 * 6);
    kw_block_free(m.ink);
    assert_int_equal(kw_font_mask("\xe8\xb5\xa4\xe3\x81\x84\xff", 0, &m), KW_OK);       /* a box for each */
    assert_int_equal(m.w, 3 * 6);
    kw_block_free(m.ink);
    assert_int_equal(kw_font_mask("", 0, &m), KW_OK);
    assert_null(m.ink);
}

static void every_built_in_letter_differs(void **state)
{
    (void)state;
    kw_mask all[96];
    for (int c = 33; c < 128; c++) {
        char text[2] = { (char)c, 0 };
        assert_int_equal(kw_font_mask(text, 0, &all[c - 32]), KW_OK);
        for (int d = 33; d < c; d++)
            assert_memory_not_equal(all[c - 32].ink, all[d - 32].ink, 6 * 13);
    }
    for (int c = 33; c < 128; c++)
        kw_block_free(all[c - 32].ink);
}

static void drawing_stays_inside(void **state)
{
    (void)state;
    kw_picture p = plain(60, 30, 255);
    int w, h;
    kw_text_draw(&p, "a <b> & \"c\"\n\xff\x01 more words than fit, \xe8\xb5\xa4", -5, -3, 0, 0, black, &w, &h);
    assert_true(w > 60 && h > 20);
    kw_text_draw(&p, "x", 59, 29, 0, 0, black, NULL, NULL);
    kw_text_draw(&p, "x", 500, 500, 0, 0, black, NULL, NULL);
    kw_text_draw(NULL, "  \n ", 0, 0, 0, 0, black, &w, &h);
    assert_int_equal(w, 0);
    kw_text_draw(NULL, "many words in a narrow column", 0, 0, 60, 20, black, &w, &h);
    assert_true(w <= 64 && h == 20);
    assert_true(ink(&p, 0, 0, 60, 30, kw_picture_white) > 50);
    kw_picture_free(&p);
}

static void a_sheet_with_everything(void **state)
{
    (void)state;
    kw_picture a = plain(64, 64, 10), b = plain(64, 48, 200), out, bare;
    const kw_picture *cells[6] = { &a, &b, NULL, &b, &a, &a };
    const char *columns[] = { "0", "0.6", "1.2" }, *rows[] = { "step 100", "step 200, a longer name" };
    const char *labels[] = { "0.123", "0.2", NULL, "a very long label that must be cut somewhere", "", "0.5" };
    kw_sheet s = { .columns = 3, .rows = 2, .cells = cells, .best = -1 };
    assert_int_equal(kw_sheet_draw(&s, &bare, NULL), KW_OK);
    assert_int_equal(bare.w, 12 + 3 * 64 + 2 * 8 + 12);
    assert_int_equal(bare.h, 12 + 2 * 64 + 8 + 12);
    assert_memory_equal(bare.rgb + (12 * bare.w + 12) * 3, a.rgb, 64 * 3);
    kw_picture_free(&bare);
    s = (kw_sheet){ "LoRA \xe3\x82\xad\xe3\x83\x84\xe3\x83\x8d", 3, 2, columns, rows, cells, labels, 4, "below" };
    assert_int_equal(kw_sheet_draw(&s, &out, NULL), KW_OK);
    assert_true(out.w > bare.w && out.h > 200);
    assert_true(ink(&out, 0, 0, out.w, 40, kw_picture_white) > 100);                /* the title */
    assert_true(ink(&out, 0, 60, 60, out.h - 60, kw_picture_white) > 100);          /* row labels */
    const uint8_t mark[3] = { 22, 140, 60 };
    long green = (long)out.w * out.h - ink(&out, 0, 0, out.w, out.h, mark);
    assert_int_equal(green, 72 * 72 - 64 * 64);
    kw_picture_free(&out);
    kw_err e = { 0 };
    s.rows = 0;
    assert_int_equal(kw_sheet_draw(&s, &out, &e), KW_EUSAGE);
    kw_picture_free(&a);
    kw_picture_free(&b);
    static const char *const fonts[] = { "built in", "of the system", "of the system, Japanese too" };
    print_message("           fonts: %s\n", fonts[kw_text_font()]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in_letters), cmocka_unit_test(every_built_in_letter_differs),
        cmocka_unit_test(drawing_stays_inside), cmocka_unit_test(a_sheet_with_everything),
    };
    bool bare = argc > 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (bare)
        return failed || kw_text_font() != KW_FONT_BUILT_IN;
    char *again[] = { argv[0], "bare", NULL };          /* once more where no font is found */
    if (failed || setenv("FONTCONFIG_FILE", GOLDEN "no-fonts.conf", 1))
        return 1;
    execv("/proc/self/exe", again);
    return 1;
}
