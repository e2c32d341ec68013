/* test_cli.c - columns, help, every command's tables, and that everything shown has Japanese. */
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/cli.h"
#include "cli/generate.h"

static void equals(kw_str *s, const char *wanted)
{
    assert_string_equal(s->s ? s->s : "", wanted);
    kw_str_free(s);
}

static void columns(void **state)
{
    (void)state;
    assert_int_equal(kw_width("abc"), 3);
    assert_int_equal(kw_width("学習率"), 6);
    assert_int_equal(kw_width("ﾊﾝｶｸ"), 4);
    assert_int_equal(kw_width("が"), 2);          /* か + combining mark */
    assert_int_equal(kw_width("\033[1m学\033[0m"), 2);
    assert_int_equal(kw_width("\xff"), 1);
    kw_str s = { 0 };
    kw_pad(&s, "学習", 6, false);
    kw_pad(&s, "学習", 6, true);
    equals(&s, "学習    学習");
}

static void wrapping(void **state)
{
    (void)state;
    kw_str s = { 0 };
    kw_wrap(&s, "one two three", 0, 2, 9);
    equals(&s, "one two\n  three");
    kw_wrap(&s, "学習率の、設定", 0, 0, 8);           /* 、 does not begin a line */
    equals(&s, "学習率\nの、設定");
    kw_wrap(&s, "既定値は「自動」です", 0, 0, 9);      /* 「 does not end one */
    equals(&s, "既定値は\n「自動」\nです");
    kw_wrap(&s, "averyveryverylongword x", 0, 0, 5);
    equals(&s, "averyveryverylongword\nx");
    kw_wrap(&s, "a\nb", 4, 4, 20);
    equals(&s, "a\n    b");
}

static void escaping(void **state)
{
    (void)state;
    kw_str s = { 0 };
    kw_escape(&s, "a\033[31mb\a\n学\xff\u202e\xc2\x85");
    equals(&s, "a\\x1b[31mb\\x07\n学\\xff\\u202e\\u0085");
}

static void sizes_and_durations(void **state)
{
    (void)state;
    static const struct { double v; const char *en, *ja; } times[] = {
        { 0.04, "0.0 s", "0.0秒" }, { 9.94, "9.9 s", "9.9秒" }, { 59.4, "59 s", "59秒" }, { 59.6, "1 min 00 s", "1分00秒" },
        { 220, "3 min 40 s", "3分40秒" }, { 7500, "2 h 05 min", "2時間05分" }, { 90000, "1 d 01 h", "1日01時間" },
        { NAN, "?", "?" }, { INFINITY, "?", "?" },
    };
    kw_str s = { 0 };
    for (size_t i = 0; i < KW_LEN(times); i++) {
        kw_i18n_choose(KW_LANG_EN);
        kw_show_duration(&s, times[i].v);
        equals(&s, times[i].en);
        kw_i18n_choose(KW_LANG_JA);
        kw_show_duration(&s, times[i].v);
        equals(&s, times[i].ja);
    }
    kw_show_size(&s, 999);
    kw_show_size(&s, 1900000000);
    kw_show_size(&s, 999700);
    equals(&s, "999 B1.9 GB1.0 MB");
    kw_i18n_choose(KW_LANG_EN);
}

/* ---- every command ---------------------------------------------------------------------------------------------- */

typedef void (*visit)(const kw_command *m, const char *path);

static void each(const kw_command *const *list, const char *path, visit one)
{
    for (; *list; list++) {
        char whole[128];
        snprintf(whole, sizeof whole, "%s %s", path, (*list)->name);
        one(*list, whole);
        if ((*list)->commands)
            each((*list)->commands, whole, one);
    }
}

static void tables_are_sound(const kw_command *m, const char *path)
{
    kw_arena *a = kw_arena_new();
    kw_options *o = kw_options_new(a);
    void *config;
    kw_globals g;
    kw_err e = { 0 };
    if (kw_command_bind(m, a, o, &config, &e) || kw_options_add(o, kw_global_options, &g, NULL, &e)
        || kw_options_check(o, &e))
        fail_msg("%s: %s", path, e.what);
    assert_true(!m->commands != !m->run);               /* either a command or a group of commands */
    kw_arena_free(a);
}

static void all_tables(void **state)
{
    (void)state;
    each(kw_commands, "kiwame", tables_are_sound);
}

static int missing;

static void needs_japanese(const char *path, const char *text)
{
    if (text && *text && kw_translate(text) == text) {
        print_error("%s: no Japanese in po/ja.po: %s\n", path, text);
        missing++;
    }
}

static void rows_have_japanese(const char *path, const kw_option *rows)
{
    for (; rows && rows->name; rows++) {
        if (rows->flags & KW_OPT_HIDDEN)
            continue;
        needs_japanese(path, rows->help);
        if (rows->unit && strlen(rows->unit) > 2)       /* px, s, GB stay */
            needs_japanese(path, rows->unit);
    }
}

static void has_japanese(const kw_command *m, const char *path)
{
    if (m->flags & KW_COMMAND_HIDDEN)
        return;
    needs_japanese(path, m->help);
    needs_japanese(path, m->about);
    rows_have_japanese(path, m->options);
    for (const kw_option_table *t = m->tables; t && t->rows; t++)
        rows_have_japanese(path, t->rows);
}

