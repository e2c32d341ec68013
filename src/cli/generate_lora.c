/* generate_lora.c - LoRA files by --lora FILE:TEXT:UNET:lbw=... and <lora:NAME:X> tags. */
#include "generate.h"
#include "lora_option.h"

#include <string.h>

typedef struct { kw_arena *a; const kw_generate_config *c; kw_jobs *out; kw_err *e; } reader;

static kw_status add_lora(reader *r, const char *path, const char *name, kw_strengths given, bool always, size_t *at)
{
    kw_jobs *o = r->out;
    if (o->n_lora == KW_PIPELINE_LORAS)
        return kw_fail(r->e, KW_EUSAGE, N_("more than %d LoRA files"), KW_PIPELINE_LORAS);
    kw_job_lora *l = &o->lora[o->n_lora];
    *l = (kw_job_lora){ .path = path, .name = name ? name : kw_path_stem(r->a, path), .given = given,
                        .always = always };
    *at = o->n_lora++;
    return l->name && path ? KW_OK : kw_fail(r->e, KW_ENOMEM, "out of memory");
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

static kw_status lora_option(reader *r, const char *text)
{
    kw_lora_option o;
    size_t at;
    KW_TRY(kw_lora_option_read(r->a, text, &o, r->e));
    KW_TRY(add_lora(r, o.path, NULL, (kw_strengths){ o.te, o.unet, o.factors }, true, &at));
    r->out->lora[at].blocks = o.blocks;
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

static kw_status not_found(reader *r, const char *name, char *const *names, size_t n)
{
    const char *dir = r->c->lora_dir;
    kw_status s = kw_fail(r->e, KW_EDATA, N_("<lora:%s>: there is no %s.safetensors in %s"), name, name, dir);
    kw_nearest near = { .word = name };
    for (size_t i = 0; i < n; i++)
        if (kw_ends_with(names[i], ".safetensors")) {
            const char *one = kw_path_stem(r->a, names[i]);
            if (one)
                kw_nearest_try(&near, one);
        }
    if (near.best)
        return kw_advise(r->e, s, N_("did you mean <lora:%s>?"), near.best);
    return kw_advise(r->e, s, N_("name the folder with --lora-dir, or the file with --lora"));
}

/* The only file of the folder that calls itself so, or whose hash --from names. */
static kw_status search_inside(reader *r, const char *name, const char **path)
{
    const char *dir = r->c->lora_dir;
    char **names;
    size_t n, hits = 0;
    KW_TRY(kw_dir_list(r->a, dir, &names, &n, r->e));
    for (size_t i = 0; i < n; i++) {
        kw_tensors *t;
        char *one = kw_path_join(r->a, dir, names[i]);
        if (!one || !kw_ends_with(one, ".safetensors") || kw_tensors_open(r->a, one, &t, NULL))
            continue;
        const char *alias = kw_tensors_meta(t, "ss_output_name");
        if ((alias && !strcmp(alias, name)) || is_wanted(r, name, t)) {
            *path = one;
            hits++;
        }
    }
    if (hits == 1)
        return KW_OK;
    if (hits)
        return kw_fail(r->e, KW_EDATA, N_("<lora:%s>: %zu files in %s call themselves so; use the file's name"), name,
                       hits, dir);
    return not_found(r, name, names, n);
}

/* NAME.safetensors in the folder, a folder NAME, or a file there whose ss_output_name is NAME. */
static kw_status search(reader *r, const char *name, const char **path)
{
    const char *dir = r->c->lora_dir;
    char *direct = kw_sprintf(r->a, "%s/%s.safetensors", dir, name), *folder = kw_path_join(r->a, dir, name);
    if (!direct || !folder)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    *path = direct;
    if (!strchr(name, '/') && kw_is_file(direct))
        return KW_OK;
    *path = folder;                       /* PEFT's and diffusers' LoRAs are folders */
    if (*name && *name != '.' && !strchr(name, '/') && kw_is_dir(folder))
        return KW_OK;
    return search_inside(r, name, path);
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

/* --lora files that no tag names: their tags into the text that is kept. */
static void complete(kw_jobs *jobs, kw_job *j, kw_str *text)
{
    for (size_t i = 0; i < jobs->n_lora; i++) {
        kw_job_lora *l = &jobs->lora[i];
        if (!l->always || j->uses[i])
            continue;
        j->strength[i] = l->given;
        j->uses[i] = true;
        l->by_block |= l->given.blocks != NULL;
        kw_str_printf(text, l->given.te == l->given.unet ? "%s<lora:%s:%g" : "%s<lora:%s:%g:%g",
                      *j->prompt || text->n ? " " : "", l->name, l->given.te, l->given.unet);
        kw_str_printf(text, "%s%s>", l->blocks ? ":lbw=" : "", l->blocks ? l->blocks : "");
    }
}

kw_status kw_loras_given(kw_arena *a, const kw_generate_config *c, kw_jobs *jobs, kw_err *e)
{
    reader r = { a, c, jobs, e };
    for (size_t i = 0; i < c->lora.n; i++)
        KW_TRY(lora_option(&r, c->lora.item[i]));
    return KW_OK;
}

kw_status kw_loras_apply(kw_arena *a, const kw_generate_config *c, kw_jobs *jobs, kw_job *j, kw_err *e)
{
    reader r = { a, c, jobs, e };
    kw_prompt parsed;
    kw_str text = { 0 };
    KW_TRY(kw_prompt_parse(a, j->prompt, &parsed, e));
    for (size_t i = 0; i < parsed.n_tags; i++)
        KW_TRY(apply_tag(&r, j, &parsed.tags[i]));
    complete(jobs, j, &text);
    kw_hypernets_complete(jobs, j, &text);
    if (text.n)
        j->prompt = kw_sprintf(a, "%s%s", j->prompt, text.s);
    kw_str_free(&text);
    return j->prompt ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}
