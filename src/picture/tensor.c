/* tensor.c - pictures to floats for the autoencoder, and back. */
#include "internal.h"

#include <math.h>

/* (v/255 - 0.5)/0.5 for each of the 256 values, in float and in this order, as torchvision does. */
static float normalized(int v)
{
    float unit = (float)v / 255.0f;
    return (unit - 0.5f) / 0.5f;
}

void kw_picture_to_float(const kw_picture *p, bool flip, float *out)
{
    float table[256];
    for (int v = 0; v < 256; v++)
        table[v] = normalized(v);
    for (int y = 0; y < p->h; y++) {
        const uint8_t *row = p->rgb + (size_t)y * (size_t)p->w * 3;
        for (int x = 0; x < p->w; x++)
            for (int c = 0; c < 3; c++)
                *out++ = table[row[(flip ? p->w - 1 - x : x) * 3 + c]];
    }
}

kw_status kw_picture_from_float(const float *v, int w, int h, kw_picture *p, kw_err *e)
{
    KW_TRY(kw_picture_new(w, h, p, e));
    for (size_t i = 0, n = (size_t)w * (size_t)h * 3; i < n; i++) {
        float unit = v[i] / 2 + 0.5f;
        unit = unit > 0 ? unit < 1 ? unit : 1 : 0;                  /* NaN is not > 0 */
        p->rgb[i] = (uint8_t)rintf(unit * 255);
    }
    return KW_OK;
}
