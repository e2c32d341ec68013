/*
 * picture.h - pictures on the host: decoding any usual file into sRGB, resizing, PNG out, contact sheets.
 *
 *     const char *argv[] = { "/proc/self/exe", "__decode", NULL };      (that command calls kw_picture_worker_main)
 *     KW_TRY(kw_decoder_new(argv, 2, &decoder, e));
 *     KW_TRY(kw_decoder_read(decoder, "a.jpg", kw_picture_white, &p, e));
 *     KW_TRY(kw_picture_fit(&p, kw_fit_cover(p.w, p.h, 512, 512), &q, e));
 *     kw_picture_to_float(&q, false, tensor);
 *     kw_picture_free(&p);
 *
 * A kw_picture is 8-bit sRGB, rows from the top, (h, w, 3), upright. What was found in the file is kept beside it as
 * notes, so that nothing is changed silently. All functions are thread-safe; no global state but the image library's.
 */
#ifndef KW_PICTURE_H
#define KW_PICTURE_H

#include "base/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- limits, asked before anything is decoded --------------------------------------------------- */

#define KW_PICTURE_MAX_SIDE   16384
#ifndef KW_PICTURE_MAX_PIXELS                     /* the fuzzers set less: 50 megapixels take them 20 s */
#define KW_PICTURE_MAX_PIXELS 100000000
#endif
#define KW_PICTURE_MAX_BYTES  (256u << 20)      /* of the file, and of its decoded samples */

/* ---- what a picture is ---------------------------------------------------------------------------- */

#define KW_PICTURE_FORMAT_MAP(X) X(UNKNOWN, "unknown") X(JPEG, "JPEG") X(PNG, "PNG") X(WEBP, "WebP") X(GIF, "GIF") \
    X(TIFF, "TIFF") X(BMP, "BMP")

typedef enum {
#define X(name, text) KW_PICTURE_##name,
    KW_PICTURE_FORMAT_MAP(X)
#undef X
    KW_PICTURE_N_FORMATS
} kw_picture_format;

/*  name, what the user is told  */
#define KW_PICTURE_NOTE_MAP(X) \
    X(ALPHA,       N_("transparency laid on the background colour")) \
    X(ICC,         N_("colour profile converted to sRGB")) \
    X(ICC_IGNORED, N_("colour profile unusable: taken as sRGB")) \
    X(ORIENTED,    N_("turned upright as its EXIF orientation says")) \
    X(FRAMES,      N_("several frames or pages: the first is used")) \
    X(DEPTH16,     N_("16 bits per channel reduced to 8")) \
    X(CMYK,        N_("CMYK converted to RGB")) \
    X(GREY,        N_("grey picture")) \
    X(NAME,        N_("its name says another format"))

typedef enum {
#define X(name, text) KW_NOTE_##name##_BIT,
    KW_PICTURE_NOTE_MAP(X)
#undef X
    KW_N_NOTES
} kw_picture_note_bit;

enum {
#define X(name, text) KW_NOTE_##name = 1 << KW_NOTE_##name##_BIT,
    KW_PICTURE_NOTE_MAP(X)
#undef X
};

typedef struct {
    kw_picture_format format;                   /* by its first bytes, never by its name */
    int file_w, file_h;                         /* as stored, before turning */
    int channels, bits;                         /* as decoded: 1-5 channels of 8 or 16 bits */
    int orientation;                            /* EXIF 1-8; 1 when absent */
    int frames;                                 /* frames or pages in the file, at least 1 */
    uint32_t notes;                             /* KW_NOTE_* */
    char profile[64];                           /* description of the ICC profile, "" when there is none */
} kw_picture_info;

typedef struct {
    int w, h;
    uint8_t *rgb;                               /* (h, w, 3), from kw_block_new; owned */
    kw_picture_info info;
} kw_picture;

extern const uint8_t kw_picture_white[3];
/* "white", "#ffffff", "#fff": the 16 names of CSS 1 with grey, cyan and magenta, in any case.
 * KW_EUSAGE: none of these. */
KW_MUST kw_status kw_picture_colour(const char *text, uint8_t rgb[3], kw_err *e);

/* A black picture of w x h. */
KW_MUST kw_status kw_picture_new(int w, int h, kw_picture *p, kw_err *e);
void kw_picture_free(kw_picture *p);            /* NULL and a zeroed picture are allowed */

