/* sampling.h - inside this layer: the list of steps and the state of a sampling run. */
#ifndef KW_SAMPLING_H
#define KW_SAMPLING_H

#include "diffusion.h"

typedef struct {
    kw_sampler_step *step;                /* (n) */
    int n;
    double scale;                         /* unit noise times this is x at the first step */
    double clip;                          /* x0 is kept within +-clip; 0: free */
    const double *level;  int n_levels;   /* the model's sigmas, to tell timesteps between them */
    int stride, offset;                   /* level[i] is of timestep i * stride + offset; whole where stride > 1 */
    bool diffusers;
} step_list;

/* o->schedule, o->spacing settled; see lists.c for what comes from where. */
kw_status kw_step_list_build(kw_arena *a, const kw_noise *z, const kw_sampling_options *o, step_list *out, kw_err *e);

/*
 * x_0 and eps as linear combinations of x and the network's output y. x = a x_0 + s eps at any scale: with
 * r = sqrt(a^2 + s^2) the network sees x/r and answers for the unit-variance pair a/r, s/r.
 */
typedef struct { struct { double x, y; } x0, eps; } kw_split;
kw_split kw_split_factors(kw_predict p, kw_mix m);

/* The timestep of x = a x_0 + s eps in a list's terms. */
double kw_step_list_t(const step_list *list, kw_mix m);

/* lists_few.c: LCM's and TCD's timesteps, UniPC's as A1111. */
void kw_list_lcm_levels(const kw_noise *z, step_list *list, double *level);
kw_status kw_list_lcm(const kw_noise *z, const kw_sampling_options *o, step_list *list, kw_err *e);
void kw_list_unipc(const kw_noise *z, const kw_sampling_options *o, double *level, step_list *list);

/* An ancestral step from sigma `from` to `to`: down to `down`, then noise of deviation `up`; down^2 + up^2 = to^2. */
typedef struct { double down, up; } kw_ancestral;
kw_ancestral kw_ancestral_of(double from, double to, double eta);

/* Is it the name `known`, in any case, '-', '_' and blank alike; is it in a list with commas? n: length of name. */
bool kw_name_is(const char *name, size_t n, const char *known);
bool kw_name_in(const char *name, size_t n, const char *list);

#endif
