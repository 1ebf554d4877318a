/* SPDX-License-Identifier: MIT */
#include "judge.h"

#include "world.h"

#define ID_LAST 4294967294u
#define NOTHING UINT64_MAX       /* no such record, no such section */

struct pool {
    const uint8_t *first;
    uint64_t count, size;
    bool sound;
};

struct slot_image {
    const uint8_t *bytes;
    uint64_t size;
};

#define POOL(image, section, type) pool_at((image), offsetof(struct slot_header, section), sizeof(type))
#define FIELD(pool, index, type, field) number((pool), (index), offsetof(type, field))

static struct pool pool_at(const struct slot_image *image, uint64_t where, uint64_t size)
{
    uint32_t section[2];

    if (image->size < sizeof(struct slot_header))
        return (struct pool){.sound = false};
    memcpy(section, image->bytes + where, sizeof section);
    if (section[0] % 4 != 0 || section[0] + section[1] * size > image->size)
        return (struct pool){.sound = false};
    return (struct pool){image->bytes + section[0], section[1], size, true};
}

static const uint8_t *record(const struct pool *pool, uint64_t index)
{
    if (index >= pool->count)
        wrong("the judge looks beyond a section");
    return pool->first + index * pool->size;
}

static uint32_t number(const struct pool *pool, uint64_t index, uint64_t offset)
{
    uint32_t value;

    memcpy(&value, record(pool, index) + offset, sizeof value);
    return value;
}

bool is_of_host(const struct question *question)
{
    return question->kind == QUESTION_HOST_BY_NAME || question->kind == QUESTION_HOST_BY_ADDRESS;
}

static bool of_group(const struct question *question)
{
    return question->kind == QUESTION_GROUP_BY_NAME || question->kind == QUESTION_GROUP_BY_ID;
}

static bool by_name(const struct question *question)
{
    return question->kind == QUESTION_USER_BY_NAME || question->kind == QUESTION_GROUP_BY_NAME;
}

/* --- the question --- */

/* The machine's part of the name that is asked for, in lower case, and the id inside. */
struct asked {
    char name[69];
    uint64_t inside;
};

static bool parse_host(const char *text, size_t length, struct asked *asked)
{
    if (length > 0 && text[length - 1] == '.')
        length--;
    if (length < 1 || length > 64)
        return false;
    memset(asked->name, 0, sizeof asked->name);
    for (size_t i = 0; i < length; i++)
        asked->name[i] = (char)(text[i] >= 'A' && text[i] <= 'Z' ? text[i] | 0x20 : text[i]);
    return true;
}

/* v[ug]-MACHINE-DIGITS */
static bool parse_user(const char *text, size_t length, bool group, struct asked *asked)
{
    size_t digits = 0;
    uint64_t scale = 1;

    if (length > 31 || length < 6 || text[0] != 'v' || text[1] != (group ? 'g' : 'u') || text[2] != '-')
        return false;
    for (asked->inside = 0; digits < length && text[length - 1 - digits] != '-'; digits++, scale *= 10) {
        const char digit = text[length - 1 - digits];

        if (digit < '0' || digit > '9' || digits >= 10)
            return false;
        asked->inside += scale * (uint64_t)(digit - '0');
    }
    if (digits == 0 || digits + 1 + 3 >= length || asked->inside > ID_LAST)
        return false;
    /* A trailing dot is part of it here, unlike in a host's name. */
    const size_t machine = length - digits - 1 - 3;
    char copy[32] = {0};

    memcpy(copy, text + 3, machine);
    copy[machine] = '.';
    return parse_host(copy, machine + 1, asked);
}

static bool understand(const struct question *question, struct asked *asked)
{
    const size_t length = strnlen(question->name, sizeof question->name);

    switch (question->kind) {
    case QUESTION_HOST_BY_NAME:
        return parse_host(question->name, length, asked);
    case QUESTION_HOST_BY_ADDRESS:
        return question->family == 2 || question->family == 10;
    case QUESTION_USER_BY_NAME:
    case QUESTION_GROUP_BY_NAME:
        return parse_user(question->name, length, of_group(question), asked);
    default:
        return question->id >= 65536 && question->id <= ID_LAST;
    }
}

