/*
 * conv.c - kw_conv: which way to compute a convolution, how its weight lies, and what surrounds the computation.
 *
 * Where the machine has no bf16 products (AVX512-BF16), bf16 activations are widened to f32 in scratch, the
 * result is rounded, and the packed weight is f32.
 *
 * scratch:  [x as f32] [y as f32] [packed dw] [a bias of zeros] [the way's own]
 */
#include "conv.h"
#include "conv_tile.h"
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TAPS = 4096 };

#define ALIGN(n) (((n) + 63) & ~(size_t)63)

struct kw_conv {
    kw_conv_shape s;
    kw_pass pass;
    kw_dtype t;
    bool bias, widen;                     /* widen: t is BF16 but the way works in f32 */
    kw_conv_way way;
    kw_dnn_conv *dnn;                     /* of PLAIN, FLIP */
    kw_conv_tiles tiles;                  /* of TILES, WINOGRAD; in the gradient of the weight: */
    kw_conv_weights weights;
    bool turned;                          /* backward-data as a forward convolution */
    kw_dnn_layout layout;
    const int64_t *o, *i, *h, *w;         /* where element (o, i, h, w) of the file lies: o[] + i[] + h[] + w[] */
    char text[192];
    size_t x_at, y_at, w_at, bias_at, work_at, scratch_size;
    int64_t tables[];                     /* out + in + kh + kw */
};

int kw_conv_out_h(const kw_conv_shape *s) { return (s->h + s->pad_top + s->pad_bottom - s->kh) / s->stride + 1; }
int kw_conv_out_w(const kw_conv_shape *s) { return (s->w + s->pad_left + s->pad_right - s->kw) / s->stride + 1; }
kw_conv_way kw_conv_chosen(const kw_conv *c) { return c->way; }
const char *kw_conv_implementation(const kw_conv *c)
{
    return c->dnn ? kw_dnn_conv_implementation(c->dnn)
         : c->way == KW_CONV_TILES ? "tiles" : c->way == KW_CONV_WINOGRAD ? "winograd" : "loops";
}

static bool is_tiles(const kw_conv *c) { return c->way == KW_CONV_TILES || c->way == KW_CONV_WINOGRAD; }

static int64_t x_count(const kw_conv_shape *s) { return (int64_t)s->n * s->h * s->w * s->in; }
static int64_t y_count(const kw_conv_shape *s) { return (int64_t)s->n * kw_conv_out_h(s) * kw_conv_out_w(s) * s->out; }

/* ---- making ------------------------------------------------------------------------------------------ */

static kw_status check(const kw_conv_shape *s, kw_dtype t, kw_err *e)
{
    if (t != KW_F32 && t != KW_BF16)
        return kw_fail(e, KW_EUSAGE, "convolution: type %s instead of F32 or BF16", kw_dtype_name(t));
    if (s->n < 1 || s->h < 1 || s->w < 1 || s->in < 1 || s->out < 1 || s->kh < 1 || s->kw < 1 || s->stride < 1)
        return kw_fail(e, KW_EUSAGE,
                       "convolution: a size in %d x %d x %d x %d -> %d, kernel %d x %d, stride %d is not positive",
                       s->n, s->h, s->w, s->in, s->out, s->kh, s->kw, s->stride);
    if (KW_MIN(s->pad_top, s->pad_left) < 0 || KW_MIN(s->pad_bottom, s->pad_right) < 0)
        return kw_fail(e, KW_EUSAGE, "convolution: negative padding");
    if ((int64_t)s->kh * s->kw > MAX_TAPS)
        return kw_fail(e, KW_EUSAGE, "convolution: a kernel of %d x %d has more than %d places", s->kh, s->kw,
                       MAX_TAPS);
    if (s->h + s->pad_top + s->pad_bottom < s->kh || s->w + s->pad_left + s->pad_right < s->kw)
        return kw_fail(e, KW_EUSAGE, "convolution: a kernel of %d x %d is larger than the padded picture of %d x %d",
                       s->kh, s->kw, s->h + s->pad_top + s->pad_bottom, s->w + s->pad_left + s->pad_right);
    return KW_OK;
}

