/*
 * generate_canvas.c - --init and --mask: decoded, brought to size, encoded; and what is painted put back.
 *
 *   whole    init, mask -> resized to the picture's size;                picture over init by twice the mask
 *   masked   init, mask -> the box around the mask, grown -> resized;    picture into the box, over init by the mask
 *
 * The order of the steps and their rounding are A1111's (StableDiffusionProcessingImg2Img.init).
 */
#include "generate_canvas.h"

#include <math.h>
#include <string.h>

struct kw_canvas {
    kw_cli *cli;
    const kw_generate_config *c;
    kw_picture init, mask;                /* as in the files, the mask blurred; mask.rgb NULL: none */
    kw_box box;                           /* of a masked area, for this size */
    int w, h;                             /* px, of what is prepared; 0: nothing yet */
    kw_picture under, over;               /* what is put back, and by which mask */
    float *latents, *paint;               /* (C, h, w), (h, w) */
    float *mask_in, *masked;              /* (h, w), (C, h, w): what an inpainting base is told; else NULL */
    size_t each, plane;
    char hash[65];
};

static bool only_masked(const kw_canvas *v) { return v->mask.rgb && v->c->inpaint_area == KW_AREA_MASKED; }

/* What was made for one size. */
static void forget(kw_canvas *v)
{
    float **blocks[] = { &v->latents, &v->paint, &v->mask_in, &v->masked };
    kw_picture_free(&v->under);
    kw_picture_free(&v->over);
    v->under = v->over = (kw_picture){ 0 };
    for (size_t i = 0; i < KW_LEN(blocks); i++) {
        kw_block_free(*blocks[i]);
        *blocks[i] = NULL;
    }
    v->w = v->h = 0;
}

static void free_canvas(void *canvas)
{
    kw_canvas *v = canvas;
    kw_picture_free(&v->init);
    kw_picture_free(&v->mask);
    forget(v);
}

static void replace(kw_picture *p, const kw_picture *by)
{
    kw_picture_free(p);
    *p = *by;
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

/* Where the init is transparent it is painted anew. */
static kw_status mask_of_alpha(kw_canvas *v, kw_decoder *d, kw_err *e)
{
    static const uint8_t black[3] = { 0, 0, 0 };
    kw_picture on_black;
    if (v->mask.rgb || !(v->init.info.notes & KW_NOTE_ALPHA))
        return KW_OK;
    KW_TRY(kw_decoder_read(d, v->c->init, black, &on_black, e));
    kw_status s = kw_picture_new(v->init.w, v->init.h, &v->mask, e);
    if (!s && on_black.w == v->init.w && on_black.h == v->init.h)
        kw_mask_clear(&on_black, &v->init, &v->mask);
    if (!s)
        kw_mask_round(&v->mask);
    kw_picture_free(&on_black);
    return s;
}

/* A mask may carry its meaning in its transparency, as A1111's editor draws it: what is there is painted. */
static kw_status read_mask(kw_canvas *v, kw_decoder *d, kw_err *e)
{
    static const uint8_t black[3] = { 0, 0, 0 };
    kw_picture on_black;
    if (!v->c->mask)
        return KW_OK;
    KW_TRY(kw_decoder_read(d, v->c->mask, kw_picture_white, &v->mask, e));
    if (!(v->mask.info.notes & KW_NOTE_ALPHA)) {
        kw_mask_grey(&v->mask);
        return KW_OK;
    }
    KW_TRY(kw_decoder_read(d, v->c->mask, black, &on_black, e));
    if (on_black.w == v->mask.w && on_black.h == v->mask.h)
        kw_mask_clear(&on_black, &v->mask, &v->mask);
    kw_mask_invert(&v->mask);
    kw_mask_round(&v->mask);
    kw_picture_free(&on_black);
    return KW_OK;
}

static kw_status make_mask(kw_canvas *v, kw_err *e)
{
    kw_picture sized;
    kw_box any;
    if (!v->mask.rgb)
        return KW_OK;
    if (v->mask.w != v->init.w || v->mask.h != v->init.h) {
        KW_TRY(kw_picture_scale(&v->mask, KW_FILTER_BILINEAR, v->init.w, v->init.h, &sized, e));
        replace(&v->mask, &sized);
    }
    if (v->c->mask_invert)
        kw_mask_invert(&v->mask);
    if (!kw_mask_box(&v->mask, 0, &any)) {
        kw_status s = kw_fail(e, KW_EDATA, N_("%s: the mask is black everywhere: nothing is left to paint"),
                              v->c->mask ? v->c->mask : v->c->init);
        return kw_advise(e, s, N_("white is painted anew; --mask-invert turns it round"));
    }
    return kw_mask_blur(&v->mask, v->c->mask_blur, e);
}

static kw_status read_pictures(kw_canvas *v, kw_decoder *d, kw_err *e)
{
    KW_TRY(kw_decoder_read(d, v->c->init, kw_picture_white, &v->init, e));
    KW_TRY(read_mask(v, d, e));
    KW_TRY(mask_of_alpha(v, d, e));
    if (v->c->from_masked && !v->mask.rgb)
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s was painted with a mask"), v->c->from),
                         N_("name the mask with --mask"));
    KW_TRY(make_mask(v, e));
    return kw_sha256_file(v->c->init, v->hash, e);
}

