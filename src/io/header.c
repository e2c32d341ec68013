/*
 * header.c - the JSON of a safetensors header, read in one pass without recursion: its grammar has a fixed depth.
 *
 *   { "__metadata__": { "key": "value", ... },
 *     "name": { "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] }, ... }     then spaces to the end
 *
 * A general JSON tree would take many times the header's size, and depth is the attacker's choice there.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>

enum { MOST_META = 16 << 20 };

typedef struct {
    const char *file, *start, *p, *end;
    char *out;                            /* decoded texts, never longer than the header itself */
    kw_arena *arena;
    kw_err *e;
} reader;

static kw_status bad(reader *r, const char *why)
{
    return kw_fail(r->e, KW_EDATA, N_("%s: header, byte %zu: %s"), r->file, (size_t)(r->p - r->start) + 8,
                   kw_translate(why));
}

static kw_status bad_tensor(reader *r, const char *name, const char *why)
{
    char shown[96];
    return kw_fail(r->e, KW_EDATA, N_("%s: tensor \"%s\": %s"), r->file, kw__shown(name, shown), kw_translate(why));
}

static void skip_space(reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\t' || *r->p == '\n' || *r->p == '\r'))
        r->p++;
}

static bool take(reader *r, char c)
{
    skip_space(r);
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

static kw_status expect(reader *r, char c)
{
    char why[32];
    if (take(r, c))
        return KW_OK;
    snprintf(why, sizeof why, "'%c' expected", c);
    return bad(r, why);
}

/* After a member: true when another follows, false at the closing bracket. */
static kw_status another(reader *r, char close, bool *more)
{
    if ((*more = take(r, ',')))
        return KW_OK;
    return expect(r, close);
}

static bool hex4(reader *r, uint32_t *u)
{
    if (r->end - r->p < 4)
        return false;
    *u = 0;
    for (int i = 0; i < 4; i++) {
        char c = *r->p++;
        if (!((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'f')))
            return false;
        *u = *u << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return true;
}

static void put_utf8(reader *r, uint32_t u)
{
    if (u < 0x80) {
        *r->out++ = (char)u;
    } else if (u < 0x800) {
        *r->out++ = (char)(0xc0 | u >> 6);
        *r->out++ = (char)(0x80 | (u & 63));
    } else if (u < 0x10000) {
        *r->out++ = (char)(0xe0 | u >> 12);
        *r->out++ = (char)(0x80 | (u >> 6 & 63));
        *r->out++ = (char)(0x80 | (u & 63));
    } else {
        *r->out++ = (char)(0xf0 | u >> 18);
        *r->out++ = (char)(0x80 | (u >> 12 & 63));
        *r->out++ = (char)(0x80 | (u >> 6 & 63));
        *r->out++ = (char)(0x80 | (u & 63));
    }
}

static kw_status escape(reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->p == r->end)
        return bad(r, N_("the text does not end"));
    char c = *r->p++;
    const char *at = c ? strchr(from, c) : NULL;
    if (at) {
        *r->out++ = to[at - from];
        return KW_OK;
    }
    uint32_t u, low;
    if (c != 'u' || !hex4(r, &u))
        return bad(r, N_("not a JSON escape"));
    if (u >= 0xd800 && u < 0xdc00) {
        if (r->end - r->p < 6 || r->p[0] != '\\' || r->p[1] != 'u')
            return bad(r, N_("half of a surrogate pair"));
        r->p += 2;
        if (!hex4(r, &low) || low < 0xdc00 || low >= 0xe000)
            return bad(r, N_("half of a surrogate pair"));
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    } else if (u >= 0xdc00 && u < 0xe000) {
        return bad(r, N_("half of a surrogate pair"));
    }
    if (!u)
        return bad(r, N_("a NUL character"));
    put_utf8(r, u);
    return KW_OK;
}

/* A JSON text, decoded and ended by 0; its length in *n. */
static kw_status string(reader *r, const char **s, size_t *n)
{
    KW_TRY(expect(r, '"'));
    char *start = r->out;
    for (;;) {
        if (r->p == r->end)
            return bad(r, N_("the text does not end"));
        unsigned char c = (unsigned char)*r->p++;
        if (c == '"')
            break;
        if (c < 0x20)
            return bad(r, N_("a control character"));
        if (c == '\\')
            KW_TRY(escape(r));
        else
            *r->out++ = (char)c;
    }
    *n = (size_t)(r->out - start);
    if (!kw__utf8(start, *n))
        return bad(r, N_("a text that is not valid UTF-8"));
    *r->out++ = 0;
    *s = start;
    return KW_OK;
}

/* A whole number from 0 to 2^63 - 1; no sign, fraction, exponent or leading zero. */
static kw_status number(reader *r, const char *name, uint64_t *v)
{
    skip_space(r);
    const char *start = r->p;
    *v = 0;
    while (r->p < r->end && *r->p >= '0' && *r->p <= '9') {
        if (!kw_mul_size(*v, 10, v) || !kw_add_size(*v, (uint64_t)(*r->p - '0'), v) || *v > INT64_MAX)
            return bad_tensor(r, name, N_("a number is too large"));
        r->p++;
    }
    bool odd = r->p < r->end && (*r->p == '.' || *r->p == 'e' || *r->p == 'E');
    if (r->p == start || odd)
        return bad_tensor(r, name, N_("its numbers must be whole and not negative"));
    return *start == '0' && r->p - start > 1 ? bad_tensor(r, name, N_("a number with leading zeros")) : KW_OK;
}

static kw_status dtype(reader *r, const char *name, kw_tensor *t)
{
    const char *text;
    char shown[96], shown_type[96];
    size_t n;
    KW_TRY(string(r, &text, &n));
    for (int i = 0; i < KW_N_DTYPES; i++)
        if (!strcmp(text, kw_dtype_name((kw_dtype)i))) {
            t->dtype = (kw_dtype)i;
            return KW_OK;
        }
    return kw_fail(r->e, KW_EDATA, N_("%s: tensor \"%s\": number format \"%s\" is not supported"), r->file,
                   kw__shown(name, shown), kw__shown(text, shown_type));
}

static kw_status shape(reader *r, const char *name, kw_tensor *t)
{
    KW_TRY(expect(r, '['));
    if (take(r, ']'))
        return KW_OK;
    for (bool more = true; more;) {
        uint64_t v;
        if (t->rank == KW_MAX_RANK)
            return bad_tensor(r, name, N_("more than 8 dimensions"));
        KW_TRY(number(r, name, &v));
        t->shape[t->rank++] = (int64_t)v;
        KW_TRY(another(r, ']', &more));
    }
    return KW_OK;
}

static kw_status offsets(reader *r, const char *name, uint64_t at[2])
{
    KW_TRY(expect(r, '['));
    KW_TRY(number(r, name, &at[0]));
    KW_TRY(expect(r, ','));
    KW_TRY(number(r, name, &at[1]));
    return expect(r, ']');
}

static kw_status tensor(reader *r, kw_tensor *t, uint64_t at[2])
{
    static const char *const keys[] = { "dtype", "shape", "data_offsets" };
    unsigned seen = 0;
    KW_TRY(expect(r, '{'));
    for (bool more = true; more;) {
        const char *key;
        size_t n, k;
        KW_TRY(string(r, &key, &n));
        KW_TRY(expect(r, ':'));
        for (k = 0; k < KW_LEN(keys) && strcmp(key, keys[k]); k++)
            ;
        if (k == KW_LEN(keys))
            return bad_tensor(r, t->name, N_("a field other than dtype, shape and data_offsets"));
        if (seen & 1u << k)
            return bad_tensor(r, t->name, N_("a field given twice"));
        seen |= 1u << k;
        KW_TRY(k == 0 ? dtype(r, t->name, t) : k == 1 ? shape(r, t->name, t) : offsets(r, t->name, at));
        KW_TRY(another(r, '}', &more));
    }
    return seen == 7 ? KW_OK : bad_tensor(r, t->name, N_("dtype, shape or data_offsets is missing"));
}

/* Names are shown, compared and written elsewhere: nothing invisible, nothing that looks like a way out of a folder. */
static const char *wrong_with_name(const char *s, size_t n)
{
    if (!n || n > KW_MAX_TENSOR_NAME)
        return n ? N_("a tensor name longer than 1024 bytes") : N_("a tensor without a name");
    for (const unsigned char *p = (const unsigned char *)s; *p; p++)
        if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0))
            return N_("a tensor name with a control character");
    return *s == '/' || strstr(s, "../") ? N_("a tensor name that looks like a path") : NULL;
}

