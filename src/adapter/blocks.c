/* blocks.c - the U-Net's blocks by A1111's names, and lists of factors for them. */
#include "names.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IN = 1, MID = 13, OUT = 14, EACH = 12 };

int kw_lora_block(const kw_lora_names *names, kw_part part, const char *path)
{
    static const struct {
        const char *head;
        int first;
    } rows[] = { { "input_blocks.", IN }, { "output_blocks.", OUT } };
    kw_lora_names usual = names->unet.levels ? *names : kw__names_usual(names->xl);
    char ldm[KW_KEY_ROOM];
    if (part != KW_PART_UNET)
        return 0;
    if (!kw__ldm_path(&usual.unet, path, ldm))
        return KW_NONE;
    if (kw_starts_with(ldm, "middle_block."))
        return MID;
    for (size_t i = 0; i < KW_LEN(rows); i++)
        if (kw_starts_with(ldm, rows[i].head)) {
            int n = atoi(ldm + strlen(rows[i].head));
            return n < EACH ? rows[i].first + n : KW_NONE;
        }
    return KW_NONE;
}

/* ---- lists ------------------------------------------------------------------------------------------------------ */

static const struct { int n; signed char at[KW_LORA_BLOCKS]; } shapes[] = {
    { 26, { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25 } },
    { 17,
      { 0, IN + 1, IN + 2, IN + 4, IN + 5, IN + 7, IN + 8, MID, OUT + 3, OUT + 4, OUT + 5, OUT + 6, OUT + 7, OUT + 8,
        OUT + 9, OUT + 10, OUT + 11 } },
    { 20, { 0,   1,   2,       3,       4,       5,       6,       7,       8,       9,
            MID, OUT, OUT + 1, OUT + 2, OUT + 3, OUT + 4, OUT + 5, OUT + 6, OUT + 7, OUT + 8 } },
    { 12, { 0, IN + 4, IN + 5, IN + 7, IN + 8, MID, OUT, OUT + 1, OUT + 2, OUT + 3, OUT + 4, OUT + 5 } },
};

static kw_status bad(const char *text, kw_err *e)
{
    kw_status s = kw_fail(e, KW_EUSAGE, N_("'%s' does not say how much of each block"), text);
    return kw_advise(e, s, N_("12, 17, 20 or 26 numbers (BASE, IN, M00, OUT), or names: lbw=IN04=0.5,OUT=0"));
}

static bool number(const char *text, size_t n, float *v)
{
    char copy[64], *end;
    if (!n || n >= sizeof copy)
        return false;
    memcpy(copy, text, n);
    copy[n] = 0;
    double d = strtod(copy, &end);
    *v = (float)d;
    return !*end && fabs(d) < 1e6;
}

/* "IN04", "OUT", "M00", "MID", "BASE" -> the blocks it names, from *first, *n of them. */
static bool named(const char *s, size_t n, int *first, int *count)
{
    static const struct { const char *name; int first, n; } rows[] = {
        { "BASE", 0, 1 },  { "IN", IN, EACH }, { "MID", MID, 1 },
        { "M00", MID, 1 }, { "M", MID, 1 },    { "OUT", OUT, EACH },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        size_t k = strlen(rows[i].name);
        if (n < k || memcmp(s, rows[i].name, k))
            continue;
        *first = rows[i].first;
        *count = rows[i].n;
        if (n == k)
            return true;
        if (rows[i].n == 1 || n != k + 2 || s[k] < '0' || s[k] > '9' || s[k + 1] < '0' || s[k + 1] > '9')
            continue;
        *first += 10 * (s[k] - '0') + s[k + 1] - '0';
        *count = 1;
        return *first < rows[i].first + EACH;
    }
    return false;
}

static kw_status by_name(const char *text, float out[KW_LORA_BLOCKS], kw_err *e)
{
    for (const char *s = text; *s;) {
        size_t n = strcspn(s, ","), k = strcspn(s, "=");
        int first, count;
        float v;
        if (k >= n || !named(s, k, &first, &count) || !number(s + k + 1, n - k - 1, &v))
            return bad(text, e);
        for (int i = 0; i < count; i++)
            out[first + i] = v;
        s += n;
        s += *s == ',';
    }
    return KW_OK;
}

kw_status kw_lora_blocks_parse(const char *text, float out[KW_LORA_BLOCKS], kw_err *e)
{
    float list[KW_LORA_BLOCKS];
    int n = 0;
    for (int i = 0; i < KW_LORA_BLOCKS; i++)
        out[i] = 1;
    if (strchr(text, '='))
        return by_name(text, out, e);
    for (const char *s = text; *s && n < KW_LORA_BLOCKS;) {
        size_t k = strcspn(s, ",");
        if (!number(s, k, &list[n++]))
            return bad(text, e);
        s += k;
        if (*s == ',' && (n == KW_LORA_BLOCKS || !s[1]))
            return bad(text, e);
        s += *s == ',';
    }
    for (size_t i = 0; i < KW_LEN(shapes); i++)
        if (shapes[i].n == n) {
            for (int k = 0; k < KW_LORA_BLOCKS; k++)
                out[k] = n == KW_LORA_BLOCKS ? out[k] : 0;
            for (int k = 0; k < n; k++)
                out[shapes[i].at[k]] = list[k];
            return KW_OK;
        }
    return bad(text, e);
}
