/* source.c - a model under one set of names: the entries of its parts, found by canonical name. */
#include "source_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *const names[] = {
#define X(name, folder) folder,
    KW_PART_MAP(X)
#undef X
};

const char *kw_part_name(kw_part p) { return p < KW_N_PARTS ? names[p] : "all"; }

kw_status kw__text_add(kw_arena *a, kw__texts *t, const char *text, kw_err *e)
{
    KW_TRY(kw_grow(a, &t->texts, &t->capacity, t->n, sizeof *t->texts, e));
    t->texts[t->n++] = text;
    return KW_OK;
}

kw_status kw__note(kw_source *s, kw_err *e, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, kw_translate(fmt), ap);
    va_end(ap);
    char *copy = kw_strdup(s->arena, text);
    return copy ? kw__text_add(s->arena, &s->notes, copy, e) : kw__no_memory(e, s->path);
}

/* ---- one tensor of the file becomes one of ours ------------------------------------------------------------- */

static kw_status odd_shape(const kw_source *s, kw_part p, const kw_tensor *raw, kw_err *e)
{
    char shown[96], shape[160];
    return kw_fail(e, KW_EDATA, N_("%s: tensor \"%s\" has the shape %s, which does not fit its name"),
                   s->parts[p].shown, kw__shown(raw->name, shown), kw_shape_text(raw, shape));
}

static kw_status third(kw_tensor *t, int which)
{
    if (!t->rank || t->shape[0] % 3)
        return KW_EDATA;
    t->shape[0] /= 3;
    t->bytes /= 3;
    t->data = (const char *)t->data + (uint64_t)which * t->bytes;
    return KW_OK;
}

void kw__transpose(char *out, const char *in, size_t rows, size_t columns, size_t size)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            memcpy(out + (j * rows + i) * size, in + (i * columns + j) * size, size);
}

static kw_status transpose(kw_arena *a, kw_tensor *t)
{
    if (t->rank != 2)
        return KW_EDATA;
    size_t rows = (size_t)t->shape[0], columns = (size_t)t->shape[1], size = kw_dtype_size(t->dtype);
    char *copy = kw_block_new((size_t)t->bytes + 1);
    if (!copy || kw_defer(a, kw_block_free, copy))
        return KW_ENOMEM;
    kw__transpose(copy, t->data, rows, columns, size);
    t->data = copy;
    t->mapped = false;
    t->shape[0] = (int64_t)columns;
    t->shape[1] = (int64_t)rows;
    return KW_OK;
}

static kw_status reshape(kw_arena *a, kw_tensor *t, kw__how how)
{
    switch (how) {
    case KW__LINEAR:
        while (t->rank > 2 && t->shape[t->rank - 1] == 1)
            t->rank--;
        return t->rank == 2 ? KW_OK : KW_EDATA;
    case KW__THIRD_Q: return third(t, 0);
    case KW__THIRD_K: return third(t, 1);
    case KW__THIRD_V: return third(t, 2);
    case KW__TRANSPOSED: return transpose(a, t);
    default: return KW_OK;
    }
}

static kw_status add(kw_source *s, kw_part p, const char *canonical, kw__how how, const kw_tensor *raw, kw_err *e)
{
    kw__part *part = &s->parts[p];
    KW_TRY(kw_grow(s->arena, &part->entries, &part->capacity, part->n, sizeof *part->entries, e));
    kw__entry *one = &part->entries[part->n];
    *one = (kw__entry){ .t = *raw, .raw = raw, .how = how };
    kw_status done = reshape(s->arena, &one->t, how);
    if (done == KW_EDATA)
        return odd_shape(s, p, raw, e);
    if (done || !(one->t.name = kw_strdup(s->arena, canonical)))
        return kw__no_memory(e, part->shown);
    KW_TRY(kw__entry_prepare(s, part, one, part->from, e));
    part->n++;
    return KW_OK;
}

/* A tensor may become several (q, k, v in one), so all rules of the kind are tried. */
static kw_status translate(kw_source *s, kw_part p, int k, const kw_key_shape *shape, const char *name,
                           const kw_tensor *raw, kw_err *e)
{
    char canonical[KW_KEY_ROOM];
    kw__how how = KW__SAME;
    bool known = false;
    for (size_t i = 0; k != KW__CANONICAL && i < kw__rule_tables[k].n; i++) {
        if (!kw__rule_from_ldm(&kw__rule_tables[k].rules[i], shape, name, canonical, &how))
            continue;
        known = true;
        if (how == KW__DROP)
            return KW_OK;
        KW_TRY(add(s, p, canonical, how, raw, e));
        if (how != KW__THIRD_Q && how != KW__THIRD_K)
            return KW_OK;
    }
    if (known)
        return KW_OK;
    return k == KW__CANONICAL || k == KW_KEYS_OLD_VAE ? add(s, p, name, KW__SAME, raw, e)
                                                      : kw__text_add(s->arena, &s->unknown, raw->name, e);
}

