/*
 * bucket.c - sizes of pictures in training: kohya's buckets (sd-scripts: make_bucket_resolutions, select_bucket), in
 * doubles as there, so that every rounding is the same.
 */
#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

kw_bucket_rule kw_bucket_rule_with(int resolution, int vae_factor, int unet_levels, int min, int max, int step)
{
    int unit = vae_factor << (unet_levels > 0 ? unet_levels - 1 : 0), want = KW_MIN(64, resolution / 8);
    int by_rule = unit * KW_MAX(1, (want + unit - 1) / unit), s = step ? step : by_rule;
    return (kw_bucket_rule){
        .w = resolution, .h = resolution, .step = s, .unit = vae_factor,
        .min = min ? min : KW_MAX(s, resolution / 2 / s * s), .max = max ? max : KW_MAX(s, 2 * resolution / s * s),
    };
}

kw_bucket_rule kw_bucket_rule_for(int resolution, int vae_factor, int unet_levels)
{
    return kw_bucket_rule_with(resolution, vae_factor, unet_levels, 0, 0, 0);
}

static kw_status check_rule(const kw_bucket_rule *r, kw_err *e)
{
    if (r->unit && r->step % r->unit)
        return kw_fail(e, KW_EUSAGE, N_("buckets in steps of %d: sides must be multiples of %d, the autoencoder's factor"),
                       r->step, r->unit);
    if (r->step < 1 || r->w < r->step || r->h < r->step || r->w > KW_PICTURE_MAX_SIDE || r->h > KW_PICTURE_MAX_SIDE)
        return kw_fail(e, KW_EUSAGE, N_("resolution %dx%d: sides must be %d to %d"), r->w, r->h, r->step,
                       KW_PICTURE_MAX_SIDE);
    if (r->single && (r->w % r->step || r->h % r->step))
        return kw_fail(e, KW_EUSAGE, N_("resolution %dx%d: without buckets sides must be multiples of %d"), r->w, r->h,
                       r->step);
    if (!r->single && !r->no_upscale && (r->min < r->step || r->max < r->min || r->min % r->step))
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("buckets from %d to %d in steps of %d: not possible"), r->min,
                                    r->max, r->step),
                         N_("the least side must be a multiple of the step and not above the largest"));
    return KW_OK;
}

/* ---- the list ----------------------------------------------------------------------------------------- */

static int by_size(const void *x, const void *y)
{
    const kw_bucket *a = x, *b = y;
    return a->w != b->w ? a->w - b->w : a->h - b->h;
}

typedef struct { kw_bucket *list; size_t n, capacity; } buckets;

static kw_status add(kw_arena *a, buckets *b, int w, int h, kw_err *e)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->list[i].w == w && b->list[i].h == h)
            return KW_OK;
    KW_TRY(kw_grow(a, &b->list, &b->capacity, b->n, sizeof *b->list, e));
    b->list[b->n++] = (kw_bucket){ .w = w, .h = h };
    return KW_OK;
}

kw_status kw_buckets_make(kw_arena *a, const kw_bucket_rule *r, kw_bucket **list, size_t *n, kw_err *e)
{
    buckets b = { 0 };
    KW_TRY(check_rule(r, e));
    int64_t area = (int64_t)r->w * r->h;
    int side = (int)(sqrt((double)area) / r->step) * r->step;
    KW_TRY(r->single ? add(a, &b, r->w, r->h, e) : add(a, &b, side, side, e));
    for (int w = r->min; !r->single && !r->no_upscale && w <= r->max; w += r->step) {
        int h = (int)KW_MIN(r->max, area / w / r->step * r->step);
        if (h < r->min)
            continue;
        KW_TRY(add(a, &b, w, h, e));
        KW_TRY(add(a, &b, h, w, e));
    }
    qsort(b.list, b.n, sizeof *b.list, by_size);
    *list = b.list;
    *n = b.n;
    return KW_OK;
}

/* ---- choosing ----------------------------------------------------------------------------------------- */

static kw_bucket nearest(const kw_bucket *list, size_t n, int w, int h)
{
    double ratio = (double)w / h;
    size_t best = 0;
    for (size_t i = 0; i < n; i++) {
        if (list[i].w == w && list[i].h == h)
            return list[i];
        if (fabs((double)list[i].w / list[i].h - ratio) < fabs((double)list[best].w / list[best].h - ratio))
            best = i;
    }
    return list[best];
}

static int to_step(double x, int step)
{
    int i = (int)(x + 0.5);
    return i - i % step;
}

/*
 * bucket_no_upscale. Too large a picture shrinks to the area of the resolution, with one side on a step: of both
 * choices the one whose w/h is nearer (the second if equal). The bucket is what fits in it in whole steps.
 */
