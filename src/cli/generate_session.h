/* generate_session.h - one run of `kiwame generate`, from the model's opening to the last file. */
#ifndef KW_CLI_GENERATE_SESSION_H
#define KW_CLI_GENERATE_SESSION_H

#include "generate.h"
#include "generate_canvas.h"

typedef struct {
    kw_cli *cli;
    const kw_generate_config *c;
    kw_arena *arena;                      /* of the pipeline; NULL: the program's */
    kw_pipeline *p;
    kw_jobs jobs;
    kw_jobs *whole;                       /* of which these are a part, from the first-th on; NULL: they are all */
    size_t first;
    kw_picture_writer *writer;
    struct { const kw_tensor *noise, *step[1000]; int n_steps; } given;
    float *latents;  int h, w;            /* (n, C, h, w), with --save-latents */
    kw_canvas *canvas;                    /* NULL without --init */
    kw_from *from;                        /* NULL without --from */
    kw_progress progress;
    int64_t done;                         /* steps of finished batches */
    size_t at;                            /* pictures of finished batches */
} kw_session;

/* ---- generate_open.c ------------------------------------------------------------------------------------------- */

/* What looks like a slip in a prompt, on stderr; once for each prompt. */
void kw_session_tell_prompts(const kw_session *s);
/* The pipeline with all files it needs, sizes and windows of all jobs, the writer. s->jobs has been read. */
KW_MUST kw_status kw_session_open(kw_session *s, kw_err *e);
/* These strengths for the i-th LoRA file, from the next picture on. */
KW_MUST kw_status kw_session_lora(const kw_session *s, size_t i, const kw_strengths *x, kw_err *e);

/* ---- generate_bases.c: --grid base=A,B --------------------------------------------------------------------------- */

/* The grid's first base becomes --base, before anything is asked of a base. */
KW_MUST kw_status kw_bases_settle(kw_cli *cli, kw_generate_config *c, kw_err *e);
/* Opens one base after the other and draws its pictures; s->jobs has been read, and is put in the bases' order. */
KW_MUST kw_status kw_bases_draw(kw_session *s, kw_err *e);

/* ---- generate_plan.c ------------------------------------------------------------------------------------------- */

size_t kw_session_batch(const kw_session *s, size_t first);       /* how many from this one on are drawn together */
/* The steps of a job, as the pipeline is to do them; first, noised: where they begin. */
KW_MUST kw_status kw_session_sampling(const kw_session *s, const kw_job *j, kw_sampling_options *o, int *noised,
                                      kw_err *e);
int64_t kw_session_steps_of(const kw_session *s, const kw_job *j);      /* with those of a second pass */
int64_t kw_session_steps(const kw_session *s);                          /* of all batches */
/* What is given up for memory; of a grid, how much there is to do. */
KW_MUST kw_status kw_session_tell_memory(const kw_session *s, kw_err *e);
void kw_session_tell_plan(const kw_session *s);

/* ---- generate_draw.c, generate_results.c ------------------------------------------------------------------------- */

KW_MUST kw_status kw_session_draw(kw_session *s, kw_err *e);            /* everything; prints the files' names */
KW_MUST kw_status kw_session_save_latents(const kw_session *s, kw_err *e);
void kw_session_print_json(const kw_session *s, const char *sheet);

#endif
