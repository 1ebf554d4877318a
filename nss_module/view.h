/* SPDX-License-Identifier: MIT */
/* A process's view of the table at a path: which file is mapped, and whether it is still the one. */
#ifndef MYMACHINES_VIEW_H
#define MYMACHINES_VIEW_H

#include "answer.h"

/* --- cdef begin --- */

struct view;

/* A view on the heap, for the extension module only; the shim has one static view. The file must be a regular one of
 * `owner`, whom alone it lets write. NULL: no memory. */
struct view *view_new(const char *path, uint32_t owner);
/* Unmaps: the caller is the only user left. */
void view_free(struct view *view);

/* Answers out of the table. ANSWER_UNAVAILABLE where there is no table or it cannot be believed. `host` is written to
 * for QUESTION_HOST_*, up to its last address, and `id` for the others; either may be NULL where it is not needed. What
 * they hold is defined only with ANSWER_FOUND. Safe in threads, after fork, in a signal handler. */
enum answer_result answer_from_view(struct view *view, const struct question *question, struct host_answer *host,
                                    struct id_answer *id);

/* --- cdef end --- */

#include <stdbool.h>

#define TABLE_CHECK_MS 1000u     /* how old an orderly stop or a new file may be before it is noticed */

#define MAPS_AT_HAND 4           /* most processes see one file, some see it grow; each more takes memory of its own */
#define MAP_MEMORY 4096u         /* so much: a page, on most architectures */

/* What is known of a file that was mapped. Constant from when it is the view's. */
struct map {
    const struct table_header *header;
    uint64_t device;
    uint64_t inode;
    uint32_t size;               /* of the file; mmap(2) rounds it up to pages */
    uint32_t slot_offset[TABLE_SLOTS];
    uint32_t slot_size;
    bool taken;                  /* of those at hand: it is a file's, or was one's */
};

struct view {
    const char *path;
    uint32_t owner;
    uint32_t checked;            /* coarse_milliseconds() of the last look at the path */
    struct map *map;             /* NULL: no table is known */
    struct map maps[MAPS_AT_HAND];
};

/* The table that the path shows, at most TABLE_CHECK_MS ago; NULL: none. The map stays readable for ever, but the
 * caller must test the header's `layout` after it has read: a released map is all zeros. */
const struct map *view_map(struct view *view);

/* Takes away a map that nobody else uses. */
void unmap(struct map *map);

#endif
