/*
 * walk.c - which files are in a folder: pictures, captions, and what is neither. Links lead outside only when asked,
 * loops end, pipes and devices are never opened.
 */
#include "internal.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- kinds by extension ------------------------------------------------------------------------------- */

static bool is_one_of(const char *extension, const char *const *list)
{
    for (; *list; list++)
        if (!kw__compare_folded(extension, *list, SIZE_MAX))
            return true;
    return false;
}

static bool is_picture(const char *extension)
{
    static const char *const list[] = { ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif",
                                        ".tiff", NULL };
    return is_one_of(extension, list);
}

static bool is_foreign_picture(const char *extension)
{
    static const char *const list[] = { ".avif", ".heic", ".heif", ".jxl", ".jp2", ".psd", ".clip", ".kra", ".xcf",
                                        ".svg", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".exr", ".tga",
                                        ".ico", NULL };
    return is_one_of(extension, list);
}

/* Lower wins: the extension asked for, then kohya's habits. -1: no caption. */
static int caption_rank(const kw_scan *o, const char *extension)
{
    static const char *const list[] = { ".txt", ".caption", ".cap" };
    if (o->caption_extension && *o->caption_extension
        && !kw__compare_folded(extension + (*extension == '.'), o->caption_extension + (*o->caption_extension == '.'),
                               SIZE_MAX))
        return 0;
    for (size_t i = 0; i < KW_LEN(list); i++)
        if (!kw__compare_folded(extension, list[i], SIZE_MAX))
            return 1 + (int)i;
    return -1;
}

/* ---- files -------------------------------------------------------------------------------------------- */

typedef struct {                          /* where the walk is */
    const char *path, *name;              /* of the folder; name "" at the root */
    uint32_t dir, folder;
    int repeats, depth;
    const char *tokens;
} here;

static kw_status add(kw_walk *w, kw_founds *f, const here *h, const char *path, const char *name, int rank, kw_err *e)
{
    kw_arena *a = w->d->arena;
    KW_TRY(kw_grow(a, &f->list, &f->capacity, f->n, sizeof *f->list, e));
    kw_found *n = &f->list[f->n];
    *n = (kw_found){ .path = path, .name = name, .dir = h->dir, .folder = h->folder, .rank = rank };
    if (!(n->stem = kw__stem(a, name)))
        return NO_MEMORY(e);
    f->n++;
    return KW_OK;
}

/* Bytes of the name that make a picture a mask: "fox.mask.png", OneTrainer's "fox-masklabel.png". 0: it is none. */
static size_t mask_ending(const char *stem)
{
    static const char *const list[] = { ".mask", "-masklabel" };
    for (size_t i = 0; i < KW_LEN(list); i++)
        if (kw_ends_with(stem, list[i]))
            return strlen(list[i]);
    return 0;
}

static kw_status add_picture(kw_walk *w, const here *h, const char *path, const char *name, kw_err *e)
{
    char *stem = kw__stem(w->d->arena, name);
    if (!stem)
        return NO_MEMORY(e);
    size_t more = mask_ending(stem);
    if (!more)
        return add(w, &w->pictures, h, path, name, 0, e);
    if (!w->o->masks)
        return kw__remark(w->d, KW_REMARK_MASK, name, e, NULL);
    KW_TRY(add(w, &w->masks, h, path, name, 0, e));
    stem[strlen(stem) - more] = 0;
    w->masks.list[w->masks.n - 1].stem = stem;
    return KW_OK;
}

static kw_status file(kw_walk *w, const here *h, const char *path, const char *name, kw_err *e)
{
    const char *extension = kw__extension(name);
    int rank = caption_rank(w->o, extension);
    if (++w->n_files > KW_DATA_MAX_FILES)
        return kw_fail(e, KW_EDATA, N_("%s: more than %d files"), w->root, KW_DATA_MAX_FILES);
    if (!h->repeats)
        return kw__remark(w->d, KW_REMARK_ZERO_REPEATS, name, e, NULL);
    if (is_picture(extension))
        return add_picture(w, h, path, name, e);
    if (!strcmp(kw_path_name(name), "metadata.jsonl"))
        return add(w, &w->metadata, h, path, name, 0, e);
    if (rank >= 0)
        return add(w, &w->captions, h, path, name, rank, e);
    return kw__remark(w->d, is_foreign_picture(extension) ? KW_REMARK_FORMAT : KW_REMARK_OTHER, name, e, NULL);
}

/* ---- links -------------------------------------------------------------------------------------------- */

static bool is_inside(const char *root, const char *path)
{
    size_t n = strlen(root);
    return !strncmp(path, root, n) && (path[n] == '/' || !path[n] || kw_ends_with(root, "/"));
}

/* Is the link to be read? A link to a folder inside would give its pictures twice. */
static kw_status link_leads(kw_walk *w, const char *path, const char *name, bool *read, kw_err *e)
{
    char real[PATH_MAX];
    struct stat st;
    *read = false;
    if (kw_io_now->stat(path, &st) || !realpath(path, real))
        return kw__remark(w->d, KW_REMARK_LINK_BROKEN, name, e, "%s", kw_errno_text(errno));
    bool inside = is_inside(w->real_root, real);
    if (inside && S_ISDIR(st.st_mode))
        return kw__remark(w->d, KW_REMARK_LINK_TWICE, name, e, NULL);
    if (!inside && !w->o->follow)
        return kw__remark(w->d, KW_REMARK_LINK_OUTSIDE, name, e, "%s", real);
    *read = true;
    return KW_OK;
}

