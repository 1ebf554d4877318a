/* SPDX-License-Identifier: MIT */
#ifndef MYMACHINES_CLOCK_H
#define MYMACHINES_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds that only differences of are of use: they wrap after 49 days. 32 bits, so that a 32-bit program has
 * atomic access without libatomic. CLOCK_MONOTONIC_COARSE comes from the vDSO without a system call or a read of the
 * hardware's counter, and is right to a tick (4 ms or so). */
static inline uint32_t coarse_milliseconds(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC_COARSE, &now) != 0)
        return 0;
    return (uint32_t)now.tv_sec * 1000u + (uint32_t)(now.tv_nsec / 1000000);
}

#endif
