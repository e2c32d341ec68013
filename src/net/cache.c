/*
 * cache.c - the cache that huggingface_hub, diffusers and transformers share:
 *
 *   HUB/models--org--name/blobs/<etag>                          the bytes, once; <etag>.incomplete while they come
 *                         snapshots/<commit>/unet/x  -> ../../../blobs/<etag>
 *                         refs/main                             the commit it stands for, written last
 *                         .no_exist/<commit>/<file>             was asked for and is not there
 *   HUB/.locks/models--org--name/<etag>.lock                    flock, while one process downloads
 */
#include "net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* models--org--name */
static char *folder_of(const kw_web *n, kw_arena *a, const char *repo, const char *above)
{
    char *name = kw_alloc(a, 2 * strlen(repo) + 16), *to;
    if (!name)
        return NULL;
    to = name + sprintf(name, "models--");
    for (; *repo; repo++)
        to += sprintf(to, *repo == '/' ? "--" : "%c", *repo);
    return kw_sprintf(a, "%s%s/%s", n->hub_cache, above, name);
}

static kw_status no_memory(kw_err *e) { return kw_fail(e, KW_ENOMEM, "out of memory"); }

/* ---- what is there ----------------------------------------------------------------------------------------------- */

kw_status kw_hub_look(kw_web *n, kw_arena *a, kw_hub_repo *r, kw_err *e)
{
    char *root = folder_of(n, a, r->name.repo, "");
    if (!root)
        return no_memory(e);
    for (size_t i = 0; i < r->n; i++) {
        kw_hub_file *f = &r->file[i];
        struct stat st;
        char *blob = kw_sprintf(a, "%s/blobs/%s", root, f->etag);
        if (!blob)
            return no_memory(e);
        if (!f->wanted || kw_io_now->stat(blob, &st) || (uint64_t)st.st_size != f->size)
            continue;
        KW_TRY(kw__verify(n, blob, f->path, f->size, f->large ? f->etag : NULL, f->large ? NULL : f->etag, &f->there,
                          e));
        if (!f->there)
            KW_TRY(kw__net_note(n, f->path, N_("%s: what the cache has is damaged; it is downloaded again"), f->path));
    }
    return KW_OK;
}

/* ---- links ------------------------------------------------------------------------------------------------------- */

/* A link that appears whole, in place of whatever stood there. File systems without links get a second name. */
static kw_status make_link(kw_arena *a, const char *target, const char *blob, const char *path, kw_err *e)
{
    char now[4096];
    ssize_t n = readlink(path, now, sizeof now - 1);
    char *beside = kw_sprintf(a, "%s.tmp-%ld", path, (long)getpid());
    if (!beside)
        return no_memory(e);
    if (n > 0 && (size_t)n == strlen(target) && !memcmp(now, target, (size_t)n))
        return KW_OK;
    kw_io_now->unlink(beside);
    if (kw_io_now->symlink(target, beside) && kw_io_now->link(blob, beside))
        return kw__sys(e, N_("make a link at"), path);
    if (!kw_io_now->rename(beside, path))
        return KW_OK;
    kw_status s = kw__sys(e, N_("rename to"), path);
    kw_io_now->unlink(beside);
    return s;
}

static kw_status show_in_snapshot(kw_arena *a, const char *root, const kw_hub_repo *r, const kw_hub_file *f, kw_err *e)
{
    kw_str target = { 0 };
    char *path = kw_sprintf(a, "%s/snapshots/%s/%s", root, r->commit, f->path);
    char *dir = path ? kw_path_dir(a, path) : NULL, *blob = kw_sprintf(a, "%s/blobs/%s", root, f->etag);
    kw_str_add(&target, "../../");
    for (const char *p = f->path; *p; p++)
        if (*p == '/')
            kw_str_add(&target, "../");
    kw_str_printf(&target, "blobs/%s", f->etag);
    kw_status s = dir && blob && !target.failed ? kw_mkdirs(dir, e) : no_memory(e);
    if (!s)
        s = make_link(a, target.s, blob, path, e);
    kw_str_free(&target);
    return s;
}

static kw_status write_ref(kw_arena *a, const char *root, const kw_hub_repo *r, kw_err *e)
{
    char *path = kw_sprintf(a, "%s/refs/%s", root, r->name.revision), *dir = path ? kw_path_dir(a, path) : NULL;
    if (!dir)
        return no_memory(e);
    if (!strcmp(r->name.revision, r->commit))
        return KW_OK;
    KW_TRY(kw_mkdirs(dir, e));
    return kw_file_write_atomic(path, r->commit, strlen(r->commit), e);
}

/* ---- bringing ---------------------------------------------------------------------------------------------------- */

