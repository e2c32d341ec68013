/*
 * convert_write.c - a planned conversion to the disk, one tensor after the other.
 *
 * A tensor that changes neither type nor layout goes from the source's mapping to the file; others pass through a room
 * as large as the largest of them. Pages that were read are let go, so that memory stays at that.
 */
#include "convert_internal.h"

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/statvfs.h>

typedef struct {
    kw_conversion *c;
    const kw__new_file *f;
    char *room, *turn;
    float *made;                          /* numbers of one tensor that are not the source's */
    const kw_tensor *before[3];           /* read for the tensor before */
    int n_before;
    uint64_t done;
    kw_conversion_tell *tell;
    void *user;
} writer;

/* Whole pages of a mapping that are no longer needed; a page shared with a neighbour is read again. Copies go too. */
static void let_go(const kw_source *s, const kw_tensor *t)
{
    kw__entry *one = kw__entry_of(s, t);
    if (one)
        kw__entry_empty(one);
    if (one && one->room)
        t = one->raw;
    if (t->mapped)
        kw__let_go(t->data, (size_t)t->bytes);
}

/* ---- one tensor -------------------------------------------------------------------------------------------------- */

static bool is_finite_f16(uint16_t h) { return (h >> 10 & 31) != 31; }
static bool is_finite_f8(uint8_t b) { return (b & 127) != 127; }

/* A finite number that the new type cannot hold would be infinite or none: refused before anything is damaged. */
static kw_status check(const kw_tensor *to, const kw_tensor *from, const void *made, kw_err *e)
{
    char shown[96], one[8];
    size_t n = (size_t)kw_tensor_count(from), size = kw_dtype_size(from->dtype);
    for (size_t i = 0; i < n; i++) {
        float x;
        if (to->dtype == KW_F16 ? is_finite_f16(((const uint16_t *)made)[i]) : is_finite_f8(((const uint8_t *)made)[i]))
            continue;
        memcpy(one, (const char *)from->data + i * size, size);
        kw_convert(KW_F32, &x, from->dtype, one, 1);
        if (isfinite(x))
            return kw_advise(e, kw_fail(e, KW_ENUMERIC, N_("\"%s\" holds %g, which is too large for %s"),
                                        kw__shown(to->name, shown), (double)x, kw_dtype_name(to->dtype)),
                             N_("use --dtype bf16, which holds numbers as large as f32 does"));
    }
    return KW_OK;
}

/* From numbers at odd bytes, in pieces. */
static void convert_loose(const kw_tensor *to, const kw_tensor *from, char *made)
{
    enum { PIECE = 4096 };
    uint64_t room[PIECE];
    size_t n = (size_t)kw_tensor_count(from), size = kw_dtype_size(from->dtype);
    for (size_t at = 0; at < n; at += PIECE) {
        size_t k = KW_MIN(n - at, (size_t)PIECE);
        memcpy(room, (const char *)from->data + at * size, k * size);
        kw_convert(to->dtype, made + at * kw_dtype_size(to->dtype), from->dtype, room, k);
    }
}

static kw_status convert(const kw_tensor *to, const kw_tensor *from, void *made, kw_err *e)
{
    bool narrow = to->dtype == KW_F16 || to->dtype == KW_F8_E4M3;
    if ((uintptr_t)from->data % kw_dtype_size(from->dtype))
        convert_loose(to, from, made);
    else
        kw_convert(to->dtype, made, from->dtype, from->data, (size_t)kw_tensor_count(from));
    return narrow && to->dtype != from->dtype ? check(to, from, made, e) : KW_OK;
}

static kw_part part_of(const kw_source *s, const kw__entry *one)
{
    int p = 0;
    while (p < KW_N_PARTS - 1 && !(one >= s->parts[p].entries && one < s->parts[p].entries + s->parts[p].n))
        p++;
    return (kw_part)p;
}

/* *from becomes the numbers to be written, if they are made. */
static kw_status make(writer *w, const kw_tensor **from, kw_tensor *room, kw_err *e)
{
    const kw_conversion *c = w->c;
    kw__entry *one = c->want.make ? kw__entry_of(c->source, *from) : NULL;
    bool made = false;
    if (one)
        KW_TRY(c->want.make(c->want.make_user, part_of(c->source, one), *from, w->made, &made, e));
    if (!made)
        return KW_OK;
    *room = **from;
    room->dtype = KW_F32;
    room->data = w->made;
    room->bytes = (uint64_t)kw_tensor_count(room) * sizeof(float);
    *from = room;
    return KW_OK;
}

