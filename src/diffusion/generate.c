/*
 * generate.c - one batch of pictures from prompts and seeds.
 *
 *   x = noise · scale;  each step:  eps = uncond + cfg (cond - uncond),  x = sampler(x, eps);  picture = decoder(x)
 */
#include "pipeline_internal.h"

#include <math.h>
#include <string.h>

typedef struct {
    kw_pipeline *p;
    const kw_request *r;
    kw_arena *a;                          /* of this request */
    int n, c, h, w;
    size_t each, count;                   /* numbers of one latent, of the batch */
    float *context[2];                    /* of this run; cond, uncond: (n, tokens, D), one behind the other */
    float *pooled[2], *sizes;             /* SDXL: (n, P) likewise; (2 n, 6) */
    int tokens[2];
    kw__words *words[2];
    bool guided, together, composed;
    int run;                              /* of the network, in this request */
    kw_noise_source *seeds;
    float *x, *in, *eps, *t, *drawn;
    float *more, *plain;                  /* of an inpainting base: mask and picture; x alone as the network takes it */
    kw_sampling *s;
    kw__paint paint;
} job;

static kw_status tell(const job *j, kw_generate_at at, kw_err *e)
{
    return j->r->progress ? j->r->progress(j->r->ctx, &at, e) : KW_OK;
}

static void *numbers(job *j, size_t n) { return kw_alloc_array(j->a, n, sizeof(float)); }

/* ---- what is asked ---------------------------------------------------------------------------------------------- */

kw_status kw_pipeline_check_size(const kw_pipeline *p, int width, int height, kw_err *e)
{
    int f = kw_pipeline_factor(p);
    if (width >= f && height >= f && !(width % f) && !(height % f))
        return KW_OK;
    kw_status s = kw_fail(e, KW_EUSAGE, N_("%d x %d pixels: with this base both must be multiples of %d"), width,
                          height, f);
    return kw_advise(e, s, N_("the nearest size is %d x %d"), KW_MAX((width + f / 2) / f, 1) * f,
                     KW_MAX((height + f / 2) / f, 1) * f);
}

static kw_status check(const job *j, kw_err *e)
{
    const kw_request *r = j->r;
    if (r->n < 1 || r->n > 1024)
        return kw_fail(e, KW_EUSAGE, N_("%d pictures at once: 1 to 1024 are possible"), r->n);
    KW_TRY(kw_pipeline_check_size(j->p, r->width, r->height, e));
    if (r->width > KW_PICTURE_MAX_SIDE || r->height > KW_PICTURE_MAX_SIDE)
        return kw_fail(e, KW_EUSAGE, N_("%d x %d pixels: at most %d a side"), r->width, r->height, KW_PICTURE_MAX_SIDE);
    if (!isfinite(r->cfg))
        return kw_fail(e, KW_EUSAGE, N_("the CFG scale must be a number"));
    if (!(r->cfg_rescale >= 0 && r->cfg_rescale <= 1) || !(r->variation_strength >= 0 && r->variation_strength <= 1))
        return kw_fail(e, KW_EUSAGE, N_("shares of CFG rescale and of a variation are 0 to 1"));
    if (r->clip_skip < 1 || r->clip_skip > kw_sd_clip_layers(j->p->sd))
        return kw_fail(e, KW_EUSAGE, N_("clip skip %d: the text encoder has %d layers"), r->clip_skip,
                       kw_sd_clip_layers(j->p->sd));
    if (r->sampling.first && !r->init)
        return kw_fail(e, KW_EUSAGE, N_("starting at step %d needs latents to start from"), r->sampling.first);
    if (r->paint && !r->init)
        return kw_fail(e, KW_EUSAGE, N_("a mask needs a picture to paint over"));
    return KW_OK;
}

/* ---- words ------------------------------------------------------------------------------------------------------- */

static kw_status encode(job *j, int which, int done, int total, kw_err *e)
{
    KW_TRY(kw__words_new(j->p, j->a, j->r, which, j->tokens[0], &j->words[which], e));
    j->tokens[which] = kw__words_tokens(j->words[which]);
    return tell(j, (kw_generate_at){ .stage = KW_STAGE_TEXT, .done = done, .total = total }, e);
}

