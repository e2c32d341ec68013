/*
 * model_folder.c - a trained model as a diffusers folder: the source's folder once more, the trained parts' weights
 * new. Everything else goes over byte for byte: untrained parts, tokenizer, scheduler, safety checker, the index.
 */
#include "run_internal.h"

#include <string.h>

enum { DEEPEST = 8 };

/* Folders of a pipeline, where model_index.json does not tell. */
static const char *const usual[] = { "unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2",
                                     "scheduler", "safety_checker", "feature_extractor", "image_encoder" };

static const char *weights_name(kw_part p)
{
    return p == KW_PART_TEXT || p == KW_PART_TEXT2 ? "model.safetensors" : "diffusion_pytorch_model.safetensors";
}

/* x.safetensors, x.fp16.bin, x.safetensors.index.json ...: what would tell of other weights than the ones beside it. */
static bool is_weights(const char *name)
{
    static const char *const kinds[] = { ".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx" };
    for (size_t i = 0; i < KW_LEN(kinds); i++)
        for (const char *s = strstr(name, kinds[i]); s; s = strstr(s + 1, kinds[i])) {
            char after = s[strlen(kinds[i])];
            if (!after || after == '.')
                return true;
        }
    return false;
}

static kw_status copy_file(kw_arena *a, const char *from, const char *to, kw_err *e)
{
    const void *data;
    size_t n;
    KW_TRY(kw_file_map(a, from, &data, &n, e));
    return kw_file_write_atomic(to, data, n, e);
}

static kw_status copy_tree(kw_arena *a, const char *from, const char *to, bool weights, int depth, kw_err *e)
{
    char **names;
    size_t n;
    KW_TRY(kw_mkdirs(to, e));
    KW_TRY(kw_dir_list(a, from, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        char *f = kw_path_join(a, from, names[i]), *t = kw_path_join(a, to, names[i]);
        if (!f || !t)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (kw_is_dir(f) && depth < DEEPEST)
            KW_TRY(copy_tree(a, f, t, weights, depth + 1, e));
        else if (kw_is_file(f) && (weights || !is_weights(names[i])))
            KW_TRY(copy_file(a, f, t, e));
    }
    return KW_OK;
}

/* ---- which folders belong to the model --------------------------------------------------------------------------- */

/* The index of the pipeline; NULL without one, or when it cannot be read: the usual folders are taken then. */
static json_t *read_index(kw_arena *a, const char *from)
{
    json_t *index = NULL;
    char *path = kw_path_join(a, from, "model_index.json");
    kw_err ignored;
    return path && kw_is_file(path) && !kw_json_read(a, path, &index, &ignored) ? index : NULL;
}

static bool is_component(const json_t *index, const char *name)
{
    for (size_t i = 0; i < KW_LEN(usual); i++)
        if (!strcmp(name, usual[i]))
            return true;
    return json_is_array(json_object_get(index, name));
}

static bool is_trained(const kw_run *r, const char *folder)
{
    for (int p = 0; p < KW_N_PARTS; p++)
        if (r->tc.parts & 1u << p && !strcmp(folder, kw_part_name((kw_part)p)))
            return true;
    return false;
}

/*
 * Weights at the top are the trained part's own (the folder of a part alone), or another form of the whole model, which
 * the trained one is no longer: neither goes over. Other folders at the top - runs, caches - and hidden files stay.
 */
static kw_status copy_model(const kw_run *r, kw_arena *a, const char *from, const char *to, kw_err *e)
{
    char **names;
    size_t n;
    json_t *index = read_index(a, from);
    KW_TRY(kw_dir_list(a, from, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        char *f = kw_path_join(a, from, names[i]), *t = kw_path_join(a, to, names[i]);
        if (!f || !t)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (names[i][0] == '.')
            continue;
        if (kw_is_dir(f) && is_component(index, names[i]))
            KW_TRY(copy_tree(a, f, t, !is_trained(r, names[i]), 1, e));
        else if (kw_is_file(f) && !is_weights(names[i]))
            KW_TRY(copy_file(a, f, t, e));
    }
    return KW_OK;
}

/* ---- the trained parts ------------------------------------------------------------------------------------------- */

/* transformers reads no file that does not say whose layout its tensors have. */
static kw_status save_part(kw_arena *a, const kw_source *s, kw_part p, const kw_values *v, size_t n, kw_dtype type,
                           const char *to, kw_err *e)
{
    const kw_tensors *file = kw_source_file(s, p);
    char *own = kw_path_join(a, kw_source_path(s), kw_part_name(p));
    if (!own)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    bool alone = !kw_starts_with(kw_tensors_path(file), own);                /* the source is the folder of this part */
    char *path = alone ? kw_path_join(a, to, weights_name(p))
                       : kw_sprintf(a, "%s/%s/%s", to, kw_part_name(p), weights_name(p));
    kw_meta meta[KW__STALE + 1];
    size_t n_meta = kw__stale_metadata(meta);
    if (!kw_tensors_meta(file, "format"))
        meta[n_meta++] = (kw_meta){ "format", "pt" };
    return path ? kw_source_save(s, p, v, n, type, meta, n_meta, path, e) : kw_fail(e, KW_ENOMEM, "out of memory");
}

static kw_status fill(const kw_run *r, kw_arena *a, const kw_source *s, const kw_values *v, size_t n, kw_dtype type,
                      const char *to, kw_err *e)
{
    KW_TRY(copy_model(r, a, kw_source_path(s), to, e));
    for (int p = 0; p < KW_N_PARTS; p++)
        if (r->tc.parts & 1u << p && kw_source_has(s, (kw_part)p))
            KW_TRY(save_part(a, s, (kw_part)p, v, n, type, to, e));
    return KW_OK;
}

kw_status kw__save_model_folder(const kw_run *r, kw_arena *a, const kw_source *s, const kw_values *v, size_t n,
                                kw_dtype type, const char *path, kw_err *e)
{
    char *temp, *dir = kw_path_dir(a, path);
    if (!dir)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw_temp_dir(a, dir, &temp, e));
    kw_status st = fill(r, a, s, v, n, type, temp, e);
    if (!st)
        st = kw_remove_all(path, e);
    if (!st)
        st = kw_temp_dir_commit(temp, path, e);
    if (st) {
        kw_status ignored = kw_remove_all(temp, NULL);          /* the first error counts */
        (void)ignored;
    }
    return st;
}
