/* machine.c - what this machine is: processor, memory, disk, libraries; and the OpenMP settings it wants. */
#include "cli.h"
#include "net/net.h"

#include <cpuid.h>
#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <toml++/impl/version.h>

/* ---- processor ------------------------------------------------------------------------------------------- */

/* The value behind "key" and a colon in a file of /proc; false if it is not there. */
static bool read_field(const char *file, const char *key, char *value, size_t size)
{
    char line[512];
    FILE *f = fopen(file, "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!kw_starts_with(line, key) || !colon)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = 0;
        snprintf(value, size, "%s", colon);
        found = true;
    }
    if (f)
        fclose(f);
    return found;
}

static void read_features(kw_machine *m)
{
#if defined __x86_64__
    unsigned a, b, c, d;
    m->avx2 = __builtin_cpu_supports("avx2");
    m->fma = __builtin_cpu_supports("fma");
    m->avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
                && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (__get_cpuid(1, &a, &b, &c, &d))
        m->f16c = m->avx2 && (c & bit_F16C);
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
        m->avx512_bf16 = m->avx512 && (a >> 5 & 1);
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
        m->amx_bf16 = d >> 22 & 1;
#else
    (void)m;
#endif
}

void kw_machine_features(const kw_machine *m, kw_str *out)
{
    const struct { bool has; const char *name; } list[] = {
        { m->avx2, "AVX2" }, { m->fma, "FMA" }, { m->f16c, "F16C" }, { m->avx512, "AVX-512" },
        { m->avx512_bf16, "AVX512-BF16" }, { m->amx_bf16, "AMX-BF16" },
    };
    const char *space = "";
    for (size_t i = 0; i < KW_LEN(list); i++)
        if (list[i].has) {
            kw_str_printf(out, "%s%s", space, list[i].name);
            space = " ";
        }
    if (!*space)
        kw_str_add(out, _(N_("no vector extensions")));
}

/* ---- memory and disk ---------------------------------------------------------------------------------------- */

static double read_number(const char *file)
{
    char text[64] = "";
    FILE *f = fopen(file, "re");
    if (f && !fgets(text, sizeof text, f))
        text[0] = 0;
    if (f)
        fclose(f);
    return text[0] >= '0' && text[0] <= '9' ? (double)strtoull(text, NULL, 10) : 0;     /* "max": no limit */
}

/* The control group's limit, version 2 or 1, and what is used of it. */
static void read_limit(kw_machine *m)
{
    double limit = read_number("/sys/fs/cgroup/memory.max"), used = read_number("/sys/fs/cgroup/memory.current");
    if (limit == 0) {
        limit = read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes");
        used = read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes");
    }
    if (limit <= 0 || limit >= m->memory)
        return;
    m->limit = limit;
    m->free = KW_MIN(m->free, KW_MAX(limit - used, 0.0));
}

void kw_machine_read(kw_machine *m)
{
    char value[96] = "";
    cpu_set_t set;
    struct statvfs disk;
    *m = (kw_machine){ .cores = 1 };
    if (!read_field("/proc/cpuinfo", "model name", m->cpu, sizeof m->cpu))
        snprintf(m->cpu, sizeof m->cpu, "%s", _(N_("unknown processor")));
    if (!sched_getaffinity(0, sizeof set, &set))
        m->cores = CPU_COUNT(&set);
    read_features(m);
    if (read_field("/proc/meminfo", "MemTotal", value, sizeof value))
        m->memory = 1024 * (double)strtoull(value, NULL, 10);
    if (read_field("/proc/meminfo", "MemAvailable", value, sizeof value))
        m->free = 1024 * (double)strtoull(value, NULL, 10);
    read_limit(m);
    if (!statvfs(".", &disk))
        m->disk_free = (double)disk.f_bavail * (double)disk.f_frsize;
}

/* ---- this process ---------------------------------------------------------------------------------------------- */

static double status_bytes(const char *key)
{
    char value[96] = "";
    return read_field("/proc/self/status", key, value, sizeof value) ? 1024 * (double)strtoull(value, NULL, 10) : 0;
}

void kw_process_memory(double *now, double *most)
{
    *now = status_bytes("VmRSS");
    *most = status_bytes("VmHWM");
}

