/* lora_option.c - FILE:TEXT:UNET:lbw=... in parts. A name that is there as it stands is taken as it stands. */
#include "lora_option.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool kw_cut_number(char *text, double *v)
{
    char *colon = strrchr(text, ':'), *end;
    if (!colon || !colon[1])
        return false;
    double number = strtod(colon + 1, &end);
    if (*end || !isfinite(number))
        return false;
    *v = number;
    *colon = 0;
    return true;
}

static bool is_there(const char *path) { return kw_is_file(path) || kw_is_dir(path); }

/* Cuts ":lbw=..." off. */
static kw_status cut_blocks(kw_arena *a, char *path, kw_lora_option *out, kw_err *e)
{
    char *blocks = strstr(path, ":lbw=");
    if (!blocks || is_there(path))
        return KW_OK;
    *blocks = 0;
    float *list = kw_alloc_array(a, KW_LORA_BLOCKS, sizeof *list);
    if (!list)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    out->blocks = blocks + strlen(":lbw=");
    out->factors = list;
    return kw_lora_blocks_parse(out->blocks, list, e);
}

kw_status kw_lora_option_read(kw_arena *a, const char *text, kw_lora_option *out, kw_err *e)
{
    double last = 1, first = 1;
    char *path = kw_strdup(a, text);
    if (!path)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *out = (kw_lora_option){ .path = path, .te = 1, .unet = 1 };
    KW_TRY(cut_blocks(a, path, out, e));
    if (!is_there(path) && kw_cut_number(path, &last)) {
        out->te = out->unet = last;
        if (!is_there(path) && kw_cut_number(path, &first))
            out->te = first;
    }
    if (is_there(path))
        return KW_OK;
    if (errno == EACCES)
        return kw_fail(e, KW_EDATA, N_("%s: cannot be read: %s"), path, kw_errno_text(EACCES));
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: no such LoRA file"), path);
    return kw_advise(e, s, N_("--lora takes FILE, FILE:STRENGTH or FILE:TEXT:UNET"));
}
