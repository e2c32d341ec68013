/* hash.c - SHA-256 (OpenSSL's) and CRC-32C (RFC 3720; the processor's instruction where it has one). */
#include "internal.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

void kw_sha256_start(kw_sha256 *s)
{
    s->state = EVP_MD_CTX_new();
    s->failed = !s->state || EVP_DigestInit_ex(s->state, EVP_sha256(), NULL) != 1;
}

void kw_sha256_add(kw_sha256 *s, const void *p, size_t n)
{
    if (!s->failed)
        s->failed = EVP_DigestUpdate(s->state, p, n) != 1;
}

bool kw_sha256_end(kw_sha256 *s, char hex[65])
{
    unsigned char digest[32] = { 0 };
    unsigned length = 0;
    if (!s->failed)
        s->failed = EVP_DigestFinal_ex(s->state, digest, &length) != 1;
    EVP_MD_CTX_free(s->state);
    s->state = NULL;
    for (int i = 0; i < 32; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[64] = 0;
    return !s->failed;
}

bool kw_sha256_of(const void *p, size_t n, char hex[65])
{
    kw_sha256 s;
    kw_sha256_start(&s);
    kw_sha256_add(&s, p, n);
    return kw_sha256_end(&s, hex);
}

/* Feed the bytes [from, from + most) of a file, piece by piece, so that a model larger than memory is no trouble. */
static kw_status hash_range(const char *path, uint64_t from, uint64_t most, char hex[65], kw_err *e)
{
    enum { PIECE = 1 << 20 };
    int fd;
    struct stat st;
    KW_TRY(kw__open_regular(path, &fd, &st, e));
    char *piece = kw_block_new(PIECE);
    kw_sha256 s;
    kw_sha256_start(&s);
    uint64_t at = 0;
    ssize_t n = 1;
    while (piece && at < from + most && (n = kw__read(fd, piece, PIECE)) > 0) {
        uint64_t low = KW_MAX(at, from), high = KW_MIN(at + (uint64_t)n, from + most);
        if (low < high)
            kw_sha256_add(&s, piece + (low - at), (size_t)(high - low));
        at += (uint64_t)n;
    }
    bool whole = kw_sha256_end(&s, hex) && piece;
    kw_block_free(piece);
    kw_status status = n < 0 ? kw__sys_fail(e, KW_ESTORAGE, "read", path) : KW_OK;
    if (piece && !n && at < KW_MIN((uint64_t)st.st_size, from + most))
        status = kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: became shorter while it was being read"), path),
                           N_("another program writes to it: try again when it is done"));
    kw_io_now->close(fd);
    return status || whole ? status : kw_fail(e, KW_ENOMEM, "%s: out of memory", path);
}

kw_status kw_sha256_file(const char *path, char hex[65], kw_err *e)
{
    return hash_range(path, 0, UINT64_MAX, hex, e);
}

kw_status kw_sha256_short(const char *path, char hex[9], kw_err *e)
{
    char all[65];
    KW_TRY(hash_range(path, 0x100000, 0x10000, all, e));
    memcpy(hex, all, 8);
    hex[8] = 0;
    return KW_OK;
}

/* ---- CRC-32C: the remainder of the reversed polynomial 0x82f63b78 ------------------------------------- */

static uint32_t crc_by_nibbles(uint32_t c, const unsigned char *p, size_t n)
{
    static const uint32_t table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
        0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
    };
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        c = c >> 4 ^ table[c & 15];
        c = c >> 4 ^ table[c & 15];
    }
    return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_by_instruction(uint32_t crc, const unsigned char *p, size_t n)
{
    uint64_t c = crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        c = _mm_crc32_u64(c, v);
    }
    for (; n; p++, n--)
        c = _mm_crc32_u8((uint32_t)c, *p);
    return (uint32_t)c;
}
#endif

uint32_t kw_crc32c(uint32_t crc, const void *p, size_t n)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_by_instruction(~crc, p, n);
#endif
    return ~crc_by_nibbles(~crc, p, n);
}

uint32_t kw__crc32c_plain(uint32_t crc, const void *p, size_t n) { return ~crc_by_nibbles(~crc, p, n); }
