/*
 * updater.c - how everything trained moves: by one program after the gradients, with another that measures them; or by
 * nodes within the backward pass.
 */
#include "optim.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define KW_OPTIMIZER(name) extern const kw_optimizer kw_optimizer_##name;
#include "optims.def"
#undef KW_OPTIMIZER

const kw_optimizer *const kw_optimizers[] = {
#define KW_OPTIMIZER(name) &kw_optimizer_##name,
#include "optims.def"
#undef KW_OPTIMIZER
    NULL
};

const char kw_optimizer_names[] =
#define KW_OPTIMIZER(name) "|" #name
#include "optims.def"
#undef KW_OPTIMIZER
    ;

const kw_optimizer *kw_optimizer_find(const char *name)
{
    for (int i = 0; kw_optimizers[i]; i++)
        if (!strcmp(kw_optimizers[i]->name, name))
            return kw_optimizers[i];
    return NULL;
}

struct kw_updater {
    kw_arena *arena;
    kw_trained *t;
    kw_update_options o;
    int moment[KW_MOMENTS], average;      /* flat ranges */
    int (*of)[KW_MOMENTS], *average_of;   /* by parameter: its slices of them */
    bool apart;                           /* each parameter has nodes of its own, else each group */
    kw_program *update, *norm;
    float (*scalars)[KW_SCALARS];         /* by group */
    float keep;
    int64_t key;
    char (*name)[24];
};

static int n_moments(const kw_updater *u)
{
    int n = 0;
    while (n < KW_MOMENTS && u->o.optimizer->moment[n].name)
        n++;
    return n;
}

/* ---- the nodes --------------------------------------------------------------------------------------------------- */

typedef struct { int p, average, moment[KW_MOMENTS]; } places;

static kw_val state_leaf(kw_updater *u, kw_graph *g, int state)
{
    const kw_stored *s = kw_store_at(u->t->store, state);
    return kw_state(g, state, s->shape, s->dtype);
}

static kw_val scalars_of(kw_updater *u, kw_graph *g, int group)
{
    for (size_t i = 0; i < g->n_nodes; i++)            /* one input for all parameters of a group */
        if (g->node[i].op == &kw_op_input && g->value[g->node[i].out[0]].name == u->name[group])
            return g->node[i].out[0];
    return kw_input(g, u->name[group], KW_SHAPE(KW_SCALARS), KW_F32);
}

static kw_val shared_input(kw_graph *g, const char *name, kw_dtype t)
{
    for (size_t i = 0; i < g->n_nodes; i++) {
        const char *has = g->node[i].op == &kw_op_input ? g->value[g->node[i].out[0]].name : NULL;
        if (has && !strcmp(has, name))
            return g->node[i].out[0];
    }
    return kw_input(g, name, KW_SHAPE(1), t);
}

static void emit(kw_updater *u, kw_graph *g, const places *s, kw_val grad, kw_val scalars, int64_t at)
{
    kw_val new_p, new_moment[KW_MOMENTS];
    kw_moving m = { .p = state_leaf(u, g, s->p), .grad = grad, .scalars = scalars, .key = KW_NONE, .at = at };
    for (int i = 0; i < n_moments(u); i++)
        m.moment[i] = state_leaf(u, g, s->moment[i]);
    if (kw_dtype_of(g, m.p) == KW_BF16)
        m.key = shared_input(g, "key", KW_I64);
    u->o.optimizer->step(g, &u->o.config, &m, &new_p, new_moment);
    kw_bind(g, new_p, s->p);
    for (int i = 0; i < n_moments(u); i++)
        kw_bind(g, new_moment[i], s->moment[i]);
    if (u->average >= 0)
        kw_bind(g, kw_lerp(g, state_leaf(u, g, s->average), kw_cast(g, new_p, KW_F32), shared_input(g, "keep", KW_F32)),
                s->average);
}

static void emit_one(kw_updater *u, kw_graph *g, size_t i, kw_val grad, kw_val scalars)
{
    places s = { .p = u->t->param[i]->state, .average = u->average < 0 ? KW_NONE : u->average_of[i] };
    memcpy(s.moment, u->of[i], sizeof s.moment);
    emit(u, g, &s, grad, scalars, u->t->param[i]->at);
}

