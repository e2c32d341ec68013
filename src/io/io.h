/*
 * io.h - files in and out: safe reading and atomic writing, tensor files, models as they lie on disk.
 *
 *     kw_tensors *t;
 *     KW_TRY(kw_tensors_open(arena, "lora.safetensors", &t, e));
 *     const kw_tensor *w = kw_tensors_find(t, "conv_in.weight");       // NULL: not there
 *
 *     kw_source *base;
 *     KW_TRY(kw_source_open(arena, "sd15/ or model.safetensors", &base, e));
 *     w = kw_source_find(base, KW_PART_UNET, "conv_in.weight");        // diffusers' names, whatever the file
 *
 * Errors: KW_EDATA what was read is wrong, KW_ESTORAGE the disk refuses, KW_ENOMEM, KW_EBUSY a folder is in use.
 * Paths are bytes as the system has them. Everything handed out lives as long as the arena it came from.
 */
#ifndef KW_IO_H
#define KW_IO_H

#include "base/base.h"

#include <dirent.h>
#include <jansson.h>
#include <sys/stat.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the seam: every system call on files goes through this table -------------------------------- */

/*  result, name, parameters, arguments, what a failed call gives back  */
#define KW_IO_MAP(X) \
    X(int,             open,      (const char *path, int flags, mode_t mode), (path, flags, mode), -1) \
    X(ssize_t,         read,      (int fd, void *p, size_t n),                (fd, p, n), -1) \
    X(ssize_t,         write,     (int fd, const void *p, size_t n),          (fd, p, n), -1) \
    X(int,             fallocate, (int fd, off_t from, off_t n),              (fd, from, n), errno) \
    X(int,             truncate,  (int fd, off_t n),                          (fd, n), -1) \
    X(int,             fsync,     (int fd),                                   (fd), -1) \
    X(int,             close,     (int fd),                                   (fd), -1) \
    X(int,             stat,      (const char *path, struct stat *s),         (path, s), -1) \
    X(int,             lstat,     (const char *path, struct stat *s),         (path, s), -1) \
    X(int,             fstat,     (int fd, struct stat *s),                   (fd, s), -1) \
    X(void *,          map,       (int fd, size_t n),                         (fd, n), NULL) \
    X(int,             rename,    (const char *from, const char *to),         (from, to), -1) \
    X(int,             symlink,   (const char *to, const char *path),         (to, path), -1) \
    X(int,             link,      (const char *from, const char *path),       (from, path), -1) \
    X(int,             unlink,    (const char *path),                         (path), -1) \
    X(int,             rmdir,     (const char *path),                         (path), -1) \
    X(int,             mkdir,     (const char *path, mode_t mode),            (path, mode), -1) \
    X(DIR *,           opendir,   (const char *path),                         (path), NULL) \
    X(struct dirent *, readdir,   (DIR *dir),                                 (dir), NULL) \
    X(int,             flock,     (int fd, int operation),                    (fd, operation), -1)

typedef struct {
#define X(type, name, parameters, arguments, failed) type (*name) parameters;
    KW_IO_MAP(X)
#undef X
} kw_io;

extern const kw_io kw_io_system;          /* the system's own calls; fallocate returns an errno, as in POSIX */
extern const kw_io *kw_io_now;            /* the table in use: &kw_io_system until a test puts another */

/* Fault injection (tests, `debug`): the calls are counted, and from the at-th one (1: the first) something happens. */
typedef struct {
    long at;                              /* 0: only count */
    int error;                            /* this errno, or ... */
    bool kill;                            /* ... SIGKILL instead of the call */
    bool persistent;                      /* every later call of the same kind fails too */
    bool half;                            /* a write does half of its bytes before */
    const char *only;                     /* count calls of this name alone; NULL: all */
} kw_io_fault;

void kw_io_fault_start(const kw_io_fault *f);
long kw_io_fault_stop(void);              /* back to the system's calls; how many were counted */

/* ---- files ---------------------------------------------------------------------------------------- */

bool kw_is_file(const char *path);        /* a regular file, links followed */
bool kw_is_dir(const char *path);
/* dir "/" name, without doubling the slash; an absolute name stays itself. NULL: no memory. */
char *kw_path_join(kw_arena *a, const char *dir, const char *name);
const char *kw_path_name(const char *path);                       /* what follows the last slash */
/* That without its ending (.gitignore has none), on the arena; NULL when memory is gone. */
const char *kw_path_stem(kw_arena *a, const char *path);
char *kw_path_dir(kw_arena *a, const char *path);                 /* what precedes it; "." if nothing */
/* Makes the folder and those above it; existing ones are fine. */
KW_MUST kw_status kw_mkdirs(const char *path, kw_err *e);
/* Names in a folder without "." and "..", in byte order. */
KW_MUST kw_status kw_dir_list(kw_arena *a, const char *path, char ***names, size_t *n, kw_err *e);

