/* sampler.c - the table made from samplers.def, and the names under which users know samplers. */
#include "diffusion.h"

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

static bool same(const char *a, size_t n, const char *b, size_t m)
{
    if (n != m)
        return false;
    for (size_t i = 0; i < n; i++)
        if (folded(a[i]) != folded(b[i]))
            return false;
    return true;
}

static bool is_called(const kw_sampler *s, const char *name, size_t n)
{
    if (same(name, n, s->name, strlen(s->name)) || same(name, n, s->label, strlen(s->label)))
        return true;
    for (const char *p = s->aliases; *p; ) {
        size_t m = strcspn(p, ",");
        if (same(name, n, p, m))
            return true;
        p += m + (p[m] == ',');
    }
    return false;
}

static const kw_sampler *find(const char *name, size_t n)
{
    for (size_t i = 0; i < KW_LEN(kw_samplers); i++)
        if (is_called(kw_samplers[i], name, n))
            return kw_samplers[i];
    return NULL;
}

const kw_sampler *kw_sampler_find(const char *name, const char **schedule)
{
    static const char *const tails[] = { " karras", " ka" };        /* "DPM++ 2M Karras", "k_dpmpp_2m_ka" */
    size_t n = strlen(name);
    const kw_sampler *s = find(name, n);
    for (size_t i = 0; !s && i < KW_LEN(tails); i++) {
        size_t m = strlen(tails[i]);
        if (n > m && same(name + n - m, m, tails[i], m) && (s = find(name, n - m)) && schedule)
            *schedule = "karras";
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
