/* cmd_convert.c - kiwame convert: a model in another container, or as other numbers. */
#include "cli.h"
#include "convert_show.h"
#include "net_settings.h"

#include "io/io.h"
#include "text/text.h"

#include <stdlib.h>
#include <string.h>

typedef struct { const char *from, *to, *base; int dtype, names; bool averages, overwrite, plan; } config;

static const kw_option options[] = {
    KW_ROW_PATH("from", config, from, NULL, N_("model: a folder, or a file (.safetensors, .ckpt, .pt, .bin)"),
                .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED, .value = "SRC"),
    KW_ROW_PATH("to", config, to, NULL, N_("NAME.safetensors for one file, any other name for a diffusers folder"),
                .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED, .value = "DST"),
    KW_ROW_CHOICE("dtype", config, dtype, KW_KEEP, "keep|f32|f16|bf16|fp8",
                  N_("numbers of the new model; fp8: matrices of U-Net and text encoders as e4m3, others as f16")),
    KW_ROW_CHOICE("names", config, names, 0, "keep|kohya|diffusers|peft",
                  N_("of a LoRA: its keys as this program spells them")),
    KW_ROW_PATH("base", config, base, NULL, N_("of a LoRA: the model it is for, where its blocks are unusual"),
                .value = "MODEL"),
    KW_ROW_BOOL("averages", config, averages, false,
                N_("use the averaged weights (model_ema) that some files also hold")),
    KW_ROW_BOOL("overwrite", config, overwrite, false, N_("replace what is there under that name")),
    KW_ROW_BOOL("plan", config, plan, false, N_("show what would be written and stop")),
    KW_ROW_END
};

/* ---- the tokenizer: CLIP's comes with the program, others go along -------------------------------------------- */

typedef struct { kw_convert_extra list[4 * KW_BPE_FILES]; size_t n; char *tokenizer; } extras;

/* Has this tokenizer CLIP's tokens? Then nothing of it needs to be kept. */
static bool is_clip(kw_arena *a, const char *path)
{
    kw_tokenizer *own, *clip;
    if (kw_tokenizer_open(a, path, &own, NULL) || kw_tokenizer_clip(a, &clip, NULL)
        || kw_tokenizer_size(own) != kw_tokenizer_size(clip) || kw_tokenizer_max_length(own) != 77)
        return false;
    for (int i = 0; i < kw_tokenizer_size(clip); i++) {
        const char *x = kw_token_name(own, i), *y = kw_token_name(clip, i);
        if (!x || strcmp(x, y))
            return false;
    }
    return true;
}

static kw_status add_extra(kw_cli *c, extras *x, const char *folder, const char *name, const char *text, kw_err *e)
{
    char *path = kw_sprintf(c->arena, "%s/%s", folder, name), *copy = kw_strdup(c->arena, text);
    if (!path || !copy)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (x->n < KW_LEN(x->list))
        x->list[x->n++] = (kw_convert_extra){ path, copy, strlen(copy) };
    return KW_OK;
}

static kw_status add_clip(kw_cli *c, extras *x, const char *folder, const char *pad, kw_err *e)
{
    kw_bpe clip;
    kw_str texts[KW_BPE_FILES];
    KW_TRY(kw_bpe_clip(c->arena, &clip, e));
    KW_TRY(kw_bpe_texts(&clip, 77, pad, texts, e));
    kw_status s = KW_OK;
    for (int i = 0; i < KW_BPE_FILES; i++) {
        if (!s)
            s = add_extra(c, x, folder, kw_bpe_names[i], texts[i].s, e);
        kw_str_free(&texts[i]);
    }
    return s;
}

static bool wants_clip(const kw_source *s, kw_part p)
{
    return kw_source_has(s, p) && !kw_source_tokenizer(s, p)
        && json_integer_value(json_object_get(kw_source_config(s, p), "vocab_size")) == 49408;
}

static kw_status for_folder(kw_cli *c, kw_source *s, extras *x, kw_err *e)
{
    const char *own = kw_source_tokenizer(s, KW_PART_TEXT), *name;
    json_t *files, *text;
    if (own && kw_is_file(own)) {
        KW_TRY(kw_tokenizer_inside(c->arena, own, &files, e));
        json_object_foreach(files, name, text) {
            bool second = kw_starts_with(name, KW_TOKENIZER_SECOND);
            const char *plain = second ? name + strlen(KW_TOKENIZER_SECOND) : name;
            if (json_is_string(text) && !strchr(plain, '/') && *plain != '.')
                KW_TRY(add_extra(c, x, second ? "tokenizer_2" : "tokenizer", plain, json_string_value(text), e));
        }
    }
    if (wants_clip(s, KW_PART_TEXT))
        KW_TRY(add_clip(c, x, "tokenizer", NULL, e));
    return wants_clip(s, KW_PART_TEXT2) ? add_clip(c, x, "tokenizer_2", "!", e) : KW_OK;
}

