/* product.c - the files people use: a LoRA in kohya's format, or a model with its trained parts replaced. */
#include "run_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *product_name(const kw_run *r, kw_arena *a, int64_t epoch, int64_t step)
{
    if (epoch >= 0)
        return kw_sprintf(a, "%s/%s-%06lld", r->dir, r->s.name, (long long)epoch);
    if (step >= 0)
        return kw_sprintf(a, "%s/%s-step%08lld", r->dir, r->s.name, (long long)step);
    return kw_sprintf(a, "%s/%s", r->dir, r->s.name);
}

static kw_status refuse_nan(const kw_tensor *t, size_t n, kw_err *e)
{
    for (size_t i = 0; i < n; i++)
        for (int64_t k = 0; t[i].dtype == KW_F32 && k < kw_tensor_count(&t[i]); k++)
            if (!__builtin_isfinite(((const float *)t[i].data)[k]))
                return kw_fail(e, KW_ENUMERIC, "%s is not finite: nothing was saved", t[i].name);
    return KW_OK;
}

/* ---- a whole model folder: the base's files, with the trained parts' weights replaced -------------------------------- */

typedef struct { kw_source *source; kw_part part; const kw_tensor *trained; size_t n; kw_dtype type; void *buffer; } merge;

static const kw_tensor *trained_tensor(const merge *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (!strcmp(m->trained[i].name, name))
            return &m->trained[i];
    return NULL;
}

/* Untrained tensors go over byte for byte. */
static kw_status give(void *user, size_t i, const void **data, kw_err *e)
{
    merge *m = user;
    (void)e;
    const kw_tensor *raw = kw_source_raw(m->source, m->part, i), *t = trained_tensor(m, raw->name);
    *data = t ? t->data : raw->data;
    return KW_OK;
}

static kw_status save_part(kw_run *r, kw_arena *a, kw_part part, const kw_tensor *trained, size_t n, const char *path, kw_err *e)
{
    const kw_sd *sd = kw_trainer_base(r->trainer);
    merge m = { .source = part == KW_PART_VAE ? sd->vae_source : sd->source, .part = part, .trained = trained, .n = n };
    size_t count = kw_source_n(m.source, part);
    kw_tensor *list = kw_alloc_array(a, count, sizeof *list);
    if (!list)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) {
        const kw_tensor *raw = kw_source_raw(m.source, part, i), *t = trained_tensor(&m, raw->name);
        list[i] = *raw;
        if (t) {
            list[i].dtype = t->dtype;
            list[i].bytes = t->bytes;
        }
    }
    return kw_tensors_save_each(path, list, count, NULL, 0, give, &m, e);
}

static kw_status copy_file(kw_arena *a, const char *from, const char *to, kw_err *e)
{
    const void *data;
    size_t n;
    KW_TRY(kw_file_map(a, from, &data, &n, e));
    return kw_file_write_atomic(to, data, n, e);
}

static bool is_weights(const char *name) { return kw_ends_with(name, ".safetensors") || kw_ends_with(name, ".bin") || kw_ends_with(name, ".index.json"); }

/* Copies a folder's files; weights of trained parts are left out. */
static kw_status copy_folder(kw_arena *a, const char *from, const char *to, bool weights, kw_err *e)
{
    char **names;
    size_t n;
    KW_TRY(kw_mkdirs(to, e));
    KW_TRY(kw_dir_list(a, from, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        char *f = kw_path_join(a, from, names[i]), *t = kw_path_join(a, to, names[i]);
        if (!f || !t)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (kw_is_file(f) && (weights || !is_weights(names[i])))
            KW_TRY(copy_file(a, f, t, e));
    }
    return KW_OK;
}

static const char *weights_name(kw_part p) { return p == KW_PART_TEXT || p == KW_PART_TEXT2 ? "model.safetensors" : "diffusion_pytorch_model.safetensors"; }

static kw_status save_folder(kw_run *r, kw_arena *a, const kw_tensor *t, size_t n, const char *path, kw_err *e)
{
    static const char *const folders[] = { "unet", "vae", "text_encoder", "tokenizer", "scheduler" };
    const char *from = r->s.base;
    char *temp, *dir = kw_path_dir(a, path);
    KW_TRY(kw_temp_dir(a, dir, &temp, e));
    KW_TRY(copy_folder(a, from, temp, true, e));
    for (size_t i = 0; i < KW_LEN(folders); i++) {
        char *f = kw_path_join(a, from, folders[i]), *to = kw_path_join(a, temp, folders[i]);
        bool trained = i < 3 && (r->tc.parts & 1u << i);
        if (f && to && kw_is_dir(f))
            KW_TRY(copy_folder(a, f, to, !trained, e));
    }
    for (int p = 0; p < KW_N_PARTS; p++)
        if (r->tc.parts & 1u << p) {
            char *file = kw_sprintf(a, "%s/%s/%s", temp, kw_part_name((kw_part)p), weights_name((kw_part)p));
            KW_TRY(save_part(r, a, (kw_part)p, t, n, file, e));
        }
    KW_TRY(kw_remove_all(path, e));
    return kw_temp_dir_commit(temp, path, e);
}

static kw_status save(kw_run *r, kw_arena *a, int64_t epoch, int64_t step, kw_err *e)
{
    static const kw_dtype types[] = { KW_F16, KW_F32, KW_BF16 };
    kw_tensor *t, *checked;
    size_t n = 0;
    char *name = product_name(r, a, epoch, step);
    KW_TRY(kw_trainer_tensors(a, r->trainer, false, KW_F32, &checked, &n, e));
    KW_TRY(refuse_nan(checked, n, e));
    KW_TRY(kw_trainer_tensors(a, r->trainer, false, types[r->s.save_dtype], &t, &n, e));
    if (!name)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!r->tc.lora)
        KW_TRY(save_folder(r, a, t, n, name, e));
    else {
        name = kw_sprintf(a, "%s.safetensors", name);
        KW_TRY(kw__save_lora(r, a, name, t, n, epoch, e));
    }
    r->result = kw_strdup(r->arena, name);
    kw__watch_save(r, name);
    return KW_OK;
}

kw_status kw__product_save(kw_run *r, int64_t epoch, int64_t step, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    kw_status s = a ? save(r, a, epoch, step, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_arena_free(a);
    return s;
}
