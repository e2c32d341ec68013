/*
 * lora_write.c - a LoRA in another program's names. Tensors keep type and bytes; alphas move between tensors (kohya)
 * and configurations (PEFT, diffusers). What the other spelling has no words for is refused by name.
 *
 *   kohya      lora_unet_..._to_q.lora_down.weight, .alpha; LyCORIS' tensors under the same names
 *   diffusers  unet....to_q.lora_A.weight, metadata lora_adapter_metadata          LoRA and DoRA alone
 *   PEFT       base_model.model....to_q.lora_A.weight, adapter_config.json         likewise; a folder for each part
 */
#include "lora_file.h"
#include "names.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    kw_arena *a;
    const kw_lora_file *f;
    kw_lora_form form;
    kw_tensor *t;  size_t n, capacity;
    kw_err *e;
} writer;

static kw_status nomem(kw_err *e) { return kw_fail(e, KW_ENOMEM, "out of memory"); }

static kw_status put(writer *w, const kw_tensor *t, char *name)
{
    if (!name)
        return nomem(w->e);
    KW_TRY(kw_grow(w->a, &w->t, &w->capacity, w->n, sizeof *w->t, w->e));
    w->t[w->n] = *t;
    w->t[w->n++].name = name;
    return KW_OK;
}

static kw_status no_words(const writer *w, const kw_delta *d, const char *what)
{
    static const char *const forms[] = { "kohya", "diffusers", "PEFT" };
    return kw_fail(w->e, KW_EDATA, N_("%s: %s has %s, for which %s has no words"), w->f->path, d->module, what,
                   forms[w->form]);
}

/* ---- kohya ------------------------------------------------------------------------------------------------------ */

static bool counts(const kw_delta *d)     /* does alpha / rank belong to it? */
{
    return d->kind == KW_DELTA_LORA || d->kind == KW_DELTA_LOHA || d->kind == KW_DELTA_LOKR;
}

static kw_status put_alpha(writer *w, const kw_delta *d, const char *module)
{
    float *v = kw_alloc(w->a, sizeof *v);
    if (!v)
        return nomem(w->e);
    *v = (float)(d->scale * KW_MAX(d->rank, 1));
    if (!d->rank && d->scale != 1)        /* LoKr of two whole matrices: readers take 1 */
        return no_words(w, d, "alpha");
    kw_tensor t = { .dtype = KW_F32, .data = v, .bytes = sizeof *v };
    return put(w, &t, kw_sprintf(w->a, "%s.alpha", module));
}

/* PEFT's magnitudes, (out) or (1, out, 1, 1), as LyCORIS' dora_scale (out, 1) or (out, 1, 1, 1). */
static kw_tensor as_dora_scale(const kw_delta *d)
{
    kw_tensor t = *d->t[KW_ROLE_MAGNITUDE];
    int64_t n = kw_tensor_count(&t);
    t.rank = t.rank > 2 ? t.rank : 2;
    for (int i = 0; i < t.rank; i++)
        t.shape[i] = i ? 1 : n;
    return t;
}

static kw_status kohya_layer(writer *w, const kw_delta *d)
{
    static const kw_role foreign[] = { KW_ROLE_UP_BIAS, KW_ROLE_PLAIN_B, KW_ROLE_IA3_L };
    char module[KW_LORA_NAME];
    if (!kw_lora_name(&w->f->names, d->part, d->path, module))
        return no_words(w, d, "a long name");
    if (d->kind == KW_DELTA_SET && d->t[KW_ROLE_PLAIN])
        return no_words(w, d, kw_role_name(KW_ROLE_PLAIN));
    for (size_t i = 0; i < KW_LEN(foreign); i++)
        if (d->t[foreign[i]])
            return no_words(w, d, kw_role_name(foreign[i]));
    for (int i = 0; i < KW_N_ROLES; i++) {
        if (!d->t[i])
            continue;
        kw_tensor t = i == KW_ROLE_MAGNITUDE ? as_dora_scale(d) : *d->t[i];
        KW_TRY(
            put(w, &t,
                kw_sprintf(w->a, "%s.%s", module, kw_role_name(i == KW_ROLE_MAGNITUDE ? KW_ROLE_DORA : (kw_role)i))));
    }
    return counts(d) && !d->t[KW_ROLE_ALPHA] ? put_alpha(w, d, module) : KW_OK;
}

