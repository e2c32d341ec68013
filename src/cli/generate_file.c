/* generate_file.c - one picture becomes one file: PNG, JPEG or WebP, with its settings inside. */
#include "generate.h"

#include <string.h>

static const struct { kw_picture_format format; const char *ending; } kinds[] = {
    [KW_FILE_PNG] = { KW_PICTURE_PNG, ".png" },
    [KW_FILE_JPEG] = { KW_PICTURE_JPEG, ".jpg" },
    [KW_FILE_WEBP] = { KW_PICTURE_WEBP, ".webp" },
};

const char *kw_format_ending(int format) { return kinds[format].ending; }

int kw_format_of(const char *path)
{
    kw_picture_format f = kw_picture_named(path);
    for (size_t i = 0; i < KW_LEN(kinds); i++)
        if (f == kinds[i].format)
            return (int)i;
    return -1;
}

static kw_status encode(int format, int quality, const kw_picture *p, const char *text, kw_str *out, kw_err *e)
{
    if (format != KW_FILE_PNG)
        return kw_lossy_encode(p, kinds[format].format, quality, text, out, e);
    return kw_png_encode(p, &(kw_png_text){ "parameters", text }, text ? 1 : 0, out, e);
}

kw_status kw_picture_file_write(const char *path, int format, int quality, const kw_picture *p, const char *text,
                                kw_err *e)
{
    kw_str file = { 0 };
    kw_status s = encode(format, quality, p, text, &file, e);
    kw_guard_begin();
    if (!s)
        s = kw_file_write_atomic(path, file.s, file.n, e);
    kw_guard_end();
    kw_str_free(&file);
    return s;
}
