/* option.c - sets of options: tables bound to config structs, look-up by name, the command line. */
#include "option_parts.h"

#include <string.h>

kw_options *kw_options_new(kw_arena *a)
{
    kw_options *o = kw_alloc(a, sizeof *o);
    if (o)
        o->arena = a;
    return o;
}

static kw_status add(kw_options *o, const kw_option_table *t, void *config, kw_err *e)
{
    for (const kw_option *row = t->rows; row->name; row++) {
        KW_TRY(kw_grow(o->arena, &o->entry, &o->capacity, o->n, sizeof *o->entry, e));
        kw__option_entry *x = &o->entry[o->n++];
        *x = (kw__option_entry){ .row = row, .section = t->section, .aside = !kw_option_serves(row, t->take) };
        if (row->type == KW_OPT_GROUP)
            continue;
        x->at = (char *)config + row->at;
        kw__option_set_default(x);
    }
    return KW_OK;
}

kw_status kw_options_add(kw_options *o, const kw_option *rows, void *config, const char *section, kw_err *e)
{
    return add(o, &(kw_option_table){ .rows = rows, .section = section }, config, e);
}

kw_status kw_options_add_tables(kw_options *o, const kw_option_table *tables, void *config, kw_err *e)
{
    for (; tables && tables->rows; tables++)
        KW_TRY(add(o, tables, (char *)config + tables->at, e));
    return KW_OK;
}

/* ---- names -------------------------------------------------------------------------------------- */

static bool same_name(const char *a, size_t n, const char *b, size_t m)
{
    if (n != m)
        return false;
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i] && !((a[i] == '-' || a[i] == '_') && (b[i] == '-' || b[i] == '_')))
            return false;
    return true;
}

kw__option_entry *kw__option_find(const kw_options *o, const char *name, size_t n)
{
    for (size_t i = 0; n && i < o->n; i++) {
        const kw_option *row = o->entry[i].row;
        if (same_name(name, n, row->name, strlen(row->name)))
            return &o->entry[i];
        for (const char *a = row->alias; a && *a; a += strcspn(a, "|"), a += *a == '|')
            if (same_name(name, n, a, strcspn(a, "|")))
                return &o->entry[i];
    }
    return NULL;
}

const kw_option *kw_options_find(const kw_options *o, const char *name)
{
    kw__option_entry *x = kw__option_find(o, name, strlen(name));
    return x ? x->row : NULL;
}

/* Optimal string alignment: insertions, deletions, changes and swaps of neighbours each count one. */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 48 };
    int n = (int)strnlen(a, LONGEST + 1), m = (int)strnlen(b, LONGEST + 1), d[3][LONGEST + 1];
    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (int j = 0; j <= m; j++)
        d[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = d[i % 3], *last = d[(i + 2) % 3], *before = d[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            now[j] = KW_MIN(KW_MIN(now[j - 1], last[j]) + 1, last[j - 1] + !same_name(a + i - 1, 1, b + j - 1, 1));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = KW_MIN(now[j], before[j - 2] + 1);
        }
    }
    return d[n % 3][m];
}

void kw_nearest_try(kw_nearest *near, const char *candidate)
{
    size_t n = strlen(near->word);
    int d = distance(near->word, candidate);
    if (n >= 3 && !strncmp(near->word, candidate, n))
        d = 1;                            /* a beginning: --res for --resolution */
    int near_enough = n > 2 ? KW_MAX(1, (int)KW_MIN(n, strlen(candidate)) / 3) : 0;
    if (d <= near_enough && (!near->best || d < near->distance)) {
        near->best = candidate;
        near->distance = d;
    }
}

kw_status kw__option_unknown(const kw_options *o, const char *label, const char *name, bool recipe, kw_err *e)
{
    kw_nearest near = { .word = name };
    for (size_t i = 0; i < o->n; i++) {
        const kw_option *row = o->entry[i].row;
        if (row->type == KW_OPT_GROUP || (row->flags & KW_OPT_HIDDEN) || (recipe && row->flags & KW_OPT_NO_RECIPE)
            || (!recipe && row->flags & KW_OPT_POSITIONAL) || o->entry[i].aside)
            continue;
        const char *before = near.best;
        kw_nearest_try(&near, row->name);
        for (const char *a = row->alias; a && *a; a += strcspn(a, "|"), a += *a == '|') {
            char *one = kw_strndup(o->arena, a, strcspn(a, "|"));
            if (one)
                kw_nearest_try(&near, one);
        }
        if (near.best != before)
            near.best = row->name;        /* an alias was near: say our name */
    }
    kw_status s = recipe ? kw_fail(e, KW_EUSAGE, N_("%s: unknown key '%s'"), label, kw__show(name).s)
                         : kw_fail(e, KW_EUSAGE, N_("unknown option '%s'"), kw__show(label).s);
    if (near.best && recipe)
        return kw_advise(e, s, N_("did you mean '%s'?"), near.best);
    return near.best ? kw_advise(e, s, N_("did you mean '--%s'?"), near.best) : s;
}

/* ---- the command line ------------------------------------------------------------------------------- */

typedef struct { int argc, at; char *const *argv; } arguments;

