/*
 * chance.c - what chance adds to a micro-batch: latents drawn from their moments, noise, timesteps. Each number is a
 * pure function of the seed, the micro-batch's index and the sample, so a resumed run draws the same.
 */
#include "train.h"

#include <math.h>
#include <string.h>

enum { MASKED = 1 << 30 };                /* numbers of their own for the masked picture beside sample i */

static kw_rng stream(const kw_chance *c, kw_rng_stream what, int64_t m, int sample)
{
    return (kw_rng){ .seed = c->seed, .stream = what, .step = (uint32_t)m, .sample = (uint32_t)sample };
}

/* z = mean + sd · normal, then (z - shift) · scaling: what the U-Net works on. */
static void latents(const kw_chance *c, const kw_vae_config *v, const float *moments, int64_t pixels, kw_rng rng,
                    float *out)
{
    int n = v->latent;
    if (!c->mean)
        kw_rng_normals(rng, 0, out, (size_t)(pixels * n));
    for (int64_t i = 0; i < pixels * n; i++) {
        const float *m = moments + i / n * 2 * n + i % n;
        float logvar = fminf(fmaxf(m[n], -30), 20);
        float z = m[0] + (c->mean ? 0 : expf(0.5f * logvar) * out[i]);
        out[i] = (float)(((double)z - v->shift) * v->scaling);
    }
}

static void noise(const kw_chance *c, int64_t m, int sample, int64_t pixels, int channels, float *out)
{
    kw_rng_normals(stream(c, KW_RNG_NOISE, m, sample), 0, out, (size_t)(pixels * channels));
    if (c->noise_offset <= 0)
        return;
    for (int k = 0; k < channels; k++) {
        float shift = (float)(c->noise_offset * kw_rng_normal(stream(c, KW_RNG_OFFSET, m, sample), (uint64_t)k));
        for (int64_t p = 0; p < pixels; p++)
            out[p * channels + k] += shift;
    }
}

/* Anywhere in the schedule; stratified: one timestep from each of n equal parts, as fair over a batch as over a run. */
static void timesteps(const kw_chance *c, int total, int64_t m, int n, int64_t *t)
{
    kw_rng rng = stream(c, KW_RNG_TIMESTEP, m, 0);
    for (int i = 0; i < n; i++) {
        double u = kw_rng_double(rng, (uint64_t)i);
        t[i] = c->stratified ? (int64_t)((i + u) / n * total) : (int64_t)(u * total);
        t[i] = KW_MIN(t[i], total - 1);
    }
}

kw_status kw_chance_micro(kw_arena *a, const kw_chance *c, const kw_vae_config *v, int n_timesteps,
                          const float *moments, int64_t m, kw_micro *b, kw_err *e)
{
    int64_t pixels = (int64_t)b->h * b->w;
    size_t n = (size_t)b->n, each = (size_t)pixels * (size_t)v->latent;
    float *x = kw_alloc_array(a, n * each, sizeof *x), *eps = kw_alloc_array(a, n * each, sizeof *eps);
    int64_t *t = kw_alloc_array(a, n, sizeof *t);
    if (!x || !eps || !t)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        latents(c, v, moments + i * each * 2, pixels, stream(c, KW_RNG_LATENT, m, (int)i), x + i * each);
        noise(c, m, (int)i, pixels, v->latent, eps + i * each);
    }
    timesteps(c, n_timesteps, m, b->n, t);
    b->latents = x;
    b->noise = eps;
    b->timesteps = t;
    return KW_OK;
}

kw_status kw_chance_beside(kw_arena *a, const kw_chance *c, const kw_vae_config *v, const float *mask,
                           const float *moments, int64_t m, kw_micro *b, kw_err *e)
{
    int64_t pixels = (int64_t)b->h * b->w, n = v->latent;
    float *all = kw_alloc_array(a, (size_t)(b->n * pixels * (n + 1)), sizeof *all),
          *one = kw_alloc_array(a, (size_t)(pixels * n), sizeof *one);
    if (!all || !one)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < b->n; i++) {
        float *to = all + i * pixels * (n + 1);
        latents(c, v, moments + i * pixels * n * 2, pixels, stream(c, KW_RNG_LATENT, m, MASKED | i), one);
        for (int64_t p = 0; p < pixels; p++) {
            to[p * (n + 1)] = mask[i * pixels + p];
            memcpy(to + p * (n + 1) + 1, one + p * n, (size_t)n * sizeof *one);
        }
    }
    b->beside = all;
    return KW_OK;
}
