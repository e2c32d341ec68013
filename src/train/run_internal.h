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
    kw_tokenizer *tokenizer, *tokenizers[KW_ENCODERS];    /* the first encoder's; of all */
    kw_dataset *data;
    kw_decoder *decoder;
    kw_plan *plan, *held_out;
    kw_loader *loader;
    kw_cache *cache;
    kw_latents *latents;
    kw_program *encoder, *text;           /* the autoencoder's and the text encoder's, when frozen */
    int encoder_w, encoder_h;
    kw_arena *encoder_arena;
    char vae_hash[65], text_hash[KW_ENCODERS][65], base_hash[65];
    const char *vae_made_by, *text_made_by;    /* and what else their output's bits depend on: in the cache's keys */
    char file_hash[65], file_short_hash[9];   /* of a base in one file, for the metadata; "" until they are needed */
    bool vae, learns_text, align;         /* what is trained */
    int tokens, resolution;
    uint8_t background[3];                /* below transparent parts of pictures */
    int64_t steps;                        /* optimizer steps of the whole run */
    int64_t per_epoch;                    /* optimizer steps of one epoch */
    const char *dir, *result;
    const char *title;                    /* of the result, where its name is derived from it; or NULL */
    double average_loss, validation, base_validation, best;
    int64_t best_step;
    double seconds;                       /* of a step, running mean */
    kw_events *log;
    kw_pipeline *pipeline;                /* draws samples with the trainer's own weights */
    double started;
    kw_trainer_cost cost;                                  /* of the largest batch */
    double masked_work, masked_bytes;     /* inpainting bases: of one masked picture, in the largest bucket */
    double speed;                                          /* the peak measured here, FLOP/s; 0: not */
};

/* batches.c: the micro-batch of index m (0, 1, ...): a pure function of the run's settings
 * and m. Lives on the arena. */
KW_MUST kw_status kw__run_micro(kw_run *r, kw_arena *a, int64_t m, kw_micro *out, kw_err *e);
KW_MUST kw_status kw__run_validation_micro(kw_run *r, kw_arena *a, int64_t i, int time, kw_micro *out, kw_err *e);
/* batch_texts.c: captions as ids, or as the features of frozen text encoders; SDXL's sizes of a batch's pictures. */
KW_MUST kw_status kw__run_texts(kw_run *r, kw_arena *a, const char *const *texts, int n, kw_micro *out, kw_err *e);
KW_MUST kw_status kw__run_sizes(const kw_run *r, kw_arena *a, const kw_batch *b, kw_micro *out, kw_err *e);
/* FLOPs of the peak that encoding one picture takes; makes the encoder. */
KW_MUST kw_status kw__run_encoder_work(kw_run *r, int w, int h, double *work, kw_err *e);
/* Latents and text features computed before the first step. */
KW_MUST kw_status kw__run_fill_caches(kw_run *r, kw_err *e);

/* checkpoint.c: complete state of a step, atomically; KW_OK with *step = -1 when there is none to load. */
KW_MUST kw_status kw__checkpoint_save(kw_run *r, kw_err *e);
KW_MUST kw_status kw__checkpoint_load(kw_run *r, int64_t *step, kw_err *e);

/* identity.c: what a run's bits depend on, for its checkpoints; NULL without memory. Is it what it was? KW_EUSAGE with
 * all that differs. */
json_t *kw__run_identity(const kw_run *r);
KW_MUST kw_status kw__run_same(kw_run *r, const json_t *was, kw_err *e);

/* base_hash.c: what the base is, to base_hash, vae_hash and text_hash; from the cache where the files are unchanged. */
KW_MUST kw_status kw__run_hash_base(kw_run *r, kw_err *e);

/* run_data.c: the pictures, and what the user is told about them. */
KW_MUST kw_status kw__run_open_data(kw_run *r, kw_err *e);
KW_MUST kw_status kw__run_check_captions(kw_run *r, kw_err *e);

/* run_folder.c: the run's name and folder. check: only looks, before anything is read. take: locks, cleans, recipe. */
KW_MUST kw_status kw__run_settle_name(kw_run *r, kw_err *e);
KW_MUST kw_status kw__run_check_folder(const kw_run *r, kw_err *e);
KW_MUST kw_status kw__run_take_folder(kw_run *r, kw_err *e);
bool kw__run_is_finished(const kw_run *r);       /* the log says so */
bool kw__run_had_steps(const kw_run *r);

/* run_cost.c: what the run will take: of the largest bucket, by the peak of this machine. */
KW_MUST kw_status kw__run_forecast(kw_run *r, kw_err *e);
void kw__run_plan_cost(const kw_run *r, kw_str *t);

/* run_init.c: a LoRA to start from must be one, and go on being trained whole. */
KW_MUST kw_status kw__run_check_init_file(const kw_run *r, kw_err *e);
KW_MUST kw_status kw__run_check_init(const kw_run *r, kw_err *e);

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

/* watch.c: events, sample pictures. */
KW_MUST kw_status kw__watch_open(kw_run *r, int64_t step, kw_err *e);
void kw__watch_step(kw_run *r, const kw_step_report *report, double seconds);
void kw__watch_validation(kw_run *r);
void kw__watch_save(kw_run *r, const char *file);
void kw__watch_end(kw_run *r, const char *level, const char *text);
KW_MUST kw_status kw__watch_samples(kw_run *r, kw_err *e);
/* r->pipeline, made when first wanted: draws with the trainer's own weights, in its own memory. */
KW_MUST kw_status kw__run_pipeline(kw_run *r, kw_err *e);
/* What is drawn with a run's settings; prompts: what the user asked for, else from the captions. */
enum { KW__MOST_PROMPTS = 8 };
size_t kw__run_prompts(const kw_run *r, const char *prompts[KW__MOST_PROMPTS]);
KW_MUST kw_status kw__run_draw(kw_run *r, kw_pipeline *p, kw_arena *a, const char *prompt, uint64_t seed,
                               kw_generate_fn *progress, kw_generated *out, kw_err *e);
/* How far a phase without losses is; false: a stop is wanted. */
bool kw__run_tell(const kw_run *r, kw_phase phase, size_t done, size_t n);
static inline bool kw__run_stopped(const kw_run *r) { return r->hooks.stop && r->hooks.stop(r->hooks.user); }
/* A kw_generate_fn over the run: KW_ESTOP once a stop is wanted. */
kw_status kw__run_go_on(void *run, const kw_generate_at *at, kw_err *e);
KW_MUST kw_status kw__run_write_png(kw_run *r, kw_arena *a, const char *name, const kw_picture *p, kw_err *e);

void kw__watch_sheet(kw_run *r);          /* run_sheet.c */
int64_t kw__sheet_pictures(const kw_run *r, int64_t files);      /* that it has where so many were saved */
void kw__run_report(kw_run *r);           /* run_report.c: report.html as things stand */

void kw__run_note(const kw_run *r, const char *fmt, ...) KW_PRINTF(2, 3);

#endif
