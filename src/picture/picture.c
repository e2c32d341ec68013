/* picture.c - pictures as blocks of memory, and what is said about them. */
#include "internal.h"

#include <string.h>
#include <strings.h>

const uint8_t kw_picture_white[3] = { 255, 255, 255 };

kw_status kw_picture_new(int w, int h, kw_picture *p, kw_err *e)
{
    *p = (kw_picture){ 0 };
    KW_TRY(kw_check_size(w, h, 3, e));
    p->rgb = kw_block_new((size_t)w * (size_t)h * 3);
    if (!p->rgb)
        return kw_fail(e, KW_ENOMEM, "no memory for a picture of %dx%d", w, h);
    p->w = w;
    p->h = h;
    p->info.orientation = p->info.frames = 1;
    return KW_OK;
}

void kw_picture_free(kw_picture *p)
{
    if (!p)
        return;
    kw_block_free(p->rgb);
    *p = (kw_picture){ 0 };
}

kw_status kw_check_size(double w, double h, double bytes_per_pixel, kw_err *e)
{
    if (w < 1 || h < 1)
        return kw_fail(e, KW_EDATA, "a picture of %.0fx%.0f pixels", w, h);
    if (w > KW_PICTURE_MAX_SIDE || h > KW_PICTURE_MAX_SIDE || w * h > KW_PICTURE_MAX_PIXELS)
        return kw_fail(e, KW_EDATA, "%.0fx%.0f pixels is more than the limit of %d per side and %d million in all",
                       w, h, KW_PICTURE_MAX_SIDE, KW_PICTURE_MAX_PIXELS / 1000000);
    if (w * h * bytes_per_pixel > KW_PICTURE_MAX_BYTES)
        return kw_fail(e, KW_EDATA, "%.0fx%.0f pixels need %.0f MiB decoded, more than the limit of %u",
                       w, h, w * h * bytes_per_pixel / (1 << 20), KW_PICTURE_MAX_BYTES >> 20);
    return KW_OK;
}

void kw_picture_paste(kw_picture *p, const kw_picture *src, int x, int y)
{
    int left = KW_MAX(0, -x), top = KW_MAX(0, -y);
    int right = KW_MIN(src->w, p->w - x), bottom = KW_MIN(src->h, p->h - y);
    for (int row = top; row < bottom && left < right; row++)
        memcpy(p->rgb + ((size_t)(y + row) * (size_t)p->w + (size_t)(x + left)) * 3,
               src->rgb + ((size_t)row * (size_t)src->w + (size_t)left) * 3, (size_t)(right - left) * 3);
}

/* ---- names and notes ---------------------------------------------------------------------------------- */

const char *kw_picture_format_name(kw_picture_format f)
{
    static const char *const names[] = {
#define X(name, text) text,
        KW_PICTURE_FORMAT_MAP(X)
#undef X
    };
    return (unsigned)f < KW_LEN(names) ? names[f] : names[0];
}

const char *kw_picture_note_text(kw_picture_note_bit bit)
{
    static const char *const texts[] = {
#define X(name, text) text,
        KW_PICTURE_NOTE_MAP(X)
#undef X
    };
    return (unsigned)bit < KW_LEN(texts) ? texts[bit] : "";
}

void kw_picture_notes(const kw_picture_info *info, kw_str *out)
{
    const char *between = "";
    for (int bit = 0; bit < KW_N_NOTES; bit++)
        if (info->notes >> bit & 1) {
            kw_str_add(out, between);
            kw_str_add(out, kw_translate(kw_picture_note_text((kw_picture_note_bit)bit)));
            between = "; ";
        }
}

kw_picture_format kw_picture_sniff(const void *data, size_t n)
{
    static const struct { const char *magic; uint8_t n; kw_picture_format format; } known[] = {
        { "\xff\xd8\xff", 3, KW_PICTURE_JPEG }, { "\x89PNG\r\n\x1a\n", 8, KW_PICTURE_PNG },
        { "GIF87a", 6, KW_PICTURE_GIF }, { "GIF89a", 6, KW_PICTURE_GIF },
        { "II*\0", 4, KW_PICTURE_TIFF }, { "MM\0*", 4, KW_PICTURE_TIFF }, { "BM", 2, KW_PICTURE_BMP },
    };
    for (size_t i = 0; i < KW_LEN(known); i++)
        if (n >= known[i].n && !memcmp(data, known[i].magic, known[i].n))
            return known[i].format;
    if (n >= 12 && !memcmp(data, "RIFF", 4) && !memcmp((const char *)data + 8, "WEBP", 4))
        return KW_PICTURE_WEBP;
    return KW_PICTURE_UNKNOWN;
}

kw_picture_format kw_picture_named(const char *path)
{
    static const struct { const char *tail; kw_picture_format format; } known[] = {
        { ".jpg", KW_PICTURE_JPEG }, { ".jpeg", KW_PICTURE_JPEG }, { ".jpe", KW_PICTURE_JPEG },
        { ".jfif", KW_PICTURE_JPEG }, { ".png", KW_PICTURE_PNG }, { ".apng", KW_PICTURE_PNG },
        { ".webp", KW_PICTURE_WEBP }, { ".gif", KW_PICTURE_GIF }, { ".tif", KW_PICTURE_TIFF },
        { ".tiff", KW_PICTURE_TIFF }, { ".bmp", KW_PICTURE_BMP }, { ".dib", KW_PICTURE_BMP },
    };
    size_t n = strlen(path);
    for (size_t i = 0; i < KW_LEN(known); i++) {
        size_t m = strlen(known[i].tail);
        if (n > m && !strcasecmp(path + n - m, known[i].tail))     /* ASCII letters only, in any locale */
            return known[i].format;
    }
    return KW_PICTURE_UNKNOWN;
}
