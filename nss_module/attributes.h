/* SPDX-License-Identifier: MIT */
/* The attributes of a netlink message (rtnetlink(7)). A link has forty, and six are of use: to walk them is a few
 * nanoseconds each here, and a microsecond in Python. For the extension module alone. */
#ifndef MYMACHINES_ATTRIBUTES_H
#define MYMACHINES_ATTRIBUTES_H

#include <stdint.h>

/* --- cdef begin --- */

struct attribute {
    uint32_t at;                 /* its value's first byte, counted from the start of the payload; 0: not there */
    uint32_t end;                /* the first byte behind its value */
};

/* From `at` on, those whose bit is set in `wanted`: to `found`, one for each bit, in the order of types, which are taken
 * without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER. Of a type that is there twice the last counts. 0, or -1 where
 * an attribute does not fit into what is left. */
int32_t attributes_find(const uint8_t *payload, uint32_t size, uint32_t at, uint64_t wanted, struct attribute *found);

/* --- cdef end --- */

#endif
