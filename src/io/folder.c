/* folder.c - folders: those that appear whole, removal, what dead processes left, and the lock of a run. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

static void let_go(void *arg) { kw_io_now->close(*(int *)arg); }

/* Locked while it is filled, so that nobody takes it for a dead process's; where there are no locks, it is not. */
static kw_status hold(kw_arena *a, const char *path, kw_err *e)
{
    int *fd = kw_alloc(a, sizeof *fd);
    if (!fd)
        return kw__no_memory(e, path);
    *fd = kw_io_now->open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (*fd < 0)
        return KW_OK;
    (void)kw_io_now->flock(*fd, LOCK_EX | LOCK_NB);
    return kw_defer(a, let_go, fd) ? kw__no_memory(e, path) : KW_OK;
}

kw_status kw_temp_dir(kw_arena *a, const char *parent, char **path, kw_err *e)
{
    if (!(*path = kw__temp_name(a, parent)))
        return kw__no_memory(e, parent);
    if (kw_io_now->mkdir(*path, 0777))
        return kw__sys_fail(e, KW_ESTORAGE, N_("make a folder in"), parent);
    return hold(a, *path, e);
}

/* The files in it were synced by their writers; here the names are, then the folder's own. */
kw_status kw_temp_dir_commit(const char *temp, const char *path, kw_err *e)
{
    struct stat st;
    KW_TRY(kw__sync_dir(temp, e));
    if (!kw_io_now->lstat(path, &st))
        return kw_fail(e, KW_ESTORAGE, N_("%s: exists already"), path);
    if (kw_io_now->rename(temp, path))
        return kw__sys_fail(e, KW_ESTORAGE, N_("rename to"), path);
    kw_arena *a = kw_arena_new();
    char *dir = a ? kw_path_dir(a, path) : NULL;
    kw_status s = dir ? kw__sync_dir(dir, e) : kw__no_memory(e, path);
    kw_arena_free(a);
    return s;
}

static kw_status remove_tree(kw_arena *a, const char *path, int depth, kw_err *e)
{
    struct stat st;
    if (kw_io_now->lstat(path, &st))
        return errno == ENOENT ? KW_OK : kw__sys_fail(e, KW_ESTORAGE, N_("remove"), path);
    if (!S_ISDIR(st.st_mode))
        return kw_io_now->unlink(path) && errno != ENOENT ? kw__sys_fail(e, KW_ESTORAGE, N_("remove"), path) : KW_OK;
    if (depth > 64)
        return kw_fail(e, KW_ESTORAGE, N_("%s: folders nested too deeply to remove"), path);
    char **names;
    size_t n;
    KW_TRY(kw_dir_list(a, path, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        char *inner = kw_path_join(a, path, names[i]);
        KW_TRY(inner ? remove_tree(a, inner, depth + 1, e) : kw__no_memory(e, path));
    }
    return kw_io_now->rmdir(path) ? kw__sys_fail(e, KW_ESTORAGE, N_("remove"), path) : KW_OK;
}

kw_status kw_remove_all(const char *path, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    if (!a)
        return kw__no_memory(e, path);
    kw_status s = remove_tree(a, path, 0, e);
    kw_arena_free(a);
    return s;
}

/* A process of that number may be another program by now: then its leftover stays until next time. One that cannot be
 * seen (another machine's, another container's) holds the lock. */
static bool is_stale(const char *dir, const char *name, kw_arena *a)
{
    long pid;
    if (!kw__is_temp_name(name, &pid) || pid == getpid() || !kill((pid_t)pid, 0) || errno != ESRCH)
        return false;
    char *path = kw_path_join(a, dir, name);
    int fd = path ? kw_io_now->open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0) : -1;
    if (fd < 0)
        return path && errno != EACCES;
    bool held = kw_io_now->flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
    kw_io_now->close(fd);
    return !held;
}

