/* settings.c - the option tables of training, and their translation into a trainer's configuration. */
#include "train.h"

#include <string.h>

#define S kw_settings

/* What a row is for, where it is not for all: whole parts; texts; noise, and so sample pictures. */
enum {
    PARTS = KW_FOR_FULL | KW_FOR_VAE,
    TEXT = KW_FOR_LORA | KW_FOR_FULL | KW_FOR_ALIGN,
    NOISE = KW_FOR_LORA | KW_FOR_FULL,
};

const kw_option kw_model_rows[] = {
    KW_ROW_GROUP(N_("Adapter")),
    KW_ROW_INT("rank", S, rank, 16, 1, 1024, N_("inner dimension of the two factors of each layer"),
               .alias = "network_dim|dim", .use = KW_FOR_LORA),
    KW_ROW_FLOAT("alpha", S, alpha, -1, 0, 4096, N_("a branch is scaled by alpha / rank"), .alias = "network_alpha",
                 .word = "rank", .word_is = -1, .use = KW_FOR_LORA),
    KW_ROW_INT("conv-rank", S, conv_rank, 0, 0, 1024, N_("rank of 3x3 convolutions; 0: as rank"), .alias = "conv_dim",
               .use = KW_FOR_LORA),
    KW_ROW_FLOAT("conv-alpha", S, conv_alpha, 0, 0, 4096, N_("alpha of 3x3 convolutions; 0: as alpha"),
                 .use = KW_FOR_LORA),
    KW_ROW_TEXT("targets", S, targets, "attention,ff,conv",
                N_("adapted layers: attention, ff, conv, text, separated by commas"), .use = KW_FOR_LORA),
    KW_ROW_PATH("init", S, init, NULL, N_("LoRA file to start from"), .alias = "network_weights", .use = KW_FOR_LORA),
    KW_ROW_GROUP(N_("Parts")),
    KW_ROW_TEXT("part", S, part, "unet",
                N_("full training: the parts that are trained (unet, text, vae), separated by commas"), .use = PARTS),
    KW_ROW_GROUP(N_("Optimizer")),
    KW_ROW_DOUBLE("learning-rate", S, learning_rate, 1e-4, 0, 1, N_("learning rate"),
                  .alias = "learning_rate|unet_lr|lr", .flags = KW_OPT_ABOVE),
    KW_ROW_DOUBLE("text-learning-rate", S, text_learning_rate, -1, 0, 1, N_("learning rate of the text encoder"),
                  .alias = "text_encoder_lr", .word = "same", .word_is = -1, .use = TEXT),
    KW_ROW_CHOICE("optimizer", S, optimizer, 0, kw_optimizer_names + 1, N_("how weights move"),
                  .alias = "optimizer_type"),
    KW_ROW_DOUBLE("weight-decay", S, weight_decay, 0.01, 0, 1,
                  N_("share of a weight that is taken away, times the rate")),
    KW_ROW_DOUBLE("beta1", S, beta1, 0.9, 0, 0.9999, N_("memory of the mean of gradients")),
    KW_ROW_DOUBLE("beta2", S, beta2, 0.999, 0, 0.99999, N_("memory of their squares")),
    KW_ROW_DOUBLE("eps", S, eps, 1e-8, 0, 1, N_("floor of the denominator"), .flags = KW_OPT_ABOVE),
    KW_ROW_CHOICE("lr-scheduler", S, scheduler, 0, "constant|cosine|linear", N_("learning rate over the run"),
                  .alias = "lr_scheduler"),
    KW_ROW_INT("lr-warmup-steps", S, warmup, 0, 0, 1000000, N_("steps over which the rate rises from zero"),
               .alias = "lr_warmup_steps"),
    KW_ROW_DOUBLE("lr-floor", S, min_factor, 0, 0, 1, N_("the rate never falls below this share")),
    KW_ROW_INT("gradient-accumulation-steps", S, accumulation, 1, 1, 4096, N_("batches per update"),
               .alias = "gradient_accumulation_steps"),
    KW_ROW_DOUBLE("max-grad-norm", S, max_norm, 0, 0, 1e9, N_("longer gradients are shortened to this"),
                  .alias = "max_grad_norm", .word = "off", .word_is = 0),
    KW_ROW_CHOICE("update", S, update, 0, "auto|whole|fused",
                  N_("whole: after all gradients; fused: each weight as soon as its gradient is known, so that none is "
                     "kept; auto: fused in full training without limit of the norm and without accumulation")),
    KW_ROW_CHOICE("trained-dtype", S, trained_dtype, 0, "f32|bf16",
                  N_("full training: type of trained matrices; bf16: rounded by chance, half the memory"),
                  .use = PARTS),
    KW_ROW_DOUBLE("ema", S, average, 0, 0, 0.999999,
                  N_("decay of the moving average of weights, which is then what is saved"), .word = "off",
                  .word_is = 0),
    KW_ROW_GROUP(N_("Objective")),
    KW_ROW_DOUBLE("min-snr-gamma", S, min_snr, 0, 0, 1000, N_("limit the weight of easy timesteps (5 is usual)"),
                  .alias = "min_snr_gamma", .word = "off", .word_is = 0, .use = NOISE),
    KW_ROW_DOUBLE("kl-weight", S, kl, 1e-6, 0, 1,
                  N_("autoencoder: weight of the divergence of latents from a unit Gaussian"), .use = KW_FOR_VAE),
    KW_ROW_DOUBLE("mse-weight", S, mse, 0, 0, 100,
                  N_("autoencoder: weight of the squared error beside the absolute one"), .use = KW_FOR_VAE),
    KW_ROW_INT("clip-skip", S, clip_skip, 1, 1, 24,
               N_("text encoder layer used, counted from the end; of SDXL 1 and 2 are the same"),
               .alias = "clip_skip", .use = TEXT),
    KW_ROW_GROUP(N_("Computation")),
    KW_ROW_CHOICE("dtype", S, dtype, 0, "f32|bf16", N_("type of activations"), .alias = "mixed_precision"),
    KW_ROW_CHOICE("base-dtype", S, base_dtype, 0, "file|int8",
                  N_("LoRA: frozen weights of the U-Net as in the file, or in one byte a number: less memory, "
                     "less exact"),
                  .use = KW_FOR_LORA),
    KW_ROW_SIZE("memory", S, memory, 0, 0, 1e15,
                N_("limit of the memory for all: weights, what is trained, activations; more is computed twice to keep "
                   "to it"), .word = "off", .word_is = 0),
    KW_ROW_SEED("seed", S, seed, 42, N_("seed of everything random")),
    KW_ROW_END
};

