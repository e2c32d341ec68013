/*
 * words.c - the prompts of a batch as schedules of contexts, and what of them the network sees in its i-th run.
 *
 *   picture ── parts (AND), each with its weight ── stages: until run 3 "a", until run 20 "b" ── hidden states
 */
#include "pipeline_internal.h"

#include <string.h>

enum { MOST_STEPS = 1000 };               /* where nobody says how many */

typedef struct {
    kw__part of;
    const kw_prompt_part *plan;
    kw__context *context;                 /* (plan->n) */
    size_t windows;
    bool zero;                            /* an empty negative prompt that is zeros */
} part;

struct kw__words {
    part *part;  int n;
    int tokens;                           /* of a context */
    size_t width, pool;                   /* numbers of a token, of a pooled text */
    bool composed;
};

/* PLMS asks twice in its first step alone, and is none of A1111's "second order". */
int kw_reading_steps(const kw_sampler *s, int steps)
{
    return s && s->second && s->lists != KW_LISTS_PLMS ? 2 * steps : steps;
}

static kw_prompt_steps steps_of(const kw_request *r)
{
    int steps = kw_reading_steps(r->sampling.sampler, r->sampling.steps);
    return (kw_prompt_steps){ r->reading.steps ? r->reading.steps : steps, r->reading.before };
}

static const char *text_of(const kw_wish *w, bool negative)
{
    return !negative ? w->prompt : w->negative ? w->negative : "";
}

/* Tags go first; ComfyUI's prompts are of one part and do not change. */
static kw_status plan_of(kw_arena *a, const kw_reading *r, const char *prompt, bool negative, kw_prompt_steps steps,
                         kw_prompt_plan *out, kw_err *e)
{
    kw_prompt tagged;
    KW_TRY(kw_prompt_tags(a, prompt, &tagged, e));
    if (r->grammar == KW_GRAMMAR_A1111)
        return kw_prompt_plan_make(a, tagged.text, !negative, steps, out, e);
    kw_prompt_part *one = kw_alloc(a, sizeof *one);
    kw_prompt_stage *stage = kw_alloc(a, sizeof *stage);
    if (!one || !stage)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *stage = (kw_prompt_stage){ steps.steps, tagged.text };
    *one = (kw_prompt_part){ .weight = 1, .stage = stage, .n = 1 };
    *out = (kw_prompt_plan){ one, 1 };
    return KW_OK;
}

/* Most windows of a part's texts; which inversions they name, unless used is NULL. */
static kw_status look(const kw_pipeline *p, kw_arena *a, const kw_reading *r, const kw_prompt_part *plan,
                      size_t *windows, bool *used, kw_err *e)
{
    for (size_t i = 0; i < plan->n; i++) {
        kw_windows of[KW_ENCODERS], w;
        if (i && !strcmp(plan->stage[i].text, plan->stage[i - 1].text))
            continue;
        KW_TRY(kw__pipeline_text_windows(p, a, r, plan->stage[i].text, of, e));
        w = of[0];
        *windows = KW_MAX(*windows, w.n);
        for (size_t k = 0; used && w.rows && k < w.n * w.width; k++)
            if (w.rows[k] >= 0)
                used[kw__inversion_of(p, (size_t)w.rows[k])] = true;
    }
    return KW_OK;
}

static kw_status look_at(const kw_pipeline *p, const kw_reading *r, const char *prompt, bool negative, size_t *windows,
                         bool *used, kw_err *e)
{
    kw_prompt_plan plan;
    kw_arena *a = kw_arena_new();
    *windows = 1;
    kw_prompt_steps steps = { r->steps ? r->steps : MOST_STEPS, r->before };
    kw_status s = a ? plan_of(a, r, prompt, negative, steps, &plan, e)
                    : kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; !s && i < plan.n; i++)
        s = look(p, a, r, &plan.part[i], windows, used, e);
    kw_arena_free(a);
    return s;
}

kw_status kw_pipeline_windows(const kw_pipeline *p, const kw_reading *r, const char *prompt, bool negative, size_t *n,
                              kw_err *e)
{
    return look_at(p, r, prompt, negative, n, NULL, e);
}

kw_status kw_pipeline_names(const kw_pipeline *p, const kw_reading *r, const char *prompt, bool negative, bool *used,
                            kw_err *e)
{
    size_t windows;
    return look_at(p, r, prompt, negative, &windows, used, e);
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static kw_status encode(kw_pipeline *p, kw_arena *a, const kw_request *r, size_t least, part *t, kw_err *e)
{
    const char **text = kw_alloc_array(a, t->plan->n, sizeof *text);
    t->context = kw_alloc_array(a, t->plan->n, sizeof *t->context);
    if (!text || !t->context)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < t->plan->n; i++)
        text[i] = t->plan->stage[i].text;
    if (t->zero)
        return kw__pipeline_zero_text(p, a, KW_MAX(least, 1), t->context, e);
    return kw__pipeline_encode_texts(p, a, &r->reading, text, t->plan->n, KW_MAX(least, t->windows), r->clip_skip,
                                     t->context, e);
}

