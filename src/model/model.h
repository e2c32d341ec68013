/*
 * model.h - the parts of Stable Diffusion. Each builder reads like its paper's figure; variants are data.
 *
 *     kw_unet_config c;
 *     KW_TRY(kw_unet_read(json, &c, e));                       -- diffusers' config.json
 *     kw_val eps = kw_unet(&net, &c, x, t, ctx, KW_NONE, KW_NONE);
 *
 * Pictures and latents are NHWC; t: (N) in the sum type; ctx: (N, T, D).
 */
#ifndef KW_MODEL_H
#define KW_MODEL_H

#include "nn/nn.h"
#include "text/text.h"

enum { KW_LEVELS = 6, KW_LAYERS = 8 };    /* at most: levels of a U-Net or an autoencoder, resnets of a down block */

/* Between down and up: nothing, a resnet alone (SSD-1B), or a resnet, attention and another resnet. */
enum { KW_MID_NONE, KW_MID_PLAIN, KW_MID_CROSS };

typedef struct {
    int in, out, levels;
    int ch[KW_LEVELS];
    int layers[KW_LEVELS];                /* resnets of each down block; up blocks have one more */
    bool down_attention[KW_LEVELS], up_attention[KW_LEVELS];      /* by block, in the order of the blocks */
    /* transformer blocks of each attention of each block */
    int depth[KW_LEVELS][KW_LAYERS + 1], up_depth[KW_LEVELS][KW_LAYERS + 1], mid_depth;
    int heads[KW_LEVELS];                 /* by level */
    int context[KW_LEVELS];               /* width of the attention context, by level */
    bool only_cross[KW_LEVELS];           /* the first attention of a block looks at the context too */
    int mid;                              /* KW_MID_... */
    bool mid_only_cross;
    int groups;
    float eps;
    kw_unary act;
    bool linear_proj;                     /* proj_in and proj_out are linear layers (SD 2.x, SDXL) */
    bool flip_sin;  float freq_shift;     /* of the timestep's sinusoids */
    int downsample_padding;
    int add_dim, add_time_dim;            /* SDXL: width of [pooled text, sinusoids of six sizes]; 0: none */
    int sample_size;                      /* latent pixels it was trained at; 0: unknown */
} kw_unet_config;

/* Refuses what the family does not have, naming the field. */
KW_MUST kw_status kw_unet_read(const json_t *config, kw_unet_config *c, kw_err *e);
/* x (N, H, W, in), t (N), ctx (N, T, D) -> (N, H, W, out). SDXL: text (N, P) and ids (N, 6), else KW_NONE. */
kw_val kw_unet(kw_net *n, const kw_unet_config *c, kw_val x, kw_val t, kw_val ctx, kw_val text, kw_val ids);

typedef struct {
    int in, out, latent, levels;
    int ch[KW_LEVELS];
    int layers, groups;
    kw_unary act;
    bool quant, post_quant, mid_attention;
    double scaling, shift;                /* latents for the U-Net = (z - shift) * scaling */
    int sample_size;
} kw_vae_config;

KW_MUST kw_status kw_vae_read(const json_t *config, kw_vae_config *c, kw_err *e);
int kw_vae_factor(const kw_vae_config *c);                         /* picture pixels per latent pixel */
/* (N, H, W, 3) in -1..1 -> moments (N, h, w, 2 latent) */
kw_val kw_vae_encode(kw_net *n, const kw_vae_config *c, kw_val x);
kw_val kw_vae_decode(kw_net *n, const kw_vae_config *c, kw_val z);  /* (N, h, w, latent), unscaled -> (N, H, W, 3) */
/*
 * The same without gradients, in stripes of rows that hold at most as many numbers as tile x tile pixels have in the
 * layers next to the picture; 0: in one. The result does not depend on the tile: not on a bit of it, where convolutions
 * sum in an order that does not depend on the height of a picture (ours do; of oneDNN's it is not promised).
 */
kw_val kw_vae_encode_tiled(kw_net *n, const kw_vae_config *c, kw_val x, int tile);
kw_val kw_vae_decode_tiled(kw_net *n, const kw_vae_config *c, kw_val z, int tile);

typedef struct {
    int width, layers, heads, mlp, vocabulary, positions;
    kw_unary act;
    float eps;
    int projection;                       /* width of the projected pooled text; 0: it is not projected */
    /* id whose position gives the pooled text; 2: the largest id, as old configs mean */
    int64_t eos;
} kw_clip_config;