/*  dx = conv(dy, weight with in and out swapped and turned by half a turn), padded with what the kernel overhangs  */
static bool flipped(const kw_conv_shape *s, kw_conv_shape *f)
{
    *f = (kw_conv_shape){ .n = s->n, .h = kw_conv_out_h(s), .w = kw_conv_out_w(s), .in = s->out, .out = s->in,
                          .kh = s->kh, .kw = s->kw, .stride = 1,
                          .pad_top = s->kh - 1 - s->pad_top, .pad_bottom = s->kh - 1 - s->pad_bottom,
                          .pad_left = s->kw - 1 - s->pad_left, .pad_right = s->kw - 1 - s->pad_right };
    return s->stride == 1 && KW_MIN(f->pad_top, f->pad_bottom) >= 0 && KW_MIN(f->pad_left, f->pad_right) >= 0;
}

static void reverse(int64_t *x, int n)
{
    for (int i = 0; i < n / 2; i++) {
        int64_t t = x[i];
        x[i] = x[n - 1 - i];
        x[n - 1 - i] = t;
    }
}

/* Room for the four tables, out, in, kh, kw numbers long, of the weight as `s` sees it. */
static void lay_tables(kw_conv *c, const kw_conv_shape *s)
{
    int count[4] = { s->out, s->in, s->kh, s->kw };
    int64_t *t = c->tables;
    for (int k = 0; k < 4; t += count[k++])
        c->layout.at[k] = t;
}

/* The layout in terms of the file's (o, i, h, w). */
static void name_layout(kw_conv *c, bool flip)
{
    bool own = c->way == KW_CONV_WINOGRAD || (c->way == KW_CONV_TILES && c->pass != KW_BACKWARD_WEIGHTS);
    snprintf(c->text, sizeof c->text, "%s%s", flip && !own ? "turned " : "", c->layout.text);
    if (own)
        return;                           /* packs for itself, and alike for both directions */
    c->o = c->layout.at[flip ? 1 : 0];
    c->i = c->layout.at[flip ? 0 : 1];
    c->h = c->layout.at[2];
    c->w = c->layout.at[3];
    if (flip) {
        reverse(c->layout.at[2], c->s.kh);
        reverse(c->layout.at[3], c->s.kw);
    }
}

/*  (out, kh, kw, in)  */
static void loops_layout(kw_conv *c)
{
    const kw_conv_shape *s = &c->s;
    int count[4] = { s->out, s->in, s->kh, s->kw };
    int64_t step[4] = { (int64_t)s->kh * s->kw * s->in, 1, (int64_t)s->kw * s->in, s->in };
    lay_tables(c, s);
    for (int k = 0; k < 4; k++)
        for (int j = 0; j < count[k]; j++)
            c->layout.at[k][j] = j * step[k];
    c->layout.size = (size_t)(s->out * step[0]);
    snprintf(c->layout.text, sizeof c->layout.text, "F32 loops %d %d %d %d", s->out, s->in, s->kh, s->kw);
}

static bool set_up_tiles(kw_conv *c, const kw_conv_shape *s)
{
    int64_t **at = c->layout.at;
    if (c->pass != KW_BACKWARD_WEIGHTS) {
        if (!kw_conv_tiles_plan(s, c->way == KW_CONV_WINOGRAD, c->turned, &c->tiles))
            return false;
        c->layout.size = c->tiles.packed;
        kw_conv_tiles_text(&c->tiles, c->layout.text, sizeof c->layout.text);
        return true;
    }
    if (c->way == KW_CONV_WINOGRAD)       /* writes in the file's order */
        return kw_conv_winograd_weights_plan(s, &c->tiles);
    if (!kw_conv_weights_plan(s, &c->weights))
        return false;
    lay_tables(c, s);
    kw_conv_weights_layout(&c->weights, at[0], at[1], at[2], at[3]);
    c->layout.size = (size_t)(c->weights.panels * c->weights.panel_size);
    return true;
}

