/* config.c - scheduler_config.json, as diffusers writes it, into a kw_noise_spec and back. */
#include "diffusion.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct { const char *text; int value; } word;

static const word betas[] = { { "linear", KW_BETA_LINEAR }, { "scaled_linear", KW_BETA_SCALED_LINEAR },
                              { "squaredcos_cap_v2", KW_BETA_COSINE } };
static const word predictions[] = { { "epsilon", KW_PREDICT_EPS }, { "v_prediction", KW_PREDICT_V },
                                    { "sample", KW_PREDICT_X0 } };
static const word spacings[] = { { "leading", KW_SPACING_LEADING }, { "trailing", KW_SPACING_TRAILING },
                                 { "linspace", KW_SPACING_LINSPACE } };

kw_noise_spec kw_noise_spec_default(void)
{
    return (kw_noise_spec){ .n_steps = 1000, .beta_start = 0.00085, .beta_end = 0.012, .beta = KW_BETA_SCALED_LINEAR,
                              .predict = KW_PREDICT_EPS, .spacing = KW_SPACING_AUTO, .steps_offset = 1 };
}

/* NULL: not given, the value stays */
static kw_status find_word(const char *shown, const char *key, const char *text, const word *words, size_t n,
                           int *value, kw_err *e)
{
    for (size_t i = 0; text && i < n; i++)
        if (strcmp(text, words[i].text) == 0) {
            *value = words[i].value;
            return KW_OK;
        }
    return text ? kw_fail(e, KW_EDATA, "%s: %s \"%s\" is not supported", shown, key, text) : KW_OK;
}

/* ---- one key of the file; null counts as missing ----------------------------------------------------- */

typedef struct { const json_t *json; const char *shown; kw_err *e; } reader;

static const json_t *member(const reader *r, const char *key)
{
    const json_t *v = json_object_get(r->json, key);
    return json_is_null(v) ? NULL : v;
}

static kw_status read_number(const reader *r, const char *key, double low, double high, double *value)
{
    const json_t *v = member(r, key);
    if (!v)
        return KW_OK;
    if (!json_is_number(v) || !(json_number_value(v) >= low && json_number_value(v) <= high))
        return kw_fail(r->e, KW_EDATA, "%s: %s must be a number from %g to %g", r->shown, key, low, high);
    *value = json_number_value(v);
    return KW_OK;
}

static kw_status read_int(const reader *r, const char *key, int low, int high, int *value)
{
    double d = *value;
    KW_TRY(read_number(r, key, low, high, &d));
    if (d != floor(d))
        return kw_fail(r->e, KW_EDATA, "%s: %s must be a whole number", r->shown, key);
    *value = (int)d;
    return KW_OK;
}

static kw_status read_bool(const reader *r, const char *key, bool *value)
{
    const json_t *v = member(r, key);
    if (v && !json_is_boolean(v))
        return kw_fail(r->e, KW_EDATA, "%s: %s must be true or false", r->shown, key);
    if (v)
        *value = json_is_true(v);
    return KW_OK;
}

static kw_status read_word(const reader *r, const char *key, const word *words, size_t n, int *value)
{
    const json_t *v = member(r, key);
    if (v && !json_is_string(v))
        return kw_fail(r->e, KW_EDATA, "%s: %s must be a text", r->shown, key);
    return find_word(r->shown, key, v ? json_string_value(v) : NULL, words, n, value, r->e);
}

/* ---- the parts --------------------------------------------------------------------------------------- */

static kw_status read_trained_betas(kw_arena *a, const reader *r, kw_noise_spec *c)
{
    const json_t *v = member(r, "trained_betas");
    if (!v)
        return KW_OK;
    size_t n = json_array_size(v);
    if (n < 1 || n > KW_MAX_TRAIN_STEPS)
        return kw_fail(r->e, KW_EDATA, "%s: trained_betas must be a list of 1 to %d numbers", r->shown,
                       KW_MAX_TRAIN_STEPS);
    double *b = kw_alloc_array(a, n, sizeof *b);
    if (!b)
        return kw_fail(r->e, KW_ENOMEM, "%s: no memory", r->shown);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_array_get(v, i);
        b[i] = json_number_value(x);
        if (!json_is_number(x) || !(b[i] >= 0 && b[i] <= 1))
            return kw_fail(r->e, KW_EDATA, "%s: trained_betas[%zu] must be a number from 0 to 1", r->shown, i);
    }
    c->beta = KW_BETA_TRAINED;
    c->trained_betas = b;
    c->n_steps = (int)n;
    return KW_OK;
}

