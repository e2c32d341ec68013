/* file.c - opening and reading picture files: regular files of a bounded size only. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

kw_status kw_open_picture(const char *path, int *fd, size_t *size, kw_err *e)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);     /* a FIFO must not make us wait */
    if (*fd < 0)
        return kw_fail(e, errno == ENOENT || errno == EACCES ? KW_EDATA : KW_ESTORAGE, "%s: %s", path, kw_errno_text(errno));
    if (fstat(*fd, &st) || !S_ISREG(st.st_mode)) {
        close(*fd);
        return kw_fail(e, KW_EDATA, "%s: not a regular file", path);
    }
    if (st.st_size > KW_PICTURE_MAX_BYTES) {
        close(*fd);
        return kw_fail(e, KW_EDATA, "%s: the file has %lld MiB, more than the limit of %u", path,
                       (long long)st.st_size >> 20, KW_PICTURE_MAX_BYTES >> 20);
    }
    *size = (size_t)st.st_size;
    return KW_OK;
}

kw_status kw_read_fd(int fd, uint8_t *data, size_t n, kw_err *e)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(fd, data + done, n - done, (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return kw_fail(e, KW_ESTORAGE, "cannot be read: %s", kw_errno_text(errno));
        if (!got)
            return kw_fail(e, KW_EDATA, "became shorter while it was read");
        done += (size_t)got;
    }
    return KW_OK;
}

kw_status kw_picture_read(const char *path, const uint8_t background[3], kw_picture *p, kw_err *e)
{
    int fd;
    size_t n;
    kw_err why = { 0 };
    *p = (kw_picture){ 0 };
    KW_TRY(kw_open_picture(path, &fd, &n, e));
    uint8_t *data = kw_block_new(n + 1);
    kw_status s = data ? kw_read_fd(fd, data, n, &why) : kw_fail(&why, KW_ENOMEM, "no memory for %zu bytes", n);
    close(fd);
    s = s ? kw_name_error(s, path, &why, e) : kw_picture_decode(data, n, path, background, p, e);
    kw_block_free(data);
    return s;
}
