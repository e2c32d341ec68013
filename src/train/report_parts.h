/* report_parts.h - what the files of the report share. */
#ifndef KW_TRAIN_REPORT_PARTS_H
#define KW_TRAIN_REPORT_PARTS_H

#include "escape.h"
#include "report.h"

#define _(text) kw_translate(text)

/* ---- what the events say (report_story.c) ------------------------------------------------------------------------ */

typedef enum { KW__RUNNING, KW__FINISHED, KW__STOPPED, KW__FAILED } kw__state;
typedef enum { KW__UNKNOWN, KW__GOOD, KW__WATCH, KW__OVERFITTING } kw__verdict;

typedef struct {
    kw__state state;
    const char *end_text;                 /* why it ended, or NULL */
    int64_t step, steps;                  /* done; of the whole run, 0: not told */
    double started, last;                 /* Unix seconds of the first and the last event; 0: none */
    double loss, seconds;                 /* moving average; median of the last steps' times; NaN: none */
    const kw_event *best, *newest;        /* validations */
    int rises;                            /* how often in a row the held-out loss went up at the end */
    kw__verdict verdict;
} kw__story;

void kw__story_read(const kw_report *r, kw__story *s);
/* How much lower than the base's loss, -0.12: 12 % lower; NaN: not known. */
double kw__gain(const kw_event *validation);

/* ---- words ------------------------------------------------------------------------------------------------------- */

/* Escaped text, made as printf makes it. */
void kw__textf(kw_str *b, const char *fmt, ...) KW_PRINTF(2, 3);
void kw__add_duration(kw_str *b, double seconds);                 /* "3 min 40 s" */
void kw__add_percent(kw_str *b, double share);                    /* "-12.3 %" with a true minus; "+4.0 %" */

/* ---- charts (report_chart.c) ------------------------------------------------------------------------------------- */

typedef struct { double x, y; const char *tip; } kw__point;       /* tip: shown under the mouse, or NULL */
typedef enum { KW__RAW, KW__LINE, KW__DOTS } kw__look;  /* a faint line or band; a strong line; dots on a line */

typedef struct {
    kw__look look;
    int colour;                           /* 1, 2, 3: of the style sheet */
    const char *name;                     /* in the legend; NULL: not there */
    const kw__point *p;                   /* (n) by rising x; points whose y is not finite are left out */
    size_t n;
} kw__series;

typedef struct {
    const char *id;                       /* unique on the page */
    const char *title;
    const kw__series *series;
    size_t n_series;
    bool percent;                         /* y is a share: labels in percent; zero is in the picture */
    bool from_zero;
    const char *zero;                     /* label of the line at zero, or NULL: no line; below it is better */
    const kw__point *mark;                /* a point that is ringed, or NULL */
    const char *mark_text;
} kw__chart;

/* Appends a figure. `out->failed` when memory is gone. */
void kw__chart_draw(kw_arena *a, kw_str *out, const kw__chart *c);
void kw__curves(kw_arena *a, const kw_report *r, const kw__story *s, kw_str *out);       /* report_curves.c */

/* ---- pictures (report_samples.c) --------------------------------------------------------------------------------- */

void kw__samples(kw_arena *a, const kw_report *r, kw_str *out);
void kw__before_after(kw_arena *a, const kw_report *r, kw_str *out);
void kw__sheet(kw_arena *a, const kw_report *r, kw_str *out);

#endif
