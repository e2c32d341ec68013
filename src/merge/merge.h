/*
 * merge.h - models out of models: sums, differences, TIES, DARE, LoRAs into models and into each other; LoRAs out of
 * the difference of two models. Nothing here trains; everything goes tensor by tensor.
 *
 *     kw_merge *m;
 *     KW_TRY(kw_merge_new(arena, &recipe, &m, e));               // names and shapes are compared
 *     KW_TRY(kw_merge_prepare(m, tell, user, e));                // TIES: reads everything for its thresholds
 *     kw_conversion_want want = { .make = kw_merge_make, .make_user = m };      // io/convert.h writes
 *
 * Sources: TIES, Yadav et al. 2023 (arXiv:2306.01708); DARE, Yu et al. 2023 (arXiv:2311.03099); slerp, Shoemake 1985;
 * block weights, A1111's merge-block-weighted extension; low-rank factors, Eckart and Young 1936.
 */
#ifndef KW_MERGE_H
#define KW_MERGE_H

#include "adapter/adapter.h"

/*
 *  name, word, needs a base, help. A, B ... models with weights a, b ...; C the base; d = model - C
 */
#define KW_MERGE_MAP(X) \
    X(SUM, "sum", false, N_("weighted sum: a A + b B + ...; the first has what the others leave of 1")) \
    X(ADD, "add-difference", true, N_("A + b (B - C) + ...")) \
    X(SLERP, "slerp", false, N_("along the arc from A to B, each tensor by itself")) \
    X(TIES, "ties", true, N_("C + scale · TIES of all differences: trim, elect signs, mean of those that agree")) \
    X(DARE, "dare", true, \
      N_("C + scale · sum of differences of which most numbers are dropped, the rest made larger")) \
    X(DARE_TIES, "dare-ties", true, N_("the same, but signs are elected as in TIES"))

typedef enum {
#define X(name, word, base, help) KW_MERGE_##name,
    KW_MERGE_MAP(X)
#undef X
    KW_N_MERGES
} kw_merge_method;

const char *kw_merge_word(kw_merge_method m);
bool kw_merge_needs_base(kw_merge_method m);

enum { KW_MERGE_MODELS = 16, KW_MERGE_LORAS = 32 };

typedef struct {
    kw_lora_file *file;
    double unet, text;                    /* strengths */
    const float *blocks;                  /* KW_LORA_BLOCKS factors; NULL: 1 */
} kw_merge_lora;

typedef struct {
    kw_merge_method method;
    kw_source *model[KW_MERGE_MODELS];    /* [0] gives the frame: names, configurations, all that is not merged */
    double weight[KW_MERGE_MODELS];
    int n;                                /* 1: LoRAs alone */
    kw_source *base;                      /* C; NULL: none */
    double scale;                         /* of TIES and DARE */
    double density;                       /* TIES: this share of each whole difference stays, the largest */
    double drop;                          /* DARE: this share goes, by chance */
    uint64_t seed;
    bool vae;                             /* merged as well; false: the first model's */
    const float *blocks;                  /* instead of the last model's weight (or of scale): by block; NULL: no */
    const kw_merge_lora *lora;            /* added to the result */
    size_t n_lora;
    bool partial;                         /* keys of a LoRA that fit no layer are passed over */
} kw_merge_recipe;

typedef struct kw_merge kw_merge;
/* Told now and then: numbers read so far. A status other than KW_OK ends the work. */
typedef kw_status kw_merge_tell(void *user, uint64_t done, kw_err *e);

/*
 * KW_EDATA: models whose tensors differ in names or sizes (the first is named), LoRAs that do not fit. The first may
 * have more input channels than the others, as inpainting models do: they stay as they are.
 */
KW_MUST kw_status kw_merge_new(kw_arena *a, const kw_merge_recipe *r, kw_merge **out, kw_err *e);
/* Do they mean the same by their numbers? KW_EDATA names the field: prediction_type, scaling_factor, a token. */
KW_MUST kw_status kw_merge_match(kw_merge *m, kw_err *e);
KW_MUST kw_status kw_merge_prepare(kw_merge *m, kw_merge_tell *tell, void *user, kw_err *e);
/* A kw_conversion_make. The same bits for any number of threads. */
kw_status kw_merge_make(void *merge, kw_part p, const kw_tensor *t, float *room, bool *made, kw_err *e);
float kw_merge_threshold(const kw_merge *m, int model);           /* TIES: |d| from here on stays */
/* Input channels of the U-Net that take part, where that are not all (of: those of the first model); 0: all do. */
int kw_merge_channels(const kw_merge *m, int *of);
size_t kw_merge_passed_over(const kw_merge *m);                   /* keys of LoRAs, where partial is said */
uint64_t kw_merge_numbers(const kw_merge *m);                     /* that all models together are read for once */
/*
 * The U-Net's block of a tensor as KW_LORA_BLOCKS counts; what lies before the first or behind the last belongs to
 * those (time embedding IN00, last norm and convolution the last OUT), as in A1111's extension. Other parts: 0, BASE.
 */
int kw_merge_block(const kw_unet_config *u, kw_part p, const char *name);

/* ---- do they belong together? ------------------------------------------------------------------------------------ */

typedef struct {                          /* of matrices alone: norms' weights are near 1 in any model */
    int model;                            /* beside the first */
    kw_part part;
    int block;                            /* KW_NONE: the whole part */
    uint64_t numbers;
    double cosine;                        /* of A and B */
    double change;                        /* |B - A| / |A| */
    double from_base[2], delta_cosine;    /* |A - C| / |C|, |B - C| / |C|, cosine of the differences; with a base */
    double conflicts;                     /* share of numbers that the two change in opposite directions */
} kw_merge_row;

