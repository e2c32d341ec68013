/*
 * prompt.c - A1111's prompt grammar: tags <lora:name:0.8>, emphasis (x:1.2) [y], BREAK.
 *
 *   tag        <kind:a:b:key=c>, kind of letters, digits and _; everything up to the first > after it
 *   emphasis   tokens  \( \) \[ \] \\ \   (   [   :weight)   )   ]   :   and runs of anything else
 *   BREAK      a word of its own within such a run; white space around it goes
 * Weights multiply from the inner bracket outwards, in double, as in Python.
 */
#include "prompt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    kw_arena *a;
    kw_err *e;
    struct piece { const char *s; size_t n; double weight; bool is_break; } *piece;
    size_t n, capacity;
    size_t *round, *square;               /* first piece inside each open bracket */
    size_t n_round, n_square, round_room, square_room;
    uint64_t work;                        /* factors applied so far */
} parser;

enum { MOST_WORK = 100000000 };           /* a second; thousands of brackets within each other */

/* A number [+-]?[.0-9]+ at s: its ASCII form in text (room 64), its bytes; 0 if there is none. */
static size_t number(const char *s, size_t n, char *text)
{
    size_t i = 0, k = 0;
    if (i < n && (s[i] == '+' || s[i] == '-'))
        text[k++] = s[i++];
    size_t sign = k;
    for (uint32_t c; i < n && k < 62;) {
        size_t bytes = kw_utf8_get(s + i, n - i, &c);
        if (c != '.' && kw__digit(c) < 0)
            break;
        text[k++] = c == '.' ? '.' : (char)('0' + kw__digit(c));
        i += bytes;
    }
    text[k] = 0;
    return k > sign ? i : 0;
}

/* ---- emphasis -------------------------------------------------------------------------------------------- */

static kw_status add(parser *p, const char *s, size_t n, bool is_break)
{
    KW_TRY(kw_grow(p->a, &p->piece, &p->capacity, p->n, sizeof *p->piece, p->e));
    p->piece[p->n++] = (struct piece){ s, n, 1, is_break };
    return KW_OK;
}

/* A run of plain text: parts between BREAKs. */
static kw_status add_run(parser *p, const char *s, size_t n)
{
    size_t start = 0;
    for (size_t i = 0; i + 5 <= n;) {
        if (!kw__word_at(s, n, i, "BREAK")) {
            i++;
            continue;
        }
        KW_TRY(add(p, s + start, kw__trimmed(s + start, i - start), false));
        KW_TRY(add(p, "", 0, true));
        i += 5;
        i += kw__blanks(s + i, n - i);
        start = i;
    }
    return add(p, s + start, n - start, false);
}

static kw_status multiply(parser *p, size_t from, double factor)
{
    p->work += p->n - from;
    if (p->work > MOST_WORK)
        return kw_fail(p->e, KW_EDATA, N_("the prompt has too many brackets within each other"));
    for (size_t i = from; i < p->n; i++)
        if (!p->piece[i].is_break)
            p->piece[i].weight *= factor;
    return KW_OK;
}

/* ":1.3)" at s, spaces allowed: its bytes and number; 0 if it is none. */
static size_t weight_at(const char *s, size_t n, char *text)
{
    size_t i = 1 + kw__blanks(s + 1, n - 1), k = number(s + i, n - i, text);
    if (!k)
        return 0;
    i += k;
    i += kw__blanks(s + i, n - i);
    return i < n && s[i] == ')' ? i + 1 : 0;
}

static kw_status colon(parser *p, const char *s, size_t n, size_t *used)
{
    char text[64];
    double factor;
    *used = weight_at(s, n, text);
    if (!*used || !p->n_round) {
        *used = *used ? *used : 1;
        return add_run(p, s, *used);
    }
    if (!kw__to_double(text, &factor))
        return kw_fail(p->e, KW_EDATA, N_("prompt: \"%s\" is no number, in \"%.*s\""), text, (int)*used, s);
    return multiply(p, p->round[--p->n_round], factor);
}

