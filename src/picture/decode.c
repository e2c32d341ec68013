/*
 * decode.c - any allowed file to upright 8-bit sRGB, row by row.
 *
 *     bytes -> magic -> one loader of libvips (or bmp.c) -> size check -> rows -> colour.c -> turned into place
 *
 * Only the loader that the magic names is called: libvips never guesses. Its loaders for these five formats are inside
 * the library itself; plug-ins are not used.
 */
#include "internal.h"

#include <string.h>
#include <vips/vips.h>

#define STRIP 64                                /* rows decoded at a time */

typedef struct {
    VipsImage *image;
    uint8_t *pixels;                            /* of a BMP; the image looks at it */
    const void *profile;
    size_t profile_n;
    kw_colour colour;
    kw_picture_info info;
} source;

static void source_close(source *s)
{
    kw_colour_close(&s->colour);
    if (s->image)
        g_object_unref(s->image);
    kw_block_free(s->pixels);
}

static kw_status unknown_format(const uint8_t *data, size_t n, kw_err *e)
{
    static const struct { int at; const char *magic, *name; } others[] = {
        { 4, "ftypavif", "AVIF" }, { 4, "ftyphei", "HEIC" }, { 4, "ftypmif1", "HEIC" }, { 0, "\xff\x0a", "JPEG XL" },
        { 4, "JXL ", "JPEG XL" }, { 4, "jP  ", "JPEG 2000" }, { 0, "8BPS", "Photoshop" }, { 0, "%PDF", "PDF" },
        { 0, "<svg", "SVG" }, { 0, "<?xml", "XML" }, { 0, "<!DOCTYPE", "HTML" }, { 0, "<html", "HTML" },
        { 0, "PK\3\4", "zip" }, { 0, "\0\0\1\0", "icon" }, { 0, "qoif", "QOI" }, { 0, "\x76\x2f\x31\x01", "OpenEXR" },
    };
    for (size_t i = 0; i < KW_LEN(others); i++) {
        size_t m = strlen(others[i].magic) + (others[i].magic[0] ? 0 : 4), at = (size_t)others[i].at;
        if (n >= at + m && !memcmp(data + at, others[i].magic, m))
            return kw_advise(e, kw_fail(e, KW_EDATA, "a file of type %s, which is not read", others[i].name),
                             "convert it to PNG or JPEG");
    }
    return kw_advise(e, kw_fail(e, KW_EDATA, "not a picture of a known format"),
                     "JPEG, PNG, WebP, GIF, TIFF and BMP are read");
}

/* ---- opening: the header only, no pixels yet ---------------------------------------------------------- */

static kw_status open_bmp(source *s, const void *data, size_t n, kw_err *e)
{
    int w, h, bands;
    KW_TRY(kw_bmp_decode(data, n, &w, &h, &bands, &s->pixels, e));
    s->image = vips_image_new_from_memory(s->pixels, (size_t)w * (size_t)h * (size_t)bands, w, h, bands,
                                          VIPS_FORMAT_UCHAR);
    if (!s->image)
        return kw_vips_fail(e);
    s->image->Type = VIPS_INTERPRETATION_sRGB;
    return KW_OK;
}

static kw_status open_image(source *s, const void *data, size_t n, kw_err *e)
{
    static int (*const loaders[KW_PICTURE_N_FORMATS])(void *, size_t, VipsImage **, ...) = {
        [KW_PICTURE_JPEG] = vips_jpegload_buffer, [KW_PICTURE_PNG] = vips_pngload_buffer,
        [KW_PICTURE_WEBP] = vips_webpload_buffer, [KW_PICTURE_GIF] = vips_gifload_buffer,
        [KW_PICTURE_TIFF] = vips_tiffload_buffer,
    };
    s->info.format = kw_picture_sniff(data, n);
    if (s->info.format == KW_PICTURE_UNKNOWN)
        return unknown_format(data, n, e);
    if (s->info.format == KW_PICTURE_BMP)
        return open_bmp(s, data, n, e);
    void *bytes = (void *)(uintptr_t)data;                          /* the loaders only read */
    if (loaders[s->info.format](bytes, n, &s->image, "access", VIPS_ACCESS_SEQUENTIAL,
                                "fail_on", VIPS_FAIL_ON_ERROR, NULL))
        return kw_vips_fail(e);
    return KW_OK;
}

