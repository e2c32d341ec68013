/*
 * check.c - every picture decoded once before the first step: size, content hash, and which cannot be used. Threads
 * take the next picture each; results go to the picture's own place, so their order does not matter.
 */
#include "internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

kw_status kw__picture_load(kw_decoder *decoder, const char *path, const char *name, const uint8_t background[3],
                           char hash[65], kw_picture *p, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    char *data = NULL;
    size_t n = 0;
    if (!a)
        return NO_MEMORY(e);
    kw_status s = kw_file_read(a, path, KW_PICTURE_MAX_BYTES, &data, &n, e);
    if (!s && !kw_sha256_of(data, n, hash))
        s = NO_MEMORY(e);
    if (!s)
        s = decoder ? kw_decoder_decode(decoder, data, n, name, background, p, e)
                    : kw_picture_decode(data, n, name, background, p, e);
    kw_arena_free(a);
    return s;
}

/* ---- threads ------------------------------------------------------------------------------------------ */

typedef struct {
    kw_dataset *d;
    const kw_check *c;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    size_t next, done;
    int running;
    kw_status status;                     /* of what is no picture's fault: no memory, no decoder */
    kw_err err;
} work;

/* The reason without the name in front of it, which is shown beside it anyway. */
static const char *reason(const char *what, const char *name, const char *path)
{
    const char *heads[] = { name, path };
    for (size_t i = 0; i < KW_LEN(heads); i++)
        if (kw_starts_with(what, heads[i]) && kw_starts_with(what + strlen(heads[i]), ": "))
            return what + strlen(heads[i]) + 2;
    return what;
}

static void note_failure(work *w, kw_item *t, kw_status s, const kw_err *err)
{
    if (s == KW_EDATA || s == KW_ESTORAGE)
        t->bad = kw_strdup(w->d->arena, reason(err->what, t->name, t->path));
    if (!t->bad && !w->status) {
        w->status = s == KW_EDATA ? KW_ENOMEM : s;
        w->err = *err;
    }
}

/* A picture whose mask cannot be read is as bad as one that cannot be read. */
static kw_status check_mask(const work *w, kw_item *t, kw_err *e)
{
    static const uint8_t black[3];
    kw_picture p = { 0 };
    if (!t->mask)
        return KW_OK;
    kw_status s = kw__picture_load(w->c->decoder, t->mask, t->mask_name, black, t->mask_hash, &p, e);
    kw_picture_free(&p);
    return s;
}

static void check_one(work *w, kw_item *t)
{
    kw_picture p = { 0 };
    kw_err err = { 0 };
    const uint8_t *background = w->c->background ? w->c->background : kw_picture_white;
    kw_status s = t->bad ? KW_OK : kw__picture_load(w->c->decoder, t->path, t->name, background, t->hash, &p, &err);
    if (p.rgb) {
        t->w = p.w;
        t->h = p.h;
        t->info = p.info;
        kw_picture_free(&p);
    }
    if (!s && !t->bad)
        s = check_mask(w, t, &err);
    pthread_mutex_lock(&w->lock);
    if (s)
        note_failure(w, t, s, &err);
    w->done++;
    pthread_cond_signal(&w->moved);
    pthread_mutex_unlock(&w->lock);
}

static void *worker(void *arg)
{
    work *w = arg;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        size_t i = w->status ? w->d->n : w->next++;
        if (i >= w->d->n) {
            w->running--;
            pthread_cond_signal(&w->moved);
            pthread_mutex_unlock(&w->lock);
            return NULL;
        }
        pthread_mutex_unlock(&w->lock);
        check_one(w, &w->d->items[i]);
    }
}

/* Tells about progress while the threads work; false from there ends them after the pictures they are at. */
static void watch(work *w)
{
    size_t told = 0;
    pthread_mutex_lock(&w->lock);
    while (w->running) {
        pthread_cond_wait(&w->moved, &w->lock);
        size_t done = w->done;
        if (!w->c->progress || done == told || w->status)
            continue;
        told = done;
        pthread_mutex_unlock(&w->lock);
        bool go_on = w->c->progress(w->c->user, done, w->d->n);
        pthread_mutex_lock(&w->lock);
        if (!go_on && !w->status)
            w->status = kw_fail(&w->err, KW_ESTOP, N_("stopped while checking pictures"));
    }
    pthread_mutex_unlock(&w->lock);
}

enum { MOST_THREADS = 64 };

static kw_status check_all(work *w, kw_err *e)
{
    pthread_t thread[MOST_THREADS];
    int n = KW_MAX(1, KW_MIN(w->c->workers, MOST_THREADS)), started = 0;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->moved, NULL);
    w->running = n;
    for (; started < n && !pthread_create(&thread[started], NULL, worker, w); started++)
        ;
    pthread_mutex_lock(&w->lock);
    w->running -= n - started;
    pthread_mutex_unlock(&w->lock);
    if (started)
        watch(w);
    for (int i = 0; i < started; i++)
        pthread_join(thread[i], NULL);
    pthread_cond_destroy(&w->moved);
    pthread_mutex_destroy(&w->lock);
    if (!started)
        return kw_fail(e, KW_ENOMEM, N_("no thread could be started"));
    if (w->status && e)
        *e = w->err;
    return w->status;
}