static kw_fit keep_size(const kw_bucket_rule *r, int w, int h)
{
    kw_fit f = { .scaled_w = w, .scaled_h = h };
    double ratio = (double)w / h, area = (double)r->w * r->h;
    if ((double)w * h > area) {
        double wide = sqrt(area * ratio), high = area / wide;
        int w1 = to_step(wide, r->step), h1 = to_step(w1 / ratio, r->step);
        int h2 = to_step(high, r->step), w2 = to_step(h2 * ratio, r->step);
        bool first = w1 && h1 && (!w2 || !h2 || fabs((double)w1 / h1 - ratio) < fabs((double)w2 / h2 - ratio));
        f.scaled_w = first ? w1 : (int)(h2 * ratio + 0.5);
        f.scaled_h = first ? (int)(w1 / ratio + 0.5) : h2;
    }
    f.w = f.scaled_w - f.scaled_w % r->step;
    f.h = f.scaled_h - f.scaled_h % r->step;
    f.crop_x = (f.scaled_w - f.w) / 2;
    f.crop_y = (f.scaled_h - f.h) / 2;
    return f;
}

/* A picture of which less than a tenth would be left, or that would be enlarged 16 times or more, teaches nothing. */
enum { LEAST_KEPT = 10, MOST_ENLARGED = 16 };

static double kept(const kw_fit *f) { return (double)f->w * f->h / ((double)f->scaled_w * f->scaled_h); }

kw_status kw_bucket_select(const kw_bucket_rule *r, const kw_bucket *list, size_t n, int w, int h, kw_fit *fit,
                           kw_err *e)
{
    if (w < 1 || h < 1)
        return kw_fail(e, KW_EDATA, N_("%dx%d pixels: too small"), w, h);
    if (r->no_upscale && !r->single) {
        *fit = keep_size(r, w, h);
        if (!fit->w || !fit->h)
            return kw_fail(e, KW_EDATA,
                           N_("%dx%d pixels: too small (a side below %d, and pictures are not to be enlarged)"), w, h,
                           r->step);
    } else {
        kw_bucket b = nearest(list, n, w, h);
        *fit = kw_fit_cover(w, h, b.w, b.h);
    }
    if (kept(fit) * LEAST_KEPT < 1)
        return kw_fail(e, KW_EDATA,
                       N_("%dx%d pixels: so long that a bucket of %dx%d would hold less than a tenth of it"), w, h,
                       fit->w, fit->h);
    if (fit->scaled_w >= (double)MOST_ENLARGED * w)
        return kw_fail(e, KW_EDATA, N_("%dx%d pixels: too small (it would be enlarged %.0f times)"), w, h,
                       (double)fit->scaled_w / w);
    return KW_OK;
}

/* ---- a dataset's -------------------------------------------------------------------------------------- */

static kw_status place(kw_dataset *d, const kw_bucket_rule *r, const kw_bucket *list, size_t n, kw_item *t, kw_err *e)
{
    kw_err why = { 0 };
    kw_status s = kw_bucket_select(r, list, n, t->w, t->h, &t->fit, &why);
    if (s) {
        KW_TRY(kw__remark(d, KW_REMARK_BAD_SHAPE, t->name, e, "%s", why.what));
        t->bad = d->remarks[d->n_remarks - 1].detail;
        return KW_OK;
    }
    double enlarged = (double)t->fit.scaled_w / t->w, lost = 1 - kept(&t->fit);
    if (enlarged > 2)
        KW_TRY(kw__remark(d, KW_REMARK_SMALL, t->name, e, "%dx%d → %dx%d", t->w, t->h, t->fit.w, t->fit.h));
    if (lost > 0.25)
        KW_TRY(kw__remark(d, KW_REMARK_CROPPED, t->name, e, "%dx%d → %dx%d, %.0f %%", t->w, t->h, t->fit.w, t->fit.h,
                          100 * lost));
    return KW_OK;
}

kw_status kw_data_buckets(kw_dataset *d, const kw_bucket_rule *r, kw_err *e)
{
    kw_bucket *list;
    size_t n;
    buckets used = { 0 };
    KW_TRY(kw_buckets_make(d->arena, r, &list, &n, e));
    for (size_t i = 0; i < d->n; i++) {
        kw_item *t = &d->items[i];
        if (t->bad)
            continue;
        KW_TRY(place(d, r, list, n, t, e));
        if (!t->bad)
            KW_TRY(add(d->arena, &used, t->fit.w, t->fit.h, e));
    }
    if (!used.n)
        return kw_fail(e, KW_EDATA, N_("%s: no picture has a shape that can be used"), d->root);
    qsort(used.list, used.n, sizeof *used.list, by_size);
    d->buckets = used.list;
    d->n_buckets = used.n;
    for (size_t i = 0; i < d->n; i++)
        for (uint32_t k = 0; k < used.n && !d->items[i].bad; k++)
            if (used.list[k].w == d->items[i].fit.w && used.list[k].h == d->items[i].fit.h) {
                d->items[i].bucket = k;
                used.list[k].n++;
            }
    return KW_OK;
}
