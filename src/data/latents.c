/*
 * latents.c - pictures as the autoencoder sees them, encoded once. A key is the SHA-256 of all that a tensor depends
 * on: the file's content, the autoencoder, scaling and crop, mirror, background, and this code (VERSION), so nothing
 * stale can be found: an edited picture, another autoencoder or bucket has another key.
 */
#include "internal.h"

#include <string.h>

enum { VERSION = 1 };                     /* count up when decoding or scaling give other pixels */

static kw_status hash_text(const kw_str *s, char key[65], kw_err *e)
{
    return s->failed || !kw_sha256_of(s->s, s->n, key) ? NO_MEMORY(e) : KW_OK;
}

kw_status kw__latents_key(const kw_latents *l, const kw_sample *s, char key[65], kw_err *e)
{
    const kw_fit *f = &s->fit;
    const uint8_t *g = l->c.background;
    kw_str t = { 0 };
    kw_str_printf(&t, "latent %d\n%s\n%s\n%d %d\n%dx%d %d,%d %dx%d\n%d\n%d,%d,%d\n", VERSION, l->d->items[s->item].hash,
                  l->vae_hash, l->c.factor, l->c.channels, f->scaled_w, f->scaled_h, f->crop_x, f->crop_y, f->w, f->h,
                  s->flip, g[0], g[1], g[2]);
    kw_status status = hash_text(&t, key, e);
    kw_str_free(&t);
    return status;
}

kw_status kw_text_key(const char *encoder_hash, int clip_skip, const int32_t *ids, size_t n, char key[65], kw_err *e)
{
    kw_str t = { 0 };
    kw_str_printf(&t, "text %d\n%s\n%d\n", VERSION, encoder_hash, clip_skip);
    for (size_t i = 0; i < n; i++)
        kw_str_printf(&t, "%d ", (int)ids[i]);
    kw_status status = hash_text(&t, key, e);
    kw_str_free(&t);
    return status;
}

/* ---- a batch ------------------------------------------------------------------------------------------ */

/* A random crop hardly comes twice. */
bool kw__latents_cached(const kw_latents *l, const kw_sample *s)
{
    return l->c.cache && !memcmp(&s->fit, &l->d->items[s->item].fit, sizeof s->fit);
}

typedef struct { int64_t shape[3]; size_t pixels, floats; } sizes;      /* of one sample */

static sizes sizes_of(const kw_latents *l, const kw_batch *b)
{
    sizes z = { .shape = { b->h / l->c.factor, b->w / l->c.factor, l->c.channels } };
    z.pixels = (size_t)b->w * (size_t)b->h * 3;
    z.floats = (size_t)(z.shape[0] * z.shape[1] * z.shape[2]);
    return z;
}

static bool find(kw_latents *l, const kw_sample *s, const sizes *z, float *out)
{
    char key[65];
    return kw__latents_cached(l, s) && !kw__latents_key(l, s, key, NULL)
        && kw_cache_find(l->c.cache, key, z->shape, 3, out);
}

static kw_status encode(kw_latents *l, const kw_batch *b, size_t i, const sizes *z, const float *image, float *out,
                        kw_err *e)
{
    char key[65];
    KW_TRY(l->c.encode(l->c.user, image, b->w, b->h, out, e));
    if (!kw__latents_cached(l, &b->samples[i]))
        return KW_OK;
    KW_TRY(kw__latents_key(l, &b->samples[i], key, e));
    return kw_cache_put(l->c.cache, key, z->shape, 3, out, e);
}

/* All are missing: they may have been loaded in the background together. next is loaded while these are encoded. */
static kw_status make_all(kw_latents *l, kw_batch *b, const kw_batch *next, const sizes *z, float *images, float *out,
                          kw_err *e)
{
    KW_TRY(kw_loader_images(l->c.loader, b, images, e));
    if (next)
        kw_latents_prefetch(l, next);
    for (size_t i = 0; i < b->n; i++)
        KW_TRY(encode(l, b, i, z, images + i * z->pixels, out + i * z->floats, e));
    return KW_OK;
}

static kw_status make_one(kw_latents *l, kw_batch *b, size_t i, const sizes *z, float *image, float *out, kw_err *e)
{
    kw_batch one = *b;
    one.samples = &b->samples[i];
    one.n = 1;
    KW_TRY(kw_loader_images(l->c.loader, &one, image, e));
    return encode(l, b, i, z, image, out + i * z->floats, e);
}

