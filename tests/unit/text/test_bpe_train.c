/* test_bpe_train.c - the vocabulary trainer, file by file, against one that recounts everything (tools/golden). */
#include "text/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { MOST = 200 };

static kw_bpe_text texts[MOST];
static size_t n_texts;
static kw_arena *arena;
static kw_err err;

static int setup(void **state)
{
    (void)state;
    arena = kw_arena_new();
    FILE *f = fopen(KW_TESTS "/golden/text/corpus.tsv", "r");
    char line[512];
    if (!f)
        return -1;
    for (char *tab; n_texts < MOST && fgets(line, sizeof line, f); n_texts++) {
        line[strcspn(line, "\n")] = 0;
        tab = strchr(line, '\t');
        texts[n_texts] = (kw_bpe_text){ kw_strdup(arena, tab + 1), (uint64_t)atoi(line) };
    }
    fclose(f);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kw_arena_free(arena);
    return 0;
}

static char *read_all(const char *dir, const char *name)
{
    char path[512], *s = kw_alloc(arena, 1 << 17);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_true(fread(s, 1, (1 << 17) - 1, f) < (1 << 17) - 1);
    fclose(f);
    return s;
}

static void as_golden(void **state)
{
    (void)state;
    static const char *const names[] = { "vocab.json", "merges.txt", "special_tokens_map.json",
                                         "tokenizer_config.json" };
    char dir[] = "/tmp/kw-test-bpe-XXXXXX", command[64];
    kw_bpe b;
    assert_int_equal(kw_bpe_train(arena, texts, n_texts, 700, 2, &b, &err), KW_OK);
    assert_int_equal(b.size, 700);
    assert_non_null(mkdtemp(dir));
    assert_int_equal(kw_bpe_write(&b, dir, 24, &err), KW_OK);
    for (size_t i = 0; i < KW_LEN(names); i++)
        assert_string_equal(read_all(dir, names[i]), read_all(KW_TESTS "/golden/text/small", names[i]));
    kw_tokenizer *t;
    assert_int_equal(kw_tokenizer_open(arena, dir, &t, &err), KW_OK);
    assert_int_equal(kw_tokenizer_max_length(t), 24);
    assert_int_equal(kw_tokenizer_bos(t), 698);
    assert_int_equal(kw_tokenizer_size(t), 700);
    snprintf(command, sizeof command, "rm -r %s", dir);
    assert_int_equal(system(command), 0);
}

/* Every token is what BPE makes of its own text, if it ends a word (and begins with a character, not inside one). */
static void no_dead_tokens(void **state)
{
    (void)state;
    kw_tokenizer *t;
    size_t words = 0, same = 0;
    assert_int_equal(kw_tokenizer_open(arena, KW_TESTS "/golden/text/small", &t, &err), KW_OK);
    for (int id = 512; id < 698; id++) {
        size_t n;
        bool ends;
        const char *s = kw_token_text(t, arena, id, &n, &ends);
        kw_tokens k;
        assert_int_equal(kw_tokenize(t, arena, s, n, &k, &err), KW_OK);
        ends &= ((uint8_t)s[0] & 0xc0) != 0x80;
        words += ends;
        same += ends && k.n == 1 && k.ids[0] == id;
    }
    assert_true(words > 50);
    assert_int_equal(same, words);
}

/* Less text than merges asked for: fewer tokens, the marks still last. */
static void little_text(void **state)
{
    (void)state;
    kw_bpe b;
    assert_int_equal(kw_bpe_train(arena, &(kw_bpe_text){ "abab ab", 3 }, 1, 600, 2, &b, &err), KW_OK);
    assert_int_equal(b.n_merges, 3);      /* a b</w>; then a b, and ab ab</w> */
    assert_int_equal(b.size, 512 + 3 + 2);
    assert_string_equal(b.names[512], "ab</w>");
    assert_string_equal(b.names[513], "ab");
    assert_string_equal(b.names[514], "abab</w>");
    assert_string_equal(b.names[515], "<|startoftext|>");
    assert_int_equal(kw_bpe_train(arena, NULL, 0, 600, 2, &b, &err), KW_OK);
    assert_int_equal(b.size, 514);
    assert_int_equal(kw_bpe_train(arena, NULL, 0, 513, 2, &b, &err), KW_EUSAGE);
}

static void no_memory(void **state)
{
    (void)state;
    kw_bpe b;
    int failed = 0;
    for (long i = 1; i < 4000; i += 7) {
        kw_arena *a = kw_arena_new();
        kw_alloc_fail_after(i);
        kw_status s = kw_bpe_train(a, texts, n_texts, 560, 2, &b, &err);
        kw_alloc_fail_after(0);
        kw_arena_free(a);
        assert_true(s == KW_OK || s == KW_ENOMEM);
        failed += s == KW_ENOMEM;
        if (s == KW_OK)
            break;
    }
    assert_true(failed > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(as_golden), cmocka_unit_test(no_dead_tokens),
                                        cmocka_unit_test(little_text), cmocka_unit_test(no_memory) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
