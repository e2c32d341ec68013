/* convert_lora.c - kiwame convert --names: a LoRA in another program's names. */
#include "convert_show.h"

#include "adapter/adapter.h"

static kw_status names_of(kw_cli *c, const char *base, kw_lora_names *names, kw_err *e)
{
    kw_source *s;
    kw_unet_config u;
    KW_TRY(kw_source_open(c->arena, base, &s, e));
    if (!kw_source_has(s, KW_PART_UNET))
        return kw_fail(e, KW_EDATA, N_("%s has no %s"), base, kw_part_name(KW_PART_UNET));
    KW_TRY(kw_unet_read(kw_source_config(s, KW_PART_UNET), &u, e));
    *names = kw_lora_names_of(&u);
    return KW_OK;
}

kw_status kw_convert_lora(kw_cli *c, const char *from, const char *to, const char *base, int names, bool overwrite,
                          bool plan, kw_err *e)
{
    kw_lora_file *f;
    kw_lora_names of_base;
    bool file = names == KW_LORA_KOHYA || (names == KW_LORA_DIFFUSERS && kw_ends_with(to, ".safetensors"));
    if (names == KW_LORA_KOHYA && !kw_ends_with(to, ".safetensors"))
        return kw_fail(e, KW_EUSAGE, N_("%s: kohya's LoRAs are files that end in .safetensors"), to);
    if (base)
        KW_TRY(names_of(c, base, &of_base, e));
    KW_TRY(kw_lora_file_open(c->arena, from, base ? &of_base : NULL, &f, e));
    if (!overwrite && (kw_is_file(to) || kw_is_dir(to)))
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s is already there"), to), N_("--overwrite replaces it"));
    if (!c->global.json && !c->global.quiet)
        fprintf(stderr, _(N_("%s: %zu layers, %s -> %s%s\n")), from, f->n, _(kw_dialect_name(f->dialect)), to,
                file ? "" : "/");
    if (plan)
        return KW_OK;
    kw_guard_begin();
    kw_status s = kw_lora_convert(c->arena, f, (kw_lora_form)names, to, e);
    kw_guard_end();
    KW_TRY(s);
    if (c->global.json) {
        kw_str o = { 0 };
        kw_str_add(&o, "{\"from\":");
        kw_show_json_text(&o, from);
        kw_str_add(&o, ",\"to\":");
        kw_show_json_text(&o, to);
        kw_str_printf(&o, ",\"layers\":%zu}", f->n);
        puts(o.s ? o.s : "{}");
        kw_str_free(&o);
    }
    return KW_OK;
}
