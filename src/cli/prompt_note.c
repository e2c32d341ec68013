/*
 * prompt_note.c - what A1111 makes more of than words, and this program does not: it is told, not passed over.
 *
 *   one AND two        composed pictures          [a:b:0.5]  [a|b]     words that change from step to step
 *   <lora:fox:0.8      a tag without its end
 */
#include "generate.h"

#include <stdlib.h>
#include <string.h>

static bool in_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (c & 0x80);
}

/* Bytes of the word AND at s. */
static size_t and_at(const char *prompt, const char *s)
{
    return kw_starts_with(s, "AND") && !(s > prompt && in_word(s[-1])) && !in_word(s[3]) ? 3 : 0;
}

static bool is_number(const char *s, size_t n)
{
    while (n && *s == ' ')
        s++, n--;
    while (n && s[n - 1] == ' ')
        n--;
    return n && strspn(s, "0123456789.") >= n;
}

/* Bytes of "[a|b]" or "[a:b:0.5]" at s: a bar, or a number behind its last colon. */
static size_t switch_at(const char *s)
{
    const char *colon = NULL;
    bool bar = false;
    int depth = 0;
    if (*s != '[')
        return 0;
    for (const char *p = s; *p; p++) {
        if (*p == '\\' && p[1]) {
            p++;
            continue;
        }
        depth += *p == '[' || *p == '(' ? 1 : *p == ']' || *p == ')' ? -1 : 0;
        if (depth == 1 && *p == '|')
            bar = true;
        if (depth == 1 && *p == ':')
            colon = p;
        if (depth)
            continue;
        bool number = colon && is_number(colon + 1, (size_t)(p - colon - 1));
        return *p == ']' && (bar || number) ? (size_t)(p - s) + 1 : 0;
    }
    return 0;
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

const char *kw_prompt_note(kw_arena *a, const char *prompt)
{
    const char *const open = _(N_("prompt: \"%s\" has no > at its end: taken as words"));
    const char *const words = _(N_("prompt: \"%s\" is taken as words: AND, [a:b:0.5] and [a|b] are not built yet"));
    for (const char *s = prompt; *s; s++) {
        if (*s == '\\' && s[1]) {
            s++;
            continue;
        }
        size_t tag = open_tag_at(s), other = and_at(prompt, s);
        other = other ? other : switch_at(s);
        if (!tag && !other)
            continue;
        const char *text = shown(a, s, tag ? tag : other);
        return text ? kw_sprintf(a, tag ? open : words, text) : NULL;
    }
    return NULL;
}
