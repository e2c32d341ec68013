/*
 * test_decoder.c - decoder children: same pixels as in-process, death and hanging cost one picture, shields hold.
 * The program starts itself as the child: "worker" serves normally, "rogue" obeys words in the file.
 */
#include "picture/picture.h"
#include "picture/internal.h"
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *const good[] = { "/proc/self/exe", "worker", NULL };
static const char *const rogue[] = { "/proc/self/exe", "rogue", NULL };

/* ---- the child that misbehaves ----------------------------------------------------------------------------- */

/* What a taken-over decoder could try: each must fail. Returns the first that works. */
static const char *try_to_break_out(void)
{
    if (open("/etc/passwd", O_RDONLY) >= 0)
        return "open";
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0)
        return "socket";
    if (!kill(getppid(), 0))
        return "kill";
    if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        return "executable memory";
    char *args[] = { (char *)(uintptr_t)"true", NULL };
    execv("/bin/true", args);
    return fork() >= 0 ? "fork" : NULL;
}

static kw_status obey(const void *data, size_t n, const uint8_t background[3], kw_picture *p, kw_err *e)
{
    if (n >= 4 && !memcmp(data, "DIE!", 4))
        abort();
    if (n >= 4 && !memcmp(data, "HANG", 4))
        for (;;)
            pause();
    if (n >= 4 && !memcmp(data, "SPIN", 4))
        for (volatile int i = 0;; i++)
            ;
    if (n >= 4 && !memcmp(data, "LEAK", 4)) {
        size_t got = 0;
        for (char *volatile block; (block = malloc(64 << 20)); got += 64)
            *block = 1;
        return kw_fail(e, KW_ENOMEM, "got %zu MiB", got);
    }
    if (n >= 4 && !memcmp(data, "EVIL", 4)) {
        const char *way = try_to_break_out();
        return kw_fail(e, KW_EDATA, "%s", way ? way : "locked in");
    }
    if (n >= 4 && !memcmp(data, "EXIT", 4))
        _exit(7);
    return kw_decode_bytes(data, n, background, p, e);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

static kw_decoder *open_decoder(const char *const *argv, int n)
{
    kw_decoder *d;
    kw_err e = { 0 };
    if (kw_decoder_new(argv, n, &d, &e))
        fail_msg("%s", e.what);
    return d;
}

static void children_give_the_same(void **state)
{
    (void)state;
    kw_decoder *d = open_decoder(good, 1);
    static const char *const names[] = { "exif6-wide.jpg", "rgba.png", "webp-lossy-alpha.webp", "animated.gif",
                                         "palette.tif", "rle8.bmp", "cmyk-profile.jpg", "photo.png", "rgb16-wide.png",
                                         "animated-alpha.webp", "jpeg.tif", "adam7.png", "progressive.jpg" };
    for (size_t i = 0; i < KW_LEN(names); i++) {
        char path[512];
        kw_picture a, b;
        kw_err e = { 0 };
        snprintf(path, sizeof path, GOLDEN "%s", names[i]);
        assert_int_equal(kw_picture_read(path, kw_picture_white, &a, &e), KW_OK);
        if (kw_decoder_read(d, path, kw_picture_white, &b, &e))
            fail_msg("%s", e.what);
        assert_int_equal(a.w, b.w);
        assert_memory_equal(a.rgb, b.rgb, (size_t)a.w * (size_t)a.h * 3);
        assert_memory_equal(&a.info, &b.info, sizeof a.info);
        kw_picture_free(&a);
        kw_picture_free(&b);
    }
    assert_int_equal(kw_decoder_restarts(d), 0);
    unsigned on = kw_decoder_shields(d);
    print_message("           shields: limits %s, seccomp %s, landlock %s\n", on & KW_SHIELD_LIMITS ? "on" : "OFF",
                  on & KW_SHIELD_SECCOMP ? "on" : "OFF", on & KW_SHIELD_LANDLOCK ? "on" : "OFF");
    kw_decoder_free(d);
}

static void bad_files_are_refused_with_their_names(void **state)
{
    (void)state;
    kw_decoder *d = open_decoder(good, 1);
    kw_picture p;
    kw_err e = { 0 };
    assert_int_equal(kw_decoder_read(d, GOLDEN "bomb.png", kw_picture_white, &p, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "bomb.png: 60000x60000"));
    assert_int_equal(kw_decoder_read(d, GOLDEN "cut.jpg", kw_picture_white, &p, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "cut.jpg: "));
    assert_int_equal(kw_decoder_read(d, GOLDEN "picture.avif", kw_picture_white, &p, &e), KW_EDATA);
    assert_non_null(strstr(e.advice, "PNG"));
    assert_int_equal(kw_decoder_read(d, GOLDEN "none", kw_picture_white, &p, &e), KW_EDATA);
    assert_int_equal(kw_decoder_decode(d, "", 0, "x.png", kw_picture_white, &p, &e), KW_EDATA);
    assert_string_equal(e.what, "x.png: the file is empty");
    assert_int_equal(kw_decoder_restarts(d), 0);
    kw_decoder_free(d);
}

static kw_status say(kw_decoder *d, const char *word, kw_err *e)
{
    kw_picture p;
    kw_status s = kw_decoder_decode(d, word, strlen(word), word, kw_picture_white, &p, e);
    kw_picture_free(&p);
    return s;
}

static void still_works(kw_decoder *d)
{
    kw_picture p;
    kw_err e = { 0 };
    if (kw_decoder_read(d, GOLDEN "rgba.png", kw_picture_white, &p, &e))
        fail_msg("%s", e.what);
    kw_picture_free(&p);
}

static void death_and_hanging_cost_one_picture(void **state)
{
    (void)state;
    kw_decoder *d = open_decoder(rogue, 1);
    kw_err e = { 0 };
    assert_int_equal(say(d, "DIE!", &e), KW_EDATA);
    assert_string_equal(e.what, "DIE!: the decoder died of it (signal 6, Aborted)");
    still_works(d);
    assert_int_equal(say(d, "EXIT", &e), KW_EDATA);
    assert_string_equal(e.what, "EXIT: the decoder died of it (exit code 7)");
    still_works(d);
    kw_decoder_timeout(d, 0.3);
    assert_int_equal(say(d, "HANG", &e), KW_EDATA);
    assert_string_equal(e.what, "HANG: not decoded within 0.3 seconds");
    assert_int_equal(say(d, "SPIN", &e), KW_EDATA);
    kw_decoder_timeout(d, 20);
    still_works(d);
    assert_int_equal(kw_decoder_restarts(d), 4);
    kw_decoder_free(d);
}

static void shields_hold(void **state)
{
    (void)state;
    kw_decoder *d = open_decoder(rogue, 1);
    kw_err e = { 0 };
    unsigned on = kw_decoder_shields(d);
    if (on & KW_SHIELD_SECCOMP) {
        assert_int_equal(say(d, "EVIL", &e), KW_EDATA);
        assert_string_equal(e.what, "EVIL: locked in");
    }
#ifndef __SANITIZE_ADDRESS__
    if (on & KW_SHIELD_LIMITS) {
        unsigned mib = 0;
        assert_int_equal(say(d, "LEAK", &e), KW_ENOMEM);
        assert_int_equal(sscanf(e.what, "LEAK: got %u", &mib), 1);
        assert_true(mib <= 1536);
    }
#endif
    kw_decoder_free(d);
}

static void *use(void *d)
{
    for (int i = 0; i < 12; i++) {
        kw_picture p;
        kw_err e = { 0 };
        kw_status s = i % 4 == 3 ? say(d, "DIE!", &e)
            : kw_decoder_read(d, GOLDEN "exif6.jpg", kw_picture_white, &p, &e);
        if (s != (i % 4 == 3 ? KW_EDATA : KW_OK))
            return "wrong";
        if (!s)
            kw_picture_free(&p);
    }
    return NULL;
}

static void several_threads_share_the_workers(void **state)
{
    (void)state;
    kw_decoder *d = open_decoder(rogue, 2);
    pthread_t t[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, use, d), 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        pthread_join(t[i], &wrong);
        assert_null(wrong);
    }
    assert_int_equal(kw_decoder_restarts(d), 12);
    kw_decoder_free(d);
}

