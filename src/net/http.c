/*
 * http.c - one question to a server, and its answer: the only file that knows libcurl.
 *
 *   check the address ── connect ── look at the peer's address ── head ──┬─ 3xx: the next address, from the left again
 *                                                                        ├─ 200, 206: begin, then the body to put
 *                                                                        └─ other: the first bytes, for the message
 *
 * Redirects are followed here, not by libcurl, so that each address is checked and the token stays with its host.
 */
#include "net_internal.h"

#ifndef KW_NET

bool kw_net_built(void) { return false; }
const char *kw_net_library(void) { return NULL; }

kw_status kw__http(kw_web *n, const kw__request *q, kw__reply *r, kw_err *e)
{
    (void)n, (void)q, (void)r;
    return kw_fail(e, KW_EUSAGE, N_("this kiwame was built without downloads (KW_NET=OFF)"));
}

#else

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

bool kw_net_built(void) { return true; }
const char *kw_net_library(void) { return curl_version_info(CURLVERSION_NOW)->version; }

typedef struct { char scheme[8], host[256], port[8]; } origin;

typedef struct {
    kw_web *n;
    const kw__request *q;
    kw__reply *r;
    kw_err *e;
    CURL *curl;
    struct curl_slist *heads, *resolve;
    origin asked;
    bool trusted, proxied;                /* of the address now asked */
    bool begun;
    size_t text_n;
    char refused[64];                     /* the peer's address, if it was refused */
    kw_status status;                     /* of a callback */
    char why[CURL_ERROR_SIZE];
} call;

/* ---- addresses --------------------------------------------------------------------------------------------------- */

static bool part_of(CURLU *u, CURLUPart what, char *to, size_t room)
{
    char *text = NULL;
    bool got = !curl_url_get(u, what, &text, CURLU_DEFAULT_PORT) && strlen(text) < room;
    if (got)
        strcpy(to, text);
    curl_free(text);
    return got;
}

/* libcurl writes odd forms of IPv4 addresses (0x7f.1, 2130706433) as what they are. */
static bool read_origin(const char *url, origin *o, bool *user)
{
    char unused[256];
    CURLU *u = curl_url();
    bool good = u && !curl_url_set(u, CURLUPART_URL, url, 0)
        && part_of(u, CURLUPART_SCHEME, o->scheme, sizeof o->scheme)
        && part_of(u, CURLUPART_HOST, o->host, sizeof o->host) && part_of(u, CURLUPART_PORT, o->port, sizeof o->port);
    *user = u && (part_of(u, CURLUPART_USER, unused, sizeof unused)
                  || part_of(u, CURLUPART_PASSWORD, unused, sizeof unused));
    curl_url_cleanup(u);
    return good;
}

static bool same_origin(const origin *a, const origin *b)
{
    return !strcasecmp(a->scheme, b->scheme) && !strcasecmp(a->host, b->host) && !strcmp(a->port, b->port);
}

static const char mirror[] = N_("a mirror in your own network: name it in HF_ENDPOINT, or say --allow-private");

static kw_status private_address(const char *host, const char *address, kw_err *e)
{
    kw_status s = *address ? kw_fail(e, KW_EDATA, N_("%s: refused, its address %s is not of the public internet"),
                                     host, address)
                           : kw_fail(e, KW_EDATA, N_("%s: refused, it is not of the public internet"), host);
    return kw_advise(e, s, "%s", kw_translate(mirror));
}

/* Before anything is sent: the scheme and the host as written. */
static kw_status check_address(call *c, const char *url, origin *o, kw_err *e)
{
    bool user = false;
    if (!read_origin(url, o, &user))
        return kw_fail(e, KW_EDATA, N_("\"%.200s\" is no address of the web"), url);
    c->trusted = c->n->allow_private || (c->q->named && same_origin(o, &c->asked));
    if (strcasecmp(o->scheme, "https") && (strcasecmp(o->scheme, "http") || !c->trusted)) {
        kw_status s = kw_fail(e, KW_EDATA, N_("%s://%s: refused, only https is used"), o->scheme, o->host);
        return strcasecmp(o->scheme, "http") ? s : kw_advise(e, s, "%s", kw_translate(mirror));
    }
    if (user)
        return kw_fail(e, KW_EDATA, N_("%s: refused, a name or password stands in the address"), o->host);
    return !c->trusted && kw_host_private(o->host) ? private_address(o->host, "", e) : KW_OK;
}

