/* SPDX-License-Identifier: MIT */
#ifndef MYMACHINES_ASK_H
#define MYMACHINES_ASK_H

#include "answer.h"

#define NSS_SOCKET_PATH "/run/mymachines/nss.sock"

/* Asks the daemon, for at most a quarter of a second. host or id as in answer_from_view(). errno is not kept. */
enum answer_result ask_daemon(const struct question *question, struct host_answer *host, struct id_answer *id);

#endif
