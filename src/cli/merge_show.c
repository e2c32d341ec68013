/* merge_show.c - the compatibility report of models, and the layers of a LoRA that was made. */
#include "merge_show.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

kw_status kw_put_json(json_t *j, kw_err *e)
{
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (text)
        puts(text);
    free(text);
    json_decref(j);
    return text ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

kw_status kw_json_text(kw_arena *a, json_t *j, char **text, kw_err *e)
{
    char *made = j ? json_dumps(j, JSON_COMPACT) : NULL;
    *text = made ? kw_strdup(a, made) : NULL;
    free(made);
    json_decref(j);
    return *text ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* ---- models ------------------------------------------------------------------------------------------------------ */

static void place_name(const kw_merge_row *r, char name[32])
{
    if (r->block == KW_NONE)
        snprintf(name, 32, "%s", kw_part_name(r->part));
    else if (r->block == 0)
        snprintf(name, 32, "  BASE");
    else if (r->block == 13)
        snprintf(name, 32, "  M00");
    else
        snprintf(name, 32, "  %s%02d", r->block < 13 ? "IN" : "OUT", r->block < 13 ? r->block - 1 : r->block - 14);
}

static void add_row(kw_table *t, const kw_merge_row *r, bool has_base)
{
    char name[32];
    place_name(r, name);
    kw_table_cell(t, "%s", name);
    kw_table_cell(t, "%.2f M", (double)r->numbers / 1e6);
    kw_table_cell(t, "%.5f", r->cosine);
    kw_table_cell(t, "%.2f %%", 100 * r->change);
    if (!has_base)
        return;
    kw_table_cell(t, "%.2f %%", 100 * r->from_base[0]);
    kw_table_cell(t, "%.2f %%", 100 * r->from_base[1]);
    kw_table_cell(t, "%+.3f", r->delta_cosine);
    kw_table_cell(t, "%.1f %%", 100 * r->conflicts);
}

static void head(kw_table *t, bool has_base)
{
    static const char *const names[] = { "", N_("weights"), N_("cosine"), N_("B differs"), N_("A from base"),
                                         N_("B from base"), N_("cosine of these"), N_("opposite signs") };
    for (size_t i = 0; i < (has_base ? KW_LEN(names) : 4); i++)
        kw_table_cell(t, "%s", *names[i] ? _(names[i]) : "");
}

kw_status kw_merge_show(const kw_merge_report *r, const char *const *names, int n, bool all, kw_err *e)
{
    bool failed = false;
    for (int i = 1; i < n; i++) {
        kw_table t = { .align = r->has_base ? "lrrrrrrr" : "lrrr" };
        kw_str line = { 0 };
        kw_str_printf(&line, "A = %s, B = %s", names[0], names[i]);
        kw_str safe = { 0 };
        kw_escape(&safe, line.s ? line.s : "");
        puts(safe.s ? safe.s : "");
        kw_str_free(&line);
        kw_str_free(&safe);
        head(&t, r->has_base);
        for (size_t k = 0; k < r->n; k++)
            if (r->row[k].model == i && (all || r->row[k].block == KW_NONE))
                add_row(&t, &r->row[k], r->has_base);
        failed |= t.failed;
        kw_table_print(&t, stdout, 2);
        puts(_(kw_verdict_text(r->verdict[i])));
        if (kw_verdict_advice(r->verdict[i]))
            printf("  → %s\n", _(kw_verdict_advice(r->verdict[i])));
    }
    fflush(stdout);
    return failed ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

static json_t *row_json(const kw_merge_row *r, bool has_base)
{
    char name[32];
    place_name(r, name);
    json_t *j = json_pack("{s:s, s:I, s:f, s:f}", "place", name + strspn(name, " "), "numbers", (json_int_t)r->numbers,
                          "cosine", r->cosine, "change", r->change);
    if (j && has_base) {
        json_object_set_new(j, "a_from_base", json_real(r->from_base[0]));
        json_object_set_new(j, "b_from_base", json_real(r->from_base[1]));
        json_object_set_new(j, "delta_cosine", json_real(r->delta_cosine));
        json_object_set_new(j, "sign_conflicts", json_real(r->conflicts));
    }
    return j;
}

json_t *kw_merge_report_json(const kw_merge_report *r, const char *const *names, int n)
{
    static const char *const words[] = {
#define X(name, text) #name,
        KW_VERDICT_MAP(X)
#undef X
    };
    json_t *all = json_array();
    for (int i = 1; i < n; i++) {
        json_t *rows = json_array();
        for (size_t k = 0; k < r->n; k++)
            if (r->row[k].model == i)
                json_array_append_new(rows, row_json(&r->row[k], r->has_base));
        json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:b, s:o}", "a", names[0], "b", names[i], "verdict",
                                             words[r->verdict[i]], "good", (int)kw_verdict_is_good(r->verdict[i]),
                                             "rows", rows));
    }
    return all;
}

