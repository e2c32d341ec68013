/* names.c - the names of a run's files, as kohya's scripts give them. */
#include "metadata.h"

#include <string.h>
#include <time.h>

char *kw_name_of_epoch(kw_arena *a, const char *name, int64_t epoch, const char *extension)
{
    return kw_sprintf(a, "%s-%06lld%s", name, (long long)epoch, extension);
}

char *kw_name_of_step(kw_arena *a, const char *name, int64_t step, const char *extension)
{
    return kw_sprintf(a, "%s-step%08lld%s", name, (long long)step, extension);
}

char *kw_name_of_last(kw_arena *a, const char *name, const char *extension)
{
    return kw_sprintf(a, "%s%s", name, extension);
}

char *kw_name_of_sample(kw_arena *a, const char *name, int64_t epoch, int64_t step, int index, double time,
                        uint64_t seed)
{
    struct tm t = { .tm_mday = 1 };
    time_t whole = (time_t)time;
    char stamp[32];
    localtime_r(&whole, &t);
    if (!strftime(stamp, sizeof stamp, "%Y%m%d%H%M%S", &t))
        strcpy(stamp, "0");
    return kw_sprintf(a, "%s%s%s%06lld_%02d_%s_%llu.png", name ? name : "", name && *name ? "_" : "",
                      epoch >= 0 ? "e" : "", (long long)(epoch >= 0 ? epoch : step), index, stamp,
                      (unsigned long long)seed);
}

static bool is_plain(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* No point, space or dash in front: hidden files and options of commands begin so. */
char *kw_name_plain(kw_arena *a, const char *text)
{
    char *name = kw_alloc(a, strlen(text) + 5);
    size_t n = 0;
    if (!name)
        return NULL;
    for (const char *s = text; *s; s++)
        if (is_plain(*s) || (*s == '.' && n && name[n - 1] != '.'))
            name[n++] = *s;
        else if (n && name[n - 1] != '-')
            name[n++] = '-';
    while (n && (name[n - 1] == '-' || name[n - 1] == '.'))
        n--;
    name[n] = 0;
    name += strspn(name, "-.");
    return *name ? name : strcpy(name, "lora");
}
