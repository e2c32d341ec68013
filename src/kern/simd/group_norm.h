/*
 * group_norm.h - how group_norm.c and group_norm_grad.c cut their work.
 *
 * A picture is cut in at most RUNS runs of pixels, whatever the number of threads. Where there is one run only, threads
 * share pictures and groups of channels instead.
 */
#ifndef KW_SIMD_GROUP_NORM_H
#define KW_SIMD_GROUP_NORM_H

#include "simd.h"

enum {
    SLAB = 256,                           /* pixels summed in f32 before double takes over */
    RUNS = 16,                            /* of pixels, at most */
    BLOCK = 320,                          /* channels at a time: what is kept per channel stays in the first cache */
};

INLINE int64_t run_count(int64_t hw) { return KW_MIN(RUNS, pieces(hw, SLAB)); }
INLINE int64_t run_pixels(int64_t hw) { return pieces(hw, run_count(hw)); }

/* f(R, type, silu, ...) for every pixel, TOGETHER at a time, with constants in the first three places */
#define FOR_PIXELS(f, ...) \
    do { \
        for (; pixels >= TOGETHER; pixels -= TOGETHER, at += (ptrdiff_t)TOGETHER * k->c) \
            CONSTANTS(f, TOGETHER, __VA_ARGS__); \
        for (; pixels > 0; pixels--, at += k->c) \
            CONSTANTS(f, 1, __VA_ARGS__); \
    } while (0)
#define CONSTANTS(f, R, ...) \
    (t == KW_F32 ? k->silu ? f(R, KW_F32, true, __VA_ARGS__) : f(R, KW_F32, false, __VA_ARGS__) \
                 : k->silu ? f(R, KW_BF16, true, __VA_ARGS__) : f(R, KW_BF16, false, __VA_ARGS__))

#endif
