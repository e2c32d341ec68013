/* test_lora_file.c - spellings of keys, alphas beside the tensors, what is refused, blocks, and writing in other names.
 */
#include "adapter/adapter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static kw_arena *a;

static int start(void **state)
{
    (void)state;
    a = kw_arena_new();
    return !a;
}

static int end(void **state)
{
    (void)state;
    kw_arena_free(a);
    return 0;
}

static kw_tensor tensor(const char *name, int64_t rows, int64_t columns)
{
    size_t n = (size_t)(rows * KW_MAX(columns, 1));
    float *x = kw_alloc_array(a, n, sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i % 5) + 1;
    kw_tensor t = {
        .name = name, .dtype = KW_F32, .rank = columns ? 2 : 1, .shape = { rows, columns }, .data = x, .bytes = 4 * n
    };
    return t;
}

static const char *scratch(const char *name)
{
    return kw_sprintf(a, "/tmp/kw-test-lora-file-%d-%s", (int)getpid(), name);
}

static kw_status open_list(const kw_tensor *t, size_t n, const kw_meta *meta, size_t n_meta, kw_lora_file **f,
                           kw_err *e)
{
    const char *path = scratch("x.safetensors");
    assert_int_equal(kw_tensors_save(path, t, n, meta, n_meta, NULL), KW_OK);
    kw_status s = kw_lora_file_open(a, path, NULL, f, e);
    unlink(path);
    return s;
}

/* ---- spellings -------------------------------------------------------------------------------------------------- */

#define UNET_Q "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
#define TEXT_Q "text_model.encoder.layers.3.self_attn.q_proj"

/*  down, up, what they are  */
static const struct { const char *down, *up; kw_part part; const char *path; kw_dialect dialect; } spellings[] = {
    { "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
      "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight", KW_PART_UNET, UNET_Q,
      KW_DIALECT_KOHYA },
    { "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
      "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_up.weight", KW_PART_UNET, UNET_Q,
      KW_DIALECT_KOHYA },
    { "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
      "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight", KW_PART_UNET, UNET_Q,
      KW_DIALECT_LYCORIS },
    { "unet." UNET_Q ".lora_A.weight", "unet." UNET_Q ".lora_B.weight", KW_PART_UNET, UNET_Q, KW_DIALECT_DIFFUSERS },
    { UNET_Q ".lora_A.weight", UNET_Q ".lora_B.weight", KW_PART_UNET, UNET_Q, KW_DIALECT_DIFFUSERS },
    { "unet." UNET_Q ".lora.down.weight", "unet." UNET_Q ".lora.up.weight", KW_PART_UNET, UNET_Q,
      KW_DIALECT_DIFFUSERS_OLD },
    { "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight",
      "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.up.weight", KW_PART_UNET, UNET_Q,
      KW_DIALECT_DIFFUSERS_2023 },
    { "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
      "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight", KW_PART_UNET,
      "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0", KW_DIALECT_DIFFUSERS_2023 },
    { "base_model.model." UNET_Q ".lora_A.weight", "base_model.model." UNET_Q ".lora_B.weight", KW_PART_UNET, UNET_Q,
      KW_DIALECT_PEFT },
    { "base_model.model." UNET_Q ".lora_A.default.weight", "base_model.model." UNET_Q ".lora_B.default.weight",
      KW_PART_UNET, UNET_Q, KW_DIALECT_PEFT },
    { "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_A.weight",
      "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_B.weight", KW_PART_UNET, UNET_Q,
      KW_DIALECT_COMFY },
    { "lora_te_text_model_encoder_layers_3_self_attn_q_proj.lora_down.weight",
      "lora_te_text_model_encoder_layers_3_self_attn_q_proj.lora_up.weight", KW_PART_TEXT, TEXT_Q, KW_DIALECT_KOHYA },
    { "lora_te1_text_model_encoder_layers_3_self_attn_q_proj.lora_down.weight",
      "lora_te1_text_model_encoder_layers_3_self_attn_q_proj.lora_up.weight", KW_PART_TEXT, TEXT_Q, KW_DIALECT_KOHYA },
    { "lora_te2_text_model_encoder_layers_3_self_attn_q_proj.lora_down.weight",
      "lora_te2_text_model_encoder_layers_3_self_attn_q_proj.lora_up.weight", KW_PART_TEXT2, TEXT_Q, KW_DIALECT_KOHYA },
    { "text_encoder." TEXT_Q ".lora_linear_layer.down.weight", "text_encoder." TEXT_Q ".lora_linear_layer.up.weight",
      KW_PART_TEXT, TEXT_Q, KW_DIALECT_DIFFUSERS_OLD },
    { "text_encoder.text_model.encoder.layers.3.self_attn.to_q_lora.down.weight",
      "text_encoder.text_model.encoder.layers.3.self_attn.to_q_lora.up.weight", KW_PART_TEXT, TEXT_Q,
      KW_DIALECT_DIFFUSERS_2023 },
    { "text_encoder_2." TEXT_Q ".lora_A.weight", "text_encoder_2." TEXT_Q ".lora_B.weight", KW_PART_TEXT2, TEXT_Q,
      KW_DIALECT_DIFFUSERS },
    { "base_model.model.encoder.layers.3.self_attn.q_proj.lora_A.weight",
      "base_model.model.encoder.layers.3.self_attn.q_proj.lora_B.weight", KW_PART_TEXT, TEXT_Q, KW_DIALECT_PEFT },
    { "lycoris_encoder_layers_3_self_attn_q_proj.lora_down.weight",
      "lycoris_encoder_layers_3_self_attn_q_proj.lora_up.weight", KW_PART_TEXT, TEXT_Q, KW_DIALECT_LYCORIS },
    { "text_encoders.clip_g.transformer." TEXT_Q ".lora_A.weight",
      "text_encoders.clip_g.transformer." TEXT_Q ".lora_B.weight", KW_PART_TEXT2, TEXT_Q, KW_DIALECT_COMFY },
};

