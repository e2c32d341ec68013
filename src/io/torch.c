/* torch.c - the containers of PyTorch's checkpoints: where the pickle lies, and where the numbers. */
#include "torch.h"
#include "zip.h"

#include <stdlib.h>
#include <string.h>

static const unsigned char magic[] = { 0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19 };

static bool is_tar(const char *p, size_t n) { return n >= 512 && !memcmp(p + 257, "ustar", 5); }
static bool is_pickle(const char *p, size_t n) { return n >= 2 && p[0] == '\x80' && p[1] >= 2 && p[1] <= 5; }
static bool is_zip(const char *p, size_t n) { return n >= 4 && !memcmp(p, "PK\x03\x04", 4); }

bool kw__is_torch(const char *p, size_t n) { return is_zip(p, n) || is_pickle(p, n) || is_tar(p, n); }

kw_status kw__torch_bad(kw__torch *t, const char *why)
{
    return kw_fail(t->e, KW_EDATA, "%s: %s", t->shown, kw_translate(why));
}

kw_status kw__torch_cut(kw__torch *t)
{
    return kw_advise(t->e, kw__torch_bad(t, N_("is cut off")),
                     N_("the file is damaged or its download was cut off: get it again"));
}

kw_status kw__torch_pickle(kw__torch *t, uint64_t *at, uint64_t end, kw__value **v)
{
    size_t used = 0;
    uint64_t n = KW_MIN(end - *at, (uint64_t)KW__MOST_PICKLE);
    KW_TRY(kw__pickle_read(t->arena, t->shown, t->data + *at, (size_t)n, v, &used, t->e));
    *at += used;
    return KW_OK;
}

/* ---- storages ---------------------------------------------------------------------------------------------------- */

static int order(const char *a, size_t n, const char *b, size_t m)
{
    int c = memcmp(a, b, KW_MIN(n, m));
    return c ? c : (n > m) - (n < m);
}

static int by_key(const void *x, const void *y)
{
    const kw__storage *a = x, *b = y;
    return order(a->key, a->n_key, b->key, b->n_key);
}

kw_status kw__storage_add(kw__torch *t, const char *key, size_t n_key, const char *data, uint64_t bytes)
{
    KW_TRY(kw_grow(t->arena, &t->storages, &t->capacity, t->n_storages, sizeof *t->storages, t->e));
    t->storages[t->n_storages++] = (kw__storage){ .key = key, .n_key = n_key, .data = data, .bytes = bytes };
    return KW_OK;
}

void kw__storages_sort(kw__torch *t)
{
    if (t->n_storages)
        qsort(t->storages, t->n_storages, sizeof *t->storages, by_key);
}

kw__storage *kw__storage_find(const kw__torch *t, const char *key, size_t n_key)
{
    kw__storage k = { .key = key, .n_key = n_key };
    return t->n_storages ? bsearch(&k, t->storages, t->n_storages, sizeof k, by_key) : NULL;
}

/* ---- zip --------------------------------------------------------------------------------------------------------- */

/* The one entry that ends with /data.pkl; its folder is the archive's name. */
static kw_status find_pickle(kw__torch *t, const kw__zip *zip, const kw__zip_entry **pickle)
{
    bool script = false;
    *pickle = NULL;
    for (size_t i = 0; i < zip->n; i++) {
        const char *slash = strchr(zip->entries[i].name, '/');
        script |= slash && !strcmp(slash, "/constants.pkl");
        if (!slash || strcmp(slash, "/data.pkl"))
            continue;
        if (*pickle)
            return kw__torch_bad(t, N_("is a zip archive with two checkpoints in it"));
        *pickle = &zip->entries[i];
    }
    if (script)
        return kw__torch_bad(t, N_("is a TorchScript program, not a checkpoint of weights"));
    return *pickle ? KW_OK : kw_advise(t->e, kw__torch_bad(t, N_("is a zip archive, but not a PyTorch checkpoint")),
                                       N_("if the model lies inside of it, unpack it first"));
}

