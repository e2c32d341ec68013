/*
 * globals.c - the names a checkpoint's pickle may mention. Sources: torch/_utils.py, torch/serialization.py, and what
 * Stable Diffusion checkpoints of PyTorch Lightning and A1111's scripts carry beside the weights.
 */
#include "pickle.h"

#include <string.h>

/*  module, name ("*": any), what it is, the numbers it holds  */
static const kw__global known[] = {
    { "collections", "OrderedDict", KW__ORDERED_DICT, 0 },
    { "torch._utils", "_rebuild_tensor", KW__TENSOR, 0 },
    { "torch._utils", "_rebuild_tensor_v2", KW__TENSOR, 0 },
    { "torch._utils", "_rebuild_tensor_v3", KW__TENSOR_3, 0 },
    { "torch._utils", "_rebuild_parameter", KW__PARAMETER, 0 },
    { "torch._utils", "_rebuild_parameter_with_state", KW__PARAMETER, 0 },
    { "torch", "FloatStorage", KW__STORAGE, KW_F32 },
    { "torch", "DoubleStorage", KW__STORAGE, KW_F64 },
    { "torch", "HalfStorage", KW__STORAGE, KW_F16 },
    { "torch", "BFloat16Storage", KW__STORAGE, KW_BF16 },
    { "torch", "LongStorage", KW__STORAGE, KW_I64 },
    { "torch", "IntStorage", KW__STORAGE, KW_I32 },
    { "torch", "ShortStorage", KW__STORAGE, KW_I16 },
    { "torch", "CharStorage", KW__STORAGE, KW_I8 },
    { "torch", "ByteStorage", KW__STORAGE, KW_U8 },
    { "torch", "BoolStorage", KW__STORAGE, KW_BOOL },
    { "torch.cuda", "FloatStorage", KW__STORAGE, KW_F32 },
    { "torch.cuda", "DoubleStorage", KW__STORAGE, KW_F64 },
    { "torch.cuda", "HalfStorage", KW__STORAGE, KW_F16 },
    { "torch.cuda", "BFloat16Storage", KW__STORAGE, KW_BF16 },
    { "torch.cuda", "LongStorage", KW__STORAGE, KW_I64 },
    { "torch.cuda", "IntStorage", KW__STORAGE, KW_I32 },
    { "torch.cuda", "ShortStorage", KW__STORAGE, KW_I16 },
    { "torch.cuda", "CharStorage", KW__STORAGE, KW_I8 },
    { "torch.cuda", "ByteStorage", KW__STORAGE, KW_U8 },
    { "torch.cuda", "BoolStorage", KW__STORAGE, KW_BOOL },
    { "torch.storage", "UntypedStorage", KW__UNTYPED, KW_U8 },
    { "torch", "UntypedStorage", KW__UNTYPED, KW_U8 },
    { "torch", "float32", KW__NUMBERS, KW_F32 },
    { "torch", "float64", KW__NUMBERS, KW_F64 },
    { "torch", "float16", KW__NUMBERS, KW_F16 },
    { "torch", "bfloat16", KW__NUMBERS, KW_BF16 },
    { "torch", "int64", KW__NUMBERS, KW_I64 },
    { "torch", "int32", KW__NUMBERS, KW_I32 },
    { "torch", "int16", KW__NUMBERS, KW_I16 },
    { "torch", "int8", KW__NUMBERS, KW_I8 },
    { "torch", "uint8", KW__NUMBERS, KW_U8 },
    { "torch", "bool", KW__NUMBERS, KW_BOOL },
    { "torch", "uint16", KW__NUMBERS, KW_U16 },
    { "torch", "uint32", KW__NUMBERS, KW_U32 },
    { "torch", "uint64", KW__NUMBERS, KW_U64 },
    { "torch", "float8_e4m3fn", KW__NUMBERS, KW_F8_E4M3 },
    { "torch", "float8_e5m2", KW__NUMBERS, KW_F8_E5M2 },

    /* beside the weights: never looked into */
    { "torch", "Size", KW__OTHER, 0 },
    { "torch", "device", KW__OTHER, 0 },
    { "torch", "Tensor", KW__OTHER, 0 },                           /* a class named in the oldest form's list */
    { "torch", "FloatTensor", KW__OTHER, 0 },
    { "torch.cuda", "FloatTensor", KW__OTHER, 0 },
    { "torch", "DoubleTensor", KW__OTHER, 0 },
    { "torch.cuda", "DoubleTensor", KW__OTHER, 0 },
    { "torch", "HalfTensor", KW__OTHER, 0 },
    { "torch.cuda", "HalfTensor", KW__OTHER, 0 },
    { "torch", "LongTensor", KW__OTHER, 0 },
    { "torch.cuda", "LongTensor", KW__OTHER, 0 },
    { "torch", "IntTensor", KW__OTHER, 0 },
    { "torch.cuda", "IntTensor", KW__OTHER, 0 },
    { "torch", "ShortTensor", KW__OTHER, 0 },
    { "torch.cuda", "ShortTensor", KW__OTHER, 0 },
    { "torch", "CharTensor", KW__OTHER, 0 },
    { "torch.cuda", "CharTensor", KW__OTHER, 0 },
    { "torch", "ByteTensor", KW__OTHER, 0 },
    { "torch.cuda", "ByteTensor", KW__OTHER, 0 },
    { "torch.nn.parameter", "Parameter", KW__OTHER, 0 },
    { "collections", "defaultdict", KW__OTHER, 0 },
    { "numpy", "dtype", KW__OTHER, 0 },
    { "numpy", "ndarray", KW__OTHER, 0 },
    { "numpy.core.multiarray", "scalar", KW__OTHER, 0 },
    { "numpy._core.multiarray", "scalar", KW__OTHER, 0 },
    { "numpy.core.multiarray", "_reconstruct", KW__OTHER, 0 },
    { "numpy._core.multiarray", "_reconstruct", KW__OTHER, 0 },
    { "_codecs", "encode", KW__OTHER, 0 },                         /* bytes, as protocol 2 spells them */
    { "argparse", "Namespace", KW__OTHER, 0 },
    { "pathlib", "PosixPath", KW__OTHER, 0 },
    { "pathlib", "WindowsPath", KW__OTHER, 0 },
    { "typing", "Any", KW__OTHER, 0 },
    { "builtins", "set", KW__OTHER, 0 },
    { "builtins", "dict", KW__OTHER, 0 },
    { "builtins", "list", KW__OTHER, 0 },
    { "builtins", "int", KW__OTHER, 0 },
    { "builtins", "float", KW__OTHER, 0 },
    { "builtins", "str", KW__OTHER, 0 },
    { "builtins", "bool", KW__OTHER, 0 },
    { "builtins", "object", KW__OTHER, 0 },
    { "__builtin__", "set", KW__OTHER, 0 },
    { "__builtin__", "dict", KW__OTHER, 0 },
    { "__builtin__", "list", KW__OTHER, 0 },
    { "__builtin__", "int", KW__OTHER, 0 },
    { "__builtin__", "float", KW__OTHER, 0 },
    { "__builtin__", "str", KW__OTHER, 0 },
    { "__builtin__", "bool", KW__OTHER, 0 },
    { "__builtin__", "object", KW__OTHER, 0 },
    { "pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", KW__OTHER, 0 },
    { "pytorch_lightning.callbacks.early_stopping", "EarlyStopping", KW__OTHER, 0 },
    { "pytorch_lightning.utilities.parsing", "AttributeDict", KW__OTHER, 0 },
    { "lightning.pytorch.callbacks.model_checkpoint", "ModelCheckpoint", KW__OTHER, 0 },
    { "lightning_fabric.utilities.data", "AttributeDict", KW__OTHER, 0 },
    { "omegaconf.dictconfig", "DictConfig", KW__OTHER, 0 },
    { "omegaconf.listconfig", "ListConfig", KW__OTHER, 0 },
    { "omegaconf.base", "*", KW__OTHER, 0 },
    { "omegaconf.nodes", "*", KW__OTHER, 0 },
};

static bool same(const char *word, const char *text, size_t n) { return strlen(word) == n && !memcmp(word, text, n); }

const kw__global *kw__global_find(const char *module, size_t n_module, const char *name, size_t n_name)
{
    for (size_t i = 0; i < KW_LEN(known); i++)
        if (same(known[i].module, module, n_module) && (same(known[i].name, name, n_name) || *known[i].name == '*'))
            return &known[i];
    return NULL;
}
