/* seam.c - the table of system calls, and one that fails or kills on demand. */
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

static int sys_open(const char *path, int flags, mode_t mode) { return open(path, flags | O_CLOEXEC | O_NOCTTY, mode); }
static ssize_t sys_read(int fd, void *p, size_t n) { return read(fd, p, n); }
static ssize_t sys_write(int fd, const void *p, size_t n) { return write(fd, p, n); }
static int sys_fallocate(int fd, off_t from, off_t n) { return posix_fallocate(fd, from, n); }
static int sys_truncate(int fd, off_t n) { return ftruncate(fd, n); }
static int sys_fsync(int fd) { return fsync(fd); }
static int sys_close(int fd) { return close(fd); }
static int sys_stat(const char *path, struct stat *s) { return stat(path, s); }
static int sys_lstat(const char *path, struct stat *s) { return lstat(path, s); }
static int sys_fstat(int fd, struct stat *s) { return fstat(fd, s); }
static int sys_rename(const char *from, const char *to) { return rename(from, to); }
static int sys_symlink(const char *to, const char *path) { return symlink(to, path); }
static int sys_link(const char *from, const char *path) { return link(from, path); }
static int sys_unlink(const char *path) { return unlink(path); }
static int sys_rmdir(const char *path) { return rmdir(path); }
static int sys_mkdir(const char *path, mode_t mode) { return mkdir(path, mode); }
static DIR *sys_opendir(const char *path) { return opendir(path); }
static struct dirent *sys_readdir(DIR *dir) { return readdir(dir); }
static int sys_flock(int fd, int operation) { return flock(fd, operation); }

static void *sys_map(int fd, size_t n)
{
    void *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

const kw_io kw_io_system = {
#define X(type, name, parameters, arguments, failed) .name = sys_##name,
    KW_IO_MAP(X)
#undef X
};

const kw_io *kw_io_now = &kw_io_system;

/* ---- faults: call number `at` fails, kills, or writes half --------------------------------------------- */

static kw_io_fault fault;
static long counted;
static const char *failing;               /* the kind of call that fails, once one has */

static bool strikes(const char *name)
{
    if (fault.only && strcmp(fault.only, name))
        return false;
    bool now = ++counted == fault.at;
    if (now)
        failing = name;
    return now || (fault.persistent && failing && !strcmp(failing, name));
}

/* What a struck call does: the end of the process, or an errno. */
static void strike(void)
{
    if (fault.kill) {
        raise(SIGKILL);
        pause();
    }
    errno = fault.error;
}

static void write_half(const char *name, int fd, const void *p, size_t n)
{
    if (fault.half && !strcmp(name, "write") && write(fd, p, n / 2) < 0)
        errno = fault.error;
}

#define X(type, name, parameters, arguments, failed) \
static type faulty_##name parameters \
{ \
    if (strikes(#name)) { \
        BEFORE_##name \
        strike(); \
        return failed; \
    } \
    return sys_##name arguments; \
}
#define BEFORE_open
#define BEFORE_read
#define BEFORE_write write_half("write", fd, p, n);
#define BEFORE_fallocate
#define BEFORE_truncate
#define BEFORE_fsync
/* A close that reports an error has closed all the same. */
#define BEFORE_close if (!fault.kill) close(fd);
#define BEFORE_stat
#define BEFORE_lstat
#define BEFORE_fstat
#define BEFORE_map
#define BEFORE_rename
#define BEFORE_symlink
#define BEFORE_link
#define BEFORE_unlink
#define BEFORE_rmdir
#define BEFORE_mkdir
#define BEFORE_opendir
#define BEFORE_readdir
#define BEFORE_flock
KW_IO_MAP(X)
#undef X

static const kw_io faulty = {
#define X(type, name, parameters, arguments, failed) .name = faulty_##name,
    KW_IO_MAP(X)
#undef X
};

void kw_io_fault_start(const kw_io_fault *f)
{
    fault = *f;
    counted = 0;
    failing = NULL;
    kw_io_now = &faulty;
}

long kw_io_fault_stop(void)
{
    kw_io_now = &kw_io_system;
    return counted;
}
