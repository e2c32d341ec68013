/*
 * resident.c - what of this process lies in memory now, by the kernel's own tables: /proc/self/statm for all of it,
 * /proc/self/pagemap (a word for each page, bit 63: present) for a range.
 */
#include "store.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

size_t kw__resident_bytes(void)
{
    unsigned long long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return (size_t)resident * (size_t)sysconf(_SC_PAGESIZE);
}

size_t kw__resident_of(const void *data, size_t bytes)
{
    enum { PIECE = 4096 };
    uint64_t word[PIECE];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t first = (uintptr_t)data / page, end = ((uintptr_t)data + bytes + page - 1) / page, present = 0;
    int f = bytes ? open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1;
    while (f >= 0 && first < end) {
        ssize_t got = pread(f, word, sizeof *word * KW_MIN(end - first, (size_t)PIECE), (off_t)(sizeof *word * first));
        if (got < (ssize_t)sizeof *word)
            break;
        size_t n = (size_t)got / sizeof *word;
        for (size_t i = 0; i < n; i++)
            present += word[i] >> 63;
        first += n;
    }
    if (f >= 0)
        close(f);
    return KW_MIN(present * page, bytes);
}
