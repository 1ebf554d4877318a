/* SPDX-License-Identifier: MIT */
/*
 * lookups MODE MODULE KIND CALLS KEYS     look-ups inside one process
 *
 * MODULE is an NSS module's name (mymachines, systemd, sss, files, ...), whose entry point is called as glibc calls it,
 * or libc, which asks whatever nsswitch.conf says. KIND is host (gethostbyname4_r, or getaddrinfo), user (getpwuid_r),
 * user-name (getpwnam_r), group (getgrgid_r), group-name (getgrnam_r). KEYS is a file with a key a line, which are asked
 * for in turn.
 *
 * MODE time: CALLS are made one by one, each timed; then ROUNDS of a tight loop. Prints how many of these found something,
 * and in nanoseconds what loading the module took, the first call, the median and 99th percentile of single calls (the
 * clock's own cost included), and the median over the rounds of a call's mean.
 * MODE clients=N: N processes make CALLS each, at once. Prints how many found something, and the nanoseconds from the
 * first call's begin to the last one's end, divided by all calls.
 * MODE watch: calls until SIGTERM, some 4,000 a second. Each waking up keeps what is watched from its processor: with
 * 12,000 a second, two such readers made a daemon's start longer by a fifth. Prints calls, how many found something, and
 * the longest call in nanoseconds.
 */
#include <dlfcn.h>
#include <grp.h>
#include <netdb.h>
#include <nss.h>
#include <pwd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 41, BUFFER = 16384, CLIENTS_MAX = 64, PAUSE_US = 200 };

struct key {
    char *name;
    uint32_t id;
};

static void *entry_point;
static char buffer[BUFFER];
static volatile sig_atomic_t stopped;

typedef enum nss_status host_call(const char *, struct gaih_addrtuple **, char *, size_t, int *, int *, int32_t *);
typedef enum nss_status user_call(uid_t, struct passwd *, char *, size_t, int *);
typedef enum nss_status user_name_call(const char *, struct passwd *, char *, size_t, int *);
typedef enum nss_status group_call(gid_t, struct group *, char *, size_t, int *);
typedef enum nss_status group_name_call(const char *, struct group *, char *, size_t, int *);

/* Each returns whether something was found. */

static int module_host(const struct key *key)
{
    struct gaih_addrtuple *addresses = NULL;
    int error, h_error;

    return ((host_call *)entry_point)(key->name, &addresses, buffer, BUFFER, &error, &h_error, NULL) ==
           NSS_STATUS_SUCCESS;
}

static int module_user(const struct key *key)
{
    struct passwd user;
    int error;

    return ((user_call *)entry_point)(key->id, &user, buffer, BUFFER, &error) == NSS_STATUS_SUCCESS;
}

static int module_user_name(const struct key *key)
{
    struct passwd user;
    int error;

    return ((user_name_call *)entry_point)(key->name, &user, buffer, BUFFER, &error) == NSS_STATUS_SUCCESS;
}

static int module_group(const struct key *key)
{
    struct group group;
    int error;

    return ((group_call *)entry_point)(key->id, &group, buffer, BUFFER, &error) == NSS_STATUS_SUCCESS;
}

static int module_group_name(const struct key *key)
{
    struct group group;
    int error;

    return ((group_name_call *)entry_point)(key->name, &group, buffer, BUFFER, &error) == NSS_STATUS_SUCCESS;
}

static int libc_host(const struct key *key)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    const int error = getaddrinfo(key->name, NULL, &hints, &addresses);

    if (error == 0)
        freeaddrinfo(addresses);
    return error == 0;
}

static int libc_user(const struct key *key)
{
    struct passwd user, *found = NULL;

    getpwuid_r(key->id, &user, buffer, BUFFER, &found);
    return found != NULL;
}

static int libc_user_name(const struct key *key)
{
    struct passwd user, *found = NULL;

    getpwnam_r(key->name, &user, buffer, BUFFER, &found);
    return found != NULL;
}

static int libc_group(const struct key *key)
{
    struct group group, *found = NULL;

    getgrgid_r(key->id, &group, buffer, BUFFER, &found);
    return found != NULL;
}

static int libc_group_name(const struct key *key)
{
    struct group group, *found = NULL;

    getgrnam_r(key->name, &group, buffer, BUFFER, &found);
    return found != NULL;
}

