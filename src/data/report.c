/* report.c - captions as the text encoder sees them: lengths, what is cut off, what the vocabulary cannot spell. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct { const char *s; size_t n; } word;

static int by_text(const void *x, const void *y)
{
    const word *a = x, *b = y;
    int order = memcmp(a->s, b->s, KW_MIN(a->n, b->n));
    return order ? order : a->n < b->n ? -1 : a->n > b->n;
}

static int by_count(const void *x, const void *y)
{
    const kw_tag *a = x, *b = y;
    if (a->n != b->n)
        return a->n > b->n ? -1 : 1;
    return strcmp(a->tag, b->tag);
}

typedef struct { word *list; size_t n, capacity; } words;

static kw_status add_tags(kw_arena *a, words *w, const char *text, kw_err *e)
{
    while (*text) {
        size_t k = strcspn(text, ","), from = strspn(text, " "), to = k;
        while (to > from && text[to - 1] == ' ')
            to--;
        if (to > from) {
            KW_TRY(kw_grow(a, &w->list, &w->capacity, w->n, sizeof *w->list, e));
            w->list[w->n++] = (word){ text + from, to - from };
        }
        text += k + (text[k] == ',');
    }
    return KW_OK;
}

static kw_status count_tags(kw_arena *a, words *w, kw_caption_report *r, kw_err *e)
{
    size_t capacity = 0;
    if (w->n)
        qsort(w->list, w->n, sizeof *w->list, by_text);
    for (size_t i = 0; i < w->n; i++) {
        if (!i || by_text(&w->list[i], &w->list[i - 1])) {
            KW_TRY(kw_grow(a, &r->tags, &capacity, r->n_tags, sizeof *r->tags, e));
            if (!(r->tags[r->n_tags++].tag = kw_strndup(a, w->list[i].s, w->list[i].n)))
                return NO_MEMORY(e);
            r->tags[r->n_tags - 1].n = 0;
        }
        r->tags[r->n_tags - 1].n++;
    }
    if (r->n_tags)
        qsort(r->tags, r->n_tags, sizeof *r->tags, by_count);
    return KW_OK;
}

typedef struct {
    kw_arena *a;
    const kw_tokenizer *t;
    size_t windows, tokens, chars, broken;
    words words;
    kw_caption_report *r;
} count;

/* One caption; scratch memory goes at once, as there may be a hundred thousand. */
static kw_status one(count *c, kw_arena *scratch, uint32_t item, uint32_t line, const char *text, kw_err *e)
{
    kw_caption_report *r = c->r;
    kw_windows w;
    kw_tokens k;
    KW_TRY(kw_tokenize(c->t, scratch, text, strlen(text), &k, e));
    KW_TRY(kw_caption_windows(c->t, scratch, text, c->windows, &w, e));
    r->n++;
    c->tokens += k.n;
    c->chars += k.chars;
    c->broken += k.broken;
    if (k.n > r->longest) {
        r->longest = k.n;
        r->longest_item = item;
    }
    if (w.cut) {
        KW_TRY(kw_grow(c->a, &r->cuts, &r->cuts_capacity, r->n_cuts, sizeof *r->cuts, e));
        kw_cut *cut = &r->cuts[r->n_cuts++];
        *cut = (kw_cut){ item, line, k.n, w.cut, kw_strdup(c->a, w.cut_text ? w.cut_text : "") };
        if (!cut->cut_text)
            return NO_MEMORY(e);
    }
    return add_tags(c->a, &c->words, text, e);
}

static kw_status all(count *c, const kw_dataset *d, kw_err *e)
{
    for (uint32_t i = 0; i < d->n; i++)
        for (uint32_t k = 0; k < d->items[i].n_captions && !d->items[i].bad; k++) {
            kw_arena *scratch = kw_arena_new();
            kw_status s = scratch ? one(c, scratch, i, k, d->items[i].captions[k], e) : NO_MEMORY(e);
            kw_arena_free(scratch);
            KW_TRY(s);
        }
    return count_tags(c->a, &c->words, c->r, e);
}

kw_status kw_data_captions(kw_arena *a, const kw_dataset *d, const kw_tokenizer *t, size_t windows,
                           kw_caption_report *r, kw_err *e)
{
    count c = { .a = a, .t = t, .windows = windows, .r = r };
    *r = (kw_caption_report){ .most = windows * (size_t)(kw_tokenizer_max_length(t) - 2) };
    KW_TRY(all(&c, d, e));
    r->mean = r->n ? (double)c.tokens / (double)r->n : 0;
    r->broken = c.chars ? (double)c.broken / (double)c.chars : 0;
    if (d->trigger) {
        kw_tokens k;
        KW_TRY(kw_tokenize(t, a, d->trigger, strlen(d->trigger), &k, e));
        r->trigger_tokens = k.n;
    }
    return KW_OK;
}
