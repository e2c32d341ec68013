/* data_show.h - a folder of pictures as `kiwame data` shows it. */
#ifndef KW_CLI_DATA_SHOW_H
#define KW_CLI_DATA_SHOW_H

#include "cli.h"
#include "data/data.h"

typedef struct {
    kw_dataset *d;
    const char *base;                     /* what would be trained on; NULL: Stable Diffusion 1.x is assumed */
    kw_bucket_rule rule;
    kw_caption_report report;
    int batch;
    uint8_t background[3];                /* below transparent parts */
    int64_t samples, batches;             /* of one epoch */
    bool all;                             /* every entry of every list */
} kw_data_view;

void kw_data_show(const kw_cli *c, const kw_data_view *v);
void kw_data_show_remarks(const kw_cli *c, const kw_data_view *v);
void kw_data_print_json(const kw_data_view *v);

#endif
