/* test_scan.c - folders as people have them: every file is used or named, captions go to the right pictures. */
#include "folder.h"

#include <errno.h>
#include <sys/stat.h>

static place here;

static int before(void **state) { (void)state; place_open(&here); return 0; }
static int after(void **state) { (void)state; place_close(&here); return 0; }

static void every_file_is_used_or_named(void **state)
{
    (void)state;
    put_picture(&here, "b.PNG", 8, 8, 1);
    put_picture(&here, "a.jpeg", 8, 8, 2);
    put_text(&here, "a.txt", "red cat");
    put_text(&here, "b.caption", "blue dog");
    put_text(&here, "README.md", "x");
    put_text(&here, "lonely.txt", "x");
    put_text(&here, ".hidden.png", "x");
    put_text(&here, ".cache/x.png", "x");
    put_text(&here, "c.heic", "x");
    put_picture(&here, "a-masklabel.png", 8, 8, 3);
    put_picture(&here, "run/samples/1.png", 8, 8, 3);
    put_text(&here, "run/recipe.toml", "x");
    put_text(&here, "run/events.jsonl", "x");
    assert_int_equal(mkfifo(path_of(&here, "pipe.png"), 0600), 0);
    assert_int_equal(symlink("/etc/hostname", path_of(&here, "out.png")), 0);
    assert_int_equal(symlink("nowhere", path_of(&here, "broken.png")), 0);
    assert_int_equal(symlink(".", path_of(&here, "loop")), 0);
    kw_dataset *d = scan(&here);
    assert_int_equal(d->n, 2);
    assert_string_equal(d->items[0].name, "a.jpeg");
    assert_string_equal(d->items[0].captions[0], "red cat");
    assert_string_equal(d->items[1].captions[0], "blue dog");
    assert_int_equal(d->items[1].source, KW_CAPTION_FILE);
    assert_string_equal(d->items[1].caption_file, "b.caption");
    remark(d, KW_REMARK_OTHER, "README.md");
    remark(d, KW_REMARK_CAPTION_ALONE, "lonely.txt");
    remark(d, KW_REMARK_HIDDEN, ".hidden.png");
    remark(d, KW_REMARK_HIDDEN, ".cache");
    remark(d, KW_REMARK_FORMAT, "c.heic");
    remark(d, KW_REMARK_MASK, "a-masklabel.png");
    remark(d, KW_REMARK_SPECIAL, "pipe.png");
    remark(d, KW_REMARK_LINK_OUTSIDE, "out.png");
    remark(d, KW_REMARK_LINK_BROKEN, "broken.png");
    remark(d, KW_REMARK_LINK_TWICE, "loop");
    remark(d, KW_REMARK_RUN, "run");
    assert_int_equal(d->n_remarks, 11);
}

static void kohya_folders_give_repeats_and_words(void **state)
{
    (void)state;
    put_picture(&here, "10_sks dog/x.png", 8, 8, 1);
    put_picture(&here, "10_sks dog/deep/y.png", 8, 8, 2);
    put_text(&here, "10_sks dog/deep/y.txt", "its own");
    put_picture(&here, "5_cat/x.png", 8, 8, 3);
    put_picture(&here, "0_not/x.png", 8, 8, 4);
    put_picture(&here, "2024_summer/beach_walk-012 (2).png", 8, 8, 5);
    put_picture(&here, "2024_summer/IMG_0001.png", 8, 8, 6);
    put_picture(&here, "2024_summer/p12.png", 8, 8, 7);
    kw_dataset *d = scan_with(&here, &(kw_scan){ .repeats = 3 });
    static const struct { const char *name, *caption; int repeats; kw_caption_source source; } want[] = {
        { "10_sks dog/deep/y.png", "its own", 10, KW_CAPTION_FILE },
        { "10_sks dog/x.png", "sks dog", 10, KW_CAPTION_FOLDER },
        { "2024_summer/IMG_0001.png", "", 3, KW_CAPTION_NONE },
        { "2024_summer/beach_walk-012 (2).png", "beach walk", 3, KW_CAPTION_NAME },
        { "2024_summer/p12.png", "", 3, KW_CAPTION_NONE },
        { "5_cat/x.png", "cat", 5, KW_CAPTION_FOLDER },
    };
    assert_int_equal(d->n, KW_LEN(want));
    for (size_t i = 0; i < d->n; i++) {
        assert_string_equal(d->items[i].name, want[i].name);
        assert_string_equal(d->items[i].captions[0], want[i].caption);
        assert_int_equal(d->items[i].repeats, want[i].repeats);
        assert_int_equal(d->items[i].source, want[i].source);
    }
    remark(d, KW_REMARK_ZERO_REPEATS, "0_not/x.png");
    remark(d, KW_REMARK_YEAR, "2024_summer");
    assert_string_equal(remark(d, KW_REMARK_NO_CAPTION, "5_cat/x.png")->detail, "folder name");
    assert_int_equal(d->n_folders, 4);
    assert_string_equal(d->folders[0].name, "10_sks dog");
    assert_int_equal(d->folders[0].n, 1);
    assert_string_equal(d->folders[3].name, "5_cat");
}

