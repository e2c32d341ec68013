/*
 * paint.h - painting over a picture: sizes, masks, putting the painted part back. The rules are A1111's
 * (modules/images.py, masking.py, processing.py), so that its settings mean the same here.
 *
 *     KW_TRY(kw_picture_sized(&init, KW_SIZED_CROP, 512, 512, &canvas, e));
 *     kw_mask_blur(&mask, 4, e);  kw_mask_box(&mask, 32, box);  kw_mask_box_grow(box, 512, 512, init.w, init.h);
 *     ... the canvas is painted ...
 *     kw_picture_over(&painted, &canvas, &mask);                           canvas where the mask is black
 *
 * A mask is a picture with three equal channels: white (255) is painted anew, black (0) stays.
 */
#ifndef KW_PICTURE_PAINT_H
#define KW_PICTURE_PAINT_H

#include "picture.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

typedef enum { KW_FILTER_LANCZOS, KW_FILTER_BICUBIC, KW_FILTER_BILINEAR, KW_FILTER_NEAREST } kw_filter;

/* To w x h with one of Pillow's filters, the same bits, whichever way; equal size = copy. */
KW_MUST kw_status kw_picture_scale(const kw_picture *p, kw_filter f, int w, int h, kw_picture *out, kw_err *e);

/*
 * STRETCH: "Just resize"; CROP: covers w x h, what sticks out at two sides is cut; FILL: fits into w x h, the rest
 * continues the border rows or columns. Lanczos.
 */
typedef enum { KW_SIZED_STRETCH, KW_SIZED_CROP, KW_SIZED_FILL } kw_sized;
KW_MUST kw_status kw_picture_sized(const kw_picture *p, kw_sized mode, int w, int h, kw_picture *out, kw_err *e);

/* The part from (x, y), which must lie inside. */
KW_MUST kw_status kw_picture_crop(const kw_picture *p, int x, int y, int w, int h, kw_picture *out, kw_err *e);

/* ---- masks ------------------------------------------------------------------------------------------------------- */

/* Grey of each pixel, ITU-R 601 in Pillow's whole numbers, in place. */
void kw_mask_grey(kw_picture *p);
/* The same picture decoded over black and over white -> white where it is transparent; false when it nowhere is. */
bool kw_mask_clear(const kw_picture *black, const kw_picture *white, kw_picture *mask);
void kw_mask_round(kw_picture *mask);           /* above 128 white, else black: A1111's rounding of an alpha mask */
void kw_mask_invert(kw_picture *mask);
/* Gaussian of so many px, cut at 2.5 of them, the border mirrored (OpenCV's); in place. 0: nothing. */
KW_MUST kw_status kw_mask_blur(kw_picture *mask, double sigma, kw_err *e);
void kw_mask_double(kw_picture *mask);          /* twice its values, at most 255: what A1111 lays back by */

typedef struct { int x, y, w, h; } kw_box;

/* What is not black, with `pad` px around it, inside the picture. False: all is black. */
bool kw_mask_box(const kw_picture *mask, int pad, kw_box *out);
/* Grown to the shape of w x h, inside a picture of width x height where that is possible. */
kw_box kw_box_shape(kw_box b, int w, int h, int width, int height);

/* ---- pixels under and over a mask -------------------------------------------------------------------------------- */

/* What the mask covers becomes a blur of what it does not cover: A1111's "fill". */
KW_MUST kw_status kw_picture_fill_in(kw_picture *p, const kw_picture *mask, kw_err *e);
/* painted = mask painted + (1 - mask) under; all of one size. */
void kw_picture_over(kw_picture *painted, const kw_picture *under, const kw_picture *mask);

#ifdef __cplusplus
}
#endif

#endif
