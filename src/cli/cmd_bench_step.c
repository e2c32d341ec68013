/* cmd_bench_step.c - kiwame bench step: one pass of a model, or the very step of train, timed. */
#include "bench.h"

#include <string.h>

typedef struct {
    kw_bench_options b;
    float seconds;
    int runs, top;
} config;

static const kw_option options[] = {
    KW_ROW_GROUP(N_("Measuring")),
    KW_ROW_FLOAT("seconds", config, seconds, 10, 0, 86400, N_("runs go on for so long")),
    KW_ROW_INT("runs", config, runs, 3, 0, 100000, N_("least number of runs; 0: the forecast alone")),
    KW_ROW_INT("top", config, top, 0, 0, 1000, N_("list so many of the shapes that take most time")),
    KW_ROW_END
};
static const kw_option_table tables[] = {
    { kw_bench_rows, offsetof(config, b), NULL, 0 }, { options, 0, NULL, 0 },
    { kw_model_rows, offsetof(config, b.s), NULL, 0 }, { 0 }
};

typedef struct {                          /* one of the two: a program, or a trainer */
    kw_arena *arena;
    const kw_bench_model *m;
    kw_bench_result *r;
    kw_store *store;
    kw_program *p;
    kw_workspace *w;
    kw_trainer *t;
    kw_micro shape;                       /* sizes, and what stays the same from step to step */
    const float *moments, *context;       /* as the caches hold them */
    int64_t at;                           /* micro-batches so far */
} session;

/* ---- a pass that trains nothing ---------------------------------------------------------------------------------- */

static kw_status open_pass(session *s, kw_err *e)
{
    kw_graph *g;
    kw_sd *sd;
    kw_run_options o = { .memory_limit = s->m->o->s.memory };
    s->store = kw_store_new(s->arena);
    s->w = kw_workspace_new(s->arena);
    if (!s->store || !s->w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_sd_over(s->arena, s->m->source, NULL, s->store, KW_F32, NULL, NULL, &sd, e));
    if (s->m->o->s.base_dtype)
        kw_sd_int8(sd);
    double begun = kw_now();
    KW_TRY(kw_bench_graph(s->arena, s->m, sd, &g, e));
    KW_TRY(kw_program_new(s->arena, g, s->store, &o, &s->p, e));
    s->r->flops = kw_program_useful_flops(s->p);
    s->r->forecast = kw_forecast_bytes(s->p);
    s->r->work = kw_forecast_work(s->p);
    s->r->plan = kw_now() - begun;
    return kw_bench_feed(s->arena, s->p, e);
}

/* ---- a training step --------------------------------------------------------------------------------------------- */

static kw_status numbers(session *s, int64_t n, const float **out, kw_err *e)
{
    float *v = kw_block_new((size_t)n * sizeof *v);
    if (!v || kw_defer(s->arena, kw_block_free, v))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_bench_numbers(KW_F32, v, (size_t)n);
    *out = v;
    return KW_OK;
}

/* What train has in its caches, and what does not change: random, but of the right size. */
static kw_status make_batch(session *s, kw_err *e)
{
    const kw_bench_model *m = s->m;
    kw_micro *b = &s->shape;
    int64_t n = b->n, pixels = n * b->h * b->w;
    int f = kw_vae_factor(&m->vae);
    if (b->image) {
        KW_TRY(numbers(s, pixels * m->vae.in, &b->image, e));
        return numbers(s, pixels / f / f * m->vae.latent, &b->noise, e);
    }
    KW_TRY(numbers(s, pixels * 2 * m->vae.latent, &s->moments, e));
    KW_TRY(numbers(s, pixels * (1 + m->vae.latent), &b->beside, e));
    if (b->pooled)
        KW_TRY(numbers(s, n * (m->unet.add_dim - KW_SIZES * m->unet.add_time_dim), &b->pooled, e));
    if (b->sizes)
        KW_TRY(numbers(s, n * KW_SIZES, &b->sizes, e));
    if (b->context)
        return numbers(s, n * b->tokens * m->unet.context[0], &s->context, e);
    int64_t *ids = kw_alloc_array(s->arena, (size_t)(n * b->tokens), sizeof *ids),
            *end = kw_alloc_array(s->arena, (size_t)n, sizeof *end);
    if (!ids || !end)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int64_t i = 0; i < n * b->tokens; i++)
        ids[i] = i * 7919 % m->text.vocabulary;
    b->ids = ids;
    b->ids2 = b->ids2 ? ids : NULL;       /* both encoders have the same vocabulary */
    b->end2 = b->end2 ? end : NULL;
    return KW_OK;
}

static kw_status open_training(session *s, kw_err *e)
{
    kw_trainer_cost cost;
    KW_TRY(kw_trainer_over(s->arena, s->m->source, NULL, &s->m->tc, &s->t, e));
    s->store = kw_trainer_base(s->t)->store;
    s->shape = kw_bench_shape(s->m);
    double begun = kw_now();
    KW_TRY(kw_trainer_forecast(s->t, &s->shape, &cost, e));
    s->r->plan = kw_now() - begun - cost.states;
    s->r->states = cost.states;
    s->r->forecast = cost.bytes;
    s->r->work = cost.work * s->m->tc.accumulation + cost.update;
    s->r->flops = kw_program_useful_flops(kw_trainer_program(s->t, 0)) * s->m->tc.accumulation;
    return make_batch(s, e);
}

