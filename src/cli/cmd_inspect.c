/* cmd_inspect.c - kiwame inspect: what a file or folder is. */
#include "inspect.h"
#include "net_settings.h"

#include "diffusion/diffusion.h"
#include "picture/picture.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { kw_texts paths; bool hashes; } config;

static const kw_option options[] = {
    KW_ROW_PATHS("file", config, paths, N_("model, LoRA, picture or folder of a model"),
                 .flags = KW_OPT_POSITIONAL | KW_OPT_REQUIRED),
    KW_ROW_BOOL("hashes", config, hashes, true, N_("read everything once for the hashes")),
    KW_ROW_END
};

/* ---- what the others use ----------------------------------------------------------------------------------------- */

json_t *kw_inspect_text(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return json_string(text);
}

json_t *kw_inspect_types(const kw_tensor *const *t, size_t n, int64_t *numbers)
{
    json_int_t by_type[KW_N_DTYPES] = { 0 };
    json_t *types = json_object();
    for (size_t i = 0; i < n; i++) {
        by_type[t[i]->dtype]++;
        *numbers += kw_tensor_count(t[i]);
    }
    for (int k = 0; k < KW_N_DTYPES; k++)
        if (by_type[k])
            json_object_set_new(types, kw_dtype_name((kw_dtype)k), json_integer(by_type[k]));
    return types;
}

