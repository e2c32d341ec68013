/*
 * plan.c - the order of training: which samples make up the batch of a step, as a pure function of the dataset, the
 * seed and the step. Nothing is kept between steps but a copy of the current epoch's order, to save time.
 *
 *     samples of an epoch    each usable picture x repeats, by bucket; ids run over pictures in the dataset's order
 *     within a bucket        permuted by (seed, SHUFFLE, epoch, bucket), cut into batches, the last one may be smaller
 *     batches of all buckets permuted by (seed, SHUFFLE, epoch, 2^32-1)
 */
#include "internal.h"

#include <pthread.h>
#include <string.h>

typedef struct { uint32_t item, repeat, id; } slot;
typedef struct { uint32_t bucket, first, n; } chunk;      /* slots of one batch */

struct kw_plan {
    const kw_dataset *d;
    kw_plan_config c;
    slot *slots;                          /* (n_slots) by bucket */
    chunk *chunks;                        /* (n_chunks) */
    uint32_t n_slots, n_chunks;
    uint32_t *first;                      /* (n_buckets + 1) first slot of each bucket */
    pthread_mutex_t lock;
    int64_t epoch;                        /* whose order this is; -1: none yet */
    uint32_t *slot_order, *chunk_order;   /* slot_order: within each bucket, from its first slot */
};

static void forget(void *plan) { pthread_mutex_destroy(&((kw_plan *)plan)->lock); }

static uint32_t repeats(const kw_plan *p, const kw_item *t)
{
    return t->bad || t->held_out != p->c.held_out ? 0 : p->c.held_out ? 1 : (uint32_t)t->repeats;
}

static kw_status count_slots(kw_plan *p, kw_err *e)
{
    uint64_t n = 0;
    for (size_t i = 0; i < p->d->n; i++)
        n += repeats(p, &p->d->items[i]);
    if (n > 100000000)
        return kw_fail(e, KW_EUSAGE, N_("%llu samples in an epoch are too many: lower the repeats"),
                       (unsigned long long)n);
    if (!n)
        return kw_fail(e, KW_EDATA,
                       p->c.held_out ? N_("%s: no picture is held out") : N_("%s: no picture is left to train on"),
                       p->d->root);
    p->n_slots = (uint32_t)n;
    return KW_OK;
}

static void fill_slots(kw_plan *p, uint32_t *next)
{
    const kw_dataset *d = p->d;
    for (size_t i = 0; i < d->n; i++)
        p->first[d->items[i].bucket + 1] += repeats(p, &d->items[i]);
    for (size_t b = 0; b < d->n_buckets; b++) {
        next[b] = p->first[b];
        p->first[b + 1] += p->first[b];
    }
    for (uint32_t i = 0, id = 0; i < d->n; i++)
        for (uint32_t k = 0; k < repeats(p, &d->items[i]); k++)
            p->slots[next[d->items[i].bucket]++] = (slot){ i, k, id++ };
}

static void fill_chunks(kw_plan *p)
{
    uint32_t batch = (uint32_t)p->c.batch;
    for (uint32_t b = 0; b < p->d->n_buckets; b++)
        for (uint32_t i = p->first[b]; i < p->first[b + 1]; i += batch)
            p->chunks[p->n_chunks++] = (chunk){ b, i, KW_MIN(batch, p->first[b + 1] - i) };
}

kw_status kw_plan_new(kw_arena *a, const kw_dataset *d, const kw_plan_config *c, kw_plan **out, kw_err *e)
{
    kw_plan *p = kw_alloc(a, sizeof *p);
    *out = NULL;
    if (!p)
        return NO_MEMORY(e);
    *p = (kw_plan){ .d = d, .c = *c, .epoch = -1 };
    if (c->batch < 1)
        return kw_fail(e, KW_EUSAGE, N_("a batch of %d: at least 1"), c->batch);
    if (!d->n_buckets)
        KW_BUG("a plan is made after kw_data_buckets");
    KW_TRY(count_slots(p, e));
    uint32_t *next = kw_alloc_array(a, d->n_buckets, sizeof *next);
    p->slots = kw_alloc_array(a, p->n_slots, sizeof *p->slots);
    p->slot_order = kw_alloc_array(a, p->n_slots, sizeof *p->slot_order);
    p->chunks = kw_alloc_array(a, p->n_slots, sizeof *p->chunks);
    p->chunk_order = kw_alloc_array(a, p->n_slots, sizeof *p->chunk_order);
    p->first = kw_alloc_array(a, d->n_buckets + 1, sizeof *p->first);
    if (!next || !p->slots || !p->slot_order || !p->chunks || !p->chunk_order || !p->first)
        return NO_MEMORY(e);
    fill_slots(p, next);
    fill_chunks(p);
    pthread_mutex_init(&p->lock, NULL);
    KW_TRY(kw_defer(a, forget, p));
    *out = p;
    return KW_OK;
}

