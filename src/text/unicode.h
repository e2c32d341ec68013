/* unicode.h - inside the text layer: code points, their classes, and CLIP's normalization. */
#ifndef KW_TEXT_UNICODE_H
#define KW_TEXT_UNICODE_H

#include "base/base.h"

typedef struct {
    uint32_t c;                           /* code point */
    uint32_t at;                          /* byte of the source text it comes from */
} kw_char;

typedef struct {
    kw_char *s;
    size_t n, capacity;
} kw_chars;

typedef enum { KW_OTHER, KW_LETTER, KW_NUMBER, KW_SPACE } kw_class;

/* One code point from s[0..n), n >= 1; what is invalid gives U+FFFD. Returns the bytes used, at least 1. */
size_t kw_utf8_get(const char *s, size_t n, uint32_t *c);
/* At most 4 bytes to out. */
size_t kw_utf8_put(uint32_t c, char *out);

kw_class kw_char_class(uint32_t c);       /* \p{L}, \p{N}, \s of tokenizers' regular expressions */
bool kw_is_space(uint32_t c);

KW_MUST kw_status kw_chars_decode(kw_arena *a, const char *text, size_t n, kw_chars *out, kw_err *e);
/* NFC, white space, lower case. */
KW_MUST kw_status kw_chars_normalize(kw_arena *a, const kw_char *s, size_t n, kw_chars *out, kw_err *e);

#endif