static void metadata_is_understood(void **state)
{
    (void)state;
    put_picture(&here, "train/a.png", 8, 8, 1);
    put_picture(&here, "train/sub/b.png", 8, 8, 2);
    put_picture(&here, "train/c.png", 8, 8, 3);
    put_text(&here, "train/c.txt", "from the file");
    put_text(&here, "train/metadata.jsonl", "{\"file_name\": \"a.png\", \"text\": \"one\\nline\"}\n\n"
             "{\"file_name\": \"sub/b.png\", \"text\": \"\\u732b\", \"n\": [1]}\r\n"
             "{\"file_name\": \"c.png\", \"text\": \"second\"}\n"
             "{\"file_name\": \"gone.png\", \"text\": \"x\"}\n{\"file_name\": \"a.png\", \"text\": \"again\"}");
    kw_dataset *d = scan(&here);
    assert_int_equal(d->n, 3);
    assert_string_equal(d->items[0].captions[0], "one line");
    assert_int_equal(d->items[0].source, KW_CAPTION_METADATA);
    assert_string_equal(d->items[1].captions[0], "from the file");
    assert_string_equal(d->items[2].captions[0], "猫");
    remark(d, KW_REMARK_CAPTION_SECOND, "train/metadata.jsonl:4");
    remark(d, KW_REMARK_CAPTION_SECOND, "train/metadata.jsonl:6");
    remark(d, KW_REMARK_METADATA_ALONE, "train/metadata.jsonl:5");
    assert_int_equal(d->n_remarks, 3);

    kw_err e = { 0 };
    put_text(&here, "train/metadata.jsonl", "{\"file_name\": \"a.png\", \"text\": \"one\"}\n{\"file_name\": 3}\n");
    assert_int_equal(kw_data_scan(here.arena, here.dir, &(kw_scan){ 0 }, &d, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "metadata.jsonl:2"));

    put_text(&here, "train/metadata.jsonl", "{\"file_name\": \"a.png\", \"text\": \"\x94\x4c\x81\x5c\"}\n");      /* CP932 */
    d = scan(&here);
    assert_string_equal(d->items[0].captions[0], "猫―");
    assert_string_equal(remark(d, KW_REMARK_ENCODING, "train/metadata.jsonl")->detail, "CP932");
}

#define NFC_GA "\xe3\x81\x8c"                   /* が */
#define NFD_GA "\xe3\x81\x8b\xe3\x82\x99"       /* か + voiced mark */

static void unicode_forms_match_and_do_not_move_the_order(void **state)
{
    (void)state;
    put_picture(&here, "a" NFD_GA ".png", 8, 8, 1);
    put_text(&here, "a" NFC_GA ".txt", "written NFC");
    put_picture(&here, "a" "\xe3\x81\x8b" "z.png", 8, 8, 2);
    put_picture(&here, "a\xff.png", 8, 8, 3);
    put_picture(&here, "-rf x\n.png", 8, 8, 4);
    kw_dataset *d = scan(&here);
    assert_int_equal(d->n, 4);
    assert_string_equal(d->items[0].name, "-rf x\xef\xbf\xbd.png");
    assert_string_equal(d->items[1].name, "a\xe3\x81\x8bz.png");         /* かz before が, as in NFC */
    assert_string_equal(d->items[2].name, "a" NFC_GA ".png");
    assert_string_equal(d->items[2].captions[0], "written NFC");
    assert_string_equal(d->items[3].name, "a\xef\xbf\xbd.png");
    for (size_t i = 0; i < d->n; i++)
        assert_true(kw_is_file(d->items[i].path));
}

