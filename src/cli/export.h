/* export.h - the product of a run, what is known of it, and what each program wants to find. */
#ifndef KW_CLI_EXPORT_H
#define KW_CLI_EXPORT_H

#include "adapter/adapter.h"
#include "cli.h"
#include "io/io.h"
#include "verify.h"

enum { KW_EXPORT_SAMPLES = 8 };

typedef struct { const char *path, *prompt; uint64_t seed; } kw_export_sample;

typedef struct {
    const char *path, *name;              /* the file or folder; what it is to be called */
    bool lora, folder;
    kw_sd_family family;
    const char *words, *title, *base, *base_repo, *base_hash, *hash, *resolution;       /* each may be NULL */
    const char *date, *steps, *rank, *pictures, *rate;
    bool zero_snr;
    int clip_skip, sampling_steps;
    double cfg;
    kw_export_sample sample[KW_EXPORT_SAMPLES];
    size_t n_samples;
} kw_product;

/* What a run (its folder, or one of its files) has made. step: of the file, -1: the last. */
KW_MUST kw_status kw_product_find(kw_cli *c, const char *run, const char *name, kw_product *p, kw_err *e);
/* A sample's PNG with the text that A1111 and Civitai read, the LoRA under its new name. */
KW_MUST kw_status kw_product_sample(kw_cli *c, const kw_product *p, size_t i, kw_str *png, kw_err *e);

/* One file that is to be: either a text, or a copy of `from`. */
typedef struct {
    const char *path, *from;
    char *text;
    size_t n;
    bool model, to_folder, respell;       /* respell: a LoRA in names of the form below */
    int form;                             /* kw_lora_form */
} kw_export_file;
typedef struct {
    kw_cli *cli;
    const kw_product *p;
    const char *dir, *licence;
    double weight;
    kw_lora_form form;                    /* the names that this program reads */
    kw_export_file *file;
    size_t n, capacity;
} kw_export;

/*  word  */
#define KW_EXPORT_MAP(X) X(a1111) X(comfyui) X(diffusers) X(civitai) X(hf)

/* Fill in x->file for one program. (export_targets.c) */
#define X(word) KW_MUST kw_status kw_export_##word(kw_export *x, kw_err *e);
KW_EXPORT_MAP(X)
#undef X

#endif
