/* measure.h - the speed of this machine, for kiwame doctor and kiwame bench. */
#ifndef KW_CLI_MEASURE_H
#define KW_CLI_MEASURE_H

#include "kern/kern.h"

typedef struct {
    int threads;
    double one, all;                      /* operations per second of f32 matrix products: one thread, all */
    double memory;                        /* bytes per second, all threads */
} kw_speed;

/* Takes about `seconds`; progress is called before the first and after each of the three measurements. */
void kw_speed_measure(kw_speed *s, double seconds, void (*progress)(void *, int done, int of), void *arg);

/* Operations per second of multiply-adds on registers alone, median over about `seconds`; 0: no such instruction. */
double kw_peak_measure(kw_peak k, int threads, double seconds);
double kw_memory_measure(int threads, double seconds);         /* bytes per second, as kw_speed.memory */

#endif
