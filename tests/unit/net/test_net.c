/* test_net.c - addresses that are not public, names of models, paths that leave their folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <string.h>

#include "net/net.h"
#include "net/net_internal.h"

static bool is_private(const char *text)
{
    unsigned char bytes[16];
    int family = strchr(text, ':') ? AF_INET6 : AF_INET;
    assert_int_equal(inet_pton(family, text, bytes), 1);
    return kw_address_private(family, bytes);
}

/* First and last address of each range of IANA's special-purpose registries, and their neighbours. */
static void addresses(void **state)
{
    static const char *const special[] = {
        "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1",
            "127.255.255.255",
        "169.254.0.0", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.0.0",
        "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1",
            "239.255.255.255",
        "240.0.0.0", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.1.2.3", "::127.0.0.1",
            "64:ff9b::10.0.0.1",
        "2002:7f00:1::", "2002:c0a8:101::1", "2001::1", "2001:db8::1", "fc00::1", "fdff::1", "fe80::1", "febf::1",
            "fec0::1",
        "ff02::1", "100::1",
    };
    static const char *const open[] = {
        "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
            "169.253.255.255",
        "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255",
        "198.20.0.0", "223.255.255.255", "2606:4700::1", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        "2001:4860::1",
    };
    (void)state;
    for (size_t i = 0; i < KW_LEN(special); i++)
        if (!is_private(special[i]))
            fail_msg("%s passes for public", special[i]);
    for (size_t i = 0; i < KW_LEN(open); i++)
        if (is_private(open[i]))
            fail_msg("%s is refused", open[i]);
    assert_true(kw_address_private(AF_UNIX, ""));
}

static void hosts(void **state)
{
    static const char *const no[] = { "localhost", "LOCALHOST", "localhost.", "a.localhost", "printer.local",
                                      "db.internal", "hub", "[::1]",
                                      "[fe80::1%lo]", "127.0.0.1", "10.0.0.1", "nas.lan", "x.home.arpa", "" };
    static const char *const yes[] = { "huggingface.co", "cdn-lfs.hf.co", "civitai.com", "8.8.8.8", "[2606:4700::1]",
                                       "localhost.com" };
    (void)state;
    for (size_t i = 0; i < KW_LEN(no); i++)
        assert_true(kw_host_private(no[i]));
    for (size_t i = 0; i < KW_LEN(yes); i++)
        assert_false(kw_host_private(yes[i]));
    assert_true(kw_host_listed("a.b.c", "x, .b.c"));
    assert_true(kw_host_listed("b.c", "x,b.c"));
    assert_true(kw_host_listed("B.c", "b.C"));
    assert_false(kw_host_listed("ab.c", "b.c"));
    assert_true(kw_host_listed("10.1.2.3", "10.0.0.0/8"));
    assert_false(kw_host_listed("11.1.2.3", "10.0.0.0/8"));
    assert_true(kw_host_listed("anything", "*"));
    assert_false(kw_host_listed("a", NULL));
    assert_false(kw_host_listed("a", ""));
}

static void paths(void **state)
{
    static const char *const no[] = { "", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a/./b", "a//b",
                                      "a/", "a\\b", "a\nb", "a/\x7f" };
    static const char *const yes[] = { "a", "unet/config.json", "...", "a..b", ".gitattributes",
                                       "\xe3\x81\x82/b c.txt" };
    static const struct { const char *from, *to; } names[] = {
        { "../../x", "x" }, { "C:\\temp\\y.ckpt", "y.ckpt" }, { ".bashrc", "bashrc" }, { "-rf", "rf" },
            { "a\tb", "ab" }, { "..", "" },
        { "a/", "" }, { "\xe3\x81\x82.safetensors", "\xe3\x81\x82.safetensors" },
    };
    char to[256];
    (void)state;
    for (size_t i = 0; i < KW_LEN(no); i++)
        assert_false(kw_path_safe(no[i]));
    for (size_t i = 0; i < KW_LEN(yes); i++)
        assert_true(kw_path_safe(yes[i]));
    for (size_t i = 0; i < KW_LEN(names); i++) {
        kw__plain_name(names[i].from, to);
        assert_string_equal(to, names[i].to);
    }
    kw_arena *a = kw_arena_new();
    assert_string_equal(kw_url_encode(a, "a b/\xe3\x81\x82?#%", "/"), "a%20b/%E3%81%82%3F%23%25");
    kw_arena_free(a);
}

