/*
 * made.c - a model without a file: names and shapes from configurations, numbers from a window of random ones.
 *
 *   tensors   |conv_in|resnets.0.conv1 ...      |           ...          |
 *   mappings  |-------- window --------|-------- window --------|-- window
 *
 * The window is larger than the caches of processors, so that weights come from memory as a model's own would.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TILE = 1 << 20, PAGE = 4096 };     /* random numbers, which fill the window by repetition */
static const uint64_t most_window = 256 << 20;

typedef struct {
    kw_arena *arena;
    kw_dtype type;
    kw_made_part *part;                   /* the one being asked */
    size_t capacity;
    uint64_t bytes;                       /* of all matrices so far, each at a multiple of 64 */
} maker;

typedef struct { char *at; size_t bytes; } mapping;

static void unmap(void *arg)
{
    const mapping *m = arg;
    munmap(m->at, m->bytes);
}

/* ---- names and shapes -------------------------------------------------------------------------------------------- */

static bool is_matrix(const kw_tensor *t) { return t->rank > 1; }

/* Norms start as PyTorch's do: weights 1, biases 0; there are no other vectors but biases. */
static kw_status vector(maker *m, kw_tensor *t, kw_err *e)
{
    int64_t n = kw_tensor_count(t);
    float *v = kw_alloc_array(m->arena, (size_t)n, sizeof *v);
    if (!v)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (int64_t i = 0; i < n && kw_ends_with(t->name, ".weight"); i++)
        v[i] = 1;
    t->dtype = KW_F32;
    t->bytes = (uint64_t)n * sizeof *v;
    t->data = v;
    return KW_OK;
}

static kw_status find(void *ctx, const char *name, kw_shape shape, kw_tensor *out, kw_err *e)
{
    static const char nothing_yet;
    maker *m = ctx;
    KW_TRY(kw_grow(m->arena, &m->part->tensors, &m->capacity, m->part->n, sizeof *m->part->tensors, e));
    kw_tensor t = { .name = kw_strdup(m->arena, name), .dtype = m->type, .rank = shape.rank, .data = &nothing_yet };
    memcpy(t.shape, shape.d, sizeof shape.d[0] * (size_t)shape.rank);
    t.bytes = (uint64_t)kw_tensor_count(&t) * kw_dtype_size(m->type);
    if (!t.name)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!is_matrix(&t))
        KW_TRY(vector(m, &t, e));
    else
        m->bytes += (t.bytes + 63) & ~63ull;
    m->part->tensors[m->part->n++] = *out = t;
    return KW_OK;
}

static kw_status ask_parts(maker *m, const json_t *config, kw_made_part *parts, size_t *n, kw_err *e)
{
    for (int p = 0; p < KW_N_PARTS; p++) {
        json_t *one = json_object_get(config, kw_part_name((kw_part)p));
        if (!json_is_object(one))
            continue;
        m->part = &parts[(*n)++];
        m->capacity = 0;
        *m->part = (kw_made_part){ .part = (kw_part)p, .config = one };
        KW_TRY(kw__part_ask((kw_part)p, one, find, m, e));
    }
    return *n ? KW_OK : kw_fail(e, KW_EDATA, N_("the configuration names no part of a model"));
}

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

/* The window as an unnamed file in memory, filled; *fd is the caller's to close. */
static kw_status make_window(kw_dtype t, size_t bytes, int *fd, kw_err *e)
{
    const kw_rng r = { .seed = 1, .stream = KW_RNG_INIT };
    size_t size = kw_dtype_size(t), n = KW_MIN(bytes / size, (size_t)TILE);
    float *numbers = kw_block_new(n * sizeof *numbers);
    char *tile = kw_block_new(n * size);
    *fd = memfd_create("kiwame-weights", MFD_CLOEXEC);
    bool fine = numbers && tile && *fd >= 0;
    for (size_t i = 0; fine && i < n; i++)
        numbers[i] = 0.04f * kw_rng_float(r, i) - 0.02f;
    if (fine)
        kw_convert(t, tile, KW_F32, numbers, n);
    for (size_t at = 0; fine && at < bytes;) {
        ssize_t put = write(*fd, tile, KW_MIN(n * size, bytes - at));
        fine = put > 0;
        at += fine ? (size_t)put : 0;
    }
    kw_block_free(numbers);
    kw_block_free(tile);
    return fine ? KW_OK : kw_fail(e, KW_ENOMEM, N_("no memory for %.0f MB of random weights"), (double)bytes * 1e-6);
}

/* The window, over and over, for `bytes` in a row. */
static kw_status map_window(kw_arena *a, int fd, size_t window, size_t bytes, char **out, kw_err *e)
{
    mapping *m = kw_alloc(a, sizeof *m);
    char *at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!m || at == MAP_FAILED)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *m = (mapping){ at, bytes };
    if (kw_defer(a, unmap, m))
        return kw_fail(e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < bytes; i += window)
        if (mmap(at + i, KW_MIN(window, bytes - i), PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            return kw_fail(e, KW_ENOMEM, "out of memory");
    *out = at;
    return KW_OK;
}

static kw_status give_numbers(maker *m, kw_made_part *parts, size_t n, kw_err *e)
{
    size_t bytes = (size_t)(m->bytes + PAGE - 1) & ~(size_t)(PAGE - 1), window = KW_MIN(bytes, (size_t)most_window);
    char *at = NULL;
    int fd;
    kw_status s = make_window(m->type, window, &fd, e);
    if (!s)
        s = map_window(m->arena, fd, window, bytes, &at, e);
    if (fd >= 0)
        close(fd);
    for (size_t p = 0; !s && p < n; p++)
        for (size_t i = 0; i < parts[p].n; i++) {
            kw_tensor *t = &parts[p].tensors[i];
            if (!is_matrix(t))
                continue;
            t->data = at;
            t->mapped = true;
            at += (t->bytes + 63) & ~63ull;
        }
    return s;
}

kw_status kw_family_made(kw_arena *a, const char *shown, const json_t *config, kw_dtype t, kw_source **out, kw_err *e)
{
    maker m = { .arena = a, .type = t };
    kw_made_part *parts = kw_alloc_array(a, KW_N_PARTS, sizeof *parts);
    size_t n = 0;
    if (!parts)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(ask_parts(&m, config, parts, &n, e));
    KW_TRY(give_numbers(&m, parts, n, e));
    return kw_source_made(a, shown, parts, n, json_object_get(config, "scheduler"), out, e);
}
