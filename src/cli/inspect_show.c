/* inspect_show.c - a report for people: one line per fact, objects indented, long texts cut. */
#include "inspect.h"

#include <string.h>

enum { LABEL = 16, LONGEST = 300 };

static const struct { const char *key, *label; } labels[] = {
    { "kind", N_("kind") }, { "family", N_("family") }, { "bytes", N_("size") }, { "hashes", N_("hashes") },
    { "parts", N_("parts") },
    { "input", N_("input") }, { "prediction_type", N_("predicts") }, { "prediction_from", N_("known from") },
    { "parameters", N_("parameters") }, { "tensors", N_("tensors") }, { "dtypes", N_("types") },
    { "shape", N_("shape") },
    { "scheduler", N_("noise schedule") }, { "tokenizer", N_("tokenizer") }, { "modules", N_("layers") },
    { "ranks", N_("rank") },
    { "alphas", N_("alpha") }, { "trained_on", N_("trained on") }, { "trigger_words", N_("trigger words") },
    { "read_by", N_("read by") },
    { "metadata", N_("metadata") }, { "notes", N_("notes") }, { "unknown", N_("unknown names") },
    { "format", N_("format") },
    { "pixels", N_("pixels") }, { "prompt", N_("prompt") }, { "negative", N_("negative prompt") },
    { "settings", N_("settings") },
    { "native_size", N_("size of pictures") }, { "reason", N_("reason") }, { "title", N_("title") },
    { "frequent_tags", N_("frequent tags") }, { "names", N_("keys") }, { "methods", N_("method") },
};

static const char *label_of(const char *key)
{
    for (size_t i = 0; i < KW_LEN(labels); i++)
        if (!strcmp(labels[i].key, key))
            return _(labels[i].label);
    return key;
}

/* 859,520,964 */
static void add_grouped(kw_str *s, long long v)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%lld", v);
    for (int i = 0; i < n; i++)
        kw_str_printf(s, "%s%c", i && (n - i) % 3 == 0 ? "," : "", digits[i]);
}

static void add_text(kw_str *s, const char *text, bool translate)
{
    kw_str one = { 0 };
    kw_escape(&one, translate ? _(text) : text);
    size_t n = one.n;
    if (n > LONGEST) {
        n = LONGEST;
        while (n && ((unsigned char)one.s[n] & 0xc0) == 0x80)
            n--;
    }
    kw_str_add_n(s, one.s ? one.s : "", n);
    kw_str_add(s, n < one.n ? " ..." : "");
    kw_str_free(&one);
}

static void add_value(kw_str *s, const char *key, const json_t *v)
{
    static const char *const ours[] = { "kind", "family", "input", "prediction_from", "notes", "names" };
    bool translate = false;
    for (size_t i = 0; i < KW_LEN(ours); i++)
        translate |= !strcmp(key, ours[i]);
    if (json_is_string(v) && *json_string_value(v))
        add_text(s, json_string_value(v), translate);
    else if (json_is_integer(v) && !strcmp(key, "bytes"))
        kw_show_size(s, (double)json_integer_value(v));
    else if (json_is_integer(v))
        add_grouped(s, json_integer_value(v));
    else if (json_is_real(v))
        kw_str_printf(s, "%g", json_real_value(v));
    else if (json_is_boolean(v))
        kw_str_add(s, json_is_true(v) ? _(N_("yes")) : _(N_("no")));
}

/* F16 ×686, F32 ×12 */
static void add_counts(kw_str *s, const json_t *counts)
{
    const char *key, *comma = "";
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)counts, key, v) {
        kw_str_add(s, comma);
        add_text(s, key, false);
        kw_str_add(s, " ×");
        add_value(s, "", v);
        comma = ", ";
    }
}

static bool all_numbers(const json_t *object)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)object, key, v)
        if (!json_is_integer(v))
            return false;
    return true;
}

static void show(kw_str *out, const char *key, const json_t *v, int indent);

static void show_members(kw_str *out, const json_t *object, int indent)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)object, key, v)
        if (strcmp(key, "config") && strcmp(key, "file") && !(json_is_string(v) && !*json_string_value(v)))
            show(out, key, v, indent);
}

static void line(kw_str *out, const char *label, const kw_str *value, int indent)
{
    kw_str shown = { 0 };
    add_text(&shown, label, false);
    kw_str_printf(out, "%*s", indent, "");
    kw_pad(out, shown.s ? shown.s : "", value->n ? LABEL : 0, false);
    kw_str_printf(out, "%s%s\n", value->n ? "  " : "", value->s ? value->s : "");
    kw_str_free(&shown);
}

static void show(kw_str *out, const char *key, const json_t *v, int indent)
{
    kw_str value = { 0 };
    if (json_is_array(v) && strcmp(key, "read_by")) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            kw_str one = { 0 };
            add_value(&one, key, json_array_get(v, i));
            line(out, i ? "" : label_of(key), &one, indent);
            kw_str_free(&one);
        }
        return;
    }
    if (json_is_object(v) && !all_numbers(v)) {
        line(out, label_of(key), &value, indent);
        show_members(out, v, indent + 2);
        return;
    }
    if (json_is_object(v))
        add_counts(&value, v);
    else if (json_is_array(v))
        for (size_t i = 0; i < json_array_size(v); i++)
            kw_str_printf(&value, "%s%s", i ? ", " : "", json_string_value(json_array_get(v, i)));
    else
        add_value(&value, key, v);
    line(out, label_of(key), &value, indent);
    kw_str_free(&value);
}

void kw_inspect_print(const kw_cli *c, const json_t *r)
{
    kw_str out = { 0 };
    kw_str_add(&out, kw_style_text(c->term.out_colour, KW_BOLD));
    add_text(&out, json_string_value(json_object_get(r, "file")), false);
    kw_str_printf(&out, "%s\n", kw_style_text(c->term.out_colour, KW_PLAIN));
    show_members(&out, r, 2);
    fputs(out.s && !out.failed ? out.s : "", stdout);
    kw_str_free(&out);
}
