/* generate_results.c - after the last picture: latents as a file, the list of files as JSON. */
#include "generate_session.h"

kw_status kw_session_save_latents(const kw_session *s, kw_err *e)
{
    int c = kw_pipeline_base(s->p)->vae.latent;
    if (!s->latents)
        return KW_OK;
    kw_tensor t = { .name = "latents", .dtype = KW_F32, .rank = 4, .shape = { (int64_t)s->jobs.n, c, s->h, s->w },
                    .data = s->latents };
    t.bytes = (uint64_t)kw_tensor_count(&t) * sizeof(float);
    kw_guard_begin();
    kw_status st = kw_tensors_save(s->c->save_latents, &t, 1, NULL, 0, e);
    kw_guard_end();
    return st;
}

static void add_text(kw_str *o, const char *key, const char *text)
{
    kw_str_printf(o, ",\"%s\":", key);
    kw_show_json_text(o, text);
}

void kw_session_print_json(const kw_session *s, const char *sheet)
{
    kw_str o = { 0 };
    kw_str_add(&o, "{\"files\":[");
    for (size_t i = 0; i < s->jobs.n; i++) {
        const kw_job *j = &s->jobs.job[i];
        kw_str_add(&o, i ? ",{\"file\":" : "{\"file\":");
        kw_show_json_text(&o, j->file);
        if (j->base)
            add_text(&o, "base", j->base);
        add_text(&o, "prompt", j->prompt);
        add_text(&o, "negative", j->negative);
        add_text(&o, "sampler", j->sampler->label);
        kw_str_printf(&o, ",\"seed\":%llu,\"steps\":%d,\"cfg\":%.10g,\"width\":%d,\"height\":%d}",
                      (unsigned long long)j->seed, j->steps, j->cfg, j->width, j->height);
    }
    kw_str_add(&o, "]");
    if (sheet)
        add_text(&o, "sheet", sheet);
    if (s->c->save_latents)
        add_text(&o, "latents", s->c->save_latents);
    printf("%s}\n", o.s && !o.failed ? o.s : "{");
    kw_str_free(&o);
}
