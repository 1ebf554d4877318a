/* SPDX-License-Identifier: MIT */
#include "world.h"

#include "view.h"

#include <sanitizer/asan_interface.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

enum { FILE_FD = 100, SOCKET_FD = 101, PLACES = 4 };

/* Where files are mapped, and what is known of those for which there is no struct map at hand. */
static _Alignas(TABLE_PAGE) struct place {
    uint8_t file[FILE_MAX];
} places[PLACES];
static struct map maps[PLACES];

static size_t taken[PLACES];                    /* bytes; 0: nothing is there */
static bool maps_taken[PLACES];
static struct place *mapped;                    /* the one that has the file */

struct world world;
_Alignas(8) uint8_t world_file[FILE_MAX], world_before[FILE_MAX];
uint8_t world_reply[REPLY_MAX];

void wrong(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("wrong: ", stderr);
    vfprintf(stderr, format, arguments);
    fputs("\n", stderr);
    va_end(arguments);
    abort();
}

void world_begin(void)
{
    for (int i = 0; i < PLACES; i++)
        if (taken[i] != 0) {
            ASAN_UNPOISON_MEMORY_REGION(&places[i], sizeof places[i]);
            taken[i] = 0;
        }
    ASAN_POISON_MEMORY_REGION(places, sizeof places);
    ASAN_POISON_MEMORY_REGION(maps, sizeof maps);
    memset(maps_taken, 0, sizeof maps_taken);
    mapped = NULL;
    world = (struct world){.milliseconds = 1000000, .cancel_state = PTHREAD_CANCEL_ENABLE, .inode = 1};
    shim_forget();
}

void world_next_question(void)
{
    world.loads = 0;
    errno = UNTOUCHED;
}

void world_end_question(void)
{
    if (errno != UNTOUCHED)
        wrong("errno is %d", errno);
    if (world.open_files != 0 || world.open_sockets != 0)
        wrong("a descriptor stays open");
    if (world.cancel_state != PTHREAD_CANCEL_ENABLE)
        wrong("the thread can no longer be cancelled");
}

/* --- the table's writer --- */

/* The map may be one that is being looked at still, and is poisoned. */
__attribute__((no_sanitize("address"))) static void store(uint32_t offset, uint32_t value)
{
    __builtin_memcpy(world_file + offset, &value, 4);
    if (mapped != NULL)
        *(volatile uint32_t *)(void *)(mapped->file + offset) = value;
}

static uint32_t word(const uint8_t *file, size_t offset)
{
    uint32_t value;

    memcpy(&value, file + offset, 4);
    return value;
}

void world_move(void)
{
    static const uint32_t changing[] = {offsetof(struct table_header, layout), offsetof(struct table_header, begun),
                                        offsetof(struct table_header, done), offsetof(struct table_header, retired)};
    const struct move *move = &world.move;
    const uint32_t done = word(world_file, offsetof(struct table_header, done));
    const uint32_t slot = TABLE_PAGE * (1 + done % TABLE_SLOTS);

    world.moved = true;
    memcpy(world_before, world_file, sizeof world_before);
    if (move->kind == MOVE_LETTING_GO) {
        const int ours = errno; /* it is another thread, which has its own */

        shim_let_go();
        errno = ours;
        return;
    }
    if (move->kind == MOVE_OBEYING) {
        store(offsetof(struct table_header, begun), done + 2);
        store(offsetof(struct table_header, done), done + 2);
    }
    for (uint32_t i = 0; i < move->count && i < STORES_MAX; i++) {
        const uint32_t at = move->stores[i].word % (SLOT_MAX / 4 + 4);

        if (at >= SLOT_MAX / 4) {
            if (move->kind == MOVE_HOSTILE)
                store(changing[at - SLOT_MAX / 4], move->stores[i].value);
        } else if (4 * at + 4 <= world.slot_size) {
            store(slot + 4 * at, move->stores[i].value);
        }
    }
}

/* --- the kernel --- */

static bool fails(void)
{
    if (++world.calls != world.failing_call)
        return false;
    world.failed = true;
    errno = world.failing_errno;
    return true;
}

static int fail(int error)
{
    errno = error;
    return -1;
}

static void check_cancel(void)
{
    if (world.cancel_state != PTHREAD_CANCEL_DISABLE)
        wrong("a thread that is cancelled now leaves a descriptor open");
}