KW_MUST kw_status kw_clip_read(const json_t *config, kw_clip_config *c, kw_err *e);
/* ids (N, T) -> last hidden state after the final norm (N, T, width). hidden (layers + 1 values,
 * or NULL) gets all states. */
kw_val kw_clip(kw_net *n, const kw_clip_config *c, kw_val ids, kw_val *hidden);
/*
 * The same where tokens may be vectors (textual inversion): keep, put (N, T, width), F32. A token's row of the table is
 * taken times keep, which is 1, or 0 where put has a vector; put is 0 elsewhere.
 */
typedef struct { kw_val keep, put; } kw_clip_vectors;
kw_val kw_clip_with(kw_net *n, const kw_clip_config *c, kw_val ids, const kw_clip_vectors *v, kw_val *hidden);
/* The final norm alone, over an earlier hidden state (clip skip). */
kw_val kw_clip_final_norm(kw_net *n, const kw_clip_config *c, kw_val h);
/* last (N, T, width): what kw_clip gives; end (N): kw_clip_end of each -> (N, projection), or (N, width). */
kw_val kw_clip_pooled(kw_net *n, const kw_clip_config *c, kw_val last, kw_val end);
/* The position of the first end mark among n ids: what sums a text up; 0 where there is none (as transformers). */
int64_t kw_clip_end(const kw_clip_config *c, const int64_t *ids, int n);

/* Values for a part come from a source: the find function of kw_params_source. */
typedef struct { kw_source *source; kw_part part; } kw_part_of;
kw_status kw_part_find(void *part_of, const char *name, kw_shape shape, kw_tensor *t, kw_err *e);

/* ---- a whole Stable Diffusion ------------------------------------------------------------------------------- */

/* The group a parameter of a part is trained in, or KW_NONE. */
typedef int kw_sd_select(void *ctx, kw_part part, const char *name);

typedef struct {
    kw_source *source, *vae_source;       /* the same unless another VAE was given */
    kw_store *store;
    bool has[KW_N_PARTS];
    kw_unet_config unet;
    kw_vae_config vae;
    kw_clip_config text, text2;           /* text2: SDXL's OpenCLIP bigG */
    kw_params *params[KW_N_PARTS];
    kw_part_of of[KW_N_PARTS];
    struct { kw_sd_select *select; void *ctx; kw_part part; } chosen[KW_N_PARTS];
} kw_sd;

/* Configurations are read and checked; weights are looked at when programs are built. vae, select: may be NULL. */
KW_MUST kw_status kw_sd_open(kw_arena *a, const char *path, const char *vae, kw_store *store, kw_dtype exact,
                             kw_sd_select *select, void *ctx, kw_sd **out, kw_err *e);
/* The same over sources that are open; vae_source: NULL for the same one. */
KW_MUST kw_status kw_sd_over(kw_arena *a, kw_source *source, kw_source *vae_source, kw_store *store, kw_dtype exact,
                             kw_sd_select *select, void *ctx, kw_sd **out, kw_err *e);

/* An inpainting base: its U-Net takes a mask and a masked picture's latents beside x, 2C + 1 channels. */
static inline bool kw_sd_inpaints(const kw_sd *s)
{
    return s->unet.in == 2 * s->vae.latent + 1 && s->unet.out == s->vae.latent;
}

/* ---- texts for the U-Net (sd_text.c) ---------------------------------------------------------------------------- */

/*
 * SD 1.x, 2.x: one encoder's hidden state, after its final norm. SDXL: both encoders' hidden states side by side,
 * without a norm, and the second's pooled, projected output at the end mark.
 * clip_skip: the layer counted from the end, 1 the last. SDXL's own is the one before the last: 1 and 2 mean it, as in
 * Forge and ComfyUI and on pictures by A1111; diffusers' clip_skip = k is k + 2 there, k + 1 elsewhere.
 */
enum { KW_ENCODERS = 2 };
int kw_sd_encoders(const kw_sd *s);       /* text encoders that the U-Net is told of: 1, or 2 for SDXL */
kw_part kw_sd_encoder(int i);             /* KW_PART_TEXT, KW_PART_TEXT2 */
const kw_clip_config *kw_sd_clip(const kw_sd *s, int i);
int kw_sd_text_width(const kw_sd *s);     /* numbers per token, of all encoders */
int kw_sd_pooled_width(const kw_sd *s);   /* of the pooled text that the U-Net takes; 0: none */
int kw_sd_clip_layers(const kw_sd *s);    /* the most that clip_skip can be */

