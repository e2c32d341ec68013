/*
 * fetch.c - one file, whole and verified, however often the connection breaks.
 *
 *   part on disk ── hash what is there ──► ask from its end ──┬─ 206 from there, same etag: append
 *        ▲                                                    ├─ 200, other etag, compressed: from the beginning
 *        └──── the connection broke: again, from where it is ─┴─ whole: size and hash as announced? synced, done
 *
 * Bytes that cannot be verified at the end (no hash is known) are gone on with only under the same strong etag.
 */
#include "net_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { PIECE = 1 << 20, RESTARTS = 3 };

typedef struct {
    kw_web *n;
    const kw__file *f;
    int fd;
    uint64_t have, size;                  /* bytes in part; of the whole, 0: unknown */
    kw_sha256 sha;
    EVP_MD_CTX *git;                      /* of a small file of the hub: sha1("blob <size>\0" content) */
    bool hashing;
    bool decode, again, fresh;            /* again: this answer is of no use; fresh: part is of one answer alone */
    int restarts;
    char etag[256];                       /* of what is in part; "": not known */
    char name[256];
} work;

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static void hash_end(work *w, char hex[65])
{
    char unused[65];
    if (w->hashing)
        kw_sha256_end(&w->sha, hex ? hex : unused);
    EVP_MD_CTX_free(w->git);
    w->git = NULL;
    w->hashing = false;
}

static bool hash_begin(work *w)
{
    char head[40];
    hash_end(w, NULL);
    kw_sha256_start(&w->sha);
    w->hashing = true;
    if (!w->f->git_sha1)
        return true;
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)w->f->size);
    w->git = EVP_MD_CTX_new();
    return w->git && EVP_DigestInit_ex(w->git, EVP_sha1(), NULL) == 1
        && EVP_DigestUpdate(w->git, head, (size_t)n + 1) == 1;
}

static void hash_add(work *w, const void *p, size_t n)
{
    kw_sha256_add(&w->sha, p, n);
    if (w->git)
        EVP_DigestUpdate(w->git, p, n);
}

static void git_hex(work *w, char hex[41])
{
    unsigned char d[EVP_MAX_MD_SIZE] = { 0 };
    EVP_DigestFinal_ex(w->git, d, NULL);
    for (int i = 0; i < 20; i++)
        snprintf(hex + 2 * i, 3, "%02x", d[i]);
}

static kw_status tell(work *w, kw_err *e)
{
    kw_net_event v = { .name = w->f->name, .done = w->have, .total = w->size ? w->size : w->f->size };
    return w->n->tell ? w->n->tell(w->n->user, &v, e) : KW_OK;
}

/* ---- the part on disk -------------------------------------------------------------------------------------------- */

