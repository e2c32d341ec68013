/* source_internal.h - a model source from within: parts, entries, and who fills them. */
#ifndef KW_IO_SOURCE_INTERNAL_H
#define KW_IO_SOURCE_INTERNAL_H

#include "internal.h"
#include "keys.h"

typedef struct {
    kw_tensor t;                          /* canonical */
    const kw_tensor *raw;
    kw__how how;                          /* from raw to t */
    bool used, filled;
    const kw_tensor *scale;               /* of f8 numbers; NULL: none */
    const void *from;                     /* where t's numbers lie, if room is not NULL */
    void *room;                           /* t.data: copied (or scaled) there when they are first asked for */
} kw__entry;

typedef struct {
    kw__entry *entries;                   /* sorted by name once complete */
    size_t n, capacity;
    json_t *config;
    const kw_tensors *from;               /* where its tensors were looked for */
    const kw_tensors *file;               /* all of it: also what is no part's; NULL: no weights */
    const char *tokenizer, *shown;        /* shown: the part's file, for messages */
    const char *prefix;                   /* of its names in the file */
    int keys;                             /* their spelling */
    bool inferred;                        /* the configuration is a guess */
    char hash[65];
} kw__part;

typedef struct { const char **texts; size_t n, capacity; } kw__texts;

struct kw_source {
    kw_arena *arena;
    const char *path;
    bool is_single, averages;             /* averages: of a file that has both, model_ema's weights are wanted */
    bool wrapped;                         /* something was taken off the file's names */
    kw__part parts[KW_N_PARTS];
    kw_noise_config noise;
    kw__texts unknown, notes;
    json_t *scheduler;                    /* NULL: none found */
    json_t *index;                        /* model_index.json, as a single file's metadata has it; or NULL */
    json_t *switches;                     /* the same, of a folder too */
    const kw_tensors *chosen;             /* of a single file: what may be a part's, averages in their place */
};

KW_MUST kw_status kw__text_add(kw_arena *a, kw__texts *t, const char *text, kw_err *e);
KW_MUST kw_status kw__note(kw_source *s, kw_err *e, const char *fmt, ...) KW_PRINTF(3, 4);

/* Takes the tensors whose names start with prefix into part p, by the rules k (KW__CANONICAL: as they are). */
KW_MUST kw_status kw__part_take(kw_source *s, kw_part p, int k, const kw_key_shape *shape, const char *prefix,
                                const kw_tensors *t, kw_err *e);
KW_MUST kw_status kw__part_finish(kw_source *s, kw_part p, kw_err *e);
const kw_tensor *kw__part_find(const kw_source *s, kw_part p, const char *name);
kw__entry *kw__part_entry(const kw_source *s, kw_part p, const char *name);
void kw__transpose(char *out, const char *in, size_t rows, size_t columns, size_t size);   /* of in; size: bytes each */

/* Numbers that must be copied before use; see source_fill.c. Prepare: when the entry is complete but for its name. */
KW_MUST kw_status kw__entry_prepare(kw_source *s, kw__part *part, kw__entry *one, const kw_tensors *t, kw_err *e);
void kw__entry_fill(kw__entry *one);
void kw__entry_empty(kw__entry *one);     /* lets the copy go; it can be filled again */
kw__entry *kw__entry_of(const kw_source *s, const kw_tensor *t);  /* whose t that is; NULL: none's */
size_t kw__n_scaled(const kw_source *s);
bool kw__is_scale(const kw_tensors *t, const char *name);        /* a scale or a marker of 8 bit numbers */

KW_MUST kw_status kw__open_folder(kw_source *s, kw_err *e);
KW_MUST kw_status kw__open_single(kw_source *s, const char *path, kw_err *e);
/* The family of a model that is none of ours, by its tensors' names; NULL: not known. */
const char *kw__stranger_name(const kw_tensors *t, bool has_unet);
/* Takes off what programs put before a model's names (prefixes.c), in t itself; each thing is noted. */
KW_MUST kw_status kw__names_clean(kw_source *s, kw_tensors *t, kw_err *e);

const char *kw__published(json_t *unet);  /* the published family with this U-Net's configuration; NULL: none */
KW_MUST kw_status kw__refuse_relatives(const kw_source *s, kw_err *e);
KW_MUST kw_status kw__infer_config(kw_source *s, kw_part p, kw_err *e);
KW_MUST kw_status kw__read_noise(kw_source *s, kw_err *e);

#endif