static void every_spelling(void **state)
{
    (void)state;
    for (size_t i = 0; i < KW_LEN(spellings); i++) {
        kw_lora_file *f;
        kw_err e = { 0 };
        kw_tensor t[] = { tensor(spellings[i].down, 4, 24), tensor(spellings[i].up, 16, 4) };
        if (open_list(t, 2, NULL, 0, &f, &e))
            fail_msg("%s: %s", spellings[i].down, e.what);
        if (f->n != 1 || f->n_unknown)
            fail_msg("%s is not known", spellings[i].down);
        assert_string_equal(f->item[0].path, spellings[i].path);
        assert_int_equal(f->item[0].part, spellings[i].part);
        assert_int_equal(f->dialect, spellings[i].dialect);
        assert_int_equal(f->item[0].rank, 4);
        assert_true(f->item[0].scale == 1);
    }
}

/* A key of a model, of another family, of a later method; a tensor twice; half a layer. None disappears. */
static void unknown_keys(void **state)
{
    (void)state;
    static const char *const odd[] = {
        "lora_unet_nowhere_to_q.lora_down.weight",
        "unet.conv_in.weight",
        "lora_unet_down_blocks_0_resnets_0_conv1.something",
        "lora_transformer_single_transformer_blocks_0_attn_to_q.alpha",
        "global_step",
        "unet." UNET_Q ".q_layer.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
    };
    kw_tensor t[KW_LEN(odd) + 6];
    size_t n = 0;
    kw_lora_file *f;
    for (size_t i = 0; i < KW_LEN(odd); i++)
        t[n++] = tensor(odd[i], 2, 2);
    t[n++] = tensor("unet." UNET_Q ".lora_A.weight", 4, 24);
    t[n++] = tensor("unet." UNET_Q ".lora_B.weight", 16, 4);
    t[n++] = tensor("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight", 16, 4);
    t[n++] = tensor("bundle_emb.fox.string_to_param.*", 2, 24);
    t[n++] = tensor("unet." UNET_Q ".hada_t1", 2, 2);
    assert_int_equal(open_list(t, n, NULL, 0, &f, NULL), KW_OK);
    assert_int_equal(f->n, 1);
    assert_int_equal(f->n_bundled, 1);
    assert_int_equal(f->n_unknown, KW_LEN(odd) + 2);
}

