/* sampler.c - the table made from samplers.def, and the names under which users know samplers. */
#include "sampling.h"

#include <string.h>

#define KW_SAMPLER(name) extern const kw_sampler kw_sampler_##name;
#include "samplers.def"
#undef KW_SAMPLER

const kw_sampler *const kw_samplers[] = {
#define KW_SAMPLER(name) &kw_sampler_##name,
#include "samplers.def"
#undef KW_SAMPLER
};
const size_t kw_n_samplers = KW_LEN(kw_samplers);

/* lower case; '-', '_' and blank are one character */
static int folded(char c) { return c == '-' || c == '_' ? ' ' : c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c; }

bool kw_name_is(const char *name, size_t n, const char *known)
{
    if (n != strlen(known))
        return false;
    for (size_t i = 0; i < n; i++)
        if (folded(name[i]) != folded(known[i]))
            return false;
    return true;
}

bool kw_name_in(const char *name, size_t n, const char *list)
{
    for (const char *p = list; *p; ) {
        size_t m = strcspn(p, ","), i = 0;
        while (m == n && i < n && folded(name[i]) == folded(p[i]))
            i++;
        if (n && m == n && i == n)
            return true;
        p += m + (p[m] == ',');
    }
    return false;
}

static bool is_called(const kw_sampler *s, const char *name, size_t n)
{
    return kw_name_is(name, n, s->name) || kw_name_is(name, n, s->label) || kw_name_in(name, n, s->aliases);
}

static const kw_sampler *find(const char *name, size_t n)
{
    for (size_t i = 0; i < KW_LEN(kw_samplers); i++)
        if (is_called(kw_samplers[i], name, n))
            return kw_samplers[i];
    return NULL;
}

/* " Karras" at the end of "DPM++ 2M Karras"; "_ka" at that of "k_dpmpp_2m_ka"; a schedule's name, label or alias */
static const kw_sigma_schedule *tail_of(const char *name, size_t n)
{
    if (kw_name_is(name, n, "ka"))
        return kw_sigma_schedule_find("karras");
    if (kw_name_is(name, n, "exp"))
        return kw_sigma_schedule_find("exponential");
    for (size_t i = 0; i < kw_n_sigma_schedules; i++)
        if (kw_name_is(name, n, kw_sigma_schedules[i].name) || kw_name_is(name, n, kw_sigma_schedules[i].label)
            || kw_name_in(name, n, kw_sigma_schedules[i].aliases))
            return &kw_sigma_schedules[i];
    return NULL;
}

const kw_sampler *kw_sampler_find(const char *name, const char **schedule)
{
    size_t n = strlen(name);
    const kw_sampler *s = find(name, n);
    for (size_t i = n; !s && i-- > 1; ) {
        const kw_sigma_schedule *tail = folded(name[i]) == ' ' ? tail_of(name + i + 1, n - i - 1) : NULL;
        if (tail && (s = find(name, i)) && schedule)
            *schedule = tail->name;
    }
    return s;
}

/* ---- spacings ---------------------------------------------------------------------------------------- */

static const struct { const char *name, *help; } spacings[] = {
#define X(id, name, help) { name, help },
    KW_SPACING_MAP(X)
#undef X
};

const char *kw_spacing_name(kw_spacing s) { return spacings[s].name; }
const char *kw_spacing_help(kw_spacing s) { return spacings[s].help; }

bool kw_spacing_find(const char *name, kw_spacing *s)
{
    for (size_t i = 0; i < KW_LEN(spacings); i++)
        if (strcasecmp(name, spacings[i].name) == 0) {
            *s = (kw_spacing)i;
            return true;
        }
    return false;
}
