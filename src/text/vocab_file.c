/*
 * vocab_file.c - a model's own tokenizer folder, read as transformers 5 reads it for CLIPTokenizer.
 *
 *   vocabulary, merges   vocab.json and merges.txt, else the "model" of tokenizer.json
 *   added tokens         "added_tokens_decoder" of tokenizer_config.json; without it added_tokens.json and the
 *                        "added_tokens" of tokenizer.json, and special_tokens_map.json overrides the configuration
 *   special tokens       bos, eos, unk, pad; an added token of the same spelling says whether it is "normalized", else
 *                        the token's own entry does; a mere string is not; the last of the four that spells it holds
 * The normalizer and the split are CLIP's whatever tokenizer.json says, as in CLIPTokenizer.
 */
#include "bpe.h"

#include "io/io.h"

#include <string.h>

enum { MOST = 64 << 20 };                 /* bytes of one file */

typedef struct {
    kw_arena *a;
    const char *dir;
    json_t *inside;                       /* a model file's: the files' texts, from its metadata; NULL: a folder */
    kw_tokenizer *t;
    json_t *config, *map, *whole;         /* tokenizer_config.json, special_tokens_map.json, tokenizer.json; or NULL */
    kw_special_spec *special;
    size_t n, capacity;
    size_t from_lists;                    /* those that added-token lists gave; the named ones follow */
} folder;

/* ---- files ------------------------------------------------------------------------------------------------ */

static void release(void *json) { json_decref(json); }

static bool has(folder *f, const char *name)
{
    char *path = kw_path_join(f->a, f->dir, name);
    return f->inside ? json_object_get(f->inside, name) != NULL : path && kw_is_file(path);
}

/* A file's text. */
static kw_status get(folder *f, const char *name, const char **text, size_t *n, kw_err *e)
{
    char *path = kw_path_join(f->a, f->dir, name), *data;
    if (!path)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %s"), name);
    if (f->inside) {
        *text = json_string_value(json_object_get(f->inside, name));
        *n = *text ? strlen(*text) : 0;
        return *text ? KW_OK : kw_fail(e, KW_EDATA, N_("%s: not a text"), path);
    }
    KW_TRY(kw_file_read(f->a, path, MOST, &data, n, e));
    *text = data;
    return KW_OK;
}

/* NULL in *json when the file is not there. Integers are read as reals: model_max_length may be 10^30. */
static kw_status read_json(folder *f, const char *name, json_t **json, kw_err *e)
{
    char *path = kw_path_join(f->a, f->dir, name);
    const char *text;
    size_t n;
    json_error_t why;
    *json = NULL;
    if (!path)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %s"), name);
    if (!has(f, name))
        return KW_OK;
    KW_TRY(get(f, name, &text, &n, e));
    size_t skip = n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0;
    *json = json_loadb(text + skip, n - skip, JSON_DECODE_INT_AS_REAL | JSON_REJECT_DUPLICATES, &why);
    if (!*json)
        return kw_fail(e, KW_EDATA, N_("%s: not valid JSON (line %d: %s)"), path, why.line, why.text);
    if (kw_defer(f->a, release, *json))
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %s"), path);
    if (!json_is_object(*json))
        return kw_fail(e, KW_EDATA, N_("%s: not a JSON object"), path);
    return KW_OK;
}

/* ---- vocabulary -------------------------------------------------------------------------------------------- */

/* -1: not an id */
static int64_t id_of(const json_t *value)
{
    double x = json_is_real(value) ? json_real_value(value) : -1;
    return x >= 0 && x < KW_MAX_ID && x == (double)(int64_t)x ? (int64_t)x : -1;
}

static kw_status load_vocab(folder *f, const char *file, json_t *names, kw_err *e)
{
    const char *name;
    json_t *value;
    size_t size = 0;
    json_object_foreach(names, name, value) {
        int64_t id = id_of(value);
        if (id < 0)
            return kw_fail(e, KW_EDATA, N_("%s/%s: token \"%s\" has no valid number"), f->dir, file, name);
        size = KW_MAX(size, (size_t)id + 1);
    }
    if (!size)
        return kw_fail(e, KW_EDATA, N_("%s/%s: no vocabulary in it"), f->dir, file);
    KW_TRY(kw_vocab_new(f->a, size + 65536, &f->t->vocab, e));         /* added tokens may follow */
    kw_vocab *v = &f->t->vocab;
    json_object_foreach(names, name, value) {
        size_t id = (size_t)id_of(value);
        if (v->name[id])
            return kw_fail(e, KW_EDATA, N_("%s/%s: tokens \"%s\" and \"%s\" have the same number %zu"), f->dir, file,
                           v->name[id], name, id);
        kw_vocab_put(v, name, strlen(name), id);
    }
    return KW_OK;
}