static kw_status start_anew(work *w, kw_err *e)
{
    if (kw_io_now->truncate(w->fd, 0))
        return kw__sys(e, N_("write"), w->f->part);
    w->have = 0;
    w->fresh = true;
    *w->etag = 0;
    return hash_begin(w) ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* What an earlier attempt left is hashed, so that the end can be judged. */
static kw_status take_up(work *w, kw_err *e)
{
    char *piece = kw_block_new(PIECE);
    ssize_t n = 0;
    if (!piece || !hash_begin(w)) {
        kw_block_free(piece);
        return kw_fail(e, KW_ENOMEM, "out of memory");
    }
    kw_status s = KW_OK;
    while (!s && (n = kw_io_now->read(w->fd, piece, PIECE)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            s = kw__sys(e, N_("read"), w->f->part);
            break;
        }
        hash_add(w, piece, (size_t)n);
        w->have += (uint64_t)n;
    }
    kw_block_free(piece);
    return s;
}

/* The etag of an unfinished file whose hash is not known lies beside it: "etag size". */
static void recall(work *w)
{
    char *text;
    size_t n;
    kw_arena *a = w->f->etag_file ? kw_arena_new() : NULL;
    if (a && kw_is_file(w->f->etag_file) && !kw_file_read(a, w->f->etag_file, 255, &text, &n, NULL))
        snprintf(w->etag, sizeof w->etag, "%s", text);
    kw_arena_free(a);
}

static kw_status open_part(work *w, kw_err *e)
{
    w->fd = kw_io_now->open(w->f->part, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, 0644);
    if (w->fd < 0)
        return kw__sys(e, N_("open"), w->f->part);
    recall(w);
    KW_TRY(take_up(w, e));
    bool sure = w->f->sha256 || w->f->git_sha1 || *w->etag;
    if (w->have && (!sure || (w->size && w->have > w->size)))
        return start_anew(w, e);
    w->fresh = !w->have;
    if (w->have)
        KW_TRY(kw__net_note(w->n, w->f->name, N_("%s: going on from %llu MB"), w->f->name,
                        (unsigned long long)(w->have / 1000000)));
    return KW_OK;
}

/* ---- an answer --------------------------------------------------------------------------------------------------- */

static bool is_page(const char *type)
{
    return !strncasecmp(type, "text/html", 9) || !strncasecmp(type, "application/xhtml", 17);
}

static kw_status page_came(const work *w, const kw__reply *r, kw_err *e)
{
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: a web page came instead of the file"), w->f->name);
    if (w->f->site == KW__CIVITAI)
        return kw_advise(e, s, w->f->token ? N_("is the key in CIVITAI_TOKEN still valid? is the file free?")
                         : N_("Civitai wants you to sign in: make an API key at civitai.com/user/account and put it in "
                              "CIVITAI_TOKEN"));
    return kw_advise(e, s, N_("a login page, or a page about the file: open %.*s in a browser and copy the address "
                              "of the download itself"), (int)strcspn(r->url, "?"), r->url);
}

/* Nothing of this answer can be used: KW_EBUSY ends it, `again` says that it is asked anew from the beginning. */
static kw_status refuse_answer(work *w, kw_err *e)
{
    w->again = true;
    return kw_fail(e, KW_EBUSY, "asked anew");
}

static kw_status wrong_size(const work *w, int64_t got, kw_err *e)
{
    return kw_fail(e, KW_EDATA, N_("%s: the server offers %lld bytes, %llu were announced"), w->f->name, (long long)got,
                   (unsigned long long)w->f->size);
}

/* How large will it be? Is that what was said, allowed, and is there room? */
static kw_status learn_size(work *w, int64_t total, kw_err *e)
{
    char limit[32];
    if (total < 0)
        return KW_OK;
    if (w->f->size && !w->f->about && (uint64_t)total != w->f->size)
        return wrong_size(w, total, e);
    if ((uint64_t)total > w->n->most) {
        kw_size_text((double)w->n->most, limit);
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: %lld bytes, more than the %s allowed"), w->f->name,
                                    (long long)total, limit),
                         N_("allow more with --max-size"));
    }
    if (!w->size || w->f->about) {
        kw_arena *a = kw_arena_new();
        char *folder = a ? kw_path_dir(a, w->f->part) : NULL;
        kw_status s = folder ? kw__room(folder, (uint64_t)total - KW_MIN((uint64_t)total, w->have), e)
                             : kw_fail(e, KW_ENOMEM, "out of memory");
        kw_arena_free(a);
        KW_TRY(s);
        w->size = (uint64_t)total;
    }
    return KW_OK;
}

static kw_status keep_etag(work *w, const kw__reply *r, kw_err *e)
{
    snprintf(w->etag, sizeof w->etag, "%s", r->etag);
    if (!w->f->etag_file)
        return KW_OK;
    if (*w->etag)
        return kw_file_write_atomic(w->f->etag_file, w->etag, strlen(w->etag), e);
    kw_io_now->unlink(w->f->etag_file);
    return KW_OK;
}

