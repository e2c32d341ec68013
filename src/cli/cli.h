/*
 * cli.h - the command line: commands, help, the terminal. Only this layer prints, exits and reads argv and environment.
 *
 * A command is one file cmd_<name>.c and one line in commands.def:
 *
 *     typedef struct { const char *dir; int count; } config;
 *     static const kw_option options[] = {
 *         KW_ROW_PATH("dir", config, dir, NULL, "folder of pictures", .value = "DIR",
 *                     .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED),
 *         KW_ROW_INT("count", config, count, 1, 1, 1000, "how many pictures"),
 *         KW_ROW_END
 *     };
 *     static kw_status run(kw_cli *c, void *config, kw_err *e) { ... }
 *     const kw_command kw_command_show = {
 *         .name = "show", .help = N_("show pictures"), .options = options, .config_size = sizeof(config), .run = run,
 *     };
 *
 * Results go to stdout, everything else to stderr. With --json the result on stdout is one JSON value (or JSON lines).
 */
#ifndef KW_CLI_H
#define KW_CLI_H

#include <stdio.h>

#include "base/base.h"

#define _(text) kw_translate(text)

/* ---- the terminal (term.c) ------------------------------------------------------------------------- */

typedef struct {
    bool out_tty, err_tty;                /* stdout, stderr are terminals */
    bool out_colour, err_colour;
    int width;                            /* columns for text: 40 to 100 */
} kw_term;

typedef enum { KW_PLAIN, KW_BOLD, KW_DIM, KW_GREEN, KW_YELLOW, KW_RED } kw_style;

/* colour: 1 wanted, 0 refused, -1 by the rules (terminal, NO_COLOR, FORCE_COLOR, TERM=dumb). */
void kw_term_init(kw_term *t, int colour);
/* Escape sequence that starts a style, "" when `colour` is false; KW_PLAIN ends it. */
const char *kw_style_text(bool colour, kw_style s);

int kw_width(const char *text);           /* columns: East Asian wide ones count two, escape sequences none */
void kw_pad(kw_str *out, const char *text, int width, bool right);      /* pads, never cuts */
/* Append text in lines of at most `width` columns, continuation lines indented; Japanese may break anywhere it may. */
void kw_wrap(kw_str *out, const char *text, int column, int indent, int width);
void kw_escape(kw_str *out, const char *text);      /* control characters and broken UTF-8 made visible; keeps '\n' */

/* ---- numbers for people (show.c) ---------------------------------------------------------------------- */

void kw_show_size(kw_str *out, double bytes);               /* "1.9 GB" (powers of 1000) */
void kw_show_duration(kw_str *out, double seconds);         /* "3 min 40 s", in Japanese 3分40秒 */
void kw_show_json_text(kw_str *out, const char *text);      /* "text" with its quotes */

/* A table of texts with aligned columns. Cells are copied; columns marked 'r' in `align` are right-aligned. */
typedef struct { const char *align; char **cell; size_t n, capacity; bool failed; } kw_table;   /* { .align = "lrr" } */

void kw_table_cell(kw_table *t, const char *fmt, ...) KW_PRINTF(2, 3);
void kw_table_print(kw_table *t, FILE *to, int indent);     /* and frees the cells */

/* ---- progress (progress.c) -------------------------------------------------------------------------------- */

/* One line on stderr that rewrites itself; not on a terminal, one line every 10 s. Nothing with --quiet. */
typedef struct {
    const char *label, *unit;             /* both translated by the caller; unit "step" gives "2.3 step/s" */
    int64_t total;                        /* 0: unknown */
    bool tty, quiet, colour, shown;
    int width;
    double start, last_shown, mark_time, rate;
    int64_t mark_done;
} kw_progress;

typedef struct kw_cli kw_cli;

void kw_progress_begin(kw_progress *p, const kw_cli *c, const char *label, const char *unit, int64_t total);
void kw_progress_at(kw_progress *p, int64_t done, const char *extra);       /* extra: "loss 0.0123" or NULL */
void kw_progress_pause(kw_progress *p);   /* clears the line, so that something else may be printed */
void kw_progress_end(kw_progress *p, int64_t done, const char *extra);      /* leaves the last line standing */

/* That something long has begun, before there is anything to count: a line on stderr; hush takes it off a terminal. */
void kw_say(const kw_cli *c, const char *text);
void kw_hush(const kw_cli *c);

