/* delta_bias.c - what a delta makes of a bias; the formulas stand in delta.c. */
#include "lora_file.h"

static const struct { kw_role role; bool scaled, set; } biases[] = {
    { KW_ROLE_UP_BIAS, true, false }, { KW_ROLE_DIFF_B, false, false }, { KW_ROLE_B_NORM, false, false },
    { KW_ROLE_PLAIN_B, false, true },
};

bool kw_delta_has_bias(const kw_delta *d)
{
    bool any = d->t[KW_ROLE_IA3_L] && !d->on_input;   /* PEFT's scales all of an output */
    for (size_t i = 0; i < KW_LEN(biases); i++)
        any |= d->t[biases[i].role] != NULL;
    return any;
}

static double number(const kw_tensor *t, int64_t i)
{
    double v;
    kw_convert(KW_F64, &v, t->dtype, (const char *)t->data + (size_t)i * kw_dtype_size(t->dtype), 1);
    return v;
}

kw_status kw_delta_apply_bias(const kw_delta *d, double strength, float *bias, int64_t n, kw_err *e)
{
    const kw_tensor *l = d->t[KW_ROLE_IA3_L];
    for (int64_t k = 0; l && !d->on_input && kw_tensor_count(l) == n && k < n; k++)
        bias[k] = (float)((double)bias[k] * (1 + strength * (number(l, k) - 1)));
    for (size_t i = 0; i < KW_LEN(biases); i++) {
        const kw_tensor *t = d->t[biases[i].role];
        if (!t)
            continue;
        if (kw_tensor_count(t) != n)
            return kw_fail(e, KW_EDATA, N_("%s: made for a bias of %lld numbers, not %lld"), d->module,
                           (long long)kw_tensor_count(t), (long long)n);
        for (int64_t k = 0; k < n; k++) {
            double v = number(t, k);
            v = biases[i].set ? v - (double)bias[k] : biases[i].scaled ? v * d->scale : v;
            bias[k] = (float)((double)bias[k] + strength * v);
        }
    }
    return KW_OK;
}