kw_status kw_canvas_open(kw_cli *cli, const kw_generate_config *c, kw_canvas **out, kw_err *e)
{
    kw_decoder *d;
    *out = NULL;
    if (c->mask && !c->init)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("--mask: there is no picture to paint over")),
                         N_("name it with --init"));
    if (!c->init)
        return KW_OK;
    kw_canvas *v = kw_alloc(cli->arena, sizeof *v);
    if (!v || kw_defer(cli->arena, free_canvas, v))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    v->cli = cli;
    v->c = c;
    KW_TRY(kw_decoder_new(kw_decoder_argv(), 1, &d, e));
    kw_status s = read_pictures(v, d, e);
    kw_decoder_free(d);
    *out = v;
    return s;
}

void kw_canvas_size(const kw_canvas *v, int native, int factor, int *width, int *height)
{
    double w = v->init.w, h = v->init.h, most = (double)native * native, scale = fmin(1, sqrt(most / (w * h)));
    if (only_masked(v))                   /* the box has no shape of its own */
        w = h = native / scale;
    if (!*width && *height)
        scale = *height / h;
    else if (*width && !*height)
        scale = *width / w;
    if (!*width)
        *width = KW_MAX(1, (int)(w * scale / factor + 0.5)) * factor;
    if (!*height)
        *height = KW_MAX(1, (int)(h * scale / factor + 0.5)) * factor;
}

/* ---- one size --------------------------------------------------------------------------------------------------- */

/* The box of both, resized; what is put back keeps the size of the files. */
static kw_status cut_box(kw_canvas *v, kw_picture *image, kw_picture *mask, kw_err *e)
{
    kw_picture part;
    kw_mask_box(&v->mask, v->c->mask_padding, &v->box);
    v->box = kw_box_shape(v->box, v->w, v->h, v->init.w, v->init.h);
    kw_box b = v->box;
    KW_TRY(kw_picture_crop(&v->mask, b.x, b.y, b.w, b.h, &part, e));
    kw_status s = kw_picture_sized(&part, KW_SIZED_FILL, v->w, v->h, mask, e);
    kw_picture_free(&part);
    if (!s)
        s = kw_picture_crop(&v->init, b.x, b.y, b.w, b.h, &part, e);
    if (!s)
        s = kw_picture_sized(&part, KW_SIZED_FILL, v->w, v->h, image, e);
    kw_picture_free(&part);
    if (!s)
        s = kw_picture_resize(&v->init, v->init.w, v->init.h, &v->under, e);
    return s ? s : kw_picture_resize(&v->mask, v->mask.w, v->mask.h, &v->over, e);
}

static kw_status bring_to_size(kw_canvas *v, kw_picture *image, kw_picture *mask, kw_err *e)
{
    if (only_masked(v))
        return cut_box(v, image, mask, e);
    KW_TRY(kw_picture_sized(&v->init, (kw_sized)v->c->resize_mode, v->w, v->h, image, e));
    if (!v->mask.rgb)
        return KW_OK;
    KW_TRY(kw_picture_sized(&v->mask, (kw_sized)v->c->resize_mode, v->w, v->h, mask, e));
    KW_TRY(kw_picture_resize(image, v->w, v->h, &v->under, e));
    KW_TRY(kw_picture_resize(mask, v->w, v->h, &v->over, e));
    kw_mask_double(&v->over);
    return KW_OK;
}

