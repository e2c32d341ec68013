/*
 * test_wrapped.c - models in what trainers put around them: dictionaries in dictionaries of a checkpoint, and the
 * heads that DistributedDataParallel and torch.compile give names. The same weights must come out, under the same
 * names, whatever was around them. wrapped.pt is PyTorch's own (tools/golden/torch_files.py); the others are made here.
 */
#include "fixture.h"

#define TORCH GOLDEN "torch/"

/* ---- a checkpoint in the legacy form, from a sketch -------------------------------------------------------------- */

/*
 *   NAME{...}      a dictionary           <A>     all tensors of the file, each name with A before it
 *   NAME#          a number               <A|B>   those that begin with B, with A instead
 *   NAME!          an optimizer's state
 */
typedef struct { char *p; size_t n; } bytes;
typedef struct { bytes out; const kw_tensor *stored[2048]; size_t n; const kw_tensors *file; } pickler;

static void put(bytes *b, const void *p, size_t n)
{
    assert_true(b->n + n < 4 << 20);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

#define PUT(b, text) put(b, text, sizeof text - 1)

static void put_text(bytes *b, const char *text, size_t n)
{
    uint32_t length = (uint32_t)n;
    PUT(b, "X");
    put(b, &length, 4);
    put(b, text, n);
}

static void put_int(bytes *b, int64_t v)
{
    PUT(b, "\x8a\x08");
    put(b, &v, 8);
}

/* torch._utils._rebuild_tensor_v2((storage), 0, shape, strides, False, OrderedDict()) */
static void put_tensor(pickler *p, const kw_tensor *t)
{
    bytes *b = &p->out;
    char key[24];
    int64_t strides[KW_MAX_RANK], step = 1;
    for (int i = t->rank - 1; i >= 0; step *= t->shape[i--])
        strides[i] = step;
    snprintf(key, sizeof key, "%zu", p->n);
    assert_true(p->n < KW_LEN(p->stored));
    p->stored[p->n++] = t;
    PUT(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(b, "storage", 7);
    const char *type = t->dtype == KW_F16 ? "Half" : t->dtype == KW_F32 ? "Float" : "Long";
    assert_true(t->dtype == KW_F16 || t->dtype == KW_F32 || t->dtype == KW_I64);
    PUT(b, "ctorch\n");
    put(b, type, strlen(type));
    PUT(b, "Storage\n");
    put_text(b, key, strlen(key));
    put_text(b, "cpu", 3);
    put_int(b, kw_tensor_count(t));
    PUT(b, "NtQK\0(");
    for (int i = 0; i < t->rank; i++)
        put_int(b, t->shape[i]);
    PUT(b, "t(");
    for (int i = 0; i < t->rank; i++)
        put_int(b, strides[i]);
    PUT(b, "t\x89" "ccollections\nOrderedDict\n)RtR");
}

static const char *put_some(pickler *p, const char *s)
{
    char head[64], instead[64] = "", name[KW_KEY_ROOM];
    const char *end = strchr(s, '>'), *bar = memchr(s, '|', (size_t)(end - s));
    size_t taken = 0;
    snprintf(head, sizeof head, "%.*s", (int)((bar ? bar : end) - s), s);
    if (bar)
        snprintf(instead, sizeof instead, "%.*s", (int)(end - bar - 1), bar + 1);
    for (size_t i = 0; i < kw_tensors_n(p->file); i++) {
        const kw_tensor *t = kw_tensors_at(p->file, i);
        if (!kw_starts_with(t->name, instead))
            continue;
        snprintf(name, sizeof name, "%s%s", head, t->name + strlen(instead));
        put_text(&p->out, name, strlen(name));
        put_tensor(p, t);
        PUT(&p->out, "s");
        taken++;
    }
    assert_true(taken > 0);
    return end + 1;
}

/* {"state": {0: {"step": 1, "exp_avg": T}}, "param_groups": []} */
static void put_optimizer(pickler *p)
{
    PUT(&p->out, "}X\5\0\0\0state}K\0}X\4\0\0\0stepK\1sX\7\0\0\0exp_avg");
    put_tensor(p, kw_tensors_at(p->file, 0));
    PUT(&p->out, "sssX\x0c\0\0\0param_groups]s");
}

static const char *put_dict(pickler *p, const char *s)
{
    PUT(&p->out, "}");
    while (*s && *s != '}') {
        if (*s == ' ' || *s == '<') {
            s = *s == ' ' ? s + 1 : put_some(p, s + 1);
            continue;
        }
        size_t n = strcspn(s, "{#!");
        put_text(&p->out, s, n);
        s += n;
        if (*s == '#')
            PUT(&p->out, "K\3");
        else if (*s == '!')
            put_optimizer(p);
        else
            s = put_dict(p, s + 1);
        PUT(&p->out, "s");
        s++;
    }
    return s;
}

static char *save(const char *sketch, const char *from)
{
    static const char head[] = "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\2M\xe9\3.\x80\2}.\x80\2";
    pickler *p = kw_alloc(arena, sizeof *p);
    kw_tensors *file;
    must(kw_tensors_open(arena, from, &file, &err));
    *p = (pickler){ .out = { kw_alloc(arena, 4 << 20), 0 }, .file = file };
    PUT(&p->out, head);
    assert_int_equal(*put_dict(p, sketch), 0);
    PUT(&p->out, ".\x80\2](");
    for (size_t i = 0; i < p->n; i++) {
        char key[24];
        snprintf(key, sizeof key, "%zu", i);
        put_text(&p->out, key, strlen(key));
    }
    PUT(&p->out, "e.");
    for (size_t i = 0; i < p->n; i++) {
        int64_t count = kw_tensor_count(p->stored[i]);
        put(&p->out, &count, 8);
        put(&p->out, p->stored[i]->data, (size_t)p->stored[i]->bytes);
    }
    must(kw_file_write_atomic(in_dir("x.pt"), p->out.p, p->out.n, &err));
    return in_dir("x.pt");
}

/* ---- the same model ---------------------------------------------------------------------------------------------- */

static bool noted(const kw_source *s, const char *text)
{
    for (size_t i = 0; i < kw_source_n_notes(s); i++)
        if (strstr(kw_source_note(s, i), text))
            return true;
    return false;
}

static void same_part(kw_source *have, kw_source *want, kw_part p, const char *what)
{
    char a[65], b[65];
    must(kw_source_hash(have, p, a, &err));
    must(kw_source_hash(want, p, b, &err));
    if (strcmp(a, b))
        fail_msg("%s: another %s", what, kw_part_name(p));
}

static void whatever_is_around_them(void **state)
{
    (void)state;
    static const struct { const char *sketch, *says, *left_out; } rows[] = {
        { "<>", NULL, NULL },
        { "state_dict{<>} epoch#", NULL, "left out: epoch" },
        { "state_dict{<>} optimizer!", NULL, "left out: optimizer" },
        { "model{<>}", "the weights lie in model:", NULL },
        { "model{state_dict{<>} epoch#} optimizer! step#", "lie in model.state_dict:", "optimizer, step, model.epoch" },
        { "state_dict{model{<>} steps#}", "lie in state_dict.model:", "left out: state_dict.steps" },
        { "a{b{c{d{e{<>}}}} f#}", "lie in a.b.c.d.e:", "left out: a.f" },
        { "optimizer! ema{<>} model{<>}", "lie in model:", "left out: optimizer, ema" },
        { "weird{<>} opt! optim_g! epoch#", "lie in weird:", "optim_g, epoch" },
        { "<> optimizer! rng_state# epoch#", NULL, "left out: optimizer, rng_state, epoch" },
        { "model{<module.>}", "module.: left out of the names", NULL },
        { "state_dict{<_orig_mod.>}", "_orig_mod.: left out of the names", NULL },
        { "state_dict{<module._orig_mod.>}", "module., _orig_mod.: left out of the names", NULL },
        { "state_dict{<model.>}", "model.: left out of the names", NULL },
        { "state_dict{<_forward_module.pipe.model.>}", "pipe.model.: left out of the names", NULL },
        { "state_dict{<model.> <ema.>}", "model.: left out of the names", NULL },
        { "module{<model.module.>}", "model.: left out of the names", NULL },
        { "a{b{c{d{e{f{g{h{i{j{<>}}}}}}}}}}", "a.b.c.d.e.f.g.h.i.j.: left out of the names", NULL },
        { "<> <module.>", NULL, NULL },   /* two would be one: they stay */
        { "model{diffusion_model{<|model.diffusion_model.>}} first_stage_model{state_dict{<|first_stage_model.>}}"
          " cond_stage_model{<|cond_stage_model.>} optimizers!", "lie in first_stage_model.state_dict:",
          "left out: optimizers" },
    };
    kw_source *want, *have;
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &want, &err));
    for (size_t i = 0; i < KW_LEN(rows); i++) {
        must(kw_source_open(arena, save(rows[i].sketch, GOLDEN "v1.safetensors"), &have, &err));
        for (int p = 0; p < KW_N_PARTS; p++)
            if (kw_source_has(want, (kw_part)p))
                same_part(have, want, (kw_part)p, rows[i].sketch);
        assert_int_equal(kw_source_is_wrapped(have), rows[i].says != NULL);
        if ((rows[i].says && !noted(have, rows[i].says)) || (rows[i].left_out && !noted(have, rows[i].left_out))) {
            for (size_t k = 0; k < kw_source_n_notes(have); k++)
                print_message("%s\n", kw_source_note(have, k));
            fail_msg("%s: does not say so", rows[i].sketch);
        }
    }
    print_message("%zu forms\n", KW_LEN(rows));
}

