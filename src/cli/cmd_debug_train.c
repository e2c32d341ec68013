/* cmd_debug_train.c - kiwame debug train: some steps from given batches, to be compared with PyTorch's. */
#include "cli.h"
#include "train/train.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    kw_settings s;
    const char *batches, *out;
    int steps;
} config;

static const kw_option options[] = {
    KW_ROW_CHOICE("method", config, s.method, 0, "lora|full",
                  N_("what is trained: an adapter, or the weights themselves"), .flags = KW_OPT_REQUIRED),
    KW_ROW_PATH("base", config, s.base, NULL, N_("model folder or file"), .flags = KW_OPT_REQUIRED, .value = "DIR"),
    KW_ROW_PATH("vae", config, s.vae, NULL, N_("another autoencoder")),
    KW_ROW_PATH("batches", config, batches, NULL,
                N_("tensors i.latents, i.noise, i.timesteps, i.encoder_hidden_states or i.input_ids; SDXL: "
                   "i.add_time_ids, i.add_text_embeds or i.input_ids_2; inpainting: i.beside, mask and masked latents; "
                   "i.image"),
                .flags = KW_OPT_REQUIRED),
    KW_ROW_INT("steps", config, steps, 1, 1, 1000000, N_("optimizer steps"), .flags = KW_OPT_REQUIRED),
    KW_ROW_PATH("out", config, out, NULL, N_("where loss and trained tensors go (safetensors)"),
                .flags = KW_OPT_REQUIRED),
    KW_ROW_END
};
static const kw_option_table tables[] = { { options, 0, NULL, 0 }, { kw_model_rows, offsetof(config, s), NULL, 0 },
                                          { 0 } };

typedef struct { kw_arena *arena; kw_tensors *file; const kw_sd *sd; kw_err *e; } reader;

static const kw_tensor *find(reader *r, int i, const char *leaf)
{
    char name[64];
    snprintf(name, sizeof name, "%d.%s", i, leaf);
    return kw_tensors_find(r->file, name);
}

/* N, C, H, W in the file -> N, H, W, C in f32 */
static kw_status picture(reader *r, const kw_tensor *t, const float **out, kw_micro *b)
{
    if (t->rank != 4)
        return kw_fail(r->e, KW_EDATA, "%s: %s must have four dimensions", kw_tensors_path(r->file), t->name);
    int64_t n = t->shape[0], c = t->shape[1], hw = t->shape[2] * t->shape[3];
    float *from = kw_alloc_array(r->arena, (size_t)(n * c * hw), sizeof *from);
    float *to = kw_alloc_array(r->arena, (size_t)(n * c * hw), sizeof *to);
    if (!from || !to)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    kw_convert(KW_F32, from, t->dtype, t->data, (size_t)(n * c * hw));
    for (int64_t i = 0; i < n * c * hw; i++)
        to[(i / (c * hw) * hw + i % hw) * c + i / hw % c] = from[i];
    *out = to;
    b->n = (int)n;
    b->h = (int)t->shape[2];
    b->w = (int)t->shape[3];
    return KW_OK;
}

static kw_status floats(reader *r, int i, const char *leaf, int n, const float **out)
{
    const kw_tensor *t = find(r, i, leaf);
    if (!t || t->rank != 2 || t->shape[0] != n)
        return kw_fail(r->e, KW_EDATA, "%s: batch %d needs %s", kw_tensors_path(r->file), i, leaf);
    float *data = kw_alloc_array(r->arena, (size_t)kw_tensor_count(t), sizeof *data);
    if (!data)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    kw_convert(KW_F32, data, t->dtype, t->data, (size_t)kw_tensor_count(t));
    *out = data;
    return KW_OK;
}

/* What SDXL is told beside the first encoder's text. */
static kw_status read_added(reader *r, int i, kw_micro *b)
{
    const kw_tensor *ids = find(r, i, "input_ids_2");
    if (!r->sd->unet.add_dim)
        return KW_OK;
    KW_TRY(floats(r, i, "add_time_ids", b->n, &b->sizes));
    if (!b->ids)
        return floats(r, i, "add_text_embeds", b->n, &b->pooled);
    if (!ids || ids->rank != 2 || ids->shape[0] != b->n || ids->shape[1] != b->tokens || ids->dtype != KW_I64)
        return kw_fail(r->e, KW_EDATA, "%s: batch %d needs input_ids_2", kw_tensors_path(r->file), i);
    int window = KW_MIN(b->tokens, r->sd->text.positions), windows = b->n * (b->tokens / window);
    int64_t *end = kw_alloc_array(r->arena, (size_t)windows, sizeof *end);
    if (!end)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    for (int k = 0; k < windows; k++)
        end[k] = kw_clip_end(&r->sd->text2, (const int64_t *)ids->data + k * window, window);
    b->ids2 = ids->data;
    b->end2 = end;
    return KW_OK;
}

