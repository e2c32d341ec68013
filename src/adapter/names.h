/* names.h - spellings of layers in LoRA files; internal to adapter/. */
#ifndef KW_ADAPTER_NAMES_H
#define KW_ADAPTER_NAMES_H

#include "adapter.h"

/* Those of the published models, where no base is at hand. */
kw_lora_names kw__names_usual(bool xl);
/* SDXL's, by what the keys of a LoRA show of the blocks (geometry.c); false: they show too little. */
bool kw__names_from_keys(const kw_tensors *t, kw_lora_names *names);
/* The U-Net's layers, without ".weight": diffusers' path to LDM's and back; false: there is none. */
bool kw__ldm_path(const kw_key_shape *shape, const char *path, char ldm[KW_KEY_ROOM]);
bool kw__diffusers_path(const kw_key_shape *shape, const char *ldm, char path[KW_KEY_ROOM]);
/* "down_blocks_0_attentions_1_proj_in" -> "down_blocks.0.attentions.1.proj_in", by the words that paths are made of. */
bool kw__undo_underscores(const char *name, char path[KW_KEY_ROOM]);

#endif
