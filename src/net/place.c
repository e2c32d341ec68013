/* place.c - where files lie: locks that huggingface_hub knows too, names from outside, files outside of its cache. */
#include "net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

kw_status kw__sys(kw_err *e, const char *what, const char *path)
{
    int code = errno;
    kw_status s = kw_fail(e, code == ENOMEM ? KW_ENOMEM : KW_ESTORAGE, N_("%s: cannot %s: %s"), path,
                          kw_translate(what),
                          kw_errno_text(code));
    return code == ENOSPC || code == EDQUOT ? kw_advise(e, s,
                                                        N_("free some space, or name another folder in HF_HOME")) : s;
}

kw_status kw__sync_folder(const char *dir, kw_err *e)
{
    int fd = kw_io_now->open(dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return kw__sys(e, N_("open the folder"), dir);
    bool failed = kw_io_now->fsync(fd) && errno != EINVAL;
    kw_status s = failed ? kw__sys(e, N_("sync the folder"), dir) : KW_OK;
    kw_io_now->close(fd);
    return s;
}

bool kw__hex(const char *text, size_t n)
{
    size_t k = strspn(text, "0123456789abcdef");
    return k == n && !text[k];
}

/* "../../x" -> "x"; ".bashrc" -> "bashrc": what a server calls a file is a wish. */
void kw__plain_name(const char *from, char to[256])
{
    size_t n = 0;
    for (const char *p = from; *p; p++)
        if (*p == '/' || *p == '\\')
            from = p + 1;
    while (*from == '.' || *from == ' ' || *from == '-')
        from++;
    for (; *from && n < 200; from++)
        if ((unsigned char)*from >= 0x20 && *from != 0x7f)
            to[n++] = *from;
    while (n && (to[n - 1] & 0xc0) == 0x80 && *from)     /* cut between characters */
        n--;
    to[n] = 0;
}

kw_status kw__room(const char *folder, uint64_t bytes, kw_err *e)
{
    struct statvfs v;
    char need[32], free[32];
    uint64_t spare = 64 << 20;
    if (statvfs(folder, &v))
        return kw__sys(e, N_("open the folder"), folder);
    uint64_t have = (uint64_t)v.f_bavail * v.f_frsize;
    if (have >= spare && have - spare >= bytes)
        return KW_OK;
    kw_size_text((double)bytes, need);
    kw_size_text((double)have, free);
    return kw_advise(e, kw_fail(e, KW_ENOMEM, N_("%s: the disk is too small: %s are needed, %s are free"), folder,
                                need, free),
                     N_("free some space, or name another folder in HF_HOME"));
}

/* ---- locks ------------------------------------------------------------------------------------------------------- */

static kw_status show_other(kw_web *n, const char *name, const char *part, uint64_t size, kw_err *e)
{
    struct stat st;
    kw_net_event v = { .name = name, .total = size };
    v.done = kw_io_now->stat(part, &st) ? 0 : (uint64_t)st.st_size;
    return n->tell ? n->tell(n->user, &v, e) : KW_OK;
}

/* Whoever is done with a folder of the user's removes the lock file: then it must be made anew. */
static bool still_there(int fd, const char *path)
{
    struct stat a, b;
    return !kw_io_now->fstat(fd, &a) && !kw_io_now->stat(path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

kw_status kw__lock(kw_web *n, const char *path, const char *name, const char *part, uint64_t size, kw__held *h,
                   kw_err *e)
{
    *h = (kw__held){ .fd = -1 };
    for (;;) {
        if (h->fd < 0 && (h->fd = kw_io_now->open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0666)) < 0)
            return kw__sys(e, N_("open"), path);
        bool held = !kw_io_now->flock(h->fd, LOCK_EX | LOCK_NB);
        if (held && still_there(h->fd, path))
            return KW_OK;
        kw_status s = !held && errno != EWOULDBLOCK && errno != EINTR ? kw__sys(e, N_("lock"), path) : KW_OK;
        if (!s && !held && !h->waited)
            s = kw__net_note(n, name, N_("%s: another process is downloading it; waiting for it"), name);
        h->waited |= !held;
        struct timespec t = { 0, held ? 0 : 200000000 };
        nanosleep(&t, NULL);
        if (!s && !held)
            s = show_other(n, name, part, size, e);
        if (s || held) {
            kw_io_now->close(h->fd);
            h->fd = -1;
        }
        KW_TRY(s);
    }
}

/* ---- a file that has no place in the hub's cache ----------------------------------------------------------------- */

static bool exists(const char *path)
{
    struct stat st;
    return !kw_io_now->lstat(path, &st);
}

/* FOLDER/.KEY.part (and .etag) until it is whole, then FOLDER/NAME. An existing NAME with the right hash is enough. */
static kw_status bring(kw_web *n, kw_arena *a, kw__file *f, const char *folder, const char *given, bool waited,
                       char **path,
                       kw_err *e)
{
    char hex[65], said[256] = "", name[256];
    bool same = false;
    *path = given ? kw_path_join(a, folder, given) : NULL;
    if (*path && exists(*path)) {
        if (!f->sha256)
            return waited ? KW_OK : kw_fail(e, KW_EUSAGE, N_("%s: is there already"), *path);
        KW_TRY(kw__verify(n, *path, given, 0, f->sha256, NULL, &same, e));
        return same ? KW_OK : kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: is there already, and is another file"),
                                                   *path),
                                        N_("move it away, or name another folder with --to"));
    }
    if (n->offline)
        return kw__offline(e, f->name);
    KW_TRY(kw__fetch(n, f, hex, said, e));
    if (!given) {
        kw__plain_name(said, name);
        *path = kw_path_join(a, folder, *name ? name : "download");
    }
    if (!*path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (exists(*path))
        return kw_fail(e, KW_EUSAGE, N_("%s: is there already"), *path);
    if (kw_io_now->rename(f->part, *path))
        return kw__sys(e, N_("rename to"), *path);
    if (f->etag_file)
        kw_io_now->unlink(f->etag_file);
    return kw__sync_folder(folder, e);
}

kw_status kw__pull_to(kw_web *n, kw_arena *a, kw__file *f, const char *folder, const char *name, char **path, kw_err *e)
{
    kw__held held;
    char key[65];
    if (!kw_sha256_of(f->url, strlen(f->url), key))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    char *lock = kw_sprintf(a, "%s/.%.16s.lock", folder, key);
    f->part = kw_sprintf(a, "%s/.%.16s.part", folder, key);
    f->etag_file = f->sha256 ? NULL : kw_sprintf(a, "%s/.%.16s.etag", folder, key);
    if (!lock || !f->part || (!f->sha256 && !f->etag_file))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_mkdirs(folder, e));
    KW_TRY(kw__lock(n, lock, f->name, f->part, f->size, &held, e));
    kw_status s = bring(n, a, f, folder, name, held.waited, path, e);
    if (!s)
        kw_io_now->unlink(lock);
    kw_io_now->close(held.fd);
    return s;
}
