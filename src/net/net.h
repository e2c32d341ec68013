/*
 * net.h - models from the network: Hugging Face, Civitai, plain addresses. Above it only the command line.
 *
 *     kw_web n = { .hub = "https://huggingface.co", .hub_cache = ".../huggingface/hub", .retries = 5, ... };
 *     kw_hub_name name;
 *     KW_TRY(kw_hub_name_parse(a, "hf:org/repo@main:model.safetensors", &name, e));
 *     kw_hub_repo *repo;
 *     KW_TRY(kw_hub_open(&n, a, &name, &repo, e));               // one question: files, sizes, hashes, licence
 *     KW_TRY(kw_hub_pick(a, repo, &want, e));                    // which of them a program needs
 *     KW_TRY(kw_hub_pull(&n, a, repo, &path, e));                // into the shared cache, each file verified
 *
 * What holds for every byte that comes in: https only and public addresses only (each connection's address is looked
 * at, whatever the name said), unless the endpoint was named by the user or `allow_private` is set; a token goes to the
 * host it is for and nowhere else, not even after a redirect; nothing is under its final name before its size and hash
 * are what was announced. Nothing here reads the environment: the command line fills kw_web.
 *
 * Errors: KW_EDATA the other side refuses or sent what it should not, KW_ESTORAGE the network or the disk fails,
 * KW_EUSAGE a name that cannot be, KW_ESTOP progress said so. Built without libcurl (KW_NET=OFF) everything that would
 * ask the network fails by saying that; what is already there is still found.
 */
#ifndef KW_NET_H
#define KW_NET_H

#include "io/io.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What happened, for those who wait: a line of text (translated), or NULL and how far the file is. */
typedef struct {
    const char *note;                     /* "the connection broke at 12 MB; going on from there" */
    const char *name;                     /* the file's */
    uint64_t done, total;                 /* bytes of it; total 0: unknown */
    double wait;                          /* seconds until the next attempt; 0: none */
} kw_net_event;

typedef struct {
    const char *hub, *civitai;            /* without a slash at the end; what the user named may be http and private */
    const char *hub_token, *civitai_token;          /* or NULL */
    const char *hub_cache;                /* huggingface_hub's cache: models--org--name/ lie there */
    const char *models;                   /* our own folder, for files that have no place in that cache */
    const char *http_proxy, *https_proxy, *no_proxy;        /* or NULL */
    const char *ca_file;                  /* certificates instead of the system's, or NULL */
    bool named_hub, named_civitai;        /* the endpoint is the user's own */
    bool offline, allow_private;
    kw_texts resolve;                     /* "HOST:PORT:ADDRESS": answers that the name server is not asked for */
    double stall, backoff;                /* seconds: of silence until a connection is given up; the first wait */
    int retries;                          /* attempts in a row that bring nothing */
    uint64_t most;                        /* no file may be larger */
    kw_status (*tell)(void *user, const kw_net_event *v, kw_err *e);     /* or NULL; a failure ends everything */
    void *user;
} kw_web;

bool kw_net_built(void);                  /* was libcurl linked? */
const char *kw_net_library(void);         /* its version, or NULL */

/* ---- addresses (address.c) --------------------------------------------------------------------------------- */

/* Is an address of the machine itself, a local network, or otherwise not of the public internet? family: AF_INET with
 * 4 bytes in network order, AF_INET6 with 16 (also those that carry an IPv4 address inside); others: true. */
bool kw_address_private(int family, const void *bytes);
/* A name that never is public: localhost, *.local, *.internal ..., or a private address: "[::1]", "10.0.0.1". */
bool kw_host_private(const char *host);
/* NO_PROXY: "*", or names and their subdomains, separated by commas or blanks; addresses with /prefix. */
bool kw_host_listed(const char *host, const char *list);
/* A path inside a repository: relative, no "..", no empty or odd component, at most 1,024 bytes. */
bool kw_path_safe(const char *path);
/* Percent-encoding of all but letters, digits, "-_.~" and what `keep` names; NULL: no memory. */
char *kw_url_encode(kw_arena *a, const char *text, const char *keep);

/* ---- one file from an address ------------------------------------------------------------------------------- */

/* Names the file: the address's last component or what the server calls it. `to`: the folder it goes to; NULL:
 * models/url/<hash of the address>/. sha256 may be NULL. */
KW_MUST kw_status kw_url_pull(kw_web *n, kw_arena *a, const char *url, const char *to, const char *sha256, char **path,
                              kw_err *e);

/* ---- Hugging Face: hf:org/name[@revision][:file] ------------------------------------------------------------- */

typedef struct { const char *repo, *revision, *file; } kw_hub_name;     /* file NULL: what a program needs of it */

