/*
 * cmd_whiten.c - kiwame whiten: latents of mean 0 and deviation 1 per channel, folded exactly into the autoencoder's
 * 1x1 convolutions, so that the model's files stay plain:
 *
 *   z' = (z - m) / s      quant_conv:       mean rows  w / s, (b - m) / s;   log variance rows  b - 2 ln s
 *                         post_quant_conv:  w[:, c] s[c],  b + w m
 */
#include "cli.h"
#include "data/data.h"
#include "diffusion/diffusion.h"

#include <math.h>
#include <string.h>

typedef struct { const char *model, *data, *background; int most; } config;

static const kw_option options[] = {
    KW_ROW_PATH("model", config, model, NULL, N_("model folder whose autoencoder is rewritten"), .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED, .value = "DIR"),
    KW_ROW_PATH("data", config, data, NULL, N_("folder of pictures to measure"), .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED, .value = "PICTURES"),
    KW_ROW_TEXT("background", config, background, "white",
                N_("colour below transparent parts: white, black and the like, or #rrggbb"), .value = "COLOUR"),
    KW_ROW_INT("most", config, most, 1000, 1, 1000000, N_("pictures measured at most")),
    KW_ROW_END
};

typedef struct { double sum[64], squares[64]; double n; } moments;

static kw_status measure_one(kw_pipeline *p, const char *path, const uint8_t background[3], int channels, moments *m,
                             kw_err *e)
{
    kw_picture picture, fitted;
    int f = kw_pipeline_factor(p), side = kw_pipeline_native(p);
    KW_TRY(kw_picture_read(path, background, &picture, e));
    kw_status s = kw_picture_fit(&picture, kw_fit_cover(picture.w, picture.h, side, side), &fitted, e);
    kw_picture_free(&picture);
    KW_TRY(s);
    int64_t pixels = (int64_t)(side / f) * (side / f);
    float *z = kw_block_new(sizeof *z * (size_t)(pixels * channels));
    s = z ? kw_pipeline_encode(p, &fitted, z, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    for (int64_t i = 0; !s && i < pixels * channels; i++) {
        m->sum[i / pixels] += (double)z[i];
        m->squares[i / pixels] += (double)z[i] * (double)z[i];
    }
    m->n += (double)pixels;
    kw_block_free(z);
    kw_picture_free(&fitted);
    return s;
}

static kw_status measure(kw_cli *c, const config *o, kw_pipeline *p, int channels, moments *m, kw_err *e)
{
    kw_dataset *d;
    kw_progress bar;
    uint8_t background[3];
    KW_TRY(kw_picture_colour(o->background, background, e));
    KW_TRY(kw_data_scan(c->arena, o->data, &(kw_scan){ 0 }, &d, e));
    size_t step = KW_MAX(d->n / (size_t)o->most, 1), done = 0;
    kw_progress_begin(&bar, c, _(N_("measuring latents")), _(N_("picture")), (int64_t)(d->n / step));
    for (size_t i = 0; i < d->n; i += step) {
        KW_TRY(measure_one(p, d->items[i].path, background, channels, m, e));
        kw_progress_at(&bar, (int64_t)++done, NULL);
    }
    kw_progress_end(&bar, (int64_t)done, NULL);
    return KW_OK;
}

/* Latents are measured as the U-Net sees them; the model's own scaling must be 1 for the fold to be the whole truth. */
static void fold(int c, const moments *m, float *qw, float *qb, float *pw, float *pb)
{
    double mean[64], sd[64];
    for (int i = 0; i < c; i++) {
        mean[i] = m->sum[i] / m->n;
        sd[i] = sqrt(KW_MAX(m->squares[i] / m->n - mean[i] * mean[i], 1e-12));
        for (int k = 0; k < 2 * c; k++)
            qw[i * 2 * c + k] = (float)(qw[i * 2 * c + k] / sd[i]);
        qb[i] = (float)((qb[i] - mean[i]) / sd[i]);
        qb[c + i] -= (float)(2 * log(sd[i]));
    }
    for (int o = 0; o < c; o++)
        for (int i = 0; i < c; i++) {
            pb[o] += (float)(pw[o * c + i] * mean[i]);
            pw[o * c + i] = (float)(pw[o * c + i] * sd[i]);
        }
}

/* A copy in f32, to be changed. */
static kw_status take(kw_arena *a, kw_source *s, const char *name, kw_values *v, float **data, kw_err *e)
{
    const kw_tensor *t = kw_source_find(s, KW_PART_VAE, name);
    if (!t)
        return kw_fail(e, KW_EDATA, "the autoencoder has no %s", name);
    size_t count = (size_t)kw_tensor_count(t);
    if (!(*data = kw_alloc_array(a, count, sizeof **data)))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_convert(KW_F32, *data, t->dtype, t->data, count);
    *v = (kw_values){ KW_PART_VAE, *t };
    v->t.dtype = KW_F32;
    v->t.data = *data;
    v->t.bytes = count * sizeof **data;
    return KW_OK;
}

static kw_status rewrite(kw_cli *c, const config *o, const kw_sd *sd, const moments *m, kw_err *e)
{
    static const char *const names[] = { "quant_conv.weight", "quant_conv.bias", "post_quant_conv.weight",
                                         "post_quant_conv.bias" };
    float *data[KW_LEN(names)];
    kw_values v[KW_LEN(names)];
    for (size_t i = 0; i < KW_LEN(names); i++)
        KW_TRY(take(c->arena, sd->source, names[i], &v[i], &data[i], e));
    fold(sd->vae.latent, m, data[0], data[1], data[2], data[3]);
    char *path = kw_sprintf(c->arena, "%s/vae/diffusion_pytorch_model.safetensors", o->model);
    kw_guard_begin();
    kw_status s = path ? kw_source_save(sd->source, KW_PART_VAE, v, KW_LEN(v), KW_F32, NULL, 0, path, e)
                       : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_guard_end();
    return s;
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    const config *o = arg;
    kw_pipeline *p;
    moments m = { 0 };
    kw_pipeline_options po = { .compute = KW_F32 };
    kw_say(c, _(N_("opening the model")));
    kw_status opened = kw_pipeline_open(c->arena, o->model, NULL, NULL, 0, &po, &p, e);
    kw_hush(c);
    KW_TRY(opened);
    const kw_sd *sd = kw_pipeline_base(p);
    if (sd->vae.scaling != 1 || sd->vae.shift != 0 || !sd->vae.quant || !sd->vae.post_quant || sd->vae.latent > 64)
        return kw_fail(e, KW_EDATA, "%s: whitening needs quant and post-quant convolutions and a scaling_factor of 1", o->model);
    KW_TRY(measure(c, o, p, sd->vae.latent, &m, e));
    KW_TRY(rewrite(c, o, sd, &m, e));
    for (int i = 0; i < sd->vae.latent; i++) {
        double mean = m.sum[i] / m.n, deviation = sqrt(KW_MAX(m.squares[i] / m.n - mean * mean, 0));
        printf(c->global.json ? "{\"channel\":%d,\"mean\":%.6f,\"deviation\":%.6f}\n"
                              : "%d  mean %8.4f  deviation %7.4f\n", i, mean, deviation);
    }
    return KW_OK;
}

const kw_command kw_command_whiten = {
    .name = "whiten", .help = N_("give an autoencoder latents of mean 0 and deviation 1"), .options = options, .config_size = sizeof(config),
    .flags = KW_COMMAND_THREADS, .run = run,
};
