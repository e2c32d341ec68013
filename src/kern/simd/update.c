/* update.c - optimizer step, moving average, sum of squares: long f32 vectors, elementwise. */
#include "simd.h"

/*
 * 1 - b for a b that was a short decimal: as a float near 1 it is good to 6e-8, so 1 - 0.999f is 4.7e-5 off. Seven
 * decimals are all a float near 1 holds; rounding to them gives back 0.001.
 */
static float rest(float b)
{
    return (float)((double)(int64_t)((1 - (double)b) * 1e7 + 0.5) / 1e7);
}

typedef struct { float clip, keep, b1, b2, r1, r2, root, eps, step; } adamw_terms;

INLINE void adamw_piece(const adamw_terms *k, float *p, const float *grad, float *m, float *v, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i += W) {
        const int64_t left = to - i;
        vf g = v_get(KW_F32, grad, i, left) * k->clip;
        vf mi = v_get(KW_F32, m, i, left), vi_ = v_get(KW_F32, v, i, left);
        mi = mi + k->r1 * (g - mi);
        vi_ = k->b2 * vi_ + k->r2 * g * g;
        vf denominator = v_sqrt(vi_) / k->root + k->eps;
        v_put(KW_F32, p, i, v_get(KW_F32, p, i, left) * k->keep - k->step * (mi / denominator), left);
        v_put(KW_F32, m, i, mi, left);
        v_put(KW_F32, v, i, vi_, left);
    }
}

/*
 *  torch.optim.AdamW, in its order:  p *= 1 - rate decay;  m += (1 - b1) (g - m);  v = b2 v + (1 - b2) g^2;
 *  p -= rate / bias1  m / (sqrt(v) / sqrt(bias2) + eps)
 */
void ISA(adamw)(const kw_adamw *o, float *p, const float *g, float *m, float *v, int64_t n)
{
    const adamw_terms k = {
        .clip = o->clip, .keep = (float)(1 - (double)o->rate * (double)o->decay), .b1 = o->beta1, .b2 = o->beta2,
        .r1 = rest(o->beta1), .r2 = rest(o->beta2), .root = (float)__builtin_sqrt((double)o->bias2), .eps = o->eps,
        .step = (float)((double)o->rate / (double)o->bias1),
    };
    FOR_PIECES(n, CHUNK, from, to, adamw_piece(&k, p, g, m, v, from, to));
}

/*  y = keep y + (1 - keep) x = y + (1 - keep) (x - y)  */
INLINE void lerp_piece(float *y, const float *x, float take, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i += W) {
        vf a = v_get(KW_F32, y, i, to - i);
        v_put(KW_F32, y, i, a + take * (v_get(KW_F32, x, i, to - i) - a), to - i);
    }
}

void ISA(lerp)(float *y, const float *x, float keep, int64_t n)
{
    const float take = rest(keep);
    FOR_PIECES(n, CHUNK, from, to, lerp_piece(y, x, take, from, to));
}

/* ---- sum of squares ------------------------------------------------------------------------------------ */

enum { PIECE = 4096, BATCH = 512 };       /* numbers in a piece; pieces in flight */

static double sum_piece(const float *x, int64_t n)
{
    double s[8] = { 0 };
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        UNROLL(8) for (int k = 0; k < 8; k++)
            s[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < n; i++)
        s[i % 8] += (double)x[i] * (double)x[i];
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

double ISA(sum_squares)(const float *x, int64_t n)
{
    double total = 0, part[BATCH];
    for (int64_t start = 0; start < n; start += (int64_t)PIECE * BATCH) {
        const int64_t end = KW_MIN(n, start + (int64_t)PIECE * BATCH), count = pieces(end - start, PIECE);
        _Pragma("omp parallel for schedule(static) if (count > 4)")
        for (int64_t i = 0; i < count; i++)
            part[i] = sum_piece(x + start + i * PIECE, KW_MIN(end - start - i * PIECE, PIECE));
        for (int64_t i = 0; i < count; i++)
            total += part[i];
    }
    return total;
}
