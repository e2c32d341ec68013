/*
 * lists.c - the list of steps: which timesteps and noise levels belong to n steps.
 *
 *   A1111      k-samplers: a sigma schedule (schedule.c), t by log interpolation; DPM2, DPM2 a, DPM++ 3M SDE: made
 *                          for a step more, the last sigma above 0 left out
 *              DDIM, PLMS: t = 1 + i*(N/n), from the last down to the second: the first is landed on, never evaluated
 *              UniPC, LCM: lists_few.c; with a schedule given, they and DDIM, PLMS are k-samplers (as in ComfyUI)
 *   diffusers  EulerDiscrete: t leading/trailing/linspace, sigma by linear interpolation; Karras between its ends
 *              DPMSolverMultistep, UniPC: n+1 whole timesteps less the last; Karras over the whole model, t rounded
 *              DDIM, PNDM: whole timesteps, each landing on t - N/n
 *              the same where "Karras" is exponential or beta, t cut; other schedules diffusers does not have
 *              KDPM2: as EulerDiscrete, Karras' t rounded
 *
 * With zero terminal SNR the largest sigma is infinite: k-samplers take a small alphas_cumprod there, A1111 and ComfyUI
 * 4.8973451890853435e-08, diffusers 2^-24. DDIM takes the zero as it is.
 */
#include "sampling.h"

#include <math.h>

static const double A1111_LEAST_ABAR = 4.8973451890853435e-08, DIFFUSERS_LEAST_ABAR = 0x1p-24;

typedef struct {
    const kw_noise *z;
    const kw_sampling_options *o;
    double *level, *sigma, *t;            /* (z->n) model's sigmas; of the list, with a place for one more */
    step_list *list;
    kw_err *e;
} maker;

/* a product rounded before it is added to anything, as numpy does */
static double product(double a, double b) { return fma(a, b, 0.0); }

static double even(double t) { return nearbyint(t); }      /* numpy's round: halves to even */

/* ---- diffusers' timesteps ---------------------------------------------------------------------------- */

/* numpy.arange(N, 0, -N/n).round() - 1; its length can differ from n by rounding */
static int trailing(maker *m, int n)
{
    double first = m->z->n, ratio = first / n, delta = (first - ratio) - first;
    int count = (int)ceil(first / ratio);
    count = KW_MIN(count, n);
    for (int i = 0; i < count; i++)
        m->t[i] = even(first + product(i, delta)) - 1;
    return count;
}

/* numpy.linspace(0, N-1, points), backwards; with a single point it is 0 */
static void linspace(maker *m, int n, int points)
{
    double end = m->z->n - 1, step = points > 1 ? end / (points - 1) : 0;
    for (int i = 0; i < n; i++) {
        int k = points - 1 - i;
        m->t[i] = points > 1 && k == points - 1 ? end : product(k, step);
    }
}

static void leading(maker *m, int n, int points)
{
    int ratio = m->z->n / points;
    for (int i = 0; i < n; i++)
        m->t[i] = (points - 1 - i) * ratio + m->z->spec.steps_offset;
}

/* points: DPMSolverMultistep makes one more than it uses */
static kw_status timesteps(maker *m, kw_spacing spacing, int points, int *n)
{
    int wanted = m->o->steps;
    *n = wanted;
    if (wanted > m->z->n || (spacing == KW_SPACING_LEADING && points > m->z->n))
        return kw_fail(m->e, KW_EUSAGE, "%d steps: the model was trained with %d, no more are possible here", wanted,
                       m->z->n);
    if (spacing == KW_SPACING_TRAILING)
        *n = trailing(m, wanted);
    else if (spacing == KW_SPACING_LINSPACE)
        linspace(m, wanted, points);
    else
        leading(m, wanted, points);
    if (m->t[0] > m->z->n - 1)
        return kw_fail(m->e, KW_EUSAGE, "%d steps, spacing \"leading\", steps_offset %d: starts beyond timestep %d",
                       wanted, m->z->spec.steps_offset, m->z->n - 1);
    return KW_OK;
}

