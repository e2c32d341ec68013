/* measure.h - the speed of this machine, for kiwame doctor. */
#ifndef KW_CLI_MEASURE_H
#define KW_CLI_MEASURE_H

#include "base/base.h"

typedef struct {
    int threads;
    double one, all;                      /* operations per second of f32 matrix products: one thread, all */
    double memory;                        /* bytes per second, all threads */
} kw_speed;

/* Takes about `seconds`; progress is called before the first and after each of the three measurements. */
void kw_speed_measure(kw_speed *s, double seconds, void (*progress)(void *, int done, int of), void *arg);

#endif
