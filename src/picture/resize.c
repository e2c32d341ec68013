/*
 * resize.c - separable resampling with cropping: only the rows and columns that are kept are computed.
 *
 *   area     both sides shrink: weight of a source pixel = how much of the output pixel it covers (float, rounded once)
 *   Lanczos  else: sinc(x) sinc(x/3), in Pillow's fixed point with 8 bits between the passes, so the bits are Pillow's
 *            (libImaging/Resample.c: 22 fraction bits, horizontal pass first; Pillow 13 turns the passes round when
 *            the width grows and the height shrinks, which no bucket asks for)
 *   bicubic  a = -1/2, and bilinear, the same way; nearest takes the source pixel below the output's centre
 */
#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FRACTION 22

/* Output k of n takes source pixels from[k] .. from[k]+count[k]-1 with weight[k*most ..]. */
typedef struct {
    int n, most;
    int *from, *count;
    double *weight;
} taps;

typedef struct {                                /* one direction: source size, scaled size, kept part */
    int source, scaled, at, kept;
    bool area;
    const struct filter *filter;                /* NULL: Lanczos */
} axis;

static void taps_free(taps *t)
{
    free(t->from);
    free(t->count);
    free(t->weight);
}

static double sinc(double x)
{
    return x == 0 ? 1 : sin(M_PI * x) / (M_PI * x);
}

