/*
 * lossy.c - writing JPEG and WebP in memory, with one text in EXIF. The library makes the pixels' part, without any
 * metadata; the EXIF block is put in here, so that it is byte for byte what we say.
 *
 *   JPEG   SOI | APP0 | APP1 "Exif\0\0" block | ...            ITU-T T.81, EXIF 2.32
 *   WebP   RIFF | VP8X (EXIF flag, size) | VP8 or VP8L | EXIF block      RFC 9649
 *   block  "MM\0*" 8 | IFD0: ExifIFD -> IFD: UserComment -> "UNICODE\0" UTF-16BE
 */
#include "internal.h"

#include <string.h>
#include <vips/vips.h>

enum { HEAD = 8 + 2 + 12 + 4 + 2 + 12 + 4, LOSSLESS = 101, WEBP_SIDE = 16383, SEGMENT = 65533 };

static void be(kw_str *out, uint32_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        kw_str_add_n(out, (const char[]){ (char)(v >> 8 * i) }, 1);
}

static void le(kw_str *out, uint32_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        kw_str_add_n(out, (const char[]){ (char)(v >> 8 * i) }, 1);
}

/* A directory of one entry, and no further one. */
static void directory(kw_str *out, uint32_t tag, uint32_t type, uint32_t count, uint32_t value)
{
    be(out, 1, 2);
    be(out, tag, 2);
    be(out, type, 2);
    be(out, count, 4);
    be(out, value, 4);
    be(out, 0, 4);
}

static void exif_block(const char *text, kw_str *out)
{
    kw_str utf16 = { 0 };
    kw_str_add_n(&utf16, "UNICODE", 8);
    for (uint32_t c; (c = kw__pic_utf8_get(&text));) {
        if (c >= 0x10000)
            be(&utf16, 0xd800 + ((c - 0x10000) >> 10), 2);
        be(&utf16, c >= 0x10000 ? 0xdc00 + ((c - 0x10000) & 0x3ff) : c, 2);
    }
    kw_str_add_n(out, "MM\0*\0\0\0\10", 8);
    directory(out, 0x8769, 4, 1, 8 + 18);                           /* LONG: the EXIF directory */
    directory(out, 0x9286, 7, (uint32_t)utf16.n, HEAD);             /* UNDEFINED: UserComment */
    kw_str_add_n(out, utf16.s, utf16.n);
    out->failed |= utf16.failed;
    kw_str_free(&utf16);
}

/* ---- where it goes ---------------------------------------------------------------------------------------------- */

static kw_status into_jpeg(const uint8_t *d, size_t n, const kw_str *exif, kw_str *out, kw_err *e)
{
    size_t at = 2;
    if (exif->n + 8 > SEGMENT)
        return kw_advise(e, kw_fail(e, KW_EDATA, "a JPEG holds no text of %zu bytes", exif->n), "write a PNG");
    if (n >= 6 && d[2] == 0xff && d[3] == 0xe0)                     /* APP0 stays the first */
        at += 2 + ((size_t)d[4] << 8 | d[5]);
    if (at > n)
        return kw_fail(e, KW_EDATA, "the JPEG that was written is damaged");
    kw_str_add_n(out, (const char *)d, at);
    be(out, 0xffe1, 2);
    be(out, (uint32_t)exif->n + 8, 2);
    kw_str_add_n(out, "Exif\0", 6);
    kw_str_add_n(out, exif->s, exif->n);
    kw_str_add_n(out, (const char *)d + at, n - at);
    return KW_OK;
}