static int open_file(const char *path, int flags)
{
    if (strcmp(path, "/run/mymachines/table-2") != 0)
        wrong("opens %s", path);
    if (flags != (O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY))
        wrong("opens with flags %#x", (unsigned)flags);
    if (fails())
        return -1;
    if (!world.exists || world.shows == SHOWS_NOTHING)
        return fail(ENOENT);
    if (world.shows == SHOWS_REFUSAL)
        return fail(EACCES);
    world.open_files++;
    return FILE_FD;
}

static void fill_stat(struct stat *st)
{
    *st = (struct stat){.st_mode = world.mode, .st_uid = world.owner, .st_size = world.size, .st_ino = world.inode};
}

int world_fstatat(int fd, const char *path, struct stat *st, int flags)
{
    if (fd != FILE_FD || path[0] != '\0' || flags != AT_EMPTY_PATH)
        wrong("fstatat(%d, \"%s\")", fd, path);
    if (fails())
        return -1;
    fill_stat(st);
    return 0;
}

int world_lstat(const char *path, struct stat *st)
{
    (void)path;
    if (fails()) {
        world.missed |= errno != ENOENT;
        return -1;
    }
    if (!world.exists || world.shows == SHOWS_NOTHING)
        return fail(ENOENT);
    if (world.shows == SHOWS_REFUSAL)
        return fail(EACCES);
    fill_stat(st);
    return 0;
}

int world_close(int fd)
{
    if (fd == FILE_FD && world.open_files == 1)
        world.open_files = 0;
    else if (fd == SOCKET_FD && world.open_sockets == 1)
        world.open_sockets = 0;
    else
        wrong("close(%d)", fd);
    errno = EBADF; /* it may change errno as it likes */
    return 0;
}

/* By itself, so that it is no point where a thread may be cancelled. */
long world_syscall(long number, ...)
{
    va_list arguments;
    long result = -1;

    va_start(arguments, number);
    if (number == SYS_openat) {
        if (va_arg(arguments, int) != AT_FDCWD)
            wrong("opens below a directory");

        const char *path = va_arg(arguments, const char *);

        result = open_file(path, va_arg(arguments, int));
    } else if (number == SYS_close) {
        result = world_close(va_arg(arguments, int));
    } else {
        wrong("system call %ld", number);
    }
    va_end(arguments);
    return result;
}

/* What a reader may touch of a file: the header, and slots where the grammar has them. */
static void unpoison_file(uint8_t *file, size_t size)
{
    const size_t length = word(file, offsetof(struct table_header, slot_size));

    for (size_t i = 0; i < TABLE_SLOTS; i++) {
        const size_t offset = word(file, offsetof(struct table_header, slot_offset) + 4 * i);

        if (offset >= TABLE_PAGE && offset % TABLE_PAGE == 0 && offset + length <= size)
            ASAN_UNPOISON_MEMORY_REGION(file + offset, length);
    }
}

static struct place *place_of(const void *address, size_t size)
{
    for (int i = 0; i < PLACES; i++)
        if (taken[i] != 0 && taken[i] == size && address == places[i].file)
            return &places[i];
    wrong("%zu bytes that it has not mapped", size);
}

static void *map_file(size_t size)
{
    if (world.size > TABLE_SIZE_MAX || size == 0 || size != (size_t)world.size)
        wrong("maps %zu bytes of %lld", size, (long long)world.size);
    if (world.size > FILE_MAX)
        return MAP_FAILED;
    for (int i = 0; i < PLACES; i++)
        if (taken[i] == 0) {
            struct place *place = &places[i];

            taken[i] = size;
            ASAN_UNPOISON_MEMORY_REGION(place->file, FILE_MAX);
            memcpy(place->file, world_file, FILE_MAX);
            ASAN_POISON_MEMORY_REGION(place->file + sizeof(struct table_header),
                                      FILE_MAX - sizeof(struct table_header));
            unpoison_file(place->file, (size_t)world.size);
            mapped = place;
            return place->file;
        }
    wrong("maps without end");
}

static void *map_struct(void)
{
    for (int i = 0; i < PLACES; i++)
        if (!maps_taken[i]) {
            maps_taken[i] = true;
            ASAN_UNPOISON_MEMORY_REGION(&maps[i], sizeof maps[i]);
            memset(&maps[i], 0, sizeof maps[i]);
            return &maps[i];
        }
    wrong("maps without end");
}

