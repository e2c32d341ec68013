/*
 * prompt_comfy.c - ComfyUI's brackets.
 *
 *   weights(s, w):  outer brackets of s, in order;  text between them has weight w
 *   (x:1.3)  weights(x, 1.3)         the last colon of x, not its first character, with a number up to its end
 *   (x)      weights(x, 1.1 w)
 * \( and \) are brackets of the text. One that closes nothing lowers the depth, so that brackets after it are text,
 * and one never closed keeps what follows as text: so does ComfyUI.
 */
#include "prompt.h"

#include <math.h>
#include <string.h>

typedef struct {
    kw_arena *a;
    kw_err *e;
    kw_segment *list;
    size_t n, capacity;
    uint64_t work;                        /* bytes looked at, over all depths */
} comfy;

enum { DEEPEST = 2000 };
#define MOST_WORK 100000000u

static kw_status emit(comfy *p, const char *s, size_t n, double weight)
{
    KW_TRY(kw_grow(p->a, &p->list, &p->capacity, p->n, sizeof *p->list, p->e));
    char *text = kw_alloc(p->a, n + 1), *to = text;
    if (!text)
        return kw_fail(p->e, KW_ENOMEM, N_("out of memory for a prompt"));
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\\' && i + 1 < n && (s[i + 1] == '(' || s[i + 1] == ')'))
            i++;
        *to++ = s[i];
    }
    p->list[p->n++] = (kw_segment){ text, weight, false };
    return KW_OK;
}

static kw_status weights(comfy *p, const char *s, size_t n, double weight, int depth);

/* One piece: text, or a whole bracket. */
static kw_status piece(comfy *p, const char *s, size_t n, double weight, int depth)
{
    double given;
    bool closes = n > 1 && s[n - 1] == ')' && !(n > 2 && s[n - 2] == '\\');
    if (!n)
        return KW_OK;
    if (*s != '(' || !closes)
        return emit(p, s, n, weight);
    s++;
    n -= 2;
    weight *= 1.1;
    for (size_t i = n; i-- > 1;)
        if (s[i] == ':') {
            if (!kw__number_of(s + i + 1, n - i - 1, &given) || !isfinite(given))
                break;
            weight = given;
            n = i;
            break;
        }
    return weights(p, s, n, weight, depth + 1);
}

static kw_status weights(comfy *p, const char *s, size_t n, double weight, int depth)
{
    size_t start = 0;
    long level = 0;
    p->work += n;
    if (depth > DEEPEST || p->work > MOST_WORK)
        return kw_fail(p->e, KW_EDATA, N_("the prompt has too many brackets within each other"));
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\\' && i + 1 < n && (s[i + 1] == '(' || s[i + 1] == ')')) {
            i++;
        } else if (s[i] == '(') {
            if (!level) {
                KW_TRY(piece(p, s + start, i - start, weight, depth));
                start = i;
            }
            level++;
        } else if (s[i] == ')') {
            level--;
            if (!level) {
                KW_TRY(piece(p, s + start, i + 1 - start, weight, depth));
                start = i + 1;
            }
        }
    }
    return piece(p, s + start, n - start, weight, depth);
}

kw_status kw__comfy_emphasis(kw_arena *a, kw_prompt *out, kw_err *e)
{
    comfy p = { .a = a, .e = e };
    KW_TRY(weights(&p, out->text, strlen(out->text), 1, 0));
    if (!p.n)
        KW_TRY(emit(&p, "", 0, 1));
    out->segments = p.list;
    out->n = p.n;
    return KW_OK;
}