kw_status kw__part_take(kw_source *s, kw_part p, int k, const kw_key_shape *shape, const char *prefix,
                        const kw_tensors *t, kw_err *e)
{
    s->parts[p].shown = kw_tensors_path(t);
    s->parts[p].file = s->parts[p].from = t;
    s->parts[p].prefix = prefix;
    s->parts[p].keys = k;
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const kw_tensor *raw = kw_tensors_at(t, i);
        if (kw_starts_with(raw->name, prefix) && !kw__is_scale(t, raw->name))
            KW_TRY(translate(s, p, k, shape, raw->name + strlen(prefix), raw, e));
    }
    return KW_OK;
}

static int by_name(const void *x, const void *y)
{
    return strcmp(((const kw__entry *)x)->t.name, ((const kw__entry *)y)->t.name);
}

kw_status kw__part_finish(kw_source *s, kw_part p, kw_err *e)
{
    kw__part *part = &s->parts[p];
    char shown[96];
    if (part->n)
        qsort(part->entries, part->n, sizeof *part->entries, by_name);
    for (size_t i = 1; i < part->n; i++)
        if (!strcmp(part->entries[i].t.name, part->entries[i - 1].t.name))
            return kw_fail(e, KW_EDATA, N_("%s: two tensors are the same parameter \"%s\""), part->shown,
                           kw__shown(part->entries[i].t.name, shown));
    if (part->n && !part->config)
        KW_TRY(kw__infer_config(s, p, e));
    return KW_OK;
}

kw__entry *kw__part_entry(const kw_source *s, kw_part p, const char *name)
{
    kw__entry key = { .t.name = name };
    const kw__part *part = &s->parts[p];
    return part->n ? bsearch(&key, part->entries, part->n, sizeof key, by_name) : NULL;
}

const kw_tensor *kw__part_find(const kw_source *s, kw_part p, const char *name)
{
    kw__entry *one = kw__part_entry(s, p, name);
    return one ? &one->t : NULL;
}

const kw_tensor *kw_source_find(kw_source *s, kw_part p, const char *name)
{
    kw__entry *one = kw__part_entry(s, p, name);
    if (!one)
        return NULL;
    one->used = true;
    kw__entry_fill(one);
    return &one->t;
}

const char *kw_source_file_name(const kw_source *s, kw_part p, const char *name)
{
    kw__entry *one = kw__part_entry(s, p, name);
    return one ? one->raw->name : NULL;
}

