/*
 * run_cost.c - what a run will take: memory and time of its largest bucket, by the peak measured here (run/run.h).
 *
 *     time = steps x (micro-batches + update) + held-out losses + sample pictures + the sheet of LoRAs
 *
 * A picture's step is the network forward, twice with guidance; decoding it is left out.
 */
#include "run_internal.h"

#include <omp.h>

/* FLOP/s of multiply-adds on registers, all threads, for a tenth of a second: best of three, others only slow it. */
static double measure_peak(void)
{
    int64_t rounds = 1 << 14;
    double best = 0;
    for (int good = 0; good < 3;) {
        double done = 0, start = kw_now();
#pragma omp parallel reduction(+ : done)
        done += kw_kern_get()->peak(KW_PEAK_F32, rounds);
        double took = kw_now() - start;
        if (done <= 0)
            return 0;
        if (took < 0.02 && rounds < INT64_C(1) << 40) {
            rounds *= 2;
            continue;
        }
        best = KW_MAX(best, done / took);
        good++;
    }
    return best;
}

/* Only the sizes of this batch matter. */
kw_status kw__run_forecast(kw_run *r, kw_err *e)
{
    static const float some;
    static const int64_t id;
    const kw_sd *sd = kw_trainer_base(r->trainer);
    int f = r->vae ? 1 : kw_vae_factor(&sd->vae), w = 0, h = 0;
    for (size_t i = 0; i < r->data->n_buckets; i++)
        if ((int64_t)r->data->buckets[i].w * r->data->buckets[i].h > (int64_t)w * h)
            w = r->data->buckets[i].w, h = r->data->buckets[i].h;
    kw_micro m = { .n = r->s.batch, .h = h / f, .w = w / f, .noise = &some };
    if (r->vae)
        m.image = &some;
    else
        m.tokens = KW_MAX(r->s.token_length / 75, 1) * kw_tokenizer_max_length(r->tokenizer);
    if (r->align)
        m.end = m.order = &id;
    if (r->learns_text || r->align)
        m.ids = m.ids2 = m.end2 = &id;
    else
        m.context = m.pooled = &some;
    m.sizes = m.beside = &some;
    KW_TRY(kw_trainer_forecast(r->trainer, &m, &r->cost, e));
    if (!r->vae && !r->align && kw_sd_inpaints(sd))
        KW_TRY(kw__run_encoder_work(r, w, h, &r->masked_work, e));
    r->masked_bytes = (double)m.h * m.w * 2 * sd->vae.latent * sizeof(float);
    r->speed = measure_peak();
    return KW_OK;
}

/* ---- how often what is done besides steps ------------------------------------------------------------------------ */

static int64_t times(int64_t of, int64_t every) { return every > 0 ? of / every : 0; }

/* Forward passes of one picture for held-out losses: of the base, as due, at the end. */
static double validations(const kw_run *r)
{
    if (!r->held_out)
        return 0;
    double each = (double)KW_MIN(kw_plan_steps(r->held_out), KW__VALIDATE_MOST) * (r->vae ? 1 : KW__VALIDATE_TIMES);
    int64_t every = r->s.validate_steps;
    return each * (double)(2 + times(r->steps - 1, every));
}

static int64_t epochs(const kw_run *r, int64_t every) { return times((r->steps - 1) / KW_MAX(r->per_epoch, 1), every); }

static double pictures(const kw_run *r)
{
    const char *prompts[KW__MOST_PROMPTS];
    int64_t each = r->vae ? 0 : (int64_t)kw__run_prompts(r, prompts);
    int64_t rounds = 2 + times(r->steps - 1, r->s.sample_steps) + epochs(r, r->s.sample_epochs);
    int64_t files = 1 + times(r->steps - 1, r->s.save_steps) + epochs(r, r->s.save_epochs);
    return each ? (double)(each * rounds + kw__sheet_pictures(r, files)) : 0;
}

/*
 * Masked pictures to encode over the whole run: every view's, or of each picture at most one for each of its masks (and
 * for its mirror image), and those held out.
 */
static double masked_pictures(const kw_run *r)
{
    double seen = (double)r->steps * r->s.accumulation * r->s.batch, held_out = 0;
    double most = (double)kw_data_count(r->data, false) * r->s.masks * (r->s.flip ? 2 : 1);
    if (r->held_out)
        held_out = (double)KW_MIN(kw_plan_steps(r->held_out), KW__VALIDATE_MOST) * KW__VALIDATE_TIMES;
    return (r->s.masks && !r->s.random_crop ? KW_MIN(seen, most) : seen) + held_out;
}

/* ---- the plan's lines -------------------------------------------------------------------------------------------- */

/* What the masks of an inpainting base cost: about n masked pictures go through the autoencoder. */
static void plan_masks(const kw_run *r, double n, kw_str *t)
{
    if (!(n > 0))
        return;
    if (r->s.masks && !r->s.random_crop)
        kw_str_printf(t, kw_translate(N_("masks:       %d for each picture; about %.0f masked pictures are encoded "
                                         "once and kept, %.1f MB")), r->s.masks, n, n * r->masked_bytes * 1e-6);
    else
        kw_str_printf(t, kw_translate(N_("masks:       another each time; about %.0f masked pictures are encoded")), n);
    if (r->speed > 0)
        kw_str_printf(t, kw_translate(N_(", %.1f minutes")), n * r->masked_work / r->speed / 60);
    kw_str_add(t, "\n");
}

void kw__run_plan_cost(const kw_run *r, kw_str *t)
{
    const kw_trainer_cost *c = &r->cost;
    double forward = c->forward / r->s.batch, guided = r->s.sample_cfg == 1 ? 1 : 2;
    double step = (c->work * r->s.accumulation + c->update) / r->speed;
    double steps = (double)r->steps * step, held_out = validations(r) * forward / r->speed;
    double drawn = pictures(r) * guided * r->s.sample_sampling_steps * forward / r->speed;
    double n = r->masked_work > 0 ? masked_pictures(r) : 0, masked = n > 0 ? n * r->masked_work / r->speed : 0;
    kw_str_printf(t, kw_translate(N_("memory:      %.2f GB in a step, with everything\n")), c->bytes * 1e-9);
    plan_masks(r, n, t);
    if (!(r->speed > 0))
        return;
    kw_str_printf(t, kw_translate(N_("time:        about %.1f minutes: steps %.1f (%.3g s each), held-out losses %.1f, "
                                     "pictures %.1f\n")),
                  (steps + held_out + drawn + masked) / 60, steps / 60, step, held_out / 60, drawn / 60);
    kw_str_printf(t, kw_translate(N_("speed:       %.1f GFLOP a step, %.0f GFLOP/s is the most that was measured "
                                     "here\n")),
                  (c->flops * r->s.accumulation) * 1e-9, r->speed * 1e-9);
}
