/*
 * inpaint.c - what an inpainting U-Net sees beside the noisy latents: a mask and what is kept of a picture.
 *
 *   input (n, h, w, 2C + 1) = [ x (C) | mask (1) | latents of the picture, mid-grey where the mask is (C) ]
 *
 * The order is that of RunwayML's sd-v1-5-inpainting and of diffusers' StableDiffusionInpaintPipeline. Without a mask
 * everything is drawn anew: the mask is 1 everywhere and the picture is grey, as A1111 draws with such a base.
 */
#include "pipeline_internal.h"

#include <string.h>

bool kw_pipeline_inpaints(const kw_pipeline *p) { return kw_sd_inpaints(p->sd); }

/* Latents (C, h, w) of a picture that is mid-grey everywhere. */
static kw_status grey(kw_pipeline *p, kw_arena *a, int h, int w, const float **out, kw_err *e)
{
    int f = kw_pipeline_factor(p);
    size_t hw = (size_t)h * (size_t)w;
    float *latents = kw_alloc_array(a, hw * (size_t)p->sd->vae.latent, sizeof *latents);
    float *pixels = kw_block_new(hw * (size_t)f * (size_t)f * 3 * sizeof *pixels);
    kw_status s = latents && pixels ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s) {
        memset(pixels, 0, hw * (size_t)f * (size_t)f * 3 * sizeof *pixels);
        s = kw_pipeline_encode_pixels(p, pixels, w * f, h * f, latents, e);
    }
    kw_block_free(pixels);
    *out = latents;
    return s;
}

static kw_status check(const kw_request *r, kw_err *e)
{
    if (!r->mask != !r->masked)
        return kw_fail(e, KW_EUSAGE, N_("inpainting needs both a mask and the latents of what is kept"));
    return KW_OK;
}

kw_status kw__inpaint_begin(kw_pipeline *p, kw_arena *a, const kw_request *r, int h, int w, float **out, kw_err *e)
{
    size_t c = (size_t)p->sd->vae.latent, hw = (size_t)h * (size_t)w;
    const float *picture = NULL;
    *out = NULL;
    if (!kw_sd_inpaints(p->sd))
        return r->mask || r->masked ? kw_fail(e, KW_EUSAGE, N_("%s has no channels for a mask"),
                                              kw_source_path(p->sd->source)) : KW_OK;
    KW_TRY(check(r, e));
    if (!r->masked)
        KW_TRY(grey(p, a, h, w, &picture, e));
    float *more = kw_alloc_array(a, (size_t)r->n * hw * (c + 1), sizeof *more);
    if (!more)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < (size_t)r->n * hw; i++) {
        size_t sample = i / hw, at = i % hw;
        more[i * (c + 1)] = r->mask ? r->mask[i] : 1;
        for (size_t k = 0; k < c; k++)
            more[i * (c + 1) + 1 + k] = r->masked ? r->masked[(sample * c + k) * hw + at] : picture[k * hw + at];
    }
    *out = more;
    return KW_OK;
}

void kw__inpaint_join(const float *x, const float *more, size_t pixels, size_t c, float *out)
{
    for (size_t i = 0; i < pixels; i++) {
        memcpy(out + i * (2 * c + 1), x + i * c, c * sizeof *out);
        memcpy(out + i * (2 * c + 1) + c, more + i * (c + 1), (c + 1) * sizeof *out);
    }
}
