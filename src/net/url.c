/* url.c - one file from a plain address. */
#include "net_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The last component of the path, percent signs undone; "" if it has none. */
static void name_of(const char *url, char to[256])
{
    char text[KW__URL];
    const char *at = strstr(url, "://");
    size_t n = 0;
    at = at ? strchr(at + 3, '/') : NULL;
    for (; at && *at && *at != '?' && *at != '#' && n + 1 < sizeof text; at++) {
        char digits[3] = { at[0] == '%' ? at[1] : 0, at[0] == '%' && at[1] ? at[2] : 0, 0 };
        bool code = digits[0] && digits[1] && strspn(digits, "0123456789abcdefABCDEF") == 2;
        text[n++] = code ? (char)strtol(digits, NULL, 16) : *at;
        at += code ? 2 : 0;
        n -= !text[n - 1];                /* no NUL from %00 */
    }
    text[n] = 0;
    kw__plain_name(text, to);
}

/* In a folder of ours that holds nothing but this download. */
static const char *done_before(kw_arena *a, const char *folder)
{
    char **names;
    size_t n;
    if (!kw_is_dir(folder) || kw_dir_list(a, folder, &names, &n, NULL))
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (names[i][0] != '.')
            return kw_path_join(a, folder, names[i]);
    return NULL;
}

kw_status kw_url_pull(kw_web *n, kw_arena *a, const char *url, const char *to, const char *sha256, char **path,
                      kw_err *e)
{
    char name[256], key[65];
    name_of(url, name);
    bool named = strchr(name, '.') != NULL;       /* "download?id=5" leaves the name to the server */
    kw__file f = { .name = named ? name : url, .site = KW__OTHER, .url = url, .sha256 = sha256,
                   .page = kw_ends_with(name, ".html") || kw_ends_with(name, ".htm") };
    if (!kw_sha256_of(url, strlen(url), key))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    const char *folder = to ? to : kw_sprintf(a, "%s/url/%.16s", n->models, key);
    if (!folder)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    const char *before = to || sha256 ? NULL : done_before(a, folder);
    if (before)
        return (*path = kw_strdup(a, before)) ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    return kw__pull_to(n, a, &f, folder, named ? name : NULL, path, e);
}
