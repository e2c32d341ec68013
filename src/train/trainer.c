/* trainer.c - the programs of training, by shape of batch, and one optimizer step. */
#include "step.h"

#include <math.h>
#include <string.h>

typedef struct { int n, h, w, tokens; bool ids, image, noise, learn, base; } shape_key;
typedef struct { shape_key key; kw_program *p; kw_arena *arena; uint64_t used; } entry;

struct kw_trainer {
    kw_arena *arena;
    kw_train_config c;
    kw_store *store;
    kw_sd *sd;
    kw_noise *z;
    kw_adapters adapters;
    kw_params *heads;
    kw_trained *trained;
    kw_updater *updater;
    kw_workspace *w;
    entry entries[32];
    uint64_t clock;
    int64_t steps;
};

/* ---- making --------------------------------------------------------------------------------------------------- */

static int select_full(void *config, kw_part p, const char *name)
{
    const kw_train_config *c = config;
    (void)name;
    return !c->lora && (c->parts & 1u << p) ? kw__group_of_part(p) : KW_NONE;
}

static void release_programs(void *trainer)
{
    kw_trainer *t = trainer;
    for (size_t i = 0; i < KW_LEN(t->entries); i++)
        kw_arena_free(t->entries[i].arena);
}

kw_status kw_trainer_new(kw_arena *a, const char *base, const char *vae, const kw_train_config *c, kw_trainer **out,
                         kw_err *e)
{
    kw_source *source, *vae_source = NULL;
    KW_TRY(kw_source_open(a, base, &source, e));
    if (vae)
        KW_TRY(kw_source_open(a, vae, &vae_source, e));
    return kw_trainer_over(a, source, vae_source, c, out, e);
}

kw_status kw_trainer_over(kw_arena *a, kw_source *base, kw_source *vae, const kw_train_config *c, kw_trainer **out,
                          kw_err *e)
{
    kw_trainer *t = kw_alloc(a, sizeof *t);
    kw_noise_spec spec;
    if (!t || kw_defer(a, release_programs, t))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    t->arena = a;
    t->c = *c;
    t->store = kw_store_new(a);
    t->w = kw_workspace_new(a);
    if (!t->store || !t->w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_sd_over(a, base, vae, t->store, c->lora ? KW_F32 : c->trained, select_full, &t->c, &t->sd, e));
    if (c->int8)
        kw_sd_int8(t->sd);
    KW_TRY(kw_noise_spec_of(kw_source_noise(t->sd->source), &spec, e));
    KW_TRY(kw_noise_build(a, &spec, &t->z, e));
    KW_TRY(kw__add_adapters(a, t->sd, &t->c, true, &t->adapters, e));
    if (t->c.align && !(t->heads = kw__align_params(a, t->store)))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *out = t;
    return KW_OK;
}

const kw_sd *kw_trainer_base(const kw_trainer *t) { return t->sd; }
const kw_noise *kw_trainer_noise(const kw_trainer *t) { return t->z; }
const kw_trained *kw_trainer_trained(const kw_trainer *t) { return t->trained; }
kw_updater *kw_trainer_updater(const kw_trainer *t) { return t->updater; }
kw_workspace *kw_trainer_workspace(const kw_trainer *t) { return t->w; }
const kw_adapters *kw_trainer_adapters(const kw_trainer *t) { return &t->adapters; }
int64_t kw_trainer_steps(const kw_trainer *t) { return t->steps; }
void kw_trainer_schedule(kw_trainer *t, const kw_rate *schedule) { t->c.schedule = *schedule; }
void kw_trainer_set_steps(kw_trainer *t, int64_t steps) { t->steps = steps; }

/* ---- programs ---------------------------------------------------------------------------------------------------- */