static kw_status bring(kw_web *n, kw_hub_file *f, const kw__file *g, const char *blob, bool waited, kw_err *e)
{
    char hex[65];
    if (waited)                           /* who had the lock has brought it */
        KW_TRY(kw__verify(n, blob, f->path, f->size, g->sha256, g->git_sha1, &f->there, e));
    if (f->there)
        return KW_OK;
    KW_TRY(kw__fetch(n, g, hex, NULL, e));
    if (kw_io_now->rename(g->part, blob))
        return kw__sys(e, N_("rename to"), blob);
    f->there = true;
    return KW_OK;
}

static kw_status bring_file(kw_web *n, kw_arena *a, const kw_hub_repo *r, const char *root, kw_hub_file *f, kw_err *e)
{
    kw__held held;
    char *locks = folder_of(n, a, r->name.repo, "/.locks");
    char *lock = locks ? kw_sprintf(a, "%s/%s.lock", locks, f->etag) : NULL;
    char *blob = kw_sprintf(a, "%s/blobs/%s", root, f->etag), *encoded = kw_url_encode(a, f->path, "/");
    kw__file g = { .name = f->path, .site = KW__HUB, .token = kw__bearer(n, KW__HUB), .named = n->named_hub,
                   .size = f->size, .sha256 = f->large ? f->etag : NULL, .git_sha1 = f->large ? NULL : f->etag,
                   .page = kw_ends_with(f->path, ".html") || kw_ends_with(f->path, ".md") };
    g.part = blob ? kw_sprintf(a, "%s.incomplete", blob) : NULL;
    g.url = encoded ? kw_sprintf(a, "%s/%s/resolve/%s/%s", n->hub, r->name.repo, r->commit, encoded) : NULL;
    if (!lock || !g.part || !g.url)
        return no_memory(e);
    KW_TRY(kw_mkdirs(locks, e));
    KW_TRY(kw__lock(n, lock, f->path, g.part, f->size, &held, e));
    kw_status s = bring(n, f, &g, blob, held.waited, e);
    kw_io_now->close(held.fd);
    return s;
}

/* What is left to bring, with what unfinished files already have. */
static kw_status check_room(kw_arena *a, const kw_hub_repo *r, const char *root, const char *blobs, kw_err *e)
{
    uint64_t need = kw_hub_bytes(r, true);
    for (size_t i = 0; i < r->n; i++) {
        struct stat st;
        char *part = kw_sprintf(a, "%s/blobs/%s.incomplete", root, r->file[i].etag);
        if (!part)
            return no_memory(e);
        if (r->file[i].wanted && !r->file[i].there && !kw_io_now->stat(part, &st))
            need -= KW_MIN(need, (uint64_t)st.st_size);
    }
    return kw__room(blobs, need, e);
}

static kw_status check_limit(const kw_web *n, const kw_hub_repo *r, kw_err *e)
{
    char size[32], limit[32];
    for (size_t i = 0; i < r->n; i++) {
        if (!r->file[i].wanted || r->file[i].there || r->file[i].size <= n->most)
            continue;
        kw_size_text((double)r->file[i].size, size);
        kw_size_text((double)n->most, limit);
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: %s, more than the %s allowed"), r->file[i].path, size, limit),
                         N_("allow more with --max-size"));
    }
    return KW_OK;
}

kw_status kw_hub_pull(kw_web *n, kw_arena *a, kw_hub_repo *r, char **path, kw_err *e)
{
    char *root = folder_of(n, a, r->name.repo, ""), *blobs = root ? kw_sprintf(a, "%s/blobs", root) : NULL;
    char *snapshot = root ? kw_sprintf(a, "%s/snapshots/%s", root, r->commit) : NULL;
    if (!blobs || !snapshot)
        return no_memory(e);
    KW_TRY(check_limit(n, r, e));
    KW_TRY(kw_mkdirs(blobs, e));
    KW_TRY(kw_mkdirs(snapshot, e));
    KW_TRY(check_room(a, r, root, blobs, e));
    for (size_t i = 0; i < r->n; i++) {
        if (!r->file[i].wanted)
            continue;
        if (!r->file[i].there)
            KW_TRY(bring_file(n, a, r, root, &r->file[i], e));
        KW_TRY(show_in_snapshot(a, root, r, &r->file[i], e));
    }
    KW_TRY(kw__sync_folder(blobs, e));
    KW_TRY(write_ref(a, root, r, e));
    *path = r->main ? kw_sprintf(a, "%s/%s", snapshot, r->main) : snapshot;
    return *path ? KW_OK : no_memory(e);
}

kw_status kw_hub_note_absent(const kw_web *n, kw_arena *a, const kw_hub_repo *r, kw_err *e)
{
    char *root = folder_of(n, a, r->name.repo, "");
    char *path = root ? kw_sprintf(a, "%s/.no_exist/%s/%s", root, r->commit, r->name.file) : NULL;
    char *dir = path ? kw_path_dir(a, path) : NULL;
    if (!dir)
        return no_memory(e);
    KW_TRY(kw_mkdirs(dir, e));
    return kw_is_file(path) ? KW_OK : kw_file_write_atomic(path, "", 0, e);
}

