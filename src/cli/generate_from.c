/*
 * generate_from.c - --from: the settings kept in a picture become options.
 *
 *   A1111's and our parameters (PNG texts; EXIF of JPEG and WebP, as Civitai's), every key by a row below;
 *   ComfyUI's graph where it is plain (generate_comfy.c)
 *
 * What the command line says comes first. A key without a row, or a value that cannot be had, is named.
 */
#include "generate.h"

#include <stdlib.h>
#include <string.h>

typedef struct { kw_cli *cli; kw_generate_config *c; kw_from *f; bool second; kw_str unused; kw_err *e; } reader;

/* ---- keys that are options -------------------------------------------------------------------------------------- */

/* words: A1111's words and ours, "Only masked=masked|..."; NULL: the value as it is. */
typedef struct { const char *key, *option, *words; } row;

static const row rows[] = {
    { "Steps", "steps", NULL },
    { "Sampler", "sampler", NULL },
    { "CFG scale", "cfg", NULL },
    { "Seed", "seed", NULL },
    { "Clip skip", "clip-skip", NULL },
    { "RNG", "rng", "GPU=gpu|NV=gpu|CPU=cpu|Kiwame=kiwame" },
    { "Eta", "eta", NULL },
    { "Eta DDIM", "eta", NULL },
    { "Timestep spacing", "spacing", NULL },
    { "Base dtype", "base-dtype", NULL },
    { "Dtype", "dtype", NULL },
    { "VAE dtype", "vae-dtype", NULL },
    { "Lora apply", "lora-apply", NULL },
    { "Emphasis", "emphasis", "Original=original|No norm=no-norm|Ignore=ignore|None=none" },
    { "Prompt grammar", "prompt-grammar", "A1111=a1111|ComfyUI=comfyui" },
    { "Variation seed", "variation-seed", NULL },
    { "Variation seed strength", "variation-strength", NULL },
    { "Seed resize from", "seed-from", NULL },
    { "ENSD", "noise-delta", NULL },
    { "Sigma churn", "s-churn", NULL },
    { "Sigma tmin", "s-tmin", NULL },
    { "Sigma tmax", "s-tmax", NULL },
    { "Sigma noise", "s-noise", NULL },
    { "Schedule min sigma", "sigma-min", NULL },
    { "Schedule max sigma", "sigma-max", NULL },
    { "Gamma", "gamma", NULL },
    { "Original size", "original-size", NULL },
    { "Crop", "crop", NULL },
    { "Target size", "target-size", NULL },
    { "CFG rescale", "cfg-rescale", NULL },
    { "Img2img steps", "img2img-steps", NULL },
    { "Resize mode", "resize-mode", NULL },
    { "Mask blur", "mask-blur", NULL },
    { "Mask mode", "mask-invert", "Inpaint not masked=yes|Inpaint masked=no" },
    { "Masked content", "mask-fill", "original=original|fill=fill|latent noise=noise|latent nothing=nothing" },
    { "Inpaint area", "inpaint-area", "Only masked=masked|Whole picture=whole" },
    { "Masked area padding", "mask-padding", NULL },
    { "Hires upscale", "hires", NULL },
    { "Hires resize", "hires-size", NULL },
    { "Hires steps", "hires-steps", NULL },
    { "Hires upscaler", "hires-upscaler",
      "Latent=latent|Latent (antialiased)=latent-antialiased|Latent (bicubic)=latent-bicubic|"
      "Latent (bicubic antialiased)=latent-bicubic-antialiased|Latent (nearest)=latent-nearest|"
      "Latent (nearest-exact)=latent-nearest-exact|Lanczos=lanczos|Nearest=nearest|Bicubic=bicubic|Bilinear=bilinear|"
      "None=lanczos" },
};

/* Read elsewhere, or not about how the picture is made. */
static const char *const known[] = { "Size", "Schedule type", "Denoising strength", "Model", "Model hash", "VAE",
                                     "VAE hash", "Lora hashes", "Hashes", "Version", "Init image hash", "Parts hash",
                                     "TI hashes", "Hypernet hashes", "Script", "X Type", "X Values", "Y Type",
                                     "Y Values", "Z Type", "Z Values", "User", "Civitai resources",
                                     "Civitai metadata" };

