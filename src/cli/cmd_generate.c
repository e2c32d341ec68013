/* cmd_generate.c - kiwame generate: pictures from words. */
#include "generate.h"
#include "generate_canvas.h"
#include "measure.h"
#include "net_settings.h"

#include <omp.h>
#include <string.h>

#define C kw_generate_config
#define INF __builtin_inf()

static const kw_option options[] = {
    KW_ROW_LIST("text", C, words, N_("what to draw; several texts give several pictures"), .value = "PROMPT",
                .flags = KW_OPT_POSITIONAL),
    KW_ROW_GROUP(N_("What")),
    KW_ROW_LIST("prompt", C, prompt,
                N_("what to draw: (word:1.2) weighs, [a:b:0.5] changes, <lora:NAME:0.8> adds a LoRA"), .letter = 'p'),
    KW_ROW_PATH("prompts", C, prompts, NULL,
                N_("file of prompts: TEXT --n NEGATIVE --w W --h H --d SEED --l CFG --s STEPS --ss SAMPLER")),
    KW_ROW_PATH("from", C, from, NULL,
                N_("repeat a picture by the settings kept in it; what is given here comes first"), .value = "PICTURE"),
    KW_ROW_CHOICE("prompt-grammar", C, grammar, KW_GRAMMAR_A1111, "a1111|comfyui",
                  N_("whose prompts: A1111's with [a:b:0.5], [a|b], AND, BREAK; or ComfyUI's weights alone")),
    KW_ROW_CHOICE("emphasis", C, emphasis, KW_EMPHASIS_ORIGINAL, "original|no-norm|ignore|none",
                  N_("what weights of words do in A1111's grammar: \"No norm\" suits SDXL; none: brackets are words")),
    KW_ROW_TEXT("negative", C, negative, NULL, N_("what not to draw"), .alias = "negative-prompt", .letter = 'n'),
    KW_ROW_INT("count", C, count, 1, 1, 10000, N_("pictures of each prompt, with rising seeds")),
    KW_ROW_INT("width", C, width, 0, 1, 16384, N_("width"), .unit = "px", .word = "base", .word_is = 0),
    KW_ROW_INT("height", C, height, 0, 1, 16384, N_("height"), .unit = "px", .word = "base", .word_is = 0),
    KW_ROW_TEXT("original-size", C, original_size, NULL,
                N_("SDXL: size that the picture should look to have had; default: its own"), .value = "WxH"),
    KW_ROW_TEXT("crop", C, crop, NULL, N_("SDXL: what should look cut off at the left and the top; default: 0,0"),
                .value = "X,Y"),
    KW_ROW_TEXT("target-size", C, target_size, NULL, N_("SDXL: size that it is told to make; default: the picture's"),
                .value = "WxH"),
    KW_ROW_GROUP(N_("Model")),
    KW_ROW_PATH("base", C, base, NULL, N_("model: folder or file; default: the small one that comes along"), .value = "DIR",
                .alias = "model|ckpt"),
    KW_ROW_PATH("model-dir", C, model_dir, NULL, N_("folder in which --from looks for the picture's model"),
                .value = "DIR"),
    KW_ROW_PATH("vae", C, vae, NULL, N_("another autoencoder")),
    KW_ROW_LIST("lora", C, lora,
                N_("LoRA or LyCORIS file, or PEFT's folder, with its strength: FILE:0.8, FILE:TEXT:UNET; and of blocks: "
                   "FILE:1:lbw=OUT=0.5"),
                .value = "FILE[:X[:X]][:lbw=X,...]"),
    KW_ROW_PATH("lora-dir", C, lora_dir, ".", N_("folder in which <lora:NAME:X> is looked for"),
                .value = "DIR"),
    KW_ROW_CHOICE("lora-apply", C, lora_apply, 0, "run|merge",
                  N_("LoRAs beside the layers, or added to their weights: faster steps, more memory")),
    KW_ROW_LIST("embedding", C, embedding, N_("textual inversion; prompts name it by its file's name"),
                .value = "FILE"),
    KW_ROW_PATH("embeddings-dir", C, embeddings_dir, NULL,
                N_("folder of textual inversions; those that a prompt names are read"), .value = "DIR"),
    KW_ROW_LIST("hypernet", C, hypernet, N_("hypernetwork, with its strength: FILE:0.8"), .value = "FILE[:X]"),
    KW_ROW_PATH("hypernet-dir", C, hypernet_dir, ".", N_("folder in which <hypernet:NAME:X> is looked for"),
                .value = "DIR"),
    KW_ROW_BOOL("allow-partial", C, partial, false,
                N_("use a LoRA although some of its keys fit no layer of this base")),
    KW_ROW_INT("clip-skip", C, clip_skip, 1, 1, 24,
               N_("text encoder layer used, counted from the end; of SDXL 1 and 2 are the same"),
               .alias = "clip_skip"),
    KW_ROW_GROUP(N_("Sampling")),
    KW_ROW_INT("steps", C, steps, 20, 1, 1000, N_("sampling steps")),
    KW_ROW_DOUBLE("cfg", C, cfg, 7, -INF, INF, N_("how strongly the prompt is followed; 1 ignores the negative one"),
                  .alias = "cfg-scale|scale"),
    KW_ROW_SEED("seed", C, seed, 0, N_("seed of the first picture"), .letter = 's',
                .text = "random"),
    KW_ROW_TEXT("sampler", C, sampler, "Euler a", N_("A1111's or ComfyUI's name, \"DPM++ 2M Karras\" too; help lists all")),
    KW_ROW_TEXT("schedule", C, schedule, NULL,
                N_("spread of noise levels, help lists all; the sampler's own unless given"), .alias = "scheduler"),
    KW_ROW_CHOICE("spacing", C, spacing, KW_SPACING_AUTO, "auto|a1111|diffusers|leading|trailing|linspace",
                  N_("which timesteps belong to the steps")),
    KW_ROW_DOUBLE("eta", C, eta, -1, 0, 1, N_("noise put back at each step"), .word = "sampler", .word_is = -1),
    KW_GENERATE_SAMPLING_ROWS(C, how),
    KW_ROW_CHOICE("rng", C, rng, KW_SEEDS_GPU, "gpu|cpu|kiwame",
                  N_("numbers behind a seed: torch's on CUDA (A1111's default), torch's on the CPU, or Kiwame's")),
    KW_GENERATE_NOISE_ROWS(C, how),
    KW_ROW_PATH("noise", C, noise, NULL,
                N_("tensors noise (N, C, h, w) instead of the seeds', and noise.I for the I-th the sampler puts in")),
    KW_ROW_GROUP(N_("Painting over a picture")),
    KW_ROW_PATH("init", C, init, NULL, N_("picture to start from; where it is transparent it is painted anew"),
                .alias = "init-img|image"),
    KW_ROW_DOUBLE("strength", C, strength, 0.75, 0, 1, N_("how much of it may change: 0 little, 1 all of it"),
                  .alias = "denoising-strength"),
    KW_ROW_CHOICE("img2img-steps", C, img2img_steps, 0, "share|exact",
                  N_("do the strength's share of the steps, or exactly so many")),
    KW_ROW_CHOICE("resize-mode", C, resize_mode, KW_SIZED_CROP, "stretch|crop|fill",
                  N_("where its shape is another: stretch it, cut it, or continue its borders")),
    KW_ROW_PATH("mask", C, mask, NULL, N_("picture that is white where it is painted anew, black where it stays")),
    KW_ROW_BOOL("mask-invert", C, mask_invert, false, N_("black is painted anew, white stays")),
    KW_ROW_DOUBLE("mask-blur", C, mask_blur, 4, 0, 64, N_("softens the mask's edge"), .unit = "px"),
    KW_ROW_CHOICE("mask-fill", C, mask_fill, KW_MASK_ORIGINAL, "original|fill|noise|nothing",
                  N_("what lies below the mask at first: the picture, its colours around, noise, or nothing")),
    KW_ROW_CHOICE("inpaint-area", C, inpaint_area, KW_AREA_WHOLE, "whole|masked",
                  N_("draw the whole picture, or the masked part alone at full size")),
    KW_ROW_INT("mask-padding", C, mask_padding, 32, 0, 1024, N_("around the masked part, with --inpaint-area masked"),
               .unit = "px"),
    KW_ROW_GROUP(N_("Second pass")),
    KW_ROW_DOUBLE("hires", C, hires, 0, 1, 8, N_("draw small, then once more so many times larger"),
                  .value = "X", .word = "off", .word_is = 0),
    KW_ROW_TEXT("hires-size", C, hires_size, NULL, N_("its size instead: WIDTHxHEIGHT, one may be 0"), .value = "WxH"),
    KW_ROW_INT("hires-steps", C, hires_steps, 0, 1, 1000, N_("its steps"), .word = "same", .word_is = 0),
    KW_ROW_DOUBLE("hires-strength", C, hires_strength, 0.7, 0, 1, N_("how much it may change")),
    KW_ROW_CHOICE("hires-upscaler", C, hires_upscaler, 0, KW_UPSCALE_ROWS,
                  N_("what makes the first pass larger: its latents, or its pixels")),
    KW_ROW_GROUP(N_("Output")),
    KW_ROW_PATH("out", C, out, "pictures",
                N_("folder, or a file that ends in .png, .jpg or .webp, which is replaced"), .letter = 'o'),
    KW_ROW_CHOICE("format", C, format, KW_FILE_PNG, "png|jpeg|webp",
                  N_("kind of file; settings are kept in it as A1111 does")),
    KW_ROW_INT("quality", C, quality, 90, 1, 100, N_("of JPEG and WebP"), .word = "lossless", .word_is = 101),
    KW_ROW_LIST("grid", C, grid, N_("draw all combinations, on one sheet: cfg=5,7 steps=10-30:10 prompt=fox,cat ..."),
                .value = "NAME=VALUES"),
    KW_ROW_BOOL("sheet", C, sheet, true, N_("also one sheet of all pictures, when there are several")),
    KW_ROW_INT("columns", C, columns, 0, 1, 1000, N_("pictures in a row of the sheet"), .word = "square", .word_is = 0),
    KW_ROW_PATH("save-latents", C, save_latents, NULL, N_("also write the latents (N, C, h, w) as safetensors")),
    KW_ROW_GROUP(N_("Computation")),
    KW_ROW_INT("batch", C, batch, 1, 1, 64, N_("pictures drawn at once"), .alias = "batch-size"),
    KW_ROW_CHOICE("dtype", C, dtype, 0, "f32|bf16", N_("type of the computation")),
    KW_ROW_CHOICE("base-dtype", C, base_dtype, 0, "file|int8",
                  N_("weights of the U-Net as in the file, or in one byte a number: less memory, less exact")),
    KW_ROW_CHOICE("vae-dtype", C, vae_dtype, 0, "f32|bf16", N_("type of the autoencoder's computation")),
    KW_ROW_INT("vae-tile", C, vae_tile, KW_VAE_AUTO, KW_VAE_WHOLE, KW_VAE_MOST,
               N_("decode in stripes of at most so many pixels squared: the same picture, less memory; 0: whole"),
               .unit = "px", .word = "auto", .word_is = KW_VAE_AUTO),
    KW_ROW_SIZE("memory", C, memory, 7500000000.0, 0, 1e15,
                N_("memory to keep to, as far as speed can be traded for it"), .word = "off", .word_is = 0),
    KW_ROW_END
};