static kw_status check_byte_order(kw__torch *t, const kw__zip *zip, const char *head, size_t n)
{
    char *name = kw_sprintf(t->arena, "%.*s/byteorder", (int)n, head);
    const kw__zip_entry *one = name ? kw__zip_find(zip, name) : NULL;
    const void *text = NULL;
    if (!name)
        return kw__no_memory(t->e, t->shown);
    if (one)
        KW_TRY(kw__zip_read(t->arena, t->shown, one, 16, &text, t->e));
    return one && (one->size != 6 || memcmp(text, "little", 6))
        ? kw__torch_bad(t, N_("has big-endian numbers, which are not supported")) : KW_OK;
}

/* Numbers stay where they are in the file, so they cannot be compressed; every byte of them is compared first. */
static kw_status add_entry(kw__torch *t, const kw__zip_entry *one, const char *key)
{
    if (one->compressed)
        return kw_advise(t->e, kw_fail(t->e, KW_EDATA, N_("%s: its numbers are compressed, which PyTorch's are not"),
                                       t->shown), N_("if the model lies inside of an archive, unpack it first"));
    KW_TRY(kw__zip_check(t->shown, one, t->mapped, t->e));
    return kw__storage_add(t, key, strlen(key), one->data, one->size);
}

static kw_status read_zip(kw__torch *t)
{
    kw__zip zip;
    const kw__zip_entry *pickle = NULL;
    const void *text = NULL;
    size_t used = 0, n = 0;
    KW_TRY(kw__zip_open(t->arena, t->shown, t->data, (size_t)t->size, &zip, t->e));
    KW_TRY(find_pickle(t, &zip, &pickle));
    n = (size_t)(strchr(pickle->name, '/') - pickle->name);
    if (pickle->size > KW__MOST_PICKLE)
        return kw__torch_bad(t, N_("its pickle has more than 64 MB"));
    KW_TRY(kw__zip_read(t->arena, t->shown, pickle, KW__MOST_PICKLE, &text, t->e));
    KW_TRY(check_byte_order(t, &zip, pickle->name, n));
    for (size_t i = 0; i < zip.n; i++) {
        const kw__zip_entry *one = &zip.entries[i];
        if (!strncmp(one->name, pickle->name, n + 1) && !strncmp(one->name + n, "/data/", 6))
            KW_TRY(add_entry(t, one, one->name + n + 6));
    }
    kw__storages_sort(t);
    return kw__pickle_read(t->arena, t->shown, text, (size_t)pickle->size, &t->root, &used, t->e);
}

/* ---- legacy ------------------------------------------------------------------------------------------------------ */

/* A persistent id of the object's pickle: ("storage", type, key, place, count, view); how large are its numbers? */
typedef struct { const kw__value *key; uint64_t size; } sized;

static uint64_t size_of(const kw__value *id)
{
    if (id->kind != KW__STORED || id->n < 5 || id->items[1]->kind != KW__GLOBAL)
        return 0;
    const kw__global *g = id->items[1]->of.global;
    return g->role == KW__STORAGE || g->role == KW__UNTYPED ? kw_dtype_size(g->dtype) : 0;
}

typedef struct { kw__torch *t; sized *list; size_t n, capacity; size_t left; } sizes;

/* Every place where the object names stored numbers; at most as many steps as a pickle has values. */
static kw_status collect(sizes *s, const kw__value *v, int depth)
{
    if (depth > 32 || !s->left || !--s->left)
        return kw__torch_bad(s->t, N_("its values are nested more deeply than in a checkpoint"));
    uint64_t size = size_of(v);
    if (size) {
        KW_TRY(kw_grow(s->t->arena, &s->list, &s->capacity, s->n, sizeof *s->list, s->t->e));
        s->list[s->n++] = (sized){ v->items[2], size };
        return KW_OK;
    }
    if (v->kind == KW__TUPLE || v->kind == KW__LIST || v->kind == KW__DICT || v->kind == KW__CALL)
        for (size_t i = 0; i < v->n; i++)
            KW_TRY(collect(s, v->items[i], depth + 1));
    return KW_OK;
}

