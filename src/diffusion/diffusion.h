/*
 * diffusion.h - noise schedules, training targets, samplers. Host code: a few scalars per step, linear combinations of
 * arrays; it knows nothing of networks. Notation, after the DDPM and DDIM papers (Ho 2020, Song 2021):
 *
 *     x_t = a_t x_0 + s_t eps,    a^2 = alphas_cumprod[t],  s^2 = 1 - a^2,   sigma = s/a,   v = a eps - s x_0
 *
 *     kw_noise_spec c = kw_noise_spec_default();             or kw_noise_spec_read(.../scheduler_config.json)
 *     kw_noise *noise;
 *     KW_TRY(kw_noise_build(arena, &c, &noise, e));
 *     kw_sampling_options o = { .sampler = kw_sampler_find("Euler a"), .steps = 20, .eta = -1 };
 *     kw_sampling *s;
 *     KW_TRY(kw_sampling_start(arena, noise, &o, n, &s, e));
 *     for (kw_sampling_begin(s, x); !kw_sampling_done(s); ) {  x holds unit noise before
 *         KW_TRY(kw_sampling_churn(s, x, inject, ctx, e));
 *         kw_sampling_input(s, x, in);                         what the network sees, and the timestep it is told:
 *         network(in, kw_sampling_timestep(s), out);
 *         KW_TRY(kw_sampling_next(s, x, out, inject, ctx, e));
 *         preview(kw_sampling_x0(s));
 *     }                                                        x is the latent
 */
#ifndef KW_DIFFUSION_H
#define KW_DIFFUSION_H

#include "base/base.h"
#include "io/io.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what scheduler_config.json says ----------------------------------------------------------------- */

typedef enum { KW_BETA_LINEAR, KW_BETA_SCALED_LINEAR, KW_BETA_COSINE, KW_BETA_TRAINED } kw_beta;
typedef enum { KW_PREDICT_EPS, KW_PREDICT_V, KW_PREDICT_X0 } kw_predict;

/*
 * Which list of timesteps and sigmas belongs to n steps. AUTO: as A1111; DDIM and TCD as diffusers.
 * A1111: k-diffusion's lists. DIFFUSERS: the list that diffusers' scheduler of this sampler makes from this model's
 * configuration. The last three: diffusers' lists of that name (table 2 of "Common diffusion noise schedules and sample
 * steps are flawed", Lin 2023), whatever the configuration says.
 */
#define KW_SPACING_MAP(X) \
    X(AUTO, "auto", N_("as A1111; DDIM and TCD as the model's configuration says")) \
    X(A1111, "a1111", N_("the steps A1111 and k-diffusion take")) \
    X(DIFFUSERS, "diffusers", N_("the steps diffusers takes with this model's configuration")) \
    X(LEADING, "leading", N_("diffusers' \"leading\": every k-th step from the first one")) \
    X(TRAILING, "trailing", N_("diffusers' \"trailing\": every k-th step from the noisiest one")) \
    X(LINSPACE, "linspace", N_("diffusers' \"linspace\": evenly spaced, both ends included"))

typedef enum {
#define X(name, text, help) KW_SPACING_##name,
    KW_SPACING_MAP(X)
#undef X
    KW_N_SPACINGS
} kw_spacing;

const char *kw_spacing_name(kw_spacing s);
const char *kw_spacing_help(kw_spacing s);
bool kw_spacing_find(const char *name, kw_spacing *s);

enum { KW_MAX_TRAIN_STEPS = 100000 };

typedef struct {
    int n_steps;                          /* num_train_timesteps, 1000 */
    double beta_start, beta_end;          /* SD: 0.00085, 0.012 */
    kw_beta beta;                         /* SD: scaled_linear */
    const double *trained_betas;          /* (n_steps), for KW_BETA_TRAINED; not owned */
    kw_predict predict;
    bool zero_snr;                        /* rescale_betas_zero_snr */
    kw_spacing spacing;                   /* timestep_spacing; AUTO where the file is silent */
    int steps_offset;                     /* SD: 1 */
    bool alpha_one;                       /* set_alpha_to_one: DDIM ends at a = 1, else at alphas_cumprod[0] */
    bool karras;                          /* use_karras_sigmas */
    double clip;                          /* clip_sample_range where clip_sample is true, else 0; DDIM only */
    const char *beyond;                   /* a key that diffusers' steps depend on and ours do not, or NULL */
    bool sdxl;                            /* no key: the U-Net is SDXL's, "Align Your Steps" has other levels for it */
} kw_noise_spec;

