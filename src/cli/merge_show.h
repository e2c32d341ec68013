/* merge_show.h - what merge and extract have to tell, for people and as JSON, and how their LoRAs are saved. */
#ifndef KW_CLI_MERGE_SHOW_H
#define KW_CLI_MERGE_SHOW_H

#include "cli.h"
#include "merge/merge.h"

/* names: of the models, as they were given. */
KW_MUST kw_status kw_merge_show(const kw_merge_report *r, const char *const *names, int n, bool all, kw_err *e);
json_t *kw_merge_report_json(const kw_merge_report *r, const char *const *names, int n);

/* The layers of a LoRA that was made: the parts summed up; all: each layer. */
KW_MUST kw_status kw_made_show(const kw_made_lora *l, bool all, kw_err *e);
json_t *kw_made_json(const kw_made_lora *l);

typedef struct {
    const char *to, *how;                 /* how: JSON, what was done */
    const char *merged_from;              /* NULL: extracted */
    bool xl, v2, v;
} kw_made_about;
/* With kohya's and ModelSpec's metadata. */
KW_MUST kw_status kw_made_save(kw_cli *c, const kw_made_lora *l, const kw_made_about *about, kw_err *e);

/* FILE[:STRENGTH[:UNET]][:lbw=...], as generate takes it. */
KW_MUST kw_status kw_merge_lora_open(kw_cli *c, const char *text, const kw_lora_names *names, kw_merge_lora *out,
                                     kw_err *e);
/* One line of JSON, which is freed. */
KW_MUST kw_status kw_put_json(json_t *j, kw_err *e);
KW_MUST kw_status kw_json_text(kw_arena *a, json_t *j, char **text, kw_err *e);       /* and frees it */

#endif
