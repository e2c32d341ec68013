/*
 * test_conv.c - convolution, every pass and every way, against the definition in double over many odd shapes;
 * bytes around outputs and scratch stay as they were; the same bits twice. Prints the worst error of each kind.
 */
#include "kern/conv.h"
#include "../isa.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*  relative L2; f32 measured: 4e-7 forward and data, 1e-6 weights; bf16: its rounding alone is 1.7e-3  */
static const double limit_f32 = 2e-6, limit_bf16 = 2.5e-3;

static const kw_conv_shape shapes[] = {
    /* n   h   w   in  out kh kw s  t  l  b  r */
    { 1,  8,  8,  16,  16, 3, 3, 1, 1, 1, 1, 1 },
    { 2,  5,  7,   8,  24, 3, 3, 1, 1, 1, 1, 1 },
    { 3,  7,  5,   3,  16, 3, 3, 1, 1, 1, 1, 1 },
    { 2,  9, 11,  16,   3, 3, 3, 1, 1, 1, 1, 1 },
    { 2,  8,  8,   4,  20, 3, 3, 1, 1, 1, 1, 1 },
    { 2,  8,  8,  20,   4, 3, 3, 1, 1, 1, 1, 1 },
    { 1,  6,  6,   9,   9, 3, 3, 1, 1, 1, 1, 1 },
    { 2, 16,  8,  64,  32, 3, 3, 1, 1, 1, 1, 1 },
    { 1,  4,  4, 128, 72, 3, 3, 1, 1, 1, 1, 1 },
    { 2,  8,  8,  32,  32, 3, 3, 2, 1, 1, 1, 1 },
    { 1,  9,  7,  20,  12, 3, 3, 2, 1, 1, 1, 1 },
    { 2,  8,  8,  16,  16, 3, 3, 2, 0, 0, 1, 1 },      /* the autoencoder's */
    { 1,  9, 11,  24,  40, 3, 3, 2, 0, 0, 1, 1 },
    { 2,  8,  6,   4,   4, 3, 3, 2, 0, 0, 1, 1 },
    { 2,  8,  8,  32,  48, 1, 1, 1, 0, 0, 0, 0 },
    { 1,  5,  3,   4,   4, 1, 1, 1, 0, 0, 0, 0 },
    { 3,  7,  7,  20,   9, 1, 1, 1, 0, 0, 0, 0 },
    { 2,  7,  9,  16,  24, 1, 1, 2, 0, 0, 0, 0 },
    { 1, 12, 12,   3,  16, 4, 4, 4, 0, 0, 0, 0 },
    { 1, 10,  9,   5,   7, 5, 2, 3, 2, 0, 1, 1 },
    { 1, 14, 14,   8,   8, 7, 7, 1, 3, 3, 3, 3 },
    { 1,  1,  1,  16,  16, 3, 3, 1, 1, 1, 1, 1 },
    { 1,  2,  3,   1,   1, 3, 3, 1, 1, 1, 1, 1 },
    { 1,  6,  6,   8,   8, 3, 3, 1, 0, 0, 0, 0 },
    { 1,  6,  6,   8,   8, 3, 3, 1, 2, 0, 1, 2 },
    { 1,  5,  5,   8,   8, 3, 3, 1, 3, 3, 3, 3 },      /* padding larger than the kernel reaches: no turned form */
    { 1,  6, 70,  16,  40, 3, 3, 1, 1, 1, 1, 1 },      /* several blocks, cut in both directions */
    { 5,  3,  5, 130,  26, 3, 3, 1, 1, 1, 1, 1 },      /* whole pictures in a block; unequal chunks, a cut panel */
    { 3, 21,  9,  18,  24, 3, 3, 1, 1, 1, 1, 1 },
    { 1,  9, 13,  30,  26, 1, 3, 1, 0, 1, 0, 1 },
    { 2,  9, 10,  26,  34, 5, 3, 1, 2, 0, 1, 2 },
    { 1, 13, 15, 200,  24, 3, 3, 2, 1, 1, 1, 1 },
    { 1, 15, 14, 210,  40, 1, 1, 1, 0, 0, 0, 0 },
    { 2,  6,  9, 100, 150, 3, 3, 1, 1, 1, 1, 1 },      /* several chunks and panels in both directions, all of them cut */
    { 1,  5, 10,  67, 201, 3, 3, 1, 1, 1, 1, 1 },
    { 1,  4,  4, 201,  67, 3, 3, 1, 1, 1, 1, 1 },
    { 1,  3,  5, 129,  77, 5, 3, 1, 2, 1, 2, 1 },
};

