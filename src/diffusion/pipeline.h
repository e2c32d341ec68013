/*
 * pipeline.h - from words to pictures: text encoder, U-Net under a sampler, autoencoder.
 *
 *     kw_pipeline_lora lora = { "fox.safetensors", 1, 1 };
 *     KW_TRY(kw_pipeline_open(arena, "sd15/", NULL, &lora, 1, &options, &p, e));
 *     kw_wish wish = { .prompt = "a (red:1.2) fox", .seed = 1 };
 *     kw_request r = { .wish = &wish, .n = 1, .width = 512, .height = 512, .cfg = 7, .clip_skip = 1,
 *                      .sampling = { .sampler = kw_sampler_find("Euler a", NULL), .steps = 20, .eta = -1 } };
 *     KW_TRY(kw_pipeline_generate(p, arena, &r, &made, e));                made.picture[0]
 *
 * During training kw_pipeline_over draws with the trainer's own states, so a sample shows the weights of that moment
 * and costs no second copy of them. A request gives the same bits each time; other batch sizes differ by rounding.
 */
#ifndef KW_DIFFUSION_PIPELINE_H
#define KW_DIFFUSION_PIPELINE_H

#include "adapter/adapter.h"
#include "diffusion.h"
#include "picture/picture.h"
#include "text/text.h"

/* ---- seeds: which generator turns a seed into noise ------------------------------------------------------------ */

/*  name, word, help. CPU is torch.manual_seed, also diffusers with a CPU generator.  */
#define KW_SEEDS_MAP(X) \
    X(GPU, "gpu", N_("the numbers torch draws on CUDA, A1111's default")) \
    X(CPU, "cpu", N_("the numbers torch draws on the CPU")) \
    X(KIWAME, "kiwame", N_("Philox by index: any number without those before it"))

typedef enum {
#define X(name, text, help) KW_SEEDS_##name,
    KW_SEEDS_MAP(X)
#undef X
    KW_N_SEEDS
} kw_seeds;

const char *kw_seeds_name(kw_seeds k);

/*
 * One generator per picture, (C, h, w) numbers per draw. The draws follow each other as in A1111: first the starting
 * noise, then what each step of an ancestral sampler injects; those of KIWAME are numbered, the starting noise is -1.
 *
 * A variation mixes the starting noise with that of another seed, along the arc between them (per channel and column):
 *     sin((1 - f) w)/sin w noise + sin(f w)/sin w other,   cos w = their cosine
 * Resized from (w0, h0): the noise of that size is drawn, and put into the middle of one of this size. With a delta the
 * draws after the first come from generators of seed + delta (A1111's "eta noise seed delta").
 */
typedef struct {
    kw_seeds kind;
    const uint64_t *seed;  int n;         /* (n) */
    int channels, h, w;
    const uint64_t *variation;            /* (n), or NULL */
    double strength;                      /* f; 0: none */
    int from_h, from_w;                   /* latent pixels; 0: not resized */
    uint64_t delta;
} kw_noise_wish;

typedef struct kw_noise_source kw_noise_source;
/* NULL when memory is gone. What the wish points to is copied. */
KW_MUST kw_noise_source *kw_noise_source_new(kw_arena *a, const kw_noise_wish *w);
/* The starting noise (n, C, h, w), to be asked for first and once; then the draws. */
KW_MUST kw_status kw_noise_source_start(kw_noise_source *s, float *out, kw_err *e);
void kw_noise_source_draw(kw_noise_source *s, int step, float *out);
/* Likewise, also along a Brownian path: that of torchsde's BrownianTree, see brownian.c. */
KW_MUST kw_status kw_noise_source_sampler(kw_noise_source *s, const kw_noise_draw *d, float *out, kw_err *e);

/* ---- the pipeline ------------------------------------------------------------------------------------------------ */

typedef struct kw_pipeline kw_pipeline;

typedef struct {
    const char *path;                     /* a LoRA or one of its kin, in any spelling; a file, or a folder of PEFT's */
    double te, unet;                      /* strengths on the text encoders and on the U-Net */
    bool by_block;                        /* there will be factors for blocks (kw_pipeline_strengths) */
} kw_pipeline_lora;

