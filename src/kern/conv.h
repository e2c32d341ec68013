/*
 * conv.h - inside of kw_conv: the ways to compute a convolution. The rule in conv.c picks one; tests and
 * measurements ask for a particular one.
 */
#ifndef KW_CONV_H
#define KW_CONV_H

#include "dnn.h"

/*  name, what it is; each takes any pass unless its kw_conv_new_by says no  */
#define KW_CONV_WAY_MAP(X) \
    X(PLAIN,   "oneDNN on NHWC") \
    X(FLIP,    "backward-data as a forward convolution with the weight turned round (stride 1)") \
    X(TILES,   "our own tiles in registers, f32; backward-data only with stride 1") \
    X(WINOGRAD, "the same after Winograd's F(4, 3) along rows: half the products (width 3, stride 1)") \
    X(LOOPS,   "plain loops")

typedef enum {
#define X(name, text) KW_CONV_##name,
    KW_CONV_WAY_MAP(X)
#undef X
    KW_CONV_N_WAYS
} kw_conv_way;

/* As kw_conv_new; KW_EDEVICE when this way cannot do it. */
KW_MUST kw_status kw_conv_new_by(kw_conv_way way, const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias,
                                 kw_conv **out, kw_err *e);
kw_conv_way kw_conv_chosen(const kw_conv *c);
const char *kw_conv_implementation(const kw_conv *c);   /* oneDNN's name for the code it runs, or "loops" */

/* ---- our own tiles, f32: forward, and the gradient of x turned round (conv_tiles.c, conv_winograd.c) ---- */

/* A weight in parts: chunks of inputs, summed in one go, by panels of outputs, the first `wide` of them wide. */
typedef struct {
    const struct kw_conv_tile *tile;
    int in, out, taps, chunk, panels, wide, padded;        /* padded: outputs of all panels */
} kw_conv_cut;

typedef struct {
    kw_conv_shape s;
    const struct kw_conv_tile *tile;
    bool winograd, turned;
    int taps, chunk_rows;                 /* chunk_rows: of the kernel that are summed in one go */
    kw_conv_cut cut, lies;                /* as the weight is used; as it lies: the same, but for a turned one */
    int threads, blocks, group;           /* the work is shared by blocks of pixels and groups of panels */
    int rows, columns;                    /* of a block: WINOGRAD: output rows, tiles of 4; else 1, pixels */
    int room;                             /* columns of the product for one block, with room for a cut tile */
    size_t m_at, v_at, u_at, each, shared;    /* scratch, in numbers: of a thread; before them, of all */
    size_t packed, scratch_size;
} kw_conv_tiles;

/*
 * For x -> y of s. False if it cannot. The packed weight depends on in, out, kh, kw and the instruction set alone.
 * turned: the weight is (in, out, kh, kw) of another convolution, of which this one is the turned form; it lies packed
 * as that one wants it, so that one copy serves both.
 */
bool kw_conv_tiles_plan(const kw_conv_shape *s, bool winograd, bool turned, kw_conv_tiles *p);
void kw_conv_tiles_text(const kw_conv_tiles *p, char *text, size_t size);
void kw_conv_tiles_pack(const kw_conv_tiles *p, kw_dtype from, const void *w, float *packed);
void kw_conv_tiles_forward(const kw_conv_tiles *p, const float *x, const float *w, const float *bias, float *y,
                           void *scratch);

/* Stretches of memory, equally far apart. */
typedef struct { const char *at; ptrdiff_t size, step; int count; } kw_conv_run;

/* What the two have in common: the part of a panel, a thread's scratch, and the next weights called to the cache. */
typedef struct {
    const kw_conv_tiles *p;
    const float *x, *w, *zeros, *bias;
    float *y, *m, *v, *u;
    const float **at;                     /* [tap][room] where the factors of a column lie */
    int count, panel0, panel1;            /* columns in the block; panels */
    const char *ahead, *ahead_end;        /* weights that are needed next: one of the stretches in which they lie */
    kw_conv_run run;                      /* the stretches after it, so many of this run; then other runs of the part */
    int left, next_run, next_i, next_n, next_panel;
} kw_conv_block;

