/*
 * report.c - do these models belong together? Cosines and norms of weights and of their differences from the base, by
 * part and by block of the U-Net.
 *
 *   cos(A, B), |B - A| / |A|     fine-tunes of one model: 0.95 to 1, 0.01 to 0.3; strangers: near 0, near 1.4
 *   cos(A - C, B - C)            near 1: they learned the same; near 0: different things; below: one undoes the other
 *   conflicts                    share of numbers that are moved in opposite directions; by chance 50 %
 */
#include "models.h"

#include <math.h>
#include <string.h>

/* d = B - A, x = A - C, y = B - C */
typedef struct { double aa, bb, ab, dd, cc, xx, yy, xy, both, against; } sums;

static void add(sums *to, const sums *s)
{
    double *t = &to->aa;
    const double *f = &s->aa;
    for (size_t i = 0; i < sizeof *s / sizeof *t; i++)
        t[i] += f[i];
}

static sums of_piece(kw__pieces p, int other, int base, int64_t k)
{
    sums s = { 0 };
    for (int64_t i = 0; i < k; i++) {
        const double a = p[0][i], b = p[other][i], c = p[base][i], x = a - c, y = b - c;
        s.aa += a * a;
        s.bb += b * b;
        s.ab += a * b;
        s.dd += (b - a) * (b - a);
        s.cc += c * c;
        s.xx += x * x;
        s.yy += y * y;
        s.xy += x * y;
        s.both += x != 0 && y != 0;
        s.against += x * y < 0;
    }
    return s;
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

enum { PLACES = KW_N_PARTS + KW_LORA_BLOCKS };        /* parts, then blocks of the U-Net */

typedef struct {
    const kw_merge *m;
    sums at[KW_MERGE_MODELS][PLACES];
    uint64_t numbers[PLACES];
    sums *by;                             /* pieces x models */
} table;

static void add_column(table *t, const kw__column *c, int place, int block)
{
    const int64_t n = kw__n_pieces(c->count);
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < n; p++) {
        kw__pieces x;
        const int64_t k = KW_MIN(c->count - p * KW__PIECE, (int64_t)KW__PIECE);
        kw__column_load(c, p * KW__PIECE, k, x);
        for (int i = 1; i < c->n; i++)
            t->by[p * c->n + i] = of_piece(x, i, c->n, k);
    }
    for (int i = 1; i < c->n; i++)
        for (int64_t p = 0; p < n; p++) {
            add(&t->at[i][place], &t->by[p * c->n + i]);
            if (place == KW_PART_UNET)
                add(&t->at[i][KW_N_PARTS + block], &t->by[p * c->n + i]);
        }
    t->numbers[place] += (uint64_t)c->count;
    if (place == KW_PART_UNET)
        t->numbers[KW_N_PARTS + block] += (uint64_t)c->count;
}

static double over(double x, double y) { return y > 0 ? x / y : 0; }

static kw_merge_row row_of(const table *t, int model, int place)
{
    const sums *s = &t->at[model][place];
    const double lengths = sqrt(s->aa) * sqrt(s->bb), moved = sqrt(s->xx) * sqrt(s->yy);
    return (kw_merge_row){
        .model = model, .part = place < KW_N_PARTS ? (kw_part)place : KW_PART_UNET,
        .block = place < KW_N_PARTS ? KW_NONE : place - KW_N_PARTS, .numbers = t->numbers[place],
        .cosine = over(s->ab, lengths), .change = over(sqrt(s->dd), sqrt(s->aa)),
        .from_base = { over(sqrt(s->xx), sqrt(s->cc)), over(sqrt(s->yy), sqrt(s->cc)) },
        .delta_cosine = over(s->xy, moved), .conflicts = over(s->against, s->both),
    };
}

/* ---- the verdict ------------------------------------------------------------------------------------------------- */

const char *kw_verdict_text(kw_verdict v)
{
    static const char *const texts[] = {
#define X(name, text) text,
        KW_VERDICT_MAP(X)
#undef X
    };
    return texts[v];
}