static bool set_up_dnn(kw_conv *c, const kw_conv_shape *s)
{
    kw_pass pass = c->way == KW_CONV_FLIP ? KW_FORWARD : c->pass;
    c->dnn = kw_dnn_conv_new(s, pass, c->t, c->bias);
    c->widen = !c->dnn && c->t != KW_F32;
    if (c->widen)
        c->dnn = kw_dnn_conv_new(s, pass, KW_F32, c->bias);
    return c->dnn && kw_dnn_conv_layout(c->dnn, c->tables, &c->layout);
}

static bool set_up(kw_conv *c)
{
    kw_conv_shape turned;
    bool flip = c->pass == KW_BACKWARD_DATA && (c->way == KW_CONV_FLIP || is_tiles(c)), fine = true;
    c->turned = flip;
    if ((c->way == KW_CONV_FLIP && !flip) || (flip && !flipped(&c->s, &turned)))
        return false;
    c->layout.type = KW_F32;
    c->widen = c->t != KW_F32;
    if (c->way == KW_CONV_LOOPS)
        loops_layout(c);
    else if (is_tiles(c))
        fine = set_up_tiles(c, flip ? &turned : &c->s);
    else
        fine = set_up_dnn(c, flip ? &turned : &c->s);
    if (fine)
        name_layout(c, flip);
    return fine;
}

static size_t own_scratch(const kw_conv *c)
{
    return c->dnn ? kw_dnn_conv_scratch_size(c->dnn)
         : !is_tiles(c) ? 0
         : c->way == KW_CONV_TILES && c->pass == KW_BACKWARD_WEIGHTS ? c->weights.scratch_size : c->tiles.scratch_size;
}

static size_t add(kw_conv *c, bool wanted, size_t bytes)
{
    size_t at = c->scratch_size;
    if (wanted)
        c->scratch_size += ALIGN(bytes);
    return at;
}

kw_status kw_conv_new_by(kw_conv_way way, const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias, kw_conv **out,
                         kw_err *e)
{
    *out = NULL;
    KW_TRY(check(s, t, e));
    size_t numbers = (size_t)s->out + (size_t)s->in + (size_t)s->kh + (size_t)s->kw;
    kw_conv *c = calloc(1, sizeof *c + numbers * sizeof c->tables[0]);
    if (!c)
        return kw_fail(e, KW_ENOMEM, "convolution: no memory");
    c->s = *s;
    c->pass = pass;
    c->t = t;
    c->bias = bias && pass != KW_BACKWARD_DATA;
    c->way = way;
    if (!set_up(c)) {
        kw_conv_free(c);
        return kw_fail(e, KW_EDEVICE, "convolution: way %d cannot do it", (int)way);
    }
    c->x_at = add(c, c->widen, (size_t)x_count(s) * 4);
    c->y_at = add(c, c->widen, (size_t)y_count(s) * 4);
    c->w_at = add(c, pass == KW_BACKWARD_WEIGHTS, c->layout.size * 4);      /* 0 for WINOGRAD */
    c->bias_at = add(c, pass == KW_FORWARD && c->bias, (size_t)s->out * 4);
    c->work_at = add(c, true, own_scratch(c));
    *out = c;
    return KW_OK;
}

