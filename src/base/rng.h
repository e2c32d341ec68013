/* rng.h - random numbers: counter-based for ourselves, and the two generators that users know. */
#ifndef KW_RNG_H
#define KW_RNG_H
#endif