static shape_key key_of(const kw_micro *b, bool learn, bool base)
{
    shape_key k;
    memset(&k, 0, sizeof k);
    k.n = b->n, k.h = b->h, k.w = b->w, k.tokens = b->tokens;
    k.ids = b->ids != NULL, k.image = b->image != NULL, k.noise = b->noise != NULL;
    k.learn = learn, k.base = base;
    return k;
}

/* Everything trained is known once the first graph is built: then it moves into flat ranges. */
static kw_status gather(kw_trainer *t, const kw_graph *g, kw_val loss, kw_err *e)
{
    kw_params *sets[KW_N_PARTS + 16];
    int n = 0;
    if (t->trained)
        return KW_OK;
    for (int p = 0; p < KW_N_PARTS; p++)
        sets[n++] = t->sd->params[p];
    for (int i = 0; i < t->adapters.n; i++)
        sets[n++] = kw_lora_params(t->adapters.item[i]);
    if (t->heads)
        sets[n++] = t->heads;
    const kw_trained_options o = { .gradients = !t->c.fused, .each = t->c.optimizer->each, .passing = !t->c.lora,
                                   .graph = g, .loss = loss };
    const kw_update_options u = { .optimizer = t->c.optimizer, .config = t->c.optim, .average = t->c.average > 0,
                                  .fused = t->c.fused, .seed = t->c.seed };
    KW_TRY(kw_trained_new(t->arena, sets, n, KW_N_GROUPS, &o, &t->trained, e));
    return kw_updater_new(t->arena, t->trained, &u, &t->updater, e);
}

static kw_status build(kw_trainer *t, entry *en, const kw_micro *b, kw_err *e)
{
    kw__step s = { t->sd, &t->c, en->key.base ? NULL : &t->adapters, t->z->spec.predict, t->heads };
    kw_graph *g = kw_graph_new(en->arena, t->c.compute);
    kw_val loss = KW_NONE;
    if (!g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw__step_loss(g, &s, b, &loss, e));
    kw_result(g, "loss", loss);
    if (en->key.learn) {
        kw_val dloss = kw_input(g, "dloss", KW_SHAPE(1), KW_F32);
        KW_TRY(gather(t, g, loss, e));
        KW_TRY(t->c.fused ? kw_updater_backward(t->updater, g, loss, dloss, e)
                          : kw_trained_backward(t->trained, g, loss, dloss, e));
    }
    return kw_program_new(en->arena, g, t->store, &t->c.run, &en->p, e);
}

/* The program for a shape; the one unused for longest gives way. */
static kw_status program_for(kw_trainer *t, const kw_micro *b, bool learn, bool base, kw_program **p, kw_err *e)
{
    shape_key key = key_of(b, learn, base);
    entry *oldest = &t->entries[0];
    for (size_t i = 0; i < KW_LEN(t->entries); i++) {
        entry *en = &t->entries[i];
        if (en->p && !memcmp(&en->key, &key, sizeof key)) {
            en->used = ++t->clock;
            *p = en->p;
            return KW_OK;
        }
        if (en->used < oldest->used)
            oldest = en;
    }
    kw_arena_free(oldest->arena);
    *oldest = (entry){ .key = key, .arena = kw_arena_new(), .used = ++t->clock };
    if (!oldest->arena)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_status s = build(t, oldest, b, e);
    *p = oldest->p;
    if (s)
        oldest->p = NULL;
    return s;
}

kw_status kw_trainer_prepare(kw_trainer *t, const kw_micro *b, kw_err *e)
{
    kw_program *p;
    return program_for(t, b, true, false, &p, e);
}

