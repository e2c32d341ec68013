/*
 * tensorboard.c - TensorBoard's event files: a little protobuf in framed records.
 * Formats: TensorFlow's core/util/event.proto, core/framework/summary.proto, core/lib/io/record_writer.cc.
 */
#include "events.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- protobuf: (field << 3 | wire type), then a varint, 4 or 8 bytes, or a length and bytes ---------------------- */

enum { VARINT = 0, EIGHT = 1, BYTES = 2, FOUR = 5 };

static void varint(kw_str *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        kw_str_add_n(b, &(char){ (char)(v | 0x80) }, 1);
    kw_str_add_n(b, &(char){ (char)v }, 1);
}

static void key(kw_str *b, int field, int type) { varint(b, (uint64_t)(field << 3 | type)); }

static void little(kw_str *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        kw_str_add_n(b, &(char){ (char)(v >> 8 * i) }, 1);
}

static void number(kw_str *b, int field, uint64_t v)
{
    key(b, field, VARINT);
    varint(b, v);
}

static void bytes(kw_str *b, int field, const void *p, size_t n)
{
    key(b, field, BYTES);
    varint(b, n);
    kw_str_add_n(b, p, n);
}

static void eight(kw_str *b, int field, double v)
{
    union { double f; uint64_t u; } bits = { v };
    key(b, field, EIGHT);
    little(b, bits.u, 8);
}

static void four(kw_str *b, int field, float v)
{
    union { float f; uint32_t u; } bits = { v };
    key(b, field, FOUR);
    little(b, bits.u, 4);
}

/* A message inside another: its bytes are made first, since its length comes before it. */
static void inside(kw_str *b, int field, kw_str *message)
{
    bytes(b, field, message->s, message->n);
    b->failed |= message->failed;
    kw_str_free(message);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

static uint32_t masked(const void *p, size_t n)
{
    uint32_t c = kw_crc32c(0, p, n);
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

static void record(kw_str *out, kw_str *event)
{
    size_t at = out->n;
    little(out, event->n, 8);
    if (!out->failed)
        little(out, masked(out->s + at, 8), 4);
    kw_str_add_n(out, event->s, event->n);
    little(out, masked(event->s, event->n), 4);
    out->failed |= event->failed;
    kw_str_free(event);
}

void kw_tensorboard_version(kw_str *out, double time)
{
    kw_str event = { 0 };
    eight(&event, 1, time);
    bytes(&event, 3, "brain.Event:2", 13);
    record(out, &event);
}

/* Event { wall_time, step, summary { value } }; step 0 is protobuf's default and left out. */
static void summary(kw_str *out, double time, int64_t step, kw_str *value)
{
    kw_str event = { 0 }, all = { 0 };
    inside(&all, 1, value);
    eight(&event, 1, time);
    if (step)
        number(&event, 2, (uint64_t)step);
    inside(&event, 5, &all);
    record(out, &event);
}

void kw_tensorboard_scalar(kw_str *out, double time, int64_t step, const char *tag, double v)
{
    kw_str value = { 0 };
    bytes(&value, 1, tag, strlen(tag));
    four(&value, 2, (float)v);
    summary(out, time, step, &value);
}

void kw_tensorboard_image(kw_str *out, double time, int64_t step, const char *tag, int w, int h, const void *png,
                          size_t n)
{
    kw_str value = { 0 }, image = { 0 };
    number(&image, 1, (uint64_t)h);
    number(&image, 2, (uint64_t)w);
    number(&image, 3, 3);                                          /* RGB */
    bytes(&image, 4, png, n);
    bytes(&value, 1, tag, strlen(tag));
    inside(&value, 4, &image);
    summary(out, time, step, &value);
}

/* ---- events under kohya's tags ----------------------------------------------------------------------------------- */

static void scalar(kw_str *out, const kw_event *v, const char *tag, double x)
{
    if (isfinite(x))
        kw_tensorboard_scalar(out, v->time, v->step, tag, x);
}

static void step(kw_str *out, const kw_event *v)
{
    static const char *const rates[KW_EVENT_RATES] = { "lr/unet", "lr/textencoder", "lr/vae" };
    scalar(out, v, "loss/current", v->loss);
    scalar(out, v, "loss/average", v->average);
    for (int i = 0; i < KW_EVENT_RATES; i++)
        if (v->rate[i] >= 0)
            scalar(out, v, rates[i], v->rate[i]);
    scalar(out, v, "norm/avg_grad_norm", v->norm);
}

/* Width and height stand in the first chunk: signature (8), length and "IHDR" (8), w, h as big-endian u32. */
static bool png_size(const void *png, size_t n, int *w, int *h)
{
    const unsigned char *p = png;
    if (n < 33 || memcmp(p, "\x89PNG\r\n\x1a\n", 8) || memcmp(p + 12, "IHDR", 4) || p[16] || p[17] || p[20] || p[21])
        return false;                                              /* none, or a side over 65535 */
    *w = p[18] << 8 | p[19];
    *h = p[22] << 8 | p[23];
    return *w && *h;
}

static void sample(kw_str *out, const kw_event *v, const void *png, size_t n)
{
    char tag[32];
    int w, h;
    snprintf(tag, sizeof tag, "samples/%02lld", (long long)v->index);
    if (png && png_size(png, n, &w, &h))
        kw_tensorboard_image(out, v->time, v->step, tag, w, h, png, n);
}

void kw_tensorboard_event(kw_str *out, const kw_event *v, const void *png, size_t n)
{
    if (v->kind == KW_EVENT_STEP)
        step(out, v);
    if (v->kind == KW_EVENT_VALIDATION) {
        scalar(out, v, v->epoch_end ? "loss/validation/epoch_average" : "loss/validation/step_average", v->loss);
        scalar(out, v, "loss/validation/base", v->base);
    }
    if (v->kind == KW_EVENT_SAMPLE)
        sample(out, v, png, n);
}
