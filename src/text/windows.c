/*
 * windows.c - token ids in windows of 77: bos, 75 tokens, eos, padding.
 *
 * All front ends agree on a window's form: bos, the tokens, one eos, then padding to the end (which is eos again for
 * SD 1.x, "!" for SD 2.x). They differ in what goes into which window: prompts follow A1111 (BREAK, commas), captions
 * kohya's scripts (75 after 75, the rest cut).
 */
#include "bpe.h"

#include <string.h>

typedef struct {
    const kw_tokenizer *t;
    kw_arena *a;
    kw_windows *w;
    size_t ids_room;                      /* windows that w->ids and w->weights have room for */
    int32_t *id;                          /* the window being filled: (length) */
    float *weight;
    size_t n, length;                     /* tokens in it, and how many fit */
    ptrdiff_t comma;                      /* where its last comma is, -1: none */
} filler;

static kw_status start(filler *f, const kw_tokenizer *t, kw_arena *a, kw_windows *w, kw_err *e)
{
    w->width = (size_t)t->max_length;
    *f = (filler){ .t = t, .a = a, .w = w, .length = w->width - 2, .comma = -1 };
    f->id = kw_alloc_array(a, f->length, sizeof *f->id);
    f->weight = kw_alloc_array(a, f->length, sizeof *f->weight);
    if (!f->id || !f->weight)
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
    float *weights = kw_alloc_array(a, more * w->width, sizeof *weights);
    if (!ids || !weights)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %zu windows"), more);
    if (w->n) {
        memcpy(ids, w->ids, w->n * w->width * sizeof *ids);
        memcpy(weights, w->weights, w->n * w->width * sizeof *weights);
    }
    w->ids = ids;
    w->weights = weights;
    *room = more;
    return KW_OK;
}

/* Write the first n tokens as a window; those after them move to the front of the next. */
static kw_status close_window(filler *f, size_t n, kw_err *e)
{
    kw_windows *w = f->w;
    KW_TRY(reserve(f->a, w, &f->ids_room, e));
    int32_t *ids = w->ids + w->n * w->width;
    float *weights = w->weights + w->n * w->width;
    for (size_t i = 0; i < w->width; i++) {
        bool text = i >= 1 && i <= n;
        ids[i] = text ? f->id[i - 1] : i == 0 ? f->t->bos : i == n + 1 ? f->t->eos : f->t->pad;
        weights[i] = text ? f->weight[i - 1] : 1;
    }
    w->n++;
    memmove(f->id, f->id + n, (f->n - n) * sizeof *f->id);
    memmove(f->weight, f->weight + n, (f->n - n) * sizeof *f->weight);
    f->n -= n;
    f->comma = -1;
    return KW_OK;
}

static kw_status put(filler *f, int32_t id, float weight, int reach, kw_err *e)
{
    if (id == f->t->comma)
        f->comma = (ptrdiff_t)f->n;
    else if (reach > 0 && f->n == f->length && f->comma >= 0 && (ptrdiff_t)f->n - f->comma <= reach)
        KW_TRY(close_window(f, (size_t)f->comma + 1, e));
    if (f->n == f->length)
        KW_TRY(close_window(f, f->n, e));
    f->id[f->n] = id;
    f->weight[f->n++] = weight;
    f->w->used++;
    return KW_OK;
}

kw_status kw_prompt_windows(const kw_tokenizer *t, kw_arena *a, const kw_prompt *p, int comma_reach, kw_windows *out,
                            kw_err *e)
{
    filler f;
    *out = (kw_windows){ 0 };
    KW_TRY(start(&f, t, a, out, e));
    for (size_t i = 0; i < p->n; i++) {
        const kw_segment *s = &p->segments[i];
        kw_tokens tokens;
        if (s->is_break) {
            KW_TRY(close_window(&f, f.n, e));
            continue;
        }
        KW_TRY(kw_tokenize(t, a, s->text, strlen(s->text), &tokens, e));
        for (size_t k = 0; k < tokens.n; k++)
            KW_TRY(put(&f, tokens.ids[k], (float)s->weight, comma_reach, e));
    }
    return f.n || !out->n ? close_window(&f, f.n, e) : KW_OK;
}

kw_status kw_caption_windows(const kw_tokenizer *t, kw_arena *a, const char *caption, size_t windows, kw_windows *out,
                             kw_err *e)
{
    filler f;
    kw_tokens tokens;
    *out = (kw_windows){ 0 };
    KW_TRY(start(&f, t, a, out, e));
    KW_TRY(kw_tokenize(t, a, caption, strlen(caption), &tokens, e));
    size_t n = KW_MIN(tokens.n, windows * f.length);
    for (size_t i = 0; i < n; i++)
        KW_TRY(put(&f, tokens.ids[i], 1, 0, e));
    while (out->n < windows)
        KW_TRY(close_window(&f, f.n, e));
    out->cut = tokens.n - n;
    out->cut_text = out->cut ? caption + tokens.at[n] : NULL;
    if (out->cut && !(out->cut_text = kw_strdup(a, out->cut_text)))
        return kw_fail(e, KW_ENOMEM, N_("out of memory for a caption"));
    return KW_OK;
}

kw_status kw_windows_extend(const kw_tokenizer *t, kw_arena *a, kw_windows *w, size_t n, kw_err *e)
{
    filler f;
    KW_TRY(start(&f, t, a, w, e));
    f.ids_room = w->n;                    /* no more than what it has: it is copied before it grows */
    while (w->n < n)
        KW_TRY(close_window(&f, 0, e));
    return KW_OK;
}
