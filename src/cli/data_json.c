/* data_json.c - a folder of pictures as `kiwame data --json` prints it: one object, every picture, every remark. */
#include "data_show.h"

static void key(kw_str *o, const char *name) { kw_str_printf(o, ",\"%s\":", name); }

static void text(kw_str *o, const char *name, const char *value)
{
    key(o, name);
    if (value)
        kw_show_json_text(o, value);
    else
        kw_str_add(o, "null");
}

/* Names of enumerators in lower case, the same in every language. */
static const char *source_id(kw_caption_source s)
{
    static const char *const ids[] = { "file", "metadata", "folder", "name", "none" };
    return ids[s];
}

static const char *class_id(kw_remark_class c)
{
    static const char *const ids[] = { "unused", "bad", "warning", "note" };
    return ids[c];
}

static void add_item(kw_str *o, const kw_item *t)
{
    kw_str_add(o, "{\"name\":");
    kw_show_json_text(o, t->name);
    kw_str_printf(o, ",\"width\":%d,\"height\":%d,\"repeats\":%d,\"held_out\":%s", t->w, t->h, t->repeats,
                  t->held_out ? "true" : "false");
    text(o, "sha256", t->hash[0] ? t->hash : NULL);
    text(o, "bad", t->bad);
    if (!t->bad)
        kw_str_printf(o, ",\"bucket\":[%d,%d],\"scaled\":[%d,%d]", t->fit.w, t->fit.h, t->fit.scaled_w,
                      t->fit.scaled_h);
    text(o, "caption_source", source_id(t->source));
    text(o, "caption_file", t->caption_file);
    kw_str_add(o, ",\"captions\":[");
    for (size_t i = 0; i < t->n_captions; i++) {
        kw_str_add(o, i ? "," : "");
        kw_show_json_text(o, t->captions[i]);
    }
    kw_str_add(o, "]}");
}

static void add_folders(kw_str *o, const kw_dataset *d)
{
    for (size_t i = 0; i < d->n_folders; i++) {
        kw_str_add(o, i ? ",{\"name\":" : "{\"name\":");
        kw_show_json_text(o, d->folders[i].name);
        kw_str_printf(o, ",\"pictures\":%u,\"repeats\":%d", (unsigned)d->folders[i].n, d->folders[i].repeats);
        text(o, "words", d->folders[i].tokens);
        kw_str_add(o, "}");
    }
}

static void add_captions(kw_str *o, const kw_data_view *v)
{
    const kw_caption_report *r = &v->report;
    kw_str_printf(o, "{\"count\":%zu,\"tokens_mean\":%.2f,\"tokens_longest\":%zu,\"tokens_most\":%zu,"
                  "\"outside_vocabulary\":%.4f", r->n, r->mean, r->longest, r->most, r->broken);
    text(o, "trigger", v->d->trigger);
    kw_str_printf(o, ",\"trigger_tokens\":%zu,\"trigger_found\":%zu,\"cut\":[", r->trigger_tokens, v->d->n_trigger);
    for (size_t i = 0; i < r->n_cuts; i++) {
        kw_str_add(o, i ? ",{\"name\":" : "{\"name\":");
        kw_show_json_text(o, v->d->items[r->cuts[i].item].name);
        kw_str_printf(o, ",\"line\":%u,\"tokens\":%zu,\"cut\":%zu", r->cuts[i].line + 1, r->cuts[i].tokens,
                      r->cuts[i].cut);
        text(o, "text", r->cuts[i].cut_text);
        kw_str_add(o, "}");
    }
    kw_str_add(o, "],\"tags\":[");
    for (size_t i = 0; i < r->n_tags; i++) {
        kw_str_add(o, i ? ",[" : "[");
        kw_show_json_text(o, r->tags[i].tag);
        kw_str_printf(o, ",%zu]", r->tags[i].n);
    }
    kw_str_add(o, "]}");
}

static void add_remarks(kw_str *o, const kw_dataset *d)
{
    for (size_t i = 0; i < d->n_remarks; i++) {
        const kw_remark *r = &d->remarks[i];
        kw_str_printf(o, "%s{\"code\":\"%s\",\"class\":\"%s\"", i ? "," : "", kw_remark_name(r->code),
                      class_id(kw_remark_class_of(r->code)));
        text(o, "name", r->name);
        text(o, "detail", r->detail);
        kw_str_add(o, "}");
    }
}

void kw_data_print_json(const kw_data_view *v)
{
    const kw_dataset *d = v->d;
    const kw_bucket_rule *r = &v->rule;
    kw_str o = { 0 };
    kw_str_add(&o, "{\"folder\":");
    kw_show_json_text(&o, d->root);
    text(&o, "base", v->base);
    kw_str_printf(&o,
                  ",\"pictures\":%zu,\"training\":%zu,\"held_out\":%zu,\"samples_per_epoch\":%lld,\"batch\":%d,"
                  "\"batches_per_epoch\":%lld,\"resolution\":[%d,%d],\"side_min\":%d,\"side_max\":%d,\"side_step\":%d,"
                  "\"background\":\"#%02x%02x%02x\",\"transparent\":%zu,\"folders\":[",
                  d->n, kw_data_count(d, false), kw_data_count(d, true), (long long)v->samples, v->batch,
                  (long long)v->batches, r->w, r->h, r->min, r->max, r->step, v->background[0], v->background[1],
                  v->background[2], kw_data_transparent(d));
    add_folders(&o, d);
    kw_str_add(&o, "],\"buckets\":[");
    for (size_t i = 0; i < d->n_buckets; i++)
        kw_str_printf(&o, "%s[%d,%d,%u]", i ? "," : "", d->buckets[i].w, d->buckets[i].h, (unsigned)d->buckets[i].n);
    kw_str_add(&o, "],\"captions\":");
    add_captions(&o, v);
    kw_str_add(&o, ",\"items\":[");
    for (size_t i = 0; i < d->n; i++) {
        kw_str_add(&o, i ? ",\n" : "\n");
        add_item(&o, &d->items[i]);
    }
    kw_str_add(&o, "],\"remarks\":[");
    add_remarks(&o, d);
    kw_str_add(&o, "]}\n");
    fputs(o.s && !o.failed ? o.s : "{}\n", stdout);
    kw_str_free(&o);
}