static kw_status give(void *user, size_t i, const void **data, kw_err *e)
{
    writer *w = user;
    const kw_tensor *to = &w->f->list[i];
    const kw__origin *from = &w->f->from[i];
    size_t size = kw_dtype_size(to->dtype), at = 0;
    for (int k = 0; k < w->n_before; k++)
        let_go(w->c->source, w->before[k]);
    w->n_before = 0;
    if (w->tell)
        KW_TRY(w->tell(w->user, w->done, e));
    w->done += to->bytes;
    for (int k = 0; k < from->n; k++)
        w->before[w->n_before++] = from->from[k];
    for (int k = 0; k < from->n; k++) {
        kw__entry *one = kw__entry_of(w->c->source, from->from[k]);
        if (one)
            kw__entry_fill(one);
    }
    for (int k = 0; k < from->n; k++) {
        kw_tensor made;
        const kw_tensor *one = from->from[k];
        KW_TRY(make(w, &one, &made, e));
        if (from->n == 1 && !from->turned && one->dtype == to->dtype) {
            *data = one->data;
            return KW_OK;
        }
        KW_TRY(convert(to, one, (from->turned ? w->turn : w->room) + at, e));
        at += (size_t)kw_tensor_count(one) * size;
    }
    if (from->turned)
        kw__transpose(w->room, w->turn, (size_t)to->shape[1], (size_t)to->shape[0], size);
    *data = w->room;
    return KW_OK;
}

/* ---- room -------------------------------------------------------------------------------------------------------- */

static void rooms(const kw_conversion *c, uint64_t *room, uint64_t *turn, uint64_t *made)
{
    *room = *turn = *made = 0;
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < c->files[i].n; k++) {
            const kw_tensor *t = &c->files[i].list[k];
            const kw__origin *from = &c->files[i].from[k];
            if (c->want.make)
                *made = KW_MAX(*made, (uint64_t)kw_tensor_count(from->from[0]) * sizeof(float));
            if (from->n > 1 || from->turned || from->from[0]->dtype != t->dtype
                || (c->want.make && t->dtype != KW_F32))
                *room = KW_MAX(*room, t->bytes);
            if (from->turned)
                *turn = KW_MAX(*turn, t->bytes);
        }
}

