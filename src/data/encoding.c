/*
 * encoding.c - caption files as bytes, and what they say: UTF-8, UTF-16 or CP932, control characters taken out.
 *
 * What is valid UTF-8 is UTF-8 (Japanese in CP932 hardly ever is). A byte order mark decides; NUL bytes without one
 * mean UTF-16, on the side where there are more of them; anything else is tried as CP932. Each conversion is strict and
 * is told to the user with the first words of its result: a wrong guess is seen.
 */
#include "internal.h"

#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

/* Bytes of s that are valid UTF-8 without NUL. */
static size_t valid_utf8(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate((const uint8_t *)s + i, (utf8proc_ssize_t)(n - i), &c);
        if (k <= 0 || !c)
            break;
        i += (size_t)k;
    }
    return i;
}

/* ---- conversion --------------------------------------------------------------------------------------- */

/* A strict conversion to UTF-8; *bad: the byte at which it fails, or 0 when a NUL comes out. KW_EDATA then. */
static kw_status convert(kw_arena *a, const char *from, const char *data, size_t n, char **text, size_t *bad, kw_err *e)
{
    iconv_t cd = iconv_open("UTF-8", from);
    if (cd == (iconv_t)-1)
        return kw_fail(e, KW_EUSAGE, N_("unknown encoding: %s"), from);
    size_t in_left = n, out_left = 4 * n + 4;
    char *out = kw_alloc(a, out_left + 1), *in = (char *)(uintptr_t)data;
    if (!out) {
        iconv_close(cd);
        return NO_MEMORY(e);
    }
    *text = out;
    size_t k = iconv(cd, &in, &in_left, &out, &out_left);
    if (k != (size_t)-1)                  /* some encodings keep a character back, for an accent that may follow */
        k = iconv(cd, NULL, NULL, &out, &out_left);
    *bad = (size_t)(in - data);
    iconv_close(cd);
    *out = 0;
    bool whole = k != (size_t)-1 && !in_left, zero = memchr(*text, 0, (size_t)(out - *text));
    if (zero)
        *bad = 0;                         /* the text would end there */
    return whole && !zero ? KW_OK : kw_fail(e, KW_EDATA, N_("byte %zu"), *bad + 1);
}

/* Line and byte in it (both from 1), as an editor shows them. */
static kw_status refuse(const char *shown, const char *data, size_t bad, const char *why, kw_err *e)
{
    size_t line = 1, start = 0;
    for (size_t i = 0; i < bad; i++)
        if (data[i] == '\n') {
            line++;
            start = i + 1;
        }
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: line %zu, byte %zu: %s"), shown, line, bad - start + 1, why);
    return kw_advise(e, s, N_("save the file as UTF-8, or name its encoding with --encoding"));
}

static kw_status convert_as(kw_arena *a, const char *shown, const char *data, size_t n, const char *encoding,
                            char **text, kw_err *e)
{
    char why[96];
    size_t bad = 0;
    kw_status s = convert(a, encoding, data, n, text, &bad, e);
    if (s != KW_EDATA)
        return s;
    snprintf(why, sizeof why, kw_translate(N_("not %s")), encoding);
    return refuse(shown, data, bad, why, e);
}

/* UTF-16 without a mark: ASCII gives NUL bytes, on odd places in little-endian order. */
static const char *guess_utf16(const char *data, size_t n)
{
    size_t zero[2] = { 0 };
    for (size_t i = 0; i < n; i++)
        zero[i & 1] += !data[i];
    return n % 2 || zero[0] == zero[1] ? NULL : zero[1] > zero[0] ? "UTF-16LE" : "UTF-16BE";
}

static kw_status guess(kw_arena *a, const char *shown, const char *data, size_t n, size_t valid, char **text,
                       const char **from, kw_err *e)
{
    size_t bad = 0;
    if (memchr(data, 0, n)) {
        *from = guess_utf16(data, n);
        if (*from && !convert(a, *from, data, n, text, &bad, e))
            return KW_OK;
        return refuse(shown, data, valid, kw_translate(N_("this is not a text")), e);
    }
    *from = "CP932";
    kw_status s = convert(a, *from, data, n, text, &bad, e);
    return s == KW_EDATA ? refuse(shown, data, valid, kw_translate(N_("neither UTF-8 nor CP932 (Shift_JIS)")), e) : s;
}

