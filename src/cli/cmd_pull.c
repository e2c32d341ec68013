/* cmd_pull.c - kiwame pull: models from Hugging Face, Civitai and plain addresses. */
#include "net_settings.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct {
    kw_texts resolve;
    const char *name, *to, *sha256;
    int variant, retries;
    bool all, plan, allow_private;
    uint64_t most;
    double stall, backoff;
} config;

static const kw_option options[] = {
    KW_ROW_TEXT("name", config, name, NULL,
                N_("sd15 and other short names, hf:org/name[@revision][:file], civitai:VERSION, a page, https://...; "
                   "none: the list of short names"), .flags = KW_OPT_POSITIONAL, .value = "NAME"),
    KW_ROW_PATH("to", config, to, NULL,
                N_("folder to put the files in; default: the cache shared with diffusers, or our own"), .value = "DIR"),
    KW_ROW_CHOICE("variant", config, variant, KW_VARIANT_AUTO, "auto|full|fp16",
                  N_("numbers of a diffusers folder; auto: half precision where all of it is there")),
    KW_ROW_BOOL("all", config, all, false, N_("every file of the repository")),
    KW_ROW_TEXT("sha256", config, sha256, NULL, N_("hash that the one file must have"), .value = "HEX"),
    KW_ROW_BOOL("plan", config, plan, false, N_("show licence, files and sizes, and stop")),
    KW_ROW_SIZE("max-size", config, most, 100e9, 1, 1e15, N_("refuse files that are larger")),
    KW_ROW_INT("retries", config, retries, 5, 0, 1000, N_("attempts in a row that bring nothing")),
    KW_ROW_DOUBLE("stall", config, stall, 30, 1, 3600, N_("seconds of silence until a connection is given up"),
                  .unit = "s"),
    KW_ROW_BOOL("allow-private", config, allow_private, false,
                N_("also from addresses of the local network, and without encryption: a mirror of your own")),
    KW_ROW_LIST("resolve", config, resolve, N_("take this address for a host: HOST:PORT:ADDRESS"),
                .flags = KW_OPT_HIDDEN),
    KW_ROW_DOUBLE("backoff", config, backoff, 1, 0, 60, N_("seconds before the second attempt; doubles each time"),
                  .flags = KW_OPT_HIDDEN),
    KW_ROW_END
};

typedef struct {
    kw_cli *cli;
    const config *c;
    kw_web net;
    kw_progress bar;
    bool shown, no_bar;                   /* the bar has begun; nobody wants one */
    char name[256];                       /* of the file on the bar */
    uint64_t before, now, all;            /* bytes of finished files, of this one, of everything */
} session;

/* ---- progress ---------------------------------------------------------------------------------------------------- */

static void note(session *s, const char *text)
{
    kw_str safe = { 0 };
    if (s->cli->global.quiet)
        return;
    kw_escape(&safe, text);
    if (s->shown)
        kw_progress_pause(&s->bar);
    if (safe.s && !safe.failed)
        fprintf(stderr, "%s\n", safe.s);
    kw_str_free(&safe);
}

/* Bytes that lay there already are no measure of the speed. */
static void next_file(session *s, const kw_net_event *v)
{
    s->before += s->now;
    s->now = v->done;
    snprintf(s->name, sizeof s->name, "%s", v->name);
    if (!s->shown)
        kw_progress_begin(&s->bar, s->cli, _(N_("downloading")), "MB", 0);
    s->shown = true;
    s->bar.mark_done = (int64_t)((s->before + s->now) / 1000000);
}

static kw_status tell(void *user, const kw_net_event *v, kw_err *e)
{
    session *s = user;
    kw_str safe = { 0 };
    if (v->note) {
        note(s, v->note);
        return KW_OK;
    }
    if (v->total && strncmp(s->name, v->name, sizeof s->name - 1))
        next_file(s, v);
    if (v->total && s->shown && !s->no_bar) {
        s->now = v->done;
        s->bar.total = (int64_t)(KW_MAX(s->all, s->before + v->total) / 1000000);
        kw_escape(&safe, v->name);
        kw_progress_at(&s->bar, (int64_t)((s->before + v->done) / 1000000), safe.failed ? NULL : safe.s);
        kw_str_free(&safe);
    }
    return kw_guard_stopped() ? kw_advise(e, kw_fail(e, KW_ESTOP, N_("stopped")),
                                          N_("the same command goes on from there")) : KW_OK;
}

static void end_bar(session *s, bool good)
{
    if (s->shown && good && !s->no_bar)
        kw_progress_end(&s->bar, s->bar.total, NULL);
    else if (s->shown)
        kw_progress_pause(&s->bar);
    s->shown = false;
}