/* ---- LoRAs ------------------------------------------------------------------------------------------------------- */

typedef struct { size_t n; double kept, all; int least, most; } part_sum;

static void sum_up(const kw_made_lora *l, part_sum s[KW_N_PARTS])
{
    memset(s, 0, KW_N_PARTS * sizeof *s);
    for (size_t i = 0; i < l->n_layers; i++) {
        const kw_made_layer *a = &l->layer[i];
        part_sum *p = &s[a->part];
        p->least = p->n ? KW_MIN(p->least, a->rank) : a->rank;
        p->most = KW_MAX(p->most, a->rank);
        p->kept += a->energy * a->norm * a->norm;
        p->all += a->norm * a->norm;
        p->n++;
    }
}

static void layer_rows(kw_table *t, const kw_made_lora *l, kw_part p)
{
    for (size_t i = 0; i < l->n_layers; i++) {
        const kw_made_layer *a = &l->layer[i];
        if (a->part != p)
            continue;
        kw_table_cell(t, "  %s", a->path);
        kw_table_cell(t, "%lld × %lld", (long long)a->rows, (long long)a->columns);
        kw_table_cell(t, "%d", a->rank);
        kw_table_cell(t, "%.3g", a->norm);
        kw_table_cell(t, "%.2f %%", 100 * a->energy);
    }
}

kw_status kw_made_show(const kw_made_lora *l, bool all, kw_err *e)
{
    kw_table t = { .align = "lrrrr" };
    part_sum s[KW_N_PARTS];
    sum_up(l, s);
    const char *const names[] = { N_("layers"), N_("size"), N_("rank"), N_("norm"), N_("energy kept") };
    for (size_t i = 0; i < KW_LEN(names); i++)
        kw_table_cell(&t, "%s", _(names[i]));
    for (int p = 0; p < KW_N_PARTS; p++) {
        if (!s[p].n)
            continue;
        kw_table_cell(&t, "%s", kw_part_name((kw_part)p));
        kw_table_cell(&t, "%zu", s[p].n);
        if (s[p].least == s[p].most)
            kw_table_cell(&t, "%d", s[p].most);
        else
            kw_table_cell(&t, "%d-%d", s[p].least, s[p].most);
        kw_table_cell(&t, "%.3g", sqrt(s[p].all));
        kw_table_cell(&t, "%.2f %%", s[p].all > 0 ? 100 * s[p].kept / s[p].all : 100);
        if (all)
            layer_rows(&t, l, (kw_part)p);
    }
    bool failed = t.failed;
    kw_table_print(&t, stdout, 2);
    fflush(stdout);
    return failed ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

json_t *kw_made_json(const kw_made_lora *l)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < l->n_layers; i++) {
        const kw_made_layer *a = &l->layer[i];
        json_array_append_new(layers, json_pack("{s:s, s:s, s:I, s:I, s:i, s:f, s:f}", "part", kw_part_name(a->part),
                                                "path", a->path, "rows", (json_int_t)a->rows, "columns",
                                                (json_int_t)a->columns, "rank", a->rank, "norm", a->norm, "energy",
                                                a->energy));
    }
    return json_pack("{s:f, s:f, s:i, s:o}", "energy", l->energy, "outside", l->outside, "rank", l->most_rank, "layers",
                     layers);
}
