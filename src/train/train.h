/*
 * train.h - training: steps, objectives, checkpoints, runs.
 *
 * A trainer holds a base, what is trained on it, and the programs of a step, one per shape of batch. The host gives
 * batches and takes losses; the loop, the files and the reports are above it.
 */
#ifndef KW_TRAIN_H
#define KW_TRAIN_H

#include "adapter/adapter.h"
#include "diffusion/diffusion.h"
#include "model/model.h"
#include "optim/optim.h"

enum { KW_GROUP_UNET, KW_GROUP_TEXT, KW_GROUP_VAE, KW_GROUP_TEXT2, KW_N_GROUPS };      /* learning-rate groups */

typedef struct {
    kw_dtype compute;
    bool lora;                            /* LoRA beside a frozen base, else full training of `parts` */
    unsigned parts;                       /* full training: 1 << KW_PART_...; what a model has not is passed over */
    bool align;                           /* the text encoder learns latents and a contrast, without a U-Net */
    kw_lora_config adapter;
    kw_tensors *init;                     /* LoRA to start from, or NULL */
    int clip_skip;                        /* 1: the last layer */
    double min_snr;                       /* gamma; 0: off */
    double kl, mse;                       /* autoencoder: weights of the KL term (1e-6) and of the squared error (0) */
    int accumulation;
    double max_norm;                      /* of the gradient; 0: no clipping. Fused: of each tensor's */
    bool fused;  /* weights move within the backward pass: one batch a step, no gradients kept */
    kw_dtype trained;                     /* full training: type of trained matrices, F32 or BF16 (rounded by chance) */
    uint64_t seed;                        /* ... by this */
    bool int8;                            /* LoRA: the U-Net's frozen matrices in one byte a number */
    double rate[KW_N_GROUPS], decay[KW_N_GROUPS];
    kw_rate schedule;
    kw_optim_config optim;
    const kw_optimizer *optimizer;
    double average;                       /* decay of the moving average of weights; 0: none */
    kw_run_options run;
} kw_train_config;

typedef struct {                          /* one micro-batch; pictures and latents are NHWC, f32 */
    int n, h, w;                          /* samples, rows, columns (latent pixels, or pixels for the autoencoder) */
    int tokens;                           /* per sample */
    /* scaled latents; noise: also of the autoencoder's posterior (may be NULL there) */
    const float *latents, *noise;
    const float *beside;                  /* inpainting bases: (n, h, w, 1 + C) mask, 1 where it is drawn anew, and */
                                          /* ... the scaled latents of the picture that is mid-grey there */
    const int64_t *timesteps;             /* (n) */
    const float *context;                 /* (n, tokens, D), or NULL: */
    const int64_t *ids;                   /* (n, tokens): the text encoders run inside; of SDXL also: */
    const int64_t *ids2, *end2;           /* ... (n, tokens) the second's; (n, windows) kw_clip_end of each window */
    const float *pooled, *sizes;          /* SDXL: (n, P) pooled text, beside a context; (n, 6) as model.h's KW_SIZES */
    const float *image;                   /* the autoencoder's (n, h, w, 3) */
    const float *weight;                  /* (n) further factors on the loss, or NULL */
    const int64_t *end, *order;           /* align: (n) position of the end mark; 0, 1, ... */
} kw_micro;

/* ---- what chance adds to a micro-batch (chance.c) ---------------------------------------------------------------- */

typedef struct {
    uint64_t seed;
    double noise_offset;
    bool stratified;                      /* timesteps spread evenly over a batch */
    bool mean;                            /* latents are the mean of their moments, not drawn */
} kw_chance;

/*
 * Latents, noise and timesteps of micro-batch m, on the arena; b has n, h, w. moments (n, h, w, 2 latent): as the
 * encoder gives them. A pure function of its arguments. n_timesteps: of the noise schedule.
 */
KW_MUST kw_status kw_chance_micro(kw_arena *a, const kw_chance *c, const kw_vae_config *v, int n_timesteps,
                                  const float *moments, int64_t m, kw_micro *b, kw_err *e);
/*
 * What an inpainting base is told beside micro-batch m, likewise: b->beside of mask (n, h, w), and moments (n, h, w,
 * 2 latent) of the masked pictures.
 */
