/* cmd_export.c - kiwame export: what a run has made, as A1111, ComfyUI, diffusers, Civitai and Hugging Face want it. */
#include "export.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { const char *run, *name, *licence; kw_texts to; double weight; bool force, link, plan; } config;

static const kw_option options[] = {
    KW_ROW_PATH("run", config, run, NULL, N_("folder of a run, or one of its files"),
                .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED, .value = "RUN"),
    KW_ROW_LIST("to", config, to, N_("for whom and where; may be given several times"), .flags = KW_OPT_REQUIRED,
                .value = "a1111|comfyui|diffusers|civitai|hf:DIR"),
    KW_ROW_TEXT("name", config, name, NULL, N_("what it is to be called; default: as the file is"), .value = "NAME"),
    KW_ROW_DOUBLE("weight", config, weight, 1, -10, 10, N_("strength that is recommended")),
    KW_ROW_TEXT("licence", config, licence, NULL, N_("licence for cards and checklists: openrail++, cc-by-4.0 ..."),
                .alias = "license", .value = "ID"),
    KW_ROW_BOOL("link", config, link, false,
                N_("a second name for the same bytes instead of a copy, on one file system")),
    KW_ROW_BOOL("force", config, force, false, N_("replace files that are there")),
    KW_ROW_BOOL("plan", config, plan, false, N_("show what would be written and stop")),
    KW_ROW_END
};

/* ---- for whom ---------------------------------------------------------------------------------------------------- */

static kw_status collect(kw_export *x, const char *to, kw_err *e)
{
    static const struct { const char *word; kw_status (*fill)(kw_export *, kw_err *); } targets[] = {
#define X(w) { #w, kw_export_##w },
        KW_EXPORT_MAP(X)
#undef X
    };
    const char *colon = strchr(to, ':');
    size_t n = colon ? (size_t)(colon - to) : strlen(to);
    for (size_t i = 0; i < KW_LEN(targets); i++) {
        if (strlen(targets[i].word) != n || strncmp(targets[i].word, to, n))
            continue;
        if (!colon || !colon[1])
            return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("--to %s: the folder is missing"), to), "--to %s:DIR",
                             targets[i].word);
        x->dir = colon + 1;
        x->form = KW_LORA_KOHYA;
        return targets[i].fill(x, e);
    }
    return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("--to %s: is none of the programs known here"), to),
                     "a1111:DIR, comfyui:DIR, diffusers:DIR, civitai:DIR, hf:DIR");
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static bool exists(const char *path)
{
    struct stat st;
    return !kw_io_now->lstat(path, &st);
}

/* Asked before anything is written; a whole model's folder may be there, empty. */
static kw_status check_free(const kw_export *x, kw_err *e)
{
    char **names;
    size_t n;
    for (size_t i = 0; i < x->n; i++) {
        const kw_export_file *f = &x->file[i];
        if (!exists(f->path) || (f->to_folder && !kw_dir_list(x->cli->arena, f->path, &names, &n, NULL) && !n))
            continue;
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: is there already"), f->path),
                         N_("use --force to replace it"));
    }
    return KW_OK;
}

static kw_status same_file(const kw_export_file *f, kw_err *e)
{
    struct stat a, b;
    if (f->from && !kw_io_now->stat(f->from, &a) && !kw_io_now->stat(f->path, &b) && a.st_dev == b.st_dev
        && a.st_ino == b.st_ino)
        return kw_fail(e, KW_EUSAGE, N_("%s: is the file itself"), f->path);
    return KW_OK;
}

static kw_status copy(kw_arena *a, const kw_export_file *f, kw_err *e)
{
    const void *data;
    size_t n;
    kw_writer *w;
    KW_TRY(kw_file_map(a, f->from, &data, &n, e));
    KW_TRY(kw_writer_open(a, f->path, n, &w, e));
    for (size_t at = 0; at < n; at += 8 << 20)
        KW_TRY(kw_writer_put(w, (const char *)data + at, KW_MIN(n - at, (size_t)8 << 20), e));
    return kw_writer_commit(w, NULL, e);
}

