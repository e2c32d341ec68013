/*
 * guard.c - Ctrl-C while a file is being written: the file is finished first, so that no half one stays behind.
 *
 *   handler: stop = n; if writing, return
 *   writer:  writing = true; if stop, end here; write; writing = false; if stop, end here
 *
 * In sequentially consistent order one of the two always sees the other. Runs have a way of their own (run_frame.c).
 */
#include "cli.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static atomic_int stop, writing;

static void die(int number)
{
    signal(number, SIG_DFL);
    raise(number);
    _exit(128 + number);                  /* where the signal is blocked */
}

static void on_signal(int number)
{
    if (atomic_exchange(&stop, number) || !atomic_load(&writing))      /* twice: at once */
        die(number);
}

static void end_if_stopped(void)
{
    int number = atomic_load(&stop);
    if (!number)
        return;
    fflush(stdout);
    die(number);
}

void kw_guard_begin(void)
{
    static const int caught[] = { SIGINT, SIGTERM };
    static bool ready;
    for (size_t i = 0; i < KW_LEN(caught) && !ready; i++) {
        struct sigaction now, a = { .sa_handler = on_signal, .sa_flags = SA_RESTART | SA_NODEFER };
        if (!sigaction(caught[i], NULL, &now) && now.sa_handler == SIG_DFL)     /* nohup's and a shell's SIG_IGN stay */
            sigaction(caught[i], &a, NULL);
    }
    ready = true;
    atomic_store(&writing, 1);
    end_if_stopped();
}

void kw_guard_end(void)
{
    atomic_store(&writing, 0);
    end_if_stopped();
}

/* ---- files that shrink while they are mapped --------------------------------------------------------------------- */

static char shrunk[512];                  /* made beforehand: a handler may not translate */

static void on_bus(int number)
{
    (void)number;
    ssize_t n = write(STDERR_FILENO, shrunk, strlen(shrunk));
    (void)n;
    _exit(kw_status_exit_code(KW_EDATA));
}

void kw_guard_files(void)
{
    const struct sigaction a = { .sa_handler = on_bus };
    snprintf(shrunk, sizeof shrunk, "\nkiwame: %s\n",
             _(N_("a file became shorter while it was being read, or its disk failed: check it, and try again")));
    sigaction(SIGBUS, &a, NULL);
}

bool kw_guard_stopped(void) { return atomic_load(&stop) != 0; }
