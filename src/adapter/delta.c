/*
 * delta.c - the kinds of changes to a layer's weight W (rows = outputs, columns = inputs times kernel): sizes, checks.
 *
 *   LoRA    ΔW = up · down · α/r            with mid: Σ_ij mid_ij · up_i · down_j  (Tucker)
 *   LoHa    ΔW = (w1_a · w1_b) ∘ (w2_a · w2_b) · α/r       with t1, t2 likewise
 *   LoKr    ΔW = w1 ⊗ w2 · α/r              each whole or a product of two; both whole: no α/r
 *   GLoRA   ΔW = (W · a1 · a2 + b1 · b2) · α/r
 *   full, norm  ΔW = diff
 *   (IA)³   W' = W · (1 + w) along outputs or inputs
 *   OFT     W' = Rᵀ W in blocks, R = (1 + Q)(1 - Q)⁻¹, Q = B - Bᵀ;  BOFT: R_m ... R_1 W over butterflies
 *   DoRA    W' = m · V / ‖V‖, V = W + ΔW, along outputs or inputs
 *
 * Source: KohakuBlueleaf/LyCORIS, lycoris/modules and lycoris/functional; PEFT's where it differs (IA3: W · l).
 */
#include "lora_file.h"

#include <math.h>
#include <string.h>

enum { MOST = 1 << 24 };                  /* of rows, columns, ranks */

static const kw_tensor *role(const kw_delta *d, kw_role r) { return d->t[r]; }
static int64_t dim(const kw_tensor *t, int i) { return t && i < t->rank ? t->shape[i] : 1; }
/* Numbers behind the first n dimensions: a convolution's window for n = 2. */
static int64_t rest(const kw_tensor *t, int n)
{
    int64_t count = 1;
    for (int i = n; t && i < t->rank; i++)
        count *= t->shape[i];
    return count;
}

/* Sizes of the two factors of a half of LoKr, whole or not. t: Tucker. */
static void kron_half(const kw_tensor *whole, const kw_tensor *a, const kw_tensor *b, const kw_tensor *t, int64_t *rows,
                      int64_t *columns)
{
    *rows = whole ? dim(whole, 0) : t ? dim(a, 1) : dim(a, 0);
    *columns = whole ? rest(whole, 1) : t ? dim(b, 1) * rest(t, 2) : rest(b, 1);
}

void kw_delta_size(const kw_delta *d, int64_t *rows, int64_t *columns)
{
    int64_t r2, c2;
    const kw_tensor *first;
    *rows = *columns = 0;
    switch (d->kind) {
    case KW_DELTA_LORA:
        first = role(d, KW_ROLE_DOWN);
        *rows = dim(role(d, KW_ROLE_UP), 0);
        *columns = rest(first, 1) * rest(role(d, KW_ROLE_MID), 2);
        break;
    case KW_DELTA_LOHA:
        first = role(d, KW_ROLE_HADAT1);
        *rows = dim(role(d, KW_ROLE_HADA1A), first ? 1 : 0);
        *columns = rest(role(d, KW_ROLE_HADA1B), 1) * rest(first, 2);
        break;
    case KW_DELTA_LOKR:
        kron_half(role(d, KW_ROLE_KR1), role(d, KW_ROLE_KR1A), role(d, KW_ROLE_KR1B), NULL, rows, columns);
        kron_half(role(d, KW_ROLE_KR2), role(d, KW_ROLE_KR2A), role(d, KW_ROLE_KR2B), role(d, KW_ROLE_KRT2), &r2, &c2);
        *rows *= r2;
        *columns *= c2;
        break;
    case KW_DELTA_GLORA:
        *rows = dim(role(d, KW_ROLE_B1), 0);
        *columns = rest(role(d, KW_ROLE_B2), 1) * rest(role(d, KW_ROLE_BM), 2);
        break;
    case KW_DELTA_OFT:
        *rows = dim(role(d, KW_ROLE_OFT), 0) * dim(role(d, KW_ROLE_OFT), 1);
        break;
    case KW_DELTA_BOFT:
        *rows = dim(role(d, KW_ROLE_OFT), 1) * dim(role(d, KW_ROLE_OFT), 2);
        break;
    case KW_DELTA_IA3:
        first = role(d, role(d, KW_ROLE_IA3_L) ? KW_ROLE_IA3_L : KW_ROLE_PLAIN);
        *(d->on_input ? columns : rows) = kw_tensor_count(first);
        break;
    case KW_DELTA_FULL: case KW_DELTA_NORM: case KW_DELTA_SET: default:
        first = kw__delta_whole(d);
        *rows = first ? dim(first, 0) : 0;
        *columns = first ? rest(first, 1) : 0;
        break;
    }
}

