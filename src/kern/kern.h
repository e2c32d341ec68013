/*
 * kern.h - the numeric kernels: pointers and sizes in, numbers out. No graphs here.
 *
 * Layout is tokens x channels everywhere (an image of N x H x W pixels is N*H*W tokens), so
 * convolutions, norms, products and attention meet without permutes.
 *
 *  - kw_kern: own vector kernels, compiled once per instruction set (kern/simd), chosen at run time.
 *  - kw_conv, kw_gemm: convolution and matrix products, on register tiles of our own or through oneDNN, which
 *    kern/dnn.c alone knows.
 *
 * All kernels run on the OpenMP team of the caller and give the same bits for the same thread count.
 * `t` is the type of the activations: KW_F32 or KW_BF16; statistics, gains and their gradients are f32.
 */
#ifndef KW_KERN_H
#define KW_KERN_H

#include "base/base.h"

/* ---- instruction sets ------------------------------------------------------------------------ */

typedef struct {                          /* q, o: (batch, tq, heads*dim); k, v: (batch, tk, heads*dim) */
    int batch, heads, dim, tq, tk;
    ptrdiff_t q_stride, k_stride, v_stride, o_stride;   /* elements from one token to the next */
    float scale;                          /* usually 1/sqrt(dim) */
    bool causal;                          /* token r sees keys 0..r only */
} kw_attention_shape;

typedef enum { KW_SILU, KW_GELU, KW_QUICK_GELU, KW_GELU_TANH, KW_SIGMOID, KW_N_UNARY } kw_unary;   /* GELU: exact, erf */

typedef struct {
    float rate, beta1, beta2, eps, decay;
    float bias1, bias2;                   /* 1 - beta^t */
    float clip;                           /* gradients are multiplied by this first */
} kw_adamw;

typedef struct {                          /* moments of one byte each, 256 of them with one scale (simd/update8.c) */
    uint8_t *m, *v;
    float *m_scale, *v_scale;
} kw_moments8;

/* Multiply-adds of f32, or of bf16 or int8 into sums of 32 bits. */
typedef enum { KW_PEAK_F32, KW_PEAK_BF16, KW_PEAK_INT8, KW_N_PEAKS } kw_peak;