/* ---- what the header says ------------------------------------------------------------------------------- */

/* EXIF first, else XMP's tiff:Orientation, as Pillow's exif_transpose. */
static int orientation(VipsImage *image)
{
    const void *xmp;
    size_t n;
    static const char key[] = "tiff:Orientation";
    if (vips_image_get_typeof(image, VIPS_META_ORIENTATION))
        return vips_image_get_orientation(image);
    if (!vips_image_get_typeof(image, VIPS_META_XMP_NAME) || vips_image_get_blob(image, VIPS_META_XMP_NAME, &xmp, &n))
        return 1;
    const char *at = memmem(xmp, n, key, sizeof key - 1), *end = (const char *)xmp + n;
    if (!at)
        return 1;
    at += sizeof key - 1;
    at += at < end && *at == '>' ? 1 : 2;                           /* >6 or ="6 */
    return at < end && *at >= '1' && *at <= '8' ? *at - '0' : 1;
}

static kw_status samples(source *s, kw_err *e)
{
    VipsImage *im = s->image;
    kw_colour *c = &s->colour;
    c->bands = im->Bands;
    c->bits = im->BandFmt == VIPS_FORMAT_USHORT ? 16 : 8;
    if (im->BandFmt != VIPS_FORMAT_UCHAR && im->BandFmt != VIPS_FORMAT_USHORT)
        return kw_fail(e, KW_EDATA, "samples of type %s are not read",
                       vips_enum_nick(VIPS_TYPE_BAND_FORMAT, (int)im->BandFmt));
    bool known = im->Type == VIPS_INTERPRETATION_MULTIBAND || im->Type == VIPS_INTERPRETATION_B_W
        || im->Type == VIPS_INTERPRETATION_GREY16 || im->Type == VIPS_INTERPRETATION_sRGB
        || im->Type == VIPS_INTERPRETATION_RGB || im->Type == VIPS_INTERPRETATION_RGB16;
    bool cmyk = im->Type == VIPS_INTERPRETATION_CMYK;
    int colours = cmyk ? 4 : im->Bands < 3 ? 1 : 3;
    if ((!cmyk && !known) || im->Bands < colours || im->Bands > colours + 1)
        return kw_fail(e, KW_EDATA, "%d channels of colour space %s are not read", im->Bands,
                       vips_enum_nick(VIPS_TYPE_INTERPRETATION, (int)im->Type));
    c->kind = cmyk ? KW_SAMPLES_CMYK : colours == 1 ? KW_SAMPLES_GREY : KW_SAMPLES_RGB;
    s->info.notes |= (cmyk ? KW_NOTE_CMYK : 0u)
        | (colours == 1 ? KW_NOTE_GREY : 0u) | (c->bits == 16 ? KW_NOTE_DEPTH16 : 0u);
    return KW_OK;
}

static kw_status inspect(source *s, kw_err *e)
{
    VipsImage *im = s->image;
    kw_picture_info *info = &s->info;
    KW_TRY(samples(s, e));
    info->file_w = im->Xsize;
    info->file_h = im->Ysize;
    info->channels = im->Bands;
    info->bits = s->colour.bits;
    info->frames = KW_MAX(1, vips_image_get_n_pages(im));
    info->orientation = orientation(im);
    info->notes |= (info->frames > 1 ? KW_NOTE_FRAMES : 0u) | (info->orientation > 1 ? KW_NOTE_ORIENTED : 0u);
    if (vips_image_get_typeof(im, VIPS_META_ICC_NAME)
        && vips_image_get_blob(im, VIPS_META_ICC_NAME, &s->profile, &s->profile_n))
        s->profile_n = 0;
    vips_error_clear();
    return kw_check_size(im->Xsize, im->Ysize, KW_MAX(3, im->Bands * s->colour.bits / 8), e);
}

/* ---- pixels ------------------------------------------------------------------------------------------------ */

/* Where pixel (x, y) of the file lies in the upright picture: base + x*step_x + y*step_y, counted in pixels. */
typedef struct { int64_t base, step_x, step_y; } placing;

