/* generate_canvas.h - what pictures are painted over: --init, --mask and how they lie under the picture. */
#ifndef KW_CLI_GENERATE_CANVAS_H
#define KW_CLI_GENERATE_CANVAS_H

#include "generate.h"

typedef struct kw_canvas kw_canvas;

/* Decodes --init and --mask in a child; NULL where there is no --init. Refused: a mask without it, or all black. */
KW_MUST kw_status kw_canvas_open(kw_cli *cli, const kw_generate_config *c, kw_canvas **out, kw_err *e);
/* Sets what is 0: the picture's size, or its shape at the base's size where that is smaller; multiples of factor. */
void kw_canvas_size(const kw_canvas *v, int native, int factor, int *width, int *height);
/* Its latents and mask for pictures of this size; what was made for the size before is kept until another is asked. */
KW_MUST kw_status kw_canvas_prepare(kw_canvas *v, kw_pipeline *p, int width, int height, kw_err *e);
/* Into a request of r->n pictures of that size, on this arena. */
KW_MUST kw_status kw_canvas_into(const kw_canvas *v, kw_arena *a, const kw_pipeline *p, kw_request *r, kw_err *e);
/* What stays is put back over the picture; of a masked area the whole picture comes out. */
KW_MUST kw_status kw_canvas_finish(const kw_canvas *v, const kw_picture *drawn, kw_picture *out, kw_err *e);

/* The keys A1111 writes for these settings, and some of our own, appended to list[*n]. At most KW_CANVAS_KEYS. */
enum { KW_CANVAS_KEYS = 10 };
KW_MUST kw_status kw_canvas_keys(kw_arena *a, const kw_canvas *v, const kw_generate_config *c, double strength,
                                 kw_meta *list, size_t *n, kw_err *e);

#endif
