/* source_made.c - a model that lies in no file: its tensors and configurations come from the caller. */
#include "source_internal.h"

static kw_status take(kw_source *s, const kw_made_part *m, kw_err *e)
{
    kw__part *part = &s->parts[m->part];
    part->shown = s->path;
    part->config = m->config;
    part->entries = kw_alloc_array(s->arena, m->n + 1, sizeof *part->entries);
    if (!part->entries)
        return kw__no_memory(e, s->path);
    for (size_t i = 0; i < m->n; i++)
        part->entries[part->n++] = (kw__entry){ .t = m->tensors[i], .raw = &m->tensors[i] };
    return kw__part_finish(s, m->part, e);
}

kw_status kw_source_made(kw_arena *a, const char *shown, const kw_made_part *parts, size_t n, json_t *scheduler,
                         kw_source **out, kw_err *e)
{
    kw_source *s = kw_alloc(a, sizeof *s);
    if (!s || !(s->path = kw_strdup(a, shown)))
        return kw__no_memory(e, shown);
    s->arena = a;
    s->scheduler = scheduler;
    for (size_t i = 0; i < n; i++)
        KW_TRY(take(s, &parts[i], e));
    KW_TRY(kw__read_noise(s, e));
    *out = s;
    return KW_OK;
}