static placing place(int orientation_, int64_t w, int64_t h)
{
    switch (orientation_) {
    case 2: return (placing){ w - 1, -1, w };                       /* mirrored */
    case 3: return (placing){ w * h - 1, -1, -w };                  /* upside down */
    case 4: return (placing){ w * (h - 1), 1, -w };
    case 5: return (placing){ 0, h, 1 };                            /* transposed */
    case 6: return (placing){ h - 1, h, -1 };                       /* to be turned right */
    case 7: return (placing){ w * h - 1, -h, -1 };
    case 8: return (placing){ h * (w - 1), -h, 1 };                 /* to be turned left */
    default: return (placing){ 0, 1, w };
    }
}

static void put_row(kw_picture *p, const source *s, int y, const void *row, uint8_t *rgb)
{
    int w = s->info.file_w;
    placing at = place(s->info.orientation, w, s->info.file_h);
    int64_t start = at.base + y * at.step_y;
    if (at.step_x == 1) {
        if (kw_colour_row(&s->colour, row, w, p->rgb + start * 3))
            p->info.notes |= KW_NOTE_ALPHA;
        return;
    }
    if (kw_colour_row(&s->colour, row, w, rgb))
        p->info.notes |= KW_NOTE_ALPHA;
    for (int x = 0; x < w; x++)
        memcpy(p->rgb + (start + x * at.step_x) * 3, rgb + x * 3, 3);
}

static kw_status rows(source *s, kw_picture *p, uint8_t *rgb, kw_err *e)
{
    VipsRegion *region = vips_region_new(s->image);
    kw_status status = region ? KW_OK : kw_vips_fail(e);
    int w = s->info.file_w, h = s->info.file_h;
    for (int top = 0; top < h && !status; top += STRIP) {
        VipsRect strip = { 0, top, w, KW_MIN(STRIP, h - top) };
        if (vips_region_prepare(region, &strip)) {
            status = kw_vips_fail(e);
            break;
        }
        for (int y = top; y < top + strip.height; y++)
            put_row(p, s, y, VIPS_REGION_ADDR(region, 0, y), rgb);
    }
    if (region)
        g_object_unref(region);
    return status;
}

static kw_status convert(source *s, const void *data, size_t n, const uint8_t background[3], kw_picture *p, kw_err *e)
{
    KW_TRY(open_image(s, data, n, e));
    KW_TRY(inspect(s, e));
    memcpy(s->colour.background, background, 3);
    KW_TRY(kw_colour_open(&s->colour, s->info.file_w, s->profile, s->profile_n, &s->info, e));
    bool turned = s->info.orientation >= 5;
    KW_TRY(kw_picture_new(turned ? s->info.file_h : s->info.file_w, turned ? s->info.file_w : s->info.file_h, p, e));
    p->info = s->info;
    uint8_t *rgb = kw_block_new((size_t)s->info.file_w * 3);
    kw_status status = rgb ? rows(s, p, rgb, e) : kw_fail(e, KW_ENOMEM, "no memory for a row");
    kw_block_free(rgb);
    return status;
}

kw_status kw_decode_bytes(const void *data, size_t n, const uint8_t background[3], kw_picture *p, kw_err *e)
{
    *p = (kw_picture){ 0 };
    if (!n)
        return kw_fail(e, KW_EDATA, "the file is empty");
    KW_TRY(kw_vips_start(e));
    source s = { 0 };
    kw_vips_lock();
    kw_status status = convert(&s, data, n, background, p, e);
    source_close(&s);
    vips_error_clear();
    vips_thread_shutdown();                     /* this thread's buffers; they come again when needed */
    kw_vips_unlock();
    if (status)
        kw_picture_free(p);
    return status;
}

kw_status kw_name_error(kw_status s, const char *name, const kw_err *reason, kw_err *e)
{
    s = kw_fail(e, s, "%s: %s", name, reason->what);
    return reason->advice[0] ? kw_advise(e, s, "%s", reason->advice) : s;
}

kw_status kw_picture_decode(const void *data, size_t n, const char *name, const uint8_t background[3],
                            kw_picture *p, kw_err *e)
{
    kw_err why = { 0 };
    kw_status s = kw_decode_bytes(data, n, background, p, &why);
    if (s)
        return kw_name_error(s, name, &why, e);
    kw_picture_format claimed = kw_picture_named(name);
    if (claimed && claimed != p->info.format)
        p->info.notes |= KW_NOTE_NAME;
    return KW_OK;
}
