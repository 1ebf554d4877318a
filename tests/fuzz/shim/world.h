/* SPDX-License-Identifier: MIT */
/*
 * The world around the shim while it is fuzzed: a kernel that has one file and one socket, and a writer of the table who
 * moves between two loads of the reader's. Every file of nss_module/ is compiled with this header before its first line
 * (-include, -DINSIDE): its system calls then come here. So a run costs microseconds; and since the memory that a look-up
 * may touch is known exactly, all other is poisoned for AddressSanitizer: the file's gaps, a map that was let go.
 */
#ifndef WORLD_H
#define WORLD_H

#include "answer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <nss.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SLOT_MAX TABLE_PAGE               /* enough for all kinds of records, small enough for a million runs a minute */
#define FILE_MAX (TABLE_PAGE + 2 * SLOT_MAX)
#define REPLY_MAX 8192
#define STORES_MAX 4
#define UNTOUCHED 4711                    /* what errno and the like hold before a call */
#define LOADS_MAX 20000                   /* of one question: 8 attempts at chains through all of a slot take fewer */

enum path_showing {
    SHOWS_FILE,
    SHOWS_ANOTHER,           /* an empty table, by rename */
    SHOWS_NOTHING,
    SHOWS_REFUSAL,           /* EACCES */
    SHOWS_STRANGERS,         /* the same file, which is somebody else's now */
    SHOWINGS
};

/* What the writer does, all at once, between two loads of the reader's. */
enum move_kind {
    MOVE_OBEYING,            /* two publications, which stores into the slot that is being read */
    MOVE_HOSTILE,            /* stores anywhere in the slot, and into the header's counters and flags */
    MOVE_LETTING_GO          /* another thread has seen that the file is no longer the one, and let go of the map */
};

struct move {
    uint32_t moment;         /* loads before it; 0: never */
    uint32_t kind;           /* enum move_kind */
    uint32_t count;
    struct {
        uint32_t word;       /* of the slot; from SLOT_MAX / 4 on, of the header */
        uint32_t value;
    } stores[STORES_MAX];
};

struct world {
    /* the file */
    int64_t size;
    uint32_t slot_size;
    mode_t mode;
    uid_t owner;
    bool exists;
    uint32_t shows;          /* enum path_showing: what the path shows now */
    uint64_t inode;
    /* the socket */
    bool listens;
    uint32_t peer;           /* uid */
    uint32_t interruptions;  /* how often poll() ends by a signal, */
    uint32_t interval;       /* and after how many milliseconds */
    uint32_t spurious;       /* how often recvmsg() has nothing though poll() said so */
    uint32_t lost;           /* MSG_TRUNC, MSG_CTRUNC: flags that the message comes with */
    uint32_t reply_size;     /* 0: the daemon hangs up */
    bool mute;               /* the reply never comes */
    /* what fails */
    uint32_t failing_call;   /* the n-th system call; 0: none */
    int failing_errno;
    struct move move;
    /* what has happened */
    uint32_t loads, calls;
    bool moved, failed;
    bool missed;             /* a look at the path failed: what it shows is seen a second later */
    int open_files, open_sockets;
    int cancel_state;
    uint64_t milliseconds;
    uint8_t question[sizeof(struct question)];  /* as sent */
    uint32_t questions;
};

extern struct world world;
extern uint8_t world_file[FILE_MAX], world_before[FILE_MAX];   /* as it is, and as it was before the move */
extern uint8_t world_reply[REPLY_MAX];

/* Forgets everything: a new process. */
void world_begin(void);
/* A question begins: the loads are counted from here, and errno holds UNTOUCHED. */
void world_next_question(void);
/* After it: errno is kept, nothing is open, the thread can be cancelled as before. */
void world_end_question(void);
void world_move(void);
__attribute__((noreturn, format(printf, 1, 2))) void wrong(const char *format, ...);

/* inside.c, which alone sees the shim's own state */
void shim_forget(void);
void shim_let_go(void);

/* Everything that the reader takes out of the table comes by here. */
static inline void world_load(void)
{
    if (++world.loads > LOADS_MAX)
        wrong("a look-up without end");
    if (world.loads == world.move.moment && !world.moved)
        world_move();
}

long world_syscall(long number, ...);
int world_fstatat(int fd, const char *path, struct stat *st, int flags);
int world_lstat(const char *path, struct stat *st);
int world_close(int fd);
void *world_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset);
int world_munmap(void *address, size_t size);
int world_clock_gettime(clockid_t clock, struct timespec *now);
int world_setcancelstate(int state, int *old);
int world_socket(int domain, int type, int protocol);
int world_connect(int fd, const struct sockaddr *address, socklen_t length);
int world_getsockopt(int fd, int level, int option, void *value, socklen_t *length);
ssize_t world_send(int fd, const void *bytes, size_t size, int flags);
int world_poll(struct pollfd *polled, nfds_t count, int timeout);
ssize_t world_recvmsg(int fd, struct msghdr *message, int flags);

#ifdef INSIDE
#define syscall(...) world_syscall(__VA_ARGS__)
#define fstatat(...) world_fstatat(__VA_ARGS__)
#define lstat(...) world_lstat(__VA_ARGS__)
#define close(...) world_close(__VA_ARGS__)
#define mmap(...) world_mmap(__VA_ARGS__)
#define munmap(...) world_munmap(__VA_ARGS__)
#define clock_gettime(...) world_clock_gettime(__VA_ARGS__)
#define pthread_setcancelstate(...) world_setcancelstate(__VA_ARGS__)
#define socket(...) world_socket(__VA_ARGS__)
#define connect(...) world_connect(__VA_ARGS__)
#define getsockopt(...) world_getsockopt(__VA_ARGS__)
#define send(...) world_send(__VA_ARGS__)
#define poll(...) world_poll(__VA_ARGS__)
#define recvmsg(...) world_recvmsg(__VA_ARGS__)
/* Reads of the table. Whatever else they are used for does no harm. */
#define __atomic_load_n(pointer, order) (world_load(), __atomic_load_n(pointer, order))
#define memcpy(to, from, size) (world_load(), memcpy(to, from, size))
#define memcmp(left, right, size) (world_load(), memcmp(left, right, size))
#endif

#endif
