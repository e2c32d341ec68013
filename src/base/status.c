/* status.c - errors: what happened, where, and what to do next. */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>

static const char *as_it_is(const char *text) { return text; }
const char *(*kw_translate)(const char *text) = as_it_is;

kw_status kw_fail_at(kw_err *e, kw_status s, const char *file, int line, const char *fmt, ...)
{
    if (!e)
        return s;
    va_list ap;
    va_start(ap, fmt);
    e->status = s;
    e->file = file;
    e->line = line;
    e->advice[0] = 0;
    vsnprintf(e->what, sizeof e->what, kw_translate(fmt), ap);
    va_end(ap);
    return s;
}

kw_status kw_advise(kw_err *e, kw_status s, const char *fmt, ...)
{
    if (!e)
        return s;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->advice, sizeof e->advice, kw_translate(fmt), ap);
    va_end(ap);
    return s;
}

static const struct { int code; const char *text; } table[] = {
#define X(name, code, text) { code, N_(text) },
    KW_STATUS_MAP(X)
#undef X
};

const char *kw_status_text(kw_status s) { return kw_translate(table[s].text); }
int kw_status_exit_code(kw_status s) { return table[s].code; }

_Noreturn void kw_bug_at(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "kiwame: a bug at %s:%d: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}
