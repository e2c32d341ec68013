/*
 * lora_file.c - a LoRA, or one of its kin, as a list of layers with their tensors, whatever its keys are spelled like.
 * Each key ends as a tensor of a layer, as a bundled embedding, or on the list of those that mean nothing here.
 */
#include "lora_file.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    kw_arena *a;
    kw_lora_file *f;
    kw_lora_meta meta;
    size_t capacity, unknown_capacity, bundled_capacity;
    size_t *slot, n_slots;                /* hash of (part, path): index + 1 */
    size_t dialects[KW_N_DIALECTS];
    bool *guessed;  size_t guessed_capacity;
    kw_err *e;
} reader;

static const char *const delta_names[] = {
#define X(name, word) word,
    KW_DELTA_MAP(X)
#undef X
};
static const char *const role_names[] = {
#define X(name, word) word,
    KW_ROLE_MAP(X)
#undef X
};
static const char *const dialect_names[] = {
#define X(name, text) text,
    KW_DIALECT_MAP(X)
#undef X
};

const char *kw_delta_name(kw_delta_kind k) { return delta_names[k]; }
const char *kw_role_name(kw_role r) { return role_names[r]; }
const char *kw_dialect_name(kw_dialect d) { return dialect_names[d]; }

/* ---- gathering -------------------------------------------------------------------------------------------------- */

