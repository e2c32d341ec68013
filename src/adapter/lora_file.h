/* lora_file.h - what the files that read LoRAs share; internal to adapter/. */
#ifndef KW_ADAPTER_LORA_FILE_H
#define KW_ADAPTER_LORA_FILE_H

#include "keys.h"

/* lora_meta.c: what PEFT's adapter_config.json or diffusers' metadata say of ranks and alphas. */
typedef struct {
    const json_t *json;                   /* NULL: nothing */
    bool prefixed;                        /* "unet.lora_alpha" instead of "lora_alpha" */
    const char *from;                     /* shown */
} kw_lora_meta;
/* folder: of adapter_config.json, or NULL. KW_EDATA: a method of PEFT's that is not known here, with its name. */
KW_MUST kw_status kw__lora_meta_read(kw_arena *a, const kw_tensors *t, const char *folder, kw_lora_meta *out,
                                     kw_err *e);
/* Where the tensors say nothing of alpha: d->alpha, d->scale. */
KW_MUST kw_status kw__lora_meta_scale(const kw_lora_meta *m, kw_delta *d, kw_err *e);
/* Is it of SDXL's second text encoder? PEFT's keys do not say; its configuration names the class. */
bool kw__lora_meta_is_second(const kw_lora_meta *m);

/* delta.c: do its tensors fit each other? Sets rank, alpha, scale. */
KW_MUST kw_status kw__delta_check(kw_delta *d, const char *shown, kw_err *e);
const kw_tensor *kw__delta_whole(const kw_delta *d);

#endif
