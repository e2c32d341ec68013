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

/* Inputs by name: latents noise a b a_target b_target timesteps context|ids image weight. Returns the loss. */
/* align.c: the heads' parameters, and the objective over text features (N, T, D) and latents. */
kw_params *kw__align_params(kw_arena *a, kw_store *s);
kw_val kw__align_loss(kw_graph *g, kw_params *heads, kw_val text, kw_val latents);

kw_val kw__step_loss(kw_graph *g, const kw__step *s, const kw_micro *b);

#endif
