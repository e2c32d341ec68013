/* events_line.h - one event as one line of JSON, and back. */
#ifndef KW_TRAIN_EVENTS_LINE_H
#define KW_TRAIN_EVENTS_LINE_H

#include "events.h"

/* Appends the line with its end. */
void kw__event_write(kw_str *out, const kw_event *event);

typedef enum { KW__LINE_OK, KW__LINE_UNKNOWN, KW__LINE_BROKEN, KW__LINE_NO_MEMORY } kw__line;

/* Reads a line (without its end); texts go to the arena. UNKNOWN: a valid object of another type; its step is set. */
kw__line kw__event_parse(kw_arena *a, const char *line, size_t n, kw_event *event);

#endif
