/*
 * trim.c - TIES' thresholds: of each model's difference from the base, over all its numbers together (as the paper has
 * it), the smallest magnitude that still belongs to the largest `density` of them.
 *
 * Exact without keeping anything: magnitudes of f32 are ordered as their bits are. One reading counts them by their
 * upper 15 bits, a second one by the lower 16 of the bin in which the count is reached.
 */
#include "models.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { HIGH = 1 << 15, LOW = 1 << 16 };

typedef struct {
    kw_merge *m;
    uint64_t *count;                      /* threads x models x LOW */
    int threads;
    uint32_t bin[KW_MERGE_MODELS];        /* of the second reading */
    bool second;
    kw_merge_tell *tell;
    void *user;
    uint64_t done;
} counter;

static uint64_t *counts(const counter *c, int thread, int model)
{
    return c->count + ((size_t)thread * (size_t)c->m->r.n + (size_t)model) * LOW;
}

static void count_piece(const counter *c, const kw__column *t, int64_t at)
{
    kw__pieces x;
    const int64_t k = KW_MIN(t->count - at, (int64_t)KW__PIECE);
    kw__column_load(t, at, k, x);
    for (int n = 0; n < t->n; n++) {
        uint64_t *to = counts(c, omp_get_thread_num(), n);
        for (int64_t i = 0; i < k; i++) {
            const float d = fabsf(x[n][i] - x[t->n][i]);
            uint32_t bits;
            memcpy(&bits, &d, sizeof bits);
            bits &= 0x7fffffff;
            if (!c->second)
                to[bits >> 16]++;
            else if (bits >> 16 == c->bin[n])
                to[bits & 0xffff]++;
        }
    }
}

static kw_status read_all(counter *c, kw_err *e)
{
    kw_source *a = c->m->r.model[0];
    memset(c->count, 0, (size_t)c->threads * (size_t)c->m->r.n * LOW * sizeof *c->count);
    for (int p = 0; p < KW_N_PARTS; p++)
        for (size_t i = 0; c->m->part[p] && i < kw_source_n(a, (kw_part)p); i++) {
            kw__column t;
            kw__column_of(c->m, (kw_part)p, kw_source_find(a, (kw_part)p, kw_source_at(a, (kw_part)p, i)->name), &t);
            if (!kw__is_float(t.t[0]->dtype))
                continue;
            const int64_t n = kw__n_pieces(t.count);
#pragma omp parallel for schedule(static) num_threads(c->threads)
            for (int64_t k = 0; k < n; k++)
                count_piece(c, &t, k * KW__PIECE);
            kw__column_drop(&t, 0);
            c->done += (uint64_t)t.count;
            if (c->tell)
                KW_TRY(c->tell(c->user, c->done, e));
        }
    return KW_OK;
}

/* The largest bin from which on there are at least *rest numbers; *rest becomes how many of its own are meant. */
static uint32_t reach(const counter *c, int model, uint32_t bins, uint64_t *rest)
{
    for (uint32_t b = bins; b-- > 0;) {
        uint64_t here = 0;
        for (int t = 0; t < c->threads; t++)
            here += counts(c, t, model)[b];
        if (here >= *rest)
            return b;
        *rest -= here;
    }
    return 0;
}

static kw_status find(counter *c, kw_err *e)
{
    uint64_t rest[KW_MERGE_MODELS];
    uint64_t keep = (uint64_t)(c->m->r.density * (double)c->m->numbers + 0.5);
    KW_TRY(read_all(c, e));
    for (int n = 0; n < c->m->r.n; n++) {
        rest[n] = KW_MAX(keep, (uint64_t)1);
        c->bin[n] = reach(c, n, HIGH, &rest[n]);
    }
    c->second = true;
    KW_TRY(read_all(c, e));
    for (int n = 0; n < c->m->r.n; n++) {
        const uint32_t bits = c->bin[n] << 16 | reach(c, n, LOW, &rest[n]);
        memcpy(&c->m->threshold[n], &bits, sizeof bits);
    }
    return KW_OK;
}

kw_status kw_merge_prepare(kw_merge *m, kw_merge_tell *tell, void *user, kw_err *e)
{
    if (m->r.method != KW_MERGE_TIES)
        return KW_OK;
    counter c = { .m = m, .threads = KW_MIN(omp_get_max_threads(), 16), .tell = tell, .user = user };
    c.count = kw_block_new((size_t)c.threads * (size_t)m->r.n * LOW * sizeof *c.count);
    kw_status s = c.count ? find(&c, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_block_free(c.count);
    return s;
}
