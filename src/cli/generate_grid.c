/*
 * generate_grid.c - X/Y/Z grids: --grid cfg=5,7,9 --grid "seed=1-4" --grid "prompt=fox,cat".
 *
 *   values   a,b,"c, d"      ranges of numbers   1-5   0-1:0.25   and A1111's  1-9 (+2)   0-1 [5]
 *
 * The first axis runs along the columns, the second along the rows, the third repeats the rows.
 */
#include "generate.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct kw_grid_kind {
    const char *name, *label;             /* label: in a sheet's infotext; A1111's where it has one */
    bool numbers;                         /* ranges are taken apart */
    double low, high;
    bool whole;
    kw_status (*set)(kw_arena *a, const kw_axis *x, int i, kw_job *j, kw_err *e);
} kind;

static double number(const kw_axis *x, int i) { return strtod(x->value[i], NULL); }

/* ---- what an axis sets ------------------------------------------------------------------------------------------ */

#define SETTER(name, expression) \
    static kw_status set_##name(kw_arena *a, const kw_axis *x, int i, kw_job *j, kw_err *e) \
    { \
        (void)a, (void)e; \
        expression; \
        return KW_OK; \
    }
SETTER(cfg, j->cfg = number(x, i))
SETTER(steps, j->steps = (int)number(x, i))
SETTER(seed, j->seed = strtoull(x->value[i], NULL, 10))
SETTER(strength, j->change = number(x, i))
SETTER(eta, j->eta = number(x, i))
SETTER(clip_skip, j->clip_skip = (int)number(x, i))
SETTER(width, j->width = (int)number(x, i))
SETTER(height, j->height = (int)number(x, i))
SETTER(negative, j->negative = x->value[i])
SETTER(base, j->base = x->value[i])
#undef SETTER

static kw_status set_sampler(kw_arena *a, const kw_axis *x, int i, kw_job *j, kw_err *e)
{
    (void)a;
    return kw_job_sampler(x->value[i], j, e);
}

static kw_status set_schedule(kw_arena *a, const kw_axis *x, int i, kw_job *j, kw_err *e)
{
    (void)a;
    return kw_job_schedule(x->value[i], j, e);
}

static const char *replaced(kw_arena *a, const char *text, const char *old, const char *by)
{
    kw_str out = { 0 };
    for (const char *at; (at = strstr(text, old)); text = at + strlen(old)) {
        kw_str_add_n(&out, text, (size_t)(at - text));
        kw_str_add(&out, by);
    }
    kw_str_add(&out, text);
    const char *copy = out.failed ? NULL : kw_strdup(a, out.s ? out.s : "");
    kw_str_free(&out);
    return copy;
}

