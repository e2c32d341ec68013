/*
 * data.h - from a folder of pictures to batches: what is there, which caption belongs to what, buckets, order, caches.
 *
 *     kw_dataset *d;
 *     KW_TRY(kw_data_scan(arena, "photos", &(kw_scan){ .trigger = "kiwa" }, &d, e));     names and captions
 *     kw_check check = { .decoder = decoder, .workers = 2, .most_bad = 0.1 };
 *     KW_TRY(kw_data_check(d, &check, e));                                               every picture decoded once
 *     KW_TRY(kw_data_split(d, 0.1, seed, e));                                            some are held out
 *     kw_bucket_rule rule = kw_bucket_rule_for(512, 8, 4);
 *     KW_TRY(kw_data_buckets(d, &rule, e));                                              a size for each picture
 *     kw_plan *p;
 *     KW_TRY(kw_plan_new(arena, d, &(kw_plan_config){ .seed = 42, .batch = 2 }, &p, e));
 *     for (int64_t step = 0; step < 100; step++) {
 *         kw_batch b;
 *         KW_TRY(kw_plan_batch(p, scratch, step, &b, e));            a pure function of the data, the config and step
 *         KW_TRY(kw_latents_get(latents, &b, moments, e));           (b.n, b.h/f, b.w/f, channels)
 *         for (size_t i = 0; i < b.n; i++)
 *             KW_TRY(kw_caption_make(scratch, d, &captions, &b.samples[i], &text, e));     likewise pure
 *     }
 *
 * Nothing is skipped silently: each file that is not used, and each thing that was changed or guessed, is a kw_remark.
 * The folder is only read. Order never depends on the file system: items are in byte order of their NFC names.
 * Errors: KW_EDATA what was found is no use (with paths), KW_EUSAGE a wrong setting, KW_ENOMEM, KW_ESTOP.
 */
#ifndef KW_DATA_H
#define KW_DATA_H

#include "io/io.h"
#include "picture/picture.h"
#include "text/text.h"

/* ---- remarks ------------------------------------------------------------------------------------------ */

typedef enum {
    KW_CLASS_UNUSED,                      /* a file that is not used */
    KW_CLASS_BAD,                         /* a picture that cannot be used */
    KW_CLASS_WARNING,                     /* used, but look at it */
    KW_CLASS_NOTE,                        /* used, and changed as it should be */
} kw_remark_class;

/*  name, class, what the user is told  */
#define KW_REMARK_MAP(X) \
    X(BAD_PICTURE,    BAD,     N_("picture that cannot be read")) \
    X(BAD_CAPTION,    BAD,     N_("caption that cannot be read")) \
    X(BAD_SHAPE,      BAD,     N_("picture of a useless shape")) \
    X(FORMAT,         UNUSED,  N_("picture in a format that is not supported: convert it to PNG or JPEG")) \
    X(LINK_OUTSIDE,   UNUSED,  N_("link to a place outside of the folder: --follow reads it")) \
    X(LINK_TWICE,     UNUSED,  N_("link to a folder that is read anyway")) \
    X(LINK_BROKEN,    UNUSED,  N_("link that leads nowhere")) \
    X(TOO_DEEP,       UNUSED,  N_("folder nested too deeply")) \
    X(SPECIAL,        UNUSED,  N_("pipe, socket or device")) \
    X(RUN,            UNUSED,  N_("folder of a training run: its pictures are results")) \
    X(ZERO_REPEATS,   UNUSED,  N_("its folder's name says 0 repeats")) \
    X(LEAK,           UNUSED,  N_("held-out picture that is a training picture too")) \
    X(CAPTION_ALONE,  UNUSED,  N_("caption without a picture")) \
    X(METADATA_ALONE, UNUSED,  N_("metadata.jsonl names a picture that is not there")) \
    X(CAPTION_SECOND, UNUSED,  N_("second caption for the same picture")) \
    X(MASK,           UNUSED,  N_("mask: only inpainting bases use masks")) \
    X(MASK_ALONE,     UNUSED,  N_("mask without a picture of its own")) \
    X(OTHER,          UNUSED,  N_("neither picture nor caption")) \
    X(HIDDEN,         UNUSED,  N_("hidden")) \
    X(NO_CAPTION,     WARNING, N_("picture without a caption")) \
    X(EMPTY,          WARNING, N_("empty caption")) \
    X(ENCODING,       WARNING, N_("caption converted to UTF-8")) \
    X(CONTROL,        WARNING, N_("control characters taken out of a caption")) \
    X(LINES,          WARNING, N_("caption of several lines: the first is used (--any-line: one by chance)")) \
    X(PLACEHOLDER,    WARNING, N_("caption with [trigger], but there is no trigger word")) \
    X(YEAR,           WARNING, N_("folder's number too large for repeats: taken as a part of its name")) \
    X(DUPLICATE,      WARNING, N_("the same picture as another one")) \
    X(SAME_NAME,      WARNING, N_("names that differ only in case or in Unicode form")) \
    X(SHARED,         WARNING, N_("two pictures share one caption file")) \
    X(SMALL,          WARNING, N_("small picture, much enlarged")) \
    X(CROPPED,        WARNING, N_("picture of which much is cut off to fit its bucket")) \
    X(PICTURE,        NOTE,    N_("picture converted"))

