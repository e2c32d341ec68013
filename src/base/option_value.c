/* option_value.c - one option's value: from text, checked against what its row allows. */
#include "option_parts.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* ---- texts from outside ----------------------------------------------------------------------------- */

bool kw__utf8_ok(const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        int more = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : *p >= 0xe0 && *p < 0xf0 ? 2
                 : *p >= 0xf0 && *p < 0xf5 ? 3 : -1;
        if (more < 0 || (*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90)
            || (*p == 0xf4 && p[1] > 0x8f))
            return false;
        for (p++; more--; p++)
            if ((*p & 0xc0) != 0x80)
                return false;
    }
    return true;
}

kw__shown kw__show(const char *text)
{
    kw__shown r;
    size_t n = 0, room = sizeof r.s - 4;
    for (; text[n] && n < room; n++)
        r.s[n] = (unsigned char)text[n] < 0x20 || text[n] == 0x7f ? '?' : text[n];
    if (text[n]) {                        /* cut before the character that does not fit */
        while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
            n--;
        memcpy(r.s + n, "...", 3);
        n += 3;
    }
    r.s[n] = 0;
    return r;
}

/* ---- numbers ------------------------------------------------------------------------------------------ */

bool kw__number_fits(const kw_option *row, double v)
{
    bool low = row->flags & KW_OPT_ABOVE ? v > row->min : v >= row->min;
    return low && v <= row->max && (row->step == 0 || fmod(v, row->step) == 0) && !(v == 0 && signbit(v));
}

static kw_status out_of_range(const kw_option *row, const char *label, const char *text, kw_err *e)
{
    kw_str range = { 0 };
    kw_option_show_range(row, &range);
    kw_status s = kw_fail(e, KW_EUSAGE, N_("%s: %s is out of range (allowed: %s)"), label, kw__show(text).s,
                          range.s ? range.s : "");
    kw_str_free(&range);
    return s;
}

static kw_status not_a(const char *what, const char *label, const char *text, kw_err *e)
{
    kw_status s = kw_fail(e, KW_EUSAGE, N_("%s: '%s' is not %s"), label, kw__show(text).s, kw_translate(what));
    for (const char *p = text; *p; p++)
        if (*p & 0x80 && strcmp(what, "valid UTF-8"))
            return kw_advise(e, s, N_("write numbers with the half-width digits 0 to 9"));
    return s;
}

/* strtod without the locale, and without its nan, infinity and hexadecimal. */
static bool read_real(const char *text, double *v, const char **end)
{
    size_t n = strspn(text, "0123456789.eE+-");
    locale_t c = newlocale(LC_ALL_MASK, "C", NULL);
    char *stop = (char *)text;
    *v = n && c ? strtod_l(text, &stop, c) : 0;
    if (c)
        freelocale(c);
    *end = stop;
    return stop != text && stop <= text + n;
}

static kw_status read_number(const kw_option *row, const char *text, const char *label, double *v, kw_err *e)
{
    const char *end;
    if (!read_real(text, v, &end) || *end)
        return not_a(N_("a number"), label, text, e);
    /* A float can lose what a double holds: 1e300 becomes infinite, 1e-60 becomes 0. */
    bool lost = row->type == KW_OPT_FLOAT && (!isfinite((float)*v) || (*v != 0 && (float)*v == 0));
    if (!isfinite(*v) || lost || !kw__number_fits(row, *v))
        return out_of_range(row, label, text, e);
    return KW_OK;
}

/* Whole numbers beyond 64 bits are out of range, not "no numbers". */
static kw_status read_whole(const kw_option *row, const char *text, const char *label, int64_t *v, kw_err *e)
{
    size_t sign = text[0] == '-' || text[0] == '+', digits = strspn(text + sign, "0123456789");
    if (!digits || text[sign + digits])
        return not_a(N_("a whole number"), label, text, e);
    errno = 0;
    *v = strtoll(text, NULL, 10);
    bool negative_zero = *v == 0 && text[0] == '-';
    if (errno || negative_zero || !kw__number_fits(row, (double)*v))
        return out_of_range(row, label, text, e);
    return KW_OK;
}

