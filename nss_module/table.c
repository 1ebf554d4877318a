/* SPDX-License-Identifier: MIT */
/* What the writer of a table needs of C: the hashes, and the order in which its counters become visible. */
#include "table.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(AF_INET == 2 && AF_INET6 == 10, "the table holds Linux' numbers");

#define FNV_OFFSET 2166136261u
#define FNV_PRIME 16777619u

/* FNV-1a alone leaves the low bits of short keys that differ in high bits alike; two rounds of shift and multiply by
 * odd numbers carry each bit into the low ones. */
static uint32_t mix(uint32_t hash)
{
    hash ^= hash >> 16;
    hash *= 0x7feb352du;
    hash ^= hash >> 15;
    hash *= 0x846ca68bu;
    return hash ^ (hash >> 16);
}

uint32_t table_hash_name(const char *name, uint32_t length)
{
    uint32_t hash = FNV_OFFSET;

    for (uint32_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)lower_case(name[i])) * FNV_PRIME;
    return mix(hash);
}

uint32_t table_hash_address(uint32_t family, const uint8_t *bytes)
{
    uint32_t hash = FNV_OFFSET;
    const uint32_t length = family == AF_INET ? 4 : 16;

    for (uint32_t i = 0; i < length; i++)
        hash = (hash ^ bytes[i]) * FNV_PRIME;
    return mix(hash);
}

uint32_t table_begin(struct table_header *header)
{
    /* From done, not from begun: where a writer was killed half-way, begun is ahead already, and counting it up once
     * more would make every reader of the whole slot take its copy for torn. */
    const uint32_t begun = __atomic_load_n(&header->done, __ATOMIC_RELAXED) + 1;

    __atomic_store_n(&header->begun, begun, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_RELEASE); /* no store into the slot is seen before begun */
    return begun % TABLE_SLOTS;
}

/* Who waits for the next publication sleeps on `done` (names.c). With nobody waiting it costs 0.2 us. */
static void wake_waiters(struct table_header *header)
{
    syscall(SYS_futex, &header->done, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void table_commit(struct table_header *header)
{
    __atomic_store_n(&header->done, __atomic_load_n(&header->begun, __ATOMIC_RELAXED), __ATOMIC_RELEASE);
    wake_waiters(header);
}

void table_retire(struct table_header *header)
{
    __atomic_store_n(&header->retired, 1, __ATOMIC_RELEASE);
    wake_waiters(header);
}
