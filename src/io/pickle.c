/*
 * pickle.c - a stack machine that builds nodes and does nothing else.
 *
 *   Read are the opcodes that pickle protocols 2 to 5 give for what torch.save writes. Refused, with their byte: DUP,
 *   POP, INST, OBJ, EXT, text persistent ids, protocols 0 and 1. Names are looked up in globals.c when they are met.
 *
 * Format: Python's Lib/pickletools.py. Each opcode adds at most one node, so memory follows the length of the input;
 * depth, stack, memo and nodes have limits of their own (pickle_machine.c).
 */
#include "pickle_machine.h"

#include <string.h>

/* ---- names and what is made with them ---------------------------------------------------------------------------- */

static void readable(const char *text, size_t n, char out[64])
{
    n = KW_MIN(n, (size_t)60);
    for (size_t i = 0; i < n; i++)
        out[i] = text[i] >= ' ' && text[i] < 127 ? text[i] : '?';
    out[n] = 0;
}

static kw_status push_global(kw__machine *m, const char *module, size_t n_module, const char *name, size_t n_name)
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
    KW_TRY(kw__m_push_node(m, KW__GLOBAL, &v));
    v->of.global = known;
    return KW_OK;
}

static kw_status global(kw__machine *m)
{
    const char *module = NULL, *name = NULL;
    size_t n_module = 0, n_name = 0;
    KW_TRY(kw__m_line(m, &module, &n_module));
    KW_TRY(kw__m_line(m, &name, &n_name));
    return push_global(m, module, n_module, name, n_name);
}

static kw_status stack_global(kw__machine *m)
{
    kw__value *module = NULL, *name = NULL;
    KW_TRY(kw__m_pop(m, &name));
    KW_TRY(kw__m_pop(m, &module));
    if (module->kind != KW__TEXT || name->kind != KW__TEXT)
        return kw__m_bad(m, N_("a name that is no text"));
    return push_global(m, module->of.text, module->n, name->of.text, name->n);
}

/* f(args): kept as it stands; OrderedDict() is a dictionary, OrderedDict([(k, v), ...]) one that is full. */
static kw_status call(kw__machine *m, kw__value *f, kw__value *args)
{
    kw__value *v = NULL;
    if (f->kind != KW__GLOBAL || args->kind != KW__TUPLE)
        return kw__m_bad(m, N_("it calls what is no known name"));
    bool dict = f->of.global->role == KW__ORDERED_DICT;
    KW_TRY(kw__m_push_node(m, dict ? KW__DICT : KW__CALL, &v));
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
        return kw__m_bad(m, N_("more values than a checkpoint has"));
    for (size_t i = 0; pairs && i < pairs->n; i++) {
        if (pairs->kind != KW__LIST || (pairs->items[i]->kind != KW__TUPLE && pairs->items[i]->kind != KW__LIST)
            || pairs->items[i]->n != 2)
            return kw__m_bad(m, N_("an OrderedDict of something else than pairs"));
        size_t from = m->n;
        KW_TRY(kw__m_push(m, pairs->items[i]->items[0]));
        KW_TRY(kw__m_push(m, pairs->items[i]->items[1]));
        KW_TRY(kw__m_gather(m, v, from));
    }
    return KW_OK;
}

static kw_status reduce(kw__machine *m, int operands)
{
    kw__value *f = NULL, *args = NULL, *unused = NULL;
    if (operands == 3)
        KW_TRY(kw__m_pop(m, &unused));
    KW_TRY(kw__m_pop(m, &args));
    KW_TRY(kw__m_pop(m, &f));
    return call(m, f, args);
}

/* A state for the object below: attributes, which no weights have. */
static kw_status build(kw__machine *m)
{
    kw__value *state = NULL;
    KW_TRY(kw__m_pop(m, &state));
    return kw__m_open_values(m) ? KW_OK : kw__m_bad(m, N_("a value is missing"));
}