typedef enum {
#define X(name, class, text) KW_REMARK_##name,
    KW_REMARK_MAP(X)
#undef X
    KW_N_REMARKS
} kw_remark_code;

typedef struct {
    kw_remark_code code;
    const char *name;                     /* the file, relative to the folder; printable UTF-8 */
    const char *detail;                   /* the reason, translated; "" when the code says all */
} kw_remark;

kw_remark_class kw_remark_class_of(kw_remark_code c);
const char *kw_remark_text(kw_remark_code c);           /* not yet translated */
const char *kw_remark_name(kw_remark_code c);           /* "BAD_PICTURE", for JSON */

/* ---- what is there ------------------------------------------------------------------------------------ */

/*  name, what the user is told  -  where a picture's caption comes from, the first that there is  */
#define KW_CAPTION_MAP(X) \
    X(FILE, N_("caption file")) X(METADATA, N_("metadata.jsonl")) X(FOLDER, N_("folder name")) \
    X(NAME, N_("file name")) X(NONE, N_("none"))

typedef enum {
#define X(name, text) KW_CAPTION_##name,
    KW_CAPTION_MAP(X)
#undef X
    KW_N_CAPTIONS
} kw_caption_source;

const char *kw_caption_source_text(kw_caption_source s);        /* not yet translated */

typedef struct {
    const char *path;                     /* bytes, as the system has it */
    const char *name;                     /* relative to the folder, NFC, printable UTF-8; items are sorted by it */
    int repeats;                          /* how often it is seen in one epoch */
    const char **captions;                /* (n_captions >= 1) UTF-8, one line each, trigger word in; may be "" */
    size_t n_captions;
    kw_caption_source source;
    const char *caption_file;             /* NFC name of the file that holds them, or NULL */
    const char *mask, *mask_name;         /* path and name of the mask beside it, or NULL */
    bool held_out;                        /* for validation, never trained on */
    const char *bad;                      /* why it cannot be used, translated; NULL: it can */
    /* known after kw_data_check */
    kw_picture_info info;
    int w, h;                             /* upright */
    char hash[65];                        /* SHA-256 of the file */
    char mask_hash[65];                   /* likewise of the mask's; "" without one */
    uint32_t twin;                        /* the first item with the same hash; its own index when there is none */
    /* known after kw_data_buckets */
    uint32_t bucket;
    kw_fit fit;                           /* into its bucket; centre crop */
} kw_item;

typedef struct { int w, h; uint32_t n; } kw_bucket;     /* n: items of both kinds that can be used */

typedef struct { const char *name; int repeats; uint32_t n; const char *tokens; } kw_folder;    /* tokens: or NULL */

