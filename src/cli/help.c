/* help.c - help of one command, the overview, the man page and docs/OPTIONS.md, all from the option tables. */
#include "cli.h"

#include <string.h>

enum { INDENT = 2, COLUMN = 28 };         /* options start here, their help there */

/* ---- one row ------------------------------------------------------------------------------------------------ */

/* "-o, --out FILE", "--[no-]flip", "DIR", "FILE..." */
static void add_name(const kw_option *row, kw_str *out)
{
    const char *value = kw_option_value_name(row);
    bool list = row->type == KW_OPT_LIST || row->type == KW_OPT_PATHS;
    if (row->flags & KW_OPT_POSITIONAL) {
        kw_str_printf(out, "%s%s", value, list ? "..." : "");
        return;
    }
    if (row->letter)
        kw_str_printf(out, "-%c, ", row->letter);
    kw_str_printf(out, row->type == KW_OPT_BOOL && row->def ? "--[no-]%s" : "--%s", row->name);
    if (value)
        kw_str_printf(out, " %s", value);
}

/* "(default 16 px; 1 to 1024)" */
static void add_details(const kw_option *row, kw_str *out)
{
    kw_str def = { 0 }, range = { 0 };
    kw_option_show_default(row, &def);
    kw_option_show_range(row, &range);
    bool on = row->type == KW_OPT_BOOL && row->def, word = row->word && row->def == row->word_is;
    bool list = row->type == KW_OPT_LIST || row->type == KW_OPT_PATHS;
    if (row->flags & KW_OPT_POSITIONAL && !(row->flags & KW_OPT_REQUIRED))
        list = false;                     /* as many as wanted, none too: the usage line shows that */
    if (def.n || range.n || on || list) {
        const char *unit = row->unit && !word ? _(row->unit) : "";
        kw_str_add(out, " (");
        if (def.n)
            kw_str_printf(out, "%s %s%s%s", _(N_("default")), def.s, *unit ? " " : "", unit);
        if (on)
            kw_str_add(out, _(N_("default: yes")));
        if (list)
            kw_str_add(out, row->flags & KW_OPT_POSITIONAL ? _(N_("one or more")) : _(N_("may be repeated")));
        kw_str_printf(out, "%s%s)", def.n && range.n ? "; " : "", range.n ? range.s : "");
    }
    kw_str_free(&def);
    kw_str_free(&range);
}

static void add_row(const kw_option *row, const kw_term *t, kw_str *out)
{
    kw_str name = { 0 }, help = { 0 };
    add_name(row, &name);
    kw_str_add(&help, _(row->help));
    add_details(row, &help);
    if (name.s && help.s) {
        int width = INDENT + kw_width(name.s);
        kw_str_printf(out, "%*s%s%s%s", INDENT, "", kw_style_text(t->out_colour, KW_BOLD), name.s,
                      kw_style_text(t->out_colour, KW_PLAIN));
        if (width + 2 > COLUMN)           /* a long name: its help starts on the next line */
            kw_str_printf(out, "\n%*s", COLUMN, "");
        else
            kw_str_printf(out, "%*s", COLUMN - width, "");
        kw_wrap(out, help.s, COLUMN, COLUMN, t->width);
        kw_str_add(out, "\n");
    }
    kw_str_free(&name);
    kw_str_free(&help);
}

static void add_heading(const char *text, const kw_term *t, kw_str *out)
{
    kw_str_printf(out, "\n%s%s%s\n", kw_style_text(t->out_colour, KW_BOLD), text, kw_style_text(t->out_colour, KW_PLAIN));
}

/* ---- one command ------------------------------------------------------------------------------------------------ */

