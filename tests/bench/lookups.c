/* SPDX-License-Identifier: MIT */
/*
 * lookups MODULE KIND KEY CALLS     times look-ups inside one process
 *
 * MODULE is an NSS module's name (mymachines, systemd, files, ...), whose entry point is called as glibc calls it, or
 * libc, which asks whatever nsswitch.conf says. KIND is host (gethostbyname4_r, or getaddrinfo), user (getpwuid_r),
 * user-name (getpwnam_r), group (getgrgid_r). CALLS are made one by one, each timed; then in ROUNDS of a tight loop.
 *
 * Prints: the status of the last call (nss.h; of libc, 1 for found and 0 for not), and in nanoseconds the first call, the
 * median and 99th percentile of single calls (the clock's own cost included), and the median of the loop's mean.
 */
#include <dlfcn.h>
#include <grp.h>
#include <netdb.h>
#include <nss.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 21, BUFFER = 16384 };

static void *entry_point;
static const char *key;
static uint32_t id;
static char buffer[BUFFER];

typedef enum nss_status host_call(const char *, struct gaih_addrtuple **, char *, size_t, int *, int *, int32_t *);
typedef enum nss_status user_call(uid_t, struct passwd *, char *, size_t, int *);
typedef enum nss_status user_name_call(const char *, struct passwd *, char *, size_t, int *);
typedef enum nss_status group_call(gid_t, struct group *, char *, size_t, int *);

static int module_host(void)
{
    struct gaih_addrtuple *addresses = NULL;
    int error, h_error;

    return ((host_call *)entry_point)(key, &addresses, buffer, BUFFER, &error, &h_error, NULL);
}

static int module_user(void)
{
    struct passwd user;
    int error;

    return ((user_call *)entry_point)(id, &user, buffer, BUFFER, &error);
}

static int module_user_name(void)
{
    struct passwd user;
    int error;

    return ((user_name_call *)entry_point)(key, &user, buffer, BUFFER, &error);
}

static int module_group(void)
{
    struct group group;
    int error;

    return ((group_call *)entry_point)(id, &group, buffer, BUFFER, &error);
}

static int libc_host(void)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *addresses = NULL;
    const int error = getaddrinfo(key, NULL, &hints, &addresses);

    if (error == 0)
        freeaddrinfo(addresses);
    return error == 0;
}

static int libc_user(void)
{
    struct passwd user, *found = NULL;

    getpwuid_r(id, &user, buffer, BUFFER, &found);
    return found != NULL;
}

static int libc_user_name(void)
{
    struct passwd user, *found = NULL;

    getpwnam_r(key, &user, buffer, BUFFER, &found);
    return found != NULL;
}

static int libc_group(void)
{
    struct group group, *found = NULL;

    getgrgid_r(id, &group, buffer, BUFFER, &found);
    return found != NULL;
}

static const struct kind {
    const char *name, *symbol;
    int (*module)(void), (*libc)(void);
} kinds[] = {
    {"host", "gethostbyname4_r", module_host, libc_host},
    {"user", "getpwuid_r", module_user, libc_user},
    {"user-name", "getpwnam_r", module_user_name, libc_user_name},
    {"group", "getgrgid_r", module_group, libc_group},
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

int main(int argc, char **argv)
{
    const struct kind *kind = NULL;
    int (*call)(void), status = 0;

    if (argc != 5)
        return 2;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, argv[2]) == 0)
            kind = &kinds[i];
    if (kind == NULL)
        return 2;
    key = argv[3];
    id = (uint32_t)strtoul(key, NULL, 10);
    call = kind->libc;
    if (strcmp(argv[1], "libc") != 0) {
        char library[64], symbol[64];

        snprintf(library, sizeof library, "libnss_%s.so.2", argv[1]);
        snprintf(symbol, sizeof symbol, "_nss_%s_%s", argv[1], kind->symbol);
        void *module = dlopen(library, RTLD_NOW);

        if (module == NULL || (entry_point = dlsym(module, symbol)) == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 3;
        }
        call = kind->module;
    }

    const int calls = atoi(argv[4]);
    double *single = calloc((size_t)calls, sizeof *single), rounds[ROUNDS];
    double begin = now();

    status = call();

    const double first = now() - begin;

    for (int i = 0; i < calls; i++) {
        begin = now();
        status = call();
        single[i] = now() - begin;
    }
    qsort(single, (size_t)calls, sizeof *single, ascending);
    for (int round = 0; round < ROUNDS; round++) {
        const int each = calls / ROUNDS + 1;

        begin = now();
        for (int i = 0; i < each; i++)
            status = call();
        rounds[round] = (now() - begin) / each;
    }
    qsort(rounds, ROUNDS, sizeof *rounds, ascending);
    printf("%d %.0f %.0f %.0f %.1f\n", status, first, single[calls / 2], single[(size_t)calls * 99 / 100],
           rounds[ROUNDS / 2]);
    free(single);
    return 0;
}
