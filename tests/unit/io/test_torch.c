/*
 * test_torch.c - PyTorch's checkpoints: what PyTorch wrote is read number for number, and what it would not write is
 * refused with its name, quickly and without being run. Golden files: tools/golden/torch_files.py.
 */
#include "fixture.h"

#include <sys/resource.h>
#include <time.h>

#define TORCH GOLDEN "torch/"

static kw_tensors *open_file(const char *path)
{
    kw_tensors *t;
    must(kw_tensors_open(arena, path, &t, &err));
    return t;
}

static void assert_same(const kw_tensor *a, const kw_tensor *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank || memcmp(a->shape, b->shape, sizeof *a->shape * (size_t)a->rank))
        fail_msg("%s: another kind or shape", a->name);
    if (a->bytes != b->bytes || (a->bytes && memcmp(a->data, b->data, a->bytes)))
        fail_msg("%s: other numbers", a->name);
    assert_true((uintptr_t)b->data % kw_dtype_size(b->dtype) == 0);
}

static void every_kind_of_number_is_read(void **state)
{
    (void)state;
    kw_tensors *want = open_file(TORCH "kinds.safetensors"), *have = open_file(TORCH "kinds.pt");
    assert_int_equal(kw_tensors_n(have), kw_tensors_n(want));
    for (size_t i = 0; i < kw_tensors_n(want); i++) {
        const kw_tensor *w = kw_tensors_at(want, i), *h = kw_tensors_find(have, w->name);
        assert_non_null(h);
        assert_same(w, h);
        bool copied = !strcmp(w->name, "turned") || !strcmp(w->name, "window") || !strcmp(w->name, "last");
        assert_int_equal(h->mapped, !copied || !h->bytes);        /* what lies in one piece stays in the file */
    }
    assert_string_equal(kw_tensors_note(have), "entries beside the weights are left out: note, numbers");
}

/* In the old forms numbers lie at any byte; what PyTorch reads from them was checked when they were made. */
static void the_old_forms_are_read(void **state)
{
    (void)state;
    static const struct { const char *file; size_t n; } old[] = {
        { TORCH "legacy.pt", 18 }, { TORCH "oldest.pt", 12 },
    };
    kw_tensors *want = open_file(TORCH "kinds.safetensors");
    for (size_t k = 0; k < KW_LEN(old); k++) {
        kw_tensors *have = open_file(old[k].file);
        assert_int_equal(kw_tensors_n(have), old[k].n);
        for (size_t i = 0; i < kw_tensors_n(have); i++) {
            const kw_tensor *h = kw_tensors_at(have, i), *w = kw_tensors_find(want, h->name);
            if (w->dtype == h->dtype)                              /* the numbers t03.. differ between the two lists */
                assert_same(w, h);
        }
    }
}

static void half_precision_is_read(void **state)
{
    (void)state;
    static const char *const files[] = { TORCH "half.ckpt", TORCH "bf16.pt" };       /* bf16.pt is pickle protocol 4 */
    for (size_t k = 0; k < 2; k++) {
        kw_tensors *t = open_file(files[k]);
        const kw_tensor *w = kw_tensors_find(t, "a.weight");
        float v[12];
        assert_int_equal(w->dtype, k ? KW_BF16 : KW_F16);
        kw_convert(KW_F32, v, w->dtype, w->data, 12);
        for (int i = 0; i < 12; i++)                               /* linspace(-2, 2, 12); bf16 keeps 8 bits: 2^-8 */
            if (!(v[i] - (-2 + 4.f * (float)i / 11) < 0.008f && v[i] - (-2 + 4.f * (float)i / 11) > -0.008f))
                fail_msg("%g", (double)v[i]);
    }
}

