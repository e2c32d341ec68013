/*
 * infotext.c - the text that A1111 keeps in a picture, written and read.
 *
 *   prompt
 *   Negative prompt: ...
 *   Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7, Seed: 1, Size: 512x512, ..., Hashes: {...}
 *
 * A value is quoted as a JSON text if it holds a comma, a colon or a line break (modules/infotext_utils.py).
 */
#include "pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* As Python's json.dumps(ensure_ascii=False). */
static void add_json(kw_str *out, const char *s)
{
    static const char *const named[128] = { ['"'] = "\\\"", ['\\'] = "\\\\", ['\n'] = "\\n", ['\r'] = "\\r",
                                            ['\t'] = "\\t",
                                            ['\b'] = "\\b", ['\f'] = "\\f" };
    kw_str_add(out, "\"");
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c < 128 && named[c])
            kw_str_add(out, named[c]);
        else if (c < 0x20)
            kw_str_printf(out, "\\u%04x", c);
        else
            kw_str_add_n(out, s, 1);
    }
    kw_str_add(out, "\"");
}

static void add_field(kw_str *out, const char *key, const char *value)
{
    kw_str_printf(out, "%s%s: ", out->n && out->s[out->n - 1] != '\n' ? ", " : "", key);
    if (strpbrk(value, ",:\n"))
        add_json(out, value);
    else
        kw_str_add(out, value);
}

/* The shortest decimal that reads back: 7, 7.5, 0.1. */
static const char *number(double v, char text[32])
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    return text;
}

static const char *head(const char *hash, size_t n, char text[72])
{
    snprintf(text, 72, "%.*s", (int)n, hash);
    return text;
}

static void add_model(kw_str *out, const kw_infotext *t)
{
    char text[72];
    if (t->model_hash)
        add_field(out, "Model hash", head(t->model_hash, 10, text));
    if (t->model)
        add_field(out, "Model", t->model);
    if (t->vae_hash)
        add_field(out, "VAE hash", head(t->vae_hash, 10, text));
    if (t->vae)
        add_field(out, "VAE", t->vae);
}

/* Lora hashes: "fox: 0123456789ab, hat: ..." */
static void add_list(kw_str *out, const char *key, const kw_infotext_lora *one, size_t n)
{
    kw_str list = { 0 };
    for (size_t i = 0; i < n; i++)
        if (one[i].hash)
            kw_str_printf(&list, "%s%s: %.12s", list.n ? ", " : "", one[i].name, one[i].hash);
    if (list.n)
        add_field(out, key, list.s);
    kw_str_free(&list);
}

static void add_hash(kw_str *out, const char *kind, const char *name, const char *hash)
{
    kw_str key = { 0 };
    kw_str_printf(&key, "%s%s", kind, name);
    kw_str_add(out, out->s[out->n - 1] == '{' ? "" : ", ");
    add_json(out, key.s ? key.s : "");
    kw_str_printf(out, ": \"%.10s\"", hash);
    kw_str_free(&key);
}

static size_t known(const kw_infotext_lora *one, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += one[i].hash != NULL;
    return sum;
}

static void add_each(kw_str *out, const char *kind, const kw_infotext_lora *one, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (one[i].hash)
            add_hash(out, kind, one[i].name, one[i].hash);
}

static void add_hashes(kw_str *out, const kw_infotext *t)
{
    if (!t->model_hash && !t->vae_hash && !known(t->lora, t->n_lora) && !known(t->inversion, t->n_inversion)
        && !known(t->hypernet, t->n_hypernet))
        return;
    kw_str_add(out, ", Hashes: {");
    if (t->vae_hash)
        add_hash(out, "vae", "", t->vae_hash);
    add_each(out, "lora:", t->lora, t->n_lora);
    add_each(out, "embed:", t->inversion, t->n_inversion);
    add_each(out, "hypernet:", t->hypernet, t->n_hypernet);
    if (t->model_hash)
        add_hash(out, "model", "", t->model_hash);
    kw_str_add(out, "}");
}

void kw_infotext_write(const kw_infotext *t, kw_str *out)
{
    char text[72];
    kw_str_add(out, t->prompt);
    if (t->negative && *t->negative)
        kw_str_printf(out, "%sNegative prompt: %s", out->n ? "\n" : "", t->negative);
    kw_str_printf(out, "%sSteps: %d", out->n ? "\n" : "", t->steps);
    add_field(out, "Sampler", t->sampler);
    if (t->schedule)
        add_field(out, "Schedule type", t->schedule);
    add_field(out, "CFG scale", number(t->cfg, text));
    kw_str_printf(out, ", Seed: %llu, Size: %dx%d", (unsigned long long)t->seed, t->width, t->height);
    add_model(out, t);
    if (t->clip_skip > 1)
        kw_str_printf(out, ", Clip skip: %d", t->clip_skip);
    if (t->rng)
        add_field(out, "RNG", t->rng);
    for (size_t i = 0; i < t->n_extra; i++)
        add_field(out, t->extra[i].key, t->extra[i].value);
    add_list(out, "Lora hashes", t->lora, t->n_lora);
    add_list(out, "TI hashes", t->inversion, t->n_inversion);
    if (t->version)
        add_field(out, "Version", t->version);
    add_hashes(out, t);
}

/* ---- reading: \s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$) ----------------------------------------------- */