typedef struct {
    kw_cli *cli;
    const kw_generate_config *c;
    kw_pipeline *p;
    kw_jobs jobs;
    kw_picture_writer *writer;
    struct { const kw_tensor *noise, *step[1000]; int n_steps; } given;
    float *latents;  int h, w;            /* (n, C, h, w), with --save-latents */
    kw_canvas *canvas;                    /* NULL without --init */
    kw_from *from;                        /* NULL without --from */
    kw_progress progress;
    int64_t done;                         /* steps of finished batches */
    size_t at;                            /* pictures of finished batches */
} session;

/* Once for each prompt. */
static void tell_prompts(const session *s)
{
    const kw_jobs *jobs = &s->jobs;
    for (size_t i = 0; i < jobs->n && !s->cli->global.quiet; i++)
        for (int k = 0; k < 2; k++) {
            const char *text = k ? jobs->job[i].negative : jobs->job[i].prompt;
            const char *before = !i ? NULL : k ? jobs->job[i - 1].negative : jobs->job[i - 1].prompt;
            const char *note = before && !strcmp(before, text) ? NULL : kw_prompt_note(s->cli->arena, text);
            kw_str safe = { 0 };
            kw_escape(&safe, note ? note : "");
            if (note && safe.s)
                fprintf(stderr, "%s\n", safe.s);
            kw_str_free(&safe);
        }
}