bool judge_question(const struct question *question, struct verdict *verdict)
{
    struct asked asked;

    verdict->result = ANSWER_UNAVAILABLE;
    if (question->layout != 1 || question->kind < QUESTION_HOST_BY_NAME || question->kind > QUESTION_GROUP_BY_ID)
        return true;
    if (understand(question, &asked))
        return false;
    verdict->result = ANSWER_UNKNOWN;
    return true;
}

/* --- the slot --- */

/* A value of a result for whom the slot contradicts its grammar. */
#define BAD ANSWER_UNAVAILABLE

static enum answer_result first_of(const struct pool *buckets, uint32_t hash, uint64_t *index)
{
    *index = 0;
    if (buckets->count == 0)
        return ANSWER_FOUND;
    if (__builtin_popcountll(buckets->count) != 1)
        return BAD;
    *index = number(buckets, hash % buckets->count, 0);
    return ANSWER_FOUND;
}

/* The name's record, of a kind in the set. */
static enum answer_result find_name(const struct slot_image *image, const char *name, unsigned kinds, uint64_t *machine)
{
    const struct pool buckets = POOL(image, name_buckets, uint32_t), names = POOL(image, names, struct name_record);
    const uint32_t hash = table_hash_name(name, (uint32_t)strlen(name));
    uint64_t index, seen = 0;

    if (!buckets.sound || !names.sound || first_of(&buckets, hash, &index) == BAD)
        return BAD;
    for (; index != 0; index = FIELD(&names, index, struct name_record, next)) {
        if (index >= names.count || seen++ == names.count)
            return BAD;

        const uint32_t kind = FIELD(&names, index, struct name_record, kind);
        const uint8_t *text = record(&names, index) + offsetof(struct name_record, name);

        if (FIELD(&names, index, struct name_record, hash) == hash && kind <= NAME_LABEL && (kinds >> kind & 1) != 0 &&
            memcmp(text, name, strlen(name) + 1) == 0) {
            *machine = FIELD(&names, index, struct name_record, machine);
            return ANSWER_FOUND;
        }
    }
    return ANSWER_UNKNOWN;
}

static bool read_address(const struct pool *addresses, uint64_t index, struct answer_address *address)
{
    const struct address_record *from = (const void *)record(addresses, index);

    *address = (struct answer_address){from->family, from->scope_id, from->flags, {0}};
    memcpy(address->bytes, from->bytes, 16);
    return address->family == 2 || address->family == 10;
}

static enum answer_result find_address(const struct slot_image *image, const struct question *question,
                                       struct answer_address *address, uint64_t *machine)
{
    const struct pool buckets = POOL(image, address_buckets, uint32_t);
    const struct pool addresses = POOL(image, addresses, struct address_record);
    const uint32_t hash = table_hash_address(question->family, question->bytes);
    uint64_t index, seen = 0;

    if (!buckets.sound || !addresses.sound || first_of(&buckets, hash, &index) == BAD)
        return BAD;
    for (; index != 0; index = FIELD(&addresses, index, struct address_record, next_in_bucket)) {
        if (index >= addresses.count || seen++ == addresses.count)
            return BAD;

        const bool sound = read_address(&addresses, index, address);

        if (sound && FIELD(&addresses, index, struct address_record, hash) == hash &&
            address->family == question->family && (address->flags & ADDRESS_REVERSE) != 0 &&
            memcmp(address->bytes, question->bytes, question->family == 2 ? 4 : 16) == 0) {
            *machine = FIELD(&addresses, index, struct address_record, machine);
            return ANSWER_FOUND;
        }
    }
    return ANSWER_UNKNOWN;
}

/* Where guesses by the distance and halvings, by turns, come to in a section of ranges, sorted or not. NOTHING: all begin
 * above the id. */