/* A checkpoint that went through another packer: its pickle may be compressed, its numbers may not. */
static void a_compressed_pickle_is_read(void **state)
{
    (void)state;
    kw_tensors *want = open_file(TORCH "bf16.pt"), *have = open_file(TORCH "deflated.pt"), *none;
    assert_int_equal(kw_tensors_n(have), kw_tensors_n(want));
    for (size_t i = 0; i < kw_tensors_n(want); i++)
        assert_same(kw_tensors_at(want, i), kw_tensors_find(have, kw_tensors_at(want, i)->name));
    assert_int_equal(kw_tensors_open(arena, TORCH "all-deflated.pt", &none, &err), KW_EDATA);
    assert_non_null(strstr(err.what, "numbers are compressed"));
}

/* One bit of one number: its entry's checksum tells. */
static void every_entry_has_its_checksum(void **state)
{
    (void)state;
    char *data;
    size_t n, found = 0;
    kw_tensors *t;
    must(kw_file_read(arena, TORCH "kinds.pt", 1 << 20, &data, &n, &err));
    t = open_file(TORCH "kinds.pt");
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const kw_tensor *one = kw_tensors_at(t, i);
        char *at = one->bytes >= 8 ? memmem(data, n, one->data, one->bytes) : NULL;
        if (!at)
            continue;
        *at ^= 1;
        kw_tensors *none;
        assert_int_equal(kw_tensors_parse(arena, "x", data, n, &none, &err), KW_EDATA);
        assert_non_null(strstr(err.what, "not those of its checksum"));
        *at ^= 1;
        found++;
    }
    print_message("%zu entries\n", found);
    assert_true(found > 8);
}

/* ---- a Lightning checkpoint as a model ------------------------------------------------------------------------ */

static bool noted(const kw_source *s, const char *text)
{
    for (size_t i = 0; i < kw_source_n_notes(s); i++)
        if (strstr(kw_source_note(s, i), text))
            return true;
    return false;
}

static void a_checkpoint_is_a_model(void **state)
{
    (void)state;
    kw_source *file, *ckpt;
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &file, &err));
    must(kw_source_open(arena, TORCH "v1.ckpt", &ckpt, &err));
    for (int p = 0; p < KW_N_PARTS; p++) {
        assert_int_equal(kw_source_n(file, (kw_part)p), kw_source_n(ckpt, (kw_part)p));
        for (size_t i = 0; i < kw_source_n(file, (kw_part)p); i++) {
            const kw_tensor *a = kw_source_at(file, (kw_part)p, i), *b = kw_source_at(ckpt, (kw_part)p, i);
            uint16_t back[4096];
            assert_string_equal(a->name, b->name);
            assert_true(kw_tensor_count(b) < 4096 && b->dtype == KW_F32);
            kw_convert(KW_F16, back, b->dtype, b->data, (size_t)kw_tensor_count(b));
            assert_memory_equal(back, a->data, a->bytes);
        }
    }
    assert_true(noted(ckpt, "averaged weights (model_ema); the others are used"));
    assert_true(noted(ckpt, "epoch, global_step, pytorch-lightning_version, callbacks, optimizer_states"));
}

/* What diffusers' converter takes with extract_ema. */
static void averaged_weights_can_be_chosen(void **state)
{
    (void)state;
    kw_source *s;
    char part[32], name[256], dash[8], shape[64], digest[32], hex[65];
    size_t n = 0;
    must(kw_source_open_averages(arena, TORCH "v1.ckpt", &s, &err));
    FILE *f = fopen(TORCH "v1.txt", "r");
    assert_non_null(f);
    for (; fscanf(f, "%31s %255s %7s %63s %31s", part, name, dash, shape, digest) == 5; n++) {
        const kw_tensor *t = kw_source_find(s, KW_PART_UNET, name);
        assert_non_null(t);
        assert_true(kw_sha256_of(t->data, t->bytes, hex));
        hex[16] = 0;
        assert_string_equal(hex, digest);
    }
    fclose(f);
    assert_int_equal(n, kw_source_n(s, KW_PART_UNET));
    assert_true(noted(s, "the averaged weights (model_ema) are used: 304 tensors"));
    assert_int_equal(kw_source_open_averages(arena, GOLDEN "v2.safetensors", &s, &err), KW_EDATA);
}

/* ---- refusals ------------------------------------------------------------------------------------------------- */

