/* lib.c - starting libvips once, quietly, without threads, caches or plug-ins that we do not need. */
#include "internal.h"

#include <pthread.h>
#include <string.h>
#include <vips/vips.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool started;

/* libvips and GLib report through g_log, which prints; our errors carry the text instead. */
static void swallow(const char *domain, GLogLevelFlags level, const char *text, void *user)
{
    (void)domain, (void)level, (void)text, (void)user;
}

static void start(void)
{
    GLogLevelFlags all = (GLogLevelFlags)(G_LOG_LEVEL_MASK & ~G_LOG_LEVEL_ERROR);
    g_log_set_handler("VIPS", all, swallow, NULL);
    if (vips_init("kiwame"))
        return;
    vips_block_untrusted_set(TRUE);
    vips_cache_set_max(0);
    vips_concurrency_set(1);
    started = true;
}

kw_status kw_vips_start(kw_err *e)
{
    pthread_once(&once, start);
    if (!started)
        return kw_fail(e, KW_EDEVICE, "the picture library (libvips) does not start");
    return KW_OK;
}

void kw_vips_lock(void) { pthread_mutex_lock(&lock); }
void kw_vips_unlock(void) { pthread_mutex_unlock(&lock); }

kw_status kw_vips_fail(kw_err *e)
{
    char line[256] = "";
    const char *text = vips_error_buffer();
    size_t n = strcspn(text, "\r\n");
    memcpy(line, text, n = KW_MIN(n, sizeof line - 1));
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)line[i] < 0x20 || (uint8_t)line[i] > 0x7e)      /* bytes of the file must not reach a terminal */
            line[i] = '?';
    bool memory = strstr(text, "out of memory") || strstr(text, "unable to allocate");
    vips_error_clear();
    if (memory)
        return kw_fail(e, KW_ENOMEM, "no memory to decode it (%s)", line);
    return kw_fail(e, KW_EDATA, "damaged or not supported (%s)", n ? line : "no reason given");
}
