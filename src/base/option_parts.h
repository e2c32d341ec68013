/* option_parts.h - shared by option.c, option_value.c, option_recipe.c and option_show.c; nobody else includes it. */
#ifndef KW_OPTION_PARTS_H
#define KW_OPTION_PARTS_H

#include "base.h"

typedef struct {
    const kw_option *row;
    char *at;                             /* the value: config + row->at; NULL for headings */
    const char *section;
    const char *label;                    /* where it was set: "--rank", "recipe.toml:3:8: rank" */
    kw_option_source from;
    bool aside;                           /* a row for other uses of its table */
} kw__option_entry;

struct kw_options {
    kw_arena *arena;
    kw__option_entry *entry;
    size_t n, capacity;
};

typedef struct { char s[100]; } kw__shown;        /* a user's text, cut short and without control characters */

kw__shown kw__show(const char *text);
kw__option_entry *kw__option_find(const kw_options *o, const char *name, size_t n);
bool kw__option_is_list(const kw_option *row);
kw_status kw__option_unknown(const kw_options *o, const char *label, const char *name, bool recipe, kw_err *e);
/* Parse the text into the entry's field. A lower source than the present one is checked but not stored. */
kw_status kw__option_set(kw_options *o, kw__option_entry *x, const char *text, kw_option_source from,
                         const char *label, kw_err *e);
void kw__option_set_default(kw__option_entry *x);
void kw__option_value(const kw__option_entry *x, bool quote_words, kw_str *out);  /* one number, bool, choice or size */
bool kw__number_fits(const kw_option *row, double v);
/* hf:... and civitai:..., which stand where a path may: no folder is put before */
bool kw__is_model_name(const char *path);
/* "off" is 0 where the row's own word is a negative number */
bool kw__option_off(const kw_option *row, const char *text);
bool kw__utf8_ok(const char *s);

#endif
