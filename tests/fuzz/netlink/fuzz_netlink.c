/* SPDX-License-Identifier: MIT */
/* Any bytes are a datagram. It lies in memory of its very size, and so do the rows: the sanitizers see a byte read or
 * written beyond. What comes out must lie in the datagram, and it must come to an end. */
#include "netlink.h"

#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 3, CUT_MAX = 8, CUTS_ONE_IN = 8 };

/* libFuzzer's; the last is given by it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

static void check(int right, const char *what)
{
    if (!right) {
        fprintf(stderr, "wrong: %s\n", what);
        abort();
    }
}

static void check_part(struct netlink_part part, uint32_t size)
{
    check(part.at <= part.end && part.end <= size, "a part that is not of the datagram");
    check(part.at != 0 || part.end == 0, "a part that is not there, and has bytes");
}

static void check_row(const struct netlink_row *row, uint32_t size)
{
    const uint32_t address = row->address.end - row->address.at;

    check(row->body <= ROW_NEIGHBOUR, "a row of no kind");
    check(row->interrupted <= 1, "neither interrupted nor not");
    check_part(row->address, size);
    check_part(row->other, size);
    check_part(row->name, size);
    check_part(row->kind, size);
    check_part(row->port_kind, size);
    check(address == 0 || address == 4 || address == 16, "an address of another length");
    if (row->body == ROW_ADDRESS)
        check(address != 0, "no address");
    if (row->body == ROW_ROUTE)
        check(row->length <= 128, "a prefix of more bits than an address has");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *datagram = malloc(size);
    struct netlink_row *rows = malloc(ROOM * sizeof *rows);
    uint32_t at = 0;
    size_t messages = 0;

    memcpy(datagram, data, size);
    for (int32_t count = ROOM; count == ROOM; messages += count > 0 ? (size_t)count : 0) {
        const uint32_t before = at;

        count = netlink_read(datagram, (uint32_t)size, &at, rows, ROOM);
        check(count <= ROOM, "more rows than there is room for");
        check(count <= 0 || (at > before && at <= size), "it does not go on, or beyond the end");
        check(count < 0 || count == ROOM || at == size, "it ends before the end");
        for (int32_t i = 0; i < count; i++)
            check_row(&rows[i], (uint32_t)size);
    }
    check(messages * NLMSG_HDRLEN <= size, "more messages than there are headers");
    free(datagram);
    free(rows);
    return 0;
}

/* Where the last of those begins that follow each other from `at` to the end, each with its length in front, of 16 bits
 * (attributes) or 32 (messages); the end, where they do not end there. */
static size_t last_of(const uint8_t *data, size_t at, size_t size, size_t header)
{
    size_t last = size;

    while (size - at >= header) {
        const size_t length = data[at] + 256u * data[at + 1];

        if (length < header || length > size - at)
            return size;
        last = at;
        at += NLMSG_ALIGN(length) < size - at ? NLMSG_ALIGN(length) : size - at;
    }
    return last;
}

static void shorten(uint8_t *data, size_t size, size_t at)
{
    data[at] = (uint8_t)(size - at);
    data[at + 1] = (uint8_t)((size - at) >> 8);
}

/* One in some inputs has its last bytes cut off, and the lengths of its last message and attribute with them: only
 * behind the end do sanitizers see what is read of another part, and it takes three changes at once to come there. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
    static const size_t bodies[] = {0, 4, 8, 12, 16}; /* of the structs that are in front of attributes */
    const size_t cut = 1 + seed / CUTS_ONE_IN % CUT_MAX;
    const size_t body = bodies[seed / CUTS_ONE_IN / CUT_MAX % (sizeof bodies / sizeof *bodies)];

    if (seed % CUTS_ONE_IN != 0 || size <= cut)
        return LLVMFuzzerMutate(data, size, max_size);

    const size_t message = last_of(data, 0, size, NLMSG_HDRLEN);
    const size_t attributes = message + NLMSG_HDRLEN + body;
    const size_t attribute = attributes < size ? last_of(data, attributes, size, NLA_HDRLEN) : size;

    size -= cut;
    if (message + NLMSG_HDRLEN <= size)
        shorten(data, size, message);
    if (attribute + NLA_HDRLEN <= size)
        shorten(data, size, attribute);
    return size;
}
