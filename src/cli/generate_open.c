/* generate_open.c - before the first picture: the pipeline, sizes of all pictures, noise from a file. */
#include "generate_session.h"

#include <string.h>

void kw_session_tell_prompts(const kw_session *s)
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

/* ---- --noise ----------------------------------------------------------------------------------------------------- */

static kw_status check_noise(kw_session *s, const kw_tensors *t, const kw_tensor *one, kw_err *e)
{
    int c = kw_pipeline_base(s->p)->vae.latent, f = kw_pipeline_factor(s->p);
    const kw_job *j = s->jobs.job;
    char text[160];
    if (one->dtype == KW_F32 && one->rank == 4 && one->shape[0] == (int64_t)s->jobs.n && one->shape[1] == c
        && one->shape[2] == j->height / f && one->shape[3] == j->width / f)
        return KW_OK;
    return kw_fail(e, KW_EDATA, N_("%s: %s is %s %s; F32 [%zu, %d, %d, %d] is needed"), kw_tensors_path(t), one->name,
                   kw_dtype_name(one->dtype), kw_shape_text(one, text), s->jobs.n, c, j->height / f, j->width / f);
}

static kw_status read_noise(kw_session *s, kw_err *e)
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

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static bool same_size(const kw_jobs *jobs)
{
    for (size_t i = 1; i < jobs->n; i++)
        if (jobs->job[i].width != jobs->job[0].width || jobs->job[i].height != jobs->job[0].height)
            return false;
    return true;
}

/* A size for each, its second pass and its prompts' windows. */
static kw_status complete_one(const kw_session *s, kw_job *j, kw_err *e)
{
    int native = kw_pipeline_native(s->p), f = kw_pipeline_factor(s->p);
    kw_hires second;
    bool any;
    if (s->canvas)
        kw_canvas_size(s->canvas, native, f, &j->width, &j->height);
    j->width = j->width ? j->width : native;
    j->height = j->height ? j->height : native;
    KW_TRY(kw_pipeline_check_size(s->p, j->width, j->height, e));
    KW_TRY(kw_hires_size(s->c, j->width, j->height, f, &second, &any, e));
    if (any && s->c->save_latents)
        return kw_fail(e, KW_EUSAGE, N_("--save-latents and --hires do not go together"));
    const kw_reading r = kw_words_reading(s->c, j);
    KW_TRY(kw_pipeline_windows(s->p, &r, j->prompt, false, &j->windows[0], e));
    return kw_pipeline_windows(s->p, &r, j->negative, true, &j->windows[1], e);
}

static kw_status complete(kw_session *s, kw_err *e)
{
    int f = kw_pipeline_factor(s->p);
    for (size_t i = 0; i < s->jobs.n; i++)
        KW_TRY(complete_one(s, &s->jobs.job[i], e));
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

/* ---- the pipeline ------------------------------------------------------------------------------------------------ */

kw_status kw_session_lora(const kw_session *s, size_t i, const kw_strengths *x, kw_err *e)
{
    return kw_pipeline_strengths(s->p, i, x->te, x->unet, x->blocks, e);
}

static kw_status open_pipeline(kw_session *s, kw_err *e)
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
    kw_arena *a = s->arena ? s->arena : s->cli->arena;
    KW_TRY(kw_pipeline_open(a, s->c->base, s->c->vae, files, s->jobs.n_lora, &o, &s->p, e));
    for (size_t i = 0; i < s->jobs.n_lora && s->jobs.n; i++)  /* before memory is planned: nothing is merged twice */
        KW_TRY(kw_session_lora(s, i, &s->jobs.job[0].strength[i], e));
    for (size_t i = 0; i < s->jobs.n_lora && !s->cli->global.quiet; i++)
        if (kw_pipeline_lora_passed_over(s->p, i)) {
            fprintf(stderr, _(N_("%s: %zu keys fit no layer and are passed over")), s->jobs.lora[i].path,
                    kw_pipeline_lora_passed_over(s->p, i));
            fputc('\n', stderr);
        }
    return KW_OK;
}

kw_status kw_session_open(kw_session *s, kw_err *e)
{
    KW_TRY(kw_canvas_open(s->cli, s->c, &s->canvas, e));
    KW_TRY(open_pipeline(s, e));
    KW_TRY(kw_words_open(s->cli, s->c, s->p, &s->jobs, e));
    KW_TRY(complete(s, e));
    if (!s->writer)
        KW_TRY(kw_picture_writer_new(s->cli, s->c, s->p, s->whole ? s->whole : &s->jobs, s->canvas, &s->writer, e));
    return kw_picture_writer_base(s->writer, s->c, s->p, &s->jobs, s->canvas, e);
}