static void hub_names(void **state)
{
    static const struct { const char *text, *repo, *revision, *file; } good[] = {
        { "hf:org/name", "org/name", "main", NULL },
        { "hf:gpt2", "gpt2", "main", NULL },
        { "hf:org/name@v1.0:unet/x.safetensors", "org/name", "v1.0", "unet/x.safetensors" },
        { "hf:org/name:x.ckpt", "org/name", "main", "x.ckpt" },
        { "hf:org/name@refs/pr/1", "org/name", "refs/pr/1", NULL },
        { "https://huggingface.co/org/name", "org/name", "main", NULL },
        { "https://huggingface.co/org/name/", "org/name", "main", NULL },
        { "https://huggingface.co/org/name/tree/fp16", "org/name", "fp16", NULL },
        { "https://huggingface.co/org/name/blob/main/a/b.txt", "org/name", "main", "a/b.txt" },
        { "https://huggingface.co/org/name/resolve/main/x.safetensors?download=true", "org/name", "main",
          "x.safetensors" },
    };
    static const char *const bad[] = { "hf:", "hf:/", "hf:a/b/c", "hf:../x", "hf:a/..", "hf:-a/b", "hf:a--b/c",
                                       "hf:a/b@../c", "hf:a/b:../c",
                                       "hf:a/b:/etc/passwd", "hf:a b/c", "hf:a/b@", "hf:a/b:",
                                           "https://huggingface.co/", "hf:a/b.\n" };
    kw_arena *a = kw_arena_new();
    kw_hub_name n;
    (void)state;
    for (size_t i = 0; i < KW_LEN(good); i++) {
        assert_true(kw_hub_is_name(good[i].text));
        assert_int_equal(kw_hub_name_parse(a, good[i].text, &n, NULL), KW_OK);
        assert_string_equal(n.repo, good[i].repo);
        assert_string_equal(n.revision, good[i].revision);
        assert_true(!n.file == !good[i].file && (!n.file || !strcmp(n.file, good[i].file)));
    }
    for (size_t i = 0; i < KW_LEN(bad); i++)
        if (kw_hub_name_parse(a, bad[i], &n, NULL) != KW_EUSAGE)
            fail_msg("%s is taken for a name", bad[i]);
    for (const kw_short_name *s = kw_short_names(); s->name; s++) {
        char *text = kw_sprintf(a, "hf:%s", s->repo);
        assert_int_equal(kw_hub_name_parse(a, text, &n, NULL), KW_OK);
        assert_ptr_equal(kw_short_name_find(s->name), s);
    }
    assert_null(kw_short_name_find("sd"));
    kw_arena_free(a);
}

static void civitai_names(void **state)
{
    static const struct { const char *text; long long version, model; } good[] = {
        { "civitai:128713", 128713, 0 },
        { "civitai:4384@128713", 128713, 4384 },
        { "urn:air:sd1:checkpoint:civitai:4384@128713", 128713, 4384 },
        { "https://civitai.com/models/4384", 0, 4384 },
        { "https://civitai.com/models/4384/dreamshaper?modelVersionId=128713", 128713, 4384 },
        { "https://civitai.com/api/download/models/128713?type=Model&format=SafeTensor", 128713, 0 },
        { "https://civitai.com/api/v1/model-versions/128713", 128713, 0 },
    };
    static const char *const bad[] = { "civitai:", "civitai:x", "civitai:1x", "civitai:-1", "civitai:0", "civitai:1@",
                                       "civitai:x@1",
                                       "civitai:99999999999999999999", "https://civitai.com/",
                                           "https://civitai.com/user/1" };
    kw_civitai_name n;
    (void)state;
    for (size_t i = 0; i < KW_LEN(good); i++) {
        assert_true(kw_civitai_is_name(good[i].text));
        assert_int_equal(kw_civitai_name_parse(good[i].text, &n, NULL), KW_OK);
        assert_true(n.version == good[i].version && n.model == good[i].model);
    }
    for (size_t i = 0; i < KW_LEN(bad); i++)
        if (kw_civitai_name_parse(bad[i], &n, NULL) != KW_EUSAGE)
            fail_msg("%s is taken for a name", bad[i]);
    assert_false(kw_civitai_is_name("https://civitai.com.evil.example/models/1"));
    assert_false(kw_hub_is_name("https://huggingface.co.evil.example/a/b"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses), cmocka_unit_test(hosts), cmocka_unit_test(paths), cmocka_unit_test(hub_names),
        cmocka_unit_test(civitai_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
