/* civitai.c - files of Civitai by the number of a model's version: what the site says of them, and the file itself. */
#include "net_internal.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const sites[] = { "https://civitai.com/", "https://www.civitai.com/", "https://civitai.green/",
                                     "civitai.com/" };

static const char *page_of(const char *text)      /* what follows the host; NULL: no page of Civitai */
{
    for (size_t i = 0; i < KW_LEN(sites); i++)
        if (kw_starts_with(text, sites[i]))
            return text + strlen(sites[i]);
    return NULL;
}

bool kw_civitai_is_name(const char *text)
{
    return kw_starts_with(text, "civitai:") || kw_starts_with(text, "urn:air:") || page_of(text);
}

/* A number above 0 up to a character of `end` or the end of the text; 0: none. */
static long long number(const char *p, const char *end)
{
    char *after;
    if (!isdigit((unsigned char)*p) || strlen(p) > 4000)
        return 0;
    long long v = strtoll(p, &after, 10);
    return v > 0 && v < 1000000000000ll && (!*after || strchr(end, *after)) ? v : 0;
}

/* models/123/name?modelVersionId=456, api/download/models/456?type=Model, model-versions/456 */
static void read_page(const char *p, kw_civitai_name *out)
{
    static const char *const of_version[] = { "api/download/models/", "model-versions/", "api/v1/model-versions/" };
    static const char *const of_model[] = { "models/", "api/v1/models/" };
    const char *version = strstr(p, "modelVersionId=");
    for (size_t i = 0; i < KW_LEN(of_version); i++)
        if (kw_starts_with(p, of_version[i]))
            out->version = number(p + strlen(of_version[i]), "/?#&");
    for (size_t i = 0; i < KW_LEN(of_model); i++)
        if (kw_starts_with(p, of_model[i]))
            out->model = number(p + strlen(of_model[i]), "/?#&");
    if (version)
        out->version = number(version + strlen("modelVersionId="), "&#/");
}

kw_status kw_civitai_name_parse(const char *text, kw_civitai_name *out, kw_err *e)
{
    const char *page = page_of(text), *air = strstr(text, "civitai:");
    *out = (kw_civitai_name){ 0 };
    if (page) {
        read_page(page, out);
    } else if (air) {                     /* civitai:456, civitai:123@456, urn:air:sd1:lora:civitai:123@456 */
        const char *p = air + strlen("civitai:"), *at = strchr(p, '@');
        out->version = number(at ? at + 1 : p, ".");
        out->model = at ? number(p, "@") : 0;
        if (at && !out->model)
            out->version = 0;
    }
    if (out->version || (page && out->model))
        return KW_OK;
    return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("\"%.200s\" names no model of Civitai"), text),
                     N_("civitai:VERSION, where VERSION is the modelVersionId in the page's address"));
}

/* ---- /api/v1/model-versions/ID ----------------------------------------------------------------------------------- */

static const char *text_of(kw_arena *a, json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? kw_strdup(a, s) : NULL;
}

static void read_file(kw_arena *a, json_t *j, kw_civitai_file *f)
{
    json_t *kb = json_object_get(j, "sizeKB"), *meta = json_object_get(j, "metadata");
    const char *sha256 = json_string_value(json_object_get(json_object_get(j, "hashes"), "SHA256"));
    const char *said = json_string_value(json_object_get(j, "name"));
    char name[256];
    double bytes = json_number_value(kb) * 1024;
    kw__plain_name(said ? said : "", name);
    f->name = *name ? kw_strdup(a, name) : NULL;
    f->url = text_of(a, j, "downloadUrl");
    f->type = text_of(a, j, "type");
    f->format = text_of(a, meta, "format");
    f->fp = text_of(a, meta, "fp");
    f->size = bytes > 0 && bytes < 1e15 ? (uint64_t)llround(bytes) : 0;
    if (!sha256 || strlen(sha256) != 64)
        return;
    char *low = kw_strdup(a, sha256);
    for (char *p = low; p && *p; p++)
        *p = (char)tolower((unsigned char)*p);
    f->sha256 = low && kw__hex(low, 64) ? low : NULL;
}

static const char *words_of(kw_arena *a, json_t *list)
{
    kw_str s = { 0 };
    json_t *one;
    size_t i;
    json_array_foreach(list, i, one)
        if (json_is_string(one))
            kw_str_printf(&s, "%s%s", s.n ? ", " : "", json_string_value(one));
    const char *words = s.n && !s.failed ? kw_strdup(a, s.s) : NULL;
    kw_str_free(&s);
    return words;
}

/* The primary file; safetensors before pickles; a model before a configuration or training data. */
static void choose(kw_civitai_version *v, json_t *files)
{
    kw_civitai_file *best = NULL;
    int most = -1;
    for (size_t i = 0; i < v->n; i++) {
        const kw_civitai_file *f = &v->file[i];
        const char *type = f->type ? f->type : "";
        int score = (!strcmp(type, "Model") || !strcmp(type, "Pruned Model") || !strcmp(type, "VAE") ? 4 : 0)

                  + (f->name && kw_ends_with(f->name, ".safetensors") ? 2 : 0)
                  + (json_is_true(json_object_get(json_array_get(files, i), "primary")) ? 1 : 0);
        if (f->url && f->name && score > most) {
            most = score;
            best = &v->file[i];
        }
    }
    if (best)
        best->wanted = true;
}

