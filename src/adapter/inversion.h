/*
 * inversion.h - textual inversion (Gal et al. 2022, arXiv:2208.01618): vectors that stand for a word, in every form
 * that files have them in.
 *
 *   A1111 .pt            string_to_param.* (n, d)             SD 1.x 768, SD 2.x 1024
 *   kohya and others     emb_params (n, d), or any single tensor
 *   SDXL                 clip_l (n, 768), clip_g (n, 1280)    (clip_l_out, clip_g_out of OneTrainer are not read)
 *   diffusers            {"<placeholder>": (d) or (n, d)}     SDXL: a second file, learned_embeds_2.safetensors
 *   in a LoRA file       bundle_emb.NAME.string_to_param.* or .clip_l, .clip_g
 *   in a PNG             text chunk sd-ti-embedding: base64 of JSON
 */
#ifndef KW_ADAPTER_INVERSION_H
#define KW_ADAPTER_INVERSION_H

#include "io/io.h"

typedef struct {
    const char *name;                     /* the file's, without its ending; of a bundled one its own */
    const char *placeholder;              /* the name a diffusers file gives it, or NULL */
    struct { const float *vectors; int n, width; } part[2];       /* of each text encoder, in that order */
    int n_parts;
} kw_inversion;

/* Everything on the arena. KW_EDATA: the file holds none, or numbers that are not finite. */
KW_MUST kw_status kw_inversion_read(kw_arena *a, const char *path, kw_inversion *out, kw_err *e);
/* The i-th of those a LoRA file brings along; *found false: there are no more. */
KW_MUST kw_status kw_inversion_bundled(kw_arena *a, const kw_tensors *file, size_t i, kw_inversion *out, bool *found,
                                       kw_err *e);
bool kw_inversion_key(const char *name);  /* is this tensor of a LoRA file a bundled one's? */

#endif
