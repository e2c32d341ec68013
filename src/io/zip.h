/* zip.h - a zip archive in memory, of stored (not compressed) entries, as PyTorch writes it. */
#ifndef KW_IO_ZIP_H
#define KW_IO_ZIP_H

#include "io.h"

typedef struct {
    const char *name;                     /* ends with 0 */
    const void *data;
    uint64_t size, at;                    /* at: the entry's first byte in the file */
    uint32_t crc;
} kw__zip_entry;

typedef struct { kw__zip_entry *entries; size_t n; } kw__zip;       /* sorted by name */

/* KW_EDATA: compressed or encrypted entries, entries that overlap or reach outside, a list that lies. */
KW_MUST kw_status kw__zip_open(kw_arena *a, const char *shown, const void *p, size_t n, kw__zip *zip, kw_err *e);
const kw__zip_entry *kw__zip_find(const kw__zip *zip, const char *name);

uint32_t kw__crc32(uint32_t crc, const void *p, size_t n);         /* zip's; start with 0 */

#endif
