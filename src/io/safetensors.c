/*
 * safetensors.c - reading tensor files, strictly.
 *
 *   u64 header size (little-endian) | header: JSON, padded with spaces | data, from 0 to the last tensor's end = EOF
 *
 * Format: huggingface/safetensors README. The header is checked before any of it is believed: no tensor reaches
 * outside the file, no two overlap, no byte is unaccounted for.
 */
#include "internal.h"
#include "torch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t most_header = 100000000, most_copied = 1ull << 30;

int64_t kw_tensor_count(const kw_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++)
        n *= t->shape[i];
    return n;
}

const char *kw_shape_text(const kw_tensor *t, char text[160])
{
    size_t n = 0;
    n += (size_t)snprintf(text, 160, "[");
    for (int i = 0; i < t->rank && n < 140; i++)
        n += (size_t)snprintf(text + n, 160 - n, i ? ", %lld" : "%lld", (long long)t->shape[i]);
    snprintf(text + n, 160 - n, "]");
    return text;
}

/*  what the first bytes say  |  what it is  |  what to do  */
static const struct { const char *head; const char *is, *advice; } lookalikes[] = {
    { "version https://git-lfs", N_("a Git LFS pointer, not the model itself"),
      N_("fetch the real file: run \"git lfs pull\" in its folder, or download it again") },
    { "<!DOCTYPE", N_("a web page"), N_("the download went wrong (a log-in or error page): download the file again") },
    { "<!doctype", N_("a web page"), N_("the download went wrong (a log-in or error page): download the file again") },
    { "<html", N_("a web page"), N_("the download went wrong (a log-in or error page): download the file again") },
    { "<?xml", N_("an XML page"), N_("the download went wrong (a log-in or error page): download the file again") },
    { "GGUF", N_("a GGUF file, which is not supported"), N_("look for the .safetensors file of the same model") },
    { "\x1f\x8b", N_("a compressed file"), N_("unpack it first") },
};

/* A header of 640 bytes begins like a pickle: what has a plausible length and a brace is read, whatever it looks
   like. */
static bool may_be_header(const unsigned char *p, size_t n)
{
    return n > 8 && p[8] == '{' && !(p[4] | p[5] | p[6] | p[7]);
}

static kw_status refuse_lookalike(const char *file, const char *p, size_t n, kw_err *e)
{
    size_t skip = 0;
    if (may_be_header((const unsigned char *)p, n))
        return KW_OK;
    while (skip < n && skip < 64 && (p[skip] == '\n' || p[skip] == '\r' || p[skip] == ' '))
        skip++;
    for (size_t i = 0; i < KW_LEN(lookalikes); i++) {
        size_t m = strlen(lookalikes[i].head);
        if (n - skip >= m && !memcmp(p + skip, lookalikes[i].head, m)) {
            kw_status s = kw_fail(e, KW_EDATA, N_("%s: is %s"), file, kw_translate(lookalikes[i].is));
            return kw_advise(e, s, "%s", kw_translate(lookalikes[i].advice));
        }
    }
    return KW_OK;
}

static kw_status truncated(kw_err *e, kw_status s)
{
    return kw_advise(e, s, N_("the file is damaged or its download was cut off: get it again"));
}

/* The 8 bytes of length, against what is there. */
static kw_status header_size(const char *file, const unsigned char *p, size_t n, uint64_t *size, kw_err *e)
{
    if (!n)
        return truncated(e, kw_fail(e, KW_EDATA, N_("%s: is empty (0 bytes)"), file));
    KW_TRY(refuse_lookalike(file, (const char *)p, n, e));
    if (n < 8)
        return truncated(e, kw_fail(e, KW_EDATA, N_("%s: only %zu bytes, too short for a safetensors file"), file, n));
    *size = 0;
    for (int i = 7; i >= 0; i--)
        *size = *size << 8 | p[i];
    if (*size > most_header && *size > n)
        return kw_fail(e, KW_EDATA, N_("%s: is not a safetensors file (impossible header size %llu)"), file,
                       (unsigned long long)*size);
    if (*size > most_header)
        return kw_fail(e, KW_EDATA, N_("%s: its header has %llu bytes, more than 100 MB"), file,
                       (unsigned long long)*size);
    if (*size > n - 8)
        return truncated(e, kw_fail(e, KW_EDATA, N_("%s: its header claims %llu bytes, the file has %zu"), file,
                                    (unsigned long long)*size, n));
    return KW_OK;
}

