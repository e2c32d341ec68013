/*
 * conv_loops.c - convolution as it is written in books, for the shapes that oneDNN refuses, and to compare with.
 *
 *     y[n][r][q][o] = bias[o]
 *                   + sum over h, w, i of weight[o][h][w][i] * x[n][r*stride + h - top][q*stride + w - left][i]
 *
 * The weight lies as (out, kh, kw, in), so that the innermost loop runs over neighbours.
 */
#include "conv.h"

#include <string.h>

/*  the kernel rows h for which r*stride + h - pad is a row of the picture  */
static void range(int r, int stride, int pad, int kernel, int size, int *first, int *end)
{
    int start = r * stride - pad;
    *first = start < 0 ? KW_MIN(-start, kernel) : 0;
    *end = KW_MAX(*first, KW_MIN(kernel, size - start));
}

/* Row of `in` channels that kernel position (h, w) of output pixel (n, r, q) sees. */
static size_t pixel(const kw_conv_shape *s, int n, int r, int q, int h, int w)
{
    int row = r * s->stride + h - s->pad_top, column = q * s->stride + w - s->pad_left;
    return (((size_t)n * (size_t)s->h + (size_t)row) * (size_t)s->w + (size_t)column) * (size_t)s->in;
}

static const float *taps(const kw_conv_shape *s, const float *weight, int o, int h, int w)
{
    return weight + (((size_t)o * (size_t)s->kh + (size_t)h) * (size_t)s->kw + (size_t)w) * (size_t)s->in;
}

static float dot(const float *a, const float *b, int n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void axpy(float a, const float *x, float *y, int n)
{
#pragma omp simd
    for (int i = 0; i < n; i++)
        y[i] += a * x[i];
}

void kw_conv_loops_forward(const kw_conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    int oh = kw_conv_out_h(s), ow = kw_conv_out_w(s);
#pragma omp parallel for collapse(2) schedule(static)
    for (int n = 0; n < s->n; n++)
        for (int r = 0; r < oh; r++)
            for (int q = 0; q < ow; q++) {
                float *to = y + (((size_t)n * (size_t)oh + (size_t)r) * (size_t)ow + (size_t)q) * (size_t)s->out;
                int h0, h1, w0, w1;
                range(r, s->stride, s->pad_top, s->kh, s->h, &h0, &h1);
                range(q, s->stride, s->pad_left, s->kw, s->w, &w0, &w1);
                for (int o = 0; o < s->out; o++) {
                    float sum = bias ? bias[o] : 0;
                    for (int h = h0; h < h1; h++)
                        for (int v = w0; v < w1; v++)
                            sum += dot(taps(s, w, o, h, v), x + pixel(s, n, r, q, h, v), s->in);
                    to[o] = sum;
                }
            }
}

void kw_conv_loops_backward_data(const kw_conv_shape *s, const float *dy, const float *w, float *dx)
{
    int oh = kw_conv_out_h(s), ow = kw_conv_out_w(s);
    size_t picture = (size_t)s->h * (size_t)s->w * (size_t)s->in;
#pragma omp parallel for schedule(static)
    for (int n = 0; n < s->n; n++) {
        memset(dx + (size_t)n * picture, 0, picture * sizeof *dx);
        for (int r = 0; r < oh; r++)
            for (int q = 0; q < ow; q++) {
                const float *from =
                    dy + (((size_t)n * (size_t)oh + (size_t)r) * (size_t)ow + (size_t)q) * (size_t)s->out;
                int h0, h1, w0, w1;
                range(r, s->stride, s->pad_top, s->kh, s->h, &h0, &h1);
                range(q, s->stride, s->pad_left, s->kw, s->w, &w0, &w1);
                for (int o = 0; o < s->out; o++)
                    for (int h = h0; h < h1; h++)
                        for (int v = w0; v < w1; v++)
                            axpy(from[o], taps(s, w, o, h, v), dx + pixel(s, n, r, q, h, v), s->in);
            }
    }
}

void kw_conv_loops_backward_weights(const kw_conv_shape *s, const float *x, const float *dy, float *dw, float *dbias)
{
    int oh = kw_conv_out_h(s), ow = kw_conv_out_w(s);
    size_t filter = (size_t)s->kh * (size_t)s->kw * (size_t)s->in;
#pragma omp parallel for schedule(static)
    for (int o = 0; o < s->out; o++) {
        double sum = 0;
        memset(dw + (size_t)o * filter, 0, filter * sizeof *dw);
        for (int n = 0; n < s->n; n++)
            for (int r = 0; r < oh; r++)
                for (int q = 0; q < ow; q++) {
                    float d = dy[(((size_t)n * (size_t)oh + (size_t)r) * (size_t)ow + (size_t)q) * (size_t)s->out +
                                 (size_t)o];
                    int h0, h1, w0, w1;
                    range(r, s->stride, s->pad_top, s->kh, s->h, &h0, &h1);
                    range(q, s->stride, s->pad_left, s->kw, s->w, &w0, &w1);
                    sum += (double)d;
                    for (int h = h0; h < h1; h++)
                        for (int v = w0; v < w1; v++)
                            axpy(d, x + pixel(s, n, r, q, h, v), dw + (taps(s, dw, o, h, v) - dw), s->in);
                }
        if (dbias)
            dbias[o] = (float)sum;
    }
}