static void refuse(const char *what, const void *p, size_t n, const char *says)
{
    kw_arena *a = kw_arena_new();
    kw_tensors *t;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    kw_status s = kw_tensors_parse(a, "x", p, n, &t, &err);
    clock_gettime(CLOCK_MONOTONIC, &to);
    kw_arena_free(a);
    if (s != KW_EDATA || !strstr(err.what, says))
        fail_msg("%s: %d \"%s\", not \"%s\"", what, s, s ? err.what : "", says);
    double seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
    if (seconds > 2)                      /* measured: 0.03; with sanitizers 0.5 */
        fail_msg("%s: refused after %g s", what, seconds);
}

static void a_program_is_refused_and_not_run(void **state)
{
    (void)state;
    kw_tensors *t;
    assert_int_equal(kw_tensors_open(arena, TORCH "evil.ckpt", &t, &err), KW_EDATA);
    assert_non_null(strstr(err.what, "\"posix.system\""));
    assert_int_equal(access("kiwame-was-here", F_OK), -1);
}

/* The legacy form's head, then the pickle that is tried: the shortest way to the interpreter. */
static size_t legacy(char *to, const char *pickle, size_t n)
{
    static const char head[] = "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\2M\xe9\3.\x80\2}.";
    memcpy(to, head, sizeof head - 1);
    memcpy(to + sizeof head - 1, pickle, n);
    return sizeof head - 1 + n;
}

#define P(what, pickle, says) { what, pickle, sizeof pickle - 1, says }

