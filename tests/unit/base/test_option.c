/* test_option.c - option tables: arguments, recipes, ranges, near words, output that reads back. */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/base.h"

typedef struct {
    int rank, resolution, clip;
    int64_t steps;
    float alpha, dropout;
    double rate;
    bool flip, shuffle;
    unsigned init;
    const char *dir, *base, *trigger, *size;
    kw_texts lora, words;
    uint64_t memory, seed;
} config;

#define C config
static const kw_option rows[] = {
    KW_ROW_PATH("data", C, dir, NULL, "folder", .value = "DIR", .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED),
    KW_ROW_GROUP("Adapter"),
    KW_ROW_INT("rank", C, rank, 16, 1, 1024, "inner dimension", .alias = "network_dim|dim"),
    KW_ROW_FLOAT("alpha", C, alpha, 16, 0, 1024, "scale"),
    KW_ROW_FLOAT("dropout", C, dropout, 0.1, 0, 0.9, "dropout"),
    KW_ROW_DOUBLE("learning-rate", C, rate, 1e-4, 0, 1, "rate", .flags = KW_OPT_ABOVE, .alias = "lr"),
    KW_ROW_INT("resolution", C, resolution, 512, 64, 2048, "size", .step = 8, .unit = "px", .letter = 'r'),
    KW_ROW_INT("clip", C, clip, 1, 1, 12, "clip", .word = "off", .word_is = 0),
    KW_ROW_INT64("steps", C, steps, 1000, 1, 1e9, "steps"),
    KW_ROW_BOOL("flip", C, flip, false, "flip", .letter = 'f'),
    KW_ROW_BOOL("shuffle", C, shuffle, true, "shuffle", .letter = 's'),
    KW_ROW_CHOICE("init", C, init, 0, "kaiming|orthogonal", "start"),
    KW_ROW_TEXT("trigger", C, trigger, NULL, "word"),
    KW_ROW_TEXT("size", C, size, "512,512", "text or integer", .flags = KW_OPT_OR_INT),
    KW_ROW_PATH("base", C, base, "emoji", "base", .flags = KW_OPT_OR_NAME),
    KW_ROW_PATHS("lora", C, lora, "adapters"),
    KW_ROW_SIZE("memory", C, memory, 0, 1048576, INFINITY, "memory", .word = "auto"),
    KW_ROW_SEED("seed", C, seed, 42, "seed"),
    KW_ROW_LIST("words", C, words, "the rest", .flags = KW_OPT_POSITIONAL | KW_OPT_NO_RECIPE),
    KW_ROW_END
};
#undef C

typedef struct { kw_arena *arena; kw_options *o; config c; kw_err e; } set;

static set *begin(void)
{
    set *s = calloc(1, sizeof *s);
    s->arena = kw_arena_new();
    s->o = kw_options_new(s->arena);
    assert_int_equal(kw_options_add(s->o, rows, &s->c, "train", &s->e), KW_OK);
    return s;
}

static void end(set *s)
{
    kw_arena_free(s->arena);
    free(s);
}

/* One string of arguments, split at blanks. */
static kw_status argv_of(set *s, const char *line)
{
    char *argv[64], *copy = kw_strdup(s->arena, line);
    int n = 0;
    for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "))
        argv[n++] = w;
    return kw_options_argv(s->o, n, argv, &s->e);
}

static kw_status toml_of(set *s, const char *text)
{
    return kw_options_toml(s->o, text, strlen(text), "there/recipe.toml", KW_FROM_RECIPE, &s->e);
}

static void contains(const char *whole, const char *part)
{
    if (!strstr(whole, part))
        fail_msg("'%s' does not contain '%s'", whole, part);
}

static void table_is_sound(void **state)
{
    (void)state;
    set *s = begin();
    assert_int_equal(kw_options_check(s->o, &s->e), KW_OK);
    assert_int_equal(s->c.rank, 16);
    assert_true(s->c.shuffle);
    assert_string_equal(s->c.base, "emoji");
    assert_null(s->c.trigger);
    end(s);
}

