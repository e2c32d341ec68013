/* windows.h - inside the text layer: a window of tokens being filled. */
#ifndef KW_TEXT_WINDOWS_H
#define KW_TEXT_WINDOWS_H

#include "bpe.h"

typedef struct {
    const kw_tokenizer *t;
    kw_arena *a;
    kw_windows *w;                        /* w->rows: not NULL where rows are to be kept */
    size_t ids_room;                      /* windows that w->ids and w->weights have room for */
    int32_t *id, *row;                    /* the window being filled: (length) */
    float *weight;
    size_t n, length;                     /* tokens in it, and how many fit */
    ptrdiff_t comma;                      /* where its last comma is, -1: none */
} kw__filler;

KW_MUST kw_status kw__windows_start(kw__filler *f, const kw_tokenizer *t, kw_arena *a, kw_windows *w, kw_err *e);
/* Writes the first n tokens as a window; those after them move to the front of the next. */
KW_MUST kw_status kw__windows_close(kw__filler *f, size_t n, kw_err *e);
/* Room for token id as A1111 makes it: a full window ends, at its last comma if that is at most `reach` tokens back. */
KW_MUST kw_status kw__windows_room(kw__filler *f, int32_t id, int reach, kw_err *e);
void kw__windows_add(kw__filler *f, int32_t id, int32_t row, float weight);       /* there is room */

#endif
