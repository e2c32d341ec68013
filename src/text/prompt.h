/* prompt.h - inside the text layer: characters and numbers as Python's re and float() see them; the two grammars. */
#ifndef KW_TEXT_PROMPT_H
#define KW_TEXT_PROMPT_H

#include "text.h"
#include "unicode.h"

bool kw__is_blank(uint32_t c);            /* \s */
bool kw__is_word(uint32_t c);             /* \w */
size_t kw__blanks(const char *s, size_t n);                       /* bytes of white space at s */
size_t kw__trimmed(const char *s, size_t n);                      /* bytes left without white space at the end */
uint32_t kw__char_before(const char *s, size_t i);                /* the character that ends before byte i >= 1 */
bool kw__word_at(const char *s, size_t n, size_t i, const char *word);   /* \bword\b at byte i; word is ASCII */
int kw__digit(uint32_t c);                /* of 0-9, ASCII or full-width; else -1 */
/* A whole text as a decimal number, whatever the locale: [+-] digits [. digits]; false: it is none. */
bool kw__to_double(const char *s, double *x);
/* The same with an exponent, within white space; s has n bytes. */
bool kw__number_of(const char *s, size_t n, double *x);

/* ComfyUI's brackets in out->text; fills the segments. */
KW_MUST kw_status kw__comfy_emphasis(kw_arena *a, kw_prompt *out, kw_err *e);

#endif