static bool same_part(const part *a, const part *b)
{
    if (a->plan->n != b->plan->n || a->zero != b->zero)
        return false;
    for (size_t i = 0; i < a->plan->n; i++)
        if (a->plan->stage[i].until != b->plan->stage[i].until
            || strcmp(a->plan->stage[i].text, b->plan->stage[i].text))
            return false;
    return true;
}

static kw_status encode_all(kw_pipeline *p, kw_arena *a, const kw_request *r, size_t zeros, kw__words *w, kw_err *e)
{
    size_t most = 1;
    bool all_zero = true;
    for (int i = 0; i < w->n; i++) {
        most = KW_MAX(most, w->part[i].windows);
        all_zero &= w->part[i].zero;
    }
    most = all_zero ? KW_MAX(zeros, 1) : most;
    for (int i = 0; i < w->n; i++) {
        part *t = &w->part[i];
        int k = 0;
        while (k < i && !same_part(&w->part[k], t))
            k++;
        if (k < i)
            t->context = w->part[k].context;
        else
            KW_TRY(encode(p, a, r, w->composed ? 1 : most, t, e));
        w->tokens = KW_MAX(w->tokens, t->context[0].tokens);
    }
    return KW_OK;
}

static kw_status add_parts(kw_arena *a, kw__words *w, size_t *room, int picture, const kw_prompt_plan *plan, kw_err *e)
{
    for (size_t i = 0; i < plan->n; i++) {
        KW_TRY(kw_grow(a, &w->part, room, (size_t)w->n, sizeof *w->part, e));
        w->part[w->n++] = (part){ .of = { picture, plan->part[i].weight }, .plan = &plan->part[i] };
        w->composed |= plan->n > 1 || plan->part[i].weight != 1;
    }
    return KW_OK;
}

kw_status kw__words_new(kw_pipeline *p, kw_arena *a, const kw_request *r, bool negative, int zeros, kw__words **out,
                        kw_err *e)
{
    kw__words *w = kw_alloc(a, sizeof *w);
    kw_prompt_plan *plan = kw_alloc_array(a, (size_t)r->n, sizeof *plan);
    size_t room = 0;
    if (!w || !plan)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *w = (kw__words){ .width = (size_t)kw_sd_text_width(p->sd), .pool = (size_t)kw_sd_pooled_width(p->sd) };
    for (int i = 0; i < r->n; i++) {
        KW_TRY(plan_of(a, &r->reading, text_of(&r->wish[i], negative), negative, steps_of(r), &plan[i], e));
        KW_TRY(add_parts(a, w, &room, i, &plan[i], e));
    }
    for (int i = 0; i < w->n; i++) {
        part *t = &w->part[i];
        t->zero = negative && kw__pipeline_is_zero(p, text_of(&r->wish[t->of.picture], true));
        KW_TRY(look(p, a, &r->reading, t->plan, &t->windows, NULL, e));
    }
    KW_TRY(encode_all(p, a, r, (size_t)(zeros / kw_tokenizer_max_length(p->tokenizer[0])), w, e));
    *out = w;
    return KW_OK;
}

/* ---- at a run ---------------------------------------------------------------------------------------------------- */

int kw__words_tokens(const kw__words *w) { return w->tokens; }
bool kw__words_composed(const kw__words *w) { return w->composed; }
int kw__words_parts(const kw__words *w) { return w->n; }
kw__part kw__words_part(const kw__words *w, int i) { return w->part[i].of; }

/* A shorter context is filled up with its last vector. */
void kw__words_fill(const kw__words *w, int run, int first, int n, float *context, float *pooled)
{
    size_t width = w->width;
    for (int i = first; i < first + n; i++) {
        const kw__context *c = &w->part[i].context[kw_prompt_stage_at(w->part[i].plan, run)];
        memcpy(context, c->h, (size_t)c->tokens * width * sizeof *context);
        for (int t = c->tokens; t < w->tokens; t++)
            memcpy(context + (size_t)t * width, c->h + (size_t)(c->tokens - 1) * width, width * sizeof *context);
        context += (size_t)w->tokens * width;
        if (w->pool)
            memcpy(pooled + (size_t)(i - first) * w->pool, c->pooled, w->pool * sizeof *pooled);
    }
}
