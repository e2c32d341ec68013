/* factors.h - the layers of a LoRA that is being made; internal to merge/. */
#ifndef KW_MERGE_FACTORS_H
#define KW_MERGE_FACTORS_H

#include "merge.h"

typedef struct {
    kw_arena *a;
    kw_made_lora *out;
    kw_lora_names names;
    kw_dtype type;
    int rank;                             /* alpha is this (times a layer's scale), whatever a layer's rank: */
                                          /* diffusers takes one alpha for all attention of a kohya file */
    size_t capacity, layers;              /* room in out->t and out->layer */
    double kept, all;                     /* squared norms so far */
} kw__maker;

/* A layer's shape: of its weight. */
typedef struct { kw_part part; const char *path; int rank; int64_t shape[4]; } kw__place;

KW_MUST kw_status kw__maker_new(kw_arena *a, size_t layers, kw_dtype type, kw_made_lora *out, kw__maker *m, kw_err *e);
/*
 * up (rows, r), down (r, columns): their product is the layer's difference. They are copied as numbers of the wanted
 * type, up (which is changed here) divided by alpha / r, alpha = scale · m->rank.
 */
KW_MUST kw_status kw__maker_add(kw__maker *m, const kw__place *p, int r, double scale, float *up,
                                const float *down, double kept, double all, kw_err *e);
/* The factors of d (rows, columns) by singular values. */
KW_MUST kw_status kw__maker_reduce(kw__maker *m, const kw__place *p, const float *d, double scale,
                                   const kw_rank_want *want, kw_err *e);
KW_MUST kw_status kw__maker_reduce_product(kw__maker *m, const kw__place *p, const float *up, const float *down,
                                           int64_t r, double scale, const kw_rank_want *want, kw_err *e);
void kw__maker_finish(kw__maker *m);
int64_t kw__rows(const kw__place *p);
int64_t kw__columns(const kw__place *p);
bool kw__is_window(const kw__place *p);   /* larger than 1 x 1 */

#endif
