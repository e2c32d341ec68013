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
    X(BLOCKED, "oneDNN on its own layout, reorders around") \
    X(FLIP,    "backward-data as a forward convolution with the weight turned round (stride 1)") \
    X(TILES,   "our own tiles in registers, f32; backward-data only with stride 1") \
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

/* ---- our own tiles, f32 (conv_tiles.c) ---- */

typedef struct {
    kw_conv_shape s;
    const struct kw_conv_tile *tile;
    int taps, panels;                     /* kh*kw; groups of `width` outputs */
    int64_t panel_size;                   /* numbers in the weights of one panel */
    int chunk, chunk_taps;                /* inputs and taps that are summed in one go */
    int pixels, slices, group, groups;    /* for the gradient of the weight: see split_weights */
    size_t scratch_size;
} kw_conv_tiles;

/* For x -> y of s, or the gradient of its weight. False if it cannot. */
bool kw_conv_tiles_plan(const kw_conv_shape *s, bool weights, kw_conv_tiles *p);
/* w, dw: panels * panel_size numbers, (o, i, h, w) at at_o[o] + at_i[i] + at_h[h] + at_w[w]; padding is zero. */
void kw_conv_tiles_layout(const kw_conv_tiles *p, int64_t *at_o, int64_t *at_i, int64_t *at_h, int64_t *at_w);
void kw_conv_tiles_forward(const kw_conv_tiles *p, const float *x, const float *w, const float *bias, float *y,
                           void *scratch);
void kw_conv_tiles_weights(const kw_conv_tiles *p, const float *x, const float *dy, float *dw, float *dbias,
                           void *scratch);

/* ---- plain loops, f32; w, dw: (out, kh, kw, in) ---- */
void kw_conv_loops_forward(const kw_conv_shape *s, const float *x, const float *w, const float *bias, float *y);
void kw_conv_loops_backward_data(const kw_conv_shape *s, const float *dy, const float *w, float *dx);
void kw_conv_loops_backward_weights(const kw_conv_shape *s, const float *x, const float *dy, float *dw, float *dbias);

#endif
