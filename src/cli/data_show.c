/* data_show.c - a folder of pictures for people: tables of folders, captions and sizes, then what needs a look. */
#include "data_show.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN = 5, SHOWN_TAGS = 20 };

static void heading(const kw_cli *c, const char *text)
{
    printf("\n%s%s%s\n", kw_style_text(c->term.out_colour, KW_BOLD), text, kw_style_text(c->term.out_colour, KW_PLAIN));
}

/* A paragraph below a heading. */
static void say(const kw_cli *c, const char *text)
{
    kw_str shown = { 0 }, clean = { 0 };
    kw_escape(&clean, text);
    kw_wrap(&shown, clean.s ? clean.s : "", 2, 4, c->term.width);
    printf("  %s\n", shown.s && !shown.failed ? shown.s : "");
    kw_str_free(&shown);
    kw_str_free(&clean);
}

static KW_PRINTF(2, 3) void sayf(const kw_cli *c, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) >= 0)
        say(c, text);
    va_end(ap);
    free(text);
}

/* The beginning of a text, whole characters, unless everything is asked for. */
static void add_start(kw_str *out, const char *text, bool whole)
{
    size_t n = strlen(text);
    if (!whole && n > 120) {
        for (n = 120; n && ((unsigned char)text[n] & 0xc0) == 0x80; n--)
            ;
    }
    kw_str_add_n(out, text, n);
    kw_str_add(out, text[n] ? " …" : "");
}

/* ---- pictures ----------------------------------------------------------------------------------------- */

static void show_folders(const kw_cli *c, const kw_data_view *v)
{
    const kw_dataset *d = v->d;
    kw_table t = { .align = "lrrl" };
    const char *const heads[] = { _(N_("folder")), _(N_("pictures")), _(N_("repeats")), _(N_("words")) };
    heading(c, _(N_("Folders")));
    for (size_t i = 0; i < KW_LEN(heads); i++)
        kw_table_cell(&t, "%s", heads[i]);
    for (size_t i = 0; i < d->n_folders; i++) {
        kw_table_cell(&t, "%s", d->folders[i].name);
        kw_table_cell(&t, "%u", (unsigned)d->folders[i].n);
        kw_table_cell(&t, "%d", d->folders[i].repeats);
        kw_table_cell(&t, "%s", d->folders[i].tokens ? d->folders[i].tokens : "");
    }
    kw_table_print(&t, stdout, 2);
}

static void show_buckets(const kw_cli *c, const kw_data_view *v)
{
    const kw_bucket_rule *r = &v->rule;
    kw_table t = { .align = "rrl" };
    heading(c, _(N_("Sizes in training")));
    if (r->single)
        sayf(c, _(N_("every picture is cut to %dx%d")), r->w, r->h);
    else if (r->no_upscale)
        sayf(c, _(N_("area of %dx%d, sides in steps of %d, small pictures keep their size")), r->w, r->h, r->step);
    else
        sayf(c, _(N_("area of %dx%d, sides %d to %d in steps of %d")), r->w, r->h, r->min, r->max, r->step);
    for (size_t i = 0; i < v->d->n_buckets; i++) {
        const kw_bucket *b = &v->d->buckets[i];
        kw_table_cell(&t, "%dx%d", b->w, b->h);
        kw_table_cell(&t, "%u", (unsigned)b->n);
        kw_table_cell(&t, "%.*s", (int)(30.0 * b->n / (double)v->d->n + 0.999), "##############################");
    }
    kw_table_print(&t, stdout, 2);
}

static void show_pictures(const kw_cli *c, const kw_data_view *v)
{
    const kw_dataset *d = v->d;
    kw_table t = { .align = "lrrll" };
    const char *const heads[] = { _(N_("picture")), _(N_("size")), _(N_("bucket")), _(N_("source")), _(N_("caption")) };
    heading(c, _(N_("Pictures")));
    for (size_t i = 0; i < KW_LEN(heads); i++)
        kw_table_cell(&t, "%s", heads[i]);
    for (size_t i = 0; i < d->n; i++) {
        const kw_item *p = &d->items[i];
        kw_table_cell(&t, "%s", p->name);
        kw_table_cell(&t, "%dx%d", p->w, p->h);
        kw_table_cell(&t, p->bad ? "-" : "%dx%d", p->fit.w, p->fit.h);
        kw_table_cell(&t, "%s", _(kw_caption_source_text(p->source)));
        kw_str caption = { 0 };
        add_start(&caption, p->captions[0], false);
        kw_table_cell(&t, "%s%s", p->held_out ? _(N_("(held out) ")) : "", caption.s ? caption.s : "");
        kw_str_free(&caption);
    }
    kw_table_print(&t, stdout, 2);
}

/* ---- captions ----------------------------------------------------------------------------------------- */

static void show_sources(const kw_cli *c, const kw_data_view *v)
{
    size_t n[KW_N_CAPTIONS] = { 0 };
    kw_str s = { 0 };
    for (size_t i = 0; i < v->d->n; i++)
        n[v->d->items[i].source] += !v->d->items[i].bad;
    for (int i = 0; i < KW_N_CAPTIONS; i++)
        if (n[i])
            kw_str_printf(&s, "%s%s: %zu", s.n ? ", " : "", _(kw_caption_source_text((kw_caption_source)i)), n[i]);
    say(c, s.s ? s.s : "");
    kw_str_free(&s);
}

static void show_trigger(const kw_cli *c, const kw_data_view *v)
{
    const kw_dataset *d = v->d;
    size_t all = 0;
    for (size_t i = 0; i < d->n; i++)
        all += d->items[i].n_captions;
    sayf(c, _(N_("trigger word \"%s\": %zu tokens; %zu of %zu captions had it, it was put in front of the others")),
         d->trigger, v->report.trigger_tokens, d->n_trigger, all);
}