/* ---- judging ------------------------------------------------------------------------------------------ */

static int by_hash(const void *x, const void *y)
{
    const kw_item *a = *(kw_item *const *)x, *b = *(kw_item *const *)y;
    int order = strcmp(a->hash, b->hash);
    return order ? order : a < b ? -1 : a > b;
}

/* twin: the first of the same content. A held-out picture (of another folder) that is trained on too is left out. */
static kw_status find_twins(kw_dataset *d, kw_err *e)
{
    kw_item **order = kw_alloc_array(d->arena, d->n + 1, sizeof *order);
    if (!order)
        return NO_MEMORY(e);
    for (size_t i = 0; i < d->n; i++)
        order[i] = &d->items[i];
    qsort(order, d->n, sizeof *order, by_hash);
    for (size_t i = 0; i < d->n; i++) {
        kw_item *t = order[i], *before = i ? order[i - 1] : NULL;
        bool same = before && !t->bad && !before->bad && !strcmp(t->hash, before->hash);
        t->twin = same ? before->twin : (uint32_t)(t - d->items);
    }
    for (size_t i = 0; i < d->n; i++) {
        kw_item *t = &d->items[i];
        const kw_item *first = &d->items[t->twin];
        if (first == t || t->bad)
            continue;
        bool leak = t->held_out && !first->held_out;
        KW_TRY(kw__remark(d, leak ? KW_REMARK_LEAK : KW_REMARK_DUPLICATE, t->name, e, "%s", first->name));
        if (leak)
            t->bad = kw_translate(kw_remark_text(KW_REMARK_LEAK));
    }
    return KW_OK;
}

/* was_bad: its caption was at fault, and that is told already. */
static kw_status tell_pictures(kw_dataset *d, const bool *was_bad, size_t *n_bad, kw_err *e)
{
    for (size_t i = 0; i < d->n; i++) {
        kw_item *t = &d->items[i];
        kw_status s = KW_OK;
        kw_str notes = { 0 };
        *n_bad += !!t->bad;
        if (was_bad[i])
            continue;
        if (t->bad)
            s = kw__remark(d, KW_REMARK_BAD_PICTURE, t->name, e, "%s", t->bad);
        else if (t->info.notes & ~(uint32_t)KW_NOTE_GREY) {
            kw_picture_notes(&t->info, &notes);
            s = kw__remark(d, KW_REMARK_PICTURE, t->name, e, "%s", notes.s && !notes.failed ? notes.s : "");
        }
        kw_str_free(&notes);
        KW_TRY(s);
    }
    return KW_OK;
}

static kw_status judge(const kw_dataset *d, size_t n_bad, double most, kw_err *e)
{
    kw_str s = { 0 };
    if (!n_bad || (n_bad < d->n && (double)n_bad <= most * (double)d->n))
        return KW_OK;
    size_t shown = 0;
    for (size_t i = 0; i < d->n && shown < 3; i++)
        if (d->items[i].bad)
            kw_str_printf(&s, "%s%s: %s", shown++ ? "; " : "", d->items[i].name, d->items[i].bad);
    kw_status status = kw_fail(e, KW_EDATA, N_("%zu of %zu pictures cannot be used: %s%s"), n_bad, d->n,
                               s.s && !s.failed ? s.s : "", n_bad > shown ? " …" : "");
    kw_str_free(&s);
    if (n_bad == d->n)
        return kw_advise(e, status, N_("none is left to train on"));
    return kw_advise(e, status, N_("repair or remove them: `kiwame data %s` lists all; up to %.0f %% may be bad"),
                     d->root, 100 * most);
}

kw_status kw_data_check(kw_dataset *d, const kw_check *c, kw_err *e)
{
    work w = { .d = d, .c = c };
    size_t n_bad = 0;
    bool *was_bad = kw_alloc_array(d->arena, d->n + 1, sizeof *was_bad);
    if (!was_bad)
        return NO_MEMORY(e);
    for (size_t i = 0; i < d->n; i++)
        was_bad[i] = d->items[i].bad;
    KW_TRY(check_all(&w, e));
    KW_TRY(tell_pictures(d, was_bad, &n_bad, e));
    KW_TRY(find_twins(d, e));
    return judge(d, n_bad, c->most_bad, e);
}

size_t kw_data_transparent(const kw_dataset *d)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        n += !d->items[i].bad && d->items[i].info.notes & KW_NOTE_ALPHA;
    return n;
}
