/* metadata_tags.c - folders and their tags for ss_dataset_dirs and ss_tag_frequency, as sd-scripts counts them. */
#include "escape.h"
#include "metadata_internal.h"

#include <string.h>
#include <utf8proc.h>

/* A file is read whole by programs that list it: so many different tags are enough. */
enum { MOST_TAGS = 10000, SLOTS = 1 << 15 };

typedef struct { size_t folder; const char *text; int64_t n; } tag;

typedef struct {                          /* tags in the order of their first use; slots: indices + 1, by hash */
    kw_arena *arena;
    tag tags[MOST_TAGS];
    uint32_t slots[SLOTS];
    size_t n;
} counter;

const char *kw__folder_name(const kw_lora_folder *f) { return kw_path_name(f->name); }

size_t kw__folder_first(const kw_lora_facts *f, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (!strcmp(kw__folder_name(&f->folders[k]), kw__folder_name(&f->folders[i])))
            return k;
    return i;
}

static uint32_t hash(size_t folder, const char *s)
{
    uint32_t h = 2166136261u ^ (uint32_t)folder;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h;
}

static bool count(counter *c, size_t folder, const char *text)
{
    uint32_t at = hash(folder, text) % SLOTS;
    for (; c->slots[at]; at = (at + 1) % SLOTS) {
        tag *t = &c->tags[c->slots[at] - 1];
        if (t->folder == folder && !strcmp(t->text, text)) {
            t->n++;
            return true;
        }
    }
    if (c->n == MOST_TAGS)
        return true;
    char *copy = kw_strdup(c->arena, text);
    if (!copy)
        return false;
    c->tags[c->n++] = (tag){ folder, copy, 1 };
    c->slots[at] = (uint32_t)c->n;
    return true;
}

static bool is_space(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f) || c == 0x85 || k == UTF8PROC_CATEGORY_ZS
        || k == UTF8PROC_CATEGORY_ZL || k == UTF8PROC_CATEGORY_ZP;
}

/* One tag without the space around it, in lower case. */
static bool count_tag(counter *c, size_t folder, const char *s, const char *end)
{
    kw_str text = { 0 };
    size_t last = 0;
    uint32_t code;
    for (size_t n; s < end && (n = kw__utf8_next(s, &code)); s += n) {
        if (!text.n && is_space(code))
            continue;
        kw__add_utf8(&text, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code));
        if (!is_space(code))
            last = text.n;
    }
    bool whole = !text.failed;
    if (whole && last) {
        text.s[last] = 0;
        whole = count(c, folder, text.s);
    }
    kw_str_free(&text);
    return whole;
}

static bool count_all(counter *c, const kw_lora_facts *f)
{
    for (size_t i = 0; i < f->n_folders; i++)
        for (size_t k = 0; k < f->folders[i].n_captions; k++)
            for (const char *s = f->folders[i].captions[k]; *s;) {
                size_t n = strcspn(s, ",");
                if (!count_tag(c, kw__folder_first(f, i), s, s + n))
                    return false;
                s += n + (s[n] == ',');
            }
    return true;
}

/*  {"10_kiwa": {"kiwa-chan": 18, "smile": 3}}  */
static void write_folder(kw_str *out, const counter *c, size_t folder)
{
    const char *before = "";
    kw_str_add(out, "{");
    for (size_t i = 0; i < c->n; i++)
        if (c->tags[i].folder == folder) {
            kw_str_add(out, before);
            kw__add_json(out, c->tags[i].text, true);
            kw_str_printf(out, ": %lld", (long long)c->tags[i].n);
            before = ", ";
        }
    kw_str_add(out, "}");
}

void kw__tag_frequency(kw_arena *a, const kw_lora_facts *f, kw_str *out)
{
    counter *c = kw_alloc(a, sizeof *c);
    const char *before = "";
    if (!c) {
        out->failed = true;
        return;
    }
    c->arena = a;
    out->failed |= !count_all(c, f);
    kw_str_add(out, "{");
    for (size_t i = 0; i < f->n_folders; i++) {
        if (kw__folder_first(f, i) != i || !f->folders[i].n_captions)
            continue;
        kw_str_add(out, before);
        kw__add_json(out, kw__folder_name(&f->folders[i]), true);
        kw_str_add(out, ": ");
        write_folder(out, c, i);
        before = ", ";
    }
    kw_str_add(out, "}");
}