static void bad_tables_are_found(void **state)
{
    (void)state;
    static const kw_option twice[] = { KW_ROW_INT("a-b", config, rank, 1, 0, 9, "h"),
                                       KW_ROW_INT("a_b", config, clip, 1, 0, 9, "h"), KW_ROW_END };
    static const kw_option alias[] = { KW_ROW_INT("a", config, rank, 1, 0, 9, "h"),
                                       KW_ROW_INT("b", config, clip, 1, 0, 9, "h", .alias = "a"), KW_ROW_END };
    static const kw_option range[] = { KW_ROW_INT("a", config, rank, 10, 0, 9, "h"), KW_ROW_END };
    static const kw_option choice[] = { KW_ROW_CHOICE("a", config, init, 2, "x|y", "h"), KW_ROW_END };
    const kw_option *const all[] = { twice, alias, range, choice };
    for (size_t i = 0; i < KW_LEN(all); i++) {
        kw_arena *a = kw_arena_new();
        kw_options *o = kw_options_new(a);
        config c;
        assert_int_equal(kw_options_add(o, all[i], &c, NULL, NULL), KW_OK);
        assert_int_equal(kw_options_check(o, NULL), KW_EUSAGE);
        kw_arena_free(a);
    }
}

static void arguments(void **state)
{
    (void)state;
    set *s = begin();
    assert_int_equal(argv_of(s, "pictures --rank 8 --alpha=0.5 --no-shuffle -f -r64 --lr 3e-5 --lora a --lora=b "
                                "--network_dim 9 --memory 6.5G --init orthogonal --seed 18446744073709551615 "
                                "--clip off --steps 100000 x -- --rank y"), KW_OK);
    assert_string_equal(s->c.dir, "pictures");
    assert_int_equal(s->c.rank, 9);                    /* the last one counts, alias or not */
    assert_true(s->c.alpha == 0.5f);
    assert_false(s->c.shuffle);
    assert_true(s->c.flip);
    assert_int_equal(s->c.resolution, 64);
    assert_true(s->c.rate == 3e-5);
    assert_int_equal(s->c.lora.n, 2);
    assert_string_equal(s->c.lora.item[1], "b");
    assert_int_equal(s->c.memory, 6979321856);
    assert_int_equal(s->c.init, 1);
    assert_true(s->c.seed == UINT64_MAX);
    assert_int_equal(s->c.clip, 0);
    assert_int_equal(s->c.steps, 100000);
    assert_int_equal(s->c.words.n, 3);
    assert_string_equal(s->c.words.item[1], "--rank");
    assert_int_equal(kw_options_finish(s->o, &s->e), KW_OK);
    set *t = begin();                                  /* an argument by its name, and the next one without */
    assert_int_equal(argv_of(t, "--rank 3 --data pictures x"), KW_OK);
    assert_string_equal(t->c.dir, "pictures");
    assert_int_equal(t->c.words.n, 1);
    assert_int_equal(kw_options_finish(t->o, &t->e), KW_OK);
    end(t);
    assert_int_equal(kw_options_from(s->o, "dim"), KW_FROM_ARGV);
    assert_int_equal(kw_options_from(s->o, "trigger"), KW_FROM_DEFAULT);
    end(s);
}

static void sizes(void **state)
{
    (void)state;
    static const struct { const char *text; uint64_t bytes; } cases[] = {
        { "1048576", 1048576 }, { "1M", 1048576 }, { "1MiB", 1048576 }, { "8GB", 8000000000 }, { "8GiB", 8589934592 },
        { "1.5g", 1610612736 }, { "2T", 2199023255552 }, { "9000000B", 9000000 }, { "auto", 0 },
    };
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        set *s = begin();
        assert_int_equal(kw_options_set(s->o, "memory", cases[i].text, KW_FROM_ARGV, "--memory", &s->e), KW_OK);
        assert_true(s->c.memory == cases[i].bytes);
        end(s);
    }
}

