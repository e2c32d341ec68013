/*
 * unicode.c - code points: UTF-8, classes, NFC and lower case, in the versions that tokenizers 0.23 is built with.
 *
 * That library mixes three versions of Unicode: NFC tables of Unicode 9, character classes of Unicode 16 (Oniguruma)
 * and lower case of Unicode 17 (Rust). utf8proc 2.8 has Unicode 15. The tables here are the differences, found by
 * comparing every code point and every composition (tools/golden/text.py --tables finds them again).
 */
#include "unicode.h"

#include <utf8proc.h>
#include <string.h>

typedef struct { uint32_t first, last; } range;

/* Letters and numbers that came with Unicode 15.1 and 16. */
static const range late_letters[] = {
    { 0x1c89, 0x1c8a }, { 0xa7cb, 0xa7cd }, { 0xa7da, 0xa7dc }, { 0x105c0, 0x105f3 }, { 0x10d4a, 0x10d65 },
    { 0x10d6f, 0x10d85 }, { 0x10ec2, 0x10ec4 }, { 0x11380, 0x11389 }, { 0x1138b, 0x1138b }, { 0x1138e, 0x1138e },
    { 0x11390, 0x113b5 }, { 0x113b7, 0x113b7 }, { 0x113d1, 0x113d1 }, { 0x113d3, 0x113d3 }, { 0x11bc0, 0x11be0 },
    { 0x13460, 0x143fa }, { 0x16100, 0x1611d }, { 0x16d40, 0x16d6c }, { 0x18cff, 0x18cff }, { 0x1e5d0, 0x1e5ed },
    { 0x1e5f0, 0x1e5f0 }, { 0x2ebf0, 0x2ee5d },
};
static const range late_numbers[] = {
    { 0x10d40, 0x10d49 }, { 0x116d0, 0x116e3 }, { 0x11bf0, 0x11bf9 }, { 0x16130, 0x16139 }, { 0x16d70, 0x16d79 },
    { 0x1ccf0, 0x1ccf9 }, { 0x1e5f1, 0x1e5fa },
};

/* Marks with a combining class in Unicode 10 to 15, unknown to those NFC tables: they stay where they are. */
static const range late_marks[] = {
    { 0x07fd, 0x07fd }, { 0x0898, 0x089f }, { 0x08ca, 0x08d3 }, { 0x09fe, 0x09fe }, { 0x0c3c, 0x0c3c },
    { 0x0d3b, 0x0d3c }, { 0x0eba, 0x0eba }, { 0x1715, 0x1715 }, { 0x1abf, 0x1ace }, { 0x1df6, 0x1dfa },
    { 0xa82c, 0xa82c }, { 0x10d24, 0x10d27 }, { 0x10eab, 0x10eac }, { 0x10efd, 0x10eff }, { 0x10f46, 0x10f50 },
    { 0x10f82, 0x10f85 }, { 0x11070, 0x11070 }, { 0x1133b, 0x1133b }, { 0x1145e, 0x1145e }, { 0x11839, 0x1183a },
    { 0x1193d, 0x1193e }, { 0x11943, 0x11943 }, { 0x119e0, 0x119e0 }, { 0x11a34, 0x11a34 }, { 0x11a47, 0x11a47 },
    { 0x11a99, 0x11a99 }, { 0x11d42, 0x11d42 }, { 0x11d44, 0x11d45 }, { 0x11d97, 0x11d97 }, { 0x11f41, 0x11f42 },
    { 0x16ff0, 0x16ff1 }, { 0x1e08f, 0x1e08f }, { 0x1e130, 0x1e136 }, { 0x1e2ae, 0x1e2ae }, { 0x1e2ec, 0x1e2ef },
    { 0x1e4ec, 0x1e4ef },
};

/* Capital letters first..last whose small letter is `add` further on, in Unicode 16 and 17. */
static const struct { uint32_t first, last; int32_t add; } late_capitals[] = {
    { 0x1c89, 0x1c89, 1 }, { 0xa7cb, 0xa7cb, 0x264 - 0xa7cb }, { 0xa7cc, 0xa7cc, 1 }, { 0xa7ce, 0xa7ce, 1 },
    { 0xa7d2, 0xa7d2, 1 }, { 0xa7d4, 0xa7d4, 1 }, { 0xa7da, 0xa7da, 1 }, { 0xa7dc, 0xa7dc, 0x19b - 0xa7dc },
    { 0x10d50, 0x10d65, 0x20 }, { 0x16ea0, 0x16eb8, 0x1b },
};

static bool within(const range *r, size_t n, uint32_t c)
{
    size_t low = 0;
    while (n) {                           /* the first range that ends at or after c is in [low, low+n] */
        size_t half = n / 2;
        if (r[low + half].last < c) {
            low += half + 1;
            n -= half + 1;
        } else {
            if (r[low + half].first <= c)
                return true;
            n = half;
        }
    }
    return false;
}

#define WITHIN(table, c) within(table, KW_LEN(table), c)

