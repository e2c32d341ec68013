/* cmd_bench_image.c - kiwame bench image: pictures from words to pixels, by stages. */
#include "bench.h"
#include "net_settings.h"

#include <stdlib.h>

typedef struct {
    kw_bench_options b;
    int steps, runs, top;
    double cfg;
    float seconds;
} config;

static const kw_option options[] = {
    KW_ROW_GROUP(N_("What")),
    KW_ROW_TEXT("model", config, b.model, NULL,
                N_("sd15, emoji or shapes with random weights, or a model's folder or file; default: the small base "
                   "that comes along"), .value = "MODEL"),
    KW_ROW_TEXT("size", config, b.size, NULL, N_("size of the picture; default: the model's own"), .value = "WxH"),
    KW_ROW_INT("batch", config, b.batch, 1, 1, 1024, N_("pictures at once"), .alias = "batch-size"),
    KW_ROW_INT("steps", config, steps, 20, 1, 1000, N_("sampling steps")),
    KW_ROW_DOUBLE("cfg", config, cfg, 7, -1000, 1000,
                  N_("guidance; with 1 the U-Net runs once a step, else for two texts")),
    KW_ROW_CHOICE("dtype", config, b.s.dtype, 0, "f32|bf16",
                  N_("type of activations; the autoencoder always computes in f32")),
    KW_ROW_CHOICE("base-dtype", config, b.s.base_dtype, 0, "file|int8",
                  N_("weights of the U-Net as in the file, or in one byte a number: less memory, less exact")),
    KW_ROW_CHOICE("weights", config, b.weights, 0, "auto|f32|f16|bf16",
                  N_("type of random weights; auto: that of the computation")),
    KW_ROW_SIZE("memory", config, b.s.memory, 0, 0, 1e15,
                N_("memory for packed copies of weights; the rest is packed at each use"), .word = "off", .word_is = 0),
    KW_ROW_GROUP(N_("Measuring")),
    KW_ROW_FLOAT("seconds", config, seconds, 10, 0, 86400, N_("runs go on for so long")),
    KW_ROW_INT("runs", config, runs, 3, 1, 100000, N_("least number of runs")),
    KW_ROW_INT("top", config, top, 0, 0, 1000, N_("list so many of the shapes that take most time")),
    KW_ROW_END
};

enum { STAGES = KW_STAGE_DECODE + 1 };

typedef struct {
    kw_arena *arena;
    const config *o;
    kw_bench_model m;
    kw_bench_result r;
    kw_store *store;
    kw_pipeline *p;
    kw_request request;
    double at, stage[STAGES];             /* seconds over the runs that count */
} session;

static kw_status progress(void *ctx, const kw_generate_at *at, kw_err *e)
{
    session *s = ctx;
    double now = kw_now();
    (void)e;
    s->stage[at->stage] += now - s->at;
    s->at = now;
    return KW_OK;
}

static kw_status once(void *ctx, kw_err *e)
{
    session *s = ctx;
    kw_generated g;
    kw_arena *a = kw_arena_new();
    s->at = kw_now();
    kw_status st = a ? kw_pipeline_generate(s->p, a, &s->request, &g, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_arena_free(a);
    return st;
}

static void start(void *ctx)
{
    session *s = ctx;
    for (int i = 0; i < STAGES; i++)
        s->stage[i] = 0;
    for (int i = 0; i < s->r.n_programs; i++)
        kw_program_profile(s->r.program[i], true);
}

static kw_status open(session *s, kw_err *e)
{
    static const kw_dtype weights[] = { KW_F32, KW_F32, KW_F16, KW_BF16 };
    kw_pipeline_options po = { .compute = s->o->b.s.dtype ? KW_BF16 : KW_F32 };
    kw_sd *sd;
    s->store = kw_store_new(s->arena);
    if (!s->store)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (s->o->b.s.memory)
        kw_store_limit_packed(s->store, (size_t)s->o->b.s.memory);
    s->m.compute = po.compute;
    KW_TRY(
        kw_bench_source(s->arena, s->m.name, s->o->b.weights ? weights[s->o->b.weights] : po.compute, &s->m.source, e));
    KW_TRY(kw_sd_over(s->arena, s->m.source, NULL, s->store, KW_F32, NULL, NULL, &sd, e));
    if (s->o->b.s.base_dtype)
        kw_sd_int8(sd);
    KW_TRY(kw_bench_tokenizer(s->arena, s->m.source, &sd->text, &po.tokenizer, e));
    KW_TRY(kw_pipeline_over(s->arena, sd, NULL, NULL, &po, &s->p, e));
    s->m.unet = sd->unet;
    s->m.vae = sd->vae;
    return kw_bench_read_size(&s->m, e);
}

static kw_status ask(session *s, kw_err *e)
{
    const config *o = s->o;
    kw_wish *wish = kw_alloc_array(s->arena, (size_t)o->b.batch, sizeof *wish);
    if (!wish)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < o->b.batch; i++)
        wish[i] = (kw_wish){ .prompt = "a red circle", .seed = (uint64_t)i };
    s->request = (kw_request){
        .wish = wish, .n = o->b.batch, .width = s->m.w, .height = s->m.h, .cfg = o->cfg, .clip_skip = 1,
        .sampling = { .sampler = kw_sampler_find("Euler", NULL), .steps = o->steps, .eta = -1 },
        .seeds = KW_SEEDS_KIWAME, .progress = progress, .ctx = s,
    };
    return KW_OK;
}

