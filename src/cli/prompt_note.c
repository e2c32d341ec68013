/*
 * prompt_note.c - what looks like a slip in a prompt: it is told, not passed over.
 *
 *   <lora:fox:0.8               a tag without its end
 *   [fox:cat:0.5] and a | b     a bar that stands alone: nothing in such a prompt changes (as in A1111)
 */
#include "generate.h"

#include <stdlib.h>
#include <string.h>

static bool in_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (c & 0x80);
}

/* Bytes of "<word:..." at s that no > ends: the rest of the prompt. */
static size_t open_tag_at(const char *s)
{
    size_t n = 1;
    if (*s != '<')
        return 0;
    while (in_word(s[n]))
        n++;
    return n > 1 && s[n] == ':' && !strchr(s, '>') ? strlen(s) : 0;
}

static const char *shown(kw_arena *a, const char *s, size_t n)
{
    enum { MOST = 60 };
    size_t k = KW_MIN(n, MOST);
    while (k < n && k && ((unsigned char)s[k] & 0xc0) == 0x80)
        k--;
    return kw_sprintf(a, "%.*s%s", (int)k, s, k < n ? " ..." : "");
}

/* Would it change without its bars? Then one of them stands alone. */
static bool spoiled(kw_arena *a, const char *prompt)
{
    const kw_prompt_steps steps = { 20, 0 };
    kw_prompt tagged;
    kw_prompt_plan with, without;
    if (!strchr(prompt, '|') || kw_prompt_tags(a, prompt, &tagged, NULL))
        return false;
    char *copy = kw_strdup(a, tagged.text);
    for (char *s = copy; s && *s; s++)
        if (*s == '|')
            *s = ' ';
    if (!copy || kw_prompt_plan_make(a, tagged.text, false, steps, &with, NULL)
        || kw_prompt_plan_make(a, copy, false, steps, &without, NULL))
        return false;
    return with.part[0].n == 1 && without.part[0].n > 1;
}

const char *kw_prompt_note(kw_arena *a, const char *prompt)
{
    for (const char *s = prompt; *s; s++) {
        if (*s == '\\' && s[1]) {
            s++;
            continue;
        }
        size_t tag = open_tag_at(s);
        const char *text = tag ? shown(a, s, tag) : NULL;
        if (text)
            return kw_sprintf(a, _(N_("prompt: \"%s\" has no > at its end: taken as words")), text);
    }
    const char *text = spoiled(a, prompt) ? shown(a, prompt, strlen(prompt)) : NULL;
    return text ? kw_sprintf(a, _(N_("prompt: \"%s\": a | outside of [a|b] keeps all of it from changing")), text)
                : NULL;
}
