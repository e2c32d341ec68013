/* metadata_internal.h - what the files of metadata share. */
#ifndef KW_TRAIN_METADATA_INTERNAL_H
#define KW_TRAIN_METADATA_INTERNAL_H

#include "metadata.h"

const char *kw__folder_name(const kw_lora_folder *f);             /* the last part of its name */
size_t kw__folder_first(const kw_lora_facts *f, size_t i);        /* the first folder of the same name */
/* {"10_kiwa": {"tag": 18}}; without memory out->failed is set. */
void kw__tag_frequency(kw_arena *a, const kw_lora_facts *f, kw_str *out);

#endif