static kw_status make(kw_latents *l, kw_batch *b, const kw_batch *next, const bool *have, const sizes *z, float *out,
                      kw_err *e)
{
    bool all = true;
    for (size_t i = 0; i < b->n; i++)
        all &= !have[i];
    float *images = kw_block_new((all ? b->n : 1) * z->pixels * sizeof *images);
    if (!images)
        return NO_MEMORY(e);
    kw_status s = all ? make_all(l, b, next, z, images, out, e) : KW_OK;
    for (size_t i = 0; !s && !all && i < b->n; i++)
        if (!have[i])
            s = make_one(l, b, i, z, images, out, e);
    kw_block_free(images);
    return s;
}

static kw_status get(kw_latents *l, kw_batch *b, const kw_batch *next, float *moments, kw_err *e)
{
    sizes z = sizes_of(l, b);
    size_t missing = 0;
    if (b->w % l->c.factor || b->h % l->c.factor)
        return kw_fail(e, KW_EUSAGE, N_("a bucket of %dx%d is not a multiple of the autoencoder's factor %d"), b->w,
                       b->h, l->c.factor);
    kw_arena *a = kw_arena_new();
    bool *have = a ? kw_alloc_array(a, b->n, sizeof *have) : NULL;
    kw_status s = have ? KW_OK : NO_MEMORY(e);
    for (size_t i = 0; !s && i < b->n; i++)
        missing += !(have[i] = find(l, &b->samples[i], &z, moments + i * z.floats));
    if (!s && missing)
        s = make(l, b, next, have, &z, moments, e);
    kw_arena_free(a);
    return s;
}

kw_status kw_latents_get(kw_latents *l, kw_batch *b, float *moments, kw_err *e) { return get(l, b, NULL, moments, e); }

void kw_latents_prefetch(kw_latents *l, const kw_batch *next)
{
    sizes z = sizes_of(l, next);
    float *out = kw_block_new(z.floats * sizeof *out);
    bool wanted = out && next->n > 0;
    for (size_t i = 0; wanted && i < next->n; i++)
        wanted = !find(l, &next->samples[i], &z, out);
    kw_block_free(out);
    if (wanted)
        kw_loader_prefetch(l->c.loader, next);
}

/* ---- all of them -------------------------------------------------------------------------------------- */

static kw_batch nth(const kw_latents *l, const kw_plan_config *c, size_t i, kw_sample *s)
{
    size_t variants = c->flip && !c->held_out ? 2 : 1;
    const kw_item *t = &l->d->items[i / variants];
    *s = (kw_sample){ .item = (uint32_t)(i / variants), .flip = i % variants, .fit = t->fit };
    bool used = !t->bad && t->held_out == c->held_out;
    return (kw_batch){ .w = t->fit.w, .h = t->fit.h, .samples = s, .n = used };
}

kw_status kw_latents_fill(kw_latents *l, const kw_plan *p, bool (*progress)(void *user, size_t done, size_t n),
                          void *user, kw_err *e)
{
    const kw_plan_config *c = kw__plan_config(p);
    size_t variants = c->flip && !c->held_out ? 2 : 1, n = l->d->n * variants, done = 0;
    size_t total = kw_data_count(l->d, c->held_out) * variants;
    if (!l->c.cache || (c->random_crop && !c->held_out))
        return KW_OK;
    for (size_t i = 0; i < n; i++) {
        kw_sample sample, after = { 0 };
        kw_batch b = nth(l, c, i, &sample), next = i + 1 < n ? nth(l, c, i + 1, &after) : (kw_batch){ 0 };
        float *out = b.n ? kw_block_new(sizes_of(l, &b).floats * sizeof *out) : NULL;
        kw_status s = !b.n ? KW_OK : out ? get(l, &b, next.n ? &next : NULL, out, e) : NO_MEMORY(e);
        kw_block_free(out);
        KW_TRY(s);
        done += b.n;
        if (b.n && progress && !progress(user, done, total))
            return kw_fail(e, KW_ESTOP, N_("stopped while encoding pictures"));
    }
    return KW_OK;
}

kw_status kw_latents_new(kw_arena *a, const kw_dataset *d, const kw_latents_config *c, kw_latents **out, kw_err *e)
{
    kw_latents *l = *out = kw_alloc(a, sizeof *l);
    if (!l)
        return NO_MEMORY(e);
    *l = (kw_latents){ .d = d, .c = *c, .vae_hash = kw_strdup(a, c->vae_hash) };
    return l->vae_hash ? KW_OK : NO_MEMORY(e);
}