void *world_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fails())
        return MAP_FAILED;
    if (address == NULL && fd == FILE_FD && protection == PROT_READ && flags == MAP_SHARED && offset == 0)
        return map_file(size);
    if (address == NULL && fd == -1 && protection == (PROT_READ | PROT_WRITE) && size == MAP_MEMORY &&
        flags == (MAP_PRIVATE | MAP_ANONYMOUS))
        return map_struct();
    /* Let go of: readers may still be inside. */
    if (protection != PROT_READ || flags != (MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED) || fd != -1)
        wrong("an odd mmap()");

    struct place *place = place_of(address, size);

    ASAN_UNPOISON_MEMORY_REGION(place->file, FILE_MAX);
    memset(place->file, 0, FILE_MAX);
    if (mapped == place)
        mapped = NULL;
    return address;
}

int world_munmap(void *address, size_t size)
{
    for (int i = 0; i < PLACES; i++)
        if (address == &maps[i] && maps_taken[i] && size == MAP_MEMORY) {
            ASAN_POISON_MEMORY_REGION(&maps[i], sizeof maps[i]);
            maps_taken[i] = false;
            return 0;
        }

    struct place *place = place_of(address, size);

    ASAN_POISON_MEMORY_REGION(place, sizeof *place);
    taken[place - places] = 0;
    if (mapped == place)
        mapped = NULL;
    return 0;
}

int world_clock_gettime(clockid_t clock, struct timespec *now)
{
    (void)clock;
    *now = (struct timespec){(time_t)(world.milliseconds / 1000), (long)(world.milliseconds % 1000) * 1000000};
    return 0;
}

int world_setcancelstate(int state, int *old)
{
    if (old != NULL)
        *old = world.cancel_state;
    world.cancel_state = state;
    return 0;
}

/* --- the daemon's socket --- */

int world_socket(int domain, int type, int protocol)
{
    check_cancel();
    if (domain != AF_UNIX || type != (SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK) || protocol != 0)
        wrong("an odd socket()");
    if (fails())
        return -1;
    world.open_sockets++;
    return SOCKET_FD;
}

int world_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_un *path = (const void *)address;

    if (fd != SOCKET_FD || length != sizeof *path || strcmp(path->sun_path, "/run/mymachines/nss.sock") != 0)
        wrong("connects elsewhere");
    if (fails())
        return -1;
    return world.listens ? 0 : fail(ENOENT);
}

int world_getsockopt(int fd, int level, int option, void *value, socklen_t *length)
{
    struct ucred peer = {1, world.peer, world.peer};

    if (fd != SOCKET_FD || level != SOL_SOCKET || option != SO_PEERCRED || *length < sizeof peer)
        wrong("an odd getsockopt()");
    if (fails())
        return -1;
    memcpy(value, &peer, sizeof peer);
    *length = sizeof peer;
    return 0;
}

ssize_t world_send(int fd, const void *bytes, size_t size, int flags)
{
    if (fd != SOCKET_FD || flags != MSG_NOSIGNAL || size != sizeof world.question)
        wrong("sends %zu bytes with flags %#x", size, (unsigned)flags);
    if (fails())
        return -1;
    memcpy(world.question, bytes, size);
    world.questions++;
    return (ssize_t)size;
}

int world_poll(struct pollfd *polled, nfds_t count, int timeout)
{
    if (polled->fd != SOCKET_FD || count != 1 || timeout < 1 || timeout > 250)
        wrong("polls for %d ms", timeout);
    if (fails())
        return -1;
    if (world.interruptions > 0) {
        world.interruptions--;
        world.milliseconds += world.interval < (uint32_t)timeout ? world.interval : (uint32_t)timeout;
        return fail(EINTR);
    }
    if (world.mute) {
        world.milliseconds += (uint32_t)timeout;
        return 0;
    }
    polled->revents = POLLIN;
    return 1;
}

ssize_t world_recvmsg(int fd, struct msghdr *message, int flags)
{
    size_t left = world.reply_size, given = 0;

    if (fd != SOCKET_FD || flags != MSG_DONTWAIT || message->msg_controllen != 0)
        wrong("an odd recvmsg()");
    if (fails())
        return -1;
    if (world.spurious > 0) {
        world.spurious--;
        return fail(EAGAIN);
    }
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        const size_t size = left < message->msg_iov[i].iov_len ? left : message->msg_iov[i].iov_len;

        memcpy(message->msg_iov[i].iov_base, world_reply + given, size);
        given += size;
        left -= size;
    }
    message->msg_flags = (int)world.lost | (left > 0 ? MSG_TRUNC : 0);
    return (ssize_t)given;
}
