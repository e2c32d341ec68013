/*
 * torch_names.c - which of a checkpoint's values are its weights, and what they are called.
 *
 *   {"state_dict": {"a.b": T}, "epoch": 3}                    a.b; left out: epoch
 *   {"model": {"state_dict": {"a.b": T}}, "optimizer": ...}   a.b, out of model.state_dict; left out: optimizer
 *   {"unet": {"state_dict": {"a.b": T}}, "vae": {"c.d": U}}   unet.a.b, vae.c.d
 *   {"x": {"y": [T, U]}}                                      x.y.0, x.y.1
 *
 * Trainers put dictionaries around what they save. Weights are a dictionary of tensors whose names have dots; the way
 * to them is left out of the names, unless parts of a model stand side by side.
 */
#include "torch.h"

#include <stdio.h>
#include <string.h>

enum { DEEPEST = 16, MOST_WRAPPINGS = 8, MOST_SAID = 12, MOST_LOOKED_AT = 4 * KW__MOST_NODES };

typedef struct {
    kw__torch_maker m;
    size_t entries, left, looks;          /* left: values that may yet be taken; looks: be looked at before */
    kw_str said;                          /* names of entries that are left out */
    size_t n_said;
    kw_str way;                           /* dictionaries around weights */
    bool plain;                           /* no more than a state_dict */
} walk;

/* ---- what is said ------------------------------------------------------------------------------------------------ */

static void say(walk *w, const char *name)
{
    char shown[96];
    if (w->n_said++ < MOST_SAID && *name) {
        kw_str_add(&w->said, w->said.n ? ", " : "");
        kw_str_add(&w->said, kw__shown(name, shown));
    }
}

