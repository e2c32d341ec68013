/* scan.c - a folder of pictures becomes a dataset; and what to say when there is no picture in it. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int by_name(const void *x, const void *y)
{
    return strcmp(((const kw_folder *)x)->name, ((const kw_folder *)y)->name);
}

/* Only folders with pictures, in order. */
static void tidy_folders(kw_dataset *d)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_folders; i++)
        if (d->folders[i].n)
            d->folders[n++] = d->folders[i];
    d->n_folders = n;
    if (n)
        qsort(d->folders, n, sizeof *d->folders, by_name);
}

/* ---- no picture --------------------------------------------------------------------------------------- */

static size_t count(const kw_dataset *d, kw_remark_code code, const char **first)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_remarks; i++)
        if (d->remarks[i].code == code && !n++)
            *first = d->remarks[i].name;
    return n;
}

/* What was left out and why it may be what was meant. */
static kw_status advise(const kw_dataset *d, kw_status s, kw_err *e)
{
    const char *first = "";
    if (count(d, KW_REMARK_FORMAT, &first))
        return kw_advise(e, s, N_("%s is of a format that is not supported: convert the pictures to PNG or JPEG"),
                         first);
    if (count(d, KW_REMARK_LINK_OUTSIDE, &first))
        return kw_advise(e, s, N_("%s leads out of the folder: --follow reads such links"), first);
    if (count(d, KW_REMARK_ZERO_REPEATS, &first))
        return kw_advise(e, s, N_("%s is in a folder whose name says 0 repeats: rename it"), first);
    if (count(d, KW_REMARK_MASK, &first))
        return kw_advise(e, s, N_("there are only masks here (%s): give the folder with the pictures"), first);
    return kw_advise(e, s,
                     N_("pictures are .png .jpg .jpeg .webp .bmp .gif .tif files; give the folder that holds them"));
}

/* Does some folder at or below hold pictures? Looks at few names only: this is for a hint. */
static bool holds_pictures(kw_arena *a, const char *path, int depth)
{
    char **names;
    size_t n;
    if (depth > 3 || kw_dir_list(a, path, &names, &n, NULL))
        return false;
    for (size_t i = 0; i < KW_MIN(n, 500); i++)
        if (names[i][0] != '.' && kw_picture_named(names[i]) != KW_PICTURE_UNKNOWN)
            return true;
    for (size_t i = 0; i < KW_MIN(n, 50); i++) {
        char *inner = names[i][0] == '.' ? NULL : kw_path_join(a, path, names[i]);
        struct stat st;
        if (inner && !kw_io_now->lstat(inner, &st) && S_ISDIR(st.st_mode) && holds_pictures(a, inner, depth + 1))
            return true;
    }
    return false;
}

/* A folder beside the one asked for: the nearest in spelling if it does not exist, else one with pictures. */
static const char *neighbour(kw_arena *a, const char *dir, bool exists)
{
    char **names, *parent = kw_path_dir(a, dir);
    const char *own = kw_path_name(dir);
    size_t n;
    kw_nearest near = { .word = own };
    if (!parent || !*own || kw_dir_list(a, parent, &names, &n, NULL))
        return NULL;
    for (size_t i = 0; i < n; i++) {
        char *path = kw_path_join(a, parent, names[i]);
        if (!path || names[i][0] == '.' || !strcmp(names[i], own) || !kw_is_dir(path) || !holds_pictures(a, path, 0))
            continue;
        if (exists)
            return path;
        kw_nearest_try(&near, names[i]);
    }
    return near.best ? kw_path_join(a, parent, near.best) : NULL;
}

static kw_status nothing_found(const kw_walk *w, const char *dir, kw_err *e)
{
    kw_str s = { 0 };
    for (size_t i = 0; i < w->n_places && i < 5; i++)
        kw_str_printf(&s, "%s%s%s%s", i ? ", " : "", dir, *w->places[i].name ? "/" : "", w->places[i].name);
    if (w->n_places > 5)
        kw_str_printf(&s, " … (%zu)", w->n_places);
    kw_status status = kw_fail(e, KW_EDATA, N_("no pictures found; searched: %s"), s.s && !s.failed ? s.s : dir);
    kw_str_free(&s);
    const char *other = neighbour(w->d->arena, dir, true);
    bool hint = false;
    for (size_t i = 0; i < w->d->n_remarks; i++)
        hint |= kw_remark_class_of(w->d->remarks[i].code) == KW_CLASS_UNUSED;
    return other && !hint ? kw_advise(e, status, N_("there are pictures in %s"), other) : advise(w->d, status, e);
}

static kw_status not_a_folder(kw_arena *a, const char *dir, kw_err *e)
{
    struct stat st;
    if (!kw_io_now->stat(dir, &st) && !S_ISDIR(st.st_mode))
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: is a file, not a folder"), dir),
                         N_("give the folder that it is in: %s"), kw_path_dir(a, dir));
    if (errno != ENOENT && errno != ENOTDIR)
        return kw_fail(e, KW_EDATA, N_("%s: cannot be read: %s"), dir, kw_errno_text(errno));
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: no such folder"), dir);
    const char *other = neighbour(a, dir, false);
    return other ? kw_advise(e, s, N_("did you mean %s?"), other) : s;
}

/* ---- scanning ----------------------------------------------------------------------------------------- */

static kw_status scan(kw_dataset *d, const char *dir, const kw_scan *o, kw_err *e)
{
    kw_walk w = { .d = d, .o = o };
    size_t first = d->n;
    size_t slashes = strlen(dir);
    while (slashes > 1 && dir[slashes - 1] == '/')
        slashes--;
    dir = kw_strndup(d->arena, dir, slashes);
    if (!dir)
        return NO_MEMORY(e);
    if (!kw_is_dir(dir))
        return not_a_folder(d->arena, dir, e);
    KW_TRY(kw__walk(&w, dir, e));
    KW_TRY(kw__attach(&w, first, e));
    if (d->n == first)
        return nothing_found(&w, dir, e);
    tidy_folders(d);
    return KW_OK;
}

kw_status kw_data_scan(kw_arena *a, const char *dir, const kw_scan *o, kw_dataset **out, kw_err *e)
{
    kw_dataset *d = kw_alloc(a, sizeof *d);
    *out = NULL;
    if (!d)
        return NO_MEMORY(e);
    *d = (kw_dataset){ .arena = a, .root = kw_strdup(a, dir) };
    d->trigger = o->trigger && *o->trigger ? kw_strdup(a, o->trigger) : NULL;
    KW_TRY(scan(d, dir, o, e));
    *out = d;
    return KW_OK;
}

kw_status kw_data_add_held_out(kw_dataset *d, const char *dir, const kw_scan *o, kw_err *e)
{
    size_t first = d->n, n = d->n_folders, capacity = d->folders_capacity;
    kw_folder *folders = d->folders;      /* the table of folders stays that of the training pictures */
    d->folders = NULL;
    d->n_folders = d->folders_capacity = 0;
    kw_status s = scan(d, dir, o, e);
    d->folders = folders;
    d->n_folders = n;
    d->folders_capacity = capacity;
    for (size_t i = first; i < d->n; i++)
        d->items[i].held_out = true;
    return s;
}
