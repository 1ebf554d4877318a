/* SPDX-License-Identifier: MIT */
#include "attributes.h"

#include <linux/netlink.h>
#include <string.h>

#define ATTRIBUTE_TYPES 64       /* those that have a bit in `wanted` */

/* How many types below this one are wanted. */
static uint32_t place_of(uint64_t wanted, uint32_t type)
{
    return (uint32_t)__builtin_popcountll(wanted & ((UINT64_C(1) << type) - 1));
}

int32_t attributes_find(const uint8_t *payload, uint32_t size, uint32_t at, uint64_t wanted, struct attribute *found)
{
    memset(found, 0, (size_t)__builtin_popcountll(wanted) * sizeof *found);
    while (at <= size && size - at >= sizeof(struct nlattr)) {
        struct nlattr header;

        memcpy(&header, payload + at, sizeof header); /* the payload may lie at any address */
        if (header.nla_len < sizeof header || header.nla_len > size - at)
            return -1;

        const uint32_t type = header.nla_type & NLA_TYPE_MASK;

        if (type < ATTRIBUTE_TYPES && (wanted >> type & 1) != 0)
            found[place_of(wanted, type)] = (struct attribute){at + (uint32_t)sizeof header, at + header.nla_len};
        at += NLA_ALIGN((uint32_t)header.nla_len);
    }
    return 0;
}
