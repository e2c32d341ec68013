/*
 * sandbox.c - what a decoder child gives up before it sees the first file: memory and time without bound, the file
 * system and network (Landlock), and every system call but those that computing needs (seccomp). Each is tried; what
 * the kernel does not offer is reported, not fatal.
 */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0                             /* AddressSanitizer maps terabytes: no address limit then */
#endif

#define ROOM ((rlim_t)1536 << 20)               /* beyond what is mapped at the start */

/* ---- limits ------------------------------------------------------------------------------------------- */

static rlim_t mapped_now(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%lu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static bool limit(int what, rlim_t most)
{
    struct rlimit r;
    if (getrlimit(what, &r))
        return false;
    r.rlim_cur = r.rlim_max = r.rlim_max == RLIM_INFINITY || most < r.rlim_max ? most : r.rlim_max;
    return !setrlimit(what, &r);
}

static bool limits(void)
{
    rlim_t mapped = mapped_now();
    bool core = limit(RLIMIT_CORE, 0), size = limit(RLIMIT_FSIZE, (rlim_t)KW_PICTURE_MAX_BYTES + 4096);
    bool files = limit(RLIMIT_NOFILE, 32);
    return core && size && files && (SANITIZED || (mapped && limit(RLIMIT_AS, mapped + ROOM)));
}

void kw_sandbox_cpu(int seconds)
{
    struct rusage used;
    struct rlimit r;
    if (getrusage(RUSAGE_SELF, &used) || getrlimit(RLIMIT_CPU, &r))
        return;
    rlim_t most = (rlim_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec + seconds);
    r.rlim_cur = r.rlim_max == RLIM_INFINITY || most < r.rlim_max ? most : r.rlim_max;
    (void)setrlimit(RLIMIT_CPU, &r);
}

/* ---- Landlock: no path may be opened, no TCP port used -------------------------------------------------- */

#ifndef __NR_landlock_create_ruleset
#define __NR_landlock_create_ruleset 444
#define __NR_landlock_restrict_self 446
#endif

static bool landlock(void)
{
    struct { uint64_t files, net, scoped; } all = { 0 };
    long abi = syscall(__NR_landlock_create_ruleset, NULL, 0, 1);   /* 1: which version */
    if (abi < 1)
        return false;
    int rights = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;
    all.files = (1u << rights) - 1;
    all.net = abi >= 4 ? 3 : 0;                                     /* bind, connect */
    all.scoped = abi >= 6 ? 3 : 0;                                  /* abstract sockets, signals */
    int rules = (int)syscall(__NR_landlock_create_ruleset, &all, abi >= 6 ? 24 : abi >= 4 ? 16 : 8, 0);
    if (rules < 0)
        return false;
    bool ok = !syscall(__NR_landlock_restrict_self, rules, 0);
    close(rules);
    return ok;
}

/* ---- seccomp --------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef ARCH

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ARG(i) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * (i))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
#define DENY(error) RETURN(SECCOMP_RET_ERRNO | (error))
/* If the number is NAME, allow when (argument i & bits) is or is not 0, or when argument i equals a value. */
#define CALL(name) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 1), ALLOW
#define CALL_WITHOUT(name, i, bits) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 4), ARG(i), \
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1), DENY(EPERM), ALLOW
#define CALL_WITH(name, i, bits) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 4), ARG(i), \
    BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 1, 0), DENY(EPERM), ALLOW
#define CALL_EQUAL(name, i, value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_##name, 0, 4), ARG(i), \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0), DENY(EPERM), ALLOW

static bool seccomp(void)
{
    struct sock_filter filter[] = {
        LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS), LOAD(nr),
        CALL(read), CALL(write), CALL(pread64), CALL(pwrite64), CALL(readv), CALL(writev), CALL(lseek), CALL(close),
        CALL(recvmsg), CALL(sendmsg), CALL(ftruncate), CALL(fstat), CALL_WITH(newfstatat, 3, AT_EMPTY_PATH),
        CALL_WITHOUT(mmap, 2, PROT_EXEC), CALL_WITHOUT(mprotect, 2, PROT_EXEC), CALL(munmap), CALL(mremap),
        CALL(madvise), CALL(brk), CALL(futex), CALL(sched_yield), CALL(getrandom), CALL(restart_syscall),
        CALL(clock_gettime), CALL(clock_nanosleep), CALL(nanosleep), CALL(gettimeofday), CALL(ppoll),
        CALL(getpid), CALL(gettid), CALL_EQUAL(tgkill, 0, (uint32_t)getpid()), CALL(rt_sigaction),
        CALL(rt_sigprocmask), CALL(rt_sigreturn), CALL(sigaltstack), CALL(exit), CALL(exit_group), CALL(getrusage),
        CALL_EQUAL(prlimit64, 0, 0), CALL(sched_getaffinity), CALL(set_robust_list), CALL(rseq), CALL(sysinfo),
        CALL_WITH(clone, 0, CLONE_THREAD), CALL_EQUAL(prctl, 0, PR_SET_NAME),
#ifdef __NR_poll
        CALL(poll),
#endif
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_clone3, 0, 1), DENY(ENOSYS),    /* glibc falls back to clone */
        DENY(EPERM),
    };
    struct sock_fprog program = { KW_LEN(filter), filter };
    return !syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

#else
static bool seccomp(void) { return false; }
#endif

unsigned kw_sandbox_enter(void)
{
    unsigned on = limits() ? KW_SHIELD_LIMITS : 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return on;
    on |= landlock() ? KW_SHIELD_LANDLOCK : 0;
    on |= seccomp() ? KW_SHIELD_SECCOMP : 0;
    return on;
}