static kw_status open_bracket(parser *p, size_t **stack, size_t *n, size_t *room)
{
    KW_TRY(kw_grow(p->a, stack, room, *n, sizeof **stack, p->e));
    (*stack)[(*n)++] = p->n;
    return KW_OK;
}

static kw_status next(parser *p, const char *s, size_t n, size_t *used)
{
    *used = 1;
    switch (*s) {
    case '\\':
        if (n > 1 && strchr("()[]\\", s[1]) && s[1])
            return *used = 2, add(p, s + 1, 1, false);
        return add(p, "", 0, false);      /* a lone backslash goes, as in A1111 */
    case '(':
        return open_bracket(p, &p->round, &p->n_round, &p->round_room);
    case '[':
        return open_bracket(p, &p->square, &p->n_square, &p->square_room);
    case ')':
        return p->n_round ? multiply(p, p->round[--p->n_round], 1.1) : add_run(p, s, 1);
    case ']':
        return p->n_square ? multiply(p, p->square[--p->n_square], 1 / 1.1) : add_run(p, s, 1);
    case ':':
        return colon(p, s, n, used);
    default:
        *used = strcspn(s, "\\()[]:");
        return add_run(p, s, *used);
    }
}

/* Neighbours of one weight become one segment; their texts are put together. */
static kw_status join(parser *p, kw_prompt *out)
{
    size_t total = 0, m = 0;
    for (size_t i = 0; i < p->n; i++)
        total += p->piece[i].n + 1;
    char *text = kw_alloc(p->a, total + 1);
    kw_segment *segment = out->segments = kw_alloc_array(p->a, p->n + 1, sizeof *segment);
    if (!text || !segment)
        return kw_fail(p->e, KW_ENOMEM, N_("out of memory for a prompt"));
    for (size_t i = 0; i < p->n; i++) {
        const struct piece *q = &p->piece[i];
        if (!m || q->is_break || segment[m - 1].is_break || segment[m - 1].weight != q->weight) {
            text += m > 0;                /* over the terminating zero */
            segment[m++] = (kw_segment){ text, q->weight, q->is_break };
        }
        memcpy(text, q->s, q->n);
        text += q->n;
    }
    if (!m)
        segment[m++] = (kw_segment){ "", 1, false };
    out->n = m;
    return KW_OK;
}

static kw_status emphasis(kw_arena *a, kw_prompt *out, kw_err *e)
{
    parser p = { .a = a, .e = e };
    const char *s = out->text;
    for (size_t n = strlen(s), used; n; s += used, n -= used)
        KW_TRY(next(&p, s, n, &used));
    for (size_t i = 0; i < p.n_round; i++)
        KW_TRY(multiply(&p, p.round[i], 1.1));
    for (size_t i = 0; i < p.n_square; i++)
        KW_TRY(multiply(&p, p.square[i], 1 / 1.1));
    return join(&p, out);
}

const char *kw_emphasis_label(kw_emphasis m)
{
    static const char *const label[] = {
#define X(name, text, shown) shown,
        KW_EMPHASIS_MAP(X)
#undef X
    };
    return label[m];
}

kw_status kw_prompt_weigh(kw_arena *a, kw_grammar g, kw_emphasis m, kw_prompt *out, kw_err *e)
{
    out->segments = NULL;
    out->n = 0;
    if (m == KW_EMPHASIS_NONE) {
        kw_segment *one = out->segments = kw_alloc(a, sizeof *one);
        if (!one)
            return kw_fail(e, KW_ENOMEM, N_("out of memory for a prompt"));
        *one = (kw_segment){ out->text, 1, false };
        out->n = 1;
        return KW_OK;
    }
    KW_TRY(g == KW_GRAMMAR_COMFYUI ? kw__comfy_emphasis(a, out, e) : emphasis(a, out, e));
    for (size_t i = 0; m == KW_EMPHASIS_IGNORE && i < out->n; i++)
        out->segments[i].weight = 1;
    return KW_OK;
}

/* ---- tags -------------------------------------------------------------------------------------------------- */

