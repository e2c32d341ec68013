/* cmd_merge.c - kiwame merge: models into one, LoRAs into a model, LoRAs into one LoRA. */
#include "convert_show.h"
#include "lora_option.h"
#include "merge_show.h"
#include "net_settings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *to, *base, *blocks;
    kw_texts model, lora;
    int method, dtype, rank, conv_rank;
    double weight, scale, density, drop, energy;
    uint64_t seed;
    bool vae, partial, report, all, overwrite;
} config;

static const kw_option options[] = {
    KW_ROW_PATH("to", config, to, NULL, N_("NAME.safetensors for one file, any other name for a diffusers folder"),
                .flags = KW_OPT_POSITIONAL, .value = "OUT"),
    KW_ROW_LIST("model", config, model, 
                N_("a model; :X behind it is its weight. The first one gives all that is not merged"),
                .value = "MODEL[:X]"),
    KW_ROW_CHOICE("method", config, method, KW_MERGE_SUM, "sum|add-difference|slerp|ties|dare|dare-ties",
                  N_("A + x (B - A) | A + x (B - C) | along an arc | differences from C: trimmed, signs elected | most "
                     "of them dropped by chance | both")),
    KW_ROW_PATH("base", config, base, NULL,
                N_("C, the model that the others were trained from; of LoRAs: the one they are for, where its blocks "
                   "are unusual")),
    KW_ROW_DOUBLE("weight", config, weight, 0.5, -10, 10,
                  N_("x of models that have none of their own; ties, dare and add-difference: 1 unless given")),
    KW_ROW_TEXT("blocks", config, blocks, NULL,
                N_("x for each block: 26 numbers (BASE, IN00-11, M00, OUT00-11), 25 without BASE, for SDXL 20 or 19, "
                   "or names, IN=0.3,M00=1")),
    KW_ROW_DOUBLE("scale", config, scale, 1, -10, 10,
                  N_("ties, dare: how much of the merged difference is added to C")),
    KW_ROW_DOUBLE("density", config, density, 0.2, 0, 1, N_("ties: share of each difference that stays"),
                  .flags = KW_OPT_ABOVE),
    KW_ROW_DOUBLE("drop", config, drop, 0.9, 0, 0.9999, N_("dare: share of the numbers that are dropped")),
    KW_ROW_SEED("seed", config, seed, 42, N_("dare: which ones")),
    KW_ROW_BOOL("vae", config, vae, false, N_("merge the autoencoders too; otherwise the first model's stays")),
    KW_ROW_GROUP(N_("LoRAs")),
    KW_ROW_LIST("lora", config, lora,
                N_("into the model; without --model into one LoRA: FILE, FILE:0.8, FILE:TEXT:UNET")),
    KW_ROW_BOOL("allow-partial", config, partial, false, N_("pass over layers of a LoRA that this model lacks")),
    KW_ROW_INT("rank", config, rank, 0, 0, 4096,
               N_("of the one LoRA, by singular values; 0: exactly the sum, ranks add up")),
    KW_ROW_INT("conv-rank", config, conv_rank, 0, 0, 4096,
               N_("the same of convolutions larger than 1 x 1; 0: as --rank")),
    KW_ROW_DOUBLE("energy", config, energy, 0, 0, 1,
                  N_("ranks by layer, so that this share of the squared singular values stays; --rank is the most")),
    KW_ROW_GROUP(N_("Output")),
    KW_ROW_CHOICE("dtype", config, dtype, KW_KEEP, "keep|f32|f16|bf16|fp8",
                  N_("numbers of the new model; fp8: matrices of U-Net and text encoders as e4m3, others as f16")),
    KW_ROW_BOOL("report", config, report, false, N_("only tell whether the models belong together; write nothing"),
                .alias = "dry-run"),
    KW_ROW_BOOL("all", config, all, false, N_("tell it of each block, or of each layer of a LoRA")),
    KW_ROW_BOOL("overwrite", config, overwrite, false, N_("replace what is there under that name")),
    KW_ROW_END
};

typedef struct {
    kw_cli *c;
    const config *g;
    const char *names[KW_MERGE_MODELS];
    bool own[KW_MERGE_MODELS];            /* has a weight of its own */
    kw_merge_recipe r;
    float blocks[KW_LORA_BLOCKS];
    kw_merge_lora lora[KW_MERGE_LORAS];
    kw_progress bar;
} job;

