/* bench_time.c - runs between two looks at the peak of this machine. */
#include "bench.h"

#include <stdlib.h>

kw_peak kw_bench_kind(kw_dtype compute)
{
    return compute == KW_BF16 && kw_kern_get()->peak(KW_PEAK_BF16, 1) > 0 ? KW_PEAK_BF16 : KW_PEAK_F32;
}

double kw_bench_peak(const kw_bench_times *t) { return KW_MAX(t->before, t->after); }

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static kw_status runs(const kw_bench_work *w, double *each, kw_bench_times *t, kw_err *e)
{
    double start = kw_now(), from = start, to;
    if (w->start)
        w->start(w->ctx);
    for (t->n = 0; t->n < w->most && (t->n < w->least || from - start < w->seconds); from = to) {
        KW_TRY(w->run(w->ctx, e));
        to = kw_now();
        each[t->n++] = to - from;
    }
    t->sum = from - start;
    if (!t->n)
        return KW_OK;
    qsort(each, (size_t)t->n, sizeof *each, by_value);
    t->median = t->n % 2 ? each[t->n / 2] : 0.5 * (each[t->n / 2 - 1] + each[t->n / 2]);
    t->low = each[0];
    t->high = each[t->n - 1];
    return KW_OK;
}

kw_status kw_bench_time(const kw_bench_work *w, kw_bench_times *t, kw_err *e)
{
    double *each = malloc(sizeof *each * (size_t)KW_MAX(w->most, 1));
    kw_peak kind = kw_bench_kind(w->compute);
    kw_status s = each ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
    *t = (kw_bench_times){ .n = 0 };
    while (!s && !t->steady && t->tries < KW_BENCH_TRIES) {
        t->tries++;
        t->before = kw_peak_measure(kind, kw_threads(), w->peak_seconds);
        s = runs(w, each, t, e);
        t->after = kw_peak_measure(kind, kw_threads(), w->peak_seconds);
        t->steady = KW_MIN(t->before, t->after) >= 0.95 * KW_MAX(t->before, t->after);
    }
    free(each);
    return s;
}
