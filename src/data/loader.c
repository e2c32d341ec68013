/*
 * loader.c - pixels of batches: read, decoded, scaled, cropped, flipped, as floats; one batch ahead in the background.
 * What a file holds was fixed when it was checked: other content is as bad as no file, and another picture steps in.
 */
#include "internal.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef struct {                          /* the batch in the background */
    bool running;
    pthread_t thread;
    kw_arena *arena;
    kw_batch asked, batch;                /* as asked for; as loaded, samples perhaps replaced */
    float *out;
    kw_status status;
    kw_err err;
} ahead;

struct kw_loader {
    const kw_dataset *d;
    kw_decoder *decoder;
    uint8_t background[3];
    ahead ahead;
    pthread_mutex_t lock;                 /* of what follows */
    size_t replaced;
    char why[256];
};

/* ---- one sample --------------------------------------------------------------------------------------- */

static kw_status load(kw_loader *l, const kw_sample *s, float *out, kw_err *e)
{
    const kw_item *t = &l->d->items[s->item];
    kw_picture p = { 0 }, fitted = { 0 };
    char hash[65];
    KW_TRY(kw__picture_load(l->decoder, t->path, t->name, l->background, hash, &p, e));
    kw_status status = strcmp(hash, t->hash) ? kw_fail(e, KW_EDATA, N_("%s: changed while training"), t->name)
                                             : kw_picture_fit(&p, s->fit, &fitted, e);
    if (!status)
        kw_picture_to_float(&fitted, s->flip, out);
    kw_picture_free(&p);
    kw_picture_free(&fitted);
    return status;
}

/* The mask at the picture's size, then as the picture is scaled and cut; what is at least half light is meant. */
static kw_status fit_mask(kw_picture *p, const kw_item *t, const kw_sample *s, uint8_t *out, kw_err *e)
{
    kw_picture whole = { 0 }, fitted = { 0 };
    kw_mask_grey(p);
    kw_status status = kw_picture_scale(p, KW_FILTER_NEAREST, t->w, t->h, &whole, e);
    if (!status)
        status = kw_picture_fit(&whole, s->fit, &fitted, e);
    for (int y = 0; !status && y < fitted.h; y++)
        for (int x = 0; x < fitted.w; x++)
            out[y * fitted.w + (s->flip ? fitted.w - 1 - x : x)] = fitted.rgb[3 * (y * fitted.w + x)] >= 128;
    kw_picture_free(&whole);
    kw_picture_free(&fitted);
    return status;
}

kw_status kw__loader_mask(kw_loader *l, const kw_sample *s, uint8_t *out, kw_err *e)
{
    static const uint8_t black[3];
    const kw_item *t = &l->d->items[s->item];
    kw_picture p = { 0 };
    char hash[65];
    KW_TRY(kw__picture_load(l->decoder, t->mask, t->mask_name, black, hash, &p, e));
    kw_status status = strcmp(hash, t->mask_hash) ? kw_fail(e, KW_EDATA, N_("%s: changed while training"), t->mask_name)
                                                  : fit_mask(&p, t, s, out, e);
    kw_picture_free(&p);
    return status;
}

/* The next picture of the same bucket and side; false: there is no other. */
static bool replace(const kw_dataset *d, kw_sample *s, uint32_t first)
{
    const kw_item *was = &d->items[s->item];
    uint32_t i = s->item;
    do
        i = (i + 1) % (uint32_t)d->n;
    while (i != first && (d->items[i].bad || d->items[i].bucket != was->bucket
                          || d->items[i].held_out != was->held_out));
    s->item = i;
    s->fit = d->items[i].fit;
    s->replaced = true;
    return i != first;
}

static kw_status load_or_replace(kw_loader *l, kw_sample *s, float *out, kw_err *e)
{
    uint32_t first = s->item;
    kw_err why = { 0 };
    kw_status status = load(l, s, out, &why);
    if (status == KW_EDATA || status == KW_ESTORAGE) {
        pthread_mutex_lock(&l->lock);
        if (!l->replaced++)
            snprintf(l->why, sizeof l->why, "%.255s", why.what);
        pthread_mutex_unlock(&l->lock);
    }
    while ((status == KW_EDATA || status == KW_ESTORAGE) && replace(l->d, s, first))
        status = load(l, s, out, &why);
    if (status && e)
        *e = why;
    return status;
}