/* The mask at the latents' size: cubic, then each pixel belongs to one side or the other. */
static kw_status latent_mask(kw_canvas *v, const kw_picture *mask, int w, int h, kw_err *e)
{
    kw_picture small;
    KW_TRY(kw_picture_scale(mask, KW_FILTER_BICUBIC, w, h, &small, e));
    v->plane = (size_t)w * (size_t)h;
    v->paint = kw_block_new(v->plane * sizeof *v->paint);
    for (size_t i = 0; v->paint && i < v->plane; i++)
        v->paint[i] = small.rgb[3 * i] >= 128;
    kw_picture_free(&small);
    return v->paint ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* An inpainting base sees the mask, and the picture with mid-grey below it (A1111's inpainting_image_conditioning). */
static kw_status tell_base(kw_canvas *v, kw_pipeline *p, const kw_picture *image, const kw_picture *mask, kw_err *e)
{
    size_t n = (size_t)v->w * (size_t)v->h, f = (size_t)kw_pipeline_factor(p), columns = (size_t)v->w / f;
    float *pixels = kw_block_new(3 * n * sizeof *pixels);
    v->mask_in = kw_block_new(v->plane * sizeof *v->mask_in);
    v->masked = kw_block_new(v->each * sizeof *v->masked);
    kw_status s = pixels && v->mask_in && v->masked ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s) {
        for (size_t i = 0; i < v->plane; i++)               /* the first pixel of each latent one, as torch's nearest */
            v->mask_in[i] = mask->rgb[3 * (i / columns * f * (size_t)v->w + i % columns * f)] >= 128;
        kw_picture_to_float(image, false, pixels);
        for (size_t i = 0; i < 3 * n; i++)
            pixels[i] = mask->rgb[i] >= 128 ? 0 : pixels[i];
        s = kw_pipeline_encode_pixels(p, pixels, v->w, v->h, v->masked, e);
    }
    kw_block_free(pixels);
    return s;
}

static kw_status encode(kw_canvas *v, kw_pipeline *p, kw_picture *image, const kw_picture *mask, kw_err *e)
{
    int f = kw_pipeline_factor(p), h = v->h / f, w = v->w / f;
    v->each = (size_t)kw_pipeline_base(p)->vae.latent * (size_t)h * (size_t)w;
    v->latents = kw_block_new(v->each * sizeof *v->latents);
    if (!v->latents)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (mask->rgb && v->c->mask_fill != KW_MASK_ORIGINAL)
        KW_TRY(kw_picture_fill_in(image, mask, e));
    if (mask->rgb)
        KW_TRY(latent_mask(v, mask, w, h, e));
    if (mask->rgb && kw_pipeline_inpaints(p))
        KW_TRY(tell_base(v, p, image, mask, e));
    return kw_pipeline_encode(p, image, v->latents, e);
}

kw_status kw_canvas_prepare(kw_canvas *v, kw_pipeline *p, int width, int height, kw_err *e)
{
    kw_picture image = { 0 }, mask = { 0 };
    if (v->w == width && v->h == height)
        return KW_OK;
    forget(v);
    v->w = width;
    v->h = height;
    kw_status s = bring_to_size(v, &image, &mask, e);
    if (!s)
        s = encode(v, p, &image, &mask, e);
    kw_picture_free(&image);
    kw_picture_free(&mask);
    if (s)
        forget(v);
    return s;
}

/* ---- a request -------------------------------------------------------------------------------------------------- */

/* "latent noise" and "latent nothing" below the mask; noise is the one each picture starts from. */
static kw_status below_mask(const kw_canvas *v, kw_arena *a, const kw_request *r, float *init, kw_err *e)
{
    uint64_t *seed = kw_alloc_array(a, (size_t)r->n, sizeof *seed);
    float *noise = kw_alloc_array(a, (size_t)r->n * v->each, sizeof *noise);
    for (int i = 0; seed && i < r->n; i++)
        seed[i] = r->wish[i].seed;
    kw_noise_wish plain = { .kind = r->seeds, .seed = seed, .n = r->n, .channels = (int)(v->each / v->plane), .h = 1,
                            .w = (int)v->plane };
    kw_noise_source *source = seed && noise ? kw_noise_source_new(a, &plain) : NULL;
    if (!source)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (v->c->mask_fill == KW_MASK_NOISE)
        KW_TRY(kw_noise_source_start(source, noise, e));
    for (size_t i = 0; i < (size_t)r->n * v->each; i++)
        if (v->paint[i % v->plane] != 0)
            init[i] = noise[i];
    return KW_OK;
}

/* n times the same numbers, on the arena; NULL stays NULL. */
static kw_status repeated(kw_arena *a, const float *one, size_t n, size_t each, float **out, kw_err *e)
{
    *out = one ? kw_alloc_array(a, n * each, sizeof **out) : NULL;
    if (one && !*out)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; *out && i < n; i++)
        memcpy(*out + i * each, one, each * sizeof **out);
    return KW_OK;
}

