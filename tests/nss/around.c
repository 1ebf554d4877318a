/* SPDX-License-Identifier: MIT */
/*
 * around CASE: look-ups in a process that is in trouble or makes some. The table of tables.py is at its place. Ends with 0
 * where every look-up gave what it should; a case that is to end by a signal does so by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netdb.h>
#include <nss.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNTOUCHED 4711
#define TABLE "/run/mymachines/table-2"
#define SOCKET "/run/mymachines/nss.sock"

enum { FIRST_UID = 1 << 20, THREADS = 3, FORKS = 200, SIGNALS = 300 };

enum nss_status _nss_mymachines_gethostbyname4_r(const char *, struct gaih_addrtuple **, char *, size_t, int *, int *,
                                                 int32_t *);
enum nss_status _nss_mymachines_getpwuid_r(uid_t, struct passwd *, char *, size_t, int *);
enum nss_status _nss_mymachines_getpwnam_r(const char *, struct passwd *, char *, size_t, int *);

/* --- look-ups --- */

/* All three say the same, SUCCESS with the right values or what there is without a table; anything else is fatal. */
static bool found_as_it_should(void)
{
    struct gaih_addrtuple *tuple = NULL;
    struct passwd by_id, by_name;
    char buffer[3][512];
    int error[3] = {UNTOUCHED, UNTOUCHED, UNTOUCHED}, h_error;

    errno = UNTOUCHED;

    const enum nss_status host = _nss_mymachines_gethostbyname4_r("web", &tuple, buffer[0], sizeof buffer[0], &error[0],
                                                                  &h_error, NULL);
    const enum nss_status id =
        _nss_mymachines_getpwuid_r(FIRST_UID + 7, &by_id, buffer[1], sizeof buffer[1], &error[1]);
    const enum nss_status name =
        _nss_mymachines_getpwnam_r("vu-web-7", &by_name, buffer[2], sizeof buffer[2], &error[2]);
    const bool found[] = {host == NSS_STATUS_SUCCESS, id == NSS_STATUS_SUCCESS, name == NSS_STATUS_SUCCESS};
    const bool all = found[0] && found[1] && found[2];

    if (errno != UNTOUCHED)
        _exit(10);
    for (int i = 0; i < 3; i++)
        if (!found[i] && error[i] != ENOENT)
            _exit(11);
    if (all && (strcmp(tuple->name, "web") != 0 || strcmp(by_id.pw_name, "vu-web-7") != 0 ||
                by_name.pw_uid != FIRST_UID + 7))
        _exit(12);
    if (!all && ((!found[0] && host != NSS_STATUS_UNAVAIL) || (!found[1] && id != NSS_STATUS_UNAVAIL) ||
                 (!found[2] && name != NSS_STATUS_UNAVAIL)))
        _exit(13);
    return all;
}

static void must(bool condition, int status)
{
    if (!condition)
        _exit(status);
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* --- memory: malloc of this program, which can be told to have none --- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);

#ifdef __SANITIZE_THREAD__
/* A map that is let go is replaced under its readers, which is what they are made for. The sanitizer takes mmap() for a
 * write of the whole place; so it does not see the shim's (-Dmmap=unseen_mmap). */
void *unseen_mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, offset);
}
#else
static bool no_memory;
static unsigned asked_for_memory;

static bool refuses(void)
{
    if (!__atomic_load_n(&no_memory, __ATOMIC_RELAXED))
        return false;
    asked_for_memory++;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return refuses() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return refuses() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return refuses() ? NULL : __libc_realloc(old, size);
}

static void case_malloc(void)
{
    no_memory = true;

    const bool found = found_as_it_should(); /* the first, which maps the table */
    const bool again = found_as_it_should();

    no_memory = false;
    must(found && again, 20);
    must(asked_for_memory == 0, 21);
}
#endif

static void limit(int resource, rlim_t value)
{
    struct rlimit limits;

    getrlimit(resource, &limits);
    limits.rlim_cur = value;
    must(setrlimit(resource, &limits) == 0, 3);
}

static void case_address_space(void)
{
    limit(RLIMIT_AS, 0);
    must(!found_as_it_should(), 20);       /* no room to map it */
    limit(RLIMIT_AS, RLIM_INFINITY);
    must(found_as_it_should(), 21);        /* which is not remembered */
    limit(RLIMIT_AS, 0);
    for (const double end = seconds() + 1.5; seconds() < end;)
        must(found_as_it_should(), 22);
}

static void *in_small_stack(void *unused)
{
    (void)unused;
    return found_as_it_should() ? NULL : "none";
}

static void case_small_stack(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    void *result;

    pthread_attr_init(&attributes);
    must(pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN) == 0, 3);
    must(pthread_create(&thread, &attributes, in_small_stack, NULL) == 0, 3);
    pthread_join(thread, &result);
    must(result == NULL, 20);
}