/* ---- from sigmas to steps ---------------------------------------------------------------------------- */

static kw_mix mix_of(const kw_sampler *sampler, double sigma)
{
    double r = sampler->unit_variance ? sqrt(1 + sigma * sigma) : 1;
    return (kw_mix){ 1 / r, sigma / r };
}

/* m->sigma[0..n-1], then 0 */
static void sigma_steps(const maker *m, step_list *list)
{
    for (int i = 0; i < list->n; i++)
        list->step[i] = (kw_sampler_step){
            .from = mix_of(m->o->sampler, m->sigma[i]),
            .to = mix_of(m->o->sampler, i + 1 < list->n ? m->sigma[i + 1] : 0),
            .t = m->t[i],
        };
}

static void fill_levels(maker *m, double least_abar)
{
    for (int t = 0; t < m->z->n; t++) {
        double abar = m->z->abar[t] > 0 ? m->z->abar[t] : least_abar;
        m->level[t] = sqrt((1 - abar) / abar);
    }
}

static kw_status ends_of(const maker *m, kw_sigma_range *r)
{
    const step_list *list = m->list;
    *r = (kw_sigma_range){ list->level, list->n_levels, list->level[0], list->level[list->n_levels - 1],
                           m->z->spec.sdxl };
    r->least = m->o->least > 0 ? m->o->least : r->least;
    r->most = m->o->most > 0 ? m->o->most : r->most;
    if (r->least < r->most)
        return KW_OK;
    return kw_fail(m->e, KW_EUSAGE, "noise levels from %g down to %g: the first must be the larger", r->most, r->least);
}

double kw_step_list_t(const step_list *list, kw_mix m)
{
    double i = kw_sigma_to_t(list->level, list->n_levels, m.s / m.a);
    if (list->stride > 1) {                                 /* the nearest in log sigma, as A1111's LCM */
        int low = (int)KW_MIN(floor(i), list->n_levels - 2);
        i = log(m.s / m.a) - log(list->level[low]) <= log(list->level[low + 1]) - log(m.s / m.a) ? low : low + 1;
    }
    return i * list->stride + list->offset;
}

/* A1111 with skips_last_but_one: n + 1 sigmas, of which the last goes */
static kw_status k_list(maker *m, step_list *list)
{
    const kw_sampler *sampler = m->o->sampler;
    kw_sigma_range r;
    fill_levels(m, A1111_LEAST_ABAR);
    if (sampler->lists == KW_LISTS_LCM)
        kw_list_lcm_levels(m->z, list, m->level);
    KW_TRY(ends_of(m, &r));
    list->n = m->o->schedule->fill(&r, m->o->steps + sampler->skips_last_but_one, m->sigma)
            - sampler->skips_last_but_one;
    for (int i = 0; i < list->n; i++)
        m->t[i] = kw_step_list_t(list, (kw_mix){ 1, m->sigma[i] });
    sigma_steps(m, list);
    list->scale = sampler->lists == KW_LISTS_LCM ? list->step[0].from.s : sampler->unit_variance ? 1 : m->sigma[0];
    return KW_OK;
}

static bool is_karras(const maker *m) { return m->o->schedule == kw_sigma_schedule_find("karras"); }

/* one of diffusers' use_..._sigmas? */
static bool is_spread(const maker *m) { return m->o->schedule->by_ends; }

