/* SPDX-License-Identifier: MIT */
/*
 * What a question's answer has to be: the grammar of table.h and answer.h once more, written without the reader, slowly
 * and in 64-bit numbers. The fuzzer compares every answer with it, so that a check that is lost is seen even where no
 * byte is read out of bounds for it.
 */
#ifndef JUDGE_H
#define JUDGE_H

#include "answer.h"

#include <stdbool.h>

struct verdict {
    enum answer_result result;
    struct host_answer host;     /* up to its last address */
    struct id_answer id;
};

/* Settled without a table or a daemon. False: they have to be asked. */
bool judge_question(const struct question *question, struct verdict *verdict);
/* Of a slot, for a question that judge_question() leaves open. */
void judge_slot(const uint8_t *slot, uint64_t size, const struct question *question, struct verdict *verdict);
/* Of the daemon's packet. */
void judge_reply(const uint8_t *reply, uint64_t size, const struct question *question, struct verdict *verdict);

/* Aborts where `what` differs from the verdict, and says in what. */
void compare(const struct verdict *verdict, const struct verdict *what, const struct question *question);
bool same(const struct verdict *one, const struct verdict *other, const struct question *question);
/* What holds of every answer, whatever happens to the table meanwhile. */
void check_bounds(const struct verdict *verdict, const struct question *question);
bool is_of_host(const struct question *question);

#endif
