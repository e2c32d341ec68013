/*
 * write.c - files and folders that appear whole or not at all.
 *
 *   .tmp-<pid>-<hex> in the same folder ── reserve ── write ── fsync ── close ── read back: length and CRC-32C
 *        │ any failure: removed, the old file stands
 *        └─ rename to the name ── fsync the folder ── look again: the same file, the same length
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <unistd.h>

struct kw_writer {
    char *path, *temp, *dir;
    int fd;                               /* -1: closed */
    bool exists;                          /* the temporary file is there */
    uint64_t size, written;
    uint32_t crc;
    kw_sha256 sha;
    bool hashing;
};

char *kw__temp_name(kw_arena *a, const char *dir)
{
    uint64_t random = 0;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        random = (uint64_t)(uintptr_t)&random ^ (uint64_t)getpid() << 32;
    char name[64];
    snprintf(name, sizeof name, ".tmp-%ld-%016llx", (long)getpid(), (unsigned long long)random);
    return kw_path_join(a, dir, name);
}

/* ".tmp-" digits "-" 16 hex digits, nothing else: foreign files are never ours to remove. */
bool kw__is_temp_name(const char *name, long *pid)
{
    int end = 0;
    char hex[17];
    return sscanf(name, ".tmp-%9ld-%16[0-9a-f]%n", pid, hex, &end) == 2 && *pid > 0 && strlen(hex) == 16 && !name[end];
}

static kw_status no_space(kw_writer *w, kw_err *e)
{
    struct statvfs v;
    char need[32], free[32];
    kw_status s = kw__sys_fail(e, KW_ESTORAGE, N_("write"), w->path);
    if (errno != ENOSPC || !w->size || statvfs(w->dir, &v))
        return s;
    kw_size_text((double)w->size, need);
    kw_size_text((double)v.f_bavail * (double)v.f_frsize, free);
    return kw_advise(e, s, N_("it needs %s, %s are free: free some space, or write to another disk"), need, free);
}

void kw_writer_discard(kw_writer *w)
{
    int keep = errno;
    char hex[65];
    if (w->fd >= 0)
        kw_io_now->close(w->fd);
    w->fd = -1;
    if (w->exists)
        kw_io_now->unlink(w->temp);
    w->exists = false;
    if (w->hashing)
        kw_sha256_end(&w->sha, hex);
    w->hashing = false;
    errno = keep;
}

static void discard(void *w) { kw_writer_discard(w); }

/* Give up: the message first, since cleaning up changes errno. */
static kw_status failed(kw_writer *w, const char *what, kw_err *e)
{
    kw_status s = errno == ENOSPC ? no_space(w, e) : kw__sys_fail(e, KW_ESTORAGE, what, w->path);
    kw_writer_discard(w);
    return s;
}

/* Space first, so that a full disk is known before anything is written. File systems that cannot reserve may refuse. */
static int reserve(int fd, uint64_t size)
{
    int code;
    do
        code = size ? kw_io_now->fallocate(fd, 0, (off_t)size) : 0;
    while (code == EINTR);
    return code == EOPNOTSUPP || code == EINVAL || code == ENOSYS ? 0 : code;
}

kw_status kw_writer_open(kw_arena *a, const char *path, uint64_t size, kw_writer **out, kw_err *e)
{
    kw_writer *w = kw_alloc(a, sizeof *w);
    if (!w || !(w->path = kw_strdup(a, path)) || !(w->dir = kw_path_dir(a, path))
        || !(w->temp = kw__temp_name(a, w->dir)))
        return kw__no_memory(e, path);
    w->fd = -1;
    w->size = size;
    if (kw_defer(a, discard, w))
        return kw__no_memory(e, path);
    if (!*kw_path_name(path) || kw_is_dir(path))
        return kw_fail(e, KW_ESTORAGE, N_("%s: is a folder, not a file"), path);
    if (size > INT64_MAX)
        return kw_fail(e, KW_ESTORAGE, N_("%s: too large"), path);
    do
        w->fd = kw_io_now->open(w->temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0666);
    while (w->fd < 0 && errno == EINTR);
    if (w->fd < 0)
        return failed(w, N_("write"), e);
    w->exists = true;
    (void)kw_io_now->flock(w->fd, LOCK_EX | LOCK_NB);             /* nobody takes it for a dead process's */
    kw_sha256_start(&w->sha);
    w->hashing = true;
    if ((errno = reserve(w->fd, size)))
        return failed(w, N_("write"), e);
    *out = w;
    return KW_OK;
}

