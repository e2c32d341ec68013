/* utf8.c - UTF-8 in and out, one code point at a time; a bad byte counts as U+FFFD. */
#include "internal.h"

void kw__pic_utf8_put(kw_str *out, uint32_t c)
{
    char b[4];
    size_t n = 0;
    if (c >= 0x110000 || (c >= 0xd800 && c < 0xe000))
        c = 0xfffd;
    if (c < 0x80) {
        b[n++] = (char)c;
    } else {
        int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        b[n++] = (char)((0xf00 >> (more + 1) & 0xff) | c >> 6 * more);        /* 0xc0, 0xe0, 0xf0 with the top bits */
        while (more--)
            b[n++] = (char)(0x80 | (c >> 6 * more & 0x3f));
    }
    kw_str_add_n(out, b, n);
}

uint32_t kw__pic_utf8_get(const char **s)
{
    const uint8_t *b = (const uint8_t *)*s;
    if (!*b)
        return 0;
    int more = *b < 0x80 ? 0 : *b >= 0xc2 && *b < 0xe0 ? 1 : (*b & 0xf0) == 0xe0 ? 2 : *b >= 0xf0 && *b < 0xf5 ? 3 : -1;
    uint32_t c = more <= 0 ? *b : *b & (0x3fu >> more);
    for (int i = 1; i <= more; i++) {
        if ((b[i] & 0xc0) != 0x80)
            more = -1;
        else
            c = c << 6 | (b[i] & 0x3f);
    }
    static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
    if (more < 0 || c < least[more] || c >= 0x110000 || (c >= 0xd800 && c < 0xe000)) {
        (*s)++;
        return 0xfffd;
    }
    *s += 1 + more;
    return c;
}
