/*
 * schedule.c - prompts that change from step to step, and prompts of several parts: A1111's AND, [a:b:0.5], [a|b].
 *
 *   prompt   (group | text)*                        text    anything but \ [ ] ( ) : |, or \ and any character
 *   group    ( prompt )   ( prompt : prompt )   [ prompt ]              kept as they stand: emphasis reads them later
 *            [ prompt : number ]   [ prompt : prompt : number ]         editing
 *            [ prompt | prompt ... ]                                    alternation
 * Brackets and colons that belong to no group are text at the top, but not within a group: it then is none either. So
 * one pass with a stack of open groups does: what contradicts them all makes them all text. A bar that is no
 * alternation's, or a last backslash, is nothing: the whole prompt is text. (A1111's grammar is ambiguous where
 * brackets have no partner, and its parser then takes some groups as text; here a well-formed group is always one.)
 */
#include "prompt.h"

#include <math.h>
#include <string.h>

enum { MOST_BYTES = 64 << 20 };           /* of the texts of all steps */

typedef enum { TEXT, OPEN, BETWEEN, CLOSE } kind;
typedef enum { LOOSE, WEIGHT, EDIT, TURN } role;

typedef struct {
    const char *s;
    size_t n;
    uint8_t kind, role;                   /* role: of the group, set at its end, at OPEN */
    size_t group;                         /* BETWEEN, CLOSE: the item that opened */
    size_t next;                          /* OPEN, BETWEEN: the next BETWEEN or CLOSE of the group */
    size_t close, last, fields;           /* OPEN: its CLOSE, its last mark so far, how many prompts it has */
    int when;                             /* an edit's, in runs */
} item;

typedef struct {
    kw_arena *a;
    kw_err *e;
    kw_prompt_steps steps;
    item *item;
    size_t n, capacity;
    size_t *open, n_open, open_room;      /* groups not closed yet */
    bool literal;
} scan;

static kw_status put(scan *p, item one)
{
    KW_TRY(kw_grow(p->a, &p->item, &p->capacity, p->n, sizeof *p->item, p->e));
    p->item[p->n++] = one;
    return KW_OK;
}

/* ---- groups ------------------------------------------------------------------------------------------------------ */

/* The bars of what is no group any more are nobody's. */
static void give_up(scan *p)
{
    for (size_t k = 0; k < p->n_open; k++) {
        p->literal |= p->item[p->open[k]].role == TURN;
        p->item[p->open[k]].role = LOOSE;
    }
    p->n_open = 0;
}

/* A number with a point is a share, else runs; in a second pass both go on from the first. Rounded towards 0. */
static bool when_of(const scan *p, const char *s, size_t n, int *when)
{
    double v;
    size_t skip = kw__blanks(s, n), end = kw__trimmed(s, n);
    for (size_t i = skip; i < end; i++)   /* ASCII alone: the grammar's numbers, not float()'s */
        if (!memchr("0123456789.+-eE", s[i], 15))
            return false;
    if (!kw__number_of(s, n, &v))
        return false;
    bool share = memchr(s, '.', n) != NULL, second = p->steps.before > 0;
    v = share ? (v - second) * p->steps.steps : v - (second ? p->steps.before : 0);
    *when = (int)KW_MAX(KW_MIN(trunc(v), p->steps.steps), -1);
    return true;
}

/* May the group end here? Says what it is. */
static bool closes(scan *p, size_t open, char c)
{
    item *g = &p->item[open];
    const item *number = &p->item[g->last + 1];
    bool round = *g->s == '(';
    if (round != (c == ')'))
        return false;
    if (g->role == TURN)
        return true;
    if (round || g->fields == 1) {
        g->role = WEIGHT;
        return true;
    }
    if (p->n - g->last != 2 || !when_of(p, number->s, number->n, &g->when))
        return false;                     /* the last field is no bare number */
    g->role = EDIT;
    return true;
}

static kw_status close_group(scan *p, const char *s)
{
    size_t open = p->n_open ? p->open[p->n_open - 1] : 0;
    if (!p->n_open || !closes(p, open, *s)) {
        give_up(p);
        return put(p, (item){ .s = s, .n = 1, .kind = TEXT });
    }
    p->item[p->item[open].last].next = p->n;
    p->item[open].close = p->n;
    p->n_open--;
    return put(p, (item){ .s = s, .n = 1, .kind = CLOSE, .group = open });
}

