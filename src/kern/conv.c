/*
 * conv.c - kw_conv: which way to compute a convolution, how its weight lies, and what surrounds the computation.
 *
 * Where the machine has no bf16 products (AVX512-BF16), bf16 activations are widened to f32 in scratch, the
 * result is rounded, and the packed weight is f32.
 *
 * scratch:  [x as f32] [y as f32] [packed dw] [a bias of zeros] [the way's own]
 */
#include "conv.h"
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN(n) (((n) + 63) & ~(size_t)63)

struct kw_conv {
    kw_conv_shape s;
    kw_pass pass;
    kw_dtype t;
    bool bias, widen;                     /* widen: t is BF16 but the way works in f32 */
    kw_conv_way way;
    kw_dnn_conv *dnn;                     /* NULL: loops */
    kw_dnn_layout layout;
    const int64_t *o, *i, *h, *w;         /* where element (o, i, h, w) of the file lies: o[] + i[] + h[] + w[] */
    char text[192];
    size_t x_at, y_at, w_at, bias_at, work_at, scratch_size;
    int64_t tables[];                     /* out + in + kh + kw */
};

int kw_conv_out_h(const kw_conv_shape *s) { return (s->h + s->pad_top + s->pad_bottom - s->kh) / s->stride + 1; }
int kw_conv_out_w(const kw_conv_shape *s) { return (s->w + s->pad_left + s->pad_right - s->kw) / s->stride + 1; }
kw_conv_way kw_conv_chosen(const kw_conv *c) { return c->way; }
const char *kw_conv_implementation(const kw_conv *c) { return c->dnn ? kw_dnn_conv_implementation(c->dnn) : "loops"; }

static int64_t x_count(const kw_conv_shape *s) { return (int64_t)s->n * s->h * s->w * s->in; }
static int64_t y_count(const kw_conv_shape *s) { return (int64_t)s->n * kw_conv_out_h(s) * kw_conv_out_w(s) * s->out; }

/* ---- making ------------------------------------------------------------------------------------------ */

static kw_status check(const kw_conv_shape *s, kw_dtype t, kw_err *e)
{
    if (t != KW_F32 && t != KW_BF16)
        return kw_fail(e, KW_EUSAGE, "convolution: type %s instead of F32 or BF16", kw_dtype_name(t));
    if (s->n < 1 || s->h < 1 || s->w < 1 || s->in < 1 || s->out < 1 || s->kh < 1 || s->kw < 1 || s->stride < 1)
        return kw_fail(e, KW_EUSAGE, "convolution: a size of %d x %d x %d x %d -> %d, kernel %d x %d, stride %d is not positive",
                       s->n, s->h, s->w, s->in, s->out, s->kh, s->kw, s->stride);
    if (KW_MIN(s->pad_top, s->pad_left) < 0 || KW_MIN(s->pad_bottom, s->pad_right) < 0)
        return kw_fail(e, KW_EUSAGE, "convolution: negative padding");
    if (s->h + s->pad_top + s->pad_bottom < s->kh || s->w + s->pad_left + s->pad_right < s->kw)
        return kw_fail(e, KW_EUSAGE, "convolution: a kernel of %d x %d is larger than the padded picture of %d x %d", s->kh, s->kw,
                       s->h + s->pad_top + s->pad_bottom, s->w + s->pad_left + s->pad_right);
    return KW_OK;
}

/*  dx = conv(dy, weight with in and out swapped and turned by half a turn), padded with what the kernel reaches beyond  */
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

/* The library's layout of the weight in terms of the file's (o, i, h, w). */
static bool learn_layout(kw_conv *c)
{
    bool flip = c->way == KW_CONV_FLIP;
    if (!kw_dnn_conv_layout(c->dnn, c->tables, &c->layout))
        return false;
    c->o = c->layout.at[flip ? 1 : 0];
    c->i = c->layout.at[flip ? 0 : 1];
    c->h = c->layout.at[2];
    c->w = c->layout.at[3];
    if (flip) {
        reverse(c->layout.at[2], c->s.kh);
        reverse(c->layout.at[3], c->s.kw);
    }
    snprintf(c->text, sizeof c->text, "%s%s", flip ? "turned " : "", c->layout.text);
    return true;
}

/*  (out, kh, kw, in)  */
static void loops_layout(kw_conv *c)
{
    const kw_conv_shape *s = &c->s;
    int64_t *t = c->tables;
    int count[4] = { s->out, s->in, s->kh, s->kw };
    int64_t step[4] = { (int64_t)s->kh * s->kw * s->in, 1, (int64_t)s->kw * s->in, s->in };
    for (int k = 0; k < 4; k++) {
        c->layout.at[k] = t;
        for (int j = 0; j < count[k]; j++)
            *t++ = j * step[k];
    }
    c->o = c->layout.at[0], c->i = c->layout.at[1], c->h = c->layout.at[2], c->w = c->layout.at[3];
    c->layout.type = KW_F32;
    c->layout.size = (size_t)(s->out * step[0]);
    snprintf(c->text, sizeof c->text, "F32 loops %d %d %d %d", s->out, s->in, s->kh, s->kw);
}

