/*
 * adapter.h - what is added beside a frozen base. An adapter hangs on the one seam of kw_net: it sees every linear
 * and convolution with its path, and may add a branch to its output.
 *
 *     kw_lora *l;  KW_TRY(kw_lora_new(arena, store, KW_PART_UNET, &config, NULL, &l, e));
 *     kw_adapters s = { .item = { l }, .n = 1 };
 *     net.seam = kw_adapters_seam;  net.seam_ctx = &s;
 */
#ifndef KW_ADAPTER_H
#define KW_ADAPTER_H

#include "hypernet.h"
#include "inversion.h"
#include "model/model.h"

/*  bit, name, help  -  which layers are adapted; the sets are kohya's  */
#define KW_TARGET_MAP(X) \
    X(ATTENTION, "attention", N_("queries, keys, values and outputs of every attention of the U-Net")) \
    X(FF,        "ff",        N_("feed-forward layers and the projections in and out of each transformer")) \
    X(CONV, "conv", N_("convolutions of the residual blocks, down- and upsampling, and their time projections")) \
    X(TEXT,      "text",      N_("attention and feed-forward layers of the text encoder"))

enum {
#define X(name, text, help) KW_TARGET_BIT_##name,
    KW_TARGET_MAP(X)
#undef X
    KW_N_TARGETS
};
enum {
#define X(name, text, help) KW_TARGET_##name = 1 << KW_TARGET_BIT_##name,
    KW_TARGET_MAP(X)
#undef X
};

/* "attention,ff,conv" -> bits; unknown words are named. */
KW_MUST kw_status kw_targets_parse(const char *text, unsigned *targets, kw_err *e);

/* The set that a layer of this part belongs to, or 0: it is never adapted. */
unsigned kw_target_of(kw_part part, const char *path);

/* ---- names ----------------------------------------------------------------------------------------------------- */

/*
 * How kohya's programs call layers: SD 1.x and 2.x by diffusers' paths, SDXL's U-Net by LDM's names, whose numbers
 * depend on the U-Net's levels. All zero: SD 1.x and 2.x.
 */
typedef struct { bool xl; kw_key_shape unet; } kw_lora_names;
kw_lora_names kw_lora_names_of(const kw_unet_config *c);
enum { KW_LORA_NAME = 512 };              /* room for a module's name */
/* "lora_unet_input_blocks_4_1_proj_in" of (KW_PART_UNET, "down_blocks.1.attentions.0.proj_in"); false: too long. */
bool kw_lora_name(const kw_lora_names *s, kw_part part, const char *path, char name[KW_LORA_NAME]);

/* ---- LoRA files and their kin, in whatever spelling ------------------------------------------------------------- */

/*  name, word. ΔW by kind: delta.c  */
#define KW_DELTA_MAP(X) \
    X(LORA, "LoRA") X(LOHA, "LoHa") X(LOKR, "LoKr") X(GLORA, "GLoRA") X(OFT, "OFT") X(BOFT, "BOFT") X(IA3, "(IA)^3") \
    X(FULL, "full") X(NORM, "norm") X(SET, "weights")

typedef enum {
#define X(name, word) KW_DELTA_##name,
    KW_DELTA_MAP(X)
#undef X
    KW_N_DELTAS
} kw_delta_kind;

const char *kw_delta_name(kw_delta_kind k);

/*  name, what kohya's and LyCORIS's files call it  */
#define KW_ROLE_MAP(X) \
    X(DOWN, "lora_down.weight") X(UP, "lora_up.weight") X(MID, "lora_mid.weight") X(UP_BIAS, "lora_up.bias") \
    X(ALPHA, "alpha") X(DORA, "dora_scale") X(MAGNITUDE, "lora_magnitude_vector") \
    X(HADA1A, "hada_w1_a") X(HADA1B, "hada_w1_b") X(HADA2A, "hada_w2_a") X(HADA2B, "hada_w2_b") \
    X(HADAT1, "hada_t1") X(HADAT2, "hada_t2") \
    X(KR1, "lokr_w1") X(KR1A, "lokr_w1_a") X(KR1B, "lokr_w1_b") X(KR2, "lokr_w2") X(KR2A, "lokr_w2_a") \
    X(KR2B, "lokr_w2_b") X(KRT2, "lokr_t2") \
    X(A1, "a1.weight") X(A2, "a2.weight") X(B1, "b1.weight") X(B2, "b2.weight") X(BM, "bm.weight") \
    X(OFT, "oft_blocks") X(RESCALE, "rescale") X(DIFF, "diff") X(DIFF_B, "diff_b") X(W_NORM, "w_norm") \
    X(B_NORM, "b_norm") X(SET, "set_weight") X(PLAIN, "weight") X(PLAIN_B, "bias") X(ON_INPUT, "on_input") \
    X(IA3_L, "ia3_l")

typedef enum {
#define X(name, word) KW_ROLE_##name,
    KW_ROLE_MAP(X)
#undef X
    KW_N_ROLES
} kw_role;

