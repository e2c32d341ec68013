/* base.c - the model that comes with the program, for those who name none; and how a model wishes to be sampled. */
#include "cli.h"
#include "io/io.h"

#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* Beside the program as built (build/kiwame, data/) or as installed (bin/kiwame, share/kiwame/). NULL: not there. */
const char *kw_embedded_base(kw_arena *a)
{
    static const char *const places[] = { "../data/kiwame-emoji-128", "../share/kiwame/kiwame-emoji-128" };
    char exe[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return NULL;
    exe[n] = 0;
    char *dir = kw_path_dir(a, exe);
    for (size_t i = 0; dir && i < KW_LEN(places); i++) {
        char *path = kw_path_join(a, dir, places[i]);
        char *whole = path ? realpath(path, NULL) : NULL, *copy = whole ? kw_strdup(a, whole) : NULL;
        free(whole);
        if (copy && kw_is_dir(copy))
            return copy;
    }
    return NULL;
}

/* In model_index.json, which diffusers reads too and whose keys with an underscore it leaves alone: "_sampling": { "cfg": 3 } */
kw_status kw_base_wishes(kw_cli *c, const char *base, const char *wish, const char *option, kw_err *e)
{
    json_t *index;
    char text[64];
    char *path = kw_path_join(c->arena, base, "model_index.json");
    if (!path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (kw_options_from(c->options, option) != KW_FROM_DEFAULT || !kw_is_file(path))
        return KW_OK;
    KW_TRY(kw_json_read(c->arena, path, &index, e));
    const json_t *value = json_object_get(json_object_get(index, "_sampling"), wish);
    if (json_is_string(value))
        snprintf(text, sizeof text, "%s", json_string_value(value));
    else if (json_is_number(value))
        snprintf(text, sizeof text, "%.10g", json_number_value(value));
    else
        return KW_OK;
    return kw_options_set(c->options, option, text, KW_FROM_PRESET, path, e);
}
