/*
 * combine.c - one tensor of several models. a, b ...: the models' weights; C: the base; d = model - C.
 *
 *   sum             a A + b B + ...
 *   add-difference  A + b (B - C) + ...
 *   slerp           sin((1-b)θ)/sin θ · A + sin(bθ)/sin θ · B,  cos θ = A·B / |A||B|; nearly parallel: the sum
 *   TIES            d smaller than the model's threshold = 0;  s = sgn(Σ w d);  C + scale · Σ' w d / Σ' |w|, Σ' over
 *                   those of sign s.  The sign is that of the larger mass, not of the larger number of models
 *   DARE            d = 0 with chance p, else d / (1 - p);  C + scale · Σ w d, or of TIES
 *
 * All in f32 but the angle, one operation after another as written, so that NumPy gives the same bits.
 */
#include "models.h"

#include <math.h>
#include <string.h>

typedef struct {
    const kw_merge *m;
    const kw__column *c;
    float w[KW_MERGE_MODELS], scale;
    uint32_t name;                        /* DARE: this tensor's random numbers */
} job;

/* ---- a piece ----------------------------------------------------------------------------------------------------- */

static void sum(const job *j, kw__pieces x, int64_t k, float *out)
{
    for (int64_t i = 0; i < k; i++)
        out[i] = j->w[0] * x[0][i];
    for (int n = 1; n < j->c->n; n++)
        for (int64_t i = 0; i < k; i++)
            out[i] += j->w[n] * x[n][i];
}

static void add_difference(const job *j, kw__pieces x, int64_t k, float *out)
{
    const float *c = x[j->c->n];
    memcpy(out, x[0], (size_t)k * sizeof *out);
    for (int n = 1; n < j->c->n; n++)
        for (int64_t i = 0; i < k; i++)
            out[i] += j->w[n] * (x[n][i] - c[i]);
}

static void differences(const job *j, kw__pieces x, int64_t k)
{
    for (int n = 0; n < j->c->n; n++)
        for (int64_t i = 0; i < k; i++)
            x[n][i] -= x[j->c->n][i];
}

static void trim(const job *j, kw__pieces x, int64_t k)
{
    for (int n = 0; n < j->c->n; n++)
        for (int64_t i = 0; i < k; i++)
            x[n][i] = fabsf(x[n][i]) >= j->m->threshold[n] ? x[n][i] : 0;
}

/* Number `at + i` of this tensor in model n stays if word at + i of its random numbers says so. at: a multiple of 4. */
static void drop(const job *j, kw__pieces x, int64_t at, int64_t k)
{
    const float p = (float)j->m->r.drop, rest = 1 - p;
    uint32_t word[4];
    for (int n = 0; n < j->c->n; n++)
        for (int64_t i = 0; i < k; i += 4) {
            const uint32_t counter[4] = { (uint32_t)((at + i) / 4), j->name, (uint32_t)n, KW_RNG_DROPOUT };
            kw_philox(counter, j->m->r.seed, word);
            for (int64_t b = 0; b < 4 && i + b < k; b++)
                x[n][i + b] = (float)(word[b] >> 8) * 0x1p-24f < p ? 0 : x[n][i + b] / rest;
        }
}

static void elect(const job *j, kw__pieces x, int64_t k, float *out)
{
    const float *c = x[j->c->n];
    for (int64_t i = 0; i < k; i++) {
        float mass = 0, total = 0, share = 0;
        for (int n = 0; n < j->c->n; n++)
            mass += j->w[n] * x[n][i];
        for (int n = 0; n < j->c->n; n++) {
            float v = j->w[n] * x[n][i];
            if ((mass > 0 && v > 0) || (mass < 0 && v < 0)) {
                total += v;
                share += fabsf(j->w[n]);
            }
        }
        out[i] = share > 0 ? c[i] + j->scale * (total / share) : c[i];
    }
}

static void add_all(const job *j, kw__pieces x, int64_t k, float *out)
{
    for (int64_t i = 0; i < k; i++) {
        float total = 0;
        for (int n = 0; n < j->c->n; n++)
            total += j->w[n] * x[n][i];
        out[i] = x[j->c->n][i] + j->scale * total;
    }
}