void kw_process_memory_reset(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (f && fputs("5", f) >= 0)
        fflush(f);                        /* a kernel that cannot leaves the peak since the beginning */
    if (f)
        fclose(f);
}

/* ---- libraries: the versions that are loaded, not those compiled against -------------------------------------- */

static const char *text_of(const char *symbol)
{
    const char *(*f)(void);
    *(void **)&f = dlsym(RTLD_DEFAULT, symbol);
    return f ? f() : NULL;
}

static const char *openssl(void)
{
    static char text[32];
    const char *(*f)(int);
    *(void **)&f = dlsym(RTLD_DEFAULT, "OpenSSL_version");
    return f && sscanf(f(0), "OpenSSL %31s", text) == 1 ? text : NULL;      /* "OpenSSL 3.0.11 19 Sep 2023" */
}

static const char *libpng(void)
{
    const char *(*f)(const void *);
    *(void **)&f = dlsym(RTLD_DEFAULT, "png_get_libpng_ver");
    return f ? f(NULL) : NULL;
}

static const char *onednn(void)
{
    static char text[32];
    typedef struct { int major, minor, patch; } version;
    const version *(*f)(void);
    *(void **)&f = dlsym(RTLD_DEFAULT, "dnnl_version");
    if (!f)
        return NULL;
    snprintf(text, sizeof text, "%d.%d.%d", f()->major, f()->minor, f()->patch);
    return text;
}

const kw_library *kw_libraries(void)
{
    static kw_library list[9];
    static char toml[16];
    snprintf(toml, sizeof toml, "%d.%d.%d", TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH);
    size_t n = 0;
    list[n++] = (kw_library){ "oneDNN", "libdnnl2", onednn() };
    list[n++] = (kw_library){ "libvips", "libvips42", text_of("vips_version_string") };
    list[n++] = (kw_library){ "jansson", "libjansson4", text_of("jansson_version_str") };
    list[n++] = (kw_library){ "utf8proc", "libutf8proc2", text_of("utf8proc_version") };
    list[n++] = (kw_library){ "libpng", "libpng16-16", libpng() };
    list[n++] = (kw_library){ "OpenSSL", "libssl3", openssl() };
    list[n++] = (kw_library){ "libcurl", "libcurl4", kw_net_library() };
    list[n++] = (kw_library){ "toml++", "libtomlplusplus-dev", toml };
    return list;
}

/* ---- OpenMP ------------------------------------------------------------------------------------------------------ */

/* The share of the last ten seconds, in percent, in which somebody waited for a core; 0 where the kernel does not
   say. */
static double waiting(void)
{
    char line[128] = "";
    double share = 0;
    FILE *f = fopen("/proc/pressure/cpu", "re");
    if (f && fgets(line, sizeof line, f) && sscanf(line, "some avg10=%lf", &share) != 1)
        share = 0;
    if (f)
        fclose(f);
    return share;
}

/*
 * Between two parallel regions libgomp's threads spin for some 6 ms by default, which on a busy machine takes the core
 * from whoever has work, our own other threads first. Seconds for a step (LoRA, embedded base, batch 1, 2 cores, 2
 * threads; medians scatter by a factor of 2 where the machine is busy):
 *                                         alone     one busy process beside it, others at times
 *   spin count 300000 (the default)                      6.3
 *   spin count  10000 (0.2 ms)            0.024        0.7-1.0
 *   spin count   1000 (20 us)             0.024        0.1-2.4
 *   policy passive                        0.045       0.04-0.07
 *   one thread                            0.028        0.2
 * So: a short spin, the quick hand-over of a quiet machine, unless cores are waited for when the command starts.
 * Binding threads to cores only hurt. libgomp reads its settings before main(), hence the new start; a user's own
 * settings are left alone. No bit depends on this.
 */
void kw_threads_settle(char **argv)
{
    if (getenv("KIWAME_STARTED") || getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY"))
        return;
    setenv("KIWAME_STARTED", "1", 1);
    if (waiting() > 10)
        setenv("OMP_WAIT_POLICY", "passive", 1);
    else
        setenv("GOMP_SPINCOUNT", "1000", 1);
    execv("/proc/self/exe", argv);        /* if that fails, go on with the slower setting */
}
