/* convert_show.c - what a conversion writes, what it leaves, and what had to be guessed. */
#include "convert_show.h"

#include <stdlib.h>
#include <string.h>

enum { SHOWN = 10 };

static void add_types(kw_str *s, const kw_converted *f)
{
    bool more = false;
    for (int k = 0; k < KW_N_DTYPES; k++)
        if (f->by_type[k]) {
            kw_str_printf(s, "%s%s ×%zu", more ? ", " : "", kw_dtype_name((kw_dtype)k), f->by_type[k]);
            more = true;
        }
}

static void print_escaped(const char *head, const char *text)
{
    kw_str safe = { 0 };
    kw_escape(&safe, text);
    printf("%s%s\n", head, safe.s ? safe.s : "");
    kw_str_free(&safe);
}

static void show_left(const kw_conversion *v)
{
    size_t n = kw_conversion_n_left(v);
    if (!n)
        return;
    printf(_(N_("left behind, as a folder has no place for them: %zu tensors")), n);
    putchar('\n');
    for (size_t i = 0; i < n && i < SHOWN; i++)
        print_escaped("  ", kw_conversion_left(v, i));
    if (n > SHOWN) {
        printf(_(N_("  and %zu more")), n - SHOWN);
        putchar('\n');
    }
}

kw_status kw_convert_show(const kw_cli *c, const kw_source *s, const kw_conversion *v, const char *from, const char *to,
                          kw_err *e)
{
    kw_table t = { .align = "lrrl" };
    kw_str head = { 0 };
    (void)c;
    kw_str_printf(&head, "%s → %s", from, to);
    print_escaped("", head.s ? head.s : to);
    kw_str_free(&head);
    for (size_t i = 0; i < kw_conversion_n(v); i++) {
        const kw_converted *f = kw_conversion_at(v, i);
        kw_str types = { 0 }, size = { 0 };
        add_types(&types, f);
        kw_show_size(&size, (double)f->bytes);
        kw_table_cell(&t, "%s", *f->file ? f->file : kw_path_name(to));
        kw_table_cell(&t, _(N_("%zu tensors")), f->n);
        kw_table_cell(&t, "%s", size.s ? size.s : "");
        kw_table_cell(&t, "%s", types.s ? types.s : "");
        kw_str_free(&types);
        kw_str_free(&size);
    }
    bool failed = t.failed;
    kw_table_print(&t, stdout, 2);
    show_left(v);
    for (size_t i = 0; s && i < kw_source_n_notes(s); i++)
        print_escaped(_(N_("note: ")), kw_source_note(s, i));
    fflush(stdout);
    return failed ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

kw_status kw_convert_json(const kw_source *s, const kw_conversion *v, const char *from, const char *to, bool written,
                          kw_err *e)
{
    json_t *files = json_array(), *left = json_array(), *notes = json_array();
    for (size_t i = 0; i < kw_conversion_n(v); i++) {
        const kw_converted *f = kw_conversion_at(v, i);
        json_t *types = json_object();
        for (int k = 0; k < KW_N_DTYPES; k++)
            if (f->by_type[k])
                json_object_set_new(types, kw_dtype_name((kw_dtype)k), json_integer((json_int_t)f->by_type[k]));
        json_array_append_new(files, json_pack("{s:s, s:I, s:I, s:o}", "file", *f->file ? f->file : kw_path_name(to),
                                               "tensors", (json_int_t)f->n, "bytes", (json_int_t)f->bytes,
                                               "dtypes", types));
    }
    for (size_t i = 0; i < kw_conversion_n_left(v); i++)
        json_array_append_new(left, json_string(kw_conversion_left(v, i)));
    for (size_t i = 0; s && i < kw_source_n_notes(s); i++)
        json_array_append_new(notes, json_string(kw_source_note(s, i)));
    json_t *all = json_pack("{s:s, s:s, s:b, s:o, s:o, s:o}", "from", from, "to", to, "written", (int)written,
                            "files", files, "left", left, "notes", notes);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL;
    if (text)
        puts(text);
    free(text);
    json_decref(all);
    return text ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}