/* ---- --noise --------------------------------------------------------------------------------------------------- */

static kw_status check_noise(session *s, const kw_tensors *t, const kw_tensor *one, kw_err *e)
{
    int c = kw_pipeline_base(s->p)->vae.latent, f = kw_pipeline_factor(s->p);
    const kw_job *j = s->jobs.job;
    char text[160];
    if (one->dtype == KW_F32 && one->rank == 4 && one->shape[0] == (int64_t)s->jobs.n && one->shape[1] == c
        && one->shape[2] == j->height / f
        && one->shape[3] == j->width / f)
        return KW_OK;
    return kw_fail(e, KW_EDATA, N_("%s: %s is %s %s; F32 [%zu, %d, %d, %d] is needed"), kw_tensors_path(t), one->name,
                   kw_dtype_name(one->dtype),
                   kw_shape_text(one, text), s->jobs.n, c, j->height / f, j->width / f);
}

static kw_status read_noise(session *s, kw_err *e)
{
    kw_tensors *t;
    if (!s->c->noise)
        return KW_OK;
    KW_TRY(kw_tensors_open(s->cli->arena, s->c->noise, &t, e));
    s->given.noise = kw_tensors_find(t, "noise");
    if (!s->given.noise)
        return kw_fail(e, KW_EDATA, N_("%s: tensor noise is missing"), s->c->noise);
    KW_TRY(check_noise(s, t, s->given.noise, e));
    for (int i = 0; i < (int)KW_LEN(s->given.step); i++) {
        char name[32];
        snprintf(name, sizeof name, "noise.%d", i);
        s->given.step[i] = kw_tensors_find(t, name);
        if (!s->given.step[i])
            continue;
        KW_TRY(check_noise(s, t, s->given.step[i], e));
        s->given.n_steps = i + 1;
    }
    return KW_OK;
}

