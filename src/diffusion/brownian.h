/* brownian.h - Brownian paths for the samplers that want them, and numpy's SeedSequence behind them. */
#ifndef KW_DIFFUSION_BROWNIAN_H
#define KW_DIFFUSION_BROWNIAN_H

#include "pipeline.h"

/*
 * numpy.random.SeedSequence(entropy, spawn_key = spawn[0..n_spawn-1], pool_size = pool).generate_state(n): n words.
 * At most 4 spawn keys, a pool of 2 to 64 words.
 */
void kw__seed_sequence(uint64_t entropy, const uint64_t *spawn, size_t n_spawn, int pool, uint32_t *out, size_t n);

/* A path of n numbers between two sigmas (brownian.c); NULL when memory is gone. */
typedef struct kw__brownian kw__brownian;
KW_MUST kw__brownian *kw__brownian_new(kw_arena *a, kw_seeds kind, uint64_t seed, size_t n, double least, double most);
/* (W(to) - W(from))/sqrt|to - from| */
void kw__brownian_draw(kw__brownian *b, double from, double to, float *out);

#endif