static void all_japanese(void **state)
{
    (void)state;
    kw_i18n_choose(KW_LANG_JA);
    if (!strcmp(kw_translate("no memory"), "no memory"))
        fail_msg("the catalogue is not in this program");
    missing = 0;
    each(kw_commands, "kiwame", has_japanese);
    rows_have_japanese("kiwame", kw_global_options);
    kw_i18n_choose(KW_LANG_EN);
    assert_int_equal(missing, 0);
}

/* Help columns start where they should in both languages, and no line is wider than the terminal. */
static void help_is_aligned(const kw_command *m, const char *path)
{
    static const kw_term terms[] = { { .width = 80 }, { .width = 60 } };
    kw_str s = { 0 };
    kw_err e = { 0 };
    for (size_t t = 0; t < KW_LEN(terms); t++) {
        if (kw_help_text(m, path, &terms[t], &s, &e))
            fail_msg("%s: %s", path, e.what);
        bool examples = false;            /* shell lines are shown as they are */
        for (char *line = strtok(s.s, "\n"); line && !examples; line = strtok(NULL, "\n")) {
            if (!strncmp(line, "Usage", 5) || !strncmp(line, "使い方", 9))
                continue;                 /* may be long; not wrapped */
            examples = !strcmp(line, _("Examples"));
            if (kw_width(line) > terms[t].width && strchr(line, ' '))
                fail_msg("%s: wider than %d columns: %s", path, terms[t].width, line);
            const char *gap = strncmp(line, "  -", 3) ? NULL : strstr(line + 2, "  ");
            if (gap && gap + strspn(gap, " ") != line + 28)     /* names are ASCII: bytes are columns */
                fail_msg("%s: help does not start at column 28: %s", path, line);
        }
        kw_str_free(&s);
    }
}

static void all_help(void **state)
{
    (void)state;
    for (kw_lang lang = KW_LANG_EN; lang <= KW_LANG_JA; lang++) {
        kw_i18n_choose(lang);
        each(kw_commands, "kiwame", help_is_aligned);
    }
    kw_i18n_choose(KW_LANG_EN);
}

static void references(void **state)
{
    (void)state;
    kw_str s = { 0 };
    kw_err e = { 0 };
    assert_int_equal(kw_help_man(&s, &e), KW_OK);
    assert_int_equal(strncmp(s.s, ".TH KIWAME 1 ", 13), 0);
    assert_non_null(strstr(s.s, ".B \\-\\-threads N\n"));
    kw_str_free(&s);
    assert_int_equal(kw_help_markdown(&s, &e), KW_OK);
    assert_non_null(strstr(s.s, "\n## kiwame doctor\n"));
    kw_str_free(&s);
}

/* Help ends in a line end, examples are indented, a word is shown without a unit, a seed's default is what happens. */
static void help_is_true(void **state)
{
    (void)state;
    const kw_command *generate = NULL;
    for (const kw_command *const *m = kw_commands; *m; m++)
        generate = !strcmp((*m)->name, "generate") ? *m : generate;
    kw_str s = { 0 };
    assert_int_equal(kw_help_text(generate, "kiwame generate", &(kw_term){ .width = 100 }, &s, NULL), KW_OK);
    assert_true(kw_ends_with(s.s, "\n"));
    assert_non_null(strstr(s.s, "\n  kiwame generate \"a red fox\""));
    assert_non_null(strstr(s.s, "(default base; 1 to 16384"));
    assert_non_null(strstr(s.s, "(default random;"));
    assert_non_null(strstr(s.s, "7.5GB"));
    assert_null(strstr(s.s, "one or more"));            /* [PROMPT...] may be left out */
    kw_str_free(&s);
}

/* What looks like a slip in a prompt. */
static void prompts_are_noted(void **state)
{
    (void)state;
    static const struct { const char *prompt, *part; } rows[] = {
        { "a fox", NULL }, { "a AND b", NULL }, { "[fox:cat:0.5] in snow", NULL }, { "[fox|cat]", NULL },
        { "[fox:cat:0.5] | x", "[fox:cat:0.5] | x" }, { "a | b", NULL }, { "[a|b", NULL },
        { "x <lora:fox:0.8", "<lora:fox:0.8" }, { "x <lora:fox:0.8>", NULL }, { "a < b", NULL },
        { "<3 : hearts", NULL },
        { "", NULL },
    };
    kw_arena *a = kw_arena_new();
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        const char *note = kw_prompt_note(a, rows[i].prompt);
        if (!note != !rows[i].part || (note && !strstr(note, rows[i].part)))
            fail_msg("%s: %s", rows[i].prompt, note ? note : "nothing");
    }
    kw_arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns), cmocka_unit_test(wrapping), cmocka_unit_test(escaping),
        cmocka_unit_test(sizes_and_durations), cmocka_unit_test(all_tables), cmocka_unit_test(all_japanese),
        cmocka_unit_test(all_help), cmocka_unit_test(references), cmocka_unit_test(help_is_true),
        cmocka_unit_test(prompts_are_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