/* ---- data offsets: sorted, each tensor begins where the one before ends ---------------------------------- */

typedef struct { uint64_t begin, end; uint32_t i; } span;

static int by_place(const void *x, const void *y)
{
    const span *a = x, *b = y;
    return a->begin != b->begin ? (a->begin < b->begin ? -1 : 1)
         : a->end != b->end ? (a->end < b->end ? -1 : 1) : (a->i > b->i) - (a->i < b->i);
}

static kw_status wrong(const char *file, const char *name, const char *why, const span *s, kw_err *e)
{
    char shown[96];
    return kw_fail(e, KW_EDATA, N_("%s: tensor \"%s\": %s (bytes %llu to %llu)"), file, kw__shown(name, shown),
                   kw_translate(why), (unsigned long long)s->begin, (unsigned long long)s->end);
}

/* Also of an empty tensor the other dimensions must multiply without overflow, in whatever order they are. */
static kw_status check_span(const char *file, kw_tensor *t, const span *s, uint64_t at, uint64_t room, kw_err *e)
{
    uint64_t bytes = kw_dtype_size(t->dtype);
    bool zero = false, fits = true;
    for (int i = 0; i < t->rank; i++) {
        zero |= !t->shape[i];
        fits = fits && kw_mul_size(bytes, (uint64_t)KW_MAX(t->shape[i], 1), &bytes) && bytes <= INT64_MAX;
    }
    if (s->begin > s->end)
        return wrong(file, t->name, N_("its data ends before it begins"), s, e);
    if (s->end > room)
        return truncated(e, wrong(file, t->name, N_("its data reaches beyond the end of the file"), s, e));
    if (!fits)
        return wrong(file, t->name, N_("its shape is impossibly large"), s, e);
    t->bytes = zero ? 0 : bytes;
    if (t->bytes != s->end - s->begin)
        return wrong(file, t->name, N_("its data has not the size of its shape"), s, e);
    if (s->begin != at)
        return wrong(file, t->name, s->begin < at ? N_("its data overlaps another's") : N_("a gap before its data"),
                     s, e);
    return KW_OK;
}

static kw_status place(kw_arena *a, const char *file, kw__header *h, const char *region, uint64_t room,
                       kw_tensors *t, kw_err *e)
{
    span *spans = kw_alloc_array(a, h->n + 1, sizeof *spans);
    t->tensors = kw_alloc_array(a, h->n + 1, sizeof *t->tensors);
    if (!spans || !t->tensors)
        return kw__no_memory(e, file);
    for (size_t i = 0; i < h->n; i++)
        spans[i] = (span){ h->offsets[i][0], h->offsets[i][1], (uint32_t)i };
    qsort(spans, h->n, sizeof *spans, by_place);
    uint64_t at = 0;
    for (size_t i = 0; i < h->n; i++) {
        kw_tensor *to = &t->tensors[t->n++];
        *to = h->tensors[spans[i].i];
        KW_TRY(check_span(file, to, &spans[i], at, room, e));
        to->data = region + at;
        at = spans[i].end;
    }
    if (at != room)
        return kw_fail(e, KW_EDATA, N_("%s: %llu bytes follow the last tensor"), file, (unsigned long long)(room - at));
    return KW_OK;
}