/* A colon or a bar in the innermost open group, if it can have one more. */
static kw_status between(scan *p, const char *s)
{
    size_t open = p->n_open ? p->open[p->n_open - 1] : 0;
    item *g = p->n_open ? &p->item[open] : NULL;
    bool fits = g && (*s == '|' ? *g->s == '[' && (g->fields == 1 || g->role == TURN)
                                : g->role != TURN && g->fields < (*g->s == '(' ? 2u : 3u));
    if (!fits) {
        give_up(p);
        p->literal |= *s == '|';
        return put(p, (item){ .s = s, .n = 1, .kind = TEXT });
    }
    if (*s == '|')
        g->role = TURN;
    p->item[g->last].next = p->n;
    g->last = p->n;
    g->fields++;
    return put(p, (item){ .s = s, .n = 1, .kind = BETWEEN, .group = open });
}

static kw_status open_group(scan *p, const char *s)
{
    KW_TRY(kw_grow(p->a, &p->open, &p->open_room, p->n_open, sizeof *p->open, p->e));
    p->open[p->n_open++] = p->n;
    return put(p, (item){ .s = s, .n = 1, .kind = OPEN, .role = LOOSE, .last = p->n, .fields = 1 });
}

/* Bytes of plain text at s: \ takes the next character along, which must not be a line's end. */
static size_t run_of(const char *s, size_t n, bool *bad)
{
    size_t i = 0;
    while (i < n && !strchr("[]():|", s[i])) {
        if (s[i] == '\\') {
            *bad |= i + 1 >= n || s[i + 1] == '\n';
            i++;
        }
        i++;
    }
    return KW_MIN(i, n);
}

static kw_status read_all(scan *p, const char *s, size_t n)
{
    for (size_t k; n && !p->literal; s += k, n -= k) {
        k = 1;
        if (*s == '[' || *s == '(')
            KW_TRY(open_group(p, s));
        else if (*s == ']' || *s == ')')
            KW_TRY(close_group(p, s));
        else if (*s == ':' || *s == '|')
            KW_TRY(between(p, s));
        else {
            k = run_of(s, n, &p->literal);
            KW_TRY(put(p, (item){ .s = s, .n = k, .kind = TEXT }));
        }
    }
    give_up(p);
    return KW_OK;
}

/* ---- the text of a step ------------------------------------------------------------------------------------------ */

/* Where to go on: behind the mark before field k of a group. */
static size_t field_at(const scan *p, size_t open, size_t k)
{
    size_t i = open;
    while (k--)
        i = p->item[i].next;
    return i + 1;
}

static size_t enter(const scan *p, size_t open, int step)
{
    const item *g = &p->item[open];
    if (g->role == TURN)
        return field_at(p, open, (size_t)(step - 1) % g->fields);
    if (g->fields == 3)
        return field_at(p, open, step <= g->when ? 0 : 1);
    return step <= g->when ? g->close + 1 : open + 1;
}

static bool changes(const item *g) { return g->role == EDIT || g->role == TURN; }

static size_t render(const scan *p, int step, char *to)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n;) {
        const item *t = &p->item[i], *g = t->kind == OPEN ? t : &p->item[t->group];
        if (t->kind == OPEN && changes(t)) {
            i = enter(p, i, step);
        } else if ((t->kind == BETWEEN || t->kind == CLOSE) && changes(g)) {
            i = g->close + 1;
        } else {
            memcpy(to + n, t->s, t->n);
            n += t->n;
            i++;
        }
    }
    to[n] = 0;
    return n;
}

/* ---- stages ------------------------------------------------------------------------------------------------------ */

static kw_status marks(const scan *p, bool *at)
{
    at[p->steps.steps] = true;
    for (size_t i = 0; i < p->n && !p->literal; i++) {
        const item *t = &p->item[i];
        if (t->kind != OPEN)
            continue;
        if (t->role == EDIT && t->when >= 1)
            at[t->when] = true;
        for (int k = 1; t->role == TURN && k <= p->steps.steps; k++)
            at[k] = true;
    }
    return KW_OK;
}

