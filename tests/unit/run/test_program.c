/*
 * test_program.c - what a program tells of itself: where the time went, how much work it is, what recomputing adds;
 * and weights that are mapped files: their pages go once packed copies exist, their content never.
 */
#include "run/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ROWS = 6, IN = 512, OUT = 1024, PIXELS = 2 * ROWS - 1 };

typedef struct {
    kw_arena *a;
    kw_store *s;
    kw_graph *g;
    kw_program *p;
    kw_workspace *w;
    kw_err e;
    float x[PIXELS * IN];
} job;

static job *begin(void)
{
    job *j = calloc(1, sizeof *j);
    j->a = kw_arena_new();
    j->s = kw_store_new(j->a);
    j->w = kw_workspace_new(j->a);
    j->g = kw_graph_new(j->a, KW_F32);
    for (int i = 0; i < PIXELS * IN; i++)
        j->x[i] = (float)(i % 7) - 3;
    return j;
}

static void end(job *j)
{
    kw_arena_free(j->a);
    free(j);
}

static kw_op_time time_of(const kw_program *p, const char *op)
{
    kw_op_time t;
    for (int i = 0; kw_program_time(p, i, &t); i++)
        if (!strcmp(t.op, op))
            return t;
    fail_msg("no %s", op);
    return t;
}

/* silu(x w) as a convolution of every other pixel, with w a state in f16, which is packed. */
static void make(job *j, void *weight, bool mapped)
{
    int id;
    const kw_shape shape = KW_SHAPE(OUT, IN, 1, 1);
    assert_int_equal(kw_store_add(j->s, "w", shape, KW_F16, weight, &id, &j->e), KW_OK);
    if (mapped)
        kw_store_set_mapped(j->s, id);
    kw_val x = kw_input(j->g, "x", KW_SHAPE(1, PIXELS, 1, IN), KW_F32), w = kw_state(j->g, id, shape, KW_F16);
    kw_result(j->g, "y", kw_silu(j->g, kw_conv2d(j->g, x, w, KW_NONE, (kw_conv_pads){ .stride = 2 })));
    assert_int_equal(kw_program_new(j->a, j->g, j->s, NULL, &j->p, &j->e), KW_OK);
    kw_program_set(j->p, "x", j->x);
}

static void run(job *j) { assert_int_equal(kw_program_run(j->p, j->w, &j->e), KW_OK); }

static uint16_t *halves(void *memory)
{
    uint16_t *h = memory;
    for (int i = 0; i < OUT * IN; i++)
        h[i] = kw_f32_to_f16((float)(i % 11) * 0.125f - 0.5f);
    return h;
}

static void times_and_work(void **state)
{
    (void)state;
    job *j = begin();
    make(j, halves(kw_alloc(j->a, OUT * IN * 2)), false);
    run(j);
    assert_float_equal(time_of(j->p, "conv2d").seconds, 0, 0);     /* nobody asked */
    kw_program_profile(j->p, true);
    for (int i = 0; i < 3; i++)
        run(j);
    kw_op_time conv = time_of(j->p, "conv2d"), unary = time_of(j->p, "unary"), pack = time_of(j->p, "pack");
    assert_int_equal(conv.count, 3);
    assert_int_equal(kw_program_timed_runs(j->p), 3);
    assert_true(conv.seconds > 0 && unary.seconds > 0);
    assert_float_equal(conv.flops, 3.0 * 2 * ROWS * IN * OUT, 0);
    assert_float_equal(conv.bytes, 3.0 * (4 * PIXELS * IN + 2 * OUT * IN + 4 * ROWS * OUT), 0);
    assert_float_equal(unary.bytes, 3.0 * 8 * ROWS * OUT, 0);
    assert_float_equal(pack.seconds, 0, 0);                        /* it was packed before */
    double sum = 0;
    for (size_t i = 0; i < kw_program_graph(j->p)->n_nodes; i++)
        sum += kw_program_node_seconds(j->p, i);
    assert_true(fabs(sum - conv.seconds - unary.seconds) < 1e-9);
    (void)kw_store_write(j->s, 0);
    run(j);
    assert_true(time_of(j->p, "pack").seconds > 0);
    kw_program_profile(j->p, false);
    run(j);
    assert_int_equal(kw_program_timed_runs(j->p), 0);
    end(j);
}

