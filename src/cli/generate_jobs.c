/*
 * generate_jobs.c - what is to be drawn: prompts, and kohya's lines of prompts.
 *
 *   a fox in snow --n blurry --w 512 --h 768 --d 1 --l 7.5 --s 20 --ss euler_a
 */
#include "generate.h"

#include "data/data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct { kw_arena *a; const kw_generate_config *c; kw_jobs *out; size_t capacity; kw_err *e; } reader;

/* ---- samplers by name -------------------------------------------------------------------------------------------- */

kw_status kw_job_sampler(const char *name, kw_job *j, kw_err *e)
{
    const char *schedule = NULL;
    j->sampler = kw_sampler_find(name, &schedule);
    if (j->sampler) {
        j->schedule = schedule ? kw_sigma_schedule_find(schedule) : j->schedule;
        return KW_OK;
    }
    kw_str known = { 0 };
    for (size_t i = 0; i < kw_n_samplers; i++)
        kw_str_printf(&known, "%s%s", i ? ", " : "", kw_samplers[i]->label);
    kw_status s = kw_fail(e, KW_EUSAGE, N_("sampler '%s' is not known"), name);
    s = kw_advise(e, s, N_("known are: %s"), known.s ? known.s : "");
    kw_str_free(&known);
    return s;
}

kw_status kw_job_schedule(const char *name, kw_job *j, kw_err *e)
{
    if (!name)
        return KW_OK;
    j->schedule = kw_sigma_schedule_find(name);
    if (j->schedule)
        return KW_OK;
    kw_str known = { 0 };
    for (size_t i = 0; i < kw_n_sigma_schedules; i++)
        kw_str_printf(&known, "%s%s", i ? ", " : "", kw_sigma_schedules[i].name);
    kw_status s = kw_fail(e, KW_EUSAGE, N_("schedule '%s' is not known"), name);
    s = kw_advise(e, s, N_("known are: %s"), known.s ? known.s : "");
    kw_str_free(&known);
    return s;
}

/* ---- jobs -------------------------------------------------------------------------------------------------------- */

/* --count pictures of one prompt, with rising seeds, or with one seed and rising variations, as in A1111; a grid of
   each. */
static kw_status add(reader *r, const kw_job *one)
{
    const kw_grid *g = &r->out->grid;
    int combinations = kw_grid_count(g), columns = g->n ? g->axis[0].n : 1;
    if ((int64_t)combinations * r->c->count + (int64_t)r->out->n > 100000)
        return kw_fail(r->e, KW_EUSAGE, N_("more than %d pictures"), 100000);
    for (int k = 0; k < r->c->count * combinations; k++) {
        KW_TRY(kw_grow(r->a, &r->out->job, &r->capacity, r->out->n, sizeof *one, r->e));
        kw_job *j = &r->out->job[r->out->n++];
        if (k && !g->n) {
            *j = j[-1];
            ++*(r->c->how.variation_strength > 0 ? &j->variation : &j->seed);
            continue;
        }
        *j = *one;
        *(r->c->how.variation_strength > 0 ? &j->variation : &j->seed) += (uint64_t)(k / combinations);
        j->row = r->out->rows + k / columns;
        KW_TRY(kw_grid_apply(r->a, g, k % combinations, j, r->e));
        KW_TRY(kw_loras_apply(r->a, r->c, r->out, j, r->e));
        KW_TRY(kw_grid_apply_lora(r->a, g, j, r->e));
    }
    r->out->rows += r->c->count * combinations / columns;
    return KW_OK;
}

static kw_status defaults(reader *r, const char *prompt, kw_job *j)
{
    const kw_generate_config *c = r->c;
    const char *negative = c->negative ? c->negative : "";
    *j = (kw_job){ .prompt = prompt, .negative = negative, .seed = c->seed, .variation = c->how.variation,
                   .width = c->width, .height = c->height, .steps = c->steps, .cfg = c->cfg,
                   .clip_skip = c->clip_skip, .eta = c->eta, .change = c->init ? c->strength : c->hires_strength };
    KW_TRY(kw_job_sampler(c->sampler, j, r->e));
    return kw_job_schedule(c->schedule, j, r->e);
}

/* ---- kohya's lines ----------------------------------------------------------------------------------------------- */

typedef struct { const char *file; size_t line; } place;