static kw_status read_text(reader *r, int i, kw_micro *b)
{
    const kw_tensor *ids = find(r, i, "input_ids"), *ctx = find(r, i, "encoder_hidden_states"), *t = ids ? ids : ctx;
    if (!t || t->rank < 2 || t->shape[0] != b->n || (ids && ids->dtype != KW_I64))
        return kw_fail(r->e, KW_EDATA, "%s: batch %d needs encoder_hidden_states, or input_ids in I64",
                       kw_tensors_path(r->file), i);
    b->tokens = (int)t->shape[1];
    if (ids) {
        b->ids = ids->data;
        return read_added(r, i, b);
    }
    size_t n = (size_t)kw_tensor_count(ctx);
    float *data = kw_alloc_array(r->arena, n, sizeof *data);
    if (!data)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    kw_convert(KW_F32, data, ctx->dtype, ctx->data, n);
    b->context = data;
    return read_added(r, i, b);
}

/* Mask and masked latents, of an inpainting base. */
static kw_status read_beside(reader *r, int i, kw_micro *b)
{
    const kw_tensor *t = find(r, i, "beside");
    kw_micro sizes = { 0 };
    if (!t || t->rank != 4 || t->shape[0] != b->n || t->shape[1] != r->sd->vae.latent + 1 || t->shape[2] != b->h
        || t->shape[3] != b->w)
        return kw_fail(r->e, KW_EDATA, "%s: batch %d needs %s", kw_tensors_path(r->file), i, "beside");
    return picture(r, t, &b->beside, &sizes);
}

static kw_status read_batch(reader *r, int i, bool vae, kw_micro *b)
{
    const kw_tensor *image = find(r, i, "image"), *latents = find(r, i, "latents"), *noise = find(r, i, "noise"),
                    *t = find(r, i, "timesteps");
    kw_micro sizes = { 0 };
    *b = (kw_micro){ 0 };
    if (vae ? !image : !latents || !noise || !t)
        return kw_fail(r->e, KW_EDATA, "%s: batch %d is not complete", kw_tensors_path(r->file), i);
    if (noise)
        KW_TRY(picture(r, noise, &b->noise, &sizes));
    if (vae)
        return picture(r, image, &b->image, b);
    KW_TRY(picture(r, latents, &b->latents, b));
    if (t->dtype != KW_I64 || kw_tensor_count(t) != b->n || sizes.n != b->n || sizes.h != b->h || sizes.w != b->w)
        return kw_fail(r->e, KW_EDATA, "%s: the tensors of batch %d do not fit each other", kw_tensors_path(r->file),
                       i);
    b->timesteps = t->data;
    if (kw_sd_inpaints(r->sd))
        KW_TRY(read_beside(r, i, b));
    return read_text(r, i, b);
}

static kw_status steps(const config *c, kw_trainer *t, reader *r, float *loss)
{
    int each = c->s.accumulation;
    kw_micro *b = kw_alloc_array(r->arena, (size_t)each, sizeof *b);
    bool vae = c->s.method == KW_METHOD_FULL && strstr(c->s.part, "vae");
    if (!b)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < c->steps; i++) {
        kw_step_report report;
        for (int k = 0; k < each; k++)
            KW_TRY(read_batch(r, i * each + k, vae, &b[k]));
        KW_TRY(kw_trainer_step(t, b, &report, r->e));
        if (report.skipped)
            return kw_fail(r->e, KW_ENUMERIC, "step %d: loss %g, gradient %g", i + 1, report.loss, report.norm);
        loss[i] = (float)report.loss;
    }
    return KW_OK;
}

static kw_status run(kw_cli *cli, void *arg, kw_err *e)
{
    config *c = arg;
    kw_train_config tc;
    kw_trainer *t;
    kw_tensor *trained, *all;
    size_t n = 0;
    static const kw_method_names names = { "--method lora", "--method full", NULL };
    KW_TRY(kw_settings_check(cli->options, &c->s, &names, e));
    reader r = { .arena = cli->arena, .e = e };
    KW_TRY(kw_tensors_open(cli->arena, c->batches, &r.file, e));
    KW_TRY(kw_settings_config(cli->arena, &c->s, c->steps, &tc, e));
    kw_say(cli, _(N_("opening the model")));
    kw_status opened = kw_trainer_new(cli->arena, c->s.base, c->s.vae, &tc, &t, e);
    kw_hush(cli);
    KW_TRY(opened);
    r.sd = kw_trainer_base(t);
    float *loss = kw_alloc_array(cli->arena, (size_t)c->steps, sizeof *loss);
    if (!loss)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(steps(c, t, &r, loss));
    KW_TRY(kw_trainer_tensors(cli->arena, t, KW_F32, &trained, &n, e));
    all = kw_alloc_array(cli->arena, n + 1, sizeof *all);
    if (!all)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    memcpy(all, trained, n * sizeof *all);
    all[n] = (kw_tensor){ .name = "loss", .dtype = KW_F32, .rank = 1, .shape = { c->steps }, .data = loss,
                          .bytes = (uint64_t)c->steps * 4 };
    kw_guard_begin();
    kw_status s = kw_tensors_save(c->out, all, n + 1, NULL, 0, e);
    kw_guard_end();
    return s;
}

const kw_command kw_command_debug_train = {
    .name = "train", .help = N_("some steps from given batches, losses and trained tensors out"), .tables = tables,
    .config_size = sizeof(config),
    .flags = KW_COMMAND_THREADS, .run = run,
};
