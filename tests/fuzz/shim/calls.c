/* SPDX-License-Identifier: MIT */
#include "calls.h"

#include "look_up.h"
#include "pack.h"
#include "world.h"

#include <sanitizer/asan_interface.h>
#include <stdlib.h>

enum { BUFFER_MAX = 8192, ALIGNMENTS = 16 };

enum nss_status _nss_mymachines_gethostbyname_r(const char *, struct hostent *, char *, size_t, int *, int *);
enum nss_status _nss_mymachines_gethostbyname2_r(const char *, int, struct hostent *, char *, size_t, int *, int *);
enum nss_status _nss_mymachines_gethostbyname3_r(const char *, int, struct hostent *, char *, size_t, int *, int *,
                                                 int32_t *, char **);
enum nss_status _nss_mymachines_gethostbyname4_r(const char *, struct gaih_addrtuple **, char *, size_t, int *, int *,
                                                 int32_t *);
enum nss_status _nss_mymachines_gethostbyaddr_r(const void *, socklen_t, int, struct hostent *, char *, size_t, int *,
                                                int *);
enum nss_status _nss_mymachines_gethostbyaddr2_r(const void *, socklen_t, int, struct hostent *, char *, size_t, int *,
                                                 int *, int32_t *);
enum nss_status _nss_mymachines_getpwnam_r(const char *, struct passwd *, char *, size_t, int *);
enum nss_status _nss_mymachines_getpwuid_r(uid_t, struct passwd *, char *, size_t, int *);
enum nss_status _nss_mymachines_getgrnam_r(const char *, struct group *, char *, size_t, int *);
enum nss_status _nss_mymachines_getgrgid_r(gid_t, struct group *, char *, size_t, int *);

struct question questions[QUESTIONS] = {
    {.kind = QUESTION_HOST_BY_NAME, .name = "web"},
    {.kind = QUESTION_HOST_BY_NAME, .name = "DB.example.org."},
    {.kind = QUESTION_HOST_BY_NAME, .name = "www.example"},
    {.kind = QUESTION_HOST_BY_NAME, .name = "nosuch"},
    {.kind = QUESTION_HOST_BY_ADDRESS, .family = AF_INET, .bytes = {10, 0, 0, 2}},
    {.kind = QUESTION_HOST_BY_ADDRESS, .family = AF_INET6, .bytes = {0xfd, [15] = 2}},
    {.kind = QUESTION_USER_BY_NAME, .name = "vu-web-0"},
    {.kind = QUESTION_USER_BY_NAME, .name = "vu-db-417-5"},
    {.kind = QUESTION_GROUP_BY_NAME, .name = "vg-web-0"},
    {.kind = QUESTION_USER_BY_ID, .id = 1048576},
    {.kind = QUESTION_USER_BY_ID, .id = 3145728},
    {.kind = QUESTION_USER_BY_ID, .id = 4294967294},
    {.kind = QUESTION_USER_BY_ID, .id = 65536},
    {.kind = QUESTION_GROUP_BY_ID, .id = 2097152},
};

void ask(const struct question *question, struct verdict *what)
{
    /* As the entry points have it: nothing of the last answer is left, and nothing that looks like one. */
    memset(&what->host, 0xa5, offsetof(struct host_answer, addresses));
    memset(&what->id, 0xa5, sizeof what->id);
    world_next_question();
    what->result = look_up(question, is_of_host(question) ? &what->host : NULL, is_of_host(question) ? NULL : &what->id);
    world_end_question();
}

/* --- entry points --- */

static _Alignas(ALIGNMENTS) char memory[BUFFER_MAX + 2 * ALIGNMENTS];

struct call {
    char *buffer;
    size_t size;
    enum nss_status status;
    int error, h_error;
};

static void must_hold(const struct call *call, const void *pointer, size_t size, size_t alignment)
{
    const char *at = pointer;

    if (at < call->buffer || at + size > call->buffer + call->size)
        wrong("a pointer out of the caller's buffer");
    if ((uintptr_t)at % alignment != 0)
        wrong("a pointer out of line");
}

static void must_be(const struct call *call, const char *string, const char *what)
{
    must_hold(call, string, 1, 1);
    must_hold(call, string, strlen(string) + 1, 1);
    if (what != NULL && strcmp(string, what) != 0)
        wrong("\"%s\" where it is \"%s\"", string, what);
}