kw_status kw_trainer_forecast(kw_trainer *t, const kw_micro *b, kw_trainer_cost *out, kw_err *e)
{
    kw_program *p, *update;
    KW_TRY(program_for(t, b, true, false, &p, e));
    *out = (kw_trainer_cost){ .bytes = kw_forecast_bytes(p), .flops = kw_program_flops(p), .work = kw_forecast_work(p),
                              .forward = kw_forecast_forward(p) };
    for (int i = 0; (update = kw_updater_program(t->updater, i)); i++)
        out->update += kw_forecast_work(update);
    out->states = t->trained->seconds;
    for (int part = 0; part < KW_N_PARTS; part++)
        if (t->sd->params[part])
            out->states += kw_params_seconds(t->sd->params[part]);
    for (int i = 0; i < t->adapters.n; i++)
        out->states += kw_params_seconds(kw_lora_params(t->adapters.item[i]));
    return KW_OK;
}

kw_program *kw_trainer_program(const kw_trainer *t, int i)
{
    for (size_t k = 0; k < KW_LEN(t->entries); k++)
        if (t->entries[k].p && !i--)
            return t->entries[k].p;
    return t->updater ? kw_updater_program(t->updater, i) : NULL;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

typedef struct { float *a, *b, *at, *bt, *t, *weight; } coefficients;

/* x_t and target as combinations of x_0 and eps, and the weight of each sample's loss. */
static kw_status coefficients_of(kw_trainer *t, kw_arena *a, const kw_micro *b, coefficients *c, kw_err *e)
{
    float *all = kw_alloc_array(a, (size_t)b->n * 6, sizeof *all);
    if (!all)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *c = (coefficients){ all, all + b->n, all + 2 * b->n, all + 3 * b->n, all + 4 * b->n, all + 5 * b->n };
    for (int i = 0; i < b->n; i++) {
        c->weight[i] = b->weight ? b->weight[i] : 1;
        if (b->image || b->end)
            continue;
        int at = (int)b->timesteps[i];
        if (b->timesteps[i] < 0 || b->timesteps[i] >= t->z->n)
            return kw_fail(e, KW_EDATA, "timestep %lld is outside 0..%d", (long long)b->timesteps[i], t->z->n - 1);
        kw_mix m = kw_noise_mix(t->z, at);
        bool v = t->z->spec.predict == KW_PREDICT_V, x0 = t->z->spec.predict == KW_PREDICT_X0;
        c->a[i] = (float)m.a, c->b[i] = (float)m.s, c->t[i] = (float)at;
        c->at[i] = v ? (float)-m.s : x0 ? 1 : 0;
        c->bt[i] = v ? (float)m.a : x0 ? 0 : 1;
        if (t->c.min_snr > 0)
            c->weight[i] *= (float)kw_min_snr_weight(t->z->spec.predict, kw_noise_snr(t->z, at), t->c.min_snr);
    }
    return KW_OK;
}

static kw_status run(kw_trainer *t, kw_program *p, const kw_micro *b, float dloss, double *loss, kw_err *e)
{
    coefficients c = { 0 };
    kw_arena *a = kw_arena_new();
    if (!a)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_status s = coefficients_of(t, a, b, &c, e);
    if (!s) {
        const struct { const char *name; const void *data; } rows[] = {
            { "latents", b->latents }, { "noise", b->noise }, { "a", c.a }, { "b", c.b }, { "a_target", c.at },
            { "b_target", c.bt }, { "beside", b->beside }, { "end", b->end }, { "order", b->order },
            { "timesteps", c.t },
            { "context", b->context }, { "pooled", b->pooled }, { "sizes", b->sizes }, { "ids", b->ids },
            { "ids2", b->ids2 }, { "end2", b->end2 },
            { "image", b->image }, { "weight", c.weight }, { "dloss", &dloss },
        };
        for (size_t i = 0; i < KW_LEN(rows); i++)
            kw_program_set(p, rows[i].name, rows[i].data);
        s = kw_program_run(p, t->w, e);
    }
    if (!s)
        *loss = (double)*(const float *)kw_program_result(p, "loss");
    kw_arena_free(a);
    return s;
}

kw_status kw_trainer_loss(kw_trainer *t, const kw_micro *b, bool base, double *loss, kw_err *e)
{
    kw_program *p;
    KW_TRY(program_for(t, b, false, base, &p, e));
    return run(t, p, b, 0, loss, e);
}

static double clip_factor(const kw_trainer *t, double norm)
{
    return t->c.max_norm > 0 ? KW_MIN(1, t->c.max_norm / (norm + 1e-6)) : 1;      /* as torch's clip_grad_norm_ */
}

static void drop_gradients(kw_trainer *t)
{
    memset(kw_store_write(t->store, t->trained->gradients), 0,
           (size_t)t->trained->count * kw_dtype_size(t->trained->type));
}

/* Gradients of all batches, then one update; not finite: everything stays as it is. */
static kw_status whole_step(kw_trainer *t, const kw_micro *b, kw_update *u, kw_step_report *r, kw_err *e)
{
    for (int i = 0; i < t->c.accumulation; i++) {
        kw_program *p;
        double loss = 0;
        KW_TRY(program_for(t, &b[i], true, false, &p, e));
        KW_TRY(run(t, p, &b[i], 1.0f / (float)t->c.accumulation, &loss, e));
        r->loss += loss / t->c.accumulation;
    }
    KW_TRY(kw_updater_norm(t->updater, t->w, &r->norm, e));
    r->skipped = !isfinite(r->loss) || !isfinite(r->norm);
    if (r->skipped) {
        drop_gradients(t);
        return KW_OK;
    }
    u->clip = clip_factor(t, r->norm);
    return kw_updater_step(t->updater, t->w, u, e);
}

/* Each weight moves once its gradient is known; not finite: what is finite has moved, the rest stays as it is. */
static kw_status fused_step(kw_trainer *t, const kw_micro *b, kw_update *u, kw_step_report *r, kw_err *e)
{
    kw_program *p;
    u->clip = t->c.max_norm;
    KW_TRY(program_for(t, b, true, false, &p, e));
    kw_updater_feed(t->updater, p, u);
    KW_TRY(run(t, p, b, 1, &r->loss, e));
    r->norm = sqrt(*(const double *)kw_program_result(p, "squares"));
    r->skipped = !isfinite(r->loss) || !isfinite(r->norm);
    return KW_OK;
}

kw_status kw_trainer_step(kw_trainer *t, const kw_micro *b, kw_step_report *r, kw_err *e)
{
    kw_update u = { .step = t->steps + 1, .rate = r->rate, .decay = t->c.decay, .keep = t->c.average };
    *r = (kw_step_report){ 0 };
    double factor = kw_rate_at(&t->c.schedule, t->steps);
    for (int g = 0; g < KW_N_GROUPS; g++)
        r->rate[g] = t->c.rate[g] * factor;
    KW_TRY(kw_trainer_prepare(t, b, e));
    KW_TRY(t->c.fused ? fused_step(t, b, &u, r, e) : whole_step(t, b, &u, r, e));
    t->steps++;
    return KW_OK;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static kw_part part_of_group(int group)
{
    for (int p = 0; p < KW_N_PARTS; p++)
        if (kw__group_of_part((kw_part)p) == group)
            return (kw_part)p;
    return KW_PART_TEXT;
}

/* What is saved of a parameter: its moving average where there is one. */
static bool is_averaged(const kw_trainer *t, const kw_param_info *p)
{
    return t->updater && kw_updater_average(t->updater) >= 0 && p->at >= 0;
}

static const void *best_values(const kw_trainer *t, const kw_param_info *p)
{
    if (!is_averaged(t, p))
        return kw_store_at(t->store, p->state)->data;
    const kw_stored *average = kw_store_at(t->store, kw_updater_average(t->updater));
    return (const char *)average->data + (size_t)p->at * kw_dtype_size(t->trained->type);
}

static kw_dtype best_type(const kw_trainer *t, const kw_param_info *p)
{
    return is_averaged(t, p) ? t->trained->type : kw_store_at(t->store, p->state)->dtype;
}

static void best_into(const kw_trainer *t, const kw_param_info *p, kw_tensor *out)
{
    void *to = (void *)(uintptr_t)out->data;
    kw_convert(out->dtype, to, best_type(t, p), best_values(t, p), (size_t)kw_count(p->shape));
}

static kw_status lora_tensors(kw_arena *a, const kw_trainer *t, kw_dtype type, kw_tensor **out, size_t *n, kw_err *e)
{
    size_t most = 0;
    for (int i = 0; i < t->adapters.n; i++)
        most += 3 * kw_lora_n_modules(t->adapters.item[i]);
    *out = kw_alloc_array(a, most + 1, sizeof **out);
    if (!*out)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < t->adapters.n; i++) {
        kw_tensor *first = &(*out)[*n];
        KW_TRY(kw_lora_tensors(a, t->adapters.item[i], type, *out, n, e));
        for (size_t m = 0; m < kw_lora_n_modules(t->adapters.item[i]); m++) {   /* down, up, alpha */
            best_into(t, kw_lora_at(t->adapters.item[i], m)->down, &first[3 * m]);
            best_into(t, kw_lora_at(t->adapters.item[i], m)->up, &first[3 * m + 1]);
        }
    }
    return KW_OK;
}

/* An objective's own layers are not saved. */
static bool is_saved(const kw_param_info *p) { return !kw_starts_with(p->name, "head."); }

kw_status kw_trainer_values(kw_arena *a, const kw_trainer *t, kw_values **out, size_t *n, kw_err *e)
{
    *n = 0;
    *out = kw_alloc_array(a, t->trained->n + 1, sizeof **out);
    if (!*out)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < t->trained->n; i++) {
        const kw_param_info *p = t->trained->param[i];
        if (!is_saved(p))
            continue;
        kw_values *v = &(*out)[(*n)++];
        *v = (kw_values){ .part = part_of_group(p->group) };
        v->t = (kw_tensor){ .name = p->name, .dtype = best_type(t, p), .rank = p->shape.rank,
                            .data = best_values(t, p) };
        v->t.bytes = (uint64_t)kw_count(p->shape) * kw_dtype_size(v->t.dtype);
        memcpy(v->t.shape, p->shape.d, sizeof p->shape.d[0] * (size_t)p->shape.rank);
    }
    return KW_OK;
}

