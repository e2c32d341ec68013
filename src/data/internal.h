/* internal.h - shared by the files of the data layer. */
#ifndef KW_DATA_INTERNAL_H
#define KW_DATA_INTERNAL_H

#include "data.h"

#define NO_MEMORY(e) kw_fail(e, KW_ENOMEM, N_("out of memory while reading the data"))

/* ---- names (names.c) ---------------------------------------------------------------------------------- */

/* Valid UTF-8 in NFC; what is invalid becomes U+FFFD, control characters U+FFFD too. NULL: no memory. */
char *kw__nfc(kw_arena *a, const char *bytes);
char *kw__stem(kw_arena *a, const char *name);          /* without the last extension and without folders */
const char *kw__extension(const char *name);            /* from the last dot on, "" when there is none */
/* As strcasecmp and strcasestr, but for ASCII and in every locale (Turkish has two letters i). */
int kw__compare_folded(const char *x, const char *y, size_t most);
const char *kw__find_folded(const char *text, const char *word);
/* A file's or folder's name as words: "cat_sitting-02 (1)" is "cat sitting". May be empty. NULL: no memory. */
char *kw__words(kw_arena *a, const char *stem);
/* "10_name": true, with repeats and what follows. */
bool kw__repeats(const char *folder, long *repeats, const char **words);

/* ---- finding (walk.c) --------------------------------------------------------------------------------- */

typedef struct {                          /* a file that was found */
    const char *path, *name;              /* bytes; NFC, relative to the root */
    const char *stem;                     /* of the name, without folders */
    uint32_t dir;                         /* number of its folder: stems are compared within one */
    uint32_t folder;                      /* index in .folders */
    int rank;                             /* of captions: the lower wins */
    bool used;
} kw_found;

typedef struct {
    kw_found *list;
    size_t n, capacity;
} kw_founds;

typedef struct {                          /* a folder that was read */
    const char *name;                     /* NFC, relative; "" the root */
    int repeats;
    const char *tokens;                   /* from "10_name", or NULL */
    uint64_t device, inode;
} kw_place;

typedef struct {
    kw_dataset *d;
    const kw_scan *o;
    const char *root, *real_root;
    kw_founds pictures, captions, metadata, masks;
    kw_place *places;
    size_t n_places, places_capacity, n_files;
} kw_walk;

KW_MUST kw_status kw__walk(kw_walk *w, const char *dir, kw_err *e);

/* ---- captions (attach.c, encoding.c) ------------------------------------------------------------------ */

/* Items from what was found, each with its captions; first: index of the first new item. */
KW_MUST kw_status kw__attach(kw_walk *w, size_t first, kw_err *e);
/* Reads one caption file into clean lines. Returns KW_EDATA when it cannot be read. */
KW_MUST kw_status kw__caption_read(kw_dataset *d, const kw_scan *o, const kw_found *f, const char ***lines, size_t *n,
                                   kw_err *e);
/* Clean one text into lines; remarks for `name`. */
KW_MUST kw_status kw__caption_lines(kw_dataset *d, const char *name, char *text, const char ***lines, size_t *n,
                                    kw_err *e);
/* Put the trigger word into a caption; had: it was there already. NULL: no memory. */
const char *kw__trigger(kw_arena *a, const char *trigger, const char *caption, bool *had);

/* ---- remarks (remark.c) ------------------------------------------------------------------------------- */

/* detail may be NULL; it is copied. */
KW_MUST kw_status kw__remark(kw_dataset *d, kw_remark_code code, const char *name, kw_err *e, const char *detail, ...)
    KW_PRINTF(5, 6);

const kw_plan_config *kw__plan_config(const kw_plan *p);        /* plan.c */

/* ---- pixels (loader.c) -------------------------------------------------------------------------------- */

/* The mask beside a sample's picture, fitted as the picture is: (h, w) bytes, 1 where it is light. */
KW_MUST kw_status kw__loader_mask(kw_loader *l, const kw_sample *s, uint8_t *out, kw_err *e);

/* ---- latents (latents.c) ------------------------------------------------------------------------------ */

struct kw_latents {
    const kw_dataset *d;
    kw_latents_config c;
    const char *vae_hash;
};

KW_MUST kw_status kw__latents_key(const kw_latents *l, const kw_sample *s, char key[65], kw_err *e);
bool kw__latents_cached(const kw_latents *l, const kw_sample *s);     /* is it one to be kept? */

/* ---- pictures (check.c) ------------------------------------------------------------------------------- */

/* Read and decode one file; hash[65] of its bytes. decoder NULL: in this process. */
KW_MUST kw_status kw__picture_load(kw_decoder *decoder, const char *path, const char *name, const uint8_t background[3],
                                   char hash[65], kw_picture *p, kw_err *e);

#endif
