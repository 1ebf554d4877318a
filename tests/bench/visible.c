/* SPDX-License-Identifier: MIT */
/*
 * visible LEADER NAME INTERFACE ADDRESS TIMES     from an address change in a guest to the answer
 *
 * Adds ADDRESS to INTERFACE in the network namespace of LEADER, asks libnss_mymachines for NAME until it is in the answer,
 * removes it, asks until it is gone; TIMES times. Prints the nanoseconds, a change a line, from just before the kernel is
 * asked; additions and removals take turns. In between is a pause of PAUSE_US to twice that: a guest that goes on changing
 * without one has a twentieth of the daemon's time, and waits (resolver/host/addresses.py).
 */
#include "address.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <net/if.h>
#include <netdb.h>
#include <nss.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 16384, PREFIX = 24, PAUSE_US = 50000 };

static const double PATIENCE_NS = 10e9;

typedef enum nss_status host_call(const char *, struct gaih_addrtuple **, char *, size_t, int *, int *, int32_t *);

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int has(host_call *look_up, const char *name, uint32_t address)
{
    char buffer[BUFFER];
    struct gaih_addrtuple *found = NULL;
    int error, h_error;

    if (look_up(name, &found, buffer, sizeof buffer, &error, &h_error, NULL) != NSS_STATUS_SUCCESS)
        return 0;
    for (; found != NULL; found = found->next)
        if (found->family == AF_INET && found->addr[0] == address)
            return 1;
    return 0;
}

int main(int argc, char **argv)
{
    char path[64];

    if (argc != 6)
        return 2;
    snprintf(path, sizeof path, "/proc/%s/ns/net", argv[1]);

    const int home = open("/proc/self/ns/net", O_RDONLY), guest = open(path, O_RDONLY);
    void *module = dlopen("libnss_mymachines.so.2", RTLD_NOW);
    host_call *look_up = module == NULL ? NULL : (host_call *)dlsym(module, "_nss_mymachines_gethostbyname4_r");

    if (look_up == NULL || home < 0 || guest < 0 || setns(guest, CLONE_NEWNET) < 0) {
        perror("visible");
        return 1;
    }

    const int kernel = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    const unsigned index = if_nametoindex(argv[3]);
    const uint32_t address = inet_addr(argv[4]);

    if (kernel < 0 || index == 0 || setns(home, CLONE_NEWNET) < 0) {
        perror("visible");
        return 1;
    }
    for (int i = 0; i < 2 * atoi(argv[5]); i++) {
        const int adding = i % 2 == 0;

        usleep((useconds_t)(PAUSE_US + rand() % PAUSE_US));

        const double begin = now();

        if (change_address(kernel, adding ? RTM_NEWADDR : RTM_DELADDR, index, address, PREFIX)) {
            fprintf(stderr, "the kernel refuses the change\n");
            return 1;
        }
        while (has(look_up, argv[2], address) != adding) {
            if (now() - begin > PATIENCE_NS) {
                fprintf(stderr, "not visible in time\n");
                return 1;
            }
            sched_yield();
        }
        printf("%.0f\n", now() - begin);
    }
    return 0;
}
