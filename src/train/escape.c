/* escape.c - foreign text inside JSON, HTML and SVG; numbers whatever the locale. */
#include "escape.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*  0xxxxxxx | 110xxxxx 10.. | 1110xxxx 10.. 10.. | 11110xxx 10.. 10.. 10..   shortest form, no surrogates  */
size_t kw__utf8_next(const char *text, uint32_t *out)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *s = (const unsigned char *)text;
    size_t n = *s < 0x80 ? 1 : *s >> 5 == 6 ? 2 : *s >> 4 == 14 ? 3 : *s >> 3 == 30 ? 4 : 0;
    uint32_t c = n == 1 ? *s : n ? *s & (0x7fu >> n) : 0;
    for (size_t i = 1; i < n; i++) {
        if (s[i] >> 6 != 2)                                        /* also the 0 at the end */
            n = 0;
        else
            c = c << 6 | (s[i] & 0x3fu);
    }
    if (!n || c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        *out = 0xfffd;
        return 1;
    }
    *out = c;
    return c ? n : 0;
}

void kw__add_utf8(kw_str *b, uint32_t c)
{
    char s[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6)
        s[i] = (char)(0x80 | (c & 0x3f));
    s[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xf0u) | c);
    kw_str_add_n(b, s, n);
}

static void add_json_character(kw_str *b, uint32_t c, bool ascii)
{
    static const char plain[] = "\"\\\b\f\n\r\t", escaped[] = "\"\\bfnrt";
    const char *at = c < 0x80 ? strchr(plain, (int)c) : NULL;
    if (at)
        kw_str_printf(b, "\\%c", escaped[at - plain]);
    else if (c >= 0x10000 && ascii)
        kw_str_printf(b, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
    else if (c < 0x20 || c == 0x7f || (ascii && c > 0x7f))
        kw_str_printf(b, "\\u%04x", c);
    else
        kw__add_utf8(b, c);
}

void kw__add_json(kw_str *b, const char *text, bool ascii)
{
    uint32_t c;
    kw_str_add(b, "\"");
    for (size_t n; (n = kw__utf8_next(text, &c)); text += n)
        if (c == 0x7f && ascii)
            kw_str_add(b, "\x7f");                                 /* Python leaves DEL as it is */
        else
            add_json_character(b, c, ascii);
    kw_str_add(b, "\"");
}

/* Whatever the locale puts between whole and fraction becomes a point. */
static void add_printed(kw_str *b, char *digits)
{
    for (char *p = digits; *p; p++)
        if (!strchr("0123456789+-e", *p)) {
            size_t n = strcspn(p, "0123456789");
            *p = '.';
            memmove(p + 1, p + n, strlen(p + n) + 1);
        }
    kw_str_add(b, digits);
}

void kw__add_number(kw_str *b, double v)
{
    char digits[64];
    int precision = 15;
    if (!isfinite(v)) {
        kw_str_add(b, "null");
        return;
    }
    do
        snprintf(digits, sizeof digits, "%.*g", precision, v);
    while (++precision <= 17 && strtod(digits, NULL) != v);
    add_printed(b, digits);
}

void kw__add_fixed(kw_str *b, double v, int places)
{
    char digits[400];
    if (!isfinite(v)) {
        kw_str_add(b, "–");
        return;
    }
    snprintf(digits, sizeof digits, "%.*f", places, v);
    add_printed(b, digits);
}

static bool is_unseen(uint32_t c)
{
    return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0)      /* controls */
        || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069)         /* direction of writing */
        || c == 0x200e || c == 0x200f || c == 0x061c || c == 0xfeff;
}

void kw__add_html(kw_str *b, const char *text)
{
    uint32_t c;
    for (size_t n; (n = kw__utf8_next(text, &c)); text += n) {
        const char *entity = c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '"' ? "&quot;"
                           : c == '\'' ? "&#39;" : NULL;
        if (entity)
            kw_str_add(b, entity);
        else if (is_unseen(c))
            kw_str_printf(b, "\u27e8U+%04X\u27e9", c);
        else
            kw__add_utf8(b, c);
    }
}

bool kw__is_below(const char *name)
{
    if (!name || !*name || *name == '/')
        return false;
    for (const char *s = name; s; s = strchr(s, '/'), s += s != NULL)
        if (kw_starts_with(s, "..") && (!s[2] || s[2] == '/'))
            return false;
    return true;
}
