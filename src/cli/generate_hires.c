/*
 * generate_hires.c - the second pass: a picture is drawn small, made larger, and painted over with part of the noise.
 *
 *   latents -> another size -> steps from --hires-strength on        "Latent ..." upscalers
 *   latents -> pixels -> another size -> latents -> ...              lanczos, bicubic, bilinear, nearest
 *
 * As A1111: exactly --hires-steps are done, the noise is the seed's for the larger size, and of --hires-size what
 * sticks out of the picture's shape is cut from its middle.
 */
#include "generate.h"

#include <math.h>
#include <string.h>

static const char *const labels[] = {
#define X(name, label, word) label,
    KW_LATENT_SCALE_MAP(X)
#undef X
    "Lanczos", "Bicubic", "Bilinear", "Nearest",
};

int kw_hires_steps(const kw_generate_config *c, int steps)
{
    if (!c->hires && !c->hires_size)
        return 0;
    return c->hires_steps ? c->hires_steps : steps;
}

static bool read_size(const char *text, int *w, int *h)
{
    return kw_read_pair(text, 'x', 0, 16384, w, h) && (*w || *h) && *w + *h <= 16384;
}

/* The smallest of the first picture's shape that covers it; a 0 follows from the other. */
static void cover(int w, int h, int want_w, int want_h, kw_hires *out)
{
    bool by_width = !want_h || (want_w && (double)w / h < (double)want_w / want_h);
    out->w = by_width ? want_w : (int)((int64_t)want_h * w / h);
    out->h = by_width ? (int)((int64_t)want_w * h / w) : want_h;
    out->cut_x = want_w && want_h ? out->w - want_w : 0;
    out->cut_y = want_w && want_h ? out->h - want_h : 0;
}

kw_status kw_hires_size(const kw_generate_config *c, int w, int h, int factor, kw_hires *out, bool *any, kw_err *e)
{
    int want_w, want_h;
    *any = c->hires || c->hires_size;
    *out = (kw_hires){ .w = (int)(w * c->hires), .h = (int)(h * c->hires) };
    if (!*any)
        return KW_OK;
    if (c->init)
        return kw_fail(e, KW_EUSAGE, N_("--hires and --init do not go together: the second pass is itself one over a "
                                        "picture"));
    if (c->hires && c->hires_size)
        return kw_fail(e, KW_EUSAGE, N_("--hires and --hires-size: give one of them"));
    if (c->hires_size && !read_size(c->hires_size, &want_w, &want_h))
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("--hires-size %s: not a size"), c->hires_size),
                         N_("WIDTHxHEIGHT is needed, for example 1024x1024"));
    if (c->hires_size)
        cover(w, h, want_w, want_h, out);
    out->w = out->w / factor * factor;
    out->h = out->h / factor * factor;
    out->cut_x = out->cut_x / factor * factor;
    out->cut_y = out->cut_y / factor * factor;
    if (out->w < w || out->h < h)
        return kw_fail(e, KW_EUSAGE, N_("the second pass would be smaller than the first: %d x %d after %d x %d"),
                       out->w, out->h, w, h);
    if (out->w > KW_PICTURE_MAX_SIDE || out->h > KW_PICTURE_MAX_SIDE)
        return kw_fail(e, KW_EUSAGE, N_("%d x %d pixels: at most %d a side"), out->w, out->h, KW_PICTURE_MAX_SIDE);
    return KW_OK;
}

/* ---- one picture's latents, larger ------------------------------------------------------------------------------ */

typedef struct { kw_pipeline *p; const kw_generate_config *c; int channels, h, w, to_h, to_w; } scaler;

static kw_status through_pixels(const scaler *s, const float *in, float *out, kw_err *e)
{
    static const kw_filter filter[] = { KW_FILTER_LANCZOS, KW_FILTER_BICUBIC, KW_FILTER_BILINEAR, KW_FILTER_NEAREST };
    int f = kw_pipeline_factor(s->p);
    kw_picture small, large;
    KW_TRY(kw_pipeline_decode(s->p, in, s->h, s->w, &small, e));
    kw_status st = kw_picture_scale(&small, filter[s->c->hires_upscaler - KW_UPSCALE_PIXELS], s->to_w * f, s->to_h * f,
                                    &large, e);
    kw_picture_free(&small);
    if (st)
        return st;
    st = kw_pipeline_encode(s->p, &large, out, e);
    kw_picture_free(&large);
    return st;
}

static kw_status enlarge(const scaler *s, const float *in, float *out, kw_err *e)
{
    if (s->c->hires_upscaler >= KW_UPSCALE_PIXELS)
        return through_pixels(s, in, out, e);
    return kw_latents_resize((kw_latent_scale)s->c->hires_upscaler, in, s->channels, s->h, s->w, out, s->to_h, s->to_w,
                             e);
}

