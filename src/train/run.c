/* run.c - opening a run, its plan, and the loop. */
#include "run_internal.h"

#include "adapter/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const kw_sd *base(const kw_run *r) { return kw_trainer_base(r->trainer); }
const char *kw_run_dir(const kw_run *r) { return r->dir; }

void kw__run_note(const kw_run *r, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (r->hooks.note)
        r->hooks.note(r->hooks.user, text);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static kw_status open_tokenizers(kw_run *r, kw_err *e)
{
    KW_TRY(kw_sd_tokenizers(r->arena, base(r), NULL, r->tokenizers, e));
    r->tokenizer = r->tokenizers[0];
    return KW_OK;
}

static int native_resolution(const kw_sd *sd)
{
    int factor = kw_vae_factor(&sd->vae);
    if (sd->has[KW_PART_UNET] && sd->unet.sample_size)
        return sd->unet.sample_size * factor;
    return sd->vae.sample_size ? sd->vae.sample_size : 512;
}

static kw_status check_parts(kw_run *r, kw_err *e)
{
    const kw_sd *sd = base(r);
    static const kw_part needed[] = { KW_PART_UNET, KW_PART_TEXT, KW_PART_VAE };
    for (size_t i = r->vae ? 2 : r->align ? 1 : 0; i < KW_LEN(needed); i++)
        if (!sd->has[needed[i]])
            return kw_fail(e, KW_EDATA, "%s has no %s", r->s.base, kw_part_name(needed[i]));
    if (!r->vae && r->s.clip_skip > kw_sd_clip_layers(sd))
        return kw_fail(e, KW_EUSAGE, N_("clip skip %d: the text encoder has %d layers"), r->s.clip_skip,
                       kw_sd_clip_layers(sd));
    if (!r->vae && !r->align && sd->vae.latent != sd->unet.in && !kw_sd_inpaints(sd))
        return kw_fail(e, KW_EDATA, "%s: the autoencoder makes %d channels, the U-Net takes %d", r->s.base,
                       sd->vae.latent, sd->unet.in);
    return r->vae || r->align ? KW_OK : kw_sd_check_texts(sd, e);
}

/* Steps: as said, or as epochs say, or until 1,600 pictures were seen. */
static void settle_length(kw_run *r)
{
    int64_t each = KW_MAX(r->s.accumulation, 1);
    r->per_epoch = (kw_plan_steps(r->plan) + each - 1) / each;
    r->steps = r->s.steps ? r->s.steps : r->s.epochs ? r->s.epochs * r->per_epoch : 1600 / KW_MAX(r->s.batch, 1);
    r->steps = KW_MAX(r->steps, 1);
    r->tc.schedule.total = r->steps;
    int64_t tenth = KW_MAX(r->steps / 10, 1);
    if (!r->s.validate_steps)
        r->s.validate_steps = (int)tenth;
    if (r->s.sample_steps < 0)
        r->s.sample_steps = r->s.sample_epochs ? 0 : (int)KW_MAX(r->steps / 5, 1);
    if (r->s.save_steps < 0)              /* a LoRA is small: one for each set of samples, for the sheet to compare */
        r->s.save_steps = r->tc.lora && !r->s.save_epochs ? (int)KW_MAX(r->steps / 5, 1) : 0;
    if (!r->s.checkpoint_steps)
        r->s.checkpoint_steps = (int)KW_MIN(tenth, 500);
}

/* The plan stays in the folder, as it was before the first step. */
static kw_status write_plan(const kw_run *r, kw_err *e)
{
    kw_str text = { 0 };
    kw_run_plan(r, &text);
    char *path = kw_path_join(r->arena, r->dir, "plan.txt");
    kw_status s = path && text.s ? kw_file_write_atomic(path, text.s, text.n, e)
                                 : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_str_free(&text);
    return s;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static void free_decoder(void *decoder) { kw_decoder_free(decoder); }
static void free_encoder(void *run) { kw_arena_free(((kw_run *)run)->encoder_arena); }

static kw_status settle(kw_run *r, kw_err *e)
{
    r->align = r->tc.align;
    r->vae = !r->tc.lora && r->tc.parts == 1u << KW_PART_VAE;
    r->learns_text = r->tc.lora ? r->tc.adapter.targets & KW_TARGET_TEXT : r->tc.parts & 1u << KW_PART_TEXT;
    KW_TRY(kw__run_settle_name(r, e));
    r->dir = r->s.out ? r->s.out : kw_sprintf(r->arena, "runs/%s", r->s.name);
    r->average_loss = r->validation = r->base_validation = r->best = NAN;
    if (!r->dir)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (r->hooks.recipe && r->s.steps && r->s.epochs)
        return kw_fail(e, KW_EUSAGE, N_("--steps and --epochs: give one of them"));
    return kw_picture_colour(r->s.background ? r->s.background : "white", r->background, e);
}

kw_status kw_run_open(kw_arena *a, const kw_settings *s, const kw_run_hooks *h, kw_run **out, kw_err *e)
{
    kw_run *r = kw_alloc(a, sizeof *r);
    if (!r || kw_defer(a, free_encoder, r))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    r->arena = a;
    r->s = *s;
    r->hooks = *h;
    KW_TRY(kw_settings_config(a, &r->s, 1, &r->tc, e));
    KW_TRY(settle(r, e));
    KW_TRY(kw__run_check_init_file(r, e));
    KW_TRY(kw__run_check_folder(r, e));
    KW_TRY(kw_trainer_new(a, r->s.base, r->s.vae, &r->tc, &r->trainer, e));
    KW_TRY(check_parts(r, e));
    KW_TRY(kw__product_check(r, e));
    r->resolution = r->s.resolution ? r->s.resolution : native_resolution(base(r));
    if (h->decoder) {
        KW_TRY(kw_decoder_new(h->decoder, 2, &r->decoder, e));
        if (kw_defer(a, free_decoder, r->decoder))
            return kw_fail(e, KW_ENOMEM, "out of memory");
    }
    KW_TRY(kw__run_open_data(r, e));
    settle_length(r);
    kw_trainer_schedule(r->trainer, &r->tc.schedule);
    KW_TRY(kw_cache_new(a, r->s.cache, 4ull << 30, &r->cache, e));
    KW_TRY(kw__run_hash_base(r, e));
    if (!r->vae)
        KW_TRY(open_tokenizers(r, e));
    if (r->tokenizer)
        KW_TRY(kw__run_check_captions(r, e));
    kw_err why = { 0 };
    /* builds the layers: then it is known what a file to start from fits */
    kw_status planned = kw__run_forecast(r, &why);
    if (r->tc.init && (!planned || planned == KW_EUSAGE))
        KW_TRY(kw__run_check_init(r, e));
    if (planned) {
        if (e)
            *e = why;
        return planned;
    }
    if (r->s.warmup > r->steps)
        kw__run_note(r, kw_translate(N_("the warm-up of %d steps is longer than the run: the rate stays below what is "
                                        "set")), r->s.warmup);
    *out = r;
    return KW_OK;
}

/* ---- the plan, with what the user did not say -------------------------------------------------------------------- */

static void plan_settings(const kw_run *r, kw_str *t)
{
    const kw_settings *s = &r->s;
    static const char *const schedules[] = { "constant", "cosine", "linear" };
    const char *trigger = s->trigger ? s->trigger : "";
    if (r->tc.lora)
        kw_str_printf(t, kw_translate(N_("LoRA:        preset %s, rank %d, alpha %g, on %s\n")), s->preset, s->rank,
                      (double)kw_settings_alpha(s), s->targets);
    kw_str_printf(t, kw_translate(N_("optimizer:   %s, rate %s, warm-up %d, %s\n")), r->tc.optimizer->name,
                  schedules[s->scheduler], s->warmup, r->tc.compute == KW_BF16 ? "bf16" : "f32");
    if (r->tc.fused)
        kw_str_printf(t, kw_translate(N_("update:      fused: each weight moves as soon as its gradient is known%s\n")),
                      s->max_norm > 0
                      ? kw_translate(N_("; --max-grad-norm holds for each tensor, not for all together")) : "");
    if (r->tc.int8)
        kw_str_add(t, kw_translate(N_("base:        the U-Net's frozen weights in one byte a number (int8)\n")));
    if (r->tc.trained == KW_BF16 && !r->tc.lora)
        kw_str_add(t, kw_translate(N_("weights:     bf16 while they are trained, rounded by chance\n")));
    kw_str_printf(t, kw_translate(N_("pictures of: %d pixels; seed %llu\n")), r->resolution,
                  (unsigned long long)s->seed);
    if (r->tokenizer)
        kw_str_printf(t, kw_translate(N_("captions:    %s%s%s; up to %d tokens; %g %% left empty; clip skip %d\n")),
                      kw_translate(*trigger ? N_("with the trigger word ") : N_("as they are")), trigger,
                      s->shuffle ? kw_translate(N_(", shuffled")) : "", s->token_length, 100 * s->caption_dropout,
                      s->clip_skip);
}

static void plan_times(const kw_run *r, kw_str *t)
{
    const kw_settings *s = &r->s;
    kw_str_printf(t, kw_translate(N_("every:       %d steps held-out loss, %d a checkpoint to resume from")),
                  s->validate_steps, s->checkpoint_steps);
    if (s->sample_steps)
        kw_str_printf(t, kw_translate(N_(", %d samples")), s->sample_steps);
    if (s->save_steps)
        kw_str_printf(t, kw_translate(N_(", %d a result")), s->save_steps);
    kw_str_add(t, "\n");
    if (s->sample_epochs || s->save_epochs)
        kw_str_printf(t, kw_translate(N_("epochs:      samples every %d, a result every %d (0: not)\n")),
                      s->sample_epochs, s->save_epochs);
}

void kw_run_plan(const kw_run *r, kw_str *t)
{
    const kw_trained *tr = kw_trainer_trained(r->trainer);
    kw_str_printf(t, kw_translate(N_("base:        %s\n")), r->s.base);
    kw_str_printf(t, kw_translate(N_("pictures:    %zu to train on, %zu held out, %zu buckets\n")),
                  kw_data_count(r->data, false), kw_data_count(r->data, true), r->data->n_buckets);
    kw_str_printf(t, kw_translate(N_("background:  #%02x%02x%02x below transparent parts; %zu pictures have some\n")),
                  r->background[0], r->background[1], r->background[2], kw_data_transparent(r->data));
    kw_str_printf(t, kw_translate(N_("steps:       %lld (%lld samples an epoch, batches of %d, %d per update, "
                                     "%.1f epochs)\n")),
                  (long long)r->steps, (long long)kw_plan_samples(r->plan), r->s.batch, r->s.accumulation,
                  (double)r->steps / (double)KW_MAX(r->per_epoch, 1));
    if (tr)
        kw_str_printf(t, kw_translate(N_("trained:     %lld numbers in %zu tensors\n")), (long long)tr->count, tr->n);
    kw__run_plan_cost(r, t);
    kw_str_printf(t, kw_translate(N_("rate:        %g, weight decay %g\n")), r->s.learning_rate, r->s.weight_decay);
    plan_settings(r, t);
    plan_times(r, t);
    kw_str_printf(t, kw_translate(N_("result:      %s\n")), r->dir);
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static kw_status validation_sum(kw_run *r, bool of_base, int64_t i, double *sum, int *n, kw_err *e)
{
    for (int k = 0; k < (r->vae ? 1 : KW__VALIDATE_TIMES); k++) {
        kw_arena *a = kw_arena_new();
        kw_micro m;
        double loss = 0;
        kw_status s = a ? kw__run_validation_micro(r, a, i, k, &m, e) : kw_fail(e, KW_ENOMEM, "out of memory");
        if (!s)
            s = kw_trainer_loss(r->trainer, &m, of_base, &loss, e);
        kw_arena_free(a);
        KW_TRY(s);
        *sum += loss;
        ++*n;
    }
    return KW_OK;
}

/* Mean loss over held-out pictures at fixed timesteps with fixed noise. */
static kw_status validate(kw_run *r, bool of_base, double *loss, kw_err *e)
{
    double sum = 0;
    int n = 0;
    if (!r->held_out)
        return KW_OK;
    int64_t count = KW_MIN(kw_plan_steps(r->held_out), KW__VALIDATE_MOST);
    for (int64_t i = 0; i < count; i++)
        KW_TRY(validation_sum(r, of_base, i, &sum, &n, e));
    *loss = sum / n;
    return KW_OK;
}

static kw_status one_step(kw_run *r, kw_step_report *report, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    int each = r->s.accumulation;
    kw_micro *m = a ? kw_alloc_array(a, (size_t)each, sizeof *m) : NULL;
    kw_status s = m ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    int64_t first = kw_trainer_steps(r->trainer) * each;
    for (int i = 0; i < each && !s; i++)
        s = kw__run_micro(r, a, first + i, &m[i], e);
    if (!s)
        s = kw_trainer_step(r->trainer, m, report, e);
    kw_arena_free(a);
    return s;
}

/* Bad numbers never reach the weights: such a step is left out; several in a row end the run at its last good state. */
static kw_status judge(kw_run *r, const kw_step_report *report, int *bad, kw_err *e)
{
    *bad = report->skipped ? *bad + 1 : 0;
    if (!report->skipped) {
        r->average_loss = isnan(r->average_loss) ? report->loss : 0.98 * r->average_loss + 0.02 * report->loss;
        return KW_OK;
    }
    kw__run_note(r, kw_translate(N_("step %lld left out: loss %g, gradient %g")),
                 (long long)kw_trainer_steps(r->trainer), report->loss, report->norm);
    if (*bad < 3)
        return KW_OK;
    kw_status s = kw_fail(e, KW_ENUMERIC, "training diverged at step %lld: three steps in a row were not finite",
                          (long long)kw_trainer_steps(r->trainer));
    return kw_advise(e, s, "lower the learning rate (now %g); the last checkpoint is intact", r->s.learning_rate);
}

static void tell(kw_run *r, const kw_step_report *report)
{
    kw_progress_report p = { .done = kw_trainer_steps(r->trainer), .total = r->steps, .loss = report->loss,
                             .average = r->average_loss, .validation = r->validation,
                             .base_validation = r->base_validation, .seconds_per_step = r->seconds };
    if (r->hooks.progress)
        r->hooks.progress(r->hooks.user, KW_PHASE_TRAIN, &p);
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

static bool ends_epoch(const kw_run *r, int64_t step) { return step % KW_MAX(r->per_epoch, 1) == 0; }

static bool samples_due(const kw_run *r, int64_t step)
{
    bool epoch = ends_epoch(r, step) && due(step / KW_MAX(r->per_epoch, 1), r->s.sample_epochs);
    return step == 0 || step == r->steps || due(step, r->s.sample_steps) || epoch;
}

/* What happens after a step: validation, files, checkpoints. */
static kw_status after_step(kw_run *r, kw_err *e)
{
    int64_t step = kw_trainer_steps(r->trainer), epoch = step / KW_MAX(r->per_epoch, 1);
    bool epoch_end = ends_epoch(r, step), last = step == r->steps;
    if (due(step, r->s.validate_steps) || last) {
        KW_TRY(validate(r, false, &r->validation, e));
        if (r->held_out)
            kw__watch_validation(r);
        if (r->held_out && !(r->validation >= r->best)) {
            r->best = r->validation;
            r->best_step = step;
        }
    }
    if (!last && due(step, r->s.save_steps))
        KW_TRY(kw__product_save(r, -1, step, e));
    if (!last && epoch_end && due(epoch, r->s.save_epochs))
        KW_TRY(kw__product_save(r, epoch, -1, e));
    if (last)
        KW_TRY(kw__product_save(r, -1, -1, e));
    if (samples_due(r, step))             /* last: a stop leaves them for later */
        KW_TRY(kw__watch_samples(r, e));
    else if (due(step, r->s.validate_steps))
        kw__run_report(r);                /* a run without samples, too, can be looked at while it goes on */
    if (!last && !due(step, r->s.checkpoint_steps))
        return KW_OK;
    KW_TRY(kw_events_sync(r->log, e));
    return kw__checkpoint_save(r, e);
}

static kw_status stop_here(kw_run *r, kw_err *e)
{
    kw__watch_end(r, "stopped", "");
    kw__run_report(r);
    KW_TRY(kw_events_sync(r->log, e));
    KW_TRY(kw__checkpoint_save(r, e));
    kw_status s = kw_fail(e, KW_ESTOP, "stopped after step %lld of %lld; everything is saved",
                          (long long)kw_trainer_steps(r->trainer), (long long)r->steps);
    return kw_advise(e, s, "go on with: kiwame resume %s", r->dir);
}

static kw_status loop(kw_run *r, kw_err *e)
{
    int bad = 0;
    while (kw_trainer_steps(r->trainer) < r->steps) {
        kw_step_report report;
        double start = kw_now();
        KW_TRY(one_step(r, &report, e));
        double took = kw_now() - start;
        r->seconds = r->seconds > 0 ? 0.9 * r->seconds + 0.1 * took : took;
        KW_TRY(judge(r, &report, &bad, e));
        kw__watch_step(r, &report, took);
        KW_TRY(after_step(r, e));
        tell(r, &report);
        if (kw_trainer_steps(r->trainer) < r->steps && kw__run_stopped(r))
            return stop_here(r, e);
    }
    return KW_OK;
}

/* Programs need a first batch to know their shapes. */
static kw_status prepare(kw_run *r, kw_err *e)
{
    kw_micro m;
    KW_TRY(kw__run_fill_caches(r, e));
    KW_TRY(kw__run_micro(r, r->arena, 0, &m, e));
    return kw_trainer_prepare(r->trainer, &m, e);
}

kw_status kw_run_start(kw_run *r, kw_err *e)
{
    int64_t step;
    KW_TRY(kw__run_take_folder(r, e));
    char *name = kw_name_of_last(r->arena, r->s.name, kw__product_is_file(r) ? ".safetensors" : "");
    char *last = name ? kw_path_join(r->arena, r->dir, name) : NULL;
    if (!last)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    bool there = !r->hooks.recipe && (kw_is_file(last) || kw_is_dir(last));
    if (there && kw__run_is_finished(r)) {
        kw__run_note(r, kw_translate(N_("%s is complete already: step %lld of %lld")), r->dir, (long long)r->steps,
                     (long long)r->steps);
        r->result = last;
        return KW_OK;
    }
    kw_status ready = prepare(r, e);
    if (ready == KW_ESTOP)
        return kw_advise(e, ready, "go on with: kiwame resume %s", r->dir);
    KW_TRY(ready);
    bool steps_before = kw__run_had_steps(r);
    KW_TRY(kw__checkpoint_load(r, &step, e));
    if (step < 0 && steps_before)
        kw__run_note(r, kw_translate(N_("%s has no checkpoint: it begins anew")), r->dir);
    KW_TRY(kw__watch_open(r, step, e));
    KW_TRY(write_plan(r, e));
    if (step < 0)
        KW_TRY(validate(r, true, &r->base_validation, e));
    if (samples_due(r, kw_trainer_steps(r->trainer)))     /* after a stop: those that it left out */
        KW_TRY(kw__watch_samples(r, e));
    if (step <= 0 && kw__run_stopped(r))
        return stop_here(r, e);
    KW_TRY(loop(r, e));
    if (!r->result && there)              /* nothing was left to train, and it was saved before */
        r->result = last;
    if (!r->result)                       /* ... or it was lost since */
        KW_TRY(kw__product_save(r, -1, -1, e));
    kw__watch_sheet(r);
    kw__watch_end(r, "finished", "");
    kw__run_report(r);
    return KW_OK;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static const char *if_there(const kw_run *r, const char *name)
{
    char *path = kw_path_join(r->arena, r->dir, name);
    return path && kw_is_file(path) ? path : NULL;
}

void kw_run_summary_of(const kw_run *r, kw_run_summary *out)
{
    const char *trigger = r->s.trigger ? r->s.trigger : "";
    *out = (kw_run_summary){
        .dir = r->dir, .result = r->result, .sheet = if_there(r, "samples/sheet.png"),
        .report = if_there(r, "report.html"),
        .steps = r->steps, .best_step = r->held_out ? r->best_step : 0, .loss = r->average_loss,
        .validation = r->validation, .base_validation = r->base_validation,
    };
    if (r->tc.lora)
        out->line = kw_sprintf(r->arena, "<lora:%s:0.8>%s%s", r->s.name, *trigger ? " " : "", trigger);
}
