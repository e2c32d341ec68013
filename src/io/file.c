/* file.c - reading files and folders: regular files only, never blocking, every size checked. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>

/*  errno, status, what to do next  */
static const struct { int code; kw_status status; const char *advice; } reasons[] = {
    { ENOSPC, KW_ESTORAGE, N_("the disk is full: free some space, or write to another disk") },
    { EDQUOT, KW_ESTORAGE, N_("your disk quota is used up: free some space, or write to another disk") },
    { EFBIG,  KW_ESTORAGE, N_("the file would exceed a size limit (ulimit -f, or the file system's own)") },
    { EROFS,  KW_ESTORAGE, N_("the file system is read-only: choose another folder") },
    { EACCES, KW_ESTORAGE, N_("check the permissions of the file and its folders") },
    { EPERM,  KW_ESTORAGE, N_("check the permissions of the file and its folders") },
    { EMFILE, KW_ENOMEM,   N_("too many open files: raise the limit with ulimit -n") },
    { ENFILE, KW_ENOMEM,   N_("the system has too many open files") },
    { ENOMEM, KW_ENOMEM,   N_("close other programs, or use a machine with more memory") },
    { EIO,    KW_ESTORAGE, N_("the disk reports an error: check it, and keep a copy of your files elsewhere") },
};

/* Reading what the user named: a wrong name is wrong input, not a broken disk. */
static bool is_wrong_name(int code)
{
    return code == ENOENT || code == ENOTDIR || code == EISDIR || code == ELOOP || code == ENAMETOOLONG
        || code == EACCES || code == EPERM || code == ENXIO;
}

kw_status kw__sys_fail(kw_err *e, kw_status s, const char *what, const char *path)
{
    int code = errno;
    const char *advice = NULL;
    for (size_t i = 0; i < KW_LEN(reasons); i++)
        if (reasons[i].code == code) {
            advice = reasons[i].advice;
            if (reasons[i].status == KW_ENOMEM)
                s = KW_ENOMEM;
        }
    s = kw_fail(e, s, N_("%s: cannot %s: %s"), path, kw_translate(what), kw_errno_text(code));
    return advice ? kw_advise(e, s, "%s", kw_translate(advice)) : s;
}

kw_status kw__no_memory(kw_err *e, const char *path) { return kw_fail(e, KW_ENOMEM, N_("%s: out of memory"), path); }

bool kw_is_file(const char *path)
{
    struct stat st;
    return !kw_io_now->stat(path, &st) && S_ISREG(st.st_mode);
}

bool kw_is_dir(const char *path)
{
    struct stat st;
    return !kw_io_now->stat(path, &st) && S_ISDIR(st.st_mode);
}

char *kw_path_join(kw_arena *a, const char *dir, const char *name)
{
    if (*name == '/' || !*dir)
        return kw_strdup(a, name);
    return kw_sprintf(a, kw_ends_with(dir, "/") ? "%s%s" : "%s/%s", dir, name);
}

