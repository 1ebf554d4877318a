/* SPDX-License-Identifier: MIT */
/* Questions answered out of a table: what is asked, which records say so, and whether they held still meanwhile. */
#include "slot.h"
#include "view.h"

#include <string.h>
#include <sys/socket.h>

/* A copy is torn only where the daemon publishes twice while one look-up lasts: the reader was put off the processor in
 * the middle, and is not at the next try. Several in a row mean a writer gone mad: ask the daemon. */
#define READ_ATTEMPTS 8

#define USER_KINDS (1u << NAME_MACHINE | 1u << NAME_LABEL)

/* A question, checked and brought into the table's terms, once for all attempts. */
struct query {
    const struct question *question;
    bool group;
    uint32_t inside_id;
    uint32_t length;
    char name[68];           /* in lower case: the machine's name, alias or label */
};

static bool is_group(const struct question *question)
{
    return question->kind == QUESTION_GROUP_BY_NAME || question->kind == QUESTION_GROUP_BY_ID;
}

static bool set_name(struct query *query, const char *name, size_t length)
{
    if (length == 0 || length > MACHINE_NAME_MAX)
        return false;
    for (size_t i = 0; i < length; i++)
        query->name[i] = lower_case(name[i]);
    query->name[length] = '\0';
    query->length = (uint32_t)length;
    return true;
}

/* One trailing dot says that the name is complete, and is no part of it. */
static bool set_host_name(struct query *query, const char *name, size_t length)
{
    if (length > 0 && name[length - 1] == '.')
        length--;
    return set_name(query, name, length);
}

/* Digits only. Zeros in front and the like need no check here: the name that we form in the end will differ. */
static bool parse_id(const char *digits, size_t length, uint32_t *id)
{
    uint64_t value = 0;

    if (length == 0 || length > 10)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(digits[i] - '0');
    }
    *id = (uint32_t)value;
    return value <= ID_LAST;
}

static bool set_user_name(struct query *query, const char *name, size_t length)
{
    if (length > USER_NAME_MAX || strncmp(name, query->group ? "vg-" : "vu-", 3) != 0)
        return false;

    const char *dash = memrchr(name, '-', length);
    const char *machine = name + 3;

    if (dash < machine)
        return false;
    return parse_id(dash + 1, (size_t)(name + length - dash - 1), &query->inside_id) &&
           set_name(query, machine, (size_t)(dash - machine));
}

/* ANSWER_FOUND: worth a look into the table. The rest is settled without it, whether there is one or not. */
static enum answer_result prepare(const struct question *question, struct query *query)
{
    const size_t length = strnlen(question->name, sizeof question->name);
    bool sensible;

    query->question = question;
    query->group = is_group(question);
    if (question->layout != PACKET_LAYOUT)
        return ANSWER_UNAVAILABLE;
    switch (question->kind) {
    case QUESTION_HOST_BY_NAME:
        sensible = set_host_name(query, question->name, length);
        break;
    case QUESTION_HOST_BY_ADDRESS:
        sensible = question->family == AF_INET || question->family == AF_INET6;
        break;
    case QUESTION_USER_BY_NAME:
    case QUESTION_GROUP_BY_NAME:
        sensible = set_user_name(query, question->name, length);
        break;
    case QUESTION_USER_BY_ID:
    case QUESTION_GROUP_BY_ID:
        sensible = question->id >= HOST_ID_FIRST && question->id <= ID_LAST;
        break;
    default:
        return ANSWER_UNAVAILABLE;
    }
    return sensible ? ANSWER_FOUND : ANSWER_UNKNOWN;
}

static size_t format_id(uint32_t id, char digits[10])
{
    char reversed[10];
    size_t length = 0;

    do
        reversed[length++] = (char)('0' + id % 10);
    while ((id /= 10) != 0);
    for (size_t i = 0; i < length; i++)
        digits[i] = reversed[length - 1 - i];
    return length;
}

/* False: tools would refuse it. */
static bool form_user_name(bool group, const char *machine, uint32_t inside_id, char name[32])
{
    char digits[10];
    const size_t digits_length = format_id(inside_id, digits);
    const size_t length = strlen(machine);

    if (length == 0 || 3 + length + 1 + digits_length > USER_NAME_MAX || memchr(machine, '.', length) != NULL)
        return false;
    memcpy(name, group ? "vg-" : "vu-", 3);
    memcpy(name + 3, machine, length);
    name[3 + length] = '-';
    memcpy(name + 3 + length + 1, digits, digits_length);
    name[3 + length + 1 + digits_length] = '\0';
    return true;
}

