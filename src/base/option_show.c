/* option_show.c - options as text: values, ranges, recipes (TOML) and JSON; and the check of the tables themselves. */
#include "option_parts.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- numbers, the same in every locale ------------------------------------------------------------------ */

/* The shortest decimal that reads back as the same value: 0.1f is "0.1". */
static void add_real(kw_str *out, double v, bool single)
{
    char s[40];
    locale_t c = newlocale(LC_ALL_MASK, "C", NULL), old = c ? uselocale(c) : (locale_t)0;
    for (int digits = single ? 6 : 15; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, v);
        if (single ? strtof(s, NULL) == (float)v : strtod(s, NULL) == v)
            break;
    }
    if (c) {
        uselocale(old);
        freelocale(c);
    }
    kw_str_add(out, s);
}

/* Whole millions, as 7.5GB, 1000TB, 20MB; false: v is better said otherwise. */
static bool add_round_size(kw_str *out, uint64_t v)
{
    static const struct { uint64_t size; const char *name; } unit[] = {
        { 1000000000000u, "TB" }, { 1000000000u, "GB" }, { 1000000u, "MB" },
    };
    size_t i = 0;
    if (!v || v % 1000000 || v % (1024 * 1024) == 0)
        return false;
    while (v < unit[i].size || v % (unit[i].size / 1000))       /* at most three decimals */
        i++;
    unsigned thousandths = (unsigned)(v % unit[i].size / (unit[i].size / 1000));
    kw_str_printf(out, "%" PRIu64, v / unit[i].size);
    if (thousandths) {
        kw_str_printf(out, ".%03u", thousandths);
        while (out->n && out->s[out->n - 1] == '0')
            out->s[--out->n] = 0;
    }
    kw_str_add(out, unit[i].name);
    return true;
}

/* The largest unit that divides it: 8G, 1536M, 7.5GB, 1000. It reads back as the same number. */
static void add_size(kw_str *out, uint64_t v)
{
    static const char unit[] = " KMGT";
    int i = 0;
    if (add_round_size(out, v))
        return;
    while (v && v % 1024 == 0 && i < 4)
        v /= 1024, i++;
    kw_str_printf(out, i ? "%" PRIu64 "%c" : "%" PRIu64, v, unit[i]);
}

static void add_number(kw_str *out, const kw_option *row, double v)
{
    if (row->type == KW_OPT_SIZE)
        add_size(out, (uint64_t)v);
    else if (row->type == KW_OPT_FLOAT || row->type == KW_OPT_DOUBLE)
        add_real(out, v, row->type == KW_OPT_FLOAT);
    else
        kw_str_printf(out, "%.0f", v);
}

static void add_choice(kw_str *out, const kw_option *row, int i)
{
    const char *c = row->text;
    for (; i > 0 && *c; i--)
        c += strcspn(c, "|"), c += *c == '|';
    kw_str_add_n(out, c, strcspn(c, "|"));
}

/* ---- what help shows --------------------------------------------------------------------------------------- */

void kw_option_show_default(const kw_option *row, kw_str *out)
{
    if (row->type == KW_OPT_GROUP || row->type == KW_OPT_BOOL || kw__option_is_list(row)
        || row->flags & KW_OPT_REQUIRED)
        return;
    if (row->type == KW_OPT_TEXT || row->type == KW_OPT_PATH)
        kw_str_add(out, row->text ? row->text : "");
    else if (row->word && row->def == row->word_is)
        kw_str_add(out, row->word);
    else if (row->type == KW_OPT_SEED && row->text)
        kw_str_add(out, row->text);
    else if (row->type == KW_OPT_CHOICE)
        add_choice(out, row, (int)row->def);
    else
        add_number(out, row, row->def);
}

static void show_limits(const kw_option *row, kw_str *out)
{
    kw_str lo = { 0 }, hi = { 0 };
    add_number(&lo, row, row->min);
    if (!isinf(row->max))
        add_number(&hi, row, row->max);
    bool above = row->flags & KW_OPT_ABOVE;
    if (!lo.s || (!hi.s && !isinf(row->max)))
        out->failed = true;
    else if (isinf(row->max))
        kw_str_printf(out, kw_translate(above ? N_("above %s") : N_("at least %s")), lo.s);
    else if (above)
        kw_str_printf(out, kw_translate(N_("above %s, up to %s")), lo.s, hi.s);
    else
        kw_str_printf(out, kw_translate(N_("%s to %s")), lo.s, hi.s);
    kw_str_free(&lo);
    kw_str_free(&hi);
}