/* Room for the texts of one run; both kinds are neighbours where they run together. */
static kw_status encode_all(job *j, kw_err *e)
{
    size_t n = (size_t)j->n, width = n * (size_t)kw_sd_text_width(j->p->sd);
    size_t pool = (size_t)kw_sd_pooled_width(j->p->sd);
    KW_TRY(encode(j, 0, 1, j->r->cfg != 1 ? 2 : 1, e));
    j->composed = kw__words_composed(j->words[0]);
    j->guided = j->r->cfg != 1 || j->composed;
    if (j->guided)
        KW_TRY(encode(j, 1, 2, 2, e));
    j->together = j->guided && !j->composed && j->tokens[0] == j->tokens[1];
    j->context[0] = numbers(j, width * (size_t)(j->tokens[0] + j->tokens[1]));
    j->pooled[0] = numbers(j, 2 * n * pool + 1);
    if (!j->context[0] || !j->pooled[0])
        return kw_fail(e, KW_ENOMEM, "out of memory");
    j->context[1] = j->context[0] + width * (size_t)j->tokens[0];
    j->pooled[1] = j->pooled[0] + n * pool;
    return KW_OK;
}

static void fill(job *j, int which, int run, int first, int n)
{
    kw__words_fill(j->words[which], run, first, n, j->context[which], j->pooled[which]);
}

/* ---- noise ------------------------------------------------------------------------------------------------------- */

/* Given noise replaces the seeds', which are drawn all the same: those that follow stay what they were. */
static kw_status start_noise(job *j, kw_err *e)
{
    KW_TRY(kw_noise_source_start(j->seeds, j->drawn, e));
    kw__to_nhwc(j->r->noise ? j->r->noise : j->drawn, j->n, j->c, j->h, j->w, j->x);
    return KW_OK;
}

static kw_status inject(void *ctx, const kw_noise_draw *d, float *noise, size_t n, kw_err *e)
{
    job *j = ctx;
    const float *given = d->draw < j->r->n_injected ? j->r->injected[d->draw] : NULL;
    (void)n;
    KW_TRY(kw_noise_source_sampler(j->seeds, d, j->drawn, e));
    kw__to_nhwc(given ? given : j->drawn, j->n, j->c, j->h, j->w, noise);
    return KW_OK;
}

static kw_noise_source *noise_source(const job *j)
{
    const kw_request *r = j->r;
    int f = kw_pipeline_factor(j->p);
    uint64_t *seed = kw_alloc_array(j->a, 2 * (size_t)j->n, sizeof *seed), *variation = seed ? seed + j->n : NULL;
    for (int i = 0; seed && i < j->n; i++) {
        seed[i] = r->wish[i].seed;
        variation[i] = r->wish[i].variation;
    }
    kw_noise_wish wish = { .kind = r->seeds, .seed = seed, .n = j->n, .channels = j->c, .h = j->h, .w = j->w,
                           .variation = variation, .strength = r->variation_strength, .from_h = r->seed_from_h / f,
                           .from_w = r->seed_from_w / f, .delta = r->noise_delta };
    return seed ? kw_noise_source_new(j->a, &wish) : NULL;
}

static kw_status begin(job *j, kw_err *e)
{
    size_t runs = j->together || j->composed ? 2 : 1;
    j->x = numbers(j, j->count);
    j->in = numbers(j, runs * j->count / (size_t)j->c * (size_t)j->p->sd->unet.in);
    j->eps = numbers(j, (j->composed ? 3 : j->guided ? 2 : 1) * j->count);
    j->drawn = numbers(j, j->count);
    j->t = numbers(j, runs * (size_t)j->n);
    j->plain = numbers(j, j->count);
    j->sizes = numbers(j, 2 * (size_t)j->n * KW_SIZES);
    if (!j->x || !j->sizes || !j->in || !j->eps || !j->drawn || !j->t || !j->plain)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw__pipeline_sizes(j->r, j->sizes);
    kw__pipeline_sizes(j->r, j->sizes + j->n * KW_SIZES);
    KW_TRY(kw__inpaint_begin(j->p, j->a, j->r, j->h, j->w, &j->more, e));
    j->seeds = noise_source(j);
    if (!j->seeds)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_sampling_start(j->a, j->p->noise, &j->r->sampling, j->count, &j->s, e));
    KW_TRY(start_noise(j, e));
    if (j->r->init)
        return kw__paint_begin(j->p, j->a, j->r, j->s, j->h, j->w, j->x, &j->paint, e);
    kw_sampling_begin(j->s, j->x);
    return KW_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* The network over n samples and their texts: those of `which`, or both. */
