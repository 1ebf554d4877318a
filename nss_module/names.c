/* SPDX-License-Identifier: MIT */
#include "names.h"

#include "slot.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef SYS_futex_time64          /* 32-bit programs, whose struct timespec is of 64 bits here (_TIME_BITS) */
#define FUTEX_CALL SYS_futex_time64
#else
#define FUTEX_CALL SYS_futex
#endif

#define LIST_ATTEMPTS 16         /* listing takes longer than one look-up, and two publications may well come between */

void view_generation(struct view *view, struct generation *generation)
{
    const struct map *map = view_map(view);

    *generation = (struct generation){0};
    if (map == NULL)
        return;
    generation->done = __atomic_load_n(&map->header->done, __ATOMIC_ACQUIRE);
    generation->inode = map->inode;
}

bool view_changed(struct view *view, struct generation *generation)
{
    const struct generation before = *generation;

    view_generation(view, generation);
    return memcmp(&before, generation, sizeof before) != 0;
}

void view_wait(struct view *view, const struct generation *generation, uint32_t milliseconds)
{
    const struct map *map = view_map(view);
    const struct timespec patience = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};

    if (map == NULL) {
        nanosleep(&patience, NULL);
        return;
    }
    if (map->inode != generation->inode)
        return;
    /* Where the map is let go of meanwhile, the word is 0 and belongs to nobody: then the time ends the wait. */
    syscall(FUTEX_CALL, &map->header->done, FUTEX_WAIT, generation->done, &patience, NULL, 0);
}

enum answer_result names_from_view(struct view *view, struct table_name *names, uint32_t capacity, uint32_t *count)
{
    for (int attempt = 0; attempt < LIST_ATTEMPTS; attempt++) {
        const struct map *map = view_map(view);

        if (map == NULL)
            return ANSWER_UNAVAILABLE;

        const struct table_header *header = map->header;
        const uint32_t done = __atomic_load_n(&header->done, __ATOMIC_ACQUIRE);
        const struct slot slot = {(const uint8_t *)header + map->slot_offset[done % TABLE_SLOTS], map->slot_size};
        const enum answer_result result = slot_list_names(&slot, names, capacity, count);

        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&header->begun, __ATOMIC_RELAXED) - done < TABLE_SLOTS &&
            __atomic_load_n(&header->layout, __ATOMIC_RELAXED) == TABLE_LAYOUT)
            return result;
    }
    return ANSWER_UNAVAILABLE;
}
