/*
 * condition.c - a prompt becomes the text encoders' hidden states, weighted as A1111 weights them.
 *
 * With two encoders each has its own tokens (the same words, another padding) and its own columns of the result.
 */
#include "pipeline_internal.h"

#include <string.h>

typedef struct { float *z; size_t tokens, width, stride; } block;      /* the columns of one encoder in a window */

/*
 * A1111's "Original": z' = z w, then z' times mean(z) / mean(z') so that the whole window keeps its mean. Means in
 * double; a window without emphasis stays as it is.
 */
static void emphasise(block b, const float *weight)
{
    double before = 0, after = 0;
    bool any = false;
    for (size_t t = 0; t < b.tokens; t++)
        any |= weight[t] != 1;
    for (size_t i = 0; any && i < b.tokens * b.width; i++) {
        float *z = b.z + i / b.width * b.stride + i % b.width;
        before += (double)*z;
        *z *= weight[i / b.width];
        after += (double)*z;
    }
    float scale = any && after != 0 ? (float)(before / after) : 1;
    for (size_t i = 0; any && i < b.tokens * b.width; i++)
        b.z[i / b.width * b.stride + i % b.width] *= scale;
}

/* ---- windows of tokens, of each encoder -------------------------------------------------------------------------- */

typedef struct {
    kw_windows of[KW_ENCODERS];           /* equally many */
    int64_t *ids[KW_ENCODERS], *end;      /* (n, width), (n) */
} tokens;

static kw_status windows_of(const kw_pipeline *p, kw_arena *a, const char *prompt, size_t least, tokens *t, kw_err *e)
{
    kw_prompt parsed;
    size_t n = KW_MAX(least, 1);
    *t = (tokens){ .end = NULL };
    KW_TRY(kw_prompt_parse(a, prompt, &parsed, e));
    for (int i = 0; i < kw_sd_encoders(p->sd); i++) {
        KW_TRY(kw_prompt_windows(p->tokenizer[i], a, &parsed, KW_COMMA_REACH, &t->of[i], e));
        n = KW_MAX(n, t->of[i].n);
    }
    for (int i = 0; i < kw_sd_encoders(p->sd); i++)
        KW_TRY(kw_windows_extend(p->tokenizer[i], a, &t->of[i], n, e));
    return KW_OK;
}

static kw_status widen(const kw_pipeline *p, kw_arena *a, tokens *t, kw_err *e)
{
    for (int i = 0; i < kw_sd_encoders(p->sd); i++) {
        size_t n = t->of[i].n, width = t->of[i].width;
        t->ids[i] = kw_alloc_array(a, n * width, sizeof *t->ids[i]);
        t->end = kw_alloc_array(a, n, sizeof *t->end);
        if (!t->ids[i] || !t->end)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        for (size_t k = 0; k < n * width; k++)
            t->ids[i][k] = t->of[i].ids[k];
        for (size_t k = 0; k < n; k++)    /* of the last encoder these stay */
            t->end[k] = kw_clip_end(kw_sd_clip(p->sd, i), t->ids[i] + k * width, (int)width);
    }
    return KW_OK;
}

kw_status kw_pipeline_windows(const kw_pipeline *p, const char *prompt, size_t *n, kw_err *e)
{
    tokens t = { .end = NULL };
    kw_arena *a = kw_arena_new();
    kw_status s = a ? windows_of(p, a, prompt, 1, &t, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    *n = t.of[0].n;
    kw_arena_free(a);
    return s;
}

/* ---- a prompt ------------------------------------------------------------------------------------------------------ */

/* Room for a text of so many windows; zeros. */
static kw_status room(const kw_pipeline *p, kw_arena *a, size_t windows, kw__context *out, float **h, float **pooled,
                      kw_err *e)
{
    size_t width = (size_t)kw_tokenizer_max_length(p->tokenizer[0]), pool = (size_t)kw_sd_pooled_width(p->sd);
    *h = kw_alloc_array(a, windows * width * (size_t)kw_sd_text_width(p->sd), sizeof **h);
    *pooled = pool ? kw_alloc_array(a, pool, sizeof **pooled) : NULL;
    if (!*h || (pool && !*pooled))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *out = (kw__context){ .h = *h, .pooled = *pooled, .windows = windows, .tokens = (int)(windows * width) };
    return KW_OK;
}

static kw_status run(kw_pipeline *p, const tokens *t, int clip_skip, float *h, float *pooled, kw_err *e)
{
    kw_program *program;
    size_t n = t->of[0].n, width = t->of[0].width;
    kw__program_key key = { .kind = KW__TEXT, .n = (int)n, .tokens = (int)width, .skip = clip_skip };
    KW_TRY(kw__pipeline_program(p, key, &program, e));
    kw_program_set(program, "ids", t->ids[0]);
    if (pooled) {
        kw_program_set(program, "ids2", t->ids[1]);
        kw_program_set(program, "end", t->end);
    }
    KW_TRY(kw_program_run(program, p->w, e));
    memcpy(h, kw_program_result(program, "y"), n * width * (size_t)kw_sd_text_width(p->sd) * sizeof *h);
    if (pooled)
        memcpy(pooled, kw_program_result(program, "pooled"), (size_t)kw_sd_pooled_width(p->sd) * sizeof *pooled);
    return KW_OK;
}

kw_status kw__pipeline_encode_text(kw_pipeline *p, kw_arena *a, const char *prompt, size_t least_windows, int clip_skip,
                                   kw__context *out, kw_err *e)
{
    tokens t;
    float *h, *pooled;
    size_t stride = (size_t)kw_sd_text_width(p->sd), column = 0;
    KW_TRY(windows_of(p, a, prompt, least_windows, &t, e));
    KW_TRY(widen(p, a, &t, e));
    KW_TRY(room(p, a, t.of[0].n, out, &h, &pooled, e));
    KW_TRY(run(p, &t, clip_skip, h, pooled, e));
    for (int i = 0; i < kw_sd_encoders(p->sd); i++) {
        const kw_windows *w = &t.of[i];
        size_t own = (size_t)kw_sd_clip(p->sd, i)->width;
        for (size_t k = 0; k < w->n; k++)
            emphasise((block){ h + k * w->width * stride + column, w->width, own, stride }, w->weights + k * w->width);
        column += own;
    }
    return KW_OK;
}

bool kw__pipeline_is_zero(const kw_pipeline *p, const char *negative) { return p->zeros && !*negative; }

kw_status kw__pipeline_zero_text(kw_pipeline *p, kw_arena *a, size_t windows, kw__context *out, kw_err *e)
{
    float *h, *pooled;
    return room(p, a, windows, out, &h, &pooled, e);
}

/* ---- sizes ----------------------------------------------------------------------------------------------------------- */

static int or_else(int given, int usual) { return given ? given : usual; }

void kw__pipeline_sizes(const kw_request *r, float *out)
{
    const kw_sizes *s = &r->sizes;
    const int row[KW_SIZES] = { or_else(s->original_h, r->height), or_else(s->original_w, r->width), s->crop_y, s->crop_x,
                                or_else(s->target_h, r->height), or_else(s->target_w, r->width) };
    for (int i = 0; i < r->n * KW_SIZES; i++)
        out[i] = (float)row[i % KW_SIZES];
}
