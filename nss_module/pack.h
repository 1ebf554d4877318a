/* SPDX-License-Identifier: MIT */
/*
 * Packing: answers into glibc's structs, everything that these point to into the caller's buffer. Pure. The buffer may
 * have any alignment. False: the buffer is too small, and neither struct nor *tuple has been touched.
 *
 * Constant strings go into the buffer as well: there are programs that wipe pw_passwd in place.
 */
#ifndef MYMACHINES_PACK_H
#define MYMACHINES_PACK_H

#include "answer.h"

#include <grp.h>
#include <netdb.h>
#include <nss.h>
#include <pwd.h>
#include <stdbool.h>

#define NOBODY_ID 65534

/* Addresses of the family, or of any for AF_UNSPEC. Scoped ones only with AF_UNSPEC: struct hostent has no scope id. */
uint32_t count_addresses(const struct host_answer *answer, int family);

/* family: AF_INET or AF_INET6 */
bool pack_hostent(const struct host_answer *answer, int family, struct hostent *host, char *buffer, size_t size);

/* All addresses, of which there is one at least. A first tuple that the caller provides in *tuple is used. */
bool pack_tuples(const struct host_answer *answer, struct gaih_addrtuple **tuple, char *buffer, size_t size);

bool pack_passwd(const struct id_answer *answer, struct passwd *passwd, char *buffer, size_t size);
bool pack_group(const struct id_answer *answer, struct group *group, char *buffer, size_t size);

#endif