typedef struct {
    const char *root;                     /* as given */
    const char *trigger;                  /* or NULL */
    kw_item *items;                       /* (n) sorted by name; those held out from another folder come last */
    size_t n, capacity;
    size_t n_trigger;                     /* captions that had the trigger word before it was put in */
    kw_folder *folders;                   /* (n_folders) those with pictures in them, sorted by name */
    size_t n_folders, folders_capacity;
    kw_bucket *buckets;                   /* (n_buckets) sorted; only those that are used; after kw_data_buckets */
    size_t n_buckets;
    kw_remark *remarks;                   /* in the order of finding; the same for the same folder */
    size_t n_remarks, remarks_capacity;
    kw_arena *arena;                      /* everything above lives here */
} kw_dataset;

typedef struct {
    const char *trigger;                  /* takes the place of "[trigger]", else "trigger, caption"; NULL: none */
    const char *caption_extension;        /* ".tags": looked for before .txt, .caption and .cap; NULL: none */
    const char *encoding;                 /* of caption files, as iconv names it; NULL: found out */
    int repeats;                          /* of folders that are not named "10_name"; 0 means 1 */
    bool follow;                          /* read links that lead out of the folder */
    bool any_line;                        /* kw_caption_config.any_line is on: no remark about further lines */
    bool masks;                           /* STEM.mask.png, STEM-masklabel.png belong to STEM; else they are unused */
} kw_scan;

enum {
    KW_DATA_MAX_DEPTH = 32, KW_DATA_MAX_FILES = 1000000, KW_CAPTION_MAX_BYTES = 1 << 20, KW_MAX_REPEATS = 999,
};

/*
 * Read names and captions of a folder and all folders in it. A folder "10_name" gives its pictures (nested ones too)
 * 10 repeats and the fallback caption "name"; the root's own name counts as well.
 * Captions, the first that there is: STEM.txt, .caption, .cap beside the picture (or PICTURE.txt), a metadata.jsonl at
 * or above it (lines {"file_name": ..., "text": ...}), the folder's words, the file's name without numbers.
 * Stems are compared in NFC. Files are UTF-8 (with or without BOM), UTF-16 or CP932; each line is one caption.
 * KW_EDATA: no picture found (with what was searched), a folder that cannot be read, a broken metadata.jsonl.
 */
KW_MUST kw_status kw_data_scan(kw_arena *a, const char *dir, const kw_scan *o, kw_dataset **out, kw_err *e);
/* The pictures of another folder, all held out: call before kw_data_check, then do without kw_data_split. */
KW_MUST kw_status kw_data_add_held_out(kw_dataset *d, const char *dir, const kw_scan *o, kw_err *e);

/* A caption file's text as UTF-8. *from: what it was converted from, NULL when it was UTF-8 already.
 * KW_EDATA with line and byte when it is in no encoding known, or not in the one named. */
KW_MUST kw_status kw_text_decode(kw_arena *a, const char *shown, const char *data, size_t n, const char *encoding,
                                 char **text, const char **from, kw_err *e);

/* ---- every picture decoded once ----------------------------------------------------------------------- */

typedef struct {
    kw_decoder *decoder;                  /* NULL: inside this process, for tests and trusted files */
    int workers;                          /* threads, each with a picture; 0 means 1 */
    const uint8_t *background;            /* below transparency; NULL: white */
    double most_bad;                      /* share of bad pictures with which a run may start; 0.1 is usual */
    bool (*progress)(void *user, size_t done, size_t n);        /* false stops (KW_ESTOP); may be NULL */
    void *user;
} kw_check;

/* Sets w, h, info, hash, twin, bad. KW_EDATA when more than most_bad of the pictures are bad, or all, naming some. */
KW_MUST kw_status kw_data_check(kw_dataset *d, const kw_check *c, kw_err *e);

/* ---- held out for validation -------------------------------------------------------------------------- */

/*
 * Hold out about share (0 to 0.5) of the usable pictures, at least one if there are 8 or more. Copies of one picture
 * stay on one side. Which ones depends on the seed and on each picture's content alone: not on names, and adding
 * pictures moves few. Call after kw_data_check.
 */