/* ---- showing ----------------------------------------------------------------------------------------------------- */

static void row(kw_table *t, const char *label, const char *text)
{
    kw_str safe = { 0 };
    kw_escape(&safe, text);
    kw_table_cell(t, "%s", label);
    kw_table_cell(t, "%s", safe.s && !safe.failed ? safe.s : "");
    kw_str_free(&safe);
}

static FILE *shown_on(const session *s) { return s->c->plan ? stdout : stderr; }

static void show_hub(const session *s, const kw_hub_repo *r, const kw_short_name *brief)
{
    kw_table t = { .align = "ll" }, files = { .align = "rl" };
    char size[32], missing[32];
    size_t n = 0;
    kw_str text = { 0 };
    for (size_t i = 0; i < r->n; i++) {
        if (!r->file[i].wanted)
            continue;
        kw_size_text((double)r->file[i].size, size);
        kw_table_cell(&files, "%s", size);
        kw_escape(&text, r->file[i].path);
        kw_table_cell(&files, "%s  %s", text.s ? text.s : "", r->file[i].there ? _(N_("(there)")) : "");
        text.n = 0;
        n++;
    }
    kw_size_text((double)kw_hub_bytes(r, false), size);
    kw_size_text((double)kw_hub_bytes(r, true), missing);
    row(&t, _(N_("repository")), r->name.repo);
    if (brief)
        row(&t, "", _(brief->what));
    if (brief && brief->note)
        row(&t, "", _(brief->note));
    row(&t, _(N_("revision")), r->commit);
    row(&t, _(N_("licence")), r->licence ? r->licence : brief ? brief->licence : _(N_("not said; ask its authors")));
    if (r->gated)
        row(&t, _(N_("access")), _(N_("its authors ask who you are: accept the conditions on its page, HF_TOKEN")));
    kw_table_cell(&t, "%s", _(N_("files")));
    kw_table_cell(&t, _(N_("%s: %zu, %s; %s to download")), _(r->chosen), n, size, missing);
    kw_table_print(&t, shown_on(s), 0);
    kw_table_print(&files, shown_on(s), 2);
    kw_str_free(&text);
}

static json_t *hub_json(const kw_hub_repo *r, const char *path)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->n; i++)
        if (r->file[i].wanted) {
            const kw_hub_file *f = &r->file[i];
            json_array_append_new(list, json_pack("{s:s, s:I, s:s, s:b}", "path", f->path, "bytes", (json_int_t)f->size,
                                                  f->large ? "sha256" : "git_sha1", f->etag, "there", f->there));
        }
    return json_pack("{s:s, s:s, s:s, s:s?, s:s, s:I, s:o, s:s?}", "repository", r->name.repo,
                     "revision", r->name.revision, "commit", r->commit, "licence", r->licence, "chosen", r->chosen,
                     "bytes", (json_int_t)kw_hub_bytes(r, false), "files", list, "path", path);
}

static kw_status print_json(json_t *j, kw_err *e)
{
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    if (!text)
        return kw_fail(e, KW_EDATA, N_("the answer holds text that is not valid UTF-8"));
    puts(text);
    free(text);
    return KW_OK;
}

static void show_short_names(void)
{
    kw_table t = { .align = "llrll" };
    for (const kw_short_name *s = kw_short_names(); s->name; s++) {
        kw_table_cell(&t, "%s", s->name);
        kw_table_cell(&t, "%s", _(s->what));
        kw_table_cell(&t, "%.1f GB", s->size);
        kw_table_cell(&t, "%s", s->licence);
        kw_table_cell(&t, "hf:%s", s->repo);
    }
    kw_table_print(&t, stdout, 0);
}

static kw_status json_short_names(kw_err *e)
{
    json_t *list = json_array();
    for (const kw_short_name *s = kw_short_names(); s->name; s++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:f}", "name", s->name, "repository", s->repo,
                                              "what", s->what, "licence", s->licence, "gigabytes", s->size));
    return print_json(list, e);
}

/* ---- the three kinds --------------------------------------------------------------------------------------------- */

static kw_status one_file_only(const session *s, const kw_hub_repo *r, kw_err *e)
{
    if (!s->c->sha256)
        return KW_OK;
    if (!r->main)
        return kw_fail(e, KW_EUSAGE, N_("--sha256 is for one file: hf:%s:FILE"), r->name.repo);
    for (size_t i = 0; i < r->n; i++)
        if (r->file[i].wanted && r->file[i].large && strcasecmp(r->file[i].etag, s->c->sha256))
            return kw_fail(e, KW_EDATA, N_("%s: the hub's file has another hash: %.16s..."), r->file[i].path,
                           r->file[i].etag);
    return KW_OK;
}

