/*
 * rewrite.c - the file of a model written again, some of its tensors with new values.
 *
 *   file tensor ◄── one canonical tensor, or several: q, k, v below each other; in the file's shape, maybe transposed
 *
 * What is not new goes over byte for byte: buffers, other parts of a single file, names that mean nothing to us.
 */
#include "source_internal.h"

#include <stdlib.h>
#include <string.h>

/* New values of (a part of) one tensor of the file; next: the same tensor's next piece, 0 at the end. */
typedef struct { const kw_values *v; const kw__entry *entry; size_t next; } piece;

typedef struct {
    const kw_tensors *file;
    kw_dtype type;                        /* of new values */
    piece *pieces;                        /* from 1 */
    size_t n;
    size_t *first;                        /* per tensor of the file: its first piece; 0: it stays as it is */
    bool turns;                           /* some piece is transposed */
    char *room, *turn;                    /* a tensor of the file; one before it is transposed */
} job;

static kw_status no_such(const job *j, const kw_values *v, kw_err *e)
{
    char shown[96], shape[160];
    return kw_fail(e, KW_EDATA, N_("%s: has no %s tensor \"%s\" of the shape %s"), j->file->path, kw_part_name(v->part),
                   kw__shown(v->t.name, shown), kw_shape_text(&v->t, shape));
}

static kw_status add_piece(job *j, const kw_source *s, const kw_values *v, kw_err *e)
{
    const kw__entry *one = kw__part_entry(s, v->part, v->t.name);
    const kw_tensor *raw = one ? kw_tensors_find(j->file, one->raw->name) : NULL;
    if (!raw || kw_tensor_count(&one->t) != kw_tensor_count(&v->t))
        return no_such(j, v, e);
    size_t *first = &j->first[raw - j->file->tensors];
    j->pieces[++j->n] = (piece){ v, one, *first };
    *first = j->n;
    j->turns |= one->how == KW__TRANSPOSED;
    return KW_OK;
}

/* ---- one tensor's bytes ------------------------------------------------------------------------------------------ */

/* Where the piece begins in its tensor of the file, in numbers. */
static int64_t place_of(const piece *p)
{
    int64_t count = kw_tensor_count(&p->entry->t);
    return p->entry->how == KW__THIRD_K ? count : p->entry->how == KW__THIRD_V ? 2 * count : 0;
}

static void put(const job *j, const piece *p)
{
    const kw_tensor *t = &p->entry->t;
    size_t size = kw_dtype_size(j->type), n = (size_t)kw_tensor_count(t);
    bool turned = p->entry->how == KW__TRANSPOSED;
    kw_convert(j->type, turned ? j->turn : j->room + (size_t)place_of(p) * size, p->v->t.dtype, p->v->t.data, n);
    if (turned)
        kw__transpose(j->room, j->turn, (size_t)t->shape[0], (size_t)t->shape[1], size);
}

/* A tensor of which only some pieces are new keeps the others' values, in the new type. */
static kw_status give(void *user, size_t i, const void **data, kw_err *e)
{
    (void)e;
    const job *j = user;
    const kw_tensor *raw = &j->file->tensors[i];
    int64_t fresh = 0;
    for (size_t k = j->first[i]; k; k = j->pieces[k].next)
        fresh += kw_tensor_count(&j->pieces[k].entry->t);
    if (fresh && fresh < kw_tensor_count(raw))
        kw_convert(j->type, j->room, raw->dtype, raw->data, (size_t)kw_tensor_count(raw));
    for (size_t k = j->first[i]; k; k = j->pieces[k].next)
        put(j, &j->pieces[k]);
    *data = fresh ? j->room : raw->data;
    return KW_OK;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

/* The file's metadata in its order, keys that are given replaced (NULL: left out), then the new ones. */
static kw_status merge_meta(kw_arena *a, const kw_tensors *file, const kw_meta *meta, size_t n_meta, kw_meta **out,
                            size_t *n, kw_err *e)
{
    *n = 0;
    if (!(*out = kw_alloc_array(a, file->n_meta + n_meta + 1, sizeof **out)))
        return kw__no_memory(e, file->path);
    for (size_t i = 0; i < file->n_meta; i++) {
        kw_meta one = file->meta[i];
        for (size_t k = 0; k < n_meta; k++)
            if (!strcmp(meta[k].key, one.key))
                one.value = meta[k].value;
        if (one.value)
            (*out)[(*n)++] = one;
    }
    for (size_t k = 0; k < n_meta; k++)
        if (meta[k].value && !kw_tensors_meta(file, meta[k].key))
            (*out)[(*n)++] = meta[k];
    return KW_OK;
}

/* What the file will hold; and room for the largest tensor that changes. */
static kw_status lay_out(kw_arena *a, job *j, kw_tensor **list, kw_err *e)
{
    uint64_t most = 0;
    if (!(*list = kw_alloc_array(a, j->file->n + 1, sizeof **list)))
        return kw__no_memory(e, j->file->path);
    for (size_t i = 0; i < j->file->n; i++) {
        kw_tensor *t = &(*list)[i];
        *t = j->file->tensors[i];
        if (!j->first[i])
            continue;
        t->dtype = j->type;
        t->bytes = (uint64_t)kw_tensor_count(t) * kw_dtype_size(t->dtype);
        most = KW_MAX(most, t->bytes);
    }
    j->room = kw_block_new((size_t)most + 1);
    j->turn = kw_block_new((j->turns ? (size_t)most : 0) + 1);
    return j->room && j->turn ? KW_OK : kw__no_memory(e, j->file->path);
}

static kw_status save(kw_arena *a, job *j, const kw_source *s, const kw_values *v, size_t n, const kw_meta *meta,
                      size_t n_meta, const char *path, kw_err *e)
{
    kw_tensor *list;
    kw_meta *all;
    size_t n_all;
    j->pieces = kw_alloc_array(a, n + 1, sizeof *j->pieces);
    j->first = kw_alloc_array(a, j->file->n + 1, sizeof *j->first);
    if (!j->pieces || !j->first)
        return kw__no_memory(e, path);
    for (size_t i = 0; i < n; i++)
        if (s->parts[v[i].part].file == j->file)
            KW_TRY(add_piece(j, s, &v[i], e));
    KW_TRY(merge_meta(a, j->file, meta, n_meta, &all, &n_all, e));
    KW_TRY(lay_out(a, j, &list, e));
    return kw_tensors_save_each(path, list, j->file->n, all, n_all, give, j, e);
}

kw_status kw_source_save(const kw_source *s, kw_part p, const kw_values *v, size_t n, kw_dtype type,
                         const kw_meta *meta, size_t n_meta, const char *path, kw_err *e)
{
    job j = { .file = s->parts[p].file, .type = type };
    if (kw__n_scaled(s))
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: its matrices have scales, and are not written anew"), s->path),
                         N_("convert it first: kiwame convert MODEL NEW.safetensors --dtype bf16"));
    kw_arena *a = j.file ? kw_arena_new() : NULL;
    if (!a)
        return j.file ? kw__no_memory(e, path) : kw_fail(e, KW_EDATA, N_("%s has no %s"), s->path, kw_part_name(p));
    kw_status status = save(a, &j, s, v, n, meta, n_meta, path, e);
    kw_block_free(j.room);
    kw_block_free(j.turn);
    kw_arena_free(a);
    return status;
}