/* Files whose header is not a multiple of 8 bytes put numbers at odd addresses: those tensors are copied. */
static kw_status align(kw_arena *a, const char *file, kw_tensors *t, kw_err *e)
{
    uint64_t need = 0, at = 0;
    for (size_t i = 0; i < t->n; i++)
        if ((uintptr_t)t->tensors[i].data % kw_dtype_size(t->tensors[i].dtype))
            need += (t->tensors[i].bytes + 63) & ~63ull;
    if (!need)
        return KW_OK;
    if (need > most_copied)
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: its data is not aligned"), file),
                         N_("load it and save it again with a current safetensors library"));
    char *copy = kw_block_new((size_t)need);
    if (!copy || kw_defer(a, kw_block_free, copy))
        return kw__no_memory(e, file);
    for (size_t i = 0; i < t->n; i++) {
        kw_tensor *one = &t->tensors[i];
        if (!((uintptr_t)one->data % kw_dtype_size(one->dtype)))
            continue;
        one->data = one->bytes ? memcpy(copy + at, one->data, (size_t)one->bytes) : copy;
        one->mapped = false;
        at += (one->bytes + 63) & ~63ull;
    }
    return KW_OK;
}

/* ---- names ------------------------------------------------------------------------------------------------ */

typedef struct { const char *name; uint32_t i; } entry;

static int by_name(const void *x, const void *y) { return strcmp(((const entry *)x)->name, ((const entry *)y)->name); }

static kw_status refuse_twice(const char *file, const char *name, kw_err *e)
{
    char shown[96];
    return kw_fail(e, KW_EDATA, N_("%s: \"%s\" is given twice"), file, kw__shown(name, shown));
}

/* Sorted, not hashed: no choice of names makes it slow. */
kw_status kw__tensors_index(kw_arena *a, kw_tensors *t, kw_err *e)
{
    size_t most = KW_MAX(t->n, t->n_meta);
    entry *entries = kw_alloc_array(a, most + 1, sizeof *entries);
    t->by_name = kw_alloc_array(a, t->n + 1, sizeof *t->by_name);
    if (!entries || !t->by_name)
        return kw__no_memory(e, t->path);
    for (size_t i = 0; i < t->n_meta; i++)
        entries[i].name = t->meta[i].key;
    qsort(entries, t->n_meta, sizeof *entries, by_name);
    for (size_t i = 1; i < t->n_meta; i++)
        if (!strcmp(entries[i].name, entries[i - 1].name))
            return refuse_twice(t->path, entries[i].name, e);
    for (size_t i = 0; i < t->n; i++)
        entries[i] = (entry){ t->tensors[i].name, (uint32_t)i };
    qsort(entries, t->n, sizeof *entries, by_name);
    for (size_t i = 0; i < t->n; i++) {
        if (i && !strcmp(entries[i].name, entries[i - 1].name))
            return refuse_twice(t->path, entries[i].name, e);
        t->by_name[i] = entries[i].i;
    }
    return KW_OK;
}

const kw_tensor *kw_tensors_find(const kw_tensors *t, const char *name)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const kw_tensor *one = &t->tensors[t->by_name[middle]];
        int order = strcmp(name, one->name);
        if (!order)
            return one;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* ---- opening -------------------------------------------------------------------------------------------------- */

static kw_status parse(kw_arena *a, const char *shown, const void *p, size_t n, bool mapped, bool loose,
                       kw_tensors **out, kw_err *e)
{
    uint64_t size = 0;
    kw__header h = { 0 };
    if (!may_be_header(p, n) && kw__is_torch(p, n))
        return kw__torch_parse(a, shown, p, n, mapped, loose, out, e);
    KW_TRY(header_size(shown, p, n, &size, e));
    kw_tensors *t = kw_alloc(a, sizeof *t);
    if (!t || !(t->path = kw_strdup(a, shown)))
        return kw__no_memory(e, shown);
    KW_TRY(kw__header_parse(a, shown, (const char *)p + 8, (size_t)size, &h, e));
    t->region = (const char *)p + 8 + size;
    t->region_bytes = n - 8 - size;
    t->meta = h.meta;
    t->n_meta = h.n_meta;
    KW_TRY(place(a, shown, &h, t->region, t->region_bytes, t, e));
    for (size_t i = 0; i < t->n; i++)
        t->tensors[i].mapped = mapped;
    KW_TRY(kw__tensors_index(a, t, e));
    if (!loose)
        KW_TRY(align(a, shown, t, e));
    *out = t;
    return KW_OK;
}

