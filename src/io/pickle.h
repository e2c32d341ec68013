/*
 * pickle.h - Python's pickle format read as data: nothing is called, imported or built.
 *
 * What a program would make by calling something is a node KW__CALL: the function's place in the list of known names
 * and its arguments. Names that are not in the list are refused. Nodes live on the arena; a node may have many parents.
 */
#ifndef KW_IO_PICKLE_H
#define KW_IO_PICKLE_H

#include "io.h"

typedef enum {
    KW__NONE, KW__BOOL, KW__INT, KW__FLOAT,
    KW__LONG,                             /* an integer of more than 8 bytes: text holds them, little-endian */
    KW__TEXT, KW__BYTES,
    KW__TUPLE, KW__LIST,
    KW__DICT,                             /* items: key, value, key, value ... */
    KW__GLOBAL, KW__CALL, KW__STORED,     /* CALL: items are the arguments; STORED: items are a persistent id's */
} kw__kind;

/* What a known name stands for. */
typedef enum {
    KW__OTHER,                            /* harmless, and not needed: never looked into */
    KW__ORDERED_DICT,
    KW__TENSOR, KW__TENSOR_3, KW__PARAMETER,
    KW__STORAGE, KW__UNTYPED, KW__NUMBERS,/* NUMBERS: torch.float16 and the like */
} kw__role;

typedef struct { const char *module, *name; kw__role role; kw_dtype dtype; } kw__global;

typedef struct kw__value kw__value;
struct kw__value {
    uint8_t kind, depth;
    union { int64_t i; double f; const kw__global *global; const char *text; } of;
    size_t n;                             /* bytes of the text; items */
    kw__value **items;
};

enum { KW__MOST_NODES = 1 << 20, KW__MOST_PICKLE = 64 << 20 };

/* One pickle from the start of p; *used: where it ended. KW_EDATA names the byte, or the name that is not known. */
KW_MUST kw_status kw__pickle_read(kw_arena *a, const char *shown, const void *p, size_t n, kw__value **out,
                                  size_t *used, kw_err *e);

static inline bool kw__is_text(const kw__value *v, const char *text)
{
    size_t n = 0;
    while (text[n])
        n++;
    return (v->kind == KW__TEXT || v->kind == KW__BYTES) && v->n == n && !__builtin_memcmp(v->of.text, text, n);
}

/* The value of a text key, the last one as in Python; NULL: not there. */
kw__value *kw__pickle_get(const kw__value *dict, const char *key);
const kw__global *kw__global_find(const char *module, size_t n_module, const char *name, size_t n_name);

#endif