/* SD 1.x: scaled_linear 0.00085-0.012, eps, leading with offset 1, alphas_cumprod[0] at the end, no clipping. */
kw_noise_spec kw_noise_spec_default(void);

/*
 * A scheduler_config.json, from a file or from n bytes of text (`shown` is its name in messages). Missing keys become
 * what diffusers takes, but latents are clipped only where the file says so or is DDIM's or DDPM's own. Refused by
 * name: other processes (flow matching, unknown betas or predictions), values out of range. trained_betas live on
 * the arena.
 */
KW_MUST kw_status kw_noise_spec_read(kw_arena *a, const char *path, kw_noise_spec *out, kw_err *e);
KW_MUST kw_status kw_noise_spec_parse(kw_arena *a, const char *shown, const char *text, size_t n, kw_noise_spec *out,
                                      kw_err *e);

/* The same from what io found beside a model's weights (kw_source_noise); trained betas are not in there. */
KW_MUST kw_status kw_noise_spec_of(const kw_noise_config *c, kw_noise_spec *out, kw_err *e);

/* The same as a DDIMScheduler file for a model folder; NULL when memory is gone. */
char *kw_noise_spec_text(kw_arena *a, const kw_noise_spec *c);

/* ---- the noise schedule ------------------------------------------------------------------------------ */

/*
 * alphas_cumprod as torch computes it in float32: linspace, square, cumulative product, rescaling; bit for bit without
 * zero_snr. With it torch takes MKL's square root, which is not rounded correctly: within 4e-6 of the value, 4e-7 of 1.
 */
typedef struct {
    kw_noise_spec spec;
    int n;                                /* = spec.n_steps */
    const double *abar;                   /* (n) the float32 values as doubles, falling; abar[n-1] = 0 with zero_snr */
    const float *abar_f32;                /* (n) */
} kw_noise;

KW_MUST kw_status kw_noise_build(kw_arena *a, const kw_noise_spec *c, kw_noise **out, kw_err *e);

typedef struct { double a, s; } kw_mix;   /* x = a x_0 + s eps */

kw_mix kw_noise_mix(const kw_noise *z, int t);              /* 0 <= t < n */
double kw_noise_sigma(const kw_noise *z, int t);            /* s/a; infinite where abar is 0 */
double kw_noise_snr(const kw_noise *z, int t);              /* a^2/s^2 */

/*
 * The factor on a sample's loss ("Efficient diffusion training via min-SNR weighting", Hang 2023), as in kohya and
 * diffusers: eps min(snr, gamma)/snr, v min(snr, gamma)/(snr + 1), x_0 min(snr, gamma). At snr 0 the eps weight is its
 * limit, 1.
 */
double kw_min_snr_weight(kw_predict p, double snr, double gamma);

/* n numbers each; `out` may be one of the inputs. */
void kw_add_noise(kw_mix m, const float *x0, const float *eps, float *out, size_t n);   /* a x_0 + s eps */
/* what the network should answer: eps, v or x_0 */
void kw_noise_target(kw_predict p, kw_mix m, const float *x0, const float *eps, float *out, size_t n);
/* Either result may be NULL. eps prediction at a = 0 has no x_0 (infinite). */
void kw_noise_split(kw_predict p, kw_mix m, const float *xt, const float *model, float *x0, float *eps, size_t n);

/* Classifier-free guidance (Ho and Salimans 2022): out = uncond + g (cond - uncond); `out` may be an input. */
void kw_guide(const float *cond, const float *uncond, double g, float *out, size_t n);

/* Lin 2023 (above), equations 15 and 16, one picture: guided *= 1 - phi + phi std(cond)/std(guided) */
void kw_guide_rescale(const float *cond, double phi, float *guided, size_t n);

/* ---- samplers: one file each, one line in samplers.def ----------------------------------------------- */

typedef struct kw_sampling kw_sampling;

enum { KW_PAST = 3 };                     /* how many evaluations back a sampler may look */

