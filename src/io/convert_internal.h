/* convert_internal.h - a conversion from within: what each tensor of each new file is made of. */
#ifndef KW_IO_CONVERT_INTERNAL_H
#define KW_IO_CONVERT_INTERNAL_H

#include "convert.h"
#include "source_internal.h"

typedef struct {
    const kw_tensor *from[3];             /* below each other */
    int n;
    bool turned;                          /* transposed on the way */
} kw__origin;

typedef struct {
    kw_converted shown;
    kw_part part;                         /* whose file; KW_N_PARTS: all in one */
    kw_tensor *list;                      /* name, shape and type as written; data unused */
    kw__origin *from;
    size_t n, capacity, from_capacity;
    kw_meta *meta;
    size_t n_meta, meta_capacity;
} kw__new_file;

typedef struct { const char *path, *from, *text; size_t n; } kw__small;      /* from: a file to copy; else the text */

struct kw_conversion {
    kw_arena *arena;
    const kw_source *source;              /* NULL: tensors alone */
    kw_conversion_want want;
    kw__new_file files[KW_N_PARTS];
    size_t n;
    kw__texts left;
    kw__small *small;                     /* configurations, tokenizers: for folders */
    size_t n_small, small_capacity;
    bool scaled;                          /* 8 bit numbers with scales become others */
};

KW_MUST kw_status kw__small_add(kw_conversion *c, const char *path, const char *from, const char *text, size_t n,
                                kw_err *e);
/* The folder's files beside weights; the single file's configuration metadata. */
KW_MUST kw_status kw__convert_folder_files(kw_conversion *c, kw_err *e);
KW_MUST kw_status kw__convert_metadata(kw_conversion *c, kw_err *e);
KW_MUST kw_status kw__meta_add(kw_conversion *c, kw__new_file *f, const char *key, const char *value, kw_err *e);

#endif