static const float *slice(const kw_tensor *t, size_t picture)
{
    return t ? (const float *)t->data + picture * (size_t)(kw_tensor_count(t) / t->shape[0]) : NULL;
}

/* ---- before the first picture ------------------------------------------------------------------------------------ */

static bool same_size(const kw_jobs *jobs)
{
    for (size_t i = 1; i < jobs->n; i++)
        if (jobs->job[i].width != jobs->job[0].width || jobs->job[i].height != jobs->job[0].height)
            return false;
    return true;
}

static kw_status complete(session *s, kw_err *e)
{
    int native = kw_pipeline_native(s->p), f = kw_pipeline_factor(s->p);
    for (size_t i = 0; i < s->jobs.n; i++) {
        kw_job *j = &s->jobs.job[i];
        kw_hires second;
        bool any;
        if (s->canvas)
            kw_canvas_size(s->canvas, native, f, &j->width, &j->height);
        j->width = j->width ? j->width : native;
        j->height = j->height ? j->height : native;
        if (j->width % f || j->height % f) {
            kw_status st = kw_fail(e, KW_EUSAGE, N_("%d x %d pixels: with this base both must be multiples of %d"),
                                   j->width, j->height, f);
            return kw_advise(e, st, N_("the nearest size is %d x %d"), KW_MAX((j->width + f / 2) / f, 1) * f,
                             KW_MAX((j->height + f / 2) / f, 1) * f);
        }
        KW_TRY(kw_hires_size(s->c, j->width, j->height, f, &second, &any, e));
        if (any && s->c->save_latents)
            return kw_fail(e, KW_EUSAGE, N_("--save-latents and --hires do not go together"));
        const kw_reading r = kw_words_reading(s->c, j);
        KW_TRY(kw_pipeline_windows(s->p, &r, j->prompt, false, &j->windows[0], e));
        KW_TRY(kw_pipeline_windows(s->p, &r, j->negative, true, &j->windows[1], e));
    }
    if ((s->c->noise || s->c->save_latents) && !same_size(&s->jobs))
        return kw_fail(e, KW_EUSAGE, N_("--noise and --save-latents need pictures of one size"));
    s->h = s->jobs.job[0].height / f;
    s->w = s->jobs.job[0].width / f;
    size_t each = (size_t)kw_pipeline_base(s->p)->vae.latent * (size_t)s->h * (size_t)s->w;
    if (s->c->save_latents)
        s->latents = kw_alloc_array(s->cli->arena, s->jobs.n * each, sizeof(float));
    if (s->c->save_latents && !s->latents)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    return read_noise(s, e);
}

static kw_status set_strength(const session *s, size_t i, const kw_strengths *x, kw_err *e)
{
    return kw_pipeline_strengths(s->p, i, x->te, x->unet, x->blocks, e);
}