static size_t hash(kw_part part, const char *s)
{
    size_t h = 1469598103934665603u + (size_t)part;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

static size_t *slot_of(reader *r, kw_part part, const char *path)
{
    for (size_t i = hash(part, path); ; i++) {
        size_t *at = &r->slot[i & (r->n_slots - 1)];
        if (!*at || (r->f->item[*at - 1].part == part && !strcmp(r->f->item[*at - 1].path, path)))
            return at;
    }
}

static kw_status unknown(reader *r, const kw_tensor *t)
{
    kw_lora_file *f = r->f;
    KW_TRY(kw_grow(r->a, &f->unknown, &r->unknown_capacity, f->n_unknown, sizeof *f->unknown, r->e));
    f->unknown[f->n_unknown++] = t->name;
    return KW_OK;
}

static kw_status new_item(reader *r, const kw__key *k, const char *key, size_t *slot)
{
    kw_lora_file *f = r->f;
    KW_TRY(kw_grow(r->a, &f->item, &r->capacity, f->n, sizeof *f->item, r->e));
    KW_TRY(kw_grow(r->a, &r->guessed, &r->guessed_capacity, f->n, sizeof *r->guessed, r->e));
    kw_delta *d = &f->item[f->n];
    *d = (kw_delta){ .part = k->part, .path = kw_strdup(r->a, k->path), .module = kw_strndup(r->a, key, k->module) };
    if (!d->path || !d->module)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    r->guessed[f->n] = k->guessed;
    *slot = ++f->n;
    return KW_OK;
}

static kw_status take(reader *r, const kw_tensor *t)
{
    kw__key k;
    kw_lora_file *f = r->f;
    if (kw_starts_with(t->name, "bundle_emb.")) {
        KW_TRY(kw_grow(r->a, &f->bundled, &r->bundled_capacity, f->n_bundled, sizeof *f->bundled, r->e));
        f->bundled[f->n_bundled++] = t;
        return KW_OK;
    }
    if (!kw__key_read(t->name, &f->names, &k))
        return unknown(r, t);
    r->dialects[k.dialect]++;
    size_t *slot = slot_of(r, k.part, k.path);
    if (!*slot)
        KW_TRY(new_item(r, &k, t->name, slot));
    const kw_tensor **at = &f->item[*slot - 1].t[k.role];
    if (*at)
        return unknown(r, t);             /* the same tensor of a layer twice, in two spellings */
    *at = t;
    return KW_OK;
}

/* ---- settling: what kind, are the tensors there that it needs? -------------------------------------------------- */

#define BIT(role) ((uint64_t)1 << KW_ROLE_##role)
#define COMMON (BIT(ALPHA) | BIT(DORA) | BIT(MAGNITUDE) | BIT(DIFF_B))
#define FACTORS2 (BIT(KR2A) | BIT(KR2B))
#define FACTORS1 (BIT(KR1A) | BIT(KR1B))

/*  kind, tensors it must have, tensors it may have; the first row whose tensors are there counts  */
static const struct { kw_delta_kind kind; uint64_t needs, may; bool peft; } kinds[] = {
    { KW_DELTA_LORA, BIT(DOWN) | BIT(UP), BIT(MID) | BIT(UP_BIAS) | BIT(PLAIN_B) | COMMON, false },
    { KW_DELTA_LOHA, BIT(HADA1A) | BIT(HADA1B) | BIT(HADA2A) | BIT(HADA2B), BIT(HADAT1) | BIT(HADAT2) | COMMON, false },
    { KW_DELTA_LOKR, BIT(KR1) | BIT(KR2), COMMON, false },
    { KW_DELTA_LOKR, BIT(KR1) | FACTORS2, BIT(KRT2) | COMMON, false },
    { KW_DELTA_LOKR, FACTORS1 | BIT(KR2), COMMON, false },
    { KW_DELTA_LOKR, FACTORS1 | FACTORS2, BIT(KRT2) | COMMON, false },
    { KW_DELTA_GLORA, BIT(A1) | BIT(A2) | BIT(B1) | BIT(B2), BIT(BM) | BIT(ALPHA) | BIT(DIFF_B), false },
    { KW_DELTA_OFT, BIT(OFT), BIT(RESCALE) | BIT(ALPHA) | BIT(DIFF_B), false },
    { KW_DELTA_IA3, BIT(PLAIN) | BIT(ON_INPUT), 0, false },
    { KW_DELTA_IA3, BIT(IA3_L), 0, false },
    { KW_DELTA_FULL, BIT(DIFF), BIT(DIFF_B) | BIT(ALPHA) | BIT(DORA), false },
    { KW_DELTA_FULL, BIT(DIFF_B), 0, false },
    { KW_DELTA_NORM, BIT(W_NORM), BIT(B_NORM), false },
    { KW_DELTA_NORM, BIT(B_NORM), 0, false },
    { KW_DELTA_SET, BIT(SET), BIT(DIFF_B), false },
    { KW_DELTA_SET, BIT(PLAIN), BIT(PLAIN_B), true },     /* PEFT's modules_to_save */
    { KW_DELTA_SET, BIT(PLAIN_B), 0, true },
};

static uint64_t present(const kw_delta *d)
{
    uint64_t bits = 0;
    for (int i = 0; i < KW_N_ROLES; i++)
        bits |= (uint64_t)(d->t[i] != NULL) << i;
    return bits;
}

/* The kind; what does not go with it is taken off. */
static kw_status settle_kind(reader *r, kw_delta *d, bool *good)
{
    uint64_t have = present(d), keep = 0;
    size_t i = 0;
    while (i < KW_LEN(kinds) && ((have & kinds[i].needs) != kinds[i].needs
                                 || (kinds[i].peft && r->f->dialect != KW_DIALECT_PEFT)))
        i++;
    *good = i < KW_LEN(kinds);
    if (*good) {
        d->kind = kinds[i].kind;
        keep = kinds[i].needs | kinds[i].may;
    }
    if (r->f->dialect != KW_DIALECT_PEFT)
        keep &= ~BIT(PLAIN_B);
    for (int k = 0; k < KW_N_ROLES; k++)
        if (d->t[k] && !(keep >> k & 1)) {
            KW_TRY(unknown(r, d->t[k]));
            d->t[k] = NULL;
        }
    if (*good && d->kind == KW_DELTA_OFT && d->t[KW_ROLE_OFT]->rank == 4)
        d->kind = KW_DELTA_BOFT;
    return KW_OK;
}

static kw_status settle(reader *r)
{
    kw_lora_file *f = r->f;
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++) {
        bool good;
        kw_delta d = f->item[i];
        KW_TRY(settle_kind(r, &d, &good));
        if (!good)
            continue;
        KW_TRY(kw__delta_check(&d, kw_tensors_path(f->file), r->e));
        KW_TRY(kw__lora_meta_scale(&r->meta, &d, r->e));
        f->item[n] = d;
        r->guessed[n++] = r->guessed[i];
    }
    f->n = n;
    return KW_OK;
}

/* A text encoder without a name is SDXL's second one where PEFT says its class, or its layers take 1280 numbers. */
static void settle_encoder(reader *r)
{
    bool second = kw__lora_meta_is_second(&r->meta);
    int64_t rows, columns;
    for (size_t i = 0; i < r->f->n; i++) {
        const kw_delta *d = &r->f->item[i];
        kw_delta_size(d, &rows, &columns);
        second |= r->guessed[i] && columns == 1280 && (kw_ends_with(d->path, "q_proj") || kw_ends_with(d->path, "fc1"));
    }
    for (size_t i = 0; i < r->f->n && second; i++)
        if (r->guessed[i])
            r->f->item[i].part = KW_PART_TEXT2;
}

static int by_place(const void *x, const void *y)
{
    const kw_delta *a = x, *b = y;
    return a->part != b->part ? (int)a->part - (int)b->part : strcmp(a->path, b->path);
}