static uint64_t search(const struct pool *ranges, uint64_t count, uint64_t id)
{
#define BEGIN(index) ((uint64_t)FIELD(ranges, (index), struct range_record, host_first))
    uint64_t below = 0, above = count - 1;

    if (count == 0 || BEGIN(below) > id)
        return NOTHING;
    if (BEGIN(above) <= id)
        return above;
    for (int turn = 0; below + 1 < above; turn++) {
        const uint64_t between = above - below, far = id - BEGIN(below), whole = BEGIN(above) - BEGIN(below);
        uint64_t next = below + (turn % 2 == 0 ? between * far / whole : between / 2);

        if (next == below)
            next++;
        if (BEGIN(next) > id) {
            above = next;
        } else {
            below = next;
            if (id - BEGIN(below) < FIELD(ranges, below, struct range_record, length))
                return below;
        }
    }
    return below;
#undef BEGIN
}

static enum answer_result find_range(const struct slot_image *image, bool group, uint32_t id, uint64_t *machine,
                                     uint32_t *inside)
{
    const struct pool ranges =
        group ? POOL(image, gid_ranges, struct range_record) : POOL(image, uid_ranges, struct range_record);
    const struct slot_header *header = (const void *)image->bytes;

    if (!ranges.sound)
        return BAD;

    const uint64_t count = group ? header->gid_range_count : header->uid_range_count;

    if (count > ranges.count)
        return BAD;

    const uint64_t at = search(&ranges, count, id);

    if (at == NOTHING)
        return ANSWER_UNKNOWN;

    const uint64_t host = FIELD(&ranges, at, struct range_record, host_first);
    const uint64_t length = FIELD(&ranges, at, struct range_record, length);
    const uint64_t is = (uint64_t)FIELD(&ranges, at, struct range_record, inside_first) + (id - host);

    if (id - host >= length)
        return ANSWER_UNKNOWN;
    if (is > ID_LAST)
        return BAD;
    *machine = FIELD(&ranges, at, struct range_record, machine);
    *inside = (uint32_t)is;
    return ANSWER_FOUND;
}

static const struct machine_record *machine_record(const struct slot_image *image, uint64_t machine)
{
    const struct pool machines = POOL(image, machines, struct machine_record);

    return machines.sound && machine > 0 && machine < machines.count ? (const void *)record(&machines, machine) : NULL;
}

static enum answer_result host_id(const struct slot_image *image, bool group, uint64_t machine, uint64_t inside,
                                  uint32_t *host)
{
    const struct machine_record *of = machine_record(image, machine);
    const struct pool extents = POOL(image, extents, struct extent_record);
    uint64_t seen = 0;

    if (of == NULL || !extents.sound)
        return BAD;
    for (uint64_t i = group ? of->first_gid_extent : of->first_uid_extent; i != 0;
         i = FIELD(&extents, i, struct extent_record, next)) {
        if (i >= extents.count || seen++ == extents.count)
            return BAD;

        const uint64_t first = FIELD(&extents, i, struct extent_record, inside_first);
        const uint64_t length = FIELD(&extents, i, struct extent_record, length);

        if (inside >= first && inside < first + length) {
            const uint64_t id = FIELD(&extents, i, struct extent_record, host_first) + (inside - first);

            *host = (uint32_t)id;
            return id > ID_LAST ? BAD : ANSWER_FOUND;
        }
    }
    return ANSWER_UNKNOWN;
}

/* NULL: no string that the grammar allows. */
static bool take_string(char *copy, const char *text, size_t size, size_t longest)
{
    memcpy(copy, text, size);
    return strnlen(text, size) <= longest;
}

static enum answer_result addresses_of(const struct slot_image *image, uint64_t machine, struct host_answer *host)
{
    const struct machine_record *of = machine_record(image, machine);
    const struct pool addresses = POOL(image, addresses, struct address_record);

