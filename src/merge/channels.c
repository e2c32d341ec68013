/*
 * channels.c - an inpainting model beside models without a mask: of its first convolution only the channels that all
 * have take part, the others stay as they are.
 *
 *   conv_in.weight (O, 9, 3, 3):  [ x: merged with (O, 4, 3, 3) | mask and masked picture: the first model's ]
 *
 * So inpainting + (custom - base) makes an inpainting model of any other (A1111's rule: the first model has the mask).
 */
#include "models.h"

#include <string.h>

static const char FIRST[] = "conv_in.weight";

static bool is_first(kw_part p, const char *name) { return p == KW_PART_UNET && !strcmp(name, FIRST); }

static bool same_but_inputs(const kw_tensor *x, const kw_tensor *y)
{
    return x->rank == 4 && y->rank == 4 && x->shape[0] == y->shape[0] && x->shape[2] == y->shape[2]
        && x->shape[3] == y->shape[3] && kw__is_float(x->dtype) && kw__is_float(y->dtype);
}

kw_status kw__channels_fit(const kw_merge *m, kw_source *s, kw_part p, const kw_tensor *x, const kw_tensor *y,
                           bool *fit, kw_err *e)
{
    const int64_t latent = m->unet.out;
    *fit = false;
    if (!is_first(p, x->name) || !same_but_inputs(x, y))
        return KW_OK;
    *fit = y->shape[1] == latent && x->shape[1] > latent;
    if (*fit || x->shape[1] != latent || y->shape[1] <= latent)
        return KW_OK;
    kw_status status = kw_fail(e, KW_EDATA, N_("%s has %d input channels, %s has %d"), kw_source_path(s),
                               (int)y->shape[1], kw_source_path(m->r.model[0]), (int)latent);
    return kw_advise(e, status, N_("name the inpainting model first: what the others lack is kept from it"));
}

/* The channels that all have, as f32. */
static kw_status narrowed(kw_merge *m, const kw_tensor *t, int64_t channels, const kw_tensor **made, kw_err *e)
{
    const int64_t window = t->shape[2] * t->shape[3], k = channels * window;
    kw_tensor *out = kw_alloc(m->arena, sizeof *out);
    float *to = kw_alloc_array(m->arena, (size_t)(t->shape[0] * k), sizeof *to);
    if (!out || !to)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int64_t o = 0; o < t->shape[0]; o++)
        kw_convert(KW_F32, to + o * k, t->dtype,
                   (const char *)t->data + (size_t)(o * t->shape[1] * window) * kw_dtype_size(t->dtype), (size_t)k);
    *out = (kw_tensor){ .name = FIRST, .dtype = KW_F32, .rank = 4, .data = to, .bytes = (size_t)(t->shape[0] * k) * 4,
                        .shape = { t->shape[0], channels, t->shape[2], t->shape[3] } };
    *made = out;
    return KW_OK;
}

kw_status kw__channels_read(kw_merge *m, kw_err *e)
{
    int64_t least = INT64_MAX;
    const kw_tensor *t[KW_MERGE_MODELS + 1] = { NULL };
    if (!m->part[KW_PART_UNET])
        return KW_OK;
    for (int i = 0; i <= m->r.n; i++) {
        kw_source *s = i < m->r.n ? m->r.model[i] : m->r.base;
        t[i] = s ? kw_source_find(s, KW_PART_UNET, FIRST) : NULL;
        if (t[i] && t[i]->rank == 4)
            least = KW_MIN(least, t[i]->shape[1]);
    }
    if (!t[0] || t[0]->rank != 4 || t[0]->shape[1] == least)
        return KW_OK;
    m->channels = (int)least;
    m->numbers -= (uint64_t)(kw_tensor_count(t[0]) / t[0]->shape[1] * (t[0]->shape[1] - least));
    for (int i = 0; i <= m->r.n; i++)
        if (t[i] && t[i]->shape[1] != least)
            KW_TRY(narrowed(m, t[i], least, &m->narrow[i], e));
    return KW_OK;
}

void kw__channels_narrow(const kw_merge *m, kw__column *c)
{
    if (!m->channels || !c->t[0] || !is_first(c->part, c->t[0]->name))
        return;
    for (int i = 0; i <= c->n; i++)
        if (m->narrow[i])
            c->t[i] = m->narrow[i];
    c->count = kw_tensor_count(c->t[0]);
}

kw_status kw__channels_combine(const kw_merge *m, const kw__column *c, const kw_tensor *t, float *room, kw_err *e)
{
    const int64_t window = t->shape[2] * t->shape[3], k = m->channels * window;
    float *made = kw_block_new((size_t)c->count * sizeof *made);
    kw_status s = made ? kw__combine(m, c, t->name, made, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s)
        kw_convert(KW_F32, room, t->dtype, t->data, (size_t)kw_tensor_count(t));
    for (int64_t o = 0; !s && o < t->shape[0]; o++)
        memcpy(room + o * t->shape[1] * window, made + o * k, (size_t)k * sizeof *made);
    kw_block_free(made);
    return s;
}

int kw_merge_channels(const kw_merge *m, int *of)
{
    *of = m->unet.in;
    return m->channels;
}