KW_MUST kw_status kw_data_split(kw_dataset *d, double share, uint64_t seed, kw_err *e);
size_t kw_data_count(const kw_dataset *d, bool held_out);         /* usable pictures */
size_t kw_data_transparent(const kw_dataset *d);                  /* ... of both kinds that are not all opaque */

/* ---- buckets ------------------------------------------------------------------------------------------ */

typedef struct {
    int w, h;                             /* the area to keep to: resolution x resolution */
    int min, max, step;                   /* of a side, pixels */
    int unit;                             /* the step must be a multiple of it: the autoencoder's factor; 0: any */
    bool no_upscale;                      /* kohya's bucket_no_upscale: small pictures keep their size; no min, max */
    bool single;                          /* no buckets: every picture is cut to w x h */
} kw_bucket_rule;

/*
 * The usual rule for a base: unit = vae_factor * 2^(unet_levels-1) pixels are one pixel at the U-Net's bottom, so a
 * step is a multiple of it: step = the least multiple of unit that is at least min(64, resolution/8).
 * min = resolution/2, max = 2*resolution, both rounded down to steps (at least one step).
 * 512, f8, 4 levels: 64, 256..1024, kohya's defaults. 1024: 64, 512..2048. 128, f8, 3 levels: 32, 64..256.
 */
kw_bucket_rule kw_bucket_rule_for(int resolution, int vae_factor, int unet_levels);
/* The same with limits of the user's own, 0: by the rule above. Another step moves the other limits onto it. */
kw_bucket_rule kw_bucket_rule_with(int resolution, int vae_factor, int unet_levels, int min, int max, int step);

/*
 * All buckets of a rule, as kohya's make_bucket_resolutions: side = int(sqrt(w*h) / step)*step gives (side, side);
 * each width = min, min+step .. max with height = min(max, int(w*h/width / step)*step) >= min gives two; sorted.
 */
KW_MUST kw_status kw_buckets_make(kw_arena *a, const kw_bucket_rule *r, kw_bucket **list, size_t *n, kw_err *e);

/*
 * The bucket of a picture and how it fills it, as kohya's select_bucket: a bucket of exactly its size, else the one of
 * the nearest w/h (the first of equals); scaled to cover, centre crop. KW_EDATA: too small or too long to use.
 */
KW_MUST kw_status kw_bucket_select(const kw_bucket_rule *r, const kw_bucket *list, size_t n, int w, int h, kw_fit *fit,
                                   kw_err *e);

/* Gives every usable item its bucket and fit; d->buckets. Remarks for those that suffer; unusable ones become bad. */
KW_MUST kw_status kw_data_buckets(kw_dataset *d, const kw_bucket_rule *r, kw_err *e);

/* SHA-256 over what a run's batches depend on: names, hashes, repeats, captions, sides, buckets. For resuming. */
KW_MUST kw_status kw_data_fingerprint(const kw_dataset *d, char hex[65], kw_err *e);

/* ---- batches ------------------------------------------------------------------------------------------ */

typedef struct {
    uint64_t seed;
    int batch;
    bool flip;                            /* half of the samples are mirrored */
    bool random_crop;                     /* not the centre; latents are then not cached */
    bool held_out;                        /* the held-out pictures instead: once each, in order, as they are */
} kw_plan_config;

typedef struct {
    uint32_t item;                        /* index in the dataset */
    uint32_t repeat;                      /* 0 .. repeats-1 */
    uint32_t id;                          /* of this item and repeat within an epoch: key of its random numbers */
    uint32_t epoch;
    bool flip;
    kw_fit fit;
    bool replaced;                        /* the picture could not be read any more: item is another one */
} kw_sample;

typedef struct {
    int64_t step;
    uint32_t epoch;                       /* step / steps per epoch */
    int w, h;                             /* pixels, the same for the whole batch */
    kw_sample *samples;                   /* (n) */
    size_t n;                             /* 1 .. batch: the last batch of a bucket may be smaller */
} kw_batch;

