/* updater.c - one program that moves everything trained, and one that measures the gradient. */
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
    const kw_optimizer *o;
    kw_optim_config c;
    int moment[KW_MOMENTS], average;
    kw_program *update, *norm;
    float (*scalars)[KW_SCALARS];         /* by group */
    float keep;
    char (*name)[24];
};

/* The part of a flat state that belongs to a group, as a state of its own. */
static kw_status slice(kw_updater *u, int flat, int group, int *state, kw_err *e)
{
    const kw_stored *s = kw_store_at(u->t->store, flat);
    char *data = (char *)s->data + (size_t)u->t->group_at[group] * kw_dtype_size(u->t->type);
    return kw_store_add(u->t->store, s->name, KW_SHAPE(u->t->group_count[group]), u->t->type, data, state, e);
}

static kw_status leaf(kw_updater *u, kw_graph *g, int flat, int group, int *state, kw_val *v, kw_err *e)
{
    KW_TRY(slice(u, flat, group, state, e));
    *v = kw_state(g, *state, KW_SHAPE(u->t->group_count[group]), u->t->type);
    return KW_OK;
}

static kw_status emit_group(kw_updater *u, kw_graph *g, int group, kw_val keep, kw_err *e)
{
    int state[3 + KW_MOMENTS];
    kw_val p, grad, moment[KW_MOMENTS] = { 0 }, new_p, new_moment[KW_MOMENTS], average;
    if (!u->t->group_count[group])
        return KW_OK;
    snprintf(u->name[group], sizeof u->name[group], "scalars%d", group);
    kw_val scalars = kw_input(g, u->name[group], KW_SHAPE(KW_SCALARS), KW_F32);
    KW_TRY(leaf(u, g, u->t->values, group, &state[0], &p, e));
    KW_TRY(leaf(u, g, u->t->gradients, group, &state[1], &grad, e));
    for (int i = 0; i < KW_MOMENTS && u->o->moment[i]; i++)
        KW_TRY(leaf(u, g, u->moment[i], group, &state[3 + i], &moment[i], e));
    u->o->step(g, &u->c, p, grad, moment, scalars, &new_p, new_moment);
    kw_bind(g, new_p, state[0]);
    for (int i = 0; i < KW_MOMENTS && u->o->moment[i]; i++)
        kw_bind(g, new_moment[i], state[3 + i]);
    if (u->average < 0)
        return KW_OK;
    KW_TRY(leaf(u, g, u->average, group, &state[2], &average, e));
    kw_bind(g, kw_lerp(g, average, new_p, keep), state[2]);
    return KW_OK;
}

static kw_status build(kw_updater *u, kw_err *e)
{
    kw_graph *g = kw_graph_new(u->arena, KW_F32), *n = kw_graph_new(u->arena, KW_F32);
    if (!g || !n)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_val keep = u->average < 0 ? KW_NONE : kw_input(g, "keep", KW_SHAPE(1), KW_F32);
    for (int group = 0; group < u->t->n_groups; group++)
        KW_TRY(emit_group(u, g, group, keep, e));
    KW_TRY(kw_program_new(u->arena, g, u->t->store, NULL, &u->update, e));
    kw_result(n, "norm", kw_sum_squares(n, kw_state(n, u->t->gradients, KW_SHAPE(u->t->count), u->t->type)));
    return kw_program_new(u->arena, n, u->t->store, NULL, &u->norm, e);
}

kw_status kw_updater_new(kw_arena *a, kw_trained *t, const kw_optimizer *o, const kw_optim_config *c, bool average, kw_updater **out, kw_err *e)
{
    kw_updater *u = kw_alloc(a, sizeof *u);
    if (!u)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *u = (kw_updater){ .arena = a, .t = t, .o = o, .c = *c, .average = KW_NONE };
    u->scalars = kw_alloc_array(a, (size_t)t->n_groups, sizeof *u->scalars);
    u->name = kw_alloc_array(a, (size_t)t->n_groups, sizeof *u->name);
    if (!u->scalars || !u->name)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < KW_MOMENTS && o->moment[i]; i++)
        KW_TRY(kw_trained_range(t, o->moment[i], &u->moment[i], e));
    if (average) {
        KW_TRY(kw_trained_range(t, "average", &u->average, e));
        memcpy(kw_store_write(t->store, u->average), kw_store_at(t->store, t->values)->data, (size_t)t->count * kw_dtype_size(t->type));
    }
    KW_TRY(build(u, e));
    *out = u;
    return KW_OK;
}

kw_status kw_updater_norm(kw_updater *u, kw_workspace *w, double *norm, kw_err *e)
{
    KW_TRY(kw_program_run(u->norm, w, e));
    *norm = sqrt(*(const double *)kw_program_result(u->norm, "norm"));
    return KW_OK;
}

kw_status kw_updater_step(kw_updater *u, kw_workspace *w, int64_t step, const double *rate, const double *decay, double clip, double keep, kw_err *e)
{
    for (int group = 0; group < u->t->n_groups; group++) {
        float *s = u->scalars[group];
        s[0] = (float)rate[group];
        s[1] = (float)decay[group];
        s[2] = (float)(1 - pow((double)u->c.beta1, (double)step));
        s[3] = (float)(1 - pow((double)u->c.beta2, (double)step));
        s[4] = (float)clip;
        kw_program_set(u->update, u->name[group], s);
    }
    u->keep = (float)keep;
    kw_program_set(u->update, "keep", &u->keep);
    KW_TRY(kw_program_run(u->update, w, e));
    memset(kw_store_write(u->t->store, u->t->gradients), 0, (size_t)u->t->count * kw_dtype_size(u->t->type));
    kw_trained_changed(u->t);
    return KW_OK;
}

bool kw_updater_state(const kw_updater *u, int i, const char **name, int *state)
{
    int n = 0;
    const char *names[2 + KW_MOMENTS];
    int states[2 + KW_MOMENTS];
    names[n] = "values", states[n++] = u->t->values;
    for (int k = 0; k < KW_MOMENTS && u->o->moment[k]; k++)
        names[n] = u->o->moment[k], states[n++] = u->moment[k];
    if (u->average >= 0)
        names[n] = "average", states[n++] = u->average;
    if (i >= n)
        return false;
    *name = names[i];
    *state = states[i];
    return true;
}

kw_program *kw_updater_program(const kw_updater *u, int i) { return i == 0 ? u->norm : i == 1 ? u->update : NULL; }
int kw_updater_average(const kw_updater *u) { return u->average; }