static int by_sized_key(const void *x, const void *y)
{
    const kw__value *a = ((const sized *)x)->key, *b = ((const sized *)y)->key;
    return a->kind != KW__TEXT || b->kind != KW__TEXT ? (a->kind > b->kind) - (a->kind < b->kind)
         : order(a->of.text, a->n, b->of.text, b->n);
}

static kw_status read_storages(kw__torch *t, const kw__value *keys, const sizes *s, uint64_t at)
{
    for (size_t i = 0; i < keys->n; i++) {
        sized wanted = { .key = keys->items[i] };
        const sized *one = s->n ? bsearch(&wanted, s->list, s->n, sizeof wanted, by_sized_key) : NULL;
        uint64_t count, bytes;
        if (keys->items[i]->kind != KW__TEXT || !one)
            return kw__torch_bad(t, N_("lists numbers that its pickle does not name"));
        if (t->size - at < 8)
            return kw__torch_cut(t);
        memcpy(&count, t->data + at, 8);
        at += 8;
        if (!kw_mul_size(count, one->size, &bytes) || bytes > t->size - at)
            return kw__torch_cut(t);
        KW_TRY(kw__storage_add(t, keys->items[i]->of.text, keys->items[i]->n, t->data + at, bytes));
        at += bytes;
    }
    kw__storages_sort(t);
    return at == t->size ? KW_OK : kw__torch_bad(t, N_("has bytes after the last numbers"));
}

static bool is_truth(const kw__value *v, bool truth) { return v && v->kind == KW__BOOL && v->of.i == truth; }

static kw_status read_legacy(kw__torch *t)
{
    kw__value *first = NULL, *version = NULL, *machine = NULL, *keys = NULL;
    uint64_t at = 0;
    sizes s = { .t = t, .left = KW__MOST_NODES };
    if (t->size < sizeof magic + 1 || t->data[1] != 2 || memcmp(t->data, magic, sizeof magic))
        return kw_advise(t->e, kw__torch_bad(t, N_("is a pickle that PyTorch did not write")),
                         N_("look for the .safetensors file of the same model"));
    KW_TRY(kw__torch_pickle(t, &at, t->size, &first));
    KW_TRY(kw__torch_pickle(t, &at, t->size, &version));
    if (version->kind != KW__INT || version->of.i != 1001)
        return kw__torch_bad(t, N_("is a checkpoint of an unknown version"));
    KW_TRY(kw__torch_pickle(t, &at, t->size, &machine));
    if (is_truth(kw__pickle_get(machine, "little_endian"), false))
        return kw__torch_bad(t, N_("has big-endian numbers, which are not supported"));
    KW_TRY(kw__torch_pickle(t, &at, t->size, &t->root));
    KW_TRY(kw__torch_pickle(t, &at, t->size, &keys));
    KW_TRY(collect(&s, t->root, 0));
    if (s.n)
        qsort(s.list, s.n, sizeof *s.list, by_sized_key);
    return keys->kind == KW__LIST ? read_storages(t, keys, &s, at)
                                  : kw__torch_bad(t, N_("has no list of its numbers"));
}

/* ---- all three --------------------------------------------------------------------------------------------------- */

kw_status kw__torch_parse(kw_arena *a, const char *shown, const void *p, size_t n, bool mapped, bool loose,
                          kw_tensors **out, kw_err *e)
{
    kw__torch t = { .arena = a, .data = p, .size = n, .mapped = mapped, .loose = loose, .e = e };
    kw_tensors *made = kw_alloc(a, sizeof *made);
    if (!made || !(made->path = t.shown = kw_strdup(a, shown)))
        return kw__no_memory(e, shown);
    KW_TRY(is_zip(p, n) ? read_zip(&t) : is_tar(p, n) ? kw__torch_tar(&t) : read_legacy(&t));
    KW_TRY(kw__torch_tensors(&t, made));
    KW_TRY(kw__tensors_index(a, made, e));
    *out = made;
    return KW_OK;
}
