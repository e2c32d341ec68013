/* base.c - the model that comes with the program, for those who name none. */
#include "cli.h"
#include "io/io.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* Beside the program as built (build/kiwame, data/) or as installed (bin/kiwame, share/kiwame/). NULL: not there. */
const char *kw_embedded_base(kw_arena *a)
{
    static const char *const places[] = { "../data/kiwame-emoji-128", "../data/shapes", "../share/kiwame/kiwame-emoji-128" };
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
