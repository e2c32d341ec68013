/* generate_sizes.c - the sizes that SDXL is told beside the words: --original-size, --crop, --target-size. */
#include "generate.h"

#include <limits.h>
#include <stdlib.h>

enum { MOST = 65536 };

bool kw_read_pair(const char *text, char between, int least, int most, int *x, int *y)
{
    char *end;
    long a = strtol(text, &end, 10);
    if (end == text || (*end != between && !(between == 'x' && *end == 'X')))
        return false;
    const char *second = end + 1;
    long b = strtol(second, &end, 10);
    *x = (int)KW_MIN(KW_MAX(a, INT_MIN), INT_MAX);
    *y = (int)KW_MIN(KW_MAX(b, INT_MIN), INT_MAX);
    return end > second && !*end && a >= least && b >= least && a <= most && b <= most;
}

static kw_status pair(const char *option, const char *text, char between, int least, int *x, int *y, kw_err *e)
{
    if (!text || kw_read_pair(text, between, least, MOST, x, y))
        return KW_OK;
    kw_status s = kw_fail(e, KW_EUSAGE, N_("--%s: '%s' is not two numbers of %d to %d"), option, text, least, MOST);
    return kw_advise(e, s, between == 'x' ? N_("for example 1024x1024") : N_("for example 0,128: left, top"));
}

kw_status kw_generate_sizes(const kw_generate_config *c, const kw_pipeline *p, kw_sizes *out, kw_err *e)
{
    *out = (kw_sizes){ 0 };
    if (!c->original_size && !c->crop && !c->target_size)
        return KW_OK;
    if (!kw_sd_pooled_width(kw_pipeline_base(p)) && c->from)
        return KW_OK;                     /* SDXL's picture, drawn with a base that is told no sizes */
    if (!kw_sd_pooled_width(kw_pipeline_base(p)))
        return kw_fail(e, KW_EUSAGE, N_("--original-size, --crop and --target-size: only SDXL is told sizes"));
    KW_TRY(pair("original-size", c->original_size, 'x', 1, &out->original_w, &out->original_h, e));
    KW_TRY(pair("crop", c->crop, ',', 0, &out->crop_x, &out->crop_y, e));
    return pair("target-size", c->target_size, 'x', 1, &out->target_w, &out->target_h, e);
}

size_t kw_generate_sizes_text(const kw_generate_config *c, const kw_pipeline *p, kw_meta out[3])
{
    const kw_meta rows[] = { { "Original size", c->original_size }, { "Crop", c->crop },
                             { "Target size", c->target_size } };
    size_t n = 0, most = kw_sd_pooled_width(kw_pipeline_base(p)) ? KW_LEN(rows) : 0;
    for (size_t i = 0; i < most; i++)
        if (rows[i].value)
            out[n++] = rows[i];
    return n;
}