/* Two linear layers: the floor computes one of them again for the gradients, which is work done but not useful work. */
static void recomputing_is_not_useful(void **state)
{
    (void)state;
    enum { LEVELS = KW_FLOOR + 1 };
    double all[LEVELS], useful[LEVELS];
    for (int level = 0; level < LEVELS; level++) {
        job *j = begin();
        kw_graph *g = j->g;
        kw_val x = kw_input(g, "x", KW_SHAPE(4, 8), KW_F32), w[2], d[2], h = x, dy;
        for (int i = 0; i < 2; i++) {
            int id;
            assert_int_equal(kw_store_add(j->s, "w", KW_SHAPE(8, 8), KW_F32, NULL, &id, &j->e), KW_OK);
            w[i] = kw_state(g, id, KW_SHAPE(8, 8), KW_F32);
            h = kw_silu(g, kw_linear(g, h, w[i], KW_NONE));
        }
        dy = kw_input(g, "dy", KW_SHAPE(4, 8), KW_F32);
        kw_result(g, "y", h);
        assert_int_equal(kw_backward(g, &h, &dy, 1, w, 2, d, &j->e), KW_OK);
        kw_result(g, "d0", d[0]);
        kw_result(g, "d1", d[1]);
        kw_run_options o = { .memory = (kw_memory_level)level };
        assert_int_equal(kw_program_new(j->a, g, j->s, &o, &j->p, &j->e), KW_OK);
        all[level] = kw_program_flops(j->p);
        useful[level] = kw_program_useful_flops(j->p);
        end(j);
    }
    const double one = 2.0 * 4 * 8 * 8;
    assert_float_equal(all[KW_KEEP_ALL], 5 * one, 0);              /* two forward, dw twice, dx once */
    assert_float_equal(all[KW_LEAN], 5 * one, 0);
    assert_float_equal(all[KW_FLOOR], 7 * one, 0);
    for (int level = 0; level < LEVELS; level++)
        assert_float_equal(useful[level], 5 * one, 0);
}

/* ---- sums that join products ---------------------------------------------------------------------------------------- */

static int count(const kw_program *p, const kw_op *op)
{
    int n = 0;
    for (size_t i = 0; i < kw_program_graph(p)->n_nodes; i++)
        n += kw_program_graph(p)->node[i].op == op;
    return n;
}

/*
 * y = x w0ᵀ + b + 0.5 (x w1ᵀ) w2ᵀ, its gradients, and a product that is read twice: what joins, and what it gives against
 * the reference in double.
 */
static void branch(job *j, bool reference)
{
    static const kw_shape shapes[] = { { 2, { 24, 16 } }, { 2, { 4, 16 } }, { 2, { 24, 4 } } };
    kw_graph *g = j->g;
    kw_val d[4], wrt[4] = { kw_input(g, "x", KW_SHAPE(ROWS, 16), KW_F32) }, bias = kw_input(g, "b", KW_SHAPE(24), KW_F32);
    for (int i = 0; i < 3; i++) {
        int id;
        assert_int_equal(kw_store_add(j->s, "w", shapes[i], KW_F32, NULL, &id, &j->e), KW_OK);
        float *w = kw_store_write(j->s, id);
        for (int k = 0; k < kw_count(shapes[i]); k++)
            w[k] = (float)((k + i) % 5) * 0.25f - 0.5f;
        wrt[i + 1] = kw_state(g, id, shapes[i], KW_F32);
    }
    kw_val x = wrt[0], h = kw_linear(g, x, wrt[2], KW_NONE), twice = kw_linear(g, h, wrt[3], KW_NONE);
    kw_val y = kw_axby(g, 1, kw_linear(g, x, wrt[1], bias), 0.5f, kw_linear(g, h, wrt[3], KW_NONE));
    kw_result(g, "y", y);
    kw_result(g, "z", kw_mul(g, kw_add(g, y, twice), twice));
    kw_val dy = kw_input(g, "dy", KW_SHAPE(ROWS, 24), KW_F32);
    assert_int_equal(kw_backward(g, &y, &dy, 1, wrt, 4, d, &j->e), KW_OK);
    kw_result(g, "dx", d[0]);
    kw_run_options o = { .reference = reference };
    assert_int_equal(kw_program_new(j->a, g, j->s, &o, &j->p, &j->e), KW_OK);
    kw_program_set(j->p, "x", j->x);
    kw_program_set(j->p, "b", j->x + 1);
    kw_program_set(j->p, "dy", j->x + 2);
    run(j);
}

