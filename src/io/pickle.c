/*
 * pickle.c - a stack machine that builds nodes and does nothing else.
 *
 *   Read are the opcodes that pickle protocols 2 to 5 give for what torch.save writes. Refused, with their byte: DUP,
 *   POP, INST, OBJ, EXT, text persistent ids, protocols 0 and 1. Names are looked up in globals.c when they are met.
 *
 * Format: Python's Lib/pickletools.py. Each opcode adds at most one node, so memory follows the length of the input;
 * depth, stack, memo and nodes have limits of their own.
 */
#include "pickle.h"
#include "internal.h"

#include <string.h>

enum { MOST_STACK = 1 << 16, MOST_MARKS = 64, MOST_DEPTH = 64, MOST_MEMO = 1 << 20, SLAB = 512 };

typedef struct {
    kw_arena *arena;
    const char *shown;
    const unsigned char *start, *p, *end;
    kw__value **stack, **memo, *slab;
    size_t n, capacity, n_memo, memo_room, nodes, slab_left;
    size_t marks[MOST_MARKS], n_marks;
    bool done;
    kw_err *e;
} machine;

static kw_status bad(machine *m, const char *why)
{
    return kw_fail(m->e, KW_EDATA, N_("%s: its pickle, byte %zu: %s"), m->shown, (size_t)(m->p - m->start),
                   kw_translate(why));
}

static kw_status cut(machine *m)
{
    return kw_advise(m->e, bad(m, N_("it is cut off")),
                     N_("the file is damaged or its download was cut off: get it again"));
}

static kw_status no_memory(machine *m) { return kw__no_memory(m->e, m->shown); }

/* ---- bytes of the input ------------------------------------------------------------------------------------------ */

static kw_status number(machine *m, int bytes, uint64_t *v)
{
    if (m->end - m->p < bytes)
        return cut(m);
    *v = 0;
    for (int i = 0; i < bytes; i++)
        *v |= (uint64_t)m->p[i] << 8 * i;
    m->p += bytes;
    return KW_OK;
}

static kw_status stretch(machine *m, int bytes, const char **text, size_t *n)
{
    uint64_t length = 0;
    KW_TRY(number(m, bytes, &length));
    if (length > (uint64_t)(m->end - m->p))
        return cut(m);
    *text = (const char *)m->p;
    *n = (size_t)length;
    m->p += length;
    return KW_OK;
}

static kw_status line(machine *m, const char **text, size_t *n)
{
    const unsigned char *at = memchr(m->p, '\n', (size_t)(m->end - m->p));
    if (!at)
        return cut(m);
    *text = (const char *)m->p;
    *n = (size_t)(at - m->p);
    m->p = at + 1;
    return KW_OK;
}

/* ---- nodes and the stack ----------------------------------------------------------------------------------------- */

static kw_status node(machine *m, kw__kind kind, kw__value **out)
{
    if (++m->nodes > KW__MOST_NODES)
        return bad(m, N_("more values than a checkpoint has"));
    if (!m->slab_left) {
        if (!(m->slab = kw_alloc_array(m->arena, SLAB, sizeof *m->slab)))
            return no_memory(m);
        m->slab_left = SLAB;
    }
    *out = &m->slab[SLAB - m->slab_left--];
    **out = (kw__value){ .kind = (uint8_t)kind, .depth = 1 };
    return KW_OK;
}

static kw_status push(machine *m, kw__value *v)
{
    if (m->n >= MOST_STACK)
        return bad(m, N_("more open values than a checkpoint has"));
    KW_TRY(kw_grow(m->arena, &m->stack, &m->capacity, m->n, sizeof *m->stack, m->e));
    m->stack[m->n++] = v;
    return KW_OK;
}

/* What lies below the last mark is not to be taken. */
static size_t open_values(const machine *m) { return m->n - (m->n_marks ? m->marks[m->n_marks - 1] : 0); }

static kw_status pop(machine *m, kw__value **v)
{
    if (!open_values(m))
        return bad(m, N_("a value is missing"));
    *v = m->stack[--m->n];
    return KW_OK;
}

static kw_status push_node(machine *m, kw__kind kind, kw__value **out)
{
    KW_TRY(node(m, kind, out));
    return push(m, *out);
}

static kw_status push_int(machine *m, int64_t i)
{
    kw__value *v = NULL;
    KW_TRY(push_node(m, KW__INT, &v));
    v->of.i = i;
    return KW_OK;
}

static kw_status push_text(machine *m, kw__kind kind, int bytes)
{
    kw__value *v = NULL;
    const char *text = NULL;
    size_t n = 0;
    KW_TRY(stretch(m, bytes, &text, &n));
    KW_TRY(push_node(m, kind, &v));
    v->of.text = text;
    v->n = n;
    return KW_OK;
}