static kw_status bad_value(reader *r, place at, const char *key, const char *value)
{
    return kw_fail(r->e, KW_EUSAGE, N_("%s:%zu: --%s %s: not a value for it"), at.file, at.line, key, value);
}

static bool whole(const char *text, double low, double high, int *v)
{
    char *end;
    double d = strtod(text, &end);
    if (!*text || *end || !(d >= low && d <= high) || d != floor(d))
        return false;
    *v = (int)d;
    return true;
}

static kw_status line_option(reader *r, kw_job *j, place at, const char *key, const char *value)
{
    char *end;
    bool good = true;
    if (!strcmp(key, "n"))
        j->negative = value;
    else if (!strcmp(key, "ss"))
        return kw_job_sampler(value, j, r->e);
    else if (!strcmp(key, "w"))
        good = whole(value, 1, 16384, &j->width);
    else if (!strcmp(key, "h"))
        good = whole(value, 1, 16384, &j->height);
    else if (!strcmp(key, "s"))
        good = whole(value, 1, 1000, &j->steps);
    else if (!strcmp(key, "d")) {
        j->seed = strtoull(value, &end, 10);
        good = *value >= '0' && *value <= '9' && !*end;
    } else if (!strcmp(key, "l")) {
        j->cfg = strtod(value, &end);
        good = *value && !*end && isfinite(j->cfg);
    } else {
        kw_status s = kw_fail(r->e, KW_EUSAGE, N_("%s:%zu: --%s is not known"), at.file, at.line, key);
        return kw_advise(r->e, s, N_("lines take --n --w --h --d --l --s --ss"));
    }
    return good ? KW_OK : bad_value(r, at, key, value);
}

static char *trim(char *s)
{
    s += strspn(s, " \t\r");
    size_t n = strlen(s);
    while (n && strchr(" \t\r", s[n - 1]))
        s[--n] = 0;
    return s;
}

static kw_status read_line(reader *r, char *line, place at)
{
    kw_job j;
    char *next = strstr(line, " --"), *prompt = line;
    if (next)
        *next = 0;
    KW_TRY(defaults(r, trim(prompt), &j));
    for (char *option = next; option; option = next) {
        option += strlen(" --");
        next = strstr(option, " --");
        if (next)
            *next = 0;
        char *value = option + strcspn(option, " \t");
        if (*value)
            *value++ = 0;
        KW_TRY(line_option(r, &j, at, option, trim(value)));
    }
    return add(r, &j);
}

static kw_status read_lines(reader *r, const char *path)
{
    char *data;
    char *text;
    const char *encoding;
    size_t n;
    place at = { path, 0 };
    KW_TRY(kw_file_read(r->a, path, 16 << 20, &data, &n, r->e));
    KW_TRY(kw_text_decode(r->a, path, data, n, NULL, &text, &encoding, r->e));
    char *line = kw_strdup(r->a, text);
    if (!line)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    for (char *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        at.line++;
        char *s = trim(line);
        if (*s && *s != '#')
            KW_TRY(read_line(r, s, at));
    }
    return r->out->n ? KW_OK : kw_fail(r->e, KW_EUSAGE, N_("%s holds no prompt"), path);
}

kw_status kw_jobs_read(kw_arena *a, const kw_generate_config *c, kw_jobs *out, kw_err *e)
{
    const kw_texts *lists[] = { &c->words, &c->prompt };
    reader r = { .a = a, .c = c, .out = out, .e = e };
    kw_job j;
    *out = (kw_jobs){ 0 };
    KW_TRY(kw_grid_read(a, &c->grid, &out->grid, e));
    KW_TRY(kw_hypernets_given(a, c, out, e));
    KW_TRY(kw_loras_given(a, c, out, e));
    for (size_t k = 0; k < KW_LEN(lists); k++)
        for (size_t i = 0; i < lists[k]->n; i++) {
            KW_TRY(defaults(&r, lists[k]->item[i], &j));
            KW_TRY(add(&r, &j));
        }
    if (c->prompts)
        KW_TRY(read_lines(&r, c->prompts));
    if (out->n)
        return KW_OK;
    kw_status s = kw_fail(e, KW_EUSAGE, N_("no prompt was given"));
    return kw_advise(e, s, N_("for example: kiwame generate \"a red fox\""));
}