static void pytorch_wraps_them_so(void **state)
{
    (void)state;
    kw_source *want, *have;
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &want, &err));
    must(kw_source_open(arena, TORCH "wrapped.pt", &have, &err));
    same_part(have, want, KW_PART_VAE, "wrapped.pt");
    assert_true(noted(have, "lie in model.state_dict:"));
    assert_true(noted(have, "module., _orig_mod.: left out of the names of 124 tensors"));
    assert_true(noted(have, "left out: optimizer, args, model.epoch"));
    assert_int_equal(kw_source_n_unknown(have), 0);
}

static void averages_are_found_in_it(void **state)
{
    (void)state;
    kw_source *want, *have;
    must(kw_source_open_averages(arena, TORCH "v1.ckpt", &want, &err));
    must(kw_source_open_averages(arena, save("model{state_dict{<module.model.>}}", TORCH "v1.ckpt"), &have, &err));
    same_part(have, want, KW_PART_UNET, "averages");
}

static void what_is_too_deep_is_refused(void **state)
{
    (void)state;
    kw_source *s;
    char *path = save("a{b{c{d{e{f{g{h{i{j{k{l{m{n{o{p{q{r{<>}}}}}}}}}}}}}}}}}}", GOLDEN "v1.safetensors");
    assert_int_equal(kw_source_open(arena, path, &s, &err), KW_EDATA);
    assert_non_null(strstr(err.what, "nested more deeply"));
}

