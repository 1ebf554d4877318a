/* SPDX-License-Identifier: MIT */
/*
 * Questions and answers: what every entry point asks, whoever answers it.
 *
 * The same structs are what the reader copies out of the table, what the shim and the daemon exchange over
 * /run/mymachines/nss.sock (one SOCK_SEQPACKET packet each way), and what the extension module gives to Python.
 *
 *     question-packet = struct question
 *     reply-packet    = struct reply_header, then, where result is ANSWER_FOUND,
 *                       struct host_answer cut behind its last address (QUESTION_HOST_*), or struct id_answer
 *
 * An answer to QUESTION_HOST_BY_ADDRESS holds one address: the one asked for. One exchange a connection. Whatever does
 * not fit this grammar is no answer: ANSWER_UNAVAILABLE.
 */
#ifndef MYMACHINES_ANSWER_H
#define MYMACHINES_ANSWER_H

#include "table.h"

/* --- cdef begin --- */

#define PACKET_LAYOUT 1          /* not the table's: a process that knows only an older table can ask the daemon */

enum question_kind {
    QUESTION_HOST_BY_NAME = 1,   /* name */
    QUESTION_HOST_BY_ADDRESS = 2, /* family, bytes */
    QUESTION_USER_BY_NAME = 3,   /* name: vu-NAME-UID */
    QUESTION_USER_BY_ID = 4,     /* id: the host's uid */
    QUESTION_GROUP_BY_NAME = 5,  /* name: vg-NAME-GID */
    QUESTION_GROUP_BY_ID = 6     /* id: the host's gid */
};

struct question {
    uint32_t layout;             /* PACKET_LAYOUT */
    uint32_t kind;               /* enum question_kind */
    uint32_t id;
    uint32_t family;
    uint8_t bytes[16];
    char name[68];               /* a zero behind it; a longer name is nobody's and is never asked */
};

enum answer_result {
    ANSWER_FOUND = 0,
    ANSWER_UNKNOWN = 1,          /* the table is whole, and this is in no machine */
    ANSWER_UNAVAILABLE = 2       /* nobody could be asked */
};

struct answer_address {
    uint32_t family;
    uint32_t scope_id;
    uint32_t flags;              /* enum address_flags */
    uint8_t bytes[16];
};

struct host_answer {
    char name[68];               /* the machine's */
    uint32_t address_count;
    struct answer_address addresses[128]; /* MACHINE_ADDRESSES_MAX */
};

struct id_answer {
    char machine[68];
    char name[32];               /* vu-NAME-UID or vg-NAME-GID, at most USER_NAME_MAX */
    uint32_t host_id;
    uint32_t inside_id;
};

struct table_name {
    char name[68];               /* in lower case, as a name_record has it */
};

struct reply_header {
    uint32_t layout;             /* PACKET_LAYOUT */
    uint32_t kind;               /* the question's */
    uint32_t result;             /* enum answer_result */
};

/* --- cdef end --- */

_Static_assert(sizeof(struct question) == 100, "the packet has no padding");
_Static_assert(sizeof(struct answer_address) == 28, "the packet has no padding");
_Static_assert(sizeof(struct id_answer) == 108, "the packet has no padding");
_Static_assert(sizeof(((struct host_answer *)0)->addresses) == 28 * MACHINE_ADDRESSES_MAX, "one limit, written twice");

#endif