static bool is_word(unsigned char c)
{
    return c >= 0x80 || c == '_' || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool in_key(unsigned char c) { return is_word(c) || c == ' ' || c == '-' || c == '/'; }
static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

typedef struct { const char *key; size_t n_key; const char *value; size_t n_value; } found;

/* A quoted value that a comma or the end follows; 0: it is none. */
static size_t quoted(const char *s)
{
    size_t i = 1;
    if (*s != '"')
        return 0;
    while (s[i] && s[i] != '"')
        i += s[i] == '\\' && s[i + 1] ? 2 : 1;
    return s[i] && i > 1 && (s[i + 1] == ',' || !s[i + 1]) ? i + 1 : 0;
}

/* The JSON object of Hashes, which the regular expression would cut at its first comma. */
static size_t object(const char *s)
{
    int depth = 0;
    bool text = false;
    for (size_t i = 0; *s == '{' && s[i]; i++) {
        if (s[i] == '\\' && text && s[i + 1])
            i++;
        else if (s[i] == '"')
            text = !text;
        else if (!text)
            depth += s[i] == '{' ? 1 : s[i] == '}' ? -1 : 0;
        if (!depth)
            return i + 1;
    }
    return 0;
}

/* One match at s, or NULL; returns where the next search starts. */
static const char *match(const char *s, found *f)
{
    while (is_blank(*s))
        s++;
    f->key = s;
    if (!is_word((unsigned char)*s))
        return NULL;
    while (in_key((unsigned char)*s))
        s++;
    f->n_key = (size_t)(s - f->key);
    if (f->n_key < 2 || *s != ':')
        return NULL;
    for (s++; is_blank(*s); s++)
        ;
    f->value = s;
    f->n_value = quoted(s);
    if (!f->n_value)
        f->n_value = object(s);
    if (!f->n_value)
        f->n_value = strcspn(s, ",");
    s += f->n_value;
    return *s == ',' ? s + 1 : s;
}

static const char *next_match(const char *s, found *f)
{
    for (; *s; s++) {
        const char *after = match(s, f);
        if (after)
            return after;
    }
    return NULL;
}

static size_t count_matches(const char *line)
{
    size_t n = 0;
    found f;
    for (const char *s = line; (s = next_match(s, &f)); n++)
        ;
    return n;
}

static const char *unquoted(kw_arena *a, const found *f)
{
    char *copy = kw_strndup(a, f->value, f->n_value);
    if (!copy || *copy != '"' || f->n_value < 2)
        return copy;
    json_t *j = json_loads(copy, JSON_DECODE_ANY, NULL);
    char *text = json_is_string(j) ? kw_strdup(a, json_string_value(j)) : copy;
    json_decref(j);
    return text;
}

static kw_status read_fields(kw_arena *a, const char *line, kw_infotext_read *out, kw_err *e)
{
    size_t capacity = 0;
    found f;
    for (const char *s = line; (s = next_match(s, &f));) {
        KW_TRY(kw_grow(a, &out->field, &capacity, out->n, sizeof *out->field, e));
        kw_meta *m = &out->field[out->n++];
        m->key = kw_strndup(a, f.key, f.n_key);
        m->value = unquoted(a, &f);
        if (!m->key || !m->value)
            return kw_fail(e, KW_ENOMEM, "out of memory");
    }
    return KW_OK;
}

/* Text without blanks at its ends, on the arena. */
static char *stripped(kw_arena *a, const char *s, size_t n)
{
    for (; n && is_blank(*s); s++)
        n--;
    while (n && is_blank(s[n - 1]))
        n--;
    return kw_strndup(a, s, n);
}

kw_status kw_infotext_parse(kw_arena *a, const char *text, kw_infotext_read *out, kw_err *e)
{
    static const char mark[] = "Negative prompt:";
    kw_str part[2] = { { 0 }, { 0 } };
    bool negative = false, failed = false;
    char *all = stripped(a, text, strlen(text));
    *out = (kw_infotext_read){ .prompt = "", .negative = "" };
    if (!all)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    char *last = strrchr(all, '\n') ? strrchr(all, '\n') + 1 : all;
    if (count_matches(last) >= 3) {
        KW_TRY(read_fields(a, last, out, e));
        *last = 0;
    }
    for (char *line = all, *end; *line; line = *end ? end + 1 : end) {
        end = line + strcspn(line, "\n");
        char *s = stripped(a, line, (size_t)(end - line));
        failed |= !s;
        bool starts = s && kw_starts_with(s, mark);
        negative |= starts;
        kw_str *to = &part[negative];
        kw_str_add(to, to->n ? "\n" : "");
        char *rest = starts ? stripped(a, s + strlen(mark), strlen(s) - strlen(mark)) : s;
        kw_str_add(to, rest ? rest : "");
    }
    out->prompt = part[0].s ? kw_strdup(a, part[0].s) : "";
    out->negative = part[1].s ? kw_strdup(a, part[1].s) : "";
    failed |= !out->prompt || !out->negative || part[0].failed || part[1].failed;
    kw_str_free(&part[0]);
    kw_str_free(&part[1]);
    return failed ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

const char *kw_infotext_get(const kw_infotext_read *t, const char *key)
{
    for (size_t i = 0; i < t->n; i++)
        if (!strcmp(t->field[i].key, key))
            return t->field[i].value;
    return NULL;
}