/* ---- what is wanted ---------------------------------------------------------------------------------------------- */

static kw_status open_model(job *j, const char *text, int i, kw_err *e)
{
    char *path = kw_strdup(j->c->arena, text);
    if (!path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!kw_is_file(path) && !kw_is_dir(path))
        j->own[i] = kw_cut_number(path, &j->r.weight[i]);
    j->names[i] = kw_path_name(path);
    const char *found = path;
    KW_TRY(kw_model_named(j->c, &found, e));
    return kw_source_open(j->c->arena, found, &j->r.model[i], e);
}

static bool by_difference(const job *j) { return j->r.method == KW_MERGE_ADD || j->r.method >= KW_MERGE_TIES; }

/* sum: the first has what the others leave of 1, unless it says otherwise. */
static void fill_weights(job *j)
{
    const bool given = kw_options_from(j->c->options, "weight") != KW_FROM_DEFAULT;
    double rest = 1;
    for (int i = 1; i < j->r.n; i++) {
        if (!j->own[i])
            j->r.weight[i] = by_difference(j) && !given ? 1 : j->g->weight;
        rest -= j->r.weight[i];
    }
    if (!j->own[0])
        j->r.weight[0] = j->r.method == KW_MERGE_SUM ? rest : j->r.method >= KW_MERGE_TIES && given ? j->g->weight : 1;
}

/* 26 or 20 numbers; 25 or 19: x stands for BASE; names: the others are x. */
static kw_status read_blocks(job *j, kw_err *e)
{
    const char *text = j->g->blocks;
    const double x = j->r.method >= KW_MERGE_TIES ? j->r.scale : j->r.weight[j->r.n - 1];
    int n = 1;
    if (!text)
        return KW_OK;
    for (const char *s = text; *s; s++)
        n += *s == ',';
    const bool names = strchr(text, '=') != NULL, short_ = n == 25 || n == 19;
    if (!names && !short_ && n != 26 && n != 20)
        return kw_fail(e, KW_EUSAGE, N_("--blocks: %d numbers; 26 or 25 are wanted, for SDXL 20 or 19, or names"), n);
    char *whole = names ? kw_sprintf(j->c->arena, "BASE=%.9g,IN=%.9g,M00=%.9g,OUT=%.9g,%s", x, x, x, x, text)
        : short_ ? kw_sprintf(j->c->arena, "%.9g,%s", x, text) : kw_strdup(j->c->arena, text);
    if (!whole)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_lora_blocks_parse(whole, j->blocks, e));
    j->r.blocks = j->blocks;
    return KW_OK;
}

static kw_status check(const job *j, kw_err *e)
{
    const kw_merge_method m = j->r.method;
    const char *word = kw_merge_word(m);
    if (j->r.n == 1 && !j->g->lora.n)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("there is one model and nothing to merge with it")),
                         N_("give another --model, or a --lora"));
    if (j->r.n > 1 && kw_merge_needs_base(m) && !j->r.base)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("--method %s works on differences and needs --base"), word),
                         N_("the base is the model that the others were trained from"));
    if (m == KW_MERGE_SLERP && j->r.n > 2)
        return kw_fail(e, KW_EUSAGE, N_("--method slerp takes two models, not %d"), j->r.n);
    if (j->g->blocks && j->r.n != 2 && m <= KW_MERGE_SLERP)
        return kw_fail(e, KW_EUSAGE, N_("--blocks weighs one model beside another; there are %d"), j->r.n);
    return KW_OK;
}

static kw_status read_base(job *j, kw_err *e)
{
    const char *base = j->g->base;
    KW_TRY(kw_model_named(j->c, &base, e));
    return base ? kw_source_open(j->c->arena, base, &j->r.base, e) : KW_OK;
}

static kw_status read_models(job *j, kw_err *e)
{
    const config *g = j->g;
    if (g->model.n > KW_MERGE_MODELS)
        return kw_fail(e, KW_EUSAGE, N_("more than %d models"), KW_MERGE_MODELS);
    for (size_t i = 0; i < g->model.n; i++)
        KW_TRY(open_model(j, g->model.item[i], (int)i, e));
    j->r.n = (int)g->model.n;
    fill_weights(j);
    KW_TRY(check(j, e));
    return read_blocks(j, e);
}

