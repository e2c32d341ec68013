/*
 * bmp.c - Windows bitmaps, which libvips reads only through ImageMagick: 1, 2, 4, 8 bits with palette (RLE too), 16,
 * 24, 32 bits with masks. As Pillow: 32 bits without masks have no alpha; five bits v become v*255/31.
 * Format: "Bitmap Storage", Microsoft Win32 documentation; OS/2 1.x headers (12 bytes) too.
 */
#include "internal.h"

#include <string.h>

enum { RGB = 0, RLE8 = 1, RLE4 = 2, BITFIELDS = 3, ALPHABITFIELDS = 6 };

typedef struct {
    const uint8_t *data;
    size_t n;
    int w, h, bits;
    bool top_down;
    uint32_t compression, masks[4];             /* red, green, blue, alpha */
    uint8_t palette[256][3];
    size_t pixels;                              /* where they start */
} bmp;

static uint32_t u16(const uint8_t *p) { return (uint32_t)(p[0] | p[1] << 8); }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }

static kw_status damaged(kw_err *e, const char *what) { return kw_fail(e, KW_EDATA, "damaged BMP: %s", what); }

/* ---- header -------------------------------------------------------------------------------------------- */

static void default_masks(bmp *b)
{
    static const uint32_t five[4] = { 0x7c00, 0x3e0, 0x1f, 0 }, eight[4] = { 0xff0000, 0xff00, 0xff, 0 };
    memcpy(b->masks, b->bits == 16 ? five : eight, sizeof b->masks);
}

static kw_status palette(bmp *b, size_t at, size_t entry, uint32_t used, kw_err *e)
{
    uint32_t most = 1u << b->bits;
    uint32_t count = used && used < most ? used : most;
    if (at > b->n)
        return damaged(e, "no palette");
    for (uint32_t i = 0; i < count && at + entry <= b->n; i++, at += entry)
        for (int k = 0; k < 3; k++)
            b->palette[i][k] = b->data[at + 2 - (size_t)k];
    return KW_OK;
}

/* BITMAPINFOHEADER and its longer heirs; masks stand inside from 52 bytes on, behind a 40-byte header otherwise. */
static kw_status info_header(bmp *b, uint32_t size, kw_err *e)
{
    const uint8_t *d = b->data;
    if (size < 40 || size > 124 || b->n < 14 + (size_t)size)
        return damaged(e, "header");
    int64_t w = (int32_t)u32(d + 18), h = (int32_t)u32(d + 22);
    b->top_down = h < 0;
    b->bits = (int)u16(d + 28);
    b->compression = u32(d + 30);
    KW_TRY(kw_check_size((double)w, (double)(h < 0 ? -h : h), 4, e));
    b->w = (int)w;
    b->h = (int)(h < 0 ? -h : h);
    default_masks(b);
    size_t table = 14 + (size_t)size;
    if (b->compression == BITFIELDS || b->compression == ALPHABITFIELDS) {
        int masks = size >= 56 || b->compression == ALPHABITFIELDS ? 4 : 3;
        if (b->n < 54 + 4 * (size_t)masks)
            return damaged(e, "no colour masks");
        for (int k = 0; k < masks; k++)
            b->masks[k] = u32(d + 54 + 4 * k);
        table += size == 40 ? 4 * (size_t)masks : 0;
    }
    return b->bits <= 8 ? palette(b, table, 4, u32(d + 46), e) : KW_OK;
}

static kw_status header(bmp *b, kw_err *e)
{
    if (b->n < 26)
        return damaged(e, "header");
    b->pixels = u32(b->data + 10);
    uint32_t size = u32(b->data + 14);
    if (size == 12) {
        b->bits = (int)u16(b->data + 24);
        b->w = (int)u16(b->data + 18);
        b->h = (int)u16(b->data + 20);
        KW_TRY(kw_check_size(b->w, b->h, 4, e));
        default_masks(b);
        if (b->bits <= 8)
            KW_TRY(palette(b, 26, 3, 0, e));
    } else {
        KW_TRY(info_header(b, size, e));
    }
    static const uint64_t bits = 1u << 1 | 1u << 2 | 1u << 4 | 1u << 8 | 1u << 16 | 1u << 24 | (uint64_t)1 << 32;
    if (b->bits > 32 || !(bits >> b->bits & 1))
        return kw_fail(e, KW_EDATA, "BMP with %d bits per pixel is not read", b->bits);
    bool masked = b->compression == BITFIELDS || b->compression == ALPHABITFIELDS;
    bool fits = b->compression == RGB || (b->compression == RLE8 && b->bits == 8)
        || (b->compression == RLE4 && b->bits == 4) || (masked && (b->bits == 16 || b->bits == 32));
    return fits ? KW_OK : kw_fail(e, KW_EDATA, "BMP with compression %u is not read", b->compression);
}

/* ---- pixels ---------------------------------------------------------------------------------------------- */

