/* fingerprint.c - one hash over everything that batches depend on: a resumed run must find the same data. */
#include "internal.h"

#include <string.h>

static void add_text(kw_sha256 *s, const char *text) { kw_sha256_add(s, text, strlen(text) + 1); }

static void add_numbers(kw_sha256 *s, const int64_t *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t bytes[8];
        for (int k = 0; k < 8; k++)
            bytes[k] = (uint8_t)((uint64_t)v[i] >> 8 * k);
        kw_sha256_add(s, bytes, sizeof bytes);
    }
}

kw_status kw_data_fingerprint(const kw_dataset *d, char hex[65], kw_err *e)
{
    kw_sha256 s;
    kw_sha256_start(&s);
    add_text(&s, "kiwame data 1");
    for (size_t i = 0; i < d->n; i++) {
        const kw_item *t = &d->items[i];
        if (t->bad)
            continue;
        add_text(&s, t->name);
        add_text(&s, t->hash);
        add_numbers(&s, (int64_t[]){ t->repeats, t->held_out, t->fit.scaled_w, t->fit.scaled_h, t->fit.w, t->fit.h,
                                     (int64_t)t->n_captions }, 7);
        for (size_t k = 0; k < t->n_captions; k++)
            add_text(&s, t->captions[k]);
        if (t->mask)
            add_text(&s, t->mask_hash);
    }
    return kw_sha256_end(&s, hex) ? KW_OK : NO_MEMORY(e);
}
