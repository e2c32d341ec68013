/* cli.c - from argv to a command: words, options, help, errors and exit codes. */
#include "cli.h"

#include <locale.h>
#include <omp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kern/kern.h"

const kw_option kw_global_options[] = {
    KW_ROW_GROUP("Options of every command"),
    KW_ROW_CHOICE("lang", kw_globals, lang, 0, "auto|en|ja", "language of all messages", .flags = KW_OPT_NO_RECIPE),
    KW_ROW_BOOL("json", kw_globals, json, false, "print the result as JSON", .flags = KW_OPT_NO_RECIPE),
    KW_ROW_BOOL("quiet", kw_globals, quiet, false, "print results and errors only", .letter = 'q',
                .flags = KW_OPT_NO_RECIPE),
    KW_ROW_BOOL("color", kw_globals, colour, false, "use colours, or not: --no-color", .alias = "colour",
                .flags = KW_OPT_NO_RECIPE),
    KW_ROW_INT("threads", kw_globals, threads, 0, 1, 1024, "how many threads compute", .word = "auto",
               .flags = KW_OPT_NO_RECIPE),
    KW_ROW_CHOICE("isa", kw_globals, isa, 0, "auto|scalar|avx2|avx512|avx512_bf16",
                  "instruction set of all computation, at most what the machine has",
                  .flags = KW_OPT_NO_RECIPE | KW_OPT_HIDDEN),
    KW_ROW_END
};

/* ---- errors ---------------------------------------------------------------------------------------------- */

static void print_error_json(const kw_err *e, int code)
{
    kw_str s = { 0 };
    kw_str_printf(&s, "{\"error\":");
    kw_show_json_text(&s, e->what);
    kw_str_add(&s, ",\"advice\":");
    kw_show_json_text(&s, e->advice);
    kw_str_printf(&s, ",\"code\":%d}\n", code);
    if (!s.failed)
        fputs(s.s, stdout);
    kw_str_free(&s);
}

/* What happened; below it, what to do. */
static int report(const kw_cli *c, kw_status status, const kw_err *e)
{
    kw_str s = { 0 };
    bool colour = c->term.err_colour;
    kw_str_printf(&s, "%skiwame:%s ", kw_style_text(colour, KW_RED), kw_style_text(colour, KW_PLAIN));
    kw_escape(&s, e->what[0] ? e->what : kw_status_text(status));
    if (e->advice[0]) {
        kw_str_add(&s, "\n  → ");
        kw_escape(&s, e->advice);
    }
    if (status == KW_EUSAGE) {
        kw_str_add(&s, "\n  → ");
        kw_str_printf(&s, _(N_("all options: %s --help")), c->path);
    }
    fprintf(stderr, "%s\n", s.failed ? e->what : s.s);
    kw_str_free(&s);
    int code = status == KW_ESTOP && c->stopped_by ? 128 + c->stopped_by : kw_status_exit_code(status);
    bool json = c->global.json;           /* or it stands behind the argument that was refused */
    for (int i = 1; i < c->argc && strcmp(c->argv[i], "--"); i++)
        json |= !strcmp(c->argv[i], "--json");
    if (json)
        print_error_json(e, code);
    return code;
}

/* ---- words to a command --------------------------------------------------------------------------------------- */

typedef struct {
    const kw_command *command;            /* NULL: none named */
    const char *path;                     /* "kiwame train lora" */
    int argc;
    char **argv;                          /* what is left: options and arguments */
    bool help, version;
} request;

static const kw_command *find_command(const kw_command *const *list, const char *word, kw_nearest *near)
{
    for (; list && *list; list++) {
        if (!strcmp((*list)->name, word))
            return *list;
        if (!((*list)->flags & KW_COMMAND_HIDDEN))
            kw_nearest_try(near, (*list)->name);
    }
    return NULL;
}

/* Is this option's value the next word? Only global options can stand before the command. */
static bool takes_next(const kw_options *globals, const char *arg)
{
    if (strncmp(arg, "--", 2) || strchr(arg, '='))
        return false;
    const kw_option *row = kw_options_find(globals, arg + 2);
    return row && row->type != KW_OPT_BOOL;
}