/* (C, h, w) without what sticks out: half of it, rounded down, before and the rest behind. */
static void cut(const float *in, int c, int h, int w, int cut_h, int cut_w, float *out)
{
    for (int k = 0; k < c; k++)
        for (int y = 0; y < h - cut_h; y++)
            for (int x = 0; x < w - cut_w; x++)
                *out++ = in[((size_t)k * (size_t)h + (size_t)(y + cut_h / 2)) * (size_t)w + (size_t)(x + cut_w / 2)];
}

static kw_status larger(kw_pipeline *p, kw_arena *a, const kw_generate_config *c, const kw_generated *g,
                        const kw_hires *z, float **out, kw_err *e)
{
    int f = kw_pipeline_factor(p), cut_h = z->cut_y / f, cut_w = z->cut_x / f;
    scaler s = { p, c, g->channels, g->h, g->w, z->h / f, z->w / f };
    size_t from = (size_t)g->channels * (size_t)g->h * (size_t)g->w;
    size_t whole = (size_t)g->channels * (size_t)s.to_h * (size_t)s.to_w;
    size_t each = (size_t)g->channels * (size_t)(s.to_h - cut_h) * (size_t)(s.to_w - cut_w);
    float *one = kw_alloc_array(a, whole, sizeof *one);
    *out = kw_alloc_array(a, (size_t)g->n * each, sizeof **out);
    if (!one || !*out)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < g->n; i++) {
        KW_TRY(enlarge(&s, g->latents + (size_t)i * from, one, e));
        cut(one, g->channels, s.to_h, s.to_w, cut_h, cut_w, *out + (size_t)i * each);
    }
    return KW_OK;
}

/* ---- both passes ------------------------------------------------------------------------------------------------ */

typedef struct { const kw_request *r; int before, after; } going_on;

static kw_status progress_first(void *ctx, const kw_generate_at *at, kw_err *e)
{
    const going_on *g = ctx;
    kw_generate_at now = *at;
    if (at->stage == KW_STAGE_STEP) {
        now.done = g->before * at->done;
        now.total = (g->before + g->after) * at->total;
    }
    return g->r->progress ? g->r->progress(g->r->ctx, &now, e) : KW_OK;
}

static kw_status progress(void *ctx, const kw_generate_at *at, kw_err *e)
{
    const going_on *g = ctx;
    kw_generate_at later = *at;
    if (at->stage == KW_STAGE_STEP) {     /* the larger pass second, by its share of all steps */
        later.done = g->before * at->total + g->after * at->done;
        later.total = (g->before + g->after) * at->total;
    }
    return g->r->progress ? g->r->progress(g->r->ctx, &later, e) : KW_OK;
}

kw_status kw_hires_draw(kw_pipeline *p, kw_arena *a, const kw_generate_config *c, const kw_request *r, double strength,
                        kw_generated *out, kw_err *e)
{
    kw_request first = *r, second = *r;
    going_on both = { r, r->sampling.steps, kw_hires_steps(c, r->sampling.steps) };
    kw_generated small;
    kw_hires z;
    bool any;
    float *init;
    KW_TRY(kw_hires_size(c, r->width, r->height, kw_pipeline_factor(p), &z, &any, e));
    if (!any)
        return kw_pipeline_generate(p, a, r, out, e);
    first.latents_only = true;
    first.progress = progress_first;
    first.ctx = &both;
    KW_TRY(kw_pipeline_generate(p, a, &first, &small, e));
    KW_TRY(larger(p, a, c, &small, &z, &init, e));
    second.sampling.steps = kw_hires_steps(c, r->sampling.steps);
    second.reading.before = r->reading.steps;
    second.reading.steps = kw_reading_steps(r->sampling.sampler, second.sampling.steps);
    KW_TRY(kw_strength_steps(kw_pipeline_noise(p), &second.sampling, strength, true, &second.noised, e));
    second.init = init;
    second.noise = NULL;
    second.n_injected = 0;
    second.width = z.w - z.cut_x;
    second.height = z.h - z.cut_y;
    second.progress = progress;
    second.ctx = &both;
    return kw_pipeline_generate(p, a, &second, out, e);
}

kw_status kw_hires_keys(kw_arena *a, const kw_generate_config *c, double strength, kw_meta *list, size_t *n, kw_err *e)
{
    size_t first = *n;
    if (!c->hires && !c->hires_size)
        return KW_OK;
#define ADD(key, ...) list[(*n)++] = (kw_meta){ key, kw_sprintf(a, __VA_ARGS__) }
    ADD("Denoising strength", "%.6g", strength);
    if (c->hires_size)
        ADD("Hires resize", "%s", c->hires_size);
    else
        ADD("Hires upscale", "%.6g", c->hires);
    if (c->hires_steps)
        ADD("Hires steps", "%d", c->hires_steps);
    ADD("Hires upscaler", "%s", labels[c->hires_upscaler]);
#undef ADD
    for (size_t i = first; i < *n; i++)
        if (!list[i].value)
            return kw_fail(e, KW_ENOMEM, "out of memory");
    return KW_OK;
}