static kw_status load_batch(kw_loader *l, kw_batch *b, float *out, kw_err *e)
{
    size_t each = (size_t)b->w * (size_t)b->h * 3;
    for (size_t i = 0; i < b->n; i++)
        KW_TRY(load_or_replace(l, &b->samples[i], out + i * each, e));
    return KW_OK;
}

/* ---- one batch ahead ---------------------------------------------------------------------------------- */

static void *in_background(void *arg)
{
    kw_loader *l = arg;
    ahead *a = &l->ahead;
    a->status = load_batch(l, &a->batch, a->out, &a->err);
    return NULL;
}

static void drop(ahead *a)
{
    if (a->running)
        pthread_join(a->thread, NULL);
    kw_block_free(a->out);
    kw_arena_free(a->arena);
    *a = (ahead){ 0 };
}

static bool copy_batch(kw_arena *a, const kw_batch *b, kw_batch *out)
{
    *out = *b;
    out->samples = kw_alloc_array(a, b->n, sizeof *out->samples);
    if (out->samples)
        memcpy(out->samples, b->samples, b->n * sizeof *out->samples);
    return out->samples;
}

static bool same_sample(const kw_sample *x, const kw_sample *y)
{
    return x->item == y->item && x->flip == y->flip && !memcmp(&x->fit, &y->fit, sizeof x->fit);
}

static bool same_batch(const kw_batch *x, const kw_batch *y)
{
    bool same = x->n == y->n && x->w == y->w && x->h == y->h;
    for (size_t i = 0; same && i < x->n; i++)
        same = same_sample(&x->samples[i], &y->samples[i]);
    return same;
}

/* Without memory or a thread it is simply loaded when it is asked for. */
void kw_loader_prefetch(kw_loader *l, const kw_batch *b)
{
    ahead *a = &l->ahead;
    if (a->running && same_batch(&a->asked, b))
        return;
    drop(a);
    a->arena = kw_arena_new();
    a->out = kw_block_new(b->n * (size_t)b->w * (size_t)b->h * 3 * sizeof *a->out);
    a->running = a->arena && a->out && copy_batch(a->arena, b, &a->asked) && copy_batch(a->arena, b, &a->batch)
              && !pthread_create(&a->thread, NULL, in_background, l);
    if (!a->running)
        drop(a);
}

static kw_status take(ahead *a, kw_batch *b, float *out, kw_err *e)
{
    pthread_join(a->thread, NULL);
    a->running = false;
    kw_status s = a->status;
    if (s && e)
        *e = a->err;
    if (!s) {
        for (size_t i = 0; i < b->n; i++) {
            b->samples[i].item = a->batch.samples[i].item;
            b->samples[i].fit = a->batch.samples[i].fit;
            b->samples[i].replaced |= a->batch.samples[i].replaced;
        }
        memcpy(out, a->out, b->n * (size_t)b->w * (size_t)b->h * 3 * sizeof *out);
    }
    drop(a);
    return s;
}

kw_status kw_loader_images(kw_loader *l, kw_batch *b, float *out, kw_err *e)
{
    if (l->ahead.running && same_batch(&l->ahead.asked, b))
        return take(&l->ahead, b, out, e);
    return load_batch(l, b, out, e);
}

/* ---- life --------------------------------------------------------------------------------------------- */

size_t kw_loader_replaced(kw_loader *l, char why[256])
{
    pthread_mutex_lock(&l->lock);
    size_t n = l->replaced;
    if (why)
        memcpy(why, l->why, sizeof l->why);
    pthread_mutex_unlock(&l->lock);
    return n;
}

static void end(void *loader)
{
    kw_loader *l = loader;
    drop(&l->ahead);
    pthread_mutex_destroy(&l->lock);
}

kw_status kw_loader_new(kw_arena *a, const kw_dataset *d, kw_decoder *decoder, const uint8_t background[3],
                        kw_loader **out, kw_err *e)
{
    kw_loader *l = *out = kw_alloc(a, sizeof *l);
    if (!l)
        return NO_MEMORY(e);
    l->d = d;
    l->decoder = decoder;
    memcpy(l->background, background ? background : kw_picture_white, 3);
    pthread_mutex_init(&l->lock, NULL);
    return kw_defer(a, end, l);
}