/* The address that will really be connected to: what the name server said, or a rebinding one. */
static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *a)
{
    call *c = user;
    const void *bytes = a->family == AF_INET ? (const void *)&((struct sockaddr_in *)&a->addr)->sin_addr
                                             : (const void *)&((struct sockaddr_in6 *)&a->addr)->sin6_addr;
    if (purpose != CURLSOCKTYPE_IPCXN)
        return CURL_SOCKET_BAD;
    if (!c->trusted && !c->proxied && kw_address_private(a->family, bytes)) {
        if (!inet_ntop(a->family, bytes, c->refused, sizeof c->refused))
            strcpy(c->refused, "?");
        return CURL_SOCKET_BAD;
    }
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- the head ---------------------------------------------------------------------------------------------------- */

static void keep(char *to, size_t room, const char *value, size_t n)
{
    n = KW_MIN(n, room - 1);
    for (size_t i = 0; i < n; i++)
        to[i] = (unsigned char)value[i] < 0x20 || value[i] == 0x7f ? ' ' : value[i];
    to[n] = 0;
}

/* W/"abc" is abc, as huggingface_hub takes it; a weak one cannot be asked for by If-Range and is kept as "". */
static void keep_etag(char *to, size_t room, const char *value, size_t n, bool weak_too)
{
    bool weak = n > 2 && !strncmp(value, "W/", 2);
    if (weak)
        value += 2, n -= 2;
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"')
        value++, n -= 2;
    keep(to, room, weak && !weak_too ? "" : value, weak && !weak_too ? 0 : n);
}

/* attachment; filename="a b.safetensors"; filename*=UTF-8''a%20b.safetensors */
static void keep_name(char *to, size_t room, const char *value, size_t n)
{
    char text[1024];
    keep(text, sizeof text, value, n);
    char *at = strcasestr(text, "filename=");
    if (!at)
        return;
    at += strlen("filename=");
    bool quoted = *at == '"';
    at += quoted;
    keep(to, room, at, strcspn(at, quoted ? "\"" : ";"));
}

static double seconds_until(const char *value)
{
    char *end;
    double s = strtod(value, &end);
    if (end > value)
        return s >= 0 && s < 1e9 ? s : -1;
    time_t then = curl_getdate(value, NULL);
    return then < 0 ? -1 : KW_MAX(0.0, difftime(then, time(NULL)));
}

static void keep_range(kw__reply *r, const char *value)
{
    long long from, to, total;
    if (sscanf(value, "bytes %lld-%lld/%lld", &from, &to, &total) == 3 && from >= 0 && to >= from && total > to) {
        r->from = from;
        r->total = total;
    } else if (sscanf(value, "bytes */%lld", &total) == 1) {
        r->total = total;
    }
}

static void read_head(kw__reply *r, const char *name, const char *value, size_t n)
{
    char number[64];
    keep(number, sizeof number, value, n);
    if (!strcmp(name, "etag"))
        keep_etag(r->etag, sizeof r->etag, value, n, false);
    else if (!strcmp(name, "x-linked-etag"))
        keep_etag(r->linked_etag, sizeof r->linked_etag, value, n, true);
    else if (!strcmp(name, "x-linked-size"))
        r->linked_size = strtoll(number, NULL, 10);
    else if (!strcmp(name, "x-repo-commit"))
        keep(r->commit, sizeof r->commit, value, n);
    else if (!strcmp(name, "x-error-code"))
        keep(r->error_code, sizeof r->error_code, value, n);
    else if (!strcmp(name, "x-error-message"))
        keep(r->why, sizeof r->why, value, n);
    else if (!strcmp(name, "content-type"))
        keep(r->type, sizeof r->type, value, n);
    else if (!strcmp(name, "content-encoding"))
        keep(r->encoding, sizeof r->encoding, value, n);
    else if (!strcmp(name, "content-length"))
        r->length = strtoll(number, NULL, 10);
    else if (!strcmp(name, "content-range"))
        keep_range(r, number);
    else if (!strcmp(name, "content-disposition"))
        keep_name(r->name, sizeof r->name, value, n);
    else if (!strcmp(name, "retry-after"))
        r->wait = seconds_until(number);
}

/* A new head (after 100 Continue, or of the next address); what the hub linked to is remembered over redirects. */
static void clear_head(kw__reply *r)
{
    r->status = 0;
    r->length = r->from = r->total = -1;
    r->wait = -1;
    *r->etag = *r->error_code = *r->type = *r->encoding = *r->why = 0;
}

static size_t on_head(char *line, size_t one, size_t n, void *user)
{
    call *c = user;
    char name[40];
    size_t length = n * one, k = 0;
    (void)one;
    if (length > 5 && !strncmp(line, "HTTP/", 5)) {
        clear_head(c->r);
        return length;
    }
    for (; k < length && line[k] != ':' && k + 1 < sizeof name; k++)
        name[k] = line[k] >= 'A' && line[k] <= 'Z' ? (char)(line[k] + 32) : line[k];
    name[k] = 0;
    if (k == length || line[k] != ':')
        return length;
    size_t from = k + 1, to = length;
    while (from < to && (line[from] == ' ' || line[from] == '\t'))
        from++;
    while (to > from && (line[to - 1] == '\r' || line[to - 1] == '\n' || line[to - 1] == ' '))
        to--;
    read_head(c->r, name, line + from, to - from);
    return length;
}

/* ---- the body ---------------------------------------------------------------------------------------------------- */

static bool good(long status) { return status == 200 || status == 206; }

static kw_status begin(call *c)
{
    char *url = NULL;
    if (c->begun)
        return KW_OK;
    c->begun = true;
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &c->r->status);
    if (!curl_easy_getinfo(c->curl, CURLINFO_EFFECTIVE_URL, &url) && url)
        keep(c->r->url, sizeof c->r->url, url, strlen(url));
    return good(c->r->status) && c->q->begin ? c->q->begin(c->q->user, c->r, c->e) : KW_OK;
}

