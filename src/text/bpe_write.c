/* bpe_write.c - a trained vocabulary as the tokenizer/ folder of a diffusers model. */
#include "text.h"

#include "io/io.h"

#include <string.h>

static kw_status save(const char *dir, const char *name, kw_str *text, kw_err *e)
{
    kw_arena *a = kw_arena_new();
    char *path = a ? kw_path_join(a, dir, name) : NULL;
    kw_status s = !path || text->failed ? kw_fail(e, KW_ENOMEM, N_("out of memory for %s"), name)
                                        : kw_file_write_atomic(path, text->s, text->n, e);
    kw_arena_free(a);
    kw_str_free(text);
    return s;
}

/* Names hold no control characters: bytes are written as visible letters. */
static kw_status write_vocab(const kw_bpe *b, const char *dir, kw_err *e)
{
    kw_str t = { 0 };
    for (size_t i = 0; i < b->size; i++) {
        kw_str_add(&t, i ? ",\n\"" : "{\n\"");
        for (const char *p = b->names[i]; *p; p++) {
            if (*p == '"' || *p == '\\')
                kw_str_add_n(&t, "\\", 1);
            kw_str_add_n(&t, p, 1);
        }
        kw_str_printf(&t, "\": %zu", i);
    }
    kw_str_add(&t, "\n}\n");
    return save(dir, "vocab.json", &t, e);
}

static kw_status write_merges(const kw_bpe *b, const char *dir, kw_err *e)
{
    kw_str t = { 0 };
    kw_str_add(&t, "#version: 0.2\n");
    for (size_t i = 0; i < b->n_merges; i++)
        kw_str_printf(&t, "%s %s\n", b->names[b->merges[i][0]], b->names[b->merges[i][1]]);
    return save(dir, "merges.txt", &t, e);
}

#define FLAGS "\"lstrip\": false, \"normalized\": true, \"rstrip\": false, \"single_word\": false}"
#define SPECIALS(type) \
    "  \"bos_token\": {" type "\"content\": \"<|startoftext|>\", " FLAGS ",\n" \
    "  \"eos_token\": {" type "\"content\": \"<|endoftext|>\", " FLAGS ",\n" \
    "  \"unk_token\": {" type "\"content\": \"<|endoftext|>\", " FLAGS ",\n" \
    "  \"pad_token\": \"<|endoftext|>\""

kw_status kw_bpe_write(const kw_bpe *b, const char *dir, int max_length, kw_err *e)
{
    kw_str config = { 0 }, map = { 0 };
    KW_TRY(kw_mkdirs(dir, e));
    KW_TRY(write_vocab(b, dir, e));
    KW_TRY(write_merges(b, dir, e));
    kw_str_add(&map, "{\n" SPECIALS("") "\n}\n");
    KW_TRY(save(dir, "special_tokens_map.json", &map, e));
    kw_str_printf(&config, "{\n" SPECIALS("\"__type\": \"AddedToken\", ") ",\n  \"add_prefix_space\": false,\n"
                  "  \"do_lower_case\": true,\n  \"errors\": \"replace\",\n  \"model_max_length\": %d,\n"
                  "  \"tokenizer_class\": \"CLIPTokenizer\"\n}\n", max_length);
    return save(dir, "tokenizer_config.json", &config, e);
}
