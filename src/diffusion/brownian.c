/*
 * brownian.c - one Brownian path per picture over the noise levels of a list, as k-diffusion's BrownianTreeNoiseSampler
 * has it (torchsde's BrownianTree, tol 1e-6, pool_size 24). The interval [least, most] is halved until a wished point
 * is met; a node's normals come from a generator of its own, seeded from the picture's seed, the node's place, depth:
 *
 *     W(whole) = sqrt(b - a) z;     W(left half) = (m-a)/(b-a) W + sqrt((m-a)(b-m)/(b-a)) z,    right = W - left
 *
 * All points are rounded to 1e-6. So the path depends on the seed alone, not on which points are asked for. A1111
 * draws z by the generator of its setting "RNG" (CPU or GPU), so do we.
 */
#include "brownian.h"

#include <math.h>
#include <string.h>

enum { POOL = 24, DEEPEST = 60 };

struct kw__brownian {
    kw_seeds kind;
    uint64_t seed;
    size_t n;
    double from, to;
    float *whole, *increment, *z;         /* (n) W(to) - W(from), of a node, normals */
    struct { double at; float *w; } known[2];  /* W(at) - W(from) of the last two points: steps begin where one ended */
};

/* Python's round(x, 6): by the number's true value. Middles of points end in half a millionth, so it shows. */
static double rounded(double x)
{
    double k = floor(x * 1e6), rest = fma(x, 1e6, -k);
    return (k + (rest > 0.5 || (rest == 0.5 && fmod(k, 2) != 0))) / 1e6;
}

static double single(double sigma) { return (double)(float)sigma; }     /* sigmas are float32 there */

static void normals(const kw__brownian *b, uint32_t seed, float *out)
{
    kw_torch_rng cpu;
    kw_cuda_rng gpu = { .seed = seed };
    if (b->kind == KW_SEEDS_CPU) {
        kw_torch_seed(&cpu, seed);
        kw_torch_randn(&cpu, out, b->n);
    } else if (b->kind == KW_SEEDS_GPU) {
        kw_cuda_randn(&gpu, out, b->n);
    } else {
        kw_rng_normals((kw_rng){ .seed = seed, .stream = KW_RNG_SAMPLE }, 0, out, b->n);
    }
}

kw__brownian *kw__brownian_new(kw_arena *a, kw_seeds kind, uint64_t seed, size_t n, double least, double most)
{
    kw__brownian *b = kw_alloc(a, sizeof *b);
    uint32_t state[3];
    if (!b)
        return NULL;
    *b = (kw__brownian){ .kind = kind, .seed = seed, .n = n, .from = rounded(single(least)),
                         .to = rounded(single(most)) };
    b->whole = kw_alloc_array(a, n, sizeof *b->whole);
    b->increment = kw_alloc_array(a, n, sizeof *b->increment);
    b->z = kw_alloc_array(a, n, sizeof *b->z);
    for (int k = 0; k < 2; k++)
        b->known[k].w = kw_alloc_array(a, n, sizeof *b->z);
    if (!b->whole || !b->increment || !b->z || !b->known[0].w || !b->known[1].w)
        return NULL;
    kw__seed_sequence(seed, NULL, 0, POOL, state, 3);
    normals(b, state[0], b->whole);
    for (size_t i = 0; i < n; i++)
        b->whole[i] = (float)((double)b->whole[i] * sqrt(single(most) - single(least)));
    for (int k = 0; k < 2; k++) {
        memset(b->known[k].w, 0, n * sizeof *b->z);
        b->known[k].at = b->from;
    }
    return b;
}

/* out = W(t) - W(from): down the tree to where t is an end */
static void path(kw__brownian *b, double t, float *out)
{
    double start = b->from, end = b->to;
    uint64_t place[2] = { 0, 0 };         /* which node of its depth; depth */
    memset(out, 0, b->n * sizeof *out);
    memcpy(b->increment, b->whole, b->n * sizeof *out);
    while (t > start && t < end && place[1] < DEEPEST) {
        double middle = rounded(0.5 * (end + start)), left = middle - start, right = end - middle;
        uint32_t state[4];
        if (left <= 0 || right <= 0)
            break;
        kw__seed_sequence(b->seed, place, 2, POOL, state, 4);
        normals(b, state[0], b->z);
        double share = left / (end - start), deviation = sqrt(left * right / (end - start));
        bool first = t <= middle;
        for (size_t i = 0; i < b->n; i++) {
            double w = (double)b->increment[i], l = share * w + deviation * (double)b->z[i];
            if (!first)
                out[i] = (float)((double)out[i] + l);
            b->increment[i] = (float)(first ? l : w - l);
        }
        place[0] = 2 * place[0] + !first;
        place[1]++;
        *(first ? &end : &start) = middle;
    }
    for (size_t i = 0; t > start && i < b->n; i++)
        out[i] += b->increment[i];
}

/* where among the known W(t) is; the other one stays */
static int find(kw__brownian *b, double t, int other)
{
    for (int k = 0; k < 2; k++)
        if (b->known[k].at == t)
            return k;
    int k = other < 0 ? 0 : 1 - other;
    path(b, t, b->known[k].w);
    b->known[k].at = t;
    return k;
}

void kw__brownian_draw(kw__brownian *b, double from, double to, float *out)
{
    double length = fabs(to - from), r = length > 0 ? 1 / sqrt(length) : 0;
    int start = find(b, fmin(fmax(rounded(single(from)), b->from), b->to), -1);
    int end = find(b, fmin(fmax(rounded(single(to)), b->from), b->to), start);
    for (size_t i = 0; i < b->n; i++)
        out[i] = (float)(r * ((double)b->known[end].w[i] - (double)b->known[start].w[i]));
}
