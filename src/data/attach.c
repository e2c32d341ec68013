/*
 * attach.c - which caption belongs to which picture.
 *
 *     a.txt beside a.png  >  a.png.txt  >  metadata.jsonl  >  words of "10_name"  >  words of the file's name  >  none
 *
 * and in each of them the trigger word takes the place of "[trigger]", or comes first.
 */
#include "metadata.h"

#include <stdlib.h>
#include <string.h>

/* ---- caption files ------------------------------------------------------------------------------------ */

static int by_place(const void *x, const void *y)
{
    const kw_found *a = x, *b = y;
    int order = a->dir < b->dir ? -1 : a->dir > b->dir;
    if (!order)
        order = strcmp(a->stem, b->stem);
    if (!order)
        order = a->rank - b->rank;
    return order ? order : strcmp(a->path, b->path);
}

static int by_name(const void *x, const void *y)
{
    const kw_found *a = x, *b = y;
    int order = strcmp(a->name, b->name);
    return order ? order : strcmp(a->path, b->path);
}

/* The first caption file (or mask) of a stem in a folder; those after it with the same stem are second ones. */
static kw_found *find_in(const kw_founds *c, uint32_t dir, const char *stem)
{
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        const kw_found *f = &c->list[mid];
        if (f->dir < dir || (f->dir == dir && strcmp(f->stem, stem) < 0))
            low = mid + 1;
        else
            high = mid;
    }
    return low < c->n && c->list[low].dir == dir && !strcmp(c->list[low].stem, stem) ? &c->list[low] : NULL;
}

/* ---- one picture -------------------------------------------------------------------------------------- */

static kw_status only(kw_dataset *d, kw_item *t, const char *caption, kw_caption_source source, kw_err *e)
{
    t->captions = kw_alloc_array(d->arena, 1, sizeof *t->captions);
    if (!t->captions || !caption)
        return NO_MEMORY(e);
    t->captions[0] = caption;
    t->n_captions = 1;
    t->source = source;
    return KW_OK;
}

static kw_status from_file(kw_walk *w, kw_item *t, kw_found *f, kw_err *e)
{
    kw_err why = { 0 };
    if (f->used)
        KW_TRY(kw__remark(w->d, KW_REMARK_SHARED, t->name, e, "%s", f->name));
    f->used = true;
    t->source = KW_CAPTION_FILE;
    t->caption_file = f->name;
    kw_status s = kw__caption_read(w->d, w->o, f, &t->captions, &t->n_captions, &why);
    if (s == KW_EDATA || s == KW_ESTORAGE) {
        KW_TRY(kw__remark(w->d, KW_REMARK_BAD_CAPTION, t->name, e, "%s", why.what));
        t->bad = w->d->remarks[w->d->n_remarks - 1].detail;
        return only(w->d, t, "", KW_CAPTION_FILE, e);
    }
    if (s) {
        if (e)
            *e = why;
        return s;
    }
    if (t->n_captions > 1 && !w->o->any_line)
        KW_TRY(kw__remark(w->d, KW_REMARK_LINES, f->name, e, "%zu", t->n_captions));
    if (t->n_captions)
        return KW_OK;
    KW_TRY(kw__remark(w->d, KW_REMARK_EMPTY, f->name, e, NULL));
    return only(w->d, t, "", KW_CAPTION_FILE, e);
}

static kw_status from_metadata(kw_walk *w, kw_item *t, kw_metadata_line *l, kw_err *e)
{
    l->used = true;
    t->caption_file = l->file;
    if (!l->n_lines)
        KW_TRY(kw__remark(w->d, KW_REMARK_EMPTY, l->shown, e, NULL));
    return only(w->d, t, l->n_lines ? l->lines[0] : "", KW_CAPTION_METADATA, e);
}

static kw_status from_name(kw_walk *w, kw_item *t, const kw_found *p, kw_err *e)
{
    const char *tokens = w->places[p->dir].tokens, *words = tokens ? tokens : kw__words(w->d->arena, p->stem);
    kw_caption_source source = tokens ? KW_CAPTION_FOLDER : words && *words ? KW_CAPTION_NAME : KW_CAPTION_NONE;
    KW_TRY(kw__remark(w->d, KW_REMARK_NO_CAPTION, t->name, e, "%s", kw_translate(kw_caption_source_text(source))));
    return only(w->d, t, words, source, e);
}

static kw_status caption(kw_walk *w, const kw_metadata *m, kw_item *t, const kw_found *p, kw_err *e)
{
    kw_found *beside = find_in(&w->captions, p->dir, p->stem);
    kw_found *behind = find_in(&w->captions, p->dir, kw_path_name(p->name));
    kw_metadata_line *line = kw__metadata_find(m, p->name);
    if (beside || behind) {
        if (line && !line->used) {
            line->used = true;
            KW_TRY(kw__remark(w->d, KW_REMARK_CAPTION_SECOND, line->shown, e, "%s", t->name));
        }
        return from_file(w, t, beside ? beside : behind, e);
    }
    return line ? from_metadata(w, t, line, e) : from_name(w, t, p, e);
}

static void add_mask(kw_walk *w, kw_item *t, const kw_found *p)
{
    kw_found *mask = find_in(&w->masks, p->dir, p->stem);
    if (!mask)
        return;
    mask->used = true;
    t->mask = mask->path;
    t->mask_name = mask->name;
}

