/* cmd_vocab.c - kiwame vocab: a tokenizer in CLIP's form from texts of one's own. */
#include "cli.h"
#include "io/io.h"
#include "text/text.h"

#include <string.h>

typedef struct { const char *texts, *out; int size, length; int64_t least; } config;

static const kw_option options[] = {
    KW_ROW_PATH("texts", config, texts, NULL, N_("file with one text per line"), .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED, .value = "FILE"),
    KW_ROW_PATH("out", config, out, NULL, N_("tokenizer folder to write"), .flags = KW_OPT_REQUIRED, .letter = 'o', .value = "DIR"),
    KW_ROW_INT("size", config, size, 2048, 515, 1000000, N_("entries of the vocabulary")),
    KW_ROW_INT("max-length", config, length, 77, 4, 512, N_("tokens of a text with its start and end marks")),
    KW_ROW_INT64("least", config, least, 2, 1, 1000000, N_("pairs seen less often are not joined")),
    KW_ROW_END
};

static kw_status split(kw_cli *c, char *text, kw_bpe_text **out, size_t *n, kw_err *e)
{
    size_t capacity = 0;
    *n = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        KW_TRY(kw_grow(c->arena, out, &capacity, *n, sizeof **out, e));
        (*out)[(*n)++] = (kw_bpe_text){ line, 1 };
    }
    return *n ? KW_OK : kw_fail(e, KW_EDATA, "there are no texts");
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    const config *o = arg;
    char *text;
    size_t size, n;
    kw_bpe_text *texts = NULL;
    kw_bpe bpe;
    KW_TRY(kw_file_read(c->arena, o->texts, 256u << 20, &text, &size, e));
    KW_TRY(split(c, text, &texts, &n, e));
    kw_say(c, _(N_("learning the vocabulary")));
    kw_status learnt = kw_bpe_train(c->arena, texts, n, (size_t)o->size, (uint64_t)o->least, &bpe, e);
    kw_hush(c);
    KW_TRY(learnt);
    KW_TRY(kw_mkdirs(o->out, e));
    kw_guard_begin();
    kw_status s = kw_bpe_write(&bpe, o->out, o->length, e);
    kw_guard_end();
    KW_TRY(s);
    kw_str shown = { 0 };
    kw_show_json_text(&shown, o->out);
    if (c->global.json)
        printf("{\"folder\":%s,\"size\":%zu}\n", shown.s ? shown.s : "null", bpe.size);
    else
        printf("%s  %zu\n", o->out, bpe.size);
    kw_str_free(&shown);
    return KW_OK;
}

const kw_command kw_command_vocab = {
    .name = "vocab", .help = N_("make a tokenizer in CLIP's form from texts"), .options = options, .config_size = sizeof(config), .run = run,
};