static void add_usage(const kw_command *m, const kw_options *o, const char *path, kw_str *out)
{
    kw_str_printf(out, "%s: %s%s", _(N_("Usage")), path, m->commands ? " COMMAND" : "");
    bool named = false;
    for (size_t i = 0; i < kw_options_count(o); i++)
        named |= !(kw_options_row(o, i)->flags & KW_OPT_POSITIONAL);
    kw_str_add(out, named ? " [OPTIONS]" : "");
    for (size_t i = 0; i < kw_options_count(o); i++) {
        const kw_option *row = kw_options_row(o, i);
        if (!(row->flags & KW_OPT_POSITIONAL) || row->flags & KW_OPT_HIDDEN)
            continue;
        kw_str_add(out, row->flags & KW_OPT_REQUIRED ? " " : " [");
        add_name(row, out);
        kw_str_add(out, row->flags & KW_OPT_REQUIRED ? "" : "]");
    }
    kw_str_add(out, "\n");
}

static void add_commands(const kw_command *const *list, const kw_term *t, kw_str *out)
{
    for (; *list; list++) {
        if ((*list)->flags & KW_COMMAND_HIDDEN)
            continue;
        kw_str_printf(out, "%*s%s%-14s%s", INDENT, "", kw_style_text(t->out_colour, KW_BOLD), (*list)->name,
                      kw_style_text(t->out_colour, KW_PLAIN));
        kw_wrap(out, _((*list)->help), INDENT + 14, INDENT + 14, t->width);
        kw_str_add(out, "\n");
    }
}

/* Arguments first, then the options under their headings. */
static void add_rows(const kw_options *o, bool positional, const kw_term *t, kw_str *out)
{
    bool open = false;
    const kw_option *heading = NULL;
    for (size_t i = 0; i < kw_options_count(o); i++) {
        const kw_option *row = kw_options_row(o, i);
        if (row->type == KW_OPT_GROUP) {
            heading = row;
            continue;
        }
        if (row->flags & KW_OPT_HIDDEN || kw_options_aside(o, i) || positional != !!(row->flags & KW_OPT_POSITIONAL))
            continue;
        if (positional ? !open : heading || !open)
            add_heading(positional ? _(N_("Arguments")) : heading ? _(heading->help) : _(N_("Options")), t, out);
        open = true;
        heading = NULL;
        add_row(row, t, out);
    }
}

/* Lines of shell, indented and otherwise as they are. */
static void add_examples(const char *text, const kw_term *t, kw_str *out)
{
    add_heading(_(N_("Examples")), t, out);
    for (size_t n; *text; text += n + (text[n] == '\n')) {
        n = strcspn(text, "\n");
        kw_str_printf(out, "%*s%.*s\n", INDENT, "", (int)n, text);
    }
}

static kw_status bind(const kw_command *m, kw_arena *a, kw_options **o, kw_err *e)
{
    void *config, *globals = a ? kw_alloc(a, sizeof(kw_globals)) : NULL;
    *o = globals ? kw_options_new(a) : NULL;
    if (!*o)
        return kw_fail(e, KW_ENOMEM, N_("no memory"));
    KW_TRY(kw_command_bind(m, a, *o, &config, e));
    return kw_options_add(*o, kw_global_options, globals, NULL, e);
}

kw_status kw_help_text(const kw_command *m, const char *path, const kw_term *t, kw_str *out, kw_err *e)
{
    kw_options *o;
    kw_arena *a = kw_arena_new();
    kw_status s = bind(m, a, &o, e);
    if (!s) {
        kw_str_printf(out, "%s - ", path);
        kw_wrap(out, _(m->help), kw_width(path) + 3, 2, t->width);
        kw_str_add(out, "\n\n");
        add_usage(m, o, path, out);
        if (m->about) {
            kw_str_add(out, "\n");
            kw_wrap(out, _(m->about), 0, 0, t->width);
            kw_str_add(out, "\n");
        }
        if (m->commands) {
            add_heading(_(N_("Commands")), t, out);
            add_commands(m->commands, t, out);
        }
        add_rows(o, true, t, out);
        add_rows(o, false, t, out);
        if (m->examples)
            add_examples(m->examples, t, out);
    }
    kw_arena_free(a);
    return s;
}