static kw_status stages(scan *p, const char *s, size_t n, kw_prompt_part *out)
{
    size_t count = 0;
    bool *at = kw_alloc_array(p->a, (size_t)p->steps.steps + 1, sizeof *at);
    if (!at)
        return kw_fail(p->e, KW_ENOMEM, N_("out of memory for a prompt"));
    KW_TRY(marks(p, at));
    for (int i = 1; i <= p->steps.steps; i++)
        count += at[i];
    if (count > 1 && n * count > MOST_BYTES)
        return kw_fail(p->e, KW_EDATA, N_("a prompt of %zu bytes that changes %zu times is too long"), n, count - 1);
    out->stage = kw_alloc_array(p->a, count, sizeof *out->stage);
    if (!out->stage)
        return kw_fail(p->e, KW_ENOMEM, N_("out of memory for a prompt"));
    for (int i = 1; i <= p->steps.steps; i++) {
        if (!at[i])
            continue;
        char *text = kw_alloc(p->a, n + 1);
        if (!text)
            return kw_fail(p->e, KW_ENOMEM, N_("out of memory for a prompt"));
        if (p->literal)
            memcpy(text, s, n);
        else
            (void)render(p, i, text);
        out->stage[out->n++] = (kw_prompt_stage){ i, text };
    }
    return KW_OK;
}

static kw_status plan_part(kw_arena *a, kw_prompt_steps steps, const char *s, size_t n, kw_prompt_part *out, kw_err *e)
{
    scan p = { .a = a, .e = e, .steps = steps };
    KW_TRY(read_all(&p, s, n));
    return stages(&p, s, n, out);
}

/* ---- parts ------------------------------------------------------------------------------------------------------- */

/* "text : 0.5 " -> the bytes of the text, the weight; [-+]?(\d+\.?|\d*\.\d+) behind the last colon. */
static size_t weighted(const char *s, size_t n, double *weight)
{
    size_t end = kw__trimmed(s, n), i = end, digits = 0, points = 0;
    char text[72];
    size_t k = sizeof text - 1;
    *weight = 1;
    text[k] = 0;
    for (; i; i--) {
        uint32_t c = kw__char_before(s, i);
        if (c == '.' ? points++ : kw__digit(c) < 0)
            break;
        digits += c != '.';
        if (k < 2)
            return end;
        text[--k] = c == '.' ? '.' : (char)('0' + kw__digit(c));
        while (i > 1 && ((uint8_t)s[i - 1] & 0xc0) == 0x80)
            i--;
    }
    if (i && (s[i - 1] == '-' || s[i - 1] == '+'))
        text[--k] = s[--i];
    i = kw__trimmed(s, i);
    if (!digits || points > 1 || !i || s[i - 1] != ':' || !kw__to_double(text + k, weight))
        return end;
    return kw__trimmed(s, i - 1);
}

kw_status kw_prompt_plan_make(kw_arena *a, const char *text, bool composed, kw_prompt_steps steps, kw_prompt_plan *out,
                              kw_err *e)
{
    size_t n = strlen(text), room = 0, start = 0;
    *out = (kw_prompt_plan){ 0 };
    if (n > KW_TEXT_MAX)
        return kw_fail(e, KW_EDATA, N_("a prompt of %zu bytes is too long (at most %d)"), n, KW_TEXT_MAX);
    for (size_t i = 0; i <= n; i++) {
        bool cut = composed && i < n && text[i] == 'A' && kw__word_at(text, n, i, "AND");
        if (!cut && i < n)
            continue;
        KW_TRY(kw_grow(a, &out->part, &room, out->n, sizeof *out->part, e));
        kw_prompt_part *p = &out->part[out->n++];
        *p = (kw_prompt_part){ .weight = 1 };
        size_t used = composed ? weighted(text + start, i - start, &p->weight) : n;
        KW_TRY(plan_part(a, steps, text + start, used, p, e));
        i += 2;
        start = i + 1;
    }
    return KW_OK;
}

size_t kw_prompt_stage_at(const kw_prompt_part *p, int run)
{
    for (size_t i = 0; i < p->n; i++)
        if (run <= p->stage[i].until)
            return i;
    return 0;                             /* as A1111, where the sampler runs on after the last stage */
}
