/* lora_option.h - LoRA files on a command line: FILE, FILE:STRENGTH, FILE:TEXT:UNET, each with :lbw=... for blocks. */
#ifndef KW_CLI_LORA_OPTION_H
#define KW_CLI_LORA_OPTION_H

#include "adapter/adapter.h"

typedef struct {
    const char *path;                     /* a file, or a folder of PEFT's */
    double te, unet;
    const char *blocks;                   /* as it was written, and read: KW_LORA_BLOCKS factors; NULL: none */
    const float *factors;
} kw_lora_option;

/* Into out, on the arena. KW_EDATA: there is no such file. */
KW_MUST kw_status kw_lora_option_read(kw_arena *a, const char *text, kw_lora_option *out, kw_err *e);
/* A number at the end, behind a colon: cuts it off. */
bool kw_cut_number(char *text, double *v);

#endif
