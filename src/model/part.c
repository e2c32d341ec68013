/* part.c - a part's parameters come from a model source, by diffusers' names. */
#include "model.h"

kw_status kw_part_find(void *part_of, const char *name, kw_shape shape, kw_tensor *t, kw_err *e)
{
    const kw_part_of *p = part_of;
    const kw_tensor *found = kw_source_find(p->source, p->part, name);
    char text[64];
    if (found) {
        *t = *found;
        return KW_OK;
    }
    kw_status s = kw_fail(e, KW_EDATA, "%s: %s has no weight %s %s", kw_source_path(p->source), kw_part_name(p->part),
                          name, kw_dims_text(shape, text));
    return kw_advise(e, s, "the weights and the configuration belong to different models");
}