const char *kw_source_unused(const kw_source *s, kw_part p, size_t *i)
{
    const kw__part *part = &s->parts[p];
    while (*i < part->n)
        if (!part->entries[(*i)++].used)
            return part->entries[*i - 1].t.name;
    return NULL;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

static kw_status none_found(const kw_source *s, kw_err *e)
{
    kw_status status = kw_fail(e, KW_EDATA, N_("%s: no Stable Diffusion model found"), s->path);
    return kw_advise(e, status, N_("expected a diffusers folder (unet/, vae/, text_encoder/), the folder of one part "
                                   "with its config.json, or a checkpoint (.safetensors, .ckpt)"));
}

static kw_status open_source(kw_arena *a, const char *path, bool averages, kw_source **out, kw_err *e)
{
    kw_source *s = kw_alloc(a, sizeof *s);
    if (!s || !(s->path = kw_strdup(a, path)))
        return kw__no_memory(e, path);
    s->arena = a;
    s->averages = averages;
    KW_TRY(kw_is_dir(path) ? kw__open_folder(s, e) : kw__open_single(s, path, e));
    size_t total = 0;
    for (int p = 0; p < KW_N_PARTS; p++) {
        KW_TRY(kw__part_finish(s, (kw_part)p, e));
        total += s->parts[p].n;
    }
    if (!total)
        return none_found(s, e);
    KW_TRY(kw__refuse_relatives(s, e));
    if (kw__n_scaled(s))
        KW_TRY(kw__note(s, e, N_("%zu matrices of 8 bits have scales (as ComfyUI writes them): their products are "
                                 "used, as bf16"), kw__n_scaled(s)));
    KW_TRY(kw__read_noise(s, e));
    *out = s;
    return KW_OK;
}

kw_status kw_source_open(kw_arena *a, const char *path, kw_source **out, kw_err *e)
{
    return open_source(a, path, false, out, e);
}

kw_status kw_source_open_averages(kw_arena *a, const char *path, kw_source **out, kw_err *e)
{
    if (kw_is_dir(path))
        return kw_fail(e, KW_EDATA, N_("%s: holds no averaged weights (model_ema)"), path);
    return open_source(a, path, true, out, e);
}

/* ---- what it is -------------------------------------------------------------------------------------------------- */

const char *kw_source_path(const kw_source *s) { return s->path; }
bool kw_source_is_single(const kw_source *s) { return s->is_single; }
bool kw_source_is_wrapped(const kw_source *s) { return s->wrapped; }
bool kw_source_has(const kw_source *s, kw_part p) { return s->parts[p].n > 0; }
const char *kw_source_tokenizer(const kw_source *s, kw_part p) { return s->parts[p].tokenizer; }
const kw_noise_config *kw_source_noise(const kw_source *s) { return &s->noise; }

bool kw_source_says(const kw_source *s, const char *name, bool otherwise)
{
    const json_t *said = json_object_get(s->switches, name);
    return json_is_boolean(said) ? json_is_true(said) : otherwise;
}
json_t *kw_source_config(const kw_source *s, kw_part p) { return s->parts[p].config; }
bool kw_source_is_inferred(const kw_source *s, kw_part p) { return s->parts[p].inferred; }
size_t kw_source_n(const kw_source *s, kw_part p) { return s->parts[p].n; }
const kw_tensor *kw_source_at(const kw_source *s, kw_part p, size_t i) { return &s->parts[p].entries[i].t; }
const kw_tensor *kw_source_raw(const kw_source *s, kw_part p, size_t i) { return s->parts[p].entries[i].raw; }
const kw_tensors *kw_source_file(const kw_source *s, kw_part p) { return s->parts[p].n ? s->parts[p].file : NULL; }
size_t kw_source_n_unknown(const kw_source *s) { return s->unknown.n; }
const char *kw_source_unknown(const kw_source *s, size_t i) { return s->unknown.texts[i]; }
size_t kw_source_n_notes(const kw_source *s) { return s->notes.n; }
const char *kw_source_note(const kw_source *s, size_t i) { return s->notes.texts[i]; }

/*  SHA-256 over, for each tensor by name:  name 0 dtype 0 shape 0 data  */
static bool hash_part(kw__part *part, char hex[65])
{
    kw_sha256 h;
    char shape[160];
    kw_sha256_start(&h);
    for (size_t i = 0; i < part->n; i++) {
        kw__entry *one = &part->entries[i];
        const kw_tensor *t = &one->t;
        bool filled = one->filled;
        const char *dtype = kw_dtype_name(t->dtype), *extent = kw_shape_text(t, shape);
        kw_sha256_add(&h, t->name, strlen(t->name) + 1);
        kw_sha256_add(&h, dtype, strlen(dtype) + 1);
        kw_sha256_add(&h, extent, strlen(extent) + 1);
        kw__entry_fill(one);
        kw_sha256_add(&h, t->data, (size_t)t->bytes);
        if (!filled)
            kw__entry_empty(one);
        if (one->raw->mapped)
            kw__let_go(one->raw->data, (size_t)one->raw->bytes);
    }
    return kw_sha256_end(&h, hex);
}

/* One line for each file: device, inode, size, times. */
static bool stamp_file(const kw_tensors *t, const struct timespec *now, kw_sha256 *h)
{
    enum { SETTLED = 2 };                 /* seconds; the clocks of file systems move in steps of up to that */
    char line[192];
    for (size_t i = 0; i < t->n_shards; i++)
        if (!stamp_file(t->shards[i], now, h))
            return false;
    if (t->n_shards)
        return true;
    if (!t->st.st_ino || now->tv_sec < t->st.st_mtim.tv_sec + SETTLED || now->tv_sec < t->st.st_ctim.tv_sec + SETTLED)
        return false;
    int n = snprintf(line, sizeof line, "%llu %llu %lld %lld.%09ld %lld.%09ld\n", (unsigned long long)t->st.st_dev,
                     (unsigned long long)t->st.st_ino, (long long)t->st.st_size, (long long)t->st.st_mtim.tv_sec,
                     t->st.st_mtim.tv_nsec, (long long)t->st.st_ctim.tv_sec, t->st.st_ctim.tv_nsec);
    kw_sha256_add(h, line, (size_t)n);
    return true;
}

bool kw_source_stamp(const kw_source *s, kw_part p, char key[65])
{
    kw_sha256 h;
    struct timespec now;
    char head[96];
    if (!kw_source_file(s, p) || clock_gettime(CLOCK_REALTIME, &now))
        return false;
    kw_sha256_start(&h);
    int n = snprintf(head, sizeof head, "hash of the %s, kiwame %s\n", kw_part_name(p), KW_VERSION);
    kw_sha256_add(&h, head, (size_t)n);
    bool good = stamp_file(kw_source_file(s, p), &now, &h) && kw_tensors_unchanged(kw_source_file(s, p));
    return kw_sha256_end(&h, key) && good;
}

void kw_source_know_hash(kw_source *s, kw_part p, const char hex[65]) { memcpy(s->parts[p].hash, hex, 65); }

kw_status kw_source_hash(kw_source *s, kw_part p, char hex[65], kw_err *e)
{
    if (p != KW_N_PARTS) {
        if (!*s->parts[p].hash && !hash_part(&s->parts[p], s->parts[p].hash))
            return kw__no_memory(e, s->path);
        memcpy(hex, s->parts[p].hash, 65);
        return KW_OK;
    }
    kw_sha256 h;
    kw_sha256_start(&h);
    for (int i = 0; i < KW_N_PARTS; i++) {
        char one[65];
        kw_status status = kw_source_hash(s, (kw_part)i, one, e);
        if (status) {
            kw_sha256_end(&h, hex);
            return status;
        }
        kw_sha256_add(&h, one, 64);
    }
    return kw_sha256_end(&h, hex) ? KW_OK : kw__no_memory(e, s->path);
}
