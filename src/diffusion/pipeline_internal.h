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

/* A program's shape. tokens: of each sample's context, or of a window; skip: clip skip. h, w: latent pixels.
   vectors: a text has some that are no tokens'. */
typedef struct { int kind, n, h, w, tokens, skip, vectors; } kw__program_key;
typedef struct {
    kw__program_key key;
    kw_program *p;
    kw_arena *arena;
    uint64_t used;
    int tile;                             /* of the autoencoder */
    bool alone;                           /* the U-Net's copies do not fit beside it */
} kw__program_slot;

/* A textual inversion as it is used: vectors (n, width of the encoder) of each text encoder. */
typedef struct { const char *name; const float *vectors[KW_ENCODERS]; int n; } kw__inversion;

/* What texts were encoded to (encodings.c). */
typedef struct { char *key; float *numbers; uint64_t used; } kw__encoding;

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
    kw_hypernets hypernets;
    kw__inversion *inversion;  size_t n_inversions, inversion_room, inversion_rows;
    kw_new_words words[KW_ENCODERS];      /* their names in each encoder's tokens */
    struct { const char *name; float value; } strength[KW__STRENGTHS];
    int n_strengths;
    kw_workspace *w;
    kw__program_slot slot[12];
    kw__encoding encoding[8];             /* the last ones; of parts that are ours, so that their weights stay */
    size_t n_encoded;                     /* texts that went through the encoders so far */
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

/*
 * A text for the U-Net: h (windows * width of a window, kw_sd_text_width), emphasis applied; pooled or NULL; on the
 * arena.
 */
typedef struct { const float *h, *pooled; size_t windows; int tokens; } kw__context;

/*
 * The n texts of one schedule, in windows of equal number (at least least_windows). They go together because A1111's
 * "Original" emphasis keeps the mean of all of them.
 */
KW_MUST kw_status kw__pipeline_encode_texts(kw_pipeline *p, kw_arena *a, const kw_reading *r, const char *const *text,
                                            size_t n, size_t least_windows, int clip_skip, kw__context *out, kw_err *e);
KW_MUST kw_status kw__pipeline_text_windows(const kw_pipeline *p, kw_arena *a, const kw_reading *r, const char *text,
                                            kw_windows out[KW_ENCODERS], kw_err *e);

/*
 * encodings.c: a key is what is common to the texts that are encoded together, then each of them. The numbers kept
 * under it, or NULL; room for n of them, to be filled at once, in the place of the oldest, or NULL: they are not kept.
 */
void kw__encodings_key(const kw_pipeline *p, const kw_reading *r, int clip_skip, kw_str *out);
void kw__encodings_key_text(kw_str *out, const char *words, int times, size_t windows);
const float *kw__encodings_find(kw_pipeline *p, const char *key);
float *kw__encodings_add(kw_pipeline *p, const char *key, size_t n);
void kw__encodings_drop(kw__encoding *one);

/* pipeline_inversion.c: which one has this row; is there a vector in these windows? Inputs: NULL without vectors. */
size_t kw__inversion_of(const kw_pipeline *p, size_t row);
bool kw__inversion_used(const kw_windows *w);
const kw_clip_vectors *kw__inversion_inputs(const kw_pipeline *p, kw_graph *g, const kw__program_key *k, int encoder,
                                            kw_clip_vectors *v);
KW_MUST kw_status kw__inversion_set(kw_pipeline *p, kw_arena *a, kw_program *program, int encoder, const kw_windows *w,
                                    kw_err *e);
KW_MUST kw_status kw__inversion_add(kw_pipeline *p, const char *path, const kw_inversion *v, kw_err *e);

/* words.c: the prompts of a batch, or its negative ones, as the network sees them from run to run. */
typedef struct kw__words kw__words;
/* zeros: tokens of negative prompts where all of them are zeros, which say the same in any number. */
KW_MUST kw_status kw__words_new(kw_pipeline *p, kw_arena *a, const kw_request *r, bool negative, int zeros,
                                kw__words **out, kw_err *e);
int kw__words_tokens(const kw__words *w);
bool kw__words_composed(const kw__words *w);       /* a picture has several parts, or one with a weight other than 1 */
int kw__words_parts(const kw__words *w);           /* of all pictures */
typedef struct { int picture; double weight; } kw__part;
kw__part kw__words_part(const kw__words *w, int i);
/* Texts of parts first .. first + n at the network's run-th run: (n, tokens, D), and pooled (n, P) if there are
   some. */
void kw__words_fill(const kw__words *w, int run, int first, int n, float *context, float *pooled);

/* inpaint.c: what an inpainting base sees beside x, (n, h, w, C + 1) on the arena; NULL for any other base. */
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
