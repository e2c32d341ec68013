/* status.c - errors: what happened, where, and what to do next. */
#include "base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

/*  What the C library says in the C locale, for the catalogue to have it.  */
static const struct { int code; const char *text; } errno_texts[] = {
    { ENOENT, N_("No such file or directory") }, { EACCES, N_("Permission denied") },
    { EPERM, N_("Operation not permitted") }, { EEXIST, N_("File exists") }, { ENOTDIR, N_("Not a directory") },
    { EISDIR, N_("Is a directory") }, { ENOTEMPTY, N_("Directory not empty") },
    { ENOSPC, N_("No space left on device") }, { EDQUOT, N_("Disk quota exceeded") },
    { EFBIG, N_("File too large") }, { EROFS, N_("Read-only file system") }, { EIO, N_("Input/output error") },
    { EMFILE, N_("Too many open files") }, { ENFILE, N_("Too many open files in system") },
    { ELOOP, N_("Too many levels of symbolic links") }, { ENAMETOOLONG, N_("File name too long") },
    { ENOMEM, N_("Cannot allocate memory") }, { EBUSY, N_("Device or resource busy") },
    { EINVAL, N_("Invalid argument") }, { ENXIO, N_("No such device or address") },
    { ESTALE, N_("Stale file handle") },
};

const char *kw_errno_text(int code)
{
    for (size_t i = 0; i < KW_LEN(errno_texts); i++)
        if (errno_texts[i].code == code)
            return kw_translate(errno_texts[i].text);
    const char *text = strerrordesc_np(code);
    return text ? text : "?";
}

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

double kw_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