    if (of == NULL || !addresses.sound)
        return BAD;
    host->address_count = 0;
    for (uint64_t i = of->first_address; i != 0; i = FIELD(&addresses, i, struct address_record, next)) {
        if (i >= addresses.count || host->address_count == 128)
            return BAD;
        if (FIELD(&addresses, i, struct address_record, machine) != machine ||
            !read_address(&addresses, i, &host->addresses[host->address_count++]))
            return BAD;
    }
    return ANSWER_FOUND;
}

static enum answer_result name_host(const struct slot_image *image, uint64_t machine, struct host_answer *host)
{
    const struct machine_record *of = machine_record(image, machine);

    return of != NULL && take_string(host->name, of->name, 68, 64) && host->name[0] != '\0' ? ANSWER_FOUND : BAD;
}

static enum answer_result name_user(const struct slot_image *image, bool group, uint64_t machine, struct id_answer *id)
{
    const struct machine_record *of = machine_record(image, machine);
    char label[21] = {0}, name[128];

    if (of == NULL || !take_string(id->machine, of->name, 68, 64) || id->machine[0] == '\0' ||
        !take_string(label, of->label, 20, 17))
        return BAD;
    for (int attempt = 0; attempt < 2; attempt++) {
        const char *machine_name = attempt == 0 ? id->machine : label;
        char digits[11];
        int place = 10;

        digits[10] = '\0';
        for (uint64_t rest = id->inside_id, first = 1; first || rest != 0; rest /= 10, first = 0)
            digits[--place] = (char)('0' + rest % 10);
        stpcpy(stpcpy(stpcpy(stpcpy(name, group ? "vg-" : "vu-"), machine_name), "-"), digits + place);
        if (strlen(name) <= 31 && machine_name[0] != '\0' && (attempt > 0 || strchr(machine_name, '.') == NULL)) {
            strcpy(id->name, name);
            return ANSWER_FOUND;
        }
    }
    return ANSWER_UNKNOWN;
}

static enum answer_result judge_user(const struct slot_image *image, const struct question *question,
                                     const struct asked *asked, struct id_answer *id)
{
    const bool group = of_group(question);
    enum answer_result result;
    uint64_t machine;

    if (by_name(question)) {
        result = find_name(image, asked->name, 1u << NAME_MACHINE | 1u << NAME_LABEL, &machine);
        id->inside_id = (uint32_t)asked->inside;
        if (result == ANSWER_FOUND)
            result = host_id(image, group, machine, asked->inside, &id->host_id);
        if (result == ANSWER_FOUND && id->host_id < 65536)
            return ANSWER_UNKNOWN;
    } else {
        id->host_id = question->id;
        result = find_range(image, group, question->id, &machine, &id->inside_id);
    }
    if (result == ANSWER_FOUND)
        result = name_user(image, group, machine, id);
    if (result == ANSWER_FOUND && by_name(question) && strncmp(id->name, question->name, 68) != 0)
        return ANSWER_UNKNOWN;
    return result;
}

void judge_slot(const uint8_t *slot, uint64_t size, const struct question *question, struct verdict *verdict)
{
    const struct slot_image image = {slot, size};
    struct asked asked;
    uint64_t machine;

    understand(question, &asked);
    if (!is_of_host(question)) {
        verdict->result = judge_user(&image, question, &asked, &verdict->id);
    } else if (question->kind == QUESTION_HOST_BY_NAME) {
        verdict->result = find_name(&image, asked.name, 1u << NAME_MACHINE | 1u << NAME_ALIAS, &machine);
        if (verdict->result == ANSWER_FOUND)
            verdict->result = name_host(&image, machine, &verdict->host);
        if (verdict->result == ANSWER_FOUND)
            verdict->result = addresses_of(&image, machine, &verdict->host);
    } else {
        verdict->result = find_address(&image, question, &verdict->host.addresses[0], &machine);
        verdict->host.address_count = 1;
        if (verdict->result == ANSWER_FOUND)
            verdict->result = name_host(&image, machine, &verdict->host);
    }
}

/* --- the packet --- */

