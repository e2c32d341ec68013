/* hypernet.c - hypernetworks: read from A1111's files, built before the keys and values of attention. */
#include "hypernet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NETS = 16, MOST_LAYERS = 64 };

typedef struct {
    int place;                            /* N of linear.N */
    const char *name;                     /* "320.0.linear.0": its weight's name without ".weight" */
    int64_t out;                          /* 0: a layer norm */
} layer;

typedef struct {
    int64_t width;
    struct { layer at[MOST_LAYERS]; int n; } net[2];     /* of keys, of values */
} pair;

struct kw_hypernet {
    kw_tensors *file;
    kw_params *params;
    const char *strength;
    pair pair[MOST_NETS];  int n;
    bool curved, activate_output;
    kw_curve_kind f;
    size_t used;
};

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* "320.0.linear.2.weight", "768.1.linear1.weight" -> width, net, place, bytes before ".weight" */
static bool read_name(const char *name, int64_t *width, int *net, int *place, size_t *n)
{
    char *end;
    *width = strtol(name, &end, 10);
    if (end == name || *width < 1 || *width > 8192 || *end != '.' || (end[1] != '0' && end[1] != '1') || end[2] != '.')
        return false;
    *net = end[1] - '0';
    const char *rest = end + 3, *digits = rest + strlen("linear");
    if (!kw_starts_with(rest, "linear"))
        return false;
    bool old = *digits != '.';
    *place = (int)strtol(digits + !old, &end, 10) - old;
    *n = (size_t)(end - name);
    return end > digits + !old && *place >= 0 && *place < 1000 && !strcmp(end, ".weight");
}

static pair *pair_of(kw_hypernet *h, int64_t width)
{
    for (int i = 0; i < h->n; i++)
        if (h->pair[i].width == width)
            return &h->pair[i];
    if (h->n == MOST_NETS)
        return NULL;
    h->pair[h->n].width = width;
    return &h->pair[h->n++];
}

static int by_place(const void *x, const void *y) { return ((const layer *)x)->place - ((const layer *)y)->place; }