/*
 * The rule, by the weight and the machine alone; TILES and WINOGRAD have one layout, so that one packed weight serves
 * every size of picture.
 *
 * AVX2 (two Zen 3 cores, f32, useful work in % of the FMA peak; PLAIN / TILES / WINOGRAD; FLIP is as PLAIN forward;
 * oneDNN in a layout of its own, with reorders around, was best for stride 2 backward alone, 61). Both cores are
 * hyperthreads of busy ones: what is bound by instructions varies by a fifth from minute to minute, WINOGRAD forward
 * between 125 and 170.
 *                                  forward          backward-data     backward-weights
 *   320 -> 320, 64^2               59 / 83 / 157    as forward        22 / 60 / 127
 *   640 -> 640, 32^2                - / 90 / 171    for TILES and     43 / 66 / 121
 *   1280 -> 1280, 16^2             72 / 91 / 167    WINOGRAD          51 / 67 / 112
 *   1280 -> 1280, 8^2              54 / 86 / 121                      29 / 48 / 70
 *   128 -> 128, 256^2              35 / 81 / 111                       - / 59 / 91
 *   512 -> 512, 128^2              42 / 75 / 145
 *   64 -> 64, 16^2 x 16            57 / 75 / 167                       - / 59 / 129
 *   32 -> 32, 128^2 x 16           79 / 67 / 111                       - / 48 / 54
 *   16 -> 16, 128^2 x 16           74 / 43 / 88                        - / 55 / 47
 *   4 -> 320, 64^2                 77 / 21 / 57                       46 /  - / 42
 *   320 -> 4, 64^2                 15 / 17 / 29                       22 / 16 / 18
 *   128 -> 3, 256^2                 9 / 13 / 18
 *   stride 2, 320 -> 320, 64^2     34 / 75 / -      52 / - / -        27 / 52 / -
 *   1 x 1, 320 -> 320, 64^2        86 / 64 / -      85 / 59 (FLIP)    71 / 42 / -
 *   1 x 1, 1280 -> 1280, 16^2      88 / 72 / -      85 / 73 (FLIP)    70 / 51 / -
 *
 * AVX-512 (Zen 5, oneDNN alone): forward on NHWC has 85-99 %, f32 backward-data 60-78 % and so is turned into a forward
 * one; backward-weights 59-92 %. bf16 likewise. TILES and WINOGRAD were not measured there.
 *
 * WINOGRAD has 1.8 times the error of the direct sum. Few channels keep the smaller one: they cost little either way, and
 * a small autoencoder's L1 loss takes a turn of its own at such a difference (after 20 steps 3e-4 from PyTorch's, not 6e-5).
 */
enum { WINOGRAD_FROM = 64 };

static kw_conv_way rule(const kw_conv_shape *s, kw_pass pass)
{
    int summed = pass == KW_FORWARD ? s->in : s->out;
    bool single = s->kh * s->kw == 1, wide = s->in >= 16 && s->out >= 16 && s->in + s->out > 32;
    bool three = s->kw == 3 && s->stride == 1;
    kw_conv_way turned = s->stride == 1 && s->in >= 8 && s->out >= 8 ? KW_CONV_FLIP : KW_CONV_PLAIN;
    if (kw_dnn_has_avx512() || single)
        return pass == KW_BACKWARD_DATA ? turned : KW_CONV_PLAIN;
    if (pass == KW_BACKWARD_WEIGHTS)
        return s->in < 8 || s->out < 8 ? KW_CONV_PLAIN
             : three && KW_MIN(s->in, s->out) >= WINOGRAD_FROM ? KW_CONV_WINOGRAD : KW_CONV_TILES;
    if (three && summed >= WINOGRAD_FROM)
        return KW_CONV_WINOGRAD;
    if (three)
        return summed >= 16 ? KW_CONV_TILES : pass == KW_BACKWARD_DATA ? turned : KW_CONV_PLAIN;
    return wide && (pass == KW_FORWARD || s->stride == 1) ? KW_CONV_TILES : KW_CONV_PLAIN;
}

kw_status kw_conv_new(const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias, kw_conv **out, kw_err *e)
{
    *out = NULL;
    KW_TRY(check(s, t, e));
    const kw_conv_way order[] = { rule(s, pass), KW_CONV_PLAIN, KW_CONV_TILES, KW_CONV_LOOPS };
    kw_status status = KW_EDEVICE;
    for (size_t i = 0; i < KW_LEN(order) && status == KW_EDEVICE; i++)
        status = kw_conv_new_by(order[i], s, pass, t, bias, out, e);
    return status;
}