static kw_status read_process(kw_arena *a, const reader *r, kw_noise_spec *c)
{
    bool flow = false;
    const char *class = json_string_value(member(r, "_class_name"));
    KW_TRY(read_bool(r, "use_flow_sigmas", &flow));
    if (flow || (class && strstr(class, "FlowMatch")))
        return kw_fail(r->e, KW_EDATA, "%s: flow matching (%s) is not a Stable Diffusion 1.x or 2.x model", r->shown,
                       class ? class : "use_flow_sigmas");
    int beta = c->beta, predict = c->predict;
    KW_TRY(read_int(r, "num_train_timesteps", 2, KW_MAX_TRAIN_STEPS, &c->n_steps));
    KW_TRY(read_number(r, "beta_start", 0, 1, &c->beta_start));
    KW_TRY(read_number(r, "beta_end", 0, 1, &c->beta_end));
    KW_TRY(read_word(r, "beta_schedule", betas, KW_LEN(betas), &beta));
    KW_TRY(read_word(r, "prediction_type", predictions, KW_LEN(predictions), &predict));
    c->beta = (kw_beta)beta;
    c->predict = (kw_predict)predict;
    KW_TRY(read_trained_betas(a, r, c));
    return read_bool(r, "rescale_betas_zero_snr", &c->zero_snr);
}

static kw_status read_steps(const reader *r, kw_noise_spec *c)
{
    int spacing = KW_SPACING_AUTO;
    const char *class = json_string_value(member(r, "_class_name"));
    bool clips = class && (kw_starts_with(class, "DDIM") || kw_starts_with(class, "DDPM"));
    double range = 1;
    KW_TRY(read_word(r, "timestep_spacing", spacings, KW_LEN(spacings), &spacing));
    c->spacing = (kw_spacing)spacing;
    KW_TRY(read_int(r, "steps_offset", 0, KW_MAX_TRAIN_STEPS, &c->steps_offset));
    KW_TRY(read_bool(r, "set_alpha_to_one", &c->alpha_one));
    KW_TRY(read_bool(r, "use_karras_sigmas", &c->karras));
    KW_TRY(read_bool(r, "clip_sample", &clips));
    KW_TRY(read_number(r, "clip_sample_range", 1e-6, 1e6, &range));
    c->clip = clips ? range : 0;
    return KW_OK;
}

/* what diffusers' steps would follow and ours do not */
static kw_status read_beyond(const reader *r, kw_noise_spec *c)
{
    static const char *const switches[] = { "thresholding", "use_exponential_sigmas", "use_beta_sigmas",
                                            "use_lu_lambdas", "euler_at_final" };
    static const char *const plain[][2] = { { "interpolation_type", "linear" }, { "final_sigmas_type", "zero" },
                                            { "timestep_type", "discrete" } };
    for (size_t i = 0; i < KW_LEN(switches); i++) {
        bool on = false;
        KW_TRY(read_bool(r, switches[i], &on));
        if (on)
            c->beyond = switches[i];
    }
    for (size_t i = 0; i < KW_LEN(plain); i++) {
        const char *value = json_string_value(member(r, plain[i][0]));
        if (value && strcmp(value, plain[i][1]) != 0)
            c->beyond = plain[i][0];
    }
    if (member(r, "sigma_min") || member(r, "sigma_max"))
        c->beyond = "sigma_min";
    return KW_OK;
}