static void sums_join_products(void **state)
{
    (void)state;
    static const char *const results[] = { "y", "z", "dx" };
    job *fast = begin(), *reference = begin();
    branch(fast, false);
    branch(reference, true);
    assert_int_equal(count(fast->p, &kw_op_linear_add), 2);        /* the branch into y, one gradient into the other */
    assert_int_equal(count(fast->p, &kw_op_linear), 3);            /* w0, w1, and the one that is read twice */
    assert_int_equal(count(fast->p, &kw_op_linear_dx), 2);
    for (size_t i = 0; i < KW_LEN(results); i++) {
        const float *a = kw_program_result(fast->p, results[i]), *b = kw_program_result(reference->p, results[i]);
        for (int64_t k = 0; k < kw_count(kw_program_result_shape(fast->p, results[i])); k++)
            assert_float_equal(a[k], b[k], 1e-5 * (1 + fabs((double)b[k])));
    }
    end(fast);
    end(reference);
}

/* ---- mapped weights ---------------------------------------------------------------------------------------------- */

/* kB of a mapping that this process holds: its Rss in /proc/self/smaps. */
static long resident(const void *at)
{
    char line[256];
    unsigned long from;
    long kb = -1;
    bool here = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    while (f && kb < 0 && fgets(line, sizeof line, f)) {
        if (strchr(line, '-') && sscanf(line, "%lx-", &from) == 1)
            here = from == (unsigned long)(uintptr_t)at;
        else if (here)
            sscanf(line, "Rss: %ld kB", &kb);
    }
    if (f)
        fclose(f);
    return kb;
}

static void pages_of_packed_weights_go(void **state)
{
    (void)state;
    const size_t bytes = OUT * IN * 2;
    int fd = memfd_create("weights", MFD_CLOEXEC);
    assert_true(fd >= 0 && !ftruncate(fd, (off_t)bytes));
    uint16_t *w = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(w != MAP_FAILED);
    uint16_t *copy = memcpy(malloc(bytes), halves(w), bytes);
    float first[ROWS * OUT];
    job *j = begin();
    make(j, w, true);
    assert_int_equal(kw_store_mapped_bytes(j->s), 0);              /* a packed copy is kept: read once */
    assert_true(resident(w) > (long)(bytes / 1024) / 2);
    run(j);
    assert_true(resident(w) >= 0 && resident(w) < 64);
    memcpy(first, kw_program_result(j->p, "y"), sizeof first);
    assert_memory_equal(w, copy, bytes);                           /* looked at, it is there again */
    run(j);
    assert_memory_equal(first, kw_program_result(j->p, "y"), sizeof first);
    end(j);
    free(copy);
    munmap(w, bytes);
    close(fd);
}

/* The same weights in memory of another kind: nothing may be let go, its content would be lost. */
static void other_memory_stays(void **state)
{
    (void)state;
    const size_t bytes = OUT * IN * 2;
    job *j = begin();
    uint16_t *w = halves(kw_block_new(bytes)), *copy = memcpy(malloc(bytes), w, bytes);
    make(j, w, false);
    run(j);
    assert_memory_equal(w, copy, bytes);
    end(j);
    kw_block_free(w);
    free(copy);
}

/* f32 weights of a linear layer are read where they lie: they count as memory that stays. */
/* Copies that nobody needs for a while are freed; who runs with them makes them again. */
static void weights_let_go_come_back(void **state)
{
    (void)state;
    float first[ROWS * OUT];
    job *j = begin();
    uint16_t *w = halves(kw_block_new(OUT * IN * 2));
    make(j, w, false);
    run(j);
    memcpy(first, kw_program_result(j->p, "y"), sizeof first);
    size_t packed = kw_store_packed_bytes(j->s), all = kw_program_weight_bytes(j->p);
    assert_true(all >= packed && all >= OUT * IN * 2);
    kw_store_let_go(j->s, 0);
    assert_int_equal(kw_store_packed_bytes(j->s), 0);
    kw_workspace_empty(j->w);
    assert_int_equal(kw_workspace_bytes(j->w), 0);
    run(j);
    assert_memory_equal(first, kw_program_result(j->p, "y"), sizeof first);
    assert_int_equal(kw_store_packed_bytes(j->s), packed);
    end(j);
    kw_block_free(w);
}

