/* noise_source.c - seeds to noise: one generator per picture, as A1111's ImageRNG and diffusers' generators. */
#include "brownian.h"

#include <math.h>

static const char *const names[] = {
#define X(name, text, help) text,
    KW_SEEDS_MAP(X)
#undef X
};

const char *kw_seeds_name(kw_seeds k) { return names[k]; }

struct kw_noise_source {
    kw_arena *a;
    kw_noise_wish wish;
    size_t each;
    uint64_t *seed, *variation;
    kw_torch_rng *cpu;
    kw_cuda_rng *gpu;
    kw__brownian **path;                  /* (n) made at the first draw from it */
};

/* ---- one generator, from its beginning ------------------------------------------------------------------------- */

static void restart(kw_noise_source *s, int i, uint64_t seed)
{
    s->seed[i] = seed;
    if (s->cpu)
        kw_torch_seed(&s->cpu[i], seed);
    if (s->gpu)
        s->gpu[i] = (kw_cuda_rng){ .seed = seed };
}

static void draw(kw_noise_source *s, int i, int step, float *out, size_t n)
{
    if (s->cpu)
        kw_torch_randn(&s->cpu[i], out, n);
    else if (s->gpu)
        kw_cuda_randn(&s->gpu[i], out, n);
    else
        kw_rng_normals((kw_rng){ .seed = s->seed[i], .stream = KW_RNG_SAMPLE, .step = (uint32_t)(step + 1) }, 0, out,
                       n);
}

static void *copied(kw_arena *a, const uint64_t *v, size_t n)
{
    uint64_t *out = kw_alloc_array(a, n, sizeof *out);
    for (size_t i = 0; out && i < n; i++)
        out[i] = v[i];
    return out;
}

kw_noise_source *kw_noise_source_new(kw_arena *a, const kw_noise_wish *w)
{
    kw_noise_source *s = kw_alloc(a, sizeof *s);
    size_t count = (size_t)w->n;
    if (!s)
        return NULL;
    *s = (kw_noise_source){ .a = a, .wish = *w, .each = (size_t)w->channels * (size_t)w->h * (size_t)w->w,
                            .seed = copied(a, w->seed, count) };
    s->wish.seed = copied(a, w->seed, count);
    bool varied = w->variation && w->strength != 0;
    s->variation = varied ? copied(a, w->variation, count) : NULL;
    if (w->kind == KW_SEEDS_CPU)
        s->cpu = kw_alloc_array(a, count, sizeof *s->cpu);
    if (w->kind == KW_SEEDS_GPU)
        s->gpu = kw_alloc_array(a, count, sizeof *s->gpu);
    if (!s->seed || !s->wish.seed || (w->kind == KW_SEEDS_CPU && !s->cpu) || (w->kind == KW_SEEDS_GPU && !s->gpu)
        || (varied && !s->variation))
        return NULL;
    for (int i = 0; i < w->n; i++)
        restart(s, i, w->seed[i]);
    return s;
}

/* ---- the starting noise: variations, other sizes --------------------------------------------------------------- */

typedef struct { size_t c, h, w; } extent;

static double dot(const float *a, const float *b, const extent *n, size_t at)
{
    double sum = 0;
    for (size_t y = 0; y < n->h; y++)
        sum += (double)a[at + y * n->w] * (double)b[at + y * n->w];
    return sum;
}

static double cosine(const float *a, const float *b, const extent *n, size_t at)
{
    return dot(a, b, n, at) / sqrt(dot(a, a, n, at) * dot(b, b, n, at));
}

/* A1111's slerp: a column of a channel at a time. Where all are nearly parallel its line runs the other way round. */
static void vary(float *noise, const float *other, const extent *n, double f)
{
    double mean = 0;
    for (size_t k = 0; k < n->c * n->w; k++)
        mean += cosine(noise, other, n, k / n->w * n->h * n->w + k % n->w) / (double)(n->c * n->w);
    for (size_t k = 0; k < n->c * n->w; k++) {
        size_t at = k / n->w * n->h * n->w + k % n->w;
        double angle = acos(fmin(fmax(cosine(noise, other, n, at), -1), 1)), p = f, q = 1 - f;
        if (mean <= 0.9995) {
            p = sin((1 - f) * angle) / sin(angle);
            q = sin(f * angle) / sin(angle);
        }
        for (size_t y = 0; y < n->h; y++) {
            size_t i = at + y * n->w;
            noise[i] = (float)(p * (double)noise[i] + q * (double)other[i]);
        }
    }
}

