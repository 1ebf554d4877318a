/* SPDX-License-Identifier: MIT */
/*
 * readers SHIM QUESTIONS LOG PROCESSES THREADS RECORDS SECONDS
 *
 * Processes and the threads of one more process look up through the shim's entry points, and write down each answer with
 * its time, for truth.py to judge. Says "ready", and ends at the end of its input.
 *
 *     QUESTIONS   lines "kind key": host NAME, address IPV4, uid ID, user NAME, gid ID, group NAME
 *     LOG         made by us: struct head, then RECORDS of struct record for each reader, processes first
 *
 * RECORDS of each reader are spread over SECONDS, in bursts. After each look-up as much time is spent on nothing, between
 * the same two looks at the clock of processor time: what that shows is the machine's noise, not the look-up's work.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <nss.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { READERS_MAX = 256, QUESTIONS_MAX = 4096, BURST = 20, BLANK_ROUNDS = 1200, SLOW_NS = 1000000 };

struct head {
    uint32_t stop;
    uint32_t unused;
    struct reader {
        uint64_t blank_worst_ns;     /* processor time of the longest nothing */
        uint32_t records;            /* written */
        uint32_t blank_slow;         /* nothings of more than SLOW_NS */
        uint64_t blank_total_ns;
    } readers[READERS_MAX];
};

struct record {
    uint64_t start_ns;               /* CLOCK_MONOTONIC */
    uint32_t took_ns;
    uint32_t cpu_ns;                 /* CLOCK_THREAD_CPUTIME_ID */
    uint16_t question;
    uint16_t status;                 /* enum nss_status + 2 */
    uint32_t checksum;               /* of what was answered; 0 without NSS_STATUS_SUCCESS */
};

_Static_assert(sizeof(struct head) == 8 + 24 * READERS_MAX && sizeof(struct record) == 24, "as truth.py reads them");

enum kind { HOST, ADDRESS, UID, USER, GID, GROUP, KINDS };

static const char *const kind_names[KINDS] = {"host", "address", "uid", "user", "gid", "group"};

struct question {
    enum kind kind;
    uint32_t id;
    char key[80];
    struct in_addr address;
};

static struct question questions[QUESTIONS_MAX];
static uint32_t question_count, records_max;
static uint64_t pause_ns;
static struct head *head;
static struct record *records;

static enum nss_status (*gethostbyname4)(const char *, struct gaih_addrtuple **, char *, size_t, int *, int *, int32_t *);
static enum nss_status (*gethostbyaddr2)(const void *, socklen_t, int, struct hostent *, char *, size_t, int *, int *,
                                         int32_t *);
static enum nss_status (*getpwuid_)(uid_t, struct passwd *, char *, size_t, int *);
static enum nss_status (*getpwnam_)(const char *, struct passwd *, char *, size_t, int *);
static enum nss_status (*getgrgid_)(gid_t, struct group *, char *, size_t, int *);
static enum nss_status (*getgrnam_)(const char *, struct group *, char *, size_t, int *);

static uint32_t crc_table[256];

static void make_crc_table(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;

        for (int bit = 0; bit < 8; bit++)
            value = value & 1 ? 0xedb88320u ^ value >> 1 : value >> 1;
        crc_table[i] = value;
    }
}

/* zlib's crc32(), which Python has too. */
static uint32_t crc(uint32_t sum, const void *bytes, size_t length)
{
    sum = ~sum;
    for (const uint8_t *at = bytes; length > 0; length--)
        sum = crc_table[(sum ^ *at++) & 0xff] ^ sum >> 8;
    return ~sum;
}

/* Name, and each address with its scope, in whatever order. */
static uint32_t checksum_of_tuples(const struct gaih_addrtuple *tuple)
{
    uint32_t sum = crc(0, tuple->name, strlen(tuple->name));

    for (; tuple != NULL; tuple = tuple->next) {
        uint8_t bytes[24] = {0};
        const uint32_t family = (uint32_t)tuple->family;

        memcpy(bytes, &family, 4);
        memcpy(bytes + 4, tuple->addr, family == AF_INET ? 4 : 16);
        memcpy(bytes + 20, &tuple->scopeid, 4);
        sum += crc(0, bytes, sizeof bytes);
    }
    return sum;
}

static uint32_t checksum_of_name(const char *name, const char *gecos, uint32_t id)
{
    return crc(crc(crc(0, name, strlen(name)), gecos, strlen(gecos)), &id, 4);
}

