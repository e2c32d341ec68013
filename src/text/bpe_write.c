/* bpe_write.c - a vocabulary as the tokenizer/ folder of a diffusers model. */
#include "text.h"

#include "io/io.h"

#include <string.h>

const char *const kw_bpe_names[KW_BPE_FILES] = { "vocab.json", "merges.txt", "special_tokens_map.json",
                                                 "tokenizer_config.json" };

/* Names hold no control characters: bytes are written as visible letters. */
static void add_vocab(const kw_bpe *b, kw_str *t)
{
    for (size_t i = 0; i < b->size; i++) {
        kw_str_add(t, i ? ",\n\"" : "{\n\"");
        for (const char *p = b->names[i]; *p; p++) {
            if (*p == '"' || *p == '\\')
                kw_str_add_n(t, "\\", 1);
            kw_str_add_n(t, p, 1);
        }
        kw_str_printf(t, "\": %zu", i);
    }
    kw_str_add(t, "\n}\n");
}

static void add_merges(const kw_bpe *b, kw_str *t)
{
    kw_str_add(t, "#version: 0.2\n");
    for (size_t i = 0; i < b->n_merges; i++)
        kw_str_printf(t, "%s %s\n", b->names[b->merges[i][0]], b->names[b->merges[i][1]]);
}

#define FLAGS "\"lstrip\": false, \"normalized\": true, \"rstrip\": false, \"single_word\": false}"
#define SPECIALS(type) \
    "  \"bos_token\": {" type "\"content\": \"<|startoftext|>\", " FLAGS ",\n" \
    "  \"eos_token\": {" type "\"content\": \"<|endoftext|>\", " FLAGS ",\n" \
    "  \"unk_token\": {" type "\"content\": \"<|endoftext|>\", " FLAGS ",\n" \
    "  \"pad_token\": \"%s\""

kw_status kw_bpe_texts(const kw_bpe *b, int max_length, const char *pad, kw_str out[KW_BPE_FILES], kw_err *e)
{
    bool failed = false;
    pad = pad ? pad : "<|endoftext|>";
    memset(out, 0, KW_BPE_FILES * sizeof *out);
    add_vocab(b, &out[0]);
    add_merges(b, &out[1]);
    kw_str_printf(&out[2], "{\n" SPECIALS("") "\n}\n", pad);
    kw_str_printf(&out[3], "{\n" SPECIALS("\"__type\": \"AddedToken\", ") ",\n  \"add_prefix_space\": false,\n"
                  "  \"do_lower_case\": true,\n  \"errors\": \"replace\",\n  \"model_max_length\": %d,\n"
                  "  \"tokenizer_class\": \"CLIPTokenizer\"\n}\n", pad, max_length);
    for (int i = 0; i < KW_BPE_FILES; i++)
        failed |= out[i].failed;
    for (int i = 0; failed && i < KW_BPE_FILES; i++)
        kw_str_free(&out[i]);
    return failed ? kw_fail(e, KW_ENOMEM, N_("out of memory for %s"), kw_bpe_names[0]) : KW_OK;
}

static kw_status save(const char *dir, const char *name, const kw_str *text, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    char *path = a ? kw_path_join(a, dir, name) : NULL;
    kw_status s = !path ? kw_fail(e, KW_ENOMEM, N_("out of memory for %s"), name)
                        : kw_file_write_atomic(path, text->s, text->n, e);
    kw_arena_free(a);
    return s;
}

kw_status kw_bpe_write(const kw_bpe *b, const char *dir, int max_length, kw_err *e)
{
    kw_str texts[KW_BPE_FILES];
    KW_TRY(kw_mkdirs(dir, e));
    KW_TRY(kw_bpe_texts(b, max_length, NULL, texts, e));
    kw_status s = KW_OK;
    for (int i = 0; i < KW_BPE_FILES; i++) {
        if (!s)
            s = save(dir, kw_bpe_names[i], &texts[i], e);
        kw_str_free(&texts[i]);
    }
    return s;
}
