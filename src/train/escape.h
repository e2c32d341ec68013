/* escape.h - foreign text inside JSON, HTML and SVG; numbers whatever the locale. All append to a growing text. */
#ifndef KW_TRAIN_ESCAPE_H
#define KW_TRAIN_ESCAPE_H

#include "base/base.h"

/* The next code point of a text and how far to go; U+FFFD (and 1) for a byte that is no UTF-8; 0 at the end. */
size_t kw__utf8_next(const char *s, uint32_t *c);
void kw__add_utf8(kw_str *b, uint32_t c);

/* "text" with quotes. ascii: all else as \uXXXX, as Python's json.dumps writes; bad bytes become U+FFFD. */
void kw__add_json(kw_str *b, const char *text, bool ascii);
/* The shortest digits that read back as v; "null" when v is not finite. */
void kw__add_number(kw_str *b, double v);
/* With so many digits behind the point. */
void kw__add_fixed(kw_str *b, double v, int digits);
/* Text of a page: & < > " ' as entities, controls and marks that turn the direction of writing made visible. */
void kw__add_html(kw_str *b, const char *text);
/* A file's name that leads nowhere but below the folder it is looked for in. */
bool kw__is_below(const char *name);

#endif