/* A size is shown as people say it, and reads back as the same number. */
static void shown_sizes(void **state)
{
    (void)state;
    static const struct { double bytes; const char *text; } cases[] = {
        { 7.5e9, "7.5GB" }, { 1e15, "1000TB" }, { 20e6, "20MB" }, { 1.234e9, "1.234GB" }, { 1.2345e9, "1234500000" },
        { 536870912, "512M" }, { 8589934592.0, "8G" }, { 1572864, "1536K" }, { 1000, "1000" }, { 1048577, "1048577" },
    };
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        uint64_t read = 0;
        const kw_option table[] = {
            { .name = "memory", .type = KW_OPT_SIZE, .def = cases[i].bytes, .max = INFINITY, .help = "h" }, KW_ROW_END
        };
        kw_str s = { 0 };
        kw_arena *a = kw_arena_new();
        kw_options *o = kw_options_new(a);
        assert_int_equal(kw_options_add(o, table, &read, NULL, NULL), KW_OK);
        kw_option_show_default(table, &s);
        assert_string_equal(s.s, cases[i].text);
        read = 0;
        assert_int_equal(kw_options_set(o, "memory", s.s, KW_FROM_ARGV, "--memory", NULL), KW_OK);
        assert_true((double)read == cases[i].bytes);
        kw_str_free(&s);
        kw_arena_free(a);
    }
}

/* A word stands for a number outside of the range; the number itself is refused. "off" is 0 where 0 has no other word. */
static void words_for_numbers(void **state)
{
    (void)state;
    typedef struct { int width, every; } two;
    static const kw_option table[] = {
        KW_ROW_INT("width", two, width, 0, 1, 100, "h", .word = "base", .word_is = 0),
        KW_ROW_INT("every", two, every, -1, 0, 100, "h", .word = "auto", .word_is = -1),
        KW_ROW_END
    };
    static const struct { const char *name, *text; kw_status status; } cases[] = {
        { "width", "base", KW_OK }, { "width", "0", KW_EUSAGE }, { "width", "off", KW_EUSAGE }, { "width", "1", KW_OK },
        { "every", "auto", KW_OK }, { "every", "-1", KW_EUSAGE }, { "every", "off", KW_OK }, { "every", "0", KW_OK },
    };
    two c;
    kw_arena *a = kw_arena_new();
    kw_options *o = kw_options_new(a);
    kw_err e;
    assert_int_equal(kw_options_add(o, table, &c, NULL, NULL), KW_OK);
    assert_int_equal(kw_options_check(o, NULL), KW_OK);
    for (size_t i = 0; i < KW_LEN(cases); i++)
        if (kw_options_set(o, cases[i].name, cases[i].text, KW_FROM_ARGV, "x", &e) != cases[i].status)
            fail_msg("%s %s", cases[i].name, cases[i].text);
    static const char text[] = "every = \"off\"\nwidth = \"base\"\n";
    assert_int_equal(kw_options_toml(o, text, sizeof text - 1, "r.toml", KW_FROM_ARGV, &e), KW_OK);
    assert_int_equal(c.every, 0);
    kw_arena_free(a);
}

/* Most texts are UTF-8; one that says so may hold any bytes. */
static void any_bytes(void **state)
{
    (void)state;
    typedef struct { const char *text, *bytes; } two;
    static const kw_option table[] = {
        KW_ROW_TEXT("text", two, text, NULL, "h"), KW_ROW_TEXT("bytes", two, bytes, NULL, "h", .flags = KW_OPT_BYTES), KW_ROW_END
    };
    two c;
    kw_arena *a = kw_arena_new();
    kw_options *o = kw_options_new(a);
    assert_int_equal(kw_options_add(o, table, &c, NULL, NULL), KW_OK);
    assert_int_equal(kw_options_set(o, "text", "a\xff", KW_FROM_ARGV, "x", NULL), KW_EUSAGE);
    assert_int_equal(kw_options_set(o, "bytes", "a\xff", KW_FROM_ARGV, "x", NULL), KW_OK);
    assert_string_equal(c.bytes, "a\xff");
    kw_arena_free(a);
}