const char *kw_verdict_advice(kw_verdict v)
{
    switch (v) {
    case KW_VERDICT_FAR: return N_("try a small weight first, or blocks, and look at pictures");
    case KW_VERDICT_STRANGERS: return N_("train one of them further on pictures of the other instead");
    case KW_VERDICT_WRONG_BASE: return N_("--base wants the model that all of them were trained from");
    case KW_VERDICT_CONFLICT: return N_("--method ties elects a direction for each number");
    case KW_VERDICT_NOISE_TYPES: return N_("only models with the same kind of prediction can be merged");
    default: return NULL;
    }
}

bool kw_verdict_is_good(kw_verdict v) { return v == KW_VERDICT_GOOD; }

/* By the U-Net, or the first part there is. */
static kw_verdict verdict(const table *t, int model)
{
    int place = 0;
    const kw_source *const *s = (const kw_source *const *)t->m->r.model;
    while (place < KW_N_PARTS - 1 && !t->numbers[place])
        place++;
    const kw_merge_row w = row_of(t, model, place);
    bool same = true;
    for (int p = 0; p < KW_N_PARTS; p++)
        same &= t->at[model][p].dd == 0;
    if (strcmp(kw_source_noise(s[0])->prediction_type, kw_source_noise(s[model])->prediction_type))
        return KW_VERDICT_NOISE_TYPES;
    if (same)
        return KW_VERDICT_SAME;
    if (w.cosine < 0.5)
        return KW_VERDICT_STRANGERS;
    if (t->m->r.base && KW_MAX(w.from_base[0], w.from_base[1]) > 0.7)
        return KW_VERDICT_WRONG_BASE;
    if (w.cosine < 0.9)
        return KW_VERDICT_FAR;
    return t->m->r.base && w.delta_cosine < -0.1 ? KW_VERDICT_CONFLICT : KW_VERDICT_GOOD;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static kw_status read_all(table *t, kw_merge_tell *tell, void *user, kw_err *e)
{
    kw_source *a = t->m->r.model[0];
    uint64_t done = 0;
    for (int p = 0; p < KW_N_PARTS; p++)
        for (size_t i = 0; t->m->part[p] && i < kw_source_n(a, (kw_part)p); i++) {
            const kw_tensor *first = kw_source_find(a, (kw_part)p, kw_source_at(a, (kw_part)p, i)->name);
            kw__column c;
            done += (uint64_t)kw_tensor_count(first);
            if (first->rank < 2 || !kw__is_float(first->dtype))
                continue;
            kw__column_of(t->m, (kw_part)p, first, &c);
            add_column(t, &c, p, KW_MIN(kw_merge_block(&t->m->unet, (kw_part)p, first->name), KW_LORA_BLOCKS - 1));
            kw__column_drop(&c, 0);
            if (tell)
                KW_TRY(tell(user, done, e));
        }
    return KW_OK;
}

static kw_status finish(const table *t, kw_merge_report *out, kw_err *e)
{
    const int n = t->m->r.n;
    *out = (kw_merge_report){ .has_base = t->m->r.base != NULL };
    if (!(out->row = kw_alloc_array(t->m->arena, (size_t)n * PLACES, sizeof *out->row)))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 1; i < n; i++) {
        for (int p = 0; p < PLACES; p++)
            if (t->numbers[p])
                out->row[out->n++] = row_of(t, i, p);
        out->verdict[i] = verdict(t, i);
    }
    return KW_OK;
}

kw_status kw_merge_compare(kw_merge *m, kw_merge_tell *tell, void *user, kw_merge_report *out, kw_err *e)
{
    int64_t most = 0;
    for (int p = 0; p < KW_N_PARTS; p++)
        for (size_t i = 0; m->part[p] && i < kw_source_n(m->r.model[0], (kw_part)p); i++)
            most = KW_MAX(most, kw_tensor_count(kw_source_at(m->r.model[0], (kw_part)p, i)));
    table *t = kw_block_new(sizeof *t);
    sums *by = kw_block_new((size_t)kw__n_pieces(most) * (size_t)m->r.n * sizeof *by + 8);
    kw_status s = t && by ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s) {
        memset(t, 0, sizeof *t);
        t->m = m;
        t->by = by;
        s = read_all(t, tell, user, e);
    }
    if (!s)
        s = finish(t, out, e);
    kw_block_free(t);
    kw_block_free(by);
    return s;
}
