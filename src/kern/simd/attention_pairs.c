/* attention_pairs.c - attention.c once more, its panels of bf16 in pairs: for vdpbf16ps. */
#if defined KW_ISA_avx512_bf16
#define PAIRS
#include "attention.c"
#else
typedef int kw_attention_pairs;       /* a file must have something in it */
#endif