static const char *get(const reader *r, const char *key) { return kw_infotext_get(&r->f->text, key); }

/* "key=word" in the list; NULL: not there. */
static const char *word_for(kw_arena *a, const char *words, const char *value)
{
    for (const char *w = words; *w;) {
        size_t all = strcspn(w, "|"), n = strcspn(w, "=");
        if (n == strlen(value) && !strncasecmp(w, value, n))
            return kw_strndup(a, w + n + 1, all - n - 1);
        w += all + (w[all] == '|');
    }
    return NULL;
}

static void cannot_use(reader *r, const char *key, const char *value)
{
    kw_str_printf(&r->unused, "%s%s: %s", r->unused.n ? ", " : "", key, value);
}

static kw_status set(reader *r, const char *option, const char *key, const char *value)
{
    const char *label = kw_sprintf(r->cli->arena, "%s: %s", r->f->path, key);
    if (!kw_options_find(r->cli->options, option)) {
        cannot_use(r, key, value);
        return KW_OK;
    }
    return kw_options_set(r->cli->options, option, value, KW_FROM_RECIPE, label ? label : key, r->e);
}

/* A sampler that A1111 has as a setting of another one. */
static const kw_sampler *variant_of(const reader *r, const char *sampler)
{
    for (size_t i = 0; i < kw_n_samplers; i++) {
        const kw_sampler *s = kw_samplers[i];
        const char *said = s->known_as && !strcasecmp(s->known_as, sampler) ? get(r, s->variant_key) : NULL;
        if (said && !strcmp(said, s->variant))
            return s;
    }
    return NULL;
}

static kw_status set_row(reader *r, const row *k, const char *value)
{
    const kw_sampler *variant = strcmp(k->option, "sampler") ? NULL : variant_of(r, value);
    const char *word = k->words ? word_for(r->cli->arena, k->words, value) : variant ? variant->name : value;
    if (word)
        return set(r, k->option, k->key, word);
    cannot_use(r, k->key, value);
    return KW_OK;
}

static bool is_known(const char *key)
{
    for (size_t i = 0; i < kw_n_samplers; i++)
        if (kw_samplers[i]->variant_key && !strcmp(kw_samplers[i]->variant_key, key))
            return true;
    for (size_t i = 0; i < KW_LEN(known); i++)
        if (!strcmp(known[i], key))
            return true;
    return false;
}

static kw_status set_fields(reader *r)
{
    for (size_t i = 0; i < r->f->text.n; i++) {
        const kw_meta *m = &r->f->text.field[i];
        const row *k = NULL;
        for (size_t n = 0; n < KW_LEN(rows) && !k; n++)
            k = strcmp(rows[n].key, m->key) ? NULL : &rows[n];
        if (k)
            KW_TRY(set_row(r, k, m->value));
        else if (!is_known(m->key))
            cannot_use(r, m->key, m->value);
    }
    return KW_OK;
}

/* ---- keys that mean more than one option ------------------------------------------------------------------------ */

static kw_status set_size(reader *r)
{
    const char *size = get(r, "Size");
    char *end;
    if (!size)
        return KW_OK;
    long w = strtol(size, &end, 10), h = *end == 'x' ? strtol(end + 1, &end, 10) : 0;
    char text[32];
    if (w < 1 || h < 1 || *end) {
        cannot_use(r, "Size", size);
        return KW_OK;
    }
    bool given = kw_options_from(r->cli->options, "width") == KW_FROM_ARGV
        || kw_options_from(r->cli->options, "height") == KW_FROM_ARGV;
    if (given)                            /* one of them alone would be of another shape */
        return KW_OK;
    snprintf(text, sizeof text, "%ld", w);
    KW_TRY(set(r, "width", "Size", text));
    snprintf(text, sizeof text, "%ld", h);
    return set(r, "height", "Size", text);
}

static kw_status set_schedule(reader *r)
{
    const char *s = get(r, "Schedule type");
    if (!s || !strcasecmp(s, "automatic") || kw_options_from(r->cli->options, "sampler") == KW_FROM_ARGV)
        return KW_OK;
    return set(r, "schedule", "Schedule type", s);
}