/* ---- the definition, in double ---- */

typedef struct { double *x, *w, *b, *y; size_t nx, nw, ny; } reference;

static double uniform(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(*seed >> 32) * 0x1p-31;
}

static double *numbers(size_t n, uint64_t *seed, kw_dtype t)
{
    double *p = malloc(n * sizeof *p);
    for (size_t i = 0; i < n; i++) {
        float f = (float)uniform(seed);
        p[i] = (double)(t == KW_BF16 ? kw_bf16_to_f32(kw_f32_to_bf16(f)) : f);
    }
    return p;
}

/* Calls of term for every product in the sum. pass says which of the three arrays is the result. */
static void define(const kw_conv_shape *s, kw_pass pass, reference *r)
{
    int oh = kw_conv_out_h(s), ow = kw_conv_out_w(s);
    double *to = pass == KW_FORWARD ? r->y : pass == KW_BACKWARD_DATA ? r->x : r->w;
    memset(to, 0, (pass == KW_FORWARD ? r->ny : pass == KW_BACKWARD_DATA ? r->nx : r->nw) * sizeof *to);
    for (size_t y = 0; y < r->ny; y++) {
        int o = (int)(y % (size_t)s->out), q = (int)(y / (size_t)s->out) % ow, p = (int)(y / (size_t)s->out) / ow % oh;
        int n = (int)(y / (size_t)s->out) / ow / oh;
        for (int i = 0; i < s->in; i++)
            for (int h = 0; h < s->kh; h++)
                for (int w = 0; w < s->kw; w++) {
                    int row = p * s->stride + h - s->pad_top, col = q * s->stride + w - s->pad_left;
                    if (row < 0 || row >= s->h || col < 0 || col >= s->w)
                        continue;
                    size_t x = (((size_t)n * (size_t)s->h + (size_t)row) * (size_t)s->w + (size_t)col) * (size_t)s->in +
                               (size_t)i;
                    size_t k = (((size_t)o * (size_t)s->in + (size_t)i) * (size_t)s->kh + (size_t)h) * (size_t)s->kw +
                               (size_t)w;
                    if (pass == KW_FORWARD)
                        r->y[y] += r->x[x] * r->w[k];
                    else if (pass == KW_BACKWARD_DATA)
                        r->x[x] += r->y[y] * r->w[k];
                    else
                        r->w[k] += r->x[x] * r->y[y];
                }
    }
    if (pass == KW_BACKWARD_WEIGHTS)
        memset(r->b, 0, (size_t)s->out * sizeof *r->b);
    for (size_t y = 0; y < r->ny; y++)
        if (pass == KW_FORWARD)
            r->y[y] += r->b[y % (size_t)s->out];
        else if (pass == KW_BACKWARD_WEIGHTS)
            r->b[y % (size_t)s->out] += r->y[y];
}

/* ---- guarded memory ---- */

enum { GUARD = 256 };

static char *guarded(size_t n)
{
    char *p = aligned_alloc(64, (n + 2 * GUARD + 63) & ~(size_t)63);
    memset(p, 0xA5, n + 2 * GUARD);
    return p + GUARD;
}

static void release(char *p, size_t n)
{
    for (int i = 0; i < GUARD; i++) {
        assert_int_equal((unsigned char)p[-1 - i], 0xA5);
        assert_int_equal((unsigned char)p[n + (size_t)i], 0xA5);
    }
    free(p - GUARD);
}

static char *typed(kw_dtype t, const double *x, size_t n)
{
    char *p = guarded(n * kw_dtype_size(t));
    kw_convert(t, p, KW_F64, x, n);
    return p;
}

static double distance(kw_dtype t, const void *got, const double *want, size_t n)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double g = t == KW_BF16 ? (double)kw_bf16_to_f32(((const uint16_t *)got)[i]) : (double)((const float *)got)[i];
        error += (g - want[i]) * (g - want[i]);
        size += want[i] * want[i];
    }
    return size > 0 ? sqrt(error / size) : sqrt(error);
}

/* ---- one case ---- */

static double worst[3][KW_CONV_N_WAYS + 1][2];

static void run(const kw_conv *c, kw_pass pass, const void *a, const void *b, const void *w, const float *bias,
                void *out, float *dbias, void *scratch)
{
    if (pass == KW_FORWARD)
        kw_conv_forward(c, a, w, bias, out, scratch);
    else if (pass == KW_BACKWARD_DATA)
        kw_conv_backward_data(c, b, w, out, scratch);
    else
        kw_conv_backward_weights(c, a, b, out, dbias, scratch);
}

