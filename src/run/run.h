/*
 * run.h - programs over state. A store holds what lives between runs (parameters, moments, gradients); a
 * program is a planned graph with its kernels; a workspace is the memory that programs take turns in.
 *
 *     kw_store *s = ...;  int id = kw_store_add(s, "w", shape, KW_F32, NULL, e);
 *     kw_program *p;  KW_TRY(kw_program_new(arena, graph, store, &options, &p, e));
 *     kw_program_set(p, "x", pixels);                       -- inputs are the host's memory
 *     KW_TRY(kw_program_run(p, workspace, e));
 *     const float *y = kw_program_result(p, "y");           -- valid until the workspace runs again
 *
 * Two programs over one store see each other's updates. A packed weight is made again when its state's
 * version has moved.
 */
#ifndef KW_RUN_H
#define KW_RUN_H

#include "ir/ir.h"
#include "ops/ops.h"
#include "pass/pass.h"

/* ---- store -------------------------------------------------------------------------------------------- */

typedef struct kw_store kw_store;

typedef struct {
    const char *name;
    kw_shape shape;
    kw_dtype dtype;
    void *data;
    uint64_t version;                     /* moves at every change; 0: never written */
    bool mapped;                          /* pages of a file: dropped ones are read again when looked at */
    bool packed;                          /* a kernel lays it out anew, and reads nothing but that copy */
    bool passing;                         /* changes with every run: a packed copy is not worth keeping */
} kw_stored;

KW_MUST kw_store *kw_store_new(kw_arena *a);
/* Add a state. data: borrowed memory that outlives the store (a mapped file), or NULL for own zeroed memory. */
KW_MUST kw_status kw_store_add(kw_store *s, const char *name, kw_shape shape, kw_dtype t, void *data, int *id,
                               kw_err *e);
void kw_store_set_mapped(kw_store *s, int id);         /* its borrowed memory is a mapping of a file, not written to */
void kw_store_set_passing(kw_store *s, int id);
/* Pages of a mapped file leave this process; the system's cache of files keeps them. Other memory would be lost. */
void kw_pages_drop(const void *data, size_t bytes);
const kw_stored *kw_store_at(const kw_store *s, int id);
int kw_store_count(const kw_store *s);
void *kw_store_write(kw_store *s, int id);             /* the memory, about to be changed: the version moves */
/* Another, borrowed memory or type for the same state; its own memory goes back to the system. */
void kw_store_rebind(kw_store *s, int id, kw_dtype t, void *data);
/* Own, zeroed memory of this type for a state that was in a file. Before programs are made of it. */
KW_MUST kw_status kw_store_own(kw_store *s, int id, kw_dtype t, kw_err *e);
size_t kw_store_bytes(const kw_store *s);              /* own memory of states and packed copies */
size_t kw_store_mapped_bytes(const kw_store *s);       /* mapped states read where they lie, without a packed copy */

size_t kw_store_resident(const kw_store *s);           /* of its memory, files' pages too: what lies in memory now */

/* Packed copies are kept while they fit in this many bytes (default: no limit); the rest is packed at each use. */
void kw_store_limit_packed(kw_store *s, size_t bytes);
size_t kw_store_packed_bytes(const kw_store *s);
/* Nothing needs the state for a while: its packed copies are freed, to be made again by whoever runs with them, and
   pages of its file leave the process. */
void kw_store_let_go(kw_store *s, int state);

/* ---- workspace ------------------------------------------------------------------------------------------ */

typedef struct kw_workspace kw_workspace;
KW_MUST kw_workspace *kw_workspace_new(kw_arena *a);
size_t kw_workspace_bytes(const kw_workspace *w);
void kw_workspace_empty(kw_workspace *w);  /* its memory is given back until a program runs; results are gone */

/* ---- program ---------------------------------------------------------------------------------------------- */

