/*
 * torch.h - PyTorch's checkpoints (.ckpt, .pt, .pth, .bin): three containers, one pickle, read as data.
 *
 *   zip (1.6 and later)   NAME/data.pkl, NAME/data/KEY for each storage, NAME/byteorder
 *   legacy (0.2 to 1.5)   pickles: magic, 1001, the machine, the object, the keys; for each key  i64 count | numbers
 *   tar (before)          storages, tensors, pickle
 *
 * Sources: torch/serialization.py, torch/_utils.py.
 */
#ifndef KW_IO_TORCH_H
#define KW_IO_TORCH_H

#include "internal.h"
#include "pickle.h"

/* Numbers in the file. They are named by a key; what a pickle says of them must fit. */
typedef struct {
    const char *key;
    size_t n_key;
    const char *data;
    uint64_t bytes;
    kw_dtype dtype;
    bool typed;                           /* dtype is known */
} kw__storage;

typedef struct {
    int64_t id, shape[KW_MAX_RANK], stride[KW_MAX_RANK], offset;
    const kw__storage *storage;
    int rank;
} kw__old_tensor;

typedef struct {
    kw_arena *arena;
    const char *shown;
    const char *data;                     /* the whole file */
    uint64_t size;
    kw__value *root;                      /* what was saved */
    kw__storage *storages;                /* sorted by key */
    size_t n_storages, capacity;
    kw__old_tensor *old;                  /* tar: tensors, sorted by number */
    size_t n_old, old_capacity;
    bool mapped, loose;
    kw_err *e;
} kw__torch;

bool kw__is_torch(const char *p, size_t n);        /* a zip, a pickle with PyTorch's number, a tar archive */
/* From a file in memory, which must stay; mapped: it is a mapping of a file; loose: numbers may lie at any byte. */
KW_MUST kw_status kw__torch_parse(kw_arena *a, const char *shown, const void *p, size_t n, bool mapped, bool loose,
                                  kw_tensors **out, kw_err *e);

KW_MUST kw_status kw__torch_tar(kw__torch *t);     /* fills root, storages, old */
KW_MUST kw_status kw__storage_add(kw__torch *t, const char *key, size_t n_key, const char *data, uint64_t bytes);
void kw__storages_sort(kw__torch *t);
kw__storage *kw__storage_find(const kw__torch *t, const char *key, size_t n_key);

/* Tensors out of their descriptions (torch_tensors.c), while names are being gathered. */
typedef struct {
    kw__torch *t;
    kw_tensors *out;
    struct kw__view *views;               /* beside out->tensors */
    size_t capacity, view_capacity;
    uint64_t bytes, copied;
} kw__torch_maker;

bool kw__torch_is_tensor(const kw__value *v);
KW_MUST kw_status kw__torch_add(kw__torch_maker *m, const char *name, const kw__value *v);
KW_MUST kw_status kw__torch_finish(kw__torch_maker *m);           /* after the last: those that must be copied are */
/* The tensors under the names that the object has for them (torch_names.c): root -> out. */
KW_MUST kw_status kw__torch_tensors(kw__torch *t, kw_tensors *out);

KW_MUST kw_status kw__torch_bad(kw__torch *t, const char *why);     /* "FILE: why" */
KW_MUST kw_status kw__torch_cut(kw__torch *t);     /* the file ends too early */
/* The pickle at *at, which moves behind it. */
KW_MUST kw_status kw__torch_pickle(kw__torch *t, uint64_t *at, uint64_t end, kw__value **v);

#endif