static void tensors_that_do_not_fit(void **state)
{
    (void)state;
    kw_lora_file *f;
    kw_err e;
    kw_tensor t[] = { tensor("unet." UNET_Q ".lora_A.weight", 4, 24), tensor("unet." UNET_Q ".lora_B.weight", 16, 3) };
    assert_int_equal(open_list(t, 2, NULL, 0, &f, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "do not fit each other"));
    kw_tensor alpha[] = { t[0], tensor("unet." UNET_Q ".lora_B.weight", 16, 4), tensor("unet." UNET_Q ".alpha", 2, 0) };
    assert_int_equal(open_list(alpha, 3, NULL, 0, &f, &e), KW_EDATA);
    assert_non_null(strstr(e.what, ".alpha has the size [2]"));
}

/* ---- alphas that lie beside the tensors ------------------------------------------------------------------------- */

static void alphas_of_diffusers(void **state)
{
    (void)state;
    kw_lora_file *f;
    kw_err e = { 0 };
    kw_tensor t[] = { tensor("unet." UNET_Q ".lora_A.weight", 4, 24), tensor("unet." UNET_Q ".lora_B.weight", 16, 4),
                      tensor("text_encoder." TEXT_Q ".lora_A.weight", 4, 24),
                      tensor("text_encoder." TEXT_Q ".lora_B.weight", 16, 4) };
    kw_meta meta = { "lora_adapter_metadata",
                     "{\"unet.r\": 4, \"unet.lora_alpha\": 8, \"unet.alpha_pattern\": {\"attn1.to_q\": 2}, "
                     "\"text_encoder.r\": 4, \"text_encoder.lora_alpha\": 6, \"text_encoder.use_rslora\": true}" };
    assert_int_equal(open_list(t, 4, &meta, 1, &f, &e), KW_OK);
    assert_true(kw_lora_file_find(f, KW_PART_UNET, UNET_Q)->scale == 0.5);
    assert_true(kw_lora_file_find(f, KW_PART_TEXT, TEXT_Q)->scale == 3);
    meta.value = "{\"r\": 4, \"lora_alpha\": 8, \"alpha_pattern\": {\"attn[12].to_q\": 2}}";
    assert_int_equal(open_list(t, 2, &meta, 1, &f, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "attn[12].to_q"));
}

/* ---- blocks ----------------------------------------------------------------------------------------------------- */