/* What is in the cache, when nothing may be asked. */
static kw_status offline_hub(session *s, const kw_hub_name *name, kw_err *e)
{
    char *path;
    KW_TRY(kw_hub_find(&s->net, s->cli->arena, name, &path, e));
    if (s->cli->global.json)
        return print_json(json_pack("{s:s, s:s}", "repository", name->repo, "path", path), e);
    puts(path);
    return KW_OK;
}

static kw_status pull_hub(session *s, const char *text, const kw_short_name *brief, kw_err *e)
{
    kw_arena *a = s->cli->arena;
    kw_hub_name name;
    kw_hub_repo *r;
    kw_hub_want want = { .all = s->c->all, .variant = (kw_hub_variant)s->c->variant };
    char *path = NULL;
    KW_TRY(kw_hub_name_parse(a, text, &name, e));
    if (s->net.offline && !offline_hub(s, &name, NULL))
        return KW_OK;
    KW_TRY(kw_hub_open(&s->net, a, &name, &r, e));
    kw_status chosen = kw_hub_pick(a, r, &want, e);
    if (chosen == KW_EDATA && name.file)
        (void)!kw_hub_note_absent(&s->net, a, r, NULL);
    KW_TRY(chosen);
    KW_TRY(one_file_only(s, r, e));
    kw_say(s->cli, _(N_("checking what is there")));
    kw_status looked = kw_hub_look(&s->net, a, r, e);
    kw_hush(s->cli);
    KW_TRY(looked);
    if (s->c->plan || (!s->cli->global.quiet && !s->cli->global.json))
        if (!s->cli->global.json)
            show_hub(s, r, brief);
    if (s->c->plan)
        return s->cli->global.json ? print_json(hub_json(r, NULL), e) : KW_OK;
    s->all = kw_hub_bytes(r, true);
    kw_status status = kw_hub_pull(&s->net, a, r, &path, e);
    end_bar(s, !status);
    KW_TRY(status);
    if (s->c->to)
        KW_TRY(kw_hub_place(a, r, path, s->c->to, &path, e));
    if (s->cli->global.json)
        return print_json(hub_json(r, path), e);
    puts(path);
    return KW_OK;
}

static void show_civitai(const session *s, const kw_civitai_version *v, const kw_civitai_file *f)
{
    kw_table t = { .align = "ll" };
    char size[32];
    kw_str about = { 0 };
    kw_size_text((double)f->size, size);
    kw_str_printf(&about, "%s, %s, %s", v->title ? v->title : "?", v->version_name ? v->version_name : "?",
                  v->type ? v->type : "?");
    row(&t, _(N_("model")), about.s && !about.failed ? about.s : "");
    row(&t, _(N_("base")), v->base ? v->base : "?");
    row(&t, _(N_("trigger words")), v->words ? v->words : _(N_("none")));
    row(&t, _(N_("licence")), _(N_("set by its author: see its page on civitai.com")));
    kw_table_cell(&t, "%s", _(N_("files")));
    kw_table_cell(&t, "%s, %s", f->name, size);
    kw_table_print(&t, shown_on(s), 0);
    kw_str_free(&about);
}

static json_t *civitai_json(const kw_civitai_version *v, const kw_civitai_file *f, const char *path)
{
    return json_pack("{s:I, s:I, s:s?, s:s?, s:s?, s:s?, s:s, s:s?, s:I, s:s?}", "version", (json_int_t)v->version,
                     "model", (json_int_t)v->model, "title", v->title, "type", v->type, "base", v->base,
                     "words", v->words, "file", f->name, "sha256", f->sha256, "bytes", (json_int_t)f->size, "path",
                         path);
}

