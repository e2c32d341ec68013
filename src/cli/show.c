/* show.c - sizes, durations, JSON texts and tables for people. */
#include "cli.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void kw_show_size(kw_str *out, double bytes)
{
    char text[32];
    kw_size_text(bytes, text);
    kw_str_add(out, text);
}

void kw_show_duration(kw_str *out, double seconds)
{
    if (!isfinite(seconds) || seconds < 0 || seconds > 1e9) {
        kw_str_add(out, "?");
        return;
    }
    long s = lround(seconds), days = s / 86400;
    if (seconds < 9.95)
        kw_str_printf(out, _(N_("%.1f s")), seconds);
    else if (s < 60)
        kw_str_printf(out, _(N_("%ld s")), s);
    else if (s < 3600)
        kw_str_printf(out, _(N_("%ld min %02ld s")), s / 60, s % 60);
    else if (!days)
        kw_str_printf(out, _(N_("%ld h %02ld min")), s / 3600, s / 60 % 60);
    else
        kw_str_printf(out, _(N_("%ld d %02ld h")), days, s / 3600 % 24);
}

void kw_show_json_text(kw_str *out, const char *text)
{
    kw_str_add(out, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            kw_str_printf(out, "\\%c", c);
        else if (c < 0x20)
            kw_str_printf(out, "\\u%04x", c);
        else
            kw_str_add_n(out, text, 1);
    }
    kw_str_add(out, "\"");
}

/* ---- tables --------------------------------------------------------------------------------------------------- */

void kw_table_cell(kw_table *t, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    if (text && t->n == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 64;
        char **cell = realloc(t->cell, capacity * sizeof *cell);
        if (cell) {
            t->cell = cell;
            t->capacity = capacity;
        }
    }
    if (!text || t->n == t->capacity) {
        free(text);
        t->failed = true;
        return;
    }
    t->cell[t->n++] = text;
}

void kw_table_print(kw_table *t, FILE *to, int indent)
{
    size_t columns = strlen(t->align);
    kw_str s = { 0 };
    for (size_t i = 0; i < t->n; i++) {
        size_t c = i % columns;
        int width = 0;
        for (size_t k = c; k < t->n; k += columns)
            width = KW_MAX(width, kw_width(t->cell[k]));
        bool right = t->align[c] == 'r', last = c + 1 == columns;
        kw_str_printf(&s, "%*s", c ? 2 : indent, "");
        kw_pad(&s, t->cell[i], last && !right ? 0 : width, right);
        while (last && s.n && s.s[s.n - 1] == ' ')
            s.s[--s.n] = 0;               /* no blanks at the end of a line */
        if (last)
            kw_str_add(&s, "\n");
    }
    if (s.s && !s.failed)
        fputs(s.s, to);
    kw_str_free(&s);
    for (size_t i = 0; i < t->n; i++)
        free(t->cell[i]);
    free(t->cell);
    *t = (kw_table){ .align = t->align };
}