static kw_status open_pipeline(session *s, kw_err *e)
{
    static const kw_dtype type[] = { KW_F32, KW_BF16 };
    kw_pipeline_lora files[KW_PIPELINE_LORAS];
    kw_pipeline_options o = { .compute = type[s->c->dtype], .memory = s->c->memory, .partial = s->c->partial,
                              .vae_bf16 = s->c->vae_dtype, .vae_tile = s->c->vae_tile, .int8 = s->c->base_dtype,
                              .merge = s->c->lora_apply };
    for (size_t i = 0; i < s->jobs.n_lora; i++)
        files[i] = (kw_pipeline_lora){ s->jobs.lora[i].path, 1, 1, s->jobs.lora[i].by_block };
    if (!s->c->base)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, "no base model was given"), "name one with --base");
    KW_TRY(kw_pipeline_open(s->cli->arena, s->c->base, s->c->vae, files, s->jobs.n_lora, &o, &s->p, e));
    for (size_t i = 0; i < s->jobs.n_lora && s->jobs.n; i++)  /* before memory is planned: nothing is merged twice */
        KW_TRY(set_strength(s, i, &s->jobs.job[0].strength[i], e));
    for (size_t i = 0; i < s->jobs.n_lora && !s->cli->global.quiet; i++)
        if (kw_pipeline_lora_passed_over(s->p, i)) {
            fprintf(stderr, _(N_("%s: %zu keys fit no layer and are passed over")), s->jobs.lora[i].path,
                    kw_pipeline_lora_passed_over(s->p, i));
            fputc('\n', stderr);
        }
    return KW_OK;
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static bool same_strength(const kw_strengths *a, const kw_strengths *b)
{
    return a->te == b->te && a->unet == b->unet && !a->blocks == !b->blocks
        && (!a->blocks || !memcmp(a->blocks, b->blocks, KW_LORA_BLOCKS * sizeof *a->blocks));
}

static bool together(const kw_jobs *jobs, const kw_job *a, const kw_job *b)
{
    for (size_t i = 0; i < jobs->n_lora; i++)
        if (!same_strength(&a->strength[i], &b->strength[i]))
            return false;
    for (size_t i = 0; i < jobs->n_hypernet; i++)
        if (a->hyper[i] != b->hyper[i])
            return false;
    return a->width == b->width && a->height == b->height && a->steps == b->steps && a->cfg == b->cfg
        && a->clip_skip == b->clip_skip && a->eta == b->eta && a->change == b->change
        && a->sampler == b->sampler
           && a->schedule == b->schedule && a->windows[0] == b->windows[0] && a->windows[1] == b->windows[1];
}

static size_t batch_at(const session *s, size_t first)
{
    size_t n = 1;
    while (first + n < s->jobs.n && n < (size_t)s->c->batch && together(&s->jobs, &s->jobs.job[first],
                                                                        &s->jobs.job[first + n]))
        n++;
    return n;
}

/* The steps of a job, as the pipeline is to do them; first, noised: where they begin. */
static kw_status sampling_of(const session *s, const kw_job *j, kw_sampling_options *o, int *noised, kw_err *e)
{
    const kw_generate_sampling *how = &s->c->how;
    *o = (kw_sampling_options){ .sampler = j->sampler, .schedule = j->schedule, .spacing = (kw_spacing)s->c->spacing,
                                .steps = j->steps, .eta = j->eta, .gamma = how->gamma, .churn = how->churn,
                                .churn_from = how->churn_from, .churn_to = how->churn_to, .noise_less = 1 - how->noise,
                                .least = how->least, .most = how->most };
    *noised = 0;
    if (!s->canvas)
        return KW_OK;
    return kw_strength_steps(kw_pipeline_noise(s->p), o, j->change, s->c->img2img_steps, noised, e);
}

static int64_t steps_of(const session *s, const kw_job *j)
{
    kw_sampling_options o;
    int noised;
    if (sampling_of(s, j, &o, &noised, NULL))
        return j->steps;
    return o.steps - o.first + kw_hires_steps(s->c, j->steps);
}

static kw_status progress(void *ctx, const kw_generate_at *at, kw_err *e)
{
    session *s = ctx;
    char extra[64] = "";
    (void)e;
    if (s->jobs.n > 1)
        snprintf(extra, sizeof extra, _(N_("picture %zu of %zu")), s->at + 1, s->jobs.n);
    if (at->stage == KW_STAGE_STEP)
        kw_progress_at(&s->progress, s->done + (int64_t)at->done * steps_of(s, &s->jobs.job[s->at]) / at->total, extra);
    return KW_OK;
}