/*  name, what is said  */
#define KW_VERDICT_MAP(X) \
    X(GOOD, N_("these models have one ancestor: merging them is sound")) \
    X(SAME, N_("the models are the same, number for number: there is nothing to merge")) \
    X(FAR, N_("the models are far apart: they may have one ancestor, but a merge may lose what either can")) \
    X(STRANGERS, N_("the models have no ancestor in common: a merge of them will draw noise")) \
    X(WRONG_BASE, N_("this is not the base that the models come from: its difference is as large as the weights")) \
    X(CONFLICT, N_("the models change the base in opposite directions: a plain sum would undo both")) \
    X(NOISE_TYPES, N_("one model predicts noise and the other velocity: their weights mean different things"))

typedef enum {
#define X(name, text) KW_VERDICT_##name,
    KW_VERDICT_MAP(X)
#undef X
    KW_N_VERDICTS
} kw_verdict;

const char *kw_verdict_text(kw_verdict v);            /* untranslated */
const char *kw_verdict_advice(kw_verdict v);          /* untranslated; NULL: none */
bool kw_verdict_is_good(kw_verdict v);

typedef struct {
    kw_merge_row *row;
    size_t n;
    bool has_base;
    kw_verdict verdict[KW_MERGE_MODELS];  /* [i]: of model i beside the first */
} kw_merge_report;

KW_MUST kw_status kw_merge_compare(kw_merge *m, kw_merge_tell *tell, void *user, kw_merge_report *out, kw_err *e);

/* ---- singular values --------------------------------------------------------------------------------------------- */

/*
 * D = U S Vᵀ of a matrix (rows, columns) by the eigenvectors of its smaller Gram matrix, in double: values are right to
 * about 1e-8 of the largest.
 */
typedef struct kw_svd kw_svd;
/* most: of the vectors, how many will be asked for; values are always all there. */
KW_MUST kw_status kw_svd_new(const float *d, int64_t rows, int64_t columns, int64_t most, kw_svd **out, kw_err *e);
void kw_svd_free(kw_svd *s);
int64_t kw_svd_n(const kw_svd *s);                    /* the smaller of rows and columns */
const double *kw_svd_values(const kw_svd *s);         /* largest first */
/*
 * The same of up (rows, r) · down (r, columns), which costs little where r is small:  down downᵀ = Wᵀ L W,
 * B = up Wᵀ L^½ = U S Zᵀ,  Vᵀ = Zᵀ L^-½ W down. There are min(rows, r) values; the two must stay.
 */
KW_MUST kw_status kw_svd_product(const float *up, const float *down, int64_t rows, int64_t r, int64_t columns,
                                 int64_t most, kw_svd **out, kw_err *e);
/* up (rows, r) = U S, down (r, columns) = Vᵀ: as kohya's extraction has it. d: as given before, NULL for a product. */
void kw_svd_factors(const kw_svd *s, const float *d, int64_t r, float *up, float *down);

/*  name, word  -  how many of the values stay; kohya's resize_lora. fro: of the norm, energy: of its square  */
#define KW_RANK_MAP(X) X(FIXED, "fixed") X(ENERGY, "energy") X(RATIO, "sv_ratio") X(CUMULATIVE, "sv_cumulative") \
    X(FRO, "sv_fro")
typedef enum {
#define X(name, word) KW_RANK_##name,
    KW_RANK_MAP(X)
#undef X
} kw_rank_rule;

typedef struct { int rank, conv_rank; kw_rank_rule rule; double target; } kw_rank_want;   /* ranks: at most */
/* conv: a window larger than 1 x 1. At least 1, at most n. */
int64_t kw_rank_of(const kw_rank_want *w, const double *values, int64_t n, bool conv);

/* ---- LoRAs ------------------------------------------------------------------------------------------------------- */

typedef struct {
    kw_part part;
    const char *path;
    int64_t rows, columns;
    int rank;
    double energy;                        /* the share of the squared norm that stays */
    double norm;                          /* of the whole difference */
} kw_made_layer;

typedef struct {                          /* a LoRA in memory, under kohya's names */
    kw_tensor *t;
    size_t n;
    kw_made_layer *layer;
    size_t n_layers;
    double energy;                        /* of all layers together */
    double outside;                       /* extract: share of the models' squared difference in no such layer */
    int most_rank;
} kw_made_lora;

/*
 * Σ strength · ΔW of all files. want NULL: their factors below each other, exactly the sum, ranks add up; files of
 * plain LoRAs alone. Else each layer's sum by singular values. KW_EDATA names what neither can hold. type: of the new
 * numbers.
 */
KW_MUST kw_status kw_lora_sum(kw_arena *a, const kw_merge_lora *l, size_t n, const kw_rank_want *want, kw_dtype type,
                              kw_merge_tell *tell, void *user, kw_made_lora *out, kw_err *e);

typedef struct {
    kw_source *tuned, *base;
    unsigned targets;                     /* KW_TARGET_... */
    kw_rank_want rank;
    kw_dtype type;
} kw_extract;
/* KW_EDATA: other sizes, or no difference at all. tell: layers. */
KW_MUST kw_status kw_lora_extract(kw_arena *a, const kw_extract *x, kw_merge_tell *tell, void *user, kw_made_lora *out,
                                  kw_err *e);
size_t kw_extract_n(const kw_extract *x);             /* layers that will be looked at */

#endif