/* Arguments that are refused, and what the error must say. */
static void refusals(void **state)
{
    (void)state;
    static const struct { const char *line, *what, *advice; } cases[] = {
        { "--rank 0", "--rank: 0 is out of range (allowed: 1 to 1024)", "" },
        { "--rank 1000000000", "1 to 1024", "" },
        { "--rank 99999999999999999999", "99999999999999999999 is out of range", "" },
        { "--rank -0", "out of range", "" },
        { "--rank 1e3", "not a whole number", "" },
        { "--rank 0x10", "not a whole number", "" },
        { "--rank １６", "not a whole number", "half-width" },
        { "--rank=", "--rank: '' is not a whole number", "" },
        { "--rank --flip", "--rank: the value is missing", "" },
        { "--rank", "--rank: the value is missing", "" },
        { "--steps 9223372036854775808", "out of range", "" },
        { "--alpha nan", "not a number", "" },
        { "--alpha inf", "not a number", "" },
        { "--alpha 1e400", "out of range", "" },
        { "--alpha -0.0", "out of range", "" },
        { "--alpha 1,5", "not a number", "" },
        { "--alpha 1.5.2", "not a number", "" },
        { "--lr 0", "above 0, up to 1", "" },
        { "--lr 1.5", "above 0, up to 1", "" },
        { "--lr -1e-4", "above 0, up to 1", "" },
        { "--resolution 63", "64 to 2048, a multiple of 8", "" },
        { "--resolution 100", "a multiple of 8", "" },
        { "--resolution 1000000", "64 to 2048", "" },
        { "--seed -1", "0 to 18446744073709551615", "" },
        { "--seed 18446744073709551616", "out of range", "" },
        { "--memory 100K", "at least 1M, or auto", "" },
        { "--memory 8XB", "a size such as", "" },
        { "--memory 1e30T", "out of range", "" },
        { "--memory -1G", "out of range", "" },
        { "--init ortogonal", "'ortogonal' is not allowed (one of: kaiming, orthogonal)", "did you mean 'orthogonal'?" },
        { "--flip=maybe", "not true or false", "" },
        { "--rnak 3", "unknown option '--rnak'", "did you mean '--rank'?" },
        { "--res 3", "unknown option", "did you mean '--resolution'?" },
        { "--netwrok_dim 3", "unknown option", "did you mean '--rank'?" },
        { "--zzzz", "unknown option '--zzzz'", "" },
        { "--no-rank", "unknown option '--no-rank'", "" },
        { "-z", "unknown option '-z'", "" },
        { "--trigger \xff\xfe", "not valid UTF-8", "" },
        { "--trigger \xed\xa0\x80", "not valid UTF-8", "" },
    };
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        set *s = begin();
        assert_int_equal(argv_of(s, cases[i].line), KW_EUSAGE);
        contains(s->e.what, cases[i].what);
        contains(s->e.advice, cases[i].advice);
        end(s);
    }
    set *s = begin();
    assert_int_equal(argv_of(s, "--rank 3"), KW_OK);
    assert_int_equal(kw_options_finish(s->o, &s->e), KW_EUSAGE);
    contains(s->e.what, "DIR is missing");
    end(s);
}

static void recipes(void **state)
{
    (void)state;
    set *s = begin();
    assert_int_equal(argv_of(s, "--rank 4 --lora mine"), KW_OK);
    assert_int_equal(toml_of(s, "data = \"pictures\"\n[adapter]\nnetwork_dim = 8\nlora = [\"a\", \"/b\"]\nalpha = 3\n"
                                "[train]\nlearning_rate = 1e-5\nmemory = \"auto\"\nbase = \"sd15\"\nsize = 768\n"
                                "flip = true\nseed = \"18446744073709551615\"\ntrigger = \"キワ\\tちゃん\"\n"), KW_OK);
    assert_int_equal(s->c.rank, 4);                    /* arguments win whatever the order */
    assert_int_equal(s->c.lora.n, 1);
    assert_true(s->c.alpha == 3.0f);
    assert_true(s->c.rate == 1e-5);
    assert_string_equal(s->c.dir, "there/pictures");   /* a path starts at the recipe */
    assert_string_equal(s->c.base, "sd15");            /* a name does not */
    assert_string_equal(s->c.size, "768");
    assert_string_equal(s->c.trigger, "キワ\tちゃん");
    assert_true(s->c.seed == UINT64_MAX);
    end(s);
}