/* A part that was compiled when save_pretrained wrote it: diffusers itself does not read it back. */
static void parts_of_folders_may_be_wrapped(void **state)
{
    (void)state;
    kw_source *want, *have;
    must(kw_source_open(arena, GOLDEN "v1.safetensors", &want, &err));
    size_t n = kw_source_n(want, KW_PART_UNET);
    kw_tensor *t = kw_alloc_array(arena, n, sizeof *t);
    for (size_t i = 0; i < n; i++) {
        t[i] = *kw_source_at(want, KW_PART_UNET, i);
        t[i].name = kw_sprintf(arena, "_orig_mod.%s", t[i].name);
    }
    must(kw_mkdirs(in_dir("model/unet"), &err));
    must(kw_tensors_save(in_dir("model/unet/diffusion_pytorch_model.safetensors"), t, n, NULL, 0, &err));
    must(kw_source_open(arena, in_dir("model"), &have, &err));
    same_part(have, want, KW_PART_UNET, "a folder");
    assert_true(noted(have, "_orig_mod.: left out of the names"));
    must(kw_source_save(have, KW_PART_UNET, NULL, 0, KW_F16, NULL, 0, in_dir("again.safetensors"), &err));
    must(kw_source_open(arena, in_dir("again.safetensors"), &have, &err));
    same_part(have, want, KW_PART_UNET, "written again");
    assert_false(kw_source_is_wrapped(have));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_is_around_them), cmocka_unit_test(pytorch_wraps_them_so),
        cmocka_unit_test(averages_are_found_in_it), cmocka_unit_test(what_is_too_deep_is_refused),
        cmocka_unit_test(parts_of_folders_may_be_wrapped),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