static void one(const kw_conv_shape *s, kw_pass pass, kw_dtype t, kw_dtype weight_type, bool bias, int way)
{
    uint64_t seed = 7;
    kw_conv *c;
    kw_err e;
    kw_status status = way < KW_CONV_N_WAYS ? kw_conv_new_by((kw_conv_way)way, s, pass, t, bias, &c, &e)
                                            : kw_conv_new(s, pass, t, bias, &c, &e);
    if (status == KW_EDEVICE && way < KW_CONV_N_WAYS)
        return;
    assert_int_equal(status, KW_OK);
    reference r = { .nx = (size_t)s->n * (size_t)s->h * (size_t)s->w * (size_t)s->in,
                    .nw = (size_t)s->out * (size_t)s->in * (size_t)s->kh * (size_t)s->kw,
                    .ny = (size_t)s->n * (size_t)kw_conv_out_h(s) * (size_t)kw_conv_out_w(s) * (size_t)s->out };
    r.x = numbers(r.nx, &seed, t);
    r.w = numbers(r.nw, &seed, weight_type == KW_F32 && t == KW_F32 ? KW_F32 : KW_BF16);
    r.b = numbers((size_t)s->out, &seed, KW_F32);
    r.y = numbers(r.ny, &seed, t);
    if (!bias)
        memset(r.b, 0, (size_t)s->out * sizeof *r.b);
    char *x = typed(t, r.x, r.nx), *y = typed(t, r.y, r.ny), *w = typed(weight_type, r.w, r.nw),
         *b = typed(KW_F32, r.b, (size_t)s->out);
    kw_dtype out_type = pass == KW_BACKWARD_WEIGHTS ? KW_F32 : t;
    size_t n_out = pass == KW_FORWARD ? r.ny : pass == KW_BACKWARD_DATA ? r.nx : r.nw;
    size_t out_bytes = n_out * kw_dtype_size(out_type);
    size_t n_packed = kw_conv_packed_size(c), n_scratch = kw_conv_scratch_size(c);
    char *packed = guarded(n_packed), *scratch = guarded(n_scratch), *out = guarded(out_bytes),
         *again = guarded(out_bytes);
    char *db = guarded((size_t)s->out * 4), *db2 = guarded((size_t)s->out * 4);
    if (pass != KW_BACKWARD_WEIGHTS)
        kw_conv_pack(c, weight_type, w, packed);
    run(c, pass, x, y, packed, bias ? (float *)b : NULL, out, bias ? (float *)db : NULL, scratch);
    memset(scratch, 0xFF, n_scratch);
    run(c, pass, x, y, packed, bias ? (float *)b : NULL, again, bias ? (float *)db2 : NULL, scratch);
    assert_memory_equal(out, again, out_bytes);
    define(s, pass, &r);
    double error = distance(out_type, out, pass == KW_FORWARD ? r.y : pass == KW_BACKWARD_DATA ? r.x : r.w, n_out);
    double limit = out_type == KW_BF16 ? limit_bf16 : limit_f32;
    if (pass == KW_BACKWARD_WEIGHTS && bias) {
        assert_memory_equal(db, db2, (size_t)s->out * 4);
        error = fmax(error, distance(KW_F32, db, r.b, (size_t)s->out));
    }
    if (!(error <= limit))
        fail_msg("%d x %d x %d, %d -> %d, kernel %d x %d, stride %d, pass %d, way %d (%s, %s): %.2e", s->n, s->h, s->w,
                 s->in, s->out, s->kh, s->kw, s->stride, (int)pass, way, kw_conv_implementation(c), kw_conv_layout(c),
                 error);
    double *most = &worst[pass][way][t == KW_BF16];
    *most = fmax(*most, error);
    release(x, r.nx * kw_dtype_size(t)), release(y, r.ny * kw_dtype_size(t)),
        release(w, r.nw * kw_dtype_size(weight_type));
    release(b, (size_t)s->out * 4), release(packed, n_packed), release(scratch, n_scratch), release(out, out_bytes);
    release(again, out_bytes), release(db, (size_t)s->out * 4), release(db2, (size_t)s->out * 4);
    free(r.x), free(r.w), free(r.b), free(r.y);
    kw_conv_free(c);
}

