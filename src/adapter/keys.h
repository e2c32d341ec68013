/* keys.h - one key of a LoRA file: which layer, and which of its tensors; internal to adapter/. */
#ifndef KW_ADAPTER_KEYS_H
#define KW_ADAPTER_KEYS_H

#include "names.h"

typedef struct {
    kw_role role;
    kw_part part;
    bool guessed;                         /* the spelling does not say which text encoder */
    kw_dialect dialect;
    size_t module;                        /* the key's first so many bytes name the layer */
    char path[KW_KEY_ROOM];
} kw__key;

/* false: it means nothing to us. */
bool kw__key_read(const char *key, const kw_lora_names *names, kw__key *out);
/* Do keys speak of SDXL? */
bool kw__key_is_xl(const char *key);

#endif
