/*
 * report.h - report.html: a run on one page, in one file, for the creator and for those it is sent to.
 *
 *     kw_report r = { .lang = "ja", .dir = "run", .name = "kiwa", .events = list, .n_events = n };
 *     KW_TRY(kw_report_write("run/report.html", &r, e));
 *
 * Pictures lie in the file, charts are SVG, nothing is fetched and nothing is executed: a Content-Security-Policy in
 * the page forbids it. While the run lasts (no end among the events) the page reloads itself every 10 seconds. Texts of
 * others - captions, names, prompts - are escaped. Words are translated by kw_translate when the page is made.
 */
#ifndef KW_TRAIN_REPORT_H
#define KW_TRAIN_REPORT_H

#include "events.h"
#include "metadata.h"

typedef struct { const char *label, *value; } kw_report_fact;     /* label: marked with N_, translated here */
typedef struct { const char *text; int64_t n; } kw_report_tag;

typedef struct {                          /* a file to take away */
    const char *name;                     /* "kiwa-000002.safetensors" */
    int64_t step, epoch;                  /* epoch 0: not told */
    uint64_t bytes;
    bool best;                            /* by held-out loss */
} kw_report_file;

typedef struct {
    const char *lang;                     /* of the words: "en", "ja" */
    const char *dir;                      /* the run's folder: pictures are looked for below it */
    const char *name, *trigger, *base;    /* trigger, base: or NULL */
    double now;                           /* Unix seconds; 0: the clock's */
    double seconds_left;                  /* of the whole run; 0 or less: not known */
    const kw_event *events;               /* in the order of the log: curves, samples, notes, the end */
    size_t n_events;
    const kw_report_fact *settings;       /* key options */
    size_t n_settings;
    const char *plan;                     /* lines as they were printed before the first step, or NULL */
    const char *const *warnings;          /* besides the events' notes of level "warning" and "error" */
    size_t n_warnings;
    const kw_report_fact *data;           /* pictures, captions ... */
    size_t n_data;
    const kw_lora_bucket *buckets;
    size_t n_buckets;
    const kw_report_tag *tags;            /* the most frequent ones */
    size_t n_tags;
    const kw_report_file *files;          /* what was made, in order; empty: not yet */
    size_t n_files;
    const char *lora_line;                /* to copy into a prompt: "<lora:kiwa:0.8> kiwa-chan", or NULL */
    const char *sheet;                    /* PNG below dir: checkpoints x strengths, or NULL */
} kw_report;

/* The whole page. Pictures that cannot be read are shown as missing, which is no error. */
KW_MUST kw_status kw_report_html(const kw_report *r, kw_str *out, kw_err *e);
/* The same into a file, atomically. */
KW_MUST kw_status kw_report_write(const char *path, const kw_report *r, kw_err *e);

#endif
