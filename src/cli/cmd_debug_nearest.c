/*
 * cmd_debug_nearest.c - kiwame debug nearest: which known picture is each generated one nearest to?
 *
 *   both over white, RGB, to 32 x 32 by means of whole blocks (128 px: 4 x 4, rounded half up), numbers 0..255 as
 *   stored; distance = sum of squared differences over the 3,072 numbers; ties go to the lower index
 *
 * An index is a folder with glyphs32.png (tiles of 32 x 32, row by row) and glyphs.tsv (a line a tile: index, index of
 * the first tile that looks the same, code points, held out, English name, Japanese name): see tools/base/emoji.py.
 */
#include "cli.h"
#include "io/io.h"
#include "picture/picture.h"

#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, NUMBERS = 3 * SIDE * SIDE };

typedef struct { const char *pictures, *among, *also, *prompts; } config;

static const kw_option options[] = {
    KW_ROW_PATH("pictures", config, pictures, NULL,
                N_("folder of PNG files; their order by name is that of the prompts"),
                .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED, .value = "DIR"),
    KW_ROW_PATH("among", config, among, NULL, N_("folder with glyphs32.png and glyphs.tsv"), .value = "DIR",
                .flags = KW_OPT_REQUIRED),
    KW_ROW_PATH("also", config, also, NULL, N_("folder of further candidates; how often one of them is nearest is told"),
                .value = "DIR"),
    KW_ROW_PATH("prompts", config, prompts, NULL, N_("file of the prompts; \"--d N\" asks for number N of the index")),
    KW_ROW_END
};

typedef struct { uint8_t v[NUMBERS]; const char *name; bool also; } candidate;
typedef struct {
    candidate *list;  size_t n;
    int *place;       size_t n_places;    /* of each number of the index: where in the list it is */
} candidates;
typedef struct { size_t n, also, asked, first, five; int *rank; } totals;
typedef struct { const char *file, *name; double distance; int rank; } answer;           /* rank 0: not asked */

/* ---- pictures to numbers ----------------------------------------------------------------------------------- */

static kw_status shrink(const char *path, uint8_t *out, kw_err *e)
{
    kw_picture p;
    KW_TRY(kw_picture_read(path, kw_picture_white, &p, e));
    int f = p.w / SIDE, side = p.w, high = p.h;
    for (int i = 0; i < NUMBERS && f > 0 && side == high; i++) {
        int x = i / 3 % SIDE * f, y = i / 3 / SIDE * f, sum = 0;
        for (int k = 0; k < f * f; k++)
            sum += p.rgb[3 * ((y + k / f) * side + x + k % f) + i % 3];
        out[i] = (uint8_t)((2 * sum + f * f) / (2 * f * f));
    }
    kw_picture_free(&p);
    if (side != high || side % SIDE)
        return kw_fail(e, KW_EDATA, N_("%s is %d x %d; a square whose side is a multiple of %d is needed"), path, side,
                       high, SIDE);
    return KW_OK;
}

/* Pictures as kiwame generate leaves them: its contact sheet is none. */
static kw_status list_pngs(kw_arena *a, const char *dir, char ***files, size_t *n, kw_err *e)
{
    size_t all, k = 0;
    KW_TRY(kw_dir_list(a, dir, files, &all, e));
    for (size_t i = 0; i < all; i++)
        if (kw_ends_with((*files)[i], ".png") && !kw_starts_with((*files)[i], "sheet-"))
            (*files)[k++] = (*files)[i];
    *n = k;
    return k ? KW_OK : kw_fail(e, KW_EDATA, N_("%s: no PNG files"), dir);
}

/* ---- the candidates ------------------------------------------------------------------------------------------ */

static char *field(char **line)
{
    char *start = *line, *tab = strpbrk(start, "\t\n");
    *line = tab ? tab + 1 : start + strlen(start);
    if (tab)
        *tab = 0;
    return start;
}