/* ---- folders ------------------------------------------------------------------------------------------ */

static kw_status folder(kw_walk *w, here h, kw_err *e);

static bool was_read(const kw_walk *w, const struct stat *st)
{
    for (size_t i = 0; i < w->n_places; i++)
        if (w->places[i].device == st->st_dev && w->places[i].inode == st->st_ino)
            return true;
    return false;
}

static kw_status enter(kw_walk *w, const here *above, const char *path, const char *name, const struct stat *st,
                       kw_err *e)
{
    if (above->depth >= KW_DATA_MAX_DEPTH)
        return kw__remark(w->d, KW_REMARK_TOO_DEEP, name, e, NULL);
    if (was_read(w, st))                  /* by a link that --follow follows, or mounted inside itself */
        return kw__remark(w->d, KW_REMARK_LINK_TWICE, name, e, NULL);
    here h = *above;
    h.path = path;
    h.name = name;
    h.depth++;
    return folder(w, h, e);
}

static kw_status entry(kw_walk *w, const here *h, const char *raw, kw_err *e)
{
    kw_arena *a = w->d->arena;
    struct stat st;
    char *path = kw_path_join(a, h->path, raw);
    char *name = kw__nfc(a, raw);
    if (name && *h->name)
        name = kw_path_join(a, h->name, name);
    if (!path || !name)
        return NO_MEMORY(e);
    if (raw[0] == '.')
        return kw__remark(w->d, KW_REMARK_HIDDEN, name, e, NULL);
    if (kw_io_now->lstat(path, &st))
        return kw__remark(w->d, KW_REMARK_LINK_BROKEN, name, e, "%s", kw_errno_text(errno));
    if (S_ISLNK(st.st_mode)) {
        bool read;
        KW_TRY(link_leads(w, path, name, &read, e));
        if (!read)
            return KW_OK;
        if (kw_io_now->stat(path, &st))
            return kw__remark(w->d, KW_REMARK_LINK_BROKEN, name, e, "%s", kw_errno_text(errno));
    }
    if (S_ISDIR(st.st_mode))
        return enter(w, h, path, name, &st, e);
    return S_ISREG(st.st_mode) ? file(w, h, path, name, e) : kw__remark(w->d, KW_REMARK_SPECIAL, name, e, NULL);
}

/* Repeats and words of "10_name" count for everything below. */
static kw_status read_name(kw_walk *w, here *h, kw_err *e)
{
    char real[PATH_MAX];
    const char *own = *h->name ? kw_path_name(h->name) : realpath(h->path, real) ? kw_path_name(real) : "", *words;
    long n;
    if (!kw__repeats(own, &n, &words))
        return KW_OK;
    if (n > KW_MAX_REPEATS)
        return kw__remark(w->d, KW_REMARK_YEAR, *h->name ? h->name : w->root, e, NULL);
    h->repeats = (int)n;
    return (h->tokens = kw__nfc(w->d->arena, words)) ? KW_OK : NO_MEMORY(e);
}

static kw_status add_place(kw_walk *w, here *h, kw_err *e)
{
    kw_dataset *d = w->d;
    struct stat st = { 0 };
    if (kw_io_now->stat(h->path, &st))
        return kw_fail(e, KW_EDATA, N_("%s: cannot be read: %s"), h->path, kw_errno_text(errno));
    KW_TRY(kw_grow(d->arena, &w->places, &w->places_capacity, w->n_places, sizeof *w->places, e));
    KW_TRY(kw_grow(d->arena, &d->folders, &d->folders_capacity, d->n_folders, sizeof *d->folders, e));
    h->dir = (uint32_t)w->n_places;
    h->folder = (uint32_t)d->n_folders;
    w->places[w->n_places++] = (kw_place){ h->name, h->repeats, h->tokens, st.st_dev, st.st_ino };
    d->folders[d->n_folders++] =
        (kw_folder){ .name = *h->name ? h->name : ".", .repeats = h->repeats, .tokens = h->tokens };
    return KW_OK;
}

/* What `kiwame train` writes: its samples and sheets are no training pictures. */
static bool is_run(char *const *names, size_t n)
{
    int signs = 0;
    for (size_t i = 0; i < n; i++)
        signs += !strcmp(names[i], "recipe.toml") || !strcmp(names[i], "events.jsonl");
    return signs == 2;
}

static kw_status folder(kw_walk *w, here h, kw_err *e)
{
    char **names;
    size_t n;
    KW_TRY(read_name(w, &h, e));
    KW_TRY(add_place(w, &h, e));
    KW_TRY(kw_dir_list(w->d->arena, h.path, &names, &n, e));
    if (*h.name && is_run(names, n))
        return kw__remark(w->d, KW_REMARK_RUN, h.name, e, NULL);
    for (size_t i = 0; i < n; i++)
        KW_TRY(entry(w, &h, names[i], e));
    return KW_OK;
}

kw_status kw__walk(kw_walk *w, const char *dir, kw_err *e)
{
    char real[PATH_MAX];
    if (!realpath(dir, real))
        return kw_fail(e, KW_EDATA, N_("%s: cannot be read: %s"), dir, kw_errno_text(errno));
    w->root = dir;
    w->real_root = kw_strdup(w->d->arena, real);
    return w->real_root ? folder(w, (here){ .path = dir, .name = "", .repeats = KW_MAX(1, w->o->repeats) }, e)
                        : NO_MEMORY(e);
}
