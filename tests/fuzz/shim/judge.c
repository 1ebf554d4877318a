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

/* The next key of the section that may be of this hash, counted from the hash's own place; NOTHING: there is none. */
static uint64_t next_candidate(const struct pool *keys, uint32_t hash, uint64_t from)
{
    for (uint64_t n = from; n < keys->count; n++) {
        const uint32_t key = number(keys, (hash + n) % keys->count, 0);

        if (key == 0)
            return NOTHING;
        if (key / (1u << 24) == hash / (1u << 24))
            return n;
    }
    return NOTHING;
}

static uint32_t machine_of(uint32_t key)
{
    return key % (1u << 24) / 4;
}

static bool keys_are_sound(const struct pool *keys)
{
    return keys->sound && __builtin_popcountll(keys->count) <= 1;
}

static const struct machine_record *machine_record(const struct slot_image *image, uint64_t machine)
{
    const struct pool machines = POOL(image, machines, struct machine_record);

    return machines.sound && machine > 0 && machine < machines.count ? (const void *)record(&machines, machine) : NULL;
}

static const struct detail_record *detail_record(const struct slot_image *image, uint64_t machine)
{
    const struct pool details = POOL(image, details, struct detail_record);

    return details.sound && machine < details.count ? (const void *)record(&details, machine) : NULL;
}

/* The field that has the name of that kind, how long it may be in `longest`. NULL: the grammar has none there. */
static const char *name_of(const struct slot_image *image, uint64_t machine, uint32_t kind, size_t *longest)
{
    const struct machine_record *of = machine_record(image, machine);
    const struct detail_record *details = detail_record(image, machine);

    if (of == NULL)
        return NULL;
    if (kind == NAME_MACHINE && of->name[0] != '\0') {
        *longest = 31;
        return of->name;
    }
    *longest = kind == NAME_LABEL ? 17 : 64;
    if (details == NULL)
        return NULL;
    return kind == NAME_MACHINE ? details->name : kind == NAME_ALIAS ? details->alias : details->label;
}

static bool is_folded(const char *text, const char *name)
{
    for (; *text != '\0' && *name != '\0'; text++, name++)
        if ((*text >= 'A' && *text <= 'Z' ? *text | 0x20 : *text) != *name)
            return false;
    return *text == *name;
}

/* The name's machine, of a kind in the set. */
static enum answer_result find_name(const struct slot_image *image, const char *name, unsigned kinds, uint64_t *machine)
{
    const struct pool keys = POOL(image, name_keys, uint32_t);
    const uint32_t hash = table_hash_name(name, (uint32_t)strlen(name));
    size_t longest;

    if (!keys_are_sound(&keys))
        return BAD;
    for (uint64_t n = 0; (n = next_candidate(&keys, hash, n)) != NOTHING; n++) {
        const uint32_t key = number(&keys, (hash + n) % keys.count, 0);

        if ((kinds >> key % 4 & 1) == 0)
            continue;
        *machine = machine_of(key);

        const char *text = name_of(image, *machine, key % 4, &longest);

        if (text == NULL)
            return BAD;
        if (strnlen(text, longest + 1) <= longest && is_folded(text, name))
            return ANSWER_FOUND;
    }
    return ANSWER_UNKNOWN;
}

static enum answer_result addresses_of(const struct slot_image *image, uint64_t machine, struct host_answer *host)
{
    const struct machine_record *of = machine_record(image, machine);
    const struct pool addresses = POOL(image, addresses, struct address_record);

    if (of == NULL || !addresses.sound || of->inet_count > 3)
        return BAD;
    host->address_count = of->inet_count;
    for (uint32_t i = 0; i < of->inet_count; i++) {
        host->addresses[i] = (struct answer_address){2, 0, of->inet_reverse & 1u << i ? ADDRESS_REVERSE : 0, {0}};
        memcpy(host->addresses[i].bytes, &of->inet[4 * i], 4);
    }
    for (uint64_t i = of->more_addresses; i != 0; i = FIELD(&addresses, i, struct address_record, next)) {
        if (i >= addresses.count || host->address_count == 128)
            return BAD;

        const struct address_record *from = (const void *)record(&addresses, i);
        struct answer_address *to = &host->addresses[host->address_count++];

        *to = (struct answer_address){from->family, from->scope_id, from->flags, {0}};
        memcpy(to->bytes, from->bytes, 16);
        if (to->family != 2 && to->family != 10)
            return BAD;
    }
    return ANSWER_FOUND;
}