const kw_option kw_run_rows[] = {
    KW_ROW_GROUP(N_("Pictures")),
    KW_ROW_PATH("data", S, data, NULL, N_("folder of pictures"), .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED,
                .value = "DIR", .alias = "train_data_dir"),
    KW_ROW_PATH("base", S, base, NULL, N_("model to train on: folder or file; default: the small one that comes along"),
                .alias = "pretrained_model_name_or_path"),
    KW_ROW_PATH("vae", S, vae, NULL, N_("another autoencoder")),
    KW_ROW_TEXT("trigger", S, trigger, NULL, N_("word that calls the trained subject"), .value = "WORD"),
    KW_ROW_TEXT("preset", S, preset, "character",
                N_("settings that suit a purpose: character, style, object; plain: none"), .value = "NAME",
                .use = KW_FOR_LORA),
    KW_ROW_TEXT("caption-extension", S, caption_extension, NULL, N_("caption files to look for first"),
                .alias = "caption_extension"),
    KW_ROW_TEXT("encoding", S, encoding, NULL, N_("encoding of caption files, if it is not found out"),
                .value = "NAME"),
    KW_ROW_BOOL("any-line", S, any_line, false, N_("caption files of several lines: one of them by chance"),
                .alias = "enable_wildcard"),
    KW_ROW_INT("resolution", S, resolution, 0, 0, 4096, N_("pixels of a square picture"), .word = "base", .word_is = 0),
    KW_ROW_INT("repeats", S, repeats, 0, 0, 999, N_("how often a picture is seen in one epoch"), .word = "auto",
               .word_is = 0, .alias = "num_repeats"),
    KW_ROW_TEXT("background", S, background, "white",
                N_("colour below transparent parts: white, black and the like, or #rrggbb"), .value = "COLOUR"),
    KW_ROW_BOOL("flip", S, flip, false, N_("mirror half of the pictures"), .alias = "flip_aug"),
    KW_ROW_BOOL("random-crop", S, random_crop, false, N_("cut out by chance instead of the centre"),
                .alias = "random_crop"),
    KW_ROW_BOOL("follow", S, follow, false, N_("read links that lead out of the folder")),
    KW_ROW_BOOL("single-size", S, single, false, N_("no buckets: every picture is cut to a square")),
    KW_ROW_BOOL("no-upscale", S, no_upscale, false, N_("small pictures keep their size"), .alias = "bucket_no_upscale"),
    KW_ROW_INT("bucket-min", S, bucket_min, 0, 0, 8192, N_("shortest side of a bucket"), .word = "auto", .word_is = 0,
               .alias = "min_bucket_reso"),
    KW_ROW_INT("bucket-max", S, bucket_max, 0, 0, 8192, N_("longest side of a bucket"), .word = "auto", .word_is = 0,
               .alias = "max_bucket_reso"),
    KW_ROW_INT("bucket-step", S, bucket_step, 0, 0, 1024, N_("sides are multiples of this"), .word = "auto",
               .word_is = 0, .alias = "bucket_reso_steps"),
    KW_ROW_INT("vae-tile", S, vae_tile, KW_VAE_AUTO, KW_VAE_WHOLE, KW_VAE_MOST,
               N_("encode in stripes of at most so many pixels squared: the same latents, less memory; 0: whole"),
               .unit = "px", .word = "auto", .word_is = KW_VAE_AUTO, .use = TEXT),
    KW_ROW_PATH("cache", S, cache, NULL, N_("folder of latents and text features; default: the user's cache folder")),
    KW_ROW_GROUP(N_("Captions")),
    KW_ROW_DOUBLE("caption-dropout", S, caption_dropout, 0, 0, 1, N_("share of captions that are left empty"),
                  .alias = "caption_dropout_rate", .use = TEXT),
    KW_ROW_BOOL("shuffle-caption", S, shuffle, false, N_("tags between commas in random order"),
                .alias = "shuffle_caption", .use = TEXT),
    KW_ROW_INT("keep-tokens", S, keep_tokens, -1, 0, 255, N_("tags that stay in front when shuffled"),
               .word = "trigger", .word_is = -1, .alias = "keep_tokens", .use = TEXT),
    KW_ROW_INT("max-token-length", S, token_length, 75, 75, 225, N_("tokens of a caption: 75, 150 or 225"),
               .alias = "max_token_length", .step = 75, .use = TEXT),
    KW_ROW_GROUP(N_("Length")),
    KW_ROW_INT("steps", S, steps, 0, 0, 100000000, N_("optimizer steps"), .word = "auto", .word_is = 0,
               .alias = "max_train_steps"),
    KW_ROW_INT("epochs", S, epochs, 0, 0, 1000000, N_("times through all pictures, instead of steps"), .word = "off",
               .word_is = 0, .alias = "max_train_epochs"),
    KW_ROW_INT("batch-size", S, batch, 2, 1, 1024, N_("pictures per batch"), .alias = "train_batch_size"),
    KW_ROW_DOUBLE("noise-offset", S, noise_offset, 0, 0, 1, N_("lets brightness move (0.05 is usual)"),
                  .alias = "noise_offset", .use = NOISE),
    KW_ROW_BOOL("stratified", S, stratified, false, N_("timesteps of a batch spread evenly"), .use = NOISE),
    KW_ROW_INT("masks", S, masks, 16, 0, 100000,
               N_("inpainting bases: different masks for each picture, encoded once each and kept; new: another each "
                  "time, encoded each time"), .word = "new", .word_is = 0, .use = NOISE),
    KW_ROW_GROUP(N_("Results")),
    KW_ROW_PATH("out", S, out, NULL, N_("folder of the run; default: runs/NAME"), .letter = 'o', .alias = "output_dir"),
    KW_ROW_TEXT("name", S, name, NULL, N_("name of the result; default: the trigger word"), .alias = "output_name"),
    KW_ROW_CHOICE("save-dtype", S, save_dtype, 0, "f16|f32|bf16", N_("type of the saved weights"),
                  .alias = "save_precision"),
    KW_ROW_CHOICE("metadata", S, metadata, 0, "full|minimal|none", N_("what the file tells about its making"),
                  .use = KW_FOR_LORA),
    KW_ROW_INT("save-every-steps", S, save_steps, -1, 0, 1000000,
               N_("save a result every so many steps; 0: only at the end; auto: a LoRA five times"), .word = "auto",
               .word_is = -1, .alias = "save_every_n_steps"),
    KW_ROW_INT("save-every-epochs", S, save_epochs, 0, 0, 1000000, N_("save a result every so many epochs"),
               .word = "off", .word_is = 0, .alias = "save_every_n_epochs"),
    KW_ROW_INT("checkpoint-every", S, checkpoint_steps, 0, 0, 1000000, N_("steps between checkpoints to resume from"),
               .word = "auto", .word_is = 0),
    KW_ROW_INT("keep-checkpoints", S, keep_states, 2, 2, 1000, N_("how many of them are kept")),
    KW_ROW_GROUP(N_("Watching")),
    KW_ROW_DOUBLE("validation", S, validation, 0.1, 0, 0.5, N_("share of pictures held out, for the validation loss"),
                  .alias = "validation_split"),
    KW_ROW_PATH("held-out", S, held_out, NULL, N_("folder of held-out pictures, instead of a share")),
    KW_ROW_INT("validate-every", S, validate_steps, 0, 0, 1000000, N_("steps between validations"), .word = "auto",
               .word_is = 0, .alias = "validate_every_n_steps"),
    KW_ROW_INT("sample-every-steps", S, sample_steps, -1, 0, 1000000,
               N_("steps between sample pictures; 0: none, nor at the beginning and the end"), .word = "auto",
               .word_is = -1, .alias = "sample_every_n_steps", .use = NOISE),
    KW_ROW_INT("sample-every-epochs", S, sample_epochs, 0, 0, 1000000, N_("epochs between sample pictures"),
               .word = "off", .word_is = 0, .alias = "sample_every_n_epochs", .use = NOISE),
    KW_ROW_LIST("sample-prompt", S, sample_prompts, N_("what sample pictures show; may be given several times"),
                .use = NOISE),
    KW_ROW_INT("sample-sampling-steps", S, sample_sampling_steps, 20, 1, 1000, N_("sampling steps of a sample picture"),
               .use = NOISE),
    KW_ROW_DOUBLE("sample-cfg", S, sample_cfg, 7, 0, 100, N_("guidance of sample pictures"), .use = NOISE),
    KW_ROW_END
};