void kw_conv_free(kw_conv *c)
{
    if (!c)
        return;
    kw_dnn_conv_free(c->dnn);
    free(c);
}

size_t kw_conv_packed_size(const kw_conv *c)
{
    return c->pass == KW_BACKWARD_WEIGHTS ? 0 : c->layout.size * kw_dtype_size(c->layout.type);
}

size_t kw_conv_scratch_size(const kw_conv *c) { return c->scratch_size; }
const char *kw_conv_layout(const kw_conv *c) { return c->text; }

/* ---- the weight: from the file's order to the packed one, and gradients back ----------------------------- */

/*
 * For oneDNN's layouts and the loops. Both walk in blocks of 16 outputs by 16 inputs, so that what the one side has
 * together and the other apart is still in the cache when its neighbour is needed. Within a block the taps of the
 * kernel are outermost: the packed side has each of them in a stretch of its own, often a power of two apart, and nine
 * of those at once push each other out of the first cache (5 ns a number, against 1).
 */
enum { EDGE = 16 };

typedef struct { int o, o_end, i, i_end; } block;

static block block_at(const kw_conv_shape *s, int o, int high, int i, int edge)
{
    return (block){ o, KW_MIN(s->out, o + high), i, KW_MIN(s->in, i + edge) };
}

/* from: the weights of the block's first output and input in the file's order, each output `row` numbers apart. */
static void pack_block(const kw_conv *c, block b, const float *from, int64_t row, void *packed)
{
    const kw_conv_shape *s = &c->s;
    int taps = s->kh * s->kw;
    for (int tap = 0; tap < taps; tap++)
        for (int i = b.i; i < b.i_end; i++) {
            int64_t at = c->h[tap / s->kw] + c->w[tap % s->kw] + c->i[i];
            const float *w = from + (i - b.i) * taps + tap;
            for (int o = b.o; o < b.o_end; o++, w += row)
                if (c->layout.type == KW_BF16)
                    ((uint16_t *)packed)[at + c->o[o]] = kw_f32_to_bf16(*w);
                else
                    ((float *)packed)[at + c->o[o]] = *w;
        }
}

void kw_conv_pack(const kw_conv *c, kw_dtype from, const void *weight, void *packed)
{
    const kw_conv_shape *s = &c->s;
    int64_t taps = (int64_t)s->kh * s->kw, row = s->in * taps;
    int edge = (int)KW_MAX(1, KW_MIN((int64_t)EDGE, MAX_TAPS / taps / EDGE));
    int high = (int)KW_MIN((int64_t)EDGE, MAX_TAPS / (taps * edge));          /* a block has MAX_TAPS numbers at most */
    if (is_tiles(c)) {
        kw_conv_tiles_pack(&c->tiles, from, weight, packed);
        return;
    }
    if (c->layout.size > (size_t)(s->out * row))
        memset(packed, 0, kw_conv_packed_size(c));
#pragma omp parallel for schedule(static)
    for (int o = 0; o < s->out; o += high)
        for (int i = 0; i < s->in; i += edge) {
            float wide[MAX_TAPS];
            block b = block_at(s, o, high, i, edge);
            int64_t at = o * row + i * taps, run = (b.i_end - i) * taps;
            if (from == KW_F32) {
                pack_block(c, b, (const float *)weight + at, row, packed);
                continue;
            }
            for (int k = o; k < b.o_end; k++)
                kw_widen_part(wide + (k - o) * run, from, weight, s->out, row, k, i * taps, run);
            pack_block(c, b, wide, run, packed);
        }
}

static void unpack_block(const kw_conv *c, block b, const float *packed, float *dw, int64_t row)
{
    const kw_conv_shape *s = &c->s;
    int taps = s->kh * s->kw;
    for (int tap = 0; tap < taps; tap++)
        for (int i = b.i; i < b.i_end; i++) {
            int64_t at = c->h[tap / s->kw] + c->w[tap % s->kw] + c->i[i];
            float *w = dw + (i - b.i) * taps + tap;
            for (int o = b.o; o < b.o_end; o++, w += row)
                *w = packed[at + c->o[o]];
        }
}