/* As train makes a micro-batch from its caches: latents drawn, noise, timesteps, the texts' features. */
static kw_status next_batch(session *s, kw_arena *a, kw_micro *b, kw_err *e)
{
    const kw_chance chance = { .seed = s->m->o->s.seed };
    *b = s->shape;
    int64_t m = s->at++;
    if (b->image)
        return KW_OK;
    KW_TRY(kw_chance_micro(a, &chance, &s->m->vae, kw_trainer_noise(s->t)->n, s->moments, m, b, e));
    if (!s->context)
        return KW_OK;
    size_t bytes = sizeof(float) * (size_t)b->n * (size_t)b->tokens * (size_t)s->m->unet.context[0];
    float *context = kw_alloc(a, bytes);
    if (!context)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    b->context = memcpy(context, s->context, bytes);
    return KW_OK;
}

static kw_status train(session *s, kw_arena *a, kw_err *e)
{
    int each = s->m->tc.accumulation;
    kw_micro *b = kw_alloc_array(a, (size_t)each, sizeof *b);
    kw_step_report report;
    if (!b)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < each; i++)
        KW_TRY(next_batch(s, a, &b[i], e));
    KW_TRY(kw_trainer_step(s->t, b, &report, e));
    if (report.skipped)
        return kw_fail(e, KW_ENUMERIC, N_("the step gave loss %g and gradient %g"), report.loss, report.norm);
    return KW_OK;
}

/* ---- measuring --------------------------------------------------------------------------------------------------- */

static kw_status once(void *ctx, kw_err *e)
{
    session *s = ctx;
    if (s->p)
        return kw_program_run(s->p, s->w, e);
    kw_arena *a = kw_arena_new();
    kw_status st = a ? train(s, a, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_arena_free(a);
    return st;
}

static void start(void *ctx)
{
    session *s = ctx;
    for (int i = 0; i < s->r->n_programs; i++)
        kw_program_profile(s->r->program[i], true);
}

static void list_programs(session *s)
{
    kw_bench_result *r = s->r;
    if (s->p)
        r->program[r->n_programs++] = s->p;
    for (kw_program *p; s->t && r->n_programs < KW_BENCH_PROGRAMS && (p = kw_trainer_program(s->t, r->n_programs));
         r->n_programs++)
        r->program[r->n_programs] = p;
}

static kw_status measure(session *s, const config *o, kw_err *e)
{
    kw_bench_result *r = s->r;
    kw_bench_work work = { .run = once, .start = start, .ctx = s, .compute = s->m->compute,
                           .seconds = (double)o->seconds, .least = o->runs, .most = o->runs ? KW_MAX(o->runs, 1000) : 0,
                           .peak_seconds = o->runs ? 0.3 : 0.1 };
    double begun = kw_now(), now, past;
    KW_TRY(kw_bench_trains(s->m) ? open_training(s, e) : open_pass(s, e));
    kw_process_memory(&now, &past);
    r->forecast = KW_MAX(r->forecast, past);      /* opening may have taken more than the pass will */
    r->setup = kw_now() - begun;
    if (o->runs) {
        begun = kw_now();
        KW_TRY(once(s, e));
        r->first = kw_now() - begun;
    }
    list_programs(s);
    KW_TRY(kw_bench_time(&work, &r->t, e));
    kw_process_memory(&now, &r->rss);
    return KW_OK;
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    static const char *const passes[] = { "forward", "lora", "full", "vae-encode", "vae-decode", "text" };
    config *o = arg;
    kw_bench_model m;
    kw_bench_result r = { .m = &m, .pass = passes[o->b.pass], .top = o->top };
    kw_process_memory_reset();
    KW_TRY(kw_bench_open(c, &o->b, &m, e));
    session s = { .arena = c->arena, .m = &m, .r = &r };
    KW_TRY(measure(&s, o, e));
    kw_bench_show(c, &r);
    return KW_OK;
}

const kw_command kw_command_bench_step = {
    .name = "step", .help = N_("time one pass of a model, or one training step"),
    .about = N_("A training step is train's own: latents and texts from memory, noise, loss, gradients, clipping, "
                "update. Unless told otherwise: a LoRA on attention, gradients clipped at 1, activations recomputed as "
                "train does. With a family's name the weights are random and lie in memory; the time does not depend "
                "on them."),
    .examples = "kiwame bench step --model sd15 --size 512x512 --pass lora --dtype bf16\n"
                "kiwame bench step --model sdxl --size 1024x1024 --pass forward --json",
    .tables = tables, .config_size = sizeof(config), .flags = KW_COMMAND_THREADS, .run = run,
};