/* ---- the trigger word --------------------------------------------------------------------------------- */

static bool joins(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Is the word in the text, not as a part of another ASCII word? In Japanese words have no bounds to look at. */
static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *p = text; (p = kw__find_folded(p, word)); p++)
        if (!(p > text && joins(p[-1]) && joins(word[0])) && !(joins(p[n]) && joins(word[n - 1])))
            return true;
    return false;
}

static const char PLACE[] = "[trigger]";

static const char *fill_in(kw_arena *a, const char *trigger, const char *text)
{
    kw_str s = { 0 };
    for (const char *p; (p = strstr(text, PLACE)); text = p + sizeof PLACE - 1) {
        kw_str_add_n(&s, text, (size_t)(p - text));
        kw_str_add(&s, trigger);
    }
    kw_str_add(&s, text);
    const char *out = s.failed ? NULL : kw_strdup(a, s.s);
    kw_str_free(&s);
    return out;
}

const char *kw__trigger(kw_arena *a, const char *trigger, const char *text, bool *had)
{
    *had = false;
    if (strstr(text, PLACE)) {
        *had = true;
        return fill_in(a, trigger, text);
    }
    if (!*text)
        return trigger;
    if (has_word(text, trigger)) {
        *had = true;
        return text;
    }
    return kw_sprintf(a, "%s, %s", trigger, text);
}

static kw_status put_trigger(kw_dataset *d, kw_item *t, kw_err *e)
{
    for (size_t i = 0; i < t->n_captions; i++) {
        bool had;
        if (!d->trigger) {
            if (strstr(t->captions[i], PLACE))
                KW_TRY(kw__remark(d, KW_REMARK_PLACEHOLDER, t->caption_file ? t->caption_file : t->name, e, NULL));
            continue;
        }
        if (!(t->captions[i] = kw__trigger(d->arena, d->trigger, t->captions[i], &had)))
            return NO_MEMORY(e);
        d->n_trigger += had;
    }
    return KW_OK;
}

/* ---- all of them -------------------------------------------------------------------------------------- */

/* Names that some systems cannot tell apart, once per group of equals. */
static kw_status tell_same_names(kw_dataset *d, size_t first, kw_err *e)
{
    for (size_t i = first + 1; i < d->n; i++)
        if (!kw__compare_folded(d->items[i].name, d->items[i - 1].name, SIZE_MAX))
            KW_TRY(kw__remark(d, KW_REMARK_SAME_NAME, d->items[i].name, e, "%s", d->items[i - 1].name));
    return KW_OK;
}

static kw_status tell_left_over(kw_walk *w, const kw_metadata *m, kw_err *e)
{
    const kw_found *c = w->captions.list;
    bool taken = false;                   /* another file of the same stem is in use */
    for (size_t i = 0; i < w->captions.n; i++) {
        bool same = i && c[i].dir == c[i - 1].dir && !strcmp(c[i].stem, c[i - 1].stem);
        taken = (same && taken) || c[i].used;
        if (!c[i].used)
            KW_TRY(kw__remark(w->d, taken ? KW_REMARK_CAPTION_SECOND : KW_REMARK_CAPTION_ALONE, c[i].name, e, NULL));
    }
    for (size_t i = 0; i < w->masks.n; i++)
        if (!w->masks.list[i].used)
            KW_TRY(kw__remark(w->d, KW_REMARK_MASK_ALONE, w->masks.list[i].name, e, NULL));
    for (size_t i = 0; i < m->n; i++) {
        bool again = i && m->list[i - 1].used && !strcmp(m->list[i].name, m->list[i - 1].name);
        if (again)
            m->list[i].used = true;
        if (again || !m->list[i].used)
            KW_TRY(kw__remark(w->d, again ? KW_REMARK_CAPTION_SECOND : KW_REMARK_METADATA_ALONE, m->list[i].shown, e,
                              "%s", m->list[i].name));
    }
    return KW_OK;
}

kw_status kw__attach(kw_walk *w, size_t first, kw_err *e)
{
    kw_dataset *d = w->d;
    kw_metadata m = { 0 };
    if (w->captions.n)
        qsort(w->captions.list, w->captions.n, sizeof *w->captions.list, by_place);
    if (w->masks.n)
        qsort(w->masks.list, w->masks.n, sizeof *w->masks.list, by_place);
    if (w->pictures.n)
        qsort(w->pictures.list, w->pictures.n, sizeof *w->pictures.list, by_name);
    KW_TRY(kw__metadata_read(d, &w->metadata, &m, e));
    for (size_t i = 0; i < w->pictures.n; i++) {
        const kw_found *p = &w->pictures.list[i];
        KW_TRY(kw_grow(d->arena, &d->items, &d->capacity, d->n, sizeof *d->items, e));
        kw_item *t = &d->items[d->n];
        *t = (kw_item){ .path = p->path, .name = p->name, .twin = (uint32_t)d->n };
        t->repeats = w->places[p->dir].repeats;
        KW_TRY(caption(w, &m, t, p, e));
        KW_TRY(put_trigger(d, t, e));
        add_mask(w, t, p);
        d->folders[p->folder].n++;
        d->n++;
    }
    KW_TRY(tell_same_names(d, first, e));
    return tell_left_over(w, &m, e);
}
