/*
 * pickle_machine.h - the state of the machine that reads a pickle, and its steps; internal to pickle.c.
 *
 * All fail with KW_EDATA and the byte at which it happened, or KW_ENOMEM.
 */
#ifndef KW_IO_PICKLE_MACHINE_H
#define KW_IO_PICKLE_MACHINE_H

#include "internal.h"
#include "pickle.h"

enum { KW__MOST_MARKS = 64 };

typedef struct {
    kw_arena *arena;
    const char *shown;
    const unsigned char *start, *p, *end; /* of the input; p: the next byte */
    kw__value **stack, **memo, *slab;
    size_t n, capacity, n_memo, memo_room, nodes, slab_left;
    size_t marks[KW__MOST_MARKS], n_marks;
    bool done;
    kw_err *e;
} kw__machine;

KW_MUST kw_status kw__m_bad(kw__machine *m, const char *why);     /* untranslated */
KW_MUST kw_status kw__m_no_memory(kw__machine *m);
KW_MUST kw_status kw__m_cut(kw__machine *m);                      /* the input ends too early */

/* The next bytes: a number, a text behind its length of so many bytes, a line without its end. */
KW_MUST kw_status kw__m_number(kw__machine *m, int bytes, uint64_t *v);
KW_MUST kw_status kw__m_stretch(kw__machine *m, int bytes, const char **text, size_t *n);
KW_MUST kw_status kw__m_line(kw__machine *m, const char **text, size_t *n);

KW_MUST kw_status kw__m_push(kw__machine *m, kw__value *v);
KW_MUST kw_status kw__m_push_node(kw__machine *m, kw__kind kind, kw__value **out);
KW_MUST kw_status kw__m_push_text(kw__machine *m, kw__kind kind, int bytes);
KW_MUST kw_status kw__m_pop(kw__machine *m, kw__value **v);
size_t kw__m_open_values(const kw__machine *m);                   /* above the last mark */
KW_MUST kw_status kw__m_mark(kw__machine *m);

/* The values from number `from` on: items of v; a tuple of the last `count`; into the list or dictionary below. */
KW_MUST kw_status kw__m_gather(kw__machine *m, kw__value *v, size_t from);
KW_MUST kw_status kw__m_tuple(kw__machine *m, size_t count);
KW_MUST kw_status kw__m_marked_tuple(kw__machine *m);
KW_MUST kw_status kw__m_fill(kw__machine *m, kw__kind kind, size_t from);
KW_MUST kw_status kw__m_marked_fill(kw__machine *m, kw__kind kind);

/* The memo: the top is kept under a number; one that was kept is pushed. */
KW_MUST kw_status kw__m_put(kw__machine *m, uint64_t at);
KW_MUST kw_status kw__m_put_numbered(kw__machine *m, int bytes);
KW_MUST kw_status kw__m_get(kw__machine *m, int bytes);

#endif