static void odd_pickles_are_refused(void **state)
{
    (void)state;
    static const struct { const char *what, *pickle; size_t n; const char *says; } rows[] = {
        P("GLOBAL", "\x80\2cos\nsystem\n(X\2\0\0\0lstR.", "\"os.system\""),
        P("posix", "\x80\2cposix\nsystem\n.", "\"posix.system\""),
        P("eval", "\x80\2c__builtin__\neval\n.", "\"__builtin__.eval\""),
        P("builtins", "\x80\4\x8c\x08" "builtins\x8c\4exec\x93.", "\"builtins.exec\""),
        P("dotted name", "\x80\4\x8c\x0b" "collections\x8c\x12OrderedDict.update\x93.", "OrderedDict.update"),
        P("torch.load", "\x80\2ctorch\nload\n.", "\"torch.load\""),
        P("runpy", "\x80\2crunpy\n_run_code\n.", "runpy"),
        P("STACK_GLOBAL of numbers", "\x80\4K\1K\2\x93.", "a name that is no text"),
        P("INST", "\x80\2(ios\nsystem\n.", "opcode 0x69"),
        P("OBJ", "\x80\2(o.", "opcode 0x6f"),
        P("EXT1", "\x80\2\x82\1.", "opcode 0x82"),
        P("EXT4", "\x80\2\x84\1\0\0\0.", "opcode 0x84"),
        P("DUP", "\x80\2]2.", "opcode 0x32"),
        P("POP", "\x80\2]0.", "opcode 0x30"),
        P("POP_MARK", "\x80\2(1.", "opcode 0x31"),
        P("PERSID", "\x80\2Pabc\n.", "opcode 0x50"),
        P("text INT", "\x80\2I5\n.", "opcode 0x49"),
        P("LONG4", "\x80\2\x8b\1\0\0\0\5.", "opcode 0x8b"),
        P("NEXT_BUFFER", "\x80\5\x97.", "opcode 0x97"),
        P("unknown", "\x80\2\xff.", "opcode 0xff"),
        P("protocol 0", "(dp0\n.", "protocol"),
        P("protocol 1", "\x80\1}.", "protocol"),
        P("protocol 6", "\x80\6}.", "protocol"),
        P("no STOP", "\x80\2}", "cut off"),
        P("left over", "\x80\2}}.", "left over"),
        P("left mark", "\x80\2(}.", "left over"),
        P("nothing", "\x80\2.", "left over"),
        P("underflow TUPLE3", "\x80\2}}\x87.", "missing"),
        P("underflow REDUCE", "\x80\2)R.", "missing"),
        P("underflow BUILD", "\x80\2}b.", "missing"),
        P("underflow SETITEM", "\x80\2}K\1s.", "missing"),
        P("below the mark", "\x80\2}K\1(K\2s.", "missing"),
        P("APPENDS without mark", "\x80\2]e.", "mark"),
        P("APPEND to a number", "\x80\2K\1K\2a.", "holds none"),
        P("SETITEMS on a tuple", "\x80\2)(K\1K\2u.", "holds none"),
        P("odd SETITEMS", "\x80\2}(K\1u.", "without a value"),
        P("memo miss", "\x80\2h\7.", "did not keep"),
        P("far memo miss", "\x80\2j\xff\xff\xff\xff.", "did not keep"),
        P("far memo", "\x80\2}r\xff\xff\xff\xff.", "remembered"),
        P("empty memo", "\x80\2q\1.", "missing"),
        P("calls a number", "\x80\2K\1)R.", "no known name"),
        P("calls with a list", "\x80\2ccollections\nOrderedDict\n]R.", "no known name"),
        P("OrderedDict of numbers", "\x80\2ccollections\nOrderedDict\n](K\1K\2e\x85R.", "pairs"),
        P("text cut off", "\x80\2X\xff\xff\xff\x7f" "abc.", "cut off"),
        P("text of 2^63", "\x80\4\x8d\0\0\0\0\0\0\0\x80" "abc.", "cut off"),
        P("GLOBAL cut off", "\x80\2cos", "cut off"),
        P("persistent id of a float", "\x80\2G\0\0\0\0\0\0\0\0Q.", "neither"),
        P("a list", "\x80\2].\x80\2].", "no named tensors"),
        P("a key that is a dictionary", "\x80\2}}K\1s.\x80\2].", "no text"),
        P("an empty key", "\x80\2}X\0\0\0\0K\1s.\x80\2].", "no text"),
        P("a key with a zero", "\x80\2}X\2\0\0\0a\0K\1s.\x80\2].", "no text"),
        P("a key that is no UTF-8", "\x80\2}X\2\0\0\0\xc3\x28K\1s.\x80\2].", "no text"),
        P("bytes at the end", "\x80\2}.\x80\2].x", "after the last"),
        P("keys that are no list", "\x80\2}.\x80\2}.", "no list"),
        P("a key nobody named", "\x80\2}.\x80\2]X\1\0\0\0aa.", "does not name"),
        P("a tensor of nothing", "\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n)Rs.\x80\2].", "not understood"),
        P("a parameter of nothing", "\x80\2}X\1\0\0\0actorch._utils\n_rebuild_parameter\n)Rs.\x80\2].",
          "not understood"),
    };
    char room[256];
    for (size_t i = 0; i < KW_LEN(rows); i++)
        refuse(rows[i].what, room, legacy(room, rows[i].pickle, rows[i].n), rows[i].says);
    print_message("%zu pickles\n", KW_LEN(rows));
}

/* ---- blow-ups ------------------------------------------------------------------------------------------------- */

typedef struct { char *p; size_t n; } bytes;

