/*
 * option.h - options declared once: parsing, ranges, defaults, help, recipes and documents come from one table.
 *
 *     typedef struct { int rank; float alpha; const char *targets; } lora_config;
 *     #define C lora_config
 *     static const kw_option lora_options[] = {
 *         KW_ROW_GROUP("Adapter"),
 *         KW_ROW_INT("rank", C, rank, 16, 1, 1024, "inner dimension of the two factors", .alias = "network_dim|dim"),
 *         KW_ROW_FLOAT("alpha", C, alpha, 16, 0, 1024, "scale = alpha / rank", .alias = "network_alpha"),
 *         KW_ROW_END
 *     };
 *
 *     kw_options *o = kw_options_new(arena);
 *     KW_TRY(kw_options_add(o, lora_options, &config, "lora", e));           defaults are set here
 *     KW_TRY(kw_options_argv(o, argc, argv, e));                             --rank 8, --rank=8, --no-flip, -o F, --
 *     KW_TRY(kw_options_toml(o, text, n, "recipe.toml", KW_FROM_RECIPE, e)); never overrides what argv said
 *     KW_TRY(kw_options_finish(o, e));                                       is anything required missing?
 *
 * A row's name is the long option and the recipe key; '-' and '_' are the same in both. Numbers are read and written
 * in the C locale whatever the process uses. A bad value is answered with its name, the value and what is allowed.
 */
#ifndef KW_OPTION_H
#define KW_OPTION_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- tables ------------------------------------------------------------------------------------- */

typedef enum {                            /* and the type of the field in the config struct */
    KW_OPT_GROUP,                         /* no option: a heading for the rows below */
    KW_OPT_BOOL,                          /* bool;      --flip, --no-flip, --flip=yes */
    KW_OPT_INT,                           /* int */
    KW_OPT_INT64,                         /* int64_t */
    KW_OPT_FLOAT,                         /* float */
    KW_OPT_DOUBLE,                        /* double */
    KW_OPT_CHOICE,                        /* int or enum: the place in .text = "a|b|c" */
    KW_OPT_TEXT,                          /* const char *: UTF-8 on the arena; NULL when never given */
    KW_OPT_PATH,                          /* const char *: a recipe's relative paths start at the recipe's folder */
    KW_OPT_LIST,                          /* kw_texts: may be given several times; an array in a recipe */
    KW_OPT_PATHS,                         /* kw_texts of paths */
    KW_OPT_SIZE,                          /* uint64_t bytes: 800M, 6.5G, 8GiB (1024), 8GB (1000) */
    KW_OPT_SEED,                          /* uint64_t: 0 to 2^64-1, or "random" */
} kw_option_type;

typedef struct { const char **item; size_t n, capacity; } kw_texts;

enum {                                    /* .flags */
    KW_OPT_POSITIONAL = 1,                /* an argument that needs no name: taken in the table's order; lists take the rest */
    KW_OPT_REQUIRED = 2,
    KW_OPT_HIDDEN = 4,                    /* works, but help does not show it */
    KW_OPT_NO_RECIPE = 8,                 /* belongs to the command line: refused in recipes, not written to them */
    KW_OPT_ABOVE = 16,                    /* the value must be above .min, not equal to it */
    KW_OPT_OR_NAME = 32,                  /* a path, or a plain name (no '/'), which is not resolved */
    KW_OPT_OR_INT = 64,                   /* a text that recipes may give as an integer: resolution = 512 */
    KW_OPT_BYTES = 128,                   /* a text that need not be valid UTF-8 */
};

typedef struct {
    const char *name;                     /* "batch-size"; NULL ends the table */
    kw_option_type type;
    size_t at;                            /* offset of the field in the config struct */
    double def, min, max;                 /* of numbers; .def also of bool and choice; INFINITY: no limit */
    const char *text;                     /* choices "a|b|c", or the default of a text or path; of a seed: shown as it */
    const char *help;                     /* English, one line, no full stop; the Japanese is in po/ja.po */
    const char *alias;                    /* other spellings, "network_dim|dim": kohya's names */
    const char *value;                    /* what stands for the value in help; NULL: N, X, TEXT, FILE ... */
    const char *unit;                     /* "px", "steps": shown behind the default */
    const char *word;                     /* a word for one special value: "auto", "off" */
    double word_is;                       /* ... which it stands for; outside of the range only the word gives it */
    double step;                          /* whole numbers must be multiples of it; 0: any */
    unsigned flags;
    unsigned use;                         /* bits of the table's owner: which of its uses know this row; 0: all */
    char letter;                          /* 'o' for -o; 0: none */
} kw_option;