/* The tensor that is as large as the weight itself. */
const kw_tensor *kw__delta_whole(const kw_delta *d)
{
    static const kw_role whole[] = { KW_ROLE_DIFF, KW_ROLE_W_NORM, KW_ROLE_SET, KW_ROLE_PLAIN };
    for (size_t i = 0; i < KW_LEN(whole); i++)
        if (d->t[whole[i]] && d->kind != KW_DELTA_IA3)
            return d->t[whole[i]];
    return NULL;
}

/* LyCORIS says so; PEFT's vectors are (1, inputs) or (outputs, 1), of convolutions both (1, n, 1, 1): see lora_meta.c.
 */
static bool on_input(const kw_delta *d)
{
    const kw_tensor *flag = role(d, KW_ROLE_ON_INPUT), *l = role(d, KW_ROLE_IA3_L);
    double v = 0;
    if (l)
        return l->rank == 2 && l->shape[0] == 1;
    if (flag->dtype == KW_BOOL)
        return *(const unsigned char *)flag->data != 0;
    kw_convert(KW_F64, &v, flag->dtype, flag->data, 1);
    return v != 0;
}

bool kw_delta_fits(const kw_delta *d, const kw_tensor *weight)
{
    int64_t rows, columns;
    kw_delta_size(d, &rows, &columns);
    return (!rows || rows == dim(weight, 0)) && (!columns || columns == rest(weight, 1));
}

/* ---- checks: from here on sizes are believed -------------------------------------------------------------------- */

static bool is_float(kw_dtype t)
{
    return t == KW_F32 || t == KW_F16 || t == KW_BF16 || t == KW_F64 || t == KW_F8_E4M3 || t == KW_F8_E5M2;
}

static kw_status check_tensors(const kw_delta *d, const char *shown, kw_err *e)
{
    char text[160];
    for (int i = 0; i < KW_N_ROLES; i++) {
        const kw_tensor *t = d->t[i];
        bool small = i == KW_ROLE_ALPHA || i == KW_ROLE_ON_INPUT;
        if (!t)
            continue;
        bool good = kw_tensor_count(t) > 0 && (!small || kw_tensor_count(t) == 1);
        for (int k = 0; k < t->rank; k++)
            good &= t->shape[k] <= MOST;
        if (!good)
            return kw_fail(e, KW_EDATA, N_("%s: %s has the size %s"), shown, t->name, kw_shape_text(t, text));
        if (!small && !is_float(t->dtype))
            return kw_fail(e, KW_EDATA, "%s: weights of type %s cannot be used", t->name, kw_dtype_name(t->dtype));
    }
    return KW_OK;
}

static bool is(int64_t a, int64_t b) { return a == b && a >= 1 && a <= MOST; }

/* t[i][j] with a: (i, rows) and b: (j, columns) */
static bool tucker(const kw_tensor *t, const kw_tensor *a, const kw_tensor *b)
{
    return t->rank >= 2 && a->rank == 2 && b->rank == 2 && is(dim(t, 0), dim(a, 0)) && is(dim(t, 1), dim(b, 0));
}

/* a: (rows, r), b: (r, columns) */
static bool product(const kw_tensor *a, const kw_tensor *b) { return is(rest(a, 1), dim(b, 0)); }

static bool fits_lora(kw_delta *d)
{
    const kw_tensor *down = role(d, KW_ROLE_DOWN), *up = role(d, KW_ROLE_UP), *mid = role(d, KW_ROLE_MID);
    d->rank = (int)dim(down, 0);
    if (!mid)
        return product(up, down);
    return mid->rank >= 2 && is(dim(mid, 0), rest(up, 1)) && is(dim(mid, 1), dim(down, 0));
}

static bool fits_loha(kw_delta *d)
{
    const kw_tensor *a1 = role(d, KW_ROLE_HADA1A), *b1 = role(d, KW_ROLE_HADA1B), *a2 = role(d, KW_ROLE_HADA2A),
                    *b2 = role(d, KW_ROLE_HADA2B), *t1 = role(d, KW_ROLE_HADAT1), *t2 = role(d, KW_ROLE_HADAT2);
    d->rank = (int)dim(b1, 0);
    if (!t1 != !t2)
        return false;
    if (t1)
        return tucker(t1, a1, b1) && tucker(t2, a2, b2) && rest(t1, 2) == rest(t2, 2) && dim(a1, 1) == dim(a2, 1)
            && dim(b1, 1) == dim(b2, 1);
    return product(a1, b1) && product(a2, b2) && dim(a1, 0) == dim(a2, 0) && rest(b1, 1) == rest(b2, 1);
}

