/* cmd_extract.c - kiwame extract: a LoRA out of the difference of two models, or a LoRA at another rank. */
#include "merge_show.h"
#include "net_settings.h"

#include <string.h>

typedef struct {
    const char *tuned, *base, *resize, *out, *targets;
    int rank, conv_rank, dtype, dynamic;
    double energy, target;
    bool all, overwrite, report;
} config;

static const kw_option options[] = {
    KW_ROW_PATH("tuned", config, tuned, NULL, N_("the model whose difference is wanted"), .flags = KW_OPT_POSITIONAL,
                .value = "MODEL"),
    KW_ROW_PATH("base", config, base, NULL, N_("the model that it was trained from")),
    KW_ROW_PATH("resize", config, resize, NULL, N_("a LoRA, to be written at another rank"), .value = "LORA"),
    KW_ROW_PATH("out", config, out, NULL, N_("the new LoRA, a .safetensors"), .letter = 'o'),
    KW_ROW_INT("rank", config, rank, 0, 0, 4096,
               N_("of each layer, at most; 0: 32, or with --energy as many as it takes")),
    KW_ROW_INT("conv-rank", config, conv_rank, 0, 0, 4096,
               N_("the same of convolutions larger than 1 x 1; 0: as --rank")),
    KW_ROW_DOUBLE("energy", config, energy, 0, 0, 1,
                  N_("ranks by layer, so that this share of the squared singular values stays")),
    KW_ROW_CHOICE("dynamic", config, dynamic, 0, "none|sv_ratio|sv_cumulative|sv_fro",
                  N_("--resize: ranks by layer, by kohya's rules")),
    KW_ROW_DOUBLE("dynamic-param", config, target, 0, 0, 1e9,
                  N_("of --dynamic: largest over smallest value; share of their sum; share of the norm")),
    KW_ROW_TEXT("targets", config, targets, "attention,ff,conv,text", N_("sets of layers: attention, ff, conv, text")),
    KW_ROW_CHOICE("dtype", config, dtype, 1, "f32|f16|bf16", N_("numbers of the new LoRA")),
    KW_ROW_BOOL("report", config, report, false, N_("only tell what would be kept; write nothing"), .alias = "dry-run"),
    KW_ROW_BOOL("all", config, all, false, N_("tell it of each layer")),
    KW_ROW_BOOL("overwrite", config, overwrite, false, N_("replace what is there under that name")),
    KW_ROW_END
};

typedef struct { kw_progress bar; } work;

static kw_status tell(void *user, uint64_t done, kw_err *e)
{
    kw_progress_at(&((work *)user)->bar, (int64_t)done, NULL);
    return kw_guard_stopped() ? kw_fail(e, KW_ESTOP, N_("stopped; nothing was written")) : KW_OK;
}

static kw_rank_want wanted(const config *g)
{
    kw_rank_want w = { .rank = g->rank, .conv_rank = g->conv_rank };
    if (g->energy > 0) {
        w.rule = KW_RANK_ENERGY;
        w.target = g->energy;
    } else if (g->dynamic) {
        w.rule = KW_RANK_RATIO + (kw_rank_rule)(g->dynamic - 1);
        w.target = g->target;
    }
    if (!w.rank)
        w.rank = w.rule == KW_RANK_FIXED ? 32 : 4096;
    return w;
}

static kw_dtype type_of(const config *g)
{
    static const kw_dtype types[] = { KW_F32, KW_F16, KW_BF16 };
    return types[g->dtype];
}

/* LDM's names of SDXL count blocks: with --base as that has them, else as published models do. */
static kw_status open_lora(kw_cli *c, const config *g, kw_merge_lora *l, kw_err *e)
{
    kw_source *s;
    kw_unet_config u;
    const char *base = g->base;
    KW_TRY(kw_model_named(c, &base, e));
    if (!base)
        return kw_merge_lora_open(c, g->resize, NULL, l, e);
    KW_TRY(kw_source_open(c->arena, base, &s, e));
    KW_TRY(kw_unet_read(kw_source_config(s, KW_PART_UNET), &u, e));
    const kw_lora_names names = kw_lora_names_of(&u);
    return kw_merge_lora_open(c, g->resize, &names, l, e);
}

static kw_status from_lora(kw_cli *c, const config *g, kw_made_lora *out, kw_made_about *about, kw_err *e)
{
    kw_merge_lora l;
    kw_rank_want want = wanted(g);
    work w;
    int most = 0;
    KW_TRY(open_lora(c, g, &l, e));
    for (size_t i = 0; i < l.file->n; i++)
        most = KW_MAX(most, l.file->item[i].rank);
    if (most)                             /* kohya: a rank never grows */
        want.rank = KW_MIN(want.rank, most);
    kw_progress_begin(&w.bar, c, _(N_("taking apart")), _(N_("layer")), (int64_t)l.file->n);
    kw_status s = kw_lora_sum(c->arena, &l, 1, &want, type_of(g), tell, &w, out, e);
    s ? kw_progress_pause(&w.bar) : kw_progress_end(&w.bar, (int64_t)l.file->n, NULL);
    const char *type = kw_tensors_meta(l.file->file, "modelspec.prediction_type");
    about->xl = l.file->names.xl;
    about->v2 = kw_lora_file_width(l.file) == 1024;
    about->v = type && !strcmp(type, "v");
    return s;
}