const char *kw_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char *kw_path_stem(kw_arena *a, const char *path)
{
    const char *name = kw_path_name(path), *dot = strrchr(name, '.');
    return kw_strndup(a, name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

char *kw_path_dir(kw_arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? kw_strdup(a, ".") : kw_strndup(a, path, slash == path ? 1 : (size_t)(slash - path));
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode) ? N_("a folder") : S_ISFIFO(mode) ? N_("a pipe") : S_ISSOCK(mode) ? N_("a socket")
         : N_("a device");
}

/* Looked at before it is opened (opening a device can do things) and after (it may have been exchanged). */
kw_status kw__open_regular(const char *path, int *fd, struct stat *st, kw_err *e)
{
    if (kw_io_now->stat(path, st))
        return kw__sys_fail(e, is_wrong_name(errno) ? KW_EDATA : KW_ESTORAGE, N_("open"), path);
    if (S_ISREG(st->st_mode)) {
        do
            *fd = kw_io_now->open(path, O_RDONLY | O_NONBLOCK, 0);
        while (*fd < 0 && errno == EINTR);
        if (*fd < 0)
            return kw__sys_fail(e, is_wrong_name(errno) ? KW_EDATA : KW_ESTORAGE, N_("open"), path);
        if (kw_io_now->fstat(*fd, st)) {
            kw_status s = kw__sys_fail(e, KW_ESTORAGE, N_("open"), path);
            kw_io_now->close(*fd);
            return s;
        }
        if (S_ISREG(st->st_mode))
            return KW_OK;
        kw_io_now->close(*fd);
    }
    return kw_fail(e, KW_EDATA, N_("%s: is %s, not a file"), path, kw_translate(kind_of(st->st_mode)));
}

ssize_t kw__read(int fd, void *p, size_t n)
{
    size_t have = 0;
    while (have < n) {
        ssize_t k = kw_io_now->read(fd, (char *)p + have, n - have);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        if (!k)
            break;
        have += (size_t)k;
    }
    return (ssize_t)have;
}

kw_status kw_file_read(kw_arena *a, const char *path, uint64_t most, char **data, size_t *n, kw_err *e)
{
    int fd;
    struct stat st;
    KW_TRY(kw__open_regular(path, &fd, &st, e));
    kw_status s = KW_OK;
    *data = NULL;
    if ((uint64_t)st.st_size > most)
        s = kw_fail(e, KW_EDATA, N_("%s: %llu bytes, more than the %llu such a file may have"), path,
                    (unsigned long long)st.st_size, (unsigned long long)most);
    else if (!(*data = kw_alloc(a, (size_t)st.st_size + 1)))
        s = kw__no_memory(e, path);
    else {
        ssize_t k = kw__read(fd, *data, (size_t)st.st_size);
        if (k < 0)
            s = kw__sys_fail(e, KW_ESTORAGE, N_("read"), path);
        else
            *n = (size_t)k;
    }
    kw_io_now->close(fd);
    return s;
}

typedef struct { void *p; size_t n; } mapping;

static void unmap(void *arg)
{
    mapping *m = arg;
    if (m->p)
        munmap(m->p, m->n);
}

void kw__let_go(const void *p, size_t n)
{
    const uintptr_t page = 4096, from = ((uintptr_t)p + page - 1) & ~(page - 1), to = ((uintptr_t)p + n) & ~(page - 1);
    if (to > from)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

kw_status kw_file_map(kw_arena *a, const char *path, const void **data, size_t *n, kw_err *e)
{
    int fd;
    struct stat st;
    KW_TRY(kw__open_regular(path, &fd, &st, e));
    kw_status s = KW_OK;
    mapping *m = kw_alloc(a, sizeof *m);
    if (!m)
        s = kw__no_memory(e, path);
    else if ((*n = m->n = (size_t)st.st_size) > 0 && !(m->p = kw_io_now->map(fd, m->n)))
        s = kw__sys_fail(e, KW_ESTORAGE, N_("map"), path);
    else if (kw_defer(a, unmap, m))
        s = kw__no_memory(e, path);
    else
        *data = m->p ? m->p : "";
    kw_io_now->close(fd);
    return s;
}

/* Made from the root down; one that another process makes at the same moment is as good. */
kw_status kw_mkdirs(const char *path, kw_err *e)
{
    char part[4096];
    size_t n = strlen(path);
    if (!n || n >= sizeof part)
        return kw_fail(e, KW_EUSAGE, N_("not a folder name: \"%s\""), path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i])
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (!kw_is_dir(part) && kw_io_now->mkdir(part, 0777) && !(errno == EEXIST && kw_is_dir(part)))
            return kw__sys_fail(e, KW_ESTORAGE, N_("make the folder"), part);
    }
    return KW_OK;
}

static int by_bytes(const void *x, const void *y) { return strcmp(*(char *const *)x, *(char *const *)y); }

kw_status kw_dir_list(kw_arena *a, const char *path, char ***names, size_t *n, kw_err *e)
{
    DIR *dir = kw_io_now->opendir(path);
    if (!dir)
        return kw__sys_fail(e, is_wrong_name(errno) ? KW_EDATA : KW_ESTORAGE, N_("open the folder"), path);
    size_t capacity = 0;
    kw_status s = KW_OK;
    *names = NULL;
    *n = 0;
    struct dirent *d;
    while (!s && (errno = 0, d = kw_io_now->readdir(dir))) {
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
            continue;
        if (!(s = kw_grow(a, names, &capacity, *n, sizeof **names, e))
            && !((*names)[(*n)++] = kw_strdup(a, d->d_name)))
            s = kw__no_memory(e, path);
    }
    if (!s && errno)
        s = kw__sys_fail(e, KW_ESTORAGE, N_("read the folder"), path);
    closedir(dir);
    if (!s && *n > 1)
        qsort(*names, *n, sizeof **names, by_bytes);
    return s;
}