static kw_status parts(const char *text, unsigned *bits, kw_err *e)
{
    static const struct { const char *name; unsigned bits; } known[] = {
        { "unet", 1u << KW_PART_UNET }, { "vae", 1u << KW_PART_VAE },
        { "text", 1u << KW_PART_TEXT | 1u << KW_PART_TEXT2 },
    };
    *bits = 0;
    for (const char *s = text; *s;) {
        size_t n = strcspn(s, ", "), i = 0;
        while (i < KW_LEN(known) && (strlen(known[i].name) != n || memcmp(known[i].name, s, n)))
            i++;
        if (i == KW_LEN(known)) {
            kw_status st = kw_fail(e, KW_EUSAGE, "part: '%.*s' is not known", (int)n, s);
            return kw_advise(e, st, "choose from unet, text, vae, separated by commas");
        }
        *bits |= known[i].bits;
        s += n;
        s += strspn(s, ", ");
    }
    bool both = (*bits & 1u << KW_PART_VAE) && *bits != 1u << KW_PART_VAE;
    return both ? kw_fail(e, KW_EUSAGE, "the autoencoder is trained alone") : KW_OK;
}

/* Left to us, the update is fused only where nobody can see it: full training, one batch a step, no limit of the
   norm. */
static kw_status settle_update(const kw_settings *s, kw_train_config *c, kw_err *e)
{
    enum { AUTO, WHOLE, FUSED };
    c->fused = s->update == FUSED || (s->update == AUTO && s->method == KW_METHOD_FULL && s->accumulation == 1
                                      && s->max_norm <= 0);
    if (!c->fused || s->accumulation == 1)
        return KW_OK;
    kw_status st = kw_fail(e, KW_EUSAGE, N_("--update fused keeps no gradients to add up over %d batches"),
                           s->accumulation);
    return kw_advise(e, st, N_("choose --update whole, or --gradient-accumulation-steps 1"));
}

