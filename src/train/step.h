/* step.h - the graphs of a step; internal to train/. */
#ifndef KW_TRAIN_STEP_H
#define KW_TRAIN_STEP_H

#include "train.h"

typedef struct {
    kw_sd *sd;
    const kw_train_config *c;
    kw_adapters *adapters;                /* NULL: none in this graph */
    kw_predict predict;
    kw_params *heads;                     /* of the align objective, or NULL */
} kw__step;

/* align.c: the heads' parameters, and the objective over text features (N, T, D) and latents. */
kw_params *kw__align_params(kw_arena *a, kw_store *s);
kw_val kw__align_loss(kw_graph *g, kw_params *heads, kw_val text, kw_val latents);

/* Inputs by name: latents noise a b a_target b_target timesteps context|ids pooled sizes image weight. */
KW_MUST kw_status kw__step_loss(kw_graph *g, const kw__step *s, const kw_micro *b, kw_val *loss, kw_err *e);

/* LoRA of the U-Net and the text encoder, as the configuration targets them. trained: in the group of their part. */
KW_MUST kw_status kw__add_adapters(kw_arena *a, kw_sd *sd, const kw_train_config *c, bool trained, kw_adapters *out,
                                   kw_err *e);
int kw__group_of_part(kw_part p);

#endif
