/*
 * optim.h - how parameters move: learning-rate schedules, optimizers, and the update of everything trained.
 *
 *     kw_updater *u;  KW_TRY(kw_updater_new(arena, trained, &options, &u, e));
 *     ... gradients are accumulated by programs ...
 *     double norm;    KW_TRY(kw_updater_norm(u, workspace, &norm, e));        -- not finite: do not step
 *     KW_TRY(kw_updater_step(u, workspace, &step, e));                        -- also zeroes the gradients
 *
 * Or fused: each parameter moves as soon as its gradient is known, within the backward pass, and no gradient is kept.
 * One batch for each step, then, and a limit of the gradient's norm is one of each tensor.
 *
 *     KW_TRY(kw_updater_backward(u, graph, loss, dloss, e));                  -- instead of kw_trained_backward
 *     kw_updater_feed(u, program, &step);                                     -- before each run; result "squares" after
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

enum { KW_SCALARS = 5, KW_MOMENTS = 4 };               /* rate, decay, 1-beta1^t, 1-beta2^t, clip */

/* A state of an optimizer: one number of `type` for each weight, or for `each` weights that lie together. */
typedef struct { const char *name; kw_dtype type; int each; } kw_moment;

typedef struct {                                       /* one parameter in the graph, or many as a flat range */
    kw_val p, grad, moment[KW_MOMENTS];
    kw_val scalars;                                    /* (KW_SCALARS), a graph input */
    kw_val key;                                        /* (1) I64: by what weights in BF16 are rounded; else KW_NONE */
    int64_t at;                                        /* place of its first number among all trained */
} kw_moving;

typedef struct {
    const char *name, *spelled, *help, *paper;     /* spelled: as kohya does, in the metadata of a LoRA */
    kw_moment moment[KW_MOMENTS];                      /* its states; a name of NULL: fewer */
    int each;                                          /* weights whose moments depend on one another; 0: none do */
    /* new values of p and its moments */
    void (*step)(kw_graph *g, const kw_optim_config *c, const kw_moving *m, kw_val *new_p, kw_val *new_moment);
} kw_optimizer;

extern const kw_optimizer *const kw_optimizers[];      /* from optims.def, ended by NULL */
extern const char kw_optimizer_names[];                /* "|adamw|...": + 1 is a list of choices, in the order of kw_optimizers */
const kw_optimizer *kw_optimizer_find(const char *name);

/* ---- the update ------------------------------------------------------------------------------------------------------ */

typedef struct kw_updater kw_updater;

typedef struct {
    const kw_optimizer *optimizer;
    kw_optim_config config;
    bool average;                                      /* a moving average beside the weights */
    bool fused;                                        /* update within the backward pass; the trained have no gradients */
    uint64_t seed;                                     /* of what rounds weights in BF16 */
} kw_update_options;

typedef struct {
    int64_t step;                                      /* 1 for the first */
    const double *rate, *decay;                        /* by group */
    double clip;                                       /* factor on the gradients; fused: most of each tensor's norm, 0: none */
    double keep;                                       /* of the average, if there is one */
} kw_update;

KW_MUST kw_status kw_updater_new(kw_arena *a, kw_trained *t, const kw_update_options *o, kw_updater **out, kw_err *e);
KW_MUST kw_status kw_updater_norm(kw_updater *u, kw_workspace *w, double *norm, kw_err *e);        /* L2 of all gradients */
KW_MUST kw_status kw_updater_step(kw_updater *u, kw_workspace *w, const kw_update *step, kw_err *e);

/*
 * Emit gradients and updates into a graph with this loss. Result "squares" (F64): of all gradients, before limits. What is
 * not finite moves nothing: a tensor whose gradient is not, all if the loss is not.
 */
KW_MUST kw_status kw_updater_backward(kw_updater *u, kw_graph *g, kw_val loss, kw_val dloss, kw_err *e);
void kw_updater_feed(kw_updater *u, kw_program *p, const kw_update *step);

/* What a checkpoint must hold: the flat states in a fixed order. Returns false past the end. */
bool kw_updater_state(const kw_updater *u, int i, const char **name, int *state);
int kw_updater_average(const kw_updater *u);           /* the state of the moving average, or KW_NONE */
kw_program *kw_updater_program(const kw_updater *u, int i);   /* 0: the norm, 1: the update; else NULL. For looking. */

#endif
