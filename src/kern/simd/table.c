/* table.c - the table of this instruction set. */
#include "simd.h"

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)
#define TABLE KW_PASTE(kw_kern, KW_ISA)

extern const kw_kern TABLE;

const kw_kern TABLE = {
    .isa = TEXT(KW_ISA),
    .group_norm = ISA(group_norm), .group_moments = ISA(group_moments),
    .group_apply = ISA(group_apply), .group_norm_grad = ISA(group_norm_grad),
    .group_norm_grad_scratch = ISA(group_norm_grad_scratch),
    .layer_norm = ISA(layer_norm), .layer_norm_grad = ISA(layer_norm_grad),
    .layer_norm_grad_scratch = ISA(layer_norm_grad_scratch),
    .attention = ISA(attention), .attention_grad = ISA(attention_grad),
    .attention_scratch = ISA(attention_scratch), .attention_grad_scratch = ISA(attention_grad_scratch),
    .unary = ISA(unary), .unary_grad = ISA(unary_grad), .geglu = ISA(geglu), .geglu_grad = ISA(geglu_grad),
    .lincomb = ISA(lincomb), .mul = ISA(mul), .add_channels = ISA(add_channels), .sum_pixels = ISA(sum_pixels),
    .convert = ISA(convert),
    .adamw = ISA(adamw), .adamw_bf16 = ISA(adamw_bf16), .adamw8 = ISA(adamw8), .compress = ISA(compress),
    .expand = ISA(expand), .lerp = ISA(lerp), .sum_squares = ISA(sum_squares),
    .peak = ISA(peak), .int8_make = ISA(int8_make), .int8_widen = ISA(int8_widen),
};
