/* SPDX-License-Identifier: MIT */
/* What is of use of rtnetlink(7)'s messages, in rows of numbers. A datagram has up to hundreds of messages, and a link
 * forty attributes: to walk them is a few nanoseconds each here, and a microsecond in Python. For the extension module
 * alone; resolver/host/netlink.py has the grammar, and makes of the rows what Python programs read. */
#ifndef MYMACHINES_NETLINK_H
#define MYMACHINES_NETLINK_H

#include <stdint.h>

/* --- cdef begin --- */

/* What a row is about. */
enum netlink_body {
    ROW_NOTHING,             /* of use: another type, or another family */
    ROW_NUMBER,
    ROW_ADDRESS,
    ROW_LINK,
    ROW_ROUTE,
    ROW_NEIGHBOUR,
};

/* Part of a datagram. */
struct netlink_part {
    uint32_t at;                 /* its first byte; 0: not there */
    uint32_t end;                /* the first byte behind it */
};

/* One message. What is not said to be of its body is 0. */
struct netlink_row {
    uint32_t type;
    uint32_t sequence;
    uint32_t interrupted;        /* NLM_F_DUMP_INTR */
    uint32_t body;               /* enum netlink_body */
    int32_t number;              /* NUMBER: NLMSG_ERROR's and NLMSG_DONE's errno, RTM_NEWNSID's id or -1;
                                  * LINK: IFLA_LINK_NETNSID, -1 where it is not there */
    int32_t interface;           /* ADDRESS, LINK, ROUTE, NEIGHBOUR */
    int32_t master;              /* LINK, NEIGHBOUR */
    int32_t link;                /* LINK: IFLA_LINK */
    uint32_t family;             /* ADDRESS, ROUTE, NEIGHBOUR */
    uint32_t length;             /* ADDRESS, ROUTE: of the prefix, in bits */
    uint32_t state;              /* ADDRESS: scope; ROUTE: RTN_*; NEIGHBOUR: NUD_* */
    uint32_t flags;              /* ADDRESS: IFA_F_*; NEIGHBOUR: NTF_*; ROUTE: whether by way of a router */
    struct netlink_part address; /* ADDRESS: our own; NEIGHBOUR: IP address, but in a bridge's forwarding table;
                                  * ROUTE: destination, not there for the whole family */
    struct netlink_part other;   /* ADDRESS: IFA_ADDRESS; LINK, NEIGHBOUR: MAC address */
    struct netlink_part name;    /* LINK; these are text, without the final zero */
    struct netlink_part kind;
    struct netlink_part port_kind;
};

/* Why what came is no rtnetlink. */
enum netlink_error {
    NETLINK_SHORT_HEADER = -1,   /* fewer bytes left than a message's header has */
    NETLINK_BAD_LENGTH = -2,     /* a message that is shorter than its header, or longer than what is left */
    NETLINK_SHORT_BODY = -3,     /* a message that is shorter than its type's struct */
    NETLINK_BAD_ATTRIBUTE = -4,  /* an attribute that is shorter than its header or value, or longer than what is left */
    NETLINK_BAD_ADDRESS = -5,    /* an address whose length is not its family's, or a prefix that is longer */
};

/* From `*at` on, a row for each message, `room` at the most; `*at` is then behind the last one. How many there are, or an
 * enum netlink_error. Of an attribute that is there twice the last counts, as in the kernel's nla_parse(). */
int32_t netlink_read(const uint8_t *datagram, uint32_t size, uint32_t *at, struct netlink_row *rows, uint32_t room);

/* --- cdef end --- */

#endif
