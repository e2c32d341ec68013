/*
 * lora_sum.c - several LoRAs as one, or one at another rank.
 *
 *   concatenated   down = (down_1; down_2),  up = (w_1 s_1 up_1, w_2 s_2 up_2):  up·down = Σ w s up·down, exactly
 *   reduced        Σ w ΔW of a layer by its singular values, so that LoHa, LoKr and the like become LoRAs too
 */
#include "factors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct { const kw_delta *d; double w; } part_of_layer;
typedef struct { part_of_layer by[KW_MERGE_LORAS]; int n; kw__place place; double scale; } layer;
typedef struct { const kw_merge_lora *l; size_t n; kw_arena *a; kw_err *e; } work;

static kw_status no_memory(kw_err *e) { return kw_fail(e, KW_ENOMEM, "out of memory"); }

static double strength(const kw_merge_lora *l, const kw_delta *d)
{
    int block = l->blocks ? kw_lora_block(&l->file->names, d->part, d->path) : KW_NONE;
    return (d->part == KW_PART_UNET ? l->unet : l->text) * (block >= 0 ? (double)l->blocks[block] : 1);
}

/* ---- what can be added ------------------------------------------------------------------------------------------- */

/* Is W' - W the same whatever W is, and all of it in the weight? */
static bool is_sum(const kw_delta *d)
{
    const bool dora = d->t[KW_ROLE_DORA] || d->t[KW_ROLE_MAGNITUDE];
    const bool kind = d->kind == KW_DELTA_LORA || d->kind == KW_DELTA_LOHA || d->kind == KW_DELTA_LOKR
        || d->kind == KW_DELTA_FULL;
    return kind && !dora && !kw_delta_has_bias(d);
}

static kw_status check(const work *w, bool exact)
{
    for (size_t i = 0; i < w->n; i++) {
        const kw_lora_file *f = w->l[i].file;
        if (f->n_unknown) {
            kw_status s = kw_fail(w->e, KW_EDATA, N_("%s: %zu keys mean nothing here, the first is %s"), f->path,
                                  f->n_unknown, f->unknown[0]);
            return kw_advise(w->e, s, N_("they would be lost, so nothing is written"));
        }
        const int64_t width = kw_lora_file_width(f), first = kw_lora_file_width(w->l[0].file);
        if (f->names.xl != w->l[0].file->names.xl || (width && first && width != first))
            return kw_fail(w->e, KW_EDATA, N_("%s is not for the models that %s is for"), f->path, w->l[0].file->path);
        for (size_t k = 0; k < f->n; k++) {
            const kw_delta *d = &f->item[k];
            if (exact ? kw_delta_is_branch(d) && !d->t[KW_ROLE_MID] && is_sum(d) : is_sum(d))
                continue;
            kw_status s = kw_fail(w->e, KW_EDATA, N_("%s: %s (%s) cannot be added to other LoRAs"), f->path, d->module,
                                  kw_delta_name(d->kind));
            return kw_advise(w->e, s, is_sum(d) ? N_("--rank R turns it into a LoRA by singular values")
                                                : N_("merge it into a model, and extract a LoRA from that"));
        }
    }
    return KW_OK;
}

/* ---- layers ------------------------------------------------------------------------------------------------------ */

/* The U-Net's convolutions with a window of 3 x 3, by name: LoHa's and LoKr's factors may be matrices, which do not
   tell. */
static bool is_wide(const kw_delta *d)
{
    static const char *const ends[] = { ".conv", ".conv1", ".conv2", "conv_in", "conv_out" };
    for (size_t i = 0; i < KW_LEN(ends); i++)
        if (d->part == KW_PART_UNET && kw_ends_with(d->path, ends[i]))
            return true;
    return false;
}

