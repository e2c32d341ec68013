/* pipeline_internal.h - what the files of the pipeline share. */
#ifndef KW_DIFFUSION_PIPELINE_INTERNAL_H
#define KW_DIFFUSION_PIPELINE_INTERNAL_H

#include "pipeline.h"

enum { KW__STRENGTHS = (2 + KW_LORA_BLOCKS) * KW_PIPELINE_LORAS + 16 };

typedef struct {
    kw_lora_file *file;
    const char *path;
    kw_lora *part[3];                     /* U-Net, text encoders: layers that get a branch */
    double te, unet;
    float blocks[KW_LORA_BLOCKS];         /* factors to them */
    bool by_block;                        /* strengths have inputs of their own for each block */
    size_t n_passed, n_merged;            /* keys that fit nothing; layers that are merged */
} kw__lora;

typedef struct kw__merge kw__merge;

typedef enum { KW__TEXT, KW__UNET, KW__DECODE, KW__ENCODE } kw__kind;

/* A program's shape. tokens: of each sample's context, or of a window; skip: clip skip. h, w: latent pixels. */
typedef struct { int kind, n, h, w, tokens, skip; } kw__program_key;
typedef struct {
    kw__program_key key;
    kw_program *p;
    kw_arena *arena;
    uint64_t used;
    int tile;                             /* of the autoencoder */
    bool alone;                           /* the U-Net's copies do not fit beside it */
} kw__program_slot;

struct kw_pipeline {
    kw_arena *arena;
    kw_pipeline_options o;
    const kw_sd *sd;
    bool own;                             /* the store is ours */
    kw_noise *noise;
    kw_tokenizer *tokenizer[KW_ENCODERS];
    bool zeros;                           /* an empty negative prompt is zeros */
    kw_adapters adapters;
    kw__lora lora[KW_PIPELINE_LORAS];
    size_t n_lora;
    kw__merge **merge;  size_t n_merges, merge_capacity;
    struct { const char *name; float value; } strength[KW__STRENGTHS];
    int n_strengths;
    kw_workspace *w;
    kw__program_slot slot[12];
    int awake;                            /* the part that ran last, or KW_NONE */
    size_t unet_bytes, unet_all;          /* of the U-Net's weights while it runs; had all been packed */
    size_t unet_stays;                    /* of them, in memory of their own whoever works (int8) */
    uint64_t clock;
};

/* The program for a shape, made if need be; the one unused for longest gives way. Strengths are set. */
KW_MUST kw_status kw__pipeline_program(kw_pipeline *p, kw__program_key key, kw_program **out, kw_err *e);
/* The graph of a text encoder or a U-Net. */
KW_MUST kw_status kw__pipeline_graph(const kw_pipeline *p, kw_arena *a, const kw__program_key *k, kw_graph **out,
                                     kw_err *e);

/* pipeline_memory.c: makes slot->p, keeping to the memory; what is awake has been told by kw__pipeline_turn. */
KW_MUST kw_status kw__pipeline_make(kw_pipeline *p, kw__program_slot *slot, kw_err *e);
void kw__pipeline_turn(kw_pipeline *p, int kind);                       /* this part is next */
void kw__pipeline_settle(kw_pipeline *p, const kw__program_slot *slot); /* this program is next */

/* Builds the graphs that LoRAs attach to, without planning them. */
KW_MUST kw_status kw__pipeline_dry(kw_pipeline *p, kw_err *e);
KW_MUST kw_status kw__pipeline_loras(kw_pipeline *p, const kw_pipeline_lora *lora, size_t n, kw_err *e);
/* pipeline_merge.c: which weights change; and makes those whose strengths have changed since. */
KW_MUST kw_status kw__pipeline_merge_plan(kw_pipeline *p, kw_err *e);
KW_MUST kw_status kw__pipeline_merge(kw_pipeline *p, kw_err *e);

/* A prompt for the U-Net: h (windows * width of a window, kw_sd_text_width), emphasis applied; pooled or NULL; on the arena. */
typedef struct { const float *h, *pooled; size_t windows; int tokens; } kw__context;
KW_MUST kw_status kw__pipeline_encode_text(kw_pipeline *p, kw_arena *a, const char *prompt, size_t least_windows,
                                           int clip_skip,
                                           kw__context *out, kw_err *e);

/* inpaint.c: what an inpainting base sees beside x, (n, h, w, C + 1) on the arena; NULL for any other base. */
bool kw__inpaints(const kw_sd *sd);
KW_MUST kw_status kw__inpaint_begin(kw_pipeline *p, kw_arena *a, const kw_request *r, int h, int w, float **out,
                                    kw_err *e);
void kw__inpaint_join(const float *x, const float *more, size_t pixels, size_t c, float *out);

/* paint.c: painting over a picture. init, noise (n, h, w, C), paint (n, h, w), all of this request. */
typedef struct { const float *init, *noise, *paint; size_t pixels, c; kw_keep keep; } kw__paint;
/* With its init in, and its noise. `noise` is unit noise; x becomes what the first step starts from. */
KW_MUST kw_status kw__paint_begin(const kw_pipeline *p, kw_arena *a, const kw_request *r, const kw_sampling *s, int h,
                                  int w, float *x, kw__paint *out, kw_err *e);
/* The network's answer y for x at level m, and x after a step that landed on m. */
void kw__paint_answer(const kw__paint *k, kw_predict predict, kw_mix m, const float *x, float *y);
void kw__paint_step(const kw__paint *k, kw_mix m, float *x);

/* The negative prompt "" as zeros, of so many windows; false: it is encoded like any other. */
bool kw__pipeline_is_zero(const kw_pipeline *p, const char *negative);
KW_MUST kw_status kw__pipeline_zero_text(kw_pipeline *p, kw_arena *a, size_t windows, kw__context *out, kw_err *e);
/* SDXL's six numbers (n, KW_SIZES), all rows alike. */
void kw__pipeline_sizes(const kw_request *r, float *out);

/* (C, h, w) of files and seeds <-> (h, w, C) of the graphs, n pictures. */
void kw__to_nhwc(const float *from, int n, int c, int h, int w, float *to);
void kw__to_nchw(const float *from, int n, int c, int h, int w, float *to);

#endif