static kw_status begin(void *user, const kw__reply *r, kw_err *e)
{
    work *w = user;
    if (is_page(r->type) && !w->f->page)
        return page_came(w, r, e);
    if (w->f->sha256 && strlen(r->linked_etag) == 64 && strcasecmp(r->linked_etag, w->f->sha256))
        return kw_fail(e, KW_EDATA, N_("%s: the server announces another file: hash %.16s..., not %.16s..."),
                       w->f->name, r->linked_etag, w->f->sha256);
    if (*r->encoding && strcasecmp(r->encoding, "identity") && !w->decode) {
        w->decode = true;                 /* asked for as it is, sent compressed all the same: from the beginning */
        return refuse_answer(w, e);
    }
    if (r->status == 206 && (r->from != (int64_t)w->have || (w->size && r->total >= 0 && (uint64_t)r->total != w->size)
                             || (*w->etag && *r->etag && strcmp(w->etag, r->etag))))
        return refuse_answer(w, e);       /* another place or another file */
    if (r->status == 200 && w->have) {
        KW_TRY(kw__net_note(w->n, w->f->name, N_("%s: the file begins anew"), w->f->name));
        KW_TRY(start_anew(w, e));
    }
    if (!w->have)
        KW_TRY(keep_etag(w, r, e));
    snprintf(w->name, sizeof w->name, "%s", r->name);
    return w->decode ? KW_OK : learn_size(w, r->status == 206 ? r->total : r->length, e);
}

/* The first bytes say what it is, whatever the server calls it. */
static kw_status look_at(work *w, const char *p, size_t n, kw_err *e)
{
    static const char *const pages[] = { "<!doctype html", "<html", "<?xml" };
    static const char pointer[] = "version https://git-lfs";
    for (size_t i = 0; i < KW_LEN(pages); i++)
        if (n >= strlen(pages[i]) && !strncasecmp(p, pages[i], strlen(pages[i])) && !w->f->page)
            return page_came(w, &(kw__reply){ .url = "" }, e);
    if (n >= sizeof pointer - 1 && !memcmp(p, pointer, sizeof pointer - 1) && (!w->f->size || w->f->size > 1000))
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: a Git-LFS pointer came instead of the file"), w->f->name),
                         N_("the mirror does not have the file itself: use the original hub"));
    return KW_OK;
}

static kw_status put(void *user, const void *p, size_t n, kw_err *e)
{
    work *w = user;
    uint64_t most = w->size && !(w->f->about && w->decode) ? w->size : w->n->most;
    const char *at = p;
    if (!w->have)
        KW_TRY(look_at(w, p, n, e));
    if (n > most - KW_MIN(most, w->have))
        return w->size ? kw_fail(e, KW_EDATA, N_("%s: more bytes come than the %llu announced"), w->f->name,
                                 (unsigned long long)w->size)
                       : kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: larger than allowed"), w->f->name),
                                   N_("allow more with --max-size"));
    hash_add(w, p, n);
    while (n) {
        ssize_t k = kw_io_now->write(w->fd, at, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return kw__sys(e, N_("write"), w->f->part);
        at += k;
        n -= (size_t)k;
        w->have += (uint64_t)k;
    }
    return tell(w, e);
}

static kw_status tick(void *user, kw_err *e) { return tell(user, e); }

/* ---- until it is whole ------------------------------------------------------------------------------------------- */

static kw_status ask(work *w, kw__reply *r, kw_err *e)
{
    const kw__file *f = w->f;
    kw__request q = { .url = f->url, .token = f->token, .named = f->named, .from = w->have, .decode = w->decode,
                      .if_range = w->have && *w->etag ? w->etag : NULL, .begin = begin, .put = put, .tick = tick,
                      .user = w };
    w->again = false;
    w->fresh = !w->have;
    kw_status s = kw__http(w->n, &q, r, e);
    if (!w->again || s != KW_EBUSY)
        return s;
    if (++w->restarts > RESTARTS)
        return kw_fail(e, KW_EDATA, N_("%s: the server gives another file at each attempt"), f->name);
    KW_TRY(kw__net_note(w->n, f->name, N_("%s: the file has changed on the server; from the beginning"), f->name));
    return start_anew(w, e);
}

static kw_status bring_all(work *w, kw__reply *r, kw_err *e)
{
    for (int attempt = 1; ; ) {
        if (w->f->size && !w->f->about && w->have == w->f->size)
            return KW_OK;
        uint64_t before = w->have;
        KW_TRY(ask(w, r, e));
        if (w->again)
            continue;
        bool good = r->end == KW__WHOLE && (r->status == 200 || r->status == 206);
        if (good && (!w->size || w->decode || w->have == w->size))
            return w->f->size && !w->f->about && w->have != w->f->size ? wrong_size(w, (int64_t)w->have, e) : KW_OK;
        if (r->end == KW__WHOLE && r->status == 416 && w->have) {       /* there is nothing from here on */
            if (++w->restarts > RESTARTS)
                return kw__explain(w->n, w->f->site, w->f->name, r, w->f->token != NULL, e);
            KW_TRY(start_anew(w, e));
            continue;
        }
        attempt = w->have > before ? 1 : attempt;                         /* it moves: patience begins anew */
        if (w->decode)
            KW_TRY(start_anew(w, e));     /* a compressed stream has no middle to go on from */
        if ((!good && !kw__passes(r)) || attempt > w->n->retries)
            return kw__explain(w->n, w->f->site, w->f->name, r, w->f->token != NULL, e);
        KW_TRY(kw__wait(w->n, w->f->name, attempt++, r, e));
    }
}

