/*
 * lists.c - the list of steps: which timesteps and noise levels belong to n steps.
 *
 *   A1111      k-samplers: k-diffusion's sigmas (get_sigmas, get_sigmas_karras), t by log interpolation
 *              DDIM:       t = 1 + i*(N/n), from the last down to the second: the first is landed on, never evaluated
 *   diffusers  EulerDiscrete: t leading/trailing/linspace, sigma by linear interpolation; Karras between its ends
 *              DPMSolverMultistep: n+1 whole timesteps less the last; Karras over the whole model, t rounded
 *              DDIM: whole timesteps, each landing on t - N/n
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
    double *level, *sigma, *t;            /* (z->n) model's sigmas; of the list */
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

static kw_status k_list(maker *m, step_list *list)
{
    fill_levels(m, A1111_LEAST_ABAR);
    list->n = m->o->steps;
    m->o->schedule->fill(m->level, m->z->n, list->n, m->sigma);
    for (int i = 0; i < list->n; i++)
        m->t[i] = kw_sigma_to_t(m->level, m->z->n, m->sigma[i]);
    sigma_steps(m, list);
    list->scale = m->o->sampler->unit_variance ? 1 : m->sigma[0];
    return KW_OK;
}

static bool is_karras(const maker *m) { return m->o->schedule == kw_sigma_schedule_find("karras"); }

static kw_status euler_list(maker *m, kw_spacing spacing, step_list *list)
{
    fill_levels(m, DIFFUSERS_LEAST_ABAR);
    KW_TRY(timesteps(m, spacing, m->o->steps, &list->n));
    for (int i = 0; i < list->n; i++) {                     /* numpy.interp; t is float32 there */
        double t = (double)(float)m->t[i];
        int low = KW_MIN((int)t, m->z->n - 2);
        m->sigma[i] = m->level[low] + (t - low) * (m->level[low + 1] - m->level[low]);
    }
    if (is_karras(m)) {
        double ends[2] = { m->sigma[list->n - 1], m->sigma[0] };
        m->o->schedule->fill(ends, 2, list->n, m->sigma);
        for (int i = 0; i < list->n; i++)
            m->t[i] = kw_sigma_to_t(m->level, m->z->n, m->sigma[i]);
    }
    sigma_steps(m, list);
    list->scale = spacing == KW_SPACING_LEADING ? sqrt(m->sigma[0] * m->sigma[0] + 1) : m->sigma[0];
    return KW_OK;
}

static kw_status dpm_list(maker *m, kw_spacing spacing, step_list *list)
{
    fill_levels(m, DIFFUSERS_LEAST_ABAR);
    KW_TRY(timesteps(m, spacing, m->o->steps + 1, &list->n));
    if (is_karras(m)) {
        m->o->schedule->fill(m->level, m->z->n, list->n, m->sigma);
        for (int i = 0; i < list->n; i++) {                 /* the cosine schedule's are cut, not rounded */
            double t = kw_sigma_to_t(m->level, m->z->n, m->sigma[i]);
            m->t[i] = m->z->spec.beta == KW_BETA_COSINE ? floor(t) : even(t);
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
    KW_TRY(timesteps(m, spacing, m->o->steps, &list->n));
    int stride = m->z->n / m->o->steps;
    for (int i = 0; i < list->n; i++) {
        int t = (int)even(m->t[i]), to = t - stride;
        kw_mix end = m->z->spec.alpha_one ? (kw_mix){ 1, 0 } : kw_noise_mix(m->z, 0);
        list->step[i] = (kw_sampler_step){ kw_noise_mix(m->z, t), to >= 0 ? kw_noise_mix(m->z, to) : end, t };
    }
    list->scale = 1;
    list->clip = m->z->spec.clip;
    return KW_OK;
}

static kw_status a1111_ddim_list(maker *m, step_list *list)
{
    int N = m->z->n, stride = N / m->o->steps, count = stride ? (N - 1) / stride : 0;
    if (count < 1)
        return kw_fail(m->e, KW_EUSAGE, "DDIM with A1111's steps: %d steps are not possible (2 to %d)", m->o->steps, N);
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
    return m->o->sampler->lists == KW_LISTS_DDIM ? KW_SPACING_LEADING : KW_SPACING_LINSPACE;
}

static kw_status choose(maker *m, step_list *list)
{
    kw_spacing spacing = m->o->spacing;
    kw_lists kind = m->o->sampler->lists;
    if (spacing == KW_SPACING_A1111)
        return kind == KW_LISTS_DDIM && !is_karras(m) ? a1111_ddim_list(m, list) : k_list(m, list);
    if (spacing == KW_SPACING_DIFFUSERS && m->z->spec.beyond)
        return kw_fail(m->e, KW_EUSAGE, "spacing \"diffusers\": the model's %s is not supported", m->z->spec.beyond);
    if (spacing == KW_SPACING_DIFFUSERS)
        spacing = model_spacing(m);
    if (kind == KW_LISTS_DDIM && is_karras(m))
        return kw_fail(m->e, KW_EUSAGE, "DDIM has Karras noise levels with spacing \"a1111\" only");
    return kind == KW_LISTS_DDIM ? ddim_list(m, spacing, list)
         : kind == KW_LISTS_DPM ? dpm_list(m, spacing, list) : euler_list(m, spacing, list);
}

kw_status kw_step_list_build(kw_arena *a, const kw_noise *z, const kw_sampling_options *o, step_list *list, kw_err *e)
{
    size_t n = (size_t)KW_MAX(o->steps, z->n);              /* DDIM as A1111 may take more than asked for */
    maker m = { .z = z, .o = o, .e = e, .level = kw_alloc_array(a, (size_t)z->n, sizeof(double)),
                .sigma = kw_alloc_array(a, n, sizeof(double)), .t = kw_alloc_array(a, n, sizeof(double)) };
    *list = (step_list){ .step = kw_alloc_array(a, n, sizeof *list->step) };
    if (!m.level || !m.sigma || !m.t || !list->step)
        return kw_fail(e, KW_ENOMEM, "sampling: no memory for %d steps", o->steps);
    KW_TRY(choose(&m, list));
    if (z->spec.predict == KW_PREDICT_EPS && list->step[0].from.a <= 0)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, "this model predicts noise and would start from pure noise (zero "
                                    "terminal SNR): its first step has no answer"),
                         "use spacing \"a1111\" with Euler or DPM++ 2M, or a model with v prediction");
    return KW_OK;
}