static kw_status read_loras(job *j, kw_err *e)
{
    kw_unet_config u;
    kw_lora_names names, *of_base = NULL;
    const kw_source *shape = j->r.n ? j->r.model[0] : j->r.base;
    if (j->g->lora.n > KW_MERGE_LORAS)
        return kw_fail(e, KW_EUSAGE, N_("more than %d LoRA files"), KW_MERGE_LORAS);
    if (shape && kw_source_has(shape, KW_PART_UNET)) {
        KW_TRY(kw_unet_read(kw_source_config(shape, KW_PART_UNET), &u, e));
        names = kw_lora_names_of(&u);
        of_base = &names;
    }
    for (size_t i = 0; i < j->g->lora.n; i++)
        KW_TRY(kw_merge_lora_open(j->c, j->g->lora.item[i], of_base, &j->lora[i], e));
    j->r.lora = j->lora;
    j->r.n_lora = j->g->lora.n;
    return KW_OK;
}

/* ---- what was done, kept in the file ----------------------------------------------------------------------------- */

static json_t *recipe(const job *j)
{
    const kw_merge_method m = j->r.method;
    json_t *all = json_object(), *models = json_array(), *loras = json_array();
    for (int i = 0; i < j->r.n; i++)
        json_array_append_new(models, json_pack("{s:s, s:f}", "name", j->names[i], "weight", j->r.weight[i]));
    for (size_t i = 0; i < j->r.n_lora; i++)
        json_array_append_new(loras, json_pack("{s:s, s:f, s:f}", "name", kw_path_name(j->lora[i].file->path), "unet",
                                               j->lora[i].unet, "text", j->lora[i].text));
    json_object_set_new(all, "program", json_string("kiwame " KW_VERSION));
    if (j->r.n > 1)
        json_object_set_new(all, "method", json_string(kw_merge_word(m)));
    if (j->r.base)
        json_object_set_new(all, "base", json_string(kw_path_name(j->g->base)));
    json_object_set_new(all, "models", models);
    json_object_set_new(all, "loras", loras);
    if (j->g->blocks)
        json_object_set_new(all, "blocks", json_string(j->g->blocks));
    if (m >= KW_MERGE_TIES && j->r.n > 1)
        json_object_set_new(all, "scale", json_real(j->r.scale));
    if (m == KW_MERGE_TIES && j->r.n > 1)
        json_object_set_new(all, "density", json_real(j->r.density));
    if (m > KW_MERGE_TIES && j->r.n > 1) {
        json_object_set_new(all, "drop", json_real(j->r.drop));
        json_object_set_new(all, "seed", json_integer((json_int_t)j->r.seed));
    }
    return all;
}