/* Also https://huggingface.co/org/name[/resolve|blob|tree/revision[/file]]. */
KW_MUST kw_status kw_hub_name_parse(kw_arena *a, const char *text, kw_hub_name *out, kw_err *e);
bool kw_hub_is_name(const char *text);    /* does it look like one? */

typedef struct {
    const char *path, *etag;              /* etag: SHA-256 of a large file, git's SHA-1 of a small one */
    bool large;
    uint64_t size;
    bool wanted, there;                   /* chosen by pick; there: the cache has it, verified */
} kw_hub_file;

typedef struct {
    kw_hub_name name;
    const char *commit, *licence;         /* licence NULL: not said */
    const char *gated;                    /* "auto", "manual", or NULL */
    kw_hub_file *file;
    size_t n;
    const char *chosen;                   /* in words: "diffusers folder, fp16" */
    const char *main;                     /* the one file to give to a program; NULL: the folder */
} kw_hub_repo;

KW_MUST kw_status kw_hub_open(kw_web *n, kw_arena *a, const kw_hub_name *name, kw_hub_repo **out, kw_err *e);

typedef enum { KW_VARIANT_AUTO, KW_VARIANT_FULL, KW_VARIANT_FP16 } kw_hub_variant;
typedef struct { bool all; kw_hub_variant variant; } kw_hub_want;

/* Marks what is wanted: the named file; or of a diffusers folder its parts (safetensors where there are, fp16 where
 * complete); or the only model file; or everything. KW_EUSAGE lists the choices where there is more than one. */
KW_MUST kw_status kw_hub_pick(kw_arena *a, kw_hub_repo *r, const kw_hub_want *want, kw_err *e);
uint64_t kw_hub_bytes(const kw_hub_repo *r, bool missing);        /* of what is wanted; missing: not there yet */
/* Looks which of the wanted files lie in the cache and are what they should be; hashes them. */
KW_MUST kw_status kw_hub_look(kw_web *n, kw_arena *a, kw_hub_repo *r, kw_err *e);
/* Brings what is not there. `path`: what to give to --base. */
KW_MUST kw_status kw_hub_pull(kw_web *n, kw_arena *a, kw_hub_repo *r, char **path, kw_err *e);
/* Notes in the cache that the named file is not in this commit, as huggingface_hub does: its users ask no more. */
KW_MUST kw_status kw_hub_note_absent(const kw_web *n, kw_arena *a, const kw_hub_repo *r, kw_err *e);
/* Without the network: what lies in the cache under this name. KW_EDATA: nothing. */
KW_MUST kw_status kw_hub_find(const kw_web *n, kw_arena *a, const kw_hub_name *name, char **path, kw_err *e);

/* ---- short names ------------------------------------------------------------------------------------------------ */

typedef struct {
    const char *name, *repo, *what, *licence;
    double size;                          /* GB that are downloaded, about */
    const char *note;                     /* N_(); what should be known, or NULL */
} kw_short_name;

const kw_short_name *kw_short_names(void);                        /* ended by { .name = NULL } */
const kw_short_name *kw_short_name_find(const char *name);        /* NULL: none */
const char *kw_short_name_near(const char *name);                 /* NULL: none is near */

/* ---- Civitai: civitai:VERSION, civitai:MODEL@VERSION, urn:air:...:civitai:MODEL@VERSION, pages ---- */

typedef struct {
    long long version, model;             /* 0: not said */
} kw_civitai_name;

bool kw_civitai_is_name(const char *text);
KW_MUST kw_status kw_civitai_name_parse(const char *text, kw_civitai_name *out, kw_err *e);

typedef struct {
    const char *name, *url, *sha256, *format, *fp, *type;           /* some may be NULL */
    uint64_t size;                        /* about: the list has it in kilobytes; 0: not said */
    bool wanted;
} kw_civitai_file;

typedef struct {
    long long version, model;
    const char *title, *version_name, *type, *base, *words;        /* words: trained words, "a, b"; may be NULL */
    kw_civitai_file *file;
    size_t n;
} kw_civitai_version;

KW_MUST kw_status kw_civitai_open(kw_web *n, kw_arena *a, const kw_civitai_name *name, kw_civitai_version **out,
                                  kw_err *e);
KW_MUST kw_status kw_civitai_pull(kw_web *n, kw_arena *a, const kw_civitai_version *v, const char *to, char **path,
                                  kw_err *e);
/* Without the network: the file in models/civitai/VERSION/. */
KW_MUST kw_status kw_civitai_find(const kw_web *n, kw_arena *a, const kw_civitai_name *name, char **path, kw_err *e);

/* Copies (or, on the same file system, links) a verified file of the cache to a folder; never over another file. */
KW_MUST kw_status kw_hub_place(kw_arena *a, const kw_hub_repo *r, const char *snapshot, const char *to, char **path,
                               kw_err *e);

#ifdef __cplusplus
}
#endif

#endif
