/*
 * base.h - what every layer stands on; it knows nothing of machine learning.
 *
 *     static kw_status load(kw_arena *a, const char *path, char **text, kw_err *e)
 *     {
 *         *text = kw_alloc(a, 64);
 *         if (!*text)
 *             return kw_fail(e, KW_ENOMEM, "%s: no memory", path);
 *         KW_TRY(kw_file_read(a, path, ...));
 *         return KW_OK;
 *     }
 *
 * The library never prints, never exits, and never reads argv or the environment.
 */
#ifndef KW_BASE_H
#define KW_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KW_LEN(array) (sizeof(array) / sizeof *(array))
#define KW_MUST __attribute__((warn_unused_result))
#define KW_PRINTF(fmt, first) __attribute__((format(printf, fmt, first)))
#define KW_MIN(a, b) ((a) < (b) ? (a) : (b))
#define KW_MAX(a, b) ((a) > (b) ? (a) : (b))
#define N_(text) text                     /* marks a text for translation, translated where it is shown */

/* ---- status: what went wrong, and what to do next ------------------------------------------- */

/*  name, process exit code, text  */
#define KW_STATUS_MAP(X) \
    X(OK,        0, "ok") \
    X(EUSAGE,    2, "wrong argument or configuration") \
    X(EDATA,     3, "input refused") \
    X(ENOMEM,    4, "not enough resources") \
    X(ESTORAGE,  5, "storage error") \
    X(ENUMERIC,  6, "numbers are no longer finite") \
    X(EBUSY,     7, "output folder in use") \
    X(EDEVICE,   8, "device error") \
    X(ESTOP,   130, "stopped on request")

typedef enum {
#define X(name, code, text) KW_##name,
    KW_STATUS_MAP(X)
#undef X
} kw_status;

typedef struct {
    kw_status status;
    const char *file;                     /* where in the source, for bug reports */
    int line;
    char what[512];                       /* what happened and where, in the user's words */
    char advice[512];                     /* what the user can do next; may be empty */
} kw_err;

/* Fill *e (may be NULL) and return the status. The format is translated by kw_translate. */
KW_MUST kw_status kw_fail_at(kw_err *e, kw_status s, const char *file, int line, const char *fmt, ...) KW_PRINTF(5, 6);
#define kw_fail(e, status, ...) kw_fail_at(e, status, __FILE__, __LINE__, __VA_ARGS__)

/* Add what to do next to an error already filled; returns its status. */
KW_MUST kw_status kw_advise(kw_err *e, kw_status s, const char *fmt, ...) KW_PRINTF(3, 4);

#define KW_TRY(call) do { kw_status kw_s_ = (call); if (kw_s_) return kw_s_; } while (0)

const char *kw_status_text(kw_status s);
const char *kw_errno_text(int code);      /* what the system says of an errno, translated; for any thread */
int kw_status_exit_code(kw_status s);

/* Impossible states only: prints file, line and the text to stderr, aborts. Never for input. */
_Noreturn void kw_bug_at(const char *file, int line, const char *fmt, ...) KW_PRINTF(3, 4);
#define KW_BUG(...) kw_bug_at(__FILE__, __LINE__, __VA_ARGS__)
#define KW_ASSERT(truth) ((truth) ? (void)0 : KW_BUG("%s", #truth))

/* The translation hook: identity until the command line installs gettext. */
extern const char *(*kw_translate)(const char *text);

double kw_now(void);                      /* seconds of a clock that never jumps */

/* ---- arena: memory by lifetime ---------------------------------------------------------------- */

typedef struct kw_arena kw_arena;

KW_MUST kw_arena *kw_arena_new(void);     /* NULL when memory is gone */
void kw_arena_free(kw_arena *a);          /* runs the deferred calls, newest first; NULL is allowed */
void *kw_alloc(kw_arena *a, size_t size); /* zeroed, 64-byte aligned; NULL when memory is gone */
void *kw_alloc_array(kw_arena *a, size_t n, size_t size);   /* NULL on overflow too */
char *kw_strdup(kw_arena *a, const char *s);
char *kw_strndup(kw_arena *a, const char *s, size_t n);
char *kw_sprintf(kw_arena *a, const char *fmt, ...) KW_PRINTF(2, 3);
/* Run fn(arg) when the arena is freed; if it cannot be noted, runs it at once and fails. */
KW_MUST kw_status kw_defer(kw_arena *a, void (*fn)(void *), void *arg);

