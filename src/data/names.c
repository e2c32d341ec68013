/* names.c - file names: one Unicode form, stems, words, and kohya's "10_name". */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Valid and printable UTF-8, of at most three times the length. */
static char *printable(kw_arena *a, const char *bytes)
{
    size_t n = strlen(bytes);
    char *out = kw_alloc(a, 3 * n + 1), *o = out;
    for (size_t i = 0; out && i < n;) {
        utf8proc_int32_t c = 0;
        utf8proc_ssize_t k = utf8proc_iterate((const uint8_t *)bytes + i, (utf8proc_ssize_t)(n - i), &c);
        bool plain = k > 0 && c >= 0x20 && !(c >= 0x7f && c < 0xa0);
        if (plain)
            memcpy(o, bytes + i, (size_t)k);
        else
            memcpy(o, "\xef\xbf\xbd", 3);
        o += plain ? k : 3;
        i += k > 0 ? (size_t)k : 1;
    }
    return out;
}

char *kw__nfc(kw_arena *a, const char *bytes)
{
    char *clean = printable(a, bytes);
    uint8_t *composed = NULL;
    if (!clean
        || utf8proc_map((uint8_t *)clean, 0, &composed, UTF8PROC_NULLTERM | UTF8PROC_STABLE | UTF8PROC_COMPOSE) < 0)
        return NULL;
    char *out = kw_strdup(a, (char *)composed);
    free(composed);
    return out;
}

const char *kw__extension(const char *name)
{
    name = kw_path_name(name);
    const char *dot = strrchr(name, '.');
    return dot && dot != name ? dot : "";
}

static int fold(char c) { return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : (unsigned char)c; }

int kw__compare_folded(const char *x, const char *y, size_t most)
{
    for (; most && *x && fold(*x) == fold(*y); most--)
        x++, y++;
    return most ? fold(*x) - fold(*y) : 0;
}

const char *kw__find_folded(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (; *text; text++)
        if (!kw__compare_folded(text, word, n))
            return text;
    return NULL;
}

char *kw__stem(kw_arena *a, const char *name)
{
    name = kw_path_name(name);
    return kw_strndup(a, name, strlen(name) - strlen(kw__extension(name)));
}

bool kw__repeats(const char *folder, long *repeats, const char **words)
{
    char *end;
    if (*folder < '0' || *folder > '9')
        return false;
    *repeats = strtol(folder, &end, 10);
    *words = end + 1;
    return *end == '_' && end[1];
}

/* ---- words -------------------------------------------------------------------------------------------- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Names that cameras and programs give: they say nothing about the picture. */
static bool says_nothing(const char *word)
{
    static const char *const list[] = {
        "img", "dsc", "dscn", "dscf", "pxl", "mvimg", "image", "images", "photo", "picture", "pic", "screenshot",
        "untitled", "copy", "画像", "写真", "スクリーンショット", "名称未設定",
    };
    for (size_t i = 0; i < KW_LEN(list); i++)
        if (!kw__compare_folded(word, list[i], SIZE_MAX))
            return true;
    return false;
}

/*
 * A word without its number at the end. With digits inside ("a3f9c0") or one letter before them ("p12") it is a code and
 * goes; "3d" and "2girls" stay.
 */
static void add_word(kw_str *out, const char *s, size_t n)
{
    char word[256];
    size_t whole = n;
    while (n && is_digit(s[n - 1]))
        n--;
    if (!n || n >= sizeof word || (n == 1 && whole > 1))
        return;
    memcpy(word, s, n);
    word[n] = 0;
    size_t first = strspn(word, "0123456789");
    if (strcspn(word + first, "0123456789") < n - first || says_nothing(word))
        return;
    kw_str_add(out, out->n ? " " : "");
    kw_str_add(out, word);
}

char *kw__words(kw_arena *a, const char *stem)
{
    static const char between[] = " _-.,;+~()[]{}#&@!'\"";
    kw_str s = { 0 };
    for (const char *p = stem; *p;) {
        size_t n = strcspn(p, between);
        add_word(&s, p, n);
        p += n;
        p += strspn(p, between);
    }
    char *out = s.failed ? NULL : kw_strdup(a, s.s ? s.s : "");
    kw_str_free(&s);
    return out;
}
