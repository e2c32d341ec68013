/* option_recipe.c - options from a recipe: TOML values checked by type, named by file, line and column. */
#include "option_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    kw_options *o;
    const char *file;
    kw_option_source from;
    bool *seen;                           /* per entry: given in this file already */
} reading;

static const char *type_name(kw_toml_type t)
{
    static const char *const names[] = { N_("a table"), N_("an array"), N_("a text"), N_("a whole number"),
                                         N_("a number with a point"), N_("true or false"), N_("a date") };
    return kw_translate(names[t]);
}

static const char *wanted(const kw_option *row)
{
    switch (row->type) {
    case KW_OPT_BOOL:   return kw_translate(N_("true or false"));
    case KW_OPT_INT:
    case KW_OPT_INT64:
    case KW_OPT_SEED:   return kw_translate(N_("a whole number"));
    case KW_OPT_FLOAT:
    case KW_OPT_DOUBLE: return kw_translate(N_("a number"));
    case KW_OPT_SIZE:   return kw_translate(N_("a size such as \"6.5G\""));
    case KW_OPT_LIST:
    case KW_OPT_PATHS:  return kw_translate(N_("an array of texts"));
    default:            return kw_translate(N_("a text in quotes"));
    }
}

static bool type_fits(const kw_option *row, const kw_toml *v)
{
    if (v->type == KW_TOML_TEXT && row->word && (!strcmp(v->text, row->word) || kw__option_off(row, v->text)))
        return true;
    switch (row->type) {
    case KW_OPT_BOOL:   return v->type == KW_TOML_BOOL;
    case KW_OPT_INT:
    case KW_OPT_INT64:  return v->type == KW_TOML_INT;
    case KW_OPT_FLOAT:
    case KW_OPT_DOUBLE: return v->type == KW_TOML_INT || v->type == KW_TOML_FLOAT;
    case KW_OPT_SIZE:
    case KW_OPT_SEED:   return v->type == KW_TOML_INT || v->type == KW_TOML_TEXT;
    case KW_OPT_TEXT:   return v->type == KW_TOML_TEXT || (row->flags & KW_OPT_OR_INT && v->type == KW_TOML_INT);
    default:            return v->type == KW_TOML_TEXT;
    }
}

/* A path of a recipe starts at the recipe's folder, so that a recipe can be moved with its pictures. */
static const char *resolve(reading *r, const kw_option *row, const char *path)
{
    const char *slash = strrchr(r->file, '/');
    bool plain_name = row->flags & KW_OPT_OR_NAME && !strchr(path, '/');
    if (!slash || path[0] == '/' || kw__is_model_name(path) || !*path || !strcmp(path, "-") || plain_name)
        return path;
    return kw_sprintf(r->o->arena, "%.*s%s", (int)(slash - r->file + 1), r->file, path);
}

static kw_status set_one(reading *r, kw__option_entry *x, const char *label, const kw_toml *v, kw_err *e)
{
    const kw_option *row = x->row;
    char number[40];
    const char *text = v->text;           /* of texts and of numbers with a point */
    if (!type_fits(row, v))
        return kw_fail(e, KW_EUSAGE, N_("%s: this is %s, but %s is wanted"), label, type_name(v->type), wanted(row));
    if (v->type == KW_TOML_BOOL)
        text = v->b ? "true" : "false";
    if (v->type == KW_TOML_INT)
        snprintf(number, sizeof number, "%" PRId64, v->i), text = number;
    if (row->type == KW_OPT_PATH || row->type == KW_OPT_PATHS)
        text = resolve(r, row, text);
    if (!text)
        return kw_fail(e, KW_ENOMEM, N_("no memory"));
    return kw__option_set(r->o, x, text, r->from, label, e);
}

static kw_status set_key(reading *r, const kw_toml *v, kw_err *e)
{
    kw_options *o = r->o;
    char *place = kw_sprintf(o->arena, "%s:%d:%d", r->file, v->line, v->column);
    char *label = kw_sprintf(o->arena, "%s:%d:%d: %s", r->file, v->line, v->column, kw__show(v->key).s);
    if (!place || !label)
        return kw_fail(e, KW_ENOMEM, N_("no memory"));
    kw__option_entry *x = kw__option_find(o, v->key, strlen(v->key));
    if (!x || x->row->flags & KW_OPT_NO_RECIPE)
        return kw__option_unknown(o, place, v->key, true, e);
    if (r->seen[x - o->entry])
        return kw_fail(e, KW_EUSAGE, N_("%s: '%s' is given twice"), label, x->row->name);
    r->seen[x - o->entry] = true;
    if (!kw__option_is_list(x->row) || v->type != KW_TOML_ARRAY)
        return set_one(r, x, label, v, e);
    if (r->from >= x->from)
        *(kw_texts *)x->at = (kw_texts){ 0 };
    for (const kw_toml *item = v->child; item; item = item->next)
        KW_TRY(set_one(r, x, label, item, e));
    return KW_OK;
}

/* Headings only group: [train] rank = 8 and rank = 8 are the same. */
static kw_status walk(reading *r, const kw_toml *table, kw_err *e)
{
    for (const kw_toml *v = table->child; v; v = v->next)
        KW_TRY(v->type == KW_TOML_TABLE ? walk(r, v, e) : set_key(r, v, e));
    return KW_OK;
}

kw_status kw_options_toml(kw_options *o, const char *text, size_t n, const char *file, kw_option_source from, kw_err *e)
{
    kw_toml *root;
    KW_TRY(kw_toml_parse(o->arena, text, n, file, &root, e));
    reading r = { o, file, from, kw_alloc(o->arena, o->n + 1) };
    return r.seen ? walk(&r, root, e) : kw_fail(e, KW_ENOMEM, N_("no memory"));
}
