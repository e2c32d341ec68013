/* internal.h - what the files of the picture layer share. */
#ifndef KW_PICTURE_INTERNAL_H
#define KW_PICTURE_INTERNAL_H

#include "picture.h"

/* ---- lib.c: the image library -------------------------------------------------------------------------- */

kw_status kw_vips_start(kw_err *e);             /* once per process, any thread */
void kw_vips_lock(void);                        /* libvips keeps one error text per process: one call at a time */
void kw_vips_unlock(void);
kw_status kw_vips_fail(kw_err *e);              /* EDATA with the library's first line; clears its error text */

/* ---- decode.c ---------------------------------------------------------------------------------------------- */

/* As kw_picture_decode, but the message has the reason alone, and nothing is said about the name. */
kw_status kw_decode_bytes(const void *data, size_t n, const uint8_t background[3], kw_picture *p, kw_err *e);
kw_status kw_check_size(double w, double h, double bytes_per_pixel, kw_err *e);
kw_status kw_name_error(kw_status s, const char *name, const kw_err *reason, kw_err *e);

/* file.c */
kw_status kw_open_picture(const char *path, int *fd, size_t *size, kw_err *e);
kw_status kw_read_fd(int fd, uint8_t *data, size_t n, kw_err *e);

/* ---- colour.c: samples of a file to sRGB -------------------------------------------------------------------- */

typedef enum { KW_SAMPLES_GREY, KW_SAMPLES_RGB, KW_SAMPLES_CMYK } kw_samples;

typedef struct {
    kw_samples kind;
    int bands;                                  /* of the file: 1-5, alpha included */
    int bits;                                   /* 8 or 16 */
    uint8_t background[3];
    void *transform, *context;                  /* littleCMS; NULL: none */
    uint8_t *line, *alphas;                     /* scratch: w*4, w */
} kw_colour;

kw_status kw_colour_open(kw_colour *c, int w, const void *profile, size_t n, kw_picture_info *info, kw_err *e);
/* True when a pixel was not opaque. */
bool kw_colour_row(const kw_colour *c, const void *samples, int w, uint8_t *rgb);
void kw_colour_close(kw_colour *c);

/* ---- bmp.c ---------------------------------------------------------------------------------------------------- */

/* bands is 3 or 4; pixels (h, w, bands) from kw_block_new, owned by the caller. */
kw_status kw_bmp_decode(const uint8_t *data, size_t n, int *w, int *h, int *bands, uint8_t **pixels, kw_err *e);

/* ---- exif.c ---------------------------------------------------------------------------------------------------- */

/* The EXIF block ("II*\0" or "MM\0*" onwards) of a JPEG or WebP; NULL when there is none. */
const uint8_t *kw_exif_find(const uint8_t *data, size_t n, size_t *size);
bool kw_exif_comment(const uint8_t *exif, size_t n, kw_str *out);       /* UserComment as UTF-8 */

/* utf8.c */
void kw__pic_utf8_put(kw_str *out, uint32_t code);
uint32_t kw__pic_utf8_get(const char **s);           /* next code point, U+FFFD for a bad byte; 0 at the end */

/* ---- worker.c ---------------------------------------------------------------------------------------------------- */

#define KW_WORKER_MAGIC 0x6b777031u             /* "kwp1" */

typedef struct { uint32_t magic, shields; } kw_worker_hello;               /* with the memfd */
typedef struct { uint32_t magic; uint64_t size; uint8_t background[4]; } kw_worker_request;     /* with the file */
typedef struct {
    uint32_t magic, status;
    int32_t w, h;
    kw_picture_info info;
    char what[512], advice[512];
} kw_worker_reply;

typedef kw_status (*kw_decode_fn)(const void *, size_t, const uint8_t[3], kw_picture *, kw_err *);
int kw_worker_serve(int fd, kw_decode_fn decode);

/* socket.c: one packet, with at most one file descriptor (-1: none). */
bool kw_packet_send(int sock, const void *data, size_t n, int fd);
long kw_packet_receive(int sock, void *data, size_t n, int *fd);            /* bytes, 0 at the end, -1 */

/* child.c */
typedef struct { int pid, sock, memory; } kw_child;     /* pid 0: not running */

kw_status kw_child_start(kw_child *c, char **argv, char **env, unsigned *shields, kw_err *e);
bool kw_child_wait(const kw_child *c, double seconds);  /* true when a packet, or the end, is there in time */
void kw_child_bury(kw_child *c, char *how, size_t size);            /* ends it and says how it ended */

unsigned kw_sandbox_enter(void);                /* sandbox.c: KW_SHIELD_* that are on */
void kw_sandbox_cpu(int seconds);               /* from now */

/* ---- text.c, font.c -------------------------------------------------------------------------------------- */

#define KW_TEXT_SIZE 13                         /* px of captions */

typedef struct { int w, h; uint8_t *ink; } kw_mask;     /* coverage 0-255, from kw_block_new; NULL: nothing to see */

kw_status kw_font_mask(const char *text, int width, kw_mask *m);            /* the built-in font; its one size */
void kw_text_mask(const char *text, int width, int size, kw_mask *m);       /* whatever font is there */
void kw_mask_draw(kw_picture *p, const kw_mask *m, int x, int y, int max_h, const uint8_t colour[3]);

#endif
