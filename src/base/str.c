/* str.c - growing texts. */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(kw_str *b, size_t more)
{
    if (b->failed || more > SIZE_MAX / 4 - b->n)
        return !(b->failed = true);
    size_t need = b->n + more + 1;
    if (need <= b->capacity)
        return true;
    size_t room = KW_MAX(need, 2 * b->capacity);
    char *s = realloc(b->s, room);
    if (!s)
        return !(b->failed = true);
    b->s = s;
    b->capacity = room;
    return true;
}

void kw_str_add_n(kw_str *b, const char *s, size_t n)
{
    if (!reserve(b, n))
        return;
    memcpy(b->s + b->n, s, n);
    b->n += n;
    b->s[b->n] = 0;
}

void kw_str_add(kw_str *b, const char *s) { kw_str_add_n(b, s, strlen(s)); }

void kw_str_printf(kw_str *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n >= 0 && reserve(b, (size_t)n)) {
        vsnprintf(b->s + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}

void kw_str_free(kw_str *b)
{
    free(b->s);
    *b = (kw_str){ 0 };
}

bool kw_ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !memcmp(s + n - m, tail, m);
}

bool kw_starts_with(const char *s, const char *head) { return !strncmp(s, head, strlen(head)); }

void kw_size_text(double bytes, char out[32])
{
    static const char *const unit[] = { "B", "kB", "MB", "GB", "TB", "PB" };
    size_t i = 0;
    for (; bytes >= 999.5 && i + 1 < KW_LEN(unit); i++)
        bytes /= 1000;
    snprintf(out, 32, i && bytes < 9.95 ? "%.1f %s" : "%.0f %s", bytes, unit[i]);
}