kw_status kw_text_decode(kw_arena *a, const char *shown, const char *data, size_t n, const char *encoding, char **text,
                         const char **from, kw_err *e)
{
    const uint8_t *b = (const uint8_t *)data;
    *from = NULL;
    if (n >= 3 && !memcmp(b, "\xef\xbb\xbf", 3)) {
        data += 3;
        n -= 3;
    } else if (n >= 2 && ((b[0] == 0xff && b[1] == 0xfe) || (b[0] == 0xfe && b[1] == 0xff))) {
        *from = b[0] == 0xff ? "UTF-16LE" : "UTF-16BE";
        return convert_as(a, shown, data + 2, n - 2, *from, text, e);
    } else if (encoding && *encoding && kw__compare_folded(encoding, "auto", SIZE_MAX)
               && kw__compare_folded(encoding, "utf-8", SIZE_MAX)) {
        *from = encoding;
        return convert_as(a, shown, data, n, encoding, text, e);
    }
    size_t valid = valid_utf8(data, n);
    if (valid == n)
        return (*text = kw_strndup(a, data, n)) ? KW_OK : NO_MEMORY(e);
    if (encoding && !kw__compare_folded(encoding, "utf-8", SIZE_MAX))
        return refuse(shown, data, valid, kw_translate(N_("not UTF-8")), e);
    return guess(a, shown, data, n, valid, text, from, e);
}

/* ---- cleaning ----------------------------------------------------------------------------------------- */

/* Controls, marks of direction, byte order marks, private use of terminals: nothing that describes a picture. */
static bool is_control(utf8proc_int32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || (c >= 0x200e && c <= 0x200f)
        || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb);
}

/* Bytes of a terminal's colour sequence ESC [ ... letter at s, 0 if there is none. */
static size_t escape_sequence(const char *s)
{
    if (s[0] != 27 || s[1] != '[')
        return 0;
    size_t n = 2 + strspn(s + 2, "0123456789;:?<=>! ");
    return n + (s[n] >= '@' && s[n] <= '~');
}

/* In place; returns how many characters went. Line ends become \n, tabs a space. */
static size_t clean(char *text)
{
    size_t gone = 0, n = strlen(text);
    char *o = text;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        size_t k = escape_sequence(text + i);
        if (!k) {
            k = (size_t)utf8proc_iterate((const uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
            if (c == '\r' || c == '\n' || c == 0x85 || c == 0x2028 || c == 0x2029) {
                *o++ = '\n';
                i += k;
                continue;
            }
            if (c == '\t' || !is_control(c)) {
                memmove(o, c == '\t' ? " " : text + i, k);
                o += k;
                i += k;
                continue;
            }
        }
        gone++;
        i += k;
    }
    *o = 0;
    return gone;
}

/* White space of Unicode that can stand around a line: ASCII's and the ideographic space. */
static size_t space_at(const char *s)
{
    if (*s == ' ' || *s == '\f' || *s == '\v')
        return 1;
    return !strncmp(s, "\xe3\x80\x80", 3) ? 3 : !strncmp(s, "\xc2\xa0", 2) ? 2 : 0;
}

static char *trim(char *s)
{
    char *end = s;
    for (size_t k; (k = space_at(s));)
        s += k;
    end = s + strlen(s);
    for (bool more = true; more && end > s;) {
        size_t k = space_at(end - 1) == 1 ? 1 : end - s >= 3 && space_at(end - 3) == 3 ? 3
                 : end - s >= 2 && space_at(end - 2) == 2 ? 2 : 0;
        end -= k;
        more = k;
    }
    *end = 0;
    return s;
}

kw_status kw__caption_lines(kw_dataset *d, const char *name, char *text, const char ***lines, size_t *n, kw_err *e)
{
    size_t gone = clean(text), capacity = 0;
    *lines = NULL;
    *n = 0;
    if (gone)
        KW_TRY(kw__remark(d, KW_REMARK_CONTROL, name, e, "%zu", gone));
    for (char *p = text, *next; p; p = next) {
        next = strchr(p, '\n');
        if (next)
            *next++ = 0;
        char *line = trim(p);
        if (!*line)
            continue;
        KW_TRY(kw_grow(d->arena, lines, &capacity, *n, sizeof **lines, e));
        (*lines)[(*n)++] = line;
    }
    return KW_OK;
}

/* The first characters of a text, for a remark. */
static void preview(const char *text, char out[64])
{
    size_t n = strcspn(text, "\n");
    if (n >= 60)
        for (n = 56; n && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
            ;
    snprintf(out, 64, "%.*s%s", (int)n, text, text[n] && text[n] != '\n' ? "…" : "");
}

kw_status kw__caption_read(kw_dataset *d, const kw_scan *o, const kw_found *f, const char ***lines, size_t *n,
                           kw_err *e)
{
    char *data, *text, shown[64];
    const char *from;
    size_t bytes;
    KW_TRY(kw_file_read(d->arena, f->path, KW_CAPTION_MAX_BYTES, &data, &bytes, e));
    KW_TRY(kw_text_decode(d->arena, f->name, data, bytes, o->encoding, &text, &from, e));
    preview(text, shown);
    if (from)
        KW_TRY(kw__remark(d, KW_REMARK_ENCODING, f->name, e, "%s: %s", from, shown));
    return kw__caption_lines(d, f->name, text, lines, n, e);
}
