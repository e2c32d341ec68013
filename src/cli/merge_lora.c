/* merge_lora.c - LoRAs on the command line of merge and extract: FILE:STRENGTH in, one file with its metadata out. */
#include "lora_option.h"
#include "merge_show.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

kw_status kw_merge_lora_open(kw_cli *c, const char *text, const kw_lora_names *names, kw_merge_lora *out, kw_err *e)
{
    kw_lora_option o;
    KW_TRY(kw_lora_option_read(c->arena, text, &o, e));
    *out = (kw_merge_lora){ .unet = o.unet, .text = o.te, .blocks = o.factors };
    return kw_lora_file_open(c->arena, o.path, names, &out->file, e);
}

static char *stem(kw_arena *a, const char *path)
{
    const char *name = kw_path_name(path), *dot = strrchr(name, '.');
    return kw_strndup(a, name, dot && dot > name ? (size_t)(dot - name) : strlen(name));
}

static char *rank_text(kw_arena *a, const kw_made_lora *l)
{
    for (size_t i = 1; i < l->n_layers; i++)
        if (l->layer[i].rank != l->layer[0].rank)
            return kw_strdup(a, "Dynamic");           /* kohya's word */
    return kw_sprintf(a, "%d", l->n_layers ? l->layer[0].rank : 0);
}

static char *alpha_text(kw_arena *a, const kw_made_lora *l)
{
    const float *alpha = l->n >= 3 ? l->t[2].data : NULL;        /* of the first layer: down, up, alpha */
    return kw_sprintf(a, "%.9g", alpha ? (double)*alpha : 1);
}

kw_status kw_made_save(kw_cli *c, const kw_made_lora *l, const kw_made_about *about, kw_err *e)
{
    const char *rank = rank_text(c->arena, l), *alpha = alpha_text(c->arena, l),
               *title = stem(c->arena, about->to);
    const char *family = about->xl ? "stable-diffusion-xl-v1-base/lora" : !about->v2 ? "stable-diffusion-v1/lora"
        : about->v ? "stable-diffusion-v2-768-v/lora" : "stable-diffusion-v2-512/lora";
    char model[65], legacy[9];
    kw_meta meta[16];
    size_t n = 0;
    if (!rank || !alpha || !title)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    meta[n++] = (kw_meta){ "ss_network_module", "networks.lora" };
    meta[n++] = (kw_meta){ "ss_network_dim", rank };
    meta[n++] = (kw_meta){ "ss_network_alpha", alpha };
    meta[n++] = (kw_meta){ "ss_base_model_version", about->xl ? "sdxl_base_v1-0" : about->v2 ? "sd_v2" : "sd_v1" };
    meta[n++] = (kw_meta){ "ss_v2", about->v2 ? "True" : "False" };
    const size_t n_ss = n;
    KW_TRY(kw_tensors_hash_list(l->t, l->n, meta, n_ss, model, legacy, e));
    meta[n++] = (kw_meta){ "sshs_model_hash", model };
    meta[n++] = (kw_meta){ "sshs_legacy_hash", legacy };
    meta[n++] = (kw_meta){ "modelspec.sai_model_spec", "1.0.1" };
    meta[n++] = (kw_meta){ "modelspec.architecture", family };
    meta[n++] = (kw_meta){ "modelspec.title", title };
    meta[n++] = (kw_meta){ "modelspec.prediction_type", about->v ? "v" : "epsilon" };
    if (about->merged_from)
        meta[n++] = (kw_meta){ "modelspec.merged_from", about->merged_from };
    meta[n++] = (kw_meta){ "kiwame.merge", about->how };
    kw_guard_begin();
    kw_status s = kw_tensors_save(about->to, l->t, l->n, meta, n, e);
    kw_guard_end();
    return s;
}