typedef struct {
    const char *isa;                      /* "scalar", "avx2", "avx512", "avx512_bf16" */

    /*  y = (x - mean) * rstd * gamma + beta, then SiLU if wanted; mean, rstd: (n, groups), x: (n, hw, c)  */
    void (*group_norm)(kw_dtype t, const void *x, const float *gamma, const float *beta, void *y, float *mean,
                       float *rstd, int n, int64_t hw, int c, int groups, float eps, bool silu);
    /*
     * The same in two halves, for a picture that is not there at once. moments: (n, groups, 3), the number of numbers,
     * their mean and the sum of squares about it; those of `rows` further rows of `columns` pixels join what they hold,
     * bit for bit the same however the rows are cut. scratch: n * rows * groups * 3 doubles.
     */
    void (*group_moments)(kw_dtype t, const void *x, double *moments, int n, int64_t rows, int64_t columns, int c,
                          int groups, void *scratch);
    void (*group_apply)(kw_dtype t, const void *x, const float *gamma, const float *beta, const float *mean,
                        const float *rstd, void *y, int n, int64_t hw, int c, int groups, bool silu);   /* y may be x */
    /*  dgamma, dbeta (c) are overwritten; either may be NULL, dx too. dy belongs to the value after SiLU.  */
    void (*group_norm_grad)(kw_dtype t, const void *x, const void *dy, const float *gamma, const float *beta,
                            const float *mean, const float *rstd, void *dx, float *dgamma, float *dbeta,
                            int n, int64_t hw, int c, int groups, bool silu, float *scratch);
    size_t (*group_norm_grad_scratch)(int n, int64_t hw, int c);        /* bytes */

    /*  the same over each of `rows` rows of c channels; mean, rstd: (rows)  */
    void (*layer_norm)(kw_dtype t, const void *x, const float *gamma, const float *beta, void *y, float *mean,
                       float *rstd, int64_t rows, int c, float eps);
    void (*layer_norm_grad)(kw_dtype t, const void *x, const void *dy, const float *gamma, const float *mean,
                            const float *rstd, void *dx, float *dgamma, float *dbeta, int64_t rows, int c, float *scratch);
    size_t (*layer_norm_grad_scratch)(int64_t rows, int c);

    /*  o = softmax(scale q k^T) v; lse: (batch, heads, tq), natural logarithm of the sum of exp  */
    void (*attention)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v, void *o,
                      float *lse, void *scratch);
    /*  dq has q's strides, dk k's, dv v's, d_o o's  */
    void (*attention_grad)(kw_dtype t, const kw_attention_shape *s, const void *q, const void *k, const void *v,
                           const void *o, const float *lse, const void *d_o, void *dq, void *dk, void *dv, void *scratch);
    size_t (*attention_scratch)(kw_dtype t, const kw_attention_shape *s, int threads);        /* bytes, all threads */
    size_t (*attention_grad_scratch)(kw_dtype t, const kw_attention_shape *s, int threads);

    void (*unary)(kw_dtype t, kw_unary f, const void *x, void *y, int64_t n);
    void (*unary_grad)(kw_dtype t, kw_unary f, const void *x, const void *dy, void *dx, int64_t n);
    /*  x: (rows, 2c), value half first, gate half second: y = value * gelu(gate)  */
    void (*geglu)(kw_dtype t, const void *x, void *y, int64_t rows, int c);
    void (*geglu_grad)(kw_dtype t, const void *x, const void *dy, void *dx, int64_t rows, int c);

    /*  y = a x + b z (z may be NULL)  */
    void (*lincomb)(kw_dtype t, float a, const void *x, float b, const void *z, void *y, int64_t n);
    void (*mul)(kw_dtype t, const void *x, const void *z, void *y, int64_t n);
    /*  y[n][p][c] = x[n][p][c] + v[n][c], v of the same type  */
    void (*add_channels)(kw_dtype t, const void *x, const void *v, void *y, int64_t n, int64_t hw, int c);
    /*  y[n][c] = sum over p of x[n][p][c], f32  */
    void (*sum_pixels)(kw_dtype t, const void *x, float *y, int64_t n, int64_t hw, int c);

    void (*convert)(kw_dtype to, void *y, kw_dtype from, const void *x, int64_t n);    /* among F32, BF16, F16 */

    /*  p, m, v: f32; decoupled decay (PyTorch AdamW):  p *= 1 - rate decay;  p -= rate m̂ / (√v̂ + eps)  */
    void (*adamw)(const kw_adamw *o, float *p, const float *g, float *m, float *v, int64_t n);
    /*  the same over weights in bf16, rounded up or down by chance: number i by bits that key and index + i give  */
    void (*adamw_bf16)(const kw_adamw *o, uint16_t *p, const float *g, float *m, float *v, int64_t n, uint64_t key,
                       int64_t index);
    /*  moments of one byte; p: F32, or BF16 rounded by chance  */
    void (*adamw8)(const kw_adamw *o, kw_dtype t, void *p, const float *g, const kw_moments8 *s, int64_t n, uint64_t key,
                   int64_t index);
    /*  n numbers to codes with a scale for each 256, and back; two: of either sign, else none below zero  */
    void (*compress)(bool two, const float *x, uint8_t *code, float *scale, int64_t n);
    void (*expand)(bool two, const uint8_t *code, const float *scale, float *x, int64_t n);
    void (*lerp)(float *y, const float *x, float keep, int64_t n);      /* y = keep y + (1-keep) x */
    double (*sum_squares)(const float *x, int64_t n);                   /* in double, in fixed chunks */

    /*  n rounds of multiply-adds on registers, by the calling thread alone; returns the operations done (two for each
        multiply-add), 0: the machine or this instruction set has none  */
    double (*peak)(kw_peak k, int64_t n);

    /*  a matrix in one byte a number (below) from F32, BF16 or F16; false: one of them is not finite  */
    bool (*int8_make)(kw_dtype t, const void *x, int64_t rows, int64_t n, void *to);
    /*  n of its codes times their scale, as F32 or BF16  */
    void (*int8_widen)(kw_dtype to, const int8_t *codes, float scale, void *y, int64_t n);
} kw_kern;

/* The kernels of the best instruction set this machine has, or of the one chosen by kw_kern_choose. */
const kw_kern *kw_kern_get(void);
const char *kw_isa_best(void);            /* the name of the best one */
/*
 * The vector kernels of "scalar", "avx2", "avx512" or "avx512_bf16" (dot products of bf16), NULL for the best; KW_EUSAGE
 * when unknown, KW_EDEVICE when the machine lacks it. Call before any kernel runs.
 */
KW_MUST kw_status kw_kern_choose(const char *isa, kw_err *e);
/*
 * The same for everything that computes, oneDNN too: once for a process, before the first convolution or product. Below
 * the machine's best, oneDNN is held to the same set ("scalar": SSE4.1, its least); at the best it may use what it finds,
 * AMX for instance.
 */