static kw_status strength(const char *tag, const char *text, double *x, kw_err *e)
{
    char *copy = (char *)text + kw__blanks(text, strlen(text));
    copy[kw__trimmed(copy, strlen(copy))] = 0;
    if (kw__to_double(copy, x))
        return KW_OK;
    return kw_fail(e, KW_EDATA, N_("prompt: \"%.60s\" is no strength, in the tag of \"%.100s\""), text, tag);
}

/* The arguments of a tag, "name:te:unet:te=x", in args (which is cut to pieces). */
static kw_status tag_args(kw_prompt_tag *tag, char *args, kw_err *e)
{
    bool has_unet = false;
    int place = 0;
    tag->te = 1;
    for (char *next_arg; args; args = next_arg) {
        next_arg = strchr(args, ':');
        if (next_arg)
            *next_arg++ = 0;
        char *equal = strchr(args, '=');
        if (equal) {
            *equal = 0;
            bool te = !strcmp(args, "te"), unet = !strcmp(args, "unet");
            has_unet |= unet;
            if (!strcmp(args, "lbw"))
                tag->blocks = equal + 1;
            if (te || unet)
                KW_TRY(strength(tag->name, equal + 1, te ? &tag->te : &tag->unet, e));
        } else if (place == 0) {
            tag->name = args;
            place++;
        } else if (place++ <= 2) {
            has_unet |= place == 3;
            KW_TRY(strength(tag->name, args, place == 2 ? &tag->te : &tag->unet, e));
        }
    }
    if (!has_unet)
        tag->unet = tag->te;
    return KW_OK;
}

/* Bytes of a tag <kind:args> at s, 0 if there is none; where its colon is. The text's last > is at or after s. */
static size_t tag_at(const char *s, size_t *colon_at)
{
    size_t i = 1, k;
    for (uint32_t c; s[i] && (k = kw_utf8_get(s + i, strnlen(s + i, 4), &c)) && kw__is_word(c);)
        i += k;
    if (i == 1 || s[i] != ':')
        return 0;
    *colon_at = i;
    const char *close = strchr(s + i + 1, '>');
    return close && close > s + i + 1 ? (size_t)(close - s) + 1 : 0;
}

static kw_status tags(kw_arena *a, const char *prompt, kw_prompt *out, kw_err *e)
{
    size_t n = strlen(prompt), room = 0;
    char *text = kw_alloc(a, n + 1), *to = text;
    const char *last = strrchr(prompt, '>');
    if (!text)
        return kw_fail(e, KW_ENOMEM, N_("out of memory for a prompt"));
    for (const char *s = prompt; *s;) {
        size_t at = 0, k = *s == '<' && s < last ? tag_at(s, &at) : 0;
        if (!k) {
            *to++ = *s++;
            continue;
        }
        KW_TRY(kw_grow(a, &out->tags, &room, out->n_tags, sizeof *out->tags, e));
        kw_prompt_tag *tag = &out->tags[out->n_tags++];
        *tag = (kw_prompt_tag){ .kind = kw_strndup(a, s + 1, at - 1), .name = "" };
        char *args = kw_strndup(a, s + at + 1, k - at - 2);
        if (!tag->kind || !args)
            return kw_fail(e, KW_ENOMEM, N_("out of memory for a prompt"));
        KW_TRY(tag_args(tag, args, e));
        s += k;
    }
    out->text = text;
    return KW_OK;
}

kw_status kw_prompt_tags(kw_arena *a, const char *prompt, kw_prompt *out, kw_err *e)
{
    *out = (kw_prompt){ 0 };
    if (strlen(prompt) > KW_TEXT_MAX)
        return kw_fail(e, KW_EDATA, N_("a prompt of %zu bytes is too long (at most %d)"), strlen(prompt), KW_TEXT_MAX);
    return tags(a, prompt, out, e);
}

kw_status kw_prompt_parse(kw_arena *a, const char *prompt, kw_prompt *out, kw_err *e)
{
    KW_TRY(kw_prompt_tags(a, prompt, out, e));
    return emphasis(a, out, e);
}