/* ---- by groups: one node over a flat range, where numbers do not depend on their neighbours ----------------------- */

static kw_status slice(kw_updater *u, int flat, int group, int *state, kw_err *e)
{
    const kw_stored *s = kw_store_at(u->t->store, flat);
    char *data = (char *)s->data + (size_t)u->t->group_at[group] * kw_dtype_size(s->dtype);
    return kw_store_add(u->t->store, s->name, KW_SHAPE(u->t->group_count[group]), s->dtype, data, state, e);
}

static kw_status emit_group(kw_updater *u, kw_graph *g, int group, kw_err *e)
{
    places s = { .average = KW_NONE };
    int grad;
    KW_TRY(slice(u, u->t->values, group, &s.p, e));
    KW_TRY(slice(u, u->t->gradients, group, &grad, e));
    for (int i = 0; i < n_moments(u); i++)
        KW_TRY(slice(u, u->moment[i], group, &s.moment[i], e));
    if (u->average >= 0)
        KW_TRY(slice(u, u->average, group, &s.average, e));
    emit(u, g, &s, state_leaf(u, g, grad), scalars_of(u, g, group), u->t->group_at[group]);
    return KW_OK;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static kw_status slices(kw_updater *u, kw_err *e)
{
    u->of = kw_alloc_array(u->arena, u->t->n, sizeof *u->of);
    u->average_of = kw_alloc_array(u->arena, u->t->n, sizeof *u->average_of);
    if (!u->of || !u->average_of)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < u->t->n; i++) {
        for (int k = 0; k < n_moments(u); k++)
            KW_TRY(kw_trained_slice(u->t, u->moment[k], u->o.optimizer->moment[k].each, i, &u->of[i][k], e));
        if (u->average >= 0)
            KW_TRY(kw_trained_slice(u->t, u->average, 1, i, &u->average_of[i], e));
    }
    return KW_OK;
}

static kw_status build(kw_updater *u, kw_err *e)
{
    kw_graph *g = kw_graph_new(u->arena, KW_F32), *n = kw_graph_new(u->arena, KW_F32);
    if (!g || !n)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; u->apart && i < u->t->n; i++)
        emit_one(u, g, i, state_leaf(u, g, u->t->gradient[i]), scalars_of(u, g, u->t->param[i]->group));
    for (int group = 0; !u->apart && group < u->t->n_groups; group++)
        if (u->t->group_count[group])
            KW_TRY(emit_group(u, g, group, e));
    KW_TRY(kw_program_new(u->arena, g, u->t->store, NULL, &u->update, e));
    kw_result(n, "norm", kw_sum_squares(n, kw_state(n, u->t->gradients, KW_SHAPE(u->t->count), u->t->type)));
    return kw_program_new(u->arena, n, u->t->store, NULL, &u->norm, e);
}

static kw_status make_average(kw_updater *u, kw_err *e)
{
    kw_trained *t = u->t;
    KW_TRY(kw_trained_range(t, "average", KW_F32, 1, &u->average, e));
    float *to = kw_store_write(t->store, u->average);
    for (size_t i = 0; i < t->n; i++) {
        const kw_stored *s = kw_store_at(t->store, t->param[i]->state);
        kw_convert(KW_F32, to + t->param[i]->at, s->dtype, s->data, (size_t)kw_count(s->shape));
    }
    return KW_OK;
}

kw_status kw_updater_new(kw_arena *a, kw_trained *t, const kw_update_options *o, kw_updater **out, kw_err *e)
{
    kw_updater *u = kw_alloc(a, sizeof *u);
    if (!u)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *u = (kw_updater){ .arena = a, .t = t, .o = *o, .average = KW_NONE,
                       .apart = o->fused || o->optimizer->each || t->narrow >= 0 };
    u->scalars = kw_alloc_array(a, (size_t)t->n_groups, sizeof *u->scalars);
    u->name = kw_alloc_array(a, (size_t)t->n_groups, sizeof *u->name);
    if (!u->scalars || !u->name)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int group = 0; group < t->n_groups; group++)
        snprintf(u->name[group], sizeof u->name[group], "scalars%d", group);
    for (int i = 0; i < n_moments(u); i++) {
        const kw_moment *m = &o->optimizer->moment[i];
        KW_TRY(kw_trained_range(t, m->name, m->type, m->each, &u->moment[i], e));
    }
    if (o->average)
        KW_TRY(make_average(u, e));
    if (u->apart)
        KW_TRY(slices(u, e));
    if (!o->fused)
        KW_TRY(build(u, e));
    *out = u;
    return KW_OK;
}

