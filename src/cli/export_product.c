/* export_product.c - what a run has made, and what its files tell of it. */
#include "export.h"

#include "diffusion/diffusion.h"
#include "picture/picture.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- which file -------------------------------------------------------------------------------------------------- */

/* NAME-step00000120.safetensors -> 120; else -1. */
static long long step_of(const char *name)
{
    const char *at = strstr(name, "-step");
    return at && strspn(at + 5, "0123456789") == 8 ? strtoll(at + 5, NULL, 10) : -1;
}

/* NAME-000003.safetensors: of an epoch. */
static bool is_between(const char *name)
{
    const char *dot = strrchr(name, '.');
    size_t n = dot ? (size_t)(dot - name) : strlen(name);
    return step_of(name) >= 0 || (n > 7 && name[n - 7] == '-' && strspn(name + n - 6, "0123456789") >= 6);
}

static bool is_product(kw_arena *a, const char *dir, const char *name)
{
    char *path = kw_path_join(a, dir, name), *unet = path ? kw_sprintf(a, "%s/unet", path) : NULL;
    if (!unet || *name == '.')
        return false;
    return kw_ends_with(name, ".safetensors") ? kw_is_file(path) : kw_is_dir(path) && kw_is_dir(unet);
}

/* The last result; of a run that has not come to its end, the newest one between. */
static kw_status find_in_run(kw_arena *a, const char *run, char **path, kw_err *e)
{
    char **names;
    const char *last = NULL, *between = NULL;
    size_t n, found = 0;
    KW_TRY(kw_dir_list(a, run, &names, &n, e));
    for (size_t i = 0; i < n; i++) {
        if (!is_product(a, run, names[i]))
            continue;
        if (is_between(names[i])) {
            between = names[i];           /* in byte order the highest step comes last */
        } else {
            last = names[i];
            found++;
        }
    }
    if (found > 1)
        return kw_advise(e, kw_fail(e, KW_EUSAGE, N_("%s: holds several results"), run), N_("name the file: %s/%s"),
                         run, last);
    if (!last && !between)
        return kw_advise(e, kw_fail(e, KW_EDATA, N_("%s: holds no result yet"), run),
                         N_("go on with it: kiwame resume %s"), run);
    *path = kw_path_join(a, run, last ? last : between);
    return *path ? KW_OK : kw_fail(e, KW_ENOMEM, "out of memory");
}

static kw_status check_name(const char *name, kw_err *e)
{
    bool good = *name && *name != '.' && *name != '-' && strlen(name) < 200;
    for (const char *p = name; *p; p++)
        good &= (unsigned char)*p >= 0x20 && !strchr("/\\:<>,*?\"|", *p);
    return good ? KW_OK : kw_fail(e, KW_EUSAGE, N_("--name: \"%.100s\" is no name for files"), name);
}

/* ---- what its metadata say --------------------------------------------------------------------------------------- */

static const char *meta(const kw_tensors *t, const char *key)
{
    const char *v = t ? kw_tensors_meta(t, key) : NULL;
    return v && *v && strcmp(v, "None") ? v : NULL;
}

/* ss_tag_frequency's most frequent tag, where no trigger phrase is told. */
static const char *top_tag(kw_arena *a, const kw_tensors *t)
{
    const char *text = meta(t, "ss_tag_frequency"), *folder, *tag, *best = NULL;
    json_t *all = text ? json_loads(text, 0, NULL) : NULL, *tags, *n;
    json_int_t most = 0;
    json_object_foreach(all, folder, tags)
        json_object_foreach(tags, tag, n)
            if (json_integer_value(n) > most) {
                most = json_integer_value(n);
                best = kw_strdup(a, tag);
            }
    json_decref(all);
    return best;
}

