/*
 * optim.h - how parameters move: learning-rate schedules, optimizers, and the update of everything trained.
 *
 *     kw_updater *u;  KW_TRY(kw_updater_new(arena, trained, &kw_optimizer_adamw, &config, false, &u, e));
 *     ... gradients are accumulated by programs ...
 *     double norm;    KW_TRY(kw_updater_norm(u, workspace, &norm, e));        -- not finite: do not step
 *     KW_TRY(kw_updater_step(u, workspace, step, rates, clip, e));            -- also zeroes the gradients
 *
 * An optimizer is one file: its algebra on graph values, and one line in optims.def.
 */
#ifndef KW_OPTIM_H
#define KW_OPTIM_H

#include "nn/nn.h"

/* ---- learning rate over steps: a factor in 0..1 (transformers' get_*_schedule_with_warmup) --------------------- */

/*  name, text, help  */
#define KW_RATE_MAP(X) \
    X(CONSTANT, "constant", N_("the same rate throughout")) \
    X(COSINE,   "cosine",   N_("falls to zero along half a cosine")) \
    X(LINEAR,   "linear",   N_("falls to zero along a line"))

typedef enum {
#define X(name, text, help) KW_RATE_##name,
    KW_RATE_MAP(X)
#undef X
    KW_N_RATES
} kw_rate_kind;

typedef struct { kw_rate_kind kind; int64_t warmup, total; double floor; } kw_rate;   /* floor: the least factor after warm-up */

double kw_rate_at(const kw_rate *r, int64_t step);     /* step 0 is the first update */

/* ---- optimizers ---------------------------------------------------------------------------------------------------- */

typedef struct { float beta1, beta2, eps; } kw_optim_config;

enum { KW_SCALARS = 5, KW_MOMENTS = 2 };               /* rate, decay, 1-beta1^t, 1-beta2^t, clip */

typedef struct {
    const char *name, *help, *paper;
    const char *moment[KW_MOMENTS];                    /* names of its states; NULL: fewer */
    /* new values of p and its moments; scalars (KW_SCALARS) are a graph input */
    void (*step)(kw_graph *g, const kw_optim_config *c, kw_val p, kw_val grad, const kw_val *moment, kw_val scalars, kw_val *new_p, kw_val *new_moment);
} kw_optimizer;

extern const kw_optimizer *const kw_optimizers[];      /* from optims.def, ended by NULL */
extern const char kw_optimizer_names[];                /* "|adamw|...": + 1 is a list of choices, in the order of kw_optimizers */
const kw_optimizer *kw_optimizer_find(const char *name);

/* ---- the update ------------------------------------------------------------------------------------------------------ */

typedef struct kw_updater kw_updater;

KW_MUST kw_status kw_updater_new(kw_arena *a, kw_trained *t, const kw_optimizer *o, const kw_optim_config *c, bool average, kw_updater **out, kw_err *e);
KW_MUST kw_status kw_updater_norm(kw_updater *u, kw_workspace *w, double *norm, kw_err *e);        /* L2 of all gradients */
/* step: 1 for the first. rate and decay by group; clip: factor on the gradients; keep: of the average, if there is one. */
KW_MUST kw_status kw_updater_step(kw_updater *u, kw_workspace *w, int64_t step, const double *rate, const double *decay, double clip, double keep, kw_err *e);

/* What a checkpoint must hold: the flat states in a fixed order. Returns false past the end. */
bool kw_updater_state(const kw_updater *u, int i, const char **name, int *state);
int kw_updater_average(const kw_updater *u);           /* the state of the moving average, or KW_NONE */
kw_program *kw_updater_program(const kw_updater *u, int i);   /* 0: the norm, 1: the update; else NULL. For looking. */

#endif
