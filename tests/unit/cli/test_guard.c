/* test_guard.c - a mapped file that becomes shorter while it is read: a message and exit code 3, no crash. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static _Noreturn void read_shrunk(const char *path, int err)
{
    int fd = open(path, O_RDWR);
    dup2(err, STDERR_FILENO);
    kw_guard_files();
    if (ftruncate(fd, 1 << 20))
        _exit(90);
    const volatile char *p = mmap(NULL, 1 << 20, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED || p[5000] || ftruncate(fd, 100))
        _exit(91);
    _exit(92 + p[500000]);
}

static void a_file_that_shrinks_is_no_crash(void **state)
{
    (void)state;
    char path[] = "kw-shrinks-XXXXXX", said[512] = "";
    int fd = mkstemp(path), ends[2], status;
    assert_true(fd >= 0 && !pipe(ends));
    pid_t pid = fork();
    if (!pid)
        read_shrunk(path, ends[1]);
    close(ends[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(read(ends[0], said, sizeof said - 1) > 0);
    unlink(path);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    assert_non_null(strstr(said, "became shorter"));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_file_that_shrinks_is_no_crash) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
