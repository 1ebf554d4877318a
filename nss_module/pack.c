/* SPDX-License-Identifier: MIT */
#include "pack.h"

#include <string.h>
#include <sys/socket.h>

/* Locked, and no hash that any password has: crypt(5). */
#define PASSWORD_LOCKED "!*"
#define HOME "/"
#define SHELL "/usr/sbin/nologin"

struct space {
    char *at;
    size_t left;
};

/* NULL: does not fit. */
static void *take(struct space *space, size_t size, size_t alignment)
{
    const size_t gap = -(uintptr_t)space->at & (alignment - 1);

    if (space->left < gap || space->left - gap < size)
        return NULL;

    char *taken = space->at + gap;

    space->at = taken + size;
    space->left -= gap + size;
    return taken;
}

static char *take_string(struct space *space, const char *string)
{
    const size_t size = strlen(string) + 1;
    char *taken = take(space, size, 1);

    return taken != NULL ? memcpy(taken, string, size) : NULL;
}

static bool is_usable(const struct answer_address *address, int family)
{
    if (family == AF_UNSPEC)
        return true;
    return address->family == (uint32_t)family && (address->flags & ADDRESS_SCOPED) == 0;
}

uint32_t count_addresses(const struct host_answer *answer, int family)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < answer->address_count; i++)
        count += is_usable(&answer->addresses[i], family);
    return count;
}

bool pack_hostent(const struct host_answer *answer, int family, struct hostent *host, char *buffer, size_t size)
{
    struct space space = {buffer, size};
    const size_t length = family == AF_INET ? 4 : 16;
    const uint32_t count = count_addresses(answer, family);
    /* Two lists, each ended by NULL: the addresses, and no aliases. */
    char **pointers = take(&space, (count + 2) * sizeof *pointers, _Alignof(char *));
    char *bytes = take(&space, count * length, _Alignof(uint32_t)); /* read as struct in_addr, in6_addr */
    char *name = take_string(&space, answer->name);

    if (pointers == NULL || bytes == NULL || name == NULL)
        return false;

    char **next = pointers;

    for (uint32_t i = 0; i < answer->address_count; i++)
        if (is_usable(&answer->addresses[i], family)) {
            *next++ = memcpy(bytes, answer->addresses[i].bytes, length);
            bytes += length;
        }
    next[0] = next[1] = NULL;
    *host = (struct hostent){.h_name = name, .h_aliases = next + 1, .h_addrtype = family, .h_length = (int)length,
                             .h_addr_list = pointers};
    return true;
}

bool pack_tuples(const struct host_answer *answer, struct gaih_addrtuple **tuple, char *buffer, size_t size)
{
    struct space space = {buffer, size};
    const uint32_t count = answer->address_count;
    struct gaih_addrtuple *first = *tuple;
    const uint32_t ours = first != NULL ? count - 1 : count;
    struct gaih_addrtuple *rest = take(&space, ours * sizeof *rest, _Alignof(struct gaih_addrtuple));
    char *name = take_string(&space, answer->name);

    if (rest == NULL || name == NULL)
        return false;
    if (first == NULL)
        first = rest++;

    struct gaih_addrtuple *current = first;

    for (uint32_t i = 0; i < count; i++) {
        const struct answer_address *address = &answer->addresses[i];

        *current = (struct gaih_addrtuple){.name = i == 0 ? name : NULL, .family = (int)address->family,
                                           .scopeid = address->scope_id};
        memcpy(current->addr, address->bytes, address->family == AF_INET ? 4 : 16);
        if (i + 1 < count) {
            current->next = rest++;
            current = current->next;
        }
    }
    *tuple = first;
    return true;
}

/* "UID 1000 of Container web": what userdb says of the same user. */
static char *take_gecos(struct space *space, const struct id_answer *answer)
{
    const char *before = "UID ", *between = " of Container ";
    char digits[11], *number = digits + sizeof digits - 1;
    uint32_t id = answer->inside_id;

    *number = '\0';
    do
        *--number = (char)('0' + id % 10);
    while ((id /= 10) != 0);

    char *taken = take(space, strlen(before) + strlen(number) + strlen(between) + strlen(answer->machine) + 1, 1);

    if (taken != NULL)
        stpcpy(stpcpy(stpcpy(stpcpy(taken, before), number), between), answer->machine);
    return taken;
}

bool pack_passwd(const struct id_answer *answer, struct passwd *passwd, char *buffer, size_t size)
{
    struct space space = {buffer, size};
    const struct passwd packed = {
        .pw_name = take_string(&space, answer->name),
        .pw_passwd = take_string(&space, PASSWORD_LOCKED),
        .pw_uid = answer->host_id,
        .pw_gid = NOBODY_ID,
        .pw_gecos = take_gecos(&space, answer),
        .pw_dir = take_string(&space, HOME),
        .pw_shell = take_string(&space, SHELL),
    };

    if (packed.pw_name == NULL || packed.pw_passwd == NULL || packed.pw_gecos == NULL || packed.pw_dir == NULL ||
        packed.pw_shell == NULL)
        return false;
    *passwd = packed;
    return true;
}

bool pack_group(const struct id_answer *answer, struct group *group, char *buffer, size_t size)
{
    struct space space = {buffer, size};
    char **members = take(&space, sizeof *members, _Alignof(char *));
    char *name = take_string(&space, answer->name);
    char *password = take_string(&space, PASSWORD_LOCKED);

    if (members == NULL || name == NULL || password == NULL)
        return false;
    members[0] = NULL;
    *group = (struct group){.gr_name = name, .gr_passwd = password, .gr_gid = answer->host_id, .gr_mem = members};
    return true;
}
