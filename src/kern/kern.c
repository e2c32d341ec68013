/* kern.c - which table of vector kernels runs: the best one the machine has, or the one asked for. */
#include "dnn.h"

#include <cpuid.h>
#include <omp.h>
#include <string.h>

extern const kw_kern kw_kern_scalar, kw_kern_avx2, kw_kern_avx512, kw_kern_avx512_bf16;

static bool has_scalar(void) { return true; }
static bool has_f16c(void)                /* clang 14's __builtin_cpu_supports does not know the name */
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
static bool has_avx512_bf16(void)         /* every such machine has the dot products of int8 too, and oneDNN wants both */
{
    unsigned a, b, c, d, more;
    return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && c >> 11 & 1 &&
           __get_cpuid_count(7, 1, &more, &b, &c, &d) && more >> 5 & 1;
}

static const struct {
    const kw_kern *kern;
    bool (*here)(void);
} tables[] = {                            /* best first */
    { &kw_kern_avx512_bf16, has_avx512_bf16 },
    { &kw_kern_avx512, has_avx512 },
    { &kw_kern_avx2, has_avx2 },
    { &kw_kern_scalar, has_scalar },
};

static const kw_kern *chosen;             /* written by kw_kern_choose before any kernel runs */
static const kw_kern *usual;              /* the best, found once: cpuid costs tens of microseconds in a virtual machine */

static const kw_kern *best(void)
{
    for (size_t i = 0; i < KW_LEN(tables); i++)
        if (tables[i].here())
            return tables[i].kern;
    return &kw_kern_scalar;
}

const kw_kern *kw_kern_get(void)
{
    if (chosen)
        return chosen;
    const kw_kern *k = __atomic_load_n(&usual, __ATOMIC_RELAXED);
    if (!k)                               /* two threads may both look: they find the same */
        __atomic_store_n(&usual, k = best(), __ATOMIC_RELAXED);
    return k;
}

kw_status kw_kern_choose(const char *isa, kw_err *e)
{
    if (!isa) {
        chosen = NULL;
        return KW_OK;
    }
    for (size_t i = 0; i < KW_LEN(tables); i++) {
        if (strcmp(tables[i].kern->isa, isa))
            continue;
        if (!tables[i].here()) {
            kw_status s = kw_fail(e, KW_EDEVICE, N_("this machine has no %s"), isa);
            return kw_advise(e, s, N_("the best it has is %s"), best()->isa);
        }
        chosen = tables[i].kern;
        return KW_OK;
    }
    kw_status s = kw_fail(e, KW_EUSAGE, N_("unknown instruction set '%s'"), isa);
    return kw_advise(e, s, N_("known are scalar, avx2, avx512, avx512_bf16"));
}

const char *kw_isa_best(void) { return best()->isa; }

kw_status kw_isa_choose(const char *isa, kw_err *e)
{
    KW_TRY(kw_kern_choose(isa, e));
    return isa && strcmp(isa, kw_isa_best()) ? kw_dnn_limit_isa(isa, e) : KW_OK;
}

void kw_threads_set(int n)
{
    omp_set_num_threads(n);
}

int kw_threads(void)
{
    return omp_get_max_threads();
}
