/*
 * text.c - words in pictures. Pango (through libvips) with the fonts of the system, so that Japanese captions work
 * where such a font is installed; a machine without fonts gives boxes for every letter there, which is found out once
 * by comparing "." with ",": then the built-in font is used.
 */
#include "internal.h"

#include <pthread.h>
#include <string.h>
#include <vips/vips.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int font;

/* Valid UTF-8 without markup or control characters. */
static void escape(const char *text, kw_str *out)
{
    for (uint32_t c; (c = kw__pic_utf8_get(&text));)
        if (c == '&' || c == '<' || c == '>')
            kw_str_add(out, c == '&' ? "&amp;" : c == '<' ? "&lt;" : "&gt;");
        else
            kw__pic_utf8_put(out, c < 32 && c != '\n' ? ' ' : c);
}

/* The ink of the text, placed as in its line: Xoffset and Yoffset say where the ink starts. */
static kw_status copy_ink(VipsImage *image, kw_mask *m)
{
    int left = KW_MAX(0, image->Xoffset), top = KW_MAX(0, image->Yoffset);
    size_t n;
    uint8_t *ink = vips_image_write_to_memory(image, &n);
    kw_mask made = { .w = left + image->Xsize, .h = top + image->Ysize };
    bool fits = ink && image->Bands == 1 && n == (size_t)image->Xsize * (size_t)image->Ysize
        && made.w <= KW_PICTURE_MAX_SIDE && made.h <= KW_PICTURE_MAX_SIDE;
    made.ink = fits ? kw_block_new((size_t)made.w * (size_t)made.h) : NULL;
    for (int y = 0; made.ink && y < image->Ysize; y++)
        memcpy(made.ink + (size_t)(top + y) * (size_t)made.w + (size_t)left, ink + (size_t)y * (size_t)image->Xsize,
               (size_t)image->Xsize);
    g_free(ink);
    if (!made.ink)
        return KW_ENOMEM;
    *m = made;
    return KW_OK;
}

static kw_status system_mask(const char *text, int width, int size, kw_mask *m)
{
    VipsImage *image = NULL;
    kw_str markup = { 0 };
    char name[32];
    *m = (kw_mask){ 0 };
    escape(text, &markup);
    snprintf(name, sizeof name, "sans %d", size);           /* at 72 dpi a point is a pixel */
    if (markup.failed || kw_vips_start(NULL)) {
        kw_str_free(&markup);
        return KW_ENOMEM;
    }
    kw_vips_lock();
    int bad = width ? vips_text(&image, markup.s, "font", name, "dpi", 72, "width", width,
                                "wrap", VIPS_TEXT_WRAP_WORD_CHAR, NULL)
                    : vips_text(&image, markup.s, "font", name, "dpi", 72, NULL);
    kw_status s = bad ? KW_EDATA : copy_ink(image, m);
    if (image)
        g_object_unref(image);
    vips_error_clear();
    kw_vips_unlock();
    kw_str_free(&markup);
    return s;
}

/* ---- which fonts ------------------------------------------------------------------------------------------- */

/* Pango draws an unknown character as a box with its number: the first row and column of ink are solid. */
static bool is_box(const kw_mask *m)
{
    int left = m->w, top = m->h;
    for (int y = 0; y < m->h; y++)
        for (int x = 0; x < m->w; x++)
            if (m->ink[y * m->w + x]) {
                left = KW_MIN(left, x);
                top = KW_MIN(top, y);
            }
    bool box = left < m->w;
    for (int x = left + 1; x < m->w - 1; x++)
        box &= m->ink[top * m->w + x] != 0;
    for (int y = top + 1; y < m->h - 1; y++)
        box &= m->ink[y * m->w + left] != 0;
    return box;
}

static void look(void)
{
    kw_mask dot, comma, a = { 0 };
    kw_status s = system_mask(".", 0, 13, &dot), t = system_mask(",", 0, 13, &comma);
    bool same = s || t || (dot.w == comma.w && dot.h == comma.h
                           && !memcmp(dot.ink, comma.ink, (size_t)dot.w * (size_t)dot.h));
    font = same ? KW_FONT_BUILT_IN : KW_FONT_SYSTEM;
    if (!same && !system_mask("\xe3\x81\x82", 0, 13, &a) && !is_box(&a))       /* hiragana a */
        font = KW_FONT_JAPANESE;
    kw_block_free(dot.ink);
    kw_block_free(comma.ink);
    kw_block_free(a.ink);
}

int kw_text_font(void)
{
    pthread_once(&once, look);
    return font;
}

/* ---- drawing ------------------------------------------------------------------------------------------------- */

void kw_text_mask(const char *text, int width, int size, kw_mask *m)
{
    *m = (kw_mask){ 0 };
    if (!text[strspn(text, " \t\r\n")])
        return;                                             /* nothing to see; Pango calls that an error */
    if (kw_text_font() == KW_FONT_BUILT_IN || system_mask(text, width, size, m))
        if (kw_font_mask(text, width, m))
            *m = (kw_mask){ 0 };
}

void kw_mask_draw(kw_picture *p, const kw_mask *m, int x, int y, int max_h, const uint8_t colour[3])
{
    int rows = max_h && max_h < m->h ? max_h : m->h;
    for (int j = KW_MAX(0, -y); j < rows && y + j < p->h; j++)
        for (int i = KW_MAX(0, -x); i < m->w && x + i < p->w; i++) {
            int a = m->ink[(size_t)j * (size_t)m->w + (size_t)i];
            uint8_t *to = p->rgb + ((size_t)(y + j) * (size_t)p->w + (size_t)(x + i)) * 3;
            for (int c = 0; a && c < 3; c++)
                to[c] = (uint8_t)((to[c] * (255 - a) + colour[c] * a + 127) / 255);
        }
}

void kw_text_draw(kw_picture *p, const char *text, int x, int y, int width, int max_h, const uint8_t colour[3],
                  int *w, int *h)
{
    kw_mask m;
    kw_text_mask(text, width, KW_TEXT_SIZE, &m);
    if (p)
        kw_mask_draw(p, &m, x, y, max_h, colour);
    if (w)
        *w = m.w;
    if (h)
        *h = max_h && max_h < m.h ? max_h : m.h;
    kw_block_free(m.ink);
}
