/* generate_plan.c - what is drawn together, in how many steps; what is said of memory and time beforehand. */
#include "generate_session.h"
#include "measure.h"

#include <omp.h>
#include <string.h>

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static bool same_strength(const kw_strengths *a, const kw_strengths *b)
{
    return a->te == b->te && a->unet == b->unet && !a->blocks == !b->blocks
        && (!a->blocks || !memcmp(a->blocks, b->blocks, KW_LORA_BLOCKS * sizeof *a->blocks));
}

static bool together(const kw_jobs *jobs, const kw_job *a, const kw_job *b)
{
    for (size_t i = 0; i < jobs->n_lora; i++)
        if (!same_strength(&a->strength[i], &b->strength[i]))
            return false;
    for (size_t i = 0; i < jobs->n_hypernet; i++)
        if (a->hyper[i] != b->hyper[i])
            return false;
    return a->width == b->width && a->height == b->height && a->steps == b->steps && a->cfg == b->cfg
        && a->clip_skip == b->clip_skip && a->eta == b->eta && a->change == b->change
        && a->sampler == b->sampler && a->schedule == b->schedule && a->windows[0] == b->windows[0]
        && a->windows[1] == b->windows[1];
}

size_t kw_session_batch(const kw_session *s, size_t first)
{
    size_t n = 1;
    while (first + n < s->jobs.n && n < (size_t)s->c->batch
           && together(&s->jobs, &s->jobs.job[first], &s->jobs.job[first + n]))
        n++;
    return n;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

kw_status kw_session_sampling(const kw_session *s, const kw_job *j, kw_sampling_options *o, int *noised, kw_err *e)
{
    const kw_generate_sampling *how = &s->c->how;
    *o = (kw_sampling_options){ .sampler = j->sampler, .schedule = j->schedule, .spacing = (kw_spacing)s->c->spacing,
                                .steps = j->steps, .eta = j->eta, .gamma = how->gamma, .churn = how->churn,
                                .churn_from = how->churn_from, .churn_to = how->churn_to, .noise_less = 1 - how->noise,
                                .least = how->least, .most = how->most };
    *noised = 0;
    if (!s->canvas)
        return KW_OK;
    return kw_strength_steps(kw_pipeline_noise(s->p), o, j->change, s->c->img2img_steps, noised, e);
}

int64_t kw_session_steps_of(const kw_session *s, const kw_job *j)
{
    kw_sampling_options o;
    int noised;
    if (kw_session_sampling(s, j, &o, &noised, NULL))
        return j->steps;
    return o.steps - o.first + kw_hires_steps(s->c, j->steps);
}

int64_t kw_session_steps(const kw_session *s)
{
    int64_t sum = 0;
    for (size_t i = 0; i < s->jobs.n; i += kw_session_batch(s, i))
        sum += kw_session_steps_of(s, &s->jobs.job[i]);
    return sum;
}

/* ---- what is said ------------------------------------------------------------------------------------------------ */

/* What is given up for memory, once. */
kw_status kw_session_tell_memory(const kw_session *s, kw_err *e)
{
    const kw_job *j = &s->jobs.job[0];
    kw_pipeline_memory m;
    if (!s->c->memory)
        return KW_OK;
    kw_hires z;
    bool second;
    KW_TRY(kw_hires_size(s->c, j->width, j->height, kw_pipeline_factor(s->p), &z, &second, e));
    KW_TRY(kw_pipeline_forecast(s->p, (int)kw_session_batch(s, 0), second ? z.w - z.cut_x : j->width,
                                second ? z.h - z.cut_y : j->height, j->windows[0],
                                j->cfg != 1 && j->windows[0] == j->windows[1], &m, e));
    if (s->cli->global.quiet || (!m.tile && !m.away && m.unpacked < 0.005 && m.pixels <= (double)s->c->memory))
        return KW_OK;
    fprintf(stderr, _(N_("memory: %.2f GB while sampling, %.2f GB for the pixels")), m.sampling * 1e-9,
            m.pixels * 1e-9);
    if (m.tile)
        fprintf(stderr, _(N_("; decoding in stripes of at most %d x %d pixels")), m.tile, m.tile);
    if (m.away)
        fputs(_(N_("; the U-Net makes room for it")), stderr);
    if (m.unpacked >= 0.005)
        fprintf(stderr, _(N_("; %.0f %% of the U-Net is laid out anew in each step")), 100 * m.unpacked);
    fputc('\n', stderr);
    return KW_OK;
}

/*
 * Seconds for everything, from the work of the first batch's step and decoding, by the area of each picture; the peak
 * is that of one type whatever the computation's, so this is a rough figure.
 */
static double estimate(const kw_session *s)
{
    const kw_job *first = &s->jobs.job[0];
    size_t n = kw_session_batch(s, 0);
    kw_pipeline_memory m;
    double work = 0, area = (double)first->width * first->height;
    if (kw_pipeline_forecast(s->p, (int)n, first->width, first->height, first->windows[0],
                             first->cfg != 1 && first->windows[0] == first->windows[1], &m, NULL))
        return 0;
    for (size_t i = 0; i < s->jobs.n; i++) {
        const kw_job *j = &s->jobs.job[i];
        double one = (double)j->width * j->height / area, large = one;
        kw_hires z;
        bool any;
        if (!kw_hires_size(s->c, j->width, j->height, kw_pipeline_factor(s->p), &z, &any, NULL) && any)
            large = (double)z.w * z.h / area;
        double second = any ? kw_hires_steps(s->c, j->steps) : 0;
        work += m.step_work / (double)n * (one * ((double)kw_session_steps_of(s, j) - second) + large * second);
        work += m.decode_work * large;
    }
    double peak = kw_peak_measure(KW_PEAK_F32, omp_get_max_threads(), 0.1);
    return peak > 0 ? work / peak : 0;
}

/* Of a grid, before anything is computed. */
void kw_session_tell_plan(const kw_session *s)
{
    const kw_grid *g = &s->jobs.grid;
    kw_str time = { 0 };
    if (s->cli->global.quiet || !g->n)
        return;
    double seconds = estimate(s);
    kw_show_duration(&time, seconds);
    fprintf(stderr, _(N_("grid: %d columns, %d rows")), g->axis[0].n, s->jobs.rows);
    fputs("; ", stderr);
    fprintf(stderr, _(N_("%zu pictures, %lld steps")), s->jobs.n, (long long)kw_session_steps(s));
    if (seconds > 0 && time.s) {
        fputs("; ", stderr);
        fprintf(stderr, _(N_("about %s")), time.s);
    }
    fputc('\n', stderr);
    kw_str_free(&time);
}