KW_MUST kw_status kw_isa_choose(const char *isa, kw_err *e);

int kw_threads(void);                     /* size of the OpenMP team */
void kw_threads_set(int n);               /* before any kernel runs: bits may depend on it */

/* ---- matrices of one byte a number ------------------------------------------------------------ */

/*
 * KW_I8: rows x n codes of -127..127; behind them, from the next multiple of 64 bytes on, an f32 scale for each row,
 * which is what one output is made of: w[r][i] = code * scale[r]. scale = the largest |w| of the row / 127, so that no
 * number is off by more than half of it. A row without a number above 2^-100 is all zeros.
 */
static inline size_t kw_int8_codes(int64_t rows, int64_t n) { return ((size_t)rows * (size_t)n + 63) & ~(size_t)63; }
static inline size_t kw_int8_size(int64_t rows, int64_t n) { return kw_int8_codes(rows, n) + (size_t)rows * sizeof(float); }
static inline const float *kw_int8_scales(const void *w, int64_t rows, int64_t n)
{
    return (const float *)(const void *)((const char *)w + kw_int8_codes(rows, n));
}
/* The whole matrix as F32 or BF16. */
void kw_int8_rows(kw_dtype to, const void *w, int64_t rows, int64_t n, void *y);

/* ---- convolution -------------------------------------------------------------------------------- */

typedef enum { KW_FORWARD, KW_BACKWARD_DATA, KW_BACKWARD_WEIGHTS } kw_pass;

typedef struct {                          /* x: (n, h, w, in), y: (n, oh, ow, out), weight: (out, in, kh, kw) as in files */
    int n, h, w, in, out, kh, kw, stride;
    int pad_top, pad_left, pad_bottom, pad_right;
} kw_conv_shape;

int kw_conv_out_h(const kw_conv_shape *s);
int kw_conv_out_w(const kw_conv_shape *s);

typedef struct kw_conv kw_conv;

/* One pass of one convolution, ready to run. t: type of x and y. Always succeeds for valid shapes, however slowly. */
KW_MUST kw_status kw_conv_new(const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias, kw_conv **out, kw_err *e);
void kw_conv_free(kw_conv *c);
size_t kw_conv_packed_size(const kw_conv *c);      /* bytes of the packed weight (0 for KW_BACKWARD_WEIGHTS) */
size_t kw_conv_scratch_size(const kw_conv *c);
const char *kw_conv_layout(const kw_conv *c);      /* equal texts: packed weights are interchangeable */
void kw_conv_pack(const kw_conv *c, kw_dtype from, const void *weight, void *packed);   /* from F32, BF16, F16, I8 */
/*
 * KW_FORWARD          a = x,  packed, bias (f32 or NULL)  -> y      (t)
 * KW_BACKWARD_DATA    a = dy, packed                      -> dx     (t)
 * KW_BACKWARD_WEIGHTS a = x,  b = dy                      -> dw (f32, OIHW), dbias (f32) if made with bias
 */
void kw_conv_forward(const kw_conv *c, const void *x, const void *packed, const float *bias, void *y, void *scratch);
void kw_conv_backward_data(const kw_conv *c, const void *dy, const void *packed, void *dx, void *scratch);
void kw_conv_backward_weights(const kw_conv *c, const void *x, const void *dy, float *dw, float *dbias, void *scratch);

/* ---- matrix products ------------------------------------------------------------------------------ */

/*
 * C (m, n) = alpha op(A) op(B) + beta C, row major, contiguous rows of the given leading dimensions.
 * op(A): (m, k), stored (k, m) when ta; op(B): (k, n), stored (n, k) when tb. Types: each F32, BF16 or F16 (F16: sources
 * only); narrow sources are widened block by block. The same bits for every number of threads. B may be I8, a whole
 * matrix of one byte a number (above), without rows of another length: each number is widened to code * scale * alpha.
 */
typedef struct {
    int64_t m, n, k;
    bool ta, tb;
    int64_t lda, ldb, ldc;
    kw_dtype a, b, c;
    float alpha, beta;
    bool whole;                           /* B is I8 and transposed: each row of A is rounded to whole numbers too */
} kw_gemm_shape;

bool kw_gemm_has_bf16(void);              /* products of BF16 with BF16 in hardware; others are summed in f32 */
size_t kw_gemm_scratch_size(const kw_gemm_shape *s);
/* bias: f32 (n), added to each row, or NULL. */
void kw_gemm(const kw_gemm_shape *s, const void *a, const void *b, const float *bias, void *c, void *scratch);

#endif
