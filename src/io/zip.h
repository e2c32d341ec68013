/* zip.h - a zip archive in memory, as PyTorch writes it: stored entries. Small ones may be compressed (DEFLATE). */
#ifndef KW_IO_ZIP_H
#define KW_IO_ZIP_H

#include "io.h"

typedef struct {
    const char *name;                     /* ends with 0 */
    const void *data;                     /* as it lies in the file */
    uint64_t size, packed, at;            /* packed: bytes in the file; at: the entry's first byte there */
    uint32_t crc;
    bool compressed;
} kw__zip_entry;

typedef struct { kw__zip_entry *entries; size_t n; } kw__zip;       /* sorted by name */

/* KW_EDATA: compressed or encrypted entries, entries that overlap or reach outside, a list that lies. */
KW_MUST kw_status kw__zip_open(kw_arena *a, const char *shown, const void *p, size_t n, kw__zip *zip, kw_err *e);
const kw__zip_entry *kw__zip_find(const kw__zip *zip, const char *name);

/* The entry's bytes, at most `most`; unpacked on the arena where it is compressed. Checked against its CRC-32. */
KW_MUST kw_status kw__zip_read(kw_arena *a, const char *shown, const kw__zip_entry *one, uint64_t most,
                               const void **data, kw_err *e);
/* Are a stored entry's bytes those of its CRC-32? mapped: pages that were read are let go. */
KW_MUST kw_status kw__zip_check(const char *shown, const kw__zip_entry *one, bool mapped, kw_err *e);

/* True: p holds exactly one DEFLATE stream, of `room` bytes, which are in out. */
bool kw__inflate(const void *p, size_t n, void *out, size_t room);

uint32_t kw__crc32(uint32_t crc, const void *p, size_t n);         /* zip's; start with 0 */

#endif