static void recipe_refusals(void **state)
{
    (void)state;
    static const struct { const char *text, *what, *advice; } cases[] = {
        { "rank = 8\nrnak = 4\n", "there/recipe.toml:2:1: unknown key 'rnak'", "did you mean 'rank'?" },
        { "[train]\n  rank = \"8\"\n", "there/recipe.toml:2:3: rank: this is a text, but a whole number is wanted", "" },
        { "rank = 8.0\n", "a whole number is wanted", "" },
        { "rank = 0\n", "there/recipe.toml:1:1: rank: 0 is out of range (allowed: 1 to 1024)", "" },
        { "rank = 9223372036854775808\n", "there/recipe.toml:1:", "" },
        { "alpha = nan\n", "not a number", "" },
        { "alpha = -inf\n", "not a number", "" },
        { "alpha = -0.0\n", "out of range", "" },
        { "alpha = 1e400\n", "there/recipe.toml:1:", "" },
        { "alpha = true\n", "this is true or false, but a number is wanted", "" },
        { "flip = 1\n", "this is a whole number, but true or false is wanted", "" },
        { "lora = [1]\n", "an array of texts is wanted", "" },
        { "trigger = 5\n", "a text in quotes is wanted", "" },
        { "trigger = 2020-01-01\n", "this is a date", "" },
        { "trigger = [\"a\"]\n", "this is an array", "" },
        { "rank = 8\nrank = 9\n", "there/recipe.toml:2:", "" },
        { "rank = 8\n[x]\ndim = 9\n", "there/recipe.toml:3:1: dim: 'rank' is given twice", "" },
        { "rank 8\n", "not valid TOML", "" },
        { "words = [\"x\"]\n", "unknown key 'words'", "" },
        { "trigger = \"a\\u0000b\"\n", "zero byte", "" },
        { "memory = 1\n", "at least 1M", "" },
        { "[\001", "not valid TOML", "" },               /* these two made toml++ 3.3.0 abort or run on */
        { "rank\xc3\xa9 = 8\n", "not valid TOML", "" },
        { "rank　= 8\n", "not valid TOML", "" },          /* a full-width blank */
    };
    for (size_t i = 0; i < KW_LEN(cases); i++) {
        set *s = begin();
        assert_int_equal(toml_of(s, cases[i].text), KW_EUSAGE);
        contains(s->e.what, cases[i].what);
        contains(s->e.advice, cases[i].advice);
        end(s);
    }
}

/* Nesting by brackets and by dots: an answer, no exhausted stack. */
static void absurd_recipes(void **state)
{
    (void)state;
    const char *const piece[] = { "[", "a.", "a={", "\n[a", "{a.", "[a.a]\n" };
    for (size_t p = 0; p < KW_LEN(piece); p++) {
        set *s = begin();
        kw_str text = { 0 };
        kw_str_add(&text, p ? "" : "a = ");
        for (int i = 0; i < 200000; i++)
            kw_str_add(&text, piece[p]);
        kw_str_add(&text, "a = 1\n");
        assert_int_equal(kw_options_toml(s->o, text.s, text.n, "r", KW_FROM_RECIPE, &s->e), KW_EUSAGE);
        kw_str_free(&text);
        end(s);
    }
    set *s = begin();
    kw_str big = { 0 };
    kw_str_add(&big, "trigger = \"");
    for (int i = 0; i < 500000; i++)
        kw_str_add(&big, "...........");
    kw_str_add(&big, "\"\n");
    assert_int_equal(kw_options_toml(s->o, big.s, big.n, "r", KW_FROM_RECIPE, &s->e), KW_EUSAGE);
    contains(s->e.what, "4 MiB");
    kw_str_free(&big);
    end(s);
}