json_t *kw_inspect_metadata(const kw_tensors *t)
{
    json_t *all = kw_tensors_n_meta(t) ? json_object() : NULL;
    for (size_t i = 0; i < kw_tensors_n_meta(t); i++) {
        const char *key, *value;
        kw_tensors_meta_at(t, i, &key, &value);
        json_object_set_new(all, key, json_string(value));
    }
    return all;
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static kw_status decode(kw_cli *c, const char *path, json_t *r, kw_err *e)
{
    kw_decoder *d;
    kw_picture p;
    kw_str notes = { 0 };
    (void)c;
    KW_TRY(kw_decoder_new(kw_decoder_argv(), 1, &d, e));
    kw_status s = kw_decoder_read(d, path, kw_picture_white, &p, e);
    kw_decoder_free(d);
    if (s)
        return s;
    json_object_set_new(r, "pixels", kw_inspect_text("%d x %d, %d x %d bit", p.info.file_w, p.info.file_h,
                                                     p.info.channels, p.info.bits));
    kw_picture_notes(&p.info, &notes);
    if (notes.n)
        json_object_set_new(r, "notes", json_pack("[s]", notes.s));
    kw_str_free(&notes);
    kw_picture_free(&p);
    return KW_OK;
}

static kw_status add_infotext(kw_arena *a, const char *text, json_t *r, kw_err *e)
{
    kw_infotext_read t;
    KW_TRY(kw_infotext_parse(a, text, &t, e));
    json_t *settings = json_object();
    json_object_set_new(r, "prompt", json_string(t.prompt));
    json_object_set_new(r, "negative", json_string(t.negative));
    for (size_t i = 0; i < t.n; i++)
        json_object_set_new(settings, t.field[i].key, json_string(t.field[i].value));
    json_object_set_new(r, "settings", settings);
    return KW_OK;
}

kw_status kw_inspect_picture(kw_cli *c, const char *path, json_t *r, kw_err *e)
{
    const void *data;
    size_t n;
    bool found = false;
    kw_str text = { 0 };
    KW_TRY(kw_file_map(c->arena, path, &data, &n, e));
    json_object_set_new(r, "kind", json_string(N_("picture")));
    json_object_set_new(r, "format", json_string(kw_picture_format_name(kw_picture_sniff(data, n))));
    KW_TRY(decode(c, path, r, e));
    kw_status s = kw_picture_text(data, n, "parameters", &text, &found, e);
    if (!s && found && text.s)
        s = add_infotext(c->arena, text.s, r, e);
    kw_str_free(&text);
    return s;
}

/* ---- one file ---------------------------------------------------------------------------------------------------- */

static kw_status add_hashes(kw_cli *c, const char *path, bool long_enough, json_t *r, kw_err *e)
{
    char sha[65], short_[9], data[65];
    kw_tensors *t;
    json_t *h = json_object();
    json_object_set_new(r, "hashes", h);
    KW_TRY(kw_sha256_file(path, sha, e));
    json_object_set_new(h, "sha256", json_string(sha));
    json_object_set_new(h, "autov2", json_stringn(sha, 10));
    if (kw_tensors_look(c->arena, path, &t, NULL) || !kw_ends_with(path, ".safetensors"))
        return KW_OK;
    KW_TRY(kw_tensors_hash(t, data, e));
    json_object_set_new(h, "autov3", json_stringn(data, 12));
    json_object_set_new(h, "sshs_model_hash", json_string(data));
    if (!long_enough)                     /* AutoV1 of a short file would be the hash of nothing */
        return KW_OK;
    KW_TRY(kw_sha256_short(path, short_, e));
    return json_object_set_new(h, "autov1", json_string(short_)) ? kw_fail(e, KW_ENOMEM, "out of memory") : KW_OK;
}

static bool is_picture(kw_arena *a, const char *path)
{
    const void *data;
    size_t n;
    return !kw_file_map(a, path, &data, &n, NULL) && kw_picture_sniff(data, n) != KW_PICTURE_UNKNOWN;
}

/* A LoRA, else a base, else some tensors with the reason why they are no base. */
static kw_status look_at_tensors(kw_cli *c, const config *g, const char *path, json_t *r, kw_err *e)
{
    kw_tensors *t;
    kw_err inner;
    KW_TRY(kw_tensors_look(c->arena, path, &t, e));
    if (kw_is_lora(t) || kw_inspect_base(c, path, g->hashes, r, &inner)) {
        bool base = !kw_is_lora(t);
        json_object_del(r, "kind");
        KW_TRY(kw_inspect_tensors(c, path, r, e));
        if (base)
            json_object_set_new(r, "reason", json_string(inner.what));
    }
    json_t *metadata = kw_inspect_metadata(t);
    if (metadata)
        json_object_set_new(r, "metadata", metadata);
    return KW_OK;
}

/* A model; for folders of other kinds, the command that knows them. */
static kw_status look_at_folder(kw_cli *c, const config *g, const char *path, json_t *r, kw_err *e)
{
    if (kw_is_lora_folder(c->arena, path))
        return kw_inspect_tensors(c, path, r, e);
    kw_status s = kw_inspect_base(c, path, g->hashes, r, e);
    char *recipe = kw_path_join(c->arena, path, "recipe.toml"), **names;
    size_t n, pictures = 0;
    if (s != KW_EDATA || !recipe || kw_dir_list(c->arena, path, &names, &n, NULL))
        return s;
    if (kw_is_file(recipe))
        return kw_advise(e, kw_fail(e, s, N_("%s: is the folder of a training run, not a model"), path),
                         N_("see its report.html, inspect a .safetensors file in it, or go on with it: "
                            "kiwame resume %s"), path);
    for (size_t i = 0; i < n; i++)
        pictures += kw_picture_named(names[i]) != KW_PICTURE_UNKNOWN;
    if (pictures)
        return kw_advise(e, kw_fail(e, s, N_("%s: is a folder of pictures, not a model"), path),
                         N_("see what training would make of it: kiwame data %s"), path);
    return s;
}

static kw_status look(kw_cli *c, const config *g, const char *path, json_t *r, kw_err *e)
{
    struct stat st;
    json_object_set_new(r, "file", json_string(path));
    if (kw_io_now->stat(path, &st))
        return errno == ENOENT || errno == ENOTDIR
            ? kw_fail(e, KW_EDATA, N_("%s: no such file or folder"), path)
            : kw_fail(e, KW_EDATA, N_("%s: cannot be read: %s"), path, kw_errno_text(errno));
    if (S_ISDIR(st.st_mode))
        return look_at_folder(c, g, path, r, e);
    if (!S_ISREG(st.st_mode))
        return kw_fail(e, KW_EDATA, N_("%s: is neither a file nor a folder, but a pipe, socket or device"), path);
    if (g->hashes && st.st_size > 64 << 20)
        kw_say(c, _(N_("reading")));
    KW_TRY(is_picture(c->arena, path) ? kw_inspect_picture(c, path, r, e) : look_at_tensors(c, g, path, r, e));
    json_object_set_new(r, "bytes", json_integer((json_int_t)st.st_size));
    return g->hashes ? add_hashes(c, path, st.st_size >= 0x110000, r, e) : KW_OK;
}

static kw_status one(kw_cli *c, const config *g, const char *path, kw_err *e)
{
    json_t *r = json_object();
    kw_status s = r ? look(c, g, path, r, e) : kw_fail(e, KW_ENOMEM, "out of memory");
    kw_hush(c);
    if (!s && c->global.json) {
        char *text = json_dumps(r, JSON_COMPACT);
        puts(text ? text : "{}");
        free(text);
    } else if (!s)
        kw_inspect_print(c, r);
    json_decref(r);
    return s;
}

/* Every path is looked at; the first one refused is the command's error, further ones are told at once. */
static kw_status run(kw_cli *c, void *arg, kw_err *e)
{
    const config *g = arg;
    kw_status first = KW_OK;
    for (size_t i = 0; i < g->paths.n; i++) {
        kw_err why = { 0 };
        kw_status s = kw_model_named(c, &g->paths.item[i], &why);
        if (!s)
            s = one(c, g, g->paths.item[i], &why);
        if (s && !first) {
            first = s;
            *e = why;
        } else if (s) {
            kw_str safe = { 0 };
            kw_escape(&safe, why.what);
            fprintf(stderr, "kiwame: %s\n", safe.s ? safe.s : "");
            kw_str_free(&safe);
        }
    }
    return first;
}

const kw_command kw_command_inspect = {
    .name = "inspect", .help = N_("what a file or folder is: model, LoRA or picture, with hashes and metadata"),
    .examples = "kiwame inspect kiwa.safetensors\nkiwame inspect pictures/00000-1.png", .options = options,
    .config_size = sizeof(config), .run = run,
};