static kw_status metadata(reader *r, kw__header *h)
{
    const char *start = r->p;
    if (h->meta)
        return bad(r, N_("__metadata__ given twice"));
    if (!(h->meta = kw_alloc(r->arena, sizeof *h->meta)))
        return kw__no_memory(r->e, r->file);
    h->meta_capacity = 1;
    KW_TRY(expect(r, '{'));
    if (take(r, '}'))
        return KW_OK;
    for (bool more = true; more;) {
        size_t n;
        KW_TRY(kw_grow(r->arena, &h->meta, &h->meta_capacity, h->n_meta, sizeof *h->meta, r->e));
        kw_meta *m = &h->meta[h->n_meta++];
        KW_TRY(string(r, &m->key, &n));
        KW_TRY(expect(r, ':'));
        skip_space(r);
        if (r->p == r->end || *r->p != '"')
            return bad(r, N_("metadata values must be texts"));
        KW_TRY(string(r, &m->value, &n));
        if (r->p - start > MOST_META)
            return bad(r, N_("more than 16 MiB of metadata"));
        KW_TRY(another(r, '}', &more));
    }
    return KW_OK;
}

static kw_status member(reader *r, kw__header *h)
{
    const char *name, *wrong;
    size_t n;
    KW_TRY(string(r, &name, &n));
    KW_TRY(expect(r, ':'));
    if (!strcmp(name, "__metadata__"))
        return metadata(r, h);
    if ((wrong = wrong_with_name(name, n)))
        return bad(r, wrong);
    if (h->n == KW_MAX_TENSORS)
        return bad(r, N_("more than 65536 tensors"));
    KW_TRY(kw_grow(r->arena, &h->tensors, &h->capacity, h->n, sizeof *h->tensors, r->e));
    KW_TRY(kw_grow(r->arena, &h->offsets, &h->offsets_capacity, h->n, sizeof *h->offsets, r->e));
    h->tensors[h->n] = (kw_tensor){ .name = name };
    KW_TRY(tensor(r, &h->tensors[h->n], h->offsets[h->n]));
    h->n++;
    return KW_OK;
}

kw_status kw__header_parse(kw_arena *a, const char *file, const char *text, size_t n, kw__header *h, kw_err *e)
{
    reader r = { file, text, text, text + n, kw_alloc(a, n + 1), a, e };
    if (!r.out)
        return kw__no_memory(e, file);
    if (!n || *text != '{')
        return bad(&r, N_("a safetensors header starts with '{'"));
    r.p++;
    if (!take(&r, '}'))
        for (bool more = true; more;) {
            KW_TRY(member(&r, h));
            KW_TRY(another(&r, '}', &more));
        }
    while (r.p < r.end && *r.p == ' ')
        r.p++;
    return r.p == r.end ? KW_OK : bad(&r, N_("something follows the header's closing brace"));
}
