/* inversion.c - textual inversions out of their files. */
#include "inversion.h"
#include "picture/picture.h"

#include <math.h>
#include <string.h>

static const char bundle[] = "bundle_emb.";

bool kw_inversion_key(const char *name) { return kw_starts_with(name, bundle); }

/* ---- one tensor -------------------------------------------------------------------------------------------------- */

static bool is_float(kw_dtype t) { return t == KW_F32 || t == KW_F16 || t == KW_BF16 || t == KW_F64; }

/* (d) or (n, d) as the next part. */
static kw_status add_part(kw_arena *a, const char *shown, const kw_tensor *t, kw_inversion *out, kw_err *e)
{
    enum { WIDEST = 8192, MOST = 1024 };
    char text[160];
    int64_t width = t->rank ? t->shape[t->rank - 1] : 0, n = t->rank > 1 ? t->shape[0] : 1;
    if (t->rank < 1 || t->rank > 2 || width < 1 || width > WIDEST || n < 1 || n > MOST || !is_float(t->dtype))
        return kw_fail(e, KW_EDATA, N_("%s: tensor \"%s\", %s %s, is no embedding's"), shown, t->name,
                       kw_dtype_name(t->dtype), kw_shape_text(t, text));
    float *v = kw_alloc_array(a, (size_t)(n * width), sizeof *v);
    if (!v)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    kw_convert(KW_F32, v, t->dtype, t->data, (size_t)(n * width));
    for (int64_t i = 0; i < n * width; i++)
        if (!isfinite(v[i]))
            return kw_fail(e, KW_EDATA, N_("%s: tensor \"%s\" has numbers that are not finite"), shown, t->name);
    if (out->n_parts == 2 || (out->n_parts && out->part[0].n != n))
        return kw_fail(e, KW_EDATA, N_("%s: its two encoders' embeddings have different numbers of vectors"), shown);
    out->part[out->n_parts].vectors = v;
    out->part[out->n_parts].n = (int)n;
    out->part[out->n_parts++].width = (int)width;
    return KW_OK;
}

/* ---- which tensors ----------------------------------------------------------------------------------------------- */

static const kw_tensor *find(const kw_tensors *file, const char *head, const char *name)
{
    char full[KW_MAX_TENSOR_NAME + 32];
    snprintf(full, sizeof full, "%s%s", head, name);
    return kw_tensors_find(file, full);
}

/* The only tensor whose name starts so; *n: how many do. */
static const kw_tensor *only(const kw_tensors *file, const char *head, const char *more, size_t *n)
{
    const kw_tensor *found = NULL;
    size_t k = strlen(head);
    *n = 0;
    for (size_t i = 0; i < kw_tensors_n(file); i++) {
        const kw_tensor *t = kw_tensors_at(file, i);
        if (!kw_starts_with(t->name, head) || !kw_starts_with(t->name + k, more))
            continue;
        found = t;
        ++*n;
    }
    return found;
}

/* Those below `head`, which is "" for a whole file. */
static kw_status take(kw_arena *a, const kw_tensors *file, const char *head, kw_inversion *out, kw_err *e)
{
    const char *shown = kw_tensors_path(file);
    const kw_tensor *l = find(file, head, "clip_l"), *g = find(file, head, "clip_g");
    size_t n;
    if (l || g) {
        if (l)
            KW_TRY(add_part(a, shown, l, out, e));
        return g ? add_part(a, shown, g, out, e) : KW_OK;
    }
    const kw_tensor *t = find(file, head, "emb_params");
    if (t)
        return add_part(a, shown, t, out, e);
    t = only(file, head, "string_to_param.", &n);
    if (n > 1)
        return kw_fail(e, KW_EDATA, N_("%s holds %zu embeddings; one for a file is expected"), shown, n);
    if (n)
        return add_part(a, shown, t, out, e);
    t = only(file, head, "", &n);
    if (n != 1) {
        kw_status s = kw_fail(e, KW_EDATA, N_("%s holds no embedding: %zu tensors of other names"), shown, n);
        return kw_advise(e, s, N_("a textual inversion is expected: string_to_param, emb_params, clip_l and clip_g, or "
                                  "one tensor alone"));
    }
    if (!*head)
        out->placeholder = kw_strdup(a, t->name);
    return add_part(a, shown, t, out, e);
}

kw_status kw_inversion_bundled(kw_arena *a, const kw_tensors *file, size_t i, kw_inversion *out, bool *found, kw_err *e)
{
    size_t seen = 0;
    char head[KW_MAX_TENSOR_NAME + 1];
    *out = (kw_inversion){ 0 };
    *found = false;
    for (size_t k = 0; k < kw_tensors_n(file) && !*found; k++) {
        const char *name = kw_tensors_at(file, k)->name;
        const char *rest = kw_starts_with(name, bundle) ? name + sizeof bundle - 1 : "";
        const char *end = strstr(rest, ".string_to_param.");
        end = end ? end : strrchr(rest, '.');
        if (!end || end == rest)
            continue;
        size_t n = (size_t)(end + 1 - name);
        bool first = true;                /* of its name */
        for (size_t j = 0; j < k && first; j++)
            first = strncmp(kw_tensors_at(file, j)->name, name, n) != 0;
        if (!first || seen++ != i)
            continue;
        memcpy(head, name, n);
        head[n] = 0;
        out->name = kw_strndup(a, rest, (size_t)(end - rest));
        *found = true;
    }
    if (!*found)
        return KW_OK;
    return out->name ? take(a, file, head, out, e) : kw_fail(e, KW_ENOMEM, "out of memory");
}