/* Too small: only where it may be. `most` is more than the answer can need. */
static bool gives(const struct call *call, const struct verdict *verdict, bool something, size_t most)
{
    switch (call->status) {
    case NSS_STATUS_SUCCESS:
        if (verdict != NULL && (verdict->result != ANSWER_FOUND || !something))
            wrong("found where there is nothing");
        return true;
    case NSS_STATUS_TRYAGAIN:
        if (call->error != ERANGE || call->size >= most || (verdict != NULL && verdict->result != ANSWER_FOUND))
            wrong("another buffer is asked for, error %d, size %zu", call->error, call->size);
        return false;
    default:
        if (call->error != ENOENT || (verdict != NULL && verdict->result == ANSWER_FOUND && something))
            wrong("status %d, error %d", call->status, call->error);
        return false;
    }
}

static void call_hostent(const struct question *question, uint32_t choice, struct call *call,
                         const struct verdict *verdict)
{
    const bool by_name = question->kind == QUESTION_HOST_BY_NAME;
    int family = by_name ? (choice % 2 ? AF_INET6 : AF_INET) : (int)question->family;
    struct hostent host = {0};
    char *canonical = NULL;
    int32_t ttl = UNTOUCHED;

    if (by_name && choice % 8 < 2) {
        family = AF_INET;
        call->status = _nss_mymachines_gethostbyname_r(question->name, &host, call->buffer, call->size, &call->error,
                                                       &call->h_error);
    } else if (by_name && choice % 8 < 4) {
        call->status = _nss_mymachines_gethostbyname2_r(question->name, family, &host, call->buffer, call->size,
                                                        &call->error, &call->h_error);
    } else if (by_name) {
        call->status = _nss_mymachines_gethostbyname3_r(question->name, family, &host, call->buffer, call->size,
                                                        &call->error, &call->h_error, &ttl, &canonical);
        if (call->status == NSS_STATUS_SUCCESS && (ttl != 0 || canonical != host.h_name))
            wrong("no canonical name");
    } else if (choice % 2) {
        call->status = _nss_mymachines_gethostbyaddr_r(question->bytes, family == AF_INET ? 4 : 16, family, &host,
                                                       call->buffer, call->size, &call->error, &call->h_error);
    } else {
        call->status = _nss_mymachines_gethostbyaddr2_r(question->bytes, family == AF_INET ? 4 : 16, family, &host,
                                                        call->buffer, call->size, &call->error, &call->h_error, &ttl);
    }

    const uint32_t count = verdict != NULL && verdict->result == ANSWER_FOUND
                               ? count_addresses(&verdict->host, family)
                               : 0;

    if (!gives(call, verdict, count > 0, 16 + 130 * sizeof(char *) + 128 * 16 + 65))
        return;

    const size_t length = family == AF_INET ? 4 : 16;
    uint32_t given = 0, next = 0;

    must_be(call, host.h_name, verdict != NULL ? verdict->host.name : NULL);
    must_hold(call, host.h_aliases, sizeof(char *), _Alignof(char *));
    if (host.h_aliases[0] != NULL || host.h_addrtype != family || host.h_length != (int)length)
        wrong("an odd hostent");
    for (; must_hold(call, host.h_addr_list + given, sizeof(char *), _Alignof(char *)), host.h_addr_list[given] != NULL;
         given++) {
        must_hold(call, host.h_addr_list[given], length, 4);
        if (verdict == NULL)
            continue;
        /* The next of the family, and without a scope. */
        while (next < verdict->host.address_count && (verdict->host.addresses[next].family != (uint32_t)family ||
                                                      (verdict->host.addresses[next].flags & ADDRESS_SCOPED) != 0))
            next++;
        if (next == verdict->host.address_count ||
            memcmp(host.h_addr_list[given], verdict->host.addresses[next++].bytes, length) != 0)
            wrong("another address");
    }
    if (verdict != NULL && given != count)
        wrong("%u addresses of %u", given, count);
}