kw_status kw_settings_config(kw_arena *a, const kw_settings *s, int64_t total, kw_train_config *c, kw_err *e)
{
    static const kw_dtype type[] = { KW_F32, KW_BF16 };
    *c = (kw_train_config){
        .compute = type[s->dtype], .lora = s->method == KW_METHOD_LORA, .align = s->method == KW_METHOD_ALIGN,
        .clip_skip = s->clip_skip, .min_snr = s->min_snr, .kl = s->kl, .mse = s->mse,
        .accumulation = s->accumulation, .max_norm = s->max_norm, .average = s->average,
        .optimizer = kw_optimizers[s->optimizer], .seed = s->seed, .trained = type[s->trained_dtype],
        .int8 = s->base_dtype && s->method == KW_METHOD_LORA,
        .adapter = { .rank = s->rank, .conv_rank = s->conv_rank, .alpha = kw_settings_alpha(s),
                     .conv_alpha = s->conv_alpha, .seed = s->seed },
        .schedule = { .kind = (kw_rate_kind)s->scheduler, .warmup = s->warmup, .total = total, .floor = s->min_factor },
        .optim = { (float)s->beta1, (float)s->beta2, (float)s->eps },
        .run = { .memory = KW_LEAN, .memory_limit = s->memory, .total = true },
    };
    if (s->alpha < 0 && s->conv_alpha == 0 && s->conv_rank)
        c->adapter.conv_alpha = (float)s->conv_rank;
    KW_TRY(settle_update(s, c, e));
    for (int g = 0; g < KW_N_GROUPS; g++) {
        bool text = g == KW_GROUP_TEXT || g == KW_GROUP_TEXT2;
        c->rate[g] = text && s->text_learning_rate >= 0 ? s->text_learning_rate : s->learning_rate;
        c->decay[g] = s->weight_decay;
    }
    if (c->align)
        c->parts = 1u << KW_PART_TEXT;
    else if (c->lora)
        KW_TRY(kw_targets_parse(s->targets, &c->adapter.targets, e));
    else
        KW_TRY(parts(s->part, &c->parts, e));
    return s->init && c->lora ? kw_tensors_open(a, s->init, &c->init, e) : KW_OK;
}

