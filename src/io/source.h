/*
 * source.h - a model as it lies on disk, under one set of names.
 *
 * A source is a diffusers folder (unet/, vae/, text_encoder/ ...; some of them may be missing), the folder of one part
 * (it has config.json), or one file: an LDM checkpoint (SD 1.x, 2.x, SDXL), a lone VAE, a part's weights. Weights are
 * safetensors or PyTorch's checkpoints (.ckpt, .bin). Whatever it is, tensors are found under diffusers' names and
 * shapes, configurations are diffusers' JSON.
 */
#ifndef KW_SOURCE_H
#define KW_SOURCE_H

#include "io.h"

#ifdef __cplusplus
extern "C" {
#endif

/*  name, folder in a diffusers model  */
#define KW_PART_MAP(X) X(UNET, "unet") X(VAE, "vae") X(TEXT, "text_encoder") X(TEXT2, "text_encoder_2")

typedef enum {
#define X(name, folder) KW_PART_##name,
    KW_PART_MAP(X)
#undef X
    KW_N_PARTS
} kw_part;

const char *kw_part_name(kw_part p);      /* "unet", as the folder is called */

/* Metadata key of our single files: JSON object, part name → its config.json, and "scheduler". */
#define KW_META_CONFIG "kiwame.config"

/* And of its tokenizer, where it is not CLIP's: JSON object, file name (vocab.json ...) -> its text. */
#define KW_META_TOKENIZER "kiwame.tokenizer"

typedef struct {                          /* scheduler_config.json, absent fields as that class has them in diffusers */
    double beta_start, beta_end;
    const char *beta_schedule;            /* "linear", "scaled_linear", "squaredcos_cap_v2" */
    const char *prediction_type;          /* "epsilon", "v_prediction", "sample" */
    const char *timestep_spacing;         /* "leading", "trailing", "linspace" */
    int num_train_timesteps, steps_offset;
    bool rescale_betas_zero_snr, set_alpha_to_one, clip_sample;
    bool is_guess;                        /* no configuration was found: SD 1.x/2.x's usual values */
    const char *prediction_from;          /* where prediction_type is known from, as a text to be translated */
    bool prediction_known;                /* it is said, not guessed */
} kw_noise_config;

typedef struct kw_source kw_source;

/* KW_EDATA names what is wrong; models of other families are named ("recognised ..., which is not supported"). */
KW_MUST kw_status kw_source_open(kw_arena *a, const char *path, kw_source **out, kw_err *e);

/* The same, but of a file that also has averaged weights of the U-Net (model_ema.*) those are taken, by its names. */
KW_MUST kw_status kw_source_open_averages(kw_arena *a, const char *path, kw_source **out, kw_err *e);

/* A model in memory: tensors under canonical names, the caller's (they outlive the source), and its configurations.
 * shown: its name in messages. scheduler: as scheduler_config.json, or NULL. */
typedef struct { kw_part part; kw_tensor *tensors; size_t n; json_t *config; } kw_made_part;
KW_MUST kw_status kw_source_made(kw_arena *a, const char *shown, const kw_made_part *parts, size_t n, json_t *scheduler,
                                 kw_source **out, kw_err *e);

const char *kw_source_path(const kw_source *s);
bool kw_source_is_single(const kw_source *s);                     /* one file, not a folder */
/* Was something taken off the file's names, which other programs stumble over? The notes say what. */
bool kw_source_is_wrapped(const kw_source *s);
bool kw_source_has(const kw_source *s, kw_part p);                /* its weights are there */
/* For kw_tokenizer_open: the folder of the part's tokenizer, or the file whose metadata hold it; NULL: none. */
const char *kw_source_tokenizer(const kw_source *s, kw_part p);
const kw_noise_config *kw_source_noise(const kw_source *s);

/* The published family (Stable Diffusion 1.x, SSD-1B ...) by the U-Net's geometry, as a text to be translated. */
const char *kw_source_family(const kw_source *s);
/* What a U-Net takes beside 4 latent channels, as a text to be translated; NULL: nothing. */
const char *kw_source_input(const kw_source *s);
/* What model_index.json (or a single file's metadata) says of a switch of the whole pipeline; absent: `otherwise`. */
bool kw_source_says(const kw_source *s, const char *name, bool otherwise);

/* config.json of the part; else the file's own metadata; else inferred from the weights (then see the notes). */
json_t *kw_source_config(const kw_source *s, kw_part p);

bool kw_source_is_inferred(const kw_source *s, kw_part p);        /* the last of these */

/* A part's tensors, sorted by canonical name: t.name and t.shape are canonical, the data is the file's. */
size_t kw_source_n(const kw_source *s, kw_part p);
const kw_tensor *kw_source_at(const kw_source *s, kw_part p, size_t i);
/* The tensor of the file that it comes from: its own name, shape and bytes. */
const kw_tensor *kw_source_raw(const kw_source *s, kw_part p, size_t i);
/* NULL: not there. Marks it as used. */
const kw_tensor *kw_source_find(kw_source *s, kw_part p, const char *name);
const char *kw_source_file_name(const kw_source *s, kw_part p, const char *name);  /* the file's own name of a tensor */

/* Numbers that no model has: of each fault how many tensors, and the first one's canonical name. */
typedef struct { size_t n; const char *first; } kw_number_fault;
typedef struct {
    kw_number_fault bad;                  /* NaN or infinity */
    kw_number_fault zero;                 /* matrices that are zero altogether */
    kw_number_fault huge;                 /* some number of 10000 or more */
    kw_number_fault faint;                /* more than 1 % below what the type holds in full (f32, bf16: 1.2e-38) */
} kw_numbers;
/* Reads all of a part once, and lets its pages go. */
void kw_source_numbers(const kw_source *s, kw_part p, kw_numbers *out);
void kw_tensor_numbers(const kw_tensor *t, const char *name, kw_numbers *out);        /* of one; adds to out */
/* KW_EDATA: NaN or infinity, with the first tensor that holds them. */
KW_MUST kw_status kw_source_check_numbers(const kw_source *s, kw_part p, kw_err *e);

/* The file that a part comes from, whole: every tensor in it, and its metadata. NULL: the part is not there. */
const kw_tensors *kw_source_file(const kw_source *s, kw_part p);

size_t kw_source_n_unknown(const kw_source *s);                   /* names in the file that mean nothing to us */
const char *kw_source_unknown(const kw_source *s, size_t i);
/* Canonical name of the next tensor from i on that was never found; NULL at the end. Start with i = 0. */
const char *kw_source_unused(const kw_source *s, kw_part p, size_t *i);
size_t kw_source_n_notes(const kw_source *s);                     /* what was guessed or passed over, as texts */
const char *kw_source_note(const kw_source *s, size_t i);

/* SHA-256 of a part's tensors under canonical names and shapes: the same for a folder and a file with the same numbers.
 * KW_N_PARTS: of all parts. Reads everything once; remembered. */
KW_MUST kw_status kw_source_hash(kw_source *s, kw_part p, char hex[65], kw_err *e);
/*
 * A key under which a part's hash may be kept from one start to the next: SHA-256 of device, inode, size and the two
 * times of its files, as they were opened. False: not in files, or changed less than two seconds ago, so that a
 * further change could have the same times. A change of the content always moves the inode's own time.
 */
bool kw_source_stamp(const kw_source *s, kw_part p, char key[65]);
void kw_source_know_hash(kw_source *s, kw_part p, const char hex[65]);     /* as it was kept */

/* ---- writing a model again --------------------------------------------------------------------------------------- */

typedef struct { kw_part part; kw_tensor t; } kw_values;          /* t: canonical name and size, any number type */

/*
 * Writes the file that part p comes from under another path: tensors of which values are given get those, as numbers of
 * `type`, under the file's names and in its shapes; all others keep type and bytes, whether they mean something or not.
 * Of the values those of parts in other files are passed over. The file's metadata stays, but for the keys given: a
 * value replaces the old one or is added, NULL takes the key out. KW_EDATA: values of a tensor that is not there.
 */
KW_MUST kw_status kw_source_save(const kw_source *s, kw_part p, const kw_values *v, size_t n, kw_dtype type,
                                 const kw_meta *meta, size_t n_meta, const char *path, kw_err *e);

/* ---- names ---------------------------------------------------------------------------------------------------- */

/* What the numbers in LDM names depend on. */
typedef struct {
    int levels, layers;                   /* of the UNet or VAE; layers as `layers_per_block` */
    uint32_t up_attention;                /* bit i: up block i of the UNet has attentions */
} kw_key_shape;

typedef enum { KW_KEYS_UNET, KW_KEYS_VAE, KW_KEYS_TEXT, KW_KEYS_OPENCLIP, KW_KEYS_OLD_VAE, KW_N_KEYS } kw_keys;

enum { KW_KEY_ROOM = KW_MAX_TENSOR_NAME + 64 };

/* LDM's name of a canonical parameter, and back, without prefixes such as "model.diffusion_model."; false: none.
 * OpenCLIP keeps q, k, v in one tensor: the three canonical names give one LDM name, and back gives the first. */
bool kw_key_to_ldm(kw_keys k, const kw_key_shape *shape, const char *canonical, char ldm[KW_KEY_ROOM]);
bool kw_key_from_ldm(kw_keys k, const kw_key_shape *shape, const char *ldm, char canonical[KW_KEY_ROOM]);

#ifdef __cplusplus
}
#endif

#endif
