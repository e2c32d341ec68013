/*
 * latents_masked.c - what an inpainting base sees beside a picture's latents: a mask, and the latents of the picture
 * that is mid-grey below it. They depend on the mask, so each mask of a picture has an entry of its own in the cache.
 */
#include "internal.h"

#include <string.h>

enum { VERSION = 1 };

typedef struct {                          /* of one picture */
    int w, h;
    uint8_t *mask;                        /* (h, w) */
    float *image;                         /* (h, w, 3) */
    int64_t shape[3];
    size_t latent, floats;                /* latent pixels; numbers of their moments */
} frame;

/* The picture's key and the mask's bytes. */
static kw_status key_of(const kw_latents *l, const kw_sample *s, const frame *f, char key[65], kw_err *e)
{
    char picture[65], mask[65];
    kw_str t = { 0 };
    KW_TRY(kw__latents_key(l, s, picture, e));
    if (!kw_sha256_of(f->mask, (size_t)f->w * (size_t)f->h, mask))
        return NO_MEMORY(e);
    kw_str_printf(&t, "masked %d\n%s\n%s\n", VERSION, picture, mask);
    kw_status status = t.failed || !kw_sha256_of(t.s, t.n, key) ? NO_MEMORY(e) : KW_OK;
    kw_str_free(&t);
    return status;
}

static void cover(const frame *f)
{
    for (int64_t p = 0; p < (int64_t)f->w * f->h; p++)
        if (f->mask[p])
            memset(f->image + 3 * p, 0, 3 * sizeof *f->image);
}

static void shrink(const frame *f, int factor, float *out)
{
    for (int64_t y = 0; y < f->shape[0]; y++)
        for (int64_t x = 0; x < f->shape[1]; x++)
            out[y * f->shape[1] + x] = f->mask[y * factor * f->w + x * factor];
}

static kw_status encode(kw_latents *l, kw_batch *one, bool keep, const frame *f, float *out, kw_err *e)
{
    char key[65];
    KW_TRY(kw_loader_images(l->c.loader, one, f->image, e));
    cover(f);
    KW_TRY(l->c.encode(l->c.user, f->image, f->w, f->h, out, e));
    if (!keep || !kw__latents_cached(l, one->samples))
        return KW_OK;
    KW_TRY(key_of(l, one->samples, f, key, e));
    return kw_cache_put(l->c.cache, key, f->shape, 3, out, e);
}

static kw_status one(kw_latents *l, const kw_batch *b, size_t i, const kw_masking *k, const frame *f, float *mask,
                     float *masked, kw_err *e)
{
    kw_batch only = { .w = b->w, .h = b->h, .samples = &b->samples[i], .n = 1 };
    char key[65];
    const kw_item *t = &l->d->items[b->samples[i].item];
    if (!kw_inpaint_mask(k->seed, t->hash, k->number[i], f->w, f->h, f->mask) && t->mask)
        KW_TRY(kw__loader_mask(l->c.loader, &b->samples[i], f->mask, e));
    bool kept = k->keep && kw__latents_cached(l, &b->samples[i]);
    if (kept)
        KW_TRY(key_of(l, &b->samples[i], f, key, e));
    if (!kept || !kw_cache_find(l->c.cache, key, f->shape, 3, masked))
        KW_TRY(encode(l, &only, k->keep, f, masked, e));
    shrink(f, l->c.factor, mask);
    return KW_OK;
}

static kw_status all(kw_latents *l, const kw_batch *b, const kw_masking *k, const frame *f, float *mask, float *masked,
                     kw_err *e)
{
    for (size_t i = 0; i < b->n; i++)
        KW_TRY(one(l, b, i, k, f, mask + i * f->latent, masked + i * f->floats, e));
    return KW_OK;
}

/* Either of the two puts another picture in a sample's place where its file is gone: until both show the same. */
static kw_status both(kw_latents *l, kw_batch *b, const kw_masking *k, const frame *f, float *moments, float *mask,
                      float *masked, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    uint32_t *was = a ? kw_alloc_array(a, b->n, sizeof *was) : NULL;
    kw_status s = was ? KW_OK : NO_MEMORY(e);
    for (bool same = false; !s && !same;) {
        s = kw_latents_get(l, b, moments, e);
        for (size_t i = 0; !s && i < b->n; i++)
            was[i] = b->samples[i].item;
        if (!s)
            s = all(l, b, k, f, mask, masked, e);
        same = true;
        for (size_t i = 0; !s && i < b->n; i++)
            same &= was[i] == b->samples[i].item;
    }
    kw_arena_free(a);
    return s;
}

kw_status kw_latents_masked(kw_latents *l, kw_batch *b, const kw_masking *k, float *moments, float *mask, float *masked,
                            kw_err *e)
{
    size_t pixels = (size_t)b->w * (size_t)b->h;
    frame f = { .w = b->w, .h = b->h, .shape = { b->h / l->c.factor, b->w / l->c.factor, l->c.channels } };
    f.latent = (size_t)(f.shape[0] * f.shape[1]);
    f.floats = f.latent * (size_t)l->c.channels;
    f.mask = kw_block_new(pixels);
    f.image = kw_block_new(3 * pixels * sizeof *f.image);
    kw_status s = f.mask && f.image ? both(l, b, k, &f, moments, mask, masked, e) : NO_MEMORY(e);
    kw_block_free(f.mask);
    kw_block_free(f.image);
    return s;
}