/* Of the second pass where there is one, else of the picture that this one was painted over. */
static kw_status set_strength(reader *r)
{
    const char *s = get(r, "Denoising strength");
    if (!s)
        return KW_OK;
    if (r->second)
        return set(r, "hires-strength", "Denoising strength", s);
    if (!r->c->init) {
        kw_status st = kw_fail(r->e, KW_EDATA, N_("%s was painted over another picture"), r->f->path);
        return kw_advise(r->e, st, N_("name that picture with --init"));
    }
    const char *version = get(r, "Version");
    if (!version || !kw_starts_with(version, "kiwame"))       /* A1111 does not say how it resized: its default */
        KW_TRY(set(r, "resize-mode", "Denoising strength", "stretch"));
    if (!get(r, "Mask blur"))
        KW_TRY(set(r, "mask-blur", "Denoising strength", "0"));
    r->c->from_masked = get(r, "Mask blur") || get(r, "Masked content") || get(r, "Inpaint area");
    return set(r, "strength", "Denoising strength", s);
}

static void set_prompt(reader *r)
{
    kw_generate_config *c = r->c;
    const char **item = kw_alloc(r->cli->arena, sizeof *item);
    if (item && !c->words.n && !c->prompt.n && !c->prompts) {
        *item = r->f->text.prompt;
        c->words = (kw_texts){ .item = item, .n = 1, .capacity = 1 };
    }
    if (!c->negative)
        c->negative = r->f->text.negative;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static kw_status no_settings(const char *path, kw_err *e)
{
    return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: no settings are kept in this picture"), path),
                     N_("they are lost where a picture was edited or sent by a messenger"));
}

static kw_status read_comfy(reader *r, const char *path, const void *data, size_t n, kw_str *text)
{
    kw_str graph = { 0 };
    bool found;
    kw_status s = kw_picture_text(data, n, "prompt", &graph, &found, r->e);
    if (!s)
        s = found && graph.s ? kw_comfy_read(path, graph.s, text, r->e) : no_settings(path, r->e);
    kw_str_free(&graph);
    if (!s && !r->cli->global.quiet) {
        fprintf(stderr, _(N_("%s: ComfyUI's workflow; the picture will be alike, not the same")), path);
        fputc('\n', stderr);
    }
    return s;
}

static kw_status read_text(reader *r, const char *path)
{
    const void *data;
    size_t n;
    bool found;
    kw_str text = { 0 };
    KW_TRY(kw_file_map(r->cli->arena, path, &data, &n, r->e));
    kw_status s = kw_picture_text(data, n, "parameters", &text, &found, r->e);
    if (!s && !(found && text.s))
        s = read_comfy(r, path, data, n, &text);
    if (!s)
        s = kw_infotext_parse(r->cli->arena, text.s, &r->f->text, r->e);
    kw_str_free(&text);
    return s;
}

static kw_status use(reader *r)
{
    const char *vae = NULL;
    r->second = get(r, "Hires upscale") || get(r, "Hires resize") || get(r, "Hires upscaler");
    KW_TRY(set_fields(r));
    KW_TRY(set_size(r));
    KW_TRY(set_schedule(r));
    KW_TRY(set_strength(r));
    set_prompt(r);
    KW_TRY(kw_from_files(r->cli, r->c, r->f, &vae, r->e));
    if (vae)
        cannot_use(r, "VAE", vae);
    return KW_OK;
}

kw_status kw_from_read(kw_cli *cli, kw_generate_config *c, kw_from **out, kw_err *e)
{
    reader r = { .cli = cli, .c = c, .e = e };
    *out = NULL;
    if (!c->from)
        return KW_OK;
    r.f = kw_alloc(cli->arena, sizeof *r.f);
    if (!r.f)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    r.f->path = c->from;
    KW_TRY(read_text(&r, c->from));
    kw_status s = use(&r);
    if (!s && r.unused.n && !cli->global.quiet) {
        kw_str safe = { 0 };
        kw_escape(&safe, r.unused.s);
        fprintf(stderr, _(N_("%s: not used: %s")), c->from, safe.s ? safe.s : "");
        fputc('\n', stderr);
        kw_str_free(&safe);
    }
    kw_str_free(&r.unused);
    c->wanted = r.f->wanted;
    c->n_wanted = r.f->n;
    *out = r.f;
    return s;
}
