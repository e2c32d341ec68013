/*
 * peak.c - the most this instruction set can do: multiply-adds on registers alone, with enough independent sums that
 * none waits for another. Fractions of a peak refer to these loops; they are assembly so that no compiler spills them.
 *
 *   round:  sum[r] += a b   for r = 0 .. SUMS-1
 */
#include "simd.h"

#include <cpuid.h>

typedef struct { double per_round; bool here; } kind;

#define FIRST_12 "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"

#if defined KW_ISA_avx512

enum { SUMS = 24, LANES = 16, F32_EACH = 2 };       /* with 4 cycles and 2 a cycle 8 would do; slower ones need more */
#define EACH ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n"
#define USED FIRST_12, "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17", \
    "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm30", "xmm31", "cc"
#define ROUNDS(instruction) \
    EACH " vpxord %%zmm\\r,%%zmm\\r,%%zmm\\r\n.endr\n vpbroadcastd %1,%%zmm30\n vpbroadcastd %1,%%zmm31\n" \
    ".p2align 5\n1:\n" EACH " " instruction " %%zmm30,%%zmm31,%%zmm\\r\n.endr\n dec %0\n jnz 1b\n vzeroupper\n"

#elif defined KW_ISA_avx2

enum { SUMS = 12, LANES = 8, F32_EACH = 2 };
#define EACH ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n"
#define USED FIRST_12, "xmm14", "xmm15", "cc"
#define ROUNDS(instruction) \
    EACH " vxorps %%ymm\\r,%%ymm\\r,%%ymm\\r\n.endr\n" \
    " vmovd %1,%%xmm14\n vbroadcastss %%xmm14,%%ymm14\n vmovaps %%ymm14,%%ymm15\n" \
    ".p2align 5\n1:\n" EACH " " instruction " %%ymm14,%%ymm15,%%ymm\\r\n.endr\n dec %0\n jnz 1b\n vzeroupper\n"

#else                                     /* SSE2 has no fused multiply-add: a product here, a sum there */

enum { SUMS = 14, LANES = 4, F32_EACH = 1 };
#define USED FIRST_12, "xmm12", "xmm13", "xmm15", "cc"
#define ROUNDS(instruction) \
    " movd %1,%%xmm15\n shufps $0,%%xmm15,%%xmm15\n" \
    ".irp r,0,1,2,3,4,5,6,7,8,9,10,11,12,13\n movaps %%xmm15,%%xmm\\r\n.endr\n" \
    ".p2align 5\n1:\n.irp r,0,1,2,3,4,5,6\n mulps %%xmm15,%%xmm\\r\n.endr\n" \
    ".irp r,7,8,9,10,11,12,13\n addps %%xmm15,%%xmm\\r\n.endr\n dec %0\n jnz 1b\n"

#endif

#define LOOP(name, instruction) \
    static NOINLINE void name(int64_t n, uint32_t one) \
    { \
        __asm__ volatile(ROUNDS(instruction) : "+r"(n) : "r"(one) : USED); \
    }

LOOP(f32, "vfmadd231ps")
#if defined KW_ISA_avx512_bf16
LOOP(bf16, "vdpbf16ps")
#endif
#if defined KW_ISA_avx512
LOOP(int8, "vpdpbusd")
#elif defined KW_ISA_avx2
LOOP(int8, "%{vex%} vpdpbusd")
#endif

/* Bits of cpuid leaf 7: of sub-leaf 1 in eax, of sub-leaf 0 in ecx. */
#if defined KW_ISA_avx512 || defined KW_ISA_avx2
static bool has(unsigned leaf, unsigned bit)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, leaf, &a, &b, &c, &d))
        return false;
    return (leaf ? a : c) >> bit & 1;
}
#endif

static kind kind_of(kw_peak k)
{
    switch (k) {
    case KW_PEAK_F32: return (kind){ (double)F32_EACH * LANES * SUMS, true };
#if defined KW_ISA_avx512_bf16
    case KW_PEAK_BF16: return (kind){ 4.0 * LANES * SUMS, has(1, 5) };
#endif
#if defined KW_ISA_avx512
    case KW_PEAK_INT8: return (kind){ 8.0 * LANES * SUMS, has(0, 11) };
#elif defined KW_ISA_avx2
    case KW_PEAK_INT8: return (kind){ 8.0 * LANES * SUMS, has(1, 4) };
#endif
    default: return (kind){ 0, false };
    }
}

double ISA(peak)(kw_peak k, int64_t n)
{
    const kind it = kind_of(k);
    if (!it.here || n < 1)
        return 0;
    switch (k) {
#if defined KW_ISA_avx512_bf16
    case KW_PEAK_BF16: bf16(n, 0x3f803f80); break;
#endif
#if defined KW_ISA_avx512 || defined KW_ISA_avx2
    case KW_PEAK_INT8: int8(n, 0x01010101); break;
#endif
    default: f32(n, 0x3f800000); break;
    }
    return it.per_round * (double)n;
}