/* Along one side: from `a` long, at `skip`, `n` go to `at` in `b` long. As there, of an odd surplus one more is cut. */
static void middle(size_t a, size_t b, size_t *skip, size_t *at, size_t *n)
{
    *skip = a > b ? (a - b + 1) / 2 : 0;
    *at = a > b ? 0 : (b - a) / 2;
    *n = a - 2 * *skip;
}

static void paste(const float *from, extent a, float *to, extent b)
{
    size_t ay, ax, by, bx, h, w;
    middle(a.h, b.h, &ay, &by, &h);
    middle(a.w, b.w, &ax, &bx, &w);
    for (size_t c = 0; c < b.c; c++)
        for (size_t y = 0; y < h; y++)
            for (size_t x = 0; x < w; x++)
                to[(c * b.h + by + y) * b.w + bx + x] = from[(c * a.h + ay + y) * a.w + ax + x];
}

/* As A1111's ImageRNG.first; `own` and `other` have room for the size drawn. */
static void first(kw_noise_source *s, int i, const extent *n, float *own, float *other, float *out)
{
    const kw_noise_wish *w = &s->wish;
    size_t drawn = n->c * n->h * n->w;
    bool resized = n->h != (size_t)w->h || n->w != (size_t)w->w;
    uint64_t seed = s->seed[i];
    if (s->variation) {
        restart(s, i, s->variation[i]);
        draw(s, i, -1, other, drawn);
        restart(s, i, seed);
    }
    draw(s, i, -1, resized ? own : out, drawn);
    if (s->variation)
        vary(resized ? own : out, other, n, w->strength);
    if (!resized)
        return;
    restart(s, i, seed);
    draw(s, i, -1, out, s->each);
    paste(own, *n, out, (extent){ n->c, (size_t)w->h, (size_t)w->w });
}

void kw_noise_source_draw(kw_noise_source *s, int step, float *out)
{
    for (int i = 0; i < s->wish.n; i++, out += s->each)
        draw(s, i, step, out, s->each);
}

kw_status kw_noise_source_start(kw_noise_source *s, float *out, kw_err *e)
{
    const kw_noise_wish *w = &s->wish;
    bool resized = w->from_h > 0 && w->from_w > 0;
    extent n = { (size_t)w->channels, (size_t)(resized ? w->from_h : w->h), (size_t)(resized ? w->from_w : w->w) };
    size_t drawn = n.c * n.h * n.w;
    float *own = kw_alloc_array(s->a, drawn, sizeof *own), *other = kw_alloc_array(s->a, drawn, sizeof *other);
    if (!own || !other)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < w->n; i++) {
        first(s, i, &n, own, other, out + (size_t)i * s->each);
        if (w->delta)
            restart(s, i, s->seed[i] + w->delta);
    }
    return KW_OK;
}

/* ---- what samplers put in -------------------------------------------------------------------------------------- */

kw_status kw_noise_source_sampler(kw_noise_source *s, const kw_noise_draw *d, float *out, kw_err *e)
{
    if (!d->brownian) {
        kw_noise_source_draw(s, d->draw, out);
        return KW_OK;
    }
    bool begun = s->path;
    if (!begun && !(s->path = kw_alloc_array(s->a, (size_t)s->wish.n, sizeof *s->path)))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < s->wish.n; i++) {
        if (!begun)
            s->path[i] = kw__brownian_new(s->a, s->wish.kind, s->wish.seed[i], s->each, d->least, d->most);
        if (!s->path[i])
            return kw_fail(e, KW_ENOMEM, "out of memory");
        kw__brownian_draw(s->path[i], d->from, d->to, out + (size_t)i * s->each);
    }
    return KW_OK;
}
