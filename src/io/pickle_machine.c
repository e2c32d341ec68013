/*
 * pickle_machine.c - what the opcodes of a pickle work on: bytes of the input, nodes, the stack with its marks, the
 * memo. Depth, stack, memo and nodes have limits; what lies below the last mark cannot be taken.
 */
#include "pickle_machine.h"

#include <string.h>

enum { MOST_STACK = 1 << 16, MOST_DEPTH = 64, MOST_MEMO = 1 << 20, SLAB = 512 };

kw_status kw__m_bad(kw__machine *m, const char *why)
{
    return kw_fail(m->e, KW_EDATA, N_("%s: its pickle, byte %zu: %s"), m->shown, (size_t)(m->p - m->start),
                   kw_translate(why));
}

kw_status kw__m_cut(kw__machine *m)
{
    return kw_advise(m->e, kw__m_bad(m, N_("it is cut off")),
                     N_("the file is damaged or its download was cut off: get it again"));
}

kw_status kw__m_no_memory(kw__machine *m) { return kw__no_memory(m->e, m->shown); }

/* ---- bytes of the input ------------------------------------------------------------------------------------------ */

kw_status kw__m_number(kw__machine *m, int bytes, uint64_t *v)
{
    if (m->end - m->p < bytes)
        return kw__m_cut(m);
    *v = 0;
    for (int i = 0; i < bytes; i++)
        *v |= (uint64_t)m->p[i] << 8 * i;
    m->p += bytes;
    return KW_OK;
}

kw_status kw__m_stretch(kw__machine *m, int bytes, const char **text, size_t *n)
{
    uint64_t length = 0;
    KW_TRY(kw__m_number(m, bytes, &length));
    if (length > (uint64_t)(m->end - m->p))
        return kw__m_cut(m);
    *text = (const char *)m->p;
    *n = (size_t)length;
    m->p += length;
    return KW_OK;
}

kw_status kw__m_line(kw__machine *m, const char **text, size_t *n)
{
    const unsigned char *at = memchr(m->p, '\n', (size_t)(m->end - m->p));
    if (!at)
        return kw__m_cut(m);
    *text = (const char *)m->p;
    *n = (size_t)(at - m->p);
    m->p = at + 1;
    return KW_OK;
}

/* ---- nodes and the stack ----------------------------------------------------------------------------------------- */

static kw_status node(kw__machine *m, kw__kind kind, kw__value **out)
{
    if (++m->nodes > KW__MOST_NODES)
        return kw__m_bad(m, N_("more values than a checkpoint has"));
    if (!m->slab_left) {
        if (!(m->slab = kw_alloc_array(m->arena, SLAB, sizeof *m->slab)))
            return kw__m_no_memory(m);
        m->slab_left = SLAB;
    }
    *out = &m->slab[SLAB - m->slab_left--];
    **out = (kw__value){ .kind = (uint8_t)kind, .depth = 1 };
    return KW_OK;
}

kw_status kw__m_push(kw__machine *m, kw__value *v)
{
    if (m->n >= MOST_STACK)
        return kw__m_bad(m, N_("more open values than a checkpoint has"));
    KW_TRY(kw_grow(m->arena, &m->stack, &m->capacity, m->n, sizeof *m->stack, m->e));
    m->stack[m->n++] = v;
    return KW_OK;
}

/* What lies below the last mark is not to be taken. */
size_t kw__m_open_values(const kw__machine *m) { return m->n - (m->n_marks ? m->marks[m->n_marks - 1] : 0); }

kw_status kw__m_pop(kw__machine *m, kw__value **v)
{
    if (!kw__m_open_values(m))
        return kw__m_bad(m, N_("a value is missing"));
    *v = m->stack[--m->n];
    return KW_OK;
}

kw_status kw__m_push_node(kw__machine *m, kw__kind kind, kw__value **out)
{
    KW_TRY(node(m, kind, out));
    return kw__m_push(m, *out);
}

kw_status kw__m_push_text(kw__machine *m, kw__kind kind, int bytes)
{
    kw__value *v = NULL;
    const char *text = NULL;
    size_t n = 0;
    KW_TRY(kw__m_stretch(m, bytes, &text, &n));
    KW_TRY(kw__m_push_node(m, kind, &v));
    v->of.text = text;
    v->n = n;
    return KW_OK;
}

