/* generate_write.c - pictures become files: names, infotext, the contact sheet. */
#include "generate.h"
#include "generate_canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct kw_picture_writer {
    kw_cli *cli;
    const kw_generate_config *c;
    kw_pipeline *p;
    kw_jobs *jobs;
    const kw_jobs *now;                   /* those that are drawn with this base */
    const kw_canvas *canvas;
    int format;                           /* of the pictures; sheets are PNG */
    kw_picture *kept;                     /* (n), for the sheet; NULL when there is none */
    const char *sheet, *sheet_text;       /* sheet_text: of a grid, as of its first picture */
    const char *made;                     /* the folder, if it was not there before; or NULL */
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
    w->made = kw_is_dir(w->c->out) ? NULL : w->c->out;
    KW_TRY(kw_mkdirs(w->c->out, e));
    KW_TRY(next_number(a, w->c->out, &first, e));
    for (size_t i = 0; i < w->jobs->n; i++) {
        kw_job *j = &w->jobs->job[i];
        j->file = kw_sprintf(a, "%s/%05lu-%llu%s", w->c->out, first + i, (unsigned long long)j->seed,
                             kw_format_ending(w->format));
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
    const char *ending = strrchr(w->c->out, '.');
    char *stem = kw_strndup(a, w->c->out, (size_t)(ending - w->c->out)), *dir = kw_path_dir(a, w->c->out);
    if (!stem || !dir)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_mkdirs(dir, e));
    for (size_t i = 0; i < n; i++) {
        w->jobs->job[i].file = n == 1 ? w->c->out : kw_sprintf(a, "%s-%zu%s", stem, i + 1, ending);
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
    return kw_is_dir(path) ? kw_path_name(copy) : kw_path_stem(a, copy);
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
    w->parts_hash = NULL;
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
        if (!*w->jobs->lora[i].hash)
            KW_TRY(lora_hash(a, &w->jobs->lora[i], e));
    return KW_OK;
}

/* ---- infotext ---------------------------------------------------------------------------------------------------- */

/* grid: of the whole sheet. */
static kw_status infotext(const kw_picture_writer *w, const kw_job *j, const kw_grid *grid, kw_arena *a, kw_str *out,
                          kw_err *e)
{
    kw_infotext_lora lora[KW_PIPELINE_LORAS];
    kw_meta extra[13 + 16 + KW_CANVAS_KEYS + KW_HIRES_KEYS + KW_GRID_KEYS];
    char eta[32];
    kw_infotext t = {
        .prompt = j->prompt, .negative = j->negative, .steps = j->steps,
        .sampler = j->sampler->known_as ? j->sampler->known_as : j->sampler->label,
        .schedule = j->schedule ? j->schedule->label : "Automatic", .cfg = j->cfg, .seed = j->seed, .width = j->width,
        .height = j->height,
        .model = w->model, .model_hash = w->model_hash, .vae = w->vae, .vae_hash = w->vae_hash,
        .clip_skip = j->clip_skip,
        .rng = w->c->rng == KW_SEEDS_CPU ? "CPU" : w->c->rng == KW_SEEDS_KIWAME ? "Kiwame" : NULL,
        .extra = extra, .lora = lora, .version = "kiwame " KW_VERSION,
    };
    t.n_extra = kw_sampling_meta(w->cli->arena, &w->c->how, j->sampler, j->variation, extra);
    if (w->canvas)
        KW_TRY(kw_canvas_keys(a, w->canvas, w->c, j->change, extra, &t.n_extra, e));
    KW_TRY(kw_hires_keys(a, w->c, j->change, extra, &t.n_extra, e));
    if (j->eta >= 0 && j->sampler->uses_eta) {
        snprintf(eta, sizeof eta, "%.6g", j->eta);
        extra[t.n_extra++] = (kw_meta){ j->sampler->unit_variance ? "Eta DDIM" : "Eta", eta };
    }
    if (w->c->spacing != KW_SPACING_AUTO)
        extra[t.n_extra++] = (kw_meta){ "Timestep spacing", kw_spacing_name((kw_spacing)w->c->spacing) };
    t.n_extra += kw_generate_sizes_text(w->c, w->p, extra + t.n_extra);
    kw_words_infotext(w->cli->arena, w->c, w->p, w->now, j, &t, extra);
    if (w->c->noise)
        extra[t.n_extra++] = (kw_meta){ "Noise file", kw_path_name(w->c->noise) };
    if (w->c->base_dtype)
        extra[t.n_extra++] = (kw_meta){ "Base dtype", "int8" };
    if (w->c->dtype)
        extra[t.n_extra++] = (kw_meta){ "Dtype", "bf16" };
    if (w->c->vae_dtype)
        extra[t.n_extra++] = (kw_meta){ "VAE dtype", "bf16" };
    if (w->c->lora_apply && w->jobs->n_lora)
        extra[t.n_extra++] = (kw_meta){ "Lora apply", "merge" };
    if (w->parts_hash)
        extra[t.n_extra++] = (kw_meta){ "Parts hash", w->parts_hash };
    if (grid)
        KW_TRY(kw_grid_keys(a, grid, extra, &t.n_extra, e));
    for (size_t i = 0; i < w->jobs->n_lora; i++)
        if (j->uses[i])
            lora[t.n_lora++] = (kw_infotext_lora){ w->jobs->lora[i].name, w->jobs->lora[i].hash };
    kw_infotext_write(&t, out);
    return out->failed ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void free_kept(void *writer)
{
    kw_picture_writer *w = writer;
    for (size_t i = 0; w->kept && i < w->jobs->n; i++)
        kw_picture_free(&w->kept[i]);
}

/* --out fox.gif means a file, and it would be a folder of that name. */
static kw_status check_out(kw_picture_writer *w, kw_err *e)
{
    const kw_generate_config *c = w->c;
    int named = kw_format_of(c->out);
    w->format = c->format;
    if (kw_picture_named(c->out) == KW_PICTURE_UNKNOWN || kw_is_dir(c->out))
        return KW_OK;
    if (named < 0)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("--out %s: pictures are written as PNG, JPEG or WebP"), c->out),
                         N_("name a folder, or a file that ends in .png"));
    if (kw_options_from(w->cli->options, "format") != KW_FROM_DEFAULT && named != c->format)
        return kw_fail(e, KW_EUSAGE, N_("--out %s: the name says another format than --format"), c->out);
    w->format = named;
    return KW_OK;
}