enum { KW_PIPELINE_LORAS = 32 };

typedef struct {
    kw_dtype compute;                     /* KW_F32 or KW_BF16 */
    bool int8;                            /* the U-Net's weights in one byte a number (open only) */
    bool vae_bf16;                        /* the autoencoder in BF16; else in F32 */
    int vae_tile;                         /* KW_VAE_AUTO, KW_VAE_WHOLE (the default) or a side in pixels */
    /*
     * Bytes to keep to; 0: no limit (open only). In this order: the autoencoder in stripes (KW_VAE_AUTO), the U-Net's
     * packed weights freed while it works, fewer of them packed at all. The text encoder's and the autoencoder's go
     * from memory whenever their work is done.
     */
    uint64_t memory;
    bool merge; /* LoRAs are added to the weights, not beside them: faster steps, more memory */
    bool partial;                         /* LoRA keys that fit nothing here are passed over instead of refused */
    kw_run_options run;
    kw_tokenizer *tokenizer;              /* instead of the base's own; NULL: that one, or CLIP's */
} kw_pipeline_options;

/*
 * A base (folder or file), another autoencoder or NULL, LoRA files. Refused: parts that do not belong together, a LoRA
 * with keys that no layer takes (up to 10 are named) or with shapes of another base. LoRAs and LoCons are branches
 * beside the layers; all else is merged into the weights, in f32, in the order of the files. The noise schedule is the
 * base's, with steps_offset 1 and no clipping of samples whatever an old file says: so does diffusers'
 * StableDiffusionPipeline.
 */
KW_MUST kw_status kw_pipeline_open(kw_arena *a, const char *base, const char *vae, const kw_pipeline_lora *lora,
                                   size_t n_lora,
                                   const kw_pipeline_options *o, kw_pipeline **out, kw_err *e);

/* The same over parts that are open already, with these adapters (may be NULL) and this workspace (NULL: its own). */
KW_MUST kw_status kw_pipeline_over(kw_arena *a, const kw_sd *sd, const kw_adapters *adapters, kw_workspace *w,
                                   const kw_pipeline_options *o, kw_pipeline **out, kw_err *e);

/* Strengths from the next picture on: of the i-th LoRA file, or of an adapter whose strength is the input `name`. */
KW_MUST kw_status kw_pipeline_strength(kw_pipeline *p, size_t i, double te, double unet, kw_err *e);
/* blocks: KW_LORA_BLOCKS factors to them, or NULL. Without by_block they reach what is merged only. */
KW_MUST kw_status kw_pipeline_strengths(kw_pipeline *p, size_t i, double te, double unet, const float *blocks,
                                        kw_err *e);
KW_MUST kw_status kw_pipeline_strength_of(kw_pipeline *p, const char *name, double strength, kw_err *e);

const kw_sd *kw_pipeline_base(const kw_pipeline *p);
const kw_noise *kw_pipeline_noise(const kw_pipeline *p);
const kw_tokenizer *kw_pipeline_tokenizer(const kw_pipeline *p);        /* the first text encoder's */
kw_program *kw_pipeline_program(const kw_pipeline *p, int i);   /* those made so far, to look at; NULL past the last */

size_t kw_pipeline_encoded(const kw_pipeline *p);      /* texts that went through the encoders; others were kept */

typedef struct {                          /* bytes in memory in all, while ... */
    double sampling, pixels;
    int tile;                             /* of the autoencoder; KW_VAE_WHOLE */
    bool away;                            /* the U-Net's weights make room for the autoencoder */
    double unpacked;                      /* share of the U-Net's weights that are packed at each use */
    double step_work, decode_work;        /* of a step of all n, of one picture: FLOPs at the peak, see run/run.h */
} kw_pipeline_memory;

/* Makes the programs for n pictures of this size, with prompts of so many windows, and says what they take. */
KW_MUST kw_status kw_pipeline_forecast(kw_pipeline *p, int n, int width, int height, size_t windows, bool guided,
                                       kw_pipeline_memory *out, kw_err *e);