typedef struct {
    kw_memory_level memory;               /* what the backward pass recomputes */
    size_t memory_limit;  /* bytes of activations; 0: none. Raises `memory` until it fits or fails with KW_ENOMEM */
    bool total;  /* ... bytes of the whole process: activations first, packed copies in the rest */
    bool reference;                       /* reference kernels only */
    bool profile;                         /* time every node from the first run on */
} kw_run_options;

typedef struct kw_program kw_program;

/* Runs the passes, plans and prepares kernels. The graph belongs to the program from now on. */
KW_MUST kw_status kw_program_new(kw_arena *a, kw_graph *g, kw_store *s, const kw_run_options *o, kw_program **out,
                                 kw_err *e);
bool kw_program_wants(const kw_program *p, const char *input);
void kw_program_set(kw_program *p, const char *input, const void *data);  /* unknown names are ignored: pruned inputs */
KW_MUST kw_status kw_program_run(kw_program *p, kw_workspace *w, kw_err *e);
const void *kw_program_result(const kw_program *p, const char *name);       /* NULL: no such result */
kw_shape kw_program_result_shape(const kw_program *p, const char *name);
kw_dtype kw_program_result_type(const kw_program *p, const char *name);

size_t kw_program_bytes(const kw_program *p);          /* of workspace */
size_t kw_program_passing_bytes(const kw_program *p);  /* that a node takes beside it for a moment (references do) */
/* How many weights have no kept copy and are laid out anew in each run; *bytes of them. */
size_t kw_program_repacks(const kw_program *p, size_t *bytes);
const kw_store *kw_program_store(const kw_program *p);
size_t kw_program_weight_bytes(const kw_program *p);   /* of states read in place and of packed copies it keeps */
double kw_program_flops(const kw_program *p);          /* of a run */
double kw_program_useful_flops(const kw_program *p);   /* without what is computed again to save memory */
const kw_graph *kw_program_graph(const kw_program *p);
size_t kw_program_references(const kw_program *p);      /* nodes that no kernel takes: by way of double, slowly */
void kw_program_print(const kw_program *p, kw_str *text);                   /* the plan: nodes, peak, kernels */

/* ---- forecasts, from what was planned (forecast.c) ----------------------------------------------------------- */

/* Kept free under a limit for what a run does beside steps: samples, pictures, logs. */
enum { KW_RESERVE = 48 << 20 };

/*
 * Bytes of this process beside the store's, workspaces and what passes: program, libraries, graphs, plans, code.
 * Read from the system as they are now; call it once programs are made and before any has run.
 */
size_t kw_forecast_beside(const kw_store *s);
/* The most that this process will have once this program, the largest, runs over its store. */
double kw_forecast_bytes(const kw_program *p);

/*
 * A run in FLOPs that the processor's peak would do in the same time: seconds = work / peak. By classes of nodes, from
 * their FLOPs and bytes.
 */
double kw_forecast_work(const kw_program *p);
double kw_forecast_forward(const kw_program *p);       /* of it: what is no gradient and not made a second time */
double kw_forecast_node(const kw_graph *g, const kw_node *n);
const char *kw_forecast_class(const kw_graph *g, const kw_node *n);        /* NULL: takes no time */

/* ---- where the time goes ------------------------------------------------------------------------------------ */

/* Time every node, or not, from now on; earlier times are forgotten. */
void kw_program_profile(kw_program *p, bool on);

typedef struct {                          /* over all runs that were timed */
    const char *op;                       /* "pack": weights laid out anew for kernels, apart from the ops' own times */
    double seconds, flops, bytes;         /* bytes: inputs and outputs, each once */
    int64_t count;                        /* nodes x runs */
} kw_op_time;

bool kw_program_time(const kw_program *p, int i, kw_op_time *t);            /* i = 0, 1, ...; false past the end */
double kw_program_node_seconds(const kw_program *p, size_t node);
int64_t kw_program_timed_runs(const kw_program *p);

#endif