static bool host_is_told(const uint8_t *body, uint64_t size, const struct question *question, struct host_answer *host)
{
    if (size < 72 || size > sizeof *host)
        return false;
    memcpy(host, body, size);
    if (!take_string(host->name, (const char *)body, 68, 64) || host->name[0] == '\0' ||
        size != 72 + 28 * (uint64_t)host->address_count)
        return false;
    for (uint32_t i = 0; i < host->address_count; i++)
        if (host->addresses[i].family != 2 && host->addresses[i].family != 10)
            return false;
    return question->kind == QUESTION_HOST_BY_NAME ||
           (host->address_count == 1 && host->addresses[0].family == question->family &&
            memcmp(host->addresses[0].bytes, question->bytes, question->family == 2 ? 4 : 16) == 0);
}

static bool id_is_told(const uint8_t *body, uint64_t size, const struct question *question, struct id_answer *id)
{
    if (size != sizeof *id)
        return false;
    memcpy(id, body, size);
    if (strnlen(id->machine, 68) > 64 || id->machine[0] == '\0' || strnlen(id->name, 32) > 31 || id->name[0] == '\0' ||
        id->host_id < 65536 || id->host_id > ID_LAST || id->inside_id > ID_LAST)
        return false;
    return by_name(question) ? strncmp(id->name, question->name, 32) == 0 : id->host_id == question->id;
}

void judge_reply(const uint8_t *reply, uint64_t size, const struct question *question, struct verdict *verdict)
{
    uint32_t header[3];

    verdict->result = ANSWER_UNAVAILABLE;
    if (size < sizeof header)
        return;
    memcpy(header, reply, sizeof header);
    if (header[0] != 1 || header[1] != question->kind)
        return;
    reply += sizeof header;
    size -= sizeof header;
    if (header[2] == ANSWER_UNKNOWN && size == 0)
        verdict->result = ANSWER_UNKNOWN;
    else if (header[2] == ANSWER_FOUND && (is_of_host(question) ? host_is_told(reply, size, question, &verdict->host)
                                                                : id_is_told(reply, size, question, &verdict->id)))
        verdict->result = ANSWER_FOUND;
}

/* --- the answer --- */

void check_bounds(const struct verdict *verdict, const struct question *question)
{
    const struct host_answer *host = &verdict->host;
    const struct id_answer *id = &verdict->id;

    if (verdict->result > ANSWER_UNAVAILABLE)
        wrong("result %u", verdict->result);
    if (verdict->result != ANSWER_FOUND)
        return;
    if (!is_of_host(question)) {
        if (strnlen(id->name, 32) > 31 || strnlen(id->machine, 68) > 64 || id->machine[0] == '\0')
            wrong("a name of a user that is none");
        if (id->host_id < 65536 || id->host_id > ID_LAST || id->inside_id > ID_LAST)
            wrong("id %u, inside %u", id->host_id, id->inside_id);
        return;
    }
    if (strnlen(host->name, 68) > 64 || host->name[0] == '\0' || host->address_count > 128)
        wrong("a host without a name or an end");
    for (uint32_t i = 0; i < host->address_count; i++)
        if (host->addresses[i].family != 2 && host->addresses[i].family != 10)
            wrong("an address of family %u", host->addresses[i].family);
}

bool same(const struct verdict *one, const struct verdict *other, const struct question *question)
{
    if (one->result != other->result)
        return false;
    if (one->result != ANSWER_FOUND)
        return true;
    if (is_of_host(question))
        return strcmp(one->host.name, other->host.name) == 0 && one->host.address_count == other->host.address_count &&
               memcmp(one->host.addresses, other->host.addresses,
                      one->host.address_count * sizeof one->host.addresses[0]) == 0;
    return strcmp(one->id.name, other->id.name) == 0 && strcmp(one->id.machine, other->id.machine) == 0 &&
           one->id.host_id == other->id.host_id && one->id.inside_id == other->id.inside_id;
}

void compare(const struct verdict *verdict, const struct verdict *what, const struct question *question)
{
    if (!same(verdict, what, question))
        wrong("question %u \"%.68s\" %u: result %u where the grammar says %u, or other values", question->kind,
              question->name, question->id, what->result, verdict->result);
}
