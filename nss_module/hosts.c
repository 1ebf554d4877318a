/* SPDX-License-Identifier: MIT */
/* glibc's entry points for hosts. A negative answer is h_errno's to tell; errno says no more than "none". */
#include "look_up.h"
#include "pack.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define TTL 0                    /* seconds: whoever wants to know again can ask again, it costs nothing */

/* Not ours, or nobody to ask: UNAVAIL, so that no configuration keeps the name from DNS. HOST_NOT_FOUND is what
 * getaddrinfo turns into "Name or service not known", should we be the last to be asked. */
static enum nss_status host_not_found(int *errnop, int *h_errnop)
{
    *errnop = ENOENT;
    *h_errnop = HOST_NOT_FOUND;
    return NSS_STATUS_UNAVAIL;
}

/* A machine, but no address of that family: NOTFOUND, on which `[NOTFOUND=return]` can act. */
static enum nss_status host_without_address(int *errnop, int *h_errnop)
{
    *errnop = ENOENT;
    *h_errnop = NO_DATA;
    return NSS_STATUS_NOTFOUND;
}

static enum nss_status host_buffer_too_small(int *errnop, int *h_errnop)
{
    *h_errnop = NETDB_INTERNAL; /* only with this does glibc look at errno */
    return buffer_too_small(errnop);
}

static enum nss_status give_hostent(const struct host_answer *answer, int family, struct hostent *host, char *buffer,
                                    size_t size, int *errnop, int *h_errnop)
{
    if (count_addresses(answer, family) == 0)
        return host_without_address(errnop, h_errnop);
    if (!pack_hostent(answer, family, host, buffer, size))
        return host_buffer_too_small(errnop, h_errnop);
    *h_errnop = NETDB_SUCCESS;
    return NSS_STATUS_SUCCESS;
}

static enum answer_result look_up_host(const char *name, struct host_answer *answer)
{
    struct question question = {.layout = PACKET_LAYOUT, .kind = QUESTION_HOST_BY_NAME};

    if (!set_question_name(&question, name))
        return ANSWER_UNKNOWN;
    return look_up(&question, answer, NULL);
}

ENTRY_POINT _nss_mymachines_gethostbyname4_r(const char *name, struct gaih_addrtuple **tuple, char *buffer, size_t size,
                                             int *errnop, int *h_errnop, int32_t *ttlp)
{
    struct host_answer answer;

    if (look_up_host(name, &answer) != ANSWER_FOUND)
        return host_not_found(errnop, h_errnop);
    if (count_addresses(&answer, AF_UNSPEC) == 0)
        return host_without_address(errnop, h_errnop);
    if (!pack_tuples(&answer, tuple, buffer, size))
        return host_buffer_too_small(errnop, h_errnop);
    if (ttlp != NULL)
        *ttlp = TTL;
    *h_errnop = NETDB_SUCCESS;
    return NSS_STATUS_SUCCESS;
}

ENTRY_POINT _nss_mymachines_gethostbyname3_r(const char *name, int family, struct hostent *host, char *buffer,
                                             size_t size, int *errnop, int *h_errnop, int32_t *ttlp, char **canonp)
{
    struct host_answer answer;

    if (family == AF_UNSPEC)
        family = AF_INET;
    if ((family != AF_INET && family != AF_INET6) || look_up_host(name, &answer) != ANSWER_FOUND)
        return host_not_found(errnop, h_errnop);

    const enum nss_status status = give_hostent(&answer, family, host, buffer, size, errnop, h_errnop);

    if (status == NSS_STATUS_SUCCESS && ttlp != NULL)
        *ttlp = TTL;
    if (status == NSS_STATUS_SUCCESS && canonp != NULL)
        *canonp = host->h_name;
    return status;
}

ENTRY_POINT _nss_mymachines_gethostbyname2_r(const char *name, int family, struct hostent *host, char *buffer,
                                             size_t size, int *errnop, int *h_errnop)
{
    return _nss_mymachines_gethostbyname3_r(name, family, host, buffer, size, errnop, h_errnop, NULL, NULL);
}

ENTRY_POINT _nss_mymachines_gethostbyname_r(const char *name, struct hostent *host, char *buffer, size_t size,
                                            int *errnop, int *h_errnop)
{
    return _nss_mymachines_gethostbyname3_r(name, AF_INET, host, buffer, size, errnop, h_errnop, NULL, NULL);
}

ENTRY_POINT _nss_mymachines_gethostbyaddr2_r(const void *address, socklen_t length, int family, struct hostent *host,
                                             char *buffer, size_t size, int *errnop, int *h_errnop, int32_t *ttlp)
{
    struct question question = {.layout = PACKET_LAYOUT, .kind = QUESTION_HOST_BY_ADDRESS, .family = (uint32_t)family};
    struct host_answer answer;

    if (!(family == AF_INET && length == 4) && !(family == AF_INET6 && length == 16))
        return host_not_found(errnop, h_errnop);
    memcpy(question.bytes, address, length);
    if (look_up(&question, &answer, NULL) != ANSWER_FOUND)
        return host_not_found(errnop, h_errnop);

    const enum nss_status status = give_hostent(&answer, family, host, buffer, size, errnop, h_errnop);

    if (status == NSS_STATUS_SUCCESS && ttlp != NULL)
        *ttlp = TTL;
    return status;
}

ENTRY_POINT _nss_mymachines_gethostbyaddr_r(const void *address, socklen_t length, int family, struct hostent *host,
                                            char *buffer, size_t size, int *errnop, int *h_errnop)
{
    return _nss_mymachines_gethostbyaddr2_r(address, length, family, host, buffer, size, errnop, h_errnop, NULL);
}
