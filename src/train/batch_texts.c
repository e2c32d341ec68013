/*
 * batch_texts.c - captions of a batch: token ids where a text encoder is trained, else the features of frozen ones,
 * from the cache. SDXL's have a pooled text beside them, and the sizes of the pictures.
 */
#include "run_internal.h"

#include <string.h>

static const kw_sd *base(const kw_run *r) { return kw_trainer_base(r->trainer); }

static size_t windows_of(const kw_run *r) { return (size_t)KW_MAX(r->s.token_length / 75, 1); }

/* ---- frozen encoders: one window to its features ---------------------------------------------------------------- */

static kw_status build(kw_run *r, int window, kw_err *e)
{
    static const char *const names[KW_ENCODERS] = { "ids", "ids2" };
    const kw_sd *sd = base(r);
    kw_graph *g = kw_graph_new(r->arena, KW_F32);
    kw_sd_text_in in = { .end = KW_NONE, .clip_skip = r->s.clip_skip };
    kw_val pooled;
    if (!g)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int i = 0; i < kw_sd_encoders(sd); i++) {
        in.net[i] = kw_net_over(g, sd->params[kw_sd_encoder(i)]);
        in.ids[i] = kw_input(g, names[i], KW_SHAPE(1, window), KW_I64);
        in.end = i ? kw_input(g, "end", KW_SHAPE(1), KW_I64) : KW_NONE;
    }
    kw_result(g, "text", kw_sd_text(sd, &in, &pooled));
    if (pooled >= 0)
        kw_result(g, "pooled", pooled);
    return kw_program_new(r->arena, g, sd->store, NULL, &r->text, e);
}

/* text: (window, width) and behind it the pooled text, if the model has one. */
static kw_status compute(kw_run *r, const int64_t *ids, int window, float *text, kw_err *e)
{
    const kw_sd *sd = base(r);
    size_t n = (size_t)(window * kw_sd_text_width(sd)), pool = (size_t)kw_sd_pooled_width(sd);
    int64_t end = pool ? kw_clip_end(&sd->text2, ids + window, window) : 0;
    if (!r->text)
        KW_TRY(build(r, window, e));
    kw_program_set(r->text, "ids", ids);
    if (pool) {
        kw_program_set(r->text, "ids2", ids + window);
        kw_program_set(r->text, "end", &end);
    }
    KW_TRY(kw_program_run(r->text, kw_trainer_workspace(r->trainer), e));
    memcpy(text, kw_program_result(r->text, "text"), n * sizeof *text);
    if (pool)
        memcpy(text + n, kw_program_result(r->text, "pooled"), pool * sizeof *text);
    return KW_OK;
}

/* From the cache or computed. ids: (encoders, window) */
static kw_status features(kw_run *r, const int32_t *ids, int window, float *text, kw_err *e)
{
    enum { MOST = 512 };
    const kw_sd *sd = base(r);
    int encoders = kw_sd_encoders(sd), width = kw_sd_text_width(sd), pool = kw_sd_pooled_width(sd);
    int64_t shape[2] = { window, width }, all[1] = { (int64_t)window * width + pool }, wide[KW_ENCODERS * MOST];
    char key[65];
    KW_TRY(kw_text_key(r->text_made_by, r->s.clip_skip, ids, (size_t)(encoders * window), key, e));
    if (kw_cache_find(r->cache, key, pool ? all : shape, pool ? 1 : 2, text))
        return KW_OK;
    if (window > MOST)
        return kw_fail(e, KW_EDATA, "a text window of %d tokens", window);
    for (int i = 0; i < encoders * window; i++)
        wide[i] = ids[i];
    KW_TRY(compute(r, wide, window, text, e));
    return kw_cache_put(r->cache, key, pool ? all : shape, pool ? 1 : 2, text, e);
}

/* ---- a batch's captions ------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t *ids[KW_ENCODERS], *end;      /* (n, windows, window); (n, windows) of the last encoder */
    size_t n, windows, window;
} captions;

