/* test_base.c - arenas, texts and number formats. */
#include "base/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static int calls;
static void count(void *arg) { (void)arg; calls++; }

static void arena_runs_deferred_calls(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    calls = 0;
    assert_int_equal(kw_defer(a, count, NULL), KW_OK);
    char *p = kw_alloc(a, 1 << 20);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    assert_int_equal(p[12345], 0);
    kw_arena_free(a);
    assert_int_equal(calls, 1);
}

static void allocation_failure_is_an_answer(void **state)
{
    (void)state;
    kw_arena *a = kw_arena_new();
    kw_alloc_fail_after(2);
    assert_non_null(kw_alloc(a, 8));
    assert_null(kw_alloc(a, 8));
    assert_non_null(kw_alloc(a, 8));
    calls = 0;
    kw_alloc_fail_after(1);
    assert_int_equal(kw_defer(a, count, NULL), KW_ENOMEM);
    assert_int_equal(calls, 1);
    assert_null(kw_alloc_array(a, SIZE_MAX / 2, 4));
    kw_arena_free(a);
}

static void half_round_trips(void **state)
{
    (void)state;
    for (unsigned h = 0; h < 0x10000; h++) {
        float f = kw_f16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true(isnan(kw_f16_to_f32(kw_f32_to_f16(f))));
        else
            assert_int_equal(kw_f32_to_f16(f), h);
        float b = kw_bf16_to_f32((uint16_t)h);
        if (!isnan(b))
            assert_int_equal(kw_f32_to_bf16(b), h);
    }
    assert_int_equal(kw_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(kw_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(kw_f32_to_f16(1.00048828125f), 0x3c00);       /* halfway: to even */
    assert_int_equal(kw_f32_to_bf16(1.00390625f), 0x3f80);
}

static void errors_carry_advice(void **state)
{
    (void)state;
    kw_err e = { 0 };
    kw_status s = kw_fail(&e, KW_EDATA, "%s: cannot open", "x.png");
    s = kw_advise(&e, s, "check the path");
    assert_int_equal(s, KW_EDATA);
    assert_string_equal(e.what, "x.png: cannot open");
    assert_string_equal(e.advice, "check the path");
    assert_int_equal(kw_status_exit_code(KW_ESTORAGE), 5);
}

static void strings_grow(void **state)
{
    (void)state;
    kw_str b = { 0 };
    for (int i = 0; i < 1000; i++)
        kw_str_printf(&b, "%d,", i);
    assert_true(kw_starts_with(b.s, "0,1,2,"));
    assert_true(kw_ends_with(b.s, ",999,"));
    kw_str_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_runs_deferred_calls), cmocka_unit_test(allocation_failure_is_an_answer),
        cmocka_unit_test(half_round_trips), cmocka_unit_test(errors_carry_advice), cmocka_unit_test(strings_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
