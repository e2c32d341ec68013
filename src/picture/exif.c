/*
 * exif.c - the one text we read from EXIF: UserComment (0x9286), where other programs keep their generation parameters
 * in JPEG and WebP. EXIF 2.32, section 4.6.5: 8 bytes name the character code, the text follows.
 */
#include "internal.h"

#include <string.h>

enum { EXIF_IFD = 0x8769, USER_COMMENT = 0x9286, MAX_ENTRIES = 512 };

typedef struct { const uint8_t *data; size_t n; bool big; } tiff;

static uint32_t number(const tiff *t, size_t at, int bytes)
{
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint32_t)t->data[at + (size_t)i] << 8 * (t->big ? bytes - 1 - i : i);
    return v;
}

/* The entry of `tag` in the directory at `at`: where it starts, 0 when absent. */
static size_t entry(const tiff *t, size_t at, uint32_t tag)
{
    if (at < 8 || at > t->n || t->n - at < 2)
        return 0;
    uint32_t count = number(t, at, 2);
    at += 2;
    for (uint32_t i = 0; i < KW_MIN(count, (uint32_t)MAX_ENTRIES) && t->n - at >= 12; i++, at += 12)
        if (number(t, at, 2) == tag)
            return at;
    return 0;
}

/* Writers disagree on the byte order of UTF-16 here: ASCII letters tell, else big endian. */
static void utf16(const uint8_t *s, size_t n, kw_str *out)
{
    size_t even = 0, odd = 0;
    for (size_t i = 0; i + 1 < n; i += 2) {
        even += !s[i];
        odd += !s[i + 1];
    }
    int high = odd > even;
    for (size_t i = 0; i + 1 < n; i += 2) {
        uint32_t c = (uint32_t)s[i + (size_t)high] << 8 | s[i + (size_t)!high];
        if (c >= 0xd800 && c < 0xdc00 && i + 3 < n) {
            uint32_t low = (uint32_t)s[i + 2 + (size_t)high] << 8 | s[i + 2 + (size_t)!high];
            if (low >= 0xdc00 && low < 0xe000) {
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                i += 2;
            }
        }
        if (c && c != 0xfeff)
            kw__pic_utf8_put(out, c);
    }
}

bool kw_exif_comment(const uint8_t *exif, size_t n, kw_str *out)
{
    tiff t = { exif, n, n && exif[0] == 'M' };
    if (n < 8 || (memcmp(exif, "II*\0", 4) && memcmp(exif, "MM\0*", 4)))
        return false;
    size_t at = entry(&t, number(&t, 4, 4), EXIF_IFD);
    at = at ? entry(&t, number(&t, at + 8, 4), USER_COMMENT) : 0;
    if (!at)
        return false;
    size_t size = number(&t, at + 4, 4), where = number(&t, at + 8, 4);
    if (size < 8 || where > n || n - where < size)
        return false;
    const uint8_t *text = exif + where + 8;
    size -= 8;
    if (!memcmp(exif + where, "UNICODE\0", 8)) {
        utf16(text, size, out);
        return true;
    }
    if (memcmp(exif + where, "ASCII\0\0\0", 8) && memcmp(exif + where, "\0\0\0\0\0\0\0\0", 8))
        return false;
    kw_str copy = { 0 };
    kw_str_add_n(&copy, (const char *)text, size);
    const char *s = copy.failed ? "" : copy.s;
    for (uint32_t c; (c = kw__pic_utf8_get(&s));)
        kw__pic_utf8_put(out, c);
    kw_str_free(&copy);
    return true;
}

/* ---- where it lies -------------------------------------------------------------------------------------- */

static const uint8_t *in_jpeg(const uint8_t *d, size_t n, size_t *size)
{
    for (size_t at = 2; n - at >= 4 && d[at] == 0xff; ) {
        size_t length = (size_t)d[at + 2] << 8 | d[at + 3];
        if (d[at + 1] == 0xda || length < 2 || length > n - at - 2)
            return NULL;
        if (d[at + 1] == 0xe1 && length >= 8 && !memcmp(d + at + 4, "Exif\0\0", 6)) {
            *size = length - 8;
            return d + at + 10;
        }
        at += 2 + length;
    }
    return NULL;
}

static const uint8_t *in_webp(const uint8_t *d, size_t n, size_t *size)
{
    for (size_t at = 12; n - at >= 8; ) {
        size_t length = (size_t)d[at + 4] | (size_t)d[at + 5] << 8 | (size_t)d[at + 6] << 16 | (size_t)d[at + 7] << 24;
        if (length > n - at - 8)
            return NULL;
        if (!memcmp(d + at, "EXIF", 4)) {
            bool named = length >= 6 && !memcmp(d + at + 8, "Exif\0\0", 6);
            *size = length - (named ? 6 : 0);
            return d + at + 8 + (named ? 6 : 0);
        }
        if (length + (length & 1) > n - at - 8)
            return NULL;
        at += 8 + length + (length & 1);
    }
    return NULL;
}

const uint8_t *kw_exif_find(const uint8_t *data, size_t n, size_t *size)
{
    kw_picture_format f = kw_picture_sniff(data, n);
    return f == KW_PICTURE_JPEG ? in_jpeg(data, n, size) : f == KW_PICTURE_WEBP ? in_webp(data, n, size) : NULL;
}