/* One merge of two names; they and what they make must be in the vocabulary. */
static kw_status load_merge(folder *f, const char *file, size_t line, const char *left, size_t n_left,
                            const char *right, size_t n_right, uint32_t rank, kw_err *e)
{
    kw_vocab *v = &f->t->vocab;
    char *both = kw_alloc(f->a, n_left + n_right + 1);
    if (!both)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for the merges of %s"), f->dir);
    memcpy(both, left, n_left);
    memcpy(both + n_left, right, n_right);
    int l = kw_vocab_find(v, left, n_left), r = kw_vocab_find(v, right, n_right),
        id = kw_vocab_find(v, both, n_left + n_right);
    if (l < 0 || r < 0 || id < 0)
        return kw_fail(e, KW_EDATA, N_("%s/%s: merge %zu, \"%.*s %.*s\", is not in the vocabulary"), f->dir, file, line,
                       (int)KW_MIN(n_left, 60), left, (int)KW_MIN(n_right, 60), right);
    kw_merges_put(&f->t->merges, (uint32_t)l, (uint32_t)r, rank, (uint32_t)id);
    return KW_OK;
}

static kw_status load_merges_text(folder *f, kw_err *e)
{
    char *path = kw_path_join(f->a, f->dir, "merges.txt");
    const char *text;
    size_t n, lines = 1, number = 0;
    uint32_t rank = 0;
    if (!path)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %s"), f->dir);
    KW_TRY(get(f, "merges.txt", &text, &n, e));
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    KW_TRY(kw_merges_new(f->a, lines, &f->t->merges, e));
    for (const char *p = text, *end = text + n; p < end;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t length = (size_t)((stop ? stop : end) - p);
        const char *line = p;
        p += length + 1;
        number++;
        if (length && line[length - 1] == '\r')
            length--;
        if (!length || (length >= 8 && !memcmp(line, "#version", 8)))
            continue;
        const char *space = memchr(line, ' ', length);
        size_t left = space ? (size_t)(space - line) : 0;
        if (!space || memchr(space + 1, ' ', length - left - 1))
            return kw_fail(e, KW_EDATA, N_("%s: line %zu is not two tokens"), path, number);
        KW_TRY(load_merge(f, "merges.txt", number, line, left, space + 1, length - left - 1, rank++, e));
    }
    return KW_OK;
}

/* "a b" or ["a", "b"] */
static kw_status load_merges_json(folder *f, json_t *list, kw_err *e)
{
    size_t i;
    json_t *m;
    KW_TRY(kw_merges_new(f->a, json_array_size(list) + 1, &f->t->merges, e));
    json_array_foreach(list, i, m) {
        const char *left = json_string_value(json_is_array(m) ? json_array_get(m, 0) : m), *right;
        size_t n = left ? strlen(left) : 0;
        if (json_is_array(m)) {
            right = json_string_value(json_array_get(m, 1));
        } else {
            right = left ? strchr(left, ' ') : NULL;
            n = right ? (size_t)(right++ - left) : 0;
        }
        if (!left || !right)
            return kw_fail(e, KW_EDATA, N_("%s/tokenizer.json: merge %zu is not two tokens"), f->dir, i + 1);
        KW_TRY(load_merge(f, "tokenizer.json", i + 1, left, n, right, strlen(right), (uint32_t)i, e));
    }
    return KW_OK;
}

static kw_status load_model(folder *f, kw_err *e)
{
    if (has(f, "vocab.json") && has(f, "merges.txt")) {
        json_t *names;
        KW_TRY(read_json(f, "vocab.json", &names, e));
        KW_TRY(load_vocab(f, "vocab.json", names, e));
        return load_merges_text(f, e);
    }
    if (!f->whole)
        return kw_fail(e, KW_EDATA, N_("%s: neither vocab.json with merges.txt nor tokenizer.json"), f->dir);
    json_t *model = json_object_get(f->whole, "model");
    const char *type = json_string_value(json_object_get(model, "type"));
    if (type && strcmp(type, "BPE"))
        return kw_fail(e, KW_EDATA, N_("%s/tokenizer.json: a tokenizer of type \"%.40s\"; CLIP's is BPE"), f->dir,
                       type);
    KW_TRY(load_vocab(f, "tokenizer.json", json_object_get(model, "vocab"), e));
    return load_merges_json(f, json_object_get(model, "merges"), e);
}

/* ---- special tokens ----------------------------------------------------------------------------------------- */