static bool is_file_name(const kw_picture_writer *w)
{
    return kw_format_of(w->c->out) >= 0 && !kw_is_dir(w->c->out);
}

void kw_picture_writer_leave(const kw_picture_writer *w)
{
    if (w->made && kw_io_now->rmdir(w->made))
        return;                           /* there are pictures in it */
}

kw_status kw_picture_writer_new(kw_cli *cli, const kw_generate_config *c, kw_pipeline *p, kw_jobs *jobs,
                                const kw_canvas *canvas, kw_picture_writer **out, kw_err *e)
{
    enum { MOST_ON_SHEET = 100 };
    kw_picture_writer *w = kw_alloc(cli->arena, sizeof *w);
    if (!w)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *w = (kw_picture_writer){ .cli = cli, .c = c, .p = p, .jobs = jobs, .canvas = canvas };
    KW_TRY(check_out(w, e));
    KW_TRY(is_file_name(w) ? names_of_file(w, e) : names_in_folder(w, e));
    if (c->sheet && jobs->n > 1 && jobs->n <= (jobs->grid.n ? 10000 : MOST_ON_SHEET)) {
        w->kept = kw_alloc_array(cli->arena, jobs->n, sizeof *w->kept);
        if (!w->kept || kw_defer(cli->arena, free_kept, w))
            return kw_fail(e, KW_ENOMEM, "out of memory");
    }
    *out = w;
    return KW_OK;
}

kw_status kw_picture_writer_base(kw_picture_writer *w, const kw_generate_config *c, kw_pipeline *p, const kw_jobs *jobs,
                                 const kw_canvas *canvas, kw_err *e)
{
    w->c = c;
    w->p = p;
    w->now = jobs;
    w->canvas = canvas;
    return hashes(w, e);
}

/* Smaller where so many would not fit on one sheet. */
static kw_status keep_for_sheet(kw_picture_writer *w, size_t i, const kw_picture *p, kw_err *e)
{
    double most = 0.6 * KW_PICTURE_MAX_PIXELS, side = KW_PICTURE_MAX_SIDE * 0.9;
    double square = w->c->columns ? w->c->columns : sqrt((double)w->jobs->n);
    double columns = w->jobs->grid.n ? w->jobs->grid.axis[0].n : square;
    double rows = w->jobs->grid.n ? w->jobs->rows : ceil((double)w->jobs->n / columns);
    double scale = fmin(fmin(1, sqrt(most / ((double)w->jobs->n * p->w * p->h))),
                        fmin(side / (columns * p->w), side / (rows * p->h)));
    return kw_picture_resize(p, KW_MAX(1, (int)(p->w * scale)), KW_MAX(1, (int)(p->h * scale)), &w->kept[i], e);
}

/* A sheet says what its first picture says, and what changes from one to the next. */
static kw_status keep_text(kw_picture_writer *w, kw_arena *a, kw_err *e)
{
    kw_str text = { 0 };
    kw_status s = infotext(w, &w->jobs->job[0], &w->jobs->grid, a, &text, e);
    w->sheet_text = s ? NULL : kw_strdup(w->cli->arena, text.s);
    kw_str_free(&text);
    return s || w->sheet_text ? s : kw_fail(e, KW_ENOMEM, "out of memory");
}

