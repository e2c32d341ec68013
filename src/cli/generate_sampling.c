/* generate_sampling.c - lists of samplers and schedules for the terminal; what of sampling is kept in infotext. */
#include "generate.h"

#include <stdio.h>
#include <string.h>

bool kw_asks_for_list(const char *name) { return name && (!strcmp(name, "?") || !strcmp(name, "help")); }

/* ---- lists ------------------------------------------------------------------------------------------------------ */

static void add_json(kw_str *o, const char *key, const char *text)
{
    kw_str_printf(o, "%s\"%s\":", o->s[o->n - 1] == '{' ? "" : ",", key);
    kw_show_json_text(o, text);
}

static void print_json(kw_str *o)
{
    kw_str_add(o, "]}");
    puts(o->s && !o->failed ? o->s : "{}");
    kw_str_free(o);
}

void kw_list_samplers(const kw_cli *cli)
{
    kw_table t = { .align = "llll" };
    kw_str o = { 0 };
    kw_str_add(&o, "{\"samplers\":[");
    for (size_t i = 0; i < kw_n_samplers; i++) {
        const kw_sampler *s = kw_samplers[i];
        const char *schedule = kw_sigma_schedule_find(s->schedule)->label;
        kw_str_add(&o, i ? ",{" : "{");
        add_json(&o, "name", s->label);
        add_json(&o, "id", s->name);
        add_json(&o, "aliases", s->aliases);
        add_json(&o, "schedule", s->schedule);
        kw_str_printf(&o, ",\"evaluations\":%d}", s->second && s->lists != KW_LISTS_PLMS ? 2 : 1);
        kw_table_cell(&t, "%s", s->label);
        kw_table_cell(&t, "%s", s->name);
        kw_table_cell(&t, "%s", schedule);
        kw_table_cell(&t, "%s", _(s->help));
    }
    if (cli->global.json)
        print_json(&o);
    else
        kw_table_print(&t, stdout, 0);
    kw_str_free(&o);
}

void kw_list_schedules(const kw_cli *cli)
{
    kw_table t = { .align = "lll" };
    kw_str o = { 0 };
    kw_str_add(&o, "{\"schedules\":[");
    for (size_t i = 0; i < kw_n_sigma_schedules; i++) {
        const kw_sigma_schedule *s = &kw_sigma_schedules[i];
        kw_str_add(&o, i ? ",{" : "{");
        add_json(&o, "name", s->name);
        add_json(&o, "label", s->label);
        kw_str_add(&o, "}");
        kw_table_cell(&t, "%s", s->name);
        kw_table_cell(&t, "%s", s->label);
        kw_table_cell(&t, "%s", _(s->help));
    }
    if (cli->global.json)
        print_json(&o);
    else
        kw_table_print(&t, stdout, 0);
    kw_str_free(&o);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------ */

kw_status kw_seed_from(const char *text, int *width, int *height, kw_err *e)
{
    *width = *height = 0;
    if (!text || kw_read_pair(text, 'x', 1, 16384, width, height))
        return KW_OK;
    return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("--seed-from %s: not a size"), text), N_("write it as 512x768"));
}

/* ---- infotext --------------------------------------------------------------------------------------------------- */

typedef struct { kw_arena *a; kw_meta *out; size_t n; } list;

static void add(list *l, const char *key, const char *value)
{
    if (value)
        l->out[l->n++] = (kw_meta){ key, value };
}

static void add_number(list *l, const char *key, double v, double usual)
{
    if (v != usual)
        add(l, key, kw_sprintf(l->a, "%.6g", v));
}

size_t kw_sampling_meta(kw_arena *a, const kw_generate_sampling *g, const kw_sampler *s, uint64_t variation,
                        kw_meta *out)
{
    list l = { a, out, 0 };
    if (g->variation_strength > 0) {
        add(&l, "Variation seed", kw_sprintf(a, "%llu", (unsigned long long)variation));
        add_number(&l, "Variation seed strength", g->variation_strength, 0);
    }
    add(&l, "Seed resize from", g->seed_from);
    if (g->noise_delta)
        add(&l, "ENSD", kw_sprintf(a, "%llu", (unsigned long long)g->noise_delta));
    if (s->variant)
        add(&l, s->variant_key, s->variant);
    if (s->churns && g->churn > 0) {
        add_number(&l, "Sigma churn", g->churn, 0);
        add_number(&l, "Sigma tmin", g->churn_from, 0);
        add_number(&l, "Sigma tmax", g->churn_to, 0);
    }
    if (s->uses_noise || (s->churns && g->churn > 0))
        add_number(&l, "Sigma noise", g->noise, 1);
    add_number(&l, "Schedule min sigma", g->least, 0);
    add_number(&l, "Schedule max sigma", g->most, 0);
    if (s->uses_gamma)
        add(&l, "Gamma", kw_sprintf(a, "%.6g", g->gamma));
    add_number(&l, "CFG rescale", g->cfg_rescale, 0);
    return l.n;
}