int kw_conv_panel_at(const kw_conv_cut *c, int panel);                         /* its first output */
int kw_conv_panel_width(const kw_conv_cut *c, int panel);
/* Where the part of inputs i..i+n and a panel lies: (kh, kw, n, width). */
ptrdiff_t kw_conv_part_at(const kw_conv_cut *c, int i, int n, int panel);
/*
 * A part of a turned weight in b->u, made from the parts it is in; and the same transformed, (points, kh, n, width),
 * with so many lines of the next part called to the cache in each of kh * KW_CONV_VISITS visits.
 */
enum { KW_CONV_VISITS = 3 };
void kw_conv_turn_part(kw_conv_block *b, int i, int n, int panel);
void kw_conv_turn_winograd(kw_conv_block *b, int i, int n, int panel, int lines);
/* The memory that it is made from, which = 0, 1, ...; false past the last. */
bool kw_conv_turn_run(const kw_conv_tiles *p, const float *w, int i, int n, int panel, int which, kw_conv_run *run);
/* The part that comes after this one in the block, if any, is to be called to the cache; lines for each visit. */
void kw_conv_ahead(kw_conv_block *b, int i, int n, int panel);
int kw_conv_ahead_lines(const kw_conv_block *b, int visits);
void kw_conv_call(kw_conv_block *b, int lines);
/* All tiles of a panel for one chunk: m is room x width. */
void kw_conv_columns(kw_conv_block *b, int panel, const float *const *at, int taps, ptrdiff_t first, int n,
                     const float *w, ptrdiff_t w_step, bool add, float *m, int lines);
void kw_conv_winograd_plan(kw_conv_tiles *p);
void kw_conv_scratch_plan(kw_conv_tiles *p);       /* after it: the sizes of the scratch */
void kw_conv_winograd_block(kw_conv_block *b, int block);
/* Where tap (h, w) of the output pixels from `first` on finds its channels; `zeros` outside and behind the last. */
void kw_conv_point(const kw_conv_shape *s, const float *x, const float *zeros, int h, int w, int64_t first, int count,
                   const float **to);

/* ---- and the gradient of the weight (conv_weights.c; by Winograd conv_winograd.c) ---- */

bool kw_conv_winograd_weights_plan(const kw_conv_shape *s, kw_conv_tiles *p);
/* dw: (out, in, kh, kw), as in files */
void kw_conv_winograd_weights(const kw_conv_tiles *p, const float *x, const float *dy, float *dw, float *dbias,
                              void *scratch);

typedef struct {
    kw_conv_shape s;
    const struct kw_conv_tile *tile;
    int taps, panels;                     /* kh*kw; groups of `width` outputs */
    int64_t panel_size;                   /* numbers in the gradient of one panel */
    int pixels, slices, group, groups;    /* see split_weights */
    size_t scratch_size;
} kw_conv_weights;

bool kw_conv_weights_plan(const kw_conv_shape *s, kw_conv_weights *p);
/* dw: panels * panel_size numbers, (o, i, h, w) at at_o[o] + at_i[i] + at_h[h] + at_w[w] */
void kw_conv_weights_layout(const kw_conv_weights *p, int64_t *at_o, int64_t *at_i, int64_t *at_h, int64_t *at_w);
void kw_conv_weights_run(const kw_conv_weights *p, const float *x, const float *dy, float *dw, float *dbias,
                         void *scratch);

/* ---- plain loops, f32; w, dw: (out, kh, kw, in) ---- */
void kw_conv_loops_forward(const kw_conv_shape *s, const float *x, const float *w, const float *bias, float *y);
void kw_conv_loops_backward_data(const kw_conv_shape *s, const float *dy, const float *w, float *dx);
void kw_conv_loops_backward_weights(const kw_conv_shape *s, const float *x, const float *dy, float *dw, float *dbias);

#endif