/* ---- a PNG ------------------------------------------------------------------------------------------------------- */

static int sextet(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

static bool base64(const char *s, kw_str *out)
{
    uint32_t bits = 0;
    int n = 0;
    for (; *s && *s != '='; s++) {
        if (strchr("\r\n \t", *s))
            continue;
        if (sextet(*s) < 0)
            return false;
        bits = bits << 6 | (uint32_t)sextet(*s);
        n += 6;
        if (n >= 8) {
            n -= 8;
            char byte = (char)(bits >> n);
            kw_str_add_n(out, &byte, 1);
        }
    }
    return !out->failed;
}

/* {"TORCHTENSOR": [[...], ...]} */
static kw_status numbers(kw_arena *a, const char *path, const json_t *rows, kw_inversion *out, kw_err *e)
{
    size_t n = json_array_size(rows), width = json_array_size(json_array_get(rows, 0));
    float *v = n && width && n <= 1024 && width <= 8192 ? kw_alloc_array(a, n * width, sizeof *v) : NULL;
    for (size_t i = 0; v && i < n; i++)
        for (size_t k = 0; k < width; k++) {
            const json_t *x = json_array_get(json_array_get(rows, i), k);
            if (!json_is_number(x))
                return kw_fail(e, KW_EDATA, N_("%s: its embedding is no table of numbers"), path);
            v[i * width + k] = (float)json_number_value(x);
        }
    if (!v)
        return kw_fail(e, KW_EDATA, N_("%s: its embedding is no table of numbers"), path);
    kw_tensor t = { .name = "sd-ti-embedding", .dtype = KW_F32, .rank = 2, .shape = { (int64_t)n, (int64_t)width },
                    .data = v };
    return add_part(a, path, &t, out, e);
}

static kw_status parse_png(kw_arena *a, const char *path, const char *text, kw_inversion *out, kw_err *e)
{
    kw_str plain = { 0 };
    json_t *j = NULL;
    kw_status s = base64(text, &plain) && plain.s ? kw_json_parse(a, path, plain.s, plain.n, &j, e)
                                                  : kw_fail(e, KW_EDATA, N_("%s: its embedding is not base64"), path);
    kw_str_free(&plain);
    KW_TRY(s);
    const json_t *params = json_object_get(j, "string_to_param"), *value;
    const char *key;
    if (json_object_size(params) != 1)
        return kw_fail(e, KW_EDATA, N_("%s holds %zu embeddings; one for a file is expected"), path,
                       json_object_size(params));
    json_object_foreach((json_t *)(uintptr_t)params, key, value)
        s = numbers(a, path, json_object_get(value, "TORCHTENSOR"), out, e);
    return s;
}

static kw_status read_png(kw_arena *a, const char *path, kw_inversion *out, kw_err *e)
{
    char *data;
    size_t n;
    bool found;
    kw_str text = { 0 };
    KW_TRY(kw_file_read(a, path, 64 << 20, &data, &n, e));
    kw_status s = kw_picture_text(data, n, "sd-ti-embedding", &text, &found, e);
    if (!s && (!found || !text.s))
        s = kw_fail(e, KW_EDATA, N_("%s holds no embedding (text sd-ti-embedding)"), path);
    if (!s)
        s = parse_png(a, path, text.s, out, e);
    kw_str_free(&text);
    return s;
}

/* ---- a file ------------------------------------------------------------------------------------------------------ */

/* learned_embeds.safetensors has the first encoder's, learned_embeds_2.safetensors beside it the second's. */
static kw_status second_file(kw_arena *a, const char *path, kw_inversion *out, kw_err *e)
{
    const char *dot = strrchr(path, '.');
    kw_tensors *file;
    if (!dot || out->n_parts != 1 || !out->placeholder)
        return KW_OK;
    char *other = kw_sprintf(a, "%.*s_2%s", (int)(dot - path), path, dot);
    if (!other)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!kw_is_file(other))
        return KW_OK;
    KW_TRY(kw_tensors_open(a, other, &file, e));
    return take(a, file, "", out, e);
}

kw_status kw_inversion_read(kw_arena *a, const char *path, kw_inversion *out, kw_err *e)
{
    kw_tensors *file;
    *out = (kw_inversion){ .name = kw_path_stem(a, path) };
    if (!out->name)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (kw_ends_with(path, ".png"))
        return read_png(a, path, out, e);
    KW_TRY(kw_tensors_open(a, path, &file, e));
    KW_TRY(take(a, file, "", out, e));
    return second_file(a, path, out, e);
}