static void every_shape_agrees_with_the_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < KW_LEN(shapes); i++)
        for (int pass = 0; pass < 3; pass++)
            for (int way = 0; way <= KW_CONV_N_WAYS; way++)
                for (int k = 0; k < 4; k++)
                    one(&shapes[i], (kw_pass)pass, k & 1 ? KW_BF16 : KW_F32, k & 1 ? KW_BF16 : KW_F32, k & 2, way);
    for (int pass = 0; pass < 3; pass++)
        for (int way = 0; way <= KW_CONV_N_WAYS; way++)
            for (int bf16 = 0; bf16 < 2; bf16++)
                if (worst[pass][way][bf16] > 0)
                    print_message("pass %d way %d %s: worst relative error %.1e\n", pass, way, bf16 ? "bf16" : "f32",
                                  worst[pass][way][bf16]);
}

static void weights_of_every_type(void **state)
{
    static const kw_dtype types[] = { KW_F32, KW_BF16, KW_F16 };
    (void)state;
    for (size_t i = 0; i < KW_LEN(types); i++)
        for (int t = 0; t < 2; t++) {
            one(&shapes[1], KW_FORWARD, t ? KW_BF16 : KW_F32, types[i], true, KW_CONV_N_WAYS);
            one(&shapes[1], KW_BACKWARD_DATA, t ? KW_BF16 : KW_F32, types[i], true, KW_CONV_N_WAYS);
            one(&shapes[18], KW_FORWARD, t ? KW_BF16 : KW_F32, types[i], false, KW_CONV_N_WAYS);
        }
}

/* A kernel larger than the chunk in which weights are packed. */
static void large_kernel(void **state)
{
    static const kw_conv_shape s = { 1, 30, 30, 2, 3, 25, 25, 5, 0, 0, 0, 0 };
    (void)state;
    for (int pass = 0; pass < 3; pass++)
        one(&s, (kw_pass)pass, KW_F32, KW_F32, true, KW_CONV_N_WAYS);
}

static void a_missing_bias_is_zero(void **state)
{
    (void)state;
    const kw_conv_shape *s = &shapes[1];
    size_t n = (size_t)(s->n * s->h * s->w * s->out);
    kw_conv *c;
    assert_int_equal(kw_conv_new(s, KW_FORWARD, KW_F32, true, &c, NULL), KW_OK);
    float *x = kw_block_new((size_t)(s->n * s->h * s->w * s->in) * 4), *y = kw_block_new(n * 4),
          *w = kw_block_new(8 * 24 * 9 * 4);
    void *packed = kw_block_new(kw_conv_packed_size(c)), *scratch = kw_block_new(kw_conv_scratch_size(c) + 64);
    memset(scratch, 0x3f, kw_conv_scratch_size(c));
    kw_conv_pack(c, KW_F32, w, packed);
    y[0] = 1;
    kw_conv_forward(c, x, packed, NULL, y, scratch);
    for (size_t i = 0; i < n; i++)
        assert_true(y[i] == 0);
    kw_block_free(x), kw_block_free(y), kw_block_free(w), kw_block_free(packed), kw_block_free(scratch);
    kw_conv_free(c);
}

static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    kw_conv *c;
    kw_err e;
    kw_conv_shape s = shapes[0];
    s.stride = 0;
    assert_int_equal(kw_conv_new(&s, KW_FORWARD, KW_F32, false, &c, &e), KW_EUSAGE);
    s = shapes[0];
    s.pad_left = -1;
    assert_int_equal(kw_conv_new(&s, KW_FORWARD, KW_F32, false, &c, &e), KW_EUSAGE);
    s = shapes[0];
    s.kh = 11;
    assert_int_equal(kw_conv_new(&s, KW_FORWARD, KW_F32, false, &c, &e), KW_EUSAGE);
    assert_int_equal(kw_conv_new(&shapes[0], KW_FORWARD, KW_F16, false, &c, &e), KW_EUSAGE);
    assert_null(c);
    kw_conv_free(NULL);
}

static void one_weight_serves_every_size_of_picture(void **state)
{
    (void)state;
    kw_conv_shape s = shapes[7];
    kw_conv *a, *b;
    assert_int_equal(kw_conv_new(&s, KW_FORWARD, KW_F32, true, &a, NULL), KW_OK);
    s.h = 24, s.w = 40, s.n = 1;
    assert_int_equal(kw_conv_new(&s, KW_FORWARD, KW_F32, true, &b, NULL), KW_OK);
    assert_string_equal(kw_conv_layout(a), kw_conv_layout(b));
    assert_int_equal(kw_conv_packed_size(a), kw_conv_packed_size(b));
    kw_conv_free(a);
    kw_conv_free(b);
}

