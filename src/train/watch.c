/* watch.c - what a run shows while it goes on: events and sample pictures. */
#include "run_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double unix_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static bool is_listed(const kw_run *r, const char *name)
{
    size_t n;
    const kw_event *v = kw_events_list(r->log, &n);
    for (size_t i = 0; i < n; i++)
        if (v[i].kind == KW_EVENT_SAMPLE && v[i].file && !strcmp(kw_path_name(v[i].file), name))
            return true;
    return false;
}

/* Samples drawn after the checkpoint that a run goes on from will be drawn again: the old ones go. */
static kw_status drop_later_samples(const kw_run *r, kw_err *e)
{
    char **names, *dir = kw_path_join(r->arena, r->dir, "samples"), *ours = kw_sprintf(r->arena, "%s_", r->s.name);
    size_t n;
    if (!dir || !ours)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!kw_is_dir(dir))
        return KW_OK;
    KW_TRY(kw_dir_list(r->arena, dir, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        if (kw_starts_with(names[i], ours) && kw_ends_with(names[i], ".png") && !is_listed(r, names[i]))
            KW_TRY(kw_remove_all(kw_path_join(r->arena, dir, names[i]), e));
    return KW_OK;
}

kw_status kw__watch_open(kw_run *r, int64_t step, kw_err *e)
{
    r->started = unix_time();
    KW_TRY(kw_events_open(r->arena, r->dir, step, r->per_epoch, &r->log, e));
    KW_TRY(drop_later_samples(r, e));
    kw_events_add(r->log, &(kw_event){ .kind = KW_EVENT_START, .name = r->s.name, .steps = r->steps });
    return KW_OK;
}

static int64_t epoch_of(const kw_run *r, int64_t step) { return (KW_MAX(step, 1) - 1) / KW_MAX(r->per_epoch, 1) + 1; }

void kw__watch_step(kw_run *r, const kw_step_report *report, double seconds)
{
    int64_t step = kw_trainer_steps(r->trainer);
    kw_event v = { .kind = KW_EVENT_STEP, .step = step, .epoch = epoch_of(r, step), .loss = report->loss,
                   .norm = report->norm, .seconds = seconds, .skipped = report->skipped };
    const int64_t *trained = kw_trainer_trained(r->trainer)->group_count;
    for (int g = 0; g < KW_EVENT_RATES; g++) {       /* both text encoders have one rate */
        bool any = trained[g] || (g == KW_GROUP_TEXT && trained[KW_GROUP_TEXT2]);
        v.rate[g] = any ? report->rate[g] : -1;
    }
    kw_events_add(r->log, &v);
}

void kw__watch_validation(kw_run *r)
{
    int64_t step = kw_trainer_steps(r->trainer);
    kw_events_add(r->log, &(kw_event){ .kind = KW_EVENT_VALIDATION, .step = step, .epoch = epoch_of(r, step),
                                       .loss = r->validation, .base = r->base_validation,
                                       .epoch_end = step % KW_MAX(r->per_epoch, 1) == 0 });
}

void kw__watch_save(kw_run *r, const char *file)
{
    int64_t step = kw_trainer_steps(r->trainer);
    kw_events_add(r->log, &(kw_event){ .kind = KW_EVENT_SAVE, .step = step, .epoch = epoch_of(r, step),
                                       .file = kw_path_name(file) });
}

void kw__watch_end(kw_run *r, const char *level, const char *text)
{
    kw_err ignored;
    kw_events_add(r->log, &(kw_event){ .kind = KW_EVENT_END, .step = kw_trainer_steps(r->trainer), .level = level,
                                       .text = text });
    kw_status s = kw_events_sync(r->log, &ignored);        /* a log that cannot be written must not fail a run */
    (void)s;
}

bool kw__run_tell(const kw_run *r, kw_phase phase, size_t done, size_t n)
{
    const kw_progress_report p = { .done = (int64_t)done, .total = (int64_t)n, .loss = NAN, .average = NAN,
                                   .validation = NAN, .base_validation = NAN };
    if (r->hooks.progress)
        r->hooks.progress(r->hooks.user, phase, &p);
    return !kw__run_stopped(r);
}

/* ---- sample pictures --------------------------------------------------------------------------------------------- */

/* What the user asked to see; else the trigger word alone and some of the captions; nothing if no samples are wanted. */
size_t kw__run_prompts(const kw_run *r, const char *prompts[KW__MOST_PROMPTS])
{
    size_t n = 0;
    if (!r->s.sample_steps && !r->s.sample_epochs)
        return 0;
    for (size_t i = 0; i < r->s.sample_prompts.n && n < KW__MOST_PROMPTS; i++)
        prompts[n++] = r->s.sample_prompts.item[i];
    if (n)
        return n;
    if (r->s.trigger)
        prompts[n++] = r->s.trigger;
    for (size_t i = 0; i < r->data->n && n < 4; i += KW_MAX(r->data->n / 4, 1))
        if (!r->data->items[i].bad && r->data->items[i].n_captions)
            prompts[n++] = r->data->items[i].captions[0];
    return n;
}

kw_status kw__run_write_png(kw_run *r, kw_arena *a, const char *name, const kw_picture *p, kw_err *e)
{
    kw_str png = { 0 };
    char *dir = kw_path_join(a, r->dir, "samples"), *path = dir ? kw_path_join(a, dir, name) : NULL;
    kw_status s = path ? kw_mkdirs(dir, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s)
        s = kw_png_encode(p, NULL, 0, &png, e);
    if (!s)
        s = kw_file_write_atomic(path, png.s, png.n, e);
    kw_str_free(&png);
    return s;
}

kw_status kw__run_draw(kw_run *r, kw_pipeline *p, kw_arena *a, const char *prompt, uint64_t seed,
                       kw_generate_fn *progress, kw_generated *out, kw_err *e)
{
    kw_wish wish = { .prompt = prompt, .seed = seed };
    int side = KW_MAX(r->resolution / kw_pipeline_factor(p) * kw_pipeline_factor(p), kw_pipeline_factor(p));
    bool zero_snr = kw_trainer_noise(r->trainer)->spec.zero_snr;
    kw_request q = { .wish = &wish, .n = 1, .width = side, .height = side, .cfg = r->s.sample_cfg,
                     .clip_skip = r->s.clip_skip, .seeds = KW_SEEDS_KIWAME,
                     .sampling = { .sampler = kw_sampler_find(zero_snr ? "ddim" : "euler", NULL),
                                   .steps = r->s.sample_sampling_steps, .eta = -1 },
                     .progress = progress, .ctx = r };
    return kw_pipeline_generate(p, a, &q, out, e);
}

kw_status kw__run_go_on(void *run, const kw_generate_at *at, kw_err *e)
{
    (void)at;
    return kw__run_stopped(run) ? kw_fail(e, KW_ESTOP, N_("stopped")) : KW_OK;
}

static kw_status one_sample(kw_run *r, kw_arena *a, int index, const char *prompt, kw_err *e)
{
    kw_generated made;
    int64_t step = kw_trainer_steps(r->trainer);
    uint64_t seed = r->s.seed + (uint64_t)index;
    KW_TRY(kw__run_draw(r, r->pipeline, a, prompt, seed, kw__run_go_on, &made, e));
    char *name = kw_name_of_sample(a, r->s.name, -1, step, index, unix_time(), seed);
    if (!name)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw__run_write_png(r, a, name, &made.picture[0], e));
    kw_events_add(r->log, &(kw_event){ .kind = KW_EVENT_SAMPLE, .step = step, .epoch = epoch_of(r, step),
                                       .index = index, .seed = (int64_t)seed, .prompt = prompt,
                                       .file = kw_sprintf(a, "samples/%s", name) });
    return KW_OK;
}

