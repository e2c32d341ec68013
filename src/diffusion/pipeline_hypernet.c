/* pipeline_hypernet.c - hypernetworks of a pipeline; their strengths are inputs of its programs. */
#include "pipeline_internal.h"

static const char *const strength_name[KW_PIPELINE_HYPERNETS] = { "hypernet.0", "hypernet.1", "hypernet.2",
                                                                  "hypernet.3" };

kw_status kw_pipeline_hypernet_strength(kw_pipeline *p, size_t i, double strength, kw_err *e)
{
    return kw_pipeline_strength_of(p, strength_name[i], strength, e);
}

kw_status kw_pipeline_add_hypernet(kw_pipeline *p, const char *path, kw_err *e)
{
    int i = p->hypernets.n;
    if (i == KW_PIPELINE_HYPERNETS)
        return kw_fail(e, KW_EUSAGE, N_("more than %d hypernetworks"), KW_PIPELINE_HYPERNETS);
    KW_TRY(kw_hypernet_open(p->arena, p->sd->store, path, strength_name[i], &p->hypernets.item[i], e));
    p->hypernets.n++;
    KW_TRY(kw_pipeline_hypernet_strength(p, (size_t)i, 1, e));
    KW_TRY(kw__pipeline_dry(p, e));
    if (kw_hypernet_used(p->hypernets.item[i]))
        return KW_OK;
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: a hypernetwork for other widths than this base's"), path);
    return kw_advise(e, s, N_("it was made for another kind of Stable Diffusion"));
}