/* Around the writing of a file: Ctrl-C in between ends the process after it, not in it (guard.c). */
void kw_guard_begin(void);
void kw_guard_end(void);
/* From here on a mapped file that shrinks ends the program with a message (exit code 3), not with a crash. */
void kw_guard_files(void);
bool kw_guard_stopped(void);              /* in between: has somebody asked for the end? */

/* ---- commands ------------------------------------------------------------------------------------------------ */

typedef struct {                          /* options of every command */
    int lang;
    bool json, quiet, colour;
    int threads;                          /* 0: all */
    int isa;
} kw_globals;

struct kw_cli {
    kw_arena *arena;                      /* as long as the command */
    kw_globals global;
    kw_term term;
    kw_options *options;                  /* this command's tables and the global one: write_toml, from ... */
    const char *path;                     /* "kiwame train lora" */
    int argc;
    char **argv;                          /* as the process got them */
    int stopped_by;                       /* the signal behind KW_ESTOP: its exit code is 128 more; 0: SIGINT */
};

enum { KW_COMMAND_HIDDEN = 1, KW_COMMAND_THREADS = 2 };     /* THREADS: computes with the OpenMP team */

typedef struct kw_command {
    const char *name, *help;              /* help: one line, no full stop, N_() */
    const char *about;                    /* some paragraphs below the usage line, or NULL; N_() */
    const char *examples;                 /* lines of shell, shown as they are */
    const kw_option *options;             /* one table for the whole config, or ... */
    const kw_option_table *tables;        /* ... several, each at its place in the config */
    size_t config_size;
    const struct kw_command *const *commands;   /* nested commands, ended by NULL; such a command has no run */
    unsigned flags;
    kw_status (*run)(kw_cli *c, void *config, kw_err *e);
} kw_command;

extern const kw_command *const kw_commands[];       /* commands.c; ended by NULL */
extern const kw_option kw_global_options[];         /* cli.c */

int kw_cli_main(int argc, char **argv);             /* the exit code */

/* Bind all tables of a command (not the global ones) to a fresh config on the arena. */
KW_MUST kw_status kw_command_bind(const kw_command *m, kw_arena *a, kw_options *o, void **config, kw_err *e);

/* ---- help (help.c) ----------------------------------------------------------------------------------------- */

KW_MUST kw_status kw_help_text(const kw_command *m, const char *path, const kw_term *t, kw_str *out, kw_err *e);
void kw_help_overview(const kw_term *t, kw_str *out);       /* `kiwame` alone */
KW_MUST kw_status kw_help_man(kw_str *out, kw_err *e);              /* troff, all commands */
KW_MUST kw_status kw_help_markdown(kw_str *out, kw_err *e);         /* docs/OPTIONS.md */

/* ---- Japanese (i18n.c) -------------------------------------------------------------------------------------- */

typedef enum { KW_LANG_EN, KW_LANG_JA } kw_lang;

void kw_i18n_init(int argc, char *const *argv);     /* from --lang, KIWAME_LANG, LC_ALL, LC_MESSAGES, LANG */
void kw_i18n_choose(kw_lang lang);
kw_lang kw_i18n_lang(void);

/* argv of the children that decode pictures, in the language chosen: what they refuse is shown to the user. */
const char *const *kw_decoder_argv(void);

/* ---- the model that comes with the program (base.c): its folder, or NULL ------------------------------------- */

const char *kw_embedded_base(kw_arena *a);
/* Sets an option nobody gave to what the model's model_index.json wishes: "_sampling": {"sampler", "steps", "cfg"}. */
KW_MUST kw_status kw_base_wishes(kw_cli *c, const char *base, const char *wish, const char *option, kw_err *e);

/* ---- the machine (machine.c) -------------------------------------------------------------------------------- */

typedef struct {
    char cpu[96];
    int cores;                            /* that this process may use */
    bool avx2, fma, f16c, avx512, avx512_bf16, amx_bf16;
    double memory, free, limit;           /* bytes; limit: of the control group, 0 when none */
    double disk_free;                     /* of the current folder */
} kw_machine;

void kw_machine_read(kw_machine *m);
void kw_machine_features(const kw_machine *m, kw_str *out);         /* "AVX2 FMA F16C" */

typedef struct { const char *name, *debian, *version; } kw_library;      /* version NULL: not linked */

const kw_library *kw_libraries(void);     /* ended by { .name = NULL } */

/* Bytes of memory this process has now, and had at most since it began or since the last reset; 0: not known. */
void kw_process_memory(double *now, double *most);
void kw_process_memory_reset(void);

/* Once per process: start anew with the OpenMP settings that computing wants. Returns only if that is not needed. */
void kw_threads_settle(char **argv);

#endif