const char *kw_role_name(kw_role r);

typedef struct {                          /* what a file does to one layer */
    kw_part part;
    const char *path;                     /* diffusers': "down_blocks.0.attentions.0.proj_in" */
    const char *module;                   /* as the file calls it */
    kw_delta_kind kind;
    const kw_tensor *t[KW_N_ROLES];       /* NULL: absent */
    int rank;                             /* 0: this kind has none */
    bool on_input;                        /* (IA)^3: along the inputs */
    double alpha;                         /* of OFT and BOFT the constraint, per channel */
    double scale;                         /* what the product is multiplied by: alpha / rank unless metadata say else */
} kw_delta;

/*  name, how it is shown  */
#define KW_DIALECT_MAP(X) \
    X(KOHYA, N_("kohya's names")) X(LYCORIS, N_("LyCORIS' names")) X(DIFFUSERS, N_("diffusers' names")) \
    X(DIFFUSERS_OLD, N_("diffusers' older names")) X(DIFFUSERS_2023, N_("diffusers' names of 2023")) \
    X(PEFT, N_("PEFT's names")) X(COMFY, N_("the U-Net's own names, as ComfyUI takes them"))

typedef enum {
#define X(name, text) KW_DIALECT_##name,
    KW_DIALECT_MAP(X)
#undef X
    KW_N_DIALECTS
} kw_dialect;

const char *kw_dialect_name(kw_dialect d);            /* untranslated */

typedef struct {
    kw_tensors *file;
    const char *path;                     /* of the tensors, where a folder was named */
    kw_dialect dialect;                   /* of most of its keys */
    kw_lora_names names;                  /* whose numbers LDM's names were read with */
    bool names_guessed;                   /* SDXL's, of no published width, without a base: they may be others */
    kw_delta *item;  size_t n;            /* sorted by part, then path */
    const char **unknown;
    size_t n_unknown; /* keys that belong to no layer known here, or make no sense there */
    const kw_tensor **bundled;
    size_t n_bundled; /* bundle_emb.*: embeddings that came along, for who reads those */
} kw_lora_file;

/*
 * A file, or a folder of PEFT or diffusers. names: of the base it is meant for; NULL: as published models have them.
 * KW_EDATA: a layer's tensors do not fit each other, or the method is none of these (then it is named).
 */
KW_MUST kw_status kw_lora_file_open(kw_arena *a, const char *path, const kw_lora_names *names, kw_lora_file **out,
                                    kw_err *e);
KW_MUST kw_status kw_lora_file_of(kw_arena *a, kw_tensors *t, const kw_lora_names *names, kw_lora_file **out,
                                  kw_err *e);
const kw_delta *kw_lora_file_find(const kw_lora_file *f, kw_part p, const char *path);      /* NULL: not there */
/* The width of the text that its cross attention reads: 768 SD 1.x, 1024 SD 2.x, 2048 SDXL; 0: it does not say. */
int64_t kw_lora_file_width(const kw_lora_file *f);
const char *kw_lora_file_family(const kw_lora_file *f);           /* untranslated; NULL: unknown */

/* Rows and columns of the matrix that it is added to, a convolution's kernel (out, in·kh·kw); 0: any. */
void kw_delta_size(const kw_delta *d, int64_t *rows, int64_t *columns);
/* Has it the size of this weight (or bias, when it changes nothing else)? */
bool kw_delta_fits(const kw_delta *d, const kw_tensor *weight);
/*
 * w (rows, columns) becomes what it is with this delta at this strength; w is W, or what deltas before made of it.
 * LoRA, LoHa, LoKr, GLoRA, full, norm: W + s ΔW. DoRA, OFT and weights that are set: as A1111 and LyCORIS have it at
 * s = 1, W + s (W' - W) elsewhere, as A1111. BOFT: each factor between 1 and itself, (IA)^3: 1 + s w, as LyCORIS.
 */
KW_MUST kw_status kw_delta_apply(const kw_delta *d, double strength, float *w, int64_t rows, int64_t columns,
                                 kw_err *e);
bool kw_delta_has_bias(const kw_delta *d);
/* Likewise a bias of n numbers. KW_EDATA: another size. */
KW_MUST kw_status kw_delta_apply_bias(const kw_delta *d, double strength, float *bias, int64_t n, kw_err *e);

/*  name, word  */
#define KW_LORA_FORM_MAP(X) X(KOHYA, "kohya") X(DIFFUSERS, "diffusers") X(PEFT, "peft")
typedef enum {
#define X(name, word) KW_LORA_##name,
    KW_LORA_FORM_MAP(X)
#undef X
} kw_lora_form;

/*
 * The same LoRA in another spelling: kohya's a file; diffusers' a file, or pytorch_lora_weights.safetensors in a
 * folder; PEFT's a folder, with one for each part when there are several. Tensors keep type and bytes. KW_EDATA names
 * what the other form has no words for (diffusers and PEFT: all but LoRA and DoRA along outputs), and keys that mean
 * nothing here.
 */