static kw_status keep(session *s, size_t first, const kw_generated *g, kw_err *e)
{
    size_t each = (size_t)g->channels * (size_t)g->h * (size_t)g->w;
    if (s->latents)
        memcpy(s->latents + first * each, g->latents, (size_t)g->n * each * sizeof(float));
    for (int i = 0; i < g->n; i++) {
        kw_picture whole = { 0 };
        if (s->canvas)
            KW_TRY(kw_canvas_finish(s->canvas, &g->picture[i], &whole, e));
        kw_status st = kw_picture_writer_put(s->writer, first + (size_t)i, s->canvas ? &whole : &g->picture[i], e);
        kw_picture_free(&whole);
        if (st)
            return st;
    }
    return KW_OK;
}

static kw_status draw(session *s, size_t first, size_t n, kw_arena *a, kw_err *e)
{
    const kw_job *j = &s->jobs.job[first];
    kw_wish *wish = kw_alloc_array(a, n, sizeof *wish);
    const float **injected = kw_alloc_array(a, KW_LEN(s->given.step), sizeof *injected);
    kw_generated g;
    if (!wish || !injected)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        wish[i] = (kw_wish){ .prompt = j[i].prompt, .negative = j[i].negative, .seed = j[i].seed,
                               .variation = j[i].variation };
    for (int i = 0; i < s->given.n_steps; i++)
        injected[i] = slice(s->given.step[i], first);
    for (size_t i = 0; i < s->jobs.n_lora; i++)
        KW_TRY(set_strength(s, i, &j->strength[i], e));
    for (size_t i = 0; i < s->jobs.n_hypernet; i++)
        KW_TRY(kw_pipeline_hypernet_strength(s->p, i, j->hyper[i], e));
    const kw_generate_sampling *how = &s->c->how;
    int from_w, from_h;
    KW_TRY(kw_seed_from(how->seed_from, &from_w, &from_h, e));
    kw_request r = {
        .wish = wish, .n = (int)n, .width = j->width, .height = j->height, .cfg = j->cfg, .clip_skip = j->clip_skip,
        .reading = kw_words_reading(s->c, j),
        .cfg_rescale = how->cfg_rescale, .variation_strength = how->variation_strength, .seed_from_w = from_w,
        .seed_from_h = from_h, .noise_delta = how->noise_delta,
        .seeds = (kw_seeds)s->c->rng, .noise = slice(s->given.noise, first), .injected = injected,
        .n_injected = s->given.n_steps,
        .progress = progress, .ctx = s,
    };
    KW_TRY(kw_generate_sizes(s->c, s->p, &r.sizes, e));
    KW_TRY(sampling_of(s, j, &r.sampling, &r.noised, e));
    if (s->canvas) {
        KW_TRY(kw_canvas_prepare(s->canvas, s->p, j->width, j->height, e));
        KW_TRY(kw_canvas_into(s->canvas, a, s->p, &r, e));
    }
    KW_TRY(kw_hires_draw(s->p, a, s->c, &r, j->change, &g, e));
    return keep(s, first, &g, e);
}

/* What is given up for memory, once. */
static kw_status tell_memory(const session *s, kw_err *e)
{
    const kw_job *j = &s->jobs.job[0];
    kw_pipeline_memory m;
    if (!s->c->memory)
        return KW_OK;
    kw_hires z;
    bool second;
    KW_TRY(kw_hires_size(s->c, j->width, j->height, kw_pipeline_factor(s->p), &z, &second, e));
    KW_TRY(kw_pipeline_forecast(s->p, (int)batch_at(s, 0), second ? z.w - z.cut_x : j->width,
                                second ? z.h - z.cut_y : j->height, j->windows[0],
                                j->cfg != 1 && j->windows[0] == j->windows[1], &m, e));
    if (s->cli->global.quiet || (!m.tile && !m.away && m.unpacked < 0.005 && m.pixels <= (double)s->c->memory))
        return KW_OK;
    fprintf(stderr, _(N_("memory: %.2f GB while sampling, %.2f GB for the pixels")), m.sampling * 1e-9,
            m.pixels * 1e-9);
    if (m.tile)
        fprintf(stderr, _(N_("; decoding in stripes of at most %d x %d pixels")), m.tile, m.tile);
    if (m.away)
        fputs(_(N_("; the U-Net makes room for it")), stderr);
    if (m.unpacked >= 0.005)
        fprintf(stderr, _(N_("; %.0f %% of the U-Net is laid out anew in each step")), 100 * m.unpacked);
    fputc('\n', stderr);
    return KW_OK;
}