static uint64_t nanoseconds(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static enum nss_status look_up(const struct question *question, char *buffer, size_t size, uint64_t *cpu_ns,
                               uint32_t *checksum)
{
    struct gaih_addrtuple *tuples = NULL;
    struct hostent host;
    struct passwd passwd;
    struct group group;
    int error, h_error;
    enum nss_status status = NSS_STATUS_UNAVAIL;
    const uint64_t before = nanoseconds(CLOCK_THREAD_CPUTIME_ID);

    switch (question->kind) {
    case HOST:
        status = gethostbyname4(question->key, &tuples, buffer, size, &error, &h_error, NULL);
        break;
    case ADDRESS:
        status = gethostbyaddr2(&question->address, 4, AF_INET, &host, buffer, size, &error, &h_error, NULL);
        break;
    case UID:
        status = getpwuid_(question->id, &passwd, buffer, size, &error);
        break;
    case USER:
        status = getpwnam_(question->key, &passwd, buffer, size, &error);
        break;
    case GID:
        status = getgrgid_(question->id, &group, buffer, size, &error);
        break;
    default:
        status = getgrnam_(question->key, &group, buffer, size, &error);
    }
    *cpu_ns = nanoseconds(CLOCK_THREAD_CPUTIME_ID) - before;
    *checksum = 0;
    if (status != NSS_STATUS_SUCCESS)
        return status;
    switch (question->kind) {
    case HOST:
        *checksum = checksum_of_tuples(tuples);
        break;
    case ADDRESS:
        *checksum = crc(0, host.h_name, strlen(host.h_name));
        break;
    case UID:
    case USER:
        *checksum = checksum_of_name(passwd.pw_name, passwd.pw_gecos, passwd.pw_uid);
        break;
    default:
        *checksum = checksum_of_name(group.gr_name, "", group.gr_gid);
    }
    return status;
}

static volatile uint32_t sink;

static uint64_t do_nothing(void)
{
    const uint64_t before = nanoseconds(CLOCK_THREAD_CPUTIME_ID);

    for (uint32_t i = 0; i < BLANK_ROUNDS; i++)
        sink = i;
    return nanoseconds(CLOCK_THREAD_CPUTIME_ID) - before;
}

static void read_until_stopped(uint32_t number)
{
    struct reader *reader = &head->readers[number];
    struct record *log = records + (size_t)number * records_max;
    char buffer[8192];
    uint64_t random = 0x9e3779b97f4a7c15u * (number + 1), next = nanoseconds(CLOCK_MONOTONIC);

    while (!__atomic_load_n(&head->stop, __ATOMIC_RELAXED) && reader->records < records_max) {
        for (int i = 0; i < BURST && reader->records < records_max; i++) {
            struct record *record = &log[reader->records];
            uint64_t cpu_ns;
            uint32_t checksum;

            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            record->question = (uint16_t)(random % question_count);
            record->start_ns = nanoseconds(CLOCK_MONOTONIC);
            record->status = (uint16_t)(look_up(&questions[record->question], buffer, sizeof buffer, &cpu_ns,
                                                &checksum) + 2);

            const uint64_t took = nanoseconds(CLOCK_MONOTONIC) - record->start_ns;

            record->took_ns = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
            record->cpu_ns = cpu_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)cpu_ns;
            record->checksum = checksum;
            reader->records++;

            const uint64_t nothing = do_nothing();

            if (nothing > reader->blank_worst_ns)
                reader->blank_worst_ns = nothing;
            reader->blank_slow += nothing > SLOW_NS;
            reader->blank_total_ns += nothing;
        }

        /* Half of the pauses are shorter than a change takes, half longer than it, so that all phases are met. */
        const uint64_t now = nanoseconds(CLOCK_MONOTONIC);

        next += pause_ns / 2 + random % (pause_ns + 1);
        if (next > now) {
            const struct timespec pause = {(time_t)((next - now) / 1000000000u), (long)((next - now) % 1000000000u)};

            nanosleep(&pause, NULL);
        }
    }
}

static void *thread_main(void *number)
{
    read_until_stopped((uint32_t)(uintptr_t)number);
    return NULL;
}

static void run_threads(uint32_t first, uint32_t count)
{
    pthread_t threads[READERS_MAX];

    for (uint32_t i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)(first + i)) != 0)
            _exit(4);
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void *symbol(void *shim, const char *name)
{
    void *found = dlsym(shim, name);

    if (found == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
    return found;
}

static void load(const char *path)
{
    void *shim = dlopen(path, RTLD_NOW);

    if (shim == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
    *(void **)&gethostbyname4 = symbol(shim, "_nss_mymachines_gethostbyname4_r");
    *(void **)&gethostbyaddr2 = symbol(shim, "_nss_mymachines_gethostbyaddr2_r");
    *(void **)&getpwuid_ = symbol(shim, "_nss_mymachines_getpwuid_r");
    *(void **)&getpwnam_ = symbol(shim, "_nss_mymachines_getpwnam_r");
    *(void **)&getgrgid_ = symbol(shim, "_nss_mymachines_getgrgid_r");
    *(void **)&getgrnam_ = symbol(shim, "_nss_mymachines_getgrnam_r");
}

static void read_questions(const char *path)
{
    FILE *file = fopen(path, "r");
    char kind[16];

    while (file != NULL && question_count < QUESTIONS_MAX &&
           fscanf(file, "%15s %79s", kind, questions[question_count].key) == 2) {
        struct question *question = &questions[question_count++];

        while (question->kind < KINDS && strcmp(kind, kind_names[question->kind]) != 0)
            question->kind++;
        question->id = (uint32_t)strtoul(question->key, NULL, 10);
        inet_pton(AF_INET, question->key, &question->address);
    }
    if (question_count == 0)
        exit(2);
    fclose(file);
}

int main(int argc, char **argv)
{
    if (argc != 8)
        return 2;

    const uint32_t processes = (uint32_t)atoi(argv[4]), threads = (uint32_t)atoi(argv[5]);
    const uint32_t readers = processes + threads;

    records_max = (uint32_t)atoi(argv[6]);
    pause_ns = (uint64_t)(atof(argv[7]) * 1e9) * BURST / records_max;
    if (readers > READERS_MAX)
        return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    make_crc_table();
    load(argv[1]);
    read_questions(argv[2]);

    const size_t size = sizeof(struct head) + (size_t)readers * records_max * sizeof(struct record);
    const int fd = open(argv[3], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 || posix_fallocate(fd, 0, (off_t)size) != 0)
        return 5;
    head = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (head == MAP_FAILED)
        return 5;
    records = (struct record *)(head + 1);

    for (uint32_t i = 0; i <= processes; i++) {
        const pid_t child = fork();

        if (child < 0)
            return 4;
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (i < processes)
                read_until_stopped(i);
            else
                run_threads(processes, threads);
            _exit(0);
        }
    }
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    __atomic_store_n(&head->stop, 1, __ATOMIC_RELAXED);

    int status, worst = 0;

    while (wait(&status) > 0)
        if (status != 0)
            worst = 3;
    return worst;
}