/* Backward-data reads what forward has packed, to the bit. */
static void one_weight_serves_both_directions(void **state)
{
    uint64_t seed = 5;
    int count = 0;
    (void)state;
    for (size_t i = 0; i < KW_LEN(shapes); i++)
        for (int way = KW_CONV_TILES; way <= KW_CONV_WINOGRAD; way++) {
            const kw_conv_shape *s = &shapes[i];
            kw_conv *f, *d;
            if (kw_conv_new_by((kw_conv_way)way, s, KW_FORWARD, KW_F32, true, &f, NULL))
                continue;
            if (kw_conv_new_by((kw_conv_way)way, s, KW_BACKWARD_DATA, KW_F32, false, &d, NULL)) {
                kw_conv_free(f);
                continue;
            }
            size_t bytes = kw_conv_packed_size(f), nw = (size_t)(s->out * s->in * s->kh * s->kw);
            assert_string_equal(kw_conv_layout(f), kw_conv_layout(d));
            assert_int_equal(bytes, kw_conv_packed_size(d));
            double *rw = numbers(nw, &seed, KW_F32);
            char *w = typed(KW_F32, rw, nw), *a = guarded(bytes), *b = guarded(bytes);
            kw_conv_pack(f, KW_F32, w, a);
            kw_conv_pack(d, KW_F32, w, b);
            assert_memory_equal(a, b, bytes);
            count++;
            release(w, nw * 4), release(a, bytes), release(b, bytes);
            free(rw);
            kw_conv_free(f);
            kw_conv_free(d);
        }
    assert_true(count >= 30);
}

static char *run_with(int threads, int way, const kw_conv_shape *s, kw_pass pass, size_t n_out)
{
    uint64_t seed = 3;
    kw_conv *c;
    kw_threads_set(threads);
    assert_int_equal(kw_conv_new_by((kw_conv_way)way, s, pass, KW_F32, false, &c, NULL), KW_OK);
    size_t nx = (size_t)(s->n * s->h * s->w * s->in), nw = (size_t)(s->out * s->in * s->kh * s->kw);
    size_t ny = (size_t)(s->n * kw_conv_out_h(s) * kw_conv_out_w(s) * s->out);
    double *rx = numbers(nx, &seed, KW_F32), *rw = numbers(nw, &seed, KW_F32), *ry = numbers(ny, &seed, KW_F32);
    char *x = typed(KW_F32, rx, nx), *w = typed(KW_F32, rw, nw), *y = typed(KW_F32, ry, ny), *out = guarded(n_out * 4),
         *packed = guarded(kw_conv_packed_size(c)), *scratch = guarded(kw_conv_scratch_size(c));
    if (pass != KW_BACKWARD_WEIGHTS)
        kw_conv_pack(c, KW_F32, w, packed);
    run(c, pass, x, y, packed, NULL, out, NULL, scratch);
    release(x, nx * 4), release(w, nw * 4), release(y, ny * 4);
    release(packed, kw_conv_packed_size(c)), release(scratch, kw_conv_scratch_size(c));
    free(rx), free(rw), free(ry);
    kw_conv_free(c);
    return out;
}

/* Forward and backward-data of TILES and WINOGRAD, and the gradient of the weight by WINOGRAD. */
static void bits_do_not_depend_on_the_number_of_threads(void **state)
{
    static const kw_conv_shape s = { 2, 19, 33, 72, 88, 3, 3, 1, 1, 1, 1, 1 };
    const size_t size[] = { [KW_FORWARD] = 2 * 19 * 33 * 88, [KW_BACKWARD_DATA] = 2 * 19 * 33 * 72,
                            [KW_BACKWARD_WEIGHTS] = 72 * 88 * 9 };
    int usual = kw_threads();
    (void)state;
    for (int pass = 0; pass < 3; pass++)
        for (int way = pass == KW_BACKWARD_WEIGHTS ? KW_CONV_WINOGRAD : KW_CONV_TILES; way <= KW_CONV_WINOGRAD; way++) {
            char *one_thread = run_with(1, way, &s, (kw_pass)pass, size[pass]);
            for (int threads = 2; threads <= 7; threads += 5) {
                char *more = run_with(threads, way, &s, (kw_pass)pass, size[pass]);
                assert_memory_equal(one_thread, more, size[pass] * 4);
                release(more, size[pass] * 4);
            }
            release(one_thread, size[pass] * 4);
        }
    kw_threads_set(usual);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_agrees_with_the_definition),
        cmocka_unit_test(weights_of_every_type),
        cmocka_unit_test(large_kernel),
        cmocka_unit_test(a_missing_bias_is_zero),
        cmocka_unit_test(wrong_shapes_are_refused),
        cmocka_unit_test(one_weight_serves_every_size_of_picture),
        cmocka_unit_test(one_weight_serves_both_directions),
        cmocka_unit_test(bits_do_not_depend_on_the_number_of_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