static void call_tuples(const struct question *question, uint32_t choice, struct call *call,
                        const struct verdict *verdict)
{
    struct gaih_addrtuple first = {.family = UNTOUCHED}, *tuple = choice % 2 ? &first : NULL;
    int32_t ttl = UNTOUCHED;

    call->status = _nss_mymachines_gethostbyname4_r(question->name, &tuple, call->buffer, call->size, &call->error,
                                                    &call->h_error, &ttl);
    if (!gives(call, verdict, verdict != NULL && verdict->host.address_count > 0,
               16 + 128 * sizeof(struct gaih_addrtuple) + 65))
        return;

    uint32_t given = 0;

    must_be(call, tuple->name, verdict != NULL ? verdict->host.name : NULL);
    for (const struct gaih_addrtuple *one = tuple; one != NULL; one = one->next, given++) {
        if (one != &first)
            must_hold(call, one, sizeof *one, _Alignof(struct gaih_addrtuple));
        if (verdict == NULL)
            continue;
        if (given >= verdict->host.address_count)
            wrong("addresses without end");

        const struct answer_address *address = &verdict->host.addresses[given];

        if (one->family != (int)address->family || one->scopeid != address->scope_id ||
            memcmp(one->addr, address->bytes, address->family == AF_INET ? 4 : 16) != 0)
            wrong("another address");
    }
    if (verdict != NULL && given != verdict->host.address_count)
        wrong("%u addresses", given);
}

static void call_user(const struct question *question, struct call *call, const struct verdict *verdict)
{
    const struct id_answer *id = verdict != NULL ? &verdict->id : NULL;
    const size_t most = 16 + sizeof(char *) + 32 + 3 + 160 + 2 + 18;
    struct passwd passwd = {0};
    struct group group = {0};

    switch (question->kind) {
    case QUESTION_USER_BY_NAME:
        call->status = _nss_mymachines_getpwnam_r(question->name, &passwd, call->buffer, call->size, &call->error);
        break;
    case QUESTION_USER_BY_ID:
        call->status = _nss_mymachines_getpwuid_r(question->id, &passwd, call->buffer, call->size, &call->error);
        break;
    case QUESTION_GROUP_BY_NAME:
        call->status = _nss_mymachines_getgrnam_r(question->name, &group, call->buffer, call->size, &call->error);
        break;
    default:
        call->status = _nss_mymachines_getgrgid_r(question->id, &group, call->buffer, call->size, &call->error);
        break;
    }
    if (!gives(call, verdict, true, most))
        return;
    if (question->kind == QUESTION_USER_BY_NAME || question->kind == QUESTION_USER_BY_ID) {
        must_be(call, passwd.pw_name, id != NULL ? id->name : NULL);
        must_be(call, passwd.pw_passwd, "!*");
        must_be(call, passwd.pw_gecos, NULL);
        must_be(call, passwd.pw_dir, "/");
        must_be(call, passwd.pw_shell, "/usr/sbin/nologin");
        if (passwd.pw_gid != NOBODY_ID || (id != NULL && passwd.pw_uid != id->host_id))
            wrong("another user");
    } else {
        must_be(call, group.gr_name, id != NULL ? id->name : NULL);
        must_be(call, group.gr_passwd, "!*");
        must_hold(call, group.gr_mem, sizeof(char *), _Alignof(char *));
        if (group.gr_mem[0] != NULL || (id != NULL && group.gr_gid != id->host_id))
            wrong("another group");
    }
}

void call_entry_point(const struct question *question, uint32_t choice, uint32_t size, uint32_t misaligned,
                      const struct verdict *verdict)
{
    struct call call = {.size = size % (BUFFER_MAX + 1), .error = UNTOUCHED, .h_error = UNTOUCHED};

    if (strnlen(question->name, sizeof question->name) == sizeof question->name)
        return;
    if (question->kind == QUESTION_HOST_BY_ADDRESS && question->family != AF_INET && question->family != AF_INET6)
        return;
    call.buffer = memory + misaligned % ALIGNMENTS;
    ASAN_POISON_MEMORY_REGION(memory, sizeof memory);
    ASAN_UNPOISON_MEMORY_REGION(call.buffer, call.size);
    world_next_question();
    if (!is_of_host(question))
        call_user(question, &call, verdict);
    else if (question->kind == QUESTION_HOST_BY_NAME && choice % 8 > 5)
        call_tuples(question, choice, &call, verdict);
    else
        call_hostent(question, choice, &call, verdict);
    world_end_question();
    ASAN_UNPOISON_MEMORY_REGION(memory, sizeof memory);
}
