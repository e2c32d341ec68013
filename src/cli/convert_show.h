/* convert_show.h - a planned conversion, for people and as JSON. */
#ifndef KW_CLI_CONVERT_SHOW_H
#define KW_CLI_CONVERT_SHOW_H

#include "cli.h"
#include "io/io.h"

/* s: NULL where the source is no model but some tensors. */
KW_MUST kw_status kw_convert_show(const kw_cli *c, const kw_source *s, const kw_conversion *v, const char *from,
                                  const char *to, kw_err *e);
KW_MUST kw_status kw_convert_json(const kw_source *s, const kw_conversion *v, const char *from, const char *to,
                                  bool written, kw_err *e);

/* cmd_convert.c: the tokenizer that goes along, where it is not CLIP's: as extra files of a folder, or as metadata. */
KW_MUST kw_status kw_convert_tokenizer(kw_cli *c, kw_source *s, kw_conversion_want *want, kw_err *e);

/* convert_lora.c; base: whose blocks have what numbers, or NULL; names: a kw_lora_form. */
KW_MUST kw_status kw_convert_lora(kw_cli *c, const char *from, const char *to, const char *base, int names,
                                  bool overwrite, bool plan, kw_err *e);

#endif