static kw_status pull_civitai(session *s, const char *text, kw_err *e)
{
    kw_arena *a = s->cli->arena;
    kw_civitai_name name;
    kw_civitai_version *v;
    char *path = NULL;
    bool json = s->cli->global.json;
    KW_TRY(kw_civitai_name_parse(text, &name, e));
    if (s->net.offline && !s->c->to && !kw_civitai_find(&s->net, a, &name, &path, NULL)) {
        if (json)
            return print_json(json_pack("{s:I, s:s}", "version", (json_int_t)name.version, "path", path), e);
        puts(path);
        return KW_OK;
    }
    KW_TRY(kw_civitai_open(&s->net, a, &name, &v, e));
    kw_civitai_file *f = v->file;
    while (!f->wanted)
        f++;
    if (s->c->sha256 && f->sha256 && strcasecmp(f->sha256, s->c->sha256))
        return kw_fail(e, KW_EDATA, N_("%s: the hub's file has another hash: %.16s..."), f->name, f->sha256);
    f->sha256 = s->c->sha256 ? s->c->sha256 : f->sha256;
    if (!json && (s->c->plan || !s->cli->global.quiet))
        show_civitai(s, v, f);
    s->all = f->size;
    kw_status status = s->c->plan ? KW_OK : kw_civitai_pull(&s->net, a, v, s->c->to, &path, e);
    end_bar(s, !status);
    KW_TRY(status);
    if (json)
        return print_json(civitai_json(v, f, path), e);

    if (path)
        puts(path);
    return KW_OK;
}

static kw_status pull_url(session *s, const char *url, kw_err *e)
{
    char *path = NULL;
    if (s->c->plan)
        return kw_fail(e, KW_EUSAGE, N_("--plan: a plain address says nothing beforehand"));
    if (!s->c->sha256)
        note(s, _(N_("no --sha256 is given: what comes cannot be verified")));
    kw_status status = kw_url_pull(&s->net, s->cli->arena, url, s->c->to, s->c->sha256, &path, e);
    end_bar(s, !status);
    KW_TRY(status);
    if (s->cli->global.json)
        return print_json(json_pack("{s:s, s:s}", "url", url, "path", path), e);
    puts(path);
    return KW_OK;
}

/* ---- the command ------------------------------------------------------------------------------------------------- */

static kw_status unknown(const char *name, kw_err *e)
{
    const char *near = kw_short_name_near(name), *slash = strchr(name, '/');
    kw_status s = kw_fail(e, KW_EUSAGE, N_("\"%.200s\": what is this the name of?"), name);
    if (near)
        return kw_advise(e, s, N_("did you mean '%s'?"), near);
    if (slash && !strchr(slash + 1, '/'))
        return kw_advise(e, s, N_("did you mean 'hf:%.200s'?"), name);
    return kw_advise(e, s, N_("short names: kiwame pull; others: hf:org/name, civitai:VERSION, https://..."));
}

static kw_status pull(session *s, kw_err *e)
{
    const char *name = s->c->name;
    const kw_short_name *brief = kw_short_name_find(name);
    if (brief)
        return pull_hub(s, kw_sprintf(s->cli->arena, "hf:%s", brief->repo), brief, e);
    if (kw_hub_is_name(name))
        return pull_hub(s, name, NULL, e);
    if (kw_civitai_is_name(name))
        return pull_civitai(s, name, e);
    return strstr(name, "://") ? pull_url(s, name, e) : unknown(name, e);
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    session s = { .cli = c, .c = arg };
    if (!s.c->name && c->global.json)
        return json_short_names(e);
    if (!s.c->name) {
        show_short_names();
        return KW_OK;
    }
    if (s.c->sha256 && (strlen(s.c->sha256) != 64 || strspn(s.c->sha256, "0123456789abcdefABCDEF") != 64))
        return kw_fail(e, KW_EUSAGE, N_("--sha256: 64 hexadecimal digits are wanted"));
    KW_TRY(kw_net_settings(c->arena, &s.net, e));
    s.net.allow_private = s.c->allow_private;
    s.net.resolve = s.c->resolve;
    s.net.most = s.c->most;
    s.net.stall = s.c->stall;
    s.net.backoff = s.c->backoff;
    s.net.retries = s.c->retries;
    const char *no_bar = getenv("HF_HUB_DISABLE_PROGRESS_BARS");
    s.no_bar = no_bar && *no_bar && strcmp(no_bar, "0");
    s.net.tell = tell;
    s.net.user = &s;
    kw_guard_begin();
    kw_status status = pull(&s, e);
    end_bar(&s, false);
    kw_guard_end();
    return status;
}

const kw_command kw_command_pull = {
    .name = "pull", .help = N_("download a model from Hugging Face, Civitai or an address"),
    .about = N_("Downloads go on where they broke off, are verified by their SHA-256, and lie in the cache that "
                "diffusers uses too. Tokens come from HF_TOKEN or the file that huggingface-cli login wrote, and from "
                "CIVITAI_TOKEN. "

                "The last line is the path; --base takes the name as well."),
    .examples = "kiwame pull sd15\nkiwame generate \"a red fox\" --base sd15\n"
                "kiwame pull hf:org/name:model.safetensors --to models\nkiwame pull civitai:128713",
    .options = options, .config_size = sizeof(config), .run = run,
};
