/* cmd_help.c - kiwame help: the help of a command, and the whole reference as man page or Markdown. */
#include "cli.h"

#include <string.h>

typedef struct { kw_texts words; int format; } config;

enum { TEXT, MAN, MARKDOWN };

static const kw_option options[] = {
    KW_ROW_LIST("command", config, words, "the command to explain", .value = "COMMAND",
                .flags = KW_OPT_POSITIONAL),
    KW_ROW_CHOICE("format", config, format, TEXT, "text|man|markdown", "man, markdown: the reference of all commands"),
    KW_ROW_END
};

static kw_status one_command(kw_cli *c, const config *g, kw_str *out, kw_err *e)
{
    const kw_command *const *list = kw_commands, *m = NULL;
    const char *path = "kiwame";
    for (size_t i = 0; i < g->words.n; i++) {
        const char *word = g->words.item[i];
        kw_nearest near = { .word = word };
        for (m = NULL; list && *list && !m; list++) {
            m = strcmp((*list)->name, word) ? NULL : *list;
            kw_nearest_try(&near, (*list)->name);
        }
        if (!m) {
            kw_status s = kw_fail(e, KW_EUSAGE, N_("unknown command '%s'"), word);
            return near.best ? kw_advise(e, s, N_("did you mean '%s %s'?"), path, near.best) : s;
        }
        path = kw_sprintf(c->arena, "%s %s", path, word);
        if (!path)
            return kw_fail(e, KW_ENOMEM, N_("no memory"));
        list = m->commands;
    }
    return kw_help_text(m, path, &c->term, out, e);
}

static kw_status run(kw_cli *c, void *config_, kw_err *e)
{
    const config *g = config_;
    kw_str out = { 0 };
    kw_status s = KW_OK;
    if (g->format == MAN)
        s = kw_help_man(&out, e);
    else if (g->format == MARKDOWN)
        s = kw_help_markdown(&out, e);
    else if (g->words.n)
        s = one_command(c, g, &out, e);
    else
        kw_help_overview(&c->term, &out);
    if (!s)
        fputs(out.s ? out.s : "", stdout);
    kw_str_free(&out);
    return s;
}

const kw_command kw_command_help = {
    .name = "help", .help = N_("explain a command"), .options = options, .config_size = sizeof(config), .run = run,
};
