/* cmd_debug_tokens.c - kiwame debug tokens: the ids of texts, to be compared with transformers' CLIPTokenizer. */
#include "cli.h"
#include "io/io.h"
#include "text/text.h"

#include <string.h>

typedef struct { const char *text, *base, *file; } config;

static const kw_option options[] = {
    KW_ROW_TEXT("text", config, text, NULL, N_("the text"), .flags = KW_OPT_POSITIONAL | KW_OPT_BYTES),
    KW_ROW_PATH("base", config, base, NULL, N_("take this model's tokenizer; CLIP's own unless given"), .value = "DIR"),
    KW_ROW_PATH("file", config, file, NULL, N_("each line is a text; each answer is a line")),
    KW_ROW_END
};

/* A model's tokenizer/, or that folder itself. */
static kw_status open_tokenizer(kw_arena *a, const char *base, kw_tokenizer **t, kw_err *e)
{
    static const char *const files[] = { "vocab.json", "tokenizer.json" };
    kw_source *source;
    for (size_t i = 0; base && i < KW_LEN(files); i++) {
        char *path = kw_path_join(a, base, files[i]);
        if (!path)
            return kw_fail(e, KW_ENOMEM, "out of memory");
        if (kw_is_file(path))
            return kw_tokenizer_open(a, base, t, e);
    }
    if (!base)
        return kw_tokenizer_clip(a, t, e);
    KW_TRY(kw_source_open(a, base, &source, e));
    const char *dir = kw_source_tokenizer(source, KW_PART_TEXT);
    return dir ? kw_tokenizer_open(a, dir, t, e) : kw_tokenizer_clip(a, t, e);
}

static kw_status print_ids(const kw_tokenizer *t, const char *text, size_t n, kw_err *e)
{
    kw_tokens tokens = { 0 };
    kw_arena *a = kw_arena_new();
    kw_status s = a ? kw_tokenize(t, a, text, n, &tokens, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    if (!s) {
        putchar('[');
        for (size_t i = 0; i < tokens.n; i++)
            printf("%s%d", i ? ", " : "", (int)tokens.ids[i]);
        puts("]");
    }
    kw_arena_free(a);
    return s;
}

static kw_status print_file(kw_arena *a, const kw_tokenizer *t, const char *path, kw_err *e)
{
    char *data;
    size_t n;
    KW_TRY(kw_file_read(a, path, 256u << 20, &data, &n, e));
    for (size_t at = 0, length; at < n; at += length + 1) {
        const char *end = memchr(data + at, '\n', n - at);
        length = end ? (size_t)(end - (data + at)) : n - at;
        KW_TRY(print_ids(t, data + at, length, e));
    }
    return KW_OK;
}

static kw_status run(kw_cli *cli, void *arg, kw_err *e)
{
    const config *c = arg;
    kw_tokenizer *t;
    if (!c->text == !c->file)
        return kw_fail(e, KW_EUSAGE, N_("give either a text or --file"));
    KW_TRY(open_tokenizer(cli->arena, c->base, &t, e));
    return c->file ? print_file(cli->arena, t, c->file, e) : print_ids(t, c->text, strlen(c->text), e);
}

const kw_command kw_command_debug_tokens = {
    .name = "tokens", .help = N_("the ids of a text alone: no start, end, padding or truncation"),
    .about = N_("Prints JSON. What is not valid UTF-8 counts as U+FFFD."), .options = options,
    .config_size = sizeof(config), .run = run,
};
