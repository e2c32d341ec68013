/* settings.h - what a run can be told: one table for the command line, recipes, help and documents. */
#ifndef KW_TRAIN_SETTINGS_H
#define KW_TRAIN_SETTINGS_H

#include "train.h"

typedef struct {
    int method;                           /* KW_METHOD_* */
    const char *base, *vae, *init, *out, *name, *trigger, *preset, *targets, *part, *caption_extension, *background;
    const char *encoding;
    int rank, conv_rank;
    float alpha, conv_alpha;              /* alpha below 0: the rank, see kw_settings_alpha */
    double learning_rate, text_learning_rate, weight_decay, beta1, beta2, eps, min_factor;
    int scheduler, warmup, optimizer, update, trained_dtype;
    int accumulation, batch;
    double max_norm, min_snr, noise_offset, kl, mse, average;
    double caption_dropout;
    bool shuffle, flip, random_crop;
    int keep_tokens, token_length, clip_skip;
    int steps, epochs, repeats;
    int save_steps, save_epochs, sample_steps, sample_epochs, validate_steps, keep_states, checkpoint_steps;
    double validation;
    int resolution, bucket_min, bucket_max, bucket_step;
    bool no_upscale, single, follow;
    int dtype, base_dtype, save_dtype, vae_tile;
    uint64_t memory;
    uint64_t seed;
    int metadata;
    kw_texts sample_prompts;
    double sample_cfg;
    int sample_sampling_steps;
    int masks;                            /* of each picture, for inpainting bases; 0: another each time */
    bool any_line, stratified;
    const char *data, *cache;
    const char *held_out;
} kw_settings;

enum { KW_METHOD_LORA, KW_METHOD_FULL, KW_METHOD_ALIGN };

/* Uses of the rows below (kw_option.use): full training of U-Net and text encoder, or of the autoencoder. */
enum { KW_FOR_LORA = 1, KW_FOR_FULL = 2, KW_FOR_VAE = 4, KW_FOR_ALIGN = 8 };

extern const kw_option kw_model_rows[];   /* adapter, optimizer, objective: what a step is; also of `debug train` */
extern const kw_option kw_run_rows[];     /* data, length, saving, watching: what a run is */

static inline float kw_settings_alpha(const kw_settings *s) { return s->alpha < 0 ? (float)s->rank : s->alpha; }

/* Set the options of a preset ("character", "style", "object"; "plain": none) where the user said nothing. */
KW_MUST kw_status kw_preset_apply(kw_options *o, const char *preset, kw_err *e);

/*
 * KW_EUSAGE when something was given on the command line that means nothing to what is trained: rank without a LoRA,
 * captions for an autoencoder. Recipes may hold more than they need. names: what the user says for each method;
 * NULL: it is not to be had here.
 */
typedef struct { const char *lora, *full, *align; } kw_method_names;
KW_MUST kw_status kw_settings_check(const kw_options *o, const kw_settings *s, const kw_method_names *names, kw_err *e);

/* Into what the trainer takes; opens the --init file. total: optimizer steps of the whole run. */
KW_MUST kw_status kw_settings_config(kw_arena *a, const kw_settings *s, int64_t total, kw_train_config *c, kw_err *e);

#endif
