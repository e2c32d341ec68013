/* sampling.c - one sampling run as a state machine: the caller runs the network between two steps. */
#include "sampling.h"

#include <math.h>
#include <string.h>

struct kw_sampling {
    kw_sampling_options o;
    kw_predict predict;
    const kw_noise *z;
    step_list list;
    int step, stage, evaluated;
    kw_mix mix;                           /* of x now */
    double t;                             /* what the network is told now */
    double least, most;                   /* sigmas of the whole list */
    bool churned;                         /* this step's churn is done */
    size_t n;
    float *x0, *noise;                    /* (n) x0 of the last evaluation; noise only where the sampler injects */
    float *base, *past[KW_PAST];          /* (n) where the sampler wants them */
};

/* ---- what is asked --------------------------------------------------------------------------------------------- */

/* every AUTO and NULL is settled here, once */
static kw_sampling_options settled(const kw_noise *z, const kw_sampling_options *o)
{
    kw_sampling_options r = *o;
    kw_lists kind = o->sampler->lists;
    /* a list of its own, which knows no schedule */
    bool own = kind != KW_LISTS_EULER && kind != KW_LISTS_KDPM && kind != KW_LISTS_DPM;
    if (r.spacing == KW_SPACING_AUTO)                       /* DDIM with Karras levels has no list in diffusers */
        r.spacing = own && o->schedule && !kw_sigma_schedule_plain(o->schedule) ? KW_SPACING_A1111
                                                                                 : o->sampler->spacing;
    if (!r.schedule && (r.spacing == KW_SPACING_A1111 || (own && kind != KW_LISTS_UNIPC)))
        r.schedule = kw_sigma_schedule_find(o->sampler->schedule);
    if (!r.schedule)
        r.schedule = kw_sigma_schedule_find(z->spec.karras ? "karras" : "normal");
    if (r.eta < 0 || !o->sampler->uses_eta)
        r.eta = o->sampler->eta;
    if (r.gamma < 0)
        r.gamma = 0.3;
    if (!o->sampler->churns)
        r.churn = 0;
    return r;
}

static kw_status check(const kw_sampling_options *o, kw_err *e)
{
    KW_ASSERT(o->sampler);
    if (o->steps < 1 || o->steps > KW_MAX_TRAIN_STEPS)
        return kw_fail(e, KW_EUSAGE, "%d steps: 1 to %d are possible", o->steps, KW_MAX_TRAIN_STEPS);
    if (!isfinite(o->eta) || o->eta > 1)
        return kw_fail(e, KW_EUSAGE, "eta %g: 0 to 1 is possible", o->eta);
    if (!isfinite(o->gamma) || o->gamma > 1)
        return kw_fail(e, KW_EUSAGE, "gamma %g: 0 to 1 is possible", o->gamma);
    if (!isfinite(o->churn) || o->churn < 0 || !isfinite(o->noise_less))
        return kw_fail(e, KW_EUSAGE, "the noise a sampler adds must be a finite number");
    if (!isfinite(o->least) || !isfinite(o->most) || o->least < 0 || o->most < 0)
        return kw_fail(e, KW_EUSAGE, "noise levels from %g down to %g: both must be above 0", o->most, o->least);
    return KW_OK;
}

/* ---- formulas -------------------------------------------------------------------------------------------------- */

static kw_sampler_at place(const kw_sampling *s, int step, int stage)
{
    return (kw_sampler_at){ .steps = &s->list.step[step], .before = step - s->o.first, .after = s->list.n - 1 - step,
                            .stage = stage, .eta = s->o.eta, .gamma = s->o.gamma, .predict = s->predict,
                            .diffusers = s->list.diffusers, .abar = s->z->abar, .n_abar = s->z->n };
}

static bool second_of(const kw_sampling *s, int step, kw_mix *m)
{
    kw_sampler_at at = place(s, step, 0);
    return s->o.sampler->second && s->o.sampler->second(&at, m);
}

static kw_lincomb combination(const kw_sampling *s, int step, int stage, kw_lincomb *base)
{
    kw_lincomb c = { 0 };
    kw_sampler_at at = place(s, step, stage);
    *base = (kw_lincomb){ 0 };
    s->o.sampler->combine(&at, &c, base);
    if (s->o.sampler->uses_noise)
        c.noise *= 1 - s->o.noise_less;
    return c;
}

bool kw_sampling_injects(const kw_sampling *s, int step)
{
    kw_lincomb base;
    kw_mix m;
    return combination(s, step, 0, &base).noise != 0
           || (second_of(s, step, &m) && combination(s, step, 1, &base).noise != 0);
}

/*
 * Karras 2022, algorithm 2: before a step noise lifts sigma to sigma (1 + g), g = min(churn/n, sqrt 2 - 1), where sigma
 * is within the limits. The step then starts there; its timestep follows.
 */
