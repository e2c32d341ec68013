/* generate_words.c - whose grammar prompts are in, and textual inversions: from files, from a folder, into infotext. */
#include "generate.h"

#include <stdarg.h>
#include <string.h>
#include <strings.h>

kw_reading kw_words_reading(const kw_generate_config *c, const kw_job *j)
{
    return (kw_reading){ .grammar = (kw_grammar)c->grammar, .emphasis = (kw_emphasis)c->emphasis,
                         .steps = kw_reading_steps(j->sampler, j->steps) };
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static bool is_embedding(const char *name)
{
    static const char *const endings[] = { ".safetensors", ".pt", ".bin", ".png" };
    for (size_t i = 0; i < KW_LEN(endings); i++)
        if (kw_ends_with(name, endings[i]))
            return true;
    return false;
}

/* Names are compared as tokens later, which have no capitals: here a prompt need only have the letters. */
static bool mentioned(const kw_jobs *jobs, const char *name)
{
    for (size_t i = 0; i < jobs->n; i++)
        if (strcasestr(jobs->job[i].prompt, name) || strcasestr(jobs->job[i].negative, name))
            return true;
    return false;
}

/* The SHA-256 of its file, for those that the pipeline has since `before`. */
static kw_status note_hash(kw_cli *cli, const kw_pipeline *p, const char *path, kw_jobs *jobs, kw_err *e)
{
    char *hex = kw_alloc(cli->arena, 65);
    size_t room = jobs->n_inversion, n = kw_pipeline_inversions(p);
    if (!hex)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (path)
        KW_TRY(kw_sha256_file(path, hex, e));
    while (jobs->n_inversion < n) {
        KW_TRY(kw_grow(cli->arena, &jobs->inversion, &room, jobs->n_inversion, sizeof *jobs->inversion, e));
        jobs->inversion[jobs->n_inversion] =
            (kw_infotext_lora){ kw_pipeline_inversion(p, jobs->n_inversion), path ? hex : NULL };
        jobs->n_inversion++;
    }
    return KW_OK;
}

static bool known(const kw_jobs *jobs, const char *name)
{
    for (size_t i = 0; i < jobs->n_inversion; i++)
        if (!strcmp(jobs->inversion[i].name, name))
            return true;
    return false;
}

/* ---- a folder ---------------------------------------------------------------------------------------------------- */

typedef struct { const char *path, *name; } found;     /* name: of the file, without its ending */

typedef struct {
    kw_cli *cli;
    kw_pipeline *p;
    kw_jobs *jobs;
    found *used;                          /* of this folder, by prompts */
    size_t n, room;
} folder;

static void say(const folder *f, const char *fmt, ...) KW_PRINTF(2, 3);
static void say(const folder *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (!f->cli->global.quiet) {
        vfprintf(stderr, fmt, ap);
        fputc('\n', stderr);
    }
    va_end(ap);
}

/* A folder may hold those of other bases: such a name is a word then, and that is said. */
static kw_status use(folder *f, const found *one, kw_err *e)
{
    kw_err why = { 0 };
    for (size_t i = 0; i < f->n; i++)
        if (!strcmp(f->used[i].name, one->name)) {
            say(f, _(N_("\"%s\" is there twice: %s is used, %s is not")), one->name, f->used[i].path, one->path);
            return KW_OK;
        }
    if (known(f->jobs, one->name))
        return KW_OK;
    kw_status s = kw_pipeline_add_inversion(f->p, one->path, &why);
    if (s == KW_ENOMEM)
        return kw_fail(e, s, "out of memory");
    if (s) {
        say(f, _(N_("%s; \"%s\" is taken as words")), why.what, one->name);
        return KW_OK;
    }
    KW_TRY(kw_grow(f->cli->arena, &f->used, &f->room, f->n, sizeof *f->used, e));
    f->used[f->n++] = *one;
    return note_hash(f->cli, f->p, one->path, f->jobs, e);
}

/* Files first, then the folders in it, as A1111 looks through them; of one name the first counts. */
static kw_status look_through(folder *f, const char *dir, int depth, kw_err *e)
{
    enum { DEEPEST = 16 };
    kw_arena *a = f->cli->arena;
    char **names;
    size_t n;
    KW_TRY(kw_dir_list(a, dir, &names, &n, e));
    for (int inner = 0; inner < 2; inner++)
        for (size_t i = 0; i < n; i++) {
            const char *dot = strrchr(names[i], '.');
            char *path = kw_path_join(a, dir, names[i]), *name = dot ? kw_strndup(a, names[i], (size_t)(dot - names[i]))
                                                                     : kw_strdup(a, names[i]);
            if (!path || !name)
                return kw_fail(e, KW_ENOMEM, "out of memory");
            if (inner && names[i][0] != '.' && depth < DEEPEST && kw_is_dir(path))
                KW_TRY(look_through(f, path, depth + 1, e));
            if (!inner && *name && is_embedding(names[i]) && mentioned(f->jobs, name) && !kw_is_dir(path))
                KW_TRY(use(f, &(found){ path, name }, e));
        }
    return KW_OK;
}

static kw_status from_folder(kw_cli *cli, const char *dir, kw_pipeline *p, kw_jobs *jobs, kw_err *e)
{
    folder f = { .cli = cli, .p = p, .jobs = jobs };
    return look_through(&f, dir, 0, e);
}

kw_status kw_words_open(kw_cli *cli, const kw_generate_config *c, kw_pipeline *p, kw_jobs *jobs, kw_err *e)
{
    KW_TRY(note_hash(cli, p, NULL, jobs, e));          /* those of LoRA files */
    for (size_t i = 0; i < c->embedding.n; i++) {
        KW_TRY(kw_pipeline_add_inversion(p, c->embedding.item[i], e));
        KW_TRY(note_hash(cli, p, c->embedding.item[i], jobs, e));
    }
    for (size_t i = 0; i < jobs->n_hypernet; i++) {
        KW_TRY(kw_pipeline_add_hypernet(p, jobs->hypernet[i].path, e));
        KW_TRY(kw_sha256_file(jobs->hypernet[i].path, jobs->hypernet[i].hash, e));
    }
    return c->embeddings_dir ? from_folder(cli, c->embeddings_dir, p, jobs, e) : KW_OK;
}

/* ---- infotext ---------------------------------------------------------------------------------------------------- */

void kw_words_infotext(kw_arena *a, const kw_generate_config *c, const kw_pipeline *p, const kw_jobs *jobs,
                       const kw_job *j, kw_infotext *t, kw_meta *extra)
{
    const kw_reading r = kw_words_reading(c, j);
    bool *used = kw_alloc_array(a, jobs->n_inversion + 1, sizeof *used);
    kw_infotext_lora *list = kw_alloc_array(a, jobs->n_inversion + 1, sizeof *list);
    kw_infotext_lora *nets = kw_alloc_array(a, KW_PIPELINE_HYPERNETS, sizeof *nets);
    for (size_t i = 0; nets && i < jobs->n_hypernet; i++)
        if (j->hyper[i] != 0)
            nets[t->n_hypernet++] = (kw_infotext_lora){ jobs->hypernet[i].name, jobs->hypernet[i].hash };
    t->hypernet = nets;
    if (c->grammar == KW_GRAMMAR_COMFYUI)
        extra[t->n_extra++] = (kw_meta){ "Prompt grammar", "ComfyUI" };
    if (c->emphasis != KW_EMPHASIS_ORIGINAL)
        extra[t->n_extra++] = (kw_meta){ "Emphasis", kw_emphasis_label((kw_emphasis)c->emphasis) };
    if (!used || !list || kw_pipeline_names(p, &r, j->prompt, false, used, NULL)
        || kw_pipeline_names(p, &r, j->negative, true, used, NULL))
        return;
    for (size_t i = 0; i < jobs->n_inversion; i++)
        if (used[i])
            list[t->n_inversion++] = jobs->inversion[i];
    t->inversion = list;
}
