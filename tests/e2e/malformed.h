/*
 * malformed.h - what the tests of malformed files share: a row is a file with one fault, the command that it is given
 * to, and what that must say. It must exit as it promises, within a second and 64 MB, and write nothing.
 */
#ifndef KW_TEST_MALFORMED_H
#define KW_TEST_MALFORMED_H

#include "io/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char binary[4096], base[4096], dir[64];

/* How a row's bytes become the file `f`; and the command it is given to. */
typedef enum { RAW, HEADER, PICKLE, SHELL } form;
typedef enum { INSPECT, GENERATE, CONVERT, LORA, RUN } use;
enum { FINE = -1 };
typedef struct {
    const char *id, *says;
    form form;
    const char *p;
    size_t n, data;                       /* data: bytes behind a header, or the file's length with a hole at its end */
    use use;
    int code;                             /* 0: 3; FINE: 0 */
    int fill;                             /* the bytes behind a header */
    const char *patch;                    /* then "FILE TENSOR BITS" of a number, or "... BITS all", "... x20000" */
    const char *run;                      /* RUN: the command, a script; without limits of time and memory */
} row;

#define R(id, says, bytes) { id, says, RAW, bytes, sizeof bytes - 1, 0, INSPECT, 0, 0, NULL, NULL }
#define H(id, says, text, data) { id, says, HEADER, text, sizeof text - 1, data, INSPECT, 0, 0, NULL, NULL }
#define P(id, says, bytes) { id, says, PICKLE, bytes, sizeof bytes - 1, 0, INSPECT, 0, 0, NULL, NULL }
#define S(id, says, use, script) { id, says, SHELL, script, 0, 0, use, 0, 0, NULL, NULL }
#define T(shape, from, to) "{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"
#define ONE T("[1]", "0", "4")
#define A(tensor) "{\"a\":" tensor "}"

/* ---- making them ------------------------------------------------------------------------------------------------- */

/* The legacy form's head: from here a pickle is read. */
static const char head[] = "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\2M\xe9\3.\x80\2}.";

static void put(FILE *f, const void *p, size_t n) { assert_int_equal(fwrite(p, 1, n, f), n); }

/* One number of a tensor in a file, or all of them, becomes these bits. */
static void patch(const char *how)
{
    char path[256], name[256], bits[32], word[8] = "";
    float x;
    kw_arena *a = kw_arena_new();
    kw_tensors *t;
    uint64_t header = 0;
    kw_err e;
    assert_true(sscanf(how, "%255s %255s %31s %7s", path, name, bits, word) >= 3);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &header, 8, 0) == 8);
    assert_int_equal(kw_tensors_open(a, path, &t, &e), KW_OK);
    const kw_tensor *one = kw_tensors_find(t, name);
    assert_non_null(one);
    size_t size = kw_dtype_size(one->dtype), n = *word || *bits == 'x' ? (size_t)kw_tensor_count(one) : 1;
    off_t at = (off_t)(8 + header) + ((const char *)one->data - (const char *)kw_tensors_at(t, 0)->data);
    for (size_t i = 0; i < n; i++) {
        uint64_t v = strtoull(bits, NULL, 16);
        kw_convert(KW_F32, &x, one->dtype, (const char *)one->data + i * size, 1);
        x *= strtof(bits + 1, NULL);
        if (*bits == 'x')
            kw_convert(one->dtype, &v, KW_F32, &x, 1);
        assert_int_equal(pwrite(fd, &v, size, at + (off_t)(i * size)), size);
    }
    close(fd);
    kw_arena_free(a);
}

static void make(const row *r)
{
    char number[8] = { 0 };
    if (r->form == SHELL) {
        assert_int_equal(system(r->p), 0);
        if (r->patch)
            patch(r->patch);
        return;
    }
    FILE *f = fopen("f", "wb");
    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        number[i] = (char)((uint64_t)r->n >> 8 * i);
    if (r->form == HEADER)
        put(f, number, 8);
    if (r->form == PICKLE)
        put(f, head, sizeof head - 1);
    put(f, r->p, r->n);
    assert_int_equal(fflush(f), 0);
    for (size_t i = 0; r->fill && i < r->data; i++)
        assert_true(fputc(r->fill, f) >= 0 && (i + 1 < r->data || !fflush(f)));
    if (r->data)
        assert_int_equal(ftruncate(fileno(f), (off_t)(r->form == HEADER ? 8 + r->n + r->data : r->data)), 0);
    fclose(f);
}

