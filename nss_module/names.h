/* SPDX-License-Identifier: MIT */
/* What processes that serve names ask of a view, besides single answers: all names, and whether anything has changed.
 * For the extension module alone; the shim asks neither. */
#ifndef MYMACHINES_NAMES_H
#define MYMACHINES_NAMES_H

#include "view.h"

#include <stdbool.h>

/* --- cdef begin --- */

struct generation {
    uint64_t inode;              /* of the table's file; 0 where there is no table */
    uint32_t done;               /* its publications */
    uint32_t zero;
};

/* Which table it is now. Two that are equal: every look-up between them gave the same. */
void view_generation(struct view *view, struct generation *generation);

/* Whether it is another one than `generation`, which becomes the one that it is. */
bool view_changed(struct view *view, struct generation *generation);

/* Waits until the generation is another than this one, or for that long. It blocks in the kernel, on one word of the
 * table (futex(2)): a change of the path alone is not noticed before the time is over. */
void view_wait(struct view *view, const struct generation *generation, uint32_t milliseconds);

/* All names of hosts, aliases included, in no order: at most `capacity` of them are written, `count` is how many there
 * are. ANSWER_FOUND, or ANSWER_UNAVAILABLE as of answer_from_view(). */
enum answer_result names_from_view(struct view *view, struct table_name *names, uint32_t capacity, uint32_t *count);

/* --- cdef end --- */

#endif
