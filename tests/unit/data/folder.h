/* folder.h - in tests of the data layer: folders of files in a temporary place, small pictures, looking for remarks. */
#ifndef TEST_DATA_FOLDER_H
#define TEST_DATA_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/data.h"

typedef struct { kw_arena *arena; char dir[256]; } place;

static inline void place_open(place *p)
{
    p->arena = kw_arena_new();
    snprintf(p->dir, sizeof p->dir, "%s/kiwame-data-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(p->dir));
}

static inline void place_close(place *p)
{
    assert_int_equal(kw_remove_all(p->dir, NULL), KW_OK);
    kw_arena_free(p->arena);
}

static inline const char *path_of(place *p, const char *name) { return kw_path_join(p->arena, p->dir, name); }

static inline void put_bytes(place *p, const char *name, const void *data, size_t n)
{
    const char *path = path_of(p, name);
    assert_int_equal(kw_mkdirs(kw_path_dir(p->arena, path), NULL), KW_OK);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static inline void put_text(place *p, const char *name, const char *text) { put_bytes(p, name, text, strlen(text)); }

/* A PNG of w x h with one colour per number. */
static inline void put_picture(place *p, const char *name, int w, int h, int number)
{
    kw_picture q;
    kw_str png = { 0 };
    assert_int_equal(kw_picture_new(w, h, &q, NULL), KW_OK);
    for (int i = 0; i < w * h * 3; i++)
        q.rgb[i] = (uint8_t)(number * 37 + i % 3 * 50 + i / (3 * w));
    assert_int_equal(kw_png_encode(&q, NULL, 0, &png, NULL), KW_OK);
    put_bytes(p, name, png.s, png.n);
    kw_str_free(&png);
    kw_picture_free(&q);
}

static inline kw_dataset *scan_with(place *p, const kw_scan *o)
{
    kw_dataset *d;
    kw_err e = { 0 };
    if (kw_data_scan(p->arena, p->dir, o, &d, &e))
        fail_msg("%s", e.what);
    return d;
}

static inline kw_dataset *scan(place *p) { return scan_with(p, &(kw_scan){ 0 }); }

static inline void check(kw_dataset *d)
{
    kw_err e = { 0 };
    if (kw_data_check(d, &(kw_check){ .workers = 2, .most_bad = 0.1 }, &e))
        fail_msg("%s", e.what);
}

static inline void bucket(kw_dataset *d, int resolution)
{
    kw_err e = { 0 };
    kw_bucket_rule r = kw_bucket_rule_for(resolution, 8, 4);
    if (kw_data_buckets(d, &r, &e))
        fail_msg("%s", e.what);
}

static inline size_t n_remarks(const kw_dataset *d, kw_remark_code code)
{
    size_t n = 0;
    for (size_t i = 0; i < d->n_remarks; i++)
        n += d->remarks[i].code == code;
    return n;
}

static inline const kw_remark *remark(const kw_dataset *d, kw_remark_code code, const char *name)
{
    for (size_t i = 0; i < d->n_remarks; i++)
        if (d->remarks[i].code == code && (!name || !strcmp(d->remarks[i].name, name)))
            return &d->remarks[i];
    fail_msg("no remark %s for %s", kw_remark_name(code), name ? name : "anything");
    return NULL;
}

#endif
