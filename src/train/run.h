/*
 * run.h - a run: from a folder of pictures to trained files, with everything needed to watch, stop and resume it.
 *
 *     kw_run *r;
 *     KW_TRY(kw_run_open(arena, &settings, &hooks, &r, e));     reads everything, changes nothing
 *     kw_run_plan(r, &text);                                    what will be done
 *     KW_TRY(kw_run_start(r, e));                               caches, then the loop, until the end or a stop
 *
 * The library prints nothing: hooks tell the caller what happens.
 */
#ifndef KW_TRAIN_RUN_H
#define KW_TRAIN_RUN_H

#include "data/data.h"
#include "train.h"

typedef struct kw_run kw_run;

typedef enum { KW_PHASE_CHECK, KW_PHASE_LATENTS, KW_PHASE_TEXT, KW_PHASE_TRAIN, KW_PHASE_SAMPLE } kw_phase;

typedef struct {
    int64_t done, total;                  /* pictures or steps of the phase */
    double loss, average, validation, base_validation;     /* NAN: not known yet */
    double seconds_per_step;
} kw_progress_report;

typedef struct {
    void *user;
    void (*progress)(void *user, kw_phase phase, const kw_progress_report *r);
    void (*note)(void *user, const char *text);                /* something the user should know; translated */
    bool (*stop)(void *user);                                  /* asked between steps: save and stop */
    const char *lang;                                          /* of the report: "en", "ja" */
    const char *const *decoder;           /* argv of the decoding worker; NULL: decode inside this process */
    const char *recipe;                   /* a new run: the text of its recipe.toml. NULL: the run is resumed */
    bool accept_changes;                  /* resume although settings, pictures or base are not what they were */
} kw_run_hooks;

/*
 * What the newest checkpoint of a run was computed with: bits depend on it, so a resumed run uses the same. Before the
 * first one, what a comment of its recipe says; *threads = 0 when that is not there.
 */
#define KW_RUN_MACHINE "# threads %d, instruction set "
KW_MUST kw_status kw_run_recorded(kw_arena *a, const char *dir, int *threads, const char **isa, kw_err *e);

KW_MUST kw_status kw_run_open(kw_arena *a, const kw_settings *s, const kw_run_hooks *h, kw_run **out, kw_err *e);
void kw_run_plan(const kw_run *r, kw_str *text);
/* KW_ESTOP after a stop with a complete save. */
KW_MUST kw_status kw_run_start(kw_run *r, kw_err *e);
const char *kw_run_dir(const kw_run *r);

typedef struct {                          /* what is there at the end; texts live as long as the run */
    const char *dir, *result;             /* result: the last file or folder saved; NULL: none */
    const char *sheet, *report;           /* NULL: not there */
    const char *line;                     /* "<lora:kiwa:0.8> kiwa"; NULL: it is no LoRA */
    int64_t steps, best_step;             /* best_step: of the least held-out loss; 0 without held-out pictures */
    double loss, validation, base_validation;     /* NAN: not known */
} kw_run_summary;

void kw_run_summary_of(const kw_run *r, kw_run_summary *out);

#endif