/* One line of glyphs.tsv: a candidate, unless it looks like an earlier one. */
static bool add_line(candidates *c, size_t i, char **at, const kw_picture *sheet)
{
    size_t index = strtoul(field(at), NULL, 10), same = strtoul(field(at), NULL, 10);
    int columns = sheet->w / SIDE, x = (int)i % columns * SIDE, y = (int)i / columns * SIDE;
    (void)field(at), (void)field(at);
    const char *name = field(at);
    (void)field(at);
    if (index != i || same > i || y + SIDE > sheet->h)
        return false;
    c->place[i] = same < i ? c->place[same] : (int)c->n;
    if (same < i)
        return true;
    candidate *k = &c->list[c->n++];
    k->name = name;
    for (int row = 0; row < SIDE; row++)
        memcpy(k->v + 3 * SIDE * row, sheet->rgb + 3 * ((size_t)(y + row) * (size_t)sheet->w + (size_t)x), 3 * SIDE);
    return true;
}

static kw_status read_index(kw_arena *a, const config *o, char **also, size_t n_also, candidates *c, kw_err *e)
{
    char *tsv = kw_path_join(a, o->among, "glyphs.tsv"), *png = kw_path_join(a, o->among, "glyphs32.png"), *text;
    size_t bytes, lines = 0;
    kw_picture sheet;
    if (!tsv || !png)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_file_read(a, tsv, 64u << 20, &text, &bytes, e));
    for (size_t i = 0; i < bytes; i++)
        lines += text[i] == '\n';
    c->list = kw_alloc_array(a, lines + n_also, sizeof *c->list);
    c->place = kw_alloc_array(a, lines + 1, sizeof *c->place);
    if (!c->list || !c->place)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_picture_read(png, kw_picture_white, &sheet, e));
    bool good = sheet.w >= SIDE;
    for (char *at = text; good && c->n_places < lines; c->n_places += good)
        good = add_line(c, c->n_places, &at, &sheet);
    kw_picture_free(&sheet);
    if (!good)
        return kw_fail(e, KW_EDATA, N_("%s: line %zu does not fit glyphs32.png"), tsv, c->n_places + 1);
    for (size_t i = 0; i < n_also; i++) {
        candidate *k = &c->list[c->n++];
        char *path = kw_path_join(a, o->also, also[i]);
        *k = (candidate){ .name = also[i], .also = true };
        KW_TRY(path ? shrink(path, k->v, e) : kw_fail(e, KW_ENOMEM, "out of memory"));
    }
    return KW_OK;
}

/* ---- the answers ---------------------------------------------------------------------------------------------- */

