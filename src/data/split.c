/*
 * split.c - which pictures are held out: by content, so that copies stay together and names do not matter.
 *
 * Each content has a draw from (seed, its hash); contents are taken in the order of draws until the share is reached.
 * Adding a picture changes at most as many others' sides as the share grows or shrinks by.
 */
#include "internal.h"

#include <stdlib.h>

typedef struct { uint64_t draw; uint32_t first, n; } group;       /* first: item; n: usable copies */

static uint32_t hex8(const char *s)
{
    char part[9] = { 0 };
    for (int i = 0; i < 8; i++)
        part[i] = s[i];
    return (uint32_t)strtoul(part, NULL, 16);
}

static uint64_t draw(const kw_item *t, uint64_t seed)
{
    kw_rng r = { .seed = seed, .stream = KW_RNG_SPLIT, .step = hex8(t->hash), .sample = hex8(t->hash + 8) };
    return kw_rng_u64(r, 0);
}

static int by_draw(const void *x, const void *y)
{
    const group *a = x, *b = y;
    if (a->draw != b->draw)
        return a->draw < b->draw ? -1 : 1;
    return a->first < b->first ? -1 : a->first > b->first;
}

size_t kw_data_count(const kw_dataset *d, bool held_out)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n; i++)
        n += !d->items[i].bad && d->items[i].held_out == held_out;
    return n;
}

/* Groups in the order in which they are taken. */
static kw_status make_groups(kw_dataset *d, uint64_t seed, group **list, size_t *n, kw_err *e)
{
    group *g = *list = kw_alloc_array(d->arena, d->n + 1, sizeof *g);
    uint32_t *at = kw_alloc_array(d->arena, d->n + 1, sizeof *at);       /* of a first item: its group */
    *n = 0;
    if (!g || !at)
        return NO_MEMORY(e);
    for (size_t i = 0; i < d->n; i++) {
        const kw_item *t = &d->items[i];
        if (t->bad)
            continue;
        if (t->twin == i) {
            at[i] = (uint32_t)*n;
            g[(*n)++] = (group){ draw(t, seed), (uint32_t)i, 0 };
        }
        g[at[t->twin]].n++;
    }
    qsort(g, *n, sizeof *g, by_draw);
    return KW_OK;
}

static void hold_out(kw_dataset *d, uint32_t first)
{
    for (size_t i = 0; i < d->n; i++)
        if (!d->items[i].bad && d->items[i].twin == first)
            d->items[i].held_out = true;
}

kw_status kw_data_split(kw_dataset *d, double share, uint64_t seed, kw_err *e)
{
    group *g;
    size_t n, taken = 0, usable = kw_data_count(d, false);
    if (!(share >= 0 && share <= 0.5))
        return kw_fail(e, KW_EUSAGE, N_("a share of %g cannot be held out: 0 to 0.5"), share);
    size_t want = (size_t)(share * (double)usable + 0.5);
    if (share > 0 && !want && usable >= 8)
        want = 1;
    if (!want)
        return KW_OK;
    KW_TRY(make_groups(d, seed, &g, &n, e));
    for (size_t i = 0; i < n && taken < want; i++) {
        if (taken + g[i].n > want && !(taken == 0 && i + 1 == n))
            continue;                     /* many copies of one picture: a smaller group is taken instead */
        if (g[i].n == usable)
            break;                        /* all pictures are the same one: nothing can be held out */
        hold_out(d, g[i].first);
        taken += g[i].n;
    }
    return KW_OK;
}