/* ---- PEFT and diffusers ----------------------------------------------------------------------------------------- */

static kw_status peft_dora(writer *w, const kw_delta *d, const char *head, bool conv)
{
    const kw_tensor *m = d->t[KW_ROLE_MAGNITUDE] ? d->t[KW_ROLE_MAGNITUDE] : d->t[KW_ROLE_DORA];
    int64_t rows, columns, n = m ? kw_tensor_count(m) : 0;
    if (!m)
        return KW_OK;
    kw_delta_size(d, &rows, &columns);
    if (n != rows || (d->t[KW_ROLE_DORA] && m->rank > 1 && m->shape[0] != n))
        return no_words(w, d, "dora_scale along inputs");
    kw_tensor t = *m;
    t.rank = conv ? 4 : 1;
    for (int i = 0; i < t.rank; i++)
        t.shape[i] = !conv || i == 1 ? n : 1;
    return put(w, &t, kw_sprintf(w->a, "%s.lora_magnitude_vector", head));
}

static kw_status peft_layer(writer *w, const kw_delta *d)
{
    static const struct { kw_role role; const char *leaf; } rows[] = {
        { KW_ROLE_DOWN, "lora_A.weight" }, { KW_ROLE_UP, "lora_B.weight" }, { KW_ROLE_UP_BIAS, "lora_B.bias" },
    };
    if (d->kind != KW_DELTA_LORA)
        return no_words(w, d, kw_delta_name(d->kind));
    for (int i = 0; i < KW_N_ROLES; i++)
        if (d->t[i] && (i == KW_ROLE_MID || i == KW_ROLE_DIFF_B || i == KW_ROLE_PLAIN_B))
            return no_words(w, d, kw_role_name((kw_role)i));
    const char *part = w->form == KW_LORA_PEFT ? "base_model.model" : kw_part_name(d->part);
    char *head = kw_sprintf(w->a, "%s.%s", part, d->path);
    for (size_t i = 0; i < KW_LEN(rows) && head; i++)
        if (d->t[rows[i].role])
            KW_TRY(put(w, d->t[rows[i].role], kw_sprintf(w->a, "%s.%s", head, rows[i].leaf)));
    return head ? peft_dora(w, d, head, d->t[KW_ROLE_DOWN]->rank == 4) : nomem(w->e);
}

static double alpha_of(const kw_delta *d) { return (double)(float)(d->scale * d->rank); }

/* The value most layers have; the others get a line in the pattern. */
static double most(const kw_lora_file *f, kw_part part, double (*of)(const kw_delta *))
{
    double best = 0;
    size_t count = 0;
    for (size_t i = 0; i < f->n; i++) {
        size_t n = 0;
        for (size_t k = i; k < f->n && f->item[i].part == part; k++)
            n += f->item[k].part == part && of(&f->item[k]) == of(&f->item[i]);
        if (n > count) {
            count = n;
            best = of(&f->item[i]);
        }
        if (2 * count > f->n)
            break;
    }
    return best;
}

static double rank_of(const kw_delta *d) { return d->rank; }
static json_t *number(double v) { return v == floor(v) && fabs(v) < 1e9 ? json_integer((json_int_t)v) : json_real(v); }

/* As modules are called with and without the text_model that transformers 5 dropped: PEFT takes ends of names. */
static const char *target(const kw_delta *d)
{
    static const char head[] = "text_model.";
    return kw_starts_with(d->path, head) ? d->path + strlen(head) : d->path;
}

/* PEFT's keys are the same for both text encoders: the class tells the second one. */
static void name_class(json_t *c, kw_part part)
{
    json_t *j = json_object();
    json_object_set_new(j, "base_model_class", json_string("CLIPTextModelWithProjection"));
    json_object_set_new(j, "parent_library", json_string("transformers.models.clip.modeling_clip"));
    if (part == KW_PART_TEXT2)
        json_object_set(c, "auto_mapping", j);
    json_decref(j);
}

