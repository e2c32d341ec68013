/* keys.h - rules between two spellings of parameter names; see keys.c for the pattern language. */
#ifndef KW_IO_KEYS_H
#define KW_IO_KEYS_H

#include "io.h"

/* What happens to the data between the file's tensor and the canonical one. */
typedef enum {
    KW__SAME,
    KW__LINEAR,                           /* a 1x1 convolution (o, i, 1, 1) is a linear layer (o, i) */
    KW__THIRD_Q, KW__THIRD_K, KW__THIRD_V,/* rows of a tensor that holds q, k, v one below the other */
    KW__TRANSPOSED,
    KW__DROP,                             /* known, and not needed */
} kw__how;

typedef struct { const char *ldm, *canonical; kw__how how; } kw__rule;

/* Where a placeholder of leaves stands, the rest of the name is one of these and .weight or .bias ("x.*": any). */
typedef struct { char letter; const char *ldm, *canonical; kw__how how; } kw__leaf;

typedef struct { const kw__rule *rules; size_t n; } kw__rules;
extern const kw__rules kw__rule_tables[KW_N_KEYS];
extern const kw__leaf kw__leaves[];
extern const size_t kw__n_leaves;

/* Tries rule r on a file's name; true: canonical (empty for KW__DROP) and how are set. */
bool kw__rule_from_ldm(const kw__rule *r, const kw_key_shape *shape, const char *ldm, char canonical[KW_KEY_ROOM],
                       kw__how *how);

/* The other way, from a canonical name; how: what was done on the way here, and is undone now. */
bool kw__rule_to_ldm(const kw__rule *r, const kw_key_shape *shape, const char *canonical, char ldm[KW_KEY_ROOM],
                     kw__how *how);

/* Where the tensors of a part lie in a single file: the prefix, and a name (after it) that proves this spelling. */
typedef struct { kw_part part; int keys; const char *prefix, *probe; } kw__spelling;
enum { KW__CANONICAL = -1 };              /* keys: names are diffusers' already */
extern const kw__spelling kw__spellings[];
extern const size_t kw__n_spellings;

extern const char *const kw__ignored[];   /* heads of names in single files that no part needs */
extern const size_t kw__n_ignored;

/* Models of other families, by a piece of a name. */
typedef struct { const char *piece, *is; } kw__stranger;
extern const kw__stranger kw__impostors[];        /* refused even where a U-Net was recognised beside it */
extern const size_t kw__n_impostors;
extern const kw__stranger kw__strangers[];
extern const size_t kw__n_strangers;

#endif