/* The weight's shape: a LoRA's of a convolution is that of its first factor. */
static kw__place place_of(const kw_delta *d)
{
    kw__place p = { .part = d->part, .path = d->path, .rank = 2 };
    const kw_tensor *down = d->t[KW_ROLE_DOWN], *whole = d->t[KW_ROLE_DIFF] ? d->t[KW_ROLE_DIFF] : d->t[KW_ROLE_MID];
    if (!whole && d->kind != KW_DELTA_LORA)
        for (int i = 0; i < KW_N_ROLES; i++)              /* LoHa's and LoKr's Tucker cores have the window */
            if (d->t[i] && d->t[i]->rank == 4)
                whole = d->t[i];
    const kw_tensor *window = whole ? whole : down;
    kw_delta_size(d, &p.shape[0], &p.shape[1]);
    if (window && window->rank == 4) {
        p.rank = 4;
        p.shape[2] = window->shape[2];
        p.shape[3] = window->shape[3];
        p.shape[1] /= p.shape[2] * p.shape[3];
    } else if (is_wide(d) && p.shape[1] % 9 == 0) {
        p.rank = 4;
        p.shape[2] = p.shape[3] = 3;
        p.shape[1] /= 9;
    }
    return p;
}

static int by_layer(const part_of_layer *a, const part_of_layer *b)
{
    if (a->d->part != b->d->part)
        return a->d->part < b->d->part ? -1 : 1;
    return strcmp(a->d->path, b->d->path);
}

/* All deltas of all files, those of one layer together; of one layer in the order of the files. */
static kw_status gather(const work *w, part_of_layer **list, size_t *n)
{
    size_t most = 0, at = 0;
    for (size_t i = 0; i < w->n; i++)
        most += w->l[i].file->n;
    if (!(*list = kw_alloc_array(w->a, most + 1, sizeof **list)))
        return no_memory(w->e);
    for (size_t i = 0; i < w->n; i++)
        for (size_t k = 0; k < w->l[i].file->n; k++)
            (*list)[at++] = (part_of_layer){ &w->l[i].file->item[k], strength(&w->l[i], &w->l[i].file->item[k]) };
    *n = at;
    for (size_t i = 1; i < at; i++) {     /* files are sorted: insertion keeps equals in order */
        part_of_layer one = (*list)[i];
        size_t k = i;
        for (; k && by_layer(&one, &(*list)[k - 1]) < 0; k--)
            (*list)[k] = (*list)[k - 1];
        (*list)[k] = one;
    }
    return KW_OK;
}

static bool next(const part_of_layer *list, size_t n, size_t *at, layer *out)
{
    if (*at == n)
        return false;
    *out = (layer){ .place = place_of(list[*at].d), .scale = 1 };
    for (size_t first = *at; *at < n && out->n < KW_MERGE_LORAS && list[*at].d->part == list[first].d->part
         && !strcmp(list[*at].d->path, list[first].d->path); ++*at)
        out->by[out->n++] = list[*at];
    return true;
}

static kw_status same_size(const work *w, const layer *l)
{
    for (int i = 1; i < l->n; i++) {
        const kw__place p = place_of(l->by[i].d);
        if (kw__rows(&p) != kw__rows(&l->place) || kw__columns(&p) != kw__columns(&l->place))
            return kw_fail(w->e, KW_EDATA, N_("%s has other sizes in each of the files"), l->place.path);
    }
    return KW_OK;
}

/* ---- concatenated ------------------------------------------------------------------------------------------------ */

static void join(const layer *l, int64_t r, float *up, float *down)
{
    const int64_t rows = kw__rows(&l->place), columns = kw__columns(&l->place);
    int64_t at = 0;
    for (int i = 0; i < l->n; at += l->by[i++].d->rank) {
        const kw_delta *d = l->by[i].d;
        const kw_tensor *u = d->t[KW_ROLE_UP], *v = d->t[KW_ROLE_DOWN];
        const float f = (float)(l->by[i].w * d->scale);
        kw_convert(KW_F32, down + at * columns, v->dtype, v->data, (size_t)(d->rank * columns));
        for (int64_t k = 0; k < rows; k++) {
            float *to = up + k * r + at;
            kw_convert(KW_F32, to, u->dtype, (const char *)u->data + (size_t)(k * d->rank) * kw_dtype_size(u->dtype),
                       (size_t)d->rank);
            for (int x = 0; x < d->rank; x++)
                to[x] *= f;
        }
    }
}