const char *kw_picture_format_name(kw_picture_format f);
const char *kw_picture_note_text(kw_picture_note_bit bit);      /* not yet translated */
/* Append the notes of a picture, translated, separated by "; ". Nothing when there are none. */
void kw_picture_notes(const kw_picture_info *info, kw_str *out);

/* The format by magic bytes; and the format a file name claims (UNKNOWN for other endings). */
kw_picture_format kw_picture_sniff(const void *data, size_t n);
kw_picture_format kw_picture_named(const char *path);

/* ---- decoding -------------------------------------------------------------------------------------- */

/*
 * Decode a file held in memory; name is for messages and the KW_NOTE_NAME check. The result equals Pillow + littleCMS
 * within 1/255:
 *   EXIF orientation applied; embedded ICC profile to sRGB, perceptual intent; CMYK without a profile by
 *   (255-c)(255-k)/255; palette and tRNS expanded; 16 bits to 8 by v >> 8 (as Pillow does for RGB; Pillow's "I;16"
 *   clips instead, which is no picture); first frame; alpha, on 8-bit sRGB, before turning and any resizing, laid on
 *   the background as Image.alpha_composite does: out = round((a fg + (255 - a) bg) / 255), per channel.
 * Runs the decoders inside this process: for tests, fuzzing and trusted files. Files of users go through kw_decoder.
 * EDATA names the file and the reason; ENOMEM.
 */
KW_MUST kw_status kw_picture_decode(const void *data, size_t n, const char *name, const uint8_t background[3],
                                    kw_picture *p, kw_err *e);
KW_MUST kw_status kw_picture_read(const char *path, const uint8_t background[3], kw_picture *p, kw_err *e);

/*
 * Decoders in child processes, started by executing argv (posix_spawn; argv[0] is the file). The child must call
 * kw_picture_worker_main(KW_PICTURE_WORKER_FD) before it starts threads. It gets the open file, not its name; pixels
 * come back over shared memory. A child that dies or needs more than timeout seconds means: that picture is refused
 * (EDATA), and the child is started anew. Calls from several threads run on several workers.
 */
typedef struct kw_decoder kw_decoder;
#define KW_PICTURE_WORKER_FD 3

KW_MUST kw_status kw_decoder_new(const char *const argv[], int workers, kw_decoder **d, kw_err *e);
void kw_decoder_free(kw_decoder *d);
void kw_decoder_timeout(kw_decoder *d, double seconds);         /* 20 unless told */
KW_MUST kw_status kw_decoder_read(kw_decoder *d, const char *path, const uint8_t background[3], kw_picture *p,
                                  kw_err *e);
KW_MUST kw_status kw_decoder_decode(kw_decoder *d, const void *data, size_t n, const char *name,
                                    const uint8_t background[3], kw_picture *p, kw_err *e);
long kw_decoder_restarts(kw_decoder *d);        /* how many children died or were ended */

/* What shields the children here, for `doctor`. */
enum { KW_SHIELD_LIMITS = 1, KW_SHIELD_SECCOMP = 2, KW_SHIELD_LANDLOCK = 4 };
unsigned kw_decoder_shields(kw_decoder *d);

/* The child's side: serves requests until the socket closes; returns a process exit code. */
int kw_picture_worker_main(int fd);

/* ---- sizes and samples ------------------------------------------------------------------------------ */

/*
 * How a picture fills a bucket (kohya's rule): scale so that it covers the bucket, int(x*scale + 0.5), then crop.
 * kw_fit_cover gives the centre crop; crop_x, crop_y may then be set to 0 .. scaled_w - w and so on.
 */
typedef struct {
    int scaled_w, scaled_h;
    int crop_x, crop_y;                         /* in the scaled picture */
    int w, h;                                   /* the bucket */
} kw_fit;

kw_fit kw_fit_cover(int picture_w, int picture_h, int w, int h);

/*
 * Resize and crop into a new picture (notes are kept). As kohya: both sides shrinking = area average (OpenCV's
 * INTER_AREA: exact coverage), else Lanczos a = 3 (Pillow's, the same bits). Equal size = copy.
 */
