/* SPDX-License-Identifier: MIT */
/*
 * No locks: a lock would be held for ever in the child of a fork, and would deadlock in a signal handler. One pointer is
 * moved by compare-and-swap; the loser of a race takes away its own map, which nobody has seen.
 *
 * A map that has been seen is never unmapped, and its struct never used for another, since another thread may be reading
 * it. Instead its file is replaced, at the same place and in one step, by anonymous memory: that lets go of the file (a
 * process that lives for months pins no old tables), costs address space only, and a reader who was inside reads zeros,
 * which its last check tells from a table. The daemon keeps its file over restarts, so this happens a few times in the
 * life of a host.
 *
 * Whose file. Root's, and nobody else may write to it. In a user namespace that does not map the host's root (a
 * container that has /run/mymachines bind-mounted), that root shows as the overflow uid, like everybody else who is not
 * mapped; taking it for root would be taking anybody for root. Such a process gets no table, and by the same rule no
 * daemon.
 *
 * The first look-up of a process. `ls` and `id` look up one name and end, and two thirds of what that costs are page
 * faults and system calls. So libc is entered in few places: sysconf(3), fstat(2)'s empty path, memcmp(3) are a fault
 * each, where the program has not been there before; and what is known of a map lies beside the view, on a page that is
 * written to anyway.
 */
#include "view.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool header_is_sound(struct map *map)
{
    const struct table_header *header = map->header;

    for (size_t i = 0; i < sizeof header->magic; i++)
        if (header->magic[i] != (uint8_t)TABLE_MAGIC[i])
            return false;
    if (header->layout != TABLE_LAYOUT || header->file_size != map->size)
        return false;
    /* Kept in the map, so that no later damage to the header moves a slot out of the file. */
    map->slot_size = __atomic_load_n(&header->slot_size, __ATOMIC_RELAXED);
    if (map->slot_size > map->size)
        return false;
    for (int i = 0; i < TABLE_SLOTS; i++) {
        map->slot_offset[i] = __atomic_load_n(&header->slot_offset[i], __ATOMIC_RELAXED);
        if (map->slot_offset[i] < TABLE_PAGE || map->slot_offset[i] % TABLE_PAGE != 0)
            return false;
        if (map->slot_offset[i] > map->size - map->slot_size)
            return false;
    }
    return __atomic_load_n(&header->retired, __ATOMIC_ACQUIRE) == 0;
}

static struct map *take_map(struct view *view)
{
    for (int i = 0; i < MAPS_AT_HAND; i++) {
        bool taken = false;

        if (__atomic_compare_exchange_n(&view->maps[i].taken, &taken, true, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return &view->maps[i];
    }

    struct map *map = mmap(NULL, MAP_MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return map != MAP_FAILED ? map : NULL;
}

/* Takes back what take_map() gave, which no other thread has seen. */
static void give_back(struct map *map)
{
    if (__atomic_load_n(&map->taken, __ATOMIC_RELAXED)) /* which others try to take meanwhile */
        __atomic_store_n(&map->taken, false, __ATOMIC_RELEASE);
    else
        munmap(map, MAP_MEMORY);
}

void unmap(struct map *map)
{
    munmap((void *)map->header, map->size);
    give_back(map);
}

/* A regular file of the owner's, who alone may write to it. */
static bool is_owners(const struct stat *st, uint32_t owner)
{
    return S_ISREG(st->st_mode) && st->st_uid == owner && (st->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static bool map_file(struct map *map, int fd, uint32_t owner)
{
    struct stat st;

    if (fstatat(fd, "", &st, AT_EMPTY_PATH) != 0 || !is_owners(&st, owner))
        return false;
    if (st.st_size < TABLE_PAGE || st.st_size > TABLE_SIZE_MAX)
        return false;
    map->size = (uint32_t)st.st_size;
    map->device = st.st_dev;
    map->inode = st.st_ino;

    void *file = mmap(NULL, map->size, PROT_READ, MAP_SHARED, fd, 0);

    if (file == MAP_FAILED)
        return false;
    map->header = file;
    if (header_is_sound(map))
        return true;
    munmap(file, map->size);
    return false;
}

/* open(2) and close(2) are points where a thread may be cancelled, and would leave a descriptor behind; the system
 * calls by themselves are not. O_NONBLOCK: were it a fifo or a device, open() must not wait or act. */
static struct map *map_path(struct view *view)
{
    const int fd = (int)syscall(SYS_openat, AT_FDCWD, view->path,
                                O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return NULL;

    struct map *map = take_map(view);

    if (map != NULL && !map_file(map, fd, view->owner)) {
        give_back(map);
        map = NULL;
    }
    syscall(SYS_close, fd);
    return map;
}

/* Lets go of a map's file under readers; see the top. Where this fails, the file stays pinned and nothing else. */
static void release(struct map *map)
{
    mmap((void *)map->header, map->size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static const struct map *exchange(struct view *view, struct map *old, struct map *fresh)
{
    struct map *current = old;

    if (__atomic_compare_exchange_n(&view->map, &current, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        if (old != NULL)
            release(old);
        return fresh;
    }
    if (fresh != NULL)
        unmap(fresh);
    return current;
}

enum path_shows { THIS_FILE, ANOTHER_FILE, NO_FILE };

static enum path_shows look_at_path(const struct view *view, const struct map *map)
{
    struct stat st;

    if (lstat(view->path, &st) == 0) {
        const bool same = st.st_dev == map->device && st.st_ino == map->inode && st.st_size == (off_t)map->size;

        return same && is_owners(&st, view->owner) ? THIS_FILE : ANOTHER_FILE;
    }
    /* Any other error (a sandbox, no memory) says nothing about the file. */
    return errno == ENOENT || errno == ENOTDIR ? NO_FILE : THIS_FILE;
}

static bool is_retired(const struct map *map)
{
    return __atomic_load_n(&map->header->retired, __ATOMIC_ACQUIRE) != 0;
}

/* The rare part. errno is the caller's to keep. */
static __attribute__((noinline)) const struct map *look_again(struct view *view, struct map *map)
{
    enum path_shows shows = ANOTHER_FILE;
    const struct map *result = NULL;

    if (map != NULL)
        shows = look_at_path(view, map);
    if (shows == THIS_FILE) {
        /* Retired and still there: its daemon is going, and whoever comes makes a new one. */
        result = is_retired(map) ? NULL : map;
    } else {
        struct map *fresh = shows == ANOTHER_FILE ? map_path(view) : NULL;

        if (fresh != NULL)
            __atomic_store_n(&view->checked, coarse_milliseconds(), __ATOMIC_RELAXED);
        if (fresh != NULL || map != NULL)
            result = exchange(view, map, fresh);
    }
    return result;
}

/* True once in TABLE_CHECK_MS, for one thread. */
static bool check_is_due(struct view *view)
{
    const uint32_t now = coarse_milliseconds();
    uint32_t checked = __atomic_load_n(&view->checked, __ATOMIC_RELAXED);

    if (now - checked < TABLE_CHECK_MS)
        return false;
    return __atomic_compare_exchange_n(&view->checked, &checked, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

const struct map *view_map(struct view *view)
{
    struct map *map = __atomic_load_n(&view->map, __ATOMIC_ACQUIRE);

    if (map == NULL)
        return look_again(view, NULL);
    /* First the path and only then the map: the file may have been cut short since, and reading what is gone is fatal. */
    if (check_is_due(view) || is_retired(map))
        return look_again(view, map);
    return map;
}