/* The first run makes the programs; what they plan, workspace and packed weights, is the forecast. */
static void list_programs(session *s)
{
    double workspace = 0;
    for (kw_program *p; s->r.n_programs < KW_BENCH_PROGRAMS && (p = kw_pipeline_program(s->p, s->r.n_programs));
         s->r.n_programs++) {
        workspace = KW_MAX(workspace, (double)kw_program_bytes(p));
        s->r.program[s->r.n_programs] = p;
    }
    s->r.forecast += workspace + (double)kw_store_bytes(s->store) + (double)kw_store_mapped_bytes(s->store);
}

/* Of all programs by how often they ran. */
static void count_work(session *s)
{
    for (int i = 0; i < s->r.n_programs; i++)
        s->r.flops +=
            kw_program_useful_flops(s->r.program[i]) * (double)kw_program_timed_runs(s->r.program[i]) / s->r.t.n;
}

static kw_status measure(session *s, kw_err *e)
{
    kw_bench_work work = { .run = once, .start = start, .ctx = s, .compute = s->m.compute,
                           .seconds = (double)s->o->seconds, .least = s->o->runs, .most = KW_MAX(s->o->runs, 1000),
                           .peak_seconds = 0.3 };
    double begun = kw_now(), now;
    KW_TRY(ask(s, e));
    s->r.setup = kw_now() - begun;
    begun = kw_now();
    KW_TRY(once(s, e));
    s->r.first = kw_now() - begun;
    list_programs(s);
    KW_TRY(kw_bench_time(&work, &s->r.t, e));
    count_work(s);
    kw_process_memory(&now, &s->r.rss);
    return KW_OK;
}

static void show_stages(const session *s)
{
    kw_table t = { .align = "lrl" };
    const char *const names[STAGES] = { _(N_("texts")), _(N_("sampling steps")), _(N_("pixels")) };
    const int each[STAGES] = { 1, s->o->steps, s->o->b.batch };
    printf("\n");
    for (int i = 0; i < STAGES; i++) {
        char all[32], one[32];
        kw_bench_seconds(s->stage[i] / s->r.t.n, all);
        kw_bench_seconds(s->stage[i] / s->r.t.n / each[i], one);
        kw_table_cell(&t, "%s", names[i]);
        kw_table_cell(&t, "%s", all);
        if (each[i] > 1)
            kw_table_cell(&t, _(N_("%d x %s")), each[i], one);
        else
            kw_table_cell(&t, " ");
    }
    kw_table_print(&t, stdout, 2);
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    config *o = arg;
    session s = { .arena = c->arena, .o = o, .r = { .pass = "image", .top = o->top } };
    double most;
    o->b.pass = KW_BENCH_FORWARD;
    KW_TRY(kw_model_named(c, &o->b.model, e));
    if (!o->b.model && !(o->b.model = kw_embedded_base(c->arena)))
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("no model was given")), N_("name one with --model"));
    s.m = (kw_bench_model){ .o = &o->b, .name = o->b.model };
    s.r.m = &s.m;
    kw_process_memory_reset();
    KW_TRY(open(&s, e));
    kw_process_memory(&s.r.forecast, &most);
    KW_TRY(measure(&s, e));
    s.r.stages = s.stage;
    kw_bench_show(c, &s.r);
    if (!c->global.json)
        show_stages(&s);
    return KW_OK;
}

const kw_command kw_command_bench_image = {
    .name = "image", .help = N_("time pictures, from words to pixels"),
    .about = N_("Euler steps with guidance, as generate draws them; nothing is saved."),
    .examples = "kiwame bench image --model sd15 --size 512x512 --steps 4 --dtype bf16",
    .options = options, .config_size = sizeof(config), .flags = KW_COMMAND_THREADS, .run = run,
};