static size_t on_body(char *p, size_t one, size_t n, void *user)
{
    call *c = user;
    size_t bytes = one * n;
    if ((c->status = begin(c)))
        return CURL_WRITEFUNC_ERROR;
    if (good(c->r->status)) {
        c->status = c->q->put(c->q->user, p, bytes, c->e);
        return c->status ? CURL_WRITEFUNC_ERROR : bytes;
    }
    if (c->r->status / 100 == 3)          /* nobody reads it */
        return (c->text_n += bytes) < (1 << 20) ? bytes : CURL_WRITEFUNC_ERROR;
    size_t k = KW_MIN(bytes, sizeof c->r->text - 1 - c->text_n);
    memcpy(c->r->text + c->text_n, p, k);
    c->r->text[c->text_n += k] = 0;
    return bytes && !k ? CURL_WRITEFUNC_ERROR : bytes;      /* enough was read of an error */
}

static int on_tick(void *user, curl_off_t a, curl_off_t b, curl_off_t d, curl_off_t f)
{
    call *c = user;
    (void)a, (void)b, (void)d, (void)f;
    if (!c->status && c->q->tick)
        c->status = c->q->tick(c->q->user, c->e);
    return c->status != KW_OK;
}

/* ---- one address ------------------------------------------------------------------------------------------------- */