void kw_help_overview(const kw_term *t, kw_str *out)
{
    kw_str_printf(out, "kiwame %s - ", KW_VERSION);
    kw_str_printf(out, "%s\n\n%s: kiwame COMMAND [OPTIONS]\n",
                  _(N_("additional training of Stable Diffusion on the processor, without Python")), _(N_("Usage")));
    add_heading(_(N_("Commands")), t, out);
    add_commands(kw_commands, t, out);
    add_heading(_(N_("Examples")), t, out);
    kw_str_add(out, "  kiwame doctor\n  kiwame train lora ./photos --trigger kiwa-chan\n\n");
    kw_str_printf(out, "%s\n", _(N_("help of a command: kiwame COMMAND --help; in Japanese: --lang ja")));
}

/* ---- all commands: man page and Markdown ------------------------------------------------------------------------- */

typedef kw_status (*page)(const kw_command *m, const char *path, kw_str *out, kw_err *e);

static kw_status each_command(const kw_command *const *list, const char *path, page one, kw_str *out, kw_err *e)
{
    for (; *list; list++) {
        char whole[128];
        if ((*list)->flags & KW_COMMAND_HIDDEN)
            continue;
        snprintf(whole, sizeof whole, "%s %s", path, (*list)->name);
        KW_TRY(one(*list, whole, out, e));
        if ((*list)->commands)
            KW_TRY(each_command((*list)->commands, whole, one, out, e));
    }
    return out->failed ? kw_fail(e, KW_ENOMEM, N_("no memory")) : KW_OK;
}

/* In troff '-' is a hyphen, '\' an escape, '.' and ''' at the start of a line a command. */
static void add_troff(const char *text, kw_str *out)
{
    if (*text == '.' || *text == '\'')
        kw_str_add(out, "\\&");
    for (; *text; text++)
        if (*text == '\\')
            kw_str_add(out, "\\e");
        else if (*text == '-')
            kw_str_add(out, "\\-");
        else
            kw_str_add_n(out, text, 1);
}

static void add_man_row(const kw_option *row, kw_str *out)
{
    kw_str name = { 0 }, help = { 0 };
    if (row->type == KW_OPT_GROUP) {
        kw_str_add(out, ".PP\n.B ");
        add_troff(_(row->help), out);
        kw_str_add(out, "\n");
        return;
    }
    add_name(row, &name);
    kw_str_add(&help, _(row->help));
    add_details(row, &help);
    kw_str_add(out, ".TP\n.B ");
    add_troff(name.s ? name.s : "", out);
    kw_str_add(out, "\n");
    add_troff(help.s ? help.s : "", out);
    kw_str_add(out, "\n");
    kw_str_free(&name);
    kw_str_free(&help);
}

static bool is_shown(const kw_option *row, unsigned take)
{
    return !(row->flags & KW_OPT_HIDDEN) && kw_option_serves(row, take);
}

/* A heading with nothing below it is left out. */
static bool has_rows(const kw_option *heading, unsigned take)
{
    for (const kw_option *row = heading + 1; row->name && row->type != KW_OPT_GROUP; row++)
        if (is_shown(row, take))
            return true;
    return false;
}

static void add_all_rows(const kw_option *rows, unsigned take, void (*add)(const kw_option *, kw_str *), kw_str *out)
{
    for (; rows && rows->name; rows++)
        if (rows->type == KW_OPT_GROUP ? has_rows(rows, take) : is_shown(rows, take))
            add(rows, out);
}

static void add_command_rows(const kw_command *m, void (*add)(const kw_option *, kw_str *), kw_str *out)
{
    add_all_rows(m->options, 0, add, out);
    for (const kw_option_table *t = m->tables; t && t->rows; t++)
        add_all_rows(t->rows, t->take, add, out);
}

