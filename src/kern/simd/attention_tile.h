/*
 * attention_tile.h - what both directions of attention are made of: the one inner product loop, the register tiles over
 * it, and the exponential of scores.
 *
 * A panel is the part of one head of q, k, v or their gradients that a loop reads, packed (attention_pack.h). It
 * consists of cells of 32 bits. A cell holds PER numbers that are neighbours along the dimension to be summed: one f32,
 * or, in the build with PAIRS, two bf16. Sums, statistics and scores are f32 in both.
 *
 *  - lanes: [c / PER][TILE], tokens in the lanes of Z vectors. No head dim is padded: d = 40 wastes nothing, odd ones
 *            work.
 *  - rows:  [token][c / PER], one token after the other.
 *  - steps: [token / PER][c], neighbours along the tokens (f32: the same as rows).
 *  - groups: [group of channels][token / PER][c], steps of 6 or 5 channels each, so that what one register tile reads
 *            lies side by side.
 *
 * A register tile is 6 keys (or channels) x Z vectors: 6 x 4 of 32 registers in AVX-512, 6 x 2 of 16 elsewhere.
 */
#ifndef KW_SIMD_ATTENTION_TILE_H
#define KW_SIMD_ATTENTION_TILE_H

#include "simd.h"

enum {
    Z = W == 16 ? 4 : 2,                  /* vectors of query rows in a register tile */
    TILE = Z * W,                         /* query rows in a register tile */
    KTILE = 6,                            /* keys in a register tile */
    ANY = 1 << 30,                        /* diagonal of a tile in which nothing is hidden */
};

#define NEVER -1e30f                      /* the score of a key that is not seen */
#define LN2 0.69314718f

/* acc += a . b, cell by cell; a cell of tokens or channels to all lanes */
#ifdef PAIRS
enum { PER = 2 };
#define DOT_INSTRUCTION "vdpbf16ps"
INLINE vf dot_step(vf acc, vf a, vf b) { return (vf)_mm512_dpbf16_ps((__m512)acc, (__m512bh)a, (__m512bh)b); }
INLINE vf v_cell(const float *p)
{
    int32_t x;
    memcpy(&x, p, sizeof x);
    return (vf)_mm512_set1_epi32(x);
}
#else
enum { PER = 1 };
#define DOT_INSTRUCTION "vfmadd231ps"
INLINE vf dot_step(vf acc, vf a, vf b) { return acc + a * b; }
INLINE vf v_cell(const float *p) { return v_set(*p); }
#endif

