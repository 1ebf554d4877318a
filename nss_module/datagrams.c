/* SPDX-License-Identifier: MIT */
#include "datagrams.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#define SEND_PATIENCE_MS 5       /* for a full send buffer to drain: longer, and whoever asks next waits too long */

_Static_assert(sizeof(((struct datagrams *)0)->length) == 4 * DATAGRAMS_MAX, "one limit, written twice");
_Static_assert(sizeof(((struct datagrams *)0)->data) == DATAGRAMS_MAX * DATAGRAM_SIZE, "one limit, written twice");
_Static_assert(sizeof(((struct datagram_peer *)0)->address) >= sizeof(struct sockaddr_in6), "both families fit");

static void set_source(uint8_t source[16], const struct datagram_peer *peer)
{
    const struct sockaddr *address = (const void *)peer->address;

    memset(source, 0, 16);
    if (address->sa_family == AF_INET6) {
        memcpy(source, &((const struct sockaddr_in6 *)address)->sin6_addr, 16);
    } else if (address->sa_family == AF_INET) {
        source[10] = source[11] = 0xff;
        memcpy(source + 12, &((const struct sockaddr_in *)address)->sin_addr, 4);
    }
}

/* The same message serves for sending: its source is the address that was asked. The way out is routing's to choose,
 * but for link-local addresses, which say nothing without an interface. */
static void leave_the_way_to_routing(struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
            ((struct in_pktinfo *)(void *)CMSG_DATA(part))->ipi_ifindex = 0;
        } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
            struct in6_pktinfo *info = (void *)CMSG_DATA(part);

            if (!IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr))
                info->ipi6_ifindex = 0;
        }
    }
}

int32_t datagrams_receive(int32_t fd, struct datagrams *batch)
{
    struct mmsghdr messages[DATAGRAMS_MAX];
    struct iovec parts[DATAGRAMS_MAX];

    memset(messages, 0, sizeof messages);
    for (int i = 0; i < DATAGRAMS_MAX; i++) {
        parts[i] = (struct iovec){batch->data[i], DATAGRAM_SIZE};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = batch->peer[i].address,
            .msg_namelen = sizeof batch->peer[i].address,
            .msg_iov = &parts[i],
            .msg_iovlen = 1,
            .msg_control = batch->peer[i].control,
            .msg_controllen = sizeof batch->peer[i].control,
        };
    }

    const int count = recvmmsg(fd, messages, DATAGRAMS_MAX, MSG_DONTWAIT, NULL);

    if (count < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    for (int i = 0; i < count; i++) {
        struct msghdr *message = &messages[i].msg_hdr;
        struct datagram_peer *peer = &batch->peer[i];
        const bool whole = (message->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;

        peer->address_length = message->msg_namelen;
        peer->control_length = (uint32_t)message->msg_controllen;
        batch->length[i] = whole ? messages[i].msg_len : 0;
        leave_the_way_to_routing(message);
        set_source(batch->source[i], peer);
    }
    return count;
}

static struct msghdr message_to(const struct datagram_peer *peer, struct iovec *part)
{
    return (struct msghdr){
        .msg_name = (void *)peer->address,
        .msg_namelen = peer->address_length,
        .msg_iov = part,
        .msg_iovlen = 1,
        .msg_control = peer->control_length != 0 ? (void *)peer->control : NULL,
        .msg_controllen = peer->control_length,
    };
}

uint32_t datagrams_send(int32_t fd, struct datagrams *batch, uint32_t count)
{
    struct mmsghdr messages[DATAGRAMS_MAX];
    struct iovec parts[DATAGRAMS_MAX];
    unsigned ready = 0, done = 0;
    uint32_t sent = 0;
    bool waited = false;

    memset(messages, 0, sizeof messages);
    for (uint32_t i = 0; i < count && i < DATAGRAMS_MAX; i++) {
        if (batch->length[i] == 0 || batch->length[i] > DATAGRAM_SIZE)
            continue;
        parts[ready] = (struct iovec){batch->data[i], batch->length[i]};
        messages[ready].msg_hdr = message_to(&batch->peer[i], &parts[ready]);
        ready++;
    }
    while (done < ready) {
        const int now = sendmmsg(fd, messages + done, ready - done, MSG_DONTWAIT);

        if (now > 0) {
            done += (unsigned)now;
            sent += (uint32_t)now;
        } else if (errno == EAGAIN && !waited) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};

            waited = true;
            poll(&writable, 1, SEND_PATIENCE_MS);
        } else if (errno == EAGAIN) {
            break;
        } else if (errno != EINTR) {
            done++; /* this one cannot be sent: no route, a firewall, port 0 */
        }
    }
    return sent;
}

int32_t datagram_send(int32_t fd, const struct datagram_peer *peer, const uint8_t *data, uint32_t length)
{
    struct iovec part = {(void *)data, length};
    const struct msghdr message = message_to(peer, &part);

    return sendmsg(fd, &message, MSG_DONTWAIT) < 0 ? -errno : 0;
}