static kw_status man_page(const kw_command *m, const char *path, kw_str *out, kw_err *e)
{
    (void)e;
    kw_str_add(out, ".SS ");
    add_troff(path, out);
    kw_str_add(out, "\n");
    add_troff(_(m->help), out);
    kw_str_add(out, "\n");
    if (m->about) {
        kw_str_add(out, ".PP\n");
        add_troff(_(m->about), out);
        kw_str_add(out, "\n");
    }
    add_command_rows(m, add_man_row, out);
    return KW_OK;
}

kw_status kw_help_man(kw_str *out, kw_err *e)
{
    kw_str_printf(out, ".TH KIWAME 1 \"\" \"kiwame %s\"\n.SH %s\nkiwame \\- ", KW_VERSION, _(N_("NAME")));
    add_troff(_(N_("additional training of Stable Diffusion on the processor, without Python")), out);
    kw_str_printf(out, "\n.SH %s\n.B kiwame\n.I COMMAND\n[OPTIONS]\n.SH %s\n", _(N_("SYNOPSIS")), _(N_("COMMANDS")));
    KW_TRY(each_command(kw_commands, "kiwame", man_page, out, e));
    kw_str_printf(out, ".SH %s\n", _(N_("OPTIONS OF EVERY COMMAND")));
    add_all_rows(kw_global_options + 1, 0, add_man_row, out);
    return KW_OK;
}

static void add_markdown_row(const kw_option *row, kw_str *out)
{
    kw_str name = { 0 }, def = { 0 }, range = { 0 };
    if (row->type == KW_OPT_GROUP) {
        kw_str_printf(out, "| **%s** | | | | |\n", _(row->help));
        return;
    }
    add_name(row, &name);
    kw_option_show_default(row, &def);
    kw_option_show_range(row, &range);
    kw_str_printf(out, "| `%s` | %s | %s | %s | ", name.s ? name.s : "", _(row->help), def.s ? def.s : "",
                  range.s ? range.s : "");
    for (const char *a = row->alias; a && *a; a += strcspn(a, "|"), a += *a == '|')
        kw_str_printf(out, a == row->alias ? "`%.*s`" : ", `%.*s`", (int)strcspn(a, "|"), a);
    kw_str_add(out, " |\n");
    kw_str_free(&name);
    kw_str_free(&def);
    kw_str_free(&range);
}

static void add_markdown_head(kw_str *out)
{
    kw_str_printf(out, "| %s | %s | %s | %s | %s |\n|---|---|---|---|---|\n", _(N_("option")), _(N_("what it does")),
                  _(N_("default")), _(N_("allowed")), _(N_("other names")));
}

static kw_status markdown_page(const kw_command *m, const char *path, kw_str *out, kw_err *e)
{
    (void)e;
    kw_str_printf(out, "\n## %s\n\n%s\n", path, _(m->help));
    if (m->about)
        kw_str_printf(out, "\n%s\n", _(m->about));
    if (m->examples)
        kw_str_printf(out, "\n```\n%s%s```\n", m->examples, kw_ends_with(m->examples, "\n") ? "" : "\n");
    if (m->options || m->tables) {
        kw_str_add(out, "\n");
        add_markdown_head(out);
        add_command_rows(m, add_markdown_row, out);
    }
    return KW_OK;
}

kw_status kw_help_markdown(kw_str *out, kw_err *e)
{
    kw_str_printf(out, "# %s\n\n%s\n", _(N_("Commands and options")), _(N_("Made by `kiwame help --format markdown`.")));
    KW_TRY(each_command(kw_commands, "kiwame", markdown_page, out, e));
    kw_str_printf(out, "\n## %s\n\n", _(kw_global_options[0].help));
    add_markdown_head(out);
    add_all_rows(kw_global_options + 1, 0, add_markdown_row, out);
    return KW_OK;
}
