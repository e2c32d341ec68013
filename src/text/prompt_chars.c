/* prompt_chars.c - characters and numbers as Python's re and float() see them. */
#include "prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool kw__is_blank(uint32_t c) { return kw_is_space(c) || (c >= 0x1c && c <= 0x1f); }

bool kw__is_word(uint32_t c)
{
    kw_class k = kw_char_class(c);
    return k == KW_LETTER || k == KW_NUMBER || c == '_';
}

size_t kw__blanks(const char *s, size_t n)
{
    size_t i = 0;
    for (uint32_t c; i < n;) {
        size_t k = kw_utf8_get(s + i, n - i, &c);
        if (!kw__is_blank(c))
            break;
        i += k;
    }
    return i;
}

uint32_t kw__char_before(const char *s, size_t i)
{
    size_t start = i - 1;
    while (start > 0 && i - start < 4 && ((uint8_t)s[start] & 0xc0) == 0x80)
        start--;
    uint32_t c;
    return kw_utf8_get(s + start, i - start, &c) == i - start ? c : 0xfffd;
}

size_t kw__trimmed(const char *s, size_t n)
{
    while (n && kw__is_blank(kw__char_before(s, n)))
        do
            n--;
        while (n && ((uint8_t)s[n] & 0xc0) == 0x80);
    return n;
}

int kw__digit(uint32_t c)
{
    return c >= '0' && c <= '9' ? (int)(c - '0') : c >= 0xff10 && c <= 0xff19 ? (int)(c - 0xff10) : -1;
}

bool kw__to_double(const char *s, double *x)
{
    double sign = *s == '-' ? -1 : 1;
    bool dot = false, any = false;
    int exponent = 0;
    uint64_t v = 0;                       /* the digits: exact up to 19 of them, and one division rounds once */
    for (s += *s == '+' || *s == '-'; *s; s++) {
        if (*s == '.' && !dot) {
            dot = true;
            continue;
        }
        if (*s < '0' || *s > '9')
            return false;
        any = true;
        if (v < 100000000000000u) {       /* 15 digits are exact in a double, and so is 10^15 */
            v = v * 10 + (uint64_t)(*s - '0');
            exponent -= dot;
        } else {
            exponent += !dot;
        }
    }
    *x = sign * (exponent < 0 ? (double)v / pow(10, -exponent) : (double)v * pow(10, exponent));
    return any;
}

bool kw__word_at(const char *s, size_t n, size_t i, const char *word)
{
    size_t k = strlen(word);
    uint32_t next = ' ';
    if (n - i < k || memcmp(s + i, word, k) || (i && kw__is_word(kw__char_before(s, i))))
        return false;
    if (i + k < n)
        kw_utf8_get(s + i + k, n - i - k, &next);
    return !kw__is_word(next);
}

bool kw__number_of(const char *s, size_t n, double *x)
{
    char text[72];
    size_t skip = kw__blanks(s, n);
    s += skip;
    n = kw__trimmed(s, n - skip);
    size_t mantissa = n;
    long exponent = 0;
    for (size_t i = 1; i + 1 < n && mantissa == n; i++)
        if (s[i] == 'e' || s[i] == 'E')
            mantissa = i;
    if (!n || n >= sizeof text || memchr(s, 0, n))
        return false;
    memcpy(text, s, n);
    text[n] = 0;
    if (mantissa < n) {
        char *digits = text + mantissa + 1, *end;
        digits += *digits == '+' || *digits == '-';
        if (!*digits || strspn(digits, "0123456789") != strlen(digits))
            return false;
        exponent = strtol(text + mantissa + 1, &end, 10);
        text[mantissa] = 0;
    }
    if (!kw__to_double(text, x))
        return false;
    *x = *x == 0 || !exponent ? *x : *x * pow(10, (double)exponent);
    return true;
}