/* LoraConfig of a part, as PEFT 0.21 writes it; prefix: before each field, "unet." in diffusers' metadata. */
static void config(const writer *w, kw_part part, const char *prefix, json_t *out)
{
    double r = most(w->f, part, rank_of), alpha = most(w->f, part, alpha_of);
    json_t *targets = json_array(), *ranks = json_object(), *alphas = json_object(), *c = json_object(), *v;
    bool dora = false, bias = false;
    const char *key;
    for (size_t i = 0; i < w->f->n; i++) {
        const kw_delta *d = &w->f->item[i];
        if (d->part != part)
            continue;
        json_array_append_new(targets, json_string(target(d)));
        if (d->rank != r)
            json_object_set_new(ranks, target(d), json_integer(d->rank));
        if (alpha_of(d) != alpha)
            json_object_set_new(alphas, target(d), number(alpha_of(d)));
        dora |= d->t[KW_ROLE_DORA] || d->t[KW_ROLE_MAGNITUDE];
        bias |= d->t[KW_ROLE_UP_BIAS] != NULL;
    }
    json_object_set_new(c, "peft_type", json_string("LORA"));
    json_object_set_new(c, "task_type", json_null());
    json_object_set_new(c, "base_model_name_or_path", json_null());
    json_object_set_new(c, "inference_mode", json_true());
    json_object_set_new(c, "r", number(r));
    json_object_set_new(c, "lora_alpha", number(alpha));
    json_object_set_new(c, "lora_dropout", json_real(0));
    json_object_set_new(c, "target_modules", targets);
    json_object_set_new(c, "rank_pattern", ranks);
    json_object_set_new(c, "alpha_pattern", alphas);
    json_object_set_new(c, "bias", json_string("none"));
    json_object_set_new(c, "fan_in_fan_out", json_false());
    json_object_set_new(c, "use_rslora", json_false());
    json_object_set_new(c, "use_dora", json_boolean(dora));
    json_object_set_new(c, "lora_bias", json_boolean(bias));
    json_object_foreach(c, key, v) {
        char name[96];
        snprintf(name, sizeof name, "%s%s", prefix, key);
        json_object_set(out, name, v);
    }
    json_decref(c);
}

static bool has(const kw_lora_file *f, kw_part part)
{
    for (size_t i = 0; i < f->n; i++)
        if (f->item[i].part == part)
            return true;
    return false;
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* The file's metadata without what was said of its old form, and one more key. */
static kw_status save(writer *w, const char *path, const char *key, const char *value)
{
    size_t n_meta = kw_tensors_n_meta(w->f->file), n = 0;
    kw_meta *meta = kw_alloc_array(w->a, n_meta + 2, sizeof *meta);
    if (!meta)
        return nomem(w->e);
    for (size_t i = 0; i < n_meta; i++) {
        kw_tensors_meta_at(w->f->file, i, &meta[n].key, &meta[n].value);
        bool hash = kw_starts_with(meta[n].key, "sshs_");     /* of the old names and order: no longer true */
        n += !hash && strcmp(meta[n].key, "lora_adapter_metadata") && strcmp(meta[n].key, key);
    }
    if (*key)
        meta[n++] = (kw_meta){ key, value };
    return kw_tensors_save(path, w->t, w->n, meta, n, w->e);
}

static kw_status gather(writer *w, int part)
{
    w->n = 0;
    for (size_t i = 0; i < w->f->n; i++)
        if (part < 0 || w->f->item[i].part == (kw_part)part)
            KW_TRY(w->form == KW_LORA_KOHYA ? kohya_layer(w, &w->f->item[i]) : peft_layer(w, &w->f->item[i]));
    if (w->form == KW_LORA_PEFT && w->f->n_bundled)
        return kw_fail(w->e, KW_EDATA, N_("%s: holds embeddings (%s), for which PEFT has no words"), w->f->path,
                       w->f->bundled[0]->name);
    for (size_t i = 0; i < w->f->n_bundled; i++)
        KW_TRY(put(w, w->f->bundled[i], kw_strdup(w->a, w->f->bundled[i]->name)));
    return KW_OK;
}

static kw_status text_of(writer *w, json_t *j, char **out)
{
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_SORT_KEYS);
    *out = text ? kw_strdup(w->a, text) : NULL;
    free(text);
    json_decref(j);
    return *out ? KW_OK : nomem(w->e);
}

