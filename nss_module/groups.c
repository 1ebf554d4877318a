/* SPDX-License-Identifier: MIT */
/* glibc's entry points for groups. Memberships are the container's own business: gr_mem is always empty. */
#include "look_up.h"
#include "pack.h"

static enum nss_status give_group(const struct question *question, struct group *group, char *buffer, size_t size,
                                  int *errnop)
{
    struct id_answer answer;
    const enum answer_result result = look_up(question, NULL, &answer);

    if (result != ANSWER_FOUND)
        return id_not_found(result, errnop);
    return pack_group(&answer, group, buffer, size) ? NSS_STATUS_SUCCESS : buffer_too_small(errnop);
}

ENTRY_POINT _nss_mymachines_getgrnam_r(const char *name, struct group *group, char *buffer, size_t size, int *errnop)
{
    struct question question = {.layout = PACKET_LAYOUT, .kind = QUESTION_GROUP_BY_NAME};

    if (!set_question_name(&question, name))
        return id_not_found(ANSWER_UNKNOWN, errnop);
    return give_group(&question, group, buffer, size, errnop);
}

ENTRY_POINT _nss_mymachines_getgrgid_r(gid_t gid, struct group *group, char *buffer, size_t size, int *errnop)
{
    const struct question question = {.layout = PACKET_LAYOUT, .kind = QUESTION_GROUP_BY_ID, .id = gid};

    return give_group(&question, group, buffer, size, errnop);
}