static void what_does_not_start_says_so(void **state)
{
    (void)state;
    kw_decoder *d;
    kw_err e = { 0 };
    const char *const missing[] = { "/nonexistent/kiwame", NULL }, *const other[] = { "/bin/true", NULL };
    assert_int_equal(kw_decoder_new(missing, 1, &d, &e), KW_EDEVICE);
    assert_non_null(strstr(e.what, "/nonexistent/kiwame"));
    assert_int_equal(kw_decoder_new(other, 1, &d, &e), KW_EDEVICE);
    assert_int_equal(kw_decoder_new(good, 0, &d, &e), KW_EUSAGE);
}

static void how_fast(void **state)
{
    (void)state;
    struct timespec a, b, c;
    clock_gettime(CLOCK_MONOTONIC, &a);
    kw_decoder *d = open_decoder(good, 1);
    clock_gettime(CLOCK_MONOTONIC, &b);
    for (int i = 0; i < 200; i++)
        still_works(d);
    clock_gettime(CLOCK_MONOTONIC, &c);
    print_message("           start %.1f ms, one small picture %.3f ms\n",
                  (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) * 1e-6,
                  ((double)(c.tv_sec - b.tv_sec) * 1e3 + (double)(c.tv_nsec - b.tv_nsec) * 1e-6) / 200);
    kw_decoder_free(d);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "worker"))
        return kw_picture_worker_main(KW_PICTURE_WORKER_FD);
    if (argc > 1 && !strcmp(argv[1], "rogue"))
        return kw_worker_serve(KW_PICTURE_WORKER_FD, obey);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(children_give_the_same), cmocka_unit_test(bad_files_are_refused_with_their_names),
        cmocka_unit_test(death_and_hanging_cost_one_picture), cmocka_unit_test(shields_hold),
        cmocka_unit_test(several_threads_share_the_workers), cmocka_unit_test(what_does_not_start_says_so),
        cmocka_unit_test(how_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
