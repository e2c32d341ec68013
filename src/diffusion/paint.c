/*
 * paint.c - painting over a picture: its latents get noise, and where a mask is black they stay.
 *
 *   start      x = a init + s noise            at the level that the strength asks for
 *   X0         x_0' = m x_0 + (1 - m) init     said to the sampler as an answer y' of the network, from x_0 = p x + q y
 *   STEP       x' = m x' + (1 - m)(a' init + s' noise)
 */
#include "pipeline_internal.h"

#include "sampling.h"

#include <math.h>
#include <string.h>

/* ---- where to start ---------------------------------------------------------------------------------------------- */

static bool as_a1111(const kw_sampling_options *o)
{
    kw_spacing s = o->spacing == KW_SPACING_AUTO ? o->sampler->spacing : o->spacing;
    return s == KW_SPACING_A1111;
}

/* A1111's setup_img2img_steps: how many are spread, and t_enc. */
static kw_status spread(kw_sampling_options *o, double strength, bool exact, int *t_enc, kw_err *e)
{
    double s = fmin(strength, 0.999);
    *t_enc = exact ? o->steps - 1 : (int)(s * o->steps);
    if (!exact)
        return KW_OK;
    if (o->steps / s > KW_MAX_TRAIN_STEPS)
        return kw_fail(e, KW_EUSAGE, N_("%d steps at strength %g would be spread over more than %d"), o->steps,
                       strength, KW_MAX_TRAIN_STEPS);
    o->steps = (int)(o->steps / s);
    return KW_OK;
}

/* DDIM and its kind: A1111 puts in the noise of one timestep and goes on from the one below it. */
static kw_status timesteps_a1111(const kw_noise *z, kw_sampling_options *o, int t_enc, int *noised, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    kw_sampling *list;
    kw_status s = a ? kw_sampling_start(a, z, o, 1, &list, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    int n = s ? 0 : kw_sampling_steps(list);
    kw_arena_free(a);
    if (s)
        return s;
    *noised = KW_MAX(n - t_enc, 0);
    o->first = KW_MIN(*noised + 1, n - 1);
    return KW_OK;
}

kw_status kw_strength_steps(const kw_noise *z, kw_sampling_options *o, double strength, bool exact, int *noised,
                            kw_err *e)
{
    int t_enc;
    if (!(strength >= 0 && strength <= 1) || (exact && strength == 0))
        return kw_fail(e, KW_EUSAGE, exact ? N_("strength %g: above 0 and up to 1 is possible")
                                           : N_("strength %g: 0 to 1 is possible"), strength);
    o->first = 0;
    if (!as_a1111(o) && !exact) {
        o->first = o->steps - KW_MAX(KW_MIN((int)(o->steps * strength), o->steps), 1);
        *noised = o->first;
        return KW_OK;
    }
    KW_TRY(spread(o, strength, exact, &t_enc, e));
    bool timesteps = o->sampler->lists == KW_LISTS_DDIM || o->sampler->lists == KW_LISTS_PLMS;
    if (as_a1111(o) && timesteps && (!o->schedule || kw_sigma_schedule_plain(o->schedule)))
        return timesteps_a1111(z, o, t_enc, noised, e);
    *noised = o->first = o->steps - t_enc - 1;
    return KW_OK;
}

/* ---- blending ---------------------------------------------------------------------------------------------------- */

kw_status kw__paint_begin(const kw_pipeline *p, kw_arena *a, const kw_request *r, const kw_sampling *s, int h, int w,
                          float *x, kw__paint *out, kw_err *e)
{
    int c = p->sd->vae.latent;
    size_t pixels = (size_t)r->n * (size_t)h * (size_t)w, n = pixels * (size_t)c;
    float *init = kw_alloc_array(a, n, sizeof *init), *noise = kw_alloc_array(a, n, sizeof *noise);
    if (!init || !noise)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (r->noised < 0 || r->noised > r->sampling.first)
        return kw_fail(e, KW_EUSAGE, N_("noise of step %d below a start at step %d"), r->noised, r->sampling.first);
    kw__to_nhwc(r->init, r->n, c, h, w, init);
    memcpy(noise, x, n * sizeof *noise);
    kw_add_noise(kw_sampling_at(s, r->noised).from, init, noise, x, n);
    *out = (kw__paint){ init, noise, r->paint, pixels, (size_t)c, r->keep };
    return KW_OK;
}

void kw__paint_answer(const kw__paint *k, kw_predict predict, kw_mix m, const float *x, float *y)
{
    if (!k->paint || k->keep != KW_KEEP_X0)
        return;
    kw_split f = kw_split_factors(predict, m);
    for (size_t i = 0; i < k->pixels; i++) {
        double mask = (double)k->paint[i];
        for (size_t j = i * k->c; mask != 1 && j < (i + 1) * k->c; j++) {
            double stays = ((double)k->init[j] - f.x0.x * (double)x[j]) / f.x0.y;
            y[j] = (float)(mask * (double)y[j] + (1 - mask) * stays);
        }
    }
}

/* With X0 only at the end: A1111 mixes the finished latents once more. */
void kw__paint_step(const kw__paint *k, kw_mix m, float *x)
{
    if (!k->paint || (k->keep == KW_KEEP_X0 && m.s != 0))
        return;
    for (size_t i = 0; i < k->pixels; i++) {
        double mask = (double)k->paint[i];
        for (size_t j = i * k->c; mask != 1 && j < (i + 1) * k->c; j++)
            x[j] = (float)(mask * (double)x[j]
                           + (1 - mask) * (m.a * (double)k->init[j] + m.s * (double)k->noise[j]));
    }
}

/* ---- a draw from the autoencoder's latents ----------------------------------------------------------------------- */

kw_status kw_pipeline_encode_drawn(kw_pipeline *p, const kw_picture *picture, const float *normals, float *latents,
                                   kw_err *e)
{
    const kw_vae_config *c = &p->sd->vae;
    int f = kw_vae_factor(c), hw = picture->h / f * (picture->w / f), latent = c->latent;
    kw_program *program;
    KW_TRY(kw_pipeline_encode(p, picture, latents, e));     /* the means; and this program has the spread */
    KW_TRY(kw__pipeline_program(p, (kw__program_key){ .kind = KW__ENCODE, .n = 1, .h = picture->h / f,
                                                      .w = picture->w / f }, &program, e));
    const float *m = kw_program_result(program, "y");
    for (int i = 0; i < hw; i++)
        for (int k = 0; k < latent; k++) {
            double log_variance = fmax(-30, fmin(20, (double)m[i * 2 * latent + latent + k]));
            latents[k * hw + i] += (float)(c->scaling * exp(log_variance / 2) * (double)normals[k * hw + i]);
        }
    return KW_OK;
}
