/*
 * condition.c - texts become the text encoders' hidden states, weighted as A1111 or ComfyUI weight them.
 *
 *   Original   z' = z w, then z' times mean(z) / mean(z'), the means those of a window of all texts that are encoded
 *              together: the texts of one schedule. In double; without emphasis nothing changes
 *   No norm    z' = z w
 *   ComfyUI    z' = (z - z_empty) w + z_empty, z_empty of an empty prompt
 *
 * With two encoders each has its own tokens (the same words, another padding) and its own columns of the result, and
 * its own mean; the pooled text has no weights.
 */
#include "pipeline_internal.h"

#include <string.h>

typedef struct {
    const char *words;
    int times;                            /* it stands in the schedule */
    kw_windows of[KW_ENCODERS];           /* equally many */
    int64_t *ids[KW_ENCODERS], *end;      /* (n, width), (n) */
    float *h, *pooled;                    /* (n, width, all encoders' widths) */
} text;

/* ---- emphasis ---------------------------------------------------------------------------------------------------- */

typedef struct { size_t stride, at, width; int encoder; } columns;     /* of one encoder */

static bool any_weight(const kw_windows *w)
{
    for (size_t i = 0; i < w->n * w->width; i++)
        if (w->weights[i] != 1)
            return true;
    return false;
}

/* Number i of an encoder's columns in a window. */
static float *number_at(const text *t, columns c, size_t window, size_t i)
{
    return t->h + (window * t->of[0].width + i / c.width) * c.stride + c.at + i % c.width;
}

static void weigh(text *t, columns c, size_t window, double *before, double *after)
{
    const kw_windows *w = &t->of[c.encoder];
    for (size_t i = 0; i < w->width * c.width; i++) {
        float *z = number_at(t, c, window, i);
        *before += t->times * (double)*z;
        *z *= w->weights[window * w->width + i / c.width];
        *after += t->times * (double)*z;
    }
}

static void weigh_as_a1111(text *t, size_t n, columns c, bool keep_mean)
{
    for (size_t k = 0; k < t[0].of[0].n; k++) {
        double before = 0, after = 0;
        for (size_t i = 0; i < n; i++)
            weigh(&t[i], c, k, &before, &after);
        float scale = keep_mean && before != after && after != 0 ? (float)(before / after) : 1;
        for (size_t i = 0; i < n && scale != 1; i++)
            for (size_t m = 0; m < t[i].of[0].width * c.width; m++)
                *number_at(&t[i], c, k, m) *= scale;
    }
}

static void weigh_as_comfyui(text *t, columns c, const text *empty)
{
    const kw_windows *w = &t->of[c.encoder];
    for (size_t k = 0; k < w->n; k++)
        for (size_t i = 0; i < w->width * c.width; i++) {
            float *z = number_at(t, c, k, i), nothing = *number_at(empty, c, 0, i);
            float weight = w->weights[k * w->width + i / c.width];
            *z = weight == 1 ? *z : (*z - nothing) * weight + nothing;
        }
}

/* ---- windows of tokens, of each encoder -------------------------------------------------------------------------- */

kw_status kw__pipeline_text_windows(const kw_pipeline *p, kw_arena *a, const kw_reading *r, const char *words,
                                    kw_windows out[KW_ENCODERS], kw_err *e)
{
    kw_prompt parsed = { .text = words };
    size_t n = 1;
    KW_TRY(kw_prompt_weigh(a, r->grammar, r->emphasis, &parsed, e));
    for (int i = 0; i < kw_sd_encoders(p->sd); i++) {
        kw_windows_options o = { .grammar = r->grammar, .comma_reach = KW_COMMA_REACH, .words = &p->words[i] };
        KW_TRY(kw_prompt_windows_as(p->tokenizer[i], a, &parsed, &o, &out[i], e));
        n = KW_MAX(n, out[i].n);
    }
    for (int i = 0; i < kw_sd_encoders(p->sd); i++)
        KW_TRY(kw_windows_extend(p->tokenizer[i], a, &out[i], n, e));
    return KW_OK;
}

static kw_status widen(const kw_pipeline *p, kw_arena *a, text *t, kw_err *e)
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

/* ---- texts ------------------------------------------------------------------------------------------------------- */

