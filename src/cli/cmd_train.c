/* cmd_train.c - kiwame train lora|full: from a folder of pictures to a model of one's own. */
#include "net_settings.h"
#include "run_frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The same rows for all; each method takes those that mean something to it, `resume` all that a recipe may hold. */
#define TABLES(use) { { kw_run_rows, 0, NULL, use }, { kw_model_rows, 0, NULL, use }, { 0 } }
static const kw_option_table tables[] = TABLES(0), lora_tables[] = TABLES(KW_FOR_LORA),
                             full_tables[] = TABLES(KW_FOR_FULL | KW_FOR_VAE), align_tables[] = TABLES(KW_FOR_ALIGN);

/* The resolved recipe, with the method on top and what its bits depend on besides; `resume` reads it back. */
static kw_status recipe_of(kw_cli *c, const char *method, kw_str *text, kw_err *e)
{
    kw_str_printf(text, "# kiwame train %s\n" KW_RUN_MACHINE "%s\n", method, kw_threads(), kw_kern_get()->isa);
    return kw_options_write_toml(c->options, true, text, e);
}

static kw_status train(kw_cli *c, kw_settings *s, const char *method, kw_err *e)
{
    static const kw_method_names names = { "kiwame train lora", "kiwame train full", "kiwame train align" };
    kw_str text = { 0 };
    KW_TRY(kw_settings_check(c->options, s, &names, e));
    KW_TRY(kw_model_named(c, &s->base, e));
    KW_TRY(kw_model_named(c, &s->vae, e));
    if (!s->base)
        s->base = kw_embedded_base(c->arena);
    if (!s->base)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, "no base model was given"), "name one with --base");
    KW_TRY(kw_base_wishes(c, s->base, "cfg", "sample-cfg", e));
    KW_TRY(kw_base_wishes(c, s->base, "steps", "sample-sampling-steps", e));
    if (s->method == KW_METHOD_LORA)
        KW_TRY(kw_preset_apply(c->options, s->preset, e));
    kw_status st = recipe_of(c, method, &text, e);
    if (!st)
        st = kw_run_frame(c, s, text.s, false, e);
    kw_str_free(&text);
    return st;
}

static kw_status lora(kw_cli *c, void *config, kw_err *e)
{
    kw_settings *s = config;
    s->method = KW_METHOD_LORA;
    return train(c, s, "lora", e);
}

static kw_status full(kw_cli *c, void *config, kw_err *e)
{
    kw_settings *s = config;
    s->method = KW_METHOD_FULL;
    return train(c, s, "full", e);
}

static const kw_command command_lora = {
    .name = "lora", .help = N_("train a LoRA: new layers beside a frozen model"), .tables = lora_tables,
    .config_size = sizeof(kw_settings),
    .examples = "kiwame train lora photos --trigger kiwa", .flags = KW_COMMAND_THREADS, .run = lora,
};
static const kw_command command_full = {
    .name = "full", .help = N_("train the weights of whole parts: U-Net, text encoder, autoencoder"),
    .tables = full_tables,
    .config_size = sizeof(kw_settings), .examples = "kiwame train full photos --base model --part unet",
    .flags = KW_COMMAND_THREADS, .run = full,
};
static kw_status align(kw_cli *c, void *config, kw_err *e)
{
    kw_settings *s = config;
    s->method = KW_METHOD_ALIGN;
    return train(c, s, "align", e);
}

static const kw_command command_align = {
    .name = "align", .help = N_("teach a text encoder the latents of captioned pictures, before a U-Net is trained"),
    .tables = align_tables,
    .config_size = sizeof(kw_settings), .examples = "kiwame train align photos --base model",
    .flags = KW_COMMAND_THREADS, .run = align,
};
static const kw_command *const commands[] = { &command_lora, &command_full, &command_align, NULL };

const kw_command kw_command_train = { .name = "train", .help = N_("additional training on your pictures"),
                                      .commands = commands };

/* ---- resume ------------------------------------------------------------------------------------------------------ */

typedef struct { const char *dir; bool accept; } resume_config;

static const kw_option resume_options[] = {
    KW_ROW_PATH("run", resume_config, dir, NULL, N_("folder of the run"), .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED,
                .value = "RUN"),
    KW_ROW_BOOL("accept-changes", resume_config, accept, false,
                N_("go on although settings, pictures or the base were changed: other bits")),
    KW_ROW_END
};

static kw_status read_recipe(kw_cli *c, const char *dir, kw_settings *s, kw_err *e)
{
    char *path = kw_path_join(c->arena, dir, "recipe.toml"), *text;
    size_t n;
    kw_options *o = kw_options_new(c->arena);
    if (!path || !o)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!kw_is_file(path) && errno != EACCES)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, "%s is not the folder of a run: it has no recipe.toml", dir),
                         "name the folder that `kiwame train` wrote");
    KW_TRY(kw_options_add_tables(o, tables, s, e));
    KW_TRY(kw_file_read(c->arena, path, 1 << 20, &text, &n, e));
    KW_TRY(kw_options_toml(o, text, n, path, KW_FROM_RECIPE, e));
    s->method = kw_starts_with(text, "# kiwame train full") ? KW_METHOD_FULL
        : kw_starts_with(text, "# kiwame train align") ? KW_METHOD_ALIGN : KW_METHOD_LORA;
    s->out = dir;
    return KW_OK;
}

/* The same bits need the same number of threads and the same instruction set. */
static kw_status settle_machine(kw_cli *c, const char *dir, kw_err *e)
{
    int threads;
    const char *isa;
    KW_TRY(kw_run_recorded(c->arena, dir, &threads, &isa, e));
    if (threads < 1 || !isa)
        return KW_OK;
    if (c->global.threads && c->global.threads != threads) {
        kw_status s = kw_fail(e, KW_EUSAGE, "%s was computed with %d threads; another number gives other bits", dir,
                              threads);
        return kw_advise(e, s, "leave --threads out");
    }
    kw_threads_set(threads);
    if (!c->global.isa)
        return kw_isa_choose(isa, e);
    if (!strcmp(isa, kw_kern_get()->isa))
        return KW_OK;
    kw_status s = kw_fail(e, KW_EUSAGE, "%s was computed with %s; another instruction set gives other bits", dir, isa);
    return kw_advise(e, s, "leave --isa and KIWAME_ISA out");
}

static kw_status resume(kw_cli *c, void *config, kw_err *e)
{
    kw_settings s = { 0 };
    const char *dir = ((resume_config *)config)->dir;
    KW_TRY(read_recipe(c, dir, &s, e));
    KW_TRY(settle_machine(c, dir, e));
    return kw_run_frame(c, &s, NULL, ((resume_config *)config)->accept, e);
}

const kw_command kw_command_resume = {
    .name = "resume", .help = N_("go on with a stopped run, to the same bits"), .options = resume_options,
    .config_size = sizeof(resume_config),
    .examples = "kiwame resume runs/kiwa", .flags = KW_COMMAND_THREADS, .run = resume,
};
