/*
 * keys.c - the pattern engine for parameter names: a rule is read in either direction.
 *
 *   {i} {j} {n}  a number: level, layer in the level, any other. With L = layers per level and N = levels:
 *   {I}  (L+1)·i + j + 1, j < L        input block of a down resnet          {r}  N - 1 - i   (the VAE counts up)
 *   {D}  (L+1)·(i+1), i < N-1          input block that halves               {k}  1, or 2 behind attentions
 *   {O}  (L+1)·i + j, j ≤ L            output block of an up resnet
 *   {U}  (L+1)·i + L, i < N-1          output block that doubles
 *   {w}  "weight" or "bias" at the end      {*}  any rest      {R} {T} {V} {A} {B} {C}  a row of kw__leaves
 */
#include "keys.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    int i, j, n;
    const kw__leaf *leaf;
    const char *rest;                     /* what {w} or {*} held, or what follows the leaf */
} captures;

/* A number as names have it: no sign, no leading zero. */
static bool take_number(const char **text, int *v)
{
    const char *p = *text;
    *v = 0;
    while (*p >= '0' && *p <= '9' && p - *text < 5)
        *v = 10 * *v + (*p++ - '0');
    bool good = p > *text && (**text != '0' || p - *text == 1);
    *text = p;
    return good;
}

static bool decode(char letter, int v, const kw_key_shape *s, captures *c)
{
    int block = s->layers + 1;
    switch (letter) {
    case 'i': c->i = v; return true;
    case 'j': c->j = v; return true;
    case 'n': c->n = v; return true;
    case 'I': c->i = (v - 1) / block; c->j = (v - 1) % block; return v > 0 && c->j < s->layers && c->i < s->levels;
    case 'D': c->i = v / block - 1; return v > 0 && v % block == 0 && c->i < s->levels - 1;
    case 'O': c->i = v / block; c->j = v % block; return c->i < s->levels;
    case 'U': c->i = v / block; return v % block == s->layers && c->i < s->levels - 1;
    case 'r': c->i = s->levels - 1 - v; return c->i >= 0;
    case 'k': return v == 1 || v == 2;
    default: return false;
    }
}

static bool encode(char letter, const captures *c, const kw_key_shape *s, int *v)
{
    int block = s->layers + 1;
    switch (letter) {
    case 'i': *v = c->i; return true;
    case 'j': *v = c->j; return true;
    case 'n': *v = c->n; return true;
    case 'I': *v = block * c->i + c->j + 1; return c->j < s->layers && c->i < s->levels;
    case 'D': *v = block * (c->i + 1); return c->i < s->levels - 1;
    case 'O': *v = block * c->i + c->j; return c->j <= s->layers && c->i < s->levels;
    case 'U': *v = block * c->i + s->layers; return c->i < s->levels - 1;
    case 'r': *v = s->levels - 1 - c->i; return *v >= 0;
    case 'k': *v = c->i < 32 && s->up_attention >> c->i & 1 ? 2 : 1; return true;
    default: return false;
    }
}

static bool is_end(const char *s) { return !strcmp(s, "weight") || !strcmp(s, "bias"); }

static bool take_leaf(char letter, bool is_ldm, const char *text, captures *c)
{
    for (size_t k = 0; k < kw__n_leaves; k++) {
        const kw__leaf *leaf = &kw__leaves[k];
        const char *head = is_ldm ? leaf->ldm : leaf->canonical;
        size_t n = strlen(head);
        bool any = head[n - 1] == '*';
        n -= any;
        if (leaf->letter != letter || strncmp(text, head, n))
            continue;
        if (!any && (text[n] != '.' || !is_end(text + n + 1)))
            continue;
        c->leaf = leaf;
        c->rest = text + n + !any;
        return true;
    }
    return false;
}

/* Does the text have this form? What the placeholders held goes to c. */
static bool match(const char *pattern, bool is_ldm, const kw_key_shape *s, const char *text, captures *c)
{
    for (const char *p = pattern; *p; p++) {
        if (*p != '{') {
            if (*text++ != *p)
                return false;
            continue;
        }
        char letter = p[1];
        int v;
        p += 2;
        if (letter == '*' || letter == 'w') {
            c->rest = text;
            return letter == '*' ? *text != 0 : is_end(text);
        }
        if (strchr("RTVABC", letter))
            return take_leaf(letter, is_ldm, text, c);
        if (!take_number(&text, &v) || !decode(letter, v, s, c))
            return false;
    }
    return !*text;
}

static bool fill(const char *pattern, bool is_ldm, const kw_key_shape *s, const captures *c, char out[KW_KEY_ROOM])
{
    size_t n = 0;
    for (const char *p = pattern; *p; p++) {
        int v;
        if (n + 16 > KW_KEY_ROOM)
            return false;
        if (*p != '{') {
            out[n++] = *p;
            continue;
        }
        char letter = p[1];
        p += 2;
        size_t room = KW_KEY_ROOM - n, k;
        if (letter == '*' || letter == 'w') {
            k = (size_t)snprintf(out + n, room, "%s", c->rest);
        } else if (strchr("RTVABC", letter)) {
            const char *head = is_ldm ? c->leaf->ldm : c->leaf->canonical;
            bool any = kw_ends_with(head, "*");
            k = (size_t)snprintf(out + n, room, "%.*s%s%s", (int)(strlen(head) - any), head, any ? "" : ".", c->rest);
        } else {
            if (!encode(letter, c, s, &v))
                return false;
            k = (size_t)snprintf(out + n, room, "%d", v);
        }
        if (k >= room)
            return false;
        n += k;
    }
    out[n] = 0;
    return true;
}

bool kw__rule_from_ldm(const kw__rule *r, const kw_key_shape *shape, const char *ldm, char canonical[KW_KEY_ROOM],
                       kw__how *how)
{
    captures c = { 0 };
    if (!match(r->ldm, true, shape, ldm, &c) || !fill(r->canonical, false, shape, &c, canonical))
        return false;
    *how = c.leaf && kw_ends_with(canonical, ".weight") ? c.leaf->how : r->how;
    return true;
}

bool kw_key_from_ldm(kw_keys k, const kw_key_shape *shape, const char *ldm, char canonical[KW_KEY_ROOM])
{
    kw__how how;
    for (size_t i = 0; i < kw__rule_tables[k].n; i++)
        if (kw__rule_from_ldm(&kw__rule_tables[k].rules[i], shape, ldm, canonical, &how))
            return how != KW__DROP;
    return false;
}

bool kw__rule_to_ldm(const kw__rule *r, const kw_key_shape *shape, const char *canonical, char ldm[KW_KEY_ROOM],
                     kw__how *how)
{
    captures c = { 0 };
    if (r->how == KW__DROP || !match(r->canonical, false, shape, canonical, &c) || !fill(r->ldm, true, shape, &c, ldm))
        return false;
    *how = c.leaf && kw_ends_with(canonical, ".weight") ? c.leaf->how : r->how;
    return true;
}

bool kw_key_to_ldm(kw_keys k, const kw_key_shape *shape, const char *canonical, char ldm[KW_KEY_ROOM])
{
    kw__how how;
    for (size_t i = 0; i < kw__rule_tables[k].n; i++)
        if (kw__rule_to_ldm(&kw__rule_tables[k].rules[i], shape, canonical, ldm, &how))
            return true;
    return false;
}