static kw_status read_words(kw_cli *c, const kw_options *globals, request *r, kw_err *e)
{
    const kw_command *const *list = kw_commands;
    int i = 1;
    for (; i < c->argc && list; i++) {
        char *arg = c->argv[i];
        if (!strcmp(arg, "--"))
            break;
        r->version |= !strcmp(arg, "--version") && !r->command;
        if (arg[0] == '-' && arg[1]) {
            r->argv[r->argc++] = arg;
            if (takes_next(globals, arg) && i + 1 < c->argc)
                r->argv[r->argc++] = c->argv[++i];
            continue;
        }
        kw_nearest near = { .word = arg };
        const kw_command *found = find_command(list, arg, &near);
        if (!found) {
            kw_status s = kw_fail(e, KW_EUSAGE, N_("unknown command '%s'"), arg);
            return near.best ? kw_advise(e, s, N_("did you mean '%s %s'?"), r->path, near.best) : s;
        }
        r->command = found;
        r->path = c->path = kw_sprintf(c->arena, "%s %s", r->path, arg);
        if (!r->path)
            return kw_fail(e, KW_ENOMEM, N_("no memory"));
        list = found->commands;
    }
    for (; i < c->argc; i++)
        r->argv[r->argc++] = c->argv[i];
    for (int k = 0; k < r->argc && strcmp(r->argv[k], "--"); k++)
        r->help |= !strcmp(r->argv[k], "--help") || !strcmp(r->argv[k], "-h");
    return KW_OK;
}

kw_status kw_command_bind(const kw_command *m, kw_arena *a, kw_options *o, void **config, kw_err *e)
{
    *config = kw_alloc(a, m->config_size + 1);
    if (!*config)
        return kw_fail(e, KW_ENOMEM, N_("no memory"));
    if (m->options)
        KW_TRY(kw_options_add(o, m->options, *config, NULL, e));
    return kw_options_add_tables(o, m->tables, *config, e);
}

/* ---- running -------------------------------------------------------------------------------------------------- */

/* KIWAME_THREADS and the like, for the global options only: a run must not depend on a forgotten variable. */
static kw_status read_environment(kw_cli *c, kw_err *e)
{
    kw_options *o = c->options;
    for (const kw_option *row = kw_global_options; row->name; row++) {
        char name[64] = "KIWAME_";
        size_t n = strlen(name);
        for (const char *p = row->name; *p && n + 1 < sizeof name; p++)
            name[n++] = *p == '-' ? '_' : (char)(*p - ('a' <= *p && *p <= 'z') * ('a' - 'A'));
        const char *value = row->type == KW_OPT_GROUP ? NULL : getenv(name);
        const char *label = value && *value ? kw_strdup(c->arena, name) : NULL;
        if (value && *value && !label)
            return kw_fail(e, KW_ENOMEM, N_("no memory"));
        if (label)
            KW_TRY(kw_options_set(o, row->name, value, KW_FROM_ENV, label, e));
    }
    return KW_OK;
}

static void put(const kw_str *s) { fputs(s->s && !s->failed ? s->s : "", stdout); }

static kw_status show_help(kw_cli *c, const request *r, kw_err *e)
{
    kw_str s = { 0 };
    kw_status status = KW_OK;
    if (r->command)
        status = kw_help_text(r->command, r->path, &c->term, &s, e);
    else
        kw_help_overview(&c->term, &s);
    if (!status)
        put(&s);
    kw_str_free(&s);
    return status;
}

static void add_libraries(kw_str *s)
{
    const char *comma = "";
    for (const kw_library *l = kw_libraries(); l->name; l++) {
        if (!l->version)
            continue;
        kw_str_printf(s, "%s%s %s", comma, l->name, l->version);
        comma = ", ";
    }
}

static void show_version(void)
{
    kw_machine m;
    kw_machine_read(&m);
    kw_str s = { 0 };
    kw_str_printf(&s, "kiwame %s\n%s: %s, %d %s, ", KW_VERSION, _(N_("machine")), m.cpu, m.cores, _(N_("cores")));
    kw_machine_features(&m, &s);
    kw_str_printf(&s, "\n%s: %s\n%s: %s, C%ld, OpenMP %d\n%s: ", _(N_("kernels")), kw_kern_get()->isa, _(N_("build")),
#ifdef __clang__
                  "clang " __clang_version__,
#else
                  "gcc " __VERSION__,
#endif
                  __STDC_VERSION__ / 100 % 100, _OPENMP, _(N_("libraries")));
    add_libraries(&s);
    kw_str_add(&s, "\n");
    put(&s);
    kw_str_free(&s);
}

