/* The exponential function, the same to the bit on every machine: there is no C library here. */
#ifndef EDGE_MATH_H
#define EDGE_MATH_H

#include <stdint.h>

/* exp(x) within 2 units in the last place for -700 <= x <= 700; 0 below, infinity above, NaN of NaN.
 *
 * x = k ln 2 + r with |r| <= ln 2 / 2; exp(r) by its Taylor series, whose 13th term is below 2^-53
 * there; ln 2 in two parts, so that k ln 2 loses nothing (Cody and Waite, 1980). */
static inline double edge_exp(double x) {
    if (x != x) return x;
    if (x < -700) return 0;
    if (x > 700) return __builtin_inf();
    double k = __builtin_nearbyint(x * 1.4426950408889634);
    double r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
    double sum = 1;
    for (double n = 13; n >= 1; n--) sum = 1 + sum * r / n;
    union {
        uint64_t bits;
        double value;
    } power = {.bits = (uint64_t)(1023 + (int64_t)k) << 52};
    return sum * power.value;
}

#endif
