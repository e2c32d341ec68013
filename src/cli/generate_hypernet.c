/* generate_hypernet.c - hypernetworks by --hypernet FILE:X and <hypernet:NAME:X>. */
#include "generate.h"
#include "lora_option.h"

#include <string.h>

static kw_status add(kw_arena *a, kw_jobs *jobs, const char *path, bool always, double given, size_t *at, kw_err *e)
{
    if (jobs->n_hypernet == KW_PIPELINE_HYPERNETS)
        return kw_fail(e, KW_EUSAGE, N_("more than %d hypernetworks"), KW_PIPELINE_HYPERNETS);
    kw_job_hypernet *h = &jobs->hypernet[jobs->n_hypernet];
    *h = (kw_job_hypernet){ .path = path, .given = given, .always = always };
    h->name = kw_path_stem(a, path);
    *at = jobs->n_hypernet++;
    return h->name ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

kw_status kw_hypernets_given(kw_arena *a, const kw_generate_config *c, kw_jobs *jobs, kw_err *e)
{
    for (size_t i = 0, at; i < c->hypernet.n; i++) {
        char *path = kw_strdup(a, c->hypernet.item[i]);
        double given = 1;
        if (!path)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (!kw_is_file(path))
            kw_cut_number(path, &given);
        if (!kw_is_file(path)) {
            kw_status s = kw_fail(e, KW_EDATA, N_("%s: no such hypernetwork"), path);
            return kw_advise(e, s, N_("--hypernet takes FILE or FILE:STRENGTH"));
        }
        KW_TRY(add(a, jobs, path, true, given, &at, e));
    }
    return KW_OK;
}

kw_status kw_hypernets_tag(kw_arena *a, const kw_generate_config *c, kw_jobs *jobs, kw_job *j, const kw_prompt_tag *tag,
                           kw_err *e)
{
    size_t i = 0;
    while (i < jobs->n_hypernet && strcmp(jobs->hypernet[i].name, tag->name))
        i++;
    if (i == jobs->n_hypernet) {
        const char *path = kw_sprintf(a, "%s/%s.pt", c->hypernet_dir, tag->name);
        if (!path)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (strchr(tag->name, '/') || !kw_is_file(path)) {
            kw_status s = kw_fail(e, KW_EDATA, N_("<hypernet:%s>: there is no %s.pt in %s"), tag->name, tag->name,
                                  c->hypernet_dir);
            return kw_advise(e, s, N_("name the folder with --hypernet-dir, or the file with --hypernet"));
        }
        KW_TRY(add(a, jobs, path, false, 0, &i, e));
    }
    j->hyper[i] = tag->te;
    return KW_OK;
}

void kw_hypernets_complete(const kw_jobs *jobs, kw_job *j, kw_str *text)
{
    for (size_t i = 0; i < jobs->n_hypernet; i++) {
        const kw_job_hypernet *h = &jobs->hypernet[i];
        if (!h->always || j->hyper[i] != 0)
            continue;
        j->hyper[i] = h->given;
        kw_str_printf(text, "%s<hypernet:%s:%g>", *j->prompt || text->n ? " " : "", h->name, h->given);
    }
}
