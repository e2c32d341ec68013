/*
 * font.c - the built-in font for machines without any: printable ASCII on 5x9 points, drawn for this program.
 * One character per row of points, a base-32 digit (0-9, A-V), leftmost point worth 16: 'A' is
 *
 *     E .###.     the last two rows are below the base line.
 *     H #...#
 *     H #...#
 *     V #####
 *     H #...#
 */
#include "internal.h"

#include <string.h>

enum { GLYPH_W = 5, GLYPH_H = 9, CELL_W = 6, CELL_H = 13, TOP = 3 };

static const char glyphs[96][GLYPH_H + 1] = {
    "000000000", "444440400", "AAA000000", "AAVAVAA00", "4FKE5U400", "OP248J300",   /*   ! " # $ % */
    "CIK8LID00", "444000000", "248884200", "842224800", "04LEL4000", "044V44000",   /* & ' ( ) * + */
    "00000C480", "000V00000", "00000CC00", "01248G000", "EHJLPHE00", "4C4444E00",   /* , - . / 0 1 */
    "EH1248V00", "V2421HE00", "26AIV2200", "VGU11HE00", "68GUHHE00", "V12488800",   /* 2 3 4 5 6 7 */
    "EHHEHHE00", "EHHF12C00", "0CC0CC000", "0CC0C4800", "248G84200", "00V0V0000",   /* 8 9 : ; < = */
    "842124800", "EH1240400", "EH1DLLE00", "EHHVHHH00", "UHHUHHU00", "EHGGGHE00",   /* > ? @ A B C */
    "SIHHHIS00", "VGGUGGV00", "VGGUGGG00", "EHGNHHF00", "HHHVHHH00", "E44444E00",   /* D E F G H I */
    "72222IC00", "HIKOKIH00", "GGGGGGV00", "HRLLHHH00", "HHPLJHH00", "EHHHHHE00",   /* J K L M N O */
    "UHHUGGG00", "EHHHLID00", "UHHUKIH00", "FGGE11U00", "V44444400", "HHHHHHE00",   /* P Q R S T U */
    "HHHHHA400", "HHHLLLA00", "HHA4AHH00", "HHHA44400", "V1248GV00", "E88888E00",   /* V W X Y Z [ */
    "0G8421000", "E22222E00", "4AH000000", "0000000V0", "842000000", "00E1FHF00",   /* \ ] ^ _ ` a */
    "GGMPHHU00", "00EGGHE00", "11DJHHF00", "00EHVGE00", "698S88800", "00FHHHF1E",   /* b c d e f g */
    "GGMPHHH00", "40C444E00", "2062222IC", "GGIKOKI00", "C44444E00", "00QLLHH00",   /* h i j k l m */
    "00MPHHH00", "00EHHHE00", "00UHHHUGG", "00FHHHF11", "00MPGGG00", "00FGE1U00",   /* n o p q r s */
    "88S889600", "00HHHJD00", "00HHHA400", "00HHLLA00", "00HA4AH00", "00HHHJD1E",   /* t u v w x y */
    "00V248V00", "244844200", "444444400", "844244800", "008L20000", "VHHHHHV00",   /* z { | } ~ box */
};

/* Characters of the next line and the bytes it takes; breaks at \n, and at `most` characters (at a space, if any). */
static int line_length(const char *s, int most, size_t *bytes)
{
    const char *at = s, *space = NULL;
    int n = 0, n_space = 0;
    while (*at && *at != '\n') {
        const char *next = at;
        uint32_t c = kw__pic_utf8_get(&next);
        if (c == ' ' && n) {
            space = at;
            n_space = n;
        }
        if (most && n == most) {
            *bytes = (size_t)((space ? space + 1 : at) - s);
            return space ? n_space : n;
        }
        at = next;
        n++;
    }
    *bytes = (size_t)(at - s) + (*at == '\n');
    return n;
}

static void draw_line(const char *s, int n, kw_mask *m, int top)
{
    for (int i = 0; i < n; i++) {
        uint32_t c = kw__pic_utf8_get(&s);
        const char *glyph = glyphs[c >= 32 && c < 127 ? c - 32 : 95];
        for (int y = 0; y < GLYPH_H; y++) {
            int points = glyph[y] <= '9' ? glyph[y] - '0' : glyph[y] - 'A' + 10;
            for (int x = 0; x < GLYPH_W; x++)
                if (points >> (GLYPH_W - 1 - x) & 1)
                    m->ink[(size_t)(top + TOP + y) * (size_t)m->w + (size_t)(i * CELL_W + x)] = 255;
        }
    }
}

kw_status kw_font_mask(const char *text, int width, kw_mask *m)
{
    int most = width ? KW_MAX(1, width / CELL_W) : 0, lines = 0, longest = 0;
    size_t bytes;
    *m = (kw_mask){ 0 };
    for (const char *s = text; *s; s += bytes, lines++)
        longest = KW_MAX(longest, line_length(s, most, &bytes));
    if (!longest || (double)longest * CELL_W > KW_PICTURE_MAX_SIDE || (double)lines * CELL_H > KW_PICTURE_MAX_SIDE)
        return longest ? KW_EDATA : KW_OK;
    *m = (kw_mask){ .w = longest * CELL_W, .h = lines * CELL_H };
    m->ink = kw_block_new((size_t)m->w * (size_t)m->h);
    if (!m->ink)
        return KW_ENOMEM;
    int line = 0;
    for (const char *s = text; *s; s += bytes, line++) {
        int n = line_length(s, most, &bytes);
        draw_line(s, n, m, line * CELL_H);
    }
    return KW_OK;
}
