/*
 * mask.c - masks that an inpainting base learns by, drawn by chance: what is to be drawn anew is everything in a
 * quarter of the cases (RunwayML's recipe for sd-v1-5-inpainting), else one to three rectangles or ellipses, or strokes
 * of a round brush, as one would paint them.
 */
#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Numbers in the order they are asked for. */
typedef struct { kw_rng rng; uint64_t i; } dice;

static double between(dice *d, double low, double high) { return low + (high - low) * kw_rng_double(d->rng, d->i++); }
static int one_of(dice *d, int n) { return (int)kw_rng_below(d->rng, d->i++, (uint64_t)n); }

typedef struct { uint8_t *at; int w, h; } canvas;

/* A box of a share of the sides, anywhere inside; the ellipse in it, or all of it. */
static void box(dice *d, const canvas *c, bool round)
{
    double w = KW_MAX(between(d, 0.15, 0.75) * c->w, 1), h = KW_MAX(between(d, 0.15, 0.75) * c->h, 1);
    double x0 = between(d, 0, c->w - w), y0 = between(d, 0, c->h - h);
    for (int y = (int)y0; y < c->h && y < y0 + h; y++)
        for (int x = (int)x0; x < c->w && x < x0 + w; x++) {
            double u = 2 * (x + 0.5 - x0) / w - 1, v = 2 * (y + 0.5 - y0) / h - 1;
            c->at[y * c->w + x] |= !round || u * u + v * v <= 1;
        }
}

/* All pixels at most r away from the line between two points. */
static void line(const canvas *c, double x0, double y0, double x1, double y1, double r)
{
    double dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
    int left = KW_MAX((int)(fmin(x0, x1) - r), 0), right = KW_MIN((int)(fmax(x0, x1) + r) + 1, c->w);
    int top = KW_MAX((int)(fmin(y0, y1) - r), 0), bottom = KW_MIN((int)(fmax(y0, y1) + r) + 1, c->h);
    for (int y = top; y < bottom; y++)
        for (int x = left; x < right; x++) {
            double px = x + 0.5 - x0, py = y + 0.5 - y0;
            double t = length > 0 ? fmin(fmax((px * dx + py * dy) / length, 0), 1) : 0;
            double ex = px - t * dx, ey = py - t * dy;
            c->at[y * c->w + x] |= ex * ex + ey * ey <= r * r;
        }
}

/* Two to six lines, each turned a little from the one before. */
static void stroke(dice *d, const canvas *c)
{
    double side = KW_MIN(c->w, c->h), r = KW_MAX(between(d, 0.04, 0.12) * side, 1), pi = 3.14159265358979323846;
    double x = between(d, 0, c->w), y = between(d, 0, c->h), angle = between(d, 0, 2 * pi);
    for (int n = 2 + one_of(d, 5); n; n--) {
        double length = between(d, 0.1, 0.4) * side, sine, cosine;
        angle += between(d, -1, 1);
        kw_exact_sincos(angle, &sine, &cosine);
        double to_x = fmin(fmax(x + length * cosine, 0), c->w), to_y = fmin(fmax(y + length * sine, 0), c->h);
        line(c, x, y, to_x, to_y, r);
        x = to_x;
        y = to_y;
    }
}

bool kw_inpaint_mask(uint64_t seed, const char *hash, uint32_t number, int w, int h, uint8_t *out)
{
    enum { BOXES, ELLIPSES, STROKES, KINDS };
    char head[9] = "";
    memcpy(head, hash, strnlen(hash, 8));
    uint32_t picture = (uint32_t)strtoul(head, NULL, 16);
    dice d = { .rng = { .seed = seed, .stream = KW_RNG_AUGMENT, .step = number, .sample = picture } };
    const canvas c = { out, w, h };
    bool whole = between(&d, 0, 1) < 0.25;
    memset(out, whole, (size_t)w * (size_t)h);
    int kind = one_of(&d, KINDS);
    for (int n = whole ? 0 : 1 + one_of(&d, 3); n; n--)
        if (kind == STROKES)
            stroke(&d, &c);
        else
            box(&d, &c, kind == ELLIPSES);
    return whole;
}
