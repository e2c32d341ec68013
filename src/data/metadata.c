/* metadata.c - metadata.jsonl as Hugging Face's ImageFolder has it: {"file_name": ..., "text": ...} per line. */
#include "metadata.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 256 << 20 };

static const char *text_of(const json_t *o, const char *const *keys)
{
    for (; *keys; keys++)
        if (json_is_string(json_object_get(o, *keys)))
            return json_string_value(json_object_get(o, *keys));
    return NULL;
}

/* The picture's name as items have it: below the folder of the metadata file, NFC. */
static char *full_name(kw_arena *a, const char *metadata, const char *file)
{
    while (kw_starts_with(file, "./"))
        file += 2;
    char *name = kw__nfc(a, file);
    if (!name || !strchr(metadata, '/'))
        return name;
    return kw_sprintf(a, "%s/%s", kw_path_dir(a, metadata), name);
}

static kw_status one_line(kw_dataset *d, kw_metadata *m, const kw_found *f, size_t number, const char *line, size_t n,
                          kw_err *e)
{
    static const char *const file_keys[] = { "file_name", "image", NULL };
    static const char *const text_keys[] = { "text", "caption", "prompt", NULL };
    json_t *json;
    char *shown = kw_sprintf(d->arena, "%s:%zu", f->name, number);
    if (!shown)
        return NO_MEMORY(e);
    KW_TRY(kw_json_parse(d->arena, shown, line, n, &json, e));
    const char *file = json_is_object(json) ? text_of(json, file_keys) : NULL;
    const char *text = file ? text_of(json, text_keys) : NULL;
    if (!text)
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: a line must be {\"file_name\": \"...\", \"text\": \"...\"}"),
                                    shown),
                         N_("correct the line, or remove the file: captions then come from files beside the pictures"));
    KW_TRY(kw_grow(d->arena, &m->list, &m->capacity, m->n, sizeof *m->list, e));
    kw_metadata_line *l = &m->list[m->n];
    *l = (kw_metadata_line){ .name = full_name(d->arena, f->name, file), .file = f->name, .shown = shown };
    char *copy = kw_strdup(d->arena, text);
    if (!copy || !l->name)
        return NO_MEMORY(e);
    for (char *p = copy; *p; p++)         /* one caption, whatever line ends are in it */
        *p = *p == '\n' || *p == '\r' ? ' ' : *p;
    m->n++;
    return kw__caption_lines(d, shown, copy, &l->lines, &l->n_lines, e);
}

static int by_name(const void *x, const void *y)
{
    const kw_metadata_line *a = x, *b = y;
    int order = strcmp(a->name, b->name);
    return order ? order : a->order < b->order ? -1 : a->order > b->order;
}

kw_status kw__metadata_read(kw_dataset *d, const kw_founds *files, kw_metadata *m, kw_err *e)
{
    for (size_t i = 0; i < files->n; i++) {
        char *data, *text;
        const char *from;
        size_t n, number = 0;
        KW_TRY(kw_file_read(d->arena, files->list[i].path, MOST_BYTES, &data, &n, e));
        KW_TRY(kw_text_decode(d->arena, files->list[i].name, data, n, NULL, &text, &from, e));
        if (from)
            KW_TRY(kw__remark(d, KW_REMARK_ENCODING, files->list[i].name, e, "%s", from));
        for (char *p = text; *p;) {
            size_t k = strcspn(p, "\n");
            number++;
            if (strspn(p, " \t\r") < k)
                KW_TRY(one_line(d, m, &files->list[i], number, p, k, e));
            p += k + (p[k] == '\n');
        }
    }
    for (size_t i = 0; i < m->n; i++)
        m->list[i].order = i;
    if (m->n)
        qsort(m->list, m->n, sizeof *m->list, by_name);
    return KW_OK;
}

kw_metadata_line *kw__metadata_find(const kw_metadata *m, const char *name)
{
    size_t low = 0, high = m->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (strcmp(m->list[mid].name, name) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < m->n && !strcmp(m->list[low].name, name) ? &m->list[low] : NULL;
}