static uint8_t *row_of(const bmp *b, uint8_t *out, int y, int bands)
{
    return out + (size_t)(b->top_down ? y : b->h - 1 - y) * (size_t)b->w * (size_t)bands;
}

static uint8_t masked(uint32_t v, uint32_t mask)
{
    if (!mask)
        return 0;
    int low = __builtin_ctz(mask);
    return (uint8_t)((uint64_t)((v & mask) >> low) * 255 / (mask >> low));
}

static void direct_row(const bmp *b, const uint8_t *s, uint8_t *row, int bands)
{
    int step = b->bits / 8;
    for (int x = 0; x < b->w; x++, s += step) {
        uint32_t v = step == 2 ? u16(s) : step == 3 ? u16(s) | (uint32_t)s[2] << 16 : u32(s);
        for (int k = 0; k < bands; k++)
            *row++ = masked(v, b->masks[k]);
    }
}

static void index_row(const bmp *b, const uint8_t *s, uint8_t *row)
{
    for (int x = 0; x < b->w; x++) {
        int bit = x * b->bits;
        int shift = 8 - b->bits - bit % 8;
        memcpy(row + x * 3, b->palette[s[bit / 8] >> shift & ((1 << b->bits) - 1)], 3);
    }
}

static kw_status plain(const bmp *b, uint8_t *out, int bands, kw_err *e)
{
    size_t stride = ((size_t)b->w * (size_t)b->bits + 31) / 32 * 4;
    if (b->pixels > b->n || (b->n - b->pixels) / stride < (size_t)b->h)
        return damaged(e, "the file is cut short");
    for (int y = 0; y < b->h; y++) {
        const uint8_t *s = b->data + b->pixels + stride * (size_t)y;
        if (b->bits <= 8)
            index_row(b, s, row_of(b, out, y, bands));
        else
            direct_row(b, s, row_of(b, out, y, bands), bands);
    }
    return KW_OK;
}

typedef struct { int x, y; } pen;

/* count pixels from values: one value again and again, or packed ones when given. What leaves the row is dropped. */
static void put_run(const bmp *b, uint8_t *out, pen *at, int count, const uint8_t *values, bool given)
{
    uint8_t *row = row_of(b, out, at->y, 3);
    for (int i = 0; i < count && at->x < b->w; i++, at->x++) {
        int index = b->bits == 8 ? values[given ? i : 0] : values[given ? i / 2 : 0] >> (i % 2 ? 0 : 4) & 15;
        memcpy(row + (size_t)at->x * 3, b->palette[index], 3);
    }
}

/* Runs: (count, value); escapes: (0,0) end of line, (0,1) end, (0,2,dx,dy) move, (0,k,values...) k given ones. */
static kw_status runs(const bmp *b, uint8_t *out, kw_err *e)
{
    const uint8_t *s = b->data + KW_MIN(b->pixels, b->n), *end = b->data + b->n;
    pen at = { 0, 0 };
    for (size_t i = 0, n = (size_t)b->h * (size_t)b->w; i < n; i++)     /* what no run covers has colour 0 */
        memcpy(out + i * 3, b->palette[0], 3);
    while (end - s >= 2 && at.y < b->h) {
        int count = s[0], value = s[1];
        s += 2;
        if (count) {
            put_run(b, out, &at, count, s - 1, false);
        } else if (value == 0) {
            at = (pen){ 0, at.y + 1 };
        } else if (value == 1) {
            return KW_OK;
        } else if (value == 2) {
            if (end - s < 2)
                break;
            at = (pen){ KW_MIN(at.x + s[0], b->w), at.y + s[1] };
            s += 2;
        } else {
            int bytes = b->bits == 8 ? value : (value + 1) / 2;
            if (end - s < bytes)
                break;
            put_run(b, out, &at, value, s, true);
            s += KW_MIN(end - s, (bytes + 1) / 2 * 2);
        }
    }
    return at.y >= b->h ? KW_OK : damaged(e, "the file is cut short");
}

kw_status kw_bmp_decode(const uint8_t *data, size_t n, int *w, int *h, int *bands, uint8_t **pixels, kw_err *e)
{
    bmp b = { .data = data, .n = n };
    KW_TRY(header(&b, e));
    *w = b.w;
    *h = b.h;
    *bands = b.bits == 32 && b.masks[3] ? 4 : 3;
    bool coded = b.compression == RLE8 || b.compression == RLE4;
    *pixels = kw_block_new((size_t)b.w * (size_t)b.h * (size_t)*bands);
    if (!*pixels)
        return kw_fail(e, KW_ENOMEM, "no memory for a picture of %dx%d", b.w, b.h);
    kw_status s = coded ? runs(&b, *pixels, e) : plain(&b, *pixels, *bands, e);
    if (s) {
        kw_block_free(*pixels);
        *pixels = NULL;
    }
    return s;
}
