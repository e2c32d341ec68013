/* vocab_clip.c - CLIP's vocabulary, embedded in the program: data/clip/merges.txt, from which all tokens follow. */
#include "bpe.h"

#include <string.h>

extern const char kw_clip_merges[], kw_clip_merges_end[];
__asm__(".pushsection .rodata\n"
        ".hidden kw_clip_merges\n.hidden kw_clip_merges_end\n"
        ".globl kw_clip_merges\n.globl kw_clip_merges_end\n"
        "kw_clip_merges: .incbin \"" KW_DATA "/clip/merges.txt\"\n"
        "kw_clip_merges_end: .byte 0\n"
        ".popsection\n");

enum { MERGES = 48894, SIZE = 512 + MERGES + 2 };

/* The 512 byte symbols; returns where the next name can go. */
static char *byte_symbols(kw_vocab *v, char *p)
{
    for (unsigned i = 0; i < 512; i++) {
        size_t n = kw_utf8_put(kw_byte_letter(kw_byte_of_symbol(i % 256)), p);
        memcpy(p + n, "</w>", 5);
        n += i < 256 ? 0 : 4;
        p[n] = 0;
        kw_vocab_put(v, p, n, i);
        p += n + 1;
    }
    return p;
}

/* One line "left right" of the merges: the token of both is named at p. Returns the name's length, 0: a broken line. */
static size_t add_merge(kw_tokenizer *t, const char *line, size_t n, uint32_t rank, char *p)
{
    const char *space = memchr(line, ' ', n);
    if (!space)
        return 0;
    size_t left = (size_t)(space - line), right = n - left - 1;
    int l = kw_vocab_find(&t->vocab, line, left), r = kw_vocab_find(&t->vocab, space + 1, right);
    if (l < 0 || r < 0)
        return 0;
    memcpy(p, line, left);
    memcpy(p + left, space + 1, right);
    p[left + right] = 0;
    kw_vocab_put(&t->vocab, p, left + right, 512 + rank);
    kw_merges_put(&t->merges, (uint32_t)l, (uint32_t)r, rank, 512 + rank);
    return left + right;
}

kw_status kw_tokenizer_clip(kw_arena *a, kw_tokenizer **out, kw_err *e)
{
    static const kw_special_spec specials[] = { { "<|startoftext|>", true }, { "<|endoftext|>", false } };
    size_t bytes = (size_t)(kw_clip_merges_end - kw_clip_merges);
    kw_tokenizer *t = *out = kw_alloc(a, sizeof *t);
    char *names = kw_alloc(a, bytes + 512 * 8);
    if (!t || !names)
        return kw_fail(e, KW_ENOMEM, "out of memory for CLIP's vocabulary");
    KW_TRY(kw_vocab_new(a, SIZE, &t->vocab, e));
    KW_TRY(kw_merges_new(a, MERGES, &t->merges, e));
    names = byte_symbols(&t->vocab, names);
    const char *line = memchr(kw_clip_merges, '\n', bytes);
    uint32_t rank = 0;
    for (; line && line + 1 < kw_clip_merges_end && rank < MERGES; rank++) {
        const char *start = line + 1;
        line = memchr(start, '\n', (size_t)(kw_clip_merges_end - start));
        size_t n = line ? add_merge(t, start, (size_t)(line - start), rank, names) : 0;
        if (!n)
            break;
        names += n + 1;
    }
    KW_ASSERT(rank == MERGES);
    for (size_t i = 0; i < KW_LEN(specials); i++)
        kw_vocab_put(&t->vocab, specials[i].content, strlen(specials[i].content), 512 + MERGES + i);
    t->bos = SIZE - 2;
    t->eos = t->pad = t->unk = SIZE - 1;
    t->max_length = 77;
    kw_tokenizer_bind(t);
    return kw_tokenizer_specials(t, a, specials, KW_LEN(specials), e);
}

kw_status kw_bpe_clip(kw_arena *a, kw_bpe *out, kw_err *e)
{
    kw_tokenizer *t;
    KW_TRY(kw_tokenizer_clip(a, &t, e));
    *out = (kw_bpe){ .names = kw_alloc_array(a, SIZE, sizeof *out->names), .size = SIZE, .n_merges = MERGES,
                     .merges = kw_alloc_array(a, MERGES, sizeof *out->merges) };
    if (!out->names || !out->merges)
        return kw_fail(e, KW_ENOMEM, "out of memory for CLIP's vocabulary");
    for (size_t i = 0; i < SIZE; i++)
        out->names[i] = kw_token_name(t, (int)i);
    const char *at = strchr(kw_clip_merges, '\n') + 1;
    for (uint32_t rank = 0; rank < MERGES; rank++) {
        const char *space = strchr(at, ' '), *end = strchr(at, '\n');
        out->merges[rank][0] = (uint32_t)kw_vocab_find(&t->vocab, at, (size_t)(space - at));
        out->merges[rank][1] = (uint32_t)kw_vocab_find(&t->vocab, space + 1, (size_t)(end - space - 1));
        at = end + 1;
    }
    return KW_OK;
}
