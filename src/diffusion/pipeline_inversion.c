/*
 * pipeline_inversion.c - textual inversions of a pipeline: names for prompts, vectors for the text encoders' programs.
 *
 *   tokens -> rows of the table · keep + put -> encoder       keep 1, put 0 for tokens; keep 0, put a vector for names
 */
#include "pipeline_internal.h"

#include <string.h>

static int encoders(const kw_pipeline *p) { return kw_sd_encoders(p->sd); }
static int width_of(const kw_pipeline *p, int encoder) { return kw_sd_clip(p->sd, encoder)->width; }

/* ---- does it fit? ------------------------------------------------------------------------------------------------ */

static const char *family(const kw_inversion *v)
{
    if (v->n_parts == 2)
        return N_("SDXL");
    return v->part[0].width == 768 ? N_("Stable Diffusion 1.x") : v->part[0].width == 1024 ? N_("Stable Diffusion 2.x")
           : v->part[0].width == 1280 ? N_("SDXL") : NULL;
}

static kw_status misfit(const kw_pipeline *p, const char *path, const kw_inversion *v, kw_err *e)
{
    const char *made_for = family(v);
    kw_status s;
    if (v->n_parts != encoders(p))
        s = kw_fail(e, KW_EDATA, N_("%s: an embedding for %d text encoders; this base has %d"), path, v->n_parts,
                    encoders(p));
    else
        s = kw_fail(e, KW_EDATA, N_("%s: vectors of %d numbers; this base's text encoder takes %d"), path,
                    v->part[0].width, width_of(p, 0));
    return made_for ? kw_advise(e, s, N_("it was made for %s; use it with such a base"), kw_translate(made_for)) : s;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static kw_status add_word(kw_pipeline *p, const char *name, int row, int n, kw_err *e)
{
    for (int k = 0; k < encoders(p); k++) {
        kw_new_words *w = &p->words[k];
        for (size_t i = 0; i < w->n; i++)
            if (!strcmp(w->word[i].name, name))
                return kw_fail(e, KW_EUSAGE, N_("two embeddings are called \"%s\""), name);
        size_t room = w->n;               /* full: grows by one or more each time */
        KW_TRY(kw_grow(p->arena, &w->word, &room, w->n, sizeof *w->word, e));
        KW_TRY(kw_new_word_make(p->tokenizer[k], p->arena, name, n, row, &w->word[w->n], e));
        w->n++;
    }
    return KW_OK;
}

kw_status kw__inversion_add(kw_pipeline *p, const char *path, const kw_inversion *v, kw_err *e)
{
    kw__inversion one = { .name = v->name, .n = v->part[0].n };
    bool fits = v->n_parts == encoders(p);
    for (int i = 0; fits && i < encoders(p); i++) {
        fits = v->part[i].width == width_of(p, i);
        one.vectors[i] = v->part[i].vectors;
    }
    if (!fits)
        return misfit(p, path, v, e);
    KW_TRY(add_word(p, v->name, (int)p->inversion_rows, one.n, e));
    if (v->placeholder && strcmp(v->placeholder, v->name))
        KW_TRY(add_word(p, v->placeholder, (int)p->inversion_rows, one.n, e));
    KW_TRY(kw_grow(p->arena, &p->inversion, &p->inversion_room, p->n_inversions, sizeof one, e));
    p->inversion[p->n_inversions++] = one;
    p->inversion_rows += (size_t)one.n;
    return KW_OK;
}

kw_status kw_pipeline_add_inversion(kw_pipeline *p, const char *path, kw_err *e)
{
    kw_inversion v;
    KW_TRY(kw_inversion_read(p->arena, path, &v, e));
    return kw__inversion_add(p, path, &v, e);
}

size_t kw_pipeline_inversions(const kw_pipeline *p) { return p->n_inversions; }

const char *kw_pipeline_inversion(const kw_pipeline *p, size_t i)
{
    return i < p->n_inversions ? p->inversion[i].name : NULL;
}

/* ---- vectors ----------------------------------------------------------------------------------------------------- */

bool kw__inversion_used(const kw_windows *w)
{
    for (size_t i = 0; w->rows && i < w->n * w->width; i++)
        if (w->rows[i] >= 0)
            return true;
    return false;
}

static const char *const keep_name[KW_ENCODERS] = { "keep", "keep2" };
static const char *const put_name[KW_ENCODERS] = { "put", "put2" };

const kw_clip_vectors *kw__inversion_inputs(const kw_pipeline *p, kw_graph *g, const kw__program_key *k, int encoder,
                                            kw_clip_vectors *v)
{
    kw_shape s = KW_SHAPE(k->n, k->tokens, width_of(p, encoder));
    if (!k->vectors)
        return NULL;
    v->keep = kw_input(g, keep_name[encoder], s, KW_F32);
    v->put = kw_input(g, put_name[encoder], s, KW_F32);
    return v;
}

size_t kw__inversion_of(const kw_pipeline *p, size_t row)
{
    size_t i = 0;
    while (row >= (size_t)p->inversion[i].n)
        row -= (size_t)p->inversion[i++].n;
    return i;
}

static const float *vector_of(const kw_pipeline *p, int encoder, size_t row)
{
    size_t i = kw__inversion_of(p, row), first = 0;
    for (size_t k = 0; k < i; k++)
        first += (size_t)p->inversion[k].n;
    return p->inversion[i].vectors[encoder] + (row - first) * (size_t)width_of(p, encoder);
}

kw_status kw__inversion_set(kw_pipeline *p, kw_arena *a, kw_program *program, int encoder, const kw_windows *w,
                            kw_err *e)
{
    size_t n = w->n * w->width, width = (size_t)width_of(p, encoder);
    float *keep = kw_alloc_array(a, n * width, sizeof *keep), *put = kw_alloc_array(a, n * width, sizeof *put);
    if (!keep || !put)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < width && w->rows[i] < 0; k++)
            keep[i * width + k] = 1;
        if (w->rows[i] >= 0)
            memcpy(put + i * width, vector_of(p, encoder, (size_t)w->rows[i]), width * sizeof *put);
    }
    kw_program_set(program, keep_name[encoder], keep);
    kw_program_set(program, put_name[encoder], put);
    return KW_OK;
}
