/*
 * extract.c - a LoRA out of the difference of two models.
 *
 *   D = W_tuned - W_base of each layer that LoRAs are hung on, a convolution as (out, in·kh·kw);  D ≈ (U S)(Vᵀ), the
 *   largest singular values: the nearest matrix of that rank (Eckart and Young). Layers that do not differ have none.
 *   What differs elsewhere (norms, biases, embeddings, time projections) no LoRA can hold: its share is told.
 */
#include "factors.h"
#include "models.h"

#include "run/run.h"

#include <math.h>
#include <string.h>

/* The path of a layer that may get factors; false: none. */
static bool path_of(const kw_extract *x, kw_part p, const kw_tensor *t, char path[KW_KEY_ROOM])
{
    const size_t n = strlen(t->name), tail = strlen(".weight");
    if (!kw_ends_with(t->name, ".weight") || n >= KW_KEY_ROOM || (t->rank != 2 && t->rank != 4))
        return false;
    memcpy(path, t->name, n - tail);
    path[n - tail] = 0;
    return (kw_target_of(p, path) & x->targets) != 0 && !strstr(path, "embeddings.");
}

size_t kw_extract_n(const kw_extract *x)
{
    char path[KW_KEY_ROOM];
    size_t n = 0;
    for (int p = 0; p < KW_N_PARTS; p++)
        for (size_t i = 0; p != KW_PART_VAE && i < kw_source_n(x->tuned, (kw_part)p); i++)
            n += path_of(x, (kw_part)p, kw_source_at(x->tuned, (kw_part)p, i), path);
    return n;
}

static kw_status other(const kw_extract *x, kw_part p, const kw_tensor *t, const kw_tensor **b, kw_err *e)
{
    char left[160], right[160];
    *b = kw_source_find(x->base, p, t->name);
    if (!*b)
        return kw_fail(e, KW_EDATA, N_("%s has no \"%s\" in its %s, %s has"), kw_source_path(x->base), t->name,
                       kw_part_name(p), kw_source_path(x->tuned));
    if ((*b)->rank == t->rank && !memcmp((*b)->shape, t->shape, (size_t)t->rank * sizeof *t->shape))
        return KW_OK;
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: \"%s\" of the %s has the size %s, in %s %s"), kw_source_path(x->base),
                          t->name, kw_part_name(p), kw_shape_text(*b, right), kw_source_path(x->tuned),
                          kw_shape_text(t, left));
    return kw_advise(e, s, N_("the base is the model that the other was trained from"));
}

/* d = t - b, and its squared norm, in the order of the numbers. */
static double subtract(const kw_tensor *t, const kw_tensor *b, float *d)
{
    double sum = 0;
    const int64_t n = kw_tensor_count(t);
    for (int64_t at = 0; at < n; at += KW__PIECE) {
        float from[KW__PIECE], to[KW__PIECE];
        const size_t k = (size_t)KW_MIN(n - at, (int64_t)KW__PIECE), i0 = (size_t)at;
        kw_convert(KW_F32, to, t->dtype, (const char *)t->data + i0 * kw_dtype_size(t->dtype), k);
        kw_convert(KW_F32, from, b->dtype, (const char *)b->data + i0 * kw_dtype_size(b->dtype), k);
        for (size_t i = 0; i < k; i++) {
            to[i] -= from[i];
            sum += (double)to[i] * to[i];
        }
        if (d)
            memcpy(d + i0, to, k * sizeof *d);
    }
    if (t->mapped)
        kw_pages_drop(t->data, (size_t)t->bytes);
    if (b->mapped)
        kw_pages_drop(b->data, (size_t)b->bytes);
    return sum;
}

typedef struct {
    const kw_extract *x;
    kw__maker m;
    double inside, outside;
    uint64_t done;
    kw_merge_tell *tell;
    void *user;
} work;

static kw_status one_layer(work *w, kw_part p, const kw_tensor *t, const kw_tensor *b, const char *path, kw_err *e)
{
    kw__place place = { .part = p, .path = path, .rank = t->rank };
    memcpy(place.shape, t->shape, sizeof place.shape);
    float *d = kw_block_new((size_t)kw_tensor_count(t) * sizeof *d);
    if (!d)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    const double norm = subtract(t, b, d);
    w->inside += norm;
    kw_status s = norm > 0 ? kw__maker_reduce(&w->m, &place, d, 1, &w->x->rank, e) : KW_OK;
    kw_block_free(d);
    return s ? s : w->tell ? w->tell(w->user, ++w->done, e) : KW_OK;
}

static kw_status one_part(work *w, kw_part p, kw_err *e)
{
    char path[KW_KEY_ROOM];
    for (size_t i = 0; i < kw_source_n(w->x->tuned, p); i++) {
        const kw_tensor *t = kw_source_find(w->x->tuned, p, kw_source_at(w->x->tuned, p, i)->name), *b;
        if (!kw__is_float(t->dtype))
            continue;
        KW_TRY(other(w->x, p, t, &b, e));
        if (path_of(w->x, p, t, path))
            KW_TRY(one_layer(w, p, t, b, path, e));
        else
            w->outside += subtract(t, b, NULL);
    }
    return KW_OK;
}

kw_status kw_lora_extract(kw_arena *a, const kw_extract *x, kw_merge_tell *tell, void *user, kw_made_lora *out,
                          kw_err *e)
{
    kw_unet_config u;
    work w = { .x = x, .tell = tell, .user = user };
    KW_TRY(kw__maker_new(a, kw_extract_n(x), x->type, out, &w.m, e));
    if (kw_source_has(x->tuned, KW_PART_UNET)) {
        KW_TRY(kw_unet_read(kw_source_config(x->tuned, KW_PART_UNET), &u, e));
        w.m.names = kw_lora_names_of(&u);
    }
    for (int p = 0; p < KW_N_PARTS; p++)
        if (p != KW_PART_VAE && kw_source_has(x->tuned, (kw_part)p) && kw_source_has(x->base, (kw_part)p))
            KW_TRY(one_part(&w, (kw_part)p, e));
    if (!out->n_layers)
        return kw_fail(e, KW_EDATA, N_("%s and %s do not differ in any layer that a LoRA can hold"),
                       kw_source_path(x->tuned), kw_source_path(x->base));
    kw__maker_finish(&w.m);
    out->outside = w.inside + w.outside > 0 ? w.outside / (w.inside + w.outside) : 0;
    return KW_OK;
}
