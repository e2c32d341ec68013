/* cmd_init.c - kiwame init: a model folder of configurations gets fresh random weights. */
#include "cli.h"
#include "model/model.h"

#include <string.h>

typedef struct { const char *dir; uint64_t seed; bool overwrite; } config;

static const kw_option options[] = {
    KW_ROW_PATH("dir", config, dir, NULL, N_("model folder with unet/config.json, vae/config.json, text_encoder/config.json"),
                .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED, .value = "DIR"),
    KW_ROW_SEED("seed", config, seed, 42, N_("seed of the weights")),
    KW_ROW_BOOL("overwrite", config, overwrite, false, N_("replace weights that are there")),
    KW_ROW_END
};

static void print(const kw_cli *c, const char *file, size_t tensors, long long numbers)
{
    kw_str o = { 0 };
    if (!c->global.json) {
        printf("%s  %zu tensors, %lld numbers\n", file, tensors, numbers);
        return;
    }
    kw_str_add(&o, "{\"file\":");
    kw_show_json_text(&o, file);
    printf("%s,\"tensors\":%zu,\"parameters\":%lld}\n", o.s && !o.failed ? o.s : "{", tensors, numbers);
    kw_str_free(&o);
}

static kw_status init_part(kw_cli *c, const config *o, kw_part p, int *found, kw_err *e)
{
    const char *file = p == KW_PART_TEXT ? "model.safetensors" : "diffusion_pytorch_model.safetensors";
    char *json = kw_sprintf(c->arena, "%s/%s/config.json", o->dir, kw_part_name(p)), *weights = kw_sprintf(c->arena, "%s/%s/%s", o->dir, kw_part_name(p), file);
    json_t *j;
    kw_tensor *list;
    size_t n;
    int64_t count = 0;
    if (!json || !weights)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (!kw_is_file(json))
        return KW_OK;
    ++*found;
    if (kw_is_file(weights) && !o->overwrite)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, "%s is there already", weights), "use --overwrite to replace it");
    KW_TRY(kw_json_read(c->arena, json, &j, e));
    kw_say(c, _(N_("drawing weights")));
    kw_status drawn = kw_init_part(c->arena, p, j, o->seed, &list, &n, e);
    kw_hush(c);
    KW_TRY(drawn);
    for (size_t i = 0; i < n; i++)
        count += kw_tensor_count(&list[i]);
    kw_guard_begin();
    kw_status s = kw_tensors_save(weights, list, n, NULL, 0, e);
    kw_guard_end();
    KW_TRY(s);
    print(c, weights, n, (long long)count);
    return KW_OK;
}

static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    static const kw_part parts[] = { KW_PART_UNET, KW_PART_VAE, KW_PART_TEXT };
    const config *o = arg;
    int found = 0;
    for (size_t i = 0; i < KW_LEN(parts); i++)
        KW_TRY(init_part(c, o, parts[i], &found, e));
    if (found)
        return KW_OK;
    kw_status s = kw_fail(e, KW_EDATA, N_("%s: holds no unet/config.json, vae/config.json or text_encoder/config.json"),
                          o->dir);
    return kw_advise(e, s, N_("copy them from a model of the shape that is wanted"));
}

const kw_command kw_command_init = {
    .name = "init", .help = N_("give a folder of configurations fresh random weights"), .options = options, .config_size = sizeof(config), .run = run,
};
