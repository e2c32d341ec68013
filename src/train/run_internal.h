/* run_internal.h - a run's inside, shared by the files of the loop; internal to train/. */
#ifndef KW_TRAIN_RUN_INTERNAL_H
#define KW_TRAIN_RUN_INTERNAL_H

#include "run.h"
#include "events.h"
#include "metadata.h"
#include "step.h"

enum { KW__VALIDATE_TIMES = 4, KW__VALIDATE_MOST = 32 };

struct kw_run {
    kw_arena *arena;
    kw_settings s;
    kw_run_hooks hooks;
    kw_train_config tc;
    kw_trainer *trainer;
    kw_tokenizer *tokenizer;
    kw_dataset *data;
    kw_decoder *decoder;
    kw_plan *plan, *held_out;
    kw_loader *loader;
    kw_cache *cache;
    kw_latents *latents;
    kw_program *encoder, *text;           /* the autoencoder's and the text encoder's, when frozen */
    int encoder_w, encoder_h;
    kw_arena *encoder_arena;
    char vae_hash[65], text_hash[65], base_hash[65];
    bool vae, learns_text, align;         /* what is trained */
    int tokens, resolution;
    uint8_t background[3];                /* below transparent parts of pictures */
    int64_t steps;                        /* optimizer steps of the whole run */
    int64_t per_epoch;                    /* optimizer steps of one epoch */
    const char *dir, *result;
    double average_loss, validation, base_validation, best;
    int64_t best_step;
    double seconds;                       /* of a step, running mean */
    kw_events *log;
    kw_pipeline *pipeline;                /* draws samples with the trainer's own weights */
    double started;
    double forecast_bytes, forecast_flops, speed;          /* memory; FLOPs of a step; FLOP/s measured here */
};

/* batches.c: the micro-batch of index m (0, 1, ...): a pure function of the run's settings
 * and m. Lives on the arena. */
KW_MUST kw_status kw__run_micro(kw_run *r, kw_arena *a, int64_t m, kw_micro *out, kw_err *e);
KW_MUST kw_status kw__run_validation_micro(kw_run *r, kw_arena *a, int64_t i, int time, kw_micro *out, kw_err *e);
/* Latents and text features computed before the first step. */
KW_MUST kw_status kw__run_fill_caches(kw_run *r, kw_err *e);

/* checkpoint.c: complete state of a step, atomically; KW_OK with *step = -1 when there is none to load. */
KW_MUST kw_status kw__checkpoint_save(kw_run *r, kw_err *e);
KW_MUST kw_status kw__checkpoint_load(kw_run *r, int64_t *step, kw_err *e);

/* product.c: the files people use: a LoRA, or a model with its trained parts replaced. epoch
 * and step: < 0 for the last. */
KW_MUST kw_status kw__product_save(kw_run *r, int64_t epoch, int64_t step, kw_err *e);
KW_MUST kw_status kw__product_check(const kw_run *r, kw_err *e);  /* KW_EUSAGE: it would replace the base */
bool kw__product_is_file(const kw_run *r);                        /* else a folder */
enum { KW__STALE = 3 };
size_t kw__stale_metadata(kw_meta meta[KW__STALE]);               /* keys that a model loses by training */
/* model_folder.c: the source's folder once more, with new values as numbers of `type` in the trained parts. */
KW_MUST kw_status kw__save_model_folder(const kw_run *r, kw_arena *a, const kw_source *s, const kw_values *v, size_t n,
                                        kw_dtype type, const char *path, kw_err *e);

KW_MUST kw_status kw__save_lora(kw_run *r, kw_arena *a, const char *path, const kw_tensor *t, size_t n, int64_t epoch,
                                kw_err *e);

/* watch.c: events, sample pictures, the sheet at the end. */
KW_MUST kw_status kw__watch_open(kw_run *r, int64_t step, kw_err *e);
void kw__watch_step(kw_run *r, const kw_step_report *report, double seconds);
void kw__watch_validation(kw_run *r);
void kw__watch_save(kw_run *r, const char *file);
void kw__watch_end(kw_run *r, const char *level, const char *text);
KW_MUST kw_status kw__watch_samples(kw_run *r, kw_err *e);
KW_MUST kw_status kw__watch_sheet(kw_run *r, kw_err *e);
void kw__run_report(kw_run *r);           /* run_report.c: report.html as things stand */

void kw__run_note(const kw_run *r, const char *fmt, ...) KW_PRINTF(2, 3);

#endif
