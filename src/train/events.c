/*
 * events.c - a run's log: the two files it goes to, and what is cut off when a run is resumed.
 *
 *   add ── in memory ──┬── line ──► pending ──► events.jsonl
 *                      └── records ► pending ──► events.out.tfevents...
 *
 * Refused bytes stay pending; the file is cut back to its last whole event, and all is tried again with the next one.
 */
#include "escape.h"
#include "events_line.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_NAME "events.jsonl"
#define BOARD_HEAD "events.out.tfevents."
enum { MOST_PENDING = 16 << 20, MOST_PICTURE = 64 << 20 };

typedef struct {                          /* a file that only grows */
    const char *path;
    int fd;                               /* -1: closed */
    off_t whole;                          /* bytes known to be on it */
    bool torn;                            /* more than these may be */
    kw_str pending;
    int error;                            /* the errno of the last refusal */
} tail;

struct kw_events {
    kw_arena *arena;
    const char *dir;
    kw_event *events;
    size_t n, capacity;
    int64_t session, window;
    tail log, board;
    kw_events_trouble trouble;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)(t.tv_nsec / 1000) * 1e-6;
}

static kw_status no_memory(kw_err *e, const char *path) { return kw_fail(e, KW_ENOMEM, N_("%s: out of memory"), path); }

/* ---- files that grow --------------------------------------------------------------------------------------------- */

static void note_trouble(kw_events *l, const tail *t, const char *reason)
{
    if (!l->trouble.failures++)
        snprintf(l->trouble.first, sizeof l->trouble.first, "%.250s: %.250s", t->path, reason);
}

/* Reopened after a trouble: the folder may have come back (a disk mounted again). */
static bool tail_open(tail *t)
{
    if (t->fd < 0)
        t->fd = kw_io_now->open(t->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (t->fd >= 0 && t->torn)
        t->torn = kw_io_now->truncate(t->fd, t->whole) != 0;
    return t->fd >= 0 && !t->torn;
}

static bool tail_write(tail *t)
{
    size_t done = 0;
    if (!tail_open(t))
        return false;
    while (done < t->pending.n) {
        ssize_t k = kw_io_now->write(t->fd, t->pending.s + done, t->pending.n - done);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            errno = k ? errno : EIO;
            t->torn = true;
            return false;
        }
        done += (size_t)k;
    }
    t->whole += (off_t)done;
    t->pending.n = 0;
    return true;
}

/* What a full disk holds back is kept within bounds: then the newest are lost, and counted. */
static void tail_flush(kw_events *l, tail *t)
{
    if (!t->path || !t->pending.n || tail_write(t))
        return;
    t->error = errno;
    note_trouble(l, t, kw_errno_text(t->error));
    if (t->fd >= 0)
        kw_io_now->close(t->fd);
    t->fd = -1;
}

static void tail_take(kw_events *l, tail *t, const kw_str *bytes)
{
    size_t before = t->pending.n;
    if (!t->path)
        return;
    if (!bytes->failed && before + bytes->n <= MOST_PENDING + (before ? 0 : bytes->n))
        kw_str_add_n(&t->pending, bytes->s, bytes->n);
    if (t->pending.n != before + bytes->n || t->pending.failed) {
        t->pending.n = before;                                     /* never half an event */
        t->pending.failed = false;
        l->trouble.lost++;
    }
    tail_flush(l, t);
}

static void tail_close(tail *t)
{
    if (t->fd >= 0)
        kw_io_now->close(t->fd);
    t->fd = -1;
    kw_str_free(&t->pending);
}

static void close_log(void *user)
{
    kw_events *l = user;
    tail_flush(l, &l->log);
    tail_flush(l, &l->board);
    tail_close(&l->log);
    tail_close(&l->board);
}

/* ---- in memory --------------------------------------------------------------------------------------------------- */

static kw_status keep(kw_events *l, const kw_event *v, kw_err *e)
{
    KW_TRY(kw_grow(l->arena, &l->events, &l->capacity, l->n, sizeof *l->events, e));
    l->events[l->n++] = *v;
    return KW_OK;
}

