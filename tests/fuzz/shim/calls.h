/* SPDX-License-Identifier: MIT */
/* The shim, called: by its one look-up, and by glibc's entry points with a buffer of any size at any alignment. */
#ifndef CALLS_H
#define CALLS_H

#include "judge.h"

/* What the shim says of a question, in judge.h's terms. */
void ask(const struct question *question, struct verdict *what);

/* Calls an entry point that fits the question, chosen by `choice`, with `size` bytes at `misaligned`, and looks at what it
 * gives: of a verdict if there is one, else only that it stays in its buffer. */
void call_entry_point(const struct question *question, uint32_t choice, uint32_t size, uint32_t misaligned,
                      const struct verdict *verdict);

#define QUESTIONS 15
/* Questions about the machines of tests/nss/tables.py; the last is left for the input. */
extern struct question questions[QUESTIONS];

#endif
