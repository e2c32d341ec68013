/*
 * generate_bases.c - a grid over bases: one after the other is opened, draws its pictures and goes, so that there is
 * never more than one in memory.
 *
 *   --grid base=a,b --grid seed=1,2      a: 1 2, then b: 1 2; on the sheet they stand as any other axis does
 */
#include "generate_session.h"
#include "net_settings.h"

#include <string.h>

kw_status kw_bases_settle(kw_cli *cli, kw_generate_config *c, kw_err *e)
{
    kw_grid g;
    KW_TRY(kw_grid_read(cli->arena, &c->grid, &g, e));
    const kw_axis *x = kw_grid_axis(&g, "base");
    if (!x)
        return KW_OK;
    if (c->noise || c->save_latents)
        return kw_fail(e, KW_EUSAGE, N_("--grid base does not go with --noise or --save-latents"));
    c->base = x->value[0];
    return KW_OK;
}

/* All of one base behind each other, each in their order. */
static kw_status order(kw_session *s, const kw_axis *x, kw_err *e)
{
    kw_job *sorted = kw_alloc_array(s->cli->arena, s->jobs.n, sizeof *sorted);
    const int axis = (int)(x - s->jobs.grid.axis);
    size_t n = 0;
    if (!sorted)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int v = 0; v < x->n; v++)
        for (size_t i = 0; i < s->jobs.n; i++)
            if (s->jobs.job[i].place[axis] == v)
                sorted[n++] = s->jobs.job[i];
    s->jobs.job = sorted;
    return KW_OK;
}

/* What cannot be opened is known before the first picture is drawn. */
static kw_status find_all(kw_session *s, const kw_axis *x, const char **path, kw_err *e)
{
    for (int v = 0; v < x->n; v++) {
        kw_source *source;
        path[v] = x->value[v];
        KW_TRY(kw_model_named(s->cli, &path[v], e));
        kw_arena *a = kw_arena_new();
        kw_status st = a ? kw_source_open(a, path[v], &source, e) : kw_fail(e, KW_ENOMEM, "out of memory");
        kw_arena_free(a);
        if (st)
            return st;
    }
    return KW_OK;
}

static kw_status draw_one(kw_session *s, const char *path, size_t first, size_t n, kw_err *e)
{
    kw_generate_config *c = kw_alloc(s->cli->arena, sizeof *c);
    kw_session one = { .cli = s->cli, .c = c, .jobs = s->jobs, .whole = &s->jobs, .first = first, .from = s->from,
                       .writer = s->writer, .arena = kw_arena_new() };
    kw_status st = c && one.arena ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!st) {
        *c = *s->c;
        c->base = path;
        one.jobs.job += first;
        one.jobs.n = n;
        kw_say(s->cli, _(N_("opening the model")));
        st = kw_session_open(&one, e);
        kw_hush(s->cli);
    }
    if (!st)
        st = kw_session_draw(&one, e);
    s->writer = one.writer;
    s->p = NULL;
    kw_arena_free(one.arena);
    return st;
}

kw_status kw_bases_draw(kw_session *s, kw_err *e)
{
    const kw_axis *x = kw_grid_axis(&s->jobs.grid, "base");
    const char *path[KW_GRID_MOST];
    const size_t each = s->jobs.n / (size_t)x->n;
    KW_TRY(find_all(s, x, path, e));
    KW_TRY(order(s, x, e));
    for (int v = 0; v < x->n; v++) {
        if (!s->cli->global.quiet)
            fprintf(stderr, _(N_("base: %s\n")), kw_path_name(path[v]));
        KW_TRY(draw_one(s, path[v], (size_t)v * each, each, e));
    }
    return KW_OK;
}
