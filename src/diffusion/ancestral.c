/* ancestral.c - how far an ancestral step goes down before noise lifts it again (k-diffusion's get_ancestral_step). */
#include "sampling.h"

#include <math.h>

kw_ancestral kw_ancestral_of(double from, double to, double eta)
{
    double up = fmin(to, eta * to * sqrt(fmax(from * from - to * to, 0)) / from);
    return (kw_ancestral){ .up = up, .down = sqrt(fmax(to * to - up * up, 0)) };
}