/* The chunk of the pixels, whatever stands around it. */
static kw_status into_webp(const uint8_t *d, size_t n, const kw_picture *p, const kw_str *exif, kw_str *out, kw_err *e)
{
    kw_str body = { 0 };
    for (size_t at = 12; n >= 8 && at <= n - 8;) {
        size_t length = (size_t)d[at + 4] | (size_t)d[at + 5] << 8 | (size_t)d[at + 6] << 16 | (size_t)d[at + 7] << 24;
        size_t all = 8 + length + (length & 1);
        if (length > n - at - 8)
            break;
        if (!memcmp(d + at, "VP8 ", 4) || !memcmp(d + at, "VP8L", 4))
            kw_str_add_n(&body, (const char *)d + at, KW_MIN(all, n - at));
        at += all;
    }
    kw_status s = body.n ? KW_OK : kw_fail(e, KW_EDATA, "the WebP that was written is damaged");
    kw_str_add_n(out, "RIFF", 4);
    le(out, (uint32_t)(4 + 18 + body.n + 8 + exif->n + (exif->n & 1)), 4);
    kw_str_add_n(out, "WEBPVP8X", 8);
    le(out, 10, 4);
    le(out, 0x08, 4);                                               /* has EXIF */
    le(out, (uint32_t)p->w - 1, 3);
    le(out, (uint32_t)p->h - 1, 3);
    kw_str_add_n(out, body.s ? body.s : "", body.n);
    kw_str_add_n(out, "EXIF", 4);
    le(out, (uint32_t)exif->n, 4);
    kw_str_add_n(out, exif->s, exif->n);
    kw_str_add_n(out, "", exif->n & 1);
    out->failed |= body.failed;
    kw_str_free(&body);
    return s;
}

/* ---- pixels ----------------------------------------------------------------------------------------------------- */

static kw_status pixels(const kw_picture *p, kw_picture_format f, int quality, void **data, size_t *n, kw_err *e)
{
    VipsImage *image = vips_image_new_from_memory(p->rgb, (size_t)p->w * (size_t)p->h * 3, p->w, p->h, 3,
                                                  VIPS_FORMAT_UCHAR);
    if (!image)
        return kw_vips_fail(e);
    image->Type = VIPS_INTERPRETATION_sRGB;
    int bad = f == KW_PICTURE_JPEG
        ? vips_jpegsave_buffer(image, data, n, "Q", KW_MIN(quality, 100), "strip", TRUE, "optimize_coding", TRUE, NULL)
        : vips_webpsave_buffer(image, data, n, "Q", KW_MIN(quality, 100), "lossless", quality == LOSSLESS, "strip",
                               TRUE, NULL);
    g_object_unref(image);
    return bad ? kw_vips_fail(e) : KW_OK;
}

static kw_status encode(const kw_picture *p, kw_picture_format f, int quality, const kw_str *exif, kw_str *out,
                        kw_err *e)
{
    void *data = NULL;
    size_t n = 0;
    KW_TRY(pixels(p, f, quality, &data, &n, e));
    kw_status s = KW_OK;
    if (!exif->n)
        kw_str_add_n(out, data, n);
    else
        s = f == KW_PICTURE_JPEG ? into_jpeg(data, n, exif, out, e) : into_webp(data, n, p, exif, out, e);
    g_free(data);
    return s;
}

kw_status kw_lossy_encode(const kw_picture *p, kw_picture_format f, int quality, const char *comment, kw_str *out,
                          kw_err *e)
{
    kw_str exif = { 0 };
    KW_ASSERT(f == KW_PICTURE_JPEG || f == KW_PICTURE_WEBP);
    if (f == KW_PICTURE_WEBP && (p->w > WEBP_SIDE || p->h > WEBP_SIDE))
        return kw_fail(e, KW_EDATA, "%d x %d pixels: a WebP has at most %d a side", p->w, p->h, WEBP_SIDE);
    KW_TRY(kw_vips_start(e));
    if (comment && *comment)
        exif_block(comment, &exif);
    kw_vips_lock();
    kw_status s = exif.failed ? kw_fail(e, KW_ENOMEM, "out of memory") : encode(p, f, quality, &exif, out, e);
    vips_error_clear();
    vips_thread_shutdown();
    kw_vips_unlock();
    kw_str_free(&exif);
    return s || !out->failed ? s : kw_fail(e, KW_ENOMEM, "out of memory");
}
