/* remark.c - what the user is told about files: one table of codes, one list of remarks. */
#include "internal.h"

#include <stdio.h>

static const struct { kw_remark_class class; const char *name, *text; } table[] = {
#define X(name, class, text) { KW_CLASS_##class, #name, text },
    KW_REMARK_MAP(X)
#undef X
};

kw_remark_class kw_remark_class_of(kw_remark_code c) { return table[c].class; }
const char *kw_remark_text(kw_remark_code c) { return table[c].text; }
const char *kw_remark_name(kw_remark_code c) { return table[c].name; }

static const char *const sources[] = {
#define X(name, text) text,
    KW_CAPTION_MAP(X)
#undef X
};

const char *kw_caption_source_text(kw_caption_source s) { return sources[s]; }

kw_status kw__remark(kw_dataset *d, kw_remark_code code, const char *name, kw_err *e, const char *detail, ...)
{
    KW_TRY(kw_grow(d->arena, &d->remarks, &d->remarks_capacity, d->n_remarks, sizeof *d->remarks, e));
    char text[1024] = "";
    if (detail) {
        va_list ap;
        va_start(ap, detail);
        vsnprintf(text, sizeof text, detail, ap);
        va_end(ap);
    }
    kw_remark r = { .code = code, .name = name, .detail = kw_strdup(d->arena, text) };
    if (!r.detail)
        return NO_MEMORY(e);
    d->remarks[d->n_remarks++] = r;
    return KW_OK;
}
