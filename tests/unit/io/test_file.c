/* test_file.c - reading, atomic writing, locks and checksums; every system call made to fail, and to kill. */
#include "io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/wait.h>
#include <unistd.h>

uint32_t kw__crc32c_plain(uint32_t crc, const void *p, size_t n);

static char dir[64];
static kw_arena *arena;
static kw_err err;

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "kw-io-XXXXXX");
    arena = kw_arena_new();
    return mkdtemp(dir) && arena ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    kw_arena_free(arena);
    return kw_remove_all(dir, &err);
}

static char *in_dir(const char *name) { return kw_path_join(arena, dir, name); }

static void must(kw_status s)
{
    if (s)
        fail_msg("%s | %s (%s:%d)", err.what, err.advice, err.file, err.line);
}

static void writes_and_reads(void **state)
{
    (void)state;
    char *text, hex[65];
    size_t n;
    must(kw_file_write_atomic(in_dir("a"), "hello", 5, &err));
    must(kw_file_read(arena, in_dir("a"), 100, &text, &n, &err));
    assert_int_equal(n, 5);
    assert_string_equal(text, "hello");
    assert_int_equal(kw_file_read(arena, in_dir("a"), 4, &text, &n, &err), KW_EDATA);
    const void *p;
    must(kw_file_map(arena, in_dir("a"), &p, &n, &err));
    assert_memory_equal(p, "hello", 5);
    must(kw_file_write_atomic(in_dir("empty"), "", 0, &err));
    must(kw_file_map(arena, in_dir("empty"), &p, &n, &err));
    assert_int_equal(n, 0);
    must(kw_sha256_file(in_dir("a"), hex, &err));
    assert_string_equal(hex, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
}

static void streams(void **state)
{
    (void)state;
    kw_writer *w;
    char hex[65], again[65];
    must(kw_writer_open(arena, in_dir("s"), 1 << 20, &w, &err));     /* promises more than it writes */
    for (int i = 0; i < 1000; i++)
        must(kw_writer_put(w, "0123456789", 10, &err));
    assert_false(kw_is_file(in_dir("s")));
    must(kw_writer_commit(w, hex, &err));
    must(kw_sha256_file(in_dir("s"), again, &err));
    assert_string_equal(hex, again);
    struct stat st;
    assert_int_equal(stat(in_dir("s"), &st), 0);
    assert_int_equal(st.st_size, 10000);
    assert_int_equal(kw_writer_put(w, "x", 1, &err), KW_ESTORAGE);
    kw_arena *other = kw_arena_new();
    must(kw_writer_open(other, in_dir("given up"), 10, &w, &err));
    kw_arena_free(other);
    char **names;
    size_t n;
    must(kw_dir_list(arena, dir, &names, &n, &err));
    for (size_t i = 0; i < n; i++)
        assert_false(kw_starts_with(names[i], ".tmp-"));
}

static void refuses_what_is_no_file(void **state)
{
    (void)state;
    char *text;
    size_t n;
    assert_int_equal(kw_file_read(arena, dir, 100, &text, &n, &err), KW_EDATA);
    assert_non_null(strstr(err.what, "a folder"));
    assert_int_equal(mkfifo(in_dir("pipe"), 0600), 0);
    assert_int_equal(kw_file_read(arena, in_dir("pipe"), 100, &text, &n, &err), KW_EDATA);   /* and does not wait */
    assert_non_null(strstr(err.what, "a pipe"));
    assert_int_equal(kw_file_read(arena, "/dev/zero", 100, &text, &n, &err), KW_EDATA);
    assert_int_equal(kw_file_read(arena, in_dir("none"), 100, &text, &n, &err), KW_EDATA);
    assert_int_equal(symlink("loop", in_dir("loop")), 0);
    assert_int_equal(kw_file_read(arena, in_dir("loop"), 100, &text, &n, &err), KW_EDATA);
    assert_int_equal(kw_file_write_atomic(dir, "x", 1, &err), KW_ESTORAGE);
    assert_int_equal(kw_file_write_atomic(in_dir("no/where"), "x", 1, &err), KW_ESTORAGE);
}

static void makes_and_removes_folders(void **state)
{
    (void)state;
    char **names, *temp;
    size_t n, removed;
    must(kw_mkdirs(in_dir("x/y/z"), &err));
    must(kw_mkdirs(in_dir("x/y/z/"), &err));
    must(kw_file_write_atomic(in_dir("x/y/f"), "1", 1, &err));
    assert_int_equal(kw_mkdirs(in_dir("x/y/f/g"), &err), KW_ESTORAGE);
    must(kw_file_write_atomic(in_dir("kept"), "1", 1, &err));
    assert_int_equal(symlink("../kept", in_dir("x/link")), 0);
    must(kw_remove_all(in_dir("x"), &err));
    assert_true(kw_is_file(in_dir("kept")));
    assert_false(kw_is_dir(in_dir("x")));

    must(kw_temp_dir(arena, dir, &temp, &err));
    must(kw_file_write_atomic(kw_path_join(arena, temp, "f"), "1", 1, &err));
    must(kw_temp_dir_commit(temp, in_dir("step"), &err));
    assert_true(kw_is_file(in_dir("step/f")));
    must(kw_temp_dir(arena, dir, &temp, &err));
    assert_int_equal(kw_temp_dir_commit(temp, in_dir("step"), &err), KW_ESTORAGE);

    pid_t child = fork();
    if (!child)
        _exit(0);
    waitpid(child, NULL, 0);
    char name[64];
    snprintf(name, sizeof name, ".tmp-%d-0123456789abcdef", (int)child);
    must(kw_mkdirs(kw_path_join(arena, in_dir(name), "inner"), &err));
    must(kw_mkdirs(in_dir(".tmp-mine"), &err));
    must(kw_mkdirs(in_dir(".tmp-1-0123456789abcdef"), &err));     /* process 1 lives */
    must(kw_remove_stale(dir, &removed, &err));
    assert_int_equal(removed, 1);
    must(kw_dir_list(arena, dir, &names, &n, &err));
    int left = 0;
    for (size_t i = 0; i < n; i++)
        left += kw_starts_with(names[i], ".tmp-");
    assert_int_equal(left, 3);                                     /* mine, process 1's, our own failed commit's */
}

static void locks(void **state)
{
    (void)state;
    kw_arena *holder = kw_arena_new();
    must(kw_lock_dir(holder, dir, &err));
    assert_int_equal(kw_lock_dir(arena, dir, &err), KW_EBUSY);
    char pid[32];
    snprintf(pid, sizeof pid, "process %d since 2", (int)getpid());
    assert_non_null(strstr(err.what, pid));
    kw_arena_free(holder);
    must(kw_lock_dir(arena, dir, &err));
}

static void checksums(void **state)
{
    (void)state;
    char hex[65];
    assert_true(kw_sha256_of("abc", 3, hex));
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    unsigned char zeros[32] = { 0 }, ramp[257];
    assert_int_equal(kw_crc32c(0, "123456789", 9), 0xe3069283);    /* the check value of the catalogue */
    assert_int_equal(kw_crc32c(0, zeros, 32), 0x8a9136aa);         /* RFC 3720 B.4 */
    for (int i = 0; i < 257; i++)
        ramp[i] = (unsigned char)(i * 37);
    for (size_t n = 0; n < 257; n++) {
        assert_int_equal(kw_crc32c(7, ramp, n), kw__crc32c_plain(7, ramp, n));
        assert_int_equal(kw_crc32c(kw_crc32c(0, ramp, n), ramp + n, 257 - n), kw_crc32c(0, ramp, 257));
    }
}

/* ---- faults: the old content or the new one, nothing between ------------------------------------------------ */

static const char before[] = "the old content", after[] = "the new content, which is longer";

static void assert_whole(const char *path, bool must_be_old, bool must_be_new)
{
    char *text;
    size_t n;
    kw_arena *a = kw_arena_new();
    must(kw_file_read(a, path, 1000, &text, &n, &err));
    bool old = !strcmp(text, before), new = !strcmp(text, after);
    assert_true(old || new);
    if (must_be_old)
        assert_true(old);
    if (must_be_new)
        assert_true(new);
    kw_arena_free(a);
}

static size_t count_temps(void)
{
    char **names;
    size_t n, found = 0;
    kw_arena *a = kw_arena_new();
    must(kw_dir_list(a, dir, &names, &n, &err));
    for (size_t i = 0; i < n; i++)
        found += kw_starts_with(names[i], ".tmp-");
    kw_arena_free(a);
    return found;
}

static void survives_every_error(void **state)
{
    (void)state;
    static const int errors[] = { ENOSPC, EIO, EINTR, EMFILE };
    char *path = in_dir("f");
    long tried = 0;
    for (size_t k = 0; k < KW_LEN(errors); k++)
        for (int form = 0; form < 4; form++)
            for (long at = 1;; at++) {
                if (errors[k] == EINTR && form & 1)
                    break;                                         /* interrupted for ever: not a disk */
                kw_io_fault f = { .at = at, .error = errors[k], .persistent = form & 1, .half = form & 2 };
                must(kw_file_write_atomic(path, before, sizeof before - 1, &err));
                kw_io_fault_start(&f);
                kw_status s = kw_file_write_atomic(path, after, sizeof after - 1, &err);
                long calls = kw_io_fault_stop();
                assert_whole(path, false, !s);
                if (s)
                    assert_true(s == KW_ESTORAGE || s == KW_ENOMEM);
                tried++;
                if (calls < at) {
                    must(s);
                    break;
                }
                char **names;
                size_t n;
                must(kw_dir_list(arena, dir, &names, &n, &err));
                for (size_t i = 0; i < n; i++)                     /* an unlink that fails may leave one: ours, alive */
                    if (kw_starts_with(names[i], ".tmp-"))
                        must(kw_remove_all(in_dir(names[i]), &err));
            }
    print_message("%ld faults\n", tried);
    assert_true(tried > 200);
}

static void full_disk_leaves_nothing(void **state)
{
    (void)state;
    must(kw_file_write_atomic(in_dir("f"), before, sizeof before - 1, &err));
    static const char *const calls[] = { "open", "fallocate", "write", "fsync", "close", "rename" };
    for (size_t i = 0; i < KW_LEN(calls); i++) {
        kw_io_fault f = { .at = 1, .error = ENOSPC, .only = calls[i] };
        kw_io_fault_start(&f);
        kw_status s = kw_file_write_atomic(in_dir("f"), after, sizeof after - 1, &err);
        kw_io_fault_stop();
        assert_int_equal(s, KW_ESTORAGE);
        assert_non_null(strstr(err.advice, "free some space"));
        assert_whole(in_dir("f"), true, false);
        assert_int_equal(count_temps(), 0);
    }
}

static void a_wrong_byte_on_disk_is_seen(void **state)
{
    (void)state;
    must(kw_file_write_atomic(in_dir("f"), before, sizeof before - 1, &err));
    kw_writer *w;
    must(kw_writer_open(arena, in_dir("f"), 10, &w, &err));
    must(kw_writer_put(w, "0123456789", 10, &err));
    char **names;
    size_t n;
    must(kw_dir_list(arena, dir, &names, &n, &err));
    for (size_t i = 0; i < n; i++)
        if (kw_starts_with(names[i], ".tmp-")) {
            FILE *f = fopen(in_dir(names[i]), "r+");
            fputc('x', f);
            fclose(f);
        }
    assert_int_equal(kw_writer_commit(w, NULL, &err), KW_ESTORAGE);
    assert_non_null(strstr(err.what, "differs"));
    assert_whole(in_dir("f"), true, false);
}

static void survives_a_kill_at_every_call(void **state)
{
    (void)state;
    long at = 1;
    for (;; at++) {
        must(kw_file_write_atomic(in_dir("f"), before, sizeof before - 1, &err));
        pid_t child = fork();
        if (!child) {
            kw_io_fault f = { .at = at, .kill = true, .half = at & 1 };
            kw_io_fault_start(&f);
            kw_status s = kw_file_write_atomic(in_dir("f"), after, sizeof after - 1, &err);
            _exit(s ? 1 : 0);
        }
        int status;
        waitpid(child, &status, 0);
        assert_whole(in_dir("f"), false, WIFEXITED(status));
        must(kw_remove_stale(dir, NULL, &err));
        assert_int_equal(count_temps(), 0);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            break;
        }
    }
    print_message("killed at %ld calls\n", at - 1);
    assert_true(at > 15);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    char *path = in_dir("f");
    must(kw_file_write_atomic(path, before, sizeof before - 1, &err));
    for (long n = 1;; n++) {
        kw_alloc_fail_after(n);
        kw_status s = kw_file_write_atomic(path, after, sizeof after - 1, &err);
        kw_alloc_fail_after(0);
        assert_int_equal(count_temps(), 0);
        if (!s)
            break;
        assert_int_equal(s, KW_ENOMEM);
        assert_whole(path, true, false);
        assert_true(n < 100);
    }
}

static void json_is_read(void **state)
{
    (void)state;
    json_t *j;
    must(kw_file_write_atomic(in_dir("j"), "\xef\xbb\xbf{\"a\": 1.5}", 13, &err));
    must(kw_json_read(arena, in_dir("j"), &j, &err));
    assert_true(json_real_value(json_object_get(j, "a")) == 1.5);
    assert_int_equal(kw_json_parse(arena, "t", "{\"a\":1,\"a\":2}", 13, &j, &err), KW_EDATA);
    char *deep = kw_alloc(arena, 100000);
    memset(deep, '[', 100000);
    assert_int_equal(kw_json_parse(arena, "t", deep, 100000, &j, &err), KW_EDATA);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(writes_and_reads), T(streams), T(refuses_what_is_no_file), T(makes_and_removes_folders), T(locks),
        T(checksums), T(survives_every_error), T(full_disk_leaves_nothing), T(a_wrong_byte_on_disk_is_seen),
        T(survives_a_kill_at_every_call), T(memory_may_run_out), T(json_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