static int64_t all_steps(const session *s)
{
    int64_t sum = 0;
    for (size_t i = 0; i < s->jobs.n; i += batch_at(s, i))
        sum += steps_of(s, &s->jobs.job[i]);
    return sum;
}

/*
 * Seconds for everything, from the work of the first batch's step and decoding, by the area of each picture; the peak
 * is that of one type whatever the computation's, so this is a rough figure.
 */
static double estimate(const session *s)
{
    const kw_job *first = &s->jobs.job[0];
    size_t n = batch_at(s, 0);
    kw_pipeline_memory m;
    double work = 0, area = (double)first->width * first->height;
    if (kw_pipeline_forecast(s->p, (int)n, first->width, first->height, first->windows[0],
                             first->cfg != 1 && first->windows[0] == first->windows[1], &m, NULL))
        return 0;
    for (size_t i = 0; i < s->jobs.n; i++) {
        const kw_job *j = &s->jobs.job[i];
        double one = (double)j->width * j->height / area, large = one;
        kw_hires z;
        bool any;
        if (!kw_hires_size(s->c, j->width, j->height, kw_pipeline_factor(s->p), &z, &any, NULL) && any)
            large = (double)z.w * z.h / area;
        double second = any ? kw_hires_steps(s->c, j->steps) : 0;
        work += m.step_work / (double)n * (one * ((double)steps_of(s, j) - second) + large * second);
        work += m.decode_work * large;
    }
    double peak = kw_peak_measure(KW_PEAK_F32, omp_get_max_threads(), 0.1);
    return peak > 0 ? work / peak : 0;
}

/* Of a grid, before anything is computed. */
static void tell_plan(const session *s)
{
    const kw_grid *g = &s->jobs.grid;
    kw_str time = { 0 };
    if (s->cli->global.quiet || !g->n)
        return;
    double seconds = estimate(s);
    kw_show_duration(&time, seconds);
    fprintf(stderr, _(N_("grid: %d columns, %d rows")), g->axis[0].n, s->jobs.rows);
    fputs("; ", stderr);
    fprintf(stderr, _(N_("%zu pictures, %lld steps")), s->jobs.n, (long long)all_steps(s));
    if (seconds > 0 && time.s) {
        fputs("; ", stderr);
        fprintf(stderr, _(N_("about %s")), time.s);
    }
    fputc('\n', stderr);
    kw_str_free(&time);
}

static kw_status draw_all(session *s, kw_err *e)
{
    KW_TRY(tell_memory(s, e));
    tell_plan(s);
    kw_progress_begin(&s->progress, s->cli, _(N_("drawing")), _(N_("step")), all_steps(s));
    for (size_t n; s->at < s->jobs.n; s->at += n) {
        kw_arena *a = kw_arena_new();
        n = batch_at(s, s->at);
        kw_status st = a ? draw(s, s->at, n, a, e) : kw_fail(e, KW_ENOMEM, "out of memory");
        kw_arena_free(a);
        if (st) {
            kw_progress_pause(&s->progress);
            return st;
        }
        s->done += steps_of(s, &s->jobs.job[s->at]);
        kw_progress_pause(&s->progress);
        if (!s->cli->global.json)
            for (size_t i = 0; i < n; i++)
                puts(s->jobs.job[s->at + i].file);
        fflush(stdout);
    }
    kw_progress_end(&s->progress, s->done, NULL);
    return KW_OK;
}

/* ---- after the last ---------------------------------------------------------------------------------------------- */

static kw_status save_latents(const session *s, kw_err *e)
{
    int c = kw_pipeline_base(s->p)->vae.latent;
    if (!s->latents)
        return KW_OK;
    kw_tensor t = { .name = "latents", .dtype = KW_F32, .rank = 4, .shape = { (int64_t)s->jobs.n, c, s->h, s->w },
                    .data = s->latents };
    t.bytes = (uint64_t)kw_tensor_count(&t) * sizeof(float);
    kw_guard_begin();
    kw_status st = kw_tensors_save(s->c->save_latents, &t, 1, NULL, 0, e);
    kw_guard_end();
    return st;
}

static void add_text(kw_str *o, const char *key, const char *text)
{
    kw_str_printf(o, ",\"%s\":", key);
    kw_show_json_text(o, text);
}