typedef struct kw_plan kw_plan;

/* The dataset must stay as it is. KW_EDATA when there is nothing to train on. */
KW_MUST kw_status kw_plan_new(kw_arena *a, const kw_dataset *d, const kw_plan_config *c, kw_plan **out, kw_err *e);
int64_t kw_plan_steps(const kw_plan *p);                /* batches in one epoch; the same in each */
int64_t kw_plan_samples(const kw_plan *p);              /* pictures x repeats in one epoch */
/* The batch of a step (0, 1, ...): within each bucket samples are shuffled by (seed, epoch), then the batches of all
 * buckets are. Threads may call it. The samples live on the arena given. */
KW_MUST kw_status kw_plan_batch(kw_plan *p, kw_arena *a, int64_t step, kw_batch *out, kw_err *e);

/* ---- captions ----------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t seed;
    bool any_line;                        /* one of several captions by chance; else the first */
    bool shuffle;                         /* tags (between commas) in random order */
    int keep_tokens;                      /* the first tags that stay where they are; -1: those of the trigger word */
    double dropout;                       /* chance of an empty caption */
    double tag_dropout;                   /* chance of each tag behind the kept ones to be left out */
} kw_caption_config;

/*
 * The caption of a sample in kohya's order: dropout of the whole, choice of the line, tags split at commas, kept ones,
 * shuffle, tag dropout, joined by ", ". Without shuffle and tag dropout the line stays byte for byte.
 * A pure function of (seed, epoch, id, captions).
 */
KW_MUST kw_status kw_caption_make(kw_arena *a, const kw_dataset *d, const kw_caption_config *c, const kw_sample *s,
                                  const char **text, kw_err *e);

typedef struct {
    uint32_t item, line;                  /* which caption */
    size_t tokens, cut;                   /* tokens of its text, and how many of them do not fit */
    const char *cut_text;                 /* what the text says there */
} kw_cut;

typedef struct { const char *tag; size_t n; } kw_tag;

typedef struct {
    size_t n, longest, most;              /* captions of usable pictures; tokens of the longest; tokens that fit */
    double mean;
    uint32_t longest_item;
    kw_cut *cuts;                         /* (n_cuts) each caption that does not fit, in the order of items */
    size_t n_cuts, cuts_capacity;
    double broken;                        /* share of characters that the vocabulary only spells byte by byte */
    size_t trigger_tokens;                /* of the trigger word; 0: none */
    kw_tag *tags;                         /* (n_tags) by falling count, then by bytes */
    size_t n_tags;
} kw_caption_report;

/* Token lengths and tags of all captions, as they are before shuffling; windows: 1, 2, 3 for 75, 150, 225 tokens. */
KW_MUST kw_status kw_data_captions(kw_arena *a, const kw_dataset *d, const kw_tokenizer *t, size_t windows,
                                   kw_caption_report *r, kw_err *e);

/* ---- pixels ------------------------------------------------------------------------------------------- */

/*
 * Pictures of a batch as floats, decoded, scaled, cropped, flipped. A file that changed or vanished since the check is
 * replaced by the next usable picture of its bucket (sample.item, .fit, .replaced; make captions afterwards), counted.
 */
typedef struct kw_loader kw_loader;

KW_MUST kw_status kw_loader_new(kw_arena *a, const kw_dataset *d, kw_decoder *decoder, const uint8_t background[3],
                                kw_loader **out, kw_err *e);
/* out: (b->n, b->h, b->w, 3) in -1..1. What was prefetched is taken, else it is loaded now. */
KW_MUST kw_status kw_loader_images(kw_loader *l, kw_batch *b, float *out, kw_err *e);
/* Start loading a batch in the background; one at a time, so the one before is waited for. */
void kw_loader_prefetch(kw_loader *l, const kw_batch *b);
size_t kw_loader_replaced(kw_loader *l, char why[256]); /* samples replaced so far, and the first one's reason */