static kw_status euler_list(maker *m, kw_spacing spacing, step_list *list)
{
    fill_levels(m, DIFFUSERS_LEAST_ABAR);
    KW_TRY(timesteps(m, spacing, m->o->steps, &list->n));
    for (int i = 0; i < list->n; i++) {                     /* numpy.interp; t is float32 there */
        double t = (double)(float)m->t[i];
        int low = KW_MIN((int)t, m->z->n - 2);
        m->sigma[i] = m->level[low] + (t - low) * (m->level[low + 1] - m->level[low]);
    }
    if (is_spread(m)) {
        kw_sigma_range ends = { m->level, m->z->n, m->sigma[list->n - 1], m->sigma[0], m->z->spec.sdxl };
        m->o->schedule->fill(&ends, list->n, m->sigma);
        bool whole = m->o->sampler->lists == KW_LISTS_KDPM && is_karras(m);
        for (int i = 0; i < list->n; i++) {
            double t = kw_sigma_to_t(m->level, m->z->n, m->sigma[i]);
            m->t[i] = whole ? even(t) : t;
        }
    }
    sigma_steps(m, list);
    list->scale = spacing == KW_SPACING_LEADING ? sqrt(m->sigma[0] * m->sigma[0] + 1) : m->sigma[0];
    return KW_OK;
}

static kw_status dpm_list(maker *m, kw_spacing spacing, step_list *list)
{
    fill_levels(m, DIFFUSERS_LEAST_ABAR);
    KW_TRY(timesteps(m, spacing, m->o->steps + 1, &list->n));
    if (is_spread(m)) {
        kw_sigma_range ends = { m->level, m->z->n, m->level[0], m->level[m->z->n - 1], m->z->spec.sdxl };
        m->o->schedule->fill(&ends, list->n, m->sigma);
        for (int i = 0; i < list->n; i++) {                 /* the cosine schedule's and others' are cut, not rounded */
            double t = kw_sigma_to_t(m->level, m->z->n, m->sigma[i]);
            m->t[i] = !is_karras(m) ? floor(fmax(t - 1e-6, 0))      /* float32 logarithms there: 999 becomes 998 */
                    : m->z->spec.beta == KW_BETA_COSINE ? floor(t) : even(t);
        }
    } else {
        for (int i = 0; i < list->n; i++) {
            m->t[i] = even(m->t[i]);
            m->sigma[i] = m->level[(int)m->t[i]];
        }
    }
    sigma_steps(m, list);
    list->scale = sqrt(m->sigma[0] * m->sigma[0] + 1);      /* unit noise in diffusers' scale, where a^2 + s^2 = 1 */
    return KW_OK;
}

/* ---- DDIM -------------------------------------------------------------------------------------------- */

static kw_status ddim_list(maker *m, kw_spacing spacing, step_list *list)
{
    fill_levels(m, DIFFUSERS_LEAST_ABAR);
    KW_TRY(timesteps(m, spacing, m->o->steps, &list->n));
    int stride = m->z->n / m->o->steps;
    for (int i = 0; i < list->n; i++) {
        int t = (int)even(m->t[i]), to = t - stride;
        kw_mix end = m->z->spec.alpha_one ? (kw_mix){ 1, 0 } : kw_noise_mix(m->z, 0);
        list->step[i] = (kw_sampler_step){ kw_noise_mix(m->z, t), to >= 0 ? kw_noise_mix(m->z, to) : end, t };
    }
    list->scale = 1;
    list->clip = m->o->sampler->lists == KW_LISTS_DDIM ? m->z->spec.clip : 0;
    return KW_OK;
}

static kw_status a1111_ddim_list(maker *m, step_list *list)
{
    fill_levels(m, A1111_LEAST_ABAR);
    int N = m->z->n, stride = N / m->o->steps, count = stride ? (N - 1) / stride : 0;
    if (count < 1)
        return kw_fail(m->e, KW_EUSAGE, "%s with A1111's steps: %d steps are not possible (2 to %d)",
                       m->o->sampler->label, m->o->steps, N);
    list->n = count;                                         /* above N/2 steps this is N - 1, there too */
    for (int i = 0; i < list->n; i++) {
        int at = count - i, t = KW_MIN(at * stride + 1, N - 1), to = KW_MIN((at - 1) * stride + 1, N - 1);
        list->step[i] = (kw_sampler_step){ kw_noise_mix(m->z, t), kw_noise_mix(m->z, to), t };
    }
    list->scale = 1;
    return KW_OK;
}