INLINE int round_up(int n, int m) { return (n + m - 1) / m * m; }
INLINE int cells_of(int n) { return (n + PER - 1) / PER; }
INLINE size_t align64(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* Cells from one row of a panel to the next: a multiple of 512 bytes would put all rows into few sets of the cache. */
INLINE int row_cells(int n) { return n % 128 ? n : n + 16; }

/* Takes count floats from a block of scratch, aligned. */
INLINE float *carve(char **at, size_t count)
{
    float *p = (float *)(void *)*at;
    *at += align64(count * sizeof *p);
    return p;
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/*
 * acc[z] += y x[z],  z < N. As assembly, because gcc loads the broadcasts of several rows early, moves sums from
 * register to register and spills some of them (AVX2: 62 against 76 % of peak in a whole pass).
 */
#if defined KW_ISA_avx2 || (defined KW_ISA_avx512 && defined __AVX512F__)
#define SUM(z) DOT_INSTRUCTION " %[x" #z "], %[t], %[a" #z "]\n\t"
#define LOADED "vbroadcastss %[y], %[t]\n\t"
INLINE void dot_row(const int N, vf acc[4], const float *y, const vf x[4])
{
    vf t, a0 = acc[0], a1 = acc[1], a2 = acc[2], a3 = acc[3];
    if (N == 4)
        __asm__(LOADED SUM(0) SUM(1) SUM(2) SUM(3)
                : [t] "=&v"(t), [a0] "+v"(a0), [a1] "+v"(a1), [a2] "+v"(a2), [a3] "+v"(a3)
                : [y] "m"(*y), [x0] "v"(x[0]), [x1] "v"(x[1]), [x2] "v"(x[2]), [x3] "v"(x[3]));
    else if (N == 3)
        __asm__(LOADED SUM(0) SUM(1) SUM(2) : [t] "=&v"(t), [a0] "+v"(a0), [a1] "+v"(a1), [a2] "+v"(a2)
                : [y] "m"(*y), [x0] "v"(x[0]), [x1] "v"(x[1]), [x2] "v"(x[2]));
    else if (N == 2)
        __asm__(LOADED SUM(0) SUM(1) : [t] "=&v"(t), [a0] "+v"(a0), [a1] "+v"(a1)
                : [y] "m"(*y), [x0] "v"(x[0]), [x1] "v"(x[1]));
    else
        __asm__(LOADED SUM(0) : [t] "=&v"(t), [a0] "+v"(a0) : [y] "m"(*y), [x0] "v"(x[0]));
    acc[0] = a0;
    if (N > 1)
        acc[1] = a1;
    if (N > 2)
        acc[2] = a2;
    if (N > 3)
        acc[3] = a3;
}
#undef SUM
#undef LOADED
#else
INLINE void dot_row(const int N, vf acc[4], const float *y, const vf x[4])
{
    const vf t = v_cell(y);
    UNROLL(4) for (int z = 0; z < N; z++)
        acc[z] = dot_step(acc[z], t, x[z]);
}
#endif

INLINE void dot_one(const int R, const int N, vf acc[][4], const float *a, ptrdiff_t a_row, const float *b)
{
    vf x[4];
    UNROLL(4) for (int z = 0; z < N; z++)
        x[z] = v_load(KW_F32, b, W * z);
    UNROLL(12) for (int i = 0; i < R; i++)
        dot_row(N, acc[i], a + i * a_row, x);
}

/*
 * acc[i][z] += sum over s of  a[i a_row + s a_step]  b[s b_step + W z ...],    i < R, z < N: both constants.
 * Twelve sums at least hide the latency of a fused multiply-add. Four steps to a round: then the number of rounds is so
 * small for the usual head dims that the processor foresees the last one. NEXT_STEP keeps the steps apart.
 */
#define NEXT_STEP(a, b) __asm__ volatile("" : "+r"(a), "+r"(b) : : "memory")
INLINE void dot_tile(const int R, const int N, vf acc[][4], const float *a, ptrdiff_t a_row, ptrdiff_t a_step,
                     const float *b, ptrdiff_t b_step, int steps)
{
    int s = 0;
    for (; s + 4 <= steps; s += 4)
        UNROLL(4) for (int k = 0; k < 4; k++) {
            dot_one(R, N, acc, a, a_row, b);
            a += a_step, b += b_step;
            NEXT_STEP(a, b);
        }
    for (; s < steps; s++, a += a_step, b += b_step)
        dot_one(R, N, acc, a, a_row, b);
}

/*
 * Channels in groups of six, then fives, so that no register tile is left too small to hide latency if that can be;
 * single ones where it cannot.
 */
INLINE int channels_by_fives(int dim) { return (6 - dim % 6) % 6 * 5 <= dim ? (6 - dim % 6) % 6 * 5 : 0; }
INLINE int channels_by_sixes(int dim) { return (dim - channels_by_fives(dim)) / 6 * 6; }
INLINE int group_width(int c, int dim)
{
    const int sixes = channels_by_sixes(dim);
    return c < sixes ? 6 : c < sixes + channels_by_fives(dim) ? 5 : 1;
}

/* acc[c][TILE] (+)= sum over `steps` of  v[step][c] p[step][TILE],  R channels, which are a group of v */
INLINE void accumulate_tile(const int R, bool fresh, float *acc, const float *v, const float *p, int steps)
{
    vf a[KTILE][4];
    UNROLL(6) for (int i = 0; i < R; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            a[i][z] = fresh ? v_set(0) : v_load(KW_F32, acc, i * TILE + W * z);
    dot_tile(R, Z, a, v, 1, R, p, TILE, steps);
    UNROLL(6) for (int i = 0; i < R; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            v_store(KW_F32, acc, i * TILE + W * z, a[i][z]);
}

INLINE void accumulate_groups(const int R, bool fresh, float *acc, const float *v, int packed, const float *p,
                              int steps, int channels)
{
    for (int c = 0; c < channels; c += R)
        accumulate_tile(R, fresh, acc + c * TILE, v + (ptrdiff_t)c * packed, p, steps);
}
NOINLINE static void accumulate_6(bool fresh, float *acc, const float *v, int packed, const float *p, int steps, int n)
{
    accumulate_groups(6, fresh, acc, v, packed, p, steps, n);
}
NOINLINE static void accumulate_5(bool fresh, float *acc, const float *v, int packed, const float *p, int steps, int n)
{
    accumulate_groups(5, fresh, acc, v, packed, p, steps, n);
}

/* The same for all channels; v: groups of `packed` steps, of which the first `steps` count */
static void accumulate_lanes(bool fresh, float *acc, const float *v, int packed, int dim, const float *p, int steps)
{
    const int sixes = channels_by_sixes(dim), c = sixes + channels_by_fives(dim);
    accumulate_6(fresh, acc, v, packed, p, steps, sixes);
    accumulate_5(fresh, acc + sixes * TILE, v + (ptrdiff_t)sixes * packed, packed, p, steps, c - sixes);
    accumulate_groups(1, fresh, acc + c * TILE, v + (ptrdiff_t)c * packed, packed, p, steps, dim - c);
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

/* x[i] = 2^x[i] for x from LEAST to 17 or so, n chains side by side; 2^LEAST is 0. NaN stays. Pairs: a cubic, relative
   error 7.5e-5, 25 times below the rounding of bf16. */
#define LEAST (W == 16 ? NEVER : -127.0f)       /* scaling as AVX-512 does it goes down to zero by itself */
INLINE void exp2_scores(const int n, vf x[])
{
    vf r[6], scale[6], p[6];
    UNROLL(6) for (int i = 0; i < n; i++)
        r[i] = v_whole(x[i], 1, &scale[i]);
    UNROLL(6) for (int i = 0; i < n; i++)
        x[i] = x[i] - r[i];
    if (PER == 2) {
        UNROLL(6) for (int i = 0; i < n; i++)
            p[i] = x[i] * v_set(5.51715332e-2f) + v_set(2.42611112e-1f);
        UNROLL(6) for (int i = 0; i < n; i++)
            p[i] = p[i] * x[i] + v_set(6.93261011e-1f);
        UNROLL(6) for (int i = 0; i < n; i++)
            p[i] = p[i] * x[i] + v_set(9.99928075e-1f);
    } else {
        UNROLL(6) for (int i = 0; i < n; i++)
            p[i] = x[i] * v_set(1.32764564e-3f) + v_set(9.67554121e-3f);
        UNROLL(6) for (int i = 0; i < n; i++)
            p[i] = p[i] * x[i] + v_set(5.55071332e-2f);
        UNROLL(6) for (int i = 0; i < n; i++)
            p[i] = p[i] * x[i] + v_set(2.40221197e-1f);
        UNROLL(6) for (int i = 0; i < n; i++)
            p[i] = p[i] * x[i] + v_set(6.93146967e-1f);
        UNROLL(6) for (int i = 0; i < n; i++)
            p[i] = p[i] * x[i] + v_set(1);
    }
    UNROLL(6) for (int i = 0; i < n; i++)
        x[i] = v_scale(p[i], scale[i]);
}

/* log2 of x > 0: exponent, and log of the rest m in [0.7, 1.4] by atanh((m - 1) / (m + 1)); NaN, infinity: NaN */
INLINE vf v_log2(vf x)
{
    vu u = (vu)x - 0x3f3504f3u;           /* sqrt(1/2) */
    vf e = __builtin_convertvector((vi)u >> 23, vf);
    vf m = (vf)((u & 0x7fffffu) + 0x3f3504f3u);
    vf s = (m - 1.0f) / (m + 1.0f), q = s * s;
    vf p = v_set(1.0f / 9) * q + v_set(1.0f / 7);
    p = p * q + v_set(0.2f);
    p = p * q + v_set(1.0f / 3);
    return e + (s + s * q * p) * (2 * LOG2E) + (x - x);
}

INLINE vf lane_numbers(void)
{
    vf n;
    UNROLL(16) for (int i = 0; i < W; i++)
        n[i] = (float)i;
    return n;
}

/*
 * Scores of keys that are not seen become NEVER: keys from `valid` on do not exist; causal: keys after the row.
 * diagonal = row of lane 0 minus key of s[0].
 */
INLINE void hide(vf s[][4], int valid, int diagonal)
{
    if (valid < KTILE)
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            if (i >= valid)
                UNROLL(4) for (int z = 0; z < Z; z++)
                    s[i][z] = v_set(NEVER);
    if (diagonal < KTILE)
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            UNROLL(4) for (int z = 0; z < Z; z++)
                s[i][z] = v_choose(v_lt(lane_numbers(), v_set((float)(i - diagonal - W * z))), v_set(NEVER), s[i][z]);
}

/* s[key][row] = start[row] + the products of KTILE keys with TILE rows; start may be NULL */
INLINE void product_tile(vf s[KTILE][4], const float *start, const float *k, int k_step, const float *q, int cells)
{
    UNROLL(4) for (int z = 0; z < Z; z++) {
        const vf x = start ? v_load(KW_F32, start, W * z) : v_set(0);
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            s[i][z] = x;
    }
    dot_tile(KTILE, Z, s, k, k_step, 1, q, TILE, cells);
}

/* Scores relative to m. Here and not where exponentials are taken: the products of the next tile hide it. */
INLINE void relative(vf s[KTILE][4], float factor, const float *m)
{
    UNROLL(4) for (int z = 0; z < Z; z++) {
        const vf x = v_load(KW_F32, m, W * z), f = v_set(factor);
        UNROLL(6) for (int i = 0; i < KTILE; i++)
            s[i][z] = PER == 1 ? s[i][z] - x : s[i][z] * f - x;
    }
}

INLINE vf at_least(vf x) { return W == 16 ? x : v_max(v_set(LEAST), x); }

/* out[key][TILE] = s; scores: not below LEAST */
INLINE void store_tile(vf s[KTILE][4], const bool scores, float *out)
{
    UNROLL(6) for (int i = 0; i < KTILE; i++)
        UNROLL(4) for (int z = 0; z < Z; z++)
            v_store(KW_F32, out, i * TILE + W * z, scores ? at_least(s[i][z]) : s[i][z]);
}

/* Where head i of batch x heads begins. */
INLINE ptrdiff_t head_at(const kw_attention_shape *s, int i, int tokens, ptrdiff_t stride)
{
    return (ptrdiff_t)(i / s->heads) * tokens * stride + (ptrdiff_t)(i % s->heads) * s->dim;
}

#endif
