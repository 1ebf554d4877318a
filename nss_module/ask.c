/* SPDX-License-Identifier: MIT */
/* The way round for where the table cannot serve: one packet to the daemon, one back, one deadline for both. */
#include "ask.h"

#include "clock.h"
#include "slot.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ASK_DEADLINE_MS 250      /* what a login or an `ls` may notice of a daemon that hangs */

/* A process that has waited in vain believes for this long that the daemon is mute. Else `ls -l` over a thousand
 * files of as many containers' users would wait a thousand deadlines, four minutes, where one is enough. */
#define MUTE_MS 1000u

static uint32_t mute_since;      /* coarse_milliseconds(); 0: not mute */

static void take_for_mute(void)
{
    const uint32_t now = coarse_milliseconds();

    __atomic_store_n(&mute_since, now != 0 ? now : UINT32_MAX, __ATOMIC_RELAXED); /* not in the future */
}

static bool daemon_is_mute(void)
{
    const uint32_t since = __atomic_load_n(&mute_since, __ATOMIC_RELAXED);

    return since != 0 && coarse_milliseconds() - since < MUTE_MS;
}

static int64_t milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool peer_is_root(int fd)
{
    struct ucred peer;
    socklen_t length = sizeof peer;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && length == sizeof peer && peer.uid == 0;
}

static bool send_question(int fd, const struct question *question)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = NSS_SOCKET_PATH};

    /* Does not wait: where the daemon's backlog is full, connect() fails with EAGAIN. */
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0 || !peer_is_root(fd))
        return false;
    return send(fd, question, sizeof *question, MSG_NOSIGNAL) == (ssize_t)sizeof *question;
}

/* The length of the packet, 0 for none. Room for control messages there is none: descriptors sent along are closed by
 * the kernel. */
static size_t receive_reply(int fd, struct msghdr *message)
{
    const int64_t deadline = milliseconds() + ASK_DEADLINE_MS;

    for (;;) {
        const int64_t left = deadline - milliseconds();
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        const int ready = left > 0 ? poll(&readable, 1, (int)left) : 0;

        if (ready == 0) {
            take_for_mute();
            return 0;
        }
        if (ready > 0) {
            const ssize_t length = recvmsg(fd, message, MSG_DONTWAIT);

            if (length >= 0)
                return (message->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0 ? (size_t)length : 0;
        }
        if (errno != EINTR && errno != EAGAIN)
            return 0;
    }
}

static bool is_string(const char *string, size_t size, size_t longest)
{
    const size_t length = strnlen(string, size);

    return length > 0 && length <= longest;
}

static bool host_is_sound(const struct question *question, const struct host_answer *host, size_t length)
{
    const size_t fixed = offsetof(struct host_answer, addresses);

    if (length < fixed || !is_string(host->name, sizeof host->name, MACHINE_NAME_MAX))
        return false;
    if (host->address_count > MACHINE_ADDRESSES_MAX)
        return false;
    if (length != fixed + host->address_count * sizeof host->addresses[0])
        return false;
    for (uint32_t i = 0; i < host->address_count; i++)
        if (host->addresses[i].family != AF_INET && host->addresses[i].family != AF_INET6)
            return false;
    if (question->kind == QUESTION_HOST_BY_NAME)
        return true;
    return host->address_count == 1 && host->addresses[0].family == question->family &&
           memcmp(host->addresses[0].bytes, question->bytes, question->family == AF_INET ? 4 : 16) == 0;
}

static bool id_is_sound(const struct question *question, const struct id_answer *id, size_t length)
{
    if (length != sizeof *id || !is_string(id->machine, sizeof id->machine, MACHINE_NAME_MAX) ||
        !is_string(id->name, sizeof id->name, USER_NAME_MAX))
        return false;
    if (id->host_id < HOST_ID_FIRST || id->host_id > ID_LAST || id->inside_id > ID_LAST)
        return false;
    if (question->kind == QUESTION_USER_BY_ID || question->kind == QUESTION_GROUP_BY_ID)
        return id->host_id == question->id;
    return strcmp(id->name, question->name) == 0;
}

static bool asks_for_host(const struct question *question)
{
    return question->kind == QUESTION_HOST_BY_NAME || question->kind == QUESTION_HOST_BY_ADDRESS;
}

static enum answer_result converse(int fd, const struct question *question, struct host_answer *host,
                                   struct id_answer *id)
{
    const bool wants_host = asks_for_host(question);
    struct reply_header header;
    struct iovec parts[2] = {
        {&header, sizeof header},
        {wants_host ? (void *)host : (void *)id, wants_host ? sizeof *host : sizeof *id},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    if (!send_question(fd, question))
        return ANSWER_UNAVAILABLE;

    const size_t length = receive_reply(fd, &message);

    if (length < sizeof header || header.layout != PACKET_LAYOUT || header.kind != question->kind)
        return ANSWER_UNAVAILABLE;

    const size_t rest = length - sizeof header;

    if (header.result == ANSWER_UNKNOWN && rest == 0)
        return ANSWER_UNKNOWN;
    if (header.result != ANSWER_FOUND)
        return ANSWER_UNAVAILABLE;
    if (wants_host ? host_is_sound(question, host, rest) : id_is_sound(question, id, rest))
        return ANSWER_FOUND;
    return ANSWER_UNAVAILABLE;
}

enum answer_result ask_daemon(const struct question *question, struct host_answer *host, struct id_answer *id)
{
    enum answer_result result = ANSWER_UNAVAILABLE;
    int cancel_state;

    if (daemon_is_mute())
        return ANSWER_UNAVAILABLE;

    /* A thread that were cancelled in poll() would leave the socket open. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);

    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0) {
        result = converse(fd, question, host, id);
        close(fd);
    }
    pthread_setcancelstate(cancel_state, NULL);
    return result;
}
