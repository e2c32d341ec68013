/* shards.c - models cut into several files: NAME.safetensors.index.json says which tensor lies where. */
#include "internal.h"

#include <string.h>

enum { MOST_SHARDS = 1024 };

/* A plain file name: the index of a stranger's model must not reach outside the model's folder. */
static bool is_plain(const char *name)
{
    return *name && !strchr(name, '/') && !strchr(name, '\\') && strcmp(name, ".") && strcmp(name, "..")
        && strlen(name) < 256 && (kw_ends_with(name, ".safetensors") || kw_ends_with(name, ".bin"));
}

static kw_status open_shard(kw_arena *a, kw_tensors *t, const char *dir, const char *name, bool loose,
                            kw_tensors **shard, kw_err *e)
{
    char shown[96];
    if (!is_plain(name))
        return kw_fail(e, KW_EDATA, N_("%s: \"%s\" is not the name of a file in the same folder"), t->path,
                       kw__shown(name, shown));
    for (size_t i = 0; i < t->n_shards; i++)
        if (!strcmp(kw_path_name(t->shards[i]->path), name)) {
            *shard = t->shards[i];
            return KW_OK;
        }
    if (t->n_shards == MOST_SHARDS)
        return kw_fail(e, KW_EDATA, N_("%s: more than %d files"), t->path, MOST_SHARDS);
    char *path = kw_path_join(a, dir, name);
    if (!path)
        return kw__no_memory(e, t->path);
    KW_TRY(kw__tensors_open(a, path, loose, shard, e));
    t->shards[t->n_shards++] = *shard;
    return KW_OK;
}

static kw_status take_tensor(kw_arena *a, kw_tensors *t, const char *dir, const char *name, json_t *file, bool loose,
                             kw_err *e)
{
    char shown[96];
    kw_tensors *shard = NULL;
    if (!json_is_string(file))
        return kw_fail(e, KW_EDATA, N_("%s: \"%s\" names no file"), t->path, kw__shown(name, shown));
    KW_TRY(open_shard(a, t, dir, json_string_value(file), loose, &shard, e));
    const kw_tensor *one = kw_tensors_find(shard, name);
    if (!one)
        return kw_fail(e, KW_EDATA, N_("%s: tensor \"%s\" is not there, though %s says so"), shard->path,
                       kw__shown(name, shown), kw_path_name(t->path));
    t->tensors[t->n++] = *one;
    return KW_OK;
}

kw_status kw__shards_open(kw_arena *a, const char *path, bool loose, kw_tensors **out, kw_err *e)
{
    json_t *index, *file;
    const char *name;
    KW_TRY(kw_json_read(a, path, &index, e));
    json_t *map = json_object_get(index, "weight_map");
    size_t n = json_object_size(map);
    if (!n || n > KW_MAX_TENSORS)
        return kw_fail(e, KW_EDATA, N_("%s: is not an index of tensor files (no weight_map)"), path);
    kw_tensors *t = kw_alloc(a, sizeof *t);
    char *dir = kw_path_dir(a, path);
    if (!t || !dir || !(t->path = kw_strdup(a, path)) || !(t->tensors = kw_alloc_array(a, n, sizeof *t->tensors))
        || !(t->shards = kw_alloc_array(a, MOST_SHARDS, sizeof *t->shards)))
        return kw__no_memory(e, path);
    json_object_foreach(map, name, file)
        KW_TRY(take_tensor(a, t, dir, name, file, loose, e));
    t->meta = t->shards[0]->meta;
    t->n_meta = t->shards[0]->n_meta;
    KW_TRY(kw__tensors_index(a, t, e));
    *out = t;
    return KW_OK;
}