static int64_t squares(const uint8_t *a, const uint8_t *b)
{
    int64_t sum = 0;
    for (int i = 0; i < NUMBERS; i++)
        sum += (int64_t)(a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* wanted: an index, or -1. Rank 1: no candidate is nearer. */
static void answer_one(const candidates *c, const uint8_t *v, long wanted, answer *r, totals *t)
{
    int place = wanted >= 0 && (size_t)wanted < c->n_places ? c->place[wanted] : -1, best = 0;
    int64_t limit = place < 0 ? -1 : squares(v, c->list[place].v), least = INT64_MAX;
    r->rank = place >= 0;
    for (int i = 0; i < (int)c->n; i++) {
        int64_t d = squares(v, c->list[i].v);
        r->rank += place >= 0 && (d < limit || (d == limit && i < place));
        if (d < least) {
            least = d;
            best = i;
        }
    }
    r->name = c->list[best].name;
    r->distance = (double)least;
    t->also += c->list[best].also;
    t->first += r->rank == 1;
    t->five += r->rank > 0 && r->rank <= 5;
    if (r->rank)
        t->rank[t->asked++] = r->rank;
}

static int compare(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* A prompt a line, empty ones and comments aside; what it asks for is the number behind its last "--d", or -1. */
static kw_status read_prompts(kw_arena *a, const config *o, size_t n, long *wanted, kw_err *e)
{
    char *text;
    size_t bytes, lines = 0;
    KW_TRY(kw_file_read(a, o->prompts, 64u << 20, &text, &bytes, e));
    for (char *line = text, *next; *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = 0;
        if (!line[strspn(line, " \t\r")] || *line == '#' || lines++ >= n)
            continue;
        for (const char *d = strstr(line, " --d "); d; d = strstr(d + 1, " --d "))
            wanted[lines - 1] = strtol(d + 5, NULL, 10);
    }
    return lines == n ? KW_OK : kw_fail(e, KW_EDATA, N_("%zu prompts, but %zu pictures in %s"), lines, n, o->pictures);
}

static void show(const kw_cli *c, const config *o, const answer *r, const totals *t)
{
    kw_table table = { .align = "llr" };
    for (size_t i = 0; i < t->n; i++) {
        kw_table_cell(&table, "%s", r[i].file);
        kw_table_cell(&table, "%s", r[i].name);
        kw_table_cell(&table, r[i].rank ? _(N_("rank %d")) : "", r[i].rank);
    }
    if (!c->global.quiet)
        kw_table_print(&table, stdout, 0);
    if (o->also)
        printf(_(N_("nearest is one of %s: %zu of %zu\n")), o->also, t->also, t->n);
    if (t->asked)
        printf(_(N_("right: %zu of %zu; among the nearest five: %zu; median rank %d\n")), t->first, t->asked, t->five,
               t->rank[(t->asked - 1) / 2]);
}

static void show_json(const config *o, const answer *r, const totals *t)
{
    kw_str s = { 0 };
    kw_str_printf(&s, "{\"pictures\":%zu", t->n);
    if (o->also)
        kw_str_printf(&s, ",\"also\":%zu", t->also);
    if (t->asked)
        kw_str_printf(&s, ",\"right\":%zu,\"five\":%zu,\"asked\":%zu,\"median_rank\":%d", t->first, t->five, t->asked,
                      t->rank[(t->asked - 1) / 2]);
    kw_str_add(&s, ",\"nearest\":[");
    for (size_t i = 0; i < t->n; i++) {
        kw_str_add(&s, i ? ",{\"file\":" : "{\"file\":");
        kw_show_json_text(&s, r[i].file);
        kw_str_add(&s, ",\"name\":");
        kw_show_json_text(&s, r[i].name);
        kw_str_printf(&s, ",\"distance\":%.0f,\"rank\":%d}", r[i].distance, r[i].rank);
    }
    kw_str_add(&s, "]}");
    puts(s.s ? s.s : "");
    kw_str_free(&s);
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    const config *o = arg;
    char **files, **also = NULL;
    size_t n_also = 0;
    candidates k = { 0 };
    totals t = { 0 };
    uint8_t v[NUMBERS];
    KW_TRY(list_pngs(c->arena, o->pictures, &files, &t.n, e));
    if (o->also)
        KW_TRY(list_pngs(c->arena, o->also, &also, &n_also, e));
    KW_TRY(read_index(c->arena, o, also, n_also, &k, e));
    answer *r = kw_alloc_array(c->arena, t.n, sizeof *r);
    long *wanted = kw_alloc_array(c->arena, t.n, sizeof *wanted);
    t.rank = kw_alloc_array(c->arena, t.n, sizeof *t.rank);
    if (!r || !wanted || !t.rank)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    memset(wanted, -1, t.n * sizeof *wanted);
    if (o->prompts)
        KW_TRY(read_prompts(c->arena, o, t.n, wanted, e));
    for (size_t i = 0; i < t.n; i++) {
        char *path = kw_path_join(c->arena, o->pictures, files[i]);
        KW_TRY(path ? shrink(path, v, e) : kw_fail(e, KW_ENOMEM, "out of memory"));
        r[i].file = files[i];
        answer_one(&k, v, wanted[i], &r[i], &t);
    }
    qsort(t.rank, t.asked, sizeof *t.rank, compare);
    c->global.json ? show_json(o, r, &t) : show(c, o, r, &t);
    return KW_OK;
}

const kw_command kw_command_debug_nearest = {
    .name = "nearest",
    .help = N_("which known picture is each generated one nearest to: the score of a base, the demo's count"),
    .options = options, .config_size = sizeof(config), .run = run,
    .examples = "kiwame debug nearest out --among data/emoji --prompts data/emoji/prompts.en.txt",
};