/* KIWAME_ISA or --isa. One that the machine lacks is a wrong option, like one that nobody knows. */
static kw_status choose_isa(const kw_cli *c, kw_err *e)
{
    static const char *const isa[] = { NULL, "scalar", "avx2", "avx512", "avx512_bf16" };
    kw_status s = kw_isa_choose(isa[c->global.isa], e);
    return s == KW_EDEVICE ? KW_EUSAGE : s;
}

static kw_status run_command(kw_cli *c, const request *r, kw_err *e)
{
    void *config;
    KW_TRY(kw_command_bind(r->command, c->arena, c->options, &config, e));
    KW_TRY(kw_options_argv(c->options, r->argc, r->argv, e));
    KW_TRY(read_environment(c, e));
    KW_TRY(kw_options_finish(c->options, e));
    kw_term_init(&c->term, kw_options_from(c->options, "color") ? c->global.colour : -1);
    if (r->command->flags & KW_COMMAND_THREADS)
        kw_threads_settle(c->argv);
    if (c->global.threads)
        omp_set_num_threads(c->global.threads);
    KW_TRY(choose_isa(c, e));
    return r->command->run(c, config, e);
}

static kw_status dispatch(kw_cli *c, kw_err *e)
{
    request r = { .path = c->path };
    r.argv = kw_alloc_array(c->arena, (size_t)c->argc + 1, sizeof *r.argv);
    c->options = kw_options_new(c->arena);
    if (!r.argv || !c->options)
        return kw_fail(e, KW_ENOMEM, N_("no memory"));
    KW_TRY(kw_options_add(c->options, kw_global_options, &c->global, NULL, e));
    KW_TRY(read_words(c, c->options, &r, e));
    if (r.version) {
        show_version();
        return KW_OK;
    }
    if (r.help || (!r.command && !r.argc))
        return show_help(c, &r, e);
    if (!r.command) {                     /* options alone: one is wrong, or it is the overview in another language */
        KW_TRY(kw_options_argv(c->options, r.argc, r.argv, e));
        if (!c->global.json)
            return show_help(c, &r, e);
    }
    if (!r.command || !r.command->run) {
        const kw_command *const *list = r.command ? r.command->commands : kw_commands;
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("which command? %s needs one more word"), r.path),
                         N_("for example: %s %s"), r.path, (*list)->name);
    }
    return run_command(c, &r, e);
}

/* Did the results go out? Who closed the pipe (`kiwame ... | head`) has seen enough. */
static kw_status finish_output(kw_err *e)
{
    struct pollfd out = { .fd = STDOUT_FILENO };
    bool lost = fflush(stdout) || ferror(stdout);
    if (!lost || (poll(&out, 1, 0) > 0 && out.revents & POLLERR))
        return KW_OK;
    return kw_fail(e, KW_ESTORAGE, N_("stdout: cannot write"));
}

int kw_cli_main(int argc, char **argv)
{
    kw_cli c = { .arena = kw_arena_new(), .path = "kiwame", .argc = argc, .argv = argv };
    kw_err e = { 0 };
    setlocale(LC_CTYPE, "C.UTF-8");       /* numbers stay as in C, whatever the user's locale is */
    signal(SIGPIPE, SIG_IGN);             /* `kiwame ... | head`: a write error, not a death */
    signal(SIGXFSZ, SIG_IGN);             /* a file size limit: likewise */
    kw_i18n_init(argc, argv);
    kw_guard_files();
    kw_term_init(&c.term, -1);
    kw_status s = c.arena ? dispatch(&c, &e) : kw_fail(&e, KW_ENOMEM, N_("no memory"));
    if (!s)
        s = finish_output(&e);
    int code = s ? report(&c, s, &e) : 0;
    kw_arena_free(c.arena);
    return code;
}
