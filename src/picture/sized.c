/*
 * sized.c - a picture into a canvas of another shape: stretched, cropped, or with its borders continued.
 *
 *   cover    w'/h' = picture's, both at least the canvas; the middle stays        (A1111's whole-number arithmetic)
 *   fill     both at most the canvas; the first and the last row (column) fill what is left
 */
#include "internal.h"

#include <string.h>

kw_status kw_picture_crop(const kw_picture *p, int x, int y, int w, int h, kw_picture *out, kw_err *e)
{
    *out = (kw_picture){ 0 };
    if (x < 0 || y < 0 || w < 1 || h < 1 || x > p->w - w || y > p->h - h)
        return kw_fail(e, KW_EUSAGE, "a part of %dx%d at %d,%d is not inside %dx%d", w, h, x, y, p->w, p->h);
    KW_TRY(kw_picture_new(w, h, out, e));
    out->info = p->info;
    kw_picture_paste(out, p, -x, -y);
    return KW_OK;
}

/* Pixel (x, y) of `to` becomes pixel (fx, fy) of `from`. */
static void copy_pixel(kw_picture *to, int x, int y, const kw_picture *from, int fx, int fy)
{
    memcpy(to->rgb + ((size_t)y * (size_t)to->w + (size_t)x) * 3,
           from->rgb + ((size_t)fy * (size_t)from->w + (size_t)fx) * 3, 3);
}

/* What lies outside of p, pasted at (left, top), takes its nearest pixel. */
static void continue_borders(kw_picture *out, const kw_picture *p, int left, int top)
{
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++)
            if (x < left || y < top || x >= left + p->w || y >= top + p->h)
                copy_pixel(out, x, y, p, KW_MAX(0, KW_MIN(x - left, p->w - 1)), KW_MAX(0, KW_MIN(y - top, p->h - 1)));
}

kw_status kw_picture_sized(const kw_picture *p, kw_sized mode, int w, int h, kw_picture *out, kw_err *e)
{
    if (mode == KW_SIZED_STRETCH)
        return kw_picture_scale(p, KW_FILTER_LANCZOS, w, h, out, e);
    double shape = (double)w / h, has = (double)p->w / p->h;
    bool full_width = mode == KW_SIZED_CROP ? shape > has : shape < has;
    bool full_height = mode == KW_SIZED_CROP ? shape <= has : shape >= has;
    int tw = full_width ? w : (int)((int64_t)p->w * h / p->h), th = full_height ? h : (int)((int64_t)p->h * w / p->w);
    kw_picture part;
    KW_TRY(kw_picture_scale(p, KW_FILTER_LANCZOS, KW_MAX(tw, 1), KW_MAX(th, 1), &part, e));
    kw_status s = kw_picture_new(w, h, out, e);
    if (!s) {
        int left = w / 2 - part.w / 2, top = h / 2 - part.h / 2;
        out->info = p->info;
        kw_picture_paste(out, &part, left, top);
        if (mode == KW_SIZED_FILL)
            continue_borders(out, &part, left, top);
    }
    kw_picture_free(&part);
    return s;
}