static bool set_up(kw_conv *c)
{
    kw_conv_shape f;
    switch (c->way) {
    case KW_CONV_LOOPS:
        loops_layout(c);
        c->widen = c->t != KW_F32;
        return true;
    case KW_CONV_FLIP:
        if (c->pass != KW_BACKWARD_DATA || !flipped(&c->s, &f))
            return false;
        break;
    default:
        f = c->s;
    }
    kw_pass pass = c->way == KW_CONV_FLIP ? KW_FORWARD : c->pass;
    c->dnn = kw_dnn_conv_new(&f, pass, c->t, c->bias, c->way == KW_CONV_BLOCKED);
    if (!c->dnn && c->t != KW_F32) {
        c->widen = true;
        c->dnn = kw_dnn_conv_new(&f, pass, KW_F32, c->bias, c->way == KW_CONV_BLOCKED);
    }
    return c->dnn && learn_layout(c);
}

static size_t add(kw_conv *c, bool wanted, size_t bytes)
{
    size_t at = c->scratch_size;
    if (wanted)
        c->scratch_size += ALIGN(bytes);
    return at;
}

kw_status kw_conv_new_by(kw_conv_way way, const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias, kw_conv **out, kw_err *e)
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
    c->w_at = add(c, pass == KW_BACKWARD_WEIGHTS, c->layout.size * 4);
    c->bias_at = add(c, pass == KW_FORWARD && c->bias, (size_t)s->out * 4);
    c->work_at = add(c, c->dnn, c->dnn ? kw_dnn_conv_scratch_size(c->dnn) : 0);
    *out = c;
    return KW_OK;
}

kw_status kw_conv_new(const kw_conv_shape *s, kw_pass pass, kw_dtype t, bool bias, kw_conv **out, kw_err *e)
{
    static const kw_conv_way order[] = { KW_CONV_PLAIN, KW_CONV_BLOCKED, KW_CONV_LOOPS };
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

/* A run of n weights of output channel o, beginning with number j of its (in, kh, kw). */
static void pack_run(const kw_conv *c, int o, int64_t j, int64_t n, const float *from, void *packed)
{
    int kh = c->s.kh, kw = c->s.kw;
    int i = (int)(j / (kh * kw)), h = (int)(j / kw % kh), w = (int)(j % kw);
    for (const float *end = from + n; from < end; from++) {
        int64_t at = c->o[o] + c->i[i] + c->h[h] + c->w[w];
        if (c->layout.type == KW_BF16)
            ((uint16_t *)packed)[at] = kw_f32_to_bf16(*from);
        else
            ((float *)packed)[at] = *from;
        if (++w == kw) {
            w = 0;
            if (++h == kh) {
                h = 0;
                i++;
            }
        }
    }
}

void kw_conv_pack(const kw_conv *c, kw_dtype from, const void *weight, void *packed)
{
    enum { ROOM = 512 };
    int64_t filter = (int64_t)c->s.in * c->s.kh * c->s.kw;
    if (c->layout.size > (size_t)(c->s.out * filter))
        memset(packed, 0, kw_conv_packed_size(c));
#pragma omp parallel for schedule(static, 16)
    for (int o = 0; o < c->s.out; o++) {
        const char *row = (const char *)weight + (size_t)(o * filter) * kw_dtype_size(from);
        for (int64_t j = 0; j < filter; j += ROOM) {
            float wide[ROOM];
            int64_t n = KW_MIN(filter - j, (int64_t)ROOM);
            kw_run_widen(wide, from, row + (size_t)j * kw_dtype_size(from), n);
            pack_run(c, o, j, n, wide, packed);
        }
    }
}

static void unpack_gradient(const kw_conv *c, const float *packed, float *dw)
{
    const kw_conv_shape *s = &c->s;
#pragma omp parallel for schedule(static, 16)
    for (int o = 0; o < s->out; o++) {
        float *to = dw + (int64_t)o * s->in * s->kh * s->kw;
        for (int i = 0; i < s->in; i++)
            for (int h = 0; h < s->kh; h++)
                for (int w = 0; w < s->kw; w++)
                    *to++ = packed[c->o[o] + c->i[i] + c->h[h] + c->w[w]];
    }
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
    else
        kw_conv_loops_forward(&c->s, a, packed, bias, to);
    if (c->widen)
        kw_narrow(c->t, y, to, y_count(&c->s));
}

void kw_conv_backward_data(const kw_conv *c, const void *dy, const void *packed, void *dx, void *scratch)
{
    char *s = scratch;
    void *a = widened(c, dy, y_count(&c->s), s, c->y_at), *to = c->widen ? s + c->x_at : dx, *w = (void *)(uintptr_t)packed;
    if (!c->dnn)
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
    if (c->dnn)
        kw_dnn_conv_run(c->dnn, a, packed, dbias, b, s + c->work_at);
    else
        kw_conv_loops_backward_weights(&c->s, a, b, packed, c->bias ? dbias : NULL);
    unpack_gradient(c, packed, dw);
}
