/*
 * geometry.c - how many layers a block of the U-Net has, told by a LoRA's own keys. SDXL's names in kohya's files
 * number LDM's blocks, and that numbering needs it:
 *
 *   input_blocks 1 + i (L + 1) + j, output_blocks i (L + 1) + j         for layer j of block i, L layers in a block
 *   down_blocks.i.attentions.j: j < L     up_blocks.i.attentions.j: j <= L     input_blocks.N.0.op: N = (L + 1)(i + 1)
 *
 * Keys that hold all layers tell L; those of a few cannot, and then published models' 2 is taken, as a guess.
 */
#include "names.h"

#include <stdio.h>
#include <string.h>

enum { MOST = 64 };

typedef struct {
    int down, up;                         /* the last layer of a block that there is; -1: none */
    int first_op;                         /* 0: none */
    bool in[MOST], out[MOST];             /* LDM's blocks that have attention */
    uint32_t up_attention;                /* of diffusers' names */
} found;

/* "down_blocks.1.attentions.0" or with underscores */
static bool pair(const char *key, const char *block, const char *kind, int *i, int *j)
{
    char form[64];
    const char *at = strstr(key, block);
    snprintf(form, sizeof form, "%s%%*1[._]%%d%%*1[._]%s%%*1[._]%%d", block, kind);
    return at && sscanf(at, form, i, j) == 2 && *i >= 0 && *i < 32 && *j >= 0 && *j < MOST;
}

/* "input_blocks.4.1." or with underscores; *what: what follows the last number */
static bool numbered(const char *key, const char *block, int *n, int *k, const char **what)
{
    char form[64];
    int length = 0;
    const char *at = strstr(key, block);
    snprintf(form, sizeof form, "%s%%*1[._]%%d%%*1[._]%%d%%*1[._]%%n", block);
    if (!at || sscanf(at, form, n, k, &length) != 2 || !length || *n < 0 || *n >= MOST)
        return false;
    *what = at + length;
    return true;
}

static void look(const char *key, found *f)
{
    static const char *const kinds[] = { "attentions", "resnets" };
    int i, j;
    const char *what;
    for (int k = 0; k < 2; k++) {
        if (pair(key, "down_blocks", kinds[k], &i, &j))
            f->down = KW_MAX(f->down, j);
        if (pair(key, "up_blocks", kinds[k], &i, &j)) {
            f->up = KW_MAX(f->up, j);
            f->up_attention |= (uint32_t)!k << i;
        }
    }
    if (numbered(key, "input_blocks", &i, &j, &what)) {
        f->in[i] |= j == 1;
        if (!strncmp(what, "op", 2) && (!f->first_op || i < f->first_op))
            f->first_op = i;
    }
    if (numbered(key, "output_blocks", &i, &j, &what))
        f->out[i] |= j == 1 && strncmp(what, "conv", 4);
}

/* Runs of input blocks with attention, one for each level that has it: all as long as L, and where L puts them. */
static int layers_of_runs(const found *f)
{
    int layers = 0;
    for (int i = 1, n = 0; i < MOST; i++) {
        n = f->in[i] ? n + 1 : 0;
        if (!f->in[i] || (i + 1 < MOST && f->in[i + 1]))
            continue;
        if ((layers && n != layers) || (i - n) % (n + 1))
            return 0;
        layers = n;
    }
    int outputs = 0;
    while (outputs < MOST && f->out[outputs])
        outputs++;
    return layers && outputs && outputs % (layers + 1) == 0 ? layers : 0;
}

bool kw__names_from_keys(const kw_tensors *t, kw_lora_names *names)
{
    found f = { .down = -1, .up = -1 };
    for (size_t i = 0; i < kw_tensors_n(t); i++)
        look(kw_tensors_at(t, i)->name, &f);
    int layers = f.first_op > 1 ? f.first_op - 1 : layers_of_runs(&f);
    uint32_t attention = f.up_attention;
    if (f.down >= 0 && f.down + 1 == f.up)
        layers = layers && layers != f.up ? 0 : f.up;
    if (layers < 1 || layers > 16)
        return false;
    for (int i = 0; i < 32 && i * (layers + 1) < MOST; i++)
        attention |= (uint32_t)f.out[i * (layers + 1)] << i;
    names->unet = (kw_key_shape){ .levels = 8, .layers = layers, .up_attention = attention };
    return true;
}
