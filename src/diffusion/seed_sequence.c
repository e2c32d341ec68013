/*
 * seed_sequence.c - numpy.random.SeedSequence: words of entropy to seeds (after O'Neill's seed_seq_fe; constants and
 * order of mixing as in numpy, which promises to keep them).
 */
#include "brownian.h"

enum { POOL_MOST = 64 };

typedef struct { uint32_t constant, factor; } hash;

static uint32_t hashed(hash *h, uint32_t v)
{
    v ^= h->constant;
    h->constant *= h->factor;
    v *= h->constant;
    return v ^ v >> 16;
}

static uint32_t mixed(uint32_t x, uint32_t y)
{
    uint32_t r = 0xca01f9ddu * x - 0x4973f715u * y;
    return r ^ r >> 16;
}

/* a number's 32-bit words, lowest first; 0 is one word */
static size_t words_of(uint64_t v, uint32_t *out)
{
    out[0] = (uint32_t)v;
    out[1] = (uint32_t)(v >> 32);
    return out[1] ? 2 : 1;
}

void kw__seed_sequence(uint64_t entropy, const uint64_t *spawn, size_t n_spawn, int pool, uint32_t *out, size_t n)
{
    uint32_t word[POOL_MOST + 8] = { 0 }, state[POOL_MOST];
    hash h = { 0x43b0d7e5u, 0x931e8875u };
    size_t size = (size_t)(pool < POOL_MOST ? pool : POOL_MOST), n_words = words_of(entropy, word);
    if (n_spawn && n_words < size)        /* as if the entropy had filled the pool */
        n_words = size;
    for (size_t i = 0; i < n_spawn && i < 4; i++)
        n_words += words_of(spawn[i], word + n_words);
    for (size_t i = 0; i < size; i++)
        state[i] = hashed(&h, i < n_words ? word[i] : 0);
    for (size_t i = 0; i < size; i++)
        for (size_t k = 0; k < size; k++)
            if (i != k)
                state[k] = mixed(state[k], hashed(&h, state[i]));
    for (size_t i = size; i < n_words; i++)
        for (size_t k = 0; k < size; k++)
            state[k] = mixed(state[k], hashed(&h, word[i]));
    h = (hash){ 0x8b51f9ddu, 0x58f38dedu };
    for (size_t i = 0; i < n; i++)
        out[i] = hashed(&h, state[i % size]);
}
