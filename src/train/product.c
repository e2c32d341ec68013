/*
 * product.c - the files people use: a LoRA in kohya's format, or the model with its trained tensors replaced, in the
 * layout it came in: a diffusers folder, or one file under that file's names. What was not trained stays byte for byte.
 */
#include "run_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *product_name(const kw_run *r, kw_arena *a, int64_t epoch, int64_t step)
{
    const char *end = kw__product_is_file(r) ? ".safetensors" : "";
    char *name = epoch >= 0 ? kw_name_of_epoch(a, r->s.name, epoch, end)
               : step >= 0 ? kw_name_of_step(a, r->s.name, step, end) : kw_name_of_last(a, r->s.name, end);
    return name ? kw_path_join(a, r->dir, name) : NULL;
}

static kw_status refuse_nan(const kw_tensor *t, kw_err *e)
{
    for (int64_t k = 0; k < kw_tensor_count(t); k++)
        if ((t->dtype == KW_F32 && !__builtin_isfinite(((const float *)t->data)[k]))
            || (t->dtype == KW_BF16 && !__builtin_isfinite(kw_bf16_to_f32(((const uint16_t *)t->data)[k]))))
            return kw_fail(e, KW_ENUMERIC, "%s is not finite: nothing was saved", t->name);
    return KW_OK;
}

/* ---- the model --------------------------------------------------------------------------------------------------- */

/* What is rewritten: an autoencoder given by --vae is a model of its own. */
static const kw_source *source_of(const kw_run *r)
{
    const kw_sd *sd = kw_trainer_base(r->trainer);
    return r->vae ? sd->vae_source : sd->source;
}

bool kw__product_is_file(const kw_run *r) { return r->tc.lora || kw_source_is_single(source_of(r)); }

/* Hashes of other numbers than these. */
size_t kw__stale_metadata(kw_meta meta[KW__STALE])
{
    static const char *const keys[KW__STALE] = { "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256" };
    for (size_t i = 0; i < KW__STALE; i++)
        meta[i] = (kw_meta){ keys[i], NULL };
    return KW__STALE;
}

static kw_status save_file(const kw_run *r, const kw_values *v, size_t n, kw_dtype type, const char *path, kw_err *e)
{
    kw_meta meta[KW__STALE];
    size_t n_meta = kw__stale_metadata(meta);
    return kw_source_save(source_of(r), v[0].part, v, n, type, meta, n_meta, path, e);
}

static kw_status save_model(kw_run *r, kw_arena *a, kw_dtype type, const char *path, kw_err *e)
{
    kw_values *v;
    size_t n;
    KW_TRY(kw_trainer_values(a, r->trainer, &v, &n, e));
    for (size_t i = 0; i < n; i++)
        KW_TRY(refuse_nan(&v[i].t, e));
    if (!n)
        return kw_fail(e, KW_EDATA, "nothing was trained");
    return kw__product_is_file(r) ? save_file(r, v, n, type, path, e)
                                  : kw__save_model_folder(r, a, source_of(r), v, n, type, path, e);
}

static kw_status save_lora(kw_run *r, kw_arena *a, kw_dtype type, int64_t epoch, const char *path, kw_err *e)
{
    kw_tensor *t;
    size_t n = 0;
    KW_TRY(kw_trainer_tensors(a, r->trainer, KW_F32, &t, &n, e));
    for (size_t i = 0; i < n; i++)
        KW_TRY(refuse_nan(&t[i], e));
    KW_TRY(kw_trainer_tensors(a, r->trainer, type, &t, &n, e));
    return kw__save_lora(r, a, path, t, n, epoch, e);
}

/* ---- both -------------------------------------------------------------------------------------------------------- */

static kw_status save(kw_run *r, kw_arena *a, int64_t epoch, int64_t step, kw_err *e)
{
    static const kw_dtype types[] = { KW_F16, KW_F32, KW_BF16 };
    kw_dtype type = types[r->s.save_dtype];
    char *path = product_name(r, a, epoch, step);
    if (!path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(r->tc.lora ? save_lora(r, a, type, epoch, path, e) : save_model(r, a, type, path, e));
    r->result = kw_strdup(r->arena, path);
    kw__watch_save(r, path);
    return KW_OK;
}

kw_status kw__product_save(kw_run *r, int64_t epoch, int64_t step, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    kw_status s = a ? save(r, a, epoch, step, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_arena_free(a);
    return s;
}

/* The file or folder that is rewritten. */
static const char *origin(const kw_run *r)
{
    const kw_source *s = source_of(r);
    for (int p = 0; p < KW_N_PARTS && kw_source_is_single(s); p++)
        if (kw_source_file(s, (kw_part)p))
            return kw_tensors_path(kw_source_file(s, (kw_part)p));
    return kw_source_path(s);
}

/* A result must not take the place of what it is made from. */
kw_status kw__product_check(const kw_run *r, kw_err *e)
{
    const char *from = origin(r), *path = product_name(r, r->arena, -1, -1);
    struct stat x, y;
    if (!path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (r->tc.lora || kw_io_now->stat(from, &x) || kw_io_now->stat(path, &y) || x.st_dev != y.st_dev
        || x.st_ino != y.st_ino)
        return KW_OK;
    return kw_advise(e, kw_fail(e, KW_EUSAGE, "%s would be replaced by what is trained on it", from),
                     "choose another --name or --out");
}