static kw_status read_metadata(kw_arena *a, kw_product *p, kw_err *e)
{
    kw_tensors *t;
    char hex[65];
    if (p->folder)
        return KW_OK;
    KW_TRY(kw_tensors_open(a, p->path, &t, e));
    KW_TRY(kw_tensors_hash(t, hex, e));
    const char *clip = meta(t, "ss_clip_skip"), *zero = meta(t, "ss_zero_terminal_snr");
    p->hash = kw_strdup(a, hex);
    p->words = meta(t, "modelspec.trigger_phrase");
    p->words = p->words ? p->words : p->lora ? top_tag(a, t) : NULL;
    p->title = meta(t, "modelspec.title");
    p->base = meta(t, "ss_sd_model_name");
    p->base_hash = meta(t, "ss_new_sd_model_hash");
    p->resolution = meta(t, "modelspec.resolution");
    p->date = meta(t, "modelspec.date");
    p->steps = meta(t, "ss_steps");
    p->rank = meta(t, "ss_network_dim");
    p->pictures = meta(t, "ss_num_train_images");
    p->rate = meta(t, "ss_learning_rate");
    p->clip_skip = clip ? atoi(clip) : 1;
    p->zero_snr = zero && !strcmp(zero, "True");
    return KW_OK;
}

/* ---- what its run says: recipe.toml, events.jsonl ---------------------------------------------------------------- */

/* .../models--org--name/snapshots/...: the base was pulled from there. */
static const char *repo_of(kw_arena *a, const char *base)
{
    const char *at = strstr(base, "/models--"), *slash = at ? strchr(at + 9, '/') : NULL;
    const char *middle = at ? strstr(at + 9, "--") : NULL;
    if (!slash || !middle || middle > slash)
        return NULL;
    return kw_sprintf(a, "%.*s/%.*s", (int)(middle - at - 9), at + 9, (int)(slash - middle - 2), middle + 2);
}

static void read_recipe(kw_arena *a, const char *run, kw_product *p)
{
    char *path = kw_path_join(a, run, "recipe.toml"), *text;
    kw_toml *root;
    size_t n;
    p->sampling_steps = 20;
    p->cfg = 7;
    if (!path || !kw_is_file(path) || kw_file_read(a, path, 1 << 20, &text, &n, NULL)
        || kw_toml_parse(a, text, n, path, &root, NULL))
        return;
    for (kw_toml *v = root->child; v; v = v->next) {
        if (!strcmp(v->key, "trigger") && v->type == KW_TOML_TEXT && *v->text && !p->words)
            p->words = v->text;
        if (!strcmp(v->key, "base") && v->type == KW_TOML_TEXT) {
            p->base_repo = repo_of(a, v->text);
            p->base = p->base ? p->base : kw_path_name(v->text);
        }
        if (!strcmp(v->key, "sample-sampling-steps") && v->type == KW_TOML_INT)
            p->sampling_steps = (int)v->i;
        if (!strcmp(v->key, "sample-cfg") && (v->type == KW_TOML_FLOAT || v->type == KW_TOML_INT))
            p->cfg = v->type == KW_TOML_FLOAT ? v->f : (double)v->i;
    }
}

static void take_sample(kw_arena *a, const char *run, json_t *j, long long step, long long *newest, kw_product *p)
{
    const char *file = json_string_value(json_object_get(j, "file"));
    const char *prompt = json_string_value(json_object_get(j, "prompt"));
    json_int_t at = json_integer_value(json_object_get(j, "step")), seed = json_integer_value(json_object_get(j,
                                                                                                              "seed"));
    const char *type = json_string_value(json_object_get(j, "type"));
    if (!type || strcmp(type, "sample") || !file || !prompt || strstr(file, "..") || *file == '/' || (step >= 0
                                                                                                      && at != step))
        return;
    if (at > *newest) {                   /* those of the last step that has some */
        p->n_samples = 0;
        *newest = at;
    }
    char *path = kw_path_join(a, run, file);
    if (at == *newest && p->n_samples < KW_EXPORT_SAMPLES && path && kw_is_file(path))
        p->sample[p->n_samples++] = (kw_export_sample){ path, kw_strdup(a, prompt), (uint64_t)seed };
}