/* Room for a text of so many windows; zeros. */
static kw_status room(const kw_pipeline *p, kw_arena *a, size_t windows, float **h, float **pooled, kw_err *e)
{
    size_t width = (size_t)kw_tokenizer_max_length(p->tokenizer[0]), pool = (size_t)kw_sd_pooled_width(p->sd);
    *h = kw_alloc_array(a, windows * width * (size_t)kw_sd_text_width(p->sd), sizeof **h);
    *pooled = pool ? kw_alloc_array(a, pool, sizeof **pooled) : NULL;
    return *h && (!pool || *pooled) ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

static kw_status run(kw_pipeline *p, kw_arena *a, text *t, int clip_skip, kw_err *e)
{
    kw_program *program;
    size_t n = t->of[0].n, width = t->of[0].width;
    kw__program_key key = { .kind = KW__TEXT, .n = (int)n, .tokens = (int)width, .skip = clip_skip,
                            .vectors = kw__inversion_used(&t->of[0]) };
    KW_TRY(widen(p, a, t, e));
    KW_TRY(room(p, a, n, &t->h, &t->pooled, e));
    KW_TRY(kw__pipeline_program(p, key, &program, e));
    kw_program_set(program, "ids", t->ids[0]);
    if (t->pooled) {
        kw_program_set(program, "ids2", t->ids[1]);
        kw_program_set(program, "end", t->end);
    }
    for (int i = 0; i < kw_sd_encoders(p->sd) && key.vectors; i++)
        KW_TRY(kw__inversion_set(p, a, program, i, &t->of[i], e));
    KW_TRY(kw_program_run(program, p->w, e));
    p->n_encoded++;
    memcpy(t->h, kw_program_result(program, "y"), n * width * (size_t)kw_sd_text_width(p->sd) * sizeof *t->h);
    if (t->pooled)
        memcpy(t->pooled, kw_program_result(program, "pooled"), (size_t)kw_sd_pooled_width(p->sd) * sizeof *t->pooled);
    return KW_OK;
}

static kw_status weigh_all(kw_pipeline *p, kw_arena *a, const kw_reading *r, text *t, size_t n, int clip_skip,
                           kw_err *e)
{
    text empty = { .times = 1 };
    columns c = { .stride = (size_t)kw_sd_text_width(p->sd) };
    if (r->grammar == KW_GRAMMAR_COMFYUI) {
        KW_TRY(kw__pipeline_text_windows(p, a, r, "", empty.of, e));
        KW_TRY(run(p, a, &empty, clip_skip, e));
    }
    for (int i = 0; i < kw_sd_encoders(p->sd); i++) {
        c.encoder = i;
        c.width = (size_t)kw_sd_clip(p->sd, i)->width;
        if (r->grammar == KW_GRAMMAR_A1111)
            weigh_as_a1111(t, n, c, r->emphasis == KW_EMPHASIS_ORIGINAL);
        for (size_t k = 0; r->grammar == KW_GRAMMAR_COMFYUI && k < n; k++)
            weigh_as_comfyui(&t[k], c, &empty);
        c.at += c.width;
    }
    return KW_OK;
}

static kw_status encode_anew(kw_pipeline *p, kw_arena *a, const kw_reading *r, text *t, size_t n, int clip_skip,
                             kw_err *e)
{
    bool weighted = false;
    for (size_t i = 0; i < n; i++) {
        KW_TRY(run(p, a, &t[i], clip_skip, e));
        weighted |= any_weight(&t[i].of[0]);
    }
    return weighted ? weigh_all(p, a, r, t, n, clip_skip, e) : KW_OK;
}

/* n texts as they are kept: hidden states of each, then its pooled vector. */
static size_t numbers_of(const kw_pipeline *p, const text *t)
{
    return t->of[0].n * t->of[0].width * (size_t)kw_sd_text_width(p->sd);
}

static kw_status take(const kw_pipeline *p, kw_arena *a, text *t, size_t n, const float *kept, kw_err *e)
{
    size_t each = numbers_of(p, t), pool = (size_t)kw_sd_pooled_width(p->sd);
    for (size_t i = 0; i < n; i++, kept += each + pool) {
        KW_TRY(room(p, a, t[i].of[0].n, &t[i].h, &t[i].pooled, e));
        memcpy(t[i].h, kept, each * sizeof *kept);
        if (pool)
            memcpy(t[i].pooled, kept + each, pool * sizeof *kept);
    }
    return KW_OK;
}

static void keep(kw_pipeline *p, const text *t, size_t n, const char *key)
{
    size_t each = numbers_of(p, t), pool = (size_t)kw_sd_pooled_width(p->sd);
    float *kept = kw__encodings_add(p, key, n * (each + pool));
    for (size_t i = 0; kept && i < n; i++, kept += each + pool) {
        memcpy(kept, t[i].h, each * sizeof *kept);
        if (pool)
            memcpy(kept + each, t[i].pooled, pool * sizeof *kept);
    }
}

/* A trainer's weights move, so a pipeline over them keeps nothing. */
static kw_status encode(kw_pipeline *p, kw_arena *a, const kw_reading *r, text *t, size_t n, int clip_skip, kw_err *e)
{
    kw_str key = { 0 };
    kw__encodings_key(p, r, clip_skip, &key);
    for (size_t i = 0; i < n; i++)
        kw__encodings_key_text(&key, t[i].words, t[i].times, t[i].of[0].n);
    bool keeps = p->own && !key.failed;
    const float *kept = keeps ? kw__encodings_find(p, key.s) : NULL;
    kw_status s = kept ? take(p, a, t, n, kept, e) : encode_anew(p, a, r, t, n, clip_skip, e);
    if (!s && !kept && keeps)
        keep(p, t, n, key.s);
    kw_str_free(&key);
    return s;
}

/* Each text once; at[i]: where text i is. */
static kw_status gather(const kw_pipeline *p, kw_arena *a, const kw_reading *r, const char *const *words, size_t n,
                        text *t, size_t *at, size_t *n_texts, kw_err *e)
{
    *n_texts = 0;
    for (size_t i = 0, k; i < n; i++) {
        for (k = *n_texts; k && strcmp(t[k - 1].words, words[i]); k--)
            ;
        if (!k) {
            k = ++*n_texts;
            t[k - 1] = (text){ .words = words[i] };
            KW_TRY(kw__pipeline_text_windows(p, a, r, words[i], t[k - 1].of, e));
        }
        at[i] = k - 1;
        t[k - 1].times++;
    }
    return KW_OK;
}

kw_status kw__pipeline_encode_texts(kw_pipeline *p, kw_arena *a, const kw_reading *r, const char *const *words,
                                    size_t n, size_t least_windows, int clip_skip, kw__context *out, kw_err *e)
{
    text *t = kw_alloc_array(a, n, sizeof *t);
    size_t *at = kw_alloc_array(a, n, sizeof *at), windows = least_windows, n_texts;
    if (!t || !at)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(gather(p, a, r, words, n, t, at, &n_texts, e));
    for (size_t i = 0; i < n_texts; i++)
        windows = KW_MAX(windows, t[i].of[0].n);
    for (size_t i = 0; i < n_texts; i++)
        for (int k = 0; k < kw_sd_encoders(p->sd); k++)
            KW_TRY(kw_windows_extend(p->tokenizer[k], a, &t[i].of[k], windows, e));
    KW_TRY(encode(p, a, r, t, n_texts, clip_skip, e));
    for (size_t i = 0; i < n; i++)
        out[i] = (kw__context){ .h = t[at[i]].h, .pooled = t[at[i]].pooled, .windows = windows,
                                .tokens = (int)(windows * t[0].of[0].width) };
    return KW_OK;
}

bool kw__pipeline_is_zero(const kw_pipeline *p, const char *negative) { return p->zeros && !*negative; }

kw_status kw__pipeline_zero_text(kw_pipeline *p, kw_arena *a, size_t windows, kw__context *out, kw_err *e)
{
    float *h, *pooled;
    KW_TRY(room(p, a, windows, &h, &pooled, e));
    *out = (kw__context){ .h = h, .pooled = pooled, .windows = windows,
                          .tokens = (int)windows * kw_tokenizer_max_length(p->tokenizer[0]) };
    return KW_OK;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

static int or_else(int given, int usual) { return given ? given : usual; }

void kw__pipeline_sizes(const kw_request *r, float *out)
{
    const kw_sizes *s = &r->sizes;
    const int row[KW_SIZES] = { or_else(s->original_h, r->height), or_else(s->original_w, r->width), s->crop_y,
                                s->crop_x, or_else(s->target_h, r->height), or_else(s->target_w, r->width) };
    for (int i = 0; i < r->n * KW_SIZES; i++)
        out[i] = (float)row[i % KW_SIZES];
}