int kw_pipeline_factor(const kw_pipeline *p);          /* picture pixels per latent pixel */
/* KW_EUSAGE, with the nearest size, unless both are positive multiples of the factor. */
KW_MUST kw_status kw_pipeline_check_size(const kw_pipeline *p, int width, int height, kw_err *e);
bool kw_pipeline_inpaints(const kw_pipeline *p);       /* the U-Net has channels for a mask and a masked picture */
int kw_pipeline_native(const kw_pipeline *p);          /* px: side of its training pictures; 512 if unknown */
size_t kw_pipeline_lora_modules(const kw_pipeline *p, size_t i);        /* layers that LoRA file i changes */
size_t kw_pipeline_lora_passed_over(const kw_pipeline *p, size_t i);    /* keys that fit nothing (options.partial) */
const kw_lora_file *kw_pipeline_lora_file(const kw_pipeline *p, size_t i); /* its bundled embeddings, for instance */

/*
 * A textual inversion (adapter/inversion.h): from now on prompts may name it, by its file's name without the ending
 * (and as a diffusers file's placeholder). KW_EDATA where its vectors are not of the width that this base's encoders
 * take. The bundled ones of LoRA files are known already.
 */
KW_MUST kw_status kw_pipeline_add_inversion(kw_pipeline *p, const char *path, kw_err *e);
size_t kw_pipeline_inversions(const kw_pipeline *p);
const char *kw_pipeline_inversion(const kw_pipeline *p, size_t i);              /* its name; NULL past the last */

/*
 * A hypernetwork (adapter/hypernet.h), before the first picture; at most KW_PIPELINE_HYPERNETS of them. Its strength,
 * 1, can change from picture to picture. KW_EDATA where it has no net for any width of this base.
 */
enum { KW_PIPELINE_HYPERNETS = 4 };
KW_MUST kw_status kw_pipeline_add_hypernet(kw_pipeline *p, const char *path, kw_err *e);
KW_MUST kw_status kw_pipeline_hypernet_strength(kw_pipeline *p, size_t i, double strength, kw_err *e);

/* How prompts are read (text.h). All 0: as A1111. */
typedef struct {
    kw_grammar grammar;
    kw_emphasis emphasis;
    int steps;                            /* of schedules, by kw_reading_steps; 0: those of the request's sampling */
    int before;                           /* a second pass: those of the first; else 0 */
} kw_reading;

int kw_reading_steps(const kw_sampler *s, int steps);      /* what they count, for so many of a sampler's */

/* The windows of 77 tokens this prompt takes at most. Pictures of one batch should agree in it, see kw_wish. */
KW_MUST kw_status kw_pipeline_windows(const kw_pipeline *p, const kw_reading *r, const char *prompt, bool negative,
                                      size_t *n, kw_err *e);
/* Sets used[i] where the prompt names the i-th textual inversion at any step; leaves the others. */
KW_MUST kw_status kw_pipeline_names(const kw_pipeline *p, const kw_reading *r, const char *prompt, bool negative,
                                    bool *used, kw_err *e);

/* ---- generating -------------------------------------------------------------------------------------------------- */

/*
 * Prompts are in A1111's grammar (text.h) unless kw_reading says else; emphasis as its "Original": hidden states times
 * their weights, then scaled back to the mean they had, each text encoder's apart; the pooled text has none, and is
 * that of the first window. An empty negative prompt of SDXL is zeros, as in diffusers and A1111, unless
 * model_index.json says that it is not (force_zeros_for_empty_prompt). Tags are taken out and otherwise ignored: who
 * reads files applies them. Within one batch prompts get empty windows until they have as many as the longest; likewise
 * the negative ones. If the two then differ they run apart, each with its own length (as A1111 does unless told to
 * pad). Parts joined by AND have their last token's state repeated up to the longest of them, as in A1111, and run
 * apart from each other.
 */
typedef struct {
    const char *prompt, *negative;        /* negative NULL: "" */
    uint64_t seed;
    uint64_t variation;                   /* seed of what variation_strength mixes in */
} kw_wish;

/*
 * What SDXL is told beside the words: the size of the picture it should look like it was scaled from, what was cut off
 * at its top and left, and the size of what is made. 0: width and height of the request.
 */
