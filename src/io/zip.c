/*
 * zip.c - the list at the end of a zip archive, believed only as far as the entries themselves agree.
 *
 *   entry ... entry | list: one record per entry | (Zip64: end record, its locator) | end record, 22 bytes + comment
 *   entry: 30 bytes | name | extra | data | (descriptor)
 *
 * Format: PKWARE APPNOTE 6.3. Refused: what PyTorch never writes, and whatever two readers could read differently.
 */
#include "zip.h"
#include "internal.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ENTRIES = 1 << 17, MOST_NAME = 1024, END = 22, RECORD = 46, LOCAL = 30, LOCATOR = 20, END64 = 56 };

typedef struct { const char *shown; const unsigned char *p; uint64_t n; kw_err *e; } reader;

static uint64_t get(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

static kw_status bad(const reader *r, const char *why)
{
    return kw_fail(r->e, KW_EDATA, N_("%s: as a zip archive: %s"), r->shown, kw_translate(why));
}

static kw_status bad_entry(const reader *r, const char *name, const char *why)
{
    char shown[96];
    return kw_fail(r->e, KW_EDATA, N_("%s: zip entry \"%s\": %s"), r->shown, kw__shown(name, shown), kw_translate(why));
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

typedef struct { uint64_t at, size, count; } list;

static kw_status read_end64(const reader *r, uint64_t end, list *l)
{
    const unsigned char *locator = r->p + end - LOCATOR;
    uint64_t at = get(locator + 8, 8);
    if (get(locator + 4, 4) || get(locator + 16, 4) > 1)
        return bad(r, N_("it has several volumes"));
    if (at > end - LOCATOR || end - LOCATOR - at < END64 || get(r->p + at, 4) != 0x06064b50)
        return bad(r, N_("its end is damaged"));
    l->count = get(r->p + at + 32, 8);
    l->size = get(r->p + at + 40, 8);
    l->at = get(r->p + at + 48, 8);
    return get(r->p + at + 24, 8) == l->count ? KW_OK : bad(r, N_("it has several volumes"));
}

/* The last place that looks like an end whose comment ends with the file. */
static kw_status find_list(const reader *r, list *l)
{
    uint64_t most = KW_MIN(r->n, (uint64_t)END + 65535), back = END;
    while (back <= most && (get(r->p + r->n - back, 4) != 0x06054b50 || get(r->p + r->n - back + 20, 2) != back - END))
        back++;
    if (back > most)
        return kw_advise(r->e, bad(r, N_("it has no end")),
                         N_("the file is damaged or its download was cut off: get it again"));
    uint64_t end = r->n - back;
    const unsigned char *p = r->p + end;
    if (get(p + 4, 2) || get(p + 6, 2) || get(p + 8, 2) != get(p + 10, 2))
        return bad(r, N_("it has several volumes"));
    *l = (list){ get(p + 16, 4), get(p + 12, 4), get(p + 10, 2) };
    if (end >= LOCATOR && get(p - LOCATOR, 4) == 0x07064b50)
        KW_TRY(read_end64(r, end, l));
    if (l->at > end || l->size > end - l->at || l->count > MOST_ENTRIES || l->size < l->count * RECORD)
        return bad(r, N_("its list of entries is damaged"));
    return KW_OK;
}

/* ---- entries -------------------------------------------------------------------------------------------------- */

/* Sizes and place that are all ones stand in the extra field 1, in this order, those alone. */
static bool read_zip64(const unsigned char *extra, uint64_t n, uint64_t *size, uint64_t *packed, uint64_t *at)
{
    uint64_t *fields[] = { size, packed, at };
    bool wanted = *size == 0xffffffff || *packed == 0xffffffff || *at == 0xffffffff;
    while (wanted && n >= 4) {
        uint64_t id = get(extra, 2), length = get(extra + 2, 2), k = 0;
        if (length > n - 4)
            return false;
        for (size_t i = 0; id == 1 && i < KW_LEN(fields); i++)
            if (*fields[i] == 0xffffffff) {
                if (k + 8 > length)
                    return false;
                *fields[i] = get(extra + 4 + k, 8);
                k += 8;
            }
        if (id == 1)
            return true;
        extra += 4 + length;
        n -= 4 + length;
    }
    return !wanted;
}

static bool is_safe_name(const char *name, size_t n)
{
    return n && n < MOST_NAME && !memchr(name, 0, n) && kw__utf8(name, n) && *name != '/' && !memchr(name, '\\', n);
}

/* The entry's own head must tell the same. Sizes that follow the data (flag 8) may be absent there. */
static kw_status check_local(const reader *r, kw__zip_entry *one, const unsigned char *record, size_t n_name)
{
    if (one->at > r->n || r->n - one->at < LOCAL || get(r->p + one->at, 4) != 0x04034b50)
        return bad_entry(r, one->name, N_("it is not where the list says"));
    const unsigned char *p = r->p + one->at;
    uint64_t head = LOCAL + get(p + 26, 2) + get(p + 28, 2), flags = get(p + 6, 2);
    if (get(p + 26, 2) != n_name || r->n - one->at < head || memcmp(p + LOCAL, one->name, n_name)
        || get(p + 8, 2) != get(record + 10, 2) || (flags & ~8ull) != (get(record + 8, 2) & ~8ull))
        return bad_entry(r, one->name, N_("the list and the entry differ"));
    uint64_t size = get(p + 22, 4), packed = get(p + 18, 4), none = 0;
    if (!read_zip64(p + LOCAL + n_name, get(p + 28, 2), &size, &packed, &none)
        || (!(flags & 8) && (size != one->size || packed != one->packed || get(p + 14, 4) != one->crc))
        || (flags & 8 && size && size != one->size))
        return bad_entry(r, one->name, N_("the list and the entry differ"));
    if (one->packed > r->n - one->at - head)
        return kw_advise(r->e, bad_entry(r, one->name, N_("its data reaches beyond the end of the file")),
                         N_("the file is damaged or its download was cut off: get it again"));
    one->data = p + head;
    return KW_OK;
}

static kw_status read_entry(kw_arena *a, const reader *r, const unsigned char *record, kw__zip_entry *one)
{
    size_t n_name = (size_t)get(record + 28, 2);
    const char *name = (const char *)record + RECORD;
    if (!is_safe_name(name, n_name))
        return bad(r, N_("an entry has an impossible name"));
    *one = (kw__zip_entry){ .name = kw_strndup(a, name, n_name), .size = get(record + 24, 4),
                            .packed = get(record + 20, 4), .at = get(record + 42, 4),
                            .crc = (uint32_t)get(record + 16, 4), .compressed = get(record + 10, 2) == 8 };
    if (!one->name)
        return kw__no_memory(r->e, r->shown);
    if (kw_starts_with(one->name, "../") || strstr(one->name, "/../") || kw_ends_with(one->name, "/.."))
        return bad(r, N_("an entry has an impossible name"));
    if (get(record + 8, 2) & 0x2041)
        return bad_entry(r, one->name, N_("it is encrypted"));
    if (get(record + 10, 2) && !one->compressed)
        return bad_entry(r, one->name, N_("it is compressed in an unusual way"));
    if (!read_zip64(record + RECORD + n_name, get(record + 30, 2), &one->size, &one->packed, &one->at)
        || (one->packed != one->size && !one->compressed) || get(record + 34, 2))
        return bad_entry(r, one->name, N_("its sizes are damaged"));
    return check_local(r, one, record, n_name);
}

static int by_place(const void *x, const void *y)
{
    const kw__zip_entry *a = x, *b = y;
    return (a->at > b->at) - (a->at < b->at);
}

static int by_name(const void *x, const void *y)
{
    return strcmp(((const kw__zip_entry *)x)->name, ((const kw__zip_entry *)y)->name);
}

/* One byte belongs to one entry, and one name to one entry: what a bomb and a disguise are made of. */
static kw_status check_all(const reader *r, kw__zip *zip, uint64_t list_at)
{
    qsort(zip->entries, zip->n, sizeof *zip->entries, by_place);
    for (size_t i = 0; i < zip->n; i++) {
        const kw__zip_entry *one = &zip->entries[i];
        uint64_t end = (uint64_t)((const unsigned char *)one->data - r->p) + one->packed;
        if (end > (i + 1 < zip->n ? zip->entries[i + 1].at : list_at))
            return bad_entry(r, one->name, N_("its data overlaps another's"));
    }
    qsort(zip->entries, zip->n, sizeof *zip->entries, by_name);
    for (size_t i = 1; i < zip->n; i++)
        if (!strcmp(zip->entries[i].name, zip->entries[i - 1].name))
            return bad_entry(r, zip->entries[i].name, N_("it is there twice"));
    return KW_OK;
}

kw_status kw__zip_open(kw_arena *a, const char *shown, const void *p, size_t n, kw__zip *zip, kw_err *e)
{
    reader r = { shown, p, n, e };
    list l = { 0 };
    KW_TRY(find_list(&r, &l));
    const unsigned char *at = r.p + l.at, *end = at + l.size;
    *zip = (kw__zip){ .entries = kw_alloc_array(a, (size_t)l.count + 1, sizeof *zip->entries) };
    if (!zip->entries)
        return kw__no_memory(e, shown);
    for (uint64_t i = 0; i < l.count; i++) {
        if (end - at < RECORD || get(at, 4) != 0x02014b50)
            return bad(&r, N_("its list of entries is damaged"));
        uint64_t length = RECORD + get(at + 28, 2) + get(at + 30, 2) + get(at + 32, 2);
        if ((uint64_t)(end - at) < length)
            return bad(&r, N_("its list of entries is damaged"));
        KW_TRY(read_entry(a, &r, at, &zip->entries[zip->n]));
        zip->n++;
        at += length;
    }
    return check_all(&r, zip, l.at);
}

const kw__zip_entry *kw__zip_find(const kw__zip *zip, const char *name)
{
    kw__zip_entry key = { .name = name };
    return zip->n ? bsearch(&key, zip->entries, zip->n, sizeof key, by_name) : NULL;
}

/* ---- what is in them ------------------------------------------------------------------------------------------ */

static kw_status wrong(const char *shown, const char *name, const char *why, kw_err *e)
{
    reader r = { .shown = shown, .e = e };
    return kw_advise(e, bad_entry(&r, name, why),
                     N_("the file is damaged or its download was cut off: get it again"));
}

/* In pieces, so that a checkpoint of some GB does not fill the memory. 0: a writer that leaves the sum away. */
kw_status kw__zip_check(const char *shown, const kw__zip_entry *one, bool mapped, kw_err *e)
{
    const uint64_t piece = 8 << 20;
    const char *p = one->data;
    uint32_t crc = 0;
    for (uint64_t at = 0; one->crc && at < one->size; at += piece) {
        size_t n = (size_t)KW_MIN(piece, one->size - at);
        crc = kw__crc32(crc, p + at, n);
        if (mapped)
            kw__let_go(p + at, n);
    }
    return one->crc == crc || !one->crc ? KW_OK
        : wrong(shown, one->name, N_("its bytes are not those of its checksum"), e);
}

kw_status kw__zip_read(kw_arena *a, const char *shown, const kw__zip_entry *one, uint64_t most, const void **data,
                       kw_err *e)
{
    char *room;
    *data = one->data;
    if (one->size > most) {
        reader r = { .shown = shown, .e = e };
        return bad_entry(&r, one->name, N_("it is larger than it may be"));
    }
    if (!one->compressed)
        return kw__zip_check(shown, one, false, e);
    if (!(room = kw_alloc(a, (size_t)one->size + 1)))
        return kw__no_memory(e, shown);
    if (!kw__inflate(one->data, (size_t)one->packed, room, (size_t)one->size))
        return wrong(shown, one->name, N_("it cannot be unpacked"), e);
    *data = room;
    return !one->crc || kw__crc32(0, room, (size_t)one->size) == one->crc ? KW_OK
        : wrong(shown, one->name, N_("its bytes are not those of its checksum"), e);
}

/* ---- CRC-32 (IEEE 802.3): the remainder of the reversed polynomial 0xedb88320 --------------------------------- */

/* table[k][b]: byte b with k zero bytes behind it; eight bytes are taken in one step. */
static void fill_table(uint32_t table[8][256])
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int i = 0; i < 8; i++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        table[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++)
            table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 255];
}

uint32_t kw__crc32(uint32_t crc, const void *p, size_t n)
{
    static const uint32_t nibbles[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    enum { WORTH = 1 << 15 };             /* bytes from which a table pays */
    const unsigned char *b = p;
    crc = ~crc;
    if (n >= WORTH) {
        uint32_t t[8][256], low, high;
        fill_table(t);
        for (; n >= 8; n -= 8, b += 8) {
            memcpy(&low, b, 4);
            memcpy(&high, b + 4, 4);
            low ^= crc;
            crc = t[7][low & 255] ^ t[6][low >> 8 & 255] ^ t[5][low >> 16 & 255] ^ t[4][low >> 24]
                ^ t[3][high & 255] ^ t[2][high >> 8 & 255] ^ t[1][high >> 16 & 255] ^ t[0][high >> 24];
        }
    }
    for (; n; n--) {
        crc ^= *b++;
        crc = crc >> 4 ^ nibbles[crc & 15];
        crc = crc >> 4 ^ nibbles[crc & 15];
    }
    return ~crc;
}