static kw_status from_json(kw_arena *a, const reader *r, kw_noise_spec *out)
{
    *out = (kw_noise_spec){ .n_steps = 1000, .beta_start = 0.0001, .beta_end = 0.02, .alpha_one = true };
    if (!json_is_object(r->json))
        return kw_fail(r->e, KW_EDATA, "%s: a scheduler configuration is a JSON object", r->shown);
    KW_TRY(read_process(a, r, out));
    KW_TRY(read_steps(r, out));
    return read_beyond(r, out);
}

kw_status kw_noise_spec_read(kw_arena *a, const char *path, kw_noise_spec *out, kw_err *e)
{
    json_t *json;
    KW_TRY(kw_json_read(a, path, &json, e));
    return from_json(a, &(reader){ json, path, e }, out);
}

kw_status kw_noise_spec_parse(kw_arena *a, const char *shown, const char *text, size_t n, kw_noise_spec *out, kw_err *e)
{
    json_t *json;
    KW_TRY(kw_json_parse(a, shown, text, n, &json, e));
    return from_json(a, &(reader){ json, shown, e }, out);
}

kw_status kw_noise_spec_of(const kw_noise_config *c, kw_noise_spec *out, kw_err *e)
{
    int beta = KW_BETA_SCALED_LINEAR, predict = KW_PREDICT_EPS, spacing = KW_SPACING_AUTO;
    KW_TRY(find_word("scheduler", "beta_schedule", c->beta_schedule, betas, KW_LEN(betas), &beta, e));
    KW_TRY(find_word("scheduler", "prediction_type", c->prediction_type, predictions, KW_LEN(predictions), &predict,
                     e));
    KW_TRY(find_word("scheduler", "timestep_spacing", c->timestep_spacing, spacings, KW_LEN(spacings), &spacing, e));
    *out = (kw_noise_spec){ .n_steps = c->num_train_timesteps, .beta_start = c->beta_start, .beta_end = c->beta_end,
                            .beta = (kw_beta)beta, .predict = (kw_predict)predict,
                            .zero_snr = c->rescale_betas_zero_snr, .spacing = (kw_spacing)spacing,
                            .steps_offset = c->steps_offset, .alpha_one = c->set_alpha_to_one,
                            .clip = c->clip_sample ? 1 : 0 };
    return KW_OK;
}

/* ---- back to text ------------------------------------------------------------------------------------ */

static const char *text_of(const word *words, size_t n, int value)
{
    for (size_t i = 0; i < n; i++)
        if (words[i].value == value)
            return words[i].text;
    return words[0].text;
}

static json_t *trained_betas(const kw_noise_spec *c)
{
    if (c->beta != KW_BETA_TRAINED)
        return json_null();
    json_t *list = json_array();
    for (int i = 0; i < c->n_steps; i++)
        json_array_append_new(list, json_real(c->trained_betas[i]));
    return list;
}

char *kw_noise_spec_text(kw_arena *a, const kw_noise_spec *c)
{
    json_t *j = json_pack("{s:s, s:s, s:i, s:f, s:f, s:s, s:o, s:s, s:b, s:s, s:i, s:b, s:b, s:f, s:b}",
        "_class_name", "DDIMScheduler", "_diffusers_version", "0.21.4",
        "num_train_timesteps", c->n_steps, "beta_start", c->beta_start, "beta_end", c->beta_end,
        "beta_schedule", text_of(betas, KW_LEN(betas), (int)c->beta), "trained_betas", trained_betas(c),
        "prediction_type", text_of(predictions, KW_LEN(predictions), (int)c->predict),
        "rescale_betas_zero_snr", (int)c->zero_snr,
        "timestep_spacing", text_of(spacings, KW_LEN(spacings), (int)c->spacing),
        "steps_offset", c->steps_offset, "set_alpha_to_one", (int)c->alpha_one,
        "clip_sample", (int)(c->clip > 0), "clip_sample_range", c->clip > 0 ? c->clip : 1.0, "thresholding", 0);
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    char *kept = text ? kw_sprintf(a, "%s\n", text) : NULL;
    free(text);
    json_decref(j);
    return kept;
}
