/* rng.c - Philox counters, torch's mt19937, torch's CUDA Philox: uniform and normal numbers, same bits everywhere. */
#include "rng.h"

#include <math.h>

#define LEN(array) (sizeof(array) / sizeof *(array))

/*
 * fma() is a call where the compiler may not assume the instruction: the three fills below exist twice, plain and with
 * it, from one text. Measured 340 -> 90 ns per Philox normal, 250 -> 77 per torch normal (one Zen 3 core); same bits.
 */
#if defined(__x86_64__)
#define WITH_FMA __attribute__((target("fma")))
static bool has_fma(void) { return __builtin_cpu_supports("fma"); }
#else
#define WITH_FMA
static bool has_fma(void) { return false; }
#endif
#define INLINE static inline __attribute__((always_inline))

/* ---- logarithm, sine, cosine from IEEE operations alone ----------------------------------------------- */

static const double HALF_PI_HIGH = 0x1.921fb54442d18p+0, HALF_PI_LOW = 0x1.1a62633145c07p-54;
static const double LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33;

/* c[0] + x c[1] + x^2 c[2] ...: Horner, every step one fma */
INLINE double polynomial(const double *c, int n, double x)
{
    double y = c[n - 1];
    for (int i = n - 2; i >= 0; i--)
        y = fma(y, x, c[i]);
    return y;
}

/* x = 2^e m with m in [sqrt(1/2), sqrt 2):  ln x = e ln 2 + 2 atanh(s),  s = (m-1)/(m+1),  |s| < 0.1716 */
INLINE double exact_log(double x)
{
    static const double c[] = { 1, 1.0 / 3, 1.0 / 5, 1.0 / 7, 1.0 / 9, 1.0 / 11, 1.0 / 13, 1.0 / 15, 1.0 / 17,
                                1.0 / 19 };
    int e;
    double m = frexp(x, &e);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m = 2 * m;
        e--;
    }
    double s = (m - 1) / (m + 1), square = s * s;
    double atanh2 = (2 * s) * polynomial(c, LEN(c), square);
    return fma((double)e, LN2_HIGH, fma((double)e, LN2_LOW, atanh2));
}

/* sine and cosine of r in [-pi/4, pi/4] by Taylor, turned by `quarters` right angles */
INLINE void turned(double r, unsigned quarters, double *sine, double *cosine)
{
    static const double sc[] = { 1, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800, 1.0 / 6227020800.0,
                                 -1.0 / 1307674368000.0 };
    static const double cc[] = { 1, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800, 1.0 / 479001600,
                                 -1.0 / 87178291200.0, 1.0 / 20922789888000.0 };
    double square = r * r;
    double s = r * polynomial(sc, LEN(sc), square), c = polynomial(cc, LEN(cc), square);
    *sine = quarters & 1 ? c : s;
    *cosine = quarters & 1 ? s : c;
    if (quarters & 2)
        *sine = -*sine;
    if ((quarters + 1) & 2)
        *cosine = -*cosine;
}

INLINE void exact_sincos(double x, double *sine, double *cosine)
{
    double k = floor(fma(x, 0x1.45f306dc9c883p-1, 0.5));           /* x / (pi/2), to the nearest */
    double r = fma(-k, HALF_PI_LOW, fma(-k, HALF_PI_HIGH, x));
    turned(r, (unsigned)(int)k & 3, sine, cosine);
}

double kw_exact_log(double x) { return exact_log(x); }
void kw_exact_sincos(double x, double *sine, double *cosine) { exact_sincos(x, sine, cosine); }

/* sine and cosine of 2 pi v / 2^32: the reduction to an eighth of a turn is exact in integers */
INLINE void sincos_turn(uint32_t v, double *sine, double *cosine)
{
    uint32_t quarters = (v + 0x20000000u) >> 30;                   /* rounded; wraps to 0 at a whole turn */
    int32_t rest = (int32_t)(v - (quarters << 30));                /* -2^29 .. 2^29 */
    turned((double)rest * 0x1p-30 * HALF_PI_HIGH, quarters, sine, cosine);
}

/* ---- Philox4x32-10 --------------------------------------------------------------------------------------- */

INLINE void philox(const uint32_t counter[4], uint64_t key, uint32_t out[4])
{
    uint32_t a = counter[0], b = counter[1], c = counter[2], d = counter[3];
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)a * 0xD2511F53u, q = (uint64_t)c * 0xCD9E8D57u;
        a = (uint32_t)(q >> 32) ^ b ^ k0;
        b = (uint32_t)q;
        c = (uint32_t)(p >> 32) ^ d ^ k1;
        d = (uint32_t)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = a, out[1] = b, out[2] = c, out[3] = d;
}

