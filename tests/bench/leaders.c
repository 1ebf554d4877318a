/* SPDX-License-Identifier: MIT */
/*
 * leaders COUNT NETWORKS FIRST_ID CGROUP     many leaders of machines, as cheaply as the kernel makes them
 *
 * Each is a process with a user namespace of its own, of 65536 ids from FIRST_ID on. The first NETWORKS have network
 * namespaces of their own, and those after them join these in turn; without NETWORKS, all stay in the caller's. Where
 * CGROUP is not "-", it is a directory of cgroup v2, and each leader is in a group of its own there, m0.scope, m1.scope
 * and so on.
 *
 * Prints a pid a line, then "made". A line on standard input has the interface host0 of each network namespace
 * configured, which somebody else has made by then: network n has the addresses 10.0.0.0 + 8 n + 2, 3 and 4, /29. Prints
 * "configured". At the end of standard input, or with its parent, it ends with all leaders.
 */
#include "address.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { IDS = 65536, NETWORK_SIZE = 8, PREFIX = 29, ADDRESSES = 3 };

static void fail(const char *what, long number)
{
    fprintf(stderr, "leader %ld: %s: %s\n", number, what, strerror(errno));
    exit(1);
}

static int open_in(const char *pattern, long number, int flags)
{
    char path[512];

    snprintf(path, sizeof path, pattern, number);
    return open(path, flags | O_CLOEXEC);
}

static void write_map(const char *pattern, pid_t pid, long first)
{
    char text[64];
    const int length = snprintf(text, sizeof text, "0 %ld %d\n", first, IDS), file = open_in(pattern, pid, O_WRONLY);

    if (file < 0 || write(file, text, (size_t)length) != length)
        fail("id map", pid);
    close(file);
}

static int make_group(const char *parent, long number)
{
    char path[512];

    snprintf(path, sizeof path, "%s/m%ld.scope", parent, number);
    if (mkdir(path, 0755) < 0)
        fail(path, number);

    const int group = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (group < 0)
        fail(path, number);
    return group;
}

static pid_t make_leader(long number, int own_network, long first_id, const char *parent_group)
{
    struct clone_args args = {.flags = CLONE_NEWUSER | (own_network ? CLONE_NEWNET : 0), .exit_signal = SIGCHLD};
    const int grouped = strcmp(parent_group, "-") != 0;

    if (grouped) {
        args.flags |= CLONE_INTO_CGROUP;    /* moving a process afterwards takes milliseconds */
        args.cgroup = (__u64)make_group(parent_group, number);
    }

    const pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);

    if (pid < 0)
        fail("clone3", number);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    if (grouped)
        close((int)args.cgroup);
    write_map("/proc/%ld/gid_map", pid, first_id);
    write_map("/proc/%ld/uid_map", pid, first_id);
    return pid;
}

static void bring_up(int sock, const char *interface)
{
    struct ifreq request = {.ifr_flags = IFF_UP | IFF_RUNNING};

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    if (ioctl(sock, SIOCSIFFLAGS, &request) < 0)
        fail(interface, 0);
}

static void configure(long network)
{
    const int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int kernel = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    const unsigned index = if_nametoindex("host0");
    const uint32_t base = 0x0a000000U + (uint32_t)network * NETWORK_SIZE;

    if (sock < 0 || kernel < 0 || index == 0)
        fail("socket", network);
    for (uint32_t last = 2; last < 2 + ADDRESSES; last++)
        if (change_address(kernel, RTM_NEWADDR, index, htonl(base + last), PREFIX) != 0)
            fail("address", network);
    bring_up(sock, "lo");
    bring_up(sock, "host0");
    close(kernel);
    close(sock);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;

    const long count = atol(argv[1]), networks = atol(argv[2]), first_id = atol(argv[3]);
    const int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int *spaces = calloc((size_t)networks + 1, sizeof *spaces);
    pid_t *pids = calloc((size_t)count + 1, sizeof *pids);
    char line[16];
    struct rlimit files = {(rlim_t)networks + 64, (rlim_t)networks + 64};

    if (home < 0 || spaces == NULL || pids == NULL || setrlimit(RLIMIT_NOFILE, &files) < 0)
        fail("start", 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGCHLD, SIG_IGN);
    for (long i = 0; i < count; i++) {
        const int own = i < networks;

        if (!own && networks > 0 && setns(spaces[i % networks], CLONE_NEWNET) < 0)
            fail("setns", i);

        pids[i] = make_leader(i, own, first_id + i * IDS, argv[4]);
        if (own && (spaces[i] = open_in("/proc/%ld/ns/net", pids[i], O_RDONLY)) < 0)
            fail("network namespace", i);
        printf("%d\n", pids[i]);
    }
    puts("made");
    fflush(stdout);
    if (fgets(line, sizeof line, stdin) != NULL) {
        for (long i = 0; i < networks; i++) {
            if (setns(spaces[i], CLONE_NEWNET) < 0)
                fail("setns", i);
            configure(i);
        }
        if (setns(home, CLONE_NEWNET) < 0)
            fail("setns", 0);
        puts("configured");
        fflush(stdout);
    }
    while (fgets(line, sizeof line, stdin) != NULL)
        continue;
    for (long i = 0; i < count; i++)
        kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)      /* none is left for whoever adopts orphans */
        continue;
    return 0;
}