static void piece(const job *j, int64_t at, int64_t k, float *out)
{
    kw__pieces x;
    kw__column_load(j->c, at, k, x);
    switch (j->m->r.method) {
    case KW_MERGE_ADD: add_difference(j, x, k, out); return;
    case KW_MERGE_TIES: case KW_MERGE_DARE: case KW_MERGE_DARE_TIES: break;
    default: sum(j, x, k, out); return;   /* slerp: with other weights */
    }
    differences(j, x, k);
    if (j->m->r.method == KW_MERGE_TIES)
        trim(j, x, k);
    else
        drop(j, x, at, k);
    if (j->m->r.method == KW_MERGE_DARE)
        add_all(j, x, k, out);
    else
        elect(j, x, k, out);
}

/* ---- the angle --------------------------------------------------------------------------------------------------- */

typedef struct { double aa, ab, bb; } dots;

/* Pieces' sums are added in order: the same bits for any number of threads. */
static kw_status angle(const kw__column *c, double *cosine, kw_err *e)
{
    const int64_t n = kw__n_pieces(c->count);
    dots *by = kw_block_new((size_t)n * sizeof *by), all = { 0 };
    if (!by)
        return kw_fail(e, KW_ENOMEM, "out of memory");
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < n; p++) {
        kw__pieces x;
        const int64_t k = KW_MIN(c->count - p * KW__PIECE, (int64_t)KW__PIECE);
        kw__column_load(c, p * KW__PIECE, k, x);
        by[p] = (dots){ 0 };
        for (int64_t i = 0; i < k; i++) {
            by[p].aa += (double)x[0][i] * x[0][i];
            by[p].ab += (double)x[0][i] * x[1][i];
            by[p].bb += (double)x[1][i] * x[1][i];
        }
    }
    for (int64_t p = 0; p < n; p++)
        all = (dots){ all.aa + by[p].aa, all.ab + by[p].ab, all.bb + by[p].bb };
    kw_block_free(by);
    *cosine = all.aa > 0 && all.bb > 0 ? all.ab / sqrt(all.aa * all.bb) : 1;
    return KW_OK;
}

static kw_status slerp_weights(job *j, double t, kw_err *e)
{
    double cosine = 1;
    KW_TRY(angle(j->c, &cosine, e));
    j->w[0] = (float)(1 - t);
    j->w[1] = (float)t;
    if (fabs(cosine) > 0.9995)            /* as mergekit: the arc is a line, and sin θ has no digits left */
        return KW_OK;
    double theta = acos(cosine);
    j->w[0] = (float)(sin((1 - t) * theta) / sin(theta));
    j->w[1] = (float)(sin(t * theta) / sin(theta));
    return KW_OK;
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

int kw_merge_block(const kw_unet_config *u, kw_part p, const char *name)
{
    const kw_lora_names names = kw_lora_names_of(u);
    char path[KW_KEY_ROOM];
    const char *dot = strrchr(name, '.');
    const size_t n = dot ? (size_t)(dot - name) : strlen(name);
    if (p != KW_PART_UNET || n >= sizeof path)
        return 0;
    memcpy(path, name, n);
    path[n] = 0;
    int block = kw_lora_block(&names, p, path);
    if (block >= 0)
        return block;
    return kw_starts_with(name, "conv_norm_out.") || kw_starts_with(name, "conv_out.")
        ? 13 + names.unet.levels * (names.unet.layers + 1) : 1;
}

static kw_status weights(job *j, const char *name, kw_err *e)
{
    const kw_merge *m = j->m;
    double w[KW_MERGE_MODELS], scale = m->r.scale;
    const int last = m->r.n - 1;
    memcpy(w, m->r.weight, sizeof w);
    if (m->r.blocks) {
        const double x = (double)m->r.blocks[KW_MIN(kw_merge_block(&m->unet, j->c->part, name), KW_LORA_BLOCKS - 1)];
        if (m->r.method == KW_MERGE_SUM)
            w[0] = 1 - x;
        if (m->r.method <= KW_MERGE_SLERP)
            w[last] = x;
        else
            scale = x;
    }
    for (int i = 0; i < m->r.n; i++)
        j->w[i] = (float)w[i];
    j->scale = (float)scale;
    return m->r.method == KW_MERGE_SLERP ? slerp_weights(j, w[last], e) : KW_OK;
}

kw_status kw__combine(const kw_merge *m, const kw__column *c, const char *name, float *out, kw_err *e)
{
    job j = { .m = m, .c = c };
    KW_TRY(weights(&j, name, e));
    j.name = kw_crc32c((uint32_t)c->part, name, strlen(name));
    const int64_t n = kw__n_pieces(c->count);
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < n; p++)
        piece(&j, p * KW__PIECE, KW_MIN(c->count - p * KW__PIECE, (int64_t)KW__PIECE), out + p * KW__PIECE);
    return KW_OK;
}
