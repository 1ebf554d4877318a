/* SPDX-License-Identifier: MIT */
#include "attributes.h"

#include <linux/netlink.h>
#include <string.h>

static struct attribute *place_for(struct attribute *found, int32_t count, uint32_t type)
{
    int32_t i = 0;

    while (i < count && found[i].type != type)
        i++;
    return &found[i];
}

int32_t attributes_find(const uint8_t *payload, uint32_t size, uint32_t at, uint64_t wanted, struct attribute *found)
{
    int32_t count = 0;

    while (at <= size && size - at >= sizeof(struct nlattr)) {
        struct nlattr header;

        memcpy(&header, payload + at, sizeof header); /* the payload may lie at any address */
        if (header.nla_len < sizeof header || header.nla_len > size - at)
            return -1;

        const uint32_t type = header.nla_type & NLA_TYPE_MASK;

        if (type < ATTRIBUTE_TYPES && (wanted >> type & 1) != 0) {
            struct attribute *place = place_for(found, count, type);

            if (place == &found[count])
                count++;
            *place = (struct attribute){type, at + (uint32_t)sizeof header, header.nla_len - (uint32_t)sizeof header};
        }
        at += NLA_ALIGN((uint32_t)header.nla_len);
    }
    return count;
}