/* ---- UTF-8 ------------------------------------------------------------------------------------------ */

size_t kw_utf8_get(const char *s, size_t n, uint32_t *c)
{
    const uint8_t *b = (const uint8_t *)s;
    uint8_t lead = b[0], low = 0x80, high = 0xbf;          /* the second byte's bounds keep out overlong forms, */
    size_t more = 0;                                       /* surrogates and what lies above U+10FFFF */
    *c = 0xfffd;
    if (lead < 0x80)
        return *c = lead, 1;
    if (lead >= 0xc2 && lead <= 0xdf)
        more = 1;
    else if (lead >= 0xe0 && lead <= 0xef)
        more = 2;
    else if (lead >= 0xf0 && lead <= 0xf4)
        more = 3;
    else
        return 1;
    if (lead == 0xe0)
        low = 0xa0;
    if (lead == 0xed)
        high = 0x9f;
    if (lead == 0xf0)
        low = 0x90;
    if (lead == 0xf4)
        high = 0x8f;
    uint32_t v = lead & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if (i >= n || b[i] < low || b[i] > high)
            return i;                                      /* the maximal subpart: the bytes good so far */
        v = v << 6 | (b[i] & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    *c = v;
    return more + 1;
}

size_t kw_utf8_put(uint32_t c, char *out)
{
    uint8_t *b = (uint8_t *)out;
    if (c < 0x80)
        return b[0] = (uint8_t)c, 1;
    size_t more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = { 0, 0xc0, 0xe0, 0xf0 };
    for (size_t i = more; i > 0; i--, c >>= 6)
        b[i] = (uint8_t)(0x80 | (c & 0x3f));
    b[0] = (uint8_t)(lead[more] | c);
    return more + 1;
}

kw_status kw_chars_decode(kw_arena *a, const char *text, size_t n, kw_chars *out, kw_err *e)
{
    *out = (kw_chars){ .s = kw_alloc_array(a, n + 1, sizeof(kw_char)), .capacity = n + 1 };
    if (!out->s)
        return kw_fail(e, KW_ENOMEM, "out of memory for a text of %zu bytes", n);
    for (size_t i = 0; i < n;) {
        kw_char *c = &out->s[out->n++];
        c->at = (uint32_t)i;
        i += kw_utf8_get(text + i, n - i, &c->c);
    }
    return KW_OK;
}

/* ---- classes ----------------------------------------------------------------------------------------- */

bool kw_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

kw_class kw_char_class(uint32_t c)
{
    if (kw_is_space(c))
        return KW_SPACE;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO:
        return KW_LETTER;
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO:
        return KW_NUMBER;
    case UTF8PROC_CATEGORY_CN:
        return WITHIN(late_letters, c) ? KW_LETTER : WITHIN(late_numbers, c) ? KW_NUMBER : KW_OTHER;
    default:
        return KW_OTHER;
    }
}

