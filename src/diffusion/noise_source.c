/* noise_source.c - seeds to noise: one generator per picture, as A1111's ImageRNG and diffusers' generators. */
#include "pipeline.h"

static const char *const names[] = {
#define X(name, text, help) text,
    KW_SEEDS_MAP(X)
#undef X
};

const char *kw_seeds_name(kw_seeds k) { return names[k]; }

struct kw_noise_source {
    kw_seeds kind;
    int n;
    size_t each;
    uint64_t *seed;
    kw_torch_rng *cpu;
    kw_cuda_rng *gpu;
};

kw_noise_source *kw_noise_source_new(kw_arena *a, kw_seeds kind, const uint64_t *seed, int n, size_t each)
{
    kw_noise_source *s = kw_alloc(a, sizeof *s);
    size_t count = (size_t)n;
    if (!s)
        return NULL;
    *s = (kw_noise_source){ .kind = kind, .n = n, .each = each, .seed = kw_alloc_array(a, count, sizeof *s->seed) };
    if (kind == KW_SEEDS_CPU)
        s->cpu = kw_alloc_array(a, count, sizeof *s->cpu);
    if (kind == KW_SEEDS_GPU)
        s->gpu = kw_alloc_array(a, count, sizeof *s->gpu);
    if (!s->seed || (kind == KW_SEEDS_CPU && !s->cpu) || (kind == KW_SEEDS_GPU && !s->gpu))
        return NULL;
    for (int i = 0; i < n; i++) {
        s->seed[i] = seed[i];
        if (s->cpu)
            kw_torch_seed(&s->cpu[i], seed[i]);
        if (s->gpu)
            s->gpu[i].seed = seed[i];
    }
    return s;
}

void kw_noise_source_draw(kw_noise_source *s, int step, float *out)
{
    for (int i = 0; i < s->n; i++, out += s->each)
        if (s->cpu)
            kw_torch_randn(&s->cpu[i], out, s->each);
        else if (s->gpu)
            kw_cuda_randn(&s->gpu[i], out, s->each);
        else
            kw_rng_normals((kw_rng){ .seed = s->seed[i], .stream = KW_RNG_SAMPLE, .step = (uint32_t)(step + 1) }, 0,
                           out, s->each);
}
