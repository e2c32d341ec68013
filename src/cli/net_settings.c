/* net_settings.c - what the environment says of the network, and names of models in place of paths. */
#include "net_settings.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *variable(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

static const char *first_of(const char *const *names)
{
    for (; *names; names++)
        if (variable(*names))
            return variable(*names);
    return NULL;
}

/* huggingface_hub's: 1, on, yes, true. */
static bool is_on(const char *name)
{
    const char *v = variable(name);
    return v && (!strcmp(v, "1") || !strcasecmp(v, "on") || !strcasecmp(v, "yes") || !strcasecmp(v, "true"));
}

/* ~/x, $HOME/x */
static char *at_home(kw_arena *a, const char *path)
{
    const char *home = variable("HOME");
    return kw_starts_with(path, "~/") && home ? kw_sprintf(a, "%s%s", home, path + 1) : kw_strdup(a, path);
}

/* XDG: relative values are to be ignored. */
static char *xdg(kw_arena *a, const char *name, const char *otherwise)
{
    const char *v = variable(name);
    return v && *v == '/' ? kw_strdup(a, v) : at_home(a, otherwise);
}

/* ---- tokens: never in options (other users see those), never shown ---------------------------------------------- */

static kw_status clean(const char *from, char *token, kw_err *e)
{
    size_t n = strlen(token);
    while (n && strchr(" \t\r\n", token[n - 1]))
        token[--n] = 0;
    for (size_t i = 0; i < n; i++)
        if (token[i] <= 0x20 || token[i] >= 0x7f)
            return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: holds no token"), from),
                             N_("one line of letters, digits and signs"));
    return n <= 4096 ? KW_OK : kw_fail(e, KW_EUSAGE, N_("%s: holds no token"), from);
}

static kw_status token(kw_arena *a, const char *const *names, const char *file, const char **out, kw_err *e)
{
    char *text = NULL;
    size_t n;
    for (; *names && !text; names++)
        if (variable(*names)) {
            text = kw_strdup(a, variable(*names) + strspn(variable(*names), " \t\r\n"));
            if (text)
                KW_TRY(clean(*names, text, e));
        }
    if (!text && file && kw_is_file(file)) {
        KW_TRY(kw_file_read(a, file, 1 << 16, &text, &n, e));
        text += strspn(text, " \t\r\n");
        KW_TRY(clean(file, text, e));
    }
    *out = text && *text ? text : NULL;
    return KW_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static kw_status endpoint(kw_arena *a, const char *name, const char *otherwise, const char **out, bool *named,
                          kw_err *e)
{
    const char *v = variable(name);
    char *copy = kw_strdup(a, v ? v : otherwise);
    if (!copy)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *named = v != NULL;
    while (kw_ends_with(copy, "/"))
        copy[strlen(copy) - 1] = 0;
    *out = copy;
    if (!kw_starts_with(copy, "https://") && !kw_starts_with(copy, "http://"))
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: \"%.200s\" is no address of the web"), name, copy),
                         N_("for example: %s"), otherwise);
    return KW_OK;
}

kw_status kw_net_settings(kw_arena *a, kw_web *n, kw_err *e)
{
    static const char *const hub[] = { "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", NULL };
    static const char *const civitai[] = { "CIVITAI_TOKEN", "CIVITAI_API_TOKEN", NULL };
    static const char *const secure[] = { "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", NULL };
    static const char *const plain[] = { "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", NULL };
    static const char *const none[] = { "no_proxy", "NO_PROXY", NULL };
    static const char *const ca[] = { "SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", NULL };
    char *cache = xdg(a, "XDG_CACHE_HOME", "~/.cache"), *data = xdg(a, "XDG_DATA_HOME", "~/.local/share");
    char *config = xdg(a, "XDG_CONFIG_HOME", "~/.config");
    const char *hf = variable("HF_HOME"), *file = variable("HF_TOKEN_PATH");
    char *home = hf ? at_home(a, hf) : cache ? kw_sprintf(a, "%s/huggingface", cache) : NULL;

    if (!home || !data || !config)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    char *hub_file = file ? at_home(a, file) : kw_sprintf(a, "%s/token", home);
    char *civitai_file = kw_sprintf(a, "%s/kiwame/civitai-token", config);
    *n = (kw_web){ .stall = 30, .backoff = 1, .retries = 5, .most = 100000000000ull };
    n->hub_cache = variable("HF_HUB_CACHE") ? at_home(a, variable("HF_HUB_CACHE")) : kw_sprintf(a, "%s/hub", home);
    n->models = kw_sprintf(a, "%s/kiwame/models", data);
    n->https_proxy = first_of(secure);
    n->http_proxy = first_of(plain);
    n->no_proxy = first_of(none);
    n->ca_file = first_of(ca);
    n->offline = is_on("HF_HUB_OFFLINE");
    if (!hub_file || !civitai_file || !n->hub_cache || !n->models)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(endpoint(a, "HF_ENDPOINT", "https://huggingface.co", &n->hub, &n->named_hub, e));
    KW_TRY(endpoint(a, "CIVITAI_ENDPOINT", "https://civitai.com", &n->civitai, &n->named_civitai, e));
    KW_TRY(token(a, hub, hub_file, &n->hub_token, e));
    return token(a, civitai, civitai_file, &n->civitai_token, e);
}

/* ---- names for paths --------------------------------------------------------------------------------------------- */

static kw_status not_pulled(kw_err *e, const char *name)
{
    return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: is not downloaded yet"), name), "kiwame pull %s", name);
}

static kw_status find_hub(const kw_web *n, kw_arena *a, const char *said, const char *name, char **at, kw_err *e)
{
    kw_hub_name h;
    KW_TRY(kw_hub_name_parse(a, name, &h, e));
    kw_status s = kw_hub_find(n, a, &h, at, e);
    return s == KW_EDATA ? not_pulled(e, said) : s;
}

kw_status kw_model_named(kw_cli *c, const char **path, kw_err *e)
{
    kw_web n;
    kw_civitai_name civitai;
    struct stat st;
    char *at = NULL;
    const kw_short_name *brief = *path ? kw_short_name_find(*path) : NULL;
    bool hub = *path && kw_hub_is_name(*path), other = *path && kw_civitai_is_name(*path);
    if ((!brief && !hub && !other) || !kw_io_now->stat(*path, &st))
        return KW_OK;
    KW_TRY(kw_net_settings(c->arena, &n, e));
    if (other) {
        KW_TRY(kw_civitai_name_parse(*path, &civitai, e));
        if (kw_civitai_find(&n, c->arena, &civitai, &at, e))
            return not_pulled(e, *path);
    } else {
        char *name = brief ? kw_sprintf(c->arena, "hf:%s", brief->repo) : kw_strdup(c->arena, *path);
        KW_TRY(name ? find_hub(&n, c->arena, *path, name, &at, e) : kw_fail(e, KW_ENOMEM, "out of memory"));
    }
    *path = at;
    return KW_OK;
}