static kw_status from_models(kw_cli *c, const config *g, kw_made_lora *out, kw_made_about *about, kw_err *e)
{
    kw_extract x = { .rank = wanted(g), .type = type_of(g) };
    const char *tuned = g->tuned, *base = g->base;
    kw_unet_config u = { 0 };
    work w;
    KW_TRY(kw_targets_parse(g->targets, &x.targets, e));
    KW_TRY(kw_model_named(c, &tuned, e));
    KW_TRY(kw_model_named(c, &base, e));
    KW_TRY(kw_source_open(c->arena, tuned, &x.tuned, e));
    KW_TRY(kw_source_open(c->arena, base, &x.base, e));
    if (kw_source_has(x.tuned, KW_PART_UNET))
        KW_TRY(kw_unet_read(kw_source_config(x.tuned, KW_PART_UNET), &u, e));
    const int64_t total = (int64_t)kw_extract_n(&x);
    kw_progress_begin(&w.bar, c, _(N_("taking apart")), _(N_("layer")), total);
    kw_status s = kw_lora_extract(c->arena, &x, tell, &w, out, e);
    s ? kw_progress_pause(&w.bar) : kw_progress_end(&w.bar, total, NULL);
    about->xl = kw_lora_names_of(&u).xl;
    about->v2 = u.context[0] == 1024;
    about->v = !strcmp(kw_source_noise(x.tuned)->prediction_type, "v_prediction");
    return s;
}

static kw_status recipe(kw_cli *c, const config *g, char **how, kw_err *e)
{
    json_t *j = json_pack("{s:s, s:s, s:i}", "program", "kiwame " KW_VERSION, g->resize ? "resized" : "tuned",
                          kw_path_name(g->resize ? g->resize : g->tuned), "rank", g->rank);
    if (j && g->base)
        json_object_set_new(j, "base", json_string(kw_path_name(g->base)));
    if (j && g->energy > 0)
        json_object_set_new(j, "energy", json_real(g->energy));
    return kw_json_text(c->arena, j, how, e);
}

static kw_status check(const config *g, kw_err *e)
{
    if (!g->resize == !g->tuned)
        return kw_fail(e, KW_EUSAGE, N_("either a model (with --base), or --resize with a LoRA"));
    if (g->tuned && !g->base)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("a difference needs --base")),
                         N_("the base is the model that the other was trained from"));
    if (g->tuned && g->dynamic)
        return kw_fail(e, KW_EUSAGE, N_("--dynamic is for --resize; a model's difference takes --energy"));
    if (g->dynamic && g->target <= (g->dynamic == 1 ? 1 : 0))
        return kw_fail(e, KW_EUSAGE, N_("--dynamic needs --dynamic-param: a ratio above 1, or a share"));
    if (!g->report && (!g->out || !kw_ends_with(g->out, ".safetensors")))
        return kw_fail(e, KW_EUSAGE, N_("--out wants a name that ends in .safetensors"));
    if (!g->report && !g->overwrite && (kw_is_file(g->out) || kw_is_dir(g->out)))
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s is already there"), g->out), N_("--overwrite replaces it"));
    return KW_OK;
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    const config *g = arg;
    kw_made_lora made;
    char *how;
    KW_TRY(check(g, e));
    KW_TRY(recipe(c, g, &how, e));
    kw_made_about about = { .to = g->out, .how = how };
    KW_TRY(g->resize ? from_lora(c, g, &made, &about, e) : from_models(c, g, &made, &about, e));
    if (!c->global.json) {
        KW_TRY(kw_made_show(&made, g->all, e));
        printf(_(N_("energy kept: %.2f %% of what such layers hold\n")), 100 * made.energy);
        if (g->tuned && made.outside > 0.0001)
            printf(_(N_("%.2f %% of the difference lies in layers that a LoRA cannot hold, or were not asked for\n")),
                   100 * made.outside);
    }
    if (!g->report)
        KW_TRY(kw_made_save(c, &made, &about, e));
    return c->global.json ? kw_put_json(kw_made_json(&made), e) : KW_OK;
}

const kw_command kw_command_extract = {
    .name = "extract", .help = N_("a LoRA from the difference of two models, or a LoRA at another rank"),
    .examples = "kiwame extract tuned.safetensors --base sd15 --rank 64 -o style.safetensors\n"
                "kiwame extract tuned --base sd15 --energy 0.95 --rank 128 -o style.safetensors\n"
                "kiwame extract --resize big.safetensors --rank 16 -o small.safetensors",
    .options = options, .config_size = sizeof(config), .run = run, .flags = KW_COMMAND_THREADS,
};
