/*
 * dnn.h - the little that Kiwame asks of oneDNN. Only dnn*.c includes oneDNN's own header, so that
 * another version (3.x) or another library means another dnn*.c and nothing else.
 */
#ifndef KW_DNN_H
#define KW_DNN_H

#include "kern.h"

/*
 * Forbid instruction sets above `isa`: "scalar", "avx2", "avx512", "avx512_bf16". Only before the first convolution or
 * product; "scalar" means SSE4.1, oneDNN's least.
 */
KW_MUST kw_status kw_dnn_limit_isa(const char *isa, kw_err *e);

bool kw_dnn_has_avx512(void);             /* and allowed */
bool kw_dnn_has_bf16(void);               /* bf16 products in hardware, and allowed */

/* ---- convolution --------------------------------------------------------------------------------- */

typedef struct kw_dnn_conv kw_dnn_conv;

/*
 * One pass with x and y NHWC of type t (F32, or BF16 if kw_dnn_has_bf16); bias and gradients of weight and bias
 * are f32. NULL when the library has nothing better than its reference implementation, or no memory.
 */
kw_dnn_conv *kw_dnn_conv_new(const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias);
void kw_dnn_conv_free(kw_dnn_conv *c);
size_t kw_dnn_conv_scratch_size(const kw_dnn_conv *c);
const char *kw_dnn_conv_implementation(const kw_dnn_conv *c);
/* As oneDNN names them: forward reads x, w, bias and writes y; the others read and write the gradients of these. */
void kw_dnn_conv_run(const kw_dnn_conv *c, void *x, void *w, float *bias, void *y, void *scratch);

/*
 * Where the weight lies: element (o, i, h, w) is at at[0][o] + at[1][i] + at[2][h] + at[3][w].
 * size: elements in all (more than out*in*kh*kw when channels are padded; padding must be zero).
 */
typedef struct {
    kw_dtype type;
    size_t size;
    int64_t *at[4];                       /* out, in, kh, kw of the weight as the library sees it */
    char text[160];                       /* equal texts: equal layouts */
} kw_dnn_layout;
/* at[]: room for out + in + kh + kw numbers, one table behind the other. False if it is no such layout. */
bool kw_dnn_conv_layout(const kw_dnn_conv *c, int64_t *room, kw_dnn_layout *layout);

/* ---- products ------------------------------------------------------------------------------------ */

/*
 * A product of F32 or BF16 operands (A and B alike), C = alpha (op(A) op(B) + bias) + beta C, bias f32 (n), never NULL.
 * Kept for the process once made. NULL when the library has nothing better than its reference implementation.
 */
typedef struct kw_dnn_matmul kw_dnn_matmul;
const kw_dnn_matmul *kw_dnn_matmul_get(const kw_gemm_shape *s);
size_t kw_dnn_matmul_scratch_size(const kw_dnn_matmul *m);
void kw_dnn_matmul_run(const kw_dnn_matmul *m, const void *a, const void *b, const float *bias, void *c, void *scratch);

#endif
