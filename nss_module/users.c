/* SPDX-License-Identifier: MIT */
/* glibc's entry points for users. There is no enumeration: `getent passwd` stays what it was. */
#include "look_up.h"
#include "pack.h"

static enum nss_status give_passwd(const struct question *question, struct passwd *passwd, char *buffer, size_t size,
                                   int *errnop)
{
    struct id_answer answer;
    const enum answer_result result = look_up(question, NULL, &answer);

    if (result != ANSWER_FOUND)
        return id_not_found(result, errnop);
    return pack_passwd(&answer, passwd, buffer, size) ? NSS_STATUS_SUCCESS : buffer_too_small(errnop);
}

ENTRY_POINT _nss_mymachines_getpwnam_r(const char *name, struct passwd *passwd, char *buffer, size_t size, int *errnop)
{
    struct question question = {.layout = PACKET_LAYOUT, .kind = QUESTION_USER_BY_NAME};

    if (!set_question_name(&question, name))
        return id_not_found(ANSWER_UNKNOWN, errnop);
    return give_passwd(&question, passwd, buffer, size, errnop);
}

ENTRY_POINT _nss_mymachines_getpwuid_r(uid_t uid, struct passwd *passwd, char *buffer, size_t size, int *errnop)
{
    const struct question question = {.layout = PACKET_LAYOUT, .kind = QUESTION_USER_BY_ID, .id = uid};

    return give_passwd(&question, passwd, buffer, size, errnop);
}