/* Read from the folder, or out of the file that has it. */
static kw_status read_files(kw_cli *c, const char *own, const char *head, json_t *all, kw_err *e)
{
    char **names, *data;
    size_t n, length;
    KW_TRY(kw_dir_list(c->arena, own, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        char *path = kw_path_join(c->arena, own, names[i]);
        if (!path)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if ((!kw_ends_with(path, ".json") && !kw_ends_with(path, ".txt")) || !kw_is_file(path))
            continue;
        KW_TRY(kw_file_read(c->arena, path, 8 << 20, &data, &length, e));
        char *name = kw_sprintf(c->arena, "%s%s", head, names[i]);
        if (!name || json_object_set_new(all, name, json_stringn(data, length)))
            return kw_fail(e, KW_EDATA, N_("%s: not a text"), path);
    }
    return KW_OK;
}

static kw_status for_file(kw_cli *c, kw_source *s, extras *x, kw_err *e)
{
    const char *own = kw_source_tokenizer(s, KW_PART_TEXT), *second = kw_source_tokenizer(s, KW_PART_TEXT2);
    json_t *all = NULL;
    if (!own || is_clip(c->arena, own))
        return KW_OK;
    kw_status status = KW_OK;
    if (kw_is_file(own)) {
        KW_TRY(kw_tokenizer_inside(c->arena, own, &all, e));
        json_incref(all);
    } else {
        all = json_object();
        status = read_files(c, own, "", all, e);
        if (!status && second && !is_clip(c->arena, second))
            status = read_files(c, second, KW_TOKENIZER_SECOND, all, e);
    }
    char *text = json_dumps(all, JSON_COMPACT);
    x->tokenizer = text ? kw_strdup(c->arena, text) : NULL;
    free(text);
    json_decref(all);
    return status ? status : x->tokenizer ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

kw_status kw_convert_tokenizer(kw_cli *c, kw_source *s, kw_conversion_want *want, kw_err *e)
{
    extras x = { .n = 0 };
    KW_TRY(want->folder ? for_folder(c, s, &x, e) : for_file(c, s, &x, e));
    kw_convert_extra *list = kw_alloc_array(c->arena, x.n + want->n_extra + 1, sizeof *list);
    if (!list)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    memcpy(list, x.list, x.n * sizeof *list);
    for (size_t i = 0; i < want->n_extra; i++)
        list[x.n + i] = want->extra[i];
    want->extra = list;
    want->n_extra += x.n;
    want->tokenizer = x.tokenizer;
    return KW_OK;
}

/* ---- the plan, and the work ----------------------------------------------------------------------------------- */

/* A model; or, for a single file, any tensors: a LoRA or an embedding keeps its names. */
static kw_status plan(kw_cli *c, const config *g, kw_source **s, kw_conversion **out, kw_err *e)
{
    bool folder = !kw_ends_with(g->to, ".safetensors");
    kw_conversion_want want = { .folder = folder, .averages = g->averages, .type = (kw_convert_type)g->dtype };
    kw_tensors *t;
    kw_err why = { 0 };
    *s = NULL;
    kw_status status = g->averages ? kw_source_open_averages(c->arena, g->from, s, &why)
                                   : kw_source_open(c->arena, g->from, s, &why);
    if (status) {
        *s = NULL;
        if (status != KW_EDATA || folder || g->averages || !kw_is_file(g->from)
            || kw_tensors_open(c->arena, g->from, &t, e)) {
            *e = why;
            return status;
        }
        return kw_conversion_of_tensors(c->arena, t, &want, out, e);
    }
    KW_TRY(kw_convert_tokenizer(c, *s, &want, e));
    return kw_conversion_plan(c->arena, *s, &want, out, e);
}

typedef struct { kw_progress bar; } work;

static kw_status tell(void *user, uint64_t done, kw_err *e)
{
    work *w = user;
    kw_progress_at(&w->bar, (int64_t)(done >> 20), NULL);
    return kw_guard_stopped() ? kw_fail(e, KW_ESTOP, N_("stopped; nothing was written")) : KW_OK;
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    config *g = arg;
    kw_source *s;
    kw_conversion *v;
    work w;
    if (g->base && !g->names)
        return kw_fail(e, KW_EUSAGE, N_("--base is for LoRAs: with --names"));
    if (g->base)
        KW_TRY(kw_model_named(c, &g->base, e));
    if (g->names)
        return kw_convert_lora(c, g->from, g->to, g->base, g->names - 1, g->overwrite, g->plan, e);
    KW_TRY(kw_model_named(c, &g->from, e));
    KW_TRY(plan(c, g, &s, &v, e));
    if (!c->global.json)
        KW_TRY(kw_convert_show(c, s, v, g->from, g->to, e));
    if (g->plan)
        return c->global.json ? kw_convert_json(s, v, g->from, g->to, false, e) : KW_OK;
    int64_t total = (int64_t)((kw_conversion_bytes(v) >> 20) + 1);
    kw_progress_begin(&w.bar, c, _(N_("converting")), "MiB", total);
    kw_guard_begin();
    kw_status status = kw_conversion_write(v, g->to, g->overwrite, tell, &w, e);
    if (!status)
        kw_progress_end(&w.bar, total, NULL);
    else
        kw_progress_pause(&w.bar);
    kw_guard_end();
    KW_TRY(status);
    return c->global.json ? kw_convert_json(s, v, g->from, g->to, true, e) : KW_OK;
}

const kw_command kw_command_convert = {
    .name = "convert", .help = N_("write a model as one file, as a diffusers folder, or as other numbers"),
    .examples = "kiwame convert model.ckpt model.safetensors --dtype f16\nkiwame convert model.safetensors sd15/\n"
                "kiwame convert lora.safetensors lora-diffusers/ --names diffusers",
    .options = options, .config_size = sizeof(config), .run = run,
};
