/* sampling.h - inside this layer: the list of steps and the state of a sampling run. */
#ifndef KW_SAMPLING_H
#define KW_SAMPLING_H

#include "diffusion.h"

typedef struct {
    kw_sampler_step *step;                /* (n) */
    int n;
    double scale;                         /* unit noise times this is x at the first step */
    double clip;                          /* x0 is kept within +-clip; 0: free */
} step_list;

/* o->schedule, o->spacing resolved; see lists.c for what comes from where. */
kw_status kw_step_list_build(kw_arena *a, const kw_noise *z, const kw_sampling_options *o, step_list *out, kw_err *e);

/*
 * x_0 and eps as linear combinations of x and the network's output y. x = a x_0 + s eps at any scale: with
 * r = sqrt(a^2 + s^2) the network sees x/r and answers for the unit-variance pair a/r, s/r.
 */
typedef struct { struct { double x, y; } x0, eps; } kw_split;
kw_split kw_split_factors(kw_predict p, kw_mix m);

#endif