/* For comparing: "unet." and the name in the part's file. In a single file one tensor may hold several of ours. */
static kw_status full_tensor(kw_arena *a, const kw_trainer *t, const kw_values *v, kw_dtype type, kw_tensor *out,
                             kw_err *e)
{
    const kw_source *source = v->part == KW_PART_VAE ? t->sd->vae_source : t->sd->source;
    const char *name = kw_source_is_single(source) ? v->t.name : kw_source_file_name(source, v->part, v->t.name);
    size_t count = (size_t)kw_tensor_count(&v->t);
    void *data = kw_alloc_array(a, count, kw_dtype_size(type));
    *out = v->t;
    out->name = kw_sprintf(a, "%s.%s", kw_part_name(v->part), name);
    if (!data || !out->name)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_convert(type, data, v->t.dtype, v->t.data, count);
    out->dtype = type;
    out->data = data;
    out->bytes = count * kw_dtype_size(type);
    return KW_OK;
}

kw_status kw_trainer_tensors(kw_arena *a, const kw_trainer *t, kw_dtype type, kw_tensor **out, size_t *n, kw_err *e)
{
    kw_values *v;
    *n = 0;
    if (t->c.lora)
        return lora_tensors(a, t, type, out, n, e);
    KW_TRY(kw_trainer_values(a, t, &v, n, e));
    *out = kw_alloc_array(a, *n + 1, sizeof **out);
    if (!*out)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < *n; i++)
        KW_TRY(full_tensor(a, t, &v[i], type, &(*out)[i], e));
    return KW_OK;
}
