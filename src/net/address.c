/* address.c - which addresses are of the public internet, and which paths stay inside their folder. */
#include "net.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* ---- addresses: the special-purpose registries of IANA (RFC 6890 and what followed it) -------------------------- */

static const struct { unsigned char net[4]; int bits; } special4[] = {
    { { 0, 0, 0, 0 }, 8 },      { { 10, 0, 0, 0 }, 8 },     { { 100, 64, 0, 0 }, 10 },    { { 127, 0, 0, 0 }, 8 },
    { { 169, 254, 0, 0 }, 16 }, { { 172, 16, 0, 0 }, 12 },  { { 192, 0, 0, 0 }, 24 },     { { 192, 0, 2, 0 }, 24 },
    { { 192, 88, 99, 0 }, 24 }, { { 192, 168, 0, 0 }, 16 }, { { 198, 18, 0, 0 }, 15 },    { { 198, 51, 100, 0 }, 24 },
    { { 203, 0, 113, 0 }, 24 }, { { 224, 0, 0, 0 }, 4 },    { { 240, 0, 0, 0 }, 4 },
};

/* carries: at this byte an IPv4 address stands inside, which decides; -1: all of the range is special. */
static const struct { unsigned char net[16]; int bits, carries; } special6[] = {
    { { 0 }, 127, -1 },                                                     /* :: and ::1 */
    { { [10] = 0xff, [11] = 0xff }, 96, 12 },                               /* ::ffff:a.b.c.d */
    { { 0 }, 96, 12 },                                                      /* ::a.b.c.d, no longer in use */
    { { 0x00, 0x64, 0xff, 0x9b }, 96, 12 },                                 /* NAT64 */
    { { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 }, 48, -1 },
    { { 0x01 }, 64, -1 },                                                   /* discard */
    { { 0x20, 0x01, 0x00, 0x00 }, 32, -1 },                                 /* Teredo */
    { { 0x20, 0x01, 0x00, 0x02 }, 48, -1 },
    { { 0x20, 0x01, 0x0d, 0xb8 }, 32, -1 },
    { { 0x20, 0x02 }, 16, 2 },                                              /* 6to4 */
    { { 0xfc }, 7, -1 }, { { 0xfe, 0x80 }, 10, -1 }, { { 0xfe, 0xc0 }, 10, -1 }, { { 0xff }, 8, -1 },
};

static bool within(const unsigned char *address, const unsigned char *net, int bits)
{
    int whole = bits / 8, rest = bits % 8;
    return !memcmp(address, net, (size_t)whole)
        && (!rest || (address[whole] ^ net[whole]) >> (8 - rest) == 0);
}

static bool private4(const unsigned char *p)
{
    for (size_t i = 0; i < KW_LEN(special4); i++)
        if (within(p, special4[i].net, special4[i].bits))
            return true;
    return false;
}

bool kw_address_private(int family, const void *bytes)
{
    const unsigned char *p = bytes;
    if (family == AF_INET)
        return private4(p);
    if (family != AF_INET6)
        return true;
    for (size_t i = 0; i < KW_LEN(special6); i++)
        if (within(p, special6[i].net, special6[i].bits))
            return special6[i].carries < 0 || private4(p + special6[i].carries);
    return false;
}

/* ---- hosts ------------------------------------------------------------------------------------------------------- */

/* "[::1]", "::1%lo" or "127.0.0.1" to bytes; 0: a name. */
static int literal(const char *host, unsigned char bytes[16])
{
    char text[64];
    size_t n = strlen(host);
    if (n >= sizeof text)
        return 0;
    if (*host == '[' && n > 2) {
        host++;
        n -= 2;
    }
    memcpy(text, host, n);
    text[n] = 0;
    text[strcspn(text, "%")] = 0;
    return inet_pton(AF_INET, text, bytes) == 1 ? AF_INET : inet_pton(AF_INET6, text, bytes) == 1 ? AF_INET6 : 0;
}

static bool ends_with_name(const char *host, size_t n, const char *tail, size_t tail_n)
{
    return n >= tail_n && !strncasecmp(host + n - tail_n, tail, tail_n) && (n == tail_n || host[n - tail_n - 1] == '.');
}

bool kw_host_private(const char *host)
{
    static const char *const names[] = {
        "localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "home.arpa",
    };
    unsigned char bytes[16];
    size_t n = strlen(host);
    int family = literal(host, bytes);
    if (family)
        return kw_address_private(family, bytes);
    while (n && host[n - 1] == '.')       /* "localhost." is the same name */
        n--;
    if (!n || !memchr(host, '.', n))      /* a bare name belongs to the network one is in */
        return true;
    for (size_t i = 0; i < KW_LEN(names); i++)
        if (ends_with_name(host, n, names[i], strlen(names[i])))
            return true;
    return false;
}

static bool listed_range(const char *host, const char *item, size_t n)
{
    unsigned char net[16], bytes[16];
    char text[64];
    if (n >= sizeof text)
        return false;
    memcpy(text, item, n);
    text[n] = 0;
    char *slash = strchr(text, '/');
    if (slash)
        *slash++ = 0;
    int family = literal(text, net), most = family == AF_INET ? 32 : 128;
    long bits = slash ? strtol(slash, NULL, 10) : most;
    return family && literal(host, bytes) == family && bits >= 0 && bits <= most && within(bytes, net, (int)bits);
}

bool kw_host_listed(const char *host, const char *list)
{
    size_t n = strlen(host);
    for (const char *p = list; p && *p; ) {
        size_t length = strcspn(p, ", \t");
        const char *item = p;
        p += length + strspn(p + length, ", \t");
        if (length == 1 && *item == '*')
            return true;
        if (length && *item == '.')
            item++, length--;
        if (length && (ends_with_name(host, n, item, length) || listed_range(host, item, length)))
            return true;
    }
    return false;
}

/* ---- paths and percent-encoding ---------------------------------------------------------------------------------- */

bool kw_path_safe(const char *path)
{
    size_t n = strlen(path);
    if (!n || n > 1024 || *path == '/' || path[n - 1] == '/')
        return false;
    for (const char *p = path; *p; ) {
        size_t length = strcspn(p, "/");
        if (!length || length > 255 || (length == 1 && *p == '.') || (length == 2 && p[0] == '.' && p[1] == '.'))
            return false;
        for (size_t i = 0; i < length; i++)
            if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\')
                return false;
        p += length;
        p += *p == '/';
    }
    return true;
}

char *kw_url_encode(kw_arena *a, const char *text, const char *keep)
{
    size_t n = strlen(text), at = 0;
    char *out = kw_alloc(a, 3 * n + 1);
    for (size_t i = 0; out && i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("-_.~", c)
            || strchr(keep, c);
        if (plain) {
            out[at++] = (char)c;
            continue;
        }
        out[at++] = '%';
        out[at++] = "0123456789ABCDEF"[c >> 4];
        out[at++] = "0123456789ABCDEF"[c & 15];
    }
    return out;
}