static kw_status set_named(kw_options *o, kw__option_entry *x, const char *label, const char *value, arguments *g,
                           kw_err *e)
{
    if (!value && x->row->type == KW_OPT_BOOL)
        value = "true";
    if (!value && g->at < g->argc) {
        const char *next = g->argv[g->at];
        /* `--rank --alpha 8`: the value was forgotten; values such as -1 or -x are taken. */
        if (strncmp(next, "--", 2) || !kw__option_find(o, next + 2, strcspn(next + 2, "=")))
            value = g->argv[g->at++];
    }
    if (!value)
        return kw_fail(e, KW_EUSAGE, N_("%s: the value is missing"), label);
    return kw__option_set(o, x, value, KW_FROM_ARGV, label, e);
}

static kw_status long_option(kw_options *o, const char *arg, arguments *g, kw_err *e)
{
    const char *name = arg + 2, *equals = strchr(name, '=');
    size_t n = equals ? (size_t)(equals - name) : strlen(name);
    char *label = kw_strndup(o->arena, arg, n + 2);
    if (!label)
        return kw_fail(e, KW_ENOMEM, N_("no memory"));
    kw__option_entry *x = kw__option_find(o, name, n);
    if (x)                                /* an argument too: --train_data_dir DIR is what kohya's users type */
        return set_named(o, x, label, equals ? equals + 1 : NULL, g, e);
    if (!x && !equals && kw_starts_with(name, "no-")) {
        x = kw__option_find(o, name + 3, n - 3);
        if (x && x->row->type == KW_OPT_BOOL)
            return kw__option_set(o, x, "false", KW_FROM_ARGV, label, e);
    }
    return kw__option_unknown(o, label, label + 2, false, e);
}

/* -o FILE, -oFILE; letters of bools may share one dash. */
static kw_status letters(kw_options *o, const char *arg, arguments *g, kw_err *e)
{
    for (const char *c = arg + 1; *c; c++) {
        kw__option_entry *x = NULL;
        for (size_t i = 0; i < o->n && !x; i++)
            if (o->entry[i].row->letter == *c)
                x = &o->entry[i];
        char *label = kw_sprintf(o->arena, "-%c", *c);
        if (!label)
            return kw_fail(e, KW_ENOMEM, N_("no memory"));
        if (!x)
            return kw_fail(e, KW_EUSAGE, N_("unknown option '%s'"), kw__show(arg).s);
        bool flag = x->row->type == KW_OPT_BOOL;
        KW_TRY(set_named(o, x, label, flag || !c[1] ? NULL : c + 1, g, e));
        if (!flag)
            break;
    }
    return KW_OK;
}

static kw_status positional(kw_options *o, const char *arg, kw_err *e)
{
    for (size_t i = 0; i < o->n; i++) {
        kw__option_entry *x = &o->entry[i];
        if (!(x->row->flags & KW_OPT_POSITIONAL) || (x->from == KW_FROM_ARGV && !kw__option_is_list(x->row)))
            continue;
        return kw__option_set(o, x, arg, KW_FROM_ARGV, kw_option_value_name(x->row), e);
    }
    return kw_fail(e, KW_EUSAGE, N_("unexpected argument '%s'"), kw__show(arg).s);
}

kw_status kw_options_argv(kw_options *o, int argc, char *const *argv, kw_err *e)
{
    arguments g = { argc, 0, argv };
    bool plain = false;                   /* after "--" */
    while (g.at < argc) {
        const char *arg = argv[g.at++];
        if (plain || arg[0] != '-' || !arg[1])
            KW_TRY(positional(o, arg, e));
        else if (!strcmp(arg, "--"))
            plain = true;
        else if (arg[1] == '-')
            KW_TRY(long_option(o, arg, &g, e));
        else
            KW_TRY(letters(o, arg, &g, e));
    }
    return KW_OK;
}

kw_status kw_options_set(kw_options *o, const char *name, const char *text, kw_option_source from, const char *label,
                         kw_err *e)
{
    kw__option_entry *x = kw__option_find(o, name, strlen(name));
    if (!x)
        return kw__option_unknown(o, label, name, false, e);
    return kw__option_set(o, x, text, from, label, e);
}

kw_status kw_options_finish(kw_options *o, kw_err *e)
{
    for (size_t i = 0; i < o->n; i++) {
        const kw_option *row = o->entry[i].row;
        if (!(row->flags & KW_OPT_REQUIRED) || o->entry[i].from != KW_FROM_DEFAULT)
            continue;
        if (row->flags & KW_OPT_POSITIONAL)
            return kw_fail(e, KW_EUSAGE, N_("%s is missing: %s"), kw_option_value_name(row), kw_translate(row->help));
        return kw_fail(e, KW_EUSAGE, N_("--%s is missing: %s"), row->name, kw_translate(row->help));
    }
    return KW_OK;
}

kw_option_source kw_options_from(const kw_options *o, const char *name)
{
    kw__option_entry *x = kw__option_find(o, name, strlen(name));
    return x ? x->from : KW_FROM_DEFAULT;
}

const kw_option *kw_options_misplaced(const kw_options *o, unsigned use)
{
    for (size_t i = 0; i < o->n; i++)
        if (o->entry[i].from == KW_FROM_ARGV && !kw_option_serves(o->entry[i].row, use))
            return o->entry[i].row;
    return NULL;
}

size_t kw_options_count(const kw_options *o) { return o->n; }
const kw_option *kw_options_row(const kw_options *o, size_t i) { return o->entry[i].row; }
const char *kw_options_section(const kw_options *o, size_t i) { return o->entry[i].section; }
bool kw_options_aside(const kw_options *o, size_t i) { return o->entry[i].aside; }