kw_status kw_tensors_parse(kw_arena *a, const char *shown, const void *p, size_t n, kw_tensors **out, kw_err *e)
{
    return parse(a, shown, p, n, false, false, out, e);
}

kw_status kw__tensors_open(kw_arena *a, const char *path, bool loose, kw_tensors **out, kw_err *e)
{
    const void *p;
    size_t n;
    struct stat st;
    if (kw_ends_with(path, ".json"))
        return kw__shards_open(a, path, loose, out, e);
    KW_TRY(kw_file_map(a, path, &p, &n, e));
    if (kw_io_now->stat(path, &st))
        return kw__sys_fail(e, KW_EDATA, N_("open"), path);
    KW_TRY(parse(a, path, p, n, true, loose, out, e));
    (*out)->st = st;
    return KW_OK;
}

kw_status kw_tensors_open(kw_arena *a, const char *path, kw_tensors **out, kw_err *e)
{
    return kw__tensors_open(a, path, false, out, e);
}

kw_status kw_tensors_look(kw_arena *a, const char *path, kw_tensors **out, kw_err *e)
{
    return kw__tensors_open(a, path, true, out, e);
}

size_t kw_tensors_n(const kw_tensors *t) { return t->n; }
const kw_tensor *kw_tensors_at(const kw_tensors *t, size_t i) { return &t->tensors[i]; }
const char *kw_tensors_path(const kw_tensors *t) { return t->path; }
const char *kw_tensors_entry(const kw_tensors *t, const char *key)
{
    for (size_t i = 0; i < t->n_entries; i++)
        if (!strcmp(t->entry[i].key, key))
            return t->entry[i].value;
    return NULL;
}

const char *kw_tensors_note(const kw_tensors *t) { return t->note; }
const char *kw_tensors_wrapped(const kw_tensors *t) { return t->wrapped; }
size_t kw_tensors_n_meta(const kw_tensors *t) { return t->n_meta; }

void kw_tensors_meta_at(const kw_tensors *t, size_t i, const char **key, const char **value)
{
    *key = t->meta[i].key;
    *value = t->meta[i].value;
}

const char *kw_tensors_meta(const kw_tensors *t, const char *key)
{
    for (size_t i = 0; i < t->n_meta; i++)
        if (!strcmp(t->meta[i].key, key))
            return t->meta[i].value;
    return NULL;
}

/* In pieces that are let go: a file of some GB does not fill the memory. */
static void hash_region(kw_sha256 *s, const void *p, uint64_t n, bool mapped)
{
    const uint64_t piece = 8 << 20;
    for (uint64_t at = 0; at < n; at += piece) {
        size_t k = (size_t)KW_MIN(piece, n - at);
        kw_sha256_add(s, (const char *)p + at, k);
        if (mapped)
            kw__let_go((const char *)p + at, k);
    }
}

kw_status kw_tensors_hash(const kw_tensors *t, char hex[65], kw_err *e)
{
    kw_sha256 s;
    bool mapped = t->st.st_ino != 0;
    kw_sha256_start(&s);
    if (t->region)
        hash_region(&s, t->region, t->region_bytes, mapped);
    for (size_t i = 0; !t->region && !t->n_shards && i < t->n; i++)        /* a PyTorch checkpoint */
        hash_region(&s, t->tensors[i].data, t->tensors[i].bytes, t->tensors[i].mapped);
    for (size_t i = 0; i < t->n_shards; i++)
        hash_region(&s, t->shards[i]->region, t->shards[i]->region_bytes, true);
    return kw_sha256_end(&s, hex) ? KW_OK : kw__no_memory(e, t->path);
}

bool kw_tensors_unchanged(const kw_tensors *t)
{
    struct stat now;
    for (size_t i = 0; i < t->n_shards; i++)
        if (!kw_tensors_unchanged(t->shards[i]))
            return false;
    return !t->st.st_ino || (!kw_io_now->stat(t->path, &now) && now.st_size == t->st.st_size
                             && now.st_mtim.tv_sec == t->st.st_mtim.tv_sec
                             && now.st_mtim.tv_nsec == t->st.st_mtim.tv_nsec && now.st_ino == t->st.st_ino);
}