static kw_status unmark(machine *m, size_t *from)
{
    if (!m->n_marks)
        return bad(m, N_("a mark is missing"));
    *from = m->marks[--m->n_marks];
    return KW_OK;
}

/* The values from number `from` on become items of v, which is no longer than they are. */
static kw_status gather(machine *m, kw__value *v, size_t from)
{
    size_t count = m->n - from, room = 1;
    while (room < v->n)                                            /* rooms are powers of two */
        room *= 2;
    if (v->n + count > room || !v->items) {
        while (room < v->n + count)
            room *= 2;
        kw__value **items = kw_alloc_array(m->arena, room, sizeof *items);
        if (!items)
            return no_memory(m);
        if (v->n)
            memcpy(items, v->items, v->n * sizeof *items);
        v->items = items;
    }
    for (size_t i = 0; i < count; i++) {
        v->items[v->n++] = m->stack[from + i];
        v->depth = KW_MAX(v->depth, (uint8_t)(m->stack[from + i]->depth + 1));
    }
    m->n = from;
    return v->depth > MOST_DEPTH ? bad(m, N_("values nested more deeply than in a checkpoint")) : KW_OK;
}

static kw_status tuple(machine *m, size_t count)
{
    kw__value *v = NULL;
    if (open_values(m) < count)
        return bad(m, N_("a value is missing"));
    KW_TRY(node(m, KW__TUPLE, &v));
    if (count)
        KW_TRY(gather(m, v, m->n - count));
    return push(m, v);
}

static kw_status marked_tuple(machine *m)
{
    size_t from = 0;
    KW_TRY(unmark(m, &from));
    return tuple(m, m->n - from);
}

/* Lists and dictionaries take what was pushed after them; whatever else is filled (a Lightning class) stays empty. */
static kw_status fill(machine *m, kw__kind kind, size_t from)
{
    if (from < 1 || open_values(m) < m->n - from + 1)
        return bad(m, N_("a value is missing"));
    if (kind == KW__DICT && (m->n - from) % 2)
        return bad(m, N_("a key without a value"));
    kw__value *v = m->stack[from - 1];
    if (v->kind == kind)
        return gather(m, v, from);
    if (v->kind != KW__CALL)
        return bad(m, N_("it puts items into what holds none"));
    m->n = from;
    return KW_OK;
}

static kw_status marked_fill(machine *m, kw__kind kind)
{
    size_t from = 0;
    KW_TRY(unmark(m, &from));
    return fill(m, kind, from);
}

/* ---- the memo ---------------------------------------------------------------------------------------------------- */

static kw_status put(machine *m, uint64_t at)
{
    if (at >= MOST_MEMO)
        return bad(m, N_("more remembered values than a checkpoint has"));
    if (!open_values(m))
        return bad(m, N_("a value is missing"));
    while (m->memo_room <= at) {
        size_t room = KW_MAX(m->memo_room * 2, (size_t)256);
        kw__value **memo = kw_alloc_array(m->arena, room, sizeof *memo);
        if (!memo)
            return no_memory(m);
        if (m->n_memo)
            memcpy(memo, m->memo, m->memo_room * sizeof *memo);
        m->memo = memo;
        m->memo_room = room;
    }
    m->memo[at] = m->stack[m->n - 1];
    m->n_memo = KW_MAX(m->n_memo, (size_t)at + 1);
    return KW_OK;
}

static kw_status get(machine *m, int bytes)
{
    uint64_t at = 0;
    KW_TRY(number(m, bytes, &at));
    return at < m->n_memo && m->memo[at] ? push(m, m->memo[at])
                                         : bad(m, N_("it asks for a value that it did not keep"));
}

static kw_status put_numbered(machine *m, int bytes)
{
    uint64_t at = 0;
    KW_TRY(number(m, bytes, &at));
    return put(m, at);
}

/* ---- names and what is made with them ---------------------------------------------------------------------------- */

static void readable(const char *text, size_t n, char out[64])
{
    n = KW_MIN(n, (size_t)60);
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= ' ' && text[i] < 127 ? text[i] : '?';
    out[n] = 0;
}

static kw_status push_global(machine *m, const char *module, size_t n_module, const char *name, size_t n_name)
{
    char shown[64], of[64];
    kw__value *v = NULL;
    const kw__global *known = kw__global_find(module, n_module, name, n_name);
    if (!known) {
        readable(name, n_name, shown);
        readable(module, n_module, of);
        kw_status s = kw_fail(m->e, KW_EDATA,
                              N_("%s: its pickle asks for \"%s.%s\", which weights do not need: refused"),
                              m->shown, of, shown);
        return kw_advise(m->e, s, N_("nothing of it was run; look for the .safetensors file of the same model, and be "
                                     "careful with this one in other programs"));
    }
    KW_TRY(push_node(m, KW__GLOBAL, &v));
    v->of.global = known;
    return KW_OK;
}

