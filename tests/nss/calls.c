/* SPDX-License-Identifier: MIT */
/*
 * calls SHIM LOOK-UPS NAME UID USER      calls the shim's entry points as glibc does: a host's name that is known and one
 * that is not, an id that is known and one that is not, a user's name. Between two calls of getppid(), LOOK-UPS in all,
 * for strace to count; then it prints the nanoseconds that each kind takes, the median of eleven rounds.
 */
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <nss.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 11, ROUND = 20000 };

typedef enum nss_status host_by_name(const char *, struct gaih_addrtuple **, char *, size_t, int *, int *, int32_t *);
typedef enum nss_status user_by_id(uid_t, struct passwd *, char *, size_t, int *);
typedef enum nss_status user_by_name(const char *, struct passwd *, char *, size_t, int *);

static host_by_name *gethostbyname4;
static user_by_id *getpwuid_;
static user_by_name *getpwnam_;
static const char *known_name, *known_user;
static uid_t known_uid;

static enum nss_status call(int kind)
{
    struct gaih_addrtuple *tuples = NULL;
    struct passwd passwd;
    char buffer[8192];
    int h_error;

    switch (kind) {
    case 0:
        return gethostbyname4(known_name, &tuples, buffer, sizeof buffer, &errno, &h_error, NULL);
    case 1:
        return gethostbyname4("www.example.com", &tuples, buffer, sizeof buffer, &errno, &h_error, NULL);
    case 2:
        return getpwuid_(known_uid, &passwd, buffer, sizeof buffer, &errno);
    case 3:
        return getpwuid_(4000000000u, &passwd, buffer, sizeof buffer, &errno);
    default:
        return getpwnam_(known_user, &passwd, buffer, sizeof buffer, &errno);
    }
}

static const struct {
    const char *name;
    enum nss_status status;
} kinds[] = {
    {"known-host", NSS_STATUS_SUCCESS}, {"unknown-host", NSS_STATUS_UNAVAIL}, {"uid-to-user", NSS_STATUS_SUCCESS},
    {"unknown-uid", NSS_STATUS_NOTFOUND}, {"user-to-uid", NSS_STATUS_SUCCESS},
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

static int compare(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    void *shim = argc == 6 ? dlopen(argv[1], RTLD_NOW) : NULL;

    if (shim == NULL)
        return 2;
    gethostbyname4 = (host_by_name *)dlsym(shim, "_nss_mymachines_gethostbyname4_r");
    getpwuid_ = (user_by_id *)dlsym(shim, "_nss_mymachines_getpwuid_r");
    getpwnam_ = (user_by_name *)dlsym(shim, "_nss_mymachines_getpwnam_r");
    known_name = argv[3];
    known_uid = (uid_t)strtoul(argv[4], NULL, 10);
    known_user = argv[5];

    for (int kind = 0; kind < KINDS; kind++) /* the first call maps the table */
        if (call(kind) != kinds[kind].status) {
            fprintf(stderr, "%s: another status\n", kinds[kind].name);
            return 3;
        }
    getppid();
    for (int i = atoi(argv[2]); i > 0; i--)
        if (call(i % KINDS) != kinds[i % KINDS].status)
            return 4;
    getppid();
    for (int kind = 0; kind < KINDS; kind++) {
        double rounds[ROUNDS];

        for (int round = 0; round < ROUNDS; round++) {
            const double start = seconds();

            for (int i = 0; i < ROUND; i++)
                if (call(kind) != kinds[kind].status)
                    return 4;
            rounds[round] = (seconds() - start) / ROUND * 1e9;
        }
        qsort(rounds, ROUNDS, sizeof rounds[0], compare);
        printf("%s %.0f\n", kinds[kind].name, rounds[ROUNDS / 2]);
    }
    return 0;
}
