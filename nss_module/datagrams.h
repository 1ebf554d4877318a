/* SPDX-License-Identifier: MIT */
/* Many datagrams in one system call (recvmmsg(2), sendmmsg(2)), which Python's socket module has not: half of what a
 * DNS answer costs is entering the kernel. For the extension module alone. */
#ifndef MYMACHINES_DATAGRAMS_H
#define MYMACHINES_DATAGRAMS_H

#include <stdint.h>

/* --- cdef begin --- */

#define DATAGRAMS_MAX 64         /* in one call: more would make one socket keep the loop from others */
#define DATAGRAM_SIZE 2048       /* bytes: above every query that is honest, and every answer that is given over UDP */

/* Who sent a datagram, and to which of our addresses: what an answer needs. Opaque; it may be kept and used later. */
struct datagram_peer {
    uint8_t address[28];         /* struct sockaddr_in or sockaddr_in6 */
    uint32_t address_length;
    uint8_t control[64];         /* IP_PKTINFO or IPV6_PKTINFO, as sendmsg(2) takes it */
    uint32_t control_length;
};

struct datagrams {
    uint32_t length[64];         /* bytes in data; 0: none, for it was longer than DATAGRAM_SIZE, or is not to be sent */
    uint8_t source[64][16];      /* the sender's address; IPv4 as ::ffff:a.b.c.d */
    uint8_t data[64][2048];
    struct datagram_peer peer[64];
};

/* Takes what is there, without waiting: how many, 0 for none, or -errno. The socket has IP_PKTINFO, or
 * IPV6_RECVPKTINFO, so that answers leave from the address that was asked. */
int32_t datagrams_receive(int32_t fd, struct datagrams *batch);

/* Sends data[i] to peer[i] for the first `count` whose length is not 0. What the kernel does not take within
 * milliseconds is lost, as datagrams are: how many were sent. */
uint32_t datagrams_send(int32_t fd, struct datagrams *batch, uint32_t count);

/* One, later. 0 or -errno. */
int32_t datagram_send(int32_t fd, const struct datagram_peer *peer, const uint8_t *data, uint32_t length);

/* --- cdef end --- */

#endif
