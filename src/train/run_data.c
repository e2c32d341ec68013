/* run_data.c - a run's pictures: read, checked, split, and what the user is told about them before the first step. */
#include "run_internal.h"

static const kw_sd *base(const kw_run *r) { return kw_trainer_base(r->trainer); }

static bool checked(void *user, size_t done, size_t n)
{
    return kw__run_tell(user, KW_PHASE_CHECK, done, n);
}

static kw_bucket_rule rule_of(const kw_run *r)
{
    const kw_sd *sd = base(r);
    int levels = sd->has[KW_PART_UNET] ? sd->unet.levels : 1;
    kw_bucket_rule rule = kw_bucket_rule_with(r->resolution, kw_vae_factor(&sd->vae), levels, r->s.bucket_min,
                                              r->s.bucket_max, r->s.bucket_step);
    rule.no_upscale = r->s.no_upscale;
    rule.single = r->s.single;
    return rule;
}

static kw_status read_data(kw_run *r, kw_err *e)
{
    kw_scan scan = { .trigger = r->s.trigger, .caption_extension = r->s.caption_extension, .encoding = r->s.encoding,
                     .repeats = r->s.repeats, .follow = r->s.follow, .any_line = r->s.any_line,
                     .masks = !r->vae && !r->align && kw_sd_inpaints(base(r)) };
    kw_check check = { .decoder = r->decoder, .workers = r->decoder ? 2 : 1, .background = r->background,
                       .most_bad = 0.1, .progress = checked, .user = r };
    kw_bucket_rule rule = rule_of(r);
    KW_TRY(kw_data_scan(r->arena, r->s.data, &scan, &r->data, e));
    if (r->s.held_out)
        KW_TRY(kw_data_add_held_out(r->data, r->s.held_out, &scan, e));
    KW_TRY(kw_data_check(r->data, &check, e));
    if (!r->s.held_out && r->s.validation > 0)
        KW_TRY(kw_data_split(r->data, r->s.validation, r->s.seed, e));
    return kw_data_buckets(r->data, &rule, e);
}

/* ---- remarks ----------------------------------------------------------------------------------------------------- */

enum { MOST_NAMED = 20 };

static bool is_bad(const kw_remark *m)
{
    return kw_remark_class_of(m->code) == KW_CLASS_BAD || m->code == KW_REMARK_LEAK;
}

/* A picture that is left out is named with its reason, whatever else there is. */
static void tell_bad(const kw_run *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->data->n_remarks; i++) {
        const kw_remark *m = &r->data->remarks[i];
        bool told = m->detail[0] && m->code != KW_REMARK_LEAK;      /* a leak's detail is the other picture */
        if (is_bad(m) && n++ < MOST_NAMED)
            kw__run_note(r, kw_translate(N_("not used: %s: %s")), m->name,
                         told ? m->detail : kw_translate(kw_remark_text(m->code)));
    }
    if (n > MOST_NAMED)
        kw__run_note(r, kw_translate(N_("... and %zu more that are not used")), n - MOST_NAMED);
}

/* Of everything else that deserves a look, how often and one example. What was converted as it should be is no news. */
static bool tell_counts(const kw_run *r)
{
    bool any = false;
    for (kw_remark_code code = 0; code < KW_N_REMARKS; code++) {
        kw_remark_class class = kw_remark_class_of(code);
        const kw_remark *first = NULL;
        const char *text = kw_translate(kw_remark_text(code));
        size_t n = 0;
        bool news = class == KW_CLASS_UNUSED || class == KW_CLASS_WARNING;
        for (size_t i = 0; i < r->data->n_remarks; i++)
            if (r->data->remarks[i].code == code && !n++)
                first = &r->data->remarks[i];
        if (!n || !news || code == KW_REMARK_HIDDEN || code == KW_REMARK_LEAK)
            continue;
        if (n == 1)
            kw__run_note(r, "%s: %s", text, first->name);
        else
            kw__run_note(r, kw_translate(N_("%s: %zu, the first is %s")), text, n, first->name);
        any = true;
    }
    return any;
}

kw_status kw__run_open_data(kw_run *r, kw_err *e)
{
    kw_status s = read_data(r, e);
    if (r->data && s != KW_ESTOP) {
        tell_bad(r);
        if (tell_counts(r))
            kw__run_note(r, kw_translate(N_("all of these, file by file: kiwame data %s")), r->s.data);
    }
    KW_TRY(s);
    kw_plan_config pc = { .seed = r->s.seed, .batch = r->s.batch, .flip = r->s.flip, .random_crop = r->s.random_crop };
    KW_TRY(kw_plan_new(r->arena, r->data, &pc, &r->plan, e));
    if (kw_data_count(r->data, true)) {
        kw_plan_config held = { .seed = r->s.seed, .batch = 1, .held_out = true };
        KW_TRY(kw_plan_new(r->arena, r->data, &held, &r->held_out, e));
    }
    return kw_loader_new(r->arena, r->data, r->decoder, r->background, &r->loader, e);
}

/* ---- captions ---------------------------------------------------------------------------------------------------- */

/* The beginning of what is cut off; the whole of it is in `kiwame data --all`. */
static int shown_bytes(const char *text)
{
    enum { MOST = 120 };
    int n = 0;
    while (text[n] && n < MOST)
        n++;
    while (text[n] && n && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

/* Captions that the base's vocabulary can only spell byte by byte teach it nothing: Japanese on CLIP. */
kw_status kw__run_check_captions(kw_run *r, kw_err *e)
{
    enum { SHOWN = 10 };
    kw_caption_report c;
    KW_TRY(kw_data_captions(r->arena, r->data, r->tokenizer, (size_t)KW_MAX(r->s.token_length / 75, 1), &c, e));
    if (c.broken > 0.3)
        kw__run_note(r, kw_translate(N_("%.0f %% of the captions' characters are outside of the base's vocabulary: "
                                        "write captions in its language (English for Stable Diffusion)")),
                     100 * c.broken);
    for (size_t i = 0; i < c.n_cuts && i < SHOWN; i++) {
        const char *text = c.cuts[i].cut_text;
        int n = shown_bytes(text);
        kw__run_note(r, kw_translate(N_("caption too long, this is cut off: %s: %.*s%s")),
                     r->data->items[c.cuts[i].item].name, n, text, text[n] ? " ..." : "");
    }
    if (c.n_cuts > SHOWN)
        kw__run_note(r, kw_translate(N_("... and %zu more captions that are cut off")), c.n_cuts - SHOWN);
    return KW_OK;
}