/* Rows. C is the config struct, f its field (its type is checked), h the help; further .fields may follow. */
#define KW_AT_(C, f, T) (offsetof(C, f) + 0 * sizeof(_Generic(((C *)0)->f, T: 1)))
#define KW_AT_CHOICE_(C, f) (offsetof(C, f) + 0 * sizeof(_Generic(((C *)0)->f, int: 1, unsigned: 1)))
#define KW_ROW_NUM_(T, t, n, C, f, d, lo, hi, h, ...) \
    { .name = n, .type = T, .at = KW_AT_(C, f, t), .def = d, .min = lo, .max = hi, .help = h, __VA_ARGS__ }
#define KW_ROW_TEXT_(T, t, n, C, f, d, h, ...) \
    { .name = n, .type = T, .at = KW_AT_(C, f, t), .text = d, .help = h, __VA_ARGS__ }
#define KW_ROW_GROUP(h) { .name = "", .type = KW_OPT_GROUP, .help = h }
#define KW_ROW_BOOL(n, C, f, d, h, ...) \
    { .name = n, .type = KW_OPT_BOOL, .at = KW_AT_(C, f, bool), .def = d, .help = h, __VA_ARGS__ }
#define KW_ROW_INT(n, C, f, d, lo, hi, h, ...) KW_ROW_NUM_(KW_OPT_INT, int, n, C, f, d, lo, hi, h, __VA_ARGS__)
#define KW_ROW_INT64(n, C, f, d, lo, hi, h, ...) KW_ROW_NUM_(KW_OPT_INT64, int64_t, n, C, f, d, lo, hi, h, __VA_ARGS__)
#define KW_ROW_FLOAT(n, C, f, d, lo, hi, h, ...) KW_ROW_NUM_(KW_OPT_FLOAT, float, n, C, f, d, lo, hi, h, __VA_ARGS__)
#define KW_ROW_DOUBLE(n, C, f, d, lo, hi, h, ...) KW_ROW_NUM_(KW_OPT_DOUBLE, double, n, C, f, d, lo, hi, h, __VA_ARGS__)
#define KW_ROW_SIZE(n, C, f, d, lo, hi, h, ...) KW_ROW_NUM_(KW_OPT_SIZE, uint64_t, n, C, f, d, lo, hi, h, __VA_ARGS__)
#define KW_ROW_SEED(n, C, f, d, h, ...) \
    KW_ROW_NUM_(KW_OPT_SEED, uint64_t, n, C, f, d, 0, 18446744073709551615.0, h, __VA_ARGS__)
#define KW_ROW_CHOICE(n, C, f, d, choices, h, ...) \
    { .name = n, .type = KW_OPT_CHOICE, .at = KW_AT_CHOICE_(C, f), .def = d, .text = choices, .help = h, __VA_ARGS__ }
#define KW_ROW_TEXT(n, C, f, d, h, ...) KW_ROW_TEXT_(KW_OPT_TEXT, const char *, n, C, f, d, h, __VA_ARGS__)
#define KW_ROW_PATH(n, C, f, d, h, ...) KW_ROW_TEXT_(KW_OPT_PATH, const char *, n, C, f, d, h, __VA_ARGS__)
#define KW_ROW_LIST(n, C, f, h, ...) KW_ROW_TEXT_(KW_OPT_LIST, kw_texts, n, C, f, NULL, h, __VA_ARGS__)
#define KW_ROW_PATHS(n, C, f, h, ...) KW_ROW_TEXT_(KW_OPT_PATHS, kw_texts, n, C, f, NULL, h, __VA_ARGS__)
#define KW_ROW_END { .name = NULL }

/*
 * Several tables make one set of options: an array of these, ended by { .rows = NULL }. A table shared by several uses
 * names the bits of this one in `take`: rows of other uses (row.use) then stand aside. They keep their defaults and are
 * read where they are given, but help and written recipes do not have them, and kw_options_misplaced finds those that
 * were given, for a better answer than "unknown option".
 */
typedef struct {
    const kw_option *rows;
    size_t at;                            /* offset of this table's config struct in the whole */
    const char *section;                  /* recipe heading [section]; NULL: none */
    unsigned take;                        /* 0: all rows */
} kw_option_table;

/* ---- values --------------------------------------------------------------------------------------- */

typedef enum {                            /* who set a value; a lower one never overrides a higher one */
    KW_FROM_DEFAULT, KW_FROM_PRESET, KW_FROM_RECIPE, KW_FROM_ENV, KW_FROM_ARGV,
} kw_option_source;

