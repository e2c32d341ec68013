/*
 * decoder.c - the program's side of the decoder children: which one is free, asking it, believing what it says.
 * Nothing that a child says is believed unchecked; pixels are copied with pread, so that a shrinking memory file
 * cannot hurt us.
 */
#include "internal.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_WORKERS 64

typedef struct { kw_child child; bool busy; } worker;

struct kw_decoder {
    kw_arena *arena;
    char **argv, **env;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    double timeout;
    long restarts;
    unsigned shields;
    int n;
    worker workers[MAX_WORKERS];
};

extern char **environ;

static char **copy_list(kw_arena *a, const char *const *list, const char *const *leave_out, const char *const *add)
{
    size_t n = 0, used = 0, more = 0;
    while (list && list[n])
        n++;
    while (add && add[more])
        more++;
    char **copy = kw_alloc_array(a, n + more + 1, sizeof *copy);
    for (size_t i = 0; copy && i < n; i++) {
        bool out = false;
        for (const char *const *l = leave_out; l && *l; l++)
            out |= kw_starts_with(list[i], *l);
        if (!out && !(copy[used++] = kw_strdup(a, list[i])))
            return NULL;
    }
    for (size_t i = 0; copy && i < more; i++)
        if (!(copy[used++] = kw_strdup(a, add[i])))
            return NULL;
    return copy;
}

static kw_status start(kw_decoder *d, worker *w, kw_err *e)
{
    unsigned shields;
    KW_TRY(kw_child_start(&w->child, d->argv, d->env, &shields, e));
    pthread_mutex_lock(&d->lock);
    d->shields = shields;
    pthread_mutex_unlock(&d->lock);
    return KW_OK;
}

kw_status kw_decoder_new(const char *const argv[], int workers, kw_decoder **out, kw_err *e)
{
    /* A child has one thread and none of libvips' plug-ins: it starts in milliseconds. */
    static const char *const leave_out[] = { "OMP_", "GOMP_", "KMP_", "VIPS", "IM_", NULL };
    static const char *const add[] = { "OMP_NUM_THREADS=1", "VIPSHOME=/nonexistent", NULL };
    *out = NULL;
    if (workers < 1 || workers > MAX_WORKERS || !argv || !argv[0])
        return kw_fail(e, KW_EUSAGE, "%d picture decoders: 1 to %d are possible", workers, MAX_WORKERS);
    kw_arena *a = kw_arena_new();
    kw_decoder *d = a ? kw_alloc(a, sizeof *d) : NULL;
    if (d) {
        d->argv = copy_list(a, argv, NULL, NULL);
        d->env = copy_list(a, (const char *const *)environ, leave_out, add);
    }
    if (!d || !d->argv || !d->env) {
        kw_arena_free(a);
        return kw_fail(e, KW_ENOMEM, "no memory for picture decoders");
    }
    d->arena = a;
    d->n = workers;
    d->timeout = 20;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->idle, NULL);
    kw_status s = start(d, &d->workers[0], e);  /* the others when they are needed */
    if (s)
        kw_decoder_free(d);
    else
        *out = d;
    return s;
}

void kw_decoder_free(kw_decoder *d)
{
    char how[64];
    if (!d)
        return;
    for (int i = 0; i < d->n; i++)
        if (d->workers[i].child.pid) {
            kill(d->workers[i].child.pid, SIGKILL);
            kw_child_bury(&d->workers[i].child, how, sizeof how);
        }
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->idle);
    kw_arena_free(d->arena);
}

/* ---- asking ----------------------------------------------------------------------------------------------- */

static worker *acquire(kw_decoder *d, double *timeout)
{
    worker *w = NULL;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        for (int i = 0; i < d->n; i++)          /* a running one rather than a new one */
            if (!d->workers[i].busy && (!w || d->workers[i].child.pid > 0) && !(w && w->child.pid > 0))
                w = &d->workers[i];
        if (w)
            break;
        pthread_cond_wait(&d->idle, &d->lock);
    }
    w->busy = true;
    *timeout = d->timeout;
    pthread_mutex_unlock(&d->lock);
    return w;
}

static void release(kw_decoder *d, worker *w, bool died)
{
    pthread_mutex_lock(&d->lock);
    w->busy = false;
    d->restarts += died;
    pthread_cond_signal(&d->idle);
    pthread_mutex_unlock(&d->lock);
}

static bool believable(const kw_worker_reply *r)
{
    return r->magic == KW_WORKER_MAGIC && r->status <= KW_ESTOP && (unsigned)r->info.format < KW_PICTURE_N_FORMATS
        && !r->what[sizeof r->what - 1] && !r->advice[sizeof r->advice - 1]
        && !r->info.profile[sizeof r->info.profile - 1] && r->info.notes < 1u << KW_N_NOTES
        && r->info.orientation >= 0 && r->info.orientation <= 8;
}