static double churn_of(const kw_sampling *s, int step)
{
    double sigma = s->list.step[step].from.s, most = s->o.churn_to > 0 ? s->o.churn_to : INFINITY;
    bool within = sigma >= s->o.churn_from && sigma <= most;
    return within ? fmin(s->o.churn / s->list.n, sqrt(2) - 1) : 0;
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

/* Where x stands at a step's start, and the timestep for it. */
static void enter(kw_sampling *s)
{
    s->stage = 0;
    s->churned = false;
    if (kw_sampling_done(s))
        return;
    s->mix = s->list.step[s->step].from;
    s->t = s->list.step[s->step].t;
}

static kw_status memory(kw_sampling *s, kw_arena *a, kw_err *e)
{
    const kw_sampler *sampler = s->o.sampler;
    bool injects = s->o.churn > 0, short_of = false;
    for (int i = s->o.first; i < s->list.n; i++)
        injects |= kw_sampling_injects(s, i);
    s->x0 = kw_alloc_array(a, s->n, sizeof *s->x0);
    short_of |= !s->x0;
    if (injects)
        short_of |= !(s->noise = kw_alloc_array(a, s->n, sizeof *s->noise));
    if (sampler->second || sampler->keeps_base)
        short_of |= !(s->base = kw_alloc_array(a, s->n, sizeof *s->base));
    for (int i = 0; i < sampler->past; i++)
        short_of |= !(s->past[i] = kw_alloc_array(a, s->n, sizeof **s->past));
    return short_of ? kw_fail(e, KW_ENOMEM, "sampling: no memory for %zu numbers", s->n) : KW_OK;
}

static void span(kw_sampling *s)
{
    s->least = INFINITY;
    for (int i = 0; i < s->list.n; i++) {
        kw_mix ends[2] = { s->list.step[i].from, s->list.step[i].to };
        for (int k = 0; k < 2; k++)
            if (ends[k].s > 0 && ends[k].a > 0) {
                s->least = fmin(s->least, ends[k].s / ends[k].a);
                s->most = fmax(s->most, ends[k].s / ends[k].a);
            }
    }
}

kw_status kw_sampling_start(kw_arena *a, const kw_noise *z, const kw_sampling_options *o, size_t n, kw_sampling **out,
                            kw_err *e)
{
    KW_TRY(check(o, e));
    kw_sampling *s = kw_alloc(a, sizeof *s);
    if (!s)
        return kw_fail(e, KW_ENOMEM, "sampling: no memory");
    *s = (kw_sampling){ .o = settled(z, o), .predict = z->spec.predict, .z = z, .n = n };
    KW_TRY(kw_step_list_build(a, z, &s->o, &s->list, e));
    if (s->list.n < 1 || o->first < 0 || o->first >= s->list.n)
        return kw_fail(e, KW_EUSAGE, "cannot start at step %d of %d", o->first, s->list.n);
    span(s);
    s->step = o->first;
    enter(s);
    KW_TRY(memory(s, a, e));
    *out = s;
    return KW_OK;
}

/* ---- what the caller asks between steps -------------------------------------------------------------- */

int kw_sampling_steps(const kw_sampling *s) { return s->list.n; }
int kw_sampling_step(const kw_sampling *s) { return s->step; }
bool kw_sampling_done(const kw_sampling *s) { return s->step == s->list.n; }
const float *kw_sampling_x0(const kw_sampling *s) { return s->x0; }
int kw_sampling_evaluated(const kw_sampling *s) { return s->evaluated; }
double kw_sampling_timestep(const kw_sampling *s) { return s->t; }
kw_mix kw_sampling_mix(const kw_sampling *s) { return s->mix; }

int kw_sampling_evaluations(const kw_sampling *s)
{
    int n = 0;
    kw_mix m;
    for (int i = s->o.first; i < s->list.n; i++)
        n += 1 + second_of(s, i, &m);
    return n;
}

kw_sampler_step kw_sampling_at(const kw_sampling *s, int step)
{
    KW_ASSERT(step >= 0 && step < s->list.n);
    return s->list.step[step];
}

void kw_sampling_begin(const kw_sampling *s, float *x)
{
    double scale = s->o.first ? s->list.step[s->o.first].from.s : s->list.scale;
    for (size_t i = 0; i < s->n; i++)
        x[i] = (float)(scale * (double)x[i]);
}

void kw_sampling_begin_from(const kw_sampling *s, const float *x0, float *x)
{
    kw_add_noise(s->list.step[s->o.first].from, x0, x, x, s->n);
}

void kw_sampling_input(const kw_sampling *s, const float *x, float *in)
{
    kw_mix m = s->mix;
    double r = 1 / sqrt(m.a * m.a + m.s * m.s);
    for (size_t i = 0; i < s->n; i++)
        in[i] = s->o.sampler->unit_variance ? x[i] : (float)(r * (double)x[i]);
}

/* ---- noise ----------------------------------------------------------------------------------------------------- */

/* Samplers of two draws a step number them 2 step, 2 step + 1; all others by the step. */
static kw_status draw(kw_sampling *s, kw_mix to, kw_noise_fn noise, void *ctx, kw_err *e)
{
    const kw_sampler_step *at = &s->list.step[s->step];
    bool two = s->o.sampler->brownian && s->o.sampler->second;
    kw_noise_draw d = { .draw = two ? 2 * s->step + s->stage : s->step, .brownian = s->o.sampler->brownian,
                        .from = at->from.s / at->from.a, .to = to.s / to.a, .least = s->least, .most = s->most };
    KW_ASSERT(noise);
    return noise(ctx, &d, s->noise, s->n, e);
}

kw_status kw_sampling_churn(kw_sampling *s, float *x, kw_noise_fn noise, void *ctx, kw_err *e)
{
    if (kw_sampling_done(s) || s->stage || s->churned || s->o.churn <= 0)
        return KW_OK;
    kw_sampler_step *at = &s->list.step[s->step];
    double g = churn_of(s, s->step), lifted = at->from.s * (1 + g);
    KW_TRY(draw(s, at->to, noise, ctx, e));                 /* drawn in any case, as in k-diffusion */
    s->churned = true;
    if (g <= 0)
        return KW_OK;
    double up = sqrt(lifted * lifted - at->from.s * at->from.s) * (1 - s->o.noise_less);
    for (size_t i = 0; i < s->n; i++)
        x[i] = (float)((double)x[i] + up * (double)s->noise[i]);
    at->from.s = lifted;
    at->t = kw_step_list_t(&s->list, at->from);
    s->mix = at->from;
    s->t = at->t;
    return KW_OK;
}

/* ---- one evaluation -------------------------------------------------------------------------------------------- */

static double look(const float *v, size_t i) { return v ? (double)v[i] : 0; }

typedef struct { double x, base, x0, eps, answer, past[KW_PAST]; } point;

static double mixed(const kw_lincomb *c, const point *p)
{
    double sum = c->x * p->x + c->x0 * p->x0 + c->eps * p->eps + c->base * p->base + c->answer * p->answer;
    for (int k = 0; k < KW_PAST; k++)
        sum += c->past[k] * p->past[k];
    return sum;
}

/* what later steps will look back at: the first evaluation of each */
static void remember(kw_sampling *s, size_t i, const point *p)
{
    const kw_sampler *sampler = s->o.sampler;
    double now = sampler->past_of == KW_PAST_X0 ? p->x0 : sampler->past_of == KW_PAST_ANSWER && s->list.diffusers
               ? p->answer : p->eps;
    for (int k = sampler->past - 1; k > 0; k--)
        s->past[k][i] = s->past[k - 1][i];
    if (sampler->past)
        s->past[0][i] = (float)now;
}

/* in double, number by number: x may be 1000 times what the differences leave of it */
static bool move(kw_sampling *s, const kw_lincomb *c, const kw_lincomb *base, float *x, const float *model)
{
    kw_split f = kw_split_factors(s->predict, s->mix);
    double limit = s->list.clip > 0 ? s->list.clip : INFINITY, sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        point p = { .x = (double)x[i], .answer = (double)model[i], .base = look(s->base, i) };
        p.x0 = f.x0.x * p.x + f.x0.y * p.answer;
        p.eps = f.eps.x * p.x + f.eps.y * p.answer;
        p.x0 = p.x0 > limit ? limit : p.x0 < -limit ? -limit : p.x0;
        for (int k = 0; k < KW_PAST; k++)
            p.past[k] = look(s->past[k], i);
        double next = mixed(c, &p);
        if (c->noise != 0)
            next += c->noise * (double)s->noise[i];
        if (s->o.sampler->keeps_base)
            s->base[i] = (float)mixed(base, &p);
        if (!s->stage)
            remember(s, i, &p);
        s->x0[i] = (float)p.x0;
        x[i] = (float)next;
        sum += next;
    }
    return isfinite(sum);
}

kw_status kw_sampling_next(kw_sampling *s, float *x, const float *model, kw_noise_fn noise, void *ctx, kw_err *e)
{
    KW_ASSERT(!kw_sampling_done(s));
    kw_lincomb base, c = combination(s, s->step, s->stage, &base);
    kw_mix middle;
    bool again = !s->stage && second_of(s, s->step, &middle);
    if (c.noise != 0)
        KW_TRY(draw(s, again ? middle : s->list.step[s->step].to, noise, ctx, e));
    if (again)
        memcpy(s->base, x, s->n * sizeof *x);
    if (!move(s, &c, &base, x, model))
        return kw_advise(e, kw_fail(e, KW_ENUMERIC, "the picture is no longer finite at step %d of %d", s->step + 1,
                                    s->list.n),
                         "try --dtype f32, a smaller CFG scale, or LoRA strengths closer to 1");
    s->evaluated++;
    if (again) {
        s->stage = 1;
        s->mix = middle;
        s->t = kw_step_list_t(&s->list, middle);
        return KW_OK;
    }
    s->step++;
    enter(s);
    return KW_OK;
}
