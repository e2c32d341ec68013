/*
 * caption.c - the text that a sample is trained with. Numbers of a sample's stream (seed, CAPTION, epoch, id), in words
 * of 64 bits: 0 dropout, 1 line, 16+i dropout of tag i, 2^20+i shuffle.
 */
#include "internal.h"

#include <string.h>

enum { DRAW_DROPOUT = 0, DRAW_LINE = 1, DRAW_TAGS = 16, DRAW_SHUFFLE = 1 << 20 };

typedef struct { const char *s; size_t n; } tag;

static size_t count_commas(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += *s == ',';
    return n;
}

/* Tags without the blanks around them; empty ones are left out. */
static size_t split(const char *text, tag *tags)
{
    size_t n = 0;
    while (*text) {
        size_t k = strcspn(text, ","), from = strspn(text, " "), to = k;
        while (to > from && text[to - 1] == ' ')
            to--;
        if (to > from)
            tags[n++] = (tag){ text + from, to - from };
        text += k + (text[k] == ',');
    }
    return n;
}

/* Tags that the trigger word takes at the start of a caption. */
static size_t trigger_tags(const char *trigger, const char *text)
{
    return trigger && !kw__compare_folded(text, trigger, strlen(trigger)) ? 1 + count_commas(trigger) : 0;
}

/* Fisher-Yates as kw_rng_permute, from DRAW_SHUFFLE on. */
static void shuffle(kw_rng r, tag *tags, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = kw_rng_below(r, DRAW_SHUFFLE + (n - i), i);
        tag t = tags[j];
        tags[j] = tags[i - 1];
        tags[i - 1] = t;
    }
}

static const char *join(kw_arena *a, const tag *tags, size_t n)
{
    size_t room = 1;
    for (size_t i = 0; i < n; i++)
        room += tags[i].n + 2;
    char *out = kw_alloc(a, room), *o = out;
    for (size_t i = 0; out && i < n; i++) {
        memcpy(o, ", ", 2);
        o += i ? 2 : 0;
        memcpy(o, tags[i].s, tags[i].n);
        o += tags[i].n;
    }
    return out ? (*o = 0, out) : NULL;
}

static const char *change_tags(kw_arena *a, const kw_dataset *d, const kw_caption_config *c, kw_rng r, const char *line)
{
    tag *tags = kw_alloc_array(a, count_commas(line) + 1, sizeof *tags);
    if (!tags)
        return NULL;
    size_t n = split(line, tags), keep = c->keep_tokens < 0 ? trigger_tags(d->trigger, line) : (size_t)c->keep_tokens;
    size_t left = keep = KW_MIN(keep, n);
    if (c->shuffle)
        shuffle(r, tags + keep, n - keep);
    for (size_t i = keep; i < n; i++)
        if (!(c->tag_dropout > 0 && kw_rng_double(r, DRAW_TAGS + i) < c->tag_dropout))
            tags[left++] = tags[i];
    return join(a, tags, left);
}

kw_status kw_caption_make(kw_arena *a, const kw_dataset *d, const kw_caption_config *c, const kw_sample *s,
                          const char **text, kw_err *e)
{
    const kw_item *t = &d->items[s->item];
    kw_rng r = { .seed = c->seed, .stream = KW_RNG_CAPTION, .step = s->epoch, .sample = s->id };
    *text = "";
    if (c->dropout > 0 && kw_rng_double(r, DRAW_DROPOUT) < c->dropout)
        return KW_OK;
    *text = t->captions[c->any_line ? kw_rng_below(r, DRAW_LINE, t->n_captions) : 0];
    if (!c->shuffle && !(c->tag_dropout > 0))
        return KW_OK;
    *text = change_tags(a, d, c, r, *text);
    return *text ? KW_OK : NO_MEMORY(e);
}