typedef struct { int original_w, original_h, crop_x, crop_y, target_w, target_h; } kw_sizes;

typedef enum { KW_STAGE_TEXT, KW_STAGE_STEP, KW_STAGE_DECODE } kw_stage;

typedef struct {
    kw_stage stage;
    int done, total;                      /* of this stage: prompts, evaluations of the network, pictures */
    const float *x0;                      /* (n, h, w, C) what the network takes the latents to be; NULL elsewhere */
} kw_generate_at;

/* Called after each part of the work; anything but KW_OK stops, and is returned. */
typedef kw_status kw_generate_fn(void *ctx, const kw_generate_at *at, kw_err *e);

/*
 * What stays of init where `paint` is below 1. X0: each answer of the network is taken to say so (x_0 there is init),
 * as A1111 does. STEP: after each step x there is init with the starting noise at that level, as diffusers' inpainting
 * pipeline does. In the end the latents there are init's.
 */
typedef enum { KW_KEEP_X0, KW_KEEP_STEP } kw_keep;

typedef struct {
    const kw_wish *wish;  int n;          /* n pictures, one batch */
    int width, height;                    /* px, multiples of kw_pipeline_factor */
    kw_sampling_options sampling;
    double cfg;                           /* 1: no guidance, the negative prompt has no part */
    int clip_skip;                        /* 1: the text encoder's last layer; of SDXL the one before: see model.h */
    /* brings a guided answer's deviation back to that of the prompt alone, by this share: kw_guide_rescale */
    double cfg_rescale;
    kw_sizes sizes;                       /* SDXL; all zero: the picture's own size, nothing cut off */
    kw_reading reading;
    kw_seeds seeds;
    double variation_strength;            /* 0 to 1, see kw_noise_wish; 0: none */
    int seed_from_w, seed_from_h;         /* px, 0: this size */
    uint64_t noise_delta;
    const float *noise;                   /* (n, C, h, w) standard normals instead of the seeds', or NULL */
    const float *const *injected;  int n_injected;     /* [draw] likewise what the sampler puts in; or NULL */
    const float *init;                    /* (n, C, h, w) latents to start from at step sampling.first, or NULL */
    /*
     * For an inpainting base (kw_pipeline_inpaints): mask (n, 1, h, w), 1 where it is drawn anew, 0 where the picture
     * stays; masked (n, C, h, w): the scaled latents of the picture with mid-grey (0 in -1..1) below the mask. Both or
     * neither; without them everything is drawn anew. KW_EUSAGE with another base.
     */
    const float *mask, *masked;
    int noised;                           /* init gets the noise of this step's start; see kw_strength_steps */
    const float *paint;                   /* (n, 1, h, w): 1 is drawn anew, 0 stays init; NULL: all anew */
    kw_keep keep;                         /* how what stays is held, with paint */
    bool latents_only;                    /* no pictures */
    kw_generate_fn *progress;  void *ctx; /* may be NULL */
} kw_request;

typedef struct {
    int n, channels, h, w;                /* latents */
    float *latents;                       /* (n, channels, h, w) scaled, as the U-Net sees them; on the arena */
    kw_picture *picture;                  /* (n), freed with the arena; NULL for latents_only */
} kw_generated;

/* KW_ENUMERIC when numbers are no longer finite: no picture then. KW_EUSAGE for what the request cannot ask. */
KW_MUST kw_status kw_pipeline_generate(kw_pipeline *p, kw_arena *a, const kw_request *r, kw_generated *out, kw_err *e);

/*
 * From which step on a picture is painted over. strength 0..1 is how much of the noise it gets; sets steps and first of
 * `o`, and *noised (see kw_request). `o` has sampler, spacing and steps, as will be asked for.
 *   A1111's lists     t = int(min(strength, 0.999) steps): the last t + 1 steps; of DDIM the t - 1 steps below the one
 *                     whose noise is put in. exact: steps are those really done, steps/strength are spread
 *   diffusers' lists  the last int(steps strength) steps; at least one here
 */
KW_MUST kw_status kw_strength_steps(const kw_noise *z, kw_sampling_options *o, double strength, bool exact, int *noised,
                                    kw_err *e);

