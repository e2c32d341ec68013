/* generate_sampling.h - what `kiwame generate` may be told about sampling and noise beside sampler, steps and seed. */
#ifndef KW_CLI_GENERATE_SAMPLING_H
#define KW_CLI_GENERATE_SAMPLING_H

#include "cli.h"
#include "diffusion/diffusion.h"

typedef struct {
    const char *seed_from;
    double gamma, cfg_rescale, churn, churn_from, churn_to, noise, least, most, variation_strength;
    uint64_t variation, noise_delta;
} kw_generate_sampling;

/* Rows of the command's table; C is its config struct, f its field of the struct above. */
#define KW_GENERATE_SAMPLING_ROWS(C, f) \
    KW_ROW_DOUBLE("cfg-rescale", C, f.cfg_rescale, 0, 0, 1, \
                  N_("how far guidance keeps the contrast of the prompt alone: 0.7 for zero terminal SNR"), \
                  .alias = "guidance-rescale"), \
    KW_ROW_DOUBLE("gamma", C, f.gamma, 0.3, 0, 1, N_("TCD: share of the noise that is put back")), \
    KW_ROW_DOUBLE("s-churn", C, f.churn, 0, 0, 1e6, \
                  N_("Euler, Heun, DPM2: noise added before steps (Karras 2022); shared out over all steps")), \
    KW_ROW_DOUBLE("s-tmin", C, f.churn_from, 0, 0, 1e6, N_("noise level from which on --s-churn adds noise")), \
    KW_ROW_DOUBLE("s-tmax", C, f.churn_to, 0, 0, 1e6, N_("noise level up to which --s-churn adds noise"), \
                  .word = "none", .word_is = 0), \
    KW_ROW_DOUBLE("s-noise", C, f.noise, 1, 0, 2, N_("factor on the noise a sampler adds")), \
    KW_ROW_DOUBLE("sigma-min", C, f.least, 0, 0, 1e6, N_("lowest noise level of the schedule"), .word = "model", \
                  .word_is = 0), \
    KW_ROW_DOUBLE("sigma-max", C, f.most, 0, 0, 1e6, N_("highest noise level of the schedule"), .word = "model", \
                  .word_is = 0)

#define KW_GENERATE_NOISE_ROWS(C, f) \
    KW_ROW_DOUBLE("variation-strength", C, f.variation_strength, 0, 0, 1, \
                  N_("how much of another seed's noise is mixed in; --count then counts variations"), \
                  .alias = "subseed-strength"), \
    KW_ROW_SEED("variation-seed", C, f.variation, 0, N_("that other seed, for --variation-strength"), \
                .alias = "subseed", .text = "random"), \
    KW_ROW_TEXT("seed-from", C, f.seed_from, NULL, \
                N_("draw the noise for a picture of this size, and use its middle"), .value = "WxH", \
                .alias = "seed-resize-from"), \
    KW_ROW_SEED("noise-delta", C, f.noise_delta, 0, \
                N_("added to the seed of what samplers put in: A1111's eta noise seed delta, ENSD"), .alias = "ensd")

/* "help" or "?" for a sampler or a schedule: is it a question? */
bool kw_asks_for_list(const char *name);
/* Prints all samplers, or all schedules, to stdout. */
void kw_list_samplers(const kw_cli *cli);
void kw_list_schedules(const kw_cli *cli);

/* "512x768" */
KW_MUST kw_status kw_seed_from(const char *text, int *width, int *height, kw_err *e);

/* Fields of infotext under A1111's keys, for what is not as usual; on the arena. Room for 16. */
size_t kw_sampling_meta(kw_arena *a, const kw_generate_sampling *g, const kw_sampler *s, uint64_t variation,
                        kw_meta *out);

#endif
