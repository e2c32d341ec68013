/* generate.h - what the files of `kiwame generate` share: its options, and one job per picture. */
#ifndef KW_CLI_GENERATE_H
#define KW_CLI_GENERATE_H

#include "cli.h"
#include "diffusion/diffusion.h"
#include "generate_sampling.h"

typedef struct {
    kw_texts words, prompt, lora;
    const char *prompts, *negative, *base, *vae, *lora_dir, *sampler, *schedule, *noise, *save_latents, *out;
    double cfg, eta;
    uint64_t seed, memory;
    int steps, width, height, count, batch, spacing, clip_skip, rng, dtype, base_dtype, vae_dtype, vae_tile, format;
    int columns, lora_apply;
    bool partial, sheet;
    kw_generate_sampling how;
} kw_generate_config;

typedef struct {
    double te, unet;
    const float *blocks;                  /* KW_LORA_BLOCKS factors, or NULL */
} kw_strengths;

typedef struct {                          /* one picture */
    const char *prompt, *negative;        /* prompt: with its tags */
    uint64_t seed, variation;
    int width, height, steps;             /* 0: the base's size */
    double cfg;
    const kw_sampler *sampler;
    const kw_sigma_schedule *schedule;    /* NULL: the sampler's own */
    kw_strengths strength[KW_PIPELINE_LORAS];
    bool uses[KW_PIPELINE_LORAS];
    size_t windows[2];
    const char *file;                     /* written here */
} kw_job;

typedef struct {                          /* a LoRA file, from --lora or found for a tag */
    const char *path, *name;              /* name: as a tag spells it */
    kw_strengths given;
    bool always;                          /* from --lora: for every picture */
    const char *blocks;                   /* of --lora, as it was written; NULL: none */
    bool by_block;                        /* some picture weighs its blocks */
    char hash[65];
} kw_job_lora;

typedef struct {
    kw_job *job;  size_t n;
    kw_job_lora lora[KW_PIPELINE_LORAS];  size_t n_lora;
} kw_jobs;

/* All pictures that the options ask for, in order; LoRA tags resolved, sizes still 0 where the base decides. */
KW_MUST kw_status kw_jobs_read(kw_arena *a, const kw_generate_config *c, kw_jobs *out, kw_err *e);

/* What is in a prompt that this program does not do (prompt_note.c): a translated line, or NULL. */
const char *kw_prompt_note(kw_arena *a, const char *prompt);

/* ---- writing (generate_write.c) ------------------------------------------------------------------------------- */

typedef struct kw_picture_writer kw_picture_writer;

/* Chooses names, makes the folder; reads the models' hashes for the infotext. */
KW_MUST kw_status kw_picture_writer_new(kw_cli *cli, const kw_generate_config *c, kw_pipeline *p, kw_jobs *jobs,
                                        kw_picture_writer **out,
                                        kw_err *e);
/* Writes picture i and keeps a copy for the sheet. */
KW_MUST kw_status kw_picture_writer_put(kw_picture_writer *w, size_t i, const kw_picture *p, kw_err *e);
/* The sheet, if there is more than one picture; *sheet is its path or NULL. */
KW_MUST kw_status kw_picture_writer_end(kw_picture_writer *w, const char **sheet, kw_err *e);

#endif