/*
 * Latents (planes, h, w) to another size, as torch.nn.functional.interpolate: A1111's "Latent" is BILINEAR. The
 * antialiased ones weigh all pixels below an output pixel, and their cubic has a = -1/2 instead of -3/4.
 */
#define KW_LATENT_SCALE_MAP(X) \
    X(BILINEAR, "Latent", "latent") X(BILINEAR_SMOOTH, "Latent (antialiased)", "latent-antialiased") \
    X(BICUBIC, "Latent (bicubic)", "latent-bicubic") \
    X(BICUBIC_SMOOTH, "Latent (bicubic antialiased)", "latent-bicubic-antialiased") \
    X(NEAREST, "Latent (nearest)", "latent-nearest") X(NEAREST_EXACT, "Latent (nearest-exact)", "latent-nearest-exact")
typedef enum {
#define X(name, label, word) KW_LATENT_##name,
    KW_LATENT_SCALE_MAP(X)
#undef X
    KW_N_LATENT_SCALES
} kw_latent_scale;

KW_MUST kw_status kw_latents_resize(kw_latent_scale how, const float *in, int planes, int h, int w, float *out,
                                    int out_h, int out_w, kw_err *e);

/* ---- the autoencoder alone --------------------------------------------------------------------------------------- */

/* Scaled latents (C, h, w) -> a picture, to be freed with kw_picture_free. */
KW_MUST kw_status kw_pipeline_decode(kw_pipeline *p, const float *latents, int h, int w, kw_picture *out, kw_err *e);
/* A picture of whole latent pixels -> the mean of its scaled latents (C, h, w). */
KW_MUST kw_status kw_pipeline_encode(kw_pipeline *p, const kw_picture *picture, float *latents, kw_err *e);

/* The same of (h, w, 3) in -1..1, not rounded to bytes. */
KW_MUST kw_status kw_pipeline_encode_pixels(kw_pipeline *p, const float *pixels, int w, int h, float *latents,
                                            kw_err *e);
/* A draw instead of the mean, as diffusers takes: with its spread times these standard normals (C, h, w). */
KW_MUST kw_status kw_pipeline_encode_drawn(kw_pipeline *p, const kw_picture *picture, const float *normals,
                                           float *latents, kw_err *e);

/* ---- infotext: the text A1111 keeps in a picture ----------------------------------------------------------------- */

typedef struct { const char *name, *hash; } kw_infotext_lora;     /* hash: AutoV3, at least 12 digits; NULL: unknown */

typedef struct {
    const char *prompt, *negative;        /* the prompt with its <lora:...> tags */
    int steps;
    const char *sampler, *schedule;       /* A1111's names: "Euler a", "Karras"; schedule may be NULL */
    double cfg;
    uint64_t seed;
    int width, height;
    const char *model, *model_hash;       /* file stem, SHA-256; NULL: left out */
    const char *vae, *vae_hash;
    int clip_skip;                        /* written above 1 */
    const char *rng;                      /* "CPU"; NULL: A1111's own, the GPU */
    const kw_meta *extra;  size_t n_extra;      /* further keys, in this order */
    const kw_infotext_lora *lora;  size_t n_lora;
    const kw_infotext_lora *inversion;  size_t n_inversion;       /* hash: of the whole file */
    const kw_infotext_lora *hypernet;  size_t n_hypernet;
    const char *version;
} kw_infotext;

/* Appends  prompt \n Negative prompt: ... \n Steps: 20, Sampler: ...  with A1111's order of keys and quoting, and the
   Hashes object that Civitai reads. */
void kw_infotext_write(const kw_infotext *t, kw_str *out);

typedef struct {
    const char *prompt, *negative;        /* "" where there is none */
    kw_meta *field;  size_t n;            /* in the order of the text, unquoted; "Hashes" is its JSON */
} kw_infotext_read;

/* As A1111 reads it: the last line holds parameters if at least three are found there; a size 512x768 stays whole. */
KW_MUST kw_status kw_infotext_parse(kw_arena *a, const char *text, kw_infotext_read *out, kw_err *e);
const char *kw_infotext_get(const kw_infotext_read *t, const char *key);      /* NULL: not there */

#endif