/* Note a special token; a later one of the same spelling replaces the flag. */
static kw_status note(folder *f, const char *content, bool normalized, kw_err *e)
{
    for (size_t i = 0; i < f->n; i++)
        if (!strcmp(f->special[i].content, content)) {
            f->special[i].normalized = normalized;
            return KW_OK;
        }
    KW_TRY(kw_grow(f->a, &f->special, &f->capacity, f->n, sizeof *f->special, e));
    f->special[f->n++] = (kw_special_spec){ content, normalized };
    return KW_OK;
}

/* A token as a string or as an object with "content". */
static const char *content_of(const json_t *token)
{
    return json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
}

/* Is it looked for in the normalized text? Said by the token, else `otherwise`. */
static bool normalized_of(const json_t *token, bool otherwise)
{
    const json_t *flag = json_object_get(token, "normalized");
    return json_is_boolean(flag) ? json_is_true(flag) : otherwise;
}

/* Objects of "added_tokens_decoder" ({"49406": {...}}) or "added_tokens" ([{...}]), in order of their numbers. */
static kw_status note_list(folder *f, json_t *list, kw_err *e)
{
    size_t n = json_is_object(list) ? json_object_size(list) : json_array_size(list), i = 0;
    struct { double id; json_t *token; } *all = kw_alloc_array(f->a, n + 1, sizeof *all), one;
    const char *key;
    json_t *token;
    if (!all)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for %zu added tokens"), n);
    if (json_is_object(list))
        json_object_foreach(list, key, token) {
            all[i].token = token;
            for (const char *p = key; *p >= '0' && *p <= '9'; p++)
                all[i].id = all[i].id * 10 + (*p - '0');
            i++;
        }
    else
        for (; i < n; i++) {
            all[i].token = json_array_get(list, i);
            all[i].id = json_number_value(json_object_get(all[i].token, "id"));
        }
    for (i = 1; i < n; i++)               /* few, and nearly sorted */
        for (size_t j = i; j > 0 && all[j - 1].id > all[j].id; j--) {
            one = all[j];
            all[j] = all[j - 1];
            all[j - 1] = one;
        }
    for (i = 0; i < n; i++) {
        bool special = json_is_true(json_object_get(all[i].token, "special"));
        if (content_of(all[i].token) && *content_of(all[i].token))
            KW_TRY(note(f, content_of(all[i].token), normalized_of(all[i].token, !special), e));
    }
    return KW_OK;
}

static const json_t *named_token(const folder *f, const char *key)
{
    const json_t *token = f->map ? json_object_get(f->map, key) : NULL;
    return token && !json_is_null(token) ? token : json_object_get(f->config, key);
}

/* added_tokens.json: {"<token>": number}; those that are not bos, eos ... are looked for in normalized text. */
static kw_status note_added(folder *f, kw_err *e)
{
    static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "pad_token" };
    json_t *added, *value;
    const char *content;
    KW_TRY(read_json(f, "added_tokens.json", &added, e));
    json_object_foreach(added, content, value) {
        bool special = false;
        for (size_t i = 0; i < KW_LEN(keys); i++) {
            const char *name = content_of(named_token(f, keys[i]));
            special |= name && !strcmp(name, content);
        }
        if (*content)
            KW_TRY(note(f, content, !special, e));
    }
    return KW_OK;
}

static kw_status note_lists(folder *f, kw_err *e)
{
    json_t *list = json_object_get(f->config, "added_tokens_decoder");
    if (list) {
        f->map = NULL;                    /* then transformers does not read special_tokens_map.json */
        return note_list(f, list, e);
    }
    KW_TRY(note_added(f, e));
    return note_list(f, json_object_get(f->whole, "added_tokens"), e);
}

/* One of bos, eos, unk, pad: an object, a string, or the default; its spelling in *content. */
static kw_status note_named(folder *f, const char *key, const char *otherwise, const char **content, kw_err *e)
{
    const json_t *token = named_token(f, key);
    *content = content_of(token);
    if (!*content || !**content)
        *content = otherwise;
    for (size_t i = 0; i < f->from_lists; i++)
        if (!strcmp(f->special[i].content, *content))
            return KW_OK;
    bool of_map = f->map && token == json_object_get(f->map, key);
    return note(f, *content, normalized_of(token, json_is_object(token) && !of_map), e);
}

/* Special tokens outside the vocabulary get the numbers after it. */
static kw_status number_added(folder *f, kw_err *e)
{
    kw_vocab *v = &f->t->vocab;
    for (size_t i = 0; i < f->n; i++) {
        const char *name = f->special[i].content;
        if (kw_vocab_find(v, name, strlen(name)) >= 0)
            continue;
        if (v->size >= v->capacity)
            return kw_fail(e, KW_EDATA, N_("%s: more than 65536 added tokens"), f->dir);
        kw_vocab_put(v, name, strlen(name), v->size);
    }
    return kw_tokenizer_specials(f->t, f->a, f->special, f->n, e);
}