static void show_cuts(const kw_cli *c, const kw_data_view *v)
{
    const kw_caption_report *r = &v->report;
    size_t most = v->all ? r->n_cuts : KW_MIN(r->n_cuts, SHOWN);
    if (!r->n_cuts)
        return;
    sayf(c, _(N_("! %zu of %zu captions have more than %zu tokens; the rest is cut off (--max-token-length 150 or 225 "
                 "takes more):")),
         r->n_cuts, r->n, r->most);
    for (size_t i = 0; i < most; i++) {
        const kw_item *t = &v->d->items[r->cuts[i].item];
        kw_str cut = { 0 };
        add_start(&cut, r->cuts[i].cut_text, v->all);
        sayf(c, _(N_("  %s: %zu tokens, cut off: %s")), t->caption_file ? t->caption_file : t->name, r->cuts[i].tokens,
             cut.s ? cut.s : "");
        kw_str_free(&cut);
    }
    if (most < r->n_cuts)
        sayf(c, _(N_("  … and %zu more (--all shows them)")), r->n_cuts - most);
}

static void show_tags(const kw_cli *c, const kw_caption_report *r)
{
    kw_str s = { 0 };
    for (size_t i = 0; i < r->n_tags && i < SHOWN_TAGS && r->tags[i].n > 1; i++)
        kw_str_printf(&s, "%s%s %zu", i ? ", " : "", r->tags[i].tag, r->tags[i].n);
    if (s.n)
        sayf(c, _(N_("frequent tags: %s")), s.s);
    kw_str_free(&s);
}

static void show_captions(const kw_cli *c, const kw_data_view *v)
{
    const kw_caption_report *r = &v->report;
    heading(c, _(N_("Captions")));
    show_sources(c, v);
    if (r->n)
        sayf(c, _(N_("tokens: %.0f on average, at most %zu (%s)")), r->mean, r->longest,
             v->d->items[r->longest_item].name);
    if (v->d->trigger)
        show_trigger(c, v);
    show_tags(c, r);
    show_cuts(c, v);
    if (r->broken > 0.25)
        sayf(c, _(N_("! %.0f %% of the characters are outside of the base's vocabulary and are spelled byte by byte: "
                     "it hardly knows such words; English captions work better with this base")), 100 * r->broken);
}

/* ---- remarks ------------------------------------------------------------------------------------------ */

static void show_code(const kw_cli *c, const kw_data_view *v, kw_remark_code code, kw_style colour)
{
    const kw_dataset *d = v->d;
    size_t n = 0, shown = 0;
    for (size_t i = 0; i < d->n_remarks; i++)
        n += d->remarks[i].code == code;
    if (!n)
        return;
    printf("  %s%s%s (%zu)\n", kw_style_text(c->term.out_colour, colour), _(kw_remark_text(code)),
           kw_style_text(c->term.out_colour, KW_PLAIN), n);
    for (size_t i = 0; i < d->n_remarks && (v->all || shown < SHOWN); i++)
        if (d->remarks[i].code == code) {
            sayf(c, "  %s%s%s", d->remarks[i].name, d->remarks[i].detail[0] ? ": " : "", d->remarks[i].detail);
            shown++;
        }
    if (shown < n)
        sayf(c, _(N_("  … and %zu more (--all shows them)")), n - shown);
}

void kw_data_show_remarks(const kw_cli *c, const kw_data_view *v)
{
    static const struct { kw_remark_class class; const char *head; kw_style colour; } parts[] = {
        { KW_CLASS_BAD, N_("Bad: cannot be used"), KW_RED }, { KW_CLASS_WARNING, N_("Worth a look"), KW_YELLOW },
        { KW_CLASS_UNUSED, N_("Files that are not used"), KW_PLAIN }, { KW_CLASS_NOTE, N_("Converted"), KW_PLAIN },
    };
    for (size_t k = 0; k < KW_LEN(parts); k++) {
        bool any = false;
        for (size_t i = 0; i < v->d->n_remarks; i++)
            any |= kw_remark_class_of(v->d->remarks[i].code) == parts[k].class;
        if (!any)
            continue;
        heading(c, _(parts[k].head));
        for (int code = 0; code < KW_N_REMARKS; code++)
            if (kw_remark_class_of((kw_remark_code)code) == parts[k].class)
                show_code(c, v, (kw_remark_code)code, parts[k].colour);
    }
}

void kw_data_show(const kw_cli *c, const kw_data_view *v)
{
    const kw_dataset *d = v->d;
    kw_str root = { 0 };
    kw_escape(&root, d->root);
    size_t train = kw_data_count(d, false), held_out = kw_data_count(d, true);
    printf(_(N_("%s: %zu pictures, %zu to train on, %zu held out, %zu bad\n")), root.s ? root.s : "", d->n, train,
           held_out, d->n - train - held_out);
    kw_str_free(&root);
    printf("%s: ", _(N_("base")));
    kw_str base = { 0 };
    kw_escape(&base, v->base ? v->base : _(N_("Stable Diffusion 1.x is assumed")));
    puts(base.s ? base.s : "");
    kw_str_free(&base);
    printf(_(N_("one epoch: %lld pictures with repeats, %lld batches of %d\n")), (long long)v->samples,
           (long long)v->batches, v->batch);
    printf(_(N_("transparent parts: in %zu pictures, laid on #%02x%02x%02x\n")), kw_data_transparent(d),
           v->background[0], v->background[1], v->background[2]);
    show_folders(c, v);
    show_buckets(c, v);
    show_captions(c, v);
    if (v->all)
        show_pictures(c, v);
    kw_data_show_remarks(c, v);
}
