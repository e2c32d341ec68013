/*
 * base_hash.c - what the base is, by SHA-256 of its weights: for caches, checkpoints and metadata. Reading all of it
 * takes seconds at full size, so it is kept in the cache under the files' inodes and times.
 */
#include "run_internal.h"

#include <string.h>

enum { DIGITS = 64 };

/* Kept as floats, as everything in the cache: one for each digit. */
static bool find(kw_run *r, const char key[65], char hex[65])
{
    const int64_t shape[] = { DIGITS };
    float digit[DIGITS];
    if (!kw_cache_find(r->cache, key, shape, 1, digit))
        return false;
    for (int i = 0; i < DIGITS; i++) {
        int d = digit[i] >= 0 && digit[i] < 16 ? (int)digit[i] : 0;
        hex[i] = "0123456789abcdef"[d];
    }
    hex[DIGITS] = 0;
    return true;
}

static kw_status put(kw_run *r, const char key[65], const char hex[65], kw_err *e)
{
    const int64_t shape[] = { DIGITS };
    float digit[DIGITS];
    for (int i = 0; i < DIGITS; i++)
        digit[i] = (float)(hex[i] <= '9' ? hex[i] - '0' : hex[i] - 'a' + 10);
    return kw_cache_put(r->cache, key, shape, 1, digit, e);
}

/* From the cache if it was read before and no file has changed since; else all of it is read. */
static kw_status hash_part(kw_run *r, kw_source *s, kw_part p, char hex[65], kw_err *e)
{
    char key[65], after[65];
    bool settled = kw_source_stamp(s, p, key);
    if (settled && find(r, key, hex)) {
        kw_source_know_hash(s, p, hex);
        return KW_OK;
    }
    KW_TRY(kw_source_check_numbers(s, p, e));         /* what is known by its hash was looked at before */
    KW_TRY(kw_source_hash(s, p, hex, e));
    if (!settled || !kw_source_stamp(s, p, after) || strcmp(key, after))
        return KW_OK;
    return put(r, key, hex, e);
}

kw_status kw__run_hash_base(kw_run *r, kw_err *e)
{
    const kw_sd *sd = kw_trainer_base(r->trainer);
    char hex[65];
    for (int p = 0; p < KW_N_PARTS; p++)
        if (kw_source_has(sd->source, (kw_part)p))
            KW_TRY(hash_part(r, sd->source, (kw_part)p, hex, e));
    KW_TRY(kw_source_hash(sd->source, KW_N_PARTS, r->base_hash, e));
    if (sd->has[KW_PART_VAE])
        KW_TRY(hash_part(r, sd->vae_source, KW_PART_VAE, r->vae_hash, e));
    for (int i = 0; i < kw_sd_encoders(sd) && sd->has[kw_sd_encoder(i)]; i++)
        KW_TRY(kw_source_hash(sd->source, kw_sd_encoder(i), r->text_hash[i], e));
    return KW_OK;
}
