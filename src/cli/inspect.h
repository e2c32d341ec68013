/* inspect.h - what the files of `kiwame inspect` share. A report is a JSON object in the order in which it is shown. */
#ifndef KW_CLI_INSPECT_H
#define KW_CLI_INSPECT_H

#include "cli.h"
#include "io/io.h"

/* Each fills in what the file or folder is. Texts are English: shown texts are translated where they are printed. */
KW_MUST kw_status kw_inspect_base(kw_cli *c, const char *path, bool hashes, json_t *r, kw_err *e);
KW_MUST kw_status kw_inspect_tensors(kw_cli *c, const char *path, json_t *r,
                                     kw_err *e);      /* a LoRA, or anything else */
KW_MUST kw_status kw_inspect_picture(kw_cli *c, const char *path, json_t *r, kw_err *e);

bool kw_is_lora(const kw_tensors *t);
bool kw_is_lora_folder(kw_arena *a, const char *path);

/* {"F16": 686, ...} counts of tensors by type, and the sum of their numbers. */
json_t *kw_inspect_types(const kw_tensor *const *t, size_t n, int64_t *numbers);
json_t *kw_inspect_metadata(const kw_tensors *t);      /* NULL when there is none */
json_t *kw_inspect_text(const char *fmt, ...) KW_PRINTF(1, 2);

void kw_inspect_print(const kw_cli *c, const json_t *r);        /* for people */

#endif