const kw_plan_config *kw__plan_config(const kw_plan *p) { return &p->c; }
int64_t kw_plan_steps(const kw_plan *p) { return p->n_chunks; }
int64_t kw_plan_samples(const kw_plan *p) { return p->n_slots; }

/* ---- the order of an epoch ---------------------------------------------------------------------------- */

static void permute(const kw_plan *p, uint32_t epoch, uint32_t key, uint32_t *order, uint32_t n)
{
    kw_rng r = { .seed = p->c.seed, .stream = KW_RNG_SHUFFLE, .step = epoch, .sample = key };
    if (!p->c.held_out)
        kw_rng_permute(r, order, n);
    for (uint32_t i = 0; p->c.held_out && i < n; i++)
        order[i] = i;
}

static void order_epoch(kw_plan *p, uint32_t epoch)
{
    if (p->epoch == epoch)
        return;
    for (uint32_t b = 0; b < p->d->n_buckets; b++)
        permute(p, epoch, b, p->slot_order + p->first[b], p->first[b + 1] - p->first[b]);
    permute(p, epoch, UINT32_MAX, p->chunk_order, p->n_chunks);
    p->epoch = epoch;
}

/* Mirror image and crop of a sample: each from its own stream, so that one option does not move the other's numbers. */
static kw_sample sample(const kw_plan *p, const slot *s, uint32_t epoch)
{
    kw_sample out = { .item = s->item, .repeat = s->repeat, .id = s->id, .epoch = epoch };
    kw_rng flip = { .seed = p->c.seed, .stream = KW_RNG_FLIP, .step = epoch, .sample = s->id };
    kw_rng crop = { .seed = p->c.seed, .stream = KW_RNG_CROP, .step = epoch, .sample = s->id };
    kw_fit *f = &out.fit;
    *f = p->d->items[s->item].fit;
    if (p->c.held_out)
        return out;
    out.flip = p->c.flip && kw_rng_u32(flip, 0) >> 31;
    if (p->c.random_crop) {
        f->crop_x = (int)kw_rng_below(crop, 0, (uint64_t)(f->scaled_w - f->w + 1));
        f->crop_y = (int)kw_rng_below(crop, 1, (uint64_t)(f->scaled_h - f->h + 1));
    }
    return out;
}

kw_status kw_plan_batch(kw_plan *p, kw_arena *a, int64_t step, kw_batch *out, kw_err *e)
{
    int64_t epoch = step / p->n_chunks;
    if (step < 0 || epoch >= UINT32_MAX)
        return kw_fail(e, KW_EUSAGE, N_("no step %lld"), (long long)step);
    pthread_mutex_lock(&p->lock);
    order_epoch(p, (uint32_t)epoch);
    chunk c = p->chunks[p->chunk_order[step % p->n_chunks]];
    const kw_bucket *b = &p->d->buckets[c.bucket];
    *out = (kw_batch){ .step = step, .epoch = (uint32_t)epoch, .w = b->w, .h = b->h, .n = c.n };
    out->samples = kw_alloc_array(a, c.n, sizeof *out->samples);
    for (uint32_t i = 0; out->samples && i < c.n; i++)
        out->samples[i] = sample(p, &p->slots[p->first[c.bucket] + p->slot_order[c.first + i]], out->epoch);
    pthread_mutex_unlock(&p->lock);
    return out->samples ? KW_OK : NO_MEMORY(e);
}
