/*
 * windows.c - token ids in windows of 77: bos, 75 tokens, eos, padding.
 *
 * All front ends agree on a window's form: bos, the tokens, one eos, then padding to the end (which is eos again for
 * SD 1.x, "!" for SD 2.x). They differ in what goes into which window: prompts follow A1111 (BREAK, commas), captions
 * kohya's scripts (75 after 75, the rest cut).
 */
#include "windows.h"

#include <string.h>

typedef kw__filler filler;

kw_status kw__windows_start(filler *f, const kw_tokenizer *t, kw_arena *a, kw_windows *w, kw_err *e)
{
    w->width = (size_t)t->max_length;
    *f = (filler){ .t = t, .a = a, .w = w, .length = w->width - 2, .comma = -1 };
    f->id = kw_alloc_array(a, f->length, sizeof *f->id);
    f->row = kw_alloc_array(a, f->length, sizeof *f->row);
    f->weight = kw_alloc_array(a, f->length, sizeof *f->weight);
    if (!f->id || !f->row || !f->weight)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for the windows of a text"));
    return KW_OK;
}

/* Room for one more window, doubling. */
static kw_status reserve(kw_arena *a, kw_windows *w, size_t *room, kw_err *e)
{
    if (w->n < *room)
        return KW_OK;
    size_t more = *room ? 2 * *room : 4;
    int32_t *ids = kw_alloc_array(a, more * w->width, sizeof *ids);
    int32_t *rows = w->rows ? kw_alloc_array(a, more * w->width, sizeof *rows) : NULL;
    float *weights = kw_alloc_array(a, more * w->width, sizeof *weights);
    if (!ids || !weights || (w->rows && !rows))
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %zu windows"), more);
    if (w->n) {
        memcpy(ids, w->ids, w->n * w->width * sizeof *ids);
        memcpy(weights, w->weights, w->n * w->width * sizeof *weights);
    }
    if (w->n && rows)
        memcpy(rows, w->rows, w->n * w->width * sizeof *rows);
    w->rows = rows;
    w->ids = ids;
    w->weights = weights;
    *room = more;
    return KW_OK;
}

kw_status kw__windows_close(filler *f, size_t n, kw_err *e)
{
    kw_windows *w = f->w;
    KW_TRY(reserve(f->a, w, &f->ids_room, e));
    int32_t *ids = w->ids + w->n * w->width;
    float *weights = w->weights + w->n * w->width;
    for (size_t i = 0; i < w->width; i++) {
        bool text = i >= 1 && i <= n;
        ids[i] = text ? f->id[i - 1] : i == 0 ? f->t->bos : i == n + 1 ? f->t->eos : f->t->pad;
        weights[i] = text ? f->weight[i - 1] : 1;
        if (w->rows)
            w->rows[w->n * w->width + i] = text ? f->row[i - 1] : -1;
    }
    w->n++;
    memmove(f->id, f->id + n, (f->n - n) * sizeof *f->id);
    memmove(f->row, f->row + n, (f->n - n) * sizeof *f->row);
    memmove(f->weight, f->weight + n, (f->n - n) * sizeof *f->weight);
    f->n -= n;
    f->comma = -1;
    return KW_OK;
}

kw_status kw__windows_room(filler *f, int32_t id, int reach, kw_err *e)
{
    if (id == f->t->comma)
        f->comma = (ptrdiff_t)f->n;
    else if (reach > 0 && f->n == f->length && f->comma >= 0 && (ptrdiff_t)f->n - f->comma <= reach)
        KW_TRY(kw__windows_close(f, (size_t)f->comma + 1, e));
    return f->n == f->length ? kw__windows_close(f, f->n, e) : KW_OK;
}

static kw_status put(filler *f, int32_t id, kw_err *e)
{
    KW_TRY(kw__windows_room(f, id, 0, e));
    kw__windows_add(f, id, -1, 1);
    return KW_OK;
}

void kw__windows_add(filler *f, int32_t id, int32_t row, float weight)
{
    f->id[f->n] = id;
    f->row[f->n] = row;
    f->weight[f->n++] = weight;
    f->w->used++;
}

kw_status kw_caption_windows(const kw_tokenizer *t, kw_arena *a, const char *caption, size_t windows, kw_windows *out,
                             kw_err *e)
{
    filler f;
    kw_tokens tokens;
    *out = (kw_windows){ 0 };
    KW_TRY(kw__windows_start(&f, t, a, out, e));
    KW_TRY(kw_tokenize(t, a, caption, strlen(caption), &tokens, e));
    size_t n = KW_MIN(tokens.n, windows * f.length);
    for (size_t i = 0; i < n; i++)
        KW_TRY(put(&f, tokens.ids[i], e));
    while (out->n < windows)
        KW_TRY(kw__windows_close(&f, f.n, e));
    out->cut = tokens.n - n;
    out->cut_text = out->cut ? caption + tokens.at[n] : NULL;
    if (out->cut && !(out->cut_text = kw_strdup(a, out->cut_text)))
        return kw_fail(e, KW_ENOMEM, N_("out of memory for a caption"));
    return KW_OK;
}

kw_status kw_windows_extend(const kw_tokenizer *t, kw_arena *a, kw_windows *w, size_t n, kw_err *e)
{
    filler f;
    KW_TRY(kw__windows_start(&f, t, a, w, e));
    f.ids_room = w->n;                    /* no more than what it has: it is copied before it grows */
    while (w->n < n)
        KW_TRY(kw__windows_close(&f, 0, e));
    return KW_OK;
}