/* Large blocks outside arenas (pixels, tensors): zeroed, 64-byte aligned, huge pages asked for. */
void *kw_block_new(size_t size);
void kw_block_free(void *p);

/* Fault injection for tests: the n-th allocation from now fails (0: none). */
void kw_alloc_fail_after(long n);

/* ---- growing arrays and strings ----------------------------------------------------------------- */

/* Make room for one more element of an arena array; doubles. On failure the array is untouched. */
KW_MUST kw_status kw_grow(kw_arena *a, void *array_pointer, size_t *capacity, size_t used, size_t element, kw_err *e);

typedef struct {                          /* a growing text; init with { 0 }, free with kw_str_free */
    char *s;
    size_t n, capacity;
    bool failed;                          /* memory ran out: s holds what fitted */
} kw_str;

void kw_str_add(kw_str *b, const char *s);
void kw_str_add_n(kw_str *b, const char *s, size_t n);
void kw_str_printf(kw_str *b, const char *fmt, ...) KW_PRINTF(2, 3);
void kw_str_free(kw_str *b);

/* "1.9 GB", powers of 1000 */
void kw_size_text(double bytes, char out[32]);

bool kw_ends_with(const char *s, const char *tail);
bool kw_starts_with(const char *s, const char *head);

/* Checked arithmetic on sizes that come from files; false on overflow. */
static inline bool kw_mul_size(uint64_t a, uint64_t b, uint64_t *r) { return !__builtin_mul_overflow(a, b, r); }
static inline bool kw_add_size(uint64_t a, uint64_t b, uint64_t *r) { return !__builtin_add_overflow(a, b, r); }

/* ---- numbers ------------------------------------------------------------------------------------ */

/*  name, bytes, safetensors spelling  */
#define KW_DTYPE_MAP(X) \
    X(F32,  4, "F32") X(F64, 8, "F64") X(F16, 2, "F16") X(BF16, 2, "BF16") \
    X(I64,  8, "I64") X(I32, 4, "I32") X(U8, 1, "U8") X(BOOL, 1, "BOOL") \
    X(I16,  2, "I16") X(I8, 1, "I8") X(U16, 2, "U16") X(U32, 4, "U32") X(U64, 8, "U64") \
    X(F8_E4M3, 1, "F8_E4M3") X(F8_E5M2, 1, "F8_E5M2")

typedef enum {
#define X(name, bytes, text) KW_##name,
    KW_DTYPE_MAP(X)
#undef X
    KW_N_DTYPES
} kw_dtype;

size_t kw_dtype_size(kw_dtype t);
const char *kw_dtype_name(kw_dtype t);    /* "F32" */

float kw_f16_to_f32(uint16_t h);
uint16_t kw_f32_to_f16(float f);          /* round to nearest even */
static inline float kw_bf16_to_f32(uint16_t h) { union { uint32_t u; float f; } v = { (uint32_t)h << 16 }; return v.f; }
static inline uint16_t kw_f32_to_bf16(float f)
{
    union { float f; uint32_t u; } v = { f };
    if ((v.u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(v.u >> 16 | 0x40);           /* a NaN stays a NaN */
    return (uint16_t)((v.u + 0x7fffu + (v.u >> 16 & 1)) >> 16);
}

/* Convert n numbers between any two of F32 F64 F16 BF16 (and from I64 I32 U8 and the F8 kinds, and to F8_E4M3, where
 * what is too large becomes NaN). Plain loops. */
void kw_convert(kw_dtype to, void *dst, kw_dtype from, const void *src, size_t n);

#ifdef __cplusplus
}
#endif

#include "option.h"
#include "rng.h"

#endif