KW_MUST kw_status kw_lora_convert(kw_arena *a, const kw_lora_file *f, kw_lora_form form, const char *to, kw_err *e);

/* ---- blocks of the U-Net, as A1111's users weigh them ----------------------------------------------------------- */

/* BASE (the text encoders), IN00 ... IN11, M00, OUT00 ... OUT11: LDM's blocks. */
enum { KW_LORA_BLOCKS = 26 };
/* KW_NONE: in none of them (time embedding, first norm ...): no factor applies. names: numbers of the base's blocks. */
int kw_lora_block(const kw_lora_names *names, kw_part part, const char *path);
/*
 * Lists as in A1111's extension, by their length: 26 in the order above; 17 for the blocks that SD 1.x's attention is
 * in (BASE, IN01, 02, 04, 05, 07, 08, M00, OUT03 ... 11); for SDXL 20 (BASE, IN00-08, M00, OUT00-08) and 12 (BASE,
 * IN04, 05, 07, 08, M00, OUT00-05). Or names with factors, the others 1: "IN04=0.5,OUT=0,BASE=0" (IN, OUT: all of
 * them).
 */
KW_MUST kw_status kw_lora_blocks_parse(const char *text, float out[KW_LORA_BLOCKS], kw_err *e);

/* ---- LoRA: y += strength · alpha/r · up(down(x)). Hu et al. 2021 (arXiv:2106.09685) ----------------------------- */

typedef struct {
    int rank, conv_rank;                  /* conv_rank: of 3x3 convolutions; 0: as rank */
    float alpha, conv_alpha;              /* 0: as alpha */
    unsigned targets;
    bool trained;
    int group;                            /* learning-rate group, when trained */
    uint64_t seed;                        /* of the start, when there is no file */
    kw_lora_names names;                  /* in files: kw_lora_names_of(the U-Net's configuration) */
    const char *strength;                 /* name of the input that holds the strength (1, sum type); NULL: 1 */
    bool by_block;                        /* an input for each block, "NAME.14"; outside of blocks NAME alone */
} kw_lora_config;

typedef struct kw_lora kw_lora;
enum { KW_ADAPTERS = 96 };                /* 32 files, three parts each */

/*
 * One part's modules. Without a file every targeted layer gets a branch (down: kaiming uniform, up: zero; PEFT's and
 * kohya's start). With one, in any spelling, exactly the layers it holds get one, with its ranks and alphas.
 */
KW_MUST kw_status kw_lora_new(kw_arena *a, kw_store *s, kw_part part, const kw_lora_config *c, kw_tensors *file,
                              kw_lora **out, kw_err *e);
/*
 * The same over a file in any spelling: the layers of which it holds a plain LoRA (kw_delta_is_branch); the others are
 * for whoever merges. file: lives as long as the LoRA.
 */
KW_MUST kw_status kw_lora_new_over(kw_arena *a, kw_store *s, kw_part part, const kw_lora_config *c,
                                   const kw_lora_file *file, kw_lora **out, kw_err *e);
bool kw_delta_is_branch(const kw_delta *d);
kw_params *kw_lora_params(const kw_lora *l);
kw_part kw_lora_part(const kw_lora *l);

/* After the graph is built: modules that got a branch, and keys of the file for this part that nothing took. */
size_t kw_lora_n_modules(const kw_lora *l);
typedef struct {
    const char *name, *path;              /* kohya's and diffusers' */
    kw_geometry geometry;
    int rank;
    float alpha;
    const kw_param_info *down, *up;
} kw_lora_module;
const kw_lora_module *kw_lora_at(const kw_lora *l, size_t i);
/* Names in a LoRA file that no module of these LoRAs took; NULL after the last. */
const char *kw_lora_unmatched(kw_lora *const *l, int n, const kw_tensors *file, size_t *i);

/* Tensors in kohya's format, F32, in memory of the arena; append to t[*n] (capacity known by kw_lora_n_modules * 3). */
KW_MUST kw_status kw_lora_tensors(kw_arena *a, const kw_lora *l, kw_dtype type, kw_tensor *t, size_t *n, kw_err *e);

/* Values of a file into these modules, the second factors times `strength`. KW_EDATA: the file lacks one or has another
 * size. */
KW_MUST kw_status kw_lora_set(const kw_lora *l, const kw_tensors *file, float strength, kw_err *e);

typedef struct { kw_lora *item[KW_ADAPTERS]; int n; } kw_adapters;
/* Those of one part: two text encoders have layers of the same names. On the arena; NULL: no memory. */
kw_adapters *kw_adapters_of(kw_arena *a, const kw_adapters *all, kw_part part);
kw_val kw_adapters_seam(void *adapters, kw_net *n, kw_geometry geometry, kw_val x, kw_val y);

#endif