static kw_status judge(work *w, char hex[65], bool *same, kw_err *e)
{
    char git[41] = "";
    if (w->git)
        git_hex(w, git);
    bool ok = kw_sha256_end(&w->sha, hex);
    w->hashing = false;
    if (!ok)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *same = w->f->sha256 ? !strcasecmp(hex, w->f->sha256) : w->f->git_sha1 ? !strcmp(git, w->f->git_sha1) : true;
    if (!*same)
        return kw_fail(e, KW_EDATA, N_("%s: damaged or exchanged: its hash is %.16s..., not %.16s..."), w->f->name,
                       w->f->sha256 ? hex : git, w->f->sha256 ? w->f->sha256 : w->f->git_sha1);
    if (kw_io_now->fsync(w->fd))
        return kw__sys(e, N_("sync"), w->f->part);
    return KW_OK;
}

static kw_status run(work *w, kw__reply *r, char hex[65], kw_err *e)
{
    bool same = true;
    KW_TRY(open_part(w, e));
    KW_TRY(bring_all(w, r, e));
    bool mixed = !w->fresh;
    kw_status s = judge(w, hex, &same, e);
    if (!s || same)
        return s;
    if (mixed) {                          /* what lay there may be at fault: once more, all of it */
        KW_TRY(kw__net_note(w->n, w->f->name,
                            N_("%s: the hash is wrong; what lay there was damaged; from the beginning"),
                        w->f->name));
        KW_TRY(start_anew(w, e));
        KW_TRY(bring_all(w, r, e));
        s = judge(w, hex, &same, e);
    }
    if (s && !same) {
        kw_io_now->unlink(w->f->part);
        return kw_advise(e, s, N_("nothing of it was kept; try again, or take another mirror"));
    }
    return s;
}

kw_status kw__fetch(kw_web *n, const kw__file *f, char *hex, char *name, kw_err *e)
{
    kw_err unused;
    work w = { .n = n, .f = f, .fd = -1, .size = f->about ? 0 : f->size };
    kw_arena *a = kw_arena_new();
    kw__reply *r = a ? kw_alloc(a, sizeof *r) : NULL;
    kw_status s = r ? run(&w, r, hex, e ? e : &unused) : kw_fail(e, KW_ENOMEM, "out of memory");
    hash_end(&w, NULL);
    if (w.fd >= 0 && kw_io_now->close(w.fd) && !s && errno != EINTR)
        s = kw__sys(e, N_("close"), f->part);
    if (!s && name)
        snprintf(name, 256, "%s", w.name);
    kw_arena_free(a);
    return s;
}

kw_status kw__verify(kw_web *n, const char *path, const char *name, uint64_t size, const char *sha256,
                     const char *git_sha1,
                     bool *same, kw_err *e)
{
    kw__file f = { .name = name, .part = path, .size = size, .sha256 = sha256, .git_sha1 = git_sha1 };
    work w = { .n = n, .f = &f, .size = size };
    char hex[65], git[41] = "";
    *same = false;
    w.fd = kw_io_now->open(path, O_RDONLY, 0);
    if (w.fd < 0)
        return errno == ENOENT ? KW_OK : kw__sys(e, N_("open"), path);
    kw_status s = take_up(&w, e);
    kw_io_now->close(w.fd);
    if (!s && w.git)
        git_hex(&w, git);
    hash_end(&w, hex);
    if (!s)
        *same = (!size || w.have == size) && (sha256 ? !strcasecmp(hex, sha256) : git_sha1 && !strcmp(git, git_sha1));
    return s;
}