void kw_option_show_range(const kw_option *row, kw_str *out)
{
    if (row->type == KW_OPT_CHOICE) {
        kw_str_add(out, kw_translate(N_("one of: ")));
        for (const char *c = row->text; *c; c += strcspn(c, "|"), c += *c == '|')
            kw_str_printf(out, c == row->text ? "%.*s" : ", %.*s", (int)strcspn(c, "|"), c);
        return;
    }
    if (row->type == KW_OPT_SEED)
        kw_str_add(out, kw_translate(N_("0 to 18446744073709551615, or random")));
    if (row->type < KW_OPT_INT || (row->type > KW_OPT_DOUBLE && row->type != KW_OPT_SIZE))
        return;
    if (!(isinf(row->min) && isinf(row->max)))
        show_limits(row, out);
    if (row->step > 1) {
        kw_str_add(out, out->n ? ", " : "");
        kw_str_printf(out, kw_translate(N_("a multiple of %.0f")), row->step);
    }
    if (row->word) {
        kw_str_add(out, out->n ? ", " : "");
        kw_str_printf(out, kw_translate(N_("or %s")), row->word);
    }
}

const char *kw_option_value_name(const kw_option *row)
{
    if (row->value)
        return row->value;
    switch (row->type) {
    case KW_OPT_GROUP:
    case KW_OPT_BOOL:   return NULL;
    case KW_OPT_INT:
    case KW_OPT_INT64:
    case KW_OPT_SEED:   return "N";
    case KW_OPT_FLOAT:
    case KW_OPT_DOUBLE: return "X";
    case KW_OPT_CHOICE: return "NAME";
    case KW_OPT_SIZE:   return "SIZE";
    case KW_OPT_PATH:
    case KW_OPT_PATHS:  return "FILE";
    default:            return "TEXT";
    }
}

/* ---- recipes and JSON --------------------------------------------------------------------------------------- */

