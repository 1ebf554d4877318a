/* SPDX-License-Identifier: MIT */
/* An IPv4 address is added to an interface or removed, by rtnetlink(7). */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* KIND is RTM_NEWADDR or RTM_DELADDR; `address` in network order. Returns 0, or a negative error number. */
static int change_address(int kernel, int kind, unsigned index, uint32_t address, uint8_t prefix)
{
    const int flags = NLM_F_REQUEST | NLM_F_ACK | (kind == RTM_NEWADDR ? NLM_F_CREATE | NLM_F_EXCL : 0);
    struct {
        struct nlmsghdr header;
        struct ifaddrmsg body;
        struct {
            struct rtattr header;
            uint32_t address;
        } attributes[2];
    } message = {
        {sizeof message, (uint16_t)kind, (uint16_t)flags, 1, 0},
        {AF_INET, prefix, 0, 0, index},
        {{{RTA_LENGTH(4), IFA_LOCAL}, address}, {{RTA_LENGTH(4), IFA_ADDRESS}, address}},
    };
    char reply[4096];
    int error = -EIO;

    if (send(kernel, &message, sizeof message, 0) == (ssize_t)sizeof message &&
        recv(kernel, reply, sizeof reply, 0) >= (ssize_t)NLMSG_LENGTH(sizeof error))
        memcpy(&error, reply + NLMSG_HDRLEN, sizeof error);
    return error;
}
