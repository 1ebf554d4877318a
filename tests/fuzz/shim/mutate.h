/* SPDX-License-Identifier: MIT */
/* Mutations that know the grammar; each target has its own, and libFuzzer's blind ones come beside them. */
#ifndef MUTATE_H
#define MUTATE_H

#include <stddef.h>
#include <stdint.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size); /* libFuzzer's */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

void pick_from(unsigned seed);
uint32_t pick(uint32_t below);          /* 0 for 0 */
/* Numbers at which something changes: of an index or a size into `count` things, of ids, of any. */
uint32_t odd_number(uint32_t count);
uint32_t odd_id(void);
/* Of a caller's buffer. */
uint32_t odd_size(void);
/* A string of a field of that size: cut, without an end, with dots and capitals, or one that is asked for. */
void odd_string(char *text, uint32_t size);

#endif