/* "Prompt S/R": the first value is what is looked for, the others stand in its place. */
static kw_status set_prompt(kw_arena *a, const kw_axis *x, int i, kw_job *j, kw_err *e)
{
    const char *old = x->value[0];
    if (!strstr(j->prompt, old) && !strstr(j->negative, old)) {
        kw_status s = kw_fail(e, KW_EUSAGE, N_("--grid prompt: '%s' is not in the prompt"), old);
        return kw_advise(e, s, N_("its first value is looked for in the prompt, the others take its place"));
    }
    j->prompt = replaced(a, j->prompt, old, x->value[i]);
    j->negative = replaced(a, j->negative, old, x->value[i]);
    return j->prompt && j->negative ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

static kw_status set_nothing(kw_arena *a, const kw_axis *x, int i, kw_job *j, kw_err *e)
{
    (void)a, (void)x, (void)i, (void)j, (void)e;
    return KW_OK;                         /* lora: after the tags were read */
}

static const kind kinds[] = {
    { "lora", "LoRA", true, -100, 100, false, set_nothing },
    { "seed", "Seed", true, 0, 18446744073709551615.0, true, set_seed },
    { "cfg", "CFG Scale", true, -1000, 1000, false, set_cfg },
    { "steps", "Steps", true, 1, 1000, true, set_steps },
    { "sampler", "Sampler", false, 0, 0, false, set_sampler },
    { "schedule", "Schedule type", false, 0, 0, false, set_schedule },
    { "prompt", "Prompt S/R", false, 0, 0, false, set_prompt },
    { "negative", "Negative prompt", false, 0, 0, false, set_negative },
    { "strength", "Denoising", true, 0, 1, false, set_strength },
    { "clip-skip", "Clip skip", true, 1, 24, true, set_clip_skip },
    { "eta", "Eta", true, 0, 1, false, set_eta },
    { "width", "Width", true, 1, 16384, true, set_width },
    { "height", "Height", true, 1, 16384, true, set_height },
    { "base", "Checkpoint name", false, 0, 0, false, set_base },
};

/* ---- values ----------------------------------------------------------------------------------------------------- */

typedef struct { kw_arena *a; kw_axis *x; kw_err *e; } reader;

static kw_status bad_value(reader *r, const char *value)
{
    return kw_fail(r->e, KW_EUSAGE, N_("--grid %s: '%s' is not a value for it"), r->x->name, value);
}

static kw_status add_value(reader *r, const char *value)
{
    if (r->x->n == KW_GRID_MOST)
        return kw_fail(r->e, KW_EUSAGE, N_("--grid %s: more than %d values"), r->x->name, KW_GRID_MOST);
    r->x->value[r->x->n++] = value;
    return value ? KW_OK : kw_fail(r->e, KW_ENOMEM, "out of memory");
}

static kw_status add_number(reader *r, double v)
{
    const kind *k = r->x->kind;
    const char *text = kw_sprintf(r->a, "%.10g", v);
    if (!text)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    return !(v >= k->low && v <= k->high) || (k->whole && v != floor(v)) ? bad_value(r, text) : add_value(r, text);
}

/* low-high, then nothing, :step, (+step) or [count]. False: no such thing. */
static bool read_range(const char *text, double *low, double *high, double *step, int *count)
{
    char *end;
    *step = 1;
    *count = 0;
    *low = strtod(text, &end);
    if (end == text)
        return false;
    end += strspn(end, " ");
    if (*end++ != '-')
        return false;
    const char *from = end;
    *high = strtod(from, &end);
    if (end == from)
        return false;
    end += strspn(end, " ");
    if (*end == ':' || !strncmp(end, "(+", 2) || !strncmp(end, "(-", 2))
        *step = strtod(end + 1, &end);
    else if (*end == '[')
        *count = (int)strtol(end + 1, &end, 10);
    end += strspn(end, " )]");
    return !*end && isfinite(*low) && isfinite(*high) && *step != 0 && *count >= 0;
}

static kw_status add_numbers(reader *r, const char *text)
{
    double low, high, step;
    int count;
    char *end;
    double one = strtod(text, &end);
    if (*text && !*end && isfinite(one))        /* a seed has more digits than a double */
        return r->x->kind->whole && strspn(text, "0123456789") == strlen(text) && one <= r->x->kind->high
                   && one >= r->x->kind->low ? add_value(r, text) : add_number(r, one);
    if (!read_range(text, &low, &high, &step, &count))
        return bad_value(r, text);
    if (!count)
        count = (int)fmin(fabs((high - low) / step) + 1e-9, KW_GRID_MOST) + 1;
    else
        step = count > 1 ? (high - low) / (count - 1) : 0;
    if ((high < low && step > 0) || (high > low && step < 0))
        step = -step;
    for (int i = 0; i < count; i++) {
        double v = low + i * step;
        KW_TRY(add_number(r, r->x->kind->whole ? rint(v) : rint(v * 1e9) / 1e9));
    }
    return KW_OK;
}

/* One value of a list, quoted or not; *at moves behind its comma, NULL at the end. */
static char *next_value(kw_arena *a, const char **at)
{
    kw_str out = { 0 };
    const char *s = *at + strspn(*at, " ");
    if (*s == '"') {
        for (s++; *s && (*s != '"' || s[1] == '"'); s++) {
            s += *s == '"';
            kw_str_add_n(&out, s, 1);
        }
        s += *s == '"';
        s += strcspn(s, ",");
    } else {
        size_t n = strcspn(s, ",");
        const char *end = s + n;
        while (n && s[n - 1] == ' ')
            n--;
        kw_str_add_n(&out, s, n);
        s = end;
    }
    *at = *s ? s + 1 : NULL;
    char *copy = out.failed ? NULL : kw_strdup(a, out.s ? out.s : "");
    kw_str_free(&out);
    return copy;
}

static kw_status unknown_axis(const char *name, kw_err *e)
{
    kw_str known = { 0 };
    kw_nearest near = { .word = name };
    for (size_t i = 0; i < KW_LEN(kinds); i++) {
        kw_str_printf(&known, "%s%s", i ? ", " : "", kinds[i].name);
        kw_nearest_try(&near, kinds[i].name);
    }
    kw_status s = kw_fail(e, KW_EUSAGE, N_("--grid %s: not something a grid can change"), name);
    s = near.best ? kw_advise(e, s, N_("did you mean %s?"), near.best)
                  : kw_advise(e, s, N_("known are: %s"), known.s ? known.s : "");
    kw_str_free(&known);
    return s;
}

static kw_status read_axis(kw_arena *a, const char *text, kw_axis *x, kw_err *e)
{
    const char *equals = strchr(text, '=');
    reader r = { a, x, e };
    if (!equals)
        return kw_fail(e, KW_EUSAGE, N_("--grid %s: NAME=VALUES is needed, for example cfg=5,7,9"), text);
    x->name = kw_strndup(a, text, (size_t)(equals - text));
    for (size_t i = 0; x->name && i < KW_LEN(kinds); i++)
        if (!strcmp(kinds[i].name, x->name))
            x->kind = &kinds[i];
    if (!x->kind)
        return x->name ? unknown_axis(x->name, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    for (const char *at = equals + 1; at; ) {
        char *value = next_value(a, &at);
        if (!value)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (!*value && strcmp(x->name, "prompt") && strcmp(x->name, "negative"))
            return bad_value(&r, value);
        KW_TRY(x->kind->numbers ? add_numbers(&r, value) : add_value(&r, value));
    }
    if (!strcmp(x->name, "prompt") && !*x->value[0])
        return bad_value(&r, "");
    return KW_OK;
}

kw_status kw_grid_read(kw_arena *a, const kw_texts *texts, kw_grid *out, kw_err *e)
{
    *out = (kw_grid){ 0 };
    if (texts->n > KW_GRID_AXES)
        return kw_fail(e, KW_EUSAGE, N_("--grid: %zu axes; at most %d are possible"), texts->n, KW_GRID_AXES);
    for (; out->n < (int)texts->n; out->n++) {
        KW_TRY(read_axis(a, texts->item[out->n], &out->axis[out->n], e));
        for (int i = 0; i < out->n; i++)
            if (out->axis[i].kind == out->axis[out->n].kind && strcmp(out->axis[i].name, "prompt"))
                return kw_fail(e, KW_EUSAGE, N_("--grid %s: given twice"), out->axis[i].name);
    }
    return KW_OK;
}

/* ---- combinations ----------------------------------------------------------------------------------------------- */

int kw_grid_count(const kw_grid *g)
{
    int n = 1;
    for (int i = 0; i < g->n; i++)
        n *= g->axis[i].n;
    return n;
}

kw_status kw_grid_apply(kw_arena *a, const kw_grid *g, int i, kw_job *j, kw_err *e)
{
    for (int k = 0; k < g->n; k++) {
        j->place[k] = i % g->axis[k].n;
        i /= g->axis[k].n;
        KW_TRY(g->axis[k].kind->set(a, &g->axis[k], j->place[k], j, e));
    }
    return KW_OK;
}

/* Every <lora:NAME:...> gets the value, in the text too. */
static const char *with_strength(kw_arena *a, const char *text, const char *value)
{
    kw_str out = { 0 };
    while (*text) {
        const char *end = strchr(text, '>');
        if (!end || (!kw_starts_with(text, "<lora:") && !kw_starts_with(text, "<lyco:"))) {
            kw_str_add_n(&out, text++, 1);
            continue;
        }
        size_t name = 6 + strcspn(text + 6, ":>");
        const char *blocks = strstr(text, ":lbw=");
        kw_str_add_n(&out, text, name);
        kw_str_printf(&out, ":%s", value);
        if (blocks && blocks < end)
            kw_str_add_n(&out, blocks, (size_t)(end - blocks));
        kw_str_add(&out, ">");
        text = end + 1;
    }
    const char *copy = out.failed ? NULL : kw_strdup(a, out.s ? out.s : "");
    kw_str_free(&out);
    return copy;
}

kw_status kw_grid_apply_lora(kw_arena *a, const kw_grid *g, kw_job *j, kw_err *e)
{
    for (int k = 0; k < g->n; k++) {
        const kw_axis *x = &g->axis[k];
        bool any = false;
        if (x->kind != &kinds[0])
            continue;
        double v = number(x, j->place[k]);
        for (size_t i = 0; i < KW_PIPELINE_LORAS; i++)
            if (j->uses[i]) {
                j->strength[i].te = j->strength[i].unet = v;      /* blocks stay */
                any = true;
            }
        if (!any)
            return kw_fail(e, KW_EUSAGE, N_("--grid lora: no LoRA is used"));
        j->prompt = with_strength(a, j->prompt, x->value[j->place[k]]);
        if (!j->prompt)
            return kw_fail(e, KW_ENOMEM, "out of memory");
    }
    return KW_OK;
}

const kw_axis *kw_grid_axis(const kw_grid *g, const char *name)
{
    for (int k = 0; k < g->n; k++)
        if (!strcmp(g->axis[k].name, name))
            return &g->axis[k];
    return NULL;
}

/* Of a model its name alone. */
static const char *shown(kw_arena *a, const kw_axis *x, int value)
{
    const char *text = x->value[value];
    return strcmp(x->name, "base") ? text : kw_is_dir(text) ? kw_path_name(text) : kw_path_stem(a, text);
}

const char *kw_grid_label(kw_arena *a, const kw_grid *g, int axis, int value)
{
    const char *text = shown(a, &g->axis[axis], value);
    return text ? kw_sprintf(a, "%s: %s", g->axis[axis].name, text) : NULL;
}

/* A1111 quotes a value with a comma in it. */
static const char *list_of(kw_arena *a, const kw_axis *x)
{
    kw_str out = { 0 };
    for (int i = 0; i < x->n; i++) {
        const char *text = shown(a, x, i);
        out.failed |= !text;
        kw_str_printf(&out, text && strchr(text, ',') ? "%s\"%s\"" : "%s%s", i ? ", " : "", text ? text : "");
    }
    const char *copy = out.failed ? NULL : kw_strdup(a, out.s);
    kw_str_free(&out);
    return copy;
}

kw_status kw_grid_keys(kw_arena *a, const kw_grid *g, kw_meta *list, size_t *n, kw_err *e)
{
    static const char *const keys[KW_GRID_AXES][2] = { { "X Type", "X Values" }, { "Y Type", "Y Values" },
                                                       { "Z Type", "Z Values" } };
    list[(*n)++] = (kw_meta){ "Script", "X/Y/Z plot" };
    for (int k = 0; k < g->n; k++) {
        const char *values = list_of(a, &g->axis[k]);
        if (!values)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        list[(*n)++] = (kw_meta){ keys[k][0], g->axis[k].kind->label };
        list[(*n)++] = (kw_meta){ keys[k][1], values };
    }
    return KW_OK;
}
