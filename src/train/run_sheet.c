/*
 * run_sheet.c - the sheet at the end of a run: saved files x strengths from one seed, the best by held-out loss marked.
 *
 *            0     0.4    0.6    0.8    1     1.2
 *   step 160 base   .      .      .     .      .
 *   step 320        .      .      .    [.]     .          strength 0 is the base alone: drawn once
 */
#include "run_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FILES = 6, MARKED = 4 };
static const double strengths[] = { 0, 0.4, 0.6, 0.8, 1.0, 1.2 };
#define COLUMNS KW_LEN(strengths)

typedef struct { const char *path; int64_t step; } saved_file;

/* ---- which files ------------------------------------------------------------------------------------------------- */

/* All that were saved and are still there, one for each step. */
static size_t all_files(const kw_run *r, kw_arena *a, saved_file *f)
{
    size_t n, k = 0;
    const kw_event *v = kw_events_list(r->log, &n);
    for (size_t i = 0; i < n; i++) {
        char *path = v[i].kind == KW_EVENT_SAVE ? kw_path_join(a, r->dir, v[i].file) : NULL;
        bool again = k && f[k - 1].step == v[i].step;
        if (path && kw_is_file(path))
            f[again ? k - 1 : k++] = (saved_file){ path, v[i].step };
    }
    return k;
}

static size_t nearest(const saved_file *f, size_t n, int64_t step)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (llabs(f[i].step - step) < llabs(f[best].step - step))
            best = i;
    return best;
}

/*
 * A picture takes two passes of the network in each of its steps, a sample of a training step three: the sheet may cost
 * a quarter of the training.
 */
static size_t affordable(const kw_run *r)
{
    double row = 2.0 * r->s.sample_sampling_steps * (double)(COLUMNS - 1);
    double training = 3.0 * (double)r->steps * r->s.batch * r->s.accumulation;
    return (size_t)fmin(fmax(training / 4 / row, 1), MOST_FILES);
}

int64_t kw__sheet_pictures(const kw_run *r, int64_t files)
{
    int64_t rows = KW_MIN(files, (int64_t)affordable(r));
    return r->tc.lora && rows > 0 ? rows * (int64_t)(COLUMNS - 1) + 1 : 0;
}

/* Some of them, evenly over the run; the last and the one nearest to the best held-out loss are among them. */
static size_t some_files(const kw_run *r, saved_file *f, size_t n, size_t most)
{
    size_t best = nearest(f, n, r->best_step), m = KW_MIN(n, most), at[MOST_FILES], near = 0;
    for (size_t i = 0; i < m; i++) {
        at[i] = m > 1 ? i * (n - 1) / (m - 1) : n - 1;
        if (llabs((long long)at[i] - (long long)best) < llabs((long long)at[near] - (long long)best))
            near = i;
    }
    if (m > 1 && best < n - 1)
        at[KW_MIN(near, m - 2)] = best;
    for (size_t i = 0; i < m; i++)
        f[i] = f[at[i]];                  /* at[i] >= i: nothing is overwritten that is still wanted */
    return m;
}

/* ---- drawing ----------------------------------------------------------------------------------------------------- */

typedef struct { kw_run *r; kw_arena *a; const char *prompt; kw_picture *cells; size_t n, done; } sheet;

/*
 * One file at all strengths. Its values go into the trainer's own adapters, the second factors times the strength: the
 * training is over, and a second model beside the trainer would need the memory once more.
 */
static kw_status draw_row(sheet *t, const saved_file *f, size_t row, kw_err *e)
{
    const kw_adapters *adapters = kw_trainer_adapters(t->r->trainer);
    kw_tensors *file;
    KW_TRY(kw__run_pipeline(t->r, e));
    KW_TRY(kw_tensors_open(t->a, f->path, &file, e));
    for (size_t i = row ? 1 : 0; i < COLUMNS; i++) {
        kw_generated made;
        for (int k = 0; k < adapters->n; k++)
            KW_TRY(kw_lora_set(adapters->item[k], file, (float)strengths[i], e));
        KW_TRY(kw__run_draw(t->r, t->r->pipeline, t->a, t->prompt, t->r->s.seed, kw__run_go_on, &made, e));
        t->cells[row * COLUMNS + i] = made.picture[0];
        (void)kw__run_tell(t->r, KW_PHASE_SAMPLE, ++t->done, t->n * (COLUMNS - 1) + 1);
    }
    return KW_OK;
}

static kw_status write_sheet(sheet *t, const saved_file *f, kw_err *e)
{
    const char *columns[COLUMNS], *rows[MOST_FILES];
    const kw_picture *shown[MOST_FILES * COLUMNS];
    kw_picture out;
    for (size_t i = 0; i < COLUMNS; i++)
        columns[i] = kw_sprintf(t->a, "%g", strengths[i]);
    for (size_t i = 0; i < t->n; i++)
        rows[i] = kw_sprintf(t->a, kw_translate(N_("step %lld")), (long long)f[i].step);
    for (size_t i = 0; i < t->n * COLUMNS; i++)
        shown[i] = &t->cells[i % COLUMNS ? i : 0];
    kw_sheet s = { .title = t->prompt, .columns = (int)COLUMNS, .rows = (int)t->n, .column_labels = columns,
                   .row_labels = rows, .cells = shown,
                   .best = (int)(nearest(f, t->n, t->r->best_step) * COLUMNS + MARKED) };
    KW_TRY(kw_sheet_draw(&s, &out, e));
    kw_status st = kw__run_write_png(t->r, t->a, "sheet.png", &out, e);
    kw_picture_free(&out);
    return st;
}

static kw_status draw_sheet(kw_run *r, kw_arena *a, kw_err *e)
{
    const char *prompts[KW__MOST_PROMPTS];
    size_t n_events;
    kw_events_list(r->log, &n_events);
    saved_file *f = kw_alloc_array(a, n_events + 1, sizeof *f);
    sheet t = { .r = r, .a = a };
    t.cells = kw_alloc_array(a, MOST_FILES * COLUMNS, sizeof *t.cells);
    if (!f || !t.cells)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    t.n = some_files(r, f, all_files(r, a, f), affordable(r));
    if (!t.n || !kw__run_prompts(r, prompts))
        return KW_OK;
    t.prompt = prompts[0];
    for (size_t i = 0; i < t.n; i++)
        KW_TRY(draw_row(&t, &f[i], i, e));
    return write_sheet(&t, f, e);
}

/*
 * Everything is trained and saved by then: a sheet that cannot be drawn is told, and the run is finished; who stops now
 * need not wait for it.
 */
void kw__watch_sheet(kw_run *r)
{
    kw_err trouble = { 0 };
    if (!r->tc.lora)
        return;
    kw_arena *a = kw_arena_new();
    kw_status s = a ? draw_sheet(r, a, &trouble) : kw_fail(&trouble, KW_ENOMEM, "out of memory");
    kw_arena_free(a);
    if (s)
        kw__run_note(r, kw_translate(N_("the sheet was not drawn: %s")), trouble.what);
}
