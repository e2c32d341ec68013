/*
 * metadata.h - what a LoRA file tells about itself, in the keys of kohya's sd-scripts (ss_*, sshs_*) and of Stability's
 * modelspec 1.0.1; and the names of files.
 *
 *     kw_lora_facts f = { .name = "kiwa", .trigger = "kiwa-chan", .rank = 16, .alpha = 16, ... };
 *     KW_TRY(kw_lora_save("run/kiwa.safetensors", tensors, n, &f, KW_METADATA_FULL, e));
 *
 * What neither has a key for is "kiwame.*".
 *
 * No paths, host or user names: of every name that looks like a path the last part is kept. Values are spelt as
 * Python's str() and json.dumps() would, which is what readers expect ("None", "True", "1e-05", "(512, 512)").
 */
#ifndef KW_TRAIN_METADATA_H
#define KW_TRAIN_METADATA_H

#include "io/io.h"

typedef enum {
    KW_METADATA_FULL,                     /* all settings, counts of pictures and tags */
    KW_METADATA_MINIMAL,                  /* what programs need to use the file, and how to use it */
    KW_METADATA_NONE,                     /* nothing at all */
} kw_metadata_level;

typedef struct {                          /* a folder of pictures; several of one name are counted together */
    const char *name;                     /* "10_kiwa" */
    int repeats;
    int64_t pictures;
    const char *const *captions;          /* (n_captions) one per picture; their tags, between commas, are counted */
    size_t n_captions;
} kw_lora_folder;

typedef struct { int w, h; int64_t pictures; } kw_lora_bucket;

typedef struct {
    /* what it is */
    const char *name;                     /* the stem of the files: "kiwa" */
    const char *title;                    /* or NULL: the name */
    const char *trigger;                  /* or NULL */
    const char *author, *description, *license, *tags, *comment;      /* or NULL */
    const char *thumbnail;                /* data:image/... or NULL */
    bool v2, sdxl, v_prediction;          /* the base's family; neither: SD 1.x */
    int resolution_w, resolution_h;
    const char *base_name, *vae_name;     /* or NULL; vae: when it is not the base's own */
    const char *base_hash, *base_short_hash, *vae_hash, *vae_short_hash;      /* of single files; or NULL */
    /* network */
    int rank, conv_rank;                  /* conv_rank 0: 3x3 convolutions are not adapted */
    double alpha, conv_alpha;
    /* how it was trained */
    double learning_rate, unet_rate, text_rate;     /* text_rate negative: not trained */
    const char *scheduler;                /* "constant", "cosine", "linear" */
    int warmup;
    const char *optimizer;                /* "AdamW" */
    double weight_decay, beta1, beta2, eps;
    int accumulation, batch;
    double max_norm, min_snr, noise_offset, caption_dropout;
    bool recompute, flip, random_crop, shuffle, cache_latents, zero_terminal_snr;
    int keep_tokens, token_length, clip_skip;       /* token_length 75, 150, 225; clip_skip 1: the last layer */
    bool bf16;
    uint64_t seed;
    int64_t epochs, epoch, max_steps, steps;        /* of the run; of this file */
    int64_t batches_per_epoch;
    uint64_t session;                     /* the same in all files of a run */
    double started, finished;             /* Unix seconds */
    /* data */
    int64_t pictures, held_out;           /* pictures: times repeats, as kohya counts */
    double held_out_share;
    const kw_lora_folder *folders;
    size_t n_folders;
    const kw_lora_bucket *buckets;
    size_t n_buckets;
    double mean_aspect_error;             /* mean of |w/h of the picture - w/h of its bucket| */
    int bucket_min, bucket_max;
    bool no_upscale;
    const char *base_dtype;               /* "int8": the base's weights were kept so; NULL: as in its file */
    const char *background;               /* "#ffffff", below transparent parts of pictures; or NULL */
} kw_lora_facts;

/* All keys but sshs_* and modelspec.hash_sha256, which depend on the tensors. */
KW_MUST kw_status kw_lora_metadata(kw_arena *a, const kw_lora_facts *f, kw_metadata_level level, kw_meta **meta,
                                   size_t *n, kw_err *e);

/*
 * Writes the file, atomically. As sd-scripts: the tensors are laid out with the ss_* keys alone, sshs_model_hash is the
 * SHA-256 of what follows the header, sshs_legacy_hash the first 8 digits of that of bytes 0x100000 .. 0x110000; it is
 * left out for files that end before (it would be the hash of nothing). model_hash (may be NULL) gets the 64 digits.
 */
KW_MUST kw_status kw_lora_save(const char *path, const kw_tensor *t, size_t n, const kw_lora_facts *f,
                               kw_metadata_level level, char model_hash[65], kw_err *e);

/* ---- names of files, as kohya's; they live on the arena, NULL: no memory ----------------------------------------- */

/* "name-000002.safetensors", "name-step00000100.safetensors", "name.safetensors" */
char *kw_name_of_epoch(kw_arena *a, const char *name, int64_t epoch, const char *extension);
char *kw_name_of_step(kw_arena *a, const char *name, int64_t step, const char *extension);
char *kw_name_of_last(kw_arena *a, const char *name, const char *extension);
/* "name_e000002_00_20260101120000_42.png", "name_000100_..." when epoch < 0; in local time. */
char *kw_name_of_sample(kw_arena *a, const char *name, int64_t epoch, int64_t step, int index, double time,
                        uint64_t seed);
/* A text as a name that prompts and Civitai take, [A-Za-z0-9_.-]: others become one "-"; "lora" if nothing is left. */
char *kw_name_plain(kw_arena *a, const char *text);

#endif
