/*
 * server.c - a hub that misbehaves on demand, for tests/e2e/t0700-pull.sh.
 *
 *     net_server ROOT [tls]        listens on 127.0.0.1 (and every name of it); the port is written to ROOT/port
 *
 *   /api/models/O/N/revision/R          the list of ROOT/hub/O/N, as Hugging Face gives it
 *   /O/N/resolve/C/PATH                 *.safetensors: 302 to /cdn/O/N/PATH with X-Linked-Etag; others: the file
 *   /cdn/O/N/PATH   /file/NAME          bytes of ROOT/hub/O/N/PATH, of ROOT/files/NAME
 *   /api/v1/model-versions/ID           ROOT/civitai/ID.json, with @ for this server's address
 *   /api/download/models/ID             307 to /blob/ID, which is ROOT/civitai/ID.bin
 *
 * ROOT/mode, read at each request, says what goes wrong, one word per line (see `modes`); `once`: the first request for
 * bytes takes it away. ROOT/log has one line for each request: method, path, range, if-range, what was authorized.
 */
#include "io/io.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct { int fd; SSL *ssl; char method[8], path[2048], range[64], if_range[128], auth[256],
                 host[128]; } request;

/* What goes wrong. Bytes: cut, stall, slow (bytes in 10 ms), length (added to Content-Length). */
typedef struct {
    char status[64], goto_[512], api_status[64], other[128];
    long long cut, stall, slow, length, claim;
    bool html, hash, no206, etag, gzip, chunked, loop, evil, api_html, nohash, login, pointer, linked;
} modes;

static const char *root;
static int port;
static bool tls;

/* ---- out --------------------------------------------------------------------------------------------------------- */