static kw_status merged_from(const job *j, char **out, kw_err *e)
{
    kw_str s = { 0 };
    for (int i = 0; i < j->r.n; i++)
        kw_str_printf(&s, "%s%s", i ? ", " : "", j->names[i]);
    for (size_t i = 0; i < j->r.n_lora; i++)
        kw_str_printf(&s, "%s%s", j->r.n || i ? ", " : "", kw_path_name(j->lora[i].file->path));
    *out = s.s && !s.failed ? kw_strdup(j->c->arena, s.s) : NULL;
    kw_str_free(&s);
    return *out ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* ---- the work ---------------------------------------------------------------------------------------------------- */

static kw_status tell(void *user, uint64_t done, kw_err *e)
{
    kw_progress_at(&((job *)user)->bar, (int64_t)(done / 1000000), NULL);
    return kw_guard_stopped() ? kw_fail(e, KW_ESTOP, N_("stopped; nothing was written")) : KW_OK;
}

static kw_status tell_bytes(void *user, uint64_t done, kw_err *e)
{
    kw_progress_at(&((job *)user)->bar, (int64_t)(done >> 20), NULL);
    return kw_guard_stopped() ? kw_fail(e, KW_ESTOP, N_("stopped; nothing was written")) : KW_OK;
}

static void end(job *j, kw_status s, int64_t total)
{
    if (s)
        kw_progress_pause(&j->bar);
    else
        kw_progress_end(&j->bar, total, NULL);
}

static kw_status compare(job *j, kw_merge *m, kw_merge_report *r, kw_err *e)
{
    const int64_t total = (int64_t)(kw_merge_numbers(m) / 1000000) + 1;
    kw_progress_begin(&j->bar, j->c, _(N_("comparing")), "M", total);
    kw_status s = kw_merge_compare(m, tell, j, r, e);
    end(j, s, total);
    return s;
}

static kw_status write_model(job *j, kw_merge *m, kw_err *e)
{
    char *how, *from;
    kw_conversion *v;
    KW_TRY(kw_json_text(j->c->arena, recipe(j), &how, e));
    KW_TRY(merged_from(j, &from, e));
    const char *name = kw_path_name(j->g->to);
    char *title = kw_strndup(j->c->arena, name, strcspn(name, "."));
    const kw_meta meta[] = { { "modelspec.merged_from", from }, { "kiwame.merge", how },
                             { "modelspec.title", title ? title : name } };
    const kw_convert_extra extra = { "kiwame-merge.json", how, strlen(how) };
    kw_conversion_want want = { .folder = !kw_ends_with(j->g->to, ".safetensors"), .type = (kw_convert_type)j->g->dtype,
                                .make = kw_merge_make, .make_user = m, .meta = meta, .n_meta = KW_LEN(meta) };
    want.extra = &extra;
    want.n_extra = want.folder;
    KW_TRY(kw_convert_tokenizer(j->c, j->r.model[0], &want, e));
    KW_TRY(kw_conversion_plan(j->c->arena, j->r.model[0], &want, &v, e));
    if (j->r.n > 1 && j->r.method == KW_MERGE_TIES) {
        const int64_t numbers = (int64_t)(2 * kw_merge_numbers(m) / 1000000) + 1;
        kw_progress_begin(&j->bar, j->c, _(N_("looking for the largest differences")), "M", numbers);
        kw_status s = kw_merge_prepare(m, tell, j, e);
        end(j, s, numbers);
        KW_TRY(s);
    }
    const int64_t total = (int64_t)(kw_conversion_bytes(v) >> 20) + 1;
    kw_progress_begin(&j->bar, j->c, _(N_("merging")), "MiB", total);
    kw_guard_begin();
    kw_status s = kw_conversion_write(v, j->g->to, j->g->overwrite, tell_bytes, j, e);
    kw_guard_end();
    end(j, s, total);
    return s;
}

static kw_status models(job *j, kw_err *e)
{
    kw_merge *m;
    kw_merge_report r = { .n = 0 };
    json_t *report = NULL;
    KW_TRY(kw_merge_new(j->c->arena, &j->r, &m, e));
    int of, channels = kw_merge_channels(m, &of);
    if (!j->g->report)
        KW_TRY(kw_merge_match(m, e));
    if (kw_merge_passed_over(m) && !j->c->global.quiet)
        fprintf(stderr, _(N_("%zu layers of LoRAs fit no layer of this model and are passed over\n")),
                kw_merge_passed_over(m));
    if (channels && !j->c->global.json)
        printf(_(N_("the first %d of %d input channels take part; the others stay as they are in %s\n")), channels, of,
               j->names[0]);
    if (j->r.n > 1) {
        KW_TRY(compare(j, m, &r, e));
        if (!j->c->global.json)
            KW_TRY(kw_merge_show(&r, j->names, j->r.n, j->g->all, e));
    }
    if (!j->g->report)
        KW_TRY(write_model(j, m, e));
    if (!j->c->global.json)
        return KW_OK;
    report = kw_merge_report_json(&r, j->names, j->r.n);
    json_t *all = json_pack("{s:o, s:b, s:o}", "recipe", recipe(j), "written", (int)!j->g->report, "report", report);
    if (all && channels)
        json_object_set_new(all, "channels", json_pack("{s:i, s:i}", "merged", channels, "of", of));
    if (all && !j->g->report)
        json_object_set_new(all, "to", json_string(j->g->to));
    return kw_put_json(all, e);
}

/* The widest numbers of the files, unless a type is wanted. */
static kw_dtype lora_type(const job *j)
{
    kw_dtype type = KW_F16;
    static const kw_dtype wanted[] = { KW_F32, KW_F32, KW_F16, KW_BF16, KW_F8_E4M3 };
    if (j->g->dtype != KW_KEEP)
        return wanted[j->g->dtype];
    for (size_t i = 0; i < j->r.n_lora; i++)
        for (size_t k = 0; k < kw_tensors_n(j->lora[i].file->file); k++) {
            const kw_tensor *t = kw_tensors_at(j->lora[i].file->file, k);
            type = t->rank >= 2 && t->dtype != KW_F16 ? KW_F32 : type;
        }
    return type;
}

static kw_status check_loras(const job *j, kw_err *e)
{
    if (!j->g->lora.n)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("nothing to merge is named")),
                         N_("give --model twice or more, or --lora"));
    if (j->g->dtype == KW_TO_F8)
        return kw_fail(e, KW_EUSAGE, N_("--dtype fp8 is for models, not for LoRAs"));
    if (!j->g->report && !kw_ends_with(j->g->to, ".safetensors"))
        return kw_fail(e, KW_EUSAGE, N_("%s: kohya's LoRAs are files that end in .safetensors"), j->g->to);
    return KW_OK;
}