static void blocks(void **state)
{
    (void)state;
    float v[KW_LORA_BLOCKS];
    kw_lora_names sd = { .xl = false }, xl = { .xl = true };
    kw_err e;
    assert_int_equal(kw_lora_block(&sd, KW_PART_TEXT, TEXT_Q), 0);
    assert_int_equal(kw_lora_block(&sd, KW_PART_UNET, "conv_in"), 1);
    assert_int_equal(kw_lora_block(&sd, KW_PART_UNET, UNET_Q), 1 + 4);
    assert_int_equal(kw_lora_block(&sd, KW_PART_UNET, "mid_block.resnets.0.conv1"), 13);
    assert_int_equal(kw_lora_block(&sd, KW_PART_UNET, "up_blocks.3.attentions.2.proj_out"), 14 + 11);
    assert_int_equal(kw_lora_block(&xl, KW_PART_UNET, "up_blocks.1.attentions.2.proj_out"), 14 + 5);
    assert_int_equal(kw_lora_block(&sd, KW_PART_UNET, "time_embedding.linear_1"), KW_NONE);
    assert_int_equal(kw_lora_blocks_parse("1,0,0,0,0,0,0.5,0.25,0,0,0,0,0,0,0,0,2", v, &e), KW_OK);
    assert_true(v[0] == 1 && v[1 + 8] == 0.5f && v[13] == 0.25f && v[14 + 11] == 2 && v[1] == 0);
    assert_int_equal(kw_lora_blocks_parse("BASE=0,OUT=0.5,IN07=-1,M00=3", v, &e), KW_OK);
    assert_true(v[0] == 0 && v[1] == 1 && v[1 + 7] == -1 && v[13] == 3 && v[14] == 0.5f && v[25] == 0.5f);
    static const char *const bad[] = { "",      "1",     "1,2,3", "IN12=1",
                                       "IN=",   "UP=1",  "1,,1",  "1,1,1,1,1,1,1,1,1,1,1,1,",
                                       "IN4=1", "IN04=x" };
    for (size_t i = 0; i < KW_LEN(bad); i++)
        if (kw_lora_blocks_parse(bad[i], v, &e) != KW_EUSAGE)
            fail_msg("'%s' was taken", bad[i]);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

static const kw_tensor *same(const kw_lora_file *x, const kw_lora_file *y, size_t i, kw_role role)
{
    const kw_delta *d = kw_lora_file_find(y, x->item[i].part, x->item[i].path);
    assert_non_null(d);
    const kw_tensor *s = x->item[i].t[role], *t = d->t[role];
    assert_true(!s == !t);
    if (s) {
        assert_int_equal(s->bytes, t->bytes);
        assert_memory_equal(s->data, t->data, s->bytes);
    }
    assert_true(fabs(x->item[i].scale - d->scale) < 1e-6 * fabs(d->scale));
    return t;
}

/* kohya -> diffusers -> PEFT (a folder for each part) -> kohya: tensors keep their bytes, layers their scale. */
static void round_trips(void **state)
{
    (void)state;
    const char *kohya = KW_TESTS "/golden/lora/files/diffusers/kohya/file.safetensors", *one = scratch("d.safetensors"),
               *back = scratch("k.safetensors"), *peft = scratch("peft");
    kw_lora_file *f, *g = NULL, *h = NULL;
    kw_err e = { 0 };
    assert_int_equal(kw_lora_file_open(a, kohya, NULL, &f, &e), KW_OK);
    if (kw_lora_convert(a, f, KW_LORA_DIFFUSERS, one, &e) || kw_lora_file_open(a, one, NULL, &g, &e)
        || kw_lora_convert(a, g, KW_LORA_KOHYA, back, &e) || kw_lora_file_open(a, back, NULL, &h, &e)
        || kw_lora_convert(a, g, KW_LORA_PEFT, peft, &e))
        fail_msg("%s", e.what);
    assert_int_equal(g->dialect, KW_DIALECT_DIFFUSERS);
    assert_int_equal(h->dialect, KW_DIALECT_KOHYA);
    assert_true(f->n == g->n && f->n == h->n && f->n > 10 && !h->n_unknown);
    for (size_t i = 0; i < f->n; i++) {
        same(f, g, i, KW_ROLE_DOWN);
        same(f, g, i, KW_ROLE_UP);
        same(f, h, i, KW_ROLE_DOWN);
    }
    assert_int_equal(kw_lora_file_open(a, kw_path_join(a, peft, "unet"), NULL, &h, &e), KW_OK);
    assert_int_equal(h->dialect, KW_DIALECT_PEFT);
    for (size_t i = 0; i < h->n; i++)
        same(h, f, i, KW_ROLE_UP);
    assert_int_equal(kw_remove_all(peft, &e), KW_OK);
    unlink(one);
    unlink(back);
}

static void no_words(void **state)
{
    (void)state;
    kw_lora_file *f;
    kw_err e;
    const char *to = scratch("never.safetensors");
    assert_int_equal(kw_lora_file_open(a, KW_TESTS "/golden/lora/files/lycoris/lokr-factor.safetensors", NULL, &f, &e),
                     KW_OK);
    assert_int_equal(kw_lora_convert(a, f, KW_LORA_DIFFUSERS, to, &e), KW_EDATA);
    assert_non_null(strstr(e.what, "LoKr"));
    assert_false(kw_is_file(to));
    assert_int_equal(kw_lora_convert(a, f, KW_LORA_KOHYA, to, &e), KW_OK);
    assert_int_equal(kw_lora_file_open(a, to, NULL, &f, &e), KW_OK);
    assert_int_equal(f->dialect, KW_DIALECT_KOHYA);
    unlink(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling),
        cmocka_unit_test(unknown_keys),
        cmocka_unit_test(tensors_that_do_not_fit),
        cmocka_unit_test(alphas_of_diffusers),
        cmocka_unit_test(blocks),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(no_words),
    };
    return cmocka_run_group_tests(tests, start, end);
}
