/* internal.h - what the files of io/ share among themselves. */
#ifndef KW_IO_INTERNAL_H
#define KW_IO_INTERNAL_H

#include "io.h"

/* "PATH: cannot DO: reason", with advice where the errno has one; returns s. */
KW_MUST kw_status kw__sys_fail(kw_err *e, kw_status s, const char *what, const char *path);
/* Opens a regular file for reading; never blocks on a pipe. The caller closes fd. */
KW_MUST kw_status kw__open_regular(const char *path, int *fd, struct stat *st, kw_err *e);
void kw__let_go(const void *p, size_t n);  /* whole pages of a file's mapping: read again if needed */
ssize_t kw__read(int fd, void *p, size_t n);                      /* again after EINTR; fills p unless the file ends */
char *kw__temp_name(kw_arena *a, const char *dir);                /* dir/.tmp-<pid>-<hex> */
bool kw__is_temp_name(const char *name, long *pid);
KW_MUST kw_status kw__sync_dir(const char *dir, kw_err *e);
uint32_t kw__crc32c_plain(uint32_t crc, const void *p, size_t n); /* without the processor's instruction */

bool kw__utf8(const char *s, size_t n);                           /* strictly valid UTF-8 */
KW_MUST kw_status kw__no_memory(kw_err *e, const char *path);
/* A text for a message: at most 80 bytes, cut between characters. */
const char *kw__shown(const char *name, char out[96]);

/* ---- the header of a tensor file ---- */

typedef struct {
    kw_tensor *tensors;                   /* data and bytes not yet set: data holds NULL */
    uint64_t (*offsets)[2];
    size_t n, capacity, offsets_capacity;
    kw_meta *meta;
    size_t n_meta, meta_capacity;
} kw__header;

KW_MUST kw_status kw__header_parse(kw_arena *a, const char *file, const char *text, size_t n, kw__header *h, kw_err *e);

/* Builds what kw_tensors is from finished tensors: the index by name, the path. */
struct kw_tensors {
    const char *path;
    kw_tensor *tensors;                   /* in data order */
    size_t n;
    uint32_t *by_name;                    /* indices, sorted by name */
    kw_meta *meta;
    size_t n_meta;
    const void *region;                   /* the data region; NULL for shards */
    uint64_t region_bytes;
    struct kw_tensors **shards;
    size_t n_shards;
    struct stat st;                       /* when opened; st_ino 0: memory */
    kw_meta *entry;                       /* a checkpoint's texts, numbers and truths beside its tensors */
    size_t n_entries;
    const char *note;                     /* what a checkpoint holds beside tensors; NULL: nothing */
    const char *wrapped;                  /* "model.state_dict": where in a checkpoint they lay; NULL: where usual */
};

KW_MUST kw_status kw__tensors_index(kw_arena *a, kw_tensors *t, kw_err *e);
KW_MUST kw_status kw__shards_open(kw_arena *a, const char *path, bool loose, kw_tensors **out, kw_err *e);
/* loose: tensors stay in the file even where they lie at odd bytes; such numbers are to be copied before use. */
KW_MUST kw_status kw__tensors_open(kw_arena *a, const char *path, bool loose, kw_tensors **out, kw_err *e);

#endif