static kw_status loras(job *j, kw_err *e)
{
    const config *g = j->g;
    kw_made_lora made;
    char *how, *from;
    const bool reduced = g->rank || g->conv_rank || g->energy > 0;
    const kw_rank_want want = { .rank = g->rank ? g->rank : 4096, .conv_rank = g->conv_rank, .target = g->energy,
                                .rule = g->energy > 0 ? KW_RANK_ENERGY : KW_RANK_FIXED };
    KW_TRY(check_loras(j, e));
    kw_progress_begin(&j->bar, j->c, _(N_("merging")), _(N_("layer")), 0);
    kw_status s = kw_lora_sum(j->c->arena, j->lora, j->r.n_lora, reduced ? &want : NULL, lora_type(j), NULL, NULL,
                              &made, e);
    end(j, s, 0);
    KW_TRY(s);
    if (!j->c->global.json)
        KW_TRY(kw_made_show(&made, g->all, e));
    KW_TRY(kw_json_text(j->c->arena, recipe(j), &how, e));
    KW_TRY(merged_from(j, &from, e));
    const kw_lora_file *first = j->lora[0].file;
    const char *type = kw_tensors_meta(first->file, "modelspec.prediction_type");
    const kw_made_about about = { .to = g->to, .how = how, .merged_from = from, .xl = first->names.xl,
                                  .v2 = kw_lora_file_width(first) == 1024, .v = type && !strcmp(type, "v") };
    if (!g->report)
        KW_TRY(kw_made_save(j->c, &made, &about, e));
    return j->c->global.json ? kw_put_json(kw_made_json(&made), e) : KW_OK;
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    const config *g = arg;
    job *j = kw_alloc(c->arena, sizeof *j);
    if (!j)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *j = (job){ .c = c, .g = g };
    j->r = (kw_merge_recipe){ .method = (kw_merge_method)g->method, .scale = g->scale, .density = g->density,
                              .drop = g->drop, .seed = g->seed, .vae = g->vae, .partial = g->partial };
    if (!g->to && !g->report)
        return kw_fail(e, KW_EUSAGE, N_("where the result goes is not said"));
    if (g->to && !g->report && !g->overwrite && (kw_is_file(g->to) || kw_is_dir(g->to)))
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s is already there"), g->to), N_("--overwrite replaces it"));
    KW_TRY(read_base(j, e));
    if (g->model.n)
        KW_TRY(read_models(j, e));
    KW_TRY(read_loras(j, e));
    return g->model.n ? models(j, e) : loras(j, e);
}

const kw_command kw_command_merge = {
    .name = "merge", .help = N_("merge models into one, LoRAs into a model, or LoRAs into one LoRA"),
    .examples = "kiwame merge mix.safetensors --model a.safetensors --model b.safetensors:0.3\n"
                "kiwame merge mix/ --model a --model b --base sd15 --method ties --density 0.2\n"
                "kiwame merge --report --model a --model b --base sd15 --all\n"
                "kiwame merge baked.safetensors --model a --lora style.safetensors:0.8\n"
                "kiwame merge both.safetensors --lora a.safetensors:0.7 --lora b.safetensors:0.5",
    .options = options, .config_size = sizeof(config), .run = run, .flags = KW_COMMAND_THREADS,
};