/* --- descriptors --- */

static void case_closed(void)
{
    closefrom(0);
    must(found_as_it_should(), 20);                     /* opens the table as 0, and closes it */
    must(open("/dev/null", O_RDONLY) == 0, 21);
    close(0);
    for (const double end = seconds() + 1.2; seconds() < end;) /* looks at the path too */
        must(found_as_it_should(), 22);
    unlink(TABLE);
    for (const double end = seconds() + 10; found_as_it_should();)
        must(seconds() < end, 23);
    must(open("/dev/null", O_RDONLY) == 0, 24);         /* nor does asking the daemon keep one */
}

static void case_no_descriptors(void)
{
    limit(RLIMIT_NOFILE, 3);
    must(!found_as_it_should(), 20);
    limit(RLIMIT_NOFILE, 64);
    must(found_as_it_should(), 21);
    limit(RLIMIT_NOFILE, 0);
    for (const double end = seconds() + 1.5; seconds() < end;)
        must(found_as_it_should(), 22);
}

/* --- fork and threads --- */

static bool stop;

static void *look_up_until_stopped(void *none)
{
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
        *(unsigned *)none += !found_as_it_should();
    return NULL;
}

static void with_threads(void (*meanwhile)(void), unsigned *none)
{
    pthread_t threads[THREADS];
    unsigned nones[THREADS] = {0};

    for (int i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, look_up_until_stopped, &nones[i]) == 0, 3);
    meanwhile();
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    *none = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        *none += nones[i];
    }
}

/* Whatever the other threads were in the middle of, they are not there in the child. */
static void fork_often(void)
{
    for (int i = 0; i < FORKS; i++) {
        const pid_t child = fork();
        int status;

        must(child >= 0, 3);
        if (child == 0) {
            alarm(20);
            for (int j = 0; j < 20; j++)
                must(found_as_it_should(), 20);
            _exit(0);
        }
        must(waitpid(child, &status, 0) == child && status == 0, 21);
    }
}

static void case_fork(void)
{
    unsigned none;

    with_threads(fork_often, &none);
    must(none == 0, 22);
}

/* The table comes and goes, under its name and by retirement, and without it the daemon is asked, who is not there. */
static void shake(void)
{
    for (int i = 0; i < 40; i++) {
        must(rename(TABLE, TABLE ".away") == 0, 3);
        usleep(i % 4 == 0 ? 300000 : 1000);
        must(rename(TABLE ".away", TABLE) == 0, 3);
        usleep(i % 4 == 2 ? 300000 : 1000);
    }
}

static void case_threads(void)
{
    unsigned none;

    with_threads(shake, &none);
    must(found_as_it_should(), 20);
}

/* --- signals --- */

static volatile sig_atomic_t signals;
static volatile bool look_up_in_handler;

static void on_alarm(int number)
{
    const int saved_errno = errno;

    (void)number;
    signals++;
    if (look_up_in_handler)
        must(found_as_it_should(), 30);
    errno = saved_errno;
}

static void ring(int flags, long microseconds)
{
    const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = flags};
    const struct itimerval timer = {{0, microseconds}, {0, microseconds}};

    signals = 0;
    must(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &timer, NULL) == 0, 3);
}

/* In the middle of look-ups come signals whose handlers look up as well. */
static void case_signals(void)
{
    look_up_in_handler = true;
    for (int restart = 0; restart < 2; restart++)
        for (ring(restart ? SA_RESTART : 0, 200); signals < SIGNALS;)
            must(found_as_it_should(), 20);
}

static void serve_slowly(void)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    const int listener = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    uint32_t question[25];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    must(bind(listener, (const struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 64) == 0, 3);
    for (;;) {
        const int connection = accept(listener, NULL, NULL);

        must(recv(connection, question, sizeof question, 0) == sizeof question, 3);
        usleep(20000);

        const uint32_t unknown[3] = {1, question[1], 1};

        send(connection, unknown, sizeof unknown, 0);
        close(connection);
    }
}

/* The daemon's reply comes through a rain of signals, whether system calls are restarted after them or not. */
static void case_signals_while_asking(void)
{
    const pid_t daemon = fork();
    struct passwd passwd;
    char buffer[512];
    int error;

    unlink(TABLE);
    if (daemon == 0)
        serve_slowly();
    for (const double end = seconds() + 10; access(SOCKET, F_OK) != 0;)
        must(seconds() < end, 3);
    for (int restart = 0; restart < 2; restart++) {
        const double end = seconds() + 20;

        ring(restart ? SA_RESTART : 0, 1000);
        /* On a busy machine the deadline may come first: then the daemon is taken for mute, for a second. */
        for (int answered = 0; answered < 10; must(seconds() < end, 20))
            answered += _nss_mymachines_getpwuid_r(FIRST_UID, &passwd, buffer, sizeof buffer, &error) ==
                        NSS_STATUS_NOTFOUND;
        must(signals > 5, 21);
    }
    kill(daemon, SIGKILL);
    waitpid(daemon, NULL, 0);
}