static const struct kind {
    const char *name, *symbol;
    int (*module)(const struct key *), (*libc)(const struct key *);
} kinds[] = {
    {"host", "gethostbyname4_r", module_host, libc_host},
    {"user", "getpwuid_r", module_user, libc_user},
    {"user-name", "getpwnam_r", module_user_name, libc_user_name},
    {"group", "getgrgid_r", module_group, libc_group},
    {"group-name", "getgrnam_r", module_group_name, libc_group_name},
};

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int ascending(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static size_t read_keys(const char *path, struct key **keys)
{
    FILE *file = fopen(path, "r");
    size_t count = 0, room = 0, length = 0;
    char *line = NULL;

    if (file == NULL)
        return 0;
    while (getline(&line, &length, file) > 0) {
        line[strcspn(line, "\n")] = 0;
        if (count == room && (*keys = realloc(*keys, (room = 2 * room + 16) * sizeof **keys)) == NULL)
            return 0;
        (*keys)[count++] = (struct key){strdup(line), (uint32_t)strtoul(line, NULL, 10)};
    }
    free(line);
    fclose(file);
    return count;
}

/* libnss_files is a part of libc since glibc 2.34; its entry points are there still, under a private version. */
static void *find_entry_point(const char *module, const char *name)
{
    char library[64], symbol[64];

    snprintf(library, sizeof library, "libnss_%s.so.2", module);
    snprintf(symbol, sizeof symbol, "_nss_%s_%s", module, name);

    void *handle = dlopen(library, RTLD_NOW), *found = handle == NULL ? NULL : dlsym(handle, symbol);

    return found != NULL ? found : dlvsym(RTLD_DEFAULT, symbol, "GLIBC_PRIVATE");
}

static int time_calls(int (*call)(const struct key *), const struct key *keys, size_t count, size_t calls, double loading)
{
    double *single = calloc(calls + 1, sizeof *single), rounds[ROUNDS], begin = now();
    const size_t each = calls / ROUNDS + 1;
    size_t at = 0, found = 0;

    if (single == NULL)
        return 1;
    found += (size_t)call(keys);

    const double first = now() - begin;

    for (size_t i = 0; i < calls; i++) {
        begin = now();
        found += (size_t)call(keys + at);
        single[i] = now() - begin;
        at = at + 1 == count ? 0 : at + 1;
    }
    qsort(single, calls, sizeof *single, ascending);
    for (int round = 0; round < ROUNDS; round++) {
        begin = now();
        for (size_t i = 0; calls > 0 && i < each; i++) {
            found += (size_t)call(keys + at);
            at = at + 1 == count ? 0 : at + 1;
        }
        rounds[round] = (now() - begin) / (double)each;
    }
    qsort(rounds, ROUNDS, sizeof *rounds, ascending);
    printf("%zu %.0f %.0f %.0f %.0f %.2f\n", found, loading, first, single[calls / 2], single[calls * 99 / 100],
           rounds[ROUNDS / 2]);
    free(single);
    return 0;
}

static int call_at_once(int (*call)(const struct key *), const struct key *keys, size_t count, size_t calls, int clients)
{
    struct {
        atomic_size_t ready, found;
    } *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status, failed = 0;

    if (shared == MAP_FAILED)
        return 1;
    for (int client = 0; client < clients; client++) {
        if (fork() == 0) {
            size_t found = 0, at = (size_t)client * count / (size_t)clients;

            shared->ready++;
            while (shared->ready <= (size_t)clients)
                usleep(100);
            for (size_t i = 0; i < calls; i++) {
                found += (size_t)call(keys + at);
                at = at + 1 == count ? 0 : at + 1;
            }
            shared->found += found;
            _exit(0);
        }
    }
    while (shared->ready < (size_t)clients)
        usleep(100);

    const double begin = now();

    shared->ready++;
    while (wait(&status) > 0)
        failed |= status;
    printf("%zu %.1f\n", shared->found, (now() - begin) / (double)(calls * (size_t)clients));
    return failed != 0;
}

static void on_signal(int number)
{
    stopped = number;
}

static int watch(int (*call)(const struct key *), const struct key *keys, size_t count)
{
    size_t calls = 0, found = 0;
    double longest = 0;

    signal(SIGTERM, on_signal);
    found += (size_t)call(keys);
    puts("watching");
    fflush(stdout);
    for (calls = 1; !stopped; calls++) {
        const double begin = now();

        found += (size_t)call(keys + calls % count);

        const double took = now() - begin;

        longest = took > longest ? took : longest;
        usleep(PAUSE_US);
    }
    printf("%zu %zu %.0f\n", calls, found, longest);
    return 0;
}

int main(int argc, char **argv)
{
    const struct kind *kind = NULL;
    struct key *keys = NULL;
    double loading = 0;

    if (argc != 6)
        return 2;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, argv[3]) == 0)
            kind = &kinds[i];

    const size_t calls = strtoul(argv[4], NULL, 10), count = read_keys(argv[5], &keys);
    int (*call)(const struct key *), clients;

    if (kind == NULL || count == 0)
        return 2;
    call = kind->libc;
    if (strcmp(argv[2], "libc") != 0) {
        const double begin = now();

        entry_point = find_entry_point(argv[2], kind->symbol);
        loading = now() - begin;
        if (entry_point == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 3;
        }
        call = kind->module;
    }
    if (strcmp(argv[1], "time") == 0)
        return time_calls(call, keys, count, calls, loading);
    if (strcmp(argv[1], "watch") == 0)
        return watch(call, keys, count);
    if (sscanf(argv[1], "clients=%d", &clients) == 1 && clients > 0 && clients <= CLIENTS_MAX)
        return call_at_once(call, keys, count, calls, clients);
    return 2;
}
