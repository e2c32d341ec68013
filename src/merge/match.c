/*
 * match.c - what models must have in common, beyond names and sizes, before one is made of them: what the U-Net
 * predicts, the scale of its latents, the words that token ids stand for. What only one of two files says is no
 * contradiction.
 */
#include "models.h"

#include "text/text.h"

#include <math.h>
#include <string.h>

typedef struct { kw_merge *m; kw_source *a, *b; kw_err *e; } pair;

static kw_status differ(const pair *p, const char *field, const char *b, const char *a, const char *advice)
{
    kw_status s = kw_fail(p->e, KW_EDATA, N_("%s: its %s is %s, that of %s is %s"), kw_source_path(p->b), field, b,
                          kw_source_path(p->a), a);
    return kw_advise(p->e, s, "%s", kw_translate(advice));
}

/* A + x (B - C) may well bring v prediction into a model that predicts noise. */
static kw_status prediction(const pair *p)
{
    const kw_noise_config *a = kw_source_noise(p->a), *b = kw_source_noise(p->b);
    if (p->m->r.method == KW_MERGE_ADD || !p->m->part[KW_PART_UNET] || !a->prediction_known
        || !b->prediction_known || !strcmp(a->prediction_type, b->prediction_type))
        return KW_OK;
    return differ(p, "prediction_type", b->prediction_type, a->prediction_type,
                  N_("only models with the same kind of prediction can be merged"));
}

static kw_status latents(const pair *p)
{
    static const char *const fields[] = { "scaling_factor", "shift_factor" };
    char a[32], b[32];
    if (!kw_source_has(p->a, KW_PART_VAE) || !kw_source_has(p->b, KW_PART_VAE)
        || kw_source_is_inferred(p->a, KW_PART_VAE) || kw_source_is_inferred(p->b, KW_PART_VAE))
        return KW_OK;
    for (size_t i = 0; i < KW_LEN(fields); i++) {
        const json_t *x = json_object_get(kw_source_config(p->a, KW_PART_VAE), fields[i]),
                     *y = json_object_get(kw_source_config(p->b, KW_PART_VAE), fields[i]);
        if (!json_is_number(x) || !json_is_number(y) || fabs(json_number_value(x) - json_number_value(y)) < 1e-9)
            continue;
        snprintf(a, sizeof a, "%g", json_number_value(x));
        snprintf(b, sizeof b, "%g", json_number_value(y));
        return differ(p, fields[i], b, a, N_("their U-Nets were trained on latents of different scales"));
    }
    return KW_OK;
}

static kw_status open_tokenizer(const pair *p, kw_source *s, kw_tokenizer **out)
{
    const char *own = kw_source_tokenizer(s, KW_PART_TEXT);
    return own ? kw_tokenizer_open(p->m->arena, own, out, p->e) : kw_tokenizer_clip(p->m->arena, out, p->e);
}

static kw_status words(const pair *p)
{
    kw_tokenizer *a, *b;
    if (!p->m->part[KW_PART_TEXT]
        || (!kw_source_tokenizer(p->a, KW_PART_TEXT) && !kw_source_tokenizer(p->b, KW_PART_TEXT)))
        return KW_OK;
    KW_TRY(open_tokenizer(p, p->a, &a));
    KW_TRY(open_tokenizer(p, p->b, &b));
    int n = KW_MIN(kw_tokenizer_size(a), kw_tokenizer_size(b)), i = 0;
    while (i < n) {
        const char *x = kw_token_name(a, i), *y = kw_token_name(b, i);
        if (x && y && strcmp(x, y))
            return differ(p, kw_sprintf(p->m->arena, "token %d", i), y, x,
                          N_("their tokenizers differ: the same numbers stand for other words"));
        i++;
    }
    return KW_OK;
}

kw_status kw_merge_match(kw_merge *m, kw_err *e)
{
    kw_err local;
    for (int i = 1; i <= m->r.n; i++) {
        const pair p = { m, m->r.model[0], i < m->r.n ? m->r.model[i] : m->r.base, e ? e : &local };
        if (!p.b)
            continue;
        KW_TRY(prediction(&p));
        KW_TRY(latents(&p));
        KW_TRY(words(&p));
    }
    return KW_OK;
}