kw_status kw_writer_put(kw_writer *w, const void *data, size_t n, kw_err *e)
{
    const char *p = data;
    if (w->fd < 0)
        return kw_fail(e, KW_ESTORAGE, N_("%s: an earlier write failed"), w->path);
    w->crc = kw_crc32c(w->crc, data, n);
    kw_sha256_add(&w->sha, data, n);
    while (n) {
        ssize_t k = kw_io_now->write(w->fd, p, KW_MIN(n, (size_t)1 << 30));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            errno = k ? errno : EIO;
            return failed(w, N_("write"), e);
        }
        p += k;
        n -= (size_t)k;
        w->written += (uint64_t)k;
    }
    return KW_OK;
}

/* What is on disk, asked anew: the length and every byte. */
static kw_status read_back(kw_writer *w, kw_err *e)
{
    enum { PIECE = 1 << 18 };
    int fd;
    struct stat st;
    KW_TRY(kw__open_regular(w->temp, &fd, &st, e));
    char *piece = kw_block_new(PIECE);
    uint32_t crc = 0;
    uint64_t length = 0;
    ssize_t n = 0;
    while (piece && (n = kw__read(fd, piece, PIECE)) > 0) {
        crc = kw_crc32c(crc, piece, (size_t)n);
        length += (uint64_t)n;
    }
    kw_status s = !piece ? kw__no_memory(e, w->path) : n < 0 ? kw__sys_fail(e, KW_ESTORAGE, N_("read back"), w->path)
                : length != w->written || crc != w->crc
                ? kw_fail(e, KW_ESTORAGE, N_("%s: what the disk gives back differs from what was written"), w->path)
                : KW_OK;
    kw_block_free(piece);
    kw_io_now->close(fd);
    return s;
}

kw_status kw__sync_dir(const char *dir, kw_err *e)
{
    int fd = kw_io_now->open(dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return kw__sys_fail(e, KW_ESTORAGE, N_("open the folder"), dir);
    int failure = kw_io_now->fsync(fd);
    kw_status s = failure && errno != EINVAL ? kw__sys_fail(e, KW_ESTORAGE, N_("sync the folder"), dir) : KW_OK;
    kw_io_now->close(fd);
    return s;
}

/* After a failed fsync or close nothing is known about the file's bytes: it goes (the kernel may call them clean). */
static kw_status finish_temp(kw_writer *w, kw_err *e)
{
    if (w->size && w->written != w->size && kw_io_now->truncate(w->fd, (off_t)w->written))
        return failed(w, N_("write"), e);
    if (kw_io_now->fsync(w->fd))
        return failed(w, N_("sync"), e);
    int fd = w->fd;
    w->fd = -1;
    if (kw_io_now->close(fd) && errno != EINTR)
        return failed(w, N_("close"), e);
    kw_status s = read_back(w, e);
    if (s)
        kw_writer_discard(w);
    return s;
}

kw_status kw_writer_commit(kw_writer *w, char *hex, kw_err *e)
{
    char unused[65];
    struct stat st;
    if (w->fd < 0)
        return kw_fail(e, KW_ESTORAGE, N_("%s: an earlier write failed"), w->path);
    KW_TRY(finish_temp(w, e));
    if (kw_io_now->rename(w->temp, w->path))
        return failed(w, N_("rename to"), e);
    w->exists = false;
    w->hashing = false;
    bool hashed = kw_sha256_end(&w->sha, hex ? hex : unused);
    KW_TRY(kw__sync_dir(w->dir, e));
    if (kw_io_now->stat(w->path, &st))
        return kw__sys_fail(e, KW_ESTORAGE, N_("find again"), w->path);
    if ((uint64_t)st.st_size != w->written)
        return kw_fail(e, KW_ESTORAGE, N_("%s: changed while it was being saved"), w->path);
    return hashed || !hex ? KW_OK : kw__no_memory(e, w->path);
}

kw_status kw_file_write_atomic(const char *path, const void *data, size_t n, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    if (!a)
        return kw__no_memory(e, path);
    kw_writer *w = NULL;
    kw_status s = kw_writer_open(a, path, n, &w, e);
    if (!s)
        s = kw_writer_put(w, data, n, e);
    if (!s)
        s = kw_writer_commit(w, NULL, e);
    kw_arena_free(a);
    return s;
}
