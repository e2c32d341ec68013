/*
 * bench.h - what kiwame bench shares: the model, the timing between two looks at the peak, and what is shown.
 *
 * Work is counted in useful FLOPs: two for each multiply-add of convolutions, linear layers and attention's products,
 * in the forward pass and for the gradients that are wanted; nothing for norms, activations and updates, nor for what
 * is computed again to save memory or by the way a kernel works.
 */
#ifndef KW_CLI_BENCH_H
#define KW_CLI_BENCH_H

#include "cli.h"
#include "measure.h"
#include "train/train.h"

/* ---- model and pass (bench_model.c) ---------------------------------------------------------------------------- */

#define KW_BENCH_PASSES "forward|lora|full|vae-encode|vae-decode|text"
enum { KW_BENCH_FORWARD, KW_BENCH_LORA, KW_BENCH_FULL, KW_BENCH_ENCODE, KW_BENCH_DECODE, KW_BENCH_TEXT };

typedef struct {                          /* the options of bench_model.c's rows */
    kw_settings s;                        /* of a training step, as train has them */
    const char *model, *size;
    int batch, pass, weights, vae_tile;
} kw_bench_options;

extern const kw_option kw_bench_rows[];   /* with kw_model_rows at .s */

typedef struct {
    const kw_bench_options *o;
    const char *name;                     /* of the model, for people */
    kw_source *source;
    kw_dtype compute, weights;
    kw_train_config tc;                   /* of lora and full */
    int w, h, tokens;                     /* pixels; of each text */
    kw_unet_config unet;  kw_vae_config vae;  kw_clip_config text;       /* of the parts that are there */
} kw_bench_model;

/* A family with random weights of this type in memory, or a model on disk. */
KW_MUST kw_status kw_bench_source(kw_arena *a, const char *model, kw_dtype weights, kw_source **out, kw_err *e);

/*
 * A tokenizer for a family in memory whose text encoder is too small for CLIP's: bytes alone, no merges. *out stays
 * NULL where the model has its own or takes CLIP's.
 */
KW_MUST kw_status kw_bench_tokenizer(kw_arena *a, const kw_source *source, const kw_clip_config *text,
                                     kw_tokenizer **out, kw_err *e);

/*
 * Opens a family with random weights in memory, or a model on disk. What the user left open gets what the published
 * figures have: LoRA on attention, gradients clipped at 1, weights in the type of the computation.
 */
KW_MUST kw_status kw_bench_open(kw_cli *c, kw_bench_options *o, kw_bench_model *m, kw_err *e);
KW_MUST kw_status kw_bench_read_size(kw_bench_model *m, kw_err *e);        /* o->size, or the model's own, to w and h */
bool kw_bench_trains(const kw_bench_model *m);

/* The graph of a pass that trains nothing: inputs by name, result "y". */
KW_MUST kw_status kw_bench_graph(kw_arena *a, const kw_bench_model *m, const kw_sd *sd, kw_graph **out, kw_err *e);
/* The shape of a training step's micro-batch; pointers are set where there will be numbers, and lead nowhere. */
kw_micro kw_bench_shape(const kw_bench_model *m);
/* Every input of the program gets numbers in 0..1 (ids: 0). */
KW_MUST kw_status kw_bench_feed(kw_arena *a, kw_program *p, kw_err *e);
void kw_bench_numbers(kw_dtype t, void *to, size_t n);         /* in 0..1; integers 0 */

/* ---- timing (bench_time.c) ------------------------------------------------------------------------------------- */

typedef struct {
    kw_status (*run)(void *ctx, kw_err *e);
    void (*start)(void *ctx);             /* before the first of the runs that count; may be NULL */
    void *ctx;
    kw_dtype compute;                     /* whose peak it is held against */
    double seconds;                       /* at least so long ... */
    int least, most;                      /* ... and so many runs */
    double peak_seconds;                  /* of each look at the peak */
} kw_bench_work;

typedef struct {
    int n, tries;                         /* n: runs; 0: a forecast alone, whose peak was measured */
    double median, low, high, sum;        /* seconds of a run; of all */
    double before, after;                 /* peak, FLOP/s */
    bool steady;                          /* both peaks within 5 % */
} kw_bench_times;

enum { KW_BENCH_TRIES = 3 };

/* Peak, runs, peak; all again, up to KW_BENCH_TRIES times, while the peaks are further apart than 5 %. */
KW_MUST kw_status kw_bench_time(const kw_bench_work *w, kw_bench_times *t, kw_err *e);
double kw_bench_peak(const kw_bench_times *t);                 /* the larger of both */
kw_peak kw_bench_kind(kw_dtype compute);                       /* bf16 only where the machine multiplies it */

/* ---- results (bench_show.c) -------------------------------------------------------------------------------------- */

enum { KW_BENCH_PROGRAMS = 48 };

typedef struct {
    const kw_bench_model *m;
    const char *pass;
    double flops;                         /* useful ones of a run */
    double setup, first;                  /* seconds: opening and planning; the first run, which packs weights */
    double plan, states;  /* of setup: from an open model to a planned program; making trained weights */
    double work;                          /* forecast of a run, in FLOPs of the peak; 0: none */
    double rss, forecast;                 /* bytes */
    kw_bench_times t;
    kw_program *program[KW_BENCH_PROGRAMS];  int n_programs;
    int top;                              /* so many of the costliest shapes are listed */
    const double *stages;                 /* of an image: seconds of texts, steps, pixels over all runs; else NULL */
} kw_bench_result;

/* bench_where.c */
enum { KW_BENCH_FAMILIES = 24 };
typedef struct { const char *id, *name; double seconds, flops, bytes; } kw_bench_family;
typedef struct {                          /* over all runs that count, costliest first; op: to be freed */
    kw_bench_family family[KW_BENCH_FAMILIES];  int n;
    kw_op_time *op;  int n_ops;
    double runs;
} kw_bench_breakdown;
typedef struct {                          /* one op at one shape; kind: of kw_forecast_class */
    char text[128];
    const char *kind;
    double seconds, flops, bytes;
    int64_t count;
} kw_bench_spot;

bool kw_bench_break_down(const kw_bench_result *r, kw_bench_breakdown *b);       /* false: nothing was profiled */
const char *kw_bench_family_of(const char *op);                /* its id: "conv" */
enum { KW_BENCH_SPOTS = 4096 };
/* Costliest first; returns how many. */
size_t kw_bench_spots(const kw_bench_result *r, kw_bench_spot *list, size_t most);
/* "n1 64x64 320->320 k3 s1": an op's place by its shapes. */
void kw_bench_place(const kw_graph *g, const kw_node *n, char text[96]);

void kw_bench_show(const kw_cli *c, const kw_bench_result *r);             /* for people, or JSON */
void kw_bench_remark(const kw_cli *c, const kw_bench_times *t);            /* when the machine was not quiet */

void kw_bench_seconds(double seconds, char text[32]);                      /* "1.234 s", "12.3 ms" */
void kw_bench_rate(kw_table *t, double work, double seconds);              /* a cell: billions a second, or nothing */

#endif
