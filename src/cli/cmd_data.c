/* cmd_data.c - kiwame data: what training would make of a folder of pictures. Reads only. */
#include "data_show.h"
#include "net_settings.h"

#include <stdlib.h>

#include "model/model.h"

typedef struct {
    const char *dir, *base, *vae, *trigger, *caption_extension, *encoding, *held_out, *background;
    bool any_line, follow, no_upscale, single, all;
    int resolution, repeats, bucket_min, bucket_max, bucket_step, token_length, batch;
    double validation;
    uint64_t seed;
} config;

static const kw_option options[] = {
    KW_ROW_GROUP(N_("Pictures")),
    KW_ROW_PATH("dir", config, dir, NULL, N_("folder of pictures"), .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED,
                .value = "DIR"),
    KW_ROW_PATH("base", config, base, NULL,
                N_("model that would be trained on; default: the one that comes along"),
                .alias = "pretrained_model_name_or_path"),
    KW_ROW_PATH("vae", config, vae, NULL, N_("another autoencoder")),
    KW_ROW_INT("resolution", config, resolution, 0, 0, 4096, N_("pixels of a square picture"), .word = "base",
               .word_is = 0),
    KW_ROW_INT("repeats", config, repeats, 0, 0, KW_MAX_REPEATS, N_("how often a picture is seen in one epoch"),
               .word = "auto", .word_is = 0, .alias = "num_repeats"),
    KW_ROW_TEXT("background", config, background, "white",
                N_("colour below transparent parts: white, black and the like, or #rrggbb"), .value = "COLOUR"),
    KW_ROW_BOOL("follow", config, follow, false, N_("read links that lead out of the folder")),
    KW_ROW_BOOL("no-upscale", config, no_upscale, false, N_("small pictures keep their size"),
                .alias = "bucket_no_upscale"),
    KW_ROW_BOOL("single-size", config, single, false, N_("no buckets: every picture is cut to a square")),
    KW_ROW_INT("bucket-min", config, bucket_min, 0, 0, 8192, N_("shortest side of a bucket"), .word = "auto",
               .word_is = 0, .alias = "min_bucket_reso"),
    KW_ROW_INT("bucket-max", config, bucket_max, 0, 0, 8192, N_("longest side of a bucket"), .word = "auto",
               .word_is = 0, .alias = "max_bucket_reso"),
    KW_ROW_INT("bucket-step", config, bucket_step, 0, 0, 1024, N_("sides are multiples of this"), .word = "auto",
               .word_is = 0, .alias = "bucket_reso_steps"),
    KW_ROW_INT("batch-size", config, batch, 2, 1, 1024, N_("pictures per batch"), .alias = "train_batch_size"),
    KW_ROW_DOUBLE("validation", config, validation, 0.1, 0, 0.5,
                  N_("share of pictures held out, for the validation loss"), .alias = "validation_split"),
    KW_ROW_PATH("held-out", config, held_out, NULL, N_("folder of held-out pictures, instead of a share"),
                .value = "DIR"),
    KW_ROW_SEED("seed", config, seed, 42, N_("seed of everything random")),
    KW_ROW_GROUP(N_("Captions")),
    KW_ROW_TEXT("trigger", config, trigger, NULL, N_("word that calls the trained subject"), .value = "WORD"),
    KW_ROW_TEXT("caption-extension", config, caption_extension, NULL, N_("caption files to look for first"),
                .alias = "caption_extension"),
    KW_ROW_TEXT("encoding", config, encoding, NULL, N_("encoding of caption files, if it is not found out"),
                .value = "NAME"),
    KW_ROW_BOOL("any-line", config, any_line, false, N_("caption files of several lines: one of them by chance"),
                .alias = "enable_wildcard"),
    KW_ROW_INT("max-token-length", config, token_length, 75, 75, 225, N_("tokens of a caption: 75, 150 or 225"),
               .alias = "max_token_length", .step = 75),
    KW_ROW_GROUP(N_("Result")),
    KW_ROW_BOOL("all", config, all, false, N_("list every picture, and every file in each list")),
    KW_ROW_END
};

/* ---- what the base asks for --------------------------------------------------------------------------- */

typedef struct { const char *name; int resolution, factor, levels; kw_tokenizer *tokenizer; } base_facts;

static kw_status read_vae(kw_source *s, base_facts *f, kw_err *e)
{
    kw_vae_config v;
    if (!kw_source_has(s, KW_PART_VAE))
        return KW_OK;
    KW_TRY(kw_vae_read(kw_source_config(s, KW_PART_VAE), &v, e));
    f->factor = kw_vae_factor(&v);
    if (v.sample_size)
        f->resolution = v.sample_size;
    return KW_OK;
}

