/*
 * cmd_debug_run.c - kiwame debug run unet|text|text2|vae-encode|vae-decode: one part of a model over given tensors.
 * Pictures and latents are N, C, H, W in the files, as PyTorch has them.
 */
#include "cli.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { UNET, TEXT, VAE_ENCODE, VAE_DECODE, TEXT2 };

typedef struct {
    int part, dtype, memory;
    const char *base, *in, *out;
    bool grad, plan;
} config;

static const kw_option options[] = {
    KW_ROW_CHOICE("part", config, part, 0, "unet|text|vae-encode|vae-decode|text2", N_("which part"),
                  .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED),
    KW_ROW_PATH("base", config, base, NULL, N_("model folder or file; it needs only the named part"),
                .flags = KW_OPT_REQUIRED, .value = "DIR"),
    KW_ROW_PATH("in", config, in, NULL, N_("input tensors (safetensors)"), .flags = KW_OPT_REQUIRED),
    KW_ROW_PATH("out", config, out, NULL, N_("where the outputs go (safetensors)"), .flags = KW_OPT_REQUIRED),
    KW_ROW_CHOICE("dtype", config, dtype, 0, "f32|bf16|f64", N_("type of the computation")),
    KW_ROW_CHOICE("recompute", config, memory, 0, "none|lean|floor",
                  N_("what the backward pass computes again instead of keeping it")),
    KW_ROW_BOOL("grad", config, grad, false,
                N_("also gradients of every parameter and input; the input then holds grad_output")),
    KW_ROW_BOOL("plan", config, plan, false, N_("print the planned graph")),
    KW_ROW_END
};

typedef struct {
    kw_arena *arena;
    const config *c;
    kw_err *e;
    kw_tensors *in;
    kw_part_of part;
    kw_params *params;
    kw_store *store;
    kw_graph *g;
    kw_net net;
    kw_dtype compute;
    struct { const char *name; kw_val v; const void *data; bool differentiable; } input[8];
    int n_inputs;
    kw_val y, penultimate;                /* of text2: its gradient may be given too */
    const char *y_name;
} job;

/* ---- layouts: (N, C, H, W) in files, (N, H, W, C) here ----------------------------------------------------------- */

static void transpose(kw_shape nchw, bool to_nhwc, const double *from, double *to)
{
    int64_t c = nchw.d[1], hw = nchw.d[2] * nchw.d[3];
    for (int64_t n = 0; n < nchw.d[0]; n++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < hw; p++) {
                int64_t file = (n * c + k) * hw + p, ours = (n * hw + p) * c + k;
                to[to_nhwc ? ours : file] = from[to_nhwc ? file : ours];
            }
}

static kw_shape shape_of(const kw_tensor *t)
{
    kw_shape s = { .rank = t->rank };
    memcpy(s.d, t->shape, sizeof s.d[0] * (size_t)KW_MIN(t->rank, KW_RANK));
    return s;
}

static kw_shape nhwc(kw_shape s) { return s.rank == 4 ? KW_SHAPE(s.d[0], s.d[2], s.d[3], s.d[1]) : s; }
static kw_shape nchw(kw_shape s) { return s.rank == 4 ? KW_SHAPE(s.d[0], s.d[3], s.d[1], s.d[2]) : s; }

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

static kw_status fetch(job *j, const char *name, int rank, const kw_tensor **t)
{
    *t = kw_tensors_find(j->in, name);
    if (!*t)
        return kw_fail(j->e, KW_EDATA, "%s: tensor %s is missing", kw_tensors_path(j->in), name);
    if ((*t)->rank != rank)
        return kw_fail(j->e, KW_EDATA, "%s: tensor %s has %d dimensions, %d are expected", kw_tensors_path(j->in), name,
                       (*t)->rank, rank);
    return KW_OK;
}

