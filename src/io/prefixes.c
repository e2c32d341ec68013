/*
 * prefixes.c - what programs put before a model's own names, and is taken off when a model is opened.
 *
 *   module.  _orig_mod.     DistributedDataParallel, torch.compile and their like, wherever they stand in a name
 *   model.model.diffusion_model.x   ->  model.diffusion_model.x      something before everything, where no part of a
 *   model.down_blocks.x             ->  down_blocks.x                model is known by its names as they are
 */
#include "source_internal.h"

#include <string.h>

/* Classes that hold a network as their only member. */
static const char *const holders[] = {
    "module.", "_orig_mod.", "_forward_module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.",
};

static size_t holder_at(const char *s)
{
    for (size_t i = 0; i < KW_LEN(holders); i++)
        if (kw_starts_with(s, holders[i]))
            return strlen(holders[i]);
    return 0;
}

/* The name without holders, NULL: no memory. *seen: which there were, as bits of the list. */
static const char *without_holders(kw_arena *a, const char *name, unsigned *seen)
{
    size_t n = 0, k;
    char *to = NULL;
    bool any = false;
    for (const char *s = name; *s && !any; s++)
        any = holder_at(s) && (s == name || s[-1] == '.');
    if (!any)
        return name;
    if (!(to = kw_strdup(a, name)))
        return NULL;
    for (const char *s = name; *s;) {
        while ((k = s == name || s[-1] == '.' ? holder_at(s) : 0) && s[k]) {
            for (size_t i = 0; i < KW_LEN(holders); i++)
                *seen |= (unsigned)kw_starts_with(s, holders[i]) << i;
            s += k;
        }
        to[n++] = *s++;
    }
    to[n] = 0;
    return to;
}

/* New names instead of the file's, if they are as many; *changed: how many are others. */
static kw_status give_names(kw_source *s, kw_tensors *t, const char **names, size_t *changed, kw_err *e)
{
    kw_tensors try = *t;
    *changed = 0;
    if (!(try.tensors = kw_alloc_array(s->arena, t->n + 1, sizeof *try.tensors)))
        return kw__no_memory(e, t->path);
    for (size_t i = 0; i < t->n; i++) {
        try.tensors[i] = t->tensors[i];
        try.tensors[i].name = names[i];
        *changed += names[i] != t->tensors[i].name;
    }
    kw_err twice;
    kw_status status = kw__tensors_index(s->arena, &try, &twice);
    if (status == KW_EDATA) {             /* two would have one name: they stay as they are */
        *changed = 0;
        return KW_OK;
    }
    if (status)
        return kw__no_memory(e, t->path);
    *t = try;
    return KW_OK;
}

static kw_status drop_holders(kw_source *s, kw_tensors *t, const char **names, kw_err *e)
{
    unsigned seen = 0;
    size_t changed;
    kw_str list = { 0 };
    for (size_t i = 0; i < t->n; i++)
        if (!(names[i] = without_holders(s->arena, t->tensors[i].name, &seen)))
            return kw__no_memory(e, t->path);
    if (!seen)
        return KW_OK;
    KW_TRY(give_names(s, t, names, &changed, e));
    for (size_t i = 0; i < KW_LEN(holders); i++)
        if (seen >> i & 1)
            kw_str_printf(&list, "%s%s", list.n ? ", " : "", holders[i]);
    kw_status status = list.failed ? kw__no_memory(e, t->path) : !changed ? KW_OK
                     : kw__note(s, e, N_("%s: left out of the names of %zu tensors"), list.s, changed);
    kw_str_free(&list);
    return status;
}

/* ---- something before everything --------------------------------------------------------------------------------- */

static bool known(const kw_tensors *t)
{
    char name[KW_KEY_ROOM];
    for (size_t k = 0; k < kw__n_spellings; k++) {
        snprintf(name, sizeof name, "%s%s", kw__spellings[k].prefix, kw__spellings[k].probe);
        if (kw_tensors_find(t, name))
            return true;
    }
    return false;
}

/* Bytes before the first name that a part is known by, with their dot; 0: it is none. */
static size_t before(const char *name)
{
    size_t least = 0, n = strlen(name);
    for (size_t k = 0; k < kw__n_spellings; k++) {
        const kw__spelling *sp = &kw__spellings[k];
        size_t probe = strlen(sp->probe), whole = strlen(sp->prefix) + probe;
        if (n <= whole || name[n - whole - 1] != '.' || !strchr(sp->probe, '.') || !kw_ends_with(name, sp->probe)
            || strncmp(name + n - whole, sp->prefix, whole - probe))
            continue;
        least = !least || n - whole < least ? n - whole : least;
    }
    return least;
}

/* The shortest head that leaves names of parts; one of averages if there is no other. */
static const char *find_head(const kw_tensors *t, size_t *n)
{
    const char *best = NULL;
    bool averages = false;
    for (size_t i = 0; i < t->n; i++) {
        size_t k = before(t->tensors[i].name);
        const char *ema = k ? strstr(t->tensors[i].name, "ema") : NULL;
        bool is_average = ema && ema < t->tensors[i].name + k;
        if (!k || (best && (is_average > averages || (is_average == averages && k >= *n))))
            continue;
        best = t->tensors[i].name;
        averages = is_average;
        *n = k;
    }
    return best;
}

static kw_status drop_head(kw_source *s, kw_tensors *t, const char **names, kw_err *e)
{
    size_t n = 0, changed;
    const char *head = known(t) || kw__stranger_name(t, false) ? NULL : find_head(t, &n);
    char *text = head ? kw_strndup(s->arena, head, n) : NULL, shown[96];
    if (!head)
        return KW_OK;
    if (!text)
        return kw__no_memory(e, t->path);
    for (size_t i = 0; i < t->n; i++)
        names[i] = t->tensors[i].name + (kw_starts_with(t->tensors[i].name, text) && t->tensors[i].name[n] ? n : 0);
    KW_TRY(give_names(s, t, names, &changed, e));
    return changed ? kw__note(s, e, N_("%s: left out of the names of %zu tensors"), kw__shown(text, shown), changed)
                   : KW_OK;
}

kw_status kw__names_clean(kw_source *s, kw_tensors *t, kw_err *e)
{
    char shown[96];
    const char **names = kw_alloc_array(s->arena, t->n + 1, sizeof *names);
    size_t notes = s->notes.n;
    if (!names)
        return kw__no_memory(e, t->path);
    if (t->wrapped)
        KW_TRY(kw__note(s, e, N_("the weights lie in %s: left out of their names"), kw__shown(t->wrapped, shown)));
    KW_TRY(drop_holders(s, t, names, e));
    KW_TRY(drop_head(s, t, names, e));
    s->wrapped |= s->notes.n > notes;
    return KW_OK;
}
