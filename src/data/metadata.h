/* metadata.h - lines of metadata.jsonl, found by picture. */
#ifndef KW_DATA_METADATA_H
#define KW_DATA_METADATA_H

#include "internal.h"

typedef struct {
    const char *name;                     /* of the picture, relative to the root, NFC */
    const char *file, *shown;             /* metadata file; "file:line" */
    const char **lines;                   /* the caption: 0 or 1 of them */
    size_t n_lines, order;
    bool used;
} kw_metadata_line;

typedef struct { kw_metadata_line *list; size_t n, capacity; } kw_metadata;      /* sorted by name, then by place */

KW_MUST kw_status kw__metadata_read(kw_dataset *d, const kw_founds *files, kw_metadata *m, kw_err *e);
kw_metadata_line *kw__metadata_find(const kw_metadata *m, const char *name);     /* the first of that name, or NULL */

#endif