/* ---- giving them ------------------------------------------------------------------------------------------------- */

static _Noreturn void child(const row *r)
{
    int out = open("said", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const char *file = access("f.json", F_OK) ? "f" : "f.json";
    dup2(out, 1);
    dup2(out, 2);
    if (r->use == INSPECT)
        execl(binary, binary, "inspect", file, (char *)NULL);
    else if (r->use == CONVERT)
        execl(binary, binary, "convert", file, "new", (char *)NULL);
    else if (r->use == RUN)
        execl("/bin/sh", "sh", "-c", r->run, (char *)NULL);
    else if (r->use == LORA)
        execl(binary, binary, "generate", "x", "--base", base, "--lora", "./f", "--out", "never", "--steps", "1",
              (char *)NULL);
    else
        execl(binary, binary, "generate", "x", "--base", file, "--out", "never", "--steps", "1", (char *)NULL);
    _exit(99);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int wrong;

static void check(const row *r, size_t i, double *slowest, long *largest)
{
    static char said[1 << 16];
    int status;
    struct rusage used;
    double start = seconds();
    pid_t pid = fork();
    if (!pid)
        child(r);
    assert_int_equal(wait4(pid, &status, 0, &used), pid);
    double cpu = (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec
        + 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    FILE *f = fopen("said", "rb");
    said[f ? fread(said, 1, sizeof said - 1, f) : 0] = 0;
    fclose(f);
    const int code = r->code == FINE ? 0 : r->code ? r->code : 3;
    const char *why = !WIFEXITED(status) || WEXITSTATUS(status) != code ? "another exit code"
                    : !strstr(said, r->says) ? "another message"
                    : code && (!access("never", F_OK) || !access("new", F_OK)) ? "something was written" : NULL;
#ifndef __SANITIZE_ADDRESS__
    if (!why && r->use != RUN && (cpu > 1 || used.ru_maxrss > 64 << 10))
        why = "too much time or memory";
#endif
    wrong += why != NULL;
    if (why)
        print_message("row %zu (%s, \"%s\"): %s: status %d, %.2f s, %ld kB: %s", i, r->id, r->says, why, status, cpu,
                      used.ru_maxrss, said);
    *slowest = KW_MAX(*slowest, KW_MIN(cpu, seconds() - start));
    *largest = KW_MAX(*largest, used.ru_maxrss);
}

static void try_all(const row *rows, size_t n)
{
    double slowest = 0;
    long largest = 0;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(mkdir("one", 0700), 0);
        assert_int_equal(chdir("one"), 0);
        make(&rows[i]);
        check(&rows[i], i, &slowest, &largest);
        assert_int_equal(chdir(".."), 0);
        assert_int_equal(system("rm -rf one"), 0);
    }
    assert_int_equal(wrong, 0);
    print_message("%zu files, at most %.2f s and %ld kB each\n", n, slowest, largest);
}

static inline int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "kw-malformed-XXXXXX");
    if (!mkdtemp(dir) || chdir(dir))
        return -1;
    FILE *f = fopen("head", "wb");
    char *here = realpath(".", NULL), path[4200];
    put(f, head, sizeof head - 1);
    fclose(f);
    snprintf(path, sizeof path, "%s/head", here);
    free(here);
    return setenv("HEAD", path, 1) || setenv("GOLDEN", KW_TESTS "/golden/io", 1) || setenv("TESTS", KW_TESTS, 1)
        || setenv("BASE", base, 1)
        || setenv("KIWAME", binary, 1) || setenv("KIWAME_LANG", "en", 1) || setenv("OMP_WAIT_POLICY", "passive", 1);
}

static inline int tear_down(void **state)
{
    (void)state;
    kw_err e;
    return chdir("..") || kw_remove_all(dir, &e);
}

/* The program is the first argument. */
static bool find_program(int argc, char **argv)
{
    return argc > 1 && realpath(argv[1], binary) && realpath(KW_TESTS "/../data/shapes", base);
}

#endif
