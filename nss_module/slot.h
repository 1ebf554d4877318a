/* SPDX-License-Identifier: MIT */
/*
 * Check and find inside one mapped slot: pure functions over (base, size).
 *
 * The slot is hostile until the counters have been looked at again, and may be even then: a writer may be in it, a disk
 * or a bug may have damaged it. So each offset, capacity, index and string is checked against the slot where it is
 * used, each number is loaded once, and each walk is bounded. What these functions give is
 *
 *     ANSWER_FOUND          it is there
 *     ANSWER_UNKNOWN        it is not there
 *     ANSWER_UNAVAILABLE    the slot contradicts its grammar
 *
 * and only the caller, who holds the counters, can tell whether to believe it.
 */
#ifndef MYMACHINES_SLOT_H
#define MYMACHINES_SLOT_H

#include "answer.h"

#include <stdbool.h>

#define ID_LAST 4294967294u  /* (uid_t) -1 is no id: chown(2), setresuid(2) */
#define HOST_KINDS (1u << NAME_MACHINE | 1u << NAME_ALIAS)

struct slot {
    const uint8_t *base;     /* aligned to four bytes at least */
    uint32_t size;
};

/* kinds: a set of 1u << enum name_kind. The name is in lower case, at most MACHINE_NAME_MAX, a zero behind it. */
enum answer_result slot_find_name(const struct slot *slot, const char *name, uint32_t length, unsigned kinds,
                                  uint32_t *machine);
/* The answer holds that one address then, and else anything. */
enum answer_result slot_find_address(const struct slot *slot, uint32_t family, const uint8_t *bytes,
                                     struct host_answer *answer, uint32_t *machine);
enum answer_result slot_find_id(const struct slot *slot, bool group, uint32_t host_id, uint32_t *machine,
                                uint32_t *inside_id);

/* All names of HOST_KINDS: at most `capacity` are written, `count` is how many there are. */
enum answer_result slot_list_names(const struct slot *slot, struct table_name *listed, uint32_t capacity,
                                   uint32_t *count);

enum answer_result slot_host_id(const struct slot *slot, bool group, uint32_t machine, uint32_t inside_id,
                                uint32_t *host_id);
enum answer_result slot_copy_name(const struct slot *slot, uint32_t machine, char name[68]);
enum answer_result slot_copy_label(const struct slot *slot, uint32_t machine, char label[20]);
enum answer_result slot_copy_addresses(const struct slot *slot, uint32_t machine, struct host_answer *answer);

#endif