void kw_philox(const uint32_t counter[4], uint64_t key, uint32_t out[4]) { philox(counter, key, out); }

INLINE void block(kw_rng r, uint64_t b, uint32_t out[4])
{
    philox((uint32_t[4]){ (uint32_t)b, r.sample, r.step, r.stream }, r.seed, out);
}

uint32_t kw_rng_u32(kw_rng r, uint64_t i)
{
    uint32_t w[4];
    block(r, i / 4, w);
    return w[i % 4];
}

uint64_t kw_rng_u64(kw_rng r, uint64_t i)
{
    uint32_t w[4];
    block(r, i / 2, w);
    return (uint64_t)w[i % 2 * 2] << 32 | w[i % 2 * 2 + 1];
}

float kw_rng_float(kw_rng r, uint64_t i) { return (float)(kw_rng_u32(r, i) >> 8) * 0x1p-24f; }

double kw_rng_double(kw_rng r, uint64_t i) { return (double)(kw_rng_u64(r, i) >> 11) * 0x1p-53; }

/* floor(n u / 2^64), the 128-bit product by hand: no rejection, so one draw is one number (Lemire 2019) */
uint64_t kw_rng_below(kw_rng r, uint64_t i, uint64_t n)
{
    uint64_t u = kw_rng_u64(r, i);
    uint64_t u0 = u & 0xffffffffu, u1 = u >> 32, n0 = n & 0xffffffffu, n1 = n >> 32;
    uint64_t a = u1 * n0, b = u0 * n1;
    uint64_t middle = (u0 * n0 >> 32) + (a & 0xffffffffu) + (b & 0xffffffffu);
    return u1 * n1 + (a >> 32) + (b >> 32) + (middle >> 32);
}

INLINE void normal_pair(uint32_t u, uint32_t v, double *first, double *second)
{
    double sine, cosine, radius = sqrt(-2 * exact_log(((double)u + 0.5) * 0x1p-32));
    sincos_turn(v, &sine, &cosine);
    *first = radius * cosine;
    *second = radius * sine;
}

double kw_rng_normal(kw_rng r, uint64_t i)
{
    uint32_t w[4];
    double pair[2];
    block(r, i / 4, w);
    normal_pair(w[i % 4 & 2], w[(i % 4 & 2) + 1], &pair[0], &pair[1]);
    return pair[i % 2];
}

INLINE void normals(kw_rng r, uint64_t first, float *out, size_t n)
{
    for (uint64_t i = first, end = first + n; i < end; ) {
        uint32_t w[4];
        double z[4];
        block(r, i / 4, w);
        normal_pair(w[0], w[1], &z[0], &z[1]);
        normal_pair(w[2], w[3], &z[2], &z[3]);
        for (uint64_t b = i / 4; i < end && i / 4 == b; i++)
            *out++ = (float)z[i % 4];
    }
}

WITH_FMA static void normals_fma(kw_rng r, uint64_t first, float *out, size_t n) { normals(r, first, out, n); }

void kw_rng_normals(kw_rng r, uint64_t first, float *out, size_t n)
{
    if (has_fma())
        normals_fma(r, first, out, n);
    else
        normals(r, first, out, n);
}

void kw_rng_permute(kw_rng r, uint32_t *order, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = (uint32_t)kw_rng_below(r, n - i, i), t = order[j];
        order[j] = order[i - 1];
        order[i - 1] = t;
    }
}

/* ---- torch's CPU generator: mt19937 (Matsumoto and Nishimura 1998) ------------------------------------------ */

void kw_torch_seed(kw_torch_rng *g, uint64_t seed)
{
    *g = (kw_torch_rng){ .next = 624 };
    g->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < 624; i++)
        g->state[i] = 1812433253u * (g->state[i - 1] ^ g->state[i - 1] >> 30) + i;
}

