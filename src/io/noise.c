/* noise.c - the noise schedule a model was trained with: scheduler_config.json, with each class's own defaults. */
#include "source_internal.h"

#include <math.h>
#include <string.h>

/* What diffusers assumes for fields that the file lacks. All: betas 0.0001 to 0.02, linear, 1000 steps, epsilon. */
static const struct { const char *class_name, *spacing; bool to_one, clip; } classes[] = {
    { "DDPMScheduler",                  "leading",  true,  true },
    { "DDIMScheduler",                  "leading",  true,  true },
    { "PNDMScheduler",                  "leading",  false, false },
    { "EulerDiscreteScheduler",         "linspace", false, false },
    { "EulerAncestralDiscreteScheduler", "linspace", false, false },
    { "LMSDiscreteScheduler",           "linspace", false, false },
    { "HeunDiscreteScheduler",          "linspace", false, false },
    { "DPMSolverMultistepScheduler",    "linspace", false, false },
    { "DPMSolverSinglestepScheduler",   "linspace", false, false },
    { "UniPCMultistepScheduler",        "linspace", false, false },
};

static const kw_noise_config usual = {    /* Stable Diffusion 1.x and 2.x, SDXL */
    .beta_start = 0.00085, .beta_end = 0.012, .beta_schedule = "scaled_linear", .prediction_type = "epsilon",
    .timestep_spacing = "leading", .num_train_timesteps = 1000, .steps_offset = 1, .is_guess = true,
};

typedef struct { kw_source *s; json_t *json; kw_err *e; } reader;

static kw_status bad(reader *r, const char *key)
{
    return kw_fail(r->e, KW_EDATA, N_("%s: the scheduler's configuration has an unusable value for \"%s\""),
                   r->s->path, key);
}

static json_t *given(reader *r, const char *key)
{
    json_t *v = json_object_get(r->json, key);
    return json_is_null(v) ? NULL : v;
}

static kw_status number(reader *r, const char *key, double least, double most, double *v)
{
    json_t *j = given(r, key);
    if (!j)
        return KW_OK;
    *v = json_number_value(j);
    return json_is_number(j) && *v >= least && *v <= most ? KW_OK : bad(r, key);
}

static kw_status whole(reader *r, const char *key, int least, int most, int *v)
{
    double d = *v;
    KW_TRY(number(r, key, least, most, &d));
    *v = (int)d;
    return *v == d ? KW_OK : bad(r, key);
}

static kw_status truth(reader *r, const char *key, bool *v)
{
    json_t *j = given(r, key);
    if (!j)
        return KW_OK;
    *v = json_is_true(j);
    return json_is_boolean(j) ? KW_OK : bad(r, key);
}

static kw_status choice(reader *r, const char *key, const char *const *among, size_t n, const char **v)
{
    json_t *j = given(r, key);
    const char *text = json_string_value(j);
    for (size_t i = 0; text && i < n; i++)
        if (!strcmp(text, among[i])) {
            *v = among[i];
            return KW_OK;
        }
    return j ? bad(r, key) : KW_OK;
}

static void class_defaults(json_t *json, kw_noise_config *c)
{
    const char *name = json_string_value(json_object_get(json, "_class_name"));
    *c = (kw_noise_config){ .beta_start = 0.0001, .beta_end = 0.02, .beta_schedule = "linear",
                            .prediction_type = "epsilon", .timestep_spacing = "leading", .num_train_timesteps = 1000 };
    for (size_t i = 0; name && i < KW_LEN(classes); i++)
        if (!strcmp(name, classes[i].class_name)) {
            c->timestep_spacing = classes[i].spacing;
            c->set_alpha_to_one = classes[i].to_one;
            c->clip_sample = classes[i].clip;
        }
}

static kw_status read(reader *r, kw_noise_config *c)
{
    static const char *const schedules[] = { "linear", "scaled_linear", "squaredcos_cap_v2" };
    static const char *const predictions[] = { "epsilon", "v_prediction", "sample" };
    static const char *const spacings[] = { "leading", "trailing", "linspace" };
    if (given(r, "trained_betas"))
        return bad(r, "trained_betas");
    KW_TRY(number(r, "beta_start", 1e-9, 0.999, &c->beta_start));
    KW_TRY(number(r, "beta_end", 1e-9, 0.999, &c->beta_end));
    KW_TRY(choice(r, "beta_schedule", schedules, KW_LEN(schedules), &c->beta_schedule));
    KW_TRY(choice(r, "prediction_type", predictions, KW_LEN(predictions), &c->prediction_type));
    KW_TRY(choice(r, "timestep_spacing", spacings, KW_LEN(spacings), &c->timestep_spacing));
    KW_TRY(whole(r, "num_train_timesteps", 1, 1000000, &c->num_train_timesteps));
    KW_TRY(whole(r, "steps_offset", 0, 1000, &c->steps_offset));
    KW_TRY(truth(r, "rescale_betas_zero_snr", &c->rescale_betas_zero_snr));
    KW_TRY(truth(r, "set_alpha_to_one", &c->set_alpha_to_one));
    return truth(r, "clip_sample", &c->clip_sample);
}