/* x*.x + base*.base + x0*.x0 + eps*.eps + answer*.answer + past[0]*.past[0] + ... + noise*.noise */
typedef struct { double x, base, x0, eps, answer, past[KW_PAST], noise; } kw_lincomb;

/* Where a step starts and lands, x = a x_0 + s eps on both sides. */
typedef struct {
    kw_mix from, to;
    double t;                             /* what the network is told; may be fractional */
} kw_sampler_step;

/* What the formula of a step may ask. steps[-before] .. steps[after] are those of this run, steps[0] is this one. */
typedef struct {
    const kw_sampler_step *steps;
    int before, after;
    int stage;                            /* 0; 1 when the network is asked a second time within the step */
    double eta, gamma;
    kw_predict predict;
    bool diffusers;                       /* the list is diffusers', and so are the details */
    const double *abar;  int n_abar;      /* the model's, by timestep */
} kw_sampler_at;

/* ANSWER: what the network said, in diffusers' lists; eps in others */
typedef enum { KW_PAST_X0, KW_PAST_EPS, KW_PAST_ANSWER } kw_past;

typedef enum {
    KW_LISTS_EULER, KW_LISTS_KDPM, KW_LISTS_DPM, KW_LISTS_DDIM, KW_LISTS_PLMS, KW_LISTS_UNIPC, KW_LISTS_LCM
} kw_lists;

typedef struct kw_sampler {
    const char *name;                     /* ComfyUI's name, "euler_ancestral" */
    const char *label;                    /* A1111's name, "Euler a": what goes into infotext */
    const char *aliases;                  /* further names, separated by commas */
    /* where A1111 has it as a setting of another sampler: that one's label, and the setting in infotext; else NULL */
    const char *known_as, *variant_key, *variant;
    const char *help, *paper;
    const char *schedule;                 /* the sigma schedule A1111's "Automatic" takes: "normal", "karras" */
    kw_lists lists;                       /* how diffusers' scheduler of this kind makes its list */
    kw_spacing spacing;                   /* what AUTO means here */
    bool unit_variance;                   /* x keeps a^2 + s^2 = 1 (DDIM); else a = 1 and s = sigma (k-diffusion) */
    double eta;                           /* noise put back, where the user does not say */
    bool uses_eta, uses_gamma, uses_noise;      /* options that have a meaning here: eta, gamma, s_noise */
    bool churns;                          /* noise may be added before a step: s_churn (Karras 2022, algorithm 2) */
    bool brownian;                        /* noise is the path of one Brownian motion over sigma */
    bool skips_last_but_one;              /* A1111's lists are made for a step more, the last sigma above 0 left out */
    int past;                             /* evaluations looked back at, at most KW_PAST */
    kw_past past_of;                      /* what past[] holds */
    bool keeps_base;                      /* `base` is written by the formula; else it is x at the start of the step */
    /* Where the network is asked a second time in this step, or NULL / false: nowhere. */
    bool (*second)(const kw_sampler_at *at, kw_mix *m);
    /* The next x, and the next base (UniPC): both from x, base, x0, eps, past as they are. */
    void (*combine)(const kw_sampler_at *at, kw_lincomb *c, kw_lincomb *base);
} kw_sampler;

extern const kw_sampler *const kw_samplers[];
extern const size_t kw_n_samplers;

/* By name, label or alias, any case, - and _ and blanks alike; NULL if unknown. A1111's joined names are found too:
   "DPM++ 2M Karras" sets *schedule (if not NULL) to "karras". */
const kw_sampler *kw_sampler_find(const char *name, const char **schedule);

/* What a schedule is made from: the model's sigmas, level[0] the least; and the ends, the model's unless others are
   wished for. */
typedef struct { const double *level; int n_levels; double least, most; bool sdxl; } kw_sigma_range;

/* Sigma schedules: the spread of noise levels over the steps. */
typedef struct {
    const char *name, *label;             /* A1111's; ComfyUI's ids among the aliases, separated by commas */
    const char *aliases, *help;
    /* n sigmas, falling; returns how many: "ddim", "beta_comfyui" may differ from n. Room for max(n, n_levels). */
    int (*fill)(const kw_sigma_range *r, int n, double *sigma);
    bool by_ends;                         /* needs nothing but least and most; diffusers has it too */
} kw_sigma_schedule;