static kw_status read_version(kw_arena *a, json_t *j, kw_civitai_version *v, kw_err *e)
{
    json_t *files = json_object_get(j, "files"), *model = json_object_get(j, "model");
    v->version = json_integer_value(json_object_get(j, "id"));
    v->model = json_integer_value(json_object_get(j, "modelId"));
    v->title = text_of(a, model, "name");
    v->type = text_of(a, model, "type");
    v->version_name = text_of(a, j, "name");
    v->base = text_of(a, j, "baseModel");
    v->words = words_of(a, json_object_get(j, "trainedWords"));
    v->file = kw_alloc_array(a, json_array_size(files) + 1, sizeof *v->file);
    if (!v->file)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!v->version || !json_is_array(files) || json_array_size(files) > 1000)
        return kw_fail(e, KW_EDATA, N_("civitai: the site's answer names no files"));
    for (; v->n < json_array_size(files); v->n++)
        read_file(a, json_array_get(files, v->n), &v->file[v->n]);
    choose(v, files);
    for (size_t i = 0; i < v->n; i++)
        if (v->file[i].wanted)
            return KW_OK;
    return kw_advise(e, kw_fail(e, KW_EDATA, N_("civitai:%lld: has no file that may be downloaded"), v->version),
                     N_("its page says why: civitai.com/models/%lld?modelVersionId=%lld"), v->model, v->version);
}

static kw_status newest(kw_web *n, kw_arena *a, long long model, long long *version, kw_err *e)
{
    char *url = kw_sprintf(a, "%s/api/v1/models/%lld", n->civitai, model), what[48];
    json_t *j;
    if (!url)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    snprintf(what, sizeof what, "civitai.com/models/%lld", model);
    KW_TRY(kw__ask_json(n, a, KW__CIVITAI, what, url, &j, e));
    *version = json_integer_value(json_object_get(json_array_get(json_object_get(j, "modelVersions"), 0), "id"));
    return *version > 0 ? KW_OK : kw_fail(e, KW_EDATA,
                                          N_("civitai.com/models/%lld: has no version that may be downloaded"), model);
}

kw_status kw_civitai_open(kw_web *n, kw_arena *a, const kw_civitai_name *name, kw_civitai_version **out, kw_err *e)
{
    long long version = name->version;
    char what[48];
    json_t *j;
    snprintf(what, sizeof what, "civitai:%lld", version);
    if (n->offline)
        return kw__offline(e, what);
    if (!version)
        KW_TRY(newest(n, a, name->model, &version, e));
    snprintf(what, sizeof what, "civitai:%lld", version);
    char *url = kw_sprintf(a, "%s/api/v1/model-versions/%lld", n->civitai, version);
    if (!url || !(*out = kw_alloc(a, sizeof **out)))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(kw__ask_json(n, a, KW__CIVITAI, what, url, &j, e));
    return read_version(a, j, *out, e);
}

/* The download link must be the site's own: the key goes there. */
static const char *own_url(const kw_web *n, kw_arena *a, const char *url)
{
    const char *page = page_of(url);
    if (page)
        return kw_sprintf(a, "%s/%s", n->civitai, page);
    return kw_starts_with(url, n->civitai) && url[strlen(n->civitai)] == '/' ? url : NULL;
}

kw_status kw_civitai_pull(kw_web *n, kw_arena *a, const kw_civitai_version *v, const char *to, char **path, kw_err *e)
{
    const kw_civitai_file *f = v->file;
    while (!f->wanted)
        f++;
    kw__file g = { .name = f->name, .site = KW__CIVITAI, .url = own_url(n, a, f->url),
                   .token = kw__bearer(n, KW__CIVITAI),

                   .named = n->named_civitai, .size = f->size, .about = true, .sha256 = f->sha256 };
    const char *folder = to ? to : kw_sprintf(a, "%s/civitai/%lld", n->models, v->version);
    if (!g.url)
        return kw_fail(e, KW_EDATA, N_("civitai:%lld: its file lies elsewhere: %.200s"), v->version, f->url);
    if (!folder)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (f->size > n->most)
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: larger than allowed"), f->name),
                         N_("allow more with --max-size"));
    if (!f->sha256)
        KW_TRY(kw__net_note(n, f->name, N_("%s: the site gives no hash; what comes cannot be verified"), f->name));
    return kw__pull_to(n, a, &g, folder, f->name, path, e);
}

kw_status kw_civitai_find(const kw_web *n, kw_arena *a, const kw_civitai_name *name, char **path, kw_err *e)
{
    char *folder = kw_sprintf(a, "%s/civitai/%lld", n->models, name->version), **names;
    size_t count;
    if (!folder)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (name->version && kw_is_dir(folder)) {
        KW_TRY(kw_dir_list(a, folder, &names, &count, e));
        for (size_t i = 0; i < count; i++)
            if (names[i][0] != '.') {
                *path = kw_path_join(a, folder, names[i]);
                return *path ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
            }
    }
    return kw_fail(e, KW_EDATA, N_("civitai:%lld: is not here"), name->version);
}