static int32_t id_named(const folder *f, const char *name)
{
    return kw_vocab_find(&f->t->vocab, name, strlen(name));
}

static kw_status load_specials(folder *f, kw_err *e)
{
    const char *bos, *eos, *unk, *pad;
    KW_TRY(note_lists(f, e));
    f->from_lists = f->n;
    KW_TRY(note_named(f, "bos_token", "<|startoftext|>", &bos, e));
    KW_TRY(note_named(f, "eos_token", "<|endoftext|>", &eos, e));
    KW_TRY(note_named(f, "unk_token", "<|endoftext|>", &unk, e));
    KW_TRY(note_named(f, "pad_token", "<|endoftext|>", &pad, e));
    if (id_named(f, unk) < 0)             /* before added tokens get numbers: BPE itself must know it */
        return kw_fail(e, KW_EDATA, N_("%s: the unknown token \"%.60s\" is not in the vocabulary"), f->dir, unk);
    KW_TRY(number_added(f, e));
    f->t->bos = id_named(f, bos);
    f->t->eos = id_named(f, eos);
    f->t->unk = id_named(f, unk);
    f->t->pad = id_named(f, pad);
    return KW_OK;
}

static kw_status load(folder *f, kw_err *e)
{
    KW_TRY(read_json(f, "tokenizer_config.json", &f->config, e));
    KW_TRY(read_json(f, "special_tokens_map.json", &f->map, e));
    KW_TRY(read_json(f, "tokenizer.json", &f->whole, e));
    KW_TRY(load_model(f, e));
    kw_tokenizer_bind(f->t);
    KW_TRY(load_specials(f, e));
    double length = json_number_value(json_object_get(f->config, "model_max_length"));
    f->t->max_length = length >= 3 && length <= 4096 ? (int)length : 77;       /* "unlimited" is written as 10^30 */
    return KW_OK;
}

kw_status kw_tokenizer_inside(kw_arena *a, const char *path, json_t **files, kw_err *e)
{
    kw_tensors *file;
    KW_TRY(kw_tensors_open(a, path, &file, e));
    const char *text = kw_tensors_meta(file, KW_META_TOKENIZER);
    if (!text)
        return kw_fail(e, KW_EDATA, N_("%s: holds no tokenizer"), path);
    KW_TRY(kw_json_parse(a, path, text, strlen(text), files, e));
    return json_is_object(*files) ? KW_OK : kw_fail(e, KW_EDATA, N_("%s: not a JSON object"), path);
}

kw_status kw_tokenizer_open(kw_arena *a, const char *dir, kw_tokenizer **out, kw_err *e)
{
    kw_tokenizer *t = *out = kw_alloc(a, sizeof *t);
    if (!t)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for the tokenizer %s"), dir);
    folder f = { .a = a, .dir = dir, .t = t };
    if (kw_is_file(dir))
        KW_TRY(kw_tokenizer_inside(a, dir, &f.inside, e));
    return load(&f, e);
}

/* Of all texts inside a file those whose names begin with head, without it. */
static kw_status begin_with(kw_arena *a, const json_t *all, const char *head, json_t **out, kw_err *e)
{
    const char *name;
    const json_t *text;
    *out = json_object();
    if (!*out || kw_defer(a, release, *out))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    json_object_foreach((json_t *)(uintptr_t)all, name, text)
        if (kw_starts_with(name, head) && json_object_set(*out, name + strlen(head), (json_t *)(uintptr_t)text))
            return kw_fail(e, KW_ENOMEM, "out of memory");
    return KW_OK;
}

kw_status kw_tokenizer_open_second(kw_arena *a, const char *path, kw_tokenizer **out, kw_err *e)
{
    json_t *all;
    kw_tokenizer *t = kw_alloc(a, sizeof *t);
    folder f = { .a = a, .dir = path, .t = t };
    *out = NULL;
    if (!t)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for the tokenizer %s"), path);
    KW_TRY(kw_tokenizer_inside(a, path, &all, e));
    KW_TRY(begin_with(a, all, KW_TOKENIZER_SECOND, &f.inside, e));
    if (!json_object_size(f.inside))
        return KW_OK;
    *out = t;
    return load(&f, e);
}

kw_status kw_tokenizer_padded(kw_arena *a, const kw_tokenizer *t, int pad, kw_tokenizer **out, kw_err *e)
{
    kw_tokenizer *other = *out = kw_alloc(a, sizeof *other);
    if (!other)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *other = *t;
    other->pad = pad;
    return KW_OK;
}
