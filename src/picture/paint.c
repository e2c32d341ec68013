/* paint.c - masks: where a picture is painted anew, and how what is painted is put back. */
#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t pixels(const kw_picture *p) { return (size_t)p->w * (size_t)p->h; }

void kw_mask_grey(kw_picture *p)
{
    for (size_t i = 0; i < pixels(p); i++) {
        uint8_t *c = p->rgb + 3 * i;
        memset(c, (int)((c[0] * 19595u + c[1] * 38470u + c[2] * 7471u + 0x8000u) >> 16), 3);
    }
}

/* over white less over black is 255 - alpha, exactly: both are rounded alike. */
bool kw_mask_clear(const kw_picture *black, const kw_picture *white, kw_picture *mask)
{
    bool any = false;
    KW_ASSERT(black->w == white->w && black->w == mask->w && black->h == white->h && black->h == mask->h);
    for (size_t i = 0; i < pixels(mask); i++) {
        int clear = white->rgb[3 * i] - black->rgb[3 * i];
        any |= clear != 0;
        memset(mask->rgb + 3 * i, clear < 0 ? 0 : clear, 3);
    }
    return any;
}

void kw_mask_round(kw_picture *mask)
{
    for (size_t i = 0; i < 3 * pixels(mask); i++)
        mask->rgb[i] = mask->rgb[i] > 128 ? 255 : 0;
}

void kw_mask_invert(kw_picture *mask)
{
    for (size_t i = 0; i < 3 * pixels(mask); i++)
        mask->rgb[i] = 255 - mask->rgb[i];
}

void kw_mask_double(kw_picture *mask)
{
    for (size_t i = 0; i < 3 * pixels(mask); i++)
        mask->rgb[i] = mask->rgb[i] > 127 ? 255 : (uint8_t)(2 * mask->rgb[i]);
}

/* ---- blur -------------------------------------------------------------------------------------------------------- */

/* -1 is 1, n is n - 2: OpenCV's BORDER_REFLECT_101 */
static int mirrored(int i, int n)
{
    if (n == 1)
        return 0;
    while (i < 0 || i >= n)
        i = i < 0 ? -i : 2 * (n - 1) - i;
    return i;
}

/* One row or column of n values, `step` bytes apart and of three equal channels. */
static void blur_line(uint8_t *line, int n, size_t step, const double *weight, int reach, double *old)
{
    for (int i = 0; i < n; i++)
        old[i] = line[(size_t)i * step];
    for (int i = 0; i < n; i++) {
        double sum = weight[0] * old[i];
        for (int k = 1; k <= reach; k++)
            sum += weight[k] * (old[mirrored(i - k, n)] + old[mirrored(i + k, n)]);
        memset(line + (size_t)i * step, (int)(sum + 0.5), 3);
    }
}

kw_status kw_mask_blur(kw_picture *mask, double sigma, kw_err *e)
{
    if (!(sigma > 0))
        return KW_OK;
    int reach = (int)(2.5 * sigma + 0.5), longest = KW_MAX(mask->w, mask->h);
    double *weight = calloc((size_t)reach + 1, sizeof *weight), *old = calloc((size_t)longest, sizeof *old), sum = 0;
    if (!weight || !old) {
        free(weight);
        free(old);
        return kw_fail(e, KW_ENOMEM, "no memory to blur a mask");
    }
    for (int k = 0; k <= reach; k++)
        sum += (weight[k] = exp(-0.5 * k * k / (sigma * sigma))) * (k ? 2 : 1);
    for (int k = 0; k <= reach; k++)
        weight[k] /= sum;
    for (int y = 0; y < mask->h; y++)
        blur_line(mask->rgb + (size_t)y * (size_t)mask->w * 3, mask->w, 3, weight, reach, old);
    for (int x = 0; x < mask->w; x++)
        blur_line(mask->rgb + (size_t)x * 3, mask->h, (size_t)mask->w * 3, weight, reach, old);
    free(weight);
    free(old);
    return KW_OK;
}

/* ---- the masked part --------------------------------------------------------------------------------------------- */

bool kw_mask_box(const kw_picture *mask, int pad, kw_box *out)
{
    int x0 = mask->w, y0 = mask->h, x1 = -1, y1 = -1;
    for (int y = 0; y < mask->h; y++)
        for (int x = 0; x < mask->w; x++)
            if (mask->rgb[((size_t)y * (size_t)mask->w + (size_t)x) * 3]) {
                x0 = KW_MIN(x0, x);
                x1 = KW_MAX(x1, x);
                y0 = KW_MIN(y0, y);
                y1 = y;
            }
    if (x1 < 0)
        return false;
    x0 = KW_MAX(x0 - pad, 0);
    y0 = KW_MAX(y0 - pad, 0);
    x1 = KW_MIN(x1 + 1 + pad, mask->w);
    y1 = KW_MIN(y1 + 1 + pad, mask->h);
    *out = (kw_box){ x0, y0, x1 - x0, y1 - y0 };
    return true;
}

/* [at, at + n) grown to n + more inside [0, most), kept off the far border first, then off the near one. */
static void grow(int *at, int *n, int more, int most)
{
    int low = *at - more / 2, high = *at + *n + more - more / 2;
    if (high >= most) {
        low -= high - most;
        high = most;
    }
    if (low < 0) {
        high -= low;
        low = 0;
    }
    *at = low;
    *n = KW_MIN(high, most) - low;
}

kw_box kw_box_shape(kw_box b, int w, int h, int width, int height)
{
    double has = (double)b.w / b.h, wanted = (double)w / h;
    if (has > wanted)
        grow(&b.y, &b.h, (int)(b.w / wanted - b.h), height);
    else
        grow(&b.x, &b.w, (int)(b.h * wanted - b.w), width);
    return b;
}

void kw_picture_over(kw_picture *painted, const kw_picture *under, const kw_picture *mask)
{
    KW_ASSERT(painted->w == under->w && painted->h == under->h && painted->w == mask->w && painted->h == mask->h);
    for (size_t i = 0; i < 3 * pixels(painted); i++) {
        int m = mask->rgb[i], v = m * painted->rgb[i] + (255 - m) * under->rgb[i];
        painted->rgb[i] = (uint8_t)((v + 127) / 255);
    }
}