static kw_status global(machine *m)
{
    const char *module = NULL, *name = NULL;
    size_t n_module = 0, n_name = 0;
    KW_TRY(line(m, &module, &n_module));
    KW_TRY(line(m, &name, &n_name));
    return push_global(m, module, n_module, name, n_name);
}

static kw_status stack_global(machine *m)
{
    kw__value *module = NULL, *name = NULL;
    KW_TRY(pop(m, &name));
    KW_TRY(pop(m, &module));
    if (module->kind != KW__TEXT || name->kind != KW__TEXT)
        return bad(m, N_("a name that is no text"));
    return push_global(m, module->of.text, module->n, name->of.text, name->n);
}

/* f(args): kept as it stands; OrderedDict() is a dictionary, OrderedDict([(k, v), ...]) one that is full. */
static kw_status call(machine *m, kw__value *f, kw__value *args)
{
    kw__value *v = NULL;
    if (f->kind != KW__GLOBAL || args->kind != KW__TUPLE)
        return bad(m, N_("it calls what is no known name"));
    bool dict = f->of.global->role == KW__ORDERED_DICT;
    KW_TRY(push_node(m, dict ? KW__DICT : KW__CALL, &v));
    if (!dict) {
        v->of.global = f->of.global;
        v->items = args->items;
        v->n = args->n;
        v->depth = args->depth;
        return KW_OK;
    }
    kw__value *pairs = args->n ? args->items[0] : NULL;
    m->nodes += pairs ? pairs->n : 0;     /* one list may be asked for again and again */
    if (m->nodes > KW__MOST_NODES)
        return bad(m, N_("more values than a checkpoint has"));
    for (size_t i = 0; pairs && i < pairs->n; i++) {
        if (pairs->kind != KW__LIST || (pairs->items[i]->kind != KW__TUPLE && pairs->items[i]->kind != KW__LIST)
            || pairs->items[i]->n != 2)
            return bad(m, N_("an OrderedDict of something else than pairs"));
        size_t from = m->n;
        KW_TRY(push(m, pairs->items[i]->items[0]));
        KW_TRY(push(m, pairs->items[i]->items[1]));
        KW_TRY(gather(m, v, from));
    }
    return KW_OK;
}

static kw_status reduce(machine *m, int operands)
{
    kw__value *f = NULL, *args = NULL, *unused = NULL;
    if (operands == 3)
        KW_TRY(pop(m, &unused));
    KW_TRY(pop(m, &args));
    KW_TRY(pop(m, &f));
    return call(m, f, args);
}

/* A state for the object below: attributes, which no weights have. */
static kw_status build(machine *m)
{
    kw__value *state = NULL;
    KW_TRY(pop(m, &state));
    return open_values(m) ? KW_OK : bad(m, N_("a value is missing"));
}

