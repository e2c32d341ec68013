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

#include "model/model.h"

/*  bit, name, help  -  which layers are adapted; the sets are kohya's  */
#define KW_TARGET_MAP(X) \
    X(ATTENTION, "attention", N_("queries, keys, values and outputs of every attention of the U-Net")) \
    X(FF,        "ff",        N_("feed-forward layers and the projections in and out of each transformer")) \
    X(CONV,      "conv",      N_("convolutions of the residual blocks, down- and upsampling, and their time projections")) \
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
} kw_lora_config;

typedef struct kw_lora kw_lora;

/*
 * One part's modules. Without a file every targeted layer gets a branch (down: kaiming uniform, up: zero; PEFT's and
 * kohya's start). With one, exactly the layers it holds get one, with its ranks and alphas.
 */
KW_MUST kw_status kw_lora_new(kw_arena *a, kw_store *s, kw_part part, const kw_lora_config *c, kw_tensors *file, kw_lora **out, kw_err *e);
kw_params *kw_lora_params(const kw_lora *l);

/* After the graph is built: modules that got a branch, and keys of the file for this part that nothing took. */
size_t kw_lora_n_modules(const kw_lora *l);
typedef struct { const char *name; kw_geometry geometry; int rank; float alpha; const kw_param_info *down, *up; } kw_lora_module;
const kw_lora_module *kw_lora_at(const kw_lora *l, size_t i);
/* Names in a LoRA file that no module of these LoRAs took; NULL after the last. */
const char *kw_lora_unmatched(kw_lora *const *l, int n, const kw_tensors *file, size_t *i);

/* Tensors in kohya's format, F32, in memory of the arena; append to t[*n] (capacity known by kw_lora_n_modules * 3). */
KW_MUST kw_status kw_lora_tensors(kw_arena *a, const kw_lora *l, kw_dtype type, kw_tensor *t, size_t *n, kw_err *e);

/* Values of a file into these modules, the second factors times `strength`. KW_EDATA: the file lacks one or has another size. */
KW_MUST kw_status kw_lora_set(const kw_lora *l, const kw_tensors *file, float strength, kw_err *e);

typedef struct { kw_lora *item[16]; int n; } kw_adapters;
kw_val kw_adapters_seam(void *adapters, kw_net *n, kw_geometry geometry, kw_val x, kw_val y);

#endif