static double lanczos(double x)
{
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/* Keys 1981 with a = -1/2 */
static double cubic(double x)
{
    x = fabs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

static double triangle(double x) { return fmax(0, 1 - fabs(x)); }

typedef struct filter { double reach; double (*weight)(double); } filter;

static const filter filters[] = {
    [KW_FILTER_LANCZOS] = { 3, lanczos }, [KW_FILTER_BICUBIC] = { 2, cubic }, [KW_FILTER_BILINEAR] = { 1, triangle },
};

static const filter *filter_of(const axis *a) { return a->filter ? a->filter : &filters[KW_FILTER_LANCZOS]; }

/* Pixels whose centres lie in reach * stretch around the output's centre. */
static void filter_taps(taps *t, const axis *a, int k)
{
    const filter *f = filter_of(a);
    double scale = (double)a->source / a->scaled, stretch = scale < 1 ? 1 : scale, inverse = 1 / stretch;
    double centre = (a->at + k + 0.5) * scale, sum = 0, reach = f->reach * stretch;
    int first = (int)(centre - reach + 0.5), end = (int)(centre + reach + 0.5);
    first = KW_MAX(first, 0);
    end = KW_MIN(end, a->source);
    double *w = t->weight + (size_t)k * (size_t)t->most;
    for (int i = 0; i < end - first; i++)
        sum += w[i] = f->weight((i + first - centre + 0.5) * inverse);
    for (int i = 0; i < end - first && sum != 0; i++)
        w[i] /= sum;
    t->from[k] = first;
    t->count[k] = end - first;
}

/* The output covers [k, k+1) * scale of the source. */
static void area_taps(taps *t, const axis *a, int k)
{
    double scale = (double)a->source / a->scaled;
    double low = (a->at + k) * scale, high = (a->at + k + 1) * scale;
    int first = (int)low, end = KW_MIN((int)ceil(high), a->source);
    double *w = t->weight + (size_t)k * (size_t)t->most, sum = 0;
    for (int i = first; i < end; i++)
        sum += w[i - first] = fmax(0, fmin(high, i + 1) - fmax(low, i));
    for (int i = 0; i < end - first; i++)
        w[i] /= sum;
    t->from[k] = first;
    t->count[k] = end - first;
}

static kw_status taps_new(taps *t, const axis *a, kw_err *e)
{
    double scale = fmax(1, (double)a->source / a->scaled);
    *t = (taps){ .n = a->kept, .most = (int)ceil(scale) + 2 };
    if (!a->area)
        t->most = (int)ceil(filter_of(a)->reach * scale) * 2 + 1;
    t->from = calloc((size_t)t->n, sizeof *t->from);
    t->count = calloc((size_t)t->n, sizeof *t->count);
    t->weight = calloc((size_t)t->n * (size_t)t->most, sizeof *t->weight);
    if (!t->from || !t->count || !t->weight) {
        taps_free(t);
        return kw_fail(e, KW_ENOMEM, "no memory for resizing weights");
    }
    for (int k = 0; k < t->n; k++)
        (a->area ? area_taps : filter_taps)(t, a, k);
    return KW_OK;
}

/* ---- area ------------------------------------------------------------------------------------------------ */

static void area_row(const uint8_t *row, const taps *t, float *out)
{
    for (int k = 0; k < t->n; k++) {
        const uint8_t *s = row + (size_t)t->from[k] * 3;
        const double *w = t->weight + (size_t)k * (size_t)t->most;
        double r = 0, g = 0, b = 0;
        for (int i = 0; i < t->count[k]; i++, s += 3) {
            r += w[i] * s[0];
            g += w[i] * s[1];
            b += w[i] * s[2];
        }
        out[k * 3] = (float)r;
        out[k * 3 + 1] = (float)g;
        out[k * 3 + 2] = (float)b;
    }
}

/* Source rows come once, top to bottom; two output rows share the row at their border. */
static kw_status area(const kw_picture *p, const taps *tx, const taps *ty, kw_picture *out, kw_err *e)
{
    size_t n = (size_t)tx->n * 3;
    float *row = malloc(n * sizeof *row), *sum = malloc(n * sizeof *sum);
    if (!row || !sum) {
        free(row);
        free(sum);
        return kw_fail(e, KW_ENOMEM, "no memory for resizing");
    }
    for (int k = 0, have = -1; k < ty->n; k++) {
        memset(sum, 0, n * sizeof *sum);
        for (int i = 0; i < ty->count[k]; i++) {
            int y = ty->from[k] + i;
            float w = (float)ty->weight[(size_t)k * (size_t)ty->most + (size_t)i];
            if (y != have)
                area_row(p->rgb + (size_t)y * (size_t)p->w * 3, tx, row);
            have = y;
            for (size_t j = 0; j < n; j++)
                sum[j] += w * row[j];
        }
        for (size_t j = 0; j < n; j++)
            out->rgb[(size_t)k * n + j] = (uint8_t)KW_MIN(255, (int)(sum[j] + 0.5f));
    }
    free(row);
    free(sum);
    return KW_OK;
}

/* ---- filters, as Pillow ------------------------------------------------------------------------------------- */

static int32_t *fixed_weights(const taps *t)
{
    size_t n = (size_t)t->n * (size_t)t->most;
    int32_t *fixed = malloc(n * sizeof *fixed);
    for (size_t i = 0; fixed && i < n; i++)
        fixed[i] = (int32_t)(t->weight[i] * (1 << FRACTION) + (t->weight[i] < 0 ? -0.5 : 0.5));
    return fixed;
}

/* One output sample: samples of the source are `step` bytes apart. */
static uint8_t fixed_sum(const uint8_t *s, size_t step, const int32_t *w, int count)
{
    int32_t sum = 1 << (FRACTION - 1);
    for (int i = 0; i < count; i++)
        sum += w[i] * s[(size_t)i * step];
    sum >>= FRACTION;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void horizontal(const uint8_t *row, uint8_t *out, const taps *t, const int32_t *fixed)
{
    for (int k = 0; k < t->n; k++)
        for (int c = 0; c < 3; c++)
            *out++ = fixed_sum(row + t->from[k] * 3 + c, 3, fixed + (size_t)k * (size_t)t->most, t->count[k]);
}

static void vertical(const uint8_t *middle, int top, size_t n, uint8_t *out, const taps *t, const int32_t *fixed)
{
    for (int k = 0; k < t->n; k++) {
        const uint8_t *s = middle + (size_t)(t->from[k] - top) * n;
        for (size_t j = 0; j < n; j++)
            *out++ = fixed_sum(s + j, n, fixed + (size_t)k * (size_t)t->most, t->count[k]);
    }
}

static kw_status two_passes(const kw_picture *p, const taps *tx, const taps *ty, kw_picture *out, kw_err *e)
{
    int top = ty->from[0], bottom = ty->from[ty->n - 1] + ty->count[ty->n - 1];
    size_t n = (size_t)tx->n * 3;
    int32_t *wx = fixed_weights(tx), *wy = fixed_weights(ty);
    uint8_t *middle = kw_block_new((size_t)(bottom - top) * n);
    bool memory = wx && wy && middle;
    for (int y = top; memory && y < bottom; y++)
        horizontal(p->rgb + (size_t)y * (size_t)p->w * 3, middle + (size_t)(y - top) * n, tx, wx);
    if (memory)
        vertical(middle, top, n, out->rgb, ty, wy);
    free(wx);
    free(wy);
    kw_block_free(middle);
    return memory ? KW_OK : kw_fail(e, KW_ENOMEM, "no memory for resizing");
}

/* ---- the public side -------------------------------------------------------------------------------------------- */

kw_fit kw_fit_cover(int picture_w, int picture_h, int w, int h)
{
    bool wider = (double)picture_w / picture_h > (double)w / h;
    double scale = wider ? (double)h / picture_h : (double)w / picture_w;
    kw_fit f = { .w = w, .h = h };
    f.scaled_w = KW_MAX(w, (int)(picture_w * scale + 0.5));
    f.scaled_h = KW_MAX(h, (int)(picture_h * scale + 0.5));
    f.crop_x = (f.scaled_w - w) / 2;
    f.crop_y = (f.scaled_h - h) / 2;
    return f;
}

static void copy_part(const kw_picture *p, kw_fit f, kw_picture *out)
{
    kw_picture_paste(out, p, -f.crop_x, -f.crop_y);
}

/* Into out, which is made already; freed when there is no memory. */
static kw_status resample(const kw_picture *p, const axis *ax, const axis *ay, kw_picture *out, kw_err *e)
{
    taps tx = { 0 }, ty = { 0 };
    kw_status s = taps_new(&tx, ax, e);
    if (!s)
        s = taps_new(&ty, ay, e);
    if (!s)
        s = (ax->area ? area : two_passes)(p, &tx, &ty, out, e);
    taps_free(&tx);
    taps_free(&ty);
    if (s)
        kw_picture_free(out);
    return s;
}

kw_status kw_picture_fit(const kw_picture *p, kw_fit f, kw_picture *out, kw_err *e)
{
    *out = (kw_picture){ 0 };
    if (f.w < 1 || f.h < 1 || f.crop_x < 0 || f.crop_y < 0 || f.crop_x > f.scaled_w - f.w
        || f.crop_y > f.scaled_h - f.h)
        return kw_fail(e, KW_EUSAGE, "a crop of %dx%d at %d,%d is not inside %dx%d", f.w, f.h, f.crop_x, f.crop_y,
                       f.scaled_w, f.scaled_h);
    KW_TRY(kw_picture_new(f.w, f.h, out, e));
    out->info = p->info;
    if (f.scaled_w == p->w && f.scaled_h == p->h) {
        copy_part(p, f, out);
        return KW_OK;
    }
    bool shrinks = f.scaled_w < p->w && f.scaled_h < p->h;
    axis ax = { .source = p->w, .scaled = f.scaled_w, .at = f.crop_x, .kept = f.w, .area = shrinks };
    axis ay = { .source = p->h, .scaled = f.scaled_h, .at = f.crop_y, .kept = f.h, .area = shrinks };
    return resample(p, &ax, &ay, out, e);
}

kw_status kw_picture_resize(const kw_picture *p, int w, int h, kw_picture *out, kw_err *e)
{
    return kw_picture_fit(p, (kw_fit){ w, h, 0, 0, w, h }, out, e);
}

/* floor((k + 1/2) n / m), exactly */
static size_t below(int k, int n, int m) { return (size_t)((int64_t)(2 * k + 1) * n / (2 * (int64_t)m)); }

static void nearest(const kw_picture *p, kw_picture *out)
{
    for (int y = 0; y < out->h; y++) {
        const uint8_t *row = p->rgb + below(y, p->h, out->h) * (size_t)p->w * 3;
        uint8_t *to = out->rgb + (size_t)y * (size_t)out->w * 3;
        for (int x = 0; x < out->w; x++)
            memcpy(to + x * 3, row + below(x, p->w, out->w) * 3, 3);
    }
}

kw_status kw_picture_scale(const kw_picture *p, kw_filter f, int w, int h, kw_picture *out, kw_err *e)
{
    KW_TRY(kw_picture_new(w, h, out, e));
    out->info = p->info;
    if (w == p->w && h == p->h)
        kw_picture_paste(out, p, 0, 0);
    else if (f == KW_FILTER_NEAREST)
        nearest(p, out);
    else {
        axis ax = { .source = p->w, .scaled = w, .kept = w, .filter = &filters[f] };
        axis ay = { .source = p->h, .scaled = h, .kept = h, .filter = &filters[f] };
        return resample(p, &ax, &ay, out, e);
    }
    return KW_OK;
}