kw_status kw_canvas_into(const kw_canvas *v, kw_arena *a, const kw_pipeline *p, kw_request *r, kw_err *e)
{
    size_t n = (size_t)r->n;
    float *init, *paint, *mask, *masked;
    KW_TRY(repeated(a, v->latents, n, v->each, &init, e));
    KW_TRY(repeated(a, v->paint, n, v->plane, &paint, e));
    KW_TRY(repeated(a, v->mask_in, n, v->plane, &mask, e));
    KW_TRY(repeated(a, v->masked, n, v->each, &masked, e));
    bool diffusers = v->c->spacing == KW_SPACING_DIFFUSERS;
    r->init = init;
    r->mask = mask;
    r->masked = masked;
    r->paint = diffusers && kw_pipeline_inpaints(p) ? NULL : paint;       /* there such a base is left to itself */
    r->keep = diffusers ? KW_KEEP_STEP : KW_KEEP_X0;
    if (paint && (v->c->mask_fill == KW_MASK_NOISE || v->c->mask_fill == KW_MASK_NOTHING))
        return below_mask(v, a, r, init, e);
    return KW_OK;
}

/* ---- putting back ----------------------------------------------------------------------------------------------- */

kw_status kw_canvas_finish(const kw_canvas *v, const kw_picture *drawn, kw_picture *out, kw_err *e)
{
    if (!v->over.rgb)
        return kw_picture_resize(drawn, drawn->w, drawn->h, out, e);
    if (only_masked(v)) {
        kw_picture part;
        KW_TRY(kw_picture_sized(drawn, KW_SIZED_CROP, v->box.w, v->box.h, &part, e));
        kw_status s = kw_picture_resize(&v->under, v->under.w, v->under.h, out, e);
        if (!s)
            kw_picture_paste(out, &part, v->box.x, v->box.y);
        kw_picture_free(&part);
        if (s)
            return s;
    } else
        KW_TRY(kw_picture_sized(drawn, KW_SIZED_STRETCH, v->under.w, v->under.h, out, e));
    kw_picture_over(out, &v->under, &v->over);
    return KW_OK;
}

/* ---- what is written down --------------------------------------------------------------------------------------- */

static const char *const fills[] = { "original", "fill", "latent noise", "latent nothing" };

kw_status kw_canvas_keys(kw_arena *a, const kw_canvas *v, const kw_generate_config *c, double strength, kw_meta *list,
                         size_t *n, kw_err *e)
{
    static const char *const modes[] = { "stretch", "crop", "fill" };
    size_t first = *n;
#define ADD(key, ...) list[(*n)++] = (kw_meta){ key, kw_sprintf(a, __VA_ARGS__) }
    ADD("Denoising strength", "%.6g", strength);
    ADD("Init image hash", "%.10s", v->hash);
    if (c->img2img_steps)
        ADD("Img2img steps", "exact");
    if (c->resize_mode != KW_SIZED_CROP)
        ADD("Resize mode", "%s", modes[c->resize_mode]);
    if (v->mask.rgb) {
        if (c->mask_invert)
            ADD("Mask mode", "Inpaint not masked");
        ADD("Mask blur", "%.6g", c->mask_blur);
        if (c->mask_fill)
            ADD("Masked content", "%s", fills[c->mask_fill]);
        if (c->inpaint_area == KW_AREA_MASKED) {
            ADD("Inpaint area", "Only masked");
            ADD("Masked area padding", "%d", c->mask_padding);
        }
    }
#undef ADD
    for (size_t i = first; i < *n; i++)
        if (!list[i].value)
            return kw_fail(e, KW_ENOMEM, "out of memory");
    return KW_OK;
}