/* ---- packed copies of convolutions ------------------------------------------------------------------------------- */

/* A convolution and its dx, to y and dx; packed copies in at most `limit` bytes. Returns how many bytes were kept. */
static size_t both_directions(int kernel, size_t limit, bool back, float *y, float *dx)
{
    enum { SIDE = 8, CHANNELS = 72, N = SIDE * SIDE * CHANNELS };
    job *j = begin();
    kw_graph *g = j->g;
    int id;
    const kw_shape shape = KW_SHAPE(CHANNELS, CHANNELS, kernel, kernel), pixels = KW_SHAPE(1, SIDE, SIDE, CHANNELS);
    static float x[N];
    for (int i = 0; i < N; i++)
        x[i] = (float)(i % 13) * 0.25f - 1;
    assert_int_equal(kw_store_add(j->s, "w", shape, KW_F32, NULL, &id, &j->e), KW_OK);
    float *w = kw_store_write(j->s, id);
    for (int64_t i = 0; i < kw_count(shape); i++)
        w[i] = (float)(i % 17) * 0.125f - 0.8f;
    kw_store_limit_packed(j->s, limit);
    int pad = kernel / 2;
    kw_val in = kw_input(g, "x", pixels, KW_F32), dy = kw_input(g, "dy", pixels, KW_F32), d, out;
    out = kw_conv2d(g, in, kw_state(g, id, shape, KW_F32), KW_NONE, (kw_conv_pads){ 1, pad, pad, pad, pad });
    kw_result(g, "y", out);
    if (back) {
        assert_int_equal(kw_backward(g, &out, &dy, 1, &in, 1, &d, &j->e), KW_OK);
        kw_result(g, "dx", d);
    }
    assert_int_equal(kw_program_new(j->a, g, j->s, NULL, &j->p, &j->e), KW_OK);
    kw_program_set(j->p, "x", x);
    kw_program_set(j->p, "dy", x);
    run(j);
    memcpy(y, kw_program_result(j->p, "y"), sizeof x);
    if (back)
        memcpy(dx, kw_program_result(j->p, "dx"), sizeof x);
    size_t kept = kw_store_packed_bytes(j->s);
    end(j);
    return kept;
}

/* On tiles of our own; oneDNN, which AVX-512 has, wants a layout for each. Kept or packed at each use: the same bits. */
static void both_directions_share_a_copy(void **state)
{
    (void)state;
    enum { N = 8 * 8 * 72 };
    static float y[2][N], dx[2][N];
    for (int kernel = 1; kernel <= 3; kernel += 2) {
        size_t forward = both_directions(kernel, SIZE_MAX, false, y[0], dx[0]);
        size_t both = both_directions(kernel, SIZE_MAX, true, y[0], dx[0]);
        assert_true(kernel == 1 ? !both : forward > 0);
        if (!strstr(kw_kern_get()->isa, "avx512"))
            assert_int_equal(both, forward);
        assert_int_equal(both_directions(kernel, 0, true, y[1], dx[1]), 0);
        assert_memory_equal(y[0], y[1], sizeof y[0]);
        assert_memory_equal(dx[0], dx[1], sizeof dx[0]);
    }
}

static void weights_read_in_place_count(void **state)
{
    (void)state;
    static float w[OUT * IN];
    job *j = begin();
    int id;
    assert_int_equal(kw_store_add(j->s, "w", KW_SHAPE(OUT, IN), KW_F32, w, &id, &j->e), KW_OK);
    assert_int_equal(kw_store_mapped_bytes(j->s), 0);
    kw_store_set_mapped(j->s, id);
    assert_int_equal(kw_store_mapped_bytes(j->s), sizeof w);
    assert_int_equal(kw_store_bytes(j->s), 0);
    end(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_and_work),
        cmocka_unit_test(recomputing_is_not_useful),
        cmocka_unit_test(sums_join_products),
        cmocka_unit_test(pages_of_packed_weights_go),
        cmocka_unit_test(other_memory_stays),
        cmocka_unit_test(weights_read_in_place_count), cmocka_unit_test(weights_let_go_come_back),
        cmocka_unit_test(both_directions_share_a_copy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