static bool add_head(call *c, const char *name, const char *value)
{
    kw_str line = { 0 };
    kw_str_printf(&line, "%s: %s", name, value);
    struct curl_slist *more = line.s && !line.failed ? curl_slist_append(c->heads, line.s) : NULL;
    kw_str_free(&line);
    if (more)
        c->heads = more;
    return more != NULL;
}

static bool heads(call *c, bool with_token)
{
    char text[320];
    bool ok = true;
    curl_slist_free_all(c->heads);
    c->heads = NULL;
    if (!c->q->decode)
        ok &= add_head(c, "Accept-Encoding", "identity");
    if (with_token && c->q->token) {
        kw_str bearer = { 0 };
        kw_str_printf(&bearer, "Bearer %s", c->q->token);
        ok &= !bearer.failed && add_head(c, "Authorization", bearer.s);
        kw_str_free(&bearer);
    }
    if (c->q->from) {
        snprintf(text, sizeof text, "bytes=%llu-", (unsigned long long)c->q->from);
        ok &= add_head(c, "Range", text);
        snprintf(text, sizeof text, "\"%s\"", c->q->if_range ? c->q->if_range : "");
        ok &= !c->q->if_range || add_head(c, "If-Range", text);
    }
    return ok && !curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->heads);
}

static void choose_proxy(call *c, const origin *o)
{
    const char *proxy = strcasecmp(o->scheme, "https") ? c->n->http_proxy : c->n->https_proxy;
    c->proxied = proxy && *proxy && !kw_host_listed(o->host, c->n->no_proxy);
    curl_easy_setopt(c->curl, CURLOPT_PROXY, c->proxied ? proxy : "");
    curl_easy_setopt(c->curl, CURLOPT_NOPROXY, "");
}