/* A float tensor as an input of type t. */
static kw_status floats(job *j, const char *name, int rank, kw_dtype t, bool differentiable, kw_val *v)
{
    const kw_tensor *f;
    KW_TRY(fetch(j, name, rank, &f));
    kw_shape s = shape_of(f);
    size_t n = (size_t)kw_count(s);
    double *a = kw_alloc_array(j->arena, n, sizeof *a), *b = kw_alloc_array(j->arena, n, sizeof *b);
    void *data = kw_alloc_array(j->arena, n, kw_dtype_size(t));
    if (!a || !b || !data)
        return kw_fail(j->e, KW_ENOMEM, "out of memory");
    kw_convert(KW_F64, a, f->dtype, f->data, n);
    if (rank == 4)
        transpose(s, true, a, b);
    kw_convert(t, data, KW_F64, rank == 4 ? b : a, n);
    *v = kw_input(j->g, name, nhwc(s), t);
    j->input[j->n_inputs].name = name;
    j->input[j->n_inputs].v = *v;
    j->input[j->n_inputs].data = data;
    j->input[j->n_inputs++].differentiable = differentiable;
    return KW_OK;
}

static kw_status ids(job *j, const char *name, int64_t below, kw_val *v)
{
    const kw_tensor *f;
    KW_TRY(fetch(j, name, 2, &f));
    if (f->dtype != KW_I64)
        return kw_fail(j->e, KW_EDATA, "%s: %s must be I64", kw_tensors_path(j->in), name);
    for (int64_t i = 0; i < kw_tensor_count(f); i++)
        if (((const int64_t *)f->data)[i] < 0 || ((const int64_t *)f->data)[i] >= below)
            return kw_fail(j->e, KW_EDATA, "%s: %s has an id outside 0..%lld", kw_tensors_path(j->in), name,
                           (long long)below - 1);
    *v = kw_input(j->g, name, shape_of(f), KW_I64);
    j->input[j->n_inputs].name = name;
    j->input[j->n_inputs].v = *v;
    j->input[j->n_inputs++].data = f->data;
    return KW_OK;
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

static kw_status build_unet(job *j, const json_t *json)
{
    kw_unet_config c;
    kw_val x, t, ctx, text = KW_NONE, sizes = KW_NONE;
    KW_TRY(kw_unet_read(json, &c, j->e));
    KW_TRY(floats(j, "sample", 4, j->compute, true, &x));
    KW_TRY(floats(j, "timestep", 1, kw_sum_type(j->compute), false, &t));
    KW_TRY(floats(j, "encoder_hidden_states", 3, j->compute, true, &ctx));
    if (c.add_dim) {
        KW_TRY(floats(j, "add_text_embeds", 2, j->compute, true, &text));
        KW_TRY(floats(j, "add_time_ids", 2, kw_sum_type(j->compute), false, &sizes));
    }
    j->y = kw_unet(&j->net, &c, x, t, ctx, text, sizes);
    j->y_name = "sample";
    return KW_OK;
}

/* The second encoder of SDXL: what is wanted of it is its projected output at the end mark. */
static kw_status pool(job *j, const kw_clip_config *c)
{
    const kw_tensor *t = kw_tensors_find(j->in, "input_ids");
    const int64_t *at = t->data;
    int64_t n = t->shape[0], each = t->shape[1], *end = kw_alloc_array(j->arena, (size_t)n, sizeof *end);
    if (!end)
        return kw_fail(j->e, KW_ENOMEM, "out of memory");
    for (int64_t i = 0; i < n; i++)
        end[i] = kw_clip_end(c, at + i * each, (int)each);
    kw_val v = kw_input(j->g, "end", KW_SHAPE(n), KW_I64);
    j->input[j->n_inputs].name = "end";
    j->input[j->n_inputs].v = v;
    j->input[j->n_inputs++].data = end;
    kw_result(j->g, "last_hidden_state", j->y);
    j->y = kw_clip_pooled(&j->net, c, j->y, v);
    j->y_name = "text_embeds";
    return KW_OK;
}

static kw_status build_text(job *j, const json_t *json)
{
    kw_clip_config c;
    kw_val v = KW_NONE, hidden[257];
    KW_TRY(kw_clip_read(json, &c, j->e));
    KW_TRY(ids(j, "input_ids", c.vocabulary, &v));
    if (kw_last(kw_shape_of(j->g, v)) > c.positions)
        return kw_fail(j->e, KW_EDATA, "%s: texts are longer than the model's %d positions", kw_tensors_path(j->in),
                       c.positions);
    j->y = kw_clip(&j->net, &c, v, hidden);
    j->y_name = "last_hidden_state";
    for (int i = 0; i <= c.layers; i++)
        kw_result(j->g, kw_sprintf(j->arena, "hidden_states.%d", i), hidden[i]);
    if (j->c->part != TEXT2)
        return KW_OK;
    j->penultimate = hidden[KW_MAX(c.layers - 1, 0)];
    return pool(j, &c);
}

static kw_status build_vae(job *j, const json_t *json)
{
    kw_vae_config c;
    kw_val x;
    KW_TRY(kw_vae_read(json, &c, j->e));
    KW_TRY(floats(j, j->c->part == VAE_ENCODE ? "image" : "latents", 4, j->compute, true, &x));
    j->y = j->c->part == VAE_ENCODE ? kw_vae_encode(&j->net, &c, x) : kw_vae_decode(&j->net, &c, x);
    j->y_name = j->c->part == VAE_ENCODE ? "moments" : "image";
    return KW_OK;
}

static int all_trained(void *ctx, const char *name) { (void)ctx, (void)name; return 0; }

static kw_status open(job *j)
{
    static const kw_part part[] = { KW_PART_UNET, KW_PART_TEXT, KW_PART_VAE, KW_PART_VAE, KW_PART_TEXT2 };
    static const kw_dtype type[] = { KW_F32, KW_BF16, KW_F64 };
    KW_TRY(kw_tensors_open(j->arena, j->c->in, &j->in, j->e));
    KW_TRY(kw_source_open(j->arena, j->c->base, &j->part.source, j->e));
    j->part.part = part[j->c->part];
    if (j->c->part == TEXT2 && !kw_source_has(j->part.source, KW_PART_TEXT2))
        j->part.part = KW_PART_TEXT;      /* the folder of one text encoder */
    if (!kw_source_has(j->part.source, j->part.part))
        return kw_fail(j->e, KW_EDATA, "%s has no %s", j->c->base, kw_part_name(j->part.part));
    j->compute = type[j->c->dtype];
    kw_params_source from = { .find = kw_part_find, .find_ctx = &j->part, .select = j->c->grad ? all_trained : NULL,
                              .exact = kw_sum_type(j->compute) };
    j->store = kw_store_new(j->arena);
    j->g = kw_graph_new(j->arena, j->compute);
    j->params = j->store ? kw_params_new(j->arena, j->store, &from) : NULL;
    if (!j->params || !j->g)
        return kw_fail(j->e, KW_ENOMEM, "out of memory");
    j->net = kw_net_over(j->g, j->params);
    return KW_OK;
}

/* Gradients of every parameter and float input, named as in the file. */
static kw_status emit_gradients(job *j)
{
    size_t n = kw_params_count(j->params), total = n + (size_t)j->n_inputs;
    kw_val *wrt = kw_alloc_array(j->arena, total, sizeof *wrt), *d = kw_alloc_array(j->arena, total, sizeof *d), dy;
    if (!wrt || !d)
        return kw_fail(j->e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const kw_param_info *p = kw_params_at(j->params, i);
        wrt[i] = kw_state(j->g, p->state, p->shape, kw_store_at(j->store, p->state)->dtype);
    }
    for (int i = 0; i < j->n_inputs; i++)
        wrt[n + (size_t)i] = j->input[i].differentiable ? j->input[i].v : KW_NONE;
    KW_TRY(floats(j, "grad_output", kw_shape_of(j->g, j->y).rank, j->compute, false, &dy));
    if (!kw_shape_equal(kw_shape_of(j->g, dy), kw_shape_of(j->g, j->y)))
        return kw_fail(j->e, KW_EDATA, "grad_output has not the shape of the output");
    kw_val ends[2] = { j->y, j->penultimate }, dends[2] = { dy, KW_NONE };
    int n_ends = j->c->part == TEXT2 && kw_tensors_find(j->in, "grad_penultimate") ? 2 : 1;
    if (n_ends == 2)
        KW_TRY(floats(j, "grad_penultimate", 3, j->compute, false, &dends[1]));
    KW_TRY(kw_backward(j->g, ends, dends, n_ends, wrt, (int)total, d, j->e));
    for (size_t i = 0; i < total; i++) {
        const char *name = i < n ? kw_source_file_name(j->part.source, j->part.part, kw_params_at(j->params, i)->name)
                                 : j->input[i - n].name;
        if (d[i] >= 0)
            kw_result(j->g, kw_sprintf(j->arena, "grad.%s", name), d[i]);
    }
    return KW_OK;
}

/* ---- outputs ----------------------------------------------------------------------------------------------------- */

static bool is_picture(const job *j, const char *name)
{
    if (!strcmp(name, j->y_name))
        return true;
    for (int i = 0; i < j->n_inputs; i++)
        if (kw_starts_with(name, "grad.") && !strcmp(name + 5, j->input[i].name))
            return true;
    return false;
}

static kw_status give(job *j, const kw_program *p, const char *name, kw_tensor *t)
{
    kw_shape s = kw_program_result_shape(p, name), out = s;
    size_t n = (size_t)kw_count(s);
    kw_dtype type = j->compute == KW_F64 ? KW_F64 : KW_F32;
    double *a = kw_alloc_array(j->arena, n, sizeof *a), *b = kw_alloc_array(j->arena, n, sizeof *b);
    void *data = kw_alloc_array(j->arena, n, kw_dtype_size(type));
    if (!a || !b || !data)
        return kw_fail(j->e, KW_ENOMEM, "out of memory");
    kw_convert(KW_F64, a, kw_program_result_type(p, name), kw_program_result(p, name), n);
    bool turn = s.rank == 4 && is_picture(j, name);
    if (turn)
        transpose(out = nchw(s), false, a, b);
    kw_convert(type, data, KW_F64, turn ? b : a, n);
    *t = (kw_tensor){ .name = name, .dtype = type, .rank = out.rank, .data = data, .bytes = n * kw_dtype_size(type) };
    memcpy(t->shape, out.d, sizeof out.d[0] * (size_t)out.rank);
    return KW_OK;
}

static kw_status save(job *j, const kw_program *p)
{
    const kw_graph *g = kw_program_graph(p);
    kw_tensor *t = kw_alloc_array(j->arena, g->n_results, sizeof *t);
    if (!t)
        return kw_fail(j->e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < g->n_results; i++)
        KW_TRY(give(j, p, g->result[i].name, &t[i]));
    kw_guard_begin();
    kw_status s = kw_tensors_save(j->c->out, t, g->n_results, NULL, 0, j->e);
    kw_guard_end();
    return s;
}

static kw_status run(kw_cli *cli, void *arg, kw_err *e)
{
    job j = { .arena = cli->arena, .c = arg, .e = e };
    static kw_status (*const build[])(job *, const json_t *) = { build_unet, build_text, build_vae, build_vae,
                                                                 build_text };
    kw_say(cli, _(N_("opening the model")));
    kw_status opened = open(&j);
    kw_hush(cli);
    KW_TRY(opened);
    KW_TRY(build[j.c->part](&j, kw_source_config(j.part.source, j.part.part)));
    kw_result(j.g, j.y_name, j.y);
    if (j.g->err.status) {
        *e = j.g->err;
        return e->status;
    }
    if (j.c->grad)
        KW_TRY(emit_gradients(&j));
    kw_program *p;
    kw_run_options o = { .memory = (kw_memory_level)j.c->memory };
    KW_TRY(kw_program_new(j.arena, j.g, j.store, &o, &p, e));
    for (int i = 0; i < j.n_inputs; i++)
        kw_program_set(p, j.input[i].name, j.input[i].data);
    kw_workspace *w = kw_workspace_new(j.arena);
    if (!w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_program_run(p, w, e));
    if (j.c->plan) {
        kw_str text = { 0 };
        kw_program_print(p, &text);
        fputs(text.s ? text.s : "", stdout);
        kw_str_free(&text);
    }
    return save(&j, p);
}

const kw_command kw_command_debug_run = {
    .name = "run", .help = N_("one part of a model over given tensors, with gradients if wanted"), .options = options,
    .config_size = sizeof(config), .flags = KW_COMMAND_THREADS, .run = run,
};
