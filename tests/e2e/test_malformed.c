/*
 * test_malformed.c - files that are wrong in one way each, given to the program: it says what is wrong, exits as it
 * promises, within a second and 64 MB. The numbers C1 to C21 group them by what is wrong (container, header, numbers,
 * names, pickles, archives, folders). Everything is made here; LoRAs, models and runs: test_malformed_models.c.
 */
#include "malformed.h"

static const row rows[] = {
    /* C1: not such a file at all */
    R("C1", "is empty (0 bytes)", ""), R("C1", "only 1 bytes", "\0"), R("C1", "only 4 bytes", "abcd"),
    R("C1", "only 7 bytes", "\2\0\0\0\0\0\0"),
    R("C1", "a web page", "<!DOCTYPE html><html><body>Sign in</body></html>"),
    R("C1", "a web page", "\n\n<html lang=\"en\">"), R("C1", "an XML page", "<?xml version=\"1.0\"?><Error/>"),
    R("C1", "a Git LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"),
    R("C1", "a GGUF file", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0"), R("C1", "a compressed file", "\x1f\x8b\b\0\0\0\0\0\0\0\0"),
    R("C1", "not a safetensors file", "Hello, this is a text of some length and nothing else.\n"),
    S("C1", "no such file", INSPECT, "true"), S("C1", "a pipe, socket or device", INSPECT, "mkfifo f"),
    S("C1", "a pipe, socket or device", INSPECT, "ln -s /dev/zero f"),
    S("C1", "no Stable Diffusion model found", INSPECT, "mkdir f"),
    S("C1", "cannot be read", INSPECT, "ln -s f f"), S("C1", "no such file", INSPECT, "ln -s nowhere f"),

    /* C2: the header's length */
    R("C2", "starts with '{'", "\0\0\0\0\0\0\0\0{}"), R("C2", "impossible header size", "\0\0\0\0\0\0\0\x80{}"),
    R("C2", "impossible header size", "\xff\xff\xff\xff\xff\xff\xff\xff{}"),
    R("C2", "its header claims 3 bytes", "\3\0\0\0\0\0\0\0{}"),
    R("C2", "its header claims 4096", "\0\x10\0\0\0\0\0\0{}"),
    R("C2", "impossible header size", "\1\xe1\xf5\5\0\0\0\0{}"),
    { "C2", "more than 100 MB", RAW, "\1\xe1\xf5\5\0\0\0\0{", 9, 200000000, INSPECT, 0, 0, NULL, NULL },

    /* C3: the header's text */
    H("C3", "starts with '{'", "[]", 0), H("C3", "starts with '{'", " {}", 0),
    H("C3", "starts with '{'", "\xef\xbb\xbf{}", 0),
    H("C3", "starts with '{'", "null", 0), H("C3", "something follows", "{}x", 0),
    H("C3", "something follows", "{}\n", 0),
    H("C3", "something follows", "{}{}", 0), H("C3", "something follows", "{}\0", 0), H("C3", "expected", "{", 0),
    H("C3", "expected", "{\"a\"", 0), H("C3", "does not end", "{\"a", 0), H("C3", "expected", "{\"a\":}", 0),
    H("C3", "expected", "{\"a\":" ONE, 4), H("C3", "expected", "{\"a\":" ONE ",}", 4), H("C3", "expected", "{a:1}", 0),
    H("C3", "not valid UTF-8", "{\"a\xff\":" ONE "}", 4), H("C3", "not valid UTF-8", "{\"\xed\xa0\x80\":" ONE "}", 4),
    H("C3", "not valid UTF-8", "{\"\xc0\xaf\":" ONE "}", 4), H("C3", "surrogate", "{\"\\ud800\":" ONE "}", 4),
    H("C3", "surrogate", "{\"\\udc00\":" ONE "}", 4), H("C3", "surrogate", "{\"\\ud800\\u0041\":" ONE "}", 4),
    H("C3", "a NUL character", "{\"\\u0000\":" ONE "}", 4), H("C3", "a control character", "{\"a\0b\":" ONE "}", 4),
    H("C3", "a control character", "{\"a\nb\":" ONE "}", 4), H("C3", "not a JSON escape", "{\"\\x41\":" ONE "}", 4),
    H("C3", "not a JSON escape", "{\"\\u12g4\":" ONE "}", 4),
    H("C3", "must be texts", "{\"__metadata__\":{\"a\":1}}", 0),
    H("C3", "must be texts", "{\"__metadata__\":{\"a\":null}}", 0),
    H("C3", "expected", "{\"__metadata__\":[]}", 0),
    H("C3", "given twice", "{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0),
    H("C3", "__metadata__ given twice", "{\"__metadata__\":{},\"__metadata__\":{}}", 0),

    /* C4: JSON that is too deep, too large, or has odd numbers */
    S("C4", "expected", INSPECT,
      "{ printf '\\240\\206\\1\\0\\0\\0\\0\\0{\"a\":'; head -c 99995 /dev/zero | tr '\\0' '['; } >f"),
    H("C4", "whole", A(T("[1.5]", "0", "4")), 4), H("C4", "whole", A(T("[-1]", "0", "4")), 4),
    H("C4", "whole", A(T("[1e9]", "0", "4")), 4), H("C4", "whole", A(T("[1e999]", "0", "4")), 4),
    H("C4", "whole", A(T("[true]", "0", "4")), 4), H("C4", "whole", A(T("[\"1\"]", "0", "4")), 4),
    H("C4", "leading zeros", A(T("[01]", "0", "4")), 4), H("C4", "leading zeros", A(T("[1]", "00", "4")), 4),
    H("C4", "whole", A(T("[1]", "-0", "4")), 4), H("C4", "too large", A(T("[18446744073709551616]", "0", "4")), 4),
    H("C4", "too large", A(T("[9223372036854775808]", "0", "4")), 4),
    H("C4", "too large", A(T("[1]", "0", "99999999999999999999999")), 4),
    S("C4", "more than 65536 tensors", INSPECT,
      "h=$(awk 'BEGIN { for (i = 0; i < 65537; i++) printf \"%s\\\"%d\\\":{\\\"dtype\\\":\\\"F32\\\",\\\"shape\\\":[0],"
      "\\\"data_offsets\\\":[0,0]}\", i ? \",\" : \"{\", i; print \"}\" }'); n=${#h};"
      "{ printf \"\\\\$(printf %o $((n & 255)))"
      "\\\\$(printf %o $((n >> 8 & 255)))\\\\$(printf %o $((n >> 16 & 255)))\\\\0\\\\0\\\\0\\\\0\\\\0\";"
      "printf %s \"$h\"; } >f"),

    /* C5: shapes */
    H("C5", "impossibly large", A(T("[4294967296,4294967296]", "0", "0")), 0),
    H("C5", "impossibly large", A(T("[4611686018427387905]", "0", "4")), 4),
    H("C5", "impossibly large", A(T("[0,9223372036854775807,9223372036854775807]", "0", "0")), 0),
    H("C5", "more than 8 dimensions", A(T("[1,1,1,1,1,1,1,1,1]", "0", "4")), 4),
    H("C5", "whole", A(T("[[1]]", "0", "4")), 4), H("C5", "whole", A(T("[1,]", "0", "4")), 4),
    H("C5", "expected", A(T("1", "0", "4")), 4), H("C5", "size of its shape", A(T("[]", "0", "8")), 8),
    H("C5", "size of its shape", A(T("[0]", "0", "4")), 4),

    /* C6: where the data lie */
    H("C6", "ends before it begins", A(T("[1]", "4", "0")), 4), H("C6", "beyond the end", A(ONE), 3),
    H("C6", "beyond the end", A(T("[1]", "9223372036854775800", "9223372036854775804")), 4),
    H("C6", "size of its shape", A(T("[2]", "0", "4")), 4), H("C6", "size of its shape", A(T("[1]", "0", "8")), 8),
    H("C6", "a gap before", A(T("[1]", "4", "8")), 8),
    H("C6", "a gap before", "{\"a\":" ONE ",\"b\":" T("[1]", "8", "12") "}", 12),
    H("C6", "overlaps", "{\"a\":" ONE ",\"b\":" ONE "}", 4),
    H("C6", "overlaps", "{\"a\":" T("[2]", "0", "8") ",\"b\":" T("[1]", "4", "8") "}", 8),
    H("C6", "overlaps", "{\"a\":" T("[3]", "0", "12") ",\"b\":" T("[1]", "4", "8") "}", 12),
    H("C6", "1 bytes follow", A(ONE), 5), H("C6", "4 bytes follow", "{}", 4),
    H("C6", "expected", A(T("[1]", "0", "4,8")), 4),
    H("C6", "expected", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4),
    H("C6", "expected", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":4}}", 4),

    /* C7: names */
    H("C7", "\"a\" is given twice", "{\"a\":" ONE ",\"a\":" T("[1]", "4", "8") "}", 8),
    H("C7", "given twice", "{\"a\":" ONE ",\"\\u0061\":" T("[1]", "4", "8") "}", 8),
    H("C7", "without a name", "{\"\":" ONE "}", 4), H("C7", "looks like a path", "{\"../x\":" ONE "}", 4),
    H("C7", "looks like a path", "{\"/etc/passwd\":" ONE "}", 4),
    H("C7", "looks like a path", "{\"a/../b\":" ONE "}", 4),
    H("C7", "a control character", "{\"a\\u001b[2J\":" ONE "}", 4),
    H("C7", "a control character", "{\"\\u007f\":" ONE "}", 4),
    H("C7", "a control character", "{\"\\u0085\":" ONE "}", 4),
    S("C7", "longer than 1024 bytes", INSPECT, 
      "{ printf '\\70\\4\\0\\0\\0\\0\\0\\0{\"'; head -c 1076 /dev/zero | tr '\\0' a; printf '\":'; } >f"),

    /* C8: kinds of numbers, fields */
    H("C8", "\"C64\" is not supported", "{\"a\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8),
    H("C8", "\"F4\" is not supported", "{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1),
    H("C8", "\"F8_E8M0\" is not supported", "{\"a\":{\"dtype\":\"F8_E8M0\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1),
    H("C8", "\"f32\" is not supported", "{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4),
    H("C8", "\"\" is not supported", "{\"a\":{\"dtype\":\"\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4),
    H("C8", "expected", "{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4),
    H("C8", "is missing", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4), H("C8", "expected", "{\"a\":{}}", 0),
    H("C8", "is missing", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4),
    H("C8", "is missing", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4), H("C8", "expected", "{\"a\":[]}", 0),
    H("C8", "given twice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4),
    H("C8", "a field other than", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4),

    /* C9: parts that do not fit together, and what is no model */
    S("C9", "has no unet", GENERATE, "cp -r \"$BASE\" f; rm f/unet/*.safetensors"),
    S("C9", "takes 5 channels", GENERATE,
      "cp -r \"$BASE\" f; sed -i 's/\"in_channels\": 4/\"in_channels\": 5/' f/unet/config.json"),
    S("C9", "block type Odd2D is not supported", GENERATE,
      "cp -r \"$BASE\" f; sed -i 's/\"DownBlock2D\"/\"Odd2D\"/' f/unet/config.json"),
    S("C9", "recognised FluxTransformer2DModel", GENERATE,
      "cp -r \"$BASE\" f; sed -i 's/UNet2DConditionModel/FluxTransformer2DModel/' f/unet/config.json"),
    S("C9", "is not a configuration", GENERATE, "cp -r \"$BASE\" f; echo '[1, 2]' >f/unet/config.json"),
    S("C9", "config.json", GENERATE, "cp -r \"$BASE\" f; echo '{\"a\": 1, \"a\": 2}' >f/unet/config.json"),
    S("C9", "config.json", GENERATE, "cp -r \"$BASE\" f; echo '{\"a\": ' >f/unet/config.json"),
    S("C9", "beta_start", GENERATE,
      "cp -r \"$BASE\" f; echo '{\"beta_start\": -1}' >f/scheduler/scheduler_config.json"),
    S("C9", "trained_betas", GENERATE,
      "cp -r \"$BASE\" f; echo '{\"trained_betas\": [0.1]}' >f/scheduler/scheduler_config.json"),
    S("C9", "prediction_type", GENERATE,
      "cp -r \"$BASE\" f; echo '{\"prediction_type\": \"flow\"}' >f/scheduler/scheduler_config.json"),
    { "C9", "no Stable Diffusion model found", HEADER, A(ONE), sizeof A(ONE) - 1, 4, GENERATE, 0, 0, NULL, NULL },
    { "C9", "lacks \"conv_out.weight\"", SHELL, "\"$KIWAME\" convert \"$BASE\" f.safetensors >/dev/null; LC_ALL=C sed "
      "'s/diffusion_model.out.2.weight/diffusion_model.out.3.weight/; s/kiwame.config/kiwame.confix/' f.safetensors >f",
      0, 0, GENERATE, 0, 0, NULL, NULL },

    /* C11: what is known, and no base */
#define ALONE(name) "{\"" name "\":" ONE "}"
#define NAMED(says, name) { "C11", says, HEADER, ALONE(name), sizeof ALONE(name) - 1, 4, GENERATE, 0, 0, NULL, NULL }
    NAMED("a Stable Diffusion 3 model", "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"),
    NAMED("a FLUX model", "double_blocks.0.img_attn.qkv.weight"), NAMED("a PixArt model", "adaln_single.linear.weight"),
    NAMED("a Stable Cascade model", "clip_txt_mapper.weight"),
    NAMED("an AnimateDiff motion module", "motion_modules.0.x"),
    NAMED("a ControlNet", "control_model.input_hint_block.0.weight"),
    NAMED("a LoRA, not a base model", "lora_unet_mid_block.lora_down.weight"),
    NAMED("a textual inversion embedding", "emb_params"),
    NAMED("a T5 text encoder", "encoder.block.0.layer.0.SelfAttention.q"),
    NAMED("a language model", "model.layers.0.self_attn.q_proj.weight"),
    NAMED("an IP-Adapter", "image_proj.proj.weight"),
    NAMED("Playground v2.5", "edm_mean"), NAMED("a CosXL model", "edm_vpred.sigma_max"),
    NAMED("quantised by bitsandbytes", "model.diffusion_model.x.weight.absmax"),
    NAMED("an AuraFlow model", "double_layers.0.attn.w1q.weight"),
    NAMED("a Wan video model", "blocks.0.cross_attn.q.weight"),

    /* C14: pickles that want more than weights need */
    P("C14", "\"os.system\"", "\x80\2cos\nsystem\n(X\2\0\0\0lstR."),
    P("C14", "\"posix.system\"", "\x80\2cposix\nsystem\n."),
    P("C14", "\"builtins.exec\"", "\x80\4\x8c\x08" "builtins\x8c\4exec\x93."),
    P("C14", "\"torch.load\"", "\x80\2ctorch\nload\n."), P("C14", "runpy", "\x80\2crunpy\n_run_code\n."),
    P("C14", "OrderedDict.update", "\x80\4\x8c\x0b" "collections\x8c\x12OrderedDict.update\x93."),
    P("C14", "a name that is no text", "\x80\4K\1K\2\x93."), P("C14", "opcode 0x69", "\x80\2(ios\nsystem\n."),
    P("C14", "opcode 0x6f", "\x80\2(o."), P("C14", "opcode 0x82", "\x80\2\x82\1."),
    P("C14", "opcode 0x83", "\x80\2\x83\1\0."),
    P("C14", "opcode 0x84", "\x80\2\x84\1\0\0\0."), P("C14", "opcode 0x50", "\x80\2Pabc\n."),
    P("C14", "opcode 0x32", "\x80\2]2."),
    P("C14", "opcode 0x30", "\x80\2]0."), P("C14", "opcode 0x97", "\x80\5\x97."),
    P("C14", "opcode 0xff", "\x80\2\xff."),
    P("C14", "protocol", "(dp0\n."), P("C14", "protocol", "\x80\1}."), P("C14", "protocol", "\x80\6}."),
    P("C14", "cut off", "\x80\2}"), P("C14", "left over", "\x80\2}}."), P("C14", "missing", "\x80\2}}\x87."),
    P("C14", "missing", "\x80\2)R."), P("C14", "mark", "\x80\2]e."), P("C14", "did not keep", "\x80\2h\7."),
    P("C14", "no known name", "\x80\2K\1)R."), P("C14", "holds none", "\x80\2K\1K\2a."),
    P("C14", "no named tensors", "\x80\2].\x80\2]."),
    R("C14", "a pickle that PyTorch did not write", "\x80\4\x95\0\0\0\0\0\0\0\0}."),

    /* C15: pickles that grow */
    P("C15", "remembered", "\x80\2}r\xff\xff\xff\xff."), P("C15", "nested", "\x80\2}q\0X\1\0\0\0ah\0s.\x80\2]."),
    P("C15", "cut off", "\x80\2X\xff\xff\xff\x7f" "abc."), P("C15", "cut off", "\x80\4\x8d\0\0\0\0\0\0\0\x80" "abc."),
    S("C15", "open values", INSPECT,
      "{ cat \"$HEAD\"; printf '\\200\\2'; head -c 1000000 /dev/zero | tr '\\0' ']'; } >f"),
    S("C15", "nested", INSPECT,
      "{ cat \"$HEAD\"; printf '\\200\\2]'; head -c 1000000 /dev/zero | tr '\\0' '\\205'; } >f"),
    S("C15", "nested", INSPECT, "{ cat \"$HEAD\"; printf '\\200\\2'; head -c 1000 /dev/zero | tr '\\0' '('; } >f"),

    /* C16: tensors that lie about their numbers (zip archives of them: tests/unit/io/test_torch.c) */
    P("C16", "not understood", "\x80\2}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n)Rs.\x80\2]."),
    P("C16", "not understood", "\x80\2}X\1\0\0\0actorch._utils\n_rebuild_parameter\n)Rs.\x80\2]."),
    P("C16", "does not name", "\x80\2}.\x80\2]X\1\0\0\0aa."), P("C16", "no list", "\x80\2}.\x80\2}."),
    P("C16", "after the last", "\x80\2}.\x80\2].x"),

    /* C17: archives */
    R("C17", "it has no end", "PK\3\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    R("C17", "several volumes", "PK\3\4----PK\5\6\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    R("C17", "list of entries is damaged", "PK\3\4----PK\5\6\0\0\0\0\1\0\1\0\0\0\0\0\0\0\0\0\0\0"),
    R("C17", "list of entries is damaged", "PK\3\4----PK\5\6\0\0\0\0\0\0\0\0\xff\xff\0\0\0\0\0\0\0\0"),
    R("C17", "not a PyTorch checkpoint", "PK\3\4----PK\5\6\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    S("C17", "not a PyTorch checkpoint", INSPECT, "mkdir x; echo 1 >x/y; tar cf f x"),
    S("C17", "is cut off", INSPECT, "head -c 3000 \"$GOLDEN/torch/oldest.pt\" >f"),
    S("C17", "no end", INSPECT, "head -c 5000 \"$GOLDEN/torch/kinds.pt\" >f"),
    S("C17", "checksum", INSPECT,
      "LC_ALL=C sed 's/pytorch-lightning_version/pytorch-lightning_versiom/' \"$GOLDEN/torch/v1.ckpt\" >f"),
    S("C17", "its end is damaged", INSPECT,
      "{ echo mine; cat \"$GOLDEN/torch/kinds.pt\"; } | tail -c +6 | head -c 4000 >g;"
      "{ cat g; tail -c 1200 \"$GOLDEN/torch/kinds.pt\"; } >f"),

    /* C18: models in several files */
    S("C18", "is not the name of a file in the same folder", INSPECT,
      "echo '{\"weight_map\":{\"a\":\"/etc/passwd\"}}' >i.json; mv i.json f.json"),
    S("C18", "is not the name of a file in the same folder", INSPECT,
      "echo '{\"weight_map\":{\"a\":\"../x.safetensors\"}}' >f.json"),
    S("C18", "is not the name of a file in the same folder", INSPECT,
      "echo '{\"weight_map\":{\"a\":\"x.exe\"}}' >f.json"),
    S("C18", "cannot open", INSPECT, "echo '{\"weight_map\":{\"a\":\"x.safetensors\"}}' >f.json"),
    S("C18", "names no file", INSPECT, "echo '{\"weight_map\":{\"a\":1}}' >f.json"),
    S("C18", "no weight_map", INSPECT, "echo '{\"weight_map\":{}}' >f.json"),
    S("C18", "no weight_map", INSPECT, "echo '[]' >f.json"),
    S("C18", "\"a\" is not there", INSPECT, "cp \"$GOLDEN/dtypes.safetensors\" x.safetensors;"
      "echo '{\"weight_map\":{\"a\":\"x.safetensors\"}}' >f.json"),
    S("C18", "cannot open", INSPECT,
      "ln -s x.safetensors x.safetensors; echo '{\"weight_map\":{\"a\":\"x.safetensors\"}}' >f.json"),

    /* C21: large by name alone; what convert is given to write */
    { "C21", "impossible header size", RAW, "\0\0\0\0\1\0\0\0{", 9, 1ull << 30, INSPECT, 0, 0, NULL, NULL },
    { "C21", "not a safetensors file", RAW, "\0\0\0\0\0\0\0\1", 8, 1ull << 40, INSPECT, 0, 0, NULL, NULL },
    { "C21", "starts with '{'", RAW, "\x10\0\0\0\0\0\0\0", 8, 1ull << 40, INSPECT, 0, 0, NULL, NULL },
    { "C21", "no Stable Diffusion model found", HEADER, A(ONE), sizeof A(ONE) - 1, 4, CONVERT, 0, 0, NULL, NULL },
    { "C21", "\"posix.system\"", SHELL, "cp \"$GOLDEN/torch/evil.ckpt\" f", 0, 0, CONVERT, 0, 0, NULL, NULL },
};

static void each_is_refused_by_name(void **state)
{
    (void)state;
    try_all(rows, KW_LEN(rows));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_is_refused_by_name) };
    return find_program(argc, argv) ? cmocka_run_group_tests(tests, set_up, tear_down) : 2;
}
