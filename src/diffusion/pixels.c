/*
 * pixels.c - latents and pixels through the autoencoder; the two orders of numbers.
 *
 *   latents / scaling + shift ─ decoder ─► picture            picture ─ encoder ─► (mean - shift) scaling
 */
#include "pipeline_internal.h"

#include <math.h>

void kw__to_nhwc(const float *from, int n, int c, int h, int w, float *to)
{
    int64_t hw = (int64_t)h * w;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < hw; p++)
                to[(i * hw + p) * c + k] = from[(i * c + k) * hw + p];
}

void kw__to_nchw(const float *from, int n, int c, int h, int w, float *to)
{
    int64_t hw = (int64_t)h * w;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < hw; p++)
                to[(i * c + k) * hw + p] = from[(i * hw + p) * c + k];
}

static kw_status check_finite(const float *v, size_t n, kw_err *e)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i])) {
            kw_status s = kw_fail(e, KW_ENUMERIC, N_("the picture is no longer finite after the autoencoder"));
            return kw_advise(e, s, N_("try another autoencoder with --vae, or LoRA strengths closer to 1"));
        }
    return KW_OK;
}

kw_status kw_pipeline_decode(kw_pipeline *p, const float *latents, int h, int w, kw_picture *out, kw_err *e)
{
    const kw_vae_config *c = &p->sd->vae;
    int f = kw_vae_factor(c);
    size_t n = (size_t)h * (size_t)w * (size_t)c->latent;
    kw_program *program;
    KW_TRY(kw__pipeline_program(p, (kw__program_key){ .kind = KW__DECODE, .n = 1, .h = h, .w = w }, &program, e));
    float *z = kw_block_new(n * sizeof *z);
    if (!z)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw__to_nhwc(latents, 1, c->latent, h, w, z);
    for (size_t i = 0; i < n; i++)
        z[i] = (float)((double)z[i] / c->scaling + c->shift);
    kw_program_set(program, "z", z);
    kw_status s = kw_program_run(program, p->w, e);
    const float *y = s ? NULL : kw_program_result(program, "y");
    if (!s)
        s = check_finite(y, n / (size_t)c->latent * (size_t)f * (size_t)f * 3, e);
    if (!s)
        s = kw_picture_from_float(y, w * f, h * f, out, e);
    kw_block_free(z);
    return s;
}

kw_status kw_pipeline_encode_pixels(kw_pipeline *p, const float *pixels, int w, int h, float *latents, kw_err *e)
{
    const kw_vae_config *c = &p->sd->vae;
    int f = kw_vae_factor(c), hw = h / f * (w / f);
    kw_program *program;
    KW_TRY(kw_pipeline_check_size(p, w, h, e));
    KW_TRY(kw__pipeline_program(p, (kw__program_key){ .kind = KW__ENCODE, .n = 1, .h = h / f, .w = w / f }, &program,
                                e));
    kw_program_set(program, "image", pixels);
    KW_TRY(kw_program_run(program, p->w, e));
    const float *m = kw_program_result(program, "y");
    for (int i = 0; i < hw; i++)
        for (int k = 0; k < c->latent; k++)
            latents[k * hw + i] = (float)(((double)m[i * 2 * c->latent + k] - c->shift) * c->scaling);
    return KW_OK;
}

kw_status kw_pipeline_encode(kw_pipeline *p, const kw_picture *picture, float *latents, kw_err *e)
{
    float *pixels = kw_block_new((size_t)picture->w * (size_t)picture->h * 3 * sizeof *pixels);
    if (!pixels)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_picture_to_float(picture, false, pixels);
    kw_status s = kw_pipeline_encode_pixels(p, pixels, picture->w, picture->h, latents, e);
    kw_block_free(pixels);
    return s;
}