static void written_recipes_read_back(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "pictures", "d --rank 1 --alpha 0.1 --lr 1.2345678901234567e-5 --no-shuffle -f --lora a\"b --lora c\\d",
        "d --memory 1048577 --seed 18446744073709551615 --clip off --trigger キワ\x01\x7f\"\\ --steps 1000000000",
        "d --alpha 3.4e-38 --dropout 0.33333334 --base ./x --memory 3T",
    };
    for (size_t i = 0; i < KW_LEN(lines); i++) {
        set *s = begin(), *t = begin();
        kw_str first = { 0 }, second = { 0 };
        if (argv_of(s, lines[i]))
            fail_msg("%s", s->e.what);
        assert_int_equal(kw_options_write_toml(s->o, true, &first, &s->e), KW_OK);
        kw_status status = kw_options_toml(t->o, first.s, first.n, "recipe.toml", KW_FROM_RECIPE, &t->e);
        if (status)
            fail_msg("%s\n%s", t->e.what, first.s);
        assert_int_equal(kw_options_write_toml(t->o, true, &second, &t->e), KW_OK);
        assert_string_equal(first.s, second.s);
        assert_memory_equal(&s->c, &t->c, offsetof(config, dir));       /* all numbers, bit by bit */
        assert_true(s->c.memory == t->c.memory && s->c.seed == t->c.seed);
        kw_str_free(&first);
        kw_str_free(&second);
        end(s);
        end(t);
    }
}

static void json(void **state)
{
    (void)state;
    set *s = begin();
    kw_str out = { 0 };
    assert_int_equal(argv_of(s, "d --trigger a\"\n --lora x --dropout 0.1 --seed 7"), KW_OK);
    assert_int_equal(kw_options_write_json(s->o, &out, &s->e), KW_OK);
    assert_string_equal(out.s, "{\"data\":\"d\",\"rank\":16,\"alpha\":16.0,\"dropout\":0.1,\"learning-rate\":0.0001,"
                               "\"resolution\":512,\"clip\":1,\"steps\":1000,\"flip\":false,\"shuffle\":true,"
                               "\"init\":\"kaiming\",\"trigger\":\"a\\\"\\n\",\"size\":\"512,512\",\"base\":\"emoji\","
                               "\"lora\":[\"x\"],\"memory\":\"auto\",\"seed\":7}");
    kw_str_free(&out);
    end(s);
}

/* With a decimal comma in the locale, numbers stay as they are. Skipped where no such locale is installed. */
static void other_locales(void **state)
{
    (void)state;
    if (!setlocale(LC_ALL, "de_DE.UTF-8") && !setlocale(LC_ALL, "fr_FR.UTF-8"))
        skip();
    set *s = begin();
    kw_str out = { 0 };
    assert_int_equal(argv_of(s, "d --alpha 0.5 --lr 1.5e-5"), KW_OK);
    assert_int_equal(toml_of(s, "dropout = 0.25\n"), KW_OK);
    assert_true(s->c.alpha == 0.5f && s->c.dropout == 0.25f);
    assert_int_equal(kw_options_write_toml(s->o, false, &out, &s->e), KW_OK);
    contains(out.s, "alpha = 0.5\n");
    kw_str_free(&out);
    end(s);
    setlocale(LC_ALL, "C");
}

static void sources_rank(void **state)
{
    (void)state;
    set *s = begin();
    assert_int_equal(kw_options_set(s->o, "rank", "3", KW_FROM_RECIPE, "r", &s->e), KW_OK);
    assert_int_equal(kw_options_set(s->o, "rank", "2", KW_FROM_PRESET, "p", &s->e), KW_OK);
    assert_int_equal(s->c.rank, 3);
    assert_int_equal(kw_options_set(s->o, "rank", "0", KW_FROM_PRESET, "p", &s->e), KW_EUSAGE);     /* still checked */
    assert_int_equal(kw_options_set(s->o, "rank", "5", KW_FROM_ENV, "KIWAME_RANK", &s->e), KW_OK);
    assert_int_equal(s->c.rank, 5);
    end(s);
}