kw_status kw__m_mark(kw__machine *m)
{
    if (m->n_marks == KW__MOST_MARKS)
        return kw__m_bad(m, N_("values nested more deeply than in a checkpoint"));
    m->marks[m->n_marks++] = m->n;
    return KW_OK;
}

static kw_status unmark(kw__machine *m, size_t *from)
{
    if (!m->n_marks)
        return kw__m_bad(m, N_("a mark is missing"));
    *from = m->marks[--m->n_marks];
    return KW_OK;
}

/* The values from number `from` on become items of v, which is no longer than they are. */
kw_status kw__m_gather(kw__machine *m, kw__value *v, size_t from)
{
    size_t count = m->n - from, room = 1;
    while (room < v->n)                                            /* rooms are powers of two */
        room *= 2;
    if (v->n + count > room || !v->items) {
        while (room < v->n + count)
            room *= 2;
        kw__value **items = kw_alloc_array(m->arena, room, sizeof *items);
        if (!items)
            return kw__m_no_memory(m);
        if (v->n)
            memcpy(items, v->items, v->n * sizeof *items);
        v->items = items;
    }
    for (size_t i = 0; i < count; i++) {
        v->items[v->n++] = m->stack[from + i];
        v->depth = KW_MAX(v->depth, (uint8_t)(m->stack[from + i]->depth + 1));
    }
    m->n = from;
    return v->depth > MOST_DEPTH ? kw__m_bad(m, N_("values nested more deeply than in a checkpoint")) : KW_OK;
}

kw_status kw__m_tuple(kw__machine *m, size_t count)
{
    kw__value *v = NULL;
    if (kw__m_open_values(m) < count)
        return kw__m_bad(m, N_("a value is missing"));
    KW_TRY(node(m, KW__TUPLE, &v));
    if (count)
        KW_TRY(kw__m_gather(m, v, m->n - count));
    return kw__m_push(m, v);
}

kw_status kw__m_marked_tuple(kw__machine *m)
{
    size_t from = 0;
    KW_TRY(unmark(m, &from));
    return kw__m_tuple(m, m->n - from);
}

/* Lists and dictionaries take what was pushed after them; whatever else is filled (a Lightning class) stays empty. */
kw_status kw__m_fill(kw__machine *m, kw__kind kind, size_t from)
{
    if (from < 1 || kw__m_open_values(m) < m->n - from + 1)
        return kw__m_bad(m, N_("a value is missing"));
    if (kind == KW__DICT && (m->n - from) % 2)
        return kw__m_bad(m, N_("a key without a value"));
    kw__value *v = m->stack[from - 1];
    if (v->kind == kind)
        return kw__m_gather(m, v, from);
    if (v->kind != KW__CALL)
        return kw__m_bad(m, N_("it puts items into what holds none"));
    m->n = from;
    return KW_OK;
}

kw_status kw__m_marked_fill(kw__machine *m, kw__kind kind)
{
    size_t from = 0;
    KW_TRY(unmark(m, &from));
    return kw__m_fill(m, kind, from);
}

/* ---- the memo ---------------------------------------------------------------------------------------------------- */

kw_status kw__m_put(kw__machine *m, uint64_t at)
{
    if (at >= MOST_MEMO)
        return kw__m_bad(m, N_("more remembered values than a checkpoint has"));
    if (!kw__m_open_values(m))
        return kw__m_bad(m, N_("a value is missing"));
    while (m->memo_room <= at) {
        size_t room = KW_MAX(m->memo_room * 2, (size_t)256);
        kw__value **memo = kw_alloc_array(m->arena, room, sizeof *memo);
        if (!memo)
            return kw__m_no_memory(m);
        if (m->n_memo)
            memcpy(memo, m->memo, m->memo_room * sizeof *memo);
        m->memo = memo;
        m->memo_room = room;
    }
    m->memo[at] = m->stack[m->n - 1];
    m->n_memo = KW_MAX(m->n_memo, (size_t)at + 1);
    return KW_OK;
}

kw_status kw__m_get(kw__machine *m, int bytes)
{
    uint64_t at = 0;
    KW_TRY(kw__m_number(m, bytes, &at));
    return at < m->n_memo && m->memo[at] ? kw__m_push(m, m->memo[at])
                                         : kw__m_bad(m, N_("it asks for a value that it did not keep"));
}

kw_status kw__m_put_numbered(kw__machine *m, int bytes)
{
    uint64_t at = 0;
    KW_TRY(kw__m_number(m, bytes, &at));
    return kw__m_put(m, at);
}