typedef struct {
    kw_net net[KW_ENCODERS];              /* of each encoder, over one graph */
    kw_val ids[KW_ENCODERS], end;         /* (N, T) tokens for each; (N) kw_clip_end of the second's */
    const kw_clip_vectors *vectors[KW_ENCODERS];      /* in the place of rows of its table, or NULL */
    int clip_skip;
    bool first_alone;                     /* the first encoder's, whatever the U-Net wants */
} kw_sd_text_in;

/* (N, T, kw_sd_text_width); pooled (N, kw_sd_pooled_width), or KW_NONE. */
kw_val kw_sd_text(const kw_sd *s, const kw_sd_text_in *in, kw_val *pooled);

/*
 * SDXL's six sizes, in the order of the embedding: height and width of the original picture, top and left of the crop
 * in the picture as it was scaled, height and width of what is made.
 */
enum { KW_SIZES = 6 };

/* Parts that generating and training with a U-Net need; what is missing or does not fit together is named. */
KW_MUST kw_status kw_sd_check_texts(const kw_sd *s, kw_err *e);

/*
 * The tokenizers of the encoders: a folder's own, else those that a single file brings, else CLIP's - padded with 0
 * for OpenCLIP's encoders (those with plain GELU), with the end mark for OpenAI's. given: a tokenizer instead of these,
 * or NULL. KW_EDATA: more tokens or longer windows than an encoder has rows for, or windows of different lengths.
 */
KW_MUST kw_status kw_sd_tokenizers(kw_arena *a, const kw_sd *s, kw_tokenizer *given, kw_tokenizer *out[KW_ENCODERS],
                                   kw_err *e);

/*
 * Before the first program: the U-Net's frozen linear layers and convolutions are kept in one byte a number
 * (kern/kern.h), but for the first and the last convolution and the embeddings of time and size, where an error goes
 * everywhere.
 */
void kw_sd_int8(kw_sd *s);

/* Fresh random weights for a part with this configuration, F32, on the arena. The same seed gives the same bits. */
KW_MUST kw_status kw_init_part(kw_arena *a, kw_part part, const json_t *config, uint64_t seed, kw_tensor **list,
                               size_t *n, kw_err *e);

/* ---- the autoencoder as a program ------------------------------------------------------------------------------- */

/* How it is worked through: as a whole, in stripes of at most SIDE x SIDE pixels, or as the memory has it. */
enum { KW_VAE_AUTO = -1, KW_VAE_WHOLE = 0, KW_VAE_MOST = 4096 };

typedef struct {
    bool decode;
    int n, h, w;                          /* pictures; latent pixels */
    kw_dtype compute;
} kw_vae_work;

/*
 * The largest tile (or KW_VAE_WHOLE) whose values take at most `memory` bytes (0: no limit), or the one that takes
 * least if none does; bytes: what its values take.
 */
KW_MUST kw_status kw_vae_fit(const kw_sd *sd, const kw_vae_work *k, size_t memory, int *tile, size_t *bytes, kw_err *e);
/* Input "z" (n, h, w, latent), unscaled, or "image" (n, H, W, 3) in -1..1; result "y", picture or moments; F32. */
KW_MUST kw_status kw_vae_program(kw_arena *a, const kw_sd *sd, const kw_vae_work *k, int tile, const kw_run_options *o,
                                 kw_program **out, kw_err *e);

/* ---- families: configurations that come with the program (data/families) -------------------------------------- */

/*  name, its model  */
#define KW_FAMILY_MAP(X) \
    X(sd15,   "Stable Diffusion 1.5") \
    X(sdxl,   "Stable Diffusion XL") \
    X(emoji,  "kiwame-emoji-128") \
    X(shapes, "shapes")

const char *kw_family_name(int i);                                 /* "sd15"; NULL past the last */
/* One object: part ("unet", "vae" ...) -> its config.json, and "scheduler". KW_EUSAGE: no such family. */
KW_MUST kw_status kw_family_config(kw_arena *a, const char *name, json_t **config, kw_err *e);

/*
 * A model of these configurations (as kw_family_config gives them) with meaningless weights of type t, for measuring:
 * no file is needed, and of its own memory it takes a window of some hundred megabytes at most. Weights show that
 * window over and over, so that they behave as a mapped file in every respect but their values: reading them takes
 * pages, letting go gives pages back. Matrices are uniform in ±0.02; norms' weights are 1, all biases 0.
 */
KW_MUST kw_status kw_family_made(kw_arena *a, const char *shown, const json_t *config, kw_dtype t, kw_source **out,
                                 kw_err *e);

#endif