static void add(bytes *b, const char *p, size_t n)
{
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

#define ADD(b, text) add(b, text, sizeof text - 1)

static bytes start(size_t room)
{
    bytes b = { kw_alloc(arena, room + 64), 0 };
    b.n = legacy(b.p, "\x80\2", 2);
    return b;
}

static void bombs_are_refused(void **state)
{
    (void)state;
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    bytes b = start(1 << 21);
    add(&b, "]", 1);
    for (int i = 0; i < 1000000; i++)
        add(&b, "\x85", 1);
    refuse("a million tuples in each other", b.p, b.n, "nested");
    b = start(1 << 21);
    for (int i = 0; i < 1000000; i++)
        add(&b, "]", 1);
    refuse("a million lists in each other", b.p, b.n, "open values");
    b = start(1 << 21);
    for (int i = 0; i < 1000; i++)
        add(&b, "(", 1);
    refuse("marks in each other", b.p, b.n, "nested");
    b = start(1 << 10);                   /* {"a": [l0, l1 = [l0, l0], l2 = [l1, l1] ...]}: 2^40 if it were unfolded */
    ADD(&b, "}X\1\0\0\0a](]q\0");
    for (int i = 0; i < 40; i++) {
        char twice[] = { ']', 'q', (char)(i + 1), '(', 'h', (char)i, 'h', (char)i, 'e' };
        add(&b, twice, sizeof twice);
    }
    ADD(&b, "es.\x80\2].");
    refuse("laughs", b.p, b.n, "nested");
    b = start(1 << 10);
    ADD(&b, "}q\0X\1\0\0\0ah\0s.\x80\2].");
    refuse("a dictionary in itself", b.p, b.n, "nested");
    b = start(1 << 20);                   /* one list of pairs, made into a dictionary again and again */
    ADD(&b, "ccollections\nOrderedDict\nq\1]q\2(");
    for (int i = 0; i < 10000; i++)
        ADD(&b, "K\1K\2\x86");
    ADD(&b, "e\x85q\3");
    for (int i = 0; i < 10000; i++)
        ADD(&b, "h\1h\3R");
    refuse("a dictionary made again and again", b.p, b.n, "more values");
    getrusage(RUSAGE_SELF, &after);
    print_message("memory grew by %ld kB\n", after.ru_maxrss - before.ru_maxrss);
#ifndef __SANITIZE_ADDRESS__              /* which keeps what was let go, up to 256 MB of it */
    assert_true(after.ru_maxrss - before.ru_maxrss < 64 << 10);
#endif
}

/* ---- zip archives and tensors that lie ------------------------------------------------------------------------ */

typedef struct {                          /* what a test's archive says of one entry; 0: the truth */
    const char *name, *local;             /* local: the name in the entry itself */
    const char *data;
    size_t n;
    int flags, method;
    uint32_t more;                        /* added to the size in both places */
    uint32_t place;                       /* added to the place in the list */
} entry;

static void add_number(bytes *b, uint64_t v, int n) { add(b, (const char *)&v, (size_t)n); }

static bytes zip(const entry *list, size_t n)
{
    bytes b = { kw_alloc(arena, 1 << 16), 0 }, index = { kw_alloc(arena, 1 << 14), 0 };
    for (size_t i = 0; i < n; i++) {
        const entry *x = &list[i];
        const char *local = x->local ? x->local : x->name;
        uint64_t size = x->n + x->more, at = b.n + x->place;
        ADD(&b, "PK\3\4\0\0");
        add_number(&b, (uint64_t)x->flags, 2);
        add_number(&b, (uint64_t)x->method, 2);
        add_number(&b, 0, 8);
        add_number(&b, size, 4);
        add_number(&b, size, 4);
        add_number(&b, strlen(local), 4);
        add(&b, local, strlen(local));
        add(&b, x->data, x->n);
        ADD(&index, "PK\1\2\0\0\0\0");
        add_number(&index, (uint64_t)x->flags, 2);
        add_number(&index, (uint64_t)x->method, 2);
        add_number(&index, 0, 8);
        add_number(&index, size, 4);
        add_number(&index, size, 4);
        add_number(&index, strlen(x->name), 6);
        add_number(&index, 0, 8);
        add_number(&index, at, 4);
        add(&index, x->name, strlen(x->name));
    }
    size_t at = b.n;
    add(&b, index.p, index.n);
    ADD(&b, "PK\5\6\0\0\0\0");
    add_number(&b, n, 2);
    add_number(&b, n, 2);
    add_number(&b, index.n, 4);
    add_number(&b, at, 4);
    add_number(&b, 0, 2);
    return b;
}

#define EMPTY "\x80\2}."
#define E(called, inside, bytes_, length, ...) \
    { .name = called, .local = inside, .data = bytes_, .n = length, __VA_ARGS__ }

static void odd_archives_are_refused(void **state)
{
    (void)state;
    static const struct { entry e[3]; const char *says; } rows[] = {
        { { E("a/data.pkl", 0, EMPTY, 4), E("b/data.pkl", 0, EMPTY, 4) }, "two checkpoints" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("a/data.pkl", 0, EMPTY, 4) }, "there twice" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("../data/0", 0, "x", 1) }, "impossible name" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("/etc/passwd", 0, "x", 1) }, "impossible name" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("a/../../b", 0, "x", 1) }, "impossible name" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("a\\b", 0, "x", 1) }, "impossible name" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("a/\xff", 0, "x", 1) }, "impossible name" },
        { { E("a/data.pkl", 0, EMPTY, 4, .flags = 1) }, "encrypted" },
        { { E("a/data.pkl", 0, EMPTY, 4, .flags = 64) }, "encrypted" },
        { { E("a/data.pkl", 0, EMPTY, 4, .method = 8) }, "cannot be unpacked" },
        { { E("a/data.pkl", 0, EMPTY, 4, .method = 12) }, "compressed in an unusual way" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("a/data/0", 0, "\3\0", 2, .method = 8) }, "numbers are compressed" },
        { { E("a/data.pkl", "a/data.pkx", EMPTY, 4) }, "differ" },
        { { E("a/data.pkl", 0, EMPTY, 4, .place = 1) }, "not where" },
        { { E("a/data.pkl", 0, EMPTY, 4, .place = 1 << 30) }, "not where" },
        { { E("a/data.pkl", 0, EMPTY, 4, .more = 20), E("a/x", 0, "x", 1) }, "overlaps" },
        { { E("a/data.pkl", 0, EMPTY, 4, .more = 1 << 20) }, "beyond the end" },
        { { E("a/data.pkl", 0, EMPTY, 4, .more = 0xfffffffb) }, "sizes are damaged" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("a/byteorder", 0, "big", 3) }, "big-endian" },
        { { E("a/data.pkl", 0, EMPTY, 4), E("a/constants.pkl", 0, EMPTY, 4) }, "TorchScript" },
        { { E("a/other", 0, "x", 1) }, "not a PyTorch checkpoint" },
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        size_t n = 0;
        while (n < 3 && rows[i].e[n].name)
            n++;
        bytes b = zip(rows[i].e, n);
        refuse(rows[i].says, b.p, b.n, rows[i].says);
    }
    const entry one = E("a/data.pkl", 0, EMPTY, 4);
    bytes b = zip(&one, 1);
    b.p[b.n - 18] = 1;                    /* a second volume */
    refuse("volumes", b.p, b.n, "volumes");
    b = zip(&one, 1);
    b.p[b.n - 12] = 2;                    /* two entries in a list of one */
    b.p[b.n - 14] = 2;
    refuse("count", b.p, b.n, "damaged");
    print_message("%zu archives\n", KW_LEN(rows) + 2);
}

