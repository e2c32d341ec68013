/* condition.c - a prompt becomes the text encoder's hidden states, weighted as A1111 weights them. */
#include "pipeline_internal.h"

#include <string.h>

/*
 * A1111's "Original": z' = z w, then z' times mean(z) / mean(z') so that the whole window keeps its mean. Means in
 * double; a window without emphasis stays as it is.
 */
static void emphasise(float *z, const float *weight, size_t tokens, size_t width)
{
    double before = 0, after = 0;
    bool any = false;
    for (size_t t = 0; t < tokens; t++)
        any |= weight[t] != 1;
    for (size_t i = 0; any && i < tokens * width; i++) {
        before += (double)z[i];
        z[i] *= weight[i / width];
        after += (double)z[i];
    }
    float scale = any && after != 0 ? (float)(before / after) : 1;
    for (size_t i = 0; any && i < tokens * width; i++)
        z[i] *= scale;
}

static kw_status run(kw_pipeline *p, const int64_t *ids, size_t windows, size_t width, int clip_skip, float *out,
                     kw_err *e)
{
    kw_program *program;
    kw__program_key key = { .kind = KW__TEXT, .n = (int)windows, .tokens = (int)width, .skip = clip_skip };
    KW_TRY(kw__pipeline_program(p, key, &program, e));
    kw_program_set(program, "ids", ids);
    KW_TRY(kw_program_run(program, p->w, e));
    memcpy(out, kw_program_result(program, "y"), windows * width * (size_t)p->sd->text.width * sizeof *out);
    return KW_OK;
}

static kw_status windows_of(const kw_pipeline *p, kw_arena *a, const char *prompt, kw_windows *w, kw_err *e)
{
    kw_prompt parsed;
    KW_TRY(kw_prompt_parse(a, prompt, &parsed, e));
    return kw_prompt_windows(p->tokenizer, a, &parsed, KW_COMMA_REACH, w, e);
}

kw_status kw__pipeline_encode_text(kw_pipeline *p, kw_arena *a, const char *prompt, size_t least_windows, int clip_skip,
                                   kw__context *out,
                                   kw_err *e)
{
    kw_windows w;
    KW_TRY(windows_of(p, a, prompt, &w, e));
    KW_TRY(kw_windows_extend(p->tokenizer, a, &w, least_windows, e));
    size_t each = w.width * (size_t)p->sd->text.width;
    float *h = kw_alloc_array(a, w.n * each, sizeof *h);
    int64_t *ids = kw_alloc_array(a, w.n * w.width, sizeof *ids);
    if (!h || !ids)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < w.n * w.width; i++)
        ids[i] = w.ids[i];
    KW_TRY(run(p, ids, w.n, w.width, clip_skip, h, e));
    for (size_t i = 0; i < w.n; i++)
        emphasise(h + i * each, w.weights + i * w.width, w.width, (size_t)p->sd->text.width);
    *out = (kw__context){ .h = h, .windows = w.n, .tokens = (int)(w.n * w.width) };
    return KW_OK;
}

kw_status kw_pipeline_windows(const kw_pipeline *p, const char *prompt, size_t *n, kw_err *e)
{
    kw_windows w = { 0 };
    kw_arena *a = kw_arena_new();
    kw_status s = a ? windows_of(p, a, prompt, &w, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    *n = w.n;
    kw_arena_free(a);
    return s;
}
