/*
 * generate_jobs.c - what is to be drawn: prompts, kohya's lines of prompts, <lora:...> tags.
 *
 *   a fox in snow --n blurry --w 512 --h 768 --d 1 --l 7.5 --s 20 --ss euler_a
 */
#include "generate.h"

#include "data/data.h"

#include <errno.h>
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

/* ---- LoRA: FILE[:te[:unet]] and tags ----------------------------------------------------------------------------- */

static const char *stem(kw_arena *a, const char *path)
{
    const char *name = kw_path_name(path), *dot = strrchr(name, '.');
    return kw_strndup(a, name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

static kw_status add_lora(reader *r, const char *path, const char *name, kw_strengths given, bool always, size_t *at)
{
    kw_jobs *o = r->out;
    if (o->n_lora == KW_PIPELINE_LORAS)
        return kw_fail(r->e, KW_EUSAGE, N_("more than %d LoRA files"), KW_PIPELINE_LORAS);
    kw_job_lora *l = &o->lora[o->n_lora];
    *l = (kw_job_lora){ .path = path, .name = name ? name : stem(r->a, path), .given = given, .always = always };
    *at = o->n_lora++;
    return l->name && path ? KW_OK : kw_fail(r->e, KW_ENOMEM, "out of memory");
}

/* A number at the end, behind a colon: cuts it off. */
static bool cut_number(char *text, double *v)
{
    char *colon = strrchr(text, ':'), *end;
    if (!colon || !colon[1])
        return false;
    double number = strtod(colon + 1, &end);
    if (*end || !isfinite(number))
        return false;
    *v = number;
    *colon = 0;
    return true;
}

/* Factors of blocks, as text: on the arena. NULL stays NULL. */
static kw_status blocks_of(reader *r, const char *text, const float **out)
{
    float *list = text ? kw_alloc_array(r->a, KW_LORA_BLOCKS, sizeof *list) : NULL;
    *out = list;
    if (!text)
        return KW_OK;
    return list ? kw_lora_blocks_parse(text, list, r->e) : kw_fail(r->e, KW_ENOMEM, "out of memory");
}

static bool is_there(const char *path) { return kw_is_file(path) || kw_is_dir(path); }

static kw_status lora_option(reader *r, const char *text)
{
    double last = 1, first = 1;
    size_t at;
    char *path = kw_strdup(r->a, text), *blocks = path ? strstr(path, ":lbw=") : NULL;
    if (!path)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    kw_strengths given = { 1, 1, NULL };
    if (blocks && !is_there(path))
        *blocks = 0;
    else
        blocks = NULL;
    if (!is_there(path) && cut_number(path, &last)) {
        given.te = given.unet = last;
        if (!is_there(path) && cut_number(path, &first))
            given.te = first;
    }
    KW_TRY(blocks_of(r, blocks ? blocks + strlen(":lbw=") : NULL, &given.blocks));
    if (!is_there(path)) {
        if (errno == EACCES)
            return kw_fail(r->e, KW_EDATA, N_("%s: cannot be read: %s"), path, kw_errno_text(EACCES));
        kw_status s = kw_fail(r->e, KW_EDATA, N_("%s: no such LoRA file"), path);
        return kw_advise(r->e, s, N_("--lora takes FILE, FILE:STRENGTH or FILE:TEXT:UNET"));
    }
    KW_TRY(add_lora(r, path, NULL, given, true, &at));
    r->out->lora[at].blocks = blocks ? blocks + strlen(":lbw=") : NULL;
    return KW_OK;
}

/* Is this the file that --from names so, by its hash? */
static bool is_wanted(const reader *r, const char *name, kw_tensors *t)
{
    char hash[65];
    for (size_t i = 0; i < r->c->n_wanted; i++) {
        const kw_wanted *w = &r->c->wanted[i];
        if (!strcmp(w->kind, "lora") && !strcmp(w->name, name) && !kw_tensors_hash(t, hash, NULL)
            && !strncasecmp(hash, w->hash, KW_MIN(strlen(w->hash), strlen(hash))))
            return true;
    }
    return false;
}

/* NAME.safetensors in the folder, or a file there whose ss_output_name is NAME, or whose hash --from names. */
static kw_status search(reader *r, const char *name, const char **path)
{
    const char *dir = r->c->lora_dir, *found = NULL;
    char **names;
    size_t n, hits = 0;
    char *direct = kw_sprintf(r->a, "%s/%s.safetensors", dir, name);
    if (!direct)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    *path = direct;
    if (!strchr(name, '/') && kw_is_file(direct))
        return KW_OK;
    char *folder = kw_path_join(r->a, dir, name);
    if (folder && *name && *name != '.' && !strchr(name, '/') && kw_is_dir(folder)) {
        *path = folder;                   /* PEFT's and diffusers' LoRAs are folders */
        return KW_OK;
    }
    KW_TRY(kw_dir_list(r->a, dir, &names, &n, r->e));
    for (size_t i = 0; i < n; i++) {
        kw_tensors *t;
        char *one = kw_path_join(r->a, dir, names[i]);
        if (!one || !kw_ends_with(one, ".safetensors") || kw_tensors_open(r->a, one, &t, NULL))
            continue;
        const char *alias = kw_tensors_meta(t, "ss_output_name");
        if ((alias && !strcmp(alias, name)) || is_wanted(r, name, t)) {
            found = one;
            hits++;
        }
    }
    *path = found;
    if (hits == 1)
        return KW_OK;
    if (hits)
        return kw_fail(r->e, KW_EDATA, N_("<lora:%s>: %zu files in %s call themselves so; use the file's name"), name,
                       hits, dir);
    kw_status s = kw_fail(r->e, KW_EDATA, N_("<lora:%s>: there is no %s.safetensors in %s"), name, name, dir);
    kw_nearest near = { .word = name };
    for (size_t i = 0; i < n; i++)
        if (kw_ends_with(names[i], ".safetensors")) {
            const char *one = stem(r->a, names[i]);
            if (one)
                kw_nearest_try(&near, one);
        }
    if (near.best)
        return kw_advise(r->e, s, N_("did you mean <lora:%s>?"), near.best);
    return kw_advise(r->e, s, N_("name the folder with --lora-dir, or the file with --lora"));
}

static kw_status apply_tag(reader *r, kw_job *j, const kw_prompt_tag *tag)
{
    size_t i = 0;
    const char *path = NULL;
    if (!strcmp(tag->kind, "hypernet"))
        return kw_hypernets_tag(r->a, r->c, r->out, j, tag, r->e);
    if (strcmp(tag->kind, "lora") && strcmp(tag->kind, "lyco"))
        return kw_fail(r->e, KW_EUSAGE, N_("<%s:%s>: only lora and hypernet tags are known"), tag->kind, tag->name);
    while (i < r->out->n_lora && strcmp(r->out->lora[i].name, tag->name))
        i++;
    if (i == r->out->n_lora) {
        KW_TRY(search(r, tag->name, &path));
        KW_TRY(add_lora(r, path, kw_strdup(r->a, tag->name), (kw_strengths){ 0, 0, NULL }, false, &i));
    }
    kw_strengths more = { tag->te, tag->unet, NULL };
    KW_TRY(blocks_of(r, tag->blocks, &more.blocks));
    if (j->uses[i] && !r->out->lora[i].always)                /* the same tag twice adds up, as in A1111 */
        more = (kw_strengths){ j->strength[i].te + more.te, j->strength[i].unet + more.unet, more.blocks };
    r->out->lora[i].by_block |= more.blocks != NULL;
    j->strength[i] = more;
    j->uses[i] = true;
    return KW_OK;
}

/* Tags of the prompt, and --lora files, which get a tag in the text that is kept. */
static kw_status apply_loras(reader *r, kw_job *j)
{
    kw_prompt parsed;
    kw_str text = { 0 };
    KW_TRY(kw_prompt_parse(r->a, j->prompt, &parsed, r->e));
    for (size_t i = 0; i < parsed.n_tags; i++)
        KW_TRY(apply_tag(r, j, &parsed.tags[i]));
    for (size_t i = 0; i < r->out->n_lora; i++) {
        kw_job_lora *l = &r->out->lora[i];
        if (!l->always || j->uses[i])
            continue;
        j->strength[i] = l->given;
        j->uses[i] = true;
        l->by_block |= l->given.blocks != NULL;
        kw_str_printf(&text, l->given.te == l->given.unet ? "%s<lora:%s:%g" : "%s<lora:%s:%g:%g",
                      *j->prompt || text.n ? " " : "", l->name,
                      l->given.te, l->given.unet);
        kw_str_printf(&text, "%s%s>", l->blocks ? ":lbw=" : "", l->blocks ? l->blocks : "");
    }
    kw_hypernets_complete(r->out, j, &text);
    if (text.n)
        j->prompt = kw_sprintf(r->a, "%s%s", j->prompt, text.s);
    kw_str_free(&text);
    return j->prompt ? KW_OK : kw_fail(r->e, KW_ENOMEM, "out of memory");
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
        KW_TRY(apply_loras(r, j));
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
                   .width = c->width, .height = c->height,
                   .steps = c->steps, .cfg = c->cfg, .clip_skip = c->clip_skip, .eta = c->eta,
                   .change = c->init ? c->strength : c->hires_strength };
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
    for (size_t i = 0; i < c->lora.n; i++)
        KW_TRY(lora_option(&r, c->lora.item[i]));
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