/* ---- the choice -------------------------------------------------------------------------------------- */

/* what "diffusers" means: the file's word, else the default of diffusers' scheduler class */
static kw_spacing model_spacing(const maker *m)
{
    if (m->z->spec.spacing != KW_SPACING_AUTO)
        return m->z->spec.spacing;
    kw_lists kind = m->o->sampler->lists;
    return kind == KW_LISTS_DDIM || kind == KW_LISTS_PLMS ? KW_SPACING_LEADING : KW_SPACING_LINSPACE;
}

/* A1111's own lists; with a schedule that was wished for all are k-samplers */
static kw_status a1111_list(maker *m, step_list *list)
{
    switch (kw_sigma_schedule_plain(m->o->schedule) ? m->o->sampler->lists : KW_LISTS_EULER) {
    case KW_LISTS_DDIM: case KW_LISTS_PLMS: return a1111_ddim_list(m, list);
    case KW_LISTS_UNIPC:
        fill_levels(m, A1111_LEAST_ABAR);
        kw_list_unipc(m->z, m->o, m->level, list);
        return KW_OK;
    default: return k_list(m, list);
    }
}

static kw_status choose(maker *m, step_list *list)
{
    kw_spacing spacing = m->o->spacing;
    kw_lists kind = m->o->sampler->lists;
    bool plain = kw_sigma_schedule_plain(m->o->schedule);
    list->diffusers = spacing != KW_SPACING_A1111;
    if (!list->diffusers)
        return a1111_list(m, list);
    if (spacing == KW_SPACING_DIFFUSERS && m->z->spec.beyond)
        return kw_fail(m->e, KW_EUSAGE, "spacing \"diffusers\": the model's %s is not supported", m->z->spec.beyond);
    if (spacing == KW_SPACING_DIFFUSERS)
        spacing = model_spacing(m);
    bool spreads = kind == KW_LISTS_EULER || kind == KW_LISTS_KDPM || kind == KW_LISTS_DPM || kind == KW_LISTS_UNIPC;
    if (!plain && !(spreads && is_spread(m)))
        return kw_fail(m->e, KW_EUSAGE, "%s has %s noise levels with spacing \"a1111\" only", m->o->sampler->label,
                       m->o->schedule->label);
    switch (kind) {
    case KW_LISTS_DDIM: case KW_LISTS_PLMS: return ddim_list(m, spacing, list);
    case KW_LISTS_DPM: case KW_LISTS_UNIPC: return dpm_list(m, spacing, list);
    case KW_LISTS_LCM:
        fill_levels(m, DIFFUSERS_LEAST_ABAR);
        return kw_list_lcm(m->z, m->o, list, m->e);
    default: return euler_list(m, spacing, list);
    }
}

kw_status kw_step_list_build(kw_arena *a, const kw_noise *z, const kw_sampling_options *o, step_list *list, kw_err *e)
{
    size_t n = (size_t)KW_MAX(o->steps, z->n) + 1;          /* DDIM as A1111 may take more than asked for */
    maker m = { .z = z, .o = o, .e = e, .level = kw_alloc_array(a, (size_t)z->n, sizeof(double)), .list = list,
                .sigma = kw_alloc_array(a, n, sizeof(double)), .t = kw_alloc_array(a, n, sizeof(double)) };
    *list = (step_list){ .step = kw_alloc_array(a, n, sizeof *list->step), .level = m.level, .n_levels = z->n,
                         .stride = 1 };
    if (!m.level || !m.sigma || !m.t || !list->step)
        return kw_fail(e, KW_ENOMEM, "sampling: no memory for %d steps", o->steps);
    KW_TRY(choose(&m, list));
    if (z->spec.predict == KW_PREDICT_EPS && list->step[0].from.a <= 0)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, "this model predicts noise and would start from pure noise (zero "
                                    "terminal SNR): its first step has no answer"),
                         "use spacing \"a1111\" with Euler or DPM++ 2M, or a model with v prediction");
    return KW_OK;
}