extern const kw_sigma_schedule kw_sigma_schedules[];
extern const size_t kw_n_sigma_schedules;
const kw_sigma_schedule *kw_sigma_schedule_find(const char *name);    /* NULL if unknown */
bool kw_sigma_schedule_plain(const kw_sigma_schedule *s);   /* evenly spaced timesteps, as samplers with own lists */

/* k-diffusion's DiscreteSchedule: the fractional timestep of a sigma by interpolating log sigma, and back. */
double kw_sigma_to_t(const double *level, int n_levels, double sigma);
double kw_t_to_sigma(const double *level, int n_levels, double t);

/* ---- sampling ---------------------------------------------------------------------------------------- */

typedef struct {
    const kw_sampler *sampler;
    const kw_sigma_schedule *schedule;    /* NULL: A1111's lists: the sampler's; diffusers': the model's */
    kw_spacing spacing;
    int steps;
    double eta;                           /* negative: the sampler's own */
    double gamma;                         /* TCD; negative: 0.3 */
    double churn, churn_from, churn_to;   /* s_churn, s_tmin, s_tmax (0: no limit) of samplers that churn */
    double noise_less;                    /* 1 - s_noise: 0 leaves noise as it is */
    double least, most;                   /* ends of A1111's lists; 0: the model's own */
    int first;                            /* start at this step (picture to picture); 0: from pure noise */
} kw_sampling_options;

/* Which noise is put in: the draw-th of this run's, counted from the list's first step whatever the run's first. */
typedef struct {
    int draw;
    bool brownian;                        /* (W(to) - W(from))/sqrt(from - to) of one path; else fresh normals */
    double from, to;                      /* sigmas */
    double least, most;                   /* of the whole list, 0 apart */
} kw_noise_draw;

/* n numbers of variance 1. Asked for only where the sampler uses them. */
typedef kw_status (*kw_noise_fn)(void *ctx, const kw_noise_draw *d, float *noise, size_t n, kw_err *e);

/* Make the list of steps and the memory for n numbers (a whole batch is one array). Refused with a reason: step counts
   the lists cannot have, eps prediction where x is pure noise (zero terminal SNR). */
KW_MUST kw_status kw_sampling_start(kw_arena *a, const kw_noise *z, const kw_sampling_options *o, size_t n,
                                    kw_sampling **out, kw_err *e);

int kw_sampling_steps(const kw_sampling *s);                /* DDIM as A1111 may differ from the wish */
int kw_sampling_step(const kw_sampling *s);                 /* the step to come, or under way */
int kw_sampling_evaluated(const kw_sampling *s);            /* how often the network was asked in this run */
int kw_sampling_evaluations(const kw_sampling *s);          /* and will have been at its end */
bool kw_sampling_done(const kw_sampling *s);
kw_sampler_step kw_sampling_at(const kw_sampling *s, int step);
bool kw_sampling_injects(const kw_sampling *s, int step);   /* will noise be asked for at this step? */

void kw_sampling_begin(const kw_sampling *s, float *x);     /* unit noise -> x of the first step */
void kw_sampling_begin_from(const kw_sampling *s, const float *x0, float *x);  /* x: unit noise -> picture + noise */
kw_mix kw_sampling_mix(const kw_sampling *s);               /* of x as it is now */
double kw_sampling_timestep(const kw_sampling *s);
void kw_sampling_input(const kw_sampling *s, const float *x, float *in);        /* of unit variance; may be in place */
/*
 * One evaluation: x moves on, to the next step or to where the network is asked once more within this one. `model` is
 * the network's output (guided). noise may be NULL where no step injects.
 */
KW_MUST kw_status kw_sampling_next(kw_sampling *s, float *x, const float *model, kw_noise_fn noise, void *ctx,
                                   kw_err *e);
/* Before kw_sampling_input: adds the noise of s_churn where a step begins with it. */
KW_MUST kw_status kw_sampling_churn(kw_sampling *s, float *x, kw_noise_fn noise, void *ctx, kw_err *e);
/* (n) what the last evaluation took the picture to be: for previews */
const float *kw_sampling_x0(const kw_sampling *s);

#ifdef __cplusplus
}
#endif

#include "pipeline.h"

#endif
