/* SPDX-License-Identifier: MIT */
#include "netlink.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/net_namespace.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#define ATTRIBUTE_TYPES 64       /* those of use are below */

_Static_assert(IFLA_LINK_NETNSID < ATTRIBUTE_TYPES, "the last of them");

/* By their types, without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER. */
struct attributes {
    struct netlink_part of[ATTRIBUTE_TYPES];
};

/* Everything here may lie at any address, and so is copied out. */

/* The attributes that fill this part; 0 or an error. */
static int32_t find(const uint8_t *datagram, struct netlink_part part, struct attributes *found)
{
    memset(found, 0, sizeof *found);
    for (uint32_t at = part.at; at <= part.end && part.end - at >= sizeof(struct nlattr);) {
        struct nlattr header;

        memcpy(&header, datagram + at, sizeof header);
        if (header.nla_len < sizeof header || header.nla_len > part.end - at)
            return NETLINK_BAD_ATTRIBUTE;

        const uint32_t type = header.nla_type & (uint32_t)NLA_TYPE_MASK;

        if (type < ATTRIBUTE_TYPES)
            found->of[type] = (struct netlink_part){at + (uint32_t)sizeof header, at + header.nla_len};
        at += NLA_ALIGN((uint32_t)header.nla_len);
    }
    return 0;
}

/* The struct that a body begins with; what is left of the body are its attributes. 0 or an error. */
static int32_t take(const uint8_t *datagram, struct netlink_part *body, void *fixed, uint32_t size)
{
    if (body->end - body->at < size)
        return NETLINK_SHORT_BODY;
    memcpy(fixed, datagram + body->at, size);
    body->at += NLMSG_ALIGN(size);
    return 0;
}

/* An attribute's 32 bits; where it is not there, `number` stays. */
static int32_t read_number(const uint8_t *datagram, struct netlink_part part, void *number)
{
    if (part.at == 0)
        return 0;
    if (part.end - part.at < sizeof(uint32_t))
        return NETLINK_BAD_ATTRIBUTE;
    memcpy(number, datagram + part.at, sizeof(uint32_t));
    return 0;
}

/* Up to the first zero. */
static struct netlink_part text(const uint8_t *datagram, struct netlink_part part)
{
    const uint8_t *zero = part.at == 0 ? NULL : memchr(datagram + part.at, 0, part.end - part.at);

    return zero == NULL ? part : (struct netlink_part){part.at, (uint32_t)(zero - datagram)};
}

/* In bytes; 0 for families that are of no use here. */
static uint32_t address_length(uint8_t family)
{
    return family == AF_INET ? 4 : family == AF_INET6 ? 16 : 0;
}

static int32_t read_address(const uint8_t *datagram, struct netlink_part body, struct netlink_row *row)
{
    struct ifaddrmsg fixed;
    struct attributes found;
    int32_t error = take(datagram, &body, &fixed, sizeof fixed);

    if (error < 0)
        return error;
    if (address_length(fixed.ifa_family) == 0)
        return 0;
    if ((error = find(datagram, body, &found)) < 0)
        return error;
    row->body = ROW_ADDRESS;
    row->interface = (int32_t)fixed.ifa_index;
    row->family = fixed.ifa_family;
    row->length = fixed.ifa_prefixlen;
    row->state = fixed.ifa_scope;
    row->flags = fixed.ifa_flags; /* 8 bits, and flags have outgrown them */
    row->other = found.of[IFA_ADDRESS];
    /* On a point-to-point link IFA_ADDRESS is the peer's and IFA_LOCAL our own; IPv6 without a peer has IFA_ADDRESS
     * alone (the comment in linux/if_addr.h). */
    row->address = found.of[IFA_LOCAL].at != 0 ? found.of[IFA_LOCAL] : row->other;
    if (row->address.end - row->address.at != address_length(fixed.ifa_family))
        return NETLINK_BAD_ADDRESS;
    return read_number(datagram, found.of[IFA_FLAGS], &row->flags);
}

static int32_t read_link(const uint8_t *datagram, struct netlink_part body, struct netlink_row *row)
{
    struct ifinfomsg fixed;
    struct attributes found, info;
    int32_t error = take(datagram, &body, &fixed, sizeof fixed);

    if (error < 0)
        return error;
    if (fixed.ifi_family != AF_UNSPEC) /* AF_BRIDGE's RTM_DELLINK: a port left its bridge, the link is not gone */
        return 0;
    if ((error = find(datagram, body, &found)) < 0
        || (error = find(datagram, found.of[IFLA_LINKINFO], &info)) < 0)
        return error;
    row->body = ROW_LINK;
    row->interface = fixed.ifi_index;
    row->number = -1;
    row->other = found.of[IFLA_ADDRESS];
    row->name = text(datagram, found.of[IFLA_IFNAME]);
    row->kind = text(datagram, info.of[IFLA_INFO_KIND]);
    row->port_kind = text(datagram, info.of[IFLA_INFO_SLAVE_KIND]);
    if ((error = read_number(datagram, found.of[IFLA_MASTER], &row->master)) < 0
        || (error = read_number(datagram, found.of[IFLA_LINK], &row->link)) < 0)
        return error;
    return read_number(datagram, found.of[IFLA_LINK_NETNSID], &row->number);
}