static void read_events(kw_arena *a, const char *run, long long step, kw_product *p)
{
    char *path = kw_path_join(a, run, "events.jsonl"), *text;
    long long newest = -1;
    size_t n;
    if (!path || !kw_is_file(path) || kw_file_read(a, path, 1 << 30, &text, &n, NULL))
        return;
    for (char *line = text, *end; *line; line = end) {
        end = line + strcspn(line, "\n");
        json_t *j = json_loadb(line, (size_t)(end - line), 0, NULL);
        end += *end == '\n';
        if (j)
            take_sample(a, run, j, step, &newest, p);
        json_decref(j);
    }
}

kw_status kw_product_find(kw_cli *c, const char *run, const char *name, kw_product *p, kw_err *e)
{
    kw_verify_facts f;
    kw_arena *a = c->arena;
    char *path = kw_strdup(a, run), *recipe = kw_path_join(a, run, "recipe.toml");
    bool is_run = recipe && kw_is_dir(run) && kw_is_file(recipe);
    *p = (kw_product){ .clip_skip = 1 };
    if (!path || !recipe)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    if (is_run)
        KW_TRY(find_in_run(a, run, &path, e));
    KW_TRY(kw_verify_look(c, path, &f, e));
    if (f.kind == KW_IS_PICTURE || f.kind == KW_IS_EMBEDDING)
        return kw_fail(e, KW_EDATA, N_("%s: is neither a LoRA nor a model"), path);
    const char *dir = is_run ? run : kw_path_dir(a, path);
    p->path = path;
    p->lora = f.kind == KW_IS_LORA;
    p->folder = kw_is_dir(path);
    p->family = f.family;
    p->name = name ? name : p->folder ? kw_path_name(path) : f.stem;
    if (!p->name || !dir)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    KW_TRY(check_name(p->name, e));
    KW_TRY(read_metadata(a, p, e));
    read_recipe(a, dir, p);
    read_events(a, dir, step_of(kw_path_name(path)), p);
    return KW_OK;
}

/* ---- a picture with its text ------------------------------------------------------------------------------------- */

static void infotext(kw_arena *a, const kw_product *p, const kw_export_sample *s, int w, int h, kw_str *out)
{
    kw_infotext_lora lora = { p->name, p->hash };
    kw_infotext t = { .steps = p->sampling_steps, .sampler = p->zero_snr ? "DDIM" : "Euler", .cfg = p->cfg,
                      .seed = s->seed,
                      .width = w, .height = h, .clip_skip = p->clip_skip, .rng = "Kiwame",
                          .version = "kiwame " KW_VERSION };
    char *prompt = p->lora ? kw_sprintf(a, "%s <lora:%s:1>", s->prompt, p->name) : NULL;
    t.prompt = prompt ? prompt : s->prompt;
    t.negative = "";
    t.model = p->lora ? p->base : p->name;
    t.model_hash = p->lora ? p->base_hash : NULL;
    t.lora = p->lora ? &lora : NULL;
    t.n_lora = p->lora;
    kw_infotext_write(&t, out);
}

kw_status kw_product_sample(kw_cli *c, const kw_product *p, size_t i, kw_str *png, kw_err *e)
{
    kw_decoder *d;
    kw_picture picture;
    kw_str text = { 0 };
    KW_TRY(kw_decoder_new(kw_decoder_argv(), 1, &d, e));
    kw_status s = kw_decoder_read(d, p->sample[i].path, kw_picture_white, &picture, e);
    kw_decoder_free(d);
    if (s)
        return s;
    infotext(c->arena, p, &p->sample[i], picture.w, picture.h, &text);
    s = text.failed ? kw_fail(e, KW_ENOMEM, "out of memory")
                    : kw_png_encode(&picture, &(kw_png_text){ "parameters", text.s }, 1, png, e);
    kw_str_free(&text);
    kw_picture_free(&picture);
    return s;
}