kw_status kw_picture_writer_put(kw_picture_writer *w, size_t i, const kw_picture *p, kw_err *e)
{
    kw_str text = { 0 };
    kw_arena *a = kw_arena_new();
    kw_status s = a ? infotext(w, &w->jobs->job[i], NULL, a, &text, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s && !i && w->jobs->grid.n)
        s = keep_text(w, a, e);
    if (!s)
        s = kw_picture_file_write(w->jobs->job[i].file, w->format, w->c->quality, p, text.s, e);
    kw_str_free(&text);
    kw_arena_free(a);
    return s || !w->kept ? s : keep_for_sheet(w, i, p, e);
}

void kw_picture_writer_compare(const kw_picture_writer *w, const kw_from *from)
{
    if (!from)
        return;
    kw_from_compare(w->cli, from, "model", w->model, w->model_hash ? w->model_hash : w->parts_hash, NULL);
    kw_from_compare(w->cli, from, "vae", w->vae, w->vae_hash, NULL);
    for (size_t i = 0; i < w->jobs->n_lora; i++) {        /* Civitai's Hashes are of the whole file */
        const kw_job_lora *l = &w->jobs->lora[i];
        char whole[65] = "";
        bool read = !kw_sha256_file(l->path, whole, NULL);
        kw_from_compare(w->cli, from, "lora", l->name, l->hash, read ? whole : NULL);
    }
}

/* ---- sheets ------------------------------------------------------------------------------------------------------ */

/* What a row of a grid has in common: prompt, seed, third and second axis, as far as they differ at all. */
static const char *row_label(const kw_picture_writer *w, const kw_job *j)
{
    const kw_jobs *jobs = w->jobs;
    kw_arena *a = w->cli->arena;
    kw_str out = { 0 };
    bool prompts = jobs->rows > w->c->count * kw_grid_count(&jobs->grid) / jobs->grid.axis[0].n;
    for (int k = jobs->grid.n - 1; k >= 1; k--)
        kw_str_printf(&out, "%s%s", out.n ? "\n" : "", kw_grid_label(a, &jobs->grid, k, j->place[k]));
    if (w->c->count > 1)
        kw_str_printf(&out, "%s%llu", out.n ? "\n" : "", (unsigned long long)j->seed);
    if (prompts)
        kw_str_printf(&out, "%s%s", out.n ? "\n" : "", j->prompt);
    const char *label = out.n && !out.failed ? kw_strdup(a, out.s) : NULL;
    kw_str_free(&out);
    return label;
}

static bool one_prompt(const kw_jobs *jobs)
{
    for (size_t i = 1; i < jobs->n; i++)
        if (strcmp(jobs->job[i].prompt, jobs->job[0].prompt))
            return false;
    return true;
}

static kw_status draw_grid(kw_picture_writer *w, const kw_picture **cells, const char **labels, kw_err *e)
{
    const kw_jobs *jobs = w->jobs;
    int columns = jobs->grid.axis[0].n;
    const char **rows = kw_alloc_array(w->cli->arena, (size_t)jobs->rows, sizeof *rows);
    kw_picture drawn;
    if (!rows)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < columns; i++)
        labels[i] = kw_grid_label(w->cli->arena, &jobs->grid, 0, i);
    for (size_t i = 0; i < jobs->n; i++) {
        const kw_job *j = &jobs->job[i];
        cells[j->row * columns + j->place[0]] = &w->kept[i];
        if (!j->place[0])
            rows[j->row] = row_label(w, j);
    }
    kw_sheet sheet = { .title = one_prompt(jobs) ? jobs->job[0].prompt : NULL,
                       .columns = columns, .rows = jobs->rows, .column_labels = labels, .row_labels = rows,
                       .cells = cells, .best = -1 };
    KW_TRY(kw_sheet_draw(&sheet, &drawn, e));
    kw_status s = kw_picture_file_write(w->sheet, KW_FILE_PNG, 0, &drawn, w->sheet_text, e);
    kw_picture_free(&drawn);
    return s;
}

static kw_status draw_sheet(kw_picture_writer *w, const kw_picture **cells, const char **labels, kw_err *e)
{
    size_t n = w->jobs->n;
    int columns = w->c->columns ? KW_MIN(w->c->columns, (int)n) : (int)ceil(sqrt((double)n));
    bool one = one_prompt(w->jobs);
    for (size_t i = 0; i < n; i++)
        cells[i] = &w->kept[i];
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
    kw_status s = kw_picture_file_write(w->sheet, KW_FILE_PNG, 0, &drawn, NULL, e);
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
    return w->jobs->grid.n ? draw_grid(w, cells, labels, e) : draw_sheet(w, cells, labels, e);
}