static bool fits_lokr(kw_delta *d)
{
    const kw_tensor *a1 = role(d, KW_ROLE_KR1A), *b1 = role(d, KW_ROLE_KR1B), *a2 = role(d, KW_ROLE_KR2A),
                    *b2 = role(d, KW_ROLE_KR2B), *t2 = role(d, KW_ROLE_KRT2);
    d->rank = b1 ? (int)dim(b1, 0) : b2 ? (int)dim(b2, 0) : 0;
    return (!a1 || product(a1, b1)) && (!a2 || (t2 ? tucker(t2, a2, b2) : product(a2, b2)));
}

static bool fits_glora(kw_delta *d)
{
    const kw_tensor *a1 = role(d, KW_ROLE_A1), *a2 = role(d, KW_ROLE_A2), *b1 = role(d, KW_ROLE_B1),
                    *b2 = role(d, KW_ROLE_B2), *bm = role(d, KW_ROLE_BM);
    d->rank = (int)dim(a2, 0);
    if (bm && !(bm->rank >= 2 && is(dim(bm, 0), rest(b1, 1)) && is(dim(bm, 1), dim(b2, 0))))
        return false;
    return product(a1, a2) && (bm || product(b1, b2)) && dim(a1, 0) == rest(a2, 1)
           && dim(a1, 0) == (bm ? rest(b2, 1) : dim(b2, 1));
}

static bool fits_oft(kw_delta *d)
{
    const kw_tensor *t = role(d, KW_ROLE_OFT), *scale = role(d, KW_ROLE_RESCALE);
    int64_t rows, columns;
    bool butterfly = d->kind == KW_DELTA_BOFT;
    if (t->rank != (butterfly ? 4 : 3) || dim(t, t->rank - 1) != dim(t, t->rank - 2))
        return false;
    kw_delta_size(d, &rows, &columns);
    /* stage i exchanges rows at a distance of 2^i halves of a block: the last one must lie within the rows */
    if (butterfly && (dim(t, 2) % 2 || dim(t, 0) > 24 || rows % (dim(t, 2) << (dim(t, 0) - 1))))
        return false;
    return !scale || kw_tensor_count(scale) == rows;
}

static bool fits_dora(const kw_delta *d)
{
    const kw_tensor *m = role(d, KW_ROLE_MAGNITUDE) ? role(d, KW_ROLE_MAGNITUDE) : role(d, KW_ROLE_DORA);
    int64_t rows, columns, n = m ? kw_tensor_count(m) : 0;
    kw_delta_size(d, &rows, &columns);
    return !m || n == rows || columns % n == 0;
}

static bool fits(kw_delta *d)
{
    switch (d->kind) {
    case KW_DELTA_LORA: return fits_lora(d);
    case KW_DELTA_LOHA: return fits_loha(d);
    case KW_DELTA_LOKR: return fits_lokr(d);
    case KW_DELTA_GLORA: return fits_glora(d);
    case KW_DELTA_OFT: case KW_DELTA_BOFT: return fits_oft(d);
    default: return true;
    }
}

kw_status kw__delta_check(kw_delta *d, const char *shown, kw_err *e)
{
    KW_TRY(check_tensors(d, shown, e));
    d->on_input = d->kind == KW_DELTA_IA3 && on_input(d);
    if (!fits(d) || !fits_dora(d))
        return kw_fail(e, KW_EDATA, N_("%s: the tensors of %s (%s) do not fit each other"), shown, d->module,
                       kw_delta_name(d->kind));
    const kw_tensor *a = role(d, KW_ROLE_ALPHA);
    bool oft = d->kind == KW_DELTA_OFT || d->kind == KW_DELTA_BOFT;
    d->alpha = oft ? 0 : d->rank;
    d->scale = 1;
    if (a)
        kw_convert(KW_F64, &d->alpha, a->dtype, a->data, 1);
    if (!(fabs(d->alpha) < 1e6))
        return kw_fail(e, KW_EDATA, N_("%s: %s: rank %d with alpha %g"), shown, d->module, d->rank, d->alpha);
    if (!oft && d->alpha == 0)            /* kohya and LyCORIS: none */
        d->alpha = d->rank;
    if (d->rank && !oft)
        d->scale = d->alpha / d->rank;
    return KW_OK;
}