/* *guess: it is of no published width, and its keys do not show its blocks. */
static kw_lora_names guess_names(const kw_tensors *t, bool *guess)
{
    bool xl = false, published = true;
    for (size_t i = 0; i < kw_tensors_n(t); i++) {
        const kw_tensor *w = kw_tensors_at(t, i);
        const char *reads = strstr(w->name, "attn2") && w->rank == 2 ? strstr(w->name, "to_k") : NULL;
        xl |= kw__key_is_xl(w->name) || (reads && w->shape[1] == 2048);
        if (reads && (strstr(reads, "down") || strstr(reads, "lora_A")))
            published &= w->shape[1] == 2048;
    }
    kw_lora_names names = kw__names_usual(xl);
    *guess = xl && !published && !kw__names_from_keys(t, &names);
    return names;
}

static kw_status read_all(reader *r)
{
    kw_lora_file *f = r->f;
    size_t n = kw_tensors_n(f->file);
    for (r->n_slots = 64; r->n_slots < 2 * n; r->n_slots *= 2)
        ;
    r->slot = kw_alloc_array(r->a, r->n_slots, sizeof *r->slot);
    if (!r->slot)
        return kw_fail(r->e, KW_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        KW_TRY(take(r, kw_tensors_at(f->file, i)));
    for (int d = 0; d < KW_N_DIALECTS; d++)
        if (r->dialects[d] > r->dialects[f->dialect])
            f->dialect = (kw_dialect)d;
    KW_TRY(settle(r));
    settle_encoder(r);
    if (f->n)
        qsort(f->item, f->n, sizeof *f->item, by_place);
    return KW_OK;
}

static kw_status open_tensors(kw_arena *a, kw_tensors *t, const char *folder, const kw_lora_names *names,
                              kw_lora_file **out, kw_err *e)
{
    kw_err local;
    reader r = { .a = a, .f = kw_alloc(a, sizeof *r.f), .e = e ? e : &local };
    if (!r.f)
        return kw_fail(e, KW_ENOMEM, "out of memory");
    *r.f = (kw_lora_file){ .file = t, .path = kw_tensors_path(t) };
    r.f->names = names ? *names : guess_names(t, &r.f->names_guessed);
    KW_TRY(kw__lora_meta_read(a, t, folder, &r.meta, r.e));
    KW_TRY(read_all(&r));
    *out = r.f;
    return KW_OK;
}

kw_status kw_lora_file_of(kw_arena *a, kw_tensors *t, const kw_lora_names *names, kw_lora_file **out, kw_err *e)
{
    return open_tensors(a, t, NULL, names, out, e);
}

/* ---- files and folders ------------------------------------------------------------------------------------------ */

static const char *const inside[] = { "adapter_model.safetensors", "adapter_model.bin",
                                      "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin" };

kw_status kw_lora_file_open(kw_arena *a, const char *path, const kw_lora_names *names, kw_lora_file **out, kw_err *e)
{
    kw_tensors *t;
    const char *file = path;
    if (kw_is_dir(path)) {
        file = NULL;
        for (size_t i = 0; i < KW_LEN(inside) && !file; i++) {
            char *one = kw_path_join(a, path, inside[i]);
            if (!one)
                return kw_fail(e, KW_ENOMEM, "out of memory");
            file = kw_is_file(one) ? one : NULL;
        }
    }
    if (!file) {
        kw_status s = kw_fail(e, KW_EDATA, N_("%s: a folder without a LoRA"), path);
        return kw_advise(
            e, s, N_("PEFT's folders hold adapter_model.safetensors, diffusers' pytorch_lora_weights.safetensors"));
    }
    KW_TRY(kw_tensors_open(a, file, &t, e));
    bool peft = kw_starts_with(kw_path_name(file), "adapter_model.");
    char *folder = peft ? kw_path_dir(a, file) : NULL;
    return peft && !folder ? kw_fail(e, KW_ENOMEM, "out of memory") : open_tensors(a, t, folder, names, out, e);
}

/* ---- looking ---------------------------------------------------------------------------------------------------- */

const kw_delta *kw_lora_file_find(const kw_lora_file *f, kw_part p, const char *path)
{
    kw_delta key = { .part = p, .path = path };
    return f->n ? bsearch(&key, f->item, f->n, sizeof key, by_place) : NULL;
}

int64_t kw_lora_file_width(const kw_lora_file *f)
{
    int64_t rows, columns;
    for (size_t i = 0; i < f->n; i++) {
        const kw_delta *d = &f->item[i];
        kw_delta_size(d, &rows, &columns);
        bool reads = kw_ends_with(d->path, "attn2.to_k") || kw_ends_with(d->path, "attn2.to_v");
        if (d->part == KW_PART_UNET && reads && columns)
            return columns;
    }
    return 0;
}

const char *kw_lora_file_family(const kw_lora_file *f)
{
    int64_t width = kw_lora_file_width(f);
    for (size_t i = 0; i < f->n && !width; i++)
        if (f->item[i].part == KW_PART_TEXT2)
            width = 2048;
    return width == 768 ? N_("Stable Diffusion 1.x") : width == 1024 ? N_("Stable Diffusion 2.x")
           : width == 2048 ? N_("SDXL") : NULL;
}
