/*
 * rng.h - random numbers: counter-based for ourselves, and the two generators that users know.
 *
 *     kw_rng r = { .seed = 42, .stream = KW_RNG_NOISE, .step = 120, .sample = 3 };
 *     kw_rng_normals(r, 0, noise, n);               // the same n numbers whenever it is asked
 *
 * Every function here gives the same bits on every machine and with every compiler: only IEEE + - * / sqrt and fma are
 * used, each a*b+c is written as fma() (so no compiler can choose), and log, sin and cos are polynomials of our own.
 */
#ifndef KW_RNG_H
#define KW_RNG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- counter-based: nothing to save, any number can be asked for by its index ---------------------- */

/*  name, number  -  what a random number is for; the numbers are kept for good, as resumed runs rely on them  */
#define KW_RNG_MAP(X) \
    X(NOISE, 1) X(TIMESTEP, 2) X(OFFSET, 3) X(LATENT, 4) X(DROPOUT, 5) X(CAPTION, 6) X(SHUFFLE, 7) X(CROP, 8) \
    X(FLIP, 9) X(SPLIT, 10) X(INIT, 11) X(VALIDATE, 12) X(SAMPLE, 13) X(ROUND, 14) X(AUGMENT, 15) X(TEST, 99)

typedef enum {
#define X(name, number) KW_RNG_##name = number,
    KW_RNG_MAP(X)
#undef X
} kw_rng_stream;

/*
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): key = seed (low word first),
 * counter = { block, sample, step, stream }. Block b holds the numbers 4b .. 4b+3 (32-bit words), so a kw_rng holds
 * 2^34 numbers; pass it by value.
 */
typedef struct {
    uint64_t seed;
    uint32_t stream, step, sample;
} kw_rng;

void kw_philox(const uint32_t counter[4], uint64_t key, uint32_t out[4]);

uint32_t kw_rng_u32(kw_rng r, uint64_t i);              /* word i */
uint64_t kw_rng_u64(kw_rng r, uint64_t i);              /* words 2i (high) and 2i+1 (low) */
float kw_rng_float(kw_rng r, uint64_t i);               /* in [0,1): the top 24 bits of word i */
double kw_rng_double(kw_rng r, uint64_t i);             /* in [0,1): the top 53 bits of u64 i */
uint64_t kw_rng_below(kw_rng r, uint64_t i, uint64_t n);   /* 0 .. n-1 (n >= 1) from u64 i; bias below n/2^64 */

/*
 * Standard normals number first .. first+n-1. Numbers 4b+2k and 4b+2k+1 (k = 0, 1) are the Box-Muller pair of words
 * u = w[2k], v = w[2k+1] of block b:  r = sqrt(-2 ln((u + 1/2) / 2^32)),  r cos(2 pi v/2^32),  r sin(2 pi v/2^32),
 * in double, rounded to float. The largest is 6.76.
 */
void kw_rng_normals(kw_rng r, uint64_t first, float *out, size_t n);
double kw_rng_normal(kw_rng r, uint64_t i);             /* one of them, not yet rounded */

/* Fisher-Yates: order[] becomes a permutation of 0 .. n-1; draw i (u64 number i) places position n-1-i. */
void kw_rng_permute(kw_rng r, uint32_t *order, uint32_t n);

/* ---- torch's CPU generator --------------------------------------------------------------------------- */

/*
 * kw_torch_seed(&g, s); kw_torch_randn(&g, x, n)  =  torch.manual_seed(s); x = torch.randn(n)  on a CPU with AVX2
 * (torch without AVX2 gives numbers up to 2e-6 away), bit for bit, over any sequence of calls.
 * As in torch a call for 16 numbers or more is not a prefix of a longer one.
 */
typedef struct {
    uint32_t state[624];                                /* mt19937; only the low 32 bits of a seed count, as in torch */
    int next;
    bool has_spare;                                     /* calls for under 16 numbers keep the other half of a pair */
    double spare;
} kw_torch_rng;

void kw_torch_seed(kw_torch_rng *g, uint64_t seed);
uint32_t kw_torch_u32(kw_torch_rng *g);
void kw_torch_randn(kw_torch_rng *g, float *out, size_t n);

/* ---- torch's CUDA generator ---------------------------------------------------------------------------- */

/*
 * A1111's "RNG: GPU" (modules/rng_philox.py, which repeats torch.randn on CUDA): element i of call c comes from Philox
 * counter { c, 0, i, 0 }, the sine of the pair only, with 2 pi/2^32 as a float. Bit for bit what that code gives; the
 * numbers in its comment and a GPU's own are within 3e-7.
 */
typedef struct {
    uint64_t seed;
    uint32_t calls;
} kw_cuda_rng;

void kw_cuda_randn(kw_cuda_rng *g, float *out, size_t n);

/* ---- the functions behind them: exact recipes, within 1e-15 of the true values ------------------------ */

double kw_exact_log(double x);                          /* x > 0, normal numbers */
void kw_exact_sincos(double x, double *sine, double *cosine);   /* radians, |x| <= 100 */

#endif
