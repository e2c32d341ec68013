/* rate.c - learning-rate schedules, as transformers' get_*_schedule_with_warmup. */
#include "optim.h"

#include <math.h>

double kw_rate_at(const kw_rate *r, int64_t step)
{
    if (step < r->warmup)
        return (double)step / (double)KW_MAX(r->warmup, 1);
    double t = (double)(step - r->warmup) / (double)KW_MAX(r->total - r->warmup, 1), f = 1;
    t = KW_MIN(t, 1);
    if (r->kind == KW_RATE_COSINE)
        f = 0.5 * (1 + cos(M_PI * t));
    if (r->kind == KW_RATE_LINEAR)
        f = 1 - t;
    return KW_MAX(f, r->floor);
}