KW_MUST kw_status kw_picture_fit(const kw_picture *p, kw_fit fit, kw_picture *out, kw_err *e);
KW_MUST kw_status kw_picture_resize(const kw_picture *p, int w, int h, kw_picture *out, kw_err *e);

/* Paste src with its top left corner at (x, y); what falls outside is cut. */
void kw_picture_paste(kw_picture *p, const kw_picture *src, int x, int y);

/* (h, w, 3) floats in -1..1: (v/255 - 0.5)/0.5, as torchvision's ToTensor and Normalize; flip: left to right. */
void kw_picture_to_float(const kw_picture *p, bool flip, float *out);
/* The way back, as diffusers: round(clamp(v/2 + 0.5, 0, 1) * 255), half to even; NaN gives 0. */
KW_MUST kw_status kw_picture_from_float(const float *v, int w, int h, kw_picture *p, kw_err *e);

/* ---- PNG out, texts in ---------------------------------------------------------------------------------- */

typedef struct {
    const char *key;                            /* Latin-1 keyword of 1-79 bytes: "parameters" */
    const char *text;                           /* UTF-8 */
} kw_png_text;

/*
 * Append a PNG (RGB, 8 bits, no timestamps: the same bytes for the same pixels and libraries) to out. Texts come
 * before the pixels: tEXt when Latin-1 can hold it, else uncompressed iTXt with empty language, as Pillow writes.
 */
KW_MUST kw_status kw_png_encode(const kw_picture *p, const kw_png_text *texts, size_t n_texts, kw_str *out, kw_err *e);
/*
 * Append a JPEG or WebP (KW_PICTURE_JPEG, _WEBP) of this quality, 1-100; 101: WebP without loss. comment (UTF-8, may be
 * NULL) becomes the EXIF UserComment as A1111 writes it by piexif: "UNICODE\0", UTF-16BE. EDATA: a comment above
 * 64 KiB in a JPEG, a side above 16383 px in a WebP.
 */
KW_MUST kw_status kw_lossy_encode(const kw_picture *p, kw_picture_format f, int quality, const char *comment,
                                  kw_str *out, kw_err *e);
/* Append "data:image/png;base64,..." for pages. */
KW_MUST kw_status kw_png_data_uri(const kw_picture *p, kw_str *out, kw_err *e);
void kw_base64(const void *data, size_t n, kw_str *out);

/*
 * Find the text `key` ("parameters") in a PNG (tEXt, zTXt, iTXt anywhere); for JPEG and WebP, where only "parameters"
 * exists, the EXIF UserComment. Appends UTF-8 to out; *found says whether there was one. Damaged files have none.
 */
KW_MUST kw_status kw_picture_text(const void *data, size_t n, const char *key, kw_str *out, bool *found, kw_err *e);

/* ---- contact sheets ---------------------------------------------------------------------------------------- */

typedef struct {
    const char *title;                          /* NULL: none; all texts are UTF-8 */
    int columns, rows;
    const char *const *column_labels;           /* [columns], NULL: none */
    const char *const *row_labels;              /* [rows], NULL: none */
    const kw_picture *const *cells;             /* [rows*columns], row by row; NULL: empty cell */
    const char *const *cell_labels;             /* [rows*columns] below the pictures, NULL: none */
    int best;                                   /* index of the cell that gets a frame, -1: none */
    const char *footer;                         /* NULL: none */
} kw_sheet;

/* Draw on white; a cell is as large as the largest picture. ENOMEM, EDATA (larger than the limits above). */
KW_MUST kw_status kw_sheet_draw(const kw_sheet *s, kw_picture *out, kw_err *e);

/*
 * Write text into a picture, top left at (x, y), wrapped at width px (0: never), at most max_h px tall (0: any).
 * Fonts of the system through Pango; where there is none, a built-in ASCII font, and a box for every other character.
 * w and h (may be NULL) get the size in px. p NULL measures only.
 */
void kw_text_draw(kw_picture *p, const char *text, int x, int y, int width, int max_h, const uint8_t colour[3],
                  int *w, int *h);
enum { KW_FONT_BUILT_IN, KW_FONT_SYSTEM, KW_FONT_JAPANESE };
int kw_text_font(void);                         /* what is there: each includes the ones before */

#ifdef __cplusplus
}
#endif

#include "paint.h"

#endif
