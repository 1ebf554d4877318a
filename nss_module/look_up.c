/* SPDX-License-Identifier: MIT */
#include "look_up.h"

#include "ask.h"
#include "view.h"

#include <errno.h>
#include <string.h>

#define STRING_OF(number) #number
#define STRING(number) STRING_OF(number)

static struct view table_view = {.path = "/run/mymachines/table-" STRING(TABLE_LAYOUT), .owner = 0};

bool set_question_name(struct question *question, const char *name)
{
    const size_t length = strnlen(name, sizeof question->name);

    if (length >= sizeof question->name)
        return false;
    memcpy(question->name, name, length); /* the rest is zeros already */
    return true;
}

enum answer_result look_up(const struct question *question, struct host_answer *host, struct id_answer *id)
{
    const int saved_errno = errno;
    enum answer_result result = answer_from_view(&table_view, question, host, id);

    if (result == ANSWER_UNAVAILABLE)
        result = ask_daemon(question, host, id);
    errno = saved_errno;
    return result;
}

enum nss_status id_not_found(enum answer_result result, int *errnop)
{
    *errnop = ENOENT;
    return result == ANSWER_UNKNOWN ? NSS_STATUS_NOTFOUND : NSS_STATUS_UNAVAIL;
}

enum nss_status buffer_too_small(int *errnop)
{
    *errnop = ERANGE;
    return NSS_STATUS_TRYAGAIN;
}