KW_MUST kw_status kw_chance_beside(kw_arena *a, const kw_chance *c, const kw_vae_config *v, const float *mask,
                                   const float *moments, int64_t m, kw_micro *b, kw_err *e);

/* ---- the trainer ------------------------------------------------------------------------------------------------- */

typedef struct kw_trainer kw_trainer;

/* The base is opened with the store and exact type of the trainer; z: its noise schedule. */
KW_MUST kw_status kw_trainer_new(kw_arena *a, const char *base, const char *vae, const kw_train_config *c,
                                 kw_trainer **out, kw_err *e);
/* The same over sources that are open; vae: NULL for the base's own. */
KW_MUST kw_status kw_trainer_over(kw_arena *a, kw_source *base, kw_source *vae, const kw_train_config *c,
                                  kw_trainer **out, kw_err *e);
const kw_sd *kw_trainer_base(const kw_trainer *t);
const kw_noise *kw_trainer_noise(const kw_trainer *t);
const kw_trained *kw_trainer_trained(const kw_trainer *t);      /* NULL before the first batch was prepared */
kw_updater *kw_trainer_updater(const kw_trainer *t);
kw_workspace *kw_trainer_workspace(const kw_trainer *t);
const kw_adapters *kw_trainer_adapters(const kw_trainer *t);    /* the U-Net's and the text encoder's LoRA */

/* Build the programs for batches of this shape and all trained memory. Called by the others as needed. */
KW_MUST kw_status kw_trainer_prepare(kw_trainer *t, const kw_micro *b, kw_err *e);

/* What a step over batches like this costs (run/run.h, forecasts). Only sizes and which pointers are set matter;
 * nothing is read. */
typedef struct {
    double bytes;                         /* of the whole process at most */
    double flops;                         /* of one micro-batch */
    double work, update;                  /* FLOPs of the peak: of one micro-batch, of the update after the last */
    double forward;                       /* of work: the forward pass */
    double states;  /* seconds that making the trained weights took: once, with the first program */
} kw_trainer_cost;
KW_MUST kw_status kw_trainer_forecast(kw_trainer *t, const kw_micro *b, kw_trainer_cost *out, kw_err *e);

/* The programs made so far, to look at: micro-batches by shape, the gradient's norm, the update. NULL past the last. */
kw_program *kw_trainer_program(const kw_trainer *t, int i);

/*
 * The graph of a step's forward and backward pass alone, pruned: what it computes can be counted without the memory of
 * training. sd: opened without a selection of parts. LoRA's start is made; nothing can be run.
 */
KW_MUST kw_status kw_step_graph(kw_arena *a, kw_sd *sd, const kw_train_config *c, const kw_micro *b, kw_graph **out,
                                kw_err *e);

typedef struct { double loss, norm, rate[KW_N_GROUPS]; bool skipped; } kw_step_report;

/* One optimizer step over c->accumulation micro-batches. A loss or gradient that is not finite skips the update:
 * KW_ENUMERIC is the caller's choice. */
KW_MUST kw_status kw_trainer_step(kw_trainer *t, const kw_micro *b, kw_step_report *r, kw_err *e);
int64_t kw_trainer_steps(const kw_trainer *t);                  /* updates made */
void kw_trainer_schedule(kw_trainer *t, const kw_rate *schedule);   /* once the length of the run is known */
void kw_trainer_set_steps(kw_trainer *t, int64_t steps);        /* when resuming */

/* The loss alone, without adapters if `base`: validation and the zero line. Mean over the
 * batch; weights as in training. */
KW_MUST kw_status kw_trainer_loss(kw_trainer *t, const kw_micro *b, bool base, double *loss, kw_err *e);

/*
 * Copies of the trained tensors: LoRA in kohya's names; full ones as "unet." ... and the name in the part's file
 * (diffusers' name where the part comes from a single file).
 */
KW_MUST kw_status kw_trainer_tensors(kw_arena *a, const kw_trainer *t, kw_dtype type, kw_tensor **out, size_t *n,
                                     kw_err *e);
/* What full training has made of which tensors, for kw_source_save: the values themselves, or their moving average. */
KW_MUST kw_status kw_trainer_values(kw_arena *a, const kw_trainer *t, kw_values **out, size_t *n, kw_err *e);

#include "settings.h"
#include "run.h"

#endif