static kw_status read_seed(const kw_option *row, const char *text, const char *label, uint64_t *v, kw_err *e)
{
    if (!strcmp(text, "random"))          /* 48 bits: every tool that users know takes such a seed */
        return getrandom(v, sizeof *v, 0) == sizeof *v ? (*v >>= 16, KW_OK) : kw_fail(e, KW_EDEVICE, "getrandom");
    size_t digits = strspn(text, "0123456789");
    errno = 0;
    *v = strtoull(text, NULL, 10);
    if (text[0] == '-' && strspn(text + 1, "0123456789"))
        return out_of_range(row, label, text, e);
    if (!digits || text[digits])
        return not_a(N_("a whole number"), label, text, e);
    return errno ? out_of_range(row, label, text, e) : KW_OK;
}

/* 512, 800M, 6.5G, 8GiB: powers of 1024; 8GB: powers of 1000. */
static kw_status read_size(const kw_option *row, const char *text, const char *label, uint64_t *v, kw_err *e)
{
    double number, unit = 1;
    const char *end;
    if (!read_real(text, &number, &end))
        return not_a(N_("a size such as 800M, 6.5G or 8GiB"), label, text, e);
    end += *end == ' ';
    const char *prefix = *end ? strchr("KMGT", toupper((unsigned char)*end)) : NULL;
    if (prefix) {
        end++;
        bool thousand = (*end == 'B' || *end == 'b') && !end[1];
        for (int i = 0; i <= prefix - "KMGT" && i < 4; i++)
            unit *= thousand ? 1000 : 1024;
        end += thousand ? 1 : !strcmp(end, "iB") || !strcmp(end, "ib") ? 2 : 0;
    } else if (*end == 'B' || *end == 'b') {
        end++;
    }
    if (*end)
        return not_a(N_("a size such as 800M, 6.5G or 8GiB"), label, text, e);
    double bytes = number * unit;
    if (!isfinite(bytes) || bytes >= 9.2e18 || !kw__number_fits(row, bytes))
        return out_of_range(row, label, text, e);
    *v = (uint64_t)bytes;
    return KW_OK;
}

static kw_status read_bool(const char *text, const char *label, bool *v, kw_err *e)
{
    static const char *const yes[] = { "true", "yes", "on", "1", "always" };
    static const char *const no[] = { "false", "no", "off", "0", "never" };
    for (size_t i = 0; i < KW_LEN(yes); i++)
        if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
            *v = !strcmp(text, yes[i]);
            return KW_OK;
        }
    return not_a(N_("true or false"), label, text, e);
}

static kw_status read_choice(const kw_option *row, const char *text, const char *label, int *v, kw_err *e)
{
    kw_nearest near = { .word = text };
    char one[64];
    int i = 0;
    for (const char *c = row->text; *c; c += strcspn(c, "|"), c += *c == '|', i++) {
        size_t n = KW_MIN(strcspn(c, "|"), sizeof one - 1);
        memcpy(one, c, n);
        one[n] = 0;
        if (!strcmp(one, text)) {
            *v = i;
            return KW_OK;
        }
        kw_nearest_try(&near, one);
        if (near.best == one)
            near.best = c;                /* a pointer that lasts; cut at '|' below */
    }
    kw_str range = { 0 };
    kw_option_show_range(row, &range);
    kw_status s = kw_fail(e, KW_EUSAGE, N_("%s: '%s' is not allowed (%s)"), label, kw__show(text).s,
                          range.s ? range.s : "");
    kw_str_free(&range);
    return near.best ? kw_advise(e, s, N_("did you mean '%.*s'?"), (int)strcspn(near.best, "|"), near.best) : s;
}

/* ---- storing -------------------------------------------------------------------------------------------- */

bool kw__option_is_list(const kw_option *row) { return row->type == KW_OPT_LIST || row->type == KW_OPT_PATHS; }

static void store_number(const kw__option_entry *x, double v)
{
    switch (x->row->type) {
    case KW_OPT_INT:
    case KW_OPT_CHOICE: *(int *)x->at = (int)v; break;
    case KW_OPT_INT64:  *(int64_t *)x->at = (int64_t)v; break;
    case KW_OPT_FLOAT:  *(float *)x->at = (float)v; break;
    case KW_OPT_DOUBLE: *(double *)x->at = v; break;
    case KW_OPT_SIZE:
    case KW_OPT_SEED:   *(uint64_t *)x->at = (uint64_t)v; break;
    case KW_OPT_BOOL:   *(bool *)x->at = v != 0; break;
    default: break;
    }
}

