/*
 * i18n.c - Japanese, from a catalogue inside the program (po/ja.po, compiled by msgfmt, see po/catalogue.c).
 *
 * Not through glibc's gettext: that translates only where the locale is installed, and must not set the locale of numbers.
 * Format: GNU gettext manual, "The Format of GNU MO Files": a header, then two arrays of (length, offset), sorted by text.
 */
#include "cli.h"

#include <stdlib.h>
#include <string.h>

/* Weak: a build without the catalogue speaks English. */
extern const unsigned char kw_ja_mo[] __attribute__((weak)), kw_ja_mo_end[] __attribute__((weak));

enum { MAGIC = 0x950412de };

static struct {
    kw_lang lang;
    const unsigned char *mo;              /* NULL: no translation */
    uint32_t n, texts, translations;      /* how many; offsets of the two arrays */
} catalogue;

static uint32_t word(const unsigned char *mo, uint32_t at)
{
    uint32_t v;
    memcpy(&v, mo + at, sizeof v);
    return v;
}

static const char *translate(const char *text)
{
    const unsigned char *mo = catalogue.mo;
    uint32_t low = 0, high = mo && *text ? catalogue.n : 0;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        int order = strcmp(text, (const char *)mo + word(mo, catalogue.texts + 8 * middle + 4));
        if (!order)
            return (const char *)mo + word(mo, catalogue.translations + 8 * middle + 4);
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return text;
}

void kw_i18n_choose(kw_lang lang)
{
    bool whole = kw_ja_mo && kw_ja_mo_end - kw_ja_mo >= 28 && word(kw_ja_mo, 0) == MAGIC;
    catalogue.lang = lang;
    catalogue.mo = lang == KW_LANG_JA && whole ? kw_ja_mo : NULL;
    if (catalogue.mo) {
        catalogue.n = word(kw_ja_mo, 8);
        catalogue.texts = word(kw_ja_mo, 12);
        catalogue.translations = word(kw_ja_mo, 16);
    }
    kw_translate = translate;
}

kw_lang kw_i18n_lang(void) { return catalogue.lang; }

/* --lang is looked for before anything is parsed, so that errors in the arguments are in the right language too. */
static const char *from_arguments(int argc, char *const *argv)
{
    const char *found = NULL;
    for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
        if (!strcmp(argv[i], "--lang") && i + 1 < argc)
            found = argv[i + 1];
        else if (kw_starts_with(argv[i], "--lang="))
            found = argv[i] + 7;
    }
    return found && strcmp(found, "auto") ? found : NULL;
}

void kw_i18n_init(int argc, char *const *argv)
{
    static const char *const variables[] = { "KIWAME_LANG", "LC_ALL", "LC_MESSAGES", "LANG" };
    const char *lang = from_arguments(argc, argv);
    for (size_t i = 0; i < KW_LEN(variables) && !lang; i++) {
        lang = getenv(variables[i]);
        if (lang && (!*lang || (i == 0 && !strcmp(lang, "auto"))))
            lang = NULL;
    }
    kw_i18n_choose(lang && kw_starts_with(lang, "ja") && !(lang[2] >= 'a' && lang[2] <= 'z') ? KW_LANG_JA : KW_LANG_EN);
}
