/* generate_write.c - pictures become files: names, infotext, the contact sheet. */
#include "generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct kw_picture_writer {
    kw_cli *cli;
    const kw_generate_config *c;
    kw_pipeline *p;
    kw_jobs *jobs;
    kw_picture *kept;                     /* (n), for the sheet; NULL when there is none */
    const char *sheet;
    const char *model, *model_hash, *vae, *vae_hash, *parts_hash;
};

/* ---- names ------------------------------------------------------------------------------------------------------- */

/* The number after the largest one that a file in the folder starts with: 00041-7.png gives 42. */
static kw_status next_number(kw_arena *a, const char *dir, unsigned long *out, kw_err *e)
{
    char **names;
    size_t n;
    *out = 0;
    KW_TRY(kw_dir_list(a, dir, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        const char *digits = names[i] + (kw_starts_with(names[i], "sheet-") ? 6 : 0);
        char *end;
        unsigned long v = strtoul(digits, &end, 10);
        if (end > digits && (*end == '-' || *end == '.') && v < 100000000 && v >= *out)
            *out = v + 1;
    }
    return KW_OK;
}

static kw_status names_in_folder(kw_picture_writer *w, kw_err *e)
{
    kw_arena *a = w->cli->arena;
    unsigned long first;
    KW_TRY(kw_mkdirs(w->c->out, e));
    KW_TRY(next_number(a, w->c->out, &first, e));
    for (size_t i = 0; i < w->jobs->n; i++) {
        kw_job *j = &w->jobs->job[i];
        j->file = kw_sprintf(a, "%s/%05lu-%llu.png", w->c->out, first + i, (unsigned long long)j->seed);
        if (!j->file)
            return kw_fail(e, KW_ENOMEM, "out of memory");
    }
    w->sheet = kw_sprintf(a, "%s/sheet-%05lu.png", w->c->out, first);
    return w->sheet ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* --out fox.png: that file, or fox-1.png, fox-2.png ... and fox-sheet.png. */
static kw_status names_of_file(kw_picture_writer *w, kw_err *e)
{
    kw_arena *a = w->cli->arena;
    size_t n = w->jobs->n;
    char *stem = kw_strndup(a, w->c->out, strlen(w->c->out) - 4), *dir = kw_path_dir(a, w->c->out);
    if (!stem || !dir)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_mkdirs(dir, e));
    for (size_t i = 0; i < n; i++) {
        w->jobs->job[i].file = n == 1 ? w->c->out : kw_sprintf(a, "%s-%zu.png", stem, i + 1);
        if (!w->jobs->job[i].file)
            return kw_fail(e, KW_ENOMEM, "out of memory");
    }
    w->sheet = kw_sprintf(a, "%s-sheet.png", stem);
    return w->sheet ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* ---- hashes ------------------------------------------------------------------------------------------------------ */

static const char *stem_of(kw_arena *a, const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *copy = kw_strndup(a, path, n);
    if (!copy)
        return NULL;
    const char *name = kw_path_name(copy), *dot = kw_is_dir(path) ? NULL : strrchr(name, '.');
    return kw_strndup(a, name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

/* The SHA-256 of a whole file, as A1111 takes it; a folder has none. */
static kw_status file_hash(kw_arena *a, const char *path, const char **out, kw_err *e)
{
    char *hex = kw_alloc(a, 65);
    if (!hex)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *out = NULL;
    if (!kw_is_file(path))
        return KW_OK;
    *out = hex;
    return kw_sha256_file(path, hex, e);
}

static kw_status lora_hash(kw_arena *a, kw_job_lora *l, kw_err *e)
{
    kw_lora_file *f;
    KW_TRY(kw_lora_file_open(a, l->path, NULL, &f, e));
    return kw_tensors_hash(f->file, l->hash, e);
}

static kw_status hashes(kw_picture_writer *w, kw_err *e)
{
    kw_arena *a = w->cli->arena;
    const kw_sd *sd = kw_pipeline_base(w->p);
    w->model = stem_of(a, w->c->base);
    KW_TRY(file_hash(a, w->c->base, &w->model_hash, e));
    if (!w->model_hash) {
        char *hex = kw_alloc(a, 65);
        if (!hex)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        KW_TRY(kw_source_hash(sd->source, KW_N_PARTS, hex, e));
        hex[12] = 0;
        w->parts_hash = hex;
    }
    if (w->c->vae) {
        w->vae = kw_path_name(w->c->vae);
        KW_TRY(file_hash(a, w->c->vae, &w->vae_hash, e));
    }
    for (size_t i = 0; i < w->jobs->n_lora; i++)
        KW_TRY(lora_hash(a, &w->jobs->lora[i], e));
    return KW_OK;
}

/* ---- infotext ---------------------------------------------------------------------------------------------------- */

static void infotext(const kw_picture_writer *w, const kw_job *j, kw_str *out)
{
    kw_infotext_lora lora[KW_PIPELINE_LORAS];
    kw_meta extra[5 + 16];
    char eta[32];
    kw_infotext t = {
        .prompt = j->prompt, .negative = j->negative, .steps = j->steps,
        .sampler = j->sampler->known_as ? j->sampler->known_as : j->sampler->label,
        .schedule = j->schedule ? j->schedule->label : "Automatic", .cfg = j->cfg, .seed = j->seed, .width = j->width,
        .height = j->height,
        .model = w->model, .model_hash = w->model_hash, .vae = w->vae, .vae_hash = w->vae_hash,
        .clip_skip = w->c->clip_skip,
        .rng = w->c->rng == KW_SEEDS_CPU ? "CPU" : w->c->rng == KW_SEEDS_KIWAME ? "Kiwame" : NULL,
        .extra = extra, .lora = lora, .version = "kiwame " KW_VERSION,
    };
    t.n_extra = kw_sampling_meta(w->cli->arena, &w->c->how, j->sampler, j->variation, extra);
    if (w->c->eta >= 0 && j->sampler->uses_eta) {
        snprintf(eta, sizeof eta, "%.6g", w->c->eta);
        extra[t.n_extra++] = (kw_meta){ j->sampler->unit_variance ? "Eta DDIM" : "Eta", eta };
    }
    if (w->c->spacing != KW_SPACING_AUTO)
        extra[t.n_extra++] = (kw_meta){ "Timestep spacing", kw_spacing_name((kw_spacing)w->c->spacing) };
    if (w->c->noise)
        extra[t.n_extra++] = (kw_meta){ "Noise file", kw_path_name(w->c->noise) };
    if (w->c->base_dtype)
        extra[t.n_extra++] = (kw_meta){ "Base dtype", "int8" };
    if (w->parts_hash)
        extra[t.n_extra++] = (kw_meta){ "Parts hash", w->parts_hash };
    for (size_t i = 0; i < w->jobs->n_lora; i++)
        if (j->uses[i])
            lora[t.n_lora++] = (kw_infotext_lora){ w->jobs->lora[i].name, w->jobs->lora[i].hash };
    kw_infotext_write(&t, out);
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static kw_status write_png(const char *path, const kw_picture *p, const kw_png_text *text, kw_err *e)
{
    kw_str png = { 0 };
    kw_status s = kw_png_encode(p, text, text ? 1 : 0, &png, e);
    kw_guard_begin();
    if (!s)
        s = kw_file_write_atomic(path, png.s, png.n, e);
    kw_guard_end();
    kw_str_free(&png);
    return s;
}

static void free_kept(void *writer)
{
    kw_picture_writer *w = writer;
    for (size_t i = 0; w->kept && i < w->jobs->n; i++)
        kw_picture_free(&w->kept[i]);
}

/* --out fox.jpg means a file, and it would be a folder of that name. */
static kw_status check_out(const kw_generate_config *c, kw_err *e)
{
    if (kw_picture_named(c->out) == KW_PICTURE_UNKNOWN || kw_ends_with(c->out, ".png") || kw_is_dir(c->out))
        return KW_OK;
    return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("--out %s: pictures are written as PNG"), c->out),
                     N_("name a folder, or a file that ends in .png"));
}

kw_status kw_picture_writer_new(kw_cli *cli, const kw_generate_config *c, kw_pipeline *p, kw_jobs *jobs,
                                kw_picture_writer **out, kw_err *e)
{
    enum { MOST_ON_SHEET = 100 };
    kw_picture_writer *w = kw_alloc(cli->arena, sizeof *w);
    if (!w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *w = (kw_picture_writer){ .cli = cli, .c = c, .p = p, .jobs = jobs };
    KW_TRY(check_out(c, e));
    KW_TRY(kw_ends_with(c->out, ".png") ? names_of_file(w, e) : names_in_folder(w, e));
    KW_TRY(hashes(w, e));
    if (c->sheet && jobs->n > 1 && jobs->n <= MOST_ON_SHEET) {
        w->kept = kw_alloc_array(cli->arena, jobs->n, sizeof *w->kept);
        if (!w->kept || kw_defer(cli->arena, free_kept, w))
            return kw_fail(e, KW_ENOMEM, "out of memory");
    }
    *out = w;
    return KW_OK;
}

kw_status kw_picture_writer_put(kw_picture_writer *w, size_t i, const kw_picture *p, kw_err *e)
{
    kw_str text = { 0 };
    infotext(w, &w->jobs->job[i], &text);
    kw_status s = text.failed ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
    if (!s)
        s = write_png(w->jobs->job[i].file, p, &(kw_png_text){ "parameters", text.s }, e);
    kw_str_free(&text);
    if (!s && w->kept)
        s = kw_picture_resize(p, p->w, p->h, &w->kept[i], e);
    return s;
}

static kw_status draw_sheet(kw_picture_writer *w, const kw_picture **cells, const char **labels, kw_err *e)
{
    size_t n = w->jobs->n;
    int columns = w->c->columns ? KW_MIN(w->c->columns, (int)n) : (int)ceil(sqrt((double)n));
    bool one = true;
    for (size_t i = 0; i < n; i++) {
        const kw_job *j = &w->jobs->job[i];
        one &= !strcmp(j->prompt, w->jobs->job[0].prompt);
        cells[i] = &w->kept[i];
    }
    for (size_t i = 0; i < n; i++) {
        const kw_job *j = &w->jobs->job[i];
        labels[i] = one ? kw_sprintf(w->cli->arena, "%llu", (unsigned long long)j->seed)
                        : kw_sprintf(w->cli->arena, "%s (%llu)", j->prompt, (unsigned long long)j->seed);
    }
    kw_sheet sheet = { .title = one ? w->jobs->job[0].prompt : NULL, .columns = columns,
                       .rows = (int)((n + (size_t)columns - 1) / (size_t)columns),
                       .cells = cells, .cell_labels = labels, .best = -1 };
    kw_picture drawn;
    KW_TRY(kw_sheet_draw(&sheet, &drawn, e));
    kw_status s = write_png(w->sheet, &drawn, NULL, e);
    kw_picture_free(&drawn);
    return s;
}

kw_status kw_picture_writer_end(kw_picture_writer *w, const char **sheet, kw_err *e)
{
    size_t room = 2 * w->jobs->n + 64;                /* the grid may have empty cells at its end */
    *sheet = NULL;
    if (!w->kept)
        return KW_OK;
    const kw_picture **cells = kw_alloc_array(w->cli->arena, room, sizeof *cells);
    const char **labels = kw_alloc_array(w->cli->arena, room, sizeof *labels);
    if (!cells || !labels)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *sheet = w->sheet;
    return draw_sheet(w, cells, labels, e);
}
