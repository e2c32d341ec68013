/*
 * source_fill.c - numbers that cannot be used where they lie in the file: at odd bytes, or as bytes with a scale.
 *
 *   X.weight (f8) with X.scale_weight | X.weight_scale: one number, or one for each row     w = weight · scale   → bf16
 *
 * Room is reserved when the source is opened and filled when a tensor is first asked for, so that whoever only looks,
 * or takes one tensor after the other, needs little memory. Source of the scaled form: ComfyUI's comfy/ops.py (fp8).
 */
#include "source_internal.h"

#include <string.h>
#include <sys/mman.h>

/* "a.b.weight" and ".scale_weight" → "a.b.scale_weight" */
static const kw_tensor *beside(const kw_tensors *t, const char *weight, const char *end)
{
    char name[KW_KEY_ROOM];
    size_t n = strlen(weight) - strlen(".weight");
    if (!kw_ends_with(weight, ".weight") || n + strlen(end) + 1 > sizeof name)
        return NULL;
    memcpy(name, weight, n);
    strcpy(name + n, end);
    return kw_tensors_find(t, name);
}

static bool is_f8(const kw_tensor *t) { return t->dtype == KW_F8_E4M3 || t->dtype == KW_F8_E5M2; }

bool kw__is_scale(const kw_tensors *t, const char *name)
{
    static const char *const ends[] = { ".scale_weight", ".weight_scale", ".scale_input", ".input_scale",
                                        ".comfy_quant" };
    char weight[KW_KEY_ROOM];
    if (kw_ends_with(name, "scaled_fp8"))
        return true;
    for (size_t i = 0; i < KW_LEN(ends); i++) {
        size_t n = strlen(name);
        if (!kw_ends_with(name, ends[i]) || n > KW_MAX_TENSOR_NAME)
            continue;
        snprintf(weight, sizeof weight, "%.*s.weight", (int)(n - strlen(ends[i])), name);
        return kw_tensors_find(t, weight) != NULL;
    }
    return false;
}

/* Does it hold one number, or one for each row of the file's tensor? */
static kw_status check_scale(const char *shown, const kw_tensor *raw, const kw_tensor *scale, kw__how how, kw_err *e)
{
    char text[96];
    int64_t n = kw_tensor_count(scale);
    bool rows = raw->rank && n == raw->shape[0] && how != KW__TRANSPOSED;
    bool good = (n == 1 || rows) && (scale->dtype == KW_F32 || scale->dtype == KW_F16 || scale->dtype == KW_BF16);
    return good ? KW_OK : kw_fail(e, KW_EDATA, N_("%s: tensor \"%s\": its scale does not fit it"), shown,
                                  kw__shown(raw->name, text));
}

static const uint64_t nothing;            /* where an empty tensor's numbers are */

kw_status kw__entry_prepare(kw_source *s, kw__part *part, kw__entry *one, const kw_tensors *t, kw_err *e)
{
    char text[96];
    const kw_tensor *raw = one->raw;
    if (beside(t, raw->name, ".comfy_quant") && !is_f8(raw))
        return kw_fail(e, KW_EDATA, N_("%s: tensor \"%s\": quantised in a way that is not supported"), part->shown,
                       kw__shown(raw->name, text));
    if (is_f8(raw)) {
        one->scale = beside(t, raw->name, ".scale_weight");
        one->scale = one->scale ? one->scale : beside(t, raw->name, ".weight_scale");
    }
    if (one->scale) {
        KW_TRY(check_scale(part->shown, raw, one->scale, one->how, e));
        one->t.dtype = KW_BF16;
        one->t.bytes = 2 * (uint64_t)kw_tensor_count(&one->t);
    } else if (!((uintptr_t)one->t.data % kw_dtype_size(one->t.dtype)))
        return KW_OK;
    one->from = one->t.data;
    one->t.mapped = false;
    if (!one->t.bytes) {
        one->from = NULL;
        one->t.data = &nothing;
        return KW_OK;
    }
    one->t.data = one->room = kw_block_new((size_t)one->t.bytes);
    return one->room && !kw_defer(s->arena, kw_block_free, one->room) ? KW_OK : kw__no_memory(e, part->shown);
}

/* w = weight · scale, row by row of the file's tensor; v is the third of q, k, v that starts at row v · n. */
static void widen(kw__entry *one)
{
    enum { PIECE = 1024 };
    const kw_tensor *t = &one->t, *scale = one->scale;
    size_t n = (size_t)kw_tensor_count(t), row = t->rank ? n / (size_t)t->shape[0] : 1;
    size_t first = one->how == KW__THIRD_K ? (size_t)t->shape[0]
                 : one->how == KW__THIRD_V ? 2 * (size_t)t->shape[0] : 0;
    bool rows = kw_tensor_count(scale) > 1;
    float v[PIECE], by = 1;
    char number[8];
    for (size_t r = 0; r < n / row; r++) {
        size_t size = kw_dtype_size(scale->dtype);
        memcpy(number, (const char *)scale->data + (rows ? first + r : 0) * size, size);
        kw_convert(KW_F32, &by, scale->dtype, number, 1);
        for (size_t at = 0; at < row; at += PIECE) {
            size_t k = KW_MIN(row - at, (size_t)PIECE);
            kw_convert(KW_F32, v, one->raw->dtype, (const char *)one->from + r * row + at, k);
            for (size_t i = 0; i < k; i++)
                v[i] *= by;
            kw_convert(KW_BF16, (char *)one->room + 2 * (r * row + at), KW_F32, v, k);
        }
    }
}

void kw__entry_fill(kw__entry *one)
{
    if (!one->room || one->filled)
        return;
    if (one->scale)
        widen(one);
    else
        memcpy(one->room, one->from, (size_t)one->t.bytes);
    one->filled = true;
}

void kw__entry_empty(kw__entry *one)
{
    const uintptr_t page = 4096, from = (uintptr_t)one->room;
    uintptr_t to = (from + (size_t)one->t.bytes + page - 1) & ~(page - 1);
    if (one->room && one->filled && !madvise(one->room, to - from, MADV_DONTNEED))
        one->filled = false;
}

kw__entry *kw__entry_of(const kw_source *s, const kw_tensor *t)
{
    for (int p = 0; s && p < KW_N_PARTS; p++) {
        const kw__part *part = &s->parts[p];
        uintptr_t from = (uintptr_t)part->entries, at = (uintptr_t)t;
        if (part->n && at >= from && at < from + part->n * sizeof *part->entries)
            return &s->parts[p].entries[(at - from) / sizeof *part->entries];
    }
    return NULL;
}

size_t kw__n_scaled(const kw_source *s)
{
    size_t n = 0;
    for (int p = 0; p < KW_N_PARTS; p++)
        for (size_t i = 0; i < s->parts[p].n; i++)
            n += s->parts[p].entries[i].scale != NULL;
    return n;
}
