/* generate_draw.c - pictures batch by batch, each written as soon as it is drawn. */
#include "generate_session.h"

#include <string.h>

static kw_status progress(void *ctx, const kw_generate_at *at, kw_err *e)
{
    kw_session *s = ctx;
    char extra[64] = "";
    (void)e;
    size_t all_jobs = s->whole ? s->whole->n : s->jobs.n;
    if (all_jobs > 1)
        snprintf(extra, sizeof extra, _(N_("picture %zu of %zu")), s->first + s->at + 1, all_jobs);
    int64_t all = kw_session_steps_of(s, &s->jobs.job[s->at]);
    if (at->stage == KW_STAGE_STEP)
        kw_progress_at(&s->progress, s->done + (int64_t)at->done * all / at->total, extra);
    return KW_OK;
}

static kw_status keep(kw_session *s, size_t first, const kw_generated *g, kw_err *e)
{
    size_t each = (size_t)g->channels * (size_t)g->h * (size_t)g->w;
    if (s->latents)
        memcpy(s->latents + first * each, g->latents, (size_t)g->n * each * sizeof(float));
    for (int i = 0; i < g->n; i++) {
        kw_picture whole = { 0 };
        if (s->canvas)
            KW_TRY(kw_canvas_finish(s->canvas, &g->picture[i], &whole, e));
        const kw_picture *p = s->canvas ? &whole : &g->picture[i];
        kw_status st = kw_picture_writer_put(s->writer, s->first + first + (size_t)i, p, e);
        kw_picture_free(&whole);
        if (st)
            return st;
    }
    return KW_OK;
}

static const float *slice(const kw_tensor *t, size_t picture)
{
    return t ? (const float *)t->data + picture * (size_t)(kw_tensor_count(t) / t->shape[0]) : NULL;
}

static kw_status set_strengths(const kw_session *s, const kw_job *j, kw_err *e)
{
    for (size_t i = 0; i < s->jobs.n_lora; i++)
        KW_TRY(kw_session_lora(s, i, &j->strength[i], e));
    for (size_t i = 0; i < s->jobs.n_hypernet; i++)
        KW_TRY(kw_pipeline_hypernet_strength(s->p, i, j->hyper[i], e));
    return KW_OK;
}

/* n jobs from this one on as one request; what it points to is on the arena. */
static kw_status request_of(kw_session *s, size_t first, size_t n, kw_arena *a, kw_request *r, kw_err *e)
{
    const kw_job *j = &s->jobs.job[first];
    const kw_generate_sampling *how = &s->c->how;
    kw_wish *wish = kw_alloc_array(a, n, sizeof *wish);
    const float **injected = kw_alloc_array(a, KW_LEN(s->given.step), sizeof *injected);
    if (!wish || !injected)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        wish[i] = (kw_wish){ .prompt = j[i].prompt, .negative = j[i].negative, .seed = j[i].seed,
                             .variation = j[i].variation };
    for (int i = 0; i < s->given.n_steps; i++)
        injected[i] = slice(s->given.step[i], first);
    *r = (kw_request){
        .wish = wish, .n = (int)n, .width = j->width, .height = j->height, .cfg = j->cfg, .clip_skip = j->clip_skip,
        .reading = kw_words_reading(s->c, j), .cfg_rescale = how->cfg_rescale,
        .variation_strength = how->variation_strength, .noise_delta = how->noise_delta,
        .seeds = (kw_seeds)s->c->rng, .noise = slice(s->given.noise, first), .injected = injected,
        .n_injected = s->given.n_steps, .progress = progress, .ctx = s,
    };
    KW_TRY(kw_seed_from(how->seed_from, &r->seed_from_w, &r->seed_from_h, e));
    KW_TRY(kw_generate_sizes(s->c, s->p, &r->sizes, e));
    return kw_session_sampling(s, j, &r->sampling, &r->noised, e);
}

static kw_status draw(kw_session *s, size_t first, size_t n, kw_arena *a, kw_err *e)
{
    const kw_job *j = &s->jobs.job[first];
    kw_request r;
    kw_generated g;
    KW_TRY(set_strengths(s, j, e));
    KW_TRY(request_of(s, first, n, a, &r, e));
    if (s->canvas) {
        KW_TRY(kw_canvas_prepare(s->canvas, s->p, j->width, j->height, e));
        KW_TRY(kw_canvas_into(s->canvas, a, s->p, &r, e));
    }
    KW_TRY(kw_hires_draw(s->p, a, s->c, &r, j->change, &g, e));
    return keep(s, first, &g, e);
}

/* Numbers went wrong: is it a file's fault? Then its tensor is named; else e says what it said. */
static kw_status explain(const kw_session *s, kw_status status, kw_err *e)
{
    const kw_sd *base = kw_pipeline_base(s->p);
    kw_err why;
    if (status != KW_ENUMERIC)
        return status;
    for (int p = 0; p < KW_N_PARTS; p++)
        if (kw_source_check_numbers(p == KW_PART_VAE ? base->vae_source : base->source, (kw_part)p, &why)) {
            *e = why;
            return KW_EDATA;
        }
    for (size_t i = 0; i < s->jobs.n_lora; i++) {
        const kw_lora_file *f = kw_pipeline_lora_file(s->p, i);
        kw_numbers n = { .bad = { 0 } };
        for (size_t k = 0; k < kw_tensors_n(f->file); k++)
            kw_tensor_numbers(kw_tensors_at(f->file, k), kw_tensors_at(f->file, k)->name, &n);
        if (n.bad.n)
            return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: %zu tensors hold NaN or infinity, the first is \"%s\""),
                                        f->path, n.bad.n, n.bad.first),
                             N_("the file is damaged, or was saved after a training that failed"));
    }
    return status;
}

kw_status kw_session_draw(kw_session *s, kw_err *e)
{
    KW_TRY(kw_session_tell_memory(s, e));
    kw_session_tell_plan(s);
    kw_progress_begin(&s->progress, s->cli, _(N_("drawing")), _(N_("step")), kw_session_steps(s));
    for (size_t n; s->at < s->jobs.n; s->at += n) {
        kw_arena *a = kw_arena_new();
        n = kw_session_batch(s, s->at);
        kw_status st = a ? draw(s, s->at, n, a, e) : kw_fail(e, KW_ENOMEM, "out of memory");
        kw_arena_free(a);
        if (st) {
            kw_progress_pause(&s->progress);
            kw_picture_writer_leave(s->writer);
            return explain(s, st, e);
        }
        s->done += kw_session_steps_of(s, &s->jobs.job[s->at]);
        kw_progress_pause(&s->progress);
        if (!s->cli->global.json)
            for (size_t i = 0; i < n; i++)
                puts(s->jobs.job[s->at + i].file);
        fflush(stdout);
    }
    kw_progress_end(&s->progress, s->done, NULL);
    return KW_OK;
}