void kw__option_set_default(kw__option_entry *x)
{
    if (kw__option_is_list(x->row))
        *(kw_texts *)x->at = (kw_texts){ 0 };
    else if (x->row->type == KW_OPT_TEXT || x->row->type == KW_OPT_PATH)
        *(const char **)x->at = x->row->text;
    else
        store_number(x, x->row->def);
}

static kw_status store_text(kw_options *o, kw__option_entry *x, const char *text, kw_option_source from, kw_err *e)
{
    const char *copy = kw_strdup(o->arena, text);
    if (!copy)
        return kw_fail(e, KW_ENOMEM, N_("no memory"));
    if (!kw__option_is_list(x->row)) {
        *(const char **)x->at = copy;
        return KW_OK;
    }
    kw_texts *list = (kw_texts *)x->at;
    if (from > x->from)
        *list = (kw_texts){ 0 };          /* the command line replaces a recipe's list, it does not add to it */
    KW_TRY(kw_grow(o->arena, &list->item, &list->capacity, list->n, sizeof *list->item, e));
    list->item[list->n++] = copy;
    return KW_OK;
}

bool kw__is_model_name(const char *path) { return kw_starts_with(path, "hf:") || kw_starts_with(path, "civitai:"); }

bool kw__option_off(const kw_option *row, const char *text)
{
    bool number = row->type >= KW_OPT_INT && row->type <= KW_OPT_DOUBLE;
    return number && row->word && row->word_is < 0 && !strcmp(text, "off") && kw__number_fits(row, 0);
}

static kw_status read_value(kw_options *o, kw__option_entry *x, const char *text, kw_option_source from,
                            const char *label, kw_err *e)
{
    const kw_option *row = x->row;
    union { double real; int64_t whole; uint64_t bytes; bool truth; int choice; } v;
    bool store = from >= x->from;
    bool off = kw__option_off(row, text);
    if (off || (row->word && !strcmp(text, row->word))) {
        if (store)
            store_number(x, off ? 0 : row->word_is);
        return KW_OK;
    }
    switch (row->type) {
    case KW_OPT_BOOL:
        KW_TRY(read_bool(text, label, &v.truth, e));
        if (store)
            *(bool *)x->at = v.truth;
        return KW_OK;
    case KW_OPT_INT:
    case KW_OPT_INT64:
        KW_TRY(read_whole(row, text, label, &v.whole, e));
        if (store && row->type == KW_OPT_INT)
            *(int *)x->at = (int)v.whole;
        else if (store)
            *(int64_t *)x->at = v.whole;
        return KW_OK;
    case KW_OPT_FLOAT:
    case KW_OPT_DOUBLE:
        KW_TRY(read_number(row, text, label, &v.real, e));
        if (store)
            store_number(x, v.real);
        return KW_OK;
    case KW_OPT_CHOICE:
        KW_TRY(read_choice(row, text, label, &v.choice, e));
        if (store)
            *(int *)x->at = v.choice;
        return KW_OK;
    case KW_OPT_SIZE:
    case KW_OPT_SEED:
        KW_TRY((row->type == KW_OPT_SIZE ? read_size : read_seed)(row, text, label, &v.bytes, e));
        if (store)
            *(uint64_t *)x->at = v.bytes;
        return KW_OK;
    default:
        if (!(row->flags & KW_OPT_BYTES) && !kw__utf8_ok(text))
            return not_a(N_("valid UTF-8"), label, text, e);
        return store ? store_text(o, x, text, from, e) : KW_OK;
    }
}

kw_status kw__option_set(kw_options *o, kw__option_entry *x, const char *text, kw_option_source from, const char *label,
                         kw_err *e)
{
    KW_TRY(read_value(o, x, text, from, label, e));
    if (from >= x->from) {
        x->from = from;
        x->label = label;
    }
    return KW_OK;
}