static void settings(call *c)
{
    CURL *u = c->curl;
    curl_easy_setopt(u, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(u, CURLOPT_ERRORBUFFER, c->why);
    curl_easy_setopt(u, CURLOPT_USERAGENT, "kiwame/" KW_VERSION);
    curl_easy_setopt(u, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(u, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(u, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(u, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(u, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(u, CURLOPT_OPENSOCKETDATA, c);
    curl_easy_setopt(u, CURLOPT_HEADERFUNCTION, on_head);
    curl_easy_setopt(u, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(u, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(u, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(u, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(u, CURLOPT_XFERINFOFUNCTION, on_tick);
    curl_easy_setopt(u, CURLOPT_XFERINFODATA, c);
    curl_easy_setopt(u, CURLOPT_BUFFERSIZE, 256L << 10);
    curl_easy_setopt(u, CURLOPT_CONNECTTIMEOUT_MS, (long)(1000 * c->n->stall));
    curl_easy_setopt(u, CURLOPT_LOW_SPEED_LIMIT, 64L);          /* bytes a second: less is nothing */
    curl_easy_setopt(u, CURLOPT_LOW_SPEED_TIME, KW_MAX(1L, (long)c->n->stall));
    curl_easy_setopt(u, CURLOPT_TIMEOUT_MS, (long)(1000 * c->q->limit));
    if (c->q->decode)
        curl_easy_setopt(u, CURLOPT_ACCEPT_ENCODING, "gzip, deflate");
    if (c->n->ca_file)
        curl_easy_setopt(u, CURLOPT_CAINFO, c->n->ca_file);
    for (size_t i = 0; i < c->n->resolve.n; i++) {
        struct curl_slist *more = curl_slist_append(c->resolve, c->n->resolve.item[i]);
        c->resolve = more ? more : c->resolve;
    }
    curl_easy_setopt(u, CURLOPT_RESOLVE, c->resolve);
}

static bool is_untrusted(CURLcode code)
{
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_ISSUER_ERROR
        || code == CURLE_SSL_INVALIDCERTSTATUS || code == CURLE_SSL_PINNEDPUBKEYNOTMATCH;
}

/* What became of the connection: an answer, a break, or something that another attempt would not mend. */
static kw_status outcome(call *c, CURLcode code, const origin *o)
{
    kw__reply *r = c->r;
    if (c->status)
        return c->status;
    if (*c->refused && code)
        return private_address(o->host, c->refused, c->e);
    if (is_untrusted(code))
        return kw_advise(c->e, kw_fail(c->e, KW_EDATA, N_("%s: refused, its certificate is not to be trusted: %s"),
                                       o->host, c->why),
                         N_("a proxy that reads along? then name its certificates in SSL_CERT_FILE; is the clock "
                            "right?"));
    if (code == CURLE_SSL_CACERT_BADFILE)
        return kw_fail(c->e, KW_EUSAGE, N_("%s: the certificates cannot be read"), c->n->ca_file ? c->n->ca_file
                       : "ca-certificates");
    if (code == CURLE_OUT_OF_MEMORY)
        return kw_fail(c->e, KW_ENOMEM, "out of memory");
    if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && !good(r->status))) {
        r->end = KW__WHOLE;
        return KW_OK;
    }
    const char *why = *c->why ? c->why : curl_easy_strerror(code);
    keep(r->why, sizeof r->why, why, strlen(why));
    r->end = code == CURLE_OPERATION_TIMEDOUT && c->begun ? KW__QUIET : c->begun ? KW__CUT : KW__NO_CONNECTION;
    return KW_OK;
}

static kw_status visit(call *c, const char *url, const origin *o, bool with_token)
{
    choose_proxy(c, o);
    *c->refused = *c->why = 0;
    c->begun = false;
    c->text_n = 0;
    *c->r->text = 0;
    if (curl_easy_setopt(c->curl, CURLOPT_URL, url) || !heads(c, with_token))
        return kw_fail(c->e, KW_ENOMEM, "out of memory");
    clear_head(c->r);
    CURLcode code = curl_easy_perform(c->curl);
    if (!code && !c->status)
        c->status = begin(c);             /* an answer without a body */
    return outcome(c, code, o);
}

/* ---- from address to address ------------------------------------------------------------------------------------- */

static kw_status follow(call *c)
{
    char url[KW__URL];
    bool with_token = true;
    origin o;
    keep(url, sizeof url, c->q->url, strlen(c->q->url));
    for (int hop = 0; hop <= KW__REDIRECTS; hop++) {
        char *next = NULL;
        KW_TRY(check_address(c, url, &o, c->e));
        with_token &= same_origin(&o, &c->asked);
        c->r->moved = !same_origin(&o, &c->asked);
        KW_TRY(visit(c, url, &o, with_token));
        if (c->r->end != KW__WHOLE || c->r->status / 100 != 3 || c->r->status == 304)
            return KW_OK;
        if (curl_easy_getinfo(c->curl, CURLINFO_REDIRECT_URL, &next) || !next)
            return kw_fail(c->e, KW_EDATA, N_("%s: leads on to nowhere (status %ld)"), o.host, c->r->status);
        if (strlen(next) >= sizeof url)
            return kw_fail(c->e, KW_EDATA, N_("%s: leads on to an address of %zu characters"), o.host, strlen(next));
        strcpy(url, next);
    }
    return kw_fail(c->e, KW_EDATA, N_("%s: leads on and on, %d times"), c->asked.host, KW__REDIRECTS);
}

kw_status kw__http(kw_web *n, const kw__request *q, kw__reply *r, kw_err *e)
{
    kw_err unused;
    call c = { .n = n, .q = q, .r = r, .e = e ? e : &unused };
    bool user;
    *r = (kw__reply){ .linked_size = -1 };
    if (strlen(q->url) >= KW__URL || !read_origin(q->url, &c.asked, &user))
        return kw_fail(c.e, KW_EUSAGE, N_("\"%.200s\" is no address of the web"), q->url);
    c.curl = curl_easy_init();
    if (!c.curl)
        return kw_fail(c.e, KW_ENOMEM, "out of memory");
    settings(&c);
    kw_status s = follow(&c);
    curl_easy_cleanup(c.curl);
    curl_slist_free_all(c.heads);
    curl_slist_free_all(c.resolve);
    return s;
}

#endif