typedef struct kw_options kw_options;     /* tables bound to config structs; lives on its arena */

kw_options *kw_options_new(kw_arena *a);  /* NULL when memory is gone */

/* Bind one table to a config struct (which must outlive the options) and set its defaults. */
KW_MUST kw_status kw_options_add(kw_options *o, const kw_option *rows, void *config, const char *section, kw_err *e);
KW_MUST kw_status kw_options_add_tables(kw_options *o, const kw_option_table *tables, void *config, kw_err *e);

/* Arguments after the command's name, argv[0..argc-1]. */
KW_MUST kw_status kw_options_argv(kw_options *o, int argc, char *const *argv, kw_err *e);

/* A recipe. `file` names it in errors (FILE:LINE:COLUMN) and its folder is where relative paths start. */
KW_MUST kw_status kw_options_toml(kw_options *o, const char *text, size_t n, const char *file, kw_option_source from,
                                  kw_err *e);

/* One value by name; `label` names it in errors ("--rank", "KIWAME_RANK"). KW_EUSAGE for an unknown name. */
KW_MUST kw_status kw_options_set(kw_options *o, const char *name, const char *text, kw_option_source from,
                                 const char *label, kw_err *e);

KW_MUST kw_status kw_options_finish(kw_options *o, kw_err *e);      /* KW_EUSAGE when a required value is missing */

kw_option_source kw_options_from(const kw_options *o, const char *name);    /* who set it */
/* The first row given on the command line that knows none of these uses; NULL: all that was given belongs here. */
const kw_option *kw_options_misplaced(const kw_options *o, unsigned use);
/* Is a row of a table for this use? */
static inline bool kw_option_serves(const kw_option *row, unsigned use) { return !use || !row->use || row->use & use; }

/* The resolved recipe: reading it back gives the same values. Paths become absolute if wanted. */
KW_MUST kw_status kw_options_write_toml(const kw_options *o, bool absolute_paths, kw_str *out, kw_err *e);
KW_MUST kw_status kw_options_write_json(const kw_options *o, kw_str *out, kw_err *e);

/* ---- for help and documents -------------------------------------------------------------------------- */

size_t kw_options_count(const kw_options *o);                       /* rows of all tables, headings included */
const kw_option *kw_options_row(const kw_options *o, size_t i);
const char *kw_options_section(const kw_options *o, size_t i);
bool kw_options_aside(const kw_options *o, size_t i);               /* does the row stand aside? */
const kw_option *kw_options_find(const kw_options *o, const char *name);    /* by name or alias; NULL: none */

void kw_option_show_default(const kw_option *row, kw_str *out);     /* "16", "512M", "" when there is none */
void kw_option_show_range(const kw_option *row, kw_str *out);       /* "1 to 1024", "one of: a, b"; translated; may be "" */
const char *kw_option_value_name(const kw_option *row);             /* "N", "FILE"; NULL for a bool */

/* What a table's author can get wrong: names twice, defaults out of range, choices missing. For tests. */
KW_MUST kw_status kw_options_check(const kw_options *o, kw_err *e);

/* ---- near words ---------------------------------------------------------------------------------------- */

typedef struct { const char *word, *best; int distance; } kw_nearest;   /* { .word = "rnak" }, then try each candidate */

void kw_nearest_try(kw_nearest *n, const char *candidate);          /* n->best: the nearest so far that is near enough */

/* ---- TOML 1.0 -------------------------------------------------------------------------------------------- */

typedef enum { KW_TOML_TABLE, KW_TOML_ARRAY, KW_TOML_TEXT, KW_TOML_INT, KW_TOML_FLOAT, KW_TOML_BOOL, KW_TOML_DATE } kw_toml_type;

typedef struct kw_toml {                  /* in the order of the file */
    kw_toml_type type;
    const char *key;                      /* in a table; NULL in an array */
    int line, column;                     /* of the key, or of the value in an array; from 1 */
    const char *text;                     /* texts: UTF-8 without NUL; floats: their shortest decimal */
    int64_t i;
    double f;
    bool b;
    struct kw_toml *child, *next;
} kw_toml;

/* Everything lives on the arena. KW_EUSAGE with FILE:LINE:COLUMN; texts above 4 MiB and absurd nesting are refused. */
KW_MUST kw_status kw_toml_parse(kw_arena *a, const char *text, size_t n, const char *file, kw_toml **root, kw_err *e);

#ifdef __cplusplus
}
#endif

#endif
