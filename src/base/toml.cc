/* toml.cc - TOML 1.0 through toml++, as a plain tree for C; the only file in C++. */
#define _Noreturn [[noreturn]]
#include "base.h"

#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#define TOML_ENABLE_WINDOWS_COMPAT 0
#define TOML_ENABLE_UNRELEASED_FEATURES 0
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <new>
#include <vector>

namespace {

constexpr size_t LONGEST = 4u << 20;      /* bytes */
constexpr int DEEPEST = 32;
constexpr int MOST_DOTS = 4096;           /* a.b.c: each is a level that toml++ destroys recursively */

struct reader {
    kw_arena *a;
    const char *file;
    kw_err *e;
};

kw_status no_memory(kw_err *e) { return kw_fail(e, KW_ENOMEM, N_("no memory")); }

/* Dots outside of texts and comments, so that a.a.a.a... cannot exhaust the stack. */
int count_dots(std::string_view s)
{
    int dots = 0;
    for (size_t i = 0; i < s.size(); i++) {
        char c = s[i];
        if (c == '#') {
            i = s.find('\n', i);
        } else if (c == '"' || c == '\'') {
            char three[] = { c, c, c };
            std::string_view quote = s.compare(i, 3, three, 3) ? std::string_view(three, 1) : std::string_view(three, 3);
            for (i += quote.size(); i < s.size() && s.compare(i, quote.size(), quote); i++)
                i += c == '"' && s[i] == '\\';
            i += quote.size() - 1;
        } else {
            dots += c == '.';
        }
        if (i >= s.size())
            break;
    }
    return dots;
}

kw_status text_of(reader &r, std::string_view s, const kw_toml *at, const char **text)
{
    if (s.find('\0') != s.npos)
        return kw_fail(r.e, KW_EUSAGE, N_("%s:%d:%d: a text with a zero byte"), r.file, at->line, at->column);
    *text = kw_strndup(r.a, s.data(), s.size());
    return *text ? KW_OK : no_memory(r.e);
}

kw_status convert(reader &r, const toml::node &n, int depth, kw_toml *out);

kw_status append(reader &r, const toml::node &n, const toml::key *key, int depth, kw_toml **&tail)
{
    kw_toml *child = static_cast<kw_toml *>(kw_alloc(r.a, sizeof *child));
    if (!child)
        return no_memory(r.e);
    const toml::source_position &at = key ? key->source().begin : n.source().begin;
    child->line = static_cast<int>(at.line);
    child->column = static_cast<int>(at.column);
    if (key)
        KW_TRY(text_of(r, key->str(), child, &child->key));
    KW_TRY(convert(r, n, depth + 1, child));
    *tail = child;
    tail = &child->next;
    return KW_OK;
}

/* toml++ sorts tables by key; the file's order makes better errors. */
kw_status convert_table(reader &r, const toml::table &t, int depth, kw_toml *out)
{
    struct item { const toml::key *key; const toml::node *node; };
    std::vector<item> items;
    for (auto &&[key, node] : t)
        items.push_back({ &key, &node });
    std::stable_sort(items.begin(), items.end(), [](const item &x, const item &y) {
        return x.key->source().begin < y.key->source().begin;
    });
    out->type = KW_TOML_TABLE;
    kw_toml **tail = &out->child;
    for (const item &x : items)
        KW_TRY(append(r, *x.node, x.key, depth, tail));
    return KW_OK;
}

kw_status convert(reader &r, const toml::node &n, int depth, kw_toml *out)
{
    if (depth > DEEPEST)
        return kw_fail(r.e, KW_EUSAGE, N_("%s:%d:%d: nested too deeply"), r.file, out->line, out->column);
    if (auto *t = n.as_table())
        return convert_table(r, *t, depth, out);
    if (auto *items = n.as_array()) {
        out->type = KW_TOML_ARRAY;
        kw_toml **tail = &out->child;
        for (auto &&x : *items)
            KW_TRY(append(r, x, nullptr, depth, tail));
        return KW_OK;
    }
    if (auto *s = n.as_string()) {
        out->type = KW_TOML_TEXT;
        return text_of(r, s->get(), out, &out->text);
    }
    if (auto *i = n.as_integer()) {
        out->type = KW_TOML_INT;
        out->i = i->get();
    } else if (auto *f = n.as_floating_point()) {
        char digits[64];                  /* to_chars: the shortest that reads back, whatever the locale */
        auto end = std::to_chars(digits, digits + sizeof digits, f->get()).ptr;
        out->type = KW_TOML_FLOAT;
        out->f = f->get();
        return text_of(r, { digits, static_cast<size_t>(end - digits) }, out, &out->text);
    } else if (auto *b = n.as_boolean()) {
        out->type = KW_TOML_BOOL;
        out->b = b->get();
    } else {
        out->type = KW_TOML_DATE;
    }
    return KW_OK;
}

kw_status parse(reader &r, std::string_view s, kw_toml *root)
{
    if (s.size() > LONGEST)
        return kw_fail(r.e, KW_EUSAGE, N_("%s: larger than 4 MiB, this is no recipe"), r.file);
    if (count_dots(s) > MOST_DOTS)
        return kw_fail(r.e, KW_EUSAGE, N_("%s: more than %d dots outside of texts, this is no recipe"), r.file, MOST_DOTS);
    toml::parse_result result = toml::parse(s);
    if (!result) {
        const toml::parse_error &error = result.error();
        return kw_fail(r.e, KW_EUSAGE, N_("%s:%d:%d: not valid TOML: %.*s"), r.file,
                       static_cast<int>(error.source().begin.line), static_cast<int>(error.source().begin.column),
                       static_cast<int>(KW_MIN(error.description().size(), size_t(300))), error.description().data());
    }
    return convert(r, result.table(), 0, root);
}

}

extern "C" kw_status kw_toml_parse(kw_arena *a, const char *text, size_t n, const char *file, kw_toml **root, kw_err *e)
{
    reader r = { a, file, e };
    *root = static_cast<kw_toml *>(kw_alloc(a, sizeof **root));
    if (!*root)
        return no_memory(e);
    try {
        return parse(r, { text, n }, *root);
    } catch (const std::bad_alloc &) {
        return no_memory(e);
    }
}
