/* sd.c - a whole Stable Diffusion: which parts there are, their configurations, and where their weights come from. */
#include "model.h"

static int select_part(void *chosen, const char *name)
{
    const struct { kw_sd_select *select; void *ctx; kw_part part; } *c = chosen;
    return c->select(c->ctx, c->part, name);
}

static kw_status add_part(kw_arena *a, kw_sd *s, kw_part p, kw_source *source, kw_dtype exact, kw_sd_select *select,
                          void *ctx, kw_err *e)
{
    s->of[p] = (kw_part_of){ source, p };
    s->chosen[p].select = select;
    s->chosen[p].ctx = ctx;
    s->chosen[p].part = p;
    kw_params_source from = { .find = kw_part_find, .find_ctx = &s->of[p], .select = select ? select_part : NULL,
                              .select_ctx = &s->chosen[p], .exact = exact };
    s->has[p] = kw_source_has(source, p);
    s->params[p] = kw_params_new(a, s->store, &from);
    return s->params[p] ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

static bool is_inside(const char *name)
{
    static const char *const outside[] = { "conv_in.", "conv_out.", "time_embedding.", "add_embedding.",
                                           "class_embedding." };
    for (size_t i = 0; i < KW_LEN(outside); i++)
        if (kw_starts_with(name, outside[i]))
            return false;
    return true;
}

void kw_sd_int8(kw_sd *s) { kw_params_int8(s->params[KW_PART_UNET], is_inside); }

static kw_status read_configs(kw_sd *s, kw_err *e)
{
    if (s->has[KW_PART_UNET])
        KW_TRY(kw_unet_read(kw_source_config(s->source, KW_PART_UNET), &s->unet, e));
    if (s->has[KW_PART_VAE])
        KW_TRY(kw_vae_read(kw_source_config(s->vae_source, KW_PART_VAE), &s->vae, e));
    if (s->has[KW_PART_TEXT])
        KW_TRY(kw_clip_read(kw_source_config(s->source, KW_PART_TEXT), &s->text, e));
    if (!s->has[KW_PART_TEXT2])
        return KW_OK;
    const kw_tensor *projection = kw_source_find(s->source, KW_PART_TEXT2, "text_projection.weight");
    KW_TRY(kw_clip_read(kw_source_config(s->source, KW_PART_TEXT2), &s->text2, e));
    s->text2.projection = projection ? (int)projection->shape[0] : 0;      /* whatever the configuration calls itself */
    return KW_OK;
}

kw_status kw_sd_open(kw_arena *a, const char *path, const char *vae, kw_store *store, kw_dtype exact,
                     kw_sd_select *select, void *ctx, kw_sd **out, kw_err *e)
{
    kw_source *source, *vae_source = NULL;
    KW_TRY(kw_source_open(a, path, &source, e));
    if (vae)
        KW_TRY(kw_source_open(a, vae, &vae_source, e));
    return kw_sd_over(a, source, vae_source, store, exact, select, ctx, out, e);
}

kw_status kw_sd_over(kw_arena *a, kw_source *source, kw_source *vae_source, kw_store *store, kw_dtype exact,
                     kw_sd_select *select, void *ctx, kw_sd **out, kw_err *e)
{
    kw_sd *s = kw_alloc(a, sizeof *s);
    if (!s)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    s->store = store;
    s->source = source;
    s->vae_source = vae_source ? vae_source : source;
    for (int p = 0; p < KW_N_PARTS; p++)
        KW_TRY(add_part(a, s, (kw_part)p, p == KW_PART_VAE ? s->vae_source : s->source, exact, select, ctx, e));
    KW_TRY(read_configs(s, e));
    *out = s;
    return KW_OK;
}