static enum answer_result find_address(const struct slot_image *image, const struct question *question,
                                       struct host_answer *host, uint64_t *machine)
{
    const struct pool keys = POOL(image, address_keys, uint32_t);
    const uint32_t hash = table_hash_address(question->family, question->bytes);

    if (!keys_are_sound(&keys))
        return BAD;
    for (uint64_t n = 0; (n = next_candidate(&keys, hash, n)) != NOTHING; n++) {
        *machine = machine_of(number(&keys, (hash + n) % keys.count, 0));
        if (addresses_of(image, *machine, host) == BAD)
            return BAD;
        for (uint32_t i = 0; i < host->address_count; i++) {
            const struct answer_address address = host->addresses[i];

            if (address.family == question->family && (address.flags & ADDRESS_REVERSE) != 0 &&
                memcmp(address.bytes, question->bytes, question->family == 2 ? 4 : 16) == 0) {
                host->addresses[0] = address;
                host->address_count = 1;
                return ANSWER_FOUND;
            }
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
    if (!ranges.sound)
        return BAD;

    const uint64_t at = search(&ranges, ranges.count, id);

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

static enum answer_result host_id(const struct slot_image *image, bool group, uint64_t machine, uint64_t inside,
                                  uint32_t *host)
{
    const struct machine_record *of = machine_record(image, machine);
    const struct detail_record *details = detail_record(image, machine);
    const struct pool extents = POOL(image, extents, struct extent_record);
    uint64_t seen = 0;

    if (of == NULL)
        return BAD;
    if ((of->extent_kinds & (group ? 2 : 1)) != 0 && inside >= of->inside_first &&
        inside < (uint64_t)of->inside_first + of->length) {
        const uint64_t id = of->host_first + (inside - of->inside_first);

        *host = (uint32_t)id;
        return id > ID_LAST ? BAD : ANSWER_FOUND;
    }
    if (details == NULL || !extents.sound)
        return BAD;
    for (uint64_t i = group ? details->more_gid_extents : details->more_uid_extents; i != 0;
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

/* The name of that kind into the answer. Behind the longest there is a zero. */
static bool take_name(const struct slot_image *image, uint64_t machine, uint32_t kind, char *copy)
{
    size_t longest;
    const char *text = name_of(image, machine, kind, &longest);

    if (text == NULL || text[longest] != '\0')
        return false;
    strcpy(copy, text);
    return true;
}

static enum answer_result name_host(const struct slot_image *image, uint64_t machine, struct host_answer *host)
{
    return take_name(image, machine, NAME_MACHINE, host->name) && host->name[0] != '\0' ? ANSWER_FOUND : BAD;
}

static enum answer_result name_user(const struct slot_image *image, bool group, uint64_t machine, struct id_answer *id)
{
    char label[21] = {0}, name[128];

    if (!take_name(image, machine, NAME_MACHINE, id->machine) || id->machine[0] == '\0')
        return BAD;
    for (int attempt = 0; attempt < 2; attempt++) {
        const char *machine_name = attempt == 0 ? id->machine : label;
        char digits[11];
        int place = 10;

        digits[10] = '\0';
        for (uint64_t rest = id->inside_id, first = 1; first || rest != 0; rest /= 10, first = 0)
            digits[--place] = (char)('0' + rest % 10);
        stpcpy(stpcpy(stpcpy(stpcpy(name, group ? "vg-" : "vu-"), machine_name), "-"), digits + place);
        if (strlen(name) <= 31 && machine_name[0] != '\0' && strchr(machine_name, '.') == NULL) {
            strcpy(id->name, name);
            return ANSWER_FOUND;
        }
        if (attempt == 0 && !take_name(image, machine, NAME_LABEL, label))
            return BAD;
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
        verdict->result = find_address(&image, question, &verdict->host, &machine);
        if (verdict->result == ANSWER_FOUND)
            verdict->result = name_host(&image, machine, &verdict->host);
    }
}

/* --- the packet --- */

/* False: no string that the grammar allows. */
static bool take_string(char *copy, const char *text, size_t size, size_t longest)
{
    memcpy(copy, text, size);
    return strnlen(text, size) <= longest;
}

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
