/* png.c - writing PNG in memory: 8-bit RGB, texts as Pillow writes them, no dates. */
#include "internal.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL 6
#define MAX_TEXTS 16

typedef struct { kw_str *out; kw_err *e; } sink;

static void write_bytes(png_structp png, png_bytep data, size_t n)
{
    sink *s = png_get_io_ptr(png);
    kw_str_add_n(s->out, (const char *)data, n);
    if (s->out->failed)
        png_error(png, "no memory");
}

static void flush_bytes(png_structp png) { (void)png; }

static void on_error(png_structp png, const char *what)
{
    sink *s = png_get_error_ptr(png);
    kw_status status = kw_fail(s->e, strcmp(what, "no memory") ? KW_EDATA : KW_ENOMEM, "PNG: %s", what);
    (void)status;                               /* encode() looks at s->e */
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, const char *what) { (void)png, (void)what; }

/* Latin-1 bytes of a UTF-8 text, from malloc; NULL (and *fits false) when a character is not in Latin-1. */
static char *latin1(const char *text, bool *fits)
{
    char *out = malloc(strlen(text) + 1), *o = out;
    *fits = true;
    for (uint32_t c; out && (c = kw__pic_utf8_get(&text));) {
        if (c > 0xff) {
            *fits = false;
            free(out);
            return NULL;
        }
        *o++ = (char)c;
    }
    if (out)
        *o = 0;
    return out;
}

/* tEXt if Latin-1 can say it, else iTXt: keyword, no compression, empty language and translated keyword, UTF-8. */
static bool make_text(const kw_png_text *in, png_text *t, char **copy)
{
    bool fits;
    *copy = latin1(in->text, &fits);
    t->key = (char *)(uintptr_t)in->key;
    if (fits) {
        t->compression = PNG_TEXT_COMPRESSION_NONE;
        t->text = *copy;
        return *copy != NULL;
    }
    kw_str clean = { 0 };                       /* bad bytes become U+FFFD */
    const char *s = in->text;
    for (uint32_t c; (c = kw__pic_utf8_get(&s));)
        kw__pic_utf8_put(&clean, c);
    t->compression = PNG_ITXT_COMPRESSION_NONE;
    t->lang = t->lang_key = (char *)(uintptr_t)"";
    t->text = *copy = clean.s;
    return !clean.failed;
}

static bool encode(const kw_picture *p, png_text *texts, int n_texts, sink *s)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, s, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return false;
    }
    png_set_write_fn(png, s, write_bytes, flush_bytes);
    png_set_compression_level(png, LEVEL);
    png_set_IHDR(png, info, (png_uint_32)p->w, (png_uint_32)p->h, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (n_texts)
        png_set_text(png, info, texts, n_texts);
    png_write_info(png, info);
    for (int y = 0; y < p->h; y++)
        png_write_row(png, p->rgb + (size_t)y * (size_t)p->w * 3);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return true;
}

kw_status kw_png_encode(const kw_picture *p, const kw_png_text *texts, size_t n_texts, kw_str *out, kw_err *e)
{
    png_text list[MAX_TEXTS] = { { 0 } };
    char *copies[MAX_TEXTS] = { 0 };
    kw_err why = { 0 };
    sink s = { out, &why };
    if (n_texts > MAX_TEXTS)
        return kw_fail(e, KW_EUSAGE, "more than %d texts in a PNG", MAX_TEXTS);
    bool done = true;
    for (size_t i = 0; i < n_texts && done; i++) {
        size_t key = strlen(texts[i].key);
        if (key < 1 || key > 79)
            done = kw_fail(&why, KW_EUSAGE, "PNG keyword \"%s\" has not 1 to 79 bytes", texts[i].key) == KW_OK;
        else
            done = make_text(&texts[i], &list[i], &copies[i]);
    }
    done = done && encode(p, list, (int)n_texts, &s);
    for (size_t i = 0; i < n_texts; i++)
        free(copies[i]);
    if (done)
        return KW_OK;
    return kw_fail(e, why.status ? why.status : KW_ENOMEM, "%s", why.status ? why.what : "PNG: no memory");
}

void kw_base64(const void *data, size_t n, kw_str *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *d = data;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)d[i] << 16 | (i + 1 < n ? (uint32_t)d[i + 1] << 8 : 0) | (i + 2 < n ? d[i + 2] : 0u);
        char four[4] = { digits[v >> 18], digits[v >> 12 & 63], i + 1 < n ? digits[v >> 6 & 63] : '=',
                         i + 2 < n ? digits[v & 63] : '=' };
        kw_str_add_n(out, four, 4);
    }
}

kw_status kw_png_data_uri(const kw_picture *p, kw_str *out, kw_err *e)
{
    kw_str png = { 0 };
    kw_status s = kw_png_encode(p, NULL, 0, &png, e);
    if (!s) {
        kw_str_add(out, "data:image/png;base64,");
        kw_base64(png.s, png.n, out);
        if (out->failed)
            s = kw_fail(e, KW_ENOMEM, "no memory for a picture of %dx%d as text", p->w, p->h);
    }
    kw_str_free(&png);
    return s;
}
