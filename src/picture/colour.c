/*
 * colour.c - one row of a file's samples to sRGB: 16 bits to 8, profile, CMYK, grey, alpha, in this order.
 * The arithmetic is Pillow's, so that pictures look here as they do there (Image.convert, ImageCms, AlphaComposite.c).
 */
#include "internal.h"

#include <lcms2.h>
#include <stdlib.h>
#include <string.h>

#define PROFILE_MAX (16u << 20)

static const struct { cmsColorSpaceSignature space; cmsUInt32Number format; int channels; } inputs[] = {
    [KW_SAMPLES_GREY] = { cmsSigGrayData, TYPE_GRAY_8, 1 },
    [KW_SAMPLES_RGB] = { cmsSigRgbData, TYPE_RGB_8, 3 },
    [KW_SAMPLES_CMYK] = { cmsSigCmykData, TYPE_CMYK_8, 4 },
};

/* ImageCms.profileToProfile(im, profile, createProfile("sRGB"), renderingIntent=PERCEPTUAL, flags=0) */
static void profile_open(kw_colour *c, const void *profile, size_t n, kw_picture_info *info)
{
    info->notes |= KW_NOTE_ICC_IGNORED;
    if (n > PROFILE_MAX || !(c->context = cmsCreateContext(NULL, NULL)))
        return;
    cmsHPROFILE in = cmsOpenProfileFromMemTHR(c->context, profile, (cmsUInt32Number)n);
    cmsHPROFILE srgb = cmsCreate_sRGBProfileTHR(c->context);
    if (in && srgb && cmsGetColorSpace(in) == inputs[c->kind].space)
        c->transform = cmsCreateTransformTHR(c->context, in, inputs[c->kind].format, srgb, TYPE_RGB_8,
                                             INTENT_PERCEPTUAL, 0);
    if (in)
        cmsGetProfileInfoASCII(in, cmsInfoDescription, "en", "US", info->profile, sizeof info->profile);
    info->profile[sizeof info->profile - 1] = 0;
    for (char *s = info->profile; *s; s++)
        if ((uint8_t)*s < 0x20 || (uint8_t)*s > 0x7e)
            *s = '?';
    if (in)
        cmsCloseProfile(in);
    if (srgb)
        cmsCloseProfile(srgb);
    if (c->transform)
        info->notes ^= KW_NOTE_ICC_IGNORED | KW_NOTE_ICC;
}

kw_status kw_colour_open(kw_colour *c, int w, const void *profile, size_t n, kw_picture_info *info, kw_err *e)
{
    c->line = malloc((size_t)w * 4);
    c->alphas = malloc((size_t)w);
    if (!c->line || !c->alphas)
        return kw_fail(e, KW_ENOMEM, "no memory for a row of %d pixels", w);
    if (n)
        profile_open(c, profile, n, info);
    return KW_OK;
}

void kw_colour_close(kw_colour *c)
{
    if (c->transform)
        cmsDeleteTransform(c->transform);
    if (c->context)
        cmsDeleteContext(c->context);
    free(c->line);
    free(c->alphas);
    c->transform = c->context = c->line = c->alphas = NULL;
}

/* Colour samples to c->line (without alpha), alpha to c->alphas; 8 bits each. True: something is transparent. */
static bool split(const kw_colour *c, const void *samples, int w)
{
    uint8_t clear = 0;
    int colours = inputs[c->kind].channels, bands = c->bands;
    const uint8_t *s8 = samples;
    const uint16_t *s16 = samples;
    for (int x = 0; x < w; x++)
        for (int k = 0; k < bands && k <= colours; k++) {
            size_t i = (size_t)x * (size_t)bands + (size_t)k;
            uint8_t v = c->bits == 16 ? (uint8_t)(s16[i] >> 8) : s8[i];
            if (k == colours)
                clear |= 255 - (c->alphas[x] = v);
            else
                c->line[x * colours + k] = v;
        }
    return clear;
}

/* v/255, rounded, for 0..255*255 */
static uint8_t div255(int v)
{
    v += 128;
    return (uint8_t)((v + (v >> 8)) >> 8);
}

static void plain(const kw_colour *c, int w, uint8_t *rgb)
{
    const uint8_t *s = c->line;
    if (c->kind == KW_SAMPLES_RGB) {
        memcpy(rgb, s, (size_t)w * 3);
        return;
    }
    for (int x = 0; x < w; x++)
        for (int k = 0; k < 3; k++) {
            if (c->kind == KW_SAMPLES_GREY) {
                rgb[x * 3 + k] = s[x];
                continue;
            }
            int paper = 255 - s[x * 4 + 3];                         /* light that the black ink lets through */
            rgb[x * 3 + k] = (uint8_t)(paper - div255(paper * s[x * 4 + k]));
        }
}

bool kw_colour_row(const kw_colour *c, const void *samples, int w, uint8_t *rgb)
{
    bool clear = split(c, samples, w);
    if (c->transform)
        cmsDoTransform(c->transform, c->line, rgb, (cmsUInt32Number)w);
    else
        plain(c, w, rgb);
    for (int x = 0; clear && x < w; x++)
        for (int k = 0; k < 3; k++) {
            int a = c->alphas[x];
            rgb[x * 3 + k] = div255(rgb[x * 3 + k] * a + c->background[k] * (255 - a));
        }
    return clear;
}
