/* sampling.c - one sampling run as a state machine: the caller runs the network between two steps. */
#include "sampling.h"

#include <math.h>

struct kw_sampling {
    kw_sampling_options o;
    kw_predict predict;
    step_list list;
    int step;
    size_t n;
    float *x0, *noise;                    /* (n) x0 of the last step; noise only where the sampler injects */
};

/* every AUTO and NULL is settled here, once */
static kw_sampling_options settled(const kw_noise *z, const kw_sampling_options *o)
{
    kw_sampling_options r = *o;
    bool karras = kw_sigma_schedule_find("karras") == o->schedule;
    if (r.spacing == KW_SPACING_AUTO)                       /* DDIM with Karras levels has no list in diffusers */
        r.spacing = karras && o->sampler->lists == KW_LISTS_DDIM ? KW_SPACING_A1111 : o->sampler->spacing;
    if (!r.schedule && (r.spacing == KW_SPACING_A1111 || o->sampler->lists == KW_LISTS_DDIM))
        r.schedule = kw_sigma_schedule_find(o->sampler->schedule);
    if (!r.schedule)
        r.schedule = kw_sigma_schedule_find(z->spec.karras ? "karras" : "normal");
    if (r.eta < 0 || !o->sampler->uses_eta)
        r.eta = o->sampler->eta;
    return r;
}

static kw_lincomb combination(const kw_sampling *s, int step)
{
    kw_lincomb c = { 0 };
    const kw_sampler_step *at = &s->list.step[step];
    s->o.sampler->combine(at, step > s->o.first ? at - 1 : NULL, s->o.eta, &c);
    return c;
}

kw_status kw_sampling_start(kw_arena *a, const kw_noise *z, const kw_sampling_options *o, size_t n, kw_sampling **out,
                            kw_err *e)
{
    KW_ASSERT(o->sampler);
    if (o->steps < 1 || o->steps > KW_MAX_TRAIN_STEPS)
        return kw_fail(e, KW_EUSAGE, "%d steps: 1 to %d are possible", o->steps, KW_MAX_TRAIN_STEPS);
    if (!isfinite(o->eta) || o->eta > 1)
        return kw_fail(e, KW_EUSAGE, "eta %g: 0 to 1 is possible", o->eta);
    kw_sampling *s = kw_alloc(a, sizeof *s);
    if (!s)
        return kw_fail(e, KW_ENOMEM, "sampling: no memory");
    *s = (kw_sampling){ .o = settled(z, o), .predict = z->spec.predict, .n = n };
    KW_TRY(kw_step_list_build(a, z, &s->o, &s->list, e));
    if (o->first < 0 || o->first >= s->list.n)
        return kw_fail(e, KW_EUSAGE, "cannot start at step %d of %d", o->first, s->list.n);
    s->step = o->first;
    bool injects = false;
    for (int i = o->first; i < s->list.n; i++)
        injects |= kw_sampling_injects(s, i);
    s->x0 = kw_alloc_array(a, n, sizeof *s->x0);
    s->noise = injects ? kw_alloc_array(a, n, sizeof *s->noise) : NULL;
    if (!s->x0 || (injects && !s->noise))
        return kw_fail(e, KW_ENOMEM, "sampling: no memory for %zu numbers", n);
    *out = s;
    return KW_OK;
}

/* ---- what the caller asks between steps -------------------------------------------------------------- */

int kw_sampling_steps(const kw_sampling *s) { return s->list.n; }
int kw_sampling_step(const kw_sampling *s) { return s->step; }
bool kw_sampling_done(const kw_sampling *s) { return s->step == s->list.n; }
const float *kw_sampling_x0(const kw_sampling *s) { return s->x0; }
bool kw_sampling_injects(const kw_sampling *s, int step) { return combination(s, step).noise != 0; }

kw_sampler_step kw_sampling_at(const kw_sampling *s, int step)
{
    KW_ASSERT(step >= 0 && step < s->list.n);
    return s->list.step[step];
}

double kw_sampling_timestep(const kw_sampling *s) { return kw_sampling_at(s, s->step).t; }

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
    kw_mix m = kw_sampling_at(s, s->step).from;
    double r = 1 / sqrt(m.a * m.a + m.s * m.s);
    for (size_t i = 0; i < s->n; i++)
        in[i] = s->o.sampler->unit_variance ? x[i] : (float)(r * (double)x[i]);
}

/* ---- one step ---------------------------------------------------------------------------------------- */

/* in double, number by number: x may be 1000 times what the differences leave of it */
static bool move(kw_sampling *s, kw_lincomb c, float *x, const float *model)
{
    kw_split f = kw_split_factors(s->predict, s->list.step[s->step].from);
    double limit = s->list.clip > 0 ? s->list.clip : INFINITY, sum = 0;
    for (size_t i = 0; i < s->n; i++) {
        double now = (double)x[i], y = (double)model[i];
        double x0 = f.x0.x * now + f.x0.y * y, eps = f.eps.x * now + f.eps.y * y;
        x0 = x0 > limit ? limit : x0 < -limit ? -limit : x0;
        double next = c.x * now + c.x0 * x0 + c.eps * eps + c.old * (double)s->x0[i];
        if (c.noise != 0)
            next += c.noise * (double)s->noise[i];
        s->x0[i] = (float)x0;
        x[i] = (float)next;
        sum += next;
    }
    return isfinite(sum);
}

kw_status kw_sampling_next(kw_sampling *s, float *x, const float *model, kw_noise_fn noise, void *ctx, kw_err *e)
{
    KW_ASSERT(!kw_sampling_done(s));
    kw_lincomb c = combination(s, s->step);
    if (c.noise != 0) {
        KW_ASSERT(noise);
        KW_TRY(noise(ctx, s->step, s->noise, s->n, e));
    }
    if (!move(s, c, x, model))
        return kw_advise(e, kw_fail(e, KW_ENUMERIC, "the picture is no longer finite at step %d of %d", s->step + 1,
                                    s->list.n),
                         "try --dtype f32, a smaller CFG scale, or LoRA strengths closer to 1");
    s->step++;
    return KW_OK;
}
