/*
 * fuzz_option.c - libFuzzer: arguments and recipes. The first byte chooses: an argument per line, or a recipe.
 * What is accepted must be within its range, and must read back from the written recipe with the same bits.
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -Isrc tests/fuzz/fuzz_option.c src/base/<all>
 */
#include <math.h>
#include <string.h>

#include "base/base.h"

typedef struct {                          /* numbers first: they are compared byte by byte */
    int rank, clip;
    float alpha;
    unsigned init;
    double rate;
    int64_t steps;
    uint64_t memory, seed;
    bool flip;
    char pad[7];
    const char *dir, *trigger, *base;
    kw_texts lora, words;
} config;

#define C config
static const kw_option rows[] = {
    KW_ROW_PATH("data", C, dir, NULL, "folder", .value = "DIR", .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED),
    KW_ROW_INT("rank", C, rank, 16, 1, 1024, "inner dimension", .alias = "network_dim|dim", .step = 1, .letter = 'r'),
    KW_ROW_INT("clip", C, clip, 1, 1, 12, "clip", .word = "off", .word_is = 0),
    KW_ROW_FLOAT("alpha", C, alpha, 16, 0, 1024, "scale"),
    KW_ROW_CHOICE("init", C, init, 0, "kaiming|orthogonal", "start"),
    KW_ROW_DOUBLE("learning-rate", C, rate, 1e-4, 0, 1, "rate", .flags = KW_OPT_ABOVE, .alias = "lr"),
    KW_ROW_INT64("steps", C, steps, 1000, 1, 1e15, "steps"),
    KW_ROW_SIZE("memory", C, memory, 0, 1048576, INFINITY, "memory", .word = "auto"),
    KW_ROW_SEED("seed", C, seed, 42, "seed"),
    KW_ROW_BOOL("flip", C, flip, false, "flip", .letter = 'f'),
    KW_ROW_TEXT("trigger", C, trigger, NULL, "word", .flags = KW_OPT_OR_INT),
    KW_ROW_PATH("base", C, base, "emoji", "base", .flags = KW_OPT_OR_NAME),
    KW_ROW_PATHS("lora", C, lora, "adapters"),
    KW_ROW_LIST("words", C, words, "the rest", .flags = KW_OPT_POSITIONAL | KW_OPT_NO_RECIPE),
    KW_ROW_END
};
#undef C

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static kw_options *begin(kw_arena *a, config *c)
{
    kw_options *o = kw_options_new(a);
    KW_ASSERT(o && kw_options_add(o, rows, c, "train", NULL) == KW_OK);
    return o;
}

static kw_status read_arguments(kw_arena *a, kw_options *o, const char *text, size_t n, kw_err *e)
{
    char *argv[64], *copy = kw_strndup(a, text, n);
    int argc = 0;
    KW_ASSERT(copy);
    for (char *line = copy; line && argc < 64;) {
        argv[argc++] = line;
        line = strchr(line, '\n');
        if (line)
            *line++ = 0;
    }
    return kw_options_argv(o, argc, argv, e);
}

static void check_ranges(const config *c)
{
    KW_ASSERT(c->rank >= 1 && c->rank <= 1024 && c->clip >= 0 && c->clip <= 12 && c->init <= 1);
    KW_ASSERT(c->alpha >= 0 && c->alpha <= 1024 && c->rate > 0 && c->rate <= 1);
    KW_ASSERT(c->steps >= 1 && c->steps <= 1000000000000000 && (!c->memory || c->memory >= 1048576));
}

static void check_round_trip(kw_arena *a, const kw_options *o, const config *c)
{
    config d;
    kw_err e = { 0 };
    kw_str first = { 0 }, second = { 0 };
    memset(&d, 0, sizeof d);
    kw_options *p = begin(a, &d);
    KW_ASSERT(kw_options_write_toml(o, false, &first, NULL) == KW_OK);
    kw_status s = kw_options_toml(p, first.s, first.n, "recipe.toml", KW_FROM_RECIPE, &e);
    if (s)
        KW_BUG("%s in %s", e.what, first.s);
    KW_ASSERT(kw_options_write_toml(p, false, &second, NULL) == KW_OK);
    KW_ASSERT(!strcmp(first.s, second.s) && !memcmp(c, &d, offsetof(config, dir)));
    kw_str_free(&first);
    kw_str_free(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    config c;
    kw_err e = { 0 };
    kw_arena *a = kw_arena_new();
    KW_ASSERT(a);
    memset(&c, 0, sizeof c);
    kw_options *o = begin(a, &c);
    const char *text = (const char *)data + 1;
    kw_status s = data[0] & 1 ? read_arguments(a, o, text, size - 1, &e)
                              : kw_options_toml(o, text, size - 1, "x/recipe.toml", KW_FROM_RECIPE, &e);
    check_ranges(&c);
    if (s)
        KW_ASSERT(e.what[0] && e.status == s);
    else
        check_round_trip(a, o, &c);
    kw_arena_free(a);
    return 0;
}