static kw_status add_layer(kw_arena *a, kw_hypernet *h, const kw_tensor *t, kw_err *e)
{
    int64_t width;
    int net, place;
    size_t n;
    const char *shown = kw_tensors_path(h->file);
    if (kw_ends_with(t->name, ".bias") || kw_starts_with(t->name, "optimizer_state_dict"))
        return KW_OK;
    pair *p = read_name(t->name, &width, &net, &place, &n) ? pair_of(h, width) : NULL;
    if (!p || p->net[net].n == MOST_LAYERS || t->rank < 1 || t->rank > 2)
        return kw_fail(e, KW_EDATA, N_("%s: tensor \"%s\" is no layer of a hypernetwork"), shown, t->name);
    layer *l = &p->net[net].at[p->net[net].n++];
    *l = (layer){ place, kw_strndup(a, t->name, n), t->rank == 2 ? t->shape[0] : 0 };
    return l->name ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* From its width through its layers back to its width. */
static kw_status check_net(const kw_hypernet *h, const pair *p, int net, kw_err *e)
{
    int64_t width = p->width;
    for (int i = 0; i < p->net[net].n; i++) {
        const layer *l = &p->net[net].at[i];
        char name[KW_MAX_TENSOR_NAME + 16];
        snprintf(name, sizeof name, "%s.weight", l->name);
        const kw_tensor *t = kw_tensors_find(h->file, name);
        bool fits = t && t->shape[t->rank - 1] == width;
        width = l->out ? l->out : width;
        if (!fits)
            return kw_fail(e, KW_EDATA, N_("%s: the layers of \"%s\" do not fit each other"), kw_tensors_path(h->file),
                           name);
    }
    if (p->net[net].n && width == p->width)
        return KW_OK;
    return kw_fail(e, KW_EDATA, N_("%s: the net of %s for width %lld does not end at that width"),
                   kw_tensors_path(h->file), net ? "to_v" : "to_k", (long long)p->width);
}

static kw_status find(void *hypernet, const char *name, kw_shape shape, kw_tensor *t, kw_err *e)
{
    const kw_hypernet *h = hypernet;
    const kw_tensor *found = kw_tensors_find(h->file, name);
    (void)shape;
    if (!found)
        return kw_fail(e, KW_EDATA, N_("%s has no tensor %s"), kw_tensors_path(h->file), name);
    *t = *found;
    return KW_OK;
}

static kw_status settings(kw_hypernet *h, kw_err *e)
{
    const char *f = kw_tensors_entry(h->file, "activation_func"), *last = kw_tensors_entry(h->file, "activate_output");
    h->activate_output = !last || !strcmp(last, "True");
    h->curved = f && strcmp(f, "linear");
    if (!h->curved || kw_curve_find(f, &h->f))
        return KW_OK;
    return kw_fail(e, KW_EDATA, N_("%s: the activation \"%s\" is not known"), kw_tensors_path(h->file), f);
}

kw_status kw_hypernet_open(kw_arena *a, kw_store *s, const char *path, const char *strength, kw_hypernet **out,
                           kw_err *e)
{
    kw_hypernet *h = kw_alloc(a, sizeof *h);
    if (!h)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    h->strength = strength;
    KW_TRY(kw_tensors_open(a, path, &h->file, e));
    KW_TRY(settings(h, e));
    for (size_t i = 0; i < kw_tensors_n(h->file); i++)
        KW_TRY(add_layer(a, h, kw_tensors_at(h->file, i), e));
    if (!h->n)
        return kw_fail(e, KW_EDATA, N_("%s holds no hypernetwork"), path);
    for (int i = 0; i < h->n; i++)
        for (int net = 0; net < 2; net++) {
            qsort(h->pair[i].net[net].at, (size_t)h->pair[i].net[net].n, sizeof(layer), by_place);
            KW_TRY(check_net(h, &h->pair[i], net, e));
        }
    kw_params_source from = { .find = find, .find_ctx = h, .exact = KW_F32 };
    h->params = kw_params_new(a, s, &from);
    *out = h;
    return h->params ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

size_t kw_hypernet_widths(const kw_hypernet *h) { return (size_t)h->n; }
size_t kw_hypernet_used(const kw_hypernet *h) { return h->used; }

/* ---- building ---------------------------------------------------------------------------------------------------- */

static int last_linear(const pair *p, int net)
{
    int last = 0;
    for (int i = 0; i < p->net[net].n; i++)
        last = p->net[net].at[i].out ? i : last;
    return last;
}

/* One input of the whole graph. */
static kw_val strength(kw_graph *g, const char *name)
{
    for (size_t v = 0; v < g->n_values; v++)
        if (g->value[v].name && !strcmp(g->value[v].name, name))
            return (kw_val)v;
    return kw_input(g, name, KW_SHAPE(1), kw_sum_type(g->compute));
}

static kw_val run(kw_hypernet *h, kw_graph *g, const pair *p, int net, kw_val x)
{
    kw_net n = kw_net_over(g, h->params);
    kw_val y = x;
    int last = last_linear(p, net);
    for (int i = 0; i < p->net[net].n && !g->err.status; i++) {
        const layer *l = &p->net[net].at[i];
        char bias[KW_MAX_TENSOR_NAME + 16];
        snprintf(bias, sizeof bias, "%s.bias", l->name);
        if (!l->out) {
            y = kw_nn_layer_norm(&n, l->name, y, 1e-5f);
            continue;
        }
        y = kw_nn_linear(&n, l->name, y, l->out, kw_tensors_find(h->file, bias) != NULL);
        if (h->curved && (i < last || h->activate_output) && !g->err.status)
            y = kw_curve(g, h->f, y);
    }
    if (g->err.status)
        return x;
    h->used++;
    return kw_add(g, x, kw_scale_by(g, y, strength(g, h->strength)));
}

kw_val kw_hypernets_before(void *hypernets, kw_net *n, kw_val x)
{
    kw_hypernets *all = hypernets;
    int net = kw_ends_with(n->path, ".to_k") ? 0 : kw_ends_with(n->path, ".to_v") ? 1 : -1;
    for (int i = 0; net >= 0 && i < all->n && !n->g->err.status; i++)
        for (int k = 0; k < all->item[i]->n; k++)
            if (all->item[i]->pair[k].width == kw_last(kw_shape_of(n->g, x)) && !n->g->err.status)
                x = run(all->item[i], n->g, &all->item[i]->pair[k], net, x);
    return x;
}
