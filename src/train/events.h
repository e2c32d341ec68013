/*
 * events.h - what happened in a run: DIR/events.jsonl, one JSON object per line, and the same for TensorBoard.
 *
 *     kw_events *log;
 *     KW_TRY(kw_events_open(arena, dir, -1, steps_per_epoch, &log, e));          a new run; or the checkpoint's step
 *     kw_events_add(log, &(kw_event){ .kind = KW_EVENT_START, .name = "kiwa", .steps = 360 });
 *     kw_events_add(log, &(kw_event){ .kind = KW_EVENT_STEP, .step = 1, .loss = r.loss, .rate = { 1e-4, -1, -1 } });
 *     KW_TRY(kw_events_sync(log, e));                                             before a checkpoint is saved
 *
 * {"type":"step","step":1,"epoch":1,"loss":0.125,"average":0.125,"rate":{"unet":0.0001},"norm":0.5,"seconds":1.25,
 *  "time":1700000000.5,"session":1}
 *
 * A resumed run has the same lines as an uninterrupted one, except for what depends on the clock: "time", "seconds",
 * "memory", "session", and the time inside the name of a sample's file. For this the state of a step must be saved
 * after all other events of that step. A disk that refuses does not stop a run: what could not be written is tried
 * again with the next event, and counted.
 */
#ifndef KW_TRAIN_EVENTS_H
#define KW_TRAIN_EVENTS_H

#include "io/io.h"

typedef enum { KW_EVENT_START, KW_EVENT_STEP, KW_EVENT_VALIDATION, KW_EVENT_SAMPLE, KW_EVENT_SAVE, KW_EVENT_NOTE,
               KW_EVENT_END, KW_N_EVENTS } kw_event_kind;

enum { KW_EVENT_RATES = 3 };              /* learning rates: U-Net, text encoder, autoencoder */

typedef struct {
    kw_event_kind kind;
    int64_t step;                         /* updates made so far; 0: before the first */
    double time;                          /* Unix seconds; 0: now */
    int64_t session;                      /* set by the log: 1, and one more with each resuming */
    int64_t epoch;                        /* from 1; 0: not told. All but start, note, end */
    /* step; validation */
    double loss;                          /* may be NaN */
    double average;                       /* step: of the last epoch's losses, set by the log */
    double rate[KW_EVENT_RATES];          /* step; negative: this part is not trained */
    double norm, seconds;                 /* step: length of the gradient; duration */
    int64_t memory;                       /* step: bytes in use; 0: not told */
    bool skipped;                         /* step: not finite, nothing was changed */
    double base;                          /* validation: the base's loss, the zero line */
    bool epoch_end;                       /* validation: it is the epoch's own (TensorBoard has two curves) */
    /* sample */
    int64_t index, seed;                  /* which prompt, from 0 */
    const char *prompt;
    const char *file;                     /* sample, save: PNG or tensors, below the run's folder */
    /* save */
    const char *hash;                     /* sshs_model_hash or NULL */
    /* start, note, end */
    const char *name;                     /* start: of the run */
    int64_t steps;                        /* start: of the whole run */
    const char *level;                    /* note: "info", "warning", "error"; end: "finished", "stopped", "failed" */
    const char *text;                     /* note, end: in the user's language */
} kw_event;

typedef struct kw_events kw_events;

typedef struct {
    long failures;                        /* refused writes */
    long lost;                            /* events that are in no file, nor will be */
    char first[512];                      /* the first refusal */
} kw_events_trouble;

/*
 * Opens the log of a run in its folder. resume_step < 0: a new run, an old log there is replaced. Else what is later
 * than that step, broken lines and the end of a session are cut off, and the TensorBoard file is made anew from what
 * remains. window: steps of which loss/average is the mean, those of an epoch. Closed with the arena.
 */
KW_MUST kw_status kw_events_open(kw_arena *a, const char *dir, int64_t resume_step, int64_t window, kw_events **out,
                                 kw_err *e);
/* Append to the log and to TensorBoard's file. The texts are copied. A second start is ignored. */
void kw_events_add(kw_events *l, const kw_event *event);
/* What was added is on the disk when this is KW_OK. */
KW_MUST kw_status kw_events_sync(kw_events *l, kw_err *e);
/* All events so far, those before a resuming too; valid until the next one is added. */
const kw_event *kw_events_list(const kw_events *l, size_t *n);
double kw_events_average(const kw_events *l);           /* of the losses of the last `window` steps; NaN: none yet */
const kw_events_trouble *kw_events_trouble_of(const kw_events *l);

/*
 * Reads a run's log, tolerantly: lines that are broken or of an unknown type are left out and counted in *n_broken (may
 * be NULL). A torn last line is what a kill leaves. No log: KW_EDATA.
 */
KW_MUST kw_status kw_events_read(kw_arena *a, const char *dir, kw_event **events, size_t *n, size_t *n_broken,
                                 kw_err *e);

/* ---- TensorBoard's event files: the bytes (tensorboard.c) -------------------------------------------------------- */

/*
 * Record: u64 length, u32 mask(crc32c(length)), data, u32 mask(crc32c(data)); mask(c) = (c >> 15 | c << 17) + a282ead8.
 * Data: Event { 1: double wall_time, 2: int64 step, 3: string file_version, 5: Summary { 1: Value ... } } (protobuf).
 */
void kw_tensorboard_version(kw_str *out, double time);            /* the first record of a file */
void kw_tensorboard_scalar(kw_str *out, double time, int64_t step, const char *tag, double value);
void kw_tensorboard_image(kw_str *out, double time, int64_t step, const char *tag, int w, int h, const void *png,
                          size_t n);
/* The records of an event under kohya's tags; png: of a sample, or NULL. */
void kw_tensorboard_event(kw_str *out, const kw_event *event, const void *png, size_t n);

#endif