static kw_status check_space(const kw_conversion *c, const char *path, kw_err *e)
{
    struct statvfs v;
    char need[32], free[32], *dir = kw_path_dir(c->arena, path);
    double bytes = (double)kw_conversion_bytes(c) + (64 << 10);
    struct stat st;
    for (size_t i = 0; i < c->n_small; i++)
        bytes += c->small[i].from && !kw_io_now->stat(c->small[i].from, &st) ? (double)st.st_size
                                                                             : (double)c->small[i].n;
    if (!dir)
        return kw__no_memory(e, path);
    if (statvfs(dir, &v))
        return kw__sys_fail(e, KW_ESTORAGE, N_("open the folder"), dir);
    double left = (double)v.f_bavail * (double)v.f_frsize;
    if (bytes <= left)
        return KW_OK;
    kw_size_text(bytes, need);
    kw_size_text(left, free);
    return kw_advise(e, kw_fail(e, KW_ESTORAGE, N_("%s: needs %s, but only %s are free there"), path, need, free),
                     N_("free some space, or write to another disk"));
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static kw_status write_weights(writer *w, const kw__new_file *f, const char *path, kw_err *e)
{
    w->f = f;
    w->n_before = 0;
    return kw_tensors_save_each(path, f->list, f->n, f->meta, f->n_meta, give, w, e);
}

/* In pieces, so that a large component (a safety checker) does not fill the memory. */
static kw_status copy_pieces(const char *data, size_t n, kw_writer *w, kw_err *e)
{
    const size_t piece = 16 << 20;
    for (size_t at = 0; at < n; at += piece) {
        const kw_tensor part = { .data = data + at, .bytes = KW_MIN(piece, n - at), .mapped = true };
        KW_TRY(kw_writer_put(w, part.data, (size_t)part.bytes, e));
        let_go(NULL, &part);
    }
    return KW_OK;
}

static kw_status write_small(const kw__small *s, const char *path, kw_err *e)
{
    const void *data;
    size_t n;
    kw_writer *w;
    if (!s->from)
        return kw_file_write_atomic(path, s->text, s->n, e);
    kw_arena *a = kw_arena_new();
    if (!a)
        return kw__no_memory(e, path);
    kw_status done = kw_file_map(a, s->from, &data, &n, e);
    if (!done)
        done = kw_writer_open(a, path, n, &w, e);
    if (!done)
        done = copy_pieces(data, n, w, e);
    if (!done)
        done = kw_writer_commit(w, NULL, e);
    kw_arena_free(a);
    return done;
}

static kw_status below(const kw_conversion *c, const char *dir, const char *name, char **path, kw_err *e)
{
    char *parent = NULL;
    if (!(*path = kw_path_join(c->arena, dir, name)) || !(parent = kw_path_dir(c->arena, *path)))
        return kw__no_memory(e, dir);
    return kw_mkdirs(parent, e);
}

static kw_status fill_folder(writer *w, const char *dir, kw_err *e)
{
    char *path;
    for (size_t i = 0; i < w->c->n_small; i++) {
        KW_TRY(below(w->c, dir, w->c->small[i].path, &path, e));
        KW_TRY(write_small(&w->c->small[i], path, e));
    }
    for (size_t i = 0; i < w->c->n; i++) {
        KW_TRY(below(w->c, dir, w->c->files[i].shown.file, &path, e));
        KW_TRY(write_weights(w, &w->c->files[i], path, e));
    }
    return KW_OK;
}

static kw_status write_folder(writer *w, const char *path, kw_err *e)
{
    char *temp, *dir = kw_path_dir(w->c->arena, path);
    if (!dir)
        return kw__no_memory(e, path);
    KW_TRY(kw_temp_dir(w->c->arena, dir, &temp, e));
    kw_status s = fill_folder(w, temp, e);
    if (!s)
        s = kw_remove_all(path, e);       /* only now: the new one is whole */
    if (!s)
        s = kw_temp_dir_commit(temp, path, e);
    if (s) {
        kw_status ignored = kw_remove_all(temp, NULL);            /* the first error counts */
        (void)ignored;
    }
    return s;
}

/* ---- before anything is written ---------------------------------------------------------------------------------- */

static bool same_file(const char *a, const char *b)
{
    struct stat x, y;
    return !kw_io_now->stat(a, &x) && !kw_io_now->stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static kw_status refuse_source(const char *path, kw_err *e)
{
    return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: is the source itself"), path), N_("choose another name"));
}

static kw_status check_target(const kw_conversion *c, const char *path, bool replace, kw_err *e)
{
    struct stat st;
    char *index = kw_path_join(c->arena, path, "model_index.json");
    if (!index)
        return kw__no_memory(e, path);
    if (c->source && same_file(c->source->path, path))
        return refuse_source(path, e);
    for (int p = 0; c->source && p < KW_N_PARTS; p++)
        if (c->source->parts[p].file && same_file(c->source->parts[p].file->path, path))
            return refuse_source(path, e);
    if (kw_io_now->lstat(path, &st))
        return errno == ENOENT ? KW_OK : kw__sys_fail(e, KW_ESTORAGE, N_("write"), path);
    if (!replace)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: exists already"), path), N_("use --overwrite to replace it"));
    if (S_ISDIR(st.st_mode) != c->want.folder)
        return kw_fail(e, KW_EUSAGE, c->want.folder ? N_("%s: is a file, and a folder is to be written")
                                                    : N_("%s: is a folder, and a file is to be written"), path);
    return !c->want.folder || kw_is_file(index) ? KW_OK
        : kw_advise(e, kw_fail(e, KW_EUSAGE,
                               N_("%s: is no model folder (it has no model_index.json), and is not replaced"), path),
                    N_("choose another name"));
}

kw_status kw_conversion_write(kw_conversion *c, const char *path, bool replace, kw_conversion_tell *tell, void *user,
                              kw_err *e)
{
    uint64_t room, turn, made;
    writer w = { .c = c, .tell = tell, .user = user };
    char *name = kw_strdup(c->arena, path);
    size_t n = strlen(path);
    while (name && n > 1 && name[n - 1] == '/')
        name[--n] = 0;
    if (!name)
        return kw__no_memory(e, path);
    KW_TRY(check_target(c, name, replace, e));
    char *dir = kw_path_dir(c->arena, name);
    KW_TRY(dir ? kw_mkdirs(dir, e) : kw__no_memory(e, path));
    kw_status cleaned = kw_remove_stale(dir, NULL, NULL);  /* an earlier one that was killed; space for this one */
    (void)cleaned;
    KW_TRY(check_space(c, name, e));
    rooms(c, &room, &turn, &made);
    w.room = kw_block_new((size_t)room + 1);
    w.turn = kw_block_new((size_t)turn + 1);
    w.made = kw_block_new((size_t)made + 1);
    kw_status s = !w.room || !w.turn || !w.made ? kw__no_memory(e, path)
                : c->want.folder ? write_folder(&w, name, e) : write_weights(&w, &c->files[0], name, e);
    kw_block_free(w.room);
    kw_block_free(w.turn);
    kw_block_free(w.made);
    return s;
}