static void encodings_are_found_out(void **state)
{
    (void)state;
    static const struct { const char *name, *bytes; size_t n; const char *text, *from; } files[] = {
        { "bom", "\xef\xbb\xbf" "caf\xc3\xa9", 8, "café", NULL },
        { "cp932", "\x94\x4c\x82\xc6\x8c\xa2\x87\x40", 8, "猫と犬①", "CP932" },
        { "utf16le", "\xff\xfe\x2b\x73\x0d\x00\x0a\x00\x61\x00", 10, "猫", "UTF-16LE" },
        { "utf16be", "\xfe\xff\x73\x2b", 4, "猫", "UTF-16BE" },
        { "bare16", "c\0a\0t\0", 6, "cat", "UTF-16LE" },
        { "kana", "\xb6\xde\xb2", 3, "ｶﾞｲ", "CP932" },
    };
    for (size_t i = 0; i < KW_LEN(files); i++) {
        put_picture(&here, kw_sprintf(here.arena, "%s.png", files[i].name), 8, 8, (int)i);
        put_bytes(&here, kw_sprintf(here.arena, "%s.txt", files[i].name), files[i].bytes, files[i].n);
    }
    kw_dataset *d = scan_with(&here, &(kw_scan){ .any_line = true });
    assert_int_equal(d->n, KW_LEN(files));
    size_t converted = 0;
    for (size_t i = 0; i < d->n; i++)
        for (size_t k = 0; k < KW_LEN(files); k++) {
            if (strncmp(d->items[i].name, files[k].name, strlen(files[k].name)))
                continue;
            assert_string_equal(d->items[i].captions[0], files[k].text);
            if (files[k].from) {
                const kw_remark *r = remark(d, KW_REMARK_ENCODING, d->items[i].caption_file);
                assert_int_equal(strncmp(r->detail, files[k].from, strlen(files[k].from)), 0);
                assert_non_null(strstr(r->detail, files[k].text));
                converted++;
            }
        }
    assert_int_equal(converted, 5);
}

static void what_cannot_be_read_is_refused_with_its_place(void **state)
{
    (void)state;
    put_picture(&here, "a.png", 8, 8, 1);
    put_bytes(&here, "a.txt", "ok\nab\xfe\xfe", 7);
    put_picture(&here, "b.png", 8, 8, 2);
    char *big = calloc(1, 10 << 20);
    memset(big, 'x', 10 << 20);
    put_bytes(&here, "b.txt", big, 10 << 20);
    free(big);
    put_picture(&here, "c.png", 8, 8, 3);
    put_bytes(&here, "c.txt", "a\0b", 3);
    put_picture(&here, "d.png", 8, 8, 4);
    put_text(&here, "d.txt", "fine");
    kw_dataset *d = scan(&here);
    assert_string_equal(d->items[0].bad, "a.txt: line 2, byte 3: neither UTF-8 nor CP932 (Shift_JIS)");
    assert_non_null(strstr(d->items[1].bad, "b.txt: 10485760 bytes"));
    assert_string_equal(d->items[2].bad, "c.txt: line 1, byte 2: this is not a text");
    assert_null(d->items[3].bad);
    assert_int_equal(n_remarks(d, KW_REMARK_BAD_CAPTION), 3);

    char *text;
    const char *from;
    kw_err e = { 0 };
    assert_int_equal(kw_text_decode(here.arena, "f", "\xa4\xab", 2, "EUC-JP", &text, &from, &e), KW_OK);
    assert_string_equal(text, "か");
    assert_int_equal(kw_text_decode(here.arena, "f", "\x94\x4c", 2, "UTF-8", &text, &from, &e), KW_EDATA);
    assert_int_equal(kw_text_decode(here.arena, "f", "x", 1, "klingon", &text, &from, &e), KW_EUSAGE);
    /* a NUL would end the text there; the last character of a stateful encoding must come out */
    assert_int_equal(kw_text_decode(here.arena, "f", "a\0\0\0b\0", 6, "UTF-16LE", &text, &from, &e), KW_EDATA);
    assert_int_equal(kw_text_decode(here.arena, "f", "\xff\xfe\0\0a\0\0\0", 8, NULL, &text, &from, &e), KW_EDATA);
    assert_int_equal(kw_text_decode(here.arena, "f", "\x82\xa9", 2, "SHIFT_JISX0213", &text, &from, &e), KW_OK);
    assert_string_equal(text, "か");
}