static void print_json(const session *s, const char *sheet)
{
    kw_str o = { 0 };
    kw_str_add(&o, "{\"files\":[");
    for (size_t i = 0; i < s->jobs.n; i++) {
        const kw_job *j = &s->jobs.job[i];
        kw_str_add(&o, i ? ",{\"file\":" : "{\"file\":");
        kw_show_json_text(&o, j->file);
        add_text(&o, "prompt", j->prompt);
        add_text(&o, "negative", j->negative);
        add_text(&o, "sampler", j->sampler->label);
        kw_str_printf(&o, ",\"seed\":%llu,\"steps\":%d,\"cfg\":%.10g,\"width\":%d,\"height\":%d}",
                      (unsigned long long)j->seed, j->steps, j->cfg,
                      j->width, j->height);
    }
    kw_str_add(&o, "]");
    if (sheet)
        add_text(&o, "sheet", sheet);
    if (s->c->save_latents)
        add_text(&o, "latents", s->c->save_latents);
    printf("%s}\n", o.s && !o.failed ? o.s : "{");
    kw_str_free(&o);
}

static kw_status open_all(session *s, kw_err *e)
{
    KW_TRY(kw_canvas_open(s->cli, s->c, &s->canvas, e));
    KW_TRY(open_pipeline(s, e));
    KW_TRY(kw_words_open(s->cli, s->c, s->p, &s->jobs, e));
    KW_TRY(complete(s, e));
    return kw_picture_writer_new(s->cli, s->c, s->p, &s->jobs, s->canvas, &s->writer, e);
}

static kw_status run(kw_cli *cli, void *config, kw_err *e)
{
    session s = { .cli = cli, .c = config };
    kw_generate_config *given = config;
    const char *sheet;
    if (kw_asks_for_list(given->sampler) || kw_asks_for_list(given->schedule)) {
        (kw_asks_for_list(given->sampler) ? kw_list_samplers : kw_list_schedules)(cli);
        return KW_OK;
    }
    KW_TRY(kw_from_read(cli, given, &s.from, e));
    KW_TRY(kw_model_named(cli, &given->base, e));
    KW_TRY(kw_model_named(cli, &given->vae, e));
    if (!given->base)
        given->base = kw_embedded_base(cli->arena);
    static const char *const wishes[] = { "sampler", "steps", "cfg" };
    for (size_t i = 0; given->base && i < KW_LEN(wishes); i++)
        KW_TRY(kw_base_wishes(cli, given->base, wishes[i], wishes[i], e));
    if (kw_options_from(cli->options, "seed") == KW_FROM_DEFAULT)
        KW_TRY(kw_options_set(cli->options, "seed", "random", KW_FROM_PRESET, "--seed", e));
    if (kw_options_from(cli->options, "variation-seed") == KW_FROM_DEFAULT)
        KW_TRY(kw_options_set(cli->options, "variation-seed", "random", KW_FROM_PRESET, "--variation-seed", e));
    KW_TRY(kw_jobs_read(cli->arena, s.c, &s.jobs, e));
    tell_prompts(&s);
    kw_say(cli, _(N_("opening the model")));
    kw_status opened = open_all(&s, e);
    kw_hush(cli);
    KW_TRY(opened);
    kw_picture_writer_compare(s.writer, s.from);
    KW_TRY(draw_all(&s, e));
    KW_TRY(save_latents(&s, e));
    KW_TRY(kw_picture_writer_end(s.writer, &sheet, e));
    if (cli->global.json)
        print_json(&s, sheet);
    else if (sheet)
        puts(sheet);
    return KW_OK;
}

const kw_command kw_command_generate = {
    .name = "generate", .help = N_("draw pictures from words, with a base and LoRA files"),
    .about = N_("Settings are kept in each picture as A1111 writes them. Prints the files it wrote."),
    .examples = "kiwame generate \"a red fox\" --base sd15 --seed 1\n"
                "kiwame generate \"(kiwa:1.2) in snow <lora:kiwa:0.8>\" --base sd15 --lora-dir loras --count 4\n"
                "kiwame generate \"a red hat\" --base sd15 --init fox.png --mask head.png --strength 0.8\n"
                "kiwame generate --from fox.png --base sd15 --grid cfg=5,7,9 --grid seed=1-4",
    .options = options, .config_size = sizeof(C), .flags = KW_COMMAND_THREADS, .run = run,
};