static kw_status read_base(kw_cli *c, const config *g, base_facts *f, kw_err *e)
{
    kw_source *s, *vae;
    kw_unet_config u;
    const char *base = g->base ? g->base : kw_embedded_base(c->arena);
    *f = (base_facts){ .resolution = 512, .factor = 8, .levels = 4, .name = base };    /* Stable Diffusion 1.x */
    if (!base)
        return kw_tokenizer_clip(c->arena, &f->tokenizer, e);
    KW_TRY(kw_source_open(c->arena, base, &s, e));
    vae = s;
    if (g->vae)
        KW_TRY(kw_source_open(c->arena, g->vae, &vae, e));
    KW_TRY(read_vae(vae, f, e));
    if (kw_source_has(s, KW_PART_UNET)) {
        KW_TRY(kw_unet_read(kw_source_config(s, KW_PART_UNET), &u, e));
        f->levels = u.levels;
        if (u.sample_size)
            f->resolution = u.sample_size * f->factor;
    }
    const char *dir = kw_source_tokenizer(s, KW_PART_TEXT);
    return dir ? kw_tokenizer_open(c->arena, dir, &f->tokenizer, e) : kw_tokenizer_clip(c->arena, &f->tokenizer, e);
}

static kw_bucket_rule rule_of(const config *g, const base_facts *f)
{
    kw_bucket_rule r = kw_bucket_rule_with(g->resolution ? g->resolution : f->resolution, f->factor, f->levels,
                                           g->bucket_min, g->bucket_max, g->bucket_step);
    r.no_upscale = g->no_upscale;
    r.single = g->single;
    return r;
}

/* ---- the folder --------------------------------------------------------------------------------------- */

static bool checked(void *progress, size_t done, size_t n)
{
    (void)n;
    kw_progress_at(progress, (int64_t)done, NULL);
    return true;
}

static kw_status check(kw_cli *c, const uint8_t background[3], kw_dataset *d, kw_err *e)
{
    kw_machine m;
    kw_progress p;
    kw_decoder *decoder;
    kw_machine_read(&m);
    int workers = KW_MAX(1, KW_MIN(c->global.threads ? c->global.threads : m.cores, 16));
    KW_TRY(kw_decoder_new(kw_decoder_argv(), workers, &decoder, e));
    kw_progress_begin(&p, c, _(N_("reading pictures")), _(N_("picture")), (int64_t)d->n);
    kw_check how = { .decoder = decoder, .workers = workers, .background = background, .most_bad = 1,
                     .progress = checked, .user = &p };
    kw_status s = kw_data_check(d, &how, e);
    kw_progress_pause(&p);
    kw_decoder_free(decoder);
    return s;
}

static kw_status read_folder(kw_cli *c, const config *g, kw_data_view *v, kw_err *e)
{
    kw_scan scan = { .trigger = g->trigger, .caption_extension = g->caption_extension, .encoding = g->encoding,
                     .repeats = g->repeats, .follow = g->follow, .any_line = g->any_line };
    kw_say(c, _(N_("reading pictures")));
    kw_status scanned = kw_data_scan(c->arena, g->dir, &scan, &v->d, e);
    kw_hush(c);
    KW_TRY(scanned);
    if (g->held_out)
        KW_TRY(kw_data_add_held_out(v->d, g->held_out, &scan, e));
    KW_TRY(check(c, v->background, v->d, e));
    if (!g->held_out)
        KW_TRY(kw_data_split(v->d, g->validation, g->seed, e));
    return kw_data_buckets(v->d, &v->rule, e);
}

static kw_status plan(kw_cli *c, const config *g, kw_data_view *v, kw_err *e)
{
    kw_plan *p;
    KW_TRY(kw_plan_new(c->arena, v->d, &(kw_plan_config){ .seed = g->seed, .batch = g->batch }, &p, e));
    v->batch = g->batch;
    v->samples = kw_plan_samples(p);
    v->batches = kw_plan_steps(p);
    return KW_OK;
}

/* More than a tenth of the pictures bad: training would refuse, so this ends with its code too. */
static kw_status verdict(const kw_dataset *d, kw_err *e)
{
    size_t bad = d->n - kw_data_count(d, false) - kw_data_count(d, true);
    if (bad * 10 <= d->n)
        return KW_OK;
    return kw_advise(e, kw_fail(e, KW_EDATA, N_("%zu of %zu pictures cannot be used"), bad, d->n),
                     N_("repair or remove the pictures listed as bad: training starts with at most 10 %% of them"));
}

static kw_status run(kw_cli *c, void *config_, kw_err *e)
{
    config *g = config_;
    base_facts f;
    kw_data_view v = { .all = g->all };
    KW_TRY(kw_picture_colour(g->background, v.background, e));
    KW_TRY(kw_model_named(c, &g->base, e));
    KW_TRY(read_base(c, g, &f, e));
    v.rule = rule_of(g, &f);
    v.base = f.name;
    kw_status s = read_folder(c, g, &v, e);
    if (s && v.d && s == KW_EDATA && !c->global.json)
        kw_data_show_remarks(c, &v);      /* the reasons, before the error that says there is nothing left */
    KW_TRY(s);
    KW_TRY(kw_data_captions(c->arena, v.d, f.tokenizer, (size_t)g->token_length / 75, &v.report, e));
    KW_TRY(plan(c, g, &v, e));
    if (c->global.json)
        kw_data_print_json(&v);
    else
        kw_data_show(c, &v);
    return verdict(v.d, e);
}

const kw_command kw_command_data = {
    .name = "data", .help = N_("show what training would make of a folder of pictures"),
    .about = N_("Reads every picture and caption and tells what was understood: captions and where they come from, "
                "sizes, what is cut off, and each file that is not used with the reason. Writes nothing."),
    .examples = "kiwame data photos\nkiwame data photos --trigger kiwa --base model --all",
    .options = options, .config_size = sizeof(config), .run = run,
};