static void unpack_gradient(const kw_conv *c, const float *packed, float *dw)
{
    const kw_conv_shape *s = &c->s;
    int64_t taps = (int64_t)s->kh * s->kw, row = s->in * taps;
#pragma omp parallel for schedule(static)
    for (int o = 0; o < s->out; o += EDGE)
        for (int i = 0; i < s->in; i += EDGE)
            unpack_block(c, block_at(s, o, EDGE, i, EDGE), packed, dw + o * row + i * taps, row);
}

/* ---- running ------------------------------------------------------------------------------------------------- */

/* The operand itself, or its f32 copy. */
static void *widened(const kw_conv *c, const void *x, int64_t n, char *scratch, size_t at)
{
    if (!c->widen)
        return (void *)(uintptr_t)x;
    kw_widen((float *)(scratch + at), c->t, x, n);
    return scratch + at;
}

void kw_conv_forward(const kw_conv *c, const void *x, const void *packed, const float *bias, void *y, void *scratch)
{
    char *s = scratch;
    void *a = widened(c, x, x_count(&c->s), s, c->x_at), *to = c->widen ? s + c->y_at : y;
    if (c->bias && !bias)
        bias = memset(s + c->bias_at, 0, (size_t)c->s.out * 4);
    if (c->dnn)
        kw_dnn_conv_run(c->dnn, a, (void *)(uintptr_t)packed, (float *)(uintptr_t)bias, to, s + c->work_at);
    else if (is_tiles(c))
        kw_conv_tiles_forward(&c->tiles, a, packed, bias, to, s + c->work_at);
    else
        kw_conv_loops_forward(&c->s, a, packed, bias, to);
    if (c->widen)
        kw_narrow(c->t, y, to, y_count(&c->s));
}

void kw_conv_backward_data(const kw_conv *c, const void *dy, const void *packed, void *dx, void *scratch)
{
    char *s = scratch;
    void *a = widened(c, dy, y_count(&c->s), s, c->y_at), *to = c->widen ? s + c->x_at : dx,
         *w = (void *)(uintptr_t)packed;
    if (is_tiles(c))
        kw_conv_tiles_forward(&c->tiles, a, packed, NULL, to, s + c->work_at);
    else if (!c->dnn)
        kw_conv_loops_backward_data(&c->s, a, packed, to);
    else if (c->way == KW_CONV_FLIP)
        kw_dnn_conv_run(c->dnn, a, w, NULL, to, s + c->work_at);
    else
        kw_dnn_conv_run(c->dnn, to, w, NULL, a, s + c->work_at);
    if (c->widen)
        kw_narrow(c->t, dx, to, x_count(&c->s));
}

void kw_conv_backward_weights(const kw_conv *c, const void *x, const void *dy, float *dw, float *dbias, void *scratch)
{
    char *s = scratch;
    void *a = widened(c, x, x_count(&c->s), s, c->x_at), *b = widened(c, dy, y_count(&c->s), s, c->y_at);
    float *packed = (float *)(s + c->w_at);
    if (c->way == KW_CONV_WINOGRAD) {
        kw_conv_winograd_weights(&c->tiles, a, b, dw, c->bias ? dbias : NULL, s + c->work_at);
        return;
    }
    if (c->dnn)
        kw_dnn_conv_run(c->dnn, a, packed, dbias, b, s + c->work_at);
    else if (c->way == KW_CONV_TILES)
        kw_conv_weights_run(&c->weights, a, b, packed, c->bias ? dbias : NULL, s + c->work_at);
    else
        kw_conv_loops_backward_weights(&c->s, a, b, packed, c->bias ? dbias : NULL);
    unpack_gradient(c, packed, dw);
}