static kw_status link_or_copy(kw_arena *a, const kw_export_file *f, kw_err *e)
{
    char *beside = kw_sprintf(a, "%s.tmp-%ld", f->path, (long)getpid()), whole[4096];
    if (!beside)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_io_now->unlink(beside);
    if (!realpath(f->from, whole) || kw_io_now->link(whole, beside))
        return copy(a, f, e);
    if (!kw_io_now->rename(beside, f->path))
        return KW_OK;
    kw_status s = kw_fail(e, KW_ESTORAGE, N_("%s: cannot write: %s"), f->path, kw_errno_text(errno));
    kw_io_now->unlink(beside);
    return s;
}

/* In the other container: a whole model's folder as one file, or the other way. */
static kw_status convert(kw_cli *c, const kw_export_file *f, bool force, kw_err *e)
{
    kw_source *s;
    kw_conversion *v;
    kw_conversion_want want = { .folder = f->to_folder };
    KW_TRY(kw_source_open(c->arena, f->from, &s, e));
    KW_TRY(kw_conversion_plan(c->arena, s, &want, &v, e));
    kw_say(c, _(N_("converting")));
    if (f->to_folder && kw_io_now->rmdir(f->path) && errno != ENOENT && !force)
        return kw_fail(e, KW_EUSAGE, N_("%s: is there already"), f->path);
    kw_status status = kw_conversion_write(v, f->path, force, NULL, NULL, e);
    kw_hush(c);
    return status;
}

static kw_status write_one(kw_cli *c, const config *g, const kw_export_file *f, kw_err *e)
{
    char *dir = kw_path_dir(c->arena, f->path);
    if (!dir)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(same_file(f, e));
    KW_TRY(kw_mkdirs(dir, e));
    if (f->text)
        return kw_file_write_atomic(f->path, f->text, f->n, e);
    if (f->respell) {
        kw_lora_file *l;
        KW_TRY(kw_lora_file_open(c->arena, f->from, NULL, &l, e));
        return kw_lora_convert(c->arena, l, (kw_lora_form)f->form, f->path, e);
    }
    return f->model ? convert(c, f, g->force, e) : g->link ? link_or_copy(c->arena, f, e) : copy(c->arena, f, e);
}

static kw_status show(const kw_cli *c, const kw_export *x, kw_err *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < x->n; i++)
        if (c->global.json)
            json_array_append_new(list, json_string(x->file[i].path));
        else
            puts(x->file[i].path);
    json_t *j = json_pack("{s:s, s:s, s:o}", "name", x->p->name, "from", x->p->path, "files", list);
    char *text = c->global.json && j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    if (c->global.json && !text)
        return kw_fail(e, KW_EDATA, N_("the answer holds text that is not valid UTF-8"));
    if (text)
        puts(text);
    free(text);
    return KW_OK;
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    config *g = arg;
    kw_product p;
    kw_export x = { .cli = c, .p = &p, .licence = g->licence, .weight = g->weight };
    KW_TRY(kw_product_find(c, g->run, g->name, &p, e));
    for (size_t i = 0; i < g->to.n; i++)
        KW_TRY(collect(&x, g->to.item[i], e));
    if (!g->force)
        KW_TRY(check_free(&x, e));
    kw_status s = KW_OK;
    kw_guard_begin();
    for (size_t i = 0; i < x.n && !s && !g->plan; i++)
        s = write_one(c, g, &x.file[i], e);
    kw_guard_end();
    KW_TRY(s);
    if (!c->global.quiet && !p.n_samples && p.lora)
        fprintf(stderr, "%s\n", _(N_("the run has no sample pictures: none go along")));
    return show(c, &x, e);
}

const kw_command kw_command_export = {
    .name = "export",
    .help = N_("what a run has made, with what A1111, ComfyUI, diffusers, Civitai or the hub want beside it"),
    .examples = "kiwame export runs/kiwa --to a1111:stable-diffusion-webui --weight 0.8\n"
                "kiwame export runs/kiwa --to civitai:upload --to hf:card --licence cc-by-4.0",
    .options = options, .config_size = sizeof(config), .run = run,
};