static uint32_t lower(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    for (size_t i = 0; c >= 0x1c89 && i < KW_LEN(late_capitals); i++)
        if (c >= late_capitals[i].first && c <= late_capitals[i].last)
            return (uint32_t)((int32_t)c + late_capitals[i].add);
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

/* ---- NFC (Unicode Standard Annex 15), in time linear in the text ---------------------------------------- */

enum { S_BASE = 0xac00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11a7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28 };

static uint8_t combining(uint32_t c)
{
    if (c < 0x300 || (c >= 0x3400 && c < 0xa000))
        return 0;
    utf8proc_propval_t k = utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
    return k && WITHIN(late_marks, c) ? 0 : (uint8_t)k;
}

/* The only composition of Unicode 10 to 15: U+11935 U+11930. */
enum { LATE_WHOLE = 0x11938, LATE_FIRST = 0x11935 };

static kw_status push(kw_arena *a, kw_chars *out, uint32_t c, uint32_t at, kw_err *e)
{
    KW_TRY(kw_grow(a, &out->s, &out->capacity, out->n, sizeof *out->s, e));
    out->s[out->n++] = (kw_char){ c, at };
    return KW_OK;
}

static kw_status decompose(kw_arena *a, const kw_char *s, size_t n, kw_chars *out, kw_err *e)
{
    for (size_t i = 0; i < n; i++) {
        utf8proc_int32_t part[16];
        utf8proc_ssize_t k = 1;
        part[0] = (utf8proc_int32_t)s[i].c;
        if (s[i].c >= 0xc0 && (s[i].c < 0x3400 || s[i].c >= 0xa000) && s[i].c != LATE_WHOLE)
            k = utf8proc_decompose_char(part[0], part, KW_LEN(part), UTF8PROC_DECOMPOSE, NULL);
        KW_ASSERT(k >= 1 && k <= (utf8proc_ssize_t)KW_LEN(part));      /* the longest has 4 */
        for (utf8proc_ssize_t j = 0; j < k; j++)
            KW_TRY(push(a, out, (uint32_t)part[j], s[i].at, e));
    }
    return KW_OK;
}

/* Stable sort of a run of marks by class: by insertion when short, else by counting, so that no text takes long. */
static kw_status sort_marks(kw_arena *a, kw_char *s, size_t n, kw_err *e)
{
    if (n <= 16) {
        for (size_t i = 1; i < n; i++)
            for (size_t j = i; j > 0 && combining(s[j - 1].c) > combining(s[j].c); j--) {
                kw_char t = s[j];
                s[j] = s[j - 1];
                s[j - 1] = t;
            }
        return KW_OK;
    }
    kw_char *copy = kw_alloc_array(a, n, sizeof *copy);
    if (!copy)
        return kw_fail(e, KW_ENOMEM, "out of memory for %zu combining marks", n);
    size_t place[257] = { 0 };
    for (size_t i = 0; i < n; i++)
        place[combining(s[i].c) + 1]++;
    for (size_t k = 1; k < KW_LEN(place); k++)
        place[k] += place[k - 1];
    memcpy(copy, s, n * sizeof *copy);
    for (size_t i = 0; i < n; i++)
        s[place[combining(copy[i].c)]++] = copy[i];
    return KW_OK;
}

static kw_status order_marks(kw_arena *a, kw_chars *t, kw_err *e)
{
    for (size_t i = 0; i < t->n;) {
        size_t end = i;
        while (end < t->n && combining(t->s[end].c))
            end++;
        if (end - i > 1)
            KW_TRY(sort_marks(a, t->s + i, end - i, e));
        i = end + 1;
    }
    return KW_OK;
}

/* The character that a followed by b composes to, or 0. Hangul by formula (utf8proc 2.8 takes U+11A7 for a final). */
static uint32_t compose(uint32_t a, uint32_t b)
{
    if (b < 0x300 || (b >= 0x3400 && b < 0xa000))
        return 0;
    if (a - L_BASE < L_COUNT && b - V_BASE < V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + (b - V_BASE)) * T_COUNT;
    if (a - S_BASE < L_COUNT * V_COUNT * T_COUNT)
        return (a - S_BASE) % T_COUNT == 0 && b > T_BASE && b < T_BASE + T_COUNT ? a + (b - T_BASE) : 0;
    if (a == LATE_FIRST)
        return 0;
    utf8proc_int32_t pair[3] = { (utf8proc_int32_t)a, (utf8proc_int32_t)b };
    return utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) == 1 ? (uint32_t)pair[0] : 0;
}

static void compose_all(kw_chars *t)
{
    size_t n = 0, starter = SIZE_MAX;
    int before = -1;                      /* class of what stands between the starter and here; -1: nothing */
    for (size_t i = 0; i < t->n; i++) {
        int k = combining(t->s[i].c);
        uint32_t whole = starter != SIZE_MAX && before < k ? compose(t->s[starter].c, t->s[i].c) : 0;
        if (whole) {
            t->s[starter].c = whole;
            continue;
        }
        before = k ? k : -1;
        if (!k)
            starter = n;
        t->s[n++] = t->s[i];
    }
    for (size_t i = 1; i < n; i++)        /* marks changed places: the source is still told from left to right */
        t->s[i].at = KW_MAX(t->s[i].at, t->s[i - 1].at);
    t->n = n;
}

static kw_status nfc(kw_arena *a, const kw_char *s, size_t n, kw_chars *out, kw_err *e)
{
    bool plain = true;                    /* nothing below U+0300 ever changes */
    for (size_t i = 0; i < n && plain; i++)
        plain = s[i].c < 0x300;
    if (plain) {
        for (size_t i = 0; i < n; i++)
            KW_TRY(push(a, out, s[i].c, s[i].at, e));
        return KW_OK;
    }
    KW_TRY(decompose(a, s, n, out, e));
    KW_TRY(order_marks(a, out, e));
    compose_all(out);
    return KW_OK;
}

kw_status kw_chars_normalize(kw_arena *a, const kw_char *s, size_t n, kw_chars *out, kw_err *e)
{
    kw_chars t = { 0 };
    KW_TRY(nfc(a, s, n, &t, e));
    *out = (kw_chars){ .s = kw_alloc_array(a, t.n + 1, sizeof(kw_char)), .capacity = t.n + 1 };
    if (!out->s)
        return kw_fail(e, KW_ENOMEM, "out of memory for a text of %zu characters", t.n);
    for (size_t i = 0; i < t.n; i++) {
        uint32_t c = t.s[i].c, at = t.s[i].at;
        if (kw_is_space(c)) {
            if (i == 0 || !kw_is_space(t.s[i - 1].c))
                KW_TRY(push(a, out, ' ', at, e));
        } else if (c == 0x130) {          /* the only capital with a small letter of two code points */
            KW_TRY(push(a, out, 'i', at, e));
            KW_TRY(push(a, out, 0x307, at, e));
        } else {
            KW_TRY(push(a, out, lower(c), at, e));
        }
    }
    return KW_OK;
}