static int rank_of(const layer *l)
{
    int r = 0;
    for (int i = 0; i < l->n; i++)
        r += l->by[i].d->rank;
    return r;
}

/* want NULL: as they are. */
static kw_status concatenate(const work *w, kw__maker *m, const layer *l, double scale, const kw_rank_want *want)
{
    const int64_t r = rank_of(l);
    float *up = kw_block_new((size_t)(kw__rows(&l->place) * r) * sizeof *up),
          *down = kw_block_new((size_t)(kw__columns(&l->place) * r) * sizeof *down);
    kw_status s = up && down ? KW_OK : no_memory(w->e);
    if (!s) {
        join(l, r, up, down);
        s = want ? kw__maker_reduce_product(m, &l->place, up, down, r, scale, want, w->e)
                 : kw__maker_add(m, &l->place, (int)r, 1, up, down, 1, 1, w->e);
    }
    kw_block_free(up);
    kw_block_free(down);
    return s;
}

/* ---- by singular values ------------------------------------------------------------------------------------------ */

/* One file at strength 1 keeps alpha / rank, as kohya's resize_lora. */
static double kept_scale(const layer *l)
{
    const kw_delta *d = l->by[0].d;
    return l->n == 1 && l->by[0].w == 1 && d->kind == KW_DELTA_LORA && d->scale > 0 ? d->scale : 1;
}

static bool is_product(const layer *l)
{
    for (int i = 0; i < l->n; i++)
        if (!kw_delta_is_branch(l->by[i].d) || l->by[i].d->t[KW_ROLE_MID])
            return false;
    return true;
}

static kw_status reduce(const work *w, kw__maker *m, const layer *l, const kw_rank_want *want)
{
    const int64_t rows = kw__rows(&l->place), columns = kw__columns(&l->place);
    const size_t bytes = (size_t)(rows * columns) * sizeof(float);
    if (is_product(l) && 2 * rank_of(l) < KW_MIN(rows, columns))
        return concatenate(w, m, l, kept_scale(l), want);
    float *d = kw_block_new(bytes);
    if (!d)
        return no_memory(w->e);
    memset(d, 0, bytes);
    kw_status s = KW_OK;
    for (int i = 0; i < l->n && !s; i++)
        s = kw_delta_apply(l->by[i].d, l->by[i].w, d, rows, columns, w->e);
    if (!s)
        s = kw__maker_reduce(m, &l->place, d, kept_scale(l), want, w->e);
    kw_block_free(d);
    return s;
}

kw_status kw_lora_sum(kw_arena *a, const kw_merge_lora *l, size_t n, const kw_rank_want *want, kw_dtype type,
                      kw_merge_tell *tell, void *user, kw_made_lora *out, kw_err *e)
{
    kw_err local;
    const work w = { l, n, a, e ? e : &local };
    part_of_layer *list = NULL;
    size_t total = 0, at = 0;
    kw__maker m;
    layer one;
    KW_TRY(check(&w, want == NULL));
    KW_TRY(gather(&w, &list, &total));
    KW_TRY(kw__maker_new(a, total, type, out, &m, w.e));
    m.names = l[0].file->names;
    while (next(list, total, &at, &one))
        m.rank = KW_MAX(m.rank, rank_of(&one));
    at = 0;
    while (next(list, total, &at, &one)) {
        KW_TRY(same_size(&w, &one));
        KW_TRY(want ? reduce(&w, &m, &one, want) : concatenate(&w, &m, &one, 1, NULL));
        if (tell)
            KW_TRY(tell(user, at, w.e));
    }
    kw__maker_finish(&m);
    return KW_OK;
}
