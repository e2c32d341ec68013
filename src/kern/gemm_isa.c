/* gemm_tile.c - which instruction set's tiles run: that of the other kernels. */
#include "gemm_tile.h"

#include <string.h>

extern const kw_gemm_tile kw_gemm_tile_scalar, kw_gemm_tile_avx2, kw_gemm_tile_avx512, kw_gemm_tile_avx512_bf16;

const kw_gemm_tile *kw_gemm_tile_get(void)
{
    static const kw_gemm_tile *const all[] = { &kw_gemm_tile_avx512_bf16, &kw_gemm_tile_avx512, &kw_gemm_tile_avx2 };
    const char *isa = kw_kern_get()->isa;
    for (size_t i = 0; i < KW_LEN(all); i++)
        if (!strcmp(all[i]->isa, isa))
            return all[i];
    return &kw_gemm_tile_scalar;
}