kw_status kw__run_pipeline(kw_run *r, kw_err *e)
{
    kw_pipeline_options o = { .compute = r->tc.compute };
    if (r->pipeline)
        return KW_OK;
    return kw_pipeline_over(r->arena, kw_trainer_base(r->trainer), r->tc.lora ? kw_trainer_adapters(r->trainer) : NULL,
                            kw_trainer_workspace(r->trainer), &o, &r->pipeline, e);
}

static bool is_drawn(const kw_run *r, size_t index)
{
    size_t n;
    const kw_event *v = kw_events_list(r->log, &n);
    for (size_t i = 0; i < n; i++)
        if (v[i].kind == KW_EVENT_SAMPLE && v[i].step == kw_trainer_steps(r->trainer) && v[i].index == (int)index)
            return true;
    return false;
}

/*
 * One picture for each prompt with the weights of this moment, always from the same seeds. A failed one is told, not
 * fatal. Who stops the run need not wait for them: those that lack are drawn when it goes on.
 */
kw_status kw__watch_samples(kw_run *r, kw_err *e)
{
    const char *prompts[KW__MOST_PROMPTS];
    size_t n = r->vae || r->align ? 0 : kw__run_prompts(r, prompts);
    kw_status s = KW_OK;
    if (n)
        KW_TRY(kw__run_pipeline(r, e));
    for (size_t i = 0; i < n && s != KW_ESTOP; i++) {
        if (is_drawn(r, i))
            continue;
        kw_err trouble = { 0 };
        kw_arena *a = kw_arena_new();
        s = a ? one_sample(r, a, (int)i, prompts[i], &trouble) : kw_fail(&trouble, KW_ENOMEM, "out of memory");
        kw_arena_free(a);
        if (s && s != KW_ESTOP)
            kw__run_note(r, kw_translate(N_("sample %zu was not drawn: %s")), i + 1, trouble.what);
    }
    kw__run_report(r);
    return KW_OK;
}