/* Always summed from the newest back, so that a resumed run gets the same bits. */
static double average(const kw_events *l, double newest)
{
    double sum = isfinite(newest) ? newest : 0;
    int64_t n = isfinite(newest), seen = !isnan(newest);
    for (size_t i = l->n; i-- > 0 && seen < l->window;)
        if (l->events[i].kind == KW_EVENT_STEP) {
            seen++;
            if (isfinite(l->events[i].loss)) {
                sum += l->events[i].loss;
                n++;
            }
        }
    return n ? sum / (double)n : NAN;
}

double kw_events_average(const kw_events *l) { return average(l, NAN); }

const kw_event *kw_events_list(const kw_events *l, size_t *n)
{
    *n = l->n;
    return l->events;
}

const kw_events_trouble *kw_events_trouble_of(const kw_events *l) { return &l->trouble; }

/* ---- to TensorBoard ---------------------------------------------------------------------------------------------- */

/* The sample's file lies there already: TensorBoard gets its very bytes. */
static void to_board(kw_events *l, const kw_event *v)
{
    kw_str records = { 0 };
    kw_arena *a = v->kind == KW_EVENT_SAMPLE && kw__is_below(v->file) ? kw_arena_new() : NULL;
    char *path = a ? kw_path_join(a, l->dir, v->file) : NULL, *png = NULL;
    size_t n = 0;
    if (path && kw_file_read(a, path, MOST_PICTURE, &png, &n, NULL))
        png = NULL;                                                /* whoever could not save it has said so */
    kw_tensorboard_event(&records, v, png, png ? n : 0);
    if (records.n || records.failed)
        tail_take(l, &l->board, &records);
    kw_str_free(&records);
    kw_arena_free(a);
}

/* events.out.tfevents.<seconds>.<host>.<pid>.<n>: the host is ours, so that a run shared tells nothing. */
static void start_board(kw_events *l)
{
    kw_str first = { 0 };
    double time = now();
    char *name = kw_sprintf(l->arena, BOARD_HEAD "%010lld.kiwame.%ld.%lld", (long long)time, (long)getpid(),
                            (long long)l->session);
    l->board.path = name ? kw_path_join(l->arena, l->dir, name) : NULL;
    l->board.torn = true;                                          /* should the name exist, it is emptied */
    kw_tensorboard_version(&first, l->n ? l->events[0].time : time);
    tail_take(l, &l->board, &first);
    kw_str_free(&first);
    for (size_t i = 0; i < l->n; i++)
        to_board(l, &l->events[i]);
}

static void remove_boards(kw_arena *a, const char *dir)
{
    char **names, *path;
    size_t n;
    if (kw_dir_list(a, dir, &names, &n, NULL))
        return;
    for (size_t i = 0; i < n; i++)
        if (kw_starts_with(names[i], BOARD_HEAD) && (path = kw_path_join(a, dir, names[i])))
            kw_io_now->unlink(path);
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

typedef kw_status take(void *user, const char *line, size_t n, kw__line kind, const kw_event *v, kw_err *e);

/* Gives every line of the log, the last without an end as broken. Texts go to the arena. */
static kw_status lines(kw_arena *a, const char *path, const char *s, const char *end, take *give, void *user, kw_err *e)
{
    while (s < end) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        size_t length = (size_t)((stop ? stop : end) - s);
        kw_event v = { 0 };
        kw__line kind = stop ? kw__event_parse(a, s, length, &v) : KW__LINE_BROKEN;
        if (kind == KW__LINE_NO_MEMORY)
            return no_memory(e, path);
        KW_TRY(give(user, s, length + (stop != NULL), kind, &v, e));
        s += length + (stop != NULL);
    }
    return KW_OK;
}

static kw_status each_line(kw_arena *a, const char *path, take *give, void *user, kw_err *e)
{
    const void *data;
    size_t n;
    kw_arena *mapping = kw_arena_new();
    if (!mapping)
        return no_memory(e, path);
    kw_status s = kw_file_map(mapping, path, &data, &n, e);
    if (!s)
        s = lines(a, path, data, (const char *)data + n, give, user, e);
    kw_arena_free(mapping);
    return s;
}

typedef struct { kw_events *l; int64_t step; kw_str kept; bool cut; } resuming;

static kw_status take_early(void *user, const char *line, size_t n, kw__line kind, const kw_event *v, kw_err *e)
{
    resuming *r = user;
    if (kind == KW__LINE_BROKEN || v->step > r->step || (kind == KW__LINE_OK && v->kind == KW_EVENT_END)) {
        r->cut = true;
        return KW_OK;
    }
    kw_str_add_n(&r->kept, line, n);
    if (kind == KW__LINE_OK) {
        r->l->session = KW_MAX(r->l->session, v->session);
        KW_TRY(keep(r->l, v, e));
    }
    return r->kept.failed ? no_memory(e, r->l->log.path) : KW_OK;
}