static int32_t read_route(const uint8_t *datagram, struct netlink_part body, struct netlink_row *row)
{
    struct rtmsg fixed;
    struct attributes found;
    int32_t error = take(datagram, &body, &fixed, sizeof fixed);

    if (error < 0)
        return error;

    const uint32_t bytes = address_length(fixed.rtm_family);

    if (bytes == 0)
        return 0;
    if ((error = find(datagram, body, &found)) < 0)
        return error;
    row->body = ROW_ROUTE;
    row->family = fixed.rtm_family;
    row->length = fixed.rtm_dst_len;
    row->state = fixed.rtm_type;
    row->flags = found.of[RTA_GATEWAY].at != 0 || found.of[RTA_MULTIPATH].at != 0 || found.of[RTA_VIA].at != 0;
    row->address = found.of[RTA_DST];
    if (fixed.rtm_dst_len > 8 * bytes || (row->address.at != 0 && row->address.end - row->address.at != bytes))
        return NETLINK_BAD_ADDRESS;
    return read_number(datagram, found.of[RTA_OIF], &row->interface);
}

static int32_t read_neighbour(const uint8_t *datagram, struct netlink_part body, struct netlink_row *row)
{
    struct ndmsg fixed;
    struct attributes found;
    int32_t error = take(datagram, &body, &fixed, sizeof fixed);

    if (error < 0)
        return error;
    if (fixed.ndm_family != AF_BRIDGE && address_length(fixed.ndm_family) == 0)
        return 0;
    if ((error = find(datagram, body, &found)) < 0)
        return error;
    row->body = ROW_NEIGHBOUR;
    row->interface = fixed.ndm_ifindex;
    row->family = fixed.ndm_family;
    row->state = fixed.ndm_state;
    row->flags = fixed.ndm_flags;
    row->other = found.of[NDA_LLADDR];
    if (fixed.ndm_family != AF_BRIDGE) { /* a forwarding table of VXLAN has one too: the host where the MAC is */
        row->address = found.of[NDA_DST];
        if (row->address.end - row->address.at != address_length(fixed.ndm_family))
            return NETLINK_BAD_ADDRESS;
    }
    return read_number(datagram, found.of[NDA_MASTER], &row->master);
}

static int32_t read_nsid(const uint8_t *datagram, struct netlink_part body, struct netlink_row *row)
{
    struct rtgenmsg fixed;
    struct attributes found;
    int32_t error;

    if ((error = take(datagram, &body, &fixed, sizeof fixed)) < 0 || (error = find(datagram, body, &found)) < 0)
        return error;
    row->body = ROW_NUMBER;
    row->number = -1;
    return read_number(datagram, found.of[NETNSA_NSID], &row->number);
}

static int32_t read_errno(const uint8_t *datagram, struct netlink_part body, struct netlink_row *row)
{
    int32_t negative = 0;

    row->body = ROW_NUMBER;
    if (row->type == NLMSG_DONE && body.at == body.end)
        return 0; /* older kernels leave it out */
    if (body.end - body.at < sizeof negative)
        return NETLINK_SHORT_BODY;
    memcpy(&negative, datagram + body.at, sizeof negative);
    row->number = (int32_t)(0 - (uint32_t)negative);
    return 0;
}

static int32_t read_body(const uint8_t *datagram, struct netlink_part body, struct netlink_row *row)
{
    switch (row->type) {
    case NLMSG_ERROR:
    case NLMSG_DONE:
        return read_errno(datagram, body, row);
    case RTM_NEWADDR:
    case RTM_DELADDR:
        return read_address(datagram, body, row);
    case RTM_NEWLINK:
    case RTM_DELLINK:
        return read_link(datagram, body, row);
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
        return read_route(datagram, body, row);
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
        return read_neighbour(datagram, body, row);
    case RTM_NEWNSID:
        return read_nsid(datagram, body, row);
    default:
        return 0;
    }
}

static uint32_t at_most(uint32_t number, uint32_t limit)
{
    return number < limit ? number : limit;
}

int32_t netlink_read(const uint8_t *datagram, uint32_t size, uint32_t *at, struct netlink_row *rows, uint32_t room)
{
    uint32_t count = 0;

    for (; count < room && *at < size; count++) {
        struct nlmsghdr header;
        const uint32_t left = size - *at;

        if (left < sizeof header)
            return NETLINK_SHORT_HEADER;
        memcpy(&header, datagram + *at, sizeof header);
        if (header.nlmsg_len < sizeof header || header.nlmsg_len > left)
            return NETLINK_BAD_LENGTH;
        rows[count] = (struct netlink_row){
            .type = header.nlmsg_type,
            .sequence = header.nlmsg_seq,
            .interrupted = (header.nlmsg_flags & NLM_F_DUMP_INTR) != 0,
        };

        const struct netlink_part body = {*at + (uint32_t)sizeof header, *at + header.nlmsg_len};
        const int32_t error = read_body(datagram, body, &rows[count]);

        if (error < 0)
            return error;
        *at += header.nlmsg_len;
        *at += at_most((0 - header.nlmsg_len) % NLMSG_ALIGNTO, size - *at); /* padding, but behind the last one */
    }
    return (int32_t)count;
}