/* {"x": tensor of n numbers of a storage, with this offset, shape and strides}: numbers as BININT */
typedef struct {
    const char *type, *key;
    int32_t n, offset, rank, shape[9], stride[9];
    size_t bytes;                         /* of the storage in the file */
    const char *says;                     /* NULL: it is read */
} lie;

static void add_int(bytes *b, int32_t v)
{
    ADD(b, "J");
    add_number(b, (uint32_t)v, 4);
}

static void add_tensor(bytes *b, const lie *l, char name)
{
    char key[] = { 'X', 1, 0, 0, 0, name };
    add(b, key, 6);
    ADD(b, "ctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch\n");
    add(b, l->type, strlen(l->type));
    ADD(b, "\nX\1\0\0\0");
    add(b, l->key, 1);
    ADD(b, "X\3\0\0\0cpu");
    add_int(b, l->n);
    ADD(b, "tQ");
    add_int(b, l->offset);
    ADD(b, "(");
    for (int i = 0; i < l->rank; i++)
        add_int(b, l->shape[i]);
    ADD(b, "t(");
    for (int i = 0; i < l->rank; i++)
        add_int(b, l->stride[i]);
    ADD(b, "t\x89}tR");
}

static void lying_tensors_are_refused(void **state)
{
    (void)state;
    static const char numbers[4096];
    static const lie rows[] = {
        { "FloatStorage", "0", 4, 0, 1, { 4 }, { 1 }, 12, "not as many numbers" },
        { "FloatStorage", "0", 4, 0, 1, { 4 }, { 1 }, 20, "not as many numbers" },
        { "FloatStorage", "0", 0x7fffffff, 0, 1, { 4 }, { 1 }, 16, "not as many numbers" },
        { "FloatStorage", "0", -4, 0, 1, { 4 }, { 1 }, 16, "not understood" },
        { "FloatStorage", "1", 4, 0, 1, { 4 }, { 1 }, 16, "missing" },
        { "FloatStorage", "0", 4, 1, 1, { 4 }, { 1 }, 16, "beyond its numbers" },
        { "FloatStorage", "0", 4, -1, 1, { 4 }, { 1 }, 16, "shape is not understood" },
        { "FloatStorage", "0", 4, 0x7fffffff, 1, { 1 }, { 1 }, 16, "beyond its numbers" },
        { "FloatStorage", "0", 4, 0, 2, { 2, 2 }, { 0x7fffffff, 1 }, 16, "beyond its numbers" },
        { "FloatStorage", "0", 4, 3, 1, { 4 }, { -1 }, 16, "shape is not understood" },
        { "FloatStorage", "0", 4, 0, 1, { 4 }, { 0 }, 16, NULL },          /* four times the first: copied */
        { "FloatStorage", "0", 4, 0, 2, { 4, 4 }, { 0, 1 }, 16, "overlap" },
        { "FloatStorage", "0", 4, 0, 1, { 0x7fffffff }, { 0 }, 16, "overlap" },
        { "FloatStorage", "0", 4, 0, 3, { 0x7fffffff, 0x7fffffff, 0x7fffffff }, { 0, 0, 0 }, 16, "impossibly large" },
        { "FloatStorage", "0", 4, 0, 4, { 0x7fffffff, 0x7fffffff, 0x7fffffff, 0 }, { 1, 1, 1, 1 }, 16,
          "impossibly large" },
        { "FloatStorage", "0", 4, 0, 1, { -4 }, { 1 }, 16, "shape is not understood" },
        { "FloatStorage", "0", 4, 0, 9, { 1 }, { 1 }, 16, "shape is not understood" },
        { "Size", "0", 4, 0, 1, { 4 }, { 1 }, 16, "kind of numbers" },
        { "FloatStorage", "0", 4, 4, 1, { 0 }, { 1 }, 16, NULL },          /* nothing, behind the last */
    };
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        bytes p = { kw_alloc(arena, 1024), 0 };
        kw_tensors *t;
        ADD(&p, "\x80\2}(");
        add_tensor(&p, &rows[i], 'x');
        ADD(&p, "u.");
        const entry e[] = { E("a/data.pkl", 0, p.p, p.n), E("a/data/0", 0, numbers, rows[i].bytes) };
        bytes b = zip(e, 2);
        if (rows[i].says)
            refuse(rows[i].says, b.p, b.n, rows[i].says);
        else
            must(kw_tensors_parse(arena, "x", b.p, b.n, &t, &err));
    }
    bytes p = { kw_alloc(arena, 1024), 0 };
    ADD(&p, "\x80\2}(");
    add_tensor(&p, &rows[18], 'x');
    add_tensor(&p, &(lie){ "IntStorage", "0", 4, 0, 1, { 4 }, { 1 }, 16, NULL }, 'y');
    ADD(&p, "u.");
    const entry e[] = { E("a/data.pkl", 0, p.p, p.n), E("a/data/0", 0, numbers, 16) };
    bytes b = zip(e, 2);
    refuse("two kinds", b.p, b.n, "two kinds");
    print_message("%zu tensors\n", KW_LEN(rows) + 1);
}