/* ---- what means nothing here ------------------------------------------------------------------------------------- */

static unsigned use_of(const kw_settings *s)
{
    if (s->method == KW_METHOD_FULL)
        return strstr(s->part, "vae") ? KW_FOR_VAE : KW_FOR_FULL;
    return s->method == KW_METHOD_LORA ? KW_FOR_LORA : KW_FOR_ALIGN;
}

/* "kiwame train lora, kiwame train full --part unet" */
static void add_uses(kw_str *out, unsigned use, const kw_method_names *names)
{
    bool whole = use & KW_FOR_FULL && use & KW_FOR_VAE;
    const char *which = whole ? "" : use & KW_FOR_FULL ? " --part unet" : " --part vae";
    if (use & KW_FOR_LORA && names->lora)
        kw_str_add(out, names->lora);
    if (use & PARTS && names->full)
        kw_str_printf(out, "%s%s%s", out->n ? ", " : "", names->full, which);
    if (use & KW_FOR_ALIGN && names->align)
        kw_str_printf(out, "%s%s", out->n ? ", " : "", names->align);
}

kw_status kw_settings_check(const kw_options *o, const kw_settings *s, const kw_method_names *names, kw_err *e)
{
    unsigned use = use_of(s);
    const kw_option *row = kw_options_misplaced(o, use);
    kw_str uses = { 0 };
    if (!row)
        return KW_OK;
    add_uses(&uses, row->use, names);
    const char *where = uses.s && !uses.failed ? uses.s : "";
    kw_status st = kw_fail(e, KW_EUSAGE, "--%s means nothing to what is trained here", row->name);
    if (row->use == PARTS)
        st = kw_advise(e, st, "it is for %s; --targets chooses the layers of a LoRA", where);
    else if (!strcmp(row->name, "targets") && use & PARTS)
        st = kw_advise(e, st, "it is for %s; --part chooses what is trained here", where);
    else
        st = kw_advise(e, st, "it is for %s", where);
    kw_str_free(&uses);
    return st;
}