static kw_status take(const kw_worker_reply *r, int memory, kw_picture *p, kw_err *e)
{
    if (r->status) {
        kw_status s = kw_fail(e, (kw_status)r->status, "%s", r->what);
        return r->advice[0] ? kw_advise(e, s, "%s", r->advice) : s;
    }
    KW_TRY(kw_picture_new(r->w, r->h, p, e));
    p->info = r->info;
    kw_status s = kw_read_fd(memory, p->rgb, (size_t)r->w * (size_t)r->h * 3, e);
    if (s)
        kw_picture_free(p);
    return s;
}

/* One picture on one worker that runs. *died: it is gone. */
static kw_status exchange(kw_child *c, double timeout, kw_picture *p, bool *died, kw_err *e)
{
    kw_worker_reply reply;
    char how[64];
    int none;
    if (!kw_child_wait(c, timeout)) {
        kill(c->pid, SIGKILL);
        kw_child_bury(c, how, sizeof how);
        *died = true;
        return kw_fail(e, KW_EDATA, "not decoded within %.3g seconds", timeout);
    }
    long got = kw_packet_receive(c->sock, &reply, sizeof reply, &none);
    if (none >= 0)
        close(none);
    if (got == (long)sizeof reply && believable(&reply))
        return take(&reply, c->memory, p, e);
    kw_child_bury(c, how, sizeof how);
    *died = true;
    return kw_fail(e, KW_EDATA, "the decoder died of it (%s)", how);
}

/* A worker that died while idle is no picture's fault: it is replaced before the request is given up. */
static kw_status ask(kw_decoder *d, int file, size_t n, const uint8_t background[3], kw_picture *p, kw_err *e)
{
    kw_worker_request request;
    double timeout;
    bool died = false, sent = false;
    char how[64];
    kw_status s = KW_OK;
    memset(&request, 0, sizeof request);
    request.magic = KW_WORKER_MAGIC;
    request.size = n;
    memcpy(request.background, background, 3);
    worker *w = acquire(d, &timeout);
    for (int attempt = 0; attempt < 2 && !sent && !s; attempt++) {
        if (!w->child.pid)
            s = start(d, w, e);
        if (!s && !(sent = kw_packet_send(w->child.sock, &request, sizeof request, file))) {
            kw_child_bury(&w->child, how, sizeof how);
            died = true;
        }
    }
    if (!s)
        s = sent ? exchange(&w->child, timeout, p, &died, e)
                 : kw_fail(e, KW_EDEVICE, "the picture decoder dies again and again (%s)", how);
    release(d, w, died);
    return s;
}

static kw_status finish(kw_status s, const char *name, const kw_err *why, kw_picture *p, kw_err *e)
{
    if (s)
        return kw_name_error(s, name, why, e);
    kw_picture_format claimed = kw_picture_named(name);
    if (claimed && claimed != p->info.format)
        p->info.notes |= KW_NOTE_NAME;
    return KW_OK;
}

kw_status kw_decoder_read(kw_decoder *d, const char *path, const uint8_t background[3], kw_picture *p, kw_err *e)
{
    int file;
    size_t n;
    kw_err why = { 0 };
    *p = (kw_picture){ 0 };
    KW_TRY(kw_open_picture(path, &file, &n, e));
    kw_status s = ask(d, file, n, background, p, &why);
    close(file);
    return finish(s, path, &why, p, e);
}

kw_status kw_decoder_decode(kw_decoder *d, const void *data, size_t n, const char *name, const uint8_t background[3],
                            kw_picture *p, kw_err *e)
{
    kw_err why = { 0 };
    *p = (kw_picture){ 0 };
    if (n > KW_PICTURE_MAX_BYTES)
        return kw_fail(e, KW_EDATA, "%s: %zu MiB are more than the limit of %u", name, n >> 20,
                       KW_PICTURE_MAX_BYTES >> 20);
    int file = memfd_create("kiwame file", MFD_CLOEXEC);
    size_t done = 0;
    while (file >= 0 && done < n) {
        ssize_t wrote = pwrite(file, (const char *)data + done, n - done, (off_t)done);
        if (wrote <= 0)
            break;
        done += (size_t)wrote;
    }
    kw_status s = file >= 0 && done == n ? ask(d, file, n, background, p, &why)
                                         : kw_fail(&why, KW_ENOMEM, "no shared memory for %zu bytes", n);
    if (file >= 0)
        close(file);
    return finish(s, name, &why, p, e);
}

/* ---- what to know about it ---------------------------------------------------------------------------------- */

void kw_decoder_timeout(kw_decoder *d, double seconds)
{
    pthread_mutex_lock(&d->lock);
    d->timeout = seconds;
    pthread_mutex_unlock(&d->lock);
}

long kw_decoder_restarts(kw_decoder *d)
{
    pthread_mutex_lock(&d->lock);
    long n = d->restarts;
    pthread_mutex_unlock(&d->lock);
    return n;
}

unsigned kw_decoder_shields(kw_decoder *d)
{
    pthread_mutex_lock(&d->lock);
    unsigned on = d->shields;
    pthread_mutex_unlock(&d->lock);
    return on;
}
