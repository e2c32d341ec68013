/* test_forecast.c - what of a block lies in memory, and that forecasts of work add up from nodes. */
#include "run/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGE = 4096, PAGES = 600, TOUCHED = 37 };

/* Pages that were written, no others; given back, none. Small pages: no huge ones are asked for here. */
static void what_was_touched_is_resident(void **state)
{
    (void)state;
    char *p = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    (void)madvise(p, PAGES * PAGE, MADV_NOHUGEPAGE);
    assert_int_equal(kw__resident_of(p, PAGES * PAGE), 0);
    for (int i = 0; i < TOUCHED; i++)
        p[i * 7 * PAGE] = 1;
    assert_int_equal(kw__resident_of(p, PAGES * PAGE), TOUCHED * PAGE);
    assert_int_equal(kw__resident_of(p + 7 * PAGE, PAGE), PAGE);
    assert_int_equal(kw__resident_of(p + PAGE, PAGE), 0);
    assert_int_equal(kw__resident_of(p, 0), 0);
    assert_true(kw__resident_bytes() > TOUCHED * PAGE);
    munmap(p, PAGES * PAGE);
}

/* A store's memory is not what the process has beside it, however much of it was written. */
static void the_stores_memory_is_not_beside_it(void **state)
{
    (void)state;
    enum { FLOATS = 16 << 20 };
    kw_arena *a = kw_arena_new();
    kw_store *s = kw_store_new(a);
    kw_err e;
    int id;
    assert_int_equal(kw_store_add(s, "w", KW_SHAPE(FLOATS), KW_F32, NULL, &id, &e), KW_OK);
    double before = (double)kw_forecast_beside(s);
    memset(kw_store_write(s, id), 1, FLOATS * sizeof(float));
    double after = (double)kw_forecast_beside(s), resident = (double)kw_store_resident(s);
    assert_float_equal(resident, FLOATS * sizeof(float), 1e5);
    assert_float_equal(after, before, 2e6);        /* of 67e6; seen: 0.1e6 */
    kw_arena_free(a);
}

/* Twice the rows: twice the FLOPs and inputs' bytes, but the same weight and one node: more work, less than twice. */
static void work_grows_with_the_rows(void **state)
{
    (void)state;
    double work[2];
    for (int i = 0; i < 2; i++) {
        kw_arena *a = kw_arena_new();
        kw_store *s = kw_store_new(a);
        kw_graph *g = kw_graph_new(a, KW_F32);
        kw_program *p;
        kw_err e;
        int id;
        assert_int_equal(kw_store_add(s, "w", KW_SHAPE(512, 512), KW_F32, NULL, &id, &e), KW_OK);
        kw_val x = kw_input(g, "x", KW_SHAPE(256 << i, 512), KW_F32);
        kw_result(g, "y", kw_linear(g, x, kw_state(g, id, KW_SHAPE(512, 512), KW_F32), KW_NONE));
        assert_int_equal(kw_program_new(a, g, s, NULL, &p, &e), KW_OK);
        work[i] = kw_forecast_work(p);
        assert_true(work[i] >= kw_program_flops(p) && work[i] == kw_forecast_forward(p));
        assert_true(kw_forecast_bytes(p) > (double)kw_program_bytes(p) + (256 << i) * 512 * 4.0 + 512 * 512 * 4.0);
        kw_arena_free(a);
    }
    assert_true(work[1] > 1.2 * work[0] && work[1] <= 2 * work[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_touched_is_resident), cmocka_unit_test(the_stores_memory_is_not_beside_it),
        cmocka_unit_test(work_grows_with_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
