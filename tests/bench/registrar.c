/* SPDX-License-Identifier: MIT */
/*
 * registrar varlink|dbus CLIENTS ROUNDS     registers machines, and times each call
 *
 * Standard input has a machine a line: name, leader's pid. CLIENTS processes share them out, each with one connection and
 * one call at a time. With ROUNDS above 1, each machine is registered and unregistered so often; of that only
 * registering is timed. Prints how many calls failed, and in nanoseconds what all took together, and of the registrations
 * the median and the 99th percentile. D-Bus is spoken by libsystemd, without its headers.
 */
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VARLINK_SOCKET "/run/systemd/machine/io.systemd.Machine"
#define BUS_NAME "org.freedesktop.machine1"

enum { NAME_MAX_LENGTH = 64, REPLY_MAX = 65536 };

struct machine {
    char name[NAME_MAX_LENGTH + 1];
    uint32_t leader;
};

/* Each returns whether it was done. */
struct protocol {
    const char *name;
    int (*open)(void), (*add)(const struct machine *), (*drop)(const struct machine *);
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

/* --- Varlink: JSON and a zero byte each way --- */

static int varlink;

static int varlink_open(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = VARLINK_SOCKET};

    varlink = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(varlink, (const struct sockaddr *)&address, sizeof address) == 0;
}

static int varlink_call(const char *text)
{
    static char reply[REPLY_MAX];
    const size_t length = strlen(text) + 1;
    size_t got = 0;

    if (send(varlink, text, length, MSG_NOSIGNAL) != (ssize_t)length)
        return 0;
    do {
        const ssize_t more = recv(varlink, reply + got, sizeof reply - got, 0);

        if (more <= 0)
            return 0;
        got += (size_t)more;
    } while (reply[got - 1] != 0);
    if (strstr(reply, "\"error\"") != NULL) {
        fprintf(stderr, "%s\n", reply);
        return 0;
    }
    return 1;
}

static int varlink_add(const struct machine *machine)
{
    char text[512];

    snprintf(text, sizeof text,
             "{\"method\":\"io.systemd.Machine.Register\",\"parameters\":"
             "{\"name\":\"%s\",\"class\":\"container\",\"leader\":%u}}",
             machine->name, machine->leader);
    return varlink_call(text);
}

static int varlink_drop(const struct machine *machine)
{
    char text[512];

    snprintf(text, sizeof text, "{\"method\":\"io.systemd.Machine.Unregister\",\"parameters\":{\"name\":\"%s\"}}",
             machine->name);
    return varlink_call(text);
}

/* --- D-Bus --- */

static void *bus;

static struct {
    int (*open)(void **);
    int (*call)(void *, const char *, const char *, const char *, const char *, void *, void **, const char *, ...);
} sd_bus;

static int dbus_open(void)
{
    void *library = dlopen("libsystemd.so.0", RTLD_NOW);

    if (library == NULL)
        return 0;
    *(void **)&sd_bus.open = dlsym(library, "sd_bus_open_system");
    *(void **)&sd_bus.call = dlsym(library, "sd_bus_call_method");
    return sd_bus.open != NULL && sd_bus.call != NULL && sd_bus.open(&bus) >= 0;
}

static int dbus_done(int result)
{
    if (result < 0)
        fprintf(stderr, "%s\n", strerror(-result));
    return result >= 0;
}

static int dbus_add(const struct machine *machine)
{
    return dbus_done(sd_bus.call(bus, BUS_NAME, "/org/freedesktop/machine1", BUS_NAME ".Manager", "RegisterMachine", NULL,
                                 NULL, "sayssus", machine->name, 0, "bench", "container", machine->leader, ""));
}

static int dbus_drop(const struct machine *machine)
{
    return dbus_done(sd_bus.call(bus, BUS_NAME, "/org/freedesktop/machine1", BUS_NAME ".Manager", "UnregisterMachine",
                                 NULL, NULL, "s", machine->name));
}

static const struct protocol protocols[] = {
    {"varlink", varlink_open, varlink_add, varlink_drop},
    {"dbus", dbus_open, dbus_add, dbus_drop},
};

/* --- clients --- */

struct shared {
    atomic_size_t failures, ready;
    double times[];
};

static void be_client(const struct protocol *protocol, const struct machine *machines, size_t count, size_t client,
                      size_t clients, size_t rounds, struct shared *shared)
{
    const int open = protocol->open();

    shared->ready++;
    while (shared->ready <= clients)
        usleep(100);
    for (size_t i = client; i < count; i += clients) {
        for (size_t round = 0; round < rounds; round++) {
            const double begin = now();
            int done = open && protocol->add(&machines[i]);

            shared->times[i * rounds + round] = now() - begin;
            if (done && rounds > 1)
                done = protocol->drop(&machines[i]);
            shared->failures += !done;
        }
    }
    _exit(0);
}

static int ascending(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    const struct protocol *protocol = NULL;
    struct machine *machines = NULL;
    size_t count = 0, room = 0;

    if (argc != 4)
        return 2;
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (strcmp(argv[1], protocols[i].name) == 0)
            protocol = &protocols[i];

    const size_t clients = strtoul(argv[2], NULL, 10), rounds = strtoul(argv[3], NULL, 10);

    for (struct machine next; scanf("%64s %u", next.name, &next.leader) == 2; machines[count++] = next)
        if (count == room && (machines = realloc(machines, (room = 2 * room + 16) * sizeof *machines)) == NULL)
            return 1;
    if (protocol == NULL || clients == 0 || rounds == 0 || count == 0)
        return 2;

    const size_t calls = count * rounds;
    struct shared *shared = mmap(NULL, sizeof *shared + calls * sizeof(double), PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED)
        return 1;
    for (size_t client = 0; client < clients; client++)
        if (fork() == 0)
            be_client(protocol, machines, count, client, clients, rounds, shared);
    while (shared->ready < clients)
        usleep(100);

    const double begin = now();

    shared->ready++;
    while (wait(NULL) > 0)
        continue;

    const double all = now() - begin;

    qsort(shared->times, calls, sizeof(double), ascending);
    printf("%zu %.0f %.0f %.0f\n", shared->failures, all, shared->times[calls / 2], shared->times[calls * 99 / 100]);
    return 0;
}