/* The whole of a regular file of at most `most` bytes, with a 0 after it. Pipes and devices are refused at once. */
KW_MUST kw_status kw_file_read(kw_arena *a, const char *path, uint64_t most, char **data, size_t *n, kw_err *e);
/* The file as read-only memory; an empty file gives n = 0 and some valid address. */
KW_MUST kw_status kw_file_map(kw_arena *a, const char *path, const void **data, size_t *n, kw_err *e);

/* A file is written beside its name, synced, read back, and only then takes the name: a reader sees the old file or
 * the whole new one, after any kill, and a failed write leaves the old one. `size` is reserved first (0: unknown). */
typedef struct kw_writer kw_writer;
KW_MUST kw_status kw_writer_open(kw_arena *a, const char *path, uint64_t size, kw_writer **w, kw_err *e);
KW_MUST kw_status kw_writer_put(kw_writer *w, const void *data, size_t n, kw_err *e);
/* On failure the new file is gone and the old one stands. The SHA-256 of the content goes to hex[65] unless NULL. */
KW_MUST kw_status kw_writer_commit(kw_writer *w, char *hex, kw_err *e);
void kw_writer_discard(kw_writer *w);     /* also done by the arena; after a commit it does nothing */
KW_MUST kw_status kw_file_write_atomic(const char *path, const void *data, size_t n, kw_err *e);

/* A folder that appears whole: fill kw_temp_dir's folder, then commit renames it to `path`, which must not exist. */
KW_MUST kw_status kw_temp_dir(kw_arena *a, const char *parent, char **path, kw_err *e);
KW_MUST kw_status kw_temp_dir_commit(const char *temp, const char *path, kw_err *e);
/* Removes a file or a folder with all in it; links are removed, not followed. Absent is fine. */
KW_MUST kw_status kw_remove_all(const char *path, kw_err *e);
/* Removes `.tmp-<pid>-<hex>` left in a folder by dead processes; one that is being written is locked, and stays. */
KW_MUST kw_status kw_remove_stale(const char *dir, size_t *n_removed, kw_err *e);

/* Could files be made in this folder, or it itself where it is not there yet? Looks only: KW_ESTORAGE with the
   reason. */
KW_MUST kw_status kw_can_write(const char *dir, kw_err *e);

/* Takes the folder for this process until the arena goes (file `.lock`); KW_EBUSY names the holder and its start. */
KW_MUST kw_status kw_lock_dir(kw_arena *a, const char *dir, kw_err *e);

/* ---- checksums -------------------------------------------------------------------------------------- */

typedef struct { void *state; bool failed; } kw_sha256;
void kw_sha256_start(kw_sha256 *s);
void kw_sha256_add(kw_sha256 *s, const void *p, size_t n);
bool kw_sha256_end(kw_sha256 *s, char hex[65]);                   /* frees; false: memory ran out on the way */
bool kw_sha256_of(const void *p, size_t n, char hex[65]);
KW_MUST kw_status kw_sha256_file(const char *path, char hex[65], kw_err *e);
/* The older short name of a checkpoint: sha256(bytes 0x100000 .. 0x110000), 8 digits (webui, ss_sd_model_hash). */
KW_MUST kw_status kw_sha256_short(const char *path, char hex[9], kw_err *e);
/* CRC-32C (Castagnoli); start with 0, or with the value so far. */
uint32_t kw_crc32c(uint32_t crc, const void *p, size_t n);

/* ---- JSON ------------------------------------------------------------------------------------------- */

/* At most 16 MiB, duplicate keys refused; freed with the arena. */
KW_MUST kw_status kw_json_parse(kw_arena *a, const char *shown, const char *text, size_t n, json_t **json, kw_err *e);
KW_MUST kw_status kw_json_read(kw_arena *a, const char *path, json_t **json, kw_err *e);

/* ---- safetensors ------------------------------------------------------------------------------------ */

enum { KW_MAX_RANK = 8, KW_MAX_TENSORS = 65536, KW_MAX_TENSOR_NAME = 1024 };