/* --- sandboxes --- */

/* Everything but read(2), exit(2), exit_group(2), and what `also` names, does what `action` says. */
static void filter(uint32_t action, uint32_t also)
{
    const struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, also, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {sizeof program / sizeof program[0], (struct sock_filter *)program};

    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0, 3);
}

/* clock_gettime(2) as the vDSO has it; where it makes a system call, a filter that kills would kill this test. */
static void look_up_for(double duration)
{
    for (const double end = seconds() + duration; seconds() < end;)
        must(found_as_it_should(), 20);
}

/* Within the second there is no system call at all. */
static void case_seccomp(void)
{
    for (int attempt = 0; attempt < 20; attempt++) {
        const double began = seconds();
        const pid_t child = fork();
        int status;

        if (child == 0) {
            must(found_as_it_should(), 20);
            filter(SECCOMP_RET_KILL_PROCESS, SYS_read);
            for (int i = 0; i < 1000; i++)
                must(found_as_it_should(), 21);
            _exit(0);
        }
        must(waitpid(child, &status, 0) == child, 3);
        if (status == 0)
            return;
        /* A busy machine may take the second. */
        must(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS && seconds() - began > 0.9, 22);
    }
    _exit(23);
}

/* And later one, lstat(2), which by glibc and architecture has one of several names. */
static void case_seccomp_allows_lstat(void)
{
    must(found_as_it_should(), 20);
#ifdef SYS_newfstatat
    filter(SECCOMP_RET_KILL_PROCESS, SYS_newfstatat);
#else
    filter(SECCOMP_RET_KILL_PROCESS, SYS_statx);
#endif
    look_up_for(2.5);
}

static void case_seccomp_kills_lstat(void)
{
    must(found_as_it_should(), 20);
    filter(SECCOMP_RET_KILL_PROCESS, SYS_read);
    look_up_for(2.5);
}

static void case_seccomp_errors(void)
{
    must(found_as_it_should(), 20);
    filter(SECCOMP_RET_ERRNO | EPERM, SYS_read);
    look_up_for(2.5);
}

static void case_chroot(void)
{
    must(mkdir("/run/empty", 0755) == 0 && chroot("/run/empty") == 0 && chdir("/") == 0, 3);
    must(!found_as_it_should(), 20);
}

static void case_chroot_later(void)
{
    must(found_as_it_should(), 20);
    must(mkdir("/run/empty", 0755) == 0 && chroot("/run/empty") == 0 && chdir("/") == 0, 3);
    for (const double end = seconds() + 10; found_as_it_should();) /* until it looks: a second at most */
        must(seconds() < end, 21);
}

/* --- a file that is cut short: root alone can do that --- */

static void case_cut_while_idle(void)
{
    must(found_as_it_should(), 20);
    must(truncate(TABLE, 0) == 0, 3);
    usleep(1200000);
    must(!found_as_it_should(), 21);
}

static void case_cut(void)
{
    must(found_as_it_should(), 20);
    must(truncate(TABLE, 0) == 0, 3);
    for (;;)
        found_as_it_should(); /* SIGBUS, at once; or it was a second ago, and there is no table */
}

static void case_cut_by_others(void)
{
    must(found_as_it_should(), 20);
    must(setgid(1234) == 0 && setuid(1234) == 0, 3);
    must(open(TABLE, O_RDWR) < 0 && errno == EACCES, 21);
    must(truncate(TABLE, 0) < 0 && errno == EACCES, 22);
    must(unlink(TABLE) < 0 && errno == EACCES, 23);
    must(rename(TABLE, TABLE ".away") < 0 && errno == EACCES, 24);
    must(found_as_it_should(), 25);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
#ifndef __SANITIZE_THREAD__
    {"malloc", case_malloc},
#endif
    {"address_space", case_address_space}, {"small_stack", case_small_stack}, {"closed", case_closed},
    {"no_descriptors", case_no_descriptors}, {"fork", case_fork}, {"threads", case_threads},
    {"signals", case_signals}, {"signals_while_asking", case_signals_while_asking}, {"seccomp", case_seccomp},
    {"seccomp_allows_lstat", case_seccomp_allows_lstat}, {"seccomp_kills_lstat", case_seccomp_kills_lstat},
    {"seccomp_errors", case_seccomp_errors}, {"chroot", case_chroot}, {"chroot_later", case_chroot_later},
    {"cut_while_idle", case_cut_while_idle}, {"cut", case_cut}, {"cut_by_others", case_cut_by_others},
};

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (size_t i = 0; argc == 2 && i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(cases[i].name, argv[1]) == 0) {
            cases[i].run();
            return 0;
        }
    return 2;
}