/* TOML basic strings and JSON strings agree on these escapes. */
static void add_quoted(kw_str *out, const char *s)
{
    kw_str_add(out, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            kw_str_printf(out, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            kw_str_printf(out, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\u%04x", c);
        else
            kw_str_add_n(out, s, 1);
    }
    kw_str_add(out, "\"");
}

static void add_path(kw_str *out, const kw_option *row, const char *path, bool absolute)
{
    char here[4096];
    bool plain_name = row->flags & KW_OPT_OR_NAME && !strchr(path, '/');
    if (!absolute || path[0] == '/' || kw__is_model_name(path) || !strcmp(path, "-") || !*path || plain_name
        || !getcwd(here, sizeof here)) {
        add_quoted(out, path);
        return;
    }
    kw_str whole = { 0 };
    kw_str_printf(&whole, "%s/%s", strcmp(here, "/") ? here : "", kw_starts_with(path, "./") ? path + 2 : path);
    if (whole.failed)
        out->failed = true;
    else
        add_quoted(out, whole.s);
    kw_str_free(&whole);
}

static void add_real_typed(kw_str *out, double v, bool single)
{
    size_t start = out->n;
    add_real(out, v, single);
    if (out->s && !strpbrk(out->s + start, ".e"))
        kw_str_add(out, ".0");            /* a TOML float, not an integer */
}

void kw__option_value(const kw__option_entry *x, bool quote_words, kw_str *out)
{
    const kw_option *row = x->row;
    const char *q = quote_words ? "\"" : "";
    switch (row->type) {
    case KW_OPT_BOOL:   kw_str_add(out, *(bool *)x->at ? "true" : "false"); break;
    case KW_OPT_INT:    kw_str_printf(out, "%d", *(int *)x->at); break;
    case KW_OPT_INT64:  kw_str_printf(out, "%" PRId64, *(int64_t *)x->at); break;
    case KW_OPT_FLOAT:  add_real_typed(out, (double)*(float *)x->at, true); break;
    case KW_OPT_DOUBLE: add_real_typed(out, *(double *)x->at, false); break;
    case KW_OPT_SEED:                     /* TOML integers end at 2^63 - 1 */
        kw_str_printf(out, *(uint64_t *)x->at > INT64_MAX ? "\"%" PRIu64 "\"" : "%" PRIu64, *(uint64_t *)x->at);
        break;
    case KW_OPT_SIZE:
        kw_str_add(out, q);
        add_size(out, *(uint64_t *)x->at);
        kw_str_add(out, q);
        break;
    case KW_OPT_CHOICE:
        kw_str_add(out, q);
        add_choice(out, row, *(int *)x->at);
        kw_str_add(out, q);
        break;
    default: break;
    }
}

static double number_of(const kw__option_entry *x)
{
    switch (x->row->type) {
    case KW_OPT_INT:    return *(int *)x->at;
    case KW_OPT_INT64:  return (double)*(int64_t *)x->at;
    case KW_OPT_FLOAT:  return (double)*(float *)x->at;
    case KW_OPT_DOUBLE: return *(double *)x->at;
    case KW_OPT_SIZE:   return (double)*(uint64_t *)x->at;
    default:            return NAN;
    }
}

static void add_value(const kw__option_entry *x, bool absolute, kw_str *out)
{
    const kw_option *row = x->row;
    const bool paths = row->type == KW_OPT_PATHS || row->type == KW_OPT_PATH;
    if (kw__option_is_list(row)) {
        const kw_texts *list = (const kw_texts *)x->at;
        kw_str_add(out, "[");
        for (size_t i = 0; i < list->n; i++) {
            kw_str_add(out, i ? ", " : "");
            add_path(out, row, list->item[i], absolute && paths);
        }
        kw_str_add(out, "]");
    } else if (row->type == KW_OPT_TEXT || row->type == KW_OPT_PATH) {
        add_path(out, row, *(const char **)x->at, absolute && paths);
    } else if (row->word && number_of(x) == row->word_is) {
        add_quoted(out, row->word);
    } else {
        kw__option_value(x, true, out);
    }
}

/* Headings, command-line matters, rows of other uses and texts never given are not part of a recipe. */
static bool is_written(const kw__option_entry *x)
{
    const kw_option *row = x->row;
    if (row->type == KW_OPT_GROUP || row->flags & KW_OPT_NO_RECIPE || x->aside)
        return false;
    return (row->type != KW_OPT_TEXT && row->type != KW_OPT_PATH) || *(const char **)x->at;
}

kw_status kw_options_write_toml(const kw_options *o, bool absolute_paths, kw_str *out, kw_err *e)
{
    const char *section = NULL;
    for (size_t i = 0; i < o->n; i++) {
        const kw__option_entry *x = &o->entry[i];
        if (!is_written(x))
            continue;
        if (x->section && (!section || strcmp(section, x->section))) {
            kw_str_printf(out, "%s[%s]\n", out->n ? "\n" : "", x->section);
            section = x->section;
        }
        kw_str_printf(out, "%s = ", x->row->name);
        add_value(x, absolute_paths, out);
        kw_str_add(out, "\n");
    }
    return out->failed ? kw_fail(e, KW_ENOMEM, N_("no memory")) : KW_OK;
}

kw_status kw_options_write_json(const kw_options *o, kw_str *out, kw_err *e)
{
    const char *comma = "";
    kw_str_add(out, "{");
    for (size_t i = 0; i < o->n; i++) {
        const kw__option_entry *x = &o->entry[i];
        if (!is_written(x))
            continue;
        kw_str_printf(out, "%s\"%s\":", comma, x->row->name);
        add_value(x, false, out);
        comma = ",";
    }
    kw_str_add(out, "}");
    return out->failed ? kw_fail(e, KW_ENOMEM, N_("no memory")) : KW_OK;
}

/* ---- the tables themselves ------------------------------------------------------------------------------------ */

static kw_status check_names(const kw_options *o, const kw__option_entry *x, kw_err *e)
{
    const kw_option *row = x->row;
    if (kw__option_find(o, row->name, strlen(row->name)) != x)
        return kw_fail(e, KW_EUSAGE, "option '%s' is there twice", row->name);
    for (const char *a = row->alias; a && *a; a += strcspn(a, "|"), a += *a == '|')
        if (kw__option_find(o, a, strcspn(a, "|")) != x)
            return kw_fail(e, KW_EUSAGE, "the alias %s of '%s' is another option's name", a, row->name);
    for (const kw__option_entry *y = o->entry; row->letter && y < x; y++)
        if (y->row->letter == row->letter)
            return kw_fail(e, KW_EUSAGE, "-%c is both '%s' and '%s'", row->letter, y->row->name, row->name);
    return KW_OK;
}

kw_status kw_options_check(const kw_options *o, kw_err *e)
{
    for (size_t i = 0; i < o->n; i++) {
        const kw__option_entry *x = &o->entry[i];
        const kw_option *row = x->row;
        if (!row->help || !*row->help)
            return kw_fail(e, KW_EUSAGE, "option '%s' has no help", row->name);
        if (row->type == KW_OPT_GROUP)
            continue;
        KW_TRY(check_names(o, x, e));
        int choices = 1;
        for (const char *c = row->text; c && *c; c++)
            choices += *c == '|';
        if (row->type == KW_OPT_CHOICE && (!row->text || row->def < 0 || row->def >= choices))
            return kw_fail(e, KW_EUSAGE, "option '%s': the default is none of the choices", row->name);
        bool number = (row->type >= KW_OPT_INT && row->type <= KW_OPT_DOUBLE) || row->type == KW_OPT_SIZE;
        bool word = row->word && row->def == row->word_is;
        if (number && !word && !kw__number_fits(row, row->def))
            return kw_fail(e, KW_EUSAGE, "option '%s': the default %g is out of range", row->name, row->def);
        if (row->type == KW_OPT_INT && (row->min < INT32_MIN || row->max > INT32_MAX))
            return kw_fail(e, KW_EUSAGE, "option '%s': the range leaves int", row->name);
    }
    return KW_OK;
}