/* ---- finding without the network --------------------------------------------------------------------------------- */

static kw_status absent(const kw_hub_name *name, kw_err *e)
{
    return name->file ? kw_fail(e, KW_EDATA, N_("hf:%s: %s is not in the cache"), name->repo, name->file)
                      : kw_fail(e, KW_EDATA, N_("hf:%s: is not in the cache"), name->repo);
}

/* A folder of diffusers or a part is given as a folder, one model file as that file. */
static kw_status main_of(kw_arena *a, const char *snapshot, char **path, kw_err *e)
{
    static const char *const tails[] = { ".safetensors", ".ckpt", ".pt", ".pth", ".bin" };
    char **names, *index = kw_sprintf(a, "%s/model_index.json", snapshot);
    char *config = kw_sprintf(a, "%s/config.json", snapshot);
    const char *only = NULL;
    size_t n, found = 0;
    if (!index || !config)
        return no_memory(e);
    *path = kw_strdup(a, snapshot);
    if (kw_is_file(index) || kw_is_file(config))
        return *path ? KW_OK : no_memory(e);
    KW_TRY(kw_dir_list(a, snapshot, &names, &n, e));
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < KW_LEN(tails); k++)
            if (kw_ends_with(names[i], tails[k])) {
                only = names[i];
                found++;
            }
    if (found == 1)
        *path = kw_path_join(a, snapshot, only);
    return *path ? KW_OK : no_memory(e);
}

kw_status kw_hub_find(const kw_web *n, kw_arena *a, const kw_hub_name *name, char **path, kw_err *e)
{
    char *root = folder_of(n, a, name->repo, "");
    char *ref = root ? kw_sprintf(a, "%s/refs/%s", root, name->revision) : NULL;
    const char *commit = name->revision;
    char *text;
    size_t length;
    if (!ref)
        return no_memory(e);
    if (!kw__hex(commit, 40)) {
        if (!kw_is_file(ref) || kw_file_read(a, ref, 64, &text, &length, NULL))
            return absent(name, e);
        text[strcspn(text, " \r\n")] = 0;
        commit = text;
    }
    char *snapshot = kw__hex(commit, 40) ? kw_sprintf(a, "%s/snapshots/%s", root, commit) : NULL;
    if (!snapshot || !kw_is_dir(snapshot))
        return absent(name, e);
    if (!name->file)
        return main_of(a, snapshot, path, e);
    *path = kw_path_join(a, snapshot, name->file);
    return *path && kw_is_file(*path) ? KW_OK : absent(name, e);
}

/* ---- a copy elsewhere -------------------------------------------------------------------------------------------- */

static kw_status copy_file(kw_arena *a, const char *from, const char *to, kw_err *e)
{
    const void *data;
    size_t n;
    kw_writer *w;
    KW_TRY(kw_file_map(a, from, &data, &n, e));
    KW_TRY(kw_writer_open(a, to, n, &w, e));
    for (size_t at = 0; at < n; at += 8 << 20)
        KW_TRY(kw_writer_put(w, (const char *)data + at, KW_MIN(n - at, (size_t)8 << 20), e));
    return kw_writer_commit(w, NULL, e);
}

static kw_status place_one(kw_arena *a, const char *blob, const char *to, kw_err *e)
{
    struct stat x, y;
    char *dir = kw_path_dir(a, to);
    if (!dir)
        return no_memory(e);
    KW_TRY(kw_mkdirs(dir, e));
    if (!kw_io_now->lstat(to, &y)) {
        if (!kw_io_now->stat(blob, &x) && x.st_dev == y.st_dev && x.st_ino == y.st_ino)
            return KW_OK;
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: is there already"), to),
                         N_("move it away, or name another folder with --to"));
    }
    return kw_io_now->link(blob, to) ? copy_file(a, blob, to, e) : KW_OK;
}

kw_status kw_hub_place(kw_arena *a, const kw_hub_repo *r, const char *snapshot, const char *to, char **path, kw_err *e)
{
    const char *at = r->main ? kw_path_dir(a, snapshot) : snapshot;
    char whole[PATH_MAX];
    for (const char *p = r->main; at && p && (p = strchr(p, '/')); p++)     /* the snapshot's folder, above a/b/file */
        at = kw_path_dir(a, at);
    *path = r->main ? kw_path_join(a, to, kw_path_name(r->main)) : kw_strdup(a, to);
    if (!at || !*path)
        return no_memory(e);
    for (size_t i = 0; i < r->n; i++) {
        if (!r->file[i].wanted)
            continue;
        char *from = kw_path_join(a, at, r->file[i].path);
        char *there = r->main ? *path : kw_path_join(a, to, r->file[i].path);
        if (!from || !there)
            return no_memory(e);
        if (!realpath(from, whole))       /* the blob, not the link to it */
            return kw__sys(e, N_("open"), from);
        KW_TRY(place_one(a, whole, there, e));
    }
    return KW_OK;
}