/* ---- within the backward pass ------------------------------------------------------------------------------------ */

typedef struct { kw_updater *u; kw_val loss, squares; } fused;

static kw_status move(void *ctx, kw_graph *g, int i, kw_val grad, kw_err *e)
{
    fused *f = ctx;
    kw_val squares = kw_sum_squares(g, grad);
    f->squares = f->squares < 0 ? squares : kw_add(g, f->squares, squares);
    emit_one(f->u, g, (size_t)i, grad, kw_limit(g, scalars_of(f->u, g, f->u->t->param[i]->group), squares, f->loss));
    if (g->err.status && e)
        *e = g->err;
    return g->err.status;
}

kw_status kw_updater_backward(kw_updater *u, kw_graph *g, kw_val loss, kw_val dloss, kw_err *e)
{
    fused f = { u, loss, KW_NONE };
    KW_TRY(kw_trained_backward_each(u->t, g, loss, dloss, move, &f, e));
    if (f.squares < 0)
        return kw_fail(e, KW_EUSAGE, "nothing is trained: the loss depends on no trained parameter");
    kw_result(g, "squares", f.squares);
    return g->err.status;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

kw_status kw_updater_norm(kw_updater *u, kw_workspace *w, double *norm, kw_err *e)
{
    KW_TRY(kw_program_run(u->norm, w, e));
    *norm = sqrt(*(const double *)kw_program_result(u->norm, "norm"));
    return KW_OK;
}

void kw_updater_feed(kw_updater *u, kw_program *p, const kw_update *step)
{
    const kw_rng r = { .seed = u->o.seed, .stream = KW_RNG_ROUND, .step = (uint32_t)step->step };
    for (int group = 0; group < u->t->n_groups; group++) {
        float *s = u->scalars[group];
        s[0] = (float)step->rate[group];
        s[1] = (float)step->decay[group];
        s[2] = (float)(1 - pow((double)u->o.config.beta1, (double)step->step));
        s[3] = (float)(1 - pow((double)u->o.config.beta2, (double)step->step));
        s[4] = (float)step->clip;
        kw_program_set(p, u->name[group], s);
    }
    u->keep = (float)step->keep;
    u->key = (int64_t)kw_rng_u64(r, 0);
    kw_program_set(p, "keep", &u->keep);
    kw_program_set(p, "key", &u->key);
}

kw_status kw_updater_step(kw_updater *u, kw_workspace *w, const kw_update *step, kw_err *e)
{
    kw_updater_feed(u, u->update, step);
    KW_TRY(kw_program_run(u->update, w, e));
    memset(kw_store_write(u->t->store, u->t->gradients), 0, (size_t)u->t->count * kw_dtype_size(u->t->type));
    kw_trained_changed(u->t);
    return KW_OK;
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

bool kw_updater_state(const kw_updater *u, int i, const char **name, int *state)
{
    int n = 0;
    const char *names[3 + KW_MOMENTS];
    int ids[3 + KW_MOMENTS];
    if (u->t->values >= 0)
        names[n] = "values", ids[n++] = u->t->values;
    if (u->t->narrow >= 0)
        names[n] = "narrow", ids[n++] = u->t->narrow;
    for (int k = 0; k < n_moments(u); k++)
        names[n] = u->o.optimizer->moment[k].name, ids[n++] = u->moment[k];
    if (u->average >= 0)
        names[n] = "average", ids[n++] = u->average;
    if (i >= n)
        return false;
    *name = names[i];
    *state = ids[i];
    return true;
}

kw_program *kw_updater_program(const kw_updater *u, int i) { return i == 0 ? u->norm : i == 1 ? u->update : NULL; }
int kw_updater_average(const kw_updater *u) { return u->average; }