static enum answer_result host_by_name(const struct slot *slot, const struct query *query, struct host_answer *host)
{
    uint32_t machine;
    enum answer_result result = slot_find_name(slot, query->name, query->length, HOST_KINDS, &machine);

    if (result == ANSWER_FOUND)
        result = slot_copy_name(slot, machine, host->name);
    if (result == ANSWER_FOUND)
        result = slot_copy_addresses(slot, machine, host);
    return result;
}

static enum answer_result host_by_address(const struct slot *slot, const struct query *query, struct host_answer *host)
{
    const struct question *question = query->question;
    uint32_t machine;
    enum answer_result result = slot_find_address(slot, question->family, question->bytes, host, &machine);

    if (result == ANSWER_FOUND)
        result = slot_copy_name(slot, machine, host->name);
    return result;
}

/* The one user name of (machine, id inside): of the label where a dot or the length rules the machine's name out. */
static enum answer_result name_of_id(const struct slot *slot, const struct query *query, uint32_t machine,
                                     struct id_answer *id)
{
    char label[20];
    enum answer_result result = slot_copy_name(slot, machine, id->machine);

    if (result != ANSWER_FOUND || form_user_name(query->group, id->machine, id->inside_id, id->name))
        return result;
    result = slot_copy_label(slot, machine, label);
    if (result == ANSWER_FOUND && !form_user_name(query->group, label, id->inside_id, id->name))
        result = ANSWER_UNKNOWN;
    return result;
}

static enum answer_result user_by_name(const struct slot *slot, const struct query *query, struct id_answer *id)
{
    uint32_t machine;
    enum answer_result result = slot_find_name(slot, query->name, query->length, USER_KINDS, &machine);

    if (result == ANSWER_FOUND)
        result = slot_host_id(slot, query->group, machine, query->inside_id, &id->host_id);
    if (result == ANSWER_FOUND && id->host_id < HOST_ID_FIRST)
        result = ANSWER_UNKNOWN;
    id->inside_id = query->inside_id;
    if (result == ANSWER_FOUND)
        result = name_of_id(slot, query, machine, id);
    /* Whatever else the name that was asked may stand for (other case, the label where the name serves, zeros in front
     * of the id), it is nobody's: one name for each user, or access lists by name can be walked around. */
    if (result == ANSWER_FOUND && strcmp(id->name, query->question->name) != 0)
        result = ANSWER_UNKNOWN;
    return result;
}

static enum answer_result user_by_id(const struct slot *slot, const struct query *query, struct id_answer *id)
{
    uint32_t machine;
    enum answer_result result = slot_find_id(slot, query->group, query->question->id, &machine, &id->inside_id);

    id->host_id = query->question->id;
    if (result == ANSWER_FOUND)
        result = name_of_id(slot, query, machine, id);
    return result;
}

static enum answer_result answer_from_slot(const struct slot *slot, const struct query *query,
                                           struct host_answer *host, struct id_answer *id)
{
    switch (query->question->kind) {
    case QUESTION_HOST_BY_NAME:
        return host_by_name(slot, query, host);
    case QUESTION_HOST_BY_ADDRESS:
        return host_by_address(slot, query, host);
    case QUESTION_USER_BY_NAME:
    case QUESTION_GROUP_BY_NAME:
        return user_by_name(slot, query, id);
    default:
        return user_by_id(slot, query, id);
    }
}

enum answer_result answer_from_view(struct view *view, const struct question *question, struct host_answer *host,
                                    struct id_answer *id)
{
    struct query query;
    enum answer_result result = prepare(question, &query);

    if (result != ANSWER_FOUND)
        return result;
    for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++) {
        const struct map *map = view_map(view);

        if (map == NULL)
            return ANSWER_UNAVAILABLE;

        const struct table_header *header = map->header;
        const uint32_t done = __atomic_load_n(&header->done, __ATOMIC_ACQUIRE);
        const struct slot slot = {(const uint8_t *)header + map->slot_offset[done % TABLE_SLOTS], map->slot_size};

        result = answer_from_slot(&slot, &query, host, id);

        /* No load above is done after the two below. A layout of 0: the map was released while we were inside. */
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&header->begun, __ATOMIC_RELAXED) - done < TABLE_SLOTS &&
            __atomic_load_n(&header->layout, __ATOMIC_RELAXED) == TABLE_LAYOUT)
            return result;
    }
    return ANSWER_UNAVAILABLE;
}
