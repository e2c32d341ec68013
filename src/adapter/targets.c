/* targets.c - which layers are adapted, by the names of their paths. */
#include "adapter.h"

#include <string.h>

static const struct { const char *name; unsigned bit; } words[] = {
#define X(name, text, help) { text, KW_TARGET_##name },
    KW_TARGET_MAP(X)
#undef X
};

kw_status kw_targets_parse(const char *text, unsigned *targets, kw_err *e)
{
    *targets = 0;
    for (const char *s = text; *s;) {
        size_t n = strcspn(s, ", "), i = 0;
        while (i < KW_LEN(words) && (strlen(words[i].name) != n || memcmp(words[i].name, s, n)))
            i++;
        if (i == KW_LEN(words)) {
            kw_status st = kw_fail(e, KW_EUSAGE, "--targets: '%.*s' is not known", (int)n, s);
            return kw_advise(e, st, "choose from attention, ff, conv, text, separated by commas");
        }
        *targets |= words[i].bit;
        s += n;
        s += strspn(s, ", ");
    }
    return *targets ? KW_OK : kw_fail(e, KW_EUSAGE, "--targets: nothing is named");
}

/*  part of a path of the U-Net -> the set it belongs to; the first that fits counts  */
static const struct { const char *part; unsigned bit; } rows[] = {
    { ".attn1.", KW_TARGET_ATTENTION }, { ".attn2.", KW_TARGET_ATTENTION }, { ".ff.", KW_TARGET_FF },
    { ".proj_in", KW_TARGET_FF }, { ".proj_out", KW_TARGET_FF }, { ".resnets.", KW_TARGET_CONV },
    { ".downsamplers.", KW_TARGET_CONV }, { ".upsamplers.", KW_TARGET_CONV },
};

unsigned kw_target_of(kw_part part, const char *path)
{
    if (part == KW_PART_TEXT || part == KW_PART_TEXT2)
        return strstr(path, "encoder.layers.") ? KW_TARGET_TEXT : 0;
    for (size_t i = 0; i < KW_LEN(rows); i++)
        if (strstr(path, rows[i].part))
            return rows[i].bit;
    return 0;
}