static kw_status stored(machine *m)
{
    kw__value *id = NULL, *v = NULL;
    KW_TRY(pop(m, &id));
    KW_TRY(push_node(m, KW__STORED, &v));
    if (id->kind == KW__INT || id->kind == KW__TEXT || id->kind == KW__BYTES) {      /* the oldest form: a number */
        v->n = 1;
        v->items = kw_alloc_array(m->arena, 1, sizeof *v->items);
        if (!v->items)
            return no_memory(m);
        v->items[0] = id;
        return KW_OK;
    }
    if (id->kind != KW__TUPLE)
        return bad(m, N_("the name of stored numbers is neither a list nor a number"));
    v->items = id->items;
    v->n = id->n;
    return KW_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static kw_status push_long(machine *m)
{
    const char *text = NULL;
    size_t n = 0;
    kw__value *v = NULL;
    uint64_t i = 0;
    KW_TRY(stretch(m, 1, &text, &n));
    KW_TRY(push_node(m, n <= 8 ? KW__INT : KW__LONG, &v));
    for (size_t k = 0; k < 8 && n <= 8; k++)
        i |= (uint64_t)(k < n ? (unsigned char)text[k] : n && text[n - 1] < 0 ? 0xff : 0) << 8 * k;
    if (n <= 8)
        v->of.i = (int64_t)i;
    else {
        v->of.text = text;
        v->n = n;
    }
    return KW_OK;
}

static kw_status push_float(machine *m)
{
    union { uint64_t u; double f; } x = { 0 };
    kw__value *v = NULL;
    KW_TRY(number(m, 8, &x.u));
    x.u = __builtin_bswap64(x.u);
    KW_TRY(push_node(m, KW__FLOAT, &v));
    v->of.f = x.f;
    return KW_OK;
}

static kw_status push_number(machine *m, int bytes)
{
    uint64_t v = 0;
    KW_TRY(number(m, bytes, &v));
    return push_int(m, bytes == 4 ? (int64_t)(int32_t)(uint32_t)v : (int64_t)v);
}

static kw_status push_truth(machine *m, bool truth)
{
    kw__value *v = NULL;
    KW_TRY(push_node(m, KW__BOOL, &v));
    v->of.i = truth;
    return KW_OK;
}

/* ---- the opcodes ------------------------------------------------------------------------------------------------- */

static kw_status mark(machine *m)
{
    if (m->n_marks == MOST_MARKS)
        return bad(m, N_("values nested more deeply than in a checkpoint"));
    m->marks[m->n_marks++] = m->n;
    return KW_OK;
}

static kw_status protocol(machine *m)
{
    uint64_t v = 0;
    KW_TRY(number(m, 1, &v));
    return v >= 2 && v <= 5 ? KW_OK : bad(m, N_("a pickle protocol that PyTorch does not write"));
}

static kw_status stop(machine *m)
{
    if (m->n != 1 || m->n_marks)
        return bad(m, N_("it ends with values left over"));
    m->done = true;
    return KW_OK;
}

static kw_status unknown(machine *m, unsigned char code)
{
    return kw_fail(m->e, KW_EDATA, N_("%s: its pickle, byte %zu: opcode 0x%02x, which PyTorch does not write: refused"),
                   m->shown, (size_t)(m->p - m->start) - 1, code);
}

static kw_status step(machine *m)
{
    kw__value *v = NULL;
    uint64_t length = 0;
    unsigned char code = *m->p++;
    switch (code) {
    case 0x80: return protocol(m);
    case 0x95: return number(m, 8, &length);                                        /* FRAME: no news */
    case '.': return stop(m);
    case '(': return mark(m);
    case 'N': return push_node(m, KW__NONE, &v);
    case 0x88: case 0x89: return push_truth(m, code == 0x88);
    case 'J': return push_number(m, 4);
    case 'K': return push_number(m, 1);
    case 'M': return push_number(m, 2);
    case 0x8a: return push_long(m);
    case 'G': return push_float(m);
    case 'X': return push_text(m, KW__TEXT, 4);
    case 0x8c: return push_text(m, KW__TEXT, 1);
    case 0x8d: return push_text(m, KW__TEXT, 8);
    case 'T': return push_text(m, KW__TEXT, 4);                                     /* texts of Python 2 */
    case 'U': return push_text(m, KW__TEXT, 1);
    case 'B': return push_text(m, KW__BYTES, 4);
    case 'C': return push_text(m, KW__BYTES, 1);
    case 0x8e: case 0x96: return push_text(m, KW__BYTES, 8);
    case ']': case 0x8f: return push_node(m, KW__LIST, &v);                         /* a set is a list here */
    case '}': return push_node(m, KW__DICT, &v);
    case ')': return tuple(m, 0);
    case 0x85: return tuple(m, 1);
    case 0x86: return tuple(m, 2);
    case 0x87: return tuple(m, 3);
    case 't': case 0x91: return marked_tuple(m);
    case 'a': return m->n ? fill(m, KW__LIST, m->n - 1) : bad(m, N_("a value is missing"));
    case 'e': case 0x90: return marked_fill(m, KW__LIST);
    case 's': return m->n > 1 ? fill(m, KW__DICT, m->n - 2) : bad(m, N_("a value is missing"));
    case 'u': return marked_fill(m, KW__DICT);
    case 'q': return put_numbered(m, 1);
    case 'r': return put_numbered(m, 4);
    case 0x94: return put(m, m->n_memo);
    case 'h': return get(m, 1);
    case 'j': return get(m, 4);
    case 'c': return global(m);
    case 0x93: return stack_global(m);
    case 'R': case 0x81: return reduce(m, 2);                                       /* NEWOBJ is the same to us */
    case 0x92: return reduce(m, 3);
    case 'b': return build(m);
    case 'Q': return stored(m);
    default: return unknown(m, code);
    }
}

kw_status kw__pickle_read(kw_arena *a, const char *shown, const void *p, size_t n, kw__value **out, size_t *used,
                          kw_err *e)
{
    machine m = { .arena = a, .shown = shown, .start = p, .p = p, .end = (const unsigned char *)p + n, .e = e };
    if (n && *m.p != 0x80)
        return bad(&m, N_("a pickle protocol that PyTorch does not write"));
    while (!m.done) {
        if (m.p == m.end)
            return cut(&m);
        KW_TRY(step(&m));
    }
    *out = m.stack[0];
    *used = (size_t)(m.p - m.start);
    return KW_OK;
}

kw__value *kw__pickle_get(const kw__value *dict, const char *key)
{
    for (size_t i = dict->kind == KW__DICT ? dict->n / 2 : 0; i > 0; i--)
        if (kw__is_text(dict->items[2 * i - 2], key))
            return dict->items[2 * i - 1];
    return NULL;
}