static kw_status write_diffusers(writer *w, const char *to)
{
    json_t *j = json_object();
    char *text;
    for (int p = 0; p < KW_N_PARTS; p++) {
        char prefix[64];
        snprintf(prefix, sizeof prefix, "%s.", kw_part_name((kw_part)p));
        if (has(w->f, (kw_part)p))
            config(w, (kw_part)p, prefix, j);
    }
    KW_TRY(text_of(w, j, &text));
    KW_TRY(gather(w, -1));
    if (!kw_ends_with(to, ".safetensors")) {
        KW_TRY(kw_mkdirs(to, w->e));
        to = kw_path_join(w->a, to, "pytorch_lora_weights.safetensors");
    }
    return to ? save(w, to, "lora_adapter_metadata", text) : nomem(w->e);
}

static kw_status write_peft(writer *w, const char *to)
{
    int n = 0;
    for (int p = 0; p < KW_N_PARTS; p++)
        n += has(w->f, (kw_part)p);
    for (int p = 0; p < KW_N_PARTS; p++) {
        const char *folder = n > 1 ? kw_path_join(w->a, to, kw_part_name((kw_part)p)) : to;
        json_t *j = json_object();
        char *text, *file = folder ? kw_path_join(w->a, folder, "adapter_model.safetensors") : NULL,
             *about = folder ? kw_path_join(w->a, folder, "adapter_config.json") : NULL;
        config(w, (kw_part)p, "", j);
        name_class(j, (kw_part)p);
        KW_TRY(text_of(w, j, &text));
        if (!file || !about)
            return nomem(w->e);
        if (!has(w->f, (kw_part)p))
            continue;
        KW_TRY(gather(w, p));
        KW_TRY(kw_mkdirs(folder, w->e));
        KW_TRY(save(w, file, "", NULL));
        KW_TRY(kw_file_write_atomic(about, text, strlen(text), w->e));
    }
    return KW_OK;
}

/* Are LDM's numbers in the file's names, or would they be in the new ones? */
static bool needs_numbers(const writer *w)
{
    for (size_t i = 0; w->f->names.xl && i < w->f->n; i++)
        if (w->f->item[i].part == KW_PART_UNET
            && (w->form == KW_LORA_KOHYA || strstr(w->f->item[i].module, "put_blocks")))
            return strstr(w->f->item[i].path, "_blocks.") != NULL;
    return false;
}

/* kohya's names of SDXL number LDM's blocks: where their layers are not known, wrong names would be silent. */
static kw_status check_numbers(const writer *w)
{
    const char *odd = w->f->names_guessed && needs_numbers(w) ? w->f->item[0].module : NULL;
    char ldm[KW_KEY_ROOM];
    for (size_t i = 0; w->form == KW_LORA_KOHYA && w->f->names.xl && !odd && i < w->f->n; i++)
        if (w->f->item[i].part == KW_PART_UNET && strstr(w->f->item[i].path, "_blocks.")
            && !kw__ldm_path(&w->f->names.unet, w->f->item[i].path, ldm))
            odd = w->f->item[i].module;
    if (!odd)
        return KW_OK;
    kw_status s = kw_fail(w->e, KW_EDATA,
                          N_("%s: its blocks are not those of SDXL, and kohya's names have their numbers: %s"),
                          w->f->path, odd);
    return kw_advise(w->e, s, N_("name the model that it was trained on: --base MODEL"));
}

kw_status kw_lora_convert(kw_arena *a, const kw_lora_file *f, kw_lora_form form, const char *to, kw_err *e)
{
    kw_err local;
    writer w = { .a = a, .f = f, .form = form, .e = e ? e : &local };
    if (!f->n)
        return kw_fail(w.e, KW_EDATA, N_("%s: holds no LoRA"), f->path);
    if (f->n_unknown) {
        kw_status s = kw_fail(w.e, KW_EDATA, N_("%s: %zu keys mean nothing here, the first is %s"), f->path,
                              f->n_unknown, f->unknown[0]);
        return kw_advise(w.e, s, strstr(f->unknown[0], "put_blocks")
                         ? N_("numbers of blocks depend on the model: name it with --base MODEL")
                         : N_("they would be lost, so nothing is written"));
    }
    KW_TRY(check_numbers(&w));
    if (form == KW_LORA_DIFFUSERS)
        return write_diffusers(&w, to);
    if (form == KW_LORA_PEFT)
        return write_peft(&w, to);
    KW_TRY(gather(&w, -1));
    return save(&w, to, "", NULL);
}
