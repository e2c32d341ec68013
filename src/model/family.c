/* family.c - the published families' configurations, embedded in the program: data/families/NAME.json. */
#include "model.h"

#include <string.h>

#define X(id, title) \
    extern const char kw_family_##id[], kw_family_##id##_end[]; \
    __asm__(".pushsection .rodata\n" \
            ".hidden kw_family_" #id "\n.hidden kw_family_" #id "_end\n" \
            ".globl kw_family_" #id "\n.globl kw_family_" #id "_end\n" \
            "kw_family_" #id ": .incbin \"" KW_DATA "/families/" #id ".json\"\nkw_family_" #id "_end: .byte 0\n" \
            ".popsection\n");
KW_FAMILY_MAP(X)
#undef X

static const struct { const char *name, *text, *end; } families[] = {
#define X(id, title) { #id, kw_family_##id, kw_family_##id##_end },
    KW_FAMILY_MAP(X)
#undef X
};

const char *kw_family_name(int i) { return i >= 0 && i < (int)KW_LEN(families) ? families[i].name : NULL; }

kw_status kw_family_config(kw_arena *a, const char *name, json_t **config, kw_err *e)
{
    for (size_t i = 0; i < KW_LEN(families); i++)
        if (!strcmp(families[i].name, name))
            return kw_json_parse(a, name, families[i].text, (size_t)(families[i].end - families[i].text), config, e);
    kw_str known = { 0 };
    for (size_t i = 0; i < KW_LEN(families); i++)
        kw_str_printf(&known, "%s%s", i ? ", " : "", families[i].name);
    kw_status s = kw_fail(e, KW_EUSAGE, N_("the family '%s' is not known"), name);
    s = kw_advise(e, s, N_("known are: %s"), known.s ? known.s : "");
    kw_str_free(&known);
    return s;
}
