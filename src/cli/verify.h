/* verify.h - which programs read a file: facts about it, and a table of rules over the facts. */
#ifndef KW_CLI_VERIFY_H
#define KW_CLI_VERIFY_H

#include "cli.h"
#include "io/io.h"

/*  name, as people call it  */
#define KW_READER_MAP(X) \
    X(A1111, "A1111") X(FORGE, "Forge") X(COMFYUI, "ComfyUI") X(DIFFUSERS, "diffusers") X(CIVITAI, "Civitai") \
    X(KOHYA, "kohya sd-scripts") X(INVOKEAI, "InvokeAI")

typedef enum {
#define X(name, text) KW_READER_##name,
    KW_READER_MAP(X)
#undef X
    KW_N_READERS
} kw_reader;

const char *kw_reader_name(kw_reader p);

typedef enum { KW_IS_FILE = 1, KW_IS_FOLDER = 2, KW_IS_LORA = 4, KW_IS_EMBEDDING = 8,
               KW_IS_PICTURE = 16 } kw_verify_kind;

typedef enum { KW_SD_UNKNOWN, KW_SD_1, KW_SD_2, KW_SD_XL, KW_SD_OTHER } kw_sd_family;

enum {                                    /* how a LoRA's tensors are spelled */
    KW_KEYS_KOHYA = 1, KW_KEYS_PEFT = 2, KW_KEYS_OLD = 4, KW_KEYS_LOHA = 8, KW_KEYS_LOKR = 16, KW_KEYS_IA3 = 32,
    KW_KEYS_OFT = 64, KW_KEYS_DORA = 128, KW_KEYS_TUCKER = 256, KW_KEYS_DIFF = 512, KW_KEYS_NORM = 1024,
        KW_KEYS_GLORA = 2048,
    KW_KEYS_BUNDLED = 4096, KW_KEYS_UNKNOWN = 8192, KW_KEYS_BARE_PEFT = 16384,
};

typedef struct {
    const char *path, *stem;
    kw_verify_kind kind;
    bool safetensors, pickle;
    kw_sd_family family;
    /* tensor files */
    bool bad_numbers;                     /* NaN or infinity */
    const char *bad_name;                 /* the first such tensor */
    bool plain_stem;                      /* [A-Za-z0-9_.-] only */
    bool breaks_prompt;                   /* ':', '<', '>' or ',' in the stem */
    uint64_t header;                      /* bytes of the safetensors header */
    size_t n_meta;
    /* LoRA */
    unsigned keys;
    size_t n_unknown;
    const char *unknown;                  /* one of them */
    bool reads_text;                      /* has an attn2 to_k, by which InvokeAI knows the base */
    bool conv_proj, has_alpha, scaled;    /* scaled: some alpha is not the rank */
    bool has_base, wrong_base, has_architecture, bad_tags, has_tags, has_trigger, has_hash, wrong_hash, network,
        other_name;
    bool adapter_metadata;
    /* models */
    bool unet, vae, text, standard, v_prediction, v_marker, guessed_prediction, averages, inpainting, fp8, index,
        wrapped;
    /* embeddings */
    size_t vectors;
    bool emb_two, emb_known;
    /* pictures */
    bool has_text, png, jpeg_webp, three_fields, steps_line, hashes, model_hash, known_sampler, bad_lora_tag,
        unhashed_lora, workflow;
    const char *sampler, *lora_tag;
} kw_verify_facts;

KW_MUST kw_status kw_verify_look(kw_cli *c, const char *path, kw_verify_facts *f, kw_err *e);

typedef enum { KW_VERIFY_TELL, KW_VERIFY_WARN, KW_VERIFY_FAIL } kw_verdict;

typedef struct {
    unsigned programs, kinds;             /* bits: 1u << KW_READER_..., KW_IS_... */
    bool (*when)(const kw_verify_facts *f);         /* NULL: always */
    kw_verdict verdict;
    const char *what, *advice;            /* N_(); advice may be NULL */
} kw_verify_rule;

extern const kw_verify_rule kw_verify_rules[];      /* ended by { .programs = 0 } */
bool kw_verify_applies(const kw_verify_rule *r, const kw_verify_facts *f, kw_reader p);
/* Has the program anything to do with such a file at all? */
bool kw_verify_concerns(kw_reader p, kw_verify_kind kind);

#endif