static void lines_are_cleaned(void **state)
{
    (void)state;
    put_picture(&here, "a.png", 8, 8, 1);
    put_text(&here, "a.txt", "\r\n  red\tcat \xe3\x80\x80\r\n\r\n\x1b[31mblue\x1b[0m\x07 dog\xe2\x80\xae\n");
    put_picture(&here, "b.png", 8, 8, 2);
    put_text(&here, "b.txt", " \n\n");
    kw_dataset *d = scan(&here);
    assert_int_equal(d->items[0].n_captions, 2);
    assert_string_equal(d->items[0].captions[0], "red cat");
    assert_string_equal(d->items[0].captions[1], "blue dog");
    assert_string_equal(remark(d, KW_REMARK_CONTROL, "a.txt")->detail, "4");
    assert_string_equal(remark(d, KW_REMARK_LINES, "a.txt")->detail, "2");
    remark(d, KW_REMARK_EMPTY, "b.txt");
    assert_string_equal(d->items[1].captions[0], "");
    assert_int_equal(d->items[1].source, KW_CAPTION_FILE);
}

static void the_trigger_word_is_put_in_once(void **state)
{
    (void)state;
    static const struct { const char *caption, *want;
    } rows[] = {
        { "a cat", "kiwa, a cat" },
        { "photo of Kiwa, sitting", "photo of Kiwa, sitting" },
        { "kiwameku", "kiwa, kiwameku" },
        { "[trigger] and [trigger]", "kiwa and kiwa" },
        { "", "kiwa" },
        { "猫kiwa猫", "猫kiwa猫" },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        put_picture(&here, kw_sprintf(here.arena, "%zu.png", i), 8, 8, (int)i);
        put_text(&here, kw_sprintf(here.arena, "%zu.txt", i), rows[i].caption);
    }
    kw_dataset *d = scan_with(&here, &(kw_scan){ .trigger = "kiwa" });
    for (size_t i = 0; i < KW_LEN(rows); i++)
        assert_string_equal(d->items[i].captions[0], rows[i].want);
    assert_int_equal(d->n_trigger, 3);
    remark(scan(&here), KW_REMARK_PLACEHOLDER, "3.txt");
}

static void doubtful_names_are_told(void **state)
{
    (void)state;
    put_picture(&here, "A.png", 8, 8, 1);
    put_picture(&here, "A.jpg", 8, 8, 2);
    put_picture(&here, "a.png", 8, 8, 3);
    put_text(&here, "A.txt", "x");
    put_text(&here, "A.caption", "y");
    put_picture(&here, "p.png", 8, 8, 4);
    put_text(&here, "p.png.txt", "behind");
    put_text(&here, "p.tags", "wanted");
    kw_dataset *d = scan(&here);
    remark(d, KW_REMARK_SHARED, "A.png");
    remark(d, KW_REMARK_CAPTION_SECOND, "A.caption");
    assert_string_equal(d->items[3].captions[0], "behind");
    remark(d, KW_REMARK_OTHER, "p.tags");
    put_text(&here, "q/x.png", "1");
    put_text(&here, "q/X.png", "2");
    d = scan_with(&here, &(kw_scan){ .caption_extension = "tags" });
    assert_string_equal(d->items[3].captions[0], "wanted");
    remark(d, KW_REMARK_SAME_NAME, "q/x.png");
}

static void links_lead_out_only_when_asked(void **state)
{
    (void)state;
    place other;
    place_open(&other);
    put_picture(&other, "far.png", 8, 8, 1);
    put_picture(&here, "near.png", 8, 8, 2);
    assert_int_equal(symlink(other.dir, path_of(&here, "to")), 0);
    assert_int_equal(symlink(other.dir, path_of(&here, "to2")), 0);
    assert_int_equal(symlink(here.dir, path_of(&other, "back")), 0);
    assert_int_equal(symlink("near.png", path_of(&here, "same.png")), 0);
    kw_dataset *d = scan(&here);
    assert_int_equal(d->n, 2);
    assert_int_equal(n_remarks(d, KW_REMARK_LINK_OUTSIDE), 2);
    d = scan_with(&here, &(kw_scan){ .follow = true });
    assert_int_equal(d->n, 3);
    assert_string_equal(d->items[2].name, "to/far.png");
    remark(d, KW_REMARK_LINK_TWICE, "to2");
    remark(d, KW_REMARK_LINK_TWICE, "to/back");
    place_close(&other);
}