typedef struct {
    const char *name;
    kw_dtype dtype;
    int rank;                             /* 0: a single number */
    int64_t shape[KW_MAX_RANK];
    const void *data;                     /* aligned to the dtype's size, little-endian, row-major */
    uint64_t bytes;
    bool mapped;                          /* data is a mapping of a file: pages let go are read again */
} kw_tensor;

int64_t kw_tensor_count(const kw_tensor *t);                      /* the product of the shape */
/* "[320, 4, 3, 3]" into text, which is returned. */
const char *kw_shape_text(const kw_tensor *t, char text[160]);

typedef struct kw_tensors kw_tensors;

/* A .safetensors file, mapped read-only, or a .safetensors.index.json with its shards. Refused: whatever the format
 * forbids (header over 100 MB, overlaps, holes, duplicate names, bytes after the end ...), an unknown dtype, and files
 * that are something else (HTML page, Git-LFS pointer, GGUF), which are named.
 * Or a checkpoint of PyTorch (.ckpt, .pt, .pth, .bin; known by its first bytes): its pickle is read as data, nothing in
 * it is run, and what asks for more than tensors need is refused by name. */
KW_MUST kw_status kw_tensors_open(kw_arena *a, const char *path, kw_tensors **out, kw_err *e);
/* The same for names, shapes, metadata and bytes alone: data may lie at any byte, numbers are not to be read from
   it. */
KW_MUST kw_status kw_tensors_look(kw_arena *a, const char *path, kw_tensors **out, kw_err *e);
/* The same from memory, which must stay; `shown` is the name in messages. */
KW_MUST kw_status kw_tensors_parse(kw_arena *a, const char *shown, const void *p, size_t n, kw_tensors **out,
                                   kw_err *e);

size_t kw_tensors_n(const kw_tensors *t);
const kw_tensor *kw_tensors_at(const kw_tensors *t, size_t i);    /* in the order of the file's data */
const kw_tensor *kw_tensors_find(const kw_tensors *t, const char *name);
const char *kw_tensors_path(const kw_tensors *t);
const char *kw_tensors_note(const kw_tensors *t);   /* what a checkpoint holds beside its tensors; NULL: nothing */
/* The dictionaries around a checkpoint's tensors ("model.state_dict"), which are left out of their names; NULL: none
   but a usual "state_dict". */
const char *kw_tensors_wrapped(const kw_tensors *t);
/* The text, whole number or truth ("True", "False") that a checkpoint has under this name at its top; NULL: none. */
const char *kw_tensors_entry(const kw_tensors *t, const char *key);
size_t kw_tensors_n_meta(const kw_tensors *t);
void kw_tensors_meta_at(const kw_tensors *t, size_t i, const char **key, const char **value);
const char *kw_tensors_meta(const kw_tensors *t, const char *key);                /* NULL: not there */
/* SHA-256 of the data region (after the header): `sshs_model_hash`, blind to metadata. Shards: one after another. Of a
 * PyTorch checkpoint, that of its tensors in the pickle's order. */
KW_MUST kw_status kw_tensors_hash(const kw_tensors *t, char hex[65], kw_err *e);
/* Did the file on disk keep size and time since it was opened? A shrunk file would end reads with SIGBUS. */
bool kw_tensors_unchanged(const kw_tensors *t);

typedef struct { const char *key, *value; } kw_meta;

/* Writes atomically, in the order and spelling of the reference writer (dtype, then name): byte for byte its file. */
KW_MUST kw_status kw_tensors_save(const char *path, const kw_tensor *t, size_t n, const kw_meta *meta, size_t n_meta,
                                  kw_err *e);
/* The same without having all data at once: t[i].data is ignored, get gives tensor i (of the caller's list) when its
 * turn comes; what it gives must stay until the next call. */
typedef kw_status kw_tensor_get(void *user, size_t i, const void **data, kw_err *e);
KW_MUST kw_status kw_tensors_save_each(const char *path, const kw_tensor *t, size_t n, const kw_meta *meta,
                                       size_t n_meta, kw_tensor_get *get, void *user, kw_err *e);
/* The two hashes kohya stores: of the data region, and (first 8 digits) of bytes 0x100000 .. 0x110000 of the file as it
 * would be with this metadata, which by custom is the ss_* keys alone. */
KW_MUST kw_status kw_tensors_hash_list(const kw_tensor *t, size_t n, const kw_meta *meta, size_t n_meta,
                                       char model[65], char legacy[9], kw_err *e);

#ifdef __cplusplus
}
#endif

#include "convert.h"
#include "source.h"

#endif
