/* fixture.h - what the tests of this folder share: an arena, an error, a folder of their own, golden files. */
#ifndef KW_TEST_IO_FIXTURE_H
#define KW_TEST_IO_FIXTURE_H

#include "io/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <unistd.h>

#define GOLDEN KW_TESTS "/golden/io/"

static kw_arena *arena;
static kw_err err;
static char dir[64];

static inline int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "kw-io-XXXXXX");
    arena = kw_arena_new();
    return mkdtemp(dir) && arena ? 0 : -1;
}

static inline int tear_down(void **state)
{
    (void)state;
    kw_arena_free(arena);
    return kw_remove_all(dir, &err);
}

static inline char *in_dir(const char *name) { return kw_path_join(arena, dir, name); }

static inline void must(kw_status s)
{
    if (s)
        fail_msg("%s | %s (%s:%d)", err.what, err.advice, err.file, err.line);
}

#endif