/* The file appears cut off or not at all, so that a kill during resuming loses nothing. */
static kw_status cut_log(kw_events *l, int64_t step, kw_err *e)
{
    resuming r = { .l = l, .step = step, .cut = true };
    kw_status s = KW_OK;
    if (step >= 0 && kw_is_file(l->log.path)) {
        r.cut = false;
        s = each_line(l->arena, l->log.path, take_early, &r, e);
    }
    if (!s && r.cut)
        s = kw_file_write_atomic(l->log.path, r.kept.n ? r.kept.s : "", r.kept.n, e);
    l->log.whole = (off_t)r.kept.n;
    kw_str_free(&r.kept);
    return s;
}

kw_status kw_events_open(kw_arena *a, const char *dir, int64_t resume_step, int64_t window, kw_events **out, kw_err *e)
{
    kw_events *l = kw_alloc(a, sizeof *l);
    if (!l || !(l->dir = kw_strdup(a, dir)) || !(l->log.path = kw_path_join(a, dir, LOG_NAME)))
        return no_memory(e, dir);
    l->arena = a;
    l->window = KW_MAX(window, 1);
    l->log.fd = l->board.fd = -1;
    KW_TRY(kw_mkdirs(dir, e));
    KW_TRY(cut_log(l, resume_step, e));
    if (kw_defer(a, close_log, l))
        return no_memory(e, dir);
    l->session++;
    remove_boards(a, dir);
    start_board(l);
    *out = l;
    return KW_OK;
}

/* ---- adding ------------------------------------------------------------------------------------------------------ */

static bool copy_texts(kw_arena *a, kw_event *v)
{
    const char **texts[] = { &v->prompt, &v->file, &v->hash, &v->name, &v->level, &v->text };
    for (size_t i = 0; i < KW_LEN(texts); i++)
        if (*texts[i] && !(*texts[i] = kw_strdup(a, *texts[i])))
            return false;
    return true;
}

void kw_events_add(kw_events *l, const kw_event *event)
{
    kw_event v = *event;
    kw_str line = { 0 };
    v.time = v.time > 0 ? v.time : now();
    v.session = l->session;
    for (size_t i = 0; v.kind == KW_EVENT_START && i < l->n; i++)
        if (l->events[i].kind == KW_EVENT_START)
            return;
    if (v.kind == KW_EVENT_STEP)
        v.average = average(l, v.loss);
    if (!copy_texts(l->arena, &v) || keep(l, &v, NULL))
        l->trouble.lost++;
    kw__event_write(&line, &v);
    tail_take(l, &l->log, &line);
    kw_str_free(&line);
    to_board(l, &v);
}

kw_status kw_events_sync(kw_events *l, kw_err *e)
{
    tail *t = &l->log;
    tail_flush(l, t);
    if (!t->pending.n && (t->fd < 0 || !kw_io_now->fsync(t->fd)))  /* closed: nothing was added since opening */
        return KW_OK;
    int error = t->pending.n ? t->error : errno;
    return kw_fail(e, KW_ESTORAGE, N_("%s: cannot %s: %s"), t->path, kw_translate(N_("write")), kw_errno_text(error));
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

typedef struct { kw_events l; size_t broken; } reading;

static kw_status take_any(void *user, const char *line, size_t n, kw__line kind, const kw_event *v, kw_err *e)
{
    (void)line, (void)n;
    reading *r = user;
    if (kind == KW__LINE_OK)
        return keep(&r->l, v, e);
    r->broken++;
    return KW_OK;
}

kw_status kw_events_read(kw_arena *a, const char *dir, kw_event **events, size_t *n, size_t *n_broken, kw_err *e)
{
    reading r = { .l = { .arena = a } };
    char *path = kw_path_join(a, dir, LOG_NAME);
    if (!path)
        return no_memory(e, dir);
    KW_TRY(each_line(a, path, take_any, &r, e));
    *events = r.l.events;
    *n = r.l.n;
    if (n_broken)
        *n_broken = r.broken;
    return KW_OK;
}