static bool put(request *q, const void *p, size_t n)
{
    const char *at = p;
    while (n) {
        ssize_t k = q->ssl ? SSL_write(q->ssl, at, (int)KW_MIN(n, (size_t)1 << 20)) : send(q->fd, at, n, MSG_NOSIGNAL);
        if (k <= 0)
            return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

static void say(request *q, const char *fmt, ...) KW_PRINTF(2, 3);
static void say(request *q, const char *fmt, ...)
{
    char text[8192];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    put(q, text, (size_t)n);
}

static void answer(request *q, const char *status, const char *heads, const char *type, const char *body)
{
    say(q, "HTTP/1.1 %s\r\nConnection: close\r\n%sContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, heads, type,
        strlen(body));
    if (strcmp(q->method, "HEAD"))
        put(q, body, strlen(body));
}

/* "429 Too Many Requests;Retry-After: 1" or "403 Forbidden;X-Error-Code: GatedRepo" */
static void refuse(request *q, const char *what)
{
    char status[64], heads[128] = "";
    snprintf(status, sizeof status, "%.*s", (int)strcspn(what, ";"), what);
    if (strchr(what, ';'))
        snprintf(heads, sizeof heads, "%s\r\n", strchr(what, ';') + 1);
    answer(q, status, heads, "application/json", "{\"error\":\"so it was asked\"}");
}

static const char page[] = "<!DOCTYPE html><html><body>Please sign in</body></html>";

/* ---- modes ------------------------------------------------------------------------------------------------------- */

static void read_mode(const char *line, modes *m, bool *once)
{
    const struct { const char *name; bool *flag; } flags[] = {
        { "html", &m->html }, { "hash", &m->hash }, { "no206", &m->no206 }, { "etag", &m->etag }, { "gzip", &m->gzip },
        { "chunked", &m->chunked }, { "loop", &m->loop }, { "evil", &m->evil }, { "api-html", &m->api_html },
        { "once", once }, { "nohash", &m->nohash }, { "login", &m->login }, { "pointer", &m->pointer },
        { "linked", &m->linked },
    };
    const struct { const char *name; long long *number; } numbers[] = {
        { "cut=", &m->cut }, { "stall=", &m->stall }, { "slow=", &m->slow }, { "length=", &m->length },
            { "claim=", &m->claim },
    };
    const struct { const char *name; char *text; size_t room; } texts[] = {
        { "status=", m->status, sizeof m->status }, { "api-status=", m->api_status, sizeof m->api_status },
        { "goto=", m->goto_, sizeof m->goto_ }, { "other=", m->other, sizeof m->other },
    };
    for (size_t i = 0; i < KW_LEN(flags); i++)
        if (!strcmp(line, flags[i].name))
            *flags[i].flag = true;
    for (size_t i = 0; i < KW_LEN(numbers); i++)
        if (kw_starts_with(line, numbers[i].name))
            *numbers[i].number = atoll(line + strlen(numbers[i].name));
    for (size_t i = 0; i < KW_LEN(texts); i++)
        if (kw_starts_with(line, texts[i].name))
            snprintf(texts[i].text, texts[i].room, "%s", line + strlen(texts[i].name));
}

static modes read_modes(bool bytes)
{
    modes m = { .cut = -1, .stall = -1 };
    char path[4096], line[512], used[4200];
    bool once = false;
    snprintf(path, sizeof path, "%s/mode", root);
    snprintf(used, sizeof used, "%s/mode.used", root);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        read_mode(line, &m, &once);
    }
    if (f)
        fclose(f);
    if (once && bytes && rename(path, used))
        return (modes){ .cut = -1, .stall = -1 };         /* another request was first */
    return m;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static void git_sha1(const void *p, size_t n, char hex[41])
{
    unsigned char d[EVP_MAX_MD_SIZE];
    char head[40];
    int k = snprintf(head, sizeof head, "blob %zu", n);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    EVP_DigestInit_ex(c, EVP_sha1(), NULL);
    EVP_DigestUpdate(c, head, (size_t)k + 1);
    EVP_DigestUpdate(c, p, n);
    EVP_DigestFinal_ex(c, d, NULL);
    EVP_MD_CTX_free(c);
    for (int i = 0; i < 20; i++)
        snprintf(hex + 2 * i, 3, "%02x", d[i]);
}

/* A gzip file of stored blocks: its size is known without compressing. */
static char *gzip(const unsigned char *p, size_t n, size_t *out)
{
    size_t blocks = (n + 65534) / 65535, at = 10, crc = 0xffffffff;
    char *g = calloc(1, n + 5 * blocks + 18);
    memcpy(g, "\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
    for (size_t from = 0; from < n; from += 65535) {
        size_t k = KW_MIN(n - from, 65535);
        unsigned char head[5] = { from + k == n, k & 255, k >> 8, ~k & 255, ~k >> 8 & 255 };
        memcpy(g + at, head, 5);
        memcpy(g + at + 5, p + from, k);
        at += 5 + k;
    }
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int b = 0; b < 8; b++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    uint32_t tail[2] = { (uint32_t)~crc, (uint32_t)n };
    memcpy(g + at, tail, 8);
    *out = at + 8;
    return g;
}

static void send_slowly(request *q, const modes *m, const char *p, size_t n)
{
    size_t piece = m->slow ? (size_t)m->slow : 1 << 16, sent = 0;
    while (sent < n) {
        size_t k = KW_MIN(piece, n - sent);
        if (m->cut >= 0)
            k = KW_MIN(k, (size_t)m->cut - KW_MIN((size_t)m->cut, sent));
        if (m->stall >= 0)
            k = KW_MIN(k, (size_t)m->stall - KW_MIN((size_t)m->stall, sent));
        if (!k && m->stall >= 0)
            sleep(20);
        if (!k)
            return;
        if (m->chunked)
            say(q, "%zx\r\n", k);
        if (!put(q, p + sent, k))
            return;
        if (m->chunked)
            say(q, "\r\n");
        sent += k;
        if (m->slow)
            usleep(10000);
    }
    if (m->chunked)
        say(q, "0\r\n\r\n");
}

static void send_bytes(request *q, const modes *m, char *p, size_t n, const char *etag, const char *more)
{
    char heads[1024] = "";
    long long from = 0;
    bool some = sscanf(q->range, "bytes=%lld-", &from) == 1 && !m->no206;
    if (some && *q->if_range && strncmp(q->if_range + 1, etag, strlen(etag)))
        some = false;
    if (some && from >= (long long)n) {
        refuse(q, "416 Range Not Satisfiable");
        return;
    }
    from = some ? from : 0;
    size_t k = n - (size_t)from;
    char *body = p + from;
    if (m->gzip) {
        body = gzip((unsigned char *)p, n, &k);
        some = false;
    }
    int at = snprintf(heads, sizeof heads, "%sETag: \"%s\"\r\n%s", more, etag, m->gzip ? "Content-Encoding: gzip\r\n"
                      : "");
    if (some)
        at += snprintf(heads + at, sizeof heads - (size_t)at, "Content-Range: bytes %lld-%zu/%zu\r\n", from, n - 1, n);
    if (m->chunked)
        snprintf(heads + at, sizeof heads - (size_t)at, "Transfer-Encoding: chunked\r\n");
    else
        snprintf(heads + at, sizeof heads - (size_t)at, "Content-Length: %lld\r\n", (long long)k + m->length);
    say(q, "HTTP/1.1 %s\r\nConnection: close\r\n%sContent-Type: application/octet-stream\r\n\r\n",
        some ? "206 Partial" : "200 OK",
        heads);
    if (strcmp(q->method, "HEAD"))
        send_slowly(q, m, body, k);
}

static void send_file(request *q, const char *path, const char *more)
{
    kw_arena *a = kw_arena_new();
    modes m = read_modes(true);
    char *p, etag[65];
    size_t n;
    if (kw_file_read(a, path, 1 << 30, &p, &n, NULL)) {
        refuse(q, "404 Not Found;X-Error-Code: EntryNotFound");
    } else if (*m.status) {
        refuse(q, m.status);
    } else if (m.html) {
        answer(q, "200 OK", "", "text/html; charset=utf-8", page);
    } else if (m.pointer) {
        answer(q, "200 OK", "", "text/plain", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
    } else if (m.loop || *m.goto_) {
        char heads[4096];
        snprintf(heads, sizeof heads, "Location: %s\r\n", m.loop ? q->path : m.goto_);
        answer(q, "302 Found", heads, "text/plain", "");
    } else {
        if (m.hash && n)
            p[n / 2] ^= 1;
        if (m.etag)
            for (size_t i = 0; i < n; i++)
                p[i] ^= 0x55;
        kw_sha256_of(p, n, etag);
        send_bytes(q, &m, p, n, etag, more);
    }
    kw_arena_free(a);
}

/* ---- the hub ----------------------------------------------------------------------------------------------------- */

#define COMMIT "c0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ff"

static void list_folder(json_t *list, const char *folder, const char *inside, const modes *m)
{
    kw_arena *a = kw_arena_new();
    char **names, path[4096], within[1024], *p, hex[65];
    size_t n = 0, size;
    if (kw_dir_list(a, folder, &names, &n, NULL))
        n = 0;
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        snprintf(within, sizeof within, "%s%s", inside, names[i]);
        if (kw_is_dir(path)) {
            strcat(within, "/");
            list_folder(list, path, within, m);
            continue;
        }
        if (kw_file_read(a, path, 1 << 30, &p, &size, NULL))
            continue;
        json_int_t shown = m->claim ? m->claim : (json_int_t)size;
        json_t *j = json_pack("{s:s, s:I}", "rfilename", within, "size", shown);
        git_sha1(p, size, hex);
        json_object_set_new(j, "blobId", json_string(hex));
        kw_sha256_of(p, size, hex);
        if (kw_ends_with(within, ".safetensors"))
            json_object_set_new(j, "lfs", json_pack("{s:s, s:I}", "sha256", hex, "size", shown));
        json_array_append_new(list, j);
    }
    kw_arena_free(a);
}

static void list_repo(request *q, char *rest)
{
    modes m = read_modes(false);
    char *end = strstr(rest, "/revision/"), folder[4096];
    if (end)
        *end = 0;
    snprintf(folder, sizeof folder, "%s/hub/%s", root, rest);
    if (*m.api_status) {
        refuse(q, m.api_status);
    } else if (m.api_html) {
        answer(q, "200 OK", "", "text/html", page);
    } else if (!kw_is_dir(folder)) {
        refuse(q, "401 Unauthorized;X-Error-Code: RepoNotFound");
    } else if (end && !kw_starts_with(end + 10, "main?") && !kw_starts_with(end + 10, COMMIT)) {
        refuse(q, "404 Not Found;X-Error-Code: RevisionNotFound");
    } else {
        json_t *list = json_array();
        list_folder(list, folder, "", &m);
        if (m.evil)
            json_array_append_new(list, json_pack("{s:s, s:i, s:s}", "rfilename", "../../evil.json", "size", 1,
                                                  "blobId", COMMIT));
        json_t *j = json_pack("{s:s, s:b, s:{s:s}, s:o}", "sha", COMMIT, "gated", false, "cardData", "license", "mit",
                              "siblings",
                              list);
        char *text = json_dumps(j, 0);
        answer(q, "200 OK", "", "application/json", text);
        free(text);
        json_decref(j);
    }
}

static void resolve(request *q, char *repo, char *file)
{
    char path[8192], heads[8192], hex[65] = "", *p;
    kw_arena *a = kw_arena_new();
    size_t n = 0;
    modes m = read_modes(false);
    snprintf(path, sizeof path, "%s/hub/%s/%s", root, repo, file);
    bool large = kw_ends_with(file, ".safetensors") && !kw_file_read(a, path, 1 << 30, &p, &n, NULL);
    if (large) {
        kw_sha256_of(p, n, hex);
        hex[0] = m.linked ? hex[0] ^ 1 : hex[0];
        snprintf(heads, sizeof heads, "X-Repo-Commit: " COMMIT "\r\nX-Linked-Etag: \"%s\"\r\nX-Linked-Size: %zu\r\n"
                 "Location: %s://%s:%d/cdn/%s/%s\r\n", hex, n, tls ? "https" : "http", *m.other ? m.other
                     : "127.0.0.1", port, repo, file);
        answer(q, "302 Found", heads, "text/plain", "");
    } else {
        send_file(q, path, "X-Repo-Commit: " COMMIT "\r\n");
    }
    kw_arena_free(a);
}

/* ---- Civitai ----------------------------------------------------------------------------------------------------- */

static void version(request *q, const char *id)
{
    char path[4096], *p, self[64];
    size_t n;
    modes m = read_modes(false);
    kw_arena *a = kw_arena_new();
    kw_str s = { 0 };
    snprintf(path, sizeof path, "%s/civitai/%s.json", root, id);
    snprintf(self, sizeof self, "%s://127.0.0.1:%d", tls ? "https" : "http", port);
    if (*m.api_status) {
        refuse(q, m.api_status);
    } else if (kw_file_read(a, path, 1 << 20, &p, &n, NULL)) {
        refuse(q, "404 Not Found");
    } else {
        for (; *p; p++)
            kw_str_add_n(&s, *p == '@' ? self : p, *p == '@' ? strlen(self) : 1);
        answer(q, "200 OK", "", "application/json", s.s);
    }
    kw_str_free(&s);
    kw_arena_free(a);
}

static void download(request *q, const char *id)
{
    modes m = read_modes(false);
    char heads[4096];
    if (*m.status) {
        refuse(q, m.status);
        return;
    }
    snprintf(heads, sizeof heads, "Location: %s://%s:%d%s%s\r\n", tls ? "https" : "http", *m.other ? m.other
             : "127.0.0.1", port,
             m.login ? "/login?returnUrl=/" : "/blob/", m.login ? "" : id);
    answer(q, "307 Temporary Redirect", heads, "text/plain", "");
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void log_request(const request *q)
{
    char path[4096];
    kw_str s = { 0 };
    snprintf(path, sizeof path, "%s/log", root);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    kw_str_printf(&s, "%s %s host=%s range=%s if-range=%s auth=%s\n", q->method, q->path, q->host, q->range,
                  q->if_range, q->auth);
    if (fd >= 0 && write(fd, s.s, s.n) < 0)
        perror(path);
    close(fd);
    kw_str_free(&s);
}

static void head_of(const char *text, const char *name, char *to, size_t room)
{
    const char *at = strcasestr(text, name);
    *to = 0;
    if (at) {
        at += strlen(name);
        at += strspn(at, " ");
        snprintf(to, room, "%.*s", (int)strcspn(at, "\r\n"), at);
    }
}

static void route(request *q)
{
    char copy[2048], path[4096], *at;
    snprintf(copy, sizeof copy, "%s", q->path);
    snprintf(path, sizeof path, "%s/files%s", root, copy + (kw_starts_with(copy, "/file/") ? 5 : 0));
    if (kw_starts_with(copy, "/api/models/")) {
        list_repo(q, copy + 12);
    } else if (kw_starts_with(copy, "/api/v1/model-versions/")) {
        version(q, copy + 23);
    } else if (kw_starts_with(copy, "/api/download/models/")) {
        download(q, copy + 21);
    } else if (kw_starts_with(copy, "/login")) {
        answer(q, "200 OK", "", "text/html", page);
    } else if (kw_starts_with(copy, "/blob/")) {
        snprintf(path, sizeof path, "%s/civitai/%s.bin", root, copy + 6);
        send_file(q, path, "");
    } else if (kw_starts_with(copy, "/cdn/")) {
        snprintf(path, sizeof path, "%s/hub/%s", root, copy + 5);
        send_file(q, path, "");
    } else if ((at = strstr(copy, "/resolve/" COMMIT "/"))) {
        *at = 0;
        resolve(q, copy + 1, at + strlen("/resolve/" COMMIT "/"));
    } else {
        path[strcspn(path, "?")] = 0;
        send_file(q, path, "");
    }
}

static void serve(request *q)
{
    char text[16384];
    size_t n = 0;
    ssize_t k;
    while (n < sizeof text - 1) {
        int room = (int)(sizeof text - 1 - n);
        k = q->ssl ? SSL_read(q->ssl, text + n, room) : recv(q->fd, text + n, (size_t)room, 0);
        if (k <= 0)
            break;
        text[n += (size_t)k] = 0;
        if (strstr(text, "\r\n\r\n"))
            break;
    }
    text[n] = 0;
    if (sscanf(text, "%7s %2047s", q->method, q->path) != 2)
        return;
    if (kw_starts_with(q->path, "http://"))       /* asked as a proxy */
        memmove(q->path, q->path + 7 + strcspn(q->path + 7, "/"), strlen(q->path + 7 + strcspn(q->path + 7, "/")) + 1);
    head_of(text, "\r\nRange:",  q->range, sizeof q->range);
    head_of(text, "\r\nIf-Range:", q->if_range, sizeof q->if_range);
    head_of(text, "\r\nAuthorization:", q->auth, sizeof q->auth);
    head_of(text, "\r\nHost:", q->host, sizeof q->host);
    log_request(q);
    route(q);
    if (q->ssl)
        SSL_shutdown(q->ssl);
}

/* A certificate of its own, for 127.0.0.1, in ROOT/cert.pem. */
static SSL_CTX *own_certificate(void)
{
    char path[4096];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 86400);
    X509_set_version(x, 2);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"kiwame test", -1,
                               -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509V3_CTX v;
    X509V3_set_ctx(&v, x, x, NULL, NULL, 0);
    X509_EXTENSION *names = X509V3_EXT_conf_nid(NULL, &v, NID_subject_alt_name, "IP:127.0.0.1");
    X509_add_ext(x, names, -1);
    X509_sign(x, key, EVP_sha256());
    snprintf(path, sizeof path, "%s/cert.pem", root);
    FILE *f = fopen(path, "w");
    if (f && PEM_write_X509(f, x))
        fclose(f);
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    return SSL_CTX_use_certificate(c, x) == 1 && SSL_CTX_use_PrivateKey(c, key) == 1 ? c : NULL;
}

static void one(int fd, SSL_CTX *c)
{
    request q = { .fd = fd };
    if (c) {
        q.ssl = SSL_new(c);
        SSL_set_fd(q.ssl, fd);
        if (SSL_accept(q.ssl) != 1)
            return;
    }
    serve(&q);
    shutdown(fd, SHUT_WR);
    char rest[512];
    while (recv(fd, rest, sizeof rest, 0) > 0)
        ;
}

int main(int argc, char **argv)
{
    int on = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY) };
    socklen_t n = sizeof a;
    char path[4096];
    root = argv[1];
    tls = argc > 2;
    if (argc < 2 || s < 0 || bind(s, (struct sockaddr *)&a, n) || listen(s, 64) || getsockname(s,
                                                                                               (struct sockaddr *)&a,
                                                                                                   &n))
        return 1;
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    port = ntohs(a.sin_port);
    SSL_CTX *c = tls ? own_certificate() : NULL;
    signal(SIGCHLD, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    snprintf(path, sizeof path, "%s/port", root);
    FILE *f = fopen(path, "w");
    if (!f || fprintf(f, "%d\n", port) < 0 || fclose(f))
        return 1;
    for (;;) {
        int fd = accept(s, NULL, NULL);
        if (fd < 0)
            continue;
        if (!fork()) {
            close(s);
            one(fd, c);
            _exit(0);
        }
        close(fd);
    }
}
