/* models.h - models side by side, in pieces; internal to merge/. */
#ifndef KW_MERGE_MODELS_H
#define KW_MERGE_MODELS_H

#include "merge.h"

enum { KW__PIECE = 2048 };

struct kw_merge {
    kw_arena *arena;
    kw_merge_recipe r;
    kw_unet_config unet;                  /* all zero: there is none */
    kw_lora_names names;
    bool part[KW_N_PARTS];                /* merged: all have it */
    float threshold[KW_MERGE_MODELS];
    size_t passed;
    uint64_t numbers;
    int channels;                         /* of the first convolution, that take part; 0: all */
    const kw_tensor *narrow[KW_MERGE_MODELS + 1];         /* ... of models that have more */
};

/* One tensor in all models: t[i], i < n; t[n]: the base's, or NULL. */
typedef struct { int n; kw_part part; const kw_tensor *t[KW_MERGE_MODELS + 1]; int64_t count; } kw__column;
typedef float kw__pieces[KW_MERGE_MODELS + 1][KW__PIECE];

void kw__column_of(const kw_merge *m, kw_part p, const kw_tensor *first, kw__column *out);
/* Numbers at ... at + k of each as f32; x[n]: of the base, zeros where there is none. */
void kw__column_load(const kw__column *c, int64_t at, int64_t k, kw__pieces x);
/* Pages of models from ... n; from 1: the writer lets the first's go. */
void kw__column_drop(const kw__column *c, int from);
bool kw__is_float(kw_dtype t);
static inline int64_t kw__n_pieces(int64_t n) { return (n + KW__PIECE - 1) / KW__PIECE; }

/*
 * channels.c. fit: x of the first model and y of s differ in the inputs of the first convolution alone, and x has more.
 * read: what takes part of it. narrow: of a column that is it. combine: in place of kw__combine where channels stay.
 */
KW_MUST kw_status kw__channels_fit(const kw_merge *m, kw_source *s, kw_part p, const kw_tensor *x, const kw_tensor *y,
                                   bool *fit, kw_err *e);
KW_MUST kw_status kw__channels_read(kw_merge *m, kw_err *e);
void kw__channels_narrow(const kw_merge *m, kw__column *c);
KW_MUST kw_status kw__channels_combine(const kw_merge *m, const kw__column *c, const kw_tensor *t, float *room,
                                       kw_err *e);

/* combine.c: the merged numbers of a column. name: for DARE's chance. */
KW_MUST kw_status kw__combine(const kw_merge *m, const kw__column *c, const char *name, float *out, kw_err *e);

#endif