/* One table for two uses: what is another use's keeps its default, is read, and is neither shown nor written. */
static void rows_of_other_uses_stand_aside(void **state)
{
    (void)state;
    typedef struct { int both, mine, yours; } shared;
    static const kw_option few[] = {
        KW_ROW_INT("both", shared, both, 1, 0, 9, "h"), KW_ROW_INT("mine", shared, mine, 2, 0, 9, "h", .use = 1),
        KW_ROW_INT("yours", shared, yours, 3, 0, 9, "h", .use = 2, .alias = "thine"), KW_ROW_END };
    static const kw_option_table mine[] = { { few, 0, NULL, 1 }, { 0 } }, all[] = { { few, 0, NULL, 0 }, { 0 } };
    kw_arena *a = kw_arena_new();
    kw_options *o = kw_options_new(a), *p = kw_options_new(a);
    shared c, d;
    kw_err e = { 0 };
    kw_str text = { 0 };
    static const char recipe[] = "both = 4\nmine = 5\nyours = 6\n";
    assert_int_equal(kw_options_add_tables(o, mine, &c, &e), KW_OK);
    assert_int_equal(kw_options_check(o, &e), KW_OK);
    assert_int_equal(c.yours, 3);
    assert_false(kw_options_aside(o, 0) || kw_options_aside(o, 1));
    assert_true(kw_options_aside(o, 2));
    assert_int_equal(kw_options_toml(o, recipe, strlen(recipe), "r", KW_FROM_RECIPE, &e), KW_OK);
    assert_int_equal(c.yours, 6);
    assert_null(kw_options_misplaced(o, 1));               /* a recipe may hold it */
    assert_int_equal(kw_options_write_toml(o, false, &text, &e), KW_OK);
    assert_string_equal(text.s, "both = 4\nmine = 5\n");
    assert_int_equal(kw_options_set(o, "thine", "7", KW_FROM_ARGV, "--thine", &e), KW_OK);
    assert_string_equal(kw_options_misplaced(o, 1)->name, "yours");
    assert_string_equal(kw_options_misplaced(o, 4)->name, "yours");
    assert_null(kw_options_misplaced(o, 2));
    assert_int_equal(kw_options_argv(o, 1, (char *[]){ "--yuors" }, &e), KW_EUSAGE);
    assert_string_equal(e.advice, "");                     /* no advice that would be refused in turn */
    assert_int_equal(kw_options_add_tables(p, all, &d, &e), KW_OK);
    assert_false(kw_options_aside(p, 2));
    kw_str_free(&text);
    kw_arena_free(a);
}

static void seeds_can_be_drawn(void **state)
{
    (void)state;
    set *s = begin(), *t = begin();
    assert_int_equal(argv_of(s, "--seed random"), KW_OK);
    assert_int_equal(argv_of(t, "--seed random"), KW_OK);
    assert_true(s->c.seed != t->c.seed && s->c.seed < (uint64_t)1 << 48);
    end(s);
    end(t);
}

/* Every allocation fails once: an error, no crash. */
static void memory_runs_out(void **state)
{
    (void)state;
    for (long n = 1; n < 60; n++) {
        set *s = begin();
        kw_alloc_fail_after(n);
        kw_status a = argv_of(s, "d --rank 3 --lora a --lora b");
        kw_status b = toml_of(s, "alpha = 3\nlora = [\"x\"]\ntrigger = \"y\"\n");
        kw_alloc_fail_after(0);
        assert_true((a == KW_OK || a == KW_ENOMEM) && (b == KW_OK || b == KW_ENOMEM));
        end(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_sound), cmocka_unit_test(bad_tables_are_found), cmocka_unit_test(arguments),
        cmocka_unit_test(sizes), cmocka_unit_test(shown_sizes), cmocka_unit_test(words_for_numbers),
        cmocka_unit_test(any_bytes), cmocka_unit_test(refusals), cmocka_unit_test(recipes),
        cmocka_unit_test(recipe_refusals), cmocka_unit_test(absurd_recipes),
        cmocka_unit_test(written_recipes_read_back), cmocka_unit_test(json), cmocka_unit_test(other_locales),
        cmocka_unit_test(sources_rank), cmocka_unit_test(rows_of_other_uses_stand_aside),
        cmocka_unit_test(seeds_can_be_drawn), cmocka_unit_test(memory_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