/* ---- eps or v, where no configuration tells ---------------------------------------------------------------------- */

/* The spread of one bias tells SD 2's two kinds apart: above 0.09 in v models (a rule of thumb of ComfyUI's). */
static bool looks_like_v(kw__entry *one)
{
    float v[4096];
    const kw_tensor *t = one ? &one->t : NULL;
    size_t n = t ? (size_t)kw_tensor_count(t) : 0;
    if (!n || n > KW_LEN(v))
        return false;
    kw__entry_fill(one);
    kw_convert(KW_F32, v, t->dtype, t->data, n);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i];
        squares += (double)v[i] * v[i];
    }
    double mean = sum / (double)n;
    return sqrt(fmax(0, squares / (double)n - mean * mean)) > 0.09;
}

/* Markers that trainers put beside the weights: empty tensors v_pred, and ztsnr for a schedule that ends in noise. */
static bool has_marker(const kw_tensors *t, const char *name)
{
    return t && kw_tensors_find(t, name);
}

static kw_status guess_sd2(kw_source *s, kw_err *e)
{
    const char *name = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias";
    json_t *unet = s->parts[KW_PART_UNET].config;
    bool v = json_integer_value(json_object_get(unet, "in_channels")) == 4  /* its inpainting model predicts noise */
        && looks_like_v(kw__part_entry(s, KW_PART_UNET, name));
    if (v && s->parts[KW_PART_UNET].inferred && json_object_set_new(unet, "sample_size", json_integer(96)))
        return kw__no_memory(e, s->path);
    s->noise.prediction_type = v ? "v_prediction" : "epsilon";
    s->noise.prediction_from = N_("a guess from the weights");
    return kw__note(s, e, N_("the file does not say what the model predicts: %s is a guess from its weights"),
                    s->noise.prediction_type);
}

static kw_status find_prediction(kw_source *s, kw_err *e)
{
    const kw_tensors *file = s->parts[KW_PART_UNET].file;
    const char *said = file ? kw_tensors_meta(file, "modelspec.prediction_type") : NULL;
    json_t *width = json_object_get(s->parts[KW_PART_UNET].config, "cross_attention_dim");
    if (has_marker(file, "v_pred")) {
        s->noise.prediction_type = "v_prediction";
        s->noise.prediction_from = N_("the marker v_pred in the file");
        s->noise.prediction_known = true;
        if (has_marker(file, "ztsnr")) {
            s->noise.rescale_betas_zero_snr = true;
            s->noise.timestep_spacing = "trailing";
        }
        return KW_OK;
    }
    if (said) {
        s->noise.prediction_type = *said == 'v' ? "v_prediction" : "epsilon";
        s->noise.prediction_from = N_("the file's metadata (modelspec)");
        s->noise.prediction_known = true;
        return KW_OK;
    }
    return json_integer_value(width) == 1024 ? guess_sd2(s, e) : KW_OK;
}

kw_status kw__read_noise(kw_source *s, kw_err *e)
{
    reader r = { s, s->scheduler, e };
    if (s->scheduler) {
        class_defaults(s->scheduler, &s->noise);
        s->noise.prediction_from = given(&r, "prediction_type") ? N_("the scheduler's configuration")
                                                               : N_("the scheduler's default");
        s->noise.prediction_known = true;
        return read(&r, &s->noise);
    }
    s->noise = usual;
    s->noise.prediction_from = N_("the usual one, a guess");
    if (!s->parts[KW_PART_UNET].n)
        return KW_OK;
    KW_TRY(find_prediction(s, e));
    return kw__note(s, e, s->noise.rescale_betas_zero_snr
        ? N_("no scheduler configuration: Stable Diffusion's usual one is assumed (betas 0.00085 to 0.012, scaled "
             "linear, %s), ending in pure noise as the marker ztsnr says")
        : N_("no scheduler configuration: Stable Diffusion's usual one is assumed (betas 0.00085 to 0.012, scaled "
             "linear, %s)"), s->noise.prediction_type);
}
