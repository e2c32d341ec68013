/* net_internal.h - what the files of net/ share among themselves. */
#ifndef KW_NET_INTERNAL_H
#define KW_NET_INTERNAL_H

#include "net.h"

enum { KW__REDIRECTS = 10, KW__URL = 4096 };

/* ---- one question and its answer (http.c) ------------------------------------------------------------------------ */

typedef enum {
    KW__WHOLE,                            /* the answer came to its end */
    KW__CUT,                              /* it broke off: worth another attempt */
    KW__QUIET,                            /* no bytes for too long: likewise */
    KW__NO_CONNECTION,                    /* no name, no connection: likewise */
} kw__end;

typedef struct {                          /* texts are empty, numbers -1 where the server does not say */
    long status;
    kw__end end;
    bool moved;                           /* the answer comes from another host than was asked */
    char url[KW__URL];                    /* where the answer came from */
    char etag[256], linked_etag[256], commit[80], error_code[64], type[96], encoding[32], name[256];
    char why[400];                        /* what the server or the network says */
    int64_t length, from, total, linked_size;       /* Content-Length; Content-Range: bytes from-.../total */
    double wait;                          /* Retry-After, in seconds */
    char text[2048];                      /* the beginning of an answer that is an error */
} kw__reply;

typedef struct {
    const char *url, *token;              /* the token goes to this url's scheme, host and port alone */
    bool named;                           /* the user named this origin: it may be http and private */
    uint64_t from;                        /* ask for the bytes from here on */
    const char *if_range;                 /* ... if the file still has this (strong) etag; or NULL */
    bool decode;                          /* let the server compress, and undo it */
    double limit;                         /* seconds for all of it; 0: as long as bytes come */
    /* The head of the answer (status 200 or 206) is known; not KW_OK: no body is wanted. */
    kw_status (*begin)(void *user, const kw__reply *r, kw_err *e);
    kw_status (*put)(void *user, const void *p, size_t n, kw_err *e);
    kw_status (*tick)(void *user, kw_err *e);       /* several times a second */
    void *user;
} kw__request;

/* KW_OK: *r says how it went, whatever the status. Not KW_OK: refused (address, protocol, too many redirects), a
 * callback's failure, or memory. */
KW_MUST kw_status kw__http(kw_web *n, const kw__request *q, kw__reply *r, kw_err *e);

/* ---- questions answered by JSON (ask.c) -------------------------------------------------------------------------- */

typedef enum { KW__HUB, KW__CIVITAI, KW__OTHER } kw__site;

/* `what`: the thing asked for, in messages. At most 16 MiB; repeated after failures that may pass. */
KW_MUST kw_status kw__ask_json(kw_web *n, kw_arena *a, kw__site site, const char *what, const char *url, json_t **json,
                               kw_err *e);
/* An answer that is no success, as an error with advice. */
KW_MUST kw_status kw__explain(const kw_web *n, kw__site site, const char *what, const kw__reply *r, bool had_token,
                              kw_err *e);
bool kw__passes(const kw__reply *r);      /* may it go better at the next attempt? */
/* Waits before attempt number `attempt` (1: the second), as long as the server asks or the backoff says. KW_EDATA when
 * the server asks for more than `most` seconds. */
KW_MUST kw_status kw__wait(kw_web *n, const char *name, int attempt, const kw__reply *r, kw_err *e);
KW_MUST kw_status kw__net_note(kw_web *n, const char *name, const char *fmt, ...) KW_PRINTF(3, 4);
KW_MUST kw_status kw__offline(kw_err *e, const char *what);
const char *kw__bearer(const kw_web *n, kw__site site);

/* ---- a file (fetch.c) -------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;                     /* in messages */
    kw__site site;
    const char *url, *token;
    bool named;
    const char *part;                     /* where the bytes gather; goes on from what is there */
    /* keeps the etag of a part whose hash nobody knows; NULL: the hash is known */
    const char *etag_file;
    uint64_t size;                        /* 0: unknown */
    bool about;                           /* the size is not exact */
    const char *sha256, *git_sha1;        /* what it must be, or NULL */
    bool page;                            /* a web page is what is wanted */
} kw__file;

/* On success `part` is whole, synced and verified; hex[65]: its SHA-256, name[256] or NULL: what the server calls
   it. */
KW_MUST kw_status kw__fetch(kw_web *n, const kw__file *f, char *hex, char *name, kw_err *e);
/* Is this file what it should be? One of the hashes is given. */
KW_MUST kw_status kw__verify(kw_web *n, const char *path, const char *name, uint64_t size, const char *sha256,
                             const char *git_sha1, bool *same, kw_err *e);
KW_MUST kw_status kw__room(const char *folder, uint64_t bytes, kw_err *e);

/* ---- locks and places (place.c) ---------------------------------------------------------------------------------- */

typedef struct { int fd; bool waited; } kw__held;        /* the caller closes fd */

/* Takes a lock file as huggingface_hub does (flock); while another process has it, shows how far `part` is. */
KW_MUST kw_status kw__lock(kw_web *n, const char *path, const char *name, const char *part, uint64_t size, kw__held *h,
                           kw_err *e);
KW_MUST kw_status kw__sys(kw_err *e, const char *what, const char *path);       /* an errno */
KW_MUST kw_status kw__sync_folder(const char *dir, kw_err *e);
bool kw__hex(const char *text, size_t n);
/* A file name from outside made harmless: its last component, no control characters, not hidden; may become "". */
void kw__plain_name(const char *from, char to[256]);
KW_MUST kw_status kw__pull_to(kw_web *n, kw_arena *a, kw__file *f, const char *folder, const char *name, char **path,
                              kw_err *e);

#endif