/* One storage under many names: as large as it is said to be, and copied as often. */
static void many_views_are_refused(void **state)
{
    (void)state;
    static const char numbers[4096];
    static const struct { int n; bool turned; const char *says; } rows[] = {
        { 1, false, NULL }, { 1, true, NULL }, { 30, true, "not laid out" }, { 90, false, "many times" },
    };
    for (size_t k = 0; k < KW_LEN(rows); k++) {
        bool turned = rows[k].turned;
        const lie one = { "FloatStorage", "0", 1024, 0, 2, { 32, 32 }, { turned ? 1 : 32, turned ? 32 : 1 }, 4096,
                          NULL };
        bytes p = { kw_alloc(arena, 1 << 16), 0 };
        ADD(&p, "\x80\2}(");
        for (int i = 0; i < rows[k].n; i++)
            add_tensor(&p, &one, (char)(' ' + i));
        ADD(&p, "u.");
        const entry e[] = { E("a/data.pkl", 0, p.p, p.n), E("a/data/0", 0, numbers, 4096) };
        bytes b = zip(e, 2);
        kw_tensors *t;
        if (rows[k].says)
            refuse(rows[k].says, b.p, b.n, rows[k].says);
        else
            must(kw_tensors_parse(arena, "x", b.p, b.n, &t, &err));
    }
}

