/* arena.c - memory by lifetime: allocate freely, free once. Deferred calls close what is not memory. */
#include "base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 64, CHUNK = 64 * 1024, HUGE_PAGE = 2 << 20 };

typedef struct chunk { struct chunk *next; size_t used, size; } chunk;
typedef struct deferred { struct deferred *next; void (*fn)(void *); void *arg; } deferred;
struct kw_arena { chunk *chunks; deferred *deferreds; };

static long fail_in;                      /* test builds count down to a failure */

void kw_alloc_fail_after(long n) { fail_in = n; }

static bool must_fail(void) { return fail_in > 0 && --fail_in == 0; }

static size_t round_up(size_t n) { return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1); }

kw_arena *kw_arena_new(void) { return must_fail() ? NULL : calloc(1, sizeof(kw_arena)); }

void kw_arena_free(kw_arena *a)
{
    if (!a)
        return;
    for (deferred *d = a->deferreds; d; d = d->next)
        d->fn(d->arg);
    for (chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    free(a);
}

static chunk *add_chunk(kw_arena *a, size_t size)
{
    size_t room = KW_MAX(size, (size_t)CHUNK);
    if (room > SIZE_MAX - 2 * ALIGN)
        return NULL;
    chunk *c = aligned_alloc(ALIGN, ALIGN + room);
    if (!c)
        return NULL;
    *c = (chunk){ .next = a->chunks, .size = room };
    return a->chunks = c;
}

void *kw_alloc(kw_arena *a, size_t size)
{
    if (must_fail() || size > SIZE_MAX / 2)
        return NULL;
    size = round_up(size ? size : 1);
    chunk *c = a->chunks;
    if ((!c || c->size - c->used < size) && !(c = add_chunk(a, size)))
        return NULL;
    char *p = (char *)c + ALIGN + c->used;
    c->used += size;
    return memset(p, 0, size);
}

void *kw_alloc_array(kw_arena *a, size_t n, size_t size)
{
    size_t total;
    return __builtin_mul_overflow(n, size, &total) ? NULL : kw_alloc(a, total);
}

char *kw_strndup(kw_arena *a, const char *s, size_t n)
{
    char *copy = kw_alloc(a, n + 1);
    if (copy)
        memcpy(copy, s, n);
    return copy;
}

char *kw_strdup(kw_arena *a, const char *s) { return kw_strndup(a, s, strlen(s)); }

char *kw_sprintf(kw_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    char *s = n < 0 ? NULL : kw_alloc(a, (size_t)n + 1);
    if (s)
        vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return s;
}

kw_status kw_defer(kw_arena *a, void (*fn)(void *), void *arg)
{
    deferred *d = kw_alloc(a, sizeof *d);
    if (!d) {
        fn(arg);
        return KW_ENOMEM;
    }
    *d = (deferred){ a->deferreds, fn, arg };
    a->deferreds = d;
    return KW_OK;
}

/* A block remembers its size in the page before it: big blocks are mapped, so that freeing returns them at once. */
void *kw_block_new(size_t size)
{
    if (must_fail() || size > SIZE_MAX / 2)
        return NULL;
    size_t total = size + 4096;
    char *p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (size >= HUGE_PAGE)
        (void)madvise(p, total, MADV_HUGEPAGE);
    *(size_t *)(void *)p = total;
    return p + 4096;
}

void kw_block_free(void *p)
{
    if (!p)
        return;
    char *start = (char *)p - 4096;
    munmap(start, *(size_t *)(void *)start);
}

kw_status kw_grow(kw_arena *a, void *array_pointer, size_t *capacity, size_t used, size_t element, kw_err *e)
{
    if (used < *capacity)
        return KW_OK;
    size_t more = *capacity ? 2 * *capacity : 16;
    void **array = array_pointer, *bigger = kw_alloc_array(a, more, element);
    if (!bigger)
        return kw_fail(e, KW_ENOMEM, "out of memory (%zu elements of %zu bytes)", more, element);
    if (used)
        memcpy(bigger, *array, used * element);
    *array = bigger;
    *capacity = more;
    return KW_OK;
}