/* ---- masks for inpainting (mask.c) -------------------------------------------------------------------- */

/*
 * Mask `number` of a picture, (h, w) bytes, 1 where it is to be drawn anew: in a quarter of the cases everywhere
 * (true), else rectangles, ellipses or strokes. A pure function of its arguments; hash: of the picture's file.
 */
bool kw_inpaint_mask(uint64_t seed, const char *hash, uint32_t number, int w, int h, uint8_t *out);

/* ---- caches ------------------------------------------------------------------------------------------- */

/* Tensors of floats under 64-digit keys: in memory up to a limit, and in a folder, one file each, with a checksum. */
typedef struct kw_cache kw_cache;

typedef struct {
    size_t hits, from_disk, stored, damaged;            /* damaged: files that were wrong and are made again */
    size_t unwritten;                     /* files that the disk refused: a cache may be lost, a run not */
    char trouble[256];                    /* the first refusal */
} kw_cache_stats;

/* dir NULL: memory only. The folder is made when something is written. */
KW_MUST kw_status kw_cache_new(kw_arena *a, const char *dir, uint64_t memory, kw_cache **out, kw_err *e);
/* Copies a tensor of exactly this shape to out; false: not there (or damaged). */
bool kw_cache_find(kw_cache *c, const char key[65], const int64_t *shape, int rank, float *out);
KW_MUST kw_status kw_cache_put(kw_cache *c, const char key[65], const int64_t *shape, int rank, const float *data,
                               kw_err *e);
kw_cache_stats kw_cache_stats_of(kw_cache *c);

/* SHA-256 of encoder's hash, layer and ids: the key of a text encoder's output. */
KW_MUST kw_status kw_text_key(const char *encoder_hash, int clip_skip, const int32_t *ids, size_t n, char key[65],
                              kw_err *e);

typedef struct {
    kw_cache *cache;
    kw_loader *loader;
    const char *vae_hash;                 /* and whatever else changes its output, the number type for one */
    int factor, channels;                 /* pixels per latent pixel; floats per latent pixel that encode gives */
    uint8_t background[3];                /* the loader's: a part of the key */
    /* One picture (h, w, 3) to (h/factor, w/factor, channels): the moments of the posterior, mean and log variance.
     * One at a time, so that the bits do not depend on what shares a batch. */
    kw_status (*encode)(void *user, const float *image, int w, int h, float *moments, kw_err *e);
    void *user;
} kw_latents_config;

typedef struct kw_latents kw_latents;

KW_MUST kw_status kw_latents_new(kw_arena *a, const kw_dataset *d, const kw_latents_config *c, kw_latents **out,
                                 kw_err *e);
/* moments: (b->n, b->h/factor, b->w/factor, channels). Cached if the crop is the centre. May replace samples. */
KW_MUST kw_status kw_latents_get(kw_latents *l, kw_batch *b, float *moments, kw_err *e);
/*
 * The same for an inpainting base, and beside it what it sees of each picture: mask (b->n, h/f, w/f), 1 where it is to
 * be drawn anew, the mask of the picture's size at every f-th pixel; masked: moments of the picture that is mid-grey
 * there. number (b->n): which of its masks; keep: masked pictures are cached as the pictures are. The mask that lies
 * beside a picture stands for all of them that are not everywhere.
 */
typedef struct { uint64_t seed; const uint32_t *number; bool keep; } kw_masking;
KW_MUST kw_status kw_latents_masked(kw_latents *l, kw_batch *b, const kw_masking *k, float *moments, float *mask,
                                    float *masked, kw_err *e);
/* Start loading the pictures of the next batch in the background, if it is not cached. */
void kw_latents_prefetch(kw_latents *l, const kw_batch *next);
/* Encode all of a plan's pictures (and their mirror images if it flips) before the first step. progress as above. */
KW_MUST kw_status kw_latents_fill(kw_latents *l, const kw_plan *p, bool (*progress)(void *user, size_t done, size_t n),
                                  void *user, kw_err *e);

#endif