/* ---- damaged files -------------------------------------------------------------------------------------------- */

/* Every prefix is refused; every bit turned over gives an answer and nothing worse. */
static void damage_is_survived(void **state)
{
    (void)state;
    static const char *const files[] = { TORCH "half.ckpt", TORCH "legacy.pt", TORCH "oldest.pt", TORCH "bf16.pt" };
    size_t n, accepted = 0, tried = 0;
    for (size_t k = 0; k < KW_LEN(files); k++) {
        char *data;
        must(kw_file_read(arena, files[k], 1 << 20, &data, &n, &err));
        for (size_t i = 0; i < n * 8; i += k == 2 ? 5 : 1, tried++) {
            kw_arena *a = kw_arena_new();
            kw_tensors *t;
            data[i / 8] ^= (char)(1 << i % 8);
            kw_status s = kw_tensors_parse(a, "x", data, n, &t, &err);
            data[i / 8] ^= (char)(1 << i % 8);
            accepted += !s;
            for (size_t j = 0; !s && j < kw_tensors_n(t); j++)
                kw_crc32c(0, kw_tensors_at(t, j)->data, kw_tensors_at(t, j)->bytes);
            kw_arena_free(a);
            assert_true(!s || s == KW_EDATA);
        }
        for (size_t i = 0; i < n; i += 7) {
            kw_arena *a = kw_arena_new();
            kw_tensors *t;
            char *copy = malloc(i ? i : 1);                       /* so that reading on is seen by the sanitizer */
            memcpy(copy, data, i);
            kw_status s = kw_tensors_parse(a, "x", copy, i, &t, &err);
            kw_arena_free(a);
            free(copy);
            assert_true(s == KW_EDATA || (k == 2 && !s));         /* tar: what is cut off may be padding */
        }
    }
    print_message("%zu of %zu files with one bit turned over were read\n", accepted, tried);
}

static void memory_may_run_out(void **state)
{
    (void)state;
    for (long n = 1;; n++) {
        kw_arena *a = kw_arena_new();
        kw_tensors *t;
        kw_alloc_fail_after(n);
        kw_status s = kw_tensors_open(a, TORCH "kinds.pt", &t, &err);
        kw_alloc_fail_after(0);
        kw_arena_free(a);
        if (!s)
            break;
        assert_int_equal(s, KW_ENOMEM);
        assert_true(n < 100000);
    }
}

#define U(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        U(every_kind_of_number_is_read),
        U(the_old_forms_are_read),
        U(half_precision_is_read),
        U(a_compressed_pickle_is_read),
        U(every_entry_has_its_checksum),
        U(a_checkpoint_is_a_model),
        U(averaged_weights_can_be_chosen),
        U(a_program_is_refused_and_not_run),
        U(odd_pickles_are_refused),
        U(bombs_are_refused),
        U(odd_archives_are_refused),
        U(lying_tensors_are_refused),
        U(many_views_are_refused),
        U(damage_is_survived),
        U(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
