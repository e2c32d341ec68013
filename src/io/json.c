/* json.c - JSON files (configurations, indices), read with jansson under limits; and strict UTF-8. */
#include "internal.h"

#include <string.h>

enum { MOST = 16 << 20 };

static void release(void *json) { json_decref(json); }

kw_status kw_json_parse(kw_arena *a, const char *shown, const char *text, size_t n, json_t **json, kw_err *e)
{
    json_error_t why;
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) {              /* editors put a byte order mark */
        text += 3;
        n -= 3;
    }
    *json = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!*json)
        return kw_fail(e, KW_EDATA, N_("%s: not valid JSON (line %d: %s)"), shown, why.line, why.text);
    return kw_defer(a, release, *json) ? kw__no_memory(e, shown) : KW_OK;
}

kw_status kw_json_read(kw_arena *a, const char *path, json_t **json, kw_err *e)
{
    char *text;
    size_t n;
    KW_TRY(kw_file_read(a, path, MOST, &text, &n, e));
    return kw_json_parse(a, path, text, n, json, e);
}

/*  0xxxxxxx | 110xxxxx 10.. | 1110xxxx 10.. 10.. | 11110xxx 10.. 10.. 10..   shortest form, no surrogates  */
bool kw__utf8(const char *s, size_t n)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *p = (const unsigned char *)s, *end = p + n;
    while (p < end) {
        uint64_t eight;
        if (end - p >= 8 && (memcpy(&eight, p, 8), !(eight & 0x8080808080808080u))) {
            p += 8;                                                /* plain ASCII */
            continue;
        }
        unsigned c = *p;
        int length = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
        if (!length || end - p < length)
            return false;
        uint32_t u = length == 1 ? c : c & (0x7fu >> length);
        for (int i = 1; i < length; i++) {
            if (p[i] >> 6 != 2)
                return false;
            u = u << 6 | (p[i] & 0x3f);
        }
        if (u < least[length] || u > 0x10ffff || (u >= 0xd800 && u < 0xe000))
            return false;
        p += length;
    }
    return true;
}

const char *kw__shown(const char *name, char out[96])
{
    size_t n = strlen(name);
    if (n <= 80) {
        memcpy(out, name, n + 1);
        return out;
    }
    for (n = 80; n && (name[n] & 0xc0) == 0x80; n--)
        ;
    memcpy(out, name, n);
    memcpy(out + n, "...", 4);
    return out;
}