static kw_status stored(kw__machine *m)
{
    kw__value *id = NULL, *v = NULL;
    KW_TRY(kw__m_pop(m, &id));
    KW_TRY(kw__m_push_node(m, KW__STORED, &v));
    if (id->kind == KW__INT || id->kind == KW__TEXT || id->kind == KW__BYTES) {      /* the oldest form: a number */
        v->n = 1;
        v->items = kw_alloc_array(m->arena, 1, sizeof *v->items);
        if (!v->items)
            return kw__m_no_memory(m);
        v->items[0] = id;
        return KW_OK;
    }
    if (id->kind != KW__TUPLE)
        return kw__m_bad(m, N_("the name of stored numbers is neither a list nor a number"));
    v->items = id->items;
    v->n = id->n;
    return KW_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static kw_status push_int(kw__machine *m, int64_t i)
{
    kw__value *v = NULL;
    KW_TRY(kw__m_push_node(m, KW__INT, &v));
    v->of.i = i;
    return KW_OK;
}

static kw_status push_long(kw__machine *m)
{
    const char *text = NULL;
    size_t n = 0;
    kw__value *v = NULL;
    uint64_t i = 0;
    KW_TRY(kw__m_stretch(m, 1, &text, &n));
    KW_TRY(kw__m_push_node(m, n <= 8 ? KW__INT : KW__LONG, &v));
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

static kw_status push_float(kw__machine *m)
{
    union { uint64_t u; double f; } x = { 0 };
    kw__value *v = NULL;
    KW_TRY(kw__m_number(m, 8, &x.u));
    x.u = __builtin_bswap64(x.u);
    KW_TRY(kw__m_push_node(m, KW__FLOAT, &v));
    v->of.f = x.f;
    return KW_OK;
}

static kw_status push_number(kw__machine *m, int bytes)
{
    uint64_t v = 0;
    KW_TRY(kw__m_number(m, bytes, &v));
    return push_int(m, bytes == 4 ? (int64_t)(int32_t)(uint32_t)v : (int64_t)v);
}

static kw_status push_truth(kw__machine *m, bool truth)
{
    kw__value *v = NULL;
    KW_TRY(kw__m_push_node(m, KW__BOOL, &v));
    v->of.i = truth;
    return KW_OK;
}

/* ---- the opcodes ------------------------------------------------------------------------------------------------- */

static kw_status protocol(kw__machine *m)
{
    uint64_t v = 0;
    KW_TRY(kw__m_number(m, 1, &v));
    return v >= 2 && v <= 5 ? KW_OK : kw__m_bad(m, N_("a pickle protocol that PyTorch does not write"));
}

static kw_status stop(kw__machine *m)
{
    if (m->n != 1 || m->n_marks)
        return kw__m_bad(m, N_("it ends with values left over"));
    m->done = true;
    return KW_OK;
}

static kw_status unknown(kw__machine *m, unsigned char code)
{
    return kw_fail(m->e, KW_EDATA, N_("%s: its pickle, byte %zu: opcode 0x%02x, which PyTorch does not write: refused"),
                   m->shown, (size_t)(m->p - m->start) - 1, code);
}

static kw_status step(kw__machine *m)
{
    kw__value *v = NULL;
    uint64_t length = 0;
    unsigned char code = *m->p++;
    switch (code) {
    case 0x80: return protocol(m);
    case 0x95: return kw__m_number(m, 8, &length);                                        /* FRAME: no news */
    case '.': return stop(m);
    case '(': return kw__m_mark(m);
    case 'N': return kw__m_push_node(m, KW__NONE, &v);
    case 0x88: case 0x89: return push_truth(m, code == 0x88);
    case 'J': return push_number(m, 4);
    case 'K': return push_number(m, 1);
    case 'M': return push_number(m, 2);
    case 0x8a: return push_long(m);
    case 'G': return push_float(m);
    case 'X': return kw__m_push_text(m, KW__TEXT, 4);
    case 0x8c: return kw__m_push_text(m, KW__TEXT, 1);
    case 0x8d: return kw__m_push_text(m, KW__TEXT, 8);
    case 'T': return kw__m_push_text(m, KW__TEXT, 4);                                     /* texts of Python 2 */
    case 'U': return kw__m_push_text(m, KW__TEXT, 1);
    case 'B': return kw__m_push_text(m, KW__BYTES, 4);
    case 'C': return kw__m_push_text(m, KW__BYTES, 1);
    case 0x8e: case 0x96: return kw__m_push_text(m, KW__BYTES, 8);
    case ']': case 0x8f: return kw__m_push_node(m, KW__LIST, &v);                         /* a set is a list here */
    case '}': return kw__m_push_node(m, KW__DICT, &v);
    case ')': return kw__m_tuple(m, 0);
    case 0x85: return kw__m_tuple(m, 1);
    case 0x86: return kw__m_tuple(m, 2);
    case 0x87: return kw__m_tuple(m, 3);
    case 't': case 0x91: return kw__m_marked_tuple(m);
    case 'a': return m->n ? kw__m_fill(m, KW__LIST, m->n - 1) : kw__m_bad(m, N_("a value is missing"));
    case 'e': case 0x90: return kw__m_marked_fill(m, KW__LIST);
    case 's': return m->n > 1 ? kw__m_fill(m, KW__DICT, m->n - 2) : kw__m_bad(m, N_("a value is missing"));
    case 'u': return kw__m_marked_fill(m, KW__DICT);
    case 'q': return kw__m_put_numbered(m, 1);
    case 'r': return kw__m_put_numbered(m, 4);
    case 0x94: return kw__m_put(m, m->n_memo);
    case 'h': return kw__m_get(m, 1);
    case 'j': return kw__m_get(m, 4);
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
    kw__machine m = { .arena = a, .shown = shown, .start = p, .p = p, .end = (const unsigned char *)p + n, .e = e };
    if (n && *m.p != 0x80)
        return kw__m_bad(&m, N_("a pickle protocol that PyTorch does not write"));
    while (!m.done) {
        if (m.p == m.end)
            return kw__m_cut(&m);
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
