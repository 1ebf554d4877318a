/* SPDX-License-Identifier: MIT */
/*
 * race torn TABLE       one process publishes with next to no pause, two read: no answer may mix two publications
 * race replaced TABLE   threads read while the table is replaced and taken away: no crash, no mixed answer, no file kept
 */
#include "slot.h"
#include "view.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ADDRESSES = 100, READERS = 2, CHANGES_SEEN = 5000, REPLACEMENTS = 300, THREADS = 3 };

struct table {
    struct table_header header;
    uint8_t rest[TABLE_PAGE - sizeof(struct table_header)];
    struct content {
        struct slot_header header;
        struct machine_record machines[2];
        uint32_t name_keys[1];
        struct address_record addresses[1 + ADDRESSES];
        uint8_t fill[3 * TABLE_PAGE - 64 - 2 * 64 - 4 - 32 * (1 + ADDRESSES)];
    } slots[2];
};

_Static_assert(sizeof(struct table) == 7 * TABLE_PAGE, "whole pages");

static void fill(struct content *slot, uint32_t generation)
{
    slot->header.machines = (struct section){offsetof(struct content, machines), 2};
    slot->header.name_keys = (struct section){offsetof(struct content, name_keys), 1};
    slot->header.addresses = (struct section){offsetof(struct content, addresses), 1 + ADDRESSES};
    slot->name_keys[0] = table_hash_name("web", 3) >> 24 << 24 | 1 << KEY_MACHINE_AT | NAME_MACHINE;
    strcpy(slot->machines[1].name, "web");
    /* How many there are, and each of them, says which publication this is. */
    slot->machines[1].inet_count = INET_AT_HAND;
    for (uint32_t i = 0; i < INET_AT_HAND; i++)
        memcpy(slot->machines[1].inet + 4 * i, &generation, 4);
    slot->machines[1].more_addresses = 1 + generation % 50;
    for (uint32_t i = 1; i <= ADDRESSES; i++) {
        struct address_record *address = &slot->addresses[i];

        __atomic_store_n(&address->family, AF_INET, __ATOMIC_RELAXED);
        address->next = i < ADDRESSES ? i + 1 : 0;
        memcpy(address->bytes, &generation, 4);
    }
}

static struct table *make(const char *path)
{
    char new[512];

    snprintf(new, sizeof new, "%s.new", path);

    const int fd = open(new, O_RDWR | O_CREAT | O_TRUNC, 0644);

    if (fd < 0 || fchmod(fd, 0644) != 0 || ftruncate(fd, sizeof(struct table)) != 0)
        abort();

    struct table *table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    close(fd);
    table->header = (struct table_header){.magic = TABLE_MAGIC, .layout = TABLE_LAYOUT, .file_size = sizeof *table,
                                          .slot_offset = {offsetof(struct table, slots[0]),
                                                          offsetof(struct table, slots[1])},
                                          .slot_size = sizeof(struct content)};
    fill(&table->slots[0], 0);
    if (rename(new, path) != 0)
        abort();
    return table;
}

/* True: an answer, and it is of one publication. */
static bool read_once(struct view *view, uint32_t *generation)
{
    const struct question question = {.layout = PACKET_LAYOUT, .kind = QUESTION_HOST_BY_NAME, .name = "web"};
    struct host_answer host;

    switch (answer_from_view(view, &question, &host, NULL)) {
    case ANSWER_UNAVAILABLE:
        return false;
    case ANSWER_UNKNOWN:
        fputs("web is unknown\n", stderr);
        _exit(3);
    default:
        memcpy(generation, host.addresses[0].bytes, 4);
        if (host.address_count != INET_AT_HAND + ADDRESSES - *generation % 50) {
            fprintf(stderr, "%u addresses in publication %u\n", host.address_count, *generation);
            _exit(3);
        }
        for (uint32_t i = 0; i < host.address_count; i++)
            if (memcmp(host.addresses[i].bytes, generation, 4) != 0) {
                fprintf(stderr, "address %u is not of publication %u\n", i, *generation);
                _exit(3);
            }
        return true;
    }
}

static void read_while_published(const char *path, unsigned *changes)
{
    struct view view = {.path = path, .owner = geteuid()};
    uint32_t generation = 0, last = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (__atomic_load_n(changes, __ATOMIC_RELAXED) < CHANGES_SEEN)
        if (read_once(&view, &generation) && generation != last) {
            if (generation < last)
                _exit(4); /* time goes one way */
            last = generation;
            __atomic_fetch_add(changes, 1, __ATOMIC_RELAXED);
        }
    _exit(0);
}

/* Ends when the readers have seen enough publications, however little of the processors they get. */
static int torn(const char *path)
{
    struct table *table = make(path);
    unsigned *changes = mmap(NULL, sizeof *changes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint32_t generation = 0;
    int worst = 0, status;

    for (int i = 0; i < READERS; i++)
        if (fork() == 0)
            read_while_published(path, changes);
    for (int ended = 0; ended < READERS;) {
        struct content *slot = &table->slots[table_begin(&table->header)];

        fill(slot, ++generation);
        table_commit(&table->header);
        /* From no pause, where hardly any copy is whole, to some microseconds, where most are. */
        for (volatile uint32_t spin = generation % 2048; spin > 0; spin--)
            ;
        if (generation % 1024 == 0 && waitpid(-1, &status, WNOHANG) > 0) {
            ended++;
            if (status != 0) {
                worst = WIFEXITED(status) ? WEXITSTATUS(status) : 6;
                __atomic_store_n(changes, CHANGES_SEEN, __ATOMIC_RELAXED);
            }
        }
    }
    printf("%u publications\n", generation);
    return worst;
}

static struct view shared_view;
static bool stop;

static void *read_until_stopped(void *answers)
{
    uint32_t generation;

    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
        *(unsigned *)answers += read_once(&shared_view, &generation);
    return NULL;
}

static unsigned kept_files(const char *path)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    unsigned count = 0;

    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, path) != NULL;
    fclose(maps);
    return count;
}

static int replaced(const char *path)
{
    pthread_t threads[THREADS];
    unsigned answers[THREADS] = {0}, total = 0;
    struct table *table = make(path);

    shared_view = (struct view){.path = path, .owner = geteuid()};
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, read_until_stopped, &answers[i]);
    for (int i = 0; i < REPLACEMENTS; i++) {
        struct table *old = table;

        if (i % 3 == 0)
            unlink(path);
        else
            table = make(path);
        table_retire(&old->header);
        if (i % 3 == 0)
            table = make(path);
        munmap(old, sizeof *old);
        usleep(500);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        total += answers[i];
    }
    munmap(table, sizeof *table);

    const unsigned kept = kept_files(path);

    printf("%u answers, %u files mapped\n", total, kept);
    return total > 1000 && kept <= 1 ? 0 : 5;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    alarm(60);
    return strcmp(argv[1], "torn") == 0 ? torn(argv[2]) : replaced(argv[2]);
}
