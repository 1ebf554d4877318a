/* SPDX-License-Identifier: MIT */
/*
 * Inputs of the two fuzzers.
 *
 *     table-input = struct scene, a slot's bytes
 *     reply-input = struct talk, a packet's bytes
 *
 * A slot of any length makes a readable file: the header is made for it, and `header` says how it differs from what it
 * should be. Else nearly all that a fuzzer tries would be refused at the door.
 */
#ifndef SCENE_H
#define SCENE_H

#include "world.h"

#include <stddef.h>

enum { HEADER_WORDS = sizeof(struct table_header) / 4 };

struct scene {
    uint32_t question;           /* which of `questions` goes through an entry point */
    uint32_t choice, buffer_size, misaligned; /* see call_entry_point() */
    uint32_t odd_mode;           /* XORed into S_IFREG | 0644 */
    uint32_t owner;
    uint32_t odd_size;           /* added to the file's size */
    uint32_t failing_call, failing_errno;
    uint32_t turn, shows;        /* before that question a second passes, and the path shows this */
    uint32_t header[HEADER_WORDS]; /* added to the right numbers */
    struct move move;
    struct question question_asked; /* its layout is added to the right one */
};

struct talk {
    uint32_t question;
    uint32_t choice, buffer_size, misaligned;
    uint32_t failing_call, failing_errno;
    uint32_t peer, interruptions, interval, spurious, lost, mute;
    struct question question_asked;
};

/* How many differ from what they should be: of these the mutator leaves most alone. */
extern const int errors[];
extern const uint32_t error_count;

#endif
