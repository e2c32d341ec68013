/* term.c - what the terminal can do, and texts measured in its columns. */
#include "cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

/* ---- rules of colour: https://no-color.org, https://force-color.org -------------------------------------- */

static bool is_set(const char *variable)
{
    const char *v = getenv(variable);
    return v && *v;
}

static bool wants_colour(bool tty, int colour)
{
    const char *terminal = getenv("TERM");
    if (colour >= 0)
        return colour;
    if (is_set("NO_COLOR"))
        return false;
    if (is_set("FORCE_COLOR"))
        return strcmp(getenv("FORCE_COLOR"), "0") != 0;
    return tty && terminal && strcmp(terminal, "dumb");
}

void kw_term_init(kw_term *t, int colour)
{
    struct winsize w = { 0 };
    t->out_tty = isatty(STDOUT_FILENO);
    t->err_tty = isatty(STDERR_FILENO);
    t->out_colour = wants_colour(t->out_tty, colour);
    t->err_colour = wants_colour(t->err_tty, colour);
    const char *columns = getenv("COLUMNS");
    int width = columns ? atoi(columns) : 0;
    if (width <= 0 && (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || !ioctl(STDERR_FILENO, TIOCGWINSZ, &w)))
        width = w.ws_col;
    t->width = width <= 0 ? 80 : KW_MIN(KW_MAX(width, 40), 100);
}

const char *kw_style_text(bool colour, kw_style s)
{
    static const char *const text[] = { "\033[0m", "\033[1m", "\033[2m", "\033[32m", "\033[33m", "\033[31m" };
    return colour ? text[s] : "";
}

/* ---- columns -------------------------------------------------------------------------------------------------- */

/* The next character: its bytes, code point (-1: broken) and columns. */
typedef struct { int bytes, columns; int32_t code; } glyph;

static glyph next_glyph(const char *s)
{
    if (s[0] == '\033' && s[1] == '[') {  /* an escape sequence of ours */
        int n = 2 + (int)strcspn(s + 2, "m");
        return (glyph){ n + (s[n] == 'm'), 0, 0 };
    }
    utf8proc_int32_t code;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s, -1, &code);
    if (n <= 0)
        return (glyph){ 1, 1, -1 };
    return (glyph){ (int)n, utf8proc_charwidth(code), code };
}

int kw_width(const char *text)
{
    int width = 0;
    for (glyph g; *text; text += g.bytes) {
        g = next_glyph(text);
        width += g.columns;
    }
    return width;
}

void kw_pad(kw_str *out, const char *text, int width, bool right)
{
    int gap = KW_MAX(width - kw_width(text), 0);
    if (right)
        kw_str_printf(out, "%*s%s", gap, "", text);
    else
        kw_str_printf(out, "%s%*s", text, gap, "");
}

/* May a line begin with it? Not with what belongs to the word before (the rule of 禁則処理). */
static bool may_begin(int32_t code)
{
    static const char *const never = "、。，．・：；？！」』）］｝〕〉》】ーぁぃぅぇぉっゃゅょァィゥェォッャュョ%)]},.:;!?";
    char one[8] = { 0 };
    return code < 0 || !utf8proc_encode_char(code, (utf8proc_uint8_t *)one) || !strstr(never, one);
}

static bool may_end(int32_t code)
{
    static const char *const never = "「『（［｛〔〈《【([{";
    char one[8] = { 0 };
    return code < 0 || !utf8proc_encode_char(code, (utf8proc_uint8_t *)one) || !strstr(never, one);
}

/* The longest piece that may not be broken: a word, or one wide character with its punctuation. */
static int piece(const char *s, int *columns)
{
    glyph g = next_glyph(s), last = g;
    int n = g.bytes;
    *columns = g.columns;
    for (; s[n] && s[n] != ' ' && s[n] != '\n'; n += g.bytes, last = g) {
        g = next_glyph(s + n);
        bool wide = last.columns > 1 || g.columns > 1;
        if (wide && may_begin(g.code) && may_end(last.code))
            break;
        *columns += g.columns;
    }
    return n;
}

void kw_wrap(kw_str *out, const char *text, int column, int indent, int width)
{
    int gap = 0;
    while (*text) {
        if (*text == ' ') {
            gap++, text++;
            continue;
        }
        if (*text == '\n') {
            kw_str_printf(out, "\n%*s", indent, "");
            column = indent, gap = 0, text++;
            continue;
        }
        int columns, n = piece(text, &columns);
        if (column + gap + columns > width && column > indent) {
            kw_str_printf(out, "\n%*s", indent, "");
            column = indent, gap = 0;
        }
        kw_str_printf(out, "%*s%.*s", gap, "", n, text);
        column += gap + columns;
        gap = 0;
        text += n;
    }
}

void kw_escape(kw_str *out, const char *text)
{
    while (*text) {
        utf8proc_int32_t code;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, -1, &code);
        if (n <= 0) {
            kw_str_printf(out, "\\x%02x", (unsigned char)*text);
            n = 1;
        } else if (code == '\n') {
            kw_str_add(out, "\n");
        } else if (utf8proc_category(code) == UTF8PROC_CATEGORY_CC || (code >= 0x202a && code <= 0x202e)
                   || (code >= 0x2066 && code <= 0x2069)) {
            kw_str_printf(out, code < 0x80 ? "\\x%02x" : "\\u%04x", (unsigned)code);     /* also right-to-left tricks */
        } else {
            kw_str_add_n(out, text, (size_t)n);
        }
        text += n;
    }
}
