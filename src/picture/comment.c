/*
 * comment.c - reading the texts of a PNG back. Text chunks may stand before or after the pixels; we copy them into a
 * PNG of one pixel's header and let libpng, with its limits, unpack that.
 */
#include "internal.h"

#include <png.h>
#include <string.h>

#define TEXT_MAX (8u << 20)                     /* unpacked, per chunk */

typedef struct { const char *data; size_t n, at; } reader;

static void read_bytes(png_structp png, png_bytep to, size_t n)
{
    reader *r = png_get_io_ptr(png);
    if (n > r->n - r->at)
        png_error(png, "end");
    memcpy(to, r->data + r->at, n);
    r->at += n;
}

static void on_error(png_structp png, const char *what)
{
    (void)what;
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, const char *what) { (void)png, (void)what; }

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Signature, IHDR and all text chunks of data, then an empty IDAT. */
static void copy_texts(const uint8_t *data, size_t n, kw_str *out)
{
    static const char idat[] = "\0\0\0\0IDAT\x35\xaf\x06\x1e";
    kw_str_add_n(out, (const char *)data, 8);
    for (size_t at = 8; n - at >= 12;) {
        size_t length = be32(data + at);
        const uint8_t *kind = data + at + 4;
        if (length > n - at - 12)
            break;
        bool text = !memcmp(kind, "tEXt", 4) || !memcmp(kind, "zTXt", 4) || !memcmp(kind, "iTXt", 4);
        if (text || !memcmp(kind, "IHDR", 4))
            kw_str_add_n(out, (const char *)data + at, length + 12);
        at += length + 12;
    }
    kw_str_add_n(out, idat, 12);
}

static void take(const png_text *t, kw_str *out)
{
    bool utf8 = t->compression == PNG_ITXT_COMPRESSION_NONE || t->compression == PNG_ITXT_COMPRESSION_zTXt;
    const char *s = t->text ? t->text : "";
    if (utf8)
        for (uint32_t c; (c = kw__pic_utf8_get(&s));)
            kw__pic_utf8_put(out, c);
    else
        for (; *s; s++)
            kw__pic_utf8_put(out, (uint8_t)*s);
}

/* False when the chunks cannot be read. */
static bool read_texts(reader *r, const char *key, kw_str *out, bool *found)
{
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_read_struct(&png, &info, NULL);
        return false;
    }
    png_textp texts;
    int n = 0;
    png_set_read_fn(png, r, read_bytes);
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff);
    png_set_chunk_malloc_max(png, TEXT_MAX);
    png_set_crc_action(png, PNG_CRC_QUIET_USE, PNG_CRC_WARN_DISCARD);
    png_read_info(png, info);
    png_get_text(png, info, &texts, &n);
    for (int i = 0; i < n && !*found; i++)
        if (!strcmp(texts[i].key, key)) {
            take(&texts[i], out);
            *found = true;
        }
    png_destroy_read_struct(&png, &info, NULL);
    return true;
}

kw_status kw_picture_text(const void *data, size_t n, const char *key, kw_str *out, bool *found, kw_err *e)
{
    kw_str small = { 0 };
    *found = false;
    if (kw_picture_sniff(data, n) == KW_PICTURE_PNG) {
        copy_texts(data, n, &small);
        if (!small.failed)
            read_texts(&(reader){ small.s, small.n, 0 }, key, out, found);
    } else if (!strcmp(key, "parameters")) {
        size_t size = 0;
        const uint8_t *exif = kw_exif_find(data, n, &size);
        *found = exif && kw_exif_comment(exif, size, out);
    }
    bool failed = small.failed || out->failed;
    kw_str_free(&small);
    return failed ? kw_fail(e, KW_ENOMEM, "no memory for the texts of a picture") : KW_OK;
}