static void nothing_found_says_where_it_looked(void **state)
{
    (void)state;
    kw_dataset *d;
    kw_err e = { 0 };
    put_text(&here, "photo/readme.doc", "x");
    put_picture(&here, "photo-inu/inu/a.png", 8, 8, 1);
    assert_int_equal(kw_data_scan(here.arena, path_of(&here, "photo/"), &(kw_scan){ 0 }, &d, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "/photo"));
    assert_int_equal(kw_data_scan(here.arena, path_of(&here, "photo-imu"), &(kw_scan){ 0 }, &d, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "no such folder"));
    assert_non_null(strstr(e.advice, "photo-inu"));
    assert_int_equal(kw_mkdirs(path_of(&here, "empty"), NULL), KW_OK);
    assert_int_equal(kw_data_scan(here.arena, path_of(&here, "empty"), &(kw_scan){ 0 }, &d, &e), KW_EDATA);
    assert_non_null(strstr(e.advice, "photo-inu"));
    const char *file = path_of(&here, "photo-inu/inu/a.png");
    assert_int_equal(kw_data_scan(here.arena, file, &(kw_scan){ 0 }, &d, &e), KW_EDATA);
    assert_non_null(strstr(e.advice, "photo-inu/inu"));
    put_text(&here, "heic/a.heic", "x");
    assert_int_equal(kw_data_scan(here.arena, path_of(&here, "heic"), &(kw_scan){ 0 }, &d, &e), KW_EDATA);
    assert_non_null(strstr(e.advice, "a.heic"));
}

static void an_unreadable_folder_is_an_error(void **state)
{
    (void)state;
    kw_dataset *d;
    kw_err e = { 0 };
    put_picture(&here, "a.png", 8, 8, 1);
    put_picture(&here, "sub/b.png", 8, 8, 2);
    kw_io_fault_start(&(kw_io_fault){ .at = 2, .error = EACCES, .only = "opendir" });
    kw_status s = kw_data_scan(here.arena, here.dir, &(kw_scan){ 0 }, &d, &e);
    kw_io_fault_stop();
    assert_int_equal(s, KW_EDATA);
    assert_non_null(strstr(e.what, "/sub"));
    assert_true(e.advice[0]);
}

static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    put_picture(&here, "3_cat/a.png", 8, 8, 1);
    put_text(&here, "3_cat/a.txt", "one\ntwo");
    put_picture(&here, "b.png", 8, 8, 2);
    put_text(&here, "metadata.jsonl", "{\"file_name\": \"b.png\", \"text\": \"x\"}");
    kw_status s = KW_ENOMEM;
    int tries = 0;
    for (long n = 1; s == KW_ENOMEM && n < 3000; n++, tries++) {
        kw_arena *a = kw_arena_new();
        kw_dataset *d;
        kw_err e = { 0 };
        kw_alloc_fail_after(n);
        s = kw_data_scan(a, here.dir, &(kw_scan){ .trigger = "x" }, &d, &e);
        kw_alloc_fail_after(0);
        kw_arena_free(a);
    }
    assert_int_equal(s, KW_OK);
    assert_in_range(tries, 2, 2999);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, before, after)
    const struct CMUnitTest tests[] = {
        T(every_file_is_used_or_named), T(kohya_folders_give_repeats_and_words), T(metadata_is_understood),
        T(unicode_forms_match_and_do_not_move_the_order), T(encodings_are_found_out),
        T(what_cannot_be_read_is_refused_with_its_place), T(lines_are_cleaned), T(the_trigger_word_is_put_in_once),
        T(doubtful_names_are_told), T(links_lead_out_only_when_asked), T(nothing_found_says_where_it_looked),
        T(an_unreadable_folder_is_an_error), T(memory_may_run_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
