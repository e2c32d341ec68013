/*
 * isa.h - include it in a test that should obey KIWAME_ISA, as the program does: everything that computes is held to
 * that instruction set before main.
 */
#ifndef TESTS_ISA_H
#define TESTS_ISA_H

#include "kern/kern.h"

#include <stdio.h>
#include <stdlib.h>

__attribute__((constructor)) static void obey_kiwame_isa(void)
{
    const char *isa = getenv("KIWAME_ISA");
    kw_err e = { 0 };
    if (!isa || !*isa || !kw_isa_choose(isa, &e))
        return;
    fprintf(stderr, "KIWAME_ISA: %s\n", e.what);
    exit(2);
}

#endif
