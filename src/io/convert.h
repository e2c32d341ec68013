/*
 * convert.h - a model in another container, streamed: one LDM file or a diffusers folder, from any source.
 *
 *     kw_conversion *c;
 *     KW_TRY(kw_conversion_plan(arena, source, &(kw_conversion_want){ .folder = true }, &c, e));    // reads names only
 *     ... kw_conversion_at(c, i)->bytes ...
 *     KW_TRY(kw_conversion_write(c, "out", false, tell, user, e));                                   // all or nothing
 *
 * Tensors keep their bytes unless a type is wanted; only the frame changes: names, q, k, v in one (OpenCLIP), linear
 * layers as 1x1 convolutions (the VAE's attention), text_projection transposed. Configurations go into the file's
 * metadata (KW_META_CONFIG) and come back from it; what has no place in the new container is named, never dropped
 * without a word. In memory are the names and one tensor at a time.
 */
#ifndef KW_IO_CONVERT_H
#define KW_IO_CONVERT_H

#include "source.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { KW_KEEP, KW_TO_F32, KW_TO_F16, KW_TO_BF16, KW_TO_F8 } kw_convert_type;

typedef struct { const char *path, *text; size_t n; } kw_convert_extra;      /* path: below the folder */

/*
 * Numbers that are made rather than copied: those of t (canonical name and shape, the source's type and data) of p,
 * as f32 into room, when its turn comes. *made = false: they stay as they are.
 */
typedef kw_status kw_conversion_make(void *user, kw_part p, const kw_tensor *t, float *room, bool *made, kw_err *e);

typedef struct {
    bool folder, averages;                /* averages: the source was opened with them, the copies stay behind */
    kw_convert_type type;                 /* F8: matrices of U-Net and text encoders as e4m3, other numbers as f16 */
    const kw_convert_extra *extra;        /* further files of a folder, where the source has none of that name */
    size_t n_extra;
    const char *tokenizer;                /* for the single file's KW_META_TOKENIZER; NULL: it is CLIP's */
    kw_conversion_make *make;             /* NULL: all numbers are the source's */
    void *make_user;
    const kw_meta *meta;                  /* in the place of the source's metadata of these names */
    size_t n_meta;
} kw_conversion_want;

typedef struct {
    const char *file;                     /* below the folder; "": the single file itself */
    size_t n, by_type[KW_N_DTYPES];       /* tensors */
    uint64_t bytes;
} kw_converted;

typedef struct kw_conversion kw_conversion;

/* KW_EDATA: a parameter that has no name in the single-file layout, or incomplete q, k, v. */
KW_MUST kw_status kw_conversion_plan(kw_arena *a, kw_source *s, const kw_conversion_want *want, kw_conversion **out,
                                     kw_err *e);
/* Tensors that are no model (a LoRA, an embedding), as one file under their names. */
KW_MUST kw_status kw_conversion_of_tensors(kw_arena *a, const kw_tensors *t, const kw_conversion_want *want,
                                           kw_conversion **out, kw_err *e);

size_t kw_conversion_n(const kw_conversion *c);
const kw_converted *kw_conversion_at(const kw_conversion *c, size_t i);
uint64_t kw_conversion_bytes(const kw_conversion *c);             /* of all tensors together */
size_t kw_conversion_n_left(const kw_conversion *c);              /* tensors of the source that stay behind */
const char *kw_conversion_left(const kw_conversion *c, size_t i);

/* Told after each tensor: bytes so far. A status other than KW_OK ends the writing, and nothing stays. */
typedef kw_status kw_conversion_tell(void *user, uint64_t done, kw_err *e);
/* KW_ESTORAGE: not enough space (asked first), or there is something under that name and replace is not said. */
KW_MUST kw_status kw_conversion_write(kw_conversion *c, const char *path, bool replace, kw_conversion_tell *tell,
                                      void *user, kw_err *e);

#ifdef __cplusplus
}
#endif

#endif