static kw_status network(job *j, int n, int which, float *out, kw_err *e)
{
    kw_program *program;
    KW_TRY(kw__pipeline_program(j->p, (kw__program_key){ .kind = KW__UNET, .n = n, .h = j->h, .w = j->w,
                                                         .tokens = j->tokens[which] }, &program, e));
    kw_program_set(program, "x", j->in);
    kw_program_set(program, "t", j->t);
    kw_program_set(program, "context", j->context[which]);
    if (kw_sd_pooled_width(j->p->sd)) {
        kw_program_set(program, "pooled", j->pooled[which]);
        kw_program_set(program, "sizes", j->sizes);
    }
    KW_TRY(kw_program_run(program, j->p->w, e));
    memcpy(out, kw_program_result(program, "y"), (size_t)n * j->each * sizeof *out);
    return KW_OK;
}

/* Guidance; x holds its input already, so `in` is free for a copy of the prompt's own answer. */
static void guide(job *j)
{
    if (j->r->cfg_rescale > 0)
        memcpy(j->in, j->eps, j->count * sizeof *j->in);
    kw_guide(j->eps, j->eps + j->count, j->r->cfg, j->eps, j->count);
    for (int i = 0; i < j->n && j->r->cfg_rescale > 0; i++)
        kw_guide_rescale(j->in + (size_t)i * j->each, j->r->cfg_rescale, j->eps + (size_t)i * j->each, j->each);
}

/* Prompts of parts: cond = uncond + Σ w (part - uncond); at most n at a time, inputs are kept behind those in `in`. */
static kw_status compose(job *j, int run, kw_err *e)
{
    int parts = kw__words_parts(j->words[0]);
    size_t in = j->each / (size_t)j->c * (size_t)j->p->sd->unet.in;
    float *uncond = j->eps + j->count, *out = j->eps + 2 * j->count, *kept = j->in + (size_t)j->n * in;
    memcpy(kept, j->in, (size_t)j->n * in * sizeof *kept);
    memcpy(j->eps, uncond, j->count * sizeof *uncond);
    for (int first = 0, n; first < parts; first += n) {
        n = KW_MIN(j->n, parts - first);
        fill(j, 0, run, first, n);
        for (int i = 0; i < n; i++)
            memcpy(j->in + (size_t)i * in, kept + (size_t)kw__words_part(j->words[0], first + i).picture * in,
                   in * sizeof *kept);
        KW_TRY(network(j, n, 0, out, e));
        for (int i = 0; i < n; i++) {
            kw__part part = kw__words_part(j->words[0], first + i);
            size_t at = (size_t)part.picture * j->each;
            for (size_t k = 0; k < j->each; k++)
                j->eps[at + k] += (float)part.weight * (out[(size_t)i * j->each + k] - uncond[at + k]);
        }
    }
    return KW_OK;
}

