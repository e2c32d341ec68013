/*
 * encodings.c - texts that were encoded before: the second pass of a picture and the cells of a grid say the same words
 * again.
 *
 * The key is all that the text encoders' answer depends on: the words, how they are read, and the strengths of what
 * changes the encoders. The numbers are those of the first time, so they are the same bits.
 */
#include "pipeline_internal.h"

#include <string.h>

enum { MOST_NUMBERS = 1 << 20 };          /* of one; longer ones are not kept */

void kw__encodings_key(const kw_pipeline *p, const kw_reading *r, int clip_skip, kw_str *out)
{
    kw_str_printf(out, "%d %d %d %zu", (int)r->grammar, (int)r->emphasis, clip_skip, p->inversion_rows);
    for (size_t i = 0; i < p->n_lora; i++)
        kw_str_printf(out, " %a %a", p->lora[i].te, (double)p->lora[i].blocks[0]);
}

void kw__encodings_key_text(kw_str *out, const char *words, int times, size_t windows)
{
    kw_str_printf(out, "\n%d %zu %zu:%s", times, windows, strlen(words), words);
}

const float *kw__encodings_find(kw_pipeline *p, const char *key)
{
    for (size_t i = 0; i < KW_LEN(p->encoding); i++) {
        kw__encoding *one = &p->encoding[i];
        if (one->key && !strcmp(one->key, key)) {
            one->used = ++p->clock;
            return one->numbers;
        }
    }
    return NULL;
}

float *kw__encodings_add(kw_pipeline *p, const char *key, size_t n)
{
    kw__encoding *oldest = &p->encoding[0];
    for (size_t i = 1; i < KW_LEN(p->encoding); i++)
        if (p->encoding[i].used < oldest->used)
            oldest = &p->encoding[i];
    if (n > MOST_NUMBERS)
        return NULL;
    kw__encodings_drop(oldest);
    oldest->key = kw_block_new(strlen(key) + 1);
    oldest->numbers = kw_block_new(n * sizeof *oldest->numbers);
    if (!oldest->key || !oldest->numbers) {
        kw__encodings_drop(oldest);
        return NULL;
    }
    strcpy(oldest->key, key);
    oldest->used = ++p->clock;
    return oldest->numbers;
}

void kw__encodings_drop(kw__encoding *one)
{
    kw_block_free(one->key);
    kw_block_free(one->numbers);
    *one = (kw__encoding){ 0 };
}