static void twist(uint32_t *s)
{
    for (int i = 0; i < 624; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % 624] & 0x7fffffffu);
        s[i] = s[(i + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

uint32_t kw_torch_u32(kw_torch_rng *g)
{
    if (g->next == 624) {
        twist(g->state);
        g->next = 0;
    }
    uint32_t y = g->state[g->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static float uniform_float(kw_torch_rng *g) { return (float)(kw_torch_u32(g) & 0xffffffu) * 0x1p-24f; }

static double uniform_double(kw_torch_rng *g)
{
    uint64_t high = kw_torch_u32(g), low = kw_torch_u32(g);
    return (double)((high << 32 | low) & 0x1fffffffffffffu) * 0x1p-53;
}

/* fewer than 16 numbers: pairs in double, the second kept for the next call; the angle is drawn before the radius */
static double one_normal(kw_torch_rng *g)
{
    if (g->has_spare) {
        g->has_spare = false;
        return g->spare;
    }
    double angle = uniform_double(g), u = uniform_double(g), sine, cosine;
    double radius = sqrt(-2 * exact_log(1 - u));
    exact_sincos(0x1.921fb54442d18p+2 * angle, &sine, &cosine);
    g->spare = radius * sine;
    g->has_spare = true;
    return radius * cosine;
}

/*
 * 16 or more: torch's AVX2 kernel computes in float with the logf and sinf/cosf of Moshier's Cephes library, with the
 * multiplications and additions its compiler fused. Users' pictures hang on these numbers: we follow its roundings.
 */
INLINE float cephes_log(float x)
{
    static const float p[] = { 7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f,
                               1.4249322787e-1f, -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f,
                               3.3333331174e-1f };
    int exponent;
    float m = frexpf(x, &exponent), e;
    if (m < 0.707106781186547524f) {
        m = m + m;
        exponent--;
    }
    m = m - 1;
    e = (float)exponent;
    float square = m * m, y = p[0];
    for (size_t i = 1; i < LEN(p); i++)
        y = fmaf(y, m, p[i]);
    y = fmaf(y * m, square, e * -2.12194440e-4f);
    y = fmaf(-0.5f, square, y);
    return fmaf(e, 0.693359375f, m + y);
}

/* x in [0, 2 pi): by octants, Cody-Waite in three parts */
INLINE void cephes_sincos(float x, float *sine, float *cosine)
{
    unsigned octant = ((unsigned)(x * 1.27323954473516f) + 1) & ~1u;
    float k = (float)octant;
    x = fmaf(k, -0.78515625f, x);
    x = fmaf(k, -2.4187564849853515625e-4f, x);
    x = fmaf(k, -3.77489497744594108e-8f, x);
    float z = x * x;
    float c = fmaf(fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f), z, 4.166664568298827e-2f);
    c = fmaf(c * z, z, -0.5f * z) + 1;
    float s = fmaf(fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f), z, -1.6666654611e-1f);
    s = fmaf(s * z, x, x);
    bool swapped = octant & 2;
    *sine = swapped ? c : s;
    *cosine = swapped ? s : c;
    if (octant & 4)
        *sine = -*sine;
    if ((octant + 2) & 4)
        *cosine = -*cosine;
}

/* 16 uniforms become 16 normals: pairs (j, j + 8) */
INLINE void box_muller_16(float *x)
{
    for (int j = 0; j < 8; j++) {
        float radius = sqrtf(-2 * cephes_log(1 - x[j])), sine, cosine;
        cephes_sincos(6.283185307179586f * x[j + 8], &sine, &cosine);
        x[j] = radius * cosine;
        x[j + 8] = radius * sine;
    }
}

/* whole blocks; a ragged end redraws the last 16 */
INLINE void box_muller(kw_torch_rng *g, float *x, size_t n)
{
    for (size_t i = 0; i + 16 <= n; i += 16)
        box_muller_16(x + i);
    if (n % 16 == 0)
        return;
    for (size_t i = n - 16; i < n; i++)
        x[i] = uniform_float(g);
    box_muller_16(x + n - 16);
}

WITH_FMA static void box_muller_fma(kw_torch_rng *g, float *x, size_t n) { box_muller(g, x, n); }

void kw_torch_randn(kw_torch_rng *g, float *out, size_t n)
{
    if (n < 16) {
        for (size_t i = 0; i < n; i++)
            out[i] = (float)one_normal(g);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = uniform_float(g);
    if (has_fma())
        box_muller_fma(g, out, n);
    else
        box_muller(g, out, n);
}

/* ---- torch's CUDA generator ----------------------------------------------------------------------------------- */

INLINE void cuda_randn(const kw_cuda_rng *g, float *out, size_t n)
{
    const double turn = (double)(float)(2.3283064e-10 * 6.2831855);   /* 2 pi / 2^32, in float as there */
    for (size_t i = 0; i < n; i++) {
        uint32_t w[4];
        double sine, cosine;
        philox((uint32_t[4]){ g->calls, 0, (uint32_t)i, (uint32_t)((uint64_t)i >> 32) }, g->seed, w);
        double radius = sqrt(-2 * exact_log(((double)w[0] + 0.5) * 0x1p-32));
        exact_sincos(fma((double)w[1], turn, 0.0) + turn / 2, &sine, &cosine);   /* the product rounded first */
        out[i] = (float)(radius * sine);
    }
}

WITH_FMA static void cuda_randn_fma(const kw_cuda_rng *g, float *out, size_t n) { cuda_randn(g, out, n); }

void kw_cuda_randn(kw_cuda_rng *g, float *out, size_t n)
{
    if (has_fma())
        cuda_randn_fma(g, out, n);
    else
        cuda_randn(g, out, n);
    g->calls++;
}