static kw_status predict(job *j, kw_err *e)
{
    int runs = j->together ? 2 : 1, run = j->run++;
    size_t in = j->count / (size_t)j->c * (size_t)j->p->sd->unet.in;
    kw_sampling_input(j->s, j->x, j->more ? j->plain : j->in);
    if (j->more)
        kw__inpaint_join(j->plain, j->more, j->count / (size_t)j->c, (size_t)j->c, j->in);
    if (j->together)
        memcpy(j->in + in, j->in, in * sizeof *j->in);
    for (int i = 0; i < runs * j->n; i++)
        j->t[i] = (float)kw_sampling_timestep(j->s);
    if (j->guided)
        fill(j, 1, run, 0, j->n);
    if (!j->composed) {
        fill(j, 0, run, 0, j->n);
        KW_TRY(network(j, runs * j->n, 0, j->eps, e));
    }
    if (!j->guided)
        return KW_OK;
    if (!j->together)
        KW_TRY(network(j, j->n, 1, j->eps + j->count, e));
    if (j->composed)
        KW_TRY(compose(j, run, e));
    guide(j);
    return KW_OK;
}

static kw_status steps(job *j, kw_err *e)
{
    while (!kw_sampling_done(j->s)) {
        KW_TRY(kw_sampling_churn(j->s, j->x, inject, j, e));
        KW_TRY(predict(j, e));
        kw__paint_answer(&j->paint, j->p->noise->spec.predict, kw_sampling_mix(j->s), j->x, j->eps);
        KW_TRY(kw_sampling_next(j->s, j->x, j->eps, inject, j, e));
        kw__paint_step(&j->paint, kw_sampling_done(j->s) ? (kw_mix){ 1, 0 } : kw_sampling_mix(j->s), j->x);
        KW_TRY(tell(j, (kw_generate_at){ .stage = KW_STAGE_STEP, .done = kw_sampling_evaluated(j->s),
                                         .total = kw_sampling_evaluations(j->s),
                                         .x0 = kw_sampling_x0(j->s) }, e));
    }
    return KW_OK;
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static void free_pictures(void *generated)
{
    kw_generated *g = generated;
    for (int i = 0; i < g->n; i++)
        kw_picture_free(&g->picture[i]);
}

static kw_status pictures(job *j, kw_generated *g, kw_err *e)
{
    for (int i = 0; i < j->n; i++) {
        KW_TRY(kw_pipeline_decode(j->p, g->latents + (size_t)i * j->each, j->h, j->w, &g->picture[i], e));
        KW_TRY(tell(j, (kw_generate_at){ .stage = KW_STAGE_DECODE, .done = i + 1, .total = j->n }, e));
    }
    return KW_OK;
}

/* What is handed out lives on the caller's arena: the pictures' pixels go with it. */
static kw_status hand_out(job *j, kw_arena *a, kw_generated *out, kw_err *e)
{
    kw_generated *g = kw_alloc(a, sizeof *g);
    if (!g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *g = (kw_generated){ .n = j->n, .channels = j->c, .h = j->h, .w = j->w };
    g->latents = kw_alloc_array(a, j->count, sizeof *g->latents);
    if (!j->r->latents_only)
        g->picture = kw_alloc_array(a, (size_t)j->n, sizeof *g->picture);
    if (!g->latents || (!j->r->latents_only && (!g->picture || kw_defer(a, free_pictures, g))))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw__to_nchw(j->x, j->n, j->c, j->h, j->w, g->latents);
    if (g->picture)
        KW_TRY(pictures(j, g, e));
    *out = *g;
    return KW_OK;
}

static kw_status work(job *j, kw_arena *a, kw_generated *out, kw_err *e)
{
    KW_TRY(encode_all(j, e));
    KW_TRY(begin(j, e));
    KW_TRY(steps(j, e));
    return hand_out(j, a, out, e);
}

kw_status kw_pipeline_generate(kw_pipeline *p, kw_arena *a, const kw_request *r, kw_generated *out, kw_err *e)
{
    job j = { .p = p, .r = r, .n = r->n, .c = p->sd->vae.latent, .a = kw_arena_new() };
    int f = kw_pipeline_factor(p);
    if (!j.a)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    j.h = r->height / f;
    j.w = r->width / f;
    j.each = (size_t)j.c * (size_t)j.h * (size_t)j.w;
    j.count = j.each * (size_t)j.n;
    kw_status s = check(&j, e);
    if (!s)
        s = work(&j, a, out, e);
    kw_arena_free(j.a);
    return s;
}