static kw_status tokens(kw_run *r, kw_arena *a, const char *const *texts, int n, captions *c, kw_err *e)
{
    *c = (captions){ .n = (size_t)n, .windows = windows_of(r),
                     .window = (size_t)kw_tokenizer_max_length(r->tokenizer) };
    size_t each = c->windows * c->window;
    c->end = kw_alloc_array(a, c->n * c->windows, sizeof *c->end);
    for (int i = 0; i < kw_sd_encoders(base(r)); i++) {
        c->ids[i] = kw_alloc_array(a, c->n * each, sizeof *c->ids[i]);
        if (!c->ids[i] || !c->end)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        for (size_t k = 0; k < c->n; k++) {
            kw_windows w;
            KW_TRY(kw_caption_windows(r->tokenizers[i], a, texts[k], c->windows, &w, e));
            for (size_t t = 0; t < each; t++)
                c->ids[i][k * each + t] = w.ids[t];
        }
        for (size_t k = 0; k < c->n * c->windows; k++)
            c->end[k] = kw_clip_end(kw_sd_clip(base(r), i), c->ids[i] + k * c->window, (int)c->window);
    }
    return KW_OK;
}

/* Features of all windows; the pooled text is that of a caption's first. */
static kw_status add_features(kw_run *r, kw_arena *a, const captions *c, kw_micro *out, kw_err *e)
{
    size_t each = c->window * (size_t)kw_sd_text_width(base(r)), pool = (size_t)kw_sd_pooled_width(base(r));
    float *context = kw_alloc_array(a, c->n * c->windows * each, sizeof *context),
          *pooled = kw_alloc_array(a, c->n * pool + 1, sizeof *pooled),
          *one = kw_alloc_array(a, each + pool, sizeof *one);
    int32_t *ids = kw_alloc_array(a, KW_ENCODERS * c->window, sizeof *ids);
    if (!context || !pooled || !one || !ids)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t k = 0; k < c->n * c->windows; k++) {
        for (size_t i = 0; i < (size_t)kw_sd_encoders(base(r)); i++)
            for (size_t t = 0; t < c->window; t++)
                ids[i * c->window + t] = (int32_t)c->ids[i][k * c->window + t];
        KW_TRY(features(r, ids, (int)c->window, one, e));
        memcpy(context + k * each, one, each * sizeof *one);
        if (pool && k % c->windows == 0)
            memcpy(pooled + k / c->windows * pool, one + each, pool * sizeof *one);
    }
    out->context = context;
    out->pooled = pool ? pooled : NULL;
    return KW_OK;
}

/* Where each text ends: the feature there sums it up. */
static kw_status add_ends(const kw_run *r, kw_arena *a, const captions *c, kw_micro *out, kw_err *e)
{
    size_t each = c->windows * c->window;
    int64_t *end = kw_alloc_array(a, c->n, sizeof *end), *order = kw_alloc_array(a, c->n, sizeof *order);
    if (!end || !order)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < c->n; i++) {
        order[i] = (int64_t)i;
        while (end[i] < (int64_t)each - 1
               && c->ids[0][i * each + (size_t)end[i]] != kw_tokenizer_eos(r->tokenizer))
            end[i]++;
    }
    out->end = end;
    out->order = order;
    return KW_OK;
}

kw_status kw__run_texts(kw_run *r, kw_arena *a, const char *const *texts, int n, kw_micro *out, kw_err *e)
{
    captions c;
    KW_TRY(tokens(r, a, texts, n, &c, e));
    out->tokens = (int)(c.windows * c.window);
    if (!r->learns_text)
        KW_TRY(add_features(r, a, &c, out, e));
    else {
        out->ids = c.ids[0];
        out->ids2 = c.ids[1];
        out->end2 = c.end;
    }
    return r->align ? add_ends(r, a, &c, out, e) : KW_OK;
}

/* ---- sizes ------------------------------------------------------------------------------------------------------- */

/*
 * As the paper and diffusers' training scripts: the picture's own size, what the crop left out at the top and the left
 * of the picture as it was scaled - of a mirrored one that is its right side -, and the size of the bucket.
 */
kw_status kw__run_sizes(const kw_run *r, kw_arena *a, const kw_batch *b, kw_micro *out, kw_err *e)
{
    if (!base(r)->unet.add_dim || r->align)
        return KW_OK;
    float *sizes = kw_alloc_array(a, b->n * KW_SIZES, sizeof *sizes);
    if (!sizes)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < b->n; i++) {
        const kw_sample *s = &b->samples[i];
        const kw_item *t = &r->data->items[s->item];
        const kw_fit *f = &s->fit;
        int left = s->flip ? f->scaled_w - f->w - f->crop_x : f->crop_x;
        const int row[KW_SIZES] = { t->h, t->w, f->crop_y, left, f->h, f->w };
        for (int k = 0; k < KW_SIZES; k++)
            sizes[i * KW_SIZES + (size_t)k] = (float)row[k];
    }
    out->sizes = sizes;
    return KW_OK;
}
