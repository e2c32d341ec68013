/* events_line.c - one event as one line of JSON, and back: both from one table of fields. */
#include "escape.h"
#include "events_line.h"

#include <math.h>
#include <string.h>

static const char *const kinds[KW_N_EVENTS] = { "start", "step", "validation", "sample", "save", "note", "end" };
static const char *const rates[KW_EVENT_RATES] = { "unet", "textencoder", "vae" };

#define IN(kind) (1u << KW_EVENT_##kind)
#define ALL (IN(START) | IN(STEP) | IN(VALIDATION) | IN(SAMPLE) | IN(SAVE) | IN(NOTE) | IN(END))

typedef enum { WHOLE, NUMBER, TRUTH, TEXT, RATES } type;
enum { ALWAYS = 1 };                      /* also written when 0 */

/* In the order of a line; what the clock decides comes last. */
static const struct { const char *name; type type; size_t at; unsigned in; int flags; } fields[] = {
    { "step",      WHOLE,  offsetof(kw_event, step),      ALL, ALWAYS },
    { "epoch",     WHOLE,  offsetof(kw_event, epoch),     IN(STEP) | IN(VALIDATION) | IN(SAMPLE) | IN(SAVE), 0 },
    { "name",      TEXT,   offsetof(kw_event, name),      IN(START), 0 },
    { "steps",     WHOLE,  offsetof(kw_event, steps),     IN(START), 0 },
    { "loss",      NUMBER, offsetof(kw_event, loss),      IN(STEP) | IN(VALIDATION), ALWAYS },
    { "average",   NUMBER, offsetof(kw_event, average),   IN(STEP), ALWAYS },
    { "rate",      RATES,  offsetof(kw_event, rate),      IN(STEP), ALWAYS },
    { "norm",      NUMBER, offsetof(kw_event, norm),      IN(STEP), ALWAYS },
    { "skipped",   TRUTH,  offsetof(kw_event, skipped),   IN(STEP), 0 },
    { "base",      NUMBER, offsetof(kw_event, base),      IN(VALIDATION), ALWAYS },
    { "epoch_end", TRUTH,  offsetof(kw_event, epoch_end), IN(VALIDATION), 0 },
    { "index",     WHOLE,  offsetof(kw_event, index),     IN(SAMPLE), ALWAYS },
    { "seed",      WHOLE,  offsetof(kw_event, seed),      IN(SAMPLE), ALWAYS },
    { "prompt",    TEXT,   offsetof(kw_event, prompt),    IN(SAMPLE), 0 },
    { "file",      TEXT,   offsetof(kw_event, file),      IN(SAMPLE) | IN(SAVE), 0 },
    { "hash",      TEXT,   offsetof(kw_event, hash),      IN(SAVE), 0 },
    { "level",     TEXT,   offsetof(kw_event, level),     IN(NOTE) | IN(END), 0 },
    { "text",      TEXT,   offsetof(kw_event, text),      IN(NOTE) | IN(END), 0 },
    { "seconds",   NUMBER, offsetof(kw_event, seconds),   IN(STEP), 0 },
    { "memory",    WHOLE,  offsetof(kw_event, memory),    IN(STEP), 0 },
    { "time",      NUMBER, offsetof(kw_event, time),      ALL, ALWAYS },
    { "session",   WHOLE,  offsetof(kw_event, session),   ALL, 0 },
};

static bool is_default(size_t f, const void *p)
{
    switch (fields[f].type) {
    case WHOLE:  return !*(const int64_t *)p;
    case NUMBER: return *(const double *)p == 0;
    case TRUTH:  return !*(const bool *)p;
    case TEXT:   return !*(const char *const *)p;
    default:     return false;
    }
}

static void write_rates(kw_str *out, const double *rate)
{
    const char *before = "{";
    for (int i = 0; i < KW_EVENT_RATES; i++)
        if (rate[i] >= 0) {
            kw_str_printf(out, "%s\"%s\":", before, rates[i]);
            kw__add_number(out, rate[i]);
            before = ",";
        }
    kw_str_add(out, *before == '{' ? "{}" : "}");
}

void kw__event_write(kw_str *out, const kw_event *event)
{
    kw_str_printf(out, "{\"type\":\"%s\"", kinds[event->kind]);
    for (size_t f = 0; f < KW_LEN(fields); f++) {
        const void *p = (const char *)event + fields[f].at;
        if (!(fields[f].in & 1u << event->kind) || (!(fields[f].flags & ALWAYS) && is_default(f, p)))
            continue;
        kw_str_printf(out, ",\"%s\":", fields[f].name);
        switch (fields[f].type) {
        case WHOLE:  kw_str_printf(out, "%lld", (long long)*(const int64_t *)p); break;
        case NUMBER: kw__add_number(out, *(const double *)p); break;
        case TRUTH:  kw_str_add(out, "true"); break;
        case TEXT:   kw__add_json(out, *(const char *const *)p, false); break;
        case RATES:  write_rates(out, p); break;
        }
    }
    kw_str_add(out, "}\n");
}

/* ---- reading: a missing or strange value is the default, a missing number is not a number ------------------------ */

static bool read_text(kw_arena *a, const json_t *j, const char **out)
{
    if (json_is_string(j))
        *out = kw_strdup(a, json_string_value(j));
    return !json_is_string(j) || *out;
}

static void read_rates(const json_t *j, double *rate)
{
    for (int i = 0; i < KW_EVENT_RATES; i++) {
        const json_t *one = json_object_get(j, rates[i]);
        rate[i] = json_is_number(one) ? json_number_value(one) : -1;
    }
}

static bool read_field(kw_arena *a, size_t f, const json_t *j, void *p)
{
    switch (fields[f].type) {
    case WHOLE:  *(int64_t *)p = json_is_integer(j) ? json_integer_value(j) : 0; return true;
    case NUMBER:
        *(double *)p = json_is_number(j) ? json_number_value(j) : fields[f].flags & ALWAYS ? NAN : 0;
        return true;
    case TRUTH:  *(bool *)p = json_is_true(j); return true;
    case TEXT:   return read_text(a, j, p);
    case RATES:  read_rates(j, p); return true;
    }
    return true;
}

static kw__line parse(kw_arena *a, const json_t *j, kw_event *event)
{
    const char *name = json_string_value(json_object_get(j, "type"));
    const json_t *step = json_object_get(j, "step");
    int kind = 0;
    *event = (kw_event){ .step = json_integer_value(step) };
    if (!name || !json_is_integer(step))
        return KW__LINE_BROKEN;
    while (kind < KW_N_EVENTS && strcmp(name, kinds[kind]))
        kind++;
    if (kind == KW_N_EVENTS)
        return KW__LINE_UNKNOWN;
    event->kind = (kw_event_kind)kind;
    for (size_t f = 0; f < KW_LEN(fields); f++)
        if ((fields[f].in & 1u << kind)
            && !read_field(a, f, json_object_get(j, fields[f].name), (char *)event + fields[f].at))
            return KW__LINE_NO_MEMORY;
    return KW__LINE_OK;
}

kw__line kw__event_parse(kw_arena *a, const char *line, size_t n, kw_event *event)
{
    json_error_t why;
    json_t *j = json_loadb(line, n, JSON_REJECT_DUPLICATES, &why);
    if (!j)
        return KW__LINE_BROKEN;
    kw__line result = parse(a, j, event);
    json_decref(j);
    return result;
}
