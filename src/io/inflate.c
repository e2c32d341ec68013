/*
 * inflate.c - DEFLATE (RFC 1951) out of memory into memory of a known size.
 *
 *   blocks:  last (1 bit) | kind (2)   0: stored  1: fixed codes  2: codes of its own, their lengths packed again
 *   symbols: < 256 a byte, 256 the end, above: length, then a distance: bytes that were there before
 *
 * Codes are canonical: of each length in order, counted up. One bit at a time, which is fast enough for a pickle.
 */
#include "zip.h"

#include <string.h>

enum { MOST_BITS = 15, LITERALS = 288, DISTANCES = 32 };

typedef struct {
    const unsigned char *p, *end;
    unsigned char *out;
    size_t n, room;
    uint32_t bits;
    int n_bits;
    bool bad;
} state;

typedef struct { uint16_t count[MOST_BITS + 1], symbol[LITERALS]; } code;

static uint32_t take(state *s, int n)
{
    while (s->n_bits < n) {
        if (s->p == s->end) {
            s->bad = true;
            return 0;
        }
        s->bits |= (uint32_t)*s->p++ << s->n_bits;
        s->n_bits += 8;
    }
    uint32_t v = s->bits & ((1u << n) - 1);
    s->bits >>= n;
    s->n_bits -= n;
    return v;
}

/* False: more codes than their lengths have room for; a gap is allowed only where one code or none is all there is. */
static bool build(code *c, const uint8_t *lengths, int n)
{
    uint16_t at[MOST_BITS + 1] = { 0 };
    int left = 1;
    memset(c->count, 0, sizeof c->count);
    for (int i = 0; i < n; i++)
        c->count[lengths[i]]++;
    int used = n - c->count[0];
    c->count[0] = 0;
    for (int b = 1; b <= MOST_BITS; b++) {
        left = 2 * left - c->count[b];
        if (left < 0)
            return false;
    }
    for (int b = 1; b < MOST_BITS; b++)
        at[b + 1] = (uint16_t)(at[b] + c->count[b]);
    for (int i = 0; i < n; i++)
        if (lengths[i])
            c->symbol[at[lengths[i]]++] = (uint16_t)i;
    return !left || used <= 1;
}

static int decode(state *s, const code *c)
{
    int value = 0, first = 0, index = 0;
    for (int b = 1; b <= MOST_BITS && !s->bad; b++) {
        value |= (int)take(s, 1);
        int count = c->count[b];
        if (value - count < first)
            return c->symbol[index + (value - first)];
        index += count;
        first = (first + count) << 1;
        value <<= 1;
    }
    s->bad = true;
    return 0;
}

static void put(state *s, unsigned char byte)
{
    if (s->n == s->room)
        s->bad = true;
    else
        s->out[s->n++] = byte;
}

static void repeat(state *s, size_t length, size_t distance)
{
    if (distance > s->n || length > s->room - s->n)
        s->bad = true;
    else
        for (; length; length--, s->n++)
            s->out[s->n] = s->out[s->n - distance];
}

static void symbols(state *s, const code *literals, const code *distances)
{
    static const uint16_t length[] = { 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83,
                                       99, 115, 131, 163, 195, 227, 258 };
    static const uint8_t more[] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5,
                                    0 };
    while (!s->bad) {
        int v = decode(s, literals);
        if (v == 256)
            return;
        if (v < 256) {
            put(s, (unsigned char)v);
            continue;
        }
        if ((v -= 257) >= (int)KW_LEN(length)) {
            s->bad = true;
            return;
        }
        size_t n = length[v] + take(s, more[v]);
        int d = decode(s, distances), extra = d < 2 ? 0 : d / 2 - 1;
        if (d >= 30) {
            s->bad = true;
            return;
        }
        repeat(s, n, d < 2 ? (size_t)d + 1 : ((size_t)(2 + d % 2) << extra) + 1 + take(s, extra));
    }
}

static void stored(state *s)
{
    s->bits = 0;
    s->n_bits = 0;
    if (s->end - s->p < 4 || (s->p[0] ^ s->p[2]) != 0xff || (s->p[1] ^ s->p[3]) != 0xff) {
        s->bad = true;
        return;
    }
    size_t n = (size_t)s->p[0] | (size_t)s->p[1] << 8;
    s->p += 4;
    if (n > (size_t)(s->end - s->p) || n > s->room - s->n) {
        s->bad = true;
        return;
    }
    memcpy(s->out + s->n, s->p, n);
    s->p += n;
    s->n += n;
}

static void fixed(state *s)
{
    uint8_t lengths[LITERALS];
    code literals, distances;
    for (int i = 0; i < LITERALS; i++)
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    build(&literals, lengths, LITERALS);
    memset(lengths, 5, DISTANCES);
    build(&distances, lengths, DISTANCES);
    symbols(s, &literals, &distances);
}

/* Lengths of lengths first; 16: the last again, 17 and 18: zeros. */
static bool read_lengths(state *s, const code *c, uint8_t *lengths, int n)
{
    for (int i = 0; i < n;) {
        int v = decode(s, c), again = 1;
        uint8_t what = (uint8_t)v;
        if (s->bad || (v == 16 && !i))
            return false;
        if (v == 16) {
            what = lengths[i - 1];
            again = 3 + (int)take(s, 2);
        } else if (v > 16) {
            what = 0;
            again = v == 17 ? 3 + (int)take(s, 3) : 11 + (int)take(s, 7);
        }
        if (s->bad || again > n - i)
            return false;
        memset(lengths + i, what, (size_t)again);
        i += again;
    }
    return lengths[256] != 0;
}

static void own(state *s)
{
    static const uint8_t order[] = { 16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15 };
    uint8_t lengths[LITERALS + DISTANCES] = { 0 };
    code literals, distances, inner;
    int n = (int)take(s, 5) + 257, m = (int)take(s, 5) + 1, k = (int)take(s, 4) + 4;
    for (int i = 0; i < k; i++)
        lengths[order[i]] = (uint8_t)take(s, 3);
    if (s->bad || n > 286 || m > 30 || !build(&inner, lengths, 19)) {
        s->bad = true;
        return;
    }
    memset(lengths, 0, sizeof lengths);
    if (!read_lengths(s, &inner, lengths, n + m) || !build(&literals, lengths, n)
        || !build(&distances, lengths + n, m))
        s->bad = true;
    else
        symbols(s, &literals, &distances);
}

bool kw__inflate(const void *p, size_t n, void *out, size_t room)
{
    state s = { .p = p, .end = (const unsigned char *)p + n, .out = out, .room = room };
    for (bool last = false; !last && !s.bad;) {
        last = take(&s, 1);
        switch (take(&s, 2)) {
        case 0: stored(&s); break;
        case 1: fixed(&s); break;
        case 2: own(&s); break;
        default: s.bad = true;
        }
    }
    return !s.bad && s.n == room && s.p == s.end;
}