static kw_status remove_stale(kw_arena *a, const char *dir, size_t *n_removed, kw_err *e)
{
    char **names;
    size_t n;
    KW_TRY(kw_dir_list(a, dir, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        if (!is_stale(dir, names[i], a))
            continue;
        char *path = kw_path_join(a, dir, names[i]);
        KW_TRY(path ? remove_tree(a, path, 0, e) : kw__no_memory(e, dir));
        ++*n_removed;
    }
    return KW_OK;
}

kw_status kw_remove_stale(const char *dir, size_t *n_removed, kw_err *e)
{
    size_t unused;
    kw_arena *a = kw_arena_new();
    if (!a)
        return kw__no_memory(e, dir);
    *(n_removed ? n_removed : (n_removed = &unused)) = 0;
    kw_status s = remove_stale(a, dir, n_removed, e);
    kw_arena_free(a);
    return s;
}

kw_status kw_can_write(const char *dir, kw_err *e)
{
    struct stat st;
    kw_arena *a = kw_arena_new();
    const char *at = dir;
    if (!a)
        return kw__no_memory(e, dir);
    while (at && kw_io_now->stat(at, &st) && errno == ENOENT && strcmp(at, kw_path_dir(a, at)))
        at = kw_path_dir(a, at);          /* the first folder above that is there */
    kw_status s = KW_OK;
    if (!at)
        s = kw__no_memory(e, dir);
    else if (kw_io_now->stat(at, &st))
        s = kw__sys_fail(e, KW_ESTORAGE, N_("write"), dir);
    else if (!S_ISDIR(st.st_mode))
        s = kw_fail(e, KW_ESTORAGE, N_("%s: cannot be made, %s is a file"), dir, at);
    else if (access(at, W_OK | X_OK))
        s = kw__sys_fail(e, KW_ESTORAGE, N_("write"), dir);
    kw_arena_free(a);
    return s;
}

/* ---- the lock: flock on DIR/.lock, with "pid start" in it for whoever comes second ---------------------- */

static kw_status tell_holder(int fd, const char *dir, kw_err *e)
{
    char text[128] = "", start[64] = "";
    long pid = 0;
    ssize_t n = kw__read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = 0;
    kw_status s = sscanf(text, "%ld %63[0-9T:Z-]", &pid, start) == 2
        ? kw_fail(e, KW_EBUSY, N_("%s: in use by process %ld since %s"), dir, pid, start)
        : kw_fail(e, KW_EBUSY, N_("%s: in use by another process"), dir);
    return kw_advise(e, s, N_("wait for it or stop it, or choose another output folder"));
}

static kw_status sign(int fd, const char *path, kw_err *e)
{
    char text[128];
    time_t now = time(NULL);
    struct tm tm;
    size_t n = (size_t)snprintf(text, sizeof text, "%ld ", (long)getpid());
    n += strftime(text + n, sizeof text - n, "%Y-%m-%dT%H:%M:%SZ\n", gmtime_r(&now, &tm));
    if (kw_io_now->truncate(fd, 0) || kw_io_now->write(fd, text, n) != (ssize_t)n)
        return kw__sys_fail(e, KW_ESTORAGE, N_("write"), path);
    return KW_OK;
}

static kw_status lock(int fd, const char *dir, const char *path, kw_err *e)
{
    int failure;
    do
        failure = kw_io_now->flock(fd, LOCK_EX | LOCK_NB);
    while (failure && errno == EINTR);
    if (failure && errno == EWOULDBLOCK)
        return tell_holder(fd, dir, e);
    if (failure) {
        kw_status s = kw__sys_fail(e, KW_ESTORAGE, N_("lock"), path);
        return kw_advise(e, s, N_("the file system has no locks: choose an output folder on a local disk"));
    }
    return sign(fd, path, e);
}

kw_status kw_lock_dir(kw_arena *a, const char *dir, kw_err *e)
{
    char *path = kw_path_join(a, dir, ".lock");
    int *fd = kw_alloc(a, sizeof *fd);
    if (!path || !fd)
        return kw__no_memory(e, dir);
    *fd = kw_io_now->open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0666);
    if (*fd < 0)
        return kw__sys_fail(e, KW_ESTORAGE, N_("open"), path);
    kw_status s = lock(*fd, dir, path, e);
    if (s)
        kw_io_now->close(*fd);
    else if (kw_defer(a, let_go, fd))
        s = kw__no_memory(e, dir);
    return s;
}
