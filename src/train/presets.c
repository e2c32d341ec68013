/* presets.c - settings that suit a purpose. What the user says himself always wins. */
#include "train.h"

#include <string.h>

/*  preset, option, value  -  the rate and rank that trainers of SD 1.x settled on; cosine, so that the end is calm  */
static const struct { const char *preset, *option, *value; } rows[] = {
    { "character", "rank", "16" }, { "character", "learning-rate", "1e-4" },
    { "character", "lr-scheduler", "cosine" }, { "character", "max-grad-norm", "1" },
    { "character", "caption-dropout", "0.05" },
    { "style", "rank", "32" }, { "style", "alpha", "16" }, { "style", "learning-rate", "1e-4" },
    { "style", "lr-scheduler", "cosine" },
    { "style", "max-grad-norm", "1" }, { "style", "caption-dropout", "0.1" }, { "style", "flip", "yes" },
    { "object", "rank", "8" }, { "object", "learning-rate", "1e-4" },
    { "object", "lr-scheduler", "cosine" },
    { "object", "max-grad-norm", "1" }, { "object", "caption-dropout", "0.05" },
    { "plain", NULL, NULL },
};

kw_status kw_preset_apply(kw_options *o, const char *preset, kw_err *e)
{
    kw_nearest near = { .word = preset };
    bool known = false;
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        kw_nearest_try(&near, rows[i].preset);
        if (strcmp(rows[i].preset, preset))
            continue;
        known = true;
        if (rows[i].option)
            KW_TRY(kw_options_set(o, rows[i].option, rows[i].value, KW_FROM_PRESET, "--preset", e));
    }
    if (known)
        return KW_OK;
    kw_status s = kw_fail(e, KW_EUSAGE,
                          N_("--preset: '%s' is not known (one of: character, style, object, plain)"), preset);
    return near.best ? kw_advise(e, s, N_("did you mean '%s'?"), near.best) : s;
}
