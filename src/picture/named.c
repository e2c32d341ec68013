/* named.c - a colour as people write it: a name of CSS 1, #rrggbb, #rgb. */
#include "internal.h"

#include <string.h>
#include <strings.h>

static const struct { const char *name; uint8_t rgb[3]; } names[] = {
    { "white", { 255, 255, 255 } },  { "black", { 0, 0, 0 } },       { "gray", { 128, 128, 128 } },
    { "grey", { 128, 128, 128 } },   { "silver", { 192, 192, 192 } }, { "red", { 255, 0, 0 } },
    { "maroon", { 128, 0, 0 } },     { "yellow", { 255, 255, 0 } },  { "olive", { 128, 128, 0 } },
    { "lime", { 0, 255, 0 } },       { "green", { 0, 128, 0 } },     { "aqua", { 0, 255, 255 } },
    { "cyan", { 0, 255, 255 } },     { "teal", { 0, 128, 128 } },    { "blue", { 0, 0, 255 } },
    { "navy", { 0, 0, 128 } },       { "fuchsia", { 255, 0, 255 } }, { "magenta", { 255, 0, 255 } },
    { "purple", { 128, 0, 128 } },
};

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* #f80 is #ff8800 */
static bool hex(const char *text, uint8_t rgb[3])
{
    size_t n = strlen(text), each = n / 3;
    if (n != 3 && n != 6)
        return false;
    for (size_t i = 0; i < 3; i++) {
        int high = digit(text[i * each]), low = digit(text[i * each + each - 1]);
        if (high < 0 || low < 0)
            return false;
        rgb[i] = (uint8_t)(16 * high + low);
    }
    return true;
}

kw_status kw_picture_colour(const char *text, uint8_t rgb[3], kw_err *e)
{
    uint8_t found[3];
    kw_nearest near = { .word = text };
    bool good = text[0] == '#' && hex(text + 1, found);
    for (size_t i = 0; i < KW_LEN(names) && !good; i++) {
        if ((good = !strcasecmp(text, names[i].name)))
            memcpy(found, names[i].rgb, sizeof found);
        kw_nearest_try(&near, names[i].name);
    }
    if (good) {
        memcpy(rgb, found, sizeof found);
        return KW_OK;
    }
    kw_status s = kw_fail(e, KW_EUSAGE, "'%s' is not a colour", text);
    return near.best ? kw_advise(e, s, "did you mean '%s'?", near.best)
                     : kw_advise(e, s, "write #rrggbb, or a name: white, black, gray, red, green, blue, yellow");
}
