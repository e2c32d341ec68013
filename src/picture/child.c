/* child.c - the life of one decoder child: started, waited for, buried. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_SECONDS 20

static int spawn(char **argv, char **env, int theirs, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&how, 0);         /* a group of its own: the terminal's Ctrl-C is for the program */
    posix_spawnattr_setsigmask(&how, &none);
    posix_spawnattr_setsigdefault(&how, &all);
    int bad = posix_spawn_file_actions_adddup2(&files, theirs, KW_PICTURE_WORKER_FD);
    for (int fd = 0; fd < 3 && !bad; fd++)
        bad = posix_spawn_file_actions_addopen(&files, fd, "/dev/null", O_RDWR, 0);
    if (!bad)
        bad = posix_spawn_file_actions_addclosefrom_np(&files, KW_PICTURE_WORKER_FD + 1);
    if (!bad)
        bad = posix_spawn(pid, argv[0], &files, &how, argv, env);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&how);
    return bad;
}

bool kw_child_wait(const kw_child *c, double seconds)
{
    for (double end = kw_now() + seconds;;) {
        double left = end - kw_now();
        struct pollfd p = { .fd = c->sock, .events = POLLIN };
        int got = poll(&p, 1, left > 0 ? (int)(left * 1000) + 1 : 0);
        if (got > 0)
            return true;
        if (got == 0 || errno != EINTR)
            return false;
    }
}

void kw_child_bury(kw_child *c, char *how, size_t size)
{
    int status = 0;
    close(c->sock);
    if (c->memory >= 0)
        close(c->memory);
    pid_t got = waitpid(c->pid, &status, WNOHANG);
    for (int i = 0; i < 50 && got == 0; i++) {  /* the socket closes a moment before the death is known */
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        got = waitpid(c->pid, &status, WNOHANG);
    }
    if (got == 0) {
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    const char *name = WIFSIGNALED(status) ? sigdescr_np(WTERMSIG(status)) : NULL;
    if (WIFSIGNALED(status))
        snprintf(how, size, "signal %d, %s", WTERMSIG(status), name ? name : "unknown");
    else
        snprintf(how, size, "exit code %d", WEXITSTATUS(status));
    *c = (kw_child){ .sock = -1, .memory = -1 };
}

kw_status kw_child_start(kw_child *c, char **argv, char **env, unsigned *shields, kw_err *e)
{
    int pair[2];
    kw_worker_hello hello = { 0 };
    char how[64];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return kw_fail(e, KW_EDEVICE, "the picture decoder does not start: %s", kw_errno_text(errno));
    int bad = spawn(argv, env, pair[1], &c->pid);
    close(pair[1]);
    if (bad) {
        close(pair[0]);
        c->pid = 0;
        return kw_fail(e, KW_EDEVICE, "the picture decoder %s does not start: %s", argv[0], kw_errno_text(bad));
    }
    c->sock = pair[0];
    c->memory = -1;
    long got = kw_child_wait(c, START_SECONDS) ? kw_packet_receive(c->sock, &hello, sizeof hello, &c->memory) : -1;
    if (got != sizeof hello || hello.magic != KW_WORKER_MAGIC || c->memory < 0) {
        kill(c->pid, SIGKILL);
        kw_child_bury(c, how, sizeof how);
        return kw_fail(e, KW_EDEVICE, "the picture decoder %s does not answer (%s)", argv[0], how);
    }
    *shields = hello.shields;
    return KW_OK;
}