/* What hypernetworks are described by; some dozen of them at most. */
static kw_status keep_entry(walk *w, const char *name, const kw__value *v)
{
    enum { MOST = 64, LONGEST = 256 };
    char text[LONGEST + 1];
    kw_tensors *out = w->m.out;
    kw__torch *t = w->m.t;
    if (v->kind == KW__TEXT && v->n <= LONGEST && !memchr(v->of.text, 0, v->n) && kw__utf8(v->of.text, v->n))
        snprintf(text, sizeof text, "%.*s", (int)v->n, v->of.text);
    else if (v->kind == KW__BOOL)
        snprintf(text, sizeof text, "%s", v->of.i ? "True" : "False");
    else if (v->kind == KW__INT)
        snprintf(text, sizeof text, "%lld", (long long)v->of.i);
    else
        return KW_OK;
    if (out->n_entries == MOST)
        return KW_OK;
    KW_TRY(kw_grow(t->arena, &out->entry, &w->entries, out->n_entries, sizeof *out->entry, t->e));
    kw_meta one = { kw_strdup(t->arena, name), kw_strdup(t->arena, text) };
    if (!one.key || !one.value)
        return kw__no_memory(t->e, t->shown);
    out->entry[out->n_entries++] = one;
    return KW_OK;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static kw_status join(walk *w, const char *head, const kw__value *key, char **name)
{
    kw_arena *a = w->m.t->arena;
    const char *dot = *head ? "." : "";
    if (key->kind == KW__INT)
        *name = kw_sprintf(a, "%s%s%lld", head, dot, (long long)key->of.i);
    else if (key->kind != KW__TEXT || !key->n || key->n > KW_MAX_TENSOR_NAME || memchr(key->of.text, 0, key->n)
             || !kw__utf8(key->of.text, key->n))
        return kw__torch_bad(w->m.t, N_("has an entry whose name is no text"));
    else
        *name = kw_sprintf(a, "%s%s%.*s", head, dot, (int)key->n, key->of.text);
    return *name ? KW_OK : kw__no_memory(w->m.t->e, w->m.t->shown);
}

static kw_status too_deep(walk *w)
{
    return kw__torch_bad(w->m.t, N_("its values are nested more deeply than in a checkpoint"));
}

static kw_status take(walk *w, const char *name, const kw__value *v, int depth)
{
    if (!w->left || !--w->left || depth > DEEPEST)
        return too_deep(w);
    if (kw__torch_is_tensor(v))
        return kw__torch_add(&w->m, name, v);
    if (v->kind != KW__DICT && v->kind != KW__LIST && v->kind != KW__TUPLE) {
        say(w, name);
        return depth == 1 ? keep_entry(w, name, v) : KW_OK;
    }
    size_t before = w->m.out->n, said = w->n_said, text = w->said.n, step = v->kind == KW__DICT ? 2 : 1;
    for (size_t i = 0; i + step <= v->n; i += step) {
        char *inner;
        kw__value number = { .kind = KW__INT, .of.i = (int64_t)i };
        KW_TRY(join(w, name, step == 2 ? v->items[i] : &number, &inner));
        KW_TRY(take(w, inner, v->items[i + step - 1], depth + 1));
    }
    if (w->m.out->n == before) {          /* nothing in it: one name for all of it */
        w->n_said = said;
        w->said.n = text;
        if (w->said.s)
            w->said.s[text] = 0;
        say(w, name);
    }
    return KW_OK;
}

/* ---- dictionaries around them ------------------------------------------------------------------------------------ */

/* Those that are meant where several hold weights (averages, a second network), the likeliest first. */
static const char *const wrappers[] = {
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "params", "weights",
};

/* Names of parts, which belong to the tensors' names: see kw__spellings. */
static const char *const parts[] = {
    "unet", "vae", "text_encoder", "text_encoder_2", "diffusion_model", "first_stage_model", "cond_stage_model",
    "conditioner",
};

/* No weights of the model, though tensors may be in it. */
static const char *const besides[] = {
    "lr_scheduler", "lr_schedulers", "scheduler", "schedulers", "scaler", "grad_scaler", "amp", "rng_state",
    "rng_states", "torch_rng_state", "cuda_rng_state", "random_states", "callbacks", "loops",
};

static size_t place(const kw__value *key, const char *const *list, size_t n)
{
    size_t i = 0;
    while (i < n && !kw__is_text(key, list[i]))
        i++;
    return i;
}

static bool is_beside(const kw__value *key)
{
    bool optimizer = key->kind == KW__TEXT && key->n >= 5 && !memcmp(key->of.text, "optim", 5)
        && !memchr(key->of.text, '.', key->n);
    return optimizer || place(key, besides, KW_LEN(besides)) < KW_LEN(besides);
}

static bool look(walk *w, size_t n)
{
    bool may = w->looks > n;
    w->looks -= may ? n : w->looks;
    return may;
}

static bool is_weights(walk *w, const kw__value *v)
{
    for (size_t i = 0; v->kind == KW__DICT && look(w, 1) && i + 1 < v->n; i += 2)
        if (v->items[i]->kind == KW__TEXT && memchr(v->items[i]->of.text, '.', v->items[i]->n)
            && kw__torch_is_tensor(v->items[i + 1]))
            return true;
    return false;
}

/* Is it weights, or are there some in it? */
static bool leads(walk *w, const kw__value *v, int level)
{
    if (v->kind != KW__DICT || level > MOST_WRAPPINGS || !look(w, 1))
        return false;
    if (is_weights(w, v))
        return true;
    for (size_t i = 0; i + 1 < v->n; i += 2)
        if (v->items[i]->kind == KW__TEXT && !is_beside(v->items[i]) && leads(w, v->items[i + 1], level + 1))
            return true;
    return false;
}

/* The number of the key in a dictionary whose value is all that is wanted of it; its n: there is none. */
static size_t wrapping(walk *w, const kw__value *d, int level)
{
    size_t found = d->n, best = KW_LEN(wrappers) + 1, n = 0;
    bool weights = is_weights(w, d);
    for (size_t i = 0; i + 1 < d->n; i += 2) {
        const kw__value *key = d->items[i], *v = d->items[i + 1];
        size_t at = place(key, wrappers, KW_LEN(wrappers));
        bool usual = !at && !level && v->kind == KW__DICT && v->n;
        if (key->kind != KW__TEXT || (!usual && (weights || is_beside(key) || !leads(w, v, level + 1))))
            continue;
        if (at && place(key, parts, KW_LEN(parts)) < KW_LEN(parts))
            return d->n;
        n++;
        found = at < best ? i : found;
        best = KW_MIN(at, best);
    }
    return n == 1 || best < KW_LEN(wrappers) ? found : d->n;
}

/* What lies beside the weights is said, not taken: steps, optimizers, settings of the training. */
static kw_status say_others(walk *w, const char *way, const kw__value *d, size_t but)
{
    for (size_t i = 0; i + 1 < d->n; i += 2) {
        char *name;
        if (i == but)
            continue;
        KW_TRY(join(w, way, d->items[i], &name));
        say(w, name);
    }
    return KW_OK;
}

static kw_status take_all(walk *w, const char *head, const char *way, const kw__value *d, int level);

/* head: what names begin with; way: that and the dictionaries that were left out of it. */
static kw_status take_dict(walk *w, const char *head, const char *way, const kw__value *d, int level)
{
    size_t at;
    char *inner = NULL;
    const char *from = way;
    for (; level < MOST_WRAPPINGS && (at = wrapping(w, d, level)) < d->n; level++, way = inner) {
        KW_TRY(say_others(w, way, d, at));
        KW_TRY(join(w, way, d->items[at], &inner));
        d = d->items[at + 1];
    }
    if (way != from) {
        char shown[96];
        w->plain = !w->way.n && !strcmp(way, "state_dict");
        kw_str_add(&w->way, w->way.n ? ", " : "");
        kw_str_add(&w->way, kw__shown(way, shown));
    }
    return take_all(w, head, way, d, level);
}

static kw_status take_all(walk *w, const char *head, const char *way, const kw__value *d, int level)
{
    bool weights = is_weights(w, d);
    for (size_t i = 0; i + 1 < d->n; i += 2) {
        const kw__value *v = d->items[i + 1];
        char *name, *inner;
        bool beside = is_beside(d->items[i]), more = !beside && !weights && leads(w, v, level + 1);
        KW_TRY(join(w, head, d->items[i], &name));
        if (!beside && !more) {
            KW_TRY(take(w, name, v, *head ? 2 : 1));
            continue;
        }
        KW_TRY(join(w, way, d->items[i], &inner));
        if (more)
            KW_TRY(take_dict(w, name, inner, v, level + 1));
        else
            say(w, inner);
    }
    return KW_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static kw_status note(walk *w)
{
    char text[1024];
    kw__torch *t = w->m.t;
    size_t more = w->n_said > MOST_SAID ? w->n_said - MOST_SAID : 0;
    if (w->said.failed || w->way.failed || (w->n_said && !w->said.s))
        return kw__no_memory(t->e, t->shown);
    if (more)
        snprintf(text, sizeof text, kw_translate(N_("entries beside the weights are left out: %s and %zu more")),
                 w->said.s, more);
    else
        snprintf(text, sizeof text, kw_translate(N_("entries beside the weights are left out: %s")),
                 w->n_said ? w->said.s : "");
    if (w->n_said && !(w->m.out->note = kw_strdup(t->arena, text)))
        return kw__no_memory(t->e, t->shown);
    if (w->way.n && !w->plain && !(w->m.out->wrapped = kw_strdup(t->arena, w->way.s)))
        return kw__no_memory(t->e, t->shown);
    return KW_OK;
}

kw_status kw__torch_tensors(kw__torch *t, kw_tensors *out)
{
    walk w = { .m = { .t = t, .out = out }, .left = KW__MOST_NODES, .looks = MOST_LOOKED_AT };
    if (t->root->kind != KW__DICT)
        return kw__torch_bad(t, N_("holds no named tensors"));
    kw_status s = take_dict(&w, "", "", t->root, 0);
    if (!s)
        s = kw__torch_finish(&w.m);
    if (!s)
        s = note(&w);
    kw_str_free(&w.said);
    kw_str_free(&w.way);
    return s;
}
