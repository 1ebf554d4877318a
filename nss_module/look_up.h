/* SPDX-License-Identifier: MIT */
/* What the entry points share: the question's way to an answer, and what glibc hears where there is none. */
#ifndef MYMACHINES_LOOK_UP_H
#define MYMACHINES_LOOK_UP_H

#include "answer.h"

#include <nss.h>
#include <stdbool.h>

#define ENTRY_POINT __attribute__((visibility("default"))) enum nss_status

/* False: the name is longer than any that could be known. */
bool set_question_name(struct question *question, const char *name);

/* The table, else the daemon. host or id as in answer_from_view(). errno is kept. */
enum answer_result look_up(const struct question *question, struct host_answer *host, struct id_answer *id);

/* ENOENT both for unknown and unavailable: getpwnam(3) lists it under "not found", so a program that looks at errno
 * takes a stopped daemon for what it is here, nobody of that name. */
enum nss_status id_not_found(enum answer_result result, int *errnop);

/* ERANGE, which glibc answers with a larger buffer. Nothing else may give it. */
enum nss_status buffer_too_small(int *errnop);

#endif
