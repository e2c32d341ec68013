/*
 * numbers.c - numbers that no model has: NaN and infinity, tensors of zeros alone, numbers of an absurd size.
 *
 *   sign | exponent | fraction      exponent all ones: infinite or none (e4m3: only where the fraction is, too)
 *                                   exponent zero:     0, or below what the type holds in full
 */
#include "source_internal.h"

#include <string.h>

typedef struct { uint64_t bad, zero, faint, huge; } tally;

/* ones: the exponent's bits; last: the first pattern that is no number; large: the pattern of some 10^4. */
#define SCAN(name, type, magnitude, ones, last, large)                                                             \
    static tally name(const void *data, size_t n)                                                                  \
    {                                                                                                              \
        const type *x = data;                                                                                      \
        uint32_t bad = 0, zero = 0, faint = 0, huge = 0;                                                           \
        _Pragma("omp simd reduction(+ : bad, zero, faint, huge)") for (size_t i = 0; i < n; i++)                   \
        {                                                                                                          \
            const type v = x[i] & (magnitude);                                                                     \
            bad += v >= (last);                                                                                    \
            zero += v == 0;                                                                                        \
            faint += v < ((ones) & -(ones));                                                                       \
            huge += v >= (large);                                                                                  \
        }                                                                                                          \
        return (tally){ bad, zero, faint - zero, huge - bad };                                                     \
    }

SCAN(scan_f32, uint32_t, 0x7fffffff, 0x7f800000, 0x7f800000, 0x461c4000)
SCAN(scan_f64, uint64_t, 0x7fffffffffffffff, 0x7ff0000000000000, 0x7ff0000000000000, 0x40c3880000000000)
SCAN(scan_f16, uint16_t, 0x7fff, 0x7c00, 0x7c00, 0x70e2)
SCAN(scan_bf16, uint16_t, 0x7fff, 0x7f80, 0x7f80, 0x461c)
SCAN(scan_e4m3, uint8_t, 0x7f, 0x78, 0x7f, 0x7f)
SCAN(scan_e5m2, uint8_t, 0x7f, 0x7c, 0x7c, 0x71)

static tally scan(kw_dtype type, const void *data, size_t n)
{
    switch (type) {
    case KW_F32: return scan_f32(data, n);
    case KW_F64: return scan_f64(data, n);
    case KW_F16: return scan_f16(data, n);
    case KW_BF16: return scan_bf16(data, n);
    case KW_F8_E4M3: return scan_e4m3(data, n);
    case KW_F8_E5M2: return scan_e5m2(data, n);
    default: return (tally){ 0 };
    }
}

static bool is_wide(kw_dtype t) { return t == KW_F32 || t == KW_F64 || t == KW_BF16; }

enum { PIECE = 4096 };

/* At odd bytes by way of a copy. */
static tally scan_at(const kw_tensor *t, size_t at, size_t k)
{
    uint64_t room[PIECE];
    const size_t size = kw_dtype_size(t->dtype);
    const char *from = (const char *)t->data + at * size;
    if ((uintptr_t)from % size)
        from = memcpy(room, from, k * size);
    return scan(t->dtype, from, k);
}

static tally scan_all(const kw_tensor *t)
{
    const int64_t n = kw_tensor_count(t), pieces = (n + PIECE - 1) / PIECE;
    uint64_t bad = 0, zero = 0, faint = 0, huge = 0;
#pragma omp parallel for schedule(static) reduction(+ : bad, zero, faint, huge) if (pieces > 64)
    for (int64_t p = 0; p < pieces; p++) {
        const tally one = scan_at(t, (size_t)p * PIECE, (size_t)KW_MIN(n - p * PIECE, (int64_t)PIECE));
        bad += one.bad;
        zero += one.zero;
        faint += one.faint;
        huge += one.huge;
    }
    return (tally){ bad, zero, faint, huge };
}

static void count(kw_number_fault *f, const char *name)
{
    if (!f->n++)
        f->first = name;
}

void kw_tensor_numbers(const kw_tensor *t, const char *name, kw_numbers *out)
{
    const tally one = scan_all(t);
    const uint64_t n = (uint64_t)kw_tensor_count(t);
    if (one.bad)
        count(&out->bad, name);
    if (t->rank >= 2 && n > 1 && one.zero == n)
        count(&out->zero, name);
    if (one.huge)
        count(&out->huge, name);
    if (is_wide(t->dtype) && one.faint > n / 100 && one.faint > 1)
        count(&out->faint, name);
}

void kw_source_numbers(const kw_source *s, kw_part p, kw_numbers *out)
{
    *out = (kw_numbers){ .bad = { 0 } };
    for (size_t i = 0; i < s->parts[p].n; i++) {
        const kw__entry *one = &s->parts[p].entries[i];
        const kw_tensor *t = one->room ? one->raw : &one->t;      /* what is made of it later says no more */
        kw_tensor_numbers(t, one->t.name, out);
        if (one->raw->mapped)
            kw__let_go(one->raw->data, (size_t)one->raw->bytes);
    }
}

kw_status kw_source_check_numbers(const kw_source *s, kw_part p, kw_err *e)
{
    kw_numbers n;
    char shown[96];
    kw_source_numbers(s, p, &n);
    if (!n.bad.n)
        return KW_OK;
    kw_status status = kw_fail(e, KW_EDATA, N_("%s: %zu tensors of the %s hold NaN or infinity, the first is \"%s\""),
                               s->parts[p].shown, n.bad.n, kw_part_name(p), kw__shown(n.bad.first, shown));
    return kw_advise(e, status, N_("the file is damaged, or was saved after a training that failed"));
}
